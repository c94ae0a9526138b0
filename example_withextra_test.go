package auth_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A test of a handler can add claims of the application's own, as User.Extra
// does.
func ExampleClaims_WithExtra() {
	claims, err := (&auth.Claims{Subject: "u1"}).WithExtra(map[string]any{"tenant": "acme"})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/me", nil)
	r = r.WithContext(auth.NewContext(r.Context(), claims))
	w := httptest.NewRecorder()
	tenant(w, r)
	fmt.Println(w.Body)
	// Output: acme
}

// tenant is the handler that is tested. A program wraps it with Require.
func tenant(w http.ResponseWriter, r *http.Request) {
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
