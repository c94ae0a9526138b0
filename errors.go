package auth

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The errors that a caller decides by, with errors.Is. The text around them
// says why; it never holds a token, key, password or hash. What each of them
// is on HTTP stands in one table, in this file; [ResponseFor] reads it and
// [DefaultOnError] writes it.
var (
	// ErrNoToken: the request carries no credential of ours.
	ErrNoToken = errors.New("auth: no token")
	// ErrInvalidToken: not a token of this service, or not of this kind.
	ErrInvalidToken = errors.New("auth: invalid token")
	// ErrTokenExpired: the token was good, and its time is over; or an access
	// token was cut by [Authenticator.ExpireAccess], or was issued ahead of this
	// clock. An access token can be refreshed.
	ErrTokenExpired = errors.New("auth: token expired")
	// ErrSessionRevoked: the session of the token has ended.
	ErrSessionRevoked = errors.New("auth: session revoked")
	// ErrTokenReused: a spent refresh token came back after its time, so two
	// parties hold it. Its session has been ended.
	ErrTokenReused = errors.New("auth: refresh token reused, session ended")
	// ErrInvalidCredentials: unknown user, wrong password or disabled user;
	// the answer does not say which.
	ErrInvalidCredentials = errors.New("auth: invalid credentials")
	// ErrForbidden: the claims do not suffice. A [Guard] wraps it.
	ErrForbidden = errors.New("auth: forbidden")
	// ErrReauthenticate: the login is too long ago. See [Fresh].
	ErrReauthenticate = errors.New("auth: a more recent login is required")
	// ErrInvalidRequest: the request is malformed or carries credentials
	// of two sessions.
	ErrInvalidRequest = errors.New("auth: invalid request")
	// ErrCrossOrigin: a credential came by cookie from an origin that is not
	// trusted.
	ErrCrossOrigin = errors.New("auth: cross-origin request refused")
	// ErrUnavailable: a store, a user lookup or a key set did not answer.
	// Nobody is signed out by it; the request may be repeated.
	ErrUnavailable = errors.New("auth: temporarily unavailable")
)

// Errors of requests that never reach the core.
var (
	errTooLarge    = errors.New("auth: request body too large")
	errContentType = errors.New("auth: content type not supported")
	errMethod      = errors.New("auth: method not allowed")
	errEndpoint    = errors.New("auth: no such endpoint")
)

// errCookieTooLarge is for the operator: neither a repetition nor a new login
// makes the token smaller.
var errCookieTooLarge = errors.New("auth: token too large for a cookie")

// grantError marks an error of a refresh token: its code is invalid_grant (RFC
// 6749 section 5.2), there is no bearer challenge, and nothing but a login
// helps.
type grantError struct{ error }

func (e grantError) Unwrap() error { return e.error }

// freshError carries what a client must be told to satisfy [Fresh].
type freshError struct{ maxAge time.Duration }

func (e *freshError) Error() string {
	return "auth: the login is more than " + e.maxAge.String() + " ago"
}

func (e *freshError) Unwrap() error { return ErrReauthenticate }

// scopeError carries the scope that [Scope] missed.
type scopeError struct{ scope string }

func (e *scopeError) Error() string { return "auth: scope " + strconv.Quote(e.scope) + " is missing" }

func (e *scopeError) Unwrap() error { return ErrForbidden }

// requestError is an ErrInvalidRequest whose text may be shown to the client.
type requestError string

func (e requestError) Error() string { return "auth: invalid request: " + string(e) }

func (e requestError) Unwrap() error { return ErrInvalidRequest }

// cookieSizeError tells the operator which cookie is too large, and what to do.
type cookieSizeError struct {
	name string
	size int
}

func (e *cookieSizeError) Error() string {
	return fmt.Sprintf("auth: cookie %s would be %d bytes, and browsers drop a cookie over %d; put less into User.Extra, Roles or Scopes", e.name, e.size, maxCookie)
}

func (e *cookieSizeError) Unwrap() error { return errCookieTooLarge }
