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
