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

// ParsePEM parses a PEM text that contains one key: a private key (PKCS #8, or
// SEC 1 or PKCS #1), or a public key (PKIX or PKCS #1), which only verifies. The
// algorithm follows from the type of the key: EdDSA for Ed25519, ES256, ES384
// and ES512 for P-256, P-384 and P-521, and PS256 for RSA. For [RS256], parse the
// key with crypto/x509.
//
// The text may also contain the EC PARAMETERS block that openssl writes and,
// with a private key, its public key or certificate. Text around the blocks,
// white space within them and missing line breaks are accepted, and so are line
// breaks that are written as the two characters \n, as in environment
// variables.
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
		case "EC PARAMETERS": // the key contains its curve
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
	for _, b := range public { // beside a private key
		if len(private) == 0 {
			break
		}
		half, err := b.parse()
		if err != nil {
			return Key{}, fmt.Errorf("auth: PEM: %w", err)
		}
		if other, err := keyFor(half); err != nil || !key.samePublic(other) {
			return Key{}, fmt.Errorf("auth: PEM: found %s, and the %s is not the public half of the %s", listOf(blocks), b.kind, one.kind)
		}
	}
	return key, nil
}

// pemAdvice returns what to do with a block of an unsupported kind.
func pemAdvice(kind string) string {
	switch kind {
	case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		return "extract the public key with `openssl x509 -pubkey -noout`"
	case "ENCRYPTED PRIVATE KEY":
		return "decrypt it with `openssl pkey`"
	case "OPENSSH PRIVATE KEY":
		return "only OpenSSH reads this format; create a key with `openssl genpkey -algorithm ed25519`"
	}
	return "expected a private or a public key"
}

// pemBlock is a PEM block (RFC 7468).
type pemBlock struct {
	kind string // the label after BEGIN
	der  []byte
}

// parse parses a block as a private key, a public key or a certificate, depending
// on its label. It tries every format, because programs confuse the labels.
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
	return nil, fmt.Errorf("malformed key in the %s block", b.kind)
}

// listOf returns the labels of blocks, in their order.
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

// pemBlocks returns the blocks in a text. Unlike encoding/pem, which skips
// malformed blocks, it requires that every BEGIN and END belongs to a block.
func pemBlocks(data []byte) ([]pemBlock, error) {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	if len(data) > maxPEM {
		return nil, fmt.Errorf("more than %d bytes", maxPEM)
	}
	text := utf8Text(data)
	// Base64 has no backslash, so this changes no key.
	text = strings.NewReplacer(`\\r`, "\n", `\\n`, "\n", `\r`, "\n", `\n`, "\n", `\t`, " ", `\/`, "/").Replace(text)
	var blocks []pemBlock
	for {
		before, rest, found := strings.Cut(text, begin)
		if strings.Contains(before, end) {
			return nil, errors.New("an END has no BEGIN")
		}
		if !found {
			break
		}
		kind, rest, found := strings.Cut(rest, dashes)
		if !found || kind == "" || len(kind) > 64 || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") != "" {
			return nil, errors.New("a BEGIN has no label in capital letters")
		}
		body, rest, found := strings.Cut(rest, end+kind+dashes)
		if !found || strings.Contains(body, dashes) {
			return nil, fmt.Errorf("the %s block has no END", kind)
		}
		if strings.Contains(body, ",ENCRYPTED") { // Proc-Type: 4,ENCRYPTED
			return nil, fmt.Errorf("found %s, encrypted: %s", kind, pemAdvice("ENCRYPTED PRIVATE KEY"))
		}
		var letters strings.Builder
		for line := range strings.Lines(body) {
			if !strings.Contains(line, ":") { // not a header (RFC 1421 section 4.6)
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
		return nil, errors.New("the text is a PEM block in base64; decode it first")
	case strings.HasPrefix(strings.TrimSpace(text), "{"):
		return nil, errors.New("no -----BEGIN found; parse a JWK with ParseJWK")
	}
	return nil, errors.New("no -----BEGIN found; pass the content of a PEM file, not its path")
}

// utf8Text returns data as UTF-8. Data with a byte order mark of UTF-16, as some
// Windows shells write it, is converted.
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

// keyFor returns a Key for the algorithm that its type implies.
func keyFor(k any) (Key, error) {
	public := k
	if signer, ok := k.(crypto.Signer); ok {
		public = signer.Public()
	}
	var key Key
	switch p := public.(type) {
	case ed25519.PublicKey:
		key = EdDSA(k)
	case *rsa.PublicKey:
		key = PS256(k)
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P384():
			key = ES384(k)
		case elliptic.P521():
			key = ES512(k)
		default:
			key = ES256(k) // refuses other curves
		}
	default:
		return Key{}, fmt.Errorf("unsupported key type %T", public)
	}
	return key, key.err
}
