package redisstore_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

const patience = 20 * time.Second

// cluster starts a Cluster of three masters and returns their addresses.
func cluster(t testing.TB) (addrs []string) {
	for _, node := range testserver.RedisCluster(t) {
		addrs = append(addrs, node.Addr)
	}
	return addrs
}

func clusterClient(t testing.TB, addrs []string) *redis.ClusterClient {
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// replicated starts a server and a replica that has all its writes.
func replicated(t testing.TB) (master, replica *testserver.Process) {
	master = testserver.Redis(t, "--repl-diskless-sync-delay", "0")
	return master, replicaOf(t, master.Addr)
}

// replicaOf starts a replica of the server at addr and waits until it has all its
// writes.
func replicaOf(t testing.TB, addr string) *testserver.Process {
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	replica := testserver.Redis(t, "--replicaof", host+" "+port)
	inSync(t, replica)
	return replica
}

// inSync waits until the replica is connected to its master.
func inSync(t testing.TB, replica *testserver.Process) {
	c := single(t, replica.Addr)
	require.Eventually(t, func() bool {
		info, err := c.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	}, patience, 10*time.Millisecond)
}

// now returns the time as package auth passes it to a store.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// session returns a new session.
func session(subject, id string) auth.Session {
	at := now()
	return auth.Session{
		ID: id, Subject: subject, Generation: 1, CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
		Device: auth.Device{UserAgent: "agent"}, Opaque: []byte("data"),
	}
}

// use returns the change that a refresh of s makes.
func use(s auth.Session) auth.Rotation {
	return auth.Rotation{At: now(), NotAfter: now().Add(time.Hour), ExpiresAt: s.ExpiresAt, Device: s.Device}
}

// ending returns a revocation of the sessions with the given IDs.
func ending(subject string, ids ...string) auth.Revocation {
	return auth.Revocation{Subject: subject, Sessions: ids, Until: now().Add(10 * time.Minute)}
}

// subjects returns the subjects of the revocations.
func subjects(rs []auth.Revocation) (list []string) {
	for _, r := range rs {
		list = append(list, r.Subject)
	}
	return list
}

// within returns a context that ends after d, and with the test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// permissions is the list of commands in the README.
const permissions = "eval evalsha time hget hgetall hset hsetnx hdel hlen hvals hrandfield pexpireat pttl xadd xdel xlen xrange xread xrevrange set get hello"

var addresses = []netip.Addr{
	{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
}

// single returns a client of the server at addr.
func single(t testing.TB, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func store(t testing.TB, c redis.UniversalClient, config redisstore.Config) *redisstore.Store {
	s, err := redisstore.New(c, config)
	require.NoError(t, err)
	return s
}

// flush empties every master.
func flush(t testing.TB, c redis.UniversalClient) {
	all := func(ctx context.Context, node *redis.Client) error { return node.FlushAll(ctx).Err() }
	if cluster, ok := c.(*redis.ClusterClient); ok {
		require.NoError(t, cluster.ForEachMaster(t.Context(), all))
		return
	}
	require.NoError(t, c.FlushAll(t.Context()).Err())
}

const feedKey = "ratchet:feed"

// begin reads the first page of the feed.
func begin(t testing.TB, st auth.Feed) (rs []auth.Revocation, next string) {
	t.Helper()
	rs, next, _, err := st.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	return rs, next
}

// blocked waits until n clients wait for the feed.
func blocked(t testing.TB, c *redis.Client, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := c.InfoMap(context.WithoutCancel(t.Context()), "clients").Result()
		return err == nil && info["Clients"]["blocked_clients"] == fmt.Sprint(n)
	}, patience, time.Millisecond)
}

// rotateFrom returns r with From set to generation.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
