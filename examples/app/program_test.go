package main

import (
	"cmp"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

func TestApp_HasAtMost650LinesOfGo(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(os.DirFS("."), "*.go")
	require.NoError(t, err)
	lines := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		if !strings.HasSuffix(file, "_test.go") {
			lines += strings.Count(string(text), "\n")
			require.Regexp(t, `^// (This file|Command app) `, string(text), "%s: the first sentence explains the file", file)
		}
	}
	require.Greater(t, lines, 500)
	require.LessOrEqual(t, lines, 650)
}

const secret = "AUTH_SECRET=the secret of the nodes of these tests, 1"

func command(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := testserver.Self(t, args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "AUTH_SECRET=") })
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func start(t *testing.T, dir string, env []string, args ...string) *exampletest.Program {
	t.Helper()
	return exampletest.Run(t, command(t, dir, env, append([]string{"-addr", "127.0.0.1:0"}, args...)...))
}

// client is a browser that follows redirects.
type client struct {
	t *testing.T
	http.Client
}

func newClient(t *testing.T) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &client{t, http.Client{Jar: jar, Transport: &http.Transport{Proxy: nil}, Timeout: 10 * time.Second}}
}

func (c *client) send(req *http.Request) (path, body string) {
	c.t.Helper()
	req.Header.Set("Accept", "text/html")
	resp, err := c.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp.Request.URL.Path, string(text)
}

func (c *client) get(target string) (path, body string) {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodGet, target, nil)
	require.NoError(c.t, err)
	return c.send(req)
}

func (c *client) post(target string, fields url.Values) (path, body string) {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodPost, target, strings.NewReader(fields.Encode()))
	require.NoError(c.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.send(req)
}

var ada = url.Values{"login": {"ada"}, "address": {"ada@example.com"}, "password": {pass}}

func TestProgram_RestartSignsNobodyOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir, nil)
	c := newClient(t)
	path, body := c.post(p.URL+"/signup?next=%2Fprofile", ada)
	require.Equal(t, "/profile", path, body)
	require.NoError(t, p.Stop())
	require.NoFileExists(t, filepath.Join(dir, "app.db-wal"), "the database was closed")
	for _, file := range []string{"app.db", "app.db.sessions", "app.db.secret"} {
		info, err := os.Stat(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), file)
	}
	p = start(t, dir, nil) // on another port of the host, for which the cookies are too
	path, _ = c.get(p.URL + "/profile")
	require.Equal(t, "/profile", path)
	path, _ = newClient(t).post(p.URL+"/login?next=%2Fprofile", ada)
	require.Equal(t, "/profile", path)
}

func TestProgram_MailsHaveTheConfiguredURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		url  string
		mail int // status of the page with the mails
	}{
		{[]string{"-url", "https://app.example.com", "-mail", "outbox"}, "https://app.example.com", http.StatusNotFound},
		{[]string{"-mail", "outbox"}, "", http.StatusOK},
	} {
		dir := t.TempDir()
		p := start(t, dir, nil, tt.args...)
		req, err := http.NewRequest(http.MethodPost, p.URL+"/signup", strings.NewReader(ada.Encode()))
		require.NoError(t, err)
		req.Host = "evil.localhost"
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		newClient(t).send(req)
		files, err := os.ReadDir(filepath.Join(dir, "outbox"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		text, err := os.ReadFile(filepath.Join(dir, "outbox", files[0].Name()))
		require.NoError(t, err)
		require.Contains(t, string(text), "\n"+cmp.Or(tt.url, p.URL)+"/verify?token=")
		resp, err := newClient(t).Get(p.URL + "/mail/")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, tt.mail, resp.StatusCode)
		info, err := os.Stat(filepath.Join(dir, "outbox"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	}
}

// TestProgram_SecretIsNotCommitted checks that git ignores the files of the program, in
// a copy of the application too.
func TestProgram_SecretIsNotCommitted(t *testing.T) {
	t.Parallel()
	git := testserver.Need(t, "git", "git")
	dir := t.TempDir()
	rules, err := os.ReadFile(".gitignore")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".gitignore"), rules, 0o600))
	out, err := exec.Command(git, "init", "-q", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{"app.db", "app.db-wal", "app.db.secret", "app.db.sessions", "app.db.sessions-wal", "mail/20261128-120000.000-ABCD.txt"} {
		cmd := exec.Command(git, "check-ignore", "-q", name)
		cmd.Dir = dir
		require.NoError(t, cmd.Run(), name)
	}
}

func TestProgram_SecretFromTheEnvironmentIsNotStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir, []string{secret})
	require.NoFileExists(t, filepath.Join(dir, "app.db.secret"))
}

func TestProgram_RefusesWhatIsUnsafe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		env  []string
		text string
		code int
	}{
		{[]string{"other.db"}, nil, `unexpected argument "other.db"`, 2},
		{[]string{"-addr", "0.0.0.0:0"}, nil, "-url is required", 1},
		{[]string{"-url", "https://app.example.com/"}, nil, "TrustedOrigins", 1},
		{[]string{"-url", "http://app.example.com"}, nil, "TrustedOrigins", 1},
		{[]string{"-db", "postgres://127.0.0.1:1/db"}, nil, "set AUTH_SECRET", 1},
		{nil, []string{"AUTH_SECRET=short"}, "Secrets[0]", 1},
	} {
		cmd := command(t, t.TempDir(), tt.env, append([]string{"-addr", "127.0.0.1:0"}, tt.args...)...)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() }) // if it starts to serve
		out, err := cmd.CombinedOutput()
		kill.Stop()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, tt.code, exit.ExitCode(), "%s", out)
		require.Contains(t, string(out), tt.text)
	}
}

func postgres(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped by -short: starts PostgreSQL")
	}
	return "postgres://postgres@" + testserver.Postgres(t).Addr + "/postgres?sslmode=disable"
}

// TestApp_UsersInPostgreSQL runs sign-ups at two nodes with one database.
func TestApp_UsersInPostgreSQL(t *testing.T) {
	database := postgres(t)
	t.Setenv("AUTH_SECRET", strings.TrimPrefix(secret, "AUTH_SECRET="))
	var nodes []*app
	for range 2 {
		db, err := open(t.Context(), database)
		require.NoError(t, err)
		nodes = append(nodes, appOn(t, db))
	}
	concurrentSignUps(t, nodes...)
	first, other := nodes[0].signIn(t, "ada"), nodes[0].signIn(t, "ada")
	require.Equal(t, "/devices?done", first.post("/profile", "current", pass, "password", "a new password of ada").location)
	require.Equal(t, "/login?next=%2Fprofile", other.get("/profile").location)
	_, err := nodes[1].users.FindByID(t.Context(), "nobody")
	require.ErrorIs(t, err, auth.ErrUserNotFound)
}

// TestProgram_TwoNodesOnPostgreSQL starts the program twice: both accept a
// login, and a logout at one is refused at the other.
func TestProgram_TwoNodesOnPostgreSQL(t *testing.T) {
	t.Parallel()
	database := postgres(t)
	nodes := make([]string, 2)
	var wg sync.WaitGroup
	for i := range nodes { // at the same time, so both create the tables
		wg.Go(func() { nodes[i] = start(t, t.TempDir(), []string{secret}, "-db", database).URL })
	}
	wg.Wait()
	first, second := newClient(t), newClient(t)
	_, body := first.post(nodes[0]+"/signup", ada)
	require.Contains(t, body, "Hello, ada")
	path, _ := second.post(nodes[1]+"/login?next=%2Fprofile", ada)
	require.Equal(t, "/profile", path)
	for _, node := range nodes {
		path, _ = first.get(node + "/profile")
		require.Equal(t, "/profile", path, "both nodes accept the tokens")
	}

	// A copy of the cookies of the first browser shows what the other node accepts.
	copied := newClient(t)
	u, err := url.Parse(nodes[0])
	require.NoError(t, err)
	copied.Jar.SetCookies(u, first.Jar.Cookies(u))
	path, _ = copied.get(nodes[1] + "/profile")
	require.Equal(t, "/profile", path)
	first.post(nodes[0]+"/logout", nil)
	require.Eventually(t, func() bool {
		path, _ := copied.get(nodes[1] + "/profile")
		return path == "/login"
	}, 10*time.Second, 10*time.Millisecond, "the logout reaches the other node")
	path, _ = second.get(nodes[0] + "/profile")
	require.Equal(t, "/profile", path, "the other session goes on")
}
