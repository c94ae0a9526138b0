package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// hello writes the name of the user, or the reason why there is none.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if c, ok := auth.FromContext(r.Context()); ok {
		_, _ = fmt.Fprintf(w, "hello %s", c.Username)
		return
	}
	_, _ = fmt.Fprintf(w, "anonymous: %v", auth.ErrorFromContext(r.Context()))
})

func TestRequire_WithoutATokenIsABareChallenge(t *testing.T) {
	t.Parallel()
	h := newFixture(t).Require()(hello)
	for _, o := range []requestOption{
		func(*http.Request) {},
		reqHeader("Authorization", "Basic YTpi"),
		reqHeader("Authorization", ""),
		reqCookie(accessCookie, "x"), // without Config.Cookies it is ignored
		reqHeader("Refresh-Token", "x"),
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
			r := send(t, h, method, "/", o)
			r.requireRefused(t, http.StatusUnauthorized, "missing_token", "login")
			require.Equal(t, []string{"Bearer"}, r.header["Www-Authenticate"])
			require.Equal(t, []string{"Authorization"}, r.header["Vary"])
		}
	}
}

func TestRequire_ReportsWhatTheClientShouldDo(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Require()(hello)
	ctx := context.Background()
	challenge := func(r response, text string) {
		t.Helper()
		require.Equal(t, []string{`Bearer error="invalid_token", error_description="` + text + `"`}, r.header["Www-Authenticate"])
	}
	k := fx.login(t)
	for _, o := range []requestOption{reqBearer(k.Access), reqCookie(accessCookie, k.Access)} {
		r := send(t, h, http.MethodPost, "/", o)
		require.Equal(t, "hello ada", r.body)
		require.Equal(t, []string{"Authorization, Cookie"}, r.header["Vary"])
	}
	for _, bad := range []string{"garbage", k.Refresh, k.Access + "x", "a.b.c", "..", strings.Repeat("x", 9000)} {
		r := send(t, h, http.MethodGet, "/", reqBearer(bad))
		r.requireRefused(t, 401, "invalid_token", "login")
		challenge(r, "the token is not valid")
		send(t, h, http.MethodGet, "/", reqCookie(accessCookie, bad)).requireRefused(t, 401, "invalid_token", "login")
	}
	require.NoError(t, fx.ExpireAccess(ctx, "u1"))
	r := send(t, h, http.MethodGet, "/", reqBearer(k.Access))
	r.requireRefused(t, 401, "invalid_token", "refresh")
	challenge(r, "the token has expired")

	fx.clock.Advance(time.Minute)
	k = fx.login(t)
	fx.clock.Advance(15 * time.Minute)
	for _, o := range []requestOption{reqBearer(k.Access), reqCookie(accessCookie, k.Access)} {
		r = send(t, h, http.MethodGet, "/", o)
		r.requireRefused(t, 401, "invalid_token", "refresh")
		challenge(r, "the token has expired")
	}
	k = fx.login(t)
	require.NoError(t, fx.Revoke(ctx, "u1", k.SessionID))
	r = send(t, h, http.MethodGet, "/", reqBearer(k.Access))
	r.requireRefused(t, 401, "invalid_token", "login")
	challenge(r, "the session has ended")
}

func TestRequire_CredentialsOfTwoSessionsAreMalformed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Require()(hello)
	one, two := fx.login(t).Access, fx.login(t).Access
	for _, tt := range []struct {
		action  string
		options []requestOption
	}{
		{"", []requestOption{reqHeader("Authorization", "Bearer "+one, "Bearer "+two)}},
		{"", []requestOption{reqHeader("Authorization", "Bearer "+one, "Bearer "+one)}},
		{"login", []requestOption{reqBearer(one), reqCookie(accessCookie, two)}},
		{"login", []requestOption{reqBearer("garbage"), reqCookies(accessCookie, one, two)}},
	} {
		r := send(t, h, http.MethodGet, "/", tt.options...)
		r.requireRefused(t, 400, "invalid_request", tt.action)
		require.NotContains(t, r.header, "Www-Authenticate")
	}
	require.Equal(t, "hello ada", send(t, h, http.MethodGet, "/", reqBearer(one), reqCookie(accessCookie, one)).body)
}

func TestRequire_UntilRevocationsAreKnownIs503(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	v, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: fx.users, Now: fx.clock.Now, Store: fx.store,
		Hasher: fastHasher, Cookies: &auth.Cookies{},
	})
	require.NoError(t, err)
	k := fx.login(t)
	send(t, v.Require()(hello), http.MethodGet, "/", reqBearer(k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, v.Optional(hello), http.MethodGet, "/", reqBearer(k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, v.Optional(hello), http.MethodGet, "/", reqCookie(accessCookie, k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, v.SessionsHandler(), http.MethodGet, "/", reqBearer(k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
}

func TestRequire_GuardsRefuseWithTheirChallenge(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := reqBearer(fx.login(t).Access)
	fx.clock.Advance(5 * time.Minute)
	detail := errors.New("secret detail")
	guard := func(err error) auth.Guard { return func(context.Context, *auth.Claims) error { return err } }
	for name, tt := range map[string]struct {
		guards       []auth.Guard
		status       int
		code, action string
		challenge    string
	}{
		"none":             {nil, 200, "", "", ""},
		"role":             {[]auth.Guard{auth.Role("admin")}, 200, "", "", ""},
		"any of the roles": {[]auth.Guard{auth.Role("x", "user")}, 200, "", "", ""},
		"role that is not there": {
			[]auth.Guard{auth.Role("root", "Admin", "adm")}, 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this"`,
		},
		"scopes": {[]auth.Guard{auth.Scope("read", "pay")}, 200, "", "", ""},
		"one of the scopes": {
			[]auth.Guard{auth.Scope("read", "write")}, 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this", scope="read write"`,
		},
		"fresh": {[]auth.Guard{auth.Fresh(5 * time.Minute)}, 200, "", "", ""},
		"no longer fresh": {
			[]auth.Guard{auth.Fresh(5*time.Minute - time.Second)}, 401, "insufficient_user_authentication", "login",
			`Bearer error="insufficient_user_authentication", error_description="a more recent login is required", max_age="299"`,
		},
		"the first one says it": {
			[]auth.Guard{auth.Role("admin"), auth.Scope("write"), auth.Fresh(time.Second), guard(detail)}, 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this", scope="write"`,
		},
		"in their order": {
			[]auth.Guard{auth.Fresh(time.Second), auth.Scope("write")}, 401, "insufficient_user_authentication", "login",
			`Bearer error="insufficient_user_authentication", error_description="a more recent login is required", max_age="1"`,
		},
		"the last one counts too": {
			[]auth.Guard{auth.Role("admin"), guard(nil), guard(auth.ErrForbidden)}, 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this"`,
		},
		"an error of its own": {
			[]auth.Guard{guard(detail)}, 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this"`,
		},
		"unavailable": {[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrUnavailable, detail))}, 503, "temporarily_unavailable", "", ""},
		"unavailable before all": {
			[]auth.Guard{guard(fmt.Errorf("%w: %w", detail, auth.ErrUnavailable)), auth.Role("root")}, 503, "temporarily_unavailable", "",
			"",
		},
		"wrapped": {
			[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrReauthenticate, detail))}, 401, "insufficient_user_authentication", "login",
			`Bearer error="insufficient_user_authentication", error_description="a more recent login is required"`,
		},
		"request": {[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrInvalidRequest, detail))}, 400, "invalid_request", "", ""},
	} {
		r := send(t, fx.Require(tt.guards...)(hello), http.MethodGet, "/", token)
		require.NotContains(t, r.body, "secret", name)
		require.NotContains(t, fmt.Sprint(r.header), "secret", name)
		if tt.status == 200 {
			require.Equal(t, "hello ada", r.body, name)
			continue
		}
		r.requireRefused(t, tt.status, tt.code, tt.action)
		require.Equal(t, tt.challenge, r.header.Get("Www-Authenticate"), name)
	}
}

func TestRequire_GuardsRunAfterAuthenticationAndAreCopied(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	called := false
	guards := []auth.Guard{func(context.Context, *auth.Claims) error { called = true; return nil }}
	h := fx.Require(guards...)(hello)
	guards[0] = func(context.Context, *auth.Claims) error { return auth.ErrForbidden }
	send(t, h, http.MethodGet, "/", reqBearer("garbage")).requireRefused(t, 401, "invalid_token", "login")
	require.False(t, called)
	require.Equal(t, "hello ada", send(t, h, http.MethodGet, "/", reqBearer(fx.login(t).Access)).body)
	require.True(t, called)
}

// mapHandler is a handler that is nil unless it is created.
type mapHandler map[string]http.Handler

func (m mapHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) { m[r.URL.Path].ServeHTTP(w, r) }

func TestSetup_PanicsWithAClearText(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	allow := func(context.Context, *auth.Claims) error { return nil }
	var unset auth.Guard
	var mux *http.ServeMux
	const scopeText = " must be printable ASCII without space, quote or backslash; pass each scope as an argument of its own"
	for text, set := range map[string]func(){
		"auth: Require: guard 1 of 1 is nil; omit it, or pass a Guard":                            func() { fx.Require(nil) },
		"auth: Require: guard 2 of 3 is nil; omit it, or pass a Guard":                            func() { fx.Require(auth.Role("a"), unset, nil) },
		"auth: Require: guard 3 of 3 is nil; omit it, or pass a Guard":                            func() { fx.Require([]auth.Guard{allow, allow, unset}...) },
		"auth: Require: the handler is nil":                                                       func() { fx.Require()(nil) },
		"auth: Require: the handler is a nil http.HandlerFunc; create it before you pass it":      func() { fx.Require(allow)(http.HandlerFunc(nil)) },
		"auth: Require: the handler is a nil *http.ServeMux; create it before you pass it":        func() { fx.Require()(mux) },
		"auth: Optional: the handler is nil":                                                      func() { fx.Optional(nil) },
		"auth: Optional: the handler is a nil auth_test.mapHandler; create it before you pass it": func() { fx.Optional(mapHandler(nil)) },
		"auth: RequireStream: guard 2 of 2 is nil; omit it, or pass a Guard":                      func() { fx.RequireStream(allow, nil) },
		"auth: RequireStream: the handler is nil":                                                 func() { fx.RequireStream()(nil) },
		`auth: RequireStream: Config.Extractors contains FromQuery("ticket"), but this parameter is for tickets; choose another name`: func() {
			newFixture(t, withExtractors(auth.FromBearer(), auth.FromQuery("ticket"))).RequireStream()
		},
		"auth: Role needs at least one role":                                        func() { auth.Role() },
		"auth: Role needs at least one role ":                                       func() { auth.Role([]string{}...) },
		`auth: Role: role 2 of 2 ("\xff") must be UTF-8 and not empty`:              func() { auth.Role("a", "\xff") },
		`auth: Role: role 1 of 1 ("") must be UTF-8 and not empty`:                  func() { auth.Role("") },
		"auth: Scope needs at least one scope":                                      func() { auth.Scope() },
		"auth: Scope needs at least one scope ":                                     func() { auth.Scope([]string{}...) },
		`auth: Scope: scope 1 of 1 ("")` + scopeText:                                func() { auth.Scope("") },
		`auth: Scope: scope 1 of 1 ("pay read")` + scopeText:                        func() { auth.Scope("pay read") },
		`auth: Scope: scope 2 of 2 ("x\"y")` + scopeText:                            func() { auth.Scope("pay", `x"y`) },
		`auth: Scope: scope 1 of 1 ("x\\y")` + scopeText:                            func() { auth.Scope(`x\y`) },
		`auth: Scope: scope 2 of 2 ("x\r\nSet-Cookie: y")` + scopeText:              func() { auth.Scope("pay", "x\r\nSet-Cookie: y") },
		`auth: Scope: scope 1 of 1 ("\u00e9")` + scopeText:                          func() { auth.Scope("é") },
		`auth: Scope: scope 2 of 2 ("\x7f")` + scopeText:                            func() { auth.Scope("pay", "\x7f") },
		"auth: Fresh: maxAge (0s) is less than 1s":                                  func() { auth.Fresh(0) },
		"auth: Fresh: maxAge (-1m0s) is less than 1s":                               func() { auth.Fresh(-time.Minute) },
		"auth: Fresh: maxAge (999ms) is less than 1s":                               func() { auth.Fresh(999 * time.Millisecond) },
		"auth: Fresh: maxAge (300ns) is less than 1s; missing time unit?":           func() { auth.Fresh(300) },
		"auth: LogEvents: the logger is nil; pass slog.Default() or another logger": func() { auth.LogEvents(nil) },
	} {
		require.PanicsWithValue(t, strings.TrimSuffix(text, " "), set, text)
	}
	for _, set := range []func(){
		func() { fx.Require() },
		func() { fx.Require([]auth.Guard(nil)...)(hello) },
		func() { fx.Optional(mapHandler{}) },
		func() { auth.Role("with a space", "é") },
		func() { auth.Scope("a", "a") },
		func() { auth.Fresh(time.Second) },
	} {
		require.NotPanics(t, set)
	}
}

func TestGuards_CopyTheirArguments(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := reqBearer(fx.login(t).Access)
	scopes, roles := []string{"pay"}, []string{"admin"}
	scope, role := auth.Scope(scopes...), auth.Role(roles...)
	scopes[0], roles[0] = "other", "other"
	require.Equal(t, "hello ada", send(t, fx.Require(scope, role)(hello), "GET", "/", token).body)
}

func TestFresh_CountsFromTheLoginAndNotFromTheRefresh(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	fx.clock.Advance(10 * time.Minute)
	k, err := fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	send(t, fx.Require(auth.Fresh(5*time.Minute))(hello), http.MethodGet, "/", reqBearer(k.Access)).
		requireRefused(t, 401, "insufficient_user_authentication", "login")
	// Fresh compares claims created by a test with the real clock.
	ctx := context.Background()
	require.NoError(t, auth.Fresh(time.Minute)(ctx, &auth.Claims{AuthTime: time.Now()}))
	require.ErrorIs(t, auth.Fresh(time.Minute)(ctx, &auth.Claims{AuthTime: time.Now().Add(-2 * time.Minute)}), auth.ErrReauthenticate)
	require.ErrorIs(t, auth.Fresh(1<<63-1)(ctx, &auth.Claims{}), auth.ErrReauthenticate)
}

func TestRequire_PassesEachRequestItsOwnClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"tenant": "t1", "plan": map[string]any{"seats": 3}} })
	k := fx.login(t)
	var seen []*auth.Claims
	h := fx.Require()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, ok := auth.FromContext(r.Context())
		require.True(t, ok)
		require.Equal(t, "u1", c.Subject)
		require.Equal(t, []string{"admin", "user"}, c.Roles)
		require.Equal(t, []string{"pay", "read"}, c.Scopes)
		require.Equal(t, []string{"pwd"}, c.AMR)
		require.Equal(t, k.SessionID, c.SessionID)
		var own struct {
			Tenant string
			Plan   struct{ Seats int }
		}
		require.NoError(t, c.Decode(&own))
		require.Equal(t, "t1", own.Tenant)
		require.Equal(t, 3, own.Plan.Seats)
		require.Error(t, c.Decode(new(int)))
		c.Subject, c.Roles[0], c.Scopes[0] = "spoiled", "spoiled", "spoiled"
		seen = append(seen, c)
	}))
	for range 3 {
		require.Equal(t, 200, send(t, h, http.MethodGet, "/", reqBearer(k.Access)).status)
	}
	require.Len(t, seen, 3)
	require.NotSame(t, seen[0], seen[1])
}

func TestFromContext_ReportsMissingClaims(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, ok := auth.FromContext(ctx)
	require.False(t, ok)
	_, ok = auth.FromContext(auth.NewContext(ctx, nil))
	require.False(t, ok)
	c, ok := auth.FromContext(auth.NewContext(ctx, &auth.Claims{Subject: "x"}))
	require.True(t, ok)
	require.Equal(t, "x", c.Subject)
	require.NoError(t, c.Decode(new(int)))
	require.NoError(t, auth.ErrorFromContext(ctx))
}

func TestOptional_AllCases(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	ctx := context.Background()
	h := fx.Optional(hello)
	k := fx.login(t)
	late := fx.login(t)
	fx.clock.Advance(14 * time.Minute)
	good := fx.login(t).Access
	gone := fx.login(t)
	require.NoError(t, fx.Revoke(ctx, "u1", gone.SessionID))
	fx.clock.Advance(time.Minute)

	says := func(body string, options ...requestOption) {
		t.Helper()
		r := send(t, h, http.MethodGet, "/", options...)
		require.Equal(t, 200, r.status)
		require.Equal(t, body, r.body)
		require.Equal(t, []string{"Authorization, Cookie"}, r.header["Vary"])
		require.NotContains(t, r.header, "Set-Cookie")
	}
	says("anonymous: <nil>")
	says("anonymous: <nil>", reqHeader("Authorization", "Basic YTpi"))
	says("anonymous: <nil>", reqCookie(accessCookie, ""))
	says("anonymous: <nil>", reqCookie(refreshCookie, k.Refresh))
	says("hello ada", reqBearer(good))
	says("hello ada", reqCookie(accessCookie, good))
	says("anonymous: auth: token expired", reqCookie(accessCookie, late.Access))
	says("anonymous: auth: session revoked: Revoke or RevokeAll was called", reqCookie(accessCookie, gone.Access))
	says("anonymous: auth: invalid token: not three segments", reqCookie(accessCookie, "garbage"))

	no := func(status int, code, action string, options ...requestOption) {
		t.Helper()
		send(t, h, http.MethodPost, "/", options...).requireRefused(t, status, code, action)
	}
	no(401, "invalid_token", "login", reqBearer("garbage"))
	no(401, "invalid_token", "refresh", reqBearer(late.Access))
	no(401, "invalid_token", "login", reqBearer(gone.Access))
	no(401, "invalid_token", "refresh", reqBearer(late.Access), reqCookie(accessCookie, late.Access))
	no(400, "invalid_request", "", reqHeader("Authorization", "Bearer "))
	require.Equal(t, "hello ada", send(t, h, http.MethodPost, "/", reqBearer(good), reqCookie(accessCookie, late.Access)).body)
	no(403, "cross_origin", "", reqCookie(accessCookie, good), crossSite)
	no(403, "cross_origin", "", reqCookie(accessCookie, "garbage"), crossSite)
	require.Equal(t, "hello ada", send(t, h, http.MethodPost, "/", reqBearer(good), crossSite).body)
}

func TestErrorFromContext_WrapsWhatWasWrong(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	var reason error
	h := fx.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reason = auth.ErrorFromContext(r.Context()) }))
	send(t, h, http.MethodGet, "/", reqCookie(accessCookie, k.Access))
	require.ErrorIs(t, reason, auth.ErrTokenExpired)
}

func TestRequire_GuardThatPanicsRefuses(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	h := fx.Require(func(context.Context, *auth.Claims) error { panic("x") })(hello)
	require.NotPanics(t, func() { send(t, h, "GET", "/", reqBearer(k.Access)).requireRefused(t, 500, "server_error", "") })
}

func TestRequire_ResponsesAreNotStored(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	set := func(value string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if value != "" {
				w.Header().Set("Cache-Control", value)
			}
		})
	}
	for _, wrap := range []func(http.Handler) http.Handler{fx.Require(), fx.Optional} {
		for _, token := range []requestOption{reqBearer(k.Access), reqCookie(accessCookie, k.Access)} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				require.Equal(t, []string{"no-store"}, send(t, wrap(set("")), method, "/", token).header["Cache-Control"])
				require.Equal(t, []string{"private"}, send(t, wrap(set("private")), method, "/", token).header["Cache-Control"])
			}
			outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "private, max-age=60")
				wrap(set("")).ServeHTTP(w, r)
			})
			require.Equal(t, []string{"private, max-age=60"}, send(t, outer, "GET", "/", token).header["Cache-Control"])
			more := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Add("Cache-Control", "private") })
			require.Equal(t, []string{"no-store", "private"}, send(t, wrap(more), "GET", "/", token).header["Cache-Control"])
			require.Equal(t, []string{"no-store"}, send(t, wrap(set("")), "GET", "/", token).header["Cache-Control"])
		}
	}
	require.Empty(t, send(t, fx.Optional(set("")), "GET", "/").header["Cache-Control"], "anonymous")
	require.Empty(t, send(t, fx.Optional(set("")), "GET", "/", reqCookie(accessCookie, "junk")).header["Cache-Control"], "anonymous")
	// An OnError that sets no headers.
	bare := newFixture(t, withCookies(), func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(403) }
	})
	require.Equal(t, "no-store", send(t, bare.Require()(set("")), "GET", "/").header.Get("Cache-Control"))
}

func TestRequire_CacheControlCostsNoAllocation(t *testing.T) {
	fx := newFixture(t)
	h := fx.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := newRequest(reqBearer(fx.login(t).Access))
	w := &nopWriter{http.Header{}}
	given := []string{"private"}
	count := func(set bool) float64 {
		return testing.AllocsPerRun(1000, func() {
			clear(w.h)
			if set {
				w.h["Cache-Control"] = given
			}
			h.ServeHTTP(w, r)
		})
	}
	require.InDelta(t, count(true), count(false), 0)
}

// TestHooks_ErrorsWhoseMethodsPanicAreContained returns such errors from every
// hook that a request calls.
func TestHooks_ErrorsWhoseMethodsPanicAreContained(t *testing.T) {
	t.Parallel()
	for _, bad := range []error{badError{is: true}, badError{text: true}, fmt.Errorf("wrapped: %w", badError{is: true})} {
		fx := newFixture(t)
		token := fx.login(t).Access
		oneFault := func(r response, status int) {
			t.Helper()
			require.Equal(t, status, r.status)
			faults := fx.events.take(auth.EventFault)
			require.Len(t, faults, 1)
			require.ErrorContains(t, faults[0].Err, "panicked with a string")
			require.NotContains(t, faults[0].Err.Error(), "PANIC=")
		}
		guard := func(context.Context, *auth.Claims) error { return bad }
		oneFault(send(t, fx.Require(guard)(hello), "GET", "/", reqBearer(token)), 500)
		fx.users.fail = bad
		oneFault(send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin)), 503)
		fx.users.fail = nil
		fx.store.failBefore("Create", bad)
		oneFault(send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin)), 503)

		v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: failingKeys{bad}, OnEvent: fx.events.add})
		require.NoError(t, err)
		oneFault(send(t, v.Require()(hello), "GET", "/", reqBearer(token)), 503)
	}
}

func TestRequire_CheckingTheOriginCostsNoAllocation(t *testing.T) {
	fx := newFixture(t, withCookies())
	h := fx.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := &nopWriter{http.Header{}}
	const host = "a-service-with-a-long-name.example.com"
	r := newRequest(reqCookie(accessCookie, fx.login(t).Access))
	r.Method, r.Host = http.MethodPost, host
	r.Header.Set("Sec-Fetch-Site", "same-origin") // otherwise net/http parses the Origin
	count := func() float64 {
		return testing.AllocsPerRun(1000, func() {
			clear(w.h)
			h.ServeHTTP(w, r)
		})
	}
	without := count()
	r.Header.Set("Origin", "https://"+host)
	require.InDelta(t, without, count(), 0)
}
