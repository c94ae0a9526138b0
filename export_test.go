package auth

import "context"

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
