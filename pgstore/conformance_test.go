package pgstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/storetest"
)

// conformanceServer returns a server for the conformance kit, without fsync:
// the kit does not test durability.
func conformanceServer(t *testing.T) *testserver.Process {
	return testserver.Postgres(t, "-c", "fsync=off", "-c", "max_connections=400")
}

// run runs the whole conformance kit. Every case has its own schema, and every
// node its own pool.
func run(t *testing.T, addr string, poll time.Duration, change ...func(*pgxpool.Config)) {
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		schema := uniqueName()
		return func() auth.Store {
			return open(t, pool(t, addr, append(change, conns(4))...), pgstore.Config{Schema: schema, Poll: poll})
		}
	})
}

func TestStore_Conformance(t *testing.T) {
	t.Parallel()
	run(t, conformanceServer(t).Addr, 0)
}

// TestStore_ConformanceVariants runs the kit with other isolation levels and
// query modes and through PgBouncer. The tests of settings and of the feed do
// so without AUTH_LONG=1. It never runs the long rounds, for which
// TestStore_Conformance suffices.
func TestStore_ConformanceVariants(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
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

func TestStore_CarriesTheReasonOfATheft(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts two nodes")
	}
	t.Parallel()
	server, schema := conformanceServer(t), uniqueName()
	faults.Theft(t, func() auth.Store { return open(t, pool(t, server.Addr), pgstore.Config{Schema: schema}) })
}
