package sqlitestore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestCreate_DeletesEndedSessions(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	const live = 50
	for i := range live {
		require.NoError(t, s.Create(t.Context(), session(fmt.Sprintf("live-%d", i), "one")))
	}
	most := 0
	for i := range 2000 {
		expired := session(fmt.Sprintf("expired-%d-%d", i%7, i), "one")
		expired.ExpiresAt = now().Add(-61 * time.Second)
		require.NoError(t, s.Create(t.Context(), expired))
		if i == 1000 { // the position of the cleanup survives a restart
			require.NoError(t, s.Close())
			s = open(t, path)
		}
		if i%20 == 0 {
			most = max(most, count(t, path, "sessions"))
		}
	}
	require.Less(t, most, 2*live)
	for i := range live {
		_, err := s.Get(t.Context(), fmt.Sprintf("live-%d", i), "one")
		require.NoError(t, err)
	}
}

func TestRevoke_DeletesExpiredRevocations(t *testing.T) {
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

	// The newest row is kept, so that a reader that has it as its position can
	// continue, also after the next revocation.
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

func TestRevoke_DeletesExpiredBehindOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	const kept, expired = 25, 100
	for i := range kept + expired {
		r := revocation(fmt.Sprintf("ada-%d", i), "one")
		if r.Until = now().Add(time.Hour); i >= kept {
			r.Until = now().Add(-61 * time.Second)
		}
		require.NoError(t, s.Revoke(t.Context(), r))
	}
	// The first row, which is before the first row that is kept, and a few that
	// have not been checked yet.
	require.LessOrEqual(t, count(t, path, "revocations"), 1+kept+15)
	rs, _, _, err := s.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	for i := range kept {
		require.Equal(t, fmt.Sprintf("ada-%d", i), rs[i].Subject)
	}
	execute(t, path, "UPDATE revocations SET until = 0") // those expire too
	for i := range kept {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("bob-%d", i), "one")))
	}
	require.LessOrEqual(t, count(t, path, "revocations"), 1+kept)
}

func TestSpend_DeletesExpired(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Spend(t.Context(), "ada", "50s", now().Add(-50*time.Second)))
	for i := range 100 {
		require.NoError(t, s.Spend(t.Context(), "ada", fmt.Sprint(i), now().Add(-61*time.Second)))
	}
	require.LessOrEqual(t, count(t, path, "spent"), 2)
	require.ErrorIs(t, s.Spend(t.Context(), "ada", "50s", now()), auth.ErrSpent)
	execute(t, path, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
		INSERT INTO spent (subject, id, until) SELECT 'bob', i, CASE WHEN i <= 150 THEN 0 ELSE %d END FROM n`, now().Add(time.Hour).UnixMilli()))
	for _, left := range []int{238, 175, 154, 155} { // each call adds one and deletes at most 64
		require.NoError(t, s.Spend(t.Context(), "cyd", fmt.Sprint(left), now()))
		require.Equal(t, left, count(t, path, "spent"))
	}
}

// TestRevoke_DeletesManyPerCall has rows that are not expired before and after
// the expired ones.
func TestRevoke_DeletesManyPerCall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	const kept, expired = 1000, 5000
	fill := func(n int, until time.Time) {
		execute(t, path, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO revocations (nonce, subject, sessions, all_sessions, except_ids, until) SELECT i, 'x', '[]', 0, '[]', %d FROM n`, n, until.UnixMilli()))
	}
	fill(kept, now().Add(24*time.Hour))
	fill(expired, now().Add(-time.Hour))
	fill(kept, now().Add(24*time.Hour))
	for i := range 80 {
		require.NoError(t, s.Revoke(t.Context(), revocation(fmt.Sprintf("new-%d", i), "one")))
	}
	require.LessOrEqual(t, count(t, path, "revocations"), 1+2*kept+80+1)
	require.GreaterOrEqual(t, count(t, path, "revocations"), 2*kept+80)
}
