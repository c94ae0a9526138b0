package pgstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/pgstore"
)

func TestNew_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const (
		poolIsNil = "pgstore: the pool is nil"
		small     = "pgstore: the pool allows one connection, which a waiting Changes would occupy; allow at least 2, or set Config.Poll"
	)
	one, two := pool(t, "127.0.0.1:1", conns(1)), pool(t, "127.0.0.1:1", conns(2)) // nothing connects
	schema := func(name string) string {
		return "pgstore: Config.Schema (" + name + ") must be 1 to 40 letters, digits and underscores, and must not begin with a digit"
	}
	long := "a123456789b123456789c123456789d123456789"
	for _, test := range []struct {
		config pgstore.Config
		want   string
	}{
		{pgstore.Config{Schema: `a"b`}, schema(`"a\"b"`)},
		{pgstore.Config{Schema: "1a"}, schema(`"1a"`)},
		{pgstore.Config{Schema: "a.b"}, schema(`"a.b"`)},
		{pgstore.Config{Schema: "a\n"}, schema(`"a\n"`)},
		{pgstore.Config{Schema: "é"}, schema(`"é"`)},
		{pgstore.Config{Schema: long + "e"}, schema(`"` + long + `e"`)},
		{pgstore.Config{Schema: "pg_auth"}, `pgstore: Config.Schema ("pg_auth") must not begin with pg_, which PostgreSQL reserves`},
		{pgstore.Config{Poll: -1}, "pgstore: Config.Poll (-1ns) must be between 10ms and 30s"},
		{pgstore.Config{Poll: 10}, "pgstore: Config.Poll (10ns) is less than 1ms; missing time unit?"},
		{pgstore.Config{Poll: 9 * time.Millisecond}, "pgstore: Config.Poll (9ms) must be between 10ms and 30s"},
		{pgstore.Config{Poll: 31 * time.Second}, "pgstore: Config.Poll (31s) must be between 10ms and 30s"},
		{pgstore.Config{Poll: -1, Schema: "a-b"}, schema(`"a-b"`) + "\npgstore: Config.Poll (-1ns) must be between 10ms and 30s"},
	} {
		st, err := pgstore.New(two, test.config)
		require.EqualError(t, err, test.want)
		require.Nil(t, st)
	}
	_, err := pgstore.New(nil, pgstore.Config{})
	require.EqualError(t, err, poolIsNil)
	_, err = pgstore.New(one, pgstore.Config{})
	require.EqualError(t, err, small)

	_, err = pgstore.New(one, pgstore.Config{Poll: time.Second})
	require.NoError(t, err)
	for _, name := range []string{"", "ratchet", "Auth", "_a1", "pgauth", long} {
		_, err = pgstore.New(two, pgstore.Config{Schema: name})
		require.NoError(t, err)
	}
}
