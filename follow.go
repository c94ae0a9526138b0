package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StalePolicy says what happens to requests while the revocation feed is stale,
// that is, was last read more than MaxStale ago. Whatever the policy, an
// [EventStale] is emitted.
type StalePolicy int

// The policies for a stale feed.
const (
	// StaleContinue accepts access tokens according to the revocations that
	// are known. A token that was revoked in another process after the last
	// read of the feed is accepted until it expires or the feed is read again.
	// This is the default.
	StaleContinue StalePolicy = iota
	// StaleAskStore asks the store at each request whether the session exists.
	// A Verifier without a store returns [ErrUnavailable].
	StaleAskStore
	// StaleRefuse refuses requests with [ErrUnavailable].
	StaleRefuse
)

// Intervals and limits of Run.
const (
	feedWait          = 5 * time.Second        // the longest wait for a revocation in one call of Changes
	feedRetryFirst    = 50 * time.Millisecond  // the first pause after an error; it doubles with each error
	feedRetryMax      = 5 * time.Second        // the longest pause
	minResetInterval  = 30 * time.Second       // another reset within this time is followed by a pause
	republishLead     = 30 * time.Second       // how long before its end an entry is republished
	republishGrace    = 10 * time.Minute       // how long after its end an entry is kept to be republished
	republishEvery    = 10 * time.Second       // how often Run looks for entries that end soon
	republishBudget   = 200 * time.Millisecond // how long one step republishes
	maxRepublishFails = 2                      // consecutive errors after which a step stops republishing
	maxFeedGap        = time.Minute            // each entry stays in the feed for longer than this, so only a longer gap between reads can miss one
)

// Run follows the revocation feed until ctx is done, and returns ctx's error. A
// server with a Store or a Feed calls it once, in a goroutine of its own. Until
// Run has read the whole feed, Verify returns [ErrUnavailable]. Without a feed,
// or with a [MemoryStore], no call is needed, and Run only waits for ctx.
// Otherwise a second call returns an error while the first one is running.
//
// Another goroutine delivers the events of Run to OnEvent, so that an OnEvent
// that blocks does not stop Run. At most 64 events wait for it; further ones
// are dropped ([Health].DroppedEvents). Run returns soon after ctx is done, even if
// the store ignores its context.
func (v *Verifier) Run(ctx context.Context) error {
	if v.members != nil {
		return v.runMembers(ctx)
	}
	if v.feed == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("auth: Run is already running")
	}
	defer v.running.Store(false)
	ctx, stop := v.queueEvents(ctx)
	defer stop()
	f := follower{v: v, fromStart: true, retry: feedRetryFirst}
	for ctx.Err() == nil {
		err := f.step(ctx)
		switch {
		case err == nil:
			f.succeeded()
		case ctx.Err() == nil:
			pause(ctx, f.failed(ctx, err))
		}
	}
	return ctx.Err()
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// follower is the state of Run.
type follower struct {
	v *Verifier

	// Reading the feed.
	position   string        // where the next page begins; "" is the start of the feed
	moreToRead bool          // the feed has more pages
	readAt     time.Time     // when the first of the pages that are being read was requested
	fromStart  bool          // the feed is being read from its start
	retry      time.Duration // the pause after the next error
	lastReset  time.Time     // when the feed was last reset

	// Publishing again.
	feedReset      bool         // the feed was reset, and may have lost revocations
	ttlGrowth      uint32       // the result of revocationSet.ttlGrowth that was last handled
	plannedAt      time.Time    // when planExpiring was last called
	nextRepublish  time.Time    // when there is something to publish; the zero Time if there is nothing
	lostNotices    []Revocation // notices to publish again
	retryNoticesAt int64        // none of them is published before this, in Unix milliseconds
}

// succeeded resets the pause after errors, unless the feed was reset recently.
func (f *follower) succeeded() {
	if f.v.now().Sub(f.lastReset).Abs() > minResetInterval {
		f.retry = feedRetryFirst
	}
}

// failed reports an error of step, and returns how long to wait before the next
// step. After a reset, the next step reads the feed from its start: at once, or
// after a pause if there was another reset within minResetInterval.
func (f *follower) failed(ctx context.Context, err error) time.Duration {
	if _, reported := isAbandoned(err); !reported {
		f.v.emit(ctx, Event{Type: EventFault, Err: fmt.Errorf("auth: revocation feed: %w", detail{err})})
	}
	f.v.isStale(ctx, f.v.now()) // it emits an event even if there are no requests
	if errors.Is(err, ErrFeedReset) && f.position != "" {
		f.position, f.moreToRead, f.fromStart, f.feedReset = "", false, true, true
		now := f.v.now()
		recent := now.Sub(f.lastReset).Abs() <= minResetInterval
		if f.lastReset = now; !recent {
			return 0
		}
	}
	d := f.retry
	f.retry = min(2*f.retry, feedRetryMax)
	return d
}

// step reads one page of the feed, at the position that was reached. After the
// last page, it also publishes pending entries again, for at most
// republishBudget. After an error, the next call continues at the same
// position.
func (f *follower) step(ctx context.Context) error {
	v := f.v
	wait := min(feedWait, v.maxStale/2)
	switch now := v.now(); {
	case f.moreToRead:
		wait = 0
	case f.fromStart: // Ready depends on it
		f.readAt, wait = now, 0
	default:
		f.readAt = now
		if !f.nextRepublish.IsZero() {
			wait = min(wait, max(0, f.nextRepublish.Sub(now)))
		}
	}
	err := v.readFeed(ctx, f.position, wait, func(rs []Revocation, next string, more bool) error {
		if next == "" {
			return errors.New("Changes returned an empty position")
		}
		for _, r := range v.revoked.apply(rs, f.position == "", v.now()) {
			v.emit(ctx, unreadableEvent(r))
		}
		if more && next == f.position {
			return errors.New("Changes returned more=true without advancing the position")
		}
		f.position, f.moreToRead = next, more
		return nil
	})
	if err != nil || f.moreToRead {
		return err
	}
	if last := v.feedReadAt.Swap(f.readAt.UnixMilli()); last != 0 && f.readAt.Sub(time.UnixMilli(last)) > maxFeedGap {
		v.revoked.cancelAll() // an entry may have been added and removed unread
	}
	v.staleReported.Store(false)
	f.fromStart = false
	v.readyOnce.Do(func() { close(v.ready) })
	f.republish(ctx)
	return nil
}

// unreadableEvent returns the event for an entry of the feed that could not be
// read.
func unreadableEvent(r Revocation) Event {
	err := errors.New("auth: skipped an unreadable entry of the revocation feed")
	if r.Subject != "" {
		err = errors.New("auth: unreadable entry of the revocation feed; expired the access tokens of its subject")
	}
	return Event{Type: EventFault, Session: Session{Subject: r.Subject}, Err: err}
}

// readFeed calls Changes and passes the result to handle. The time limit is the
// same for every wait, because even a call that does not wait may have a lot to
// read.
func (v *Verifier) readFeed(ctx context.Context, position string, wait time.Duration, handle func(rs []Revocation, next string, more bool) error) error {
	type page struct {
		rs   []Revocation
		next string
		more bool
	}
	got, err := callBounded(v, ctx, "Feed.Changes", min(feedWait, v.maxStale/2)+v.storeTimeout, func(ctx context.Context) (p page, err error) {
		p.rs, p.next, p.more, err = v.feed.Changes(ctx, position, wait)
		return p, err
	})
	if err != nil {
		return err
	}
	return handle(got.rs, got.next, got.more)
}

// republish publishes again what the store may not have: revocations of this
// process, shortly before they end; those that the store has not confirmed; and
// those that the feed has lost. A revocation that a failover has lost is
// restored if a running Authenticator knows it. republish stops after
// republishBudget, so that Run can read the feed again, and leaves the rest for
// later steps.
func (f *follower) republish(ctx context.Context) {
	v := f.v
	now := v.now()
	v.revoked.prune(now)
	if v.backend == nil {
		return
	}
	renewal := v.backend.renewNotice(ctx)
	if f.feedReset {
		f.lostNotices, f.feedReset = v.revoked.planLost(), false
	}
	if g := v.revoked.ttlGrowth(); g != f.ttlGrowth {
		f.ttlGrowth = g
		v.revoked.planGrown()
	}
	if !isPaused(now, f.plannedAt.Add(republishEvery).UnixMilli(), republishEvery) {
		f.plannedAt = now
		v.revoked.planExpiring(now)
	}
	f.nextRepublish = f.republishPlanned(ctx, now)
	if !renewal.IsZero() && (f.nextRepublish.IsZero() || renewal.Before(f.nextRepublish)) {
		f.nextRepublish = renewal
	}
}

// republishPlanned publishes what was planned, until republishBudget has passed
// since begun. The result is the time at which there is more to publish, or the
// zero Time if nothing is left.
func (f *follower) republishPlanned(ctx context.Context, begun time.Time) (next time.Time) {
	v := f.v
	fails, successes := 0, 0
	publish := func(r Revocation, repeats bool) (ok bool) {
		err := v.backend.republish(ctx, r, repeats)
		switch {
		case err == nil:
			fails = 0
			successes++
		case !errors.Is(err, ErrNotStorable): // the store is available then
			fails++
		}
		return err == nil
	}
	isOver := func() bool {
		passed := v.now().Sub(begun)
		return fails == maxRepublishFails || ctx.Err() != nil || passed >= republishBudget || passed < 0 // the clock was set back
	}
	for len(f.lostNotices) > 0 && !isOver() && !isPaused(v.now(), f.retryNoticesAt, publishRetryFirst) {
		notice := f.lostNotices[0]
		f.lostNotices = f.lostNotices[1:]
		if !publish(notice, false) && fails > 0 {
			f.lostNotices = append(f.lostNotices, notice)
			f.retryNoticesAt = v.now().Add(publishRetryFirst).UnixMilli()
			break // a notice must not delay the entries
		}
	}
	for !isOver() {
		batch, later := v.revoked.takeBatch(v.now())
		if len(batch) == 0 {
			return later
		}
		for i, p := range batch {
			if isOver() {
				v.revoked.requeue(batch[i:])
				break
			}
			ok := true
			for _, r := range p.revocations {
				ok = ok && publish(r, p.repeats)
			}
			v.revoked.markRepublished(p.entries, ok)
		}
	}
	if successes == 0 && fails > 0 { // the store is not available
		return v.now().Add(publishRetryFirst)
	}
	return v.now()
}

// Ready returns a channel that is closed when [Verifier.Run] has read the whole
// feed. Without a feed, or with a [MemoryStore], it is closed from the start.
func (v *Verifier) Ready() <-chan struct{} {
	if v.members != nil {
		v.closeIfReady()
	}
	return v.ready
}

// Health is the state of one process: of the revocation feed, the throttle and the
// hooks.
type Health struct {
	Ready       bool          // the channel of Ready is closed
	FeedAge     time.Duration // the time since the feed was last read; 0 if Ready is false, without a feed, or with a MemoryStore
	Revocations int           // the number of entries in memory
	Throttled   int64         // the number of attempts that were refused with ErrThrottled since the start

	// Abandoned is the number of calls of the application's code that are in
	// progress although they should have returned: a call of a Store, of Users or of
	// another hook whose context has ended (Config.StoreTimeout, Config.HookTimeout).
	// The requests that waited for them were answered. A number that stays above 0
	// means that a hook ignores its context. While 64 calls of one hook are
	// abandoned, it is not called, and the requests that need it get 503.
	Abandoned int

	// DroppedEvents is the number of events since the start that were not passed to
	// OnEvent, because earlier calls of it had not returned.
	DroppedEvents int64
}

// Health returns the state of this process, for a health check.
func (v *Verifier) Health() Health {
	if v.members != nil {
		return v.healthOfMembers()
	}
	h := Health{
		Revocations: int(v.revoked.size.Load()), Throttled: v.throttled.Load(),
		Abandoned: v.hooks.abandoned(), DroppedEvents: v.dropped.Load(),
	}
	select {
	case <-v.ready:
		h.Ready = true
	default:
	}
	if v.feed != nil && h.Ready {
		h.FeedAge = v.feedAge(v.now())
	}
	return h
}

func (v *Verifier) feedAge(now time.Time) time.Duration {
	return max(0, now.Sub(time.UnixMilli(v.feedReadAt.Load())))
}

// isStale reports whether the feed was last read more than MaxStale ago. It
// emits one EventStale for each period in which the feed is stale.
func (v *Verifier) isStale(ctx context.Context, now time.Time) bool {
	if v.feedReadAt.Load() == 0 || v.feedAge(now) <= v.maxStale {
		return false
	}
	if v.staleReported.CompareAndSwap(false, true) {
		advice := ""
		if !v.running.Load() {
			advice = "; Run has returned and must be called again"
		}
		v.emit(ctx, Event{Type: EventStale, Err: fmt.Errorf("auth: the revocation feed was last read %s ago%s", v.feedAge(now).Round(time.Second), advice)})
	}
	return true
}
