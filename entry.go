package auth

import (
	"fmt"
	"slices"
	"time"
)

// entry is one entry: a session, all sessions of a subject except some,
// or the access tokens of a subject that were issued before an instant.
type entry struct {
	subject string
	session string    // "" for an entry of a subject
	all     bool      // ends sessions
	before  time.Time // of an entry of a subject

	// spared holds the sessions for which an instant earlier than before
	// counts, or none at all (the zero Time).
	spared map[string]time.Time

	until        time.Time
	seq          uint64 // of the change that made before what it is
	seenInRead   uint64 // the last reading of the whole feed since which it was heard of
	recheckedAt  int64  // when the store last answered somebody about it, Unix milliseconds
	retryAt      int64  // not announced again before this, Unix milliseconds
	version      uint32 // of the change that made the entry what it is
	ownNotBefore *ownNotBefore
	calls        int32 // of Store.Revoke that are under way
	fails        uint8 // calls of Store.Revoke that failed in a row
	mine         bool  // made by this process
	republished  bool  // announced a second time already
	unconfirmed  bool  // the store has not confirmed it
	publishAlone bool  // announced by itself, since it failed together with others
	queued       bool  // in work

	publishing bool // Run has taken it from work
	removed    bool
}

// ownNotBefore is a not-before instant that this process set for access tokens.
type ownNotBefore struct {
	at          time.Time
	repeatAfter time.Time // if not zero, an instant after which at is to be repeated
}

// live reports whether the entry still counts: until its time, and for as long
// as the store has not confirmed it, or what failed to end would come back.
func (r *entry) live(now time.Time) bool {
	return r.unconfirmed || !r.until.Before(now)
}

// beforeFor returns the instant before which the entry ends a session.
func (r *entry) beforeFor(session string) time.Time {
	if at, ok := r.spared[session]; ok {
		return at
	}
	return r.before
}

// merge applies to an entry what is not its content. grown says that the
// content has changed.
func (r *entry) merge(until time.Time, from origin, grown bool) {
	if grown {
		r.version++
		r.republished = false
	}
	if !until.Before(r.until) {
		r.until = until
		r.seenInRead = max(r.seenInRead, from.seenInRead)
	}
	if from.own {
		r.mine = true
		r.unconfirmed = r.unconfirmed || grown
	}
}

// mergeSpared returns what two entries of a subject spare together: a session
// is ended by the later of the two instants that count for it.
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

// errIssuedBefore is the reason to refuse an access token that was issued before its
// subject's not-before instant. A refresh gives a new one.
var errIssuedBefore = fmt.Errorf("%w: it was issued before its subject's access was expired", ErrTokenExpired)

// subjectTimes is what a revocation is compared with.
type subjectTimes struct {
	subject, sid string
	created      time.Time // the session, to the second
	issued       time.Time // the access token; the zero Time where there is none
}

func (c *Claims) times() subjectTimes {
	return subjectTimes{c.Subject, c.SessionID, c.AuthTime, later(c.IssuedAt, time.Unix(c.countsFrom, 0).UTC())}
}

// matches returns why an entry of t's subject refuses t.
func (r *entry) matches(t subjectTimes) error {
	switch {
	case r == nil:
	case r.all:
		if t.created.Before(r.beforeFor(t.sid)) {
			return ErrSessionRevoked
		}
	case !t.issued.IsZero() && t.issued.Before(r.before):
		return errIssuedBefore
	}
	return nil
}

// repeats reports whether the entry's own not-before instant is to be repeated.
func (r *entry) repeats() bool { return r.ownNotBefore != nil && !r.ownNotBefore.repeatAfter.IsZero() }

// revocations returns an entry of a subject as revocations that end the same
// together.
func (r *entry) revocations() []Revocation {
	if !r.all {
		return []Revocation{{Subject: r.subject, Before: r.before}}
	}
	instants := []time.Time{r.before}
	for _, at := range r.spared {
		if !at.IsZero() && !slices.ContainsFunc(instants, at.Equal) {
			instants = append(instants, at)
		}
	}
	var rs []Revocation
	for _, at := range instants {
		next := Revocation{Subject: r.subject, All: true, Before: at}
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
