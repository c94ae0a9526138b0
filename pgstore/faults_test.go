package pgstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
)

// TestMain is also the main function of the nodes that package faults starts.
func TestMain(m *testing.M) {
	faults.Main(m, func(dsn string) (auth.Store, error) {
		pool, err := pgxpool.New(context.Background(), dsn)
		if err != nil {
			return nil, err
		}
		return pgstore.New(pool, pgstore.Config{})
	})
}

func faultsBackend(args ...string) faults.Backend {
	dsn := func(addr string) string {
		return "postgres://postgres@" + addr + "/postgres?sslmode=disable&pool_max_conns=10&connect_timeout=2"
	}
	return faults.Backend{
		Start: func(tb testing.TB) *testserver.Process { return testserver.Postgres(tb, args...) },
		DSN:   dsn,
		Prepare: func(tb testing.TB, addr string) {
			pool, err := pgxpool.New(context.Background(), dsn(addr))
			require.NoError(tb, err)
			defer pool.Close()
			s, err := pgstore.New(pool, pgstore.Config{})
			require.NoError(tb, err)
			require.NoError(tb, s.Migrate(context.Background()))
		},
		MaxConns: 10,
	}
}

func TestFaults(t *testing.T) { faults.Run(t, faultsBackend()) }

// TestFaults_BackendsTerminated repeatedly terminates the backends of the nodes.
func TestFaults_BackendsTerminated(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	faults.Disturb(t, faultsBackend(), func(addr string, over <-chan struct{}) {
		conn, err := pgx.Connect(context.Background(), "postgres://postgres@"+addr+"/postgres?sslmode=disable")
		require.NoError(t, err)
		defer conn.Close(context.Background())
		for {
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
				_, err := conn.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = 'postgres' AND pid <> pg_backend_pid() AND random() < 0.5`)
				require.NoError(t, err)
			}
		}
	})
}

// TestFaults_Serializable plays with the strictest isolation, which makes the
// server refuse what runs at the same time.
func TestFaults_Serializable(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: kills and pauses processes")
	}
	b := faultsBackend("-c", "default_transaction_isolation=serializable")
	faults.Disturb(t, b, func(_ string, over <-chan struct{}) { <-over })
}
