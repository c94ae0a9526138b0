package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// TestSpend_RecognizesItsRecord loses the reply, so that the driver sends the
// command again.
func TestSpend_RecognizesItsRecord(t *testing.T) {
	t.Parallel()
	master, _ := replicated(t)
	proxy := testserver.NewProxy(t, master.Addr)
	ctx, until := t.Context(), now().Add(time.Hour)
	for _, replicas := range []int{0, 1} {
		st := store(t, single(t, proxy.Addr), redisstore.Config{Replicas: replicas, ReplicaTimeout: 2 * time.Second})
		id := fmt.Sprint("one-", replicas)
		require.NoError(t, st.Spend(ctx, "ada", "connects "+id, until))
		proxy.CutResponses(0)
		require.NoError(t, st.Spend(ctx, "ada", id, until), "a call that the driver repeated counts as a second use")
		require.ErrorIs(t, st.Spend(ctx, "ada", id, until), auth.ErrSpent)
		proxy.CutResponses(0)
		require.ErrorIs(t, st.Spend(ctx, "ada", id, until), auth.ErrSpent)
	}
}

// TestSpend_KeysNeverCollide uses subjects and IDs with parts of keys in them.
func TestSpend_KeysNeverCollide(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx, until := store(t, c, redisstore.Config{}), t.Context(), now().Add(time.Hour)
	parts := []string{"", "a", "}", "{", ":", ":1", "}:once:", "}:once:a:1", "feed", ":feed"}
	var names []string
	seen := map[string]bool{"": true}
	for _, x := range parts {
		for _, y := range parts {
			if name := x + y; !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	keys := int64(1)
	require.NoError(t, st.Revoke(ctx, ending("nobody", "one")))
	for _, subject := range names {
		require.NoError(t, st.Create(ctx, session(subject, "one")))
		keys++
		for _, id := range names {
			require.NoError(t, st.Spend(ctx, subject, id, until), "%q %q", subject, id)
			keys++
		}
	}
	require.Equal(t, keys, c.DBSize(ctx).Val())
	for _, subject := range names {
		list, err := st.List(ctx, subject)
		require.NoError(t, err)
		require.Len(t, list, 1, "%q", subject)
		require.ErrorIs(t, st.Spend(ctx, subject, names[0], until), auth.ErrSpent)
	}
	rs, _ := begin(t, st)
	require.Len(t, rs, 1)
	// The sessions of a subject and its records of Spend are independent.
	require.NoError(t, st.Revoke(ctx, auth.Revocation{Subject: "a", All: true, Before: now().Add(time.Minute), Until: until}))
	require.ErrorIs(t, st.Spend(ctx, "a", "a", until), auth.ErrSpent)
}

func TestSpend_ExpiresAMinuteAfterUntil(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx, until := store(t, c, redisstore.Config{}), t.Context(), now().Add(time.Hour)
	const key = "ratchet:{ada}:once:one:3"
	require.NoError(t, st.Spend(ctx, "ada", "one", until))
	require.Equal(t, until.Add(time.Minute), expiry(t, c, key))
	require.ErrorIs(t, st.Spend(ctx, "ada", "one", until.Add(time.Hour)), auth.ErrSpent)
	require.Equal(t, until.Add(time.Minute), expiry(t, c, key), "a later call must not change the expiry")
	for i, at := range []time.Time{
		{}, time.Unix(-60, 0), time.Unix(0, 0), now().Add(-time.Hour), now().Add(-time.Minute), time.Date(6000, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		require.NoError(t, st.Spend(ctx, "ada", fmt.Sprint(i), at), "%s", at)
	}
	require.ErrorIs(t, st.Spend(ctx, "ada", "5", until), auth.ErrSpent, "the year 6000")
	require.NoError(t, st.Spend(ctx, "ada", "3", until), "a record that expired an hour ago counts")
}

// TestSpend_FullServerIsAnError fills the server: what could not be recorded was
// not used.
func TestSpend_FullServerIsAnError(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx, until := store(t, c, redisstore.Config{}), t.Context(), now().Add(time.Hour)
	require.NoError(t, st.Spend(ctx, "ada", "zero", until))
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "1").Err())
	err := st.Spend(ctx, "ada", "one", until)
	require.ErrorContains(t, err, "redisstore: recording a use: OOM")
	require.NotErrorIs(t, err, auth.ErrSpent)
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "0").Err())
	require.ErrorIs(t, st.Spend(ctx, "ada", "zero", until), auth.ErrSpent)
	require.NoError(t, st.Spend(ctx, "ada", "one", until))
}

// contend lets 64 clients spend one ID at once. It returns how many calls
// returned nil, and how many returned ErrSpent.
func contend(ctx context.Context, st auth.Store, id string) (won, lost int) {
	var wins, losses atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 64 {
		wg.Go(func() {
			<-start
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			switch err := st.Spend(ctx, "ada", id, now().Add(time.Hour)); {
			case err == nil:
				wins.Add(1)
			case errors.Is(err, auth.ErrSpent):
				losses.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load()), int(losses.Load())
}

// rounds returns 1,000 with AUTH_LONG=1, and otherwise 30.
func rounds() int {
	if os.Getenv("AUTH_LONG") == "1" {
		return 1000
	}
	return 30
}

// TestSpend_OneWinnerThroughAFailover lets 64 clients spend one ID, round after
// round. In the middle, the master is killed and its replica is promoted. Writes
// wait for the replica, so nothing that was acknowledged is lost.
func TestSpend_OneWinnerThroughAFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a replica")
	}
	t.Parallel()
	master, replica := replicated(t)
	proxy := testserver.NewProxy(t, master.Addr)
	ctx, c := t.Context(), single(t, proxy.Addr)
	st := store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second})
	winner := map[string]bool{}
	play := func(id string) int {
		won, lost := contend(ctx, st, id)
		require.LessOrEqual(t, won, 1, "two clients have used %s", id)
		winner[id] = won == 1
		return won + lost
	}
	n := rounds()
	for i := range n / 2 {
		require.Equal(t, 64, play(fmt.Sprint("before-", i)))
	}
	promoted := make(chan error)
	go func() {
		master.Kill()
		err := single(t, replica.Addr).ReplicaOf(ctx, "NO", "ONE").Err()
		proxy.Retarget(replica.Addr)
		promoted <- err
	}()
	unknown := 0
	for i, waiting := 0, true; waiting; i++ {
		unknown += 64 - play(fmt.Sprint("meanwhile-", i))
		select {
		case err := <-promoted:
			require.NoError(t, err)
			waiting = false
		default:
		}
	}
	replicaOf(t, replica.Addr)
	for i := range n / 2 {
		require.Equal(t, 64, play(fmt.Sprint("after-", i)))
	}
	for id, used := range winner {
		err := st.Spend(ctx, "ada", id, now().Add(time.Hour))
		if used {
			require.ErrorIs(t, err, auth.ErrSpent, "%s was used, and the failover lost it", id)
		}
	}
	t.Logf("%d rounds of 64 clients: at most one winner each; %d calls during the failover had an unknown outcome", len(winner), unknown)
}

// TestSpend_FailoverLosesAcknowledgedRecords promotes a replica that lacks the
// last writes. What was used since can be used again.
func TestSpend_FailoverLosesAcknowledgedRecords(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a replica")
	}
	t.Parallel()
	master := testserver.Redis(t, "--repl-diskless-sync-delay", "0")
	link := testserver.NewProxy(t, master.Addr)
	replica := replicaOf(t, link.Addr)
	ctx, until := t.Context(), now().Add(time.Hour)
	st := store(t, single(t, master.Addr), redisstore.Config{})
	safe := store(t, single(t, master.Addr), redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second})
	require.NoError(t, safe.Spend(ctx, "ada", "replicated", until))
	link.Refuse(true)
	require.NoError(t, st.Spend(ctx, "ada", "lost", until))
	hasty := store(t, single(t, master.Addr), redisstore.Config{Replicas: 1, ReplicaTimeout: time.Millisecond})
	require.ErrorContains(t, hasty.Spend(ctx, "ada", "refused", until), "only 0 of 1 replicas confirmed it")
	require.ErrorContains(t, hasty.Spend(ctx, "ada", "lost", until), "only 0 of 1 replicas confirmed it",
		"a record that may be lost must not count as used")
	master.Kill()

	promoted := single(t, replica.Addr)
	require.NoError(t, promoted.ReplicaOf(ctx, "NO", "ONE").Err())
	st = store(t, promoted, redisstore.Config{})
	require.ErrorIs(t, st.Spend(ctx, "ada", "replicated", until), auth.ErrSpent)
	for _, id := range []string{"lost", "refused"} {
		require.NoError(t, st.Spend(ctx, "ada", id, until), id)
		require.ErrorIs(t, st.Spend(ctx, "ada", id, until), auth.ErrSpent)
	}
}
