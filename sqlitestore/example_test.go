package sqlitestore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

// Sessions survive a restart of the server.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	secret := []byte(rand.Text() + rand.Text()) // a program reads it from its configuration
	refreshToken := ""
	for range 2 { // the server starts twice
		store, err := sqlitestore.Open(filepath.Join(dir, "sessions.db"), sqlitestore.Config{})
		if err != nil {
			fmt.Println(err)
			return
		}
		a, err := auth.New(auth.Config{
			Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
			Secrets: [][]byte{secret},
			Users:   exampleUsers{},
			Store:   store,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		ctx, stop := context.WithCancel(context.Background())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			_ = a.Run(ctx)
		}()
		<-a.Ready()

		if refreshToken == "" {
			tokens, err := a.StartSession(ctx, "ada", auth.SessionOptions{})
			fmt.Println("signed in", err)
			refreshToken = tokens.Refresh
		} else {
			_, err := a.Refresh(ctx, refreshToken, auth.RefreshOptions{})
			fmt.Println("refreshed", err)
		}
		stop()
		<-stopped
		fmt.Println("closed", store.Close())
	}
	// Output:
	// signed in <nil>
	// closed <nil>
	// refreshed <nil>
	// closed <nil>
}

// exampleUsers is a user lookup in which every ID is a user.
type exampleUsers struct{}

func (exampleUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (exampleUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}
