package authtest

import (
	"sync/atomic"
	"time"
)

// Clock is a clock that a test advances. It is safe for concurrent use. Create
// it with [NewClock]; [New] creates one too.
type Clock struct {
	start    time.Time
	follow   func() time.Time // if not nil, used instead of start
	advanced atomic.Int64     // nanoseconds
}

// NewClock returns a clock that stands still at start. Its method Now can be the
// Config.Now of a program that creates its own Authenticator.
func NewClock(start time.Time) *Clock { return &Clock{start: start} }

// Now returns the current time of the clock.
func (c *Clock) Now() time.Time {
	now := c.start
	if c.follow != nil {
		now = c.follow()
	}
	return now.Add(time.Duration(c.advanced.Load()))
}

// Advance moves the clock by d. A negative d sets it back. Timers do not follow
// the clock: for those of [auth.Verifier.SessionContext] and
// [auth.Verifier.Run], use package [testing/synctest].
func (c *Clock) Advance(d time.Duration) { c.advanced.Add(int64(d)) }
