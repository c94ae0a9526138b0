// Command quickstart is a whole application around package auth: two users, a
// protected API, and a page that shows its own session at work.
//
//	go run ./examples/quickstart
//
// It prints where it listens, who can sign in, and a transcript of curl
// commands to paste. ACCESS_SECRET and REFRESH_SECRET, at least 32 bytes each,
// are the keys; without them it makes random ones, which end with it.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; cookies are Secure unless it is a loopback one")
	var c auth.Config
	lifetime(&c.AccessTTL, "access-ttl", "lifetime of access tokens", "15m")
	lifetime(&c.IdleTTL, "idle-ttl", "end of a session that is not refreshed for so long", "7 days")
	lifetime(&c.SessionTTL, "session-ttl", "end of a session so long after its login", "30 days")
	lifetime(&c.RetryWindow, "retry-window", "how long the answer to a refresh may be asked for again", "10s")
	lifetime(&c.Leeway, "leeway", "how far the clocks of several machines may be apart", "10s")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *addr, c); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: %v\n", err)
		os.Exit(1)
	}
}

// lifetime defines a flag. Zero is left to package auth.
func lifetime(p *time.Duration, name, usage, def string) {
	flag.DurationVar(p, name, 0, usage+", as 90s or 12h; 0 means the default, "+def)
}

func run(ctx context.Context, addr string, c auth.Config) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	random, err := setKeys(&c, os.LookupEnv)
	if err != nil {
		return err
	}

	// What an application decides. A secret of one kind of token is never that
	// of the other; Config.Secrets would derive both from one.
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

	// New tells every mistake at once. Store is nil, so sessions are kept in
	// memory and end with the program. With a store that processes share,
	// a.Run(ctx) would have to follow their revocations in a goroutine; with
	// this one there is nothing to follow.
	a, err := auth.New(c)
	if err != nil {
		return err
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

	greet(os.Stdout, ln.Addr(), random)
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

// setKeys takes the keys from the environment, or makes random ones if it has
// neither. One alone is a mistake, and so is an empty one: half a
// configuration must not silently become another one.
func setKeys(c *auth.Config, lookup func(string) (string, bool)) (random bool, err error) {
	access, hasAccess := lookup("ACCESS_SECRET")
	refresh, hasRefresh := lookup("REFRESH_SECRET")
	if !hasAccess && !hasRefresh {
		access, refresh, random = rand.Text()+rand.Text(), rand.Text()+rand.Text(), true // 260 bits each
	}
	var errs []error
	for _, v := range [][2]string{{"ACCESS_SECRET", access}, {"REFRESH_SECRET", refresh}} {
		if v[1] == "" {
			errs = append(errs, fmt.Errorf("%s is missing: set both ACCESS_SECRET and REFRESH_SECRET, or neither", v[0]))
		}
	}
	c.AccessKeys = auth.Keys{auth.HS256([]byte(access))}
	c.RefreshKeys = auth.Keys{auth.HS256([]byte(refresh))}
	return random, errors.Join(errs...)
}

// isLoopback reports whether only this machine can reach addr. It looks at the
// address that was bound, not at the name that was asked for.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
