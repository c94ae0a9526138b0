//go:build race

package auth_test

// raceDetector reports whether the race detector is on. It makes the exploration of
// models ten times as slow, and finds nothing there, since they have one goroutine.
const raceDetector = true
