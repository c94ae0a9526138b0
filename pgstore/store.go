package pgstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
)

const (
	defaultSchema = "ratchet"
	minPoll       = 10 * time.Millisecond
	maxPoll       = 30 * time.Second
)

// Config is what [New] needs besides the pool. It is copied. A zero field means
// the default.
type Config struct {
	_ [0]func() // keyed literals only

	// Schema is the schema of the tables: "ratchet" by default. It should have
	// no other tables. A name is 1 to 40 ASCII letters, digits and underscores,
	// and does not begin with a digit or with "pg_". Upper case is preserved.
	Schema string

	// Poll, if it is positive, is how often a waiting Changes checks the feed:
	// 10 milliseconds to 30 seconds. LISTEN is then never used. Set it for a
	// proxy that pools transactions, such as PgBouncer. Zero means LISTEN,
	// which wakes a waiting Changes at once.
	Poll time.Duration
}

// Store is an [auth.Store] in PostgreSQL. It is safe for concurrent use, and any
// number of processes may use one database. It has no connections of its own, so
// it need not be closed.
//
// If the context of a write ends while the database runs the statement, the call
// waits for the outcome, at most half a second.
type Store struct {
	pool   *pgxpool.Pool
	schema string
	poll   time.Duration
	sql    statements

	maxConns int         // size of the pool
	simple   bool        // whether the pool uses the simple protocol
	readOnly atomic.Bool // whether transactions are read-only by default
}

var _ auth.Store = (*Store)(nil)

// New returns a Store that uses pool. The error joins every problem with the
// pool and with c. New does no I/O; [Store.Migrate] creates the tables. The
// caller may use the pool for other purposes, and closes it when the Store is
// no longer used.
//
// A waiting Changes occupies a connection, so the pool must allow at least two.
// With Config.Poll, one is enough.
func New(pool *pgxpool.Pool, c Config) (*Store, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pgstore: "+format, args...)) }
	if c.Schema == "" {
		c.Schema = defaultSchema
	}
	if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`).MatchString(c.Schema) {
		bad("Config.Schema (%.60q) must be 1 to 40 letters, digits and underscores, and must not begin with a digit", c.Schema)
	} else if len(c.Schema) >= 3 && c.Schema[:3] == "pg_" {
		bad("Config.Schema (%q) must not begin with pg_, which PostgreSQL reserves", c.Schema)
	}
	switch {
	case 0 < c.Poll && c.Poll < time.Millisecond: // a number without a unit counts nanoseconds
		bad("Config.Poll (%s) is less than 1ms; missing time unit?", c.Poll)
	case c.Poll != 0 && (c.Poll < minPoll || c.Poll > maxPoll):
		bad("Config.Poll (%s) must be between %s and %s", c.Poll, minPoll, maxPoll)
	}
	switch {
	case pool == nil:
		bad("the pool is nil")
	case c.Poll == 0 && pool.Config().MaxConns < 2:
		bad("the pool allows one connection, which a waiting Changes would occupy; allow at least 2, or set Config.Poll")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	config := pool.Config()
	return &Store{
		pool: pool, schema: c.Schema, poll: c.Poll, sql: newStatements(c.Schema), maxConns: int(config.MaxConns),
		simple: config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol,
	}, nil
}

// Create implements [auth.Store]. It also deletes the expired sessions on one
// random page of the table.
func (s *Store) Create(ctx context.Context, rec auth.Session) error {
	if err := cmp.Or(ctx.Err(), rec.Check()); err != nil {
		return err
	}
	var created bool
	err := s.write(ctx, "creating a session", false, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, s.sql.create, rec.Subject, rec.ID, rec.Generation,
			iso(rec.CreatedAt), iso(rec.RotatedAt), iso(rec.ExpiresAt), rec.Device.UserAgent, address(rec.Device),
			hex.EncodeToString(rec.Opaque), tagText(rec.RetryTag, rec.Generation), hex.EncodeToString(rec.Key))
		created = tag.RowsAffected() == 1
		return err
	})
	if err == nil && !created {
		err = auth.ErrSessionExists
	}
	return err
}

// checkPossible returns [auth.ErrSessionNotFound] if no session with this subject
// and ID can exist, and the error of ctx if it has ended.
func checkPossible(ctx context.Context, subject, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if (auth.Session{Subject: subject, ID: id}).Check() != nil {
		return auth.ErrSessionNotFound
	}
	return nil
}

// Get implements [auth.Store].
func (s *Store) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := checkPossible(ctx, subject, id); err != nil {
		return auth.Session{}, err
	}
	var rec auth.Session
	err := s.do(ctx, "reading a session", true, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) (err error) {
			rec, err = scan(conn.QueryRow(ctx, s.sql.get, subject, id))
			return err
		})
	})
	if err != nil {
		return auth.Session{}, notFound(err)
	}
	return rec, nil
}

// rotateAttempts is how often Rotate tries.
const rotateAttempts = 5

// Rotate implements [auth.Store]. It is one statement if the session is
// rotated; otherwise a second statement reads the session. If the reply to the
// first is lost, the statement is repeated. Rotate then reports that nothing
// was rotated, with a session that is one generation ahead, which the caller
// treats as a retry.
func (s *Store) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return auth.Session{}, false, err
	}
	if err := checkPossible(ctx, subject, id); err != nil {
		return auth.Session{}, false, err
	}
	for range rotateAttempts {
		var rec auth.Session
		err := s.write(ctx, "rotating a session", true, func(ctx context.Context, q querier) (err error) {
			rec, err = scan(q.QueryRow(ctx, s.sql.rotate, subject, id, r.From,
				iso(r.NotAfter), iso(r.At), iso(r.ExpiresAt), r.Device.UserAgent, address(r.Device),
				tagText(r.RetryTag, r.From), hex.EncodeToString(r.SpentTag), hex.EncodeToString(r.Key), tagText(r.RetryTag, r.From+1)))
			return err
		})
		if err == nil {
			return rec, true, nil
		}
		notRotated := err // ErrNotStorable: because of the device, or of the names
		if !errors.Is(err, pgx.ErrNoRows) && !errors.Is(err, auth.ErrNotStorable) {
			return auth.Session{}, false, err
		}
		rec, err = s.Get(ctx, subject, id)
		if err == nil && errors.Is(notRotated, auth.ErrNotStorable) {
			err = notRotated
		}
		if err != nil {
			return auth.Session{}, false, err
		}
		if rec.Generation > r.From || rec.Generation == r.From && rec.RotatedAt.After(r.NotAfter) ||
			len(rec.Key) > 0 && !bytes.Equal(rec.Key, r.Key) {
			return rec, false, nil
		}
		// The session could be rotated, but the first statement did not find it:
		// it was created in between. Returning it unchanged would be wrong.
	}
	return auth.Session{}, false, fmt.Errorf("pgstore: rotating a session: gave up after %d attempts: the session is being deleted and recreated", rotateAttempts)
}

// List implements [auth.Store].
func (s *Store) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := checkPossible(ctx, subject, "any"); err != nil {
		if errors.Is(err, auth.ErrSessionNotFound) {
			err = nil
		}
		return nil, err
	}
	var list []auth.Session
	err := s.do(ctx, "listing sessions", true, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) error {
			rows, err := conn.Query(ctx, s.sql.list, subject)
			if err != nil {
				return err
			}
			list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (auth.Session, error) { return scan(row) })
			return err
		})
	})
	if err != nil && !errors.Is(err, auth.ErrNotStorable) {
		return nil, err
	}
	return list, nil
}

// Revoke implements [auth.Store]. It is one statement, which also deletes at most
// 256 expired revocations.
func (s *Store) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return err
	}
	return s.write(ctx, "revoking", true, func(ctx context.Context, q querier) error {
		before := "" // NULL for the zero Time
		if !r.Before.IsZero() {
			before = iso(r.Before)
		}
		_, err := q.Exec(ctx, s.sql.revoke, r.Subject, texts(r.Sessions), r.All, texts(r.Except), orNull(before), iso(r.Until), r.ID, r.AccessTTL.Milliseconds(), r.Reason)
		return err
	})
}

// Spend implements [auth.Store]. It is one statement, which also deletes at most
// 256 expired records. If there is a record already, a second statement reads
// whether an earlier attempt of this call inserted it, whose reply was lost.
func (s *Store) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := cmp.Or(ctx.Err(), (auth.Session{Subject: subject, ID: id, ExpiresAt: until}).Check()); err != nil {
		return err
	}
	nonce := rand.Int64() // identifies this call
	var first bool
	err := s.write(ctx, "spending", true, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, s.sql.spend, subject, id, iso(until), nonce)
		first = tag.RowsAffected() == 1
		return err
	})
	if err != nil || first {
		return err
	}
	var by int64
	err = s.do(ctx, "reading what was spent", true, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) error {
			return conn.QueryRow(ctx, s.sql.spentBy, subject, id).Scan(&by)
		})
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows): // it had expired, and has just been deleted
		return auth.ErrSpent
	case err != nil:
		return err
	case by != nonce:
		return auth.ErrSpent
	}
	return nil
}

// grace is how long a write may continue after its context has ended.
const grace = 500 * time.Millisecond

// write runs one statement that writes. If ctx ends meanwhile, write waits for
// grace: the statement could otherwise take effect after write has returned, and
// undo a later call of the same caller.
func (s *Store) write(ctx context.Context, doing string, repeatable bool, statement func(ctx context.Context, q querier) error) error {
	return s.do(ctx, doing, repeatable, func(ctx context.Context) error {
		return s.with(ctx, func(conn *pgxpool.Conn) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			late, cancel := context.WithCancel(context.WithoutCancel(ctx))
			defer cancel()
			timer := time.AfterFunc(time.Hour, cancel)
			defer timer.Stop()
			stop := context.AfterFunc(ctx, func() { timer.Reset(grace) })
			defer stop()
			if !s.readOnly.Load() {
				err := statement(late, conn)
				var pg *pgconn.PgError
				if !errors.As(err, &pg) || pg.Code != "25006" { // read_only_sql_transaction
					return err
				}
			}
			return s.writable(late, conn, statement)
		})
	})
}

// writable runs a statement in a read-write transaction, for servers with
// default_transaction_read_only. Later writes then use such a transaction at
// once.
func (s *Store) writable(ctx context.Context, conn *pgxpool.Conn, statement func(ctx context.Context, q querier) error) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := statement(ctx, tx); err != nil {
		return err
	}
	s.readOnly.Store(true)
	return tx.Commit(ctx)
}

// with calls f with a connection of the pool.
func (s *Store) with(ctx context.Context, f func(conn *pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return f(conn)
}

// acquire returns a connection of the pool with client_encoding UTF8, whatever
// the setting of the role. For the simple protocol it also turns
// standard_conforming_strings on, which the driver requires. PgBouncer tracks
// both settings for each of its clients.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	pg, set := conn.Conn().PgConn(), ""
	if pg.ParameterStatus("client_encoding") != "UTF8" {
		set = "SET client_encoding TO 'UTF8';"
	}
	if s.simple && pg.ParameterStatus("standard_conforming_strings") != "on" {
		set += "SET standard_conforming_strings TO on;"
	}
	if set != "" {
		if _, err := pg.Exec(ctx, set).ReadAll(); err != nil {
			conn.Release()
			return nil, err
		}
	}
	return conn, nil
}

// Pauses between attempts, during which a conflicting transaction can end.
const (
	firstPause = time.Millisecond
	maxPause   = 50 * time.Millisecond
)

// do runs one statement and names the operation in its error. If the database
// rolls the statement back because of a conflict, do repeats it until ctx ends;
// this happens with isolation stricter than READ COMMITTED, and with deadlocks.
// If the connection is broken, do repeats it as often as the pool has
// connections. A statement that may have taken effect is repeated only if it is
// repeatable.
func (s *Store) do(ctx context.Context, doing string, repeatable bool, statement func(ctx context.Context) error) error {
	tries := s.maxConns
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := ctx.Err()
		if err == nil {
			err = statement(ctx)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			if !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
		case isConflict(err):
			select {
			case <-ctx.Done():
			case <-time.After(pause/2 + rand.N(pause)):
			}
			continue
		case broken(err, repeatable) && tries > 0:
			tries--
			continue
		}
		if isNotStorable(err) {
			err = fmt.Errorf("%w: %w", auth.ErrNotStorable, err)
		}
		if isNotMigrated(err) {
			err = fmt.Errorf("call Store.Migrate, which creates or updates the tables: %w", err)
		}
		return fmt.Errorf("pgstore: %s: %w", doing, err)
	}
}

// isNotMigrated reports whether the schema, a table or a column does not exist.
func isNotMigrated(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "3F000" || pg.Code == "42P01" || pg.Code == "42703") // invalid_schema_name, undefined_table, undefined_column
}

// isNotStorable reports whether the encoding of the database cannot represent a
// text. This happens only if it is not UTF8, which Migrate requires.
func isNotStorable(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "22021", "22P05": // character_not_in_repertoire, untranslatable_character
		return true
	}
	return false
}

// broken reports whether err means that the connection is broken and that the
// statement may be repeated on another connection. If the server's process was
// told to end (admin_shutdown), it did not run the statement. If a connection
// just breaks, it is not known whether the statement took effect.
func broken(err error, repeatable bool) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "57P01" // admin_shutdown
	}
	var refused *pgconn.ConnectError // there is no server
	if errors.As(err, &refused) {
		return false
	}
	return pgconn.SafeToRetry(err) || repeatable && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

// isConflict reports whether a statement was rolled back because of another
// transaction.
func isConflict(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return true
	}
	return false
}

// notFound returns [auth.ErrSessionNotFound] if err means that there is no such
// row, or that its name cannot be stored. It returns any other error unchanged.
func notFound(err error) error {
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, auth.ErrNotStorable) {
		return auth.ErrSessionNotFound
	}
	return err
}

// scan reads the columns of a record.
func scan(row pgx.Row) (auth.Session, error) {
	var s auth.Session
	var created, rotated, expires int64
	var ip, data, tag, key string
	err := row.Scan(&s.Subject, &s.ID, &s.Generation, &created, &rotated, &expires, &s.Device.UserAgent, &ip, &data, &tag, &key)
	if err != nil {
		return auth.Session{}, err
	}
	s.CreatedAt, s.RotatedAt, s.ExpiresAt = fromMillis(created), fromMillis(rotated), fromMillis(expires)
	for _, field := range []struct {
		text string
		to   *[]byte
	}{{data, &s.Opaque}, {tag, &s.RetryTag}, {key, &s.Key}} {
		if field.text == "" {
			continue
		}
		if *field.to, err = hex.DecodeString(field.text); err != nil {
			return auth.Session{}, err
		}
	}
	s.RetryTag = tagOf(s.RetryTag, s.Generation)
	// The address is only informative. If it cannot be read, it is left unset.
	s.Device.IP, _ = netip.ParseAddr(ip)
	return s, nil
}

// tagText returns retry_tag in hexadecimal, for a session of a generation. Its
// last byte is that of the generation, so that the tag has no effect after a
// process has rotated the session that does not know tags.
func tagText(tag []byte, generation int64) string {
	if len(tag) == 0 {
		return hex.EncodeToString([]byte(noTag))
	}
	return hex.EncodeToString(append(slices.Clone(tag), byte(generation)))
}

// tagOf returns the RetryTag of a session from retry_tag.
func tagOf(stored []byte, generation int64) []byte {
	if len(stored) != len(noTag)+1 || stored[len(noTag)] != byte(generation) {
		return nil
	}
	return stored[:len(noTag):len(noTag)]
}

// iso returns t in ISO 8601, in whole milliseconds, which can be read with every
// DateStyle.
func iso(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000+00") }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// orNull returns text, or NULL if it is empty.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// address returns the IP address of a device, or NULL if it has none.
func address(d auth.Device) any {
	if !d.IP.IsValid() {
		return nil
	}
	return d.IP.String()
}

// texts returns list, or an empty list if it is nil, which would be NULL.
func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
