// This file starts the program for the tests of both contracts.

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

const page = "http://localhost:3000"

func strongSecrets(name string) string {
	return map[string]string{
		"SECRET_KEY":         "q7Zt1W0fYbVnR4xKc9PsLhE2mJ8uDaGg5oTiNvBwXyCz",
		"REFRESH_SECRET_KEY": "H3rUe6MkQp0SxVd8ZjAyFw2TnLbGc5Ii9oEvRhKaYtDm",
	}[name]
}

// program is the running program.
type program struct {
	t        require.TestingT
	greeting string
	url      string // as printed
	clock    *authtest.Clock
	users    *users
}

// output receives what the program prints.
type output chan string

func (o output) Write(p []byte) (int, error) {
	o <- string(p)
	return len(p), nil
}

// start runs the program with the given arguments.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	o, err := parse(append([]string{"-addr", "127.0.0.1:0"}, args...), strongSecrets, io.Discard)
	require.NoError(t, err)
	c := authtest.NewClock(time.Now())
	o.now, o.hasher, o.log = c.Now, &password.Hasher{Memory: 64, Time: 1}, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done, printed := make(chan error, 1), make(output, 1)
	go func() {
		done <- run(ctx, o, printed)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	p := &program{t: t, clock: c, users: o.users}
	select {
	case p.greeting = <-printed:
	case err := <-done:
		require.NoError(t, err)
	}
	_, rest, _ := strings.Cut(p.greeting, "served on ")
	p.url, _, _ = strings.Cut(rest, "\n")
	return p
}

// response is a response with its body and the values of its cookies.
type response struct {
	t       require.TestingT
	status  int
	header  http.Header
	body    string
	cookies map[string]*http.Cookie
}

// do sends a request. headers are pairs of name and value. A body that begins with
// { is JSON, any other is a form.
func (p *program) do(method, path, body string, headers ...string) response {
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
	resp, err := http.DefaultClient.Do(r)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	cookies := map[string]*http.Cookie{}
	for _, c := range resp.Cookies() {
		cookies[c.Name] = c
	}
	return response{p.t, resp.StatusCode, resp.Header, string(read), cookies}
}

// is fails the test if the response differs.
func (a response) is(status int, body string) {
	require.Equal(a.t, status, a.status, a.body)
	require.Equal(a.t, body, strings.TrimSuffix(a.body, "\n"))
}

// field returns a field of a successful response.
func (a response) field(name string) string {
	require.Equal(a.t, http.StatusOK, a.status, a.body)
	var object map[string]any
	require.NoError(a.t, json.Unmarshal([]byte(a.body), &object), a.body)
	text, ok := object[name].(string)
	require.True(a.t, ok, "%s in %s", name, a.body)
	return text
}

// keys returns the names of the fields.
func (a response) keys() []string {
	var object map[string]any
	require.NoError(a.t, json.Unmarshal([]byte(a.body), &object), a.body)
	return keys(object)
}

func keys[V any](m map[string]V) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return names
}

// cookie returns the value of a cookie that the response sets.
func (a response) cookie(name string) string {
	require.NotNil(a.t, a.cookies[name], "cookie %s", name)
	return a.cookies[name].Value
}

func object(pairs ...string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	b, _ := json.Marshal(m)
	return string(b)
}

// claims returns the claims of a token, without verifying it.
func (p *program) claims(token string) map[string]any {
	parts := strings.Split(token, ".")
	require.Len(p.t, parts, 3)
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(p.t, err)
	var m map[string]any
	require.NoError(p.t, json.Unmarshal(b, &m))
	return m
}

// lifetime returns the lifetime of a token in seconds.
func (p *program) lifetime(token string) float64 {
	m := p.claims(token)
	return m["exp"].(float64) - m["iat"].(float64)
}

// loginByCookie signs ada in to the API with cookies.
func (p *program) loginByCookie() response {
	a := p.do("POST", "/api/v1/auth/login", object("login_id", "ada", "password", demoPassword), "Origin", page)
	a.is(200, `{"message":"Login successful"}`)
	return a
}

// loginByBody signs ada in to the API with bodies.
func (p *program) loginByBody() (token, refresh string) {
	a := p.do("POST", "/api/login", object("email", "ada@example.com", "name", "ada", "password", demoPassword))
	return a.field("token"), a.field("refreshToken")
}

func (p *program) refreshByHeader(token string, fields ...string) response {
	return p.do("POST", "/api/v1/auth/refresh", object(fields...), "refresh-token", token)
}

func (p *program) me(access string) response {
	return p.do("GET", "/api/v1/user/me", "", "Cookie", "accessToken="+access)
}

func (p *program) secure(token string) response {
	return p.do("GET", "/api/secure", "", "x-access-token", token)
}

func TestParse_RefusesArgumentsAndMissingSecrets(t *testing.T) {
	t.Parallel()
	_, err := parse([]string{"serve"}, strongSecrets, io.Discard)
	require.EqualError(t, err, `unexpected argument "serve"`)
	for _, missing := range []string{"SECRET_KEY", "REFRESH_SECRET_KEY"} {
		_, err = parse(nil, func(name string) string {
			if name == missing {
				return ""
			}
			return strongSecrets(name)
		}, io.Discard)
		require.ErrorContains(t, err, "must be set")
		require.ErrorContains(t, err, "openssl rand")
	}
}

func TestRun_NamesTheWeakSecret(t *testing.T) {
	t.Parallel()
	refused := func(access, refresh string) string {
		secrets := map[string]string{"SECRET_KEY": access, "REFRESH_SECRET_KEY": refresh}
		o, err := parse([]string{"-addr", "127.0.0.1:0"}, func(name string) string { return secrets[name] }, io.Discard)
		require.NoError(t, err)
		ended, cancel := context.WithCancel(context.Background())
		cancel() // so that run would return at once
		err = run(ended, o, io.Discard)
		require.Error(t, err)
		return err.Error()
	}
	strong := strongSecrets("SECRET_KEY")
	for _, weak := range []string{"secret", strings.Repeat("a", 64), strings.Repeat("changeme", 8)} {
		require.Contains(t, refused(weak, strong), "auth: SECRET_KEY")
		require.Contains(t, refused(strong, weak), "auth: REFRESH_SECRET_KEY")
		require.Contains(t, refused(strong, weak), command)
	}
	require.Contains(t, refused(strong, strong), "same secret")
}

func TestRun_PrintsAURLOfTheSiteOfThePage(t *testing.T) {
	t.Parallel()
	for origin, host := range map[string]string{
		"http://localhost:3000":   "http://localhost:",
		"http://127.0.0.1:3000":   "http://127.0.0.1:",
		"https://app.example.com": "http://127.0.0.1:",
	} {
		p := start(t, "-origin", origin)
		require.Contains(t, p.url, host)
		p.do("GET", "/api/", "").is(200, "Ok")
	}
	require.Contains(t, start(t).url, "http://localhost:", "the default")
}

// TestGreeting_CommandsWork runs the printed commands. If TUTORIAL_TRANSCRIPT is
// set, it names the file for the commands and their outputs.
func TestGreeting_CommandsWork(t *testing.T) {
	t.Parallel()
	bash := testserver.Need(t, "bash", "bash")
	testserver.Need(t, "curl", "curl")
	p := start(t)
	_, commands, _ := strings.Cut(p.greeting, "\n\n")
	var script strings.Builder
	var lines []string
	for line := range strings.Lines(commands) {
		script.WriteString(line)
		if line != "\n" && !strings.HasPrefix(line, "#") {
			script.WriteString("echo \"@@ $?\"\n")
			lines = append(lines, line)
		}
	}
	cmd := exec.Command(bash, "--norc", "--noprofile")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TMPDIR="+t.TempDir(), "no_proxy=*", "BASH_ENV=")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	require.NoError(t, err)
	outputs := strings.Split(strings.ReplaceAll(string(out), "\r", ""), "@@ 0\n")
	require.Len(t, outputs, len(lines)+1, "a command failed:\n%s", out)

	var statuses []string
	var transcript strings.Builder
	for i, line := range lines {
		transcript.WriteString("$ " + line + outputs[i] + "\n\n")
		if rest, ok := strings.CutPrefix(outputs[i], "HTTP/1.1 "); ok {
			statuses = append(statuses, rest[:3])
		}
	}
	if name := os.Getenv("TUTORIAL_TRANSCRIPT"); name != "" {
		require.NoError(t, os.WriteFile(name, []byte(transcript.String()), 0o600))
	}
	require.Equal(t, "200 200 200 200 403 200 204 400 403 401 "+ // cookies
		"200 200 "+ // the same API, with tokens in the body
		"200 200 200 200 200 200 200 403 401 200 404 204 401", strings.Join(statuses, " "), transcript.String())
}

func TestAPIs_RefuseTokensOfEachOther(t *testing.T) {
	t.Parallel()
	p := start(t)
	cookies := p.loginByCookie()
	access, refresh := cookies.cookie("accessToken"), cookies.cookie("refreshToken")
	token, refreshToken := p.loginByBody()

	require.Equal(t, 401, p.me(token).status)
	require.Equal(t, 401, p.secure(access).status)
	require.Equal(t, 403, p.refreshByHeader(refreshToken).status)
	require.Equal(t, 404, p.do("POST", "/api/token", object("refreshToken", refresh)).status)
	// Access and refresh tokens are not interchangeable either.
	require.Equal(t, 401, p.secure(refreshToken).status)
	require.Equal(t, 404, p.do("POST", "/api/token", object("refreshToken", token)).status)
}
