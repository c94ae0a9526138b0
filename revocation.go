package auth

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
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

type notice struct {
	until time.Time
	heard uint64
}

// revocation is one entry: a session, all sessions of a subject except some,
// or the access tokens of a subject that were issued before an instant.
type revocation struct {
	subject string
	session string    // "" for an entry of a subject
	all     bool      // ends sessions
	before  time.Time // of an entry of a subject

	// spared holds the sessions for which an instant earlier than before
	// counts, or none at all (the zero Time).
	spared map[string]time.Time

	until   time.Time
	seq     uint64 // of the change that made before what it is
	heard   uint64 // the last reading of the whole feed since which it was heard of
	asked   int64  // when the store last answered somebody about it, Unix milliseconds
	retryAt int64  // not announced again before this, Unix milliseconds
	version uint32 // of the change that made the entry what it is
	own     *ownCut
	calls   int32 // of Store.Revoke that are under way
	fails   uint8 // calls of Store.Revoke that failed in a row
	mine    bool  // made by this process
	again   bool  // announced a second time already
	open    bool  // the store has not confirmed it
	alone   bool  // announced by itself, since it failed together with others
	waiting bool  // in work

	announcing bool // Run has taken it from work
	removed    bool
}

// ownCut is a not-before instant that this process set for access tokens.
type ownCut struct {
	at     time.Time
	repeat time.Time // if not zero, an instant after which at is to be repeated
}

// live reports whether the entry still counts: until its time, and for as long
// as the store has not confirmed it, or what failed to end would come back.
func (r *revocation) live(now time.Time) bool {
	return r.open || !r.until.Before(now)
}

// beforeFor returns the instant before which the entry ends a session.
func (r *revocation) beforeFor(session string) time.Time {
	if at, ok := r.spared[session]; ok {
		return at
	}
	return r.before
}

// errCut is the reason to refuse an access token that was issued before its
// subject's not-before instant. A refresh gives a new one.
var errCut = fmt.Errorf("%w: it was issued before its subject's access was expired", ErrTokenExpired)

// subjectTimes is what a revocation is compared with.
type subjectTimes struct {
	subject, sid string
	created      time.Time // the session, to the second
	issued       time.Time // the access token; the zero Time where there is none
}

func (c *Claims) times() subjectTimes {
	return subjectTimes{c.Subject, c.SessionID, c.AuthTime, later(c.IssuedAt, time.Unix(c.countsFrom, 0).UTC())}
}

// hits returns why an entry of t's subject refuses t.
func (r *revocation) hits(t subjectTimes) error {
	switch {
	case r == nil:
	case r.all:
		if t.created.Before(r.beforeFor(t.sid)) {
			return ErrSessionRevoked
		}
	case !t.issued.IsZero() && t.issued.Before(r.before):
		return errCut
	}
	return nil
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

// mergeSpared returns what two entries of a subject spare together: a session
// is ended by the later of the two instants that count for it.
func mergeSpared(a, b *revocation) map[string]time.Time {
	before := later(a.before, b.before)
	var spared map[string]time.Time
	for _, e := range [...]*revocation{a, b} {
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

// merge applies to an entry what is not its content. grown says that the
// content has changed.
func (r *revocation) merge(until time.Time, from source, grown bool) {
	if grown {
		r.version++
		r.again = false
	}
	if !until.Before(r.until) {
		r.until = until
		r.heard = max(r.heard, from.heard)
	}
	if from.own {
		r.mine = true
		r.open = r.open || grown
	}
}

func (rs *revocations) insert(r *revocation, until time.Time, from source) {
	r.until, r.heard, r.mine, r.open = until, from.heard, from.own, from.own
	r.seq = rs.seq.Add(1)
	heap.Push(&rs.queue, queued{r, until.UnixMilli()})
	rs.size.Add(1)
}

// queued is an entry with the Until under which it was queued, in Unix
// milliseconds.
type queued struct {
	*revocation
	until int64
}

// entryHeap has the entry that leaves next at its root.
type entryHeap []queued

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].until < h[j].until }
func (h entryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *entryHeap) Push(x any)        { *h = append(*h, x.(queued)) }
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

// repeats reports whether the entry's own not-before instant is to be repeated.
func (r *revocation) repeats() bool { return r.own != nil && !r.own.repeat.IsZero() }

// announced returns an entry of a subject as revocations that end the same
// together.
func (r *revocation) announced() []Revocation {
	if !r.all {
		return []Revocation{{Subject: r.subject, Cut: r.before}}
	}
	instants := []time.Time{r.before}
	for _, at := range r.spared {
		if !at.IsZero() && !slices.ContainsFunc(instants, at.Equal) {
			instants = append(instants, at)
		}
	}
	var rs []Revocation
	for _, at := range instants {
		next := Revocation{Subject: r.subject, All: true, Cut: at}
		for id := range r.spared {
			if r.spared[id].Before(at) {
				next.Except = append(next.Except, id)
			}
		}
		slices.Sort(next.Except)
		rs = append(rs, next)
	}
	return rs
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

// note applies a notice. It is called with rs locked.
func (rs *revocations) note(r Revocation, heard uint64, now time.Time) {
	if r.Until.Before(now) {
		return
	}
	longest := rs.longest(now)
	maps.DeleteFunc(rs.notices, func(_ time.Duration, n notice) bool { return n.until.Before(now) })
	if rs.notices == nil {
		rs.notices = map[time.Duration]notice{}
	}
	if n := rs.notices[r.AccessTTL]; !r.Until.Before(n.until) {
		rs.notices[r.AccessTTL] = notice{r.Until, max(heard, n.heard)}
	}
	if r.AccessTTL >= rs.ttl {
		rs.covered.Store(max(rs.covered.Load(), r.Until.UnixMilli()))
	}
	if r.AccessTTL > max(longest, rs.ttl) {
		rs.growth++
	}
}

// noteOwn applies a notice of this process that the store has taken.
func (rs *revocations) noteOwn(r Revocation, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.note(r, rs.reading, now)
}

// grown returns how often the longest lifetime has become longer.
func (rs *revocations) grown() uint32 {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.growth
}

// longest returns the longest lifetime that access tokens may have which are
// alive at now. It is called with rs locked.
func (rs *revocations) longest(now time.Time) (ttl time.Duration) {
	for d, n := range rs.notices {
		if n.until.After(now) {
			ttl = max(ttl, d)
		}
	}
	return ttl
}

// longestTTL is [revocations.longest] with rs unlocked.
func (rs *revocations) longestTTL(now time.Time) time.Duration {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.longest(now)
}

// missed ends every context: revocations may have come and gone unseen.
func (rs *revocations) missed() {
	rs.change(func() (ended []*watcher) {
		for _, sessions := range rs.watchers {
			for _, watchers := range sessions {
				for w := range watchers {
					ended = rs.end(ended, w, fmt.Errorf("%w: revocations may have been missed", ErrUnavailable))
				}
			}
		}
		return ended
	})
}

// watcher is a context that ends with its session.
type watcher struct {
	subjectTimes
	cancel context.CancelCauseFunc
	cause  error // why it ends, once it does
}

// end takes w out and appends it to ended, for [revocations.change] to cancel.
// It is called with rs locked.
func (rs *revocations) end(ended []*watcher, w *watcher, cause error) []*watcher {
	w.cause = cause
	rs.drop(w)
	return append(ended, w)
}

// drop takes w out, if it is still there. It is called with rs locked.
func (rs *revocations) drop(w *watcher) {
	sessions := rs.watchers[w.subject]
	delete(sessions[w.sid], w)
	if len(sessions[w.sid]) == 0 {
		delete(sessions, w.sid)
	}
	if len(sessions) == 0 {
		delete(rs.watchers, w.subject)
	}
}

func (rs *revocations) watch(w *watcher) {
	rs.change(func() []*watcher {
		if rs.watchers == nil {
			rs.watchers = map[string]map[string]map[*watcher]struct{}{}
		}
		if rs.watchers[w.subject] == nil {
			rs.watchers[w.subject] = map[string]map[*watcher]struct{}{}
		}
		if rs.watchers[w.subject][w.sid] == nil {
			rs.watchers[w.subject][w.sid] = map[*watcher]struct{}{}
		}
		rs.watchers[w.subject][w.sid][w] = struct{}{}
		if _, err := rs.find(w.subjectTimes, func(*revocation) bool { return true }); err != nil {
			return rs.end(nil, w, err)
		}
		return nil
	})
}

func (rs *revocations) unwatch(w *watcher) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.drop(w)
}

// SessionContext returns a context that ends when the session of c does: when
// it is revoked ([ErrSessionRevoked]), when its subject's access is expired or
// c.SessionExpiresAt comes ([ErrTokenExpired]); [context.Cause] tells. A refresh
// neither ends nor extends it, and the expiry of the access token does not end
// it. It is for handlers that outlive their request's token, as those of SSE
// and WebSocket do; their clients connect again. Call the function when done.
func (v *Verifier) SessionContext(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{subjectTimes: c.times(), cancel: cancel}
	v.revoked.watch(w)
	left := time.Duration(math.MaxInt64)
	if !c.SessionExpiresAt.IsZero() { // it is in claims that a test made
		left = c.SessionExpiresAt.Sub(v.now())
	}
	end := time.AfterFunc(left, func() {
		cancel(fmt.Errorf("%w: the session's end has come", ErrTokenExpired))
	})
	context.AfterFunc(ctx, func() {
		end.Stop()
		v.revoked.unwatch(w)
	})
	return ctx, func() { cancel(nil) }
}

// Waits of Run.
const (
	feedWait       = 5 * time.Second
	feedRetryFirst = 50 * time.Millisecond
	feedRetryLast  = 5 * time.Second
	resetApart     = 30 * time.Second // one reset after another sooner is treated as an error
	announceLead   = 30 * time.Second // before an entry leaves
	announceLast   = 10 * time.Minute // after it would have
	announceEvery  = 10 * time.Second // how often Run looks for entries that leave
	announceFor    = 200 * time.Millisecond
	announceFails  = 2           // in a row, after which Run reads the feed first
	missedAfter    = time.Minute // every entry lives for longer
)

// Run follows the revocation feed until ctx ends, and returns ctx's error. A
// server that passes a Store or a Feed calls it once, in a goroutine of its
// own; until it has read the feed, Verify answers [ErrUnavailable]. Where
// there is nothing to follow it just waits.
//
// While it runs, events of its own are delivered to OnEvent by another
// goroutine, so that an OnEvent that blocks does not stop it. If many wait,
// further ones are dropped.
func (v *Verifier) Run(ctx context.Context) error {
	if v.feed == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("auth: Run is running already")
	}
	defer v.running.Store(false)
	ctx, stop := v.queueEvents(ctx)
	defer stop()
	f := follower{v: v, whole: true}
	retry := feedRetryFirst
	var lastReset time.Time
	for ctx.Err() == nil {
		err := f.step(ctx)
		if err == nil {
			if v.now().Sub(lastReset).Abs() > resetApart {
				retry = feedRetryFirst
			}
			continue
		}
		if ctx.Err() != nil {
			break
		}
		v.emit(ctx, Event{Type: EventFault, Err: fmt.Errorf("auth: revocation feed: %w", err)})
		v.isStale(ctx)
		if errors.Is(err, ErrFeedReset) && f.position != "" {
			f.reset()
			now := v.now()
			often := now.Sub(lastReset).Abs() <= resetApart
			if lastReset = now; !often {
				continue // at once
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, feedRetryLast)
	}
	return ctx.Err()
}

// follower is the state of Run.
type follower struct {
	v        *Verifier
	position string       // that was reached
	pages    bool         // the last answer said that there is more
	asked    time.Time    // when the first of these pages was asked for
	whole    bool         // the feed is read from its beginning
	lost     bool         // it may have lost revocations
	growth   uint32       // of notices, that was acted upon
	planned  time.Time    // when entries that leave were last looked for
	next     time.Time    // when something is to be announced; the zero Time if nothing is
	notices  []Revocation // lost, to be announced again

	noticesAt int64 // not before this, Unix milliseconds
}

// reset begins again, after the feed has become another.
func (f *follower) reset() {
	f.position, f.pages, f.whole, f.lost = "", false, true, true
}

// step reads the feed once, from the position that was reached, then announces
// for a moment what is to be announced again. After an error it may be called
// again, and goes on from the same position.
func (f *follower) step(ctx context.Context) error {
	v := f.v
	wait := min(feedWait, v.maxStale/2)
	switch now := v.now(); {
	case f.pages:
		wait = 0
	case f.whole: // what makes Ready
		f.asked, wait = now, 0
	default:
		f.asked = now
		if !f.next.IsZero() {
			wait = min(wait, max(0, f.next.Sub(now)))
		}
	}
	err := v.changes(ctx, f.position, wait, func(rs []Revocation, next string, more bool) error {
		if next == "" {
			return errors.New("the feed returned an empty position")
		}
		for _, r := range v.revoked.hear(rs, f.position == "", v.now()) {
			v.emit(ctx, unreadableEvent(r))
		}
		if more && next == f.position {
			return errors.New("the feed returned the position that it was given, and says that there is more")
		}
		f.position, f.pages = next, more
		return nil
	})
	if err != nil || f.pages {
		return err
	}
	if last := v.heard.Swap(f.asked.UnixMilli()); last != 0 && f.asked.Sub(time.UnixMilli(last)) > missedAfter {
		v.revoked.missed()
	}
	v.staleSaid.Store(false)
	f.whole = false
	v.readyOnce.Do(func() { close(v.ready) })
	f.announce(ctx)
	return nil
}

func unreadableEvent(r Revocation) Event {
	err := errors.New("auth: an entry of the revocation feed cannot be read, and was skipped")
	if r.Subject != "" {
		err = errors.New("auth: an entry of the revocation feed cannot be read; access tokens of its subject expire")
	}
	return Event{Type: EventFault, Session: Session{Subject: r.Subject}, Err: err}
}

// changes calls the feed. It may take as long whether or not it waits, since
// there may be much to read. take gets the answer.
func (v *Verifier) changes(ctx context.Context, position string, wait time.Duration, take func(rs []Revocation, next string, more bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(feedWait, v.maxStale/2)+v.storeTimeout)
	defer cancel()
	return guardHook("Feed.Changes", func() error {
		rs, next, more, err := v.feed.Changes(ctx, position, wait)
		if err == nil {
			err = take(rs, next, more)
		}
		return err
	})
}

// announce tells the store once more what this process knows: what it revoked
// itself, before it forgets it; what the store has not confirmed; and what the
// feed has lost. A failover that lost a revocation is healed by it as long as
// one process that knew is alive. It does so for a moment only, so that the
// feed is read all the while, and leaves the rest for later.
func (f *follower) announce(ctx context.Context) {
	v := f.v
	now := v.now()
	v.revoked.prune(now)
	if v.announce == nil {
		return
	}
	renewal := v.renew(ctx)
	if f.lost {
		f.notices, f.lost = v.revoked.planLost(), false
	}
	if g := v.revoked.grown(); g != f.growth {
		f.growth = g
		v.revoked.planGrown()
	}
	if now.Sub(f.planned) >= announceEvery || now.Before(f.planned) {
		f.planned = now
		v.revoked.planLeaving(now)
	}
	f.next = f.announcePlanned(ctx, now)
	if !renewal.IsZero() && (f.next.IsZero() || renewal.Before(f.next)) {
		f.next = renewal
	}
}

// announcePlanned returns when there is more to announce.
func (f *follower) announcePlanned(ctx context.Context, begun time.Time) (next time.Time) {
	v := f.v
	fails, successes := 0, 0
	announce := func(r Revocation, repeats bool) (done bool) {
		err := v.announce(ctx, r, repeats)
		switch {
		case err == nil:
			fails = 0
			successes++
		case !errors.Is(err, ErrNotStorable): // which is an answer
			fails++
		}
		return err == nil
	}
	over := func() bool {
		passed := v.now().Sub(begun)
		return fails == announceFails || ctx.Err() != nil || passed >= announceFor || passed < 0 // the clock was set back
	}
	for len(f.notices) > 0 && !over() && !isPaused(v.now(), f.noticesAt, announceRetryFirst) {
		notice := f.notices[0]
		f.notices = f.notices[1:]
		if !announce(notice, false) && fails > 0 {
			f.notices = append(f.notices, notice)
			f.noticesAt = v.now().Add(announceRetryFirst).UnixMilli()
			break // so that no notice stops the entries
		}
	}
	for !over() {
		batch, later := v.revoked.take(v.now())
		if len(batch) == 0 {
			return later
		}
		for i, a := range batch {
			if over() {
				v.revoked.putBack(batch[i:])
				break
			}
			ok := true
			for _, r := range a.revocations {
				ok = ok && announce(r, a.repeats)
			}
			v.revoked.done(a.entries, ok)
		}
	}
	if successes == 0 && fails > 0 { // the store takes nothing now
		return v.now().Add(announceRetryFirst)
	}
	return v.now()
}

// eventQueue takes the events of a Run. It is found in the context of what the
// Run does.
type eventQueue struct {
	of     *Verifier
	events chan Event
}

type eventQueueKey struct{}

// Bounds of Run's events.
const (
	eventsWaiting = 64
	eventsFlush   = time.Second // how long Run waits for OnEvent when it ends
)

// queueEvents returns a context whose events are delivered in order by a
// goroutine of their own. stop ends it when they are delivered.
func (v *Verifier) queueEvents(ctx context.Context) (queueing context.Context, stop func()) {
	q := &eventQueue{v, make(chan Event, eventsWaiting)}
	ends, delivered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(delivered)
		for {
			select {
			case e := <-q.events:
				v.deliver(ctx, e)
				continue
			default:
			}
			select {
			case e := <-q.events:
				v.deliver(ctx, e)
			case <-ends:
				return
			}
		}
	}()
	return context.WithValue(ctx, eventQueueKey{}, q), func() {
		close(ends)
		select {
		case <-delivered:
		case <-time.After(eventsFlush):
		}
	}
}

// Ready returns a channel that is closed once revocations are known: from the
// start where there is no feed to follow, else when [Verifier.Run] has read it.
func (v *Verifier) Ready() <-chan struct{} { return v.ready }

// Health is what a health check should know.
type Health struct {
	Ready       bool
	Age         time.Duration // how old is what is known of the feed; 0 where there is none to follow
	Revocations int           // entries in this process
}

// Health returns the state of the revocation feed.
func (v *Verifier) Health() Health {
	h := Health{Revocations: int(v.revoked.size.Load())}
	select {
	case <-v.ready:
		h.Ready = true
	default:
	}
	if v.feed != nil && h.Ready {
		h.Age = v.feedAge()
	}
	return h
}

func (v *Verifier) feedAge() time.Duration {
	return max(0, v.now().Sub(time.UnixMilli(v.heard.Load())))
}

// isStale reports whether the feed is older than allowed, and says so once.
func (v *Verifier) isStale(ctx context.Context) bool {
	if v.feed == nil || v.heard.Load() == 0 || v.feedAge() <= v.maxStale {
		return false
	}
	if v.staleSaid.CompareAndSwap(false, true) {
		v.emit(ctx, Event{Type: EventStale, Err: fmt.Errorf("auth: the revocation feed was last read %s ago", v.feedAge().Round(time.Second))})
	}
	return true
}
