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

// privateKeys are one of each kind.
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

// opaque is a signer of which nothing but the interface is known, as of one in
// an HSM.
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

func TestPublicKeys_SignAndVerifyAndAgreeWithGolangJWT(t *testing.T) {
	t.Parallel()
	for alg, make := range publicAlgs {
		private := privateKeys()[alg]
		for _, key := range []auth.Key{make(private), make(&opaque{Signer: private})} {
			b := newBench(t, withAccessKeys(key))
			tokens := b.login(t)
			require.Equal(t, map[string]string{"alg": alg, "typ": "at+jwt", "kid": key.ID()}, headerOf(t, tokens.Access))
			for range 2 {
				c, err := b.Verify(context.Background(), tokens.Access)
				require.NoError(t, err, alg)
				require.Equal(t, "u1", c.Subject)
			}
			_, err := jwt.Parse(tokens.Access, func(*jwt.Token) (any, error) { return private.Public(), nil }, jwt.WithValidMethods([]string{alg}), jwt.WithTimeFunc(b.clock.Now))
			require.NoError(t, err, alg)

			// The public half verifies, and nothing else of it is needed.
			v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{make(private.Public())}, Now: b.clock.Now})
			require.NoError(t, err)
			_, err = v.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, alg)

			// No bit of the signature may change.
			dot := strings.LastIndexByte(tokens.Access, '.')
			sig, err := base64.RawURLEncoding.DecodeString(tokens.Access[dot+1:])
			require.NoError(t, err)
			for _, i := range []int{0, len(sig) / 2, len(sig) - 1} {
				sig[i] ^= 1
				_, err = v.Verify(context.Background(), tokens.Access[:dot+1]+base64.RawURLEncoding.EncodeToString(sig))
				require.ErrorIs(t, err, auth.ErrInvalidToken, alg)
				sig[i] ^= 1
			}
			for _, odd := range [][]byte{nil, sig[1:], append([]byte{0}, sig...), make0(len(sig))} {
				_, err = v.Verify(context.Background(), tokens.Access[:dot+1]+base64.RawURLEncoding.EncodeToString(odd))
				require.ErrorIs(t, err, auth.ErrInvalidToken, alg)
			}
		}
	}
}

func make0(n int) []byte { return make([]byte, n) }

func TestVerify_TakesSignaturesOfTheLargestRSAKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"])))
	token := b.login(t).Access
	signed := token[:strings.LastIndexByte(token, '.')+1]
	for size, want := range map[int]string{1024: "does not verify", 1025: "too long"} {
		_, err := b.Verify(context.Background(), signed+base64.RawURLEncoding.EncodeToString(make([]byte, size)))
		require.ErrorContains(t, err, want)
	}
}

func TestPublicKeys_AlgorithmBelongsToTheKey(t *testing.T) {
	t.Parallel()
	rsaKey := privateKeys()["PS256"]
	signed := newBench(t, withAccessKeys(auth.RS256(rsaKey).WithID("k"))).login(t)
	ps := newBench(t, withAccessKeys(auth.PS256(rsaKey).WithID("k")))
	_, err := ps.Verify(context.Background(), signed.Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	// PS256 with a salt of another length than the hash's (RFC 7518 section 3.5).
	now := ps.clock.Now().Unix()
	claims := jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "u1", "sid": "s", "jti": "j", "iat": now, "exp": now + 60, "auth_time": now, "session_exp": now + 60}
	for salt, want := range map[int]error{rsa.PSSSaltLengthEqualsHash: nil, 20: auth.ErrInvalidToken, 0: auth.ErrInvalidToken, 64: auth.ErrInvalidToken} {
		method := *jwt.SigningMethodPS256
		method.Options = &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		if salt == 0 {
			method.Options.SaltLength = rsa.PSSSaltLengthAuto // as long as fits
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
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it is to be refused
	if err != nil {
		weak = nil // this Go makes none; then there is none to be refused
	}
	p256 := privateKeys()["ES256"].(*ecdsa.PrivateKey)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)} //nolint:staticcheck // as an attacker has it
	big3 := &rsa.PublicKey{N: privateKeys()["PS256"].Public().(*rsa.PublicKey).N, E: 3}
	for text, key := range map[string]auth.Key{
		"is not for EdDSA":         auth.EdDSA(p256),
		"is not for ES256":         auth.ES256(privateKeys()["EdDSA"]),
		"is not for PS256":         auth.PS256(p256),
		"is not on the curve":      auth.ES384(p256),
		"not on the curve of ES25": auth.ES256(p224),
		"point is not on":          auth.ES256(off),
		"is no key for EdDSA":      auth.EdDSA("a string"),
		"a <nil> is no key":        auth.EdDSA(nil),
		"is 3 bytes":               auth.EdDSA(ed25519.PublicKey{1, 2, 3}),
		"all zero":                 auth.EdDSA(make(ed25519.PublicKey, 32)),
		"exponent (3)":             auth.RS256(big3),
		"has 0 bits":               auth.PS256(&rsa.PublicKey{N: new(big.Int), E: 65537}),
		"is empty":                 auth.PS256(&rsa.PublicKey{E: 65537}),
		"not a point":              auth.EdDSA(append(ed25519.PublicKey{1}, make([]byte, 31)...)),
		"a point of large":         auth.EdDSA(append(ed25519.PublicKey{2}, make([]byte, 31)...)),
		"is 63 bytes":              auth.EdDSA(privateKeys()["EdDSA"].(ed25519.PrivateKey)[:63]),
		"is 0 bytes":               auth.EdDSA(ed25519.PrivateKey(nil)),
		"does not fit its public":  auth.EdDSA(ed25519.PrivateKey(append(bytes.Clone(privateKeys()["EdDSA"].(ed25519.PrivateKey)[:32]), make([]byte, 32)...))),
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
	require.ErrorContains(t, err, "Config.AccessKeys has no key that signs")
	require.ErrorContains(t, err, "Config.RefreshKeys[0] (ES256): refresh tokens stay with this service")
}

func TestKeys_OneKeyIsForOneAlgorithm(t *testing.T) {
	t.Parallel()
	_, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience},
		Keys: auth.Keys{auth.PS256(privateKeys()["PS256"]), auth.RS256(privateKeys()["PS256"]).WithID("x")},
	})
	require.ErrorContains(t, err, "VerifierConfig.Keys[0] and VerifierConfig.Keys[1] are one key for two algorithms")
}

// wrongSigner signs, but not as it should.
type wrongSigner struct{ crypto.Signer }

func (w wrongSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if len(digest) == 32 { // P-256
		digest = make([]byte, 32)
	} else if len(digest) > 400 {
		panic("a signer of the application")
	}
	return w.Signer.Sign(random, digest, opts)
}

func TestSigner_ThatSignsInAnotherWayIsFoundOutAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.ES256(wrongSigner{privateKeys()["ES256"]})))
	_, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.ErrorContains(t, err, "does not verify")
	b = newBench(t, withAccessKeys(auth.EdDSA(wrongSigner{privateKeys()["EdDSA"]})))
	b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("y", 600)} })
	_, err = b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorContains(t, err, "Signer panicked")
}

func TestSetKeys_StagesWhatNobodyCanHaveFetched(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	signs := func(b *bench) string { return headerOf(t, b.login(t).Access)["alg"] }

	// One that was gone is new again.
	b := newBench(t, withAccessKeys(es))
	require.NoError(t, b.SetKeys(auth.Keys{ed, es}, nil))
	b.clock.advance(time.Hour)
	require.Equal(t, "EdDSA", signs(b))
	require.NoError(t, b.SetKeys(auth.Keys{es, ed}, nil))
	require.Equal(t, "EdDSA", signs(b))

	// Another key under the same ID is another.
	b = newBench(t, withAccessKeys(es.WithID("main")))
	require.ErrorContains(t, b.SetKeys(auth.Keys{ed.WithID("main")}, nil), "may sign yet")

	// The private half of one that was published a moment ago waits as well.
	b = newBench(t, withAccessKeys(es))
	require.NoError(t, b.SetKeys(auth.Keys{es, auth.EdDSA(privateKeys()["EdDSA"].Public())}, nil))
	require.NoError(t, b.SetKeys(auth.Keys{ed, es}, nil))
	require.Equal(t, "ES256", signs(b))
	b.clock.advance(6 * time.Minute)
	require.Equal(t, "EdDSA", signs(b))

	// A time that had passed before the key was here cannot make others gone.
	b = newBench(t, withAccessKeys(es))
	before := b.login(t)
	require.NoError(t, b.SetKeys(auth.Keys{ed.SignFrom(b.clock.Now().Add(-24 * time.Hour)), es}, nil))
	_, err := b.Verify(context.Background(), before.Access)
	require.NoError(t, err)

	// Other refresh keys do not touch the access keys.
	b = newBench(t, withAccessKeys(ed.SignFrom(newClock().Now().Add(time.Hour))))
	require.NoError(t, b.SetKeys(nil, auth.Keys{auth.HS256(secret)}))
}

func TestSigner_ThatFailsIs503AndSpendsNothing(t *testing.T) {
	t.Parallel()
	signer := &opaque{Signer: privateKeys()["ES256"]}
	b := newBench(t, withAccessKeys(auth.ES256(signer)))
	tokens := b.login(t)
	signer.fail = errors.New("the HSM is away")
	_, err := b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Zero(t, b.store.count("Rotate"))
	_, err = b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	signer.fail = nil
	_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
}

// published returns the kids of the JWKS, and the whole answer.
func published(t *testing.T, b *bench, etag ...string) ([]string, *httptest.ResponseRecorder) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/jwks.json", nil)
	for _, e := range etag {
		r.Header.Add("If-None-Match", e)
	}
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, r)
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

func TestSetKeys_PublicKeyIsPublishedThenSignsThenVerifiesThenIsGone(t *testing.T) {
	t.Parallel()
	first, second := auth.ES256(privateKeys()["ES256"]), auth.EdDSA(privateKeys()["EdDSA"])
	b := newBench(t, withAccessKeys(first))
	ctx := context.Background()
	kid := func() string { return headerOf(t, b.login(t).Access)["kid"] }
	kids, w := published(t, b)
	require.Equal(t, []string{first.ID()}, kids)
	require.Equal(t, "public, max-age=300", w.Header().Get("Cache-Control"))

	require.NoError(t, b.SetKeys(auth.Keys{second, first}, nil))
	kids, _ = published(t, b)
	require.Equal(t, []string{second.ID(), first.ID()}, kids, "published at once")
	b.clock.advance(5*time.Minute + 10*time.Second - time.Millisecond)
	require.Equal(t, first.ID(), kid(), "no cache that was filled before may meet it")
	last := b.login(t)
	b.clock.advance(time.Millisecond)
	require.Equal(t, second.ID(), kid())

	b.clock.advance(15*time.Minute - 2*time.Second)
	_, err := b.Verify(ctx, last.Access)
	require.NoError(t, err, "what the old key signed lives as long as ever")
	kids, _ = published(t, b)
	require.Len(t, kids, 2)
	b.clock.advance(2*time.Second + 20*time.Second)
	kids, _ = published(t, b)
	require.Equal(t, []string{second.ID()}, kids, "gone when nothing that it signed is left")

	// Setting the same keys again changes nothing of that.
	require.NoError(t, b.SetKeys(auth.Keys{second, first}, nil))
	kids, _ = published(t, b)
	require.Equal(t, []string{second.ID()}, kids)
}

func TestSetKeys_WhatAGoneKeySignedIsRefusedHoweverLongItClaimsToLive(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.ES256(privateKeys()["ES256"]).WithID("k")))
	now := b.clock.Now().Unix()
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
		_, err = b.Verify(context.Background(), text)
		require.NoError(t, err)
	}
	require.NoError(t, b.SetKeys(auth.Keys{auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"]).WithID("k")}, nil))
	b.clock.advance(time.Hour)
	for _, text := range []string{foreign, own} { // remembered or not
		_, err = b.Verify(context.Background(), text)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
}

func TestSetKeys_SecretSignsAtOnceAndRemovedKeysAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.HS256(secret)))
	ctx := context.Background()
	before := b.login(t)
	next := auth.HS512([]byte("sixty-four bytes of a secret, and a few more so that it is long enough"))
	require.NoError(t, b.SetKeys(auth.Keys{next, auth.HS256(secret)}, nil))
	require.Equal(t, "HS512", headerOf(t, b.login(t).Access)["alg"])
	_, err := b.Verify(ctx, before.Access)
	require.NoError(t, err)
	require.NoError(t, b.SetKeys(auth.Keys{next}, nil))
	_, err = b.Verify(ctx, before.Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	kids, _ := published(t, b)
	require.Empty(t, kids, "secrets are never published")

	require.NoError(t, b.SetKeys(nil, auth.Keys{auth.HS256([]byte("a third secret, for refresh tokens!!"))}))
	_, err = b.Refresh(ctx, before.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

func TestSetKeys_RefusesWhatNewWould(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.HS256(secret)))
	ed := auth.EdDSA(privateKeys()["EdDSA"])
	for text, keys := range map[string][2]auth.Keys{
		"SetKeys: AccessKeys is empty":           {auth.Keys{}, nil},
		"SetKeys: RefreshKeys[0] (EdDSA)":        {nil, auth.Keys{ed}},
		"of the same secret":                     {nil, auth.Keys{auth.HS256(secret)}},
		"no access key may sign yet":             {auth.Keys{ed}, nil},
		"SetKeys: AccessKeys[0] is the zero Key": {auth.Keys{{}}, nil},
	} {
		require.ErrorContains(t, b.SetKeys(keys[0], keys[1]), text)
	}
	b.login(t) // nothing has changed
	require.NoError(t, b.SetKeys(auth.Keys{ed.SignFrom(b.clock.Now())}, nil), "who says when, has decided")
}

func TestSignFrom_InTheConfigurationSurvivesARestart(t *testing.T) {
	t.Parallel()
	at := newClock().Now().Add(time.Hour)
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]).SignFrom(at), auth.ES256(privateKeys()["ES256"])
	b := newBench(t, withAccessKeys(ed, es))
	require.Equal(t, "ES256", headerOf(t, b.login(t).Access)["alg"])
	b.clock.advance(time.Hour)
	require.Equal(t, "EdDSA", headerOf(t, b.login(t).Access)["alg"])
}

func TestJWKSHandler_IsCacheableAndConditional(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"])), func(c *auth.Config) { c.JWKSMaxAge = time.Minute })
	_, w := published(t, b)
	etag := w.Header().Get("ETag")
	require.NotEmpty(t, etag)
	require.Equal(t, "public, max-age=60", w.Header().Get("Cache-Control"))
	for _, header := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		_, w = published(t, b, header)
		require.Equal(t, http.StatusNotModified, w.Code)
		require.Empty(t, w.Body.String())
	}
	_, w = published(t, b, `"other"`)
	require.Equal(t, http.StatusOK, w.Code)
	require.NoError(t, b.SetKeys(auth.Keys{auth.ES256(privateKeys()["ES256"]), auth.EdDSA(privateKeys()["EdDSA"])}, nil))
	_, w = published(t, b, etag)
	require.Equal(t, http.StatusOK, w.Code)

	r := httptest.NewRequest(http.MethodPost, "/jwks.json", nil)
	w = httptest.NewRecorder()
	b.JWKSHandler().ServeHTTP(w, r)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

func TestKeyID_IsTheThumbprintOfThePublicKey(t *testing.T) {
	t.Parallel()
	// RFC 7638 section 3.1 and RFC 8037 appendix A.3.
	_, err := auth.ParseJWK([]byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["verify"],"iat":1,"ext":true,"x5c":[]}`))
	require.NoError(t, err, "members that mean nothing to us are ignored")
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

		b := newBench(t, withAccessKeys(key))
		tokens := b.login(t)
		require.Equal(t, alg, headerOf(t, tokens.Access)["alg"])
		_, w := published(t, b)
		var set struct{ Keys []json.RawMessage }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
		again, err := auth.ParseJWK(set.Keys[0])
		require.NoError(t, err, alg)
		for _, half := range []auth.Key{public, again} {
			require.Equal(t, key.ID(), half.ID())
			v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{half}, Now: b.clock.Now})
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
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"alg":"ES256"}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"kid":""}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,` + x + `}`,
		`{"kty":"OKP","crv":"Ed25519",` + x + `,"kid":7}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"key_ops":["encrypt"]}`, `{"kty":"OKP","crv":"Ed25519",` + x + `,"key_ops":"verify"}`, `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`, `{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`,
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
		return `{"kty":"RSA","alg":"RS256","e":"AQAB","n":"` + enc(rsaKey.N.Bytes()) + `","d":"` + enc(d.Bytes()) + `","p":"` + enc(rsaKey.Primes[0].Bytes()) + `","q":"` + enc(rsaKey.Primes[1].Bytes()) + `"}`
	}
	for _, good := range []string{okp(ed.Seed()), p256(scalar), rsaJWK(rsaKey.D)} {
		key, err := auth.ParseJWK([]byte(good))
		require.NoError(t, err)
		newBench(t, withAccessKeys(key)).login(t) // it signs
	}
	for _, bad := range []string{okp(make([]byte, 32)), p256(other), p256(make([]byte, 32)), rsaJWK(big.NewInt(5))} {
		_, err := auth.ParseJWK([]byte(bad))
		require.ErrorContains(t, err, "fit")
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
		// What is accepted, encoding/json reads the same way.
		var m map[string]any
		require.NoError(t, json.Unmarshal(data, &m))
		require.Contains(t, []any{"OKP", "EC", "RSA"}, m["kty"])
		if kid, ok := m["kid"]; ok {
			require.Equal(t, kid, key.ID())
		}
	})
}
