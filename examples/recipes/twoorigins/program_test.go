package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
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

func TestProgram_ServesBothOrigins(t *testing.T) {
	t.Parallel()
	page, api := "localhost:"+testserver.FreePort(t), "localhost:"+testserver.FreePort(t)
	p := exampletest.Start(t, nil, "-addr", page, "-api-addr", api)
	require.Equal(t, "http://"+page+", with the API on http://"+api, p.URL)
	for url, status := range map[string]int{"http://" + page: 200, "http://" + page + "/web/app.js": 200, "http://" + page + "/me": 404, "http://" + api + "/me": 401} {
		resp, err := http.Get(url)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode, url)
	}
}

// listen returns a server at localhost that does not serve yet, and its origin.
func listen(t *testing.T) (server *httptest.Server, origin string) {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	server = httptest.NewUnstartedServer(nil)
	_ = server.Listener.Close()
	server.Listener = listener
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return server, "http://localhost:" + port
}

func TestPage_CallsTheAPIOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	pageServer, page := listen(t)
	apiServer, apiOrigin := listen(t)
	otherServer, other := listen(t)
	c, err := config(page, apiOrigin)
	require.NoError(t, err)
	c.OnEvent = nil // authtest logs to t
	a := authtest.New(t, c)
	var mu sync.Mutex
	seen := map[string]int{} // requests by method, path and origin
	handler := api(a.Authenticator, page)
	apiServer.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Method+" "+r.URL.Path+" "+r.Header.Get("Origin")]++
		mu.Unlock()
		handler.ServeHTTP(w, r)
	})
	pageServer.Config.Handler = pages(apiOrigin)
	otherServer.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<!doctype html><link rel="icon" href="data:,"><title>other</title>`))
	})
	for _, s := range []*httptest.Server{pageServer, apiServer, otherServer} {
		s.Start()
	}
	count := func(request string) int {
		mu.Lock()
		defer mu.Unlock()
		return seen[request]
	}

	tab.Do(chromedp.Navigate(page), chromedp.WaitVisible("#login"),
		chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "wrong"+kb.Enter))
	tab.Sees("message", "Name or password is wrong.")
	tab.Do(chromedp.Navigate(page), chromedp.WaitVisible("#login"), chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "correct horse battery staple"+kb.Enter))
	tab.Sees("name", "ada")
	a.Clock.Advance(16 * time.Minute)
	tab.Do(chromedp.Reload())
	tab.Sees("name", "ada")
	require.Equal(t, 1, count("POST /auth/refresh "+page))
	require.Equal(t, 1, count("OPTIONS /auth/refresh "+page), "the header Refresh-Key needs a preflight request")

	// A page of the same site gets the cookies sent along, but its origin is not trusted.
	tab.Do(chromedp.Navigate(other))
	fetch := func(path, options string) string {
		return tab.Evaluate(`fetch("` + apiOrigin + path + `", {credentials: "include", ` + options + `}).then((r) => r.type, (e) => e.name)`)
	}
	require.Equal(t, "TypeError", fetch("/me", ""), "another origin must not read responses")
	require.Equal(t, "TypeError", fetch("/auth/logout", `method: "DELETE"`), "a preflight request of another origin must be refused")
	require.Zero(t, count("DELETE /auth/logout "+other))
	require.Equal(t, "opaque", fetch("/auth/logout", `method: "POST", mode: "no-cors"`), "this request is sent, and the origin is checked")
	require.Equal(t, 1, count("POST /auth/logout "+other))
	sessions, err := a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 1, "another origin must not sign the user out")

	tab.Do(chromedp.Navigate(page))
	tab.Sees("name", "ada")
	tab.Do(chromedp.Click("#logout"))
	tab.Sees("message", "You are signed out.")
	sessions, err = a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Empty(t, sessions)

	authtest.ThrottleLogin(t, a, "bob")
	tab.Do(chromedp.SendKeys(`[name="login"]`, "bob"), chromedp.SendKeys(`[name="password"]`, "wrong"+kb.Enter))
	tab.Sees("message", "Try again in 1 s.") // CORS exposes the header Retry-After
}

func TestAPI_OnlyTheTrustedOriginMayWrite(t *testing.T) {
	t.Parallel()
	const page = "http://localhost:8080"
	c, err := config(page, "http://localhost:8081")
	require.NoError(t, err)
	c.OnEvent = nil // authtest logs to t
	a := authtest.New(t, c)
	handler := api(a.Authenticator, page)
	for _, tt := range []struct {
		method, path, origin string
		status               int
		allowed              string // Access-Control-Allow-Origin
	}{
		{"GET", "/me", page, 200, page},
		{"GET", "/me", "http://localhost:9090", 200, ""}, // the browser does not show the response to the page
		{"POST", "/auth/logout/all", page, 204, page},
		{"POST", "/auth/logout/all", "http://localhost:9090", 403, ""},
		{"OPTIONS", "/me", page, 204, page},
	} {
		r := httptest.NewRequest(tt.method, "http://localhost:8081"+tt.path, http.NoBody)
		r.Header.Set("Origin", tt.origin)
		r.Header.Set("Sec-Fetch-Site", "same-site")
		if tt.method == "OPTIONS" {
			r.Header.Set("Access-Control-Request-Method", "GET")
		} else {
			r = authtest.As(t, a, r, auth.User{ID: "u1"})
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		require.Equal(t, tt.status, w.Code, "%v: %s", tt, w.Body)
		require.Equal(t, tt.allowed, w.Header().Get("Access-Control-Allow-Origin"), "%v", tt)
	}
}
