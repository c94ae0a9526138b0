package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

// openStore opens the store that all nodes share. Keep the one that you use: each
// is a module of its own.
func openStore(ctx context.Context, where string) (store auth.Store, closeStore func(), err error) {
	scheme, _, isURL := strings.Cut(where, "://")
	switch {
	case !isURL:
		s, err := sqlitestore.Open(where, sqlitestore.Config{})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { _ = s.Close() }, nil
	case strings.HasPrefix(scheme, "redis"):
		o, err := redis.ParseURL(where)
		if err != nil {
			return nil, nil, err
		}
		o.ContextTimeoutEnabled = true // so that Config.StoreTimeout limits each command
		client := redis.NewClient(o)
		s, err := redisstore.New(client, redisstore.Config{})
		return s, func() { _ = client.Close() }, err
	}
	pool, err := pgxpool.New(ctx, where)
	if err != nil {
		return nil, nil, err
	}
	s, err := pgstore.New(pool, pgstore.Config{})
	if err == nil {
		err = s.Migrate(ctx) // creates the tables; the nodes take turns
	}
	return s, pool.Close, err
}
