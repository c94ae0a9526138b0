package main

import (
	"crypto/sha1" //nolint:gosec // RFC 6455
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

const sitePassword = "correct horse battery staple"

// newSiteAuth returns an Authenticator with one user, ada.
func newSiteAuth(t *testing.T, cookies *auth.Cookies, onError func(error)) *auth.Authenticator {
	t.Helper()
	hasher := &password.Hasher{Memory: 64, Time: 1}
	hash, err := hasher.Hash(t.Context(), sitePassword)
	require.NoError(t, err)
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")}, Hasher: hasher,
		Users: oneUser{ID: "1", Username: "ada", PasswordHash: hash}, Cookies: cookies,
		OnError: func(w http.ResponseWriter, r *http.Request, err error) {
			if onError != nil {
				onError(err)
			}
			auth.DefaultOnError(w, r, err)
		},
	})
	require.NoError(t, err)
	return a
}

// resolveSites makes a browser find every host under the domain "example" on this
// machine.
func resolveSites() []chromedp.ExecAllocatorOption {
	return []chromedp.ExecAllocatorOption{
		chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"),
	}
}

func sitePage(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><title>page</title>`+body)
}

func evaluate(t *testing.T, b browser, js string) string {
	t.Helper()
	result, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return result
}

// journey is a script that signs in at the origin api, calls a protected handler,
// refreshes twice, calls it again, signs out, and calls it again. It returns the
// status codes, and the cookies that the server has received at the end. If a
// cookie is not kept, the first call returns 401.
const journey = `(async (api) => {
	const call = (method, path, body) => fetch(api + path, {method, body, credentials: "include",
		headers: body ? {"Content-Type": "application/json"} : {}})
	const codes = [(await call("POST", "/auth/login", JSON.stringify({login: "ada", password: "` + sitePassword + `"}))).status]
	for (const [method, path] of [["GET", "/me"], ["POST", "/auth/refresh"], ["POST", "/auth/refresh"], ["POST", "/me"],
		["POST", "/auth/logout"], ["GET", "/me"]]) codes.push((await call(method, path)).status)
	return codes.join(" ") + " [" + await (await call("GET", "/cookies")).text() + "]"
})`

const (
	cookiesKept   = "200 200 200 200 200 204 401 []"
	cookiesAbsent = "200 401 400 400 401 204 401 []"
)

// showCookies writes the token cookies of a request.
func showCookies(w http.ResponseWriter, r *http.Request) {
	var tokens []string
	for _, c := range r.Cookies() {
		if !strings.HasSuffix(c.Name, "device") { // it stays after a logout
			tokens = append(tokens, c.String())
		}
	}
	_, _ = fmt.Fprint(w, strings.Join(tokens, "; "))
}

// TestBrowser_CookiesAcrossSites uses a real browser, TLS and pages of two sites,
// one.example and two.example. The API is on hosts of two.example.
func TestBrowser_CookiesAcrossSites(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	apis := map[string]http.Handler{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		api := apis[host]
		switch {
		case r.URL.Path == "/page":
			sitePage(w, "")
		case r.URL.Path == "/frame": // a page of another site in a frame
			sitePage(w, `<iframe src="`+r.URL.Query().Get("src")+`"></iframe><script>onmessage = (e) => { document.title = e.data }</script>`)
		case r.URL.Path == "/framed":
			sitePage(w, `<script>`+journey+`("").then((codes) => parent.postMessage(codes, "*"))</script>`)
		case api != nil:
			api.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
	origin := func(host string) string { return "https://" + host + ":" + port }
	trusted := []string{origin("app.one.example"), origin("app.two.example")}
	for host, cookies := range map[string]*auth.Cookies{
		"lax.two.example":         {TrustedOrigins: trusted},
		"none.two.example":        {TrustedOrigins: trusted, SameSite: http.SameSiteNoneMode},
		"partitioned.two.example": {TrustedOrigins: trusted, SameSite: http.SameSiteNoneMode, Partitioned: true},
		"distrusts.two.example":   {TrustedOrigins: []string{"https://other.example"}, SameSite: http.SameSiteNoneMode, Partitioned: true},
	} {
		a := newSiteAuth(t, cookies, nil)
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
		mux.Handle("/me", a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		mux.HandleFunc("/cookies", showCookies)
		apis[host] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // CORS
			if from := r.Header.Get("Origin"); from != "" {
				w.Header().Set("Access-Control-Allow-Origin", from)
				w.Header().Set("Access-Control-Allow-Credentials", "true")
				w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
			}
			if r.Method != http.MethodOptions {
				mux.ServeHTTP(w, r)
			}
		})
	}
	for _, mode := range []struct {
		name    string
		blocked bool // third-party cookies
		setting string
	}{
		{"allows third-party cookies", false, `{"profile": {"cookie_controls_mode": 0}}`},
		{"blocks third-party cookies", true, `{"profile": {"cookie_controls_mode": 1}}`},
	} {
		profile := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(profile, "Default"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(mode.setting), 0o600))
		b := newBrowser(t, t.TempDir(), append(resolveSites(), chromedp.UserDataDir(profile))...)
		fetch := func(page, api string) string {
			t.Helper()
			b.do(chromedp.Navigate(origin(page) + "/page"))
			return evaluate(t, b, journey+`("`+origin(api)+`")`)
		}
		frame := func(page, api string) string {
			t.Helper()
			b.do(chromedp.Navigate(origin(page) + "/frame?src=" + url.QueryEscape(origin(api)+"/framed")))
			return evaluate(t, b, `new Promise((done) => { const f = () => document.title == "page" ? setTimeout(f, 20) : done(document.title); f() })`)
		}
		t.Log(mode.name, evaluate(t, b, `navigator.userAgent`))
		kept := func(yes bool) string {
			if yes {
				return cookiesKept
			}
			return cookiesAbsent
		}
		for _, do := range []func(page, api string) string{fetch, frame} {
			require.Equal(t, cookiesKept, do("app.two.example", "lax.two.example"), "same site, other origin")
			require.Equal(t, cookiesAbsent, do("app.one.example", "lax.two.example"), "another site, Lax; %s", mode.name)
			require.Equal(t, kept(!mode.blocked), do("app.one.example", "none.two.example"), "another site, None; %s", mode.name)
			require.Equal(t, cookiesKept, do("app.one.example", "partitioned.two.example"), "another site, Partitioned; %s", mode.name)
			require.Equal(t, cookiesKept, do("app.two.example", "partitioned.two.example"), "same site, Partitioned; %s", mode.name)
		}
		// A partitioned session belongs to the site of the page.
		in, me := `fetch("`+origin("partitioned.two.example")+`/auth/login", {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"},
			body: JSON.stringify({login: "ada", password: "`+sitePassword+`"})}).then((r) => "" + r.status)`,
			`fetch("`+origin("partitioned.two.example")+`/me", {credentials: "include"}).then((r) => "" + r.status)`
		b.do(chromedp.Navigate(origin("app.one.example") + "/page"))
		require.Equal(t, "200 200", evaluate(t, b, in)+" "+evaluate(t, b, me))
		b.do(chromedp.Navigate(origin("app.two.example") + "/page"))
		require.Equal(t, "401", evaluate(t, b, me))
		b.do(chromedp.Navigate(origin("www.one.example") + "/page")) // another origin of the first site
		require.Equal(t, "200", evaluate(t, b, me))
		require.Equal(t, "403 401 400 400 401 403 401 []", fetch("app.one.example", "distrusts.two.example"), "the origin is not trusted")
	}
}

// TestBrowser_SitesOfLoopbackHosts shows which loopback hosts are one site.
func TestBrowser_SitesOfLoopbackHosts(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	var ports []string
	for range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			if r.URL.Path == "/page" {
				sitePage(w, "")
				return
			}
			_, _ = fmt.Fprint(w, r.Header.Get("Sec-Fetch-Site"))
		}))
		t.Cleanup(s.Close)
		ports = append(ports, s.URL[strings.LastIndex(s.URL, ":"):])
	}
	b := newBrowser(t, t.TempDir(), chromedp.Flag("host-resolver-rules", "MAP * 127.0.0.1"))
	for _, tt := range []struct{ page, api, site string }{
		{"localhost", "localhost", "same-site"},
		{"127.0.0.1", "127.0.0.1", "same-site"},
		{"app.localhost", "api.localhost", "cross-site"},
		{"localhost", "api.localhost", "cross-site"},
		{"app.dev.localhost", "api.dev.localhost", "same-site"},
		{"localhost", "127.0.0.1", "cross-site"},
	} {
		b.do(chromedp.Navigate("http://" + tt.page + ports[0] + "/page"))
		require.Equal(t, tt.site, evaluate(t, b, `fetch("http://`+tt.api+ports[1]+`/").then((r) => r.text())`), "%s, %s", tt.page, tt.api)
	}
}

// TestBrowser_WebSocketThroughAProxyThatReplacesHost opens WebSockets of a real
// browser through a reverse proxy whose requests have the Host of the backend.
func TestBrowser_WebSocketThroughAProxyThatReplacesHost(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	var mu sync.Mutex
	var handshakes []http.Header
	var refusals []string
	backend := func(trusted ...string) *url.URL {
		a := newSiteAuth(t, &auth.Cookies{TrustedOrigins: trusted}, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			refusals = append(refusals, err.Error())
		})
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
		mux.Handle("/me", a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		mux.HandleFunc("/cookies", showCookies)
		ws := a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, _ := auth.FromContext(r.Context())
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455
			_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(accept[:]))
			_, _ = fmt.Fprintf(rw, "\x81%c%s\x88\x00", len(claims.Username), claims.Username) // a text frame and a close frame
			_ = rw.Flush()
			_, _ = rw.ReadByte() // the client's close frame
		}))
		mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			handshakes = append(handshakes, r.Header.Clone())
			mu.Unlock()
			ws.ServeHTTP(w, r)
		})
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		u, err := url.Parse(s.URL)
		require.NoError(t, err)
		return u
	}
	backends := map[string]*url.URL{}
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		if r.URL.Path == "/page" {
			sitePage(w, "")
			return
		}
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(backends[host]) // the outgoing Host is that of the backend
		}}).ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(proxy.URL, "https://"), ":")
	origin := func(host string) string { return "https://" + host + ":" + port }
	backends["listed.example"] = backend(origin("listed.example"))
	backends["unlisted.example"] = backend()

	b := newBrowser(t, t.TempDir(), resolveSites()...)
	open := func(page, host string) string {
		t.Helper()
		b.do(chromedp.Navigate(origin(page) + "/page"))
		return evaluate(t, b, `new Promise((done) => {
			const ws = new WebSocket("wss://`+host+":"+port+`/ws")
			ws.onmessage = (e) => done("hello " + e.data)
			ws.onerror = () => done("refused")
		})`)
	}
	for _, host := range []string{"listed.example", "unlisted.example"} {
		b.do(chromedp.Navigate(origin(host) + "/page"))
		// Requests by fetch have Sec-Fetch-Site, so Host does not matter.
		require.Equal(t, cookiesKept, evaluate(t, b, journey+`("")`))
		require.Equal(t, "200", evaluate(t, b, `fetch("/auth/login", {method: "POST", headers: {"Content-Type": "application/json"},
			body: JSON.stringify({login: "ada", password: "`+sitePassword+`"})}).then((r) => "" + r.status)`))
	}
	mu.Lock()
	handshakes, refusals = nil, nil
	mu.Unlock()
	require.Equal(t, "hello ada", open("listed.example", "listed.example"))
	require.Equal(t, "refused", open("unlisted.example", "unlisted.example"))
	require.Equal(t, "refused", open("blog.listed.example", "listed.example"), "the same site, but another origin")
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, handshakes, 3)
	for _, h := range handshakes {
		require.Contains(t, h.Get("Cookie"), "__Host-access=")
		t.Logf("Origin %q, Sec-Fetch-Site %q", h.Get("Origin"), h.Get("Sec-Fetch-Site"))
	}
	require.Equal(t, []string{
		fmt.Sprintf(`auth: cross-origin request refused: Origin %q is not in Cookies.TrustedOrigins (Host %q, Sec-Fetch-Site "")`,
			origin("unlisted.example"), backends["unlisted.example"].Host),
		fmt.Sprintf(`auth: cross-origin request refused: Origin %q is not in Cookies.TrustedOrigins (Host %q, Sec-Fetch-Site "")`,
			origin("blog.listed.example"), backends["listed.example"].Host),
	}, refusals)
}
