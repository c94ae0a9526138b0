package auth

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type expireFunc func()

func (f expireFunc) expire() { f() }

func TestHookDeadlines_ExpireOnceAndNotEarly(t *testing.T) {
	t.Parallel()
	t.Run("bubble", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, testDeadlines)
	})
	t.Run("real clock", func(t *testing.T) {
		t.Parallel()
		testDeadlines(t)
	})
}

// testDeadlines sets deadlines within 60 ms. It also replaces and removes some that
// are an hour away.
func testDeadlines(t *testing.T) {
	t.Helper()
	var h hookDeadlines
	start := time.Now()
	expired := make(chan int, 1000)
	want := map[int]time.Duration{}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		d := &hookDeadline{call: expireFunc(func() { expired <- i })}
		soon := time.Duration(1+random.IntN(60)) * time.Millisecond
		switch random.IntN(3) {
		case 0:
			h.set(d, start.Add(time.Hour))
			defer func() {
				h.remove(d)
				h.remove(d)
			}()
		case 1:
			h.set(d, start.Add(time.Hour))
			fallthrough
		default:
			want[i] = soon
			h.set(d, start.Add(soon))
		}
	}
	for len(want) > 0 {
		i := <-expired
		require.Contains(t, want, i, "it was not set, or expires again")
		require.GreaterOrEqual(t, time.Since(start), want[i])
		delete(want, i)
	}
	t.Cleanup(func() { require.Empty(t, h.pending) })
}

func TestHookDeadlines_OneTimerServesManyCalls(t *testing.T) {
	t.Parallel()
	var h hookDeadlines
	var fires time.Time
	for range 1000 {
		d := &hookDeadline{call: expireFunc(func() { t.Error("a call that has returned expires") })}
		h.set(d, time.Now().Add(time.Hour))
		if fires.IsZero() {
			fires = h.fires
		}
		require.Equal(t, fires, h.fires, "another timer was started")
		h.remove(d)
	}
}

// A bubble begins at the time at which the one before it has begun.
func TestHookDeadlines_WorkInBubblesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	var h hookDeadlines
	for range 2 {
		synctest.Test(t, func(*testing.T) {
			d := &hookDeadline{call: expireFunc(func() {})}
			h.set(d, time.Now().Add(time.Second))
			h.remove(d)
		}) // the timer is still pending
		synctest.Test(t, func(t *testing.T) {
			expired := make(chan time.Duration, 1)
			begin := time.Now()
			h.set(&hookDeadline{call: expireFunc(func() { expired <- time.Since(begin) })}, begin.Add(2*time.Second))
			select {
			case after := <-expired:
				require.Equal(t, 2*time.Second, after)
			case <-time.After(time.Minute):
				t.Error("the deadline does not expire")
			}
		})
	}
}

// The timers of a synctest bubble do not fire outside of it.
func TestHookDeadlines_WorkInAndOutsideOfABubble(t *testing.T) {
	t.Parallel()
	var h hookDeadlines
	expires := func(t *testing.T) {
		t.Helper()
		done := make(chan struct{})
		h.set(&hookDeadline{call: expireFunc(func() { close(done) })}, time.Now().Add(time.Millisecond))
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the deadline does not expire")
		}
	}
	remains := func() { // the timer is still pending when the bubble ends
		d := &hookDeadline{call: expireFunc(func() {})}
		h.set(d, time.Now().Add(time.Hour))
		h.remove(d)
	}
	for range 3 {
		remains()
		expires(t)
		synctest.Test(t, func(t *testing.T) {
			remains()
			expires(t)
			remains()
		})
	}
	expires(t)
}
