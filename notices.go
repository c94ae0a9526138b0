package auth

import (
	"context"
	"maps"
	"time"
)

// A revocation must be known for as long as any access token that it concerns
// may live, and processes that share a store may have different AccessTTLs: a
// deployment changes it, or two services differ. So a process whose AccessTTL
// exceeds unannouncedTTL announces it in the feed by a notice, before it issues
// a token that lives for that long, and again before the notice runs out. A
// token with at most unannouncedTTL needs none: noticeMargin covers it, and
// clocks may differ by less than half of any AccessTTL.
const (
	unnoticedTTL = time.Minute
	noticeMargin = time.Minute      // for what clocks differ by, and for the rounding of seconds
	noticeLeast  = 10 * time.Minute // for how long a notice lets tokens be issued, at least
	noticePause  = time.Second      // after a notice that the store did not take
)

func (a *Authenticator) lifetime() time.Duration { return a.accessTTL }

// noticeLength is for how long one notice lets tokens be issued.
func (a *Authenticator) noticeLength() time.Duration { return max(a.accessTTL, noticeLeast) }

// needsNotice reports whether access tokens live for longer than other
// processes assume without a notice.
func (a *Authenticator) needsNotice() bool { return a.feed != nil && a.accessTTL > unnoticedTTL }

// noticeCovers reports whether tokens that live for a.accessTTL may be issued until
// length from now.
func (a *Authenticator) noticeCovers(now time.Time, length time.Duration) bool {
	return !a.needsNotice() ||
		a.revoked.noticedUntil.Load() >= now.Add(length+a.accessTTL+noticeMargin).UnixMilli()
}

// issuableTTL returns how long an access token that is issued now may live. That
// is AccessTTL, or unannouncedTTL as long as the store does not take a notice.
func (a *Authenticator) issuableTTL(ctx context.Context, now time.Time) time.Duration {
	if !a.noticeCovers(now, 0) {
		// A store that does not answer soon is not waited for, since a call
		// that matters more follows. Run tries for longer.
		ctx, cancel := context.WithTimeout(ctx, min(a.storeTimeout, cleanupTimeout))
		defer cancel()
		a.publishNotice(ctx, now)
		if !a.noticeCovers(now, 0) {
			return unnoticedTTL
		}
	}
	return a.accessTTL
}

// renewNotice announces a.accessTTL again in good time: when between a quarter
// and three quarters of the notice are left, which differs between processes,
// so that one of them renews it for all. It returns when the notice is to be
// renewed next, or the zero Time if none is.
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
		return time.UnixMilli(a.revoked.noticedUntil.Load() + 1).Add(-a.renewBefore() - a.accessTTL - noticeMargin)
	}
}

func (a *Authenticator) renewBefore() time.Duration {
	id := a.revoked.process
	part := time.Duration(base64Value[id[0]])<<6 | time.Duration(base64Value[id[1]]) // 0 to 4095
	return a.noticeLength()/4 + a.noticeLength()/2*part/4095
}

// publishNotice announces a.accessTTL, unless another call does so meanwhile. A store
// that did not take it is left alone for a moment.
func (a *Authenticator) publishNotice(ctx context.Context, now time.Time) {
	select {
	case a.publishingNotice <- struct{}{}:
		defer func() { <-a.publishingNotice }()
	case <-ctx.Done():
		return
	}
	if a.noticeCovers(now, a.renewBefore()) || isPaused(now, a.noticeRetry.Load(), noticePause) {
		return
	}
	r := Revocation{AccessTTL: a.accessTTL, Until: now.Add(a.noticeLength() + a.accessTTL + noticeMargin)}
	if err := a.storeNotice(ctx, r); err != nil {
		a.noticeRetry.Store(a.now().Add(noticePause).UnixMilli())
	}
}

func (a *Authenticator) storeNotice(ctx context.Context, r Revocation) error {
	r.ID = a.revoked.nextID()
	err := a.callStore(ctx, Session{}, "Revoke", func(ctx context.Context) error { return a.store.Revoke(ctx, r) })
	if err == nil {
		a.revoked.addOwnNotice(r, a.now())
	}
	return err
}

type notice struct {
	until      time.Time
	seenInRead uint64
}

// addNotice applies a notice. It is called with rs locked.
func (rs *revocationSet) addNotice(r Revocation, heard uint64, now time.Time) {
	if r.Until.Before(now) {
		return
	}
	longest := rs.longestTTLLocked(now)
	maps.DeleteFunc(rs.notices, func(_ time.Duration, n notice) bool { return n.until.Before(now) })
	if rs.notices == nil {
		rs.notices = map[time.Duration]notice{}
	}
	if n := rs.notices[r.AccessTTL]; !r.Until.Before(n.until) {
		rs.notices[r.AccessTTL] = notice{r.Until, max(heard, n.seenInRead)}
	}
	if r.AccessTTL >= rs.accessTTL {
		rs.noticedUntil.Store(max(rs.noticedUntil.Load(), r.Until.UnixMilli()))
	}
	if r.AccessTTL > max(longest, rs.accessTTL) {
		rs.ttlGrowths++
	}
}

// addOwnNotice applies a notice of this process that the store has taken.
func (rs *revocationSet) addOwnNotice(r Revocation, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.addNotice(r, rs.fullReads, now)
}

// ttlGrowth returns how often the longest lifetime has become longer.
func (rs *revocationSet) ttlGrowth() uint32 {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.ttlGrowths
}

// longestTTLLocked returns the longest lifetime that access tokens may have which are
// alive at now. It is called with rs locked.
func (rs *revocationSet) longestTTLLocked(now time.Time) (ttl time.Duration) {
	for d, n := range rs.notices {
		if n.until.After(now) {
			ttl = max(ttl, d)
		}
	}
	return ttl
}

// longestTTL is [revocations.longest] with rs unlocked.
func (rs *revocationSet) longestTTL(now time.Time) time.Duration {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.longestTTLLocked(now)
}
