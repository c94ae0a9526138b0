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
	"github.com/ratchet-go/auth/internal/strictjson"
)

// Bounds of a key set.
const (
	maxBody    = 512 << 10
	maxKeys    = 64
	maxUnnamed = 8 // largest set whose keys are tried for a token without a kid
	maxETag    = 256

	defaultLifetime = 5 * time.Minute
	minLifetime     = 5 * time.Second
	maxLifetime     = 24 * time.Hour
)

// snapshot is a key set that was fetched. It is immutable.
type snapshot struct {
	byID    map[string][]auth.Key
	unnamed []auth.Key
	byText  map[string]auth.Key // by the canonical text of the JWK, see readKey
	problem error               // that there are no keys, or the keys that were skipped, each with the reason
	etag    string

	lifetime   time.Duration
	refresh    time.Time // when Run fetches the set again
	expires    time.Time // end of the lifetime
	staleUntil time.Time // end of its use while fetches fail
}

// find returns the keys with an id; with an empty id, the keys to try for a token
// without a kid. A nil snapshot has no keys.
func (s *snapshot) find(id string) []auth.Key {
	switch {
	case s == nil:
		return nil
	case id == "":
		return s.unnamed
	}
	return s.byID[id]
}

// fetchedAt returns a copy of s with the times of a fetch that began at t.
func (s *snapshot) fetchedAt(t time.Time, maxStale time.Duration) *snapshot {
	dated := *s
	dated.expires = t.Add(s.lifetime)
	dated.staleUntil = dated.expires.Add(maxStale)
	// A random part keeps processes that started together from fetching together.
	dated.refresh = t.Add(s.lifetime*3/4 - rand.N(s.lifetime/16))
	return &dated
}

// get fetches the set. old is the last one, or nil.
func (k *KeySet) get(ctx context.Context, old *snapshot) (set *snapshot, err error) {
	defer func() { // the application's Transport may panic
		if p := recover(); p != nil {
			err = fmt.Errorf("panic with a %T", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url.String(), nil)
	if err != nil {
		return nil, errors.New("invalid URL")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	if old != nil {
		// A shared cache may have the same old set: ask it to revalidate.
		r.Header.Set("Cache-Control", "no-cache")
		if old.etag != "" {
			r.Header.Set("If-None-Match", old.etag)
		}
	}
	resp, err := k.client.Do(r)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // the URL may contain a secret
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotModified && r.Header.Get("If-None-Match") != "":
		same := *old
		if d, ok := lifetime(resp.Header); ok {
			same.lifetime = d
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
	set.lifetime, _ = lifetime(resp.Header)
	return set, nil
}

// lifetime returns the freshness lifetime of a response (RFC 9111 section 4.2),
// and whether the response gives one.
func lifetime(h http.Header) (d time.Duration, given bool) {
	seconds := uint64(maxLifetime / time.Second)
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			given, seconds = true, 0
		case "max-age":
			n, _ := strconv.ParseUint(strings.Trim(value, `"`), 10, 63) // the largest number on overflow, 0 on a syntax error
			given, seconds = true, min(seconds, n)
		}
	}
	if !given {
		return defaultLifetime, false
	}
	age, _ := strconv.ParseUint(h.Get("Age"), 10, 63) // time in caches
	return max(minLifetime, time.Duration(seconds-min(seconds, age))*time.Second), true
}

// parse reads a key set. It reuses the keys of the old set that have not changed,
// because the token cache of an auth.Verifier compares keys by identity.
func parse(body []byte, old *snapshot) (*snapshot, error) {
	members, err := strictjson.Members(string(body))
	if err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal([]byte(members["keys"]), &entries); err != nil || entries == nil {
		return nil, errors.New("not a key set: keys is not an array")
	}
	set := &snapshot{byID: map[string][]auth.Key{}, byText: map[string]auth.Key{}}
	var skipped []error
	for i, entry := range entries {
		key, text, err := readKey(entry)
		if err != nil {
			if len(skipped) < maxKeys {
				skipped = append(skipped, fmt.Errorf("keys[%d]%s: %w", i, kidOf(entry), err))
			}
			continue
		}
		if _, duplicate := set.byText[text]; duplicate {
			continue
		}
		if old != nil {
			if same, ok := old.byText[text]; ok {
				key = same
			}
		}
		if len(set.byText) == maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
		set.byText[text] = key
		set.unnamed = append(set.unnamed, key)
		set.byID[key.ID()] = append(set.byID[key.ID()], key)
	}
	if len(set.unnamed) > maxUnnamed {
		set.unnamed = nil
	}
	switch {
	case len(entries) == 0:
		set.problem = errEmpty
	case len(set.byText) == 0:
		set.problem = fmt.Errorf("no key can be used, so no token verifies: skipped %w", errors.Join(skipped...))
	case len(skipped) > 0:
		set.problem = fmt.Errorf("skipped %w", errors.Join(skipped...))
	}
	return set, nil
}

// errEmpty is the problem of a set without keys. It is not an error of the fetch:
// a publisher may withdraw its last key.
var errEmpty = errors.New("the key set is empty, so no token verifies; if the service that signs has only secrets, set Config.AccessKeys there")

// Accepted values, the members that are read, and the members that a published
// key must not have.
var (
	types  = []string{"OKP", "EC", "RSA"}
	curves = []string{"Ed25519", "P-256", "P-384", "P-521"}
	algs   = []string{"EdDSA", "Ed25519", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

	public  = []string{"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}
	private = []string{"d", "dp", "dq", "k", "oth", "p", "priv", "q", "qi"}
)

// kidOf returns the kid of a key for an error text, or "".
func kidOf(entry []byte) string {
	var kid string
	members, err := strictjson.Members(string(entry))
	if err != nil || json.Unmarshal([]byte(members["kid"]), &kid) != nil || kid == "" {
		return ""
	}
	return fmt.Sprintf(" (kid %.64q)", kid)
}

// isAbsent reports whether a member is null or empty. Some programs write
// absent members that way.
func isAbsent(name string, value string) bool {
	var v any
	if json.Unmarshal([]byte(value), &v) != nil {
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

// readKey reads a key of a set. It also returns the canonical text of the JWK:
// the members that matter, in a fixed order.
func readKey(entry []byte) (key auth.Key, text string, err error) {
	members, err := strictjson.Members(string(entry))
	if err != nil {
		return auth.Key{}, "", err
	}
	maps.DeleteFunc(members, isAbsent)
	for _, name := range private {
		if _, ok := members[name]; ok {
			return auth.Key{}, "", errors.New("published with its private part; withdraw it")
		}
	}
	for _, allowed := range []struct {
		name   string
		values []string
	}{{"kty", types}, {"use", []string{"sig"}}, {"alg", algs}, {"crv", curves}} {
		var value string
		if raw, ok := members[allowed.name]; ok && json.Unmarshal([]byte(raw), &value) == nil && !slices.Contains(allowed.values, value) {
			return auth.Key{}, "", fmt.Errorf("unexpected %s %.32q; expected %s", allowed.name, value, strings.Join(allowed.values, ", "))
		}
	}
	if raw, ok := members["key_ops"]; ok {
		var ops []string
		if json.Unmarshal([]byte(raw), &ops) != nil {
			return auth.Key{}, "", errors.New("key_ops is not an array of strings")
		}
		if !slices.Contains(ops, "verify") {
			return auth.Key{}, "", errors.New("key_ops has no \"verify\"")
		}
	}
	// Other members are ignored (RFC 7517 section 4).
	var b bytes.Buffer
	for _, name := range public {
		if raw, ok := members[name]; ok {
			fmt.Fprintf(&b, `,"%s":%s`, name, raw)
		}
	}
	if b.Len() == 0 {
		return auth.Key{}, "", errors.New("not a JWK: no known member")
	}
	b.WriteByte('}')
	b.Bytes()[0] = '{'
	key, err = auth.ParseJWK(b.Bytes())
	return key, b.String(), err
}
