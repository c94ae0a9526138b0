package jwks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/jwks"
)

const (
	issuer   = "https://issuer.example"
	audience = "https://api.example"
)

func newClock() *authtest.Clock {
	return authtest.NewClock(time.Now().UTC().Truncate(time.Millisecond))
}

type users struct{}

func (users) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (users) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Roles: []string{"reader"}}, nil
}

func newEd(t testing.TB) auth.Key {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return auth.EdDSA(k)
}

func newES(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return k
}

// A key has one algorithm, so the tests of two RSA algorithms need two keys.
var newRSA, otherRSA = sync.OnceValue(generateRSA), sync.OnceValue(generateRSA)

func generateRSA() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// newIssuer returns an Authenticator that signs with the first of the keys.
func newIssuer(t testing.TB, now func() time.Time, keys ...auth.Key) *auth.Authenticator {
	t.Helper()
	a, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience},
		AccessKeys:  keys,
		RefreshKeys: auth.Keys{auth.HS256([]byte("the refresh secret of these tests."))},
		Users:       users{},
		Now:         now,
	})
	require.NoError(t, err)
	return a
}

func newToken(t testing.TB, a *auth.Authenticator) string {
	t.Helper()
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	return tokens.Access
}

// newVerifier returns a Verifier with keys.
func newVerifier(t testing.TB, keys auth.KeySource, now func() time.Time) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: keys, Now: now})
	require.NoError(t, err)
	return v
}

// statusOf returns the status of a protected route for a token.
func statusOf(v *auth.Verifier, token string) int {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	v.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

// publisher is a server that counts its requests, and whose handler a test can
// replace.
type publisher struct {
	*httptest.Server
	requests atomic.Int64
	handler  atomic.Pointer[http.Handler]
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	(*p.handler.Load()).ServeHTTP(w, r)
}

func (p *publisher) serve(h http.Handler) { p.handler.Store(&h) }

func newPublisher(t testing.TB, h http.Handler) *publisher {
	t.Helper()
	p := new(publisher)
	p.serve(h)
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// keys returns a KeySet of the publisher. change may be nil.
func (p *publisher) keys(t testing.TB, c *authtest.Clock, change func(*jwks.Config)) *jwks.KeySet {
	t.Helper()
	config := jwks.Config{URL: p.URL + "/jwks.json", Client: p.Client()}
	if c != nil {
		config.Now = c.Now
	}
	if change != nil {
		change(&config)
	}
	k, err := jwks.New(config)
	require.NoError(t, err)
	return k
}

func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// hanging returns a handler that responds when the client has gone.
func hanging() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// roundTrip is an http.RoundTripper, used as a publisher without a socket.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// direct returns a roundTrip that calls a handler.
func direct(h http.Handler) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), nil
	}
}

// newKeySet returns a KeySet that uses rt instead of a socket, with the real
// clock or that of a synctest bubble.
func newKeySet(t testing.TB, rt http.RoundTripper, change func(*jwks.Config)) *jwks.KeySet {
	t.Helper()
	config := jwks.Config{URL: issuer + "/jwks.json", Client: &http.Client{Transport: rt}}
	if change != nil {
		change(&config)
	}
	k, err := jwks.New(config)
	require.NoError(t, err)
	return k
}

// set returns a key set of JWKs.
func set(jwks ...string) string { return `{"keys":[` + strings.Join(jwks, ",") + `]}` }

// published returns the JWK of a key as an issuer publishes it.
func published(t testing.TB, k auth.Key) string {
	t.Helper()
	w := httptest.NewRecorder()
	newIssuer(t, nil, k).JWKSHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var s struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	require.Len(t, s.Keys, 1)
	return string(s.Keys[0])
}

// with adds a member to a JWK.
func with(jwk, member string) string { return strings.TrimSuffix(jwk, "}") + "," + member + "}" }

func b64(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// many calls f from n goroutines at once, and returns the longest duration.
func many(n int, f func(i int)) time.Duration {
	var slowest atomic.Int64
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			t0 := time.Now()
			f(i)
			for d := int64(time.Since(t0)); ; {
				if old := slowest.Load(); d <= old || slowest.CompareAndSwap(old, d) {
					return
				}
			}
		})
	}
	close(begin)
	wg.Wait()
	return time.Duration(slowest.Load())
}
