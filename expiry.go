package auth

import (
	"container/heap"
	"time"
)

// queued is an entry with the Until under which it was queued, in Unix
// milliseconds.
type queued struct {
	*revocation
	until int64
}

// entryHeap has the entry that leaves next at its root.
type entryHeap []queued

func (h entryHeap) Len() int { return len(h) }

func (h entryHeap) Less(i, j int) bool { return h[i].until < h[j].until }

func (h entryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *entryHeap) Push(x any) { *h = append(*h, x.(queued)) }

func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = queued{}
	*h = old[:len(old)-1]
	return last
}

// Bounds of what one call of prune does.
const (
	prunePieces = 64
	prunePiece  = 256
)

// prune lets entries go whose time is over: all of them, or as many as can go
// without a call taking long. It gives way to readers between pieces.
func (rs *revocations) prune(now time.Time) {
	for range prunePieces {
		rs.mu.Lock()
		more := rs.pruneLocked(now)
		rs.mu.Unlock()
		if !more {
			return
		}
	}
}

func (rs *revocations) pruneLocked(now time.Time) (more bool) {
	for range prunePiece {
		if len(rs.queue) == 0 || rs.queue[0].until >= now.UnixMilli() {
			return false
		}
		r := rs.queue[0].revocation
		// What only this process may know stays until it was announced once more.
		waits := rs.announces && r.mine && !r.again && now.Before(r.until.Add(announceLast))
		if r.live(now) || waits {
			// Its time was extended, or the store has not confirmed it.
			if waits {
				rs.plan(r)
			}
			rs.queue[0].until = later(r.until, now.Add(time.Minute)).UnixMilli()
			heap.Fix(&rs.queue, 0)
			continue
		}
		heap.Pop(&rs.queue)
		rs.remove(r)
	}
	return true
}

func (rs *revocations) remove(r *revocation) {
	r.removed = true
	rs.size.Add(-1)
	if r.session != "" {
		delete(rs.sessions, sessionKey{r.subject, r.session})
		return
	}
	entries := rs.subjects[r.subject]
	if r.all {
		entries.all = nil
	} else {
		entries.access = nil
	}
	if entries == (subjectEntries{}) {
		delete(rs.subjects, r.subject)
	} else {
		rs.subjects[r.subject] = entries
	}
}

func (rs *revocations) insert(r *revocation, until time.Time, from source) {
	r.until, r.heard, r.mine, r.open = until, from.heard, from.own, from.own
	r.seq = rs.seq.Add(1)
	heap.Push(&rs.queue, queued{r, until.UnixMilli()})
	rs.size.Add(1)
}
