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
