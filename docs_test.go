package auth_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// docPages returns the text of README.md, of CONTRIBUTING.md and of every page in
// docs, by path.
func docPages(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	pages := map[string]string{}
	for _, path := range append(paths, "README.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		pages[path] = string(text)
	}
	return pages
}

var (
	caseName   = regexp.MustCompile("`([A-Z][a-z]+_[A-Z]\\w*)`")
	testName   = regexp.MustCompile(`\bTest[A-Z]\w*`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	address    = regexp.MustCompile(`https?://[^\s)>]+`)
	dottedName = regexp.MustCompile(`[\w./-]*\w\.\w+`)
	exampleDir = regexp.MustCompile(`\bexamples/\w+`)
	linkTarget = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// walkFiles calls f for every file of the repository.
func walkFiles(t testing.TB, f func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !d.IsDir():
			f(path)
		}
		return nil
	}))
}

func TestDocs_NamedTestsExist(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	var cases strings.Builder // the files of storetest, which name its cases
	walkFiles(t, func(path string) {
		inStoretest := filepath.Dir(path) == "storetest" && filepath.Ext(path) == ".go"
		if !isTest(path) && !inStoretest {
			return
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if inStoretest {
			cases.Write(text)
		}
		for _, match := range testFunc.FindAllSubmatch(text, -1) {
			tests[string(match[1])] = true
		}
	})
	for page, text := range docPages(t) {
		for _, name := range testName.FindAllString(text, -1) {
			require.True(t, tests[name], "%s names %s, which does not exist", page, name)
		}
		for _, match := range caseName.FindAllStringSubmatch(text, -1) {
			if name := match[1]; !strings.HasPrefix(name, "Test") {
				require.True(t, strings.Contains(cases.String(), `name: "`+name+`"`), "%s names the case %s of storetest, which does not exist", page, name)
			}
		}
	}
}

func TestDocs_NamedFilesExist(t *testing.T) {
	t.Parallel()
	pages := docPages(t)
	bases := map[string]bool{}
	walkFiles(t, func(path string) { bases[filepath.Base(path)] = true })
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	for page, text := range pages {
		for _, match := range linkTarget.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			require.True(t, exists(path), "%s links to %s, which does not exist", page, target)
			if anchor != "" {
				require.Contains(t, anchors(pages[path]), anchor, "%s links to a heading of %s that does not exist", page, path)
			}
		}
		text = address.ReplaceAllString(text, "")
		for _, dir := range exampleDir.FindAllString(text, -1) {
			require.True(t, exists(dir), "%s names %s, which does not exist", page, dir)
		}
		for _, name := range dottedName.FindAllString(text, -1) {
			if slices.Contains([]string{".go", ".md", ".svg", ".yml"}, filepath.Ext(name)) {
				require.True(t, bases[name] || exists(name) || exists(filepath.Join(filepath.Dir(page), name)), "%s names %s, which does not exist", page, name)
			}
		}
	}
}

// anchors returns the names under which the headings of a page can be linked to.
func anchors(text string) (names []string) {
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1]))
	}
	return names
}

func TestDocs_DesignListsEveryFile(t *testing.T) {
	t.Parallel()
	_, section, ok := strings.Cut(docPages(t)["docs/design.md"], "\n## Files\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	var listed, want []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`/]+\\.go)` \\|").FindAllStringSubmatch(section, -1) {
		listed = append(listed, match[1])
	}
	for name := range goFiles(t, ".") {
		if !isTest(name) {
			want = append(want, name)
		}
	}
	require.ElementsMatch(t, want, listed, "docs/design.md must list each file of the package once")
}

// TestDocs_TablesRender fails for a row that Markdown shows as text: one that
// has no header above it, or has another number of cells than its header.
func TestDocs_TablesRender(t *testing.T) {
	t.Parallel()
	rule := regexp.MustCompile(`^\|( :?-+:? \|)+$`)
	for page, text := range docPages(t) {
		lines := append(strings.Split(text, "\n"), "")
		cells := 0 // number of cells in the header of the current table, or 0
		for i, line := range lines {
			line = strings.TrimLeft(line, " ") // a table may be part of a list
			if !strings.HasPrefix(line, "|") {
				cells = 0
				continue
			}
			count := strings.Count(line, "|") - strings.Count(line, `\|`) - 1
			if cells == 0 {
				cells = count
				require.Regexp(t, rule, strings.TrimLeft(lines[i+1], " "), "%s:%d: a table without a header", page, i+1)
			}
			require.Equal(t, cells, count, "%s:%d: the row has another number of cells than the header", page, i+1)
		}
	}
}

// TestDocs_EveryThreatHasATest fails for a row of the threat model that names no
// test. TestDocs_NamedTestsExist looks for the tests in all modules.
func TestDocs_EveryThreatHasATest(t *testing.T) {
	t.Parallel()
	test, rows := regexp.MustCompile("`Test[A-Z]\\w*`|`storetest`"), 0
	const header = "| threat | defense | test |"
	for _, table := range strings.Split(docPages(t)["docs/security.md"], header)[1:] {
		for _, row := range strings.Split(table, "\n")[2:] { // the rest of the header, and the rule
			if !strings.HasPrefix(row, "| ") {
				break
			}
			cells := strings.Split(row, " | ")
			require.Len(t, cells, 3, "%s", row)
			require.NotEmpty(t, cells[1], "%s has no defense", cells[0])
			require.Regexp(t, test, cells[2], "%s has no test", cells[0])
			rows++
		}
	}
	require.Greater(t, rows, 100)
}

// TestDocs_ASVSSaysWhy fails for a requirement that is met without a test, or has
// another status without a reason.
func TestDocs_ASVSSaysWhy(t *testing.T) {
	t.Parallel()
	text := docPages(t)["docs/asvs.md"]
	row := regexp.MustCompile(`(?m)^\| (\d+\.\d+\.\d+) \| [123] \| [^|]+ \| ([a-z ]+) \| ([^|]*?) ?\|$`)
	seen := map[string]int{}
	for _, match := range row.FindAllStringSubmatch(text, -1) {
		number, status, how := match[1], match[2], match[3]
		chapter, _, _ := strings.Cut(number, ".")
		seen[chapter]++
		switch status {
		case "met":
			require.Regexp(t, testName.String()+`|\]\(`, how, "%s is met, and names neither a test nor a page", number)
		case "not applicable":
			require.NotEmpty(t, how, "%s has no reason", number)
		default:
			require.Equal(t, "application", status, number)
		}
	}
	// The requirements of each chapter in ASVS 5.0.
	require.Equal(t, map[string]int{"3": 31, "6": 47, "7": 19, "9": 7, "10": 36}, seen)
}
