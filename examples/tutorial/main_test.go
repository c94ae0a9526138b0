package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

const page = "https://app.example.net"

// clock is the clock of the server, which the test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// buffer is a log that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// program serves both APIs over TLS on a loopback address.
type program struct {
	t     *testing.T
	url   string
	http  *http.Client // without cookies
	clock *clock
	users *users
	log   *buffer
}

func randomSecret() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return b
}

func configs(t *testing.T, log io.Writer, now func() time.Time) (cookieConfig, bodyConfig, *users) {
	t.Helper()
	hasher := &password.Hasher{Memory: 64, Time: 1} // low costs keep the tests fast
	table, err := newUsers(context.Background(), hasher)
	require.NoError(t, err)
	both := shared{users: table, hasher: hasher, log: slog.New(slog.NewTextHandler(log, nil)), now: now}
	return cookieConfig{shared: both, secret: randomSecret(), origin: page},
		bodyConfig{shared: both, tokenSecret: randomSecret(), refreshSecret: randomSecret(), queryToken: true},
		table
}

func start(t *testing.T, change ...func(*cookieConfig, *bodyConfig)) *program {
	t.Helper()
	p := &program{t: t, clock: &clock{now: time.Now()}, log: &buffer{}}
	one, two, table := configs(t, p.log, p.clock.Now)
	for _, f := range change {
		f(&one, &two)
	}
	h, err := newHandler(one, two)
	require.NoError(t, err)
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	p.url, p.http, p.users = server.URL, server.Client(), table
	return p
}

// browser returns a client with a cookie jar.
func (p *program) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	require.NoError(p.t, err)
	c := *p.http
	c.Jar = jar
	return &c
}

// response is a response with its body.
type response struct {
	status  int
	header  http.Header
	body    string
	cookies []*http.Cookie
}

func (a response) field(t *testing.T, name string) string {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &object), a.body)
	text, ok := object[name].(string)
	require.True(t, ok, "%s in %s", name, a.body)
	return text
}

func (a response) cookie(name string) *http.Cookie {
	for _, c := range a.cookies {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// do sends a request. headers are pairs of name and value. A body that begins with
// { is JSON, any other is a form.
func (p *program) do(c *http.Client, method, path, body string, headers ...string) response {
	p.t.Helper()
	r, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	require.NoError(p.t, err)
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	} else if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(r)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return response{resp.StatusCode, resp.Header, string(read), resp.Cookies()}
}

func (p *program) expect(a response, status int, body string) {
	p.t.Helper()
	require.Equal(p.t, status, a.status, a.body)
	require.Equal(p.t, body, strings.TrimSuffix(a.body, "\n"))
}

func object(pairs ...string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	b, _ := json.Marshal(m)
	return string(b)
}

// payload returns the claims of a token, without verifying it.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m))
	return m
}

// lifetime returns the lifetime of a token in seconds.
func lifetime(t *testing.T, token string) float64 {
	t.Helper()
	m := payload(t, token)
	return m["exp"].(float64) - m["iat"].(float64)
}

// countSessions returns the number of sessions in a response of the sessions
// endpoint.
func countSessions(t *testing.T, a response) int {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, a.body)
	var list struct {
		Sessions []struct{ ID string }
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &list))
	return len(list.Sessions)
}

func TestNew_RefusesMissingAndShortSecrets(t *testing.T) {
	t.Parallel()
	one, two, _ := configs(t, io.Discard, nil)
	for _, secret := range [][]byte{nil, {}, []byte("secret")} {
		bad := one
		bad.secret = secret
		_, err := newCookieAPI(bad)
		require.ErrorContains(t, err, "Config.Secrets[0]")

		bad2 := two
		bad2.tokenSecret = secret
		_, err = newBodyAPI(bad2)
		require.ErrorContains(t, err, "Config.AccessKeys[0]")

		bad2 = two
		bad2.refreshSecret = secret
		_, err = newBodyAPI(bad2)
		require.ErrorContains(t, err, "Config.RefreshKeys[0]")
	}
	same := two
	same.refreshSecret = same.tokenSecret
	_, err := newBodyAPI(same)
	require.ErrorContains(t, err, "same secret")
}

func TestRun_SecretsFromEnvironment(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0123456789abcdef", 2)
	env := func(values map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			v, ok := values[name]
			return v, ok
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // so that run would return at once
	for _, bad := range []string{"", "secret"} {
		err := run(ended, []string{"-addr", "127.0.0.1:0"}, env(map[string]string{"COOKIES_SECRET": bad}), io.Discard, io.Discard)
		require.ErrorContains(t, err, "COOKIES_SECRET")
	}

	var stderr buffer
	secrets, err := readSecrets(env(map[string]string{"A": good}), &stderr, "A", "B", "C")
	require.NoError(t, err)
	require.Equal(t, good, string(secrets[0]))
	require.Len(t, secrets[1], 32)
	require.NotEqual(t, secrets[1], secrets[2])
	require.NotContains(t, stderr.String(), "A is not set")
	require.Contains(t, stderr.String(), "B is not set")
	require.Contains(t, stderr.String(), "C is not set")
}

func TestRun_ServesUntilCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reader, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-addr", "127.0.0.1:0"}, func(string) (string, bool) { return "", false }, stdout, io.Discard)
		_ = stdout.Close()
	}()
	line := make([]byte, 4096)
	n, err := reader.Read(line)
	require.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	_, rest, ok := strings.Cut(string(line[:n]), "served on ")
	require.True(t, ok)
	base, _, _ := strings.Cut(rest, ".\n")
	resp, err := http.Get(base + "/api/secure")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	cancel()
	require.NoError(t, <-done)
}

func TestAPIs_RefuseTokensOfEachOther(t *testing.T) {
	t.Parallel()
	p := start(t)
	one := p.do(p.http, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword, "delivery", "body"))
	two := p.do(p.http, "POST", "/api/login", object("email", "ada@example.com", "password", demoPassword))
	require.Equal(t, 200, one.status)
	require.Equal(t, 200, two.status)

	require.Equal(t, 401, p.do(p.http, "GET", "/api/v1/user/me", "", "Authorization", "Bearer "+two.field(t, "token")).status)
	require.Equal(t, 401, p.do(p.http, "GET", "/api/secure", "", "X-Access-Token", one.field(t, "accessToken")).status)
	require.Equal(t, 403, p.do(p.http, "POST", "/api/v1/auth/refresh", "", "Refresh-Token", two.field(t, "refreshToken")).status)
	require.Equal(t, 404, p.do(p.http, "POST", "/api/token", object("refreshToken", one.field(t, "refreshToken"))).status)
	// Access and refresh tokens are not interchangeable either.
	require.Equal(t, 401, p.do(p.http, "GET", "/api/secure", "", "X-Access-Token", two.field(t, "refreshToken")).status)
	require.Equal(t, 404, p.do(p.http, "POST", "/api/token", object("refreshToken", two.field(t, "token"))).status)
}

func TestLog_ContainsNoTokenOrPassword(t *testing.T) {
	t.Parallel()
	p := start(t)
	var secrets []string

	one := p.browser()
	a := p.do(one, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword))
	secrets = append(secrets, a.cookie("accessToken").Value, a.cookie("refreshToken").Value)
	a = p.do(one, "POST", "/api/v1/auth/refresh", "")
	secrets = append(secrets, a.cookie("accessToken").Value, a.cookie("refreshToken").Value)
	require.Equal(t, 200, p.do(one, "GET", "/api/v1/user/me", "").status)

	a = p.do(p.http, "POST", "/api/login", object("email", "ada@example.com", "password", demoPassword))
	token, refresh := a.field(t, "token"), a.field(t, "refreshToken")
	secrets = append(secrets, token, refresh)
	require.Equal(t, 200, p.do(p.http, "GET", "/api/secure?token="+token, "").status)
	require.Equal(t, 401, p.do(p.http, "GET", "/api/secure?token="+token+"x", "").status)
	a = p.do(p.http, "POST", "/api/token", object("refreshToken", refresh))
	secrets = append(secrets, a.field(t, "token"), a.field(t, "refreshToken"))
	p.clock.advance(time.Minute)
	require.Equal(t, 404, p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)).status) // a spent token, which causes an event
	require.Equal(t, 401, p.do(p.http, "POST", "/api/login", object("email", "password-typed-as-login", "password", "hunter2hunter2")).status)
	p.do(p.http, "POST", "/api/token?refreshToken="+refresh, "")
	p.do(p.http, "GET", "/nowhere?token="+token, "")

	log := p.log.String()
	require.Contains(t, log, "path=/api/secure status=200")
	require.Contains(t, log, "auth: reuse")
	require.NotContains(t, log, "token=")
	for _, secret := range append(secrets, demoPassword, "hunter2hunter2", "password-typed-as-login", "eyJ") {
		require.NotContains(t, log, secret)
		if i := strings.LastIndexByte(secret, '.'); i >= 0 {
			require.NotContains(t, log, secret[i+1:], "the log contains a signature")
		}
	}
}

// flakyUsers is a user table that a test can make unavailable.
type flakyUsers struct {
	auth.Users
	down atomic.Bool
}

func (o *flakyUsers) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	if o.down.Load() {
		return auth.User{}, errors.New("no connection")
	}
	return o.Users.FindByLogin(ctx, login)
}

func (o *flakyUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	if o.down.Load() {
		return auth.User{}, errors.New("no connection")
	}
	return o.Users.FindByID(ctx, id)
}

func TestOutage_SignsNoUserOut(t *testing.T) {
	t.Parallel()
	var table flakyUsers
	p := start(t, func(one *cookieConfig, two *bodyConfig) {
		table.Users = one.users
		one.users, two.users = &table, &table
	})
	browser := p.browser()
	p.loginByCookie(browser)
	token, refresh := p.loginByBody()

	table.down.Store(true)
	for _, a := range []response{
		p.do(p.http, "POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword)),
		p.do(browser, "POST", "/api/v1/auth/refresh", ""),
		p.do(p.http, "POST", "/api/login", object("email", "ada@example.com", "password", demoPassword)),
		p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)),
	} {
		require.Equal(t, http.StatusServiceUnavailable, a.status, a.body)
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.Empty(t, a.cookies)
	}
	require.Equal(t, 200, p.do(browser, "GET", "/api/v1/user/me", "").status)
	require.Equal(t, 200, p.do(p.http, "GET", "/api/secure", "", "X-Access-Token", token).status)

	table.down.Store(false)
	require.Equal(t, 200, p.do(browser, "POST", "/api/v1/auth/refresh", "").status)
	require.Equal(t, 200, p.do(p.http, "POST", "/api/token", object("refreshToken", refresh)).status)
}

func TestUsers_LookupIgnoresCase(t *testing.T) {
	t.Parallel()
	_, _, table := configs(t, io.Discard, nil)
	for _, login := range []string{"ada", "ADA", "ada@example.com", "Ada@Example.com"} {
		u, err := table.FindByLogin(context.Background(), login)
		require.NoError(t, err)
		require.Equal(t, "1001", u.ID)
	}
	require.Error(t, table.add(account{id: "9", email: "x@example.com", name: "ada@example.com"}))
	require.Error(t, table.add(account{id: "9", email: "ADA@example.com", name: "x"}))
	require.Error(t, table.add(account{id: "9", email: "nowhere", name: "x"}))
}
