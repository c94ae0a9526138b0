package auth_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write llms.txt")

// TestLLMs_IsCurrent compares llms.txt (see llmstxt.org) with the documents and
// comments that it is generated from. With -update it writes the file.
func TestLLMs_IsCurrent(t *testing.T) {
	t.Parallel()
	want := llms(t)
	require.LessOrEqual(t, strings.Count(want, "\n"), 150, "llms.txt must have at most 150 lines")
	if *update {
		require.NoError(t, os.WriteFile("llms.txt", []byte(want), 0o600))
	}
	got, err := os.ReadFile("llms.txt")
	require.NoError(t, err)
	require.Equal(t, want, string(got), "llms.txt is out of date; run go test -run TestLLMs_IsCurrent . -update")
}

func TestLLMs_LinksExist(t *testing.T) {
	t.Parallel()
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(llms(t), -1) {
		if !strings.HasPrefix(link[1], "https://") {
			_, err := os.Stat(link[1])
			require.NoError(t, err)
		}
	}
}

func TestLLMs_HasTenRules(t *testing.T) {
	t.Parallel()
	require.Len(t, rules(t), 11)
}

// llms returns the text of llms.txt: a summary, the rules of docs/rules.md, the
// pages with their sections, the programs, and the exported names.
func llms(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	summary := strings.SplitN(readme(t), "\n\n", 3)
	fmt.Fprintf(&b, "%s\n\n> %s\n\n", summary[0], summary[1])
	fmt.Fprintf(&b, "`go get %s` adds package `auth`. `go doc %s.Config` prints the comment of a name. Eleven rules that are often broken:\n\n", module, module)
	for _, rule := range rules(t) {
		fmt.Fprintln(&b, rule)
	}
	b.WriteString("\n## Documents\n\n")
	pages := docPages(t)
	for _, page := range slices.Sorted(maps.Keys(pages)) {
		fmt.Fprintf(&b, "- [%s](%s): %s\n", page, page, contents(pages[page]))
	}
	b.WriteString("\n## Programs\n\n")
	for _, dir := range packageDirs(t, "examples") {
		if p := documentation(t, dir); p.Name == "main" {
			fmt.Fprintf(&b, "- [%s](%s): %s\n", dir, dir, p.Synopsis(p.Doc))
		}
	}
	b.WriteString("\n## Package auth\n\n")
	writeNames(&b, documentation(t, "."))
	b.WriteString("\n## Other packages\n\n")
	for _, dir := range packageDirs(t, ".") {
		p := documentation(t, dir)
		fmt.Fprintf(&b, "- [%s](https://pkg.go.dev/%s/%s): %s %s\n", p.Name, module, dir, p.Synopsis(p.Doc), strings.Join(headings(p), "; "))
	}
	return b.String()
}

// rules returns the items of docs/rules.md, with links from the root.
func rules(t *testing.T) []string {
	t.Helper()
	text := strings.ReplaceAll(docPages(t)["docs/rules.md"], "](../", "](")
	return regexp.MustCompile(`(?m)^\d+\. .*$`).FindAllString(text, -1)
}

// contents returns the title of a page and its sections.
func contents(text string) string {
	text = regexp.MustCompile("(?s)\n```.*?\n```").ReplaceAllString(text, "") // comments in it look like headings
	title, rest, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
	var sections []string
	for _, m := range heading.FindAllStringSubmatch(rest, -1) {
		sections = append(sections, m[1])
	}
	if len(sections) == 0 {
		return title
	}
	return title + ": " + strings.Join(sections, "; ")
}

// packageDirs returns those directories in a directory that have a package which
// others run or import, in every module except bench.
func packageDirs(t *testing.T, in string) []string {
	t.Helper()
	entries, err := os.ReadDir(in)
	require.NoError(t, err)
	var dirs []string
	for _, e := range entries {
		files, err := filepath.Glob(filepath.Join(in, e.Name(), "*.go"))
		require.NoError(t, err)
		if e.Name() != "bench" && slices.ContainsFunc(files, func(name string) bool { return !isTest(name) }) {
			dirs = append(dirs, path.Join(in, e.Name()))
		}
	}
	return dirs
}

// documentation returns the documentation of the package in a directory.
func documentation(t *testing.T, dir string) *doc.Package {
	t.Helper()
	var files []*ast.File
	parsed := goFiles(t, dir)
	for _, name := range slices.Sorted(maps.Keys(parsed)) {
		if !isTest(name) {
			files = append(files, parsed[name])
		}
	}
	p, err := doc.NewFromFiles(sources, files, path.Join(module, filepath.ToSlash(dir)))
	require.NoError(t, err)
	return p
}

// signature returns a declaration of a function or method without its body.
func signature(f *doc.Func) string {
	var b strings.Builder
	_ = format.Node(&b, token.NewFileSet(), &ast.FuncDecl{Recv: f.Decl.Recv, Name: f.Decl.Name, Type: f.Decl.Type})
	return strings.Join(strings.Fields(b.String()), " ")
}

// headings returns the exported names of a package.
func headings(p *doc.Package) []string {
	var list []string
	for _, v := range slices.Concat(p.Vars, p.Consts) {
		list = append(list, "`"+strings.Join(v.Names, "`, `")+"`")
	}
	for _, f := range p.Funcs {
		list = append(list, "`"+signature(f)+"`")
	}
	for _, typ := range p.Types {
		for _, f := range typ.Funcs {
			list = append(list, "`"+signature(f)+"`")
		}
		text := "`" + typeHeading(typ) + "`"
		var methods []string
		for _, m := range typ.Methods {
			if isListed(m) {
				methods = append(methods, "`"+m.Name+"`")
			}
		}
		if len(methods) > 0 {
			text += " with " + strings.Join(methods, ", ")
		}
		list = append(list, text)
	}
	return list
}

// isListed reports whether a method is worth a mention. Those that only keep
// secrets out of logs and encodings are not, nor those of a known interface.
func isListed(m *doc.Func) bool {
	return !slices.Contains([]string{"Format", "GobEncode", "LogValue", "MarshalText"}, m.Name) &&
		!strings.HasPrefix(m.Doc, m.Name+" implements ")
}

// typeHeading returns the name of a type with its exported fields or methods.
func typeHeading(typ *doc.Type) string {
	var members []string
	kind := ""
	ast.Inspect(typ.Decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StructType:
			kind = " struct"
			members = append(members, fieldNames(n.Fields)...)
			return false
		case *ast.InterfaceType:
			kind = " interface"
			members = append(members, fieldNames(n.Methods)...)
			return false
		}
		return true
	})
	heading := "type " + typ.Name + kind
	if len(members) > 0 {
		heading += "{ " + strings.Join(members, ", ") + " }"
	}
	return heading
}

// fieldNames returns the exported names of fields or methods, and the types that
// are embedded.
func fieldNames(fields *ast.FieldList) []string {
	var list []string
	for _, field := range fields.List {
		for _, name := range field.Names {
			if name.IsExported() {
				list = append(list, name.Name)
			}
		}
		if embedded := types.ExprString(field.Type); len(field.Names) == 0 && embedded[strings.LastIndexAny(embedded, "*.")+1] <= 'Z' {
			list = append(list, embedded)
		}
	}
	return list
}

// writeNames writes the exported names of a package, each with the first
// sentence of its comment. Values that are declared together share a line. So does
// a type with the functions that create it and with its methods, except that the
// methods of the two main types have lines of their own, where methods with the
// same parameters and results share one.
func writeNames(b *strings.Builder, p *doc.Package) {
	values := func(vs []*doc.Value) (list []string) {
		for _, v := range vs {
			list = append(list, "`"+strings.Join(v.Names, "`, `")+"`: "+p.Synopsis(v.Doc))
		}
		return list
	}
	funcs := func(fs []*doc.Func) (list []string) {
		for _, f := range fs {
			if isListed(f) {
				list = append(list, "`"+signature(f)+"`: "+p.Synopsis(f.Doc))
			}
		}
		return list
	}
	for _, line := range slices.Concat(values(p.Vars), values(p.Consts), funcs(p.Funcs)) {
		fmt.Fprintln(b, "-", line)
	}
	for _, typ := range p.Types {
		parts := slices.Concat([]string{"`" + typeHeading(typ) + "`: " + p.Synopsis(typ.Doc)}, values(typ.Consts), values(typ.Vars), funcs(typ.Funcs))
		main := typ.Name == "Authenticator" || typ.Name == "Verifier"
		if !main {
			parts = append(parts, funcs(typ.Methods)...)
		}
		fmt.Fprintln(b, "-", strings.Join(parts, " "))
		if !main {
			continue
		}
		var order []string
		lines := map[string]string{}
		for _, f := range typ.Methods {
			if !isListed(f) {
				continue
			}
			key := strings.Replace(signature(f), " "+f.Name+"(", " (", 1)
			if lines[key] == "" {
				order = append(order, key)
				lines[key] = "-"
			}
			lines[key] += " " + funcs([]*doc.Func{f})[0]
		}
		for _, key := range order {
			fmt.Fprintln(b, lines[key])
		}
	}
}
