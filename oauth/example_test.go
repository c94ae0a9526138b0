package oauth_test

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
)

// secrets are the SHA-256 of the secrets of clients, by ID.
type secrets map[string][sha256.Size]byte

func (s secrets) CheckClient(_ context.Context, id, secret string) error {
	want, found := s[id] // that of an unknown client is zero, and is compared too
	got := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !found {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// lookup is your own lookup of users. This one has a single user.
type lookup struct{}

func (lookup) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (lookup) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}

// A backend with a secret introspects tokens. Apps without a secret refresh them.
func ExampleClients() {
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")}, // read it from your configuration
		Users:   lookup{},
	})
	if err != nil {
		log.Fatal(err)
	}
	h, err := oauth.Handler(a, oauth.Config{
		URL:           "https://example.com/oauth",
		Clients:       secrets{"backend": sha256.Sum256([]byte("9f2c1d7ab3e84c55a1f0d2b68e7730cc"))},
		PublicClients: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler())) // for the login
	mux.Handle("/oauth/", http.StripPrefix("/oauth", h))
	mux.Handle("/.well-known/oauth-authorization-server", h)

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, secret := range []string{"9f2c1d7ab3e84c55a1f0d2b68e7730cc", "wrong"} {
		r := httptest.NewRequest("POST", "/oauth/introspect", strings.NewReader("token="+tokens.Refresh)) // no access token
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("backend", secret)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 {"active":false}
	// 401 {"error":"invalid_client","error_description":"the client is unknown, or its secret is wrong"}
}
