package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

// TestMain is also the main function of the nodes.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // all stores at once, on any number of processors
	testserver.RunMain(m, func() {
		if err := serveNodes(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
	})
}

// nodesConfig is the configuration of a process, which it reads from its standard
// input.
type nodesConfig struct {
	Store, DSN           string
	Nodes                int // in this process; more than one only on a MemoryStore
	Window, Access       time.Duration
	Idle, Session        time.Duration
	Secret, PasswordHash string
}

// hasher returns the hasher of the nodes, which is cheap: it is not what is tested.
func hasher() *password.Hasher { return &password.Hasher{Memory: 64, Time: 1, Queue: 1024} }

// leeway is Config.Leeway of the nodes, which run on one machine.
const leeway = time.Second

// tokenCacheSize is Config.TokenCacheSize of the nodes. The cache keeps tokens that
// have expired until others replace them. With the default size it would be full, and
// the memory of a node constant, only after an hour.
const tokenCacheSize = 1024

// processState is the response of a process to GET /state.
type processState struct {
	Heap        float64 // bytes in use after a garbage collection
	RSS         float64 // bytes; 0 if the system has no /proc
	Goroutines  float64
	Files       float64 // open file descriptors; 0 if the system has no /proc
	Revocations float64 // entries in memory
	Reuses      int     // EventReuse so far
	Faults      []fault // since the last request
}

// fault is an EventFault.
type fault struct {
	At   time.Time
	Text string
}

// nodes are the nodes of a process.
type nodes struct {
	config nodesConfig
	store  auth.Store

	mu      sync.Mutex
	running []*runningNode
	reuses  int
	faults  []fault
}

type runningNode struct {
	auth   *auth.Authenticator
	server *http.Server
	addr   string
	end    func() // ends the node, and waits until Run has returned
}

// serveNodes runs nodes until in is closed.
func serveNodes(in io.Reader, out io.Writer) error {
	logging.Disable() // the events report the same errors
	reader := bufio.NewReader(in)
	var n nodes
	if err := json.NewDecoder(reader).Decode(&n.config); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, reader)
		os.Exit(0)
	}()
	var err error
	if n.store, err = openStore(n.config); err != nil {
		return err
	}
	n.running = make([]*runningNode, n.config.Nodes)
	addrs := make([]string, n.config.Nodes)
	for i := range n.running {
		if addrs[i], err = n.start(i); err != nil {
			return err
		}
	}
	control := http.NewServeMux()
	control.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(n.state()) })
	control.HandleFunc("POST /restart/{i}", func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.PathValue("i"))
		if err == nil {
			n.running[i].end()
			addrs[i], err = n.start(i)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, addrs[i])
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(started{ln.Addr().String(), addrs}); err != nil {
		return err
	}
	return (&http.Server{Handler: control, ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
}

// started is the line that a process writes when its nodes are ready.
type started struct {
	Control string
	Nodes   []string
}

// openStore opens the store of a process.
func openStore(c nodesConfig) (auth.Store, error) {
	switch c.Store {
	case "Redis":
		o, err := redis.ParseURL(c.DSN)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled = true
		return redisstore.New(redis.NewClient(o), redisstore.Config{})
	case "PostgreSQL":
		pool, err := pgxpool.New(context.Background(), c.DSN)
		if err != nil {
			return nil, err
		}
		s, err := pgstore.New(pool, pgstore.Config{})
		if err == nil {
			err = s.Migrate(context.Background())
		}
		return s, err
	case "SQLite":
		return sqlitestore.Open(c.DSN, sqlitestore.Config{})
	}
	return auth.NewMemoryStore(), nil
}

// start starts the node i, and returns its address once it is ready.
func (n *nodes) start(i int) (addr string, err error) {
	a, err := auth.New(auth.Config{
		Issuer: "https://soak.example", Audience: []string{"https://soak.example"},
		Secrets: [][]byte{[]byte(n.config.Secret)},
		Users:   users{n.config.PasswordHash}, Hasher: hasher(), Store: n.store,
		Cookies:   &auth.Cookies{AllowBody: true},
		AccessTTL: n.config.Access, IdleTTL: n.config.Idle, SessionTTL: n.config.Session,
		RetryWindow: n.config.Window, Leeway: leeway, StoreTimeout: storeTimeout,
		TokenCacheSize: tokenCacheSize,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		OnEvent: func(_ context.Context, e auth.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			switch {
			case e.Type == auth.EventReuse:
				n.reuses++
			case e.Type == auth.EventFault && len(n.faults) < 100:
				n.faults = append(n.faults, fault{time.Now(), e.Err.Error()})
			}
		},
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	select {
	case <-a.Ready():
	case <-time.After(startTimeout):
		cancel()
		return "", errors.New("the feed was not read in time")
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "%s %s", c.Subject, c.SessionID)
	})))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return "", err
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	wg.Go(func() { _ = s.Serve(ln) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running[i] = &runningNode{a, s, ln.Addr().String(), func() {
		_ = s.Close()
		cancel()
		wg.Wait()
	}}
	return ln.Addr().String(), nil
}

func (n *nodes) state() processState {
	n.mu.Lock()
	s := processState{Reuses: n.reuses, Faults: n.faults}
	n.faults = nil
	for _, r := range n.running {
		s.Revocations += float64(r.auth.Health().Revocations)
	}
	n.mu.Unlock()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Goroutines = float64(m.HeapAlloc), float64(runtime.NumGoroutine())
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.Files = float64(len(files))
	}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.Atoi(fields[1])
			s.RSS = float64(pages * os.Getpagesize())
		}
	}
	return s
}

// users is an auth.Users in which every name that begins with user- exists, and has
// the same password.
type users struct{ hash string }

func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.FindByID(ctx, login)
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if !strings.HasPrefix(id, "user-") {
		return auth.User{}, auth.ErrUserNotFound
	}
	return auth.User{ID: id, Username: id, PasswordHash: u.hash}, nil
}
