package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
)

// fill inserts n sessions of n subjects, of realistic sizes, and n revocations.
func fill(t testing.TB, p *pgxpool.Pool, schema string, n int) {
	t.Helper()
	exec(t, p, `INSERT INTO `+schema+`.sessions
		SELECT 1, now(), now(), now() + interval '7 days', md5(i::text)::uuid, 'id-' || lpad(i::text, 19, '0'),
			'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', '203.0.113.7', ''
		FROM generate_series(1, $1::int) AS i ORDER BY random()`, n)
	for range 20 {
		exec(t, p, `INSERT INTO `+schema+`.revocations (until, all_sessions, subject, sessions, except_ids)
			SELECT now() + interval '10 minutes', false, i::text, '{}', '{}' FROM generate_series(1, $1::int) AS i`, n/20)
	}
	exec(t, p, `INSERT INTO `+schema+`.spent SELECT now() + interval '1 hour', i, 'ada', i FROM generate_series(1, $1::int) AS i`, n)
	exec(t, p, `VACUUM ANALYZE `+schema+`.spent`)
	exec(t, p, `VACUUM ANALYZE `+schema+`.sessions`)
	exec(t, p, `VACUUM ANALYZE `+schema+`.revocations`)
}

// TestStore_OnServer has the tests that need a server without autovacuum and with
// statistics of its own.
func TestStore_OnServer(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: fills tables")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off", "-c", "autovacuum=off", "-c", "shared_preload_libraries=pg_stat_statements")
	exec(t, pool(t, server.Addr), `CREATE EXTENSION pg_stat_statements`)

	// Custom plans and generic plans, which do not depend on the parameters.
	t.Run("StatementsUseTheIndexes", func(t *testing.T) {
		schema := uniqueName()
		p := pool(t, server.Addr)
		st := open(t, p, pgstore.Config{Schema: schema})
		fill(t, p, schema, 20_000)
		position := scan[string](t, p, `SELECT pg_current_snapshot()::text`)
		arguments := map[string]string{
			"create":    `'ada', 'one', 1, '2026-01-01', '2026-01-01', '2026-01-01', '', NULL, '', '', ''`,
			"get":       `'ada', 'one'`,
			"rotate":    `'ada', 'one', 1, '2026-01-01', '2026-01-01', '2026-01-01', '', NULL, '', '', '', ''`,
			"list":      `'ada'`,
			"revoke":    `'ada', '{one}', true, '{two}', '2026-01-01', '2026-01-01', '', 0, 'reuse'`,
			"spend":     `'ada', 'one', '2026-01-01', 1`,
			"spentBy":   `'ada', 'one'`,
			"feedAll":   "NULL, '0', 0, 1001",
			"feedAfter": "NULL, '0', 0, 1001, '" + position + "'",
		}
		uses := map[string][]string{
			"create":    {"Tid Scan on sessions"},
			"get":       {"sessions_pkey"},
			"rotate":    {"sessions_pkey"},
			"list":      {"sessions_pkey"},
			"revoke":    {"sessions_pkey", "revocations_until", "revocations_pkey"},
			"spend":     {"spent_until", "Tid Scan on spent"},
			"spentBy":   {"spent_pkey"},
			"feedAll":   {"revocations_xid_id"},
			"feedAfter": {"revocations_xid_id"},
		}
		for _, plan := range []string{"force_custom_plan", "force_generic_plan"} {
			conn, err := p.Acquire(t.Context())
			require.NoError(t, err)
			t.Cleanup(conn.Release)
			do := func(sql string) string {
				results, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
				require.NoError(t, err, sql)
				var lines []string
				for _, row := range results[0].Rows {
					lines = append(lines, string(row[0]))
				}
				return strings.Join(lines, "\n")
			}
			do(`SET plan_cache_mode = ` + plan)
			for name, sql := range st.Statements() {
				call := ""
				if arguments[name] != "" {
					call = "(" + arguments[name] + ")"
				}
				do(`PREPARE p_` + name + ` AS ` + sql)
				explained := do(`EXPLAIN EXECUTE p_` + name + call)
				do(`DEALLOCATE p_` + name)
				for _, index := range uses[name] {
					require.Contains(t, explained, index, "%s, %s", name, plan)
				}
				require.NotContains(t, explained, "Seq Scan on sessions", "%s, %s", name, plan)
				require.NotContains(t, explained, "Seq Scan on revocations", "%s, %s", name, plan)
				require.NotContains(t, explained, "Seq Scan on spent", "%s, %s", name, plan)
			}
		}
	})

	t.Run("CallsAreOneStatement", func(t *testing.T) {
		schema := uniqueName()
		p := pool(t, server.Addr)
		st := open(t, p, pgstore.Config{Schema: schema})
		calls := func(what string, each int, call func()) {
			t.Helper()
			call() // prepares the statement
			exec(t, p, `SELECT pg_stat_statements_reset()`)
			for range 10 {
				call()
			}
			got := scan[int](t, p, `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`)
			require.Equal(t, 10*each, got, what)
		}
		n := 0
		calls("Create", 1, func() {
			n++
			require.NoError(t, st.Create(t.Context(), session("ada", fmt.Sprint(n))))
		})
		generation := int64(0)
		calls("Rotate", 1, func() {
			generation++
			_, rotated, err := st.Rotate(t.Context(), "ada", "1", rotateFrom(generation, rotation()))
			require.NoError(t, err)
			require.True(t, rotated)
		})
		calls("Rotate that changes nothing", 2, func() {
			tooEarly := rotation()
			tooEarly.NotAfter = now().Add(-time.Hour)
			_, rotated, err := st.Rotate(t.Context(), "ada", "1", rotateFrom(generation+1, tooEarly))
			require.NoError(t, err)
			require.False(t, rotated)
		})
		calls("Get", 1, func() {
			_, err := st.Get(t.Context(), "ada", "1")
			require.NoError(t, err)
		})
		calls("List", 1, func() {
			_, err := st.List(t.Context(), "ada")
			require.NoError(t, err)
		})
		calls("Revoke", 1, func() { require.NoError(t, st.Revoke(t.Context(), expire("ada"))) })
		calls("Changes", 1, func() { changes(t, st, "", 0) })
		calls("Spend", 1, func() {
			n++
			require.NoError(t, st.Spend(t.Context(), "ada", fmt.Sprint(n), now()))
		})
		calls("Spend again", 2, func() { require.ErrorIs(t, st.Spend(t.Context(), "ada", fmt.Sprint(n), now()), auth.ErrSpent) })

		// Polling never listens.
		polls := open(t, p, pgstore.Config{Schema: schema, Poll: 10 * time.Millisecond})
		_, next := changes(t, polls, "", 0)
		exec(t, p, `SELECT pg_stat_statements_reset()`)
		changes(t, polls, next, 30*time.Millisecond)
		const listens = `SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'LISTEN%'`
		require.Zero(t, scan[int](t, p, listens))
		changes(t, st, next, 30*time.Millisecond)
		require.NotZero(t, scan[int](t, p, listens))
	})

	t.Run("RotateThatChangesNothingWritesNothing", func(t *testing.T) {
		p := pool(t, server.Addr)
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		require.NoError(t, st.Create(t.Context(), session("ada", "one")))
		_, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(1, rotation()))
		require.NoError(t, err)
		require.True(t, rotated)
		const transactions = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`
		before := scan[string](t, p, transactions)
		tooEarly := rotation()
		tooEarly.NotAfter = now().Add(-time.Hour)
		for _, from := range []int64{1, 2} { // a retry, and a session within its cooldown
			_, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(from, tooEarly))
			require.NoError(t, err)
			require.False(t, rotated)
		}
		_, _, err = st.Rotate(t.Context(), "ada", "two", rotateFrom(1, tooEarly))
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		require.Equal(t, before, scan[string](t, p, transactions))
	})

	t.Run("RotationsAreHeapOnly", func(t *testing.T) {
		if testing.Short() {
			t.Skip("skipped by -short: writes thousands of sessions")
		}
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		const n, rounds = 2000, 5
		fill(t, p, schema, n)
		size := func() int { return scan[int](t, p, `SELECT pg_total_relation_size('`+schema+`.sessions')`) }
		before := size()
		rows, err := p.Query(t.Context(), `SELECT subject, id FROM `+schema+`.sessions`)
		require.NoError(t, err)
		type name struct{ Subject, ID string }
		names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[name])
		require.NoError(t, err)
		// Sequentially: the space of a row version can be reused only when no
		// running transaction can see it.
		for i := range rounds * n {
			k := names[rand.N(n)]
			_, rotated, err := st.Rotate(t.Context(), k.Subject, k.ID, rotateFrom(int64(i)+2, rotation()))
			require.NoError(t, err)
			require.True(t, rotated)
		}
		p.Reset() // connections report their statistics when they are closed
		var all, hot float64
		require.Eventually(t, func() bool {
			err := p.QueryRow(context.Background(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
				WHERE schemaname = $1 AND relname = 'sessions'`, schema).Scan(&all, &hot)
			return err == nil && all >= rounds*n*9/10
		}, 20*time.Second, 50*time.Millisecond)
		t.Logf("%d sessions: %d bytes each in table and index; after %.0f rotations %d bytes; %.1f %% of the rotations updated no index",
			n, before/n, all, size()/n, 100*hot/all)
		require.Greater(t, hot/all, 0.99)
		require.Less(t, size(), before*11/10)
	})

	t.Run("GrowthIsBoundedByLiveSessions", func(t *testing.T) {
		if testing.Short() {
			t.Skip("skipped by -short: writes thousands of sessions")
		}
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		const live, expired = 1000, 3000
		for i := range live {
			require.NoError(t, st.Create(t.Context(), session("live", fmt.Sprint(i))))
		}
		most := 0
		for i := range expired {
			s := session("expired", fmt.Sprint(i))
			s.ExpiresAt = now().Add(-61 * time.Second)
			require.NoError(t, st.Create(t.Context(), s))
			if i%200 == 199 {
				exec(t, p, `VACUUM `+schema+`.sessions`) // as autovacuum does
				most = max(most, scan[int](t, p, `SELECT count(*) FROM `+schema+`.sessions WHERE subject = 'expired'`))
			}
		}
		list, err := st.List(t.Context(), "live")
		require.NoError(t, err)
		require.Len(t, list, live)
		t.Logf("%d live sessions, %d that expired at once: at most %d of the latter existed at a time", live, expired, most)
		require.Less(t, most, live/4)
	})

	t.Run("ExpiredAreKeptForAMinute", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		// In this order, since each Create deletes earlier sessions.
		for _, age := range []time.Duration{50 * time.Second, 70 * time.Second} {
			s := session("ada", age.String())
			s.ExpiresAt = now().Add(-age)
			require.NoError(t, st.Create(t.Context(), s))
		}
		// A row that is locked is skipped without a wait.
		tx := begin(t, p)
		_, err := tx.Exec(t.Context(), `SELECT FROM `+schema+`.sessions WHERE id = '1m10s' FOR UPDATE`)
		require.NoError(t, err)
		require.NoError(t, st.Create(t.Context(), session("ada", "one")))
		_, err = st.Get(t.Context(), "ada", "1m10s")
		require.NoError(t, err)
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, st.Create(t.Context(), session("ada", "two"))) // there is only one page
		_, err = st.Get(t.Context(), "ada", "1m10s")
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		_, err = st.Get(t.Context(), "ada", "50s")
		require.NoError(t, err)

		// Also what was spent.
		until := map[string]time.Time{"50s": now().Add(-50 * time.Second), "70s": now().Add(-70 * time.Second)}
		for _, id := range []string{"50s", "70s"} {
			require.NoError(t, st.Spend(t.Context(), "ada", id, until[id]))
		}
		tx = begin(t, p)
		_, err = tx.Exec(t.Context(), `SELECT FROM `+schema+`.spent WHERE id = '70s' FOR UPDATE`)
		require.NoError(t, err)
		require.NoError(t, st.Spend(t.Context(), "ada", "one", now()))
		require.ErrorIs(t, st.Spend(t.Context(), "ada", "70s", now()), auth.ErrSpent)
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, st.Spend(t.Context(), "ada", "two", now()))
		require.NoError(t, st.Spend(t.Context(), "ada", "70s", now()))
		require.ErrorIs(t, st.Spend(t.Context(), "ada", "50s", now()), auth.ErrSpent)
	})

	t.Run("SpendDeletesMany", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `INSERT INTO `+schema+`.spent (until, nonce, subject, id)
			SELECT now() + CASE WHEN i <= 600 THEN interval '-1 hour' ELSE interval '1 hour' END, i, 'ada', i FROM generate_series(1, 1000) AS i`)
		for _, left := range []int{745, 490, 403, 404} { // each call adds one
			require.NoError(t, st.Spend(t.Context(), "ada", uniqueName(), now().Add(time.Hour)))
			require.Equal(t, left, scan[int](t, p, `SELECT count(*) FROM `+schema+`.spent`))
		}
	})

	t.Run("BrokenPooledConnectionIsReplaced", func(t *testing.T) {
		var kill atomic.Bool
		p := pool(t, server.Addr, func(c *pgxpool.Config) {
			c.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) {
				if kill.CompareAndSwap(true, false) {
					_ = conn.Close(context.Background())
				}
				return true, nil
			}
		})
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		require.NoError(t, st.Create(t.Context(), session("ada", "one")))
		kill.Store(true)
		_, err := st.Get(t.Context(), "ada", "one")
		require.NoError(t, err)
		kill.Store(true)
		_, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(1, rotation()))
		require.NoError(t, err)
		require.True(t, rotated)
	})

	t.Run("TerminatedBackendsAreErrors", func(t *testing.T) {
		p, admin := pool(t, server.Addr), pool(t, server.Addr)
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		const n = 8
		for i := range n {
			require.NoError(t, st.Create(t.Context(), session("ada", fmt.Sprint(i))))
		}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		var wg sync.WaitGroup
		var good, bad atomic.Int64
		decided := make(chan error, n+1)
		record := func(err error) {
			switch {
			case err == nil:
				good.Add(1)
			case errors.Is(err, auth.ErrSessionNotFound), errors.Is(err, auth.ErrSessionExists), errors.Is(err, auth.ErrFeedReset):
				decided <- err
				stop()
			default:
				bad.Add(1)
			}
		}
		last := make([]int64, n)
		for i := range n {
			wg.Go(func() {
				for from := int64(1); ctx.Err() == nil; {
					s, _, err := st.Rotate(ctx, "ada", fmt.Sprint(i), rotateFrom(from, rotation()))
					record(err)
					if err == nil {
						from, last[i] = s.Generation, s.Generation
					}
				}
			})
		}
		wg.Go(func() {
			for next := ""; ctx.Err() == nil; {
				_, to, _, err := st.Changes(ctx, next, time.Second)
				record(err)
				next = to
			}
		})
		for ctx.Err() == nil {
			_, _ = admin.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sessions%' AND pid <> pg_backend_pid()`)
			time.Sleep(20 * time.Millisecond)
		}
		wg.Wait()
		select {
		case err := <-decided:
			require.NoError(t, err, "a fault was reported as a result")
		default:
		}
		t.Logf("%d calls succeeded, %d failed", good.Load(), bad.Load())
		require.NotZero(t, bad.Load())
		require.Greater(t, good.Load(), int64(100))
		for i := range n { // no acknowledged write is lost, and calls succeed again
			require.Eventually(t, func() bool {
				s, err := st.Get(t.Context(), "ada", fmt.Sprint(i))
				return err == nil && s.Generation >= last[i]
			}, 10*time.Second, 10*time.Millisecond)
		}
		require.Eventually(t, func() bool { return p.Stat().AcquiredConns() == 0 }, 10*time.Second, 10*time.Millisecond)
	})
}

// TestWrite_WaitsForOutcomeAfterContextEnds ends the context while the
// statement waits in the server for another transaction.
func TestWrite_WaitsForOutcomeAfterContextEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	p := pool(t, server.Addr)
	st := open(t, p, pgstore.Config{Schema: "held"})
	require.NoError(t, st.Create(t.Context(), session("ada", "one")))
	hold := func() pgx.Tx {
		tx := begin(t, p)
		_, err := tx.Exec(t.Context(), `SELECT FROM held.sessions WHERE id = 'one' FOR UPDATE`)
		require.NoError(t, err)
		return tx
	}
	type outcome struct {
		rotated bool
		err     error
	}
	rotate := func(ctx context.Context) chan outcome {
		done := make(chan outcome, 1)
		go func() {
			_, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, rotation()))
			done <- outcome{rotated, err}
		}()
		return done
	}

	// The statement completes soon after the context has ended, which is the
	// result.
	tx := hold()
	ctx, cancel := context.WithCancel(t.Context())
	done := rotate(ctx)
	waiting(t, p)
	cancel()
	require.NoError(t, tx.Rollback(t.Context()))
	got := <-done
	require.NoError(t, got.err)
	require.True(t, got.rotated)

	// The statement does not complete: Rotate returns the error of the context
	// soon.
	tx = hold()
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := st.Rotate(ctx, "ada", "one", rotateFrom(2, rotation()))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, tx.Rollback(t.Context()))
}

// TestRotate_ResultIsSerializable creates and deletes the session between the
// statement that rotates it and the statement that reads it. The result must be
// that of some order of the calls.
func TestRotate_ResultIsSerializable(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	other := open(t, pool(t, server.Addr), pgstore.Config{})
	var statement func(n int) // called before the n-th statement
	n := 0
	p := pool(t, server.Addr, func(c *pgxpool.Config) {
		c.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
			n++
			statement(n)
			return true, nil
		}
	})
	st, err := pgstore.New(p, pgstore.Config{})
	require.NoError(t, err)
	created := func(id string) auth.Session {
		s := session("ada", id)
		require.NoError(t, other.Create(context.Background(), s))
		return s
	}

	statement = func(n int) {
		if n == 2 {
			created("one")
		}
	}
	s, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(1, rotation()))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, int64(2), s.Generation)

	// A session of a lower generation is rotated too.
	n = 0
	statement = func(n int) {
		if n == 2 {
			created("two")
		}
	}
	s, rotated, err = st.Rotate(t.Context(), "ada", "two", rotateFrom(5, rotation()))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, int64(5), s.Generation)

	// A session within its cooldown is not rotated, and no statement is repeated.
	n = 0
	statement = func(n int) {
		if n == 2 {
			created("three")
		}
	}
	tooEarly := rotation()
	tooEarly.NotAfter = now().Add(-time.Hour)
	s, rotated, err = st.Rotate(t.Context(), "ada", "three", rotateFrom(1, tooEarly))
	require.NoError(t, err)
	require.False(t, rotated)
	require.Equal(t, int64(1), s.Generation)
	require.Equal(t, 2, n)

	// Rotate gives up, and then the outcome is unknown.
	n = 0
	statement = func(n int) {
		if n%2 == 0 {
			created("four")
			return
		}
		require.NoError(t, other.Revoke(context.Background(), auth.Revocation{Subject: "ada", Sessions: []string{"four"}, Until: now()}))
	}
	_, _, err = st.Rotate(t.Context(), "ada", "four", rotateFrom(1, rotation()))
	require.EqualError(t, err, "pgstore: rotating a session: gave up after 5 attempts: the session is being deleted and recreated")
	require.Equal(t, 10, n)
}

// TestRevoke_RetriesDeadlock makes the server detect a deadlock and roll Revoke
// back.
func TestRevoke_RetriesDeadlock(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	p := pool(t, server.Addr)
	st := open(t, p, pgstore.Config{Schema: "tied"})
	for _, id := range []string{"a", "b"} {
		require.NoError(t, st.Create(t.Context(), session("ada", id)))
	}
	tx := begin(t, p)
	lock := func(id string) {
		_, err := tx.Exec(t.Context(), `SELECT FROM tied.sessions WHERE id = '`+id+`' FOR UPDATE`)
		require.NoError(t, err)
	}
	_, err := tx.Exec(t.Context(), `SET LOCAL deadlock_timeout = '10s'`) // so that the other transaction is rolled back
	require.NoError(t, err)
	lock("b")
	done := make(chan error, 1)
	go func() {
		done <- st.Revoke(context.Background(), auth.Revocation{Subject: "ada", Sessions: []string{"a", "b"}, Until: now()})
	}()
	waiting(t, p)
	lock("a")
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-done)
	list, err := st.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Empty(t, list)
	require.NotZero(t, scan[int](t, p, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))
}

// TestCreate_LostReplyIsAnError: if Create repeated the statement, it would
// find its own record and return ErrSessionExists.
func TestCreate_LostReplyIsAnError(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	direct := open(t, pool(t, server.Addr), pgstore.Config{})
	proxy := testserver.NewProxy(t, server.Addr)
	p := pool(t, proxy.Addr, conns(1), func(c *pgxpool.Config) {
		c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // so that the next reply is that of Create
	})
	st, err := pgstore.New(p, pgstore.Config{Poll: time.Second})
	require.NoError(t, err)
	require.NoError(t, st.Create(t.Context(), session("ada", "one"))) // prepares the statement
	proxy.CutResponses(0)
	err = st.Create(t.Context(), session("ada", "two"))
	require.Error(t, err)
	require.NotErrorIs(t, err, auth.ErrSessionExists)
	_, err = direct.Get(t.Context(), "ada", "two")
	require.NoError(t, err)
}

// TestSpend_LostReplyIsNotSpent cuts the connection before the reply, so that the
// Store repeats the statement and finds its own record. A call that another call
// has forestalled is not mistaken for that.
func TestSpend_LostReplyIsNotSpent(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	p := pool(t, server.Addr)
	direct := open(t, p, pgstore.Config{})
	proxy := testserver.NewProxy(t, server.Addr)
	through := func(change ...func(*pgxpool.Config)) *pgstore.Store {
		st, err := pgstore.New(pool(t, proxy.Addr, append(change, conns(2), func(c *pgxpool.Config) {
			c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // so that the next reply is that of Spend
		})...), pgstore.Config{})
		require.NoError(t, err)
		return st
	}
	until := now().Add(time.Hour)
	for _, change := range []func(*pgxpool.Config){
		isolation("read committed"), isolation("serializable"), mode(pgx.QueryExecModeSimpleProtocol),
		func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" },
	} {
		st, id := through(change), uniqueName()
		require.NoError(t, st.Spend(t.Context(), "ada", "prepares "+id, until)) // prepares the statement
		proxy.CutResponses(0)
		require.NoError(t, st.Spend(t.Context(), "ada", id, until))
		require.Equal(t, 1, scan[int](t, p, `SELECT count(*) FROM ratchet.spent WHERE id = $1`, id))
		require.ErrorIs(t, st.Spend(t.Context(), "ada", id, until), auth.ErrSpent)
		require.ErrorIs(t, direct.Spend(t.Context(), "ada", id, until), auth.ErrSpent)
		proxy.CutResponses(0)
		require.ErrorIs(t, st.Spend(t.Context(), "ada", id, until), auth.ErrSpent)
	}

	// The connection breaks while the server runs the first attempt.
	st, own := through(), uniqueName()
	require.NoError(t, st.Spend(t.Context(), "ada", "prepares "+own, until))
	for _, commit := range []bool{false, true} { // whether another call comes first
		id := uniqueName()
		tx := begin(t, p)
		_, err := tx.Exec(t.Context(), `INSERT INTO ratchet.spent (until, nonce, subject, id) VALUES (now() + interval '1 hour', 7, 'ada', $1)`, id)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- st.Spend(context.Background(), "ada", id, until) }()
		waiting(t, p)
		const waits = `SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`
		first := scan[int](t, p, waits)
		proxy.Cut()
		require.Eventually(t, func() bool {
			pid := scan[int](t, p, waits)
			return pid != 0 && pid != first
		}, 10*time.Second, time.Millisecond)
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
			require.ErrorIs(t, <-done, auth.ErrSpent)
			continue
		}
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, <-done)
		require.ErrorIs(t, direct.Spend(t.Context(), "ada", id, until), auth.ErrSpent)
	}
}
