package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

// cause reproduces the cause of a symptom in docs/troubleshooting.md. It records what
// the block below the heading of the cause shows.
type cause struct {
	testing.TB
	clock *authtest.Clock
	users *users
	text  strings.Builder // the block
	log   lockedBuffer    // the log since the last call of do or logged
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last call.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// config returns the configuration of the page's example service.
func (c *cause) config() auth.Config {
	handler := slog.NewTextHandler(&c.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: c.users, Hasher: fastHasher,
		Now: c.clock.Now, OnEvent: auth.LogEvents(slog.New(handler)), TokenCacheSize: 1024,
	}
}

func (c *cause) new(config auth.Config) *auth.Authenticator {
	c.Helper()
	a, err := auth.New(config)
	require.NoError(c, err)
	return a
}

// run calls Run until the test ends or end is called.
func (c *cause) run(a service) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	end = func() { cancel(); <-done }
	c.Cleanup(end)
	return end
}

// service is the part that an Authenticator and a Verifier have in common.
type service interface {
	Require(guards ...auth.Guard) func(http.Handler) http.Handler
	Run(ctx context.Context) error
}

// otherService returns an Authenticator whose sessions are in a database, and the
// configuration of a service that verifies its tokens.
func (c *cause) otherService() (*auth.Authenticator, auth.VerifierConfig) {
	config := c.config()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(c, err)
	config.Secrets, config.AccessKeys, config.RefreshKeys = nil, auth.Keys{auth.EdDSA(private)}, auth.Keys{auth.HS256(nextSecret)}
	config.Store = database{auth.NewMemoryStore()}
	a := c.new(config)
	c.run(a)
	<-a.Ready()
	return a, auth.VerifierConfig{
		Issuer: config.Issuer, Audience: config.Audience, Keys: auth.Keys{auth.EdDSA(public)}, Now: config.Now, OnEvent: config.OnEvent,
	}
}

// logoutElsewhere sends a token to a Verifier after a logout at another service.
func (c *cause) logoutElsewhere(feed auth.Feed) {
	a, config := c.otherService()
	config.Feed = feed
	v, err := auth.NewVerifier(config)
	require.NoError(c, err)
	c.run(v)
	<-v.Ready()
	t := c.signIn(a)
	c.do(a, withBearer(postForm("/auth/logout", nil), t.Access))
	c.do(v, withBearer(getMe(), t.Access))
}

// do sends a request to a, and records it, its response and what was logged.
func (c *cause) do(a service, r *http.Request) {
	c.Helper()
	c.send(routesOf(a), r)
	c.text.WriteString(c.log.take())
}

// send sends a request to h, and records it and its response.
func (c *cause) send(h http.Handler, r *http.Request) {
	c.Helper()
	_ = c.log.take() // of the preparations
	_, body := respond(c, h, r)
	fmt.Fprintf(&c.text, "%s %s: %s\n", r.Method, r.URL.RequestURI(), body)
}

func routesOf(a service) http.Handler {
	mux := http.NewServeMux()
	if a, ok := a.(*auth.Authenticator); ok {
		mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	}
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/me", a.Require()(nothing))
	mux.Handle("/admin", a.Require(auth.Role("admin"))(nothing))
	mux.Handle("/pay", a.Require(auth.Fresh(5*time.Minute))(nothing))
	return mux
}

func respondTo(tb testing.TB, a service, r *http.Request) (status int, text string) {
	return respond(tb, routesOf(a), r)
}

// respond returns the status of a response, and the status and the body together.
func respond(tb testing.TB, h http.Handler, r *http.Request) (status int, text string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	require.NoError(tb, err)
	return w.Code, strings.TrimSpace(fmt.Sprintf("%d %s", w.Code, body))
}

func getMe() *http.Request {
	return httptest.NewRequest(http.MethodGet, "https://api.example.com/me", nil)
}

func withBearer(r *http.Request, token string) *http.Request {
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func withHeaders(r *http.Request, pairs ...string) *http.Request {
	for pair := range slices.Chunk(pairs, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	return r
}

// withTokenCookies adds the cookies that a sets for t.
func withTokenCookies(a *auth.Authenticator, r *http.Request, t auth.Tokens) *http.Request {
	w := httptest.NewRecorder()
	a.SetCookies(w, t)
	for _, cookie := range w.Result().Cookies() {
		r.AddCookie(cookie)
	}
	return r
}

func postForm(path string, form url.Values) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://api.example.com"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func postLogin(login string) *http.Request {
	return postForm("/auth/login", url.Values{"login": {login}, "password": {pass}})
}

func postRefresh(t auth.Tokens) *http.Request {
	return postForm("/auth/refresh", url.Values{"refresh_token": {t.Refresh}})
}

func (c *cause) signIn(a *auth.Authenticator) auth.Tokens {
	c.Helper()
	t, err := a.Login(context.Background(), "ada", pass, auth.SessionOptions{Device: laptop})
	require.NoError(c, err)
	return t
}

func (c *cause) refresh(a *auth.Authenticator, t auth.Tokens) auth.Tokens {
	c.Helper()
	t, err := a.Refresh(context.Background(), t.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(c, err)
	return t
}

// statusOf returns the status of a request with an access token.
func (c *cause) statusOf(a service, path string, t auth.Tokens) int {
	c.Helper()
	status, _ := respondTo(c, a, withBearer(httptest.NewRequest(http.MethodGet, "https://api.example.com"+path, nil), t.Access))
	return status
}

func (c *cause) withCookies(trusted ...string) *auth.Authenticator {
	config := c.config()
	config.Cookies = &auth.Cookies{TrustedOrigins: trusted}
	return c.new(config)
}

// inDevelopment returns a service at http://localhost:8080.
func (c *cause) inDevelopment(trusted ...string) *auth.Authenticator {
	config := c.config()
	config.Issuer = devIssuer
	config.Cookies = &auth.Cookies{InsecureHTTP: true, TrustedOrigins: trusted}
	return c.new(config)
}

func at(r *http.Request, host string) *http.Request {
	r.Host, r.TLS = host, nil
	return r
}

// causes has a function for every heading of docs/troubleshooting.md that a block
// follows, and for those whose cause logs nothing.
var causes = map[string]func(c *cause){
	// 401 after login
	"The page is loaded over http": func(c *cause) {
		a := c.withCookies()
		c.do(a, withHeaders(at(postLogin("ada"), "app.example.com"), "Origin", "http://app.example.com"))
		c.do(a, at(getMe(), "app.example.com"))
	},
	"The request sends no cookies": func(c *cause) {
		c.do(c.withCookies("https://app.example.com"), withHeaders(getMe(), "Origin", "https://app.example.com", "Sec-Fetch-Site", "same-site"))
	},
	"The header has no scheme": func(c *cause) {
		a := c.new(c.config())
		c.do(a, withHeaders(getMe(), "Authorization", c.signIn(a).Access))
	},
	"The token is in another place": func(c *cause) {
		a := c.new(c.config())
		c.do(a, withHeaders(getMe(), "X-Access-Token", c.signIn(a).Access))
	},
	"The token is a refresh token": func(c *cause) {
		a := c.new(c.config())
		c.do(a, withBearer(getMe(), c.signIn(a).Refresh))
	},
	"The endpoints are behind Require": func(c *cause) {
		a := c.new(c.config())
		h := a.Require()(routesOf(a))
		c.send(h, postLogin("ada"))
		c.text.WriteString(c.log.take())
		c.send(h, httptest.NewRequest(http.MethodGet, "https://api.example.com/auth/jwks.json", nil))
	},
	"The issuer differs": func(c *cause) {
		t := c.signIn(c.new(c.config()))
		config := c.config()
		config.Issuer += "/"
		c.do(c.new(config), withBearer(getMe(), t.Access))
	},
	"The audience differs": func(c *cause) {
		t := c.signIn(c.new(c.config()))
		config := c.config()
		config.Audience = []string{"https://billing.example.com"}
		c.do(c.new(config), withBearer(getMe(), t.Access))
	},
	"The secret differs": func(c *cause) {
		t := c.signIn(c.new(c.config()))
		config := c.config()
		config.Secrets = [][]byte{nextSecret}
		other := c.new(config)
		c.do(other, withBearer(getMe(), t.Access))
		c.do(other, postRefresh(t))
	},
	"Sessions are in memory": func(c *cause) {
		t := c.signIn(c.new(c.config()))
		c.clock.Advance(time.Minute)
		other := c.new(c.config())
		c.do(other, withBearer(getMe(), t.Access))
		c.do(other, postRefresh(t))
	},
	"The clocks differ": func(c *cause) {
		t := c.signIn(c.new(c.config()))
		c.clock.Advance(-5 * time.Minute)
		config := c.config()
		config.Store = database{auth.NewMemoryStore()}
		a := c.new(config)
		c.run(a)
		<-a.Ready()
		c.do(a, withBearer(getMe(), t.Access))
	},
	"The password or the user": func(c *cause) {
		a := c.new(c.config())
		c.do(a, postLogin("eve"))
		c.do(a, postForm("/auth/login", url.Values{"login": {"ada"}, "password": {"wrong"}}))
		for _, change := range []func(*auth.User){
			func(u *auth.User) { u.PasswordHash = "" },
			func(u *auth.User) { u.PasswordHash = "5f4dcc3b5aa765d61d8327deb882cf99" },
			func(u *auth.User) { u.PasswordHash, u.Disabled = passHash, true },
		} {
			c.users.change("u1", change)
			c.do(a, postLogin("ada"))
		}
	},
	"FindByID does not find the user": func(c *cause) {
		config := c.config()
		config.Users = usersByLogin{c.users}
		c.do(c.new(config), postLogin("ada"))
	},
	"The token does not fit into a cookie": func(c *cause) {
		a := c.withCookies()
		c.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"permissions": strings.Repeat("x", 4000)} })
		c.do(a, withHeaders(postLogin("ada"), "Sec-Fetch-Site", "same-origin"))
	},

	// 503 everywhere
	"Run is not running": func(c *cause) {
		config := c.config()
		config.Store = database{auth.NewMemoryStore()}
		a := c.new(config)
		c.do(a, withBearer(getMe(), c.signIn(a).Access))
	},
	"The server does not start to listen": func(c *cause) {
		config := c.config()
		config.Store = database{auth.NewMemoryStore()}
		a := c.new(config)
		select {
		case <-a.Ready():
			require.Fail(c, "ready without Run")
		default:
		}
		c.text.WriteString(c.log.take()) // nothing
	},
	"The feed has not been read": func(c *cause) {
		config := c.config()
		store := &testStore{Store: database{auth.NewMemoryStore()}}
		config.Store = store
		a := c.new(config)
		t := c.signIn(a)
		store.failFeed(errors.New("dial tcp 10.0.0.5:6379: connect: connection refused"))
		_ = c.log.take()
		c.run(a)
		var fault string
		require.Eventually(c, func() bool { fault += c.log.take(); return strings.Contains(fault, "\n") }, 10*time.Second, time.Millisecond)
		c.text.WriteString(strings.SplitAfter(fault, "\n")[0])
		_, text := respondTo(c, a, withBearer(getMe(), t.Access))
		fmt.Fprintf(&c.text, "GET /me: %s\n", text)
	},
	"The store does not answer": func(c *cause) {
		config := c.config()
		store := &testStore{Store: auth.NewMemoryStore()}
		config.Store = store
		a := c.new(config)
		c.run(a)
		<-a.Ready()
		t := c.signIn(a)
		down := errors.New("dial tcp 10.0.0.5:6379: connect: connection refused")
		store.on(func(context.Context) error { return down }, "Create", "Get", "Rotate", "List", "Revoke", notice)
		c.do(a, postRefresh(t))
		c.do(a, withBearer(getMe(), t.Access))
	},
	"The user lookup fails": func(c *cause) {
		config := c.config()
		config.Users = &users{fail: sql.ErrNoRows}
		c.do(c.new(config), postLogin("eve"))
	},
	"Too many logins": func(c *cause) {
		config := c.config()
		config.Hasher = &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 1}
		defer holdGate(config.Hasher, 1)()
		c.do(c.new(config), postLogin("ada"))
	},

	// A token that was logged out is still accepted
	"The service has no feed":      func(c *cause) { c.logoutElsewhere(nil) },
	"The feed is of another store": func(c *cause) { c.logoutElsewhere(database{auth.NewMemoryStore()}) },
	"The feed is stale": func(c *cause) {
		config := c.config()
		config.Store = database{auth.NewMemoryStore()}
		a, b := c.new(config), c.new(config)
		end := c.run(a)
		<-a.Ready()
		t := c.signIn(a)
		end()
		require.NoError(c, b.Logout(context.Background(), t.Refresh))
		c.clock.Advance(time.Minute)
		_ = c.log.take()
		status, _ := respondTo(c, a, withBearer(getMe(), t.Access))
		require.Equal(c, http.StatusOK, status)
		require.Empty(c, c.log.take(), "not stale yet")
		c.clock.Advance(time.Minute)
		c.do(a, withBearer(getMe(), t.Access))
		c.run(a)
		require.Eventually(c, func() bool {
			status, _ := respondTo(c, a, withBearer(getMe(), t.Access))
			return status == http.StatusUnauthorized
		}, 10*time.Second, time.Millisecond)
	},

	// Guards
	"A role or a scope is missing": func(c *cause) {
		a := c.new(c.config())
		t := c.signIn(a)
		c.users.change("u1", func(u *auth.User) { u.Roles = []string{"Admin"} })
		require.Equal(c, http.StatusOK, c.statusOf(a, "/admin", t), "the roles of the login")
		t = c.refresh(a, t)
		c.do(a, withBearer(httptest.NewRequest(http.MethodGet, "https://api.example.com/admin", nil), t.Access))
	},
	"The login is too long ago": func(c *cause) {
		a := c.new(c.config())
		t := c.signIn(a)
		require.Equal(c, http.StatusOK, c.statusOf(a, "/pay", t))
		c.clock.Advance(6 * time.Minute)
		c.do(a, withBearer(postForm("/pay", nil), c.refresh(a, t).Access))
	},

	// 403 cross_origin
	"The origin is not trusted": func(c *cause) {
		a := c.withCookies()
		r := withTokenCookies(a, postForm("/me", nil), c.signIn(a))
		c.do(a, withHeaders(r, "Origin", "https://app.example.com", "Sec-Fetch-Site", "same-site"))
	},
	"A proxy replaces Host": func(c *cause) {
		a := c.withCookies()
		r := at(withTokenCookies(a, getMe(), c.signIn(a)), "backend:8080")
		c.do(a, withHeaders(r, "Origin", "https://api.example.com", "Connection", "Upgrade", "Upgrade", "websocket"))
	},
	"The port differs": func(c *cause) {
		r := at(postLogin("ada"), "localhost:8080")
		c.do(c.inDevelopment("http://localhost"), withHeaders(r, "Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"))
	},
	"127.0.0.1 is not localhost": func(c *cause) {
		r := at(postLogin("ada"), "127.0.0.1:8080")
		c.do(c.inDevelopment("http://localhost:3000"), withHeaders(r, "Origin", "http://127.0.0.1:3000", "Sec-Fetch-Site", "same-site"))
	},
	"The origin is null": func(c *cause) {
		r := withHeaders(postLogin("ada"), "Origin", "null", "Sec-Fetch-Site", "cross-site")
		c.do(c.withCookies(), r)
	},

	// Cookies are not kept
	"New refuses the configuration": func(c *cause) {
		for _, cookies := range []auth.Cookies{
			{AccessName: "access"}, {InsecureHTTP: true}, {SameSite: http.SameSiteNoneMode}, {Partitioned: true},
			{TrustedOrigins: []string{"null"}}, {TrustedOrigins: []string{"https://app.example.com/"}}, {TrustedOrigins: []string{"http://app.example.com"}},
		} {
			config := c.config()
			config.Cookies = &cookies
			_, err := auth.New(config)
			require.Error(c, err)
			c.text.WriteString(err.Error() + "\n")
		}
	},
	"Two programs use one host": func(c *cause) {
		a := c.inDevelopment()
		config := c.config()
		config.Issuer, config.Secrets = devIssuer, [][]byte{nextSecret}
		config.Cookies = &auth.Cookies{InsecureHTTP: true}
		other := c.new(config)
		c.do(a, at(withTokenCookies(other, getMe(), c.signIn(other)), "localhost:8080"))
	},
	"InsecureHTTP on another host": func(c *cause) {
		r := at(postLogin("ada"), "192.168.1.5:8080")
		c.do(c.inDevelopment(), withHeaders(r, "Origin", "http://192.168.1.5:8080"))
	},

	// Signed out after a lost response
	"A retry within the window": func(c *cause) {
		a := c.new(c.config())
		t := c.signIn(a)
		c.refresh(a, t)
		c.clock.Advance(3 * time.Second)
		_ = c.log.take()
		status, _ := respondTo(c, a, postRefresh(t))
		require.Equal(c, http.StatusOK, status)
		c.text.WriteString(c.log.take())
	},
	"A spent token after the window": func(c *cause) {
		a := c.new(c.config())
		t := c.signIn(a)
		next := c.refresh(a, t)
		c.clock.Advance(time.Minute)
		c.do(a, postRefresh(t))
		c.do(a, withBearer(getMe(), next.Access))
	},
	"A token of an older generation": func(c *cause) {
		a := c.new(c.config())
		t := c.signIn(a)
		next := c.refresh(a, t)
		c.clock.Advance(2 * time.Minute)
		c.refresh(a, next)
		c.clock.Advance(time.Second) // within the retry window
		c.do(a, postRefresh(t))
	},
	"The store was restored": func(c *cause) {
		config := c.config()
		store := auth.NewMemoryStore()
		config.Store = &testStore{Store: database{store}}
		a := c.new(config)
		c.run(a)
		<-a.Ready()
		t := c.signIn(a)
		saved, err := store.Get(context.Background(), t.Subject, t.SessionID)
		require.NoError(c, err)
		next := c.refresh(a, t)
		c.clock.Advance(time.Hour)
		restored := auth.NewMemoryStore()
		require.NoError(c, restored.Create(context.Background(), saved))
		config.Store = restored
		status, text := 0, ""
		_ = c.log.take()
		b := c.new(config)
		status, text = respondTo(c, b, postRefresh(next))
		require.Equal(c, http.StatusOK, status, text)
		for line := range strings.Lines(c.log.take()) {
			if strings.Contains(line, "auth: fault") {
				c.text.WriteString(line)
			}
		}
	},
}

// usersByLogin is a user lookup whose FindByID expects a login name.
type usersByLogin struct{ *users }

func (u usersByLogin) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.FindByLogin(ctx, id)
}

var (
	sessionID = regexp.MustCompile(`(session=|"session_id":")[\w-]{22}`)
	fenceText = regexp.MustCompile("(?s)^.*?```text\n(.*?)```")
)

// TestTroubleshooting_ShowsWhatHappens reproduces each cause, and compares the
// response and the log with the page.
func TestTroubleshooting_ShowsWhatHappens(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/troubleshooting.md")
	require.NoError(t, err)
	shown, titles := map[string]string{}, map[string]bool{}
	for _, section := range strings.Split(string(page), "\n### ")[1:] {
		section, _, _ = strings.Cut(section, "\n## ")
		title, text, _ := strings.Cut(section, "\n")
		titles[title] = true
		if block := fenceText.FindStringSubmatch(text); block != nil {
			shown[title] = block[1]
		}
	}
	for title := range shown {
		require.Contains(t, causes, title, "a block that no test reproduces")
	}
	for title, reproduce := range causes {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			require.True(t, titles[title], "the page has no such heading")
			c := &cause{TB: t, clock: newClock(), users: newUsers()}
			reproduce(c)
			got := sessionID.ReplaceAllString(c.text.String(), "${1}…")
			require.Equal(t, got, shown[title])
		})
	}
}

var (
	nextSecret = []byte("another secret of at least 32 bytes!")
	lastSecret = []byte("and yet another one of 32 bytes or more")
)

// changes has a function for every row of the table under "Changes that sign users
// out". It changes the configuration from the one under which the user signed in.
var changes = map[string]func(c *auth.Config){
	"`Issuer`":                   func(c *auth.Config) { c.Issuer = "https://example.org" },
	"`Audience`: another value":  func(c *auth.Config) { c.Audience = []string{"https://example.org"} },
	"`Audience`: one more value": func(c *auth.Config) { c.Audience = append(c.Audience, "https://example.org") },
	"`Audience`: one value less": func(c *auth.Config) { c.Audience = c.Audience[:1] },
	"`Secrets`: {old} to {new}":  func(c *auth.Config) { c.Secrets = [][]byte{nextSecret} },
	"`Secrets`: {old} to {new, old}, in all processes at once": func(c *auth.Config) { c.Secrets = [][]byte{nextSecret, secret} },
	"`Secrets` to `AccessKeys` and `RefreshKeys`": func(c *auth.Config) {
		c.Secrets, c.AccessKeys, c.RefreshKeys = nil, auth.Keys{auth.HS256(secret)}, auth.Keys{auth.HS256(nextSecret)}
	},
	"`Secrets` to `AccessKeys` and `RefreshKeys` that end with the derived keys": func(c *auth.Config) {
		access, err1 := hkdf.Key(sha256.New, secret, nil, "ratchet v1 access", sha256.Size)
		refresh, err2 := hkdf.Key(sha256.New, secret, nil, "ratchet v1 refresh", sha256.Size)
		if err := errors.Join(err1, err2); err != nil {
			panic(err)
		}
		c.Secrets = nil
		c.AccessKeys = auth.Keys{auth.HS256(lastSecret), auth.HS256(access)}
		c.RefreshKeys = auth.Keys{auth.HS256(nextSecret), auth.HS256(refresh)}
	},
	"`Users` returns other IDs":                  func(c *auth.Config) { c.Users = &users{byID: map[string]auth.User{"1": {ID: "1"}}} },
	"`Store`: another one, or an empty one":      func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} },
	"`AccessTTL`, shorter":                       func(c *auth.Config) { c.AccessTTL = time.Minute },
	"`IdleTTL`, shorter":                         func(c *auth.Config) { c.AccessTTL, c.IdleTTL = time.Minute, 4*time.Minute },
	"`SessionTTL`, shorter than since the login": func(c *auth.Config) { c.AccessTTL, c.IdleTTL, c.SessionTTL = time.Minute, 4*time.Minute, 4*time.Minute },
	"`MaxSessions`, fewer":                       func(c *auth.Config) { c.MaxSessions = 1 },
	"`RetryWindow`, `Leeway`, `Hasher`":          func(c *auth.Config) { c.RetryWindow, c.Leeway, c.Hasher = time.Second, time.Second, &password.Hasher{} },
	"`Cookies.AccessName`":                       func(c *auth.Config) { c.Cookies = &auth.Cookies{AccessName: "__Host-a"} },
	"`Cookies.RefreshName`":                      func(c *auth.Config) { c.Cookies = &auth.Cookies{RefreshName: "__Host-r"} },
	"`Cookies.SameSite`":                         func(c *auth.Config) { c.Cookies = &auth.Cookies{SameSite: http.SameSiteStrictMode} },
	"`Cookies`: removed":                         func(c *auth.Config) { c.Cookies = nil },
}

// TestTroubleshooting_ChangesThatSignUsersOut signs in with cookies and with tokens
// in the body, changes the configuration, and sends a request and a refresh.
func TestTroubleshooting_ChangesThatSignUsersOut(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/troubleshooting.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(page), "\n| change | access tokens | sessions |\n| --- | --- | --- |\n")
	require.True(t, found)
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if line == "\n" {
			break // the end of the table
		}
		name, row, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		rows[name] = strings.TrimSuffix(row, " |\n")
	}
	got := map[string]string{}
	for name, change := range changes {
		access, sessions := afterChange(t, change)
		got[name] = access + " | " + sessions
	}
	require.Equal(t, got, rows)
}

// afterChange returns what a change does to access tokens and to sessions.
func afterChange(t *testing.T, change func(*auth.Config)) (access, sessions string) {
	c := &cause{TB: t, clock: newClock(), users: newUsers()}
	config := c.config()
	config.Audience = []string{audience, "https://second.example"}
	config.Store = database{auth.NewMemoryStore()}
	config.Cookies = &auth.Cookies{AllowBody: true}
	config.MaxSessions = 2
	before := c.new(config)
	browser, script := c.signIn(before), c.signIn(before)
	c.clock.Advance(5 * time.Minute)
	change(&config)
	after := c.new(config)
	c.run(after)
	<-after.Ready()
	outcome := func(ok, refused string, byCookie, byHeader *http.Request) string {
		statusByCookie, text := respondTo(t, after, byCookie)
		statusByHeader, textByHeader := respondTo(t, after, byHeader)
		if statusByHeader != http.StatusOK {
			require.Equal(t, statusByHeader, statusByCookie)
			text = textByHeader
		} else if statusByCookie == http.StatusOK {
			return ok
		} else {
			refused += " in cookies"
		}
		require.Contains(t, text, `"action":"login"`)
		return refused
	}
	access = outcome("accepted", "refused", withTokenCookies(before, getMe(), browser), withBearer(getMe(), script.Access))
	sessions = outcome("go on", "end", withHeaders(withTokenCookies(before, postForm("/auth/refresh", nil), browser), "Sec-Fetch-Site", "same-origin"), postRefresh(script))
	return access, sessions
}
