package auth

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// Key is a key for signing and verifying tokens, with the one algorithm that
// it is for. Make one with [HS256], [HS384] or [HS512]. It prints as its
// algorithm and ID alone. The zero Key is refused by [New].
type Key struct{ *key }

type key struct {
	id    string
	alg   string
	hmacs sync.Pool // of hash.Hash, keyed
	err   error     // what New will say of it

	// secret is a function because package fmt, given a verb that pointers do
	// not have, prints what is behind one, also in unexported fields.
	secret func() []byte
}

// HS256 is a key for HMAC with SHA-256 (RFC 7518 section 3.2). The secret is
// copied. It has at least 32 random bytes, of which [New] can only check the
// number: `openssl rand -base64 48` makes one.
func HS256(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS256, secret) }

// HS384 is [HS256] with SHA-384, and at least 48 bytes.
func HS384(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS384, secret) }

// HS512 is [HS256] with SHA-512, and at least 64 bytes.
func HS512(secret []byte) Key { return newHMACKey(jwt.SigningMethodHS512, secret) }

func newHMACKey(m *jwt.SigningMethodHMAC, secret []byte) Key {
	secret = bytes.Clone(secret)
	k := &key{alg: m.Alg(), secret: func() []byte { return secret }}
	if k.err = checkSecret(secret, m.Hash.Size()); k.err != nil {
		return Key{k}
	}
	k.hmacs.New = func() any { return hmac.New(m.Hash.New, secret) }
	// A digest of the secret, as RFC 7638 has it, would let anybody test guesses
	// without a token; so does a token, but nothing is won by publishing more.
	id := hmac.New(sha256.New, secret)
	id.Write([]byte("ratchet key id " + k.alg))
	k.id = base64.RawURLEncoding.EncodeToString(id.Sum(nil)[:9])
	return Key{k}
}

// ID returns the kid under which tokens name the key.
func (k Key) ID() string {
	if k.key == nil {
		return ""
	}
	return k.id
}

// Format prints the algorithm and the ID of the key, never the key.
func (k Key) Format(f fmt.State, _ rune) {
	if k.key == nil {
		_, _ = fmt.Fprint(f, "auth.Key{}")
		return
	}
	_, _ = fmt.Fprintf(f, "auth.Key{%s %s}", k.alg, k.id)
}

// MarshalText gives what Format prints, so that no encoder looks further.
func (k Key) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// usable reports whether tokens may be verified by the key.
func (k Key) usable() bool { return k.key != nil && k.err == nil }

// sameSecret reports whether two keys make the same HMACs, under the same hash:
// HMAC fills a secret up with zero bytes (RFC 2104 section 2).
func (k Key) sameSecret(other Key) bool {
	if k.key == nil || other.key == nil {
		return false
	}
	return bytes.Equal(bytes.TrimRight(k.secret(), "\x00"), bytes.TrimRight(other.secret(), "\x00"))
}

// sign returns the signature of what is signed. For HMAC it cannot fail.
func (k *key) sign(input []byte) ([]byte, error) {
	return k.mac(input, nil), nil
}

// verify reports whether sig is the signature of input.
func (k *key) verify(input, sig []byte) bool {
	var buf [64]byte
	return subtle.ConstantTimeCompare(k.mac(input, buf[:0]), sig) == 1
}

func (k *key) mac(input, to []byte) []byte {
	h := k.hmacs.Get().(hash.Hash)
	h.Reset()
	h.Write(input)
	sum := h.Sum(to)
	k.hmacs.Put(h)
	return sum
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
		if ks[i].id == id {
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
			case other.key != nil && other.id == k.id:
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] have the same ID", field, j, field, i))
			case other.sameSecret(k):
				// A key is for one algorithm (RFC 8725 section 3.1).
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are of the same secret", field, j, field, i))
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
	"a-string-secret-at-least-256-bits-long",
	"a-valid-string-secret-that-is-at-least-384-bits-long",
	"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
}

// checkSecret returns why a secret cannot be an HMAC key, or nil. size is that
// of the hash (RFC 7518 section 3.2).
func checkSecret(secret []byte, size int) error {
	if len(secret) < size {
		return fmt.Errorf("the secret is %d bytes, at least %d are needed", len(secret), size)
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return errors.New("all bytes of the secret are equal")
	}
	for _, p := range published {
		if string(secret) == p {
			return errors.New("the secret is a published example")
		}
	}
	if isPublicMaterial(secret) {
		// An HMAC under a public key can be made by everybody (CVE-2015-9235).
		return errors.New("the secret is a PEM block, a JWK or a DER key, not a random secret")
	}
	return nil
}

// isPublicMaterial reports whether b is a key or certificate in one of the
// forms in which public keys travel, possibly as base64.
func isPublicMaterial(b []byte) bool {
	if isKeyFile(b) {
		return true
	}
	compact := strings.Join(strings.Fields(string(b)), "")
	for _, decode := range [...]func(string) ([]byte, error){
		base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString, base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString,
	} {
		if inner, err := decode(compact); err == nil && isKeyFile(inner) {
			return true
		}
	}
	return false
}

func isKeyFile(b []byte) bool {
	text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(b)), "\uFEFF"))
	if strings.Contains(text, "-----BEGIN ") || strings.HasPrefix(text, "ssh-") || strings.HasPrefix(text, "ecdsa-sha2-") {
		return true
	}
	type jwk struct {
		Type string            `json:"kty"`
		Keys []json.RawMessage `json:"keys"`
	}
	var one jwk
	if json.Unmarshal([]byte(text), &one) == nil && (one.Type != "" || one.Keys != nil) {
		return true
	}
	var list []jwk
	if json.Unmarshal([]byte(text), &list) == nil && len(list) > 0 && list[0].Type != "" {
		return true
	}
	return isDERKey(b) || isDERKey(bytes.TrimRight(b, "\r\n"))
}

func isDERKey(b []byte) bool {
	if _, err := x509.ParsePKIXPublicKey(b); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PublicKey(b); err == nil {
		return true
	}
	if _, err := x509.ParseCertificate(b); err == nil {
		return true
	}
	_, err := x509.ParsePKCS8PrivateKey(b)
	return err == nil
}
