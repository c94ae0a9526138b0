package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestRefresh_ConcurrentCallsRotateOnce(t *testing.T) {
	t.Parallel()
	store := auth.NewMemoryStore()
	fx := newFixture(t, func(c *auth.Config) { c.Store = store })
	other := newFixture(t, func(c *auth.Config) { c.Store, c.Now = store, fx.clock.Now })
	tokens := fx.login(t)
	for range iterations(100, 1_000) {
		answers := make([]string, 64)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range answers {
			node := []*fixture{fx, other}[i%2]
			wg.Go(func() {
				<-start
				got, err := node.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
				if err == nil {
					answers[i] = got.Refresh
				}
			})
		}
		close(start)
		wg.Wait()
		require.NotEmpty(t, answers[0])
		require.NotEqual(t, tokens.Refresh, answers[0])
		for _, a := range answers {
			require.Equal(t, answers[0], a)
		}
		before, err := store.Get(context.Background(), "u1", tokens.SessionID)
		require.NoError(t, err)
		tokens.Refresh = answers[0]
		fx.clock.Advance(defaultCooldown)
		require.Equal(t, fx.clock.Now().Add(-defaultCooldown), before.RotatedAt)
	}
	s, err := store.Get(context.Background(), "u1", tokens.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 1+iterations(100, 1_000), s.Generation)
}

func TestRefresh_ConcurrentRequestsOverHTTP(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	server := httptest.NewServer(fx.Handler())
	defer server.Close()
	tokens := fx.login(t)
	post := func(token string) (int, map[string]any) {
		body, _ := json.Marshal(map[string]string{"refresh_token": token})
		resp, err := http.Post(server.URL+"/refresh", "application/json", bytes.NewReader(body))
		if err != nil {
			return 0, nil
		}
		defer resp.Body.Close()
		var answer map[string]any
		_ = json.NewDecoder(resp.Body).Decode(&answer)
		return resp.StatusCode, answer
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[any]int{}
	var access string
	for range 64 {
		wg.Go(func() {
			status, answer := post(tokens.Refresh)
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprint(status, answer["refresh_token"])]++
			access, _ = answer["access_token"].(string)
		})
	}
	wg.Wait()
	require.Len(t, seen, 1)
	require.Len(t, fx.events.take(auth.EventRefresh), 1)

	// The same token after the window is refused, and the session ends.
	_, err := fx.Verify(context.Background(), access)
	require.NoError(t, err)
	fx.clock.Advance(defaultWindow + time.Millisecond)
	status, answer := post(tokens.Refresh)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, "invalid_grant", answer["error"])
	_, err = fx.Verify(context.Background(), access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestRefresh_InCooldownReturnsTheSameToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	_, second := fx.refreshed(t)
	before, err := fx.store.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	for range 89 {
		fx.clock.Advance(time.Second)
		again, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.Equal(t, second.Refresh, again.Refresh)
		require.NotEqual(t, second.Access, again.Access)
	}
	after, err := fx.store.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Empty(t, fx.events.take(auth.EventRetry))

	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: thief})
	require.NoError(t, err)
	repeats := fx.events.take(auth.EventRetry)
	require.Len(t, repeats, 1, "another device during the cooldown is an event")
	require.Equal(t, thief, repeats[0].Device)
	require.Equal(t, laptop, repeats[0].Session.Device)

	fx.clock.Advance(time.Second)
	third, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.NotEqual(t, second.Refresh, third.Refresh, "the cooldown is over")
}

func TestRefresh_RetryNeverExtendsTheWindow(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, second := fx.refreshed(t)
	for range 30 { // one second apart, until the end of the window
		fx.clock.Advance(time.Second)
		again, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.Equal(t, second.Refresh, again.Refresh)
		require.Equal(t, second.RefreshExpiresAt, again.RefreshExpiresAt)
	}
	require.Len(t, fx.events.take(auth.EventRetry), 30)
	fx.clock.Advance(time.Millisecond)
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_SpentTokenAfterWindowEndsSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, second := fx.refreshed(t)
	moved := fx.clock.Now()
	fx.clock.Advance(time.Hour)
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused)

	reuse := fx.events.take(auth.EventReuse)
	require.Len(t, reuse, 1)
	e := reuse[0]
	require.Equal(t, thief, e.Device)
	require.Equal(t, fx.clock.Now(), e.Time)
	require.Equal(t, laptop, e.Session.Device)
	require.Equal(t, moved, e.Session.RotatedAt)
	require.EqualValues(t, 1, e.Generation)
	require.EqualValues(t, 2, e.Session.Generation)

	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "the victim's token must be refused too")
	_, err = fx.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_OlderSpentTokenEndsSessionWithinWindow(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, second := fx.refreshed(t)
	fx.clock.Advance(defaultCooldown)
	_, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_WithoutAWindowARetryIsReuse(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.RetryWindow = -1 })
	first := fx.login(t)
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	third, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.NotEqual(t, second.Refresh, third.Refresh, "there is no cooldown either")
	fx.clock.Advance(-time.Second) // a node whose clock is behind does the same
	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_ReuseIsUnavailableUntilTheStoreHasRevoked(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, second := fx.refreshed(t)
	fx.clock.Advance(time.Minute)
	fx.store.failBefore("Revoke", errStore)
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = fx.Verify(context.Background(), second.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "this process must refuse it at once")
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrUnavailable)

	// After an outage of any length, the session is still revoked.
	fx.clock.Advance(time.Hour)
	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	fx.store.failBefore("Revoke", nil)
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = fx.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_StoreErrorKeepsTheTokenValid(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		fx := newFixture(t)
		first := fx.login(t)
		set := fx.store.failBefore
		if when == "after" {
			set = fx.store.failAfter
		}
		set("Rotate", errStore)
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrUnavailable, when)
		require.Len(t, fx.events.take(auth.EventFault), 1)
		_, err = fx.Verify(context.Background(), first.Access)
		require.NoError(t, err, "access tokens must stay valid during an outage")
		set("Rotate", nil)
		fx.clock.Advance(defaultWindow)
		_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err, when)
	}
}

func TestRefresh_UserLookupErrorChangesNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	fx.users.fail = errors.New("database of a test")
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Zero(t, fx.store.count("Rotate"))
	fx.users.fail = nil
	fx.users.onFind = func() { panic("a lookup of the application") }
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	fx.users.onFind = nil
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
}

func TestRefresh_UserThatCannotBeUsedIsAServerError(t *testing.T) {
	t.Parallel()
	for text, change := range map[string]func(*auth.User){
		`FindByID("u1") returned the user "u2"`: func(u *auth.User) { u.ID = "u2" },
		`FindByID("u1") returned the user "U1"`: func(u *auth.User) { u.ID = "U1" },
		"User.ID is empty":                      func(u *auth.User) { *u = auth.User{} },
		"User.Roles[0] must be":                 func(u *auth.User) { u.Roles = []string{""} },
	} {
		fx := newFixture(t)
		first := fx.login(t)
		fx.users.change("u1", change)
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorContains(t, err, text)
		require.Equal(t, 500, auth.ResponseFor(err).Status, text)
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1, text)
		require.ErrorContains(t, faults[0].Err, text)
		require.Zero(t, fx.store.count("Rotate"), "the token is not spent")
	}
}

func TestRefresh_InvalidClaimsDoNotSpendTheToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"Sub": "u2"} })
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorContains(t, err, "reserved")
	require.Zero(t, fx.store.count("Rotate"))
}

func TestRefresh_DeletedOrDisabledUserLosesTheSession(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*users){
		func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		func(u *users) { u.mu.Lock(); defer u.mu.Unlock(); delete(u.byID, "u1") },
	} {
		fx := newFixture(t)
		first := fx.login(t)
		change(fx.users)
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = fx.Verify(context.Background(), first.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = fx.store.Store.Get(context.Background(), "u1", first.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestRefresh_UsesTheCurrentRoles(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	fx.users.change("u1", func(u *auth.User) { u.Roles = []string{"user"} })
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	c, err := fx.Verify(context.Background(), second.Access)
	require.NoError(t, err)
	require.Equal(t, []string{"user"}, c.Roles)
}

func TestRefresh_NewerTokenRepairsTheStore(t *testing.T) {
	t.Parallel()
	// The store loses an acknowledged write.
	memory := auth.NewMemoryStore()
	fx := newFixture(t, func(c *auth.Config) { c.Store, c.Cookies = memory, &auth.Cookies{} })
	_, second := fx.refreshed(t)
	s, err := memory.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.NoError(t, memory.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{s.ID}, Until: fx.clock.Now().Add(-time.Hour)}))
	s.Generation = 1
	require.NoError(t, memory.Create(context.Background(), s))

	again, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.Equal(t, second.Refresh, again.Refresh)
	w := httptest.NewRecorder()
	fx.SetCookies(w, again)
	require.Len(t, w.Result().Cookies(), 1, "only the access cookie")
	s, err = memory.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Generation)
	require.NotEmpty(t, fx.events.take(auth.EventFault))
}

func TestRefresh_ContradictoryStoreRevokesNothing(t *testing.T) {
	t.Parallel()
	for name, rotate := range map[string]func(auth.Session) (auth.Session, bool){
		"older, not rotated": func(s auth.Session) (auth.Session, bool) { s.Generation = 0; return s, false },
		"rotated twice":      func(s auth.Session) (auth.Session, bool) { s.Generation += 2; return s, true },
		"of another subject": func(s auth.Session) (auth.Session, bool) { s.Subject, s.Generation = "u2", 2; return s, true },
		"another session":    func(s auth.Session) (auth.Session, bool) { s.ID, s.Generation = "x", 2; return s, true },
		"rotated back":       func(s auth.Session) (auth.Session, bool) { s.Generation = 0; return s, true },
	} {
		fx := newFixture(t)
		first := fx.login(t)
		fx.store.rotate = rotate
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		require.Len(t, fx.events.take(auth.EventFault), 1, name)
		require.Zero(t, fx.store.count("Revoke"), name)
		fx.store.rotate = nil
		_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err, name)
	}
}

func TestRefresh_StoreCannotExtendASession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	login := fx.clock.Now()
	fx.store.rotate = func(s auth.Session) (auth.Session, bool) {
		s.Generation, s.CreatedAt, s.ExpiresAt = 2, s.CreatedAt.AddDate(5, 0, 0), s.ExpiresAt.AddDate(5, 0, 0)
		return s, true
	}
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.False(t, second.RefreshExpiresAt.After(login.Add(30*24*time.Hour)))
}

func TestRefresh_LongerIdleTTLAppliesAfterARotation(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	fx := newFixture(t, func(c *auth.Config) { c.Store, c.AccessTTL, c.IdleTTL = memory, 20*time.Minute, 30*time.Minute })
	after := newFixture(t, func(c *auth.Config) { c.Store, c.Now, c.AccessTTL = memory, fx.clock.Now, time.Hour })
	_, second := fx.refreshed(t)
	resting, err := after.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.False(t, resting.AccessExpiresAt.After(second.RefreshExpiresAt), "in its cooldown, the end does not change")
	fx.clock.Advance(2 * time.Minute)
	moved, err := after.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.True(t, moved.AccessExpiresAt.After(second.RefreshExpiresAt))
}

func TestRefresh_ReportsARotationInTheFuture(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	fx.clock.Advance(time.Minute)
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	fx.clock.Advance(-10 * time.Second)
	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.Empty(t, fx.events.take(auth.EventFault))
	fx.clock.Advance(-time.Second)
	_, err = fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err, "a negative age must count as zero")
	require.Len(t, fx.events.take(auth.EventFault), 1)
}

func TestRefresh_CanceledRequestStillEndsAReusedSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, _ := fx.refreshed(t)
	fx.clock.Advance(time.Minute)
	ctx, hangUp := context.WithCancel(context.Background())
	fx.store.rotate = func(s auth.Session) (auth.Session, bool) {
		hangUp()
		return s, false
	}
	_, err := fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused)
	_, err = fx.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_RevocationDuringRotateWins(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	_, second := fx.refreshed(t)
	fx.store.rotate = func(s auth.Session) (auth.Session, bool) {
		require.NoError(t, fx.Revoke(context.Background(), "u1", s.ID))
		return s, false
	}
	_, err := fx.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestRefresh_RevokesAStillStoredSessionOnceAMinute(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	fx := newFixture(t, func(c *auth.Config) { c.Store = memory })
	first := fx.login(t)
	s, err := memory.Get(context.Background(), "u1", first.SessionID)
	require.NoError(t, err)
	require.NoError(t, fx.Revoke(context.Background(), "u1", s.ID))
	for minute := range 3 {
		require.NoError(t, memory.Create(context.Background(), s)) // a failover lost the revocation
		for range 5 {
			_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
		}
		require.Equal(t, 1+minute, fx.store.count("Get"))
		require.Equal(t, 2+minute, fx.store.count("Revoke"))
		_, err = memory.Get(context.Background(), "u1", s.ID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		fx.clock.Advance(time.Minute)
	}
}

func TestRefresh_EndsAtIdleTTLAndSessionTTL(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = time.Hour, 3*time.Hour })
	tokens := fx.login(t)
	start := fx.clock.Now()
	for fx.clock.Now().Before(start.Add(3*time.Hour - 50*time.Minute)) {
		fx.clock.Advance(50 * time.Minute)
		var err error
		tokens, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.False(t, tokens.RefreshExpiresAt.After(start.Add(3*time.Hour)))
		require.False(t, tokens.AccessExpiresAt.After(tokens.RefreshExpiresAt))
	}
	fx.clock.Advance(start.Add(3 * time.Hour).Sub(fx.clock.Now()))
	_, err := fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)

	idle := fx.login(t)
	fx.clock.Advance(time.Hour - time.Millisecond)
	_, err = fx.Refresh(context.Background(), idle.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	idle = fx.login(t)
	fx.clock.Advance(time.Hour)
	_, err = fx.Refresh(context.Background(), idle.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestRefresh_ShorterSessionTTLAppliesToOldTokens(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	fx := newFixture(t, func(c *auth.Config) { c.Store = memory })
	first := fx.login(t)
	after := newFixture(t, func(c *auth.Config) {
		c.Store, c.Now, c.IdleTTL, c.SessionTTL = memory, fx.clock.Now, time.Hour, time.Hour
	})
	fx.clock.Advance(time.Hour)
	_, err := after.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

// A process with shorter lifetimes may rotate the session, as in a deployment that
// changes them. A retry at another process then ends by the record's ExpiresAt too.
func TestRefresh_RetryEndsWithTheSessionThatAnotherProcessRotated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, shorter := range map[string]func(*auth.Config){
		"IdleTTL":    func(c *auth.Config) { c.AccessTTL, c.IdleTTL = time.Minute, 5*time.Minute },
		"SessionTTL": func(c *auth.Config) { c.AccessTTL, c.IdleTTL, c.SessionTTL = time.Minute, 5*time.Minute, 6*time.Minute },
	} {
		fx := newFixture(t)
		first := fx.login(t)
		fx.clock.Advance(2 * time.Minute)
		second, err := newProcess(t, fx, shorter).Refresh(ctx, first.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		retry, err := fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		require.Equal(t, second.Refresh, retry.Refresh, name)
		require.Equal(t, second.RefreshExpiresAt, retry.RefreshExpiresAt, name)
		require.Equal(t, second.RefreshExpiresAt, retry.AccessExpiresAt, name)
		require.Equal(t, second.RefreshExpiresAt, verifiedClaims(t, fx.Authenticator, retry.Access).SessionExpiresAt, name)
	}

	// If the record has expired within the retry window, so has the session.
	fx := newFixture(t)
	first := fx.login(t)
	fx.clock.Advance(2 * time.Minute)
	shortest := newProcess(t, fx, func(c *auth.Config) {
		c.AccessTTL, c.IdleTTL, c.RetryWindow, c.Leeway = 2*time.Second, 2*time.Second, -1, -1
	})
	_, err := shortest.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.clock.Advance(2 * time.Second)
	_, err = fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	require.Equal(t, "login", auth.ResponseFor(err).Action)
	require.Empty(t, fx.store.passed(), "nothing ends")
}

// In the cooldown, the presented token is returned. If SessionTTL was shortened, it
// ends with the session.
func TestRefresh_TheSameTokenEndsWithAShortenedSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	_, second := fx.refreshed(t)
	later := newProcess(t, fx, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = time.Hour, time.Hour })
	again, err := later.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, second.Refresh, again.Refresh)
	require.Equal(t, fx.clock.Now().Add(time.Hour), again.RefreshExpiresAt)
	require.False(t, again.AccessExpiresAt.After(again.RefreshExpiresAt))
}
