package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// migrationLock is the key of the advisory lock that Migrate holds.
const migrationLock = 0x7261746368657401

// firstVersion is the version of the first migration. Tables of a lower version
// were created by a version of this package that was never released.
const firstVersion = 3

// migrations returns the migrations, oldest first. A released migration must
// not change. Since old and new processes use the tables together while they
// are replaced, the previous release must work after each migration: it may
// only add tables, indexes, and columns with a default. Statements name their
// columns, so those of the previous release still work and leave new columns
// unchanged. If a process that ignores the new columns would end less than a
// revocation should end, the new release must write that row with a version
// above 1.
//
// A process that ignores the column retry_tag leaves it unchanged when it rotates
// a session. Its value then has the last byte of another generation, and means
// that the session has no tag. Such a process also ignores the column key, so
// sessions must not get keys before every process knows them.
//
// Names are qualified, since the script runs with the caller's search_path.
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
	revocation_id pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
	access_ttl bigint NOT NULL DEFAULT 0
);
CREATE INDEX revocations_xid_id ON {schema}.revocations (xid, id);
CREATE INDEX revocations_until ON {schema}.revocations (until);

CREATE UNLOGGED TABLE {schema}.history (
	one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
	id pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
INSERT INTO {schema}.history DEFAULT VALUES;

COMMENT ON COLUMN {schema}.sessions.generation IS 'starts at 1; each rotation adds 1';
COMMENT ON COLUMN {schema}.revocations.xid IS 'the transaction that inserted the row; readers compare it with snapshots';
COMMENT ON TABLE {schema}.history IS 'one row; a crash or a failover empties the table, and transaction numbers may be reused after it';
COMMENT ON COLUMN {schema}.revocations.version IS 'the format of the row; if it is above 1, this release reads only the subject';
COMMENT ON COLUMN {schema}.revocations.access_ttl IS 'in milliseconds; if it is positive, the row is a notice: access tokens with this lifetime may exist';
`, `
ALTER TABLE {schema}.revocations ADD COLUMN reason pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT '';
COMMENT ON COLUMN {schema}.revocations.reason IS 'why it was made, one word; informative';
`, `
ALTER TABLE {schema}.sessions
	ADD COLUMN retry_tag pg_catalog.bytea NOT NULL DEFAULT '----------------',
	ADD COLUMN key pg_catalog.bytea NOT NULL DEFAULT '';
COMMENT ON COLUMN {schema}.sessions.retry_tag IS 'identifies the retry key of the last rotation: 16 bytes, and the last byte of the generation; otherwise 16 hyphens, so that rows keep their size';
COMMENT ON COLUMN {schema}.sessions.key IS 'the public key to which the session is bound; empty without one';

CREATE TABLE {schema}.spent (
	until timestamp with time zone NOT NULL,
	nonce bigint NOT NULL,
	subject pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	id pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	PRIMARY KEY (subject, id)
);
CREATE INDEX spent_until ON {schema}.spent (until);
COMMENT ON TABLE {schema}.spent IS 'what was used and may be used only once';
COMMENT ON COLUMN {schema}.spent.nonce IS 'the call that inserted the row';
`}
	for i := range list {
		list[i] = strings.ReplaceAll(strings.TrimSpace(list[i]), "{schema}", `"`+schema+`"`)
	}
	return list
}

// record returns the statement that records a migration.
func record(schema string, version int) string {
	return fmt.Sprintf(`INSERT INTO "%s".migrations (version) VALUES (%d)`, schema, version)
}

// prepare returns the statement that creates the table migrations.
func prepare(schema string) string {
	return fmt.Sprintf(`CREATE TABLE "%s".migrations (version integer PRIMARY KEY, applied_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now())`, schema)
}

// Migrations returns the SQL script that [Store.Migrate] runs on an empty
// database, for use with a migration tool. The script has no BEGIN and no
// COMMIT; run it in one transaction. After it, Migrate has nothing to do.
// Migrations does no I/O.
func (s *Store) Migrations() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE SCHEMA IF NOT EXISTS \"%s\";\n", s.schema)
	fmt.Fprintf(&b, "-- Fails with \"invalid input syntax\" and the reason if another role could keep sessions alive.\n")
	fmt.Fprintf(&b, "SELECT danger::integer FROM (%s) AS found (danger);\n%s;\n", dangers(s.schema), prepare(s.schema))
	for i, sql := range migrations(s.schema) {
		fmt.Fprintf(&b, "\n-- %d\n%s\n%s;\n", firstVersion+i, sql, record(s.schema, firstVersion+i))
	}
	return b.String()
}

// Migrate creates the tables, or migrates those of an earlier release, in one
// transaction. Any number of processes may call it at once; they wait for each
// other. It does nothing if a later release has migrated the tables.
//
// Migrate needs the privilege to create the schema, or to create tables in it
// if it exists. To migrate the tables of an earlier release, it must own them.
// If there is nothing to do, it only needs to read. It returns an
// error if the encoding of the database is not UTF8.
//
// Whoever owns a table or has a trigger on it can keep sessions alive that were
// revoked, and let a one-time token be used again. So Migrate returns an error if
// the schema or a table belongs to a role other than that of the pool, a role that
// it is a member of, a superuser, or the owner of the database. It also returns an error if a table has
// triggers, rules, row security, foreign keys or inheritance, or an expression
// that calls a function outside pg_catalog. A process that must trust another
// owner does not call Migrate.
func (s *Store) Migrate(ctx context.Context) error {
	return s.do(ctx, "migrating", false, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) error {
			// With stricter isolation the transaction would not see changes that
			// were made while it waited for the lock.
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

// dangers returns a query whose rows say how another role could keep sessions
// alive.
//
// pg_has_role is true for a superuser and every role, so membership is not
// considered if the current role is a superuser.
func dangers(schema string) string {
	return strings.TrimSpace(strings.ReplaceAll(qualified(schema, `
WITH tables AS (
	SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relowner, c.relrowsecurity
	FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
	WHERE n.nspname {=} '{name}' AND c.relname {=} ANY (ARRAY['sessions', 'revocations', 'history', 'spent', 'migrations']::pg_catalog.name[])
), owned AS (
	SELECT 'the schema ' {||} pg_catalog.quote_ident(nspname) AS what, nspowner AS owner FROM pg_catalog.pg_namespace WHERE nspname {=} '{name}'
	UNION ALL SELECT 'the table ' {||} name, relowner FROM tables
), expressions AS (
	SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AS class, d.oid, t.name
		FROM tables AS t JOIN pg_catalog.pg_attrdef AS d ON d.adrelid {=} t.oid
	UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, c.oid, t.name
		FROM tables AS t JOIN pg_catalog.pg_constraint AS c ON c.conrelid {=} t.oid
	UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, i.indexrelid, t.name
		FROM tables AS t JOIN pg_catalog.pg_index AS i ON i.indrelid {=} t.oid
)
SELECT pg_catalog.format('%1$s belongs to the role %2$I, which is neither %3$I, nor a role that %3$I is a member of, '
	'nor a superuser, nor the owner of the database', what, r.rolname, current_user)
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
UNION ALL SELECT pg_catalog.format('the table %s is part of an inheritance hierarchy', name)
FROM tables AS t WHERE EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid {=} t.oid OR inhparent {=} t.oid)
UNION ALL SELECT pg_catalog.format('the table %s calls the function %s', x.name, p.oid::pg_catalog.regprocedure)
FROM expressions AS x JOIN pg_catalog.pg_depend AS d ON d.classid {=} x.class AND d.objid {=} x.oid
	AND d.refclassid {=} 'pg_catalog.pg_proc'::pg_catalog.regclass
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
			return fmt.Errorf("%s, which could keep sessions alive; see the documentation of Migrate", danger)
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
