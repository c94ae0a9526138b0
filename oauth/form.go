package oauth

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/ratchet-go/auth"
)

// maxForm is the size limit of a body, in bytes.
const maxForm = 16 << 10

// readForm returns the parameters of a request that the endpoints read. A parameter
// without a value counts as omitted (RFC 6749 section 3.2).
func readForm(w http.ResponseWriter, r *http.Request) (map[string]string, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err != nil || kind != "application/x-www-form-urlencoded" || charset != "" && charset != "utf-8" {
		return nil, &problem{http.StatusUnsupportedMediaType, invalidRequest, "the body must be application/x-www-form-urlencoded, in UTF-8", ""}
	}
	if r.Body != nil { // as in a request that a test or another framework has created
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	err = r.ParseForm() // does nothing if a middleware has called it
	switch tooLarge := (*http.MaxBytesError)(nil); {
	case errors.As(err, &tooLarge):
		return nil, &problem{http.StatusRequestEntityTooLarge, invalidRequest, "the request body is too large", ""}
	case err != nil:
		return nil, malformed("the body or the query cannot be decoded")
	}
	query, _ := url.ParseQuery(r.URL.RawQuery) // ParseForm has returned its error
	f := map[string]string{}
	for _, name := range [...]string{"grant_type", "refresh_token", "scope", "token", "token_type_hint", "client_id", "client_secret"} {
		switch values := r.PostForm[name]; {
		case query.Has(name):
			return nil, malformed(name + " must be in the body and not in the URL")
		case len(values) > 1:
			return nil, malformed(name + " occurs twice")
		case len(values) == 1:
			f[name] = values[0]
		}
	}
	return f, nil
}

// isScope reports whether s is empty or a list of scopes (RFC 6749 section 3.3).
func isScope(s string) bool {
	if s == "" {
		return true
	}
	for scope := range strings.SplitSeq(s, " ") {
		if scope == "" || !isPrintable(scope) || strings.ContainsAny(scope, `"\`) {
			return false
		}
	}
	return true
}

// isPrintable reports whether s has only printable ASCII characters, which include
// the space.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// problem is an error of this package, with its response.
type problem struct {
	status    int
	code      string // of RFC 6749 section 5.2
	text      string // error_description
	challenge string // WWW-Authenticate, or ""
}

const invalidRequest = "invalid_request"

func malformed(text string) error {
	return &problem{http.StatusBadRequest, invalidRequest, text, ""}
}

func missing(name string) error { return malformed(name + " is missing in the body") }

func (p *problem) Error() string { return "oauth: " + p.text }

// Unwrap returns an error with which package auth emits an event.
func (p *problem) Unwrap() error { return auth.ErrInvalidRequest }

// methodNotAllowed returns an endpoint that refuses a request with another method
// than those.
func methodNotAllowed(methods ...string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return &problem{http.StatusMethodNotAllowed, invalidRequest, "the method is not allowed here; use " + strings.Join(methods, " or "), ""}
	}
}
