// Command keyrotation changes the key that signs twice, HS256 to EdDSA to
// ES256, while clients ask two servers without a pause, and counts what is
// refused: nothing.
//
//	go run ./examples/keyrotation
//
// One server is the issuer. The other is a process of its own, which only
// verifies, by the keys that the issuer publishes; their server is killed and
// restarted meanwhile. The program ends by itself in about 20 seconds, with an
// error if a single request was refused.
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

// Times are short, so that one can watch; the defaults are 15 minutes, 10
// seconds and 5 minutes. A JWKSMaxAge below 5 seconds would be of no use:
// package jwks keeps a set for so long in any case.
const (
	issuer   = "https://keyrotation.example"
	audience = issuer + "/api"

	accessTTL  = 4 * time.Second
	leeway     = 500 * time.Millisecond
	jwksMaxAge = 5 * time.Second
)

func main() {
	verify := flag.Bool("verify-only", false, "be the second process, which the first one starts")
	flag.Parse()
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
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))}, // HMAC always: they never leave the issuer
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

	// The issuer, and the key set on a port of its own, so that it can die alone.
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
	defer func() { _, _ = second.end() }() // it may have ended already

	l := &load{servers: [2]string{"http://" + server.Addr, "http://" + second.addr}, counts: map[cell]int{}}
	w := newWatch(ctx, a, us, hs, ed, es)
	endLoad := l.start(us)
	defer endLoad()

	l.stage("HS256 signs")
	w.note("HS256", signing)
	w.pause(500 * time.Millisecond)

	// First rotation: the next key before the current one. SetKeys publishes
	// EdDSA now, and lets it sign when every cache of the key set has run out.
	// That is right for one process. Several that call SetKeys each at their own
	// time would each begin at their own time; and one that restarts meanwhile
	// begins at once, for New takes a key without SignFrom for one that was
	// always there. For these there is the second rotation.
	w.check(a.SetKeys(auth.Keys{ed, hs}, nil))
	l.stage("EdDSA published, HS256 signs")
	w.until("EdDSA", published, func() bool { return hasKey(keySet.Addr, ed) })
	w.until("EdDSA", signing, func() bool { return w.signs("EdDSA") })
	w.note("HS256", verifying)
	l.stage("EdDSA signs, HS256 verifies")
	w.pause(1500 * time.Millisecond)

	// Second rotation, at the worst of times: nobody can fetch the key set when
	// it changes. Verifiers go on with the keys that they have, and ask again.
	//
	// SignFrom says when ES256 takes over. With several processes it is one
	// time, in the configuration that all of them read, and late enough: after
	// the last process has the list, with JWKSMaxAge and Leeway on top, and as
	// long as an outage of the key set may last: hours cost nothing. It stays in
	// the configuration for as long as the key does, so that a process that
	// restarts, now or next month, goes through the same stages at the same
	// times. A key stays in the list until it is gone; to take it out sooner
	// refuses its tokens at once, which is for a key that was stolen.
	w.check(keySet.Close())
	next := es.SignFrom(time.Now().Add(jwksMaxAge + leeway + 2*time.Second))
	w.check(a.SetKeys(auth.Keys{next, ed, hs}, nil))
	l.stage("ES256 published, key set dead")
	w.pause(4 * time.Second) // some fetch of the second process falls into it
	again, err := serve(keySet.Addr, a.JWKSHandler())
	if err != nil {
		return err
	}
	defer again.Close()
	l.stage("ES256 published, EdDSA signs")
	w.until("ES256", published, func() bool { return hasKey(again.Addr, es) })

	// The issuer drops HS256 by itself. The second process must be told: while
	// it has the secret it could sign, which is why one leaves HS256.
	w.until("HS256", gone, func() bool { return w.refused("HS256") })
	w.check(second.dropSecret())
	w.until("ES256", signing, func() bool { return w.signs("ES256") })
	w.note("EdDSA", verifying)
	l.stage("ES256 signs, EdDSA verifies")
	w.until("EdDSA", gone, func() bool { return w.refused("EdDSA") })
	l.stage("ES256 signs alone")
	w.pause(500 * time.Millisecond)

	endLoad()
	if said, ok := l.get(1, w.lasting["HS256"]); ok || !strings.HasPrefix(said, "401") {
		w.check(errors.New("the second process has no secret any more, and says to HS256: " + said))
	}
	failed, err := second.end()
	w.check(err)
	w.print(out)
	fmt.Fprintf(out, "\nFetches of the second process that failed while the key set was dead: %d\n\n", failed)
	w.check(l.print(out))
	fmt.Fprintf(out, "\nThe second process (pid %d) has ended.\n", second.cmd.Process.Pid)
	return w.err
}

// serve answers on addr; Addr of the result is where it really listens.
func serve(addr string, h http.Handler) (*http.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Addr: ln.Addr().String(), Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(ln) }() // ends with Close
	return srv, nil
}

// me is protected by both servers. Behind Require there are always claims.
func me(w http.ResponseWriter, r *http.Request) {
	c, _ := auth.FromContext(r.Context())
	_, _ = io.WriteString(w, c.Subject+"\n")
}

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

// users is the application's user lookup, by ID; login names are IDs as well.
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
