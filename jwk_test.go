package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// blockOf returns a PEM block.
func blockOf(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// blocksOf returns the PEM blocks of a private key (PKCS #8) and its public
// key.
func blocksOf(private crypto.Signer) (string, string) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	pub, err2 := x509.MarshalPKIXPublicKey(private.Public())
	return blockOf("PRIVATE KEY", der, err), blockOf("PUBLIC KEY", pub, err2)
}

func utf16Text(text string, first, second int) string {
	var b []byte
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(text))...) {
		b = append(b, byte(u>>first), byte(u>>second))
	}
	return string(b)
}

// spoiled are changes to the text of a PEM file that do not change its meaning.
var spoiled = map[string]func(string) string{
	"unchanged":                 func(s string) string { return s },
	"\\n as two characters":     func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) },
	"\\r\\n as four":            func(s string) string { return strings.ReplaceAll(s, "\n", `\r\n`) },
	"escaped twice":             func(s string) string { return strings.ReplaceAll(s, "\n", `\\n`) },
	"quoted by JSON":            func(s string) string { return fmt.Sprintf("%q", s) },
	"quoted by PHP's JSON":      func(s string) string { return strings.ReplaceAll(fmt.Sprintf("%q", s), "/", `\/`) },
	"\\r\\n":                    func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	"\\r":                       func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
	"in one line":               func(s string) string { return strings.ReplaceAll(s, "\n", " ") },
	"in one line, no blanks":    func(s string) string { return strings.ReplaceAll(s, "\n", "") },
	"indented":                  func(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n\t  ") },
	"blanks at the ends":        func(s string) string { return strings.ReplaceAll(s, "\n", " \t\n") },
	"empty lines":               func(s string) string { return strings.ReplaceAll(s, "\n", "\n\n") },
	"without its last line end": func(s string) string { return strings.TrimSuffix(s, "\n") },
	"text before": func(s string) string {
		return "Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n" + s
	},
	"text behind":              func(s string) string { return s + "made on Monday\n" },
	"a letter behind":          func(s string) string { return s + "x" },
	"after a BOM":              func(s string) string { return "\uFEFF" + s },
	"UTF-16, little end first": func(s string) string { return utf16Text(s, 0, 8) },
	"UTF-16, big end first":    func(s string) string { return utf16Text(s, 8, 0) },
	"in YAML":                  func(s string) string { return "key: |\n  " + strings.ReplaceAll(s, "\n", "\n  ") },
	"in an env file":           func(s string) string { return `AUTH_KEY="` + strings.ReplaceAll(s, "\n", `\n`) + `"` },
	"with a header":            func(s string) string { return strings.Replace(s, "-----\n", "-----\nComment: mine\n\n", 1) },
}

func TestParsePEM_ReadsCommonFiles(t *testing.T) {
	t.Parallel()
	ec, rs := privateKeys()["ES256"].(*ecdsa.PrivateKey), privateKeys()["PS256"].(*rsa.PrivateKey)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &ec.PublicKey, ec)
	certificate := blockOf("CERTIFICATE", cert, err)
	params, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
	parameters := blockOf("EC PARAMETERS", params, err)
	sec1, err := x509.MarshalECPrivateKey(ec)
	oldEC := blockOf("EC PRIVATE KEY", sec1, err)
	ecBlock, ecPublic := blocksOf(ec)
	rsaBlock, rsaPublic := blocksOf(rs)
	edBlock, edPublic := blocksOf(privateKeys()["EdDSA"])
	files := map[string]struct {
		text  string
		key   auth.Key
		signs bool
	}{
		"openssl ecparam -genkey":           {parameters + oldEC, auth.ES256(ec), true},
		"parameters behind":                 {oldEC + parameters, auth.ES256(ec), true},
		"RSA PUBLIC KEY":                    {blockOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rs.PublicKey), nil), auth.PS256(rs), false},
		"PKCS #1 as PUBLIC KEY":             {blockOf("PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rs.PublicKey), nil), auth.PS256(rs), false},
		"RSA PRIVATE KEY":                   {blockOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs), nil), auth.PS256(rs), true},
		"PKCS #8 as RSA PRIVATE KEY":        {strings.ReplaceAll(rsaBlock, "PRIVATE", "RSA PRIVATE"), auth.PS256(rs), true},
		"Ed25519":                           {edBlock, auth.EdDSA(privateKeys()["EdDSA"]), true},
		"Ed25519, public":                   {edPublic, auth.EdDSA(privateKeys()["EdDSA"]), false},
		"both halves":                       {ecBlock + ecPublic, auth.ES256(ec), true},
		"both halves, the public one first": {edPublic + edBlock, auth.EdDSA(privateKeys()["EdDSA"]), true},
		"both halves of RSA":                {rsaPublic + rsaBlock, auth.PS256(rs), true},
		"its own certificate behind":        {oldEC + certificate, auth.ES256(ec), true},
		"its own certificate before":        {certificate + "\n" + ecBlock, auth.ES256(ec), true},
		"parameters and both halves":        {parameters + oldEC + ecPublic, auth.ES256(ec), true},
		"padding removed":                   {strings.ReplaceAll(oldEC, "=", ""), auth.ES256(ec), true},
	}
	for name, file := range files {
		for way, spoil := range spoiled {
			key, err := auth.ParsePEM([]byte(spoil(file.text)))
			require.NoError(t, err, "%s, %s", name, way)
			require.Equal(t, file.key.ID(), key.ID(), "%s, %s", name, way)
			_, err = auth.New(auth.Config{
				Issuer: issuer, Audience: []string{audience}, Users: newUsers(), AccessKeys: auth.Keys{key},
				RefreshKeys: auth.Keys{auth.HS256(secret)},
			})
			require.Equal(t, file.signs, err == nil, "%s, %s: %v", name, way, err)
		}
	}
}

func TestParsePEM_ErrorNamesTheContent(t *testing.T) {
	t.Parallel()
	ec := privateKeys()["ES256"].(*ecdsa.PrivateKey)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &ec.PublicKey, ec)
	certificate := blockOf("CERTIFICATE", cert, err)
	ecBlock, ecPublic := blocksOf(ec)
	edBlock, edPublic := blocksOf(privateKeys()["EdDSA"])
	sec1, err := x509.MarshalECPrivateKey(ec)
	oldEC := blockOf("EC PRIVATE KEY", sec1, err)
	x := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), 60))
	some := func(kind string) string {
		return "-----BEGIN " + kind + "-----\n" + x + "\n-----END " + kind + "-----\n"
	}
	lines := strings.Split(ecBlock, "\n")
	for text, want := range map[string]string{
		"":                      "auth: PEM: no -----BEGIN found; pass the content of a PEM file, not its path",
		"/etc/keys/sign.pem":    "auth: PEM: no -----BEGIN found; pass the content of a PEM file, not its path",
		"\n{\"kty\":\"OKP\"}\n": "auth: PEM: no -----BEGIN found; parse a JWK with ParseJWK",
		base64.StdEncoding.EncodeToString([]byte(ecBlock)): "auth: PEM: the text is a PEM block in base64; decode it first",
		ecBlock + edBlock:   "auth: PEM: found PRIVATE KEY and PRIVATE KEY; expected one private or public key",
		oldEC + edBlock:     "auth: PEM: found EC PRIVATE KEY and PRIVATE KEY; expected one private or public key",
		ecBlock + ecBlock:   "auth: PEM: found PRIVATE KEY and PRIVATE KEY; expected one private or public key",
		ecPublic + edPublic: "auth: PEM: found PUBLIC KEY and PUBLIC KEY; expected one private or public key",
		ecBlock + edPublic: "auth: PEM: found PRIVATE KEY and PUBLIC KEY, " +
			"and the PUBLIC KEY is not the public half of the PRIVATE KEY",
		edBlock + certificate: "auth: PEM: found PRIVATE KEY and CERTIFICATE, " +
			"and the CERTIFICATE is not the public half of the PRIVATE KEY",
		certificate:                   "auth: PEM: found CERTIFICATE: extract the public key with `openssl x509 -pubkey -noout`",
		certificate + certificate:     "auth: PEM: found CERTIFICATE and CERTIFICATE; expected one private or public key",
		some("EC PARAMETERS"):         "auth: PEM: found EC PARAMETERS; expected one private or public key",
		some("ENCRYPTED PRIVATE KEY"): "auth: PEM: found ENCRYPTED PRIVATE KEY: decrypt it with `openssl pkey`",
		some(
			"OPENSSH PRIVATE KEY",
		): "auth: PEM: found OPENSSH PRIVATE KEY: only OpenSSH reads this format; create a key with `openssl genpkey -algorithm ed25519`",
		some("CERTIFICATE REQUEST"):                              "auth: PEM: found CERTIFICATE REQUEST: expected a private or a public key",
		some("DH PARAMETERS") + ecBlock:                          "auth: PEM: found DH PARAMETERS and PRIVATE KEY; expected one private or public key",
		some("PRIVATE KEY"):                                      "auth: PEM: malformed key in the PRIVATE KEY block",
		strings.ReplaceAll(ecPublic, "PUBLIC", "PRIVATE"):        "auth: PEM: malformed key in the PRIVATE KEY block",
		strings.ReplaceAll(ecBlock, "PRIVATE", "PUBLIC"):         "auth: PEM: malformed key in the PUBLIC KEY block",
		ecBlock[:len(ecBlock)-10]:                                "auth: PEM: the PRIVATE KEY block has no END",
		lines[0] + "\n" + ecBlock:                                "auth: PEM: the PRIVATE KEY block has no END",
		strings.Replace(ecBlock, "END PRIVATE", "END PUBLIC", 1): "auth: PEM: the PRIVATE KEY block has no END",
		strings.Join(lines[1:], "\n"):                            "auth: PEM: an END has no BEGIN",
		ecBlock + lines[len(lines)-2]:                            "auth: PEM: an END has no BEGIN",
		strings.Replace(ecBlock, "\n", "\n> ", 3):                "auth: PEM: the PRIVATE KEY block is not base64",
		"-----BEGIN private key-----":                            "auth: PEM: a BEGIN has no label in capital letters",
		"-----BEGIN PRIVATE KEY":                                 "auth: PEM: a BEGIN has no label in capital letters",
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0F18\n\n" +
			x + "\n-----END RSA PRIVATE KEY-----\n": "auth: PEM: found RSA PRIVATE KEY, encrypted: decrypt it with `openssl pkey`",
		strings.Repeat(some("PRIVATE KEY"), 17): "auth: PEM: more than 16 blocks",
		strings.Repeat(" ", 1<<20) + ecBlock:    "auth: PEM: more than 1048576 bytes",
	} {
		key, err := auth.ParsePEM([]byte(text))
		require.EqualError(t, err, want, "%.100s", text)
		require.Zero(t, key)
	}
}

// TestParsePEM_ReadsWhatOpenSSLWrites runs the installed openssl.
func TestParsePEM_ReadsWhatOpenSSLWrites(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts openssl many times")
	}
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		const text = "openssl is not installed: apt-get install openssl"
		if os.Getenv("AUTH_REQUIRE_SERVICES") == "1" {
			require.Fail(t, text)
		}
		t.Skip(text)
	}
	dir := t.TempDir()
	sh := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.Output()
		require.NoError(t, err, script)
		return string(out)
	}
	for _, c := range []struct{ script, alg string }{
		{"openssl genpkey -algorithm ed25519", "EdDSA"},
		{"openssl ecparam -name prime256v1 -genkey", "ES256"},
		{"openssl ecparam -name secp384r1 -genkey", "ES384"},
		{"openssl ecparam -name secp521r1 -genkey -noout", "ES512"},
		{"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "ES256"},
		{"openssl genrsa 2048 2>/dev/null", "PS256"},
		{"openssl genrsa -traditional 2048 2>/dev/null", "PS256"},
		{"openssl genpkey -algorithm ed25519 -text", "EdDSA"},
	} {
		text := sh(c.script + " > key.pem; cat key.pem")
		key, err := auth.ParsePEM([]byte(text))
		require.NoError(t, err, c.script)
		require.Contains(t, fmt.Sprint(key), c.alg, c.script)
		newFixture(t, withAccessKeys(key)).login(t)
		publics := []string{"openssl pkey -in key.pem -pubout"}
		if c.alg == "PS256" {
			publics = append(publics, "openssl rsa -in key.pem -RSAPublicKey_out 2>/dev/null")
		}
		for _, script := range publics {
			half := sh(script)
			public, err := auth.ParsePEM([]byte(half))
			require.NoError(t, err, script)
			require.Equal(t, key.ID(), public.ID())
			both, err := auth.ParsePEM([]byte(half + text))
			require.NoError(t, err, script)
			require.Equal(t, key.ID(), both.ID())
		}
	}
	require.FileExists(t, filepath.Join(dir, "key.pem"))
	for script, want := range map[string]string{
		"openssl genpkey -algorithm ed25519 -aes128 -pass pass:1234":                                    "found ENCRYPTED PRIVATE KEY: decrypt it",
		"openssl genrsa -traditional -aes128 -passout pass:1234 2048 2>/dev/null":                       "found RSA PRIVATE KEY, encrypted: decrypt it",
		"openssl req -x509 -newkey ed25519 -nodes -keyout k -subj /CN=x 2>/dev/null":                    "found CERTIFICATE: extract the public key",
		"openssl ecparam -name prime256v1":                                                              "found EC PARAMETERS; expected",
		"openssl ecparam -name secp256k1 -genkey":                                                       "malformed key",
		"openssl genpkey -algorithm x25519":                                                             "unsupported key type",
		"openssl genpkey -algorithm ed25519; openssl genpkey -algorithm ed25519":                        "found PRIVATE KEY and PRIVATE KEY",
		"openssl genpkey -algorithm ed25519; openssl genpkey -algorithm ed25519 | openssl pkey -pubout": "is not the public half of",
	} {
		_, err := auth.ParsePEM([]byte(sh(script)))
		require.ErrorContains(t, err, want, script)
		require.Equal(t, 1, strings.Count(err.Error(), "auth: "), err)
	}
}

func TestParseJWK_NullAndEmptyMembersAreAbsent(t *testing.T) {
	t.Parallel()
	const x = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	plain, err := auth.ParseJWK([]byte("{" + x + "}"))
	require.NoError(t, err)
	for _, name := range []string{"use", "alg", "key_ops", "kid", "d", "n", "e", "y", "p", "x5c", "k"} {
		for _, value := range []string{"null", `""`, "[]", "[ \n ]"} {
			if name == "kid" && value == `""` {
				continue
			}
			key, err := auth.ParseJWK([]byte("{" + x + `,"` + name + `":` + value + "}"))
			require.NoError(t, err, "%s %s", name, value)
			require.Equal(t, plain.ID(), key.ID())
			require.ErrorContains(t, newKeyErr(key), "has no key that signs", "%s %s", name, value)
		}
	}
	for member, want := range map[string]string{
		`"kid":""`: "the ID must be", `"use":" "`: "use is not \"sig\"", `"alg":"none"`: "unexpected alg; expected EdDSA",
		`"key_ops":["sign"]`: "key_ops does not contain",
		`"key_ops":[""]`:     "key_ops does not contain", `"use":0`: "use has the wrong type", `"use":{}`: "use has the wrong type",
		`"alg":false`: "alg has the wrong type", `"key_ops":"verify"`: "key_ops has the wrong type",
	} {
		_, err := auth.ParseJWK([]byte("{" + x + "," + member + "}"))
		require.ErrorContains(t, err, want, member)
	}
	for _, text := range []string{
		`{"kty":null}`, `{"kty":""}`, strings.Replace("{"+x+"}", `"crv":"Ed25519"`, `"crv":null`, 1),
		`{"kty":"OKP","crv":"Ed25519","x":""}`,
	} {
		_, err := auth.ParseJWK([]byte(text))
		require.Error(t, err, text)
	}
}

// newKeyErr returns the error of New for an access key.
func newKeyErr(k auth.Key) error {
	_, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Users: newUsers(), AccessKeys: auth.Keys{k},
		RefreshKeys: auth.Keys{auth.HS256(secret)},
	})
	return err
}

// signedAs returns an access token signed by golang-jwt, with the given alg in
// its header.
func signedAs(t *testing.T, method jwt.SigningMethod, alg, kid string, key any) string {
	t.Helper()
	now := newClock().Now().Unix()
	token := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "u1", "sid": "s", "jti": "j", "iat": now, "exp": now + 60, "auth_time": now, "session_exp": now + 60,
	})
	token.Header["typ"], token.Header["kid"], token.Header["alg"] = "at+jwt", kid, alg
	text, err := token.SignedString(key)
	require.NoError(t, err)
	return text
}

func newVerifierOf(t *testing.T, keys ...auth.Key) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys(keys), Now: newClock().Now})
	require.NoError(t, err)
	return v
}

// jwkOf returns the JWK of a public key with the given members changed.
func jwkOf(t *testing.T, k auth.Key, members map[string]any) []byte {
	t.Helper()
	_, w := published(t, newFixture(t, withAccessKeys(k)))
	var set struct{ Keys []map[string]any }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	for name, value := range members {
		set.Keys[0][name] = value
	}
	text, err := json.Marshal(set.Keys[0])
	require.NoError(t, err)
	return text
}

// TestParseJWK_Ed25519IsAnotherNameOfEdDSA tests RFC 9864: a key accepts the
// name in a token only if its JWK has that name.
func TestParseJWK_Ed25519IsAnotherNameOfEdDSA(t *testing.T) {
	t.Parallel()
	private := privateKeys()["EdDSA"].(ed25519.PrivateKey)
	own := auth.EdDSA(private)
	named, err := auth.ParseJWK(jwkOf(t, own, map[string]any{"alg": "Ed25519"}))
	require.NoError(t, err)
	plain, err := auth.ParseJWK(jwkOf(t, own, nil))
	require.NoError(t, err)
	unnamed, err := auth.ParseJWK(jwkOf(t, own, map[string]any{"alg": nil}))
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		key  auth.Key
		alg  string
		good bool
	}{
		{"own", own, "EdDSA", true}, {"own", own, "Ed25519", false},
		{"plain", plain, "EdDSA", true}, {"plain", plain, "Ed25519", false},
		{"unnamed", unnamed, "EdDSA", true}, {"unnamed", unnamed, "Ed25519", false},
		{"named", named, "EdDSA", true}, {"named", named, "Ed25519", true},
		{"named", named, "ed25519", false}, {"named", named, "", false}, {"named", named, "none", false},
		{"named", named, "ES256", false}, {"named", named, "HS256", false},
	} {
		_, err := newVerifierOf(t, c.key).Verify(context.Background(), signedAs(t, jwt.SigningMethodEdDSA, c.alg, c.key.ID(), private))
		if c.good {
			require.NoError(t, err, "%s %s", c.name, c.alg)
		} else {
			require.ErrorIs(t, err, auth.ErrInvalidToken, "%s %s", c.name, c.alg)
		}
	}
	// The key signs, and is published, under the common name EdDSA.
	enc := base64.RawURLEncoding.EncodeToString
	signer, err := auth.ParseJWK(jwkOf(t, own, map[string]any{"alg": "Ed25519", "d": enc(private.Seed())}))
	require.NoError(t, err)
	fx := newFixture(t, withAccessKeys(signer))
	require.Equal(t, "EdDSA", headerOf(t, fx.login(t).Access)["alg"])
	_, w := published(t, fx)
	require.Contains(t, w.Body.String(), `"alg":"EdDSA"`)
	for alg, private := range privateKeys() {
		if alg != "EdDSA" {
			_, err := auth.ParseJWK(jwkOf(t, publicAlgs[alg](private), map[string]any{"alg": "Ed25519"}))
			require.ErrorContains(t, err, "alg", alg)
		}
	}
}

func TestParseJWK_RSAOfOtherHashesOnlyVerifies(t *testing.T) {
	t.Parallel()
	private := privateKeys()["PS256"].(*rsa.PrivateKey)
	methods := map[string]jwt.SigningMethod{
		"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
		"PS256": jwt.SigningMethodPS256, "PS384": jwt.SigningMethodPS384, "PS512": jwt.SigningMethodPS512,
	}
	enc := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	for alg := range methods {
		key, err := auth.ParseJWK(jwkOf(t, auth.PS256(private), map[string]any{"alg": alg}))
		require.NoError(t, err, alg)
		v := newVerifierOf(t, key)
		for other, method := range methods {
			_, err = v.Verify(context.Background(), signedAs(t, method, other, key.ID(), private))
			require.Equal(t, alg == other, err == nil, "%s by a key for %s: %v", other, alg, err)
			_, err = v.Verify(context.Background(), signedAs(t, method, alg, key.ID(), private))
			require.Equal(t, alg == other, err == nil, "%s that says %s: %v", other, alg, err)
		}
		if alg[0] == 'P' { // the salt is as long as the hash (RFC 7518 section 3.5)
			odd := *methods[alg].(*jwt.SigningMethodRSAPSS)
			odd.Options = &rsa.PSSOptions{SaltLength: 20, Hash: odd.Hash}
			_, err = v.Verify(context.Background(), signedAs(t, &odd, alg, key.ID(), private))
			require.ErrorIs(t, err, auth.ErrInvalidToken, alg)
		}
		require.ErrorContains(t, newKeyErr(key), "AccessKeys has no key that signs", alg)
		// Such a key is published like others if another key signs.
		fx := newFixture(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"]), key))
		_, w := published(t, fx)
		require.Contains(t, w.Body.String(), `"alg":"`+alg+`"`)

		whole, err := auth.ParseJWK(
			jwkOf(t, auth.PS256(private), map[string]any{"alg": alg, "d": enc(private.D), "p": enc(private.Primes[0]), "q": enc(private.Primes[1])}),
		)
		if strings.HasSuffix(alg, "256") {
			require.NoError(t, err, alg)
			require.Equal(t, alg, headerOf(t, newFixture(t, withAccessKeys(whole)).login(t).Access)["alg"])
		} else {
			require.EqualError(t, err, "auth: JWK: keys for "+alg+" only verify; use the public key, or sign with PS256 or RS256")
		}
	}
	for _, alg := range []string{"RS384", "PS512"} {
		for own, private := range privateKeys() {
			if own != "PS256" && own != "RS256" {
				_, err := auth.ParseJWK(jwkOf(t, publicAlgs[own](private), map[string]any{"alg": alg}))
				require.ErrorContains(t, err, "unexpected alg; expected "+own)
			}
		}
	}
}

// rocaPrime returns a prime of the form that the faulty chips generated: k·M +
// (65537^a mod M), where M is the product of the first primes (CVE-2017-15361).
func rocaPrime(t *testing.T, bits int) *big.Int {
	t.Helper()
	m := big.NewInt(1)
	for p, found := int64(2), 0; found < 126; p++ { // for keys of 1984 bits or more
		if big.NewInt(p).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(p))
			found++
		}
	}
	for {
		a, err := rand.Int(rand.Reader, m)
		require.NoError(t, err)
		k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-m.BitLen())))
		require.NoError(t, err)
		k.SetBit(k, bits-m.BitLen()-1, 1)
		p := new(big.Int).Exp(big.NewInt(65537), a, m)
		p.Add(p, k.Mul(k, m))
		if p.BitLen() == bits && p.Bit(bits-2) == 1 && p.ProbablyPrime(20) {
			return p
		}
	}
}

func TestKey_RefusesRSAKeysOfFaultyChips(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	p, q := rocaPrime(t, 1024), rocaPrime(t, 1024)
	n := new(big.Int).Mul(p, q)
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(65537), phi)
	require.NotNil(t, d)
	weak := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: []*big.Int{p, q}}
	require.NoError(t, weak.Validate())
	weak.Precompute()
	for alg, k := range map[string]auth.Key{
		"PS256": auth.PS256(weak), "RS256": auth.RS256(weak), "PS256 public": auth.PS256(&weak.PublicKey),
		"of an HSM": auth.PS256(&opaque{Signer: weak}),
	} {
		require.ErrorContains(t, keyErr(k), "ROCA, CVE-2017-15361", alg)
	}
	private, public := blocksOf(weak)
	for _, text := range []string{private, public, blockOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&weak.PublicKey), nil)} {
		_, err := auth.ParsePEM([]byte(text))
		require.ErrorContains(t, err, "ROCA, CVE-2017-15361")
	}
	enc := base64.RawURLEncoding.EncodeToString
	for _, alg := range []string{"PS256", "RS256", "RS384", "PS512"} {
		_, err := auth.ParseJWK(fmt.Appendf(nil, `{"kty":"RSA","alg":"%s","e":"AQAB","n":"%s"}`, alg, enc(n.Bytes())))
		require.ErrorContains(t, err, "ROCA, CVE-2017-15361", alg)
	}
	// One such prime does not match the fingerprint, and neither does a random
	// key.
	sound := privateKeys()["PS256"].(*rsa.PrivateKey)
	require.NoError(t, keyErr(auth.PS256(&rsa.PublicKey{N: new(big.Int).Mul(p, sound.Primes[0]), E: 65537})))
	require.NoError(t, keyErr(auth.PS256(sound)))
	for range iterations(300, 3000) {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(one, 2048))
		require.NoError(t, err)
		n.SetBit(n, 2047, 1).SetBit(n, 0, 1)
		require.NoError(t, keyErr(auth.PS256(&rsa.PublicKey{N: n, E: 65537})))
	}
}

func TestKey_RefusesAnAlgorithmOfAnotherKind(t *testing.T) {
	t.Parallel()
	for alg, private := range privateKeys() {
		for other, construct := range publicAlgs {
			if alg == other || alg[1:] == other[1:] && strings.HasSuffix(alg, "S256") && alg[0] != 'E' && other[0] != 'E' {
				continue // RSA keys are for both algorithms
			}
			for _, half := range []any{private, private.Public(), &opaque{Signer: private}} {
				require.Error(t, keyErr(construct(half)), "%s(%T) of %s", other, half, alg)
			}
		}
	}
	for _, construct := range []func(any) auth.Key{auth.EdDSA, auth.ES256, auth.ES384, auth.ES512} {
		for _, half := range []any{privateKeys()["RS256"], privateKeys()["RS256"].Public()} {
			require.ErrorContains(t, keyErr(construct(half)), "an RSA key cannot be used for E")
		}
	}
}

// TestVerify_ErrorSaysThatTheKidIsUnknown helps to find a key that was removed
// too early.
func TestVerify_ErrorSaysThatTheKidIsUnknown(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	token := newFixture(t, withAccessKeys(ed)).login(t).Access
	_, err := newVerifierOf(t, es).Verify(context.Background(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.ErrorContains(t, err, "unknown kid")
	require.NotContains(t, err.Error(), ed.ID(), "the kid is not authenticated")
	_, err = newVerifierOf(t, es.WithID(ed.ID())).Verify(context.Background(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.ErrorContains(t, err, "signature does not verify")

	// The HTTP response is the same as for any token that does not verify.
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	newVerifierOf(t, es).Require()(http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Contains(t, w.Body.String(), `"action":"login"`)
	require.NotContains(t, w.Body.String(), "kid")
}

// TestVerify_AcceptsOneEncodingOfASignature tests the unused bits of base64.
func TestVerify_AcceptsOneEncodingOfASignature(t *testing.T) {
	t.Parallel()
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	keys := []auth.Key{auth.HS256(distinctBytes(64)), auth.HS384(distinctBytes(64)), auth.HS512(distinctBytes(64))}
	for alg, private := range privateKeys() {
		keys = append(keys, publicAlgs[alg](private))
	}
	for _, k := range keys {
		token := newFixture(t, withAccessKeys(k)).login(t).Access
		v := newVerifierOf(t, k)
		good := 0
		for _, last := range letters {
			if _, err := v.Verify(context.Background(), token[:len(token)-1]+string(last)); err == nil {
				good++
			}
		}
		require.Equal(t, 1, good, "%v: last characters that decode to the same bytes", k)
		for _, odd := range []string{token + "=", token + "==", token + "A", token + "\n", token[:len(token)-1] + "+", token[:len(token)-1]} {
			_, err := v.Verify(context.Background(), odd)
			require.ErrorIs(t, err, auth.ErrInvalidToken, "%v", k)
		}
	}
}

// TestVerify_AcceptsBothFormsOfAnECDSASignature shows that (r, n-s) is a valid
// signature as well as (r, s) (SEC 1 section 4.1.4). Anyone can convert one to
// the other, so a token is identified by its session, not by its text.
func TestVerify_AcceptsBothFormsOfAnECDSASignature(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		curve := privateKeys()[alg].Public().(*ecdsa.PublicKey).Curve
		fx := newFixture(t, withAccessKeys(publicAlgs[alg](privateKeys()[alg])))
		token := fx.login(t).Access
		dot := strings.LastIndexByte(token, '.')
		sig, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		require.NoError(t, err)
		other := slices.Clone(sig)
		s := new(big.Int).SetBytes(sig[len(sig)/2:])
		s.Sub(curve.Params().N, s).FillBytes(other[len(sig)/2:])
		twin := token[:dot+1] + base64.RawURLEncoding.EncodeToString(other)
		require.NotEqual(t, token, twin)
		for range 2 { // the second result comes from the cache
			one, err := fx.Verify(context.Background(), token)
			require.NoError(t, err, alg)
			two, err := fx.Verify(context.Background(), twin)
			require.NoError(t, err, alg)
			require.Equal(t, []string{one.SessionID, one.TokenID, one.Subject}, []string{two.SessionID, two.TokenID, two.Subject})
		}
		c, err := fx.Verify(context.Background(), token)
		require.NoError(t, err)
		require.NoError(t, fx.Revoke(context.Background(), c.Subject, c.SessionID))
		for _, text := range []string{token, twin} {
			_, err := fx.Verify(context.Background(), text)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, alg)
		}
	}
}
