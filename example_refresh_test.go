package auth_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ratchet-go/auth"
)

// Within the retry window, a client can present a refresh token again and gets
// the same new token. After the window, the token counts as stolen, and the
// session ends.
func ExampleAuthenticator_Refresh() {
	now := time.Now()
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    refreshUsers{},
		Now:      func() time.Time { return now },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	first, err := a.StartSession(ctx, "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	second, _ := a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	again, _ := a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	fmt.Println("same token:", second.Refresh == again.Refresh)

	now = now.Add(time.Minute)
	_, err = a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	fmt.Println("reused:", errors.Is(err, auth.ErrTokenReused))
	_, err = a.Verify(ctx, second.Access)
	fmt.Println("revoked:", errors.Is(err, auth.ErrSessionRevoked))
	// Output:
	// same token: true
	// reused: true
	// revoked: true
}

// refreshUsers is a user lookup in which every ID is a user.
type refreshUsers struct{}

func (refreshUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (refreshUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
