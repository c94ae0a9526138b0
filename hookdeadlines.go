package auth

import (
	"container/heap"
	"sync"
	"time"
)

// hookDeadlines calls the pending calls of hooks when their deadlines are over. All
// of them share a timer: one for each call would take longer than most hooks do.
//
// In a testing/synctest bubble, each deadline has a timer of its own. A shared one
// would never fire if it belonged to another bubble, and would panic if it was stopped
// or reset outside of its bubble.
type hookDeadlines struct {
	mu      sync.Mutex
	pending deadlineHeap
	fires   time.Time // when the last timer fires that was started, or zero
}

// hookDeadline is a deadline of a pending call.
type hookDeadline struct {
	at    time.Time
	index int         // in the heap, plus 1; 0 means that it is not there
	timer *time.Timer // in a bubble
	call  interface{ expire() }
}

// bubblesEnd is a year later than the time in a bubble, whose clock begins with the
// year 2000, and earlier than any other time.
const bubblesEnd = 2025

// set sets the deadline of d, or replaces it. The deadline of a request may have no
// monotonic time. It would be compared with the wall clock, so a timer could fire too
// early when the clock is set back, and no other one be started.
func (h *hookDeadlines) set(d *hookDeadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Year() < bubblesEnd {
		if d.timer != nil {
			d.timer.Stop()
		}
		d.timer = time.AfterFunc(at.Sub(now), d.call.expire)
		return
	}
	d.at = now.Add(at.Sub(now))
	if d.index == 0 {
		heap.Push(&h.pending, d)
	} else {
		heap.Fix(&h.pending, d.index-1)
	}
	h.startTimer(now)
}

// remove removes d, unless it is over.
func (h *hookDeadlines) remove(d *hookDeadline) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.index != 0 {
		heap.Remove(&h.pending, d.index-1)
	}
}

// startTimer starts a timer for the earliest deadline, unless an earlier one runs.
// Timers are not stopped when their deadlines are removed. It is called with h locked.
func (h *hookDeadlines) startTimer(now time.Time) {
	if len(h.pending) == 0 {
		return
	}
	if first := h.pending[0].at; !h.fires.After(now) || first.Before(h.fires) {
		h.fires = first
		time.AfterFunc(first.Sub(now), h.fire)
	}
}

// fire calls expire of each call whose deadline is over.
func (h *hookDeadlines) fire() {
	h.mu.Lock()
	now := time.Now()
	var over []*hookDeadline
	for len(h.pending) > 0 && !h.pending[0].at.After(now) {
		over = append(over, heap.Pop(&h.pending).(*hookDeadline)) //nolint:forcetypeassert // it has nothing else
	}
	h.startTimer(now)
	h.mu.Unlock()
	for _, d := range over {
		d.call.expire()
	}
}

// deadlineHeap implements [heap.Interface]. The earliest deadline is the first one.
type deadlineHeap []*hookDeadline

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (h *deadlineHeap) Push(x any) {
	d := x.(*hookDeadline) //nolint:forcetypeassert // set pushes nothing else
	*h = append(*h, d)
	d.index = len(*h)
}

// Pop implements heap.Interface.
func (h *deadlineHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	d.index = 0
	return d
}
