package jwks_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

// A service that only verifies tokens uses the keys that the issuer publishes.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// The issuer is usually another service.
	issuer := exampleIssuer()
	server := httptest.NewTLSServer(issuer.JWKSHandler())
	defer server.Close()

	keys, err := jwks.New(jwks.Config{URL: server.URL + "/jwks.json", Client: server.Client()})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = keys.Run(ctx) }()
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: "https://issuer.example", Audience: []string{"https://api.example"},
		Keys: keys,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	tokens, err := issuer.StartSession(ctx, "u1", auth.SessionOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := v.Verify(ctx, tokens.Access)
	fmt.Println(claims.Subject, err)
	// Output: u1 <nil>
}

// exampleIssuer returns an Authenticator that signs with a private key.
func exampleIssuer() *auth.Authenticator {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://issuer.example", Audience: []string{"https://api.example"},
		AccessKeys:  auth.Keys{auth.EdDSA(private)},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))}, // a program reads it from its configuration
		Users:       issuerUsers{},
	})
	if err != nil {
		panic(err)
	}
	return a
}

// issuerUsers is a user lookup in which every ID is a user.
type issuerUsers struct{}

func (issuerUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (issuerUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}
