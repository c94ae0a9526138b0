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
// concurrently, and for every token.
type KeySource interface {
	// VerifyKeys returns the keys that id names; with an empty id, those that
	// a token without a kid may have been signed by. An empty list means that
	// there is no such key, and the token is refused. An error means that it
	// is not known, and is answered by 503.
	VerifyKeys(ctx context.Context, id string) ([]Key, error)
}

// Keys is a list of keys, and a [KeySource]. Where it signs, the first key
// does; all of them verify.
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

// check returns what is wrong with the keys, each mistake naming its place.
func (ks Keys) check(field string) error {
	var errs []error
	for i, k := range ks {
		switch {
		case k.key == nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Key", field, i))
			continue
		case k.err != nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] (%s): %w", field, i, k.alg, k.err))
			continue
		}
		for j, other := range ks[:i] {
			switch {
			case other.key == nil:
			case other.ID() == k.ID():
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] have the same ID", field, j, field, i))
			case other.sameSecret(k):
				// A key is for one algorithm (RFC 8725 section 3.1).
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are of the same secret", field, j, field, i))
			case other.isPublished(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, j, field, i, keycheck.HowToCreate))
			case k.isPublished(other):
				errs = append(errs, fmt.Errorf("auth: %s[%d]: the secret is the public key of %s[%d]%s", field, i, field, j, keycheck.HowToCreate))
			case other.alg != k.alg && other.samePublic(k):
				errs = append(errs, fmt.Errorf("auth: %s[%d] and %s[%d] are one key for two algorithms", field, j, field, i))
			}
		}
	}
	return errors.Join(errs...)
}

// derivedKeys makes both kinds of keys of one secret (RFC 5869), so that
// neither can stand in for the other.
func derivedKeys(secrets [][]byte) (access, refresh Keys, err error) {
	for _, secret := range secrets {
		for label, to := range map[string]*Keys{"access": &access, "refresh": &refresh} {
			k, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 "+label, sha256.Size)
			if err != nil {
				return nil, nil, fmt.Errorf("auth: deriving keys: %w", err)
			}
			*to = append(*to, HS256(k))
		}
	}
	return access, refresh, nil
}

// keyRing is a checked list of keys at work.
type keyRing struct {
	keys    Keys
	headers []string    // what a token of each key begins with
	until   []time.Time // when each is gone; the zero Time if it stays
	clock   func() time.Time
}

// newKeyRing plans the life of the keys. One that another takes over from at a
// known time is gone when the last token that it signed has expired, which is
// life later; with a life of 0 all of them stay.
func newKeyRing(keys Keys, typ string, life time.Duration, clock func() time.Time) *keyRing {
	ring := &keyRing{keys: slices.Clone(keys), clock: clock}
	for i, k := range ring.keys {
		ring.headers = append(ring.headers, headerSegment(k, typ))
		var stops time.Time
		for _, before := range ring.keys[:i] {
			if !before.signs() {
				continue
			}
			if before.from.IsZero() { // who knows since when
				stops = time.Time{}
				break
			}
			if stops.IsZero() || before.from.Before(stops) {
				stops = before.from
			}
		}
		if life == 0 {
			stops = time.Time{}
		} else if !stops.IsZero() {
			stops = stops.Add(life)
		}
		ring.until = append(ring.until, stops)
	}
	return ring
}

func (ring *keyRing) expired(i int) bool {
	return !ring.until[i].IsZero() && !ring.clock().Before(ring.until[i])
}

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

// signer returns which key signs now: the first whose time has come.
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
	return soonest // none has come yet: better early than not at all
}

// activeKeys is a keyRing that is replaced while it is used.
type activeKeys struct{ ring atomic.Pointer[keyRing] }

// VerifyKeys implements [KeySource].
func (l *activeKeys) VerifyKeys(ctx context.Context, id string) ([]Key, error) {
	return l.ring.Load().VerifyKeys(ctx, id)
}

// SetKeys replaces the keys while tokens are made and verified with them; nil
// leaves a kind as it is. The first of each list signs, all verify, and a key
// that is in neither list any more is refused at once, with all its tokens.
//
// With several processes, each of them must know a key before any signs with
// it, or refuses what it has signed. So change keys in two steps, {current, next}
// in every process and then {next, current} in every process, or give all of
// them the same time by [Key.SignFrom].
//
// Put the next key before the current one. A secret then signs at once. A
// public key, which services elsewhere must have fetched first, is published
// now and signs when every cache of [Authenticator.JWKSHandler]'s answer has
// run out (Config.JWKSMaxAge and Leeway from now); the key behind it only
// verifies from then on, and is gone by itself when the last token that it
// signed has expired. [Key.SignFrom] sets another time, which several
// processes should agree on, and which a restart should be given again.
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
	if !keepAccess {
		staged, err := a.mergeKeys(access, oldAccess)
		if err != nil {
			return err
		}
		a.accessKeys.ring.Store(a.newAccessRing(staged))
	}
	a.refreshKeys.ring.Store(newKeyRing(refresh, typRefresh, a.sessionTTL+2*a.leeway, a.now))
	return nil
}

// find returns where the very key is, published under its ID, or -1. Another
// key under the same ID is another, and so is one that was gone.
func (ring *keyRing) find(k Key) int {
	for i, o := range ring.keys {
		if o.ID() == k.ID() && o.alg == k.alg && (o.samePublic(k) || o.sameSecret(k)) && !ring.expired(i) {
			return i
		}
	}
	return -1
}

// mergeKeys gives public keys that are new the time from which they sign.
func (a *Authenticator) mergeKeys(keys Keys, old *keyRing) (Keys, error) {
	now := a.now()
	keys = slices.Clone(keys)
	signs := false
	for i, k := range keys {
		known := old.find(k)
		switch {
		case known >= 0 && k.from.IsZero():
			keys[i] = k.SignFrom(old.keys[known].from)
		case known >= 0 || k.from.After(now):
		case !k.from.IsZero():
			keys[i] = k.SignFrom(now) // it cannot have signed before it was here
		case k.public != nil:
			keys[i] = k.SignFrom(now.Add(a.jwksMaxAge + a.leeway))
		}
		signs = signs || k.signs() && !keys[i].from.After(now)
	}
	if !signs {
		return nil, errors.New("auth: SetKeys: no access key may sign yet; leave the current one behind the next")
	}
	return keys, nil
}

// newAccessRing lets a key live on for as long as a token that it signed may.
func (a *Authenticator) newAccessRing(keys Keys) *keyRing {
	return newKeyRing(keys, typAccess, a.accessTTL+2*a.leeway, a.now)
}

// checkKeys checks both lists; prefix stands before their names, and empty
// behind what is said of an empty one.
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
			errs = append(errs, fmt.Errorf("auth: %s has no key that signs", kind.field))
		}
	}
	for j, r := range refresh {
		if r.key != nil && r.err == nil && r.secret == nil {
			errs = append(errs, fmt.Errorf("auth: %sRefreshKeys[%d] (%s): refresh tokens stay with this service, and are signed by HMAC alone", prefix, j, r.alg))
		}
		for i, k := range access {
			switch {
			case k.sameSecret(r):
				errs = append(errs, fmt.Errorf("auth: %sAccessKeys[%d] and %sRefreshKeys[%d] are of the same secret", prefix, i, prefix, j))
			case r.isPublished(k):
				errs = append(errs, fmt.Errorf("auth: %sRefreshKeys[%d]: the secret is the public key of %sAccessKeys[%d]%s", prefix, j, prefix, i, keycheck.HowToCreate))
			}
		}
	}
	return errors.Join(errs...)
}
