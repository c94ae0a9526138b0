package authtest_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testTooManyAttempts is a test. In your application, its name is TestTooManyAttempts.
func testTooManyAttempts(t *testing.T) {
	a := authtest.New(t, auth.Config{}) // or the configuration of your application
	login := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/login", strings.NewReader(`{"login":"ada","password":"?"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, r)
		return w
	}
	authtest.ThrottleLogin(t, a, "ada")
	if w := login(); w.Code != 429 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("status %d with Retry-After %q, want 429 with 1", w.Code, w.Header().Get("Retry-After"))
	}
	a.Clock.Advance(time.Second)
	if w := login(); w.Code != 401 {
		t.Errorf("status %d, want 401: after a second, the password is checked again", w.Code)
	}
}

// A login after too many failed ones.
func ExampleThrottleLogin() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestTooManyAttempts", F: testTooManyAttempts}}, nil, nil) // as go test does
}
