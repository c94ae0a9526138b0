package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/ratchet-go/auth"
)

// lateRetries loses answers to refreshes, between the server and a node or between
// a node and its client, and retries an hour later, when the retry window is over.
// A client that uses retry keys is not signed out, and no node reports reuse. At
// the end a client without them is signed out, which shows that the retries were
// late.
func lateRetries(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{})
	ctx := context.Background()
	later := func(d string) {
		for _, n := range cl.nodes {
			cl.do(ctx, n, "clock", "POST", "/clock?ahead="+d, "", nil)
		}
	}
	var clients []*client
	for range 16 {
		c := cl.mustSignIn(cl.anyNode())
		c.keyed = true
		clients = append(clients, c)
	}
	lose := func(c *client) {
		cl.send(ctx, cl.anyNode(), "lost", "POST", "/auth/refresh", c.retryKey(), map[string]string{"refresh_token": c.refresh})
	}
	all := func(f func(c *client)) {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { f(c) })
		}
		wg.Wait()
	}
	rounds := scaled(200, 20)
	for range rounds {
		all(func(c *client) {
			for range rand.IntN(3) {
				lose(c)
			}
		})
		for _, p := range cl.proxies {
			if n := rand.IntN(2000); rand.IntN(2) == 0 {
				p.CutResponses(n)
			} else {
				p.CutRequests(n)
			}
		}
		all(lose)
		for _, p := range cl.proxies {
			p.CutResponses(-1)
			p.CutRequests(-1)
		}
		later("1h")
		all(func(c *client) {
			for range 100 { // a node may answer 503 until it has read the feed again
				if cl.refresh(ctx, cl.anyNode(), c) {
					return
				}
			}
			cl.violation("%s has no answer after 100 requests", c.user)
		})
		later("91s") // end the cooldown
	}
	cl.check(clients)
	for _, n := range cl.nodes {
		if s, err := cl.state(n); err != nil || s.Events[auth.EventReuse] > 0 {
			t.Errorf("node %s reported %d times that a refresh token was reused, error %v", n.addr, s.Events[auth.EventReuse], err)
		}
	}

	without := cl.mustSignIn(cl.nodes[0])
	first := without.refresh
	if !cl.refresh(ctx, cl.nodes[0], without) || generation(without.refresh) != 2 {
		t.Fatal("refresh failed")
	}
	later("1h")
	if r := cl.do(ctx, cl.nodes[1], "late", "POST", "/auth/refresh", "", map[string]string{"refresh_token": first}); r.status != http.StatusUnauthorized {
		t.Errorf("a late retry without a key: %s, want 401", r)
	}
	t.Logf("%d rounds of %d clients that lose answers and retry an hour later: none was signed out", rounds, len(clients))
}
