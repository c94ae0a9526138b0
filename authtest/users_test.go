package authtest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// updatingUsers are appUsers whose weak password hashes are replaced.
type updatingUsers struct{ appUsers }

func (us updatingUsers) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	u := us.appUsers[id]
	if u.PasswordHash == old {
		u.PasswordHash = next
	}
	us.appUsers[id] = u
	return nil
}

func TestNew_LoginsAskTheApplication(t *testing.T) {
	t.Parallel()
	weak, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.MinCost)
	require.NoError(t, err)
	us := appUsers{"ada": {ID: "ada", PasswordHash: string(weak)}}
	login := func(users auth.Users) *http.Response {
		a := authtest.New(t, auth.Config{Users: users})
		authtest.Tokens(t, a, auth.User{ID: "bob"})
		r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(`{"login":"ada","password":"password"}`))
		r.Header.Set("Content-Type", "application/json")
		resp := respond(a, r).Result()
		require.Equal(t, "ada", authtest.SignedIn(t, a, resp).Subject)
		return resp
	}
	login(us)
	require.Equal(t, string(weak), us["ada"].PasswordHash, "appUsers is no auth.PasswordUpdater")
	login(updatingUsers{us})
	require.True(t, strings.HasPrefix(us["ada"].PasswordHash, "$argon2id$v=19$m=64,t=1,"), "updatingUsers is one; the Hasher is fast")
	login(us)

	a := authtest.New(t, auth.Config{})
	_, err = a.Login(t.Context(), "ada", "password", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
}

// unreliableUsers are appUsers that stop responding when down is set.
type unreliableUsers struct {
	appUsers
	down bool
}

func (us *unreliableUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	if us.down {
		return auth.User{}, io.ErrUnexpectedEOF
	}
	return us.appUsers.FindByID(ctx, id)
}

func TestAs_SignsInWhileTheUserLookupFails(t *testing.T) {
	t.Parallel()
	us := &unreliableUsers{down: true}
	a := authtest.New(t, auth.Config{Users: us, OnEvent: ignore})
	require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/admin"), admin)).Code)
	tokens := authtest.Tokens(t, a, admin)
	_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	us.down = false
	_, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "a user of whom it was not known that the application does not know them")
}

func TestAs_UserWhomTheApplicationAddsLater(t *testing.T) {
	t.Parallel()
	us := &unreliableUsers{appUsers: appUsers{}}
	a := authtest.New(t, auth.Config{Users: us, OnEvent: ignore})
	tokens := authtest.Tokens(t, a, admin)
	us.down = true
	_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	us.down, us.appUsers["u1"] = false, auth.User{ID: "u1", Roles: []string{"guest"}}
	tokens, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	claims, err := a.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, []string{"guest"}, claims.Roles)
}

func TestNew_ClockFollowsNow(t *testing.T) {
	t.Parallel()
	now := authtest.NewClock(time.Date(2026, 11, 20, 12, 0, 0, 5, time.UTC))
	a := authtest.New(t, auth.Config{Now: now.Now})
	b := authtest.New(t, auth.Config{Now: a.Clock.Now})
	a.Clock.Advance(time.Minute)
	require.Equal(t, time.Date(2026, 11, 20, 12, 1, 0, 5, time.UTC), b.Clock.Now())
	now.Advance(time.Hour)
	require.Equal(t, time.Date(2026, 11, 20, 13, 1, 0, 5, time.UTC), b.Clock.Now())
	claims, err := b.Verify(t.Context(), authtest.Tokens(t, b, admin).Access)
	require.NoError(t, err)
	require.True(t, claims.IssuedAt.Equal(time.Date(2026, 11, 20, 13, 1, 0, 0, time.UTC)))
	claims, err = b.Verify(t.Context(), authtest.Tokens(t, b, admin, authtest.LoginAge(90*time.Minute+700*time.Millisecond)).Access)
	require.NoError(t, err)
	require.True(t, claims.AuthTime.Equal(time.Date(2026, 11, 20, 11, 30, 59, 0, time.UTC)))
}

// silentStore is a store whose feed does not respond.
type silentStore struct{ *auth.MemoryStore }

func (silentStore) Changes(ctx context.Context, _ string, _ time.Duration) ([]auth.Revocation, string, bool, error) {
	<-ctx.Done()
	return nil, "", false, ctx.Err()
}

func TestNew_ReportsAFeedThatDoesNotRespond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failures, stopped := failuresOf(t, func(t testing.TB) {
			authtest.New(t, auth.Config{Store: silentStore{auth.NewMemoryStore()}, OnEvent: ignore})
		})
		require.Equal(t, "authtest.New: Config.Store did not return its revocation feed within 10s", failures)
		require.True(t, stopped)
	})
}
