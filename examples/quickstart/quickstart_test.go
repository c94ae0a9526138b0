package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/quickstart/site"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := testserver.Self(t, args...)
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
	stderr         bytes.Buffer
	stop           func() error // sends SIGTERM and returns the error of the exit
}

func start(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	s := &server{cmd: command(t, env, args...)}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	s.stop = sync.OnceValue(func() error {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
		defer kill.Stop()
		return s.cmd.Wait()
	})
	t.Cleanup(func() { _ = s.stop() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.greeting += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "rm ") {
			break
		}
	}
	_, s.base, _ = strings.Cut(strings.SplitN(s.greeting, "\n", 2)[0], " on ")
	if s.base == "" {
		require.Fail(t, "the program did not start", "%v: %s", s.stop(), &s.stderr)
	}
	return s
}

var client = &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}

// do sends a request and returns the status and the JSON members of the response.
func do(t *testing.T, method, url, bearer string, form url.Values) (int, map[string]any) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, url, body)
	require.NoError(t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != io.EOF {
		require.NoError(t, err)
	}
	return resp.StatusCode, answer
}

func signIn(t *testing.T, s *server, login string) (access, refresh, sid string) {
	t.Helper()
	status, answer := do(t, "POST", s.base+"/auth/login", "", url.Values{
		"login": {login}, "password": {site.Password}, "delivery": {"body"},
	})
	require.Equal(t, 200, status, "%v", answer)
	return answer["access_token"].(string), answer["refresh_token"].(string), answer["session_id"].(string)
}

// stream opens /api/events. The channel receives its events as "name data", and is
// closed when the stream ends.
func stream(t *testing.T, s *server, bearer string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.base+"/api/events", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	events := make(chan string, 100)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		name := ""
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = v
			} else if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				events <- name + " " + v
			}
		}
	}()
	return events
}

func next(t *testing.T, events <-chan string) (event string, more bool) {
	t.Helper()
	select {
	case event, more = <-events:
		return event, more
	case <-time.After(3 * time.Second):
		require.Fail(t, "no event for 3 seconds")
		return "", false
	}
}

// untilEnd returns the last event of a stream.
func untilEnd(t *testing.T, events <-chan string) (last string) {
	t.Helper()
	for {
		event, more := next(t, events)
		if !more {
			return last
		}
		last = event
	}
}

func TestTranscript_WorksLineByLine(t *testing.T) {
	t.Parallel()
	bash := testserver.Need(t, "bash", "bash")
	testserver.Need(t, "curl", "curl")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	require.Contains(t, s.greeting, "the keys are random")
	_, transcript, found := strings.Cut(s.greeting, "paste this into bash:\n\n")
	require.True(t, found)

	// The output of each line that is not a comment.
	const jwt = `[\w-]+\.[\w-]+\.[\w-]+`
	var want = []string{
		`^\{"access_token":"` + jwt + `","token_type":"Bearer","expires_in":\d+,"refresh_token":"` + jwt + `","refresh_expires_in":\d+,"session_id":"[\w-]+"\}\n$`,
		`^$`, `^$`,
		`"sub":"user-1","username":"ada"\}\n$`,
		`^\{"message":"Only admins see this, ada\."\}\n$`,
		`^\{"access_token":"` + jwt + `",.*"refresh_token":"` + jwt + `"`,
		`^$`, `^$`,
		`^\{"sessions":\[\{"id":"[\w-]+","name":"curl",.*"ip":"127\.0\.0\.1",.*"current":true\}\]\}\n$`,
		`^\{"issuer":"` + s.base + `","token_endpoint":"` + s.base + `/oauth/token",.*"revocation_endpoint":"` + s.base + `/oauth/revoke",.*\}\n$`,
		`^\{"access_token":"` + jwt + `",.*"refresh_token":"` + jwt + `"`,
		`^$`,
		`^\{"error":"insufficient_scope",.*\}\n403\n$`,
		`^204\n$`,
		`^\{"error":"invalid_token",.*"action":"login","reason":"logout"\}\n401\n$`,
		`^\{"error":"invalid_grant",.*"action":"login","reason":"logout"\}\n401\n$`,
		`^$`,
		`^\{"token_type":"Bearer","expires_in":\d+,"refresh_expires_in":\d+,"session_id":"[\w-]+"\}\n$`,
		`"sub":"user-1","username":"ada"\}\n$`,
		`^\{"token_type":"Bearer",`,
		`^204\n$`,
		`^\{"error":"(invalid|missing)_token",.*"action":"login".*\}\n401\n$`,
		`^$`,
	}
	var script strings.Builder
	var lines []string
	for line := range strings.Lines(transcript) {
		script.WriteString(line)
		if !strings.HasPrefix(line, "#") {
			script.WriteString("echo \"@@ $?\"\n")
			lines = append(lines, line)
		}
	}
	cmd := exec.Command(bash, "--norc", "--noprofile")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TMPDIR="+t.TempDir(), "no_proxy=*", "BASH_ENV=")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	outputs := strings.Split(string(out), "@@ 0\n")
	require.Len(t, outputs, len(lines)+1, "a command failed:\n%s", out)
	require.Len(t, lines, len(want))
	for i, line := range lines {
		require.Regexp(t, regexp.MustCompile(want[i]), outputs[i], line)
	}
	require.NoError(t, s.stop())
	require.Contains(t, s.stderr.String(), `msg="auth: login" subject=user-1`)
}

func TestEvents_EndWhenAnotherDeviceEndsTheSession(t *testing.T) {
	t.Parallel()
	s := start(t, nil, "-addr", "127.0.0.1:0")
	first, _, sid := signIn(t, s, "ada@example.com")
	second, _, _ := signIn(t, s, "ADA")
	events := stream(t, s, first)
	event, _ := next(t, events)
	require.Regexp(t, `^tick \{"time":"20`, event)
	event, _ = next(t, events)
	require.Regexp(t, `^tick `, event)

	status, _ := do(t, "DELETE", s.base+"/auth/sessions/"+sid, second, nil)
	require.Equal(t, 204, status)
	require.Equal(t, `end {"reason":"revoked"}`, untilEnd(t, events))
	status, answer := do(t, "GET", s.base+"/api/me", first, nil)
	require.Equal(t, 401, status)
	require.Equal(t, "login", answer["action"])
	status, _ = do(t, "GET", s.base+"/api/me", second, nil)
	require.Equal(t, 200, status)
}

func TestShutdown_EndsStreams(t *testing.T) {
	t.Parallel()
	s := start(t, nil, "-addr", "127.0.0.1:0")
	access, _, _ := signIn(t, s, "bob")
	events := stream(t, s, access)
	next(t, events)
	begin := time.Now()
	require.NoError(t, s.stop(), s.stderr.String())
	require.Less(t, time.Since(begin), 3*time.Second)
	require.Equal(t, `end {"reason":"shutdown"}`, untilEnd(t, events))
}

func TestRestart_WithOtherSecretsOldTokensAreInvalid(t *testing.T) {
	t.Parallel()
	secrets := func(c string) []string {
		return []string{"ACCESS_SECRET=the access secret of these tests, 1" + c, "REFRESH_SECRET=the refresh secret of these tests, 1" + c}
	}
	s := start(t, secrets("a"), "-addr", "127.0.0.1:0")
	require.NotContains(t, s.greeting, "random")
	access, refresh, _ := signIn(t, s, "ada")
	require.NoError(t, s.stop())

	// With the same secrets the token is valid, but its session ended with the
	// process. So what refuses it below is the secret.
	address := strings.TrimPrefix(s.base, "http://") // it is in the issuer
	s = start(t, secrets("a"), "-addr", address)
	status, answer := do(t, "GET", s.base+"/api/me", access, nil)
	require.Equal(t, 401, status)
	require.Equal(t, "refresh", answer["action"])
	require.NoError(t, s.stop())

	s = start(t, secrets("b"), "-addr", address)
	status, answer = do(t, "GET", s.base+"/api/me", access, nil)
	require.Equal(t, 401, status)
	require.Equal(t, "invalid_token", answer["error"])
	require.Equal(t, "login", answer["action"])
	status, answer = do(t, "POST", s.base+"/auth/refresh", "", url.Values{"refresh_token": {refresh}})
	require.Equal(t, 401, status)
	require.Equal(t, "invalid_grant", answer["error"])
	require.Equal(t, "login", answer["action"])
}

func TestConfig_IsRefusedWithEveryMistake(t *testing.T) {
	t.Parallel()
	long := "example-of-a-secret-that-is-long-enough"
	for _, tc := range []struct {
		name      string
		env, args []string
		want      []string
	}{
		{"no refresh secret", []string{"ACCESS_SECRET=" + long}, nil, []string{"REFRESH_SECRET is missing"}},
		{"no access secret", []string{"REFRESH_SECRET=" + long}, nil, []string{"ACCESS_SECRET is missing"}},
		{"both empty", []string{"ACCESS_SECRET=", "REFRESH_SECRET="}, nil, []string{"\nREFRESH_SECRET is missing", "ACCESS_SECRET is missing"}},
		{"short secrets", []string{"ACCESS_SECRET=short-a", "REFRESH_SECRET=short-b"}, nil, []string{"AccessKeys[0]", "RefreshKeys[0]"}},
		{"one secret for both", []string{"ACCESS_SECRET=" + long, "REFRESH_SECRET=" + long}, nil, []string{"have the same secret"}},
		{"lifetimes", nil, []string{"-access-ttl", "5s", "-idle-ttl", "1000h"}, []string{"AccessTTL (5s)", "IdleTTL (1000h0m0s) exceeds"}},
		{"address", nil, []string{"-addr", "127.0.0.1:none"}, []string{"listen"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := command(t, tc.env, append([]string{"-addr", "127.0.0.1:0"}, tc.args...)...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 1, exit.ExitCode())
			for _, want := range tc.want {
				require.Contains(t, string(out), want)
			}
			require.NotContains(t, string(out), "short-")
			require.NotContains(t, string(out), long)
		})
	}
}

func TestFlags_OtherArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"8081"}, {"-addr", "127.0.0.1:0", "-access-ttl=5m", "-", "x"}, {"--", "-addr"}, {""}} {
		out, err := command(t, nil, args...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%q: %s", args, out)
		require.Equal(t, 2, exit.ExitCode(), "%q: %s", args, out)
		require.Contains(t, string(out), "unexpected argument \"")
		require.Contains(t, string(out), "-retry-window") // the usage
	}
}

func TestPage_SaysWhatARestartDoes(t *testing.T) {
	t.Parallel()
	s := start(t, nil, "-addr", "127.0.0.1:0")
	resp, err := client.Get(s.base)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "<title>Ratchet quickstart</title>")
	require.Contains(t, string(body), "you have to sign in again afterwards")
	require.NotContains(t, string(body), "you are still signed in afterwards")
	require.Contains(t, string(body), "retry window (30s)")
	require.Contains(t, string(body), "\nsleep 32\n")
	require.Contains(t, string(body), "<noscript>")
}

func TestPage_RunsOnlyItsOwnFiles(t *testing.T) {
	t.Parallel()
	s := start(t, nil, "-addr", "127.0.0.1:0")
	for path, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		resp, err := client.Get(s.base + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, path)
		require.Contains(t, resp.Header.Get("Content-Type"), kind)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'self'")
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		require.NotEmpty(t, resp.Header.Get("Referrer-Policy"))
		require.NotRegexp(t, `https?://`, strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""), path)
	}
}
