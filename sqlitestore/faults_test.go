package sqlitestore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

// undecided fails the test if an error is one of those that decide something.
func undecided(t testing.TB, err error, what string) {
	t.Helper()
	require.Error(t, err, what)
	for _, decision := range []error{auth.ErrSessionNotFound, auth.ErrSessionExists, auth.ErrFeedReset} {
		require.NotErrorIs(t, err, decision, what)
	}
}

func TestWrite_HonoursContextWhileAnotherHoldsTheLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	unlock := lock(t, path)
	for _, name := range []string{"Create", "Rotate", "Revoke"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		started := time.Now()
		require.ErrorIs(t, calls(s)[name](ctx), context.DeadlineExceeded, name)
		require.Less(t, time.Since(started), 2*time.Second, name)
		cancel()
	}
	// Who waits in the queue has a context of his own.
	patient := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { patient <- s.Create(ctx, session("ada", "never")) }()
	go func() { patient <- s.Create(ctx, session("ada", "never")) }()
	later := make(chan error, 1)
	go func() { later <- s.Create(t.Context(), session("ada", "later")) }()
	require.Eventually(t, func() bool { return s.Queued() == 3 }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-patient, context.Canceled)
	require.ErrorIs(t, <-patient, context.Canceled)
	for _, name := range []string{"Get", "List", "Changes"} { // readers do not wait
		require.NoError(t, calls(s)[name](t.Context()), name)
	}
	_, moved, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(0, use(1))) // nor does who would not move
	require.NoError(t, err)
	require.False(t, moved)
	unlock()
	require.NoError(t, <-later)
	list, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func TestWrite_FailsForNobodyElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	unlock := lock(t, path)
	errs := make([]error, 20)
	released := make(chan struct{})
	go func() {
		defer close(released)
		for s.Queued() < len(errs) {
			time.Sleep(time.Millisecond)
		}
		unlock()
	}()
	together(len(errs), func(i int) {
		if i%5 == 4 { // writes, and then fails
			errs[i] = s.Write(t.Context(), func(c *sql.Conn) error {
				_, err := c.ExecContext(t.Context(), "INSERT INTO cleanup VALUES ('half', 'half', 0)")
				return errors.Join(err, errors.New("fails"))
			})
			return
		}
		errs[i] = s.Create(t.Context(), session("ada", fmt.Sprint(i)))
	})
	<-released
	for i, err := range errs {
		if i%5 == 4 {
			require.ErrorContains(t, err, "fails")
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, 16, count(t, path, "sessions"))
	require.Equal(t, 1, count(t, path, "cleanup"))
}

func TestWrite_HonoursContextAfterItWasPutBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	unlock := lock(t, path)
	begun, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	patient, failed, waited := make(chan error, 2), make(chan error, 1), make(chan error, 1)
	create := func(ctx context.Context, id string) error { return s.Create(ctx, session("ada", id)) }
	for i, write := range []func(){ // the first leads, and the third after it
		func() { patient <- create(t.Context(), "one") },
		func() {
			failed <- s.Write(t.Context(), func(c *sql.Conn) error {
				close(begun)
				<-goOn
				_, err := c.ExecContext(t.Context(), "ROLLBACK")
				unlock = lock(t, path) // another process is next
				return errors.Join(err, errors.New("fails"))
			})
		},
		func() { patient <- create(t.Context(), "two") },
		func() { waited <- create(ctx, "three") },
	} {
		go write()
		require.Eventually(t, func() bool { return s.Queued() == i+1 }, 10*time.Second, time.Millisecond)
	}
	unlock()
	<-begun
	cancel()
	time.Sleep(20 * time.Millisecond) // for who waits to see that; with less the test proves less
	close(goOn)
	require.ErrorContains(t, <-failed, "fails")
	select {
	case err := <-waited:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(10 * time.Second):
		t.Error("a write that was put back has forgotten its context")
	}
	unlock()
	for range cap(patient) {
		require.NoError(t, <-patient)
	}
}

func TestRead_GoesOnWhileTheFileIsOpenedAnew(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	for range 100 {
		together(5, func(i int) {
			if i == 0 {
				s.Fault()
			}
			for range 10 {
				if _, err := s.Get(t.Context(), "ada", "one"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestWrite_IsNotStarvedByAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, other := open(t, path), open(t, path) // as two processes, they know nothing of each other
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var turns atomic.Int64
	busy.Go(func() {
		for ctx.Err() == nil {
			_ = other.Write(t.Context(), func(*sql.Conn) error {
				turns.Add(1)
				time.Sleep(10 * time.Millisecond) // as a slow disk does
				return nil
			})
		}
	})
	require.Eventually(t, func() bool { return turns.Load() > 0 }, 10*time.Second, time.Millisecond)
	for i := range 20 {
		require.NoError(t, s.Create(t.Context(), session("ada", fmt.Sprint(i))))
	}
	had := turns.Load()
	t.Log(had, "transactions of the other, 20 of its own")
	cancel()
	busy.Wait()
	require.Less(t, had, int64(20*4))
}

func TestFullDisk_IsAnErrorUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Exec("PRAGMA max_page_count = 40"))
	large := func(id string) auth.Session {
		big := session("ada", id)
		big.Opaque = []byte(strings.Repeat("x", 1024))
		return big
	}
	var err error
	made := []string{"one"}
	for i := range 1000 {
		id := fmt.Sprint("more-", i)
		if err = s.Create(t.Context(), large(id)); err != nil {
			break
		}
		made = append(made, id)
	}
	undecided(t, err, "Create")
	require.ErrorContains(t, err, "full")
	var full error
	for i := 0; full == nil; i++ { // deletes nothing, and may still find a place in a page
		r := revocation("ada", strings.Repeat("absent", 300))
		full = s.Revoke(t.Context(), r)
	}
	undecided(t, full, "Revoke")
	list, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, list, len(made))
	_, moved, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(1, use(0))) // takes no room
	require.NoError(t, err)
	require.True(t, moved)
	errs := make([]error, 16)
	together(len(errs), func(i int) { errs[i] = s.Create(t.Context(), large(fmt.Sprint("late-", i))) })
	for _, err := range errs {
		undecided(t, err, "Create")
	}

	require.NoError(t, s.Exec("PRAGMA max_page_count = 1000000"))
	for name, call := range calls(s) {
		require.NoError(t, call(t.Context()), name)
	}
	for _, id := range made {
		_, err := s.Get(t.Context(), "ada", id)
		require.NoError(t, err)
	}
}

func TestReadOnly_IsAnErrorUntilItIsNot(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Exec("PRAGMA query_only = 1"))
	undecided(t, s.Create(t.Context(), session("ada", "two")), "Create")
	for name, call := range calls(s) { // by a new connection
		require.NoError(t, call(t.Context()), name)
	}
}

func TestRemoved_IsAnErrorUntilItIsBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	_, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)

	require.NoError(t, os.Rename(dir, dir+".away"))
	for name, call := range calls(s) {
		err := call(t.Context())
		undecided(t, err, name)
		require.ErrorIs(t, err, os.ErrNotExist, name)
	}
	require.NoError(t, os.Rename(dir+".away", dir))
	for name, call := range calls(s) {
		require.NoError(t, call(t.Context()), name)
	}

	require.ErrorIs(t, s.Write(t.Context(), func(c *sql.Conn) error {
		_, err := c.ExecContext(t.Context(), "UPDATE cleanup SET id = 'lost'")
		return errors.Join(err, os.Rename(dir, dir+".away"))
	}), os.ErrNotExist, "it went in the middle of a write")
	require.NoError(t, os.Rename(dir+".away", dir))

	// Deleted, and a copy put in its place.
	other := open(t, filepath.Join(t.TempDir(), "other.db"))
	require.NoError(t, other.Create(t.Context(), session("ada", "copied")))
	_, err = os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	for name, call := range calls(s) {
		undecided(t, call(t.Context()), name)
	}
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, call := range calls(s) {
		undecided(t, call(t.Context()), name)
	}
	copied := filepath.Join(dir, "copy.db")
	c := open(t, copied)
	require.NoError(t, c.Create(t.Context(), session("ada", "one")))
	require.NoError(t, c.Close())
	require.NoError(t, os.Rename(copied, path))
	for name, call := range calls(s) {
		require.NoError(t, call(t.Context()), name)
	}
	_, _, _, err = s.Changes(t.Context(), next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
}

func TestCorrupt_IsAnErrorUntilItIsMended(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	for i := range 200 {
		require.NoError(t, s.Create(t.Context(), session("ada", fmt.Sprint(i))))
	}
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Close())
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Greater(t, len(good), 4*4096)

	for name, damage := range map[string]func(b []byte) []byte{
		"zeroes after the first page":  func(b []byte) []byte { clear(b[4096:]); return b },
		"garbage after the first page": func(b []byte) []byte { copy(b[4096:], strings.Repeat("garbage!", (len(b)-4096)/8)); return b },
		"cut short":                    func(b []byte) []byte { return b[:4096] },
	} {
		damaged := damage(append([]byte{}, good...))
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		s, err := sqlitestore.Open(path, sqlitestore.Config{})
		if err != nil { // seen at once
			continue
		}
		for what, call := range calls(s) {
			undecided(t, call(t.Context()), name+": "+what)
		}
		require.NoError(t, os.WriteFile(path, good, 0o600))
		for what, call := range calls(s) {
			require.NoError(t, call(t.Context()), name+": "+what)
		}
		_ = s.Close()
		require.NoError(t, os.WriteFile(path, good, 0o600))
	}
}
