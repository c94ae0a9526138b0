package auth

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLocalPath bounds what LocalPath accepts, because servers and proxies limit
// the size of a header.
const maxLocalPath = 2048

// LocalPath returns s if it is the path of a page of this site, which may be
// followed by a query and a fragment. Otherwise it returns "/". It is for the
// parameter of a login page that says where to go after the login. Without a
// check, a link to the login page could send the user to another site, which
// then asks for the password again:
//
//	http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
//
// Set the parameter to url.QueryEscape(r.RequestURI). In r.URL, a prefix that
// http.StripPrefix has removed is missing.
//
// It accepts only paths that browsers send in requests, of at most 2048 bytes:
// they begin with one slash, and contain no backslash, no control character and
// no segment "." or "..", encoded or not. It does not accept a URL with a scheme
// or a host, even those of this site.
func LocalPath(s string) string {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || len(s) > maxLocalPath || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "/"
	}
	u, err := url.Parse(s)
	if err != nil || !isLocalPath(u.Path) {
		return "/"
	}
	return s
}

// isLocalPath reports whether a decoded path that begins with a slash resolves
// to itself. Browsers do not decode a path, but a server or a proxy that
// redirects may. Browsers treat a backslash as a slash, and remove tabs and line
// breaks.
func isLocalPath(path string) bool {
	return !strings.HasPrefix(path, "//") && !strings.Contains(path, `\`) && !strings.ContainsFunc(path, unicode.IsControl) &&
		!slices.ContainsFunc(strings.Split(path, "/"), func(segment string) bool { return segment == "." || segment == ".." })
}
