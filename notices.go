package auth

import (
	"context"
	"encoding/base64"
	"maps"
	"time"
)

// Every process keeps a revocation until the last access token that it revokes
// has expired. Processes that share a store may have different AccessTTLs,
// because a deployment changes it or because two services differ. So a process
// whose AccessTTL exceeds unnoticedTTL publishes it in the feed as a notice
// before it issues a token with that lifetime, and renews the notice before it
// ends.
//
// A lifetime of at most unnoticedTTL needs no notice. Every process keeps a
// revocation for at least its own AccessTTL plus noticeMargin. noticeMargin is as
// long as that lifetime, and AccessTTL, which must exceed 2·Leeway, covers the
// difference between clocks.
const (
	unnoticedTTL    = time.Minute
	noticeMargin    = time.Minute      // covers the difference of clocks and the rounding to seconds
	minNoticeLength = 10 * time.Minute // least time for which a notice permits issuing tokens
	noticePause     = time.Second      // after a failure to store a notice
)

func (a *Authenticator) lifetime() time.Duration { return a.accessTTL }

// noticeLength returns for how long one notice permits issuing tokens.
func (a *Authenticator) noticeLength() time.Duration { return max(a.accessTTL, minNoticeLength) }

// needsNotice reports whether access tokens live longer than other processes
// assume without a notice.
func (a *Authenticator) needsNotice() bool { return a.shared && a.accessTTL > unnoticedTTL }

// noticeCovers reports whether tokens with a lifetime of a.accessTTL may be
// issued until now + length.
func (a *Authenticator) noticeCovers(now time.Time, length time.Duration) bool {
	return !a.needsNotice() ||
		!a.revoked.noticedUntil(a.accessTTL).Before(now.Add(length+a.accessTTL+noticeMargin))
}

// issuableTTL returns the lifetime of an access token that is issued now:
// AccessTTL, or unnoticedTTL if a notice is needed and cannot be stored.
func (a *Authenticator) issuableTTL(ctx context.Context, now time.Time) time.Duration {
	if !a.noticeCovers(now, 0) {
		// Do not wait long for the store, because a more important call
		// follows. Run waits longer. The notice is for other requests too, so
		// it does not end with this one.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.storeTimeout, cleanupTimeout))
		defer cancel()
		a.publishNotice(ctx, now)
		if !a.noticeCovers(now, 0) {
			return unnoticedTTL
		}
	}
	return a.accessTTL
}

// renewNotice publishes the notice of a.accessTTL again if less than renewBefore
// is left of it. It returns the time at which to call it again, or the zero Time
// if this process needs no notice.
func (a *Authenticator) renewNotice(ctx context.Context) (next time.Time) {
	now := a.now()
	if !a.noticeCovers(now, a.renewBefore()) {
		a.publishNotice(ctx, now)
	}
	switch {
	case !a.needsNotice():
		return time.Time{}
	case !a.noticeCovers(now, a.renewBefore()):
		return now.Add(publishRetryFirst)
	default:
		return a.revoked.noticedUntil(a.accessTTL).Add(time.Millisecond - a.renewBefore() - a.accessTTL - noticeMargin)
	}
}

// renewBefore returns how much of a notice is left when this process renews it:
// between a quarter and three quarters of noticeLength. It differs between
// processes, so that one of them renews the notice for all.
func (a *Authenticator) renewBefore() time.Duration {
	random, _ := base64.RawURLEncoding.DecodeString(a.revoked.process)
	part := time.Duration(random[0])<<4 | time.Duration(random[1]>>4) // 0 to 4095
	return a.noticeLength()/4 + a.noticeLength()/2*part/4095
}

// publishNotice publishes a notice of a.accessTTL, unless another call has done
// so in the meantime. After a failure it does nothing for noticePause. An event
// is emitted only after the other calls may go on, because OnEvent may block.
func (a *Authenticator) publishNotice(ctx context.Context, now time.Time) {
	_ = a.reportStore(ctx, Session{}, "Revoke", a.tryNotice(ctx, now))
}

// tryNotice is publishNotice without the event. It returns the error of the
// store.
func (a *Authenticator) tryNotice(ctx context.Context, now time.Time) error {
	select {
	case a.publishingNotice <- struct{}{}:
		defer func() { <-a.publishingNotice }()
	case <-ctx.Done():
		return nil
	}
	if a.noticeCovers(now, a.renewBefore()) || isPaused(now, a.noticeRetry.Load(), noticePause) {
		return nil
	}
	err := a.storeNotice(ctx, Revocation{AccessTTL: a.accessTTL, Until: now.Add(a.noticeLength() + a.accessTTL + noticeMargin)})
	if err != nil {
		a.noticeRetry.Store(a.now().Add(noticePause).UnixMilli())
	}
	return err
}

// storeNotice writes a notice to the store, then applies it in this process. It
// emits no event.
func (a *Authenticator) storeNotice(ctx context.Context, r Revocation) error {
	r.ID = a.revoked.nextID()
	err := a.tryStore(ctx, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
	if err == nil && a.revoked.addOwnNotice(r, a.now()) && a.memory != nil {
		// There is no Run that publishes the entries again. A token whose data is
		// older than one of them may be issued now, with the longer lifetime.
		a.revoked.extend(r.Until)
	}
	return err
}

// notice is the latest notice of one lifetime in a revocationSet.
type notice struct {
	until      time.Time
	seenInRead uint64
}

// addNotice applies a notice. It is called with rs locked.
func (rs *revocationSet) addNotice(r Revocation, seenInRead uint64, now time.Time) {
	if r.Until.Before(now) {
		return
	}
	longest := rs.longestTTLLocked(now)
	maps.DeleteFunc(rs.notices, func(_ time.Duration, n notice) bool { return n.until.Before(now) })
	if rs.notices == nil {
		rs.notices = map[time.Duration]notice{}
	}
	if n := rs.notices[r.AccessTTL]; !r.Until.Before(n.until) {
		rs.notices[r.AccessTTL] = notice{r.Until, max(seenInRead, n.seenInRead)}
	}
	if r.AccessTTL > max(longest, rs.accessTTL) {
		rs.ttlGrowths++
	}
}

// addOwnNotice applies a notice of this process that is in the store. It reports
// whether the longest known lifetime of access tokens has increased.
func (rs *revocationSet) addOwnNotice(r Revocation, now time.Time) (longer bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	growths := rs.ttlGrowths
	rs.addNotice(r, rs.fullReads, now)
	return rs.ttlGrowths != growths
}

// extend lets all entries end no earlier than until.
func (rs *revocationSet) extend(until time.Time) {
	rs.each(func(e *entry) { e.until = later(e.until, until) })
}

// noticedUntil returns until when notices permit access tokens with this
// lifetime to exist, or the zero Time if none does.
func (rs *revocationSet) noticedUntil(ttl time.Duration) (until time.Time) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	for d, n := range rs.notices {
		if d >= ttl {
			until = later(until, n.until)
		}
	}
	return until
}

// ttlGrowth returns how many times the longest known lifetime of access tokens
// has increased.
func (rs *revocationSet) ttlGrowth() uint32 {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.ttlGrowths
}

// longestTTLLocked returns the longest lifetime in the notices that have not
// ended at now. It is called with rs locked.
func (rs *revocationSet) longestTTLLocked(now time.Time) (ttl time.Duration) {
	for d, n := range rs.notices {
		if n.until.After(now) {
			ttl = max(ttl, d)
		}
	}
	return ttl
}

// longestTTL locks rs and returns longestTTLLocked.
func (rs *revocationSet) longestTTL(now time.Time) time.Duration {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.longestTTLLocked(now)
}
