// Package faults tests an application that runs in several processes on one
// store while faults are injected: servers are killed and hung, connections
// are closed, nodes are paused. The processes, the servers and the connections
// are real. Every store that has a server runs the same scenarios.
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

// nodeEnv is the environment variable that holds the configuration of a node.
const nodeEnv = "AUTH_FAULTS_NODE"

// oneTimePurpose is the purpose of the one-time tokens of the nodes.
const oneTimePurpose = "play"

type nodeConfig struct {
	DSN          string
	Window       time.Duration
	StoreTimeout time.Duration
}

// Main is called by TestMain. It runs the tests or, in a process that the
// tests started, a node of the application on the store that open returns.
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

// users is an auth.Users in which every ID exists.
type users struct{}

func (users) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (users) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: id, Roles: []string{"user"}}, nil
}

// nodeState is the response of a node to GET /state.
type nodeState struct {
	Goroutines int
	Ready      bool
	Age        time.Duration
	Events     map[auth.EventType]int
}

// serve runs a node until the process is killed or its parent exits.
func serve(c nodeConfig, open func(dsn string) (auth.Store, error)) error {
	store, err := open(c.DSN)
	if err != nil {
		return err
	}
	var ahead atomic.Int64 // how far the node's clock is ahead of the machine's
	var mu sync.Mutex
	events := map[auth.EventType]int{}
	a, err := auth.New(auth.Config{
		Issuer: "https://node.example", Audience: []string{"https://node.example"},
		Secrets: [][]byte{[]byte("faults-and-their-nodes-share-this-secret-of-tests")},
		Users:   users{}, Store: store, RetryWindow: c.Window, StoreTimeout: c.StoreTimeout,
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
		o := auth.SessionOptions{Device: a.Device(r), Actor: r.FormValue("actor"), Data: []byte(r.FormValue("data"))}
		if r.FormValue("own") != "" {
			o.AMR, o.Ephemeral, o.IdleTTL, o.SessionTTL = []string{"otp"}, true, ownIdleTTL, ownSessionTTL
		}
		tokens, err := a.StartSession(r.Context(), r.FormValue("user"), o)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.WriteTokens(w, tokens, false)
	})
	mux.Handle("POST /continue", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		tokens, err := a.Continue(r.Context(), claims, auth.SessionOptions{Device: a.Device(r), Data: []byte(r.FormValue("data"))})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.WriteTokens(w, tokens, false)
	})))
	mux.HandleFunc("POST /revoke-all", func(w http.ResponseWriter, r *http.Request) {
		if err := a.RevokeAll(r.Context(), r.FormValue("user")); err != nil {
			a.WriteError(w, r, err)
		}
	})
	mux.HandleFunc("POST /issue", func(w http.ResponseWriter, r *http.Request) {
		token, err := a.IssueOneTime(r.Context(), auth.OneTime{Purpose: oneTimePurpose, Subject: r.FormValue("user"), TTL: 24 * time.Hour})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	})
	mux.HandleFunc("POST /spend", func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.SpendOneTime(r.Context(), oneTimePurpose, r.FormValue("token"), a.Device(r)); err != nil {
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
		_ = json.NewEncoder(w).Encode(nodeState{runtime.NumGoroutine(), h.Ready, h.FeedAge, events})
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(addrPrefix + ln.Addr().String())
	go func() { // the parent holds the other end of stdin
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: nil}).Serve(ln)
}

// addrPrefix begins the line in which a node prints its address.
const addrPrefix = "listens on "

// nodeAddr returns the address in the output of a node, or "".
func nodeAddr(out string) string {
	_, after, found := strings.Cut(out, addrPrefix)
	line, _, complete := strings.Cut(after, "\n")
	if !found || !complete {
		return ""
	}
	return line
}
