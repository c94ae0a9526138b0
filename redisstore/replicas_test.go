package redisstore_test

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/redisstore"
)

func TestReplicas_WriteWaits(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a replica")
	}
	t.Parallel()
	master, replica := replicated(t)
	c := single(t, master.Addr)
	config := redisstore.Config{Replicas: 1, ReplicaTimeout: 150 * time.Millisecond}
	st, ctx, s := store(t, c, config), t.Context(), session("ada", "one")
	every(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}), "bob")
	require.NoError(t, st.Create(ctx, s))
	_, _, err := st.Rotate(ctx, "ada", "absent", rotateFrom(1, use(s)))
	require.ErrorIs(t, err, auth.ErrSessionNotFound)

	require.NoError(t, st.Spend(ctx, "ada", "one", now()))

	replica.Pause()
	const want = "the master has the write, but only 0 of 1 replicas confirmed it within 150ms"
	require.ErrorContains(t, st.Create(ctx, session("ada", "two")), want)
	_, _, err = st.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
	require.ErrorContains(t, err, want)
	// A call that writes nothing must not return data that may still be lost.
	_, rotated, err := store(t, single(t, master.Addr), config).Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
	require.False(t, rotated)
	require.ErrorContains(t, err, want)
	require.ErrorContains(t, st.Revoke(ctx, ending("ada", "one")), want)
	require.ErrorContains(t, st.Spend(ctx, "ada", "two", now()), want)
	require.ErrorContains(t, st.Spend(ctx, "ada", "two", now()), want)
	// A deadline ends the wait.
	started := time.Now()
	require.Error(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}).Create(within(t, 100*time.Millisecond), session("ada", "three")))
	require.Less(t, time.Since(started), 600*time.Millisecond)

	replica.Resume()
	require.NoError(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}).Revoke(ctx, ending("ada", "one")))
	rs, _ := begin(t, st)
	require.Contains(t, subjects(rs), "ada")

	st = store(t, c, redisstore.Config{Replicas: 2, ReplicaTimeout: 150 * time.Millisecond})
	require.ErrorContains(t, st.Create(ctx, session("ada", "four")), "only 1 of 2 replicas confirmed it")
}

// TestReplicas_FollowMovedKey moves a slot from one master to another. There
// are no replicas, so the error of each write says that the master has the
// write.
func TestReplicas_FollowMovedKey(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a cluster")
	}
	t.Parallel()
	addrs := cluster(t)
	c, ctx := clusterClient(t, addrs), t.Context()
	st := store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: time.Millisecond})
	const written = "the master has the write, but only 0 of 1 replicas confirmed it within 1ms"
	key := "ratchet:{ada}"
	require.ErrorContains(t, st.Create(ctx, session("ada", "one")), written)

	from, err := c.MasterForKey(ctx, key)
	require.NoError(t, err)
	to := slices.DeleteFunc(slices.Clone(addrs), func(a string) bool { return a == from.Options().Addr })[0]
	nodes := map[string]*redis.Client{}
	ids := map[string]string{}
	for _, addr := range addrs {
		nodes[addr] = single(t, addr)
		ids[addr] = nodes[addr].Do(ctx, "CLUSTER", "MYID").Val().(string)
	}
	slot := c.ClusterKeySlot(ctx, key).Val()
	require.NoError(t, nodes[to].Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from.Options().Addr]).Err())
	require.NoError(t, nodes[from.Options().Addr].Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Err())
	host, port, err := net.SplitHostPort(to)
	require.NoError(t, err)
	require.NoError(t, nodes[from.Options().Addr].Migrate(ctx, host, port, key, 0, patience).Err())
	require.ErrorContains(t, st.Spend(ctx, "ada", "two", now().Add(time.Hour)), written, "ASK") // in the slot of the sessions
	require.ErrorContains(t, st.Create(ctx, session("ada", "two")), written, "ASK")
	// The new master comes first: it raises its epoch, so that no message of the
	// old master takes the slot back.
	for _, addr := range append([]string{to}, addrs...) {
		require.NoError(t, nodes[addr].Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", ids[to]).Err())
	}
	// The client has the old state of the Cluster, or has reloaded it.
	require.ErrorContains(t, st.Create(ctx, session("ada", "three")), written, "MOVED")
	require.ErrorIs(t, store(t, c, redisstore.Config{}).Spend(ctx, "ada", "two", now()), auth.ErrSpent)
	require.Equal(t, int64(1), nodes[to].Exists(ctx, "ratchet:{ada}:once:two:3").Val(), "the record must be in the slot of the sessions")
	list, err := st.List(ctx, "ada")
	require.NoError(t, err)
	require.Len(t, list, 3)
}
