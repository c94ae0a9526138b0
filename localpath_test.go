package auth_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// localPaths are paths of this site; the pages to which a login may return.
var localPaths = []string{
	"/", "/me", "/me/", "/a/b?x=1&y=%2F%2Fevil.example", "/a?next=https://evil.example/", "/a?x=//evil.example", "/a#b", "/a?x#y", "/?x", "/#x",
	"/a//b", "/a///", "/a:b", "/@evil.example", "/a@b", "/https:/evil.example", "/javascript:alert(1)", "/.a", "/a..b", "/...", "/a/...", "/..a/",
	"/%C3%A4", "/ä/ö", "/e%CC%81", "/a%20b", "/a b", "/a+b", "/a;b", "/a?b;c", "/a?x=\\", "/a?..//", "/a#/../..", "/a#//evil.example", "/%FF", "/a%2Fb", "/%252F", "/%25",
	"/a?%zz", "/~a", "/a'b\"c<d>", "/" + strings.Repeat("a", 2047), "/evil.example", "/.well-known/x",
}

// foreignPaths are refused: a browser or a server may resolve them to another
// site, or they are malformed.
var foreignPaths = []string{
	"", " ", "x", "?x", "#x", "./x", "../x", ".", "..", " /x", "\t/x", "x/y",
	"//evil.example", "//evil.example/x", "///evil.example", "////evil.example", "//", "/\\evil.example", "\\\\evil.example", "\\/evil.example", "\\evil.example", "/\\/evil.example", "//\\evil.example", "/a\\b", "/a\\..\\b",
	"/\t/evil.example", "/\n/evil.example", "/\r/evil.example", "\t//evil.example", "/\x00/evil.example", "/\x0b/evil.example", "/\x7f", "/\u0085", "/a\r\nSet-Cookie: x=1", "/a?\r\nx: y", "/a#\nb", "/\t\\evil.example",
	"/%09/evil.example", "/%0a/evil.example", "/%0d%0aSet-Cookie:x", "/%00", "/a/%0D", "/%2F/evil.example", "/%2Fevil.example", "/%2f%2fevil.example", "/%5Cevil.example", "/%5c%5cevil.example", "/a%5Cb",
	"https:evil.example", "https:/evil.example", "https://evil.example", "https:///evil.example", "HTTPS://evil.example/", "http:evil.example", "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "data:text/html,x", "mailto:x", "x:/y", "https://example.com/me", "//example.com/me", "//@/x", "//:80/x",
	"/..", "/../", "/.", "/./", "/../..//evil.example", "/a/..//evil.example", "/a/../x", "/..//evil.example", "/.//evil.example", "/%2e%2e//evil.example", "/%2E./x", "/.%2e", "/%2e//evil.example", "/a/%2e%2e%2f%2fevil.example", "/..%2f/evil.example", "/..%5cevil.example", "/a/..?x", "/a/.#x", "/..?x",
	"/%", "/%zz", "/a%", "/\xff", "/a?\xff", "/" + strings.Repeat("a", 2048), "/?" + strings.Repeat("a", 2048),
	"@evil.example", ":80/x", ":@evil.example", "[::1]/x", "evil.example", ".evil.example", "%2F%2Fevil.example", "%2Fx",
}

func TestLocalPath_ReturnsOnlyPathsOfThisSite(t *testing.T) {
	t.Parallel()
	for _, s := range localPaths {
		require.Equal(t, s, auth.LocalPath(s))
	}
	for _, s := range foreignPaths {
		require.Equal(t, "/", auth.LocalPath(s), "%q", s)
	}
}

// TestLocalPath_AcceptsWhatBrowsersRequest uses the value that the example
// passes to the login page.
func TestLocalPath_AcceptsWhatBrowsersRequest(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/a?b=c", "/%C3%A4?x=%zz", "/a?x=\\", "/a//b", "/a%20b?q=c%20d+e"} {
		target = "/site" + target
		page := http.StripPrefix("/site", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			login, err := url.Parse("/login?next=" + url.QueryEscape(r.RequestURI))
			require.NoError(t, err)
			require.Equal(t, target, auth.LocalPath(login.Query().Get("next")))
		}))
		page.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
	}
}

// FuzzLocalPath compares with net/url and with the redirect of net/http.
func FuzzLocalPath(f *testing.F) {
	for _, s := range append(append([]string{}, localPaths...), foreignPaths...) {
		f.Add(s)
	}
	base, err := url.Parse("https://example.com/auth/login")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		got := auth.LocalPath(s)
		require.Contains(t, []string{s, "/"}, got)
		require.Equal(t, got, auth.LocalPath(got))
		u, err := base.Parse(got)
		require.NoError(t, err)
		require.Equal(t, "https://example.com", u.Scheme+"://"+u.Host, "%q", got)

		w := httptest.NewRecorder()
		http.Redirect(w, httptest.NewRequest("GET", base.String(), nil), got, http.StatusSeeOther)
		location := w.Header().Get("Location")
		require.NotContains(t, location, "\n")
		for _, escaped := range []string{got, location} {
			// What a browser makes of it: it removes tabs and line breaks, and
			// treats a backslash as a slash.
			plain := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.TrimLeft(escaped, "\x00\x01\x1f "))
			require.Regexp(t, `^/([^/]|$)`, plain, "%q", s)
			// The same after another decoding.
			path, _, _ := strings.Cut(plain, "?")
			path, _, _ = strings.Cut(path, "#")
			decoded, err := url.PathUnescape(path)
			require.NoError(t, err)
			require.Regexp(t, `^/([^/\\\t\r\n]|$)`, decoded, "%q", s)
		}
	})
}
