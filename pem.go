package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
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
