package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParsePEM returns the key in a PEM file of one block: a private key (PKCS #8,
// or the older forms for EC and RSA), or a public one (PKIX), which only
// verifies. Ed25519 is for EdDSA, P-256, P-384 and P-521 for ES256, ES384 and
// ES512, and RSA for PS256; for [RS256] read the key by crypto/x509.
func ParsePEM(data []byte) (Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errors.New("auth: not one PEM block")
	}
	var k any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		k, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		k, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PUBLIC KEY":
		k, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return Key{}, errors.New("auth: the PEM block is neither a private nor a public key")
	}
	if err != nil {
		return Key{}, errors.New("auth: the PEM block cannot be read as the key that it says it is")
	}
	return keyFor(k)
}

// keyFor returns the key for the algorithm that is usual for its kind.
func keyFor(k any) (Key, error) {
	public := k
	if signer, ok := k.(crypto.Signer); ok {
		public = signer.Public()
	}
	var made Key
	switch p := public.(type) {
	case ed25519.PublicKey:
		made = EdDSA(k)
	case *rsa.PublicKey:
		made = PS256(k)
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P384():
			made = ES384(k)
		case elliptic.P521():
			made = ES512(k)
		default:
			made = ES256(k) // which refuses other curves
		}
	default:
		return Key{}, fmt.Errorf("auth: a %T signs no tokens", public)
	}
	if made.err != nil {
		return Key{}, fmt.Errorf("auth: %w", made.err)
	}
	return made, nil
}

// ParseJWK returns the key in a JSON Web Key (RFC 7517) of type OKP, EC or RSA:
// a private one, or a public one, which only verifies. Its "alg" may be left
// out for the algorithm that is usual for its kind; its "kid" is the key's ID.
// Names count exactly, and once.
func ParseJWK(data []byte) (Key, error) {
	m := map[string]string{}
	var ops []string
	hasOps := false
	err := readObject(string(data), maxBodyMembers, func(name, value string) error {
		text, ok := jsonString(value)
		switch name {
		case "kty", "use", "alg", "kid", "crv", "x", "y", "n", "e", "d", "p", "q":
			m[name] = text
		case "key_ops":
			ops, ok = jsonStrings(nil, value)
			hasOps = true
		default:
			ok = true // to be ignored (RFC 7517 section 4)
		}
		if !ok {
			return errors.New(name + " is not of its type")
		}
		return nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("auth: not a JWK: %w", err)
	}
	need := "verify"
	if _, private := m["d"]; private {
		need = "sign"
	}
	if hasOps && !slices.Contains(ops, need) {
		return Key{}, fmt.Errorf("auth: JWK: its key_ops do not have %s", need)
	}
	k, err := parseJWK(m)
	if err != nil {
		return Key{}, fmt.Errorf("auth: JWK: %w", err)
	}
	return k, nil
}

func parseJWK(m map[string]string) (Key, error) {
	if use, ok := m["use"]; ok && use != "sig" {
		return Key{}, errors.New("its use is not sig")
	}
	number := func(name string) (*big.Int, error) {
		b, ok := decodeSegment(nil, m[name])
		if !ok || len(b) == 0 || len(b) > 1024 {
			return nil, errors.New(name + " is missing or not base64url")
		}
		return new(big.Int).SetBytes(b), nil
	}
	var raw any
	switch m["kty"] {
	case "OKP":
		x, ok := decodeSegment(nil, m["x"])
		if m["crv"] != "Ed25519" || !ok || len(x) != ed25519.PublicKeySize {
			return Key{}, errors.New("not an Ed25519 key")
		}
		raw = ed25519.PublicKey(x)
		if text, private := m["d"]; private {
			d, ok := decodeSegment(nil, text)
			if !ok || len(d) != ed25519.SeedSize || !bytes.Equal(ed25519.NewKeyFromSeed(d).Public().(ed25519.PublicKey), x) {
				return Key{}, errors.New("d does not fit x")
			}
			raw = ed25519.NewKeyFromSeed(d)
		}
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[m["crv"]]
		if !ok {
			return Key{}, errors.New("its crv is none of P-256, P-384 and P-521")
		}
		size := (curve.Params().BitSize + 7) / 8
		point := []byte{4}
		for _, name := range []string{"x", "y"} {
			b, ok := decodeSegment(nil, m[name])
			if !ok || len(b) != size {
				return Key{}, errors.New(name + " is not as long as the curve has it")
			}
			point = append(point, b...)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return Key{}, errors.New("the point is not on its curve")
		}
		raw = public
		if text, private := m["d"]; private {
			d, ok := decodeSegment(nil, text)
			if !ok || len(d) != size {
				return Key{}, errors.New("d is not as long as the curve has it")
			}
			signer, err := ecdsa.ParseRawPrivateKey(curve, d)
			if err != nil || !signer.PublicKey.Equal(public) {
				return Key{}, errors.New("d does not fit x and y")
			}
			raw = signer
		}
	case "RSA":
		n, err1 := number("n")
		e, err2 := number("e")
		if err := errors.Join(err1, err2); err != nil {
			return Key{}, err
		}
		if !e.IsInt64() || e.Int64() > 1<<31-1 {
			return Key{}, errors.New("e is too large")
		}
		public := rsa.PublicKey{N: n, E: int(e.Int64())}
		raw = &public
		if _, private := m["d"]; private {
			d, err1 := number("d")
			p, err2 := number("p")
			q, err3 := number("q")
			if err := errors.Join(err1, err2, err3); err != nil {
				return Key{}, err
			}
			signer := &rsa.PrivateKey{PublicKey: public, D: d, Primes: []*big.Int{p, q}}
			if signer.Validate() != nil {
				return Key{}, errors.New("d, p and q do not fit n and e")
			}
			signer.Precompute()
			raw = signer
		}
	case "oct":
		return Key{}, errors.New("a secret is for HS256")
	default:
		return Key{}, errors.New("its kty is none of OKP, EC and RSA")
	}
	k, err := keyFor(raw)
	if err != nil {
		return Key{}, err
	}
	if alg, ok := m["alg"]; ok && alg != k.alg {
		if alg != "RS256" || m["kty"] != "RSA" {
			return Key{}, fmt.Errorf("its alg is not %s", k.alg)
		}
		k = RS256(raw)
	}
	if id, ok := m["kid"]; ok {
		k = k.WithID(id)
	}
	return k, k.err
}

// jwk is a public key as it is published.
type jwk struct {
	Crv string `json:"crv,omitempty"`
	E   string `json:"e,omitempty"`
	Kty string `json:"kty"`
	N   string `json:"n,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
}

// publicJWK has the required members alone, in the order of RFC 7638.
func publicJWK(public crypto.PublicKey) jwk {
	enc := base64.RawURLEncoding.EncodeToString
	switch p := public.(type) {
	case ed25519.PublicKey:
		return jwk{Kty: "OKP", Crv: "Ed25519", X: enc(p)}
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil { // checked when the key was made
			return jwk{}
		}
		half := (len(point) - 1) / 2
		return jwk{Kty: "EC", Crv: curveName(p.Curve), X: enc(point[1 : 1+half]), Y: enc(point[1+half:])}
	case *rsa.PublicKey:
		return jwk{Kty: "RSA", N: enc(p.N.Bytes()), E: enc(big.NewInt(int64(p.E)).Bytes())}
	}
	return jwk{}
}

// thumbprint is that of RFC 7638 with SHA-256.
func thumbprint(public crypto.PublicKey) string {
	text, _ := json.Marshal(publicJWK(public)) // strings cannot fail
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// JWKSHandler answers GET with the public keys that access tokens may be
// signed by, now or as soon as a cache of this answer has run out (RFC 7517
// section 5). Secrets never appear. It is in [Authenticator.Handler] as
// /jwks.json; other services also look for it at /.well-known/jwks.json.
func (a *Authenticator) JWKSHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			a.WriteError(w, r, errMethod)
			return
		}
		set := struct {
			Keys []jwk `json:"keys"`
		}{[]jwk{}}
		for _, k := range a.accessKeys.ring.Load().usable() {
			if k.public != nil {
				entry := publicJWK(k.public)
				entry.Alg, entry.Kid, entry.Use = k.alg, k.ID(), "sig"
				set.Keys = append(set.Keys, entry)
			}
		}
		body, _ := json.Marshal(set) // strings cannot fail
		sum := sha256.Sum256(body)
		tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		h := w.Header()
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(a.jwksMaxAge/time.Second)))
		h.Set("ETag", tag)
		h.Set("X-Content-Type-Options", "nosniff")
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(append(body, '\n')) // the client may be gone: there is nobody to tell
	})
}

// matches reports whether an If-None-Match names the tag (RFC 9110 section
// 13.1.2).
func matches(headers []string, tag string) bool {
	for _, header := range headers {
		for t := range strings.SplitSeq(header, ",") {
			if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}
