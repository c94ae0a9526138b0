package pgstore_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
)

func TestMigrate(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: migrates many schemas")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	works := func(t *testing.T, st *pgstore.Store) {
		require.NoError(t, st.Create(t.Context(), session("ada", "one")))
		_, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(1, rotation()))
		require.NoError(t, err)
		require.True(t, rotated)
		require.NoError(t, st.Revoke(t.Context(), expire("ada")))
		rs, _, _, err := st.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		require.Equal(t, []string{"ada"}, subjects(rs))
	}
	versions := func(t *testing.T, p *pgxpool.Pool, schema string) int {
		return scan[int](t, p, `SELECT count(*) FROM "`+schema+`".migrations`)
	}

	t.Run("ManyProcessesAtOnce", func(t *testing.T) {
		for _, level := range []string{"read committed", "serializable"} {
			schema := uniqueName()
			var wg sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				st, err := pgstore.New(pool(t, server.Addr, conns(2), isolation(level)), pgstore.Config{Schema: schema})
				require.NoError(t, err)
				wg.Go(func() { errs[i] = st.Migrate(context.Background()) })
			}
			wg.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			p := pool(t, server.Addr)
			require.Equal(t, 3, versions(t, p, schema))
			works(t, open(t, p, pgstore.Config{Schema: schema}))
		}
	})
	t.Run("KeepsExistingSessions", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		require.NoError(t, st.Create(t.Context(), session("ada", "one")))
		_, err := open(t, p, pgstore.Config{Schema: schema}).Get(t.Context(), "ada", "one")
		require.NoError(t, err)
	})
	t.Run("PreviousVersionWorksDuringAndAfter", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		record := session("ada", "one")
		require.NoError(t, st.Create(t.Context(), record))
		exec(t, p, `ALTER TABLE `+schema+`.revocations DROP COLUMN reason`)
		exec(t, p, `ALTER TABLE `+schema+`.sessions DROP COLUMN retry_tag, DROP COLUMN key`)
		exec(t, p, `DROP TABLE `+schema+`.spent`)
		exec(t, p, `DELETE FROM `+schema+`.migrations WHERE version > 3`)

		// Prepared statements of a process of version 3.
		older, err := p.Acquire(t.Context())
		require.NoError(t, err)
		defer older.Release()
		_, err = older.Conn().Prepare(t.Context(), "publish", `INSERT INTO `+schema+`.revocations
			(subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl)
			VALUES ($1, '{one}', false, '{}', NULL, now() + interval '1 hour', 'p.1', 0)`)
		require.NoError(t, err)
		_, err = older.Conn().Prepare(t.Context(), "feed", `SELECT r.id, r.version, r.subject, r.sessions, r.access_ttl
			FROM (SELECT 1) AS m LEFT JOIN LATERAL (SELECT * FROM `+schema+`.revocations ORDER BY xid, id) AS r ON true`)
		require.NoError(t, err)
		revoke := func(subject string) {
			_, err := older.Exec(t.Context(), "publish", subject)
			require.NoError(t, err)
		}
		read := func() (subjects []string) {
			rows, err := older.Query(t.Context(), "feed")
			require.NoError(t, err)
			defer rows.Close()
			for rows.Next() {
				var id, version, ttl int64
				var subject string
				var ids []string
				require.NoError(t, rows.Scan(&id, &version, &subject, &ids, &ttl))
				require.EqualValues(t, 1, version)
				require.Equal(t, []string{"one"}, ids)
				subjects = append(subjects, subject)
			}
			require.NoError(t, rows.Err())
			return subjects
		}
		revoke("before")
		require.Equal(t, []string{"before"}, read())
		const advice = "call Store.Migrate, which creates or updates the tables: "
		_, err = st.Get(t.Context(), "ada", "one")
		require.ErrorContains(t, err, advice)
		require.ErrorContains(t, st.Spend(t.Context(), "ada", "one", now()), advice)

		st = open(t, p, pgstore.Config{Schema: schema})
		require.Equal(t, 3, versions(t, p, schema))
		got, err := st.Get(t.Context(), "ada", "one")
		require.NoError(t, err)
		require.Equal(t, record, got)
		revoke("after")
		require.NoError(t, st.Revoke(t.Context(), auth.Revocation{Subject: "bob", Sessions: []string{"one"}, Until: now().Add(time.Hour), Reason: "reuse"}))
		rs, _, _, err := st.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		reasons := map[string]string{}
		for _, r := range rs {
			reasons[r.Subject] = r.Reason
		}
		require.Equal(t, map[string]string{"before": "", "after": "", "bob": "reuse"}, reasons)
		require.Equal(t, []string{"before", "after", "bob"}, read())
	})
	t.Run("ScriptDoesTheSame", func(t *testing.T) {
		p, schema := pool(t, server.Addr), "Upper_"+uniqueName()
		st, err := pgstore.New(p, pgstore.Config{Schema: schema})
		require.NoError(t, err)
		conn, err := p.Acquire(t.Context())
		require.NoError(t, err)
		_, err = conn.Conn().PgConn().Exec(t.Context(), st.Migrations()).ReadAll()
		conn.Release()
		require.NoError(t, err)
		require.NoError(t, st.Migrate(t.Context()))
		require.Equal(t, 3, versions(t, p, schema))
		works(t, st)
		require.Equal(t, 0, scan[int](t, p, `SELECT count(*) FROM pg_class WHERE relname IN ('sessions', 'revocations') AND relnamespace = 'public'::regnamespace`))
	})
	t.Run("NeedsNoPrivilegesIfNothingToDo", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `CREATE ROLE app LOGIN`)
		exec(t, p, `GRANT USAGE ON SCHEMA `+schema+` TO app`)
		exec(t, p, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+schema+` TO app`)
		as := pool(t, server.Addr, func(c *pgxpool.Config) { c.ConnConfig.User = "app" })
		works(t, open(t, as, pgstore.Config{Schema: schema}))

		st, err := pgstore.New(as, pgstore.Config{Schema: uniqueName()})
		require.NoError(t, err)
		require.ErrorContains(t, st.Migrate(t.Context()), "permission denied for database")

		// A service that only verifies needs only to read the feed.
		exec(t, p, `CREATE ROLE verifier LOGIN`)
		exec(t, p, `GRANT USAGE ON SCHEMA `+schema+` TO verifier`)
		exec(t, p, `GRANT SELECT ON `+schema+`.revocations, `+schema+`.history TO verifier`)
		reads, err := pgstore.New(pool(t, server.Addr, func(c *pgxpool.Config) { c.ConnConfig.User = "verifier" }), pgstore.Config{Schema: schema})
		require.NoError(t, err)
		rs, _, _, err := reads.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		require.Len(t, rs, 1)
	})
	t.Run("LaterReleaseIsNotMigrated", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `INSERT INTO `+schema+`.migrations (version) VALUES (1000)`)
		require.NoError(t, st.Migrate(t.Context()))
		works(t, st)
	})
	t.Run("ColumnsOfALaterReleaseAreKept", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		s := session("ada", "one")
		require.NoError(t, st.Create(t.Context(), s))
		require.NoError(t, st.Revoke(t.Context(), expire("bob")))
		require.NoError(t, st.Spend(t.Context(), "ada", "one", now()))
		for _, table := range []string{"sessions", "revocations", "history", "spent", "migrations"} {
			exec(t, p, `ALTER TABLE `+schema+`.`+table+` ADD COLUMN newer text NOT NULL DEFAULT 'default'`)
			exec(t, p, `UPDATE `+schema+`.`+table+` SET newer = 'kept'`)
		}
		exec(t, p, `INSERT INTO `+schema+`.migrations (version) VALUES (1000)`)
		for range 2 {
			st = open(t, p, pgstore.Config{Schema: schema})
			got, err := st.Get(t.Context(), "ada", "one")
			require.NoError(t, err)
			require.Equal(t, s, got)
			u := rotation()
			got, rotated, err := st.Rotate(t.Context(), "ada", "one", rotateFrom(s.Generation, u))
			require.NoError(t, err)
			require.True(t, rotated)
			s.Generation, s.RotatedAt, s.ExpiresAt, s.Device = s.Generation+1, u.At, u.ExpiresAt, u.Device
			require.Equal(t, s, got)
			list, err := st.List(t.Context(), "ada")
			require.NoError(t, err)
			require.Equal(t, []auth.Session{s}, list)
			require.Equal(t, "kept", scan[string](t, p, `SELECT newer FROM `+schema+`.sessions WHERE subject = 'ada'`))
			require.NoError(t, st.Create(t.Context(), session("cyd", uniqueName())))
			require.NoError(t, st.Spend(t.Context(), "cyd", uniqueName(), now()))
			require.ErrorIs(t, st.Spend(t.Context(), "ada", "one", now()), auth.ErrSpent)
			exec(t, p, `DELETE FROM `+schema+`.history`) // as a crash does
			require.NoError(t, st.Revoke(t.Context(), expire("bob")))
			_, next := changes(t, st, "", 0)
			repeated, _ := changes(t, st, next, 0)
			require.Empty(t, repeated)
		}
		require.NoError(t, st.Revoke(t.Context(), auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now()}))
		_, err := st.Get(t.Context(), "ada", "one")
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	})
	t.Run("TimesOutOfRangeAreRead", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		for _, value := range []string{"infinity", "-infinity", "100000-01-01", "4000-01-01 BC"} {
			require.NoError(t, st.Create(t.Context(), session("ada", value)))
			exec(t, p, `UPDATE `+schema+`.sessions SET created_at = $2::text::timestamptz, rotated_at = $2::text::timestamptz,
				expires_at = 'infinity' WHERE id = $1`, value, value)
			got, err := st.Get(t.Context(), "ada", value)
			require.NoError(t, err)
			require.NoError(t, got.Check())
			exec(t, p, `INSERT INTO `+schema+`.revocations (until, not_before, all_sessions, subject, sessions, except_ids)
				VALUES ('infinity', $1::text::timestamptz, false, 'x', '{}', '{}')`, value)
		}
		list, err := st.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Len(t, list, 4)
		rs, _, _, err := st.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		require.Len(t, rs, 4)
	})
	t.Run("RefusesTablesThatWereNeverReleased", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		st := open(t, p, pgstore.Config{Schema: schema})
		exec(t, p, `UPDATE `+schema+`.migrations SET version = version - 3`)
		require.EqualError(t, st.Migrate(t.Context()),
			"pgstore: migrating: the schema "+schema+" has tables of version 2, which was never released; drop the schema, and with it all sessions")
	})
	t.Run("RefusesOtherEncodings", func(t *testing.T) {
		p := pool(t, server.Addr)
		exec(t, p, `CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
		latin := pool(t, server.Addr, func(c *pgxpool.Config) { c.ConnConfig.Database = "latin" })
		st, err := pgstore.New(latin, pgstore.Config{})
		require.NoError(t, err)
		require.EqualError(t, st.Migrate(t.Context()), "pgstore: migrating: the encoding of the database is LATIN1; it must be UTF8")
		require.Equal(t, 0, scan[int](t, latin, `SELECT count(*) FROM pg_namespace WHERE nspname = 'ratchet'`))

		// Without Migrate, texts that the database cannot store are refused.
		conn, err := latin.Acquire(t.Context())
		require.NoError(t, err)
		_, err = conn.Conn().PgConn().Exec(t.Context(), st.Migrations()).ReadAll()
		conn.Release()
		require.NoError(t, err)
		require.NoError(t, st.Create(t.Context(), session("Ädä", "one")))
		require.ErrorIs(t, st.Create(t.Context(), session("中", "one")), auth.ErrNotStorable)
		require.ErrorIs(t, st.Revoke(t.Context(), expire("中")), auth.ErrNotStorable)
		_, err = st.Get(t.Context(), "中", "one")
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		_, _, err = st.Rotate(t.Context(), "中", "one", rotateFrom(1, rotation()))
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		list, err := st.List(t.Context(), "中")
		require.NoError(t, err)
		require.Empty(t, list)
		u := rotation()
		u.Device.UserAgent = "中"
		_, _, err = st.Rotate(t.Context(), "Ädä", "one", rotateFrom(1, u))
		require.ErrorIs(t, err, auth.ErrNotStorable)
		_, rotated, err := st.Rotate(t.Context(), "Ädä", "one", rotateFrom(1, rotation()))
		require.NoError(t, err)
		require.True(t, rotated)
	})
	t.Run("FailedMigrationLeavesNothing", func(t *testing.T) {
		p, schema := pool(t, server.Addr), uniqueName()
		exec(t, p, `CREATE SCHEMA `+schema)
		exec(t, p, `CREATE TABLE `+schema+`.revocations (mine text)`)
		st, err := pgstore.New(p, pgstore.Config{Schema: schema})
		require.NoError(t, err)
		require.ErrorContains(t, st.Migrate(t.Context()), "pgstore: migrating: migration 3: ")
		require.Equal(t, 1, scan[int](t, p, `SELECT count(*) FROM pg_tables WHERE schemaname = $1`, schema))
	})
}

func TestStore_ErrorsBeforeMigrateNameIt(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	st, err := pgstore.New(pool(t, server.Addr), pgstore.Config{Schema: uniqueName()})
	require.NoError(t, err)
	const advice = "call Store.Migrate, which creates or updates the tables: "
	require.ErrorContains(t, st.Create(t.Context(), session("ada", "s1")), "pgstore: creating a session: "+advice)
	_, err = st.Get(t.Context(), "ada", "s1")
	require.ErrorContains(t, err, advice)
	_, _, _, err = st.Changes(t.Context(), "", 0)
	require.ErrorContains(t, err, "pgstore: reading the feed: "+advice)
}
