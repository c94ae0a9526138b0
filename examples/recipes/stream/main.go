// Command stream sends server-sent events and WebSocket messages to a signed-in
// user, and ends both when the session ends.
//
//	go run ./examples/recipes/stream
//
// Open the page that it prints in two tabs, or in two browsers, and sign out in one.
// The page authenticates by cookie, because EventSource and WebSocket cannot set
// headers. The same page at /ticket has no cookies: it keeps its tokens in memory, as
// a page of another origin would, and gets a ticket for each stream. A program can
// also send its access token in the header Authorization.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

//go:embed page.html
var page []byte

const (
	pingEvery = 20 * time.Second // less than the idle timeout of any proxy in between
	pongAfter = 10 * time.Second // a client that takes longer is lost
)

// closeSession is the close code for a session that has ended. Its reason is the
// action that the client takes: "login" or "refresh". The codes from 4000 on are for
// private use (RFC 6455 section 7.4.2). Libraries and proxies send 1008 (policy
// violation) for other reasons too, so a client could not rely on it.
const closeSession websocket.StatusCode = 4401

// streams serves both kinds of streams.
type streams struct {
	*auth.Authenticator
	shutdown context.Context // done when the server shuts down
	sockets  *sync.WaitGroup // the open WebSockets, for which Server.Shutdown does not wait
}

// events serves server-sent events.
func (s streams) events(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	session, cancel := s.SessionContext(r.Context(), claims) // also done when the client disconnects
	defer cancel()
	defer slog.Info("events closed", "session", claims.SessionID)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx must not hold events back
	conn := http.NewResponseController(w)
	send := func(text string) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(pongAfter)) // in place of the server's WriteTimeout
		_, err := fmt.Fprint(w, text+"\n\n")
		return err == nil && conn.Flush() == nil
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for ok := send("event: hello\ndata: " + claims.Username); ok; {
		select {
		case <-ping.C:
			ok = send(": ping") // a comment, which EventSource ignores
		case <-s.shutdown.Done():
			return // EventSource connects again
		case <-session.Done():
			if action := auth.ResponseFor(context.Cause(session)).Action; action != "" {
				send("event: end\ndata: " + action)
			}
			return // without an action, EventSource connects again
		}
	}
}

// socket serves a WebSocket. Accept hijacks the connection, so net/http no longer
// watches it: r.Context() is canceled only when socket returns.
func (s streams) socket(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	session, cancel := s.SessionContext(r.Context(), claims)
	defer cancel()
	s.sockets.Add(1) // before Accept: until then, Shutdown waits for this request
	defer s.sockets.Done()
	conn, err := websocket.Accept(w, r, nil) // for origins other than the host's own, set OriginPatterns
	if err != nil {
		return // Accept has written the response
	}
	defer slog.Info("socket closed", "session", claims.SessionID)
	defer func() { _ = conn.CloseNow() }()
	// Neither reads nor writes use session: if the context of a read or a write is
	// canceled, websocket closes the connection without a close code.
	client := conn.CloseRead(r.Context()) // canceled when the client disconnects
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for err = within(client, func(ctx context.Context) error {
		return conn.Write(ctx, websocket.MessageText, []byte("hello "+claims.Username))
	}); err == nil; {
		select {
		case <-ping.C:
			err = within(client, conn.Ping) // waits for the pong
		case <-client.Done():
			return
		case <-s.shutdown.Done():
			_ = conn.Close(websocket.StatusGoingAway, "") // the client connects again
			return
		case <-session.Done():
			if action := auth.ResponseFor(context.Cause(session)).Action; action != "" {
				_ = conn.Close(closeSession, action)
			} else {
				_ = conn.Close(websocket.StatusTryAgainLater, "") // ErrUnavailable: a revocation may have been missed
			}
			return
		}
	}
}

// within calls f with a context that ends after pongAfter.
func within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, pongAfter)
	defer cancel()
	return f(ctx)
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "loopback `address` to listen on")
	accessTTL := flag.Duration("access-ttl", 0, "lifetime of access tokens; 0 means 15 minutes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *accessTTL); err != nil {
		log.Fatal("stream: ", err)
	}
}

func run(ctx context.Context, addr string, accessTTL time.Duration) error {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		return err
	}
	a, err := auth.New(auth.Config{
		Issuer: "http://stream.localhost", Audience: []string{"http://stream.localhost"},
		// Without AUTH_SECRET, a restart signs all users out.
		Secrets:   [][]byte{[]byte(cmp.Or(os.Getenv("AUTH_SECRET"), rand.Text()+rand.Text()))},
		Users:     users{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		Cookies:   &auth.Cookies{InsecureHTTP: true, AllowBody: true}, // InsecureHTTP: only on a loopback address
		AccessTTL: accessTTL,
		Leeway:    -1, // a single process has a single clock
		OnEvent:   auth.LogEvents(slog.Default()),
	})
	if err != nil {
		return err
	}
	shutdown, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	s := streams{a, shutdown, &sync.WaitGroup{}}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	// They accept a cookie, whose origin they check, an access token, or a ticket.
	mux.Handle("GET /events", a.RequireStream()(http.HandlerFunc(s.events)))
	mux.Handle("GET /socket", a.RequireStream()(http.HandlerFunc(s.socket)))
	show := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }
	mux.HandleFunc("GET /{$}", show)
	mux.HandleFunc("GET /ticket", show)
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	server.RegisterOnShutdown(endStreams) // Shutdown waits for events, but does not end them

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	err = <-stopped
	s.sockets.Wait()
	return err
}

// users has a single user. An application looks its users up in its database.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
