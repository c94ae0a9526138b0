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

// requireFault checks that err is an error, and none of those that are results.
func requireFault(t testing.TB, err error, what string) {
	t.Helper()
	require.Error(t, err, what)
	for _, result := range []error{auth.ErrSessionNotFound, auth.ErrSessionExists, auth.ErrSpent, auth.ErrFeedReset} {
		require.NotErrorIs(t, err, result, what)
	}
}

func TestWrite_HonorsContextWhileLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	unlock := lock(t, path)
	for _, name := range []string{"Create", "Rotate", "Revoke", "Spend"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		started := time.Now()
		require.ErrorIs(t, calls(s)[name](ctx), context.DeadlineExceeded, name)
		require.Less(t, time.Since(started), 2*time.Second, name)
		cancel()
	}
	// Each write in the queue has its own context.
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
	for _, name := range []string{"Get", "List", "Changes"} { // reads do not wait
		require.NoError(t, calls(s)[name](t.Context()), name)
	}
	_, rotated, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(0, use(1))) // a Rotate that changes nothing does not wait either
	require.NoError(t, err)
	require.False(t, rotated)
	unlock()
	require.NoError(t, <-later)
	list, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func TestWrite_FailureAffectsNoOtherCall(t *testing.T) {
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
		if i%5 == 4 { // fails after a write
			errs[i] = s.Write(t.Context(), func(c *sql.Conn) error {
				_, err := c.ExecContext(t.Context(), "INSERT INTO cleanup VALUES ('half', 'half', 0)")
				return errors.Join(err, errors.New("fails"))
			})
			return
		}
		// A Spend that is repeated does not find its own record.
		errs[i] = errors.Join(s.Create(t.Context(), session("ada", fmt.Sprint(i))), s.Spend(t.Context(), "ada", fmt.Sprint(i), now()))
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

func TestWrite_HonorsContextAfterRequeue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	unlock := lock(t, path)
	begun, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	patient, failed, waited := make(chan error, 2), make(chan error, 1), make(chan error, 1)
	create := func(ctx context.Context, id string) error { return s.Create(ctx, session("ada", id)) }
	for i, write := range []func(){ // the first leads the transaction, then the third
		func() { patient <- create(t.Context(), "one") },
		func() {
			failed <- s.Write(t.Context(), func(c *sql.Conn) error {
				close(begun)
				<-goOn
				_, err := c.ExecContext(t.Context(), "ROLLBACK")
				unlock = lock(t, path) // taken by another process
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
	time.Sleep(20 * time.Millisecond) // until the waiting call notices it; a shorter time would weaken the test
	close(goOn)
	require.ErrorContains(t, <-failed, "fails")
	select {
	case err := <-waited:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(10 * time.Second):
		t.Error("a write that was returned to the queue ignores its context")
	}
	unlock()
	for range cap(patient) {
		require.NoError(t, <-patient)
	}
}

func TestRead_ContinuesWhileFileIsReopened(t *testing.T) {
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

func TestWrite_IsNotStarved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, other := open(t, path), open(t, path) // like two processes, they share nothing but the file
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var transactions atomic.Int64
	busy.Go(func() {
		for ctx.Err() == nil {
			_ = other.Write(t.Context(), func(*sql.Conn) error {
				transactions.Add(1)
				time.Sleep(10 * time.Millisecond) // like a slow disk
				return nil
			})
		}
	})
	require.Eventually(t, func() bool { return transactions.Load() > 0 }, 10*time.Second, time.Millisecond)
	for i := range 20 {
		require.NoError(t, s.Create(t.Context(), session("ada", fmt.Sprint(i))))
	}
	others := transactions.Load()
	t.Logf("20 writes, during %d transactions of the other store", others)
	cancel()
	busy.Wait()
	require.Less(t, others, int64(20*4))
}

func TestFaults_FullDisk(t *testing.T) {
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
	created := []string{"one"}
	for i := range 1000 {
		id := fmt.Sprint("more-", i)
		if err = s.Create(t.Context(), large(id)); err != nil {
			break
		}
		created = append(created, id)
	}
	requireFault(t, err, "Create")
	require.ErrorContains(t, err, "full")
	var full error
	for i := 0; full == nil; i++ { // deletes nothing, but may still fit into a page
		r := revocation("ada", strings.Repeat("absent", 300))
		full = s.Revoke(t.Context(), r)
	}
	requireFault(t, full, "Revoke")
	list, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, list, len(created))
	_, rotated, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(1, use(0))) // needs no space
	require.NoError(t, err)
	require.True(t, rotated)
	errs := make([]error, 16)
	together(len(errs), func(i int) { errs[i] = s.Create(t.Context(), large(fmt.Sprint("late-", i))) })
	for _, err := range errs {
		requireFault(t, err, "Create")
	}

	require.NoError(t, s.Exec("PRAGMA max_page_count = 1000000"))
	for name, call := range calls(s) {
		require.NoError(t, call(t.Context()), name)
	}
	for _, id := range created {
		_, err := s.Get(t.Context(), "ada", id)
		require.NoError(t, err)
	}
}

func TestFaults_ReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Exec("PRAGMA query_only = 1"))
	requireFault(t, s.Create(t.Context(), session("ada", "two")), "Create")
	for name, call := range calls(s) { // on a new connection
		require.NoError(t, call(t.Context()), name)
	}
}

func TestFaults_RemovedFile(t *testing.T) {
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
		requireFault(t, err, name)
		require.ErrorIs(t, err, os.ErrNotExist, name)
	}
	require.NoError(t, os.Rename(dir+".away", dir))
	for name, call := range calls(s) {
		require.NoError(t, call(t.Context()), name)
	}

	require.ErrorIs(t, s.Write(t.Context(), func(c *sql.Conn) error {
		_, err := c.ExecContext(t.Context(), "UPDATE cleanup SET id = 'lost'")
		return errors.Join(err, os.Rename(dir, dir+".away"))
	}), os.ErrNotExist, "the directory was renamed during the write")
	require.NoError(t, os.Rename(dir+".away", dir))

	// The file is deleted and replaced by another.
	other := open(t, filepath.Join(t.TempDir(), "other.db"))
	require.NoError(t, other.Create(t.Context(), session("ada", "copied")))
	_, err = os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	for name, call := range calls(s) {
		requireFault(t, call(t.Context()), name)
	}
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, call := range calls(s) {
		requireFault(t, call(t.Context()), name)
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

func TestFaults_CorruptFile(t *testing.T) {
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
		"truncated":                    func(b []byte) []byte { return b[:4096] },
	} {
		damaged := damage(append([]byte{}, good...))
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		s, err := sqlitestore.Open(path, sqlitestore.Config{})
		if err != nil { // Open detects the damage
			continue
		}
		for what, call := range calls(s) {
			requireFault(t, call(t.Context()), name+": "+what)
		}
		require.NoError(t, os.WriteFile(path, good, 0o600))
		for what, call := range calls(s) {
			require.NoError(t, call(t.Context()), name+": "+what)
		}
		_ = s.Close()
		require.NoError(t, os.WriteFile(path, good, 0o600))
	}
}
