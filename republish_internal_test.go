package auth

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRevocations_ABatchDoesNotScanAllThatAreDue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rs := &revocationSet{republishes: true, process: "p"}
	const many = 3*publishBatch + 10
	for i := range many {
		rs.add(Revocation{Subject: fmt.Sprint("u", i), Sessions: []string{"s"}, Until: now.Add(time.Hour)}, origin{}, now)
	}
	rs.planEach(func(r *entry) bool { r.calls = 0; return true })
	paused := slices.Clone(rs.toRepublish[:3])
	for _, r := range paused {
		r.retryAt = now.Add(time.Second).UnixMilli()
	}
	last := rs.toRepublish[many-1]
	last.removed = true

	taken := map[string]int{}
	for n := 0; ; n++ {
		batch, next := rs.takeBatch(now)
		if n == 0 {
			require.True(t, last.queued, "it must not examine entries that do not fit in the batch")
		}
		require.True(t, slices.Equal(paused, rs.toRepublish[:3]), "paused entries must stay")
		if len(batch) == 0 {
			require.WithinDuration(t, now.Add(time.Second), next, 0)
			break
		}
		for _, a := range batch {
			taken[a.revocations[0].Subject]++
		}
	}
	require.Len(t, taken, many-4)
	for subject, times := range taken {
		require.Equal(t, 1, times, subject)
	}
	require.Len(t, rs.toRepublish, 3)
	batch, next := rs.takeBatch(now.Add(time.Second))
	require.Len(t, batch, 3)
	require.Zero(t, next)
}
