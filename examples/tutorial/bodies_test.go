package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	unauthorized = `{"error":true,"message":"Unauthorized access."}`
	noToken      = `{"error":true,"message":"No token provided."}`
	unknown      = `{"error":true,"message":"Invalid request."}`
	securedAda   = `{"message":"I am secured...","user":{"id":"1001","name":"ada","role":"admin"}}`
)

func (p *program) loginByBody() (token, refresh string) {
	p.t.Helper()
	a := p.do(p.http, "POST", "/api/login", object("email", "ada@example.com", "password", demoPassword))
	token, refresh = a.field(p.t, "token"), a.field(p.t, "refreshToken")
	p.expect(a, 200, fmt.Sprintf(`{"status":"Logged in","token":%q,"refreshToken":%q}`, token, refresh))
	require.Empty(p.t, a.cookies)
	require.Equal(p.t, "no-store", a.header.Get("Cache-Control"))
	return token, refresh
}

func TestBodies_Login(t *testing.T) {
	t.Parallel()
	p := start(t)
	token, refresh := p.loginByBody()
	require.Equal(t, 900.0, lifetime(t, token))
	require.Equal(t, 86400.0, lifetime(t, refresh))
	form := p.do(p.http, "POST", "/api/login", "email=ada%40example.com&password="+strings.ReplaceAll(demoPassword, " ", "+"))
	require.Equal(t, "Logged in", form.field(t, "status"))
}

func TestBodies_LoginRefusals(t *testing.T) {
	t.Parallel()
	p := start(t)
	do := func(body string, headers ...string) response {
		return p.do(p.http, "POST", "/api/login", body, headers...)
	}
	missing := `{"error":true,"message":"email and password are required."}`
	p.expect(do(""), 400, missing)
	p.expect(do(object("email", "ada@example.com", "name", "ada")), 400, missing) // all that the original required
	p.expect(do(`[`, "Content-Type", "application/json"), 400, `{"error":true,"message":"Bad Request"}`)
	p.expect(do("%zz"), 400, `{"error":true,"message":"Bad Request"}`)
	p.expect(do("<login/>", "Content-Type", "text/xml"), 415, `{"error":true,"message":"Unsupported Media Type"}`)
	p.expect(do("email="+strings.Repeat("x", 16<<10)), 413, `{"error":true,"message":"Request Entity Too Large"}`)
}

func TestBodies_UnknownUserAndWrongPasswordAreEqual(t *testing.T) {
	t.Parallel()
	p := start(t)
	noUser := p.do(p.http, "POST", "/api/login", object("email", "nobody@example.com", "password", demoPassword))
	wrong := p.do(p.http, "POST", "/api/login", object("email", "ada@example.com", "password", "wrong"))
	p.expect(noUser, 401, `{"error":true,"message":"Invalid email or password."}`)
	noUser.header.Del("Date")
	wrong.header.Del("Date")
	require.Equal(t, noUser, wrong)
}

func TestBodies_SecureAcceptsTheTokenInThreePlaces(t *testing.T) {
	t.Parallel()
	p := start(t)
	token, _ := p.loginByBody()
	other, _ := p.loginByBody()
	secure := func(query, body string, headers ...string) response {
		return p.do(p.http, "GET", "/api/secure"+query, body, headers...)
	}
	for _, a := range []response{
		secure("", "", "x-access-token", token),
		secure("?token="+token, ""),
		secure("", object("token", token)),
		secure("", "token="+token),
		secure("?token="+token, object("token", token), "x-access-token", token),
		secure("?token=nonsense", "", "x-access-token", token), // an invalid token is ignored beside a valid one
	} {
		p.expect(a, 200, securedAda)
		require.Equal(t, "no-store", a.header.Get("Cache-Control"))
		require.Equal(t, "no-referrer", a.header.Get("Referrer-Policy"))
	}
	for _, a := range []response{
		secure("", "", "x-access-token", "nonsense"),
		secure("?token=nonsense", ""),
		secure("", object("token", "nonsense")),
	} {
		p.expect(a, 401, unauthorized)
	}
	for _, a := range []response{
		secure("", ""),
		secure("?token=", ""),
		secure("", `{}`),
		secure("", "", "Authorization", "Bearer "+token), // not a place that the API reads
		secure("", "", "Cookie", "accessToken="+token),
	} {
		p.expect(a, 403, noToken)
	}
	for _, a := range []response{
		secure("?token="+other, "", "x-access-token", token),
		secure("", object("token", "another"), "x-access-token", token),
		secure("?token="+token, object("token", "another")),
		secure("?token="+token+"&token=another", ""),
		secure("?token="+token+"&token=another", object("token", token)),
	} {
		require.Equal(t, 400, a.status, a.body)
	}
	require.Equal(t, 415, secure("", token, "Content-Type", "text/plain").status)
	require.Equal(t, 413, secure("", "token="+strings.Repeat("x", 16<<10)).status)
	require.Equal(t, 405, p.do(p.http, "POST", "/api/secure", "").status)

	p.clock.advance(900 * time.Second)
	p.expect(secure("", "", "x-access-token", token), 401, unauthorized)
}

func TestBodies_QueryIsOptIn(t *testing.T) {
	t.Parallel()
	p := start(t, func(_ *cookieConfig, two *bodyConfig) { two.queryToken = false })
	token, _ := p.loginByBody()
	p.expect(p.do(p.http, "GET", "/api/secure?token="+token, ""), 403, noToken)
	p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", token), 200, securedAda)
}

func TestBodies_TokenRotates(t *testing.T) {
	t.Parallel()
	p := start(t)
	token, refresh := p.loginByBody()
	a := p.do(p.http, "POST", "/api/token", object("refreshToken", refresh))
	newToken, next := a.field(t, "token"), a.field(t, "refreshToken")
	p.expect(a, 200, fmt.Sprintf(`{"token":%q,"refreshToken":%q}`, newToken, next))
	require.NotEqual(t, token, newToken)
	require.NotEqual(t, refresh, next)
	require.Equal(t, 900.0, lifetime(t, newToken))
	p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", newToken), 200, securedAda)

	form := p.do(p.http, "POST", "/api/token", "refreshToken="+next)
	require.Equal(t, next, form.field(t, "refreshToken"), "in the cooldown the refresh token stays the same")
}

func TestBodies_UnknownRefreshToken(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, refresh := p.loginByBody()
	for _, body := range []string{"", `{}`, object("refreshToken", "nonsense"), object("refreshToken", refresh+"x"), "refreshToken=nonsense"} {
		p.expect(p.do(p.http, "POST", "/api/token", body), 404, unknown)
	}
	p.expect(p.do(p.http, "POST", "/api/token?refreshToken="+refresh, ""), 404, unknown)
	require.Equal(t, 415, p.do(p.http, "POST", "/api/token", refresh, "Content-Type", "text/plain").status)
	p.clock.advance(24 * time.Hour)
	p.expect(p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)), 404, unknown)
}

func TestBodies_SpentRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, old := p.loginByBody()
	a := p.do(p.http, "POST", "/api/token", object("refreshToken", old))
	token, next := a.field(t, "token"), a.field(t, "refreshToken")
	p.clock.advance(11 * time.Second)
	p.expect(p.do(p.http, "POST", "/api/token", object("refreshToken", old)), 404, unknown)
	p.expect(p.do(p.http, "POST", "/api/token", object("refreshToken", next)), 404, unknown)
	p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", token), 401, unauthorized)
}

func TestBodies_LogoutEndsBothTokensAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, logout := range []func(token, refresh string) response{
		func(token, _ string) response {
			return p.do(p.http, "POST", "/api/logout", "", "x-access-token", token)
		},
		func(token, _ string) response { return p.do(p.http, "POST", "/api/logout", object("token", token)) },
		func(_, refresh string) response {
			return p.do(p.http, "POST", "/api/logout", object("refreshToken", refresh))
		},
	} {
		token, refresh := p.loginByBody()
		p.expect(logout(token, refresh), 204, "")
		p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", token), 401, unauthorized)
		p.expect(p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)), 404, unknown)
		p.expect(logout(token, refresh), 204, "") // a second logout succeeds too
	}
}

func TestBodies_LoginLastsADay(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, refresh := p.loginByBody()
	for range 23 {
		p.clock.advance(time.Hour)
		refresh = p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)).field(t, "refreshToken")
	}
	p.clock.advance(time.Hour)
	p.expect(p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)), 404, unknown)
}

func TestBodies_StoreIsBounded(t *testing.T) {
	t.Parallel()
	p := start(t)
	token, refresh := p.loginByBody()
	for range 50 {
		p.clock.advance(10 * time.Minute)
		a := p.do(p.http, "POST", "/api/token", object("refreshToken", refresh))
		token, refresh = a.field(t, "token"), a.field(t, "refreshToken")
	}
	sessions := func() int {
		return countSessions(t, p.do(p.http, "GET", "/api/sessions", "", "x-access-token", token))
	}
	require.Equal(t, 1, sessions())
	for range maxSessions + 5 {
		p.clock.advance(time.Second)
		token, _ = p.loginByBody()
	}
	require.Equal(t, maxSessions, sessions())
	p.clock.advance(24 * time.Hour)
	token, _ = p.loginByBody()
	require.Equal(t, 1, sessions())
}

func TestBodies_RefreshUpdatesClaims(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, refresh := p.loginByBody()
	// The original copied these fields into the new token.
	a := p.do(p.http, "POST", "/api/token", object("refreshToken", refresh, "name", "root", "email", "root@example.com", "role", "root"))
	p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", a.field(t, "token")), 200, securedAda)

	p.users.change("1001", func(a *account) { a.role = "user" })
	a = p.do(p.http, "POST", "/api/token", object("refreshToken", a.field(t, "refreshToken")))
	p.expect(p.do(p.http, "GET", "/api/secure", "", "x-access-token", a.field(t, "token")),
		200, `{"message":"I am secured...","user":{"id":"1001","name":"ada","role":"user"}}`)
}
