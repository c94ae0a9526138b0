package main

import (
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// fenced returns the blocks of a language in the README.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

func TestREADME_ShowsThisProgram(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	shown := fenced(t, "go")[0]
	require.Equal(t, strings.TrimPrefix(string(source), "// Command readme is the program of the README.\n"), shown)
	require.LessOrEqual(t, strings.Count(shown, "\n"), 64)
}

func TestREADME_TranscriptIsWhatHappens(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "bash", "bash")
	testserver.Need(t, "curl", "curl")
	address := "127.0.0.1:" + testserver.FreePort(t)
	output, _ := start(t, build(t, address), "AUTH_SECRET="+rand.Text()+rand.Text())
	require.Eventually(t, func() bool {
		return strings.HasPrefix(output.String(), "listening on http://"+address+"\n")
	}, 10*time.Second, 20*time.Millisecond, "the address must be the first line")

	blocks := fenced(t, "sh")
	session := slices.IndexFunc(blocks, func(block string) bool { return strings.HasPrefix(block, "curl ") }) // the others run tests and change modules
	require.NotEqual(t, -1, session)
	script := strings.ReplaceAll(blocks[session], "127.0.0.1:8090", address)
	began := time.Now()
	out, err := exec.CommandContext(t.Context(), "bash", "-c", script).CombinedOutput()
	require.NoError(t, err, string(out))
	took := int(time.Since(began)/time.Second) + 1 // a second may have begun since
	got := regexp.MustCompile(`eyJ[\w.-]+`).ReplaceAllString(string(out), "eyJ…")
	// On a busy machine a second or two pass while the password is checked.
	got = regexp.MustCompile(`"expires_in":89\d`).ReplaceAllString(got, `"expires_in":900`)
	got = regexp.MustCompile(`"refresh_expires_in":60479\d`).ReplaceAllString(got, `"refresh_expires_in":604800`)
	got = regexp.MustCompile(`"session_id":"[\w-]{22}"`).ReplaceAllString(got, `"session_id":"…"`)
	want := fenced(t, "text")[0]
	lifetime := regexp.MustCompile(`"(?:refresh_)?expires_in":(\d+)`)
	full := lifetime.FindAllStringSubmatch(want, -1)
	got = lifetime.ReplaceAllStringFunc(got, func(member string) string {
		require.NotEmpty(t, full)
		said, err := strconv.Atoi(lifetime.FindStringSubmatch(member)[1])
		require.NoError(t, err)
		most, err := strconv.Atoi(full[0][1])
		require.NoError(t, err)
		require.LessOrEqual(t, said, most)
		require.GreaterOrEqual(t, said, most-took)
		member, full = strings.Replace(member, strconv.Itoa(said), full[0][1], 1), full[1:]
		return member
	})
	require.Equal(t, want, got)
	for _, event := range []auth.EventType{auth.EventLogin, auth.EventLogout} {
		require.Contains(t, output.String(), "auth: "+string(event), "the program must log its events")
	}
	require.NotContains(t, output.String(), "eyJ")
}

func TestREADME_ProgramSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	program := build(t, taken.Addr().String())
	secret := "AUTH_SECRET=" + rand.Text() + rand.Text()
	for _, test := range []struct {
		env  string
		args []string
		want string
	}{
		{env: "AUTH_SECRET=", want: "AUTH_SECRET=$(openssl rand -base64 48)"},
		{env: secret, args: []string{"-addr", ":1"}, want: "give no arguments"},
		{env: "AUTH_SECRET=too-short", want: "Config.Secrets[0]: the secret is 9 bytes; it must be at least 32"},
		{env: secret, want: taken.Addr().String() + ": bind: address already in use"},
	} {
		output, exited := start(t, program, test.env, test.args...)
		require.Error(t, <-exited)
		require.Contains(t, output.String(), test.want)
		require.NotContains(t, output.String(), "listening")
	}
}

// build builds the program with another address, and returns its path.
func build(t *testing.T, address string) string {
	t.Helper()
	dir := t.TempDir()
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	changed := strings.ReplaceAll(string(source), "127.0.0.1:8090", address)
	require.NotEqual(t, string(source), changed)
	moved := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(moved, []byte(changed), 0o600))
	here, err := filepath.Abs("main.go")
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{here: moved}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	program := filepath.Join(dir, "readme")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

// start starts the program with one more environment variable, and kills it
// when the test ends. exited receives the result of the program.
func start(t *testing.T, program, env string, args ...string) (output *testserver.Output, exited <-chan error) {
	t.Helper()
	output = &testserver.Output{}
	server := exec.CommandContext(t.Context(), program, args...)
	server.Env = append(os.Environ(), env)
	server.Stdout, server.Stderr = output, output
	require.NoError(t, server.Start())
	ended, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- server.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})
	return output, result
}
