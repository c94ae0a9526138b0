package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth/internal/keycheck"
)

// KeySource finds the keys that may have signed a token. It is called
// concurrently, and for every token, cached or not.
type KeySource interface {
	// VerifyKeys returns the keys with this ID, or, if id is empty, the keys
	// that may have signed a token without a kid. An empty list means that
	// there is no such key: the token is refused. An error means that it is
	// unknown whether there is one: the response is 503.
	VerifyKeys(ctx context.Context, id string) ([]Key, error)
}

// Keys is a list of keys. If it is used for signing, the first key that can
// sign does; see also [Key.SignFrom]. All of its keys verify. It implements
// [KeySource].
type Keys []Key

// VerifyKeys implements [KeySource].
func (ks Keys) VerifyKeys(_ context.Context, id string) ([]Key, error) {
	if id == "" {
		return ks, nil
	}
	for i := range ks {
		if ks[i].ID() == id {
			return ks[i : i+1 : i+1], nil
		}
	}
	return nil, nil
}

// check returns every mistake in ks, joined. Each names the field and the index.
func (ks Keys) check(field string) error {
	var errs []error
	for i, k := range ks {
		switch {
		case k.key == nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Key; create it with HS256, EdDSA or a similar function", field, i))
			continue
		case k.err != nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] (%s): %w", field, i, k.alg, detail{k.err}))
			continue
		}
		for j, other := range ks[:i] {
			switch {
			case other.key == nil:
			case other.ID() == k.ID():
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] have the same ID", field, j, field, i))
			case other.sameSecret(k):
				// A key is for one algorithm (RFC 8725 section 3.1).
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] have the same secret", field, j, field, i))
			case other.isPublished(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, j, field, i, keycheck.HowToCreate))
			case k.isPublished(other):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, i, field, j, keycheck.HowToCreate))
			case other.alg != k.alg && other.samePublic(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are the same key with different algorithms", field, j, field, i))
			}
		}
	}
	return errors.Join(errs...)
}

// derivedKeys derives an access key and a refresh key from each secret. The two
// differ, so that neither can be used in place of the other.
func derivedKeys(secrets [][]byte) (access, refresh Keys, err error) {
	for _, secret := range secrets {
		for label, to := range map[string]*Keys{"access": &access, "refresh": &refresh} {
			k, err := deriveKey(secret, label)
			if err != nil {
				return nil, nil, err
			}
			*to = append(*to, k)
		}
	}
	return access, refresh, nil
}

// oneTimeKeys derives the keys of one-time tokens, one from each refresh key,
// which signs from the same time on. So they change together.
func oneTimeKeys(refresh Keys) (oneTime Keys, err error) {
	for _, r := range refresh {
		k, err := deriveKey(r.secret(), "one-time")
		if err != nil {
			return nil, err
		}
		oneTime = append(oneTime, k.SignFrom(r.from))
	}
	return oneTime, nil
}

// deriveKey derives a key from a secret (HKDF, RFC 5869).
func deriveKey(secret []byte, label string) (Key, error) {
	k, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 "+label, sha256.Size)
	if err != nil {
		return Key{}, fmt.Errorf("auth: deriving keys: %w", err)
	}
	return HS256(k), nil
}

// keyRing is a checked list of keys that is in use.
type keyRing struct {
	keys    Keys
	headers []string    // for each key, the header segment of the tokens that it signs
	until   []time.Time // for each key, when it expires; the zero Time if never
	clock   func() time.Time
}

// newKeyRing returns a keyRing for tokens of a typ. A key stops signing when a
// key before it in the list takes over. If that time is known, the key expires
// lifetime later, when its last token has expired. If lifetime is 0, keys do
// not expire.
func newKeyRing(keys Keys, typ string, lifetime time.Duration, clock func() time.Time) *keyRing {
	ring := &keyRing{keys: slices.Clone(keys), clock: clock}
	for i, k := range ring.keys {
		ring.headers = append(ring.headers, headerSegment(k, typ))
		var stops time.Time
		for _, before := range ring.keys[:i] {
			if !before.signs() {
				continue
			}
			if before.from.IsZero() { // it is unknown since when it signs
				stops = time.Time{}
				break
			}
			if stops.IsZero() || before.from.Before(stops) {
				stops = before.from
			}
		}
		if lifetime == 0 {
			stops = time.Time{}
		} else if !stops.IsZero() {
			stops = stops.Add(lifetime)
		}
		ring.until = append(ring.until, stops)
	}
	return ring
}

// expired reports whether the key with this index has expired.
func (ring *keyRing) expired(i int) bool {
	return !ring.until[i].IsZero() && !ring.clock().Before(ring.until[i])
}

// usable returns the keys that have not expired.
func (ring *keyRing) usable() Keys {
	var left Keys
	for i, k := range ring.keys {
		if !ring.expired(i) {
			left = append(left, k)
		}
	}
	return left
}

// VerifyKeys implements [KeySource].
func (ring *keyRing) VerifyKeys(_ context.Context, id string) ([]Key, error) {
	if id == "" {
		return ring.usable(), nil
	}
	for i := range ring.keys {
		if ring.keys[i].ID() == id && !ring.expired(i) {
			return ring.keys[i : i+1 : i+1], nil
		}
	}
	return nil, nil
}

// signer returns the index of the key that signs now: the first one that may
// sign at that time, or else the one that may sign next.
func (ring *keyRing) signer(now time.Time) int {
	soonest := -1
	for i, k := range ring.keys {
		switch {
		case !k.signs():
		case !k.from.After(now):
			return i
		case soonest < 0 || k.from.Before(ring.keys[soonest].from):
			soonest = i
		}
	}
	return soonest // it signs too early, because otherwise none would sign
}

// activeKeys is a KeySource whose keyRing can be replaced while it is in use.
type activeKeys struct{ ring atomic.Pointer[keyRing] }

// VerifyKeys implements [KeySource].
func (l *activeKeys) VerifyKeys(ctx context.Context, id string) ([]Key, error) {
	return l.ring.Load().VerifyKeys(ctx, id)
}

// SetKeys replaces the keys. It is safe to call while the Authenticator is in
// use. A nil list leaves the keys of that kind unchanged. The first key of each
// list signs, and all of its keys verify. The tokens of a key that is no
// longer in the list are refused at once.
//
// If there are several processes, each of them must know a key before any of
// them signs with it. A process that does not know the key refuses its tokens.
// So change keys in two steps: first {current, next} in every process, then
// {next, current} in every process. Or give every process the same time with
// [Key.SignFrom].
//
// Suppose that the new list is {next, current}. If next is an HMAC key, it
// signs at once. If next is a key pair, its public key is published at once,
// and it signs Config.JWKSMaxAge plus Leeway later, when every cached response
// of [Authenticator.JWKSHandler] has expired. From then on current only
// verifies, and it is removed when the last token that it signed has expired.
// [Key.SignFrom] sets another time. Use the same time in every process and
// after a restart.
func (a *Authenticator) SetKeys(access, refresh Keys) error {
	a.keysMu.Lock()
	defer a.keysMu.Unlock()
	oldAccess, oldRefresh := a.accessKeys.ring.Load(), a.refreshKeys.ring.Load()
	keepAccess := access == nil
	if keepAccess {
		access = oldAccess.keys
	}
	if refresh == nil {
		refresh = oldRefresh.keys
	}
	if err := checkKeys("SetKeys: ", "", access, refresh); err != nil {
		return err
	}
	if err := a.checkRefreshSize(refresh); err != nil {
		return err
	}
	oneTime, err := oneTimeKeys(refresh)
	if err != nil {
		return err
	}
	if !keepAccess {
		staged, err := a.mergeKeys(access, oldAccess)
		if err != nil {
			return err
		}
		a.accessKeys.ring.Store(a.newAccessRing(staged))
	}
	a.setRefreshKeys(refresh, oneTime)
	return nil
}

// setRefreshKeys sets the keys of refresh tokens, and the keys of one-time tokens
// that are derived from them.
func (a *Authenticator) setRefreshKeys(refresh, oneTime Keys) {
	a.refreshKeys.ring.Store(newKeyRing(refresh, typRefresh, a.sessionTTL+2*a.leeway, a.now))
	a.oneTimeKeys.ring.Store(newKeyRing(oneTime, typOneTime, maxOnceTTL+time.Second+2*a.leeway, a.now))
}

// indexOf returns the index of the same key with the same ID, or -1. It does not
// find a key that has expired.
func (ring *keyRing) indexOf(k Key) int {
	for i, o := range ring.keys {
		if o.ID() == k.ID() && o.alg == k.alg && (o.samePublic(k) || o.sameSecret(k)) && !ring.expired(i) {
			return i
		}
	}
	return -1
}

// mergeKeys returns keys, each with the time from which it signs. A key that is
// in old keeps its time, unless it has a new one. A new key of a key pair signs
// when every cached key set has expired.
func (a *Authenticator) mergeKeys(keys Keys, old *keyRing) (Keys, error) {
	now := a.now()
	keys = slices.Clone(keys)
	signs := false
	for i, k := range keys {
		known := old.indexOf(k)
		switch {
		case known >= 0 && k.from.IsZero():
			keys[i] = k.SignFrom(old.keys[known].from)
		case known >= 0 || k.from.After(now):
		case !k.from.IsZero():
			keys[i] = k.SignFrom(now) // it cannot have signed before it was added
		case k.public != nil:
			keys[i] = k.SignFrom(now.Add(a.jwksMaxAge + a.leeway))
		}
		signs = signs || k.signs() && !keys[i].from.After(now)
	}
	if !signs {
		return nil, errors.New("auth: SetKeys: no access key may sign yet; keep the current key in the list, after the next one")
	}
	return keys, nil
}

// newAccessRing returns a keyRing in which a key expires when the last access
// token that it signed has expired on every clock.
func (a *Authenticator) newAccessRing(keys Keys) *keyRing {
	return newKeyRing(keys, typAccess, a.accessTTL+2*a.leeway, a.now)
}

// checkKeys returns every mistake in the two lists, joined. The names of the
// lists begin with prefix. The text empty is appended to the error for an
// empty list.
func checkKeys(prefix, empty string, access, refresh Keys) error {
	var errs []error
	for _, kind := range []struct {
		field string
		keys  Keys
	}{{prefix + "AccessKeys", access}, {prefix + "RefreshKeys", refresh}} {
		if len(kind.keys) == 0 {
			errs = append(errs, fmt.Errorf("auth: %s is empty%s", kind.field, empty))
			continue
		}
		if err := kind.keys.check(kind.field); err != nil {
			errs = append(errs, err)
		} else if !slices.ContainsFunc(kind.keys, func(k Key) bool { return k.signs() }) {
			errs = append(errs, fmt.Errorf("auth: %s has no key that signs; add a private key or a secret", kind.field))
		}
	}
	for j, r := range refresh {
		if r.key != nil && r.err == nil && r.secret == nil {
			errs = append(errs, fmt.Errorf("auth: %sRefreshKeys[%d] (%s) must be an HMAC key, because only this service verifies refresh tokens", prefix, j, r.alg))
		}
		for i, k := range access {
			switch {
			case k.sameSecret(r):
				errs = append(errs, fmt.Errorf("auth: %sAccessKeys[%d] and %sRefreshKeys[%d] have the same secret", prefix, i, prefix, j))
			case r.isPublished(k):
				errs = append(errs, fmt.Errorf("auth: %sRefreshKeys[%d]: the secret is the public key of %sAccessKeys[%d]%s", prefix, j, prefix, i, keycheck.HowToCreate))
			}
		}
	}
	return errors.Join(errs...)
}
