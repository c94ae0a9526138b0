package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// privateKeys returns one private key for each algorithm.
var privateKeys = sync.OnceValue(func() map[string]crypto.Signer {
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	p256, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, err4 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsaKey, err5 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"EdDSA": ed, "ES256": p256, "ES384": p384, "ES512": p521, "PS256": rsaKey, "RS256": rsaKey}
})

var publicAlgs = map[string]func(any) auth.Key{
	"EdDSA": auth.EdDSA, "ES256": auth.ES256, "ES384": auth.ES384, "ES512": auth.ES512, "PS256": auth.PS256, "RS256": auth.RS256,
}

// opaque is a signer that has only the interface, like one in an HSM.
type opaque struct {
	crypto.Signer
	fail error
}

func (o *opaque) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if o.fail != nil {
		return nil, o.fail
	}
	return o.Signer.Sign(random, digest, opts)
}

func withAccessKeys(keys ...auth.Key) func(*auth.Config) {
	return func(c *auth.Config) {
		c.Secrets, c.AccessKeys = nil, keys
		c.RefreshKeys = auth.Keys{auth.HS256([]byte("another secret of at least 32 bytes!"))}
	}
}

func headerOf(t *testing.T, token string) map[string]string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	require.NoError(t, err)
	var h map[string]string
	require.NoError(t, json.Unmarshal(text, &h))
	return h
}

func TestPublicKeys_AgreeWithGolangJWT(t *testing.T) {
	t.Parallel()
	for alg, make := range publicAlgs {
		private := privateKeys()[alg]
		for _, key := range []auth.Key{make(private), make(&opaque{Signer: private})} {
			fx := newFixture(t, withAccessKeys(key))
			tokens := fx.login(t)
			require.Equal(t, map[string]string{"alg": alg, "typ": "at+jwt", "kid": key.ID()}, headerOf(t, tokens.Access))
			for range 2 {
				c, err := fx.Verify(context.Background(), tokens.Access)
				require.NoError(t, err, alg)
				require.Equal(t, "u1", c.Subject)
			}
			_, err := jwt.Parse(
				tokens.Access, func(*jwt.Token) (any, error) { return private.Public(), nil }, jwt.WithValidMethods([]string{alg}),
				jwt.WithTimeFunc(fx.clock.Now),
			)
			require.NoError(t, err, alg)

			// The public key is enough to verify.
			v, err := auth.NewVerifier(auth.VerifierConfig{
				Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{make(private.Public())}, Now: fx.clock.Now,
			})
			require.NoError(t, err)
			_, err = v.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, alg)

			// A signature with one changed bit is refused.
			dot := strings.LastIndexByte(tokens.Access, '.')
			sig, err := base64.RawURLEncoding.DecodeString(tokens.Access[dot+1:])
			require.NoError(t, err)
			for _, i := range []int{0, len(sig) / 2, len(sig) - 1} {
				sig[i] ^= 1
				_, err = v.Verify(context.Background(), tokens.Access[:dot+1]+base64.RawURLEncoding.EncodeToString(sig))
				require.ErrorIs(t, err, auth.ErrInvalidToken, alg)
				sig[i] ^= 1
			}
			for _, odd := range [][]byte{nil, sig[1:], append([]byte{0}, sig...), zeros(len(sig))} {
				_, err = v.Verify(context.Background(), tokens.Access[:dot+1]+base64.RawURLEncoding.EncodeToString(odd))
				require.ErrorIs(t, err, auth.ErrInvalidToken, alg)
			}
		}
	}
}

func zeros(n int) []byte { return make([]byte, n) }

func TestVerify_AcceptsSignaturesOfTheLargestRSAKeys(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"])))
	token := fx.login(t).Access
	signed := token[:strings.LastIndexByte(token, '.')+1]
	for size, want := range map[int]string{1024: "does not verify", 1025: "too long"} {
		_, err := fx.Verify(context.Background(), signed+base64.RawURLEncoding.EncodeToString(make([]byte, size)))
		require.ErrorContains(t, err, want)
	}
}

func TestPublicKeys_AlgorithmBelongsToTheKey(t *testing.T) {
	t.Parallel()
	rsaKey := privateKeys()["PS256"]
	signed := newFixture(t, withAccessKeys(auth.RS256(rsaKey).WithID("k"))).login(t)
	ps := newFixture(t, withAccessKeys(auth.PS256(rsaKey).WithID("k")))
	_, err := ps.Verify(context.Background(), signed.Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	// In PS256 the salt must be as long as the hash (RFC 7518 section 3.5).
	now := ps.clock.Now().Unix()
	claims := jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "u1", "sid": "s", "jti": "j", "iat": now, "exp": now + 60, "auth_time": now,
		"session_exp": now + 60,
	}
	for salt, want := range map[int]error{rsa.PSSSaltLengthEqualsHash: nil, 20: auth.ErrInvalidToken, 0: auth.ErrInvalidToken, 64: auth.ErrInvalidToken} {
		method := *jwt.SigningMethodPS256
		method.Options = &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		if salt == 0 {
			method.Options.SaltLength = rsa.PSSSaltLengthAuto // the longest possible
		}
		token := jwt.NewWithClaims(&method, claims)
		token.Header["typ"], token.Header["kid"] = "at+jwt", "k"
		text, err := token.SignedString(rsaKey)
		require.NoError(t, err)
		_, err = ps.Verify(context.Background(), text)
		require.ErrorIs(t, err, want, salt)
	}
}

func TestPublicKeys_AreCheckedAtConstruction(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it must be refused
	if err != nil {
		weak = nil // this version of Go generates no such key
	}
	p256 := privateKeys()["ES256"].(*ecdsa.PrivateKey)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)} //nolint:staticcheck // as an attacker would construct it
	big3 := &rsa.PublicKey{N: privateKeys()["PS256"].Public().(*rsa.PublicKey).N, E: 3}
	for text, key := range map[string]auth.Key{
		"an ECDSA key cannot be used for EdDSA; use ES256": auth.EdDSA(p256),
		"cannot be used for ES256":                         auth.ES256(privateKeys()["EdDSA"]),
		"cannot be used for PS256":                         auth.PS256(p256),
		"is not on the curve":                              auth.ES384(p256),
		"not on the curve of ES25":                         auth.ES256(p224),
		"point is not on":                                  auth.ES256(off),
		"a string cannot be used for EdDSA; pass a private key or a public key; ParsePEM reads": auth.EdDSA("a string"),
		"a []uint8 cannot be used for EdDSA; pass a private key":                                auth.EdDSA(make([]byte, 32)),
		"a <nil> cannot be used for":                                                            auth.EdDSA(nil),
		"a ecdsa.PublicKey cannot be used for ES256; pass a pointer to it":                      auth.ES256(p256.PublicKey),
		"it is on P-256, so use ES256":                                                          auth.ES512(p256),
		"it is on P-384, so use ES384":                                                          auth.ES256(privateKeys()["ES384"]),
		"it is on P-521, so use ES512":                                                          auth.ES256(privateKeys()["ES512"]),
		"is 32 bytes; it must be 64; use ed25519.NewKeyFromSeed":                                auth.EdDSA(make(ed25519.PrivateKey, 32)),
		"is 3 bytes":             auth.EdDSA(ed25519.PublicKey{1, 2, 3}),
		"all zero":               auth.EdDSA(make(ed25519.PublicKey, 32)),
		"exponent (3)":           auth.RS256(big3),
		"has 0 bits":             auth.PS256(&rsa.PublicKey{N: new(big.Int), E: 65537}),
		"is empty":               auth.PS256(&rsa.PublicKey{E: 65537}),
		"not a point":            auth.EdDSA(append(ed25519.PublicKey{1}, make([]byte, 31)...)),
		"a point of large":       auth.EdDSA(append(ed25519.PublicKey{2}, make([]byte, 31)...)),
		"a point of large order": auth.EdDSA(append(append(ed25519.PublicKey{0xf0}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f)), // p + 3, not reduced
		"is 63 bytes":            auth.EdDSA(privateKeys()["EdDSA"].(ed25519.PrivateKey)[:63]),
		"is 0 bytes":             auth.EdDSA(ed25519.PrivateKey(nil)),
		"does not match its public": auth.EdDSA(
			ed25519.PrivateKey(append(bytes.Clone(privateKeys()["EdDSA"].(ed25519.PrivateKey)[:32]), make([]byte, 32)...)),
		),
		"ECDSA private key is nil": auth.ES256((*ecdsa.PrivateKey)(nil)),
		"RSA private key is nil":   auth.PS256((*rsa.PrivateKey)(nil)),
		"Signer.Public panicked":   auth.ES256((*opaque)(nil)),
		"printable ASCII":          auth.EdDSA(privateKeys()["EdDSA"]).WithID("a b"),
	} {
		_, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{key}})
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, "VerifierConfig.Keys[0]")
	}
	if weak != nil {
		_, err = auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.PS256(weak)}})
		require.ErrorContains(t, err, "1024 bits")
	}

	base := auth.Config{Issuer: issuer, Audience: []string{audience}, Users: newUsers()}
	base.AccessKeys = auth.Keys{auth.EdDSA(privateKeys()["EdDSA"].Public())}
	base.RefreshKeys = auth.Keys{auth.ES256(p256)}
	_, err = auth.New(base)
	require.ErrorContains(t, err, "Config.AccessKeys has no key that signs; add a private key or a secret")
	require.ErrorContains(t, err, "Config.RefreshKeys[0] (ES256) must be an HMAC key")
}

func TestKeys_OneKeyIsForOneAlgorithm(t *testing.T) {
	t.Parallel()
	_, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience},
		Keys: auth.Keys{auth.PS256(privateKeys()["PS256"]), auth.RS256(privateKeys()["PS256"]).WithID("x")},
	})
	require.ErrorContains(t, err, "VerifierConfig.Keys[0] and VerifierConfig.Keys[1] are the same key with different algorithms")
}

// wrongSigner returns wrong signatures, or panics.
type wrongSigner struct{ crypto.Signer }

func (w wrongSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if len(digest) == 32 { // P-256
		digest = make([]byte, 32)
	} else if len(digest) > 400 {
		panic("a signer of the application")
	}
	return w.Signer.Sign(random, digest, opts)
}

func TestSigner_WrongSignaturesAreDetected(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.ES256(wrongSigner{privateKeys()["ES256"]})))
	_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.ErrorContains(t, err, "does not verify")
	fx = newFixture(t, withAccessKeys(auth.EdDSA(wrongSigner{privateKeys()["EdDSA"]})))
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("y", 600)} })
	_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorContains(t, err, "Signer panicked")
}

func TestSetKeys_DelaysSigningByAnUnpublishedKey(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	signs := func(fx *fixture) string { return headerOf(t, fx.login(t).Access)["alg"] }

	// A key that was removed is new again.
	fx := newFixture(t, withAccessKeys(es))
	require.NoError(t, fx.SetKeys(auth.Keys{ed, es}, nil))
	fx.clock.Advance(time.Hour)
	require.Equal(t, "EdDSA", signs(fx))
	require.NoError(t, fx.SetKeys(auth.Keys{es, ed}, nil))
	require.Equal(t, "EdDSA", signs(fx))

	// A different key with the same ID is a new key.
	fx = newFixture(t, withAccessKeys(es.WithID("main")))
	require.ErrorContains(t, fx.SetKeys(auth.Keys{ed.WithID("main")}, nil), "may sign yet")

	// The private key of a public key that was just published waits as well.
	fx = newFixture(t, withAccessKeys(es))
	require.NoError(t, fx.SetKeys(auth.Keys{es, auth.EdDSA(privateKeys()["EdDSA"].Public())}, nil))
	require.NoError(t, fx.SetKeys(auth.Keys{ed, es}, nil))
	require.Equal(t, "ES256", signs(fx))
	fx.clock.Advance(6 * time.Minute)
	require.Equal(t, "EdDSA", signs(fx))

	// A SignFrom before the key was configured does not remove other keys.
	fx = newFixture(t, withAccessKeys(es))
	before := fx.login(t)
	require.NoError(t, fx.SetKeys(auth.Keys{ed.SignFrom(fx.clock.Now().Add(-24 * time.Hour)), es}, nil))
	_, err := fx.Verify(context.Background(), before.Access)
	require.NoError(t, err)

	// Changing the refresh keys does not change the access keys.
	fx = newFixture(t, withAccessKeys(ed.SignFrom(newClock().Now().Add(time.Hour))))
	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(secret)}))
}

func TestSigner_ThatFailsIs503AndSpendsNoToken(t *testing.T) {
	t.Parallel()
	signer := &opaque{Signer: privateKeys()["ES256"]}
	fx := newFixture(t, withAccessKeys(auth.ES256(signer)))
	tokens := fx.login(t)
	signer.fail = errors.New("the HSM is away")
	_, err := fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Zero(t, fx.store.count("Rotate"))
	_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	signer.fail = nil
	_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
}

// published returns the kids of the JWKS, and the whole response.
func published(t *testing.T, fx *fixture, etag ...string) ([]string, *httptest.ResponseRecorder) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/jwks.json", nil)
	for _, e := range etag {
		r.Header.Add("If-None-Match", e)
	}
	w := httptest.NewRecorder()
	fx.Handler().ServeHTTP(w, r)
	var set struct{ Keys []map[string]string }
	if w.Code == http.StatusOK {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	}
	var kids []string
	for _, k := range set.Keys {
		require.Equal(t, "sig", k["use"])
		require.Empty(t, k["d"])
		kids = append(kids, k["kid"])
	}
	return kids, w
}

func TestSetKeys_PublicKeyLifecycle(t *testing.T) {
	t.Parallel()
	first, second := auth.ES256(privateKeys()["ES256"]), auth.EdDSA(privateKeys()["EdDSA"])
	fx := newFixture(t, withAccessKeys(first))
	ctx := context.Background()
	kid := func() string { return headerOf(t, fx.login(t).Access)["kid"] }
	kids, w := published(t, fx)
	require.Equal(t, []string{first.ID()}, kids)
	require.Equal(t, "public, max-age=300", w.Header().Get("Cache-Control"))

	require.NoError(t, fx.SetKeys(auth.Keys{second, first}, nil))
	kids, _ = published(t, fx)
	require.Equal(t, []string{second.ID(), first.ID()}, kids, "the key must be published at once")
	fx.clock.Advance(5*time.Minute + 10*time.Second - time.Millisecond)
	require.Equal(t, first.ID(), kid(), "caches filled before do not contain the key")
	last := fx.login(t)
	fx.clock.Advance(time.Millisecond)
	require.Equal(t, second.ID(), kid())

	fx.clock.Advance(15*time.Minute - 2*time.Second)
	_, err := fx.Verify(ctx, last.Access)
	require.NoError(t, err, "tokens of the old key must stay valid")
	kids, _ = published(t, fx)
	require.Len(t, kids, 2)
	fx.clock.Advance(2*time.Second + 20*time.Second)
	kids, _ = published(t, fx)
	require.Equal(t, []string{second.ID()}, kids, "the key must be removed when all its tokens have expired")

	// Setting the same keys again changes nothing.
	require.NoError(t, fx.SetKeys(auth.Keys{second, first}, nil))
	kids, _ = published(t, fx)
	require.Equal(t, []string{second.ID()}, kids)
}

func TestSetKeys_TokensOfARemovedKeyAreRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.ES256(privateKeys()["ES256"]).WithID("k")))
	now := fx.clock.Now().Unix()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "u1", "sid": "s", "jti": "j", "iat": now, "exp": now + 86400, "auth_time": now, "session_exp": now + 86400,
	})
	token.Header["typ"], token.Header["kid"] = "at+jwt", "k"
	foreign, err := token.SignedString(privateKeys()["ES256"])
	require.NoError(t, err)
	own := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"k"}`)) + foreign[strings.IndexByte(foreign, '.'):]
	sig, err := jwt.SigningMethodES256.Sign(own[:strings.LastIndexByte(own, '.')], privateKeys()["ES256"])
	require.NoError(t, err)
	own = own[:strings.LastIndexByte(own, '.')+1] + base64.RawURLEncoding.EncodeToString(sig)
	for _, text := range []string{foreign, own} {
		_, err = fx.Verify(context.Background(), text)
		require.NoError(t, err)
	}
	require.NoError(t, fx.SetKeys(auth.Keys{auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"]).WithID("k")}, nil))
	fx.clock.Advance(time.Hour)
	for _, text := range []string{foreign, own} { // the second result comes from the cache
		_, err = fx.Verify(context.Background(), text)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
}

func TestSetKeys_SecretsTakeEffectAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.HS256(secret)))
	ctx := context.Background()
	before := fx.login(t)
	next := auth.HS512([]byte("sixty-four bytes of a secret, and a few more so that it is long enough"))
	require.NoError(t, fx.SetKeys(auth.Keys{next, auth.HS256(secret)}, nil))
	require.Equal(t, "HS512", headerOf(t, fx.login(t).Access)["alg"])
	_, err := fx.Verify(ctx, before.Access)
	require.NoError(t, err)
	require.NoError(t, fx.SetKeys(auth.Keys{next}, nil))
	_, err = fx.Verify(ctx, before.Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	kids, _ := published(t, fx)
	require.Empty(t, kids, "secrets are never published")

	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256([]byte("a third secret, for refresh tokens!!"))}))
	_, err = fx.Refresh(ctx, before.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

func TestSetKeys_RefusesWhatNewRefuses(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.HS256(secret)))
	ed := auth.EdDSA(privateKeys()["EdDSA"])
	for text, keys := range map[string][2]auth.Keys{
		"SetKeys: AccessKeys is empty":           {auth.Keys{}, nil},
		"SetKeys: RefreshKeys[0] (EdDSA)":        {nil, auth.Keys{ed}},
		"have the same secret":                   {nil, auth.Keys{auth.HS256(secret)}},
		"no access key may sign yet":             {auth.Keys{ed}, nil},
		"SetKeys: AccessKeys[0] is the zero Key": {auth.Keys{{}}, nil},
	} {
		require.ErrorContains(t, fx.SetKeys(keys[0], keys[1]), text)
	}
	fx.login(t) // the keys have not changed
	require.NoError(t, fx.SetKeys(auth.Keys{ed.SignFrom(fx.clock.Now())}, nil), "an explicit SignFrom must take effect")
}

func TestSignFrom_InTheConfigurationSurvivesARestart(t *testing.T) {
	t.Parallel()
	at := newClock().Now().Add(time.Hour)
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]).SignFrom(at), auth.ES256(privateKeys()["ES256"])
	fx := newFixture(t, withAccessKeys(ed, es))
	require.Equal(t, "ES256", headerOf(t, fx.login(t).Access)["alg"])
	fx.clock.Advance(time.Hour)
	require.Equal(t, "EdDSA", headerOf(t, fx.login(t).Access)["alg"])
}

func TestJWKSHandler_IsCacheableAndConditional(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"])), func(c *auth.Config) { c.JWKSMaxAge = time.Minute })
	_, w := published(t, fx)
	etag := w.Header().Get("ETag")
	require.NotEmpty(t, etag)
	require.Equal(t, "public, max-age=60", w.Header().Get("Cache-Control"))
	for _, header := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		_, w = published(t, fx, header)
		require.Equal(t, http.StatusNotModified, w.Code)
		require.Empty(t, w.Body.String())
	}
	_, w = published(t, fx, `"other"`)
	require.Equal(t, http.StatusOK, w.Code)
	require.NoError(t, fx.SetKeys(auth.Keys{auth.ES256(privateKeys()["ES256"]), auth.EdDSA(privateKeys()["EdDSA"])}, nil))
	_, w = published(t, fx, etag)
	require.Equal(t, http.StatusOK, w.Code)

	r := httptest.NewRequest(http.MethodPost, "/jwks.json", nil)
	w = httptest.NewRecorder()
	fx.JWKSHandler().ServeHTTP(w, r)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

func TestKeyID_IsTheThumbprintOfThePublicKey(t *testing.T) {
	t.Parallel()
	// RFC 7638 section 3.1 and RFC 8037 appendix A.3.
	_, err := auth.ParseJWK(
		[]byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["verify"],"iat":1,"ext":true,"x5c":[]}`),
	)
	require.NoError(t, err, "unknown members must be ignored")
	for want, text := range map[string]string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}`,
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	} {
		key, err := auth.ParseJWK([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, key.ID())
	}
}

func TestParse_PEMAndJWKGiveTheSameKey(t *testing.T) {
	t.Parallel()
	for alg, private := range privateKeys() {
		if alg == "RS256" {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		pub, err := x509.MarshalPKIXPublicKey(private.Public())
		require.NoError(t, err)
		key, err := auth.ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		require.NoError(t, err, alg)
		public, err := auth.ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
		require.NoError(t, err, alg)
		require.Equal(t, key.ID(), public.ID())

		fx := newFixture(t, withAccessKeys(key))
		tokens := fx.login(t)
		require.Equal(t, alg, headerOf(t, tokens.Access)["alg"])
		_, w := published(t, fx)
		var set struct{ Keys []json.RawMessage }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
		again, err := auth.ParseJWK(set.Keys[0])
		require.NoError(t, err, alg)
		for _, half := range []auth.Key{public, again} {
			require.Equal(t, key.ID(), half.ID())
			v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{half}, Now: fx.clock.Now})
			require.NoError(t, err)
			_, err = v.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, alg)
		}
	}
}

func TestParse_RefusesWhatIsNotOneKey(t *testing.T) {
	t.Parallel()
	der, err := x509.MarshalPKCS8PrivateKey(privateKeys()["EdDSA"])
	require.NoError(t, err)
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for _, text := range []string{
		"", "nonsense", block + block, strings.Replace(block, "PRIVATE", "CERTIFICATE", 2),
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})),
	} {
		_, err := auth.ParsePEM([]byte(text))
		require.Error(t, err, text)
	}
	const x = `"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	for _, text := range []string{
		"", "[]", "{}", `{"kty":"oct","k":"AAAA"}`, `{"kty":"OKP","crv":"Ed25519"}`, `{"kty":"OKP","crv":"X25519",` + x + `}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"d":"AAAA"}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"use":"enc"}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"alg":"ES256"}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"kid":""}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,` + x + `}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"kid":7}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"key_ops":["encrypt"]}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"key_ops":"verify"}`, `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`,
		`{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`,
		`{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`,
		`{"kty":"RSA","n":"AQAB","e":"AQAB"}`, `{"kty":"RSA","e":"AQAB"}`, `{"KTY":"OKP","crv":"Ed25519",` + x + `}`,
		`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="}`,
	} {
		_, err := auth.ParseJWK([]byte(text))
		require.Error(t, err, text)
		require.True(t, strings.HasPrefix(err.Error(), "auth: "), err)
	}
}

func TestParseJWK_PrivateHalfMustFitThePublicOne(t *testing.T) {
	t.Parallel()
	enc := base64.RawURLEncoding.EncodeToString
	ed := privateKeys()["EdDSA"].(ed25519.PrivateKey)
	ec := privateKeys()["ES256"].(*ecdsa.PrivateKey)
	scalar, err := ec.Bytes()
	require.NoError(t, err)
	point, err := ec.PublicKey.Bytes()
	require.NoError(t, err)
	rsaKey := privateKeys()["PS256"].(*rsa.PrivateKey)
	other := bytes.Clone(scalar)
	other[31] ^= 1
	okp := func(d []byte) string {
		return `{"kty":"OKP","crv":"Ed25519","x":"` + enc(ed.Public().(ed25519.PublicKey)) + `","d":"` + enc(d) + `"}`
	}
	p256 := func(d []byte) string {
		return `{"kty":"EC","crv":"P-256","x":"` + enc(point[1:33]) + `","y":"` + enc(point[33:]) + `","d":"` + enc(d) + `"}`
	}
	rsaJWK := func(d *big.Int) string {
		return `{"kty":"RSA","alg":"RS256","e":"AQAB","n":"` + enc(rsaKey.N.Bytes()) + `","d":"` + enc(d.Bytes()) + `","p":"` + enc(
			rsaKey.Primes[0].Bytes(),
		) + `","q":"` + enc(rsaKey.Primes[1].Bytes()) + `"}`
	}
	for _, good := range []string{okp(ed.Seed()), p256(scalar), rsaJWK(rsaKey.D)} {
		key, err := auth.ParseJWK([]byte(good))
		require.NoError(t, err)
		newFixture(t, withAccessKeys(key)).login(t) // it signs
	}
	for _, bad := range []string{okp(make([]byte, 32)), p256(other), p256(make([]byte, 32)), rsaJWK(big.NewInt(5))} {
		_, err := auth.ParseJWK([]byte(bad))
		require.ErrorContains(t, err, "match")
	}
}

func FuzzParsePEM(f *testing.F) {
	for _, private := range privateKeys() {
		der, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(f, err)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		der, err = x509.MarshalPKIXPublicKey(private.Public())
		require.NoError(f, err)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := auth.ParsePEM(data); err == nil {
			require.NotEmpty(t, key.ID())
			_, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{key}})
			require.NoError(t, err)
		}
	})
}

func FuzzParseJWK(f *testing.F) {
	for alg, private := range privateKeys() {
		b := httptest.NewRecorder()
		a, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Users: newUsers(),
			AccessKeys: auth.Keys{publicAlgs[alg](private)}, RefreshKeys: auth.Keys{auth.HS256(secret)},
		})
		require.NoError(f, err)
		a.JWKSHandler().ServeHTTP(b, httptest.NewRequest(http.MethodGet, "/", nil))
		var set struct{ Keys []json.RawMessage }
		require.NoError(f, json.Unmarshal(b.Body.Bytes(), &set))
		f.Add([]byte(set.Keys[0]))
	}
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := auth.ParseJWK(data)
		if err != nil {
			return
		}
		require.NotEmpty(t, key.ID())
		// encoding/json must read accepted input in the same way.
		var m map[string]any
		require.NoError(t, json.Unmarshal(data, &m))
		require.Contains(t, []any{"OKP", "EC", "RSA"}, m["kty"])
		if kid, ok := m["kid"]; ok {
			require.Equal(t, kid, key.ID())
		}
	})
}
