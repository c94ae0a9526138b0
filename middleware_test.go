package auth_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// hello answers with who is there, and why he is not.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if c, ok := auth.FromContext(r.Context()); ok {
		_, _ = fmt.Fprintf(w, "hello %s", c.Username)
		return
	}
	_, _ = fmt.Fprintf(w, "anonymous: %v", auth.ErrorFromContext(r.Context()))
})

func TestRequire_WithoutATokenIsABareChallenge(t *testing.T) {
	t.Parallel()
	h := newBench(t).Require()(hello)
	for _, o := range []webOption{
		func(*http.Request) {},
		webHeader("Authorization", "Basic YTpi"),
		webHeader("Authorization", ""),
		webCookie(accessCookie, "x"), // without Config.Cookies they mean nothing
		webHeader("Refresh-Token", "x"),
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
			r := ask(t, h, method, "/", o)
			r.refused(t, http.StatusUnauthorized, "missing_token", "login")
			require.Equal(t, []string{"Bearer"}, r.header["Www-Authenticate"])
			require.Equal(t, []string{"Authorization"}, r.header["Vary"])
		}
	}
}

func TestRequire_TellsWhatTheClientShouldDo(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.Require()(hello)
	ctx := context.Background()
	challenge := func(r webReply, text string) {
		t.Helper()
		require.Equal(t, []string{`Bearer error="invalid_token", error_description="` + text + `"`}, r.header["Www-Authenticate"])
	}
	k := b.login(t)
	for _, o := range []webOption{webBearer(k.Access), webCookie(accessCookie, k.Access)} {
		r := ask(t, h, http.MethodPost, "/", o)
		require.Equal(t, "hello ada", r.body)
		require.Equal(t, []string{"Authorization, Cookie"}, r.header["Vary"])
	}
	for _, bad := range []string{"garbage", k.Refresh, k.Access + "x", "a.b.c", "..", strings.Repeat("x", 9000)} {
		r := ask(t, h, http.MethodGet, "/", webBearer(bad))
		r.refused(t, 401, "invalid_token", "login")
		challenge(r, "the token is not valid")
		ask(t, h, http.MethodGet, "/", webCookie(accessCookie, bad)).refused(t, 401, "invalid_token", "login")
	}
	require.NoError(t, b.ExpireAccess(ctx, "u1"))
	r := ask(t, h, http.MethodGet, "/", webBearer(k.Access))
	r.refused(t, 401, "invalid_token", "refresh")
	challenge(r, "the token has expired")

	b.clock.advance(time.Minute)
	k = b.login(t)
	b.clock.advance(15 * time.Minute)
	for _, o := range []webOption{webBearer(k.Access), webCookie(accessCookie, k.Access)} {
		r = ask(t, h, http.MethodGet, "/", o)
		r.refused(t, 401, "invalid_token", "refresh")
		challenge(r, "the token has expired")
	}
	k = b.login(t)
	require.NoError(t, b.Revoke(ctx, "u1", k.SessionID))
	r = ask(t, h, http.MethodGet, "/", webBearer(k.Access))
	r.refused(t, 401, "invalid_token", "login")
	challenge(r, "the session has ended")
}

func TestRequire_CredentialsOfTwoSessionsAreMalformed(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.Require()(hello)
	one, two := b.login(t).Access, b.login(t).Access
	for _, tt := range []struct {
		action  string
		options []webOption
	}{
		{"", []webOption{webHeader("Authorization", "Bearer "+one, "Bearer "+two)}},
		{"", []webOption{webHeader("Authorization", "Bearer "+one, "Bearer "+one)}},
		{"login", []webOption{webBearer(one), webCookie(accessCookie, two)}},
		{"login", []webOption{webBearer("garbage"), cookiesOf(accessCookie, one, two)}},
	} {
		r := ask(t, h, http.MethodGet, "/", tt.options...)
		r.refused(t, 400, "invalid_request", tt.action)
		require.NotContains(t, r.header, "Www-Authenticate")
	}
	require.Equal(t, "hello ada", ask(t, h, http.MethodGet, "/", webBearer(one), webCookie(accessCookie, one)).body)
}

func TestRequire_UntilRevocationsAreKnownIs503(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: b.users, Now: b.clock.Now, Store: b.store, Hasher: cheap, Cookies: &auth.Cookies{}})
	require.NoError(t, err)
	k := b.login(t)
	ask(t, v.Require()(hello), http.MethodGet, "/", webBearer(k.Access)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, v.Optional(hello), http.MethodGet, "/", webBearer(k.Access)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, v.Optional(hello), http.MethodGet, "/", webCookie(accessCookie, k.Access)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, v.SessionsHandler(), http.MethodGet, "/", webBearer(k.Access)).refused(t, 503, "temporarily_unavailable", "")
}

func TestRequire_GuardsRefuseWithTheirChallenge(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token := webBearer(b.login(t).Access)
	b.clock.advance(5 * time.Minute)
	detail := errors.New("secret detail")
	guard := func(err error) auth.Guard { return func(context.Context, *auth.Claims) error { return err } }
	for name, tt := range map[string]struct {
		guards       []auth.Guard
		status       int
		code, action string
		challenge    string
	}{
		"none":                    {nil, 200, "", "", ""},
		"role":                    {[]auth.Guard{auth.Role("admin")}, 200, "", "", ""},
		"any of the roles":        {[]auth.Guard{auth.Role("x", "user")}, 200, "", "", ""},
		"role that is not there":  {[]auth.Guard{auth.Role("root", "Admin", "adm")}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		"no role":                 {[]auth.Guard{auth.Role()}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		"scopes":                  {[]auth.Guard{auth.Scope("read", "pay")}, 200, "", "", ""},
		"one of the scopes":       {[]auth.Guard{auth.Scope("read", "write")}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this", scope="read write"`},
		"fresh":                   {[]auth.Guard{auth.Fresh(5 * time.Minute)}, 200, "", "", ""},
		"no longer fresh":         {[]auth.Guard{auth.Fresh(5*time.Minute - time.Second)}, 401, "insufficient_user_authentication", "login", `Bearer error="insufficient_user_authentication", error_description="a more recent login is required", max_age="299"`},
		"the first one says it":   {[]auth.Guard{auth.Role("admin"), auth.Scope("write"), auth.Fresh(time.Second), guard(detail)}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this", scope="write"`},
		"in their order":          {[]auth.Guard{auth.Fresh(time.Second), auth.Scope("write")}, 401, "insufficient_user_authentication", "login", `Bearer error="insufficient_user_authentication", error_description="a more recent login is required", max_age="1"`},
		"the last one counts too": {[]auth.Guard{auth.Role("admin"), guard(nil), guard(auth.ErrForbidden)}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		"an error of its own":     {[]auth.Guard{guard(detail)}, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		"unavailable":             {[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrUnavailable, detail))}, 503, "temporarily_unavailable", "", ""},
		"unavailable before all":  {[]auth.Guard{guard(fmt.Errorf("%w: %w", detail, auth.ErrUnavailable)), auth.Role("root")}, 503, "temporarily_unavailable", "", ""},
		"wrapped":                 {[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrReauthenticate, detail))}, 401, "insufficient_user_authentication", "login", `Bearer error="insufficient_user_authentication", error_description="a more recent login is required"`},
		"request":                 {[]auth.Guard{guard(fmt.Errorf("%w: %w", auth.ErrInvalidRequest, detail))}, 400, "invalid_request", "", ""},
	} {
		r := ask(t, b.Require(tt.guards...)(hello), http.MethodGet, "/", token)
		require.NotContains(t, r.body, "secret", name)
		require.NotContains(t, fmt.Sprint(r.header), "secret", name)
		if tt.status == 200 {
			require.Equal(t, "hello ada", r.body, name)
			continue
		}
		r.refused(t, tt.status, tt.code, tt.action)
		require.Equal(t, tt.challenge, r.header.Get("Www-Authenticate"), name)
	}
}

func TestRequire_GuardsComeAfterAuthenticationAndAreCopied(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	called := false
	guards := []auth.Guard{func(context.Context, *auth.Claims) error { called = true; return nil }}
	h := b.Require(guards...)(hello)
	guards[0] = func(context.Context, *auth.Claims) error { return auth.ErrForbidden }
	ask(t, h, http.MethodGet, "/", webBearer("garbage")).refused(t, 401, "invalid_token", "login")
	require.False(t, called)
	require.Equal(t, "hello ada", ask(t, h, http.MethodGet, "/", webBearer(b.login(t).Access)).body)
	require.True(t, called)
}

func TestScope_WithoutOrWithAnImpossibleScopeNobodyPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token := webBearer(b.login(t).Access)
	for _, scopes := range [][]string{
		nil, {}, {""}, {"pay", ""}, {"pay read"}, {"pay", `x"y`}, {`x\y`}, {"pay", "x\r\nSet-Cookie: y"}, {"é"}, {"pay", "\x00"}, {"\x7f"}, {" pay"}, {"x", "y\", max_age=\"1"},
	} {
		guard := auth.Scope(scopes...)
		// Also not claims that a test made.
		for _, have := range [][]string{nil, {"pay", "read"}, scopes, append([]string{"pay", "read", ""}, scopes...)} {
			require.ErrorIs(t, guard(context.Background(), &auth.Claims{Scopes: have}), auth.ErrForbidden, "%q", scopes)
		}
		r := ask(t, b.Require(guard)(hello), "GET", "/", token)
		r.refused(t, 403, "insufficient_scope", "")
		require.Equal(t, `Bearer error="insufficient_scope", error_description="the token does not permit this"`, r.header.Get("Www-Authenticate"), "%q", scopes)
	}
	// Guards keep what they were made with.
	scopes, roles := []string{"pay"}, []string{"admin"}
	scope, role := auth.Scope(scopes...), auth.Role(roles...)
	scopes[0], roles[0] = "other", "other"
	require.Equal(t, "hello ada", ask(t, b.Require(scope, role)(hello), "GET", "/", token).body)
}

func TestFresh_CountsFromTheLoginAndNotFromTheRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.login(t)
	b.clock.advance(10 * time.Minute)
	k, err := b.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	ask(t, b.Require(auth.Fresh(5*time.Minute))(hello), http.MethodGet, "/", webBearer(k.Access)).
		refused(t, 401, "insufficient_user_authentication", "login")
	// Claims that a test made are held to the real clock.
	ctx := context.Background()
	require.NoError(t, auth.Fresh(time.Minute)(ctx, &auth.Claims{AuthTime: time.Now()}))
	require.ErrorIs(t, auth.Fresh(time.Minute)(ctx, &auth.Claims{AuthTime: time.Now().Add(-2 * time.Minute)}), auth.ErrReauthenticate)
	require.ErrorIs(t, auth.Fresh(1<<63-1)(ctx, &auth.Claims{}), auth.ErrReauthenticate)
}

func TestRequire_HandsOverClaimsOfEachRequestsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"tenant": "t1", "plan": map[string]any{"seats": 3}} })
	k := b.login(t)
	var seen []*auth.Claims
	h := b.Require()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
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
		require.Equal(t, 200, ask(t, h, http.MethodGet, "/", webBearer(k.Access)).status)
	}
	require.Len(t, seen, 3)
	require.NotSame(t, seen[0], seen[1])
}

func TestFromContext_HasNothingWhereNothingWasPut(t *testing.T) {
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

func TestOptional_Rows(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	ctx := context.Background()
	h := b.Optional(hello)
	k := b.login(t)
	late := b.login(t)
	b.clock.advance(14 * time.Minute)
	good := b.login(t).Access
	gone := b.login(t)
	require.NoError(t, b.Revoke(ctx, "u1", gone.SessionID))
	b.clock.advance(time.Minute)

	says := func(body string, options ...webOption) {
		t.Helper()
		r := ask(t, h, http.MethodGet, "/", options...)
		require.Equal(t, 200, r.status)
		require.Equal(t, body, r.body)
		require.Equal(t, []string{"Authorization, Cookie"}, r.header["Vary"])
		require.NotContains(t, r.header, "Set-Cookie")
	}
	says("anonymous: <nil>")
	says("anonymous: <nil>", webHeader("Authorization", "Basic YTpi"))
	says("anonymous: <nil>", webCookie(accessCookie, ""))
	says("anonymous: <nil>", webCookie(refreshCookie, k.Refresh))
	says("hello ada", webBearer(good))
	says("hello ada", webCookie(accessCookie, good))
	says("anonymous: auth: token expired", webCookie(accessCookie, late.Access))
	says("anonymous: auth: session revoked", webCookie(accessCookie, gone.Access))
	says("anonymous: auth: invalid token: not three segments", webCookie(accessCookie, "garbage"))

	no := func(status int, code, action string, options ...webOption) {
		t.Helper()
		ask(t, h, http.MethodPost, "/", options...).refused(t, status, code, action)
	}
	no(401, "invalid_token", "login", webBearer("garbage"))
	no(401, "invalid_token", "refresh", webBearer(late.Access))
	no(401, "invalid_token", "login", webBearer(gone.Access))
	no(401, "invalid_token", "refresh", webBearer(late.Access), webCookie(accessCookie, late.Access))
	no(400, "invalid_request", "", webHeader("Authorization", "Bearer "))
	require.Equal(t, "hello ada", ask(t, h, http.MethodPost, "/", webBearer(good), webCookie(accessCookie, late.Access)).body)
	no(403, "cross_origin", "", webCookie(accessCookie, good), crossSite)
	no(403, "cross_origin", "", webCookie(accessCookie, "garbage"), crossSite)
	require.Equal(t, "hello ada", ask(t, h, http.MethodPost, "/", webBearer(good), crossSite).body)
}

func TestErrorFromContext_WrapsWhatWasWrong(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	k := b.login(t)
	b.clock.advance(time.Hour)
	var reason error
	h := b.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reason = auth.ErrorFromContext(r.Context()) }))
	ask(t, h, http.MethodGet, "/", webCookie(accessCookie, k.Access))
	require.ErrorIs(t, reason, auth.ErrTokenExpired)
}

func TestOnError_WritesEveryRefusal(t *testing.T) {
	t.Parallel()
	var told []error
	b := newBench(t, withCookies(), func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			told = append(told, err)
			w.WriteHeader(http.StatusTeapot)
		}
	})
	plain := newBench(t, withCookies(), func(c *auth.Config) {
		c.AutoRefresh = true
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			told = append(told, err)
			w.WriteHeader(http.StatusTeapot)
		}
	})
	h := b.Handler()
	garbage := webBearer("garbage")
	token := webBearer(b.login(t).Access)
	refusal := func(context.Context, *auth.Claims) error { return errors.New("no") }
	for i, tt := range []struct {
		h            http.Handler
		method, path string
		options      []webOption
		err          error
	}{
		{h, "GET", "/login", nil, nil},
		{h, "GET", "/nothing", nil, nil},
		{h, "POST", "/login", []webOption{webJSON("{")}, auth.ErrInvalidRequest},
		{h, "POST", "/login", []webOption{webJSON("{}")}, auth.ErrInvalidRequest},
		{h, "POST", "/login", []webOption{webJSON(goodLogin), crossSite}, auth.ErrCrossOrigin},
		{h, "POST", "/login", []webOption{webJSON(`{"login":"ada","password":"x"}`)}, auth.ErrInvalidCredentials},
		{h, "POST", "/refresh", nil, auth.ErrNoToken},
		{h, "POST", "/refresh", []webOption{webHeader("Refresh-Token", "x")}, auth.ErrInvalidToken},
		{h, "POST", "/logout", []webOption{crossSite}, auth.ErrCrossOrigin},
		{h, "POST", "/logout/all", nil, auth.ErrNoToken},
		{h, "POST", "/logout/all?others=x", []webOption{token}, auth.ErrInvalidRequest},
		{h, "GET", "/sessions", []webOption{garbage}, auth.ErrInvalidToken},
		{h, "DELETE", "/sessions/x", []webOption{garbage}, auth.ErrInvalidToken},
		{h, "DELETE", "/sessions/x", []webOption{token}, auth.ErrSessionNotFound},
		{b.Require()(hello), "GET", "/", nil, auth.ErrNoToken},
		{b.Require(refusal)(hello), "GET", "/", []webOption{token}, auth.ErrForbidden},
		{b.Optional(hello), "GET", "/", []webOption{garbage}, auth.ErrInvalidToken},
		{plain.Require()(hello), "GET", "/", nil, auth.ErrNoToken},
		{plain.Require()(hello), "GET", "/", []webOption{webCookie(refreshCookie, "x")}, auth.ErrInvalidToken},
		{plain.Optional(hello), "GET", "/", []webOption{garbage}, auth.ErrInvalidToken},
	} {
		r := ask(t, tt.h, tt.method, tt.path, tt.options...)
		require.Equal(t, http.StatusTeapot, r.status, i)
		require.Empty(t, r.body)
		require.Len(t, told, i+1)
		require.Error(t, told[i])
		if tt.err != nil {
			require.ErrorIs(t, told[i], tt.err, i)
		}
	}
}

func TestWriteError_UnknownIsA500WithoutDetails(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errors.New("secret detail"), fmt.Errorf("secret: %w", io.EOF), auth.ErrUserNotFound, auth.ErrSessionExists, auth.ErrFeedReset, context.Canceled} {
		w := httptest.NewRecorder()
		auth.DefaultOnError(w, httptest.NewRequest("GET", "/", nil), err)
		r := readReply(t, w.Result())
		r.refused(t, 500, "server_error", "")
		require.Equal(t, "{\"error\":\"server_error\",\"error_description\":\"the server could not do this\"}\n", r.body)
		require.NotContains(t, r.header, "Www-Authenticate")
	}
}

func TestWriteError_Table(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err          error
		status       int
		code, action string
		challenge    string
	}{
		{password.ErrBusy, 503, "temporarily_unavailable", "", ""},
		{auth.ErrUnavailable, 503, "temporarily_unavailable", "", ""},
		{auth.ErrCrossOrigin, 403, "cross_origin", "", ""},
		{auth.ErrInvalidRequest, 400, "invalid_request", "", ""},
		{auth.ErrSessionNotFound, 404, "not_found", "", ""},
		{auth.ErrInvalidCredentials, 401, "invalid_credentials", "login", ""},
		{auth.ErrNoToken, 401, "missing_token", "login", "Bearer"},
		{auth.ErrTokenReused, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the session has ended"`},
		{auth.ErrSessionRevoked, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the session has ended"`},
		{auth.ErrTokenExpired, 401, "invalid_token", "refresh", `Bearer error="invalid_token", error_description="the token has expired"`},
		{auth.ErrInvalidToken, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the token is not valid"`},
		{auth.ErrReauthenticate, 401, "insufficient_user_authentication", "login", `Bearer error="insufficient_user_authentication", error_description="a more recent login is required"`},
		{auth.ErrForbidden, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		// What did not answer comes before what it would have said.
		{errors.Join(auth.ErrInvalidToken, auth.ErrUnavailable), 503, "temporarily_unavailable", "", ""},
		{errors.Join(auth.ErrTokenExpired, auth.ErrSessionRevoked), 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the session has ended"`},
	} {
		w := httptest.NewRecorder()
		auth.DefaultOnError(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("secret detail: %w", tt.err))
		r := readReply(t, w.Result())
		r.refused(t, tt.status, tt.code, tt.action)
		require.Equal(t, tt.challenge, r.header.Get("Www-Authenticate"))
		require.NotContains(t, r.body, "secret")
		a := auth.ResponseFor(tt.err)
		require.Equal(t, auth.ErrorResponse{Status: tt.status, Code: tt.code, Description: a.Description, Action: tt.action, Challenge: tt.challenge}, a)
		require.Equal(t, a.Description, r.fields(t)["error_description"])
	}
}

func TestWriteError_SaysWhatIsMalformed(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.Handler()
	for want, r := range map[string]webReply{
		"login is missing":                                       ask(t, h, "POST", "/login", webJSON(`{"password":"x"}`)),
		"device is not a string":                                 ask(t, h, "POST", "/login", webJSON(`{"login":"x","password":"x","device":1}`)),
		"this delivery is not offered":                           ask(t, h, "POST", "/login", webJSON(`{"login":"x","password":"x","delivery":"x"}`)),
		"more than one bearer token":                             ask(t, h, "GET", "/sessions", webHeader("Authorization", "Bearer a", "Bearer b")),
		"others must be \"true\" or \"false\"":                   ask(t, h, "POST", "/logout/all?others=x", webBearer(b.login(t).Access)),
		"the body is not a form":                                 ask(t, h, "POST", "/login", webForm("%zz")),
		"field login of the form is there twice or is not UTF-8": ask(t, h, "POST", "/login", webForm("login=a&login=a&password=x")),
		"field password of the form cannot be read":              ask(t, h, "POST", "/login", webForm("login=a&password=%zz")),
		"the body: invalid JSON object":                          ask(t, h, "POST", "/login", webJSON(`{"login":"secret`)),
	} {
		r.refused(t, 400, "invalid_request", "")
		require.Equal(t, want, r.fields(t)["error_description"])
	}
}

func TestAnswerTo_IsForBodiesOfOnesOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, _ *http.Request, err error) {
			a := auth.ResponseFor(err)
			a.SetHeaders(w.Header())
			w.WriteHeader(a.Status)
			_, _ = io.WriteString(w, a.Code+": "+a.Description)
		}
	})
	r := ask(t, b.Require()(hello), "GET", "/")
	require.Equal(t, 401, r.status)
	require.Equal(t, "missing_token: a token is required", r.body)
	require.Equal(t, "Bearer", r.header.Get("Www-Authenticate"))
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.NotContains(t, r.header, "Retry-After")
	b.store.failBefore("Rotate", errStore)
	r = ask(t, b.RefreshHandler(), "POST", "/", webHeader("Refresh-Token", b.login(t).Refresh))
	require.Equal(t, 503, r.status)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.NotContains(t, r.header, "Www-Authenticate")
}

func autoRefresh(c *auth.Config) { c.Cookies, c.AutoRefresh = &auth.Cookies{}, true }

// page is a server-rendered page: it answers with the URL that was asked for.
var page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, ok := auth.FromContext(r.Context())
	_, _ = fmt.Fprintf(w, "%v %s", ok, r.RequestURI)
	if ok && c.Subject == "" {
		_, _ = io.WriteString(w, " nobody")
	}
})

func TestAutoRefresh_PageLoadIsRedirectedToItself(t *testing.T) {
	t.Parallel()
	for _, auto := range []func(*bench) http.Handler{
		func(b *bench) http.Handler { return b.Require()(page) },
		func(b *bench) http.Handler { return b.Optional(page) },
	} {
		b := newBench(t, autoRefresh)
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", b.Handler()))
		mux.Handle("/app/", http.StripPrefix("/app", auto(b)))
		mux.Handle("/", auto(b))
		// As it is where no mux cleans paths.
		s := newSurfer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/auth/") || strings.HasPrefix(r.URL.Path, "/app/") {
				mux.ServeHTTP(w, r)
				return
			}
			auto(b).ServeHTTP(w, r)
		}))
		require.Equal(t, 200, s.do("POST", "/auth/login", webJSON(goodLogin)).status)
		follow := s.client.CheckRedirect
		for _, path := range []string{
			"/", "/me", "/me?a=b&c=d%20e", "/app/", "/app/x", "/app/x/y?z=1", "/app/x/", "/a:b", "/app/a:b?x=/y", "/a/https:evil.example",
			"//evil.example/", "//evil.example/x", "/a//b", "/a%2Fb", "/a%2F..%2Fb", "/app/a%2Fb/c%2Fd", "/%5C%5Cevil.example", "/a/%5Cevil.example",
			"/%2F%2Fevil.example", "/me?next=https://evil.example/", "/me?x=//evil", "/ä/ö", "/a%3Fb", "/a%23b", "/a/b;c=d", "/a%20b", "/@evil.example", "/a+b",
			"/a?x?y", "/a%0d%0aSet-Cookie:x", "/~a", "/a/...",
		} {
			b.clock.advance(time.Hour)
			s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			r := s.do("GET", path)
			require.Equal(t, http.StatusTemporaryRedirect, r.status, "%s: %s", path, r.body)
			require.Equal(t, "no-store", r.header.Get("Cache-Control"))
			require.Contains(t, r.header.Get("Vary"), "Cookie")
			require.Len(t, r.cookies, 2)
			location := r.header.Get("Location")
			require.True(t, strings.HasPrefix(location, "./"), location)
			base, err := url.Parse(s.url + path)
			require.NoError(t, err)
			to, err := base.Parse(location)
			require.NoError(t, err)
			require.Equal(t, base.String(), to.String(), "%s by %s", path, location)

			// The browser has the new cookies; a real client gets there by itself.
			b.clock.advance(time.Hour)
			s.client.CheckRedirect = follow
			r = s.do("GET", path)
			require.Equal(t, 200, r.status, path)
			require.Equal(t, "true "+base.RequestURI(), r.body)
		}
	}
}

func TestAutoRefresh_AbsentAccessCookieAndHEAD(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	for _, h := range []http.Handler{b.Require()(page), b.Optional(page)} {
		for _, method := range []string{"GET", "HEAD"} {
			r := ask(t, h, method, "/me", webCookie(refreshCookie, b.login(t).Refresh))
			require.Equal(t, http.StatusTemporaryRedirect, r.status)
			require.Equal(t, "./me", r.header.Get("Location"))
			require.Len(t, r.cookies, 2)
			require.Empty(t, r.body)
		}
	}
}

func TestAutoRefresh_RestingSessionGetsOnlyTheAccessCookie(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k, err := b.Refresh(context.Background(), b.login(t).Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	r := ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	require.Len(t, r.cookies, 1)
	require.Contains(t, r.cookies, accessCookie)
}

func TestAutoRefresh_NotForWritesUpgradesAndPrograms(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k := b.login(t)
	b.clock.advance(time.Hour)
	refresh := webCookie(refreshCookie, k.Refresh)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		ask(t, b.Require()(page), method, "/me", refresh).refused(t, 401, "missing_token", "login")
		ask(t, b.Require()(page), method, "/me", refresh, webCookie(accessCookie, k.Access)).refused(t, 401, "invalid_token", "refresh")
		require.Equal(t, "false /me", ask(t, b.Optional(page), method, "/me", refresh).body)
	}
	upgrade := []webOption{refresh, webHeader("Upgrade", "websocket"), webHeader("Connection", "Upgrade")}
	ask(t, b.Require()(page), "GET", "/me", upgrade...).refused(t, 401, "missing_token", "login")
	ask(t, b.Require()(page), "GET", "/me", refresh, webBearer(k.Access)).refused(t, 401, "invalid_token", "refresh")
	ask(t, b.Require()(page), "GET", "/me", refresh, webBearer(k.Access), webCookie(accessCookie, k.Access)).refused(t, 401, "invalid_token", "refresh")
	ask(t, b.Optional(page), "GET", "/me", refresh, webBearer(k.Access)).refused(t, 401, "invalid_token", "refresh")
	// Nor for what no refresh cures.
	ask(t, b.Require()(page), "GET", "/me", refresh, webBearer("garbage")).refused(t, 401, "invalid_token", "login")
	ask(t, b.Require()(page), "GET", "/me", refresh, webCookie(accessCookie, "garbage")).refused(t, 401, "invalid_token", "login")
	require.Zero(t, b.store.count("Rotate"))
	require.Equal(t, 200, ask(t, b.Require()(page), "GET", "/me", refresh, webBearer(b.login(t).Access)).status)
	ask(t, b.Require(auth.Role("root"))(page), "GET", "/me", refresh, webCookie(accessCookie, b.login(t).Access)).refused(t, 403, "insufficient_scope", "")
	require.Zero(t, b.store.count("Rotate"))
	// The embedded Verifier wraps in the same way.
	require.Equal(t, http.StatusTemporaryRedirect, ask(t, b.Verifier.Require()(page), "GET", "/me", refresh).status)
	// It refreshes only where it is not asked for.
	off := newBench(t, withCookies())
	ask(t, off.Require()(page), "GET", "/me", webCookie(refreshCookie, off.login(t).Refresh)).refused(t, 401, "missing_token", "login")
}

func TestAutoRefresh_HeaderThatCannotBeReadDoesNotMatterBesideACookie(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	for _, h := range []http.Handler{b.Require()(page), b.Optional(page)} {
		for _, header := range []string{"Bearer", "Bearer ", "Bearer a b"} {
			k := b.login(t)
			old := webCookie(accessCookie, k.Access)
			b.clock.advance(time.Hour)
			for _, options := range [][]webOption{nil, {old}} {
				r := ask(t, h, "GET", "/me", append(options, webCookie(refreshCookie, k.Refresh), webHeader("Authorization", header))...)
				require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
			}
			ask(t, h, "GET", "/me", webHeader("Authorization", header)).refused(t, 400, "invalid_request", "")
		}
	}
	// Nor does an old link, wherever its token is from.
	linked := newBench(t, autoRefresh, withExtractors(auth.FromBearer(), auth.FromQuery("t"), auth.FromCookie()))
	bob, err := linked.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	l := linked.login(t)
	linked.clock.advance(time.Hour)
	for _, token := range []string{l.Access, bob.Access} {
		for _, h := range []http.Handler{linked.Require()(page), linked.Optional(page)} {
			for _, options := range [][]webOption{nil, {webCookie(accessCookie, l.Access)}} {
				r := ask(t, h, "GET", "/me?t="+token, append(options, webCookie(refreshCookie, l.Refresh))...)
				require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
				// To itself, with the cookies that it has now.
				r = ask(t, h, "GET", "/me?t="+token, webCookie(accessCookie, r.cookies[accessCookie].Value))
				require.Equal(t, "true /me?t="+token, r.body)
			}
		}
	}
	// Of several refresh cookies, one that is dead does not matter either.
	dead, k := b.login(t), b.login(t)
	require.NoError(t, b.Revoke(context.Background(), "u1", dead.SessionID))
	b.clock.advance(25 * time.Hour) // and that it was revoked is forgotten here
	r := ask(t, b.Require()(page), "GET", "/me", cookiesOf(refreshCookie, dead.Refresh, "junk", k.Refresh))
	require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
	b.store.failBefore("Get", errStore)
	for _, h := range []http.Handler{b.Require()(page), b.Optional(page)} {
		ask(t, h, "GET", "/me", cookiesOf(refreshCookie, dead.Refresh, k.Refresh)).refused(t, 503, "temporarily_unavailable", "")
	}
}

func TestAutoRefresh_RefusedRefreshIsTheOrdinary401(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k := b.login(t)
	_, err := b.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	b.clock.advance(time.Minute)
	r := ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh)) // spent
	r.refused(t, 401, "invalid_token", "login")
	require.Contains(t, r.header.Get("Www-Authenticate"), `error="invalid_token"`)
	for _, value := range []string{k.Refresh, "garbage", k.Access} {
		r := ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, value))
		r.refused(t, 401, "invalid_token", "login")
		r = ask(t, b.Optional(page), "GET", "/me", webCookie(refreshCookie, value))
		require.Equal(t, "false /me", r.body)
		require.NotContains(t, r.header, "Set-Cookie")
	}
	var reason error
	h := b.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reason = auth.ErrorFromContext(r.Context()) }))
	ask(t, h, "GET", "/me", webCookie(refreshCookie, k.Refresh))
	require.ErrorIs(t, reason, auth.ErrSessionRevoked)
	k = b.login(t)
	b.clock.advance(time.Hour)
	ask(t, h, "GET", "/me", webCookie(accessCookie, k.Access), webCookie(refreshCookie, "garbage"))
	require.ErrorIs(t, reason, auth.ErrInvalidToken)
	ask(t, h, "GET", "/me", webCookie(accessCookie, k.Access))
	require.ErrorIs(t, reason, auth.ErrTokenExpired)
}

func TestAutoRefresh_OutageIs503(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k := b.login(t)
	b.store.failBefore("Rotate", errStore)
	for _, h := range []http.Handler{b.Require()(page), b.Optional(page)} {
		ask(t, h, "GET", "/me", webCookie(refreshCookie, k.Refresh)).refused(t, 503, "temporarily_unavailable", "")
	}
	b.store.failBefore("Rotate", nil)
	b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", 4000)} })
	ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh)).refused(t, 500, "token_too_large", "")
	require.EqualValues(t, 1, b.generation(t, "u1", k.SessionID))
}

func TestAutoRefresh_TenParallelRequestsOfOnePageAreOneRotation(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", b.Handler()))
	mux.Handle("/", b.Require()(page))
	s := newSurfer(t, mux)
	id := s.do("POST", "/auth/login", webJSON(goodLogin)).fields(t)["session_id"].(string)
	for round := range 5 {
		b.clock.advance(time.Hour)
		var wg sync.WaitGroup
		var fine atomic.Int64
		for i := range 10 {
			wg.Go(func() {
				r, err := http.NewRequest("GET", fmt.Sprintf("%s/x/%d", s.url, i), nil)
				if err != nil {
					return
				}
				res, err := s.client.Do(r)
				if err != nil {
					return
				}
				_ = res.Body.Close()
				if res.StatusCode == 200 {
					fine.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 10, fine.Load())
		require.EqualValues(t, round+2, b.generation(t, "u1", id))
	}
	require.Empty(t, b.events.take(auth.EventReuse))
}

func TestAutoRefresh_CutAccessIsRenewed(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k := b.login(t)
	require.NoError(t, b.ExpireAccess(context.Background(), "u1"))
	r := ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh), webCookie(accessCookie, k.Access))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	r = ask(t, b.Require()(page), "GET", "/me", webCookie(accessCookie, r.cookies[accessCookie].Value))
	require.Equal(t, 200, r.status, "no redirect loop")
}

func TestSessionContext_EndsWithTheReasonAsItsCause(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(*bench, auth.Tokens) error
		want error
	}{
		"revoke": {func(b *bench, k auth.Tokens) error { return b.Revoke(context.Background(), "u1", k.SessionID) }, auth.ErrSessionRevoked},
		"all":    {func(b *bench, _ auth.Tokens) error { return b.RevokeAll(context.Background(), "u1") }, auth.ErrSessionRevoked},
		"others": {func(b *bench, _ auth.Tokens) error { return b.RevokeAll(context.Background(), "u1", "x") }, auth.ErrSessionRevoked},
		"logout": {func(b *bench, k auth.Tokens) error { return b.Logout(context.Background(), k.Refresh) }, auth.ErrSessionRevoked},
		"cut":    {func(b *bench, _ auth.Tokens) error { return b.ExpireAccess(context.Background(), "u1") }, auth.ErrTokenExpired},
		"another node": {func(b *bench, k auth.Tokens) error {
			return b.store.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: b.clock.Now().Add(time.Hour)})
		}, auth.ErrSessionRevoked},
		"store down": {func(b *bench, k auth.Tokens) error {
			b.store.failBefore("Revoke", errStore)
			if b.Revoke(context.Background(), "u1", k.SessionID) == nil {
				return errors.New("no error")
			}
			return nil
		}, auth.ErrSessionRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			k := b.login(t)
			c, err := b.Verify(context.Background(), k.Access)
			require.NoError(t, err)
			ctx, cancel := b.SessionContext(context.Background(), c)
			defer cancel()
			require.NoError(t, tt.do(b, k))
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
				require.Fail(t, "it goes on")
			}
			require.ErrorIs(t, context.Cause(ctx), tt.want)
			// One that is made too late is over at once.
			late, cancel := b.SessionContext(context.Background(), c)
			defer cancel()
			<-late.Done()
			require.ErrorIs(t, context.Cause(late), tt.want)
		})
	}
}

func TestSessionContext_IsNotEndedByOthersOrByARefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	k, other := b.login(t), b.login(t)
	bob, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	c, err := b.Verify(ctx, k.Access)
	require.NoError(t, err)
	live, cancel := b.SessionContext(ctx, c)
	_, err = b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.NoError(t, b.Revoke(ctx, "u1", other.SessionID))
	require.NoError(t, b.Revoke(ctx, "u2", bob.SessionID, k.SessionID))
	require.NoError(t, b.RevokeAll(ctx, "u2"))
	b.clock.advance(time.Second)
	require.NoError(t, b.ExpireAccess(ctx, "u2"))
	require.NoError(t, b.RevokeAll(ctx, "u1", k.SessionID))
	require.NoError(t, live.Err())
	cancel()
	<-live.Done()
	require.ErrorIs(t, context.Cause(live), context.Canceled)
}

// inBubble makes an Authenticator by the clock of the bubble, with no feed to
// follow.
func inBubble(t *testing.T) (*auth.Authenticator, auth.Tokens) {
	t.Helper()
	a, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers()})
	require.NoError(t, err)
	k, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	return a, k
}

func TestSessionContext_EndsWithTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, k := inBubble(t)
		c, err := b.Verify(context.Background(), k.Access)
		require.NoError(t, err)
		begin := time.Now()
		ctx, cancel := b.SessionContext(context.Background(), c)
		defer cancel()
		time.Sleep(time.Hour) // the access token has expired
		require.NoError(t, ctx.Err())
		<-ctx.Done()
		require.Equal(t, c.SessionExpiresAt, time.Now().UTC())
		require.Equal(t, 7*24*time.Hour, time.Since(begin))
		require.ErrorIs(t, context.Cause(ctx), auth.ErrTokenExpired)
	})
}

func TestSessionContext_OfClaimsWithoutAnEndGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := inBubble(t)
		ctx, cancel := b.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "s"})
		time.Sleep(10 * 365 * 24 * time.Hour)
		require.NoError(t, ctx.Err())
		cancel()
		<-ctx.Done()
	})
}

func TestSessionContext_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c, err := b.Verify(context.Background(), b.login(t).Access)
	require.NoError(t, err)
	type big [1 << 10]byte
	type key struct{}
	var held []weak.Pointer[big]
	for i := range 200 {
		func() {
			// Whoever holds the context, holds this.
			mark := new(big)
			held = append(held, weak.Make(mark))
			parent, end := context.WithCancel(context.WithValue(context.Background(), key{}, mark))
			defer end()
			ctx, cancel := b.SessionContext(parent, c)
			defer cancel()
			if i%2 == 0 {
				cancel()
			} else {
				end()
			}
			<-ctx.Done()
		}()
	}
	left := func() (n int) {
		for _, w := range held {
			if w.Value() != nil {
				n++
			}
		}
		return n
	}
	for range 500 {
		if runtime.GC(); left() < 5 { // one may still be in a register
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Less(t, left(), 5, "a watcher or a timer is left behind")
	runtime.KeepAlive(b)
}

func TestSessionContext_HasNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, k := inBubble(t)
		c, err := b.Verify(t.Context(), k.Access)
		require.NoError(t, err)
		parent, end := context.WithCancel(t.Context())
		for range 10 {
			_, cancel := b.SessionContext(parent, c)
			defer cancel()
		}
		end()
		// The bubble panics if any goroutine is left in it.
	})
}

func TestSessionContext_EndsAStreamOverHTTP(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	ended := make(chan error, 1)
	h := b.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		ctx, cancel := b.SessionContext(r.Context(), c)
		defer cancel()
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: begin\n\n")
		_ = http.NewResponseController(w).Flush()
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}))
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	k := b.login(t)
	r, err := http.NewRequest("GET", server.URL, nil)
	require.NoError(t, err)
	webBearer(k.Access)(r)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "data: begin\n", line)
	require.Equal(t, 204, ask(t, b.LogoutHandler(), "POST", "/logout", webHeader("Refresh-Token", k.Refresh)).status)
	_, err = io.ReadAll(lines)
	require.NoError(t, err, "the handler returned, so the stream ends")
	require.ErrorIs(t, <-ended, auth.ErrSessionRevoked)
}

func TestAnswerTo_AttributesNeedAChallenge(t *testing.T) {
	t.Parallel()
	c := &auth.Claims{}
	scope := auth.Scope("pay")(context.Background(), c)
	fresh := auth.Fresh(time.Minute)(context.Background(), c)
	for _, e := range []error{scope, fresh} {
		require.Empty(t, auth.ResponseFor(errors.Join(auth.ErrUnavailable, e)).Challenge)
		require.Empty(t, auth.ResponseFor(errors.Join(auth.ErrSessionNotFound, e)).Challenge)
		require.Equal(t, "Bearer", auth.ResponseFor(errors.Join(auth.ErrNoToken, e)).Challenge)
	}
}

func TestAutoRefresh_NeedsTheCookieToBeRead(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &auth.Cookies{}, AutoRefresh: true, Extractors: []auth.Extractor{auth.FromBearer()}})
	require.ErrorContains(t, err, "auth: Config.AutoRefresh")
}

func TestAutoRefresh_UnderAPrefixThatIsThePath(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	h := b.Require()(page)
	mux := http.NewServeMux()
	mux.Handle("/app", http.StripPrefix("/app", h))
	mux.Handle("/doc/{x}", http.StripPrefix("/doc/a", h))
	mux.Handle("/auth/", http.StripPrefix("/auth", b.Handler()))
	s := newSurfer(t, mux)
	require.Equal(t, 200, s.do("POST", "/auth/login", webJSON(goodLogin)).status)
	for _, path := range []string{"/app", "/app?x=1", "/doc/abc"} {
		b.clock.advance(time.Hour)
		r := s.do("GET", path)
		require.Equal(t, 200, r.status, path)
		require.Equal(t, "true "+path, r.body)
	}
}

func TestAutoRefresh_ExpiredRefreshTokenAsksForALogin(t *testing.T) {
	t.Parallel()
	b := newBench(t, autoRefresh)
	k := b.login(t)
	b.clock.advance(8 * 24 * time.Hour)
	ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh)).refused(t, 401, "invalid_token", "login")
	ask(t, b.Require()(page), "GET", "/me", webCookie(refreshCookie, k.Refresh), webCookie(accessCookie, k.Access)).refused(t, 401, "invalid_token", "login")
}

func TestRequire_GuardThatPanicsRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.login(t)
	h := b.Require(func(context.Context, *auth.Claims) error { panic("x") })(hello)
	require.NotPanics(t, func() { ask(t, h, "GET", "/", webBearer(k.Access)).refused(t, 500, "server_error", "") })
}
