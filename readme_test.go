package auth_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

func TestREADME_PicturesExist(t *testing.T) {
	t.Parallel()
	pictures := regexp.MustCompile(`(?:src|srcset)="([^"]+)"`).FindAllStringSubmatch(readme(t), -1)
	require.Len(t, pictures, 8)
	for _, picture := range pictures {
		require.FileExists(t, picture[1])
	}
}

// TestREADME_NamesExist fails for an exported name that the README, the word list
// or the rules give, and that no package of the root module for applications has.
func TestREADME_NamesExist(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, dir := range []string{".", "authclient", "authtest", "oauth"} {
		for name, f := range goFiles(t, dir) {
			if isTest(name) {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					names[n.Name.Name] = true
				case *ast.TypeSpec:
					names[n.Name.Name] = true
				case *ast.ValueSpec:
					for _, name := range n.Names {
						names[name.Name] = true
					}
				case *ast.Field:
					for _, name := range n.Names {
						names[name.Name] = true
					}
				}
				return true
			})
		}
	}
	for _, page := range []string{"README.md", "docs/README.md", "docs/rules.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile("`(?:\\*?auth\\.|authtest\\.|a\\.|v\\.)?([A-Z]\\w*[a-z]\\w*)(?:\\.([A-Z]\\w*))?(?:\\([^`]*)?`").FindAllStringSubmatch(
			string(text), -1,
		) {
			for _, name := range m[1:] {
				if name != "" && !strings.HasPrefix(name, "Test") {
					require.True(t, names[name], "%s names %s in %s", page, name, m[0])
				}
			}
		}
	}
}

func TestREADME_ListsEveryErrorResponse(t *testing.T) {
	t.Parallel()
	text := readme(t)
	for _, err := range []error{
		auth.ErrNoToken, auth.ErrInvalidToken, auth.ErrTokenExpired, auth.ErrSessionRevoked, auth.ErrTokenReused,
		auth.ErrInvalidCredentials, auth.ErrForbidden, auth.ErrReauthenticate, auth.ErrInvalidRequest, auth.ErrCrossOrigin,
		auth.ErrUnavailable, auth.ErrSessionNotFound, auth.ErrUserNotFound, &auth.FactorError{}, auth.ErrTooManySessions, auth.ErrSpent,
		password.ErrBusy, password.ErrRefused, errors.New("not of this package"),
	} {
		answer := auth.ResponseFor(err)
		action := ""
		if answer.Action != "" {
			action = "`" + answer.Action + "` "
		}
		require.Contains(t, text, fmt.Sprintf("\n| %d | `%s` | %s| ", answer.Status, answer.Code, action), "%v", err)
	}
}

func TestREADME_ListsTheEndpoints(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t, withCookies(), func(c *auth.Config) { c.Users = &storedUsers{users: c.Users.(*users)} })
	h := fx.Handler()
	rows := regexp.MustCompile("(?m)^\\| `([A-Z]+) (/[^`]*)`").FindAllStringSubmatch(readme(t), -1)
	require.Len(t, rows, 11)
	for _, row := range rows {
		for method, allowed := range map[string]bool{row[1]: true, http.MethodPatch: false} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, strings.Replace(row[2], "{id}", "x", 1), nil))
			require.NotEqual(t, http.StatusNotFound, w.Code, row[0])
			require.Equal(t, allowed, w.Code != http.StatusMethodNotAllowed, "%s: %s", row[0], method)
		}
	}
}

// TestREADME_DiagramsAreSelfContained also checks that the diagrams are
// readable: text is text, and there are a description and colors for a dark
// page.
func TestREADME_DiagramsAreSelfContained(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lifecycle.svg", "two-tabs.svg"} {
		text, err := os.ReadFile(filepath.Join("docs/img", name))
		require.NoError(t, err)
		elements := map[string]int{}
		decoder := xml.NewDecoder(strings.NewReader(string(text)))
		for {
			part, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
			if start, ok := part.(xml.StartElement); ok {
				elements[start.Name.Local]++
				for _, a := range start.Attr {
					require.NotContains(t, []string{"href", "onload", "onclick"}, a.Name.Local, name)
				}
			}
		}
		require.Equal(t, 1, elements["title"], name)
		require.Equal(t, 1, elements["desc"], name)
		require.Greater(t, elements["text"], 15, name)
		for _, other := range []string{"script", "image", "foreignObject", "use"} {
			require.Zero(t, elements[other], "%s: %s", name, other)
		}
		require.Contains(t, string(text), "prefers-color-scheme:dark", name)
		width, err := strconv.Atoi(regexp.MustCompile(`^<svg [^>]*width="(\d+)"`).FindStringSubmatch(string(text))[1])
		require.NoError(t, err)
		require.LessOrEqual(t, width, 480, "%s is hard to read on a phone", name)
	}
}
