package bench

import (
	"context"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

func redisStore(tb testing.TB, addr string) auth.Store {
	tb.Helper()
	s, err := redisstore.New(redisClient(tb, addr), redisstore.Config{})
	must(err)
	return s
}

func postgresStore(tb testing.TB, addr string) auth.Store {
	tb.Helper()
	s, err := pgstore.New(postgresPool(tb, addr), pgstore.Config{})
	must(err)
	must(s.Migrate(context.Background()))
	return s
}

func sqliteStore(tb testing.TB, file string) auth.Store {
	tb.Helper()
	s, err := sqlitestore.Open(file, sqlitestore.Config{})
	must(err)
	tb.Cleanup(func() { must(s.Close()) })
	return s
}
