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

// nobody is a user lookup; an application has its own.
type nobody struct{}

func (nobody) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (nobody) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

// A server that keeps its sessions on Redis.
func Example() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"localhost:6379"}, // several: a Cluster
		ContextTimeoutEnabled: true,                       // a deadline counts
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
		Users:   nobody{},
		Store:   store,
		OnEvent: onEvent,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = a.Run(ctx) }() // hears of revocations in other processes
}
