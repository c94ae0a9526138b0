package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/redisstore"
)

func TestNew_SaysEveryMistake(t *testing.T) {
	t.Parallel()
	good := &redis.Options{ContextTimeoutEnabled: true}
	const noTimeouts = "redisstore: the client's ContextTimeoutEnabled is false, so a server that hangs would delay calls beyond their deadlines"
	const replicas = "redisstore: the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), so it would return sessions that have ended"
	for _, test := range []struct {
		client redis.UniversalClient
		config redisstore.Config
		want   string
	}{
		{nil, redisstore.Config{}, "redisstore: the client is nil"},
		{(*redis.Client)(nil), redisstore.Config{}, "redisstore: the client is nil"},
		{(*redis.ClusterClient)(nil), redisstore.Config{}, "redisstore: the client is nil"},
		{redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true}), redisstore.Config{}, "redisstore: the client is a *redis.Ring; it must be a *redis.Client or a *redis.ClusterClient"},
		{redis.NewClient(&redis.Options{}), redisstore.Config{}, noTimeouts},
		{redis.NewClusterClient(&redis.ClusterOptions{}), redisstore.Config{}, noTimeouts},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, PoolSize: 1}), redisstore.Config{}, "redisstore: the client's PoolSize is 1; it must be at least 2, since a waiting Changes occupies one connection"},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, PoolSize: 1}), redisstore.Config{}, "redisstore: the client's PoolSize is 1; it must be at least 2, since a waiting Changes occupies one connection"},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}}), redisstore.Config{}, "redisstore: the client caches replies (ClientSideCache), so it would return sessions that have ended"},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, ReadOnly: true}), redisstore.Config{}, replicas},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteByLatency: true}), redisstore.Config{}, replicas},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteRandomly: true}), redisstore.Config{}, replicas},
		{redis.NewClient(good), redisstore.Config{Prefix: "{a}"}, `redisstore: Config.Prefix ("{a}") has a brace, which puts everything into one slot of a Cluster`},
		{redis.NewClient(good), redisstore.Config{Prefix: "a}"}, `redisstore: Config.Prefix ("a}") has a brace, which puts everything into one slot of a Cluster`},
		{redis.NewClient(good), redisstore.Config{Replicas: -1}, "redisstore: Config.Replicas (-1) is negative"},
		{redis.NewClient(good), redisstore.Config{ReplicaTimeout: -1}, "redisstore: Config.ReplicaTimeout (-1ns) is less than 1ms"},
		{redis.NewClient(good), redisstore.Config{ReplicaTimeout: time.Microsecond}, "redisstore: Config.ReplicaTimeout (1µs) is less than 1ms; missing time unit?"},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, ReadTimeout: 300 * time.Millisecond}), redisstore.Config{Replicas: 1}, "redisstore: Config.ReplicaTimeout 500ms (the default) is not less than the client's ReadTimeout (300ms)"},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, ReadTimeout: 3 * time.Second}), redisstore.Config{Replicas: 1, ReplicaTimeout: 3 * time.Second}, "redisstore: Config.ReplicaTimeout (3s) is not less than the client's ReadTimeout (3s)"},
		{nil, redisstore.Config{Prefix: "{", Replicas: -1}, "redisstore: the client is nil\nredisstore: Config.Prefix (\"{\") has a brace, which puts everything into one slot of a Cluster\nredisstore: Config.Replicas (-1) is negative"},
	} {
		s, err := redisstore.New(test.client, test.config)
		require.EqualError(t, err, test.want)
		require.Nil(t, s)
	}
}

func TestNew_TakesWhatIsRight(t *testing.T) {
	t.Parallel()
	for _, client := range []redis.UniversalClient{
		redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}),
		redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, PoolSize: 2}),
		redis.NewUniversalClient(&redis.UniversalOptions{ContextTimeoutEnabled: true, Addrs: []string{"a:1", "b:1"}}),
		redis.NewFailoverClient(&redis.FailoverOptions{ContextTimeoutEnabled: true, MasterName: "m", SentinelAddrs: []string{"a:1"}}),
	} {
		_, err := redisstore.New(client, redisstore.Config{Prefix: "a:b", Replicas: 2, ReplicaTimeout: time.Second})
		require.NoError(t, err)
		_ = client.Close()
	}
}
