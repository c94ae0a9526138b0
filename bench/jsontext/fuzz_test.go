// Package jsontext compares internal/strictjson with the package jsontext of
// go-json-experiment. It is a part of module bench because no other module may
// require that package.
package jsontext

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/ratchet-go/auth/internal/strictjson"
	"github.com/stretchr/testify/require"
)

// limit is a number of members that texts of the fuzzer exceed at times.
const limit = 16

// member is a member of an object, with its value as JSON.
type member struct{ name, value string }

// readStrict returns the members that strictjson reads.
func readStrict(text string) (members []member, err error) {
	err = strictjson.Object(text, limit, func(name, value string) error {
		members = append(members, member{name, value})
		return nil
	})
	return members, err
}

// readJSONText returns the members that jsontext reads.
func readJSONText(text string, options ...jsontext.Options) (members []member, err error) {
	d := jsontext.NewDecoder(strings.NewReader(text), options...)
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if token.Kind() != '{' {
		return nil, errors.New("not an object")
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		m := member{name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		m.value = string(value)
		members = append(members, m)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.Join(errors.New("data after the object"), err)
	}
	return members, nil
}

// checkObject fails unless jsontext accepts text, and reads the same members, if
// strictjson accepts it. It reports whether strictjson accepts it.
func checkObject(t *testing.T, text string) bool {
	t.Helper()
	members, err := readStrict(text)
	if err == nil {
		got, err := readJSONText(text, lenient(text)...)
		require.NoError(t, err, "%q", text)
		require.Equal(t, got, members, "%q", text)
		for _, m := range members {
			checkValue(t, m.value)
		}
	}
	outer, errMembers := strictjson.Members(text)
	if errMembers == nil && utf8.ValidString(text) && strictjson.ValidStrings(text) {
		got, err := readJSONText(text, jsontext.AllowDuplicateNames(true))
		require.NoError(t, err, "%q", text)
		require.Len(t, got, len(outer), "%q", text)
		for _, m := range got {
			require.Contains(t, outer, m.name, "%q", text)
			require.Equal(t, m.value, outer[m.name], "%q", text)
		}
	}
	if err == nil {
		require.NoError(t, errMembers, "%q", text)
	}
	return err == nil
}

// lenient returns the options to read text, which strictjson accepts. A value
// may have escapes of single surrogates, which strictjson refuses only when it
// reads the string; jsontext refuses the whole text by default.
func lenient(text string) []jsontext.Options {
	if strictjson.ValidStrings(text) {
		return nil
	}
	return []jsontext.Options{jsontext.AllowInvalidUTF8(true)}
}

// checkValue fails unless jsontext reads a value of an object, which strictjson
// accepts, as the functions of strictjson do.
func checkValue(t *testing.T, value string) {
	t.Helper()
	d := jsontext.NewDecoder(strings.NewReader(value))
	if s, ok := strictjson.String(value); ok {
		token, err := d.ReadToken()
		require.NoError(t, err, "%q", value)
		require.Equal(t, jsontext.Kind('"'), token.Kind(), "%q", value)
		require.Equal(t, token.String(), s, "%q", value)
		return
	}
	if n, ok := strictjson.Int(value); ok {
		token, err := d.ReadToken()
		require.NoError(t, err, "%q", value)
		require.Equal(t, jsontext.Kind('0'), token.Kind(), "%q", value)
		want, err := token.Int()
		require.NoError(t, err, "%q", value)
		require.Equal(t, want, n, "%q", value)
		return
	}
	if list, ok := strictjson.Strings(nil, value); ok {
		token, err := d.ReadToken()
		require.NoError(t, err, "%q", value)
		require.Equal(t, jsontext.Kind('['), token.Kind(), "%q", value)
		var want []string
		for d.PeekKind() != ']' {
			token, err := d.ReadToken()
			require.NoError(t, err, "%q", value)
			require.Equal(t, jsontext.Kind('"'), token.Kind(), "%q", value)
			want = append(want, token.String())
		}
		require.Equal(t, want, list, "%q", value)
		return
	}
	if value[0] == '{' {
		require.True(t, checkObject(t, value), "%q is a part of an object that strictjson accepts", value)
	}
}

// FuzzObject checks that jsontext accepts every text that strictjson accepts,
// and reads the same names, strings and numbers.
func FuzzObject(f *testing.F) {
	for _, text := range append(accepted, refused...) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkObject(t, string(text)) })
}

var (
	accepted = []string{
		`{}`, " {\t}\r\n", `{"a":1}`, `{"sub":"user-1","aud":["a","b"],"exp":1764000000,"roles":[]}`,
		`{"a":[1,-0.5e+3,"x\n\u00e9\ud83d\ude00",true,false,null,{},[]]}`, `{"a":{"b":{"c":[[[]]]}}}`, `{"\u0061":1,"b":2}`,
		`{"n":0,"m":-0,"x":1e400,"y":999999999999999999,"z":1000000000000000000}`, `{"l":["a","\u0062","\"\\\/\b\f\n\r\t"]}`, "{\"é\":\"\u2028\ufffd\"}",
		`{"a":"\ud800"}`, `{"a":["\ude00\ud83d"]}`, `{"a":"\ufffd"}`,
	}
	refused = []string{
		``, `[]`, `{"a":1}{}`, `{"a":1,"a":2}`, `{"a":{"b":1,"\u0062":2}}`, `{"\ud800":1}`,
		`{"a":01}`, `{"a":1.}`, `{"a":+1}`, `{"a":1,}`, `{"a":[1,]}`, `{"a":"\x"}`,
		`{"a"`, `{"a":tru}`, `{'a':1}`, "\uFEFF{}", "{}\x00", "{\"a\":\"\xff\"}", "{\"a\":\"\n\"}", strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
	}
)

func TestObject_SeedsAreAcceptedOrRefused(t *testing.T) {
	t.Parallel()
	for _, text := range accepted {
		require.True(t, checkObject(t, text), "%q", text)
	}
	for _, text := range refused {
		require.False(t, checkObject(t, text), "%q", text)
	}
}

// FuzzWriter checks that jsontext accepts every object that a Writer writes, and
// reads the same values.
func FuzzWriter(f *testing.F) {
	f.Add("a", "b", int64(1))
	f.Add("\"\\\x00\x7f", "é\u2028\U0001F600<&>", int64(-1<<63))
	f.Add("", "\ufffd", int64(1<<63-1))
	f.Fuzz(func(t *testing.T, one, two string, n int64) {
		if !utf8.ValidString(one) || !utf8.ValidString(two) {
			t.Skip("a Writer requires valid UTF-8")
		}
		w := strictjson.NewWriter(nil)
		w.String("text", one)
		w.Strings("list", []string{one, two})
		w.Strings("empty", nil)
		w.Int("number", n)
		text := w.Close()

		d := jsontext.NewDecoder(bytes.NewReader(text))
		var got []string
		for {
			token, err := d.ReadToken()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, "%q", text)
			got = append(got, token.String())
		}
		want := []string{"{", "text", one, "list", "[", one, two, "]", "empty", "[", "]", "number", strconv.FormatInt(n, 10), "}"}
		require.Equal(t, want, got, "%q", text)
	})
}
