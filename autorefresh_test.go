package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
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
			fx.clock.Advance(time.Hour)
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
			fx.clock.Advance(time.Hour)
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

func TestAutoRefresh_NotForUpgradesAndPrograms(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	refresh := reqCookie(refreshCookie, k.Refresh)
	send(t, fx.Require()(page), "OPTIONS", "/me", refresh).requireRefused(t, 401, "missing_token", "login")
	send(t, fx.Require()(page), "OPTIONS", "/me", refresh, reqCookie(accessCookie, k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	require.Equal(t, "false /me", send(t, fx.Optional(page), "OPTIONS", "/me", refresh).body)
	for _, method := range []string{"POST", "DELETE"} {
		send(t, fx.Require()(page), method, "/me", refresh, reqBearer(k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
		send(t, fx.Require()(page), method, "/me", refresh, reqCookie(accessCookie, "garbage")).requireRefused(t, 401, "invalid_token", "login")
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
			fx.clock.Advance(time.Hour)
			for i, options := range [][]requestOption{nil, {old}} {
				r := send(t, h, "GET", fmt.Sprint("/", i), append(options, reqCookie(refreshCookie, k.Refresh), reqHeader("Authorization", header))...)
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
	linked.clock.Advance(time.Hour)
	n := 0
	for _, token := range []string{l.Access, bob.Access} {
		for _, h := range []http.Handler{linked.Require()(page), linked.Optional(page)} {
			for _, options := range [][]requestOption{nil, {reqCookie(accessCookie, l.Access)}} {
				n++
				path := fmt.Sprintf("/%d?t=%s", n, token)
				r := send(t, h, "GET", path, append(options, reqCookie(refreshCookie, l.Refresh))...)
				require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
				// The page is redirected to itself and then has the new
				// cookies.
				r = send(t, h, "GET", path, reqCookie(accessCookie, r.cookies[accessCookie].Value))
				require.Equal(t, "true "+path, r.body)
			}
		}
	}
	// An invalid one among several refresh cookies is ignored too.
	dead, k := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1", dead.SessionID))
	fx.clock.Advance(25 * time.Hour) // the revocation is no longer in memory
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
	fx.clock.Advance(time.Minute)
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
	fx.clock.Advance(time.Hour)
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
		fx.clock.Advance(time.Hour)
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
		fx.clock.Advance(time.Hour)
		r := s.do("GET", path)
		require.Equal(t, 200, r.status, path)
		require.Equal(t, "true "+path, r.body)
	}
}

func TestAutoRefresh_ExpiredRefreshTokenAsksForALogin(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(8 * 24 * time.Hour)
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

var writeMethods = []string{"POST", "PUT", "PATCH", "DELETE", "PROPPATCH"}

// write is a handler that writes the body of a form and the access token that it
// finds in the request.
func write(fx *fixture) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		token, byCookie, err2 := fx.AccessToken(r)
		c, err3 := fx.Verify(r.Context(), token)
		own, ok := auth.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "%s %v %v", body, byCookie && ok && c != nil && c.TokenID == own.TokenID, errors.Join(err, err2, err3))
	})
}

func TestAutoRefresh_ServesAWriteWithNewCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	for _, h := range []http.Handler{fx.Require()(write(fx)), fx.Optional(write(fx)), fx.Optional(fx.Require()(write(fx)))} {
		for _, method := range writeMethods {
			k := fx.login(t)
			fx.clock.Advance(time.Hour)
			for _, options := range [][]requestOption{
				{reqCookie(refreshCookie, k.Refresh)}, {reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh)},
				{reqCookie("a", "b"), reqCookies(accessCookie, "junk", k.Access), reqCookies(refreshCookie, "junk", k.Refresh), reqCookie("c", "d")},
			} {
				r := send(t, h, method, "/note", append(options, reqForm("text=typed"))...)
				require.Equal(t, 200, r.status, r.body)
				require.Equal(t, "text=typed true <nil>", r.body)
				require.Equal(t, "no-store", r.header.Get("Cache-Control"))
				require.Len(t, r.cookies, 1, "the refresh token is not spent")
				require.NotEqual(t, k.Access, r.cookies[accessCookie].Value)
				require.Equal(t, 200, send(t, h, method, "/note", reqCookie(accessCookie, r.cookies[accessCookie].Value)).status)
			}
			require.EqualValues(t, 1, fx.generation(t, "u1", k.SessionID))
		}
	}
	require.Empty(t, fx.events.take(auth.EventFault))
}

// TestAutoRefresh_ReadsAnUploadOnce uploads more than the server reads of a body
// that a handler leaves unread.
func TestAutoRefresh_ReadsAnUploadOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
	mux.Handle("POST /upload", fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})))
	s := newBrowserClient(t, mux)
	require.Equal(t, 200, s.do("POST", "/auth/login", reqJSON(goodLogin)).status)
	before := s.cookies("/")
	fx.clock.Advance(time.Hour)
	body := reqBody("application/octet-stream", strings.Repeat("x", 8<<20))
	chunked := func(r *http.Request) { r.ContentLength = -1 }
	require.Equal(t, "8388608 <nil>", s.do("POST", "/upload", body).body)
	require.NotEqual(t, before[accessCookie], s.cookies("/")[accessCookie])
	require.Equal(t, before[refreshCookie], s.cookies("/")[refreshCookie])
	fx.clock.Advance(time.Hour)
	require.Equal(t, "8388608 <nil>", s.do("POST", "/upload", body, chunked, reqHeader("Expect", "100-continue")).body)
	require.EqualValues(t, 2, requests.Load())
}

// TestAutoRefresh_ALateResponseToAWriteSignsNobodyOut has a write whose response
// takes longer than the retry window, or is lost.
func TestAutoRefresh_ALateResponseToAWriteSignsNobodyOut(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	old := reqCookie(refreshCookie, k.Refresh)
	slow := fx.Require()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fx.clock.Advance(10 * time.Minute)
		// Another tab sends requests meanwhile.
		require.Equal(t, 200, send(t, fx.Require()(page), "POST", "/x", old).status)
		require.Equal(t, http.StatusTemporaryRedirect, send(t, fx.Require()(page), "GET", "/x", old).status)
	}))
	r := send(t, slow, "POST", "/upload", old)
	require.Equal(t, 200, r.status)
	require.NotContains(t, r.cookies, refreshCookie)
	require.Empty(t, fx.events.take(auth.EventReuse))
	require.EqualValues(t, 2, fx.generation(t, "u1", k.SessionID))
}

func TestAutoRefresh_AWriteRotatesAfterHalfOfTheIdleLifetime(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	h := fx.Require()(page)
	refresh := k.Refresh
	for generation := range 4 {
		fx.clock.Advance(3*24*time.Hour + 11*time.Hour) // IdleTTL is 7 days
		r := send(t, h, "POST", "/note", reqCookie(refreshCookie, refresh))
		require.Equal(t, 200, r.status)
		require.NotContains(t, r.cookies, refreshCookie)
		fx.clock.Advance(2 * time.Hour)
		r = send(t, h, "POST", "/note", reqCookie(refreshCookie, refresh))
		require.Equal(t, 200, r.status)
		require.Contains(t, r.cookies, refreshCookie)
		refresh = r.cookies[refreshCookie].Value
		require.EqualValues(t, generation+2, fx.generation(t, "u1", k.SessionID))
	}
}

// TestAutoRefresh_AccessOfAWriteEndsWithTheSession sends a write at many times of
// the session's life. The session is not extended, so the access token must not
// outlive it.
func TestAutoRefresh_AccessOfAWriteEndsWithTheSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh, func(c *auth.Config) {
		c.IdleTTL, c.AccessTTL, c.RetryWindow = 100*time.Minute, 30*time.Minute, time.Second
	})
	for minute := range 100 {
		k := fx.login(t)
		fx.clock.Advance(time.Duration(minute) * time.Minute)
		r := send(t, fx.Require()(page), "POST", "/note", reqCookie(refreshCookie, k.Refresh))
		require.Equal(t, 200, r.status, minute)
		c, err := fx.Verify(context.Background(), r.cookies[accessCookie].Value)
		require.NoError(t, err)
		s, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
		require.NoError(t, err)
		require.False(t, c.ExpiresAt.After(s.ExpiresAt), "%d: %s %s", minute, c.ExpiresAt, s.ExpiresAt)
		require.False(t, c.SessionExpiresAt.After(s.ExpiresAt), minute)
		require.NoError(t, fx.Revoke(context.Background(), "u1", k.SessionID))
	}
}

func TestAutoRefresh_AWriteWithASpentTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	first, second := fx.refreshed(t)
	r := send(t, fx.Require()(page), "POST", "/note", reqCookie(refreshCookie, first.Refresh))
	require.Equal(t, 200, r.status)
	require.Equal(t, second.Refresh, r.cookies[refreshCookie].Value, "a retry returns the next token")
	fx.clock.Advance(time.Minute)
	send(t, fx.Require()(page), "POST", "/note", reqCookie(refreshCookie, first.Refresh)).requireRefused(t, 401, "invalid_token", "login")
	require.Len(t, fx.events.take(auth.EventReuse), 1)
	send(t, fx.Require()(page), "POST", "/note", reqCookie(refreshCookie, second.Refresh)).requireRefused(t, 401, "invalid_token", "login")
}

func TestAutoRefresh_NeverRefreshesAWriteOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh, func(c *auth.Config) { c.Cookies.TrustedOrigins = []string{"https://app.example.com"} })
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	called := false
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true })
	lookups := 0
	fx.users.onFind = func() { lookups++ }
	for _, h := range []http.Handler{fx.Require()(handler), fx.Optional(handler)} {
		for _, method := range writeMethods {
			for _, origin := range [][]requestOption{
				{crossSite},
				{reqHeader("Sec-Fetch-Site", "same-site"), reqHeader("Origin", "https://other.example.com")},
				{reqHeader("Origin", "https://evil.example")}, {reqHeader("Origin", "null")}, {reqHeader("Sec-Fetch-Site", "cross-site")},
			} {
				for _, cookies := range [][]requestOption{
					{reqCookie(refreshCookie, k.Refresh)}, {reqCookie(refreshCookie, k.Refresh), reqCookie(accessCookie, k.Access)},
					{reqCookies(refreshCookie, "junk", k.Refresh)},
				} {
					send(t, h, method, "/note", append(origin, cookies...)...).requireRefused(t, 403, "cross_origin", "")
				}
			}
		}
	}
	require.False(t, called)
	require.Zero(t, lookups)
	require.Zero(t, fx.store.count("Rotate"))
	trusted := []requestOption{reqHeader("Sec-Fetch-Site", "same-site"), reqHeader("Origin", "https://app.example.com"), reqCookie(refreshCookie, k.Refresh)}
	require.Equal(t, 200, send(t, fx.Require()(handler), "POST", "/note", trusted...).status)
	require.True(t, called)
}

func TestAutoRefresh_GuardsSeeTheNewClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	fx.users.change("u1", func(u *auth.User) { u.Roles = []string{"auditor"} })
	refresh := reqCookie(refreshCookie, k.Refresh)
	require.Equal(t, 200, send(t, fx.Require(auth.Role("auditor"))(page), "POST", "/note", refresh).status)
	r := send(t, fx.Require(auth.Role("admin"))(page), "POST", "/note", refresh)
	require.Equal(t, 403, r.status)
	require.Contains(t, r.cookies, accessCookie)
	require.Equal(t, 401, send(t, fx.Require(auth.Fresh(time.Minute))(page), "POST", "/note", refresh).status)
}

func TestAutoRefresh_AHandlerMayReplaceTheCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(4 * 24 * time.Hour) // so that both cookies are set
	signOut := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fx.ClearCookies(w) }))
	send(t, signOut, "POST", "/out", reqCookie(refreshCookie, k.Refresh)).requireCleared(t)
	other := fx.login(t)
	signIn := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "own", Value: "x"})
		fx.SetCookies(w, other)
	}))
	k = fx.login(t)
	fx.clock.Advance(4 * 24 * time.Hour)
	r := send(t, signIn, "POST", "/in", reqCookie(refreshCookie, k.Refresh)) // each cookie is set once
	require.Len(t, r.cookies, 4)
	require.Equal(t, other.Access, r.cookies[accessCookie].Value)
}

func TestAutoRefresh_RedirectsOnceToAURL(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(given, set map[string]string){
		"no cookie is stored":            func(_, set map[string]string) { clear(set) },
		"the access cookie is dropped":   func(_, set map[string]string) { delete(set, accessCookie) },
		"the access cookie is not valid": func(_, set map[string]string) { set[accessCookie] = "" },
	} {
		for _, window := range []time.Duration{0, -1} {
			fx := newFixture(t, autoRefresh, func(c *auth.Config) { c.RetryWindow = window })
			for _, h := range []http.Handler{fx.Require()(page), fx.Optional(page)} {
				for _, method := range []string{"GET", "HEAD"} {
					cookies := map[string]string{refreshCookie: fx.login(t).Refresh}
					load := func(path string) response {
						var options []requestOption
						for name, value := range cookies {
							options = append(options, reqCookie(name, value))
						}
						r := send(t, h, method, path, options...)
						set := map[string]string{}
						for _, c := range r.cookies {
							set[c.Name] = c.Value
						}
						forget(cookies, set)
						maps.Copy(cookies, set)
						return r
					}
					if window < 0 && name == "no cookie is stored" {
						require.Equal(t, http.StatusTemporaryRedirect, load("/me").status)
						require.Empty(t, load("/me").header["Location"], "the token was spent, and there is no retry window")
						require.Len(t, fx.events.take(auth.EventReuse), 1)
						continue
					}
					for _, path := range []string{"/me", "/me?x", "/other"} {
						r := load(path)
						require.Equal(t, http.StatusTemporaryRedirect, r.status, "%s: %s", name, path)
						for range 3 {
							r = load(path)
							require.Equal(t, 200, r.status, name)
							require.Equal(t, "no-store", r.header.Get("Cache-Control"))
							require.Contains(t, r.cookies, accessCookie)
						}
						require.Equal(t, "true "+path, r.body)
					}
					if name != "no cookie is stored" {
						fx.clock.Advance(2 * time.Minute)
						require.Equal(t, http.StatusTemporaryRedirect, load("/me").status)
						fx.clock.Advance(-time.Hour) // to the correct time
						require.Equal(t, http.StatusTemporaryRedirect, load("/me").status)
					}
				}
			}
			require.Empty(t, fx.events.take(auth.EventReuse))
		}
	}
}

// TestAutoRefresh_ClientsThatIgnoreCookiesGetThePage uses real clients.
func TestAutoRefresh_ClientsThatIgnoreCookiesGetThePage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	s := newBrowserClient(t, fx.Require()(page))
	s.client.Jar = nil
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	for _, options := range [][]requestOption{
		{reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh)}, {reqCookie(refreshCookie, k.Refresh)},
	} {
		r := s.do("GET", "/me", options...)
		require.Equal(t, 200, r.status, r.body)
		require.Equal(t, "true /me", r.body)
	}
}

// TestAutoRefresh_WrongClocksEndInAPage sends a browser to two processes in turn.
// Each refuses the access tokens of the other.
func TestAutoRefresh_WrongClocksEndInAPage(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 2, func(i int, c *auth.Config) {
		autoRefresh(c)
		if now := c.Now; i == 1 {
			c.Now = func() time.Time { return now().Add(time.Hour) }
		}
	})
	turn := 0
	s := newBrowserClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn++
		fx := nodes[turn%2]
		if r.URL.Path == "/login" {
			fx.LoginHandler().ServeHTTP(w, r)
			return
		}
		fx.Require()(page).ServeHTTP(w, r)
	}))
	require.Equal(t, 200, s.do("POST", "/login", reqJSON(goodLogin)).status)
	nodes[0].clock.Advance(time.Hour)
	turn = 0
	r := s.do("GET", "/me")
	require.Equal(t, 200, r.status, r.body)
	require.LessOrEqual(t, turn, 3)
}

func TestAutoRefresh_TwoTabsWithOneURLGetTheirPage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
	mux.Handle("/", fx.Require()(page))
	s := newBrowserClient(t, mux)
	require.Equal(t, 200, s.do("POST", "/auth/login", reqJSON(goodLogin)).status)
	for range 5 {
		fx.clock.Advance(time.Hour)
		var wg sync.WaitGroup
		var fine atomic.Int64
		for _, method := range []string{"GET", "GET", "POST", "POST", "GET"} {
			wg.Go(func() {
				r, err := http.NewRequest(method, s.url+"/same", nil)
				if err != nil {
					return
				}
				if res, err := s.client.Do(r); err == nil {
					_ = res.Body.Close()
					if res.StatusCode == 200 {
						fine.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 5, fine.Load())
	}
	require.Empty(t, fx.events.take(auth.EventReuse))
}

func TestAutoRefresh_OnlyTheHandlerSeesTheNewCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, autoRefresh)
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	r := newRequest(reqHeader("Cookie", "a=\"b c\"; "+accessCookie+"="+k.Access, refreshCookie+"="+k.Refresh+"; "+accessCookie+"=junk;d"))
	r.Method = "POST"
	before := r.Header.Clone()
	var cookies string
	w := httptest.NewRecorder()
	fx.Require()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { cookies = strings.Join(r.Header["Cookie"], "|") })).ServeHTTP(w, r)
	set := readResponse(t, w.Result()).cookies
	require.Equal(t, `a="b c"; d; `+accessCookie+"="+set[accessCookie].Value+"; "+refreshCookie+"="+k.Refresh, cookies)
	require.Equal(t, before, r.Header, "other middleware still has the request as the client sent it")
}
