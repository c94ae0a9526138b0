package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/password"
)

// returningSigner is a crypto.Signer that returns a given signature.
type returningSigner struct {
	public crypto.PublicKey
	sig    []byte
	err    error
}

func (s returningSigner) Public() crypto.PublicKey { return s.public }

func (s returningSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return s.sig, s.err
}

func TestKey_RefusesSignaturesThatASignerGetsWrong(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sign := func(sig []byte) error {
		k := ES256(returningSigner{public: &private.PublicKey, sig: sig})
		require.NoError(t, k.err)
		_, err := k.sign([]byte("input"))
		return err
	}
	encode := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		require.NoError(t, err)
		return b
	}
	one, long := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	most := new(big.Int).Sub(long, one)
	require.ErrorContains(t, sign(encode(one, one)), "does not verify")
	require.ErrorContains(t, sign(encode(most, most)), "does not verify")
	for name, sig := range map[string][]byte{
		"no signature":  nil,
		"not ASN.1":     []byte("signature"),
		"more after it": append(encode(one, one), 0),
		"R is 0":        encode(new(big.Int), one),
		"S is 0":        encode(one, new(big.Int)),
		"R is negative": encode(big.NewInt(-1), one),
		"S is negative": encode(one, big.NewInt(-1)),
		"R is long":     encode(long, one),
		"S is long":     encode(one, long),
	} {
		require.ErrorContains(t, sign(sig), "malformed ECDSA signature", name)
	}

	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	failed := errors.New("the key server does not answer")
	k := EdDSA(returningSigner{public: public, err: failed})
	require.NoError(t, k.err)
	_, err = k.sign([]byte("input"))
	require.ErrorIs(t, err, failed)
}

func TestKey_RefusesRSAKeysThatAreNotOne(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	public := private.PublicKey
	check := func(n *big.Int, e int) error { return PS256(&rsa.PublicKey{N: n, E: e}).err }
	require.NoError(t, check(public.N, 65537))
	require.NoError(t, check(public.N, 1<<31-1))
	require.Error(t, check(public.N, 65535))
	require.Error(t, check(public.N, 65538))
	require.Error(t, check(new(big.Int).Add(public.N, big.NewInt(1)), 65537))
	// All powers of 65537 have the form of the keys of the faulty chip.
	require.ErrorContains(t, check(new(big.Int).Exp(big.NewInt(65537), big.NewInt(130), nil), 65537), "ROCA")

	require.NoError(t, PS256(private).err)
	other := *private
	other.D = new(big.Int).Add(private.D, big.NewInt(2))
	require.Error(t, PS256(&other).err)
	require.Error(t, PS256(&rsa.PrivateKey{}).err)
	require.Error(t, PS256((*rsa.PrivateKey)(nil)).err)
}

func TestKey_IDIsOfPrintableCharacters(t *testing.T) {
	t.Parallel()
	k := HS256([]byte("a secret of thirty-two characters"))
	for id, ok := range map[string]bool{
		"!": true, "~": true, strings.Repeat("a", 128): true,
		"": false, " ": false, "a b": false, "\x7f": false, "é": false, strings.Repeat("a", 129): false,
	} {
		require.Equal(t, ok, k.WithID(id).err == nil, "%q", id)
	}
	require.False(t, Key{}.samePublic(k))
	require.False(t, k.samePublic(Key{}))
}

func TestMemberFor_SaysWhatIsWrongWithAToken(t *testing.T) {
	t.Parallel()
	member := &Verifier{}
	member.issuer = "https://a.example"
	v := &Verifier{members: []*Verifier{member}}
	token := func(payload string) string { return "e30." + strictBase64.EncodeToString([]byte(payload)) + ".AA" }
	for payload, expected := range map[string]error{
		"no token":                        notThreeSegments,
		"a.b":                             notThreeSegments,
		"e30.e30.AA.AA":                   notThreeSegments,
		"e30.e3.AA":                       badPayload,
		"e30.e30 .AA":                     badPayload,
		token("[]"):                       malformed("claims: not a JSON object with unique names"),
		token(`{"iss":"a","iss":"b"}`):    malformed("claims: not a JSON object with unique names"),
		strings.Repeat("a", maxToken+1):   tooLarge,
		strings.Repeat("a", maxToken):     notThreeSegments,
		token(`{"iss":1}`):                otherIssuer(),
		token(`{}`):                       otherIssuer(),
		token(`{"iss":"https://b.test"}`): otherIssuer(),
	} {
		m, err := v.memberFor(payload)
		require.Nil(t, m, payload)
		require.EqualError(t, err, expected.Error(), payload)
	}
	m, err := v.memberFor(token(`{"iss":"https://a.example"}`))
	require.NoError(t, err)
	require.Same(t, member, m)
}

func TestWrongType_NamesOnlyTypesThatWereFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ found, want, text string }{
		{typRefresh, typAccess, "this is a refresh token; an access token is required"},
		{typAccess, typRefresh, "this is an access token; a refresh token is required"},
		{"application/" + typAccess, typRefresh, "this is an access token; a refresh token is required"},
	} {
		var err *tokenError
		require.ErrorAs(t, wrongType(c.found, c.want), &err)
		require.Equal(t, c.text, err.description)
	}
	require.NotContains(t, wrongType("other", typRefresh).Error(), typAccess+": this")
	require.NotContains(t, wrongType(typAccess, typOneTime).Error(), "a refresh token is required")
}

// The characters and numbers at both sides of each bound.
func TestBounds_AreExact(t *testing.T) {
	t.Parallel()
	for c := range rune(128) {
		host := strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", c)
		require.Equal(t, !host, isNotHostLetter(c), "%q", c)
		name := c > ' ' && c < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
		require.Equal(t, name, isToken(string(c)), "%q", c)
		separator := strings.ContainsRune(" ,\t", c)
		require.Equal(t, separator, hasSeparator(string(c)), "%q", c)
	}
	require.True(t, isNotHostLetter('é'))
	require.False(t, isToken(""))

	most := maxSessionTTL.Milliseconds()
	for n, ok := range map[int64]bool{-1: false, 0: false, 1: true, most: true, most + 1: false} {
		_, got := readTTL(strconv.FormatInt(n, 10))
		require.Equal(t, ok, got, n)
	}
	for text, ok := range map[string]bool{
		"-1": false, "-0.5": false, "0": true, "1.5": true, "true": false,
		strconv.FormatInt(maxNumericDate, 10): true, strconv.FormatInt(maxNumericDate+1, 10): false,
	} {
		_, got := numericDate(text)
		require.Equal(t, ok, got, text)
	}

	require.True(t, looksLikeJSON([]byte(` {"a":1}`)))
	require.False(t, looksLikeJSON([]byte(`{"a"=1`)))
	require.True(t, looksLikeForm([]byte("a=")))
	require.False(t, looksLikeForm([]byte("=a")))
}

func TestParseRetryKey_RefusesOtherSpellings(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("A", 43)
	_, err := parseRetryKey(good)
	require.NoError(t, err)
	for _, value := range []string{
		good[:42] + "B", // the bits after the last byte are not 0
		good[:42] + "=", good[:42] + "+", good[:42] + "\n", good[:42], good + "A",
	} {
		_, err := parseRetryKey(value)
		require.Equal(t, errRetryKey, err, "%q", value)
		_, err = parseRetryKey(retryKeyDigest + value)
		require.Equal(t, errRetryKey, err, "%q", value)
	}
}

func TestIsOwn_NotForErrorsAboutAPassword(t *testing.T) {
	t.Parallel()
	for _, err := range []error{password.ErrMismatch, password.ErrTooLong, password.ErrEmpty, password.ErrRefused, io.EOF} {
		require.False(t, isOwn(err), err)
	}
	for _, err := range []error{ErrForbidden, ErrUnavailable, ErrInvalidToken} {
		require.True(t, isOwn(err), err)
	}
}

func TestReadFactor_RefusesABodyThatItCannotRead(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodPost, "/login/factor", strings.NewReader("<challenge/>"))
	r.Header.Set("Content-Type", "text/xml")
	_, err := readFactor(r)
	require.ErrorIs(t, err, errContentType)
}

func TestDelivery_SaysWhyItIsNotOffered(t *testing.T) {
	t.Parallel()
	a := &Authenticator{Verifier: &Verifier{}}
	_, err := a.delivery("cookie")
	require.ErrorContains(t, err, "Config.Cookies is nil")
	_, err = a.delivery("post")
	require.ErrorContains(t, err, `must be "cookie" or "body"`)
}

func TestScope_ErrorIsErrForbidden(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, Scope("write")(t.Context(), &Claims{}), ErrForbidden)
}

// A decoder that only looks at the bytes would accept a value and what follows it.
func TestParseJWK_RefusesMoreThanBase64(t *testing.T) {
	t.Parallel()
	text := strictBase64.EncodeToString
	public, seed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := private.PublicKey.Bytes()
	require.NoError(t, err)
	d, err := private.Bytes()
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, jwk := range []map[string]string{
		{"kty": "OKP", "crv": "Ed25519", "x": text(public), "d": text(seed.Seed())},
		{"kty": "EC", "crv": "P-256", "x": text(point[1:33]), "y": text(point[33:]), "d": text(d)},
		{"kty": "RSA", "alg": "PS256", "n": text(rsaKey.N.Bytes()), "e": "AQAB"},
	} {
		parse := func() error {
			b, err := json.Marshal(jwk)
			require.NoError(t, err)
			k, err := ParseJWK(b)
			if err == nil {
				err = k.err
			}
			return err
		}
		require.NoError(t, parse(), jwk["kty"])
		for _, name := range []string{"x", "y", "d", "n", "e"} {
			value, ok := jwk[name]
			if !ok {
				continue
			}
			for _, end := range []string{"=", "!", " ", "\n"} {
				jwk[name] = value + end
				require.Error(t, parse(), "%s: %s with %q", jwk["kty"], name, end)
			}
			jwk[name] = value
		}
	}
}
