package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

const pass = "correct horse battery staple"

// app is the application with a clock that the test advances.
type app struct {
	*authtest.Authenticator
	http.Handler
	users users
	site  *site
}

// newApp returns the application with a database in SQLite.
func newApp(t *testing.T, change ...func(*auth.Config)) *app {
	t.Helper()
	db, err := open(t.Context(), filepath.Join(t.TempDir(), "app.db"))
	require.NoError(t, err)
	return appOn(t, db, change...)
}

func appOn(t *testing.T, db *database, change ...func(*auth.Config)) *app {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, db.close()) })
	s := &site{users: db.users, mails: t.TempDir(), url: "http://app.localhost", Development: true}
	c := config(s, db, "")
	c.Hasher.Memory, c.Hasher.Time = 64, 1
	c.OnEvent = nil // authtest logs events to t
	for _, f := range change {
		f(&c)
	}
	a := authtest.New(t, c)
	s.auth = a.Authenticator
	return &app{a, s.routes(), s.users, s}
}

// browser keeps cookies, and does not follow redirects.
type browser struct {
	t       *testing.T
	handler http.Handler
	cookies map[string]string
	lasting map[string]bool // cookies with Max-Age, which a browser keeps when it is closed
}

func (a *app) browser(t *testing.T) *browser {
	return &browser{t, a, map[string]string{}, map[string]bool{}}
}

type response struct {
	status         int
	body, location string
	header         http.Header
}

func (b *browser) do(r *http.Request) response {
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		b.lasting[c.Name] = c.MaxAge > 0
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return response{w.Code, w.Body.String(), w.Header().Get("Location"), w.Header()}
}

func (b *browser) get(path string) response {
	return b.do(httptest.NewRequest(http.MethodGet, path, nil))
}

// form returns a request of a page of the application.
func form(path string, fields ...string) *http.Request {
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Add(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func (b *browser) post(path string, fields ...string) response { return b.do(form(path, fields...)) }

// signUp returns a browser of a new user.
func (a *app) signUp(t *testing.T, login string) *browser {
	t.Helper()
	b := a.browser(t)
	r := b.post("/signup", "login", login, "address", "someone@example.com", "password", pass)
	require.Equal(t, http.StatusSeeOther, r.status, r.body)
	return b
}

func (a *app) signIn(t *testing.T, login string) *browser {
	t.Helper()
	b := a.browser(t)
	r := b.post("/login", "login", login, "password", pass)
	require.Equal(t, http.StatusSeeOther, r.status, r.body)
	return b
}

// id returns the ID of a user.
func (a *app) id(t *testing.T, login string) string {
	t.Helper()
	u, err := a.users.FindByLogin(t.Context(), login)
	require.NoError(t, err)
	return u.ID
}

func TestApp_FirstUserIsAdministrator(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada, bob := a.signUp(t, "ada"), a.signUp(t, "bob")
	require.Contains(t, ada.get("/").body, `href="/admin"`)
	require.Equal(t, 200, ada.get("/admin").status)
	require.NotContains(t, bob.get("/").body, `href="/admin"`)
	r := bob.get("/admin")
	require.Equal(t, 403, r.status)
	require.Contains(t, r.body, "This did not work")
}

// TestApp_ConcurrentSignUps signs up users with one name, and with different
// names, at the same time.
func TestApp_ConcurrentSignUps(t *testing.T) {
	t.Parallel()
	concurrentSignUps(t, newApp(t))
}

func concurrentSignUps(t *testing.T, nodes ...*app) {
	t.Helper()
	const n = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	status := map[int]int{}
	for i := range n {
		for _, name := range []string{[]string{"ada", "Ada", " ADA "}[i%3], fmt.Sprint("user", i)} {
			wg.Go(func() {
				r := nodes[i%len(nodes)].browser(t).post("/signup", "login", name, "address", "someone@example.com", "password", pass)
				mu.Lock()
				defer mu.Unlock()
				status[r.status]++
				if r.status != http.StatusSeeOther && !strings.Contains(r.body, "this user name is taken.") {
					t.Error(r.status, r.body)
				}
			})
		}
	}
	wg.Wait()
	require.Equal(t, map[int]int{http.StatusSeeOther: n + 1, http.StatusUnprocessableEntity: n - 1}, status)
	list, err := nodes[0].users.list(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, list, n+1)
	owners := 0
	for _, u := range list {
		if u.Roles[0] == "owner" {
			owners++
		}
	}
	require.Equal(t, 1, owners)
}

func TestApp_SignUpIsRefused(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.signUp(t, "ada")
	for _, tt := range []struct{ login, password, text string }{
		{"ADA", pass, "this user name is taken."},
		{"x", pass, "a user name has 2 to 30 letters"},
		{"аda", pass, "a user name has 2 to 30 letters"}, // the first letter is Cyrillic
		{"<b>", pass, "a user name has 2 to 30 letters"},
		{"bob", "fourteen chars", "the new password is not accepted; choose another one."},
		{"bob", strings.Repeat("x", 201), "the new password is not accepted; choose another one."},
	} {
		r := a.browser(t).post("/signup", "login", tt.login, "address", "someone@example.com", "password", tt.password, "next", "/devices")
		require.Equal(t, http.StatusUnprocessableEntity, r.status)
		require.Contains(t, r.body, tt.text)
		require.Contains(t, r.body, `value="`+strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(tt.login)+`"`, "the name is kept")
		require.NotContains(t, r.body, tt.password, "the password is not")
		require.Contains(t, r.body, `name="next" value="/devices"`)
		require.NotContains(t, r.header, "Set-Cookie")
	}
}

func TestApp_LoginRedisplaysTheError(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.signUp(t, "ada")
	b := a.browser(t)
	require.Equal(t, "/login?next=%2Fdevices%3Fx%3D1", b.get("/devices?x=1").location)
	require.Contains(t, b.get("/login?next=%2Fdevices%3Fx%3D1").body, `name="next" value="/devices?x=1"`)
	for _, tt := range []struct{ login, password string }{{"Ada", "wrong password"}, {"Ada", ""}, {"", "wrong password"}} {
		r := b.post("/login", "login", tt.login, "password", tt.password, "next", "/devices?x=1")
		require.Equal(t, http.StatusUnauthorized, r.status, tt)
		require.Contains(t, r.body, `role="alert">login or password is wrong.`)
		require.Contains(t, r.body, `name="login" value="`+tt.login+`"`)
		require.Contains(t, r.body, `name="next" value="/devices?x=1"`)
		require.NotContains(t, r.body, "wrong password")
		require.NotContains(t, r.header, "Set-Cookie")
	}
	require.Equal(t, "/devices?x=1", b.post("/login", "login", "Ada", "password", pass, "next", "/devices?x=1").location)
	require.Equal(t, 200, b.get("/devices?x=1").status)
	require.Contains(t, b.get("/").body, "Hello, ada")
}

func TestApp_NeverRedirectsToAnotherSite(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	for i, next := range []string{"//evil.example", `/\evil.example`, "https://evil.example/", "javascript:alert(1)", "/../x", ""} {
		require.Equal(t, "/", a.browser(t).post("/signup", "login", fmt.Sprint("user", i), "address", "someone@example.com", "password", pass, "next", next).location)
		b := a.browser(t)
		require.Equal(t, "/", b.post("/login", "login", fmt.Sprint("user", i), "password", pass, "next", next).location)
		require.Equal(t, "/", b.post("/logout", "next", next).location)
	}
}

func TestApp_FormsOfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada := a.signUp(t, "ada")
	for path, fields := range map[string][]string{
		"/signup":  {"login", "bob", "address", "bob@example.com", "password", pass},
		"/login":   {"login", "ada", "password", pass},
		"/logout":  nil,
		"/profile": {"current", pass, "password", pass + "2"},
		"/devices": {"id", "x"},
		"/admin":   {"id", "x", "role", "admin"},
		"/factor":  {"do", "codes"},
		"/verify":  nil,
		"/forgot":  {"login", "ada"},
		"/reset":   {"token", "x", "password", pass},
	} {
		browsers := []*browser{ada}
		if slices.Contains([]string{"/signup", "/login", "/verify", "/forgot", "/reset"}, path) {
			browsers = append(browsers, a.browser(t)) // without cookies
		}
		for _, b := range browsers {
			r := form(path, fields...)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			got := b.do(r)
			require.Equal(t, http.StatusForbidden, got.status, path)
			require.NotContains(t, got.header, "Set-Cookie", path)
		}
	}
	require.Equal(t, 200, ada.get("/profile").status)
	_, err := a.users.FindByLogin(t.Context(), "bob")
	require.ErrorIs(t, err, auth.ErrUserNotFound)
	a.signIn(t, "ada") // the password is the same
}

func TestApp_PasswordChangeEndsOtherSessions(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada, other, bob := a.signUp(t, "ada"), a.signIn(t, "ada"), a.signUp(t, "bob")
	r := ada.post("/profile", "current", "wrong", "password", "a new password of ada")
	require.Equal(t, http.StatusForbidden, r.status)
	require.Contains(t, r.body, "the current password is wrong.")
	r = ada.post("/profile", "current", pass, "password", "short")
	require.Contains(t, r.body, "the new password is not accepted; choose another one.")
	require.Equal(t, 200, other.get("/profile").status)

	require.Equal(t, "/devices?done", ada.post("/profile", "current", pass, "password", "a new password of ada").location)
	r = ada.get("/devices?done")
	require.Contains(t, r.body, "The password has been changed")
	require.Contains(t, r.body, "this device only")
	require.Equal(t, "/login?next=%2Fprofile", other.get("/profile").location)
	require.Equal(t, 200, bob.get("/profile").status)
	b := a.browser(t)
	require.Equal(t, http.StatusUnauthorized, b.post("/login", "login", "ada", "password", pass).status)
	require.Equal(t, http.StatusSeeOther, b.post("/login", "login", "ada", "password", "a new password of ada").status)
}

func TestApp_DevicesCanBeEnded(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada := a.signUp(t, "ada")
	others := []*browser{a.signIn(t, "ada"), a.signIn(t, "ada"), a.signIn(t, "ada")}
	bob := a.signUp(t, "bob")
	ids := regexp.MustCompile(`name="id" value="([^"]+)"><button`).FindAllStringSubmatch(ada.get("/devices").body, -1)
	require.Len(t, ids, 4)
	require.Contains(t, ada.get("/devices").body, "<strong>This device, ")

	current, err := a.Verify(t.Context(), others[0].cookies["access"])
	require.NoError(t, err)
	require.Equal(t, http.StatusSeeOther, bob.post("/devices", "id", current.SessionID).status) // of another user: nothing happens
	require.Equal(t, 200, others[0].get("/profile").status)
	require.Equal(t, "/devices", ada.post("/devices", "id", current.SessionID).location)
	require.Equal(t, "/login?next=%2Fprofile", others[0].get("/profile").location)
	require.Equal(t, 200, others[1].get("/profile").status)

	var rest []string // the form "End all other sessions"
	_, last, ok := strings.Cut(ada.get("/devices").body, "</ul>")
	require.True(t, ok)
	for _, m := range regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(last, -1) {
		rest = append(rest, "id", m[1])
	}
	require.Len(t, rest, 4)
	require.Equal(t, http.StatusSeeOther, ada.post("/devices", rest...).status)
	for _, other := range others {
		require.Equal(t, http.StatusSeeOther, other.get("/profile").status)
	}
	require.Contains(t, ada.get("/devices").body, "this device only")

	current, err = a.Verify(t.Context(), ada.cookies["access"])
	require.NoError(t, err)
	ada.post("/devices", "id", current.SessionID)
	require.Equal(t, "/login?next=%2Fdevices", ada.get("/devices").location)
}

// TestApp_OnlySessionsThatExistAreEnded checks that a user cannot fill the
// revocation set, which all nodes keep in memory, with IDs that nobody has.
func TestApp_OnlySessionsThatExistAreEnded(t *testing.T) {
	t.Parallel()
	var events atomic.Int32
	a := newApp(t, func(c *auth.Config) {
		c.OnEvent = func(_ context.Context, e auth.Event) {
			if e.Type == auth.EventRevoked {
				events.Add(1)
			}
		}
	})
	ada := a.signUp(t, "ada")
	var ids []string
	for i := range 1000 {
		ids = append(ids, "id", fmt.Sprint("x", i))
	}
	require.Equal(t, "/devices", ada.post("/devices", ids...).location)
	require.Zero(t, events.Load())
	require.Equal(t, 200, ada.get("/devices").status)
}

// TestApp_MalformedSignUpCreatesNoUser sends requests that a form login refuses.
func TestApp_MalformedSignUpCreatesNoUser(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	two := form("/signup", "login", "ada", "login", "bob", "address", "someone@example.com", "password", pass)
	large := form("/signup", "login", "ada", "address", "someone@example.com", "password", pass, "x", strings.Repeat("x", 20<<10))
	multi := form("/signup")
	multi.Body = io.NopCloser(strings.NewReader("--b\r\nContent-Disposition: form-data; name=login\r\n\r\nada\r\n" +
		"--b\r\nContent-Disposition: form-data; name=password\r\n\r\n" + pass + "\r\n--b--\r\n"))
	multi.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	for status, r := range map[int]*http.Request{400: two, 413: large, 415: multi} {
		require.Equal(t, status, a.browser(t).do(r).status)
		_, err := a.users.FindByLogin(t.Context(), "ada")
		require.ErrorIs(t, err, auth.ErrUserNotFound)
	}
}

// TestApp_FirstUserIsTheOwnerEvenIfTheClientGoes executes a statement for a client
// that has gone. If the first user existed without being the owner, the next one
// would become it.
func TestApp_FirstUserIsTheOwnerEvenIfTheClientGoes(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, a.users.exec(ctx, nil, "INSERT INTO users (id, login, email, password_hash, owner) VALUES ('u1', 'ada', '', '', TRUE)"))
	require.Error(t, a.users.exec(t.Context(), nil, "INSERT INTO users (id, login, email, password_hash, owner) VALUES ('u2', 'bob', '', '', TRUE)"))
	u, err := a.users.FindByID(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, []string{"owner"}, u.Roles)
}

func TestApp_RoleTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada, bob := a.signUp(t, "ada"), a.signUp(t, "bob")
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/admin", ada.post("/admin", "id", a.id(t, "bob"), "role", "admin", "status", "enabled").location)
	a.Clock.Advance(5 * time.Second)
	r := bob.get("/admin")
	require.Equal(t, http.StatusTemporaryRedirect, r.status, "to itself, with new tokens")
	require.Equal(t, 200, bob.get("/admin").status)
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/admin", ada.post("/admin", "id", a.id(t, "bob"), "role", "member", "status", "enabled").location)
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/login?next=%2Fadmin", bob.get("/admin").location, "who loses a right signs in again")
	bob = a.signIn(t, "bob")
	require.Equal(t, 403, bob.get("/admin").status)
	require.Equal(t, 403, bob.post("/admin", "id", a.id(t, "bob"), "role", "admin", "status", "enabled").status)
}

func TestApp_DisabledUserIsSignedOut(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada, bob := a.signUp(t, "ada"), a.signUp(t, "bob")
	require.Equal(t, "/admin", ada.post("/admin", "id", a.id(t, "bob"), "role", "member", "status", "disabled").location)
	require.Equal(t, "/login?next=%2Fprofile", bob.get("/profile").location)
	require.Contains(t, ada.get("/admin").body, "member, disabled")
	r := a.browser(t).post("/login", "login", "bob", "password", pass)
	require.Contains(t, r.body, "login or password is wrong.")
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/admin", ada.post("/admin", "id", a.id(t, "bob"), "role", "member", "status", "enabled").location)
	a.Clock.Advance(5 * time.Second)
	a.signIn(t, "bob")
}

// TestApp_AlwaysHasAnAdministrator checks that no administrator can remove the
// last one.
func TestApp_AlwaysHasAnAdministrator(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ada := a.signUp(t, "ada")
	a.signUp(t, "bob")
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/admin", ada.post("/admin", "id", a.id(t, "bob"), "role", "admin", "status", "enabled").location)
	bob := a.signIn(t, "bob")
	for _, tt := range []struct {
		by *browser
		id string
	}{{ada, a.id(t, "ada")}, {bob, a.id(t, "ada")}, {bob, a.id(t, "bob")}, {ada, "nobody"}} {
		for _, status := range []string{"enabled", "disabled"} {
			r := tt.by.post("/admin", "id", tt.id, "role", "member", "status", status)
			require.Equal(t, http.StatusUnprocessableEntity, r.status)
			require.Contains(t, r.body, "you can change neither yourself nor the first user.")
		}
	}
	require.NotContains(t, ada.get("/admin").body, `value="`+a.id(t, "ada")+`"`, "no form for oneself")
	require.NotContains(t, bob.get("/admin").body, `value="`+a.id(t, "ada")+`"`, "no form for the first user")
	require.GreaterOrEqual(t, ada.post("/admin", "id", a.id(t, "bob"), "role", "root").status, 400, "only the roles that exist")
}

func TestApp_ExpiredTokensAreRefreshed(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.signUp(t, "ada")
	u, err := a.users.FindByLogin(t.Context(), "ada")
	require.NoError(t, err)
	load := func() *http.Request { return httptest.NewRequest(http.MethodGet, "/profile?x=1", nil) }
	r := a.browser(t).do(authtest.As(t, a.Authenticator, load(), u, authtest.Expired()))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	require.Equal(t, "./profile?x=1", r.location)
	r = a.browser(t).do(authtest.As(t, a.Authenticator, load(), u, authtest.Revoked()))
	require.Equal(t, "/login?next=%2Fprofile%3Fx%3D1", r.location)

	change := func() *http.Request { return form("/profile", "current", pass, "password", "a new password of ada") }
	r = a.browser(t).do(authtest.As(t, a.Authenticator, change(), u, authtest.Revoked()))
	require.Equal(t, 401, r.status)
	require.Contains(t, r.body, "reload this page to send the form again")
	other := change() // by a page of another site, so without the cookies
	other.Header.Set("Sec-Fetch-Site", "cross-site")
	r = a.browser(t).do(other)
	require.Equal(t, 401, r.status)
	require.NotContains(t, r.body, "send the form again")
	require.Contains(t, r.body, `class="brand"`, "as a page of the application")
	r = a.browser(t).do(authtest.As(t, a.Authenticator, change(), u, authtest.Expired()))
	require.Equal(t, "/devices?done", r.location, "the form is served at once")
	require.Contains(t, r.header.Get("Set-Cookie"), "access=")
}

func TestApp_PagesNeedALogin(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	for path, status := range map[string]int{
		"/": 200, "/login": 200, "/signup": 200, "/web/style.css": 200, "/web/app.js": 200, "/auth.js": 200, "/nowhere": 404, "/web/login.html": 404,
		"/verify": 200, "/forgot": 200, "/reset": 200, "/profile": 303, "/devices": 303, "/admin": 303, "/factor": 303,
	} {
		require.Equal(t, status, a.browser(t).get(path).status, path)
	}
	r := httptest.NewRequest(http.MethodGet, "/profile", nil)
	r.Header.Set("Sec-Fetch-Mode", "cors") // a script
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	require.Equal(t, 401, w.Code)
	require.Contains(t, w.Body.String(), `"action":"login"`)
	got := a.browser(t).get("/")
	require.Contains(t, got.header.Get("Content-Security-Policy"), "default-src 'none'")
	require.NotContains(t, got.body, "<script")
}

// TestApp_TooManyLoginsAre503 occupies the hasher, which has no queue here.
func TestApp_TooManyLoginsAre503(t *testing.T) {
	t.Parallel()
	busy := &password.Hasher{Memory: 32 << 10, Time: 4, Budget: 32 << 20, Queue: -1}
	a := newApp(t, func(c *auth.Config) { c.Hasher = busy })
	ada := a.signUp(t, "ada")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = busy.Hash(ctx, pass)
		}
	})
	for _, send := range []func() response{
		func() response {
			return ada.post("/signup", "login", "bob", "address", "someone@example.com", "password", pass)
		},
		func() response { return ada.post("/profile", "current", "wrong", "password", pass) },
	} {
		r := send()
		for r.status != http.StatusServiceUnavailable { // the hasher was free for a moment
			require.Contains(t, []int{http.StatusSeeOther, http.StatusUnprocessableEntity, http.StatusForbidden}, r.status)
			r = send()
		}
		require.Equal(t, "1", r.header.Get("Retry-After"))
		require.Contains(t, r.body, "too many logins at once")
	}
}
