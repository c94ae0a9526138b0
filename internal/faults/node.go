// Package faults plays faults against an application that runs in several
// processes on one store: real processes, real servers, real connections.
// Every store with a server runs the same plays.
package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// nodeEnv holds the configuration of a child process.
const nodeEnv = "AUTH_FAULTS_NODE"

type nodeConfig struct {
	DSN          string
	Window       time.Duration
	StoreTimeout time.Duration
}

// Main runs the tests, or, in a process that they started, a node of the
// application on the store that open returns. TestMain calls it.
func Main(m *testing.M, open func(dsn string) (auth.Store, error)) {
	text := os.Getenv(nodeEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c nodeConfig
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = serve(c, open)
	}
	fmt.Println("node:", err)
	os.Exit(1)
}

// people is a lookup in which everybody exists.
type people struct{}

func (people) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (people) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: id, Roles: []string{"user"}}, nil
}

// state is what a node tells of itself.
type state struct {
	Goroutines int
	Ready      bool
	Age        time.Duration
	Events     map[auth.EventType]int
}

// serve runs a node until the process is killed or its parent is gone.
func serve(c nodeConfig, open func(dsn string) (auth.Store, error)) error {
	store, err := open(c.DSN)
	if err != nil {
		return err
	}
	var ahead atomic.Int64 // of the machine's clock
	var mu sync.Mutex
	events := map[auth.EventType]int{}
	a, err := auth.New(auth.Config{
		Issuer: "https://node.example", Audience: []string{"https://node.example"},
		Secrets: [][]byte{[]byte("faults-and-their-nodes-share-this-secret-of-tests")},
		Users:   people{}, Store: store, RetryWindow: c.Window, StoreTimeout: c.StoreTimeout,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		OnEvent: func(_ context.Context, e auth.Event) {
			mu.Lock()
			defer mu.Unlock()
			events[e.Type]++
			if e.Type == auth.EventFault && events[e.Type] < 20 || e.Type == auth.EventReuse {
				fmt.Println(e.Type, e.Err, e.Session.ID, e.Generation)
			}
		},
	})
	if err != nil {
		return err
	}
	go func() { _ = a.Run(context.Background()) }()

	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := a.Start(r.Context(), r.FormValue("user"), auth.SignIn{Device: a.Device(r)})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.WriteTokens(w, tokens, false)
	})
	mux.HandleFunc("POST /everything", func(w http.ResponseWriter, r *http.Request) {
		if err := a.RevokeAll(r.Context(), r.FormValue("user")); err != nil {
			a.WriteError(w, r, err)
		}
	})
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /stream", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		ctx, cancel := a.SessionContext(r.Context(), claims)
		defer cancel()
		_, _ = fmt.Fprintln(w, "open")
		_ = http.NewResponseController(w).Flush()
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), auth.ErrSessionRevoked) {
			_, _ = fmt.Fprintln(w, "revoked")
		}
	})))
	mux.HandleFunc("POST /clock", func(_ http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.FormValue("ahead"))
		ahead.Add(int64(d))
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		h := a.Health()
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(state{runtime.NumGoroutine(), h.Ready, h.Age, events})
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listens + ln.Addr().String())
	go func() { // the parent holds the other end
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: nil}).Serve(ln)
}

// listens begins the line that tells a node's address.
const listens = "listens on "

// listening returns the address in a node's output, or "".
func listening(out string) string {
	_, rest, ok := strings.Cut(out, listens)
	line, _, whole := strings.Cut(rest, "\n")
	if !ok || !whole {
		return ""
	}
	return line
}
