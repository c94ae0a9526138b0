package auth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func autoRefresh(c *auth.Config) { c.Cookies, c.AutoRefresh = &auth.Cookies{}, true }

// page is a server-rendered page. It writes the URL that was requested.
var page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, ok := auth.FromContext(r.Context())
	_, _ = fmt.Fprintf(w, "%v %s", ok, r.RequestURI)
	if ok && c.Subject == "" {
		_, _ = io.WriteString(w, " nobody")
	}
})

func TestAutoRefresh_RedirectsAPageLoadToItself(t *testing.T) {
	t.Parallel()
	for _, auto := range []func(*fixture) http.Handler{
		func(fx *fixture) http.Handler { return fx.Require()(page) },
		func(fx *fixture) http.Handler { return fx.Optional(page) },
	} {
		fx := newFixture(t, autoRefresh)
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
		mux.Handle("/app/", http.StripPrefix("/app", auto(fx)))
		mux.Handle("/", auto(fx))
		// Without a mux, nothing cleans the path.
		s := newBrowserClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/auth/") || strings.HasPrefix(r.URL.Path, "/app/") {
				mux.ServeHTTP(w, r)
				return
			}
			auto(fx).ServeHTTP(w, r)
		}))
		require.Equal(t, 200, s.do("POST", "/auth/login", reqJSON(goodLogin)).status)
		follow := s.client.CheckRedirect
		for _, path := range []string{
			"/", "/me", "/me?a=b&c=d%20e", "/app/", "/app/x", "/app/x/y?z=1", "/app/x/", "/a:b", "/app/a:b?x=/y", "/a/https:evil.example",
			"//evil.example/", "//evil.example/x", "/a//b", "/a%2Fb", "/a%2F..%2Fb", "/app/a%2Fb/c%2Fd", "/%5C%5Cevil.example", "/a/%5Cevil.example",
			"/%2F%2Fevil.example", "/me?next=https://evil.example/", "/me?x=//evil", "/ä/ö", "/a%3Fb", "/a%23b", "/a/b;c=d", "/a%20b", "/@evil.example", "/a+b",
			"/a?x?y", "/a%0d%0aSet-Cookie:x", "/~a", "/a/...",
		} {
			fx.clock.advance(time.Hour)
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

			// The browser has the new cookies. A real client follows the
			// redirect itself.
			fx.clock.advance(time.Hour)
			s.client.CheckRedirect = follow
			r = s.do("GET", path)
			require.Equal(t, 200, r.status, path)
			require.Equal(t, "true "+base.RequestURI(), r.body)
		}
	}
}

func TestAutoRefresh_AbsentAccessCookieAndHEAD(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	for _, h := range []http.Handler{fx.Require()(page), fx.Optional(page)} {
		for _, method := range []string{"GET", "HEAD"} {
			r := send(t, h, method, "/me", reqCookie(refreshCookie, fx.login(t).Refresh))
			require.Equal(t, http.StatusTemporaryRedirect, r.status)
			require.Equal(t, "./me", r.header.Get("Location"))
			require.Len(t, r.cookies, 2)
			require.Empty(t, r.body)
		}
	}
}

func TestAutoRefresh_InCooldownSetsOnlyTheAccessCookie(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k, err := fx.Refresh(context.Background(), fx.login(t).Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	r := send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	require.Len(t, r.cookies, 1)
	require.Contains(t, r.cookies, accessCookie)
}

func TestAutoRefresh_NotForWritesUpgradesAndPrograms(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.advance(time.Hour)
	refresh := reqCookie(refreshCookie, k.Refresh)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		send(t, fx.Require()(page), method, "/me", refresh).requireRefused(t, 401, "missing_token", "login")
		send(t, fx.Require()(page), method, "/me", refresh, reqCookie(accessCookie, k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
		require.Equal(t, "false /me", send(t, fx.Optional(page), method, "/me", refresh).body)
	}
	upgrade := []requestOption{refresh, reqHeader("Upgrade", "websocket"), reqHeader("Connection", "Upgrade")}
	send(t, fx.Require()(page), "GET", "/me", upgrade...).requireRefused(t, 401, "missing_token", "login")
	send(t, fx.Require()(page), "GET", "/me", refresh, reqBearer(k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	send(
		t, fx.Require()(page), "GET", "/me", refresh, reqBearer(k.Access), reqCookie(accessCookie, k.Access),
	).requireRefused(t, 401, "invalid_token", "refresh")
	send(t, fx.Optional(page), "GET", "/me", refresh, reqBearer(k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	// A refresh would not help here either.
	send(t, fx.Require()(page), "GET", "/me", refresh, reqBearer("garbage")).requireRefused(t, 401, "invalid_token", "login")
	send(t, fx.Require()(page), "GET", "/me", refresh, reqCookie(accessCookie, "garbage")).requireRefused(t, 401, "invalid_token", "login")
	require.Zero(t, fx.store.count("Rotate"))
	require.Equal(t, 200, send(t, fx.Require()(page), "GET", "/me", refresh, reqBearer(fx.login(t).Access)).status)
	send(
		t, fx.Require(auth.Role("root"))(page), "GET", "/me", refresh, reqCookie(accessCookie, fx.login(t).Access),
	).requireRefused(t, 403, "insufficient_scope", "")
	require.Zero(t, fx.store.count("Rotate"))
	// The embedded Verifier redirects as well.
	require.Equal(t, http.StatusTemporaryRedirect, send(t, fx.Verifier.Require()(page), "GET", "/me", refresh).status)
	// Without Config.AutoRefresh there is no redirect.
	off := newFixture(t, withCookies())
	send(t, off.Require()(page), "GET", "/me", reqCookie(refreshCookie, off.login(t).Refresh)).requireRefused(t, 401, "missing_token", "login")
}

func TestAutoRefresh_IgnoresAnUnreadableHeaderBesideACookie(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	for _, h := range []http.Handler{fx.Require()(page), fx.Optional(page)} {
		for _, header := range []string{"Bearer", "Bearer ", "Bearer a b"} {
			k := fx.login(t)
			old := reqCookie(accessCookie, k.Access)
			fx.clock.advance(time.Hour)
			for _, options := range [][]requestOption{nil, {old}} {
				r := send(t, h, "GET", "/me", append(options, reqCookie(refreshCookie, k.Refresh), reqHeader("Authorization", header))...)
				require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
			}
			send(t, h, "GET", "/me", reqHeader("Authorization", header)).requireRefused(t, 400, "invalid_request", "")
		}
	}
	// An old link is ignored too, whichever session its token belongs to.
	linked := newFixture(t, autoRefresh, withExtractors(auth.FromBearer(), auth.FromQuery("t"), auth.FromCookie()))
	bob, err := linked.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	l := linked.login(t)
	linked.clock.advance(time.Hour)
	for _, token := range []string{l.Access, bob.Access} {
		for _, h := range []http.Handler{linked.Require()(page), linked.Optional(page)} {
			for _, options := range [][]requestOption{nil, {reqCookie(accessCookie, l.Access)}} {
				r := send(t, h, "GET", "/me?t="+token, append(options, reqCookie(refreshCookie, l.Refresh))...)
				require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
				// The page is redirected to itself and then has the new
				// cookies.
				r = send(t, h, "GET", "/me?t="+token, reqCookie(accessCookie, r.cookies[accessCookie].Value))
				require.Equal(t, "true /me?t="+token, r.body)
			}
		}
	}
	// An invalid one among several refresh cookies is ignored too.
	dead, k := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1", dead.SessionID))
	fx.clock.advance(25 * time.Hour) // the revocation is no longer in memory
	r := send(t, fx.Require()(page), "GET", "/me", reqCookies(refreshCookie, dead.Refresh, "junk", k.Refresh))
	require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
	fx.store.failBefore("Get", errStore)
	for _, h := range []http.Handler{fx.Require()(page), fx.Optional(page)} {
		send(t, h, "GET", "/me", reqCookies(refreshCookie, dead.Refresh, k.Refresh)).requireRefused(t, 503, "temporarily_unavailable", "")
	}
}

func TestAutoRefresh_RefusedRefreshIsTheOrdinary401(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	_, err := fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.clock.advance(time.Minute)
	r := send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh)) // spent
	r.requireRefused(t, 401, "invalid_token", "login")
	require.Contains(t, r.header.Get("Www-Authenticate"), `error="invalid_token"`)
	for _, value := range []string{k.Refresh, "garbage", k.Access} {
		r := send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, value))
		r.requireRefused(t, 401, "invalid_token", "login")
		r = send(t, fx.Optional(page), "GET", "/me", reqCookie(refreshCookie, value))
		require.Equal(t, "false /me", r.body)
		require.NotContains(t, r.header, "Set-Cookie")
	}
	var reason error
	h := fx.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reason = auth.ErrorFromContext(r.Context()) }))
	send(t, h, "GET", "/me", reqCookie(refreshCookie, k.Refresh))
	require.ErrorIs(t, reason, auth.ErrSessionRevoked)
	k = fx.login(t)
	fx.clock.advance(time.Hour)
	send(t, h, "GET", "/me", reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, "garbage"))
	require.ErrorIs(t, reason, auth.ErrInvalidToken)
	send(t, h, "GET", "/me", reqCookie(accessCookie, k.Access))
	require.ErrorIs(t, reason, auth.ErrTokenExpired)
}

func TestAutoRefresh_OutageIs503(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.store.failBefore("Rotate", errStore)
	for _, h := range []http.Handler{fx.Require()(page), fx.Optional(page)} {
		send(t, h, "GET", "/me", reqCookie(refreshCookie, k.Refresh)).requireRefused(t, 503, "temporarily_unavailable", "")
	}
	fx.store.failBefore("Rotate", nil)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", 4000)} })
	send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh)).requireRefused(t, 500, "token_too_large", "")
	require.EqualValues(t, 1, fx.generation(t, "u1", k.SessionID))
}

func TestAutoRefresh_ParallelRequestsRotateOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
	mux.Handle("/", fx.Require()(page))
	s := newBrowserClient(t, mux)
	id := s.do("POST", "/auth/login", reqJSON(goodLogin)).fields(t)["session_id"].(string)
	for round := range 5 {
		fx.clock.advance(time.Hour)
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
		require.EqualValues(t, round+2, fx.generation(t, "u1", id))
	}
	require.Empty(t, fx.events.take(auth.EventReuse))
}

func TestAutoRefresh_RenewsAccessThatWasExpired(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	require.NoError(t, fx.ExpireAccess(context.Background(), "u1"))
	r := send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh), reqCookie(accessCookie, k.Access))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	r = send(t, fx.Require()(page), "GET", "/me", reqCookie(accessCookie, r.cookies[accessCookie].Value))
	require.Equal(t, 200, r.status, "no redirect loop")
}

func TestAutoRefresh_NeedsTheCookieToBeRead(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &auth.Cookies{},
		AutoRefresh: true, Extractors: []auth.Extractor{auth.FromBearer()},
	})
	require.ErrorContains(t, err, "auth: Config.AutoRefresh")
}

func TestAutoRefresh_WorksUnderAStrippedPrefix(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	h := fx.Require()(page)
	mux := http.NewServeMux()
	mux.Handle("/app", http.StripPrefix("/app", h))
	mux.Handle("/doc/{x}", http.StripPrefix("/doc/a", h))
	mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
	s := newBrowserClient(t, mux)
	require.Equal(t, 200, s.do("POST", "/auth/login", reqJSON(goodLogin)).status)
	for _, path := range []string{"/app", "/app?x=1", "/doc/abc"} {
		fx.clock.advance(time.Hour)
		r := s.do("GET", path)
		require.Equal(t, 200, r.status, path)
		require.Equal(t, "true "+path, r.body)
	}
}

func TestAutoRefresh_ExpiredRefreshTokenAsksForALogin(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.advance(8 * 24 * time.Hour)
	send(t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh)).requireRefused(t, 401, "invalid_token", "login")
	send(
		t, fx.Require()(page), "GET", "/me", reqCookie(refreshCookie, k.Refresh), reqCookie(accessCookie, k.Access),
	).requireRefused(t, 401, "invalid_token", "login")
}

func TestAutoRefresh_IsRefusedWhereItCannotWork(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]*auth.Cookies{
		"Config.AutoRefresh requires Config.Cookies": nil,
	} {
		_, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: c, AutoRefresh: true,
		})
		require.ErrorContains(t, err, want)
	}
}
