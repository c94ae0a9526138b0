package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

func TestProgram_ServesThePage(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	for path, status := range map[string]int{"/": 200, "/auth/auth.js": 200, "/main.go": 404, "/api/me": 401} {
		resp, err := http.Get(p.URL + path)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode, path)
		if path == "/" {
			require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'self';")
		}
	}
}

// site is the application with a clock that the test advances, and counts of
// refreshes.
type site struct {
	*authtest.Authenticator
	base      string
	refreshes atomic.Int64 // requests
	rotations atomic.Int64
	down      atomic.Int64                  // how many of the next refreshes get 503
	hold      atomic.Pointer[chan struct{}] // if not nil, refreshes wait for it
	late      chan struct{}                 // refusals of /api/me?late wait for it
}

func start(t *testing.T) *site {
	t.Helper()
	c, err := config()
	require.NoError(t, err)
	s := &site{late: make(chan struct{})}
	c.OnEvent = func(_ context.Context, e auth.Event) {
		if e.Type == auth.EventRefresh {
			s.rotations.Add(1)
		}
	}
	s.Authenticator = authtest.New(t, c)
	handler := routes(s.Authenticator.Authenticator)
	release := sync.OnceFunc(func() { close(s.late) })
	t.Cleanup(release)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/auth/refresh" {
			s.refreshes.Add(1)
			if s.down.Add(-1) >= 0 {
				auth.DefaultOnError(w, r, auth.ErrUnavailable)
				return
			}
			if hold := s.hold.Load(); hold != nil {
				<-*hold
			}
		}
		if r.URL.Path == "/api/me" && s.refreshes.Load() > 0 {
			defer release() // the page has refreshed, and repeats its request
		}
		if r.URL.RawQuery == "late" && s.refreshes.Load() == 0 {
			refused := httptest.NewRecorder()
			handler.ServeHTTP(refused, r)
			<-s.late
			w.WriteHeader(refused.Code)
			_, _ = w.Write(refused.Body.Bytes())
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.base = server.URL
	return s
}

// expire makes all access tokens expire, and resets the counts.
func (s *site) expire() {
	s.Clock.Advance(16 * time.Minute)
	s.refreshes.Store(0)
	s.rotations.Store(0)
}

func (s *site) signIn(tab exampletest.Tab) {
	tab.Do(chromedp.Navigate(s.base), chromedp.WaitVisible("#login"),
		chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "correct horse battery staple"+kb.Enter))
	tab.Sees("name", "ada")
}

// requests sends three requests at once with a client of its own, and returns their
// names.
const requests = `import("/auth/auth.js").then(async ({ createClient }, auth = window.test ??= createClient()) =>
	(await Promise.all([1, 2, 3].map(async () => (await (await auth.fetch("/api/me")).json()).name))).join())`

func TestAPI_RefusalThatArrivesAfterTheRefresh(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	s := start(t)
	s.signIn(tab)
	s.expire()
	require.Equal(t, "200,200", tab.Evaluate(`import("/auth/auth.js").then(async ({ createClient }, auth = createClient()) =>
		(await Promise.all([auth.fetch("/api/me?late"), auth.fetch("/api/me")])).map((r) => r.status).join())`))
	require.EqualValues(t, 1, s.refreshes.Load(), "the request must only be repeated")
}

func TestPage_StaysSignedInUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	first := exampletest.Chromium(t)
	s := start(t)
	first.Do(chromedp.Navigate(s.base), chromedp.WaitVisible("#login"),
		chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "wrong"+kb.Enter))
	first.Sees("message", "Name or password is wrong.")
	s.signIn(first)
	require.Empty(t, first.Evaluate("document.cookie"), "scripts can read cookies")
	first.Do(chromedp.Reload())
	first.Sees("name", "ada")

	s.expire()
	require.Equal(t, "ada,ada,ada", first.Evaluate(requests))
	require.EqualValues(t, 1, s.refreshes.Load(), "requests at once must share one refresh")
	require.EqualValues(t, 1, s.rotations.Load())

	s.expire()
	first.Do(chromedp.Reload())
	first.Sees("name", "ada")
	require.EqualValues(t, 1, s.rotations.Load())

	// The session ends elsewhere.
	require.NoError(t, s.RevokeAll(t.Context(), "u1"))
	first.Do(chromedp.Click("#reload"), chromedp.WaitVisible("#login"))

	s.signIn(first)
	other := first.Open()
	other.Do(chromedp.Navigate(s.base))
	other.Sees("name", "ada")
	first.Do(chromedp.Click("#logout"))
	first.Sees("message", "You are signed out.")
	other.Sees("message", "You are signed out.")
	other.Do(chromedp.Reload(), chromedp.WaitVisible("#login"))

	// It ends while the access token is expired.
	s.signIn(first)
	s.expire()
	require.NoError(t, s.RevokeAll(t.Context(), "u1"))
	first.Do(chromedp.Click("#reload"), chromedp.WaitVisible("#login"))
}

func TestPage_TwoTabsRefreshAtOnce(t *testing.T) {
	t.Parallel()
	first := exampletest.Chromium(t)
	s := start(t)
	s.signIn(first)
	other := first.Open()
	other.Do(chromedp.Navigate(s.base))
	other.Sees("name", "ada")

	s.expire()
	hold := make(chan struct{})
	s.hold.Store(&hold)
	var release sync.WaitGroup
	release.Go(func() { // when both tabs have sent the same refresh token
		require.Eventually(t, func() bool { return s.refreshes.Load() == 2 }, 20*time.Second, time.Millisecond)
		close(hold)
	})
	var names [2]string
	var tabs sync.WaitGroup
	for i, tab := range []exampletest.Tab{first, other} {
		tabs.Go(func() { names[i] = tab.Evaluate(requests) })
	}
	tabs.Wait()
	release.Wait()
	require.Equal(t, [2]string{"ada,ada,ada", "ada,ada,ada"}, names)
	require.EqualValues(t, 1, s.rotations.Load())

	s.expire()
	s.hold.Store(nil)
	require.Equal(t, "ada,ada,ada", first.Evaluate(requests))
	require.Equal(t, "ada,ada,ada", other.Evaluate(requests))
}

func TestPage_OutageSignsNobodyOut(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	s := start(t)
	s.signIn(tab)

	s.expire()
	s.down.Store(1)
	require.Equal(t, "ada,ada,ada", tab.Evaluate(requests))
	require.EqualValues(t, 2, s.refreshes.Load())

	s.expire()
	s.down.Store(1 << 30)
	tab.Do(chromedp.Click("#reload"))
	tab.Sees("message", "The server does not answer.")
	tab.Sees("name", "ada")
	require.EqualValues(t, 3, s.refreshes.Load())

	require.Equal(t, "temporarily_unavailable,temporarily_unavailable,temporarily_unavailable", tab.Evaluate(strings.ReplaceAll(requests, ".name", ".error")))

	s.down.Store(0)
	tab.Do(chromedp.Click("#reload"))
	tab.Sees("app", "ada")
	require.Equal(t, "ada,ada,ada", tab.Evaluate(requests))
	require.EqualValues(t, 1, s.rotations.Load())
}
