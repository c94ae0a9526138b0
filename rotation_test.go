package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

var (
	laptop = auth.Device{UserAgent: "laptop", IP: netip.MustParseAddr("192.0.2.1")}
	thief  = auth.Device{UserAgent: "thief", IP: netip.MustParseAddr("198.51.100.9")}
)

// refreshed returns the tokens of generation 2, and those of generation 1.
func (b *bench) refreshed(t testing.TB) (first, second auth.Tokens) {
	t.Helper()
	first = b.login(t)
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	return first, second
}

func TestRefresh_SixtyFourAtOnceAreOneGenerationAndEqualAnswers(t *testing.T) {
	t.Parallel()
	store := auth.NewMemoryStore()
	b := newBench(t, func(c *auth.Config) { c.Store = store })
	other := newBench(t, func(c *auth.Config) { c.Store, c.Now = store, b.clock.Now })
	tokens := b.login(t)
	for range long(100, 1_000) {
		answers := make([]string, 64)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range answers {
			node := []*bench{b, other}[i%2]
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
		b.clock.advance(31 * time.Second)
		require.Equal(t, b.clock.Now().Add(-31*time.Second), before.RotatedAt)
	}
	s, err := store.Get(context.Background(), "u1", tokens.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 1+long(100, 1_000), s.Generation)
}

func TestRefresh_SixtyFourAtOnceOverHTTP(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := httptest.NewServer(b.Handler())
	defer server.Close()
	tokens := b.login(t)
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
	require.Len(t, b.events.take(auth.EventRefresh), 1)

	// The same token again after the window: 401, and everything is dead.
	_, err := b.Verify(context.Background(), access)
	require.NoError(t, err)
	b.clock.advance(11 * time.Second)
	status, answer := post(tokens.Refresh)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, "invalid_grant", answer["error"])
	_, err = b.Verify(context.Background(), access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestRefresh_RestingSessionAnswersWithTheSameTokenAndWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, second := b.refreshed(t)
	before, err := b.store.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	for range 29 {
		b.clock.advance(time.Second)
		again, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.Equal(t, second.Refresh, again.Refresh)
		require.NotEqual(t, second.Access, again.Access)
	}
	after, err := b.store.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Empty(t, b.events.take(auth.EventRetry))

	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: thief})
	require.NoError(t, err)
	repeats := b.events.take(auth.EventRetry)
	require.Len(t, repeats, 1, "another device while it rests is an event")
	require.Equal(t, thief, repeats[0].Device)
	require.Equal(t, laptop, repeats[0].Session.Device)

	b.clock.advance(time.Second)
	third, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.NotEqual(t, second.Refresh, third.Refresh, "it has rested")
}

func TestRefresh_RepeatNeverExtendsTheWindow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := b.refreshed(t)
	for range 10 { // one second apart, up to the last instant of the window
		b.clock.advance(time.Second)
		again, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.Equal(t, second.Refresh, again.Refresh)
		require.Equal(t, second.RefreshExpiresAt, again.RefreshExpiresAt)
	}
	require.Len(t, b.events.take(auth.EventRetry), 10)
	b.clock.advance(time.Millisecond)
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_SpentTokenAfterWindowEndsSessionAndTellsOfBothParties(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := b.refreshed(t)
	moved := b.clock.Now()
	b.clock.advance(time.Hour)
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused)

	reuse := b.events.take(auth.EventReuse)
	require.Len(t, reuse, 1)
	e := reuse[0]
	require.Equal(t, thief, e.Device)
	require.Equal(t, b.clock.Now(), e.Time)
	require.Equal(t, laptop, e.Session.Device)
	require.Equal(t, moved, e.Session.RotatedAt)
	require.EqualValues(t, 1, e.Generation)
	require.EqualValues(t, 2, e.Session.Generation)

	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "the victim's token is dead too")
	_, err = b.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_TokenOlderThanTheLastSpentEndsSessionWithinTheWindow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := b.refreshed(t)
	b.clock.advance(31 * time.Second)
	_, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_WithoutAWindowNothingIsRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.RetryWindow = -1 })
	first := b.login(t)
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	third, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.NotEqual(t, second.Refresh, third.Refresh, "nor does it rest")
	b.clock.advance(-time.Second) // nor does a node whose clock is behind
	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

func TestRefresh_ReuseIsAnswered503UntilTheStoreHasTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := b.refreshed(t)
	b.clock.advance(time.Minute)
	b.store.failBefore("Revoke", errStore)
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = b.Verify(context.Background(), second.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "this process knows at once")
	_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrUnavailable)

	// However long the store is away, the session does not come back.
	b.clock.advance(time.Hour)
	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	b.store.failBefore("Revoke", nil)
	_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = b.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_StoreFaultIsUnavailableAndTheTokenStaysGood(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		b := newBench(t)
		first := b.login(t)
		set := b.store.failBefore
		if when == "after" {
			set = b.store.failAfter
		}
		set("Rotate", errStore)
		_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrUnavailable, when)
		require.Len(t, b.events.take(auth.EventFault), 1)
		_, err = b.Verify(context.Background(), first.Access)
		require.NoError(t, err, "access tokens go on through an outage")
		set("Rotate", nil)
		b.clock.advance(10 * time.Second)
		_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err, when)
	}
}

func TestRefresh_UserLookupFaultChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	b.users.fail = errors.New("database of a test")
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Zero(t, b.store.count("Rotate"))
	b.users.fail = nil
	b.users.onFind = func() { panic("a lookup of the application") }
	_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	b.users.onFind = nil
	_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
}

func TestRefresh_AnotherUserThanAskedForIsAFault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.ID = "u2" })
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
}

func TestRefresh_ClaimsThatCannotBeMintedDoNotSpendTheToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"Sub": "u2"} })
	_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorContains(t, err, "reserved")
	require.Zero(t, b.store.count("Rotate"))
}

func TestRefresh_GoneOrDisabledUserLosesTheSession(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*users){
		func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		func(u *users) { u.mu.Lock(); defer u.mu.Unlock(); delete(u.byID, "u1") },
	} {
		b := newBench(t)
		first := b.login(t)
		change(b.users)
		_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = b.Verify(context.Background(), first.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = b.store.Store.Get(context.Background(), "u1", first.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestRefresh_TakesRolesAsTheyAreNow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.Roles = []string{"user"} })
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	c, err := b.Verify(context.Background(), second.Access)
	require.NoError(t, err)
	require.Equal(t, []string{"user"}, c.Roles)
}

// scriptedStore answers Rotate as it is told.
type scriptedStore struct {
	auth.Store
	rotate func(s auth.Session) (auth.Session, bool)
}

func (f *scriptedStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if f.rotate == nil {
		return f.Store.Rotate(ctx, subject, id, r)
	}
	s, err := f.Get(ctx, subject, id)
	if err != nil {
		return s, false, err
	}
	s, rotated := f.rotate(s)
	return s, rotated, nil
}

func TestRefresh_GenerationAheadOfTheStoreHealsAndLeavesTheCookieAlone(t *testing.T) {
	t.Parallel()
	// The store forgets a write that it had acknowledged.
	memory := auth.NewMemoryStore()
	b := newBench(t, func(c *auth.Config) { c.Store, c.Cookies = memory, &auth.Cookies{} })
	_, second := b.refreshed(t)
	s, err := memory.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.NoError(t, memory.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{s.ID}, Until: b.clock.Now().Add(-time.Hour)}))
	s.Generation = 1
	require.NoError(t, memory.Create(context.Background(), s))

	again, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.Equal(t, second.Refresh, again.Refresh)
	w := httptest.NewRecorder()
	b.SetCookies(w, again)
	require.Len(t, w.Result().Cookies(), 1, "only the access cookie")
	s, err = memory.Get(context.Background(), "u1", second.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Generation)
	require.NotEmpty(t, b.events.take(auth.EventFault))
}

func TestRefresh_StoreThatAnswersNonsenseRevokesNobody(t *testing.T) {
	t.Parallel()
	for name, rotate := range map[string]func(auth.Session) (auth.Session, bool){
		"older and not moved": func(s auth.Session) (auth.Session, bool) { s.Generation = 0; return s, false },
		"moved by two":        func(s auth.Session) (auth.Session, bool) { s.Generation += 2; return s, true },
		"of another subject":  func(s auth.Session) (auth.Session, bool) { s.Subject, s.Generation = "u2", 2; return s, true },
		"another session":     func(s auth.Session) (auth.Session, bool) { s.ID, s.Generation = "x", 2; return s, true },
		"moved back":          func(s auth.Session) (auth.Session, bool) { s.Generation = 0; return s, true },
	} {
		script := &scriptedStore{Store: auth.NewMemoryStore()}
		b := newBench(t, func(c *auth.Config) { c.Store = script })
		first := b.login(t)
		script.rotate = rotate
		_, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		require.Len(t, b.events.take(auth.EventFault), 1, name)
		require.Zero(t, b.store.count("Revoke"), name)
		script.rotate = nil
		_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err, name)
	}
}

func TestRefresh_StoreCannotMakeASessionLiveLonger(t *testing.T) {
	t.Parallel()
	script := &scriptedStore{Store: auth.NewMemoryStore()}
	b := newBench(t, func(c *auth.Config) { c.Store = script })
	first := b.login(t)
	login := b.clock.Now()
	script.rotate = func(s auth.Session) (auth.Session, bool) {
		s.Generation, s.CreatedAt, s.ExpiresAt = 2, s.CreatedAt.AddDate(5, 0, 0), s.ExpiresAt.AddDate(5, 0, 0)
		return s, true
	}
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.False(t, second.RefreshExpiresAt.After(login.Add(30*24*time.Hour)))
}

func TestRefresh_LongerIdleLifetimeCountsOnceTheSessionHasMoved(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	b := newBench(t, func(c *auth.Config) { c.Store, c.AccessTTL, c.IdleTTL = memory, 20*time.Minute, 30*time.Minute })
	after := newBench(t, func(c *auth.Config) { c.Store, c.Now, c.AccessTTL = memory, b.clock.Now, time.Hour })
	_, second := b.refreshed(t)
	resting, err := after.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.False(t, resting.AccessExpiresAt.After(second.RefreshExpiresAt), "it rests, and ends when it was going to")
	b.clock.advance(time.Minute)
	moved, err := after.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.True(t, moved.AccessExpiresAt.After(second.RefreshExpiresAt))
}

func TestRefresh_SessionMovedAheadOfThisClockIsAnEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	b.clock.advance(time.Minute)
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	b.clock.advance(-10 * time.Second)
	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	require.Empty(t, b.events.take(auth.EventFault))
	b.clock.advance(-time.Second)
	_, err = b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err, "a negative age is zero")
	require.Len(t, b.events.take(auth.EventFault), 1)
}

func TestRefresh_ClientThatHungUpStillEndsAReusedSession(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	script := &scriptedStore{Store: memory}
	b := newBench(t, func(c *auth.Config) { c.Store = script })
	first, _ := b.refreshed(t)
	b.clock.advance(time.Minute)
	ctx, hangUp := context.WithCancel(context.Background())
	script.rotate = func(s auth.Session) (auth.Session, bool) {
		hangUp()
		return s, false
	}
	_, err := b.Refresh(ctx, first.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused)
	_, err = memory.Get(context.Background(), "u1", first.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRefresh_RevocationThatArrivesDuringRotateWins(t *testing.T) {
	t.Parallel()
	script := &scriptedStore{Store: auth.NewMemoryStore()}
	b := newBench(t, func(c *auth.Config) { c.Store = script })
	_, second := b.refreshed(t)
	script.rotate = func(s auth.Session) (auth.Session, bool) {
		require.NoError(t, b.Revoke(context.Background(), "u1", s.ID))
		return s, false
	}
	_, err := b.Refresh(context.Background(), second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestRefresh_RevokedSessionThatTheStoreStillHasIsRevokedAgainOnceAMinute(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	b := newBench(t, func(c *auth.Config) { c.Store = memory })
	first := b.login(t)
	s, err := memory.Get(context.Background(), "u1", first.SessionID)
	require.NoError(t, err)
	require.NoError(t, b.Revoke(context.Background(), "u1", s.ID))
	for minute := range 3 {
		require.NoError(t, memory.Create(context.Background(), s)) // a failover lost its end
		for range 5 {
			_, err = b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
		}
		require.Equal(t, 1+minute, b.store.count("Get"))
		require.Equal(t, 2+minute, b.store.count("Revoke"))
		_, err = memory.Get(context.Background(), "u1", s.ID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		b.clock.advance(time.Minute)
	}
}

func TestRefresh_EndsAtTheIdleAndAtTheAbsoluteLifetime(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = time.Hour, 3*time.Hour })
	tokens := b.login(t)
	start := b.clock.Now()
	for b.clock.Now().Before(start.Add(3*time.Hour - 50*time.Minute)) {
		b.clock.advance(50 * time.Minute)
		var err error
		tokens, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.False(t, tokens.RefreshExpiresAt.After(start.Add(3*time.Hour)))
		require.False(t, tokens.AccessExpiresAt.After(tokens.RefreshExpiresAt))
	}
	b.clock.advance(start.Add(3 * time.Hour).Sub(b.clock.Now()))
	_, err := b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)

	idle := b.login(t)
	b.clock.advance(time.Hour - time.Millisecond)
	_, err = b.Refresh(context.Background(), idle.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	idle = b.login(t)
	b.clock.advance(time.Hour)
	_, err = b.Refresh(context.Background(), idle.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestRefresh_ShorterAbsoluteLifetimeCountsForOldTokens(t *testing.T) {
	t.Parallel()
	memory := auth.NewMemoryStore()
	b := newBench(t, func(c *auth.Config) { c.Store = memory })
	first := b.login(t)
	after := newBench(t, func(c *auth.Config) {
		c.Store, c.Now, c.IdleTTL, c.SessionTTL = memory, b.clock.Now, time.Hour, time.Hour
	})
	b.clock.advance(time.Hour)
	_, err := after.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestLogin_UnknownWrongAndDisabledAreOneAnswerAndGoThroughTheKDF(t *testing.T) {
	t.Parallel()
	// A hasher that is full tells who asks it for work.
	full := &password.Hasher{Memory: 64, Time: 1, Queue: -1}
	b := newBench(t, func(c *auth.Config) { c.Hasher = full })
	b.users.change("u2", func(u *auth.User) { u.Disabled = true })
	b.users.byID["u3"] = auth.User{ID: "u3", Username: "oauth"}
	b.users.byID["u4"] = auth.User{ID: "u4", Username: "broken", PasswordHash: "$argon2id$nonsense"}
	try := func(login, pass string) error {
		_, err := b.Login(context.Background(), login, pass, auth.SessionOptions{})
		return err
	}
	whys := map[string]bool{}
	for _, who := range [][2]string{{"nobody", pass}, {"ada", "wrong"}, {"bob", pass}, {"bob", "wrong"}, {"oauth", pass}, {"oauth", ""}, {"broken", pass}, {"ada", strings.Repeat("x", 1025)}} {
		require.Equal(t, auth.ErrInvalidCredentials, try(who[0], who[1]), who)
		refused := b.events.take(auth.EventLoginRefused)
		require.Len(t, refused, 1)
		whys[refused[0].Err.Error()] = true
	}
	require.Len(t, whys, 3, "the event says which it was")
	require.NoError(t, try("ada@example.com", pass))
}

func TestLogin_UserWhoseHashCannotBeReadIsAnEventAndRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.users.change("u1", func(u *auth.User) { u.PasswordHash = "plain text" })
	_, err := b.Login(context.Background(), "ada", "plain text", auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
	faults := b.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.NotContains(t, faults[0].Err.Error(), "plain text")
}

func TestLogin_PasswordChangedWhileItRanIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other, err := cheap.Hash(context.Background(), "another password")
	require.NoError(t, err)
	b.users.onFind = func() {
		b.users.change("u1", func(u *auth.User) { u.PasswordHash = other })
	}
	_, err = b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	list, err := b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)

	// Another hash of the same password, as an upgrade makes, refuses nobody.
	same, err := cheap.Hash(context.Background(), "another password")
	require.NoError(t, err)
	b.users.onFind = func() {
		b.users.change("u1", func(u *auth.User) { u.PasswordHash = same })
	}
	_, err = b.Login(context.Background(), "ada", "another password", auth.SessionOptions{})
	require.NoError(t, err)
}

func TestStart_UserDisabledOrGoneWhileItRanIsRefused(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*users){
		func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		func(u *users) { u.mu.Lock(); defer u.mu.Unlock(); delete(u.byID, "u1") },
	} {
		b := newBench(t)
		calls := 0
		b.users.onFind = func() {
			if calls++; calls == 2 {
				change(b.users)
			}
		}
		_, err := b.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err)
		list, err := b.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	}
	b := newBench(t)
	_, err := b.StartSession(context.Background(), "nobody", auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
}

// updatingUsers upgrade password hashes.
type updatingUsers struct {
	*users
	updates int
}

func (u *updatingUsers) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	u.change(id, func(user *auth.User) {
		if user.PasswordHash == old {
			user.PasswordHash = next
			u.updates++
		}
	})
	return nil
}

func TestLogin_WeakHashIsUpgradedAfterTheLogin(t *testing.T) {
	t.Parallel()
	old, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	require.NoError(t, err)
	var up *updatingUsers
	b := newBench(t, func(c *auth.Config) {
		up = &updatingUsers{users: c.Users.(*users)}
		c.Users = up
	})
	b.users.change("u1", func(u *auth.User) { u.PasswordHash = string(old) })
	_, err = b.Login(context.Background(), "ada", "wrong", auth.SessionOptions{})
	require.Error(t, err)
	require.Zero(t, up.updates, "not before the password was proved")
	for range 2 {
		_, err = b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.NoError(t, err)
		require.Equal(t, 1, up.updates)
	}
	require.True(t, strings.HasPrefix(b.users.byID["u1"].PasswordHash, "$argon2id$"))
}

func TestLogin_StoreFaultsLeaveNoSessionBehind(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"Create", "List", "users2"} {
		b := newBench(t)
		if method == "users2" {
			b.users.failIn(1) // FindByLogin is not counted: the second look fails
		} else {
			b.store.failBefore(method, errStore)
		}
		_, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, method)
		b.store.failBefore(method, nil)
		list, err := b.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list, method)
	}
}

func TestLogin_EndsEverySessionThatItReplaces(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.Cookies = &auth.Cookies{} })
	ctx := context.Background()
	foreign := newBench(t, func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} }).login(t)
	bob, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	late := b.login(t)
	b.clock.advance(16 * time.Minute) // its access token has expired
	byAccess, byRefresh, other := b.login(t), b.login(t), b.login(t)
	b.events.take("")
	replaced := []string{"", "rubbish", foreign.Access, foreign.Refresh, late.Access, byAccess.Access, byRefresh.Refresh, byRefresh.Access, bob.Refresh}
	fresh, err := b.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: replaced})
	require.NoError(t, err)
	ended := b.events.take(auth.EventRevoked)
	require.Len(t, ended, 4, "each session is ended once")
	var told [][3]string
	for _, e := range ended {
		told = append(told, [3]string{e.Session.Subject, e.Session.ID, e.Reason})
	}
	for _, k := range []auth.Tokens{late, byAccess, byRefresh, bob} {
		require.Contains(t, told, [3]string{k.Subject, k.SessionID, "replaced"})
		_, err = b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
	for _, k := range []auth.Tokens{fresh, other} {
		_, err = b.Verify(ctx, k.Access)
		require.NoError(t, err)
	}
}

func TestLogin_WhoseReplacedSessionTheStoreDoesNotEndIsUnavailable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	one, two := b.login(t), b.login(t)
	b.store.failBefore("Revoke", errStore)
	for _, token := range []string{one.Refresh, one.Access} {
		_, err := b.Login(ctx, "bob", pass, auth.SessionOptions{Replaces: []string{token, two.Access}})
		require.ErrorIs(t, err, auth.ErrUnavailable)
	}
	b.store.failBefore("Revoke", nil)
	_, err := b.Login(ctx, "bob", pass, auth.SessionOptions{Replaces: []string{one.Access, two.Access}})
	require.NoError(t, err)
	for _, k := range []auth.Tokens{one, two} {
		_, err = b.store.Store.Get(ctx, "u1", k.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestLogin_ThatFailsLeavesTheSessionThatTheClientHolds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := b.login(t)
	b.store.failBefore("List", errStore)
	_, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{Replaces: []string{old.Refresh}})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = b.Verify(context.Background(), old.Access)
	require.NoError(t, err)
}

func TestLogin_ASessionThatIsReplacedMakesRoomForTheNewOne(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 2, 3} {
		b := newBench(t, func(c *auth.Config) { c.MaxSessions = limit })
		ctx := context.Background()
		var kept []auth.Tokens
		for range limit {
			kept = append(kept, b.login(t))
			b.clock.advance(time.Second)
		}
		for range 3 { // the same browser signs in again
			next, err := b.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: []string{kept[limit-1].Access, kept[limit-1].Refresh}})
			require.NoError(t, err)
			kept[limit-1] = next
			for _, k := range kept {
				_, err := b.Verify(ctx, k.Access)
				require.NoError(t, err, "limit %d: no other device is signed out", limit)
			}
		}
	}
}

// All in one millisecond: which one was used last cannot be told.
func TestLogin_BeyondMaxSessionsTheNewOneStaysAndAnotherGoes(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.MaxSessions = 2 })
	for i := range 50 {
		tokens := b.login(t)
		list, err := b.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Len(t, list, min(i+1, 2))
		_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	}
}

func TestLogin_BeyondMaxSessionsTheLeastRecentlyUsedGoes(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.MaxSessions = 2 })
	ctx := context.Background()
	one := b.login(t)
	b.clock.advance(time.Minute)
	two := b.login(t)
	b.clock.advance(time.Minute)
	one, err := b.Refresh(ctx, one.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	b.clock.advance(time.Minute)
	three := b.login(t)
	_, err = b.Verify(ctx, two.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	for _, tokens := range []auth.Tokens{one, three} {
		_, err = b.Verify(ctx, tokens.Access)
		require.NoError(t, err)
	}
	// A clock that runs behind makes the new one the oldest: it is spared, and
	// the limit holds all the same.
	b.clock.advance(-time.Hour)
	four := b.login(t)
	_, err = b.Verify(ctx, four.Access)
	require.NoError(t, err)
	list, err := b.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func TestSession_NameAndDataAreGivenBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	data := []byte{0, 1, 2, 0xff}
	_, err := b.Login(ctx, "ada", pass, auth.SessionOptions{Name: "Ada's\x00 phone\u202e", Data: data, Device: laptop})
	require.NoError(t, err)
	list, err := b.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Equal(t, "Ada's phone", list[0].Name())
	require.Equal(t, data, list[0].Data())
	require.Equal(t, laptop, list[0].Device)

	_, err = b.Login(ctx, "ada", pass, auth.SessionOptions{Data: make([]byte, 901)})
	require.ErrorContains(t, err, "SessionOptions.Data")
	_, err = b.Login(ctx, "ada", pass, auth.SessionOptions{AMR: make([]string, 9)})
	require.ErrorContains(t, err, "SessionOptions.AMR")
	_, err = b.Login(ctx, "ada", pass, auth.SessionOptions{AMR: []string{"a b"}})
	require.ErrorContains(t, err, "SessionOptions.AMR[0]")
	_, err = b.Login(ctx, "ada", pass, auth.SessionOptions{Data: make([]byte, 900), Name: strings.Repeat("é", 200)})
	require.NoError(t, err)
}

func TestLogout_EndsEverySessionThatAValidlySignedTokenNames(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	one, two, three := b.login(t), b.login(t), b.login(t)
	b.clock.advance(time.Hour) // access tokens have expired
	require.NoError(t, b.Logout(ctx, one.Access, two.Refresh, "rubbish", "", one.Access))
	list, err := b.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, three.SessionID, list[0].ID)
	require.Equal(t, 2, b.store.count("Revoke"))
	require.Len(t, b.events.take(auth.EventLogout), 2)

	// Again, in a loop: the feed is not flooded.
	for range 10 {
		require.NoError(t, b.Logout(ctx, one.Access))
	}
	require.Equal(t, 2, b.store.count("Revoke"))

	b.store.failBefore("Revoke", errStore)
	require.ErrorIs(t, b.Logout(ctx, three.Refresh), auth.ErrUnavailable)
	require.ErrorIs(t, b.Logout(ctx, three.Refresh), auth.ErrUnavailable, "it is tried again, not taken for done")
	b.store.failBefore("Revoke", nil)
	require.NoError(t, b.Logout(ctx, three.Refresh))
	_, err = b.store.Store.Get(ctx, "u1", three.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestRevoke_WithoutIDsNothingHappens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tokens := b.login(t)
	require.NoError(t, b.Revoke(context.Background(), "u1"))
	require.Zero(t, b.store.count("Revoke"))
	_, err := b.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Error(t, b.RevokeAll(context.Background(), ""))
}

func TestRevokeAll_SparesTheExceptedAndLaterLogins(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	one, two := b.login(t), b.login(t)
	other, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	require.NoError(t, b.RevokeAll(ctx, "u1", two.SessionID))
	later := b.login(t) // in the very same millisecond
	_, err = b.Verify(ctx, one.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	for _, tokens := range []auth.Tokens{two, other, later} {
		_, err = b.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		_, err = b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
	}
	require.NoError(t, b.RevokeAll(ctx, "u1"))
	for _, tokens := range []auth.Tokens{two, later} {
		_, err = b.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
}

func TestExpireAccess_TwiceInOneSecondCutsWhatCameBetween(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := node(t, nil)
		ctx := context.Background()
		tokens := start(t, a)
		for range 20 {
			begun := time.Now()
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			between, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
			_, err = a.Verify(ctx, between.Access)
			require.NoError(t, err)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			require.LessOrEqual(t, time.Since(begun), 2*time.Second)
			_, err = a.Verify(ctx, between.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
			tokens = between
		}
		hurry, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		require.ErrorIs(t, a.ExpireAccess(hurry, "u1"), auth.ErrUnavailable)
	})
}

func TestRevokeAll_ManyTimesInOneSecondEndsWhatCameBetween(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	spared := b.login(t)
	for range 15 {
		require.NoError(t, b.RevokeAll(ctx, "u1", spared.SessionID))
		between := b.login(t)
		_, err := b.Verify(ctx, between.Access)
		require.NoError(t, err)
		require.NoError(t, b.RevokeAll(ctx, "u1", spared.SessionID))
		_, err = b.Verify(ctx, between.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = b.Refresh(ctx, between.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
	_, err := b.Verify(ctx, spared.Access)
	require.NoError(t, err)
	// If the sessions cannot be listed, it is said, and done as far as it goes.
	b.login(t)
	b.store.failBefore("List", errStore)
	require.ErrorIs(t, b.RevokeAll(ctx, "u1"), auth.ErrUnavailable)
}

func TestExpireAccess_OftenStaysWithinTheLeewayOfOtherNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := node(t, store)
		behind, _ := node(t, store, func(c *auth.Config) {
			c.Now = func() time.Time { return time.Now().Add(-10 * time.Second) }
		})
		for _, x := range []*auth.Authenticator{a, behind} {
			stop := run(x.Verifier)
			defer stop()
			<-x.Ready()
		}
		tokens := start(t, a)
		for range 12 {
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			synctest.Wait()
			for _, x := range []*auth.Authenticator{a, behind} {
				next, err := x.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
				require.NoError(t, err)
				tokens = next
				synctest.Wait()
				for _, y := range []*auth.Authenticator{a, behind} {
					_, err = y.Verify(context.Background(), next.Access)
					require.NoError(t, err)
				}
			}
		}
	})
}

func TestExpireAccess_EndsAccessTokensAndNoSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	tokens := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.Roles = nil })
	require.NoError(t, b.ExpireAccess(ctx, "u1"))
	_, err := b.Verify(ctx, tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	again, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	c, err := b.Verify(ctx, again.Access)
	require.NoError(t, err, "a token made after the cut works at once")
	require.Empty(t, c.Roles)
	require.False(t, c.ExpiresAt.After(b.clock.Now().Add(15*time.Minute)), "its lifetime counts from the clock")
}

func TestExpireAccess_RolesLookedUpBeforeItNeverOutliveIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	tokens := b.login(t)
	b.users.onFind = func() {
		b.users.onFind = nil
		// The refresh has read the clock; now the roles change.
		require.NoError(t, b.ExpireAccess(ctx, "u1"))
	}
	again, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = b.Verify(ctx, again.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}
