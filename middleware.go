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

// requestContext is the context of a request together with its claims. Both are
// in one struct, so that a request needs only one allocation for them.
type requestContext struct {
	context.Context
	parsedClaims
}

// String keeps the claims out of the text that package context prints.
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

// NewContext returns a copy of ctx that carries c, as [Verifier.Require] passes
// it to a handler. It is for tests of handlers. [Claims.WithExtra] adds claims of
// the application's own to c.
func NewContext(ctx context.Context, c *Claims) context.Context {
	return context.WithValue(ctx, claimsKey{}, c)
}

// FromContext returns the claims that ctx carries, and whether there are any.
// In a handler that [Verifier.Require] wraps there always are.
func FromContext(ctx context.Context) (*Claims, bool) {
	c, ok := ctx.Value(claimsKey{}).(*Claims)
	return c, ok && c != nil
}

// ErrorFromContext returns the reason for which [Verifier.Optional] served a
// request as anonymous although it has cookies, or a token in the Authorization
// header without the scheme Bearer. Otherwise it returns nil.
func ErrorFromContext(ctx context.Context) error {
	err, _ := ctx.Value(errorKey{}).(error)
	return err
}

// Guard decides whether a request with the claims c is allowed. It returns nil
// to allow the request. An error that wraps no error of this package counts as
// [ErrForbidden]. Return an error that wraps [ErrUnavailable] if the decision
// could not be made. A panic refuses the request with status 500. A Guard is
// called concurrently, in a goroutine of its own, and its context ends after
// Config.HookTimeout. If it then fails, or does not return, the response is status
// 503.
type Guard func(ctx context.Context, c *Claims) error

// Role returns a Guard that requires at least one of the roles. It panics if
// there are no roles, or if one of them is empty or not UTF-8, because no user
// can have such a role.
func Role(anyOf ...string) Guard {
	if len(anyOf) == 0 {
		panic("auth: Role needs at least one role")
	}
	for i, role := range anyOf {
		if !isRole(role) {
			panic(fmt.Sprintf("auth: Role: role %d of %d (%+q) must be UTF-8 and not empty", i+1, len(anyOf), role))
		}
	}
	anyOf = slices.Clone(anyOf)
	return ownGuard(func(c *Claims) error {
		for _, role := range anyOf {
			if slices.Contains(c.Roles, role) {
				return nil
			}
		}
		return fmt.Errorf("%w: one of the roles %q is required", ErrForbidden, anyOf)
	})
}

// Scope returns a Guard that requires all of the scopes. The challenge of the
// response names them (RFC 6750 section 3). Scope panics if there are no scopes,
// or if one of them is not a scope token (RFC 6749 section 3.3): one or more
// printable ASCII characters except space, quote and backslash.
func Scope(allOf ...string) Guard {
	if len(allOf) == 0 {
		panic("auth: Scope needs at least one scope")
	}
	for i, scope := range allOf {
		if !isScope(scope) {
			panic(fmt.Sprintf("auth: Scope: scope %d of %d (%+q) must be printable ASCII without space, quote or backslash; pass each scope as an argument of its own",
				i+1, len(allOf), scope))
		}
	}
	allOf = slices.Clone(allOf)
	refusal := &scopeError{strings.Join(allOf, " ")}
	return ownGuard(func(c *Claims) error {
		for _, scope := range allOf {
			if !slices.Contains(c.Scopes, scope) {
				return refusal
			}
		}
		return nil
	})
}

// AMR returns a Guard that requires a session whose login used at least one of the
// methods ([SessionOptions].AMR, RFC 8176), for example AMR("otp", "hwk"). The
// response to a refused request asks for a new login (RFC 9470), and its description
// names the methods. AMR panics if there are no methods, or if one of them cannot be
// in SessionOptions.AMR.
func AMR(anyOf ...string) Guard {
	if len(anyOf) == 0 {
		panic("auth: AMR needs at least one method")
	}
	for i, method := range anyOf {
		if !isAMR(method) {
			panic(fmt.Sprintf("auth: AMR: method %d of %d (%+q) must be %s; pass each method as an argument of its own", i+1, len(anyOf), method, amrRule))
		}
	}
	anyOf = slices.Clone(anyOf)
	refusal := &amrError{"a login with one of these methods is required: " + strings.Join(anyOf, " ")}
	return ownGuard(func(c *Claims) error {
		if intersects(anyOf, c.AMR) {
			return nil
		}
		return refusal
	})
}

// NotActing returns a Guard that refuses a session in which another user acts for
// the user ([SessionOptions].Actor), with [ErrForbidden]. It is for what only the
// user may do, such as closing the account.
func NotActing() Guard {
	return ownGuard(func(c *Claims) error {
		if c.Actor != "" {
			return fmt.Errorf("%w: somebody acts for the user in this session", ErrForbidden)
		}
		return nil
	})
}

// maxAhead is the most that a login time may be ahead of the clock, for the
// largest Leeway: clocks differ, and a not-before instant may have raised the
// time. A login further ahead was created while a clock was wrong. Its actual
// time is not known.
const maxAhead = 2*maxLeeway + time.Second

// Fresh returns a Guard that requires a login within maxAge. A refresh is not a
// login. The response to a refused request asks for a new login (RFC 9470).
//
// Fresh panics if maxAge is less than a second, which is the resolution of the
// login time in a token.
func Fresh(maxAge time.Duration) Guard {
	if maxAge < time.Second {
		hint := ""
		if missingUnit("", maxAge) != nil {
			hint = "; missing time unit?"
		}
		panic(fmt.Sprintf("auth: Fresh: maxAge (%s) is less than 1s%s", maxAge, hint))
	}
	return ownGuard(func(c *Claims) error {
		now := c.verifiedAt
		if now.IsZero() { // claims that a test created
			now = time.Now()
		}
		age := now.Sub(c.AuthTime)
		if c.AuthTime.IsZero() || age > maxAge || age < -maxAhead {
			return &freshError{maxAge}
		}
		return nil
	})
}

// Authenticate returns the claims of a request. It calls [Verifier.AccessToken],
// then [Verifier.Verify].
func (v *Verifier) Authenticate(r *http.Request) (*Claims, error) {
	token, _, err := v.AccessToken(r)
	if err != nil {
		return nil, err
	}
	return v.Verify(r.Context(), token)
}

// Require returns middleware for handlers that require a valid access token
// whose claims every guard allows. Guards are called in the given order. The
// handler gets the claims with [FromContext]. [Verifier.WriteError] responds to
// all other requests, except those that Config.AutoRefresh redirects.
//
// Responses have Cache-Control: no-store, so that browsers do not show a page
// after the logout, unless the handler sets another Cache-Control or middleware
// around this one has set it.
//
// OPTIONS requests are authenticated like all others. So CORS middleware, which
// responds to preflight requests, must wrap this middleware.
//
// Require panics if a guard is nil. The function that it returns panics if the
// handler is nil, or a nil pointer, map, slice or function.
func (v *Verifier) Require(guards ...Guard) func(http.Handler) http.Handler {
	entries := guardEntries("Require", guards)
	return func(next http.Handler) http.Handler {
		checkHandler("Require", next)
		return v.require(entries, next)
	}
}

// guardEntries returns the guards of a wrapper. It panics if one is nil.
func guardEntries(wrapper string, guards []Guard) []guardEntry {
	entries := make([]guardEntry, len(guards))
	for i, guard := range guards {
		if guard == nil {
			panic(fmt.Sprintf("auth: %s: guard %d of %d is nil; omit it, or pass a Guard", wrapper, i+1, len(guards)))
		}
		entries[i] = guardEntry{guard, isOwnGuard(guard)}
	}
	return entries
}

// require returns the handler of Require.
func (v *Verifier) require(entries []guardEntry, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.setVary(w.Header())
		v.setNoStore(w.Header())
		var ctx *requestContext
		token, _, err := v.AccessToken(r)
		if err == nil {
			ctx, err = v.verifyRequest(r, token)
		}
		if err != nil {
			if r, token, err = v.refreshRequest(w, r, err); r == nil {
				return
			}
			if err == nil {
				ctx, err = v.verifyRequest(r, token)
			}
		}
		if err != nil {
			v.WriteError(w, r, err)
			return
		}
		if guard, err := v.checkGuards(r, &ctx.Claims, entries); err != nil {
			v.writeRefusal(w, r, err, guardRefusal{position: guard, claims: &ctx.Claims})
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// verifyRequest verifies the access token of a request, and returns the
// request's context together with the claims.
func (v *Verifier) verifyRequest(r *http.Request, token string) (*requestContext, error) {
	ctx := &requestContext{Context: r.Context()}
	return ctx, v.verify(ctx.Context, token, &ctx.parsedClaims)
}

// checkHandler panics if a handler to wrap is nil. Otherwise every request that
// is allowed would panic.
func checkHandler(wrapper string, h http.Handler) {
	if h == nil {
		panic("auth: " + wrapper + ": the handler is nil")
	} else if isNil(h) {
		panic(fmt.Sprintf("auth: %s: the handler is a nil %T; create it before you pass it", wrapper, h))
	}
}

// refreshRequest does what Config.AutoRefresh describes, if that applies to a
// request that is refused with cause. See backend.
func (v *Verifier) refreshRequest(w http.ResponseWriter, r *http.Request, cause error) (next *http.Request, access string, err error) {
	if v.members != nil {
		return v.refreshMember(w, r, cause)
	}
	if v.backend == nil {
		return r, "", cause
	}
	return v.backend.refreshRequest(v, w, r, cause)
}

// checkGuards returns the error of the first guard that refuses c, and its
// position in guards, which counts from 1. The error is nil if all guards allow c.
// The guards of this package need no goroutine.
func (v *Verifier) checkGuards(r *http.Request, c *Claims, guards []guardEntry) (position int, err error) {
	for i := range guards {
		g := &guards[i]
		if g.own {
			err = callHook("Guard", func() error { return g.Guard(r.Context(), c) })
		} else {
			err = v.callGuard(r, c, g)
		}
		var panicked *panicError
		if errors.As(err, &panicked) {
			v.emit(r.Context(), Event{Type: EventFault, Session: c.session(), Err: err})
			return i + 1, reportedError{err}
		}
		if err != nil {
			if !isOwn(err) {
				err = fmt.Errorf("%w: %w", ErrForbidden, detail{err})
			}
			return i + 1, err
		}
	}
	return 0, nil
}

// guardEntry is a guard of Require.
type guardEntry struct {
	Guard
	own bool // of this package
}

// callGuard calls a guard of the application. If the guard fails when its context
// has ended, it has not decided.
func (v *Verifier) callGuard(r *http.Request, c *Claims, g *guardEntry) error {
	ctx := r.Context()
	_, err := callKeyed(v, ctx, hookKey{"Guard", &g.Guard}, v.hookTimeout, func(ctx context.Context) (struct{}, error) {
		err := g.Guard(ctx, c)
		if err != nil && ctx.Err() != nil && !isOwn(err) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, detail{err})
		}
		return struct{}{}, err
	})
	abandoned, reported := isAbandoned(err)
	if !abandoned {
		return err
	}
	if !reported {
		err = fmt.Errorf("auth: route %s: %w", quoted(r.Pattern), detail{err})
		v.emit(ctx, Event{Type: EventFault, Session: c.session(), Err: err})
	}
	return reportedError{fmt.Errorf("%w: %w", ErrUnavailable, detail{err})}
}

// ownGuard returns a Guard of this package. isOwnGuard recognizes it by its code, of
// which there is only one copy if the function is not inlined.
//
//go:noinline
func ownGuard(check func(c *Claims) error) Guard {
	return func(_ context.Context, c *Claims) error { return check(c) }
}

// isOwnGuard reports whether g is a Guard of this package, which never blocks. A
// function with the same code is one.
func isOwnGuard(g Guard) bool { return codeOf(g) == codeOf(ownGuard(nil)) }

// Optional wraps a handler that also serves anonymous requests. The handler
// gets the claims, if there are any, with [FromContext]. Responses to requests
// with claims have Cache-Control: no-store, as with [Verifier.Require].
//
// A request without a token is anonymous. So is a request whose only tokens are
// cookies that are not valid, or whose Authorization header has a token without
// the scheme Bearer: [ErrorFromContext] then returns the reason. All other requests
// are refused. This includes requests with an invalid token in a header or the URL
// and no valid one elsewhere, cross-origin writes with a cookie, and requests with a
// token that cannot be verified because a store or a [KeySource] did not respond.
//
// Optional panics if the handler is nil, or a nil pointer, map, slice or
// function.
func (v *Verifier) Optional(next http.Handler) http.Handler {
	checkHandler("Optional", next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.setVary(w.Header())
		var c *Claims
		token, byCookie, err := v.AccessToken(r)
		if err == nil {
			c, err = v.Verify(r.Context(), token)
		}
		unauthorized := err != nil && ResponseFor(err).Status == http.StatusUnauthorized
		anonymous := unauthorized && (byCookie || errors.Is(err, ErrNoToken))
		if unauthorized {
			if r, token, err = v.refreshRequest(w, r, err); r == nil {
				return
			}
			if err == nil {
				c, err = v.Verify(r.Context(), token)
			}
		}
		ctx := r.Context()
		switch {
		case err == nil:
			v.setNoStore(w.Header())
			ctx = NewContext(ctx, c)
		case !anonymous || errors.Is(err, ErrCrossOrigin) || ResponseFor(err).Status >= 500:
			v.WriteError(w, r, err)
			return
		case !errors.Is(err, ErrNoToken) || errors.Is(err, errNoScheme):
			v.reportRefusal(r, err, guardRefusal{})
			ctx = context.WithValue(ctx, errorKey{}, reportedError{err})
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// setNoStore sets Cache-Control: no-store, unless other middleware has set it. A
// browser that keeps the page for its back button would show it after the
// logout. RFC 9111 section 3.5 keeps only responses to requests with
// Authorization out of shared caches, and no response out of the browser's own.
func (v *Verifier) setNoStore(h http.Header) {
	if h["Cache-Control"] == nil {
		h["Cache-Control"] = v.noStore // an append to it copies it
	}
}

// setVary adds to Vary the names of the headers that are searched for tokens, so
// that a cache does not send the response for one user to another.
func (v *Verifier) setVary(h http.Header) {
	switch old := h["Vary"]; {
	case v.vary == nil:
	case old == nil:
		h["Vary"] = v.vary // an append to it copies it
	default:
		h["Vary"] = append(old, v.vary...)
	}
}
