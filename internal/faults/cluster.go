package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth/internal/testserver"
)

// Backend describes the server of a store.
type Backend struct {
	// Start starts an empty server that is stopped at the end of the test.
	Start func(tb testing.TB) *testserver.Process
	// DSN returns the data source name that nodes use for the server at addr.
	// addr may be the address of a proxy.
	DSN func(addr string) string
	// Prepare sets up the server at addr before any node starts. It may be nil.
	Prepare func(tb testing.TB, addr string)
	// MaxConns is the maximum number of connections of a node.
	MaxConns int
}

// options configures a cluster. Zero fields mean 2 nodes, the default retry
// window and a store timeout of 2 seconds.
type options struct {
	nodes        int
	window       time.Duration
	storeTimeout time.Duration
}

// cluster is an application of several nodes on one server. Each node reaches
// the server through a proxy of its own.
type cluster struct {
	t       testing.TB
	name    string // part of the names of its users, since clusters may share a server
	server  *testserver.Process
	proxies []*testserver.Proxy // one for each node
	nodes   []*node
	timeout time.Duration // of calls to the store
	http    *http.Client
	users   atomic.Int64 // number of users so far

	mu           sync.Mutex
	statuses     map[string]map[int]int // number of responses by kind of request and status
	violations   []string               // responses that must not happen
	spent        []*ticket              // one-time tokens that load spent
	slowest      time.Duration          // longest time to a response
	ignoreDelays bool                   // slow responses are no violations
	noSpends     bool                   // load spends no one-time tokens, because a node does not know them
}

// node is a process of the application.
type node struct {
	addr       string
	cmd        *exec.Cmd
	out        *testserver.Output
	goroutines int // before any request, see countGoroutines
}

// newCluster starts a server and the nodes.
func newCluster(t testing.TB, b Backend, o options) *cluster {
	t.Helper()
	if o.nodes == 0 {
		o.nodes = 2
	}
	if o.storeTimeout == 0 {
		o.storeTimeout = 2 * time.Second
	}
	cl := emptyCluster(t, o.storeTimeout)
	cl.server = b.Start(t)
	if b.Prepare != nil {
		b.Prepare(t, cl.server.Addr)
	}
	for range o.nodes {
		proxy := testserver.NewProxy(t, cl.server.Addr)
		cl.proxies = append(cl.proxies, proxy)
		cl.startNode(nodeConfig{DSN: b.DSN(proxy.Addr), Window: o.window, StoreTimeout: o.storeTimeout})
	}
	return cl
}

// emptyCluster returns a cluster without a server and nodes.
func emptyCluster(t testing.TB, storeTimeout time.Duration) *cluster {
	cl := &cluster{t: t, name: fmt.Sprintf("%08x", rand.Uint32()), timeout: storeTimeout, statuses: map[string]map[int]int{}}
	cl.http = &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}
	t.Cleanup(cl.http.CloseIdleConnections)
	return cl
}

func (cl *cluster) startNode(c nodeConfig) {
	cl.t.Helper()
	cl.startProgram(os.Args[0], c)
}

// startProgram starts a node whose program is at path.
func (cl *cluster) startProgram(path string, c nodeConfig) {
	cl.t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		cl.t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	n := &node{cmd: cmd, out: &testserver.Output{}}
	cmd.Stdout, cmd.Stderr = n.out, n.out
	stdin, err := cmd.StdinPipe() // closed when this process exits for any reason; the node then exits
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cl.t.Fatalf("starting a node: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	cl.t.Cleanup(func() {
		_ = testserver.Resume(cmd.Process)
		_ = stdin.Close()
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
		if out := n.out.String(); cl.t.Failed() || strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic") {
			cl.t.Errorf("output of node %s:\n%.8000s", n.addr, out)
		}
	})
	cl.until("the node is ready", 30*time.Second, func() error {
		if n.addr = nodeAddr(n.out.String()); n.addr == "" {
			return fmt.Errorf("no address in its output %q", n.out.String())
		}
		s, err := cl.state(n)
		if err == nil && !s.Ready {
			err = errors.New("the node has not read the feed")
		}
		return err
	})
	cl.nodes = append(cl.nodes, n)
}

// until calls check until it returns nil. It fails the test after limit.
func (cl *cluster) until(what string, limit time.Duration, check func() error) {
	cl.t.Helper()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			cl.t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (cl *cluster) state(n *node) (nodeState, error) {
	var s nodeState
	resp, err := cl.http.Get("http://" + n.addr + "/state")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// response is the response of a node to a request.
type response struct {
	status int
	header http.Header
	body   []byte
	err    error // set if no complete response arrived
	took   time.Duration
}

func (r response) field(name string) string {
	var m map[string]any
	_ = json.Unmarshal(r.body, &m)
	s, _ := m[name].(string)
	return s
}

func (r response) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("%d %.200s", r.status, r.body)
}

// do sends a request to a node and returns the response. It counts the
// response under kind, and records what is wrong with any response: it took
// too long, a 503 has no Retry-After, or an error sets cookies.
func (cl *cluster) do(ctx context.Context, n *node, kind, method, path, bearer string, body any) response {
	var header http.Header
	if bearer != "" {
		header = http.Header{"Authorization": {"Bearer " + bearer}}
	}
	return cl.send(ctx, n, kind, method, path, header, body)
}

// send is do with a header, which it may modify.
func (cl *cluster) send(ctx context.Context, n *node, kind, method, path string, header http.Header, body any) response {
	var reader io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.addr+path, reader)
	if err != nil {
		return response{err: err}
	}
	if header != nil {
		req.Header = header
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	begin := time.Now()
	var r response
	resp, err := cl.http.Do(req)
	if err != nil {
		r.err = err
	} else {
		r.status, r.header = resp.StatusCode, resp.Header
		r.body, r.err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	r.took = time.Since(begin)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.statuses[kind] == nil {
		cl.statuses[kind] = map[int]int{}
	}
	cl.statuses[kind][r.status]++
	if r.err != nil {
		return r
	}
	if !cl.ignoreDelays {
		cl.slowest = max(cl.slowest, r.took)
		if r.took > cl.timeout+time.Second {
			cl.violations = append(cl.violations, fmt.Sprintf("%s took %s", kind, r.took))
		}
	}
	if r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") == "" {
		cl.violations = append(cl.violations, kind+": 503 without Retry-After")
	}
	if r.status >= 400 && r.header.Get("Set-Cookie") != "" {
		cl.violations = append(cl.violations, kind+": an error response sets cookies")
	}
	return r
}

// violation records that something happened that must not happen.
func (cl *cluster) violation(format string, args ...any) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.violations = append(cl.violations, fmt.Sprintf(format, args...))
}

func (cl *cluster) anyNode() *node { return cl.nodes[rand.IntN(len(cl.nodes))] }

// countGoroutines records how many goroutines each node has before any
// request.
func (cl *cluster) countGoroutines() {
	cl.t.Helper()
	for _, n := range cl.nodes {
		s, err := cl.state(n)
		if err != nil {
			cl.t.Fatal(err)
		}
		n.goroutines = s.Goroutines
	}
}

// checkReleased checks that the nodes release their goroutines and
// connections after the load.
func (cl *cluster) checkReleased(maxConns int) {
	cl.t.Helper()
	for i, n := range cl.nodes {
		cl.until("goroutines and connections are released", 30*time.Second, func() error {
			cl.http.CloseIdleConnections()
			s, err := cl.state(n)
			conns := cl.proxies[i].Conns()
			// A driver's pool keeps connections, and may use goroutines for them.
			if err == nil && (s.Goroutines > n.goroutines+2*maxConns+4 || conns > maxConns) {
				err = fmt.Errorf("%d goroutines, %d before; %d connections", s.Goroutines, n.goroutines, conns)
			}
			return err
		})
	}
}

// wantStatus checks that at least one response of a kind had a status, so
// that the scenario exercised what it is for.
func (cl *cluster) wantStatus(kind string, status int) {
	cl.t.Helper()
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.statuses[kind][status] == 0 {
		cl.t.Errorf("no %s response had status %d: %v", kind, status, cl.statuses[kind])
	}
}

// wantOnlyStatuses checks that every response of a kind had one of statuses.
func (cl *cluster) wantOnlyStatuses(kind string, statuses ...int) {
	cl.t.Helper()
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for status, n := range cl.statuses[kind] {
		if !slices.Contains(statuses, status) {
			cl.t.Errorf("%d %s responses had status %d, want one of %v", n, kind, status, statuses)
		}
	}
}
