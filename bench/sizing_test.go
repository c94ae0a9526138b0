package bench

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// feedRevocations is the number of revocations in the feed.
const feedRevocations = 100_000

// heapNow returns the bytes of the live heap.
func heapNow() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkSizing measures the figures that docs/sizing.md calculates with: the
// time of a refresh in the server, the size of a revocation in the server and in
// each process, and how long a starting process needs to read the feed.
//
//	GOWORK=off go test -run '^$' -bench Sizing -benchtime 1x
func BenchmarkSizing(b *testing.B) {
	ctx := context.Background()
	b.Run("store=redis", func(b *testing.B) {
		addr := startRedis(b)
		c := redisClient(b, addr)
		s := redisStore(b, addr)
		must(c.ConfigResetStat(ctx).Err())
		rotations := rotateMany(s)
		info, err := c.Info(ctx, "commandstats").Result()
		must(err)
		_, line, _ := strings.Cut(info, "cmdstat_evalsha:")
		line, _, _ = strings.Cut(line, "\r")
		var calls, usec float64
		must2(fmt.Sscanf(line, "calls=%f,usec=%f", &calls, &usec))
		b.ReportMetric(usec/calls, "server-µs/call")
		b.ReportMetric(rotations, "refreshes/s")

		before := redisSize(b, addr)
		sizeFeed(b, s)
		b.ReportMetric(float64(redisSize(b, addr)-before)/feedRevocations, "feed-B/revocation")
	})
	b.Run("store=postgres", func(b *testing.B) {
		addr := testserver.Postgres(b, "-c", "shared_preload_libraries=pg_stat_statements").Addr
		s := postgresStore(b, addr)
		pool := postgresPool(b, addr)
		must2(pool.Exec(ctx, "CREATE EXTENSION pg_stat_statements"))
		var start string
		must(pool.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&start))
		rotations := rotateMany(s)
		var exec, calls, wal float64
		must(pool.QueryRow(ctx, `SELECT total_exec_time * 1000 / calls, calls, pg_wal_lsn_diff(pg_current_wal_lsn(), $1::text::pg_lsn)
			FROM pg_stat_statements WHERE query LIKE '%UPDATE%sessions SET%' ORDER BY calls DESC LIMIT 1`, start).Scan(&exec, &calls, &wal))
		b.ReportMetric(exec, "server-µs/call")
		b.ReportMetric(wal/calls, "WAL-B/refresh")
		b.ReportMetric(rotations, "refreshes/s")

		before := postgresSize(b, addr)
		sizeFeed(b, s)
		b.ReportMetric(float64(postgresSize(b, addr)-before)/feedRevocations, "feed-B/revocation")
	})
}

func must2(_ any, err error) { must(err) }

// rotateMany rotates sessions from 32 goroutines and returns the number of
// rotations per second.
func rotateMany(s auth.Store) float64 {
	const callers, each = 32, 1000
	ctx := context.Background()
	now := time.Now().UTC().Truncate(time.Millisecond)
	device := auth.Device{UserAgent: browser, IP: netip.MustParseAddr("192.0.2.1")}
	done := make(chan struct{})
	begun := time.Now()
	for caller := range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			session := auth.Session{
				ID: idOf(caller), Subject: fmt.Sprintf("user-%d", caller), Generation: 1,
				CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour), Device: device,
			}
			must(s.Create(ctx, session))
			for i := range each {
				at := now.Add(time.Duration(i) * time.Millisecond)
				_, rotated, err := s.Rotate(ctx, session.Subject, session.ID, auth.Rotation{
					From: int64(i + 1), At: at, NotAfter: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour), Device: device,
				})
				must(err)
				if !rotated {
					panic(errNotRotated)
				}
			}
		}()
	}
	for range callers {
		<-done
	}
	return callers * each / time.Since(begun).Seconds()
}

// sizeFeed publishes many revocations and measures how a starting process reads
// them.
func sizeFeed(b *testing.B, s auth.Store) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	until := time.Now().UTC().Truncate(time.Millisecond).Add(time.Hour)
	const callers = 16
	done := make(chan struct{})
	for caller := range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := caller; i < feedRevocations; i += callers {
				must(s.Revoke(ctx, auth.Revocation{Subject: fmt.Sprintf("user-%d", i), Sessions: []string{idOf(i)}, Until: until}))
			}
		}()
	}
	for range callers {
		<-done
	}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256([]byte("the secret of the sizing tests, which is 1"))}, Feed: s, TokenCacheSize: -1,
	})
	must(err)
	before := heapNow()
	begun := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = v.Run(ctx)
	}()
	<-v.Ready()
	b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms-to-ready")
	b.ReportMetric((heapNow()-before)/feedRevocations, "heap-B/revocation")
	if n := v.Health().Revocations; n != feedRevocations {
		b.Fatalf("the verifier has %d revocations, want %d", n, feedRevocations)
	}
	cancel()
	<-ended
}
