package openapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

func TestExamples_AreValid(t *testing.T) {
	t.Parallel()
	d := load(t)
	count, err := d.checkExamples(at{d.root, ""})
	require.NoError(t, err)
	require.Greater(t, count, 60)
}

// TestResponses_AreThoseOfTheDocument is described in the package comment.
func TestResponses_AreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	d := load(t)
	t.Run("servers", func(t *testing.T) {
		for name, play := range map[string]func(t *testing.T, d *document){
			"bodies": playBodies, "cookies": playCookies, "factor": playFactor, "throttled": playThrottled, "limits": playLimits,
			"faults": playFaults, "plain": playPlain, "oauth": playOAuth,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				play(t, d)
			})
		}
	})
	missing := slices.DeleteFunc(slices.Sorted(maps.Keys(d.expected())), func(key string) bool { return d.seen[key] })
	if !t.Failed() {
		require.Empty(t, missing, "the document has responses or headers that no server gave:\n"+strings.Join(missing, "\n"))
	}
}

func challenge(a answer, method, response string) option {
	return inJSON(node{"challenge": a.text("challenge"), "method": method, "response": response})
}

// playBodies is a server without cookies.
func playBodies(t *testing.T, d *document) {
	s := newSite(t, d, func(*auth.Config) {})
	s.fails(400, "invalid_request", "POST /auth/login", inJSON(node{"login": "ada"}))
	s.fails(401, "invalid_credentials login", "POST /auth/login", credentials(wrong))
	s.fails(413, "invalid_request", "POST /auth/login", tooLarge)
	s.fails(415, "invalid_request", "POST /auth/login", plainText)
	s.send(200, "POST /auth/login", inForm("username", "ada", "password", right))
	signedIn := s.login()
	access, refresh := bearer(signedIn.text("access_token")), signedIn.text("refresh_token")

	s.fails(400, "invalid_request login", "POST /auth/refresh")
	s.fails(400, "invalid_request", "POST /auth/refresh", header("Refresh-Token", refresh), header("Refresh-Key", "x"))
	s.fails(401, "invalid_grant login", "POST /auth/refresh", header("Refresh-Token", "x"))
	s.fails(413, "invalid_request", "POST /auth/refresh", tooLarge)
	s.fails(415, "invalid_request", "POST /auth/refresh", plainText)
	s.a.Clock.Advance(15 * time.Minute)
	s.fails(401, "invalid_token refresh", "GET /auth/sessions", access)
	next := s.send(200, "POST /auth/refresh", inJSON(node{"refresh_token": refresh}))
	require.Equal(t, true, next.body["rotated"])
	again := s.send(200, "POST /auth/refresh", header("Refresh-Token", next.text("refresh_token")))
	require.Nil(t, again.body["rotated"])
	access = bearer(next.text("access_token"))

	s.send(200, "GET /auth/sessions", access)
	s.send(200, "HEAD /auth/sessions", access)
	acting := authtest.Tokens(t, s.a, auth.User{ID: "u1"}, authtest.Session(auth.SessionOptions{Actor: "u2", Name: "support"}))
	s.send(200, "GET /auth/sessions", access)
	s.fails(403, "insufficient_scope", "POST /auth/password", bearer(acting.Access), inJSON(node{"current_password": right, "new_password": "another long password"}))

	s.fails(404, "not_found", "DELETE /auth/sessions/x", access)
	s.send(204, "DELETE /auth/sessions/"+acting.SessionID, access)
	ticket := s.send(200, "POST /auth/ticket", access, inJSON(node{"path": "/events"}))
	require.NotEmpty(t, ticket.text("ticket"))
	s.fails(400, "invalid_request", "POST /auth/ticket", access, inJSON(node{}))
	s.fails(413, "invalid_request", "POST /auth/ticket", access, tooLarge)
	s.fails(415, "invalid_request", "POST /auth/ticket", access, plainText)

	change := func(current, next string) option {
		return inJSON(node{"current_password": current, "new_password": next})
	}
	s.fails(400, "invalid_request", "POST /auth/password", access, inJSON(node{}))
	s.fails(403, "invalid_credentials", "POST /auth/password", access, change(wrong, "another long password"))
	s.fails(413, "invalid_request", "POST /auth/password", access, tooLarge)
	s.fails(415, "invalid_request", "POST /auth/password", access, plainText)
	s.fails(422, "password_refused", "POST /auth/password", access, change(right, right))
	s.send(204, "POST /auth/password", access, change(right, "another long password"))

	s.fails(400, "invalid_request", "POST /auth/logout/all?others=x", access)
	s.send(204, "POST /auth/logout/all?others=true", access)
	s.send(204, "POST /auth/logout", access)
	s.send(204, "POST /auth/logout", inJSON(node{"refresh_token": next.text("refresh_token")}))
	s.fails(413, "invalid_request", "POST /auth/logout", tooLarge)
	for _, request := range []string{"POST /auth/logout/all", "POST /auth/password", "GET /auth/sessions", "DELETE /auth/sessions/x", "POST /auth/ticket"} {
		s.fails(401, "missing_token login", request)
		s.fails(401, "invalid_token login", request, access)
	}
	expired := bearer(authtest.Tokens(t, s.a, auth.User{ID: "u1"}, authtest.Expired()).Access)
	for _, request := range []string{"POST /auth/logout/all", "POST /auth/password", "DELETE /auth/sessions/x", "POST /auth/ticket"} {
		s.fails(401, "invalid_token refresh", request, expired)
	}
}

// playCookies is a server with cookies.
func playCookies(t *testing.T, d *document) {
	s := newSite(t, d, func(c *auth.Config) { c.Cookies = &auth.Cookies{AllowBody: true} })
	s.fails(403, "cross_origin", "POST /auth/login", credentials(right), crossSite)
	s.fails(400, "invalid_request", "POST /auth/login", inJSON(node{}))
	s.fails(405, "invalid_request", "GET /auth/login")
	s.fails(413, "invalid_request", "POST /auth/login", tooLarge)
	s.fails(415, "invalid_request", "POST /auth/login", plainText)
	s.down(func() { s.fails(503, "temporarily_unavailable", "POST /auth/login", credentials(right), sameOrigin) })
	authtest.ThrottleLogin(t, s.a, "ada")
	s.fails(429, "too_many_attempts", "POST /auth/login", credentials(right), sameOrigin)
	s.a.Clock.Advance(time.Second)
	first := s.login(sameOrigin)
	require.Len(t, first.cookies, 3)
	second := s.login(inJSON(node{"email": "ada", "password": right, "delivery": "body", "device": "phone", "remember": false}))
	require.NotEmpty(t, second.text("access_token"))

	s.fails(403, "cross_origin", "POST /auth/refresh", cookies(first), crossSite)
	s.a.Clock.Advance(10 * time.Minute)
	next := s.send(200, "POST /auth/refresh", cookies(first), sameOrigin)
	require.Len(t, next.cookies, 2)

	two := []option{cookies(next), bearer(second.text("access_token")), sameOrigin}
	for _, request := range []string{"POST /auth/logout/all", "POST /auth/password", "GET /auth/sessions", "DELETE /auth/sessions/x", "POST /auth/ticket"} {
		s.fails(400, "invalid_request login", request, two...)
		if request != "GET /auth/sessions" {
			s.fails(403, "cross_origin", request, cookies(next), crossSite)
		}
	}
	s.fails(403, "cross_origin", "POST /auth/logout", cookies(next), crossSite)

	page := []option{sameOrigin, navigates}
	s.usersAre(func(*people) {}, func() { // the password is the old one again afterward
		changed := s.send(303, "POST /auth/password", append(page, cookies(next), inForm("current_password", right, "new_password", "another long password", "next", "/profile"))...)
		require.Equal(t, "/profile", changed.header.Get("Location"))
	})
	s.send(303, "POST /auth/logout", append(page, cookies(next))...)
	for _, request := range []string{"POST /auth/logout", "POST /auth/logout/all"} {
		tokens := s.login(sameOrigin)
		require.NotEmpty(t, s.send(204, request, cookies(tokens), sameOrigin).cookies)
		s.a.Clock.Advance(11 * time.Second) // later than the not-before instant
	}
	tokens := s.login(sameOrigin)
	require.NotEmpty(t, s.send(204, "DELETE /auth/sessions/"+tokens.text("session_id"), cookies(tokens), sameOrigin).cookies)
	s.send(303, "POST /auth/logout/all", append(page, cookies(s.login(sameOrigin)))...)

	s.a.Clock.Advance(time.Minute)
	large := s.login(sameOrigin)
	s.usersAre(func(p *people) { p.extra = map[string]any{"x": strings.Repeat("x", 5000)} }, func() {
		s.fails(500, "token_too_large", "POST /auth/login", credentials(right), sameOrigin)
		s.a.Clock.Advance(10 * time.Minute)
		s.fails(500, "token_too_large", "POST /auth/refresh", cookies(large), sameOrigin)
	})
}

// playFactor is a server with a second factor and cookies.
func playFactor(t *testing.T, d *document) {
	s := newSite(t, d, func(c *auth.Config) {
		c.Cookies, c.SecondFactor, c.MaxSessions, c.RefuseOverLimit = &auth.Cookies{}, authtest.Factors{"otp": "123456"}, 1, true
	})
	const request = "POST /auth/login/factor"
	required := func() answer {
		return s.fails(401, "factor_required factor", "POST /auth/login", credentials(right), sameOrigin)
	}
	c := required()
	s.fails(400, "invalid_request", request, inJSON(node{"method": "otp"}))
	s.fails(401, "invalid_credentials factor", request, challenge(c, "otp", wrong), sameOrigin)
	s.fails(403, "cross_origin", request, challenge(c, "otp", "123456"), crossSite)
	s.fails(413, "invalid_request", request, tooLarge)
	s.fails(415, "invalid_request", request, plainText)
	s.loginIs(func(*auth.SessionOptions) error { return auth.ErrForbidden }, func() {
		s.fails(403, "insufficient_scope", request, challenge(c, "otp", "123456"), sameOrigin)
	})
	c = required()
	s.loginIs(func(o *auth.SessionOptions) error { o.Actor = "u2"; return nil }, func() {
		s.fails(500, "server_error", request, challenge(c, "otp", "123456"), sameOrigin)
	})
	c = required()
	s.usersAre(func(p *people) { p.extra = map[string]any{"x": strings.Repeat("x", 5000)} }, func() {
		s.fails(500, "token_too_large", request, challenge(c, "otp", "123456"), sameOrigin)
	})
	s.down(func() { s.fails(503, "temporarily_unavailable", request, challenge(c, "otp", "123456"), sameOrigin) })
	signedIn := s.send(200, request, challenge(required(), "otp", "123456"), sameOrigin)
	require.Len(t, signedIn.cookies, 3)
	s.fails(409, "too_many_sessions", request, challenge(required(), "otp", "123456"), sameOrigin)
	s.send(204, "POST /auth/logout", cookies(signedIn), sameOrigin)
	s.a.Clock.Advance(time.Hour) // the attempts are forgotten

	c = required()
	for range 4 {
		s.fails(401, "invalid_credentials factor", request, challenge(c, "otp", wrong), sameOrigin)
	}
	s.fails(401, "invalid_credentials login", request, challenge(c, "otp", wrong), sameOrigin)
	s.fails(429, "too_many_attempts", request, challenge(c, "otp", wrong), sameOrigin)
	s.fails(401, "invalid_grant login", request, inJSON(node{"challenge": "x", "method": "otp", "response": "1"}), sameOrigin)

	body := newSite(t, d, func(c *auth.Config) { c.SecondFactor = authtest.Factors{"otp": "123456"} })
	c = body.fails(401, "factor_required factor", "POST /auth/login", credentials(right))
	body.send(200, request, inForm("challenge", c.text("challenge"), "method", "otp", "response", "123456"))
}

func playThrottled(t *testing.T, d *document) {
	s := newSite(t, d, func(*auth.Config) {})
	access := bearer(s.login().text("access_token"))
	authtest.ThrottleLogin(t, s.a, "ada")
	s.fails(429, "too_many_attempts", "POST /auth/login", credentials(right))
	s.fails(429, "too_many_attempts", "POST /auth/password", access, inJSON(node{"current_password": right, "new_password": "another long password"}))
}

func playLimits(t *testing.T, d *document) {
	s := newSite(t, d, func(c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = 1, true })
	s.login()
	s.fails(409, "too_many_sessions", "POST /auth/login", credentials(right))
	s.loginIs(func(*auth.SessionOptions) error { return auth.ErrForbidden }, func() {
		s.fails(403, "insufficient_scope", "POST /auth/login", credentials(right))
	})
	s = newSite(t, d, func(c *auth.Config) { c.Cookies, c.MaxSessions, c.RefuseOverLimit = &auth.Cookies{}, 1, true })
	s.login(sameOrigin)
	s.fails(409, "too_many_sessions", "POST /auth/login", credentials(right), sameOrigin)
}

// playFaults is a server whose store, users or hooks fail.
func playFaults(t *testing.T, d *document) {
	s := newSite(t, d, func(*auth.Config) {})
	signedIn := s.login()
	access, refresh := bearer(signedIn.text("access_token")), header("Refresh-Token", signedIn.text("refresh_token"))
	s.loginIs(func(o *auth.SessionOptions) error { o.Actor = "u2"; return nil }, func() {
		s.fails(500, "server_error", "POST /auth/login", credentials(right))
	})
	s.loginIs(func(*auth.SessionOptions) error { return errors.New("down") }, func() {
		s.fails(503, "temporarily_unavailable", "POST /auth/login", credentials(right))
	})
	s.usersAre(func(p *people) { p.other = true }, func() {
		s.fails(500, "server_error", "POST /auth/refresh", refresh)
	})
	large := authtest.Tokens(t, s.a, auth.User{ID: "u1", Extra: map[string]any{"x": strings.Repeat("x", 5000)}})
	s.fails(500, "server_error", "POST /auth/ticket", bearer(large.Access), inJSON(node{"path": "/events"}))
	s.down(func() {
		s.a.Clock.Advance(time.Minute)
		s.fails(503, "temporarily_unavailable", "POST /auth/login", credentials(right))
		s.fails(503, "temporarily_unavailable", "POST /auth/refresh", refresh)
		s.fails(503, "temporarily_unavailable", "GET /auth/sessions", access)
		s.fails(503, "temporarily_unavailable", "DELETE /auth/sessions/x", access)
		s.fails(503, "temporarily_unavailable", "POST /auth/password", access, inJSON(node{"current_password": right, "new_password": "another long password"}))
		s.fails(503, "temporarily_unavailable", "POST /auth/logout/all", access)
	})
	other := bearer(s.login().text("access_token"))
	s.down(func() { s.fails(503, "temporarily_unavailable", "POST /auth/logout", other) })
}

// playPlain has the responses that do not depend on a user, and those of a server without
// a second factor whose passwords cannot be changed.
func playPlain(t *testing.T, d *document) {
	s := newSite(t, d, func(c *auth.Config) {
		users := c.Users.(updatable).people
		c.Users = struct{ auth.Users }{users}
	})
	s.fails(404, "not_found", "POST /auth/login/factor", inJSON(node{}))
	s.fails(404, "not_found", "POST /auth/password", inJSON(node{}))
	s.fails(404, "not_found", "POST /auth/unknown")
	for _, request := range []string{"GET /auth/login", "GET /auth/refresh", "GET /auth/logout", "GET /auth/logout/all", "POST /auth/sessions", "GET /auth/sessions/x", "POST /auth/jwks.json", "GET /auth/ticket", "POST /auth/auth.js"} {
		s.fails(405, "invalid_request", request)
	}
	for _, name := range []string{"/auth/jwks.json", "/auth/auth.js"} {
		a := s.send(200, "GET "+name)
		s.send(200, "HEAD "+name)
		s.send(304, "GET "+name, header("If-None-Match", a.header.Get("ETag")))
	}

	// Nobody has called Run, so this process knows no revocations.
	c := auth.Config{Issuer: "https://auth.example", Audience: []string{"https://api.example"}, Secrets: [][]byte{[]byte("the secret of these tests 0123456789")}, Users: s.users, Store: &fragile{Store: auth.NewMemoryStore()},
		OnEvent: func(context.Context, auth.Event) {}}
	a, err := auth.New(c)
	require.NoError(t, err)
	tokens, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	server := httptest.NewServer(a.Handler())
	t.Cleanup(server.Close)
	s.url = server.URL
	s.fails(503, "temporarily_unavailable", "POST /ticket", bearer(tokens.Access), inJSON(node{"path": "/events"}))
}

func playOAuth(t *testing.T, d *document) {
	s := newSite(t, d, func(*auth.Config) {})
	signedIn := s.login()
	access, refresh := signedIn.text("access_token"), signedIn.text("refresh_token")
	client := header("Authorization", "Basic YmFja2VuZDpzM2NyZXQtczNjcmV0")
	metadata := s.send(200, "GET /.well-known/oauth-authorization-server")
	s.send(304, "GET /.well-known/oauth-authorization-server", header("If-None-Match", metadata.header.Get("ETag")))

	s.fails(400, "invalid_request", "POST /oauth/token", client, inForm("grant_type", "refresh_token"))
	s.fails(400, "unsupported_grant_type", "POST /oauth/token", client, inForm("grant_type", "password"))
	s.fails(400, "invalid_scope", "POST /oauth/token", client, inForm("grant_type", "refresh_token", "refresh_token", "x", "scope", `"`))
	s.fails(400, "invalid_grant", "POST /oauth/token", client, inForm("grant_type", "refresh_token", "refresh_token", "x"))
	form := inForm("grant_type", "refresh_token", "refresh_token", refresh)
	s.usersAre(func(p *people) { p.other = true }, func() { s.fails(500, "server_error", "POST /oauth/token", client, form) })
	s.down(func() {
		s.fails(503, "temporarily_unavailable", "POST /oauth/token", client, form)
		s.fails(503, "temporarily_unavailable", "POST /oauth/revoke", client, inForm("token", refresh))
	})
	s.a.Clock.Advance(time.Minute)
	second := s.login()
	s.send(200, "POST /oauth/token", client, inForm("grant_type", "refresh_token", "refresh_token", second.text("refresh_token"), "client_id", "backend"))
	s.fails(400, "invalid_request", "POST /oauth/revoke", client, inForm("x", "y"))
	s.fails(400, "invalid_request", "POST /oauth/introspect", client, inForm("x", "y"))
	require.Equal(t, true, s.send(200, "POST /oauth/introspect", client, inForm("token", second.text("access_token"))).body["active"])
	require.Equal(t, false, s.send(200, "POST /oauth/introspect", client, inForm("token", access+"x")).body["active"])
	acting := authtest.Tokens(t, s.a, auth.User{ID: "u1"}, authtest.Session(auth.SessionOptions{Actor: "u2"}))
	require.NotNil(t, s.send(200, "POST /oauth/introspect", client, inForm("token", acting.Access)).body["act"])
	s.programs.down.Store(true)
	s.fails(503, "temporarily_unavailable", "POST /oauth/introspect", client, inForm("token", access))
	s.programs.down.Store(false)
	s.send(200, "POST /oauth/revoke", client, inForm("token", refresh))
	large := withBody("application/x-www-form-urlencoded", "x="+strings.Repeat("x", 17<<10))
	for _, name := range []string{"token", "revoke", "introspect"} {
		s.fails(413, "invalid_request", "POST /oauth/"+name, client, large)
		s.fails(415, "invalid_request", "POST /oauth/"+name, client, plainText)
		s.fails(401, "invalid_client", "POST /oauth/"+name, inForm("token", "x"))
		s.fails(401, "invalid_client", "POST /oauth/"+name, inForm("token", "x"), header("Authorization", "Basic eDp5"))
	}
	for range 2 {
		s.fails(401, "invalid_client", "POST /oauth/token", inForm("token", "x"), header("Authorization", "Basic eDp5"))
	}
	for _, name := range []string{"token", "revoke", "introspect"} {
		s.fails(429, "too_many_attempts", "POST /oauth/"+name, inForm("token", "x"), header("Authorization", "Basic eDp5"))
	}
}

// The comparison can fail: each of these exchanges differs from the document in one thing.
func TestCheck_FindsDifferences(t *testing.T) {
	t.Parallel()
	d := load(t)
	good := func() exchange {
		return exchange{
			method: "POST", path: "/refresh", status: 503,
			headers: map[string][]string{
				"Content-Type": {"application/json; charset=utf-8"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
				"Retry-After": {"1"},
			},
			received: []byte(`{"error":"temporarily_unavailable","error_description":"try again"}`),
		}
	}
	require.NoError(t, d.check(good()))
	for name, change := range map[string]func(x *exchange){
		"another status": func(x *exchange) { x.status = 504 },
		"another path":   func(x *exchange) { x.path = "/refreshes" },
		"another method": func(x *exchange) { x.method = "PUT" },
		"another code":   func(x *exchange) { x.received = []byte(`{"error":"down","error_description":"try again"}`) },
		"an action": func(x *exchange) {
			x.received = []byte(`{"error":"temporarily_unavailable","error_description":"x","action":"login"}`)
		},
		"no description": func(x *exchange) { x.received = []byte(`{"error":"temporarily_unavailable"}`) },
		"another member": func(x *exchange) {
			x.received = []byte(`{"error":"temporarily_unavailable","error_description":"x","y":1}`)
		},
		"no JSON":              func(x *exchange) { x.received = []byte(`down`) },
		"no header":            func(x *exchange) { delete(x.headers, "Retry-After") },
		"another value":        func(x *exchange) { x.headers["Retry-After"] = []string{"soon"} },
		"another header":       func(x *exchange) { x.headers["X-Trace"] = []string{"1"} },
		"another content type": func(x *exchange) { x.headers["Content-Type"] = []string{"text/plain; charset=utf-8"} },
	} {
		x := good()
		change(&x)
		require.Error(t, d.check(x), name)
	}
	var invalid *jsonschema.ValidationError
	example := at{node{"schema": node{}, "examples": node{"x": node{"value": node{}}}}, "/components/headers/RetryAfter"}
	_, err := d.checkExamples(example)
	require.ErrorAs(t, err, &invalid, fmt.Sprint(err))
}
