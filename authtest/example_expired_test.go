package authtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testPageAfterAPause is a test. In your application, its name is TestPageAfterAPause.
func testPageAfterAPause(t *testing.T) {
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}, AutoRefresh: true})
	page := a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	r := authtest.As(t, a, httptest.NewRequest("GET", "/", nil), auth.User{ID: "u1"}, authtest.Expired())
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)

	if w.Code != http.StatusTemporaryRedirect {
		t.Errorf("status %d, want 307", w.Code)
	}
	claims := authtest.SignedIn(t, a, w.Result())
	authtest.HasSessions(t, a, "u1", claims.SessionID)
}

// A user returns after their access token has expired. AutoRefresh refreshes the
// tokens, and the session continues.
func ExampleExpired() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestPageAfterAPause", F: testPageAfterAPause}}, nil, nil) // as go test does
}
