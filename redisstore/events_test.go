package redisstore_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

func TestOnEvent_ReportsEvictionPolicy(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--maxmemory-policy", "allkeys-lru")
	c := single(t, server.Addr)
	var events []auth.Event
	config := redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { events = append(events, e) }}
	st := store(t, c, config)
	for range 2 {
		_, next := begin(t, st)
		_, _, _, err := st.Changes(t.Context(), next, 0)
		require.NoError(t, err)
	}
	require.Len(t, events, 1)
	require.Equal(t, auth.EventFault, events[0].Type)
	require.EqualError(t, events[0].Err,
		"redisstore: the server's maxmemory-policy is allkeys-lru, so it may evict sessions and revocations; set it to noeviction")
	begin(t, store(t, c, redisstore.Config{}))

	events = nil
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	st = store(t, c, config)
	_, next := begin(t, st)
	require.Empty(t, events)
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "volatile-ttl").Err())
	_, _, _, err := st.Changes(t.Context(), next, 0)
	require.NoError(t, err)
	require.Empty(t, events, "the policy is read only at the beginning of the feed")
	begin(t, st)
	require.Len(t, events, 1)
}

func TestOnEvent_ChecksEveryMaster(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a cluster")
	}
	t.Parallel()
	addrs := cluster(t)
	for _, addr := range addrs {
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	}
	var events []auth.Event
	config := redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { events = append(events, e) }}
	for i, addr := range addrs {
		c := clusterClient(t, addrs)
		begin(t, store(t, c, config))
		require.Len(t, events, i)
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err())
		begin(t, store(t, c, config))
		require.Len(t, events, i+1)
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	}
}
