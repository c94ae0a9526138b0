package faults

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// Run plays every fault against a store's server, each on a server of its own.
// With AUTH_LONG=1 the plays are whole, else a tenth or less of them.
func Run(t *testing.T, b Backend) {
	for _, p := range []struct {
		name string
		play func(t *testing.T, b Backend)
	}{
		{"ManyRefreshesAtOnceAreOneGeneration", contention},
		{"RevocationReachesTheOtherNode", revocation},
		{"RevocationsDuringACutOfTheFeedArrive", cutFeed},
		{"ServerKilledAndStarted", killed},
		{"ServerHangs", hung},
		{"ConnectionsCutAnywhere", cutAnywhere},
		{"SlowNetwork", slow},
		{"NodeStoppedBetweenSteps", stoppedNode},
	} {
		t.Run(p.name, func(t *testing.T) { p.play(t, b) })
	}
}

// contention presents one token 64 times at once to two nodes, round after
// round: one generation each, and every answer is that one (I1, I11).
func contention(t *testing.T, b Backend) {
	w := newWorld(t, b, options{window: 10 * time.Second, storeTimeout: 10 * time.Second})
	c := w.mustSignIn(w.nodes[0])
	rounds := scaled(1000, 30)
	for round := range rounds {
		before := generation(c.refresh)
		answers := make([]answer, 64)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				answers[i] = w.ask(context.Background(), w.nodes[i%2], "refresh", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
			})
		}
		wg.Wait()
		for _, a := range answers {
			if a.status != http.StatusOK || a.field("refresh_token") != answers[0].field("refresh_token") {
				t.Fatalf("round %d: an answer differs: %s, the first: %s", round, a, answers[0])
			}
		}
		c.take(answers[0])
		if now := generation(c.refresh); now != before+1 {
			t.Fatalf("round %d: generation %d became %d", round, before, now)
		}
		for _, n := range w.nodes { // the session has rested
			w.ask(context.Background(), n, "clock", "POST", "/clock?ahead=31s", "", nil)
		}
	}
	t.Logf("%d rounds of 64 refreshes of one token on two nodes: one generation each", rounds)
}

// revocation measures how long a session that was ended on one node is still
// let in on the other, and looks that streams end there.
func revocation(t *testing.T, b Backend) {
	w := newWorld(t, b, options{})
	trials := scaled(1000, 50)
	delays := make([]time.Duration, 0, trials)
	for range trials {
		c := w.mustSignIn(w.nodes[0])
		w.visit(context.Background(), w.nodes[1], c)
		w.leave(context.Background(), w.nodes[0], c)
		if !c.out {
			t.Fatal("logging out failed")
		}
		begun := time.Now()
		for w.ask(context.Background(), w.nodes[1], "signed out", "GET", "/me", c.access, nil).status != http.StatusUnauthorized {
			if time.Since(begun) > 10*time.Second {
				t.Fatal("the other node lets the session in ten seconds after its end")
			}
		}
		delays = append(delays, time.Since(begun))
	}
	slices.Sort(delays)
	t.Logf("%d logouts, refused on the other node after the answer: p50 %s, p99 %s, longest %s",
		trials, delays[trials/2], delays[trials*99/100], delays[trials-1])

	var streams []<-chan string
	c := w.mustSignIn(w.nodes[0])
	for _, n := range w.nodes {
		streams = append(streams, w.stream(n, c))
	}
	if a := w.ask(context.Background(), w.nodes[0], "everything", "POST", "/everything?user="+url.QueryEscape(c.user), "", nil); a.status != http.StatusOK {
		t.Fatalf("ending all sessions: %s", a)
	}
	for i, s := range streams {
		select {
		case last := <-s:
			if last != "revoked" {
				t.Errorf("the stream of node %d ended with %q", i, last)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the stream of node %d goes on", i)
		}
	}
	c.leaving, c.out = true, true
	w.judge([]*client{c})
}

// stream opens an event stream, and sends its last line when it ends.
func (w *world) stream(n *node, c *client) <-chan string {
	w.t.Helper()
	req, err := http.NewRequest("GET", "http://"+n.addr+"/stream", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.access)
	resp, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "open" {
		w.t.Fatalf("the stream begins with %q", lines.Text())
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

// cutFeed ends sessions while the other node cannot reach the server: nothing
// is missed once it can.
func cutFeed(t *testing.T, b Backend) {
	w := newWorld(t, b, options{})
	w.rest()
	var gone []*client
	for range scaled(10, 2) {
		var now []*client
		for range 20 {
			now = append(now, w.mustSignIn(w.nodes[0]))
		}
		w.proxies[1].Refuse(true)
		for _, c := range now {
			w.leave(context.Background(), w.nodes[0], c)
		}
		w.proxies[1].Refuse(false)
		gone = append(gone, now...)
		w.proxies[1].Cut() // and once more while it reads everything
	}
	w.judge(gone)
	w.nothingLeft(b.MaxConns)
}

// killed ends the server for half a minute under load. Protected requests go
// on, refreshes are told to come again, and nobody is signed out.
func killed(t *testing.T, b Backend) {
	w := newWorld(t, b, options{window: time.Minute})
	w.rest()
	stop := w.load(32)
	down, up := scaled(30*time.Second, 2*time.Second), scaled(5*time.Second, time.Second)
	time.Sleep(up)
	w.server.Kill()
	time.Sleep(down)
	w.server.Start()
	time.Sleep(up)
	w.judge(stop())
	w.mustHaveSeen("refresh", http.StatusServiceUnavailable)
	w.mustHaveSeen("refresh", http.StatusOK)
	w.mustHaveSeenOnly("protected", http.StatusOK, http.StatusUnauthorized)
	w.nothingLeft(b.MaxConns)
}

// hung lets no byte pass between the nodes and the server, and closes nothing.
func hung(t *testing.T, b Backend) {
	w := newWorld(t, b, options{window: time.Minute, storeTimeout: time.Second})
	w.rest()
	stop := w.load(32)
	for range scaled(3, 1) {
		time.Sleep(time.Second)
		for _, p := range w.proxies {
			p.Hang()
		}
		time.Sleep(scaled(10*time.Second, 3*time.Second))
		for _, p := range w.proxies {
			p.Resume()
		}
	}
	time.Sleep(time.Second)
	w.judge(stop())
	w.mustHaveSeen("refresh", http.StatusServiceUnavailable)
	w.mustHaveSeenOnly("protected", http.StatusOK, http.StatusUnauthorized)
	w.nothingLeft(b.MaxConns)
}

// cutAnywhere closes connections after any number of bytes: before a command
// was sent, within it, before its answer, within that.
func cutAnywhere(t *testing.T, b Backend) {
	w := newWorld(t, b, options{window: time.Minute})
	w.rest()
	stop := w.load(32)
	for range scaled(1000, 100) {
		p := w.proxies[rand.IntN(len(w.proxies))]
		switch bytes := rand.IntN(3000); rand.IntN(3) {
		case 0:
			p.CutRequests(bytes)
		case 1:
			p.CutAnswers(bytes)
		default:
			p.Cut()
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	}
	for _, p := range w.proxies {
		p.CutRequests(-1)
		p.CutAnswers(-1)
	}
	w.judge(stop())
	w.nothingLeft(b.MaxConns)
}

// slow holds every piece up, each way.
func slow(t *testing.T, b Backend) {
	w := newWorld(t, b, options{window: time.Minute})
	w.rest()
	for _, p := range w.proxies {
		p.Delay(100 * time.Millisecond)
	}
	stop := w.load(32)
	time.Sleep(scaled(10*time.Second, 2*time.Second))
	for _, p := range w.proxies {
		p.Delay(0)
	}
	w.judge(stop())
	w.nothingLeft(b.MaxConns)
}

// stoppedNode stops a node wherever it is (SIGSTOP), for a minute, while its
// clients go on elsewhere.
func stoppedNode(t *testing.T, b Backend) {
	w := newWorld(t, b, options{nodes: 3, window: time.Minute})
	w.quiet = true                   // answers of a stopped node take as long as it is
	w.http.Timeout = 2 * time.Second // and clients do not wait for it
	stop := w.load(32)
	for range scaled(1, 2) {
		time.Sleep(time.Second)
		last := w.nodes[len(w.nodes)-1]
		_ = testserver.Pause(last.cmd.Process)
		time.Sleep(scaled(time.Minute, time.Second) - time.Duration(rand.IntN(500))*time.Millisecond)
		_ = testserver.Resume(last.cmd.Process)
	}
	time.Sleep(time.Second)
	clients := stop()
	w.http.Timeout = 20 * time.Second
	w.judge(clients)
}

// mustHaveSeen makes sure that a play had something to play with.
func (w *world) mustHaveSeen(what string, status int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.statuses[what][status] == 0 {
		w.t.Errorf("no %s was answered with %d: %v", what, status, w.statuses[what])
	}
}

func (w *world) mustHaveSeenOnly(what string, statuses ...int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for status, n := range w.statuses[what] {
		if !slices.Contains(statuses, status) {
			w.t.Errorf("%d times %s was answered with %d", n, what, status)
		}
	}
}

// Failover plays the loss of acknowledged writes: promote ends the server and
// returns the address of another that never got the last of them, which those
// before had all reached when settle returned. Nobody is signed out, and who
// was signed out stays so as long as a node that knew is alive.
func Failover(t *testing.T, b Backend, settle, hold func(), promote func() (addr string)) {
	w := newWorld(t, b, options{window: time.Minute})
	var stay, refreshed, gone, late []*client
	for range 50 {
		late = append(late, w.mustSignIn(w.nodes[0]))
		stay = append(stay, w.mustSignIn(w.nodes[0]))
		refreshed = append(refreshed, w.mustSignIn(w.nodes[0]))
		gone = append(gone, w.mustSignIn(w.nodes[1]))
	}
	settle()
	hold()
	for _, c := range refreshed {
		if !w.renew(context.Background(), w.anyNode(), c) || generation(c.refresh) != 2 {
			t.Fatal("refreshing failed")
		}
	}
	for _, c := range gone {
		if w.leave(context.Background(), w.anyNode(), c); !c.out {
			t.Fatal("logging out failed")
		}
	}
	refused := func(c *client, n *node) error {
		a := w.ask(context.Background(), n, "signed out", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
		if a.status != http.StatusUnauthorized {
			return fmt.Errorf("%s: %s", c.user, a)
		}
		return nil
	}
	allRefused := func(clients []*client) func() error {
		return func() error {
			for _, c := range clients {
				for _, n := range w.nodes {
					if a := w.ask(context.Background(), n, "signed out", "GET", "/me", c.access, nil); a.status != http.StatusUnauthorized {
						return fmt.Errorf("%s: %s", c.user, a)
					}
				}
			}
			return nil
		}
	}
	w.until("every node knows", 10*time.Second, allRefused(gone))
	// The last to leave are known to one node alone.
	for _, p := range w.proxies[1:] {
		p.Hang()
	}
	for _, c := range late {
		if w.leave(context.Background(), w.nodes[0], c); !c.out {
			t.Fatal("logging out failed")
		}
	}
	addr := promote()
	for _, p := range w.proxies {
		p.Retarget(addr)
		p.Resume()
	}
	for _, c := range gone { // not for a moment
		for _, n := range w.nodes {
			if a := w.ask(context.Background(), n, "signed out", "GET", "/me", c.access, nil); a.status != http.StatusUnauthorized {
				t.Fatalf("%s is let in again: %s", c.user, a)
			}
			if err := refused(c, n); err != nil && !strings.Contains(err.Error(), "503") {
				t.Fatalf("signed in again: %v", err)
			}
		}
	}
	w.until("what one node knew is known again", 30*time.Second, allRefused(late))
	for _, c := range late {
		for _, n := range w.nodes {
			w.until("its sessions are ended again", 10*time.Second, func() error { return refused(c, n) })
		}
	}
	for _, c := range stay {
		if g := generation(c.refresh); g != 1 {
			t.Fatalf("generation %d", g)
		}
	}
	clients := slices.Concat(stay, refreshed, gone, late)
	w.judge(clients)
	for _, c := range refreshed {
		if g := generation(c.refresh); g > 3 {
			t.Errorf("generation %d after healing", g)
		}
	}
	// A node that starts now knows what was lost.
	w.startNode(nodeConfig{DSN: b.DSN(addr), Window: time.Minute, StoreTimeout: w.timeout})
	w.until("a new node refuses who left", 30*time.Second, allRefused(slices.Concat(gone, late)))
	for _, n := range w.nodes {
		if strings.Contains(n.out.String(), string(auth.EventReuse)) {
			t.Error("a refresh was taken for a theft")
		}
	}
}

// Disturb plays load while disturb does what it does, on nodes that know the
// server by dsn.
func Disturb(t *testing.T, b Backend, disturb func(addr string, over <-chan struct{})) {
	w := newWorld(t, b, options{window: time.Minute})
	w.rest()
	stop := w.load(32)
	over := make(chan struct{})
	time.AfterFunc(scaled(20*time.Second, 3*time.Second), func() { close(over) })
	disturb(w.server.Addr, over)
	w.judge(stop())
	w.mustHaveSeen("refresh", http.StatusOK)
	w.nothingLeft(b.MaxConns)
}
