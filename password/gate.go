package password

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// A gate lets jobs in, first come, first served, as long as their weights together
// stay within a budget. A heavy job at the head of the queue holds back the light
// ones behind it, so it does not starve.
type gate struct {
	budget int64 // bytes
	queue  int64 // how many may wait; none if it is not positive

	mu      sync.Mutex
	used    int64     // bytes, of the jobs inside
	waiting list.List // of *waiter
}

// A waiter is a job in the queue.
type waiter struct {
	weight int64
	inside chan struct{} // closed, under the lock, when the job is let in
}

// enter returns when the job may run, with the weight to give back to leave. It
// returns ErrBusy if the queue is full, and the error of ctx if that ends first.
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
	w := &waiter{weight: weight, inside: make(chan struct{})}
	place := g.waiting.PushBack(w)
	g.mu.Unlock()

	select {
	case <-w.inside:
		return weight, nil
	case <-ctx.Done():
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.inside: // both at once: nobody waits for the result any more
		g.used -= weight
	default:
		g.waiting.Remove(place)
	}
	g.admit()
	return 0, ended(ctx.Err())
}

// leave ends a job.
func (g *gate) leave(weight int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= weight
	g.admit()
}

// admit lets in whoever is next and fits. The lock is held.
func (g *gate) admit() {
	for front := g.waiting.Front(); front != nil; front = g.waiting.Front() {
		w := front.Value.(*waiter)
		if w.weight > g.budget-g.used {
			return
		}
		g.used += w.weight
		g.waiting.Remove(front)
		close(w.inside)
	}
}

// ended returns the error for a context that ended before its job began.
func ended(err error) error {
	return fmt.Errorf("password: ended before its turn: %w", err)
}
