package openapi

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

const generator = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"

// TestGeneratedClient generates a client from the document with oapi-codegen, compiles
// it, and uses it with a real server. It downloads the generator, so it runs only with
// AUTH_OPENAPI=1.
func TestGeneratedClient(t *testing.T) {
	if os.Getenv("AUTH_OPENAPI") != "1" {
		t.Skip("set AUTH_OPENAPI=1 to run this test: it downloads a code generator")
	}
	t.Parallel()
	document, err := filepath.Abs(path)
	require.NoError(t, err)
	program, err := os.ReadFile("testdata/main.go.txt")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "client"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), program, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module generated\n\ngo 1.26.0\n"), 0o600))
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %v: %s", args, out)
		return string(out)
	}
	run("run", generator, "-generate", "types,client", "-package", "client", "-o", "client/client.go", document)
	run("get", "github.com/oapi-codegen/runtime@v1.9.0")
	run("build", "-o", "generated", ".")

	s := newSite(t, load(t), func(*auth.Config) {})
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "generated"), s.url+"/auth")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log("\n" + string(out))
	require.Equal(t, `login: 401 invalid_credentials login
login: 200 Bearer 900
sessions: 200 1 true
refresh: 200 true true
logout: 204
sessions: 401 invalid_token login logout
`, string(out))
}
