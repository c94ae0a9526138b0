package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/redisstore"
)

// noUsers is an [auth.Users] without users; an application has its own.
type noUsers struct{}

func (noUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (noUsers) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

// A server that stores its sessions in Redis.
func Example() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"localhost:6379"}, // several addresses: a Cluster
		ContextTimeoutEnabled: true,                       // required
	})
	defer client.Close()
	onEvent := auth.LogEvents(slog.Default())
	store, err := redisstore.New(client, redisstore.Config{OnEvent: onEvent})
	if err != nil {
		fmt.Println(err)
		return
	}

	secret := make([]byte, 32) // from the configuration
	_, _ = rand.Read(secret)
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		Secrets: [][]byte{secret},
		Users:   noUsers{},
		Store:   store,
		OnEvent: onEvent,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = a.Run(ctx) }() // applies revocations that other processes publish
}
