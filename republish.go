package auth

import (
	"errors"
	"slices"
	"time"
)

// Pauses before a revocation that the store has not confirmed is announced
// again.
const (
	announceRetryFirst = time.Second
	announceRetryLast  = time.Minute
)

// isOpenFor reports whether the store has yet to confirm the entry of a subject
// into which r is merged. It is called with rs locked.
func (rs *revocations) isOpenFor(r Revocation) bool {
	e := rs.subjects[r.Subject].access
	if r.All {
		e = rs.subjects[r.Subject].all
	}
	return e != nil && e.open
}

// confirm notes what the store said of the entries that a call of Revoke was
// about. One that has changed since the call began, and one of which the call
// was only a part, stays unconfirmed. One that no store can represent is not
// tried again; if the call was about several, nobody knows which of them that
// is, so each is announced by itself.
func (rs *revocations) confirm(list []entered, err error, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, e := range list {
		e.calls--
		switch {
		case err == nil || errors.Is(err, ErrNotStorable) && len(list) == 1:
			e.fails, e.retryAt = 0, 0
			if e.revocation.version == e.version && (e.whole || err != nil) {
				e.open, e.again = false, e.again || err != nil
			}
		default:
			e.open, e.fails = true, min(e.fails+1, 16)
			e.retryAt = now.Add(min(announceRetryFirst<<(e.fails-1), announceRetryLast)).UnixMilli()
			e.alone = e.alone || len(list) > 1 && e.fails > 1
		}
		if e.open && e.calls == 0 && !e.announcing {
			rs.plan(e.revocation)
		}
	}
}

// plan puts an entry among those that are to be announced again.
func (rs *revocations) plan(r *revocation) {
	if rs.announces && !r.waiting && !r.removed {
		r.waiting = true
		rs.work = append(rs.work, r)
	}
}

// planLost plans every entry, and returns every notice, that was not heard of
// since the whole feed was last read.
func (rs *revocations) planLost() []Revocation {
	rs.planEach(func(r *revocation) bool { return r.heard < rs.reading })
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	var lost []Revocation
	for ttl, n := range rs.notices {
		if n.heard < rs.reading {
			lost = append(lost, Revocation{AccessTTL: ttl, Until: n.until})
		}
	}
	return lost
}

// planGrown plans this process's entries, which have to be known for longer if
// a longer lifetime of access tokens was heard of.
func (rs *revocations) planGrown() {
	rs.planEach(func(r *revocation) bool { return r.mine })
}

// planEach plans the entries for which due is true. It is rare.
func (rs *revocations) planEach(due func(*revocation) bool) {
	rs.mu.RLock()
	all := slices.Clone(rs.queue)
	rs.mu.RUnlock()
	for piece := range slices.Chunk(all, applyPiece) {
		rs.mu.Lock()
		for _, q := range piece {
			if due(q.revocation) {
				rs.plan(q.revocation)
			}
		}
		rs.mu.Unlock()
	}
}

// planLeaving plans this process's entries that leave soon and were not
// announced a second time.
func (rs *revocations) planLeaving(now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before := now.Add(announceLead)
	var look func(i int)
	look = func(i int) {
		if i >= len(rs.queue) || rs.queue[i].until >= before.UnixMilli() {
			return // nothing below it leaves earlier
		}
		if r := rs.queue[i].revocation; r.mine && !r.again && r.until.Before(before) {
			rs.plan(r)
		}
		look(2*i + 1)
		look(2*i + 2)
	}
	look(0)
}

// Bounds of what is announced at once.
const (
	announceBatch    = 64  // calls
	announceSessions = 100 // of a subject, in one call
)

// announcement is what is to be announced of one entry, or of several sessions
// of a subject.
type announcement struct {
	revocations []Revocation
	entries     []entered
	repeats     bool // a not-before instant, in a later second
}

// take removes some of the entries that are to be announced again from those
// that wait, and returns them. If there are none, next is when the first of
// those that wait is due, or the zero Time. It stops when the batch is full, so
// that readers do not wait while it looks at many entries.
func (rs *revocations) take(now time.Time) (batch []announcement, next time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	bySubject := map[string]int{}
	keep := rs.work[:0]
	wait := func(r *revocation, until time.Time) {
		keep = append(keep, r)
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	looked := 0
	for _, r := range rs.work {
		if len(batch) == announceBatch {
			break
		}
		looked++
		switch {
		case r.removed:
			r.waiting = false
			continue
		case isPaused(now, r.retryAt, announceRetryLast):
			wait(r, fromMillis(r.retryAt))
			continue
		case r.repeats() && !notBefore(now, rs.leeway).After(r.own.repeat):
			wait(r, r.own.repeat.Add(-rs.leeway))
			continue
		}
		r.waiting, r.announcing = false, true
		mine := entered{revocation: r, version: r.version}
		if r.session == "" {
			a := announcement{revocations: r.announced(), entries: []entered{mine}}
			if a.repeats = r.repeats(); a.repeats {
				a.revocations = []Revocation{{Subject: r.subject, Cut: notBefore(now, rs.leeway)}}
			}
			batch = append(batch, a)
			continue
		}
		if i, ok := bySubject[r.subject]; ok && !r.alone && len(batch[i].entries) < announceSessions {
			batch[i].entries = append(batch[i].entries, mine)
			batch[i].revocations[0].Sessions = append(batch[i].revocations[0].Sessions, r.session)
			continue
		}
		if !r.alone {
			bySubject[r.subject] = len(batch)
		}
		batch = append(batch, announcement{
			revocations: []Revocation{{Subject: r.subject, Sessions: []string{r.session}}}, entries: []entered{mine},
		})
	}
	// What was kept goes in front of what was not looked at.
	rest := rs.work[looked-len(keep):]
	copy(rest, keep)
	clear(rs.work[:looked-len(keep)])
	rs.work = rest
	return batch, next
}

// isPaused reports whether a pause of at most longest lasts until a time in
// Unix milliseconds. If the time is further ahead, the clock was set back, and
// the pause is over.
func isPaused(now time.Time, until int64, longest time.Duration) bool {
	left := until - now.UnixMilli()
	return 0 < left && left <= longest.Milliseconds()
}

// done notes whether entries were announced again as a whole.
func (rs *revocations) done(list []entered, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, e := range list {
		e.announcing = false
		if ok && e.revocation.version == e.version {
			e.again, e.open = true, false
		}
		if e.open && e.calls == 0 {
			rs.plan(e.revocation)
		}
	}
}

// putBack plans entries again that take returned.
func (rs *revocations) putBack(batch []announcement) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range batch {
		for _, e := range a.entries {
			e.announcing = false
			rs.plan(e.revocation)
		}
	}
}
