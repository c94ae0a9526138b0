package auth_test

import (
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// CORS middleware inside Require is wrong. The browser sends its preflight
// request without a token, so Require refuses it before the CORS middleware
// can answer. CORS middleware belongs outside Require.
func ExampleVerifier_Require_incorrectCORS() {
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Keys:     auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))},
	})
	if err != nil {
		log.Fatal(err)
	}
	api := http.NotFoundHandler()
	for name, h := range map[string]http.Handler{
		"wrong": v.Require()(allowOrigin(api)),
		"right": allowOrigin(v.Require()(api)),
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodOptions, "/", nil))
		fmt.Println(name, w.Code)
	}
	// Unordered output:
	// wrong 401
	// right 200
}

// allowOrigin is a minimal CORS middleware.
func allowOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://app.example.com")
		if r.Method == http.MethodOptions {
			return
		}
		next.ServeHTTP(w, r)
	})
}
