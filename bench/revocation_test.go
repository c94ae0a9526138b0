package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// sharedStores lists the stores that several processes can use.
var sharedStores = []struct {
	name  string
	start func(testing.TB) string
	open  func(tb testing.TB, addr string) auth.Store
}{
	{"redis", startRedis, redisStore},
	{"postgres", startPostgres, postgresStore},
	{"sqlite", startSQLite, sqliteStore},
}

// revocationDelays revokes n sessions through one Authenticator, and returns how
// long another one, with connections of its own, accepts their tokens after the
// call of Revoke.
func revocationDelays(tb testing.TB, open func(tb testing.TB, addr string) auth.Store, addr string, n int) latencies {
	tb.Helper()
	node := func() *auth.Authenticator {
		a := algorithms()[0].ratchet(0, func(c *auth.Config) { c.Store = open(tb, addr) })
		startFeed(tb, a)
		return a
	}
	here, there := node(), node()
	ctx := context.Background()
	delays := make(latencies, n)
	for i := range delays {
		t, err := here.StartSession(ctx, subject(i), auth.SessionOptions{})
		must(err)
		c, err := there.Verify(ctx, t.Access)
		must(err)
		// Revocations at random times do not coincide with the reads of the feed.
		time.Sleep(rand.N(100 * time.Millisecond))
		begin := time.Now()
		must(here.Revoke(ctx, c.Subject, c.SessionID))
		for err = nil; err == nil; _, err = there.Verify(ctx, t.Access) {
			if time.Since(begin) > time.Minute {
				tb.Fatal("the token is still accepted after a minute")
			}
			time.Sleep(20 * time.Microsecond)
		}
		if !errors.Is(err, auth.ErrSessionRevoked) {
			tb.Fatal(err)
		}
		delays[i] = time.Since(begin)
	}
	slices.Sort(delays)
	return delays
}

// BenchmarkRevocation measures how long a revoked session is still accepted in
// another process.
func BenchmarkRevocation(b *testing.B) {
	for _, s := range sharedStores {
		b.Run("store="+s.name+"/peer=ratchet", func(b *testing.B) {
			d := revocationDelays(b, s.open, s.start(b), 200)
			b.ReportMetric(float64(d.at(0.5).Nanoseconds()), "median-ns")
			b.ReportMetric(float64(d.at(0.99).Nanoseconds()), "p99-ns")
			b.ReportMetric(float64(d.at(1).Nanoseconds()), "longest-ns")
		})
	}
}

func TestRevocation_TakesEffectInAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, s := range sharedStores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			require.Less(t, revocationDelays(t, s.open, s.start(t), 5).at(1), 10*time.Second)
		})
	}
}
