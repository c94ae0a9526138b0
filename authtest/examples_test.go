package authtest_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
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
	"_verifier": testReports,
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
