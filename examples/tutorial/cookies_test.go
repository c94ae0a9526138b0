// This file tests what the contract with cookies does not say.

package main

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestCookies_LoginChecksOrigin(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, headers := range [][]string{
		{"Origin", "https://elsewhere.example"},
		{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"},
		{"Origin", "http://localhost:3001", "Sec-Fetch-Site", "same-site"},
		{"Origin", "null"},
	} {
		a := p.do("POST", loginPath, adaByName, headers...)
		require.Equal(t, 403, a.status)
		require.Empty(t, a.cookies)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	a := p.do("POST", loginPath, adaByName, "Origin", page, "Sec-Fetch-Site", "same-site")
	require.Len(t, a.cookies, 3)
	require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"))
}

func TestCookies_RefreshAndLogoutCheckOrigin(t *testing.T) {
	t.Parallel()
	p := start(t)
	login := p.loginByCookie()
	refresh := login.cookie("refreshToken")
	for _, headers := range [][]string{
		{"Cookie", "refreshToken=" + refresh},
		{"refresh-token", refresh}, // the response would set cookies
	} {
		a := p.do("POST", refreshPath, "", append(headers, "Origin", "https://elsewhere.example")...)
		require.Equal(t, 403, a.status)
		require.Empty(t, a.cookies)
		require.Contains(t, a.body, "origin")
	}
	require.Equal(t, 403, p.do("POST", "/api/v1/auth/logout", "", "Origin", "https://elsewhere.example", "Cookie", "refreshToken="+refresh).status)
	require.Equal(t, 200, p.me(login.cookie("accessToken")).status, "the session must not have ended")
}

// Otherwise a script of the page could read the tokens despite HttpOnly.
func TestCookies_RefreshNeverReturnsTheTokensOfACookieInTheBody(t *testing.T) {
	t.Parallel()
	p := start(t)
	refresh := p.loginByCookie().cookie("refreshToken")
	for _, headers := range [][]string{
		{"Cookie", "refreshToken=" + refresh},
		{"Cookie", "refreshToken=" + refresh, "refresh-token", refresh},
		{"Cookie", "refreshToken=" + refresh, "refresh-token", "nonsense"},
	} {
		a := p.do("POST", refreshPath, object("delivery", "body"), headers...)
		a.is(200, refreshed)
		require.NotEmpty(t, a.cookies)
	}
}

func TestCookies_PreflightNeedsNoToken(t *testing.T) {
	t.Parallel()
	p := start(t)
	a := p.do("OPTIONS", "/api/v1/user/me", "", "Origin", page, "Access-Control-Request-Method", "GET")
	require.Equal(t, 204, a.status)
	require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	a = p.do("OPTIONS", "/api/v1/user/me", "", "Origin", "https://elsewhere.example", "Access-Control-Request-Method", "GET")
	require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
}

func TestCookies_SpentRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	login := p.loginByCookie()
	old := login.cookie("refreshToken")
	next := p.refreshByHeader(old).cookie("refreshToken")
	p.clock.Advance(30 * time.Second)
	require.Equal(t, next, p.refreshByHeader(old).cookie("refreshToken"), "a retry must return the same next token")
	p.clock.Advance(time.Second)
	p.refreshByHeader(old).is(403, `{"error":"Invalid refresh token"}`)
	p.refreshByHeader(next).is(403, `{"error":"Invalid refresh token"}`)
	require.Equal(t, 401, p.me(login.cookie("accessToken")).status)
}

func TestCookies_SessionEndsAfter7Days(t *testing.T) {
	t.Parallel()
	p := start(t)
	token := p.loginByCookie().cookie("refreshToken")
	for range 6 {
		p.clock.Advance(24 * time.Hour)
		token = p.refreshByHeader(token).cookie("refreshToken")
	}
	p.clock.Advance(24 * time.Hour)
	p.refreshByHeader(token).is(403, `{"error":"Invalid refresh token"}`)
}

func TestCookies_FaultEndsNoSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	refresh := p.loginByCookie().cookie("refreshToken")
	p.users.change("1001", func(a *account) { a.name = "\xff" }) // no token can be issued
	p.refreshByHeader(refresh).is(500, `{"error":"Internal server error"}`)
	p.users.change("1001", func(a *account) { a.name = "ada" })
	require.Equal(t, 200, p.refreshByHeader(refresh).status)

	w := httptest.NewRecorder()
	cookieError(w, nil, auth.ErrUnavailable)
	require.Equal(t, 500, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"), "of an outage")
}
