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

// What the file's header says of it. Its user_version is that of the oldest
// version of this package that may open the file.
//
// A newer version may add tables, indexes, and columns with a default, and keep
// user_version, if a process that does not know them still does right: every
// statement names its columns, so it goes on, and leaves the others as they are.
// For anything else it must raise user_version, which keeps older processes out.
const (
	applicationID = 0x52746368 // "Rtch"
	schemaVersion = 2
)

// readers is how many connections read at once.
const readers = 4

// The expiry of sessions has no index: it would be written at every refresh.
// The table cleanup holds the keys that collect and collectRevocations have reached.
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
	announcement TEXT NOT NULL DEFAULT '',
	access_ttl   INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO revocations VALUES (1, %d, '', '[]', 0, '[]', NULL, 0, 1, '', 0);
PRAGMA application_id = %d;
PRAGMA user_version = %d;
`

const sessionColumns = "subject, id, generation, created_at, rotated_at, expires_at, user_agent, ip, data"

// file is the database, open.
type file struct {
	path   string
	info   os.FileInfo
	faulty atomic.Bool // to be opened anew
	db     *sql.DB
	writer *sql.Conn // used by who holds Store.slot

	get, list, feed                                                                   *sql.Stmt   // of any connection
	insert, rotate, look, end, endAll, announce, trim, ahead, pass, reach, next, drop *sql.Stmt   // of writer
	statements                                                                        []*sql.Stmt // all of them
}

// create makes an empty file, unless there is one. It never holds the file
// itself open: to close it again would let go of the locks that others in this
// process have on it.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return link(path)
}

// link makes the file, unless another is quicker.
func link(path string) error {
	empty, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return unmade(path, err)
	}
	defer func() { _ = os.Remove(empty.Name()) }()
	if err := empty.Close(); err != nil {
		return unmade(path, err)
	}
	if err := os.Link(empty.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return unmade(path, err)
	}
	return nil
}

// unmade says that the file could not be made, and why, without the name that
// it had for the time being.
func unmade(path string, err error) error {
	return fmt.Errorf("cannot create %s: %w", path, unnamed(err))
}

// unnamed returns what an error of package os says without the name of a file.
func unnamed(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		err = l.Err
	}
	return err
}

// open opens the file at path, and makes the tables if it is empty. A
// *sqlite.Error of busy means to try again.
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
		name = "/" + name // a drive
	}
	// With mode=rw the file is never made by SQLite. What was acknowledged
	// outlives a power cut by synchronous=FULL. No view or constraint in the file
	// may call a function with an effect. A wait for a lock is ours, as
	// it ends with a context.
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
		return nil, fmt.Errorf("cannot enable WAL for %s: the journal mode is still %q", path, mode)
	}
	if missing != "" {
		if err := f.setUp(ctx); err != nil {
			return nil, err
		}
	}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	return f, f.inPlace()
}

// inspect returns the statements that make what the file lacks, and refuses what
// is not ours.
func (f *file) inspect(ctx context.Context) (missing string, err error) {
	var application, version, objects int64
	var foreign sql.NullString
	err = f.writer.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema),
		(SELECT type || ' ' || name FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1)`).
		Scan(&application, &version, &objects, &foreign)
	switch {
	case err != nil:
		return "", err
	case application == 0 && version == 0 && objects == 0:
		return fmt.Sprintf(schema, nonce(), applicationID, schemaVersion), nil
	case application != applicationID:
		return "", fmt.Errorf("%s is a database of another application", f.path)
	case version < schemaVersion:
		return "", fmt.Errorf("%s has tables of version %d, which was never released; delete the file, and with it all sessions", f.path, version)
	case version > schemaVersion:
		return "", fmt.Errorf("%s has tables of version %d, but this program supports only version %d; update the program", f.path, version, schemaVersion)
	case foreign.Valid:
		// A trigger can bring back what was revoked.
		return "", fmt.Errorf("%s contains the %s, which this package has not made: drop it, and find out who made it", f.path, foreign.String)
	}
	return "", nil
}

// setUp makes what the file lacks, unless another process has been quicker.
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
	return err // the connection is closed if there is one, which rolls back
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
		{f.db, &f.feed, `SELECT id, nonce, version, subject, sessions, all_sessions, except_ids, not_before, until, announcement, access_ttl
			FROM revocations WHERE id >= ? ORDER BY id LIMIT ?`},
		{f.writer, &f.look, get},
		{f.writer, &f.insert, "INSERT INTO sessions (" + sessionColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
		{f.writer, &f.rotate, `UPDATE sessions SET generation = CASE WHEN generation < ?3 THEN ?3 ELSE ?3 + 1 END,
			rotated_at = ?5, expires_at = ?6, user_agent = ?7, ip = ?8
			WHERE subject = ?1 AND id = ?2 AND (generation < ?3 OR generation = ?3 AND rotated_at <= ?4) RETURNING ` + sessionColumns},
		{f.writer, &f.end, "DELETE FROM sessions WHERE subject = ? AND id IN (SELECT value FROM json_each(?))"},
		{f.writer, &f.endAll, "DELETE FROM sessions WHERE subject = ? AND created_at < ? AND id NOT IN (SELECT value FROM json_each(?))"},
		{f.writer, &f.announce, "INSERT INTO revocations (nonce, subject, sessions, all_sessions, except_ids, not_before, until, announcement, access_ttl) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"},
		// A row goes after its Until, and only when the next one's has passed
		// too: readers of the feed have the row as their position until then.
		{f.writer, &f.trim, `DELETE FROM revocations WHERE id IN (SELECT id FROM
			(SELECT id, until, lead(until) OVER (ORDER BY id) AS following FROM
				(SELECT id, until FROM revocations WHERE id >= (SELECT revocation FROM cleanup) ORDER BY id LIMIT ?2 + 1))
			WHERE max(until, following) < ?1)`},
		// On to the next that was not looked at, or to the beginning.
		{f.writer, &f.pass, `UPDATE cleanup SET revocation = coalesce(?1, 0)`},
		{f.writer, &f.ahead, `SELECT id FROM revocations WHERE id >= (SELECT revocation FROM cleanup) ORDER BY id LIMIT 1 OFFSET ?`},
		{f.writer, &f.reach, "UPDATE cleanup SET subject = ?, id = ?"},
		{f.writer, &f.next, `SELECT subject, id, expires_at FROM sessions WHERE (subject, id) > (SELECT subject, id FROM cleanup)
			ORDER BY subject, id LIMIT ?`},
		{f.writer, &f.drop, "DELETE FROM sessions WHERE subject = ? AND id = ?"},
	} {
		var err error
		if *p.stmt, err = p.of.PrepareContext(ctx, p.query); err != nil {
			return err
		}
		f.statements = append(f.statements, *p.stmt)
	}
	return nil
}

// close closes the statements one by one: with one left SQLite keeps the
// connection, its locks and the log.
func (f *file) close() (err error) {
	for _, stmt := range f.statements {
		err = errors.Join(err, stmt.Close())
	}
	if f.writer != nil {
		err = errors.Join(err, f.writer.Close())
	}
	return errors.Join(err, f.db.Close())
}

// writable returns an error if the file can only be read, which SQLite says at
// the first change. This one is undone.
func (f *file) writable() error {
	ctx := context.Background()
	if _, err := f.writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		if busy(err) {
			return nil // another writes
		}
		return err
	}
	_, err := f.writer.ExecContext(ctx, "UPDATE cleanup SET id = id")
	_, undone := f.writer.ExecContext(ctx, "ROLLBACK")
	return errors.Join(err, undone)
}

// inPlace returns an error unless the file is still the one at its path. SQLite
// would write to one that was removed, and acknowledge it.
func (f *file) inPlace() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if !os.SameFile(f.info, info) {
		f.faulty.Store(true)
		return fmt.Errorf("%s has become another file", f.path)
	}
	return nil
}

// judge looks at what SQLite says: after a fault of which a connection might
// keep something, the file is opened anew.
func (f *file) judge(err error) {
	switch code(err) {
	case sqlite3.SQLITE_OK, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT:
	default:
		f.faulty.Store(true)
	}
}

// code returns SQLite's word for what went wrong, SQLITE_OK if it is not from
// SQLite.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return sqlite3.SQLITE_OK
}

// busy reports whether another process was in the way.
func busy(err error) bool {
	c := code(err)
	return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED || c == sqlite3.SQLITE_PROTOCOL
}

// collectLook is how many records a Create looks at. With it about a seventh
// of what is there is dead while sessions come and go.
const collectLook = 8

// collect looks at a few records, and removes those that have ended.
func (f *file) collect(now time.Time) error {
	rows, err := f.next.Query(collectLook)
	if err != nil {
		return err
	}
	defer rows.Close()
	var subject, id string
	var dead [][2]string
	before := collectBefore(now)
	for rows.Next() {
		var expires int64
		if err := rows.Scan(&subject, &id, &expires); err != nil {
			return err
		}
		if expires < before {
			dead = append(dead, [2]string{subject, id})
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, key := range dead {
		if _, err := f.drop.Exec(key[0], key[1]); err != nil {
			return err
		}
	}
	_, err = f.reach.Exec(subject, id) // from the beginning, if there was no more
	return err
}

// collectRevocations looks at some revocations, from where the last call has
// come to, and removes those whose time has passed. It goes on for as long as at
// least half of them go, so that many that have passed go within a few calls.
func (f *file) collectRevocations(now time.Time) error {
	for range trimRounds {
		var next sql.NullInt64
		err := f.ahead.QueryRow(trimLook).Scan(&next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		r, err := f.trim.Exec(collectBefore(now), trimLook)
		if err != nil {
			return err
		}
		if _, err := f.pass.Exec(next); err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n < trimLook/2 || !next.Valid {
			return err
		}
	}
	return nil
}

// trimLook is how many revocations are looked at together, and trimRounds how
// often at most in one call.
const (
	trimLook   = 32
	trimRounds = 32
)
