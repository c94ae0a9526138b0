package redisstore_test

import (
	"os"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// earlier is a node of an earlier version.
const earlier = `package main

import (
	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/redisstore"
)

func main() {
	faults.Main(nil, func(dsn string) (auth.Store, error) {
		o, err := redis.ParseURL(dsn)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled = true
		return redisstore.New(redis.NewClient(o), redisstore.Config{})
	})
}
`

// TestStore_WorksBesideAnEarlierVersion uses a process of the earlier version.
// TestStore_OlderProcessDropsTheTag uses only its script, and is faster.
func TestStore_WorksBesideAnEarlierVersion(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
	t.Parallel()
	server := testserver.Redis(t)
	faults.Upgrade(t, "redisstore", earlier, faultsBackend().DSN(server.Addr), func() auth.Store {
		return store(t, single(t, server.Addr), redisstore.Config{})
	})
}
