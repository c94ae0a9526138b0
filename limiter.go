package auth

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// Limiter counts the attempts to guess a secret, such as a password. A fleet of
// processes counts together if all of them use a Limiter on one server, as that of
// package redisstore. Its methods are called concurrently, with a context that
// ends after Config.StoreTimeout. Package storetest tests implementations.
//
// A bucket has a level and the time of its last attempt. An attempt adds 1 to the
// level, which decreases by 1 in each Bucket.Decay, down to 0. Let n be the level
// just after the last attempt, rounded up. If n is at least Bucket.Burst, the next
// attempt must wait for 2^(n-Burst) seconds, but at most 15 minutes, from the time
// of the last one. The level never exceeds Burst + 10. So a bucket never locks
// anybody out: it permits one attempt in 15 minutes at least.
//
// If the clock that a Limiter uses is set back to a time before the last attempt of
// a bucket, the bucket counts as if that attempt was made now.
//
// The number of buckets that a Limiter keeps is bounded, except by the number of
// users, and a bucket whose level has reached 0 can be removed. Made-up login names,
// which have a kind of their own, must not cause the removal of other buckets.
type Limiter interface {
	// Take adds an attempt to each of the buckets, in one atomic step, if none of
	// them must wait. Otherwise it changes none of them, and returns the longest
	// wait, which is positive, and the index of its bucket. It does not extend the
	// wait. No two of the buckets are equal.
	Take(ctx context.Context, buckets []Bucket) (wait time.Duration, index int, err error)

	// Settle removes the buckets in clear, and subtracts 1 from the levels of those
	// in refund, down to 0. It is called after an attempt that was no wrong guess.
	Settle(ctx context.Context, clear, refund []Bucket) error
}

// Bucket identifies a counter of a [Limiter] and describes its limit.
type Bucket struct {
	// Kind says what the attempts of the bucket have in common:
	//
	//   - "account": the user
	//   - "device": the user and a device on which the user has signed in before
	//   - "name": the login name, which is of no user
	//   - "source": the IPv4 address or the IPv6 network (/64) of the client
	Kind string

	// Key identifies the bucket among those of its kind. It is a keyed digest of 22
	// characters of base64url, so that it reveals neither a login name nor an
	// address.
	Key string

	Burst int           // attempts before the first wait; at least 1
	Decay time.Duration // after this time, one attempt is forgotten; at least a second
}

// The kinds of buckets.
const (
	kindAccount = "account"
	kindDevice  = "device"
	kindName    = "name"
	kindSource  = "source"
)

const (
	maxLimitWait   = 15 * time.Minute
	maxLimitExcess = 10 // 2^10 seconds is more than maxLimitWait
)

// level is the state of a bucket.
type level struct {
	n    float64   // the level at the time of the last attempt
	last time.Time // of the last attempt
}

// wait returns how long the next attempt must wait at a time.
func (l *level) wait(b Bucket, now time.Time) time.Duration {
	excess := int(math.Ceil(l.n)) - b.Burst
	if excess < 0 {
		return 0
	}
	if now.Before(l.last) { // the clock was set back
		l.last = now
	}
	wait := min(time.Second<<min(excess, maxLimitExcess), maxLimitWait)
	return max(0, wait-now.Sub(l.last))
}

// add adds an attempt.
func (l *level) add(b Bucket, now time.Time) {
	l.n = min(l.at(b, now)+1, float64(b.Burst+maxLimitExcess))
	l.last = now
}

// at returns the level at a time.
func (l *level) at(b Bucket, now time.Time) float64 {
	return max(0, l.n-max(0, now.Sub(l.last)).Seconds()/b.Decay.Seconds())
}

// memoryLimiter is the Limiter of one process. Its zero value is not ready; see
// newMemoryLimiter.
type memoryLimiter struct {
	now   func() time.Time
	seed  maphash.Seed // so that nobody can choose keys that collide
	mu    sync.Mutex
	kinds map[string]map[uint64]*limited
}

// limited is the level of a bucket, and when it reaches 0.
type limited struct {
	level
	ends time.Time
}

// maxBuckets bounds the buckets of each kind in memory. An entry takes about 100
// bytes.
const maxBuckets = 1 << 16

// evictFrom is how many entries are examined to find one to remove.
const evictFrom = 8

func newMemoryLimiter(now func() time.Time) *memoryLimiter {
	return &memoryLimiter{now: now, seed: maphash.MakeSeed(), kinds: map[string]map[uint64]*limited{}}
}

func (m *memoryLimiter) hash(b Bucket) uint64 { return maphash.String(m.seed, b.Key) }

func (m *memoryLimiter) Take(_ context.Context, buckets []Bucket) (wait time.Duration, index int, err error) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range buckets {
		if e := m.kinds[b.Kind][m.hash(b)]; e != nil {
			if w := e.wait(b, now); w > wait {
				wait, index = w, i
			}
		}
	}
	if wait > 0 {
		return wait, index, nil
	}
	for _, b := range buckets {
		e := m.entry(b, now)
		e.add(b, now)
		e.ends = now.Add(time.Duration(e.n * float64(b.Decay)))
	}
	return 0, 0, nil
}

// entry returns the entry of a bucket, which it adds if there is none. If there is
// no room for it, one that ends early is removed: of a few that iteration chooses at
// random, the one that ends first. So an entry is not removed by others of its kind
// that have fewer attempts.
func (m *memoryLimiter) entry(b Bucket, now time.Time) *limited {
	entries := m.kinds[b.Kind]
	if entries == nil {
		entries = map[uint64]*limited{}
		m.kinds[b.Kind] = entries
	}
	key := m.hash(b)
	if e := entries[key]; e != nil {
		return e
	}
	examined := 0
	var first uint64
	var ends time.Time
	for k, e := range entries {
		if !e.ends.After(now) {
			delete(entries, k)
		} else if examined == 0 || e.ends.Before(ends) {
			first, ends = k, e.ends
		}
		if examined++; examined == evictFrom {
			break
		}
	}
	if len(entries) >= maxBuckets {
		delete(entries, first)
	}
	e := &limited{}
	entries[key] = e
	return e
}

func (m *memoryLimiter) Settle(_ context.Context, clear, refund []Bucket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range clear {
		delete(m.kinds[b.Kind], m.hash(b))
	}
	for _, b := range refund {
		if e := m.kinds[b.Kind][m.hash(b)]; e != nil {
			e.n = max(0, e.n-1)
			e.ends = e.last.Add(time.Duration(e.n * float64(b.Decay)))
		}
	}
	return nil
}
