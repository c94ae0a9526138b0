package auth

// NewCollidingMemoryStore returns a store in which many sessions and subjects
// have the same hash.
func NewCollidingMemoryStore() *MemoryStore {
	m := NewMemoryStore()
	m.mask = 1
	return m
}

// CheckSecret is what is checked of an HMAC key.
func CheckSecret(secret []byte, size int) error { return checkSecret(secret, size) }
