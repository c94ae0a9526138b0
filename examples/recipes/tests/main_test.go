package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

// newApp returns the application, with the users of newAccounts and a clock that
// stands still.
func newApp(t *testing.T) (*authtest.Authenticator, http.Handler) {
	t.Helper()
	us, err := newAccounts(&password.Hasher{Time: 1, Memory: 8}) // fast and weak
	require.NoError(t, err)
	a := authtest.New(t, config(us))
	return a, routes(a.Authenticator, us)
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	reader := auth.User{ID: "u7", Extra: map[string]any{"tenant": "acme"}} // need not be among the accounts
	editor := auth.User{ID: "u8", Roles: []string{"editor"}, Extra: map[string]any{"tenant": "acme"}}
	support := authtest.Session(auth.SessionOptions{Actor: "u9"}) // acts for the user
	for name, tc := range map[string]struct {
		request string
		user    *auth.User // nil: not signed in
		opts    []authtest.Option
		status  int
		body    string
	}{
		"nobody":           {"GET /notes", nil, nil, 401, `"error":"missing_token"`},
		"a reader reads":   {"GET /notes", &reader, nil, 200, "acme []"},
		"a reader writes":  {"POST /notes", &reader, nil, 403, `"error":"insufficient_scope"`},
		"an editor writes": {"POST /notes", &editor, nil, 204, ""},
		"expired":          {"GET /notes", &editor, []authtest.Option{authtest.Expired()}, 401, `"action":"refresh"`},
		"revoked":          {"GET /notes", &editor, []authtest.Option{authtest.Revoked()}, 401, `"action":"login"`},
		"recent login":     {"POST /password", &editor, []authtest.Option{authtest.LoginAge(4 * time.Minute)}, 400, `"the password is empty"`},
		"support reads":    {"GET /notes", &editor, []authtest.Option{support}, 200, "acme []"},
		"support changes":  {"POST /password", &editor, []authtest.Option{support}, 403, `"error":"insufficient_scope"`},
		"old login":        {"POST /password", &editor, []authtest.Option{authtest.LoginAge(6 * time.Minute)}, 401, `"error":"insufficient_user_authentication"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, app := newApp(t)
			method, path, _ := strings.Cut(tc.request, " ")
			r := httptest.NewRequest(method, path, nil)
			if tc.user != nil {
				r = authtest.As(t, a, r, *tc.user, tc.opts...)
			}
			w := httptest.NewRecorder()
			app.ServeHTTP(w, r)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.Contains(t, w.Body.String(), tc.body)
		})
	}
}

// browser is a client of a running server that keeps cookies. The server needs TLS,
// because the cookies are Secure.
type browser struct {
	t    *testing.T
	base string
	http *http.Client
}

func newBrowser(t *testing.T, server *httptest.Server) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &browser{t, server.URL, &http.Client{Jar: jar, Transport: server.Client().Transport}}
}

// do sends a request. It returns the status and the body.
func (b *browser) do(method, path string, form url.Values) (int, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := b.http.Do(r)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return resp.StatusCode, string(body)
}

func (b *browser) signIn(login, pass string) int {
	b.t.Helper()
	status, _ := b.do(http.MethodPost, "/auth/login", url.Values{"login": {login}, "password": {pass}})
	return status
}

func TestLogin_RefreshAndLogout(t *testing.T) {
	t.Parallel()
	a, app := newApp(t)
	server := httptest.NewTLSServer(app)
	defer server.Close()
	b := newBrowser(t, server)
	require.Equal(t, 401, b.signIn("ada", "wrong"))
	require.Equal(t, 200, b.signIn("ada", "correct horse battery staple"))
	status, _ := b.do(http.MethodPost, "/notes", url.Values{"text": {"hello"}})
	require.Equal(t, 204, status)
	_, body := b.do(http.MethodGet, "/notes", nil)
	require.Equal(t, "acme [\"hello\"]\n", body)

	a.Clock.Advance(16 * time.Minute)
	status, body = b.do(http.MethodGet, "/notes", nil)
	require.Equal(t, 401, status)
	require.Contains(t, body, `"action":"refresh"`)
	status, _ = b.do(http.MethodPost, "/auth/refresh", nil)
	require.Equal(t, 200, status)
	status, _ = b.do(http.MethodGet, "/notes", nil)
	require.Equal(t, 200, status)

	status, _ = b.do(http.MethodPost, "/auth/logout", nil)
	require.Equal(t, 204, status)
	sessions, err := a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Empty(t, sessions)
}

// After too many wrong passwords, the right one must wait too.
func TestLogin_AfterTooManyAttempts(t *testing.T) {
	t.Parallel()
	a, app := newApp(t)
	server := httptest.NewTLSServer(app)
	defer server.Close()
	b := newBrowser(t, server)
	authtest.ThrottleLogin(t, a, "ada")
	require.Equal(t, 429, b.signIn("ada", "correct horse battery staple"))
	a.Clock.Advance(time.Second)
	require.Equal(t, 200, b.signIn("ada", "correct horse battery staple"))
}

func TestPassword_ChangeEndsOtherSessions(t *testing.T) {
	t.Parallel()
	a, app := newApp(t)
	server := httptest.NewTLSServer(app)
	defer server.Close()
	laptop, phone := newBrowser(t, server), newBrowser(t, server)
	require.Equal(t, 200, laptop.signIn("ada", "correct horse battery staple"))
	require.Equal(t, 200, phone.signIn("ada", "correct horse battery staple"))

	status, body := laptop.do(http.MethodPost, "/password", url.Values{"password": {"another long password"}})
	require.Equal(t, 204, status, body)
	status, body = phone.do(http.MethodGet, "/notes", nil)
	require.Equal(t, 401, status)
	require.Contains(t, body, `"reason":"revoked"`)
	status, _ = laptop.do(http.MethodGet, "/notes", nil)
	require.Equal(t, 200, status)
	sessions, err := a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 1)
	require.Equal(t, 401, phone.signIn("ada", "correct horse battery staple"))
	require.Equal(t, 200, phone.signIn("ada", "another long password"))
}
