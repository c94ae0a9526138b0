// Package site is the application of the examples quickstart and durable: two
// users, a protected API, and a page that shows the state of its session.
package site

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
	"github.com/ratchet-go/auth/password"
)

// Options are the settings of the programs that run the application.
type Options struct {
	Name  string      // name of the program
	Addr  string      // address to listen on
	Auth  auth.Config // lifetimes, Hasher, proxies, keys and store
	Notes []string    // lines about keys and sessions for the greeting
}

// Flags defines the flags that set the address, the lifetimes, the costs of hashes
// and the networks of proxies.
func (o *Options) Flags() {
	flag.StringVar(&o.Addr, "addr", "127.0.0.1:8080", "`address` to listen on; cookies are Secure unless it is a loopback address")
	lifetime(&o.Auth.AccessTTL, "access-ttl", "lifetime of access tokens", "15m")
	lifetime(&o.Auth.IdleTTL, "idle-ttl", "how long a session lives without a refresh", "7 days")
	lifetime(&o.Auth.SessionTTL, "session-ttl", "maximum age of a session", "30 days")
	lifetime(&o.Auth.RetryWindow, "retry-window", "how long a spent refresh token is still accepted", "30s")
	lifetime(&o.Auth.Leeway, "leeway", "maximum difference between the clocks of several machines", "10s")

	// One Hasher for the program, so that one memory budget bounds all hashing.
	o.Auth.Hasher = &password.Hasher{}
	flag.Func("hash", "`costs` of new password hashes: KiB of memory, passes and threads (default m=19456,t=2,p=1)", func(text string) error {
		h := o.Auth.Hasher
		_, err := fmt.Sscanf(text, "m=%d,t=%d,p=%d", &h.Memory, &h.Time, &h.Threads)
		return err
	})
	flag.Int64Var(&o.Auth.Hasher.Budget, "hash-budget", 0, "memory of all hashes together, in `bytes`; 0 means the default of package password")
	flag.Func("proxy", "`network` of a proxy whose X-Forwarded-For is trusted, such as 10.0.0.0/8; may be repeated", func(text string) error {
		p, err := netip.ParsePrefix(text)
		o.Auth.TrustedProxies = append(o.Auth.TrustedProxies, p)
		return err
	})
}

// lifetime defines a flag for a duration. Package auth sets the default for zero.
func lifetime(p *time.Duration, name, usage, def string) {
	flag.DurationVar(p, name, 0, usage+", such as 90s or 12h; 0 means the default, "+def)
}

// ParseFlags parses the command line. It exits with status 2 if there is an argument
// that no flag takes.
func ParseFlags() {
	flag.Parse()
	if flag.NArg() > 0 {
		_, _ = fmt.Fprintf(flag.CommandLine.Output(), "unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
}

// sessionTTL and retryWindow return the lifetimes with the defaults of package auth.
func (o *Options) sessionTTL() time.Duration {
	return cmp.Or(o.Auth.SessionTTL, 30*24*time.Hour)
}

func (o *Options) retryWindow() time.Duration {
	return max(0, cmp.Or(o.Auth.RetryWindow, 30*time.Second)) // negative: none
}

// Run serves the application until ctx is done.
func Run(ctx context.Context, o Options) error {
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }()

	// The settings that every application has to choose.
	c := o.Auth
	loopback := isLoopback(ln.Addr())
	base := "https://quickstart.example"
	if loopback {
		base = "http://" + ln.Addr().String() // InsecureHTTP and an https issuer contradict each other
	}
	c.Issuer = base
	if loopback && c.Store != nil {
		c.Issuer = "http://quickstart.localhost" // the sessions stay valid at another address
	}
	c.Audience = []string{c.Issuer + "/api"}
	if c.Users, err = newUsers(ctx, c.Hasher); err != nil {
		return err
	}
	c.Cookies = &auth.Cookies{
		AllowBody:    true,     // the curl commands get their tokens in the body
		InsecureHTTP: loopback, // no other machine can intercept loopback traffic
	}
	c.OnEvent = auth.LogEvents(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	a, err := auth.New(c) // the error lists every mistake
	if err != nil {
		return err
	}

	// Clients with a library for OAuth 2.0 refresh and revoke their tokens here.
	clients, err := oauth.Handler(a, oauth.Config{URL: base + "/oauth"})
	if err != nil {
		return err
	}

	// With a store that several processes share, Run follows the revocations of
	// the others. No access token is accepted before it has read them. With a
	// store in memory, Run has nothing to do.
	runCtx, stopRun := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = a.Run(runCtx)
	}()
	defer func() {
		stopRun()
		<-stopped
	}()
	select {
	case <-a.Ready():
	case <-ctx.Done():
		return nil
	}

	// Shutdown waits for open requests, so it must end the streams.
	streams, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	srv := &http.Server{
		Handler:           routes(streams, a, clients, o),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second, // the handler events extends it
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

// isLoopback reports whether only this machine can reach addr, the address that the
// server listens on.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
