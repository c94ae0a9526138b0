package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// Key is a key for signing and verifying tokens, with the one algorithm that
// it is for. Make one with [HS256], [EdDSA], [ES256] and their relatives, or
// read one with [ParsePEM] or [ParseJWK]. It prints as its algorithm and ID
// alone. The zero Key is refused by [New].
type Key struct {
	*key
	id   string    // instead of the key's own
	from time.Time // when it begins to sign
}

type key struct {
	id  string
	alg string
	err error // what New will say of it

	// What is secret is in functions because package fmt, given a verb that
	// pointers do not have, prints what is behind one, also in unexported
	// fields.
	secret func() []byte // HMAC
	macs   sync.Pool     // of *mac

	method jwt.SigningMethod // any other algorithm
	alias  string            // another name of alg that tokens may say; empty if none
	hash   crypto.Hash
	public crypto.PublicKey
	signer func() crypto.Signer // nil: it only verifies
}

// mac is an HMAC and the room that it works in.
type mac struct {
	hash  hash.Hash
	input []byte
	sum   []byte
}

// HS256 is a key for HMAC with SHA-256 (RFC 7518 section 3.2). The secret is
// copied. It has at least 32 random bytes: `openssl rand -base64 48` makes one.
// [New] checks the number of bytes, and refuses keys and certificates in any of
// their encodings, published examples, placeholders, words, and what repeats or
// has fewer than 8 different bytes. Whether the bytes are random it cannot know.
//
// Whoever can verify with it can sign. Services that only verify take tokens
// of [EdDSA] or [ES256] instead.
func HS256(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS256, secret) }

// HS384 is [HS256] with SHA-384, and at least 48 bytes.
func HS384(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS384, secret) }

// HS512 is [HS256] with SHA-512, and at least 64 bytes.
func HS512(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS512, secret) }

// EdDSA is a key for Ed25519 (RFC 8037 section 3.1). It is a [crypto.Signer],
// which may be an [ed25519.PrivateKey] or stand for a key in a KMS or HSM, or
// an [ed25519.PublicKey], which only verifies. This is the first choice where
// other services verify.
func EdDSA(k any) Key { return newPublicKey(jwt.SigningMethodEdDSA, 0, k) }

// ES256 is a key for ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4): a
// [crypto.Signer] or an [*ecdsa.PublicKey], which only verifies.
func ES256(k any) Key { return newPublicKey(jwt.SigningMethodES256, crypto.SHA256, k) }

// ES384 is [ES256] on P-384 with SHA-384.
func ES384(k any) Key { return newPublicKey(jwt.SigningMethodES384, crypto.SHA384, k) }

// ES512 is [ES256] on P-521 with SHA-512.
func ES512(k any) Key { return newPublicKey(jwt.SigningMethodES512, crypto.SHA512, k) }

// PS256 is a key for RSASSA-PSS with SHA-256 and a salt as long as the hash
// (RFC 7518 section 3.5): a [crypto.Signer] or an [*rsa.PublicKey] of 2048 to
// 8192 bits, which only verifies.
func PS256(k any) Key { return newPublicKey(jwt.SigningMethodPS256, crypto.SHA256, k) }

// RS256 is [PS256] with RSASSA-PKCS1-v1_5 (RFC 7518 section 3.3). It is there
// for verifiers that know nothing else: its padding has no proof of security,
// and has been forged where verifiers were careless, so OWASP ASVS disallows
// it for new uses.
func RS256(k any) Key { return newPublicKey(jwt.SigningMethodRS256, crypto.SHA256, k) }

func newHMACKey(m *jwt.SigningMethodHMAC, secret []byte) Key {
	secret = bytes.Clone(secret)
	k := &key{alg: m.Alg(), secret: func() []byte { return secret }}
	if k.err = checkSecret(secret, m.Hash.Size()); k.err != nil {
		return Key{key: k}
	}
	k.macs.New = func() any { return &mac{hash: hmac.New(m.Hash.New, secret)} }
	// A digest of the secret, as RFC 7638 has it, would let anybody test guesses
	// without a token; so does a token, but nothing is won by publishing more.
	id := hmac.New(sha256.New, secret)
	id.Write([]byte("ratchet key id " + k.alg))
	k.id = base64.RawURLEncoding.EncodeToString(id.Sum(nil)[:9])
	return Key{key: k}
}

// otherKeyFor returns the key for an algorithm that its JWK names and that is
// not the usual one for its kind, and whether there is such a one.
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
		k.key = &key{alg: alg, err: fmt.Errorf("keys for %s only verify here; give its public half, or sign by PS256 or RS256", alg)}
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
		k.err = guardHook("Signer.Public", func() error {
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

// WithID returns the key under a kid of the caller's choice: 1 to 128 printable
// ASCII characters. By default it is the thumbprint of a public key (RFC 7638),
// and a short HMAC under a secret.
func (k Key) WithID(id string) Key {
	if k.key != nil && k.err == nil && (id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })) {
		k.key = &key{alg: k.alg, err: errors.New("the ID is not 1 to 128 printable ASCII characters")}
	}
	k.id = id
	return k
}

// SignFrom returns the key as one that signs from then on: until then it is
// published and verifies, but another key of the list signs. It is for secrets
// as well as for public keys, and lets several processes change in one step,
// if all of them have the key before that time. See [Authenticator.SetKeys].
func (k Key) SignFrom(t time.Time) Key {
	k.from = t
	return k
}

// ID returns the kid under which tokens name the key.
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

// MarshalText gives what Format prints, so that no encoder looks further.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// usable reports whether tokens may be verified by the key.
func (k Key) usable() bool { return k.key != nil && k.err == nil }

// sameSecret reports whether two keys make the same HMACs, under the same hash:
// HMAC fills a secret up with zero bytes (RFC 2104 section 2).
func (k Key) sameSecret(other Key) bool {
	if k.key == nil || other.key == nil || k.secret == nil || other.secret == nil {
		return false
	}
	return bytes.Equal(bytes.TrimRight(k.secret(), "\x00"), bytes.TrimRight(other.secret(), "\x00"))
}

// signs reports whether the key can sign.
func (k *key) signs() bool { return k.secret != nil || k.signer != nil }

// isPSS reports whether the key is for RSASSA-PSS.
func (k *key) isPSS() bool {
	_, ok := k.method.(*jwt.SigningMethodRSAPSS)
	return ok
}

// isFor reports whether alg, in the header of a token, names the algorithm of
// the key. The spelling is exact; a key has a second one only if its JWK says
// it.
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
	err := guardHook("Signer", func() (err error) {
		sig, err = signer.Sign(rand.Reader, message, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	if curve, ok := k.public.(*ecdsa.PublicKey); ok {
		// A Signer speaks ASN.1; RFC 7518 section 3.4 has both numbers at length.
		var point struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(sig, &point); err != nil || len(rest) > 0 {
			return nil, errors.New("the signer returned no ECDSA signature")
		}
		size := (curve.Curve.Params().BitSize + 7) / 8
		if point.R.Sign() <= 0 || point.S.Sign() <= 0 || point.R.BitLen() > 8*size || point.S.BitLen() > 8*size {
			return nil, errors.New("the signer returned no ECDSA signature")
		}
		sig = make([]byte, 2*size)
		point.R.FillBytes(sig[:size])
		point.S.FillBytes(sig[size:])
	}
	switch signer.(type) {
	case ed25519.PrivateKey, *ecdsa.PrivateKey, *rsa.PrivateKey:
	default: // one that signs in another way than it should would sign everybody out
		if !k.verifyPublic(string(input), sig) {
			return nil, errors.New("what the signer returned does not verify")
		}
	}
	return sig, nil
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
	if k.isPSS() { // golang-jwt takes a salt of any length
		h := k.hash.New()
		h.Write([]byte(input))
		public := k.public.(*rsa.PublicKey)
		return rsa.VerifyPSS(public, k.hash, h.Sum(nil), sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}) == nil
	}
	return k.method.Verify(input, sig, k.public) == nil
}

// macOf returns the HMAC of input in a state that goes back to k.macs.
func macOf[T string | []byte](k *key, input T) *mac {
	m := k.macs.Get().(*mac)
	m.input = append(m.input[:0], input...)
	m.hash.Reset()
	m.hash.Write(m.input)
	m.sum = m.hash.Sum(m.sum[:0])
	return m
}

// checkPublic returns why a public key cannot be one for its algorithm, or
// nil.
func (k *key) checkPublic() error {
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		if k.alg != "EdDSA" {
			return fmt.Errorf("an Ed25519 key is not for %s", k.alg)
		}
		if len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("the Ed25519 key is %d bytes, it must be %d", len(public), ed25519.PublicKeySize)
		}
		if bytes.Count(public, []byte{0}) == len(public) {
			return errors.New("the Ed25519 key is all zero")
		}
		if !isEd25519Point(public) {
			return errors.New("the Ed25519 key is not a point of large order on its curve")
		}
	case *ecdsa.PublicKey:
		m, ok := k.method.(*jwt.SigningMethodECDSA)
		if !ok {
			return fmt.Errorf("an ECDSA key is not for %s", k.alg)
		}
		if public == nil || public.Curve == nil || curveName(public.Curve) == "" || public.Curve.Params().BitSize != m.CurveBits {
			return fmt.Errorf("the key is not on the curve of %s", k.alg)
		}
		if _, err := public.ECDH(); err != nil { // it refuses what is not on the curve
			return errors.New("the point is not on its curve")
		}
	case *rsa.PublicKey:
		if _, ok := k.method.(*jwt.SigningMethodRSA); !ok && !k.isPSS() {
			return fmt.Errorf("an RSA key is not for %s", k.alg)
		}
		if public == nil || public.N == nil {
			return errors.New("the RSA key is empty")
		}
		if bits := public.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("the RSA key has %d bits, not 2048 to 8192", bits)
		}
		if public.E < 65537 || public.E > 1<<31-1 || public.E&1 == 0 || public.N.Bit(0) == 0 {
			return fmt.Errorf("the RSA key's exponent (%d) or modulus is not sane", public.E)
		}
		if isROCA(public.N) {
			return errors.New("the RSA key was made by a faulty chip, and its private key can be computed (ROCA, CVE-2017-15361); make another one elsewhere")
		}
	default:
		return fmt.Errorf("a %T is no key for %s", k.public, k.alg)
	}
	return nil
}

// isROCA reports whether a modulus has the fingerprint of CVE-2017-15361: both
// of its primes, and so the modulus, are a power of 65537 modulo each small
// prime. A modulus that was made otherwise is one in 2^154 cases.
func isROCA(n *big.Int) bool {
	r := new(big.Int)
	for _, prime := range [...]int64{
		3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
		103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	} {
		want := r.Mod(n, big.NewInt(prime)).Int64()
		power := int64(1)
		for power != want {
			if power = power * 65537 % prime; power == 1 {
				return false // all of them were there
			}
		}
	}
	return true
}

// checkPrivate returns why a private key of the standard library's cannot sign,
// or nil; of other signers nothing is known.
func checkPrivate(from any) error {
	unfit := errors.New("the private key does not fit its public half")
	switch private := from.(type) {
	case ed25519.PrivateKey:
		if len(private) != ed25519.PrivateKeySize {
			return fmt.Errorf("the Ed25519 private key is %d bytes, it must be %d", len(private), ed25519.PrivateKeySize)
		}
		if !bytes.Equal(ed25519.NewKeyFromSeed(private.Seed()), private) {
			return unfit
		}
	case *ecdsa.PrivateKey:
		if private == nil {
			return errors.New("the ECDSA private key is nil")
		}
		if d, err := private.ECDH(); err == nil { // other curves are refused below
			if q, err := private.PublicKey.ECDH(); err == nil && !d.PublicKey().Equal(q) {
				return unfit
			}
		}
	case *rsa.PrivateKey:
		if private == nil {
			return errors.New("the RSA private key is nil")
		}
		if private.N != nil && private.Validate() != nil {
			return unfit
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

// KeySource finds the keys that may have signed a token. It is called
// concurrently, and for every token.
type KeySource interface {
	// VerifyKeys returns the keys that id names; with an empty id, those that
	// a token without a kid may have been signed by. An empty list means that
	// there is no such key, and the token is refused. An error means that it
	// is not known, and is answered by 503.
	VerifyKeys(ctx context.Context, id string) ([]Key, error)
}

// Keys is a list of keys, and a [KeySource]. Where it signs, the first key
// does; all of them verify.
type Keys []Key

// VerifyKeys implements [KeySource].
func (ks Keys) VerifyKeys(_ context.Context, id string) ([]Key, error) {
	if id == "" {
		return ks, nil
	}
	for i := range ks {
		if ks[i].ID() == id {
			return ks[i : i+1 : i+1], nil
		}
	}
	return nil, nil
}

// check returns what is wrong with the keys, each mistake naming its place.
func (ks Keys) check(field string) error {
	var errs []error
	for i, k := range ks {
		switch {
		case k.key == nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Key", field, i))
			continue
		case k.err != nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] (%s): %w", field, i, k.alg, k.err))
			continue
		}
		for j, other := range ks[:i] {
			switch {
			case other.key == nil:
			case other.ID() == k.ID():
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] have the same ID", field, j, field, i))
			case other.sameSecret(k):
				// A key is for one algorithm (RFC 8725 section 3.1).
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are of the same secret", field, j, field, i))
			case other.isPublished(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, j, field, i, howToMake))
			case k.isPublished(other):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, i, field, j, howToMake))
			case other.alg != k.alg && other.samePublic(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are one key for two algorithms", field, j, field, i))
			}
		}
	}
	return errors.Join(errs...)
}

// derivedKeys makes both kinds of keys of one secret (RFC 5869), so that
// neither can stand in for the other.
func derivedKeys(secrets [][]byte) (access, refresh Keys, err error) {
	for _, secret := range secrets {
		for label, to := range map[string]*Keys{"access": &access, "refresh": &refresh} {
			k, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 "+label, sha256.Size)
			if err != nil {
				return nil, nil, fmt.Errorf("auth: deriving keys: %w", err)
			}
			*to = append(*to, HS256(k))
		}
	}
	return access, refresh, nil
}

// published are secrets that stand in documents which people copy from.
var published = [...]string{
	"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow", // RFC 7515 appendix A.1
	"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",                                            // RFC 7520 section 3.5
	"a-string-secret-at-least-256-bits-long",
	"a-valid-string-secret-that-is-at-least-384-bits-long",
	"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
}

// howToMake ends what is said of a secret that somebody else may know.
const howToMake = "; make one with `openssl rand -base64 48`"

// checkSecret returns why a secret cannot be an HMAC key, or nil. size is that
// of the hash (RFC 7518 section 3.2).
//
// An HMAC key is random bytes that nobody else knows. So it is neither
// something that is published or travels as a file of its own, in whatever
// encoding, nor something that a person has typed instead of a secret. Raw
// random bytes, and such bytes in hex, base64 or a UUID, always pass.
func checkSecret(secret []byte, size int) error {
	if len(secret) < size {
		return fmt.Errorf("the secret is %d bytes, at least %d are needed", len(secret), size)
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return errors.New("all bytes of the secret are equal" + howToMake)
	}
	if isKeyMaterial(secret) {
		// An HMAC under a public key can be made by everybody (CVE-2015-9235).
		return errors.New("the secret is a PEM block, a JWK or a DER key, not a random secret" + howToMake)
	}
	if why := weakness(secret); why != "" {
		return errors.New("the secret " + why + howToMake)
	}
	return nil
}

// weakness returns why somebody may guess a secret, or an empty string. What
// an editor, a shell or a buffer adds around a secret, such as white space, NULs
// and quotes, is not part of it, but fills it up.
func weakness(secret []byte) string {
	text := unquoted(strings.TrimRight(strings.TrimPrefix(string(secret), "\uFEFF"), "\r\n"))
	isEdge := func(r rune) bool { return unicode.IsSpace(r) || r == 0 || r == '\uFEFF' }
	core := strings.TrimFunc(unquoted(strings.TrimFunc(text, isEdge)), isEdge)
	if isPublishedSecret(core) {
		return "is a published example"
	}
	if isPlaceholder(core) {
		return "is a placeholder that nothing has replaced"
	}
	var seen [256]bool
	different := 0
	for _, c := range []byte(core) {
		if !seen[c] {
			seen[c] = true
			different++
		}
	}
	if different < 8 {
		return fmt.Sprintf("has %d different bytes, at least 8 are needed", different)
	}
	if repeats(core) {
		return "repeats a shorter string"
	}
	if isWords(text) {
		return "consists of letters and blanks"
	}
	filled := 0
	for filled < len(text) && text[len(text)-1-filled] == text[len(text)-1] {
		filled++
	}
	if 3*filled >= len(text) {
		return "is filled up with one byte"
	}
	return ""
}

// unquoted returns what stands in quotes, or s if it does not.
func unquoted(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

func isPublishedSecret(text string) bool {
	for _, p := range published {
		if strings.EqualFold(text, p) {
			return true
		}
		if raw, err := base64.RawURLEncoding.DecodeString(p); err == nil && len(raw) >= sha256.Size && text == string(raw) {
			return true
		}
	}
	return false
}

// isPlaceholder reports whether text is one that a shell or a template should
// have replaced. Raw random bytes may begin like one; they are not text.
func isPlaceholder(text string) bool {
	if !isText(text) {
		return false
	}
	for _, start := range [...]string{"$(", "${", "<"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	if strings.HasPrefix(text, "{{") && strings.HasSuffix(text, "}}") {
		return true
	}
	if strings.HasPrefix(text, "`") && strings.HasSuffix(text, "`") && strings.Contains(text, " ") {
		return true
	}
	if strings.HasPrefix(text, "%") && strings.HasSuffix(text, "%") {
		return strings.Trim(text, "%ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
	}
	return false
}

// isText reports whether s is UTF-8 without control characters except white
// space, which 32 random bytes are once in 10^14 cases.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// repeats reports whether s begins again before its end, and a third of it or
// more is that repetition: "changemechangemechangemechangem" does. The last
// third of 32 random hex digits is the first one once in 10^12 cases.
func repeats(s string) bool {
	// border[i] is how many bytes at the end of s[:i+1] are also its beginning.
	border := make([]int, len(s))
	for i, k := 1, 0; i < len(s); i++ {
		for k > 0 && s[i] != s[k] {
			k = border[k-1]
		}
		if s[i] == s[k] {
			k++
		}
		border[i] = k
	}
	return len(s) > 0 && 3*border[len(s)-1] >= len(s)
}

// isWords reports whether s is letters with at least one blank, which may be
// any white space, or a NUL as at the end of a buffer.
func isWords(s string) bool {
	blanks := 0
	for _, r := range s {
		switch {
		case unicode.IsSpace(r) || r == 0:
			blanks++
		case !unicode.IsLetter(r):
			return false
		}
	}
	return blanks > 0
}

// edges are what editors, shells and buffers add before or behind a key.
const edges = "\x00\t\n\v\f\r "

// trimEdges cuts them off.
func trimEdges(b []byte) []byte {
	return bytes.Trim(bytes.TrimPrefix(bytes.TrimLeft(b, edges), []byte("\uFEFF")), edges)
}

// decodings returns what b says in hex and base64, where it can be read so. Line
// breaks are skipped, also such as are written as two characters; so are blanks,
// quotes, padding and the commas and colons between bytes.
func decodings(b []byte) [][]byte {
	text := strings.NewReplacer(`\r`, "", `\n`, "").Replace(string(trimEdges(b)))
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("\"'`,:=\x00\uFEFF", r) {
			return -1
		}
		return r
	}, text)
	var all [][]byte
	for _, decode := range [...]func(string) ([]byte, error){
		base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
		func(s string) ([]byte, error) { return hex.DecodeString(strings.TrimPrefix(s, "0x")) }, // base64 may begin so, too
	} {
		if inner, err := decode(text); err == nil && len(inner) > 0 {
			all = append(all, inner)
		}
	}
	return all
}

// isKeyMaterial reports whether b is a key or a certificate in one of the forms
// in which keys travel, as it is or in hex or base64, which may itself be what
// was encoded.
func isKeyMaterial(b []byte) bool {
	if isKeyFile(b) {
		return true
	}
	for _, inner := range decodings(b) {
		if isKeyFile(inner) || slices.ContainsFunc(decodings(inner), isKeyFile) {
			return true
		}
	}
	return false
}

func isKeyFile(b []byte) bool {
	text := string(trimEdges(b))
	for _, mark := range [...]string{"---BEGIN ", "--- BEGIN ", "-----END ", `"kty`, `'kty`} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	for _, start := range [...]string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "PuTTY-User-Key-File-", "openssh-key-v1"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	// A line of authorized_keys or known_hosts has more than the key.
	for field := range strings.FieldsSeq(text) {
		if strings.HasPrefix(field, "AAAA") && slices.ContainsFunc(decodings([]byte(field)), isSSH) {
			return true
		}
	}
	return isJWK([]byte(text)) || isSSH(b) || isDERKey(b)
}

// isJWK reports whether b is a JSON Web Key, a list of them, or a key set.
func isJWK(b []byte) bool {
	type jwk struct {
		Type string            `json:"kty"`
		Keys []json.RawMessage `json:"keys"`
	}
	var one jwk
	if json.Unmarshal(b, &one) == nil && (one.Type != "" || one.Keys != nil) {
		return true
	}
	var list []jwk
	return json.Unmarshal(b, &list) == nil && len(list) > 0 && list[0].Type != ""
}

// isSSH reports whether b is a public key of OpenSSH: a length and as many
// bytes of its algorithm's name (RFC 4253 section 6.6).
func isSSH(b []byte) bool {
	if len(b) < 12 || b[0] != 0 || b[1] != 0 || b[2] != 0 {
		return false
	}
	for _, start := range [...]string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if bytes.HasPrefix(b[4:], []byte(start)) {
			return true
		}
	}
	return false
}

// isDERKey reports whether b begins with a key or certificate in DER, of
// whatever algorithm. DER says how long it is, so that it does not matter
// whether something follows, nor whether some of its end was cut off: a program
// that trims white space takes the last byte of one key in forty.
func isDERKey(b []byte) bool {
	b = bytes.TrimPrefix(bytes.TrimLeft(b, edges), []byte("\uFEFF"))
	if len(b) < 2 || b[0] != 0x30 { // SEQUENCE
		return false
	}
	size := 2 + int(b[1])
	if n := int(b[1]) - 0x80; n > 0 { // the length is in the next n bytes
		if n > 3 || len(b) < 2+n {
			return false
		}
		size = 0
		for _, c := range b[2 : 2+n] {
			size = size<<8 | int(c)
		}
		size += 2 + n
	}
	if size > 1<<16 {
		return false
	}
	if missing := size - len(b); missing > 0 {
		b = append(bytes.Clone(b), bytes.Repeat([]byte{2}, missing)...) // also an INTEGER, where one is missing
	}
	b = b[:size]
	// encoding/asn1 ignores what follows these members in a SEQUENCE.
	var public struct { // SubjectPublicKeyInfo (RFC 5280 section 4.1)
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	var encrypted struct { // EncryptedPrivateKeyInfo (RFC 5958 section 3)
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	var private struct { // OneAsymmetricKey (RFC 5958 section 2)
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	var certificate struct { // and others that are signed (RFC 5280 section 4.1)
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	for _, shape := range [...]struct {
		into      any
		algorithm *asn1.ObjectIdentifier
	}{
		{&public, &public.Algorithm.Algorithm}, {&encrypted, &encrypted.Algorithm.Algorithm},
		{&private, &private.Algorithm.Algorithm}, {&certificate, &certificate.Algorithm.Algorithm},
	} {
		if _, err := asn1.Unmarshal(b, shape.into); err == nil {
			// All algorithms are below iso.member-body, iso.identified-organization
			// or joint-iso-itu-t.country; random bytes seldom are.
			id := *shape.algorithm
			return id[0] == 1 && (id[1] == 2 || id[1] == 3) || id[0] == 2 && id[1] == 16
		}
	}
	var ec struct { // ECPrivateKey (RFC 5915 section 3)
		Version int
		Key     []byte
	}
	if _, err := asn1.Unmarshal(b, &ec); err == nil && ec.Version == 1 {
		return true
	}
	// RSAPublicKey, and RSAPrivateKey with a version before the modulus (RFC 8017
	// appendix A.1). Behind a public modulus there is a small exponent, and no more.
	var pair struct{ First, Second *big.Int }
	if _, err := asn1.Unmarshal(b, &pair); err != nil {
		return false
	}
	const least = 1000 // bits
	behind := len(b) - len(pair.First.Bytes())
	return pair.First.BitLen() >= least && behind <= 20 || pair.First.Sign() == 0 && pair.Second.BitLen() >= least
}

// isPublished reports whether the secret of k is what other publishes: its
// public key in any form, or its ID. Everybody could sign with it.
func (k Key) isPublished(other Key) bool {
	if !k.usable() || !other.usable() || k.secret == nil || other.public == nil {
		return false
	}
	secret := k.secret()
	forms := append(decodings(secret), secret)
	for _, known := range append(publicForms(other.public), []byte(other.ID()), []byte(thumbprint(other.public))) {
		// HMAC fills a key up with zero bytes, and what trims white space may
		// have cut off the end of a key.
		known = trimEdges(known)
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Equal(trimEdges(form), known) }) {
			return true
		}
	}
	return false
}

// publicForms returns a public key in each form in which it is bare bytes.
func publicForms(public crypto.PublicKey) [][]byte {
	switch p := public.(type) {
	case ed25519.PublicKey:
		backwards := bytes.Clone(p) // as big.Int and some libraries have it
		slices.Reverse(backwards)
		return [][]byte{p, backwards}
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil { // checked when the key was made
			return nil
		}
		half := (len(point) - 1) / 2
		x, y := point[1:1+half], point[1+half:]
		return [][]byte{
			point, point[1:], x, y, bytes.TrimLeft(x, "\x00"), bytes.TrimLeft(y, "\x00"),
			append([]byte{2}, x...), append([]byte{3}, x...),
		}
	case *rsa.PublicKey:
		n := p.N.Bytes()
		return [][]byte{n, append([]byte{0}, n...)}
	}
	return nil
}

// isEd25519Point reports whether b is a point of the curve (RFC 8032 section
// 5.1.3) that is not of small order, for which a signature of everything can be
// made: eight times the point is not the neutral one, as its y tells alone.
func isEd25519Point(b []byte) bool {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	d, _ := new(big.Int).SetString("37095705934669439343138083508754565189542113879843219016388785533085940283555", 10)
	le := bytes.Clone(b)
	slices.Reverse(le)
	le[0] &= 0x7f
	y := new(big.Int).SetBytes(le)
	if y.Cmp(p) >= 0 {
		return false
	}
	one := big.NewInt(1)
	square := func(y *big.Int) *big.Int { // x² is (y²-1)/(dy²+1)
		yy := new(big.Int).Mul(y, y)
		u := new(big.Int).Sub(yy, one)
		v := new(big.Int).Mul(d, yy)
		v.Add(v, one).Mod(v, p).ModInverse(v, p)
		return u.Mul(u, v).Mod(u, p)
	}
	for range 3 { // y of 2·P is (y²+x²)/(2+x²-y²)
		xx := square(y)
		if big.Jacobi(xx, p) < 0 {
			return false
		}
		yy := new(big.Int).Mul(y, y)
		below := new(big.Int).Add(big.NewInt(2), xx)
		below.Sub(below, yy).Mod(below, p).ModInverse(below, p)
		y = yy.Add(yy, xx).Mul(yy, below).Mod(yy, p)
	}
	return y.Cmp(one) != 0
}
