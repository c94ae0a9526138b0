package main

import (
	"encoding/json"
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
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const pass = "correct horse battery staple"

// clients are logins, and the lifetimes of their sessions.
var clients = []struct {
	name          string
	login         string
	inBody        bool
	remember      []string // the field of the form
	idle, session time.Duration
	ephemeral     bool
}{
	{"the app", "ada", true, nil, 90 * day, 365 * day, false},
	{"a browser", "ada", false, []string{"false", "on"}, 14 * day, 60 * day, false},
	{"a form without the field", "ada", false, nil, 14 * day, 60 * day, false},
	{"a browser without remember me", "ada", false, []string{"false"}, 2 * time.Hour, day, true},
	{"an administrator in a browser", "root", false, []string{"false", "on"}, 30 * time.Minute, 8 * time.Hour, false},
	{"an administrator without remember me", "root", false, []string{"false"}, 30 * time.Minute, 8 * time.Hour, true},
	{"an administrator with the app", "root", true, nil, 30 * time.Minute, 8 * time.Hour, false},
}

// device is a client that keeps its refresh token, and ignores what the server says
// about its lifetime.
type device struct {
	t       *testing.T
	handler http.Handler
	cookie  *http.Cookie // of a browser
	token   string       // of the app
}

// send sends a request and keeps the tokens of the response.
func (d *device) send(path, contentType, body string) (status int, expiresIn time.Duration) {
	d.t.Helper()
	r := httptest.NewRequest("POST", "http://localhost"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if d.cookie != nil {
		r.AddCookie(d.cookie)
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Name == "refresh" && c.Value != "" {
			d.cookie = c
		}
	}
	var tokens struct {
		Refresh string `json:"refresh_token"`
		Expires int    `json:"refresh_expires_in"`
	}
	if w.Header().Get("Content-Type") == "application/json" || strings.HasPrefix(w.Header().Get("Content-Type"), "application/json;") {
		require.NoError(d.t, json.Unmarshal(w.Body.Bytes(), &tokens))
	}
	if tokens.Refresh != "" {
		d.token = tokens.Refresh
	}
	return w.Code, time.Duration(tokens.Expires) * time.Second
}

func (d *device) refresh() (status int, expiresIn time.Duration) {
	d.t.Helper()
	if d.cookie != nil {
		return d.send("/auth/refresh", "application/json", "{}")
	}
	text, err := json.Marshal(map[string]string{"refresh_token": d.token})
	require.NoError(d.t, err)
	return d.send("/auth/refresh", "application/json", string(text))
}

func TestLifetimes_DependOnTheClient(t *testing.T) {
	t.Parallel()
	for _, tc := range clients {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			us, err := newUsers()
			require.NoError(t, err)
			c := config(us)
			c.OnEvent = nil // authtest has its own
			a := authtest.New(t, c)
			signIn := func() *device {
				d := &device{t: t, handler: routes(a.Authenticator)}
				if tc.inBody {
					text, err := json.Marshal(map[string]string{"login": tc.login, "password": pass, "delivery": "body"})
					require.NoError(t, err)
					status, _ := d.send("/auth/login", "application/json", string(text))
					require.Equal(t, 200, status)
					return d
				}
				status, _ := d.send("/login", "application/x-www-form-urlencoded", form(tc.login, tc.remember).Encode())
				require.Equal(t, 303, status)
				return d
			}
			checkCookie := func(d *device) {
				if d.cookie != nil {
					require.Equal(t, tc.ephemeral, d.cookie.MaxAge == 0, "only the cookies of an ephemeral session end with the browser")
				}
			}

			d := signIn()
			checkCookie(d)
			a.Clock.Advance(tc.idle - time.Second)
			status, expires := d.refresh()
			require.Equal(t, 200, status)
			require.LessOrEqual(t, expires, tc.idle)
			checkCookie(d)
			a.Clock.Advance(tc.idle + c.AccessTTL) // the end may be up to three retry windows later
			status, _ = d.refresh()
			require.Equal(t, 401, status, "not used for the idle lifetime")

			d = signIn()
			for end := a.Clock.Now().Add(tc.session); ; { // used all the time
				step := min(tc.idle-time.Minute, end.Sub(a.Clock.Now())-time.Second)
				if step <= 0 {
					break
				}
				a.Clock.Advance(step)
				status, _ = d.refresh()
				require.Equal(t, 200, status)
			}
			a.Clock.Advance(time.Second)
			status, _ = d.refresh()
			require.Equal(t, 401, status, "older than the absolute lifetime")
		})
	}
}

func form(login string, remember []string) url.Values {
	f := url.Values{"login": {login}, "password": {pass}}
	if remember != nil {
		f["remember"] = remember
	}
	return f
}

func TestProgram_RemembersOnRequest(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	for _, tc := range clients {
		if tc.inBody {
			resp, err := http.Post(p.URL+"/auth/login", "application/json", strings.NewReader(`{"login":"`+tc.login+`","password":"`+pass+`","delivery":"body"}`))
			require.NoError(t, err)
			var body map[string]any
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
			require.NoError(t, resp.Body.Close())
			require.InDelta(t, tc.idle.Seconds(), body["refresh_expires_in"], 300, tc.name)
			continue
		}
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		var set []*http.Cookie
		browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			set = append(set, r.Response.Cookies()...)
			return nil
		}}
		resp, err := browser.PostForm(p.URL+"/login", form(tc.login, tc.remember))
		require.NoError(t, err)
		page, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Contains(t, string(page), "Hello "+tc.login, tc.name)
		require.Len(t, set, 3)
		require.Equal(t, "device", set[2].Name)
		for _, c := range set[:2] {
			require.Equal(t, tc.ephemeral, c.MaxAge == 0, tc.name)
		}
	}
	resp, err := http.Get(p.URL)
	require.NoError(t, err)
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Regexp(t, `type="hidden" name="remember" value="false">\s*<p><label><input type="checkbox" name="remember">`, string(page))
	resp, err = http.PostForm(p.URL+"/login", url.Values{"login": {"ada"}, "password": {"wrong"}})
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
}

// OnLogin is called for StartSession too, which a handler of one's own calls.
func TestLifetimes_StartSession(t *testing.T) {
	t.Parallel()
	c := config(users{})
	c.OnEvent = nil
	a := authtest.New(t, c)
	tokens := authtest.Tokens(t, a, auth.User{ID: "u9", Roles: []string{"admin"}})
	require.WithinDuration(t, a.Clock.Now().Add(30*time.Minute), tokens.RefreshExpiresAt, 5*time.Minute)
}
