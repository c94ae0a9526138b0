package pgstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/storetest"
)

// TestStore_Conformance plays the whole kit in each of the ways in which a
// server is used, with AUTH_LONG=1 in two more. Every case has a schema, every
// node a pool of its own.
func TestStore_Conformance(t *testing.T) {
	t.Parallel()
	// What is tested here does not depend on what reaches the disk.
	server := testserver.Postgres(t, "-c", "fsync=off", "-c", "max_connections=400")
	run := func(t *testing.T, addr string, poll time.Duration, change ...func(*pgxpool.Config)) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) func() auth.Store {
			schema := place()
			return func() auth.Store {
				return open(t, pool(t, addr, append(change, conns(4))...), pgstore.Config{Schema: schema, Poll: poll})
			}
		})
	}
	t.Run("Listening", func(t *testing.T) { run(t, server.Addr, 0) })
	t.Run("Serializable", func(t *testing.T) { run(t, server.Addr, 0, isolation("serializable")) })
	bouncer := testserver.PgBouncer(t, server.Addr)
	t.Run("PgBouncer", func(t *testing.T) {
		run(t, bouncer.Addr, 20*time.Millisecond, mode(pgx.QueryExecModeExec))
	})
	if os.Getenv("AUTH_LONG") != "1" {
		return
	}
	t.Run("RepeatableRead", func(t *testing.T) { run(t, server.Addr, 0, isolation("repeatable read")) })
	t.Run("Polling", func(t *testing.T) {
		run(t, server.Addr, 20*time.Millisecond, mode(pgx.QueryExecModeSimpleProtocol), func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["timezone"] = "America/St_Johns"
		})
	})
}
