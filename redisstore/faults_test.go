package redisstore_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// TestMain is also the main function of the nodes that package faults starts.
func TestMain(m *testing.M) {
	faults.Main(m, func(dsn string) (auth.Store, error) {
		o, err := redis.ParseURL(dsn)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled = true
		return redisstore.New(redis.NewClient(o), redisstore.Config{})
	})
}

func faultsBackend() faults.Backend {
	return faults.Backend{
		Start:    func(tb testing.TB) *testserver.Process { return testserver.Redis(tb) },
		DSN:      func(addr string) string { return "redis://" + addr + "/0?pool_size=10" },
		MaxConns: 10,
	}
}

func TestFaults(t *testing.T) { faults.Run(t, faultsBackend()) }

// TestFaults_FailoverLosesWrites promotes a replica that does not have the last
// refreshes and logouts: at once, so that the nodes see no outage, and after an
// outage.
func TestFaults_FailoverLosesWrites(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	outage := time.Second
	if os.Getenv("AUTH_LONG") == "1" {
		outage = 4 * time.Second // longer than the timeout of the nodes
	}
	for name, outage := range map[string]time.Duration{"AtOnce": 0, "AfterAnOutage": outage} {
		t.Run(name, func(t *testing.T) { failover(t, outage) })
	}
}

func failover(t *testing.T, outage time.Duration) {
	ctx := context.Background()
	client := func(addr string) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var master, replica *testserver.Process
	var link *testserver.Proxy // from the replica to its master
	b := faultsBackend()
	b.Start = func(tb testing.TB) *testserver.Process {
		master = testserver.Redis(tb, "--repl-diskless-sync-delay", "0")
		link = testserver.NewProxy(tb, master.Addr)
		replica = testserver.Redis(tb)
		host, port, err := net.SplitHostPort(link.Addr)
		require.NoError(tb, err)
		require.NoError(tb, client(replica.Addr).ReplicaOf(ctx, host, port).Err())
		return master
	}
	settle := func() {
		require.Eventually(t, func() bool {
			n, err := client(master.Addr).DBSize(ctx).Result()
			m, err2 := client(replica.Addr).DBSize(ctx).Result()
			return err == nil && err2 == nil && n > 0 && n == m
		}, 30*time.Second, 20*time.Millisecond)
	}
	faults.Failover(t, b, settle, func() { link.Hang() }, func() string {
		master.Kill()
		time.Sleep(outage)
		require.NoError(t, client(replica.Addr).ReplicaOf(ctx, "NO", "ONE").Err())
		return replica.Addr
	})
}
