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

// A test can also add claims of the application's own, as User.Extra does.
func ExampleClaims_WithExtra() {
	me := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		var own struct {
			Tenant string `json:"tenant"`
		}
		if err := claims.Decode(&own); err != nil {
			http.Error(w, "claims", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, own.Tenant)
	}
	claims, err := (&auth.Claims{Subject: "u1"}).WithExtra(map[string]any{"tenant": "acme"})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "/me", nil)
	r = r.WithContext(auth.NewContext(r.Context(), claims))
	w := httptest.NewRecorder()
	me(w, r)
	fmt.Println(w.Body)
	// Output: acme
}
