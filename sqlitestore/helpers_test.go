package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

func open(t testing.TB, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(path, sqlitestore.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func device(n int) auth.Device {
	return auth.Device{
		UserAgent: fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 %d", n),
		IP:        netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
	}
}

func session(subject, id string) auth.Session {
	at := now()
	return auth.Session{
		ID: id, Subject: subject, Generation: 1, CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
		Device: device(0), Opaque: []byte("laptop"),
	}
}

func use(n int) auth.Rotation {
	at := now()
	return auth.Rotation{At: at, NotAfter: at.Add(time.Hour), ExpiresAt: at.Add(24 * time.Hour), Device: device(n)}
}

func revocation(subject string, ids ...string) auth.Revocation {
	return auth.Revocation{Subject: subject, Sessions: ids, Until: now().Add(10 * time.Minute)}
}

// together calls f(0) to f(n-1) concurrently.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// spends counts the calls of Spend, each of which has an ID of its own.
var spends atomic.Int64

// calls returns a call of each method of a store.
func calls(s *sqlitestore.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { return s.Create(ctx, session("ada", "new")) },
		"Get":    func(ctx context.Context) error { _, err := s.Get(ctx, "ada", "one"); return err },
		"List":   func(ctx context.Context) error { _, err := s.List(ctx, "ada"); return err },
		"Rotate": func(ctx context.Context) error {
			_, _, err := s.Rotate(ctx, "ada", "one", rotateFrom(1<<40, use(1)))
			return err
		},
		"Revoke": func(ctx context.Context) error { return s.Revoke(ctx, revocation("ada", "none")) },
		"Spend": func(ctx context.Context) error {
			return s.Spend(ctx, "ada", fmt.Sprint(spends.Add(1)), now().Add(time.Hour))
		},
		"Changes": func(ctx context.Context) error {
			_, _, _, err := s.Changes(ctx, "", 0)
			return err
		},
	}
}

// raw opens the file without this package.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	return db
}

func execute(t testing.TB, path string, queries ...string) {
	t.Helper()
	db := raw(t, path)
	for _, q := range queries {
		_, err := db.Exec(q)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
}

func count(t testing.TB, path, table string) (n int) {
	t.Helper()
	db := raw(t, path)
	require.NoError(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	require.NoError(t, db.Close())
	return n
}

// lock waits for SQLite's write lock and takes it until unlock is called.
func lock(t testing.TB, path string) (unlock func()) {
	t.Helper()
	db := raw(t, path)
	conn, err := db.Conn(context.Background())
	require.NoError(t, err)
	for {
		_, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE")
		if err == nil {
			break
		}
		require.ErrorContains(t, err, "locked")
	}
	return func() {
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
	}
}

// rotateFrom returns r with From set to generation.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
