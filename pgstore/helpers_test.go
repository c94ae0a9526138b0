package pgstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
)

// names counts the schemas and databases that tests have created.
var names atomic.Int64

// uniqueName returns a name that no test has used.
func uniqueName() string { return fmt.Sprintf("name_%d", names.Add(1)) }

// pool returns a pool for the database "postgres" of the server at addr, with the
// given changes to its configuration.
func pool(t testing.TB, addr string, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig("postgres://postgres@" + addr + "/postgres?sslmode=disable&pool_max_conns=8")
	require.NoError(t, err)
	for _, change := range change {
		change(c)
	}
	p, err := pgxpool.NewWithConfig(context.Background(), c)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// isolation sets the default isolation level of a pool.
func isolation(level string) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level }
}

// mode sets the query mode of a pool.
func mode(m pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = m }
}

// conns sets the maximum size of a pool.
func conns(n int32) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.MaxConns = n }
}

// open returns a store and creates its tables.
func open(t testing.TB, p *pgxpool.Pool, c pgstore.Config) *pgstore.Store {
	t.Helper()
	st, err := pgstore.New(p, c)
	require.NoError(t, err)
	require.NoError(t, st.Migrate(t.Context()))
	return st
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func session(subject, id string) auth.Session {
	at := now()
	return auth.Session{
		ID: id, Subject: subject, Generation: 1,
		CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(time.Hour),
		Device: auth.Device{UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
	}
}

// rotation returns the change that a refresh makes now.
func rotation() auth.Rotation {
	at := now()
	return auth.Rotation{At: at, NotAfter: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour)}
}

// expire returns a revocation of the access tokens of a subject.
func expire(subject string) auth.Revocation {
	return auth.Revocation{Subject: subject, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
}

func subjects(rs []auth.Revocation) []string {
	list := []string{}
	for _, r := range rs {
		list = append(list, r.Subject)
	}
	return list
}

// begin begins a transaction, which is rolled back before the pool is closed.
func begin(t testing.TB, p *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := p.Begin(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// waiting waits until a backend waits for a lock.
func waiting(t testing.TB, p *pgxpool.Pool) {
	t.Helper()
	require.Eventually(t, func() bool {
		return scan[int](t, p, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`) > 0
	}, 10*time.Second, time.Millisecond)
}

// scan returns the value of a query with one row and one column.
func scan[T any](t testing.TB, p *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, p.QueryRow(context.Background(), sql, args...).Scan(&v))
	return v
}

func exec(t testing.TB, p *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := p.Exec(context.Background(), sql, args...)
	require.NoError(t, err)
}

// rotateFrom returns r with From set to generation.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
