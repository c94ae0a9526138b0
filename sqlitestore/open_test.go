package sqlitestore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

func TestOpen_CreatesFileWithMode0600(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a b&x#y%41'.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
	require.ElementsMatch(t, []string{filepath.Base(path), filepath.Base(path) + "-wal", filepath.Base(path) + "-shm"}, names)

	require.NoError(t, s.Close())
	entries, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	_, err = open(t, path).Get(t.Context(), "ada", "one")
	require.NoError(t, err)
}

func TestOpen_ConcurrentlyOnNewFile(t *testing.T) {
	t.Parallel()
	for range 5 {
		path := filepath.Join(t.TempDir(), "sessions.db")
		stores := make([]*sqlitestore.Store, 8)
		errs := make([]error, len(stores))
		together(len(stores), func(i int) {
			if stores[i], errs[i] = sqlitestore.Open(path, sqlitestore.Config{}); errs[i] == nil {
				errs[i] = stores[i].Create(t.Context(), session("ada", fmt.Sprint(i)))
			}
		})
		for _, err := range errs {
			require.NoError(t, err)
		}
		for _, s := range stores {
			list, err := s.List(t.Context(), "ada")
			require.NoError(t, err)
			require.Len(t, list, len(stores))
			require.NoError(t, s.Close())
		}
	}
}

func TestOpen_RefusesForeignFiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"text", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte("some text"), 0o600))
		}, "file is not a database"},
		{"long text", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("some text\n", 10_000)), 0o600))
		}, "file is not a database"},
		{"another application's", func(t *testing.T, path string) {
			execute(t, path, "CREATE TABLE sessions (id TEXT)", "INSERT INTO sessions VALUES ('precious')")
		}, "a database of another application"},
		{"another application's id", func(t *testing.T, path string) {
			execute(t, path, "PRAGMA application_id = 7")
		}, "a database of another application"},
		{"a newer version's", func(t *testing.T, path string) {
			require.NoError(t, open(t, path).Close())
			execute(t, path, "PRAGMA user_version = 3")
		}, "has tables of version 3, but this program supports only version 2; update the program"},
		{"an unreleased version's", func(t *testing.T, path string) {
			require.NoError(t, open(t, path).Close())
			execute(t, path, "PRAGMA user_version = 1")
		}, "has tables of version 1, which was never released; delete the file, and with it all sessions"},
		{"one with a trigger", func(t *testing.T, path string) {
			require.NoError(t, open(t, path).Close())
			execute(t, path, "CREATE TRIGGER keep BEFORE DELETE ON sessions BEGIN SELECT RAISE(IGNORE); END")
		}, "contains the trigger keep, which this package did not create"},
		{"one with a view", func(t *testing.T, path string) {
			require.NoError(t, open(t, path).Close())
			execute(t, path, "ALTER TABLE sessions RENAME TO mine", "CREATE VIEW sessions AS SELECT * FROM mine")
		}, "contains the view sessions, which this package did not create"},
		{"one with a virtual table", func(t *testing.T, path string) {
			require.NoError(t, open(t, path).Close())
			execute(t, path, "CREATE VIRTUAL TABLE words USING fts5(word)")
		}, "contains the table words, which this package did not create"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "sessions.db")
			tc.make(t, path)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = sqlitestore.Open(path, sqlitestore.Config{})
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "sqlitestore: ")
			require.ErrorContains(t, err, path)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, before, after)
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, entries, 1)
		})
	}
	const noMemory, noURI = "use auth.NewMemoryStore", "is a URI or has options; expected the path of a file"
	for path, want := range map[string]string{
		"":          "the path is empty",
		t.TempDir(): "not a regular file",
		filepath.Join(t.TempDir(), "absent", "sessions.db"): "absent/sessions.db: no such file",
		":memory:":                 noMemory,
		":memory:?cache=shared":    noMemory,
		"file:a.db?mode=memory":    noMemory,
		"file::memory:":            noURI,
		"file:sessions.db":         noURI,
		"FILE:sessions.db":         noURI,
		"file:///var/sessions.db":  noURI,
		"sessions.db?_journal=WAL": noURI,
		"sqlite://sessions.db":     noURI,
		"sqlite3:sessions.db":      noURI,
	} {
		_, err := sqlitestore.Open(path, sqlitestore.Config{})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "sqlitestore: ")
		require.NotContains(t, err.Error(), ".new-")
	}
}

func TestOpen_KeepsFileCreatedConcurrently(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, sqlitestore.Link(path))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestOpen_AcceptsEmptyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, open(t, path).Create(t.Context(), session("ada", "one")))
}

func TestClose_EndsWaitingCalls(t *testing.T) { // not parallel, since it counts goroutines
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, err := sqlitestore.Open(path, sqlitestore.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	_, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	unlock := lock(t, path)

	ended := make(chan error, 3)
	go func() { _, _, _, err := s.Changes(t.Context(), next, time.Hour); ended <- err }()
	go func() { ended <- s.Create(t.Context(), session("ada", "two")) }()
	go func() { ended <- s.Revoke(t.Context(), revocation("ada", "one")) }()
	require.Eventually(t, func() bool { return s.Queued() == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	for range 3 {
		require.ErrorIs(t, <-ended, os.ErrClosed)
	}
	for name, call := range calls(s) {
		require.ErrorIs(t, call(t.Context()), os.ErrClosed, name)
	}
	require.NoError(t, s.Close())
	unlock()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			require.Fail(t, "goroutines are still running", "%s", stacks[:runtime.Stack(stacks, true)])
		}
	}

	list, err := open(t, path).List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, list, 1)
}
func TestClose_WaitsForRunningCalls(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, err := sqlitestore.Open(path, sqlitestore.Config{})
	require.NoError(t, err)
	acknowledged := make([]bool, 200)
	go func() { _ = s.Close() }()
	together(len(acknowledged), func(i int) {
		acknowledged[i] = s.Create(t.Context(), session("ada", fmt.Sprint(i))) == nil
	})
	require.NoError(t, s.Close())
	again := open(t, path)
	for i, ok := range acknowledged {
		if _, err := again.Get(t.Context(), "ada", fmt.Sprint(i)); ok {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
	}
}

func TestOpen_SynchronizesTheLog(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	require.NoError(t, s.Write(t.Context(), func(c *sql.Conn) error {
		var mode string
		var synchronous, fullfsync int
		require.NoError(t, c.QueryRowContext(t.Context(), "SELECT * FROM pragma_journal_mode, pragma_synchronous, pragma_fullfsync").
			Scan(&mode, &synchronous, &fullfsync))
		require.Equal(t, "wal", mode)
		require.Equal(t, 2, synchronous) // FULL
		require.Equal(t, 1, fullfsync)
		return nil
	}))
}

// TestOpen_AddsEachPartThatIsMissing opens files that lack one part only.
func TestOpen_AddsEachPartThatIsMissing(t *testing.T) {
	t.Parallel()
	for _, drop := range []string{
		"ALTER TABLE revocations DROP COLUMN reason", "ALTER TABLE sessions DROP COLUMN retry_tag", "ALTER TABLE sessions DROP COLUMN key", "DROP TABLE spent",
	} {
		path := filepath.Join(t.TempDir(), "sessions.db")
		s := open(t, path)
		require.NoError(t, s.Create(t.Context(), session("ada", "one")))
		require.NoError(t, s.Close())
		execute(t, path, drop)
		for name, call := range calls(open(t, path)) {
			require.NoError(t, call(t.Context()), "%s: %s", drop, name)
		}
	}
}

// TestOpen_FileOfANewerVersion adds columns, tables and an index, which must stay
// unchanged.
func TestOpen_FileOfANewerVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	record := session("ada", "one")
	require.NoError(t, s.Create(t.Context(), record))
	require.NoError(t, s.Revoke(t.Context(), revocation("bob", "one")))
	require.NoError(t, s.Spend(t.Context(), "ada", "one", now()))
	require.NoError(t, s.Close())
	for _, table := range []string{"sessions", "revocations", "cleanup", "spent"} {
		execute(t, path, "ALTER TABLE "+table+" ADD COLUMN newer TEXT NOT NULL DEFAULT 'default'", "UPDATE "+table+" SET newer = 'kept'")
	}
	execute(t, path, "CREATE TABLE newer (a TEXT)", "CREATE INDEX newer_index ON sessions (newer)")

	s = open(t, path)
	newer := func(table, where string) (text string) {
		db := raw(t, path)
		require.NoError(t, db.QueryRow("SELECT newer FROM "+table+" WHERE "+where).Scan(&text))
		require.NoError(t, db.Close())
		return text
	}
	got, err := s.Get(t.Context(), "ada", "one")
	require.NoError(t, err)
	require.Equal(t, record, got)
	u := use(2)
	got, rotated, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(1, u))
	require.NoError(t, err)
	require.True(t, rotated)
	record.Generation, record.RotatedAt, record.ExpiresAt, record.Device = 2, u.At, u.ExpiresAt, u.Device
	require.Equal(t, record, got)
	require.Equal(t, "kept", newer("sessions", "subject = 'ada'"))
	list, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Equal(t, []auth.Session{record}, list)
	require.NoError(t, s.Create(t.Context(), session("cyd", "one")))
	require.Equal(t, "default", newer("sessions", "subject = 'cyd'"))
	rs, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.Len(t, rs, 1)
	require.NoError(t, s.Revoke(t.Context(), revocation("ada", "one")))
	_, err = s.Get(t.Context(), "ada", "one")
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	rs, _, _, err = s.Changes(t.Context(), next, 0)
	require.NoError(t, err)
	require.Len(t, rs, 1)
	require.Equal(t, "kept", newer("cleanup", "true"))
	require.ErrorIs(t, s.Spend(t.Context(), "ada", "one", now()), auth.ErrSpent)
	require.NoError(t, s.Spend(t.Context(), "ada", "two", now()))
	require.Equal(t, "kept", newer("spent", "id = 'one'"))
}

// TestOpen_FileOfAnEarlierVersion opens a file without the columns reason,
// retry_tag and key and without the table spent, while a process of that version,
// which is played by its statements, uses the file.
func TestOpen_FileOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	record := session("ada", "one")
	require.NoError(t, s.Create(t.Context(), record))
	require.NoError(t, s.Close())
	execute(t, path, "ALTER TABLE revocations DROP COLUMN reason", "ALTER TABLE sessions DROP COLUMN retry_tag", "ALTER TABLE sessions DROP COLUMN key",
		"DROP TABLE spent")

	older := raw(t, path)
	defer older.Close()
	publish, err := older.Prepare(`INSERT INTO revocations (nonce, subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	require.NoError(t, err)
	defer publish.Close()
	feed, err := older.Prepare(`SELECT id, nonce, version, subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl
		FROM revocations WHERE id >= ? ORDER BY id LIMIT ?`)
	require.NoError(t, err)
	defer feed.Close()
	revoke := func(subject string) {
		_, err := publish.Exec(1, subject, `["one"]`, 0, "[]", nil, now().Add(time.Hour).UnixMilli(), "p.1", 0)
		require.NoError(t, err)
	}
	revoke("before")

	stores := make([]*sqlitestore.Store, 4) // all of them may find that the columns are missing
	errs := make([]error, len(stores))
	together(len(stores), func(i int) { stores[i], errs[i] = sqlitestore.Open(path, sqlitestore.Config{}) })
	require.NoError(t, errors.Join(errs...))
	for _, s := range stores {
		defer s.Close()
	}
	got, err := stores[0].Get(t.Context(), "ada", "one")
	require.NoError(t, err)
	require.Equal(t, record, got)
	u := use(1)
	u.RetryTag, u.Key = make([]byte, 16), make([]byte, 33)
	got, rotated, err := stores[1].Rotate(t.Context(), "ada", "one", rotateFrom(1, u))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, u.RetryTag, got.RetryTag)
	require.Equal(t, u.Key, got.Key)
	require.NoError(t, stores[2].Spend(t.Context(), "ada", "one", now()))
	require.ErrorIs(t, stores[3].Spend(t.Context(), "ada", "one", now()), auth.ErrSpent)
	revoke("after")
	r := revocation("bob", "one")
	r.Reason = "reuse"
	require.NoError(t, stores[0].Revoke(t.Context(), r))
	revoke("later")

	rs, _, _, err := stores[1].Changes(t.Context(), "", 0)
	require.NoError(t, err)
	reasons := map[string]string{}
	for _, r := range rs {
		require.Equal(t, []string{"one"}, r.Sessions)
		reasons[r.Subject] = r.Reason
	}
	require.Equal(t, map[string]string{"before": "", "after": "", "bob": "reuse", "later": ""}, reasons)
	rows, err := feed.Query(0, 100)
	require.NoError(t, err)
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var id, nonce, version, all, until, ttl int64
		var subject, sessions, except, revocation string
		var before sql.NullInt64
		require.NoError(t, rows.Scan(&id, &nonce, &version, &subject, &sessions, &all, &except, &before, &until, &revocation, &ttl))
		require.EqualValues(t, 1, version)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, 5, n, "with the first row, which is no revocation")
}
