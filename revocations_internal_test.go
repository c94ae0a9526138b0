package auth

import (
	"fmt"
	"math/bits"
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

// ends returns the reason and the error for the revocations in the list that
// apply to t.
func ends(list []Revocation, t subjectTimes) (reason string, err error) {
	var named, all, access bool // t is ended by name, with all sessions, or only its access token is
	why := reasonUnknown        // the greatest reason of those that name t
	var ofAll, ofAccess uint    // sets of reasons, as bits
	for _, r := range list {
		if r.Subject != t.subject {
			continue
		}
		if slices.Contains(r.Sessions, t.sid) {
			named, why = true, max(why, reasonOf(r.Reason))
		}
		if r.All {
			ofAll |= 1 << reasonOf(r.Reason)
			all = all || t.created.Before(r.Before) && !slices.Contains(r.Except, t.sid)
		}
		if !r.All && len(r.Sessions) == 0 && !r.Before.IsZero() {
			ofAccess |= 1 << reasonOf(r.Reason)
			access = access || !t.issued.IsZero() && t.issued.Before(r.Before)
		}
	}
	common := func(set uint) revokeReason {
		if bits.OnesCount(set) == 1 {
			return revokeReason(bits.TrailingZeros(set))
		}
		return reasonUnknown
	}
	if all {
		why = max(why, common(ofAll))
	}
	switch {
	case named || all:
		return why.String(), ErrSessionRevoked
	case access:
		return common(ofAccess).String(), errIssuedBefore
	}
	return "", nil
}

// The merged entries of a subject have the effect and the reason of all its
// revocations, in any order. The same holds for the revocations that are
// published again for them.
func TestRevocations_MergingKeepsTheEffectOfEach(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes a second or more")
	}
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
			if words := []string{"", "reuse", "revoked", "logout", "newer", "access"}; r.IntN(4) > 0 {
				x.Reason = words[r.IntN(len(words))]
			} else {
				x.Reason = words[round%len(words)] // often the same
			}
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
		var published []Revocation
		for _, e := range rs.sessions {
			published = append(published, Revocation{Subject: e.subject, Sessions: []string{e.session}, Until: at.Add(time.Hour), Reason: e.reason.String()})
		}
		for _, entries := range rs.subjects {
			for _, e := range []*entry{entries.all, entries.access} {
				if e == nil {
					continue
				}
				require.LessOrEqual(t, len(e.spared), len(ids))
				for _, x := range e.revocations() {
					x.Until = at.Add(time.Hour)
					published = append(published, x)
				}
			}
		}
		again.apply(published, true, at)
		for _, subject := range []string{"u1", "u2", "u3"} {
			for _, sid := range append(ids, "e") {
				for created := range 7 {
					for issued := range 8 {
						times := subjectTimes{subject: subject, sid: sid, created: at.Add(time.Duration(created) * time.Second)}
						if issued > 0 {
							times.issued = at.Add(time.Duration(issued-1) * time.Second)
						}
						reason, want := ends(list, times)
						_, err := rs.find(times, at)
						told, found := "", err
						if e, ok := err.(*revokedError); ok { // errors.As takes longer
							told, found = e.reason.String(), e.error
						}
						if found != want || told != reason {
							t.Fatalf("round %d: %v, want %v with the reason %q for %v\n%+v", round, err, want, reason, times, list)
						}
						if _, repeated := again.find(times, at); repeated != err {
							t.Fatalf("round %d, republished: %v, want %v for %v\n%+v\n%+v", round, repeated, err, times, list, published)
						}
					}
				}
			}
		}
	}
}

// However often a user ends all other sessions, there is one entry, and it
// excepts only the sessions that the last call named.
func TestRevocations_OfOneSubjectAreMerged(t *testing.T) {
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

// A goroutine that waits for the lock waits for one batch, not for all of them.
// Contexts are canceled between the batches, without the lock.
func TestRevocations_AreAppliedInBatches(t *testing.T) {
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

// TestRevocationSet_RepeatsAnInstantThatIsNotLaterThanAKnownOne: an instant of
// another process became known after ExpireAccess chose its own.
func TestRevocationSet_RepeatsAnInstantThatIsNotLaterThanAKnownOne(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0).UTC()
	until := now.Add(time.Hour)
	for _, all := range []bool{false, true} {
		for known, repeats := range map[time.Duration]bool{
			-time.Second: false, 0: true, time.Second: true, maxAhead: true, maxAhead + time.Second: false,
		} {
			rs := revocationSet{process: randomID(), republishes: true}
			rs.apply([]Revocation{{ID: "other.1", Subject: "u1", All: all, Before: now.Add(known), Until: until}}, false, now)
			rs.add(Revocation{ID: rs.nextID(), Subject: "u1", Before: now, Until: until}, origin{own: true}, now)
			e := rs.subjects["u1"].access
			require.Equal(t, repeats, e.repeats(), "%v %s", all, known)
			require.Equal(t, repeats, len(rs.toRepublish) == 1, "%v %s", all, known)
			if repeats {
				require.Equal(t, now.Add(known), e.ownNotBefore.repeatAfter)
			}
		}
	}
}
