package authtest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

// customers stands for the users of your application.
type customers struct{ hash string }

func (c customers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{ID: "u1", PasswordHash: c.hash}, nil
}

func (c customers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, PasswordHash: c.hash}, nil
}

// testSecondStep is a test. In your application, its name is TestSecondStep.
func testSecondStep(t *testing.T) {
	hash, _ := (&password.Hasher{Memory: 64, Time: 1}).Hash(t.Context(), "correct horse battery staple")
	a := authtest.New(t, auth.Config{
		Cookies: &auth.Cookies{}, Users: customers{hash},
		SecondFactor: authtest.Factors{"otp": "123456"},
	})
	send := func(path string, form url.Values) *http.Response {
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, r)
		return w.Result()
	}

	resp := send("/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
	challenge := authtest.FactorRequired(t, a, resp)
	resp = send("/login/factor", url.Values{"challenge": {challenge}, "method": {"otp"}, "response": {"000000"}})
	challenge = authtest.FactorRequired(t, a, resp) // a wrong response
	resp = send("/login/factor", url.Values{"challenge": {challenge}, "method": {"otp"}, "response": {"123456"}})
	if claims := authtest.SignedIn(t, a, resp); !strings.Contains(strings.Join(claims.AMR, " "), "otp") {
		t.Errorf("the methods of the login are %q, and do not contain otp", claims.AMR)
	}
}

// A login with a second step: a wrong response, and then the right one.
func ExampleFactors() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestSecondStep", F: testSecondStep}}, nil, nil) // as go test does
}
