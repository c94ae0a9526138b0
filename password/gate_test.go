package password

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const unit = 64 * 1024 // bytes, one hash of Memory 64

// gateTest has a Hasher whose jobs run until the test ends them. It is used in
// one synctest bubble, where synctest.Wait returns when every job runs or
// waits.
type gateTest struct {
	t      *testing.T
	hasher *Hasher
	end    chan struct{}

	mu      sync.Mutex
	started []string // the passwords of the jobs, in the order in which they started
}

func newGateTest(t *testing.T, budget int64, queue int) *gateTest {
	w := &gateTest{t: t, end: make(chan struct{})}
	w.hasher = &Hasher{Memory: 64, Time: 1, Budget: budget, Queue: queue}
	work := func(password []byte) {
		w.mu.Lock()
		w.started = append(w.started, string(password))
		w.mu.Unlock()
		<-w.end
	}
	w.hasher.argon2id = func(password, _ []byte, _, _ uint32, _ uint8, length uint32) []byte {
		work(password)
		return make([]byte, length)
	}
	w.hasher.bcrypt = func(_, password []byte) error {
		work(password)
		return nil
	}
	return w
}

// start starts a job that verifies name against a hash that needs units of
// memory. It returns when the job runs or waits. The channel receives the
// result.
func (w *gateTest) start(ctx context.Context, name string, units uint32) chan error {
	hash := argon2idHash{params: params{memory: 64 * units, time: 1, threads: 1}, salt: make([]byte, 16), tag: make([]byte, 32)}
	return w.startHash(ctx, name, hash.String())
}

func (w *gateTest) startHash(ctx context.Context, name, hash string) chan error {
	result := make(chan error, 1)
	go func() { result <- w.hasher.Verify(ctx, hash, name) }()
	synctest.Wait()
	return result
}

// names returns the names of all jobs that have started.
func (w *gateTest) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.started...)
}

// endOne ends one running job.
func (w *gateTest) endOne() {
	w.end <- struct{}{}
	synctest.Wait()
}

// wantIdle checks that no job runs or waits.
func (w *gateTest) wantIdle() {
	w.t.Helper()
	synctest.Wait()
	require.Zero(w.t, w.hasher.gate.used)
	require.Zero(w.t, w.hasher.gate.waiting)
}

func TestGate_FirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 2*unit, 10)
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			w.start(t.Context(), name, 1)
		}
		require.Equal(t, []string{"a", "b"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "b", "c"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "b", "c", "d"}, w.names())
		close(w.end)
		w.wantIdle()
	})
}

func TestGate_HeavyJobDoesNotStarve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 3*unit, 10)
		w.start(t.Context(), "a", 1)
		w.start(t.Context(), "b", 1)
		w.start(t.Context(), "heavy", 3)
		w.start(t.Context(), "c", 1) // fits into the budget, but must not overtake
		require.Equal(t, []string{"a", "b"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "b"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "b", "heavy"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "b", "heavy", "c"}, w.names())
		w.endOne()
		w.wantIdle()
	})
}

func TestGate_JobHeavierThanTheBudgetRunsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 2*unit, 10)
		w.start(t.Context(), "a", 1)
		w.start(t.Context(), "huge", 100)
		w.start(t.Context(), "b", 1)
		require.Equal(t, []string{"a"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "huge"}, w.names())
		w.endOne()
		require.Equal(t, []string{"a", "huge", "b"}, w.names())
		w.endOne()
		w.wantIdle()
	})
}

func TestGate_BcryptCountsAsOneNewHash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 2*unit, 10)
		hash := mintBcrypt(t, "x")
		for _, name := range []string{"a", "b", "c"} {
			w.startHash(t.Context(), name, hash)
		}
		require.Equal(t, []string{"a", "b"}, w.names())
		close(w.end)
		w.wantIdle()
	})
}

func TestGate_FullQueueIsBusyAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 2)
		a := w.start(t.Context(), "a", 1)
		b := w.start(t.Context(), "b", 1)
		c := w.start(t.Context(), "c", 1)
		require.ErrorIs(t, <-w.start(t.Context(), "d", 1), ErrBusy)
		_, err := w.hasher.Hash(t.Context(), "e")
		require.ErrorIs(t, err, ErrBusy)
		require.ErrorIs(t, w.hasher.VerifyUnknown(t.Context(), "f"), ErrBusy)

		w.endOne() // b runs, and the queue has room for one
		e := w.start(t.Context(), "e", 1)
		close(w.end)
		w.wantIdle()
		require.Equal(t, []string{"a", "b", "c", "e"}, w.names())
		for _, result := range []chan error{a, b, c, e} {
			require.NoError(t, <-result)
		}
	})
}

func TestGate_NegativeQueueMeansNoWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, -1)
		a := w.start(t.Context(), "a", 1)
		require.ErrorIs(t, <-w.start(t.Context(), "b", 1), ErrBusy)
		w.endOne()
		require.NoError(t, <-a)
		c := w.start(t.Context(), "c", 1)
		w.endOne()
		require.NoError(t, <-c)
		w.wantIdle()
	})
}

func TestGate_CanceledWaiterLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 2*unit, 2)
		ctx, cancel := context.WithCancel(t.Context())
		w.start(t.Context(), "a", 1)
		heavy := w.start(ctx, "heavy", 2)
		w.start(t.Context(), "b", 1) // waits behind heavy, although it fits
		require.Equal(t, []string{"a"}, w.names())
		require.ErrorIs(t, <-w.start(t.Context(), "c", 1), ErrBusy)

		cancel()
		synctest.Wait()
		err := <-heavy
		require.ErrorIs(t, err, context.Canceled)
		require.EqualError(t, err, "password: waiting to hash: context canceled")
		require.Equal(t, []string{"a", "b"}, w.names(), "b fits and must be admitted when heavy leaves")
		close(w.end)
		w.wantIdle()
	})
}

func TestGate_WaiterLeavesAtItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w.start(t.Context(), "a", 1)
		late := w.start(ctx, "late", 1)
		next := w.start(t.Context(), "next", 1)
		begin := time.Now()
		require.ErrorIs(t, <-late, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		w.endOne()
		w.endOne()
		require.NoError(t, <-next)
		require.Equal(t, []string{"a", "next"}, w.names())
		w.wantIdle()
	})
}

func TestGate_EndedContextDoesNoWork(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Hash(ctx, "password")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, h.Verify(ctx, mint("password", leastParams, 16, 32), "password"), context.Canceled)
	require.ErrorIs(t, h.VerifyUnknown(ctx, "password"), context.Canceled)
	require.Empty(t, s.take())
}

func TestGate_CancelDuringHashingKeepsTheMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 2)
		ctx, cancel := context.WithCancel(t.Context())
		a := w.start(ctx, "a", 1)
		b := w.start(t.Context(), "b", 1)
		cancel()
		synctest.Wait()
		require.Equal(t, []string{"a"}, w.names(), "a still uses its memory")
		w.endOne()
		require.NoError(t, <-a, "the job was done")
		w.endOne()
		require.NoError(t, <-b)
		w.wantIdle()
	})
}

func TestGate_PanicReleases(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	h.Budget, h.Queue = unit, -1
	original := h.argon2id
	h.argon2id = func(_, _ []byte, _, _ uint32, _ uint8, _ uint32) []byte { panic("kdf") }
	for range 3 {
		require.PanicsWithValue(t, "kdf", func() { _, _ = h.Hash(t.Context(), "password") })
		require.PanicsWithValue(t, "kdf", func() { _ = h.VerifyUnknown(t.Context(), "password") })
	}
	h.argon2id = original
	_, err := h.Hash(t.Context(), "password")
	require.NoError(t, err)
	require.Len(t, s.take(), 1)
	require.Zero(t, h.gate.used)
}

func TestGate_AdmissionAndCancelAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{budget: 1, queue: 2}
		for range 100 { // which of the two the waiter sees is random
			weight, err := g.enter(t.Context(), 1)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			entered := 0
			for _, ctx := range []context.Context{ctx, t.Context()} {
				go func() {
					weight, err := g.enter(ctx, 1)
					if err != nil {
						return
					}
					entered++
					g.leave(weight)
				}()
				synctest.Wait()
			}
			g.mu.Lock() // both must happen before the waiter can run
			cancel()
			g.used -= weight
			g.admit()
			g.mu.Unlock()
			synctest.Wait()
			require.Positive(t, entered, "the job behind must be admitted in either case")
			require.Zero(t, g.used)
			require.Zero(t, g.waiting)
		}
	})
}

func TestGate_RefusalAndCancelAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{budget: 1, queue: 2}
		for range 100 { // which of the two the waiter sees is random
			weight, err := g.enter(t.Context(), 1)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var errs []error
			for _, ctx := range []context.Context{t.Context(), ctx} {
				go func() {
					weight, err := g.enter(ctx, 1)
					errs = append(errs, err)
					if err == nil {
						g.leave(weight)
					}
				}()
				synctest.Wait()
			}
			g.mu.Lock() // both must happen before the waiter can run
			cancel()
			require.True(t, g.makeRoom("other"))
			g.mu.Unlock()
			synctest.Wait()
			require.Len(t, errs, 1)
			require.Error(t, errs[0])
			require.EqualValues(t, 1, g.used, "the first job still runs")
			require.EqualValues(t, 1, g.waiting)
			g.leave(weight)
			synctest.Wait()
			require.NoError(t, errs[1])
			require.Zero(t, g.used)
		}
	})
}

func TestGate_64GoroutinesStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	const budget = 4 * unit
	var used, most, jobs atomic.Int64
	h := &Hasher{Memory: 64, Time: 1, Budget: budget, Queue: 64}
	work := func(weight int64) {
		exclusive := weight > budget
		now, others := used.Add(min(weight, budget)), jobs.Add(1)-1
		if now > budget || exclusive && others > 0 {
			t.Errorf("%d bytes of %d in use, %d other jobs running", now, budget, others)
		}
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
		if exclusive && jobs.Load() != 1 {
			t.Error("a job was admitted beside one that is heavier than the budget")
		}
		jobs.Add(-1)
		used.Add(-min(weight, budget))
	}
	h.argon2id = func(_, _ []byte, _, memory uint32, _ uint8, length uint32) []byte {
		work(int64(memory) * 1024)
		return make([]byte, length)
	}
	h.bcrypt = func(_, _ []byte) error {
		work(unit)
		return nil
	}
	bcryptHash := mintBcrypt(t, "x")

	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				timeout := time.Minute
				if (i+j)%5 == 0 {
					timeout = time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				var err error
				switch (i + j) % 4 {
				case 0:
					_, err = h.Hash(ctx, "password")
				case 1:
					err = h.Verify(ctx, bcryptHash, "password")
				case 2:
					if err = h.VerifyUnknown(ctx, "password"); errors.Is(err, ErrMismatch) {
						err = nil
					}
				case 3:
					stored := argon2idHash{params: params{memory: 64 * uint32(1+j%6), time: 1, threads: 1}, salt: make([]byte, 16), tag: make([]byte, 32)}
					err = h.Verify(ctx, stored.String(), "password")
				}
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, budget, most.Load(), "the whole budget should be used")
	require.Zero(t, h.gate.used)
	require.Zero(t, h.gate.waiting)
}

// startFrom is start for a source.
func (w *gateTest) startFrom(source, name string, units uint32) chan error {
	return w.start(WithSource(w.t.Context(), source), name, units)
}

func TestGate_SourcesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 10)
		for _, name := range []string{"a1", "a2", "a3", "a4", "b1", "b2", "c1", "d1", "d2"} {
			w.startFrom(name[:1], name, 1)
		}
		close(w.end)
		w.wantIdle()
		require.Equal(t, []string{"a1", "a2", "b1", "c1", "d1", "a3", "b2", "d2", "a4"}, w.names())
	})
}

func TestGate_CallsWithoutSourceShareOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 10)
		w.start(t.Context(), "running", 1)
		w.start(t.Context(), "1", 1)
		w.startFrom("", "2", 1)
		w.startFrom("a", "a", 1)
		close(w.end)
		w.wantIdle()
		require.Equal(t, []string{"running", "1", "a", "2"}, w.names())
	})
}

func TestGate_HeavyJobKeepsTheTurnOfItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, 2*unit, 10)
		w.startFrom("a", "a1", 1)
		w.startFrom("a", "a2", 1)
		w.startFrom("a", "heavy", 2)
		w.startFrom("b", "b1", 1)
		w.startFrom("c", "c1", 1)
		w.endOne()
		require.Equal(t, []string{"a1", "a2"}, w.names(), "b1 would fit, but it is the turn of heavy")
		w.endOne()
		w.endOne()
		w.endOne()
		w.endOne()
		w.wantIdle()
		require.Equal(t, []string{"a1", "a2", "heavy"}, w.names()[:3])
	})
}

func TestGate_OneSourceMayUseTheWholeQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 4)
		for _, name := range []string{"1", "2", "3", "4", "5"} {
			w.startFrom("a", name, 1)
		}
		require.ErrorIs(t, <-w.startFrom("a", "6", 1), ErrBusy)
		close(w.end)
		w.wantIdle()
		require.Equal(t, []string{"1", "2", "3", "4", "5"}, w.names())
	})
}

func TestGate_FullQueueMakesRoomForASourceWithFewer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 4)
		a := map[string]chan error{}
		for _, name := range []string{"a0", "a1", "a2", "a3", "a4"} {
			a[name] = w.startFrom("a", name, 1)
		}
		w.startFrom("b", "b1", 1)
		require.ErrorIs(t, <-a["a4"], ErrBusy, "the newest of a")
		w.startFrom("b", "b2", 1)
		require.ErrorIs(t, <-a["a3"], ErrBusy)
		require.ErrorIs(t, <-w.startFrom("b", "b3", 1), ErrBusy, "a and b have as many")
		w.startFrom("c", "c1", 1)
		require.ErrorIs(t, <-w.startFrom("c", "c2", 1), ErrBusy, "c would then have more than the other")
		w.startFrom("d", "d1", 1)
		require.ErrorIs(t, <-w.startFrom("e", "e1", 1), ErrBusy, "each waiting call is of a different source")
		close(w.end)
		w.wantIdle()
		names := w.names()
		require.Len(t, names, 5)
		require.Equal(t, []string{"a0", "a1", "b1", "c1", "d1"}, names)
		require.Empty(t, w.hasher.gate.ranks)
	})
}

func TestGate_SourceThatFloodsDelaysAnotherByOneTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGateTest(t, unit, 8)
		flood := func() {
			for range 20 {
				w.startFrom("flood", "flood", 1)
			}
		}
		flood()
		for range 10 {
			b := w.startFrom("b", "b", 1)
			flood()
			w.endOne()
			w.endOne()
			require.Equal(t, "b", w.names()[len(w.names())-1], "after one call of flood")
			w.endOne()
			require.NoError(t, <-b)
		}
		close(w.end)
		w.wantIdle()
	})
}

// A model is a gate that is as simple as possible: it looks at all jobs every time.
type model struct {
	budget, used int64
	queue        int
	waiting      []*modelJob // in order of arrival
	turns        []string
}

type modelJob struct {
	source  string
	weight  int64
	cancel  context.CancelFunc
	outcome error // set by the goroutine that waits
	decided bool
	want    string // "waiting", "admitted", "busy", "canceled" or "left"
}

func (m *model) count(source string) (n int) {
	for _, j := range m.waiting {
		if j.source == source {
			n++
		}
	}
	return n
}

func (m *model) remove(j *modelJob, want string) {
	j.want = want
	m.waiting = slices.DeleteFunc(m.waiting, func(other *modelJob) bool { return other == j })
	if m.count(j.source) == 0 {
		m.turns = slices.DeleteFunc(m.turns, func(source string) bool { return source == j.source })
	}
}

// arrive adds j. If j takes the place of another job, several may be right: refused
// reports whether the gate refused one.
func (m *model) arrive(t *testing.T, j *modelJob, refused func(*modelJob) bool) {
	j.want = "waiting"
	if len(m.waiting) == 0 && j.weight <= m.budget-m.used {
		m.used += j.weight
		j.want = "admitted"
		return
	}
	if len(m.waiting) >= m.queue {
		most := 0
		for _, other := range m.waiting {
			most = max(most, m.count(other.source))
		}
		if most < m.count(j.source)+2 {
			j.want = "busy"
			return
		}
		newest := map[string]*modelJob{}
		for _, other := range m.waiting {
			newest[other.source] = other
		}
		var victims []*modelJob
		for source, other := range newest {
			if m.count(source) == most && refused(other) {
				victims = append(victims, other)
			}
		}
		require.Len(t, victims, 1, "the newest job of one source that has the most is refused")
		m.remove(victims[0], "busy")
	}
	if m.count(j.source) == 0 {
		m.turns = append(m.turns, j.source)
	}
	m.waiting = append(m.waiting, j)
}

func (m *model) admit() {
	for len(m.turns) > 0 {
		source := m.turns[0]
		first := m.waiting[slices.IndexFunc(m.waiting, func(j *modelJob) bool { return j.source == source })]
		if first.weight > m.budget-m.used {
			return
		}
		m.used += first.weight
		m.turns = append(m.turns[1:], source)
		m.remove(first, "admitted")
	}
}

func TestGate_BehavesLikeASimpleModel(t *testing.T) {
	t.Parallel()
	histories := uint64(20)
	if os.Getenv("AUTH_LONG") == "1" {
		histories = 500
	}
	for seed := range histories {
		synctest.Test(t, func(t *testing.T) { playHistory(t, seed, 100) })
	}
}

// playHistory plays a random history against a gate and a model. All jobs have the
// same outcome in both after each step, so jobs are admitted in the same order.
func playHistory(t *testing.T, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 0))
	m := &model{budget: 1 + r.Int64N(8), queue: r.IntN(12) - 1}
	g := &gate{budget: m.budget, queue: int64(m.queue)}
	sources := []string{"", "a", "b", "c", "d"}[:1+r.IntN(5)]
	var jobs []*modelJob
	pick := func(want string) *modelJob {
		var list []*modelJob
		for _, j := range jobs {
			if j.want == want {
				list = append(list, j)
			}
		}
		if len(list) == 0 {
			return nil
		}
		return list[r.IntN(len(list))]
	}
	arrivals := 2 + r.IntN(6) // of 10 steps
	for step := range steps {
		switch n := r.IntN(10); {
		case n < arrivals:
			j := &modelJob{source: sources[min(r.IntN(8), len(sources)-1)], weight: 1 + r.Int64N(2*m.budget)}
			ctx, cancel := context.WithCancel(WithSource(t.Context(), j.source))
			j.cancel = cancel
			weight := j.weight
			j.weight = min(weight, m.budget)
			jobs = append(jobs, j)
			go func() {
				_, err := g.enter(ctx, weight)
				j.outcome, j.decided = err, true
			}()
			synctest.Wait()
			m.arrive(t, j, func(other *modelJob) bool { return errors.Is(other.outcome, ErrBusy) })
		case n < 8:
			if j := pick("admitted"); j != nil {
				g.leave(j.weight)
				j.want = "left"
				m.used -= j.weight
				m.admit()
			}
		default:
			if j := pick("waiting"); j != nil {
				j.cancel()
				m.remove(j, "canceled")
				m.admit()
			}
		}
		synctest.Wait()
		checkModel(t, g, m, jobs, step)
	}
	for j := pick("admitted"); j != nil; j = pick("admitted") {
		g.leave(j.weight)
		j.want = "left"
		m.used -= j.weight
		m.admit()
		synctest.Wait()
		checkModel(t, g, m, jobs, steps)
	}
	require.Nil(t, pick("waiting"), "every job must be admitted at the end")
	for _, j := range jobs {
		j.cancel()
	}
	require.Zero(t, g.used)
	require.Empty(t, g.sources)
	require.Zero(t, g.turns.Len())
	require.Empty(t, g.ranks)
}

func checkModel(t *testing.T, g *gate, m *model, jobs []*modelJob, step int) {
	t.Helper()
	for i, j := range jobs {
		got := "waiting"
		switch {
		case j.decided && j.outcome == nil:
			got = "admitted"
		case errors.Is(j.outcome, ErrBusy):
			got = "busy"
		case errors.Is(j.outcome, context.Canceled):
			got = "canceled"
		}
		want := j.want
		if want == "left" {
			want = "admitted"
		}
		require.Equal(t, want, got, "step %d, job %d", step, i)
	}
	require.LessOrEqual(t, g.used, g.budget)
	require.Equal(t, m.used, g.used)
	require.EqualValues(t, len(m.waiting), g.waiting)
	require.LessOrEqual(t, g.waiting, max(0, g.queue))
	require.Len(t, g.sources, len(m.turns))
	most := 0
	for _, source := range m.turns {
		most = max(most, m.count(source))
	}
	require.Len(t, g.ranks, most)
}

func TestGate_GreedySourceRefusesNoOther(t *testing.T) {
	t.Parallel()
	const budget = 4
	g := &gate{budget: budget, queue: 16}
	var used atomic.Int64
	job := func(ctx context.Context, source string, weight int64) error {
		weight, err := g.enter(WithSource(ctx, source), weight)
		if err != nil {
			return err
		}
		if used.Add(weight) > budget {
			t.Error("the budget is exceeded")
		}
		runtime.Gosched()
		used.Add(-weight)
		g.leave(weight)
		return nil
	}
	done, stop := context.WithCancel(t.Context())
	var greedy, modest sync.WaitGroup
	for i := range 32 {
		greedy.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for done.Err() == nil {
				ctx, cancel := context.WithCancel(done)
				if r.IntN(4) == 0 {
					go cancel()
				}
				if err := job(ctx, "greedy", 1+r.Int64N(6)); err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	for i := range 4 {
		modest.Go(func() {
			for range 50 {
				if err := job(t.Context(), string(rune('a'+i)), 1+int64(i)); err != nil {
					t.Errorf("source with one call at a time: %v", err)
				}
			}
		})
	}
	modest.Wait()
	stop()
	greedy.Wait()
	require.Zero(t, g.used)
	require.Zero(t, g.waiting)
	require.Empty(t, g.sources)
}
