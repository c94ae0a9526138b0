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

func TestChanges_ReturnsOwnRevocationsAtOnce(t *testing.T) {
	t.Parallel()
	s, err := sqlitestore.Open(filepath.Join(t.TempDir(), "sessions.db"), sqlitestore.Config{Poll: 30 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, next, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	received := make(chan error)
	const n = 20 // most of them while Changes waits
	go func() {
		defer close(received)
		for range n {
			var rs []auth.Revocation
			rs, next, _, err = s.Changes(ctx, next, time.Hour)
			if err == nil && len(rs) != 1 {
				err = fmt.Errorf("%d revocations", len(rs))
			}
			received <- err
		}
	}()
	for i := range n {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("ada-%d", i), "one")))
		require.NoError(t, <-received)
	}
}

func TestChanges_OtherHistoryIsReset(t *testing.T) {
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
	// Also after there are rows with the same IDs again.
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

func TestChanges_ReturnsOtherRevocationsSoon(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	a, b := open(t, path), open(t, path)
	_, next, _, err := a.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	for i := range 5 {
		received := make(chan time.Time, 1)
		go func() {
			var rs []auth.Revocation
			rs, next, _, err = a.Changes(t.Context(), next, time.Minute)
			if err == nil && len(rs) != 1 {
				err = fmt.Errorf("%d revocations", len(rs))
			}
			received <- time.Now()
		}()
		require.NoError(t, b.Revoke(t.Context(), revocation(fmt.Sprintf("ada-%d", i), "one")))
		sent := time.Now()
		require.Less(t, (<-received).Sub(sent), time.Second)
		require.NoError(t, err)
	}
}

// TestChanges_UnreadableRowDoesNotStopTheFeed also checks that the ID of the
// revocation is the same at every read.
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

// TestChanges_MalformedReasonIsOmitted writes reasons that no version writes.
func TestChanges_MalformedReasonIsOmitted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	for value, want := range map[string]string{
		"'reuse'": "reuse", "'newer'": "newer", "''": "", "'Reuse'": "", "'re use'": "", "CAST(x'ff00' AS TEXT)": "", "'abcdefghijklmnopq'": "",
		"hex(zeroblob(1000000))": "", "7": "",
	} {
		_, next, _, err := s.Changes(t.Context(), "", 0)
		require.NoError(t, err)
		r := revocation("ada", "one", "two")
		r.Reason = "logout"
		require.NoError(t, s.Revoke(t.Context(), r))
		execute(t, path, "UPDATE revocations SET reason = "+value+" WHERE id = (SELECT max(id) FROM revocations)")
		rs, _, _, err := s.Changes(t.Context(), next, 0)
		require.NoError(t, err, value)
		r.Reason = want
		require.Len(t, rs, 1, value)
		rs[0].Except = nil // it may be empty
		require.Equal(t, []auth.Revocation{r}, rs, value)
	}
}

// TestStore_UnreadableAddressIsUnknown checks that a malformed IP address is no
// error, since it is only informative.
func TestStore_UnreadableAddressIsUnknown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	execute(t, path, "UPDATE sessions SET ip = '192.0.2.1/24'")
	got, err := s.Get(t.Context(), "ada", "one")
	require.NoError(t, err)
	require.False(t, got.Device.IP.IsValid())
	_, rotated, err := s.Rotate(t.Context(), "ada", "one", rotateFrom(1, use(1)))
	require.NoError(t, err)
	require.True(t, rotated)
}
