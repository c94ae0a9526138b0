// Package site is the application of the examples quickstart and durable: two
// users, a protected API, and a page that shows its own session at work.
package site

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// Options are what the programs around the application decide.
type Options struct {
	Name  string      // of the program
	Addr  string      // to listen on
	Auth  auth.Config // lifetimes, keys, and where sessions are kept
	Notes []string    // what the greeting says of keys and sessions
}

// Flags defines the flags that set the address and the lifetimes.
func (o *Options) Flags() {
	flag.StringVar(&o.Addr, "addr", "127.0.0.1:8080", "`address` to listen on; cookies are Secure unless it is a loopback one")
	lifetime(&o.Auth.AccessTTL, "access-ttl", "lifetime of access tokens", "15m")
	lifetime(&o.Auth.IdleTTL, "idle-ttl", "end of a session that is not refreshed for so long", "7 days")
	lifetime(&o.Auth.SessionTTL, "session-ttl", "end of a session so long after its login", "30 days")
	lifetime(&o.Auth.RetryWindow, "retry-window", "how long the answer to a refresh may be asked for again", "10s")
	lifetime(&o.Auth.Leeway, "leeway", "how far the clocks of several machines may be apart", "10s")
}

// lifetime defines a flag. Zero is left to package auth.
func lifetime(p *time.Duration, name, usage, def string) {
	flag.DurationVar(p, name, 0, usage+", as 90s or 12h; 0 means the default, "+def)
}

// Run serves the application until ctx ends.
func Run(ctx context.Context, o Options) error {
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }()

	// What an application decides.
	c := o.Auth
	c.Issuer = "https://quickstart.example"
	c.Audience = []string{"https://quickstart.example/api"}
	c.Hasher = &password.Hasher{} // one for all, so that one budget of memory bounds all
	if c.Users, err = newUsers(ctx, c.Hasher); err != nil {
		return err
	}
	c.Cookies = &auth.Cookies{
		AllowBody:    true,                  // curl asks for its tokens in the body
		InsecureHTTP: isLoopback(ln.Addr()), // nobody else can listen there
	}
	c.OnEvent = auth.LogEvents(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	a, err := auth.New(c) // tells every mistake at once
	if err != nil {
		return err
	}

	// With a store that processes share, Run follows the revocations of the
	// others, and nobody's token is good before it has read them. With the one
	// in memory there is nothing to follow.
	following, unfollow := context.WithCancel(context.Background())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_ = a.Run(following)
	}()
	defer func() {
		unfollow()
		<-followed
	}()
	select {
	case <-a.Ready():
	case <-ctx.Done():
		return nil
	}

	// Streams are told to end when the server is, or it would wait for them.
	streams, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	srv := &http.Server{
		Handler:           routes(streams, a),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second, // events pushes it on
		IdleTimeout:       time.Minute,
	}
	srv.RegisterOnShutdown(endStreams)

	greet(os.Stdout, ln.Addr(), o)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// isLoopback reports whether only this machine can reach addr. It looks at the
// address that was bound, not at the name that was asked for.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
