package faults

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// Run runs every scenario against a store's server, one after the other. With AUTH_LONG=1 they run at full length, otherwise at a tenth of it or
// less. With -short they are skipped.
func Run(t *testing.T, b Backend) {
	if testing.Short() {
		t.Skip("skipped by -short: kills and pauses processes for half a minute")
	}
	besideOthers(t)
	// One server for all scenarios: to create it takes longer than some of them.
	server, one := b.Start(t), b
	if b.Prepare != nil {
		b.Prepare(t, server.Addr)
	}
	one.Start, one.Prepare = func(testing.TB) *testserver.Process { return server }, nil
	for _, s := range []struct {
		name string
		run  func(t *testing.T, b Backend)
	}{
		{"ConcurrentRefreshesRotateOnce", concurrentRefreshes},
		{"ConcurrentSpendsAcceptOnce", concurrentSpends},
		{"SpendsWhileConnectionsAreCut", spendsWhileCut},
		{"LateRetriesWithKeysAreNotReuse", lateRetries},
		{"RevocationReachesOtherNode", revocation},
		{"ConstantsSurviveRotations", constants},
		{"RevocationsDuringFeedOutageArrive", feedOutage},
		{"ServerKilledAndRestarted", serverKilled},
		{"ServerHangs", serverHangs},
		{"ConnectionsCutAtAnyByte", connectionsCut},
		{"SlowNetwork", slowNetwork},
		{"NodePaused", nodePaused},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, one) })
	}
}

// long reports whether scenarios run at full length.
func long() bool { return os.Getenv("AUTH_LONG") == "1" }

// besideOthers lets a test run in parallel with others, since scenarios mostly
// wait. At full length they use the processors more, and limit the time that a
// response may take.
func besideOthers(t *testing.T) {
	if !long() {
		t.Parallel()
	}
}

// scaled returns full if scenarios run at full length, otherwise short.
func scaled[T int | time.Duration](full, short T) T {
	if long() {
		return full
	}
	return short
}

// concurrentRefreshes sends one refresh token 64 times at once to two nodes,
// round after round. Each round rotates the session once, and every response
// has the same successor (I1, I11).
func concurrentRefreshes(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{window: 10 * time.Second, storeTimeout: 10 * time.Second})
	c := cl.mustSignIn(cl.nodes[0])
	rounds := scaled(1000, 30)
	for round := range rounds {
		before := generation(c.refresh)
		responses := make([]response, 64)
		var wg sync.WaitGroup
		for i := range responses {
			wg.Go(func() {
				body := map[string]string{"refresh_token": c.refresh}
				responses[i] = cl.do(context.Background(), cl.nodes[i%2], "refresh", "POST", "/auth/refresh", "", body)
			})
		}
		wg.Wait()
		for _, r := range responses {
			if r.status != http.StatusOK || r.field("refresh_token") != responses[0].field("refresh_token") {
				t.Fatalf("round %d: response %s differs from the first: %s", round, r, responses[0])
			}
		}
		c.setTokens(responses[0])
		if now := generation(c.refresh); now != before+1 {
			t.Fatalf("round %d: generation changed from %d to %d, want %d", round, before, now, before+1)
		}
		for _, n := range cl.nodes { // end the cooldown
			cl.do(context.Background(), n, "clock", "POST", "/clock?ahead=31s", "", nil)
		}
	}
	t.Logf("%d rounds of 64 refreshes of one token on two nodes: one rotation each", rounds)
}

// revocation measures how long a node still admits a session that was revoked
// on the other node, and checks that streams of a revoked session end on both.
func revocation(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{})
	trials := scaled(1000, 50)
	delays := make([]time.Duration, 0, trials)
	for range trials {
		c := cl.mustSignIn(cl.nodes[0])
		cl.getProtected(context.Background(), cl.nodes[1], c)
		cl.logOut(context.Background(), cl.nodes[0], c)
		if !c.out {
			t.Fatal("logout failed")
		}
		begin := time.Now()
		for cl.do(context.Background(), cl.nodes[1], "signed out", "GET", "/me", c.access, nil).status != http.StatusUnauthorized {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("the other node still admits the session 10s after its logout")
			}
		}
		delays = append(delays, time.Since(begin))
	}
	slices.Sort(delays)
	t.Logf("%d logouts; time from the response until the other node refused the session: p50 %s, p99 %s, longest %s",
		trials, delays[trials/2], delays[trials*99/100], delays[trials-1])

	var streams []<-chan string
	c := cl.mustSignIn(cl.nodes[0])
	for _, n := range cl.nodes {
		streams = append(streams, cl.stream(n, c))
	}
	r := cl.do(context.Background(), cl.nodes[0], "revoke all", "POST", "/revoke-all?user="+url.QueryEscape(c.user), "", nil)
	if r.status != http.StatusOK {
		t.Fatalf("revoking all sessions: %s", r)
	}
	for i, s := range streams {
		select {
		case last := <-s:
			if last != "revoked" {
				t.Errorf("the stream of node %d ended with %q, want %q", i, last, "revoked")
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the stream of node %d did not end within 10s", i)
		}
	}
	c.leaving, c.out = true, true
	cl.check([]*client{c})
}

// stream opens an event stream. The returned channel receives the last line
// of the stream when it ends.
func (cl *cluster) stream(n *node, c *client) <-chan string {
	cl.t.Helper()
	req, err := http.NewRequest("GET", "http://"+n.addr+"/stream", nil)
	if err != nil {
		cl.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.access)
	resp, err := cl.http.Do(req)
	if err != nil {
		cl.t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "open" {
		cl.t.Fatalf("the first line of the stream is %q, want %q", lines.Text(), "open")
	}
	last := make(chan string, 1)
	go func() {
		defer resp.Body.Close()
		line := ""
		for lines.Scan() {
			line = lines.Text()
		}
		last <- line
	}()
	return last
}

// feedOutage logs sessions out on one node while the other cannot reach the
// server. The other node learns of every logout once it can.
func feedOutage(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{})
	cl.countGoroutines()
	var all []*client
	for range scaled(10, 2) {
		var clients []*client
		for range 20 {
			clients = append(clients, cl.mustSignIn(cl.nodes[0]))
		}
		cl.proxies[1].Refuse(true)
		for _, c := range clients {
			cl.logOut(context.Background(), cl.nodes[0], c)
		}
		cl.proxies[1].Refuse(false)
		all = append(all, clients...)
		cl.proxies[1].Cut() // also interrupt the read of the whole feed
	}
	cl.check(all)
	cl.checkReleased(b.MaxConns)
}

// serverKilled kills the server under load and restarts it after 30 seconds.
// Meanwhile protected requests succeed, refreshes get 503 with Retry-After,
// and no client is signed out.
func serverKilled(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{window: time.Minute})
	cl.countGoroutines()
	stop := cl.load(32)
	down, up := scaled(30*time.Second, 2*time.Second), scaled(5*time.Second, time.Second)
	time.Sleep(up)
	cl.server.Kill()
	time.Sleep(down)
	cl.server.Start()
	time.Sleep(up)
	cl.check(stop())
	cl.wantStatus("refresh", http.StatusServiceUnavailable)
	cl.wantStatus("refresh", http.StatusOK)
	cl.wantOnlyStatuses("protected", http.StatusOK, http.StatusUnauthorized)
	cl.checkReleased(b.MaxConns)
}

// serverHangs blocks all traffic between the nodes and the server, without
// closing connections.
func serverHangs(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{window: time.Minute, storeTimeout: time.Second})
	cl.countGoroutines()
	stop := cl.load(32)
	for range scaled(3, 1) {
		time.Sleep(time.Second)
		for _, p := range cl.proxies {
			p.Hang()
		}
		time.Sleep(scaled(10*time.Second, 3*time.Second))
		for _, p := range cl.proxies {
			p.Resume()
		}
	}
	time.Sleep(time.Second)
	cl.check(stop())
	cl.wantStatus("refresh", http.StatusServiceUnavailable)
	cl.wantOnlyStatuses("protected", http.StatusOK, http.StatusUnauthorized)
	cl.checkReleased(b.MaxConns)
}

// connectionsCut closes connections after a random number of bytes: before a
// command, within it, before its response or within that.
func connectionsCut(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{window: time.Minute})
	cl.countGoroutines()
	stop := cl.load(32)
	for range scaled(1000, 100) {
		p := cl.proxies[rand.IntN(len(cl.proxies))]
		switch n := rand.IntN(3000); rand.IntN(3) {
		case 0:
			p.CutRequests(n)
		case 1:
			p.CutResponses(n)
		default:
			p.Cut()
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	}
	for _, p := range cl.proxies {
		p.CutRequests(-1)
		p.CutResponses(-1)
	}
	cl.check(stop())
	cl.checkReleased(b.MaxConns)
}

// slowNetwork delays all traffic between the nodes and the server by 100 ms
// in each direction.
func slowNetwork(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{window: time.Minute})
	cl.countGoroutines()
	for _, p := range cl.proxies {
		p.Delay(100 * time.Millisecond)
	}
	stop := cl.load(32)
	time.Sleep(scaled(10*time.Second, 2*time.Second))
	for _, p := range cl.proxies {
		p.Delay(0)
	}
	cl.check(stop())
	cl.checkReleased(b.MaxConns)
}

// nodePaused pauses a node at an arbitrary point (SIGSTOP) for a minute, while
// its clients use the other nodes.
func nodePaused(t *testing.T, b Backend) {
	cl := newCluster(t, b, options{nodes: 3, window: time.Minute})
	cl.ignoreDelays = true            // responses of a paused node take as long as the pause
	cl.http.Timeout = 2 * time.Second // clients do not wait for a paused node
	stop := cl.load(32)
	for range scaled(1, 2) {
		time.Sleep(time.Second)
		last := cl.nodes[len(cl.nodes)-1]
		_ = testserver.Pause(last.cmd.Process)
		time.Sleep(scaled(time.Minute, time.Second) - time.Duration(rand.IntN(500))*time.Millisecond)
		_ = testserver.Resume(last.cmd.Process)
	}
	time.Sleep(time.Second)
	clients := stop()
	cl.http.Timeout = 20 * time.Second
	cl.check(clients)
}

// Failover tests the loss of acknowledged writes. It calls settle, which
// returns when the replica has every write so far, and then hold, which stops
// replication. promote ends the server and returns the address of the replica.
// No client is signed out. A client that logged out stays signed out as long
// as one node that received the logout is running. A one-time token whose record
// was lost can be spent once more.
func Failover(t *testing.T, b Backend, settle, hold func(), promote func() (addr string)) {
	cl := newCluster(t, b, options{window: time.Minute})
	var idle, refreshed, out, lateOut []*client
	for range 50 {
		lateOut = append(lateOut, cl.mustSignIn(cl.nodes[0]))
		idle = append(idle, cl.mustSignIn(cl.nodes[0]))
		refreshed = append(refreshed, cl.mustSignIn(cl.nodes[0]))
		out = append(out, cl.mustSignIn(cl.nodes[1]))
	}
	var settled, late []*ticket // spent before and after replication stops
	for range 50 {
		settled, late = append(settled, cl.mustIssue(cl.anyNode())), append(late, cl.mustIssue(cl.anyNode()))
	}
	spendAll := func(tickets []*ticket) {
		for _, tk := range tickets {
			if tk.spent = cl.spend(context.Background(), cl.anyNode(), tk) == accepted; !tk.spent {
				t.Fatal("spending a one-time token failed")
			}
		}
	}
	spendAll(settled)
	settle()
	hold()
	spendAll(late)
	for _, c := range refreshed {
		if !cl.refresh(context.Background(), cl.anyNode(), c) || generation(c.refresh) != 2 {
			t.Fatal("refresh failed")
		}
	}
	for _, c := range out {
		if cl.logOut(context.Background(), cl.anyNode(), c); !c.out {
			t.Fatal("logout failed")
		}
	}
	refreshRefused := func(c *client, n *node) error {
		r := cl.do(context.Background(), n, "signed out", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
		if r.status != http.StatusUnauthorized {
			return fmt.Errorf("%s: %s", c.user, r)
		}
		return nil
	}
	allRefused := func(clients []*client) func() error {
		return func() error {
			for _, c := range clients {
				for _, n := range cl.nodes {
					if r := cl.do(context.Background(), n, "signed out", "GET", "/me", c.access, nil); r.status != http.StatusUnauthorized {
						return fmt.Errorf("%s: %s", c.user, r)
					}
				}
			}
			return nil
		}
	}
	cl.until("every node refuses the revoked sessions", 10*time.Second, allRefused(out))
	// Only one node receives the logouts of lateOut.
	for _, p := range cl.proxies[1:] {
		p.Hang()
	}
	for _, c := range lateOut {
		if cl.logOut(context.Background(), cl.nodes[0], c); !c.out {
			t.Fatal("logout failed")
		}
	}
	addr := promote()
	for _, p := range cl.proxies {
		p.Retarget(addr)
		p.Resume()
	}
	for _, c := range out { // refused from the start
		for _, n := range cl.nodes {
			if r := cl.do(context.Background(), n, "signed out", "GET", "/me", c.access, nil); r.status != http.StatusUnauthorized {
				t.Fatalf("%s is admitted after the failover: %s", c.user, r)
			}
			if err := refreshRefused(c, n); err != nil && !strings.Contains(err.Error(), "503") {
				t.Fatalf("a client could refresh after the failover: %v", err)
			}
		}
	}
	cl.until("every node refuses the sessions that one node knew were revoked", 30*time.Second, allRefused(lateOut))
	for _, c := range lateOut {
		for _, n := range cl.nodes {
			cl.until("refreshes of the session are refused", 10*time.Second, func() error { return refreshRefused(c, n) })
		}
	}
	for _, c := range idle {
		if g := generation(c.refresh); g != 1 {
			t.Fatalf("generation is %d, want 1", g)
		}
	}
	// What the failover lost can be spent again, once.
	cl.checkSpent(settled)
	for _, tk := range late {
		tk.spent = false
	}
	cl.checkSpent(late)
	again := 0
	for _, tk := range late {
		if tk.spent {
			again++
		}
	}
	t.Logf("%d of %d one-time tokens that were spent after replication stopped could be spent again after the failover", again, len(late))
	clients := slices.Concat(idle, refreshed, out, lateOut)
	cl.check(clients)
	for _, c := range refreshed {
		if g := generation(c.refresh); g > 3 {
			t.Errorf("generation after the failover is %d, want at most 3", g)
		}
	}
	// A node that starts now learns of the revocations that the failover lost.
	cl.startNode(nodeConfig{DSN: b.DSN(addr), Window: time.Minute, StoreTimeout: cl.timeout})
	cl.until("the new node refuses the revoked sessions", 30*time.Second, allRefused(slices.Concat(out, lateOut)))
	for _, n := range cl.nodes {
		if strings.Contains(n.out.String(), string(auth.EventReuse)) {
			t.Error("a node reported reuse of a refresh token")
		}
	}
}

// Disturb runs load while it calls disturb with the address of the server.
// disturb must return when done is closed.
func Disturb(t *testing.T, b Backend, disturb func(addr string, done <-chan struct{})) {
	besideOthers(t)
	cl := newCluster(t, b, options{window: time.Minute})
	cl.countGoroutines()
	stop := cl.load(32)
	done := make(chan struct{})
	time.AfterFunc(scaled(20*time.Second, 3*time.Second), func() { close(done) })
	disturb(cl.server.Addr, done)
	cl.check(stop())
	cl.wantStatus("refresh", http.StatusOK)
	cl.checkReleased(b.MaxConns)
}
