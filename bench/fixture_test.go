package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/ratchet-go/auth"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The claims of every token, which every peer requires.
const (
	issuer   = "https://example.com"
	audience = "api"
	username = "ada"
	role     = "admin"
	lifetime = 24 * time.Hour
)

// algorithm is a signature algorithm with the key that all peers share.
type algorithm struct {
	name         string
	method       jwt.SigningMethod
	sign, verify any      // the key for the peers
	key          auth.Key // the key for Ratchet
}

func (a *algorithm) secret() []byte {
	secret, _ := a.sign.([]byte)
	return secret
}

// algorithms returns the algorithms that are measured.
var algorithms = sync.OnceValue(func() []*algorithm {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	return []*algorithm{
		{"HS256", jwt.SigningMethodHS256, secret, secret, auth.HS256(secret)},
		{"RS256", jwt.SigningMethodRS256, rsaKey, &rsaKey.PublicKey, auth.RS256(rsaKey)},
		{"ES256", jwt.SigningMethodES256, ecKey, &ecKey.PublicKey, auth.ES256(ecKey)},
		{"EdDSA", jwt.SigningMethodEdDSA, edKey, edPublic, auth.EdDSA(edKey)},
	}
})

// refreshSecret returns the key for refresh tokens of Ratchet.
var refreshSecret = sync.OnceValue(func() []byte {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	return secret
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// subject returns the user of the i-th token.
func subject(i int) string { return fmt.Sprintf("user-%06d", i) }

// mint signs a token for the peers. change may modify its claims.
func (a *algorithm) mint(i int, change func(jwt.MapClaims)) string {
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": subject(i), "username": username, "roles": []string{role},
		"iat": now.Unix(), "exp": now.Add(lifetime).Unix(), "jti": randomID(), "sid": randomID(),
	}
	if change != nil {
		change(claims)
	}
	token, err := jwt.NewWithClaims(a.method, claims).SignedString(a.sign)
	must(err)
	return token
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// users has a user for every ID.
type users struct{}

func (users) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: username, Roles: []string{role}}, nil
}

func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.FindByID(ctx, login)
}

// sessions is the store of all Authenticators that have no other, so that each
// accepts the tokens of the others.
var sessions = auth.NewMemoryStore()

// ratchet returns an Authenticator for tokens of the algorithm. change may
// modify its configuration.
func (a *algorithm) ratchet(cacheSize int, change func(*auth.Config)) *auth.Authenticator {
	c := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Users: users{}, AccessTTL: lifetime, TokenCacheSize: cacheSize, Store: sessions,
		AccessKeys: auth.Keys{a.key}, RefreshKeys: auth.Keys{auth.HS256(refreshSecret())},
	}
	if change != nil {
		change(&c)
	}
	x, err := auth.New(c)
	must(err)
	return x
}

// start starts a session and returns its access token.
func start(a *auth.Authenticator, i int) string {
	t, err := a.StartSession(context.Background(), subject(i), auth.SessionOptions{})
	must(err)
	return t.Access
}

// each returns makeOne(0) to makeOne(n-1), which it calls on all CPUs.
func each(n int, makeOne func(int) string) []string {
	out := make([]string, n)
	var wg sync.WaitGroup
	cpus := runtime.GOMAXPROCS(0)
	for c := range cpus {
		wg.Go(func() {
			for i := c; i < n; i += cpus {
				out[i] = makeOne(i)
			}
		})
	}
	wg.Wait()
	return out
}

// get returns a request with the token, or without one if token is empty.
func get(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/me", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// discard is a ResponseWriter that records only the status.
type discard struct {
	header http.Header
	status int
}

func newDiscard() *discard { return &discard{header: make(http.Header)} }

func (w *discard) Header() http.Header               { return w.header }
func (w *discard) Write(b []byte) (int, error)       { w.implied(); return len(b), nil }
func (w *discard) WriteString(s string) (int, error) { w.implied(); return len(s), nil }
func (w *discard) WriteHeader(status int)            { w.status = status }

func (w *discard) implied() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// reset prepares w for the next request.
func (w *discard) reset() {
	clear(w.header)
	w.status = 0
}

// badRequests lists the kinds of refused requests.
var badRequests = []string{"expired", "bad-signature", "no-token", "16KiB-garbage", "16KiB-dots"}

// badToken returns the token for a kind of refused request.
func badToken(kind, good, expired string) string {
	switch kind {
	case "expired":
		return expired
	case "bad-signature":
		return tamper(good)
	case "no-token":
		return ""
	case "16KiB-garbage":
		return strings.Repeat("abcdefgh", 16<<10/8)
	case "16KiB-dots":
		return strings.Repeat(".", 16<<10)
	}
	panic(kind)
}

// tamper returns the token with one character in the middle of the signature
// changed.
func tamper(token string) string {
	i := strings.LastIndexByte(token, '.')
	i += (len(token) - i) / 2
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// expired changes the claims to those of an expired token.
func expired(c jwt.MapClaims) {
	c["iat"], c["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
}

// expiredRatchet returns an expired token of Ratchet.
func (a *algorithm) expiredRatchet() string {
	return start(a.ratchet(0, func(c *auth.Config) {
		c.Now = func() time.Time { return time.Now().Add(-lifetime - time.Hour) }
	}), 0)
}

var errSignature = errors.New("signature does not verify")

// checkSignature returns a function that only checks the signature of token.
// The signing input, the signature and the key are decoded before.
func (a *algorithm) checkSignature(tb testing.TB, token string) func() error {
	tb.Helper()
	i := strings.LastIndexByte(token, '.')
	signed := []byte(token[:i])
	signature, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	must(err)
	check := func(ok bool) error {
		if !ok {
			return errSignature
		}
		return nil
	}
	switch key := a.verify.(type) {
	case []byte:
		pool := sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
		var sum [sha256.Size]byte
		return func() error {
			h, _ := pool.Get().(hash.Hash)
			h.Reset()
			h.Write(signed)
			ok := hmac.Equal(h.Sum(sum[:0]), signature)
			pool.Put(h)
			return check(ok)
		}
	case *rsa.PublicKey:
		return func() error {
			sum := sha256.Sum256(signed)
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
		}
	case *ecdsa.PublicKey:
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(new(big.Int).SetBytes(signature[:32]))
			b.AddASN1BigInt(new(big.Int).SetBytes(signature[32:]))
		})
		der := b.BytesOrPanic()
		return func() error {
			sum := sha256.Sum256(signed)
			return check(ecdsa.VerifyASN1(key, sum[:], der))
		}
	case ed25519.PublicKey:
		return func() error { return check(ed25519.Verify(key, signed, signature)) }
	}
	panic("unexpected type of key")
}
