package secrets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

// openers open an empty store. dump returns everything that is in it.
var openers = map[string]func(t *testing.T) (s auth.Store, dump func() string){
	"Memory": func(*testing.T) (auth.Store, func() string) {
		s := auth.NewMemoryStore()
		return s, func() string { return fmt.Sprintf("%v %+v %#v\n", s, s, s) + deep(s) }
	},
	"SQLite": func(t *testing.T) (auth.Store, func() string) {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		s, err := sqlitestore.Open(filepath.Join(dir, "sessions.db"), sqlitestore.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s, func() string {
			var all strings.Builder
			files, err := os.ReadDir(dir) // also the log, which is not yet in the database
			require.NoError(t, err)
			for _, f := range files {
				content, err := os.ReadFile(filepath.Join(dir, f.Name()))
				require.NoError(t, err)
				all.Write(content)
			}
			return all.String()
		}
	},
	"Redis": func(t *testing.T) (auth.Store, func() string) {
		client := redis.NewClient(&redis.Options{Addr: testserver.Redis(t).Addr, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = client.Close() })
		s, err := redisstore.New(client, redisstore.Config{})
		require.NoError(t, err)
		return s, func() string { return dumpRedis(t, client) }
	},
	"PostgreSQL": func(t *testing.T) (auth.Store, func() string) {
		ctx := context.Background()
		pool, err := pgxpool.New(ctx, "postgres://postgres@"+testserver.Postgres(t).Addr+"/postgres?sslmode=disable")
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		s, err := pgstore.New(pool, pgstore.Config{})
		require.NoError(t, err)
		require.NoError(t, s.Migrate(ctx))
		return s, func() string { return dumpPostgres(t, pool) }
	},
}

// dumpRedis returns all keys and values.
func dumpRedis(t *testing.T, client *redis.Client) string {
	ctx := context.Background()
	var all strings.Builder
	keys, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		kind, err := client.Type(ctx, key).Result()
		require.NoError(t, err)
		var command []any
		switch kind {
		case "string":
			command = []any{"GET", key}
		case "hash":
			command = []any{"HGETALL", key}
		case "list":
			command = []any{"LRANGE", key, 0, -1}
		case "set":
			command = []any{"SMEMBERS", key}
		case "zset":
			command = []any{"ZRANGE", key, 0, -1}
		case "stream":
			command = []any{"XRANGE", key, "-", "+"}
		default:
			require.Fail(t, "a key of another type", kind)
		}
		value, err := client.Do(ctx, command...).Result()
		if err != redis.Nil { // the key may have expired
			require.NoError(t, err)
		}
		all.WriteString(key + "\n" + deep(value))
	}
	return all.String()
}

// dumpPostgres returns all rows of all tables.
func dumpPostgres(t *testing.T, pool *pgxpool.Pool) string {
	ctx := context.Background()
	texts := func(query string) (list []string) {
		rows, err := pool.Query(ctx, query)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var s string
			require.NoError(t, rows.Scan(&s))
			list = append(list, s)
		}
		require.NoError(t, rows.Err())
		return list
	}
	var all []string
	for _, table := range texts(`SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_catalog.pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`) {
		all = append(all, table)
		all = append(all, texts("SELECT x::text FROM "+table+" AS x")...)
	}
	return strings.Join(all, "\n")
}
