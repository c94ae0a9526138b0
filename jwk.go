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
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// ParsePEM returns the key in PEM text: a private key (PKCS #8, or the older
// forms for EC and RSA), or a public one (PKIX, or PKCS #1 for RSA), which only
// verifies. Ed25519 is for EdDSA, P-256, P-384 and P-521 for ES256, ES384 and
// ES512, and RSA for PS256; for [RS256] read the key by crypto/x509.
//
// There must be one key. The EC PARAMETERS that openssl writes before one, and
// the public half of a private key as a block of its own, may stand beside it.
// Text around a block, white space in it, lines that are not broken, and line
// ends that are written as the two characters \n, as in environment variables,
// do not matter.
func ParsePEM(data []byte) (Key, error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return Key{}, fmt.Errorf("auth: PEM: %w", err)
	}
	var private, public, other []pemBlock
	for _, b := range blocks {
		switch b.kind {
		case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
			private = append(private, b)
		case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE":
			public = append(public, b)
		case "EC PARAMETERS": // the key names its curve itself
		default:
			other = append(other, b)
		}
	}
	switch {
	case len(other) == 1 && len(private)+len(public) == 0:
		return Key{}, fmt.Errorf("auth: PEM: found %s: %s", listOf(blocks), pemAdvice(other[0].kind))
	case len(private) > 1, len(private) == 0 && len(public) != 1, len(other) > 0:
		return Key{}, fmt.Errorf("auth: PEM: found %s; expected one private or public key", listOf(blocks))
	case len(private) == 0 && public[0].kind == "CERTIFICATE":
		return Key{}, fmt.Errorf("auth: PEM: found %s: %s", listOf(blocks), pemAdvice("CERTIFICATE"))
	}
	one := append(private, public...)[0]
	k, err := one.parse()
	if err != nil {
		return Key{}, fmt.Errorf("auth: PEM: %w", err)
	}
	key, err := keyFor(k)
	if err != nil {
		return Key{}, fmt.Errorf("auth: PEM: %w", err)
	}
	for _, b := range public { // of a private key
		if len(private) == 0 {
			break
		}
		half, err := b.parse()
		if err != nil {
			return Key{}, fmt.Errorf("auth: PEM: %w", err)
		}
		if p, ok := key.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !p.Equal(half) {
			return Key{}, fmt.Errorf("auth: PEM: found %s, and the %s is not the public half of the %s", listOf(blocks), b.kind, one.kind)
		}
	}
	return key, nil
}

// pemAdvice says what to do with a block that is not a key that can be read.
func pemAdvice(kind string) string {
	switch kind {
	case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		return "take the public key out of it with `openssl x509 -pubkey -noout`"
	case "ENCRYPTED PRIVATE KEY":
		return "decrypt it with `openssl pkey`"
	case "OPENSSH PRIVATE KEY":
		return "this is a format of OpenSSH only; make a key with `openssl genpkey -algorithm ed25519`"
	}
	return "expected a private or a public key"
}

// pemBlock is a PEM block (RFC 7468).
type pemBlock struct {
	kind string // as it stands behind BEGIN
	der  []byte
}

// parse reads a block as the kind of key that it says it is. Programs confuse
// the forms within a kind.
func (b pemBlock) parse() (any, error) {
	forms := []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	}
	switch b.kind {
	case "CERTIFICATE":
		forms = []func([]byte) (any, error){func(der []byte) (any, error) {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			return c.PublicKey, nil
		}}
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		forms = []func([]byte) (any, error){
			x509.ParsePKIXPublicKey,
			func(der []byte) (any, error) { return x509.ParsePKCS1PublicKey(der) },
		}
	}
	for _, form := range forms {
		if k, err := form(b.der); err == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the %s block cannot be read as the key that it says it is", b.kind)
}

// listOf names blocks, in their order.
func listOf(blocks []pemBlock) string {
	var kinds []string
	for _, b := range blocks {
		kinds = append(kinds, b.kind)
	}
	return strings.Join(kinds, " and ")
}

const (
	maxPEM       = 1 << 20 // bytes
	maxPEMBlocks = 16
)

// pemBlocks finds the blocks in a text. Package encoding/pem passes over what
// it cannot read; here every BEGIN and every END must belong to a block.
func pemBlocks(data []byte) ([]pemBlock, error) {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	if len(data) > maxPEM {
		return nil, fmt.Errorf("more than %d bytes", maxPEM)
	}
	text := utf8Text(data)
	// A backslash is no letter of base64, so no block means another one.
	text = strings.NewReplacer(`\\r`, "\n", `\\n`, "\n", `\r`, "\n", `\n`, "\n", `\t`, " ", `\/`, "/").Replace(text)
	var blocks []pemBlock
	for {
		before, rest, found := strings.Cut(text, begin)
		if strings.Contains(before, end) {
			return nil, errors.New("a block ends that has not begun")
		}
		if !found {
			break
		}
		kind, rest, found := strings.Cut(rest, dashes)
		if !found || kind == "" || len(kind) > 64 || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") != "" {
			return nil, errors.New("a block has no name of capital letters")
		}
		body, rest, found := strings.Cut(rest, end+kind+dashes)
		if !found || strings.Contains(body, dashes) {
			return nil, fmt.Errorf("the %s block has no end", kind)
		}
		if strings.Contains(body, ",ENCRYPTED") { // Proc-Type: 4,ENCRYPTED
			return nil, fmt.Errorf("found %s, encrypted: %s", kind, pemAdvice("ENCRYPTED PRIVATE KEY"))
		}
		var letters strings.Builder
		for line := range strings.Lines(body) {
			if !strings.Contains(line, ":") { // of a header (RFC 1421 section 4.6)
				letters.WriteString(strings.Join(strings.Fields(line), ""))
			}
		}
		der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(letters.String(), "="))
		if err != nil {
			return nil, fmt.Errorf("the %s block is not base64", kind)
		}
		if len(blocks) == maxPEMBlocks {
			return nil, fmt.Errorf("more than %d blocks", maxPEMBlocks)
		}
		blocks = append(blocks, pemBlock{kind, der})
		text = rest
	}
	switch {
	case len(blocks) > 0:
		return blocks, nil
	case strings.HasPrefix(strings.TrimSpace(text), "LS0tLS1CRUdJTi"): // -----BEGIN
		return nil, errors.New("this is base64 of a PEM block; decode it first")
	}
	return nil, errors.New("found no block that begins with -----BEGIN")
}

// utf8Text returns a text that may be UTF-16, as some shells of Windows write
// it, with a byte order mark.
func utf8Text(data []byte) string {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return string(data)
	}
	var units []uint16
	for data = data[2:]; len(data) >= 2; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return string(utf16.Decode(units))
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
		return Key{}, fmt.Errorf("a %T signs no tokens", public)
	}
	return made, made.err
}

// ParseJWK returns the key in a JSON Web Key (RFC 7517) of type OKP, EC or RSA:
// a private one, or a public one, which only verifies. Its "alg" may be left
// out for the algorithm that is usual for its kind; its "kid" is the key's ID.
// Names count exactly, and once. A member that is null or empty counts as
// absent, except an empty kid, which is an error.
//
// "Ed25519" (RFC 9864) is another name of "EdDSA". Only tokens that are
// verified by a key whose JWK says so may name their algorithm that way too;
// what the key signs says "EdDSA". "RS384", "RS512", "PS384" and "PS512" are
// for verifying only: a private JWK of them is refused.
func ParseJWK(data []byte) (Key, error) {
	m := map[string]string{}
	var ops []string
	hasOps := false
	err := readObject(string(data), maxBodyMembers, func(name, value string) error {
		text, ok := jsonString(value)
		if value == "null" || value == `""` && name != "kid" || value[0] == '[' && strings.TrimSpace(value[1:len(value)-1]) == "" {
			return nil
		}
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
	usual := k.alg
	if alg, ok := m["alg"]; ok && alg != k.alg {
		if k, ok = otherKeyFor(alg, raw); !ok {
			return Key{}, fmt.Errorf("its alg is not %s, nor another one for such a key", usual)
		}
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
