package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// ParseJWK parses a JSON Web Key (RFC 7517) of type OKP, EC or RSA. The key may
// be private or public; a public key only verifies. If "alg" is absent, the
// algorithm is the one that [ParsePEM] chooses. "kid" becomes the key's ID.
// Member names are case-sensitive and must be unique. A member that is null or
// empty counts as absent, except that an empty kid is an error.
//
// If "alg" is "Ed25519" (RFC 9864), which is another name of EdDSA, the key
// verifies tokens with either name, and signs tokens with "EdDSA". Keys for
// RS384, RS512, PS384 and PS512 only verify: a private JWK with one of these is
// an error.
func ParseJWK(data []byte) (Key, error) {
	m := map[string]string{}
	var ops []string
	hasOps := false
	err := strictjson.Object(string(data), maxBodyMembers, func(name, value string) error {
		text, ok := strictjson.String(value)
		if value == "null" || value == `""` && name != "kid" || value[0] == '[' && strings.TrimSpace(value[1:len(value)-1]) == "" {
			return nil
		}
		switch name {
		case "kty", "use", "alg", "kid", "crv", "x", "y", "n", "e", "d", "p", "q":
			m[name] = text
		case "key_ops":
			ops, ok = strictjson.Strings(nil, value)
			hasOps = true
		default:
			ok = true // ignored (RFC 7517 section 4)
		}
		if !ok {
			return errors.New(name + " has the wrong type")
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
		return Key{}, fmt.Errorf("auth: JWK: key_ops does not contain %q", need)
	}
	k, err := parseJWK(m)
	if err != nil {
		return Key{}, fmt.Errorf("auth: JWK: %w", err)
	}
	return k, nil
}

func parseJWK(m map[string]string) (Key, error) {
	if use, ok := m["use"]; ok && use != "sig" {
		return Key{}, errors.New(`use is not "sig"`)
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
				return Key{}, errors.New("d does not match x")
			}
			raw = ed25519.NewKeyFromSeed(d)
		}
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[m["crv"]]
		if !ok {
			return Key{}, errors.New("unexpected crv; expected P-256, P-384 or P-521")
		}
		size := (curve.Params().BitSize + 7) / 8
		point := []byte{4}
		for _, name := range []string{"x", "y"} {
			b, ok := decodeSegment(nil, m[name])
			if !ok || len(b) != size {
				return Key{}, errors.New(name + " has the wrong length for the curve")
			}
			point = append(point, b...)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return Key{}, errors.New("the point is not on the curve")
		}
		raw = public
		if text, private := m["d"]; private {
			d, ok := decodeSegment(nil, text)
			if !ok || len(d) != size {
				return Key{}, errors.New("d has the wrong length for the curve")
			}
			signer, err := ecdsa.ParseRawPrivateKey(curve, d)
			if err != nil || !signer.PublicKey.Equal(public) {
				return Key{}, errors.New("d does not match x and y")
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
				return Key{}, errors.New("d, p and q do not match n and e")
			}
			signer.Precompute()
			raw = signer
		}
	case "oct":
		return Key{}, errors.New("unexpected kty oct; use HS256 for a secret")
	default:
		return Key{}, errors.New("unexpected kty; expected OKP, EC or RSA")
	}
	k, err := keyFor(raw)
	if err != nil {
		return Key{}, err
	}
	usual := k.alg
	if alg, ok := m["alg"]; ok && alg != k.alg {
		if k, ok = otherKeyFor(alg, raw); !ok {
			return Key{}, fmt.Errorf("unexpected alg; expected %s or another algorithm for this type of key", usual)
		}
	}
	if id, ok := m["kid"]; ok {
		k = k.WithID(id)
	}
	return k, k.err
}

// jwk is a published public key.
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

// publicJWK returns the required members, in the order of RFC 7638.
func publicJWK(public crypto.PublicKey) jwk {
	enc := base64.RawURLEncoding.EncodeToString
	switch p := public.(type) {
	case ed25519.PublicKey:
		return jwk{Kty: "OKP", Crv: "Ed25519", X: enc(p)}
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil { // checked when the Key was created
			return jwk{}
		}
		half := (len(point) - 1) / 2
		return jwk{Kty: "EC", Crv: curveName(p.Curve), X: enc(point[1 : 1+half]), Y: enc(point[1+half:])}
	case *rsa.PublicKey:
		return jwk{Kty: "RSA", N: enc(p.N.Bytes()), E: enc(big.NewInt(int64(p.E)).Bytes())}
	}
	return jwk{}
}

// thumbprint returns the SHA-256 thumbprint of a key (RFC 7638).
func thumbprint(public crypto.PublicKey) string {
	text, _ := json.Marshal(publicJWK(public)) // strings cannot fail
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
