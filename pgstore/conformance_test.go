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

// conformanceServer returns a server for the kit. What that tests does not
// depend on what reaches the disk.
func conformanceServer(t *testing.T) *testserver.Process {
	return testserver.Postgres(t, "-c", "fsync=off", "-c", "max_connections=400")
}

// run plays the whole kit. Every case has a schema, every node a pool of its
// own.
func run(t *testing.T, addr string, poll time.Duration, change ...func(*pgxpool.Config)) {
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		schema := place()
		return func() auth.Store {
			return open(t, pool(t, addr, append(change, conns(4))...), pgstore.Config{Schema: schema, Poll: poll})
		}
	})
}

func TestStore_Conformance(t *testing.T) {
	t.Parallel()
	run(t, conformanceServer(t).Addr, 0)
}

// TestStore_ConformanceVariants plays the kit in other ways in which a server
// is used, with AUTH_LONG=1 in two more, and never in long rounds: one of them
// suffices.
func TestStore_ConformanceVariants(t *testing.T) {
	long := os.Getenv("AUTH_LONG") == "1"
	t.Setenv("AUTH_LONG", "")
	server := conformanceServer(t)
	t.Run("Serializable", func(t *testing.T) {
		t.Parallel()
		run(t, server.Addr, 0, isolation("serializable"))
	})
	bouncer := testserver.PgBouncer(t, server.Addr)
	t.Run("PgBouncer", func(t *testing.T) {
		t.Parallel()
		run(t, bouncer.Addr, 20*time.Millisecond, mode(pgx.QueryExecModeExec))
	})
	if !long {
		return
	}
	t.Run("RepeatableRead", func(t *testing.T) {
		t.Parallel()
		run(t, server.Addr, 0, isolation("repeatable read"))
	})
	t.Run("Polling", func(t *testing.T) {
		t.Parallel()
		run(t, server.Addr, 20*time.Millisecond, mode(pgx.QueryExecModeSimpleProtocol), func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["timezone"] = "America/St_Johns"
		})
	})
}
