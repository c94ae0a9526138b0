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
	defaultRemember = 1 << 16
	maxRemember     = 1 << 20
	rememberedBytes = 2 << 10 // for each on average
	rememberedLarge = 8 << 10 // what is larger is not remembered
	rememberedTries = 64      // places that are looked at for bytes to give back
	rememberedWays  = 8       // places in which a token may be
	hashedTail      = 32      // bytes of a token that choose its places
)

// tokenMemory remembers access tokens that were verified. A token is known by
// the whole of itself, so that no two answer for each other. It has no lock
// and no list: a token has a few places, and one that finds them taken drives
// another out, so a flood of tokens costs each of them the same.
type tokenMemory struct {
	seed   maphash.Seed
	places []atomic.Pointer[rememberedToken]
	bytes  atomic.Int64
	hand   atomic.Uint64 // of the next to go when there are too many bytes
}

// rememberedToken never changes.
type rememberedToken struct {
	token string
	kid   string
	key   *key
	size  int64
	verified
}

func newTokenMemory(entries int) *tokenMemory {
	places := rememberedWays
	for places < entries {
		places *= 2
	}
	return &tokenMemory{seed: maphash.MakeSeed(), places: make([]atomic.Pointer[rememberedToken], places)}
}

// at returns the places that a token may have.
func (m *tokenMemory) at(token string) (places []atomic.Pointer[rememberedToken], hash uint64) {
	// The end, of the signature, tells tokens apart as well as the whole.
	hash = maphash.String(m.seed, token[max(0, len(token)-hashedTail):])
	i := int(hash%uint64(len(m.places))) &^ (rememberedWays - 1)
	return m.places[i : i+rememberedWays], hash
}

// recall returns what is remembered of a token, if its key is still one.
func (v *Verifier) recall(ctx context.Context, token string) *rememberedToken {
	m := v.remembered
	if m == nil || len(token) > maxToken {
		return nil
	}
	places, _ := m.at(token)
	for i := range places {
		if r := places[i].Load(); r != nil && r.token == token {
			keys, err := keysOf(ctx, v.keys, r.kid)
			if err == nil && slices.ContainsFunc(keys, func(k Key) bool { return k.key == r.key }) {
				return r
			}
			return nil // ask again from the start; keep replaces it
		}
	}
	return nil
}

// keep remembers a token that has passed every check.
func (m *tokenMemory) keep(token string, signed signedToken, c *verified, now time.Time) {
	if m == nil {
		return
	}
	r := &rememberedToken{token: strings.Clone(token), kid: signed.kid, key: signed.key}
	c.copyTo(&r.verified)
	r.verifiedAt = time.Time{}
	r.size = int64(len(token) + len(c.payload) + 512 + 16*(len(c.Audience)+len(c.Roles)+len(c.Scopes)+len(c.AMR)))
	if r.size > rememberedLarge {
		return // it would drive too many others out
	}
	places, hash := m.at(token)
	victim, free := int(hash>>32%rememberedWays), false
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
	m.put(&places[victim], r)
	for range rememberedTries {
		if m.bytes.Load() <= int64(len(m.places))*rememberedBytes {
			return
		}
		m.put(&m.places[m.hand.Add(1)%uint64(len(m.places))], nil)
	}
}

func (m *tokenMemory) put(place *atomic.Pointer[rememberedToken], r *rememberedToken) {
	var grown int64
	if r != nil {
		grown = r.size
	}
	if old := place.Swap(r); old != nil {
		grown -= old.size
	}
	m.bytes.Add(grown)
}
