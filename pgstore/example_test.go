package pgstore_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
)

// A server that stores its sessions in PostgreSQL.
func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	store, err := pgstore.New(pool, pgstore.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := store.Migrate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		Secrets: [][]byte{[]byte(os.Getenv("AUTH_SECRET"))},
		Users:   users{},
		Store:   store,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = a.Run(ctx) }() // applies revocations that other processes publish
}

// users is an [auth.Users] without users; an application has its own.
type users struct{}

func (users) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (users) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}
