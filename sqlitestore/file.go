package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// The header of the file has these numbers; schemaVersion is user_version.
//
// A newer version of this package may add tables, indexes, and columns with a
// default, and keep schemaVersion, if processes that do not know them still work
// correctly: every statement names its columns, so they leave other columns
// unchanged. For any other change it must raise schemaVersion, so that older
// processes return an error. Version 1 was never released.
const (
	applicationID = 0x52746368 // "Rtch"
	schemaVersion = 2
)

// readers is the maximum number of connections that read.
const readers = 4

// There is no index on expires_at, since every rotation would have to update
// it. The row of cleanup has the keys that collect and collectRevocations have
// reached.
//
// The column version of revocations is the format of a row. This version can
// read only format 1; of any other row it reads only the subject. A newer
// version must write another format if a process that ignores the new columns
// would end less than the revocation should end.
const schema = `
CREATE TABLE sessions (
	subject    TEXT NOT NULL,
	id         TEXT NOT NULL,
	generation INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	rotated_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	user_agent TEXT NOT NULL,
	ip         TEXT NOT NULL,
	data       BLOB NOT NULL,
	retry_tag  BLOB NOT NULL DEFAULT x'',
	key        BLOB NOT NULL DEFAULT x'',
	PRIMARY KEY (subject, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE cleanup (subject TEXT NOT NULL, id TEXT NOT NULL, revocation INTEGER NOT NULL) STRICT;
INSERT INTO cleanup VALUES ('', '', 0);
CREATE TABLE revocations (
	id           INTEGER PRIMARY KEY,
	nonce        INTEGER NOT NULL,
	subject      TEXT NOT NULL,
	sessions     TEXT NOT NULL,
	all_sessions INTEGER NOT NULL,
	except_ids   TEXT NOT NULL,
	not_before   INTEGER,
	until        INTEGER NOT NULL,
	version      INTEGER NOT NULL DEFAULT 1,
	revocation_id TEXT NOT NULL DEFAULT '',
	access_ttl   INTEGER NOT NULL DEFAULT 0,
	reason       TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO revocations VALUES (1, %d, '', '[]', 0, '[]', NULL, 0, 1, '', 0, '');
` + createSpent + `
PRAGMA application_id = %d;
PRAGMA user_version = %d;
`

// The statements that add what a file of an earlier version lacks. Processes of
// that version continue to work.
//
// Such a process leaves retry_tag unchanged when it rotates a session. Its value
// then has the last byte of another generation, and means that the session has no
// tag. Such a process also ignores key, so sessions must not get keys before every
// process knows them.
const (
	addReason   = "ALTER TABLE revocations ADD COLUMN reason TEXT NOT NULL DEFAULT '';"
	addRetryTag = "ALTER TABLE sessions ADD COLUMN retry_tag BLOB NOT NULL DEFAULT x'';"
	addKey      = "ALTER TABLE sessions ADD COLUMN key BLOB NOT NULL DEFAULT x'';"
	createSpent = `CREATE TABLE spent (
	subject TEXT NOT NULL,
	id      TEXT NOT NULL,
	until   INTEGER NOT NULL,
	PRIMARY KEY (subject, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_until ON spent (until);`
)

const sessionColumns = "subject, id, generation, created_at, rotated_at, expires_at, user_agent, ip, data, retry_tag, key"

// file is the open database.
type file struct {
	path   string
	info   os.FileInfo
	faulty atomic.Bool // whether the file must be reopened
	db     *sql.DB
	writer *sql.Conn // guarded by Store.slot

	get, list, feed                                   *sql.Stmt   // on any connection
	insert, rotate, reread, end, endAll, publish      *sql.Stmt   // on writer
	trim, ahead, pass, reach, next, drop, spend, tidy *sql.Stmt   // on writer
	statements                                        []*sql.Stmt // all of the above
}

// create creates an empty file at path if there is none. It never opens the file
// itself: to close it would release the locks that other Stores in this process
// have on it.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return link(path)
}

// link creates the file at path, unless another process has just created it.
func link(path string) error {
	empty, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return createError(path, err)
	}
	defer func() { _ = os.Remove(empty.Name()) }()
	if err := empty.Close(); err != nil {
		return createError(path, err)
	}
	if err := os.Link(empty.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return createError(path, err)
	}
	return nil
}

// createError returns the error for a file that could not be created. It omits
// the name of the temporary file.
func createError(path string, err error) error {
	return fmt.Errorf("cannot create %s: %w", path, cause(err))
}

// cause returns the error within an error of package os, without the file name.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		err = l.Err
	}
	return err
}

// open opens the file at path, and creates the tables if the file is empty, or
// what a file of an earlier version lacks. If busy reports true for the error,
// the caller may try again.
func open(ctx context.Context, path string) (_ *file, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := guardFile(path); err != nil {
		return nil, err
	}
	name := filepath.ToSlash(path)
	if !strings.HasPrefix(name, "/") {
		name = "/" + name // a drive letter
	}
	// mode=rw: SQLite must not create the file. busy_timeout(0): this package
	// waits for locks itself, so that the wait ends with a context.
	// synchronous(FULL): acknowledged writes survive a power failure.
	// trusted_schema(0): views and constraints in the file must not call
	// functions with side effects.
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: name, RawQuery: url.Values{
		"mode":    {"rw"},
		"_pragma": {"busy_timeout(0)", "synchronous(FULL)", "fullfsync(1)", "cell_size_check(1)", "trusted_schema(0)", "journal_size_limit(4194304)"},
	}.Encode()}).String())
	if err != nil {
		return nil, err
	}
	f := &file{path: path, info: info, db: sql.OpenDB(connector)}
	f.db.SetMaxOpenConns(readers + 1)
	f.db.SetMaxIdleConns(readers + 1)
	defer func() {
		if err != nil {
			_ = f.close()
		}
		if code(err) == sqlite3.SQLITE_NOTADB {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	if f.writer, err = f.db.Conn(ctx); err != nil {
		return nil, err
	}
	missing, err := f.inspect(ctx)
	if err != nil {
		return nil, err
	}
	var mode string
	if err := f.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, fmt.Errorf("cannot enable WAL for %s: the journal mode is %q", path, mode)
	}
	if missing != "" {
		if err := f.setUp(ctx); err != nil {
			return nil, err
		}
	}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	return f, f.checkPlace()
}

// inspect returns the statements that create the tables, or what a file of an
// earlier version lacks, or "" if there is nothing to do. It returns an error if
// this package must not use the file.
func (f *file) inspect(ctx context.Context) (missing string, err error) {
	var application, version, objects int64
	var hasReason, hasRetryTag, hasKey, hasSpent bool
	var foreign sql.NullString
	err = f.writer.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema),
		(SELECT type || ' ' || name FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1),
		EXISTS (SELECT 1 FROM pragma_table_info('revocations') WHERE name = 'reason'),
		EXISTS (SELECT 1 FROM pragma_table_info('sessions') WHERE name = 'retry_tag'),
		EXISTS (SELECT 1 FROM pragma_table_info('sessions') WHERE name = 'key'),
		EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'spent')`).
		Scan(&application, &version, &objects, &foreign, &hasReason, &hasRetryTag, &hasKey, &hasSpent)
	switch {
	case err != nil:
		return "", err
	case application == 0 && version == 0 && objects == 0:
		return fmt.Sprintf(schema, nonce(), applicationID, schemaVersion), nil
	case application != applicationID:
		return "", fmt.Errorf("%s is a database of another application; give the sessions a file of their own", f.path)
	case version < schemaVersion:
		return "", fmt.Errorf("%s has tables of version %d, which was never released; delete the file, and with it all sessions", f.path, version)
	case version > schemaVersion:
		return "", fmt.Errorf("%s has tables of version %d, but this program supports only version %d; update the program", f.path, version, schemaVersion)
	case foreign.Valid:
		// A trigger could restore sessions that were revoked.
		return "", fmt.Errorf("%s contains the %s, which this package did not create; find out who created it, and drop it", f.path, foreign.String)
	}
	for _, part := range []struct {
		exists bool
		create string
	}{{hasReason, addReason}, {hasRetryTag, addRetryTag}, {hasKey, addKey}, {hasSpent, createSpent}} {
		if !part.exists {
			missing += part.create
		}
	}
	return missing, nil
}

// setUp runs the statements of inspect, unless another process has just done so.
func (f *file) setUp(ctx context.Context) error {
	if _, err := f.writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	missing, err := f.inspect(ctx)
	if err == nil && missing != "" {
		_, err = f.writer.ExecContext(ctx, missing)
	}
	if err == nil {
		_, err = f.writer.ExecContext(ctx, "COMMIT")
	}
	return err // the caller then closes the connection, which rolls back
}

func (f *file) prepare(ctx context.Context) error {
	const get = "SELECT " + sessionColumns + " FROM sessions WHERE subject = ? AND id = ?"
	for _, p := range []struct {
		of interface {
			PrepareContext(context.Context, string) (*sql.Stmt, error)
		}
		stmt  **sql.Stmt
		query string
	}{
		{f.db, &f.get, get},
		{f.db, &f.list, "SELECT " + sessionColumns + " FROM sessions WHERE subject = ? ORDER BY rotated_at DESC, id"},
		{f.db, &f.feed, `SELECT id, nonce, version, subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl, reason
			FROM revocations WHERE id >= ? ORDER BY id LIMIT ?`},
		{f.writer, &f.reread, get},
		{f.writer, &f.insert, "INSERT INTO sessions (" + sessionColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
		{f.writer, &f.rotate, `UPDATE sessions SET generation = CASE WHEN generation < ?3 THEN ?3 ELSE ?3 + 1 END,
			rotated_at = ?5, expires_at = ?6, user_agent = ?7, ip = ?8,
			retry_tag = CASE WHEN substr(retry_tag, 1, 16) = ?10 AND hex(substr(retry_tag, 17)) = printf('%02X', generation & 255) THEN x''
				WHEN generation < ?3 THEN ?9 ELSE ?12 END, key = ?11
			WHERE subject = ?1 AND id = ?2 AND (generation < ?3 OR generation = ?3 AND rotated_at <= ?4) AND key IN (x'', ?11)
			RETURNING ` + sessionColumns},
		{f.writer, &f.end, "DELETE FROM sessions WHERE subject = ? AND id IN (SELECT value FROM json_each(?))"},
		{f.writer, &f.endAll, "DELETE FROM sessions WHERE subject = ? AND created_at < ? AND id NOT IN (SELECT value FROM json_each(?))"},
		{f.writer, &f.publish, `INSERT INTO revocations (nonce, subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		// A row is deleted when it and the next row have expired. Until then it
		// may be the position of a reader.
		{f.writer, &f.trim, `DELETE FROM revocations WHERE id IN (SELECT id FROM
			(SELECT id, until, lead(until) OVER (ORDER BY id) AS following FROM
				(SELECT id, until FROM revocations WHERE id >= (SELECT revocation FROM cleanup) ORDER BY id LIMIT ?2 + 1))
			WHERE max(until, following) < ?1)`},
		// The next revocation to check, or 0 for the first.
		{f.writer, &f.pass, `UPDATE cleanup SET revocation = coalesce(?1, 0)`},
		{f.writer, &f.ahead, `SELECT id FROM revocations WHERE id >= (SELECT revocation FROM cleanup) ORDER BY id LIMIT 1 OFFSET ?`},
		{f.writer, &f.reach, "UPDATE cleanup SET subject = ?, id = ?"},
		{f.writer, &f.next, `SELECT subject, id, expires_at FROM sessions WHERE (subject, id) > (SELECT subject, id FROM cleanup)
			ORDER BY subject, id LIMIT ?`},
		{f.writer, &f.drop, "DELETE FROM sessions WHERE subject = ? AND id = ?"},
		{f.writer, &f.spend, "INSERT INTO spent (subject, id, until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"},
		{f.writer, &f.tidy, `DELETE FROM spent WHERE (subject, id) IN
			(SELECT subject, id FROM spent WHERE until < ? ORDER BY until LIMIT ?)`},
	} {
		var err error
		if *p.stmt, err = p.of.PrepareContext(ctx, p.query); err != nil {
			return err
		}
		f.statements = append(f.statements, *p.stmt)
	}
	return nil
}

// close closes every statement, since SQLite keeps a connection, its locks and
// the log while there is one.
func (f *file) close() (err error) {
	for _, stmt := range f.statements {
		err = errors.Join(err, stmt.Close())
	}
	if f.writer != nil {
		err = errors.Join(err, f.writer.Close())
	}
	return errors.Join(err, f.db.Close())
}

// writable returns an error if the file is read-only. SQLite detects this only
// at the first write, so writable writes and rolls back.
func (f *file) writable() error {
	ctx := context.Background()
	if _, err := f.writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		if busy(err) {
			return nil // another process can write
		}
		return err
	}
	_, err := f.writer.ExecContext(ctx, "UPDATE cleanup SET id = id")
	_, rollbackErr := f.writer.ExecContext(ctx, "ROLLBACK")
	return errors.Join(err, rollbackErr)
}

// checkPlace returns an error if the file at the path is no longer the file
// that was opened. SQLite would write to a deleted file without an error.
func (f *file) checkPlace() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if !os.SameFile(f.info, info) {
		f.faulty.Store(true)
		return fmt.Errorf("%s was replaced by another file", f.path)
	}
	return nil
}

// markFaulty marks the file to be reopened, unless err is known to leave the
// connection usable.
func (f *file) markFaulty(err error) {
	switch code(err) {
	case sqlite3.SQLITE_OK, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT:
	default:
		f.faulty.Store(true)
	}
}

// code returns the primary result code of an error of SQLite, or SQLITE_OK if
// err is not an error of SQLite.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return sqlite3.SQLITE_OK
}

// busy reports whether err means that another connection had a lock.
func busy(err error) bool {
	c := code(err)
	return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED || c == sqlite3.SQLITE_PROTOCOL
}

// collectSize is how many sessions a Create checks. With 8, about a seventh of
// the rows has ended while sessions come and go.
const collectSize = 8

// collect checks the next few sessions and deletes those that have ended.
func (f *file) collect(now time.Time) error {
	rows, err := f.next.Query(collectSize)
	if err != nil {
		return err
	}
	defer rows.Close()
	var subject, id string
	var ended [][2]string
	before := collectBefore(now)
	for rows.Next() {
		var expires int64
		if err := rows.Scan(&subject, &id, &expires); err != nil {
			return err
		}
		if expires < before {
			ended = append(ended, [2]string{subject, id})
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, key := range ended {
		if _, err := f.drop.Exec(key[0], key[1]); err != nil {
			return err
		}
	}
	_, err = f.reach.Exec(subject, id) // empty after the last row, so that the next call starts at the first
	return err
}

// collectRevocations checks the revocations after those that the last call
// checked, and deletes those that have expired. It continues while at least
// half of them are deleted, so that a few calls suffice to delete many.
func (f *file) collectRevocations(now time.Time) error {
	for range trimRounds {
		var next sql.NullInt64
		err := f.ahead.QueryRow(trimSize).Scan(&next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		r, err := f.trim.Exec(collectBefore(now), trimSize)
		if err != nil {
			return err
		}
		if _, err := f.pass.Exec(next); err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n < trimSize/2 || !next.Valid {
			return err
		}
	}
	return nil
}

const (
	trimSize   = 32 // revocations checked in one round
	trimRounds = 32 // maximum number of rounds in one call
)
