package main

import (
	"encoding/json"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// packages are those that the guides use without an import.
var packages = map[string]string{
	"auth":        "github.com/ratchet-go/auth",
	"authtest":    "github.com/ratchet-go/auth/authtest",
	"authclient":  "github.com/ratchet-go/auth/authclient",
	"oauth":       "github.com/ratchet-go/auth/oauth",
	"context":     "context",
	"ed25519":     "crypto/ed25519",
	"errors":      "errors",
	"fmt":         "fmt",
	"http":        "net/http",
	"httptest":    "net/http/httptest",
	"jwks":        "github.com/ratchet-go/auth/jwks",
	"password":    "github.com/ratchet-go/auth/password",
	"pgstore":     "github.com/ratchet-go/auth/pgstore",
	"pgxpool":     "github.com/jackc/pgx/v5/pgxpool",
	"redis":       "github.com/redis/go-redis/v9",
	"redisstore":  "github.com/ratchet-go/auth/redisstore",
	"slog":        "log/slog",
	"sqlitestore": "github.com/ratchet-go/auth/sqlitestore",
	"storetest":   "github.com/ratchet-go/auth/storetest",
	"strings":     "strings",
	"testing":     "testing",
	"time":        "time",
	"url":         "net/url",
}

// given are the variables that the guides use without declaring them.
const given = `
var (
	a             *auth.Authenticator
	admin, claims        *auth.Claims
	config        auth.Config
	ctx           context.Context
	current, next auth.Key
	me, pay       http.HandlerFunc
	mux           *http.ServeMux
	private       ed25519.PrivateKey
	r             *http.Request
	reports       http.HandlerFunc
	routes        func(*auth.Authenticator) http.Handler
	secret        []byte
	errTaken      error
	factors       auth.SecondFactor
	hasher        *password.Hasher
	insertUser    func(ctx context.Context, login, hash string) (auth.User, error)
	showFactor    func(w http.ResponseWriter, r *http.Request, challenge string, methods []string, wrong bool)
	showLogin     func(w http.ResponseWriter, r *http.Request, status int, text string)
	showSignUp    func(w http.ResponseWriter, r *http.Request, status int, text string)
	store         auth.Store
	start         time.Time
	t             testing.TB
	login, userID, email, pin string
	checkPIN      func(ctx context.Context, userID, pin string) error

	old, newPassword, typed string
	w             http.ResponseWriter
)
`

// TestREADME_GuidesCompile compiles every Go block of the README except the
// program: each in a package of its own, as a file or as the body of a
// function.
func TestREADME_GuidesCompile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)\n```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(blocks), 8)
	dir := t.TempDir()
	replace := map[string]string{}
	build := []string{"build", "-overlay", filepath.Join(dir, "overlay.json")}
	for i, block := range blocks[1:] {
		formatted, err := format.Source([]byte(block[1]))
		require.NoError(t, err, "a Go block of the README cannot be parsed:\n%s", block[1])
		require.Equal(t, string(formatted), block[1], "a Go block of the README is not formatted")
		name := "guide" + strconv.Itoa(i+1)
		file := filepath.Join(dir, name+".go")
		require.NoError(t, os.WriteFile(file, []byte(guide(t, name, block[1])), 0o600))
		here, err := filepath.Abs(filepath.Join(name, name+".go"))
		require.NoError(t, err)
		replace[here] = file
		build = append(build, "./"+name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", build...).CombinedOutput()
	require.NoError(t, err, "a Go block of the README does not compile:\n%s", out)
}

// guide returns a Go file with a block in it.
func guide(t *testing.T, name, block string) string {
	t.Helper()
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+block, 0); err != nil {
		const before, after = "func _() error {\n{\n", "}\nreturn nil\n}\n"
		f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+before+block+after, 0)
		require.NoError(t, err, "a Go block of the README is neither declarations nor statements:\n%s", block)
		outer := f.Decls[0].(*ast.FuncDecl).Body.List[0].(*ast.BlockStmt)
		block = before + block + uses(outer) + after
	}
	var used []string
	all, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+given+block, 0)
	require.NoError(t, err)
	ast.Inspect(all, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && packages[x.Name] != "" {
				used = append(used, strconv.Quote(packages[x.Name]))
			}
		}
		return true
	})
	slices.Sort(used)
	return "package " + name + "\nimport (\n" + strings.Join(slices.Compact(used), "\n") + "\n)\n" + given + block
}

// uses returns statements that use the variables which a block declares.
func uses(block *ast.BlockStmt) string {
	var text strings.Builder
	for _, statement := range block.List {
		if assign, ok := statement.(*ast.AssignStmt); ok && assign.Tok == token.DEFINE {
			for _, left := range assign.Lhs {
				if name := left.(*ast.Ident).Name; name != "_" {
					text.WriteString("_ = " + name + "\n")
				}
			}
		}
	}
	return text.String()
}
