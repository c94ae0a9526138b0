package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
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

	maxConns int // of the pool
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
	return &Store{pool: pool, schema: c.Schema, poll: c.Poll, sql: newStatements(c.Schema), maxConns: int(pool.Config().MaxConns)}, nil
}

// Create implements [auth.Store]. On the way it deletes what has expired in one
// page of the table.
func (s *Store) Create(ctx context.Context, rec auth.Session) error {
	var created bool
	err := s.write(ctx, "creating a session", false, func(ctx context.Context, conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.sql.create, rec.Subject, rec.ID, rec.Generation,
			rec.CreatedAt.UTC(), rec.RotatedAt.UTC(), rec.ExpiresAt.UTC(), rec.Device.UserAgent, address(rec.Device), dataOf(rec))
		created = tag.RowsAffected() == 1
		return err
	})
	if err == nil && !created {
		err = auth.ErrSessionExists
	}
	return err
}

// Get implements [auth.Store].
func (s *Store) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	var rec auth.Session
	err := s.do(ctx, "reading a session", true, func(ctx context.Context) (err error) {
		rec, err = scan(s.pool.QueryRow(ctx, s.sql.get, subject, id))
		return err
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
func (s *Store) Rotate(ctx context.Context, subject, id string, from int64, use auth.Use) (auth.Session, bool, error) {
	for range rotateTries {
		var rec auth.Session
		err := s.write(ctx, "moving a session", true, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
			rec, err = scan(conn.QueryRow(ctx, s.sql.rotate, subject, id, from,
				use.Rested.UTC(), use.At.UTC(), use.ExpiresAt.UTC(), use.Device.UserAgent, address(use.Device)))
			return err
		})
		if err == nil {
			return rec, true, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return auth.Session{}, false, err
		}
		rec, err = s.Get(ctx, subject, id)
		if err != nil {
			return auth.Session{}, false, err
		}
		if rec.Generation > from || rec.Generation == from && rec.RotatedAt.After(use.Rested) {
			return rec, false, nil
		}
		// It came in between, by a Create: no order explains that it stayed.
	}
	return auth.Session{}, false, errors.New("pgstore: moving a session: others deleted and created it again and again")
}

// List implements [auth.Store].
func (s *Store) List(ctx context.Context, subject string) ([]auth.Session, error) {
	var list []auth.Session
	err := s.do(ctx, "listing sessions", true, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, s.sql.list, subject)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (auth.Session, error) { return scan(row) })
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Revoke implements [auth.Store]. It is one statement, and on the way deletes
// a few revocations whose time is over.
func (s *Store) Revoke(ctx context.Context, r auth.Revocation) error {
	return s.write(ctx, "revoking", true, func(ctx context.Context, conn *pgxpool.Conn) error {
		var cut *time.Time // NULL for the zero Time
		if !r.Cut.IsZero() {
			utc := r.Cut.UTC()
			cut = &utc
		}
		_, err := conn.Exec(ctx, s.sql.revoke, r.Subject, texts(r.Sessions), r.All, texts(r.Except), cut, r.Until.UTC())
		return err
	})
}

// grace is how long a write whose context has ended may still take.
const grace = 500 * time.Millisecond

// write carries out one statement that writes. It goes on for a moment when
// ctx ends meanwhile: given up, it could be carried out after this call has
// returned, and bring back what the caller's next call deleted.
func (s *Store) write(ctx context.Context, what string, repeatable bool, statement func(ctx context.Context, conn *pgxpool.Conn) error) error {
	return s.do(ctx, what, repeatable, func(ctx context.Context) error {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		if err := ctx.Err(); err != nil {
			return err
		}
		late, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		timer := time.AfterFunc(time.Hour, cancel)
		defer timer.Stop()
		stop := context.AfterFunc(ctx, func() { timer.Reset(grace) })
		defer stop()
		return statement(late, conn)
	})
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
		return fmt.Errorf("pgstore: %s: %w", what, err)
	}
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
	if errors.Is(err, pgx.ErrNoRows) {
		return auth.ErrSessionNotFound
	}
	return err
}

// scan reads the columns of a record.
func scan(row pgx.Row) (auth.Session, error) {
	var s auth.Session
	var ip string
	err := row.Scan(&s.Subject, &s.ID, &s.Generation, &s.CreatedAt, &s.RotatedAt, &s.ExpiresAt, &s.Device.UserAgent, &ip, &s.Data)
	if err != nil {
		return auth.Session{}, err
	}
	s.CreatedAt, s.RotatedAt, s.ExpiresAt = s.CreatedAt.UTC(), s.RotatedAt.UTC(), s.ExpiresAt.UTC()
	if len(s.Data) == 0 {
		s.Data = nil
	}
	if ip != "" {
		if s.Device.IP, err = netip.ParseAddr(ip); err != nil {
			return auth.Session{}, err
		}
	}
	return s, nil
}

// address returns the address of a device as text, "" for none. The type inet
// knows no zones.
func address(d auth.Device) string {
	if !d.IP.IsValid() {
		return ""
	}
	return d.IP.WithZone("").String()
}

// dataOf returns the data of a record, which is never NULL.
func dataOf(s auth.Session) []byte {
	if s.Data == nil {
		return []byte{}
	}
	return s.Data
}

// texts returns a list that is never NULL.
func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
