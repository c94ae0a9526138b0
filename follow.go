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
	feedWait       = 5 * time.Second
	feedRetryFirst = 50 * time.Millisecond
	feedRetryLast  = 5 * time.Second
	resetApart     = 30 * time.Second // one reset after another sooner is treated as an error
	announceLead   = 30 * time.Second // before an entry leaves
	announceLast   = 10 * time.Minute // after it would have
	announceEvery  = 10 * time.Second // how often Run looks for entries that leave
	announceFor    = 200 * time.Millisecond
	announceFails  = 2           // in a row, after which Run reads the feed first
	missedAfter    = time.Minute // every entry lives for longer
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
	f := follower{v: v, whole: true}
	retry := feedRetryFirst
	var lastReset time.Time
	for ctx.Err() == nil {
		err := f.step(ctx)
		if err == nil {
			if v.now().Sub(lastReset).Abs() > resetApart {
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
			often := now.Sub(lastReset).Abs() <= resetApart
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
	v        *Verifier
	position string       // that was reached
	pages    bool         // the last answer said that there is more
	asked    time.Time    // when the first of these pages was asked for
	whole    bool         // the feed is read from its beginning
	lost     bool         // it may have lost revocations
	growth   uint32       // of notices, that was acted upon
	planned  time.Time    // when entries that leave were last looked for
	next     time.Time    // when something is to be announced; the zero Time if nothing is
	notices  []Revocation // lost, to be announced again

	noticesAt int64 // not before this, Unix milliseconds
}

// reset begins again, after the feed has become another.
func (f *follower) reset() {
	f.position, f.pages, f.whole, f.lost = "", false, true, true
}

// step reads the feed once, from the position that was reached, then announces
// for a moment what is to be announced again. After an error it may be called
// again, and goes on from the same position.
func (f *follower) step(ctx context.Context) error {
	v := f.v
	wait := min(feedWait, v.maxStale/2)
	switch now := v.now(); {
	case f.pages:
		wait = 0
	case f.whole: // what makes Ready
		f.asked, wait = now, 0
	default:
		f.asked = now
		if !f.next.IsZero() {
			wait = min(wait, max(0, f.next.Sub(now)))
		}
	}
	err := v.changes(ctx, f.position, wait, func(rs []Revocation, next string, more bool) error {
		if next == "" {
			return errors.New("the feed returned an empty position")
		}
		for _, r := range v.revoked.hear(rs, f.position == "", v.now()) {
			v.emit(ctx, unreadableEvent(r))
		}
		if more && next == f.position {
			return errors.New("the feed returned the position that it was given, and says that there is more")
		}
		f.position, f.pages = next, more
		return nil
	})
	if err != nil || f.pages {
		return err
	}
	if last := v.heard.Swap(f.asked.UnixMilli()); last != 0 && f.asked.Sub(time.UnixMilli(last)) > missedAfter {
		v.revoked.missed()
	}
	v.staleSaid.Store(false)
	f.whole = false
	v.readyOnce.Do(func() { close(v.ready) })
	f.announce(ctx)
	return nil
}

func unreadableEvent(r Revocation) Event {
	err := errors.New("auth: an entry of the revocation feed cannot be read, and was skipped")
	if r.Subject != "" {
		err = errors.New("auth: an entry of the revocation feed cannot be read; access tokens of its subject expire")
	}
	return Event{Type: EventFault, Session: Session{Subject: r.Subject}, Err: err}
}

// changes calls the feed. It may take as long whether or not it waits, since
// there may be much to read. take gets the answer.
func (v *Verifier) changes(ctx context.Context, position string, wait time.Duration, take func(rs []Revocation, next string, more bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(feedWait, v.maxStale/2)+v.storeTimeout)
	defer cancel()
	return guardHook("Feed.Changes", func() error {
		rs, next, more, err := v.feed.Changes(ctx, position, wait)
		if err == nil {
			err = take(rs, next, more)
		}
		return err
	})
}

// announce tells the store once more what this process knows: what it revoked
// itself, before it forgets it; what the store has not confirmed; and what the
// feed has lost. A failover that lost a revocation is healed by it as long as
// one process that knew is alive. It does so for a moment only, so that the
// feed is read all the while, and leaves the rest for later.
func (f *follower) announce(ctx context.Context) {
	v := f.v
	now := v.now()
	v.revoked.prune(now)
	if v.announce == nil {
		return
	}
	renewal := v.renew(ctx)
	if f.lost {
		f.notices, f.lost = v.revoked.planLost(), false
	}
	if g := v.revoked.grown(); g != f.growth {
		f.growth = g
		v.revoked.planGrown()
	}
	if now.Sub(f.planned) >= announceEvery || now.Before(f.planned) {
		f.planned = now
		v.revoked.planLeaving(now)
	}
	f.next = f.announcePlanned(ctx, now)
	if !renewal.IsZero() && (f.next.IsZero() || renewal.Before(f.next)) {
		f.next = renewal
	}
}

// announcePlanned returns when there is more to announce.
func (f *follower) announcePlanned(ctx context.Context, begun time.Time) (next time.Time) {
	v := f.v
	fails, successes := 0, 0
	announce := func(r Revocation, repeats bool) (done bool) {
		err := v.announce(ctx, r, repeats)
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
		return fails == announceFails || ctx.Err() != nil || passed >= announceFor || passed < 0 // the clock was set back
	}
	for len(f.notices) > 0 && !over() && !isPaused(v.now(), f.noticesAt, announceRetryFirst) {
		notice := f.notices[0]
		f.notices = f.notices[1:]
		if !announce(notice, false) && fails > 0 {
			f.notices = append(f.notices, notice)
			f.noticesAt = v.now().Add(announceRetryFirst).UnixMilli()
			break // so that no notice stops the entries
		}
	}
	for !over() {
		batch, later := v.revoked.take(v.now())
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
			v.revoked.done(a.entries, ok)
		}
	}
	if successes == 0 && fails > 0 { // the store takes nothing now
		return v.now().Add(announceRetryFirst)
	}
	return v.now()
}

// Ready returns a channel that is closed once revocations are known: from the
// start where there is no feed to follow, else when [Verifier.Run] has read it.
func (v *Verifier) Ready() <-chan struct{} { return v.ready }

// Health is what a health check should know.
type Health struct {
	Ready       bool
	Age         time.Duration // how old is what is known of the feed; 0 where there is none to follow
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
		h.Age = v.feedAge()
	}
	return h
}

func (v *Verifier) feedAge() time.Duration {
	return max(0, v.now().Sub(time.UnixMilli(v.heard.Load())))
}

// isStale reports whether the feed is older than allowed, and says so once.
func (v *Verifier) isStale(ctx context.Context) bool {
	if v.feed == nil || v.heard.Load() == 0 || v.feedAge() <= v.maxStale {
		return false
	}
	if v.staleSaid.CompareAndSwap(false, true) {
		v.emit(ctx, Event{Type: EventStale, Err: fmt.Errorf("auth: the revocation feed was last read %s ago", v.feedAge().Round(time.Second))})
	}
	return true
}
