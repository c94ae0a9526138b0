package redisstore_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/storetest"
)

// conformance runs the conformance kit. Each node calls client for a client of
// its own.
func conformance(t *testing.T, client func(t testing.TB) redis.UniversalClient) {
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		flush(t, client(t))
		return func() auth.Store { return store(t, client(t), redisstore.Config{}) }
	})
}

func TestStore_Conformance(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	conformance(t, func(t testing.TB) redis.UniversalClient { return single(t, server.Addr) })
}

func TestStore_ConformanceOnCluster(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
	t.Parallel()
	addrs := cluster(t)
	conformance(t, func(t testing.TB) redis.UniversalClient { return clusterClient(t, addrs) })
}

// TestStore_ConformanceOnValkey is skipped if Valkey is not installed, since not
// every system packages it.
func TestStore_ConformanceOnValkey(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("valkey-server"); err != nil {
		t.Skip("not installed: valkey-server")
	}
	server := testserver.Server(t, "valkey-server")
	conformance(t, func(t testing.TB) redis.UniversalClient { return single(t, server.Addr) })
}

// TestStore_ConformanceWithReplica runs the kit with writes that wait for a
// replica.
func TestStore_ConformanceWithReplica(t *testing.T) {
	t.Parallel()
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
	master, _ := replicated(t)
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		flush(t, single(t, master.Addr))
		return func() auth.Store {
			return store(t, single(t, master.Addr), redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second})
		}
	})
}

func TestStore_CarriesTheReasonOfATheft(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts two nodes")
	}
	t.Parallel()
	server := testserver.Redis(t)
	faults.Theft(t, func() auth.Store { return store(t, single(t, server.Addr), redisstore.Config{}) })
}
