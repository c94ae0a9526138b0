package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// SecondFactor is the application's second step between the password and the
// session. Its methods are called concurrently.
type SecondFactor interface {
	// Methods returns the methods with which u can take the second step, such as
	// "otp" and "recovery": at most 8, each a value for the claim amr (RFC 8176) of
	// at most 32 bytes. An empty list means that this login needs no second step. A
	// user who must set up a second factor first gets a method for that, such as
	// "enroll", whose response confirms the new factor. Methods is called after the
	// password was proved, and again for each response. d describes the client of
	// that request.
	//
	// An error means that the methods are not known: the caller returns
	// [ErrUnavailable].
	Methods(ctx context.Context, u User, d Device) ([]string, error)

	// Verify checks the response of one of the methods that Methods has returned.
	// [ErrInvalidCredentials] or [password.ErrMismatch] means that the response is
	// wrong, and [ErrSpent], as from [Authenticator.Once], that it was used before.
	// Any other error means that the response could not be checked: the caller
	// returns [ErrUnavailable]. Verify is not called for a response that is not UTF-8 or
	// has a NUL byte, which some databases do not accept; it counts as wrong.
	//
	// An error must not contain the response, because it is logged. If Verify
	// accepts a response, it may still be that no session is opened: another
	// response to the same challenge was accepted first, or the store failed.
	Verify(ctx context.Context, u User, method, response string) error
}

// ErrFactorRequired means that the password is right, and that a second factor is
// required. [FactorError] has the details.
var ErrFactorRequired = errors.New("auth: a second factor is required")

// FactorError is the error of [Authenticator.Login] if Config.SecondFactor
// requires a second step, and of [Authenticator.LoginFactor] if the response was
// wrong and may be corrected. It wraps [ErrFactorRequired], and in the second case
// also [ErrInvalidCredentials]. Find it with errors.As and a *FactorError, before
// you test for ErrInvalidCredentials. [ResponseFor] returns status 401 with the
// action "factor".
//
// Printing shows neither the challenge nor the subject, and encoding/json and
// encoding/xml omit both.
type FactorError struct {
	// Challenge proves the password. Pass it to LoginFactor with a response. The
	// client keeps it, for example in a hidden field of the second form.
	Challenge string `json:"-" xml:"-"`

	// Subject is the ID of the user whose password was proved, for a page on which
	// the user sets up a second factor. Do not send it to the client.
	Subject string `json:"-" xml:"-"`

	Methods   []string  // what SecondFactor.Methods returned
	ExpiresAt time.Time // when the challenge expires

	expiresIn int64 // in seconds, when the error occurred
	wrong     bool  // a response was wrong
}

// Error returns a text without the challenge.
func (e *FactorError) Error() string {
	if e.wrong {
		return ErrInvalidCredentials.Error() + ": the response to the second factor is wrong"
	}
	return ErrFactorRequired.Error()
}

// Unwrap returns the sentinel errors.
func (e *FactorError) Unwrap() []error {
	if e.wrong {
		return []error{ErrFactorRequired, ErrInvalidCredentials}
	}
	return []error{ErrFactorRequired}
}

// Format prints the text of the error.
func (e FactorError) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, e.Error()) }

// LogValue returns the text of the error.
func (e FactorError) LogValue() slog.Value { return slog.StringValue(e.Error()) }

// GobEncode returns an error, because the challenge is a token.
func (e FactorError) GobEncode() ([]byte, error) { return nil, notEncodable("FactorError", "a token") }

const (
	// purposeFactor is the purpose of challenges. An application cannot issue or
	// check a token of this purpose, because it contains a space.
	purposeFactor = "login factor"

	challengeTTL    = 5 * time.Minute
	maxAttempts     = 5 // responses to one challenge
	maxMethods      = 8
	multipleFactors = "mfa" // RFC 8176 section 2
)

// loginStep is what a challenge carries from the first step of a login to the
// second. It is zero in other one-time tokens.
type loginStep struct {
	amr  []string
	name string // SessionOptions.Name
	terms
}

// write adds the claims of a challenge.
func (l *loginStep) write(w *strictjson.Writer) {
	if len(l.amr) > 0 {
		w.Strings("amr", l.amr)
	}
	if l.name != "" {
		w.String("name", l.name)
	}
	l.writeTerms(w, l.created)
}

// read reads a claim that write wrote. known reports whether it is one, and ok
// whether its value is valid.
func (l *loginStep) read(name, value string) (known, ok bool) {
	switch name {
	case "amr":
		l.amr, ok = strictjson.Strings(nil, value)
	case "name":
		l.name, ok = strictjson.String(value)
	case claimCreated: // no challenge has it
		return false, false
	default:
		return l.readTerms(name, value)
	}
	return true, ok
}

// factorMethods calls SecondFactor.Methods. The list is empty if there is no
// second factor.
func (a *Authenticator) factorMethods(ctx context.Context, u User, d Device) (methods []string, err error) {
	if a.factor == nil {
		return nil, nil
	}
	about := Session{Subject: u.ID}
	methods, err = callBounded(a.Verifier, ctx, "SecondFactor.Methods", a.hookTimeout, func(ctx context.Context) ([]string, error) { return a.factor.Methods(ctx, u, d) })
	if err != nil {
		return nil, a.unavailable(ctx, about, fmt.Errorf("auth: SecondFactor.Methods: %w", detail{err}))
	}
	if len(methods) > maxMethods {
		return nil, a.internalError(ctx, about, fmt.Errorf("auth: SecondFactor.Methods returned %d methods; the limit is %d", len(methods), maxMethods))
	}
	for i, m := range methods {
		if !isAMR(m) {
			return nil, a.internalError(ctx, about, fmt.Errorf("auth: SecondFactor.Methods: element %d must be %s", i, amrRule))
		}
	}
	return methods, nil
}

// requireFactor returns the error with which a login ends whose password was
// proved and which needs a second step. The user was looked up after snap was
// taken.
func (a *Authenticator) requireFactor(ctx context.Context, snap snapshot, u User, o SessionOptions, methods []string, recheck func(User) error) error {
	// The hash may have changed since u was looked up.
	fresh, err := a.freshUser(ctx, Session{Subject: u.ID}, recheck)
	if isRefusal(err) {
		return a.refuseLogin(ctx, u.ID, o.Device, err)
	}
	if err != nil {
		return err
	}
	login := loginStep{o.AMR, o.Name, terms{ephemeral: o.Ephemeral, idleTTL: o.IdleTTL, sessionTTL: o.SessionTTL}}
	challenge, err := a.signOneTime(ctx, snap, OneTime{Purpose: purposeFactor, Subject: u.ID, TTL: challengeTTL, BoundToPassword: true}, fresh, login)
	if err != nil {
		return err
	}
	return a.factorError(challenge, u.ID, methods, wholeSecond(snap.now.Add(challengeTTL)), false)
}

func (a *Authenticator) factorError(challenge, subject string, methods []string, expires time.Time, wrong bool) error {
	return &FactorError{challenge, subject, slices.Clone(methods), expires, secondsLeft(expires, a.now()), wrong}
}

// LoginFactor completes a login that needed a second factor: it verifies a
// response to the challenge of a [FactorError], and opens the session. method is
// one of its Methods.
//
// The challenge carries AMR, Name, Ephemeral, IdleTTL and SessionTTL of
// [Authenticator.Login]; they must not be set in o. The AMR of the session also
// has the method and "mfa". Device, Data, Replaces and InBody are those of this
// request; Data and Replaces that were passed to Login have no effect. A
// challenge lives for five minutes, and ends with the user's password and by
// [Authenticator.RevokeAll].
//
// After a wrong response, the error is a [FactorError] that wraps
// [ErrInvalidCredentials], and the same challenge can be used again. A challenge
// has five attempts. Each is counted before the response is verified, even if
// SecondFactor.Verify then fails; an empty response is wrong, but not counted. The
// attempts also count for the user, and LoginFactor returns [ErrThrottled] as
// [Authenticator.Login] does. A right response spends the challenge: of several
// concurrent calls, at most one opens a session.
//
// After [ErrInvalidToken], [ErrTokenExpired], [ErrSpent], and an
// [ErrInvalidCredentials] without a FactorError, the user must sign in again. The
// last means that the fifth response was wrong, or that the user was changed during
// the call. [ErrInvalidRequest] means that SecondFactor.Methods does not return
// method for this user. After [ErrUnavailable] the call can be repeated. It returns
// ErrSpent if the challenge was spent already. The other errors are those of Login.
func (a *Authenticator) LoginFactor(ctx context.Context, challenge, method, response string, o SessionOptions) (Tokens, error) {
	snap, d := a.snapshot(), o.Device
	switch {
	case a.factor == nil:
		return Tokens{}, &describedError{fmt.Errorf("%w: Config.SecondFactor is nil", errEndpoint), "there is no second factor here"}
	case len(o.AMR) > 0 || o.Name != "" || o.Ephemeral || o.IdleTTL != 0 || o.SessionTTL != 0 || o.Actor != "":
		return Tokens{}, errors.New("auth: LoginFactor: SessionOptions.AMR, Name, Ephemeral, IdleTTL, SessionTTL and Actor must not be set, because the challenge carries those of Login")
	}
	if err := a.checkOptions(&o); err != nil {
		return Tokens{}, err
	}
	c, u, err := a.openOneTime(ctx, purposeFactor, challenge)
	if err != nil {
		if err := a.throttleForged(ctx, d, &c, err); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, a.refuseChallenge(ctx, &c, o.Device, err)
	}
	methods, err := a.factorMethods(ctx, u, o.Device)
	if err != nil {
		return Tokens{}, err
	}
	if !slices.Contains(methods, method) {
		return Tokens{}, requestError("the user does not have this method")
	}
	if response == "" { // a field that the user has left empty is no attempt
		return Tokens{}, a.factorError(challenge, u.ID, methods, c.expiresAt, true)
	}
	var t Tokens
	err = a.throttle(ctx, attemptFactor, u.ID, []Bucket{accountBucket(u.ID)}, d, func() error {
		last, err := a.countAttempt(ctx, &c)
		if err != nil {
			return a.refuseChallenge(ctx, &c, o.Device, err)
		}
		switch right, err := a.verifyFactor(ctx, u, method, response); {
		case err != nil:
			return err
		case !right && last:
			return a.refuseLogin(ctx, u.ID, o.Device, refusal("wrong response to the second factor "+method+"; no attempts are left"))
		case !right:
			_ = a.refuseLogin(ctx, u.ID, o.Device, refusal("wrong response to the second factor "+method))
			return a.factorError(challenge, u.ID, methods, c.expiresAt, true)
		}
		t, err = a.finishFactor(ctx, snap, &c, u, method, o)
		return err
	}, attemptPassword)
	return t, err
}

// finishFactor opens the session of a login whose second factor was proved.
func (a *Authenticator) finishFactor(ctx context.Context, snap snapshot, c *oneTimeClaims, u User, method string, o SessionOptions) (Tokens, error) {
	o.AMR = slices.Clone(c.login.amr)
	for _, m := range []string{method, multipleFactors} {
		if !slices.Contains(o.AMR, m) {
			o.AMR = append(o.AMR, m)
		}
	}
	o.Name, o.Ephemeral = c.login.name, c.login.ephemeral
	// The lifetimes may be those of a process with another Config.
	o.IdleTTL, o.SessionTTL = min(c.login.idleTTL, a.idleTTL), min(c.login.sessionTTL, a.sessionTTL)
	t, err := a.openSession(ctx, snap, u, o, proof{
		spend: func(ctx context.Context) error { return a.spendToken(ctx, c) },
		recheck: func(fresh User) error {
			if fresh.PasswordHash != u.PasswordHash {
				return refusal("the password was changed")
			}
			return nil
		},
	})
	if err != nil {
		return Tokens{}, a.refuseChallenge(ctx, c, o.Device, err)
	}
	return t, nil
}

// countAttempt counts a response before it is verified, so that a burst of
// responses cannot exceed the limit: the store spends each attempt once. last
// reports whether this is the last one.
func (a *Authenticator) countAttempt(ctx context.Context, c *oneTimeClaims) (last bool, err error) {
	for i := 1; i <= maxAttempts; i++ {
		err = a.spend(ctx, c.subject, onceToken+c.id+":"+strconv.Itoa(i), c.expiresAt)
		if !errors.Is(err, ErrSpent) {
			return i == maxAttempts, err
		}
	}
	return true, fmt.Errorf("%w: no attempts are left for the challenge", ErrSpent)
}

// verifyFactor calls SecondFactor.Verify.
func (a *Authenticator) verifyFactor(ctx context.Context, u User, method, response string) (right bool, err error) {
	if !isSearchable(response) {
		return false, nil
	}
	err = a.runHook(ctx, "SecondFactor.Verify", a.hookTimeout, func(ctx context.Context) error { return a.factor.Verify(ctx, u, method, response) })
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, ErrUnavailable) && (errors.Is(err, ErrSpent) || isWrongSecret(err)):
		return false, nil
	}
	return false, a.unavailable(ctx, Session{Subject: u.ID}, fmt.Errorf("auth: SecondFactor.Verify: %w", detail{err}))
}

// refuseChallenge returns the error of LoginFactor for a challenge that cannot be
// used: the client signs in again. If the challenge was issued here, it emits an
// event.
func (a *Authenticator) refuseChallenge(ctx context.Context, c *oneTimeClaims, d Device, err error) error {
	f := errorParts{row: len(responses)}
	f.scan(err)
	if !f.is(ErrInvalidToken) && !f.is(ErrTokenExpired) && !f.is(ErrSpent) {
		return err
	}
	if c.subject != "" && !f.reported {
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: c.subject}, Device: d, Err: err})
		err = reportedError{err}
	}
	return grantError{err}
}
