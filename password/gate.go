package password

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// A gate admits jobs in order of arrival, as long as the sum of their weights
// stays within a budget. Light jobs do not overtake a heavy job at the head of
// the queue, so it does not starve.
type gate struct {
	budget int64 // bytes
	queue  int64 // maximum number of waiting jobs; none if not positive

	mu      sync.Mutex
	used    int64     // bytes, of the admitted jobs
	waiting list.List // of *waiter
}

// A waiter is a job in the queue.
type waiter struct {
	weight   int64
	admitted chan struct{} // closed, with the lock held, when the job is admitted
}

// enter waits until the job is admitted, and returns the weight to pass to
// leave. It returns ErrBusy if the queue is full, and an error that wraps that
// of ctx if ctx is done first.
func (g *gate) enter(ctx context.Context, weight int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, ended(err)
	}
	weight = min(weight, g.budget)

	g.mu.Lock()
	if g.waiting.Len() == 0 && weight <= g.budget-g.used {
		g.used += weight
		g.mu.Unlock()
		return weight, nil
	}
	if int64(g.waiting.Len()) >= g.queue {
		g.mu.Unlock()
		return 0, ErrBusy
	}
	w := &waiter{weight: weight, admitted: make(chan struct{})}
	element := g.waiting.PushBack(w)
	g.mu.Unlock()

	select {
	case <-w.admitted:
		return weight, nil
	case <-ctx.Done():
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.admitted: // admitted and done at the same time: the caller has given up
		g.used -= weight
	default:
		g.waiting.Remove(element)
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

// admit admits jobs from the head of the queue while they fit. The lock must be
// held.
func (g *gate) admit() {
	for front := g.waiting.Front(); front != nil; front = g.waiting.Front() {
		w := front.Value.(*waiter)
		if w.weight > g.budget-g.used {
			return
		}
		g.used += w.weight
		g.waiting.Remove(front)
		close(w.admitted)
	}
}

// ended returns the error of a job whose context was done before it was admitted.
func ended(err error) error {
	return fmt.Errorf("password: waiting to hash: %w", err)
}
