package auth_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestRun_VerifyIsUnavailableUntilTheFeedIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		store.failFeed(errStore)
		a, _ := newNode(t, store)
		ctx := context.Background()
		tokens := startSession(t, a)
		_, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable, "Run was not called")
		_, err = a.Verify(ctx, "rubbish")
		require.ErrorIs(t, err, auth.ErrInvalidToken)
		require.False(t, a.Health().Ready)

		stop := run(a.Verifier)
		defer stop()
		time.Sleep(10 * time.Second)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable, "the feed fails")
		store.failFeed(nil)
		<-a.Ready()
		_, err = a.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		require.True(t, a.Health().Ready)
	})
}

func TestRun_WithoutAFeedIsReadyAndWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newNode(t, nil)
		<-a.Ready()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		require.ErrorIs(t, a.Run(ctx), context.DeadlineExceeded)
		require.Zero(t, a.Health().FeedAge)
	})
}

func TestRun_RefusesASecondCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newNode(t, auth.NewMemoryStore())
		stop := run(a.Verifier)
		synctest.Wait()
		require.ErrorContains(t, a.Run(context.Background()), "already running")
		stop()
		stop = run(a.Verifier) // it may be called again
		synctest.Wait()
		require.ErrorContains(t, a.Run(context.Background()), "already running")
		stop()
	})
}

func TestRun_ContinuesFromTheLastPositionAfterAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, es := newNode(t, store)
		b, _ := newNode(t, store.Store)
		runNodes(t, a)
		tokens := startSession(t, a)
		store.failFeed(errStore)
		time.Sleep(time.Minute)
		require.NoError(t, b.Revoke(context.Background(), "u1", tokens.SessionID))
		_, err := a.Verify(context.Background(), tokens.Access)
		require.NoError(t, err, "a has not read the feed")
		store.failFeed(nil)
		time.Sleep(6 * time.Second)
		_, err = a.Verify(context.Background(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.NotEmpty(t, es.take(auth.EventFault))

		store.mu.Lock()
		defer store.mu.Unlock()
		require.Less(t, len(store.reads), 40, "Run must pause while the feed fails")
		require.Empty(t, store.reads[0])
		for _, position := range store.reads[1:] {
			require.NotEmpty(t, position)
		}
	})
}

func TestRun_CanBeCalledAgainAfterItReturned(t *testing.T) {
	t.Parallel()
	for pause, missed := range map[time.Duration]bool{0: false, time.Second: false, 10 * time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			store := auth.NewMemoryStore()
			a, _ := newNode(t, store)
			b, _ := newNode(t, store)
			ctx := context.Background()
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			require.ErrorIs(t, a.Run(short), context.DeadlineExceeded)
			require.ErrorIs(t, a.Run(short), context.DeadlineExceeded, "the context ended before Run was called")
			one, two := startSession(t, a), startSession(t, a)
			stream, cancel := a.SessionContext(ctx, verifiedClaims(t, a, two.Access))
			defer cancel()

			require.NoError(t, b.Revoke(ctx, "u1", one.SessionID))
			time.Sleep(pause)
			_, err := a.Verify(ctx, one.Access)
			require.NoError(t, err, "Run is not running")
			defer run(a.Verifier)()
			time.Sleep(10 * time.Second)
			require.Less(t, a.Health().FeedAge, time.Minute)
			_, err = a.Verify(ctx, one.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, "revoked before Run was called again")
			require.Equal(t, missed, stream.Err() != nil, "a pause counts as an outage")
			_, err = a.Verify(ctx, two.Access)
			require.NoError(t, err)
			require.NoError(t, b.Revoke(ctx, "u1", two.SessionID))
			synctest.Wait()
			_, err = a.Verify(ctx, two.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, "revoked while Run is running")
		})
	}
}

func TestRun_ReadingTheWholeFeedMayTakeLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		store.changes = func(ctx context.Context, after string) error {
			if after != "" {
				return nil
			}
			select {
			case <-time.After(4 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		a, _ := newNode(t, store)
		stop := run(a.Verifier)
		defer stop()
		time.Sleep(5 * time.Second)
		require.True(t, a.Health().Ready)
	})
}

func TestVerifier_StoreTimeoutBoundsTheFeed(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{0: 2 * time.Second, 20 * time.Second: 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			limits := make(chan time.Duration, 100)
			store := &testStore{Store: auth.NewMemoryStore(), changes: func(ctx context.Context, _ string) error {
				deadline, _ := ctx.Deadline()
				select {
				case limits <- time.Until(deadline):
				default:
				}
				<-ctx.Done()
				return ctx.Err()
			}}
			v, err := auth.NewVerifier(auth.VerifierConfig{
				Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), Feed: store, StoreTimeout: timeout,
			})
			require.NoError(t, err)
			stop := run(v)
			require.Equal(t, 5*time.Second+want, <-limits, "in addition to the time that Changes may wait")
			stop()
		})
	}
}

func TestRun_PausesIfTheFeedIsAlwaysReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var resets atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), changes: func(_ context.Context, after string) error {
			if after != "" && resets.Load() {
				return auth.ErrFeedReset
			}
			return nil
		}}
		a, _ := newNode(t, store)
		runNodes(t, a)
		resets.Store(true)
		store.mu.Lock()
		store.reads = nil
		store.mu.Unlock()
		time.Sleep(time.Minute)
		store.mu.Lock()
		defer store.mu.Unlock()
		require.Less(t, len(store.reads), 200)
	})
}

func TestRun_PausesIfTheFirstReadIsReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		store.failBefore("Changes", auth.ErrFeedReset)
		a, _ := newNode(t, store)
		require.NoError(t, a.Revoke(context.Background(), "u1", "one"))
		require.Len(t, store.takePassed(), 1)
		defer run(a.Verifier)()
		time.Sleep(time.Millisecond)
		require.Equal(t, 1, store.count("Changes"))
		store.failBefore("Changes", nil)
		<-a.Ready()
		time.Sleep(10 * time.Second)
		require.Empty(t, store.passed(), "no entry was lost")
	})
}

func TestRun_PausesIfThePositionNeverChanges(t *testing.T) {
	t.Parallel()
	for _, resets := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			feed.setFeed(func(ctx context.Context, after string) ([]auth.Revocation, string, bool, error) {
				switch {
				case feed.count("Changes") > 1000: // called without a pause
					return nil, "", false, hang(ctx)
				case resets && after != "":
					return nil, "", false, auth.ErrFeedReset
				}
				return nil, "here", !resets, nil // the position never changes
			})
			a, es := newNode(t, feed)
			defer run(a.Verifier)()
			time.Sleep(time.Minute)
			require.Less(t, feed.count("Changes"), 100, "resets: %v", resets)
			require.NotEmpty(t, es.take(auth.EventFault))
			require.Equal(t, resets, a.Health().Ready)
		})
	}
}

func TestRun_ReadsALongFeedInPagesDespiteAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := auth.NewMemoryStore()
		a, _ := newNode(t, memory)
		tokens := startSession(t, a)
		ctx := context.Background()
		for i := range 4500 {
			require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u2", Sessions: []string{fmt.Sprint(i)}, Until: time.Now().Add(time.Hour)}))
		}
		require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{tokens.SessionID}, Until: time.Now().Add(time.Hour)}))
		calls := 0
		store := &testStore{Store: memory, changes: func(ctx context.Context, _ string) error {
			calls++
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			if calls == 3 {
				return errStore
			}
			return nil
		}}
		v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: derivedAccessKeys(), Feed: store})
		require.NoError(t, err)
		stop := run(v)
		defer stop()
		time.Sleep(5 * time.Second)
		require.False(t, v.Health().Ready, "there are more pages")
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable)
		<-v.Ready()
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, 4501, v.Health().Revocations)
		store.mu.Lock()
		defer store.mu.Unlock()
		require.Empty(t, store.reads[0])
		require.Equal(t, store.reads[2], store.reads[3], "the page that failed must be read again")
		require.NotContains(t, store.reads[1:], "")
	})
}

func TestRun_ReportsUnreadableEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reset atomic.Bool
		unread := []auth.Revocation{{Subject: "u1", ID: "row-1"}, {ID: "row-2"}}
		store := &testStore{Store: auth.NewMemoryStore(), changes: func(_ context.Context, after string) error {
			if after != "" && reset.Swap(false) {
				return auth.ErrFeedReset
			}
			return nil
		}}
		var whole atomic.Bool
		store.page = func(rs []auth.Revocation) []auth.Revocation {
			if whole.Swap(false) {
				return append(slices.Clone(unread), rs...)
			}
			return rs
		}
		a, es := newNode(t, store)
		tokens, others := startSession(t, a), startOtherSession(t, a)
		whole.Store(true)
		runNodes(t, a)
		ctx := context.Background()
		_, err := a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired, "the access tokens of its subject must expire")
		_, err = a.Verify(ctx, others.Access)
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, es.take(auth.EventFault), 2)
		fresh, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		_, err = a.Verify(ctx, fresh.Access)
		require.NoError(t, err)

		// Reading the entry again after a failover changes nothing.
		time.Sleep(2 * time.Minute)
		fresh, err = a.Refresh(ctx, fresh.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(time.Second)
		es.take(auth.EventFault)
		whole.Store(true)
		reset.Store(true)
		time.Sleep(12 * time.Second)
		require.False(t, whole.Load(), "the feed must be read again")
		_, err = a.Verify(ctx, fresh.Access)
		require.NoError(t, err)
		require.Len(t, es.take(auth.EventFault), 1, "only the reset is reported")
	})
}

func TestRun_ContinuesWhileOnEventBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		release := make(chan struct{})
		var events atomic.Int64
		a, _ := newNode(t, store, func(c *auth.Config) {
			c.OnEvent = func(_ context.Context, e auth.Event) {
				if e.Type == auth.EventFault || e.Type == auth.EventStale {
					events.Add(1)
					<-release
				}
			}
		})
		b, _ := newNode(t, store.Store)
		stop := run(a.Verifier)
		<-a.Ready()
		ctx := context.Background()
		tokens := startSession(t, b)
		store.on(func(context.Context) error { return errStore }, "Changes", "Revoke")
		time.Sleep(10 * time.Minute) // more events than are queued
		store.on(nil, "Changes", "Revoke")
		time.Sleep(10 * time.Second)
		require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
		synctest.Wait()
		_, err := a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.EqualValues(t, 64, events.Load(), "the bound of calls that did not return")
		require.Equal(t, 64, a.Health().Abandoned)
		require.NotZero(t, a.Health().DroppedEvents)
		begun := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(begun), 2*time.Second, "Run must return")
		close(release)
	})
}

// blockedKey marks the context of a request whose OnEvent blocks.
type blockedKey struct{}

// blockMarked returns an OnEvent that blocks in requests with a marked context
// until release is closed. entered receives the type of each such event.
func blockMarked(release <-chan struct{}) (onEvent func(context.Context, auth.Event), entered chan auth.EventType) {
	entered = make(chan auth.EventType, 64)
	return func(ctx context.Context, e auth.Event) {
		if ctx.Value(blockedKey{}) != nil {
			entered <- e.Type
			<-release
		}
	}, entered
}

// A request whose OnEvent blocks holds nothing that Run or another request
// needs.
func TestRun_ContinuesWhileOnEventBlocksARequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		release := make(chan struct{})
		onEvent, entered := blockMarked(release)
		a, _ := newNode(t, store, func(c *auth.Config) { c.OnEvent = onEvent })
		b, _ := newNode(t, store.Store)
		ctx := context.Background()
		marked := context.WithValue(ctx, blockedKey{}, true)
		revoked, other := startSession(t, b), startSession(t, b)

		// One request fails to publish a notice, the others fail to publish
		// revocations.
		store.failBefore(notice, errStore)
		store.failBefore("Revoke", errStore)
		store.failBefore("List", errStore)
		var results [3]error
		done := make(chan struct{}, len(results))
		go func() {
			_, results[0] = a.StartSession(marked, "u2", auth.SessionOptions{})
			done <- struct{}{}
		}()
		go func() {
			results[1] = a.Revoke(marked, "u1", revoked.SessionID)
			done <- struct{}{}
		}()
		go func() {
			results[2] = a.RevokeAll(marked, "u3")
			done <- struct{}{}
		}()
		synctest.Wait()
		require.Len(t, entered, len(results))
		for range results {
			require.Equal(t, auth.EventFault, <-entered)
		}
		for _, method := range []string{notice, "Revoke", "List"} {
			store.failBefore(method, nil)
		}

		stop := run(a.Verifier)
		<-a.Ready()
		time.Sleep(10 * time.Second)
		feed := readFeed(t, store.Store)
		require.True(t, slices.ContainsFunc(feed, func(r auth.Revocation) bool {
			return slices.Contains(r.Sessions, revoked.SessionID)
		}), "Run must publish the revocation of a session again")
		require.True(t, slices.ContainsFunc(feed, func(r auth.Revocation) bool { return r.Subject == "u3" && r.All }), "Run must publish RevokeAll again")
		require.Equal(t, 15*time.Minute, time.Until(startSession(t, a).AccessExpiresAt).Round(time.Second), "another login has the whole lifetime")
		require.NoError(t, b.Revoke(ctx, "u1", other.SessionID))
		synctest.Wait()
		_, err := a.Verify(ctx, other.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Len(t, done, len(results), "the requests do not wait for ever")
		require.NotZero(t, a.Health().Abandoned)
		stop()
		close(release)
		for range results {
			<-done
		}
		require.NoError(t, results[0])
		require.ErrorIs(t, results[1], auth.ErrUnavailable)
		require.ErrorIs(t, results[2], auth.ErrUnavailable)
	})
}

// Requests that wait for OnEvent do not delay the requests of others, whatever
// they were doing.
func TestOnEvent_ABlockedCallCostsOnlyItsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testBlockedOnEvent)
}

func testBlockedOnEvent(t *testing.T) {
	release := make(chan struct{})
	onEvent, entered := blockMarked(release)
	fx := newFixture(t, func(c *auth.Config) { c.OnEvent = onEvent })
	ctx := context.Background()
	marked := context.WithValue(ctx, blockedKey{}, true)
	spent := fx.chain(t, 3)[0]
	fx.clock.Advance(time.Minute)
	first, second := fx.refreshed(t)
	fresh := fx.login(t)
	guarded := fx.Require(func(context.Context, *auth.Claims) error { panic("guard") })(hello)
	token := reqBearer(fx.login(t).Access)
	blocked := map[string]func(){
		"login":   func() { _, _ = fx.Login(marked, "ada", pass, auth.SessionOptions{}) },
		"refused": func() { _, _ = fx.Login(marked, "ada", "wrong", auth.SessionOptions{}) },
		"refresh": func() { _, _ = fx.Refresh(marked, fresh.Refresh, auth.RefreshOptions{}) },
		"retry":   func() { _, _ = fx.Refresh(marked, first.Refresh, auth.RefreshOptions{}) },
		"reuse":   func() { _, _ = fx.Refresh(marked, spent.Refresh, auth.RefreshOptions{}) },
		"logout":  func() { _ = fx.Logout(marked, fx.login(t).Refresh) },
		"revoke":  func() { _ = fx.Revoke(marked, "u1", fx.login(t).SessionID) },
		"all":     func() { _ = fx.RevokeAll(marked, "u9") },
		"expire":  func() { _ = fx.ExpireAccess(marked, "u10") },
		"guard": func() {
			guarded.ServeHTTP(httptest.NewRecorder(), newRequest(token).WithContext(marked))
		},
	}
	finished := make(chan struct{}, len(blocked))
	for _, call := range blocked {
		go func() {
			call()
			finished <- struct{}{}
		}()
	}
	for range blocked {
		<-entered
	}
	begun := time.Now()
	var others sync.WaitGroup
	for i := range 16 {
		others.Go(func() {
			for range 4 {
				k, err := fx.StartSession(ctx, "u2", auth.SessionOptions{})
				if !assert(t, err) {
					return
				}
				c, err := fx.Verify(ctx, k.Access)
				if !assert(t, err) {
					return
				}
				_, cancel := fx.SessionContext(ctx, c)
				_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
				assert(t, err)
				_, err = fx.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
				assert(t, err)
				_, err = fx.Sessions(ctx, "u2")
				assert(t, err)
				assert(t, fx.Revoke(ctx, "u2", k.SessionID))
				if i == 0 {
					assert(t, fx.RevokeAll(ctx, "u8"))
					assert(t, fx.SetKeys(nil, nil))
				}
				cancel()
			}
		})
	}
	others.Wait()
	require.Zero(t, time.Since(begun), "nothing waits for the blocked calls")
	require.Empty(t, finished)
	close(release)
	for range blocked {
		<-finished
	}
}

// assert reports an error in a goroutine of a test.
func assert(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

func TestRun_AnEmptyPositionIsAFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newTestStore()
		noPosition := func(ctx context.Context, _ string) ([]auth.Revocation, string, bool, error) {
			if feed.count("Changes") > 1000 { // called without a pause
				return nil, "", false, hang(ctx)
			}
			return []auth.Revocation{{Subject: "u1", Sessions: []string{"one"}, Until: time.Now().Add(time.Hour)}}, "", false, nil
		}
		feed.setFeed(noPosition)
		a, es := newNode(t, feed)
		b, _ := newNode(t, feed.Store)
		ctx := context.Background()
		defer run(a.Verifier)()
		time.Sleep(time.Minute)
		require.False(t, a.Health().Ready, "a result without a position counts as an error")
		_, err := a.Verify(ctx, startSession(t, a).Access)
		require.ErrorIs(t, err, auth.ErrUnavailable)
		faults := es.take(auth.EventFault)
		require.NotEmpty(t, faults)
		require.ErrorContains(t, faults[0].Err, "empty position")
		require.Less(t, feed.count("Changes"), 100, "Run must pause while the feed fails")

		feed.setFeed(nil)
		<-a.Ready()
		tokens := startSession(t, a)
		time.Sleep(time.Minute)
		feed.resetCounts()
		feed.setFeed(noPosition)
		time.Sleep(2 * time.Minute)
		require.Greater(t, a.Health().FeedAge, time.Minute)
		require.Len(t, es.take(auth.EventStale), 1)
		require.Less(t, feed.count("Changes"), 100)
		require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
		feed.setFeed(nil)
		time.Sleep(10 * time.Second)
		require.Less(t, a.Health().FeedAge, time.Minute)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	})
}

func TestRun_AFeedThatHangsOrPanicsIsAnOutage(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(context.Context) error{
		"hangs":  hang,
		"panics": func(context.Context) error { panic("feed") },
		"fails":  func(context.Context) error { return errStore },
	} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			feed.on(broken, "Changes")
			a, es := newNode(t, feed)
			b, _ := newNode(t, feed.Store)
			ctx := context.Background()
			defer run(a.Verifier)()
			time.Sleep(10 * time.Minute)
			require.Zero(t, a.Health(), name)
			es.mu.Lock()
			for _, e := range es.all {
				require.Equal(t, auth.EventFault, e.Type, "%s: a feed that was never read is not stale", name)
			}
			require.GreaterOrEqual(t, len(es.all), 10*60/15, "%s: every attempt must be bounded and reported", name)
			es.mu.Unlock()

			feed.on(nil, "Changes")
			<-a.Ready()
			tokens := startSession(t, a)
			feed.resetCounts()
			feed.on(broken, "Changes")
			time.Sleep(10 * time.Minute)
			require.Less(t, feed.count("Changes"), 200, name)
			require.Len(t, es.take(auth.EventStale), 1, name)
			require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
			feed.on(nil, "Changes")
			time.Sleep(15 * time.Second)
			_, err := a.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
		})
	}
}

func TestRun_AQuietFeedIsReadyAtOnceAndNeverStale(t *testing.T) {
	t.Parallel()
	for _, maxStale := range []time.Duration{time.Second, 5 * time.Second, 0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			a, es := newNode(t, auth.NewMemoryStore(), func(c *auth.Config) {
				c.StalePolicy, c.MaxStale = auth.StaleRefuse, maxStale
			})
			require.Zero(t, a.Health())
			begun := time.Now()
			defer run(a.Verifier)()
			<-a.Ready()
			require.Zero(t, time.Since(begun), "the first read must not wait")
			tokens := startSession(t, a)
			for range 600 {
				time.Sleep(500 * time.Millisecond)
				_, err := a.Verify(context.Background(), tokens.Access)
				require.NoError(t, err, maxStale)
			}
			require.Empty(t, es.take(auth.EventStale))
		})
	}
}

func TestRun_ContinuesAfterAPanicOfItsFeed(t *testing.T) {
	t.Parallel()
	feed := newTestStore()
	feed.changes = func(context.Context, string) error {
		if feed.count("Changes") == 1 {
			panic("feed")
		}
		return nil
	}
	reported := &events{}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), Now: newClock().Now, OnEvent: reported.add,
		Feed: feed,
	})
	require.NoError(t, err)
	go func() { _ = v.Run(t.Context()) }()
	<-v.Ready()
	require.Equal(t, 1, len(reported.take(auth.EventFault)))
}
