package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RefreshOptions is what a refresh needs besides its token. The zero
// RefreshOptions is allowed.
type RefreshOptions struct {
	_ [0]func() // keyed literals only

	Device Device

	// InBody says that the tokens do not travel in cookies, so that the size
	// of a cookie does not limit them.
	InBody bool
}

// Refresh spends a refresh token: it returns a new access token, and the
// refresh token to hold from now on. The same token may be presented again
// within the retry window, and gets the same answer; after it, it means that
// two parties hold the token, and ends the session.
//
// The error is [ErrInvalidToken], [ErrTokenExpired], [ErrSessionRevoked] or
// [ErrTokenReused], after which only a login helps; or [ErrUnavailable], after
// which the same token may be presented again.
func (a *Authenticator) Refresh(ctx context.Context, token string, o RefreshOptions) (Tokens, error) {
	c, err := a.openRefresh(ctx, token)
	var newer newerToken
	isNewer := errors.As(err, &newer)
	if err != nil && !isNewer {
		return Tokens{}, grantError{err}
	}
	s := Session{ID: c.sid, Subject: c.subject, Generation: c.generation, CreatedAt: c.authTime, RotatedAt: c.issuedAt, ExpiresAt: c.expiresAt}
	rd := a.snapshot()
	absolute := c.authTime.Add(a.sessionTTL)
	if !rd.now.Before(a.refreshEnd(&c)) {
		return Tokens{}, grantError{ErrTokenExpired}
	}
	if known, err := a.revoked.find(c.times(), rd.now); err != nil {
		if err := a.recheckRevoked(context.WithoutCancel(ctx), known, s); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{err}
	}
	if isNewer {
		// The session may go on, and the client keeps its token: a process of
		// the newer version refreshes it.
		a.emitLimited(ctx, &a.newerReported, Event{Type: EventFault, Session: s, Device: cleanDevice(o.Device), Generation: c.generation, Err: newer})
		return Tokens{}, newer
	}

	u, err := a.findByID(ctx, c.subject)
	if gone := errors.Is(err, ErrUserNotFound); gone || err == nil && u.Disabled {
		if err := a.revokeSession(ctx, s, "user"); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{fmt.Errorf("%w: its user is gone or disabled", ErrSessionRevoked)}
	}
	if err != nil {
		return Tokens{}, err
	}

	// All that can fail is done before the token is spent.
	t, err := a.mintAccess(ctx, u, c.sid, c.amr, rd.now, a.countsFrom(&c, rd), c.authTime, a.minSessionEnd(&c, rd.now))
	if err == nil {
		err = a.fitsCookie(t.Access, o.InBody)
	}
	if err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}

	device := cleanDevice(o.Device)
	now := a.now()
	r := Rotation{From: c.generation, At: now, NotAfter: now.Add(-a.cooldown), ExpiresAt: earlier(now.Add(a.idleTTL), absolute), Device: device}
	if c.generation == 1 {
		r.NotAfter = later(now, c.authTime).Add(a.sessionTTL) // it was never refreshed, so it does not rest
	}
	var rotated bool
	rotate := func(ctx context.Context) (err error) {
		s, rotated, err = a.store.Rotate(ctx, c.subject, c.sid, r)
		return err
	}
	err = a.callStore(ctx, s, "Rotate", rotate)
	if err == nil && !rotated && s.Generation == c.generation && a.isAhead(s.RotatedAt, now) {
		// It does not rest: it was rotated while a clock was wrong, and would not
		// move again until this clock has caught up. Moving it sets RotatedAt
		// back. If somebody else has done so meanwhile, nothing happens.
		a.reportAhead(ctx, s, now)
		r.NotAfter = s.RotatedAt
		err = a.callStore(ctx, s, "Rotate", rotate)
	}
	if errors.Is(err, ErrSessionNotFound) {
		return Tokens{}, grantError{ErrSessionRevoked}
	}
	if err != nil {
		return Tokens{}, err
	}
	event, err := a.outcome(ctx, &c, s, rotated, now, device)
	if err != nil {
		return Tokens{}, err
	}
	if _, err := a.revoked.find(c.times(), now); err != nil {
		return Tokens{}, grantError{err}
	}
	if s.Generation == c.generation {
		t.Refresh, t.RefreshExpiresAt, t.presented = token, c.expiresAt, true
	} else {
		// Of the store's answer only where the session stands is believed.
		s.CreatedAt, s.ExpiresAt = c.authTime, earlier(s.ExpiresAt, absolute)
		if err := a.mintRefresh(&t, s, c.amr); err != nil { // HMAC, and its size was checked by New
			return Tokens{}, a.internalError(ctx, s, err)
		}
	}
	if event != "" {
		a.emit(ctx, Event{Type: event, Session: s, Device: device, Generation: c.generation})
	}
	return t, nil
}

// openRefresh checks everything about a refresh token except time and
// revocation. Claims with a sid, also beside an error, mean that the token is
// signed and for this service, and names its session; see readRefresh.
func (a *Authenticator) openRefresh(ctx context.Context, token string) (refreshClaims, error) {
	signed, err := openToken(ctx, token, typRefresh, &a.refreshKeys)
	if err != nil {
		return refreshClaims{}, err
	}
	return readRefresh(signed.payload, a.issuer, a.audience)
}

// refreshEnd is when a refresh token expires. Its session ends at SessionTTL,
// also if that was longer when the token was issued.
func (a *Authenticator) refreshEnd(c *refreshClaims) time.Time {
	return earlier(c.expiresAt, c.authTime.Add(a.sessionTTL))
}

// countsFrom is the instant as of which an access token counts as issued when
// it is compared with a cut: no earlier than the cuts that were known when the
// clock was read, and than the login. A login may lie ahead of the clock because
// of a cut that this process has not read yet. One that lies further ahead was
// opened while a clock was wrong, and must not exempt its tokens from cuts.
func (a *Authenticator) countsFrom(c *refreshClaims, rd snapshot) time.Time {
	at := a.revoked.earliestIssue(c.subject, rd)
	if c.authTime.After(rd.now.Add(a.maxIssuedAhead())) {
		return at
	}
	return later(at, c.authTime)
}

// sessionEnd is when a session ends that was created and used at these times.
// The absolute end counts from the second that tokens carry as auth_time.
func (a *Authenticator) sessionEnd(created, used time.Time) time.Time {
	return earlier(used.Add(a.idleTTL), created.Truncate(time.Second).Add(a.sessionTTL))
}

// minSessionEnd is when the session is sure to last until, before it is known
// what Rotate will say. Whatever it says, the session was used within the last
// rest; if it may still be resting, nothing but the token's own end is sure.
func (a *Authenticator) minSessionEnd(c *refreshClaims, now time.Time) time.Time {
	end := earlier(now.Add(a.idleTTL-a.cooldown), c.authTime.Add(a.sessionTTL))
	if c.expiresAt.Before(end) && now.Sub(c.issuedAt) <= a.cooldown+a.leeway+time.Second {
		return c.expiresAt
	}
	return end
}

// isAhead reports whether a session was rotated by a clock that is further ahead
// of this one than clocks may be.
func (a *Authenticator) isAhead(rotated, now time.Time) bool { return rotated.After(now.Add(a.leeway)) }

func (a *Authenticator) reportAhead(ctx context.Context, s Session, now time.Time) {
	a.emit(ctx, Event{Type: EventFault, Session: s, Err: fmt.Errorf("auth: the session rotated %s ahead of this clock", s.RotatedAt.Sub(now))})
}

// outcome says what a refresh was, from how the session stands. The event that
// it returns is for when the answer is certain.
func (a *Authenticator) outcome(ctx context.Context, c *refreshClaims, s Session, rotated bool, now time.Time, device Device) (EventType, error) {
	if a.isAhead(s.RotatedAt, now) {
		a.reportAhead(ctx, s, now)
	}
	age := max(0, now.Sub(s.RotatedAt))
	switch {
	case s.ID != c.sid || s.Subject != c.subject:
		return "", a.unavailable(ctx, Session{ID: c.sid, Subject: c.subject}, errors.New("auth: the store answered with another session"))
	case rotated && s.Generation == c.generation+1:
		return EventRefresh, nil
	case rotated && s.Generation == c.generation:
		a.emit(ctx, Event{Type: EventFault, Session: s, Generation: c.generation, Err: errors.New("auth: the store had lost writes; the session goes on")})
		return EventRefresh, nil
	case !rotated && s.Generation == c.generation: // it rests
		if s.Device != device {
			return EventRetry, nil
		}
		return "", nil
	case !rotated && s.Generation == c.generation+1 && age <= a.window:
		return EventRetry, nil
	case !rotated && s.Generation > c.generation:
		err := a.revokeSession(ctx, s, "reuse")
		a.emit(ctx, Event{Type: EventReuse, Session: s, Device: device, Generation: c.generation, Err: err})
		if err != nil {
			return "", err
		}
		return "", grantError{ErrTokenReused}
	}
	return "", a.unavailable(ctx, s, fmt.Errorf("auth: the store answered with generation %d to %d", s.Generation, c.generation))
}
