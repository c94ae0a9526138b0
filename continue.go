package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Continue replaces the session of c by a new one that carries other data, without a
// new proof of the user's credentials. It is for what a user switches while signed
// in, such as the active organization: the application checks that the user may
// switch, and reads the Data back with [Session.Data] or in Config.Claims.
//
// c are the verified claims of the session, from [FromContext] or [Verifier.Verify].
// The new session keeps their AuthTime and AMR, so [Fresh] and [AMR] decide as
// before. It also keeps the absolute end, the lifetimes, Ephemeral and the Actor of
// the old session. So AMR, Ephemeral, IdleTTL, SessionTTL and Actor of o must be
// zero. Device, Data, Replaces and InBody are those of o. So is Name; if it is empty,
// the name of the old session is kept. The new session has its own ID and CreatedAt.
// Config.OnLogin is not called.
//
// The old session ends, in other processes as soon as they have read the feed. If the
// store does not confirm that, Continue succeeds anyway: this process refuses the old
// session, and [Verifier.Run] repeats the revocation until the store confirms it. If
// the client does not receive the new tokens, its user must sign in again. Two calls
// for one session at the same time may both succeed. Each then opens a session, and
// Config.MaxSessions counts both.
//
// Whoever has an access token can get a session by a handler that calls Continue. So
// the handler must be protected as well as a login is, and must not accept tokens
// from the URL ([FromQuery]).
//
// Continue returns [ErrSessionRevoked] if the session has ended or the user is gone
// or disabled; [ErrTokenExpired] if [Authenticator.ExpireAccess] has ended the access
// token; [ErrInvalidToken] if c is of another issuer, as it may be with [AnyOf];
// [ErrTooManySessions]; and [ErrUnavailable]. After ErrUnavailable the old session
// goes on. Any other error means that o is invalid, or that the tokens cannot be
// issued.
func (a *Authenticator) Continue(ctx context.Context, c *Claims, o SessionOptions) (Tokens, error) {
	snap := a.snapshot()
	switch {
	case c == nil:
		return Tokens{}, errors.New("auth: Continue: the claims are nil; pass those of a verified token")
	case len(o.AMR) > 0 || o.Ephemeral || o.IdleTTL != 0 || o.SessionTTL != 0 || o.Actor != "":
		return Tokens{}, errors.New("auth: Continue keeps the AMR, Ephemeral, IdleTTL, SessionTTL and Actor of the session; leave these fields of SessionOptions empty")
	}
	if err := o.clean(); err != nil {
		return Tokens{}, err
	}
	old, err := a.continuable(ctx, c, snap)
	if err != nil {
		return Tokens{}, err
	}
	u, err := a.findEnabled(ctx, c.Subject)
	var t Tokens
	if err == nil {
		t, err = a.continueSession(ctx, snap, u, old, c, o)
	}
	if isRefusal(err) { // the user or the actor is gone or disabled
		if err := a.revokeSession(ctx, old, reasonUser); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, sessionRevoked(reasonUser)
	}
	return t, err
}

// continuable returns the record of the session of c, or an error if c is of another
// issuer or the session has ended.
func (a *Authenticator) continuable(ctx context.Context, c *Claims, snap snapshot) (Session, error) {
	if c.Issuer != a.issuer {
		return Session{}, unexpectedIssuer(c.Issuer, a.issuer)
	}
	if err := a.checkRevoked(ctx, c.times(), snap.now); err != nil {
		return Session{}, err
	}
	s, err := a.getSession(ctx, c.session())
	switch {
	case errors.Is(err, ErrSessionNotFound):
		return Session{}, ErrSessionRevoked
	case err != nil:
		return Session{}, err
	case s.ID != c.SessionID || s.Subject != c.Subject:
		return Session{}, a.unavailable(ctx, c.session(), errors.New("auth: Store.Get returned another session"))
	case !snap.now.Before(s.ExpiresAt):
		return Session{}, fmt.Errorf("%w: it has expired", ErrSessionRevoked)
	}
	return s, nil
}

// continueSession opens the session that continues old.
func (a *Authenticator) continueSession(ctx context.Context, snap snapshot, u User, old Session, c *Claims, o SessionOptions) (Tokens, error) {
	t, err := c.terms()
	if err != nil {
		return Tokens{}, err
	}
	k := constants{amr: slices.Clone(c.AMR), authTime: c.AuthTime, actor: c.Actor, terms: t}
	k.created = a.revoked.earliestIssue(u.ID, k.actor, snap)
	if !snap.now.Before(a.absoluteEnd(&k)) {
		return Tokens{}, fmt.Errorf("%w: it has expired", ErrSessionRevoked)
	}
	if o.Name == "" {
		o.Name = old.Name()
	}
	s := Session{Subject: u.ID, CreatedAt: k.created, Device: o.Device, Opaque: joinData(k.actor, o.Name, o.Data)}
	// A revocation of the old session that came meanwhile must end the new one too:
	// it may be a logout.
	recheck := func(User) error {
		_, err := a.continuable(ctx, c, a.snapshot())
		return err
	}
	return a.createSession(ctx, snap, u, s, &k, o, proof{continues: &old, recheck: recheck})
}
