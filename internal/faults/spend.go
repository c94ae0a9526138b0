package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// ticket is a one-time token.
type ticket struct {
	token string
	spent bool // a node has confirmed it
}

// issue returns a new one-time token, or nil. Issuing needs no store, so no fault
// of the store may make it fail.
func (cl *cluster) issue(ctx context.Context, n *node) *ticket {
	r := cl.do(ctx, n, "issue", "POST", "/issue?user=u1", "", nil)
	switch {
	case r.err != nil:
		return nil
	case r.status != http.StatusOK:
		cl.violation("issue: %s", r)
		return nil
	}
	return &ticket{token: r.field("token")}
}

// mustIssue is issue at a time without faults.
func (cl *cluster) mustIssue(n *node) *ticket {
	cl.t.Helper()
	tk := cl.issue(context.Background(), n)
	if tk == nil {
		cl.t.Fatal("issuing a one-time token failed")
	}
	return tk
}

// outcome is the outcome of a request that spends a token.
type outcome int

const (
	unknown outcome = iota // a 503, or no response
	accepted
	refused // as spent
)

// spend sends a token once to a node.
func (cl *cluster) spend(ctx context.Context, n *node, tk *ticket) outcome {
	r := cl.do(ctx, n, "spend", "POST", "/spend?token="+url.QueryEscape(tk.token), "", nil)
	switch {
	case r.err != nil || r.status == http.StatusServiceUnavailable:
	case r.status == http.StatusOK:
		return accepted
	case r.status == http.StatusBadRequest && r.field("error") == "used_token":
		return refused
	default:
		cl.violation("spend: %s", r)
	}
	return unknown
}

// spendNew spends a new token, and again if it was accepted. The first request is
// never refused, even if the driver repeated its call to the store, and no later
// request is accepted. It returns nil if the outcome is unknown: the token may be
// spent, and the user asks for another one.
func (cl *cluster) spendNew(ctx context.Context, n *node) *ticket {
	tk := cl.issue(ctx, n)
	if tk == nil {
		return nil
	}
	switch cl.spend(ctx, n, tk) {
	case refused:
		cl.violation("spend: a token that was never used was refused as used")
	case accepted:
		if tk.spent = true; cl.spend(ctx, cl.anyNode(), tk) == accepted {
			cl.violation("spend: a token was accepted twice")
		}
		return tk
	}
	return nil
}

// checkSpent checks after a fault that no node accepts a token that was spent,
// and that a token whose outcome is unknown is accepted at most once.
func (cl *cluster) checkSpent(tickets []*ticket) {
	cl.t.Helper()
	ctx := context.Background()
	for _, tk := range tickets {
		for _, n := range cl.nodes {
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				switch cl.spend(ctx, n, tk) {
				case accepted:
					if tk.spent {
						cl.violation("spend: a token that was spent before a fault was accepted after it")
					}
					tk.spent = true
				case unknown:
					if time.Now().Before(end) {
						continue
					}
					cl.violation("spend: the outcome is still unknown 20s after the fault")
				}
				break
			}
		}
	}
}

// contendFor sends a token n times at once to the nodes, and returns how many
// requests had each outcome.
func (cl *cluster) contendFor(tk *ticket, n int) (outcomes [3]int) {
	all := make([]outcome, n)
	first := rand.IntN(len(cl.nodes))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = cl.spend(context.Background(), cl.nodes[(first+i)%len(cl.nodes)], tk) })
	}
	wg.Wait()
	for _, o := range all {
		outcomes[o]++
	}
	return outcomes
}

// concurrentSpends sends one token 64 times at once to two nodes, round after
// round. One request is accepted, and the others are refused.
func concurrentSpends(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{storeTimeout: 10 * time.Second})
	rounds := scaled(1000, 30)
	for round := range rounds {
		o := cl.contendFor(cl.mustIssue(cl.anyNode()), 64)
		if o[accepted] != 1 || o[refused] != 63 {
			t.Fatalf("round %d: of 64 requests %d were accepted and %d refused, want 1 and 63", round, o[accepted], o[refused])
		}
	}
	t.Logf("%d rounds of 64 requests with one token on two nodes: one was accepted each time", rounds)
}

// spendsWhileCut spends tokens while connections are cut before a call, within it,
// before its answer or within that. A driver that repeats such a call must not
// take its own record for that of another request: if every outcome is known,
// one request was accepted.
func spendsWhileCut(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{})
	var tickets []*ticket
	var lost int
	for range scaled(3000, 300) {
		tk := cl.mustIssue(cl.anyNode())
		p := cl.proxies[rand.IntN(len(cl.proxies))]
		if n := rand.IntN(100); rand.IntN(2) == 0 {
			p.CutRequests(n)
		} else {
			p.CutResponses(n / 2)
		}
		n := 1 + rand.IntN(2)*3
		o := cl.contendFor(tk, n)
		switch {
		case o[accepted] > 1:
			t.Fatalf("a token was accepted %d times", o[accepted])
		case o[accepted] == 0 && o[unknown] == 0:
			t.Fatalf("a token that was never accepted was refused as used by %d of %d requests", o[refused], n)
		case o[unknown] > 0:
			lost++
		}
		tk.spent = o[accepted] == 1
		tickets = append(tickets, tk)
	}
	for _, p := range cl.proxies {
		p.CutRequests(-1)
		p.CutResponses(-1)
	}
	cl.checkSpent(tickets)
	cl.check(nil)
	t.Logf("%d tokens, %d with a request whose outcome is unknown: no token was accepted twice", len(tickets), lost)
}
