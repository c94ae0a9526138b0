// This file tests what the contract with bodies does not say.

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
)

func TestBodies_QueryTokenCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	p := start(t, "-query-token=false")
	token, _ := p.loginByBody()
	p.do("GET", "/api/secure?token="+token, "").is(403, noToken)
	p.secure(token).is(200, secured)
}

func TestBodies_TokenInBodyComesFirst(t *testing.T) {
	t.Parallel()
	p := start(t)
	token, _ := p.loginByBody()
	p.do("POST", "/api/secure", object("token", "nonsense"), "x-access-token", token).is(401, unauthorized)
	p.do("POST", "/api/secure", object("token", token), "x-access-token", "nonsense").is(200, secured)
	for _, headers := range [][]string{{"Authorization", "Bearer " + token}, {"Cookie", "accessToken=" + token}} {
		p.do("GET", "/api/secure", "", headers...).is(403, noToken) // not places of the article
	}
	require.Equal(t, "no-referrer", p.secure(token).header.Get("Referrer-Policy"))
	require.Equal(t, "no-store", p.secure(token).header.Get("Cache-Control"))
}

func TestBodies_SpentRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, old := p.loginByBody()
	a := p.do("POST", "/api/token", object("refreshToken", old))
	p.clock.Advance(31 * time.Second)
	p.do("POST", "/api/token", object("refreshToken", old)).is(404, "Invalid request")
	p.do("POST", "/api/token", object("refreshToken", a.field("refreshToken"))).is(404, "Invalid request")
	p.secure(a.field("token")).is(401, unauthorized)
}

func TestBodies_SessionEndsAfterADay(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, refresh := p.loginByBody()
	for range 23 {
		p.clock.Advance(time.Hour)
		refresh = p.do("POST", "/api/token", object("refreshToken", refresh)).field("refreshToken")
	}
	p.clock.Advance(time.Hour)
	p.do("POST", "/api/token", object("refreshToken", refresh)).is(404, "Invalid request")
}

func TestBodies_OutageEndsNoSession(t *testing.T) {
	t.Parallel()
	p := start(t)
	_, refresh := p.loginByBody()
	p.users.change("1001", func(a *account) { a.email = "\xff" }) // no token can be issued
	a := p.do("POST", "/api/token", object("refreshToken", refresh))
	require.GreaterOrEqual(t, a.status, 500)
	p.users.change("1001", func(a *account) { a.email = "ada@example.com" })
	p.do("POST", "/api/token", object("refreshToken", refresh)).field("token")
}

func TestBodies_SessionsInRedisSurviveARestart(t *testing.T) {
	t.Parallel()
	redis := testserver.Redis(t).Addr
	p := start(t, "-redis", redis)
	require.Eventually(t, func() bool { return p.secure("nonsense").status == 401 }, 10*time.Second, 20*time.Millisecond)
	token, refresh := p.loginByBody()
	p.secure(token).is(200, secured)
	restarted := start(t, "-redis", redis)
	next := restarted.do("POST", "/api/token", object("refreshToken", refresh))
	next.field("refreshToken")
	restarted.do("POST", "/api/logout", "", "x-access-token", next.field("token")).is(204, "")
	p.do("POST", "/api/token", object("refreshToken", refresh)).is(404, "Invalid request")
}
