package auth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestRevoke_WithoutIDsDoesNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1"))
	require.Zero(t, fx.store.count("Revoke"))
	_, err := fx.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Error(t, fx.RevokeAll(context.Background(), ""))
}

func TestRevoke_WaitsForAtMostOneStoreTimeout(t *testing.T) {
	t.Parallel()
	for name, methods := range map[string][]string{
		"Revoke":               {"Revoke", notice},
		"List":                 {"List"},
		"Get":                  {"Get"},
		"everything":           {"Revoke", notice, "List", "Get"},
		"Revoke, List is slow": {"Revoke", notice},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			ctx := context.Background()
			var all []string
			for range 3 {
				one, two := startSession(t, a), startOtherSession(t, a)
				all = append(all, one.Refresh, one.Access, two.Refresh)
			}
			expired := []string{startSession(t, a).Refresh, startOtherSession(t, a).Refresh}
			time.Sleep(8 * 24 * time.Hour)
			for range 2 {
				expired = append(expired, startSession(t, a).Refresh, startOtherSession(t, a).Refresh)
			}
			store.on(hang, methods...)
			if name == "Revoke, List is slow" {
				store.on(func(context.Context) error { time.Sleep(1500 * time.Millisecond); return nil }, "List")
			}
			for what, call := range map[string]func() error{
				"Logout":                 func() error { return a.Logout(ctx, append(all, expired...)...) },
				"Logout again":           func() error { return a.Logout(ctx, expired...) },
				"RevokeAll":              func() error { return a.RevokeAll(ctx, "u1") },
				"RevokeAll of another":   func() error { return a.RevokeAll(ctx, "u2", "spared") },
				"ExpireAccess":           func() error { time.Sleep(20 * time.Second); return a.ExpireAccess(ctx, "u1") },
				"Revoke of many at once": func() error { return a.Revoke(ctx, "u1", "one", "two", "three", "four") },
			} {
				for range 2 {
					begun := time.Now()
					err := call()
					took := time.Since(begun)
					if what == "ExpireAccess" {
						took -= 20 * time.Second
					}
					require.LessOrEqual(t, took, 2100*time.Millisecond, "%s hangs: %s", name, what)
					if slices.Contains(methods, "Revoke") {
						require.ErrorIs(t, err, auth.ErrUnavailable, "%s hangs: %s", name, what)
					}
				}
			}
		})
	}
}

// unstorable are invalid as subjects and as session IDs.
var unstorable = []string{"", "\xff", "a\xc3", "\x00", "a\x00b", "line\nend", "\x7f", "\u0085", strings.Repeat("x", 256), strings.Repeat("é", 128)}

func TestRevoke_IgnoresInvalidIDsAndRefusesInvalidSubjects(t *testing.T) {
	t.Parallel()
	store := newTestStore()
	a, _ := newNode(t, store)
	ctx := context.Background()
	for _, name := range unstorable {
		require.NoError(t, a.Revoke(ctx, "u1", name), "%q", name)
		for what, err := range map[string]error{
			"Revoke": a.Revoke(ctx, name, "one"), "RevokeAll": a.RevokeAll(ctx, name), "ExpireAccess": a.ExpireAccess(ctx, name),
		} {
			require.ErrorIs(t, err, auth.ErrNotStorable, "%s of %q", what, name)
			require.ErrorContains(t, err, "a subject must be 1 to 255 bytes of UTF-8 without control characters")
		}
		list, err := a.Sessions(ctx, name)
		require.NoError(t, err, "%q", name)
		require.Empty(t, list)
	}
	require.Empty(t, store.passed())
	require.Zero(t, a.Health().Revocations)

	tokens := startSession(t, a)
	require.NoError(t, a.Revoke(ctx, "u1", append(unstorable, tokens.SessionID, "\xfe")...))
	require.Equal(t, []string{tokens.SessionID}, store.passed()[0].Sessions)
	spared := startSession(t, a)
	require.NoError(t, a.RevokeAll(ctx, "u1", append(unstorable, spared.SessionID)...))
	require.Equal(t, []string{spared.SessionID}, store.passed()[1].Except)
}

func TestRevoke_ConcurrentCalls(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				tokens, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
				_ = fx.RevokeAll(ctx, "u2")
				if err := fx.Revoke(ctx, "u1", tokens.SessionID); err != nil {
					t.Error(err)
				}
				if _, err := fx.Verify(ctx, tokens.Access); !errors.Is(err, auth.ErrSessionRevoked) {
					t.Errorf("after Revoke returned: %v", err)
				}
				if _, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop}); !errors.Is(err, auth.ErrSessionRevoked) {
					t.Errorf("after Revoke returned: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// getFaults are the ways in which a call of Get can fail.
var getFaults = map[string]func(s *testStore, err error){
	"an error":      func(s *testStore, err error) { s.failBefore("Get", err) },
	"a lost result": func(s *testStore, err error) { s.failAfter("Get", err) },
	"a timeout":     func(s *testStore, err error) { s.failBefore("Get", wrapped(err, context.DeadlineExceeded)) },
	"another error": func(s *testStore, err error) { s.failBefore("Get", wrapped(err, auth.ErrSessionExists)) },
}

// wrapped returns err and with as one error, or nil if err is nil.
func wrapped(err, with error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", err, with)
}

// A failover may have lost the revocation of a session that this process knows.
// Only the store can say so, and a store that fails has not said that the
// session is gone.
func TestRevokedSession_StoreErrorIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, set := range getFaults {
		for what, present := range map[string]func(fx *fixture, token string) error{
			"refresh": func(fx *fixture, token string) error {
				_, err := fx.Refresh(context.Background(), token, auth.RefreshOptions{Device: laptop})
				return err
			},
			"logout": func(fx *fixture, token string) error { return fx.Logout(context.Background(), token) },
		} {
			memory := auth.NewMemoryStore()
			fx := newFixture(t, func(c *auth.Config) { c.Store = memory })
			ctx := context.Background()
			tokens := fx.login(t)
			s, err := memory.Get(ctx, "u1", tokens.SessionID)
			require.NoError(t, err)
			require.NoError(t, fx.Revoke(ctx, "u1", s.ID))
			require.NoError(t, memory.Create(ctx, s)) // a failover lost the revocation
			set(fx.store, errStore)
			err = present(fx, tokens.Refresh)
			require.ErrorIs(t, err, auth.ErrUnavailable, "%s, %s", name, what)
			require.NotErrorIs(t, err, auth.ErrSessionRevoked, "%s, %s", name, what)
			require.NotEmpty(t, fx.events.take(auth.EventFault), "%s, %s", name, what)

			set(fx.store, nil)
			fx.clock.Advance(time.Minute)
			if err = present(fx, tokens.Refresh); err != nil {
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "%s, %s", name, what)
			}
			_, err = memory.Get(ctx, "u1", s.ID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s, %s", name, what)
		}
	}
}

func TestRevokeAll_SparesTheExceptedAndLaterLogins(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	one, two := fx.login(t), fx.login(t)
	other, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	require.NoError(t, fx.RevokeAll(ctx, "u1", two.SessionID))
	later := fx.login(t) // in the same millisecond
	_, err = fx.Verify(ctx, one.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	for _, tokens := range []auth.Tokens{two, other, later} {
		_, err = fx.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		_, err = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
	}
	require.NoError(t, fx.RevokeAll(ctx, "u1"))
	for _, tokens := range []auth.Tokens{two, later} {
		_, err = fx.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
}

func TestRevokeAll_RepeatedInOneSecondEndsLoginsBetween(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	spared := fx.login(t)
	for range 15 {
		require.NoError(t, fx.RevokeAll(ctx, "u1", spared.SessionID))
		between := fx.login(t)
		_, err := fx.Verify(ctx, between.Access)
		require.NoError(t, err)
		require.NoError(t, fx.RevokeAll(ctx, "u1", spared.SessionID))
		_, err = fx.Verify(ctx, between.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = fx.Refresh(ctx, between.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
	_, err := fx.Verify(ctx, spared.Access)
	require.NoError(t, err)
	// If the sessions cannot be listed, the error is returned.
	fx.login(t)
	fx.store.failBefore("List", errStore)
	require.ErrorIs(t, fx.RevokeAll(ctx, "u1"), auth.ErrUnavailable)
}

// An entry of two calls is confirmed when the store has accepted both.
func TestRevokeAll_SuccessDoesNotConfirmAnEarlierFailure(t *testing.T) {
	t.Parallel()
	for _, failing := range []int64{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
				if r.AccessTTL == 0 && calls.Add(1) == failing {
					return errStore
				}
				return nil
			}}
			a, _ := newNode(t, store)
			b, _ := newNode(t, store)
			runNodes(t, a, b)
			ctx := context.Background()
			one, two := startSession(t, a), startSession(t, a)
			time.Sleep(12 * time.Second)
			for i, spared := range []auth.Tokens{one, two} {
				err := a.RevokeAll(ctx, "u1", spared.SessionID)
				require.Equal(t, int64(i+1) == failing, err != nil)
			}
			time.Sleep(20 * time.Second)
			for _, tokens := range []auth.Tokens{one, two} {
				_, err := store.Get(ctx, "u1", tokens.SessionID)
				require.ErrorIs(t, err, auth.ErrSessionNotFound)
				_, err = b.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked)
			}
			n := calls.Load()
			require.LessOrEqual(t, n, int64(2+3))
			time.Sleep(10 * time.Minute)
			require.Equal(t, n, calls.Load(), "no revocation may be published more often than needed")
		})
	}
}

func TestRevokeAll_OfOneUserUsesLittleMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store)
		runNodes(t, a, b)
		ctx := context.Background()
		for i := range 2000 {
			tokens := startSession(t, a)
			require.NoError(t, a.RevokeAll(ctx, "u1", tokens.SessionID))
			time.Sleep(40 * time.Millisecond)
			if i%100 == 0 {
				_, err := b.Verify(ctx, tokens.Access)
				require.NoError(t, err)
			}
		}
		// There is one entry for all calls, and one for each session that was
		// named because it was created in the same second.
		require.LessOrEqual(t, b.Health().Revocations, 2001)
	})
}

func TestRevokeAll_ExceptDoesNotUndoAnEarlierCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store)
		runNodes(t, a, b)
		ctx := context.Background()
		one, two, three := startSession(t, a), startSession(t, a), startSession(t, a)
		time.Sleep(15 * time.Second)
		for i, spared := range []string{one.SessionID, two.SessionID, three.SessionID, one.SessionID} {
			require.NoError(t, a.RevokeAll(ctx, "u1", spared))
			time.Sleep(15 * time.Second)
			for n, x := range []*auth.Authenticator{a, b} {
				for token, wantErr := range map[string]bool{one.Access: i > 0, two.Access: true, three.Access: true} {
					_, err := x.Verify(ctx, token)
					require.Equal(t, wantErr, err != nil, "call %d, node %d", i, n)
				}
			}
		}
	})
}

func TestRevokeAll_TwoProcessesInOneSecond(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, 3 * time.Second, -3 * time.Second, 9 * time.Second, -9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			memory := auth.NewMemoryStore()
			var paused atomic.Bool
			store := newPausedStore(memory, &paused)
			a, _ := newNode(t, memory)
			b, _ := newNode(t, store, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
			runNodes(t, a, b)
			ctx := context.Background()
			time.Sleep(100 * time.Millisecond)
			paused.Store(true)
			require.NoError(t, a.RevokeAll(ctx, "u1"))
			tokens := startSession(t, a)
			require.NoError(t, b.RevokeAll(ctx, "u1"))
			paused.Store(false)
			time.Sleep(time.Second)
			_, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, ahead)
			for _, x := range []*auth.Authenticator{a, b} {
				_, err = x.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, ahead)
			}
			after := startSession(t, b)
			time.Sleep(time.Minute)
			_, err = a.Verify(ctx, after.Access)
			require.NoError(t, err, "a later login must stay valid")
		})
	}
}

// An ID may be a part of the request: of a long URL, or of memory that a server
// such as fasthttp reuses for the next request.
func TestRevoke_KeepsNoMemoryOfTheCaller(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, revoke := range map[string]func(fx *fixture, subject, id, other string) error{
		"Revoke":       func(fx *fixture, subject, id, _ string) error { return fx.Revoke(ctx, subject, id) },
		"RevokeAll":    func(fx *fixture, subject, _, other string) error { return fx.RevokeAll(ctx, subject, other) },
		"ExpireAccess": func(fx *fixture, subject, _, _ string) error { return fx.ExpireAccess(ctx, subject) },
	} {
		fx := newFixture(t)
		tokens, spared := fx.login(t), fx.login(t)
		request := []byte("u1" + tokens.SessionID + spared.SessionID)
		part := func(from, length int) string { return unsafe.String(&request[from], length) }
		n := len(tokens.SessionID)
		require.NoError(t, revoke(fx, part(0, 2), part(2, n), part(2+n, n)), name)
		for i := range request {
			request[i] = '!' // no ID has it
		}
		_, err := fx.Verify(ctx, tokens.Access)
		require.Error(t, err, name)
		if name != "ExpireAccess" {
			_, err = fx.Verify(ctx, spared.Access)
			require.NoError(t, err, name)
		}
		list, _, _, err := fx.store.Changes(ctx, "", 0)
		require.NoError(t, err)
		for _, r := range list {
			require.NotContains(t, fmt.Sprint(r), "!", name)
		}
	}
}

// If List hangs, it leaves time for Revoke.
func TestRevokeAll_EndsTheSessionsIfListHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		runNodes(t, a)
		k := startSession(t, a)
		store.on(hang, "List")
		begun := time.Now()
		require.ErrorIs(t, a.RevokeAll(context.Background(), "u1"), auth.ErrUnavailable)
		require.LessOrEqual(t, time.Since(begun), 2*time.Second)
		_, err := store.Get(context.Background(), "u1", k.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	})
}
