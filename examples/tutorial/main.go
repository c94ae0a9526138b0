// Command tutorial serves the APIs of two well-known tutorials on JSON Web Tokens,
// each with its own [auth.Authenticator]: one with tokens in cookies (cookies.go),
// one with tokens in bodies (bodies.go). Paths, names of fields, cookies and
// headers, and status codes are those of the originals. Their vulnerabilities are
// fixed:
//
//   - User enumeration (404 for an unknown user, 401 for a wrong password):
//     Authenticator.Login returns the same error for both, after the same work, and
//     the login handlers send the same response.
//   - Refresh tokens without rotation: a refresh that rotates the session returns a
//     new refresh token. The old token is accepted for another ten seconds, for a
//     second tab or a lost response. After that it ends the session, because two
//     parties have it.
//   - Refresh tokens without revocation: both APIs have a logout, which ends the
//     session and its access tokens at once, and a list of sessions that the user
//     can end.
//   - A store that only grows: the store has one small record for each session, not
//     for each token. A refresh changes the record, expired records are removed, and
//     a user has at most maxSessions.
//   - Secrets that default to "": the program does not start with a secret that is
//     set but too short or empty. If a secret is not set, the program generates a
//     random one and prints a message.
//   - Claims that are lost at a refresh or copied from the request: every refresh
//     looks the user up, so name and role are current.
//   - Tokens in URLs and logs: a refresh token is never read from a URL, and an
//     access token only with bodyConfig.queryToken. The access log has paths without
//     queries, and events of the library contain no tokens.
//   - Access tokens that live for one day: they live for 15 minutes. The client
//     refreshes, so the user does not notice.
//
// Run it in the root of the repository, and try the commands that it prints:
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

// shared has the settings that both APIs use.
type shared struct {
	users  auth.Users
	hasher *password.Hasher // one, so that its budget bounds both
	log    *slog.Logger
	now    func() time.Time // nil means time.Now
}

// maxSessions is the maximum number of sessions of a user.
const maxSessions = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the program
	if err := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("tutorial", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8081", "`address` to listen on: a loopback address, or one behind a TLS proxy")
	origin := flags.String("origin", "http://localhost:3000", "`origin` of the page that uses the API with cookies")
	query := flags.Bool("query-token", true, "let the API with bodies accept access tokens in the query")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	secrets, err := readSecrets(env, stderr, "COOKIES_SECRET", "BODIES_TOKEN_SECRET", "BODIES_REFRESH_SECRET")
	if err != nil {
		return err
	}

	hasher := &password.Hasher{}
	table, err := newUsers(ctx, hasher)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	both := shared{users: table, hasher: hasher, log: log}
	handler, err := newHandler(
		cookieConfig{shared: both, secret: secrets[0], origin: *origin},
		bodyConfig{shared: both, tokenSecret: secrets[1], refreshSecret: secrets[2], queryToken: *query},
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
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(shutdown)
}

// newHandler serves both APIs on one host. They have different keys, issuers and
// audiences, so neither accepts a token of the other.
func newHandler(cookies cookieConfig, bodies bodyConfig) (http.Handler, error) {
	cookieAPI, err1 := newCookieAPI(cookies)
	bodyAPI, err2 := newBodyAPI(bodies)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", cookieAPI)
	mux.Handle("/api/", bodyAPI)
	return accessLog(cookies.log, mux), nil
}

// readSecrets reads secrets from the environment. It generates a random secret for
// a variable that is not set, and refuses one that is too short, such as "".
func readSecrets(env func(string) (string, bool), stderr io.Writer, names ...string) ([][]byte, error) {
	var secrets [][]byte
	for _, name := range names {
		value, set := env(name)
		secret := []byte(value)
		switch {
		case !set:
			secret = make([]byte, 32)
			_, _ = rand.Read(secret) // never returns an error
			_, _ = fmt.Fprintf(stderr, "%s is not set: using a random secret; sessions end when the program exits\n", name)
		case len(secret) < 32:
			return nil, fmt.Errorf("%s has %d bytes; at least 32 are required (openssl rand -base64 48)", name, len(secret))
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// transcript has commands to try. Like most browsers, curl sends Secure cookies to
// a loopback address without TLS.
const transcript = `Both APIs are served on {url}.
Users: ada (ada@example.com, admin) and bob (bob@example.com, user); password: {password}

# The API with cookies
jar=$(mktemp)
curl -i -c $jar -H 'Origin: {origin}' -H 'Content-Type: application/json' -d '{"login_id":"ada","password":"{password}"}' {url}/api/v1/auth/login
curl -i -b $jar {url}/api/v1/user/me
curl -i -b $jar -c $jar -H 'Origin: {origin}' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar -H 'Origin: https://elsewhere.example' -X POST {url}/api/v1/auth/refresh
curl -i -b $jar {url}/api/v1/user/sessions
curl -i -b $jar -c $jar -X POST {url}/api/v1/auth/logout
curl -i -X POST {url}/api/v1/auth/refresh

# The same API, with tokens in the body for a client that asks for them
refresh=$(curl -s -d login_id=bob@example.com --data-urlencode 'password={password}' -d delivery=body {url}/api/v1/auth/login | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
curl -i -X POST -H "refresh-token: $refresh" {url}/api/v1/auth/refresh

# The API with tokens in bodies
response=$(curl -s -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"{password}"}' {url}/api/login); echo "$response"
token=$(echo "$response" | sed -E 's/.*"token":"([^"]*)".*/\1/'); refresh=$(echo "$response" | sed -E 's/.*"refreshToken":"([^"]*)".*/\1/')
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
