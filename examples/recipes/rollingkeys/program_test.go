package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// cluster is two processes on one database. A restart keeps their addresses.
type cluster struct {
	t     *testing.T
	addrs [2]string
	nodes [2]*exampletest.Program
	db    string
}

func newCluster(t *testing.T, env ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, db: filepath.Join(t.TempDir(), "sessions.db")}
	for i := range c.nodes {
		c.addrs[i] = "127.0.0.1:" + testserver.FreePort(t)
		c.start(i, env...)
	}
	return c
}

func (c *cluster) start(i int, env ...string) {
	c.t.Helper()
	c.nodes[i] = exampletest.Start(c.t, env, "-addr", c.addrs[i], "-db", c.db, "-retry-window", "100ms")
}

// deploy restarts the processes one after the other with a new environment. between
// runs after the first one.
func (c *cluster) deploy(between func(), env ...string) {
	c.t.Helper()
	for i := range c.nodes {
		require.NoError(c.t, c.nodes[i].Stop(), c.nodes[i].Output())
		c.start(i, env...)
		if i == 0 {
			between()
		}
	}
}

// visitor is a signed-in client. It tries the other process if one does not answer,
// as a load balancer does.
type visitor struct {
	t     *testing.T
	addrs [2]string
	http  *http.Client

	mu     sync.Mutex
	tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	served int
}

func signIn(t *testing.T, c *cluster) *visitor {
	t.Helper()
	v := &visitor{t: t, addrs: c.addrs, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}}
	status, body := v.do(http.MethodPost, 0, "/auth/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
	require.Equal(t, 200, status, body)
	require.NoError(t, json.Unmarshal([]byte(body), &v.tokens))
	return v
}

// do sends a request to process i, or to the other one if i does not answer.
func (v *visitor) do(method string, i int, path string, form url.Values) (status int, body string) {
	for ; ; i = 1 - i {
		r, err := http.NewRequestWithContext(v.t.Context(), method, "http://"+v.addrs[i]+path, strings.NewReader(form.Encode()))
		if err != nil {
			return 0, err.Error()
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+v.tokens.Access)
		resp, err := v.http.Do(r)
		if v.t.Context().Err() != nil {
			return 0, "the test has ended"
		}
		if err != nil {
			continue // this process restarts
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			continue
		}
		return resp.StatusCode, string(b)
	}
}

// round refreshes at each process, and sends a request to each with every new token.
// It returns the first response that is not 200.
func (v *visitor) round() (status int, body string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range 2 {
		status, body := v.do(http.MethodPost, i, "/auth/refresh", url.Values{"refresh_token": {v.tokens.Refresh}})
		if status != http.StatusOK {
			return status, body
		}
		if err := json.Unmarshal([]byte(body), &v.tokens); err != nil {
			return 0, err.Error()
		}
		for j := range 2 {
			if status, body := v.do(http.MethodGet, j, "/me", nil); status != http.StatusOK {
				return status, body
			}
		}
		v.served += 3
	}
	return http.StatusOK, ""
}

// visit calls round until stop is called. It reports a refused request as an error of
// the test.
func (v *visitor) visit() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
			}
			if status, body := v.round(); status != http.StatusOK {
				v.t.Errorf("the client was refused: %d %s", status, body)
				return
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { close(done); <-stopped }) }
	v.t.Cleanup(stop)
	return stop
}

// kid returns the ID of the key that signed a token of the client.
func (v *visitor) kid(refresh bool) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	token := v.tokens.Access
	if refresh {
		token = v.tokens.Refresh
	}
	head, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	require.NoError(v.t, err)
	var header struct{ Kid string }
	require.NoError(v.t, json.Unmarshal(b, &header))
	return header.Kid
}

func (v *visitor) untilKid(refresh bool, what string, ok func(kid string) bool) {
	v.t.Helper()
	require.Eventually(v.t, func() bool { return v.t.Failed() || ok(v.kid(refresh)) }, 3*time.Minute, 5*time.Millisecond, what)
	require.False(v.t, v.t.Failed(), what)
}

func newSecret() string { return rand.Text() + rand.Text() }

func TestSecrets_ReplacedInThreeDeployments(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: restarts eight processes")
	}
	t.Parallel()
	before, next := newSecret(), newSecret()
	c := newCluster(t, "AUTH_SECRETS="+before)
	v := signIn(t, c)
	access, refresh := v.kid(false), v.kid(true)
	stop := v.visit()
	mixed := func() { // both processes serve requests between two restarts
		v.mu.Lock()
		from := v.served
		v.mu.Unlock()
		require.Eventually(t, func() bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			return t.Failed() || v.served > from+6
		}, 30*time.Second, time.Millisecond)
	}
	c.deploy(mixed, "AUTH_SECRETS="+before+" "+next)
	mixed()
	require.Equal(t, access, v.kid(false), "the first secret signs")
	c.deploy(mixed, "AUTH_SECRETS="+next+" "+before)
	v.untilKid(false, "access tokens of the new secret", func(kid string) bool { return kid != access })
	v.untilKid(true, "refresh tokens of the new secret", func(kid string) bool { return kid != refresh })
	c.deploy(mixed, "AUTH_SECRETS="+next)
	mixed()
	stop()
	t.Logf("%d requests, none refused", v.served)
}

// TestSecrets_SkippedDeploymentRefusesTokens shows why the first deployment is
// necessary: a process that does not know the new secret refuses its tokens, and
// tells the client to sign in again.
func TestSecrets_SkippedDeploymentRefusesTokens(t *testing.T) {
	t.Parallel()
	before, next := newSecret(), newSecret()
	c := newCluster(t, "AUTH_SECRETS="+before)
	require.NoError(t, c.nodes[0].Stop())
	c.start(0, "AUTH_SECRETS="+next+" "+before)
	v := signIn(t, c) // at the first process
	status, body := v.do(http.MethodGet, 1, "/me", nil)
	require.Equal(t, 401, status)
	require.Contains(t, body, `"action":"login"`)
	status, body = v.do(http.MethodPost, 1, "/auth/refresh", url.Values{"refresh_token": {v.tokens.Refresh}})
	require.Equal(t, 401, status)
	require.Contains(t, body, `"action":"login"`)
	status, _ = v.do(http.MethodGet, 0, "/me", nil)
	require.Equal(t, 200, status)
}

// newKeyPair writes a key pair to a file, and returns the file and the key's ID.
func newKeyPair(t *testing.T) (file, id string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return file, auth.EdDSA(private).ID()
}

func TestKeyPair_SignsFromTheSameTimeInEveryProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits until the new key signs")
	}
	t.Parallel()
	secret := "AUTH_SECRETS=" + newSecret()
	before, beforeID := newKeyPair(t)
	next, nextID := newKeyPair(t)
	began := time.Now()
	c := newCluster(t, secret, "AUTH_ACCESS_KEYS="+before)
	// Both processes must have restarted by then, so it depends on how long a start
	// takes on this machine.
	margin := 5*time.Second + 6*time.Since(began)
	v := signIn(t, c)
	require.Equal(t, beforeID, v.kid(false))
	stop := v.visit()
	from := time.Now().Add(margin)
	timed := next + "@" + from.UTC().Format(time.RFC3339)
	published := func(i int) bool {
		resp, err := v.http.Get("http://" + c.addrs[i] + "/auth/jwks.json")
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return strings.Contains(string(body), nextID)
	}
	c.deploy(func() {
		require.True(t, published(0), "verifiers must get the key before it signs")
		require.False(t, published(1))
	}, secret, "AUTH_ACCESS_KEYS="+timed+" "+before)
	require.True(t, published(1))
	if now := time.Now(); now.Before(from.Add(-time.Second)) { // unless the machine was busy
		require.Equal(t, beforeID, v.kid(false))
	}
	v.untilKid(false, "access tokens of the new key", func(kid string) bool { return kid == nextID })
	require.False(t, time.Now().Before(from.Truncate(time.Second)), "the new key signed too early")
	// The tokens of the old key expire in 15 minutes. This client has none anymore.
	c.deploy(func() {}, secret, "AUTH_ACCESS_KEYS="+timed)
	stop()
	t.Logf("%d requests, none refused", v.served)
}
