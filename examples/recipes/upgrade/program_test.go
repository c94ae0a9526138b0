package main

import (
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const (
	newSecret = "the new secret of these tests, 0123456789"
	oldSecret = "the old secret of these tests"
)

type app struct {
	*exampletest.Program
	t  *testing.T
	db *sql.DB
}

func start(t *testing.T, switched time.Time) *app {
	t.Helper()
	file := filepath.Join(t.TempDir(), "upgrade.db")
	p := exampletest.Start(t, []string{"AUTH_SECRET=" + newSecret, "OLD_SECRET=" + oldSecret},
		"-addr", "127.0.0.1:0", "-db", file, "-switched", switched.Format(time.RFC3339))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(file)+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return &app{p, t, db}
}

func (a *app) hash(name string) (hash string) {
	a.t.Helper()
	require.NoError(a.t, a.db.QueryRow(`SELECT password_hash FROM users WHERE name = ?`, name).Scan(&hash))
	return hash
}

// logs waits until the bridge has logged its nth refusal, and requires its reason.
func (a *app) logs(n int, why string) {
	a.t.Helper()
	var lines []string
	require.Eventually(a.t, func() bool {
		lines = strings.Split(a.Output(), "bridge: refused")
		return len(lines) > n && strings.Contains(lines[n], "\n")
	}, 10*time.Second, time.Millisecond)
	require.Contains(a.t, strings.SplitN(lines[n], "\n", 2)[0], why)
}

// oldToken returns a token as the old login issued it.
func oldToken(t *testing.T, subject string, issued time.Time, change func(*jwt.RegisteredClaims)) string {
	t.Helper()
	c := jwt.RegisteredClaims{Subject: subject, IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(issued.Add(oldLifetime))}
	if change != nil {
		change(&c)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(oldSecret))
	require.NoError(t, err)
	return token
}

// browser follows redirects and keeps cookies.
type browser struct {
	app  *app
	http *http.Client
}

func (a *app) browser(old string) *browser {
	a.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(a.t, err)
	if old != "" {
		base, err := url.Parse(a.URL)
		require.NoError(a.t, err)
		jar.SetCookies(base, []*http.Cookie{{Name: oldCookie, Value: old, Path: "/"}})
	}
	return &browser{a, &http.Client{Jar: jar, Timeout: 20 * time.Second}}
}

// get loads a page, and returns the path that the redirects ended at and the body.
func (b *browser) get(path string) (at, body string) {
	b.app.t.Helper()
	r, err := http.NewRequestWithContext(b.app.t.Context(), http.MethodGet, b.app.URL+path, http.NoBody)
	require.NoError(b.app.t, err)
	r.Header.Set("Accept", "text/html")
	resp, err := b.http.Do(r)
	require.NoError(b.app.t, err)
	return b.read(resp)
}

func (b *browser) login(next, name, pass string) (at, body string) {
	b.app.t.Helper()
	resp, err := b.http.PostForm(b.app.URL+"/login", url.Values{"login": {name}, "password": {pass}, "next": {next}})
	require.NoError(b.app.t, err)
	return b.read(resp)
}

func (b *browser) read(resp *http.Response) (at, body string) {
	b.app.t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.app.t, err)
	return resp.Request.URL.RequestURI(), string(text)
}

func (b *browser) cookies() (names []string) {
	base, _ := url.Parse(b.app.URL)
	for _, c := range b.http.Jar.Cookies(base) {
		names = append(names, c.Name)
	}
	return names
}

func TestPassword_BcryptIsReplacedAtLogin(t *testing.T) {
	t.Parallel()
	a := start(t, time.Now())
	require.Regexp(t, `^\$2a\$`, a.hash("ada"))
	b := a.browser("")
	_, body := b.login("/", "ada", "wrong")
	require.Contains(t, body, "The name or the password is wrong.")
	require.Regexp(t, `^\$2a\$`, a.hash("ada"))
	at, body := b.login("/pay", "ada", "correct horse battery staple")
	require.Equal(t, "/pay", at)
	require.Equal(t, "hello ada\n", body)
	require.Regexp(t, `^\$argon2id\$`, a.hash("ada"))
	require.Regexp(t, `^\$2a\$`, a.hash("bob"), "a user who has not signed in keeps the old hash")
	at, _ = a.browser("").login("/", "ada", "correct horse battery staple")
	require.Equal(t, "/", at, "the new hash does not verify")
}

func TestBridge_OldCookieBecomesASession(t *testing.T) {
	t.Parallel()
	a := start(t, time.Now())
	old := oldToken(t, "1", time.Now().Add(-24*time.Hour), nil)
	b := a.browser(old)
	at, body := b.get("/?page=2")
	require.Equal(t, "/?page=2", at, "the user returns to the page that was asked for")
	require.Equal(t, "hello ada\n", body)
	require.ElementsMatch(t, []string{"access", "device", "refresh"}, b.cookies(), "the old cookie is deleted")

	// The session does not count as a recent login.
	at, _ = b.get("/pay")
	require.Equal(t, "/login?next=%2Fpay", at)
	at, body = b.login("/pay", "ada", "correct horse battery staple")
	require.Equal(t, "/pay", at)
	require.Equal(t, "hello ada\n", body)

	thief := a.browser(old)
	at, _ = thief.get("/")
	require.Equal(t, "/login", at, "a token is accepted once")
	require.Empty(t, thief.cookies())
	a.logs(1, "old token: it was exchanged before")
}

func TestBridge_RefusesOtherTokens(t *testing.T) {
	t.Parallel()
	switched := time.Now().Add(-time.Hour)
	before := switched.Add(-time.Hour)
	a := start(t, switched)
	sign := func(method jwt.SigningMethod, key any) string {
		token, err := jwt.NewWithClaims(method, jwt.RegisteredClaims{
			Subject: "1", IssuedAt: jwt.NewNumericDate(before), ExpiresAt: jwt.NewNumericDate(before.Add(oldLifetime)),
		}).SignedString(key)
		require.NoError(t, err)
		return token
	}
	_, err := a.db.Exec(`UPDATE users SET password_changed_at = ? WHERE name = 'bob'`, before.Add(time.Minute).Unix())
	require.NoError(t, err)
	refusals := 0
	for name, tc := range map[string]struct{ token, why string }{
		"another secret":             {sign(jwt.SigningMethodHS256, []byte("another secret")), "signature is invalid"},
		"the new secret":             {sign(jwt.SigningMethodHS256, []byte(newSecret)), "signature is invalid"},
		"another algorithm":          {sign(jwt.SigningMethodHS512, []byte(oldSecret)), "signing method HS512 is invalid"},
		"no signature":               {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), "signing method none is invalid"},
		"no expiry":                  {oldToken(t, "1", before, func(c *jwt.RegisteredClaims) { c.ExpiresAt = nil }), "exp claim is required"},
		"expired":                    {oldToken(t, "1", before, func(c *jwt.RegisteredClaims) { c.ExpiresAt = jwt.NewNumericDate(before) }), "token is expired"},
		"no time of issue":           {oldToken(t, "1", before, func(c *jwt.RegisteredClaims) { c.IssuedAt = nil }), "not issued before"},
		"issued after the switch":    {oldToken(t, "1", switched.Add(time.Minute), nil), "not issued before"},
		"no such user":               {oldToken(t, "3", before, nil), "its user was deleted"},
		"before the password change": {oldToken(t, "2", before, nil), "has changed the password"},
		"not a token":                {"x", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := a.browser(tc.token)
			at, _ := b.get("/")
			require.Equal(t, "/login", at)
			require.Empty(t, b.cookies())
			refusals++
			a.logs(refusals, tc.why)
		})
	}
	at, _ := a.browser(oldToken(t, "2", before.Add(2*time.Minute), nil)).get("/")
	require.Equal(t, "/", at, "a token from after the password change")

	late := start(t, time.Now().Add(-oldLifetime-time.Minute))
	valid := oldToken(t, "1", time.Now().Add(-oldLifetime-time.Hour), func(c *jwt.RegisteredClaims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(time.Hour)) })
	at, _ = late.browser(valid).get("/")
	require.Equal(t, "/login", at)
	late.logs(1, "the deadline has passed")
}

// TestBridge_OneUse presents one token many times at once, and spelled differently.
func TestBridge_OneUse(t *testing.T) {
	t.Parallel()
	a := start(t, time.Now())
	token := oldToken(t, "1", time.Now().Add(-time.Hour), nil)
	var mu sync.Mutex
	statuses := map[int]int{}
	exchange := func(token string) {
		r, err := http.NewRequest(http.MethodPost, a.URL+"/exchange", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		var body struct {
			Access string `json:"access_token"`
			Action string `json:"action"`
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
		require.Equal(t, resp.StatusCode == 200, body.Access != "")
		require.Equal(t, resp.StatusCode == 401, body.Action == "login")
		mu.Lock()
		defer mu.Unlock()
		statuses[resp.StatusCode]++
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { exchange(token) })
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: 1, 401: 19}, statuses)
	// The last character has two bits that mean nothing: four spellings decode to one
	// signature.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	for i := range 4 {
		exchange(token[:len(token)-1] + alphabet[last&^3+i:][:1])
	}
	require.Equal(t, map[int]int{200: 1, 401: 23}, statuses)
}

func TestBridge_TokenIsNotSpentByAnOutage(t *testing.T) {
	t.Parallel()
	a := start(t, time.Now())
	b := a.browser(oldToken(t, "1", time.Now().Add(-time.Hour), nil))
	_, err := a.db.Exec(`ALTER TABLE users RENAME COLUMN name TO renamed`) // user lookups fail
	require.NoError(t, err)
	_, body := b.get("/")
	require.Contains(t, body, "Service Unavailable")
	require.Equal(t, []string{oldCookie}, b.cookies())
	_, err = a.db.Exec(`ALTER TABLE users RENAME COLUMN renamed TO name`)
	require.NoError(t, err)
	_, body = b.get("/")
	require.Equal(t, "hello ada\n", body)
}

// TestRun_NeedsTheTimeOfTheSwitch: with a default, the deadline would move with each
// restart.
func TestRun_NeedsTheTimeOfTheSwitch(t *testing.T) {
	t.Parallel()
	cmd := testserver.Self(t, "-addr", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "upgrade.db"))
	cmd.Env = append(cmd.Env, "AUTH_SECRET="+newSecret, "OLD_SECRET="+oldSecret)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "-switched")
}

func TestRun_NeedsTwoSecrets(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{{"AUTH_SECRET=" + newSecret, "OLD_SECRET="}, {"AUTH_SECRET=" + newSecret, "OLD_SECRET=" + newSecret}} {
		cmd := testserver.Self(t, "-addr", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "upgrade.db"))
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "set AUTH_SECRET to a new secret, and OLD_SECRET to the secret of the old login")
	}
}
