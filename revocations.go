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

// revocations is what this process knows of ended sessions and of not-before
// instants. Each entry is kept until its Until has passed; with none, a look
// costs one atomic load. A subject has at most one entry that ends all of its
// sessions and one that ends its access tokens, besides those of single
// sessions, so that no user can make a look expensive.
type revocations struct {
	size      atomic.Int64 // entries
	seq       atomic.Uint64
	announces bool          // entries of this process are announced twice
	process   string        // random, begins the ID of each announcement
	number    atomic.Uint64 // of announcements
	leeway    time.Duration
	ttl       time.Duration // the AccessTTL of this process
	covered   atomic.Int64  // until when notices cover it, Unix milliseconds

	mu       sync.RWMutex
	reading  uint64 // how often the whole feed was read
	sessions map[sessionKey]*revocation
	subjects map[string]subjectEntries
	queue    entryHeap
	work     []*revocation // to be announced again
	watchers map[string]map[string]map[*watcher]struct{}
	unread   map[string]bool // the IDs of entries that could not be read

	// Lifetimes of access tokens that processes have announced, and until when
	// tokens with such a lifetime may live. growth counts how often the longest
	// of them, and of this process's own, has become longer.
	notices map[time.Duration]notice
	growth  uint32
}

type sessionKey struct{ subject, id string }

type subjectEntries struct {
	all    *revocation // ends sessions
	access *revocation // ends access tokens
}

// check returns why what t describes is refused, and the entry that says so.
func (rs *revocations) check(t subjectTimes, now time.Time) (*revocation, error) {
	if rs.size.Load() == 0 {
		return nil, nil
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.find(t, func(r *revocation) bool { return r.live(now) })
}

// find looks among the entries that counts accepts. The end of a session says
// more than that of an access token. It is called with rs locked.
func (rs *revocations) find(t subjectTimes, counts func(*revocation) bool) (*revocation, error) {
	if r := rs.sessions[sessionKey{t.subject, t.sid}]; r != nil && counts(r) {
		return r, ErrSessionRevoked
	}
	entries := rs.subjects[t.subject]
	for _, r := range [...]*revocation{entries.all, entries.access} {
		if r == nil || !counts(r) {
			continue
		}
		if err := r.hits(t); err != nil {
			return r, err
		}
	}
	return nil, nil
}

// reading is the clock, and the revocations that were known when it was read.
type reading struct {
	now time.Time
	seq uint64
}

// from returns the earliest time at which something of the subject may begin
// that was read by rd: the latest not-before instant that was known then. One
// that became known later is left out, so that nothing that was looked up
// before it outlives it.
func (rs *revocations) from(subject string, rd reading) time.Time {
	at := rd.now
	if rs.size.Load() == 0 {
		return at
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	entries := rs.subjects[subject]
	for _, r := range [...]*revocation{entries.all, entries.access} {
		if r != nil && r.seq <= rd.seq && r.live(rd.now) && r.before.After(at) {
			at = r.before
		}
	}
	return at
}

// nextID returns the ID of the next announcement.
func (rs *revocations) nextID() string {
	return rs.process + "." + strconv.FormatUint(rs.number.Add(1), 36)
}

// isOwn reports whether an announcement with that ID is this process's.
func (rs *revocations) isOwn(id string) bool {
	process, _, _ := strings.Cut(id, ".")
	return process == rs.process
}

// entered is an entry as it was when a call of the store began.
type entered struct {
	*revocation
	version uint32
	whole   bool // the call announces all of it that the store has not confirmed
}

// add enters a revocation that this process is about to announce, for the
// first time or again, and returns the entries for [revocations.confirm]. What
// the store has yet to confirm for the first time is open until it has.
func (rs *revocations) add(r Revocation, from source, now time.Time) []entered {
	rs.prune(now)
	var list []entered
	rs.change(func() []*watcher {
		open := rs.isOpenFor(r)
		touched, ended := rs.enter(r, from, now)
		for _, e := range touched {
			e.calls++
			whole := e.session != "" || !open || e.before.Equal(r.Cut) && len(e.spared) == len(r.Except)
			list = append(list, entered{e, e.version, whole && !from.again})
		}
		return ended
	})
	return list
}

// applyPiece is how many entries are applied at once, so that requests do not
// wait for long.
const applyPiece = 256

// hear applies what the feed returned, as a part of the whole or since the last
// time. It returns those that could not be read and were not met before.
func (rs *revocations) hear(list []Revocation, whole bool, now time.Time) (unreadable []Revocation) {
	rs.prune(now)
	if whole {
		rs.mu.Lock()
		rs.reading++
		rs.mu.Unlock()
	}
	for piece := range slices.Chunk(list, applyPiece) {
		rs.change(func() (ended []*watcher) {
			for _, r := range piece {
				switch {
				case r.AccessTTL > 0:
					rs.note(r, rs.reading, now)
					continue
				case len(r.Sessions) == 0 && !r.All && r.Cut.IsZero():
					if rs.unread[r.ID] {
						continue
					}
					rs.markUnread(r.ID)
					unreadable = append(unreadable, r)
					if r.Subject == "" {
						continue
					}
					r.Cut, r.Until = notBefore(now, rs.leeway), now.Add(maxAccessTTL)
				}
				_, more := rs.enter(r, source{heard: rs.reading, id: r.ID}, now)
				ended = append(ended, more...)
			}
			return ended
		})
	}
	return unreadable
}

// maxUnread bounds the IDs of entries that could not be read.
const maxUnread = 1 << 16

func (rs *revocations) markUnread(id string) {
	if rs.unread == nil || len(rs.unread) >= maxUnread {
		rs.unread = map[string]bool{}
	}
	rs.unread[id] = true
}

// change calls f with rs locked, and ends the contexts that it returns when rs
// is free again.
func (rs *revocations) change(f func() []*watcher) {
	rs.mu.Lock()
	ended := f()
	rs.mu.Unlock()
	for _, w := range ended {
		w.cancel(w.cause)
	}
}

// source says where a revocation that is entered comes from.
type source struct {
	own        bool   // this process announces it for the first time
	repetition bool   // of a not-before instant of this process
	again      bool   // it was entered already, and may be a part of an entry
	heard      uint64 // the feed has it, at this reading
	id         string // of the announcement in the feed
}

// enter adds a revocation. It returns the entries that it touched, and the
// watchers that it ends. It is called with rs locked.
func (rs *revocations) enter(r Revocation, from source, now time.Time) (touched []*revocation, ended []*watcher) {
	if r.Until.Before(now) {
		return nil, nil
	}
	for _, id := range r.Sessions {
		key := sessionKey{r.Subject, id}
		e := rs.sessions[key]
		if e == nil {
			e = &revocation{subject: r.Subject, session: id}
			rs.insert(e, r.Until, from)
			if rs.sessions == nil {
				rs.sessions = map[sessionKey]*revocation{}
			}
			rs.sessions[key] = e
		} else {
			e.merge(r.Until, from, false)
		}
		touched = append(touched, e)
		for w := range rs.watchers[r.Subject][id] {
			ended = rs.end(ended, w, ErrSessionRevoked)
		}
	}
	if r.All || !r.Cut.IsZero() && len(r.Sessions) == 0 {
		e := rs.enterSubject(r, from)
		touched = append(touched, e)
		for _, watchers := range rs.watchers[r.Subject] {
			for w := range watchers {
				if err := e.hits(w.subjectTimes); err != nil {
					ended = rs.end(ended, w, err)
				}
			}
		}
	}
	return touched, ended
}

// enterSubject merges an entry of a subject into the one that is there.
func (rs *revocations) enterSubject(r Revocation, from source) *revocation {
	entries := rs.subjects[r.Subject]
	place := &entries.access
	if r.All {
		place = &entries.all
	}
	next := revocation{subject: r.Subject, all: r.All, before: r.Cut}
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
			from.heard = 0
		}
		e.merge(r.Until, from, grown)
	}
	rs.noteCut(e, r.Cut, from)
	return e
}

// noteCut notes whether this process has to repeat the not-before instant that
// it set for the access tokens of a subject. Another process that had not heard
// of it may have set one that is not earlier, and raised its tokens to that; so
// this one spares them. One that is later than clocks and Leeways can explain
// was set afterward, and is no reason. A repetition is never repeated.
func (rs *revocations) noteCut(e *revocation, cut time.Time, from source) {
	if from.own && !e.all {
		e.own = &ownCut{at: cut}
		if from.repetition {
			e.own = nil
		}
		return
	}
	access := rs.subjects[e.subject].access
	if access == nil || access.own == nil || from.id == "" || rs.isOwn(from.id) {
		return
	}
	if after := cut.Sub(access.own.at); after < 0 || after > 2*maxLeeway+time.Second {
		return
	}
	access.own.repeat = later(access.own.repeat, cut)
	rs.plan(access)
}

// isOpen reports whether the store has yet to confirm an entry.
func (rs *revocations) isOpen(r *revocation) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return r.open
}

// confirmed reports whether the store has taken r.
func (rs *revocations) confirmed(r *revocation) bool { return !rs.isOpen(r) }

// ask reports whether the store is to be asked about a session that an entry
// refused. If the entry is of this session, it is asked once a minute, counted
// from its answer. If it is of all sessions, it is asked each time: another
// process that had not heard of the entry may have created the session since,
// and what was asked about another session says nothing of this one.
func (rs *revocations) ask(r *revocation, now time.Time) bool {
	if r.session == "" {
		return true
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	age := now.UnixMilli() - r.asked
	return age < 0 || age >= time.Minute.Milliseconds()
}

// answered notes that the store has answered about an entry.
func (rs *revocations) answered(r *revocation, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.asked = now.UnixMilli()
}
