package auth

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of the token cache. Sizes are in bytes.
const (
	defaultTokenCacheSize = 1 << 16 // slots
	maxTokenCacheSize     = 1 << 20 // slots
	cacheBytes            = 2 << 10 // the average size of an entry above which entries are evicted
	cacheMaxEntry         = 8 << 10 // a larger entry is not cached
	cacheEvictTries       = 64      // slots that one call of add empties at most
	cacheWays             = 8       // slots in which a token may be
	hashedTail            = 32      // the part at the end of a token that is hashed
)

// tokenCache is a cache of verified access tokens. Entries are compared by the
// whole token, so tokens with the same hash cannot be confused. The hash of a
// token selects a group of cacheWays slots. If all of them are taken, a new
// token replaces one of the others. There is no lock and no list, so the cost
// of an operation does not grow with the number of tokens.
type tokenCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cachedToken]
	bytes atomic.Int64  // the estimated size of all entries
	hand  atomic.Uint64 // the slot that was last emptied to reduce bytes
}

// cachedToken is an entry of a tokenCache. It is never changed.
type cachedToken struct {
	token string
	kid   string
	key   *key // the key that has verified the token
	size  int64
	parsedClaims
}

// newTokenCache returns a cache with at least size slots.
func newTokenCache(size int) *tokenCache {
	slots := cacheWays
	for slots < size {
		slots *= 2
	}
	return &tokenCache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cachedToken], slots)}
}

// slotsFor returns the slots in which a token may be, and its hash.
func (tc *tokenCache) slotsFor(token string) (slots []atomic.Pointer[cachedToken], hash uint64) {
	// The tail is part of the signature, so it differs between tokens.
	hash = maphash.String(tc.seed, token[max(0, len(token)-hashedTail):])
	i := int(hash%uint64(len(tc.slots))) &^ (cacheWays - 1)
	return tc.slots[i : i+cacheWays], hash
}

// cachedToken returns the entry of a token. It returns nil if there is none, or
// if the key of the entry is no longer in use.
func (v *Verifier) cachedToken(ctx context.Context, token string) *cachedToken {
	tc := v.cache
	if tc == nil || len(token) > maxToken {
		return nil
	}
	slots, _ := tc.slotsFor(token)
	for i := range slots {
		if t := slots[i].Load(); t != nil && t.token == token {
			keys, err := lookupKeys(ctx, v.keys, t.kid)
			if err == nil && slices.ContainsFunc(keys, func(k Key) bool { return k.key == t.key }) {
				return t
			}
			return nil // the token is verified in full, and add replaces the entry
		}
	}
	return nil
}

// add caches a token that has passed every check.
func (tc *tokenCache) add(token string, signed signedToken, c *parsedClaims, now time.Time) {
	if tc == nil {
		return
	}
	t := &cachedToken{token: strings.Clone(token), kid: signed.kid, key: signed.key}
	c.copyTo(&t.parsedClaims)
	t.verifiedAt = time.Time{}
	t.size = int64(len(token) + len(c.payload) + 512 + 16*(len(c.Audience)+len(c.Roles)+len(c.Scopes)+len(c.AMR)))
	if t.size > cacheMaxEntry {
		return // it would evict too many others
	}
	slots, hash := tc.slotsFor(token)
	victim, free := int(hash>>32%cacheWays), false
	for i := range slots {
		old := slots[i].Load()
		if old != nil && old.token == token { // its key was replaced, or another request has added it
			victim = i
			break
		}
		if !free && (old == nil || !now.Before(old.ExpiresAt)) {
			victim, free = i, true
		}
	}
	tc.set(&slots[victim], t)
	for range cacheEvictTries {
		if tc.bytes.Load() <= int64(len(tc.slots))*cacheBytes {
			return
		}
		tc.set(&tc.slots[tc.hand.Add(1)%uint64(len(tc.slots))], nil)
	}
}

// set replaces the entry in a slot and updates bytes. t may be nil.
func (tc *tokenCache) set(slot *atomic.Pointer[cachedToken], t *cachedToken) {
	var grown int64
	if t != nil {
		grown = t.size
	}
	if old := slot.Swap(t); old != nil {
		grown -= old.size
	}
	tc.bytes.Add(grown)
}
