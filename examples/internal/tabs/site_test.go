package tabs

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/password"
)

const pass = "correct horse battery staple"

// A page has one client, and records its events.
const (
	page   = `<!doctype html><title>page</title><script type="module" src="/page.js"></script>`
	script = `import { createClient } from "/auth/auth.js";
window.seen = [];
window.auth = createClient({ body: location.search.includes("body"), ...window.options });
for (const type of ["signed-in", "signed-out", "refreshed"]) auth.addEventListener(type, ({ detail }) => seen.push({ type, ...detail }));
window.who = async () => (await (await auth.fetch("/api/me")).json()).name ?? "nobody";
document.title = "ready";`
)

// site is a server with a page and its API. The test advances its clock.
type site struct {
	*authtest.Authenticator
	base string

	mu       sync.Mutex
	events   map[auth.EventType]int
	requests map[string]int // by path
	before   func(w http.ResponseWriter, r *http.Request, next http.Handler)
	log      []http.Header // headers of refreshes
}

type users struct{ auth.User }

func (u users) FindByLogin(context.Context, string) (auth.User, error) { return u.User, nil }
func (u users) FindByID(context.Context, string) (auth.User, error)    { return u.User, nil }

func newSite(t *testing.T, c auth.Config) *site {
	t.Helper()
	s := &site{events: map[auth.EventType]int{}, requests: map[string]int{}}
	hash, err := (&password.Hasher{Memory: 64, Time: 1}).Hash(t.Context(), pass)
	require.NoError(t, err)
	if c.Users == nil {
		c.Users = users{auth.User{ID: "ada", Username: "ada", PasswordHash: hash}}
	}
	if c.Cookies == nil {
		c.Cookies = &auth.Cookies{InsecureHTTP: true, AllowBody: true}
	}
	seen := c.OnEvent
	c.OnEvent = func(ctx context.Context, e auth.Event) {
		s.mu.Lock()
		s.events[e.Type]++
		s.mu.Unlock()
		if seen != nil {
			seen(ctx, e)
		}
	}
	s.Authenticator = authtest.New(t, c)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", s.Handler()))
	mux.Handle("/api/me", s.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_ = json.NewEncoder(w).Encode(map[string]string{"name": claims.Username})
	})))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'")
		_, _ = w.Write([]byte(page))
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write([]byte(script))
	})
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests[r.URL.Path]++
		if r.URL.Path == "/auth/refresh" {
			s.log = append(s.log, r.Header.Clone())
		}
		before := s.before
		s.mu.Unlock()
		if before != nil {
			before(w, r, mux)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	server.Config.SetKeepAlivesEnabled(false) // Chromium repeats a request on a connection that was reused
	server.Start()
	t.Cleanup(server.Close)
	s.base = server.URL
	return s
}

// intercept sets the handler of all requests, which may call next.
func (s *site) intercept(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *site) counted(e auth.EventType) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[e]
}

func (s *site) sent(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// refreshes returns the values of a header in the refreshes since the last call.
func (s *site) refreshes(header string) (values []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.log {
		values = append(values, h.Get(header))
	}
	s.log = nil
	return values
}

// expire makes all access tokens expire, and ends all cooldowns.
func (s *site) expire() { s.Clock.Advance(16 * time.Minute) }

// open shows the page in a new tab. Before its scripts run, setup does.
func (s *site) open(browser exampletest.Tab, query, setup string) exampletest.Tab {
	tab := browser.Open()
	if setup != "" {
		tab.Before(setup)
	}
	tab.Do(chromedp.Navigate(s.base + "/" + query))
	tab.Evaluate(`(async () => { while (document.title !== "ready") await new Promise((done) => setTimeout(done, 5)); return ""; })()`)
	return tab
}

func clearCookies(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	_, err := chromedp.CallBrowser(browser.Context, storage.ClearCookies, storage.ClearCookiesParams{BrowserContextID: chromedp.FromContext(browser.Context).BrowserContextID})
	require.NoError(t, err)
}

// login signs in, and returns the status.
func login(tab exampletest.Tab) string {
	return tab.Evaluate(`auth.login({ login: "ada", password: "` + pass + `" }).then((r) => "" + r.status)`)
}

// all evaluates an expression in all tabs at once.
func all(tabs []exampletest.Tab, js string) []string {
	values := make([]string, len(tabs))
	var group sync.WaitGroup
	for i, tab := range tabs {
		group.Go(func() { values[i] = tab.Evaluate(js) })
	}
	group.Wait()
	return values
}

// seen returns the events of a type that the client of the page has dispatched, as
// the values of a member of their details, until there are n of them.
func seen(tab exampletest.Tab, kind, member string, n int) (values []string) {
	text := tab.Evaluate(`(async () => {
		const list = () => seen.filter((e) => e.type === "` + kind + `");
		for (let i = 0; i < 500 && list().length < ` + strconv.Itoa(n) + `; i++) await new Promise((done) => setTimeout(done, 20));
		return JSON.stringify(list().map((e) => "" + e["` + member + `"]));
	})()`)
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		panic(err)
	}
	return values
}

func same(value string, n int) []string { return slices.Repeat([]string{value}, n) }
