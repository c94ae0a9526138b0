package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/ratchet-go/auth/internal/keycheck"
)

// Key signs or verifies tokens with one algorithm. Create a Key with [HS256],
// [EdDSA], [ES256] or a similar function, or parse one with [ParsePEM] or
// [ParseJWK]. Printing shows only its algorithm and ID.
//
// The functions that create a Key return no error: [New] and [NewVerifier] report
// an invalid key. They also refuse the zero Key.
type Key struct {
	*key
	id   string    // replaces key.id if not empty
	from time.Time // when it starts to sign
}

type key struct {
	id  string
	alg string
	err error // returned by New

	// Secrets are in functions, because package fmt can print what a pointer
	// points to, even in unexported fields, but not what a function returns.
	secret func() []byte // HMAC
	macs   sync.Pool     // of *mac

	method jwt.SigningMethod // any other algorithm
	alias  string            // another name of alg in tokens; empty if none
	hash   crypto.Hash
	public crypto.PublicKey
	signer func() crypto.Signer // nil if the key only verifies
}

// mac is an HMAC and its buffers.
type mac struct {
	hash  hash.Hash
	input []byte
	sum   []byte
}

// HS256 returns a key for HMAC with SHA-256 (RFC 7518 section 3.2). It copies the
// secret, which must be at least 32 random bytes, for example from
// `openssl rand -base64 48`. [New] refuses a shorter secret, a key or certificate
// in any encoding, a published example, a placeholder, words, a repetition, and a
// secret with fewer than 8 different bytes. It cannot detect other bytes that are
// not random.
//
// A service that verifies tokens with the key can also sign them. For services
// that only verify, use [EdDSA] or [ES256].
func HS256(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS256, secret) }

// HS384 is like [HS256], with SHA-384 and at least 48 bytes.
func HS384(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS384, secret) }

// HS512 is like [HS256], with SHA-512 and at least 64 bytes.
func HS512(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS512, secret) }

// EdDSA returns a key for Ed25519 (RFC 8037 section 3.1). k is a [crypto.Signer],
// such as an [ed25519.PrivateKey] or a key in a KMS or HSM, or an
// [ed25519.PublicKey], which only verifies. Use EdDSA where other services
// verify tokens, unless they do not support it.
func EdDSA(k any) Key { return newPublicKey(jwt.SigningMethodEdDSA, 0, k) }

// ES256 returns a key for ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4). k
// is a [crypto.Signer], or an [*ecdsa.PublicKey], which only verifies.
func ES256(k any) Key { return newPublicKey(jwt.SigningMethodES256, crypto.SHA256, k) }

// ES384 is like [ES256], on P-384 with SHA-384.
func ES384(k any) Key { return newPublicKey(jwt.SigningMethodES384, crypto.SHA384, k) }

// ES512 is like [ES256], on P-521 with SHA-512.
func ES512(k any) Key { return newPublicKey(jwt.SigningMethodES512, crypto.SHA512, k) }

// PS256 returns a key for RSASSA-PSS with SHA-256 and a salt as long as the hash
// (RFC 7518 section 3.5). k is a [crypto.Signer], or an [*rsa.PublicKey], which
// only verifies. The key must have 2048 to 8192 bits.
func PS256(k any) Key { return newPublicKey(jwt.SigningMethodPS256, crypto.SHA256, k) }

// RS256 is like [PS256], with RSASSA-PKCS1-v1_5 (RFC 7518 section 3.3). Use it
// only for verifiers that support nothing else: RFC 8017 section 8 requires
// RSASSA-PSS in new applications, and signatures have been forged where verifiers
// did not check the padding completely.
func RS256(k any) Key { return newPublicKey(jwt.SigningMethodRS256, crypto.SHA256, k) }

func newHMACKey(m *jwt.SigningMethodHMAC, secret []byte) Key {
	secret = bytes.Clone(secret)
	k := &key{alg: m.Alg(), secret: func() []byte { return secret }}
	if k.err = keycheck.Secret(secret, m.Hash.Size()); k.err != nil {
		return Key{key: k}
	}
	k.macs.New = func() any { return &mac{hash: hmac.New(m.Hash.New, secret)} }
	// The ID is not the thumbprint of RFC 7638, which is a digest of the secret:
	// with it anyone could test guesses of the secret.
	id := hmac.New(sha256.New, secret)
	id.Write([]byte("ratchet key id " + k.alg))
	k.id = base64.RawURLEncoding.EncodeToString(id.Sum(nil)[:9])
	return Key{key: k}
}

// otherKeyFor returns a key for the algorithm alg, which is not the one that
// keyFor chooses. ok is false if there is no such algorithm for the key.
func otherKeyFor(alg string, from any) (Key, bool) {
	var k Key
	switch alg {
	case "Ed25519":
		k = EdDSA(from)
		k.alias = alg
		_, ok := k.public.(ed25519.PublicKey)
		return k, ok
	case "RS256":
		k = RS256(from)
	case "RS384":
		k = newPublicKey(jwt.SigningMethodRS384, crypto.SHA384, from)
	case "RS512":
		k = newPublicKey(jwt.SigningMethodRS512, crypto.SHA512, from)
	case "PS384":
		k = newPublicKey(jwt.SigningMethodPS384, crypto.SHA384, from)
	case "PS512":
		k = newPublicKey(jwt.SigningMethodPS512, crypto.SHA512, from)
	default:
		return Key{}, false
	}
	if k.err == nil && k.signer != nil && alg != "RS256" {
		k.key = &key{alg: alg, err: fmt.Errorf("keys for %s only verify; use the public key, or sign with PS256 or RS256", alg)}
	}
	_, ok := from.(*rsa.PublicKey)
	_, private := from.(*rsa.PrivateKey)
	return k, ok || private
}

func newPublicKey(m jwt.SigningMethod, h crypto.Hash, from any) Key {
	k := &key{alg: m.Alg(), method: m, hash: h, public: from}
	if k.err = checkPrivate(from); k.err != nil {
		return Key{key: k}
	}
	if signer, ok := from.(crypto.Signer); ok {
		k.signer = func() crypto.Signer { return signer }
		k.err = callHook("Signer.Public", func() error {
			k.public = signer.Public()
			return nil
		})
	}
	if k.err == nil {
		k.err = k.checkPublic()
	}
	if k.err == nil {
		k.id = thumbprint(k.public)
	}
	return Key{key: k}
}

// WithID returns a copy of k with the ID id, which must be 1 to 128 printable
// ASCII characters. The default ID is the thumbprint of the public key (RFC
// 7638), or a short HMAC computed with the secret.
func (k Key) WithID(id string) Key {
	if k.key != nil && k.err == nil && (id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })) {
		k.key = &key{alg: k.alg, err: errors.New("the ID must be 1 to 128 printable ASCII characters")}
	}
	k.id = id
	return k
}

// SignFrom returns a copy of k that signs only from t on. Before t the key
// verifies, and is published if it has a public half, while another key of the
// list signs. If all processes get the key before t, they change to it at the
// same time. See [Authenticator.SetKeys].
func (k Key) SignFrom(t time.Time) Key {
	k.from = t
	return k
}

// ID returns the key's ID, which is the kid of the tokens that it signs.
func (k Key) ID() string {
	switch {
	case k.key == nil:
		return ""
	case k.id != "":
		return k.id
	}
	return k.key.id
}

// Format prints the algorithm and the ID of the key, never the key.
func (k Key) Format(f fmt.State, _ rune) {
	if k.key == nil {
		_, _ = fmt.Fprint(f, "auth.Key{}")
		return
	}
	_, _ = fmt.Fprintf(f, "auth.Key{%s %s}", k.alg, k.ID())
}

// MarshalText returns what Format prints, so that encoders do not reveal more.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// usable reports whether k can verify tokens.
func (k Key) usable() bool { return k.key != nil && k.err == nil }

// sameSecret reports whether two keys compute the same HMACs if they have the
// same hash. HMAC appends zero bytes to a secret (RFC 2104 section 2).
func (k Key) sameSecret(other Key) bool {
	if k.key == nil || other.key == nil || k.secret == nil || other.secret == nil {
		return false
	}
	return bytes.Equal(bytes.TrimRight(k.secret(), "\x00"), bytes.TrimRight(other.secret(), "\x00"))
}

func (k *key) signs() bool { return k.secret != nil || k.signer != nil }

// isPSS reports whether the key is for RSASSA-PSS.
func (k *key) isPSS() bool {
	_, ok := k.method.(*jwt.SigningMethodRSAPSS)
	return ok
}

// isFor reports whether alg, from the header of a token, is the algorithm of the
// key, or its alias if it has one.
func (k *key) isFor(alg string) bool {
	return alg == k.alg || alg != "" && alg == k.alias
}

// samePublic reports whether two keys have the same public half.
func (k Key) samePublic(other Key) bool {
	if k.key == nil || other.key == nil || k.err != nil || other.err != nil {
		return false
	}
	p, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && p.Equal(other.public)
}

// sign returns the signature of input. For HMAC it cannot fail.
func (k *key) sign(input []byte) ([]byte, error) {
	if k.secret != nil {
		m := macOf(k, input)
		defer k.macs.Put(m)
		return bytes.Clone(m.sum), nil
	}
	message := input
	var opts crypto.SignerOpts = k.hash
	if k.hash != 0 {
		h := k.hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	if k.isPSS() {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}
	}
	signer := k.signer()
	var sig []byte
	err := callHook("Signer", func() (err error) {
		sig, err = signer.Sign(rand.Reader, message, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	if curve, ok := k.public.(*ecdsa.PublicKey); ok {
		// A Signer returns ASN.1; RFC 7518 section 3.4 requires two numbers of
		// fixed length.
		var point struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(sig, &point); err != nil || len(rest) > 0 {
			return nil, errors.New("the signer returned a malformed ECDSA signature")
		}
		size := (curve.Curve.Params().BitSize + 7) / 8
		if point.R.Sign() <= 0 || point.S.Sign() <= 0 || point.R.BitLen() > 8*size || point.S.BitLen() > 8*size {
			return nil, errors.New("the signer returned a malformed ECDSA signature")
		}
		sig = make([]byte, 2*size)
		point.R.FillBytes(sig[:size])
		point.S.FillBytes(sig[size:])
	}
	// Tokens with a wrong signature would sign every user out.
	if !k.isLocal() && !k.verifyPublic(string(input), sig) {
		return nil, errors.New("the signer returned a signature that does not verify")
	}
	return sig, nil
}

// isLocal reports whether the standard library signs with the key, in this process.
func (k *key) isLocal() bool {
	if k.secret != nil {
		return true
	}
	switch k.signer().(type) {
	case ed25519.PrivateKey, *ecdsa.PrivateKey, *rsa.PrivateKey:
		return true
	}
	return false
}

// verify reports whether sig is the signature of input.
func (k *key) verify(input string, sig []byte) bool {
	if k.secret != nil {
		m := macOf(k, input)
		defer k.macs.Put(m)
		return subtle.ConstantTimeCompare(m.sum, sig) == 1
	}
	return k.verifyPublic(input, bytes.Clone(sig))
}

func (k *key) verifyPublic(input string, sig []byte) bool {
	if k.isPSS() { // golang-jwt accepts a salt of any length
		h := k.hash.New()
		h.Write([]byte(input))
		public := k.public.(*rsa.PublicKey)
		return rsa.VerifyPSS(public, k.hash, h.Sum(nil), sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}) == nil
	}
	return k.method.Verify(input, sig, k.public) == nil
}

// macOf returns the HMAC of input. The caller puts it back into k.macs.
func macOf[T string | []byte](k *key, input T) *mac {
	m := k.macs.Get().(*mac)
	m.input = append(m.input[:0], input...)
	m.hash.Reset()
	m.hash.Write(m.input)
	m.sum = m.hash.Sum(m.sum[:0])
	return m
}

// checkPublic returns an error if the public key does not fit the algorithm or
// is not safe.
func (k *key) checkPublic() error {
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		if k.alg != "EdDSA" {
			return fmt.Errorf("an Ed25519 key cannot be used for %s; use EdDSA", k.alg)
		}
		if len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("the Ed25519 key is %d bytes; it must be %d", len(public), ed25519.PublicKeySize)
		}
		if bytes.Count(public, []byte{0}) == len(public) {
			return errors.New("the Ed25519 key is all zero")
		}
		if !keycheck.IsEd25519Point(public) {
			return errors.New("the Ed25519 key is not a point of large order on the curve")
		}
	case *ecdsa.PublicKey:
		m, ok := k.method.(*jwt.SigningMethodECDSA)
		if !ok {
			return fmt.Errorf("an ECDSA key cannot be used for %s; use ES256, ES384 or ES512", k.alg)
		}
		if public == nil || public.Curve == nil || curveName(public.Curve) == "" || public.Curve.Params().BitSize != m.CurveBits {
			return fmt.Errorf("the key is not on the curve of %s%s", k.alg, curveAdvice(public))
		}
		if _, err := public.ECDH(); err != nil { // fails if the point is not on the curve
			return errors.New("the point is not on the curve")
		}
	case *rsa.PublicKey:
		if _, ok := k.method.(*jwt.SigningMethodRSA); !ok && !k.isPSS() {
			return fmt.Errorf("an RSA key cannot be used for %s; use PS256", k.alg)
		}
		if public == nil || public.N == nil {
			return errors.New("the RSA key is empty")
		}
		if bits := public.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("the RSA key has %d bits; it must have 2048 to 8192", bits)
		}
		if public.E < 65537 || public.E > 1<<31-1 || public.E&1 == 0 || public.N.Bit(0) == 0 {
			return fmt.Errorf("the RSA key's exponent (%d) or modulus is invalid", public.E)
		}
		if keycheck.IsROCA(public.N) {
			return errors.New("the RSA key was made by a faulty chip, and its private key can be computed (ROCA, CVE-2017-15361); create another key elsewhere")
		}
	default:
		return fmt.Errorf("a %T cannot be used for %s; %s", k.public, k.alg, keyAdvice(k.public))
	}
	return nil
}

// curveAdvice returns the end of an error text that names the function for the
// curve of a key, or "" if there is none.
func curveAdvice(public *ecdsa.PublicKey) string {
	if public == nil {
		return ""
	}
	switch public.Curve {
	case elliptic.P256():
		return "; it is on P-256, so use ES256"
	case elliptic.P384():
		return "; it is on P-384, so use ES384"
	case elliptic.P521():
		return "; it is on P-521, so use ES512"
	}
	return ""
}

// keyAdvice returns the end of an error text that says what to pass instead of a
// value that is no key.
func keyAdvice(from any) string {
	switch from.(type) {
	case ecdsa.PrivateKey, ecdsa.PublicKey, rsa.PrivateKey, rsa.PublicKey:
		return "pass a pointer to it"
	}
	return "pass a private key or a public key; ParsePEM reads one from the content of a PEM file"
}

// isPublished reports whether the secret of k is published by other: as its
// public key in any encoding, or as its ID.
func (k Key) isPublished(other Key) bool {
	return k.usable() && other.usable() && k.secret != nil && other.public != nil &&
		keycheck.IsPublic(k.secret(), other.public, other.ID(), thumbprint(other.public))
}

// checkPrivate returns an error if a private key of the standard library cannot
// sign. It cannot check other signers.
func checkPrivate(from any) error {
	mismatch := errors.New("the private key does not match its public half")
	switch private := from.(type) {
	case ed25519.PrivateKey:
		if len(private) != ed25519.PrivateKeySize {
			advice := ""
			if len(private) == ed25519.SeedSize {
				advice = "; use ed25519.NewKeyFromSeed if it is a seed"
			}
			return fmt.Errorf("the Ed25519 private key is %d bytes; it must be %d%s", len(private), ed25519.PrivateKeySize, advice)
		}
		if !bytes.Equal(ed25519.NewKeyFromSeed(private.Seed()), private) {
			return mismatch
		}
	case *ecdsa.PrivateKey:
		if private == nil {
			return errors.New("the ECDSA private key is nil")
		}
		if d, err := private.ECDH(); err == nil { // other curves are refused below
			if q, err := private.PublicKey.ECDH(); err == nil && !d.PublicKey().Equal(q) {
				return mismatch
			}
		}
	case *rsa.PrivateKey:
		if private == nil {
			return errors.New("the RSA private key is nil")
		}
		if private.N != nil && private.Validate() != nil {
			return mismatch
		}
	}
	return nil
}

func curveName(c elliptic.Curve) string {
	switch c {
	case elliptic.P256():
		return "P-256"
	case elliptic.P384():
		return "P-384"
	case elliptic.P521():
		return "P-521"
	}
	return ""
}
