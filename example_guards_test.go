package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/ratchet-go/auth"
)

// Guards are functions of claims; the application's own stand beside those of
// the package.
func ExampleVerifier_Require_guards() {
	a := exampleAuthenticator()
	sameTenant := func(_ context.Context, c *auth.Claims) error {
		var own struct {
			Tenant string `json:"tenant"`
		}
		if err := c.Decode(&own); err != nil {
			return err
		}
		if own.Tenant != "acme" {
			return fmt.Errorf("%w: another tenant", auth.ErrForbidden)
		}
		return nil
	}
	pay := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "paid") })
	protected := a.Require(auth.Role("admin"), auth.Fresh(5*time.Minute), sameTenant)(pay)

	r := httptest.NewRequest(http.MethodPost, "/pay", nil)
	r.Header.Set("Authorization", "Bearer "+exampleTokens(a).Access)
	w := httptest.NewRecorder()
	protected.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output:
	// 403 Bearer error="insufficient_scope", error_description="the token does not permit this"
}

func exampleAuthenticator() *auth.Authenticator {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{secret},
		Users:    newUsers(),
		Cookies:  &auth.Cookies{},
	})
	if err != nil {
		panic(err)
	}
	return a
}

func exampleTokens(a *auth.Authenticator) auth.Tokens {
	t, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		panic(err)
	}
	return t
}
