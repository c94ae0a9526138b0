package auth

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

//go:embed js/auth.js
var script string

// scriptWindow is the line of the script that sets the retry window.
const scriptWindow = "const WINDOW = 30000;"

// ScriptHandler handles GET. It returns auth.js, a script for pages that use the
// endpoints of [Authenticator.Handler], which serves it as /auth.js:
//
//	import { createClient } from "/auth/auth.js";
//	const auth = createClient();
//	const response = await auth.fetch("/api/me");
//
// It is an ES module without dependencies, and needs no build step. Its fetch
// refreshes expired tokens, once for all tabs, and repeats the request. It sends
// retry keys, so that a lost response signs nobody out, and tells each tab when the
// user has signed out in another one. The file js/auth.d.ts of this module documents
// it. The script knows Config.RetryWindow, so a page must use that of its server.
//
// The response has an ETag, and is revalidated with each use. Pages of all origins
// may load it, if CORS allows it: it contains nothing that is secret.
func (a *Authenticator) ScriptHandler() http.Handler {
	window := a.window
	if window <= 0 { // the script must still give up a refresh at some time
		window = defaultWindow
	}
	text := strings.Replace(script, scriptWindow, "const WINDOW = "+strconv.FormatInt(window.Milliseconds(), 10)+";", 1)
	sum := sha256.Sum256([]byte(text))
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return a.methods(func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("ETag", tag)
		h.Set("X-Content-Type-Options", "nosniff")
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write([]byte(text)) // the client may have gone
		return nil
	}, http.MethodGet, http.MethodHead)
}
