package password

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// sourceKey is the key of the source in a context.
type sourceKey struct{}

// WithSource returns a context that says for whom a hash is computed, such as the
// network of the client. The methods of [Hasher] share the queue fairly between
// sources: see [Hasher.Queue]. Calls without a source have the source "".
//
// Package auth sets the source for the hashes that it computes for a request.
func WithSource(ctx context.Context, source string) context.Context {
	return context.WithValue(ctx, sourceKey{}, source)
}

// A gate admits jobs as long as the sum of their weights stays within a budget.
// The others wait, and take turns by source. A job does not overtake the heavier
// one whose turn it is, so no job starves.
//
// Each operation takes constant time. The memory for the bookkeeping is in
// proportion to the number of waiting jobs, at most queue.
type gate struct {
	budget int64 // bytes
	queue  int64 // maximum number of waiting jobs; none if not positive

	mu      sync.Mutex
	used    int64 // bytes, of the admitted jobs
	waiting int64 // number of waiting jobs

	// Each source that has waiting jobs is in all three of these.
	sources map[string]*source
	turns   list.List    // of *source; the first has the next turn
	ranks   []*list.List // of *source; ranks[n-1] has those with n waiting jobs, the last is not empty
}

// A source has at least one waiting job.
type source struct {
	name string
	jobs list.List     // of *waiter, in order of arrival
	turn *list.Element // in turns
	rank *list.Element // in one of ranks
}

// A waiter is a job in the queue.
type waiter struct {
	weight  int64
	of      *source
	element *list.Element // in of.jobs

	// outcome receives nil when the job is admitted, or ErrBusy when it is refused,
	// with the lock held. Then the job is no longer in the queue.
	outcome chan error
}

// enter waits until the job is admitted, and returns the weight to pass to
// leave. It returns ErrBusy if the queue is full or the job must make room for
// one of another source, and an error that wraps that of ctx if ctx is done first.
func (g *gate) enter(ctx context.Context, weight int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, ended(err)
	}
	weight = min(weight, g.budget)
	name, _ := ctx.Value(sourceKey{}).(string)

	g.mu.Lock()
	if g.waiting == 0 && weight <= g.budget-g.used {
		g.used += weight
		g.mu.Unlock()
		return weight, nil
	}
	if g.waiting >= g.queue && !g.makeRoom(name) {
		g.mu.Unlock()
		return 0, ErrBusy
	}
	w := g.push(name, weight)
	g.mu.Unlock()

	select {
	case err := <-w.outcome:
		return weight, err
	case <-ctx.Done():
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-w.outcome: // at the same time as ctx was done: the caller has given up
		if err == nil {
			g.used -= weight
		}
	default:
		g.remove(w)
	}
	g.admit()
	return 0, ended(ctx.Err())
}

// leave ends an admitted job.
func (g *gate) leave(weight int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= weight
	g.admit()
}

// admit admits jobs while the one whose turn it is fits. The lock must be held.
func (g *gate) admit() {
	for front := g.turns.Front(); front != nil; front = g.turns.Front() {
		s := front.Value.(*source)
		w := s.jobs.Front().Value.(*waiter)
		if w.weight > g.budget-g.used {
			return
		}
		g.used += w.weight
		g.turns.MoveToBack(front)
		g.remove(w)
		w.outcome <- nil
	}
}

// makeRoom refuses the newest waiting job of the source that has the most, so that
// a job of the source with this name can wait. It returns false if that would
// leave the other source with fewer. The lock must be held.
func (g *gate) makeRoom(name string) bool {
	most, has := len(g.ranks), 0
	if s := g.sources[name]; s != nil {
		has = s.jobs.Len()
	}
	if most-1 < has+1 {
		return false
	}
	w := g.ranks[most-1].Back().Value.(*source).jobs.Back().Value.(*waiter)
	g.remove(w)
	w.outcome <- ErrBusy
	return true
}

// push adds a job to the queue. A source that has no other job there waits for one
// turn of each of the other sources. The lock must be held.
func (g *gate) push(name string, weight int64) *waiter {
	s := g.sources[name]
	if s == nil {
		s = &source{name: name}
		s.turn = g.turns.PushBack(s)
		if g.sources == nil {
			g.sources = make(map[string]*source)
		}
		g.sources[name] = s
	}
	w := &waiter{weight: weight, of: s, outcome: make(chan error, 1)}
	w.element = s.jobs.PushBack(w)
	g.waiting++
	g.rank(s, s.jobs.Len()-1)
	return w
}

// remove removes a job from the queue. The lock must be held.
func (g *gate) remove(w *waiter) {
	s := w.of
	s.jobs.Remove(w.element)
	g.waiting--
	g.rank(s, s.jobs.Len()+1)
	if s.jobs.Len() == 0 {
		g.turns.Remove(s.turn)
		delete(g.sources, s.name)
	}
}

// rank moves s to its rank after the number of its jobs has changed by one.
func (g *gate) rank(s *source, before int) {
	if before > 0 {
		g.ranks[before-1].Remove(s.rank)
	}
	if n := s.jobs.Len(); n > 0 {
		if n > len(g.ranks) {
			g.ranks = append(g.ranks, new(list.List))
		}
		s.rank = g.ranks[n-1].PushBack(s)
	}
	if last := len(g.ranks) - 1; g.ranks[last].Len() == 0 {
		g.ranks[last] = nil
		g.ranks = g.ranks[:last]
	}
}

// ended returns the error of a job whose context was done before it was admitted.
func ended(err error) error {
	return fmt.Errorf("password: waiting to hash: %w", err)
}
