// Command keyrotation replaces the signing key twice, HS256 by EdDSA and EdDSA by
// ES256, while clients send requests to two servers. It counts the refused
// requests: there are none.
//
//	go run ./examples/keyrotation
//
// One server is the issuer. The other runs in a second process and only verifies
// tokens, with the keys that the issuer publishes. Meanwhile the server of the key
// set is killed and restarted. The program prints each stage when it begins, and
// exits after about 20 seconds, with an error if any request was refused.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// These times are short, so that the demo does not take long. The defaults are 15
// minutes, 10 seconds and 5 minutes. A JWKSMaxAge below 5 seconds would have no
// effect, because package jwks uses a set for at least that long.
const (
	issuer   = "https://keyrotation.example"
	audience = issuer + "/api"

	accessTTL  = 4 * time.Second
	leeway     = 500 * time.Millisecond
	jwksMaxAge = 5 * time.Second
)

func main() {
	verify := flag.Bool("verify-only", false, "run the second process; for internal use")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "keyrotation: unexpected argument %q; there are no arguments\n", flag.Arg(0))
		os.Exit(2)
	}
	do := rotate
	if *verify {
		do = verifyOnly
	}
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Second)
	defer cancel()
	if err := do(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "keyrotation: %v\n", err)
		os.Exit(1)
	}
}

func newIssuer(ttl time.Duration, us users, access ...auth.Key) (*auth.Authenticator, error) {
	return auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Users: us,
		AccessKeys:  access,
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))}, // HMAC, because only the issuer uses them
		AccessTTL:   ttl, Leeway: leeway, JWKSMaxAge: jwksMaxAge,
	})
}

func rotate(ctx context.Context, _ io.Reader, out io.Writer) error {
	secret := []byte(rand.Text() + rand.Text())
	_, edPrivate, err1 := ed25519.GenerateKey(rand.Reader)
	ecPrivate, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	us, err3 := newUsers(ctx)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	hs, ed, es := auth.HS256(secret), auth.EdDSA(edPrivate), auth.ES256(ecPrivate)
	a, err := newIssuer(accessTTL, us, hs)
	if err != nil {
		return err
	}

	// The issuer, and the key set on its own port, so that it can be killed alone.
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(me)))
	server, err := serve("127.0.0.1:0", mux)
	if err != nil {
		return err
	}
	defer server.Close()
	keySet, err := serve("127.0.0.1:0", a.JWKSHandler())
	if err != nil {
		return err
	}
	defer keySet.Close()
	second, err := startVerifier(ctx, verifierSetup{Secret: secret, JWKS: "http://" + keySet.Addr})
	if err != nil {
		return err
	}
	defer func() { _, _ = second.end() }() // it may have exited already

	fmt.Fprintf(out, "issuer:   http://%s\nverifier: http://%s, a second process (pid %d)\nkey set:  http://%s\n\n"+
		"%d clients send requests to the issuer and to the verifier, while the signing key is\n"+
		"replaced twice. This takes about 20 seconds. Look at the number of refused requests:\n"+
		"it must stay 0 in each stage.\n\n",
		server.Addr, second.addr, second.cmd.Process.Pid, keySet.Addr, len(us))
	l := &load{servers: [2]string{"http://" + server.Addr, "http://" + second.addr}, counts: map[cell]int{}}
	w := newWatch(ctx, a, us, hs, ed, es)
	stage := func(name, why string) {
		l.summarize(out)
		l.stage(name)
		fmt.Fprintf(out, "%6.1fs  %s\n         %s\n", time.Since(w.begin).Seconds(), name, why)
	}
	stage("HS256 signs", "The verifier must have the secret.")
	endLoad := l.start(us)
	defer endLoad()

	w.note("HS256", signing)
	w.pause(500 * time.Millisecond)

	// First rotation: put the next key before the current one. SetKeys publishes
	// EdDSA now, and signs with it when every cached key set has expired. This is
	// sufficient for a single process. Several processes that call SetKeys at
	// different times would switch at different times, and a process that restarts
	// meanwhile would switch at once, because New assumes that a key without
	// SignFrom was always published. Use SignFrom then, as in the second rotation.
	w.check(a.SetKeys(auth.Keys{ed, hs}, nil))
	stage("EdDSA published, HS256 signs", "EdDSA signs when each cached key set has it: after JWKSMaxAge (5s) plus Leeway (0.5s).")
	w.until("EdDSA", published, func() bool { return hasKey(keySet.Addr, ed) })
	w.until("EdDSA", signing, func() bool { return w.signs("EdDSA") })
	w.note("HS256", verifying)
	stage("EdDSA signs, HS256 verifies", "New tokens are signed with EdDSA. Tokens of HS256 are valid until they expire.")
	w.pause(1500 * time.Millisecond)

	// Second rotation: the key set changes while its server is down. Verifiers
	// continue to use the keys that they have, and retry.
	//
	// SignFrom sets the time at which ES256 starts to sign. Several processes read
	// the same time from their configuration. It must be late enough: after the
	// last process has the new list, plus JWKSMaxAge and Leeway, plus the longest
	// outage of the key set that you expect. A margin of hours does no harm. The
	// time stays in the configuration as long as the key, so that a process that
	// restarts later uses the key in the same way. A key stays in the list until
	// its last token has expired. Removing it earlier refuses its tokens at once,
	// which is right for a stolen key.
	w.check(keySet.Close())
	next := es.SignFrom(time.Now().Add(jwksMaxAge + leeway + 2*time.Second))
	w.check(a.SetKeys(auth.Keys{next, ed, hs}, nil))
	stage("ES256 published, key set down", "The server of the key set is killed. The verifier uses the keys that it has.")
	w.pause(4 * time.Second) // long enough for a failing fetch of the second process
	again, err := serve(keySet.Addr, a.JWKSHandler())
	if err != nil {
		return err
	}
	defer again.Close()
	stage("ES256 published, EdDSA signs", "The server of the key set is back. ES256 signs from the time that SignFrom set.")
	w.until("ES256", published, func() bool { return hasKey(again.Addr, es) })

	// The issuer removes HS256 automatically. The second process must be told to
	// remove it: as long as it has the secret, it could sign tokens, which is a
	// reason to migrate from HS256.
	w.until("HS256", gone, func() bool { return w.refused("HS256") })
	w.check(second.dropSecret())
	w.until("ES256", signing, func() bool { return w.signs("ES256") })
	w.note("EdDSA", verifying)
	stage("ES256 signs, EdDSA verifies", "HS256 was removed after its last token had expired.")
	w.until("EdDSA", gone, func() bool { return w.refused("EdDSA") })
	stage("only ES256 remains", "EdDSA was removed after its last token had expired.")
	w.pause(500 * time.Millisecond)

	endLoad()
	l.summarize(out)
	if said, ok := l.get(1, w.lasting["HS256"]); ok || !strings.HasPrefix(said, "401") {
		w.check(errors.New("the second process must refuse HS256 after dropping the secret, but responded: " + said))
	}
	failed, err := second.end()
	w.check(err)
	fmt.Fprint(out, "\nWhen each key entered each stage, in seconds from the start:\n\n")
	w.print(out)
	fmt.Fprintf(out, "\nFailed fetches of the verifier while the key set was down: %d\n\n"+
		"Number of requests by stage, server and algorithm of the token:\n\n", failed)
	w.check(l.print(out))
	fmt.Fprintf(out, "\nThe verifier (pid %d) has exited.\n", second.cmd.Process.Pid)
	return w.err
}

// serve starts a server on addr. Addr of the result is the actual address.
func serve(addr string, h http.Handler) (*http.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Addr: ln.Addr().String(), Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(ln) }() // returns after Close
	return srv, nil
}

// me is a protected handler of both servers. Behind Require, FromContext always has
// claims.
func me(w http.ResponseWriter, r *http.Request) {
	c, _ := auth.FromContext(r.Context())
	_, _ = io.WriteString(w, c.Subject+"\n")
}

// hasKey reports whether the key set at addr contains k.
func hasKey(addr string, k auth.Key) bool {
	resp, err := client.Get("http://" + addr)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	set, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return err == nil && strings.Contains(string(set), `"kid":"`+k.ID()+`"`)
}

const demoPassword = "correct horse battery staple"

// users implements auth.Users with a map by ID. The login name of a user is the ID.
type users map[string]auth.User

func newUsers(ctx context.Context) (users, error) {
	hash, err := (&password.Hasher{}).Hash(ctx, demoPassword)
	us := users{}
	for _, id := range []string{"ada", "bob", "cyd", "dan", "eve", "fay"} {
		us[id] = auth.User{ID: id, Username: id, PasswordHash: hash}
	}
	return us, err
}

func (us users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return us.FindByID(ctx, login)
}

func (us users) FindByID(_ context.Context, id string) (auth.User, error) {
	if u, ok := us[id]; ok {
		return u, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}
