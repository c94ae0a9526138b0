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

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestRun_RepublishesWhatAFailoverLost(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{
		"the feed says so":               auth.ErrFeedReset,
		"an outage, then another server": errStore,
		"only the position shows it":     nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			b, _ := newNode(t, store.Store)
			runNodes(t, a)
			tokens := startSession(t, a)
			ctx := context.Background()
			require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID)) // a knows it only from the feed
			require.NoError(t, a.RevokeAll(ctx, "u2", "spared"))
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			require.NoError(t, a.Revoke(ctx, "u2", "kept"))
			time.Sleep(time.Minute)
			all := store.takePassed()
			kept := all[len(all)-1]
			require.Equal(t, []string{"kept"}, kept.Sessions)

			store.failFeed(fail)
			time.Sleep(6 * time.Second)
			store.failOver(kept)
			store.failFeed(nil)
			time.Sleep(30 * time.Second)
			kinds := map[string]int{}
			for _, r := range store.takePassed() {
				length := 16 * time.Minute
				if r.All {
					length = 24*time.Hour + time.Minute
				}
				require.WithinDuration(t, time.Now().Add(length), r.Until, time.Minute, "with a new Until")
				kinds[strings.TrimSpace(fmt.Sprintln(r.Subject, len(r.Sessions), r.All, r.Except, !r.Before.IsZero()))]++
			}
			require.Equal(t, map[string]int{"u1 1 false [] false": 1, "u2 0 true [spared] true": 1, "u1 0 false [] true": 1}, kinds, name)
		})
	}
}

func TestRun_RepublishesNothingIfNothingWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		runNodes(t, a)
		for i := range 20 {
			require.NoError(t, a.Revoke(context.Background(), "u1", fmt.Sprint(i)))
		}
		require.Len(t, store.takePassed(), 20)
		for _, fail := range []error{errStore, auth.ErrFeedReset} {
			store.failFeed(fail)
			time.Sleep(10 * time.Second)
			store.failFeed(nil)
			time.Sleep(time.Minute)
			require.Empty(t, store.takePassed(), fail)
		}
	})
}

// An entry that the feed kept replaces a lost one only if it covers it.
func TestRun_RepublishesWhatKeptEntriesDoNotCover(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(a *auth.Authenticator) error{
		"a later not-before instant": func(a *auth.Authenticator) error { return a.ExpireAccess(context.Background(), "u1") },
		"the same, for longer":       func(a *auth.Authenticator) error { return a.Revoke(context.Background(), "u1", "one") },
		"a later RevokeAll":          func(a *auth.Authenticator) error { return a.RevokeAll(context.Background(), "u1") },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			runNodes(t, a)
			require.NoError(t, revoke(a))
			time.Sleep(time.Minute)
			require.NoError(t, revoke(a))
			time.Sleep(time.Minute)
			both := store.takePassed()
			require.Len(t, both, 2)
			if name != "the same, for longer" {
				both[0].Until = both[1].Until // only the not-before instant differs
			}
			store.failOver(both[0])
			time.Sleep(time.Minute)
			again := store.takePassed()
			require.Len(t, again, 1, name)
			require.Equal(t, both[1].Before, again[0].Before)
		})
	}
}

func TestRun_RepublishesOwnRevocationsBeforeTheyExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		other, _ := newNode(t, store)
		runNodes(t, a, other)
		tokens := startSession(t, a)
		require.NoError(t, a.Revoke(context.Background(), "u1", tokens.SessionID))
		require.Len(t, store.takePassed(), 1)
		time.Sleep(15 * time.Minute)
		require.Empty(t, store.takePassed(), "not yet")
		time.Sleep(time.Minute)
		require.Len(t, store.takePassed(), 1, "it must be republished once, by its own process")
		time.Sleep(time.Hour)
		require.Empty(t, store.takePassed(), "it must not be republished again")
		require.NoError(t, a.Revoke(context.Background(), "u1", "another")) // this removes old entries
		require.Equal(t, 1, a.Health().Revocations)
	})
}

func TestRun_RepublishesWhatTheStoreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		runNodes(t, a)
		tokens := startSession(t, a)
		store.failFeed(errStore)
		require.ErrorIs(t, a.Revoke(context.Background(), "u1", tokens.SessionID), auth.ErrUnavailable)
		time.Sleep(time.Hour)
		store.failFeed(nil)
		time.Sleep(time.Hour)
		_, err := store.Get(context.Background(), "u1", tokens.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	})
}

func TestRun_AFailingRevocationStopsNoOther(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"fails": errStore, "hangs": context.DeadlineExceeded, "cannot represent it": fmt.Errorf("wrapped: %w", auth.ErrNotStorable),
	} {
		synctest.Test(t, func(t *testing.T) {
			var down atomic.Bool
			var tries atomic.Int64
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(ctx context.Context, r auth.Revocation) error {
				switch {
				case r.AccessTTL > 0:
				case slices.ContainsFunc(r.Sessions, func(id string) bool { return strings.HasPrefix(id, "poison") }) || r.Subject == "poisoned":
					tries.Add(1)
					if name == "hangs" {
						return hang(ctx)
					}
					return refusal
				case down.Load():
					return errStore
				}
				return nil
			}}
			a, es := newNode(t, store)
			runNodes(t, a)
			ctx := context.Background()
			tokens := startSession(t, a)
			for i := range 5 {
				require.Error(t, a.Revoke(ctx, "u1", fmt.Sprint("poison", i)))
				require.Error(t, a.Revoke(ctx, "poisoned", "one"))
			}
			down.Store(true)
			require.ErrorIs(t, a.Logout(ctx, tokens.Refresh), auth.ErrUnavailable)
			down.Store(false)
			time.Sleep(2 * time.Minute)
			_, err := store.Store.Get(ctx, "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, name)
			require.NotEmpty(t, es.take(auth.EventFault))

			tries.Store(0)
			time.Sleep(time.Hour)
			if name == "cannot represent it" {
				require.Zero(t, tries.Load(), "it is not tried again")
				require.Empty(t, es.take(auth.EventFault))
				return
			}
			require.Greater(t, tries.Load(), int64(6*30), "it must be tried until the store accepts it")
			require.Less(t, tries.Load(), int64(6*70), "it must not be tried without a pause")
			_, err = a.Verify(ctx, tokens.Access)
			require.Error(t, err)
		})
	}
}

func TestRun_ReadsTheFeedWhileItRepublishes(t *testing.T) {
	t.Parallel()
	for _, due := range []int{500, 4000} {
		for name, subject := range map[string]func(i int) string{
			"one subject": func(int) string { return "u1" }, "a subject each": func(i int) string { return fmt.Sprint("user", i) },
		} {
			synctest.Test(t, func(t *testing.T) {
				memory := auth.NewMemoryStore()
				var down atomic.Bool
				var calls atomic.Int64
				store := &testStore{Store: memory, revoke: func(ctx context.Context, r auth.Revocation) error {
					if down.Load() {
						return errStore
					}
					time.Sleep(2 * time.Millisecond)
					calls.Add(1)
					return nil
				}}
				a, _ := newNode(t, store)
				elsewhere, _ := newNode(t, memory)
				runNodes(t, a)
				down.Store(true)
				ctx := context.Background()
				for i := range due {
					require.Error(t, a.Revoke(ctx, subject(i), fmt.Sprint("session", i)))
				}
				down.Store(false)
				require.NoError(t, elsewhere.Revoke(ctx, "u2", "one")) // this wakes Run
				time.Sleep(1100 * time.Millisecond)                    // now they are due
				before := calls.Load()
				for range 20 {
					tokens := startSession(t, elsewhere)
					require.NoError(t, elsewhere.Revoke(ctx, "u1", tokens.SessionID))
					begun := time.Now()
					for {
						if _, err := a.Verify(ctx, tokens.Access); errors.Is(err, auth.ErrSessionRevoked) {
							break
						}
						time.Sleep(10 * time.Millisecond)
					}
					require.LessOrEqual(t, time.Since(begun), 300*time.Millisecond, "%d due, %s", due, name)
				}
				if name == "a subject each" {
					require.Greater(t, calls.Load(), before, "Run must republish meanwhile")
				}
				time.Sleep(30 * time.Second)
				rs := readFeed(t, memory)
				named := 0
				for _, r := range rs {
					named += len(r.Sessions)
				}
				require.GreaterOrEqual(t, named, due+20, name)
				if name == "one subject" {
					require.LessOrEqual(t, calls.Load(), int64(due/100+10), "sessions of one subject must be republished together")
				}
			})
		}
	}
}

// The clock is set back during the first publication, so the time since the step
// began is unknown.
func TestRun_ReadsTheFeedAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	for _, back := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var down, wasSetBack atomic.Bool
			var calls, callsAtRead atomic.Int64
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(context.Context, auth.Revocation) error {
				if down.Load() {
					return errStore
				}
				time.Sleep(5 * time.Millisecond)
				calls.Add(1)
				wasSetBack.Store(true)
				return nil
			}, changes: func(context.Context, string) error {
				if wasSetBack.Load() {
					callsAtRead.CompareAndSwap(0, calls.Load())
				}
				return nil
			}}
			a, _ := newNode(t, store, func(c *auth.Config) {
				c.Now = func() time.Time {
					if wasSetBack.Load() {
						return time.Now().Add(-back)
					}
					return time.Now()
				}
			}, withAccessTTL(time.Minute))
			runNodes(t, a)
			down.Store(true)
			for i := range 150 {
				require.Error(t, a.Revoke(context.Background(), fmt.Sprint("user", i), "one"))
			}
			down.Store(false)
			time.Sleep(time.Minute)
			require.Positive(t, callsAtRead.Load())
			require.Less(t, callsAtRead.Load(), int64(10), "the clock was set back by %s", back)
			time.Sleep(2 * time.Minute)
			require.GreaterOrEqual(t, calls.Load(), int64(150))
		})
	}
}

func TestRun_PausesIfTheStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var calls atomic.Int64
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(context.Context, auth.Revocation) error {
			calls.Add(1)
			if down.Load() {
				return errStore
			}
			return nil
		}}
		a, _ := newNode(t, store)
		runNodes(t, a)
		down.Store(true)
		for i := range 1000 {
			require.Error(t, a.Revoke(context.Background(), fmt.Sprint("user", i), "one"))
		}
		calls.Store(0)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, calls.Load(), int64(2*60+10))
		require.GreaterOrEqual(t, calls.Load(), int64(60), "the store must be tried again")
		down.Store(false)
		time.Sleep(70 * time.Second)
		require.Len(t, readFeed(t, store.Store), 1001, "the notice and all revocations")
	})
}

func TestRun_LateConfirmedRevocationIsRepublishedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(context.Context, auth.Revocation) error {
			if down.Load() {
				return errStore
			}
			return nil
		}}
		a, _ := newNode(t, store)
		runNodes(t, a)
		down.Store(true)
		require.Error(t, a.Revoke(context.Background(), "u1", "one"))
		time.Sleep(20 * time.Minute)
		down.Store(false)
		time.Sleep(2 * time.Minute)
		n := len(store.passed())
		time.Sleep(3 * time.Hour)
		require.LessOrEqual(t, len(store.passed())-n, 1, "before it is removed")
		require.Zero(t, a.Health().Revocations)
	})
}

// The store confirms only the not-before instant that it was passed, not a
// later one.
func TestRun_NotBeforeRaisedDuringACallIsUnconfirmed(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(a *auth.Authenticator) error{
		"expire access": func(a *auth.Authenticator) error { return a.ExpireAccess(context.Background(), "u1") },
		"revoke all":    func(a *auth.Authenticator) error { return a.RevokeAll(context.Background(), "u1") },
	} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
				if r.AccessTTL > 0 {
					return nil
				}
				switch calls.Add(1) {
				case 1:
					time.Sleep(1500 * time.Millisecond)
				case 2:
					return errStore
				}
				return nil
			}}
			a, _ := newNode(t, store)
			runNodes(t, a)
			var wg sync.WaitGroup
			wg.Go(func() { require.NoError(t, revoke(a)) })
			time.Sleep(1100 * time.Millisecond)
			require.ErrorIs(t, revoke(a), auth.ErrUnavailable)
			wg.Wait()
			time.Sleep(time.Minute)
			passed := store.passed()
			require.Len(t, passed, 3, name)
			require.True(t, passed[1].Before.After(passed[0].Before))
			require.Equal(t, passed[1].Before, passed[2].Before)
		})
	}
}

// The same for a call of Run: a call of Revoke raises the not-before instant
// meanwhile, and fails.
func TestRun_NotBeforeRaisedWhileItRepublishesIsUnconfirmed(t *testing.T) {
	t.Parallel()
	for name, failsAfter := range map[string]time.Duration{"fails at once": 0, "fails after the call of Run": time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
				if r.AccessTTL > 0 {
					return nil
				}
				switch calls.Add(1) {
				case 1:
					return errStore
				case 2: // of Run
					time.Sleep(1500 * time.Millisecond)
				case 3:
					time.Sleep(failsAfter)
					return errStore
				}
				return nil
			}}
			a, _ := newNode(t, store)
			runNodes(t, a)
			ctx := context.Background()
			require.ErrorIs(t, a.RevokeAll(ctx, "u1"), auth.ErrUnavailable)
			for calls.Load() < 2 {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(1100 * time.Millisecond)
			require.ErrorIs(t, a.RevokeAll(ctx, "u1"), auth.ErrUnavailable)
			time.Sleep(time.Minute)
			passed := store.passed()
			require.Len(t, passed, 4, name)
			require.True(t, passed[2].Before.After(passed[1].Before), name)
			require.Equal(t, passed[2].Before, passed[3].Before, name)
		})
	}
}

// A not-before instant of another process that is earlier than the own one is no
// reason to raise the own one.
func TestRun_AnEarlierNotBeforeOfAnotherProcessChangesNothing(t *testing.T) {
	t.Parallel()
	for _, earlier := range []time.Duration{time.Second, 5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			runNodes(t, a)
			ctx := context.Background()
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			time.Sleep(time.Second)
			tokens := startSession(t, a)
			own := store.takePassed()[0]
			require.NoError(t, store.Store.Revoke(ctx, auth.Revocation{
				Subject: "u1", Before: own.Before.Add(-earlier), Until: own.Until, ID: "other.1",
			}))
			time.Sleep(time.Minute)
			require.Empty(t, store.passed())
			_, err := a.Verify(ctx, tokens.Access)
			require.NoError(t, err)
		})
	}
}

func TestRun_RepublishesARaisedNotBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		runNodes(t, a)
		for range 3 {
			n := len(store.passed())
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			time.Sleep(17 * time.Minute)
			require.Len(t, store.passed(), n+2, "once, and once more before it is removed")
		}
	})
}

// A revocation is not removed while the feed cannot be read, because after a
// failover this may be the only process that knows it.
func TestRun_KeepsOwnRevocationsUntilRepublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		runNodes(t, a)
		ctx := context.Background()
		require.NoError(t, a.Revoke(ctx, "u1", "one"))
		time.Sleep(15 * time.Minute)
		store.on(func(context.Context) error { return errStore }, "Changes")
		time.Sleep(5 * time.Minute)
		require.NoError(t, a.Revoke(ctx, "u1", "two")) // other entries are removed now
		store.on(nil, "Changes")
		time.Sleep(10 * time.Second)
		named := map[string]int{}
		for _, r := range store.passed() {
			named[strings.Join(r.Sessions, " ")]++
		}
		require.Equal(t, map[string]int{"one": 2, "two": 1}, named)

		// It is removed at last.
		store.on(func(context.Context) error { return errStore }, "Changes")
		time.Sleep(25 * time.Hour) // while the feed is not read, 24 hours are assumed
		require.NoError(t, a.Revoke(ctx, "u2", "three"))
		require.Equal(t, 1, a.Health().Revocations)
	})
}

func TestRun_RepublishesAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{2 * time.Minute, time.Hour, 4 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var offset atomic.Int64
			offset.Store(int64(ahead))
			var down atomic.Bool
			down.Store(true)
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(context.Context, auth.Revocation) error {
				if down.Load() {
					return errStore
				}
				return nil
			}}
			a, _ := newNode(t, store, func(c *auth.Config) {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
			})
			defer run(a.Verifier)()
			<-a.Ready()
			ctx := context.Background()
			tokens := startSession(t, a)
			require.ErrorIs(t, a.Logout(ctx, tokens.Refresh), auth.ErrUnavailable)
			offset.Store(0)
			down.Store(false)
			require.Greater(t, time.Until(startOtherSession(t, a).AccessExpiresAt), 10*time.Minute, "the store must accept notices again")
			time.Sleep(2 * time.Minute)
			_, err := store.Store.Get(ctx, "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "ahead by %s", ahead)
		})
	}
}

func TestRun_AnUnstorableRevocationStopsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
			switch {
			case slices.ContainsFunc(r.Sessions, func(id string) bool { return len(id) > 64 }):
				return fmt.Errorf("of this store: %w", auth.ErrNotStorable)
			case down.Load() && r.AccessTTL == 0:
				return errStore
			}
			return nil
		}}
		a, _ := newNode(t, store)
		defer run(a.Verifier)()
		<-a.Ready()
		ctx := context.Background()
		for i, length := range []int{65, 255} {
			tokens := startSession(t, a)
			down.Store(i == 1) // then Run republishes the sessions together
			require.Error(t, a.Revoke(ctx, "u1", strings.Repeat("x", length), tokens.SessionID))
			down.Store(false)
			time.Sleep(5 * time.Minute)
			_, err := store.Store.Get(ctx, "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
		calls := len(store.passed())
		time.Sleep(5 * time.Minute)
		require.Len(t, store.passed(), calls, "a revocation that is not storable must not be tried again")
	})
}
