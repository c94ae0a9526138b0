package authtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testBankSession is a test. In your application, its name is TestBankSession.
func testBankSession(t *testing.T) {
	a := authtest.New(t, auth.Config{AccessTTL: time.Minute})
	account := a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	short := authtest.Session(auth.SessionOptions{IdleTTL: 10 * time.Minute})
	tokens := authtest.Tokens(t, a, auth.User{ID: "u1"}, short, authtest.LoginAge(time.Hour)) // refreshed ever since

	r := httptest.NewRequest("GET", "/account", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := httptest.NewRecorder()
	if account.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("status %d, want 200", w.Code)
	}
	a.Clock.Advance(10 * time.Minute)
	if _, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{}); err == nil {
		t.Error("the session goes on after ten minutes without a request")
	}
}

// A session with lifetimes of its own, which ends after ten minutes without a refresh.
func ExampleSession_lifetimes() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestBankSession", F: testBankSession}}, nil, nil) // as go test does
}
