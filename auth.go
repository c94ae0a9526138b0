package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth/password"
)

// Config is what [New] needs: at least Issuer, Audience, Users, and Secrets or
// both kinds of keys. Zero means the default; negative means none where none
// makes sense. A positive duration below a millisecond is a mistake: most likely
// its unit is missing. It is copied: later changes have no effect. It prints
// without its secrets.
type Config struct {
	_ [0]func() // keyed literals only

	// Issuer is the iss of all tokens, usually the URL of the service.
	Issuer string

	// Audience is the aud of all tokens: the services that access tokens are
	// for. One that is verified must name one of them.
	Audience []string

	// Secrets, each of at least 32 random bytes, are what both kinds of keys
	// are derived from (HKDF, RFC 5869; HS256). The first signs, all verify.
	//
	// To change a secret, deploy {old, new} to every process, then {new, old}
	// to every process, and {new} when IdleTTL has passed since. A process that
	// does not know new yet refuses what it has signed, and the client is told
	// to sign in again, so {new, old} comes first only in a single process.
	Secrets [][]byte

	// AccessKeys and RefreshKeys replace Secrets, and may share none. The
	// first of each signs, all verify. RefreshKeys are HMAC keys: refresh
	// tokens stay with this service. See also [Authenticator.SetKeys].
	AccessKeys  Keys
	RefreshKeys Keys

	// JWKSMaxAge is how long the public keys that [Authenticator.JWKSHandler]
	// tells may be cached: 5 minutes by default, 5 seconds to a day. So long,
	// and Leeway, a new public key waits before it signs.
	JWKSMaxAge time.Duration

	// Users is the application's user lookup. If it is a [PasswordUpdater]
	// too, weak password hashes are upgraded at login.
	Users Users

	// Store keeps the sessions. nil means a [MemoryStore] of its own; with any
	// other [Verifier.Run] must run.
	Store Store

	// Hasher checks passwords. nil means a zero [password.Hasher]. It should be
	// the one that the application hashes with, so that one gate bounds both.
	Hasher *password.Hasher

	// Cookies says how tokens travel in browsers. nil means that they travel
	// in bodies and headers only.
	Cookies *Cookies

	// Extractors are where access tokens come from. Empty means the bearer
	// header, and the cookie if Cookies is set.
	Extractors []Extractor

	// AutoRefresh is for pages that a server renders: a GET or HEAD whose
	// access cookie is absent or expired, with a refresh cookie, is answered
	// by a redirect to itself with new cookies. It needs Cookies.
	AutoRefresh bool

	// AccessTTL is the lifetime of access tokens: 15 minutes by default, 1
	// second to 24 hours, and more than 2·Leeway + 1 s.
	AccessTTL time.Duration
	// IdleTTL ends a session that is not refreshed for so long: at least three
	// retry windows + AccessTTL + Leeway. It is 7 days by default, or SessionTTL
	// if that is set to less.
	IdleTTL time.Duration
	// SessionTTL ends a session so long after its login: 30 days by default,
	// at least IdleTTL, at most ten years.
	SessionTTL time.Duration
	// RetryWindow is how long the answer to a refresh may be asked for again:
	// at most 60 seconds. A session that has moved rests for three windows.
	// Without one, two tabs sign each other out. It is 10 seconds by default, or
	// a third of what IdleTTL leaves beside AccessTTL and Leeway if that is less,
	// but at least 100 milliseconds.
	RetryWindow time.Duration
	// Leeway is how far the clocks of several machines may be apart: 10
	// seconds by default, at most 60. It never extends a lifetime.
	Leeway time.Duration

	// MaxSessions is how many sessions a user may have, 100 by default. A
	// login beyond ends the one that was least recently used.
	MaxSessions int

	// TrustedProxies are the networks whose X-Forwarded-For is believed. None
	// by default.
	TrustedProxies []netip.Prefix

	// Remember is how many access tokens that were verified are remembered, so
	// that a token that comes again costs no signature: 65,536 by default, at
	// most 1<<20; negative: none. What is remembered expires, is revoked and
	// loses its key as if it were not, and takes at most 2 KiB for each on
	// average.
	Remember int

	// StoreTimeout bounds each call of the store: 2 seconds by default, a
	// millisecond to a minute.
	StoreTimeout time.Duration

	// MaxStale is the age at which the revocation feed counts as stale, a
	// minute by default, and OnStale what happens then.
	MaxStale time.Duration
	OnStale  StalePolicy

	// OnEvent is told of events, within the request: it must return soon, and
	// is called concurrently. [LogEvents] makes one.
	OnEvent func(ctx context.Context, e Event)

	// OnError writes the answer to a request that was refused. nil means the
	// function [WriteError], which it may call for what it leaves alone; it
	// finds status and headers by [AnswerTo].
	OnError func(w http.ResponseWriter, r *http.Request, err error)

	// Now is the clock. nil means time.Now.
	Now func() time.Time
}

// Format prints the configuration without its secrets.
func (c Config) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.Config{issuer %q audience %q}", c.Issuer, c.Audience)
}

// LogValue logs what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// MarshalText gives what Format prints, so that no encoder looks further.
func (c Config) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

// Authenticator signs users in, keeps their sessions and verifies their
// tokens. It is safe for concurrent use.
type Authenticator struct {
	*Verifier

	users       Users
	updater     PasswordUpdater // nil if users is none
	store       Store
	hasher      *password.Hasher
	accessKeys  liveKeys
	refreshKeys liveKeys
	keysMu      sync.Mutex // of SetKeys
	jwksMaxAge  time.Duration
	accessTTL   time.Duration
	idleTTL     time.Duration
	sessionTTL  time.Duration
	window      time.Duration // negative if there is none
	rest        time.Duration
	maxSessions int // 0 if there is no limit
	autoRefresh bool

	noticing    chan struct{} // full while a notice is announced
	noticeRetry atomic.Int64  // when to try again, Unix milliseconds
}

// Defaults and bounds.
const (
	defaultAccessTTL   = 15 * time.Minute
	minAccessTTL       = time.Second
	maxAccessTTL       = 24 * time.Hour
	defaultIdleTTL     = 7 * 24 * time.Hour
	defaultSessionTTL  = 30 * 24 * time.Hour
	maxSessionTTL      = 10 * 365 * 24 * time.Hour
	defaultWindow      = 10 * time.Second
	minDefaultWindow   = 100 * time.Millisecond // of one that was not set
	maxWindow          = time.Minute
	restWindows        = 3
	defaultMaxSessions = 100
	defaultJWKSMaxAge  = 5 * time.Minute
	minJWKSMaxAge      = 5 * time.Second // clients do not ask more often
	maxJWKSMaxAge      = 24 * time.Hour
	maxStoreTimeout    = time.Minute
	lastTry            = 200 * time.Millisecond // to undo a login that the store did not let complete, and to announce a notice within a login
)

// New returns an Authenticator, or every mistake in c joined, each naming its
// field. Nothing is left to fail at the first request.
func New(c Config) (*Authenticator, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: Config."+format, args...)) }

	access, refresh, err := c.keys()
	if err != nil {
		errs = append(errs, err)
	}
	if c.Users == nil {
		bad("Users is nil")
	}
	if c.Hasher == nil {
		c.Hasher = &password.Hasher{}
	} else if err := c.Hasher.Check(); err != nil {
		bad("Hasher: %w", err)
	}
	if c.AutoRefresh && c.Cookies == nil {
		bad("AutoRefresh needs Cookies")
	}
	if c.AutoRefresh && len(c.Extractors) > 0 && !slices.Contains(c.Extractors, FromCookie()) {
		bad("AutoRefresh needs FromCookie among Extractors: what it sets would never be read, and it would redirect for ever")
	}
	if c.JWKSMaxAge == 0 {
		c.JWKSMaxAge = defaultJWKSMaxAge
	}
	if err := missingUnit("Config.JWKSMaxAge", c.JWKSMaxAge); err != nil {
		errs = append(errs, err)
	} else if c.JWKSMaxAge < minJWKSMaxAge || c.JWKSMaxAge > maxJWKSMaxAge {
		bad("JWKSMaxAge (%s) is not between %s and %s", c.JWKSMaxAge, minJWKSMaxAge, maxJWKSMaxAge)
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = defaultMaxSessions
	}
	if c.StoreTimeout == 0 {
		c.StoreTimeout = defaultStore
	}
	if err := missingUnit("Config.StoreTimeout", c.StoreTimeout); err != nil {
		errs = append(errs, err)
	} else if c.StoreTimeout < time.Millisecond || c.StoreTimeout > maxStoreTimeout {
		bad("StoreTimeout (%s) is not between 1ms and %s", c.StoreTimeout, maxStoreTimeout)
	}
	if err := c.setLifetimes(); err != nil {
		errs = append(errs, err)
	}
	var feed Feed
	if c.Store == nil {
		c.Store = NewMemoryStore() // nobody else can revoke in it, so there is nothing to follow
	} else {
		feed = c.Store
	}
	v, err := newVerifier("Config", VerifierConfig{
		Issuer: c.Issuer, Audience: c.Audience, Keys: access,
		Cookies: c.Cookies, Extractors: c.Extractors, TrustedProxies: c.TrustedProxies, Leeway: c.Leeway, Remember: c.Remember,
		Feed: feed, MaxStale: c.MaxStale, OnStale: c.OnStale,
		OnEvent: c.OnEvent, OnError: c.OnError, Now: c.Now,
	})
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a := &Authenticator{
		Verifier:    v,
		users:       c.Users,
		store:       c.Store,
		hasher:      c.Hasher,
		jwksMaxAge:  c.JWKSMaxAge,
		accessTTL:   c.AccessTTL,
		idleTTL:     c.IdleTTL,
		sessionTTL:  c.SessionTTL,
		window:      c.RetryWindow,
		rest:        max(0, restWindows*c.RetryWindow),
		maxSessions: max(0, c.MaxSessions),
		autoRefresh: c.AutoRefresh,
		noticing:    make(chan struct{}, 1),
	}
	a.updater, _ = c.Users.(PasswordUpdater)
	a.accessKeys.ring.Store(a.newAccessRing(access))
	a.refreshKeys.ring.Store(newKeyRing(refresh, typRefresh, a.sessionTTL+2*a.leeway, a.now))
	v.keys = &a.accessKeys
	v.storeTimeout = c.StoreTimeout
	v.announce = a.announceAgain
	v.renew = a.renewNotice
	v.revoked.announces, v.revoked.ttl = feed != nil, c.AccessTTL
	v.alive = a.sessionAlive
	if a.cookies != nil {
		v.refreshSessions = a.refreshSessions
	}
	if err := a.checkRefreshSize(refresh); err != nil {
		return nil, err
	}
	return a, nil
}

// keys returns the keys of both kinds.
func (c *Config) keys() (access, refresh Keys, err error) {
	if len(c.Secrets) > 0 {
		var errs []error
		if len(c.AccessKeys) > 0 || len(c.RefreshKeys) > 0 {
			errs = append(errs, errors.New("auth: Config.Secrets and Config.AccessKeys or RefreshKeys exclude each other"))
		}
		for i, secret := range c.Secrets {
			if err := checkSecret(secret, 32); err != nil {
				errs = append(errs, fmt.Errorf("auth: Config.Secrets[%d]: %w", i, err))
			}
			if slices.ContainsFunc(c.Secrets[:i], func(s []byte) bool { return bytes.Equal(s, secret) }) {
				errs = append(errs, fmt.Errorf("auth: Config.Secrets[%d] is there twice", i))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return nil, nil, err
		}
		return derivedKeys(c.Secrets)
	}
	return slices.Clone(c.AccessKeys), slices.Clone(c.RefreshKeys),
		checkKeys("Config.", ", and so is Config.Secrets", c.AccessKeys, c.RefreshKeys)
}

// missingUnit refuses a duration that is positive and below a millisecond. No
// setting has a use for one, and a number without a unit counts nanoseconds.
func missingUnit(field string, d time.Duration) error {
	if d <= 0 || d >= time.Millisecond {
		return nil
	}
	return fmt.Errorf("auth: %s (%s) is less than 1ms; missing time unit?", field, d)
}

// setLifetimes sets defaults, and checks that the times fit together. An IdleTTL
// and a RetryWindow that were not set shrink to fit those that were. It leaves
// Leeway alone, which newVerifier checks.
func (c *Config) setLifetimes() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: Config."+format, args...)) }

	leeway := c.Leeway
	if missingUnit("Config.Leeway", leeway) != nil {
		leeway = 0
	}
	leewayShown := setDuration(&leeway, defaultLeeway)
	if leeway > maxLeeway {
		return nil // newVerifier reports it; the checks below would only repeat it
	}
	leeway = max(0, leeway)
	for _, d := range []struct {
		name  string
		value *time.Duration
	}{{"AccessTTL", &c.AccessTTL}, {"IdleTTL", &c.IdleTTL}, {"SessionTTL", &c.SessionTTL}, {"RetryWindow", &c.RetryWindow}} {
		if err := missingUnit("Config."+d.name, *d.value); err != nil {
			errs = append(errs, err)
			*d.value = 0 // check the others as if it were not set
		}
	}

	accessShown := setDuration(&c.AccessTTL, defaultAccessTTL)
	shortest := "IdleTTL" // what the user has set that bounds IdleTTL
	if c.IdleTTL == 0 && c.SessionTTL != 0 && c.SessionTTL < defaultIdleTTL {
		shortest = "SessionTTL"
	}
	sessionShown := setDuration(&c.SessionTTL, defaultSessionTTL)
	idleShown := setDuration(&c.IdleTTL, min(defaultIdleTTL, c.SessionTTL))
	if shortest == "SessionTTL" {
		idleShown = sessionShown
	}
	room := (c.IdleTTL - c.AccessTTL - leeway) / restWindows
	windowShown := setDuration(&c.RetryWindow, min(defaultWindow, max(minDefaultWindow, room.Truncate(time.Millisecond))))
	window := max(0, c.RetryWindow)

	if c.AccessTTL < minAccessTTL || c.AccessTTL > maxAccessTTL {
		bad("AccessTTL %s is not between %s and %s", accessShown, minAccessTTL, maxAccessTTL)
	} else if least := 2*leeway + time.Second; c.AccessTTL <= least {
		bad("AccessTTL %s must exceed %s, twice Config.Leeway %s and a second", accessShown, least, leewayShown)
	}
	if c.RetryWindow > maxWindow {
		bad("RetryWindow %s exceeds %s", windowShown, maxWindow)
	}
	if least := restWindows*window + c.AccessTTL + leeway; c.IdleTTL < least {
		bad("%s %s is less than %s: three times Config.RetryWindow %s, Config.AccessTTL %s and Config.Leeway %s", shortest, idleShown, least, windowShown, accessShown, leewayShown)
	}
	if c.IdleTTL > c.SessionTTL {
		bad("IdleTTL %s exceeds Config.SessionTTL %s", idleShown, sessionShown)
	}
	if c.SessionTTL > maxSessionTTL {
		bad("SessionTTL %s exceeds %s", sessionShown, maxSessionTTL)
	}
	return errors.Join(errs...)
}

// setDuration sets a duration that was not set to unset, and cuts another to
// milliseconds. It returns how messages show it.
func setDuration(d *time.Duration, unset time.Duration) (shown string) {
	if *d == 0 {
		*d = unset
		return unset.String() + " (the default)"
	}
	shown = "(" + d.String() + ")"
	if *d > 0 {
		*d = d.Truncate(time.Millisecond)
	}
	return shown
}

// Bounds of SignIn.AMR.
const (
	maxAMR     = 8
	maxAMRText = 32
)

// checkRefreshSize makes sure that no refresh token is ever too large, whichever
// of the keys signs it, so that nothing can fail after a token was spent.
func (a *Authenticator) checkRefreshSize(keys Keys) error {
	far := time.Unix(maxNumericDate, 0)
	worst := refreshClaims{
		subject:    strings.Repeat("<", maxSubject-2) + "é", // what JSON makes most of
		sid:        randomID(),
		generation: 1<<59 - 1,
		amr:        slices.Repeat([]string{strings.Repeat("x", maxAMRText)}, maxAMR),
		authTime:   far, issuedAt: far, expiresAt: far,
	}
	payload := worst.payload(a.issuer, a.audience)
	for i, k := range keys {
		if !k.signs() {
			continue
		}
		token, err := newKeyRing(keys[i:i+1], typRefresh, 0, a.now).signToken(a.now(), payload)
		if err == nil && a.cookies != nil {
			err = a.cookies.fits(&a.cookies.refresh, token)
		}
		if err != nil {
			return fmt.Errorf("auth: Config.Issuer and Config.Audience are too long for refresh tokens: %w", err)
		}
	}
	return nil
}

// SignIn is what is known of a login besides who it is. The zero SignIn is
// allowed.
type SignIn struct {
	_ [0]func() // keyed literals only

	Device Device
	Name   string   // of the device, as its user calls it; cleaned, at most 100 bytes
	AMR    []string // how the user proved himself (RFC 8176): at most 8 of at most 32 bytes; Login sets "pwd" if empty
	Data   []byte   // the application's own for the session, at most 900 bytes; Session.AppData gives it back

	// Replaces are tokens of either kind that the client held until now, such
	// as those of [Authenticator.CookieTokens]. The login ends the session of
	// every one that was validly signed here, expired or not, whoever's it is.
	Replaces []string `json:"-"`

	// InBody says that the tokens do not travel in cookies, so that the size
	// of a cookie does not limit them.
	InBody bool
}

// RefreshOptions is what a refresh needs besides its token. The zero
// RefreshOptions is allowed.
type RefreshOptions struct {
	_ [0]func() // keyed literals only

	Device Device

	// InBody says that the tokens do not travel in cookies, so that the size
	// of a cookie does not limit them.
	InBody bool
}

// Format prints the sign-in without the tokens that it replaces.
func (in SignIn) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.SignIn{device %q amr %q}", in.Name, in.AMR)
}

// LogValue logs what Format prints.
func (in SignIn) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(in)) }

// maxAppData leaves room for the name within Session.Data.
const maxAppData = 900

func (in *SignIn) clean() error {
	in.Device = cleanDevice(in.Device)
	in.Name = cleanText(in.Name, maxDeviceName)
	if len(in.Data) > maxAppData {
		return fmt.Errorf("auth: SignIn.Data is %d bytes, at most %d are kept", len(in.Data), maxAppData)
	}
	if len(in.AMR) > maxAMR {
		return fmt.Errorf("auth: SignIn.AMR has %d entries, at most %d are kept", len(in.AMR), maxAMR)
	}
	for i, m := range in.AMR {
		if !isScope(m) || len(m) > maxAMRText {
			return fmt.Errorf("auth: SignIn.AMR[%d] is not a word of at most %d characters", i, maxAMRText)
		}
	}
	return nil
}

func cleanDevice(d Device) Device {
	return Device{UserAgent: cleanText(d.UserAgent, maxUserAgent), IP: plainAddr(d.IP)}
}

// read reads the clock, and what is known of revocations at that time.
func (a *Authenticator) read() reading {
	return reading{seq: a.revoked.seq.Load(), now: a.now()}
}

// Login checks a password and opens a session. An unknown user, a wrong
// password and a disabled user cost the same and are all
// [ErrInvalidCredentials]; OnEvent is told which it was.
// [password.ErrBusy] and [ErrUnavailable] mean that it could not be decided.
func (a *Authenticator) Login(ctx context.Context, login, pass string, in SignIn) (Tokens, error) {
	rd := a.read()
	if len(in.AMR) == 0 {
		in.AMR = []string{"pwd"}
	}
	if err := in.clean(); err != nil {
		return Tokens{}, err
	}
	u, err := a.findUser(ctx, "FindByLogin", func() (User, error) { return a.users.FindByLogin(ctx, login) })
	known := err == nil
	if err != nil && !errors.Is(err, ErrUserNotFound) {
		return Tokens{}, err
	}
	refused := func(why string) (Tokens, error) {
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: in.Device, Err: errors.New(why)})
		return Tokens{}, ErrInvalidCredentials
	}
	switch err := a.checkPassword(ctx, u, pass); {
	case err == nil:
	case errors.Is(err, ErrInvalidCredentials):
		if !known {
			return refused("unknown user")
		}
		return refused("wrong password")
	default:
		return Tokens{}, err
	}
	if u.Disabled {
		return refused("user is disabled")
	}
	t, err := a.open(ctx, rd, u, in, func(fresh User) error {
		if fresh.PasswordHash == u.PasswordHash {
			return nil
		}
		return a.checkPassword(ctx, fresh, pass)
	})
	if isRefusal(err) {
		return refused(err.Error())
	}
	if err == nil {
		a.upgradeHash(ctx, u, pass)
	}
	return t, err
}

// Start opens a session for a user whose identity the application proved by
// other means, such as OAuth, a passkey or a magic link; say which in
// SignIn.AMR. [ErrInvalidCredentials] if there is no such user or he is
// disabled.
func (a *Authenticator) Start(ctx context.Context, userID string, in SignIn) (Tokens, error) {
	rd := a.read()
	if err := in.clean(); err != nil {
		return Tokens{}, err
	}
	u, err := a.findByID(ctx, userID)
	switch {
	case errors.Is(err, ErrUserNotFound):
		err = fmt.Errorf("%w: unknown user", ErrInvalidCredentials)
	case err == nil && u.Disabled:
		err = fmt.Errorf("%w: user is disabled", ErrInvalidCredentials)
	}
	var t Tokens
	if err == nil {
		t, err = a.open(ctx, rd, u, in, func(User) error { return nil })
	}
	if isRefusal(err) {
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: in.Device, Err: err})
		err = ErrInvalidCredentials
	}
	return t, err
}

// isRefusal tells a decision from a fault whose cause, the application's own
// error, happens to wrap the same.
func isRefusal(err error) bool {
	return errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrUnavailable)
}

// findUser calls the application's lookup.
func (a *Authenticator) findUser(ctx context.Context, name string, find func() (User, error)) (User, error) {
	var u User
	err := guardHook("Users."+name, func() (err error) {
		u, err = find()
		return err
	})
	if err == nil {
		err = checkUser(&u)
	}
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, ErrUserNotFound):
		return User{}, ErrUserNotFound
	}
	return User{}, a.fault(ctx, Session{}, fmt.Errorf("auth: Users.%s: %w", name, err))
}

func (a *Authenticator) findByID(ctx context.Context, id string) (User, error) {
	return a.findUser(ctx, "FindByID", func() (User, error) {
		u, err := a.users.FindByID(ctx, id)
		if err == nil && u.ID != id {
			err = errors.New("it returned another user")
		}
		return u, err
	})
}

// fault reports that something did not answer, and returns what the caller is
// told. A client that hung up is not a fault.
func (a *Authenticator) fault(ctx context.Context, s Session, err error) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// checkPassword runs the same key derivation whoever the user is: one that
// does not exist (the zero User) or has no password costs what a wrong
// password does.
func (a *Authenticator) checkPassword(ctx context.Context, u User, pass string) error {
	var err error
	if u.PasswordHash != "" {
		err = a.hasher.Verify(ctx, u.PasswordHash, pass)
	}
	unreadable := errors.Is(err, password.ErrHash)
	if unreadable {
		a.emit(ctx, Event{Type: EventFault, Session: Session{Subject: u.ID}, Err: fmt.Errorf("auth: User.PasswordHash: %w", err)})
	}
	if unreadable || u.PasswordHash == "" {
		if err = a.hasher.VerifyUnknown(ctx, pass); err == nil {
			err = password.ErrMismatch
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, password.ErrMismatch), errors.Is(err, password.ErrTooLong):
		return fmt.Errorf("%w: wrong password", ErrInvalidCredentials)
	case errors.Is(err, password.ErrBusy):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// upgradeHash replaces a weak hash after its password was proved. The login
// does not depend on it.
func (a *Authenticator) upgradeHash(ctx context.Context, u User, pass string) {
	if a.updater == nil || !a.hasher.NeedsRehash(u.PasswordHash) {
		return
	}
	hash, err := a.hasher.Hash(ctx, pass)
	if err == nil {
		err = guardHook("Users.UpdatePasswordHash", func() error {
			return a.updater.UpdatePasswordHash(ctx, u.ID, u.PasswordHash, hash)
		})
	}
	if err != nil {
		_ = a.fault(ctx, Session{Subject: u.ID}, fmt.Errorf("auth: upgrading a password hash: %w", err))
	}
}

// open creates a session for a user as he was found after the clock was read.
// recheck is asked about the user as he is once the session exists, so that no
// login slips past a change.
func (a *Authenticator) open(ctx context.Context, rd reading, u User, in SignIn, recheck func(User) error) (Tokens, error) {
	created := a.revoked.from(u.ID, rd)
	s := Session{
		ID: randomID(), Subject: u.ID, Generation: 1, CreatedAt: created, RotatedAt: rd.now,
		ExpiresAt: a.sessionEnd(created, rd.now), Device: in.Device, Data: joinData(in.Name, in.Data),
	}
	t, err := a.mintAccess(ctx, u, s.ID, in.AMR, rd.now, created, created, s.ExpiresAt)
	if err == nil {
		err = a.fitsCookie(t.Access, in.InBody)
	}
	if err != nil {
		return Tokens{}, a.internal(ctx, s, err)
	}
	if err := a.mintRefresh(&t, s, in.AMR); err != nil {
		return Tokens{}, a.internal(ctx, s, err)
	}
	if err := a.inStore(ctx, s, "Create", func(ctx context.Context) error { return a.store.Create(ctx, s) }); err != nil {
		return Tokens{}, err
	}
	if err := a.settle(ctx, s, in, recheck); err != nil {
		// Nobody holds its tokens; it would only lie about. A store that does
		// not answer is not waited for once more: Run tries again.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.storeTimeout, lastTry))
		defer cancel()
		_ = a.revokeWithin(last, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, "login")
		return Tokens{}, err
	}
	a.emit(ctx, Event{Type: EventLogin, Session: s, Device: in.Device})
	return t, nil
}

// settle does what a login entails once its session exists.
func (a *Authenticator) settle(ctx context.Context, s Session, in SignIn, recheck func(User) error) error {
	fresh, err := a.findByID(ctx, s.Subject)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return fmt.Errorf("%w: user is gone", ErrInvalidCredentials)
	case err != nil:
		return err
	case fresh.Disabled:
		return fmt.Errorf("%w: user is disabled", ErrInvalidCredentials)
	}
	if err := recheck(fresh); err != nil {
		return err
	}
	replaced, err := a.namedSessions(ctx, in.Replaces)
	if err != nil {
		return err
	}
	replaced = slices.DeleteFunc(replaced, func(n namedSession) bool { return n.subject == s.Subject && n.sid == s.ID })
	if err := a.evict(ctx, s, replaced); err != nil {
		return err
	}
	// The sessions that the client still holds go last, when nothing else can
	// keep the new one from it.
	return a.endNamed(ctx, replaced, "replaced")
}

// evict ends the sessions beyond the limit, the least recently used first, but
// not the one that was just made. Those that it replaces do not count, since
// they are ended as well.
func (a *Authenticator) evict(ctx context.Context, made Session, replaced []namedSession) error {
	if a.maxSessions == 0 {
		return nil
	}
	list, err := a.list(ctx, made.Subject, func(*revocation) bool { return true })
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s Session) bool {
		return s.ID == made.ID || slices.ContainsFunc(replaced, func(n namedSession) bool { return n.subject == s.Subject && n.sid == s.ID })
	})
	var ids []string
	for _, s := range list[min(len(list), a.maxSessions-1):] {
		ids = append(ids, s.ID)
	}
	return a.revoke(ctx, Revocation{Subject: made.Subject, Sessions: ids}, "evicted")
}

// sessionEnd is when a session ends that was created and used at these times.
// The absolute end counts from the second that tokens carry as auth_time.
func (a *Authenticator) sessionEnd(created, used time.Time) time.Time {
	return earlier(used.Add(a.idleTTL), created.Truncate(time.Second).Add(a.sessionTTL))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// mintAccess makes the access token. It may fail, so it comes before anything
// that counts. The token is issued, and its lifetime counts, by the clock;
// countsFrom is what a cut is compared with.
func (a *Authenticator) mintAccess(ctx context.Context, u User, sid string, amr []string, now, countsFrom, authTime, sessionEnd time.Time) (Tokens, error) {
	g := accessGrant{
		issuer: a.issuer, audience: a.audience, user: u, sid: sid, amr: amr,
		issuedAt: now, countsFrom: countsFrom, authTime: authTime,
		expiresAt:  earlier(now.Add(a.lifetime(ctx, now)), sessionEnd).Truncate(time.Second),
		sessionEnd: sessionEnd.Truncate(time.Second),
	}
	payload, err := g.payload()
	if err != nil {
		return Tokens{}, err
	}
	access, err := a.accessKeys.ring.Load().signToken(now, payload)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, AccessExpiresAt: g.expiresAt, Subject: u.ID, SessionID: sid}, nil
}

func (a *Authenticator) signRefresh(c refreshClaims) (string, error) {
	return a.refreshKeys.ring.Load().signToken(a.now(), c.payload(a.issuer, a.audience))
}

// mintRefresh adds the refresh token of the generation that s is in.
func (a *Authenticator) mintRefresh(t *Tokens, s Session, amr []string) (err error) {
	c := refreshClaims{
		subject: s.Subject, sid: s.ID, generation: s.Generation, amr: amr,
		authTime: s.CreatedAt, issuedAt: s.RotatedAt, expiresAt: s.ExpiresAt,
	}
	t.Refresh, err = a.signRefresh(c)
	t.RefreshExpiresAt = s.ExpiresAt.Truncate(time.Second)
	return err
}

// internal reports a mistake of the application's or ours, such as claims that
// cannot be put into a token.
func (a *Authenticator) internal(ctx context.Context, s Session, err error) error {
	a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	return err
}

// inStore calls the store, with the time that it may take. Decisions of the
// store are passed on; anything else means that it did not answer.
func (a *Authenticator) inStore(ctx context.Context, s Session, name string, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, a.storeTimeout)
	defer cancel()
	err := guardHook("Store."+name, func() error { return call(limited) })
	switch {
	case err == nil || errors.Is(err, ErrSessionNotFound):
		return err
	case errors.Is(err, ErrNotStorable): // to try again does not help
		return a.internal(ctx, s, err)
	}
	return a.fault(ctx, s, fmt.Errorf("auth: Store.%s: %w", name, err))
}

// Sessions returns the live sessions of a user, last used first. One whose end
// the store did not confirm is still there, so that it can be ended again.
func (a *Authenticator) Sessions(ctx context.Context, subject string) ([]Session, error) {
	return a.list(ctx, subject, a.revoked.confirmed)
}

// list leaves out what has expired, and what is revoked by an entry that gone
// accepts.
func (a *Authenticator) list(ctx context.Context, subject string, gone func(*revocation) bool) ([]Session, error) {
	var list []Session
	err := a.inStore(ctx, Session{Subject: subject}, "List", func(ctx context.Context) (err error) {
		list, err = a.store.List(ctx, subject)
		return err
	})
	if err != nil {
		return nil, err
	}
	now := a.now()
	return slices.DeleteFunc(list, func(s Session) bool {
		known, revoked := a.revoked.check(subjectTimes{subject: s.Subject, sid: s.ID, created: s.CreatedAt}, now)
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
	return a.revoke(ctx, Revocation{Subject: subject, Sessions: possible(ids)}, "request")
}

// possible returns the ids that a session can have. No other needs to be
// revoked, and an entry with one could not be stored.
func possible(ids []string) []string {
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
	rd := a.read()
	r := Revocation{Subject: subject, All: true, Except: possible(except), Cut: notBefore(rd.now, a.leeway), Until: a.until(rd.now)}
	entered := a.revoked.add(r, source{own: true}, rd.now)

	// A session may have been created at r.Cut or later, if a clock is ahead or
	// another process has set the same not-before instant, so it is named.
	list, listErr := a.list(ctx, subject, a.revoked.confirmed)
	for _, s := range list {
		if !s.CreatedAt.Before(r.Cut) && !slices.Contains(except, s.ID) {
			r.Sessions = append(r.Sessions, s.ID)
		}
	}
	err := a.revokeWithin(ctx, r, "request")
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
	cut, known := a.nextCut(subject)
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
		if cut, known = a.nextCut(subject); !cut.After(known) {
			return fmt.Errorf("%w: access was expired within this second already", ErrUnavailable)
		}
	}
	return a.revoke(ctx, Revocation{Subject: subject, Cut: cut}, "access")
}

// nextCut returns the not-before instant for a subject, and the latest that is
// known already. Tokens that were issued since carry that one.
func (a *Authenticator) nextCut(subject string) (cut, known time.Time) {
	rd := a.read()
	return notBefore(rd.now, a.leeway), a.revoked.from(subject, rd)
}

// notBefore returns the first whole second after everything that was issued up
// to now, by clocks that are up to leeway ahead. It is as early as it can be: a
// process that has not heard of it yet issues tokens that others refuse, until
// its clock has reached it.
func notBefore(now time.Time, leeway time.Duration) time.Time {
	return now.Add(leeway).Truncate(time.Second).Add(time.Second)
}

// withinStoreTimeout returns a context that is not canceled with ctx, in which
// several calls of the store together take no longer than one may.
func (a *Authenticator) withinStoreTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.storeTimeout)
}

// end revokes one session.
func (a *Authenticator) end(ctx context.Context, s Session, reason string) error {
	return a.revoke(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// revoke carries out a revocation, also when the client has hung up: first in
// this process, whether or not the store says yes.
func (a *Authenticator) revoke(ctx context.Context, r Revocation, reason string) error {
	if err := checkName("a subject", r.Subject); err != nil {
		return err
	}
	if len(r.Sessions) == 0 && r.Cut.IsZero() {
		return nil
	}
	return a.revokeWithin(context.WithoutCancel(ctx), r, reason)
}

func (a *Authenticator) revokeWithin(ctx context.Context, r Revocation, reason string) error {
	err := a.tell(ctx, r, source{own: true})
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

// until returns for how long a revocation that is made now must be known: as
// long as any access token that it concerns may live, on any clock. Processes
// with another AccessTTL have announced it. While this one does not know what
// was announced lately, it assumes the longest that there is.
func (a *Authenticator) until(now time.Time) time.Time {
	ttl := a.accessTTL
	if a.feed != nil {
		ttl = max(ttl, a.revoked.longestTTL(now))
		if now.Sub(time.UnixMilli(a.heard.Load())) > missedAfter { // or never
			ttl = maxAccessTTL
		}
	}
	return now.Add(ttl + noticeMargin)
}

// A revocation must be known for as long as any access token that it concerns
// may live, and processes that share a store may have different AccessTTLs: a
// deployment changes it, or two services differ. So a process whose AccessTTL
// exceeds unannouncedTTL announces it in the feed by a notice, before it issues
// a token that lives for that long, and again before the notice runs out. A
// token with at most unannouncedTTL needs none: noticeMargin covers it, and
// clocks may differ by less than half of any AccessTTL.
const (
	unannouncedTTL = time.Minute
	noticeMargin   = time.Minute      // for what clocks differ by, and for the rounding of seconds
	noticeLeast    = 10 * time.Minute // for how long a notice lets tokens be issued, at least
	noticePause    = time.Second      // after a notice that the store did not take
)

// noticeLength is for how long one notice lets tokens be issued.
func (a *Authenticator) noticeLength() time.Duration { return max(a.accessTTL, noticeLeast) }

// needsNotice reports whether access tokens live for longer than other
// processes assume without a notice.
func (a *Authenticator) needsNotice() bool { return a.feed != nil && a.accessTTL > unannouncedTTL }

// noticed reports whether tokens that live for a.accessTTL may be issued until
// length from now.
func (a *Authenticator) noticed(now time.Time, length time.Duration) bool {
	return !a.needsNotice() ||
		a.revoked.covered.Load() >= now.Add(length+a.accessTTL+noticeMargin).UnixMilli()
}

// lifetime returns how long an access token that is issued now may live. That
// is AccessTTL, or unannouncedTTL as long as the store does not take a notice.
func (a *Authenticator) lifetime(ctx context.Context, now time.Time) time.Duration {
	if !a.noticed(now, 0) {
		// A store that does not answer soon is not waited for, since a call
		// that matters more follows. Run tries for longer.
		ctx, cancel := context.WithTimeout(ctx, min(a.storeTimeout, lastTry))
		defer cancel()
		a.notify(ctx, now)
		if !a.noticed(now, 0) {
			return unannouncedTTL
		}
	}
	return a.accessTTL
}

// renewNotice announces a.accessTTL again in good time: when between a quarter
// and three quarters of the notice are left, which differs between processes,
// so that one of them renews it for all. It returns when the notice is to be
// renewed next, or the zero Time if none is.
func (a *Authenticator) renewNotice(ctx context.Context) (next time.Time) {
	now := a.now()
	if !a.noticed(now, a.renewBefore()) {
		a.notify(ctx, now)
	}
	switch {
	case !a.needsNotice():
		return time.Time{}
	case !a.noticed(now, a.renewBefore()):
		return now.Add(announceRetryFirst)
	default:
		return time.UnixMilli(a.revoked.covered.Load() + 1).Add(-a.renewBefore() - a.accessTTL - noticeMargin)
	}
}

func (a *Authenticator) renewBefore() time.Duration {
	id := a.revoked.process
	part := time.Duration(base64Value[id[0]])<<6 | time.Duration(base64Value[id[1]]) // 0 to 4095
	return a.noticeLength()/4 + a.noticeLength()/2*part/4095
}

// notify announces a.accessTTL, unless another call does so meanwhile. A store
// that did not take it is left alone for a moment.
func (a *Authenticator) notify(ctx context.Context, now time.Time) {
	select {
	case a.noticing <- struct{}{}:
		defer func() { <-a.noticing }()
	case <-ctx.Done():
		return
	}
	if a.noticed(now, a.renewBefore()) || isPaused(now, a.noticeRetry.Load(), noticePause) {
		return
	}
	r := Revocation{AccessTTL: a.accessTTL, Until: now.Add(a.noticeLength() + a.accessTTL + noticeMargin)}
	if err := a.announceNotice(ctx, r); err != nil {
		a.noticeRetry.Store(a.now().Add(noticePause).UnixMilli())
	}
}

func (a *Authenticator) announceNotice(ctx context.Context, r Revocation) error {
	r.ID = a.revoked.nextID()
	err := a.inStore(ctx, Session{}, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
	if err == nil {
		a.revoked.noteOwn(r, a.now())
	}
	return err
}

// tell enters a revocation here and announces it.
func (a *Authenticator) tell(ctx context.Context, r Revocation, from source) error {
	now := a.now()
	r.Until, r.ID = a.until(now), a.revoked.nextID()
	entered := a.revoked.add(r, from, now)
	err := a.inStore(ctx, Session{Subject: r.Subject}, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
	a.revoked.confirm(entered, err, a.now())
	return err
}

// announceAgain announces what this process knows, or its own not-before
// instant in a later second.
func (a *Authenticator) announceAgain(ctx context.Context, r Revocation, repeats bool) error {
	if r.AccessTTL > 0 {
		return a.announceNotice(ctx, r)
	}
	return a.tell(ctx, r, source{own: repeats, repetition: repeats, again: !repeats})
}

// revokeAgain is for a session that this process knows to be revoked and that
// a client still asks for. If the store has not confirmed the end, or has the
// session after all because a failover lost its end, it is revoked again.
func (a *Authenticator) revokeAgain(ctx context.Context, known *revocation, s Session) error {
	if !a.revoked.isOpen(known) {
		if !a.revoked.ask(known, a.now()) {
			return nil
		}
		alive, err := a.sessionAlive(ctx, s.Subject, s.ID)
		if err != nil {
			return err
		}
		a.revoked.answered(known, a.now())
		if !alive {
			return nil
		}
	}
	return a.tell(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, source{own: true})
}

// sessionAlive asks the store whether a session is there.
func (a *Authenticator) sessionAlive(ctx context.Context, subject, id string) (bool, error) {
	s, err := a.get(ctx, Session{Subject: subject, ID: id})
	if errors.Is(err, ErrSessionNotFound) {
		return false, nil
	}
	return err == nil && a.now().Before(s.ExpiresAt), err
}

// get reads the record of a session.
func (a *Authenticator) get(ctx context.Context, of Session) (s Session, err error) {
	err = a.inStore(ctx, of, "Get", func(ctx context.Context) (err error) {
		s, err = a.store.Get(ctx, of.Subject, of.ID)
		return err
	})
	return s, err
}

// Logout ends the session of every token that was validly signed here, of
// either kind, expired or not. A token that was not, and a session that is
// gone already, are not errors. [ErrUnavailable] means that the store did not
// confirm it. However many tokens there are, it takes no longer than one call
// of the store may.
func (a *Authenticator) Logout(ctx context.Context, tokens ...string) error {
	named, err := a.namedSessions(ctx, tokens)
	return errors.Join(err, a.endNamed(ctx, named, "logout"))
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
		t, expires, err := a.whose(ctx, token)
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

// endNamed ends sessions, by one call of the store for each user where that is
// certain to be necessary.
func (a *Authenticator) endNamed(ctx context.Context, named []namedSession, reason string) error {
	ctx, cancel := a.withinStoreTimeout(ctx)
	defer cancel()
	now := a.now()
	var list []Revocation // one for each user
	var others []func() error
	for _, n := range named {
		s := Session{ID: n.sid, Subject: n.subject}
		known, err := a.revoked.check(n.subjectTimes, now)
		switch {
		case err != nil:
			others = append(others, func() error { return a.revokeAgain(ctx, known, s) })
			continue
		case !n.live:
			others = append(others, func() error { return a.endIfThere(ctx, s, reason) })
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
		err := a.tell(ctx, r, source{own: true})
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

// endIfThere ends a session that only expired tokens name. Whoever has one may
// send it again and again, so it costs no write unless there is something to
// end.
func (a *Authenticator) endIfThere(ctx context.Context, s Session, reason string) error {
	switch _, err := a.get(ctx, s); {
	case errors.Is(err, ErrSessionNotFound):
		return nil
	case err != nil:
		return err
	}
	return a.revokeWithin(ctx, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, reason)
}

// whose returns which session a token of either kind names, and when the token
// expires.
func (a *Authenticator) whose(ctx context.Context, token string) (t subjectTimes, expires time.Time, err error) {
	if c, _ := a.openRefresh(ctx, token); c.sid != "" {
		return c.times(), c.expiresAt, nil
	}
	c, err := a.Verifier.open(ctx, token)
	if err != nil {
		return subjectTimes{}, time.Time{}, err
	}
	t = c.times()
	t.issued = time.Time{} // a not-before instant ends access, not the session
	return t, c.ExpiresAt, nil
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

func (c *refreshClaims) times() subjectTimes {
	return subjectTimes{subject: c.subject, sid: c.sid, created: c.authTime}
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
	rd := a.read()
	absolute := c.authTime.Add(a.sessionTTL)
	if !rd.now.Before(a.refreshEnd(&c)) {
		return Tokens{}, grantError{ErrTokenExpired}
	}
	if known, err := a.revoked.check(c.times(), rd.now); err != nil {
		if err := a.revokeAgain(context.WithoutCancel(ctx), known, s); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{err}
	}
	if isNewer {
		// The session may go on, and the client keeps its token: a process of
		// the newer version refreshes it.
		a.emitRarely(ctx, &a.saidNewer, Event{Type: EventFault, Session: s, Device: cleanDevice(o.Device), Generation: c.generation, Err: newer})
		return Tokens{}, newer
	}

	u, err := a.findByID(ctx, c.subject)
	if gone := errors.Is(err, ErrUserNotFound); gone || err == nil && u.Disabled {
		if err := a.end(ctx, s, "user"); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, grantError{fmt.Errorf("%w: its user is gone or disabled", ErrSessionRevoked)}
	}
	if err != nil {
		return Tokens{}, err
	}

	// All that can fail is done before the token is spent.
	t, err := a.mintAccess(ctx, u, c.sid, c.amr, rd.now, a.countsFrom(&c, rd), c.authTime, a.certainEnd(&c, rd.now))
	if err == nil {
		err = a.fitsCookie(t.Access, o.InBody)
	}
	if err != nil {
		return Tokens{}, a.internal(ctx, s, err)
	}

	device := cleanDevice(o.Device)
	now := a.now()
	use := Use{At: now, Rested: now.Add(-a.rest), ExpiresAt: earlier(now.Add(a.idleTTL), absolute), Device: device}
	if c.generation == 1 {
		use.Rested = later(now, c.authTime).Add(a.sessionTTL) // it was never refreshed, so it does not rest
	}
	var moved bool
	rotate := func(ctx context.Context) (err error) {
		s, moved, err = a.store.Rotate(ctx, c.subject, c.sid, c.generation, use)
		return err
	}
	err = a.inStore(ctx, s, "Rotate", rotate)
	if err == nil && !moved && s.Generation == c.generation && a.isAhead(s.RotatedAt, now) {
		// It does not rest: it was moved while a clock was wrong, and would not
		// move again until this clock has caught up. Moving it sets RotatedAt
		// back. If somebody else has done so meanwhile, nothing happens.
		a.saysAhead(ctx, s, now)
		use.Rested = s.RotatedAt
		err = a.inStore(ctx, s, "Rotate", rotate)
	}
	if errors.Is(err, ErrSessionNotFound) {
		return Tokens{}, grantError{ErrSessionRevoked}
	}
	if err != nil {
		return Tokens{}, err
	}
	event, err := a.judge(ctx, &c, s, moved, now, device)
	if err != nil {
		return Tokens{}, err
	}
	if _, err := a.revoked.check(c.times(), now); err != nil {
		return Tokens{}, grantError{err}
	}
	if s.Generation == c.generation {
		t.Refresh, t.RefreshExpiresAt, t.presented = token, c.expiresAt, true
	} else {
		// Of the store's answer only where the session stands is believed.
		s.CreatedAt, s.ExpiresAt = c.authTime, earlier(s.ExpiresAt, absolute)
		if err := a.mintRefresh(&t, s, c.amr); err != nil { // HMAC, and its size was checked by New
			return Tokens{}, a.internal(ctx, s, err)
		}
	}
	if event != "" {
		a.emit(ctx, Event{Type: event, Session: s, Device: device, Generation: c.generation})
	}
	return t, nil
}

// countsFrom is the instant as of which an access token counts as issued when
// it is compared with a cut: no earlier than the cuts that were known when the
// clock was read, and than the login. A login may lie ahead of the clock because
// of a cut that this process has not read yet. One that lies further ahead was
// opened while a clock was wrong, and must not exempt its tokens from cuts.
func (a *Authenticator) countsFrom(c *refreshClaims, rd reading) time.Time {
	at := a.revoked.from(c.subject, rd)
	if c.authTime.After(rd.now.Add(a.future())) {
		return at
	}
	return later(at, c.authTime)
}

// certainEnd is when the session is sure to last until, before it is known
// what Rotate will say. Whatever it says, the session was used within the last
// rest; if it may still be resting, nothing but the token's own end is sure.
func (a *Authenticator) certainEnd(c *refreshClaims, now time.Time) time.Time {
	end := earlier(now.Add(a.idleTTL-a.rest), c.authTime.Add(a.sessionTTL))
	if c.expiresAt.Before(end) && now.Sub(c.issuedAt) <= a.rest+a.leeway+time.Second {
		return c.expiresAt
	}
	return end
}

// isAhead reports whether a session was moved by a clock that is further ahead
// of this one than clocks may be.
func (a *Authenticator) isAhead(rotated, now time.Time) bool { return rotated.After(now.Add(a.leeway)) }

func (a *Authenticator) saysAhead(ctx context.Context, s Session, now time.Time) {
	a.emit(ctx, Event{Type: EventFault, Session: s, Err: fmt.Errorf("auth: the session moved %s ahead of this clock", s.RotatedAt.Sub(now))})
}

// judge says what a refresh was, from how the session stands. The event that
// it returns is for when the answer is certain.
func (a *Authenticator) judge(ctx context.Context, c *refreshClaims, s Session, moved bool, now time.Time, device Device) (EventType, error) {
	if a.isAhead(s.RotatedAt, now) {
		a.saysAhead(ctx, s, now)
	}
	age := max(0, now.Sub(s.RotatedAt))
	switch {
	case s.ID != c.sid || s.Subject != c.subject:
		return "", a.fault(ctx, Session{ID: c.sid, Subject: c.subject}, errors.New("auth: the store answered with another session"))
	case moved && s.Generation == c.generation+1:
		return EventRefresh, nil
	case moved && s.Generation == c.generation:
		a.emit(ctx, Event{Type: EventFault, Session: s, Generation: c.generation, Err: errors.New("auth: the store had lost writes; the session goes on")})
		return EventRefresh, nil
	case !moved && s.Generation == c.generation: // it rests
		if s.Device != device {
			return EventRepeat, nil
		}
		return "", nil
	case !moved && s.Generation == c.generation+1 && age <= a.window:
		return EventRepeat, nil
	case !moved && s.Generation > c.generation:
		err := a.end(ctx, s, "reuse")
		a.emit(ctx, Event{Type: EventReuse, Session: s, Device: device, Generation: c.generation, Err: err})
		if err != nil {
			return "", err
		}
		return "", grantError{ErrTokenReused}
	}
	return "", a.fault(ctx, s, fmt.Errorf("auth: the store answered with generation %d to %d", s.Generation, c.generation))
}
