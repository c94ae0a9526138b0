package authtest_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples have no testing.T, so this test runs their tests.
func TestExamples(t *testing.T) {
	t.Parallel()
	for name, f := range examples {
		t.Run(name, f)
	}
}

var examples = map[string]func(*testing.T){
	"": testAdmin, "As_ownClaims": testTenant, "Expired": testPageAfterAPause, "Clock_Advance": testBrowser, "New_synctest": testStreamEnds,
	"_verifier": testReports, "Session_acting": testActing, "Session_lifetimes": testBankSession, "Factors": testSecondStep,
	"ThrottleLogin": testTooManyAttempts,
}

// Each example is a whole file, which pkg.go.dev shows with its imports.
func TestExamples_AreWholeFiles(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	found := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		require.NoError(t, err)
		for _, e := range doc.Examples(f) {
			found++
			require.Contains(t, examples, e.Name, "TestExamples runs it")
			require.IsType(t, (*ast.File)(nil), e.Code, "%s is not a whole file", path)
		}
	}
	require.Len(t, examples, found)
}

// The most common test, of a protected handler, is short. The package comment shows it.
func TestDoc_CommonCaseIsTenLines(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "authtest.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	lines := 0
	for _, line := range strings.Split(f.Doc.Text(), "\n") {
		if strings.HasPrefix(line, "\t") {
			lines++
		}
	}
	require.Positive(t, lines)
	require.LessOrEqual(t, lines, 10)
}
