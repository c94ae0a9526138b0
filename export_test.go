package auth

import (
	"context"
	"time"
)

// LogFaults returns the OnEvent of a Config without one.
func LogFaults() func(context.Context, Event) { return logFaults() }

// NewCollidingMemoryStore returns a store in which many sessions and subjects
// have the same hash.
func NewCollidingMemoryStore() *MemoryStore {
	m := NewMemoryStore()
	m.mask = 1
	return m
}

// Spent returns the number of records of Spend.
func (m *MemoryStore) Spent() int {
	n := 0
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		n += len(sh.spent.all)
		sh.mu.Unlock()
	}
	return n
}

// MemoryLimiter is the Limiter of an Authenticator without Config.Limiter.
type MemoryLimiter = memoryLimiter

// NewMemoryLimiter returns a MemoryLimiter.
func NewMemoryLimiter(now func() time.Time) *MemoryLimiter { return newMemoryLimiter(now) }

// Levels returns the sum of the levels of the buckets of each kind at their last
// attempts.
func (m *memoryLimiter) Levels() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	levels := map[string]float64{}
	for name, kind := range m.kinds {
		decay := accountDecay
		if name == kindSource {
			decay = sourceDecay
		}
		for _, l := range kind.byKey {
			levels[name] += max(0, float64(l.ends-l.last)/float64(decay.Milliseconds()))
		}
	}
	return levels
}

// IsOwnGuard is isOwnGuard.
func IsOwnGuard(g Guard) bool { return isOwnGuard(g) }

// Buckets returns the number of buckets of a kind in memory.
func (m *memoryLimiter) Buckets(kind string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.kinds[kind]; k != nil {
		return len(k.byKey)
	}
	return 0
}
