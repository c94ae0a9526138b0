package auth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRedirectTable_DistinguishesKeysInOneSlot(t *testing.T) {
	t.Parallel()
	table, now := newRedirectTable(), time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const a, b = 7<<40 | 5, 9<<40 | 5
	table.add(a, now)
	require.True(t, table.has(a, now))
	require.False(t, table.has(b, now))
	table.add(b, now)
	require.True(t, table.has(b, now.Add(redirectInterval-time.Second)))
	require.False(t, table.has(b, now.Add(redirectInterval)))
	require.False(t, table.has(b, now.Add(-time.Second)))
	require.False(t, table.has(a, now), "replaced, so it may be repeated")
	require.NotEqual(t, table.key("s", "h", "/u"), table.key("s", "h2", "/u"))
}
