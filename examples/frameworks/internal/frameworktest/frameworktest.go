// Package frameworktest tests that middleware and endpoints behave in a framework
// as they do in net/http. The programs of the frameworks have the same routes, so
// their tests play the same requests.
package frameworktest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// Serve serves the routes of a program until the listener is closed.
type Serve func(a *auth.Authenticator, listener net.Listener) error

// Handler returns a Serve for a program whose routes are an http.Handler.
func Handler(routes func(*auth.Authenticator) http.Handler) Serve {
	return func(a *auth.Authenticator, listener net.Listener) error {
		return (&http.Server{Handler: routes(a), ReadHeaderTimeout: 10 * time.Second}).Serve(listener)
	}
}

// reference has the routes of the programs, on net/http.
func reference(a *auth.Authenticator) http.Handler {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "stranger"
		if claims, ok := auth.FromContext(r.Context()); ok {
			name = claims.Username
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "hello", name)
	})
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /{$}", a.Optional(hello))
	mux.Handle("GET /me", a.Require()(hello))
	mux.Handle("GET /events", a.Require()(hello))
	mux.Handle("POST /admin", a.Require(auth.Role("admin"))(hello))
	return mux
}

// bob is a user without roles.
var bob = auth.User{ID: "u2", Username: "bob"}

// pass is the password of the user ada in every program.
const pass = "correct horse battery staple"

// Play tests a program with the configuration c.
func Play(t *testing.T, c auth.Config, serve Serve) {
	c.OnEvent = nil // authtest logs events to the test
	t.Run("refuses and serves as net/http does", func(t *testing.T) {
		t.Parallel()
		compare(t, c, serve)
	})
	t.Run("refreshes during a request", func(t *testing.T) {
		t.Parallel()
		c := c
		c.AutoRefresh = true
		autoRefresh(t, c, serve)
	})
	t.Run("answers an outage with 503", func(t *testing.T) {
		t.Parallel()
		c := c
		outage(t, c, serve)
	})
	t.Run("signs in, refreshes and signs out", func(t *testing.T) {
		t.Parallel()
		lifecycle(t, c, serve)
	})
	t.Run("ends streams with the session", func(t *testing.T) {
		t.Parallel()
		streams(t, c, serve)
	})
	t.Run("keeps concurrent users apart", func(t *testing.T) {
		t.Parallel()
		concurrent(t, c, serve)
	})
}

// faulty is a store that can be down.
type faulty struct {
	*auth.MemoryStore
	down   atomic.Bool
	once   sync.Once
	failed chan struct{} // closed when the feed has failed
}

func newFaulty() *faulty {
	return &faulty{MemoryStore: auth.NewMemoryStore(), failed: make(chan struct{})}
}

// fail makes the store fail. It returns when the Authenticator can have no
// result of the feed from before.
func (s *faulty) fail() {
	s.down.Store(true)
	<-s.failed
}

func (s *faulty) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if s.down.Load() {
		s.once.Do(func() { close(s.failed) })
		return nil, "", false, errors.New("the store is down")
	}
	return s.MemoryStore.Changes(ctx, after, min(wait, 10*time.Millisecond))
}

func (s *faulty) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if s.down.Load() {
		return auth.Session{}, false, errors.New("the store is down")
	}
	return s.MemoryStore.Rotate(ctx, subject, id, r)
}

// server is a program that listens on a loopback port.
type server struct {
	t      *testing.T
	url    string
	client *http.Client
}

// Start serves a program until the test ends.
func Start(t *testing.T, a *auth.Authenticator, serve Serve) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = serve(a, listener) // returns when the listener is closed
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-served
	})
	return "http://" + listener.Addr().String()
}

func start(t *testing.T, a *auth.Authenticator, serve Serve) *server {
	t.Helper()
	return newServer(t, Start(t, a, serve))
}

func newServer(t *testing.T, url string) *server {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &server{t, url, &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// request is a request, with headers and a body.
type request struct {
	method, path string
	body         string
	header       http.Header
}

// with returns a header from names and values.
func with(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func bearer(token string) http.Header { return with("Authorization", "Bearer "+token) }

// reply is a response whose body was read.
type reply struct {
	status int
	header http.Header
	body   string
}

func (s *server) open(r request) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), r.method, s.url+r.path, strings.NewReader(r.body))
	if err != nil {
		s.t.Fatal(err)
	}
	if req.Header = r.header.Clone(); req.Header == nil {
		req.Header = http.Header{}
	}
	if r.body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return resp
}

func (s *server) do(r request) reply {
	s.t.Helper()
	resp := s.open(r)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// want fails the test if a response has another status or a body that does not
// contain part.
func (s *server) want(status int, part string, r request) reply {
	s.t.Helper()
	got := s.do(r)
	if got.status != status || !strings.Contains(got.body, part) {
		s.t.Fatalf("%s %s: got %d %q, want %d and %q", r.method, r.path, got.status, got.body, status, part)
	}
	return got
}

// headers are the headers that package auth sets.
var headers = []string{"Www-Authenticate", "Cache-Control", "Vary", "Retry-After", "Content-Type", "X-Content-Type-Options", "Location", "Allow"}

// same plays a request against a program and against net/http, and fails the
// test if the responses differ.
func same(t *testing.T, got, want reply, what string) {
	t.Helper()
	if got.status != want.status || got.body != want.body {
		t.Errorf("%s: got %d %q, net/http sends %d %q", what, got.status, got.body, want.status, want.body)
	}
	for _, name := range headers {
		if g, w := got.header.Values(name), want.header.Values(name); !strings.EqualFold(strings.Join(g, ", "), strings.Join(w, ", ")) {
			t.Errorf("%s: got the header %s %q, net/http sends %q", what, name, g, w)
		}
	}
	if g, w := cookieShapes(got), cookieShapes(want); !slices.Equal(g, w) {
		t.Errorf("%s: got the cookies %q, net/http sends %q", what, g, w)
	}
}

// cookieShapes returns the Set-Cookie headers of a response, without the tokens.
func cookieShapes(r reply) (shapes []string) {
	for _, line := range r.header.Values("Set-Cookie") {
		name, rest, _ := strings.Cut(line, "=")
		value, attributes, _ := strings.Cut(rest, ";")
		shapes = append(shapes, fmt.Sprintf("%s, a value: %t;%s", name, value != "", attributes))
	}
	slices.Sort(shapes)
	return shapes
}

// cookies returns a Cookie header from the Set-Cookie headers of a response.
func cookies(r reply) string {
	var pairs []string
	for _, line := range r.header.Values("Set-Cookie") {
		pair, _, _ := strings.Cut(line, ";")
		pairs = append(pairs, pair)
	}
	return strings.Join(pairs, "; ")
}

// cookieHeader returns the cookies of a session of u.
func cookieHeader(t *testing.T, a *authtest.Authenticator, u auth.User, opts ...authtest.Option) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return authtest.As(t, a, r, u, opts...).Header.Get("Cookie")
}

func compare(t *testing.T, c auth.Config, serve Serve) {
	a := authtest.New(t, c)
	framework, plain := start(t, a.Authenticator, serve), start(t, a.Authenticator, Handler(reference))
	ada := auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}}
	token := func(u auth.User, opts ...authtest.Option) string { return authtest.Tokens(t, a, u, opts...).Access }
	adas, bobs, expired, revoked := token(ada), token(bob), token(ada, authtest.Expired()), token(ada, authtest.Revoked())
	cookie := cookieHeader(t, a, ada)

	requests := map[string]request{}
	for name, h := range map[string]http.Header{
		"no token":              nil,
		"a token":               bearer(adas),
		"a token without roles": bearer(bobs),
		"an expired token":      bearer(expired),
		"a revoked token":       bearer(revoked),
		"an invalid token":      bearer("x"),
		"another scheme":        with("Authorization", "Basic YTpi"),
		"two tokens":            with("Authorization", "Bearer "+adas, "Authorization", "Bearer "+bobs),
		"a cookie":              with("Cookie", cookie, "Sec-Fetch-Site", "same-origin"),
		"two cookie headers":    with("Cookie", "theme=dark", "Cookie", cookie),
		"a cookie, cross-site":  with("Cookie", cookie, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"),
		"a cookie, cross-host":  with("Cookie", cookie, "Origin", "https://evil.example"),
		"an invalid cookie":     with("Cookie", "access=x; refresh=y"),
		"a user agent":          with("Authorization", "Bearer "+adas, "User-Agent", "test\u00e9"),
	} {
		for _, route := range []string{"GET /", "GET /me", "GET /me?a=b&a=%20", "POST /admin", "GET /auth/sessions", "GET /auth/nothing", "GET /auth/login", "OPTIONS /auth/login"} {
			method, path, _ := strings.Cut(route, " ")
			requests[route+" with "+name] = request{method, path, "", h}
		}
	}
	for name, body := range map[string]string{
		"malformed":          "{",
		"wrong password":     `{"login":"ada","password":"wrong"}`,
		"two passwords":      `{"login":"ada","password":"a","password":"b"}`,
		"missing delivery":   `{"login":"ada","password":"wrong","delivery":"x"}`,
		"too large":          `{"login":"` + strings.Repeat("x", 20<<10) + `"}`,
		"no refresh token":   `{}`,
		"an access token":    `{"refresh_token":"` + adas + `"}`,
		"not a login at all": `[]`,
	} {
		requests["POST /auth/login "+name] = request{"POST", "/auth/login", body, nil}
		requests["POST /auth/refresh "+name] = request{"POST", "/auth/refresh", body, nil}
	}
	requests["POST /auth/login from another site"] = request{"POST", "/auth/login", `{"login":"ada","password":"` + pass + `"}`, with("Sec-Fetch-Site", "cross-site")}
	requests["POST /auth/login of another type"] = request{"POST", "/auth/login", "login=ada", with("Content-Type", "text/plain")}
	for _, what := range slices.Sorted(maps.Keys(requests)) {
		r := requests[what]
		want := plain.do(r)
		if strings.HasPrefix(what, "GET /auth/sessions") && want.status == http.StatusOK {
			continue // lists times of use
		}
		same(t, framework.do(r), want, what)
	}
}

// autoRefresh tests requests that are served with new cookies.
func autoRefresh(t *testing.T, c auth.Config, serve Serve) {
	a := authtest.New(t, c)
	ada := auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}}
	page := request{"GET", "/me?tab=1", "", nil}
	form := request{"POST", "/admin", "", nil}
	var pages, forms [2]reply
	for i, s := range []*server{start(t, a.Authenticator, serve), start(t, a.Authenticator, Handler(reference))} {
		page.header = with("Cookie", cookieHeader(t, a, ada, authtest.Expired()))
		pages[i] = s.want(http.StatusTemporaryRedirect, "", page)
		page.header = with("Cookie", cookies(pages[i]))
		s.want(http.StatusOK, "hello ada\n", page)
		form.header = with("Cookie", cookieHeader(t, a, ada, authtest.Expired()), "Sec-Fetch-Site", "same-origin")
		forms[i] = s.want(http.StatusOK, "hello ada\n", form)
		form.header = with("Cookie", cookieHeader(t, a, bob, authtest.Expired()), "Sec-Fetch-Site", "same-origin")
		if refused := s.want(http.StatusForbidden, "insufficient_scope", form); len(cookieShapes(refused)) == 0 {
			t.Errorf("a refused request must keep its new cookies: %q", refused.header)
		}
	}
	same(t, pages[0], pages[1], "a page")
	same(t, forms[0], forms[1], "a form")
	if len(cookieShapes(forms[0])) == 0 {
		t.Errorf("the form must be served with new cookies: %q", forms[0].header)
	}
}

// outage tests requests that cannot be decided, because the store is down.
func outage(t *testing.T, c auth.Config, serve Serve) {
	store := newFaulty()
	c.Store, c.StalePolicy = store, auth.StaleRefuse
	a := authtest.New(t, c)
	tokens := authtest.Tokens(t, a, bob)
	framework, plain := start(t, a.Authenticator, serve), start(t, a.Authenticator, Handler(reference))
	store.fail()
	a.Clock.Advance(2 * time.Minute)
	for _, r := range []request{
		{"GET", "/", "", bearer(tokens.Access)},
		{"GET", "/me", "", bearer(tokens.Access)},
		{"POST", "/auth/refresh", `{"refresh_token":"` + tokens.Refresh + `"}`, nil},
	} {
		got := framework.want(http.StatusServiceUnavailable, "temporarily_unavailable", r)
		same(t, got, plain.do(r), "an outage: "+r.path)
		if got.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
}

// tokens are the members of the response to a login or refresh.
type tokens struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	SessionID string `json:"session_id"`
}

func (r reply) tokens(t *testing.T) (x tokens) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &x); err != nil || x.Access == "" || x.Refresh == "" {
		t.Fatalf("no tokens in %q: %v", r.body, err)
	}
	return x
}

func lifecycle(t *testing.T, c auth.Config, serve Serve) {
	a := authtest.New(t, c)
	s := start(t, a.Authenticator, serve)
	login := request{"POST", "/auth/login", `{"login":"ada","password":"` + pass + `","delivery":"body"}`, with("User-Agent", "the first client")}

	// Tokens in bodies and headers.
	first := s.want(http.StatusOK, "", login).tokens(t)
	s.want(http.StatusOK, "hello ada\n", request{"GET", "/me", "", bearer(first.Access)})
	s.want(http.StatusOK, "hello ada\n", request{"GET", "/", "", bearer(first.Access)})
	s.want(http.StatusOK, "hello ada\n", request{"POST", "/admin", `{}`, bearer(first.Access)})
	a.Clock.Advance(16 * time.Minute)
	s.want(http.StatusUnauthorized, `"action":"refresh"`, request{"GET", "/me", "", bearer(first.Access)})
	second := s.want(http.StatusOK, "", request{"POST", "/auth/refresh", `{"refresh_token":"` + first.Refresh + `"}`, with("User-Agent", "the first client")}).tokens(t)
	s.want(http.StatusOK, "hello ada\n", request{"GET", "/me", "", bearer(second.Access)})

	// Tokens in cookies.
	login.body = `{"login":"ada","password":"` + pass + `"}`
	kept := s.want(http.StatusOK, "", login)
	if len(cookieShapes(kept)) != 3 || strings.Contains(kept.body, "eyJ") { // two with tokens, and that of a known device
		t.Fatalf("the tokens must be in cookies only: %q %q", kept.header, kept.body)
	}
	s.want(http.StatusOK, "hello ada\n", request{"GET", "/me", "", with("Cookie", cookies(kept))})
	s.want(http.StatusForbidden, "cross_origin", request{"POST", "/admin", "", with("Cookie", cookies(kept), "Sec-Fetch-Site", "cross-site")})
	a.Clock.Advance(16 * time.Minute)
	s.want(http.StatusUnauthorized, `"action":"refresh"`, request{"GET", "/me", "", with("Cookie", cookies(kept))})
	s.want(http.StatusForbidden, "cross_origin", request{"POST", "/auth/refresh", "", with("Cookie", cookies(kept), "Sec-Fetch-Site", "cross-site")})
	fresh := s.want(http.StatusOK, "", request{"POST", "/auth/refresh", "", with("Cookie", cookies(kept), "Sec-Fetch-Site", "same-origin")})
	s.want(http.StatusOK, "hello ada\n", request{"GET", "/me", "", with("Cookie", cookies(fresh))})

	// One session ends another. What the framework does with the memory of this
	// request afterward must not undo it.
	third := s.want(http.StatusOK, "", request{"POST", "/auth/refresh", `{"refresh_token":"` + second.Refresh + `"}`, nil}).tokens(t)
	s.want(http.StatusNoContent, "", request{"DELETE", "/auth/sessions/" + third.SessionID, "", with("Cookie", cookies(fresh), "Sec-Fetch-Site", "same-origin")})
	for range 20 {
		s.want(http.StatusOK, "hello ada\n", request{"GET", "/me?" + strings.Repeat("x", 40), "", with("Cookie", cookies(fresh))})
		s.want(http.StatusUnauthorized, `"action":"login"`, request{"GET", "/me", "", bearer(third.Access)})
	}

	out := s.want(http.StatusNoContent, "", request{"POST", "/auth/logout", "", with("Cookie", cookies(fresh), "Sec-Fetch-Site", "same-origin")})
	if len(cookieShapes(out)) != 2 {
		t.Errorf("a logout must delete both cookies: %q", out.header)
	}
	s.want(http.StatusUnauthorized, `"action":"login"`, request{"GET", "/me", "", with("Cookie", cookies(fresh))})
}

func streams(t *testing.T, c auth.Config, serve Serve) {
	a := authtest.New(t, c)
	s := start(t, a.Authenticator, serve)
	for _, path := range []string{"/auth/logout", "/auth/logout/all"} {
		header := bearer(authtest.Tokens(t, a, bob).Access)
		resp := s.open(request{"GET", "/events", "", header})
		lines := bufio.NewReader(resp.Body)
		if line, err := lines.ReadString('\n'); err != nil || line != "data: hello bob\n" {
			t.Fatalf("got %q, %v before the end of the session", line, err)
		}
		s.want(http.StatusNoContent, "", request{"POST", path, "", header})
		rest, err := io.ReadAll(lines)
		if err != nil || !strings.HasSuffix(string(rest), "event: end\ndata: login\n\n") {
			t.Fatalf("got %q, %v after %s", rest, err, path)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers of a stream: %q", resp.Header)
		}
		s.want(http.StatusUnauthorized, `"action":"login"`, request{"GET", "/events", "", header})
	}
}

// concurrent tests that requests do not get the claims of others, and that the
// sessions keep what was in the requests.
func concurrent(t *testing.T, c auth.Config, serve Serve) {
	a := authtest.New(t, c)
	s := start(t, a.Authenticator, serve)
	const users, rounds = 8, 50
	var all sync.WaitGroup
	for i := range users {
		u := auth.User{ID: fmt.Sprintf("user-%d", i), Username: strings.Repeat(string(rune('a'+i)), 5+i)}
		tokens := authtest.Tokens(t, a, u)
		agent := fmt.Sprintf("client %s/%d", u.Username, i)
		all.Go(func() {
			header := with("User-Agent", agent)
			got := s.do(request{"POST", "/auth/refresh", `{"refresh_token":"` + tokens.Refresh + `"}`, header})
			if got.status != http.StatusOK {
				t.Errorf("refresh: %d %s", got.status, got.body)
				return
			}
			header.Set("Authorization", "Bearer "+tokens.Access)
			for range rounds {
				if got := s.do(request{"GET", "/me", "", header}); got.body != "hello "+u.Username+"\n" {
					t.Errorf("%s: got %d %q", u.Username, got.status, got.body)
				}
			}
		})
	}
	all.Wait()
	for i := range users {
		list, err := a.Sessions(t.Context(), fmt.Sprintf("user-%d", i))
		if err != nil || len(list) != 1 {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		want := fmt.Sprintf("client %s/%d", strings.Repeat(string(rune('a'+i)), 5+i), i)
		if got := list[0].Device.UserAgent; got != want {
			t.Errorf("the session has the user agent %q, want %q", got, want)
		}
		if !list[0].Device.IP.IsLoopback() {
			t.Errorf("the session has the address %s, want that of the client", list[0].Device.IP)
		}
	}
}
