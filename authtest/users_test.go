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
	require.True(t, strings.HasPrefix(us["ada"].PasswordHash, "$argon2id$"), "updatingUsers is one")
	login(us)

	a := authtest.New(t, auth.Config{})
	_, err = a.Login(t.Context(), "ada", "password", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
}

// failingUsers is a user lookup that does not respond.
type failingUsers struct{ appUsers }

func (failingUsers) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, io.ErrUnexpectedEOF
}

func TestAs_SignsInWhileTheUserLookupFails(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Users: failingUsers{}, OnEvent: ignore})
	require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/admin"), admin)).Code)
	tokens := authtest.Tokens(t, a, admin)
	_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable, "the lookup may know the user")
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
