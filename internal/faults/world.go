package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth/internal/testserver"
)

// Backend is the server of a store.
type Backend struct {
	// Start starts an empty server that ends with the test.
	Start func(tb testing.TB) *testserver.Process
	// DSN returns what the nodes are told, for the server at addr, which may be
	// a proxy's address.
	DSN func(addr string) string
	// Prepare makes the server at addr ready, before any node starts; nil if
	// there is nothing to do.
	Prepare func(tb testing.TB, addr string)
	// MaxConns is how many connections a node may hold.
	MaxConns int
}

// options of a world.
type options struct {
	nodes        int
	window       time.Duration
	storeTimeout time.Duration
}

// world is an application of several nodes, its server and its clients.
type world struct {
	t       testing.TB
	server  *testserver.Process
	proxies []*testserver.Proxy // one for each node
	nodes   []*node
	timeout time.Duration // of the store
	http    *http.Client
	users   atomic.Int64

	mu       sync.Mutex
	statuses map[string]map[int]int // answers by what was asked
	broken   []string               // what must not happen
	slowest  time.Duration          // answer
	quiet    bool                   // times are not judged
}

// node is a process of the application.
type node struct {
	addr  string
	cmd   *exec.Cmd
	out   *lockedBuffer
	after int // goroutines at rest
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld starts a server and the nodes.
func newWorld(t testing.TB, b Backend, o options) *world {
	t.Helper()
	if o.nodes == 0 {
		o.nodes = 2
	}
	if o.storeTimeout == 0 {
		o.storeTimeout = 2 * time.Second
	}
	w := &world{t: t, timeout: o.storeTimeout, statuses: map[string]map[int]int{}}
	w.http = &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}
	t.Cleanup(w.http.CloseIdleConnections)
	w.server = b.Start(t)
	if b.Prepare != nil {
		b.Prepare(t, w.server.Addr)
	}
	for range o.nodes {
		proxy := testserver.NewProxy(t, w.server.Addr)
		w.proxies = append(w.proxies, proxy)
		w.startNode(nodeConfig{DSN: b.DSN(proxy.Addr), Window: o.window, StoreTimeout: o.storeTimeout})
	}
	return w
}

func (w *world) startNode(c nodeConfig) {
	w.t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	n := &node{cmd: cmd, out: &lockedBuffer{}}
	cmd.Stdout, cmd.Stderr = n.out, n.out
	stdin, err := cmd.StdinPipe() // it ends with this process, whatever becomes of it
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatalf("starting a node: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	w.t.Cleanup(func() {
		_ = testserver.Resume(cmd.Process)
		_ = stdin.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if out := n.out.String(); w.t.Failed() || strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic") {
			w.t.Errorf("node %s:\n%.8000s", n.addr, out)
		}
	})
	w.until("a node is ready", 30*time.Second, func() error {
		if n.addr = listening(n.out.String()); n.addr == "" {
			return fmt.Errorf("it says %q", n.out.String())
		}
		s, err := w.state(n)
		if err == nil && !s.Ready {
			err = errors.New("it has not read the feed")
		}
		return err
	})
	w.nodes = append(w.nodes, n)
}

// until polls until check finds nothing wrong.
func (w *world) until(what string, limit time.Duration, check func() error) {
	w.t.Helper()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) state(n *node) (state, error) {
	var s state
	resp, err := w.http.Get("http://" + n.addr + "/state")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// answer is what a node said.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // no answer came
	took   time.Duration
}

func (a answer) field(name string) string {
	var m map[string]any
	_ = json.Unmarshal(a.body, &m)
	s, _ := m[name].(string)
	return s
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %.200s", a.status, a.body)
}

// ask sends a request to a node, and notes what every answer must keep to.
func (w *world) ask(ctx context.Context, n *node, what, method, path, bearer string, body any) answer {
	var send io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.addr+path, send)
	if err != nil {
		return answer{err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	begun := time.Now()
	var a answer
	resp, err := w.http.Do(req)
	if err != nil {
		a.err = err
	} else {
		a.status, a.header = resp.StatusCode, resp.Header
		a.body, a.err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	a.took = time.Since(begun)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.statuses[what] == nil {
		w.statuses[what] = map[int]int{}
	}
	w.statuses[what][a.status]++
	if a.err != nil {
		return a
	}
	if !w.quiet {
		w.slowest = max(w.slowest, a.took)
		if a.took > w.timeout+time.Second {
			w.broken = append(w.broken, fmt.Sprintf("%s took %s", what, a.took))
		}
	}
	if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		w.broken = append(w.broken, what+": 503 without Retry-After")
	}
	if a.status >= 400 && a.header.Get("Set-Cookie") != "" {
		w.broken = append(w.broken, what+": a failure sets cookies")
	}
	return a
}

func (w *world) violates(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *world) anyNode() *node { return w.nodes[rand.IntN(len(w.nodes))] }

// client is an honest holder of a session's tokens. It is used by one
// goroutine at a time.
type client struct {
	user, access, refresh string
	leaving, out          bool // a logout was asked for; it was confirmed
}

func (c *client) take(a answer) {
	if t := a.field("access_token"); t != "" {
		c.access = t
	}
	if t := a.field("refresh_token"); t != "" {
		c.refresh = t
	}
}

// generation returns the gen of a refresh token.
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

// signIn opens a session for a user of its own; nil if it could not be.
func (w *world) signIn(ctx context.Context, n *node) *client {
	c := &client{user: fmt.Sprintf("user-%d", w.users.Add(1))}
	a := w.ask(ctx, n, "sign in", "POST", "/start?user="+c.user, "", nil)
	switch {
	case a.err == nil && a.status == http.StatusOK:
		c.take(a)
		return c
	case a.err == nil && a.status != http.StatusServiceUnavailable:
		w.violates("sign in: %s", a)
	}
	return nil
}

// mustSignIn signs in where nothing is wrong.
func (w *world) mustSignIn(n *node) *client {
	w.t.Helper()
	c := w.signIn(context.Background(), n)
	if c == nil {
		w.t.Fatal("signing in failed")
	}
	return c
}

// renew refreshes as an honest client does, and reports whether it was
// answered with tokens.
func (w *world) renew(ctx context.Context, n *node, c *client) bool {
	a := w.ask(ctx, n, "refresh", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
	switch {
	case a.err != nil:
	case a.status == http.StatusOK:
		if before, now := generation(c.refresh), generation(a.field("refresh_token")); now < before || now > before+1 {
			w.violates("refresh: generation %d became %d", before, now)
		}
		c.take(a)
		return true
	case a.status == http.StatusServiceUnavailable, c.leaving && a.status == http.StatusUnauthorized:
	default:
		w.violates("%s was signed out: refresh at generation %d: %s", c.user, generation(c.refresh), a)
	}
	return false
}

// visit asks for a protected page. It needs no store, so nothing may keep it
// from being answered.
func (w *world) visit(ctx context.Context, n *node, c *client) {
	a := w.ask(ctx, n, "protected", "GET", "/me", c.access, nil)
	if a.err == nil && a.status != http.StatusOK && (!c.leaving || a.status != http.StatusUnauthorized) {
		w.violates("a protected page of %s: %s", c.user, a)
	}
}

// leave logs out.
func (w *world) leave(ctx context.Context, n *node, c *client) {
	c.leaving = true
	a := w.ask(ctx, n, "logout", "POST", "/auth/logout", "", map[string]string{"refresh_token": c.refresh})
	switch {
	case a.err != nil, a.status == http.StatusServiceUnavailable:
	case a.status == http.StatusNoContent:
		c.out = true
	default:
		w.violates("logout: %s", a)
	}
}

// load lets workers sign in, refresh, read and log out until stop is called,
// which returns the clients.
func (w *world) load(workers int) (stop func() []*client) {
	ctx, cancel := context.WithCancel(context.Background())
	all := make([][]*client, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			// An honest client whose refresh was not answered asks again soon; one
			// that sleeps past the window has to sign in.
			var unanswered *client
			for ctx.Err() == nil {
				at := w.anyNode()
				mine := all[i]
				if unanswered != nil && rand.IntN(2) == 0 {
					if w.renew(context.Background(), at, unanswered) {
						unanswered = nil
					}
					continue
				}
				if len(mine) == 0 || len(mine) < 200 && rand.IntN(5) == 0 {
					if c := w.signIn(context.Background(), at); c != nil {
						all[i] = append(all[i], c)
					}
					continue
				}
				c := mine[rand.IntN(len(mine))]
				switch p := rand.IntN(20); {
				case c.out:
				case p < 12:
					w.visit(context.Background(), at, c)
				case p < 19:
					if unanswered == nil && !w.renew(context.Background(), at, c) && !c.leaving {
						unanswered = c
					}
				case c != unanswered:
					w.leave(context.Background(), at, c)
				}
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
		})
	}
	return func() []*client {
		cancel()
		wg.Wait()
		var clients []*client
		for _, mine := range all {
			clients = append(clients, mine...)
		}
		return clients
	}
}

// judge looks, once the fault is over, whether everybody has what he should:
// who did not log out goes on with the token that he holds, with one session;
// who did is refused on every node, for ever.
func (w *world) judge(clients []*client) {
	w.t.Helper()
	ctx := context.Background()
	for _, n := range w.nodes {
		w.until("a node is as it was", 30*time.Second, func() error {
			s, err := w.state(n)
			if err == nil && s.Age > 10*time.Second {
				err = fmt.Errorf("its feed is %s old", s.Age)
			}
			return err
		})
	}
	var wg sync.WaitGroup
	work := make(chan *client)
	for range 16 {
		wg.Go(func() {
			for c := range work {
				w.judgeOne(ctx, c)
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
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.broken[:min(len(w.broken), 20)] {
		w.t.Error(b)
	}
	w.t.Logf("%d signed in, %d signed out; slowest answer %s; answers %v; %d violations", in, out, w.slowest.Round(time.Millisecond), w.statuses, len(w.broken))
}

func (w *world) judgeOne(ctx context.Context, c *client) {
	end := time.Now().Add(20 * time.Second)
	again := func() bool {
		time.Sleep(50 * time.Millisecond)
		return time.Now().Before(end)
	}
	if !c.leaving {
		for !w.renew(ctx, w.anyNode(), c) {
			w.mu.Lock()
			given := len(w.broken) > 0
			w.mu.Unlock()
			if given || !again() {
				w.violates("%s could not refresh after the fault", c.user)
				return
			}
		}
		w.visit(ctx, w.anyNode(), c)
		a := w.ask(ctx, w.anyNode(), "sessions", "GET", "/auth/sessions", c.access, nil)
		if n := strings.Count(string(a.body), `"id"`); n != 1 {
			w.violates("%s has %d sessions: %s", c.user, n, a)
		}
		return
	}
	for !c.out {
		if w.leave(ctx, w.anyNode(), c); !again() {
			w.violates("%s could not log out after the fault", c.user)
			return
		}
	}
	for _, n := range w.nodes {
		for {
			a := w.ask(ctx, n, "signed out", "GET", "/me", c.access, nil)
			b := w.ask(ctx, n, "signed out", "POST", "/auth/refresh", "", map[string]string{"refresh_token": c.refresh})
			if a.status == http.StatusUnauthorized && b.status == http.StatusUnauthorized {
				break
			}
			if b.status == http.StatusOK {
				w.violates("%s is signed in again: %s", c.user, b)
				return
			}
			if !again() {
				w.violates("%s is still let in: %s, %s", c.user, a, b)
				return
			}
		}
	}
}

// rest notes how many goroutines the nodes have before anything happened.
func (w *world) rest() {
	w.t.Helper()
	for _, n := range w.nodes {
		s, err := w.state(n)
		if err != nil {
			w.t.Fatal(err)
		}
		n.after = s.Goroutines
	}
}

// nothingLeft looks whether the nodes have let go of what they used.
func (w *world) nothingLeft(maxConns int) {
	w.t.Helper()
	for i, n := range w.nodes {
		w.until("goroutines and connections are gone", 30*time.Second, func() error {
			w.http.CloseIdleConnections()
			s, err := w.state(n)
			conns := w.proxies[i].Conns()
			// A driver's pool holds connections, some with goroutines of theirs.
			if err == nil && (s.Goroutines > n.after+2*maxConns+4 || conns > maxConns) {
				err = fmt.Errorf("%d goroutines, %d before; %d connections", s.Goroutines, n.after, conns)
			}
			return err
		})
	}
}

// long reports whether everything is played.
func long() bool { return os.Getenv("AUTH_LONG") == "1" }

// scaled is n, or a part of it where not everything is played.
func scaled[T int | time.Duration](whole, part T) T {
	if long() {
		return whole
	}
	return part
}
