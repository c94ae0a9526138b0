package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Sessions returns the live sessions of a user, last used first. One whose end
// the store did not confirm is still there, so that it can be ended again.
func (a *Authenticator) Sessions(ctx context.Context, subject string) ([]Session, error) {
	return a.liveSessions(ctx, subject, a.revoked.confirmed)
}

// liveSessions leaves out what has expired, and what is revoked by an entry that gone
// accepts.
func (a *Authenticator) liveSessions(ctx context.Context, subject string, gone func(*entry) bool) ([]Session, error) {
	var list []Session
	err := a.callStore(ctx, Session{Subject: subject}, "List", func(ctx context.Context) (err error) {
		list, err = a.store.List(ctx, subject)
		return err
	})
	if err != nil {
		return nil, err
	}
	now := a.now()
	return slices.DeleteFunc(list, func(s Session) bool {
		known, revoked := a.revoked.find(subjectTimes{subject: s.Subject, sid: s.ID, created: s.CreatedAt}, now)
		return revoked != nil && gone(known) || !now.Before(s.ExpiresAt)
	}), nil
}

// Revoke ends sessions of a user, and with them their access tokens: at once in
// this process, elsewhere as soon as the feed is read. Without ids it does
// nothing; unknown ids, and ids that no session can have, are ignored.
//
// [ErrUnavailable] means that the store did not confirm it: call it again.
// [ErrNotStorable] means that no user can have that ID.
func (a *Authenticator) Revoke(ctx context.Context, subject string, ids ...string) error {
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: subject, Sessions: storableIDs(ids)}, "request")
}

// storableIDs returns the ids that a session can have. No other needs to be
// revoked, and an entry with one could not be stored.
func storableIDs(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return checkName("", id) != nil })
}

// RevokeAll ends all sessions of a user that exist when it is called, except
// those that are named. Call it when a password was changed. Its errors are
// those of [Authenticator.Revoke].
func (a *Authenticator) RevokeAll(ctx context.Context, subject string, except ...string) error {
	if err := checkName("a subject", subject); err != nil {
		return err
	}
	ctx, cancel := a.withinStoreTimeout(ctx)
	defer cancel()
	rd := a.snapshot()
	r := Revocation{Subject: subject, All: true, Except: storableIDs(except), Before: notBefore(rd.now, a.leeway), Until: a.revokedUntil(rd.now)}
	entered := a.revoked.add(r, origin{own: true}, rd.now)

	// A session may have been created at r.Before or later, if a clock is ahead or
	// another process has set the same not-before instant, so it is named.
	list, listErr := a.liveSessions(ctx, subject, a.revoked.confirmed)
	for _, s := range list {
		if !s.CreatedAt.Before(r.Before) && !slices.Contains(except, s.ID) {
			r.Sessions = append(r.Sessions, s.ID)
		}
	}
	err := a.revoke(ctx, r, "request")
	a.revoked.confirm(entered, err, rd.now)
	return errors.Join(listErr, err)
}

// ExpireAccess ends the access tokens of a user that were issued up to now,
// while the sessions live on: clients refresh, and get the roles that the user
// has now. Tokens carry whole seconds, so a second call for a user within one
// second waits for the next. Its errors are those of [Authenticator.Revoke].
func (a *Authenticator) ExpireAccess(ctx context.Context, subject string) error {
	if err := checkName("a subject", subject); err != nil {
		return err
	}
	cut, known := a.nextNotBefore(subject)
	switch wait := known.Sub(cut) + time.Second; {
	case cut.After(known):
	case wait > a.leeway+2*time.Second:
		// A clock that was wrong has set it. Tokens that were issued since
		// carry it, whatever the clock says, so the next second is after them.
		cut = known.Add(time.Second)
	default:
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
		if cut, known = a.nextNotBefore(subject); !cut.After(known) {
			return fmt.Errorf("%w: access was expired within this second already", ErrUnavailable)
		}
	}
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: subject, Before: cut}, "access")
}

// nextNotBefore returns the not-before instant for a subject, and the latest that is
// known already. Tokens that were issued since carry that one.
func (a *Authenticator) nextNotBefore(subject string) (cut, known time.Time) {
	rd := a.snapshot()
	return notBefore(rd.now, a.leeway), a.revoked.earliestIssue(subject, rd)
}

// truncateMillis brings t to the resolution in which everything is stored.
func truncateMillis(t time.Time) time.Time {
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// revokeSession revokes one session, also if ctx is canceled.
func (a *Authenticator) revokeSession(ctx context.Context, s Session, reason string) error {
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// revoke carries out a revocation: first in this process, then in the store. An
// error of the store does not undo the former.
func (a *Authenticator) revoke(ctx context.Context, r Revocation, reason string) error {
	if err := checkName("a subject", r.Subject); err != nil {
		return err
	}
	if len(r.Sessions) == 0 && r.Before.IsZero() {
		return nil
	}
	err := a.publish(ctx, r, origin{own: true})
	a.emitRevoked(ctx, r, reason, err)
	return err
}

func (a *Authenticator) emitRevoked(ctx context.Context, r Revocation, reason string, err error) {
	about := Session{Subject: r.Subject}
	if len(r.Sessions) == 1 {
		about.ID = r.Sessions[0]
	}
	a.emit(ctx, Event{Type: revokedType(reason), Session: about, Reason: reason, Err: err})
}

func revokedType(reason string) EventType {
	if reason == "logout" {
		return EventLogout
	}
	return EventRevoked
}

// revokedUntil returns for how long a revocation that is made now must be known: as
// long as any access token that it concerns may live, on any clock. Processes
// with another AccessTTL have announced it. While this one does not know what
// was announced lately, it assumes the longest that there is.
func (a *Authenticator) revokedUntil(now time.Time) time.Time {
	ttl := a.accessTTL
	if a.feed != nil {
		ttl = max(ttl, a.revoked.longestTTL(now))
		if now.Sub(time.UnixMilli(a.feedReadAt.Load())) > maxFeedGap { // or never
			ttl = maxAccessTTL
		}
	}
	return now.Add(ttl + noticeMargin)
}

// publish enters a revocation here and announces it.
func (a *Authenticator) publish(ctx context.Context, r Revocation, from origin) error {
	now := a.now()
	r.Until, r.ID = a.revokedUntil(now), a.revoked.nextID()
	entered := a.revoked.add(r, from, now)
	err := a.callStore(ctx, Session{Subject: r.Subject}, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
	a.revoked.confirm(entered, err, a.now())
	return err
}

// republish announces what this process knows, or its own not-before
// instant in a later second.
func (a *Authenticator) republish(ctx context.Context, r Revocation, repeats bool) error {
	if r.AccessTTL > 0 {
		return a.storeNotice(ctx, r)
	}
	return a.publish(ctx, r, origin{own: repeats, repetition: repeats, republish: !repeats})
}

// recheckRevoked is for a session that this process knows to be revoked and that
// a client still asks for. If the store has not confirmed the end, or has the
// session after all because a failover lost its end, it is revoked again.
func (a *Authenticator) recheckRevoked(ctx context.Context, known *entry, s Session) error {
	if !a.revoked.isUnconfirmed(known) {
		if !a.revoked.mayRecheck(known, a.now()) {
			return nil
		}
		alive, err := a.sessionExists(ctx, s.Subject, s.ID)
		if err != nil {
			return err
		}
		a.revoked.markRechecked(known, a.now())
		if !alive {
			return nil
		}
	}
	return a.publish(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, origin{own: true})
}

// sessionExists asks the store whether a session is there.
func (a *Authenticator) sessionExists(ctx context.Context, subject, id string) (bool, error) {
	s, err := a.getSession(ctx, Session{Subject: subject, ID: id})
	if errors.Is(err, ErrSessionNotFound) {
		return false, nil
	}
	return err == nil && a.now().Before(s.ExpiresAt), err
}
