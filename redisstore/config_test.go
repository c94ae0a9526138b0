package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/redisstore"
)

func TestNew_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	good := &redis.Options{ContextTimeoutEnabled: true}
	withReadTimeout := func(d time.Duration) *redis.Client {
		return redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, ReadTimeout: d})
	}
	const (
		isNil      = "redisstore: the client is nil"
		noTimeouts = "redisstore: the client's ContextTimeoutEnabled is false, so a server that hangs would delay calls beyond their deadlines"
		poolSize   = "redisstore: the client's PoolSize is 1; it must be at least 2, since a waiting Changes occupies one connection"
		caches     = "redisstore: the client caches replies (ClientSideCache), so it would return sessions that have ended"
		replicas   = "redisstore: the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), " +
			"so it would return sessions that have ended"
		brace = " contains a brace, which would put all keys into one slot of a Cluster"
	)
	for _, test := range []struct {
		client redis.UniversalClient
		config redisstore.Config
		want   string
	}{
		{nil, redisstore.Config{}, isNil},
		{(*redis.Client)(nil), redisstore.Config{}, isNil},
		{(*redis.ClusterClient)(nil), redisstore.Config{}, isNil},
		{redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true}), redisstore.Config{},
			"redisstore: the client is a *redis.Ring; it must be a *redis.Client or a *redis.ClusterClient"},
		{redis.NewClient(&redis.Options{}), redisstore.Config{}, noTimeouts},
		{redis.NewClusterClient(&redis.ClusterOptions{}), redisstore.Config{}, noTimeouts},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, PoolSize: 1}), redisstore.Config{}, poolSize},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, PoolSize: 1}), redisstore.Config{}, poolSize},
		{redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}}),
			redisstore.Config{}, caches},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, ReadOnly: true}), redisstore.Config{}, replicas},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteByLatency: true}), redisstore.Config{}, replicas},
		{redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteRandomly: true}), redisstore.Config{}, replicas},
		{redis.NewClient(good), redisstore.Config{Prefix: "{a}"}, `redisstore: Config.Prefix ("{a}")` + brace},
		{redis.NewClient(good), redisstore.Config{Prefix: "a}"}, `redisstore: Config.Prefix ("a}")` + brace},
		{redis.NewClient(good), redisstore.Config{Replicas: -1}, "redisstore: Config.Replicas (-1) is negative"},
		{redis.NewClient(good), redisstore.Config{ReplicaTimeout: -1}, "redisstore: Config.ReplicaTimeout (-1ns) is less than 1ms"},
		{redis.NewClient(good), redisstore.Config{ReplicaTimeout: time.Microsecond},
			"redisstore: Config.ReplicaTimeout (1µs) is less than 1ms; missing time unit?"},
		{withReadTimeout(300 * time.Millisecond), redisstore.Config{Replicas: 1},
			"redisstore: Config.ReplicaTimeout (500ms, the default) must be less than the client's ReadTimeout (300ms)"},
		{withReadTimeout(3 * time.Second), redisstore.Config{Replicas: 1, ReplicaTimeout: 3 * time.Second},
			"redisstore: Config.ReplicaTimeout (3s) must be less than the client's ReadTimeout (3s)"},
		{nil, redisstore.Config{Prefix: "{", Replicas: -1},
			isNil + "\nredisstore: Config.Prefix (\"{\")" + brace + "\nredisstore: Config.Replicas (-1) is negative"},
	} {
		s, err := redisstore.New(test.client, test.config)
		require.EqualError(t, err, test.want)
		require.Nil(t, s)
	}
}

func TestNew_AcceptsValidClients(t *testing.T) {
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
