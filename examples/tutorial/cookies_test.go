package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (p *program) loginByCookie(c *http.Client) response {
	p.t.Helper()
	a := p.do(c, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword), "Origin", page)
	p.expect(a, 200, `{"message":"Logged in."}`)
	return a
}

func TestCookies_LoginSetsCookies(t *testing.T) {
	t.Parallel()
	for _, login := range []string{"ada", "ada@example.com"} {
		for _, body := range []string{
			object("login_id", login, "password", demoPassword),
			"login_id=" + login + "&password=" + strings.ReplaceAll(demoPassword, " ", "+"),
			object("login_id", login, "password", demoPassword, "delivery", "cookie"),
		} {
			p := start(t)
			a := p.do(p.http, "POST", "/api/v1/auth/login", body)
			p.expect(a, 200, `{"message":"Logged in."}`)
			require.Equal(t, "no-store", a.header.Get("Cache-Control"))
			require.Len(t, a.cookies, 2)
			for _, name := range []string{"accessToken", "refreshToken"} {
				c := a.cookie(name)
				require.NotNil(t, c)
				require.True(t, c.Secure)
				require.True(t, c.HttpOnly)
				require.Equal(t, http.SameSiteNoneMode, c.SameSite)
				require.Equal(t, "/", c.Path)
				require.Empty(t, c.Domain)
			}
			require.Equal(t, 900.0, lifetime(t, a.cookie("accessToken").Value))
			require.Equal(t, 7*86400.0, lifetime(t, a.cookie("refreshToken").Value))
			require.InDelta(t, 7*86400, a.cookie("refreshToken").MaxAge, 1)
		}
	}
}

func TestCookies_LoginWithBodyDeliverySetsNone(t *testing.T) {
	t.Parallel()
	p := start(t)
	a := p.do(p.http, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword, "delivery", "body"))
	access, refresh := a.field(t, "accessToken"), a.field(t, "refreshToken")
	p.expect(a, 200, fmt.Sprintf(`{"message":"Logged in.","accessToken":%q,"refreshToken":%q}`, access, refresh))
	require.Empty(t, a.cookies)
	require.Equal(t, 900.0, lifetime(t, access))
	require.Equal(t, 7*86400.0, lifetime(t, refresh))
	p.expect(p.do(p.http, "GET", "/api/v1/user/me", "", "Authorization", "Bearer "+access), 200, `{"id":"1001","name":"ada","role":"admin"}`)

	a = p.do(p.http, "POST", "/api/v1/auth/refresh", "", "refresh-token", refresh)
	require.Equal(t, "Token refreshed.", a.field(t, "message"))
	require.Equal(t, 900.0, lifetime(t, a.field(t, "accessToken")))
	require.NotEqual(t, refresh, a.field(t, "refreshToken"))
	require.Empty(t, a.cookies)
}

func TestCookies_LoginRefusals(t *testing.T) {
	t.Parallel()
	p := start(t)
	do := func(body string, headers ...string) response {
		return p.do(p.http, "POST", "/api/v1/auth/login", body, headers...)
	}
	missing := `{"message":"login_id and password are required."}`
	p.expect(do(""), 400, missing)
	p.expect(do(object("login_id", "ada")), 400, missing)
	p.expect(do(object("password", "x")), 400, missing)
	p.expect(do(`{"login_id":"ada","password":1}`), 400, `{"message":"Bad Request"}`)
	p.expect(do(object("login_id", "ada", "password", demoPassword, "delivery", "pigeon")), 400, missing)
	p.expect(do(`{"login_id":"ada"`), 400, `{"message":"Bad Request"}`)
	p.expect(do(object("login_id", "ada", "password", demoPassword), "Content-Type", "text/plain"), 415, `{"message":"Unsupported Media Type"}`)
	p.expect(do(object("login_id", "ada", "password", strings.Repeat("x", 16<<10))), 413, `{"message":"Request Entity Too Large"}`)
	require.Equal(t, 405, p.do(p.http, "GET", "/api/v1/auth/login", "").status)
}

func TestCookies_UnknownUserAndWrongPasswordAreEqual(t *testing.T) {
	t.Parallel()
	p := start(t)
	unknown := p.do(p.http, "POST", "/api/v1/auth/login", object("login_id", "nobody", "password", demoPassword))
	wrong := p.do(p.http, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", "wrong"))
	p.expect(unknown, 401, `{"message":"Invalid login or password."}`)
	unknown.header.Del("Date")
	wrong.header.Del("Date")
	require.Equal(t, unknown, wrong)
}

func TestCookies_LoginChecksOrigin(t *testing.T) {
	t.Parallel()
	p := start(t)
	body := object("login_id", "ada", "password", demoPassword)
	for _, headers := range [][]string{
		{"Origin", "https://elsewhere.example"},
		{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"},
		{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "same-site"},
		{"Origin", "null"},
	} {
		a := p.do(p.http, "POST", "/api/v1/auth/login", body, headers...)
		p.expect(a, 403, `{"message":"Origin not allowed."}`)
		require.Empty(t, a.cookies)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	a := p.do(p.http, "POST", "/api/v1/auth/login", body, "Origin", page, "Sec-Fetch-Site", "cross-site")
	p.expect(a, 200, `{"message":"Logged in."}`)
	require.Len(t, a.cookies, 2)
	require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"))
}

func TestCookies_RefreshAndLogoutCheckOrigin(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	p.loginByCookie(browser)
	for _, path := range []string{"/api/v1/auth/refresh", "/api/v1/auth/logout"} {
		a := p.do(browser, "POST", path, "", "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
		p.expect(a, 403, `{"message":"Origin not allowed."}`)
		require.Empty(t, a.cookies)
	}
	require.Equal(t, 200, p.do(browser, "GET", "/api/v1/user/me", "").status, "the session must not have ended")
	require.Equal(t, 200, p.do(browser, "POST", "/api/v1/auth/refresh", "", "Origin", page, "Sec-Fetch-Site", "cross-site").status)
}

func TestCookies_PreflightNeedsNoToken(t *testing.T) {
	t.Parallel()
	p := start(t)
	a := p.do(p.http, "OPTIONS", "/api/v1/user/me", "", "Origin", page, "Access-Control-Request-Method", "GET")
	require.Equal(t, 204, a.status)
	require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	a = p.do(p.http, "OPTIONS", "/api/v1/user/me", "", "Origin", "https://elsewhere.example", "Access-Control-Request-Method", "GET")
	require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	require.NotEqual(t, 204, a.status)
}

func TestCookies_ProtectedHasIDNameAndRole(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	a := p.loginByCookie(browser)
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 200, `{"id":"1001","name":"ada","role":"admin"}`)
	claims := payload(t, a.cookie("accessToken").Value)
	require.Equal(t, "1001", claims["sub"])
	require.Equal(t, "ada", claims["username"])
	require.Equal(t, "admin", claims["role"])

	none := p.do(p.http, "GET", "/api/v1/user/me", "")
	p.expect(none, 401, `{"message":"No token provided."}`)
	require.Equal(t, "Bearer", none.header.Get("WWW-Authenticate"))
	p.expect(p.do(p.http, "GET", "/api/v1/user/me", "", "Authorization", "Bearer nonsense"), 401, `{"message":"Invalid token."}`)
	p.clock.advance(15*time.Minute - time.Second)
	require.Equal(t, 200, p.do(browser, "GET", "/api/v1/user/me", "").status)
	p.clock.advance(time.Second)
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 401, `{"message":"Token expired."}`)
}

func TestCookies_RefreshByCookie(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	login := p.loginByCookie(browser)

	a := p.do(browser, "POST", "/api/v1/auth/refresh", "")
	p.expect(a, 200, `{"message":"Token refreshed."}`)
	require.Equal(t, 900.0, lifetime(t, a.cookie("accessToken").Value))
	require.NotEqual(t, login.cookie("accessToken").Value, a.cookie("accessToken").Value)
	require.NotEqual(t, login.cookie("refreshToken").Value, a.cookie("refreshToken").Value)
	for _, c := range a.cookies {
		require.True(t, c.Secure && c.HttpOnly && c.SameSite == http.SameSiteNoneMode)
	}

	// In the cooldown: a new access token, and no refresh cookie.
	p.clock.advance(20 * time.Second)
	cooldown := p.do(browser, "POST", "/api/v1/auth/refresh", "")
	p.expect(cooldown, 200, `{"message":"Token refreshed."}`)
	require.NotNil(t, cooldown.cookie("accessToken"))
	require.Nil(t, cooldown.cookie("refreshToken"))

	p.clock.advance(11 * time.Second)
	rotated := p.do(browser, "POST", "/api/v1/auth/refresh", "")
	require.NotNil(t, rotated.cookie("refreshToken"))
	require.NotEqual(t, a.cookie("refreshToken").Value, rotated.cookie("refreshToken").Value)
}

func TestCookies_RefreshRefusals(t *testing.T) {
	t.Parallel()
	p := start(t)
	none := p.do(p.http, "POST", "/api/v1/auth/refresh", "")
	p.expect(none, 400, `{"message":"No refresh token provided."}`)
	for _, headers := range [][]string{
		{"refresh-token", "nonsense"},
		{"Cookie", "refreshToken=nonsense"},
	} {
		bad := p.do(p.http, "POST", "/api/v1/auth/refresh", "", headers...)
		p.expect(bad, 403, `{"message":"Invalid refresh token."}`)
		require.Empty(t, bad.cookies)
	}
	a := p.loginByCookie(p.http)
	token := a.cookie("refreshToken").Value
	p.expect(p.do(p.http, "POST", "/api/v1/auth/refresh?refreshToken="+token+"&refresh_token="+token, ""),
		400, `{"message":"No refresh token provided."}`)
	another := p.loginByCookie(p.http).cookie("refreshToken").Value
	differ := p.do(p.http, "POST", "/api/v1/auth/refresh", "", "Cookie", "refreshToken="+token, "refresh-token", another)
	require.Equal(t, 400, differ.status)
	p.clock.advance(7 * 24 * time.Hour)
	p.expect(p.do(p.http, "POST", "/api/v1/auth/refresh", "", "refresh-token", token), 403, `{"message":"Invalid refresh token."}`)
}

func TestCookies_SpentRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	old := p.loginByCookie(browser).cookie("refreshToken").Value
	next := p.do(browser, "POST", "/api/v1/auth/refresh", "").cookie("refreshToken").Value
	refresh := func(token string) response {
		return p.do(p.http, "POST", "/api/v1/auth/refresh", "", "refresh-token", token)
	}

	p.clock.advance(10 * time.Second)
	again := refresh(old)
	require.Equal(t, 200, again.status, "within the retry window")
	require.Equal(t, next, again.field(t, "refreshToken"), "a retry must return the same successor")

	p.clock.advance(time.Second)
	p.expect(refresh(old), 403, `{"message":"Invalid refresh token."}`)
	p.expect(refresh(next), 403, `{"message":"Invalid refresh token."}`)
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 401, `{"message":"Invalid token."}`)
}

func TestCookies_LogoutEndsBothTokensAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	a := p.loginByCookie(browser)
	access, refresh := a.cookie("accessToken").Value, a.cookie("refreshToken").Value

	out := p.do(browser, "POST", "/api/v1/auth/logout", "", "Origin", page)
	p.expect(out, 204, "")
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 401, `{"message":"No token provided."}`) // the logout has cleared the cookies
	p.expect(p.do(p.http, "GET", "/api/v1/user/me", "", "Authorization", "Bearer "+access), 401, `{"message":"Invalid token."}`)
	p.expect(p.do(p.http, "POST", "/api/v1/auth/refresh", "", "refresh-token", refresh), 403, `{"message":"Invalid refresh token."}`)
}

func TestCookies_RefreshesAddNothingToTheStore(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	p.loginByCookie(browser)
	for range 50 {
		p.clock.advance(10 * time.Minute)
		require.NotNil(t, p.do(browser, "POST", "/api/v1/auth/refresh", "").cookie("refreshToken"))
	}
	require.Equal(t, 1, countSessions(t, p.do(browser, "GET", "/api/v1/user/sessions", "")))
	// A login in the same browser replaces its session.
	p.loginByCookie(browser)
	require.Equal(t, 1, countSessions(t, p.do(browser, "GET", "/api/v1/user/sessions", "")))
}

func TestCookies_SessionEndsAfter30Days(t *testing.T) {
	t.Parallel()
	p := start(t)
	token := p.loginByCookie(p.http).cookie("refreshToken").Value
	days := 0
	for ; days < 40; days++ {
		a := p.do(p.http, "POST", "/api/v1/auth/refresh", "", "refresh-token", token)
		if a.status != 200 {
			p.expect(a, 403, `{"message":"Invalid refresh token."}`)
			break
		}
		token = a.field(t, "refreshToken")
		p.clock.advance(24 * time.Hour)
	}
	require.Equal(t, 30, days)
}

func TestCookies_RefreshUpdatesClaims(t *testing.T) {
	t.Parallel()
	p := start(t)
	browser := p.browser()
	p.loginByCookie(browser)
	require.Equal(t, 200, p.do(browser, "POST", "/api/v1/auth/refresh", "").status)
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 200, `{"id":"1001","name":"ada","role":"admin"}`)

	p.users.change("1001", func(a *account) { a.role = "user" })
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 200, `{"id":"1001","name":"ada","role":"admin"}`)
	a := p.do(browser, "POST", "/api/v1/auth/refresh", "")
	require.Equal(t, []any{"user"}, payload(t, a.cookie("accessToken").Value)["roles"])
	p.expect(p.do(browser, "GET", "/api/v1/user/me", ""), 200, `{"id":"1001","name":"ada","role":"user"}`)
}

func TestCookies_UserEndsAnotherSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	lost, here := p.browser(), p.browser()
	lostLogin := p.loginByCookie(lost)
	p.loginByCookie(here)
	require.Equal(t, 2, countSessions(t, p.do(here, "GET", "/api/v1/user/sessions", "")))
	id, _ := payload(t, lostLogin.cookie("accessToken").Value)["sid"].(string)
	require.Equal(t, 204, p.do(here, "DELETE", "/api/v1/user/sessions/"+id, "", "Origin", page).status)
	require.Equal(t, 401, p.do(lost, "GET", "/api/v1/user/me", "").status)
	require.Equal(t, 403, p.do(lost, "POST", "/api/v1/auth/refresh", "").status)
	require.Equal(t, 200, p.do(here, "GET", "/api/v1/user/me", "").status)
}
