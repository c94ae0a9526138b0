package pgstore

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
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

// Config is what [New] needs beside the pool. It is copied. Zero fields have
// the default.
type Config struct {
	_ [0]func() // keyed literals only

	// Schema holds the tables, and nothing else: "ratchet" by default. It is
	// letters, digits and underscores, does not begin with a digit or with
	// "pg_", and has at most 40 characters. Upper case is kept.
	Schema string

	// Poll, if it is positive, is how often a waiting Changes looks for
	// revocations, 10 milliseconds to 30 seconds; LISTEN is then never used.
	// It is for proxies that pool transactions, such as PgBouncer. Zero means
	// LISTEN, which wakes readers at once.
	Poll time.Duration
}

// Store is an [auth.Store] in PostgreSQL. When the context of a write ends
// while the database is at it, the call waits for the outcome, at most half a
// second.
//
// It is safe for concurrent use, and for use by many processes on one database.
// It keeps nothing in this process: there is nothing to close but the pool.
type Store struct {
	pool   *pgxpool.Pool
	schema string
	poll   time.Duration
	sql    statements

	maxConns int         // of the pool
	simple   bool        // whether the pool uses the simple protocol
	readOnly atomic.Bool // whether transactions are read-only unless they say otherwise
}

var _ auth.Store = (*Store)(nil)

// New returns a Store on a pool, or every mistake in c joined, each naming its
// field. It does no I/O; [Store.Migrate] makes the tables. The pool stays the
// caller's.
//
// A call of Changes that waits keeps a connection meanwhile, so the pool must
// allow two or more; with Config.Poll one is enough.
func New(pool *pgxpool.Pool, c Config) (*Store, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pgstore: "+format, args...)) }
	if c.Schema == "" {
		c.Schema = defaultSchema
	}
	if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`).MatchString(c.Schema) {
		bad("Config.Schema (%.60q) is not 1 to 40 letters, digits and underscores that begin with no digit", c.Schema)
	} else if len(c.Schema) >= 3 && c.Schema[:3] == "pg_" {
		bad("Config.Schema (%q) begins with pg_, which PostgreSQL keeps to itself", c.Schema)
	}
	switch {
	case 0 < c.Poll && c.Poll < time.Millisecond: // a number without a unit counts nanoseconds
		bad("Config.Poll (%s) is less than 1ms; missing time unit?", c.Poll)
	case c.Poll != 0 && (c.Poll < minPoll || c.Poll > maxPoll):
		bad("Config.Poll (%s) is not between %s and %s", c.Poll, minPoll, maxPoll)
	}
	switch {
	case pool == nil:
		bad("the pool is nil")
	case c.Poll == 0 && pool.Config().MaxConns < 2:
		bad("the pool allows one connection, which a waiting reader of the feed would occupy; allow 2 or more, or set Config.Poll")
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

// Create implements [auth.Store]. On the way it deletes what has expired in one
// page of the table.
func (s *Store) Create(ctx context.Context, rec auth.Session) error {
	if err := cmp.Or(ctx.Err(), rec.Check()); err != nil {
		return err
	}
	var created bool
	err := s.write(ctx, "creating a session", false, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, s.sql.create, rec.Subject, rec.ID, rec.Generation,
			iso(rec.CreatedAt), iso(rec.RotatedAt), iso(rec.ExpiresAt), rec.Device.UserAgent, address(rec.Device), hex.EncodeToString(rec.Opaque))
		created = tag.RowsAffected() == 1
		return err
	})
	if err == nil && !created {
		err = auth.ErrSessionExists
	}
	return err
}

// possible returns [auth.ErrSessionNotFound] if there can be no session of this
// subject and ID.
func possible(ctx context.Context, subject, id string) error {
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
	if err := possible(ctx, subject, id); err != nil {
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
		return auth.Session{}, absent(err)
	}
	return rec, nil
}

// rotateTries bounds how often Rotate begins again.
const rotateTries = 5

// Rotate implements [auth.Store]. It is one statement if the session moves, and
// another that reads it if it does not. If the answer of the first is lost, it
// is repeated, and says "not moved, one generation on", which the core takes
// for a repeat.
func (s *Store) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return auth.Session{}, false, err
	}
	if err := possible(ctx, subject, id); err != nil {
		return auth.Session{}, false, err
	}
	for range rotateTries {
		var rec auth.Session
		err := s.write(ctx, "rotating a session", true, func(ctx context.Context, q querier) (err error) {
			rec, err = scan(q.QueryRow(ctx, s.sql.rotate, subject, id, r.From,
				iso(r.NotAfter), iso(r.At), iso(r.ExpiresAt), r.Device.UserAgent, address(r.Device)))
			return err
		})
		if err == nil {
			return rec, true, nil
		}
		refused := err // the device, or the session's name
		if !errors.Is(err, pgx.ErrNoRows) && !errors.Is(err, auth.ErrNotStorable) {
			return auth.Session{}, false, err
		}
		rec, err = s.Get(ctx, subject, id)
		if err == nil && errors.Is(refused, auth.ErrNotStorable) {
			err = refused
		}
		if err != nil {
			return auth.Session{}, false, err
		}
		if rec.Generation > r.From || rec.Generation == r.From && rec.RotatedAt.After(r.NotAfter) {
			return rec, false, nil
		}
		// It came in between, by a Create: no order explains that it stayed.
	}
	return auth.Session{}, false, errors.New("pgstore: rotating a session: gave up after 5 attempts: the session is being deleted and recreated")
}

// List implements [auth.Store].
func (s *Store) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := possible(ctx, subject, "any"); err != nil {
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

// Revoke implements [auth.Store]. It is one statement, and on the way deletes
// revocations whose time is over, at most 256.
func (s *Store) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return err
	}
	return s.write(ctx, "revoking", true, func(ctx context.Context, q querier) error {
		cut := "" // NULL for the zero Time
		if !r.Before.IsZero() {
			cut = iso(r.Before)
		}
		_, err := q.Exec(ctx, s.sql.revoke, r.Subject, texts(r.Sessions), r.All, texts(r.Except), orNull(cut), iso(r.Until), r.ID, r.AccessTTL.Milliseconds())
		return err
	})
}

// grace is how long a write whose context has ended may still take.
const grace = 500 * time.Millisecond

// write carries out one statement that writes. It goes on for a moment when
// ctx ends meanwhile: given up, it could be carried out after this call has
// returned, and bring back what the caller's next call deleted.
func (s *Store) write(ctx context.Context, what string, repeatable bool, statement func(ctx context.Context, q querier) error) error {
	return s.do(ctx, what, repeatable, func(ctx context.Context) error {
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

// writable carries out a statement in a transaction that may write although
// default_transaction_read_only says otherwise. Once that was needed, later
// statements begin with it.
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

// acquire returns a connection of the pool on which text is UTF-8, as it is in
// Go, whatever the role's client_encoding is. The driver refuses the simple
// protocol where backslashes in literals are special, so there they are not.
// Both settings are among those that PgBouncer keeps for each of its clients.
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

// pauses between attempts, in which the other side of a conflict ends.
const (
	firstPause = time.Millisecond
	maxPause   = 50 * time.Millisecond
)

// do carries out one statement. It does so again until ctx ends when the
// database gave it up for the sake of another transaction, which it does under
// stricter isolation than READ COMMITTED; and a few times when the connection
// had died in the pool. What may have been carried out is repeated only if that
// changes nothing.
func (s *Store) do(ctx context.Context, what string, repeatable bool, statement func(ctx context.Context) error) error {
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
		case conflict(err):
			select {
			case <-ctx.Done():
			case <-time.After(pause/2 + rand.N(pause)):
			}
			continue
		case died(err, repeatable) && tries > 0:
			tries--
			continue
		}
		if impossible(err) {
			err = fmt.Errorf("%w: %w", auth.ErrNotStorable, err)
		}
		return fmt.Errorf("pgstore: %s: %w", what, err)
	}
}

// impossible reports whether the database cannot represent a text at all. Its
// encoding is then not UTF8, as Migrate demands.
func impossible(err error) bool {
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

// died reports whether a connection is gone and the statement may be tried on
// another. The server says so instead of carrying a statement out when its
// process was told to end; a connection that just breaks leaves it open whether
// it was carried out.
func died(err error, repeatable bool) bool {
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

// conflict reports whether a statement was undone for the sake of another.
func conflict(err error) bool {
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

// absent tells that there is no such session from that nobody knows.
func absent(err error) error {
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, auth.ErrNotStorable) {
		return auth.ErrSessionNotFound
	}
	return err
}

// scan reads the columns of a record.
func scan(row pgx.Row) (auth.Session, error) {
	var s auth.Session
	var created, rotated, expires int64
	var ip, data string
	err := row.Scan(&s.Subject, &s.ID, &s.Generation, &created, &rotated, &expires, &s.Device.UserAgent, &ip, &data)
	if err != nil {
		return auth.Session{}, err
	}
	s.CreatedAt, s.RotatedAt, s.ExpiresAt = fromMillis(created), fromMillis(rotated), fromMillis(expires)
	if data != "" {
		if s.Opaque, err = hex.DecodeString(data); err != nil {
			return auth.Session{}, err
		}
	}
	// The address tells only where the session was used. One that cannot be
	// read is unknown.
	s.Device.IP, _ = netip.ParseAddr(ip)
	return s, nil
}

// iso returns t in whole milliseconds as every DateStyle reads it.
func iso(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000+00") }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// orNull returns the text, or NULL if it is empty.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// address returns the address of a device, or NULL.
func address(d auth.Device) any {
	if !d.IP.IsValid() {
		return nil
	}
	return d.IP.String()
}

// texts returns a list that is never NULL.
func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
