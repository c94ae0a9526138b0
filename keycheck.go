package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

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
