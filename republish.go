package auth

import (
	"errors"
	"slices"
	"time"
)

// Pauses before a revocation that the store has not confirmed is announced
// again.
const (
	publishRetryFirst = time.Second
	publishRetryLast  = time.Minute
)

// isUnconfirmedFor reports whether the store has yet to confirm the entry of a subject
// into which r is merged. It is called with rs locked.
func (rs *revocationSet) isUnconfirmedFor(r Revocation) bool {
	e := rs.subjects[r.Subject].access
	if r.All {
		e = rs.subjects[r.Subject].all
	}
	return e != nil && e.unconfirmed
}

// confirm notes what the store said of the entries that a call of Revoke was
// about. One that has changed since the call began, and one of which the call
// was only a part, stays unconfirmed. One that no store can represent is not
// tried again; if the call was about several, nobody knows which of them that
// is, so each is announced by itself.
func (rs *revocationSet) confirm(list []addedEntry, err error, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, e := range list {
		e.calls--
		switch {
		case err == nil || errors.Is(err, ErrNotStorable) && len(list) == 1:
			e.fails, e.retryAt = 0, 0
			if e.entry.version == e.version && (e.whole || err != nil) {
				e.unconfirmed, e.republished = false, e.republished || err != nil
			}
		default:
			e.unconfirmed, e.fails = true, min(e.fails+1, 16)
			e.retryAt = now.Add(min(publishRetryFirst<<(e.fails-1), publishRetryLast)).UnixMilli()
			e.publishAlone = e.publishAlone || len(list) > 1 && e.fails > 1
		}
		if e.unconfirmed && e.calls == 0 && !e.publishing {
			rs.plan(e.entry)
		}
	}
}

// plan puts an entry among those that are to be announced again.
func (rs *revocationSet) plan(r *entry) {
	if rs.republishes && !r.queued && !r.removed {
		r.queued = true
		rs.toRepublish = append(rs.toRepublish, r)
	}
}

// planLost plans every entry, and returns every notice, that was not heard of
// since the whole feed was last read.
func (rs *revocationSet) planLost() []Revocation {
	rs.planEach(func(r *entry) bool { return r.seenInRead < rs.fullReads })
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	var lost []Revocation
	for ttl, n := range rs.notices {
		if n.seenInRead < rs.fullReads {
			lost = append(lost, Revocation{AccessTTL: ttl, Until: n.until})
		}
	}
	return lost
}

// planGrown plans this process's entries, which have to be known for longer if
// a longer lifetime of access tokens was heard of.
func (rs *revocationSet) planGrown() {
	rs.planEach(func(r *entry) bool { return r.mine })
}

// planEach plans the entries for which due is true. It is rare.
func (rs *revocationSet) planEach(due func(*entry) bool) {
	rs.mu.RLock()
	all := slices.Clone(rs.queue)
	rs.mu.RUnlock()
	for piece := range slices.Chunk(all, applyChunk) {
		rs.mu.Lock()
		for _, q := range piece {
			if due(q.entry) {
				rs.plan(q.entry)
			}
		}
		rs.mu.Unlock()
	}
}

// planLeaving plans this process's entries that leave soon and were not
// announced a second time.
func (rs *revocationSet) planLeaving(now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before := now.Add(republishLead)
	var look func(i int)
	look = func(i int) {
		if i >= len(rs.queue) || rs.queue[i].until >= before.UnixMilli() {
			return // nothing below it leaves earlier
		}
		if r := rs.queue[i].entry; r.mine && !r.republished && r.until.Before(before) {
			rs.plan(r)
		}
		look(2*i + 1)
		look(2*i + 2)
	}
	look(0)
}

// Bounds of what is announced at once.
const (
	publishBatch    = 64  // calls
	publishSessions = 100 // of a subject, in one call
)

// publication is what is to be announced of one entry, or of several sessions
// of a subject.
type publication struct {
	revocations []Revocation
	entries     []addedEntry
	repeats     bool // a not-before instant, in a later second
}

// takeDue removes some of the entries that are to be announced again from those
// that wait, and returns them. If there are none, next is when the first of
// those that wait is due, or the zero Time. It stops when the batch is full, so
// that readers do not wait while it looks at many entries.
func (rs *revocationSet) takeDue(now time.Time) (batch []publication, next time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	bySubject := map[string]int{}
	keep := rs.toRepublish[:0]
	wait := func(r *entry, until time.Time) {
		keep = append(keep, r)
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	looked := 0
	for _, r := range rs.toRepublish {
		if len(batch) == publishBatch {
			break
		}
		looked++
		switch {
		case r.removed:
			r.queued = false
			continue
		case isPaused(now, r.retryAt, publishRetryLast):
			wait(r, fromMillis(r.retryAt))
			continue
		case r.repeats() && !notBefore(now, rs.leeway).After(r.ownNotBefore.repeatAfter):
			wait(r, r.ownNotBefore.repeatAfter.Add(-rs.leeway))
			continue
		}
		r.queued, r.publishing = false, true
		mine := addedEntry{entry: r, version: r.version}
		if r.session == "" {
			a := publication{revocations: r.revocations(), entries: []addedEntry{mine}}
			if a.repeats = r.repeats(); a.repeats {
				a.revocations = []Revocation{{Subject: r.subject, Before: notBefore(now, rs.leeway)}}
			}
			batch = append(batch, a)
			continue
		}
		if i, ok := bySubject[r.subject]; ok && !r.publishAlone && len(batch[i].entries) < publishSessions {
			batch[i].entries = append(batch[i].entries, mine)
			batch[i].revocations[0].Sessions = append(batch[i].revocations[0].Sessions, r.session)
			continue
		}
		if !r.publishAlone {
			bySubject[r.subject] = len(batch)
		}
		batch = append(batch, publication{
			revocations: []Revocation{{Subject: r.subject, Sessions: []string{r.session}}}, entries: []addedEntry{mine},
		})
	}
	// What was kept goes in front of what was not looked at.
	rest := rs.toRepublish[looked-len(keep):]
	copy(rest, keep)
	clear(rs.toRepublish[:looked-len(keep)])
	rs.toRepublish = rest
	return batch, next
}

// isPaused reports whether a pause of at most longest lasts until a time in
// Unix milliseconds. If the time is further ahead, the clock was set back, and
// the pause is over.
func isPaused(now time.Time, until int64, longest time.Duration) bool {
	left := until - now.UnixMilli()
	return 0 < left && left <= longest.Milliseconds()
}

// markRepublished notes whether entries were announced again as a whole.
func (rs *revocationSet) markRepublished(list []addedEntry, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, e := range list {
		e.publishing = false
		if ok && e.entry.version == e.version {
			e.republished, e.unconfirmed = true, false
		}
		if e.unconfirmed && e.calls == 0 {
			rs.plan(e.entry)
		}
	}
}

// putBack plans entries again that take returned.
func (rs *revocationSet) putBack(batch []publication) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range batch {
		for _, e := range a.entries {
			e.publishing = false
			rs.plan(e.entry)
		}
	}
}
