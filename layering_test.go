package auth_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/ratchet-go/auth"

// goFiles parses the Go files of a directory of the repository.
func goFiles(t testing.TB, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	files := map[string]*ast.File{}
	for _, path := range paths {
		f, err := parser.ParseFile(sources, path, nil, parser.ParseComments)
		require.NoError(t, err)
		files[filepath.Base(path)] = f
	}
	return files
}

var sources = token.NewFileSet()

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func imports(f *ast.File) []string {
	var list []string
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		list = append(list, path)
	}
	return list
}

// isStd reports whether an import is of the standard library: its first
// element has no dot.
func isStd(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestLayers_ImportOnlyLowerLayers(t *testing.T) {
	t.Parallel()
	for _, layer := range []struct {
		dir     string
		allowed []string
	}{
		{".", []string{module + "/internal/keycheck", module + "/internal/strictjson", module + "/password", "github.com/golang-jwt/jwt/v5"}},
		{"internal/keycheck", nil},
		{"internal/strictjson", nil},
		{"password", []string{"golang.org/x/crypto/argon2", "golang.org/x/crypto/bcrypt"}},
		{"storetest", []string{module}},
		{"authtest", []string{module, module + "/password"}},
		{"oauth", []string{module}},
		{"authclient", nil},
		{"jwks", []string{module, module + "/internal/strictjson"}},
		{"redisstore", []string{module, "github.com/redis/go-redis/v9"}},
		{"pgstore", []string{module, "github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgconn", "github.com/jackc/pgx/v5/pgxpool"}},
		{"sqlitestore", []string{module, "modernc.org/sqlite", "modernc.org/sqlite/lib"}},
		{"internal/testserver", nil},
		{"internal/mutate", nil},
		{"internal/faults", []string{module, module + "/internal/testserver"}},
	} {
		files := goFiles(t, layer.dir)
		require.NotEmpty(t, files, layer.dir)
		for name, f := range files {
			for _, path := range imports(f) {
				switch {
				case isStd(path), isTest(name):
				case path == "github.com/golang-jwt/jwt/v5":
					require.Contains(t, layer.allowed, path, "%s/%s", layer.dir, name)
					require.Equal(t, "keys.go", name, "only one file imports golang-jwt")
				default:
					require.Contains(t, layer.allowed, path, "%s/%s", layer.dir, name)
				}
				if layer.dir == "." && !isTest(name) {
					require.NotContains(t, []string{
						"testing", "unsafe", "log", "expvar", "net/http/httptest", "plugin", "os", "os/exec", "C",
					}, path, name)
					require.False(t, path == "reflect" && name != "config.go", "%s: only the check for nil values uses reflection", name)
				}
			}
		}
	}
}

func TestLayers_OnlyTestsImportTestify(t *testing.T) {
	t.Parallel()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range imports(f) {
			if strings.Contains(i, "stretchr/testify") {
				require.True(t, isTest(path), path)
				require.Equal(t, "github.com/stretchr/testify/require", i, path)
			}
		}
		return nil
	}))
}

// TestLayers_GolangJWTIsNotInTheSurface type-checks the package and examines the
// types of all exported names, methods and fields.
func TestLayers_GolangJWTIsNotInTheSurface(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: type-checks all dependencies")
	}
	t.Parallel()
	var files []*ast.File
	for name, f := range goFiles(t, ".") {
		if !isTest(name) {
			files = append(files, f)
		}
	}
	config := types.Config{Importer: importer.ForCompiler(sources, "source", nil)}
	pkg, err := config.Check(module, sources, files, nil)
	require.NoError(t, err)
	exported := 0
	for _, name := range pkg.Scope().Names() {
		o := pkg.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		exported++
		texts := []string{types.ObjectString(o, nil)}
		if named, ok := o.Type().(*types.Named); ok {
			for i := range named.NumMethods() {
				if m := named.Method(i); m.Exported() {
					texts = append(texts, types.ObjectString(m, nil))
				}
			}
			if s, ok := named.Underlying().(*types.Struct); ok {
				texts = texts[1:]
				for i := range s.NumFields() {
					if f := s.Field(i); f.Exported() {
						texts = append(texts, types.ObjectString(f, nil))
					}
				}
			}
		}
		for _, text := range texts {
			require.NotContains(t, text, "golang-jwt", name)
			require.NotContains(t, text, "x/crypto", name)
		}
	}
	require.Greater(t, exported, 50)
	require.LessOrEqual(t, exported, 105, "the surface stays small")
}

// allowedVars are the package-level variables. Nothing writes to them after
// initialization.
var allowedVars = []string{
	"errTooLarge", "errContentType", "errMethod", "errEndpoint", "errCookieTooLarge", "errTwoSessions", "errIssuedBefore", // errors
	"errNotRunning", "errNotRead", "errStale", "errNoScheme", "errHostCharacter", "errForeign", "errCurrentPassword",
	"ErrNoToken", "ErrInvalidToken", "ErrTokenExpired", "ErrSessionRevoked", "ErrTokenReused", "ErrInvalidCredentials",
	"ErrTooManySessions", "ErrThrottled", "ErrForbidden", "ErrReauthenticate", "ErrInvalidRequest", "ErrCrossOrigin", "ErrUnavailable",
	"ErrUserNotFound", "ErrFactorRequired", "ErrSessionNotFound", "ErrSessionExists", "ErrSpent", "ErrFeedReset", "ErrNotStorable",
	"sessionErrors", "accessErrors", // errors by reason
	"responses", "internalResponse", "reserved", "refusedHeaders", "reasons", // tables
	"strictBase64", // an encoding
	"script",       // a file
}

func TestLayers_NoPackageState(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "password", "storetest", "authtest", "oauth", "authclient"} {
		for name, f := range goFiles(t, dir) {
			if isTest(name) {
				continue
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					require.False(t, d.Recv == nil && d.Name.Name == "init", "%s/%s has an init", dir, name)
				case *ast.GenDecl:
					if d.Tok != token.VAR {
						continue
					}
					for _, spec := range d.Specs {
						for i, ident := range spec.(*ast.ValueSpec).Names {
							if ident.Name == "_" {
								continue
							}
							if dir == "." {
								require.Contains(t, allowedVars, ident.Name, "%s: a package-level variable", name)
							}
							if strings.HasPrefix(strings.ToLower(ident.Name), "err") && len(spec.(*ast.ValueSpec).Values) > i {
								require.IsType(t, &ast.CallExpr{}, spec.(*ast.ValueSpec).Values[i], ident.Name)
							}
						}
					}
				}
			}
			// No code assigns to one or takes its address.
			ast.Inspect(f, func(n ast.Node) bool {
				var targets []ast.Expr
				switch n := n.(type) {
				case *ast.AssignStmt:
					if n.Tok == token.DEFINE {
						return true
					}
					targets = n.Lhs
				case *ast.IncDecStmt:
					targets = []ast.Expr{n.X}
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						targets = []ast.Expr{n.X}
					}
				}
				for _, target := range targets {
					for {
						if index, ok := target.(*ast.IndexExpr); ok {
							target = index.X
						} else if sel, ok := target.(*ast.SelectorExpr); ok {
							target = sel.X
						} else {
							break
						}
					}
					if ident, ok := target.(*ast.Ident); ok && slices.Contains(allowedVars, ident.Name) {
						require.Fail(t, "code writes to a package-level variable", "%s: %s", name, ident.Name)
					}
				}
				return true
			})
		}
	}
}

// Functions that return no error and are called to set up a program panic if
// they are called incorrectly. callOnError aborts a response as handlers do. All
// other code returns errors.
func TestLayers_OnlySetupPanics(t *testing.T) {
	t.Parallel()
	in := map[string]int{}
	for name, f := range goFiles(t, ".") {
		if isTest(name) {
			continue
		}
		for _, d := range f.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(function, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if ident, ok := call.Fun.(*ast.Ident); ok && ident.Name == "panic" {
						in[function.Name.Name]++
					}
				}
				return true
			})
		}
	}
	require.Equal(t, map[string]int{"Role": 2, "Scope": 2, "AMR": 2, "Fresh": 1, "guardEntries": 1, "RequireStream": 1, "checkHandler": 2, "LogEvents": 1, "RedirectToLogin": 1, "callOnError": 2}, in)
}

// usesOf counts, by name, the uses of functions of an imported package in the
// non-test files of package auth.
func usesOf(t testing.TB, pkg string, names ...string) map[string]int {
	uses := map[string]int{}
	for name, f := range goFiles(t, ".") {
		if isTest(name) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg && slices.Contains(names, sel.Sel.Name) {
					uses[sel.Sel.Name]++
				}
			}
			return true
		})
	}
	return uses
}

func TestLayers_TheClockIsAField(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]int{
		"Now": 6, // the default of Config.Now; Fresh, whose claims may come from a test; and the deadlines of hooks
	}, usesOf(t, "time", "Now", "Since", "Until"))
	require.Equal(t, map[string]int{
		"After": 3, "AfterFunc": 4, "NewTimer": 1,
	}, usesOf(t, "time", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"))
	require.Empty(t, usesOf(t, "rand", "Int", "IntN", "Uint64", "Int63", "N"), "random values come from crypto/rand")
	require.Equal(t, map[string]int{"Default": 1}, usesOf(t, "slog", "Default"), "for faults, if Config.OnEvent is nil")
	require.Empty(t, usesOf(t, "slog", "Info", "Error", "Warn", "Debug", "SetDefault"))
	require.Empty(t, usesOf(t, "http", "DefaultClient", "Get", "Post", "DefaultServeMux", "Handle", "HandleFunc"))
	require.Empty(t, usesOf(t, "context", "TODO"))
	goStatements := 0
	for name, f := range goFiles(t, ".") {
		if isTest(name) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				goStatements++
			}
			return true
		})
	}
	require.Equal(t, 4, goStatements, "only Run and calls of hooks start goroutines: Run starts one for OnEvent, and with AnyOf one for each feed; a hook has one, and one for a context that it derives too late")
}

func TestLayers_ThreeDirectRequirements(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	var direct []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") && !strings.Contains(line, "// indirect") {
			direct = append(direct, fields[0])
		}
	}
	require.Equal(t, []string{"github.com/golang-jwt/jwt/v5", "github.com/stretchr/testify", "golang.org/x/crypto"}, direct)
	require.NotContains(t, string(text), "replace")
}
