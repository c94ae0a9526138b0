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

	// advancedTo, if not nil, is called with the new time after the clock was
	// advanced.
	advancedTo func(time.Time)
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
//
// If the clock is that of an [Authenticator] whose Store is not an
// [auth.MemoryStore], Advance returns when Run has read the revocation feed again
// or has tried to, so that the feed is not stale. If d is more than a minute, the
// contexts of SessionContext then end, as after an outage. A clock does not know the
// Authenticators whose Config.Now is its method Now: after it was advanced, call
// Advance(0) of the clock of each of them.
func (c *Clock) Advance(d time.Duration) {
	c.advanced.Add(int64(d))
	if c.advancedTo != nil {
		c.advancedTo(c.Now())
	}
}
