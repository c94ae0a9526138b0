package browsers

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

//go:embed attack.js
var attack string

const pass = "correct horse battery staple"

// users is an auth.Users with the users ada, mallory and otto, and a
// SecondFactor that only otto needs.
type users struct {
	mu   sync.Mutex
	byID map[string]auth.User
}

func newUsers(t *testing.T, h *password.Hasher) *users {
	t.Helper()
	hash, err := h.Hash(t.Context(), pass)
	require.NoError(t, err)
	us := &users{byID: map[string]auth.User{}}
	for _, name := range []string{"ada", "mallory", "otto"} {
		us.byID["id-"+name] = auth.User{ID: "id-" + name, Username: name, PasswordHash: hash}
	}
	return us
}

func (us *users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return us.FindByID(ctx, "id-"+login)
}

func (us *users) FindByID(_ context.Context, id string) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u, ok := us.byID[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u, nil
}

func (us *users) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.byID[id]
	if u.PasswordHash == old || old == "" {
		u.PasswordHash = next
		us.byID[id] = u
	}
	return nil
}

// hash returns the password hash of a user.
func (us *users) hash(id string) string {
	us.mu.Lock()
	defer us.mu.Unlock()
	return us.byID[id].PasswordHash
}

func (us *users) Methods(_ context.Context, u auth.User, _ auth.Device) ([]string, error) {
	if u.Username == "otto" {
		return []string{"otp"}, nil
	}
	return nil, nil
}

func (us *users) Verify(_ context.Context, _ auth.User, _, response string) error {
	if response != "123456" {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// app is an application on a host of its own.
type app struct {
	*auth.Authenticator
	users  *users
	origin string
	wrap   func(http.Handler) http.Handler // CORS, or nil
	mux    *http.ServeMux
}

// answer is how a server has responded to a request of a row.
type answer struct {
	status  int
	cookies bool   // the request had a cookie of a session
	ran     string // the user for whom a handler of the application ran, or ""
	request http.Header
	header  http.Header
}

func (a *answer) String() string {
	if a == nil {
		return "blocked"
	}
	s := fmt.Sprint(a.status)
	if a.cookies {
		s += "+"
	}
	return s
}

// world is some hosts on this machine, and a browser that finds them.
type world struct {
	tab        exampletest.Tab
	tls, plain string // ports

	mu      sync.Mutex
	apps    map[string]*app          // by host
	answers map[string]*answer       // by row
	served  map[string]chan struct{} // by row
	lastRow int
}

// newWorld starts the hosts and the browser.
func newWorld(t *testing.T) *world {
	t.Helper()
	testserver.Need(t, "chromium", "chromium")
	w := &world{apps: map[string]*app{}, answers: map[string]*answer{}, served: map[string]chan struct{}{}}
	secure := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	plain := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	for s, port := range map[*httptest.Server]*string{secure: &w.tls, plain: &w.plain} {
		u, err := url.Parse(s.URL)
		require.NoError(t, err)
		*port = u.Port()
	}
	profile := t.TempDir() // which allows third-party cookies
	require.NoError(t, os.Mkdir(filepath.Join(profile, "Default"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(`{"profile": {"cookie_controls_mode": 0}}`), 0o600))
	w.tab = exampletest.Chromium(t, chromedp.UserDataDir(profile), chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("disable-popup-blocking", true),
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1, MAP *.example 127.0.0.1"))
	return w
}

func (w *world) https(host string) string { return "https://" + host + ":" + w.tls }

// add adds an application with these cookies.
func (w *world) add(t *testing.T, host string, cookies auth.Cookies, change ...func(*auth.Config)) *app {
	t.Helper()
	h := &password.Hasher{Memory: 64, Time: 1}
	us := newUsers(t, h)
	a := &app{users: us, origin: w.https(host), mux: http.NewServeMux()}
	c := auth.Config{
		Issuer: "https://" + host, Audience: []string{"https://" + host}, Secrets: [][]byte{[]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")},
		Hasher: h, Users: us, SecondFactor: us, Cookies: &cookies,
		OnEvent: func(context.Context, auth.Event) {},
	}
	for _, f := range change {
		f(&c)
	}
	var err error
	a.Authenticator, err = auth.New(c)
	require.NoError(t, err)
	ran := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if claims, ok := auth.FromContext(r.Context()); ok {
			w.mu.Lock()
			defer w.mu.Unlock()
			if seen := w.answers[r.URL.Query().Get("row")]; seen != nil {
				seen.ran = claims.Username
			}
			_, _ = fmt.Fprint(rw, claims.Username)
		}
	})
	a.mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	a.mux.Handle("/note", a.Require()(ran))
	a.mux.Handle("/optional", a.Optional(ran))
	a.mux.HandleFunc("/cookies", func(rw http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(rw, r.Header.Get("Cookie")) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apps[host] = a
	return a
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	row := r.URL.Query().Get("row")
	w.mu.Lock()
	a, served := w.apps[host], w.served[row]
	w.mu.Unlock()
	switch {
	case r.URL.Path == "/page":
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(rw, `<!doctype html><link rel="icon" href="data:,"><title>page</title><body><script src="%s/attack.js"></script>`, w.https("scripts.example"))
	case r.URL.Path == "/attack.js":
		rw.Header().Set("Content-Type", "text/javascript")
		_, _ = fmt.Fprint(rw, attack)
	case r.URL.Path == "/served":
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		select {
		case <-served:
		case <-r.Context().Done():
		case <-time.After(time.Minute): // the browser has not sent it
		}
	case r.URL.Path == "/redirect":
		http.Redirect(rw, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	case r.URL.Path == "/set": // the cookies in the query
		rw.Header()["Set-Cookie"] = r.URL.Query()["cookie"]
	case a == nil:
		http.NotFound(rw, r)
	case served == nil || r.Method == http.MethodOptions:
		a.handler().ServeHTTP(rw, r)
	default:
		w.record(rw, r, a, row)
		close(served)
	}
}

func (a *app) handler() http.Handler {
	if a.wrap != nil {
		return a.wrap(a.mux)
	}
	return a.mux
}

// record serves a request of a row, and records the answer.
func (w *world) record(rw http.ResponseWriter, r *http.Request, a *app, row string) {
	seen := &answer{request: r.Header.Clone(), cookies: len(a.CookieTokens(r)) > 0}
	w.mu.Lock()
	w.answers[row] = seen
	w.mu.Unlock()
	got := httptest.NewRecorder()
	a.handler().ServeHTTP(got, r)
	w.mu.Lock()
	seen.status, seen.header = got.Code, got.Header()
	w.mu.Unlock()
	for name, values := range got.Header() {
		rw.Header()[name] = values
	}
	rw.WriteHeader(got.Code)
	_, _ = rw.Write(got.Body.Bytes())
}

// row is a request that a page sends.
type row struct {
	ID     string            `json:"id"`
	URL    string            `json:"url"`
	Fields map[string]string `json:"fields"`
}

func (w *world) row(target string, fields map[string]string) row {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastRow++
	id := fmt.Sprint(w.lastRow)
	w.served[id] = make(chan struct{})
	if fields == nil {
		fields = map[string]string{}
	}
	return row{id, target + "?row=" + id, fields}
}

func (w *world) answerTo(r row) *answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers[r.ID]
}

// page is a tab with cookies of its own.
type page struct {
	t   *testing.T
	ctx context.Context
}

// open opens a tab that shares no cookies with others. It blocks third-party
// cookies.
func (w *world) open(t *testing.T) page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(w.tab.Context, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	return page{t, ctx}
}

// openShared opens a tab that shares its cookies with other such tabs. It allows
// third-party cookies.
func (w *world) openShared(t *testing.T) page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(w.tab.Context)
	t.Cleanup(cancel)
	return page{t, ctx}
}

// in returns the page for a subtest.
func (p page) in(t *testing.T) page { return page{t, p.ctx} }

func (p page) visit(url string) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.Navigate(url)))
}

// click clicks an element, and waits for the page that it loads.
func (p page) click(selector string) {
	p.t.Helper()
	_, err := chromedp.RunResponse(p.ctx, chromedp.Click(selector))
	require.NoError(p.t, err)
}

func (p page) run(js string) string {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise))
	require.NoError(p.t, err, js)
	return value
}

// send sends rows from the page that is open, by a function of attack.js.
func (p page) send(by, kind string, rows []row) {
	p.t.Helper()
	list, err := json.Marshal(rows)
	require.NoError(p.t, err)
	require.Equal(p.t, "sent", p.run(fmt.Sprintf("%s(%q, %s)", by, kind, list)))
}

// signIn signs a user in with a script of the application.
func (p page) signIn(a *app, name string) {
	p.t.Helper()
	p.visit(a.origin + "/page")
	require.Equal(p.t, "200 "+name, p.run(`(async () => {
		const r = await fetch("/auth/login", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({login: "`+name+`", password: "`+pass+`"})})
		return r.status + " " + await (await fetch("/note")).text()
	})()`))
}

// jar returns the cookies of the browser.
func (p page) jar() []string {
	p.t.Helper()
	result, err := chromedp.CallBrowser(p.ctx, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID})
	require.NoError(p.t, err)
	var list []string
	for _, c := range result.Cookies {
		list = append(list, fmt.Sprintf("%s=%s; Domain=%s; Path=%s; Secure=%v; HttpOnly=%v", c.Name, c.Value, c.Domain, c.Path, c.Secure, c.HTTPOnly))
	}
	slices.Sort(list)
	return list
}
