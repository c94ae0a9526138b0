package password

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	maxPace   = 3 * time.Second // more than bcrypt of cost 15 takes
	paceKinds = 16
	paceSize  = 32             // durations of each kind
	paceAge   = 24 * time.Hour // a kind that was not verified for this long is forgotten
)

// A pace says how long it takes at least until a wrong password is refused. If the
// hashes of users have different costs, the response time would otherwise reveal
// which login names exist, and whose hash is old: one attempt for each name is
// enough to distinguish bcrypt from argon2id.
//
// It remembers how long recent verifications took for each kind of hash. It could
// not do the same work for all kinds instead: a refusal would then cost as much as
// all kinds together, and a server could refuse far fewer guesses.
type pace struct {
	mu    sync.Mutex
	kinds map[cost]*durations
}

// cost is a kind of hash: all hashes of a kind take the same time.
type cost struct {
	bcrypt int // the cost of a bcrypt hash; 0 for argon2id
	params
}

// durations are the most recent ones of a kind.
type durations struct {
	all  []time.Duration // a ring of at most paceSize
	next int             // the oldest of them, if there are paceSize
	most time.Duration   // nine of ten are not longer
	last time.Time       // when the last one was added
}

// add adds the duration of a verification, and returns how long one must take at
// least if it fails. That is 0 as long as all hashes are of one kind.
//
// The result is a duration that nine of ten verifications of the slowest kind do not
// exceed. A kind that was not verified for a day does not count: the hashes may have
// been replaced. With the maximum, one verification on a busy machine would delay all
// refusals for long. With the median, half of those of the slowest kind would take
// longer than all others.
func (p *pace) add(kind cost, took time.Duration, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.kinds[kind]
	if d == nil {
		d = p.newKind(kind)
	}
	if len(d.all) < paceSize {
		d.all = append(d.all, took)
	} else {
		d.all[d.next] = took
		d.next = (d.next + 1) % paceSize
	}
	sorted := slices.Sorted(slices.Values(d.all))
	d.most = sorted[(9*len(sorted)+9)/10-1]
	d.last = now
	var least time.Duration
	for k, other := range p.kinds {
		if now.Sub(other.last) >= paceAge {
			delete(p.kinds, k)
			continue
		}
		least = max(least, other.most)
	}
	if len(p.kinds) == 1 {
		return 0
	}
	return min(least, maxPace)
}

// newKind adds a kind. If there are too many, it removes the fastest, which has no
// effect on the pace.
func (p *pace) newKind(kind cost) *durations {
	if p.kinds == nil {
		p.kinds = map[cost]*durations{}
	}
	if len(p.kinds) == paceKinds {
		var fastest cost
		var least *durations
		for k, d := range p.kinds {
			if least == nil || d.most < least.most {
				fastest, least = k, d
			}
		}
		delete(p.kinds, fastest)
	}
	d := &durations{}
	p.kinds[kind] = d
	return d
}

// waitUntil returns at a time, or when ctx is done.
func waitUntil(ctx context.Context, t time.Time) {
	d := time.Until(t)
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
