package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/quickstart/site"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

func command(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := testserver.Self(t, args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool {
		return strings.HasPrefix(v, "ACCESS_SECRET=") || strings.HasPrefix(v, "REFRESH_SECRET=")
	})
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// server is a running program.
type server struct {
	base, greeting string
	cmd            *exec.Cmd
	stderr         testserver.Output
	end            func(os.Signal) error // sends a signal, once, and returns the error of the exit
}

func start(t *testing.T, dir string, env []string, args ...string) *server {
	t.Helper()
	s := &server{cmd: command(t, dir, env, args...)}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	var once sync.Once
	var exit error
	s.end = func(sig os.Signal) error {
		once.Do(func() {
			_ = s.cmd.Process.Signal(sig)
			kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
			defer kill.Stop()
			exit = s.cmd.Wait()
		})
		return exit
	}
	t.Cleanup(func() { _ = s.end(syscall.SIGTERM) })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.greeting += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "rm ") {
			break
		}
	}
	_, s.base, _ = strings.Cut(strings.SplitN(s.greeting, "\n", 2)[0], " on ")
	if s.base == "" {
		require.Fail(t, "the program did not start", "%v: %s", s.end(syscall.SIGTERM), &s.stderr)
	}
	return s
}

// post sends a form. It returns an error if no complete response arrives.
func post(client *http.Client, url string, form url.Values) (status int, response map[string]any, err error) {
	resp, err := client.PostForm(url, form)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &response); err != nil {
			return 0, nil, err
		}
	}
	return resp.StatusCode, response, nil
}

func login(name string) url.Values {
	return url.Values{"login": {name}, "password": {site.Password}, "delivery": {"body"}}
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: 10 * time.Second}
}

func TestRestart_UsersStaySignedIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	client := newClient()
	s := start(t, dir, nil, "-addr", "127.0.0.1:0")
	require.Contains(t, s.greeting, "Ratchet durable on http://127.0.0.1:")
	require.Contains(t, s.greeting, "stored in sessions.db and survive")
	require.Contains(t, s.greeting, "the keys are in sessions.db.keys")
	status, tokens, err := post(client, s.base+"/auth/login", login("ada"))
	require.NoError(t, err)
	require.Equal(t, 200, status)
	_, out, err := post(client, s.base+"/auth/login", login("bob"))
	require.NoError(t, err)
	status, _, err = post(client, s.base+"/auth/logout", url.Values{"refresh_token": {out["refresh_token"].(string)}})
	require.NoError(t, err)
	require.Equal(t, 204, status)
	for _, name := range []string{"sessions.db", "sessions.db.keys"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "sessions.db.keys"))
	require.NoError(t, err)
	for line := range strings.Lines(string(keys)) {
		_, secret, _ := strings.Cut(strings.TrimSpace(line), "=")
		require.Len(t, secret, 52)
		require.NotContains(t, s.greeting+s.stderr.String(), secret)
	}

	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		err := s.end(sig)
		if sig == syscall.SIGTERM {
			require.NoError(t, err, s.stderr.String())
			require.NoFileExists(t, filepath.Join(dir, "sessions.db-wal"))
		}
		s = start(t, dir, nil, "-addr", "127.0.0.1:0", "-db", filepath.Join(dir, "sessions.db"))
		req, err := http.NewRequest("GET", s.base+"/api/me", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+tokens["access_token"].(string))
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		status, tokens, err = post(client, s.base+"/auth/refresh", url.Values{"refresh_token": {tokens["refresh_token"].(string)}})
		require.NoError(t, err)
		require.Equal(t, 200, status, "%v", tokens)
		status, response, err := post(client, s.base+"/auth/refresh", url.Values{"refresh_token": {out["refresh_token"].(string)}})
		require.NoError(t, err)
		require.Equal(t, 401, status, "%v", response)
	}
}

func TestFlags_OtherArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := command(t, dir, nil, "-addr", "127.0.0.1:0", "other.db").CombinedOutput() // without -db
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, 2, exit.ExitCode())
	require.Contains(t, string(out), `unexpected argument "other.db"`)
	require.NoFileExists(t, filepath.Join(dir, "sessions.db"))
}

func TestPage_SaysWhatARestartDoes(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), nil, "-addr", "127.0.0.1:0")
	resp, err := newClient().Get(s.base)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "<title>Ratchet durable</title>")
	require.Contains(t, string(body), "you are still signed in afterwards")
	require.NotContains(t, string(body), "you have to sign in again afterwards")
}

func TestKeys_RefusedUnlessPrivate(t *testing.T) {
	t.Parallel()
	good := "ACCESS_SECRET=an-access-secret-that-is-long-enough-1a\nREFRESH_SECRET=a-refresh-secret-that-is-long-enough-1b\n"
	for _, tc := range []struct {
		name, content string
		mode          os.FileMode
		env           []string
		want          string
	}{
		{"others may read them", good, 0o644, nil, "has mode -rw-r--r--"},
		{"the group may write them", good, 0o620, nil, "has mode -rw--w----"},
		{"empty", "", 0o600, nil, "no secrets in the file"},
		{"cut off", good[:50], 0o600, nil, "REFRESH_SECRET is missing"},
		{"short", "ACCESS_SECRET=short-a\nREFRESH_SECRET=short-b\n", 0o600, nil, "AccessKeys[0]"},
		{"half an environment", good, 0o600, []string{"ACCESS_SECRET=an-access-secret-that-is-long-enough-1a"}, "REFRESH_SECRET is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "sessions.db.keys")
			require.NoError(t, os.WriteFile(file, []byte(tc.content), 0o600))
			require.NoError(t, os.Chmod(file, tc.mode))
			out, err := command(t, dir, tc.env, "-addr", "127.0.0.1:0").CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 1, exit.ExitCode())
			require.Contains(t, string(out), tc.want)
			require.NotContains(t, string(out), "long-enough")
			require.NotContains(t, string(out), "short-")
			after, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, tc.content, string(after))
		})
	}
}

// TestKeys_OfAnotherUserAreRefused checks that even root does not use keys that
// another user owns.
func TestKeys_OfAnotherUserAreRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("requires root, to change the owner of a file: run the tests with sudo")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sessions.db.keys")
	require.NoError(t, writeSecrets(file, site.NewSecrets()))
	_, err := readSecrets(file)
	require.NoError(t, err)
	require.NoError(t, os.Chown(file, 65534, -1))
	out, err := command(t, dir, nil, "-addr", "127.0.0.1:0").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "sessions.db.keys belongs to user 65534, but this program runs as user 0")
	require.NoError(t, os.Chown(file, 0, 65534)) // a group without permissions does not matter
	_, err = readSecrets(file)
	require.NoError(t, err)
}

func TestKeys_FromTheEnvironmentAreNotStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, []string{"ACCESS_SECRET=the access secret of these tests, 1", "REFRESH_SECRET=the refresh secret of these tests, 1"}, "-addr", "127.0.0.1:0")
	require.NotContains(t, s.greeting, "the keys are in")
	require.NoError(t, s.end(syscall.SIGTERM))
	require.NoFileExists(t, filepath.Join(dir, "sessions.db.keys"))
}

// visitor is a well-behaved client: it uses the refresh token that it received last,
// and repeats a request until it gets a response.
type visitor struct {
	client *http.Client
	base   string
	stop   <-chan struct{}
	fault  func(format string, args ...any)

	logins, refreshes, logouts, lost *atomic.Int64
	in, out                          []string // refresh tokens of sessions that must be valid, and that must not
}

var errStopped = errors.New("stopped")

// request repeats a request until it gets a response other than 503. It returns
// errStopped if the visitor is stopped.
func (v *visitor) request(path string, form url.Values) (int, map[string]any, error) {
	for {
		status, response, err := post(v.client, v.base+path, form)
		if err == nil && status != http.StatusServiceUnavailable {
			return status, response, nil
		}
		v.lost.Add(1)
		select {
		case <-v.stop:
			return 0, nil, errStopped
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// run signs in, refreshes and logs out until the visitor is stopped.
func (v *visitor) run(name string) {
	for {
		select {
		case <-v.stop:
			return
		default:
		}
		status, response, err := v.request("/auth/login", login(name))
		if err != nil {
			return
		}
		if status == http.StatusTooManyRequests { // six or more visitors sign in as one user at once
			time.Sleep(time.Second)
			continue
		}
		if status != 200 {
			v.fault("login: %d %v", status, response)
			return
		}
		v.logins.Add(1)
		token := response["refresh_token"].(string)
		for range 1 + rand.N(4) {
			status, response, err := v.request("/auth/refresh", url.Values{"refresh_token": {token}})
			if err != nil { // the response is lost; the old token must still be accepted
				v.in = append(v.in, token)
				return
			}
			if status != 200 {
				v.fault("refresh: %d %v", status, response)
				return
			}
			v.refreshes.Add(1)
			token = response["refresh_token"].(string)
		}
		if rand.N(2) == 0 {
			v.in = append(v.in, token)
			continue
		}
		status, response, err = v.request("/auth/logout", url.Values{"refresh_token": {token}})
		if err != nil {
			return // the session may have ended or not
		}
		if status != 204 {
			v.fault("logout: %d %v", status, response)
			return
		}
		v.logouts.Add(1)
		v.out = append(v.out, token)
	}
}

func TestKilled_KeepsSessionsAndLogouts(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: kills the program twenty times")
	}
	t.Parallel()
	runs := 1
	if os.Getenv("AUTH_LONG") == "1" {
		runs = 10
	}
	for range runs {
		killRepeatedly(t)
	}
}

// killRepeatedly kills and restarts the program 20 times under load. Logins whose
// responses are lost leave sessions behind. With many more kills these would evict
// others, because a user has at most 100 sessions.
func killRepeatedly(t *testing.T) {
	t.Helper()
	const kills, visitors = 20, 12
	dir := t.TempDir()
	s := start(t, dir, nil, "-addr", "127.0.0.1:0")
	addr := strings.TrimPrefix(s.base, "http://")
	stop := make(chan struct{})
	var logins, refreshes, logouts, lost atomic.Int64
	var faults sync.Map
	all := make([]*visitor, visitors)
	var wg sync.WaitGroup
	for i := range all {
		all[i] = &visitor{
			client: newClient(), base: s.base, stop: stop, logins: &logins, refreshes: &refreshes, logouts: &logouts, lost: &lost,
			fault: func(format string, args ...any) { faults.Store(fmt.Sprintf(format, args...), true) },
		}
		wg.Go(func() { all[i].run([]string{"ada", "bob"}[i%2]) })
	}
	for range kills {
		time.Sleep(rand.N(250 * time.Millisecond)) // kill at a random time
		var exit *exec.ExitError
		require.ErrorAs(t, s.end(syscall.SIGKILL), &exit)
		s = start(t, dir, nil, "-addr", addr)
	}
	close(stop)
	wg.Wait()
	faults.Range(func(fault, _ any) bool { t.Error(fault); return true })

	client := newClient()
	in, out := 0, 0
	for _, v := range all {
		for _, token := range v.in {
			status, response, err := post(client, s.base+"/auth/refresh", url.Values{"refresh_token": {token}})
			require.NoError(t, err)
			require.Equal(t, 200, status, "a client was signed out: %v", response)
			in++
		}
		for _, token := range v.out {
			status, response, err := post(client, s.base+"/auth/refresh", url.Values{"refresh_token": {token}})
			require.NoError(t, err)
			require.Equal(t, 401, status, "a client could refresh after its logout: %v", response)
			out++
		}
	}
	require.NoError(t, s.end(syscall.SIGTERM))
	require.NotZero(t, in)
	require.NotZero(t, out)
	t.Logf("%d kills; %d logins, %d refreshes, %d logouts succeeded, %d requests without a response; at the end %d clients signed in, %d signed out",
		kills, logins.Load(), refreshes.Load(), logouts.Load(), lost.Load(), in, out)
}
