package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
)

// CORS inside of Require is wrong: the browser's preflight carries no token,
// so it is refused before the CORS middleware sees it. CORS goes outside.
func ExampleVerifier_Require_incorrectCORS() {
	a := exampleAuthenticator()
	cors := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://app.example.com")
			if r.Method == http.MethodOptions {
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	api := http.NotFoundHandler()
	for name, h := range map[string]http.Handler{
		"wrong": a.Require()(cors(api)),
		"right": cors(a.Require()(api)),
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodOptions, "/", nil))
		fmt.Println(name, w.Code)
	}
	// Unordered output:
	// wrong 401
	// right 200
}
