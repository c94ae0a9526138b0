package auth

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of what is remembered.
const (
	defaultTokenCacheSize = 1 << 16
	maxTokenCacheSize     = 1 << 20
	cacheBytes            = 2 << 10 // for each on average
	cacheMaxEntry         = 8 << 10 // what is larger is not remembered
	cacheEvictTries       = 64      // places that are looked at for bytes to give back
	cacheWays             = 8       // places in which a token may be
	hashedTail            = 32      // bytes of a token that choose its places
)

// tokenCache remembers access tokens that were verified. A token is known by
// the whole of itself, so that no two answer for each other. It has no lock
// and no list: a token has a few places, and one that finds them taken drives
// another out, so a flood of tokens costs each of them the same.
type tokenCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cachedToken]
	bytes atomic.Int64
	hand  atomic.Uint64 // of the next to go when there are too many bytes
}

// cachedToken never changes.
type cachedToken struct {
	token string
	kid   string
	key   *key
	size  int64
	parsedClaims
}

func newTokenCache(entries int) *tokenCache {
	places := cacheWays
	for places < entries {
		places *= 2
	}
	return &tokenCache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cachedToken], places)}
}

// slotsFor returns the places that a token may have.
func (m *tokenCache) slotsFor(token string) (places []atomic.Pointer[cachedToken], hash uint64) {
	// The end, of the signature, tells tokens apart as well as the whole.
	hash = maphash.String(m.seed, token[max(0, len(token)-hashedTail):])
	i := int(hash%uint64(len(m.slots))) &^ (cacheWays - 1)
	return m.slots[i : i+cacheWays], hash
}

// cachedToken returns what is remembered of a token, if its key is still one.
func (v *Verifier) cachedToken(ctx context.Context, token string) *cachedToken {
	m := v.cache
	if m == nil || len(token) > maxToken {
		return nil
	}
	places, _ := m.slotsFor(token)
	for i := range places {
		if r := places[i].Load(); r != nil && r.token == token {
			keys, err := lookupKeys(ctx, v.keys, r.kid)
			if err == nil && slices.ContainsFunc(keys, func(k Key) bool { return k.key == r.key }) {
				return r
			}
			return nil // ask again from the start; keep replaces it
		}
	}
	return nil
}

// add remembers a token that has passed every check.
func (m *tokenCache) add(token string, signed signedToken, c *parsedClaims, now time.Time) {
	if m == nil {
		return
	}
	r := &cachedToken{token: strings.Clone(token), kid: signed.kid, key: signed.key}
	c.copyTo(&r.parsedClaims)
	r.verifiedAt = time.Time{}
	r.size = int64(len(token) + len(c.payload) + 512 + 16*(len(c.Audience)+len(c.Roles)+len(c.Scopes)+len(c.AMR)))
	if r.size > cacheMaxEntry {
		return // it would drive too many others out
	}
	places, hash := m.slotsFor(token)
	victim, free := int(hash>>32%cacheWays), false
	for i := range places {
		old := places[i].Load()
		if old != nil && old.token == token { // its key was replaced, or somebody else was as quick
			victim = i
			break
		}
		if !free && (old == nil || !now.Before(old.ExpiresAt)) {
			victim, free = i, true
		}
	}
	m.set(&places[victim], r)
	for range cacheEvictTries {
		if m.bytes.Load() <= int64(len(m.slots))*cacheBytes {
			return
		}
		m.set(&m.slots[m.hand.Add(1)%uint64(len(m.slots))], nil)
	}
}

func (m *tokenCache) set(place *atomic.Pointer[cachedToken], r *cachedToken) {
	var grown int64
	if r != nil {
		grown = r.size
	}
	if old := place.Swap(r); old != nil {
		grown -= old.size
	}
	m.bytes.Add(grown)
}
