package secrets

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// place is a kind of place in which a secret could be.
type place string

const (
	inLog    place = "log"
	inEvent  place = "event"
	inError  place = "error"
	inValue  place = "printed value"
	inHeader place = "header"
	inBody   place = "body"
	inStore  place = "store"
	inBucket place = "bucket"
)

// text is something that was captured.
type text struct {
	place place
	what  string // names the text, and is no part of it
	text  string
}

// minNeedle is the least length of a text to search for. Shorter ones occur by
// chance.
const minNeedle = 8

// secret is a secret in all the forms in which a text could have it.
type secret struct {
	name    string
	allowed []place
	forms   []string
}

// registry has all secrets that were used. It is safe for concurrent use.
type registry struct {
	mu      sync.Mutex
	secrets []secret
	known   map[string]bool
}

// add registers a secret. allowed are the places where it may be.
func (r *registry) add(t testing.TB, name string, value []byte, allowed ...place) {
	t.Helper()
	require.GreaterOrEqual(t, len(value), minNeedle, "%s is too short to search for", name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]bool{}
	}
	if r.known[string(value)] {
		return
	}
	r.known[string(value)] = true
	r.secrets = append(r.secrets, secret{name, allowed, forms(value)})
}

// addToken registers a token, its payload and its signature.
func (r *registry) addToken(t testing.TB, name, token string) {
	t.Helper()
	r.add(t, name, []byte(token))
	segments := strings.Split(token, ".")
	require.Len(t, segments, 3, "%s is no token", name)
	r.add(t, "the payload of "+name, []byte(segments[1]))
	r.add(t, "the signature of "+name, []byte(segments[2]))
	mac, err := base64.RawURLEncoding.DecodeString(segments[2])
	require.NoError(t, err)
	r.add(t, "the decoded signature of "+name, mac)
}

// addHash registers a password hash, its salt and its tag.
func (r *registry) addHash(t testing.TB, name, hash string) {
	t.Helper()
	r.add(t, name, []byte(hash))
	parts := strings.Split(hash, "$")
	encoding, salt, tag := base64.RawStdEncoding, parts[len(parts)-2], parts[len(parts)-1]
	if strings.HasPrefix(hash, "$2") {
		encoding = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)
		salt, tag = tag[:22], tag[22:]
	}
	for part, encoded := range map[string]string{"salt": salt, "tag": tag} {
		r.add(t, "the "+part+" of "+name, []byte(encoded))
		decoded, err := encoding.DecodeString(encoded)
		require.NoError(t, err)
		r.add(t, "the decoded "+part+" of "+name, decoded)
	}
}

// addKey registers 32 bytes of a key, and their base64url.
func (r *registry) addKey(t testing.TB, name, key string) {
	t.Helper()
	r.add(t, name, []byte(key))
	decoded, err := base64.RawURLEncoding.DecodeString(key)
	require.NoError(t, err)
	r.add(t, "the bytes of "+name, decoded)
}

// forms returns the forms in which a text could have a value.
func forms(value []byte) []string {
	s := string(value)
	asJSON, _ := json.Marshal(s) // a string has no error
	inJSON := strings.Trim(string(asJSON), `"`)
	asJSON, _ = json.Marshal(inJSON)
	percent := ""
	for _, b := range value {
		percent += fmt.Sprintf("%%%02X", b)
	}
	list := []string{
		s, strings.ToLower(s), inJSON, strings.Trim(string(asJSON), `"`), strings.Trim(strconv.Quote(s), `"`), strings.Trim(strconv.QuoteToASCII(s), `"`),
		html.EscapeString(s), url.QueryEscape(s), url.PathEscape(s), percent, strings.ToLower(percent),
		hex.EncodeToString(value), strings.ToUpper(hex.EncodeToString(value)), fmt.Sprintf("% x", value), fmt.Sprintf("% X", value),
		strings.Trim(fmt.Sprint(value), "[]"), strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", value), "[]byte{"), "}"),
		strings.Join(strings.Fields(strings.Trim(fmt.Sprint(value), "[]")), ","),
	}
	// In base64, the value may begin at any of three offsets.
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			encoded := encoding.EncodeToString(append(make([]byte, offset), value...))
			cut := []int{0, 2, 3}[offset] // characters that depend on what is before
			if rest := (offset + len(value)) % 3; rest != 0 {
				encoded = encoded[:len(encoded)-1] // it depends on what is after
			}
			list = append(list, encoded[cut:])
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return slices.DeleteFunc(list, func(form string) bool { return len(form) < minNeedle })
}

// search returns what was found, as sentences without the secrets.
func (r *registry) search(texts []text) (found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	type needle struct {
		of   int
		form string
	}
	byStart := map[[minNeedle]byte][]needle{} // texts are long, and the needles are many
	for i, s := range r.secrets {
		for _, form := range s.forms {
			start := [minNeedle]byte([]byte(form[:minNeedle]))
			byStart[start] = append(byStart[start], needle{i, form})
		}
	}
	var first [1 << 16]bool // whether a needle begins with two bytes
	for start := range byStart {
		first[int(start[0])<<8|int(start[1])] = true
	}
	seen := map[string]bool{}
	for _, t := range texts {
		for i := 0; i+minNeedle <= len(t.text); i++ {
			if !first[int(t.text[i])<<8|int(t.text[i+1])] {
				continue
			}
			for _, n := range byStart[[minNeedle]byte([]byte(t.text[i:i+minNeedle]))] {
				s := r.secrets[n.of]
				if strings.HasPrefix(t.text[i:], n.form) && !slices.Contains(s.allowed, t.place) {
					seen[fmt.Sprintf("%s is in a %s: %s", s.name, t.place, t.what)] = true
				}
			}
		}
	}
	for sentence := range seen {
		found = append(found, sentence)
	}
	slices.Sort(found)
	return found
}
