package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A handler is tested with claims of the test's own making.
func ExampleNewContext() {
	me := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprint(w, claims.Subject, claims.Roles)
	}
	r := httptest.NewRequest(http.MethodGet, "/me", nil)
	r = r.WithContext(auth.NewContext(r.Context(), &auth.Claims{Subject: "u1", Roles: []string{"admin"}}))
	w := httptest.NewRecorder()
	me(w, r)
	fmt.Println(w.Body)
	// Output: u1[admin]
}
