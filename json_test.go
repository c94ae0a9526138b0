package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// readAll reads an object into its raw members.
func readAll(b []byte) (map[string]string, error) {
	got := map[string]string{}
	err := readObject(string(b), maxClaims, func(name, value string) error {
		got[name] = value
		return nil
	})
	return got, err
}

// jsonWriter writes random JSON, with mistakes now and then.
type jsonWriter struct {
	r    *rand.Rand
	wild bool // also what is not JSON
}

func (w *jsonWriter) pick(list ...string) string { return list[w.r.IntN(len(list))] }

func (w *jsonWriter) space() string {
	if w.wild && w.r.IntN(60) == 0 {
		return w.pick("\f", "\v", "\u00a0", "\x00", "\uFEFF", "//", ",", "x")
	}
	return w.pick("", "", "", "", " ", "\n", "\t", "\r\n")
}

func (w *jsonWriter) str() string {
	var b strings.Builder
	b.WriteByte('"')
	for range w.r.IntN(6) {
		b.WriteString(w.pick("a", "B", "é", "€", "😀", `\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u0041`, `\u00e9`, `\uD83D\uDE00`, " ", "\x7f", "<", "\u2028", "\ufffd"))
		if w.wild && w.r.IntN(40) == 0 {
			b.WriteString(w.pick("\x00", "\n", "\xff", "\xed\xa0\x80", `\x`, `\u12`, `\ud800`, `\`, "\x1f"))
		}
	}
	if w.wild && w.r.IntN(100) == 0 {
		return b.String()
	}
	return b.String() + `"`
}

func (w *jsonWriter) value(depth int) string {
	switch w.r.IntN(9) {
	case 0:
		return w.str()
	case 1, 2:
		if w.wild && w.r.IntN(10) == 0 {
			return w.pick("01", "+1", ".5", "1.", "1e", "0x1", "NaN", "Infinity", "-", "1_0", "--1")
		}
		return w.pick("0", "-0", "1", "-12", "3.25", "1e5", "1E-5", "2.5e+3", "1795000000", "123456789012345678901234567890", "1e400")
	case 3:
		return w.pick("true", "false", "null")
	case 4:
		if w.wild {
			return w.pick("True", "nul", "undefined", "'x'", "true", "null")
		}
		return "null"
	case 5, 6:
		if depth > 5 {
			return "[]"
		}
		var parts []string
		for range w.r.IntN(4) {
			parts = append(parts, w.space()+w.value(depth+1)+w.space())
		}
		return "[" + w.space() + strings.Join(parts, ",") + "]"
	}
	if depth > 5 {
		return "{}"
	}
	return w.object(depth + 1)
}

func (w *jsonWriter) object(depth int) string {
	var parts []string
	for i := range w.r.IntN(5) {
		name := w.str()
		if !w.wild { // no duplicates
			name = fmt.Sprintf(`"%d`, i) + name[1:]
		}
		parts = append(parts, w.space()+name+w.space()+":"+w.space()+w.value(depth)+w.space())
	}
	return "{" + w.space() + strings.Join(parts, ",") + "}"
}

func TestStrictJSON_AgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for i := range 60_000 {
		w := &jsonWriter{r: r, wild: i%2 == 0}
		b := []byte(w.space() + w.object(1) + w.space())
		checkAgainstEncodingJSON(t, b)
		if _, err := readAll(b); err == nil {
			accepted++
		} else if !w.wild {
			require.NoError(t, err, "%q", b)
		}
	}
	require.Greater(t, accepted, 30_000)
}

// checkAgainstEncodingJSON holds: what the strict reader takes, encoding/json
// takes too and reads alike; what it refuses is no JSON, or one of the things
// that it is there to refuse.
func checkAgainstEncodingJSON(t testing.TB, b []byte) {
	got, err := readAll(b)
	var want map[string]json.RawMessage
	loose := json.Unmarshal(b, &want)
	if err != nil {
		return
	}
	require.NoError(t, loose, "%q", b)
	require.True(t, utf8.Valid(b), "%q", b)
	require.Len(t, want, len(got), "%q", b)
	for name, value := range got {
		require.Equal(t, strings.TrimSpace(string(want[name])), value, "%q of %q", name, b)
		if text, ok := jsonString(value); ok {
			var same string
			require.NoError(t, json.Unmarshal([]byte(value), &same), "%q", value)
			require.Equal(t, same, text)
		} else if value[0] == '"' {
			require.Contains(t, value, `\u`, "only a lone surrogate is a string and is not")
		}
		if list, ok := jsonStrings(nil, value); ok {
			var same []string
			require.NoError(t, json.Unmarshal([]byte(value), &same), "%q", value)
			require.Equal(t, same, append([]string{}, list...))
		}
		if n, ok := jsonInt(value); ok {
			same, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			require.Equal(t, same, n)
		}
		if at, ok := jsonTime(value); ok {
			var f float64
			require.NoError(t, json.Unmarshal([]byte(value), &f), "%q", value)
			require.Equal(t, int64(math.Floor(f)), at.Unix(), "%q", value)
			require.True(t, f >= 0 && f <= maxNumericDate, "%q", value)
			require.Equal(t, time.UTC, at.Location())
		}
	}
}

func TestStrictJSON_Refuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want error
	}{
		{``, errJSON}, {` `, errJSON}, {`[]`, errJSON}, {`null`, errJSON}, {`"a"`, errJSON}, {`{`, errJSON}, {`}`, errJSON}, {`{}{}`, errJSON}, {`{} x`, errJSON},
		{`{"a"`, errJSON}, {`{"a":`, errJSON}, {`{"a":1`, errJSON}, {`{"a":1,`, errJSON}, {`{"a":1,}`, errJSON}, {`{,}`, errJSON}, {`{"a" 1}`, errJSON}, {`{"a":1 "b":2}`, errJSON}, {`{"a":1;"b":2}`, errJSON},
		{`{a:1}`, errJSON}, {`{'a':1}`, errJSON}, {`{"a":'b'}`, errJSON}, {`{1:1}`, errJSON}, {`{null:1}`, errJSON}, {`{"a":}`, errJSON}, {`{"a"::1}`, errJSON},
		{`{"a":tru}`, errJSON}, {`{"a":truee}`, errJSON}, {`{"a":True}`, errJSON}, {`{"a":nul`, errJSON}, {`{"a":01}`, errJSON}, {`{"a":-}`, errJSON}, {`{"a":-01}`, errJSON}, {`{"a":1.}`, errJSON}, {`{"a":.1}`, errJSON}, {`{"a":1e}`, errJSON}, {`{"a":1e+-1}`, errJSON}, {`{"a":1ee1}`, errJSON}, {`{"a":1.2.3}`, errJSON}, {`{"a":+1}`, errJSON}, {`{"a":0x1}`, errJSON}, {`{"a":1_0}`, errJSON},
		{`{"a":"`, errJSON}, {`{"a":"\`, errJSON}, {`{"a":"\u`, errJSON}, {`{"a":"\u123`, errJSON}, {`{"a":"\u123g"}`, errJSON}, {`{"a":"\U00000041"}`, errJSON}, {`{"a":"\'"}`, errJSON}, {`{"a":"\a"}`, errJSON}, {"{\"a\":\"\n\"}", errJSON}, {"{\"a\":\"\x1f\"}", errJSON}, {"{\"a\x00\":1}", errJSON},
		{`{"a":[}`, errJSON}, {`{"a":[1}`, errJSON}, {`{"a":[1,]}`, errJSON}, {`{"a":[,1]}`, errJSON}, {`{"a":[1 2]}`, errJSON}, {`{"a":[`, errJSON}, {`{"a":[1`, errJSON}, {`{"a":{]}`, errJSON}, {`{"a":1}]`, errJSON},
		{"\uFEFF{}", errJSON}, {"{}\x00", errJSON}, {"{\"a\":\"\xff\"}", errJSON}, {"{\"\xff\":1}", errJSON}, {"{}\xff", errJSON}, {`{"\ud800":1}`, errJSON}, {`{"a\udc00b":1}`, errJSON}, {`{"a":{"\ud800":1}}`, errJSON},
		{`{"a":1,"a":1}`, errJSONTwice}, {`{"a":1,"b":2,"\u0061":3}`, errJSONTwice}, {`{"\u0061":1,"\u0061":3}`, errJSONTwice}, {`{"":1,"":2}`, errJSONTwice}, {`{"a":{"b":1,"b":2}}`, errJSONTwice}, {`{"a":[{"b":1,"b":2}]}`, errJSONTwice},
		{strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), errJSONDepth}, {`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}", errJSONDepth}, {`{"a":` + strings.Repeat("[", 100_000), errJSONDepth}, {`{"a":` + strings.Repeat(`{"a":`, 100_000), errJSONDepth},
	} {
		_, err := readAll([]byte(c.text))
		require.ErrorIs(t, err, c.want, "%.80q", c.text)
	}
}

func TestStrictJSON_Accepts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		`{}`: {}, " \t\r\n{ \n} ": {}, `{"a":1}`: {"a": "1"}, ` { "a" : [ 1 , 2 ] , "b" : { "a" : 1 } } `: {"a": "[ 1 , 2 ]", "b": `{ "a" : 1 }`},
		`{"\u0061b":"\u0061"}`: {"ab": `"\u0061"`}, `{"a":1,"A":2}`: {"a": "1", "A": "2"}, `{"":null}`: {"": "null"}, `{"\ud83d\ude00":1,"é":-0.5E+10}`: {"😀": "1", "é": "-0.5E+10"}, `{"a":"\ud800"}`: {"a": `"\ud800"`},
		strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32):       {"a": strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 31)},
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "}": {"a": strings.Repeat("[", 31) + strings.Repeat("]", 31)},
	} {
		got, err := readAll([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestStrictJSON_BoundsMembers(t *testing.T) {
	t.Parallel()
	object := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, `,"%d":0`, i)
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	got, err := readAll(object(maxClaims))
	require.NoError(t, err)
	require.Len(t, got, 1024)
	_, err = readAll(object(maxClaims + 1))
	require.ErrorIs(t, err, errJSON)
	_, err = readAll([]byte(`{"a":` + string(object(maxClaims+1)) + "}"))
	require.ErrorIs(t, err, errJSON)
}

func TestStrictJSON_StopsAtTheFirstRefusal(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	calls := 0
	err := readObject(`{"a":1,"b":2}`, maxClaims, func(_, _ string) error { calls++; return stop })
	require.Equal(t, stop, err)
	require.Equal(t, 1, calls)
}

func TestStrictJSON_Values(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{`""`: "", `"a"`: "a", `"\u0061\ud83d\ude00"`: "a😀", "\"\ufffd\"": "\ufffd", "\"\ufffd\\n\"": "\ufffd\n"} {
		got, ok := jsonString(value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", `"`, "1", "null", "[]", "{}", `["a"]`, `"\ud800"`, `"\udfff\ud800"`, `"a\ud800b"`, `"\ufffd"`} {
		_, ok := jsonString(value)
		require.False(t, ok, value)
	}
	for value, want := range map[string][]string{"[]": nil, "[ ]": nil, `["a"]`: {"a"}, `[ "a" , "\u0062" ]`: {"a", "b"}, `["",""]`: {"", ""}} {
		got, ok := jsonStrings(nil, value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", `"a"`, "{}", "null", "[1]", "[null]", `[["a"]]`, `["a",1]`, `["\ud800"]`, `[{}]`} {
		_, ok := jsonStrings(nil, value)
		require.False(t, ok, value)
	}
	for value, want := range map[string]int64{"0": 0, "1": 1, "999999999999999999": 999999999999999999} {
		got, ok := jsonInt(value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", "-1", "-0", "1.0", "1e3", "1000000000000000000", "18446744073709551617", `"1"`, "null", "[1]", "/", ":"} {
		_, ok := jsonInt(value)
		require.False(t, ok, value)
	}
	for value, want := range map[string]int64{"0": 0, "-0": 0, "0.9": 0, "1.9999": 1, "1e9": 1e9, "1.5e1": 15, "253402300799": maxNumericDate, "2.53402300799e11": maxNumericDate, "1e-400": 0} {
		got, ok := jsonTime(value)
		require.True(t, ok, value)
		require.Equal(t, time.Unix(want, 0).UTC(), got, value)
		require.False(t, got.IsZero(), "a time that is there is not one that is missing")
	}
	for _, value := range []string{"", "-1", "-0.1", "253402300800", "253402300799.5", "1e12", "1e400", "-1e400", "999999999999999999", "99999999999999999999", `"1"`, "null", "true", "[]", "{}"} {
		_, ok := jsonTime(value)
		require.False(t, ok, value)
	}
}

func TestStrictJSON_WritesWhatEncodingJSONReads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		var s strings.Builder
		for range r.IntN(8) {
			s.WriteString([]string{"a", `"`, `\`, "\x00", "\x1f", "\x7f", "\n", "<", "&", "é", "😀", "\u2028", "\ufffd", string(rune(r.IntN(0xd800)))}[r.IntN(14)])
		}
		list := []string{s.String(), "", s.String() + "x"}[:r.IntN(4)]
		var one string
		require.NoError(t, json.Unmarshal(appendJSONString(nil, s.String()), &one), "%q", s.String())
		require.Equal(t, s.String(), one)
		var all []string
		require.NoError(t, json.Unmarshal(appendJSONStrings(nil, list), &all))
		require.Equal(t, append([]string{}, list...), all)
		again, ok := jsonStrings(nil, string(appendJSONStrings(nil, list)))
		require.True(t, ok)
		require.Equal(t, list[:len(list):len(list)], append([]string{}, again...))
	}
}

func TestImitates_FoldsAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	for _, name := range reserved {
		for _, twin := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "s", "\u017f"), strings.ReplaceAll(name, "k", "\u212a")} {
			require.Equal(t, name, imitates(twin), twin)
		}
		for _, other := range []string{name + " ", " " + name, name + "_", "x" + name, name[1:] + "0"} {
			require.Empty(t, imitates(other), other)
		}
	}
	require.Empty(t, imitates(""))
	// Every claim that is read, or written, is reserved, or it could be made by
	// User.Extra.
	for _, name := range []string{"iss", "aud", "sub", "sid", "jti", "iat", "exp", "nbf", "auth_time", "session_exp", "username", "roles", "scope", "amr", "gen", "cnf"} {
		require.Equal(t, name, imitates(name), name)
	}
}

func TestAccessGrant_RefusesWhatNoLookupMayReturn(t *testing.T) {
	t.Parallel()
	for _, u := range []User{{}, {ID: "u\x00"}, {ID: strings.Repeat("x", maxSubject+1)}, {ID: "u", Roles: []string{""}}, {ID: "u", Scopes: []string{"a b"}}} {
		_, err := (&accessGrant{issuer: "i", audience: []string{"a"}, user: u, sid: "s"}).payload()
		require.ErrorContains(t, err, "auth: User.")
	}
}
