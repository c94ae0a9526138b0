package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// Bounds of one-time tokens and of Once.
const (
	maxPurpose     = 64
	maxOneTimeData = 256
	minOnceTTL     = time.Second
	maxOnceTTL     = 30 * 24 * time.Hour
	maxOnceID      = 128
	boundLen       = 16 // bytes of the digest of a password hash
)

// Prefixes of the IDs in [Store.Spend], so that an ID of the application never
// is that of a token.
const (
	onceApplication = "app:"
	onceToken       = "ot:"
)

// OneTime describes a one-time token: a token that is accepted once, for one
// purpose, such as a link that verifies an e-mail address or resets a password.
type OneTime struct {
	_ [0]func() // keyed literals only

	// Purpose says what the token is good for: 1 to 64 printable ASCII
	// characters without spaces, such as "verify-email". A token of one purpose is
	// never accepted for another.
	Purpose string

	// Subject is the user whom the token is about, usually User.ID: 1 to 255
	// bytes of UTF-8 without control characters. RevokeAll for this subject ends
	// the token; see [Authenticator.IssueOneTime].
	Subject string

	// TTL is how long the token lives: from a second to 30 days, rounded up to
	// whole seconds. There is no default. In the result of CheckOneTime and
	// SpendOneTime it is the time that is left.
	TTL time.Duration

	// Data is application data, at most 256 bytes. It is signed, but not
	// encrypted: whoever has the token can read it.
	Data []byte

	// BoundToPassword ends the token when the user's password hash changes. So
	// if a user has two links to reset the password, using one ends the other.
	// Subject must then be the ID of a user, who is looked up each time; the token
	// is refused if the user was deleted or is disabled. A login that replaces a
	// weak hash of the same password ([PasswordUpdater]) ends the token too: a user
	// who has just signed in does not need it.
	BoundToPassword bool
}

func (o *OneTime) check() error {
	switch {
	case !isPurpose(o.Purpose):
		return fmt.Errorf("auth: OneTime.Purpose must be 1 to %d printable ASCII characters without spaces", maxPurpose)
	case len(o.Data) > maxOneTimeData:
		return fmt.Errorf("auth: OneTime.Data is %d bytes; the limit is %d", len(o.Data), maxOneTimeData)
	}
	return firstError(checkName("OneTime.Subject", o.Subject), checkOnceTTL("OneTime.TTL", o.TTL))
}

func isPurpose(s string) bool {
	return s != "" && len(s) <= maxPurpose && isPrintable(s) && !strings.Contains(s, " ")
}

func checkOnceTTL(name string, ttl time.Duration) error {
	if err := missingUnit(name, ttl); err != nil {
		return err
	}
	if ttl < minOnceTTL || ttl > maxOnceTTL {
		return fmt.Errorf("auth: %s (%s) is not between %s and %s", name, ttl, minOnceTTL, maxOnceTTL)
	}
	return nil
}

// Once returns nil for the first call with a subject and an id, in any process,
// and [ErrSpent] for every other call until ttl is over. For example, a time-based
// code is accepted once if its time step is the id.
//
// subject is usually User.ID. id is 1 to 128 bytes of UTF-8 without control
// characters. ttl is from a second to 30 days. The store keeps a record of each
// id until ttl is over.
//
// [ErrUnavailable] means that the outcome is unknown: if the store has carried
// out the call, a repeated call returns ErrSpent. Any other error means that an
// argument is not valid.
func (a *Authenticator) Once(ctx context.Context, subject, id string, ttl time.Duration) error {
	switch {
	case len(id) > maxOnceID:
		return notStorable(fmt.Sprintf("the id of Once is %d bytes; the limit is %d", len(id), maxOnceID))
	case id == "":
		return notStorable("the id of Once is empty")
	}
	if err := checkOnceTTL("the ttl of Once", ttl); err != nil {
		return err
	}
	return a.spend(ctx, subject, onceApplication+id, a.now().Add(ttl))
}

// spend calls Store.Spend. until is the time by the clock of this process; other
// processes may be behind it by Leeway.
func (a *Authenticator) spend(ctx context.Context, subject, id string, until time.Time) error {
	if a.memory != nil { // Spend does not give it the time
		a.memory.setClock(a.now())
	}
	err := a.tryStore(ctx, "Spend", func(ctx context.Context) error {
		return a.store.Spend(ctx, subject, id, until.Add(a.leeway))
	})
	if errors.Is(err, ErrSpent) {
		return ErrSpent
	}
	return a.reportStore(ctx, Session{Subject: subject}, "Spend", err)
}

// IssueOneTime issues a one-time token. It writes nothing to the store. A link in
// a mail has the token in its query or fragment, and leads to a page whose form
// sends it by POST: programs that scan mails fetch the links in them.
//
// [Authenticator.RevokeAll] for o.Subject ends the tokens that were issued before
// it. Processes remember a RevokeAll for at least 24 hours. A token that lives
// longer may be accepted again after that, unless it is bound to a password that
// has changed. With a [MemoryStore], a token ends with the process, because the
// record that it was spent does too. The key that signs a token is derived from a
// key of Config.RefreshKeys or a secret of Config.Secrets; keep these in their list
// until the last such token has expired.
//
// The error is [ErrUserNotFound] if the token is bound to the password of a user
// who does not exist, and [ErrUnavailable] if the lookup failed. Any other error
// means that a field of o is not valid.
func (a *Authenticator) IssueOneTime(ctx context.Context, o OneTime) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	snap := a.snapshot()
	var u User
	if o.BoundToPassword {
		var err error
		if u, err = a.findByID(ctx, o.Subject); err != nil {
			return "", err
		}
	}
	return a.signOneTime(ctx, snap, o, u, loginStep{})
}

// signOneTime issues a one-time token. If it is bound to the password, u is the
// user, who was looked up after snap was taken.
func (a *Authenticator) signOneTime(ctx context.Context, snap snapshot, o OneTime, u User, login loginStep) (string, error) {
	c := oneTimeClaims{
		subject: o.Subject, purpose: o.Purpose, id: randomID(), data: o.Data, memoryID: a.memoryID,
		issuedAt: a.revoked.earliestIssue(o.Subject, "", snap), expiresAt: wholeSecond(snap.now.Add(o.TTL)), login: login,
	}
	ring := a.oneTimeKeys.ring.Load()
	if o.BoundToPassword {
		c.bound = c.digest(ring.keys[ring.signer(snap.now)].key, u)
	}
	token, err := ring.signToken(snap.now, c.payload(a.issuer, a.audience))
	if err != nil {
		return "", a.internalError(ctx, Session{Subject: o.Subject}, err)
	}
	return token, nil
}

// wholeSecond rounds t up to a whole second.
func wholeSecond(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}

// CheckOneTime verifies a one-time token of a purpose, and spends nothing. Use it
// for the page that a link in a mail leads to. It does not report whether the
// token was spent. A reset of a password calls it and then
// [Authenticator.SetPassword], which ends a token that is bound to the password.
//
// The error is one of these:
//   - [ErrTokenExpired]
//   - [ErrInvalidToken], also if RevokeAll has ended the token, or, for a token
//     that is bound to the password, if its user was deleted, is disabled or has
//     another password hash
//   - [ErrUnavailable], also while the revocation feed has not been read. If the
//     feed is stale, [StaleAskStore] is treated as [StaleRefuse].
func (a *Authenticator) CheckOneTime(ctx context.Context, purpose, token string) (OneTime, error) {
	c, err := a.checkOneTime(ctx, purpose, token)
	if err != nil {
		return OneTime{}, oneTimeError{err}
	}
	return c.describe(a.now()), nil
}

// SpendOneTime verifies a one-time token of a purpose and spends it: of all calls
// with the token, in all processes, at most one succeeds. Call it only for a
// request that a user has confirmed, such as the POST of a form. d describes the
// client, for events; see [Verifier.Device].
//
// Its errors are those of CheckOneTime, and [ErrSpent] if the token was spent
// before. After ErrSpent or ErrTokenExpired, offer the user another token. After
// [ErrUnavailable] the call can be repeated, but it returns ErrSpent if the failed
// call has spent the token. A source that sends many tokens without a valid
// signature gets [ErrThrottled] for further ones. A failover of the store may lose
// the record that a token was spent; see docs/security.md.
func (a *Authenticator) SpendOneTime(ctx context.Context, purpose, token string, d Device) (OneTime, error) {
	c, err := a.checkOneTime(ctx, purpose, token)
	if err == nil {
		err = a.spendToken(ctx, &c)
	}
	if err != nil {
		if err := a.throttleForged(ctx, d, &c, err); err != nil {
			return OneTime{}, err
		}
		return OneTime{}, a.refuseOneTime(ctx, &c, d, err)
	}
	return c.describe(a.now()), nil
}

// checkOneTime is openOneTime for a purpose of the application.
func (a *Authenticator) checkOneTime(ctx context.Context, purpose, token string) (oneTimeClaims, error) {
	if !isPurpose(purpose) {
		return oneTimeClaims{}, malformed("the purpose is not one that a token can have")
	}
	c, _, err := a.openOneTime(ctx, purpose, token)
	return c, err
}

// spendToken spends a token that openOneTime has verified.
func (a *Authenticator) spendToken(ctx context.Context, c *oneTimeClaims) error {
	if err := a.spend(ctx, c.subject, onceToken+c.id, c.expiresAt); err != nil {
		return err
	}
	// RevokeAll may have been called while the store was. This cannot fail: the token
	// is spent.
	_, err := a.revoked.find(c.times(), a.now())
	return c.notRevoked(err)
}

// refuseOneTime returns the error of SpendOneTime. It emits an event, at most
// once per cause and minute. If the signature was verified, the event has the
// subject.
func (a *Authenticator) refuseOneTime(ctx context.Context, c *oneTimeClaims, d Device, err error) error {
	f := errorParts{row: len(responses)}
	f.scan(err)
	if f.reported || f.is(ErrTokenExpired) || f.is(ErrUnavailable) {
		return oneTimeError{err}
	}
	err = oneTimeError{err}
	if n, ok := a.refusals.next(refusalKey{row: f.row, cause: "one-time " + f.cause}, a.now()); ok {
		a.emit(ctx, Event{
			Type: EventRefused, Session: Session{Subject: c.subject}, Device: cleanDevice(d), Reason: ResponseFor(err).Code, Suppressed: n, Err: err,
		})
	}
	return reportedError{err}
}

// openOneTime verifies a one-time token. If the token is bound to a password, it
// also returns the user. The claims have a subject, even together with an error,
// if the signature and the purpose are right.
func (a *Authenticator) openOneTime(ctx context.Context, purpose, token string) (oneTimeClaims, User, error) {
	signed, err := openToken(ctx, token, typOneTime, &a.oneTimeKeys)
	if err != nil {
		return oneTimeClaims{}, User{}, err
	}
	c, err := readOneTime(signed.payload, a.issuer, a.audience, purpose)
	var newer newerToken
	if err != nil && !errors.As(err, &newer) {
		return oneTimeClaims{}, User{}, err
	}
	about := Session{Subject: c.subject}
	if purpose == purposeTicket {
		switch err := c.openClaims(signed.key, a.issuer, a.audience); {
		case err == nil:
			about = c.ticket.claims.session()
		case newer == "":
			return c, User{}, err
		}
	}
	snap := a.snapshot()
	now := snap.now
	switch {
	case c.memoryID != a.memoryID:
		return c, User{}, a.refuseForeign(ctx, about, c.expiresAt)
	case !now.Before(c.expiresAt):
		return c, User{}, ErrTokenExpired
	}
	if err := c.notRevoked(a.checkRevoked(ctx, c.times(), now)); err != nil {
		return c, User{}, err
	}
	// A not-before instant of a process with a wrong clock may be far ahead. Tokens
	// count as issued at it, and the next RevokeAll is later.
	if known := a.revoked.earliestIssue(c.subject, "", snap); c.issuedAt.After(later(now.Add(a.maxIssuedAhead()), known)) {
		return c, User{}, a.tooEarly(ctx, about, "iat", c.issuedAt.Sub(now))
	}
	if newer != "" {
		a.emitLimited(ctx, "newer token", Event{Type: EventFault, Session: about, Err: newer})
		return c, User{}, reportedError{newer}
	}
	if c.bound == "" {
		return c, User{}, nil
	}
	u, err := a.findByID(ctx, c.subject)
	switch {
	case errors.Is(err, ErrUserNotFound):
		err = malformed("its user was deleted")
	case err != nil:
	case u.Disabled:
		err = malformed("its user is disabled")
	case subtle.ConstantTimeCompare([]byte(c.bound), []byte(c.digest(signed.key, u))) != 1:
		err = malformed("its user has another password hash than when it was issued")
	}
	return c, u, err
}

// notRevoked turns the error for a revocation into that of a one-time token without
// a session.
func (c *oneTimeClaims) notRevoked(err error) error {
	if c.ticket.claims == nil && errors.Is(err, ErrSessionRevoked) {
		return malformed("RevokeAll has ended it")
	}
	return err
}

// oneTimeClaims are the claims of a one-time token.
type oneTimeClaims struct {
	subject   string
	purpose   string
	id        string
	data      []byte
	bound     string    // digest of the password hash; empty if the token is not bound to it
	memoryID  string    // empty without a MemoryStore
	issuedAt  time.Time // or the subject's not-before instant, if that was later
	expiresAt time.Time
	login     loginStep
	ticket    ticketGrant
}

// times returns what revocations are compared with. Only a ticket has a session.
func (c *oneTimeClaims) times() subjectTimes {
	if c.ticket.claims != nil {
		return c.ticket.claims.times()
	}
	return subjectTimes{subject: c.subject, created: c.issuedAt}
}

func (c *oneTimeClaims) describe(now time.Time) OneTime {
	return OneTime{Purpose: c.purpose, Subject: c.subject, TTL: c.expiresAt.Sub(now), Data: c.data, BoundToPassword: c.bound != ""}
}

// digest returns a digest of the password hash of u, keyed with the key k that
// signs the token. Its input contains spaces, so it never is the input of a
// signature. It depends on the ID of the token, so that two tokens do not show
// whether the password was changed in between.
func (c *oneTimeClaims) digest(k *key, u User) string {
	sum, _ := k.sign([]byte("ratchet password hash " + c.id + " " + u.PasswordHash)) // HMAC does not fail
	return base64.RawURLEncoding.EncodeToString(sum[:boundLen])
}

func (c *oneTimeClaims) payload(issuer string, audience []string) []byte {
	w := strictjson.NewWriter(make([]byte, 0, 384))
	w.String("iss", issuer)
	w.Strings("aud", audience)
	w.String("sub", c.subject)
	w.String("purpose", c.purpose)
	w.String("jti", c.id)
	w.Int("iat", c.issuedAt.Unix())
	w.Int("exp", c.expiresAt.Unix())
	if len(c.data) > 0 {
		w.String("data", base64.RawURLEncoding.EncodeToString(c.data))
	}
	if c.bound != "" {
		w.String("bound", c.bound)
	}
	if c.memoryID != "" {
		w.String("mem_store", c.memoryID)
	}
	c.login.write(&w)
	c.ticket.write(&w)
	return w.Close()
}

// readOneTime reads the claims of a one-time token whose signature was checked.
// The error is [newerToken], with the claims, if one of them is unknown.
func readOneTime(payload, issuer string, audience []string, purpose string) (oneTimeClaims, error) {
	var c oneTimeClaims
	var iss string
	var aud []string
	var unknown error
	err := strictjson.Object(payload, maxClaims, func(name, value string) error {
		var ok bool
		switch name {
		case "iss":
			iss, ok = strictjson.String(value)
		case "aud":
			aud, ok = readAudience(value)
		case "sub":
			c.subject, ok = strictjson.String(value)
		case "purpose":
			c.purpose, ok = strictjson.String(value)
		case "jti":
			c.id, ok = strictjson.String(value)
		case "iat":
			c.issuedAt, ok = numericTime(value)
		case "exp":
			c.expiresAt, ok = numericTime(value)
		case "data":
			var text string
			if text, ok = strictjson.String(value); ok {
				c.data, ok = decodeSegment(nil, text)
			}
		case "bound":
			c.bound, ok = strictjson.String(value)
			ok = ok && c.bound != ""
		case "mem_store":
			c.memoryID, ok = strictjson.String(value)
		default:
			var known bool
			switch purpose {
			case purposeFactor:
				known, ok = c.login.read(name, value)
			case purposeTicket:
				known, ok = c.ticket.read(name, value)
			}
			if known {
				break
			}
			// A newer version may have added a condition that this one does not
			// check, so the token is not accepted here.
			if unknown == nil {
				unknown = newerToken(cutText(name, maxClaimName))
			}
			return exactName(name)
		}
		if !ok {
			return errors.New(name + " has the wrong type")
		}
		return nil
	})
	if err == nil {
		err = checkService(iss, issuer, aud, audience)
	}
	switch {
	case err != nil:
	case c.purpose != purpose:
		err = &tokenError{"claims: unexpected purpose " + quoted(c.purpose) + ", want " + quoted(purpose), "purpose", "the token is for another purpose"}
	case c.subject == "", c.id == "", c.issuedAt.IsZero(), c.expiresAt.IsZero():
		err = errors.New("sub, jti, iat or exp is missing")
	}
	if err != nil {
		return oneTimeClaims{}, invalidClaims(err)
	}
	return c, unknown
}
