package authtest_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// noStale returns a Config.OnEvent that fails the test if the feed is stale.
func noStale(t *testing.T) func(context.Context, auth.Event) {
	return func(_ context.Context, e auth.Event) {
		if e.Type == auth.EventStale || e.Type == auth.EventFault {
			t.Errorf("%s: %v", e.Type, e.Err)
		}
	}
}

func TestAdvance_KeepsTheFeedOfOtherStoresFresh(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]func() time.Time{"standing": nil, "bubble": time.Now} {
		synctest.Test(t, func(t *testing.T) {
			a := authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}, StalePolicy: auth.StaleRefuse, Now: now, OnEvent: noStale(t)})
			begun := time.Now()
			for _, d := range []time.Duration{16 * time.Minute, time.Millisecond, -time.Hour, 24 * time.Hour, 0} {
				synctest.Wait() // Changes waits
				a.Clock.Advance(d)
				require.LessOrEqual(t, a.Health().FeedAge, time.Millisecond, name)
				require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin)).Code, "%s, %s", name, d)
				a.Clock.Advance(time.Minute) // without waiting for Run
				require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin)).Code, "%s, %s", name, d)
			}
			require.Equal(t, begun, time.Now(), "Advance must not wait for a timer")
		})
	}
}

func TestAdvance_ByMoreThanAMinuteEndsStreams(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}})
	claims, err := a.Verify(t.Context(), authtest.Tokens(t, a, admin).Access)
	require.NoError(t, err)
	ctx, stop := a.SessionContext(t.Context(), claims)
	defer stop()
	a.Clock.Advance(time.Minute)
	require.NoError(t, ctx.Err())
	a.Clock.Advance(time.Minute + time.Second)
	require.ErrorIs(t, context.Cause(ctx), auth.ErrUnavailable)
}

func TestAdvance_ByManyAtOnce(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}, StalePolicy: auth.StaleRefuse})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				a.Clock.Advance(time.Hour)
				_, _ = a.Sessions(context.Background(), "u1")
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, a.Health().FeedAge, time.Millisecond)
}

// A clock of several Authenticators, such as those of two processes on one store.
func TestAdvance_ASharedClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock, store := authtest.NewClock(time.Now()), database{auth.NewMemoryStore()}
		c := auth.Config{Now: clock.Now, Store: store, StalePolicy: auth.StaleRefuse, Secrets: [][]byte{[]byte("a secret of this test, 32 bytes!")}, OnEvent: noStale(t)}
		nodes := []*authtest.Authenticator{authtest.New(t, c), authtest.New(t, c)}
		synctest.Wait()
		clock.Advance(16 * time.Minute)
		for _, a := range nodes {
			require.Equal(t, 16*time.Minute, a.Health().FeedAge)
			a.Clock.Advance(0)
			require.Zero(t, a.Health().FeedAge)
		}
		r := authtest.As(t, nodes[0], get("/me"), admin)
		require.Equal(t, http.StatusOK, respond(nodes[1], r).Code)
	})
}

// feedStore is a store whose feed fails while err is set, and does not respond
// while hangs is set.
type feedStore struct {
	*auth.MemoryStore
	fails, hangs atomic.Bool
}

func (s *feedStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	switch {
	case s.fails.Load():
		return nil, "", false, io.ErrUnexpectedEOF
	case s.hangs.Load():
		<-ctx.Done()
		return nil, "", false, ctx.Err()
	}
	return s.MemoryStore.Changes(ctx, after, wait)
}

func TestAdvance_DuringAnOutageTheFeedIsStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		a := authtest.New(t, auth.Config{Store: store, StalePolicy: auth.StaleRefuse, OnEvent: ignore})
		for range 2 {
			store.fails.Store(true)
			a.Clock.Advance(16 * time.Minute)
			require.Equal(t, http.StatusServiceUnavailable, respond(a, authtest.As(t, a, get("/me"), admin)).Code)
			store.fails.Store(false)
			a.Clock.Advance(0)
			require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin)).Code)
		}
	})
}

func TestAdvance_ReportsAFeedThatDoesNotRespond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &feedStore{MemoryStore: auth.NewMemoryStore()}
		var a *authtest.Authenticator
		failures, stopped := failuresOf(t, func(t testing.TB) {
			a = authtest.New(t, auth.Config{Store: store, StoreTimeout: time.Minute, OnEvent: ignore})
			synctest.Wait()
			store.hangs.Store(true)
			a.Clock.Advance(16 * time.Minute)
		})
		require.Equal(t, "authtest: Clock.Advance: Config.Store did not return its revocation feed within 30s", failures)
		require.False(t, stopped)
	})
}

func TestAdvance_AfterTheTestReturnsAtOnce(t *testing.T) {
	t.Parallel()
	var a *authtest.Authenticator
	t.Run("test", func(t *testing.T) { a = authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}}) })
	before := a.Clock.Now()
	a.Clock.Advance(time.Hour)
	require.Equal(t, before.Add(time.Hour), a.Clock.Now())
}
