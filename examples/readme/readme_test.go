package main

import (
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	require.LessOrEqual(t, strings.Count(shown, "\n"), 50)
}

func TestREADME_TranscriptIsWhatHappens(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("AUTH_REQUIRE_SERVICES") == "1" {
				t.Fatalf("%s is missing: apt-get install %s", program, program)
			}
			t.Skipf("%s is missing: apt-get install %s", program, program)
		}
	}
	// The same program on a free port.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	dir := t.TempDir()
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	moved := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(moved, []byte(strings.ReplaceAll(string(source), "127.0.0.1:8090", address)), 0o600))
	here, err := filepath.Abs("main.go")
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{here: moved}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "readme"), ".")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	server := exec.CommandContext(t.Context(), filepath.Join(dir, "readme"))
	server.Env = append(os.Environ(), "AUTH_SECRET="+rand.Text()+rand.Text())
	require.NoError(t, server.Start())
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)

	script := strings.ReplaceAll(fenced(t, "sh")[2], "127.0.0.1:8090", address)
	began := time.Now()
	out, err = exec.CommandContext(t.Context(), "bash", "-c", script).CombinedOutput()
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
}
