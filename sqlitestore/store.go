package sqlitestore

import (
	"bytes"
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

// Store is an [auth.Store] in an SQLite file. It is safe for concurrent use. Any
// number of Stores, in any number of processes on one machine, may use one file.
type Store struct {
	path    string
	slot    chan struct{}        // full while a goroutine writes, or opens the file
	file    atomic.Pointer[file] // nil if it could not be reopened
	calls   sync.RWMutex         // read-locked during every call
	poll    time.Duration        // Config.Poll
	closing chan struct{}

	// Guarded by slot.
	held     time.Duration // how long this Store has had SQLite's lock since it last paused
	released time.Time     // when it last released the lock

	mu      sync.Mutex
	queue   []*write      // writes that are not in a transaction
	changed chan struct{} // closed and replaced when this Store has published a revocation
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

	// Poll is how often a waiting Changes checks for revocations of other
	// Stores, in this process or another: 20 milliseconds by default, at least
	// 10 milliseconds and at most 30 seconds. Revocations of the same Store are
	// returned at once, so if there is only one Store, a long interval saves
	// reads and delays nothing.
	Poll time.Duration
}

// openTimeout is how long Open waits while another process creates the tables.
const openTimeout = 10 * time.Second

// Open opens the file at path, and creates it with mode 0600 if it does not
// exist. The directory must exist, and must be on a local disk: locks do not
// work on network file systems. SQLite has two more files, path-wal and
// path-shm, while the file is open and after a crash. They belong to the
// database.
//
// Open returns an error, and does not change the file, if the file is not an
// SQLite database, belongs to another application, was written by an
// incompatible version of this package, has triggers or views, or is read-only.
//
// On Unix, Open also returns an error if another user may write to the file,
// since such a user could restore sessions that were revoked. The file and
// SQLite's other files must belong to the user of this process, and only that
// user may have write permission. The directory must belong to that user or to
// root, and others must not have write permission. The Store checks this again
// whenever it reopens the file.
//
// The path must be a file path. Open returns an error for a URI, for options
// after a question mark, and for ":memory:"; use [auth.NewMemoryStore] for
// sessions that end with the process.
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
		errs = append(errs, fmt.Errorf("sqlitestore: Config.Poll (%s) must be between %s and %s", poll, minPoll, maxPoll))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	path, err := filepath.Abs(path) // the working directory may change
	if err != nil {
		return nil, wrap("opening", err)
	}
	s := &Store{path: path, poll: poll, slot: make(chan struct{}, 1), closing: make(chan struct{}), changed: make(chan struct{})}
	if err := guardDir(path); err != nil {
		return nil, wrap("opening", err)
	}
	if err := create(path); err != nil {
		return nil, wrap("opening", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
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

// checkPath returns an error if path is empty or is a data source name of another
// driver.
func checkPath(path string) error {
	lower := strings.ToLower(path)
	switch {
	case path == "":
		return errors.New("the path is empty")
	case strings.HasPrefix(lower, ":memory:"), strings.Contains(lower, "mode=memory"):
		return fmt.Errorf("%q is not a file; use auth.NewMemoryStore for sessions that end with the process", path)
	case strings.HasPrefix(lower, "file:"), strings.HasPrefix(lower, "sqlite:"), strings.HasPrefix(lower, "sqlite3:"),
		strings.Contains(path, "://"), strings.Contains(path, "?"):
		return fmt.Errorf("%q is a URI or has options; expected the path of a file, such as sessions.db", path)
	}
	return nil
}

// Close closes the file. Calls that wait for a lock or for a revocation return an
// error; Close waits for all other calls. Later calls return an error that wraps
// [os.ErrClosed]. Later calls of Close do nothing.
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

// enter begins a call. If it returns nil, the caller must call s.calls.RUnlock.
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
			session.Device.UserAgent, addrText(session.Device.IP), blob(session.Opaque), tagBlob(session.RetryTag, session.Generation), blob(session.Key))
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

// possible reports whether a session with this subject and ID can exist.
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
	// Most calls that rotate nothing end here, without a lock.
	session, err = s.get(ctx, subject, id)
	if err != nil {
		return auth.Session{}, false, wrap("rotating a session", err)
	}
	if session.Generation > r.From || session.Generation == r.From && session.RotatedAt.After(r.NotAfter) ||
		len(session.Key) > 0 && !bytes.Equal(session.Key, r.Key) {
		return session, false, nil
	}
	missing := false
	err = s.write(ctx, func(f *file) (err error) {
		session, err = scanSession(f.rotate.QueryRow(subject, id, r.From, r.NotAfter.UnixMilli(),
			r.At.UnixMilli(), r.ExpiresAt.UnixMilli(), r.Device.UserAgent, addrText(r.Device.IP),
			tagBlob(r.RetryTag, r.From), blob(r.SpentTag), blob(r.Key), tagBlob(r.RetryTag, r.From+1)))
		if rotated = err == nil; rotated {
			return nil
		}
		if errors.Is(err, auth.ErrSessionNotFound) { // it was rotated meanwhile, or does not exist
			session, err = scanSession(f.reread.QueryRow(subject, id))
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
		_, err := f.publish.Exec(nonce(), r.Subject, sessions, r.All, except, before, r.Until.UnixMilli(), r.ID, r.AccessTTL.Milliseconds(), r.Reason)
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

// tidySize is how many records a Spend deletes, at most.
const tidySize = 64

// Spend implements [auth.Store]. It needs no means to recognize its own record:
// its transaction is repeated only after a rollback.
func (s *Store) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := s.enter(ctx, "spending"); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	if err := (auth.Session{Subject: subject, ID: id, ExpiresAt: until}).Check(); err != nil {
		return err
	}
	spent := false
	err := s.write(ctx, func(f *file) error {
		r, err := f.spend.Exec(subject, id, until.UnixMilli())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if spent = n == 0; err != nil || spent {
			return err
		}
		_, err = f.tidy.Exec(collectBefore(time.Now()), tidySize)
		return err
	})
	if err == nil && spent {
		return auth.ErrSpent
	}
	return wrap("spending", err)
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanSession(row scanner) (auth.Session, error) {
	var s auth.Session
	var created, rotated, expires int64
	var ip string
	err := row.Scan(&s.Subject, &s.ID, &s.Generation, &created, &rotated, &expires, &s.Device.UserAgent, &ip, &s.Opaque, &s.RetryTag, &s.Key)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return auth.Session{}, auth.ErrSessionNotFound
	case err != nil:
		return auth.Session{}, err
	}
	// The address is only informative. If it cannot be read, it is left unset.
	s.Device.IP, _ = netip.ParseAddr(ip)
	s.RetryTag = tagOf(s.RetryTag, s.Generation)
	s.CreatedAt, s.RotatedAt, s.ExpiresAt = fromMillis(created), fromMillis(rotated), fromMillis(expires)
	return s, nil
}

// blob returns a copy of b that is not nil, since nil would be NULL.
func blob(b []byte) []byte { return append([]byte{}, b...) }

// tagLen is the length of a RetryTag.
const tagLen = 16

// tagBlob returns retry_tag for a session of a generation. Its last byte is that
// of the generation, so that the tag has no effect after a process has rotated
// the session that does not know tags.
func tagBlob(tag []byte, generation int64) []byte {
	if len(tag) == 0 {
		return []byte{}
	}
	return append(blob(tag), byte(generation))
}

// tagOf returns the RetryTag of a session from retry_tag.
func tagOf(stored []byte, generation int64) []byte {
	if len(stored) != tagLen+1 || stored[tagLen] != byte(generation) {
		return nil
	}
	return stored[:tagLen:tagLen]
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// idsText returns both lists as JSON. Revocation.Check has checked that they are
// valid UTF-8.
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

// collectBefore returns the time before which a session or revocation must have
// ended to be deleted at now.
func collectBefore(now time.Time) int64 { return now.Add(-time.Minute).UnixMilli() }
