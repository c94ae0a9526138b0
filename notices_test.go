package auth_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// revocationKinds are all ways to revoke access tokens of user u1.
var revocationKinds = map[string]func(a *auth.Authenticator, t auth.Tokens) error{
	"logout":        func(a *auth.Authenticator, t auth.Tokens) error { return a.Logout(context.Background(), t.Refresh) },
	"access logout": func(a *auth.Authenticator, t auth.Tokens) error { return a.Logout(context.Background(), t.Access) },
	"revoke": func(a *auth.Authenticator, t auth.Tokens) error {
		return a.Revoke(context.Background(), "u1", t.SessionID)
	},
	"revoke all":    func(a *auth.Authenticator, _ auth.Tokens) error { return a.RevokeAll(context.Background(), "u1") },
	"expire access": func(a *auth.Authenticator, _ auth.Tokens) error { return a.ExpireAccess(context.Background(), "u1") },
}

func TestRevoke_CoversProcessesWithALongerAccessTTL(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	const long, short = 90 * time.Minute, 2 * time.Second
	type cluster struct {
		t     *testing.T
		store auth.Store
	}
	begin := func(c cluster, ttl time.Duration) (a *auth.Authenticator, stop func()) {
		a, _ = newNode(c.t, c.store, withAccessTTL(ttl))
		return a, run(a.Verifier)
	}
	for kind, revoke := range revocationKinds {
		for name, scenario := range map[string]func(c cluster) (dead, good auth.Tokens, nodes []*auth.Authenticator){
			"a process with the shorter one comes after": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				a, stop := begin(c, long)
				<-a.Ready()
				dead, good := startSession(c.t, a), startOtherSession(c.t, a)
				stop()
				b, stop := begin(c, short)
				c.t.Cleanup(stop)
				<-b.Ready()
				require.NoError(c.t, revoke(b, dead))
				return dead, good, []*auth.Authenticator{b}
			},
			"it has not read the feed yet": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				a, stop := begin(c, long)
				<-a.Ready()
				dead, good := startSession(c.t, a), startOtherSession(c.t, a)
				stop()
				b, _ := newNode(c.t, c.store, withAccessTTL(short))
				require.NoError(c.t, revoke(b, dead))
				return dead, good, nil
			},
			"both run, the longer one first": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				<-a.Ready()
				dead, good := startSession(c.t, a), startOtherSession(c.t, a)
				b, stopB := begin(c, short)
				c.t.Cleanup(stopB)
				<-b.Ready()
				time.Sleep(30 * time.Minute)
				require.NoError(c.t, revoke(b, dead))
				return dead, good, []*auth.Authenticator{a, b}
			},
			"the shorter one first, which logs out before it reads the notice": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				b, stopB := begin(c, short)
				c.t.Cleanup(stopB)
				<-b.Ready()
				time.Sleep(2 * time.Minute)
				deaf := &testStore{Store: c.store, changes: func(ctx context.Context, _ string) error {
					time.Sleep(time.Second) // only this process reads late
					return nil
				}}
				b2, _ := newNode(c.t, deaf, withAccessTTL(short))
				stop := run(b2.Verifier)
				<-b2.Ready()
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				dead, good := startSession(c.t, a), startOtherSession(c.t, a) // before Run has published a notice
				require.NoError(c.t, revoke(b2, dead))
				time.Sleep(10 * time.Second)
				stop() // after it has read the other's notice
				return dead, good, []*auth.Authenticator{a, b}
			},
			"its feed was cut off": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				cutOff := &testStore{Store: c.store}
				b, _ := newNode(c.t, cutOff, withAccessTTL(short))
				stopB := run(b.Verifier)
				<-b.Ready()
				cutOff.failBefore("Changes", errStore)
				time.Sleep(10 * time.Minute)
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				<-a.Ready()
				dead, good := startSession(c.t, a), startOtherSession(c.t, a)
				require.NoError(c.t, revoke(b, dead))
				stopB() // it never reads the other's notice
				return dead, good, []*auth.Authenticator{a}
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := cluster{t, database{auth.NewMemoryStore()}}
				dead, good, nodes := scenario(c)
				require.Greater(t, time.Until(good.AccessExpiresAt), 50*time.Minute, name)
				var verifiers []*auth.Verifier
				for _, n := range nodes {
					verifiers = append(verifiers, n.Verifier)
				}
				for _, after := range []time.Duration{time.Second, 2 * time.Minute, 40 * time.Minute} {
					// Another service and another process with the old
					// configuration start.
					v, err := auth.NewVerifier(auth.VerifierConfig{
						Issuer: issuer, Audience: []string{audience}, Keys: derivedAccessKeys(), Feed: c.store, Leeway: time.Millisecond,
					})
					require.NoError(t, err)
					t.Cleanup(run(v))
					back, stop := begin(c, long)
					t.Cleanup(stop)
					<-v.Ready()
					<-back.Ready()
					verifiers = append(verifiers, v, back.Verifier)
					time.Sleep(after)
					synctest.Wait()
					if !time.Now().Before(good.AccessExpiresAt) {
						break
					}
					for i, v := range verifiers {
						_, err := v.Verify(context.Background(), dead.Access)
						require.Error(t, err, "%s, %s, node %d, %s", kind, name, i, after)
						_, err = v.Verify(context.Background(), good.Access)
						require.NoError(t, err, "%s, %s, node %d, %s", kind, name, i, after)
					}
				}
			})
		}
	}
}

func TestAccessTTL_IsLimitedUntilTheNoticeIsStored(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{2 * time.Second, time.Minute, time.Minute + time.Second, 15 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var notices atomic.Int64
			var fails atomic.Bool
			fails.Store(true)
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
				if r.AccessTTL > 0 {
					notices.Add(1)
					if fails.Load() {
						return errStore
					}
				}
				return nil
			}}
			a, _ := newNode(t, store, withAccessTTL(ttl))
			accessLifetime := func() time.Duration { return time.Until(startSession(t, a).AccessExpiresAt).Round(time.Second) }
			for range 20 {
				require.Equal(t, min(ttl, time.Minute), accessLifetime(), "the store refuses the notice")
			}
			require.LessOrEqual(t, notices.Load(), int64(1), "not every login may try to store a notice")
			fails.Store(false)
			time.Sleep(2 * time.Second)
			require.Equal(t, ttl, accessLifetime(), "the login must publish the notice, even without Run")
			n := notices.Load()
			require.Equal(t, ttl, accessLifetime())
			require.Equal(t, n, notices.Load(), "the notice must not be published again soon")

			// Not every process of a fleet renews the notice.
			for range 5 {
				b, _ := newNode(t, store, withAccessTTL(ttl))
				t.Cleanup(run(b.Verifier))
			}
			notices.Store(0)
			time.Sleep(2 * time.Hour)
			if ttl > time.Minute && ttl < time.Hour {
				require.Positive(t, notices.Load(), "Run must renew the notice")
			}
			require.LessOrEqual(t, notices.Load(), int64(2*time.Hour/max(ttl, 10*time.Minute)*4+6), ttl)
			require.Equal(t, ttl, accessLifetime())
		})
	}
}

func TestRevoke_EntriesExpireWithinTwiceTheAccessTTL(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{time.Second + time.Millisecond*3, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			for range 3 {
				a, _ := newNode(t, store, withAccessTTL(ttl))
				t.Cleanup(run(a.Verifier))
				<-a.Ready()
				for kind, revoke := range revocationKinds {
					require.NoError(t, revoke(a, startSession(t, a)), kind)
					time.Sleep(2 * time.Second)
				}
				for _, r := range store.passed() {
					longest := 2 * (ttl + time.Minute)
					if r.All { // it applies to one-time tokens too
						longest = 24*time.Hour + time.Minute
					}
					require.LessOrEqual(t, time.Until(r.Until), longest, ttl)
				}
			}
		})
	}
}

// The longer AccessTTL of another process counts only until its notice expires.
// Its notice does not allow an AccessTTL that is even longer.
func TestRevoke_UsesNoticesOfOthersUntilTheyExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
			if r.AccessTTL > 5*time.Minute {
				return errStore
			}
			return nil
		}}
		a, _ := newNode(t, store, withAccessTTL(5*time.Minute))
		stop := run(a.Verifier)
		<-a.Ready()
		require.Greater(t, time.Until(startSession(t, a).AccessExpiresAt), 4*time.Minute)
		b, _ := newNode(t, store, withAccessTTL(2*time.Second))
		stopB := run(b.Verifier)
		defer stopB()
		<-b.Ready()
		longer, _ := newNode(t, store, withAccessTTL(time.Hour))
		stopLonger := run(longer.Verifier)
		<-longer.Ready()
		require.LessOrEqual(t, time.Until(startSession(t, longer).AccessExpiresAt), time.Minute)
		stopLonger()
		lasts := func() time.Duration {
			require.NoError(t, b.Revoke(context.Background(), "u1", "one"))
			passed := store.passed()
			return time.Until(passed[len(passed)-1].Until)
		}
		require.Equal(t, 6*time.Minute, lasts())
		stop()
		time.Sleep(time.Hour)
		require.Equal(t, time.Minute+2*time.Second, lasts(), "the other process's notice has expired")
	})
}

func TestRevoke_UsesTheNoticeThatEndsLast(t *testing.T) {
	t.Parallel()
	for name, lengths := range map[string][]time.Duration{
		"the earlier one ends last": {3 * time.Hour, 90 * time.Minute},
		"the later one ends last":   {90 * time.Minute, 3 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			runNodes(t, a)
			ctx := context.Background()
			for i, length := range lengths {
				require.NoError(t, store.Store.Revoke(ctx, auth.Revocation{
					AccessTTL: time.Hour, Until: time.Now().Add(length), ID: fmt.Sprint("other.", i),
				}))
				time.Sleep(time.Minute)
			}
			time.Sleep(2 * time.Hour)
			require.NoError(t, a.RevokeAll(ctx, "u1"))
			passed := store.passed()
			require.GreaterOrEqual(t, time.Until(passed[len(passed)-1].Until), time.Hour, name)
		})
	}
}

func TestRun_RepublishesNoticesLostInAFailover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		longer, _ := newNode(t, store, withAccessTTL(3*time.Hour))
		stop := run(longer.Verifier)
		<-longer.Ready()
		startSession(t, longer)
		stop() // its tokens are still valid
		a, _ := newNode(t, store)
		stop = run(a.Verifier)
		defer stop()
		<-a.Ready()
		store.failOver()
		time.Sleep(30 * time.Second)
		ttls := map[time.Duration]bool{}
		for _, r := range readFeed(t, store.Store) {
			ttls[r.AccessTTL] = true
		}
		require.Equal(t, map[time.Duration]bool{3 * time.Hour: true}, ttls, "the longest notice covers shorter ones")
	})
}

func TestRun_AFailingNoticeStopsNoRevocation(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"cannot represent it": nil, "fails": errStore} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			var newer, down atomic.Bool
			newer.Store(true)
			var notices atomic.Int64
			store := &testStore{Store: feed, page: func(rs []auth.Revocation) []auth.Revocation {
				if newer.Load() {
					for i := range 3 { // from a version that allows a longer AccessTTL
						rs = append(rs, auth.Revocation{AccessTTL: time.Duration(25+i) * time.Hour, Until: time.Now().Add(50 * time.Hour), ID: "newer.1"})
					}
				}
				return rs
			}, revoke: func(_ context.Context, r auth.Revocation) error {
				switch {
				case r.AccessTTL > 24*time.Hour:
					notices.Add(1)
					return refusal
				case r.AccessTTL == 0 && down.Load():
					return errStore
				}
				return nil
			}}
			a, _ := newNode(t, store)
			defer run(a.Verifier)()
			<-a.Ready()
			newer.Store(false)
			down.Store(true)
			ctx := context.Background()
			tokens := startSession(t, a)
			require.ErrorIs(t, a.Logout(ctx, tokens.Refresh), auth.ErrUnavailable)
			feed.failOver()
			time.Sleep(20 * time.Second)
			down.Store(false)
			time.Sleep(2 * time.Minute)
			require.True(t, slices.ContainsFunc(readFeed(t, feed), func(r auth.Revocation) bool {
				return slices.Contains(r.Sessions, tokens.SessionID)
			}), name)
			if refusal == nil {
				require.Equal(t, int64(3), notices.Load(), "it must not be tried again")
			}
		})
	}
}

func TestRun_PausesAfterANoticeThatFailedButWasStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newTestStore()
		long, _ := newNode(t, feed, withAccessTTL(12*time.Hour))
		startSession(t, long)
		var answers atomic.Bool
		var calls atomic.Int64
		store := &testStore{Store: feed, revoke: func(ctx context.Context, r auth.Revocation) error {
			if answers.Load() || calls.Add(1) > 1000 {
				return nil
			}
			_ = feed.Revoke(ctx, r) // this wakes all readers of the feed
			return errStore
		}}
		answers.Store(true)
		a, _ := newNode(t, store)
		defer run(a.Verifier)()
		<-a.Ready()
		time.Sleep(time.Second)
		answers.Store(false)
		feed.failOver()
		time.Sleep(time.Minute)
		require.NotZero(t, calls.Load())
		require.Less(t, calls.Load(), int64(150))
	})
}
