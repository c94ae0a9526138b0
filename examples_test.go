package auth_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/storetest"
)

// TestExamples_FilesAreWhole fails for an Example that cannot be copied from the
// documentation as it stands. The documentation shows the whole file, with its
// imports, only if the file has one Example, another declaration and no test.
// The file must not use declarations of other files.
func TestExamples_FilesAreWhole(t *testing.T) {
	t.Parallel()
	found := 0
	methods := map[string]map[string]bool{} // by directory and receiver, the files that declare methods of it
	receivers := map[string][]string{}      // by example file, the keys of methods of its types
	walkFiles(t, func(path string) {
		if !isTest(path) {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if key := filepath.Dir(path) + " " + receiver(d); receiver(d) != "" {
				if methods[key] == nil {
					methods[key] = map[string]bool{}
				}
				methods[key][path] = true
			}
		}
		examples := doc.Examples(f)
		if len(examples) == 0 {
			return
		}
		found++
		require.Len(t, examples, 1, "%s: one Example in each file", path)
		require.Regexp(t, `^example_(\w+_)?test\.go$`, filepath.Base(path), "%s: the name of a file with an Example", path)
		require.IsType(t, &ast.File{}, examples[0].Code, "%s: the documentation shows only the body of the Example; add a declaration, or remove tests", path)
		known := map[string]bool{}
		for _, spec := range f.Imports {
			known[importName(spec)] = true
		}
		for _, ident := range f.Unresolved {
			require.True(t, known[ident.Name] || types.Universe.Lookup(ident.Name) != nil,
				"%s uses %s, which is declared in another file", path, ident.Name)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				for _, spec := range d.Specs {
					receivers[path] = append(receivers[path], filepath.Dir(path)+" "+spec.(*ast.TypeSpec).Name.Name)
				}
			}
		}
	})
	require.Greater(t, found, 20)
	for path, keys := range receivers {
		for _, key := range keys {
			for file := range methods[key] {
				require.Equal(t, path, file, "a method of %s is in another file than the type", key)
			}
		}
	}
}

// receiver returns the name of the type that a declaration is a method of, or "".
func receiver(d ast.Decl) string {
	f, ok := d.(*ast.FuncDecl)
	if !ok || f.Recv == nil {
		return ""
	}
	expr := f.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	name, _ := expr.(*ast.Ident)
	if name == nil {
		return "" // a generic type
	}
	return name.Name
}

// importName returns the name by which a file uses an import.
func importName(spec *ast.ImportSpec) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	path := regexp.MustCompile(`/v\d+$`).ReplaceAllString(strings.Trim(spec.Path.Value, `"`), "")
	name := path[strings.LastIndex(path, "/")+1:]
	return strings.TrimPrefix(name, "go-")
}

// TestExamples_AreListed fails for an Example that the package comment does not
// name, and for a name without an Example.
func TestExamples_AreListed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(text), "\n// # Examples\n")
	require.True(t, ok)
	list, _, _ = strings.Cut(list, "\n// # ")
	var listed []string
	for _, m := range regexp.MustCompile(`(?m)^//   - .*: (.*)$`).FindAllStringSubmatch(list, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			listed = append(listed, strings.Trim(name, "[]"))
		}
	}
	var want []string
	for name, f := range goFiles(t, ".") {
		for _, e := range doc.Examples(f) {
			require.True(t, isTest(name))
			if e.Name == "" {
				continue // the example of the package
			}
			parts := strings.Split(e.Name, "_")
			last := []rune(parts[len(parts)-1])
			if unicode.IsLower(last[0]) { // a suffix
				last[0] = unicode.ToUpper(last[0])
				want = append(want, strings.Join(parts[:len(parts)-1], ".")+" ("+string(last)+")")
				continue
			}
			want = append(want, strings.Join(parts, "."))
		}
	}
	require.ElementsMatch(t, want, listed)
}

// The store that the documentation shows is one that works.
func TestExampleStore_Conformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) func() auth.Store {
		store := newSkeletonStore()
		return func() auth.Store { return store }
	})
}

// The kit does not test the removal of expired records, nor the size of a page.
func TestExampleStore_DeletesWhatExpiredAMinuteAgo(t *testing.T) {
	t.Parallel()
	store, ctx := newSkeletonStore(), t.Context()
	now := time.Now().UTC().Truncate(time.Millisecond)
	for id, ago := range map[string]time.Duration{"old": 2 * time.Minute, "recent": 30 * time.Second, "live": -time.Hour} {
		at := now.Add(-ago)
		require.NoError(t, store.Create(ctx, auth.Session{ID: id, Subject: "u1", CreatedAt: at, RotatedAt: at, ExpiresAt: at}))
		require.NoError(t, store.Revoke(ctx, auth.Revocation{ID: id, Subject: "u2", Before: at.Truncate(time.Second), Until: at}))
	}
	store.cleaned = time.Time{} // as if a minute had passed
	require.NoError(t, store.Revoke(ctx, auth.Revocation{ID: "new", Subject: "u2", Before: now.Truncate(time.Second), Until: now.Add(time.Hour)}))
	list, err := store.List(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []string{"live", "recent"}, []string{list[0].ID, list[1].ID})
	rs, _, more, err := store.Changes(ctx, "", 0)
	require.NoError(t, err)
	require.False(t, more)
	var ids []string
	for _, r := range rs {
		ids = append(ids, r.ID)
	}
	require.ElementsMatch(t, []string{"recent", "live", "new"}, ids)
}

func TestExampleStore_ReturnsPages(t *testing.T) {
	t.Parallel()
	store, ctx := newSkeletonStore(), t.Context()
	for range 1001 {
		require.NoError(t, store.Revoke(ctx, auth.Revocation{ID: "r", Subject: "u1", Before: time.Unix(1, 0).UTC(), Until: time.Now().Add(time.Hour)}))
	}
	first, next, more, err := store.Changes(ctx, "", 0)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, first, 1000)
	second, _, more, err := store.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.False(t, more)
	require.Len(t, second, 1)
}
