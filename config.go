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
	"time"

	"github.com/ratchet-go/auth/internal/keycheck"
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

	// TokenCacheSize is how many access tokens that were verified are remembered, so
	// that a token that comes again costs no signature: 65,536 by default, at
	// most 1<<20; negative: none. What is remembered expires, is revoked and
	// loses its key as if it were not, and takes at most 2 KiB for each on
	// average.
	TokenCacheSize int

	// StoreTimeout bounds each call of the store: 2 seconds by default, a
	// millisecond to a minute.
	StoreTimeout time.Duration

	// MaxStale is the age at which the revocation feed counts as stale, a
	// minute by default, and StalePolicy what happens then.
	MaxStale    time.Duration
	StalePolicy StalePolicy

	// OnEvent is told of events, within the request: it must return soon, and
	// is called concurrently. [LogEvents] makes one.
	OnEvent func(ctx context.Context, e Event)

	// OnError writes the answer to a request that was refused. nil means the
	// function [DefaultOnError], which it may call for what it leaves alone; it
	// finds status and headers by [ResponseFor].
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
	cooldownWindows    = 3
	defaultMaxSessions = 100
	defaultJWKSMaxAge  = 5 * time.Minute
	minJWKSMaxAge      = 5 * time.Second // clients do not ask more often
	maxJWKSMaxAge      = 24 * time.Hour
	minStoreTimeout    = time.Millisecond
	maxStoreTimeout    = time.Minute
	cleanupTimeout     = 200 * time.Millisecond // to undo a login that the store did not let complete, and to announce a notice within a login
)

// keys returns the keys of both kinds.
func (c *Config) keys() (access, refresh Keys, err error) {
	if len(c.Secrets) > 0 {
		var errs []error
		if len(c.AccessKeys) > 0 || len(c.RefreshKeys) > 0 {
			errs = append(errs, errors.New("auth: Config.Secrets and Config.AccessKeys or RefreshKeys exclude each other"))
		}
		for i, secret := range c.Secrets {
			if err := keycheck.Secret(secret, 32); err != nil {
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
	room := (c.IdleTTL - c.AccessTTL - leeway) / cooldownWindows
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
	if least := cooldownWindows*window + c.AccessTTL + leeway; c.IdleTTL < least {
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
