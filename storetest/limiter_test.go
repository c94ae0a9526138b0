package storetest

import (
	"cmp"
	"context"
	"go/parser"
	"go/token"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// flawedLimiter is a limiter in memory with a flaw. Without one it fulfills the
// contract. It counts in another way than package auth does, with floating-point
// numbers.
type flawedLimiter struct {
	flaw    string
	now     func() time.Time
	latency time.Duration
	shared  *flawedLevels
}

type flawedLevels struct {
	mu     sync.Mutex
	levels map[auth.Bucket]flawedLevel
}

type flawedLevel struct {
	n    float64
	last time.Time
}

func (f *flawedLimiter) has(flaws ...string) bool { return slices.Contains(flaws, f.flaw) }

func (f *flawedLimiter) key(b auth.Bucket) auth.Bucket {
	b.Burst, b.Decay = 0, 0
	switch {
	case f.has("ignores kinds"):
		b.Kind = ""
	case f.has("folds the case of keys"):
		b.Key = strings.ToLower(b.Key)
	case f.has("cuts keys"):
		b.Key = b.Key[:21]
	}
	return b
}

// at returns the level at a time.
func (f *flawedLimiter) at(l flawedLevel, b auth.Bucket, now time.Time) float64 {
	passed := now.Sub(l.last)
	switch {
	case f.has("decreases in steps"):
		passed = passed.Truncate(b.Decay)
	case f.has("does not decrease"):
		passed = 0
	case f.has("decreases twice as fast"):
		passed *= 2
	case f.has("decreases below 0"), l.n < 0:
		return l.n - float64(passed)/float64(b.Decay)
	}
	return max(0, l.n-float64(max(0, passed))/float64(b.Decay))
}

func (f *flawedLimiter) wait(l *flawedLevel, b auth.Bucket, now time.Time) time.Duration {
	if now.Before(l.last) && !f.has("waits until a clock that was set back catches up") {
		l.last = now
		if f.has("forgets buckets if the clock is set back") {
			l.n = 0
		}
	}
	n := math.Ceil(l.n - 1e-9)
	if f.has("rounds down") {
		n = math.Floor(l.n + 1e-9)
	}
	excess := n - float64(b.Burst)
	if f.has("permits one more than Burst") {
		excess--
	}
	if excess < 0 {
		return 0
	}
	longest := 15 * time.Minute
	switch {
	case f.has("has no longest wait"):
		longest = 24 * time.Hour
	case f.has("waits for at most a minute"):
		longest = time.Minute
	}
	wait := min(time.Duration(math.Exp2(min(excess, 20)))*time.Second, longest)
	if f.has("does not double the wait") {
		wait = time.Second
	}
	wait -= now.Sub(l.last)
	if f.has("counts in whole seconds") {
		wait = wait.Round(time.Second)
	}
	return max(0, wait)
}

func (f *flawedLimiter) Take(_ context.Context, buckets []auth.Bucket) (wait time.Duration, index int, err error) {
	time.Sleep(f.latency)
	now := f.now()
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	levels := map[auth.Bucket]flawedLevel{}
	for i, b := range buckets {
		l, ok := f.shared.levels[f.key(b)]
		w := f.wait(&l, b, now)
		if ok {
			f.shared.levels[f.key(b)] = l
		}
		levels[b] = l
		if w > wait && (wait == 0 || !f.has("returns the first wait")) || w > 0 && f.has("returns the last wait") {
			wait, index = w, i
		}
	}
	if wait > 0 && f.has("extends the wait") {
		for _, b := range buckets {
			l := f.shared.levels[f.key(b)]
			l.last = now
			f.shared.levels[f.key(b)] = l
		}
	}
	if wait > 0 && f.has("returns the index 0") {
		index = 0
	}
	if wait > 0 && !f.has("counts refused attempts") {
		if f.has("counts in the other buckets") {
			for i, b := range buckets {
				if i != index {
					f.add(levels[b], b, now)
				}
			}
		}
		return wait, index, nil
	}
	if f.has("counts after it has looked") {
		f.shared.mu.Unlock()
		time.Sleep(f.latency)
		f.shared.mu.Lock()
	}
	for i, b := range buckets {
		if i > 0 && f.has("counts in the first bucket only") {
			break
		}
		if f.has("counts after it has looked") {
			levels[b] = f.shared.levels[f.key(b)]
		}
		f.add(levels[b], b, now)
	}
	return wait, index, nil
}

func (f *flawedLimiter) add(l flawedLevel, b auth.Bucket, now time.Time) {
	limit := float64(b.Burst + 10)
	if f.has("does not bound the level") {
		limit = 1000
	}
	k := f.key(b)
	if _, ok := f.shared.levels[k]; !ok && f.has("keeps few buckets", "keeps few buckets of a kind") && len(f.shared.levels) > 12 {
		for other := range f.shared.levels {
			if f.has("keeps few buckets") || other.Kind == b.Kind {
				delete(f.shared.levels, other)
				break
			}
		}
	}
	n := min(f.at(l, b, now)+1, limit)
	if f.has("resets the level after a pause") && now.Sub(l.last) > 10*time.Minute {
		n = 1
	}
	f.shared.levels[k] = flawedLevel{n, now}
}

func (f *flawedLimiter) Settle(_ context.Context, cleared, refund []auth.Bucket) error {
	time.Sleep(f.latency)
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	for i, b := range cleared {
		if f.has("clears nothing") || i > 0 && f.has("clears the first bucket only") {
			break
		}
		if f.has("subtracts 1 to clear") {
			l := f.shared.levels[f.key(b)]
			l.n = max(0, l.n-1)
			f.shared.levels[f.key(b)] = l
			continue
		}
		delete(f.shared.levels, f.key(b))
	}
	for _, b := range refund {
		l, ok := f.shared.levels[f.key(b)]
		if !ok && !f.has("refunds what was not counted") || f.has("refunds nothing") {
			continue
		}
		if f.has("refunds after it has looked") {
			f.shared.mu.Unlock()
			time.Sleep(f.latency)
			f.shared.mu.Lock()
		}
		switch {
		case f.has("clears to refund"):
			delete(f.shared.levels, f.key(b))
			continue
		case f.has("refunds below 0", "refunds what was not counted"):
			l.n--
		case f.has("forgets the last attempt when it refunds"):
			l.n, l.last = l.n-1, time.Time{}
		default:
			l.n = max(0, l.n-1)
		}
		f.shared.levels[f.key(b)] = l
	}
	return nil
}

// limiterFlaws lists the flaws, and the cases that must fail because of each.
var limiterFlaws = []struct {
	flaw  string
	fails []string
}{
	{"", nil},
	{"rounds down", []string{"Take_LevelIsRoundedUp", "Take_WaitDoublesUpTo15Minutes"}},
	{"permits one more than Burst", []string{"Take_WaitDoublesUpTo15Minutes", "Take_ManyAtOnceDoNotExceedTheLimit"}},
	{"has no longest wait", []string{"Take_WaitDoublesUpTo15Minutes"}},
	{"waits for at most a minute", []string{"Take_WaitDoublesUpTo15Minutes"}},
	{"does not double the wait", []string{"Take_WaitDoublesUpTo15Minutes"}},
	{"counts in whole seconds", []string{"Take_WaitDoublesUpTo15Minutes"}},
	{"decreases in steps", []string{"Take_LevelDecreasesSteadily"}},
	{"does not decrease", []string{"Take_LevelDecreasesSteadily"}},
	{"decreases twice as fast", []string{"Take_LevelDecreasesSteadily"}},
	{"decreases below 0", []string{"Take_LevelDecreasesSteadily"}},
	{"resets the level after a pause", []string{"Take_LevelDecreasesSteadily"}},
	{"does not bound the level", []string{"Take_LevelIsBounded"}},
	{"counts refused attempts", []string{"Take_RefusedCountsNothing", "Take_RefusedDoesNotExtendTheWait"}},
	{"counts in the other buckets", []string{"Take_RefusedCountsNothing"}},
	{"extends the wait", []string{"Take_RefusedDoesNotExtendTheWait"}},
	{"returns the first wait", []string{"Take_ReturnsTheLongestWait"}},
	{"returns the last wait", []string{"Take_ReturnsTheLongestWait"}},
	{"returns the index 0", []string{"Take_ReturnsTheLongestWait", "Take_ManyAtOnceDoNotExceedTheLimit"}},
	{"counts after it has looked", []string{"Take_ManyAtOnceDoNotExceedTheLimit"}},
	{"counts in the first bucket only", []string{"Take_RefusedCountsNothing"}},
	{"counts in each process", []string{"Take_NodesCountTogether"}},
	{"ignores kinds", []string{"Bucket_KeysAndKindsAreSeparate"}},
	{"folds the case of keys", []string{"Bucket_KeysAndKindsAreSeparate"}},
	{"cuts keys", []string{"Bucket_KeysAndKindsAreSeparate"}},
	{"clears nothing", []string{"Settle_Clears"}},
	{"clears the first bucket only", []string{"Settle_Clears"}},
	{"subtracts 1 to clear", []string{"Settle_Clears"}},
	{"refunds nothing", []string{"Settle_Refunds", "Settle_Clears"}},
	{"clears to refund", []string{"Settle_Refunds"}},
	{"forgets the last attempt when it refunds", []string{"Settle_Refunds"}},
	{"refunds below 0", []string{"Settle_RefundsDownTo0"}},
	{"refunds what was not counted", []string{"Settle_RefundsDownTo0"}},
	{"refunds after it has looked", []string{"Settle_ManyAtOnceRefundEachAttempt"}},
	{"waits until a clock that was set back catches up", []string{"Clock_SetBackCountsAsNow"}},
	{"forgets buckets if the clock is set back", []string{"Clock_SetBackCountsAsNow"}},
	{"keeps few buckets", []string{"Kinds_DoNotRemoveEachOther"}},
	{"keeps few buckets of a kind", []string{"Names_DoNotRemoveOneWithMoreAttempts"}},
}

func newFlawedLimiter(flaw string, now func() time.Time) func() auth.Limiter {
	levels := func() *flawedLevels { return &flawedLevels{levels: map[auth.Bucket]flawedLevel{}} }
	shared := levels()
	return func() auth.Limiter {
		if flaw == "counts in each process" {
			shared = levels()
		}
		return &flawedLimiter{flaw: flaw, now: now, latency: time.Microsecond, shared: shared}
	}
}

func TestRunLimiter_CorrectLimiterPasses(t *testing.T) {
	t.Parallel()
	RunLimiter(t, func(_ *testing.T, now func() time.Time) func() auth.Limiter { return newFlawedLimiter("", now) })
}

func TestLimiterCases_EachFlawFailsItsCases(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{}
	for _, f := range limiterFlaws {
		for _, name := range f.fails {
			tested[name] = true
		}
		t.Run(cmp.Or(f.flaw, "none"), func(t *testing.T) {
			t.Parallel()
			for _, c := range limiterCases {
				var err error
				synctest.Test(t, func(t *testing.T) {
					e := newLimiterEnv(t.Context(), 3, 100)
					e.open = newFlawedLimiter(f.flaw, e.now)
					err = c.run(e)
				})
				if slices.Contains(f.fails, c.name) {
					require.Error(t, err, "%s passed", c.name)
					t.Logf("%s: %v", c.name, err)
				} else if f.flaw == "" {
					require.NoError(t, err, c.name)
				}
			}
		})
	}
	for _, c := range limiterCases {
		require.True(t, tested[c.name], "no flaw fails %s", c.name)
	}
}

// TestLimiterCases_RulesAreTheContract checks that the comments of limiter.go
// contain each rule.
func TestLimiterCases_RulesAreTheContract(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "../limiter.go", nil, parser.ParseComments)
	require.NoError(t, err)
	contract, plain := "", regexp.MustCompile(`\[([\w.]+)\]`)
	for _, group := range f.Comments {
		contract += plain.ReplaceAllString(strings.Join(strings.Fields(group.Text()), " "), "$1") + "\n"
	}
	names := map[string]bool{}
	for _, c := range limiterCases {
		require.Contains(t, contract, c.rule, c.name)
		require.False(t, names[c.name], c.name)
		names[c.name] = true
	}
}
