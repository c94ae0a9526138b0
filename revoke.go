package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Sessions returns the sessions of a user that have not ended, the most recently
// used first. It includes sessions whose revocation the store has not confirmed,
// so that they can be revoked again. It returns [ErrUnavailable] if the store
// fails.
func (a *Authenticator) Sessions(ctx context.Context, subject string) ([]Session, error) {
	return a.liveSessions(ctx, subject, a.revoked.isConfirmed)
}

// liveSessions lists the sessions of a subject, except those that have expired
// and those that are revoked by an entry for which omit returns true.
func (a *Authenticator) liveSessions(ctx context.Context, subject string, omit func(*entry) bool) ([]Session, error) {
	list, err := a.tryLiveSessions(ctx, subject, omit)
	return list, a.reportStore(ctx, Session{Subject: subject}, "List", err)
}

// tryLiveSessions is liveSessions without an event.
func (a *Authenticator) tryLiveSessions(ctx context.Context, subject string, omit func(*entry) bool) ([]Session, error) {
	list, err := askStore(a, ctx, "List", func(ctx context.Context) ([]Session, error) { return a.store.List(ctx, subject) })
	if err != nil {
		return nil, err
	}
	now := a.now()
	return slices.DeleteFunc(list, func(s Session) bool {
		e, revoked := a.revoked.find(s.times(), now)
		return revoked != nil && omit(e) || !now.Before(s.ExpiresAt)
	}), nil
}

// Revoke ends sessions of a user and their access tokens: at once in this
// process, and in other processes as soon as they have read the feed. Without
// ids it does nothing. Unknown ids are not an error, but each takes memory in every
// process for as long as an access token lives: pass only IDs that
// [Authenticator.Sessions] returns, and not those of a request. It completes even
// if ctx is canceled.
//
// It returns [ErrUnavailable] if the store did not confirm the revocation. The
// sessions have then ended in this process; call Revoke again. It returns
// [ErrNotStorable] if subject is not a valid user ID; see [Session.Check].
func (a *Authenticator) Revoke(ctx context.Context, subject string, ids ...string) error {
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: subject, Sessions: storableIDs(ids)}, reasonRevoked)
}

// storableIDs returns copies of the ids that a session can have. Other ids belong
// to no session, and a store would refuse them.
//
// The revocation set keeps the copies, and not the caller's strings: an ID may be a
// part of a long URL, which would stay in memory with it, and some servers
// (fasthttp) reuse the memory of a request for the next one.
func storableIDs(ids []string) []string {
	list := make([]string, 0, len(ids))
	for _, id := range ids {
		if checkName("", id) == nil {
			list = append(list, strings.Clone(id))
		}
	}
	return list
}

// RevokeAll ends all sessions of a user that exist when it is called, except the
// sessions whose IDs are in except. It also ends the sessions in which the user is
// the [SessionOptions].Actor; the store may contain their records until they expire.
// And it ends the one-time tokens of the user that were issued before
// ([Authenticator.IssueOneTime]). [Authenticator.ChangePassword] and
// [Authenticator.SetPassword] call it; if you store a password hash yourself, call it
// afterward. Its errors are those of [Authenticator.Revoke].
func (a *Authenticator) RevokeAll(ctx context.Context, subject string, except ...string) error {
	if err := checkName("a subject", subject); err != nil {
		return err
	}
	ctx, cancel := a.withinStoreTimeout(ctx)
	defer cancel()
	snap := a.snapshot()
	r := Revocation{Subject: strings.Clone(subject), All: true, Except: storableIDs(except), Before: a.nextRevokeAll(subject, snap), Reason: reasonRevoked.String()}
	r.Until = a.revokedUntil(r, snap.now)
	added := a.revoked.add(r, origin{own: true}, snap.now)

	// A session may have a CreatedAt at or after r.Before, if a clock is ahead or
	// another process has set the same not-before instant. List it by its ID.
	// If List hangs, half of the time is left for Revoke.
	listing, cancel := context.WithTimeout(ctx, a.storeTimeout/2)
	defer cancel()
	list, listErr := a.tryLiveSessions(listing, subject, a.revoked.isConfirmed)
	for _, s := range list {
		if !s.CreatedAt.Before(r.Before) && !slices.Contains(except, s.ID) {
			r.Sessions = append(r.Sessions, s.ID)
		}
	}
	err := a.tryPublish(ctx, r, origin{own: true})
	a.revoked.confirm(added, err, snap.now)
	// Emit events last, because OnEvent may block, and Run publishes nothing that
	// is not confirmed or failed yet.
	listErr = a.reportStore(ctx, Session{Subject: subject}, "List", listErr)
	err = a.reportStore(ctx, Session{Subject: subject}, "Revoke", err)
	a.emitRevoked(ctx, r, err)
	return errors.Join(listErr, err)
}

// nextRevokeAll returns the not-before instant of a RevokeAll. It is later than the
// latest known instant of the subject: the one-time tokens that were issued since then
// count as issued at that instant, and no list of the store names them.
func (a *Authenticator) nextRevokeAll(subject string, snap snapshot) time.Time {
	latest := a.revoked.earliestIssue(subject, "", snap)
	return later(notBefore(snap.now, a.leeway), latest.Truncate(time.Second).Add(time.Second))
}

// ExpireAccess ends the access tokens of a user that were issued up to now, but
// not the sessions. Clients refresh, and their new tokens carry the user's
// current roles.
//
// Times in tokens are whole seconds. So if the access tokens or all sessions of
// a user were revoked within the same second, ExpireAccess waits for the next
// second. If the earlier revocation came from a process whose clock is ahead,
// ExpireAccess waits up to Leeway plus two seconds. If Config.Now stands still,
// as in tests, it waits for a tenth of a second. It returns [ErrUnavailable] if
// ctx is canceled first, or if there was another such revocation meanwhile.
// Its other errors are those of [Authenticator.Revoke].
func (a *Authenticator) ExpireAccess(ctx context.Context, subject string) error {
	if err := checkName("a subject", subject); err != nil {
		return err
	}
	before, err := a.expiryInstant(ctx, subject)
	if err != nil {
		return err
	}
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: subject, Before: before}, reasonAccess)
}

// clockCheck is how long ExpireAccess waits before it looks whether the clock
// moves. The clock of every operating system does within this time.
const clockCheck = 100 * time.Millisecond

// expiryInstant returns a not-before instant that is later than the time at
// which any access token of the subject counts as issued. It waits until
// nextNotBefore is. If waiting does not help, it returns the latest known instant
// plus one second: tokens issued since that instant became known count as issued
// at it, whatever the clock says. It does not always do so, because repeated
// calls would then move the instant ahead of the clocks by more than Leeway.
func (a *Authenticator) expiryInstant(ctx context.Context, subject string) (time.Time, error) {
	begun, before, latest := a.nextNotBefore(subject)
	if before.After(latest) {
		return before, nil
	}
	wait := latest.Sub(before) + time.Second
	if wait > a.leeway+2*time.Second { // a wrong clock has set the latest instant
		return latest.Add(time.Second), nil
	}
	known := latest
	for _, d := range [...]time.Duration{clockCheck, wait - clockCheck} {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%w: %w", ErrUnavailable, detail{context.Cause(ctx)})
		}
		var now time.Time
		now, before, latest = a.nextNotBefore(subject)
		switch {
		case before.After(latest):
			return before, nil
		case !now.After(begun): // the clock stands still, or was set back
			return latest.Add(time.Second), nil
		}
	}
	if latest.After(known) {
		return time.Time{}, fmt.Errorf("%w: the user's access tokens or sessions were revoked again while ExpireAccess waited for a later second than that of an earlier revocation; call it again", ErrUnavailable)
	}
	return latest.Add(time.Second), nil // the clock is slow, or was set back by less than the wait
}

// nextNotBefore returns the current time, the instant that a revocation made now
// would use, and the time at which tokens issued now count as issued: the
// current time or the latest known instant, whichever is later. next may be
// equal to or earlier than latest.
func (a *Authenticator) nextNotBefore(subject string) (now, next, latest time.Time) {
	snap := a.snapshot()
	return snap.now, notBefore(snap.now, a.leeway), a.revoked.earliestIssue(subject, "", snap)
}

// revokeSession revokes one session, even if ctx is canceled.
func (a *Authenticator) revokeSession(ctx context.Context, s Session, reason revokeReason) error {
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// revoke applies a revocation in this process, then publishes it in the store,
// and emits an event. If the store fails, the revocation stays in effect in this
// process.
func (a *Authenticator) revoke(ctx context.Context, r Revocation, reason revokeReason) error {
	if err := checkName("a subject", r.Subject); err != nil {
		return err
	}
	if len(r.Sessions) == 0 && r.Before.IsZero() {
		return nil
	}
	r.Subject, r.Reason = strings.Clone(r.Subject), reason.String() // the revocation set keeps the subject
	err := a.publish(ctx, r, origin{own: true})
	a.emitRevoked(ctx, r, err)
	return err
}

func (a *Authenticator) emitRevoked(ctx context.Context, r Revocation, err error) {
	about := Session{Subject: r.Subject}
	if len(r.Sessions) == 1 {
		about.ID = r.Sessions[0]
	}
	a.emit(ctx, Event{Type: revokedType(r.Reason), Session: about, Reason: r.Reason, Err: err})
}

func revokedType(reason string) EventType {
	if reason == reasonLogout.String() {
		return EventLogout
	}
	return EventRevoked
}

// revokedUntil returns the Until of a revocation that is created now: the time at
// which every access token that it revokes has expired, by every clock. Processes
// whose AccessTTL is longer have published that lifetime in a notice. If this
// process has not read the feed within maxFeedGap, it assumes maxAccessTTL. So it
// does for a revocation of all sessions, which applies to one-time tokens too.
func (a *Authenticator) revokedUntil(r Revocation, now time.Time) time.Time {
	ttl := a.accessTTL
	if a.shared {
		ttl = max(ttl, a.revoked.longestTTL(now))
	}
	if a.feed != nil && now.Sub(time.UnixMilli(a.feedReadAt.Load())) > maxFeedGap { // or never
		ttl = maxAccessTTL
	}
	if r.All {
		ttl = maxAccessTTL
	}
	return now.Add(ttl + noticeMargin)
}

// publish applies a revocation in this process, then writes it to the store,
// which adds it to the feed.
func (a *Authenticator) publish(ctx context.Context, r Revocation, from origin) error {
	return a.reportStore(ctx, Session{Subject: r.Subject}, "Revoke", a.tryPublish(ctx, r, from))
}

// tryPublish is publish without an event.
func (a *Authenticator) tryPublish(ctx context.Context, r Revocation, from origin) error {
	now := a.now()
	for {
		r.Until, r.ID = a.revokedUntil(r, now), a.revoked.nextID()
		added := a.revoked.add(r, from, now)
		err := a.tryStore(ctx, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
		a.revoked.confirm(added, err, a.now())
		// With a MemoryStore, no Run publishes it again if the first notice of a
		// longer lifetime arrived meanwhile.
		if err != nil || a.memory == nil || !a.revokedUntil(r, now).After(r.Until) {
			return err
		}
	}
}

// republish publishes r again; r may be a notice. If repeats is true, r sets
// again, in a later second, a not-before instant that this process set before.
func (a *Authenticator) republish(ctx context.Context, r Revocation, repeats bool) error {
	if r.AccessTTL > 0 {
		return a.reportStore(ctx, Session{}, "Revoke", a.storeNotice(ctx, r))
	}
	return a.publish(ctx, r, origin{own: repeats, repetition: repeats, republish: !repeats})
}

// recheckRevoked is called when a client presents a token of a session that this
// process knows to be revoked. It revokes the session again if the store has not
// confirmed the revocation, or if the store still has the session because a
// failover lost the revocation.
func (a *Authenticator) recheckRevoked(ctx context.Context, e *entry, s Session) error {
	if a.revoked.isConfirmed(e) {
		if !a.revoked.mayRecheck(e, a.now()) {
			return nil
		}
		alive, err := a.sessionExists(ctx, s.Subject, s.ID)
		if err != nil {
			return err
		}
		a.revoked.markRechecked(e, a.now())
		if !alive {
			return nil
		}
	}
	r := Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Reason: a.revoked.reasonFor(e).String()}
	return a.publish(ctx, r, origin{own: true})
}

// sessionExists reports whether the store has the session and it has not expired.
func (a *Authenticator) sessionExists(ctx context.Context, subject, id string) (bool, error) {
	s, err := a.getSession(ctx, Session{Subject: subject, ID: id})
	if errors.Is(err, ErrSessionNotFound) {
		return false, nil
	}
	return err == nil && a.now().Before(s.ExpiresAt), err
}

// Logout ends the sessions of the given access and refresh tokens, even of
// expired ones. It ignores tokens that this service did not sign, and sessions
// that have already ended. All its calls to the store together take at most
// Config.StoreTimeout, and it completes even if ctx is canceled.
//
// It returns [ErrUnavailable] if the store did not confirm it; call Logout again.
func (a *Authenticator) Logout(ctx context.Context, tokens ...string) error {
	named, err := a.namedSessions(ctx, tokens)
	return errors.Join(err, a.revokeNamed(ctx, named, reasonLogout))
}

// namedSession is a session that one or more tokens name.
type namedSession struct {
	subjectTimes
	live bool // one of the tokens is live (see sessionOf), so other tokens of the session may be valid too
}

// namedSessions returns the sessions of all tokens that this service signed,
// without duplicates. It ignores tokens that are not valid. The error joins the
// ErrUnavailable of each token that could not be checked, for example because a
// key source failed.
func (a *Authenticator) namedSessions(ctx context.Context, tokens []string) (named []namedSession, err error) {
	index := map[sessionKey]int{}
	var errs []error
	for _, token := range tokens {
		t, live, err := a.sessionOf(ctx, token)
		if errors.Is(err, ErrUnavailable) {
			errs = append(errs, err)
		}
		if err != nil {
			continue
		}
		i, ok := index[sessionKey{t.subject, t.sid}]
		if !ok {
			i = len(named)
			index[sessionKey{t.subject, t.sid}] = i
			named = append(named, namedSession{subjectTimes: t})
		}
		named[i].live = named[i].live || live
	}
	return named, errors.Join(errs...)
}

// revokeNamed ends sessions. For each user it publishes one revocation of all
// sessions that have live tokens. For any other session it first checks whether
// there is something to revoke.
func (a *Authenticator) revokeNamed(ctx context.Context, named []namedSession, reason revokeReason) error {
	ctx, cancel := a.withinStoreTimeout(ctx)
	defer cancel()
	now := a.now()
	var list []Revocation // one for each user
	var others []func() error
	for _, n := range named {
		s := Session{ID: n.sid, Subject: n.subject}
		e, err := a.revoked.find(n.subjectTimes, now)
		switch {
		case err != nil:
			others = append(others, func() error { return a.recheckRevoked(ctx, e, s) })
			continue
		case !n.live:
			others = append(others, func() error { return a.revokeIfExists(ctx, s, reason) })
			continue
		}
		i := slices.IndexFunc(list, func(r Revocation) bool { return r.Subject == n.subject })
		if i < 0 {
			i = len(list)
			list = append(list, Revocation{Subject: n.subject, Reason: reason.String()})
		}
		list[i].Sessions = append(list[i].Sessions, n.sid)
	}
	var errs []error
	for _, r := range list {
		err := a.publish(ctx, r, origin{own: true})
		for _, id := range r.Sessions {
			a.emitRevoked(ctx, Revocation{Subject: r.Subject, Sessions: []string{id}, Reason: r.Reason}, err)
		}
		errs = append(errs, err)
	}
	for _, end := range others {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// revokeIfExists ends a session that only tokens that are not live name. Clients
// can send such tokens any number of times, so it writes to the store only if
// the session exists.
func (a *Authenticator) revokeIfExists(ctx context.Context, s Session, reason revokeReason) error {
	switch _, err := a.getSession(ctx, s); {
	case errors.Is(err, ErrSessionNotFound):
		return nil
	case err != nil && reason != reasonReplaced: // a login is not repeated
		return err
	}
	return a.revoke(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// sessionOf returns the session that an access or refresh token names. live is
// false if the token has expired. With a MemoryStore, it is also false for an
// access token of an earlier process, and for a refresh token whose session the
// store does not have.
func (a *Authenticator) sessionOf(ctx context.Context, token string) (t subjectTimes, live bool, err error) {
	now := a.now()
	if c, _ := a.openRefresh(ctx, token); c.sid != "" {
		live = c.expiresAt.IsZero() || now.Before(c.expiresAt)
		return c.times(), live && (a.memory == nil || a.memory.has(c.subject, c.sid)), nil
	}
	c, foreign, err := a.parseAccess(ctx, token)
	if err != nil {
		return subjectTimes{}, false, err
	}
	t = c.times()
	t.issued = time.Time{} // a not-before instant ends access, not the session
	return t, now.Before(c.ExpiresAt) && !foreign, nil
}
