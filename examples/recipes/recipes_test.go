package recipes_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// program is a link to a program of this module.
var program = regexp.MustCompile(`\]\(\.\./(examples/[^)#]+)\)`)

// page returns docs/recipes.md: the rows of its table, and its other sections.
func page(t *testing.T) (rows, sections []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/recipes.md")
	require.NoError(t, err)
	sections = strings.Split(string(text), "\n## ")
	for line := range strings.Lines(sections[0]) {
		if strings.HasPrefix(line, "| ") {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	return rows[2:], sections[1:] // without the header
}

// files returns the files below dir.
func files(t *testing.T, dir string) (paths []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

func TestRecipes_AreTestedPrograms(t *testing.T) {
	t.Parallel()
	rows, _ := page(t)
	listed := map[string]bool{}
	for _, row := range rows {
		cells := strings.Split(row, " | ")
		require.Len(t, cells, 3, row)
		links := program.FindAllStringSubmatch(cells[2], -1)
		require.NotEmpty(t, links, "a recipe without a program: %s", row)
		for _, link := range links {
			dir := filepath.Join("../..", link[1])
			require.FileExists(t, filepath.Join(dir, "main.go"), row)
			tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
			require.NoError(t, err)
			require.NotEmpty(t, tests, "%s has no test", link[1])
			listed[link[1]] = true
		}
	}
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() && e.Name() != "internal" {
			require.True(t, listed["examples/recipes/"+e.Name()], "docs/recipes.md has no row for %s", e.Name())
		}
	}
}

// TestRecipes_CompileInACopy fails if a file that users copy, which is any except
// program_test.go and browser_test.go, imports a package that only this repository can
// import.
func TestRecipes_CompileInACopy(t *testing.T) {
	t.Parallel()
	copied := append(files(t, "."), files(t, "../app")...)
	for _, path := range copied {
		dir, name := filepath.Split(path)
		if filepath.Ext(name) != ".go" || name == "program_test.go" || name == "browser_test.go" || dir == "" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range file.Imports {
			require.NotContains(t, spec.Path.Value, "/internal/", path)
		}
	}
}

// TestRecipes_ShowTheProgram fails for a block of Go, JavaScript or shell that is
// not part of the program to which its section links, up to indentation.
func TestRecipes_ShowTheProgram(t *testing.T) {
	t.Parallel()
	block := regexp.MustCompile("(?s)\n```(go|js|sh)\n(.*?)\n```\n")
	_, sections := page(t)
	for _, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		var sources strings.Builder
		links := program.FindAllStringSubmatch(section, -1)
		require.NotEmpty(t, links, "%s: no link to a program", title)
		for _, link := range links {
			for _, path := range files(t, filepath.Join("../..", link[1])) {
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				sources.WriteString("\n" + unindent(string(text)) + "\n")
			}
		}
		for _, b := range block.FindAllStringSubmatch(section, -1) {
			shown := strings.Contains(sources.String(), "\n"+unindent(b[2])+"\n")
			require.True(t, shown, "%s: this block is not in the program:\n%s", title, b[2])
		}
	}
}

// unindent returns the text without the spaces around its lines. In Go comments,
// it also removes the slashes, so that a command can be shown.
func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		lines[i] = strings.TrimSpace(strings.TrimPrefix(line, "//"))
	}
	return strings.Join(lines, "\n")
}
