package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/ratchet-go/auth"
)

// A guard is a function of the claims. An application can use its own guards
// together with those of the package.
func ExampleVerifier_Require_guards() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    guardUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	pay := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "paid") })
	protected := a.Require(auth.Role("admin"), auth.Fresh(5*time.Minute), sameTenant)(pay)

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/pay", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := httptest.NewRecorder()
	protected.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output:
	// 403 Bearer error="insufficient_scope", error_description="the token does not permit this"
}

// sameTenant refuses users of other tenants.
func sameTenant(_ context.Context, c *auth.Claims) error {
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

// guardUsers is a user lookup in which every ID is a user.
type guardUsers struct{}

func (guardUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (guardUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Roles: []string{"admin"}, Extra: map[string]any{"tenant": "globex"}}, nil
}
