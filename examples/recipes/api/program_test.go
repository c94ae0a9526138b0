package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const secret = "AUTH_SECRET=the secret of these tests, 0123456789"

func TestProgram_KeepsUsersAndSessions(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "api.db")
	post := func(base, path string) int {
		resp, err := http.Post(base+path, "application/json", strings.NewReader(`{"login":"ada","password":"`+pass+`"}`))
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	p := exampletest.Start(t, []string{secret}, "-addr", "127.0.0.1:0", "-db", file)
	require.Equal(t, 200, post(p.URL, "/signup"))
	require.NoError(t, p.Stop())
	require.NoFileExists(t, file+"-wal", "the database was closed")
	for _, name := range []string{file, file + ".sessions"} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	p = exampletest.Start(t, []string{secret}, "-addr", "127.0.0.1:0", "-db", file)
	require.Equal(t, 409, post(p.URL, "/signup"))
	require.Equal(t, 200, post(p.URL, "/auth/login"))
}

func TestProgram_NeedsASecret(t *testing.T) {
	t.Parallel()
	cmd := testserver.Self(t, "-addr", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "api.db"))
	cmd.Env = append(cmd.Env, "AUTH_SECRET=")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "Secrets[0]")
}
