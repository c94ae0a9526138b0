// Tutorial serves the contracts of two well-known tutorials on JSON Web Tokens
// from one process, each by an [auth.Authenticator] of its own (first.go,
// second.go). Paths, names of fields, cookies and headers, status codes and
// lifetimes are those of the articles; what was a hole in them is closed:
//
//   - User enumeration, 404 for an unknown user and 401 for a wrong password:
//     Authenticator.Login gives one error for both, after the same work, and
//     the login handlers give one answer to it.
//   - Refresh tokens that are never rotated: every refresh that moves the
//     session answers with the next refresh token. The one before works for ten
//     seconds more, for a second tab or a lost answer; after that it ends the
//     session, because two parties hold it.
//   - Refresh tokens that are never revoked: both have a logout, which ends the
//     session and its access tokens at once, and a list of sessions to end.
//   - A store that only grows: it holds one small record for each session, not
//     one for each token; a refresh changes the record, expired ones are
//     collected, and a user has at most maxSessions of them.
//   - Secrets that default to "": a secret that is set but too short, empty
//     ones included, stops the program at its start. One that is not set is
//     random, and the program says so.
//   - Claims lost at refresh, or taken from the request: the user is looked up
//     at every refresh, so name and role are those of now.
//   - Tokens in URLs and logs: a refresh token is never read from a URL, an
//     access token only where secondConfig.queryToken opts in. The access log
//     writes paths without their queries, and the library's events have no
//     tokens in them.
//   - Access tokens of one day: they live 15 minutes, which the client does not
//     notice, because it refreshes.
//
// Run it from the root of the repository, and follow what it prints:
//
//	go run ./examples/tutorial
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// shared is what both tutorials are made with.
type shared struct {
	users  auth.Users
	hasher *password.Hasher // one for both, so that one budget bounds them
	log    *slog.Logger
	now    func() time.Time // nil means time.Now
}

// maxSessions is how many devices a user may be signed in on.
const maxSessions = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("tutorial", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8081", "address to listen on; loopback, or behind a proxy that speaks TLS")
	origin := flags.String("origin", "http://localhost:3000", "origin of the first tutorial's page")
	query := flags.Bool("query-token", true, "let the second tutorial take access tokens from the URL")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	secrets, err := readSecrets(env, stderr, "FIRST_SECRET", "SECOND_TOKEN_SECRET", "SECOND_REFRESH_SECRET")
	if err != nil {
		return err
	}

	hasher := &password.Hasher{}
	people, err := newUsers(ctx, hasher)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	both := shared{users: people, hasher: hasher, log: log}
	handler, err := newHandler(
		firstConfig{shared: both, secret: secrets[0], origin: *origin},
		secondConfig{shared: both, tokenSecret: secrets[1], refreshSecret: secrets[2], queryToken: *query},
	)
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	_, _ = fmt.Fprintln(stdout, strings.NewReplacer(
		"{url}", "http://"+listener.Addr().String(), "{password}", demoPassword, "{origin}", *origin).Replace(transcript))

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(last)
}

// newHandler puts both tutorials on one host. They share neither keys, issuer
// nor audience, so a token of one is nothing to the other.
func newHandler(one firstConfig, two secondConfig) (http.Handler, error) {
	a, err1 := first(one)
	b, err2 := second(two)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", a)
	mux.Handle("/api/", b)
	return accessLog(one.log, mux), nil
}

// readSecrets reads secrets from the environment. One that is not set is made
// at random; one that is set to something too short, such as "", is refused.
func readSecrets(env func(string) (string, bool), stderr io.Writer, names ...string) ([][]byte, error) {
	var secrets [][]byte
	for _, name := range names {
		value, set := env(name)
		secret := []byte(value)
		switch {
		case !set:
			secret = make([]byte, 32)
			_, _ = rand.Read(secret) // it never fails
			_, _ = fmt.Fprintf(stderr, "%s is not set: a random one is used, and all sessions end with this process\n", name)
		case len(secret) < 32:
			return nil, fmt.Errorf("%s is set to %d bytes, at least 32 are needed: openssl rand -base64 48", name, len(secret))
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// transcript is what to try. curl sends Secure cookies to a loopback address
// without TLS, as most browsers do.
const transcript = `Both tutorials are served on {url}.
Users: ada (ada@example.com, admin) and bob (bob@example.com, user); password: {password}

# The first: cookies
jar=$(mktemp)
curl -i -c $jar -H 'Origin: {origin}' -H 'Content-Type: application/json' -d '{"login_id":"ada","password":"{password}"}' {url}/api/v1/auth/login
curl -i -b $jar {url}/api/v1/user/me
curl -i -b $jar -c $jar -H 'Origin: {origin}' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar -H 'Origin: https://elsewhere.example' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar {url}/api/v1/user/sessions
curl -i -b $jar -c $jar -X POST {url}/api/v1/auth/logout
curl -i -X POST {url}/api/v1/auth/refresh

# The first: tokens in the body, for a client that asks for them
refresh=$(curl -s -d login_id=bob@example.com --data-urlencode 'password={password}' -d delivery=body {url}/api/v1/auth/login | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
curl -i -X POST -H "refresh-token: $refresh" {url}/api/v1/auth/refresh

# The second
answer=$(curl -s -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"{password}"}' {url}/api/login); echo "$answer"
token=$(echo "$answer" | sed -E 's/.*"token":"([^"]*)".*/\1/'); refresh=$(echo "$answer" | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
curl -i -H "x-access-token: $token" {url}/api/secure
curl -i -X GET -H 'Content-Type: application/json' -d '{"token":"'$token'"}' {url}/api/secure
curl -i "{url}/api/secure?token=$token"
curl -i {url}/api/secure
curl -i -H 'x-access-token: nonsense' {url}/api/secure
curl -i -H 'Content-Type: application/json' -d '{"refreshToken":"'$refresh'"}' {url}/api/token
curl -i -d refreshToken=nonsense {url}/api/token
curl -i -X POST -H "x-access-token: $token" {url}/api/logout
curl -i -H "x-access-token: $token" {url}/api/secure
`
