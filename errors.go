package auth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Sentinel errors. Test for them with errors.Is: most errors wrap one of them and
// add the cause. An error text never contains a token, key, password or hash.
// [ResponseFor] returns the HTTP response to each of them.
var (
	// ErrNoToken means that the request has no token.
	ErrNoToken = errors.New("auth: no token")
	// ErrInvalidToken means that the token was not issued by this service, or is
	// of the wrong kind.
	ErrInvalidToken = errors.New("auth: invalid token")
	// ErrTokenExpired means that the token was valid and has expired. It is also
	// the error for an access token that [Authenticator.ExpireAccess] has ended,
	// for one whose iat is ahead of this server's clock, and, with a
	// [MemoryStore], for one of an earlier process. The client can refresh an
	// access token.
	ErrTokenExpired = errors.New("auth: token expired")
	// ErrSessionRevoked means that the session of the token has ended.
	ErrSessionRevoked = errors.New("auth: session revoked")
	// ErrTokenReused means that a spent refresh token was presented after the
	// retry window without its retry key, so two clients have it. Its session has
	// been ended.
	ErrTokenReused = errors.New("auth: refresh token reused, session ended")
	// ErrThrottled means that there were too many failed attempts for this account,
	// or from this source, so this one was refused and nothing was checked. The
	// response has status 429, and its header Retry-After has the number of seconds
	// until the next attempt is possible, at most 900. See Config.Limiter.
	ErrThrottled = errors.New("auth: too many failed attempts")
	// ErrInvalidCredentials means that the user does not exist or is disabled,
	// or that the password or the response to a second factor is wrong. It does not
	// say which.
	ErrInvalidCredentials = errors.New("auth: invalid credentials")
	// ErrTooManySessions means that a login was refused because the user has
	// Config.MaxSessions sessions, and Config.RefuseOverLimit is set.
	ErrTooManySessions = errors.New("auth: too many sessions")
	// ErrForbidden means that a [Guard] refused the claims, that Config.OnLogin
	// refused a login, or that somebody who acts for a user
	// ([SessionOptions].Actor) has tried what only the user may do.
	ErrForbidden = errors.New("auth: forbidden")
	// ErrReauthenticate means that the login was too long ago ([Fresh]) or by another
	// method ([AMR]).
	ErrReauthenticate = errors.New("auth: a more recent login is required")
	// ErrInvalidRequest means that the request is malformed, or has tokens of two
	// sessions.
	ErrInvalidRequest = errors.New("auth: invalid request")
	// ErrCrossOrigin means that a request with a token cookie, or a login that
	// sets cookies, came from an origin that is not trusted.
	ErrCrossOrigin = errors.New("auth: cross-origin request refused")
	// ErrUnavailable means that a store, a user lookup, a key set or another hook
	// failed or did not return in time. No session has ended because of it, and the
	// request can be repeated.
	ErrUnavailable = errors.New("auth: temporarily unavailable")
)

// detail is an error within another error of this package. Its text omits the
// prefix "auth: ", which the outer error has, at its start and where a store has
// wrapped a sentinel error.
type detail struct{ error }

func (d detail) Error() string {
	text := strings.TrimPrefix(d.error.Error(), "auth: ")
	for i := range responses {
		text = omitPrefix(text, responses[i].err)
	}
	for _, sentinel := range [...]error{ErrSessionNotFound, ErrSessionExists, ErrFeedReset, ErrNotStorable} {
		text = omitPrefix(text, sentinel)
	}
	return text
}

// omitPrefix omits "auth: " where the text of a sentinel follows a colon.
func omitPrefix(text string, sentinel error) string {
	full := sentinel.Error()
	return strings.ReplaceAll(text, ": "+full, ": "+strings.TrimPrefix(full, "auth: "))
}

func (d detail) Unwrap() error { return d.error }

// Errors of requests that the endpoints refuse before they read a token.
var (
	errTooLarge    = errors.New("auth: request body too large")
	errContentType = errors.New("auth: content type not supported")
	errMethod      = errors.New("auth: method not allowed")
	errEndpoint    = errors.New("auth: no such endpoint")
)

// errNotRunning is the error for an access token while Run is not running and
// has not read the feed. Its text is sent to the client: it helps the developer
// who forgot to call Run, and tells others nothing that they could use.
var errNotRunning = fmt.Errorf("%w: Run is not running, so no revocations are read; call it in a goroutine after New or NewVerifier", ErrUnavailable)

// errCookieTooLarge means that the token of a user does not fit into a cookie.
// The client cannot correct it by a retry or a new login.
var errCookieTooLarge = errors.New("auth: token too large for a cookie")

// grantError marks an error about a refresh token, or about the challenge of a
// second factor. Its response has the code invalid_grant (RFC 6749 section 5.2), the
// action "login" and no WWW-Authenticate header.
type grantError struct{ error }

func (e grantError) Unwrap() error { return e.error }

// oneTimeError marks an error about a one-time token. Its response has status 400,
// no WWW-Authenticate header and no action: the user asks for another token.
type oneTimeError struct{ error }

func (e oneTimeError) Unwrap() error { return e.error }

// ticketError marks an error about a ticket. If the ticket cannot be used, the
// response has status 401 and the action "refresh": the client gets another one.
type ticketError struct{ error }

func (e ticketError) Unwrap() error { return e.error }

// freshError is the error of [Fresh]. Its response contains maxAge.
type freshError struct{ maxAge time.Duration }

func (e *freshError) Error() string {
	return "auth: the login was more than " + e.maxAge.String() + " ago"
}

func (e *freshError) Unwrap() error { return ErrReauthenticate }

// amrError is the error of [AMR]. Its response contains the text.
type amrError struct{ text string }

func (e *amrError) Error() string { return "auth: " + e.text }

func (e *amrError) Unwrap() error { return ErrReauthenticate }

// scopeError is the error of [Scope]. Its response contains the required scope.
type scopeError struct{ scope string }

func (e *scopeError) Error() string { return "auth: scope " + strconv.Quote(e.scope) + " is missing" }

func (e *scopeError) Unwrap() error { return ErrForbidden }

// resourceError is an error whose challenge names the metadata of the resource.
type resourceError struct {
	error
	metadata string // Config.ResourceMetadata
}

func (e *resourceError) Unwrap() error { return e.error }

// withResource returns err, with Config.ResourceMetadata for its challenge. All errors
// that Config.OnError or a caller may pass to [ResponseFor] go through it.
func (v *Verifier) withResource(err error) error {
	if v.resource == "" || err == nil {
		return err
	}
	return &resourceError{err, v.resource}
}

// describedError is an error whose response has a description of its own.
type describedError struct {
	error
	description string
}

func (e *describedError) Unwrap() error { return e.error }

// tokenError is an ErrInvalidToken. Only its text may contain text of the token.
type tokenError struct {
	text        string
	cause       string // one word; events of different causes are limited separately
	description string // sent to the client
}

func (e *tokenError) Error() string { return ErrInvalidToken.Error() + ": " + e.text }

func (e *tokenError) Unwrap() error { return ErrInvalidToken }

// reportedError marks an error for which an event was emitted, so that
// WriteError does not emit another.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// quoted returns text of a client in quotes, in ASCII, and cut to 100 bytes.
func quoted(s string) string {
	const limit = 100
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// requestError is an ErrInvalidRequest whose text is sent to the client.
type requestError string

func (e requestError) Error() string { return "auth: invalid request: " + string(e) }

func (e requestError) Unwrap() error { return ErrInvalidRequest }

// cookieSizeError is an errCookieTooLarge that names the cookie and its size.
type cookieSizeError struct {
	name string
	size int
}

func (e *cookieSizeError) Error() string {
	return fmt.Sprintf("auth: cookie %s would be %d bytes, but browsers drop cookies over %d; put less into User.Extra, Roles or Scopes",
		e.name, e.size, maxCookie)
}

func (e *cookieSizeError) Unwrap() error { return errCookieTooLarge }
