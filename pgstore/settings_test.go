package pgstore_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
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

// role creates a role with the given settings that may create schemas, and
// returns the configuration of a pool that connects as this role.
func role(t testing.TB, admin *pgxpool.Pool, settings ...string) func(*pgxpool.Config) {
	t.Helper()
	name := uniqueName()
	exec(t, admin, `CREATE ROLE `+name+` LOGIN`)
	exec(t, admin, `GRANT CREATE ON DATABASE postgres TO `+name)
	for _, setting := range settings {
		exec(t, admin, `ALTER ROLE `+name+` SET `+setting)
	}
	return func(c *pgxpool.Config) { c.ConnConfig.User = name }
}

// shadow creates a schema with functions, operators, types, casts and tables
// that have names of pg_catalog and fail when they are used.
func shadow(t testing.TB, admin *pgxpool.Pool) (schema string) {
	t.Helper()
	schema = uniqueName()
	exec(t, admin, `CREATE SCHEMA `+schema)
	exec(t, admin, `GRANT USAGE ON SCHEMA `+schema+` TO PUBLIC`)
	exec(t, admin, strings.ReplaceAll(`
DO $do$
DECLARE p record;
BEGIN
	FOR p IN SELECT oid, proname, pg_catalog.pg_get_function_identity_arguments(oid) AS arguments, pg_catalog.format_type(prorettype, NULL) AS result, proretset
		FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND provariadic = 0
			AND NOT (prorettype = ANY (ARRAY['internal', 'cstring', 'trigger', 'event_trigger']::regtype[]))
			AND proname = ANY ('{now,floor,random,pg_relation_size,current_setting,generate_series,format,decode,encode,host,pg_notify,
				pg_current_snapshot,pg_visible_in_snapshot,pg_snapshot_xmin,pg_snapshot_xmax,pg_postmaster_start_time,current_database,
				pg_is_in_recovery,pg_advisory_xact_lock,to_regnamespace,to_regclass,date_part,extract,gen_random_uuid,pg_current_xact_id,
				pg_has_role,quote_ident,substr,int8send,timezone,concat_ws,nextval}')
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION ''a foreign function was called''; END$f$',
				p.proname, p.arguments, CASE WHEN p.proretset THEN 'SETOF' ELSE '' END, p.result);
		EXCEPTION WHEN OTHERS THEN NULL; -- plpgsql does not support these arguments
		END;
	END LOOP;
	CREATE FUNCTION evil.concat_ws(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_concat_ws';
	FOR p IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result FROM pg_catalog.pg_operator
		WHERE oprkind = 'b' AND oprname = ANY ('{=,<>,<,<=,>,>=,+,-,*,/,||}')
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION evil.operation(%s, %s) RETURNS %s 
				LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION ''a foreign operator was called''; END$f$', p.l, p.r, p.result);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		BEGIN
			EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.operation, LEFTARG = %s, RIGHTARG = %s)', p.oprname, p.l, p.r);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	FOR p IN SELECT typname FROM pg_catalog.pg_type WHERE typname = ANY ('{text,bytea,inet,timestamptz,interval,bool,int2,int4,int8,float8,numeric,
			xid8,pg_snapshot,tid,oid,regclass,regproc,regprocedure,regnamespace,uuid,name}')
	LOOP
		EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.int4 CHECK (false)', p.typname);
	END LOOP;
	FOR p IN SELECT relname FROM pg_catalog.pg_class WHERE relname = ANY ('{pg_database,pg_class,pg_namespace,pg_roles,pg_trigger,pg_rewrite,
			pg_constraint,pg_inherits,pg_depend,pg_proc,pg_attrdef,pg_index}')
	LOOP
		EXECUTE format('CREATE TABLE evil.%I (nothing pg_catalog.int4)', p.relname);
	END LOOP;
	CREATE COLLATION evil."C" (LOCALE = 'C.UTF-8');
END
$do$`, "evil", schema))
	n := scan[int](t, admin, `SELECT count(*) FROM pg_operator WHERE oprnamespace = $1::regnamespace`, schema)
	require.Greater(t, n, 300)
	n = scan[int](t, admin, `SELECT count(DISTINCT proname) FROM pg_proc WHERE pronamespace = $1::regnamespace`, schema)
	require.Greater(t, n, 25)
	return schema
}

// checkLifecycle creates, rotates and revokes a session, and checks that all
// values are returned unchanged.
func checkLifecycle(t testing.TB, st *pgstore.Store, reader *pgstore.Store) {
	t.Helper()
	ctx := t.Context()
	subject := uniqueName()
	list, next := changes(t, reader, "", 0)
	require.NotContains(t, list, subject)
	s := session(subject, `é'\"$1`)
	s.CreatedAt = time.Date(1, 2, 3, 4, 5, 6, 7e6, time.UTC)
	s.RotatedAt = time.Date(2026, 3, 29, 1, 30, 0, 123e6, time.UTC) // does not exist, or exists twice, in some time zones
	s.ExpiresAt = time.Date(6000, 12, 31, 23, 59, 59, 999e6, time.UTC)
	s.Device = auth.Device{UserAgent: `\x41 \101 'é' 中 \`, IP: netip.MustParseAddr("::ffff:192.0.2.1")}
	s.Opaque = []byte("\x00\xff\\x41'\\")
	tag := []byte("\x00\xff\\x41'\\76543210")
	s.RetryTag, s.Key = slices.Clone(tag), []byte("\x02\x00\xff\\x41'\\012345678901234567890123")
	require.NoError(t, s.Check())
	require.NoError(t, st.Create(ctx, s))
	require.ErrorIs(t, st.Create(ctx, s), auth.ErrSessionExists)
	got, err := st.Get(ctx, subject, s.ID)
	require.NoError(t, err)
	require.Equal(t, s, got)
	all, err := st.List(ctx, subject)
	require.NoError(t, err)
	require.Equal(t, []auth.Session{s}, all)

	u := auth.Rotation{At: s.RotatedAt.Add(time.Millisecond), NotAfter: s.RotatedAt, ExpiresAt: s.ExpiresAt,
		Device: auth.Device{IP: netip.MustParseAddr("2001:db8::1")}, RetryTag: tag, SpentTag: []byte("abcdefghijklmnop"), Key: s.Key}
	early := u
	early.NotAfter = s.RotatedAt.Add(-time.Millisecond)
	_, rotated, err := st.Rotate(ctx, subject, s.ID, rotateFrom(1, early))
	require.NoError(t, err)
	require.False(t, rotated)
	s.Generation, s.RotatedAt, s.Device = 2, u.At, u.Device
	got, rotated, err = st.Rotate(ctx, subject, s.ID, rotateFrom(1, u))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, s, got)
	u.SpentTag, s.RetryTag = tag, nil
	s.Generation = 3
	got, rotated, err = st.Rotate(ctx, subject, s.ID, rotateFrom(3, u))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, s, got)
	u.Key = append([]byte{3}, u.Key[1:]...)
	got, rotated, err = st.Rotate(ctx, subject, s.ID, rotateFrom(9, u))
	require.NoError(t, err)
	require.False(t, rotated)
	require.Equal(t, s, got)
	require.NoError(t, st.Spend(ctx, subject, s.ID, s.ExpiresAt))
	require.ErrorIs(t, st.Spend(ctx, subject, s.ID, s.ExpiresAt), auth.ErrSpent)
	require.ErrorIs(t, reader.Spend(ctx, subject, s.ID, s.ExpiresAt), auth.ErrSpent)

	r := auth.Revocation{
		Subject: subject, Sessions: []string{`{"a,b"}\`, "NULL", "é"}, All: true, Except: []string{`\x00`}, Before: s.CreatedAt.Truncate(time.Second),
		Until: time.Date(6000, 1, 1, 0, 0, 0, 1e6, time.UTC), ID: "random.1",
	}
	require.NoError(t, st.Revoke(ctx, r))
	_, err = st.Get(ctx, subject, s.ID)
	require.NoError(t, err, "a session that was created after Before was deleted")
	r.Before = r.Before.Add(time.Second)
	require.NoError(t, st.Revoke(ctx, r))
	_, err = st.Get(ctx, subject, s.ID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	notice := auth.Revocation{Sessions: []string{}, Except: []string{}, AccessTTL: 12345 * time.Millisecond, Until: r.Until, ID: "random.2"}
	require.NoError(t, st.Revoke(ctx, notice))
	want := []auth.Revocation{r, notice}
	for _, after := range []string{next, ""} {
		var got []auth.Revocation
		for more := true; more; {
			rs, to, others, err := reader.Changes(ctx, after, 0)
			require.NoError(t, err)
			got, after, more = append(got, rs...), to, others
		}
		for _, w := range want {
			require.Contains(t, got, w)
		}
	}
	_, err = st.List(ctx, "nobody")
	require.NoError(t, err)
}

// TestStore_WorksWithAnySettings uses roles with many settings, in every query
// mode of the driver. Stores with other settings must read the same values.
func TestStore_WorksWithAnySettings(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes ten seconds")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off", "-c", "max_connections=400")
	admin := pool(t, server.Addr)
	evil := shadow(t, admin)
	settings := map[string][]string{
		"DateStyle":        {`DateStyle TO 'SQL, DMY'`, `TimeZone TO 'America/St_Johns'`},
		"DateStyleGerman":  {`DateStyle TO 'German'`, `TimeZone TO 'Europe/Berlin'`, `IntervalStyle TO 'sql_standard'`},
		"Postgres":         {`DateStyle TO 'Postgres, MDY'`, `IntervalStyle TO 'postgres_verbose'`, `TimeZone TO 'Asia/Kathmandu'`},
		"bytea":            {`bytea_output TO 'escape'`, `extra_float_digits TO -15`, `lc_monetary TO 'C'`},
		"strings":          {`standard_conforming_strings TO off`, `backslash_quote TO off`, `escape_string_warning TO on`},
		"quote":            {`quote_all_identifiers TO on`, `transform_null_equals TO on`, `array_nulls TO off`},
		"encoding":         {`client_encoding TO 'LATIN1'`},
		"ascii":            {`client_encoding TO 'SQL_ASCII'`, `xmloption TO 'document'`},
		"search_path":      {`search_path TO ` + evil + `, pg_catalog`},
		"search_path last": {`search_path TO pg_catalog, ` + evil},
		"nothing in path":  {`search_path TO ''`},
		"read only":        {`default_transaction_read_only TO on`},
		"serializable":     {`default_transaction_isolation TO 'serializable'`, `default_transaction_read_only TO on`, `default_transaction_deferrable TO on`},
		"row_security":     {`row_security TO off`},
		"plans":            {`plan_cache_mode TO 'force_generic_plan'`, `enable_indexscan TO off`, `enable_tidscan TO off`},
		"all": {`DateStyle TO 'SQL, DMY'`, `bytea_output TO 'escape'`, `standard_conforming_strings TO off`, `client_encoding TO 'LATIN1'`,
			`search_path TO ` + evil + `, pg_catalog`, `default_transaction_read_only TO on`, `TimeZone TO 'Australia/Lord_Howe'`},
	}
	plain := open(t, pool(t, server.Addr), pgstore.Config{Schema: "other"})
	checkLifecycle(t, plain, plain)
	bouncer := testserver.PgBouncer(t, server.Addr, "ignore_startup_parameters = extra_float_digits,search_path")
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}
	if os.Getenv("AUTH_LONG") == "1" {
		modes = append(modes, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec)
	}
	for name, list := range settings {
		as := role(t, admin, list...)
		for _, m := range modes {
			t.Run(fmt.Sprint(name, "/", m), func(t *testing.T) {
				p := pool(t, server.Addr, as, mode(m), conns(3))
				schema := uniqueName()
				st := open(t, p, pgstore.Config{Schema: schema})
				require.NoError(t, st.Migrate(t.Context())) // again, which does nothing
				reader, err := pgstore.New(admin, pgstore.Config{Schema: schema})
				require.NoError(t, err)
				checkLifecycle(t, st, reader)
				checkLifecycle(t, reader, st)
			})
		}
		// PgBouncer as in the README. It logs in as one role, so the settings are
		// those of the database.
		t.Run(name+"/PgBouncer", func(t *testing.T) {
			database := uniqueName()
			exec(t, admin, `CREATE DATABASE `+database)
			in := func(c *pgxpool.Config) { c.ConnConfig.Database = database }
			shadowSchema := evil
			if strings.Contains(strings.Join(list, " "), evil) {
				shadowSchema = shadow(t, pool(t, server.Addr, in))
			}
			for _, setting := range list {
				exec(t, admin, `ALTER DATABASE `+database+` SET `+strings.ReplaceAll(setting, evil, shadowSchema))
			}
			for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
				st := open(t, pool(t, bouncer.Addr, in, mode(m), conns(3)), pgstore.Config{Poll: 20 * time.Millisecond})
				checkLifecycle(t, st, st)
			}
		})
	}
}

// TestMigrate_RefusesObjectsOfOtherRoles uses a schema or tables that another
// role has created or changed.
func TestMigrate_RefusesObjectsOfOtherRoles(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a server of its own")
	}
	t.Parallel()
	server := testserver.Postgres(t, "-c", "fsync=off")
	admin := pool(t, server.Addr)
	user := func(as func(*pgxpool.Config)) (name string, p *pgxpool.Pool) {
		p = pool(t, server.Addr, as, conns(3))
		return p.Config().ConnConfig.User, p
	}
	app, appPool := user(role(t, admin))
	mallory, malloryPool := user(role(t, admin))
	refuses := func(p *pgxpool.Pool, schema, want string) {
		t.Helper()
		st, err := pgstore.New(p, pgstore.Config{Schema: schema})
		require.NoError(t, err)
		err = st.Migrate(context.Background())
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "pgstore: migrating: ")
		conn, err := p.Acquire(context.Background())
		require.NoError(t, err)
		defer conn.Release()
		_, err = conn.Conn().PgConn().Exec(context.Background(), "BEGIN;"+st.Migrations()).ReadAll()
		require.ErrorContains(t, err, want)
		_, _ = conn.Exec(context.Background(), "ROLLBACK")
	}
	const keeps = `
CREATE FUNCTION %[1]s.keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE TRIGGER keeper BEFORE DELETE ON %[1]s.sessions FOR EACH ROW EXECUTE FUNCTION %[1]s.keep()`

	// Another role's empty schema, and another role's schema with tables and a
	// trigger.
	empty, full := uniqueName(), uniqueName()
	exec(t, malloryPool, `CREATE SCHEMA `+empty)
	exec(t, malloryPool, `GRANT ALL ON SCHEMA `+empty+` TO PUBLIC`)
	open(t, malloryPool, pgstore.Config{Schema: full})
	exec(t, malloryPool, `GRANT ALL ON SCHEMA `+full+` TO PUBLIC`)
	exec(t, malloryPool, `GRANT ALL ON ALL TABLES IN SCHEMA `+full+` TO PUBLIC`)
	exec(t, malloryPool, fmt.Sprintf(keeps, full))
	for _, p := range []*pgxpool.Pool{appPool, admin} { // also as a superuser
		refuses(p, empty, "the schema "+empty+" belongs to the role "+mallory)
		refuses(p, full, "the schema "+full+" belongs to the role "+mallory)
	}
	// The trigger keeps the session.
	st, err := pgstore.New(appPool, pgstore.Config{Schema: full})
	require.NoError(t, err)
	require.NoError(t, st.Create(t.Context(), session("ada", "one")))
	require.NoError(t, st.Revoke(t.Context(), auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now()}))
	_, err = st.Get(t.Context(), "ada", "one")
	require.NoError(t, err, "the trigger must keep the session for this test")

	// The owners are changed, but the trigger stays.
	exec(t, admin, `ALTER SCHEMA `+full+` OWNER TO `+app)
	refuses(appPool, full, "the table "+full+".history belongs to the role "+mallory)
	for _, table := range []string{"sessions", "revocations", "history", "migrations", "spent"} {
		refuses(appPool, full, "the table "+full+".")
		exec(t, admin, `ALTER TABLE `+full+`.`+table+` OWNER TO `+app)
	}
	refuses(appPool, full, "the table "+full+".sessions has the trigger keeper")
	exec(t, admin, `ALTER TABLE `+full+`.sessions DISABLE TRIGGER keeper`)
	refuses(appPool, full, "the table "+full+".sessions has the trigger keeper")
	exec(t, appPool, `DROP TRIGGER keeper ON `+full+`.sessions`)
	open(t, appPool, pgstore.Config{Schema: full})

	// Other ways to keep sessions alive or to hide them.
	exec(t, admin, `CREATE SCHEMA abroad`)
	exec(t, admin, `GRANT ALL ON SCHEMA abroad TO PUBLIC`)
	exec(t, malloryPool, `CREATE FUNCTION abroad.evil() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$`)
	for _, test := range []struct{ do, undo, want string }{
		{`CREATE RULE keep AS ON DELETE TO %[1]s.sessions DO INSTEAD NOTHING`, `DROP RULE keep ON %[1]s.sessions`, ".sessions has the rule keep"},
		{`ALTER TABLE %[1]s.revocations ENABLE ROW LEVEL SECURITY`, `ALTER TABLE %[1]s.revocations DISABLE ROW LEVEL SECURITY`, ".revocations has row security"},
		{`CREATE TABLE abroad.holds (s text, i text, FOREIGN KEY (s, i) REFERENCES %[1]s.sessions)`, `DROP TABLE abroad.holds`,
			".sessions has the foreign key holds_s_i_fkey of abroad.holds"},
		{`CREATE RULE keep AS ON INSERT TO %[1]s.spent DO INSTEAD NOTHING`, `DROP RULE keep ON %[1]s.spent`, ".spent has the rule keep"},
		{`CREATE TABLE abroad.child () INHERITS (%[1]s.sessions)`, `DROP TABLE abroad.child`, ".sessions is part of an inheritance hierarchy"},
		{`ALTER TABLE %[1]s.sessions ALTER user_agent SET DEFAULT abroad.evil()`,
			`ALTER TABLE %[1]s.sessions ALTER user_agent DROP DEFAULT`, ".sessions calls the function abroad.evil()"},
		{`ALTER TABLE %[1]s.sessions ADD CONSTRAINT odd CHECK (abroad.evil() <> '')`,
			`ALTER TABLE %[1]s.sessions DROP CONSTRAINT odd`, ".sessions calls the function abroad.evil()"},
		{`ALTER TABLE %[1]s.sessions RENAME TO mine; CREATE VIEW %[1]s.sessions AS SELECT * FROM %[1]s.mine`,
			`DROP VIEW %[1]s.sessions; ALTER TABLE %[1]s.mine RENAME TO sessions`, ".sessions is not a plain table"},
	} {
		run := func(sql string) {
			for one := range strings.SplitSeq(strings.ReplaceAll(sql, "%[1]s", full), ";") {
				exec(t, appPool, one)
			}
		}
		run(test.do)
		refuses(appPool, full, full+test.want)
		run(test.undo)
		open(t, appPool, pgstore.Config{Schema: full})
	}

	// Accepted owners: the role itself, a role that it is a member of, and the
	// owner of the database.
	open(t, malloryPool, pgstore.Config{Schema: uniqueName()})
	shared, sharedPool := user(role(t, admin))
	schema := uniqueName()
	open(t, sharedPool, pgstore.Config{Schema: schema})
	exec(t, admin, `GRANT USAGE ON SCHEMA `+schema+` TO PUBLIC`)
	exec(t, admin, `GRANT SELECT ON ALL TABLES IN SCHEMA `+schema+` TO PUBLIC`)
	refuses(appPool, schema, "belongs to the role "+shared)
	exec(t, admin, `ALTER DATABASE postgres OWNER TO `+shared)
	open(t, appPool, pgstore.Config{Schema: schema})
	exec(t, admin, `ALTER DATABASE postgres OWNER TO postgres`)
	exec(t, admin, `GRANT `+shared+` TO `+app)
	open(t, appPool, pgstore.Config{Schema: schema})
}
