package auth

// NewCollidingMemoryStore returns a store in which many sessions and subjects
// have the same hash.
func NewCollidingMemoryStore() *MemoryStore {
	m := NewMemoryStore()
	m.mask = 1
	return m
}
