package jwks_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

func TestSet_AcceptsEveryAsymmetricAlgorithm(t *testing.T) {
	t.Parallel()
	keys := everyAlgorithm(t)
	var list []auth.Key
	for _, k := range keys {
		list = append(list, k)
	}
	p := newPublisher(t, newIssuer(t, nil, list...).JWKSHandler())
	v := newVerifier(t, p.keys(t, nil, nil), nil)
	for name, k := range keys {
		claims, err := v.Verify(t.Context(), newToken(t, newIssuer(t, nil, k)))
		require.NoError(t, err, name)
		require.Equal(t, "u1", claims.Subject)
	}
	require.EqualValues(t, 1, p.requests.Load())
}

func everyAlgorithm(t testing.TB) map[string]auth.Key {
	return map[string]auth.Key{
		"EdDSA": newEd(t),
		"ES256": auth.ES256(newES(t, elliptic.P256())),
		"ES384": auth.ES384(newES(t, elliptic.P384())),
		"ES512": auth.ES512(newES(t, elliptic.P521())),
		"PS256": auth.PS256(newRSA()),
		"RS256": auth.RS256(otherRSA()).WithID("rs256"),
	}
}

// TestSet_SkipsInvalidKeysOnly has a valid key before and after each invalid one,
// and after all of them.
func TestSet_SkipsInvalidKeysOnly(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	good, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	other := published(t, newEd(t))
	ec := published(t, auth.ES256(newES(t, elliptic.P256())))
	var all []string
	for _, test := range []struct {
		name, jwk string
		report    string // contained in the event
	}{
		{"a secret", `{"kty":"oct","kid":"s","alg":"HS256","k":"` + b64(32) + `"}`, "private part"},
		{"a private key", with(other, `"d":"`+b64(32)+`"`), "private part"},
		{"a private RSA key by p", `{"kty":"RSA","n":"` + b64(256) + `","e":"AQAB","p":"` + b64(128) + `"}`, "private part"},
		{"for encryption", strings.Replace(good, `"use":"sig"`, `"use":"enc"`, 1), `(kid "` + ed.ID() + `"): unexpected use "enc"; expected sig`},
		{"for wrapping", with(other, `"key_ops":["wrapKey"]`), `key_ops has no "verify"`},
		{"for signing only", with(other, `"key_ops":["sign"]`), `key_ops has no "verify"`},
		{"key_ops of another type", with(other, `"key_ops":"verify"`), "key_ops"},
		{"X25519", `{"kty":"OKP","crv":"X25519","x":"` + b64(32) + `"}`, `unexpected crv "X25519"`},
		{"Ed448", `{"kty":"OKP","crv":"Ed448","x":"` + b64(57) + `"}`, `unexpected crv "Ed448"`},
		{"secp256k1", `{"kty":"EC","crv":"secp256k1","x":"` + b64(32) + `","y":"` + b64(32) + `"}`, `unexpected crv "secp256k1"`},
		{"an unknown kty", `{"kty":"AKP","alg":"ML-DSA-65","pub":"` + b64(1952) + `"}`, `unexpected kty "AKP"; expected OKP, EC, RSA`},
		{"an unknown alg", `{"kty":"RSA","alg":"RSA-OAEP","n":"` + b64(256) + `","e":"AQAB"}`, `unexpected alg "RSA-OAEP"`},
		{"RS1", `{"kty":"RSA","alg":"RS1","n":"` + b64(256) + `","e":"AQAB"}`, `unexpected alg "RS1"`},
		{"alg none", strings.Replace(good, `"EdDSA"`, `"none"`, 1), `unexpected alg "none"`},
		{"Ed25519 of another kind", strings.Replace(ec, `"ES256"`, `"Ed25519"`, 1), "alg"},
		{"a long kid", `{"kty":"oct","kid":"` + strings.Repeat("k", 500) + `"}`, `keys[0] (kid "` + strings.Repeat("k", 64) + `"): unexpected kty "oct"`},
		{"a kid in lines", `{"kty":"oct","kid":"a\nb"}`, `(kid "a\nb")`},
		{"an alg of another kind", strings.Replace(good, `"EdDSA"`, `"ES256"`, 1), "alg"},
		{"off its curve", `{"kty":"EC","crv":"P-256","x":"` + b64(32) + `","y":"` + b64(32) + `"}`, "curve"},
		{"short", `{"kty":"OKP","crv":"Ed25519","x":"` + b64(31) + `"}`, "Ed25519"},
		{"RSA of 1024 bits", `{"kty":"RSA","n":"` + b64(128) + `","e":"AQAB"}`, "bits"},
		{"RSA with e 3", `{"kty":"RSA","n":"` + strings.Repeat("w", 342) + `","e":"Aw"}`, "exponent (3)"},
		{"a kid that is no string", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":7}`, "JWK"},
		{"an empty kid", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":""}`, "ID"},
		{"a member twice", with(other, `"kid":"again"`), "duplicate name"},
		{"a kid that is not UTF-8", with(`{"kty":"OKP","crv":"Ed25519","x":"`+b64(32)+`"}`, "\"kid\":\"\xff\""), "JWK"},
		{"an x that is not UTF-8", strings.Replace(good, `"x":"`, "\"x\":\"\xff", 1), "JWK"},
		{"its crv in another letter case", strings.Replace(ec, `"crv"`, `"CRV"`, 1), "crv"},
		{"a string", `"key"`, "invalid JSON object"},
		{"null", `null`, "invalid JSON object"},
		{"nothing", `{}`, "not a JWK"},
	} {
		all = append(all, test.jwk)
		for i, list := range []string{set(test.jwk, good), set(good, test.jwk)} {
			reports := make(chan string, 9)
			k := newKeySet(t, direct(text(list)), func(c *jwks.Config) {
				c.OnEvent = func(_ context.Context, e auth.Event) { reports <- e.Err.Error() }
			})
			require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token), test.name)
			keys, err := k.VerifyKeys(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, keys, 1, test.name)
			text := <-reports
			require.Contains(t, text, strings.Replace(test.report, "keys[0]", fmt.Sprintf("keys[%d]", i), 1), test.name)
			require.Contains(t, text, fmt.Sprintf("jwks: key set of issuer.example/jwks.json: skipped keys[%d]", i), test.name)
			require.Less(t, len(text), 300, "a report must not contain a key")
		}
	}
	k := newKeySet(t, direct(text(set(append(all, good)...))), nil)
	require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token))
}

// TestSet_ReportsSkippedKeysOnce checks that skipped keys are reported again only
// after they have changed.
func TestSet_ReportsSkippedKeysOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	good := published(t, newEd(t))
	enc := func(kid string) string { return `{"kty":"RSA","use":"enc","kid":"` + kid + `","n":"AQAB","e":"AQAB"}` }
	p := newPublisher(t, text(set(enc("one"), good, enc("two"))))
	reports := make(chan string, 9)
	k := p.keys(t, c, func(config *jwks.Config) {
		config.OnEvent = func(_ context.Context, e auth.Event) { reports <- e.Err.Error() }
	})
	fetch := func(body string) {
		t.Helper()
		p.serve(text(body))
		c.Advance(6 * time.Minute)
		_, err := k.VerifyKeys(t.Context(), "")
		require.NoError(t, err)
	}
	const both = `jwks: key set of 127.0.0.1/jwks.json: skipped keys[0] (kid "one"): unexpected use "enc"; expected sig` + "\n" + `keys[2] (kid "two"): unexpected use "enc"; expected sig`
	without := func(text string) string {
		return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1")
	}
	fetch(set(enc("one"), good, enc("two")))
	require.Equal(t, both, without(<-reports))
	for range 3 {
		fetch(set(enc("one"), good, enc("two")))
	}
	fetch(set(good))
	fetch(set(enc("one"), good, enc("two")))
	require.Equal(t, both, without(<-reports), "the keys were skipped again after a set without them")
	fetch(set(enc("three"), good))
	require.Contains(t, <-reports, `keys[0] (kid "three")`)
	require.Empty(t, reports)
}

// TestSet_ReportsAnEmptySet checks that a set without keys is used and cached, and
// reported when it appears.
func TestSet_ReportsAnEmptySet(t *testing.T) {
	t.Parallel()
	c := newClock()
	secrets, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{[]byte("a secret of these tests, 32 bytes")}, Users: users{}, Now: c.Now,
	})
	require.NoError(t, err)
	pairs := newIssuer(t, c.Now, newEd(t))
	p := newPublisher(t, secrets.JWKSHandler())
	reports := make(chan auth.Event, 9)
	k := p.keys(t, c, func(config *jwks.Config) {
		config.OnEvent = func(_ context.Context, e auth.Event) { reports <- e }
	})
	v := newVerifier(t, k, c.Now)
	report := func() string {
		t.Helper()
		var e auth.Event
		select {
		case e = <-reports:
		case <-time.After(10 * time.Second): // a busy machine
			require.Fail(t, "no report")
		}
		require.Equal(t, auth.EventFault, e.Type)
		return strings.TrimPrefix(e.Err.Error(), "jwks: key set of "+strings.TrimPrefix(p.URL, "https://"))
	}
	const empty = "/jwks.json: the key set is empty, so no token verifies; if the service that signs has only secrets, set Config.AccessKeys there"
	for range 100 {
		require.Equal(t, 401, statusOf(v, newToken(t, secrets)), "it is no outage")
	}
	require.Equal(t, empty, report())
	require.EqualValues(t, 1, p.requests.Load())
	for range 3 { // with status 304 too
		c.Advance(6 * time.Minute)
		require.Equal(t, 401, statusOf(v, newToken(t, secrets)))
	}
	require.EqualValues(t, 4, p.requests.Load())
	p.serve(pairs.JWKSHandler())
	c.Advance(6 * time.Minute)
	require.Equal(t, 200, statusOf(v, newToken(t, pairs)))
	p.serve(text(set()))
	c.Advance(6 * time.Minute)
	require.Equal(t, 401, statusOf(v, newToken(t, pairs)), "a withdrawn key is not used")
	require.Equal(t, empty, report(), "it is empty again")
	p.serve(text(set(`{"kty":"RSA","use":"enc","kid":"one","n":"AQAB","e":"AQAB"}`)))
	c.Advance(6 * time.Minute)
	require.Equal(t, 401, statusOf(v, newToken(t, pairs)))
	require.Equal(t, `/jwks.json: no key can be used, so no token verifies: skipped keys[0] (kid "one"): unexpected use "enc"; expected sig`, report())
	require.Empty(t, reports)
}

// TestSet_NullAndEmptyMembersAreAbsent: some programs write members that they do
// not have as null or empty.
func TestSet_NullAndEmptyMembersAreAbsent(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	jwk, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	jwk = strings.Replace(strings.Replace(jwk, `"use":"sig",`, "", 1), `,"use":"sig"`, "", 1)
	bare := strings.Replace(jwk, `"alg":"EdDSA",`, "", 1)
	require.NotEqual(t, jwk, bare)
	for _, name := range []string{"use", "alg", "key_ops", "d", "k", "n", "oth", "x5c"} {
		for _, value := range []string{"null", `""`, "[]", "[ ]"} {
			k := newKeySet(t, direct(text(set(with(bare, `"`+name+`":`+value)))), func(c *jwks.Config) {
				c.OnEvent = func(_ context.Context, e auth.Event) { t.Errorf("%s %s: %v", name, value, e.Err) }
			})
			require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token), "%s %s", name, value)
		}
	}
	// The ID of a key without a kid is its thumbprint, which is also the kid that
	// an issuer of this library uses.
	unnamed := strings.Replace(bare, `"kid":"`+ed.ID()+`"`, `"kid":null`, 1)
	require.NotEqual(t, bare, unnamed)
	require.Equal(t, 200, statusOf(newVerifier(t, newKeySet(t, direct(text(set(unnamed))), nil), nil), token))
}

// TestSet_Ed25519IsEdDSA checks the algorithm name of RFC 9864.
func TestSet_Ed25519IsEdDSA(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	jwk, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	named := strings.Replace(jwk, `"EdDSA"`, `"Ed25519"`, 1)
	require.NotEqual(t, jwk, named)
	require.Equal(t, 200, statusOf(newVerifier(t, newKeySet(t, direct(text(set(named))), nil), nil), token))
}

// TestSet_AcceptsRSAWithOtherHashes checks only that the keys are accepted.
// Verifying with them is tested in package auth.
func TestSet_AcceptsRSAWithOtherHashes(t *testing.T) {
	t.Parallel()
	jwk := published(t, auth.PS256(newRSA()))
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512"} {
		keys, err := newKeySet(t, direct(text(set(strings.Replace(jwk, `"PS256"`, `"`+alg+`"`, 1)))), nil).VerifyKeys(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.Contains(t, fmt.Sprint(keys[0]), alg)
	}
}

func TestSet_UnknownKidIsNamedInTheError(t *testing.T) {
	t.Parallel()
	token := newToken(t, newIssuer(t, nil, newEd(t)))
	_, err := newVerifier(t, newKeySet(t, direct(text(set(published(t, newEd(t))))), nil), nil).Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.ErrorContains(t, err, "unknown kid")
}

// TestSet_IgnoresUnknownMembers checks what RFC 7517 sections 4 and 5 demand.
func TestSet_IgnoresUnknownMembers(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	jwk, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	for _, member := range []string{
		`"iat":1700000000`, `"exp":1700000000.5`, `"x5c":["MIIB"]`, `"x5t#S256":"YWJj"`, `"ext":true`, `"revoked":{"revoked_at":1}`,
		`"key_ops":["verify"]`, `"key_ops":["sign","verify"]`, `"issuer":"https://example.com"`, `"Kid":"other"`,
	} {
		k := newKeySet(t, direct(text(set(with(jwk, member)))), nil)
		require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token), member)
	}
	k := newKeySet(t, direct(text(`{"version":3,"Keys":null,"keys":[`+jwk+`],"KEYS":[]}`)), nil)
	require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token))
}

func TestSet_UnusualPartsDoNotAffectOtherKeys(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	good, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	deep := `{"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`
	many := ""
	for i := range 100 {
		many += fmt.Sprintf(`"x%d":0,`, i)
	}
	for name, body := range map[string]string{
		"a member that is not UTF-8":      `{"x":"` + "\xff" + `","keys":[` + good + `]}`,
		"a name that is not UTF-8":        `{"` + "\xff" + `":1,"keys":[` + good + `]}`,
		"a name that is half a character": `{"\ud800":1,"keys":[` + good + `]}`,
		"100 members":                     `{` + many + `"keys":[` + good + `]}`,
		"a key with 100 members":          `{"keys":[{` + many + good[1:] + `]}`,
		"a key with a deep member":        `{"keys":[{"z":` + deep + `,` + good[1:] + `]}`,
		"another key that is deep":        `{"keys":[` + deep + `,` + good + `]}`,
		"another key with duplicates":     `{"keys":[{"a":{"b":1,"b":2}},` + good + `]}`,
	} {
		k := newKeySet(t, direct(text(body)), nil)
		require.Equal(t, 200, statusOf(newVerifier(t, k, nil), token), name)
	}
}

func TestSet_MalformedSetIsUnavailable(t *testing.T) {
	t.Parallel()
	ed := newEd(t)
	jwk, token := published(t, ed), newToken(t, newIssuer(t, nil, ed))
	var over64 []string
	for range 65 {
		over64 = append(over64, published(t, newEd(t)))
	}
	for name, body := range map[string]string{
		"nothing":          "",
		"a page":           "<html>maintenance</html>",
		"cut short":        set(jwk)[:40],
		"a list":           "[" + jwk + "]",
		"a key":            jwk,
		"no keys":          "{}",
		"keys null":        `{"keys":null}`,
		"keys an object":   `{"keys":{"0":` + jwk + `}}`,
		"KEYS":             `{"KEYS":[` + jwk + `]}`,
		"keys twice":       `{"keys":[` + jwk + `],"keys":[]}`,
		"trailing data":    set(jwk) + set(jwk),
		"bytes":            "\x00\xff\xfe",
		"deeply nested":    strings.Repeat("[", 20_000),
		"a deep key":       `{"keys":[` + strings.Repeat(`{"x":`, 20_000) + `1` + strings.Repeat("}", 20_000) + `]}`,
		"65 keys":          set(over64...),
		"more than 512 KB": set(jwk) + strings.Repeat(" ", 512<<10),
	} {
		k := newKeySet(t, direct(text(body)), nil)
		require.Equal(t, 503, statusOf(newVerifier(t, k, nil), token), name)
		_, err := newVerifier(t, k, nil).Verify(t.Context(), token)
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		require.NotErrorIs(t, err, auth.ErrInvalidToken, name)
	}
	k := newKeySet(t, direct(text(set(over64[:64]...))), nil)
	require.Equal(t, 401, statusOf(newVerifier(t, k, nil), token))
	k = newKeySet(t, direct(text(set())), nil)
	require.Equal(t, 401, statusOf(newVerifier(t, k, nil), token), "a set without keys is valid")
}

func TestSet_TokensWithoutKid(t *testing.T) {
	t.Parallel()
	var list []string
	for range 9 {
		list = append(list, published(t, newEd(t)))
	}
	for n, want := range map[int]int{1: 1, 8: 8, 9: 0} {
		keys, err := newKeySet(t, direct(text(set(list[:n]...))), nil).VerifyKeys(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, keys, want)
	}
}

// TestSet_KeysOfOneIDAreAllTried: keys of different types may have the same kid
// (RFC 7517 section 4.5).
func TestSet_KeysOfOneIDAreAllTried(t *testing.T) {
	t.Parallel()
	a, b := newEd(t).WithID("one"), auth.ES256(newES(t, elliptic.P256())).WithID("one")
	v := newVerifier(t, newKeySet(t, direct(text(set(published(t, a), published(t, b)))), nil), nil)
	for _, k := range []auth.Key{a, b} {
		require.Equal(t, 200, statusOf(v, newToken(t, newIssuer(t, nil, k))))
	}
}

// TestSet_UnchangedKeyIsTheSameKey: a Verifier's token cache must stay valid when
// the set is fetched again.
func TestSet_UnchangedKeyIsTheSameKey(t *testing.T) {
	t.Parallel()
	c := newClock()
	one, two, three := published(t, newEd(t).WithID("1")), published(t, newEd(t).WithID("2")), published(t, newEd(t).WithID("3"))
	p := newPublisher(t, text(set(one, two)))
	k := p.keys(t, c, nil)
	get := func(id string) auth.Key {
		keys, err := k.VerifyKeys(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, keys, 1)
		return keys[0]
	}
	k1, k2 := get("1"), get("2")

	// The same keys in another order, with other whitespace and a certificate.
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(one), &members))
	members["x5c"] = []string{"MIIB"}
	var spaced bytes.Buffer
	again, err := json.Marshal(members)
	require.NoError(t, err)
	require.NoError(t, json.Indent(&spaced, again, "", "  "))
	p.serve(text(set(three, spaced.String(), two)))
	c.Advance(6 * time.Minute)
	get("3")
	require.True(t, k1 == get("1"))
	require.True(t, k2 == get("2"))

	// Another key with the same kid is a different key.
	p.serve(text(set(one, published(t, newEd(t).WithID("2")))))
	c.Advance(6 * time.Minute)
	require.True(t, k1 == get("1"))
	require.False(t, k2 == get("2"))
	keys, err := k.VerifyKeys(t.Context(), "3")
	require.NoError(t, err)
	require.Empty(t, keys, "a key that was removed from the set must not be found")
	require.EqualValues(t, 3, p.requests.Load())
}

// TestSet_RemovedKeyRefusesCachedTokens checks a cached token after the next
// fetch.
func TestSet_RemovedKeyRefusesCachedTokens(t *testing.T) {
	t.Parallel()
	c := newClock()
	ed := newEd(t)
	p := newPublisher(t, text(set(published(t, ed))))
	v := newVerifier(t, p.keys(t, c, nil), c.Now)
	token := newToken(t, newIssuer(t, c.Now, ed))
	require.Equal(t, 200, statusOf(v, token))
	require.Equal(t, 200, statusOf(v, token))
	p.serve(text(set(published(t, newEd(t)))))
	c.Advance(5*time.Minute + time.Second)
	require.Equal(t, 401, statusOf(v, token))
}

func FuzzSet(f *testing.F) {
	ed := published(f, newEd(f))
	f.Add(set(ed, published(f, auth.RS256(newRSA()))))
	f.Add(set(published(f, auth.ES256(newES(f, elliptic.P256())))))
	f.Add(set(with(ed, `"d":"`+b64(32)+`"`)))
	f.Add(set(with(ed, `"key_ops":["verify"]`), `{"kty":"oct","k":"AAAA"}`))
	f.Add(`{"keys":[null,1,"",[],{}],"keys":0}`)
	f.Fuzz(func(t *testing.T, body string) {
		rt := roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		})
		k := newKeySet(t, rt, nil)
		keys, err := k.VerifyKeys(t.Context(), "")
		if err != nil {
			if keys != nil {
				t.Fatal("VerifyKeys returned keys and an error")
			}
			return
		}
		for _, key := range keys {
			// The body is JSON, the key is found by its ID and it is public.
			var s struct{ Keys []json.RawMessage }
			if err := json.Unmarshal([]byte(body), &s); err != nil {
				t.Fatal("VerifyKeys returned keys, but the body is not JSON")
			}
			if again, err := k.VerifyKeys(t.Context(), key.ID()); err != nil || len(again) == 0 {
				t.Fatalf("VerifyKeys does not find %v by its ID: %v", key, err)
			}
			_, err := auth.New(auth.Config{AccessKeys: auth.Keys{key}})
			if !strings.Contains(err.Error(), "AccessKeys has no key that signs") {
				t.Fatalf("New with the key %v: %v, want an error that it does not sign", key, err)
			}
		}
	})
}

func TestErrors_DoNotContainTheQuery(t *testing.T) {
	t.Parallel()
	k := newKeySet(t, roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }), func(c *jwks.Config) {
		c.URL = "https://issuer.example/jwks.json?key=hunter2"
	})
	_, err := k.VerifyKeys(t.Context(), "x")
	require.EqualError(t, err, "jwks: fetching the key set of issuer.example/jwks.json: no route")
	require.NotContains(t, fmt.Sprintf("%+v", err), "hunter2")
}

func TestHooks_PanicsAreRecovered(t *testing.T) {
	t.Parallel()
	k := newKeySet(t, roundTrip(func(*http.Request) (*http.Response, error) { panic("hunter2") }), func(c *jwks.Config) {
		c.OnEvent = func(context.Context, auth.Event) { panic("in the hook") }
	})
	_, err := k.VerifyKeys(t.Context(), "x")
	require.EqualError(t, err, "jwks: fetching the key set of issuer.example/jwks.json: panic with a string")
}
