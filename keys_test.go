package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/keycheck"
)

// keyErr returns what NewVerifier says of keys.
func keyErr(keys ...auth.Key) error {
	_, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys(keys)})
	return err
}

// distinctBytes returns n bytes that differ.
func distinctBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	return b
}

func TestKey_SecretIsAsLongAsItsHash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func([]byte) auth.Key
		size int
	}{{"HS256", auth.HS256, 32}, {"HS384", auth.HS384, 48}, {"HS512", auth.HS512, 64}} {
		for _, n := range []int{0, 1, 16, c.size - 1} {
			require.EqualError(
				t, keyErr(c.make(distinctBytes(n))),
				fmt.Sprintf("auth: VerifierConfig.Keys[0] (%s): the secret is %d bytes; it must be at least %d; create one with `openssl rand -base64 %d`", c.name, n, c.size, max(c.size, 48)),
			)
		}
		require.ErrorContains(t, keyErr(c.make(nil)), "the secret is 0 bytes")
		for _, n := range []int{c.size, c.size + 1, 128, 129, 4096} {
			random := make([]byte, n)
			_, _ = rand.Read(random)
			require.NoError(t, keyErr(c.make(random)), "%s of %d bytes", c.name, n)
		}
	}
}

// keyThatEndsIn returns an Ed25519 key whose last byte is last. The search is
// the same in every run.
func keyThatEndsIn(t *testing.T, last byte) ed25519.PublicKey {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	for i := range uint32(1 << 16) {
		binary.BigEndian.PutUint32(seed[:], i)
		if public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey); public[len(public)-1] == last {
			return public
		}
	}
	require.FailNow(t, "the source has no such key")
	return nil
}

// keyFiles returns keys and certificates in DER, by description.
func keyFiles(t *testing.T) map[string][]byte {
	t.Helper()
	ec, rs := privateKeys()["ES256"].(*ecdsa.PrivateKey), privateKeys()["PS256"].(*rsa.PrivateKey)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der := func(b []byte, err error) []byte {
		t.Helper()
		require.NoError(t, err)
		return b
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	all := map[string][]byte{
		"P-256 PKIX": der(x509.MarshalPKIXPublicKey(&ec.PublicKey)), "RSA PKIX": der(x509.MarshalPKIXPublicKey(&rs.PublicKey)),
		"RSA PKCS1": x509.MarshalPKCS1PublicKey(&rs.PublicKey), "P-256 PKCS8": der(x509.MarshalPKCS8PrivateKey(ec)),
		"P-256 SEC1":        der(x509.MarshalECPrivateKey(ec)),
		"RSA PKCS1 private": x509.MarshalPKCS1PrivateKey(rs), "X25519 PKIX": der(x509.MarshalPKIXPublicKey(x25519.PublicKey())),
		"certificate":         der(x509.CreateCertificate(rand.Reader, template, template, &ec.PublicKey, ec)),
		"certificate request": der(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ec)),
		// crypto/x509 cannot parse the curves of RFC 7748 and SEC 2.
		"secp256k1 PKIX": der(hex.DecodeString("3056301006072a8648ce3d020106052b8104000a03420004" + strings.Repeat("79be667ef9dcbbac55a06295ce870b07", 4))),
		"Ed448 PKIX": der(
			hex.DecodeString("3043300506032b6571033a00" + strings.Repeat("5fd7449b59b461fd2ce787ec616ad46a1da1342485a70e1f8a0ea75d80", 2)[:114]),
		),
	}
	for _, last := range []byte("\t\n\v\f\r \x00x") {
		all[fmt.Sprintf("Ed25519 PKIX that ends in %q", last)] = der(x509.MarshalPKIXPublicKey(keyThatEndsIn(t, last)))
	}
	return all
}

const notASecret = "the secret is a PEM block, a JWK or a DER key, not a random secret"

func TestKey_RefusesKeyFilesAndTextsAsSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: creates many keys")
	}
	t.Parallel()
	ders := keyFiles(t)
	bad := map[string][]byte{}
	for name, b := range ders {
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
		for form, text := range map[string][]byte{"DER": b, "PEM": block} {
			for _, end := range []string{"", "\n", "\r\n", "\r", "\x00", "\n\n", " \n", "\x00\x00\x00"} {
				bad[fmt.Sprintf("%s %s and %q", name, form, end)] = append(slices.Clone(text), end...)
			}
			bad[name+" "+form+" trimmed"] = bytes.TrimSpace(text)
			bad[name+" "+form+" trimmed, and a line end"] = append(bytes.TrimSpace(text), '\n')
			bad[name+" "+form+" after a BOM"] = append([]byte("\uFEFF"), text...)
			bad[name+" "+form+" after a space"] = append([]byte(" "), text...)
			bad[name+" "+form+" cut"] = text[:len(text)-3]
		}
		if name != "certificate" && name != "certificate request" {
			bad[name+" first 32 bytes"] = b[:32]
		}
		bad[name+" PEM after text"] = append([]byte("my key:\r\n"), block...)
		bad[name+" PEM cut"] = block[:len(block)-30]
		bad[name+" PEM without its first line"] = block[bytes.IndexByte(block, '\n')+1:]
		bad[name+" PEM with \\n"] = []byte(strings.ReplaceAll(string(block), "\n", `\n`))
		body := bytes.Join(bytes.Split(block, []byte("\n"))[1:len(bytes.Split(block, []byte("\n")))-2], []byte("\n"))
		bad[name+" PEM without its lines"] = body
		bad[name+" PEM without its lines, with \\n"] = []byte(strings.ReplaceAll(string(body), "\n", `\n`))
		bad[name+" PEM in JSON"] = fmt.Appendf(nil, "%q", block)
		bad[name+" hex"] = hex.AppendEncode(nil, b)
		bad[name+" hex and a line end"] = fmt.Appendf(nil, "%x\n", b)
		bad[name+" hex after 0x"] = fmt.Appendf(nil, "0x%X", b)
		bad[name+" hex with colons"] = []byte(strings.ReplaceAll(fmt.Sprintf("% x", b), " ", ":"))
		bad[name+" hex of PEM"] = hex.AppendEncode(nil, block)
		for i, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(b)
			bad[fmt.Sprintf("%s base64 %d", name, i)] = []byte(text)
			bad[fmt.Sprintf("%s base64 %d, a line end", name, i)] = []byte(text + "\n")
			bad[fmt.Sprintf("%s base64 %d, a NUL", name, i)] = []byte(text + "\x00")
			bad[fmt.Sprintf("%s base64 %d, quoted", name, i)] = []byte(`"` + text + `"`)
			bad[fmt.Sprintf("%s base64 %d, after a BOM", name, i)] = []byte("\uFEFF" + text)
			bad[fmt.Sprintf("%s base64 %d, in lines", name, i)] = []byte(" " + text[:40] + "\r\n\t " + text[40:])
			bad[fmt.Sprintf("%s base64 %d of DER and a line end", name, i)] = []byte(enc.EncodeToString(append(slices.Clone(b), '\n')))
			bad[fmt.Sprintf("%s base64 %d of PEM", name, i)] = []byte(enc.EncodeToString(block))
		}
	}
	jwk := `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	for name, text := range map[string]string{
		"JWK": jwk, "JWK, spaces around": "\n " + jwk + "\n", "JWK set": `{"keys":[` + jwk + `]}`, "JWK after a BOM": "\uFEFF" + jwk,
		"JWK in an array": "[" + jwk + "]",
		"JWK of a secret": `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"}`,
		"empty JWK set":   `{"keys":[],"comment":"to be filled in later"}`,
		"JWK cut":         jwk[:len(jwk)-20], "JWK inside": `{"public":` + jwk + `}`,
		"JWK with other quotes": strings.ReplaceAll(jwk, `"`, `'`), "JWK as a string": fmt.Sprintf("%q", jwk),
	} {
		bad[name] = []byte(text)
		bad[name+" base64"] = []byte(base64.StdEncoding.EncodeToString([]byte(text)))
		bad[name+" base64url"] = []byte(base64.RawURLEncoding.EncodeToString([]byte(text)) + "\n")
		bad[name+" hex"] = hex.AppendEncode(nil, []byte(text))
	}
	ssh := "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	raw, err := base64.StdEncoding.DecodeString(ssh)
	require.NoError(t, err)
	for name, text := range map[string]string{
		"Ed25519":      "ssh-ed25519 " + ssh + " me@example.com",
		"P-256":        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA me@example.com",
		"security key": "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t", "without its name": ssh,
		"without its name, a comment": ssh + " me@example.com",
		"options":                     `restrict,command="/bin/true" ssh-ed25519 ` + ssh,
		"known_hosts":                 "example.com ssh-ed25519 " + ssh, "bytes": string(raw), "RFC 4716": "---- BEGIN SSH2 PUBLIC KEY ----\n" + ssh,
		"private, without its lines": base64.StdEncoding.EncodeToString([]byte("openssh-key-v1\x00\x00\x00\x00\x04none\x00\x00\x00\x04none")),
	} {
		bad["OpenSSH "+name] = []byte(text)
		bad["OpenSSH "+name+" and a line end"] = []byte(text + "\r\n")
		bad["OpenSSH "+name+" base64"] = []byte(base64.StdEncoding.EncodeToString([]byte(text)))
	}
	for name, b := range bad {
		if len(b) < 32 {
			continue
		}
		require.ErrorContains(t, keyErr(auth.HS256(b)), "auth: VerifierConfig.Keys[0] (HS256): "+notASecret, name)
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Users: newUsers(), Secrets: [][]byte{b}})
		require.ErrorContains(t, err, "auth: Config.Secrets[0]: "+notASecret, name)
	}
}

func TestKey_RefusesGuessableSecrets(t *testing.T) {
	t.Parallel()
	const equal, words = "all bytes of the secret are equal", "consists of letters and blanks"
	const repeats, few = "repeats a shorter string", "different bytes; it must have at least 8"
	const placeholder, example, filled = "is a placeholder that was not replaced", "is a published example", "ends in a long run of one byte"
	for secret, want := range map[string]string{
		string(make([]byte, 64)): equal, strings.Repeat("a", 64): equal, strings.Repeat("\xff", 200): equal,
		strings.Repeat("changeme", 4): few, strings.Repeat("CHANGEME", 8) + "\n": few, "a" + strings.Repeat("b", 60): few,
		string(append(make([]byte, 31), 1)): few,
		strings.Repeat("01", 30):            few, strings.Repeat("abcdefg", 9): few,
		strings.Repeat("change-me", 4):                                                           repeats,
		strings.Repeat("0123456789", 4):                                                          repeats,
		strings.Repeat("change-me-", 4)[:34]:                                                     repeats, // cut within the repeated text
		"my-own-secret-20-xyz" + "my-own-secret-20-xyz"[:12]:                                     repeats,
		strings.Repeat("correct horse ", 3):                                                      repeats,
		strings.Repeat(string(distinctBytes(32)), 2):                                             repeats,
		`"` + strings.Repeat("change-me", 4) + `"`:                                               repeats,
		strings.Repeat("change-me", 4) + "\r\n":                                                  repeats,
		"\uFEFF" + strings.Repeat("change-me", 4):                                                repeats,
		"correct horse battery staple again":                                                     words,
		"CORRECT HORSE BATTERY STAPLE AGAIN\n":                                                   words,
		"'correct horse battery staple again'":                                                   words,
		"correct\thorse\nbattery\r\nstaple again":                                                words,
		"pferdebatterie\u00a0klammer richtig großes Ungetüm":                                     words,
		"password" + strings.Repeat(" ", 24):                                                     few,
		strings.Repeat("changeme1", 4) + " \n":                                                   repeats,
		"\n\t" + strings.Repeat("changeme1", 4):                                                  repeats,
		strings.Repeat("changeme1", 4) + "\x00\x00":                                              repeats,
		strings.Repeat("changeme1", 4) + "\u00a0":                                                repeats,
		` "` + strings.Repeat("changeme1", 4) + `" `:                                             repeats,
		` "${AUTH_SECRET_OF_THIS_VERY_SERVICE}" `:                                                placeholder,
		" " + strings.Repeat("abcdefg", 9) + "\x00":                                              few,
		"a-string-secret-at-least-256-bits-long\x00\x00":                                         example,
		"supercalifragilistic" + strings.Repeat(" ", 20):                                         words,
		"supercalifragilistic" + strings.Repeat("\x00", 20):                                      words,
		"Passw0rd-1234" + strings.Repeat("=", 40):                                                filled,
		"Passw0rd-1234" + strings.Repeat("\x00", 40):                                             filled,
		"$(openssl rand -base64 48)xxxxxxxx":                                                     placeholder,
		`"$(openssl rand -base64 48)xxxxxx"`:                                                     placeholder,
		"${AUTH_SECRET_OF_THIS_VERY_SERVICE}":                                                    placeholder,
		" ${AUTH_SECRET_OF_THIS_VERY_SERVICE}\n":                                                 placeholder,
		"<put at least 32 random bytes here!>":                                                   placeholder,
		"%AUTH_SECRET_OF_THIS_VERY_SERVICE_1%":                                                   placeholder,
		"{{ .Values.auth.secret | b64dec | quote }}":                                             placeholder,
		"`openssl rand -base64 48 | tr -d =`":                                                    placeholder,
		"a-string-secret-at-least-256-bits-long":                                                 example,
		`"a-string-secret-at-least-256-bits-long"` + "\n":                                        example,
		"A-STRING-SECRET-AT-LEAST-256-BITS-LONG":                                                 example,
		"a-valid-string-secret-that-is-at-least-384-bits-long":                                   example,
		"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long":                example,
		"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow": example,
	} {
		err := keyErr(auth.HS256([]byte(secret)))
		require.ErrorContains(t, err, want, "%q", secret)
		require.ErrorContains(t, err, "openssl rand -base64 48", "%q", secret)
		_, err = auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Users: newUsers(), Secrets: [][]byte{[]byte(secret)}})
		require.ErrorContains(t, err, want, "%q", secret)
		require.NotContains(t, err.Error(), secret)
	}
	for name, good := range map[string][]byte{
		"random": distinctBytes(32), "base64 of random bytes": []byte(base64.StdEncoding.EncodeToString(distinctBytes(48))),
		"hex":                                 fmt.Appendf(nil, "%x", distinctBytes(32)),
		"JSON of something else":              []byte(`{"this":"is an odd secret, but not a key"}`),
		"a sentence with more than letters":   []byte("the quick brown fox jumps over 13 lazy dogs"),
		"letters in a line":                   []byte("ThequickbrownfoxjumpsoverthelazydogXY\n"),
		"bytes that begin like a placeholder": append([]byte("<"), distinctBytes(32)...),
		"bytes that begin like a command":     append([]byte("$("), distinctBytes(40)...), "a dollar": []byte("$2y-is-how-this-secret-of-mine-begins"),
		"hex that begins like DER": []byte("3050024135b8b09050b92bcf915bf247485a5ff02c4088ce53a545532f19cfb3f6c6edaf79fd9ca3a02d60c03fc6eaaa"),
	} {
		require.NoError(t, keyErr(auth.HS256(good)), name)
	}
}

// TestKey_AcceptsRandomSecrets tests that a random secret is accepted in every
// encoding.
func TestKey_AcceptsRandomSecrets(t *testing.T) {
	t.Parallel()
	s := seed(t)
	r := mathrand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), s)))
	forms := []func(b []byte) []byte{
		func(b []byte) []byte { return b },
		func(b []byte) []byte { return hex.AppendEncode(nil, b) },
		func(b []byte) []byte { return append(base64.StdEncoding.AppendEncode(nil, b), '\n') },
		func(b []byte) []byte { return base64.RawURLEncoding.AppendEncode(nil, b) },
		func(b []byte) []byte {
			b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
			return fmt.Appendf(nil, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
		},
		func(b []byte) []byte { // with the line breaks of openssl rand -base64 64
			text := base64.StdEncoding.AppendEncode(nil, append(b, b[:16]...))
			return append(append(append(text[:64:64], '\n'), text[64:]...), '\n')
		},
	}
	for range iterations(100_000, 1_000_000) / len(forms) {
		for _, form := range forms {
			b := make([]byte, 48)
			_, _ = r.Read(b)
			if secret := form(b); keycheck.Secret(secret, 32) != nil {
				require.NoError(t, keycheck.Secret(secret, 32), "%q", secret)
			}
		}
	}
}

// TestKey_AcceptsRandomSecretsWithBytesOfKeyFiles tests that the short marks of
// key files count only in text.
func TestKey_AcceptsRandomSecretsWithBytesOfKeyFiles(t *testing.T) {
	t.Parallel()
	r := mathrand.NewChaCha8([32]byte{})
	for _, size := range []int{32, 48, 64, 128} {
		for _, mark := range []string{`"kty`, `'kty`, "ssh-"} {
			for at := range size - len(mark) + 1 {
				b := make([]byte, size)
				_, _ = r.Read(b)
				copy(b[at:], mark)
				for _, secret := range [][]byte{b, hex.AppendEncode(nil, b), base64.StdEncoding.AppendEncode(nil, b), base64.RawURLEncoding.AppendEncode(nil, b)} {
					require.NoError(t, keycheck.Secret(secret, 32), "%q", secret)
				}
			}
		}
	}
	for text, keyFile := range map[string]string{
		"escaped":           `{\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7a\"}`,
		"of Ruby":           `{"kty"=>"RSA", "n"=>"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7a"}`,
		"of Python":         `{'kty': 'oct', 'k': 'AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ'}`,
		"truncated":         `{"alg":"ES256","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","kty`,
		"with broken bytes": "{\"kty\":\"RSA\",\"n\":\"0vx7agoebGc\xff\xfe\x00\x01\xffQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbf",
		"in Chinese":        `{"kid":"密钥密钥密钥密钥密钥密钥密钥密钥密钥密钥","kty":"oct"`,
		"of OpenSSH":        "ssh-rsa \xff\xfe damaged damaged damaged damaged",
	} {
		for _, secret := range [][]byte{[]byte(keyFile), hex.AppendEncode(nil, []byte(keyFile)), base64.StdEncoding.AppendEncode(nil, []byte(keyFile))} {
			require.ErrorContains(t, keycheck.Secret(secret, 32), "the secret is a PEM block, a JWK or a DER key", text)
		}
	}
}

// TestKeys_RefuseSecretsEqualToPublicKeys tests that an HMAC secret must not be
// a public key of the same list, or the kid of one, because those are public.
func TestKeys_RefuseSecretsEqualToPublicKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: creates many keys")
	}
	t.Parallel()
	for alg, private := range privateKeys() {
		key := publicAlgs[alg](private)
		var raw [][]byte
		switch p := private.Public().(type) {
		case ed25519.PublicKey:
			raw = [][]byte{p}
		case *ecdsa.PublicKey:
			point, err := p.Bytes()
			require.NoError(t, err)
			half := len(point) / 2
			compressed := elliptic.MarshalCompressed(p.Curve, p.X, p.Y) //nolint:staticcheck // crypto/ecdsa does not compress
			raw = [][]byte{point, point[1:], point[1 : 1+half], point[1+half:], compressed}
		case *rsa.PublicKey:
			raw = [][]byte{p.N.Bytes(), append([]byte{0}, p.N.Bytes()...)}
		}
		var forms [][]byte
		for _, b := range raw {
			forms = append(forms, b, hex.AppendEncode(nil, b), []byte(strings.ReplaceAll(fmt.Sprintf("% X", b), " ", ":")))
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				forms = append(forms, []byte(enc.EncodeToString(b)))
			}
		}
		forms = append(forms, []byte(key.ID()))
		for i, form := range forms {
			for _, end := range []string{"", "\n", "\r\n", "\x00", "\x00\x00"} {
				secret := auth.HS256(append(slices.Clone(form), end...))
				require.ErrorContains(
					t, keyErr(secret, key),
					"auth: VerifierConfig.Keys[0]: the secret is the public key of VerifierConfig.Keys[1]; create one", "%s %d %q", alg, i,
					end,
				)
				require.ErrorContains(
					t, keyErr(auth.HS256(accessSecret), key.WithID("main"), secret),
					"Keys[2]: the secret is the public key of VerifierConfig.Keys[1]", "%s %d %q", alg, i, end,
				)
				config := auth.Config{
					Issuer: issuer, Audience: []string{audience}, Users: newUsers(), AccessKeys: auth.Keys{key},
					RefreshKeys: auth.Keys{secret},
				}
				_, err := auth.New(config)
				require.ErrorContains(t, err, "auth: Config.RefreshKeys[0]: the secret is the public key of Config.AccessKeys[0]", "%s %d %q", alg, i, end)
			}
		}
	}
	// In base64, some keys begin with 0x like a hexadecimal number.
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint32(seed, 1540)
		public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		text := enc.EncodeToString(public)
		require.Equal(t, "0x", text[:2])
		require.ErrorContains(t, keyErr(auth.HS256([]byte(text)), auth.EdDSA(public)), "the secret is the public key of VerifierConfig.Keys[1]")
		require.ErrorContains(
			t, keyErr(auth.HS256([]byte("0x"+hex.EncodeToString(public))), auth.EdDSA(public)),
			"the secret is the public key of VerifierConfig.Keys[1]",
		)
	}
	// A public key that is not in the list is not a secret either, but it
	// cannot be recognized.
	other, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	require.NoError(t, keyErr(auth.HS256(other), auth.EdDSA(privateKeys()["EdDSA"])))
}

func TestKey_IDNamesSecretAndAlgorithm(t *testing.T) {
	t.Parallel()
	long := distinctBytes(64)
	ids := []string{auth.HS256(long).ID(), auth.HS384(long).ID(), auth.HS512(long).ID(), auth.HS256(long[:63]).ID()}
	require.Equal(t, auth.HS256(long).ID(), auth.HS256(slices.Clone(long)).ID(), "equal keys must have equal IDs")
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), 4)
	for _, id := range ids {
		require.Regexp(t, `^[A-Za-z0-9_-]{12}$`, id)
	}
	require.Empty(t, auth.Key{}.ID())
}

func TestKey_IsACopyOfItsSecret(t *testing.T) {
	t.Parallel()
	mine := slices.Clone(accessSecret)
	key := auth.HS256(mine)
	clear(mine)
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{key}, Now: newClock().Now})
	require.NoError(t, err)
	_, err = v.Verify(context.Background(), newForger("access", newClock().Now()).genuine())
	require.NoError(t, err)
}

func TestKeys_ErrorsNameTheIndex(t *testing.T) {
	t.Parallel()
	a, b := auth.HS256(accessSecret), auth.HS256(access2Secret)
	err := keyErr(a, auth.Key{}, b, auth.HS384(distinctBytes(47)), a)
	require.EqualError(t, err, strings.Join([]string{
		"auth: VerifierConfig.Keys[1] is the zero Key; create it with HS256, EdDSA or a similar function",
		"auth: VerifierConfig.Keys[3] (HS384): the secret is 47 bytes; it must be at least 48; create one with `openssl rand -base64 48`",
		"auth: VerifierConfig.Keys[0] and VerifierConfig.Keys[4] have the same ID",
	}, "\n"))
	require.EqualError(t, keyErr(), "auth: VerifierConfig.Keys is empty; add a key that verifies access tokens")
	require.NoError(t, keyErr(a, b))
}

func TestKeys_VerifyKeys(t *testing.T) {
	t.Parallel()
	keys := auth.Keys{auth.HS256(accessSecret), auth.HS256(access2Secret)}
	for _, k := range keys {
		found, err := keys.VerifyKeys(context.Background(), k.ID())
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, k.ID(), found[0].ID())
		require.Equal(t, 1, cap(found), "append must not write into the keys")
	}
	all, err := keys.VerifyKeys(context.Background(), "")
	require.NoError(t, err)
	require.Len(t, all, 2)
	none, err := keys.VerifyKeys(context.Background(), "unknown")
	require.NoError(t, err)
	require.Empty(t, none)
}

// keySourceFunc is a KeySource of an application.
type keySourceFunc func(ctx context.Context, id string) ([]auth.Key, error)

func (s keySourceFunc) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) {
	return s(ctx, id)
}

func TestVerify_PassesOnlyTheKidToTheKeySource(t *testing.T) {
	t.Parallel()
	f := newForger("access", newClock().Now())
	type ctxKey struct{}
	var asked []string
	var fail error
	keys := []auth.Key{f.second, f.key}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Now: newClock().Now,
		Keys: keySourceFunc(func(ctx context.Context, id string) ([]auth.Key, error) {
			asked = append(asked, id)
			require.Equal(t, "x", ctx.Value(ctxKey{}))
			return keys, fail
		}),
	})
	require.NoError(t, err)
	ctx := context.WithValue(context.Background(), ctxKey{}, "x")
	_, err = v.Verify(ctx, f.genuine())
	require.NoError(t, err)
	_, err = v.Verify(ctx, f.signHeader(f.header().without("kid")))
	require.NoError(t, err)
	require.Equal(t, []string{f.key.ID(), ""}, asked)

	asked = nil
	for _, token := range []string{
		"", "a.b", f.signHeader(f.header().with("typ", `"JWT"`)), f.signHeader(f.header().with("kid", `""`)),
		f.signHeader(f.header().with("jku", `"x"`)), f.sized(8193), f.genuine() + "=", f.genuine() + ".AAAA",
	} {
		_, err = v.Verify(ctx, token)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	require.Empty(t, asked, "a malformed token must cause no lookup")

	keys = nil
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken, "the source has no such key")
	// The source returns a key of another algorithm under that kid.
	keys = []auth.Key{auth.HS384(append(slices.Clone(accessSecret), accessSecret...))}
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	keys, fail = []auth.Key{f.key}, errors.New("the key server is away")
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrUnavailable, "an error of the source must not refuse the token")
	require.ErrorIs(t, err, fail)
	require.NotErrorIs(t, err, auth.ErrInvalidToken)
}

func TestVerify_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	f := newForger("access", fx.clock.Now())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				sub := fmt.Sprintf("user-%d-%d", i, j)
				c, err := fx.Verify(context.Background(), f.signClaims(f.claims.with("sub", quote(sub))))
				if err != nil || c.Subject != sub {
					t.Errorf("%v, %v of %s", c, err, sub)
				}
				if _, err := fx.Verify(context.Background(), f.signClaims(f.claims)+"AA"); !errors.Is(err, auth.ErrInvalidToken) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestVerify_SkipsUnusableKeysOfASource(t *testing.T) {
	t.Parallel()
	f := newForger("access", newClock().Now())
	keys := []auth.Key{{}, auth.HS256(nil), f.key}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Now: newClock().Now,
		Keys: keySourceFunc(func(context.Context, string) ([]auth.Key, error) { return keys, nil }),
	})
	require.NoError(t, err)
	_, err = v.Verify(context.Background(), f.genuine())
	require.NoError(t, err)
	keys = keys[:2]
	_, err = v.Verify(context.Background(), f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = v.Verify(context.Background(), handSigned(nil, f.header().String(), f.claims.String()))
	require.ErrorIs(t, err, auth.ErrInvalidToken, "an empty secret must verify nothing")
}

func TestKeys_ASecretIsForOneAlgorithmAndOneKind(t *testing.T) {
	t.Parallel()
	long := distinctBytes(64)
	require.EqualError(t, keyErr(auth.HS256(long), auth.HS512(long)), "auth: VerifierConfig.Keys[0] and VerifierConfig.Keys[1] have the same secret")
	require.NotEmpty(t, newErrors(t, func(c *auth.Config) {
		c.Secrets, c.AccessKeys, c.RefreshKeys = nil, keysOf(long[:40]), keysOf(append(slices.Clone(long[:40]), 0, 0))
	}), "HMAC fills up with zero bytes")
}

// The derivation never changes, so that other versions, and other programs with
// the same secret, derive the same keys.
func TestSecrets_DeriveAKeyForEachKind(t *testing.T) {
	t.Parallel()
	tokens := newFixture(t).login(t)
	for label, token := range map[string]string{"access": tokens.Access, "refresh": tokens.Refresh} {
		derived, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 "+label, 32)
		require.NoError(t, err)
		header, _ := decodeToken(t, token)
		require.Equal(t, auth.HS256(derived).ID(), header["kid"])
		dot := strings.LastIndexByte(token, '.')
		require.Equal(t, macOf(sha256.New, derived, token[:dot]), token[dot+1:])
	}
}
