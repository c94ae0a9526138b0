package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestStale_EachPolicy(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]error{
		auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrSessionRevoked, auth.StaleRefuse: auth.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, es := newNode(t, store, func(c *auth.Config) { c.StalePolicy = policy })
			runNodes(t, a)
			ctx := context.Background()
			live, ended := startSession(t, a), startSession(t, a)
			store.failFeed(errStore)
			time.Sleep(6 * time.Second) // a read in progress ends
			require.NoError(t, store.Store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{ended.SessionID}, Until: time.Now().Add(time.Hour)}))
			time.Sleep(30 * time.Second)
			_, err := a.Verify(ctx, ended.Access)
			require.NoError(t, err, "not stale yet")
			require.Empty(t, es.take(auth.EventStale))
			time.Sleep(40 * time.Second)
			require.Greater(t, a.Health().FeedAge, time.Minute)
			for range 3 {
				_, err = a.Verify(ctx, ended.Access)
				require.ErrorIs(t, err, want)
			}
			_, err = a.Verify(ctx, live.Access)
			if policy == auth.StaleRefuse {
				require.ErrorIs(t, err, auth.ErrUnavailable)
			} else {
				require.NoError(t, err)
			}
			stale := es.take(auth.EventStale)
			require.Len(t, stale, 1, "the event must be emitted once")
			require.NotContains(t, stale[0].Err.Error(), "Run has returned")
			store.failFeed(nil)
			time.Sleep(10 * time.Second)
			_, err = a.Verify(ctx, ended.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			_, err = a.Verify(ctx, live.Access)
			require.NoError(t, err)
		})
	}
}

// newStaleNode returns an Authenticator whose feed has failed for longer than
// MaxStale, its store, and the tokens of a session.
func newStaleNode(t *testing.T, change ...func(*auth.Config)) (*auth.Authenticator, *testStore, auth.Tokens) {
	t.Helper()
	store := newTestStore()
	a, _ := newNode(t, store, change...)
	runNodes(t, a)
	tokens := startSession(t, a)
	store.failFeed(errStore)
	time.Sleep(2 * time.Minute)
	require.Greater(t, a.Health().FeedAge, time.Minute)
	return a, store, tokens
}

func TestStaleAskStore_StoreErrorIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, set := range getFaults {
		synctest.Test(t, func(t *testing.T) {
			a, store, tokens := newStaleNode(t, func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore })
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

func TestStaleAskStore_RefusesAnExpiredSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, store, tokens := newStaleNode(t, func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore })
		ctx := context.Background()
		s, err := store.Get(ctx, "u1", tokens.SessionID)
		require.NoError(t, err)
		until := time.Now().Add(time.Hour)
		require.NoError(t, store.Store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{s.ID}, Until: until}))
		s.ExpiresAt = time.Now().Add(time.Second)
		require.NoError(t, store.Create(ctx, s))
		_, err = a.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	})
}

func TestStale_AVerifierWithoutAStoreCannotAsk(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]error{
		auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrUnavailable, auth.StaleRefuse: auth.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			a, _ := newNode(t, feed, withSeparateKeys)
			v, err := auth.NewVerifier(auth.VerifierConfig{
				Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Feed: feed, StalePolicy: policy,
			})
			require.NoError(t, err)
			defer run(v)()
			<-v.Ready()
			tokens := startSession(t, a)
			ctx := context.Background()
			_, err = v.Verify(ctx, tokens.Access)
			require.NoError(t, err)
			feed.failFeed(errStore)
			time.Sleep(2 * time.Minute)
			_, err = v.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, want, policy)
			feed.failFeed(nil)
			time.Sleep(10 * time.Second)
			_, err = v.Verify(ctx, tokens.Access)
			require.NoError(t, err, policy)
		})
	}
}

func TestStale_ReportsEveryOutageOnce(t *testing.T) {
	t.Parallel()
	for _, policy := range []auth.StalePolicy{auth.StaleContinue, auth.StaleAskStore, auth.StaleRefuse} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			a, es := newNode(t, feed, func(c *auth.Config) { c.StalePolicy = policy })
			defer run(a.Verifier)()
			<-a.Ready()
			tokens := startSession(t, a)
			for i := range 3 {
				feed.failFeed(errStore)
				for range 10 {
					time.Sleep(12 * time.Second)
					_, _ = a.Verify(context.Background(), tokens.Access)
				}
				feed.failFeed(nil)
				time.Sleep(10 * time.Second)
				require.Len(t, es.take(auth.EventStale), 1, "outage %d, policy %d", i, policy)
				time.Sleep(2 * time.Minute)
				require.Empty(t, es.take(auth.EventStale))
			}
			// A short outage causes no event.
			feed.failFeed(errStore)
			time.Sleep(20 * time.Second)
			feed.failFeed(nil)
			time.Sleep(10 * time.Second)
			require.Empty(t, es.take(auth.EventStale))
		})
	}
}

func TestStale_EventSaysThatRunHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, es := newNode(t, newTestStore())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		<-a.Ready()
		synctest.Wait() // Run has published its notice
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		access := startSession(t, a).Access
		time.Sleep(2 * time.Minute)
		_, err := a.Verify(context.Background(), access)
		require.NoError(t, err)
		events := es.take(auth.EventStale)
		require.Len(t, events, 1)
		require.EqualError(t, events[0].Err, "auth: the revocation feed was last read 2m0s ago; Run has returned and must be called again")
	})
}
