// Command nodes is one node of a server that runs as several processes on one
// store. Start it twice, with the same secret and the same store:
//
//	export AUTH_SECRET=$(openssl rand -base64 48)
//	go run ./examples/recipes/nodes -addr 127.0.0.1:8080
//	go run ./examples/recipes/nodes -addr 127.0.0.1:8081
//
// The sessions are in an SQLite file, which serves one machine. For several
// machines, set -store to the URL of a Redis or PostgreSQL server. The user is
// ada, with the password "correct horse battery staple".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	store := flag.String("store", "sessions.db", "an SQLite `file`, or a URL such as redis://HOST:PORT/DB or postgres://USER@HOST:PORT/DB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *addr, *store)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr, where string) error {
	secret := os.Getenv("AUTH_SECRET")
	if secret == "" {
		return errors.New("set AUTH_SECRET, to the same value for every node: AUTH_SECRET=$(openssl rand -base64 48)")
	}
	store, closeStore, err := openStore(ctx, where)
	if err != nil {
		return err
	}
	defer closeStore()
	us, err := newUsers()
	if err != nil {
		return err
	}
	a, err := auth.New(auth.Config{ // the same in every node
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte(secret)},
		Users:   us,
		Store:   store,
		OnEvent: auth.LogEvents(slog.Default()),
	})
	if err != nil {
		return err
	}

	// Run reads the revocations of the other nodes. Until it has read those that
	// exist, protected requests get 503, so the node listens only afterwards.
	runCtx, stopRun := context.WithCancel(context.Background())
	defer stopRun()
	go func() { _ = a.Run(runCtx) }()
	select {
	case <-a.Ready():
	case <-ctx.Done():
		return nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done(): // a rolling restart: finish the requests, and follow the feed until then
	}
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return server.Shutdown(limit)
}

func routes(a *auth.Authenticator) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(me)))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { health(w, a.Health()) })
	return mux
}

func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": claims.Username, "node": os.Getpid()})
}

// health is for the load balancer and for monitoring. An old feed is no reason to
// stop the node: if the store does not respond, all nodes are in the same state,
// and they still serve the users who are signed in.
func health(w http.ResponseWriter, h auth.Health) {
	w.Header().Set("Content-Type", "application/json")
	if !h.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": h.Ready, "feed_age_seconds": h.FeedAge.Seconds()})
}
