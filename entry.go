package auth

import (
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// entry is an entry of a revocationSet. It revokes one session, all sessions of
// a subject except some, or the access tokens of a subject that were issued
// before an instant. The revocations of all sessions of a subject are merged
// into one entry, and those of its access tokens into another.
type entry struct {
	subject string
	session string    // the session that it revokes; empty if the entry applies to the whole subject
	all     bool      // whether an entry of a subject revokes sessions, not access tokens
	before  time.Time // the not-before instant of an entry of a subject

	// spared maps IDs of sessions to their own not-before instants, which are
	// earlier than e.before. The zero Time means that the session is not
	// revoked.
	spared map[string]time.Time

	until        time.Time     // when the entry ends
	seq          uint64        // the value of revocationSet.seq when e.before was last changed
	seenInRead   uint64        // the value of fullReads when the feed last returned the whole entry; 0 if never
	recheckedAt  int64         // when the store was last asked about the session, in Unix milliseconds
	retryAt      int64         // the entry is not republished before this, in Unix milliseconds
	version      uint32        // counts the changes of before and spared
	ownNotBefore *ownNotBefore // set by this process for access tokens; nil if none, or if it was set again
	calls        int32         // calls to Store.Revoke in progress
	fails        uint8         // calls of Store.Revoke that failed in a row, at most 16
	reason       revokeReason  // see addReason
	own          bool          // it contains a revocation of this process
	republished  bool          // it was republished, or no store can represent it
	unconfirmed  bool          // the store has not confirmed it
	publishAlone bool          // it is published in a call of its own, since a call for several failed
	queued       bool          // it is in revocationSet.toRepublish
	publishing   bool          // Run is publishing it
	removed      bool          // it is no longer in the set
}

// ownNotBefore is a not-before instant for access tokens that this process set.
type ownNotBefore struct {
	at          time.Time
	repeatAfter time.Time // if not zero, the instant must be set again, later than this
}

// live reports whether the entry still applies. It applies until its end, and
// beyond that for as long as the store has not confirmed it. Otherwise a session
// whose revocation failed would become valid again.
func (e *entry) live(now time.Time) bool {
	return e.unconfirmed || !e.until.Before(now)
}

// beforeFor returns the not-before instant that applies to a session.
func (e *entry) beforeFor(session string) time.Time {
	if at, ok := e.spared[session]; ok {
		return at
	}
	return e.before
}

// merge updates the state of an entry to which a revocation was added. grown
// reports whether the fields before or spared have changed.
func (e *entry) merge(until time.Time, from origin, grown bool) {
	if grown {
		e.version++
		e.republished = false
	}
	if !until.Before(e.until) {
		e.until = until
		e.seenInRead = max(e.seenInRead, from.seenInRead)
	}
	if from.own {
		e.own = true
		e.unconfirmed = e.unconfirmed || grown
	}
}

// addReason adds the reason of a revocation that was merged into an entry.
//
// Every revocation in an entry of a session names that session, so the greatest
// reason applies. An entry of a subject does not record which of its revocations
// ended which session, so it has a reason only if all of them have the same.
func (e *entry) addReason(reason revokeReason) {
	switch {
	case e.session != "":
		e.reason = max(e.reason, reason)
	case e.reason != reason:
		e.reason = reasonUnknown
	}
}

// mergeSpared returns the spared sessions of an entry that combines two entries
// of a subject. For each session, the later of the instants of a and b applies.
func mergeSpared(a, b *entry) map[string]time.Time {
	before := later(a.before, b.before)
	var spared map[string]time.Time
	for _, e := range [...]*entry{a, b} {
		for id := range e.spared {
			at := later(a.beforeFor(id), b.beforeFor(id))
			if !at.Before(before) {
				continue
			}
			if spared == nil {
				spared = map[string]time.Time{}
			}
			spared[id] = at
		}
	}
	return spared
}

// errIssuedBefore is the error for an access token that was issued before the
// not-before instant of its subject. It is an ErrTokenExpired, because the
// client can refresh.
var errIssuedBefore = fmt.Errorf("%w: issued before the access tokens of its subject were revoked", ErrTokenExpired)

// subjectTimes is what revocations are compared with: a session and its times.
type subjectTimes struct {
	subject, sid string
	actor        string    // the user who acts in the session, or ""; the entries of this subject revoke it too
	created      time.Time // when the session was created
	issued       time.Time // when the access token was issued; the zero Time if there is none
}

// session returns what events say about the session of c.
func (c *Claims) session() Session {
	return Session{Subject: c.Subject, ID: c.SessionID, Opaque: joinData(c.Actor, "", nil)}
}

// times returns what revocations are compared with.
func (s Session) times() subjectTimes {
	return subjectTimes{subject: s.Subject, sid: s.ID, actor: s.Actor(), created: s.CreatedAt}
}

// times returns what revocations are compared with. An access token counts as
// issued at its iat or, if it has one, at its eff_iat: the latest not-before
// instant or login time that applied when it was issued.
func (c *Claims) times() subjectTimes {
	created := c.AuthTime
	if c.created != 0 {
		created = time.Unix(c.created, 0).UTC()
	}
	return subjectTimes{c.Subject, c.SessionID, c.Actor, created, later(c.IssuedAt, time.Unix(c.countsFrom, 0).UTC())}
}

// matches returns the error with which an entry of the subject or the actor of t
// refuses t, or nil.
func (e *entry) matches(t subjectTimes) error {
	switch {
	case e == nil:
	case e.all:
		if t.created.Before(e.beforeFor(t.sid)) {
			return sessionRevoked(e.reason)
		}
	case !t.issued.IsZero() && t.issued.Before(e.before):
		return accessRevoked(e.reason)
	}
	return nil
}

// repeats reports whether this process must set its not-before instant again.
func (e *entry) repeats() bool { return e.ownNotBefore != nil && !e.ownNotBefore.repeatAfter.IsZero() }

// revocations returns the revocations that together have the effect of an entry
// of a subject.
func (e *entry) revocations() []Revocation {
	if !e.all {
		return []Revocation{{Subject: e.subject, Before: e.before, Reason: e.reason.String()}}
	}
	instants := []time.Time{e.before}
	for _, at := range e.spared {
		if !at.IsZero() && !slices.ContainsFunc(instants, at.Equal) {
			instants = append(instants, at)
		}
	}
	var rs []Revocation
	for _, at := range instants {
		next := Revocation{Subject: e.subject, All: true, Before: at, Reason: e.reason.String()}
		for id := range e.spared {
			if e.spared[id].Before(at) {
				next.Except = append(next.Except, id)
			}
		}
		slices.Sort(next.Except)
		rs = append(rs, next)
	}
	return rs
}

// heapItem is an entry and the time after which prune looks at it, in Unix
// milliseconds.
type heapItem struct {
	*entry
	pruneAt int64
}

// entryHeap has at its root the entry that prune looks at next.
type entryHeap []heapItem

func (h entryHeap) Len() int { return len(h) }

func (h entryHeap) Less(i, j int) bool { return h[i].pruneAt < h[j].pruneAt }

func (h entryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *entryHeap) Push(x any) { *h = append(*h, x.(heapItem)) }

func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = heapItem{}
	*h = old[:len(old)-1]
	return last
}

// Limits of one call of prune.
const (
	pruneChunks = 64
	pruneChunk  = 256 // entries that are handled while rs is locked
)

// prune removes entries that have ended, at most pruneChunks · pruneChunk of
// them so that a call does not take long. It unlocks rs after each chunk, so
// that readers do not wait.
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

// pruneLocked handles one chunk, and reports whether there may be more. It is
// called with rs locked.
func (rs *revocationSet) pruneLocked(now time.Time) (more bool) {
	for range pruneChunk {
		if len(rs.queue) == 0 || rs.queue[0].pruneAt >= now.UnixMilli() {
			return false
		}
		e := rs.queue[0].entry
		// The feed may have lost it, and no other process may know it.
		mustRepublish := rs.republishes && e.own && !e.republished && now.Before(e.until.Add(republishGrace))
		if e.live(now) || mustRepublish {
			if mustRepublish {
				rs.plan(e)
			}
			rs.queue[0].pruneAt = later(e.until, now.Add(time.Minute)).UnixMilli()
			heap.Fix(&rs.queue, 0)
			continue
		}
		heap.Pop(&rs.queue)
		rs.remove(e)
	}
	return true
}

// remove removes an entry that is no longer in the queue. It is called with
// rs locked.
func (rs *revocationSet) remove(e *entry) {
	e.removed = true
	rs.size.Add(-1)
	if e.session != "" {
		delete(rs.sessions, sessionKey{e.subject, e.session})
		return
	}
	entries := rs.subjects[e.subject]
	if e.all {
		entries.all = nil
	} else {
		entries.access = nil
	}
	if entries == (subjectEntries{}) {
		delete(rs.subjects, e.subject)
	} else {
		rs.subjects[e.subject] = entries
	}
}
