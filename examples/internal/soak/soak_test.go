package soak

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
)

var (
	minutes  = flag.Float64("minutes", 0, "how long the stores are soaked, all at once")
	plotFile = flag.String("plot", "", "file for the plot, an SVG; relative to the root of the repository")
	accounts = flag.Int("users", 75, "number of users on each store")
)

const (
	// storeTimeout is Config.StoreTimeout of the nodes. It is long, because all
	// nodes, servers and clients share one machine.
	storeTimeout = 5 * time.Second

	startTimeout = 30 * time.Second

	// answerLimit is how long a client repeats a request.
	answerLimit = time.Minute

	// feedLimit is how long another node may take to learn that a session ended.
	feedLimit = 5 * time.Second

	// accessTTL is Config.AccessTTL of the nodes. It exceeds feedLimit, since a node
	// refuses a token that has expired anyway.
	accessTTL = 10 * time.Second

	// stallTime is the time to a response from which on the machine counts as
	// overloaded. A store may then time out, and the feed may be late.
	stallTime = time.Second

	// settleTime is how long after a restart the nodes may still respond with 503,
	// and learn later of revocations: Run pauses for up to 5 seconds after errors.
	settleTime = 8 * time.Second

	devicesPerUser = 3
	meanPause      = 500 * time.Millisecond // between two things that a user does
	losePause      = 300 * time.Millisecond // between two responses that each node's proxy loses
	poolSize       = 10                     // connections of a node to its server
)

// soak is the run on one store: two nodes, a proxy in front of each, and the users.
type soak struct {
	t        testing.TB
	store    string
	config   nodesConfig
	password string
	server   *testserver.Process // nil without a server
	procs    []*process          // one for each node, or one for both
	proxies  [2]*testserver.Proxy

	mu         sync.Mutex
	violations []string
	failed     int // number of violations
	counts     map[string]int
	statuses   map[int]int
	restarts   []period
	stalls     []period // in which responses took more than stallTime
	began      time.Time
	delays     []time.Duration // until the other node refused an ended session
	latencies  []time.Duration // since the last sample
	samples    []sample
	reuses     int // EventReuse in processes that were killed
}

// period is the time of a restart.
type period struct{ from, to time.Time } // to is zero while it lasts

// process is a process with one or both nodes.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	stderr  *testserver.Output
	at      started
	started processState // before the first request
}

func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts many processes")
	}
	duration, stores := time.Duration(*minutes*float64(time.Minute)), []string{"Memory", "SQLite", "Redis", "PostgreSQL"}
	if *minutes == 0 {
		duration, stores = time.Second, stores[:1]
	}
	if end, ok := t.Deadline(); ok && time.Until(end) < duration+2*time.Minute {
		t.Fatalf("-timeout must exceed -minutes by at least 2 minutes")
	}
	soaks := make([]*soak, len(stores))
	t.Run("stores", func(t *testing.T) {
		for i, name := range stores {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSoak(t, name, duration)
				soaks[i] = s
				s.run(duration)
				s.judge(duration)
			})
		}
	})
	soaks = slices.DeleteFunc(soaks, func(s *soak) bool { return s == nil || len(s.samples) == 0 })
	fmt.Print(report(soaks))
	if *plotFile != "" {
		path := *plotFile
		if !filepath.IsAbs(path) {
			path = filepath.Join("..", "..", "..", path) // a test runs in the directory of its package
		}
		require.NoError(t, os.WriteFile(path, plot(soaks, duration), 0o644))
	}
}

// newSoak starts the server of a store, if it has one, and the nodes. Short runs have
// short lifetimes, so that every kind of event occurs in them.
func newSoak(t testing.TB, store string, duration time.Duration) *soak {
	unit := min(max(duration/20, 2*time.Second), 10*time.Second).Truncate(time.Second)
	s := &soak{
		t: t, store: store, password: rand.Text(), counts: map[string]int{}, statuses: map[int]int{},
		config: nodesConfig{
			Store: store, Nodes: 1, Secret: rand.Text() + rand.Text(),
			Window: unit, Access: accessTTL, Idle: 12 * unit, Session: 30 * unit,
		},
	}
	hash, err := hasher().Hash(context.Background(), s.password)
	require.NoError(t, err)
	s.config.PasswordHash = hash
	switch store {
	case "Memory":
		s.config.Nodes = 2
	case "SQLite":
		s.config.DSN = filepath.Join(t.TempDir(), "sessions.db")
	case "Redis":
		s.server = testserver.Redis(t)
		s.config.DSN = fmt.Sprintf("redis://%s/0?pool_size=%d", s.server.Addr, poolSize)
	case "PostgreSQL":
		s.server = testserver.Postgres(t)
		s.config.DSN = fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&pool_max_conns=%d&connect_timeout=2", s.server.Addr, poolSize)
	}
	s.procs = make([]*process, 2/s.config.Nodes)
	for i := range s.procs {
		s.procs[i] = s.start()
	}
	for node := range 2 {
		s.proxies[node] = testserver.NewProxy(t, s.nodeAddr(node))
	}
	t.Cleanup(func() {
		for _, p := range s.procs {
			_ = p.in.Close()
			_ = p.cmd.Wait()
			if out := p.stderr.String(); out != "" {
				t.Errorf("output of a node:\n%.4000s", out)
			}
		}
	})
	return s
}

// nodeAddr returns the address of a node.
func (s *soak) nodeAddr(node int) string {
	if s.config.Nodes == 2 {
		return s.procs[0].at.Nodes[node]
	}
	return s.procs[node].at.Nodes[0]
}

// start starts a process, and waits until its nodes are ready.
func (s *soak) start() *process {
	p := &process{cmd: testserver.Self(s.t), stderr: &testserver.Output{}}
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err == nil {
		err = json.NewEncoder(p.in).Encode(s.config)
	}
	if err == nil {
		err = json.NewDecoder(bufio.NewReader(out)).Decode(&p.at)
	}
	if err == nil {
		p.started, err = p.state()
	}
	if err != nil {
		s.t.Errorf("starting a node: %v\n%s", err, p.stderr)
	}
	return p
}

func (p *process) state() (s processState, err error) {
	resp, err := http.Get("http://" + p.at.Control + "/state")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// restart restarts a node. A process with one node is killed. A process with both
// nodes has their MemoryStore, so it continues: the node is closed with all its
// connections, and a new one takes its place.
func (s *soak) restart(node int) {
	if s.config.Nodes == 2 {
		resp, err := http.Post(fmt.Sprintf("http://%s/restart/%d", s.procs[0].at.Control, node), "", nil)
		if err != nil {
			s.t.Errorf("restarting node %d: %v", node, err)
			return
		}
		defer resp.Body.Close()
		addr, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			s.t.Errorf("restarting node %d: %s %v", node, addr, err)
		}
		s.proxies[node].Retarget(string(addr))
		return
	}
	if state, err := s.stateOf(s.procs[node]); err == nil {
		s.mu.Lock()
		s.reuses += state.Reuses
		s.mu.Unlock()
	}
	_ = s.procs[node].cmd.Process.Kill()
	_ = s.procs[node].cmd.Wait()
	p := s.start()
	s.mu.Lock()
	s.procs[node] = p
	s.mu.Unlock()
	s.proxies[node].Retarget(s.nodeAddr(node))
}

// restartServer kills the server of the store and starts it again. Without a server,
// it restarts both nodes at once.
func (s *soak) restartServer() {
	if s.server != nil {
		s.server.Kill()
		time.Sleep(s.config.Window / 5)
		s.server.Start()
		return
	}
	var wg sync.WaitGroup
	for node := range 2 {
		wg.Go(func() { s.restart(node) })
	}
	wg.Wait()
}

// run runs the users, and restarts the nodes and the server meanwhile.
func (s *soak) run(duration time.Duration) {
	begin := time.Now()
	s.began = begin
	after := func(part float64) <-chan time.Time {
		return time.After(time.Until(begin.Add(time.Duration(part * float64(duration)))))
	}
	stop := make(chan struct{})
	var load, others sync.WaitGroup
	users := make([]*user, *accounts)
	for i := range users {
		u := &user{soak: s, name: fmt.Sprintf("user-%d", i), source: fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250)}
		u.http = &http.Client{Timeout: answerLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
		for d := range devicesPerUser {
			u.devices = append(u.devices, &device{mode: mode((i + d) % 3), cookies: map[string]string{}})
		}
		users[i] = u
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(mathrand.Float64() * 2 * float64(meanPause))):
				}
				u.step()
			}
		})
	}
	others.Go(func() { // responses that are lost
		for {
			select {
			case <-stop:
				for _, p := range s.proxies {
					p.CutResponses(-1)
				}
				return
			case <-time.After(losePause):
			}
			for _, p := range s.proxies {
				p.CutResponses(mathrand.IntN(4096))
			}
		}
	})
	others.Go(func() { s.sampleUntil(stop, begin, max(duration/240, time.Second)) })
	if duration >= 10*time.Second {
		// The nodes restart before the second quarter, so that their memory in it and
		// in the last quarter can be compared.
		last := 0.55
		if s.server == nil {
			last = 0.22
		}
		for _, e := range []struct {
			at float64
			do func()
		}{
			{0.08, func() { s.restart(0) }},
			{0.15, func() { s.restart(1) }},
			{last, s.restartServer},
		} {
			<-after(e.at)
			s.disturb(e.do)
		}
	}
	<-after(1)
	close(stop)
	load.Wait()
	others.Wait()
	for _, u := range users {
		load.Go(u.check)
	}
	load.Wait()
	for _, u := range users {
		u.http.CloseIdleConnections()
	}
}

// disturb restarts something. Meanwhile 503 is no violation.
func (s *soak) disturb(do func()) {
	s.mu.Lock()
	i := len(s.restarts)
	s.restarts = append(s.restarts, period{from: time.Now()})
	s.mu.Unlock()
	do()
	s.mu.Lock()
	s.restarts[i].to = time.Now()
	s.mu.Unlock()
}

// disturbed reports whether there was a restart or a stall, or settleTime after it,
// between from and now.
func (s *soak) disturbed(from time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disturbedLocked(from)
}

func (s *soak) disturbedLocked(from time.Time) bool {
	return lastTouches(s.restarts, from) || lastTouches(s.stalls, from)
}

// lastTouches reports whether the last of ps, or settleTime after it, ends after from.
func lastTouches(ps []period, from time.Time) bool {
	return len(ps) > 0 && (ps[len(ps)-1].to.IsZero() || ps[len(ps)-1].to.Add(settleTime).After(from))
}

// stallLocked records that the machine was overloaded from a time until now.
func (s *soak) stallLocked(from time.Time) {
	now := time.Now()
	if n := len(s.stalls); n > 0 && !s.stalls[n-1].to.Before(from) {
		s.stalls[n-1].to = now
		return
	}
	s.stalls = append(s.stalls, period{from, now})
}

// stalled returns how long the machine was overloaded.
func (s *soak) stalled() (d time.Duration) {
	for _, p := range s.stalls {
		d += p.to.Sub(p.from)
	}
	return d
}

// violation records that something happened that must not happen.
func (s *soak) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violationLocked(format, args...)
}

func (s *soak) violationLocked(format string, args ...any) {
	if s.failed++; len(s.violations) < 20 {
		s.violations = append(s.violations, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
	}
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

func (s *soak) delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays = append(s.delays, d)
}

// record records a response, and what is wrong with it whatever was requested.
func (s *soak) record(kind string, r response) {
	took := time.Since(r.sent)
	s.mu.Lock()
	defer s.mu.Unlock()
	if took > stallTime && !lastTouches(s.restarts, r.sent) {
		s.stallLocked(r.sent)
	}
	if r.err != nil {
		s.counts["lost responses"]++
		return
	}
	s.latencies = append(s.latencies, took)
	s.counts["requests"]++
	s.statuses[r.status]++
	if r.status == http.StatusServiceUnavailable {
		if !s.disturbedLocked(r.sent) {
			s.violationLocked("%s: %s", kind, r)
		}
		if r.header.Get("Retry-After") == "" {
			s.violationLocked("%s: 503 without Retry-After", kind)
		}
	}
}
