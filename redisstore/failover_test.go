package redisstore_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// TestFailover_LostWritesAreCorrected promotes a replica that lacks the last
// writes.
func TestFailover_LostWritesAreCorrected(t *testing.T) {
	t.Parallel()
	master := testserver.Redis(t, "--repl-diskless-sync-delay", "0")
	link := testserver.NewProxy(t, master.Addr)
	replica := replicaOf(t, link.Addr)
	old, promoted, ctx := single(t, master.Addr), single(t, replica.Addr), t.Context()
	st, s := store(t, old, redisstore.Config{}), session("ada", "one")
	require.NoError(t, st.Create(ctx, s))
	require.NoError(t, st.Create(ctx, session("bob", "one")))
	_, next := begin(t, st)
	require.NoError(t, old.Wait(ctx, 1, patience).Err())

	link.Refuse(true)
	got, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
	require.NoError(t, err)
	require.True(t, rotated)
	lost := ending("bob", "one")
	require.NoError(t, st.Revoke(ctx, lost))
	rs, next, _, err := st.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"bob"}, subjects(rs))
	master.Kill()
	require.NoError(t, promoted.ReplicaOf(ctx, "NO", "ONE").Err())

	st = store(t, promoted, redisstore.Config{})
	_, _, _, err = st.Changes(ctx, next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
	corrected, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(got.Generation, use(s)))
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, got.Generation, corrected.Generation)
	_, err = st.Get(ctx, "bob", "one") // the session exists again
	require.NoError(t, err)
	require.NoError(t, st.Revoke(ctx, lost)) // published again
	_, err = st.Get(ctx, "bob", "one")
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

// TestFailover_Sentinel checks that the client uses the new master, and that
// Changes returns ErrFeedReset.
func TestFailover_Sentinel(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts Sentinels")
	}
	t.Parallel()
	master, _ := replicated(t)
	sentinel := testserver.Sentinel(t, master.Addr)
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "master", SentinelAddrs: []string{sentinel.Addr}, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = c.Close() })
	watcher := single(t, sentinel.Addr)
	require.Eventually(t, func() bool { // until Sentinel has found the replica
		info, err := watcher.Info(t.Context(), "sentinel").Result()
		return err == nil && strings.Contains(info, "slaves=1")
	}, patience, 20*time.Millisecond)

	st, s := store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}), session("ada", "one")
	require.NoError(t, st.Create(t.Context(), s))
	_, next := begin(t, st)
	master.Kill()
	st = store(t, c, redisstore.Config{})
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
		return err == nil
	}, patience, 50*time.Millisecond)
	_, _, _, err := st.Changes(within(t, patience), next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
}

// TestFailover_Cluster checks that the client uses the new master soon,
// although it reloads the state of the Cluster only once a minute by itself.
func TestFailover_Cluster(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a cluster")
	}
	t.Parallel()
	nodes := testserver.RedisCluster(t)
	var addrs []string
	for _, node := range nodes {
		addrs = append(addrs, node.Addr)
	}
	c, ctx := clusterClient(t, addrs), t.Context()
	s := session("ada", "one")
	require.Equal(t, time.Minute, c.Options().ClusterStateReloadInterval)
	owner, err := c.MasterForKey(ctx, "ratchet:{ada}")
	require.NoError(t, err)
	i := slices.Index(addrs, owner.Options().Addr)
	replica := clusterReplica(t, nodes, i)

	for _, replicas := range []int{1, 0} { // the two ways in which a write finds its master
		require.NoError(t, store(t, c, redisstore.Config{Replicas: replicas, ReplicaTimeout: 2 * time.Second}).Create(ctx, s))
		s.ID = "two"
	}
	plain := store(t, clusterClient(t, addrs), redisstore.Config{})
	waits := store(t, clusterClient(t, addrs), redisstore.Config{Replicas: 1, ReplicaTimeout: time.Millisecond})
	_, err = plain.Get(ctx, "ada", "one") // both clients read the state of the Cluster
	require.NoError(t, err)
	_, _, err = waits.Rotate(ctx, "ada", "absent", rotateFrom(1, use(s)))
	require.Error(t, err)
	nodes[i].Kill()
	require.NoError(t, single(t, replica.Addr).Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err())
	for _, works := range []func(ctx context.Context) bool{
		func(ctx context.Context) bool {
			_, rotated, err := plain.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
			return err == nil && rotated
		},
		func(ctx context.Context) bool {
			_, _, err := waits.Rotate(ctx, "ada", "two", rotateFrom(1, use(s)))
			return err != nil && strings.Contains(err.Error(), "0 of 1 replicas")
		},
	} {
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return works(ctx)
		}, 10*time.Second, 50*time.Millisecond)
	}
}

// clusterReplica adds a replica of nodes[of]. It waits until the replica has all
// writes and every node has found it.
func clusterReplica(t testing.TB, nodes []*testserver.Process, of int) *testserver.Process {
	t.Helper()
	bus := testserver.FreePort(t)
	replica := testserver.Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(replica.Addr)
	require.NoError(t, err)
	c, ctx := single(t, replica.Addr), t.Context()
	master := single(t, nodes[of].Addr)
	require.NoError(t, master.ConfigSet(ctx, "repl-diskless-sync-delay", "0").Err())
	for _, node := range nodes { // each, since gossip takes seconds
		require.NoError(t, single(t, node.Addr).Do(ctx, "CLUSTER", "MEET", host, port, bus).Err())
	}
	id, err := master.Do(ctx, "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.Do(ctx, "CLUSTER", "REPLICATE", id).Err() == nil }, patience, 20*time.Millisecond)
	inSync(t, replica)
	for _, node := range nodes {
		other := single(t, node.Addr)
		require.Eventually(t, func() bool {
			known, err := other.ClusterNodes(ctx).Result()
			return err == nil && strings.Contains(known, "slave "+id)
		}, patience, 20*time.Millisecond)
	}
	return replica
}
