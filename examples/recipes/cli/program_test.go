package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

type oneUser struct{ ada auth.User }

func (u oneUser) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u oneUser) FindByID(ctx context.Context, _ string) (auth.User, error) {
	return u.FindByLogin(ctx, u.ada.Username)
}

// server is a server for browsers and other clients, with a clock that the test
// advances.
type server struct {
	*authtest.Authenticator
	url       string
	rotations atomic.Int64
	intercept atomic.Pointer[func(w http.ResponseWriter, refresh func())] // of the requests for a refresh
}

func start(t *testing.T, accessTTL time.Duration) *server {
	t.Helper()
	hasher := &password.Hasher{Memory: 64, Time: 1}
	hash, err := hasher.Hash(t.Context(), "correct horse battery staple")
	require.NoError(t, err)
	s := &server{}
	s.Authenticator = authtest.New(t, auth.Config{
		Issuer: "http://localhost", Users: oneUser{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}}, Hasher: hasher,
		Cookies:   &auth.Cookies{InsecureHTTP: true, AllowBody: true},
		AccessTTL: accessTTL, Leeway: -1,
		OnEvent: func(_ context.Context, e auth.Event) {
			if e.Type == auth.EventRefresh {
				s.rotations.Add(1)
			}
		},
	})
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", s.Handler()))
	mux.HandleFunc("POST /auth/refresh", func(w http.ResponseWriter, r *http.Request) {
		refresh := func() { s.RefreshHandler().ServeHTTP(w, r) }
		if f := s.intercept.Load(); f != nil {
			(*f)(w, refresh)
			return
		}
		refresh()
	})
	mux.Handle("GET /api/me", s.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintf(w, "hello %s\n", claims.Username)
	})))
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), http.StatusFound)
	})
	h := httptest.NewServer(mux)
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

// client is the program with a file of its own.
type client struct {
	t       *testing.T
	s       *server
	file    string
	timeout time.Duration
}

func newClient(t *testing.T, s *server) client {
	return client{t, s, filepath.Join(t.TempDir(), "tokens.json"), 30 * time.Second}
}

func (c client) command(args ...string) *exec.Cmd {
	return testserver.Self(c.t, append([]string{"-server", c.s.url, "-tokens", c.file, "-timeout", c.timeout.String()}, args...)...)
}

// run returns the output of the program, and "" if it succeeded or else its error.
func (c client) run(args ...string) (out, failure string) {
	cmd := c.command(args...)
	cmd.Stdin = strings.NewReader("correct horse battery staple\n")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if cmd.Run() != nil {
		failure = strings.TrimPrefix(stderr.String(), "Password: ")
	}
	return stdout.String(), failure
}

func (c client) signIn() {
	c.t.Helper()
	_, failure := c.run("login", "ada")
	require.Empty(c.t, failure)
}

func (c client) requireHello() {
	c.t.Helper()
	out, failure := c.run("get", "/api/me")
	require.Empty(c.t, failure)
	require.Equal(c.t, "hello ada\n", out)
}

// refreshToken returns the refresh token in the file.
func (c client) refreshToken() string {
	c.t.Helper()
	text, err := os.ReadFile(c.file)
	require.NoError(c.t, err)
	var tokens struct {
		Refresh string `json:"refresh_token"`
	}
	require.NoError(c.t, json.Unmarshal(text, &tokens))
	require.NotEmpty(c.t, tokens.Refresh)
	return tokens.Refresh
}

const signInAgain = "sign in: cli login NAME\n"

func TestCLI_StaysSignedInOverManyExpiries(t *testing.T) {
	t.Parallel()
	c := newClient(t, start(t, 5*time.Second))
	_, failure := c.run("get", "/api/me")
	require.Equal(t, "cli: "+signInAgain, failure)
	_, failure = c.run("login", "bob")
	require.Equal(t, "cli: login or password is wrong\n", failure)
	c.signIn()
	for range 5 {
		c.s.Clock.Advance(time.Hour)
		c.requireHello()
	}
	require.EqualValues(t, 5, c.s.rotations.Load())
	info, err := os.Stat(c.file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	sessions, err := c.s.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 1)
	require.NotEmpty(t, sessions[0].Name())

	_, failure = c.run("logout")
	require.Empty(t, failure)
	require.NoFileExists(t, c.file)
	sessions, err = c.s.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Empty(t, sessions)
}

func TestCLI_RefreshesWhenTheServerEndsTheAccessToken(t *testing.T) {
	t.Parallel()
	c := newClient(t, start(t, 15*time.Minute))
	c.signIn()
	c.requireHello()
	require.Zero(t, c.s.rotations.Load())
	c.s.Clock.Advance(2 * time.Second)
	require.NoError(t, c.s.ExpireAccess(t.Context(), "u1"))
	c.requireHello()
	require.EqualValues(t, 1, c.s.rotations.Load())
	require.NoError(t, c.s.RevokeAll(t.Context(), "u1"))
	_, failure := c.run("get", "/api/me")
	require.Contains(t, failure, signInAgain)
	c.signIn()
	c.requireHello()
}

func TestCLI_OutageKeepsTheTokens(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("skipped by -short: waits for a server that is down")
	}
	c := newClient(t, start(t, 5*time.Second))
	c.signIn()
	c.s.Clock.Advance(time.Hour)
	before := c.refreshToken()
	down := func(w http.ResponseWriter, _ func()) { auth.DefaultOnError(w, nil, auth.ErrUnavailable) }
	c.s.intercept.Store(&down)
	c.timeout = 2 * time.Second
	_, failure := c.run("get", "/api/me")
	require.Contains(t, failure, "status 503: temporarily_unavailable: try again")
	require.Equal(t, before, c.refreshToken())

	// A short outage is not noticed.
	var requests atomic.Int64
	short := func(w http.ResponseWriter, refresh func()) {
		if requests.Add(1) == 1 {
			down(w, refresh)
			return
		}
		refresh()
	}
	c.s.intercept.Store(&short)
	c.timeout = 30 * time.Second
	c.requireHello()
	require.EqualValues(t, 2, requests.Load())
}

// TestCLI_CrashBeforeTheTokensAreSaved kills the program after the server has
// rotated the session, and before it has saved the new tokens.
func TestCLI_CrashBeforeTheTokensAreSaved(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]time.Duration{
		"within the retry window": 29 * time.Second,
		"after the retry window":  31 * time.Second,
		"days later":              6 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, start(t, 5*time.Second))
			c.signIn()
			c.s.Clock.Advance(time.Hour)
			before := c.refreshToken()
			cmd := c.command("get", "/api/me")
			started := make(chan struct{})
			crash := func(_ http.ResponseWriter, refresh func()) {
				refresh()
				<-started
				_ = cmd.Process.Kill()
				panic(http.ErrAbortHandler) // the response is not sent
			}
			c.s.intercept.Store(&crash)
			require.NoError(t, cmd.Start())
			close(started)
			require.Eventually(t, func() bool { return c.s.rotations.Load() == 1 }, 20*time.Second, time.Millisecond)
			require.Error(t, cmd.Wait())
			c.s.intercept.Store(nil)
			require.Equal(t, before, c.refreshToken())

			c.s.Clock.Advance(later)
			c.requireHello()
			require.NotEqual(t, before, c.refreshToken())
			c.s.Clock.Advance(time.Hour)
			c.requireHello()
		})
	}
}

func TestCLI_RedirectGetsNoToken(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Authorization: %q\n", r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	c := newClient(t, start(t, 15*time.Minute))
	c.signIn()
	out, failure := c.run("get", "/moved?to="+other.URL)
	require.Empty(t, failure)
	require.Equal(t, "Authorization: \"\"\n", out)
}

func TestCLI_SendsNothingToAServerWithoutTLS(t *testing.T) {
	t.Parallel()
	c := newClient(t, start(t, 15*time.Minute))
	_, failure := c.run("-server", "http://example.com", "login", "ada")
	require.Contains(t, failure, "must have the scheme https, or http with a loopback host")
}

func TestCLI_TwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	c := newClient(t, start(t, 5*time.Second))
	c.signIn()
	for range 3 {
		c.s.Clock.Advance(time.Hour)
		c.s.rotations.Store(0)
		var both, runs sync.WaitGroup
		both.Add(2)
		wait := func(_ http.ResponseWriter, refresh func()) {
			both.Done()
			both.Wait() // both present the same refresh token
			refresh()
		}
		c.s.intercept.Store(&wait)
		var out, failure [2]string
		for i := range 2 {
			runs.Go(func() { out[i], failure[i] = c.run("get", "/api/me") })
		}
		runs.Wait()
		c.s.intercept.Store(nil)
		require.Equal(t, [2]string{}, failure)
		require.Equal(t, [2]string{"hello ada\n", "hello ada\n"}, out)
		require.EqualValues(t, 1, c.s.rotations.Load())
		require.NotEmpty(t, c.refreshToken())
	}
	c.s.Clock.Advance(time.Hour)
	c.requireHello()
}
