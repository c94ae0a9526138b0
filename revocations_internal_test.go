package auth

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seedOf returns AUTH_SEED, or a random seed, and logs it.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("AUTH_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("AUTH_SEED=%d", seed)
	return seed
}

// ends is what a list of revocations says, one by one.
func ends(list []Revocation, t subjectTimes) error {
	var access error
	for _, r := range list {
		switch {
		case r.Subject != t.subject:
		case slices.Contains(r.Sessions, t.sid):
			return ErrSessionRevoked
		case r.All && t.created.Before(r.Before) && !slices.Contains(r.Except, t.sid):
			return ErrSessionRevoked
		case !r.All && len(r.Sessions) == 0 && !t.issued.IsZero() && t.issued.Before(r.Before):
			access = errIssuedBefore
		}
	}
	return access
}

// The merged entries of a subject say what all revocations of it said, in any
// order, and so does what is announced of them again.
func TestRevocations_MergedSayWhatEachOfThemSaid(t *testing.T) {
	t.Parallel()
	base := seedOf(t)
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for round := range 3000 {
		r := rand.New(rand.NewPCG(base, uint64(round)))
		ids := []string{"a", "b", "c", "d"}
		some := func() (list []string) {
			for _, id := range ids {
				if r.IntN(3) == 0 {
					list = append(list, id)
				}
			}
			return list
		}
		second := func() time.Time { return at.Add(time.Duration(r.IntN(6)) * time.Second) }
		rs, again := &revocationSet{}, &revocationSet{}
		var list []Revocation
		for range 1 + r.IntN(8) {
			x := Revocation{Subject: []string{"u1", "u2"}[r.IntN(2)], Until: at.Add(time.Hour)}
			switch r.IntN(4) {
			case 0:
				x.Sessions = some()
			case 1:
				x.Before = second()
			case 2:
				x.Sessions = some()
				fallthrough
			default:
				x.All, x.Except, x.Before = true, some(), second()
			}
			list = append(list, x)
			rs.add(x, origin{own: r.IntN(2) == 0}, at)
		}
		var announced []Revocation
		for _, e := range rs.sessions {
			announced = append(announced, Revocation{Subject: e.subject, Sessions: []string{e.session}, Until: at.Add(time.Hour)})
		}
		for _, entries := range rs.subjects {
			for _, e := range []*entry{entries.all, entries.access} {
				if e == nil {
					continue
				}
				require.LessOrEqual(t, len(e.spared), len(ids))
				for _, x := range e.revocations() {
					x.Until = at.Add(time.Hour)
					announced = append(announced, x)
				}
			}
		}
		again.apply(announced, true, at)
		for _, subject := range []string{"u1", "u2", "u3"} {
			for _, sid := range append(ids, "e") {
				for created := range 7 {
					for issued := range 8 {
						times := subjectTimes{subject: subject, sid: sid, created: at.Add(time.Duration(created) * time.Second)}
						if issued > 0 {
							times.issued = at.Add(time.Duration(issued-1) * time.Second)
						}
						want := ends(list, times)
						if _, err := rs.find(times, at); err != want {
							t.Fatalf("round %d: %v, want %v for %v\n%+v", round, err, want, times, list)
						}
						if _, err := again.find(times, at); err != want {
							t.Fatalf("round %d, announced again: %v, want %v for %v\n%+v\n%+v", round, err, want, times, list, announced)
						}
					}
				}
			}
		}
	}
}

// However often a user ends the other sessions, there is one entry, and it
// spares no more sessions than the last call named.
func TestRevocations_OfOneSubjectStayFew(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rs := &revocationSet{}
	for i := range 20_000 {
		now := at.Add(time.Duration(i) * 40 * time.Millisecond)
		rs.apply([]Revocation{{Subject: "u1", All: true, Except: []string{fmt.Sprint(i)}, Before: notBefore(now, 0), Until: now.Add(time.Hour)}}, false, now)
		rs.apply([]Revocation{{Subject: "u1", Before: notBefore(now, 0), Until: now.Add(time.Hour)}}, false, now)
	}
	require.Equal(t, int64(2), rs.size.Load())
	require.LessOrEqual(t, len(rs.subjects["u1"].all.spared), 1)
	require.Len(t, rs.queue, 2)
}

// What waits for the lock waits for one piece of what is applied, not for all
// of it. Contexts end between the pieces, with the lock free.
func TestRevocations_AreAppliedInPieces(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rs := &revocationSet{}
	var list []Revocation
	for i := range 10 * applyChunk {
		list = append(list, Revocation{Subject: fmt.Sprint("u", i), Sessions: []string{"one"}, Until: at.Add(time.Hour)})
	}
	var sizes []int64
	for i := range 10 {
		rs.watch(&watcher{subjectTimes: subjectTimes{subject: fmt.Sprint("u", i*applyChunk), sid: "one"}, cancel: func(error) {
			require.True(t, rs.mu.TryLock())
			rs.mu.Unlock()
			sizes = append(sizes, rs.size.Load())
		}})
	}
	rs.apply(list, true, at)
	for i, size := range sizes {
		require.Equal(t, int64((i+1)*applyChunk), size)
	}
	require.Len(t, sizes, 10)
}

func TestRevocations_WatchersOfOtherSessionsAreNotTouched(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rs := &revocationSet{}
	ended := map[string]error{}
	for _, sid := range []string{"a", "b", "c", "c"} {
		name := fmt.Sprint(sid, len(rs.watchers["u1"][sid]))
		rs.watch(&watcher{
			subjectTimes: subjectTimes{"u1", sid, at, at.Add(time.Duration(len(rs.watchers["u1"][sid])) * time.Hour)},
			cancel:       func(cause error) { ended[name] = cause },
		})
	}
	rs.apply([]Revocation{{Subject: "u1", Sessions: []string{"a"}, Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked}, ended)
	rs.apply([]Revocation{{Subject: "u1", Before: at.Add(time.Minute), Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked, "b0": errIssuedBefore, "c0": errIssuedBefore}, ended)
	rs.apply([]Revocation{{Subject: "u1", All: true, Before: at.Add(time.Minute), Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked, "b0": errIssuedBefore, "c0": errIssuedBefore, "c1": ErrSessionRevoked}, ended)
	require.Empty(t, rs.watchers)
}

func TestRevocations_ManyThatAreAnnouncedAgainAreNotAllLookedAtForABatch(t *testing.T) {
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
		batch, next := rs.takeDue(now)
		if n == 0 {
			require.True(t, last.queued, "readers wait while it looks at what does not fit")
		}
		require.True(t, slices.Equal(paused, rs.toRepublish[:3]), "what is paused stays")
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
	batch, next := rs.takeDue(now.Add(time.Second))
	require.Len(t, batch, 3)
	require.Zero(t, next)
}
