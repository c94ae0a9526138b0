package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A test of a handler can put claims into the request's context. It needs no
// token. Package authtest signs requests in with tokens, for tests of handlers
// with their middleware.
func ExampleNewContext() {
	r := httptest.NewRequest(http.MethodGet, "/me", nil)
	r = r.WithContext(auth.NewContext(r.Context(), &auth.Claims{Subject: "u1", Roles: []string{"admin"}}))
	w := httptest.NewRecorder()
	whoAmI(w, r)
	fmt.Println(w.Body)
	// Output: u1[admin]
}

// whoAmI is the handler that is tested. A program wraps it with Require.
func whoAmI(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	fmt.Fprint(w, claims.Subject, claims.Roles)
}
