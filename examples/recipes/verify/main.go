// Command verify is a service that only verifies access tokens. It fetches the
// public keys of the service that signs them, and needs neither users nor a
// secret. With -feed, it also refuses the access tokens of sessions that have
// ended.
//
//	go run ./examples/recipes/verify -issuer https://example.com -jwks https://example.com/auth/jwks.json
//
// The service that signs has a key pair as Config.AccessKeys, not Secrets, and the
// name of this service in its Config.Audience. To try it, start such a service in
// another terminal, and sign in there:
//
//	openssl genpkey -algorithm ed25519 -out key.pem
//	AUTH_SECRETS=$(openssl rand -base64 48) AUTH_ACCESS_KEYS=key.pem go run ./examples/recipes/rollingkeys
//	go run ./examples/recipes/verify -issuer https://rolling.example -audience https://rolling.example/api \
//		-jwks http://127.0.0.1:8080/auth/jwks.json -feed sessions.db
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
	"github.com/ratchet-go/auth/sqlitestore"
)

// options are the settings of the service.
type options struct{ addr, issuer, audience, jwks, feed string }

func main() {
	var o options
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8082", "`address` to listen on")
	flag.StringVar(&o.issuer, "issuer", "https://example.com", "the Issuer of the service that signs")
	flag.StringVar(&o.audience, "audience", "https://reports.example.com", "the name of this service, one of the Audience of the service that signs")
	flag.StringVar(&o.jwks, "jwks", "https://example.com/auth/jwks.json", "`URL` of the public keys; with https, except on a loopback address")
	flag.StringVar(&o.feed, "feed", "", "`file` with the sessions of the service that signs, on the same machine; empty means that ended sessions are accepted until the access token expires")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) error {
	logged := auth.LogEvents(slog.Default())
	keys, err := jwks.New(jwks.Config{URL: o.jwks, InsecureHTTP: onLoopback(o.jwks), OnEvent: logged})
	if err != nil {
		return err
	}
	go func() { _ = keys.Run(ctx) }() // fetches the keys ahead of time, so that no request waits for them

	c := auth.VerifierConfig{
		Issuer: o.issuer, Audience: []string{o.audience},
		Keys: keys, OnEvent: logged,
	}
	if o.feed != "" { // on several machines: the same redisstore or pgstore as the service that signs
		feed, err := sqlitestore.Open(o.feed, sqlitestore.Config{})
		if err != nil {
			return err
		}
		defer func() { _ = feed.Close() }()
		c.Feed = feed
	}
	v, err := auth.NewVerifier(c)
	if err != nil {
		return err
	}
	go func() { _ = v.Run(ctx) }() // follows the feed, if there is one
	select {
	case <-v.Ready():
	case <-ctx.Done():
		return nil
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(v), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func routes(v *auth.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /me", v.Require()(http.HandlerFunc(me)))
	mux.Handle("GET /reports", v.Require(auth.Role("admin"))(http.HandlerFunc(me)))
	return mux
}

func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": claims.Subject, "name": claims.Username})
}

// onLoopback reports whether a URL leads to this machine.
func onLoopback(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
