package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
	"github.com/stretchr/testify/require"
)

var syntax, duplicate, depth = strictjson.ErrSyntax, strictjson.ErrDuplicate, strictjson.ErrDepth

// limit of the members of an object.
const limit = 1024

// readAll reads an object into its raw members.
func readAll(b []byte) (map[string]string, error) {
	got := map[string]string{}
	err := strictjson.Object(string(b), limit, func(name, value string) error {
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

func TestObject_AgreesWithEncodingJSON(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: tries many random objects")
	}
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
		if text, ok := strictjson.String(value); ok {
			var same string
			require.NoError(t, json.Unmarshal([]byte(value), &same), "%q", value)
			require.Equal(t, same, text)
		} else if value[0] == '"' {
			require.Contains(t, value, `\u`, "only a lone surrogate is a string and is not")
		}
		if list, ok := strictjson.Strings(nil, value); ok {
			var same []string
			require.NoError(t, json.Unmarshal([]byte(value), &same), "%q", value)
			require.Equal(t, same, append([]string{}, list...))
		}
		if n, ok := strictjson.Int(value); ok {
			same, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			require.Equal(t, same, n)
		}
	}
}

func TestObject_Refuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want error
	}{
		{``, syntax}, {` `, syntax}, {`[]`, syntax}, {`null`, syntax}, {`"a"`, syntax}, {`{`, syntax}, {`}`, syntax}, {`{}{}`, syntax}, {`{} x`, syntax},
		{`{"a"`, syntax}, {`{"a":`, syntax}, {`{"a":1`, syntax}, {`{"a":1,`, syntax}, {`{"a":1,}`, syntax}, {`{,}`, syntax}, {`{"a" 1}`, syntax},
		{`{"a":1 "b":2}`, syntax}, {`{"a":1;"b":2}`, syntax},
		{`{a:1}`, syntax}, {`{'a':1}`, syntax}, {`{"a":'b'}`, syntax}, {`{1:1}`, syntax}, {`{null:1}`, syntax}, {`{"a":}`, syntax}, {`{"a"::1}`, syntax},
		{`{"a":tru}`, syntax}, {`{"a":truee}`, syntax}, {`{"a":True}`, syntax}, {`{"a":nul`, syntax}, {`{"a":01}`, syntax}, {`{"a":-}`, syntax},
		{`{"a":-01}`, syntax}, {`{"a":1.}`, syntax}, {`{"a":.1}`, syntax}, {`{"a":1e}`, syntax}, {`{"a":1e+-1}`, syntax}, {`{"a":1ee1}`, syntax},
		{`{"a":1.2.3}`, syntax}, {`{"a":+1}`, syntax}, {`{"a":0x1}`, syntax}, {`{"a":1_0}`, syntax},
		{`{"a":"`, syntax}, {`{"a":"\`, syntax}, {`{"a":"\u`, syntax}, {`{"a":"\u123`, syntax}, {`{"a":"\u123g"}`, syntax},
		{`{"a":"\U00000041"}`, syntax}, {`{"a":"\'"}`, syntax}, {`{"a":"\a"}`, syntax}, {"{\"a\":\"\n\"}", syntax}, {"{\"a\":\"\x1f\"}", syntax},
		{"{\"a\x00\":1}", syntax},
		{`{"a":[}`, syntax}, {`{"a":[1}`, syntax}, {`{"a":[1,]}`, syntax}, {`{"a":[,1]}`, syntax}, {`{"a":[1 2]}`, syntax}, {`{"a":[`, syntax},
		{`{"a":[1`, syntax}, {`{"a":{]}`, syntax}, {`{"a":1}]`, syntax},
		{"\uFEFF{}", syntax}, {"{}\x00", syntax}, {"{\"a\":\"\xff\"}", syntax}, {"{\"\xff\":1}", syntax}, {"{}\xff", syntax},
		{`{"\ud800":1}`, syntax}, {`{"a\udc00b":1}`, syntax}, {`{"a":{"\ud800":1}}`, syntax},
		{`{"a":1,"a":1}`, duplicate}, {`{"a":1,"b":2,"\u0061":3}`, duplicate}, {`{"\u0061":1,"\u0061":3}`, duplicate}, {`{"":1,"":2}`, duplicate},
		{`{"a":{"b":1,"b":2}}`, duplicate}, {`{"a":[{"b":1,"b":2}]}`, duplicate},
		{strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), depth},
		{`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}", depth}, {`{"a":` + strings.Repeat("[", 100_000), depth},
		{`{"a":` + strings.Repeat(`{"a":`, 100_000), depth},
	} {
		_, err := readAll([]byte(c.text))
		require.ErrorIs(t, err, c.want, "%.80q", c.text)
	}
}

func TestObject_Accepts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		`{}`: {}, " \t\r\n{ \n} ": {}, `{"a":1}`: {"a": "1"}, ` { "a" : [ 1 , 2 ] , "b" : { "a" : 1 } } `: {"a": "[ 1 , 2 ]", "b": `{ "a" : 1 }`},
		`{"\u0061b":"\u0061"}`: {"ab": `"\u0061"`}, `{"a":1,"A":2}`: {"a": "1", "A": "2"}, `{"":null}`: {"": "null"},
		`{"\ud83d\ude00":1,"é":-0.5E+10}`: {"😀": "1", "é": "-0.5E+10"}, `{"a":"\ud800"}`: {"a": `"\ud800"`},
		strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32):       {"a": strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 31)},
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "}": {"a": strings.Repeat("[", 31) + strings.Repeat("]", 31)},
	} {
		got, err := readAll([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestObject_BoundsMembers(t *testing.T) {
	t.Parallel()
	object := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, `,"%d":0`, i)
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	got, err := readAll(object(limit))
	require.NoError(t, err)
	require.Len(t, got, 1024)
	_, err = readAll(object(limit + 1))
	require.ErrorIs(t, err, strictjson.ErrSyntax)
	_, err = readAll([]byte(`{"a":` + string(object(limit+1)) + "}"))
	require.ErrorIs(t, err, strictjson.ErrSyntax)
}

func TestObject_StopsAtTheFirstRefusal(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	calls := 0
	err := strictjson.Object(`{"a":1,"b":2}`, limit, func(_, _ string) error { calls++; return stop })
	require.Equal(t, stop, err)
	require.Equal(t, 1, calls)
}

func TestObject_Values(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{`""`: "", `"a"`: "a", `"\u0061\ud83d\ude00"`: "a😀", "\"\ufffd\"": "\ufffd", "\"\ufffd\\n\"": "\ufffd\n"} {
		got, ok := strictjson.String(value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", `"`, "1", "null", "[]", "{}", `["a"]`, `"\ud800"`, `"\udfff\ud800"`, `"a\ud800b"`, `"\ufffd"`} {
		_, ok := strictjson.String(value)
		require.False(t, ok, value)
	}
	for value, want := range map[string][]string{"[]": nil, "[ ]": nil, `["a"]`: {"a"}, `[ "a" , "\u0062" ]`: {"a", "b"}, `["",""]`: {"", ""}} {
		got, ok := strictjson.Strings(nil, value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", `"a"`, "{}", "null", "[1]", "[null]", `[["a"]]`, `["a",1]`, `["\ud800"]`, `[{}]`} {
		_, ok := strictjson.Strings(nil, value)
		require.False(t, ok, value)
	}
	for value, want := range map[string]int64{"0": 0, "1": 1, "999999999999999999": 999999999999999999} {
		got, ok := strictjson.Int(value)
		require.True(t, ok, value)
		require.Equal(t, want, got)
	}
	for _, value := range []string{"", "-1", "-0", "1.0", "1e3", "1000000000000000000", "18446744073709551617", `"1"`, "null", "[1]", "/", ":"} {
		_, ok := strictjson.Int(value)
		require.False(t, ok, value)
	}
}

func TestMembers_ChecksOnlySyntaxAndTheOuterNames(t *testing.T) {
	t.Parallel()
	many := "{"
	for i := range 2000 {
		many += fmt.Sprintf(`"%d":0,`, i)
	}
	many += `"end":1}`
	deep := strings.Repeat("[", 9_990) + strings.Repeat("]", 9_990)
	for text, want := range map[string]map[string]string{
		`{"a":{"b":1,"b":2,"c":3},"d":[{"e":1,"e":2}]}`: {"a": `{"b":1,"b":2,"c":3}`, "d": `[{"e":1,"e":2}]`},
		"{\"a\":\"\xff\",\"b\":1}":                      {"a": "\"\xff\"", "b": "1"},
		"{\"\xff\":1,\"b\":2}":                          {"\xff": "1", "b": "2"},
		`{"\ud800":1,"b":2}`:                            {`\ud800`: "1", "b": "2"},
		`{"\u0061":1,"b":2}`:                            {"a": "1", "b": "2"},
		`{"a":` + deep + `,"b":` + many + `}`:           {"a": deep, "b": many},
	} {
		got, err := strictjson.Members(text)
		require.NoError(t, err, "%.60q", text)
		require.Equal(t, want, got, "%.60q", text)
	}
	got, err := strictjson.Members(many)
	require.NoError(t, err)
	require.Len(t, got, 2001)
	for text, want := range map[string]error{
		`{"a":1,"a":1}`: strictjson.ErrDuplicate, `{"a":1,"\u0061":1}`: strictjson.ErrDuplicate, `{"a":1}x`: strictjson.ErrSyntax, `[]`: strictjson.ErrSyntax,
		`{"a":tru}`: strictjson.ErrSyntax, `{"a":` + strings.Repeat("[", 10_001): strictjson.ErrDepth,
	} {
		got, err := strictjson.Members(text)
		require.ErrorIs(t, err, want, "%.60q", text)
		require.Nil(t, got)
	}
}

func TestValidStrings_FindsLoneSurrogatesAnywhere(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{}`, `{"a":"b"}`, `{"\ud83d\ude00":["\"",{"x":"\\"}]}`} {
		require.True(t, strictjson.ValidStrings(text), text)
	}
	for _, text := range []string{`{"\ud800":1}`, `{"a":"\ud800"}`, `{"a":["b",{"c":["\udc00"]}]}`} {
		require.False(t, strictjson.ValidStrings(text), text)
	}
}

func TestWriter_WritesWhatEncodingJSONReads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		var s strings.Builder
		for range r.IntN(8) {
			s.WriteString([]string{
				"a", `"`, `\`, "\x00", "\x1f", "\x7f", "\n", "<", "&", "é", "😀", "\u2028", "\ufffd", string(rune(r.IntN(0xd800))),
			}[r.IntN(14)])
		}
		list := []string{s.String(), "", s.String() + "x"}[:r.IntN(4)]
		n := r.Int64() - r.Int64()
		w := strictjson.NewWriter([]byte("before"))
		var want []string
		member := func(name string, write func()) {
			if r.IntN(3) > 0 {
				write()
				want = append(want, name)
			}
		}
		member("text", func() { w.String("text", s.String()) })
		member("list", func() { w.Strings("list", list) })
		member("number", func() { w.Int("number", n) })
		member("bool", func() { w.Bool("bool", n%2 == 0) })
		member("more", func() { w.Members([]byte(`{"more":{"a":[1]}}`)) })
		b, ok := bytes.CutPrefix(w.Close(), []byte("before"))
		require.True(t, ok)

		var got struct {
			Text   *string
			List   *[]string
			Number *int64
			Bool   *bool
			More   json.RawMessage
		}
		require.NoError(t, json.Unmarshal(b, &got), "%q", b)
		var names []string
		require.NoError(t, strictjson.Object(string(b), 5, func(name, _ string) error { names = append(names, name); return nil }), "%q", b)
		require.Equal(t, want, names)
		if got.Text != nil {
			require.Equal(t, s.String(), *got.Text)
		}
		if got.List != nil {
			require.Equal(t, append([]string{}, list...), *got.List)
		}
		if got.Number != nil {
			require.Equal(t, n, *got.Number)
		}
		if got.Bool != nil {
			require.Equal(t, n%2 == 0, *got.Bool)
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"a":1}`, ` { "a" : [ 1 , -0.5e+3 , "x\n\u00e9\ud83d\ude00" , true , false , null , {} , [] ] } `, `{"a":{"b":{"c":[[[]]]}}}`, `{"\u0061":1,"b":2}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"\ud800":1}`, "{\"a\":\"\ufffd\"}",
		`{"a":01}`, `{"a":1.}`, `{"a":1,}`, `{"a":[1,]}`, `{"a":"\x"}`, `{"a"`, `{"a":tru}`, "\uFEFF{}", "{}\x00", "{\"a\":\"\xff\"}", strings.Repeat(`{"a":`, 40), `{"n":253402300799,"m":253402300800,"x":1e400,"y":999999999999999999,"z":1000000000000000000}`, `{"l":["a","\u0062",""]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		checkAgainstEncodingJSON(t, b)
		require.Equal(t, before, b, "reading changes nothing")
		if _, err := readAll(b); err != nil {
			require.True(t, errors.Is(err, strictjson.ErrSyntax) || errors.Is(err, strictjson.ErrDepth) || errors.Is(err, strictjson.ErrDuplicate))
		}
	})
}
