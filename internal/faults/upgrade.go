package faults

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// beforeRetryTag is the last commit whose stores have no Session.RetryTag, no
// Session.Key and no Spend.
const beforeRetryTag = "171e720fc84f63af1b786848c6c8162afd303c96"

// Upgrade tests that this version of a store works on a database that an earlier
// version filled, and that a process of that version continues to work beside
// it. module is the directory of the store, and source is the main package of a
// node of the earlier version, which creates the tables. open returns a Store of
// this version after it has migrated the tables.
func Upgrade(t *testing.T, module, source, dsn string, open func() auth.Store) {
	ctx := context.Background()
	program := testserver.Earlier(t, beforeRetryTag, module, source)
	cl := emptyCluster(t, 10*time.Second)
	config := nodeConfig{DSN: dsn, Window: 10 * time.Second, StoreTimeout: cl.timeout}
	cl.noSpends = true
	cl.startProgram(program, config)
	older := cl.nodes[0]
	var ahead time.Duration // of the clocks of the nodes
	set := func(n *node, d time.Duration) { cl.do(ctx, n, "clock", "POST", "/clock?ahead="+d.String(), "", nil) }
	rotate := func(n *node, clients ...*client) { // after the cooldown
		t.Helper()
		ahead += 31 * time.Second
		for _, n := range cl.nodes {
			set(n, 31*time.Second)
		}
		for _, c := range clients {
			if before := generation(c.refresh); !cl.refresh(ctx, n, c) || generation(c.refresh) != before+1 {
				t.Fatalf("%s was not rotated: %v", c.user, cl.violations)
			}
		}
	}
	revokeAll := func(n *node, c *client) {
		t.Helper()
		if r := cl.do(ctx, n, "revoke all", "POST", "/revoke-all?user="+c.user, "", nil); r.status != http.StatusOK {
			t.Fatalf("revoking all sessions: %s", r)
		}
		c.leaving, c.out = true, true
	}
	var clients []*client
	for range 40 {
		clients = append(clients, cl.mustSignIn(older))
	}
	rotate(older, clients[:30]...)
	rotate(older, clients[:10]...)
	cl.logOut(ctx, older, clients[0])
	revokeAll(older, clients[1])
	live := clients[2:]

	store := open()
	one := func(c *client) auth.Session {
		t.Helper()
		list, err := store.List(ctx, c.user)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s has the sessions %v, want one; %v", c.user, list, err)
		}
		return list[0]
	}
	for i, c := range live {
		s := one(c)
		got, err := store.Get(ctx, c.user, s.ID)
		if err != nil || got.Generation != s.Generation || got.Generation != generation(c.refresh) || len(s.RetryTag)+len(s.Key) > 0 || s.Device.UserAgent == "" {
			t.Fatalf("session %d of the earlier version is read as %+v and %+v, %v; its token has generation %d", i, s, got, err, generation(c.refresh))
		}
	}
	rs, _, _, err := store.Changes(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients[:2] {
		if list, err := store.List(ctx, c.user); err != nil || len(list) > 0 {
			t.Fatalf("the earlier version revoked the sessions %v; %v", list, err)
		}
		if !slices.ContainsFunc(rs, func(r auth.Revocation) bool { return r.Subject == c.user && r.Reason != "" }) {
			t.Fatalf("the feed does not have the revocation of %s: %v", c.user, rs)
		}
	}

	cl.startNode(config)
	newer := cl.nodes[1]
	set(newer, ahead)
	rotate(newer, live...)
	rotate(older, live...)
	rotate(newer, live[:10]...)

	// A rotation by the earlier version leaves the session without a tag.
	c, tag := live[0], bytes.Repeat([]byte{7}, 16)
	s := one(c)
	at := s.RotatedAt.Add(31 * time.Second)
	s, rotated, err := store.Rotate(ctx, c.user, s.ID, auth.Rotation{From: s.Generation, At: at, NotAfter: at, ExpiresAt: s.ExpiresAt, Device: s.Device, RetryTag: tag})
	if err != nil || !rotated || !bytes.Equal(s.RetryTag, tag) {
		t.Fatalf("rotating with a tag: %+v, %v, %v", s, rotated, err)
	}
	rotate(older) // the client has the token of the generation before
	if !cl.refresh(ctx, older, c) || generation(c.refresh) != s.Generation {
		t.Fatalf("the earlier version refuses a retry: %v", cl.violations)
	}
	rotate(older, c)
	if got := one(c); got.Generation != s.Generation+1 || len(got.RetryTag) > 0 {
		t.Fatalf("after a rotation by the earlier version: %+v", got)
	}
	rotate(newer, c)
	if got := one(c); got.Generation != s.Generation+2 || bytes.Equal(got.RetryTag, tag) {
		t.Fatalf("after a rotation without the tag by this version: %+v", got)
	}
	until := time.Now().Add(time.Minute)
	if err := errors.Join(store.Spend(ctx, c.user, "one", until), store.Spend(ctx, c.user, "two", until)); err != nil {
		t.Fatal(err)
	}
	if err := store.Spend(ctx, c.user, "one", until); !errors.Is(err, auth.ErrSpent) {
		t.Fatalf("the second Spend returned %v, want ErrSpent", err)
	}

	cl.upgradeConstants(older, newer, store)
	cl.logOut(ctx, older, live[1])
	cl.logOut(ctx, newer, live[2])
	revokeAll(older, live[3])
	revokeAll(newer, live[4])
	stop := cl.load(16)
	time.Sleep(scaled(10*time.Second, time.Second))
	cl.check(append(clients, stop()...))
	cl.wantOnlyStatuses("refresh", http.StatusOK, http.StatusUnauthorized)
}
