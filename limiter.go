package auth

import (
	"container/heap"
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// Limiter counts the attempts to guess a secret, such as a password. A fleet of
// processes counts together if all of them use a Limiter on one server, such as that
// of package redisstore. RunLimiter of package storetest tests implementations.
//
// The methods are called concurrently, with a context that ends after
// Config.StoreTimeout. If one returns an error, or does not return, the process
// counts in memory instead; see Config.Limiter.
//
// A bucket has a level and the time of its last attempt. An attempt adds 1 to the
// level, which decreases steadily, by 1 in each Bucket.Decay, down to 0. Let n be
// the level just after the last attempt, rounded up. If n is at least Bucket.Burst,
// the next attempt must wait for 2^(n-Burst) seconds, but at most 15 minutes, from
// the time of the last one. The level never exceeds Burst + 10. So a bucket never
// locks anybody out: 15 minutes after the last attempt, it permits another one.
// Times are exact to the millisecond.
//
// If the clock that a Limiter uses is set back to a time before the last attempt of
// a bucket, the bucket counts as if that attempt was made now.
//
// A bucket whose level has reached 0 is the same as one that never existed, and can
// be removed. The number of buckets of each kind must be bounded, because clients
// can make up names and have many addresses. If there is no room for another
// bucket, the one whose level reaches 0 first is removed. A bucket never causes the
// removal of one of another kind.
type Limiter interface {
	// Take adds an attempt to each of the buckets, in one atomic step, if none of
	// them must wait. It then returns a wait of 0. Otherwise it counts nothing, and
	// returns the longest wait, which is positive, and the index of its bucket in
	// buckets. It does not extend the wait. No two of the buckets are equal.
	Take(ctx context.Context, buckets []Bucket) (wait time.Duration, index int, err error)

	// Settle is called after an attempt that was no wrong guess. It sets the levels
	// of the buckets in cleared to 0, and subtracts 1 from the levels of those in
	// refund, down to 0.
	Settle(ctx context.Context, cleared, refund []Bucket) error
}

// Bucket identifies a counter of a [Limiter] and describes its limit. A kind and a
// key always have the same Burst and Decay. Burst times Decay is at least 15
// minutes, so no bucket has to wait after its level has reached 0.
type Bucket struct {
	// Kind says what the attempts of the bucket have in common:
	//
	//   - "account": the user
	//   - "device": the user and a device on which the user has signed in before
	//   - "name": the login name, whether or not a user has it, in any letter case
	//   - "other": the account that the application has passed to
	//     [Authenticator.Throttle]
	//   - "source": the IPv4 address or the IPv6 network (/64) of the client
	Kind string

	// Key identifies the bucket among those of its kind. It is a keyed digest of 22
	// characters of base64url, so that it reveals neither a login name nor an
	// address.
	Key string

	Burst int           // attempts before the first wait; from 1 to 1000
	Decay time.Duration // after this time, one attempt is forgotten; whole milliseconds, from a second to a day
}

// The kinds of buckets.
const (
	kindAccount = "account"
	kindDevice  = "device"
	kindName    = "name"
	kindOther   = "other"
	kindSource  = "source"
)

const (
	maxLimitWait   = 15 * time.Minute
	maxLimitExcess = 10 // 2^10 seconds is more than maxLimitWait
)

// level is the state of a bucket, in Unix milliseconds. The level itself is the time
// until ends, divided by Bucket.Decay, so that the arithmetic is exact. The zero
// level is 0.
type level struct {
	ends int64 // when the level reaches 0
	last int64 // the time of the last attempt
}

// wait returns how long the next attempt must wait at a time, in milliseconds.
func (l *level) wait(b Bucket, now int64) int64 {
	if ahead := l.last - now; ahead > 0 { // the clock was set back
		l.last -= ahead
		l.ends -= ahead
	}
	decay := b.Decay.Milliseconds()
	excess := (l.ends-l.last+decay-1)/decay - int64(b.Burst)
	if excess < 0 {
		return 0
	}
	wait := min(time.Second<<min(excess, maxLimitExcess), maxLimitWait).Milliseconds()
	return max(0, l.last+wait-now)
}

// add adds an attempt at a time, for which wait has returned 0.
func (l *level) add(b Bucket, now int64) {
	decay := b.Decay.Milliseconds()
	l.ends = min(max(l.ends, now)+decay, now+int64(b.Burst+maxLimitExcess)*decay)
	l.last = now
}

// memoryLimiter is the Limiter of one process.
type memoryLimiter struct {
	now   func() time.Time
	seed  maphash.Seed // so that nobody can choose keys that collide
	mu    sync.Mutex
	kinds map[string]*limitedKind
}

// limitedKind has the buckets of a kind.
type limitedKind struct {
	byKey map[uint64]*limited
	ends  endsFirst
}

// limited is the level of a bucket.
type limited struct {
	level
	key uint64
	at  int // in limitedKind.ends
}

// maxBuckets bounds the buckets of each kind in memory.
const maxBuckets = 1 << 16

func newMemoryLimiter(now func() time.Time) *memoryLimiter {
	return &memoryLimiter{now: now, seed: maphash.MakeSeed(), kinds: map[string]*limitedKind{}}
}

// Take implements Limiter.
func (m *memoryLimiter) Take(_ context.Context, buckets []Bucket) (wait time.Duration, index int, err error) {
	now := m.now().UnixMilli()
	m.mu.Lock()
	defer m.mu.Unlock()
	var longest int64
	for i, b := range buckets {
		if kind, l := m.find(b); l != nil {
			ends := l.ends
			if w := l.wait(b, now); w > longest {
				longest, index = w, i
			}
			if l.ends != ends {
				heap.Fix(&kind.ends, l.at)
			}
		}
	}
	if longest > 0 {
		return time.Duration(longest) * time.Millisecond, index, nil
	}
	for _, b := range buckets {
		kind, l := m.find(b)
		if l == nil {
			l = kind.create(m.hash(b), now)
		}
		l.add(b, now)
		heap.Fix(&kind.ends, l.at)
	}
	return 0, 0, nil
}

// Settle implements Limiter.
func (m *memoryLimiter) Settle(_ context.Context, cleared, refund []Bucket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range cleared {
		if kind, l := m.find(b); l != nil {
			kind.remove(l)
		}
	}
	for _, b := range refund {
		if kind, l := m.find(b); l != nil {
			if l.ends -= b.Decay.Milliseconds(); l.ends <= l.last {
				kind.remove(l)
			} else {
				heap.Fix(&kind.ends, l.at)
			}
		}
	}
	return nil
}

func (m *memoryLimiter) hash(b Bucket) uint64 { return maphash.String(m.seed, b.Key) }

// find returns the kind of a bucket, and the bucket, or nil if there is none.
func (m *memoryLimiter) find(b Bucket) (*limitedKind, *limited) {
	kind := m.kinds[b.Kind]
	if kind == nil {
		kind = &limitedKind{byKey: map[uint64]*limited{}}
		m.kinds[b.Kind] = kind
	}
	return kind, kind.byKey[m.hash(b)]
}

// create adds a bucket with the level 0. It removes up to two whose level is 0, or
// else, if there is no room, the one whose level reaches 0 first.
func (k *limitedKind) create(key uint64, now int64) *limited {
	for range 2 {
		if len(k.ends) > 0 && k.ends[0].ends <= now {
			k.remove(k.ends[0])
		}
	}
	if len(k.ends) >= maxBuckets {
		k.remove(k.ends[0])
	}
	l := &limited{key: key}
	k.byKey[key] = l
	heap.Push(&k.ends, l)
	return l
}

func (k *limitedKind) remove(l *limited) {
	heap.Remove(&k.ends, l.at)
	delete(k.byKey, l.key)
}

// endsFirst is a heap: the first element is the one whose level reaches 0 first.
type endsFirst []*limited

func (h endsFirst) Len() int           { return len(h) }
func (h endsFirst) Less(i, j int) bool { return h[i].ends < h[j].ends }

func (h endsFirst) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *endsFirst) Push(x any) {
	l := x.(*limited) //nolint:forcetypeassert // of limitedKind.create
	l.at = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *endsFirst) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
