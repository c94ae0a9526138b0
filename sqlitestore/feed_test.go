package sqlitestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

func TestRevoke_TrimsTheFeed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	old := func(i int) auth.Revocation {
		r := revocation(fmt.Sprintf("ada-%d", i), "one")
		r.Until = now().Add(-61 * time.Second)
		return r
	}
	for i := range 100 {
		require.NoError(t, s.Revoke(t.Context(), old(i)))
	}
	require.LessOrEqual(t, count(t, path, "revocations"), 3)

	// The newest stays, so that whoever has it as his position goes on from it,
	// also when the next one comes.
	_, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	for i := range 20 {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("bob-%d", i), "one")))
	}
	rs, _, _, err := s.Changes(t.Context(), next, 0)
	require.NoError(t, err)
	require.Len(t, rs, 20)
	require.Equal(t, "bob-0", rs[0].Subject)
}

func TestRevoke_TrimsBehindWhatStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	const stay, old = 25, 100
	for i := range stay + old {
		r := revocation(fmt.Sprintf("ada-%d", i), "one")
		if r.Until = now().Add(time.Hour); i >= stay {
			r.Until = now().Add(-61 * time.Second)
		}
		require.NoError(t, s.Revoke(t.Context(), r))
	}
	// The first row, which is before the first that stays, and a few that no
	// look has come by yet.
	require.LessOrEqual(t, count(t, path, "revocations"), 1+stay+15)
	rs, _, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	for i := range stay {
		require.Equal(t, fmt.Sprintf("ada-%d", i), rs[i].Subject)
	}
	execute(t, path, "UPDATE revocations SET until = 0") // and later those too
	for i := range stay {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("bob-%d", i), "one")))
	}
	require.LessOrEqual(t, count(t, path, "revocations"), 1+stay)
}

func TestChanges_HearsOfItsOwnAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	s.PollEvery(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	heard := make(chan error)
	const n = 20 // most of them while Changes waits
	go func() {
		defer close(heard)
		for range n {
			var rs []auth.Revocation
			rs, next, _, err = s.Changes(ctx, next, time.Hour)
			if err == nil && len(rs) != 1 {
				err = fmt.Errorf("%d revocations", len(rs))
			}
			heard <- err
		}
	}()
	for i := range n {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("ada-%d", i), "one")))
		require.NoError(t, <-heard)
	}
}

func TestChanges_RefusesAnotherHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "sessions.db"), filepath.Join(dir, "backup.db")
	s := open(t, path)
	_, empty, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	_, _, _, err = s.Changes(t.Context(), empty, 0)
	require.NoError(t, err)
	_, _, _, err = open(t, filepath.Join(dir, "other.db")).Changes(t.Context(), empty, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)

	require.NoError(t, s.Revoke(t.Context(), revocation("ada", "one")))
	_, before, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(backup, content, 0o600))

	s = open(t, path)
	for i := range 3 {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("lost-%d", i), "one")))
	}
	_, after, _, err := s.Changes(t.Context(), before, 0)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.Rename(backup, path))

	s = open(t, path)
	_, _, _, err = s.Changes(t.Context(), after, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
	// Also once there are rows of the same numbers again.
	for i := range 5 {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("new-%d", i), "one")))
	}
	_, _, _, err = s.Changes(t.Context(), after, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
	rs, _, _, err := s.Changes(t.Context(), before, 0)
	require.NoError(t, err)
	require.Len(t, rs, 5)

	for _, position := range []string{"-", "1", "0-0", "1-0000000000000000", "+" + before, before + " ", "0" + before, "1-+000000000000001"} {
		_, _, _, err = s.Changes(t.Context(), position, 0)
		require.ErrorIs(t, err, auth.ErrFeedReset, position)
	}
}

func TestChanges_HearsOfOthersSoon(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	a, b := open(t, path), open(t, path)
	_, next, _, err := a.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	for i := range 5 {
		heard := make(chan time.Time, 1)
		go func() {
			var rs []auth.Revocation
			rs, next, _, err = a.Changes(t.Context(), next, time.Minute)
			if err == nil && len(rs) != 1 {
				err = fmt.Errorf("%d revocations", len(rs))
			}
			heard <- time.Now()
		}()
		require.NoError(t, b.Revoke(t.Context(), revocation(fmt.Sprintf("ada-%d", i), "one")))
		told := time.Now()
		require.Less(t, (<-heard).Sub(told), time.Second)
		require.NoError(t, err)
	}
}

// TestOpen_FileOfANewerVersion has more columns, tables and indexes. Those that
// this version does not know stay as they are.
func TestOpen_FileOfANewerVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	record := session("ada", "one")
	require.NoError(t, s.Create(t.Context(), record))
	require.NoError(t, s.Revoke(t.Context(), revocation("bob", "one")))
	require.NoError(t, s.Close())
	for _, table := range []string{"sessions", "revocations", "hand"} {
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
	got, moved, err := s.Rotate(t.Context(), "ada", "one", 1, u)
	require.NoError(t, err)
	require.True(t, moved)
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
	require.Equal(t, "kept", newer("hand", "true"))
}

// TestOpen_FileOfTheVersionBefore gets the columns that it lacks.
func TestOpen_FileOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	require.NoError(t, s.Revoke(t.Context(), revocation("bob", "one")))
	require.NoError(t, s.Close())
	for _, column := range []string{"version", "announcement", "access_ttl"} {
		execute(t, path, "ALTER TABLE revocations DROP COLUMN "+column)
	}
	stores := make([]*sqlitestore.Store, 8)
	together(len(stores), func(i int) { stores[i] = open(t, path) })
	notice := auth.Revocation{AccessTTL: time.Hour, Until: now(), ID: "a.1"}
	require.NoError(t, stores[0].Revoke(t.Context(), notice))
	rs, _, _, err := stores[1].Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.Len(t, rs, 2)
	require.Equal(t, "bob", rs[0].Subject)
	require.Equal(t, time.Hour, rs[1].AccessTTL)
	_, err = stores[2].Get(t.Context(), "ada", "one")
	require.NoError(t, err)
}

// TestChanges_UnreadableRowDoesNotStopTheFeed, and has a name that is the same
// at every read.
func TestChanges_UnreadableRowDoesNotStopTheFeed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	for i, change := range []string{"version = 2", "sessions = '{'", "sessions = '[{}]'", "except_ids = 'x'", "access_ttl = 1000", "subject = ''",
		"all_sessions = 2", "sessions = '[null]'", "access_ttl = -5"} {
		_, next, _, err := s.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		require.NoError(t, s.Revoke(t.Context(), revocation("ada", "one")))
		require.NoError(t, s.Revoke(t.Context(), revocation("bob", "one")))
		execute(t, path, "UPDATE revocations SET "+change+" WHERE id = (SELECT max(id) FROM revocations WHERE subject = 'ada')")
		rs, _, more, err := s.Changes(t.Context(), next, 0)
		require.NoError(t, err, change)
		require.False(t, more, change)
		require.Len(t, rs, 2, change)
		subject := "ada"
		if change == "subject = ''" {
			subject = ""
		}
		require.Equal(t, auth.Revocation{Subject: subject, ID: rs[0].ID}, rs[0], change)
		require.NotEmpty(t, rs[0].ID, change)
		require.Equal(t, "bob", rs[1].Subject, change)
		again, _, _, err := s.Changes(t.Context(), "", 0)
		require.NoError(t, err, change)
		require.Equal(t, rs[0], again[2*i], change)
	}
}

// TestStore_UnreadableAddressIsUnknown: it tells only where the session was
// used.
func TestStore_UnreadableAddressIsUnknown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	execute(t, path, "UPDATE sessions SET ip = '192.0.2.1/24'")
	got, err := s.Get(t.Context(), "ada", "one")
	require.NoError(t, err)
	require.False(t, got.Device.IP.IsValid())
	_, moved, err := s.Rotate(t.Context(), "ada", "one", 1, use(1))
	require.NoError(t, err)
	require.True(t, moved)
}

// TestRevoke_TrimsManyAtOnce, wherever they are.
func TestRevoke_TrimsManyAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	const stay, old = 1000, 5000
	fill := func(n int, until time.Time) {
		execute(t, path, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO revocations (nonce, subject, sessions, all_sessions, except_ids, until) SELECT i, 'x', '[]', 0, '[]', %d FROM n`, n, until.UnixMilli()))
	}
	fill(stay, now().Add(24*time.Hour))
	fill(old, now().Add(-time.Hour))
	fill(stay, now().Add(24*time.Hour))
	for i := range 80 {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("new-%d", i), "one")))
	}
	require.LessOrEqual(t, count(t, path, "revocations"), 1+2*stay+80+1)
	require.GreaterOrEqual(t, count(t, path, "revocations"), 2*stay+80)
}
