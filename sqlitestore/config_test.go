package sqlitestore_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/sqlitestore"
)

func TestOpen_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	for poll, want := range map[time.Duration]string{
		-1:                   "sqlitestore: Config.Poll (-1ns) must be between 10ms and 30s",
		10:                   "sqlitestore: Config.Poll (10ns) is less than 1ms; missing time unit?",
		9 * time.Millisecond: "sqlitestore: Config.Poll (9ms) must be between 10ms and 30s",
		31 * time.Second:     "sqlitestore: Config.Poll (31s) must be between 10ms and 30s",
	} {
		s, err := sqlitestore.Open(path, sqlitestore.Config{Poll: poll})
		require.EqualError(t, err, want)
		require.Nil(t, s)
		require.NoFileExists(t, path)
	}
	_, err := sqlitestore.Open("", sqlitestore.Config{Poll: -1})
	require.EqualError(t, err, "sqlitestore: opening: the path is empty\nsqlitestore: Config.Poll (-1ns) must be between 10ms and 30s")
	for _, poll := range []time.Duration{0, 10 * time.Millisecond, 30 * time.Second} {
		s, err := sqlitestore.Open(path, sqlitestore.Config{Poll: poll})
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}
