package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/ratchet-go/auth"
)

// StartSession signs in a user whose identity was proved by other means, such
// as a passkey.
func ExampleAuthenticator_StartSession() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    passkeyUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{
		AMR:  []string{"hwk", "user"},
		Name: "Ada's laptop",
	})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := a.Verify(context.Background(), tokens.Access)
	fmt.Println(claims.Username, claims.AMR, err)
	// Output: ada [hwk user] <nil>
}

// passkeyUsers is a user lookup in which every ID is a user.
type passkeyUsers struct{}

func (passkeyUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (passkeyUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
