// Command tutorial plays the contracts of two well-known articles on JSON Web
// Tokens, each with its own [auth.Authenticator]: tokens in cookies (cookies.go)
// and tokens in bodies (bodies.go). A client that was written for an article works
// with it unchanged, except where the article has a vulnerability. README.md
// lists the statements of both contracts, and every deviation with its reason.
//
//	SECRET_KEY=$(openssl rand -base64 48) REFRESH_SECRET_KEY=$(openssl rand -base64 48) go run ./examples/tutorial
//
// It prints its URL, the users, and commands to try.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// command starts the program with random secrets.
const command = "SECRET_KEY=$(openssl rand -base64 48) REFRESH_SECRET_KEY=$(openssl rand -base64 48) go run ./examples/tutorial"

// options has the settings of both APIs.
type options struct {
	addr, origin, redis string
	queryToken          bool
	accessKeys          auth.Keys // SECRET_KEY
	refreshKeys         auth.Keys // REFRESH_SECRET_KEY
	users               *users
	hasher              *password.Hasher // one, so that its memory limit applies to both
	log                 *slog.Logger
	now                 func() time.Time // nil means time.Now
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the program
	o, err := parse(os.Args[1:], os.Getenv, os.Stderr)
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

// parse reads the command line and the secrets.
func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{users: newUsers(), hasher: &password.Hasher{}, log: slog.New(slog.NewTextHandler(stderr, nil))}
	flags := flag.NewFlagSet("tutorial", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8081", "`address` to listen on: a loopback address, or one behind a TLS proxy")
	flags.StringVar(&o.origin, "origin", "http://localhost:3000", "`origin` of the page that uses the API with cookies")
	flags.StringVar(&o.redis, "redis", "", "`address` of the Redis for the sessions of the API with bodies; empty means memory")
	flags.BoolVar(&o.queryToken, "query-token", true, "let the API with bodies accept access tokens in the query")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	access, refresh := getenv("SECRET_KEY"), getenv("REFRESH_SECRET_KEY")
	if access == "" || refresh == "" { // the default of the article
		return o, errors.New("SECRET_KEY and REFRESH_SECRET_KEY must be set:\n" + command)
	}
	o.accessKeys, o.refreshKeys = auth.Keys{auth.HS256([]byte(access))}, auth.Keys{auth.HS256([]byte(refresh))}
	return o, nil
}

// run serves until ctx is done.
func run(ctx context.Context, o options, stdout io.Writer) error {
	handler, err := newHandler(ctx, o)
	if err != nil {
		// The errors of auth.New name its fields; the user has set variables.
		names := strings.NewReplacer("Config.AccessKeys[0]", "SECRET_KEY", "Config.RefreshKeys[0]", "REFRESH_SECRET_KEY")
		if text := names.Replace(err.Error()); text != err.Error() {
			return fmt.Errorf("%s; random secrets:\n%s", text, command)
		}
		return err
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	_, _ = fmt.Fprint(stdout, strings.NewReplacer("{url}", publicURL(listener.Addr(), o.origin),
		"{origin}", o.origin, "{password}", demoPassword).Replace(greeting))

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(shutdown)
}

// newHandler serves both APIs. Their issuers and audiences differ, so neither
// accepts a token of the other.
func newHandler(ctx context.Context, o options) (http.Handler, error) {
	cookies, err := newCookieAPI(o)
	if err != nil {
		return nil, err
	}
	bodies, err := newBodyAPI(ctx, o)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", cookies)
	mux.Handle("/api/", bodies)
	return mux, nil
}

// publicURL returns the URL to print. For a page on localhost it is on localhost
// too, because localhost and 127.0.0.1 are two sites, and many browsers block
// cookies of another site.
func publicURL(addr net.Addr, origin string) string {
	page, err := url.Parse(origin)
	tcp, ok := addr.(*net.TCPAddr)
	if err == nil && ok && page.Hostname() == "localhost" && tcp.IP.IsLoopback() {
		return "http://localhost:" + strconv.Itoa(tcp.Port)
	}
	return "http://" + addr.String()
}

// writeJSON writes v as the response. It disables caching, because responses
// contain tokens or data of users.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has gone
}

// greeting ends with commands to try. Like most browsers, curl 7.79 and later
// accepts and sends Secure cookies on http://localhost.
const greeting = `Both APIs are served on {url}
Users: ada (ada@example.com, admin) and bob (bob@example.com, user); password: {password}
A page on {origin} calls {url}/api/v1/… with credentials: "include".

# Tokens in cookies
jar=$(mktemp)
curl -i -c $jar -H 'Origin: {origin}' -H 'Content-Type: application/json' -d '{"login_id":"ada","password":"{password}"}' {url}/api/v1/auth/login
curl -i -b $jar {url}/api/v1/user/me
curl -i -b $jar -c $jar -H 'Origin: {origin}' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar {url}/api/v1/user/me
curl -i -b $jar -H 'Origin: https://elsewhere.example' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar {url}/api/v1/user/sessions
curl -i -b $jar -c $jar -X POST {url}/api/v1/auth/logout
curl -i -X POST {url}/api/v1/auth/refresh
curl -i -X POST -H 'refresh-token: nonsense' {url}/api/v1/auth/refresh
curl -i -d login_id=ada -d password=wrong {url}/api/v1/auth/login

# The same API, with tokens in the body for a client that asks for them
refresh=$(curl -s -d login_id=bob@example.com --data-urlencode 'password={password}' -d delivery=body {url}/api/v1/auth/login | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
curl -i -X POST -H "refresh-token: $refresh" {url}/api/v1/auth/refresh
curl -i -H "refresh-token: $refresh" -d delivery=body {url}/api/v1/auth/refresh

# Tokens in bodies
curl -i {url}/api/
response=$(curl -s -H 'Content-Type: application/json' -d '{"email":"ada@example.com","name":"ada","password":"{password}"}' {url}/api/login); echo "$response"
token=$(echo "$response" | sed -E 's/.*"token":"([^"]*)".*/\1/'); refresh=$(echo "$response" | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
curl -i -X GET -H 'Content-Type: application/json' -d '{"token":"'$token'"}' {url}/api/secure
curl -i -X POST -H 'Content-Type: application/json' -d '{"token":"'$token'"}' {url}/api/secure
curl -i -X PUT -H 'Content-Type: application/json' -d '{"token":"'$token'"}' {url}/api/secure
curl -i -H "x-access-token: $token" {url}/api/secure
curl -i -X POST -H "x-access-token: $token" {url}/api/secure
curl -i "{url}/api/secure?token=$token"
curl -i {url}/api/secure
curl -i -H 'x-access-token: nonsense' {url}/api/secure
curl -i -H 'Content-Type: application/json' -d '{"refreshToken":"'$refresh'"}' {url}/api/token
curl -i -d refreshToken=nonsense {url}/api/token
curl -i -X POST -H "x-access-token: $token" {url}/api/logout
curl -i -H "x-access-token: $token" {url}/api/secure
`
