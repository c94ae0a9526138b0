package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

// oneUser is an auth.Users with a single user.
type oneUser auth.User

func (u oneUser) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return auth.User(u), nil
}

func (u oneUser) FindByID(ctx context.Context, _ string) (auth.User, error) {
	return u.FindByLogin(ctx, u.Username)
}

// TestBrowser_RefreshCookieIsOutOfReachOfScripts uses a real browser, TLS and the
// default names. The browser must store and send the cookies, and scripts must not
// be able to read or replace them.
func TestBrowser_RefreshCookieIsOutOfReachOfScripts(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	hasher := &password.Hasher{Memory: 64, Time: 1}
	hash, err := hasher.Hash(t.Context(), "correct horse battery staple")
	require.NoError(t, err)
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")}, Hasher: hasher,
		Users:   oneUser{ID: "1", Username: "ada", PasswordHash: hash},
		Cookies: &auth.Cookies{},
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_, _ = fmt.Fprint(w, "hello ", claims.Username)
	})))
	mux.HandleFunc("GET /refresh-cookies", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, len(r.CookiesNamed("__Host-Http-refresh")), len(r.CookiesNamed("__Host-Http-probe")))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><title>page</title>`)
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)

	b := newBrowser(t, t.TempDir(), chromedp.Flag("ignore-certificate-errors", true))
	b.do(chromedp.Navigate(server.URL + "/"))
	run := func(js string) string {
		t.Helper()
		result, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](js))
		require.NoError(t, err)
		return result
	}
	request := func(method, path, body string) string {
		t.Helper()
		return run(fmt.Sprintf(`(x => { x.open(%q, %q, false); x.setRequestHeader("Content-Type", "application/json");
			x.send(%q); return x.status + " " + (x.status == 200 && x.responseText.startsWith("{") ? "tokens" : x.responseText) })(new XMLHttpRequest())`, method, path, body))
	}
	script := func(cookie string) { run(`document.cookie = "` + cookie + `; Secure; Path=/"; ""`) }

	// Test with other cookies which prefixes this browser supports.
	script("plain=1")
	script("__Host-Http-probe=1")
	supported := run(`document.cookie`) == "plain=1"
	t.Logf("%s; scripts cannot set __Host-Http- cookies: %v", run(`navigator.userAgent`), supported)
	run(`document.cookie = "plain=; Secure; Path=/; Max-Age=0"; ""`)

	script("__Host-Http-refresh=planted") // before the server sets it
	if supported {
		require.Equal(t, "200 0 0", request("GET", "/refresh-cookies", ""))
	}
	require.Equal(t, "200 tokens", request("POST", "/auth/login", `{"login":"ada","password":"correct horse battery staple"}`))
	require.Equal(t, "200 hello ada", request("GET", "/me", ""))
	script("__Host-Http-refresh=planted") // after the server has set it
	script("__host-http-refresh=planted")
	run(`document.cookie = "__Host-Http-refresh=; Secure; Path=/; Max-Age=0"; ""`)
	require.NotContains(t, run(`document.cookie`), "access=")
	if supported {
		require.Equal(t, "200 1 0", request("GET", "/refresh-cookies", ""))
		require.Empty(t, run(`document.cookie`))
	}
	require.Equal(t, "200 tokens", request("POST", "/auth/refresh", ""))
	require.Equal(t, "200 hello ada", request("GET", "/me", ""))
	require.Equal(t, "204 ", request("POST", "/auth/logout", ""))
	require.Equal(t, "200 0 0", request("GET", "/refresh-cookies", ""))
}
