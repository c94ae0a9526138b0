package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// demoPassword is the password of every user.
const demoPassword = "correct-horse-battery-staple"

// nodeSetup is the configuration of a node, which it reads from its standard input.
// All nodes have the same store and the same secret.
type nodeSetup struct {
	File, URL string // of the store; one of them is empty
	Secret    string
}

// serveNode runs a node until in is closed.
func serveNode(in io.Reader, out io.Writer) error {
	var setup nodeSetup
	if err := json.NewDecoder(in).Decode(&setup); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // exit when the input is closed
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	store, _, err := openStore(ctx, location{setup.File, setup.URL})
	if err != nil {
		return err
	}
	hasher := &password.Hasher{}
	hash, err := hasher.Hash(ctx, demoPassword)
	if err != nil {
		return err
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://fleet.example", Audience: []string{"https://fleet.example/api"},
		Secrets: [][]byte{[]byte(setup.Secret)},
		Users:   users{hash}, Hasher: hasher, Store: store,
		OnEvent: func(ctx context.Context, e auth.Event) {
			if e.Type == auth.EventFault || e.Type == auth.EventStale || e.Type == auth.EventReuse {
				auth.LogEvents(slog.Default())(ctx, e)
			}
		},
	})
	if err != nil {
		return err
	}
	go func() { _ = a.Run(ctx) }() // follows the revocations of the other nodes
	select {
	case <-a.Ready():
	case <-time.After(10 * time.Second):
		return errors.New("the store's feed was not read within 10 seconds")
	}

	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(me)))
	mux.Handle("GET /stream", a.Require()(stream(a)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", ln.Addr())
	return (&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}).Serve(ln)
}

func me(w http.ResponseWriter, r *http.Request) {
	c, _ := auth.FromContext(r.Context())
	fmt.Fprintf(w, "%s, session %s, served by pid %d\n", c.Username, c.SessionID, os.Getpid())
}

// stream streams until the session ends, on any node.
func stream(a *auth.Authenticator) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		ctx, cancel := a.SessionContext(r.Context(), c)
		defer cancel()
		fmt.Fprintln(w, "open")
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), auth.ErrSessionRevoked) {
			fmt.Fprintln(w, "session has ended")
		}
	}
}

// users is an auth.Users with the users user-1, user-2 and so on.
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
