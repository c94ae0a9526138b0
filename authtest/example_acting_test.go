package authtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testActing is a test. In your application, its name is TestActing.
func testActing(t *testing.T) {
	a := authtest.New(t, auth.Config{})
	payment := a.Require(auth.NotActing())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	customer := auth.User{ID: "u1"}
	asSupport := authtest.Session(auth.SessionOptions{Actor: "support-7"})

	for _, test := range []struct {
		r    *http.Request
		want int
	}{
		{authtest.As(t, a, httptest.NewRequest("POST", "/payment", nil), customer), 200},
		{authtest.As(t, a, httptest.NewRequest("POST", "/payment", nil), customer, asSupport), 403},
	} {
		w := httptest.NewRecorder()
		if payment.ServeHTTP(w, test.r); w.Code != test.want {
			t.Errorf("status %d, want %d", w.Code, test.want)
		}
	}
}

// A member of the support staff acts for a customer, and must not pay for them.
func ExampleSession_acting() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestActing", F: testActing}}, nil, nil) // as go test does
}
