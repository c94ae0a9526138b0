package main

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const (
	email = "ada@example.com"
	old   = "correct horse battery staple"
	other = "another long password"
)

// server is the site with a clock that the test advances. Mails are in sent.
type server struct {
	*site
	auth *authtest.Authenticator
	http.Handler
	sent [][2]string // the address and the link of each mail
}

func newServer(t *testing.T) *server {
	t.Helper()
	us, err := newUsers()
	require.NoError(t, err)
	us.list = append(us.list, auth.User{ID: "u2", Username: "eve@example.com", Disabled: true})
	c := config(us)
	c.Hasher = &password.Hasher{Memory: 64, Time: 1, Screen: screen} // fast and weak
	c.OnEvent = nil                                                  // authtest has its own
	a := authtest.New(t, c)
	s := &server{auth: a}
	s.site = newSite(a.Authenticator, us, func(to, link string) error {
		s.sent = append(s.sent, [2]string{to, link})
		return nil
	}, "http://localhost", time.Minute)
	s.now = a.Clock.Now
	s.Handler = s.routes()
	return s
}

// send sends a request with a form, unless that is nil.
func (s *server) send(method, target string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+strings.TrimPrefix(target, "http://localhost"), strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// newLink returns a link for ada that sendLink has sent.
func (s *server) newLink(t *testing.T) string {
	t.Helper()
	s.auth.Clock.Advance(time.Minute) // no mail in this interval yet
	s.sent = nil
	require.NoError(t, s.sendLink(t.Context(), email))
	require.Len(t, s.sent, 1)
	require.Equal(t, email, s.sent[0][0])
	return s.sent[0][1]
}

// token returns the token of the form that a page has.
func token(t *testing.T, page string) string {
	t.Helper()
	field := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(page)
	require.NotNil(t, field, page)
	return html.UnescapeString(field[1])
}

func fields(pairs ...string) url.Values {
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

func TestForgot_AnswersEverybodyAlike(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	known := s.send("POST", "/forgot", fields("email", " ADA@example.com"), "Host", "evil.example")
	require.Equal(t, 200, known.Code)
	for _, address := range []string{"nobody@example.com", "eve@example.com", "", "a\x00b", strings.Repeat("x", 10_000)} {
		w := s.send("POST", "/forgot", fields("email", address))
		require.Equal(t, []any{known.Code, known.Body.String(), known.Header()}, []any{w.Code, w.Body.String(), w.Header()}, address)
	}
	require.Empty(t, s.sent, "the answer does not wait for the lookup and the mail")
	for len(s.asked) > 0 {
		require.NoError(t, s.sendLink(t.Context(), <-s.asked))
	}
	require.Len(t, s.sent, 1, "only a user who can sign in gets a mail")
	require.Equal(t, email, s.sent[0][0], "to the address of the user")
	require.True(t, strings.HasPrefix(s.sent[0][1], "http://localhost/reset?token="), "the host of the request is not in the link")

	for range 2 * cap(s.asked) { // nobody reads the queue
		w := s.send("POST", "/forgot", fields("email", email))
		require.Equal(t, known.Body.String(), w.Body.String())
	}
}

func TestForgot_SendsOneMailPerInterval(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.newLink(t)
	for range 3 {
		require.NoError(t, s.sendLink(t.Context(), email))
	}
	require.Len(t, s.sent, 1)
	s.newLink(t)
}

// A program that scans mails follows each link, in several ways. Then the person does.
func TestReset_OnlyTheFormUsesTheLink(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for range 2 {
		_, err := s.StartSession(t.Context(), "u1", auth.SessionOptions{})
		require.NoError(t, err)
	}
	first, second := s.newLink(t), s.newLink(t)
	for _, scan := range [][]string{
		{"HEAD"},
		{"GET"},
		{"GET", "Purpose", "prefetch"},
		{"GET", "Sec-Purpose", "prefetch;prerender"},
		{"GET", "User-Agent", "scanner", "Accept", "*/*"},
	} {
		w := s.send(scan[0], second, nil, scan[1:]...)
		require.Equal(t, 200, w.Code)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"))
	}
	require.Equal(t, 405, s.send("PUT", second, nil).Code)
	form := fields("token", token(t, s.send("GET", second, nil).Body.String()), "password", "too short")
	w := s.send("POST", "/reset", form)
	require.Equal(t, 422, w.Code)
	require.Equal(t, form.Get("token"), token(t, w.Body.String()), "the form can be sent again")

	// With the policy no-referrer, browsers send this Origin.
	form.Set("password", other)
	w = s.send("POST", "/reset", form, "Origin", "null", "Sec-Fetch-Site", "same-origin")
	require.Equal(t, []any{303, "/?changed"}, []any{w.Code, w.Header().Get("Location")})
	require.Empty(t, w.Result().Cookies(), "a link in a mail signs nobody in")
	authtest.HasSessions(t, s.auth, "u1")

	for _, link := range []string{first, second} {
		w = s.send("GET", link, nil)
		require.Equal(t, 400, w.Code)
		require.Contains(t, w.Body.String(), "not good any more")
		_, token, _ := strings.Cut(link, "token=")
		require.Equal(t, 400, s.send("POST", "/reset", fields("token", token, "password", old)).Code)
	}
	for pass, want := range map[string]int{old: 401, other: 303} {
		require.Equal(t, want, s.send("POST", "/login", fields("login", email, "password", pass)).Code)
	}
}

func TestReset_RefusesOtherLinks(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ask := func(token string) int {
		return s.send("POST", "/reset", fields("token", token, "password", other)).Code
	}
	issue := func(o auth.OneTime) string {
		token, err := s.IssueOneTime(t.Context(), o)
		require.NoError(t, err)
		return token
	}
	tokens, err := s.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	for name, token := range map[string]string{
		"none":            "",
		"text":            "x",
		"access token":    tokens.Access,
		"refresh token":   tokens.Refresh,
		"another purpose": issue(auth.OneTime{Purpose: "verify-email", Subject: "u1", TTL: time.Hour, BoundToPassword: true}),
		"disabled user":   issue(auth.OneTime{Purpose: purpose, Subject: "u2", TTL: time.Hour, BoundToPassword: true}),
	} {
		require.Equal(t, 400, ask(token), name)
	}
	_, late, _ := strings.Cut(s.newLink(t), "token=")
	_, ended, _ := strings.Cut(s.newLink(t), "token=")
	require.NoError(t, s.RevokeAll(t.Context(), "u1"))
	require.Equal(t, 400, ask(ended), "RevokeAll")
	s.auth.Clock.Advance(lifetime)
	require.Equal(t, 400, ask(late), "expired")
	_, bound, _ := strings.Cut(s.newLink(t), "token=")
	u, err := s.users.FindByID(t.Context(), "u1")
	require.NoError(t, err)
	hash, err := s.HashPassword(t.Context(), other, auth.Device{})
	require.NoError(t, err)
	require.NoError(t, s.users.UpdatePasswordHash(t.Context(), "u1", u.PasswordHash, hash))
	require.Equal(t, 400, ask(bound), "another program has changed the password")
	_, good, _ := strings.Cut(s.newLink(t), "token=")
	s.auth.Clock.Advance(lifetime - time.Second)
	require.Equal(t, 303, ask(good))
}

func TestRoutes_RefuseFormsOfOtherSites(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_, good, _ := strings.Cut(s.newLink(t), "token=")
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example"}, {"Origin", "null"}} {
		require.Equal(t, 403, s.send("POST", "/forgot", fields("email", email), headers...).Code)
		require.Equal(t, 403, s.send("POST", "/reset", fields("token", good, "password", other), headers...).Code)
		require.Equal(t, 403, s.send("POST", "/login", fields("login", email, "password", old), headers...).Code)
	}
	require.Empty(t, s.asked)
	require.Equal(t, 303, s.send("POST", "/reset", fields("token", good, "password", other)).Code)
}

// mailed waits for mail number n in a folder, and returns its link.
func mailed(t *testing.T, folder string, n int) string {
	t.Helper()
	var files []string
	require.Eventually(t, func() bool {
		var err error
		files, err = filepath.Glob(filepath.Join(folder, "*.eml"))
		return err == nil && len(files) >= n
	}, time.Minute, 5*time.Millisecond)
	require.Len(t, files, n)
	text, err := os.ReadFile(files[n-1]) // their names begin with the time
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), "To: "+email+"\r\n"))
	return regexp.MustCompile(`http://\S+`).FindString(string(text))
}

func TestProgram_SetsAPasswordByMail(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "mail")
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-mail", folder, "-interval", "1ns")
	var clients []*http.Client // browsers of ada
	for range 2 {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		clients = append(clients, &http.Client{Jar: jar})
	}
	do := func(c *http.Client, path string, form url.Values) (int, string) {
		resp, err := c.Get(p.URL + path)
		if form != nil {
			resp, err = c.PostForm(p.URL+path, form)
		}
		require.NoError(t, err)
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(page)
	}
	for _, c := range clients {
		_, page := do(c, "/login", fields("login", email, "password", old))
		require.Contains(t, page, "You are signed in as "+email)
	}
	_, known := do(clients[0], "/forgot", fields("email", email))
	_, unknown := do(clients[0], "/forgot", fields("email", "nobody@example.com"))
	require.Equal(t, known, unknown)
	first := strings.TrimPrefix(mailed(t, folder, 1), p.URL)
	do(clients[0], "/forgot", fields("email", email))
	second := strings.TrimPrefix(mailed(t, folder, 2), p.URL)
	info, err := os.Stat(folder)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	for range 3 { // a scanner
		status, _ := do(http.DefaultClient, first, nil)
		require.Equal(t, 200, status)
	}
	_, page := do(http.DefaultClient, first, nil)
	status, page := do(http.DefaultClient, "/reset", fields("token", token(t, page), "password", other))
	require.Equal(t, 200, status)
	require.Contains(t, page, "Your password has been changed")
	for _, link := range []string{first, second} {
		status, page = do(http.DefaultClient, link, nil)
		require.Equal(t, 400, status)
		require.Contains(t, page, "not good any more")
	}
	for _, c := range clients {
		_, page = do(c, "/", nil)
		require.Contains(t, page, "Forgot your password?", "signed out")
	}
	status, _ = do(clients[0], "/login", fields("login", email, "password", old))
	require.Equal(t, 401, status)
	_, page = do(clients[0], "/login", fields("login", email, "password", other))
	require.Contains(t, page, "You are signed in as "+email)
	_, secret, _ := strings.Cut(second, "token=")
	require.NotContains(t, p.Output(), secret)
}

// A browser sends the forms in spite of the policy no-referrer.
func TestProgram_InABrowser(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	folder := filepath.Join(t.TempDir(), "mail")
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-mail", folder)
	tab.Do(chromedp.Navigate(p.URL+"/forgot"), chromedp.SendKeys(`[name="email"]`, email+kb.Enter))
	tab.Sees("page", "If there is a user with this address")
	tab.Do(chromedp.Navigate(mailed(t, folder, 1)), chromedp.SendKeys(`[name="password"]`, other+kb.Enter))
	tab.Sees("page", "Your password has been changed")
	tab.Do(chromedp.SendKeys(`[name="login"]`, email), chromedp.SendKeys(`[name="password"]`, other+kb.Enter))
	tab.Sees("page", "You are signed in as "+email)
}
