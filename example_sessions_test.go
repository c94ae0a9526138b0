package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/ratchet-go/auth"
)

// A page of the user's devices lists their sessions, and can end all sessions
// except the current one.
func ExampleAuthenticator_Sessions() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    deviceUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	var current auth.Tokens
	for _, name := range []string{"phone", "laptop"} {
		if current, err = a.StartSession(ctx, "u1", auth.SessionOptions{Name: name}); err != nil {
			log.Fatal(err)
		}
	}
	list, _ := a.Sessions(ctx, "u1")
	fmt.Println(len(list), "devices")

	if err := a.RevokeAll(ctx, "u1", current.SessionID); err != nil {
		log.Fatal(err)
	}
	list, _ = a.Sessions(ctx, "u1")
	fmt.Println("left:", list[0].Name())
	// Output:
	// 2 devices
	// left: laptop
}

// deviceUsers is a user lookup in which every ID is a user.
type deviceUsers struct{}

func (deviceUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (deviceUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
