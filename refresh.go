package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// RefreshOptions describes the request for a refresh. The zero value is valid.
type RefreshOptions struct {
	_ [0]func() // keyed literals only

	// Device describes the client; see [Verifier.Device].
	Device Device

	// InBody says that the tokens are not sent in cookies. The size limit of a
	// cookie then does not apply to them.
	InBody bool

	// RetryKey is the value of the header Refresh-Key, or "". The retry key of a
	// token is a secret of the client: 32 random bytes in base64url (43
	// characters). The value is the key itself, or "sha256=" and the SHA-256 of
	// these characters in base64url, which is enough for the first request with
	// the token. A request with the same token and the key itself is a late retry
	// after the retry window. Refresh returns [ErrInvalidRequest] for any other
	// value. See docs/clients.md.
	RetryKey string `json:"-" xml:"-"`

	// olderCookie is set if the refresh cookie of the request is of an earlier
	// generation than the token.
	olderCookie bool
}

// Format prints the options without the retry key.
func (o RefreshOptions) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.RefreshOptions{device %q}", o.Device.UserAgent)
}

// LogValue returns what Format prints.
func (o RefreshOptions) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// GobEncode returns an error, because RetryKey is a secret.
func (o RefreshOptions) GobEncode() ([]byte, error) {
	return nil, notEncodable("RefreshOptions", "a retry key")
}

// Refresh returns a new access token, and the refresh token that the client uses
// from now on. Usually it rotates the session: it issues a new refresh token, and
// the one presented is spent. During the cooldown, which lasts three retry
// windows after a rotation, a refresh with the current token returns that same
// token.
//
// Within the retry window, a refresh with the spent token returns the same new
// refresh token. After it, a spent token means that two clients have the token,
// so Refresh ends the session. The exception is a late retry, which has the retry
// key itself of the request that has spent the token: Refresh returns a refresh
// token of the same generation again, until the spent token or the session expires.
//
// After [ErrInvalidToken], [ErrTokenExpired], [ErrSessionRevoked] or
// [ErrTokenReused] the client must sign in again. After [ErrUnavailable] it may
// present the same token again. Any other error means that the access token
// cannot be issued, for example because it is too large for a cookie. The refresh
// token is then not spent.
func (a *Authenticator) Refresh(ctx context.Context, token string, o RefreshOptions) (Tokens, error) {
	return a.refreshWithin(ctx, token, o, false)
}

// refreshWithin is Refresh. If sparing is set, the session has the longer cooldown
// of cooldownOf.
func (a *Authenticator) refreshWithin(ctx context.Context, token string, o RefreshOptions, sparing bool) (Tokens, error) {
	key, err := parseRetryKey(o.RetryKey)
	if err != nil {
		return Tokens{}, err
	}
	c, err := a.openRefresh(ctx, token)
	var newer newerToken
	isNewer := errors.As(err, &newer)
	if err != nil && !isNewer {
		return Tokens{}, grantError{err}
	}
	s := c.session()
	snap := a.snapshot()
	cooldown := a.cooldownOf(&c.constants, sparing)
	if !snap.now.Before(a.refreshEnd(&c)) {
		return Tokens{}, grantError{ErrTokenExpired}
	}
	if known, err := a.revoked.find(c.times(), snap.now); err != nil {
		if err := a.recheckRevoked(context.WithoutCancel(ctx), known, s); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{err}
	}
	if isNewer {
		// The client keeps its token, and a process of the newer version can
		// refresh the session.
		a.emitLimited(ctx, "newer token", Event{Type: EventFault, Session: s, Device: cleanDevice(o.Device), Generation: c.generation, Err: newer})
		return Tokens{}, reportedError{newer}
	}

	u, err := a.findEnabled(ctx, c.subject)
	if err == nil && c.actor != "" {
		if _, err = a.findEnabled(ctx, c.actor); err == nil {
			err = a.knowsRevocations(ctx, snap.now)
		}
	}
	if isRefusal(err) {
		if err := a.revokeSession(ctx, s, reasonUser); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{sessionRevoked(reasonUser)}
	}
	if err != nil {
		return Tokens{}, err
	}

	// Do everything that can fail before Rotate spends the token.
	var claims map[string]any
	if a.claims != nil {
		record, err := a.getSession(ctx, s)
		if errors.Is(err, ErrSessionNotFound) {
			return Tokens{}, a.sessionGone(&c)
		}
		if err == nil && (record.ID != c.sid || record.Subject != c.subject) {
			err = a.unavailable(ctx, s, errors.New("auth: Store.Get returned another session"))
		}
		if err == nil {
			claims, err = a.sessionClaims(ctx, u, record)
		}
		if err != nil {
			return Tokens{}, err
		}
	}
	g := accessGrant{
		user: u, claims: claims, sid: c.sid, constants: c.constants, issuedAt: snap.now, countsFrom: a.countsFrom(&c, snap),
		sessionEnd: a.minSessionEnd(&c, snap.now, cooldown),
	}
	t, err := a.mintAccess(ctx, g)
	if err == nil {
		err = a.fitsCookie(t.Access, o.InBody)
	}
	if err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}

	device := cleanDevice(o.Device)
	now := a.now()
	r := Rotation{From: c.generation, At: now, NotAfter: now.Add(-cooldown), ExpiresAt: a.sessionEnd(&c.constants, now), Device: device}
	if c.generation == 1 && cooldown == a.cooldownOf(&c.constants, false) {
		r.NotAfter = later(now, c.created).Add(a.sessionTTL) // a session that was never refreshed has no cooldown
	} else if a.inOwnCooldown(&c, now) {
		r.NotAfter = time.Time{}
	}
	if key.given {
		r.RetryTag, r.SpentTag = key.tag(c.generation, c.sid), key.tag(c.generation-1, c.sid)
	}
	s, rotated, err := a.rotate(ctx, s, r)
	if err == nil && !rotated && s.Generation == c.generation && a.isAhead(s.RotatedAt, now) {
		// This is no cooldown: a wrong clock has set RotatedAt, and the session
		// could not rotate until this clock has caught up. So rotate it now,
		// which sets RotatedAt back. If another request has rotated the session
		// since, the call changes nothing.
		a.reportAhead(ctx, s, now)
		r.NotAfter = s.RotatedAt
		s, rotated, err = a.rotate(ctx, s, r)
	}
	if errors.Is(err, ErrSessionNotFound) {
		return Tokens{}, a.sessionGone(&c)
	}
	if err != nil {
		return Tokens{}, err
	}
	event, err := a.outcome(ctx, &c, s, rotated, now, device, &key)
	if err != nil {
		return Tokens{}, err
	}
	if _, err := a.revoked.find(c.times(), now); err != nil {
		return Tokens{}, grantError{err}
	}
	if s.Generation == c.generation {
		t.Refresh, t.RefreshExpiresAt, t.presented = token, a.refreshEnd(&c), !o.olderCookie
	} else {
		// Of the values from the store, the token contains only Generation,
		// RotatedAt and an earlier end.
		s.CreatedAt, s.ExpiresAt = c.created, earlier(s.ExpiresAt, a.absoluteEnd(&c.constants))
		issued := s
		// A process with shorter lifetimes may have rotated the session. So it may end
		// before minSessionEnd even if the retry is not late.
		if event == EventLateRetry || !rotated && s.ExpiresAt.Before(g.sessionEnd) {
			if t, err = a.retryAccess(ctx, g, s, o.InBody); err != nil {
				return Tokens{}, err
			}
		}
		if event == EventLateRetry {
			issued.RotatedAt = ceilSecond(now)
		}
		if err := a.mintRefresh(&t, issued, &c.constants); err != nil { // HMAC, and its size was checked by New
			return Tokens{}, a.internalError(ctx, s, err)
		}
		t.Rotated = true
	}
	if rotated {
		a.reportUsedAgain(ctx, &key, s, Event{Device: device, Generation: c.generation})
	}
	if event != "" {
		a.emit(ctx, Event{Type: event, Session: s, Device: device, Generation: c.generation})
	}
	return t, nil
}

// rotate calls Store.Rotate for the session of.
func (a *Authenticator) rotate(ctx context.Context, of Session, r Rotation) (s Session, rotated bool, err error) {
	type result struct {
		s       Session
		rotated bool
	}
	got, err := askStore(a, ctx, "Rotate", func(ctx context.Context) (got result, err error) {
		got.s, got.rotated, err = a.store.Rotate(ctx, of.Subject, of.ID, r)
		return got, err
	})
	return got.s, got.rotated, a.reportStore(ctx, of, "Rotate", err)
}

// retryAccess returns the access token of a retry, which rotates nothing. So the
// session ends at its ExpiresAt, which is known only after Rotate. Nothing is
// spent, so the client can try again after any error. g is that of the first access
// token.
func (a *Authenticator) retryAccess(ctx context.Context, g accessGrant, s Session, inBody bool) (Tokens, error) {
	g.sessionEnd = s.ExpiresAt
	t, err := a.mintAccess(ctx, g)
	if err == nil {
		err = a.fitsCookie(t.Access, inBody)
	}
	if err != nil {
		return Tokens{}, a.unavailable(ctx, s, err)
	}
	return t, nil
}

// sessionGone returns the error for a refresh token whose session is not in the
// store.
func (a *Authenticator) sessionGone(c *refreshClaims) error {
	if _, revoked := a.revoked.find(c.times(), a.now()); revoked != nil { // it was revoked meanwhile
		return grantError{revoked}
	}
	return grantError{ErrSessionRevoked}
}

// knowsRevocations returns an error unless this process has read the revocation
// feed. A session with an actor is refreshed only then: it ends with the sessions of
// the actor, which the store cannot tell.
func (a *Authenticator) knowsRevocations(ctx context.Context, now time.Time) error {
	if err := a.checkReady(ctx); err != nil {
		return err
	}
	if a.isStale(ctx, now) && a.stalePolicy != StaleContinue {
		return reportedError{errStale}
	}
	return nil
}

func (a *Authenticator) isAhead(rotated, now time.Time) bool { return rotated.After(now.Add(a.leeway)) }

func (a *Authenticator) reportAhead(ctx context.Context, s Session, now time.Time) {
	a.emit(ctx, Event{Type: EventFault, Session: s, Err: fmt.Errorf("auth: RotatedAt of the session is %s ahead of this clock", s.RotatedAt.Sub(now))})
}

// outcome interprets the result of Rotate: the session s, and whether it was
// rotated. The caller emits the returned event, if any, when it knows that the
// refresh succeeds.
func (a *Authenticator) outcome(ctx context.Context, c *refreshClaims, s Session, rotated bool, now time.Time, device Device, key *retryKey) (EventType, error) {
	if a.isAhead(s.RotatedAt, now) {
		a.reportAhead(ctx, s, now)
	}
	age := max(0, now.Sub(s.RotatedAt))
	switch {
	case s.ID != c.sid || s.Subject != c.subject:
		return "", a.unavailable(ctx, Session{ID: c.sid, Subject: c.subject}, errors.New("auth: Store.Rotate returned another session"))
	case rotated && s.Generation == c.generation+1:
		return EventRefresh, nil
	case rotated && s.Generation == c.generation:
		err := errors.New("auth: the store has lost writes of the session; the session continues")
		a.emit(ctx, Event{Type: EventFault, Session: s, Generation: c.generation, Err: err})
		return EventRefresh, nil
	case !rotated && s.Generation == c.generation: // in its cooldown
		if s.Device != device {
			return EventRetry, nil
		}
		return "", nil
	case !rotated && s.Generation == c.generation+1 && (age <= a.windowOf(&c.constants) || key.repeats(c.generation, s)):
		if end := earlier(s.ExpiresAt, a.absoluteEnd(&c.constants)); !now.Before(end.Truncate(time.Second)) {
			return "", grantError{ErrTokenExpired}
		}
		if age <= a.windowOf(&c.constants) {
			return EventRetry, nil
		}
		return EventLateRetry, nil
	case !rotated && s.Generation > c.generation:
		err := a.revokeSession(ctx, s, reasonReuse)
		a.emit(ctx, Event{Type: EventReuse, Session: s, Device: device, Generation: c.generation, Err: err})
		if err != nil {
			return "", err
		}
		return "", grantError{ErrTokenReused}
	}
	want := fmt.Sprintf("%d or later", c.generation)
	if rotated {
		want = fmt.Sprintf("%d or %d", c.generation, c.generation+1)
	}
	return "", a.unavailable(ctx, s, fmt.Errorf("auth: Store.Rotate returned generation %d, want %s", s.Generation, want))
}
