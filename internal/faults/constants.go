package faults

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// Lifetimes of the sessions that POST /start?own=1 opens.
const (
	ownIdleTTL    = 50 * time.Minute
	ownSessionTTL = time.Hour
)

// constantClaims returns the claims of a refresh token that never change.
func constantClaims(token string) map[string]string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var all map[string]json.RawMessage
	_ = json.Unmarshal(payload, &all)
	constant := map[string]string{}
	for name, value := range all {
		if name != "gen" && name != "iat" && name != "exp" {
			constant[name] = string(value)
		}
	}
	return constant
}

// startOwn opens a session with constants of its own on a node, in which another
// user acts.
func (cl *cluster) startOwn(n *node) *client {
	cl.t.Helper()
	c := &client{user: fmt.Sprintf("user-%d", cl.users.Add(1))}
	r := cl.do(context.Background(), n, "start", "POST", "/start?own=1&data=org-1&actor=admin-of-"+c.user+"&user="+c.user, "", nil)
	c.setTokens(r)
	if claims := constantClaims(c.refresh); r.status != http.StatusOK || claims["act"] == "" || claims["eph"] == "" || claims["idle_ttl"] == "" || claims["session_ttl"] == "" {
		cl.t.Fatalf("start: %s; the refresh token has the claims %v", r, claims)
	}
	return c
}

// constants tests that the constants of sessions survive every rotation, on every
// node, and that the sessions in which a user acts end with those of that user.
func constants(t *testing.T, b Backend) {
	ctx := context.Background()
	cl := newCluster(t, b, options{window: 10 * time.Second, storeTimeout: 10 * time.Second})
	var clients []*client
	want := map[*client]map[string]string{}
	for i := range 8 {
		c := cl.startOwn(cl.nodes[i%len(cl.nodes)])
		clients, want[c] = append(clients, c), constantClaims(c.refresh)
	}
	listed := func(c *client) (actor string) {
		t.Helper()
		r := cl.do(ctx, cl.anyNode(), "sessions", "GET", "/auth/sessions", c.access, nil)
		var list struct{ Sessions []struct{ Actor string } }
		if err := json.Unmarshal(r.body, &list); r.status != http.StatusOK || err != nil || len(list.Sessions) != 1 {
			t.Fatalf("sessions of %s: %s", c.user, r)
		}
		return list.Sessions[0].Actor
	}
	for range scaled(60, 6) {
		for _, n := range cl.nodes {
			cl.do(ctx, n, "clock", "POST", "/clock?ahead=31s", "", nil)
		}
		for _, c := range clients {
			before := generation(c.refresh)
			if !cl.refresh(ctx, cl.anyNode(), c) || generation(c.refresh) != before+1 {
				t.Fatalf("%s was not rotated: %v", c.user, cl.violations)
			}
			if got := constantClaims(c.refresh); !maps.Equal(got, want[c]) {
				t.Fatalf("%s has the claims %v after %d rotations, want %v", c.user, got, before, want[c])
			}
			if actor := listed(c); actor != "admin-of-"+c.user {
				t.Fatalf("the record of %s has the actor %q", c.user, actor)
			}
		}
	}
	for _, c := range clients[:4] { // continued sessions keep them too
		r := cl.do(ctx, cl.anyNode(), "continue", "POST", "/continue?data=org-2", c.access, nil)
		old := *c
		c.setTokens(r)
		got := constantClaims(c.refresh)
		if r.status != http.StatusOK || got["sid"] == want[c]["sid"] || got["session_iat"] == "" {
			t.Fatalf("continue: %s, with the claims %v", r, got)
		}
		delete(got, "session_iat")
		got["sid"] = want[c]["sid"]
		if !maps.Equal(got, want[c]) {
			t.Fatalf("the continued session has the claims %v, want %v", got, want[c])
		}
		if !cl.refresh(ctx, cl.anyNode(), c) || listed(c) != "admin-of-"+c.user {
			t.Fatalf("the continued session was not refreshed: %v", cl.violations)
		}
		old.leaving = true
		if cl.refresh(ctx, cl.anyNode(), &old) {
			t.Fatal("the refresh token of a continued session lives on")
		}
	}
	// The sessions end with those of the actor, on every node.
	for i, c := range clients {
		n := cl.nodes[i%len(cl.nodes)]
		if r := cl.do(ctx, n, "revoke all", "POST", "/revoke-all?user=admin-of-"+c.user, "", nil); r.status != http.StatusOK {
			t.Fatalf("revoking all sessions: %s", r)
		}
		for _, n := range cl.nodes {
			cl.until("the end of an actor's session on every node", 10*time.Second, func() error {
				if r := cl.do(ctx, n, "me", "GET", "/me", c.access, nil); r.status != http.StatusUnauthorized {
					return fmt.Errorf("%s", r)
				}
				return nil
			})
			if r := cl.do(ctx, n, "refresh after", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh}); r.status != http.StatusUnauthorized {
				t.Fatalf("refresh: %s", r)
			}
		}
	}
	cl.check(nil)
}

// upgradeConstants tests that an older node, which does not know the constants of
// sessions, answers 503 to their refresh tokens, and that nobody is signed out.
// Ordinary sessions go on at both nodes, as the caller tests.
func (cl *cluster) upgradeConstants(older, newer *node, store auth.Store) {
	cl.t.Helper()
	ctx := context.Background()
	c := cl.startOwn(newer)
	refresh := func(n *node, token string) response {
		return cl.do(ctx, n, "refresh with constants", "POST", "/auth/refresh", "", map[string]string{"refresh_token": token})
	}
	first := constantClaims(c.refresh)
	for i := range 6 {
		if i == 3 { // it also has the claim session_iat then
			r := cl.do(ctx, newer, "continue", "POST", "/continue?data=org-2", c.access, nil)
			c.setTokens(r)
			if first = constantClaims(c.refresh); r.status != http.StatusOK || first["session_iat"] == "" {
				cl.t.Fatalf("continue: %s, with the claims %v", r, first)
			}
		}
		for range 2 {
			if r := refresh(older, c.refresh); r.status != http.StatusServiceUnavailable || r.field("action") != "" {
				cl.t.Fatalf("the older node answers a token with constants that it does not know: %s", r)
			}
		}
		if r := cl.do(ctx, older, "me", "GET", "/me", c.access, nil); r.status != http.StatusOK {
			cl.t.Fatalf("the older node answers an access token with constants: %s", r)
		}
		for _, n := range []*node{older, newer} {
			cl.do(ctx, n, "clock", "POST", "/clock?ahead=31s", "", nil)
		}
		before := generation(c.refresh)
		if !cl.refresh(ctx, newer, c) || generation(c.refresh) != before+1 {
			cl.t.Fatalf("the newer node has not rotated the session: %v", cl.violations)
		}
		if got := constantClaims(c.refresh); !maps.Equal(got, first) {
			cl.t.Fatalf("the constants are %v, want %v", got, first)
		}
	}
	list, err := store.List(ctx, c.user)
	if err != nil || len(list) != 1 || list[0].Actor() != "admin-of-"+c.user || string(list[0].Data()) != "org-2" {
		cl.t.Fatalf("the record of the session: %+v, %v", list, err)
	}
	// A logout at either node ends the session at both.
	for _, n := range []*node{older, newer} {
		c := cl.startOwn(newer)
		cl.logOut(ctx, n, c)
		for _, other := range []*node{older, newer} {
			cl.until("a logout reaches the other node", 10*time.Second, func() error {
				me := cl.do(ctx, other, "me", "GET", "/me", c.access, nil)
				if again := refresh(other, c.refresh); me.status != http.StatusUnauthorized || again.status != http.StatusUnauthorized {
					return fmt.Errorf("%s and %s", me, again)
				}
				return nil
			})
		}
		if list, err := store.List(ctx, c.user); err != nil || len(list) > 0 {
			cl.t.Fatalf("after the logout: %v, %v", list, err)
		}
	}
}
