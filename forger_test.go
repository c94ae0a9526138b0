package auth_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// members is a JSON object to be written: raw names and values, in order. A
// name may occur several times.
type members [][2]string

// with replaces the value of a member, or appends the member.
func (m members) with(name, raw string) members {
	m = slices.Clone(m)
	for i := range m {
		if m[i][0] == name {
			m[i][1] = raw
			return m
		}
	}
	return append(m, [2]string{name, raw})
}

func (m members) without(name string) members {
	return slices.DeleteFunc(slices.Clone(m), func(x [2]string) bool { return x[0] == name })
}

// and appends a member, even if there is one of that name.
func (m members) and(name, raw string) members {
	return append(slices.Clone(m), [2]string{name, raw})
}

// rename renames a member.
func (m members) rename(name, to string) members {
	m = slices.Clone(m)
	for i := range m {
		if m[i][0] == name {
			m[i][0] = to
		}
	}
	return m
}

func (m members) get(name string) string {
	for _, x := range m {
		if x[0] == name {
			return x[1]
		}
	}
	return ""
}

func (m members) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, x := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + x[0] + `":` + x[1])
	}
	return b.String() + "}"
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func macOf(h func() hash.Hash, secret []byte, input string) string {
	m := hmac.New(h, secret)
	m.Write([]byte(input))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// signInput appends a valid HS256 signature to input.
func signInput(secret []byte, input string) string {
	return input + "." + macOf(sha256.New, secret, input)
}

func handSigned(secret []byte, header, payload string) string {
	return signInput(secret, segment(header)+"."+segment(payload))
}

// forgery is a token with the expected error. A nil want means that the token
// is accepted.
type forgery struct {
	name  string
	token string
	want  error
}

// forger creates invalid and unusual tokens of one kind.
type forger struct {
	typ                      string
	key, second, other       auth.Key // other signs tokens of the other kind
	secret, secret2, secretO []byte
	claims                   members
	now                      time.Time
	table                    []forgery
}

func (f *forger) header() members {
	return members{{"alg", `"HS256"`}, {"typ", quote(f.typ)}, {"kid", quote(f.key.ID())}}
}

func (f *forger) sign(h, p fmt.Stringer) string { return handSigned(f.secret, h.String(), p.String()) }

func (f *forger) signHeader(h members) string { return f.sign(h, f.claims) }

func (f *forger) signClaims(p members) string { return f.sign(f.header(), p) }

func (f *forger) signPayload(p string) string {
	return handSigned(f.secret, f.header().String(), p)
}

func (f *forger) refuse(name, token string) {
	f.table = append(f.table, forgery{name, token, auth.ErrInvalidToken})
}

func (f *forger) expired(name, token string) {
	f.table = append(f.table, forgery{name, token, auth.ErrTokenExpired})
}

func (f *forger) accept(name, token string) { f.table = append(f.table, forgery{name, token, nil}) }

func (f *forger) at(d time.Duration) string {
	return strconv.FormatInt(f.now.Add(d).Unix(), 10)
}

func newForger(kind string, now time.Time) *forger {
	access, access2 := auth.HS256(accessSecret), auth.HS256(access2Secret)
	refresh, refresh2 := auth.HS256(refreshSecret), auth.HS256(refresh2Secret)
	f := &forger{now: now}
	common := members{
		{"iss", quote(issuer)}, {"aud", "[" + quote(audience) + "]"}, {"sub", `"u1"`}, {"sid", `"forged-session"`},
		{"iat", f.at(0)}, {"exp", f.at(time.Hour)}, {"auth_time", f.at(0)},
	}
	if kind == "access" {
		f.typ, f.key, f.second, f.other = "at+jwt", access, access2, refresh
		f.secret, f.secret2, f.secretO = accessSecret, access2Secret, refreshSecret
		f.claims = common.with("jti", `"forged-token"`).with("session_exp", f.at(24*time.Hour))
	} else {
		f.typ, f.key, f.second, f.other = "rt+jwt", refresh, refresh2, access
		f.secret, f.secret2, f.secretO = refreshSecret, refresh2Secret, accessSecret
		f.claims = common.with("gen", "1")
	}
	return f
}

// times returns the names of the claims that are a NumericDate.
func (f *forger) times() []string {
	if f.typ == "at+jwt" {
		return []string{"iat", "exp", "auth_time", "session_exp"}
	}
	return []string{"iat", "exp", "auth_time"}
}

// ids returns the names of the claims that are identifiers.
func (f *forger) ids() []string {
	if f.typ == "at+jwt" {
		return []string{"sub", "sid", "jti"}
	}
	return []string{"sub", "sid"}
}

// genuine returns the valid token from which the others are derived.
func (f *forger) genuine() string { return f.sign(f.header(), f.claims) }

func (f *forger) signatures() {
	good := f.genuine()
	dot := strings.LastIndexByte(good, '.')
	input, sig := good[:dot], good[dot+1:]
	raw, _ := base64.RawURLEncoding.DecodeString(sig)
	enc := base64.RawURLEncoding.EncodeToString
	f.accept("genuine", good)
	f.refuse("signature/empty", input+".")
	f.refuse("signature/zero bytes", input+"."+enc(make([]byte, 32)))
	f.refuse("signature/first half", input+"."+enc(raw[:16]))
	f.refuse("signature/one byte short", input+"."+enc(raw[:31]))
	f.refuse("signature/one byte more", input+"."+enc(append(slices.Clone(raw), 0)))
	f.refuse("signature/twice", input+"."+enc(append(slices.Clone(raw), raw...)))
	for _, i := range []int{0, 15, 31} {
		flipped := slices.Clone(raw)
		flipped[i] ^= 1
		f.refuse(fmt.Sprintf("signature/bit of byte %d", i), input+"."+enc(flipped))
	}
	reversed := slices.Clone(raw)
	slices.Reverse(reversed)
	f.refuse("signature/reversed", input+"."+enc(reversed))
	f.refuse("signature/hex", input+"."+fmt.Sprintf("%x", raw))
	other := f.signClaims(f.claims.with("sid", `"another"`))
	f.refuse("signature/of another payload", input+other[strings.LastIndexByte(other, '.'):])
	f.refuse("signature/of the payload alone", input+"."+macOf(sha256.New, f.secret, strings.Split(input, ".")[1]))
	f.refuse("signature/of the decoded text", input+"."+macOf(sha256.New, f.secret, f.header().String()+"."+f.claims.String()))
	f.refuse("signature/with a dot too much", input+"."+macOf(sha256.New, f.secret, input+"."))
	f.refuse("signature/of the second key", input+"."+macOf(sha256.New, f.secret2, input))
	f.refuse("signature/of the other kind's key", input+"."+macOf(sha256.New, f.secretO, input))
	for name, secret := range map[string]string{
		"empty": "", "kid": f.key.ID(), "issuer": issuer, "NUL": "\x00", "name": "secret", "32 zero bytes": strings.Repeat("\x00", 32),
	} {
		f.refuse("signature/guessed key "+name, input+"."+macOf(sha256.New, []byte(secret), input))
	}
	f.refuse("signature/plain SHA-256", input+"."+func() string { s := sha256.Sum256([]byte(input)); return enc(s[:]) }())
}

func (f *forger) algorithms() {
	for _, alg := range []string{
		"none", "None", "NONE", "nOnE", "", "hs256", "Hs256", "HS256 ", " HS256", `HS256\u0000`, "HS-256", "HS2567",
		"HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "Ed25519", "dir", "A256KW", "HMAC", "SHA256",
	} {
		h := f.header().with("alg", `"`+alg+`"`)
		f.refuse("alg/"+alg+", genuine MAC", f.signHeader(h))
		switch input := segment(h.String()) + "." + segment(f.claims.String()); alg {
		case "none", "None", "NONE", "nOnE", "":
			f.refuse("alg/"+alg+", no signature", input+".")
			f.refuse("alg/"+alg+", two segments", input)
		case "HS384":
			f.refuse("alg/HS384 of the same secret", input+"."+macOf(sha512.New384, f.secret, input))
		case "HS512":
			f.refuse("alg/HS512 of the same secret", input+"."+macOf(sha512.New, f.secret, input))
		}
	}
	input := segment(f.header().String()) + "." + segment(f.claims.String())
	f.refuse("alg/HS256 said, HS384 made", input+"."+macOf(sha512.New384, f.secret, input))
	f.refuse("alg/HS256 said, HS384 cut to its length", input+"."+macOf(sha512.New384, f.secret, input)[:43])
	f.refuse("alg/missing", f.signHeader(f.header().without("alg")))
	for _, raw := range []string{"null", "256", "true", `["HS256"]`, `{"HS256":1}`} {
		f.refuse("alg/"+raw, f.signHeader(f.header().with("alg", raw)))
	}
	f.accept("alg/with an escape", f.signHeader(f.header().with("alg", `"\u0048S256"`)))
}

func (f *forger) confusion(t testing.TB) {
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	jwk := `{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`
	for name, secret := range map[string]string{"PEM": block, "PEM trimmed": strings.TrimSpace(block), "DER": string(der), "JWK": jwk} {
		f.refuse("confusion/HMAC by a public key, "+name, handSigned([]byte(secret), f.header().String(), f.claims.String()))
		f.refuse("confusion/the same without a kid, "+name, handSigned([]byte(secret), f.header().without("kid").String(), f.claims.String()))
	}
	oct := `{"kty":"oct","alg":"HS256","k":"` + segment("attacker's key, of thirty-two bytes or more") + `"}`
	for name, raw := range map[string]string{
		"jwk": oct, "jku": `"https://attacker.example/jwks.json"`, "x5u": `"https://attacker.example/x.pem"`,
		"x5c": `["` + base64.StdEncoding.EncodeToString(der) + `"]`,
	} {
		h := f.header().with(name, raw)
		f.refuse("embedded key/"+name+", genuine MAC", f.signHeader(h))
		f.refuse(
			"embedded key/"+name+", MAC by it",
			handSigned([]byte("attacker's key, of thirty-two bytes or more"), h.without("kid").String(), f.claims.String()),
		)
		f.refuse("embedded key/"+strings.ToUpper(name), f.signHeader(f.header().with(strings.ToUpper(name), raw)))
		f.refuse("embedded key/"+name+" null", f.signHeader(f.header().with(name, "null")))
	}
}

func (f *forger) keyIDs() {
	for _, raw := range []string{
		`""`, `"unknown"`, "0", "1", "null", "true", `["` + f.key.ID() + `"]`, `{"a":1}`,
		`"../../../../dev/null"`, `"/dev/null"`, `"' OR '1'='1"`, `"|id"`, `"` + f.key.ID() + ` "`, `"` + f.key.ID() + `\u0000"`,
		quote(f.key.ID() + "\n"), quote(f.key.ID()[1:]), quote(strings.ToUpper(f.key.ID()) + "x"), `"https://attacker.example/key"`, `"\ud800"`,
	} {
		f.refuse("kid/"+raw, f.signHeader(f.header().with("kid", raw)))
	}
	f.refuse("kid/of the second key, signed by the first", f.signHeader(f.header().with("kid", quote(f.second.ID()))))
	f.refuse("kid/of the other kind's key, signed by ours", f.signHeader(f.header().with("kid", quote(f.other.ID()))))
	f.refuse("kid/of the other kind's key, signed by it", handSigned(f.secretO, f.header().with("kid", quote(f.other.ID())).String(), f.claims.String()))
	f.refuse("kid/none, signed by the other kind's key", handSigned(f.secretO, f.header().without("kid").String(), f.claims.String()))
	f.refuse("kid/none, signed by nobody's key", handSigned([]byte("x"), f.header().without("kid").String(), f.claims.String()))
	f.accept("kid/none", f.signHeader(f.header().without("kid")))
	f.accept("kid/none, the second key", handSigned(f.secret2, f.header().without("kid").String(), f.claims.String()))
	f.accept("kid/of the second key", handSigned(f.secret2, f.header().with("kid", quote(f.second.ID())).String(), f.claims.String()))
}

func (f *forger) headers() {
	for name, raw := range map[string]string{
		"crit": `["exp"]`, "crit empty": `[]`, "crit unknown": `["urn:x"]`, "crit of b64": `["b64"]`, "crit null": "null", "crit string": `"exp"`,
		"b64": "false", "b64 true": "true", "enc": `"A256GCM"`, "zip": `"DEF"`, "CRIT": `["exp"]`, "cRit": `["exp"]`, "B64": "false",
		"ZIP": `"DEF"`, `cri\u0074`: `["x"]`,
	} {
		member, _, _ := strings.Cut(name, " ")
		f.refuse("crit and others/"+name, f.signHeader(f.header().with(member, raw)))
	}
	f.refuse("b64/unencoded payload", signInput(f.secret, segment(f.header().with("b64", "false").with("crit", `["b64"]`).String())+"."+f.claims.String()))

	other := map[string]string{"at+jwt": "rt+jwt", "rt+jwt": "at+jwt"}[f.typ]
	upper := strings.ToUpper(f.typ)
	for _, typ := range []string{
		"", "JWT", "jwt", other, upper, strings.Replace(f.typ, "jwt", "JWT", 1), strings.ToUpper(f.typ[:1]) + f.typ[1:],
		"application/" + other, "application/" + upper,
		"APPLICATION/" + f.typ, "Application/" + f.typ, "application/application/" + f.typ, "text/" + f.typ, "/" + f.typ, " " + f.typ,
		f.typ + " ", f.typ + ";x=1", f.typ + "+jwt", "at jwt",
		"dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "id+jwt", "JOSE", "JOSE+JSON",
	} {
		f.refuse("typ/"+quote(typ), f.signHeader(f.header().with("typ", quote(typ))))
	}
	for _, raw := range []string{"null", "1", "true", "[" + quote(f.typ) + "]"} {
		f.refuse("typ/"+raw, f.signHeader(f.header().with("typ", raw)))
	}
	f.refuse("typ/missing", f.signHeader(f.header().without("typ")))
	if long := f.signHeader(f.header().with("typ", quote("application/"+f.typ))); f.typ == "at+jwt" {
		f.accept("typ/application/at+jwt", long)
	} else {
		f.refuse("typ/application/rt+jwt", long)
	}

	h := f.header()
	for _, name := range []string{"alg", "typ", "kid"} {
		f.refuse("header duplicates/"+name, f.signHeader(h.and(name, h.get(name))))
		f.refuse("header duplicates/"+name+" by an escape", f.signHeader(h.and(escaped(name), h.get(name))))
		f.refuse("header letter case/"+strings.ToUpper(name), f.signHeader(h.and(strings.ToUpper(name), h.get(name))))
		f.refuse("header letter case/only "+strings.ToUpper(name), f.signHeader(h.rename(name, strings.ToUpper(name))))
	}
	f.refuse("header letter case/Kelvin sign", f.signHeader(h.and("\u212Aid", h.get("kid"))))
	f.refuse("header duplicates/of a foreign name", f.signHeader(h.and("x", "1").and("x", "2")))
	f.refuse("header duplicates/nested", f.signHeader(h.with("x", `{"a":1,"a":2}`)))
	f.refuse("header duplicates/nested in an array", f.signHeader(h.with("x", `[[{"a":1,"\u0061":2}]]`)))
	f.rawJSON("header", h, func(raw string) string { return handSigned(f.secret, raw, f.claims.String()) })
	f.accept("header/other order", f.signHeader(members{h[2], h[1], h[0]}))
	f.accept("header/foreign parameters", f.signHeader(h.with("cty", `"JWT"`).with("x5t", `"x"`).with("x", `{"alg":"none","crit":["x"]}`)))
}

// rawJSON adds texts that only a lenient parser accepts as one JSON object.
func (f *forger) rawJSON(where string, good members, sign func(raw string) string) {
	text := good.String()
	open := text[:len(text)-1]
	nested := func(n int, left, right string) string {
		return open + `,"x":` + strings.Repeat(left, n) + strings.Repeat(right, n) + "}"
	}
	for name, raw := range map[string]string{
		"empty": "", "a space": " ", "null": "null", "true": "true", "a number": "1", "a string": quote(text), "an empty object": "{}",
		"two objects": text + text, "two objects, a line each": text + "\n" + text, "an object before it": "{}" + text, "an object after it": text + "{}",
		"trailing text": text + "x", "trailing comma": text + ",", "trailing null": text + "null", "trailing brace": text + "}", "trailing NUL": text + "\x00",
		"leading NUL": "\x00" + text, "in an array": "[" + text + "]", "a BOM": "\uFEFF" + text, "a BOM at the end": text + "\uFEFF",
		"a form feed": "\f" + text, "a no-break space": "\u00a0" + text,
		"UTF-16":        "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00"),
		"invalid UTF-8": open + ",\"x\":\"\xff\"}", "invalid UTF-8 in a name": open + ",\"\xc3\":1}",
		"overlong UTF-8": open + ",\"x\":\"\xc0\xae\"}", "a surrogate in UTF-8": open + ",\"x\":\"\xed\xa0\x80\"}",
		"a lone surrogate in a name": open + `,"\ud800":1}`, "NUL in a string": open + ",\"x\":\"\x00\"}",
		"a line end in a string": open + ",\"x\":\"\n\"}", "a tab in a string": open + ",\"x\":\"\t\"}",
		"not closed": open, "half": text[:len(text)/2], "string not closed": open + `,"x":"`, "escape at the end": open + `,"x":"\`,
		"array not closed": open + `,"x":[1`, "array closed by a brace": open + `,"x":[1}`, "nested not closed": open + `,"x":{"a":1`,
		"a comment": open + `/* x */}`, "a comment at the end": text + "//x", "a hash comment": text + "\n#x",
		"single quotes":         strings.ReplaceAll(text, `"`, "'"),
		"a name without quotes": open + `,x:1}`, "a trailing comma": open + ",}", "a comma at the start": "{," + text[1:], "two commas": open + `,,"x":1}`,
		"no comma": open + ` "x":1}`, "no colon": open + `,"x" 1}`, "an equals sign": open + `,"x"=1}`,
		"two colons": open + `,"x"::1}`, "no value": open + `,"x":}`, "a number as a name": open + `,1:1}`,
		"a leading zero": open + `,"x":01}`, "a leading plus": open + `,"x":+1}`, "a bare minus": open + `,"x":-}`,
		"a bare point": open + `,"x":.5}`, "nothing after the point": open + `,"x":1.}`, "nothing after e": open + `,"x":1e}`,
		"nothing after e+": open + `,"x":1e+}`,
		"hexadecimal":      open + `,"x":0x10}`, "underscores": open + `,"x":1_000}`, "NaN": open + `,"x":NaN}`,
		"Infinity": open + `,"x":Infinity}`, "-Infinity": open + `,"x":-Infinity}`, "TRUE": open + `,"x":TRUE}`,
		"truth": open + `,"x":truth}`, "undefined": open + `,"x":undefined}`,
		"escape \\x": open + `,"x":"\x41"}`, "escape \\0": open + `,"x":"\0"}`, "escape \\u12": open + `,"x":"\u12"}`,
		"escape \\u12g4": open + `,"x":"\u12g4"}`, "a comma in an empty array": open + `,"x":[,]}`,
		"a comma at the end of an array": open + `,"x":[1,]}`, "no comma in an array": open + `,"x":[1 2]}`,
		"32 arrays":   nested(32, "[", "]"),
		"32 objects":  open + `,"x":` + strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32) + "}",
		"1000 arrays": nested(1000, "[", "]"), "1000 open arrays": nested(1000, "[", ""),
	} {
		f.refuse(where+" JSON/"+name, sign(raw))
	}
	f.accept(where+" JSON/spaces around everything", sign(" \t\r\n"+strings.NewReplacer("{", "{ ", ",\"", "\n,\t\"", "}", "\r\n}").Replace(text)+" \t\r\n"))
	f.accept(where+" JSON/names by escapes", sign(strings.ReplaceAll(text, `"`+good[0][0]+`"`, `"`+escaped(good[0][0])+`"`)))
	if f.typ == "at+jwt" || where == "header" {
		f.accept(where+" JSON/31 arrays", sign(nested(31, "[", "]")))
		f.accept(where+" JSON/31 objects", sign(open+`,"x":`+strings.Repeat(`{"a":`, 31)+"1"+strings.Repeat("}", 31)+"}"))
		f.accept(
			where+" JSON/all that is allowed",
			sign(open+`,"x":[-0,1.5e+3,0.0E-1,true,false,null,"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00",[],{},[{}]],"":1,"é":2}`),
		)
	}
}

// escaped returns a name with its first letter escaped.
func escaped(name string) string { return fmt.Sprintf(`\u%04x`, name[0]) + name[1:] }

func (f *forger) claimTypes() {
	for _, name := range f.times() {
		f.refuse("time/"+name+" missing", f.signClaims(f.claims.without(name)))
		for _, raw := range []string{
			quote(f.at(time.Hour)), `""`, "-1", "-0.5", "-1e-9", "1e30", "1e400", "-1e400", "253402300800", "253402300799.5",
			"9223372036854775808", "99999999999999999999999999", "18446744073709551617",
			"null", "true", "[" + f.at(0) + "]", "{}",
		} {
			f.refuse("time/"+name+" "+raw, f.signClaims(f.claims.with(name, raw)))
		}
		f.refuse("time/"+name+" 0"+f.at(time.Hour), f.signClaims(f.claims.with(name, "0"+f.at(time.Hour))))
	}
	for _, raw := range []string{"0", "-0", "0.999", "1e-400", f.at(-time.Hour), f.at(0), f.at(0) + ".0"} {
		f.expired("time/exp "+raw, f.signClaims(f.claims.with("exp", raw)))
	}
	f.accept("time/exp a second ahead", f.signClaims(f.claims.with("exp", f.at(time.Second))))
	f.accept("time/exp with a fraction", f.signClaims(f.claims.with("exp", f.at(time.Hour)+".75")))
	f.accept("time/exp with an exponent", f.signClaims(f.claims.with("exp", "0.0"+f.at(time.Hour)+"e11")))
	f.accept("time/exp in the year 9999", f.signClaims(f.claims.with("exp", "253402300799")))
	f.accept("time/iat and auth_time long ago", f.signClaims(f.claims.with("iat", "1").with("auth_time", f.at(-time.Hour))))

	for _, raw := range []string{
		"null", `""`, `"https://other.example.com"`, "[]", `[""]`, `["https://other.example.com"]`, "[[" + quote(audience) + "]]",
		"[" + quote(audience) + ",1]", "[" + quote(audience) + ",null]", "[1]", "1", "true",
		"{" + quote(audience) + ":1}", "[{" + quote(audience) + ":1}]", quote(strings.ToUpper(audience)), quote(audience + "/"),
		quote(audience + " "), quote(audience + ",x"), quote("x " + audience), quote(audience[:len(audience)-1]), quote(issuer),
		`"\ud800"`, `["\ud800"]`,
	} {
		f.refuse("aud/"+raw, f.signClaims(f.claims.with("aud", raw)))
	}
	f.refuse("aud/missing", f.signClaims(f.claims.without("aud")))
	f.accept("aud/a string", f.signClaims(f.claims.with("aud", quote(audience))))
	f.accept("aud/one of several", f.signClaims(f.claims.with("aud", `[ "https://other.example.com" , `+quote(audience)+" ]")))
	f.accept("aud/with escapes", f.signClaims(f.claims.with("aud", `["`+strings.ReplaceAll(audience, "/", `\/`)+`"]`)))

	for _, raw := range []string{
		"null", `""`, "1", "true", "[" + quote(issuer) + "]", "{}", `"https://attacker.example"`, quote(issuer + "/"),
		quote(strings.ToUpper(issuer)), quote(strings.Replace(issuer, "https", "http", 1)), quote(issuer + "\x00"),
		quote(issuer + ".attacker.example"), quote(" " + issuer), quote(issuer[:len(issuer)-1]), quote(audience),
	} {
		f.refuse("iss/"+raw, f.signClaims(f.claims.with("iss", raw)))
	}
	f.refuse("iss/missing", f.signClaims(f.claims.without("iss")))

	for _, name := range f.ids() {
		f.refuse("id/"+name+" missing", f.signClaims(f.claims.without(name)))
		for _, raw := range []string{`""`, "0", "1", "null", "true", "false", `["u1"]`, `{"u1":1}`, `"\ud800"`, `"a\udc00\ufffd"`} {
			f.refuse("id/"+name+" "+raw, f.signClaims(f.claims.with(name, raw)))
		}
	}
	for _, raw := range []string{`"pwd"`, "1", "null", "{}", "[1]", "[null]", `[["pwd"]]`, `["\ud800"]`, `["pwd",{}]`} {
		f.refuse("amr/"+raw, f.signClaims(f.claims.with("amr", raw)))
	}
	f.accept("amr/empty", f.signClaims(f.claims.with("amr", "[ ]")))

	all := f.claims.with("amr", `["pwd"]`)
	if f.typ == "at+jwt" {
		all = all.with("nbf", f.at(0)).with("username", `"ada"`).with("roles", `["user"]`).with("scope", `"read"`)
	}
	for _, m := range all {
		name, raw := m[0], m[1]
		f.refuse("duplicates/"+name, f.signClaims(all.and(name, raw)))
		f.refuse("duplicates/"+name+" by an escape", f.signClaims(all.and(escaped(name), raw)))
		f.refuse("duplicates/"+name+" first", f.signPayload("{"+quote(name)+":"+raw+","+all.String()[1:]))
		for _, twin := range []string{
			strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "s", "\u017f"),
			strings.ReplaceAll(name, "s", `\u017f`),
		} {
			if twin != name {
				f.refuse("letter case/"+twin, f.signClaims(all.and(twin, raw)))
				f.refuse("letter case/only "+twin, f.signClaims(all.rename(name, twin)))
			}
		}
	}
	f.refuse("duplicates/of a foreign name", f.signClaims(all.and("x", "1").and("x", "1")))
	f.refuse("duplicates/nested", f.signClaims(all.with("x", `{"a":1,"b":{},"a":2}`)))
	f.refuse("duplicates/nested by an escape", f.signClaims(all.with("x", `[{"y":{"a":1,"\u0061":2}}]`)))
	f.rawJSON("payload", f.claims, f.signPayload)
	if f.typ == "at+jwt" {
		f.refuse("cnf/jkt", f.signClaims(f.claims.with("cnf", `{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`)))
		f.refuse("cnf/null", f.signClaims(f.claims.with("cnf", "null")))
	}
	f.refuse("cnf/CNF", f.signClaims(f.claims.with("CNF", "{}")))
}

// onlyAccess adds the cases that apply only to access tokens.
func (f *forger) onlyAccess() {
	for _, raw := range []string{quote(f.at(0)), "-1", "1e30", "1e400", "253402300800", "null", "false", "[]"} {
		f.refuse("time/nbf "+raw, f.signClaims(f.claims.with("nbf", raw)))
	}
	// Clients must refresh a validly signed token that is ahead of this clock.
	for _, raw := range []string{f.at(11 * time.Second), f.at(time.Hour), "253402300799"} {
		f.expired("time/nbf "+raw, f.signClaims(f.claims.with("nbf", raw)))
	}
	for _, raw := range []string{quote(f.at(0)), "-1", "1e30", "253402300800", "null", "true", "[]", "{}"} {
		f.refuse("time/eff_iat "+raw, f.signClaims(f.claims.with("eff_iat", raw)))
	}
	f.refuse("time/Eff_iat", f.signClaims(f.claims.with("Eff_iat", f.at(0))))
	f.refuse("time/eff_iat twice", f.signClaims(f.claims.with("eff_iat", f.at(0)).and("eff_iat", f.at(0))))
	f.accept("time/eff_iat", f.signClaims(f.claims.with("eff_iat", f.at(121*time.Second))))
	f.accept("time/eff_iat long ago", f.signClaims(f.claims.with("eff_iat", "0")))
	for _, raw := range []string{"7", "null", "[]", `["x"]`} {
		f.refuse("mem_store "+raw, f.signClaims(f.claims.with("mem_store", raw)))
	}
	f.refuse("mem_store twice", f.signClaims(f.claims.with("mem_store", `"x"`).and("mem_store", `"x"`)))
	f.accept("mem_store of a MemoryStore", f.signClaims(f.claims.with("mem_store", `"x"`)))
	f.accept("time/nbf at the leeway", f.signClaims(f.claims.with("nbf", f.at(10*time.Second))))
	f.accept("time/nbf long ago", f.signClaims(f.claims.with("nbf", "0")))
	// The default Leeway is 10 s, so the bound is 2·10 + 1 seconds.
	f.accept("time/iat at the bound", f.signClaims(f.claims.with("iat", f.at(21*time.Second))))
	f.expired("time/iat past the bound", f.signClaims(f.claims.with("iat", f.at(22*time.Second))))
	f.expired("time/iat far ahead", f.signClaims(f.claims.with("iat", f.at(30*time.Minute))))
	f.expired("time/iat in the year 9999", f.signClaims(f.claims.with("iat", "253402300799")))
	for _, raw := range []string{"1", "0", `"1"`, "null"} {
		f.refuse("kind/gen "+raw, f.signClaims(f.claims.with("gen", raw)))
	}
	f.refuse("kind/Gen", f.signClaims(f.claims.with("Gen", "1")))
	for name, raws := range map[string][]string{
		"username": {"1", "null", `["ada"]`, "{}", "true", `"\udfff"`},
		"roles":    {`"admin"`, "1", "null", `{"admin":1}`, "[1]", `[null]`, `[["admin"]]`, `["admin",1]`, `["\ud800"]`},
		"scope":    {`["pay"]`, "1", "null", "{}", "true", `"\ud800"`},
	} {
		for _, raw := range raws {
			f.refuse("claims/"+name+" "+raw, f.signClaims(f.claims.with(name, raw)))
		}
	}
	for _, name := range []string{
		"Token_type", "to\u212Aen_type", `to\u212aen_type`, "NONCE", "Client_ID", "Events", "event\u017f", "ENTITLEMENTS", "Groups", "Typ",
		"AZP", "ACR", "May_Act", "Act",
	} {
		f.refuse("letter case/"+name, f.signClaims(f.claims.with(name, `"x"`)))
	}
	f.accept(
		"claims/foreign",
		f.signClaims(f.claims.with("tenant", `{"sub":"x","exp":1,"SUB":2}`).with("subject", "1").with("sub ", "1").with("x-sub", "null")),
	)
	f.accept("claims/of other standards", f.signClaims(f.claims.with("client_id", `"x"`).with("acr", `"2"`).with("groups", "[]").with("nonce", `"n"`)))

	refresh := newForger("refresh", f.now)
	f.refuse("kind/refresh token", refresh.genuine())
	f.refuse("kind/refresh token under the access key", handSigned(f.secret, refresh.header().with("kid", quote(f.key.ID())).String(), refresh.claims.String()))
	f.refuse("kind/refresh claims as at+jwt under the access key", f.signClaims(refresh.claims))
	f.refuse("kind/refresh claims and ours as at+jwt", f.signClaims(f.claims.with("gen", "1")))
	f.refuse(
		"kind/refresh claims as at+jwt under the refresh key",
		handSigned(refresh.secret, refresh.header().with("typ", `"at+jwt"`).String(), refresh.claims.String()),
	)
	f.refuse("kind/our claims under the refresh key", handSigned(refresh.secret, refresh.header().with("typ", `"at+jwt"`).String(), f.claims.String()))
	f.refuse("kind/our claims as rt+jwt under the refresh key", handSigned(refresh.secret, refresh.header().String(), f.claims.String()))
}

// onlyRefresh adds the cases that apply only to refresh tokens.
func (f *forger) onlyRefresh() {
	f.refuse("gen/missing", f.signClaims(f.claims.without("gen")))
	for _, raw := range []string{"0", "-1", "-0", "1.0", "1.5", "1e0", `"1"`, "null", "true", "[1]", "1000000000000000000", "9223372036854775808", "01"} {
		f.refuse("gen/"+raw, f.signClaims(f.claims.with("gen", raw)))
	}
	for name, raw := range map[string]string{
		"SUB": `"u2"`, "\u017fub": `"u2"`, "Gen": "2", "EXP": f.at(time.Hour), "JTI": `"x"`, "Cnf": "{}", "to\u212Aen_type": `"x"`,
	} {
		f.refuse("claims/"+name, f.signClaims(f.claims.with(name, raw)))
	}
	f.expired("time/auth_time before the absolute lifetime", f.signClaims(f.claims.with("auth_time", f.at(-30*24*time.Hour))))
	access := newForger("access", f.now)
	f.refuse("kind/access token", access.genuine())
	f.refuse("kind/access token under the refresh key", handSigned(f.secret, access.header().with("kid", quote(f.key.ID())).String(), access.claims.String()))
	f.refuse("kind/access claims as rt+jwt under the refresh key", f.signClaims(access.claims))
	f.refuse("kind/our claims under the access key", handSigned(access.secret, access.header().with("typ", `"rt+jwt"`).String(), f.claims.String()))
	f.refuse("kind/our claims as at+jwt under the access key", handSigned(access.secret, access.header().String(), f.claims.String()))
}

func (f *forger) structure() {
	good := f.genuine()
	parts := strings.Split(good, ".")
	h, p, s := parts[0], parts[1], parts[2]
	for name, token := range map[string]string{
		"empty": "", "a dot": ".", "two dots": "..", "three dots": "...", "8000 dots": strings.Repeat(".", 8000), "one segment": h,
		"two segments": h + "." + p, "payload and signature": p + "." + s,
		"four segments": good + "." + s, "four, the last empty": good + ".", "four, the first empty": "." + good,
		"five segments": good + "." + p + "." + s, "a doubled dot": h + ".." + p + "." + s,
		"a doubled dot later": h + "." + p + ".." + s,
		"empty header":        "." + p + "." + s, "empty payload": h + ".." + s, "empty header, signed": signInput(f.secret, "."+p),
		"empty payload, signed (detached)": signInput(f.secret, h+"."),
		"both empty, signed":               signInput(f.secret, "."), "swapped": p + "." + h + "." + s,
		"a comma for a dot": h + "," + p + "." + s, "a full-width dot": h + "." + p + "\uff0e" + s,
		"a leading space": " " + good, "a trailing space": good + " ", "a space inside": h + ". " + p + "." + s,
		"a leading line end": "\n" + good, "a trailing line end": good + "\n", "a trailing CRLF": good + "\r\n",
		"a trailing NUL": good + "\x00", "a trailing tab": good + "\t",
		"two tokens": good + " " + good, "two tokens, a comma": good + "," + good, "with its scheme": "Bearer " + good,
		"in quotes": `"` + good + `"`, "percent-encoded": strings.ReplaceAll(good, ".", "%2E"), "a fragment": good + "#x",
		"a tilde (SD-JWT)":        good + "~",
		"JWE, five segments":      segment(`{"alg":"dir","enc":"A256GCM"}`) + ".." + segment("0123456789ab") + "." + p + "." + s,
		"JWE around it":           segment(`{"alg":"dir","enc":"A256GCM","cty":"JWT"}`) + ".." + segment("0123456789ab") + "." + segment(good) + "." + s,
		"general serialization":   `{"payload":"` + p + `","signatures":[{"protected":"` + h + `","signature":"` + s + `"}]}`,
		"flattened serialization": `{"payload":"` + p + `","protected":"` + h + `","signature":"` + s + `"}`,
		"flattened, and compact":  `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `","x":".` + p + `."}`,
		"not a token":             "correct horse battery staple", "a URL": "https://example.com/a.b.c", "binary": "\xff\xfe.\x00.\x01",
	} {
		f.refuse("structure/"+name, token)
	}
}

// spellings adds other encodings of the valid token: they decode to the same
// bytes, or their signature is valid for another encoding.
func (f *forger) spellings() {
	// The lengths leave unused bits in the last character of each segment.
	pad := func(s string) string {
		for len(s)%3 != 2 {
			s += " "
		}
		return s
	}
	h, p := segment(pad(f.header().String())), segment(pad(f.claims.String()))
	good := signInput(f.secret, h+"."+p)
	s := good[strings.LastIndexByte(good, '.')+1:]
	f.accept("base64/padded with JSON spaces", good)
	next := func(seg string) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return seg[:len(seg)-1] + string(alphabet[strings.IndexByte(alphabet, seg[len(seg)-1])+1])
	}
	for name, change := range map[string]func(string) string{
		"padding": func(seg string) string { return seg + "=" }, "two paddings": func(seg string) string { return seg + "==" }, "last bits": next,
		"line end":        func(seg string) string { return seg[:4] + "\n" + seg[4:] },
		"CR":              func(seg string) string { return seg[:4] + "\r" + seg[4:] },
		"CRLF at the end": func(seg string) string { return seg + "\r\n" },
		"LF at the start": func(seg string) string { return "\n" + seg },
		"space":           func(seg string) string { return seg[:8] + " " + seg[8:] },
		"one letter more": func(seg string) string { return seg + "AA" }, "a quote": func(seg string) string { return seg + "'" },
		"not ASCII": func(seg string) string { return seg[:4] + "\u00e9" + seg[4:] },
		"percent":   func(seg string) string { return seg + "%3D" },
	} {
		f.refuse("base64/header, "+name, signInput(f.secret, change(h)+"."+p))
		f.refuse("base64/payload, "+name, signInput(f.secret, h+"."+change(p)))
		f.refuse("base64/signature, "+name, h+"."+p+"."+change(s))
		f.refuse("base64/header after signing, "+name, change(h)+"."+p+"."+s)
	}
	// Each segment in the standard alphabet of base64.
	odd := f.claims.with("sid", `"~~~???>>>"`)
	oddHeader := f.header().with("x", `"~~~???>>>"`)
	if f.typ == "at+jwt" {
		f.accept("base64/URL alphabet", f.sign(oddHeader, odd))
	}
	std := strings.NewReplacer("-", "+", "_", "/")
	for i := range 200 {
		payload := segment(odd.with("iat", f.at(-time.Duration(i)*time.Second)).String())
		header := segment(oddHeader.String())
		token := signInput(f.secret, header+"."+payload)
		sig := token[strings.LastIndexByte(token, '.')+1:]
		if !strings.ContainsAny(payload, "-_") || !strings.ContainsAny(header, "-_") || !strings.ContainsAny(sig, "-_") {
			continue
		}
		f.refuse("base64/standard alphabet in the payload", signInput(f.secret, header+"."+std.Replace(payload)))
		f.refuse("base64/standard alphabet in the header", signInput(f.secret, std.Replace(header)+"."+payload))
		f.refuse("base64/standard alphabet in the signature", header+"."+payload+"."+std.Replace(sig))
		break
	}
}

// sized returns a valid token of exactly n bytes.
func (f *forger) sized(n int) string {
	for spaces := range 4 {
		header := f.header().String() + strings.Repeat(" ", spaces)
		left := n - len(segment(header)) - 2 - 43
		size := base64.RawURLEncoding.DecodedLen(left)
		if base64.RawURLEncoding.EncodedLen(size) != left {
			continue
		}
		payload := f.claims.String()
		return handSigned(f.secret, header, payload+strings.Repeat(" ", size-len(payload)))
	}
	return ""
}

func (f *forger) sizes() {
	f.accept("size/8192", f.sized(8192))
	f.refuse("size/8193", f.sized(8193))
	f.refuse("size/16 KiB", f.sized(16<<10))
	f.refuse("size/1 MiB", f.sized(1<<20))
	f.refuse("size/1 MiB of nothing", strings.Repeat("a", 1<<20))
}

func (f *forger) all(t testing.TB) []forgery {
	f.signatures()
	f.algorithms()
	f.confusion(t)
	f.keyIDs()
	f.headers()
	f.claimTypes()
	if f.typ == "at+jwt" {
		f.onlyAccess()
	} else {
		f.onlyRefresh()
	}
	f.structure()
	f.spellings()
	f.sizes()
	for _, o := range f.table {
		if o.want == nil || strings.HasPrefix(o.name, "size/") {
			require.NotEmpty(t, o.token, o.name)
		}
	}
	return f.table
}

// holdsToken reports whether text contains the token or a long part of it.
func holdsToken(text, token string) bool {
	if len(token) >= 24 && strings.Contains(text, token) {
		return true
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= 24 && strings.Contains(text, part) {
			return true
		}
	}
	return false
}
