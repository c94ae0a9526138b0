package bench

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// store is a place for sessions, with the libraries that can use it.
type store struct {
	name  string
	start func(testing.TB) (addr string)                // starts a server and returns its address
	open  func(tb testing.TB, addr string) []*refresher // returns the libraries, set up for the server
	ping  func(tb testing.TB, addr string) func()       // returns a function that pings the server; nil without a server
}

var stores = []store{
	{name: "memory", start: func(testing.TB) string { return "" }, open: inMemory},
	{name: "redis", start: startRedis, open: onRedis, ping: pingRedis},
	{name: "postgres", start: startPostgres, open: onPostgres, ping: pingPostgres},
	{name: "postgres-async", start: startPostgresAsync, open: onPostgres, ping: pingPostgres},
	{name: "sqlite", start: startSQLite, open: onSQLite},
}

func inMemory(tb testing.TB, _ string) []*refresher {
	return []*refresher{bareMemory(), refreshRatchet(nil), cooldown(), refreshGinJWT(tb, ""), refreshFosite(), refreshGoOAuth2(":memory:")}
}

// startRedis starts Redis with an append-only file that is synced every second.
func startRedis(tb testing.TB) string { return testserver.Redis(tb).Addr }

func redisClient(tb testing.TB, addr string) *redis.Client {
	tb.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func onRedis(tb testing.TB, addr string) []*refresher {
	return []*refresher{bareRedis(tb, addr), refreshRatchet(redisStore(tb, addr)), refreshGinJWT(tb, addr)}
}

// casScript compares and swaps a field of a hash.
var casScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1`)

// bareRecord returns the session record of the bare handlers, which is about as
// long as a real one.
func bareRecord(generation int64) string {
	return strconv.FormatInt(generation, 10) + " 1764000000000 1764000000000 1764600000000 192.0.2.1 " + browser
}

func bareRedis(tb testing.TB, addr string) *refresher {
	c := redisClient(tb, addr)
	ctx := context.Background()
	return bare(
		func(id string) { must(c.HSet(ctx, "floor:{"+id+"}", "session", bareRecord(1)).Err()) },
		func(ctx context.Context, id string, generation int64) error {
			n, err := casScript.Run(ctx, c, []string{"floor:{" + id + "}"}, "session", bareRecord(generation), bareRecord(generation+1)).Int()
			if err == nil && n != 1 {
				err = errTaken
			}
			return err
		})
}

func pingRedis(tb testing.TB, addr string) func() {
	c := redisClient(tb, addr)
	return func() { must(c.Ping(context.Background()).Err()) }
}

// redisCalls returns a function that returns the number of commands so far by
// name, including those that scripts call.
func redisCalls(tb testing.TB, addr string) func() map[string]int {
	c := redisClient(tb, addr)
	return func() map[string]int {
		info, err := c.Info(context.Background(), "commandstats").Result()
		must(err)
		n := map[string]int{}
		for line := range strings.Lines(info) {
			name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			calls, _, _ := strings.Cut(rest, ",")
			if ok && name != "info" {
				n[name], err = strconv.Atoi(calls)
				must(err)
			}
		}
		return n
	}
}

// startPostgres starts PostgreSQL with its default settings: a commit returns
// after it was written to disk.
func startPostgres(tb testing.TB) string { return testserver.Postgres(tb).Addr }

// startPostgresAsync starts PostgreSQL so that a commit returns before it was
// written to disk, which shows the other costs of a refresh.
func startPostgresAsync(tb testing.TB) string {
	return testserver.Postgres(tb, "-c", "synchronous_commit=off").Addr
}

// startPostgresCounting starts PostgreSQL with pg_stat_statements.
func startPostgresCounting(tb testing.TB) string {
	return testserver.Postgres(tb, "-c", "shared_preload_libraries=pg_stat_statements").Addr
}

func postgresPool(tb testing.TB, addr string) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig("postgres://postgres@" + addr + "/postgres?sslmode=disable&pool_max_conns=16")
	must(err)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	must(err)
	tb.Cleanup(pool.Close)
	return pool
}

func onPostgres(tb testing.TB, addr string) []*refresher {
	return []*refresher{barePostgres(tb, addr), refreshRatchet(postgresStore(tb, addr))}
}

func barePostgres(tb testing.TB, addr string) *refresher {
	pool := postgresPool(tb, addr)
	ctx := context.Background()
	_, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS floor (id text PRIMARY KEY, generation bigint NOT NULL, record text NOT NULL)`)
	must(err)
	return bare(
		func(id string) {
			_, err := pool.Exec(ctx, `INSERT INTO floor VALUES ($1, 1, $2)`, id, bareRecord(1))
			must(err)
		},
		func(ctx context.Context, id string, generation int64) error {
			var now int64
			err := pool.QueryRow(ctx, `UPDATE floor SET generation = generation + 1, record = $3 WHERE id = $1 AND generation = $2 RETURNING generation`,
				id, generation, bareRecord(generation+1)).Scan(&now)
			if errors.Is(err, pgx.ErrNoRows) {
				err = errTaken
			}
			return err
		})
}

func pingPostgres(tb testing.TB, addr string) func() {
	pool := postgresPool(tb, addr)
	return func() { must(pool.Ping(context.Background())) }
}

// postgresCalls returns a function that returns the number of statements so far
// by their text.
func postgresCalls(tb testing.TB, addr string) func() map[string]int {
	pool := postgresPool(tb, addr)
	ctx := context.Background()
	_, err := pool.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
	must(err)
	return func() map[string]int {
		rows, err := pool.Query(ctx, `SELECT query, sum(calls)::bigint FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' GROUP BY query`)
		must(err)
		n := map[string]int{}
		var text string
		var calls int
		_, err = pgx.ForEachRow(rows, []any{&text, &calls}, func() error { n[text] = calls; return nil })
		must(err)
		return n
	}
}

// startSQLite returns the name of a new file, since SQLite has no server.
func startSQLite(tb testing.TB) string { return tb.TempDir() + "/sessions.db" }

func onSQLite(tb testing.TB, file string) []*refresher {
	return []*refresher{refreshRatchet(sqliteStore(tb, file))}
}

// proxy forwards connections to a server and counts round trips: how often a
// client sends after it received a response.
type proxy struct {
	addr  string
	waits atomic.Int64
}

func newProxy(tb testing.TB, target string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	w := &proxy{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.forward(client, target) })
		}
	})
	tb.Cleanup(func() { _ = l.Close() }) // the connections end with the clients and the server
	return w
}

func (w *proxy) forward(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	var responded atomic.Bool
	responded.Store(true)
	pass := func(to, from net.Conn, seen func()) {
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if n > 0 {
				seen()
				if _, err := to.Write(b[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_, _ = to.Close(), from.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		pass(server, client, func() {
			if responded.Swap(false) {
				w.waits.Add(1)
			}
		})
	})
	wg.Go(func() { pass(client, server, func() { responded.Store(true) }) })
	wg.Wait()
}
