package pgstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
)

// changes calls Changes, which must not return an error.
func changes(t testing.TB, st *pgstore.Store, after string, wait time.Duration) (list []string, next string) {
	t.Helper()
	rs, next, _, err := st.Changes(context.Background(), after, wait)
	require.NoError(t, err)
	return subjects(rs), next
}

func TestChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")

	// Revoke is one statement, so a revocation that commits late is inserted
	// here.
	publish := func(t *testing.T, p *pgxpool.Pool, schema, subject string) pgx.Tx {
		tx := begin(t, p)
		_, err := tx.Exec(context.Background(), `INSERT INTO `+schema+`.revocations (until, all_sessions, subject, sessions, except_ids)
			VALUES (now() + interval '10 minutes', false, $1, '{}', '{}')`, subject)
		require.NoError(t, err)
		return tx
	}
	commit := func(t *testing.T, tx pgx.Tx) { require.NoError(t, tx.Commit(context.Background())) }

	t.Run("FirstWrittenCommitsLast", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, start := changes(t, st, "", 0)
		one := publish(t, p, schema, "one")
		two := publish(t, p, schema, "two")
		three := publish(t, p, schema, "three")
		commit(t, two)
		list, next := changes(t, st, start, 0)
		require.Equal(t, []string{"two"}, list)
		commit(t, three)
		list, next = changes(t, st, next, 0)
		require.Equal(t, []string{"three"}, list)
		list, next = changes(t, st, next, 0)
		require.Empty(t, list)
		commit(t, one)
		list, next = changes(t, st, next, 0)
		require.Equal(t, []string{"one"}, list)
		list, _ = changes(t, st, next, 0)
		require.Empty(t, list)
		list, _ = changes(t, st, start, 0)
		require.ElementsMatch(t, []string{"one", "two", "three"}, list)
	})
	t.Run("OpenTransactionDoesNotEndTheWait", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		long := publish(t, p, schema, "late")
		require.NoError(t, st.Revoke(t.Context(), expire("ada")))
		list, next := changes(t, st, "", 0)
		require.Equal(t, []string{"ada"}, list)
		started := time.Now()
		list, next = changes(t, st, next, 300*time.Millisecond)
		require.Empty(t, list)
		require.GreaterOrEqual(t, time.Since(started), 300*time.Millisecond)
		commit(t, long)
		list, _ = changes(t, st, next, 0)
		require.Equal(t, []string{"late"}, list)
	})
	t.Run("RolledBackIsNeverSeen", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, next := changes(t, st, "", 0)
		tx := publish(t, p, schema, "nobody")
		require.NoError(t, tx.Rollback(t.Context()))
		list, _ := changes(t, st, next, 0)
		require.Empty(t, list)
	})
	t.Run("WakesByNotification", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, next := changes(t, st, "", 0)
		fastest := time.Hour
		for range 3 { // far less than the second after which Changes polls anyway
			revoked := make(chan time.Time, 1)
			go func() {
				time.Sleep(50 * time.Millisecond)
				_ = st.Revoke(context.Background(), expire("ada"))
				revoked <- time.Now()
			}()
			var list []string
			list, next = changes(t, st, next, 10*time.Second)
			require.Equal(t, []string{"ada"}, list)
			fastest = min(fastest, time.Since(<-revoked))
		}
		require.Less(t, fastest, 300*time.Millisecond)
	})
	t.Run("OtherSchemaWakesNobody", func(t *testing.T) {
		p := pool(t, server.Addr)
		one, two := open(t, p, pgstore.Config{Schema: uniqueName()}), open(t, p, pgstore.Config{Schema: uniqueName()})
		_, next := changes(t, one, "", 0)
		require.NoError(t, two.Revoke(t.Context(), expire("ada")))
		list, _ := changes(t, one, next, 0)
		require.Empty(t, list)
		_, _, _, err := two.Changes(t.Context(), next, 0)
		require.ErrorIs(t, err, auth.ErrFeedReset)
	})
	t.Run("PollsIfNotificationsAreLost", func(t *testing.T) {
		bouncer := testserver.PgBouncer(t, server.Addr)
		p := pool(t, bouncer.Addr, mode(pgx.QueryExecModeExec))
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		_, next := changes(t, st, "", 0)
		time.AfterFunc(50*time.Millisecond, func() { _ = st.Revoke(context.Background(), expire("ada")) })
		started := time.Now()
		list, _ := changes(t, st, next, 20*time.Second)
		require.Equal(t, []string{"ada"}, list)
		require.Less(t, time.Since(started), 5*time.Second)
	})
	t.Run("CanceledCallReleasesConnection", func(t *testing.T) {
		p := pool(t, server.Addr, conns(2))
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		_, next := changes(t, st, "", 0)
		for i := range 20 {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Duration(i)*2*time.Millisecond, cancel)
			started := time.Now()
			_, _, _, err := st.Changes(ctx, next, time.Minute)
			require.ErrorIs(t, err, context.Canceled)
			require.Less(t, time.Since(started), 2*time.Second)
		}
		require.Eventually(t, func() bool { return p.Stat().AcquiredConns() == 0 }, 10*time.Second, 5*time.Millisecond)
		require.Eventually(t, func() bool {
			return scan[int](t, p, `SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()`) <= 1
		}, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("ReleasedConnectionDoesNotListen", func(t *testing.T) {
		p := pool(t, server.Addr, conns(2))
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		_, next := changes(t, st, "", 0)
		for range 4 {
			_, next = changes(t, st, next, 5*time.Millisecond)
		}
		for _, conn := range p.AcquireAllIdle(t.Context()) {
			var n int
			err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_listening_channels()`).Scan(&n)
			conn.Release()
			require.NoError(t, err)
			require.Zero(t, n)
		}
		require.Zero(t, p.Stat().AcquiredConns())
	})
	t.Run("RestoredRowsAreReturnedOnce", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `INSERT INTO `+schema+`.revocations (xid, until, all_sessions, subject, sessions, except_ids)
			VALUES ('1000000000', now() + interval '10 minutes', false, 'restored', '{}', '{}')`)
		list, next := changes(t, st, "", 0)
		require.Equal(t, []string{"restored"}, list)
		list, _ = changes(t, st, next, 0)
		require.Empty(t, list)
	})
	t.Run("EmptyPositionOmitsExpired", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		for subject, age := range map[string]time.Duration{"long expired": 2 * time.Minute, "just expired": 30 * time.Second, "not expired": -time.Second} {
			exec(t, p, `INSERT INTO `+schema+`.revocations (until, all_sessions, subject, sessions, except_ids)
				VALUES ($1, false, $2, '{}', '{}')`, now().Add(-age), subject)
		}
		list, _ := changes(t, st, "", 0)
		require.ElementsMatch(t, []string{"just expired", "not expired"}, list)
	})
	t.Run("RevokeDeletesExpired", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `INSERT INTO `+schema+`.revocations (until, all_sessions, subject, sessions, except_ids)
			SELECT now() - interval '2 minutes', false, 'old', '{}', '{}' FROM generate_series(1, 5000)`)
		count := func() int { return scan[int](t, p, `SELECT count(*) FROM `+schema+`.revocations`) }
		before := count()
		require.NoError(t, st.Revoke(t.Context(), expire("ada")))
		require.Equal(t, before-255, count()) // 256 deleted, one inserted
		for range 20 {
			require.NoError(t, st.Revoke(t.Context(), expire("ada")))
		}
		require.Equal(t, 21, count())
	})
	t.Run("PagesAreOfOneSnapshot", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, start := changes(t, st, "", 0)
		const n = 2500
		late := publish(t, p, schema, "late") // its transaction number is the lowest
		for range 5 {                         // several transactions, one of which may continue on the next page
			exec(t, p, `INSERT INTO `+schema+`.revocations (until, all_sessions, subject, sessions, except_ids)
				SELECT now() + interval '10 minutes', false, 'old-' || $1::int || i, '{}', '{}' FROM generate_series(1, $2::int) AS i`, n, n/5)
		}
		later := publish(t, p, schema, "later")
		for _, after := range []string{"", start} {
			seen := map[string]int{}
			position, pages := after, 0
			for more := true; more; pages++ {
				rs, next, others, err := st.Changes(t.Context(), position, time.Hour)
				require.NoError(t, err)
				require.LessOrEqual(t, len(rs), 1000)
				again, same, _, err := st.Changes(t.Context(), position, 0) // the same position returns the same
				require.NoError(t, err)
				require.Equal(t, rs, again)
				if others {
					require.Equal(t, next, same)
				}
				for _, r := range rs {
					seen[r.ID+r.Subject]++
				}
				position, more = next, others
				switch {
				case pages == 0 && after == "":
					commit(t, late)
					require.NoError(t, st.Revoke(t.Context(), expire("new")))
				case pages == 1 && after == "":
					commit(t, later)
				}
				require.Less(t, pages, 6)
			}
			require.Len(t, seen, n/5+3, "want each number once; each has five rows")
			for subject, times := range seen {
				if strings.HasPrefix(subject, "old-") {
					require.Equal(t, 5, times, subject)
				} else {
					require.Equal(t, 1, times, subject)
				}
			}
			list, _ := changes(t, st, position, 0)
			require.Empty(t, list)
		}
	})
	t.Run("UnreadableRowDoesNotStopTheFeed", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, next := changes(t, st, "", 0)
		for i, change := range []string{`version = 2`, `access_ttl = 1000`, `subject = ''`,
			`sessions = '{NULL}'`, `except_ids = '{x,NULL}'`, `access_ttl = -5`, `access_ttl = 9223372036854775807, subject = ''`} {
			subject := fmt.Sprint("ada-", i)
			require.NoError(t, st.Revoke(t.Context(), expire(subject)))
			require.NoError(t, st.Revoke(t.Context(), expire("bob")))
			exec(t, p, `UPDATE `+schema+`.revocations SET `+change+` WHERE subject = $1`, subject)
			rs, to, more, err := st.Changes(t.Context(), next, 0)
			require.NoError(t, err)
			require.False(t, more)
			require.Len(t, rs, 2)
			if strings.Contains(change, `subject = ''`) {
				subject = ""
			}
			require.Equal(t, auth.Revocation{Subject: subject, ID: rs[0].ID}, rs[0])
			require.NotEmpty(t, rs[0].ID)
			require.Equal(t, "bob", rs[1].Subject)
			again, _, _, err := st.Changes(t.Context(), next, 0)
			require.NoError(t, err)
			require.Equal(t, rs, again)
			next = to
		}
	})
	t.Run("MalformedReasonIsOmitted", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		_, next := changes(t, st, "", 0)
		for value, want := range map[string]string{
			"reuse": "reuse", "newer": "newer", "": "", "Reuse": "", "re use": "", "é": "", "\x01": "", strings.Repeat("x", 17): "", strings.Repeat("x", 1<<20): "",
		} {
			r := expire(uniqueName())
			r.Reason = "logout"
			require.NoError(t, st.Revoke(t.Context(), r))
			exec(t, p, `UPDATE `+schema+`.revocations SET reason = $2 WHERE subject = $1`, r.Subject, value)
			rs, to, _, err := st.Changes(t.Context(), next, 0)
			require.NoError(t, err)
			require.Len(t, rs, 1)
			require.Equal(t, r.Subject, rs[0].Subject)
			require.Equal(t, r.Before, rs[0].Before)
			require.Equal(t, want, rs[0].Reason)
			next = to
		}
	})
	t.Run("MalformedPositionIsReset", func(t *testing.T) {
		p := pool(t, server.Addr)
		st := open(t, p, pgstore.Config{Schema: uniqueName()})
		_, next := changes(t, st, "", 0)
		history, snapshot, _ := strings.Cut(next, "/")
		for _, after := range []string{
			"/", snapshot, history, history + "/", "/" + snapshot, history + "/::", history + "/1:2", history + "/0:1:", history + "/5:4:",
			history + "/4:9:3", history + "/4:9:9", history + "/4:9:6,5", history + "/4:9:6,", history + "/-1:9:", history + "/1:99999999999999999999:",
			history + "/1:1000000000:", // ahead of the server
			history + "//" + snapshot + "/0", history + "//" + snapshot + "/x/1", history + "//" + snapshot + "/1/x", history + "/x/" + snapshot + "/1/1",
			history + "/" + snapshot + "//1/1", history + "//1:1000000000:/1/1", "x//" + snapshot + "/1/1",
		} {
			_, _, _, err := st.Changes(t.Context(), after, 0)
			require.ErrorIs(t, err, auth.ErrFeedReset, after)
		}
		_, _, _, err := st.Changes(t.Context(), next, 0)
		require.NoError(t, err)
	})
}

// TestChanges_RestoredCopyIsReset restores a copy, which has the same row in
// history, into a server that has not been restarted.
func TestChanges_RestoredCopyIsReset(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")

	t.Run("Dump", func(t *testing.T) { // as pg_restore --clean does
		for _, restored := range []string{`INSERT INTO %s.history (id) VALUES ('%s')`, ""} {
			p, schema := pool(t, server.Addr), uniqueName()
			st := open(t, p, pgstore.Config{Schema: schema})
			id := scan[string](t, p, `SELECT id::text FROM `+schema+`.history`)
			if restored == "" { // after a crash, before the next Revoke
				exec(t, p, `DELETE FROM `+schema+`.history`)
			}
			_, next := changes(t, st, "", 0)
			exec(t, p, `ALTER TABLE `+schema+`.history RENAME TO old`)
			exec(t, p, `CREATE UNLOGGED TABLE `+schema+`.history (LIKE `+schema+`.old INCLUDING ALL)`)
			exec(t, p, `DROP TABLE `+schema+`.old`)
			if restored != "" {
				exec(t, p, fmt.Sprintf(restored, schema, id))
			}
			_, _, _, err := st.Changes(t.Context(), next, 0)
			require.ErrorIs(t, err, auth.ErrFeedReset)
			_, next = changes(t, st, "", 0)
			changes(t, st, next, 0)
		}
	})
	t.Run("CopyOfTheDatabase", func(t *testing.T) {
		in := func(database string) func(*pgxpool.Config) {
			return func(c *pgxpool.Config) { c.ConnConfig.Database = database }
		}
		admin := pool(t, server.Addr)
		exec(t, admin, `CREATE DATABASE one`)
		p := pool(t, server.Addr, in("one"))
		_, next := changes(t, open(t, p, pgstore.Config{}), "", 0)
		p.Close()
		exec(t, admin, `CREATE DATABASE two TEMPLATE one`)
		st, err := pgstore.New(pool(t, server.Addr, in("two")), pgstore.Config{})
		require.NoError(t, err)
		_, _, _, err = st.Changes(t.Context(), next, 0)
		require.ErrorIs(t, err, auth.ErrFeedReset)
	})
}

// TestChanges_RestartIsReset restarts the server, also by a crash of one of its
// processes. Transaction numbers that the position contains may then be reused.
func TestChanges_RestartIsReset(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	t.Parallel()
	server := testserver.Postgres(t)
	first := pool(t, server.Addr)
	st := open(t, first, pgstore.Config{})
	require.NoError(t, st.Revoke(t.Context(), expire("ada")))
	_, next := changes(t, st, "", 0)

	checkReset := func(st *pgstore.Store) { // and reads the feed from its beginning
		t.Helper()
		_, _, _, err := st.Changes(t.Context(), next, 0)
		require.ErrorIs(t, err, auth.ErrFeedReset)
		var list []string
		list, next = changes(t, st, "", 0)
		require.Contains(t, list, "ada")
	}
	ready := func() *pgstore.Store {
		t.Helper()
		var p *pgxpool.Pool
		require.Eventually(t, func() bool {
			p = pool(t, server.Addr)
			return p.Ping(context.Background()) == nil
		}, 20*time.Second, 50*time.Millisecond)
		st, err := pgstore.New(p, pgstore.Config{})
		require.NoError(t, err)
		return st
	}

	// A shutdown, for which the server waits until no client is connected.
	first.Close()
	server.Stop()
	server.Start()
	st = ready()
	checkReset(st)

	// A crash of the postmaster.
	server.Kill()
	server.Start()
	st = ready()
	checkReset(st)

	require.NoError(t, st.Revoke(t.Context(), expire("ada")))
	checkReset(st)

	// A crash of a backend. The postmaster stays and restarts all other backends.
	p := pool(t, server.Addr)
	const started = `SELECT pg_postmaster_start_time()`
	before := scan[time.Time](t, p, started)
	other := pool(t, server.Addr)
	require.NoError(t, other.Ping(t.Context()))
	backend, err := os.FindProcess(scan[int](t, p, `SELECT pg_backend_pid()`))
	require.NoError(t, err)
	require.NoError(t, backend.Kill())
	// The postmaster has noticed when it has ended the other backends.
	require.Eventually(t, func() bool { return other.Ping(context.Background()) != nil }, 20*time.Second, time.Millisecond)
	st = ready()
	require.Equal(t, before, scan[time.Time](t, pool(t, server.Addr), started))
	checkReset(st)

	// The first revocation after the crash begins a new history.
	require.NoError(t, st.Revoke(t.Context(), expire("ada")))
	checkReset(st)
	require.NoError(t, st.Revoke(t.Context(), expire("bob")))
	list, _ := changes(t, st, next, 0)
	require.Equal(t, []string{"bob"}, list)

	// The server becomes a standby.
	data := scan[string](t, pool(t, server.Addr), `SHOW data_directory`)
	server.Kill()
	require.NoError(t, os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644))
	server.Start()
	st = ready()
	for _, wait := range []time.Duration{0, time.Minute} {
		_, _, _, err := st.Changes(t.Context(), next, wait)
		require.ErrorContains(t, err, "standby")
		require.NotErrorIs(t, err, auth.ErrFeedReset)
	}
}
