package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// migrationLock is the key of the advisory lock under which tables are changed.
const migrationLock = 0x7261746368657401

// firstVersion is the number of the first migration. Tables with a lower version
// were created by a version of this package that was never released.
const firstVersion = 3

// migrations returns the changes of the schema, oldest first. One that was
// published never changes. Each leaves the tables such that the release before
// works on, since old and new processes run side by side while they are
// replaced: it may add tables, indexes, and columns with a default. Statements
// name their columns, so those of the release before go on, and leave the others
// as they are. A row of revocations gets a version above 1 where a process that
// ignores what is new would end less than is meant.
//
// Names are qualified: the script runs with the caller's search_path.
func migrations(schema string) []string {
	list := []string{`
CREATE TABLE {schema}.sessions (
	generation bigint NOT NULL,
	created_at timestamp with time zone NOT NULL,
	rotated_at timestamp with time zone NOT NULL,
	expires_at timestamp with time zone NOT NULL,
	subject pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	id pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	user_agent pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	ip pg_catalog.inet,
	data pg_catalog.bytea NOT NULL,
	PRIMARY KEY (subject, id)
) WITH (fillfactor = 90);

CREATE TABLE {schema}.revocations (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	xid pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	until timestamp with time zone NOT NULL,
	not_before timestamp with time zone,
	all_sessions boolean NOT NULL,
	subject pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	sessions pg_catalog.text[] COLLATE pg_catalog."C" NOT NULL,
	except_ids pg_catalog.text[] COLLATE pg_catalog."C" NOT NULL,
	version integer NOT NULL DEFAULT 1,
	announcement pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
	access_ttl bigint NOT NULL DEFAULT 0
);
CREATE INDEX revocations_xid_id ON {schema}.revocations (xid, id);
CREATE INDEX revocations_until ON {schema}.revocations (until);

CREATE UNLOGGED TABLE {schema}.history (
	one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
	id pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
INSERT INTO {schema}.history DEFAULT VALUES;

COMMENT ON COLUMN {schema}.sessions.generation IS 'counts the refreshes of the session, from 1';
COMMENT ON COLUMN {schema}.revocations.xid IS 'the transaction that announced it: readers compare it with snapshots';
COMMENT ON TABLE {schema}.history IS 'one row, which a crash or a failover empties: transaction numbers may be used again after it';
COMMENT ON COLUMN {schema}.revocations.version IS 'of the row: with one above 1, a process of this release reads only the subject';
COMMENT ON COLUMN {schema}.revocations.access_ttl IS 'milliseconds; more than 0 makes the row a notice of the lifetime of access tokens';
`}
	for i := range list {
		list[i] = strings.ReplaceAll(strings.TrimSpace(list[i]), "{schema}", `"`+schema+`"`)
	}
	return list
}

// record returns the statement that notes a migration as done.
func record(schema string, version int) string {
	return fmt.Sprintf(`INSERT INTO "%s".migrations (version) VALUES (%d)`, schema, version)
}

// prepare makes what notes migrations.
func prepare(schema string) string {
	return fmt.Sprintf(`CREATE TABLE "%s".migrations (version integer PRIMARY KEY, applied_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now())`, schema)
}

// Migrations returns what [Store.Migrate] does to an empty database, as one
// SQL script, for those who keep migrations with a tool of their own. It holds
// no BEGIN and no COMMIT; run it in one transaction. Migrate then finds nothing
// left to do. It does no I/O.
func (s *Store) Migrations() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE SCHEMA IF NOT EXISTS \"%s\";\n", s.schema)
	fmt.Fprintf(&b, "-- An error, invalid input syntax, if others could keep sessions alive; it says how.\n")
	fmt.Fprintf(&b, "SELECT danger::integer FROM (%s) AS found (danger);\n%s;\n", dangers(s.schema), prepare(s.schema))
	for i, sql := range migrations(s.schema) {
		fmt.Fprintf(&b, "\n-- %d\n%s\n%s;\n", firstVersion+i, sql, record(s.schema, firstVersion+i))
	}
	return b.String()
}

// Migrate makes the tables, or brings those of an earlier release up to date,
// in one transaction. Any number of processes may call it at once: one works,
// the others wait for it. Where there is nothing to do it needs no rights but
// to read, and a database that a later release has migrated is left alone.
//
// It needs the right to create the schema, or to create in it where it exists,
// and an error says so if the database's encoding is not UTF8.
//
// Whoever owns a table, or has a trigger on it, decides what is in it, and can
// keep sessions alive that were revoked. So Migrate refuses a schema and tables
// that belong to another role than that of the pool, one that it is a member of,
// a superuser or the owner of the database; and tables with triggers, rules, row
// security, foreign keys or inheritance, or with expressions that call functions
// outside pg_catalog. A process that must trust another owner does not call
// Migrate.
func (s *Store) Migrate(ctx context.Context) error {
	return s.do(ctx, "migrating", false, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) error {
			// Under stricter isolation the transaction would not see what was
			// done while it waited for the lock.
			tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
			if err := s.migrate(ctx, tx); err != nil {
				return err
			}
			return tx.Commit(ctx)
		})
	})
}

// dangers returns a query for what others may have done to the schema and its
// tables, a sentence in each row.
//
// A superuser counts as a member of every role, so for that role membership says
// nothing.
func dangers(schema string) string {
	return strings.TrimSpace(strings.ReplaceAll(qualified(schema, `
WITH tables AS (
	SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relowner, c.relrowsecurity
	FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
	WHERE n.nspname {=} '{name}' AND c.relname {=} ANY (ARRAY['sessions', 'revocations', 'history', 'migrations']::pg_catalog.name[])
), owned AS (
	SELECT 'the schema ' {||} pg_catalog.quote_ident(nspname) AS what, nspowner AS owner FROM pg_catalog.pg_namespace WHERE nspname {=} '{name}'
	UNION ALL SELECT 'the table ' {||} name, relowner FROM tables
), expressions AS (
	SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AS class, d.oid, t.name FROM tables AS t JOIN pg_catalog.pg_attrdef AS d ON d.adrelid {=} t.oid
	UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, c.oid, t.name FROM tables AS t JOIN pg_catalog.pg_constraint AS c ON c.conrelid {=} t.oid
	UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid, t.name FROM tables AS t JOIN pg_catalog.pg_index AS i ON i.indrelid {=} t.oid
)
SELECT pg_catalog.format('%s belongs to the role %I, which is neither %I, nor a role that this one is a member of, nor a superuser, nor the owner of the database', what, r.rolname, current_user)
FROM owned JOIN pg_catalog.pg_roles AS r ON r.oid {=} owner JOIN pg_catalog.pg_roles AS me ON me.rolname {=} current_user
WHERE NOT (r.oid {=} me.oid OR r.rolsuper OR r.rolname {=} 'pg_database_owner'
	OR r.oid {=} (SELECT datdba FROM pg_catalog.pg_database WHERE datname {=} pg_catalog.current_database())
	OR NOT me.rolsuper AND pg_catalog.pg_has_role(r.oid, 'MEMBER'))
UNION ALL SELECT pg_catalog.format('%s is not a plain table', name) FROM tables WHERE relkind {<>} 'r'
UNION ALL SELECT pg_catalog.format('the table %s has the trigger %I', name, tgname)
FROM tables AS t JOIN pg_catalog.pg_trigger AS g ON g.tgrelid {=} t.oid WHERE NOT tgisinternal
UNION ALL SELECT pg_catalog.format('the table %s has the rule %I', name, rulename)
FROM tables AS t JOIN pg_catalog.pg_rewrite AS w ON w.ev_class {=} t.oid WHERE relkind {=} 'r'
UNION ALL SELECT pg_catalog.format('the table %s has row security', name) FROM tables WHERE relrowsecurity
UNION ALL SELECT pg_catalog.format('the table %s has the foreign key %I of %s', name, conname, conrelid::pg_catalog.regclass)
FROM tables AS t JOIN pg_catalog.pg_constraint AS c ON c.contype {=} 'f' AND (c.conrelid {=} t.oid OR c.confrelid {=} t.oid)
UNION ALL SELECT pg_catalog.format('the table %s is inherited, or inherits', name)
FROM tables AS t WHERE EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid {=} t.oid OR inhparent {=} t.oid)
UNION ALL SELECT pg_catalog.format('the table %s calls the function %s', x.name, p.oid::pg_catalog.regprocedure)
FROM expressions AS x JOIN pg_catalog.pg_depend AS d ON d.classid {=} x.class AND d.objid {=} x.oid AND d.refclassid {=} 'pg_catalog.pg_proc'::pg_catalog.regclass
	JOIN pg_catalog.pg_proc AS p ON p.oid {=} d.refobjid WHERE p.pronamespace {<>} 'pg_catalog'::pg_catalog.regnamespace
ORDER BY 1 LIMIT 1`), "{name}", schema))
}

func (s *Store) migrate(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock($1::bigint)`, int64(migrationLock)); err != nil {
		return err
	}
	var encoding string
	var hasSchema, hasTable bool
	err := tx.QueryRow(ctx, `SELECT pg_catalog.current_setting('server_encoding'),
		pg_catalog.to_regnamespace($1::pg_catalog.text) IS NOT NULL, pg_catalog.to_regclass($2::pg_catalog.text) IS NOT NULL`,
		`"`+s.schema+`"`, `"`+s.schema+`".migrations`).Scan(&encoding, &hasSchema, &hasTable)
	if err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the encoding of the database is %s; it must be UTF8", encoding)
	}
	if hasSchema {
		var danger string
		err := tx.QueryRow(ctx, dangers(s.schema)).Scan(&danger)
		if err == nil {
			return fmt.Errorf("%s; that could keep sessions alive: see the documentation of Migrate", danger)
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
	}
	version := 0
	if hasTable {
		err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(pg_catalog.max(version), 0) FROM "%s".migrations`, s.schema)).Scan(&version)
		if err != nil {
			return err
		}
	}
	if 0 < version && version < firstVersion {
		return fmt.Errorf("the schema %s has tables of version %d, which was never released; drop the schema, and with it all sessions", s.schema, version)
	}
	run := func(sql string) error {
		_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll() // several statements
		return err
	}
	if !hasSchema {
		if err := run(fmt.Sprintf(`CREATE SCHEMA "%s"`, s.schema)); err != nil {
			return err
		}
	}
	if !hasTable {
		if err := run(prepare(s.schema)); err != nil {
			return err
		}
	}
	for i, sql := range migrations(s.schema) {
		number := firstVersion + i
		if number <= version {
			continue
		}
		if err := run(sql + record(s.schema, number)); err != nil {
			return fmt.Errorf("migration %d: %w", number, err)
		}
	}
	return nil
}
