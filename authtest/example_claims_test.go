package authtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// tenant responds with a claim of the application's own.
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

// testTenant is a test. In your application, its name is TestTenant.
func testTenant(t *testing.T) {
	a := authtest.New(t, auth.Config{})
	r := authtest.As(t, a, httptest.NewRequest("GET", "/tenant", nil), auth.User{
		ID:    "u1",
		Extra: map[string]any{"tenant": "acme"},
	})
	w := httptest.NewRecorder()
	a.Require()(http.HandlerFunc(tenant)).ServeHTTP(w, r)
	if w.Body.String() != "acme" {
		t.Errorf("tenant %q, want acme", w.Body)
	}
}

// Claims of the application's own are in User.Extra.
func ExampleAs_ownClaims() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestTenant", F: testTenant}}, nil, nil) // as go test does
}
