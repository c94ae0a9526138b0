package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// getFaults are the ways in which a store can fail to say whether a session is
// there.
var getFaults = map[string]func(s *faultyStore, err error){
	"no answer":      func(s *faultyStore, err error) { s.failBefore("Get", err) },
	"a cut answer":   func(s *faultyStore, err error) { s.failAfter("Get", err) },
	"a timeout":      func(s *faultyStore, err error) { s.failBefore("Get", wrapped(err, context.DeadlineExceeded)) },
	"another answer": func(s *faultyStore, err error) { s.failBefore("Get", wrapped(err, auth.ErrSessionExists)) },
}

// wrapped returns with, unless err says that there is no fault.
func wrapped(err, with error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", err, with)
}

// cutOff returns an Authenticator whose feed has not answered for longer than
// MaxStale, and a user's tokens. Its store answers as it is told to.
func cutOff(t *testing.T, change ...func(*auth.Config)) (*auth.Authenticator, *feedStore, *faultyStore, auth.Tokens) {
	t.Helper()
	feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
	store := &faultyStore{Store: feed}
	a, _ := node(t, store, change...)
	t.Cleanup(run(a.Verifier))
	<-a.Ready()
	tokens := start(t, a)
	feed.set(errStore)
	time.Sleep(2 * time.Minute)
	require.Greater(t, a.Health().FeedAge, time.Minute)
	return a, feed, store, tokens
}

func TestStaleAskStore_AStoreThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, set := range getFaults {
		synctest.Test(t, func(t *testing.T) {
			a, _, store, tokens := cutOff(t, func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore })
			ctx := context.Background()
			_, err := a.Verify(ctx, tokens.Access)
			require.NoError(t, err, "the store has the session")
			set(store, errStore)
			for range 3 {
				_, err = a.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrUnavailable, name)
				require.NotErrorIs(t, err, auth.ErrSessionRevoked, name)
			}
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+tokens.Access)
			a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error(name, "the handler was called")
			})).ServeHTTP(w, r)
			require.Equal(t, http.StatusServiceUnavailable, w.Code, name)
			set(store, nil)
			_, err = a.Verify(ctx, tokens.Access)
			require.NoError(t, err, name)
		})
	}
}

func TestStaleAskStore_ASessionWhoseRecordHasExpiredIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, feed, _, tokens := cutOff(t, func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore })
		ctx := context.Background()
		s, err := feed.Get(ctx, "u1", tokens.SessionID)
		require.NoError(t, err)
		until := time.Now().Add(time.Hour)
		require.NoError(t, feed.MemoryStore.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{s.ID}, Until: until}))
		s.ExpiresAt = time.Now().Add(time.Second)
		require.NoError(t, feed.Create(ctx, s))
		_, err = a.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	})
}

func TestStale_AVerifierWithoutAStoreRefusesUnlessItContinues(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]error{
		auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrUnavailable, auth.StaleRefuse: auth.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, _ := node(t, feed, apart)
			v, err := auth.NewVerifier(auth.VerifierConfig{
				Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Feed: feed, StalePolicy: policy,
			})
			require.NoError(t, err)
			defer run(v)()
			<-v.Ready()
			tokens := start(t, a)
			ctx := context.Background()
			_, err = v.Verify(ctx, tokens.Access)
			require.NoError(t, err)
			feed.set(errStore)
			time.Sleep(2 * time.Minute)
			_, err = v.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, want, policy)
			feed.set(nil)
			time.Sleep(10 * time.Second)
			_, err = v.Verify(ctx, tokens.Access)
			require.NoError(t, err, policy)
		})
	}
}

// A failover may have lost the end of a session that this process knows to be
// revoked. Only the store can say so, and a store that does not answer has not
// said that the session is gone.
func TestRevokedSession_AStoreThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, set := range getFaults {
		for what, present := range map[string]func(b *bench, token string) error{
			"refresh": func(b *bench, token string) error {
				_, err := b.Refresh(context.Background(), token, auth.RefreshOptions{Device: laptop})
				return err
			},
			"logout": func(b *bench, token string) error { return b.Logout(context.Background(), token) },
		} {
			memory := auth.NewMemoryStore()
			b := newBench(t, func(c *auth.Config) { c.Store = memory })
			ctx := context.Background()
			tokens := b.login(t)
			s, err := memory.Get(ctx, "u1", tokens.SessionID)
			require.NoError(t, err)
			require.NoError(t, b.Revoke(ctx, "u1", s.ID))
			require.NoError(t, memory.Create(ctx, s)) // a failover lost its end
			set(b.store, errStore)
			err = present(b, tokens.Refresh)
			require.ErrorIs(t, err, auth.ErrUnavailable, "%s, %s", name, what)
			require.NotErrorIs(t, err, auth.ErrSessionRevoked, "%s, %s", name, what)
			require.NotEmpty(t, b.events.take(auth.EventFault), "%s, %s", name, what)

			set(b.store, nil)
			b.clock.advance(time.Minute)
			if err = present(b, tokens.Refresh); err != nil {
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "%s, %s", name, what)
			}
			_, err = memory.Get(ctx, "u1", s.ID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s, %s", name, what)
		}
	}
}

func TestLogin_EvictionThatTheStoreRefusesFailsTheLogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, open := range map[string]func(a *auth.Authenticator) (auth.Tokens, error){
		"login": func(a *auth.Authenticator) (auth.Tokens, error) {
			return a.Login(ctx, "ada", pass, auth.SessionOptions{})
		},
		"start": func(a *auth.Authenticator) (auth.Tokens, error) {
			return a.StartSession(ctx, "u1", auth.SessionOptions{})
		},
	} {
		for _, sessions := range []int{1, 2, 5} {
			synctest.Test(t, func(t *testing.T) {
				store := &faultyStore{Store: auth.NewMemoryStore()}
				a, es := node(t, store, func(c *auth.Config) { c.MaxSessions = sessions })
				defer run(a.Verifier)()
				<-a.Ready()
				store.failBefore("Revoke", errStore)
				for range sessions {
					start(t, a) // within the limit nothing has to be ended
					time.Sleep(time.Second)
				}
				require.Zero(t, store.count("Revoke"))
				require.Empty(t, es.take(auth.EventFault))
				tokens, err := open(a)
				require.ErrorIs(t, err, auth.ErrUnavailable, name)
				require.Empty(t, tokens.Access)
				require.Empty(t, tokens.Refresh)
				require.Empty(t, es.take(auth.EventLogin), name)

				store.failBefore("Revoke", nil)
				time.Sleep(time.Minute)
				list, err := store.List(ctx, "u1")
				require.NoError(t, err)
				require.LessOrEqual(t, len(list), sessions, "%s: the session that nobody holds is ended", name)
				time.Sleep(time.Second)
				_, err = open(a)
				require.NoError(t, err, name)
			})
		}
	}
	t.Run("without a limit", func(t *testing.T) {
		b := newBench(t, func(c *auth.Config) { c.MaxSessions = -1 })
		b.store.failBefore("Revoke", errStore)
		for range 3 {
			b.login(t)
		}
	})
}

// holdGate lets one job into h and the given number into its queue, of at least
// one place, and keeps them there until the returned function is called. It
// depends on no schedule: a job that has queued asks its context for the end of
// the wait before it looks whether it was let in, so a context that does not
// answer keeps its place.
func holdGate(h *password.Hasher, waiting int) (release func()) {
	var jobs sync.WaitGroup
	free := make(chan struct{})
	hold := func() {
		ctx := &gateContext{Context: context.Background(), waits: make(chan struct{}), free: free}
		for {
			ended := make(chan struct{})
			jobs.Go(func() {
				defer close(ended)
				_, _ = h.Hash(ctx, "held")
			})
			select {
			case <-ctx.waits:
				return
			case <-ended: // there was nobody to wait for
			}
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // somebody for the first to wait for
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = h.Hash(context.Background(), "work")
			}
		}
	}()
	hold()
	close(stop)
	<-stopped // and so the first has been let in
	for range waiting {
		hold()
	}
	return func() { close(free); jobs.Wait() }
}

// gateContext tells when a job waits for its end, and holds the job until it is
// free. It then ends with its parent.
type gateContext struct {
	context.Context
	once        sync.Once
	waits, free chan struct{}
}

func (c *gateContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	<-c.free
	return c.Context.Done()
}

func TestLogin_BusyHasherIsToldApart(t *testing.T) {
	t.Parallel()
	h := &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 1}
	b := newBench(t, func(c *auth.Config) { c.Hasher = h })
	b.users.change("u2", func(u *auth.User) { u.Disabled = true })
	defer holdGate(h, 1)()
	for _, try := range [][2]string{{"ada", pass}, {"ada", "wrong"}, {"bob", pass}, {"nobody", "wrong"}} {
		_, err := b.Login(context.Background(), try[0], try[1], auth.SessionOptions{})
		require.ErrorIs(t, err, password.ErrBusy, try)
		require.NotErrorIs(t, err, auth.ErrInvalidCredentials, try)
	}
	require.Empty(t, b.events.take(auth.EventLoginRefused))
	require.Zero(t, b.store.count("Create"))
}

func TestLogin_HasherThatIsEndedByItsContextProvesNothing(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	late, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	for name, ctx := range map[string]context.Context{"canceled": ended, "too late": late} {
		for _, login := range []string{"ada", "nobody"} {
			b := newBench(t)
			tokens, err := b.Login(ctx, login, pass, auth.SessionOptions{})
			require.ErrorIs(t, err, auth.ErrUnavailable, name)
			require.NotErrorIs(t, err, auth.ErrInvalidCredentials, name)
			require.Empty(t, tokens.Access, name)
			require.Zero(t, b.store.count("Create"), "%s, %s: no session is created", name, login)
			require.Empty(t, b.events.take(auth.EventLoginRefused), name)
		}
	}

	t.Run("while it waits", func(t *testing.T) {
		h := &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 2}
		b := newBench(t, func(c *auth.Config) { c.Hasher = h })
		defer holdGate(h, 1)()
		parent, hangUp := context.WithCancel(context.Background())
		free := make(chan struct{})
		close(free)
		ctx := &gateContext{Context: parent, waits: make(chan struct{}), free: free}
		result := make(chan error)
		go func() {
			_, err := b.Login(ctx, "ada", pass, auth.SessionOptions{})
			result <- err
		}()
		<-ctx.waits
		hangUp()
		require.ErrorIs(t, <-result, auth.ErrUnavailable)
		require.Zero(t, b.store.count("Create"))
	})

	t.Run("at the second look", func(t *testing.T) {
		other, err := cheap.Hash(context.Background(), "another password than before")
		require.NoError(t, err)
		b := newBench(t)
		ctx, hangUp := context.WithCancel(context.Background())
		b.users.onFind = func() { // the session has been created
			b.users.change("u1", func(u *auth.User) { u.PasswordHash = other })
			hangUp()
		}
		tokens, err := b.Login(ctx, "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.Empty(t, tokens.Access)
		require.Equal(t, 1, b.store.count("Create"))
		list, err := b.store.Store.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

func TestExpireAccess_AgainOnAClockThatDoesNotMoveIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, set := range []time.Duration{0, -time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			clock := newClock()
			a, _ := node(t, nil, func(c *auth.Config) { c.Now = clock.Now })
			ctx := context.Background()
			tokens := start(t, a)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			between, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
			_, err = a.Verify(ctx, between.Access)
			require.NoError(t, err)
			clock.advance(set)
			for range 2 {
				begun := time.Now()
				// It cannot end what was issued in between, so it does not say that it did.
				require.ErrorIs(t, a.ExpireAccess(ctx, "u1"), auth.ErrUnavailable, set)
				require.LessOrEqual(t, time.Since(begun), 2*time.Second)
			}
			require.NoError(t, a.ExpireAccess(ctx, "u2"), "of another user")

			clock.advance(time.Second - set)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			_, err = a.Verify(ctx, between.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired, set)
		})
	}
}

// An instant that a wrong clock has set is in nobody's way.
func TestExpireAccess_AfterOneByAClockThatWasAheadEndsWhatWasIssuedSince(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{time.Minute, time.Hour, 4 * 365 * 24 * time.Hour} {
		clock := newClock()
		a, _ := node(t, nil, func(c *auth.Config) { c.Now = clock.Now })
		ctx := context.Background()
		tokens := start(t, a)
		clock.advance(ahead)
		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		clock.advance(-ahead)
		last, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		for range 3 {
			_, err = a.Verify(ctx, last.Access)
			require.NoError(t, err, ahead)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			_, err = a.Verify(ctx, last.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired, ahead)
			last, err = a.Refresh(ctx, last.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
		}
	}
}

func TestSessionContext_EndsAfterAnOutageInWhichARevocationMayHaveComeAndGone(t *testing.T) {
	t.Parallel()
	for d, ends := range map[time.Duration]bool{10 * time.Second: false, 30 * time.Second: false, 2 * time.Minute: true, time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, _ := node(t, feed)
			ctx := context.Background()
			defer run(a.Verifier)()
			<-a.Ready()
			for range 2 { // a second outage is no other than the first
				one, cancel := a.SessionContext(ctx, claims(t, a, start(t, a).Access))
				defer cancel()
				other, cancel := a.SessionContext(ctx, &auth.Claims{Subject: "u2", SessionID: "of another user"})
				defer cancel()
				time.Sleep(time.Minute)
				feed.set(errStore)
				time.Sleep(d)
				require.NoError(t, one.Err(), "it goes on until the feed is back")
				feed.set(nil)
				time.Sleep(15 * time.Second)
				for _, stream := range []context.Context{one, other} {
					if ends {
						require.ErrorIs(t, context.Cause(stream), auth.ErrUnavailable, d)
					} else {
						require.NoError(t, stream.Err(), d)
					}
				}
				later, cancel := a.SessionContext(ctx, claims(t, a, start(t, a).Access))
				defer cancel()
				time.Sleep(5 * time.Minute)
				require.NoError(t, later.Err(), "nothing was missed since")
			}
		})
	}
}

func TestSessionContext_BeforeTheFirstReadingOfTheFeedNothingWasMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
		feed.set(errStore)
		a, _ := node(t, feed)
		stream, cancel := a.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "one"})
		defer cancel()
		revoked, cancel := a.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "two"})
		defer cancel()
		defer run(a.Verifier)()
		time.Sleep(10 * time.Minute)
		require.NoError(t, feed.MemoryStore.Revoke(context.Background(), auth.Revocation{
			Subject: "u1", Sessions: []string{"two"}, Until: time.Now().Add(time.Hour),
		}))
		feed.set(nil)
		<-a.Ready()
		<-revoked.Done()
		require.ErrorIs(t, context.Cause(revoked), auth.ErrSessionRevoked)
		time.Sleep(time.Minute)
		require.NoError(t, stream.Err())
	})
}

func TestRun_AgainAfterItEndedGoesOn(t *testing.T) {
	t.Parallel()
	for pause, missed := range map[time.Duration]bool{0: false, time.Second: false, 10 * time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			store := auth.NewMemoryStore()
			a, _ := node(t, store)
			b, _ := node(t, store)
			ctx := context.Background()
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			require.ErrorIs(t, a.Run(short), context.DeadlineExceeded)
			require.ErrorIs(t, a.Run(short), context.DeadlineExceeded, "ended before it began")
			one, two := start(t, a), start(t, a)
			stream, cancel := a.SessionContext(ctx, claims(t, a, two.Access))
			defer cancel()

			require.NoError(t, b.Revoke(ctx, "u1", one.SessionID))
			time.Sleep(pause)
			_, err := a.Verify(ctx, one.Access)
			require.NoError(t, err, "nobody follows the feed")
			defer run(a.Verifier)()
			time.Sleep(10 * time.Second)
			require.Less(t, a.Health().FeedAge, time.Minute)
			_, err = a.Verify(ctx, one.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, "what came in between")
			require.Equal(t, missed, stream.Err() != nil, "a pause is like an outage")
			_, err = a.Verify(ctx, two.Access)
			require.NoError(t, err)
			require.NoError(t, b.Revoke(ctx, "u1", two.SessionID))
			synctest.Wait()
			_, err = a.Verify(ctx, two.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, "what comes now")
		})
	}
}

// positionlessFeed answers with an empty position when it is told to, which is
// against the contract.
type positionlessFeed struct {
	*feedStore
	mu      sync.Mutex
	answers bool
	calls   int
}

func (f *positionlessFeed) set(answers bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers, f.calls = answers, 0
}

func (f *positionlessFeed) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *positionlessFeed) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	f.mu.Lock()
	f.calls++
	answers, calls := f.answers, f.calls
	f.mu.Unlock()
	switch {
	case answers && calls > 1000: // it is asked without a pause
		<-ctx.Done()
		return nil, "", false, ctx.Err()
	case answers:
		return []auth.Revocation{{Subject: "u1", Sessions: []string{"one"}, Until: time.Now().Add(time.Hour)}}, "", false, nil
	}
	return f.feedStore.Changes(ctx, after, wait)
}

func TestRun_AnEmptyPositionIsAFaultOfTheFeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := &positionlessFeed{feedStore: &feedStore{MemoryStore: auth.NewMemoryStore()}}
		feed.set(true)
		a, es := node(t, feed)
		b, _ := node(t, feed.MemoryStore)
		ctx := context.Background()
		defer run(a.Verifier)()
		time.Sleep(time.Minute)
		require.False(t, a.Health().Ready, "an answer that cannot be gone on from is none")
		_, err := a.Verify(ctx, start(t, a).Access)
		require.ErrorIs(t, err, auth.ErrUnavailable)
		faults := es.take(auth.EventFault)
		require.NotEmpty(t, faults)
		require.ErrorContains(t, faults[0].Err, "empty position")
		require.Less(t, feed.asked(), 100, "it does not hammer a feed that fails")

		feed.set(false)
		<-a.Ready()
		tokens := start(t, a)
		time.Sleep(time.Minute)
		feed.set(true)
		time.Sleep(2 * time.Minute)
		require.Greater(t, a.Health().FeedAge, time.Minute)
		require.Len(t, es.take(auth.EventStale), 1)
		require.Less(t, feed.asked(), 100)
		require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
		feed.set(false)
		time.Sleep(10 * time.Second)
		require.Less(t, a.Health().FeedAge, time.Minute)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	})
}

func TestStale_EveryOutageIsSaidOnce(t *testing.T) {
	t.Parallel()
	for _, policy := range []auth.StalePolicy{auth.StaleContinue, auth.StaleAskStore, auth.StaleRefuse} {
		synctest.Test(t, func(t *testing.T) {
			feed := &feedStore{MemoryStore: auth.NewMemoryStore()}
			a, es := node(t, feed, func(c *auth.Config) { c.StalePolicy = policy })
			defer run(a.Verifier)()
			<-a.Ready()
			tokens := start(t, a)
			for i := range 3 {
				feed.set(errStore)
				for range 10 {
					time.Sleep(12 * time.Second)
					_, _ = a.Verify(context.Background(), tokens.Access)
				}
				feed.set(nil)
				time.Sleep(10 * time.Second)
				require.Len(t, es.take(auth.EventStale), 1, "outage %d, policy %d", i, policy)
				time.Sleep(2 * time.Minute)
				require.Empty(t, es.take(auth.EventStale))
			}
			// A short one is none.
			feed.set(errStore)
			time.Sleep(20 * time.Second)
			feed.set(nil)
			time.Sleep(10 * time.Second)
			require.Empty(t, es.take(auth.EventStale))
		})
	}
}

// brokenFeed answers as broken does, if that is not nil.
type brokenFeed struct {
	*feedStore
	mu     sync.Mutex
	broken func(ctx context.Context) error
	calls  int
}

func (f *brokenFeed) set(broken func(ctx context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken, f.calls = broken, 0
}

func (f *brokenFeed) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *brokenFeed) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	f.mu.Lock()
	f.calls++
	broken := f.broken
	f.mu.Unlock()
	if broken != nil {
		return nil, "", false, broken(ctx)
	}
	return f.feedStore.Changes(ctx, after, wait)
}

func TestRun_AFeedThatHangsOrPanicsIsAnOutage(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(context.Context) error{
		"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"panics": func(context.Context) error { panic("of a test") },
		"fails":  func(context.Context) error { return errStore },
	} {
		synctest.Test(t, func(t *testing.T) {
			feed := &brokenFeed{feedStore: &feedStore{MemoryStore: auth.NewMemoryStore()}}
			feed.set(broken)
			a, es := node(t, feed)
			b, _ := node(t, feed.MemoryStore)
			ctx := context.Background()
			defer run(a.Verifier)()
			time.Sleep(10 * time.Minute)
			require.Zero(t, a.Health(), name)
			es.mu.Lock()
			for _, e := range es.all {
				require.Equal(t, auth.EventFault, e.Type, "%s: what was never read is not stale", name)
			}
			require.GreaterOrEqual(t, len(es.all), 10*60/15, "%s: every try is bounded, and told", name)
			es.mu.Unlock()

			feed.set(nil)
			<-a.Ready()
			tokens := start(t, a)
			feed.set(broken)
			time.Sleep(10 * time.Minute)
			require.Less(t, feed.asked(), 200, name)
			require.Len(t, es.take(auth.EventStale), 1, name)
			require.NoError(t, b.Revoke(ctx, "u1", tokens.SessionID))
			feed.set(nil)
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
			a, es := node(t, auth.NewMemoryStore(), func(c *auth.Config) {
				c.StalePolicy, c.MaxStale = auth.StaleRefuse, maxStale
			})
			require.Zero(t, a.Health())
			begun := time.Now()
			defer run(a.Verifier)()
			<-a.Ready()
			require.Zero(t, time.Since(begun), "the first reading waits for nothing")
			tokens := start(t, a)
			for range 600 {
				time.Sleep(500 * time.Millisecond)
				_, err := a.Verify(context.Background(), tokens.Access)
				require.NoError(t, err, maxStale)
			}
			require.Empty(t, es.take(auth.EventStale))
		})
	}
}
