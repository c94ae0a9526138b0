package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

// pages is a site that the server renders, as in the guides to cookies and to
// login pages in the README.
type pages struct {
	*authtest.Authenticator
	url   string
	saved atomic.Int64 // number of forms and uploads that were saved
}

func startPages(t *testing.T) *pages {
	t.Helper()
	p := &pages{}
	hash, err := (&password.Hasher{Memory: 64, Time: 1}).Hash(t.Context(), "correct horse battery staple")
	require.NoError(t, err)
	p.Authenticator = authtest.New(t, auth.Config{
		Users: oneUser{ID: "ada", Username: "ada", PasswordHash: hash}, Cookies: &auth.Cookies{}, AutoRefresh: true,
		Now: time.Now, OnError: auth.RedirectToLogin("/login"),
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		show(w, `<form method="post" action="/login?next=`+url.QueryEscape(r.FormValue("next"))+`"><button id="sign-in">Sign in</button></form>`)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := p.CheckOrigin(r); err != nil {
			p.WriteError(w, r, err)
			return
		}
		tokens, err := p.StartSession(r.Context(), "ada", auth.SessionOptions{Replaces: p.CookieTokens(r)})
		if err != nil {
			p.WriteError(w, r, err)
			return
		}
		p.SetCookies(w, tokens)
		http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, "home") })
	secret := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("stored") != "" {
			w.Header().Del("Cache-Control")
		}
		if _, ok := auth.FromContext(r.Context()); !ok {
			show(w, "for everybody")
			return
		}
		show(w, "the secret")
	})
	mux.Handle("GET /secret", p.Require()(secret))
	mux.Handle("GET /optional", p.Optional(secret))
	mux.Handle("POST /logout", p.LogoutHandler())
	note := p.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			show(w, `<form method="post"><textarea name="text" id="text"></textarea><button id="save">Save</button></form>`)
			return
		}
		p.saved.Add(1)
		show(w, "saved: "+html.EscapeString(r.FormValue("text")))
	}))
	mux.Handle("/note", note)
	mux.Handle("POST /upload", p.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.saved.Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})))
	mux.HandleFunc("GET /without-cookies", func(w http.ResponseWriter, r *http.Request) {
		response := httptest.NewRecorder()
		p.Require()(secret).ServeHTTP(response, r)
		for name, values := range response.Header() {
			if name != "Set-Cookie" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(response.Code)
		_, _ = w.Write(response.Body.Bytes())
	})
	mux.HandleFunc("GET /go", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("by") == "header" {
			w.Header().Set("Location", auth.LocalPath(r.FormValue("next")))
			w.WriteHeader(http.StatusSeeOther)
			return
		}
		http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { show(w, "another page") })
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func show(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><title>page</title><div id="page">%s</div>`, body)
}

func (p *pages) newBrowser(t *testing.T) browser {
	t.Helper()
	return newBrowser(t, t.TempDir(), chromedp.Flag("ignore-certificate-errors", true))
}

// signIn opens a page and signs in at the login page to which it redirects.
func (p *pages) signIn(b browser, path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(p.url+path), chromedp.Click("#sign-in"))
}

func (b browser) eval(js string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](js))
	require.NoError(b.t, err)
}

func TestBrowser_BackAfterLogoutShowsNoPage(t *testing.T) {
	t.Parallel()
	p := startPages(t)
	b := p.newBrowser(t)
	for _, tt := range []struct{ path, shown string }{
		{"/secret", "Sign in"},
		{"/optional", "for everybody"},
		{"/secret?stored=1", "the secret"}, // what browsers do without Cache-Control
	} {
		p.signIn(b, "/secret")
		b.sees("page", "the secret")
		b.do(chromedp.Navigate(p.url + tt.path))
		b.sees("page", "the secret")
		b.eval(`fetch("/logout", {method: "POST"}).then(() => location.href = "/"); ""`)
		b.sees("page", "home")
		b.eval(`history.back(); ""`)
		b.sees("page", tt.shown, "the secret")
		b.sees("page", tt.shown)
	}
}

// TestBrowser_FormWithAnExpiredTokenIsSaved fills in a form, and sends it when
// the access token has expired, and when the session has ended.
func TestBrowser_FormWithAnExpiredTokenIsSaved(t *testing.T) {
	t.Parallel()
	p := startPages(t)
	b := p.newBrowser(t)
	p.signIn(b, "/note?id=1&x=%2F")
	b.do(chromedp.WaitVisible("#text"), chromedp.SendKeys("#text", "typed text"))
	p.Clock.Advance(time.Hour)
	b.do(chromedp.Click("#save"))
	b.sees("page", "saved: typed text")
	require.EqualValues(t, 1, p.saved.Load())

	// A page load and a page whose cookies are not stored.
	p.Clock.Advance(time.Hour)
	b.do(chromedp.Navigate(p.url + "/secret"))
	b.sees("page", "the secret")
	p.Clock.Advance(time.Hour)
	b.do(chromedp.Navigate(p.url + "/without-cookies"))
	b.sees("page", "the secret")
	b.do(chromedp.Navigate(p.url + "/secret"))
	b.sees("page", "the secret")

	// An upload, in a script.
	p.Clock.Advance(time.Hour)
	b.eval(`fetch("/upload", {method: "POST", body: new Uint8Array(4 << 20)}).then(r => r.text())
		.then(text => document.getElementById("page").innerText = text, e => document.getElementById("page").innerText = "failed " + e); ""`)
	b.sees("page", "4194304 <nil>", "failed")
	b.sees("page", "4194304 <nil>")
	require.EqualValues(t, 2, p.saved.Load())

	b.do(chromedp.Navigate(p.url+"/note"), chromedp.WaitVisible("#text"), chromedp.SendKeys("#text", "typed before the end"))
	require.NoError(t, p.RevokeAll(t.Context(), "ada"))
	b.do(chromedp.Click("#save"), chromedp.WaitVisible(`//h1[.="You must sign in again"]`))
	other := b.tab()
	p.signIn(other, "/login")
	other.sees("page", "home")
	b.do(chromedp.Reload())
	b.sees("page", "saved: typed before the end")
	require.EqualValues(t, 3, p.saved.Load())
}

// TestBrowser_LocalPathStaysOnTheOrigin tries combinations of up to four parts
// of a URL in a real browser.
func TestBrowser_LocalPathStaysOnTheOrigin(t *testing.T) {
	t.Parallel()
	p := startPages(t)
	b := p.newBrowser(t)
	parts := []string{
		"/", `\`, ".", "..", "\t", "\n", " ", "\x00", "%2F", "%5C", "%2e", "%09", "evil.example", "@", ":", "?", "#", "https:", "javascript:", "ä", "／",
	}
	last := []string{""}
	var followed, all, accepted []string // of up to two parts (all of them with AUTH_LONG=1), three, and four
	for n := 1; n <= 4; n++ {
		var longer []string
		for _, head := range last {
			for _, part := range parts {
				longer = append(longer, head+part)
			}
		}
		last = longer
		for _, s := range longer {
			if n == 1 || n == 2 && (strings.HasPrefix(s, "/") || os.Getenv("AUTH_LONG") == "1") {
				followed = append(followed, s)
			}
			if n <= 3 {
				all = append(all, s)
			}
			if auth.LocalPath(s) == s {
				accepted = append(accepted, s)
			}
		}
	}
	require.Greater(t, len(accepted), 1000)
	b.do(chromedp.Navigate(p.url + "/some/page"))
	ask := func(js string, list []string) (found []string) {
		t.Helper()
		text, err := json.Marshal(list)
		require.NoError(t, err)
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(js, text)))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(out), &found))
		return found
	}
	const leave = `JSON.stringify(%s.filter(s => { try { return new URL(s, location.href).origin != location.origin } catch { return true } }))`
	require.Empty(t, ask(leave, accepted))
	leaving := ask(leave, all) // without LocalPath
	for _, s := range []string{`/\evil.example`, "/\t/", `\\evil.example`, `/\/`, "javascript:"} {
		require.True(t, slices.Contains(leaving, s), "%q", s)
	}
	// Redirects. The browser does not follow one to another origin here.
	list, err := json.Marshal(followed)
	require.NoError(t, err)
	b.eval(`(async list => {
			const left = [];
			for (const s of list) for (const by of ["header", "function"]) {
				try {
					const r = await fetch("/go?by=" + by + "&next=" + encodeURIComponent(s), {mode: "same-origin"});
					if (new URL(r.url).origin != location.origin) left.push(s);
				} catch (e) { left.push(s + " " + e); }
			}
			document.getElementById("page").innerText = "left: " + JSON.stringify(left);
		})(` + string(list) + `); ""`)
	b.sees("page", "left: ")
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.getElementById("page").innerText`))
	require.NoError(t, err)
	require.Equal(t, "left: []", text)
}
