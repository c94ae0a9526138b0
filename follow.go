package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StalePolicy says what becomes of requests when the revocation feed is older
// than MaxStale. An [EventStale] says so in any case.
type StalePolicy int

// The choices of a StalePolicy.
const (
	// StaleContinue goes on with what is known, the default: an access token
	// that was revoked elsewhere lives until it expires.
	StaleContinue StalePolicy = iota
	// StaleAskStore asks the store at every request whether the session is
	// there; a Verifier without a store refuses.
	StaleAskStore
	// StaleRefuse answers [ErrUnavailable].
	StaleRefuse
)

// Waits of Run.
const (
	feedWait         = 5 * time.Second
	feedRetryFirst   = 50 * time.Millisecond
	feedRetryLast    = 5 * time.Second
	minResetInterval = 30 * time.Second // one reset after another sooner is treated as an error
	republishLead    = 30 * time.Second // before an entry leaves
	republishLast    = 10 * time.Minute // after it would have
	republishEvery   = 10 * time.Second // how often Run looks for entries that leave
	republishFor     = 200 * time.Millisecond
	republishFails   = 2           // in a row, after which Run reads the feed first
	maxFeedGap       = time.Minute // every entry lives for longer
)

// Run follows the revocation feed until ctx ends, and returns ctx's error. A
// server that passes a Store or a Feed calls it once, in a goroutine of its
// own; until it has read the feed, Verify answers [ErrUnavailable]. Where
// there is nothing to follow it just waits.
//
// While it runs, events of its own are delivered to OnEvent by another
// goroutine, so that an OnEvent that blocks does not stop it. If many wait,
// further ones are dropped.
func (v *Verifier) Run(ctx context.Context) error {
	if v.feed == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("auth: Run is running already")
	}
	defer v.running.Store(false)
	ctx, stop := v.queueEvents(ctx)
	defer stop()
	f := follower{v: v, fromStart: true}
	retry := feedRetryFirst
	var lastReset time.Time
	for ctx.Err() == nil {
		err := f.step(ctx)
		if err == nil {
			if v.now().Sub(lastReset).Abs() > minResetInterval {
				retry = feedRetryFirst
			}
			continue
		}
		if ctx.Err() != nil {
			break
		}
		v.emit(ctx, Event{Type: EventFault, Err: fmt.Errorf("auth: revocation feed: %w", err)})
		v.isStale(ctx)
		if errors.Is(err, ErrFeedReset) && f.position != "" {
			f.reset()
			now := v.now()
			often := now.Sub(lastReset).Abs() <= minResetInterval
			if lastReset = now; !often {
				continue // at once
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, feedRetryLast)
	}
	return ctx.Err()
}

// follower is the state of Run.
type follower struct {
	v             *Verifier
	position      string       // that was reached
	moreToRead    bool         // the last answer said that there is more
	readAt        time.Time    // when the first of these pages was asked for
	fromStart     bool         // the feed is read from its beginning
	feedReset     bool         // it may have lost revocations
	ttlGrowth     uint32       // of notices, that was acted upon
	plannedAt     time.Time    // when entries that leave were last looked for
	nextRepublish time.Time    // when something is to be announced; the zero Time if nothing is
	lostNotices   []Revocation // lost, to be announced again

	retryNoticesAt int64 // not before this, Unix milliseconds
}

// reset begins again, after the feed has become another.
func (f *follower) reset() {
	f.position, f.moreToRead, f.fromStart, f.feedReset = "", false, true, true
}

// step reads the feed once, from the position that was reached, then announces
// for a moment what is to be announced again. After an error it may be called
// again, and goes on from the same position.
func (f *follower) step(ctx context.Context) error {
	v := f.v
	wait := min(feedWait, v.maxStale/2)
	switch now := v.now(); {
	case f.moreToRead:
		wait = 0
	case f.fromStart: // what makes Ready
		f.readAt, wait = now, 0
	default:
		f.readAt = now
		if !f.nextRepublish.IsZero() {
			wait = min(wait, max(0, f.nextRepublish.Sub(now)))
		}
	}
	err := v.readFeed(ctx, f.position, wait, func(rs []Revocation, next string, more bool) error {
		if next == "" {
			return errors.New("the feed returned an empty position")
		}
		for _, r := range v.revoked.apply(rs, f.position == "", v.now()) {
			v.emit(ctx, unreadableEvent(r))
		}
		if more && next == f.position {
			return errors.New("the feed returned the position that it was given, and says that there is more")
		}
		f.position, f.moreToRead = next, more
		return nil
	})
	if err != nil || f.moreToRead {
		return err
	}
	if last := v.feedReadAt.Swap(f.readAt.UnixMilli()); last != 0 && f.readAt.Sub(time.UnixMilli(last)) > maxFeedGap {
		v.revoked.cancelAll()
	}
	v.staleReported.Store(false)
	f.fromStart = false
	v.readyOnce.Do(func() { close(v.ready) })
	f.republish(ctx)
	return nil
}

func unreadableEvent(r Revocation) Event {
	err := errors.New("auth: an entry of the revocation feed cannot be read, and was skipped")
	if r.Subject != "" {
		err = errors.New("auth: an entry of the revocation feed cannot be read; access tokens of its subject expire")
	}
	return Event{Type: EventFault, Session: Session{Subject: r.Subject}, Err: err}
}

// readFeed calls the feed. It may take as long whether or not it waits, since
// there may be much to read. take gets the answer.
func (v *Verifier) readFeed(ctx context.Context, position string, wait time.Duration, take func(rs []Revocation, next string, more bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(feedWait, v.maxStale/2)+v.storeTimeout)
	defer cancel()
	return callHook("Feed.Changes", func() error {
		rs, next, more, err := v.feed.Changes(ctx, position, wait)
		if err == nil {
			err = take(rs, next, more)
		}
		return err
	})
}

// republish tells the store once more what this process knows: what it revoked
// itself, before it forgets it; what the store has not confirmed; and what the
// feed has lost. A failover that lost a revocation is healed by it as long as
// one process that knew is alive. It does so for a moment only, so that the
// feed is read all the while, and leaves the rest for later.
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
	if now.Sub(f.plannedAt) >= republishEvery || now.Before(f.plannedAt) {
		f.plannedAt = now
		v.revoked.planLeaving(now)
	}
	f.nextRepublish = f.republishPlanned(ctx, now)
	if !renewal.IsZero() && (f.nextRepublish.IsZero() || renewal.Before(f.nextRepublish)) {
		f.nextRepublish = renewal
	}
}

// republishPlanned returns when there is more to announce.
func (f *follower) republishPlanned(ctx context.Context, begun time.Time) (next time.Time) {
	v := f.v
	fails, successes := 0, 0
	announce := func(r Revocation, repeats bool) (done bool) {
		err := v.backend.republish(ctx, r, repeats)
		switch {
		case err == nil:
			fails = 0
			successes++
		case !errors.Is(err, ErrNotStorable): // which is an answer
			fails++
		}
		return err == nil
	}
	over := func() bool {
		passed := v.now().Sub(begun)
		return fails == republishFails || ctx.Err() != nil || passed >= republishFor || passed < 0 // the clock was set back
	}
	for len(f.lostNotices) > 0 && !over() && !isPaused(v.now(), f.retryNoticesAt, publishRetryFirst) {
		notice := f.lostNotices[0]
		f.lostNotices = f.lostNotices[1:]
		if !announce(notice, false) && fails > 0 {
			f.lostNotices = append(f.lostNotices, notice)
			f.retryNoticesAt = v.now().Add(publishRetryFirst).UnixMilli()
			break // so that no notice stops the entries
		}
	}
	for !over() {
		batch, later := v.revoked.takeDue(v.now())
		if len(batch) == 0 {
			return later
		}
		for i, a := range batch {
			if over() {
				v.revoked.putBack(batch[i:])
				break
			}
			ok := true
			for _, r := range a.revocations {
				ok = ok && announce(r, a.repeats)
			}
			v.revoked.markRepublished(a.entries, ok)
		}
	}
	if successes == 0 && fails > 0 { // the store takes nothing now
		return v.now().Add(publishRetryFirst)
	}
	return v.now()
}

// Ready returns a channel that is closed once revocations are known: from the
// start where there is no feed to follow, else when [Verifier.Run] has read it.
func (v *Verifier) Ready() <-chan struct{} { return v.ready }

// Health is what a health check should know.
type Health struct {
	Ready       bool
	FeedAge     time.Duration // how old is what is known of the feed; 0 where there is none to follow
	Revocations int           // entries in this process
}

// Health returns the state of the revocation feed.
func (v *Verifier) Health() Health {
	h := Health{Revocations: int(v.revoked.size.Load())}
	select {
	case <-v.ready:
		h.Ready = true
	default:
	}
	if v.feed != nil && h.Ready {
		h.FeedAge = v.feedAge()
	}
	return h
}

func (v *Verifier) feedAge() time.Duration {
	return max(0, v.now().Sub(time.UnixMilli(v.feedReadAt.Load())))
}

// isStale reports whether the feed is older than allowed, and says so once.
func (v *Verifier) isStale(ctx context.Context) bool {
	if v.feed == nil || v.feedReadAt.Load() == 0 || v.feedAge() <= v.maxStale {
		return false
	}
	if v.staleReported.CompareAndSwap(false, true) {
		v.emit(ctx, Event{Type: EventStale, Err: fmt.Errorf("auth: the revocation feed was last read %s ago", v.feedAge().Round(time.Second))})
	}
	return true
}
