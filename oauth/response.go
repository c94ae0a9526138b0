package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/ratchet-go/auth"
)

// setNoStore keeps a response out of caches (RFC 6749 section 5.1).
func setNoStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

// writeError writes the response to a request that failed with err (RFC 6749 section
// 5.2), and emits the event of package auth.
func writeError(a reporter, w http.ResponseWriter, r *http.Request, err error) {
	p := &problem{}
	own := errors.As(err, &p)
	answer := a.ReportError(r, err, p.code)
	answer.Challenge = p.challenge // never one of the scheme Bearer, which the endpoints do not use
	if answer.Code == "invalid_grant" {
		answer.Status = http.StatusBadRequest
	}
	if own {
		answer.Status, answer.Description = p.status, p.text
	}
	answer.SetHeaders(w.Header())
	setNoStore(w.Header())
	writeJSON(w, answer.Status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{answer.Code, describe(answer.Description)})
}

// describe returns text with the characters that an error_description may have
// (RFC 6749 section 5.2).
func describe(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '"':
			return '\''
		case c < ' ' || c > '~' || c == '\\':
			return '?'
		}
		return c
	}, text)
}

// writeJSON writes a response. The headers for caches are set before.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, _ := json.Marshal(v) // strings, numbers and lists of them cannot fail
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // fails only if the client has gone
}

// writeTokens writes the response of the token endpoint: that of
// [auth.Authenticator.WriteTokens], and the scope of the access token. The scope is in
// it even if it is empty if the client has requested one, because without it, the client would have
// what it requested (RFC 6749 section 5.1).
func writeTokens(a *auth.Authenticator, w http.ResponseWriter, t auth.Tokens, requested bool) {
	setNoStore(w.Header())
	if t.Scope == "" && !requested {
		a.WriteTokens(w, t, false)
		return
	}
	b := &bodyWriter{ResponseWriter: w}
	a.WriteTokens(b, t, false)
	scope, _ := json.Marshal(t.Scope)
	object := bytes.TrimSuffix(bytes.TrimSpace(b.body.Bytes()), []byte("}"))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(append(append(append(object, `,"scope":`...), scope...), "}\n"...))
}

// bodyWriter keeps the status and the body of a response.
type bodyWriter struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (w *bodyWriter) WriteHeader(int) {}

func (w *bodyWriter) Write(b []byte) (int, error) { return w.body.Write(b) }
