package pgstore_test

import (
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
)

// earlier is a node of an earlier version, which creates the tables.
const earlier = `package main

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/pgstore"
)

func main() {
	faults.Main(nil, func(dsn string) (auth.Store, error) {
		pool, err := pgxpool.New(context.Background(), dsn)
		if err != nil {
			return nil, err
		}
		s, err := pgstore.New(pool, pgstore.Config{})
		if err != nil {
			return nil, err
		}
		return s, s.Migrate(context.Background())
	})
}
`

func TestMigrate_WorksBesideAnEarlierVersion(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	faults.Upgrade(t, "pgstore", earlier, faultsBackend().DSN(server.Addr), func() auth.Store { return open(t, pool(t, server.Addr), pgstore.Config{}) })
}
