package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestHandler_OtherMethodsAndPathsAreRefusedInJSON(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Handler()
	allowed := map[string]string{
		"/login": "POST", "/refresh": "POST", "/logout": "POST", "/logout/all": "POST",
		"/sessions": "GET, HEAD", "/sessions/x": "DELETE", "/ticket": "POST",
	}
	for path, allow := range allowed {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			r := send(t, h, method, path, reqBearer(fx.login(t).Access))
			r.requireRefused(t, http.StatusMethodNotAllowed, "invalid_request", "")
			require.Equal(t, allow, r.header.Get("Allow"))
		}
	}
	for _, path := range []string{"/", "/nothing", "/login/x", "/logout/", "/sessions/", "/sessions/a/b", "/token"} {
		send(t, h, http.MethodPost, path).requireRefused(t, http.StatusNotFound, "not_found", "")
	}
}

func TestHandler_NeverRedirects(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	h := fx.Handler()
	endpoints := []string{"login", "refresh", "logout", "logout/all", "sessions", "sessions/x", "jwks.json", "ticket", "auth.js", ""}
	spellings := []string{
		"%s", "/%s", "//%s", "///%s", "/./%s", "./%s", "../%s", "/../%s", "%s/", "/%s/", "%s//", "/%s/.", "/%s/..", "/x/../%s", "%%2F%s",
		"/%%2F%s", "%s%%2F", "%%2e/%s", "/%s%%2F%%2e%%2e", "/%%2e%%2e/%s", "/%s%%3F", "/%s%%23", "\\%s",
	}
	for _, endpoint := range endpoints {
		for _, spelling := range spellings {
			raw := fmt.Sprintf(spelling, endpoint)
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"} {
				for _, path := range []string{"", "/auth", "/auth/", "/auth/v1/"} {
					// This is the path as StripPrefix, a router or a rewrite
					// leaves it.
					r := httptest.NewRequest(method, "/", strings.NewReader(goodLogin))
					r.Header.Set("Content-Type", "application/json")
					r.RequestURI = path + raw
					decoded, err := url.PathUnescape(path + raw)
					require.NoError(t, err)
					r.URL.Path, r.URL.RawPath = decoded, path+raw
					w := httptest.NewRecorder()
					http.StripPrefix(path, h).ServeHTTP(w, r)
					require.Empty(t, w.Header().Get("Location"), "%s %q below %q", method, raw, path)
					require.Contains(t, []int{200, 204, 400, 401, 404, 405}, w.Code, "%s %q below %q", method, raw, path)
				}
			}
		}
	}
}

func TestHandler_ServesUnderAPrefixThatEndsInASlash(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	caught := false
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth/", fx.Handler()))
	mux.HandleFunc("/login", func(http.ResponseWriter, *http.Request) { caught = true }) // the other handler was called
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	do := func(method, path, bearer string, body requestOption) response {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+path, nil)
		require.NoError(t, err)
		body(r)
		if bearer != "" {
			reqBearer(bearer)(r)
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		return readResponse(t, res)
	}
	login := do("POST", "/auth/login", "", reqJSON(goodLogin))
	require.Equal(t, 200, login.status, login.body)
	access := login.fields(t)["access_token"].(string)
	require.Len(t, do("GET", "/auth/sessions", access, reqBody("", "")).fields(t)["sessions"], 1)
	do("DELETE", "/auth/sessions/"+login.fields(t)["session_id"].(string), access, reqBody("", "")).requireNoContent(t)
	for _, path := range []string{"/auth/", "/auth/login/", "/auth/%2Flogin/", "/auth/login%2F", "/auth/x"} {
		do("POST", path, "", reqJSON(goodLogin)).requireRefused(t, 404, "not_found", "")
	}
	do("GET", "/auth/login", "", reqBody("", "")).requireRefused(t, 405, "invalid_request", "")
	require.False(t, caught)
	send(t, fx.Handler(), "POST", "//login", reqJSON(goodLogin)).requireRefused(t, 404, "not_found", "")
}

func TestHandler_WorksUnderAnyPatternOfServeMux(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	one := http.NewServeMux()
	one.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
	deep := http.NewServeMux()
	deep.Handle("/api/v1/identity/", http.StripPrefix("/api/v1/identity", fx.Handler()))
	single := http.NewServeMux()
	single.Handle("POST /s/login", fx.LoginHandler())
	single.Handle("POST /s/refresh", fx.RefreshHandler())
	single.Handle("POST /s/logout", fx.LogoutHandler())
	single.Handle("POST /s/logout/all", fx.LogoutAllHandler())
	single.Handle("GET /s/sessions", fx.SessionsHandler())
	single.Handle("DELETE /s/sessions/{id}", fx.SessionsHandler())
	for prefix, h := range map[string]http.Handler{"/auth": one, "/api/v1/identity": deep, "/s": single, "": fx.Handler()} {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		do := func(method, path, bearer, body string) response {
			r, err := http.NewRequest(method, server.URL+prefix+path, strings.NewReader(body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			return readResponse(t, res)
		}
		first := do("POST", "/login", "", goodLogin).fields(t)
		second := do("POST", "/login", "", goodLogin).fields(t)
		refresh, _ := json.Marshal(map[string]any{"refresh_token": first["refresh_token"]})
		third := do("POST", "/refresh", "", string(refresh)).fields(t)
		require.Equal(t, first["session_id"], third["session_id"])
		access := third["access_token"].(string)
		require.Len(t, do("GET", "/sessions", access, "").fields(t)["sessions"], 2)
		do("DELETE", "/sessions/"+second["session_id"].(string), access, "").requireNoContent(t)
		require.Len(t, do("GET", "/sessions", access, "").fields(t)["sessions"], 1)
		do("POST", "/logout", access, "").requireNoContent(t)
		do("GET", "/sessions", access, "").requireRefused(t, 401, "invalid_token", "login")
		access = do("POST", "/login", "", goodLogin).fields(t)["access_token"].(string)
		do("POST", "/logout/all", access, "").requireNoContent(t)
		do("POST", "/logout/all", access, "").requireRefused(t, 401, "invalid_token", "login")
	}
}

func TestHandlers_VaryNamesTheHeadersThatAreRead(t *testing.T) {
	t.Parallel()
	names := func(h http.Handler, method, path string) []string {
		set := map[string]bool{}
		for _, name := range strings.Split(strings.Join(send(t, h, method, path).header.Values("Vary"), ","), ",") {
			if name = strings.TrimSpace(name); name != "" {
				set[name] = true
			}
		}
		return slices.Sorted(maps.Keys(set))
	}
	h, plain := newFixture(t, withCookies()).Handler(), newFixture(t, withExtractors(auth.FromBearer(), auth.FromHeader("X-T"))).Handler()
	for _, tt := range []struct{ method, path, cookies, plain string }{
		{"POST", "/login", "Cookie", ""},
		{"POST", "/refresh", "Cookie Refresh-Key Refresh-Token", "Refresh-Key Refresh-Token"},
		{"POST", "/logout", "Authorization Cookie Refresh-Token", "Authorization Refresh-Token X-T"},
		{"POST", "/logout/all", "Authorization Cookie", "Authorization X-T"},
		{"GET", "/sessions", "Authorization Cookie", "Authorization X-T"},
		{"DELETE", "/sessions/x", "Authorization Cookie", "Authorization X-T"},
	} {
		require.Equal(t, strings.Fields(tt.cookies), append([]string{}, names(h, tt.method, tt.path)...), tt.path)
		require.Equal(t, strings.Fields(tt.plain), append([]string{}, names(plain, tt.method, tt.path)...), tt.path)
	}
}

// browserClient is a client with a cookie jar for a TLS server.
type browserClient struct {
	t      *testing.T
	client *http.Client
	url    string
}

func newBrowserClient(t *testing.T, h http.Handler) *browserClient {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := server.Client()
	client.Jar = jar
	return &browserClient{t, client, server.URL}
}

func (s *browserClient) do(method, path string, options ...requestOption) response {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, nil)
	require.NoError(s.t, err)
	for _, o := range options {
		o(r)
	}
	res, err := s.client.Do(r)
	require.NoError(s.t, err)
	return readResponse(s.t, res)
}

// cookies returns the cookies that the client would send to path.
func (s *browserClient) cookies(path string) map[string]string {
	u, err := url.Parse(s.url + path)
	require.NoError(s.t, err)
	m := map[string]string{}
	for _, c := range s.client.Jar.Cookies(u) {
		m[c.Name] = c.Value
	}
	return m
}

func TestBrowser_LoginRefreshAndLogoutByCookies(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*auth.Cookies){
		func(*auth.Cookies) {},
		func(c *auth.Cookies) { c.InsecureNames, c.AccessName, c.RefreshName = true, "a", "r" },
	} {
		fx := newFixture(t, withCookies(change))
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", fx.Handler()))
		mux.Handle("GET /me", fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := auth.FromContext(r.Context())
			_, _ = io.WriteString(w, c.Username)
		})))
		s := newBrowserClient(t, mux)
		s.do("GET", "/me").requireRefused(t, 401, "missing_token", "login")
		require.Equal(t, 200, s.do("POST", "/auth/login", reqJSON(goodLogin)).status)
		require.Len(t, s.cookies("/auth/refresh"), 3)
		require.Equal(t, "ada", s.do("GET", "/me").body)
		before := s.cookies("/auth/refresh")
		fx.clock.Advance(16 * time.Minute)
		s.do("GET", "/me").requireRefused(t, 401, "invalid_token", "refresh")
		require.Equal(t, 200, s.do("POST", "/auth/refresh").status)
		for name, value := range s.cookies("/auth/refresh") {
			require.Equal(t, strings.HasSuffix(name, "device"), before[name] == value, name)
		}
		require.Equal(t, "ada", s.do("GET", "/me").body)
		s.do("POST", "/auth/logout").requireNoContent(t)
		require.Len(t, s.cookies("/auth/refresh"), 1, "the device stays known")
		s.do("GET", "/me").requireRefused(t, 401, "missing_token", "login")
		s.do("POST", "/auth/refresh").requireRefused(t, 400, "invalid_request", "login")
	}
}

func TestHandlers_EndingTheOwnSessionClearsItsCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	for _, dead := range []requestOption{reqBearer("junk"), reqHeader("Authorization", "Bearer "), reqHeader("Authorization", "Basic x")} {
		k := fx.login(t)
		send(t, fx.Handler(), "DELETE", "/sessions/"+k.SessionID, dead, reqCookie(accessCookie, k.Access)).requireCleared(t)
		k = fx.login(t)
		send(t, fx.Handler(), "POST", "/logout/all", dead, reqCookie(accessCookie, k.Access)).requireCleared(t)
		fx.clock.Advance(time.Minute)
	}
	// A valid cookie beside a valid header is cleared as well.
	for _, same := range []bool{true, false} {
		for _, path := range []string{"/sessions/", "/logout/all"} {
			k := fx.login(t)
			header := reqBearer(k.Access)
			if !same {
				fx.clock.Advance(time.Minute)
				next, err := fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
				require.NoError(t, err)
				header = reqBearer(next.Access)
			}
			method := "POST"
			if path == "/sessions/" {
				method, path = "DELETE", path+k.SessionID
			}
			send(t, fx.Handler(), method, path, header, reqCookie(accessCookie, k.Access)).requireCleared(t)
			fx.clock.Advance(time.Minute)
		}
	}
	// An invalid cookie beside a valid header does not authenticate the
	// request, so the origin is not checked and no cookie is cleared.
	k := fx.login(t)
	r := send(t, fx.Handler(), "POST", "/logout/all", reqBearer(k.Access), reqCookie(accessCookie, "junk"), crossSite)
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie")
}
