package auth

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// revocationSet is what this process knows of ended sessions and of not-before
// instants. Each entry is kept until its Until has passed; with none, a look
// costs one atomic load. A subject has at most one entry that ends all of its
// sessions and one that ends its access tokens, besides those of single
// sessions, so that no user can make a look expensive.
type revocationSet struct {
	size         atomic.Int64 // entries
	seq          atomic.Uint64
	republishes  bool          // entries of this process are announced twice
	process      string        // random, begins the ID of each announcement
	published    atomic.Uint64 // of announcements
	leeway       time.Duration
	accessTTL    time.Duration // the AccessTTL of this process
	noticedUntil atomic.Int64  // until when notices cover it, Unix milliseconds

	mu          sync.RWMutex
	fullReads   uint64 // how often the whole feed was read
	sessions    map[sessionKey]*entry
	subjects    map[string]subjectEntries
	queue       entryHeap
	toRepublish []*entry // to be announced again
	watchers    map[string]map[string]map[*watcher]struct{}
	unreadable  map[string]bool // the IDs of entries that could not be read

	// Lifetimes of access tokens that processes have announced, and until when
	// tokens with such a lifetime may live. growth counts how often the longest
	// of them, and of this process's own, has become longer.
	notices    map[time.Duration]notice
	ttlGrowths uint32
}

type sessionKey struct{ subject, id string }

type subjectEntries struct {
	all    *entry // ends sessions
	access *entry // ends access tokens
}

// find returns why what t describes is refused, and the entry that says so.
func (rs *revocationSet) find(t subjectTimes, now time.Time) (*entry, error) {
	if rs.size.Load() == 0 {
		return nil, nil
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.findLocked(t, func(r *entry) bool { return r.live(now) })
}

// findLocked looks among the entries that counts accepts. The end of a session says
// more than that of an access token. It is called with rs locked.
func (rs *revocationSet) findLocked(t subjectTimes, counts func(*entry) bool) (*entry, error) {
	if r := rs.sessions[sessionKey{t.subject, t.sid}]; r != nil && counts(r) {
		return r, ErrSessionRevoked
	}
	entries := rs.subjects[t.subject]
	for _, r := range [...]*entry{entries.all, entries.access} {
		if r == nil || !counts(r) {
			continue
		}
		if err := r.matches(t); err != nil {
			return r, err
		}
	}
	return nil, nil
}

// snapshot is the clock, and the revocations that were known when it was read.
type snapshot struct {
	now time.Time
	seq uint64
}

// earliestIssue returns the earliest time at which something of the subject may begin
// that was read by rd: the latest not-before instant that was known then. One
// that became known later is left out, so that nothing that was looked up
// before it outlives it.
func (rs *revocationSet) earliestIssue(subject string, rd snapshot) time.Time {
	at := rd.now
	if rs.size.Load() == 0 {
		return at
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	entries := rs.subjects[subject]
	for _, r := range [...]*entry{entries.all, entries.access} {
		if r != nil && r.seq <= rd.seq && r.live(rd.now) && r.before.After(at) {
			at = r.before
		}
	}
	return at
}

// nextID returns the ID of the next announcement.
func (rs *revocationSet) nextID() string {
	return rs.process + "." + strconv.FormatUint(rs.published.Add(1), 36)
}

// isOwn reports whether an announcement with that ID is this process's.
func (rs *revocationSet) isOwn(id string) bool {
	process, _, _ := strings.Cut(id, ".")
	return process == rs.process
}

// addedEntry is an entry as it was when a call of the store began.
type addedEntry struct {
	*entry
	version uint32
	whole   bool // the call announces all of it that the store has not confirmed
}

// add enters a revocation that this process is about to announce, for the
// first time or again, and returns the entries for [revocations.confirm]. What
// the store has yet to confirm for the first time is open until it has.
func (rs *revocationSet) add(r Revocation, from origin, now time.Time) []addedEntry {
	rs.prune(now)
	var list []addedEntry
	rs.update(func() []*watcher {
		open := rs.isUnconfirmedFor(r)
		touched, ended := rs.addLocked(r, from, now)
		for _, e := range touched {
			e.calls++
			whole := e.session != "" || !open || e.before.Equal(r.Before) && len(e.spared) == len(r.Except)
			list = append(list, addedEntry{e, e.version, whole && !from.republish})
		}
		return ended
	})
	return list
}

// applyChunk is how many entries are applied at once, so that requests do not
// wait for long.
const applyChunk = 256

// apply applies what the feed returned, as a part of the whole or since the last
// time. It returns those that could not be read and were not met before.
func (rs *revocationSet) apply(list []Revocation, whole bool, now time.Time) (unreadable []Revocation) {
	rs.prune(now)
	if whole {
		rs.mu.Lock()
		rs.fullReads++
		rs.mu.Unlock()
	}
	for piece := range slices.Chunk(list, applyChunk) {
		rs.update(func() (ended []*watcher) {
			for _, r := range piece {
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

// maxUnreadable bounds the IDs of entries that could not be read.
const maxUnreadable = 1 << 16

func (rs *revocationSet) markUnreadable(id string) {
	if rs.unreadable == nil || len(rs.unreadable) >= maxUnreadable {
		rs.unreadable = map[string]bool{}
	}
	rs.unreadable[id] = true
}

// update calls f with rs locked, and ends the contexts that it returns when rs
// is free again.
func (rs *revocationSet) update(f func() []*watcher) {
	rs.mu.Lock()
	ended := f()
	rs.mu.Unlock()
	for _, w := range ended {
		w.cancel(w.cause)
	}
}

// origin says where a revocation that is entered comes from.
type origin struct {
	own        bool   // this process announces it for the first time
	repetition bool   // of a not-before instant of this process
	republish  bool   // it was entered already, and may be a part of an entry
	seenInRead uint64 // the feed has it, at this reading
	id         string // of the announcement in the feed
}

// addLocked adds a revocation. It returns the entries that it touched, and the
// watchers that it ends. It is called with rs locked.
func (rs *revocationSet) addLocked(r Revocation, from origin, now time.Time) (touched []*entry, ended []*watcher) {
	if r.Until.Before(now) {
		return nil, nil
	}
	for _, id := range r.Sessions {
		key := sessionKey{r.Subject, id}
		e := rs.sessions[key]
		if e == nil {
			e = &entry{subject: r.Subject, session: id}
			rs.insert(e, r.Until, from)
			if rs.sessions == nil {
				rs.sessions = map[sessionKey]*entry{}
			}
			rs.sessions[key] = e
		} else {
			e.merge(r.Until, from, false)
		}
		touched = append(touched, e)
		for w := range rs.watchers[r.Subject][id] {
			ended = rs.endWatcher(ended, w, ErrSessionRevoked)
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

// addSubjectLocked merges an entry of a subject into the one that is there.
func (rs *revocationSet) addSubjectLocked(r Revocation, from origin) *entry {
	entries := rs.subjects[r.Subject]
	place := &entries.access
	if r.All {
		place = &entries.all
	}
	next := entry{subject: r.Subject, all: r.All, before: r.Before}
	if r.All && len(r.Except) > 0 {
		next.spared = make(map[string]time.Time, len(r.Except))
		for _, id := range r.Except {
			next.spared[id] = time.Time{}
		}
	}
	e := *place
	if e == nil {
		e = &next
		*place = e
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
		// The feed has the entry as it is only if what it told is all of it.
		if !next.before.Equal(before) || !maps.Equal(next.spared, spared) {
			from.seenInRead = 0
		}
		e.merge(r.Until, from, grown)
	}
	rs.noteNotBefore(e, r.Before, from)
	return e
}

// noteNotBefore notes whether this process has to repeat the not-before instant that
// it set for the access tokens of a subject. Another process that had not heard
// of it may have set one that is not earlier, and raised its tokens to that; so
// this one spares them. One that is later than clocks and Leeways can explain
// was set afterward, and is no reason. A repetition is never repeated.
func (rs *revocationSet) noteNotBefore(e *entry, cut time.Time, from origin) {
	if from.own && !e.all {
		e.ownNotBefore = &ownNotBefore{at: cut}
		if from.repetition {
			e.ownNotBefore = nil
		}
		return
	}
	access := rs.subjects[e.subject].access
	if access == nil || access.ownNotBefore == nil || from.id == "" || rs.isOwn(from.id) {
		return
	}
	if after := cut.Sub(access.ownNotBefore.at); after < 0 || after > 2*maxLeeway+time.Second {
		return
	}
	access.ownNotBefore.repeatAfter = later(access.ownNotBefore.repeatAfter, cut)
	rs.plan(access)
}

// isUnconfirmed reports whether the store has yet to confirm an entry.
func (rs *revocationSet) isUnconfirmed(r *entry) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return r.unconfirmed
}

// confirmed reports whether the store has taken r.
func (rs *revocationSet) confirmed(r *entry) bool { return !rs.isUnconfirmed(r) }

// mayRecheck reports whether the store is to be asked about a session that an entry
// refused. If the entry is of this session, it is asked once a minute, counted
// from its answer. If it is of all sessions, it is asked each time: another
// process that had not heard of the entry may have created the session since,
// and what was asked about another session says nothing of this one.
func (rs *revocationSet) mayRecheck(r *entry, now time.Time) bool {
	if r.session == "" {
		return true
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	age := now.UnixMilli() - r.recheckedAt
	return age < 0 || age >= time.Minute.Milliseconds()
}

// markRechecked notes that the store has answered about an entry.
func (rs *revocationSet) markRechecked(r *entry, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.recheckedAt = now.UnixMilli()
}
