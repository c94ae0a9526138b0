package faults

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// client is a well-behaved client that has the tokens of a session. It must
// not be used by several goroutines at a time.
type client struct {
	user, access, refresh string
	keyed                 bool // it sends retry keys
	key                   RetryKey
	leaving               bool // a logout was sent
	out                   bool // a logout was confirmed
}

// setTokens stores the tokens of a response.
func (c *client) setTokens(r response) {
	if t := r.field("access_token"); t != "" {
		c.access = t
	}
	if t := r.field("refresh_token"); t != "" {
		c.refresh = t
	}
}

// RetryKey is the retry key of the refresh token that a client has. The zero RetryKey
// creates its key when it is first used.
type RetryKey struct {
	Key  string
	sent bool
}

// Header returns the header with the key: its hash the first time, then the key.
func (k *RetryKey) Header() http.Header {
	if k.Key == "" {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails
		k.Key = base64.RawURLEncoding.EncodeToString(b)
	}
	value := k.Key
	if !k.sent {
		sum := sha256.Sum256([]byte(k.Key))
		value = "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	k.sent = true
	return http.Header{"Refresh-Key": {value}}
}

// retryKey returns the header with the retry key of the refresh token.
func (c *client) retryKey() http.Header {
	if !c.keyed {
		return nil
	}
	return c.key.Header()
}

// generation returns the gen claim of a refresh token.
func generation(token string) int64 {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct{ Gen int64 }
	_ = json.Unmarshal(payload, &c)
	return c.Gen
}

// signIn creates a session for a new user. It returns nil if that failed.
func (cl *cluster) signIn(ctx context.Context, n *node) *client {
	c := &client{user: fmt.Sprintf("user-%s-%d", cl.name, cl.users.Add(1))}
	r := cl.do(ctx, n, "sign in", "POST", "/start?user="+c.user, "", nil)
	switch {
	case r.err == nil && r.status == http.StatusOK:
		c.setTokens(r)
		return c
	case r.err == nil && r.status != http.StatusServiceUnavailable:
		cl.violation("sign in: %s", r)
	}
	return nil
}

// mustSignIn is signIn at a time without faults.
func (cl *cluster) mustSignIn(n *node) *client {
	cl.t.Helper()
	c := cl.signIn(context.Background(), n)
	if c == nil {
		cl.t.Fatal("sign-in failed")
	}
	return c
}

// refresh refreshes the tokens of c, and reports whether it succeeded.
func (cl *cluster) refresh(ctx context.Context, n *node, c *client) bool {
	r := cl.send(ctx, n, "refresh", "POST", "/auth/refresh", c.retryKey(), map[string]string{"refresh_token": c.refresh})
	switch {
	case r.err != nil:
	case r.status == http.StatusOK:
		if before, now := generation(c.refresh), generation(r.field("refresh_token")); now < before || now > before+1 {
			cl.violation("refresh: generation changed from %d to %d", before, now)
		}
		if generation(r.field("refresh_token")) > generation(c.refresh) {
			c.key = RetryKey{}
		}
		c.setTokens(r)
		return true
	case r.status == http.StatusServiceUnavailable, c.leaving && r.status == http.StatusUnauthorized:
	default:
		cl.violation("%s was signed out: refresh at generation %d: %s", c.user, generation(c.refresh), r)
	}
	return false
}

// getProtected requests a protected page. That needs no store, so no fault of
// the store may make it fail.
func (cl *cluster) getProtected(ctx context.Context, n *node, c *client) {
	r := cl.do(ctx, n, "protected", "GET", "/me", c.access, nil)
	if r.err == nil && r.status != http.StatusOK && (!c.leaving || r.status != http.StatusUnauthorized) {
		cl.violation("protected page of %s: %s", c.user, r)
	}
}

// logOut logs c out.
func (cl *cluster) logOut(ctx context.Context, n *node, c *client) {
	c.leaving = true
	r := cl.do(ctx, n, "logout", "POST", "/auth/logout", "", map[string]string{"refresh_token": c.refresh})
	switch {
	case r.err != nil, r.status == http.StatusServiceUnavailable:
	case r.status == http.StatusNoContent:
		c.out = true
	default:
		cl.violation("logout: %s", r)
	}
}

// load starts workers that sign in, refresh, request pages, spend one-time tokens
// and log out until stop is called. stop returns the clients.
func (cl *cluster) load(workers int) (stop func() []*client) {
	ctx, cancel := context.WithCancel(context.Background())
	all := make([][]*client, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			// A client whose refresh failed retries soon: after the retry
			// window it would have to sign in again.
			var retry *client
			for ctx.Err() == nil {
				n := cl.anyNode()
				own := all[i]
				if retry != nil && mathrand.IntN(2) == 0 {
					if cl.refresh(context.Background(), n, retry) {
						retry = nil
					}
					continue
				}
				if len(own) == 0 || len(own) < 200 && mathrand.IntN(5) == 0 {
					if c := cl.signIn(context.Background(), n); c != nil {
						c.keyed = len(own)%2 == 0
						all[i] = append(all[i], c)
					}
					continue
				}
				c := own[mathrand.IntN(len(own))]
				switch p := mathrand.IntN(20); {
				case c.out:
				case p < 10:
					cl.getProtected(context.Background(), n, c)
				case p < 12 && !cl.noSpends:
					if tk := cl.spendNew(context.Background(), n); tk != nil {
						cl.mu.Lock()
						cl.spent = append(cl.spent, tk)
						cl.mu.Unlock()
					}
				case p < 19:
					if retry == nil && !cl.refresh(context.Background(), n, c) && !c.leaving {
						retry = c
					}
				case c != retry:
					cl.logOut(context.Background(), n, c)
				}
				// Other tests need the processors too. Shorter pauses only add
				// requests of the same kinds.
				time.Sleep(time.Duration(mathrand.IntN(scaled(10, 30))) * time.Millisecond)
			}
		})
	}
	return func() []*client {
		cancel()
		wg.Wait()
		var clients []*client
		for _, own := range all {
			clients = append(clients, own...)
		}
		return clients
	}
}

// check checks the clients after a fault. A client that did not log out can
// refresh and has one session; every node refuses a client that did, and the
// one-time tokens that load spent. check also reports the violations that were
// recorded until then.
func (cl *cluster) check(clients []*client) {
	cl.t.Helper()
	ctx := context.Background()
	for _, n := range cl.nodes {
		cl.until("the node follows the feed again", 30*time.Second, func() error {
			s, err := cl.state(n)
			if err == nil && s.Age > 10*time.Second {
				err = fmt.Errorf("its last read of the feed was %s ago", s.Age)
			}
			return err
		})
	}
	var wg sync.WaitGroup
	work := make(chan *client)
	for range 16 {
		wg.Go(func() {
			for c := range work {
				cl.checkClient(ctx, c)
			}
		})
	}
	in, out := 0, 0
	for _, c := range clients {
		if c.out {
			out++
		} else if !c.leaving {
			in++
		}
		work <- c
	}
	close(work)
	wg.Wait()
	cl.checkSpent(cl.spent)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, v := range cl.violations[:min(len(cl.violations), 20)] {
		cl.t.Error(v)
	}
	cl.t.Logf("%d clients signed in, %d signed out; %d tokens spent; slowest response %s; statuses %v; %d violations",
		in, out, len(cl.spent), cl.slowest.Round(time.Millisecond), cl.statuses, len(cl.violations))
}

func (cl *cluster) checkClient(ctx context.Context, c *client) {
	end := time.Now().Add(20 * time.Second)
	again := func() bool {
		time.Sleep(50 * time.Millisecond)
		return time.Now().Before(end)
	}
	if !c.leaving {
		for !cl.refresh(ctx, cl.anyNode(), c) {
			cl.mu.Lock()
			failed := len(cl.violations) > 0
			cl.mu.Unlock()
			if failed || !again() {
				cl.violation("%s could not refresh after the fault", c.user)
				return
			}
		}
		cl.getProtected(ctx, cl.anyNode(), c)
		r := cl.do(ctx, cl.anyNode(), "sessions", "GET", "/auth/sessions", c.access, nil)
		if n := strings.Count(string(r.body), `"id"`); n != 1 {
			cl.violation("%s has %d sessions, want 1: %s", c.user, n, r)
		}
		return
	}
	for !c.out {
		if cl.logOut(ctx, cl.anyNode(), c); !again() {
			cl.violation("%s could not log out after the fault", c.user)
			return
		}
	}
	for _, n := range cl.nodes {
		for {
			page := cl.do(ctx, n, "signed out", "GET", "/me", c.access, nil)
			refresh := cl.do(ctx, n, "signed out", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
			if page.status == http.StatusUnauthorized && refresh.status == http.StatusUnauthorized {
				break
			}
			if refresh.status == http.StatusOK {
				cl.violation("%s could refresh after logging out: %s", c.user, refresh)
				return
			}
			if !again() {
				cl.violation("%s was not refused after logging out: page %s, refresh %s", c.user, page, refresh)
				return
			}
		}
	}
}
