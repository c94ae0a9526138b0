package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/ratchet-go/auth"
)

// A service that only verifies tokens checks the access tokens of another
// service. It needs only the access key, no users and no store.
func ExampleNewVerifier() {
	accessKey := auth.HS256([]byte(rand.Text() + rand.Text()))
	a, err := auth.New(auth.Config{
		Issuer:      "https://example.com",
		Audience:    []string{"https://api.example.com"},
		AccessKeys:  auth.Keys{accessKey},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))},
		Users:       issuerUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Keys:     auth.Keys{accessKey},
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := v.Verify(context.Background(), tokens.Access)
	fmt.Println(claims.Subject, err)
	_, err = v.Verify(context.Background(), tokens.Refresh)
	fmt.Println(err)
	// Output:
	// u1 <nil>
	// auth: invalid token: wrong typ rt+jwt: this is a refresh token
}

// issuerUsers is a user lookup in which every ID is a user.
type issuerUsers struct{}

func (issuerUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (issuerUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
