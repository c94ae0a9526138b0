package auth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// feedStore is a store whose feed fails when it is told to.
type feedStore struct {
	*auth.MemoryStore
	mu      sync.Mutex
	fail    error
	reads   []string // the positions that were asked for
	revoked []auth.Revocation
}

func (f *feedStore) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *feedStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	f.mu.Lock()
	err := f.fail
	f.reads = append(f.reads, after)
	m := f.MemoryStore
	f.mu.Unlock()
	if err != nil {
		return nil, "", false, err
	}
	return m.Changes(ctx, after, wait)
}

func (f *feedStore) Revoke(ctx context.Context, r auth.Revocation) error {
	f.mu.Lock()
	if r.AccessTTL == 0 { // no notice
		f.revoked = append(f.revoked, r)
	}
	err, m := f.fail, f.MemoryStore
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return m.Revoke(ctx, r)
}

// failOver puts another in the store's place, that has lost everything but
// what it is given.
func (f *feedStore) failOver(kept ...auth.Revocation) {
	m := auth.NewMemoryStore()
	for _, r := range kept {
		_ = m.Revoke(context.Background(), r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.MemoryStore = m
}

func (f *feedStore) announced() []auth.Revocation {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.revoked
	f.revoked = nil
	return all
}

// node is an Authenticator on the real clock, which in a synctest bubble is
// the bubble's.
func node(t *testing.T, store auth.Store, change ...func(*auth.Config)) (*auth.Authenticator, *events) {
	t.Helper()
	es := &events{}
	c := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret},
		Users: newUsers(), Hasher: cheap, Store: store, OnEvent: es.add,
	}
	for _, f := range change {
		f(&c)
	}
	a, err := auth.New(c)
	require.NoError(t, err)
	return a, es
}

func start(t *testing.T, a *auth.Authenticator) auth.Tokens {
	t.Helper()
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

// run follows the feed until the returned function is called.
func run(a *auth.Verifier) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func TestRun_UntilTheFeedIsReadVerifyIsUnavailableAndLoginsGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		store.set(errStore)
		a, _ := node(t, store)
		ctx := context.Background()
		tokens := start(t, a)
		_, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable, "nobody called Run")
		_, err = a.Verify(ctx, "rubbish")
		require.ErrorIs(t, err, auth.ErrInvalidToken)
		require.False(t, a.Health().Ready)

		stop := run(a.Verifier)
		defer stop()
		time.Sleep(10 * time.Second)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable, "the feed does not answer")
		store.set(nil)
		<-a.Ready()
		_, err = a.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		require.True(t, a.Health().Ready)
	})
}

func TestRun_WithNothingToFollowIsReadyAndWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := node(t, nil)
		<-a.Ready()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		require.ErrorIs(t, a.Run(ctx), context.DeadlineExceeded)
		require.Zero(t, a.Health().FeedAge)
	})
}

func TestRun_IsOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := node(t, auth.NewMemoryStore())
		stop := run(a.Verifier)
		synctest.Wait()
		require.ErrorContains(t, a.Run(context.Background()), "running already")
		stop()
		stop = run(a.Verifier) // but may be started again
		synctest.Wait()
		require.ErrorContains(t, a.Run(context.Background()), "running already")
		stop()
	})
}

func TestRevocation_ReachesEveryNodeAndVerifier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := node(t, store, apart)
		b, _ := node(t, store, apart)
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Feed: store,
		})
		require.NoError(t, err)
		for _, x := range []*auth.Verifier{a.Verifier, b.Verifier, v} {
			stop := run(x)
			defer stop()
			<-x.Ready()
		}
		ctx := context.Background()
		everywhere := func(token string, want error) {
			t.Helper()
			synctest.Wait() // no clock moves: it is a matter of the feed alone
			for i, x := range []*auth.Verifier{a.Verifier, b.Verifier, v} {
				_, err := x.Verify(ctx, token)
				if want == nil {
					require.NoError(t, err, i)
				} else {
					require.ErrorIs(t, err, want, i)
				}
			}
		}
		one, two, three := start(t, a), start(t, a), start(t, b)
		everywhere(one.Access, nil)
		require.NoError(t, a.Revoke(ctx, "u1", one.SessionID))
		everywhere(one.Access, auth.ErrSessionRevoked)
		everywhere(two.Access, nil)

		stream, cancel := b.SessionContext(ctx, claims(t, b, two.Access))
		defer cancel()
		require.NoError(t, a.RevokeAll(ctx, "u1", three.SessionID))
		everywhere(two.Access, auth.ErrSessionRevoked)
		<-stream.Done()
		require.ErrorIs(t, context.Cause(stream), auth.ErrSessionRevoked)
		everywhere(three.Access, nil)

		require.NoError(t, b.ExpireAccess(ctx, "u1"))
		everywhere(three.Access, auth.ErrTokenExpired)
		again, err := a.Refresh(ctx, three.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		everywhere(again.Access, nil)
	})
}

func apart(c *auth.Config) {
	c.Secrets = nil
	c.AccessKeys = auth.Keys{auth.HS256(secret)}
	c.RefreshKeys = auth.Keys{auth.HS256([]byte("another secret of at least 32 bytes!"))}
}

func claims(t *testing.T, a *auth.Authenticator, token string) *auth.Claims {
	t.Helper()
	c, err := a.Verify(context.Background(), token)
	require.NoError(t, err)
	return c
}

func TestRun_AfterAnErrorItGoesOnFromTheLastPosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		a, es := node(t, store)
		b, _ := node(t, store.MemoryStore)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		tokens := start(t, a)
		store.set(errStore)
		time.Sleep(time.Minute)
		require.NoError(t, b.Revoke(context.Background(), "u1", tokens.SessionID))
		_, err := a.Verify(context.Background(), tokens.Access)
		require.NoError(t, err, "a does not know")
		store.set(nil)
		time.Sleep(6 * time.Second)
		_, err = a.Verify(context.Background(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.NotEmpty(t, es.take(auth.EventFault))

		store.mu.Lock()
		defer store.mu.Unlock()
		require.Less(t, len(store.reads), 40, "it does not hammer a feed that fails")
		require.Empty(t, store.reads[0])
		for _, position := range store.reads[1:] {
			require.NotEmpty(t, position)
		}
	})
}

func TestRun_AfterAFailoverWhatTheFeedHasLostIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{
		"the feed says so":                       auth.ErrFeedReset,
		"an outage, and then another server":     errStore,
		"nothing is noticed but by the position": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, _ := node(t, store)
			b, _ := node(t, store.MemoryStore)
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
			tokens := start(t, a)
			ctx := context.Background()
			require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID)) // known to a by the feed alone
			require.NoError(t, a.RevokeAll(ctx, "u2", "spared"))
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			require.NoError(t, a.Revoke(ctx, "u2", "kept"))
			time.Sleep(time.Minute)
			all := store.announced()
			kept := all[len(all)-1]
			require.Equal(t, []string{"kept"}, kept.Sessions)

			store.set(fail)
			time.Sleep(6 * time.Second)
			store.failOver(kept)
			store.set(nil)
			time.Sleep(30 * time.Second)
			kinds := map[string]int{}
			for _, r := range store.announced() {
				require.WithinDuration(t, time.Now().Add(16*time.Minute), r.Until, time.Minute, "with a new Until")
				kinds[strings.TrimSpace(fmt.Sprintln(r.Subject, len(r.Sessions), r.All, r.Except, !r.Before.IsZero()))]++
			}
			require.Equal(t, map[string]int{"u1 1 false [] false": 1, "u2 0 true [spared] true": 1, "u1 0 false [] true": 1}, kinds, name)
		})
	}
}

func TestRun_AnOutageThatLostNothingAnnouncesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		for i := range 20 {
			require.NoError(t, a.Revoke(context.Background(), "u1", fmt.Sprint(i)))
		}
		require.Len(t, store.announced(), 20)
		for _, fail := range []error{errStore, auth.ErrFeedReset} {
			store.set(fail)
			time.Sleep(10 * time.Second)
			store.set(nil)
			time.Sleep(time.Minute)
			require.Empty(t, store.announced(), fail)
		}
	})
}

// What the feed still has stands for what it lost only if it says as much.
func TestRun_WhatTheFeedKeptDoesNotStandForWhatCameLater(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(a *auth.Authenticator) error{
		"a later cut":             func(a *auth.Authenticator) error { return a.ExpireAccess(context.Background(), "u1") },
		"the same, for longer":    func(a *auth.Authenticator) error { return a.Revoke(context.Background(), "u1", "one") },
		"a later end of them all": func(a *auth.Authenticator) error { return a.RevokeAll(context.Background(), "u1") },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, _ := node(t, store)
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
			require.NoError(t, revoke(a))
			time.Sleep(time.Minute)
			require.NoError(t, revoke(a))
			time.Sleep(time.Minute)
			both := store.announced()
			require.Len(t, both, 2)
			if name != "the same, for longer" {
				both[0].Until = both[1].Until // it is the cut that counts
			}
			store.failOver(both[0])
			time.Sleep(time.Minute)
			again := store.announced()
			require.Len(t, again, 1, name)
			require.Equal(t, both[1].Before, again[0].Before)
		})
	}
}

func TestRun_WhatThisProcessRevokedIsAnnouncedOnceMoreBeforeItIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		a, _ := node(t, store)
		other, _ := node(t, store)
		for _, x := range []*auth.Authenticator{a, other} {
			stop := run(x.Verifier)
			defer stop()
			<-x.Ready()
		}
		tokens := start(t, a)
		require.NoError(t, a.Revoke(context.Background(), "u1", tokens.SessionID))
		require.Len(t, store.announced(), 1)
		time.Sleep(15 * time.Minute)
		require.Empty(t, store.announced(), "not yet")
		time.Sleep(time.Minute)
		require.Len(t, store.announced(), 1, "once, by the one that made it")
		time.Sleep(time.Hour)
		require.Empty(t, store.announced(), "and not in its turn")
		require.NoError(t, a.Revoke(context.Background(), "u1", "another")) // which lets the old ones go
		require.Equal(t, 1, a.Health().Revocations)
	})
}

func TestRun_RevocationThatTheStoreDidNotTakeIsAnnouncedWhenItIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		tokens := start(t, a)
		store.set(errStore)
		require.ErrorIs(t, a.Revoke(context.Background(), "u1", tokens.SessionID), auth.ErrUnavailable)
		time.Sleep(time.Hour)
		store.set(nil)
		time.Sleep(time.Hour)
		_, err := store.Get(context.Background(), "u1", tokens.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	})
}

func TestStale_TheThreeChoices(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]error{
		auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrSessionRevoked, auth.StaleRefuse: auth.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, es := node(t, store, func(c *auth.Config) { c.StalePolicy = policy })
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
			ctx := context.Background()
			lives, dies := start(t, a), start(t, a)
			store.set(errStore)
			time.Sleep(6 * time.Second) // a read that is under way ends
			require.NoError(t, store.MemoryStore.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{dies.SessionID}, Until: time.Now().Add(time.Hour)}))
			time.Sleep(30 * time.Second)
			_, err := a.Verify(ctx, dies.Access)
			require.NoError(t, err, "not stale yet")
			require.Empty(t, es.take(auth.EventStale))
			time.Sleep(40 * time.Second)
			require.Greater(t, a.Health().FeedAge, time.Minute)
			for range 3 {
				_, err = a.Verify(ctx, dies.Access)
				require.ErrorIs(t, err, want)
			}
			_, err = a.Verify(ctx, lives.Access)
			if policy == auth.StaleRefuse {
				require.ErrorIs(t, err, auth.ErrUnavailable)
			} else {
				require.NoError(t, err)
			}
			require.Len(t, es.take(auth.EventStale), 1, "said once")
			store.set(nil)
			time.Sleep(10 * time.Second)
			_, err = a.Verify(ctx, dies.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			_, err = a.Verify(ctx, lives.Access)
			require.NoError(t, err)
		})
	}
}

func TestSessionContext_EndsWithItsSessionAndNotWithARefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := node(t, nil, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = time.Hour, time.Hour })
		ctx := context.Background()
		open := func(tokens auth.Tokens) context.Context {
			stream, cancel := a.SessionContext(ctx, claims(t, a, tokens.Access))
			t.Cleanup(cancel)
			return stream
		}
		one, two, three := start(t, a), start(t, a), start(t, a)
		ends, stays, cut := open(one), open(two), open(three)
		_, err := a.Refresh(ctx, one.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(16 * time.Minute)
		require.NoError(t, ends.Err(), "neither a refresh nor the access token's end is its end")
		require.NoError(t, a.Revoke(ctx, "u1", one.SessionID))
		<-ends.Done()
		require.ErrorIs(t, context.Cause(ends), auth.ErrSessionRevoked)
		require.NoError(t, stays.Err())

		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		<-cut.Done()
		require.ErrorIs(t, context.Cause(cut), auth.ErrTokenExpired)
		<-stays.Done()

		again, err := a.Refresh(ctx, two.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		last := open(again)
		time.Sleep(43 * time.Minute)
		require.NoError(t, last.Err())
		<-last.Done()
		require.ErrorIs(t, context.Cause(last), auth.ErrTokenExpired, "the session's end")

		// A context for a session that ended before it was asked for.
		dead, cancel := a.SessionContext(ctx, &auth.Claims{Subject: "u1", SessionID: one.SessionID})
		defer cancel()
		require.ErrorIs(t, context.Cause(dead), auth.ErrSessionRevoked)
	})
}

func TestSessionContext_ReleasesWhatItHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		a, _ := node(t, nil)
		c := claims(t, a, start(t, a).Access)
		parent, hangUp := context.WithCancel(context.Background())
		child, _ := a.SessionContext(parent, c) // the parent ends it
		own, cancel := a.SessionContext(context.Background(), c)
		hangUp()
		<-child.Done()
		cancel()
		<-own.Done()
		require.ErrorIs(t, context.Cause(own), context.Canceled)
		synctest.Wait()
	})
}

func TestRevocations_AreForgottenWhenNoTokenIsLeft(t *testing.T) {
	t.Parallel()
	clock := newClock()
	a, _ := node(t, nil, func(c *auth.Config) { c.Now = clock.Now })
	ctx := context.Background()
	for range 50 {
		for range 20 {
			require.NoError(t, a.Revoke(ctx, "u1", start(t, a).SessionID))
			require.NoError(t, a.RevokeAll(ctx, "u2"))
		}
		clock.advance(time.Minute)
	}
	// 16 minutes of them, and the few that wait for the next to come.
	require.Less(t, a.Health().Revocations, 18*21)
}

func TestRevoke_ByManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				tokens, err := b.StartSession(ctx, "u1", auth.SessionOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
				_ = b.RevokeAll(ctx, "u2")
				if err := b.Revoke(ctx, "u1", tokens.SessionID); err != nil {
					t.Error(err)
				}
				if _, err := b.Verify(ctx, tokens.Access); !errors.Is(err, auth.ErrSessionRevoked) {
					t.Errorf("after Revoke returned: %v", err)
				}
				if _, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop}); !errors.Is(err, auth.ErrSessionRevoked) {
					t.Errorf("after Revoke returned: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// hangingStore does not answer when it is told to hang, until the context ends.
type hangingStore struct {
	*auth.MemoryStore
	hangs atomic.Bool
}

func (h *hangingStore) List(ctx context.Context, subject string) ([]auth.Session, error) {
	h.hangs.Store(true) // from here on
	<-ctx.Done()
	return nil, ctx.Err()
}

func (h *hangingStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if h.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.MemoryStore.Revoke(ctx, r)
}

func TestStart_WaitsForAStoreThatHangsNotMuchLongerThanOneCallMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &hangingStore{MemoryStore: auth.NewMemoryStore()}
		a, events := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		begun := time.Now()
		_, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.LessOrEqual(t, time.Since(begun), 2500*time.Millisecond)
		require.NotEmpty(t, events.take(auth.EventFault))

		// The session that nobody holds is ended when the store answers.
		list, err := store.MemoryStore.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Len(t, list, 1)
		store.hangs.Store(false)
		time.Sleep(time.Minute)
		list, err = store.MemoryStore.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

// longFeed takes a while to tell the whole horizon.
type longFeed struct{ *auth.MemoryStore }

func (f longFeed) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if after == "" {
		select {
		case <-time.After(4 * time.Second):
		case <-ctx.Done():
			return nil, "", false, ctx.Err()
		}
	}
	return f.MemoryStore.Changes(ctx, after, wait)
}

func TestRun_TheWholeHorizonMayTakeLongerThanOtherCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := node(t, longFeed{auth.NewMemoryStore()})
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
			require.Equal(t, 5*time.Second+want, <-limits, "beside the time for which Changes may wait")
			stop()
		})
	}
}
