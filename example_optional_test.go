package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A page that is for everybody and greets those who are signed in.
func ExampleVerifier_Optional() {
	a := exampleAuthenticator()
	home := a.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if claims, ok := auth.FromContext(r.Context()); ok {
			fmt.Fprint(w, "hello ", claims.Username)
			return
		}
		fmt.Fprint(w, "hello stranger")
	}))
	for _, token := range []string{"", exampleTokens(a).Access} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if token != "" {
			r.AddCookie(&http.Cookie{Name: "__Host-access", Value: token})
		}
		w := httptest.NewRecorder()
		home.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	// Output:
	// hello stranger
	// hello ada
}
