package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// Bounds of SessionOptions.AMR.
const (
	maxAMR     = 8
	maxAMRText = 32
	amrRule    = "1 to 32 printable ASCII characters without space, quote or backslash"
)

func isAMR(method string) bool { return isScope(method) && len(method) <= maxAMRText }

// SessionOptions describes the session that a login opens. The zero value is
// valid.
type SessionOptions struct {
	_ [0]func() // keyed literals only

	Device Device
	Name   string   // the user's name for the device; control characters are removed, and it is truncated to 100 bytes
	AMR    []string // authentication methods (amr, RFC 8176): at most 8 of at most 32 bytes each; Login sets "pwd" if empty
	Data   []byte   // application data to store with the session, at most 900 bytes; Session.Data returns it

	// Ephemeral says that the browser drops the cookies when it is closed: they
	// have no Max-Age, and a refresh does not add one. It is for a login for which
	// "remember me" was not ticked. It has no effect on the lifetimes of the
	// session. Many browsers keep such cookies if they restore their tabs, so set
	// a short IdleTTL too if that matters.
	Ephemeral bool

	// IdleTTL and SessionTTL are lifetimes of this session. They are truncated to
	// milliseconds, and cannot be longer than those of [Config]; 0 means the same
	// as those. Each must be at least 3·RetryWindow + AccessTTL + Leeway. If both
	// are set, SessionTTL must be at least IdleTTL. If Config is later changed to
	// shorter lifetimes, those apply.
	IdleTTL    time.Duration
	SessionTTL time.Duration

	// Actor is the ID of the user who acts for the user of the session, such as
	// an administrator who looks at the application as a customer sees it. Only
	// [Authenticator.StartSession] accepts it. Tokens have it in the claim act
	// (RFC 8693 section 4.1) and in [Claims].Actor.
	//
	// The session lives for at most an hour, which is the default for its
	// SessionTTL. In the rule for the least IdleTTL and SessionTTL, an AccessTTL of
	// more than a minute counts as a minute. [Authenticator.RevokeAll] for the
	// actor ends the session, and so does its next refresh if the actor was deleted
	// or disabled. Config.MaxSessions counts the sessions of a user separately for
	// each actor, so this session never causes one of the user's own to end.
	//
	// A session with an actor cannot open another one: StartSession returns
	// [ErrForbidden] if ctx carries the claims of such a session ([FromContext]),
	// as the context of a request does behind [Verifier.Require].
	Actor string

	// Replaces lists access and refresh tokens that the client had before the
	// login, such as those of [Authenticator.CookieTokens]. The login ends the
	// session of each token that this service signed, of any user, even if the
	// token has expired. If the store does not confirm that, the login succeeds
	// anyway: this process refuses these sessions, and [Verifier.Run] repeats the
	// revocation until the store confirms it.
	Replaces []string `json:"-" xml:"-"`

	// InBody says that the tokens are not sent in cookies. The size limit of a
	// cookie then does not apply to them.
	InBody bool
}

// Format prints the options without the tokens in Replaces.
func (o SessionOptions) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.SessionOptions{device %q amr %q}", o.Name, o.AMR)
}

// GobEncode returns an error, because Replaces contains tokens.
func (o SessionOptions) GobEncode() ([]byte, error) {
	return nil, notEncodable("SessionOptions", "tokens")
}

// LogValue returns what Format prints.
func (o SessionOptions) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// maxAppData bounds SessionOptions.Data, so that Session.Opaque has room for the
// name too.
const maxAppData = 900

func (o *SessionOptions) clean() error {
	o.Device = cleanDevice(o.Device)
	o.Name = cleanText(o.Name, maxDeviceName)
	if len(o.Data) > maxAppData {
		return fmt.Errorf("auth: SessionOptions.Data is %d bytes; the limit is %d", len(o.Data), maxAppData)
	}
	if len(o.AMR) > maxAMR {
		return fmt.Errorf("auth: SessionOptions.AMR has %d entries; the limit is %d", len(o.AMR), maxAMR)
	}
	for i, m := range o.AMR {
		if !isAMR(m) {
			return fmt.Errorf("auth: SessionOptions.AMR[%d] must be %s", i, amrRule)
		}
	}
	if o.Actor != "" {
		if err := checkName("SessionOptions.Actor", o.Actor); err != nil {
			return fmt.Errorf("auth: %w", detail{err})
		}
	}
	return nil
}

// checkOptions cleans o and checks it against the configuration.
func (a *Authenticator) checkOptions(o *SessionOptions) error {
	if err := o.clean(); err != nil {
		return err
	}
	return a.checkLifetimes(o)
}

// checkLifetimes checks the lifetimes of o against the configuration, and sets that
// of a session with an actor.
func (a *Authenticator) checkLifetimes(o *SessionOptions) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("auth: SessionOptions."+format, args...)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		limit time.Duration
	}{{"IdleTTL", &o.IdleTTL, a.idleTTL}, {"SessionTTL", &o.SessionTTL, a.sessionTTL}} {
		if err := missingUnit("SessionOptions."+d.name, *d.value); err != nil {
			return err
		}
		if *d.value < 0 || *d.value > d.limit {
			return bad("%s (%s) must be from 0 to Config.%s (%s)", d.name, *d.value, d.name, d.limit)
		}
		*d.value = d.value.Truncate(time.Millisecond)
	}
	access, term := a.accessTTL, "Config.AccessTTL"
	if o.Actor != "" {
		if o.SessionTTL > maxActingTTL {
			return bad("SessionTTL (%s) exceeds %s, which is the limit for a session with an Actor", o.SessionTTL, maxActingTTL)
		}
		if o.SessionTTL == 0 {
			o.SessionTTL = min(maxActingTTL, a.sessionTTL)
		}
		access, term = min(access, minActingAccess), "Config.AccessTTL, at most 1m,"
	}
	if o.IdleTTL > 0 && o.SessionTTL > 0 && o.IdleTTL > o.SessionTTL {
		return bad("IdleTTL (%s) exceeds SessionOptions.SessionTTL (%s)", o.IdleTTL, o.SessionTTL)
	}
	least := cooldownWindows*max(0, a.window) + access + a.leeway
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"IdleTTL", o.IdleTTL}, {"SessionTTL", o.SessionTTL}} {
		if d.value > 0 && d.value < least {
			return bad("%s (%s) is less than %s: three times Config.RetryWindow plus %s plus Config.Leeway", d.name, d.value, least, term)
		}
	}
	return nil
}

// longestSubject returns the subject whose JSON is longest.
func longestSubject() string { return strings.Repeat("<", maxSubject-2) + "é" }

// checkActorSize returns an error if a refresh token with this subject and actor
// may be larger than the one for which New has checked that it fits into a cookie.
func checkActorSize(subject, actor string) error {
	size := func(s string) int {
		w := strictjson.NewWriter(nil)
		w.String("", s)
		return len(w.Close())
	}
	if actor != "" && size(subject)+size(actor) > size(longestSubject())+size("x") {
		return errors.New("auth: User.ID and SessionOptions.Actor are too long together: " +
			"they have many characters that JSON writes as six")
	}
	return nil
}

// Login checks a password and opens a session.
//
// It returns [ErrInvalidCredentials] if the user does not exist, the password is
// wrong, or the user is disabled. The three cases take the same time; see
// [password.Hasher.Verify] about hashes of different kinds. Only the event
// [EventLoginRefused] says which it was. [password.ErrBusy] and [ErrUnavailable]
// mean that the password could not be checked or the session could not be
// opened. Any other error means that o is invalid, or that the tokens cannot be
// issued. For example, the access token is too large for a cookie.
//
// After too many failed attempts for the account or from the source of o.Device,
// Login returns [ErrThrottled] without hashing the password; see Config.Limiter.
//
// If Config.SecondFactor requires a second step, Login opens no session, and
// returns a [FactorError] for [Authenticator.LoginFactor].
func (a *Authenticator) Login(ctx context.Context, login, pass string, o SessionOptions) (Tokens, error) {
	snap, d := a.snapshot(), o.Device
	if len(o.AMR) == 0 {
		o.AMR = []string{"pwd"}
	}
	if o.Actor != "" {
		return Tokens{}, errors.New("auth: SessionOptions.Actor is set, but the password is that of the user; call StartSession to act for a user")
	}
	if err := a.checkOptions(&o); err != nil {
		return Tokens{}, err
	}
	if limit := maxAMR - 2; a.factor != nil && len(o.AMR) > limit {
		return Tokens{}, fmt.Errorf("auth: SessionOptions.AMR has %d entries; with Config.SecondFactor, which adds two, the limit is %d", len(o.AMR), limit)
	}
	var t Tokens
	err := a.withPassword(ctx, login, pass, d, func(ctx context.Context, u User) error {
		recheck := func(fresh User) error {
			if fresh.PasswordHash == u.PasswordHash {
				return nil
			}
			return a.checkPassword(ctx, fresh, pass)
		}
		methods, err := a.factorMethods(ctx, u, o.Device)
		if err != nil {
			return err
		}
		if len(methods) > 0 {
			return a.requireFactor(ctx, snap, u, o, methods, recheck)
		}
		t, err = a.openSession(ctx, snap, u, o, proof{recheck: recheck})
		return err
	})
	return t, err
}

// StartSession opens a session for a user whom the application has authenticated
// by other means, such as OAuth, a passkey or a magic link. Name the method in
// SessionOptions.AMR. It returns [ErrInvalidCredentials] if the user does not
// exist or is disabled. Its other errors are those of [Authenticator.Login],
// except password.ErrBusy and ErrThrottled.
//
// StartSession does not ask Config.SecondFactor for a second step: the application
// has decided that its proof suffices, and says so in SessionOptions.AMR. A magic
// link, for example, replaces the password and not the second factor.
//
// With SessionOptions.Actor, it opens a session in which another user acts for the
// user. The application decides who may act for whom. It returns
// [ErrInvalidCredentials] also if the actor does not exist or is disabled. It
// returns [ErrForbidden] if ctx carries the claims of a session with an actor, even
// if SessionOptions.Actor is empty: such a session cannot open another one.
func (a *Authenticator) StartSession(ctx context.Context, userID string, o SessionOptions) (Tokens, error) {
	snap := a.snapshot()
	if c, ok := FromContext(ctx); ok && c.Actor != "" {
		return Tokens{}, fmt.Errorf("%w: a session with an actor cannot open another one", ErrForbidden)
	}
	if err := a.checkOptions(&o); err != nil {
		return Tokens{}, err
	}
	u, err := a.findEnabled(ctx, userID)
	if isRefusal(err) {
		return Tokens{}, a.refuseLogin(ctx, u.ID, o.Device, err)
	}
	if err != nil {
		return Tokens{}, err
	}
	return a.openSession(ctx, snap, u, o, proof{recheck: func(User) error { return nil }})
}

// refuseLogin emits an event that says why a login was refused, and returns the
// error of the login, which does not say it.
func (a *Authenticator) refuseLogin(ctx context.Context, subject string, d Device, why error) error {
	a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: subject}, Device: d, Err: why})
	return ErrInvalidCredentials
}

// refusal returns an ErrInvalidCredentials for the event EventLoginRefused. The
// caller of Login does not see its text.
func refusal(why string) error { return fmt.Errorf("%w: %s", ErrInvalidCredentials, why) }

// isRefusal reports whether err means that the login was refused. It is false
// for an ErrUnavailable whose cause, an error of the application, happens to
// wrap ErrInvalidCredentials.
func isRefusal(err error) bool {
	return errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrUnavailable)
}

// userError is the error for a user whom the application returned but who cannot
// be used. It is a mistake in the application or its data. Repeating the request
// does not help, so the response is status 500, not 503.
type userError struct{ error }

func (e *userError) Unwrap() error { return e.error }

// unusableUser is the error of checkUser for a user with an ID whom a method of Users
// has returned. It writes its text only when asked, so that a refused login does not
// take longer.
type unusableUser struct {
	method, id string
	err        error
}

func (e unusableUser) Error() string {
	return fmt.Sprintf("auth: Users.%s returned the user %s: %s", e.method, quoted(e.id), detail{e.err})
}

// subjectOf returns the subject of events about u, or "" if the ID of u may be
// the mistake e.
func (e *userError) subjectOf(u User) string {
	if e != nil {
		return ""
	}
	return u.ID
}

// findUser calls a method of Users and checks the user that it returns. The error
// is ErrUserNotFound, ErrUnavailable or, with the user, a userError.
func (a *Authenticator) findUser(ctx context.Context, name, key string, find func(context.Context, string) (User, error)) (User, error) {
	if !isSearchable(key) {
		return User{}, ErrUserNotFound
	}
	u, err := callBounded(a.Verifier, ctx, "Users."+name, a.hookTimeout, func(ctx context.Context) (User, error) { return find(ctx, key) })
	if err == nil {
		if err := checkUser(&u); err != nil {
			return u, &userError{unusableUser{name, u.ID, err}}
		}
		return u, nil
	}
	if errors.Is(err, ErrUserNotFound) {
		return User{}, ErrUserNotFound
	}
	return User{}, a.unavailable(ctx, Session{}, fmt.Errorf("auth: Users.%s: %w%s", name, detail{err}, lookupAdvice(err)))
}

// isSearchable reports whether the application can look up a text of a client in
// any database: it is UTF-8 without NUL bytes. For other texts, PostgreSQL returns an
// error, which would look like an outage.
func isSearchable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// lookupAdvice returns the end of an error text if err, of a user lookup, looks
// like the error of a database that has no such user.
func lookupAdvice(err error) string {
	text := strings.ToLower(fmt.Sprint(err)) // Sprint recovers a panic of Error
	for _, none := range [...]string{"no rows", "not found", "no documents"} {
		if strings.Contains(text, none) {
			return "; return auth.ErrUserNotFound if the user does not exist"
		}
	}
	return ""
}

// findByID looks up a user by ID. The error is ErrUserNotFound, ErrUnavailable
// or an error that was reported and has status 500.
func (a *Authenticator) findByID(ctx context.Context, id string) (User, error) {
	u, err := a.findUser(ctx, "FindByID", id, a.users.FindByID)
	var unusable *userError
	switch {
	case errors.As(err, &unusable):
	case err == nil && u.ID != id:
		unusable = &userError{fmt.Errorf("auth: Users.FindByID(%s) returned the user %s: FindByID must return the user with exactly that ID", quoted(id), quoted(u.ID))}
	default:
		return u, err
	}
	return User{}, a.internalError(ctx, Session{}, unusable)
}

// findEnabled is findByID for a user who can have sessions. For a user who does not
// exist or is disabled, the error is a refusal.
func (a *Authenticator) findEnabled(ctx context.Context, id string) (User, error) {
	u, err := a.findByID(ctx, id)
	switch {
	case errors.Is(err, ErrUserNotFound):
		err = refusal("FindByID does not find the user " + quoted(id))
	case err == nil && u.Disabled:
		err = refusal("user is disabled")
	}
	return u, err
}

// proof is why a session is opened, and what is left to do about the credentials.
type proof struct {
	continues *Session                        // the session that Continue replaces; nil for a login
	spend     func(ctx context.Context) error // called just before the session is created; nil if there is nothing to spend
	recheck   func(fresh User) error          // called once the session exists
}

// openSession opens a session for u, whose credentials were proved: this is the
// second half of every login. u was looked up after snap was taken. Once the
// session exists, openSession looks up the user again and calls p.recheck, so that
// a change to the user during the login takes effect.
func (a *Authenticator) openSession(ctx context.Context, snap snapshot, u User, o SessionOptions, p proof) (Tokens, error) {
	if err := a.callOnLogin(ctx, u, &o); err != nil {
		return Tokens{}, err
	}
	created := a.revoked.earliestIssue(u.ID, o.Actor, snap)
	k := constants{
		amr: o.AMR, authTime: created, actor: o.Actor,
		terms: terms{created: created, ephemeral: o.Ephemeral, idleTTL: o.IdleTTL, sessionTTL: o.SessionTTL},
	}
	s := Session{Subject: u.ID, CreatedAt: created, Device: o.Device, Opaque: joinData(o.Actor, o.Name, o.Data)}
	t, err := a.createSession(ctx, snap, u, s, &k, o, p)
	switch {
	case isRefusal(err):
		return Tokens{}, a.refuseLogin(ctx, u.ID, o.Device, err)
	case errors.Is(err, ErrTooManySessions):
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: o.Device, Err: err})
		return Tokens{}, reportedError{err}
	case err != nil:
		return Tokens{}, err
	}
	return t, nil
}

// callOnLogin calls Config.OnLogin and checks the options that it has set.
func (a *Authenticator) callOnLogin(ctx context.Context, u User, o *SessionOptions) error {
	if a.onLogin == nil {
		return nil
	}
	given, own := *o, *o // an abandoned call may change its own later
	own.AMR, own.Data, own.Replaces = slices.Clone(o.AMR), slices.Clone(o.Data), slices.Clone(o.Replaces)
	changed, err := callBounded(a.Verifier, ctx, "Config.OnLogin", a.hookTimeout, func(ctx context.Context) (*SessionOptions, error) {
		return &own, a.onLogin(ctx, u, &own)
	})
	switch {
	case err != nil && errors.Is(err, ErrForbidden):
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: o.Device, Err: err})
		return reportedError{err}
	case err != nil:
		return a.unavailable(ctx, Session{Subject: u.ID}, fmt.Errorf("auth: Config.OnLogin: %w", detail{err}))
	}
	*o = *changed
	switch {
	case o.Actor != given.Actor:
		err = errors.New("auth: Config.OnLogin has changed SessionOptions.Actor")
	default:
		err = o.clean()
	}
	// Lifetimes that OnLogin has not changed were checked before, but perhaps in a
	// process with another Config: those of a challenge are then no mistake.
	if err == nil && (o.IdleTTL != given.IdleTTL || o.SessionTTL != given.SessionTTL) {
		err = a.checkLifetimes(o)
	}
	if err != nil {
		return a.internalError(ctx, Session{Subject: u.ID}, err)
	}
	return nil
}

// isContinued reports whether n is the session that Continue replaces.
func (p proof) isContinued(n namedSession) bool {
	return p.continues != nil && n.subject == p.continues.Subject && n.sid == p.continues.ID
}

// createSession creates the session s of u with the constants k, and issues its
// tokens. The caller has set the subject, CreatedAt, Device and Opaque of s.
func (a *Authenticator) createSession(ctx context.Context, snap snapshot, u User, s Session, k *constants, o SessionOptions, p proof) (Tokens, error) {
	if err := a.checkActor(ctx, s.Subject, k.actor); err != nil {
		return Tokens{}, err
	}
	s.ID, s.Generation, s.RotatedAt, s.ExpiresAt = randomID(), 1, snap.now, a.sessionEnd(k, snap.now)
	replaced, err := a.namedSessions(ctx, o.Replaces)
	if p.continues != nil {
		replaced = append(slices.DeleteFunc(replaced, p.isContinued), namedSession{p.continues.times(), true})
	}
	if err == nil && a.refuseOver {
		_, err = a.overLimit(ctx, s, replaced) // before anything is written
	}
	if err != nil {
		return Tokens{}, err
	}
	claims, err := a.sessionClaims(ctx, u, s)
	if err != nil {
		return Tokens{}, err
	}
	t, err := a.mintAccess(ctx, accessGrant{
		user: u, claims: claims, sid: s.ID, constants: *k, issuedAt: snap.now, countsFrom: s.CreatedAt, sessionEnd: s.ExpiresAt,
	})
	if err == nil {
		err = a.fitsCookie(t.Access, o.InBody)
	}
	if err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}
	if err = a.mintRefresh(&t, s, k); err == nil && p.continues == nil && o.Actor == "" && a.cookies != nil && !o.InBody {
		t.device, err = a.signDevice(u.ID)
	}
	if err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}
	if p.spend != nil { // after everything that can fail without the store
		if err := p.spend(ctx); err != nil {
			return Tokens{}, err
		}
	}
	err = a.callStore(ctx, s, "Create", func(ctx context.Context) error {
		err := a.store.Create(ctx, s)
		if errors.Is(err, ErrSessionExists) {
			return nil // the ID is random, so the driver has repeated the call, and found this record
		}
		return err
	})
	if err == nil {
		err = a.finishLogin(ctx, s, replaced, p)
	}
	if err != nil {
		if !errors.Is(err, ErrNotStorable) {
			// The session may exist, even if Create has failed, but no client has its
			// tokens. So remove it. Try once and briefly: if the store fails, Run tries
			// again.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.storeTimeout, cleanupTimeout))
			defer cancel()
			_ = a.revoke(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reasonLogin)
		}
		return Tokens{}, err
	}
	event := EventLogin
	if p.continues != nil {
		event = EventContinue
	}
	a.emit(ctx, Event{Type: event, Session: s, Device: o.Device})
	return t, nil
}

// sessionClaims calls Config.Claims.
func (a *Authenticator) sessionClaims(ctx context.Context, u User, s Session) (map[string]any, error) {
	if a.claims == nil {
		return nil, nil
	}
	s.Opaque = slices.Clone(s.Opaque) // the function may change the result of s.Data
	claims, err := callBounded(a.Verifier, ctx, "Config.Claims", a.hookTimeout, func(ctx context.Context) (map[string]any, error) { return a.claims(ctx, u, s) })
	if err != nil {
		return nil, a.unavailable(ctx, s, fmt.Errorf("auth: Config.Claims: %w", detail{err}))
	}
	return claims, nil
}

// checkActor returns an error if the actor of a session cannot act for the subject.
// It returns nil if actor is "".
func (a *Authenticator) checkActor(ctx context.Context, subject, actor string) error {
	if actor == "" {
		return nil
	}
	if actor == subject {
		return errors.New("auth: SessionOptions.Actor is the user of the session; leave it empty if nobody acts for the user")
	}
	if err := checkActorSize(subject, actor); err != nil {
		return err
	}
	_, err := a.findEnabled(ctx, actor)
	if isRefusal(err) {
		return refusal("the actor " + quoted(actor) + " does not exist or is disabled")
	}
	return err
}

// finishLogin checks the user again after the session s was created, and ends the
// sessions that the login replaces or evicts.
func (a *Authenticator) finishLogin(ctx context.Context, s Session, replaced []namedSession, p proof) error {
	if _, err := a.freshUser(ctx, s, p.recheck); err != nil {
		return err
	}
	if err := a.checkActor(ctx, s.Subject, s.Actor()); err != nil {
		return err
	}
	replaced = slices.DeleteFunc(replaced, func(n namedSession) bool { return n.subject == s.Subject && n.sid == s.ID })
	over, err := a.overLimit(ctx, s, replaced)
	if err != nil {
		return err
	}
	// Nothing can refuse the login any more. Whatever the store does, this process now
	// refuses the sessions that end, and Run publishes that until the store confirms it.
	// So go on: an outage must not leave the client without any session.
	_ = a.revoke(context.WithoutCancel(ctx), Revocation{Subject: s.Subject, Sessions: over}, reasonEvicted)
	_ = a.revokeNamed(ctx, slices.DeleteFunc(replaced, p.isContinued), reasonReplaced)
	if p.continues != nil {
		_ = a.revokeSession(ctx, *p.continues, reasonReplaced)
	}
	return nil
}

// freshUser looks up the user of a login again, and calls recheck.
func (a *Authenticator) freshUser(ctx context.Context, s Session, recheck func(User) error) (User, error) {
	fresh, err := a.findByID(ctx, s.Subject)
	switch {
	case errors.Is(err, ErrUserNotFound):
		// Either the user was deleted a moment ago, or FindByID is wrong for
		// every user. The second is more likely, so it must not need OnEvent.
		why := "FindByID does not find User.ID " + quoted(s.Subject) + ", which was found before"
		a.emit(ctx, Event{Type: EventFault, Session: s, Err: errors.New("auth: Users." + why + "; it must find a user by User.ID, unless the user was deleted just now")})
		return User{}, refusal("user was deleted: " + why)
	case err != nil:
		return User{}, err
	case fresh.Disabled:
		return User{}, refusal("user is disabled")
	}
	return fresh, recheck(fresh)
}

// overLimit returns the least recently used sessions of a user who has more than
// MaxSessions sessions together with s, which is not among them and may not exist
// yet. With RefuseOverLimit, it returns ErrTooManySessions instead. The replaced
// sessions do not count, because the login ends them. Only sessions with the same
// actor count, so nobody who acts for a user ends a session of the user.
func (a *Authenticator) overLimit(ctx context.Context, s Session, replaced []namedSession) (ids []string, err error) {
	if a.maxSessions == 0 {
		return nil, nil
	}
	list, err := a.liveSessions(ctx, s.Subject, func(*entry) bool { return true })
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(other Session) bool {
		return other.ID == s.ID || other.Actor() != s.Actor() ||
			slices.ContainsFunc(replaced, func(n namedSession) bool { return n.subject == other.Subject && n.sid == other.ID })
	})
	for _, other := range list[min(len(list), a.maxSessions-1):] {
		ids = append(ids, other.ID)
	}
	if a.refuseOver && len(ids) > 0 {
		return nil, fmt.Errorf("%w: %d, and Config.MaxSessions is %d", ErrTooManySessions, len(list), a.maxSessions)
	}
	return ids, nil
}
