package auth_test

import (
	"context"
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
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// keyErr returns what NewVerifier says of keys.
func keyErr(keys ...auth.Key) error {
	_, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys(keys)})
	return err
}

// spread returns n bytes that differ.
func spread(n int) []byte {
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
			require.EqualError(t, keyErr(c.make(spread(n))), fmt.Sprintf("auth: VerifierConfig.Keys[0] (%s): the secret is %d bytes, at least %d are needed", c.name, n, c.size))
		}
		require.ErrorContains(t, keyErr(c.make(nil)), "the secret is 0 bytes")
		for _, n := range []int{c.size, c.size + 1, 128, 129, 4096} {
			require.NoError(t, keyErr(c.make(spread(n))), "%s of %d bytes", c.name, n)
		}
	}
}

func TestKey_RefusesSecretsThatAreNone(t *testing.T) {
	t.Parallel()
	ed, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &ec.PublicKey, ec)
	require.NoError(t, err)
	der := func(b []byte, err error) []byte {
		require.NoError(t, err)
		return b
	}
	ders := map[string][]byte{
		"Ed25519 PKIX": der(x509.MarshalPKIXPublicKey(ed)), "P-256 PKIX": der(x509.MarshalPKIXPublicKey(&ec.PublicKey)), "RSA PKIX": der(x509.MarshalPKIXPublicKey(&rs.PublicKey)),
		"RSA PKCS1": x509.MarshalPKCS1PublicKey(&rs.PublicKey), "certificate": cert, "P-256 PKCS8": der(x509.MarshalPKCS8PrivateKey(ec)),
	}
	bad := map[string][]byte{}
	for name, b := range ders {
		bad[name+" DER"] = b
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
		bad[name+" PEM"] = block
		bad[name+" PEM after a space"] = append([]byte(" "), block...)
		bad[name+" PEM after a BOM"] = append([]byte("\uFEFF"), block...)
		bad[name+" PEM after text"] = append([]byte("my key:\r\n"), block...)
		bad[name+" PEM cut"] = block[:len(block)-30]
		bad[name+" PEM with \\n"] = []byte(strings.ReplaceAll(string(block), "\n", `\n`))
		for i, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(b)
			bad[fmt.Sprintf("%s base64 %d", name, i)] = []byte(text)
			bad[fmt.Sprintf("%s base64 %d, a line end", name, i)] = []byte(text + "\n")
			bad[fmt.Sprintf("%s base64 %d, in lines", name, i)] = []byte(" " + text[:40] + "\r\n\t " + text[40:])
		}
	}
	jwk := `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	bad["JWK"] = []byte(jwk)
	bad["JWK, spaces around"] = []byte("\n " + jwk + "\n")
	bad["JWK of a secret"] = []byte(`{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"}`)
	bad["JWK set"] = []byte(`{"keys":[` + jwk + `]}`)
	bad["empty JWK set"] = []byte(`{"keys":[],"comment":"to be filled in later"}`)
	bad["JWK after a BOM"] = []byte("\uFEFF" + jwk)
	bad["JWK in an array"] = []byte("[" + jwk + "]")
	bad["base64 of a JWK"] = []byte(base64.StdEncoding.EncodeToString([]byte(jwk)))
	for name, b := range ders {
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
		bad[name+" base64 of PEM"] = []byte(base64.StdEncoding.EncodeToString(block))
		bad[name+" hex"] = fmt.Appendf(nil, "%x\n", b)
		bad[name+" DER and a line end"] = append(slices.Clone(b), '\n')
	}
	bad["OpenSSH Ed25519"] = []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@example.com")
	bad["OpenSSH P-256"] = []byte("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA me@example.com")
	for name, b := range bad {
		if len(b) < 32 {
			continue
		}
		require.ErrorContains(t, keyErr(auth.HS256(b)), "auth: VerifierConfig.Keys[0] (HS256): the secret is a PEM block, a JWK or a DER key, not a random secret", name)
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Users: newUsers(), Secrets: [][]byte{b}})
		require.ErrorContains(t, err, "auth: Config.Secrets[0]: the secret is a PEM block, a JWK or a DER key, not a random secret", name)
	}
	for _, b := range [][]byte{make([]byte, 64), []byte(strings.Repeat("a", 64)), []byte(strings.Repeat("\xff", 200))} {
		require.ErrorContains(t, keyErr(auth.HS256(b)), "all bytes of the secret are equal")
		require.ErrorContains(t, keyErr(auth.HS512(b)), "all bytes of the secret are equal")
	}
	for _, example := range []string{
		"a-string-secret-at-least-256-bits-long",
		"a-valid-string-secret-that-is-at-least-384-bits-long",
		"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
	} {
		require.ErrorContains(t, keyErr(auth.HS256([]byte(example))), "the secret is a published example")
	}
	for name, good := range map[string][]byte{
		"random": spread(32), "base64 of random bytes": []byte(base64.StdEncoding.EncodeToString(spread(48))), "hex": fmt.Appendf(nil, "%x", spread(32)),
		"JSON of something else": []byte(`{"this":"is an odd secret, but not a key"}`), "a sentence": []byte("the quick brown fox jumps over the lazy dog"), "one byte differs": append(make([]byte, 31), 1),
	} {
		require.NoError(t, keyErr(auth.HS256(good)), name)
	}
}

func TestKey_IDNamesSecretAndAlgorithm(t *testing.T) {
	t.Parallel()
	long := spread(64)
	ids := []string{auth.HS256(long).ID(), auth.HS384(long).ID(), auth.HS512(long).ID(), auth.HS256(long[:63]).ID()}
	require.Equal(t, auth.HS256(long).ID(), auth.HS256(slices.Clone(long)).ID(), "the same everywhere")
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

func TestKeys_AreCheckedEachByItsPlace(t *testing.T) {
	t.Parallel()
	a, b := auth.HS256(accessSecret), auth.HS256(access2Secret)
	err := keyErr(a, auth.Key{}, b, auth.HS384(spread(47)), a)
	require.EqualError(t, err, strings.Join([]string{
		"auth: VerifierConfig.Keys[1] is the zero Key",
		"auth: VerifierConfig.Keys[3] (HS384): the secret is 47 bytes, at least 48 are needed",
		"auth: VerifierConfig.Keys[0] and VerifierConfig.Keys[4] have the same ID",
	}, "\n"))
	require.EqualError(t, keyErr(), "auth: VerifierConfig.Keys is empty")
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
		require.Equal(t, 1, cap(found), "appending must not write into the keys")
	}
	all, err := keys.VerifyKeys(context.Background(), "")
	require.NoError(t, err)
	require.Len(t, all, 2)
	none, err := keys.VerifyKeys(context.Background(), "unknown")
	require.NoError(t, err)
	require.Empty(t, none)
}

// source is a key source of the application's own.
type source func(ctx context.Context, id string) ([]auth.Key, error)

func (s source) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) { return s(ctx, id) }

func TestVerify_AsksTheKeySourceForTheKidAlone(t *testing.T) {
	t.Parallel()
	f := newForger("access", newClock().Now())
	type ctxKey struct{}
	var asked []string
	var fail error
	keys := []auth.Key{f.second, f.key}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Now: newClock().Now,
		Keys: source(func(ctx context.Context, id string) ([]auth.Key, error) {
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
	for _, token := range []string{"", "a.b", f.signHeader(f.header().with("typ", `"JWT"`)), f.signHeader(f.header().with("kid", `""`)), f.signHeader(f.header().with("jku", `"x"`)), f.sized(8193), f.genuine() + "=", f.genuine() + ".AAAA"} {
		_, err = v.Verify(ctx, token)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	require.Empty(t, asked, "what is malformed costs no lookup")

	keys = nil
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken, "there is no such key")
	// A source that hands out a key of another algorithm, whatever its name.
	keys = []auth.Key{auth.HS384(append(slices.Clone(accessSecret), accessSecret...))}
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	keys, fail = []auth.Key{f.key}, errors.New("the key server is away")
	_, err = v.Verify(ctx, f.genuine())
	require.ErrorIs(t, err, auth.ErrUnavailable, "not known is not refused")
	require.ErrorIs(t, err, fail)
	require.NotErrorIs(t, err, auth.ErrInvalidToken)
}

func TestVerify_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys)
	f := newForger("access", b.clock.Now())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				sub := fmt.Sprintf("user-%d-%d", i, j)
				c, err := b.Verify(context.Background(), f.signClaims(f.claims.with("sub", quote(sub))))
				if err != nil || c.Subject != sub {
					t.Errorf("%v, %v of %s", c, err, sub)
				}
				if _, err := b.Verify(context.Background(), f.signClaims(f.claims)+"AA"); !errors.Is(err, auth.ErrInvalidToken) {
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
		Keys: source(func(context.Context, string) ([]auth.Key, error) { return keys, nil }),
	})
	require.NoError(t, err)
	_, err = v.Verify(context.Background(), f.genuine())
	require.NoError(t, err)
	keys = keys[:2]
	_, err = v.Verify(context.Background(), f.genuine())
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = v.Verify(context.Background(), handSigned(nil, f.header().String(), f.claims.String()))
	require.ErrorIs(t, err, auth.ErrInvalidToken, "an empty secret is nobody's key")
}

func TestKeys_ASecretIsForOneAlgorithmAndOneKind(t *testing.T) {
	t.Parallel()
	long := spread(64)
	require.EqualError(t, keyErr(auth.HS256(long), auth.HS512(long)), "auth: VerifierConfig.Keys[0] and VerifierConfig.Keys[1] are of the same secret")
	require.NotEmpty(t, newErrs(t, func(c *auth.Config) {
		c.Secrets, c.AccessKeys, c.RefreshKeys = nil, keysOf(long[:40]), keysOf(append(slices.Clone(long[:40]), 0, 0))
	}), "HMAC fills up with zero bytes")
}

// The derivation is fixed: other versions, and other programs that are given
// the secret, make the same keys.
func TestSecrets_DeriveAKeyForEachKind(t *testing.T) {
	t.Parallel()
	tokens := newBench(t).login(t)
	for label, token := range map[string]string{"access": tokens.Access, "refresh": tokens.Refresh} {
		derived, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 "+label, 32)
		require.NoError(t, err)
		header, _ := takeApart(t, token)
		require.Equal(t, auth.HS256(derived).ID(), header["kid"])
		dot := strings.LastIndexByte(token, '.')
		require.Equal(t, macOf(sha256.New, derived, token[:dot]), token[dot+1:])
	}
}
