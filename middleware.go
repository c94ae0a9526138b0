package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// requestContext is a request's context with claims of its own, in one piece.
type requestContext struct {
	context.Context
	parsedClaims
}

// String is what package context prints of it, which would print the claims.
func (c *requestContext) String() string { return "auth.requestContext" }

func (c *requestContext) Value(key any) any {
	if key == (claimsKey{}) {
		return &c.Claims
	}
	return c.Context.Value(key)
}

type (
	claimsKey struct{}
	errorKey  struct{}
)

// NewContext returns a context that carries c, as a request has it behind
// [Verifier.Require]. Tests of handlers use it with claims of their own making.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, claimsKey{}, c)
}

// FromContext returns the claims of the request that ctx belongs to, and
// whether there are any. Behind [Verifier.Require] there always are.
func FromContext(ctx context.Context) (*Claims, bool) {
	c, ok := ctx.Value(claimsKey{}).(*Claims)
	return c, ok && c != nil
}

// ErrorFromContext returns why a request that [Verifier.Optional] let through
// as anonymous is that although it carried a cookie, or nil.
func ErrorFromContext(ctx context.Context) error {
	err, _ := ctx.Value(errorKey{}).(error)
	return err
}

// Guard decides, by the claims of a request, whether it may pass: nil lets it.
// An error that wraps none of this package's is taken for [ErrForbidden]; wrap
// [ErrUnavailable] where the decision could not be made. One that panics
// refuses, by a 500. Guards are called concurrently.
type Guard func(ctx context.Context, c *Claims) error

// Role lets claims pass that have one of the roles.
func Role(anyOf ...string) Guard {
	anyOf = slices.Clone(anyOf)
	return func(_ context.Context, c *Claims) error {
		for _, role := range anyOf {
			if slices.Contains(c.Roles, role) {
				return nil
			}
		}
		return fmt.Errorf("%w: none of the roles %q", ErrForbidden, anyOf)
	}
}

// Scope lets claims pass that have all of the scopes; without any, or with one
// that cannot be a scope, nobody. Its refusal names them in the challenge (RFC
// 6750 section 3).
func Scope(allOf ...string) Guard {
	allOf = slices.Clone(allOf)
	if len(allOf) == 0 || slices.ContainsFunc(allOf, func(s string) bool { return !isScope(s) }) {
		// Nobody has such a scope, also not in claims that a test made, and it
		// has no place in a header.
		return func(context.Context, *Claims) error { return &scopeError{} }
	}
	refusal := &scopeError{strings.Join(allOf, " ")}
	return func(_ context.Context, c *Claims) error {
		for _, scope := range allOf {
			if !slices.Contains(c.Scopes, scope) {
				return refusal
			}
		}
		return nil
	}
}

// maxAhead is how far ahead of the clock a login may lie, whatever Leeway is:
// by clocks that differ, and by a cut that raised it. One that lies further
// ahead was made while a clock was wrong, and nobody knows when.
const maxAhead = 2*maxLeeway + time.Second

// Fresh lets claims pass whose login, not whose last refresh, is at most
// maxAge ago. Its refusal asks for a new login (RFC 9470).
func Fresh(maxAge time.Duration) Guard {
	return func(_ context.Context, c *Claims) error {
		now := c.verifiedAt
		if now.IsZero() { // claims that a test made
			now = time.Now()
		}
		age := now.Sub(c.AuthTime)
		if c.AuthTime.IsZero() || age > maxAge || age < -maxAhead {
			return &freshError{maxAge}
		}
		return nil
	}
}

// Authenticate returns the claims of a request: [Verifier.AccessToken], then
// [Verifier.Verify].
func (v *Verifier) Authenticate(r *http.Request) (*Claims, error) {
	token, _, err := v.AccessToken(r)
	if err != nil {
		return nil, err
	}
	return v.Verify(r.Context(), token)
}

// Require wraps handlers that are only for requests with a valid access token,
// and with claims that pass every guard, in their order. The handler finds the
// claims by [FromContext]; every other request is answered by
// [Verifier.WriteError].
//
// OPTIONS is authenticated like every other method, so CORS middleware, which
// answers preflights, goes around this one.
func (v *Verifier) Require(guards ...Guard) func(http.Handler) http.Handler {
	guards = slices.Clone(guards)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v.setVary(w.Header())
			token, _, err := v.AccessToken(r)
			if err != nil {
				v.refuse(w, r, err)
				return
			}
			ctx := &requestContext{Context: r.Context()}
			if err := v.verify(ctx.Context, token, &ctx.parsedClaims); err != nil {
				v.refuse(w, r, err)
				return
			}
			if err := v.pass(ctx.Context, &ctx.Claims, guards); err != nil {
				v.WriteError(w, r, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// refuse responds to a request without a valid access token.
func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, err error) {
	done, reason := v.refreshPage(w, r, err)
	if done {
		return
	}
	if reason != nil {
		err = reason
	}
	v.WriteError(w, r, err)
}

// refreshPage responds to a request with Config.AutoRefresh, if that applies.
func (v *Verifier) refreshPage(w http.ResponseWriter, r *http.Request, err error) (done bool, reason error) {
	if v.backend == nil {
		return false, nil
	}
	return v.backend.refreshPage(w, r, err)
}

func (v *Verifier) pass(ctx context.Context, c *Claims, guards []Guard) error {
	for _, guard := range guards {
		err := callHook("Guard", func() error { return guard(ctx, c) })
		var panicked *panicError
		if errors.As(err, &panicked) {
			v.emit(ctx, Event{Type: EventFault, Session: Session{Subject: c.Subject, ID: c.SessionID}, Err: err})
			return err
		}
		if err != nil {
			if ResponseFor(err).Status == http.StatusInternalServerError {
				err = fmt.Errorf("%w: %w", ErrForbidden, err)
			}
			return err
		}
	}
	return nil
}

// Optional wraps a handler that is for everybody and finds the claims, where
// there are any, by [FromContext]. A request without a credential is
// anonymous. So is one with a cookie that is no longer good, for whom
// [ErrorFromContext] says why; a bad token in a header is refused, unless a
// good one stands beside it, and so are a cross-origin write and a request that
// cannot be decided because something did not answer.
func (v *Verifier) Optional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.setVary(w.Header())
		ctx := r.Context()
		token, byCookie, err := v.AccessToken(r)
		var c *Claims
		if err == nil {
			c, err = v.Verify(ctx, token)
		}
		switch {
		case err == nil:
			ctx = NewContext(ctx, c)
		case errors.Is(err, ErrNoToken), byCookie && ResponseFor(err).Status == http.StatusUnauthorized:
			done, reason := v.refreshPage(w, r, err)
			if done {
				return
			}
			if reason == nil && !errors.Is(err, ErrNoToken) {
				reason = err
			}
			if reason != nil {
				ctx = context.WithValue(ctx, errorKey{}, reason)
			}
		default:
			if ResponseFor(err).Status == http.StatusUnauthorized {
				if done, _ := v.refreshPage(w, r, err); done {
					return
				}
			}
			v.WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// setVary names what was looked at, so that no cache gives one user's answer
// to another.
func (v *Verifier) setVary(h http.Header) {
	switch old := h["Vary"]; {
	case v.vary == nil:
	case old == nil:
		h["Vary"] = v.vary // whoever appends to it gets another
	default:
		h["Vary"] = append(old, v.vary...)
	}
}

// WriteError answers a request with err: by Config.OnError if that is set,
// else by the function [DefaultOnError].
func (v *Verifier) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	if v.onError != nil {
		v.onError(w, r, err)
		return
	}
	DefaultOnError(w, r, err)
}
