package pgstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// migrationLock is the key of the advisory lock under which tables are changed.
const migrationLock = 0x7261746368657401

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
	cut timestamp with time zone,
	everything boolean NOT NULL,
	subject pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	sessions pg_catalog.text[] COLLATE pg_catalog."C" NOT NULL,
	except_ids pg_catalog.text[] COLLATE pg_catalog."C" NOT NULL
);
CREATE INDEX revocations_xid ON {schema}.revocations (xid);
CREATE INDEX revocations_until ON {schema}.revocations (until);

CREATE UNLOGGED TABLE {schema}.history (
	one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
	id pg_catalog.uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
INSERT INTO {schema}.history DEFAULT VALUES;

COMMENT ON COLUMN {schema}.sessions.generation IS 'counts the refreshes of the session, from 1';
COMMENT ON COLUMN {schema}.revocations.xid IS 'the transaction that announced it: readers compare it with snapshots';
COMMENT ON TABLE {schema}.history IS 'one row, which a crash or a failover empties: transaction numbers may be used again after it';
`, `
ALTER TABLE {schema}.revocations
	ADD COLUMN version integer NOT NULL DEFAULT 1,
	ADD COLUMN announcement pg_catalog.text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
	ADD COLUMN access_ttl bigint NOT NULL DEFAULT 0;
CREATE INDEX revocations_xid_id ON {schema}.revocations (xid, id);
DROP INDEX {schema}.revocations_xid;

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
	fmt.Fprintf(&b, "CREATE SCHEMA IF NOT EXISTS \"%s\";\n%s;\n", s.schema, prepare(s.schema))
	for i, sql := range migrations(s.schema) {
		fmt.Fprintf(&b, "\n-- %d\n%s\n%s;\n", i+1, sql, record(s.schema, i+1))
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
func (s *Store) Migrate(ctx context.Context) error {
	return s.do(ctx, "migrating", false, func(ctx context.Context) error {
		// Under stricter isolation the transaction would not see what was done
		// while it waited for the lock.
		tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		if err := s.migrate(ctx, tx); err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
}

func (s *Store) migrate(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock($1::bigint)`, int64(migrationLock)); err != nil {
		return err
	}
	var encoding string
	var hasSchema, hasTable bool
	err := tx.QueryRow(ctx, `SELECT current_setting('server_encoding'), to_regnamespace($1::text) IS NOT NULL, to_regclass($2::text) IS NOT NULL`,
		`"`+s.schema+`"`, `"`+s.schema+`".migrations`).Scan(&encoding, &hasSchema, &hasTable)
	if err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the encoding of the database is %s; it must be UTF8", encoding)
	}
	version := 0
	if hasTable {
		err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(max(version), 0) FROM "%s".migrations`, s.schema)).Scan(&version)
		if err != nil {
			return err
		}
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
		if i < version {
			continue
		}
		if err := run(sql + record(s.schema, i+1)); err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	return nil
}
