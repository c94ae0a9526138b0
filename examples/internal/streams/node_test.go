package streams

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

const pass = "correct horse battery staple"

// closeSession is the close code of the recipe stream.
const closeSession websocket.StatusCode = 4401

// connectors start the server of a store, and return a function that connects to it.
var connectors = map[string]func(t *testing.T) (connect func() auth.Store){
	"memory": func(*testing.T) func() auth.Store {
		s := auth.NewMemoryStore() // two Authenticators in one process
		return func() auth.Store { return s }
	},
	"SQLite": func(t *testing.T) func() auth.Store {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		return func() auth.Store {
			s, err := sqlitestore.Open(filepath.Join(dir, "sessions.db"), sqlitestore.Config{})
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
	},
	"Redis": func(t *testing.T) func() auth.Store {
		addr := testserver.Redis(t).Addr
		return func() auth.Store {
			client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
			t.Cleanup(func() { _ = client.Close() })
			s, err := redisstore.New(client, redisstore.Config{})
			require.NoError(t, err)
			return s
		}
	},
	"PostgreSQL": func(t *testing.T) func() auth.Store {
		addr := testserver.Postgres(t).Addr
		return func() auth.Store {
			pool, err := pgxpool.New(context.Background(), "postgres://postgres@"+addr+"/postgres?sslmode=disable")
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			s, err := pgstore.New(pool, pgstore.Config{})
			require.NoError(t, err)
			require.NoError(t, s.Migrate(context.Background()))
			return s
		}
	},
}

// accounts is a user lookup in which every name is a user with the password pass.
type accounts struct{ hash string }

func (u accounts) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.FindByID(ctx, login)
}

func (u accounts) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: id, PasswordHash: u.hash}, nil
}

// node is an Authenticator behind an HTTP server, with the streams that are open.
type node struct {
	*auth.Authenticator
	url string

	mu      sync.Mutex
	streams map[chan string]bool
}

// newNode starts a node. Its access tokens live for two seconds.
func newNode(t *testing.T, store auth.Store) *node {
	t.Helper()
	hasher := &password.Hasher{Memory: 64, Time: 1} // cheap: it is not what is tested
	hash, err := hasher.Hash(t.Context(), pass)
	require.NoError(t, err)
	a, err := auth.New(auth.Config{
		Issuer: "http://streams.localhost", Audience: []string{"http://streams.localhost"},
		Secrets: [][]byte{[]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")},
		Users:   accounts{hash}, Hasher: hasher, Store: store,
		Cookies:   &auth.Cookies{InsecureHTTP: true, AllowBody: true},
		AccessTTL: 2 * time.Second, Leeway: -1,
		OnEvent: func(context.Context, auth.Event) {},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = a.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	<-a.Ready()

	n := &node{Authenticator: a, streams: map[chan string]bool{}}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("/api/", http.StripPrefix("/api", a.RequireStream()(http.HandlerFunc(n.stream))))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	n.url = server.URL
	return n
}

// stream sends the name of the user and what send sends, until the session ends.
func (n *node) stream(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	session, cancel := n.SessionContext(r.Context(), claims)
	defer cancel()
	messages := make(chan string, 4)
	messages <- "hello " + claims.Username
	n.mu.Lock()
	n.streams[messages] = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.streams, messages)
	}()

	client := r.Context()
	var write func(text string) error
	var end func(action string)
	if r.Header.Get("Upgrade") != "" {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // RequireStream has checked the origin
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		client = conn.CloseRead(client)
		write = func(text string) error { return conn.Write(client, websocket.MessageText, []byte(text)) }
		end = func(action string) { _ = conn.Close(closeSession, action) }
	} else {
		w.Header().Set("Content-Type", "text/event-stream")
		write = func(text string) error {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", text)
			return http.NewResponseController(w).Flush()
		}
		end = func(action string) { _ = write("end: " + action) }
	}
	for {
		select {
		case text := <-messages:
			if write(text) != nil {
				return
			}
		case <-client.Done():
			return
		case <-session.Done():
			end(auth.ResponseFor(context.Cause(session)).Action)
			return
		}
	}
}

// send sends a text to all streams of the node.
func (n *node) send(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for messages := range n.streams {
		messages <- text
	}
}
