package auth

import (
	"container/heap"
	"time"
)

// heapItem is an entry with the Until under which it was queued, in Unix
// milliseconds.
type heapItem struct {
	*entry
	until int64
}

// entryHeap has the entry that leaves next at its root.
type entryHeap []heapItem

func (h entryHeap) Len() int { return len(h) }

func (h entryHeap) Less(i, j int) bool { return h[i].until < h[j].until }

func (h entryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *entryHeap) Push(x any) { *h = append(*h, x.(heapItem)) }

func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = heapItem{}
	*h = old[:len(old)-1]
	return last
}

// Bounds of what one call of prune does.
const (
	pruneChunks = 64
	pruneChunk  = 256
)

// prune lets entries go whose time is over: all of them, or as many as can go
// without a call taking long. It gives way to readers between pieces.
func (rs *revocationSet) prune(now time.Time) {
	for range pruneChunks {
		rs.mu.Lock()
		more := rs.pruneLocked(now)
		rs.mu.Unlock()
		if !more {
			return
		}
	}
}

func (rs *revocationSet) pruneLocked(now time.Time) (more bool) {
	for range pruneChunk {
		if len(rs.queue) == 0 || rs.queue[0].until >= now.UnixMilli() {
			return false
		}
		r := rs.queue[0].entry
		// What only this process may know stays until it was announced once more.
		waits := rs.republishes && r.mine && !r.republished && now.Before(r.until.Add(republishLast))
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

func (rs *revocationSet) remove(r *entry) {
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

func (rs *revocationSet) insert(r *entry, until time.Time, from origin) {
	r.until, r.seenInRead, r.mine, r.unconfirmed = until, from.seenInRead, from.own, from.own
	r.seq = rs.seq.Add(1)
	heap.Push(&rs.queue, heapItem{r, until.UnixMilli()})
	rs.size.Add(1)
}
