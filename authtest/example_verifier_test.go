package authtest_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// verifierConfig stands for the configuration of your service, without Keys and
// Feed.
func verifierConfig() auth.VerifierConfig {
	return auth.VerifierConfig{Issuer: "https://example.com", Audience: []string{"https://reports.example.com"}}
}

// reportRoutes stands for the routes of your service.
func reportRoutes(v *auth.Verifier) http.Handler {
	reports := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("GET /reports", v.Require(auth.Role("admin"))(reports))
	return mux
}

// testReports is a test. In your application, its name is TestReports.
func testReports(t *testing.T) {
	c := verifierConfig()
	public, private, _ := ed25519.GenerateKey(nil)
	sessions := auth.NewMemoryStore()
	a := authtest.New(t, auth.Config{ // the service that signs
		Issuer: c.Issuer, Audience: c.Audience, Store: sessions,
		AccessKeys:  auth.Keys{auth.EdDSA(private)},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))},
	})
	c.Keys, c.Feed, c.Now = auth.Keys{auth.EdDSA(public)}, sessions, a.Clock.Now
	c.OnEvent = auth.LogEvents(slog.New(slog.NewTextHandler(t.Output(), nil))) // to the log of the test
	v, err := auth.NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}

	admin := auth.User{ID: "u1", Roles: []string{"admin"}}
	request := func() *http.Request { return httptest.NewRequest("GET", "/reports", nil) }
	for _, test := range []struct {
		r    *http.Request
		want int
	}{
		{authtest.As(t, a, request(), admin), 200},
		{authtest.As(t, a, request(), admin, authtest.Expired()), 401},
		{authtest.As(t, a, request(), admin, authtest.Revoked()), 401},
		{authtest.As(t, a, request(), auth.User{ID: "u2"}), 403},
	} {
		w := httptest.NewRecorder()
		if reportRoutes(v).ServeHTTP(w, test.r); w.Code != test.want {
			t.Errorf("status %d, want %d", w.Code, test.want)
		}
	}
}

// A service that only verifies, with its own configuration. If the test does not
// depend on that configuration, it can pass a.Verifier to reportRoutes.
func Example_verifier() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestReports", F: testReports}}, nil, nil) // as go test does
}
