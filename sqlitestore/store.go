package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// Store is an [auth.Store] in one SQLite file. It is safe for concurrent use,
// and any number of Stores, in any number of processes of one machine, may have
// the same file open.
type Store struct {
	path    string
	slot    chan struct{}        // full while somebody writes, or opens the file
	file    atomic.Pointer[file] // nil if it could not be opened again
	calls   sync.RWMutex         // read-locked during every call
	poll    time.Duration        // how often Changes looks for what others have announced
	closing chan struct{}

	// Of who has the slot.
	held     time.Duration // how long SQLite's lock was, since it was last left to others
	released time.Time     // when it last was

	mu      sync.Mutex
	queue   []*write      // that nobody has begun to carry out
	changed chan struct{} // closed, and replaced, when this Store has announced something
}

const (
	defaultPoll = 20 * time.Millisecond
	minPoll     = 10 * time.Millisecond
	maxPoll     = 30 * time.Second
)

// Config is what [Open] needs besides the path. It is copied. A zero field means
// the default.
type Config struct {
	_ [0]func() // keyed literals only

	// Poll is how often a waiting Changes looks for revocations that other
	// processes, or other Stores in this one, have published: 10 milliseconds to
	// 30 seconds, 20 milliseconds by default. Revocations of this Store itself
	// are returned at once. If no other process uses the file, a long interval
	// saves idle wake-ups and delays nothing.
	Poll time.Duration
}

// openPatience is how long Open waits while another process sets the file up.
const openPatience = 10 * time.Second

// Open opens the store in the file at path, and makes the file, with mode 0600,
// if there is none. The folder must exist, and be on a disk of this machine:
// locks do not work on network file systems. Beside the file SQLite keeps two
// others while it is open, and after a crash: path-wal and path-shm. They belong
// to it.
//
// Open refuses a file that is not an SQLite database, one of another
// application, one that a newer version of this package has written such that
// this one may not open it, one with triggers or views, and one that may not be
// written; it changes none of them.
//
// It also refuses a file that somebody else may write, since they can bring back
// sessions that were revoked: the file, and what SQLite keeps beside it, belong
// to the user of this process, and only that user may write them. The folder
// belongs to the user or to root, and no others may write it. This is looked at
// whenever the file is opened, on Unix only.
//
// The path is that of a file. A URI, options after a question mark, and
// ":memory:" are refused: for sessions that end with the process there is
// [auth.NewMemoryStore].
func Open(path string, c Config) (*Store, error) {
	var errs []error
	if err := checkPath(path); err != nil {
		errs = append(errs, wrap("opening", err))
	}
	poll := cmp.Or(c.Poll, defaultPoll)
	switch {
	case 0 < poll && poll < time.Millisecond: // a number without a unit counts nanoseconds
		errs = append(errs, fmt.Errorf("sqlitestore: Config.Poll (%s) is less than 1ms; missing time unit?", poll))
	case poll < minPoll || poll > maxPoll:
		errs = append(errs, fmt.Errorf("sqlitestore: Config.Poll (%s) is not between %s and %s", poll, minPoll, maxPoll))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	path, err := filepath.Abs(path) // the working directory may change
	if err != nil {
		return nil, wrap("opening", err)
	}
	s := &Store{path: path, poll: poll, slot: make(chan struct{}, 1), closing: make(chan struct{}), changed: make(chan struct{})}
	if err := guardFolder(path); err != nil {
		return nil, wrap("opening", err)
	}
	if err := create(path); err != nil {
		return nil, wrap("opening", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	f, err := s.current(ctx)
	if err != nil {
		return nil, wrap("opening", err)
	}
	if err := f.writable(); err != nil {
		_ = f.close()
		return nil, wrap("opening", err)
	}
	return s, nil
}

// checkPath returns an error if the path is what other programs give SQLite
// instead of one.
func checkPath(path string) error {
	lower := strings.ToLower(path)
	switch {
	case path == "":
		return errors.New("the path is empty")
	case strings.HasPrefix(lower, ":memory:"), strings.Contains(lower, "mode=memory"):
		return fmt.Errorf("%q is no file: for sessions that end with the process use auth.NewMemoryStore", path)
	case strings.HasPrefix(lower, "file:"), strings.HasPrefix(lower, "sqlite:"), strings.HasPrefix(lower, "sqlite3:"),
		strings.Contains(path, "://"), strings.Contains(path, "?"):
		return fmt.Errorf("%q looks like a URI with options: give the path of the file, such as sessions.db", path)
	}
	return nil
}

// Close ends the calls that wait for something, with an error, waits for the
// others, and closes the file. Later calls return an error that is
// [os.ErrClosed]. Close may be called again, and then does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	select {
	case <-s.closing:
	default:
		close(s.closing)
	}
	s.mu.Unlock()
	s.calls.Lock()
	defer s.calls.Unlock()
	if f := s.file.Swap(nil); f != nil {
		return f.close()
	}
	return nil
}

// enter begins a call. If it returns nil, s.calls.RUnlock ends it.
func (s *Store) enter(ctx context.Context, doing string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.calls.RLock()
	select {
	case <-s.closing:
		s.calls.RUnlock()
		return wrap(doing, os.ErrClosed)
	default:
		return nil
	}
}

// Create implements [auth.Store].
func (s *Store) Create(ctx context.Context, session auth.Session) error {
	if err := s.enter(ctx, "creating a session"); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	if err := session.Check(); err != nil {
		return err
	}
	exists := false
	err := s.write(ctx, func(f *file) error {
		if err := f.collect(time.Now()); err != nil {
			return err
		}
		r, err := f.insert.Exec(session.Subject, session.ID, session.Generation,
			session.CreatedAt.UnixMilli(), session.RotatedAt.UnixMilli(), session.ExpiresAt.UnixMilli(),
			session.Device.UserAgent, addrText(session.Device.IP), append([]byte{}, session.Opaque...))
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		exists = n == 0
		return err
	})
	if err == nil && exists {
		return auth.ErrSessionExists
	}
	return wrap("creating a session", err)
}

// Get implements [auth.Store].
func (s *Store) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := s.enter(ctx, "reading a session"); err != nil {
		return auth.Session{}, err
	}
	defer s.calls.RUnlock()
	if !possible(subject, id) {
		return auth.Session{}, auth.ErrSessionNotFound
	}
	session, err := s.get(ctx, subject, id)
	return session, wrap("reading a session", err)
}

// possible reports whether there can be a session of this subject and ID.
func possible(subject, id string) bool {
	return auth.Session{Subject: subject, ID: id}.Check() == nil
}

func (s *Store) get(ctx context.Context, subject, id string) (session auth.Session, err error) {
	err = s.read(ctx, func(f *file) error {
		session, err = scanSession(f.get.QueryRowContext(ctx, subject, id))
		return err
	})
	return session, err
}

// Rotate implements [auth.Store].
func (s *Store) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (session auth.Session, rotated bool, err error) {
	if err := s.enter(ctx, "rotating a session"); err != nil {
		return auth.Session{}, false, err
	}
	defer s.calls.RUnlock()
	if err := r.Check(); err != nil {
		return auth.Session{}, false, err
	}
	if !possible(subject, id) {
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	// Most of those that do not move are told so without the lock.
	session, err = s.get(ctx, subject, id)
	if err != nil {
		return auth.Session{}, false, wrap("rotating a session", err)
	}
	if session.Generation > r.From || session.Generation == r.From && session.RotatedAt.After(r.NotAfter) {
		return session, false, nil
	}
	missing := false
	err = s.write(ctx, func(f *file) (err error) {
		session, err = scanSession(f.rotate.QueryRow(subject, id, r.From, r.NotAfter.UnixMilli(),
			r.At.UnixMilli(), r.ExpiresAt.UnixMilli(), r.Device.UserAgent, addrText(r.Device.IP)))
		if rotated = err == nil; rotated {
			return nil
		}
		if errors.Is(err, auth.ErrSessionNotFound) { // it has rotated meanwhile, or is gone
			session, err = scanSession(f.look.QueryRow(subject, id))
		}
		if missing = errors.Is(err, auth.ErrSessionNotFound); missing {
			return nil
		}
		return err
	})
	if err == nil && missing {
		err = auth.ErrSessionNotFound
	}
	if err != nil {
		return auth.Session{}, false, wrap("rotating a session", err)
	}
	return session, rotated, nil
}

// List implements [auth.Store].
func (s *Store) List(ctx context.Context, subject string) (list []auth.Session, err error) {
	if err := s.enter(ctx, "listing sessions"); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	if !possible(subject, "any") {
		return nil, nil
	}
	err = s.read(ctx, func(f *file) error {
		list = nil
		rows, err := f.list.QueryContext(ctx, subject)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			session, err := scanSession(rows)
			if err != nil {
				return err
			}
			list = append(list, session)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, wrap("listing sessions", err)
	}
	return list, nil
}

// Revoke implements [auth.Store].
func (s *Store) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := s.enter(ctx, "revoking"); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	if err := r.Check(); err != nil {
		return err
	}
	sessions, except, err := idsText(r.Sessions, r.Except)
	if err != nil {
		return wrap("revoking", err)
	}
	err = s.write(ctx, func(f *file) error {
		if len(r.Sessions) > 0 {
			if _, err := f.end.Exec(r.Subject, sessions); err != nil {
				return err
			}
		}
		if r.All {
			if _, err := f.endAll.Exec(r.Subject, r.Before.UnixMilli(), except); err != nil {
				return err
			}
		}
		if err := f.collectRevocations(time.Now()); err != nil {
			return err
		}
		before := sql.NullInt64{Int64: r.Before.UnixMilli(), Valid: !r.Before.IsZero()}
		_, err := f.announce.Exec(nonce(), r.Subject, sessions, r.All, except, before, r.Until.UnixMilli(), r.ID, r.AccessTTL.Milliseconds())
		return err
	})
	if err != nil {
		return wrap("revoking", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanSession(row scanner) (auth.Session, error) {
	var s auth.Session
	var created, rotated, expires int64
	var ip string
	err := row.Scan(&s.Subject, &s.ID, &s.Generation, &created, &rotated, &expires, &s.Device.UserAgent, &ip, &s.Opaque)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return auth.Session{}, auth.ErrSessionNotFound
	case err != nil:
		return auth.Session{}, err
	}
	// The address tells only where the session was used. One that cannot be
	// read is unknown.
	s.Device.IP, _ = netip.ParseAddr(ip)
	s.CreatedAt, s.RotatedAt, s.ExpiresAt = fromMillis(created), fromMillis(rotated), fromMillis(expires)
	return s, nil
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// idsText returns both as JSON. They are valid UTF-8: Revocation.Check has let
// them pass.
func idsText(sessions, except []string) (string, string, error) {
	a, err := json.Marshal(append([]string{}, sessions...))
	if err != nil {
		return "", "", err
	}
	b, err := json.Marshal(append([]string{}, except...))
	if err != nil {
		return "", "", err
	}
	return string(a), string(b), nil
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// collectBefore is the time before which something must have ended to be
// collected now.
func collectBefore(now time.Time) int64 { return now.Add(-time.Minute).UnixMilli() }
