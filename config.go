package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ratchet-go/auth/internal/keycheck"
	"github.com/ratchet-go/auth/password"
)

// Config configures [New]. Issuer, Audience and Users are required, and either
// Secrets or both AccessKeys and RefreshKeys.
//
// A zero field means the default. For the fields that say so, a negative value
// turns the feature off. A positive duration of less than a millisecond is an
// error, because its unit is most likely missing.
//
// New copies the Config, so later changes to it have no effect. Printing or
// logging a Config does not reveal its secrets.
type Config struct {
	_ [0]func() // keyed literals only

	// Issuer is the iss claim of all tokens, usually the URL of the service. It
	// is UTF-8 without control characters or invisible characters, and without
	// spaces at its ends. So is each Audience.
	Issuer string

	// Audience is the aud claim of all tokens: the services that accept the
	// access tokens. A token is accepted if its aud contains at least one of
	// these values, of which no two are equal.
	Audience []string

	// Secrets are the secrets from which the access keys and the refresh keys
	// are derived. Each has at least 32 random bytes. The first one signs, and all
	// of them verify. The derived keys are HS256 keys of 32 bytes: HKDF (RFC 5869)
	// with SHA-256, no salt, and the info "ratchet v1 access" or "ratchet v1
	// refresh". An application that replaces Secrets by AccessKeys and RefreshKeys
	// keeps the derived keys at the end of those lists until IdleTTL has passed and
	// the last one-time token that was issued before has expired.
	//
	// To change a secret, deploy {old, new} to every process, then {new, old}
	// to every process, and finally {new} when both IdleTTL and the longest
	// OneTime.TTL in use have passed. A process without the new secret refuses
	// tokens that were signed with it, and tells their clients to sign in again.
	// So start with {new, old} only if there is a single process.
	Secrets [][]byte

	// AccessKeys and RefreshKeys can be set instead of Secrets, but not
	// together with them; set both or neither. The two lists must not have a
	// secret in common. The first key of each list signs, and all of them
	// verify. RefreshKeys must be HMAC keys, because only this service reads
	// refresh tokens. An HS256 key for one-time tokens is derived from each of
	// them, by HKDF as for Secrets, with the info "ratchet v1 one-time". So the two
	// change together. See also [Authenticator.SetKeys].
	AccessKeys  Keys
	RefreshKeys Keys

	// JWKSMaxAge is how long clients may cache the response of
	// [Authenticator.JWKSHandler]. The default is 5 minutes; it must be from 5
	// seconds to 24 hours. A key pair that [Authenticator.SetKeys] adds signs
	// only after JWKSMaxAge + Leeway have passed, when every older cached
	// response has expired, unless [Key.SignFrom] sets another time.
	JWKSMaxAge time.Duration

	// Users is the application's user lookup. If it also implements
	// [PasswordUpdater], weak password hashes are upgraded at login, and
	// [Authenticator.ChangePassword] can be used. Users and Store must not be a
	// nil pointer, map, slice or function, even of a type whose methods accept
	// that.
	Users Users

	// Store keeps the sessions. If it is nil, the Authenticator creates a
	// [MemoryStore]. If it is neither nil nor a *MemoryStore, call
	// [Verifier.Run]. With a [MemoryStore], an access token that was issued
	// before the process started is refused with [ErrTokenExpired].
	Store Store

	// SecondFactor is the application's second step between the password and the
	// session; see [Authenticator.LoginFactor]. nil means that the password is
	// enough. [Authenticator.StartSession] does not use it.
	SecondFactor SecondFactor

	// Hasher checks passwords. nil means a zero [password.Hasher]. To hash the
	// password of a new user, call [Authenticator.HashPassword], or use the same
	// Hasher, so that its limit on concurrent hashing applies to both.
	Hasher *password.Hasher

	// Limiter counts failed attempts to guess a password or another secret, and
	// refuses further ones with [ErrThrottled]. nil means that this process counts
	// them in memory. It also does so while the Limiter fails or does not respond
	// within StoreTimeout, and emits an [EventFault]; for 5 seconds after a failure,
	// the Limiter is not asked. Several processes should share a Limiter, such as
	// that of package redisstore.
	//
	// An account has 5 attempts before each further one must wait, first for a
	// second, then twice as long each time, up to 15 minutes. So has a login name. A
	// source, which is an IPv4 address or a network of IPv6 (/64), has 50. For an
	// account or a name, one attempt is forgotten in 15 minutes, and for a source
	// in 30 seconds. A login that succeeds clears the attempts of the account and of
	// the name. Attempts of a known device ([Cookies].DeviceName) are counted only
	// for that device.
	//
	// If a proxy is in front of the server, set TrustedProxies: otherwise all clients
	// are one source.
	Limiter Limiter

	// Cookies configures token cookies for browsers. nil means that tokens are
	// sent in bodies and headers only.
	Cookies *Cookies

	// Extractors say where in a request to look for access tokens. Empty means
	// the bearer header and, if Cookies is set, the access cookie.
	Extractors []Extractor

	// AutoRefresh refreshes the tokens of requests by cookie, for pages that the
	// server renders. It applies to requests that have a refresh cookie, and no
	// access cookie or one whose token has expired. It requires Cookies.
	//
	// A GET or HEAD request is redirected to its own URL with new cookies, with
	// status 307. A client that returns to the same URL without them is not
	// redirected again for a minute: the handler then serves the request, and the
	// response sets the cookies.
	//
	// Any other request, such as a form that a user has filled in, is served: the
	// handler reads the body and gets the claims as usual, and the response sets
	// the new cookies. Its origin must be trusted ([Verifier.CheckOrigin]). The
	// exceptions are OPTIONS requests and WebSocket handshakes, which are refused.
	AutoRefresh bool

	// AccessTTL is the lifetime of access tokens. The default is 15 minutes; it
	// must be from 1 second to 24 hours, and more than 2·Leeway + 1 s.
	AccessTTL time.Duration
	// IdleTTL is how long a session lives without a refresh: 7 days by default,
	// or SessionTTL if that is set to less. It must be at least 3·RetryWindow +
	// AccessTTL + Leeway.
	IdleTTL time.Duration
	// SessionTTL is how long a session lives at most, counted from its login:
	// 30 days by default, at least IdleTTL, at most ten years (of 365 days).
	SessionTTL time.Duration
	// RetryWindow is how long a refresh token is accepted after a refresh has
	// replaced it. Within this time, a refresh with the old token returns the
	// same new token. It is often called a grace period or reuse interval. For
	// three retry windows after the replacement, a refresh with the new token
	// returns a new access token and the same refresh token.
	//
	// The default is 30 seconds, or (IdleTTL - AccessTTL - Leeway) / 3 if that
	// is less, but at least 100 milliseconds. The maximum is 60 seconds. A
	// negative value means no retry window: two tabs that refresh at the same
	// time then end the session. A longer window lets clients survive longer
	// outages. It also lets a stolen token that is spent work for longer, and for
	// three windows a thief and the user may both use the current one without
	// ending the session. A client with retry keys ([RefreshOptions]) does not
	// depend on the window.
	RetryWindow time.Duration
	// Leeway is how far the clocks of several machines may differ: 10 seconds
	// by default, at most 60. A negative value means none. Leeway never extends
	// a lifetime.
	Leeway time.Duration

	// MaxSessions is how many sessions a user may have: 100 by default. A
	// negative value means no limit. A login over the limit ends the least
	// recently used session.
	MaxSessions int

	// RefuseOverLimit refuses a login over the limit of MaxSessions with
	// [ErrTooManySessions], instead of ending a session. The sessions that the login
	// replaces do not count. If several logins at the same time would together
	// exceed the limit, all of them may be refused.
	RefuseOverLimit bool

	// OnLogin is called by [Authenticator.Login], [Authenticator.LoginFactor] and
	// [Authenticator.StartSession], once the credentials were proved and before the
	// session exists. A Login that requires a second factor does not call it, and
	// neither does [Authenticator.Continue]. It may change o, for example shorten
	// the lifetimes or set Data, but not o.Actor. It refuses the login by returning
	// an error that wraps [ErrForbidden]. Any other error counts as a failure: the
	// login returns [ErrUnavailable] (status 503). OnLogin is called concurrently.
	OnLogin func(ctx context.Context, u User, o *SessionOptions) error

	// Claims returns further claims for the access tokens of a session, which
	// depend on its [Session.Data], name, device or actor. It is called when a
	// session is opened and at each refresh, concurrently, with the user and the
	// record of the session. At a refresh, that is the record as it was before the
	// refresh. The rules for the names
	// and values are those of User.Extra, and a name must not be in User.Extra too.
	// An error means that the claims are not known: the caller returns
	// [ErrUnavailable] (status 503), and no session is opened and no refresh token
	// spent.
	//
	// If Claims is set, each refresh reads the record before it writes it, which
	// is one more call to the store.
	Claims func(ctx context.Context, u User, s Session) (map[string]any, error)

	// TrustedProxies are the networks of the proxies whose X-Forwarded-For
	// header is used to find the client's address. There are none by default.
	// They must not contain every public address, because any client could then
	// choose the address that [Verifier.Device] returns.
	TrustedProxies []netip.Prefix

	// TrustUnixPeers says that whoever connects to a Unix socket of the server
	// is a trusted proxy too. Such a connection has no address, so TrustedProxies
	// cannot contain it. Set TrustUnixPeers if only the proxy may open the
	// socket.
	TrustUnixPeers bool

	// ResourceMetadata is the URL of the metadata of the protected resource, such as
	// https://api.example.com/.well-known/oauth-protected-resource. Every challenge
	// (WWW-Authenticate) then has it as resource_metadata (RFC 9728 section 5.1), so
	// that a client finds out where to get a token, which is what MCP clients
	// require. It is an https URL, or an http URL of a loopback host, without a
	// fragment, in ASCII. Empty means that challenges do not have it. Package oauth
	// has a handler of the metadata.
	ResourceMetadata string

	// TokenCacheSize is how many verified access tokens are cached, so that
	// their signatures are not verified again: 65,536 by default, at most 1<<20.
	// A negative value turns the cache off. Expiry, revocation and key removal
	// are checked for every request, cached or not. The cache uses at most 2 KiB
	// per token on average.
	TokenCacheSize int

	// StoreTimeout limits each call to the store and to the Limiter. The default is
	// 2 seconds; it must be from 1 millisecond to 1 minute.
	StoreTimeout time.Duration

	// HookTimeout limits each call of the application's other code: Users,
	// SecondFactor, OnLogin, Claims, guards, and a [crypto.Signer]. The context of
	// the call ends after this time. A call that has not returned 100 milliseconds
	// later is abandoned: the request gets status 503, and there is an [EventFault].
	// See also [Health].Abandoned. The default is 5 seconds; it must be from 1
	// millisecond to 1 minute.
	HookTimeout time.Duration

	// MaxStale is the age at which the revocation feed counts as stale: a
	// minute by default, from a second to 24 hours. StalePolicy says how requests
	// are then handled: [StaleContinue] by default.
	MaxStale    time.Duration
	StalePolicy StalePolicy

	// OnEvent receives events. It is called concurrently, and while the request
	// waits, so it must return soon. [LogEvents] returns such a function. Its
	// context ends after a second, and soon afterward the request goes on without
	// it. While 64 calls have not returned, events are dropped
	// ([Health].DroppedEvents).
	//
	// nil means that faults (EventFault and EventStale) are logged to
	// [slog.Default], at most once per kind and minute. Only Event.Err is logged,
	// whose text may contain the ID of a user. To silence them, set a function
	// that does nothing.
	OnEvent func(ctx context.Context, e Event)

	// OnError writes the response to a request that is refused with err. nil
	// means [DefaultOnError], which an OnError may call for errors that it does
	// not handle. [ResponseFor] returns the status and headers for an error.
	//
	// OnError must return, because the request waits for it; there is an
	// [EventFault] if it takes longer than HookTimeout. If it panics before it has
	// begun to write a response, the response is status 500. Otherwise the request
	// is aborted, as it is if OnError panics with [http.ErrAbortHandler].
	OnError func(w http.ResponseWriter, r *http.Request, err error)

	// Now returns the current time. nil means [time.Now].
	Now func() time.Time
}

// Format prints only the issuer and the audience.
func (c Config) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.Config{issuer %q audience %q}", c.Issuer, c.Audience)
}

// LogValue returns what Format prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// MarshalText returns what Format prints, so that encoders do not read the
// fields.
func (c Config) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

// GobEncode returns an error, because the fields contain secrets.
func (c Config) GobEncode() ([]byte, error) { return nil, notEncodable("Config", "secrets") }

// Defaults and bounds.
const (
	defaultAccessTTL   = 15 * time.Minute
	minAccessTTL       = time.Second
	maxAccessTTL       = 24 * time.Hour
	defaultIdleTTL     = 7 * 24 * time.Hour
	defaultSessionTTL  = 30 * 24 * time.Hour
	maxSessionTTL      = 10 * 365 * 24 * time.Hour
	defaultWindow      = 30 * time.Second
	minDefaultWindow   = 100 * time.Millisecond // lower bound of the default RetryWindow
	maxWindow          = time.Minute
	cooldownWindows    = 3
	defaultMaxSessions = 100
	defaultJWKSMaxAge  = 5 * time.Minute
	minJWKSMaxAge      = 5 * time.Second // package jwks does not fetch more often
	maxJWKSMaxAge      = 24 * time.Hour
	maxActingTTL       = time.Hour   // of a session with an actor
	minActingAccess    = time.Minute // counts instead of a longer AccessTTL in the least IdleTTL of such a session
	minStoreTimeout    = time.Millisecond
	maxStoreTimeout    = time.Minute
	cleanupTimeout     = 200 * time.Millisecond // for removing the session of a failed login, and for publishing a notice when a token is issued
)

// keys returns the access keys and the refresh keys. The error reports every
// mistake in them.
func (c *Config) keys() (access, refresh Keys, err error) {
	if len(c.Secrets) > 0 {
		var errs []error
		if len(c.AccessKeys) > 0 || len(c.RefreshKeys) > 0 {
			errs = append(errs, errors.New("auth: Config.Secrets is set, so Config.AccessKeys and Config.RefreshKeys must be empty"))
		}
		for i, secret := range c.Secrets {
			if err := keycheck.Secret(secret, 32); err != nil {
				errs = append(errs, fmt.Errorf("auth: Config.Secrets[%d]: %w", i, err))
			}
			if j := slices.IndexFunc(c.Secrets[:i], func(s []byte) bool { return bytes.Equal(s, secret) }); j >= 0 {
				errs = append(errs, fmt.Errorf("auth: Config.Secrets[%d] duplicates Config.Secrets[%d]", i, j))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return nil, nil, err
		}
		return derivedKeys(c.Secrets)
	}
	if len(c.AccessKeys) == 0 && len(c.RefreshKeys) == 0 {
		return nil, nil, errors.New("auth: Config.Secrets has no secret" + keycheck.HowToCreate +
			" and set Config.Secrets, or set both Config.AccessKeys and Config.RefreshKeys")
	}
	return slices.Clone(c.AccessKeys), slices.Clone(c.RefreshKeys),
		checkKeys("Config.", "; set both Config.AccessKeys and Config.RefreshKeys, or only Config.Secrets", c.AccessKeys, c.RefreshKeys)
}

// checkNotNil returns an error if v is not nil, but holds a nil pointer, map,
// slice, function or channel. A call of its methods would nearly always panic,
// and v cannot become valid later.
func checkNotNil(field string, v any) error {
	if isNil(v) {
		return fmt.Errorf("auth: %s is a nil %T; create the value before you pass it", field, v)
	}
	return nil
}

// isNil reports whether v is nil or holds a nil value.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return r.IsNil()
	}
	return false
}

// codeOf returns the address of the code of a guard.
func codeOf(g Guard) uintptr { return reflect.ValueOf(g).Pointer() }

// checkFeed returns an error if feed, a Feed or a Store, is not nil and cannot
// be used.
func checkFeed(field string, feed Feed) error {
	if feed == nil {
		return nil
	}
	if m, ok := feed.(*MemoryStore); ok && m != nil && m.feed.name == "" {
		return fmt.Errorf("auth: %s is a zero MemoryStore; create it with NewMemoryStore", field)
	}
	return checkNotNil(field, feed)
}

// badName returns the end of an error text that says why s, which is not empty,
// cannot be an issuer or an audience. If it can be one, badName returns "". The
// values are compared byte for byte, and nobody sees an invisible character.
func badName(s string) string {
	switch {
	case !isPlainText(s):
		return fmt.Sprintf("must be UTF-8 without control characters, but is %+q", s)
	case strings.TrimSpace(s) == "":
		return fmt.Sprintf("%+q is blank; set it to a name such as https://example.com", s)
	case strings.TrimSpace(s) != s:
		return fmt.Sprintf("%+q begins or ends with a space; remove it", s)
	case strings.ContainsFunc(s, isInvisible):
		return fmt.Sprintf("%+q contains an invisible character; remove it", s)
	}
	return ""
}

// isInvisible reports whether c is a space other than U+0020, or a character
// that is usually not displayed.
func isInvisible(c rune) bool {
	return c != ' ' && unicode.In(c, unicode.Z, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// missingUnit returns an error if d is positive and less than a millisecond. No
// setting can use such a value, and a number without a unit counts nanoseconds.
func missingUnit(field string, d time.Duration) error {
	if d <= 0 || d >= time.Millisecond {
		return nil
	}
	return fmt.Errorf("auth: %s (%s) is less than 1ms; missing time unit?", field, d)
}

// setLifetimes sets the defaults of the lifetimes and checks them against each
// other. If IdleTTL or RetryWindow was not set, its default shrinks to fit the
// other fields. newVerifier checks Leeway.
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
			*d.value = 0 // check the other fields as if this one was not set
		}
	}

	accessShown := setDuration(&c.AccessTTL, defaultAccessTTL)
	shortest := "IdleTTL" // the field that determines IdleTTL
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
		bad("AccessTTL %s must exceed %s: twice Config.Leeway %s plus 1s", accessShown, least, leewayShown)
	}
	if c.RetryWindow > maxWindow {
		bad("RetryWindow %s exceeds %s", windowShown, maxWindow)
	}
	if least := cooldownWindows*window + c.AccessTTL + leeway; c.IdleTTL < least {
		bad("%s %s is less than %s: three times Config.RetryWindow %s plus Config.AccessTTL %s plus Config.Leeway %s",
			shortest, idleShown, least, windowShown, accessShown, leewayShown)
	}
	if c.IdleTTL > c.SessionTTL {
		bad("IdleTTL %s exceeds Config.SessionTTL %s", idleShown, sessionShown)
	}
	if c.SessionTTL > maxSessionTTL {
		bad("SessionTTL %s exceeds %s", sessionShown, maxSessionTTL)
	}
	return errors.Join(errs...)
}

// setDuration replaces a zero duration with a default and truncates a positive
// one to milliseconds. It returns the text of the duration for error messages.
func setDuration(d *time.Duration, byDefault time.Duration) (shown string) {
	if *d == 0 {
		*d = byDefault
		return byDefault.String() + " (the default)"
	}
	shown = "(" + d.String() + ")"
	if *d > 0 {
		*d = d.Truncate(time.Millisecond)
	}
	return shown
}
