package authtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// routes stands for the routes of your application.
func routes(a *auth.Authenticator) http.Handler {
	admin := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("GET /admin", a.Require(auth.Role("admin"))(admin))
	return mux
}

// testAdmin is a test. In your application, its name is TestAdmin.
func testAdmin(t *testing.T) {
	a := authtest.New(t, auth.Config{}) // or the configuration of your application
	request := func() *http.Request { return httptest.NewRequest("GET", "/admin", nil) }
	for want, r := range map[int]*http.Request{
		200: authtest.As(t, a, request(), auth.User{ID: "u1", Roles: []string{"admin"}}),
		401: request(), // nobody is signed in
		403: authtest.As(t, a, request(), auth.User{ID: "u2"}),
	} {
		w := httptest.NewRecorder()
		if routes(a.Authenticator).ServeHTTP(w, r); w.Code != want {
			t.Errorf("status %d, want %d", w.Code, want)
		}
	}
}

// A table test of a protected handler. The requests have real tokens, so the test
// includes the middleware and its guards.
func Example() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestAdmin", F: testAdmin}}, nil, nil) // as go test does
}
