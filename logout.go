package auth

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Logout ends the session of every token that was validly signed here, of
// either kind, expired or not. A token that was not, and a session that is
// gone already, are not errors. [ErrUnavailable] means that the store did not
// confirm it. However many tokens there are, it takes no longer than one call
// of the store may.
func (a *Authenticator) Logout(ctx context.Context, tokens ...string) error {
	named, err := a.namedSessions(ctx, tokens)
	return errors.Join(err, a.revokeNamed(ctx, named, "logout"))
}

// namedSession is a session that tokens name.
type namedSession struct {
	subjectTimes
	live bool // one of them has not expired, so others may not have either
}

// namedSessions returns the sessions that validly signed tokens name, each
// once. The error tells of tokens of which that could not be decided.
func (a *Authenticator) namedSessions(ctx context.Context, tokens []string) (named []namedSession, err error) {
	now := a.now()
	places := map[sessionKey]int{}
	var errs []error
	for _, token := range tokens {
		t, expires, err := a.sessionOf(ctx, token)
		if errors.Is(err, ErrUnavailable) {
			errs = append(errs, err)
		}
		if err != nil {
			continue
		}
		i, ok := places[sessionKey{t.subject, t.sid}]
		if !ok {
			i = len(named)
			places[sessionKey{t.subject, t.sid}] = i
			named = append(named, namedSession{subjectTimes: t})
		}
		named[i].live = named[i].live || expires.IsZero() || now.Before(expires)
	}
	return named, errors.Join(errs...)
}

// revokeNamed ends sessions, by one call of the store for each user where that is
// certain to be necessary.
func (a *Authenticator) revokeNamed(ctx context.Context, named []namedSession, reason string) error {
	ctx, cancel := a.withinStoreTimeout(ctx)
	defer cancel()
	now := a.now()
	var list []Revocation // one for each user
	var others []func() error
	for _, n := range named {
		s := Session{ID: n.sid, Subject: n.subject}
		known, err := a.revoked.find(n.subjectTimes, now)
		switch {
		case err != nil:
			others = append(others, func() error { return a.recheckRevoked(ctx, known, s) })
			continue
		case !n.live:
			others = append(others, func() error { return a.revokeIfExists(ctx, s, reason) })
			continue
		}
		i := slices.IndexFunc(list, func(r Revocation) bool { return r.Subject == n.subject })
		if i < 0 {
			i = len(list)
			list = append(list, Revocation{Subject: n.subject})
		}
		list[i].Sessions = append(list[i].Sessions, n.sid)
	}
	var errs []error
	for _, r := range list {
		err := a.publish(ctx, r, origin{own: true})
		for _, id := range r.Sessions {
			a.emitRevoked(ctx, Revocation{Subject: r.Subject, Sessions: []string{id}}, reason, err)
		}
		errs = append(errs, err)
	}
	for _, end := range others {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// revokeIfExists ends a session that only expired tokens name. Whoever has one may
// send it again and again, so it costs no write unless there is something to
// end.
func (a *Authenticator) revokeIfExists(ctx context.Context, s Session, reason string) error {
	switch _, err := a.getSession(ctx, s); {
	case errors.Is(err, ErrSessionNotFound):
		return nil
	case err != nil:
		return err
	}
	return a.revoke(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// sessionOf returns which session a token of either kind names, and when the token
// expires.
func (a *Authenticator) sessionOf(ctx context.Context, token string) (t subjectTimes, expires time.Time, err error) {
	if c, _ := a.openRefresh(ctx, token); c.sid != "" {
		return c.times(), c.expiresAt, nil
	}
	c, err := a.parseAccess(ctx, token)
	if err != nil {
		return subjectTimes{}, time.Time{}, err
	}
	t = c.times()
	t.issued = time.Time{} // a not-before instant ends access, not the session
	return t, c.ExpiresAt, nil
}
