package auth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/storetest"
)

func TestMemoryStore_Conformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) func() auth.Store {
		m := auth.NewMemoryStore()
		return func() auth.Store { return m }
	})
}

// Sessions with equal hashes are told apart by their records.
func TestMemoryStore_DistinguishesSessionsWithEqualHashes(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: is a second conformance test")
	}
	t.Parallel()
	storetest.Run(t, func(*testing.T) func() auth.Store {
		m := auth.NewCollidingMemoryStore()
		return func() auth.Store { return m }
	})
}

// memorySession returns the nth session of a series. It expires after an hour.
func memorySession(n int, at time.Time) auth.Session {
	return auth.Session{
		ID: fmt.Sprintf("session-%016d", n), Subject: fmt.Sprintf("user-%08d", n/2), Generation: 1,
		CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(time.Hour),
		Device: auth.Device{UserAgent: "agent"},
	}
}

// memoryKept returns how many of the first n sessions are still stored.
func memoryKept(t *testing.T, m *auth.MemoryStore, n int, at func(n int) time.Time) int {
	t.Helper()
	kept := 0
	for i := range n {
		s := memorySession(i, at(i))
		_, err := m.Get(t.Context(), s.Subject, s.ID)
		if err == nil {
			kept++
			continue
		}
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
	return kept
}

func TestMemoryStore_GrowsWithLiveSessionsOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes a second or more")
	}
	t.Parallel()
	const sessions, live = 100_000, 10_000
	step := time.Hour / live
	start := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC) // the store uses the clock of its callers
	at := func(n int) time.Time { return start.Add(time.Duration(n) * step).Truncate(time.Millisecond) }
	m := auth.NewMemoryStore()
	for i := range sessions {
		require.NoError(t, m.Create(t.Context(), memorySession(i, at(i))))
		if n := i + 1; n == sessions/4 || n == sessions/2 || n == sessions {
			kept := memoryKept(t, m, n, at)
			require.GreaterOrEqual(t, kept, live, "after %d sessions a live one was removed", n)
			require.LessOrEqual(t, kept, live*16/10, "after %d sessions", n)
		}
	}
}

// After a peak of sessions, refreshes are enough to remove the expired ones.
func TestMemoryStore_RotateCollectsExpiredSessions(t *testing.T) {
	t.Parallel()
	const dead, live = 20_000, 2_000
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	m := auth.NewMemoryStore()
	for i := range dead {
		require.NoError(t, m.Create(t.Context(), memorySession(i, start)))
	}
	for i := range live {
		s := memorySession(dead+i, start)
		s.ExpiresAt = start.AddDate(0, 0, 30)
		require.NoError(t, m.Create(t.Context(), s))
	}
	later := start.Add(2 * time.Hour)
	for range 6 {
		for i := range live {
			s := memorySession(dead+i, start)
			got, err := m.Get(t.Context(), s.Subject, s.ID)
			require.NoError(t, err)
			_, rotated, err := m.Rotate(
				t.Context(), s.Subject, s.ID,
				auth.Rotation{From: got.Generation, At: later, NotAfter: later, ExpiresAt: later.AddDate(0, 0, 7)},
			)
			require.NoError(t, err)
			require.True(t, rotated)
		}
	}
	kept := memoryKept(t, m, dead+live, func(int) time.Time { return start })
	require.GreaterOrEqual(t, kept, live)
	require.LessOrEqual(t, kept, live*16/10)
}

func TestMemoryStore_KeepsExpiredSessionsForAMinute(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	m := auth.NewMemoryStore()
	first := memorySession(0, start)
	require.NoError(t, m.Create(t.Context(), first))
	write := func(at time.Time) { // as often as is needed to check all sessions of the subject
		for i := range 20 {
			s := memorySession(1, at)
			s.Subject, s.ID = first.Subject, fmt.Sprintf("%d-%d", at.UnixMilli(), i)
			require.NoError(t, m.Create(t.Context(), s))
		}
	}
	write(first.ExpiresAt.Add(time.Minute))
	_, err := m.Get(t.Context(), first.Subject, first.ID)
	require.NoError(t, err)
	write(first.ExpiresAt.Add(time.Minute + time.Millisecond))
	_, err = m.Get(t.Context(), first.Subject, first.ID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

// usesKept returns how many of the first n uses are still
// known.
func usesKept(t *testing.T, m *auth.MemoryStore, n int, until func(n int) time.Time) int {
	t.Helper()
	kept := 0
	for i := range n {
		subject, id := fmt.Sprintf("user-%d", i%100), fmt.Sprintf("one-%d", i)
		if err := m.Spend(t.Context(), subject, id, until(i)); err != nil {
			require.ErrorIs(t, err, auth.ErrSpent)
			kept++
		}
	}
	return kept
}

func TestMemoryStore_SpentRecordsGrowWithLiveOnesOnly(t *testing.T) {
	t.Parallel()
	const uses, live = 50_000, 5_000
	start := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for name, tick := range map[string]func(m *auth.MemoryStore, s auth.Session) error{
		"with logins": func(m *auth.MemoryStore, s auth.Session) error { return m.Create(t.Context(), s) },
		"with refreshes": func(m *auth.MemoryStore, s auth.Session) error {
			_, _, err := m.Rotate(t.Context(), s.Subject, "absent", auth.Rotation{At: s.RotatedAt, NotAfter: s.RotatedAt, ExpiresAt: s.ExpiresAt})
			if errors.Is(err, auth.ErrSessionNotFound) {
				err = nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := auth.NewMemoryStore()
			until := func(n int) time.Time {
				return start.Add(time.Hour + time.Duration(n)*time.Hour/live).Truncate(time.Millisecond)
			}
			for i := range uses {
				s := memorySession(i, until(i).Add(-time.Hour))
				require.NoError(t, tick(m, s))
				require.NoError(t, m.Spend(t.Context(), fmt.Sprintf("user-%d", i%100), fmt.Sprintf("one-%d", i), until(i)))
			}
			require.NoError(t, m.Create(t.Context(), memorySession(uses, until(uses).Add(-time.Hour))))
			require.LessOrEqual(t, m.Spent(), live*16/10)
			kept := usesKept(t, m, uses, until)
			require.GreaterOrEqual(t, kept, live)
			require.LessOrEqual(t, kept, live*16/10)
		})
	}
}

// A program that only spends, and does so through an Authenticator, lets the
// records expire too.
func TestMemoryStore_SpentRecordsOfOnceExpire(t *testing.T) {
	t.Parallel()
	m, clock := auth.NewMemoryStore(), newClock()
	a, _ := newDirect(t, m, func(c *auth.Config) { c.Now = clock.Now })
	for i := range 20_000 {
		require.NoError(t, a.Once(t.Context(), "u1", strconv.Itoa(i), time.Minute))
		clock.Advance(100 * time.Millisecond)
	}
	require.LessOrEqual(t, m.Spent(), 2*1320) // a minute, the Leeway, and a minute
}

func TestMemoryStore_KeepsSpentRecordsForAMinute(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ctx := t.Context()
	m := auth.NewMemoryStore()
	at := func(at time.Time) {
		s := memorySession(1, at)
		s.ID = strconv.FormatInt(at.UnixMilli(), 10)
		require.NoError(t, m.Create(ctx, s))
	}
	subject, until := memorySession(1, start).Subject, start.Add(time.Hour)
	at(start)
	require.NoError(t, m.Spend(ctx, subject, "one", until))
	require.NoError(t, m.Spend(ctx, subject, "later", until.Add(time.Hour)))
	at(until.Add(time.Minute))
	require.ErrorIs(t, m.Spend(ctx, subject, "one", until), auth.ErrSpent)
	at(start.Add(-24 * time.Hour)) // the clock is set back
	require.ErrorIs(t, m.Spend(ctx, subject, "one", until), auth.ErrSpent)
	at(until.Add(time.Minute + time.Millisecond))
	require.NoError(t, m.Spend(ctx, subject, "one", until.Add(2*time.Hour)), "the record has expired")
	require.ErrorIs(t, m.Spend(ctx, subject, "later", until), auth.ErrSpent)
	require.ErrorIs(t, m.Spend(ctx, subject, "one", until), auth.ErrSpent)
}

// After a peak, what others do is enough to remove the records of Spend.
func TestMemoryStore_RotateCollectsSpentRecords(t *testing.T) {
	t.Parallel()
	const uses = 20_000
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	m := auth.NewMemoryStore()
	s := memorySession(1, start)
	s.ExpiresAt = start.AddDate(0, 1, 0)
	require.NoError(t, m.Create(t.Context(), s))
	for i := range uses {
		require.NoError(t, m.Spend(t.Context(), s.Subject, strconv.Itoa(i), start.Add(time.Minute)))
	}
	require.Equal(t, uses, m.Spent())
	for i := range uses / 4 {
		at := start.Add(time.Hour)
		_, _, err := m.Rotate(t.Context(), s.Subject, s.ID, auth.Rotation{From: int64(i + 1), At: at, NotAfter: at, ExpiresAt: s.ExpiresAt})
		require.NoError(t, err)
	}
	require.Zero(t, m.Spent())
}

func TestMemoryStore_FeedDropsExpiredEntries(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	m := auth.NewMemoryStore()
	for i := range 10_000 {
		at := start.Add(time.Duration(i) * time.Second)
		s := memorySession(i, at)
		require.NoError(t, m.Create(t.Context(), s)) // sets the time of the store
		require.NoError(t, m.Revoke(t.Context(), auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: at.Add(6 * time.Minute)}))
	}
	rs, _, _, err := m.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(rs), 360)
	require.LessOrEqual(t, len(rs), 720)
}

func TestMemoryStore_FeedOfAnotherStoreIsReset(t *testing.T) {
	t.Parallel()
	a, b := auth.NewMemoryStore(), auth.NewMemoryStore()
	_, position, _, err := a.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	_, _, _, err = b.Changes(t.Context(), position, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
}

func TestMemoryStore_RefusesInvalidRecords(t *testing.T) {
	t.Parallel()
	m := auth.NewMemoryStore()
	s := memorySession(1, time.Now())
	for _, name := range []string{"", strings.Repeat("x", 256), strings.Repeat("中", 86), "\xff", "a\x00", "\n", "a\x7f", "\u0085"} {
		bad := s
		bad.ID = name
		require.ErrorIs(t, m.Create(t.Context(), bad), auth.ErrNotStorable, "%q", name)
		bad = s
		bad.Subject = name
		require.ErrorIs(t, m.Create(t.Context(), bad), auth.ErrNotStorable, "%q", name)
		r := auth.Revocation{Subject: s.Subject, Sessions: []string{"one", name}, Until: time.Now()}
		require.ErrorIs(t, m.Revoke(t.Context(), r), auth.ErrNotStorable, "%q", name)
		r.Sessions, r.All, r.Except = nil, true, []string{name}
		require.ErrorIs(t, m.Revoke(t.Context(), r), auth.ErrNotStorable, "%q", name)
		r.Except, r.Subject = nil, name
		require.ErrorIs(t, m.Revoke(t.Context(), r), auth.ErrNotStorable, "%q", name)
		_, err := m.Get(t.Context(), s.Subject, name)
		require.ErrorIs(t, err, auth.ErrSessionNotFound, "%q", name)
		_, _, err = m.Rotate(t.Context(), name, s.ID, auth.Rotation{From: 1, At: time.Now(), ExpiresAt: time.Now()})
		require.ErrorIs(t, err, auth.ErrSessionNotFound, "%q", name)
	}
	for what, change := range map[string]func(*auth.Session){
		"Opaque":           func(s *auth.Session) { s.Opaque = make([]byte, 1281) },
		"RetryTag":         func(s *auth.Session) { s.RetryTag = make([]byte, 15) },
		"Key":              func(s *auth.Session) { s.Key = make([]byte, 32) },
		"Generation":       func(s *auth.Session) { s.Generation = 1<<53 + 1 },
		"CreatedAt":        func(s *auth.Session) { s.CreatedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"Device.UserAgent": func(s *auth.Session) { s.Device.UserAgent = "a\x00" },
		"Device.IP":        func(s *auth.Session) { s.Device.IP = netip.MustParseAddr("fe80::1%eth0") },
	} {
		bad := s
		change(&bad)
		require.ErrorContains(t, m.Create(t.Context(), bad), "auth: not storable: "+what)
	}
	notice := auth.Revocation{AccessTTL: time.Hour, Until: time.Now()}
	require.NoError(t, m.Revoke(t.Context(), notice))
	for _, ttl := range []time.Duration{-1, 24*time.Hour + 1} {
		notice.AccessTTL = ttl
		require.ErrorIs(t, m.Revoke(t.Context(), notice), auth.ErrNotStorable, ttl)
	}
	notice.AccessTTL, notice.Subject = time.Hour, "u1"
	require.ErrorContains(t, m.Revoke(t.Context(), notice), "must not end anything")
	list, err := m.List(t.Context(), s.Subject)
	require.NoError(t, err)
	require.Empty(t, list)
	rs, _, _, err := m.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.Len(t, rs, 1)
}

func TestMemoryStore_ReturnsAFeedInPages(t *testing.T) {
	t.Parallel()
	m := auth.NewMemoryStore()
	for i := range 2500 {
		require.NoError(t, m.Revoke(t.Context(), auth.Revocation{Subject: strconv.Itoa(i), Until: time.Now()}))
	}
	var got []int
	position := ""
	for more := true; more; {
		rs, next, others, err := m.Changes(t.Context(), position, time.Hour)
		require.NoError(t, err)
		require.LessOrEqual(t, len(rs), 1000)
		for _, r := range rs {
			n, err := strconv.Atoi(r.Subject)
			require.NoError(t, err)
			got = append(got, n)
		}
		position, more = next, others
	}
	require.Len(t, got, 2500)
	require.True(t, slices.IsSorted(got))
}

// An expired entry is removed even if an earlier entry has not expired.
func TestMemoryStore_FeedDropsExpiredEntriesBehindOthers(t *testing.T) {
	t.Parallel()
	m := auth.NewMemoryStore()
	at := time.Now()
	require.NoError(t, m.Revoke(t.Context(), auth.Revocation{Subject: "stays", Until: at.Add(24 * time.Hour)}))
	for i := range 20_000 {
		at = at.Add(time.Second)
		s := memorySession(i, at)
		s.Subject = "user" // so that one clock advances
		require.NoError(t, m.Create(t.Context(), s))
		require.NoError(t, m.Revoke(t.Context(), auth.Revocation{Subject: "user", Sessions: []string{s.ID}, Until: at.Add(time.Minute)}))
	}
	count := 0
	for position, more := "", true; more; {
		rs, next, others, err := m.Changes(t.Context(), position, 0)
		require.NoError(t, err)
		count, position, more = count+len(rs), next, others
	}
	require.Less(t, count, 2000)
}

func TestMemoryStore_StartsNoGoroutine(t *testing.T) {
	t.Parallel()
	m := auth.NewMemoryStore()
	for i := range 100 {
		require.NoError(t, m.Create(t.Context(), memorySession(i, time.Now())))
	}
	require.NoError(t, m.Revoke(t.Context(), auth.Revocation{Subject: "user", Until: time.Now()}))
	_, _, _, err := m.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	stacks := make([]byte, 1<<20)
	for n := runtime.Stack(stacks, true); ; n = runtime.Stack(stacks, true) {
		if n < len(stacks) {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	for line := range strings.Lines(string(stacks)) {
		if by, ok := strings.CutPrefix(line, "created by "); ok {
			require.NotContains(t, by, "NewMemoryStore")
			require.NotContains(t, by, "MemoryStore)")
			require.NotContains(t, by, "memoryShard)")
			require.NotContains(t, by, "memoryFeed)")
		}
	}
}

// BenchmarkMemoryStore_MillionSessions measures refreshes among a million
// sessions. It also reports the memory per session and the longest write while
// a million other sessions are created and the first ones are removed.
func BenchmarkMemoryStore_MillionSessions(b *testing.B) {
	const sessions = 1_000_000
	ctx := context.Background()
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	start := time.Now().UTC().Truncate(time.Millisecond)
	made := func(n int, at time.Time) auth.Session {
		s := memorySession(n, at)
		s.Device.UserAgent = strings.Clone("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
		return s
	}
	before := heap()
	m := auth.NewMemoryStore()
	for i := range sessions {
		if err := m.Create(ctx, made(i, start)); err != nil {
			b.Fatal(err)
		}
	}
	perSession := float64(heap()-before) / sessions
	before = heap()
	for i := range sessions {
		if err := m.Spend(ctx, fmt.Sprintf("user-%08d", i/2), fmt.Sprintf("token-%016d", i), start.Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
	}
	perUse := float64(heap()-before) / sessions

	var rotations atomic.Int64
	b.Run("refresh", func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(perSession, "B/session")
		b.ReportMetric(perUse, "B/use")
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				s := made(rand.N(sessions), start)
				at := start.Add(time.Duration(rotations.Add(1)) * time.Microsecond)
				from := rotations.Load() + 2 // ahead of the stored generation, so that Rotate rotates
				if _, _, err := m.Rotate(
					ctx, s.Subject, s.ID, auth.Rotation{From: from, At: at, NotAfter: at, ExpiresAt: s.ExpiresAt, Device: s.Device},
				); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("collect", func(b *testing.B) {
		var longest time.Duration
		n := sessions
		b.ReportAllocs()
		for b.Loop() {
			s := made(n, start.Add(2*time.Hour))
			n++
			begun := time.Now()
			if err := m.Create(ctx, s); err != nil {
				b.Fatal(err)
			}
			longest = max(longest, time.Since(begun))
		}
		b.ReportMetric(float64(longest.Microseconds()), "µs-longest")
	})
}
