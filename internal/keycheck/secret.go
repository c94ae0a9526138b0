// Package keycheck finds secrets that are not secret and public keys that are
// not safe.
package keycheck

import (
	"bytes"
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

// published are secrets from documents that developers copy from.
var published = [...]string{
	"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow", // RFC 7515 appendix A.1
	"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",                                            // RFC 7520 section 3.5
	"a-string-secret-at-least-256-bits-long",
	"a-valid-string-secret-that-is-at-least-384-bits-long",
	"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
}

// HowToCreate is the end of an error text; it says how to create a secret.
const HowToCreate = "; create one with `openssl rand -base64 48`"

// Secret returns an error if secret cannot be an HMAC key: if it is shorter than
// size, which is the size of the hash in bytes (RFC 7518 section 3.2), or if
// others may know or guess it. It refuses published examples, keys and
// certificates in any encoding, placeholders, words and repetitions. It accepts
// random bytes, raw or in hex, base64 or a UUID.
func Secret(secret []byte, size int) error {
	if len(secret) < size {
		return fmt.Errorf("the secret is %d bytes; it must be at least %d; create one with `openssl rand -base64 %d`", len(secret), size, max(size, 48))
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return errors.New("all bytes of the secret are equal" + HowToCreate)
	}
	if isKeyMaterial(secret) {
		// Anybody can compute an HMAC with a public key (CVE-2015-9235).
		return errors.New("the secret is a PEM block, a JWK or a DER key, not a random secret" + HowToCreate)
	}
	if why := weakness(secret); why != "" {
		return errors.New("the secret " + why + HowToCreate)
	}
	return nil
}

// weakness returns why others may guess a secret, or an empty string. White
// space, NULs and quotes around the secret, which an editor, a shell or a buffer
// may have added, do not count as part of it.
func weakness(secret []byte) string {
	text := unquoted(strings.TrimRight(strings.TrimPrefix(string(secret), "\uFEFF"), "\r\n"))
	isEdge := func(r rune) bool { return unicode.IsSpace(r) || r == 0 || r == '\uFEFF' }
	core := strings.TrimFunc(unquoted(strings.TrimFunc(text, isEdge)), isEdge)
	if isPublishedSecret(core) {
		return "is a published example"
	}
	if isPlaceholder(core) {
		return "is a placeholder that was not replaced"
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
		return fmt.Sprintf("has %d different bytes; it must have at least 8", different)
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
		return "ends in a long run of one byte"
	}
	return ""
}

// unquoted returns s without quotes around it.
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

// isPlaceholder reports whether text is a placeholder that a shell or a template
// should have replaced. Random bytes that begin like one are not text.
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

// isText reports whether s is UTF-8 without control characters other than white
// space. 32 random bytes pass once in 10^14 cases.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// isMostlyText reports whether at least three quarters of the bytes of s are
// text, as in a key file that was damaged. 32 random bytes pass once in 1,000
// cases.
func isMostlyText(s string) bool {
	other := 0
	for _, r := range s { // utf8.RuneError is also that of an invalid byte
		if r == utf8.RuneError || unicode.IsControl(r) && !unicode.IsSpace(r) {
			other++
		}
	}
	return 4*other <= len(s)
}

// repeats reports whether at least a third of s, at its end, repeats its
// beginning, as in "changemechangemechangemechangem". 32 random hex digits do so
// once in 10^12 cases.
func repeats(s string) bool {
	// border[i] is the length of the longest proper prefix of s[:i+1] that is
	// also its suffix.
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

// isWords reports whether s consists of letters and at least one blank. A blank
// is white space, or a NUL as at the end of a buffer.
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

// edges are bytes that editors, shells and buffers add before or after a key.
const edges = "\x00\t\n\v\f\r "

// trimEdges removes edges and a byte order mark.
func trimEdges(b []byte) []byte {
	return bytes.Trim(bytes.TrimPrefix(bytes.TrimLeft(b, edges), []byte("\uFEFF")), edges)
}

// decodings returns b decoded from hex and from base64, as far as it can be
// decoded. It skips white space, quotes, padding, commas and colons between
// bytes, line breaks, and the two-character escapes \r and \n.
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

// isKeyMaterial reports whether b is a key or a certificate in a common format,
// raw or encoded once or twice in hex or base64.
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
	for _, mark := range [...]string{"---BEGIN ", "--- BEGIN ", "-----END "} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	for _, start := range [...]string{"ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "PuTTY-User-Key-File-", "openssh-key-v1"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	// Four given bytes occur in one of 50 million random secrets, so these count
	// only in text.
	if strings.HasPrefix(text, "ssh-") || strings.Contains(text, `"kty`) || strings.Contains(text, `'kty`) {
		if isMostlyText(text) {
			return true
		}
	}
	// A line of authorized_keys or known_hosts has other fields beside the key.
	for field := range strings.FieldsSeq(text) {
		if strings.HasPrefix(field, "AAAA") && slices.ContainsFunc(decodings([]byte(field)), isSSH) {
			return true
		}
	}
	return isJWK([]byte(text)) || isSSH(b) || isDERKey(b)
}

// isJWK reports whether b is a JSON Web Key, a list of such keys, or a key set.
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

// isSSH reports whether b is an OpenSSH public key. It begins with the length
// and the name of its algorithm (RFC 4253 section 6.6).
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

// isDERKey reports whether b begins with a key or certificate in DER, of any
// algorithm. DER contains the length, so b may have further bytes, and its end
// may be missing: trimming white space removes the last byte of one key in
// forty.
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
	// encoding/asn1 ignores further members of a SEQUENCE.
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
	var certificate struct { // and other signed structures (RFC 5280 section 4.1)
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
			// The identifiers of all algorithms are below iso.member-body,
			// iso.identified-organization or joint-iso-itu-t.country. Those of
			// random bytes rarely are.
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
	// appendix A.1). Only a small exponent follows a public modulus.
	var pair struct{ First, Second *big.Int }
	if _, err := asn1.Unmarshal(b, &pair); err != nil {
		return false
	}
	const least = 1000 // bits
	behind := len(b) - len(pair.First.Bytes())
	return pair.First.BitLen() >= least && behind <= 20 || pair.First.Sign() == 0 && pair.Second.BitLen() >= least
}
