package auth_test

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// testStore is a store whose calls a test may hold up, fail or change.
type testStore struct {
	auth.Store
	revoke  func(ctx context.Context, r auth.Revocation) error // before Revoke
	changes func(ctx context.Context, after string) error      // before Changes
	page    func(rs []auth.Revocation) []auth.Revocation       // of Changes
	get     atomic.Int64
	mu      sync.Mutex
	revoked []auth.Revocation // what was passed to Revoke, without notices
	reads   []string          // positions that were passed to Changes
}

func (s *testStore) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	s.get.Add(1)
	return s.Store.Get(ctx, subject, id)
}

func (s *testStore) Revoke(ctx context.Context, r auth.Revocation) error {
	s.mu.Lock()
	if r.AccessTTL == 0 {
		s.revoked = append(s.revoked, r)
	}
	s.mu.Unlock()
	if s.revoke != nil {
		if err := s.revoke(ctx, r); err != nil {
			return err
		}
	}
	return s.Store.Revoke(ctx, r)
}

func (s *testStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	s.mu.Lock()
	s.reads = append(s.reads, after)
	s.mu.Unlock()
	if s.changes != nil {
		if err := s.changes(ctx, after); err != nil {
			return nil, "", false, err
		}
	}
	rs, next, more, err := s.Store.Changes(ctx, after, wait)
	if s.page != nil {
		rs = s.page(rs)
	}
	return rs, next, more, err
}

func (s *testStore) passed() []auth.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.revoked)
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// lifetimes sets the lifetime of access tokens, and clocks that agree.
func lifetimes(ttl time.Duration) func(*auth.Config) {
	return func(c *auth.Config) { c.AccessTTL, c.Leeway = ttl, time.Millisecond }
}

// revocationKinds are all ways to end access tokens of the user u1.
var revocationKinds = map[string]func(a *auth.Authenticator, t auth.Tokens) error{
	"logout":        func(a *auth.Authenticator, t auth.Tokens) error { return a.Logout(context.Background(), t.Refresh) },
	"access logout": func(a *auth.Authenticator, t auth.Tokens) error { return a.Logout(context.Background(), t.Access) },
	"revoke": func(a *auth.Authenticator, t auth.Tokens) error {
		return a.Revoke(context.Background(), "u1", t.SessionID)
	},
	"revoke all":    func(a *auth.Authenticator, _ auth.Tokens) error { return a.RevokeAll(context.Background(), "u1") },
	"expire access": func(a *auth.Authenticator, _ auth.Tokens) error { return a.ExpireAccess(context.Background(), "u1") },
}

func TestRevoke_HoldsForTokensOfProcessesWithALongerAccessTTL(t *testing.T) {
	t.Parallel()
	const long, short = 90 * time.Minute, 2 * time.Second
	type cluster struct {
		t     *testing.T
		store auth.Store
	}
	begin := func(c cluster, ttl time.Duration) (a *auth.Authenticator, stop func()) {
		a, _ = node(c.t, c.store, lifetimes(ttl))
		return a, run(a.Verifier)
	}
	for kind, revoke := range revocationKinds {
		for name, play := range map[string]func(c cluster) (dead, good auth.Tokens, nodes []*auth.Authenticator){
			"a process with the shorter one comes after": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				a, stop := begin(c, long)
				<-a.Ready()
				dead, good := start(c.t, a), other(c.t, a)
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
				dead, good := start(c.t, a), other(c.t, a)
				stop()
				b, _ := node(c.t, c.store, lifetimes(short))
				require.NoError(c.t, revoke(b, dead))
				return dead, good, nil
			},
			"both run, the longer one first": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				<-a.Ready()
				dead, good := start(c.t, a), other(c.t, a)
				b, stopB := begin(c, short)
				c.t.Cleanup(stopB)
				<-b.Ready()
				time.Sleep(30 * time.Minute)
				require.NoError(c.t, revoke(b, dead))
				return dead, good, []*auth.Authenticator{a, b}
			},
			"both run, the shorter one first, and it logs out before it hears of the other": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				b, stopB := begin(c, short)
				c.t.Cleanup(stopB)
				<-b.Ready()
				time.Sleep(2 * time.Minute)
				deaf := &testStore{Store: c.store, changes: func(ctx context.Context, _ string) error {
					time.Sleep(time.Second) // of this process alone
					return nil
				}}
				b2, _ := node(c.t, deaf, lifetimes(short))
				stop := run(b2.Verifier)
				<-b2.Ready()
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				dead, good := start(c.t, a), other(c.t, a) // before Run has announced anything
				require.NoError(c.t, revoke(b2, dead))
				time.Sleep(10 * time.Second)
				stop() // after it has heard of the other
				return dead, good, []*auth.Authenticator{a, b}
			},
			"its feed was cut off": func(c cluster) (auth.Tokens, auth.Tokens, []*auth.Authenticator) {
				var fails atomic.Bool
				cutOff := &testStore{Store: c.store, changes: func(context.Context, string) error {
					if fails.Load() {
						return errStore
					}
					return nil
				}}
				b, _ := node(c.t, cutOff, lifetimes(short))
				stopB := run(b.Verifier)
				<-b.Ready()
				fails.Store(true)
				time.Sleep(10 * time.Minute)
				a, stopA := begin(c, long)
				c.t.Cleanup(stopA)
				<-a.Ready()
				dead, good := start(c.t, a), other(c.t, a)
				require.NoError(c.t, revoke(b, dead))
				stopB() // and it never hears of it
				return dead, good, []*auth.Authenticator{a}
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				c := cluster{t, auth.NewMemoryStore()}
				dead, good, nodes := play(c)
				require.Greater(t, time.Until(good.AccessExpiresAt), 50*time.Minute, name)
				var verifiers []*auth.Verifier
				for _, n := range nodes {
					verifiers = append(verifiers, n.Verifier)
				}
				for _, after := range []time.Duration{time.Second, 2 * time.Minute, 40 * time.Minute} {
					// One more service, and one more process of the old configuration.
					v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: accessKeys(), Feed: c.store, Leeway: time.Millisecond})
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

// other opens a session of the user u2.
func other(t *testing.T, a *auth.Authenticator) auth.Tokens {
	t.Helper()
	tokens, err := a.StartSession(context.Background(), "u2", auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

func TestAccessTTL_OfALoginIsBoundedUntilTheStoreHasTakenItsNotice(t *testing.T) {
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
			a, _ := node(t, store, lifetimes(ttl))
			lives := func() time.Duration { return time.Until(start(t, a).AccessExpiresAt).Round(time.Second) }
			for range 20 {
				require.Equal(t, min(ttl, time.Minute), lives(), "the store takes no notice")
			}
			require.LessOrEqual(t, notices.Load(), int64(1), "it is not asked at every login")
			fails.Store(false)
			time.Sleep(2 * time.Second)
			require.Equal(t, ttl, lives(), "the login announces it, whether or not anybody has called Run")
			n := notices.Load()
			require.Equal(t, ttl, lives())
			require.Equal(t, n, notices.Load(), "once for a while")

			// A fleet renews its notices a few times, not each process.
			for range 5 {
				b, _ := node(t, store, lifetimes(ttl))
				t.Cleanup(run(b.Verifier))
			}
			notices.Store(0)
			time.Sleep(2 * time.Hour)
			if ttl > time.Minute && ttl < time.Hour {
				require.Positive(t, notices.Load(), "Run renews the notice")
			}
			require.LessOrEqual(t, notices.Load(), int64(2*time.Hour/max(ttl, 10*time.Minute)*4+6), ttl)
			require.Equal(t, ttl, lives())
		})
	}
}

func TestLogin_WaitsForAStoreThatHangsNotMuchLongerThanOneCallMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(ctx context.Context, _ auth.Revocation) error {
			if hangs.Load() {
				return hang(ctx)
			}
			return nil
		}}
		a, _ := node(t, store)
		hangs.Store(true)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				begun := time.Now()
				tokens := start(t, a)
				require.LessOrEqual(t, time.Since(begun), 500*time.Millisecond)
				require.LessOrEqual(t, time.Until(tokens.AccessExpiresAt), time.Minute)
			})
		}
		wg.Wait()
		hangs.Store(false)
		time.Sleep(time.Second)
		require.Greater(t, time.Until(start(t, a).AccessExpiresAt), 14*time.Minute)
	})
}

func TestRevoke_EntriesLiveForAtMostTwiceTheLifetimeThatAllProcessesHave(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{time.Second + time.Millisecond*3, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := &testStore{Store: auth.NewMemoryStore()}
			for range 3 {
				a, _ := node(t, store, lifetimes(ttl))
				t.Cleanup(run(a.Verifier))
				<-a.Ready()
				for kind, revoke := range revocationKinds {
					require.NoError(t, revoke(a, start(t, a)), kind)
					time.Sleep(2 * time.Second)
				}
				for _, r := range store.passed() {
					require.LessOrEqual(t, time.Until(r.Until), 2*(ttl+time.Minute), ttl)
				}
			}
		})
	}
}

func TestLogout_AnswersOnlyWhenTheStoreHasConfirmed(t *testing.T) {
	t.Parallel()
	for kind, revoke := range revocationKinds {
		if kind == "expire access" {
			continue // it waits for the next second
		}
		synctest.Test(t, func(t *testing.T) {
			var hangs atomic.Bool
			store := &testStore{Store: auth.NewMemoryStore(), revoke: func(ctx context.Context, _ auth.Revocation) error {
				if hangs.Load() {
					return hang(ctx)
				}
				return nil
			}}
			a, _ := node(t, store)
			stop := run(a.Verifier)
			<-a.Ready()
			require.NoError(t, a.RevokeAll(context.Background(), "u1")) // which the store has confirmed
			time.Sleep(12 * time.Second)
			tokens := start(t, a)
			hangs.Store(true)
			begun := time.Now()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					require.ErrorIs(t, revoke(a, tokens), auth.ErrUnavailable, "%s %d", kind, i)
				})
			}
			wg.Go(func() {
				time.Sleep(200 * time.Millisecond)
				list, err := a.Sessions(context.Background(), "u1")
				require.NoError(t, err)
				require.Len(t, list, 1, "it has not ended yet")
				_, err = a.Verify(context.Background(), tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "in this process it has")
			})
			wg.Wait()
			require.LessOrEqual(t, time.Since(begun), 2100*time.Millisecond, kind)
			require.ErrorIs(t, revoke(a, tokens), auth.ErrUnavailable, kind)
			hangs.Store(false)
			time.Sleep(2 * time.Minute)
			_, err := store.Store.Get(context.Background(), "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s: Run has ended it", kind)
			stop()
			require.NoError(t, revoke(a, tokens), kind)
		})
	}
}

func TestRevoke_OneRequestWaitsForOneStoreTimeout(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]func(*hungStore){
		"Revoke":            func(h *hungStore) { h.revoke = true },
		"List":              func(h *hungStore) { h.list = true },
		"Get":               func(h *hungStore) { h.get = true },
		"everything":        func(h *hungStore) { h.revoke, h.list, h.get = true, true, true },
		"Revoke, and slows": func(h *hungStore) { h.revoke, h.slow = true, 1500*time.Millisecond },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &hungStore{Store: auth.NewMemoryStore()}
			a, _ := node(t, store)
			ctx := context.Background()
			var all []string
			for range 3 {
				one, two := start(t, a), other(t, a)
				all = append(all, one.Refresh, one.Access, two.Refresh)
			}
			expired := []string{start(t, a).Refresh, other(t, a).Refresh}
			time.Sleep(8 * 24 * time.Hour)
			for range 2 {
				expired = append(expired, start(t, a).Refresh, other(t, a).Refresh)
			}
			hangs(store)
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
					if store.revoke {
						require.ErrorIs(t, err, auth.ErrUnavailable, "%s hangs: %s", name, what)
					}
				}
			}
		})
	}
}

// hungStore does not answer some calls until their context ends.
type hungStore struct {
	auth.Store
	revoke, list, get bool
	slow              time.Duration // of the other calls
}

func (h *hungStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if h.revoke {
		return hang(ctx)
	}
	return h.Store.Revoke(ctx, r)
}

func (h *hungStore) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if h.list {
		return nil, hang(ctx)
	}
	time.Sleep(h.slow)
	return h.Store.List(ctx, subject)
}

func (h *hungStore) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if h.get {
		return auth.Session{}, hang(ctx)
	}
	return h.Store.Get(ctx, subject, id)
}

func TestLogout_AnExpiredTokenCostsAWriteOnlyIfItsSessionIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := auth.NewMemoryStore()
		store := &testStore{Store: memory}
		a, _ := node(t, store)
		longer, _ := node(t, store, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 90*24*time.Hour, 90*24*time.Hour })
		ctx := context.Background()
		gone, there, moved, kept := start(t, a), start(t, a), start(t, a), start(t, longer)
		require.NoError(t, a.Revoke(ctx, "u1", gone.SessionID))
		time.Sleep(6 * 24 * time.Hour)
		next, err := a.Refresh(ctx, moved.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(2 * 24 * time.Hour) // all refresh tokens but next have expired, and the entries are gone
		before := len(store.passed())
		for range 3 {
			store.get.Store(0)
			require.NoError(t, a.Logout(ctx, gone.Refresh, gone.Access))
			require.LessOrEqual(t, store.get.Load(), int64(1))
		}
		require.Len(t, store.passed(), before, "nothing was there to end")

		require.NoError(t, a.Logout(ctx, there.Refresh))
		_, err = memory.Get(ctx, "u1", there.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		require.NoError(t, a.Logout(ctx, moved.Refresh), "a spent one that has expired")
		_, err = a.Refresh(ctx, next.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.NoError(t, a.Logout(ctx, kept.Access), "the own SessionTTL does not decide")
		_, err = longer.Refresh(ctx, kept.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Len(t, store.passed(), before+3)

		// One that has not expired is ended although its record is gone: an
		// access token of its session may live.
		lost := start(t, a)
		require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{lost.SessionID}, Until: time.Now().Add(-time.Hour)}))
		require.NoError(t, a.Logout(ctx, lost.Refresh))
		require.Len(t, store.passed(), before+4)
	})
}

// impossible are names that no user and no session can have.
var impossible = []string{"", "\xff", "a\xc3", "\x00", "a\x00b", "line\nend", "\x7f", "\u0085", strings.Repeat("x", 256), strings.Repeat("é", 128)}

func TestRevoke_AnImpossibleIDIsNothingToEndAndAnImpossibleSubjectAnError(t *testing.T) {
	t.Parallel()
	store := &testStore{Store: auth.NewMemoryStore()}
	a, _ := node(t, store)
	ctx := context.Background()
	for _, name := range impossible {
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

	tokens := start(t, a)
	require.NoError(t, a.Revoke(ctx, "u1", append(impossible, tokens.SessionID, "\xfe")...))
	require.Equal(t, []string{tokens.SessionID}, store.passed()[0].Sessions)
	spared := start(t, a)
	require.NoError(t, a.RevokeAll(ctx, "u1", append(impossible, spared.SessionID)...))
	require.Equal(t, []string{spared.SessionID}, store.passed()[1].Except)
}

func TestRun_ARevocationThatTheStoreNeverTakesStopsNoOther(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"fails": errStore, "hangs": context.DeadlineExceeded, "cannot represent it": fmt.Errorf("wrapped: %w", auth.ErrNotStorable)} {
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
			a, es := node(t, store)
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
			ctx := context.Background()
			tokens := start(t, a)
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
			require.Greater(t, tries.Load(), int64(6*30), "it is tried again until the store takes it")
			require.Less(t, tries.Load(), int64(6*70), "and not without a pause")
			_, err = a.Verify(ctx, tokens.Access)
			require.Error(t, err)
		})
	}
}

func TestRun_ReadsTheFeedWhileItAnnounces(t *testing.T) {
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
				a, _ := node(t, store)
				elsewhere, _ := node(t, memory)
				stop := run(a.Verifier)
				defer stop()
				<-a.Ready()
				down.Store(true)
				ctx := context.Background()
				for i := range due {
					require.Error(t, a.Revoke(ctx, subject(i), fmt.Sprint("session", i)))
				}
				down.Store(false)
				require.NoError(t, elsewhere.Revoke(ctx, "u2", "one")) // which wakes Run
				time.Sleep(1100 * time.Millisecond)                    // and now they are due
				before := calls.Load()
				for range 20 {
					tokens := start(t, elsewhere)
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
					require.Greater(t, calls.Load(), before, "it was announcing meanwhile")
				}
				time.Sleep(30 * time.Second)
				rs := everything(t, memory)
				named := 0
				for _, r := range rs {
					named += len(r.Sessions)
				}
				require.GreaterOrEqual(t, named, due+20, name)
				if name == "one subject" {
					require.LessOrEqual(t, calls.Load(), int64(due/100+10), "sessions of one subject are announced together")
				}
			})
		}
	}
}

// accessKeys verify what node signs.
func accessKeys() auth.Keys {
	key, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 access", 32)
	if err != nil {
		panic(err)
	}
	return auth.Keys{auth.HS256(key)}
}

// What another process with a longer AccessTTL needs is needed no longer than
// that, and what it has announced is no leave for one that is longer still.
func TestRevoke_NoticesOfOthersCountWhileTheyLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(_ context.Context, r auth.Revocation) error {
			if r.AccessTTL > 5*time.Minute {
				return errStore
			}
			return nil
		}}
		a, _ := node(t, store, lifetimes(5*time.Minute))
		stop := run(a.Verifier)
		<-a.Ready()
		require.Greater(t, time.Until(start(t, a).AccessExpiresAt), 4*time.Minute)
		b, _ := node(t, store, lifetimes(2*time.Second))
		stopB := run(b.Verifier)
		defer stopB()
		<-b.Ready()
		longer, _ := node(t, store, lifetimes(time.Hour))
		stopLonger := run(longer.Verifier)
		<-longer.Ready()
		require.LessOrEqual(t, time.Until(start(t, longer).AccessExpiresAt), time.Minute)
		stopLonger()
		lasts := func() time.Duration {
			require.NoError(t, b.Revoke(context.Background(), "u1", "one"))
			passed := store.passed()
			return time.Until(passed[len(passed)-1].Until)
		}
		require.Equal(t, 6*time.Minute, lasts())
		stop()
		time.Sleep(time.Hour)
		require.Equal(t, time.Minute+2*time.Second, lasts(), "nobody needs more any longer")
	})
}

// An entry that two calls made is confirmed when the store has taken both.
func TestRevokeAll_OneThatTheStoreTookConfirmsNoEarlierOne(t *testing.T) {
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
			a, _ := node(t, store)
			b, _ := node(t, store)
			for _, x := range []*auth.Authenticator{a, b} {
				stop := run(x.Verifier)
				defer stop()
				<-x.Ready()
			}
			ctx := context.Background()
			one, two := start(t, a), start(t, a)
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
			require.Equal(t, n, calls.Load(), "and announced no more than is necessary")
		})
	}
}

func TestRun_NoticesThatAFailoverLostAreAnnouncedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		longer, _ := node(t, store, lifetimes(3*time.Hour))
		stop := run(longer.Verifier)
		<-longer.Ready()
		start(t, longer)
		stop() // its tokens live on
		a, _ := node(t, store)
		stop = run(a.Verifier)
		defer stop()
		<-a.Ready()
		store.failOver()
		time.Sleep(30 * time.Second)
		ttls := map[time.Duration]bool{}
		for _, r := range everything(t, store.MemoryStore) {
			ttls[r.AccessTTL] = true
		}
		require.Equal(t, map[time.Duration]bool{3 * time.Hour: true}, ttls, "which covers shorter ones")
	})
}

func TestRun_AFeedThatIsAlwaysResetIsNotHammered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var resets atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), changes: func(_ context.Context, after string) error {
			if after != "" && resets.Load() {
				return auth.ErrFeedReset
			}
			return nil
		}}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
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

func TestRun_AStoreThatTakesNothingIsNotHammered(t *testing.T) {
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
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		down.Store(true)
		for i := range 1000 {
			require.Error(t, a.Revoke(context.Background(), fmt.Sprint("user", i), "one"))
		}
		calls.Store(0)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, calls.Load(), int64(2*60+10))
		require.GreaterOrEqual(t, calls.Load(), int64(60), "but it is tried")
		down.Store(false)
		time.Sleep(70 * time.Second)
		require.Len(t, everything(t, store.Store), 1001, "the notice and all of them")
	})
}

// everything reads a feed from its beginning.
func everything(t *testing.T, feed auth.Feed) (all []auth.Revocation) {
	t.Helper()
	for position, more := "", true; more; {
		rs, next, others, err := feed.Changes(context.Background(), position, 0)
		require.NoError(t, err)
		all, position, more = append(all, rs...), next, others
	}
	return all
}

func TestRun_ALongFeedIsReadInPagesAndAnErrorGoesOnFromTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := auth.NewMemoryStore()
		a, _ := node(t, memory)
		tokens := start(t, a)
		ctx := context.Background()
		for i := range 4500 {
			require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u2", Sessions: []string{fmt.Sprint(i)}, Until: time.Now().Add(time.Hour)}))
		}
		require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{tokens.SessionID}, Until: time.Now().Add(time.Hour)}))
		calls := 0
		store := &testStore{Store: memory, changes: func(context.Context, string) error {
			calls++
			time.Sleep(time.Second)
			if calls == 3 {
				return errStore
			}
			return nil
		}}
		v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: accessKeys(), Feed: store})
		require.NoError(t, err)
		stop := run(v)
		defer stop()
		time.Sleep(5 * time.Second)
		require.False(t, v.Health().Ready, "there is more")
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrUnavailable)
		<-v.Ready()
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, 4501, v.Health().Revocations)
		store.mu.Lock()
		defer store.mu.Unlock()
		require.Empty(t, store.reads[0])
		require.Equal(t, store.reads[2], store.reads[3], "the page that failed is asked for again")
		require.NotContains(t, store.reads[1:], "")
	})
}

func TestRevokeAll_OfOneUserCostsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := node(t, store)
		b, _ := node(t, store)
		for _, x := range []*auth.Authenticator{a, b} {
			stop := run(x.Verifier)
			defer stop()
			<-x.Ready()
		}
		ctx := context.Background()
		for i := range 2000 {
			tokens := start(t, a)
			require.NoError(t, a.RevokeAll(ctx, "u1", tokens.SessionID))
			time.Sleep(40 * time.Millisecond)
			if i%100 == 0 {
				_, err := b.Verify(ctx, tokens.Access)
				require.NoError(t, err)
			}
		}
		// One entry for all of them, and those that were named since they lay
		// in the same second.
		require.LessOrEqual(t, b.Health().Revocations, 2001)
	})
}

func TestRevokeAll_ALaterOneDoesNotSpareWhatAnEarlierOneEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := node(t, store)
		b, _ := node(t, store)
		for _, x := range []*auth.Authenticator{a, b} {
			stop := run(x.Verifier)
			defer stop()
			<-x.Ready()
		}
		ctx := context.Background()
		one, two, three := start(t, a), start(t, a), start(t, a)
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

// pausedFeed holds up the feed of one process.
type pausedFeed struct {
	auth.Store
	paused atomic.Bool
}

func (p *pausedFeed) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	for p.paused.Load() {
		time.Sleep(5 * time.Millisecond)
	}
	return p.Store.Changes(ctx, after, min(wait, 20*time.Millisecond))
}

func TestRevokeAll_TwoProcessesInOneSecond(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, 3 * time.Second, -3 * time.Second, 9 * time.Second, -9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			memory := auth.NewMemoryStore()
			feed := &pausedFeed{Store: memory}
			a, _ := node(t, memory)
			b, _ := node(t, feed, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
			for _, x := range []*auth.Authenticator{a, b} {
				stop := run(x.Verifier)
				defer stop()
				<-x.Ready()
			}
			ctx := context.Background()
			time.Sleep(100 * time.Millisecond)
			feed.paused.Store(true)
			require.NoError(t, a.RevokeAll(ctx, "u1"))
			tokens := start(t, a)
			require.NoError(t, b.RevokeAll(ctx, "u1"))
			feed.paused.Store(false)
			time.Sleep(time.Second)
			_, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, ahead)
			for _, x := range []*auth.Authenticator{a, b} {
				_, err = x.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, ahead)
			}
			after := start(t, b)
			time.Sleep(time.Minute)
			_, err = a.Verify(ctx, after.Access)
			require.NoError(t, err, "a later login lives on")
		})
	}
}

func TestExpireAccess_TwoProcessesInOneSecond(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(a *auth.Authenticator, spared string) error{
		"both expire access": func(a *auth.Authenticator, _ string) error { return a.ExpireAccess(context.Background(), "u1") },
		"the other ends sessions": func(a *auth.Authenticator, spared string) error {
			return a.RevokeAll(context.Background(), "u1", spared)
		},
	} {
		for _, ahead := range []time.Duration{0, 3 * time.Second, -3 * time.Second, 9 * time.Second, -9 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				memory := auth.NewMemoryStore()
				feed := &pausedFeed{Store: memory}
				a, _ := node(t, memory)
				store := &testStore{Store: feed}
				b, _ := node(t, store, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
				for _, x := range []*auth.Authenticator{a, b} {
					stop := run(x.Verifier)
					defer stop()
					<-x.Ready()
				}
				ctx := context.Background()
				tokens := start(t, a)
				time.Sleep(12 * time.Second)
				feed.paused.Store(true)
				require.NoError(t, first(a, tokens.SessionID))
				old, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop}) // with the role that is about to be taken away
				require.NoError(t, err)
				require.NoError(t, b.ExpireAccess(ctx, "u1"))
				feed.paused.Store(false)
				time.Sleep(25 * time.Second)
				for i, x := range []*auth.Authenticator{a, b} {
					_, err = x.Verify(ctx, old.Access)
					require.ErrorIs(t, err, auth.ErrTokenExpired, "%s, %s, node %d", name, ahead, i)
				}
				n := len(store.passed())
				require.LessOrEqual(t, n, 2, "a repetition is never repeated")
				time.Sleep(time.Minute)
				require.Len(t, store.passed(), n)
				fresh, err := a.Refresh(ctx, old.Refresh, auth.RefreshOptions{Device: laptop})
				require.NoError(t, err)
				_, err = b.Verify(ctx, fresh.Access)
				require.NoError(t, err)
			})
		}
	}
}

func TestExpireAccess_AProcessWhoseClockIsAheadIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := node(t, store)
		b, _ := node(t, store, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(9 * time.Second) } })
		for _, x := range []*auth.Authenticator{a, b} {
			stop := run(x.Verifier)
			defer stop()
			<-x.Ready()
		}
		ctx := context.Background()
		tokens := start(t, a)
		require.NoError(t, b.ExpireAccess(ctx, "u1"))
		synctest.Wait()
		old, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.NoError(t, a.ExpireAccess(ctx, "u1"), "it waits until its own instant is later")
		for _, x := range []*auth.Authenticator{a, b} {
			synctest.Wait()
			_, err := x.Verify(ctx, old.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		}
	})
}

func TestRun_AnEntryThatCannotBeRead(t *testing.T) {
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
		a, es := node(t, store)
		tokens, others := start(t, a), other(t, a)
		whole.Store(true)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		ctx := context.Background()
		_, err := a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired, "access of its subject expires")
		_, err = a.Verify(ctx, others.Access)
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, es.take(auth.EventFault), 2)
		fresh, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		_, err = a.Verify(ctx, fresh.Access)
		require.NoError(t, err)

		// Read again after a failover, it moves nothing.
		time.Sleep(time.Minute)
		fresh, err = a.Refresh(ctx, fresh.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(time.Second)
		es.take(auth.EventFault)
		whole.Store(true)
		reset.Store(true)
		time.Sleep(12 * time.Second)
		require.False(t, whole.Load(), "it was read again")
		_, err = a.Verify(ctx, fresh.Access)
		require.NoError(t, err)
		require.Len(t, es.take(auth.EventFault), 1, "only the reset")
	})
}

func TestRevocations_LeaveTogetherWhenTheirTimeIsOver(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]auth.Store{"of its own": nil, "shared": auth.NewMemoryStore()} {
		clock := newClock()
		a, _ := node(t, store, func(c *auth.Config) { c.Now = clock.Now })
		ctx := context.Background()
		for i := range 5000 {
			require.NoError(t, a.Revoke(ctx, "u1", fmt.Sprint(i)))
		}
		require.Equal(t, 5000, a.Health().Revocations)
		clock.advance(25 * time.Hour)
		require.NoError(t, a.Revoke(ctx, "u2", "one"))
		require.Equal(t, 1, a.Health().Revocations, name)
	}
}

func TestRevocations_OneThatExpiresTakesNoOtherOfItsUserAlong(t *testing.T) {
	t.Parallel()
	clock := newClock()
	a, _ := node(t, nil, func(c *auth.Config) { c.Now = clock.Now; c.AccessTTL = time.Hour })
	ctx := context.Background()
	first, second, third := start(t, a), start(t, a), start(t, a)
	require.NoError(t, a.Revoke(ctx, "u1", first.SessionID))
	clock.advance(30 * time.Minute)
	require.NoError(t, a.Revoke(ctx, "u1", second.SessionID))
	require.NoError(t, a.ExpireAccess(ctx, "u1"))
	clock.advance(32 * time.Minute) // the first is over
	require.NoError(t, a.Revoke(ctx, "u2", "one"))
	require.Equal(t, 3, a.Health().Revocations)
	next, err := a.Refresh(ctx, third.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = a.Verify(ctx, next.Access)
	require.NoError(t, err)
	_, err = a.Refresh(ctx, second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestRun_OneConfirmedLateIsAnnouncedOnceMoreAndThenForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), revoke: func(context.Context, auth.Revocation) error {
			if down.Load() {
				return errStore
			}
			return nil
		}}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		down.Store(true)
		require.Error(t, a.Revoke(context.Background(), "u1", "one"))
		time.Sleep(20 * time.Minute)
		down.Store(false)
		time.Sleep(2 * time.Minute)
		n := len(store.passed())
		time.Sleep(3 * time.Hour)
		require.LessOrEqual(t, len(store.passed())-n, 1, "before it leaves")
		require.Zero(t, a.Health().Revocations)
	})
}

// What the store has confirmed is what it was asked, not what has come since.
func TestRun_AnInstantThatWasMovedWhileTheStoreWasAskedIsNotConfirmed(t *testing.T) {
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
			a, _ := node(t, store)
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
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

func TestRun_AnInstantThatWasMovedIsAnnouncedOnceMoreAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &testStore{Store: auth.NewMemoryStore()}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		for range 3 {
			n := len(store.passed())
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			time.Sleep(17 * time.Minute)
			require.Len(t, store.passed(), n+2, "once, and once more before it leaves")
		}
	})
}

// A revocation is not forgotten while the feed cannot be read, since this may be
// the only process that knows it after a failover.
func TestRun_AnOwnRevocationStaysUntilItWasAnnouncedOnceMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), changes: func(context.Context, string) error {
			if fails.Load() {
				return errStore
			}
			return nil
		}}
		a, _ := node(t, store)
		stop := run(a.Verifier)
		defer stop()
		<-a.Ready()
		ctx := context.Background()
		require.NoError(t, a.Revoke(ctx, "u1", "one"))
		time.Sleep(15 * time.Minute)
		fails.Store(true)
		time.Sleep(5 * time.Minute)
		require.NoError(t, a.Revoke(ctx, "u1", "two")) // others leave now
		fails.Store(false)
		time.Sleep(10 * time.Second)
		named := map[string]int{}
		for _, r := range store.passed() {
			named[strings.Join(r.Sessions, " ")]++
		}
		require.Equal(t, map[string]int{"one": 2, "two": 1}, named)

		// But not for ever.
		fails.Store(true)
		time.Sleep(25 * time.Hour) // while the feed is not read, 24 hours are assumed
		require.NoError(t, a.Revoke(ctx, "u2", "three"))
		require.Equal(t, 1, a.Health().Revocations)
	})
}

func TestRun_AnOnEventThatBlocksDoesNotStopIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		store := &testStore{Store: auth.NewMemoryStore(), changes: func(context.Context, string) error {
			if fails.Load() {
				return errStore
			}
			return nil
		}, revoke: func(_ context.Context, r auth.Revocation) error {
			if fails.Load() && r.AccessTTL == 0 {
				return errStore
			}
			return nil
		}}
		release := make(chan struct{})
		events := 0
		a, _ := node(t, store, func(c *auth.Config) {
			c.OnEvent = func(_ context.Context, e auth.Event) {
				if e.Type == auth.EventFault || e.Type == auth.EventStale {
					events++
					<-release
				}
			}
		})
		b, _ := node(t, store.Store)
		stop := run(a.Verifier)
		<-a.Ready()
		ctx := context.Background()
		tokens := start(t, b)
		fails.Store(true)
		time.Sleep(10 * time.Minute) // more events than may wait
		fails.Store(false)
		time.Sleep(10 * time.Second)
		require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
		synctest.Wait()
		_, err := a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, 1, events)
		begun := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(begun), 2*time.Second, "and it ends")
		close(release)
	})
}

func TestRun_AnnouncesAgainAfterTheClockWasSetBack(t *testing.T) {
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
			a, _ := node(t, store, func(c *auth.Config) {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
			})
			defer run(a.Verifier)()
			<-a.Ready()
			ctx := context.Background()
			tokens := start(t, a)
			require.ErrorIs(t, a.Logout(ctx, tokens.Refresh), auth.ErrUnavailable)
			offset.Store(0)
			down.Store(false)
			require.Greater(t, time.Until(other(t, a).AccessExpiresAt), 10*time.Minute, "the store takes notices again")
			time.Sleep(2 * time.Minute)
			_, err := store.Store.Get(ctx, "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "ahead by %s", ahead)
		})
	}
}

// circlingFeed never gets any further: it takes no position, or returns the one
// that it was given.
type circlingFeed struct {
	auth.Store
	resets bool
	reads  atomic.Int64
}

func (f *circlingFeed) Changes(ctx context.Context, after string, _ time.Duration) ([]auth.Revocation, string, bool, error) {
	switch {
	case f.reads.Add(1) > 1000: // it is asked without a pause
		return nil, "", false, hang(ctx)
	case f.resets && after != "":
		return nil, "", false, auth.ErrFeedReset
	}
	return nil, "here", !f.resets, nil
}

func TestRun_DoesNotHammerAFeedThatGetsNoFurther(t *testing.T) {
	t.Parallel()
	for _, resets := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			feed := &circlingFeed{Store: auth.NewMemoryStore(), resets: resets}
			a, es := node(t, feed)
			defer run(a.Verifier)()
			time.Sleep(time.Minute)
			require.Less(t, feed.reads.Load(), int64(100), "resets: %v", resets)
			require.NotEmpty(t, es.take(auth.EventFault))
			require.Equal(t, resets, a.Health().Ready)
		})
	}
}

func TestRun_WhatCannotBeStoredTakesNothingElseAlong(t *testing.T) {
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
		a, _ := node(t, store)
		defer run(a.Verifier)()
		<-a.Ready()
		ctx := context.Background()
		for i, length := range []int{65, 255} {
			tokens := start(t, a)
			down.Store(i == 1) // then the sessions are announced together by Run
			require.Error(t, a.Revoke(ctx, "u1", strings.Repeat("x", length), tokens.SessionID))
			down.Store(false)
			time.Sleep(5 * time.Minute)
			_, err := store.Store.Get(ctx, "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
		calls := len(store.passed())
		time.Sleep(5 * time.Minute)
		require.Len(t, store.passed(), calls, "what no store can represent is given up")
	})
}

func TestRun_ALostNoticeThatTheStoreDoesNotTakeStopsNoRevocation(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"cannot represent it": nil, "fails": errStore} {
		synctest.Test(t, func(t *testing.T) {
			feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
			var newer, down atomic.Bool
			newer.Store(true)
			var notices atomic.Int64
			store := &testStore{Store: feed, page: func(rs []auth.Revocation) []auth.Revocation {
				if newer.Load() {
					for i := range 3 { // of a version that allows longer ones
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
			a, _ := node(t, store)
			defer run(a.Verifier)()
			<-a.Ready()
			newer.Store(false)
			down.Store(true)
			ctx := context.Background()
			tokens := start(t, a)
			require.ErrorIs(t, a.Logout(ctx, tokens.Refresh), auth.ErrUnavailable)
			feed.failOver()
			time.Sleep(20 * time.Second)
			down.Store(false)
			time.Sleep(2 * time.Minute)
			require.True(t, slices.ContainsFunc(everything(t, feed), func(r auth.Revocation) bool {
				return slices.Contains(r.Sessions, tokens.SessionID)
			}), name)
			if refusal == nil {
				require.Equal(t, int64(3), notices.Load(), "it is given up")
			}
		})
	}
}

func TestLogout_OfSessionsThatAProcessCreatedBeforeItHeardOfRevokeAll(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(a *auth.Authenticator, tokens auth.Tokens) error{
		"logout": func(a *auth.Authenticator, tokens auth.Tokens) error {
			return a.Logout(context.Background(), tokens.Refresh)
		},
		"access logout": func(a *auth.Authenticator, tokens auth.Tokens) error {
			return a.Logout(context.Background(), tokens.Access)
		},
		"refresh": func(a *auth.Authenticator, tokens auth.Tokens) error {
			_, err := a.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			return nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			memory := auth.NewMemoryStore()
			var deaf atomic.Bool
			a, _ := node(t, memory)
			b, _ := node(t, &testStore{Store: memory, changes: func(context.Context, string) error {
				if deaf.Load() {
					return errStore
				}
				return nil
			}})
			for _, x := range []*auth.Authenticator{a, b} {
				stop := run(x.Verifier)
				defer stop()
				<-x.Ready()
			}
			deaf.Store(true)
			time.Sleep(10 * time.Second)
			require.NoError(t, a.RevokeAll(context.Background(), "u1"))
			for range 3 {
				tokens := start(t, b)
				require.NoError(t, end(a, tokens))
				_, err := memory.Get(context.Background(), "u1", tokens.SessionID)
				require.ErrorIs(t, err, auth.ErrSessionNotFound, name)
			}
		})
	}
}

func TestExpireAccess_MinutesAfterThatOfAnotherProcessIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &testStore{Store: auth.NewMemoryStore()}
		var nodes []*auth.Authenticator
		for range 4 {
			a, _ := node(t, store)
			stop := run(a.Verifier)
			defer stop()
			<-a.Ready()
			nodes = append(nodes, a)
		}
		for i, a := range nodes {
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			time.Sleep(3 * time.Minute)
			require.Len(t, store.passed(), i+1, "clients refresh once, not once for each process")
		}
	})
}

func TestRun_ALostNoticeThatTheStoreTakesWithAnErrorIsNotAnnouncedWithoutAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
		long, _ := node(t, feed, lifetimes(12*time.Hour))
		start(t, long)
		var answers atomic.Bool
		var calls atomic.Int64
		store := &testStore{Store: feed, revoke: func(ctx context.Context, r auth.Revocation) error {
			if answers.Load() || calls.Add(1) > 1000 {
				return nil
			}
			_ = feed.Revoke(ctx, r) // which wakes whoever follows the feed
			return errStore
		}}
		answers.Store(true)
		a, _ := node(t, store)
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
