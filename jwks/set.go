package jwks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// Bounds of a set.
const (
	maxBody    = 512 << 10
	maxKeys    = 64
	maxUnnamed = 8 // keys that a token without a kid is tried against
	maxETag    = 256

	defaultLife = 5 * time.Minute
	minLife     = 5 * time.Second
	maxLife     = 24 * time.Hour
)

// keySet is an answer of the publisher. It never changes.
type keySet struct {
	byID    map[string][]auth.Key
	unnamed []auth.Key
	known   map[string]auth.Key // by what the JWK says
	bad     error               // why keys were left out
	etag    string

	life    time.Duration
	refresh time.Time // when Run asks again
	expires time.Time
	gone    time.Time // when it is not used any more, even if there is no other
}

// find returns the keys that id names; a nil set has none.
func (s *keySet) find(id string) []auth.Key {
	switch {
	case s == nil:
		return nil
	case id == "":
		return s.unnamed
	}
	return s.byID[id]
}

// from returns the set as one that was asked for at that time.
func (s *keySet) from(t time.Time, maxStale time.Duration) *keySet {
	dated := *s
	dated.expires = t.Add(s.life)
	dated.gone = dated.expires.Add(maxStale)
	// Processes that were started together need not ask together.
	dated.refresh = t.Add(s.life*3/4 - rand.N(s.life/16))
	return &dated
}

// fetch asks for the set; old is the last one, or nil.
func (k *Keys) fetch(ctx context.Context, old *keySet) (set *keySet, err error) {
	defer func() { // of the application's Transport
		if p := recover(); p != nil {
			err = fmt.Errorf("a panic with a %T", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url.String(), nil)
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	if old != nil {
		// What is asked for is what has changed since; a cache on the way has
		// the same old answer.
		r.Header.Set("Cache-Control", "no-cache")
		if old.etag != "" {
			r.Header.Set("If-None-Match", old.etag)
		}
	}
	resp, err := k.client.Do(r)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // the URL may hold what is nobody's business
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotModified && r.Header.Get("If-None-Match") != "":
		same := *old
		if life, ok := lifetime(resp.Header); ok {
			same.life = life
		}
		return &same, nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxBody:
		return nil, fmt.Errorf("more than %d bytes", maxBody)
	}
	if set, err = parse(body, old); err != nil {
		return nil, err
	}
	if set.etag = resp.Header.Get("ETag"); len(set.etag) > maxETag {
		set.etag = ""
	}
	set.life, _ = lifetime(resp.Header)
	return set, nil
}

// lifetime returns for how long an answer may be kept (RFC 9111 section 4.2),
// and whether it says so.
func lifetime(h http.Header) (life time.Duration, said bool) {
	seconds := uint64(maxLife / time.Second)
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			said, seconds = true, 0
		case "max-age":
			n, _ := strconv.ParseUint(strings.Trim(value, `"`), 10, 63) // the largest if it is too large, 0 if it is no number
			said, seconds = true, min(seconds, n)
		}
	}
	if !said {
		return defaultLife, false
	}
	age, _ := strconv.ParseUint(h.Get("Age"), 10, 63) // what a cache on the way has used up
	return max(minLife, time.Duration(seconds-min(seconds, age))*time.Second), true
}

// parse reads a key set. Keys that say the same as in the old set are the very
// keys of that one, so that tokens which were verified by them need not be
// verified again.
func parse(body []byte, old *keySet) (*keySet, error) {
	members, err := readObject(body)
	if err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(members["keys"], &entries); err != nil || entries == nil {
		return nil, errors.New("not a key set: keys is not an array")
	}
	set := &keySet{byID: map[string][]auth.Key{}, known: map[string]auth.Key{}}
	var bad []error
	for i, entry := range entries {
		key, says, err := readKey(entry)
		if err != nil {
			if len(bad) < maxKeys {
				bad = append(bad, fmt.Errorf("keys[%d]%s: %w", i, kidOf(entry), err))
			}
			continue
		}
		if _, twice := set.known[says]; twice {
			continue
		}
		if old != nil {
			if same, ok := old.known[says]; ok {
				key = same
			}
		}
		if len(set.known) == maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
		set.known[says] = key
		set.unnamed = append(set.unnamed, key)
		set.byID[key.ID()] = append(set.byID[key.ID()], key)
	}
	if len(set.unnamed) > maxUnnamed {
		set.unnamed = nil
	}
	set.bad = errors.Join(bad...)
	return set, nil
}

// What is taken of a key.
var (
	kinds  = []string{"OKP", "EC", "RSA"}
	curves = []string{"Ed25519", "P-256", "P-384", "P-521"}
	algs   = []string{"EdDSA", "Ed25519", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

	public  = []string{"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}
	private = []string{"d", "dp", "dq", "k", "oth", "p", "priv", "q", "qi"}
)

// kidOf returns the kid of a key for an error text, if it has one.
func kidOf(entry []byte) string {
	var kid string
	members, err := readObject(entry)
	if err != nil || json.Unmarshal(members["kid"], &kid) != nil || kid == "" {
		return ""
	}
	return fmt.Sprintf(" (kid %.64q)", kid)
}

// isAbsent reports whether a member is null or empty, as some programs write
// one that they do not have.
func isAbsent(name string, value json.RawMessage) bool {
	var v any
	if json.Unmarshal(value, &v) != nil {
		return false
	}
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == "" && name != "kid"
	case []any:
		return len(v) == 0
	}
	return false
}

// readKey reads a key of a set, and returns what the JWK says of it.
func readKey(entry []byte) (key auth.Key, says string, err error) {
	members, err := readObject(entry)
	if err != nil {
		return auth.Key{}, "", err
	}
	maps.DeleteFunc(members, isAbsent)
	for _, name := range private {
		if _, ok := members[name]; ok {
			return auth.Key{}, "", errors.New("it is published with its secret half; withdraw it")
		}
	}
	for _, only := range []struct {
		name   string
		values []string
	}{{"kty", kinds}, {"use", []string{"sig"}}, {"alg", algs}, {"crv", curves}} {
		var value string
		if raw, ok := members[only.name]; ok && json.Unmarshal(raw, &value) == nil && !slices.Contains(only.values, value) {
			return auth.Key{}, "", fmt.Errorf("its %s is %.32q; expected %s", only.name, value, strings.Join(only.values, ", "))
		}
	}
	if raw, ok := members["key_ops"]; ok {
		var ops []string
		if json.Unmarshal(raw, &ops) != nil {
			return auth.Key{}, "", errors.New("key_ops is not an array of strings")
		}
		if !slices.Contains(ops, "verify") {
			return auth.Key{}, "", errors.New("its key_ops do not have verify")
		}
	}
	// The members that count, in one order; others are ignored (RFC 7517
	// section 4).
	var b bytes.Buffer
	for _, name := range public {
		if raw, ok := members[name]; ok {
			fmt.Fprintf(&b, `,"%s":%s`, name, raw)
		}
	}
	if b.Len() == 0 {
		return auth.Key{}, "", errors.New("not a key")
	}
	b.WriteByte('}')
	b.Bytes()[0] = '{'
	key, err = auth.ParseJWK(b.Bytes())
	return key, b.String(), err
}

// readObject returns the members of the one JSON object that b consists of.
// Names are exact, which encoding/json is not by itself, and unique.
func readObject(b []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(b) {
		return nil, errors.New("not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("not JSON")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("not JSON")
		}
		if _, twice := members[name.(string)]; twice {
			return nil, errors.New("a member is there twice")
		}
		members[name.(string)] = value
	}
	return members, nil
}
