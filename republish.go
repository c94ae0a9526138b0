package auth

import (
	"errors"
	"slices"
	"time"
)

// The wait before an unconfirmed revocation is published again. It doubles with
// each error.
const (
	publishRetryFirst = time.Second
	publishRetryMax   = time.Minute
)

// confirm records the result of a call of Store.Revoke for the entries (see
// entry.go) that add returned. An entry stays unconfirmed if it has changed
// since the call began, or if the call published only a part of it. An entry
// that no store can represent is not published again. If a call for several
// entries fails twice, each of them is published in a call of its own, because
// a single entry that no store accepts makes the whole call fail.
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
			e.retryAt = now.Add(min(publishRetryFirst<<(e.fails-1), publishRetryMax)).UnixMilli()
			e.publishAlone = e.publishAlone || len(list) > 1 && e.fails > 1
		}
		if e.unconfirmed && e.calls == 0 && !e.publishing {
			rs.plan(e.entry)
		}
	}
}

// plan adds an entry to those that Run publishes again. It is called with rs
// locked.
func (rs *revocationSet) plan(e *entry) {
	if rs.republishes && !e.queued && !e.removed {
		e.queued = true
		rs.toRepublish = append(rs.toRepublish, e)
	}
}

// planLost plans the entries that the feed has not returned since the last read
// of the whole feed began. It returns the notices that the feed has not returned.
func (rs *revocationSet) planLost() []Revocation {
	rs.planEach(func(e *entry) bool { return e.seenInRead < rs.fullReads })
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

// planGrown plans the entries of this process. It is called when the longest
// lifetime of access tokens has become longer, because the feed must then keep
// these entries for longer.
func (rs *revocationSet) planGrown() {
	rs.planEach(func(e *entry) bool { return e.own })
}

// planEach plans the entries for which matches returns true.
func (rs *revocationSet) planEach(matches func(*entry) bool) {
	rs.each(func(e *entry) {
		if matches(e) {
			rs.plan(e)
		}
	})
}

// each calls f for every entry, with rs locked. It unlocks rs after each chunk,
// so that readers do not wait. It goes through all entries, so it is called only
// in rare cases.
func (rs *revocationSet) each(f func(*entry)) {
	rs.mu.RLock()
	all := slices.Clone(rs.queue)
	rs.mu.RUnlock()
	for chunk := range slices.Chunk(all, applyChunk) {
		rs.mu.Lock()
		for _, item := range chunk {
			f(item.entry)
		}
		rs.mu.Unlock()
	}
}

// planExpiring plans the entries of this process that end within republishLead
// and were not republished.
func (rs *revocationSet) planExpiring(now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before := now.Add(republishLead)
	var visit func(i int)
	visit = func(i int) {
		if i >= len(rs.queue) || rs.queue[i].pruneAt >= before.UnixMilli() {
			return // no entry below it in the heap is earlier
		}
		if e := rs.queue[i].entry; e.own && !e.republished && e.until.Before(before) {
			rs.plan(e)
		}
		visit(2*i + 1)
		visit(2*i + 2)
	}
	visit(0)
}

// Limits of what is published at once.
const (
	publishBatch    = 64  // publications in a batch
	publishSessions = 100 // sessions of a subject, revoked for one reason, in one publication
)

// publication is what Run publishes again for one entry that concerns a whole
// subject, or for several entries that each revoke one session of the subject,
// all for the same reason.
type publication struct {
	revocations []Revocation // each needs its own call to Store.Revoke
	entries     []addedEntry
	repeats     bool // a not-before instant of this process is set again
}

// takeBatch takes a batch of due entries out of toRepublish, and returns
// what to publish for them. If none is due, next is when the first one will be,
// or the zero Time if there are no entries. takeBatch stops when the batch is
// full, so that readers do not wait while it looks at many entries.
func (rs *revocationSet) takeBatch(now time.Time) (batch []publication, next time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	type group struct {
		subject string
		reason  revokeReason
	}
	groups := map[group]int{}
	keep := rs.toRepublish[:0]
	wait := func(e *entry, until time.Time) {
		keep = append(keep, e)
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	visited := 0
	for _, e := range rs.toRepublish {
		if len(batch) == publishBatch {
			break
		}
		visited++
		switch {
		case e.removed:
			e.queued = false
			continue
		case isPaused(now, e.retryAt, publishRetryMax):
			wait(e, fromMillis(e.retryAt))
			continue
		case e.repeats() && !notBefore(now, rs.leeway).After(e.ownNotBefore.repeatAfter):
			wait(e, e.ownNotBefore.repeatAfter.Add(-rs.leeway))
			continue
		}
		e.queued, e.publishing = false, true
		added := addedEntry{entry: e, version: e.version}
		if e.session == "" {
			p := publication{revocations: e.revocations(), entries: []addedEntry{added}}
			if p.repeats = e.repeats(); p.repeats {
				p.revocations = []Revocation{{Subject: e.subject, Before: notBefore(now, rs.leeway), Reason: e.reason.String()}}
			}
			batch = append(batch, p)
			continue
		}
		of := group{e.subject, e.reason}
		if i, ok := groups[of]; ok && !e.publishAlone && len(batch[i].entries) < publishSessions {
			batch[i].entries = append(batch[i].entries, added)
			batch[i].revocations[0].Sessions = append(batch[i].revocations[0].Sessions, e.session)
			continue
		}
		if !e.publishAlone {
			groups[of] = len(batch)
		}
		batch = append(batch, publication{
			revocations: []Revocation{{Subject: e.subject, Sessions: []string{e.session}, Reason: e.reason.String()}}, entries: []addedEntry{added},
		})
	}
	// Put the entries that are not due in front of those that were not visited.
	rest := rs.toRepublish[visited-len(keep):]
	copy(rest, keep)
	clear(rs.toRepublish[:visited-len(keep)])
	rs.toRepublish = rest
	return batch, next
}

// isPaused reports whether now is in a pause that ends at until, in Unix
// milliseconds. If until is further ahead than the longest possible pause, the
// clock was set back, and the pause is over.
func isPaused(now time.Time, until int64, longest time.Duration) bool {
	left := until - now.UnixMilli()
	return 0 < left && left <= longest.Milliseconds()
}

// markRepublished records that Run has published entries again, and whether
// that succeeded.
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

// requeue plans the entries of publications that takeBatch returned and that were
// not published.
func (rs *revocationSet) requeue(batch []publication) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, p := range batch {
		for _, e := range p.entries {
			e.publishing = false
			rs.plan(e.entry)
		}
	}
}
