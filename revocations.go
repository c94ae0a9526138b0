package auth

import (
	"container/heap"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// revocationSet is the set of revocations that this process knows. A Verifier
// has a set of its own, which Run fills from the feed, or the set of its
// MemoryStore, which all Verifiers on that store have in common. Each entry
// is kept at least until its Until has passed. A lookup in an empty set costs
// one atomic load. Besides the entries of single sessions, a subject has at most
// two: one for its sessions and one for its access tokens. So no user can make
// a lookup slow.
type revocationSet struct {
	size        atomic.Int64  // the number of entries
	seq         atomic.Uint64 // counts new entries and changes of their not-before instants
	republishes bool          // whether entries are published again
	process     string        // random; the prefix of the IDs of the revocations that this process publishes
	idCount     atomic.Uint64 // the number of IDs that nextID has returned
	leeway      time.Duration
	accessTTL   time.Duration // the AccessTTL of this process; 0 if it issues no tokens, or in a MemoryStore

	mu          sync.RWMutex
	fullReads   uint64 // how often a read of the whole feed has begun
	sessions    map[sessionKey]*entry
	subjects    map[string]subjectEntries
	queue       entryHeap
	toRepublish []*entry                                    // entries to publish again
	watchers    map[string]map[string]map[*watcher]struct{} // contexts of SessionContext, by subject or actor, and session ID
	unreadable  map[string]bool                             // the IDs of entries that could not be read

	// notices has the latest notice for each published access token lifetime.
	// ttlGrowths counts how often a notice had a longer lifetime than all earlier
	// notices and than accessTTL.
	notices    map[time.Duration]notice
	ttlGrowths uint32
}

// sessionKey identifies a session.
type sessionKey struct{ subject, id string }

// subjectEntries are the entries that apply to all sessions of a subject. Each
// may be nil.
type subjectEntries struct {
	all    *entry // revokes sessions
	access *entry // revokes access tokens
}

// find returns the entry that revokes t, and the error for it. It returns nil,
// nil if there is none.
func (rs *revocationSet) find(t subjectTimes, now time.Time) (*entry, error) {
	if rs.size.Load() == 0 {
		return nil, nil
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.findLocked(t, func(e *entry) bool { return e.live(now) })
}

// findLocked is like find, but considers only the entries for which applies
// returns true. It returns ErrSessionRevoked if both the session and the access
// token are revoked, with the greatest of the reasons for which the session is
// revoked. It is called with rs locked.
func (rs *revocationSet) findLocked(t subjectTimes, applies func(*entry) bool) (*entry, error) {
	entries := rs.subjects[t.subject]
	if e := rs.sessions[sessionKey{t.subject, t.sid}]; e != nil && applies(e) {
		reason := e.reason
		if all := entries.all; all != nil && applies(all) && all.matches(t) != nil {
			reason = max(reason, all.reason)
		}
		return e, sessionRevoked(reason)
	}
	of := [...]*entry{entries.all, entries.access, nil, nil}
	if t.actor != "" {
		actor := rs.subjects[t.actor]
		of[2], of[3] = actor.all, actor.access
	}
	for _, e := range of {
		if e == nil || !applies(e) {
			continue
		}
		if err := e.matches(t); err != nil {
			return e, err
		}
	}
	return nil, nil
}

// snapshot is a reading of the clock, and the value of revocationSet.seq just
// before it.
type snapshot struct {
	now time.Time
	seq uint64
}

// earliestIssue returns the issue time for a session or an access token whose
// data was read after snap: the time of snap, or the latest not-before instant of
// the subject and the actor that was known then, whichever is later. actor may be
// "". An instant that became known after snap is ignored: the data may be older than
// that revocation, which must then apply to the session or token.
func (rs *revocationSet) earliestIssue(subject, actor string, snap snapshot) time.Time {
	at := snap.now
	if rs.size.Load() == 0 {
		return at
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	entries, acting := rs.subjects[subject], rs.subjects[actor]
	for _, e := range [...]*entry{entries.all, entries.access, acting.all, acting.access} {
		if e != nil && e.seq <= snap.seq && e.live(snap.now) && e.before.After(at) {
			at = e.before
		}
	}
	return at
}

// mergesIntoUnconfirmed reports whether r will be merged into an existing entry
// that is unconfirmed. It is called with rs locked.
func (rs *revocationSet) mergesIntoUnconfirmed(r Revocation) bool {
	e := rs.subjects[r.Subject].access
	if r.All {
		e = rs.subjects[r.Subject].all
	}
	return e != nil && e.unconfirmed
}

// nextID returns a new ID for a revocation that this process publishes.
func (rs *revocationSet) nextID() string {
	return rs.process + "." + strconv.FormatUint(rs.idCount.Add(1), 36)
}

func (rs *revocationSet) isOwn(id string) bool {
	process, _, _ := strings.Cut(id, ".")
	return process == rs.process
}

// addedEntry is an entry and its version when a call of Store.Revoke began.
type addedEntry struct {
	*entry
	version uint32
	whole   bool // the call publishes everything in the entry that the store has not confirmed
}

// add adds a revocation that this process is about to publish, for the first
// time or again. It returns the entries, for [revocationSet.confirm]. If
// from.own is set, each entry that is new or has changed is unconfirmed until
// confirm records a success.
func (rs *revocationSet) add(r Revocation, from origin, now time.Time) []addedEntry {
	rs.prune(now)
	var list []addedEntry
	rs.update(func() []*watcher {
		unconfirmed := rs.mergesIntoUnconfirmed(r)
		touched, ended := rs.addLocked(r, from, now)
		for _, e := range touched {
			e.calls++
			whole := e.session != "" || !unconfirmed || e.before.Equal(r.Before) && len(e.spared) == len(r.Except)
			list = append(list, addedEntry{e, e.version, whole && !from.republish})
		}
		return ended
	})
	return list
}

// applyChunk is how many entries are handled while rs is locked, so that
// requests do not wait for long.
const applyChunk = 256

// apply adds a page of the feed. fromStart reports whether it is the first page
// of the feed. The result is the entries that cannot be read and were not
// returned by an earlier call.
func (rs *revocationSet) apply(list []Revocation, fromStart bool, now time.Time) (unreadable []Revocation) {
	rs.prune(now)
	if fromStart {
		rs.mu.Lock()
		rs.fullReads++
		rs.mu.Unlock()
	}
	for chunk := range slices.Chunk(list, applyChunk) {
		rs.update(func() (ended []*watcher) {
			for _, r := range chunk {
				switch {
				case r.AccessTTL > 0:
					rs.addNotice(r, rs.fullReads, now)
					continue
				case len(r.Sessions) == 0 && !r.All && r.Before.IsZero():
					if rs.unreadable[r.ID] {
						continue
					}
					rs.markUnreadable(r.ID)
					unreadable = append(unreadable, r)
					if r.Subject == "" {
						continue
					}
					// It may revoke any session of the subject. Expire the
					// access tokens, so that their clients refresh.
					r.Before, r.Until = notBefore(now, rs.leeway), now.Add(maxAccessTTL)
				}
				_, more := rs.addLocked(r, origin{seenInRead: rs.fullReads, id: r.ID}, now)
				ended = append(ended, more...)
			}
			return ended
		})
	}
	return unreadable
}

// maxUnreadable bounds the number of IDs in revocationSet.unreadable.
const maxUnreadable = 1 << 16

// markUnreadable records the ID of an entry that could not be read. At the
// limit, it forgets the others.
func (rs *revocationSet) markUnreadable(id string) {
	if rs.unreadable == nil || len(rs.unreadable) >= maxUnreadable {
		rs.unreadable = map[string]bool{}
	}
	rs.unreadable[id] = true
}

// update calls f with rs locked. Then it unlocks rs and cancels the contexts of
// the watchers that f returned.
func (rs *revocationSet) update(f func() []*watcher) {
	rs.mu.Lock()
	ended := f()
	rs.mu.Unlock()
	for _, w := range ended {
		w.cancel(w.cause)
	}
}

// origin says where a revocation that is added comes from. The first three
// fields are for revocations that this process publishes, the other two for
// revocations that the feed returned.
type origin struct {
	own        bool   // it is a new revocation of this process, or a not-before instant that is set again (see noteNotBefore)
	repetition bool   // it sets a not-before instant of this process again; own is true
	republish  bool   // it is published again, and may be only a part of an entry
	seenInRead uint64 // the value of fullReads when the feed returned it
	id         string // its ID in the feed
}

// addLocked adds a revocation. It returns the entries that the revocation is
// part of, and the watchers whose session it ends. It is called with rs locked.
func (rs *revocationSet) addLocked(r Revocation, from origin, now time.Time) (touched []*entry, ended []*watcher) {
	r.Until = later(r.Until, minUntil(r))
	if r.Until.Before(now) {
		return nil, nil
	}
	reason := reasonOf(r.Reason)
	for _, id := range r.Sessions {
		key := sessionKey{r.Subject, id}
		e := rs.sessions[key]
		if e == nil {
			e = &entry{subject: r.Subject, session: id, reason: reason}
			rs.insert(e, r.Until, from)
			if rs.sessions == nil {
				rs.sessions = map[sessionKey]*entry{}
			}
			rs.sessions[key] = e
		} else {
			e.merge(r.Until, from, false)
			e.addReason(reason)
		}
		touched = append(touched, e)
		for w := range rs.watchers[r.Subject][id] {
			if w.subject != r.Subject { // a session in which this subject is the actor
				continue
			}
			ended = rs.endWatcher(ended, w, sessionRevoked(e.reason))
		}
	}
	if r.All || !r.Before.IsZero() && len(r.Sessions) == 0 {
		e := rs.addSubjectLocked(r, from)
		touched = append(touched, e)
		for _, watchers := range rs.watchers[r.Subject] {
			for w := range watchers {
				if err := e.matches(w.subjectTimes); err != nil {
					ended = rs.endWatcher(ended, w, err)
				}
			}
		}
	}
	return touched, ended
}

// minUntil returns the least Until of a revocation: for one of all sessions, 24 hours
// and a minute after its instant. It revokes also what is not in the records of the
// subject, and lives for longer than an access token: sessions in which the subject
// is the actor, and one-time tokens. An earlier version sets an earlier Until.
func minUntil(r Revocation) time.Time {
	if !r.All {
		return r.Until
	}
	return r.Before.Add(maxAccessTTL + noticeMargin)
}

// insert initializes a new entry and puts it into the queue. It is called with
// rs locked.
func (rs *revocationSet) insert(e *entry, until time.Time, from origin) {
	e.until, e.seenInRead, e.own, e.unconfirmed = until, from.seenInRead, from.own, from.own
	e.seq = rs.seq.Add(1)
	heap.Push(&rs.queue, heapItem{e, until.UnixMilli()})
	rs.size.Add(1)
}

// addSubjectLocked adds a revocation of all sessions or of the access tokens of
// a subject. It returns the entry into which it was merged, or a new one. It is
// called with rs locked.
func (rs *revocationSet) addSubjectLocked(r Revocation, from origin) *entry {
	entries := rs.subjects[r.Subject]
	slot := &entries.access
	if r.All {
		slot = &entries.all
	}
	next := entry{subject: r.Subject, all: r.All, before: r.Before, reason: reasonOf(r.Reason)}
	if r.All && len(r.Except) > 0 {
		next.spared = make(map[string]time.Time, len(r.Except))
		for _, id := range r.Except {
			next.spared[id] = time.Time{}
		}
	}
	var known time.Time // the latest instant of the subject before this one
	for _, e := range [...]*entry{entries.all, entries.access} {
		if e != nil {
			known = later(known, e.before)
		}
	}
	e := *slot
	if e == nil {
		e = &next
		*slot = e
		rs.insert(e, r.Until, from)
		if rs.subjects == nil {
			rs.subjects = map[string]subjectEntries{}
		}
		rs.subjects[r.Subject] = entries
	} else {
		before, spared := later(e.before, next.before), mergeSpared(e, &next)
		grown := before.After(e.before) || !maps.Equal(spared, e.spared)
		if before.After(e.before) {
			e.seq = rs.seq.Add(1)
		}
		e.before, e.spared = before, spared
		// The feed has the merged entry only if it returned all of it.
		if !next.before.Equal(before) || !maps.Equal(next.spared, spared) {
			from.seenInRead = 0
		}
		e.merge(r.Until, from, grown)
		e.addReason(next.reason)
	}
	rs.noteNotBefore(e, r.Before, known, from)
	return e
}

// noteNotBefore updates ownNotBefore after a revocation was added to e. It
// records an instant that this process sets for access tokens, and plans to set
// it again if an instant of another process requires that.
//
// Another process that has not read our instant may set the same or a later
// one. Access tokens that it then issues count as issued at its instant, so
// ours does not revoke them. So ours must be set again, in a later second. If
// the other instant is later by more than 2·maxLeeway + 1 s, differences
// between clocks cannot explain it. Then it was set afterward, and nothing
// needs to be set again. An instant that was set again is never set a third
// time.
//
// The instant of another process may also have become known after ExpireAccess
// chose ours and before it was added: known is the latest instant of the subject
// at that time.
func (rs *revocationSet) noteNotBefore(e *entry, before, known time.Time, from origin) {
	if from.own && !e.all {
		e.ownNotBefore = &ownNotBefore{at: before}
		if from.repetition {
			e.ownNotBefore = nil
			return
		}
		rs.repeatAfter(e, known)
		return
	}
	access := rs.subjects[e.subject].access
	if access == nil || access.ownNotBefore == nil || from.id == "" || rs.isOwn(from.id) {
		return
	}
	rs.repeatAfter(access, before)
}

// repeatAfter plans to set the ownNotBefore of an entry again if the instant
// other is not earlier than it.
func (rs *revocationSet) repeatAfter(e *entry, other time.Time) {
	if after := other.Sub(e.ownNotBefore.at); after < 0 || after > maxAhead {
		return
	}
	e.ownNotBefore.repeatAfter = later(e.ownNotBefore.repeatAfter, other)
	rs.plan(e)
}

// reasonFor returns the reason of an entry.
func (rs *revocationSet) reasonFor(e *entry) revokeReason {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return e.reason
}

func (rs *revocationSet) isConfirmed(e *entry) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return !e.unconfirmed
}

// mayRecheck reports whether the store may be asked about a session that an
// entry refuses. For an entry of one session, that is once a minute, counted
// from the last response of the store. For an entry of a whole subject there is
// no limit: another process that had not applied the entry may have created the
// session since, and a response about another session says nothing about it.
func (rs *revocationSet) mayRecheck(e *entry, now time.Time) bool {
	if e.session == "" {
		return true
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return !isPaused(now, e.recheckedAt+time.Minute.Milliseconds(), time.Minute)
}

// markRechecked records that the store was asked about the session of an entry,
// and responded.
func (rs *revocationSet) markRechecked(e *entry, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	e.recheckedAt = now.UnixMilli()
}
