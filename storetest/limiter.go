package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// RunLimiter tests whether a limiter fulfills the contract of [auth.Limiter]. Each
// part of the contract is a subtest. Subtests run one after the other.
//
// fresh prepares a limiter without buckets for one case, and returns a function that
// opens it. now is the clock of the case, which the limiter must use, and which can be
// called concurrently. The case calls open once for each process that it simulates.
// These processes share only the server. For a limiter in memory, open returns the
// same limiter each time. RunLimiter never calls fresh or open concurrently. To
// release resources, fresh uses t.Cleanup.
//
//	func TestLimiter_Conformance(t *testing.T) {
//		storetest.RunLimiter(t, func(t *testing.T, now func() time.Time) func() auth.Limiter {
//			prefix := rand.Text()
//			return func() auth.Limiter { return open(t, prefix, now) }
//		})
//	}
//
// By default cases with contention run 50 rounds, and the case with made-up names
// uses 2,000 of them. With -short these are 5 and 200; with AUTH_LONG=1 in the
// environment, 100 and 10,000. The tests do not cover how many buckets a limiter
// keeps, nor failures of the server.
func RunLimiter(t *testing.T, fresh func(t *testing.T, now func() time.Time) (open func() auth.Limiter)) {
	t.Helper()
	rounds, many, limit := 50, 2000, 3*time.Minute
	switch {
	case os.Getenv("AUTH_LONG") == "1":
		rounds, many, limit = 100, 10_000, time.Hour
	case testing.Short():
		rounds, many = 5, 200
	}
	for _, c := range limiterCases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			e := newLimiterEnv(ctx, rounds, many)
			e.open = fresh(t, e.now)
			if err := c.run(e); err != nil {
				t.Fatalf("%s\n%v", c.rule, err)
			}
		})
	}
}

// limiterCase is one part of the contract.
type limiterCase struct {
	name string
	rule string // the sentence of the contract that the case checks
	run  func(e *limiterEnv) error
}

// limiterEnv is the environment of a case.
type limiterEnv struct {
	ctx    context.Context
	open   func() auth.Limiter
	rounds int // rounds of a case with contention
	many   int // made-up names

	mu sync.Mutex
	at time.Time // the clock
}

func newLimiterEnv(ctx context.Context, rounds, many int) *limiterEnv {
	return &limiterEnv{ctx: ctx, rounds: rounds, many: many, at: now()}
}

func (e *limiterEnv) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at
}

func (e *limiterEnv) advance(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = e.at.Add(d)
}

// nodes opens the limiter n times.
func (e *limiterEnv) nodes(n int) []auth.Limiter {
	nodes := make([]auth.Limiter, n)
	for i := range nodes {
		nodes[i] = e.open()
	}
	return nodes
}

// bucket returns a bucket as package auth uses it.
func bucket(kind string, key any) auth.Bucket {
	b := auth.Bucket{Kind: kind, Key: fmt.Sprintf("%022v", key), Burst: 5, Decay: 15 * time.Minute}
	if kind == "source" {
		b.Burst, b.Decay = 50, 30*time.Second
	}
	return b
}

func account(key any) auth.Bucket { return bucket("account", key) }

// take returns an error unless Take counts an attempt in each bucket.
func (e *limiterEnv) take(l auth.Limiter, buckets ...auth.Bucket) error {
	wait, _, err := l.Take(e.ctx, buckets)
	if err != nil {
		return fmt.Errorf("Take: %w", err)
	}
	if wait != 0 {
		return fmt.Errorf("Take for %s returned a wait of %s, want none", show(buckets), wait)
	}
	return nil
}

// takeTimes is take n times.
func (e *limiterEnv) takeTimes(n int, l auth.Limiter, buckets ...auth.Bucket) error {
	for i := range n {
		if err := e.take(l, buckets...); err != nil {
			return fmt.Errorf("attempt %d: %w", i+1, err)
		}
	}
	return nil
}

// wantWait returns an error unless Take returns a wait and the index of a bucket.
func (e *limiterEnv) wantWait(l auth.Limiter, want time.Duration, wantIndex int, buckets ...auth.Bucket) error {
	wait, index, err := l.Take(e.ctx, buckets)
	switch {
	case err != nil:
		return fmt.Errorf("Take: %w", err)
	case wait != want:
		return fmt.Errorf("Take for %s returned a wait of %s, want %s", show(buckets), wait, want)
	case index != wantIndex:
		return fmt.Errorf("Take for %s returned the index %d, want %d", show(buckets), index, wantIndex)
	}
	return nil
}

func (e *limiterEnv) settle(l auth.Limiter, cleared, refund []auth.Bucket) error {
	if err := l.Settle(e.ctx, cleared, refund); err != nil {
		return fmt.Errorf("Settle: %w", err)
	}
	return nil
}

func show(buckets []auth.Bucket) string {
	text := ""
	for i, b := range buckets {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %s", b.Kind, b.Key[max(0, len(b.Key)-6):])
	}
	return text
}

// first returns the error of the first of steps that fails.
func first(steps ...func() error) error {
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

const (
	ruleWait     = "If n is at least Bucket.Burst, the next attempt must wait for 2^(n-Burst) seconds, but at most 15 minutes, from the time of the last one."
	ruleDecrease = "An attempt adds 1 to the level, which decreases steadily, by 1 in each Bucket.Decay, down to 0."
	ruleAtomic   = "Take adds an attempt to each of the buckets, in one atomic step, if none of them must wait."
	ruleRefused  = "Otherwise it counts nothing, and returns the longest wait, which is positive, and the index of its bucket in buckets."
	ruleClear    = "It sets the levels of the buckets in cleared to 0"
	ruleRefund   = "and subtracts 1 from the levels of those in refund, down to 0."
)

var limiterCases = []limiterCase{{
	name: "Take_WaitDoublesUpTo15Minutes",
	rule: ruleWait,
	run: func(e *limiterEnv) error {
		nodes := e.nodes(2)
		for key, b := range []auth.Bucket{account("a"), bucket("source", "a"), {Kind: "other", Key: "aaaaaaaaaaaaaaaaaaaaaa", Burst: 1, Decay: 24 * time.Hour}} {
			if err := e.takeTimes(b.Burst, nodes[0], b); err != nil {
				return err
			}
			for i, wait := 0, time.Second; i < 14; i, wait = i+1, min(2*wait, 15*time.Minute) {
				l, other := nodes[(key+i)%2], nodes[(key+i+1)%2]
				err := first(
					func() error { return e.wantWait(l, wait, 0, b) },
					func() error { e.advance(wait - time.Millisecond); return e.wantWait(other, time.Millisecond, 0, b) },
					func() error { e.advance(time.Millisecond); return e.take(l, b) },
				)
				if err != nil {
					return fmt.Errorf("attempt %d: %w", b.Burst+i+1, err)
				}
				if b.Kind == "account" && i == 8 || b.Kind == "source" && i == 4 { // the level decreases too much in the next wait
					break
				}
			}
		}
		return nil
	},
}, {
	name: "Take_LevelDecreasesSteadily",
	rule: ruleDecrease,
	run: func(e *limiterEnv) error {
		l, b := e.open(), account("a")
		return first(
			func() error { return e.takeTimes(4, l, b) },
			func() error { e.advance(15*time.Minute - time.Millisecond); return e.take(l, b) }, // just above 4
			func() error { return e.wantWait(l, time.Second, 0, b) },
			func() error { e.advance(time.Hour + time.Millisecond); return e.take(l, b) }, // from just above 4 to 0, then 1
			func() error { return e.takeTimes(4, l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) }, // so it was not below 0
			func() error { e.advance(75 * time.Minute); return e.takeTimes(5, l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) },
		)
	},
}, {
	name: "Take_LevelIsRoundedUp",
	rule: "Let n be the level just after the last attempt, rounded up.",
	run: func(e *limiterEnv) error {
		l, b, other := e.open(), account("a"), account("b")
		return first(
			func() error { return e.take(l, b) },
			func() error { e.advance(15*time.Minute - time.Millisecond); return e.takeTimes(4, l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) }, // the level is 4 and a little
			func() error { return e.take(l, other) },
			func() error { e.advance(15 * time.Minute); return e.takeTimes(4, l, other) },
			func() error { return e.take(l, other) }, // the level was 4
			func() error { return e.wantWait(l, time.Second, 0, other) },
		)
	},
}, {
	name: "Take_LevelIsBounded",
	rule: "The level never exceeds Burst + 10.",
	run: func(e *limiterEnv) error {
		l := e.open()
		b := auth.Bucket{Kind: "other", Key: "aaaaaaaaaaaaaaaaaaaaaa", Burst: 5, Decay: 2 * time.Hour}
		for range 40 {
			if err := e.take(l, b); err != nil {
				return err
			}
			e.advance(15 * time.Minute)
		}
		e.advance(22*time.Hour - 15*time.Minute) // from 15 to 4
		return first(
			func() error { return e.take(l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) },
		)
	},
}, {
	name: "Take_RefusedCountsNothing",
	rule: ruleRefused,
	run: func(e *limiterEnv) error {
		l, a, b, s := e.open(), account("a"), account("b"), bucket("source", "s")
		return first(
			func() error { return e.takeTimes(5, l, a) },
			func() error { return e.takeTimes(4, l, b, s) },
			func() error {
				for range 60 {
					if err := errors.Join(e.wantWait(l, time.Second, 1, b, a), e.wantWait(l, time.Second, 0, a, s), e.wantWait(l, time.Second, 1, s, a)); err != nil {
						return err
					}
				}
				return nil
			},
			func() error { return e.take(l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) },
			func() error { return e.takeTimes(46, l, s) },
			func() error { return e.wantWait(l, time.Second, 0, s) },
		)
	},
}, {
	name: "Take_ReturnsTheLongestWait",
	rule: ruleRefused,
	run: func(e *limiterEnv) error {
		l, a, b, s := e.open(), account("a"), account("b"), bucket("source", "s")
		return first(
			func() error { return e.takeTimes(5, l, a) },
			func() error { e.advance(time.Second); return e.takeTimes(1, l, a) }, // waits for 2 seconds
			func() error { return e.takeTimes(5, l, b) },                         // waits for 1 second
			func() error { return e.wantWait(l, 2*time.Second, 0, a, b, s) },
			func() error { return e.wantWait(l, 2*time.Second, 2, s, b, a) },
			func() error { return e.wantWait(l, time.Second, 1, s, b) },
		)
	},
}, {
	name: "Take_RefusedDoesNotExtendTheWait",
	rule: "It does not extend the wait.",
	run: func(e *limiterEnv) error {
		l, b := e.open(), account("a")
		if err := e.takeTimes(5, l, b); err != nil {
			return err
		}
		for left := time.Second; left > 0; left -= 50 * time.Millisecond {
			if err := e.wantWait(l, left, 0, b); err != nil {
				return err
			}
			e.advance(50 * time.Millisecond)
		}
		return first(
			func() error { return e.take(l, b) },
			func() error { return e.wantWait(l, 2*time.Second, 0, b) },
		)
	},
}, {
	name: "Take_ManyAtOnceDoNotExceedTheLimit",
	rule: ruleAtomic,
	run: func(e *limiterEnv) error {
		nodes := e.nodes(4)
		for round := range e.rounds {
			b, s := account(round), bucket("source", round)
			var counted atomic.Int64
			err := concurrently(32, func(i int) error {
				switch wait, index, err := nodes[i%len(nodes)].Take(e.ctx, []auth.Bucket{s, b}); {
				case err != nil:
					return err
				case wait == 0:
					counted.Add(1)
				case wait != time.Second || index != 1:
					return fmt.Errorf("Take returned a wait of %s and the index %d, want 1s and 1", wait, index)
				}
				return nil
			})
			if n := counted.Load(); err == nil && n != 5 {
				err = fmt.Errorf("%d of 32 concurrent attempts were counted, want 5", n)
			}
			if err == nil { // the source has the 5 that were counted, and no other
				err = first(func() error { return e.takeTimes(45, nodes[0], s) }, func() error { return e.wantWait(nodes[1], time.Second, 0, s) })
			}
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	},
}, {
	name: "Take_NodesCountTogether",
	rule: "A fleet of processes counts together if all of them use a Limiter on one server",
	run: func(e *limiterEnv) error {
		nodes, b := e.nodes(3), account("a")
		for i := range 5 {
			if err := e.take(nodes[i%3], b); err != nil {
				return err
			}
		}
		for _, l := range nodes {
			if err := e.wantWait(l, time.Second, 0, b); err != nil {
				return err
			}
		}
		return first(
			func() error { return e.settle(nodes[1], []auth.Bucket{b}, nil) },
			func() error { return e.takeTimes(5, nodes[2], b) },
			func() error { return e.wantWait(nodes[0], time.Second, 0, b) },
		)
	},
}, {
	name: "Bucket_KeysAndKindsAreSeparate",
	rule: "Key identifies the bucket among those of its kind.",
	run: func(e *limiterEnv) error {
		l := e.open()
		var buckets []auth.Bucket
		for _, kind := range []string{"account", "device", "name", "other"} {
			for _, key := range []string{"AbCdEfGhIjKlMnOpQrStUv", "abcdefghijklmnopqrstuv", "AbCdEfGhIjKlMnOpQrStUw", "BbCdEfGhIjKlMnOpQrStUv", "-bCdEfGhIjKlMnOpQrStU_", "0000000000000000000001", "1e10000000000000000000"} {
				buckets = append(buckets, auth.Bucket{Kind: kind, Key: key, Burst: 5, Decay: 15 * time.Minute})
			}
		}
		for _, b := range buckets {
			if err := e.takeTimes(5, l, b); err != nil {
				return err
			}
		}
		for _, b := range buckets {
			if err := e.wantWait(l, time.Second, 0, b); err != nil {
				return err
			}
		}
		return first(
			func() error { return e.settle(l, buckets[:1], nil) },
			func() error { return e.take(l, buckets[0]) },
			func() error { return e.wantWait(l, time.Second, 0, buckets[1]) },
			func() error { return e.wantWait(l, time.Second, 0, buckets[7]) },
		)
	},
}, {
	name: "Settle_Clears",
	rule: ruleClear,
	run: func(e *limiterEnv) error {
		l, a, b, s := e.open(), account("a"), account("b"), bucket("source", "s")
		return first(
			func() error { return e.takeTimes(5, l, a) },
			func() error { return e.takeTimes(5, l, b, s) },
			func() error { return e.settle(l, []auth.Bucket{a, b, account("absent")}, []auth.Bucket{s}) },
			func() error { return e.takeTimes(5, l, a) },
			func() error { return e.wantWait(l, time.Second, 0, a) },
			func() error { return e.takeTimes(5, l, b) },
			func() error { return e.takeTimes(46, l, s) }, // the source had 5, less 1
			func() error { return e.wantWait(l, time.Second, 0, s) },
		)
	},
}, {
	name: "Settle_Refunds",
	rule: ruleRefund,
	run: func(e *limiterEnv) error {
		l, a, b := e.open(), account("a"), account("b")
		return first(
			func() error { return e.takeTimes(5, l, a, b) },
			func() error { return e.settle(l, nil, []auth.Bucket{a}) },
			func() error { return e.wantWait(l, time.Second, 1, a, b) },
			func() error { return e.take(l, a) },
			func() error { return e.wantWait(l, time.Second, 0, a) },
			func() error { e.advance(time.Second); return e.take(l, a) },
			func() error { return e.settle(l, nil, []auth.Bucket{a, account("absent")}) },
			func() error { return e.wantWait(l, time.Second, 0, a) }, // from the last attempt, at the level of 5
			func() error { return e.settle(l, nil, nil) },
			func() error { return e.wantWait(l, time.Second, 0, a) },
			func() error { e.advance(time.Second); return e.take(l, a) },
			func() error { return e.wantWait(l, 2*time.Second, 0, a) },
		)
	},
}, {
	name: "Settle_RefundsDownTo0",
	rule: ruleRefund,
	run: func(e *limiterEnv) error {
		l, a := e.open(), account("a")
		refund := func() error { return e.settle(l, nil, []auth.Bucket{a}) }
		return first(
			refund, refund,
			func() error { return e.take(l, a) },
			func() error { e.advance(10 * time.Minute); return refund() }, // from a third
			refund,
			func() error { return e.takeTimes(5, l, a) },
			func() error { return e.wantWait(l, time.Second, 0, a) },
		)
	},
}, {
	name: "Settle_ManyAtOnceRefundEachAttempt",
	rule: ruleRefund,
	run: func(e *limiterEnv) error {
		nodes := e.nodes(4)
		for round := range e.rounds {
			s := bucket("source", round)
			err := concurrently(40, func(i int) error {
				l := nodes[i%len(nodes)]
				return first(func() error { return e.take(l, s) }, func() error { return e.settle(l, nil, []auth.Bucket{s}) })
			})
			if err == nil {
				err = first(func() error { return e.takeTimes(50, nodes[0], s) }, func() error { return e.wantWait(nodes[1], time.Second, 0, s) })
			}
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	},
}, {
	name: "Clock_SetBackCountsAsNow",
	rule: "If the clock that a Limiter uses is set back to a time before the last attempt of a bucket, the bucket counts as if that attempt was made now.",
	run: func(e *limiterEnv) error {
		l, a, b := e.open(), account("a"), account("b")
		return first(
			func() error { return e.takeTimes(5, l, a) },
			func() error { return e.takeTimes(4, l, b) },
			func() error { e.advance(-24 * time.Hour); return e.wantWait(l, time.Second, 0, a) },
			func() error { e.advance(600 * time.Millisecond); return e.wantWait(l, 400*time.Millisecond, 0, a) },
			func() error { e.advance(400 * time.Millisecond); return e.take(l, a) },
			func() error { return e.wantWait(l, 2*time.Second, 0, a) },
			func() error { return e.take(l, b) },
			func() error { return e.wantWait(l, time.Second, 0, b) },
			func() error { e.advance(2 * time.Hour); return e.takeTimes(5, l, a) },
			func() error { return e.wantWait(l, time.Second, 0, a) },
		)
	},
}, {
	name: "Kinds_DoNotRemoveEachOther",
	rule: "A bucket never causes the removal of one of another kind.",
	run: func(e *limiterEnv) error {
		l := e.open()
		others := []auth.Bucket{account("a"), bucket("device", "a"), bucket("other", "a"), bucket("name", "a")}
		for _, b := range others {
			if err := e.takeTimes(5, l, b); err != nil {
				return err
			}
		}
		for i := range e.many {
			if err := e.take(l, bucket("name", i), bucket("source", i/20)); err != nil {
				return err
			}
		}
		for _, b := range others[:3] {
			if err := e.wantWait(l, time.Second, 0, b); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Names_DoNotRemoveOneWithMoreAttempts",
	rule: "If there is no room for another bucket, the one whose level reaches 0 first is removed.",
	run: func(e *limiterEnv) error {
		l, b := e.open(), bucket("name", "a")
		if err := e.takeTimes(5, l, b); err != nil {
			return err
		}
		for i := range e.many {
			if err := e.take(l, bucket("name", i)); err != nil {
				return err
			}
		}
		return e.wantWait(l, time.Second, 0, b)
	},
}}
