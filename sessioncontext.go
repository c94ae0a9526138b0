package auth

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// cancelAll cancels the context of every watcher. It is called if revocations
// may have been missed.
func (rs *revocationSet) cancelAll() {
	rs.update(func() (ended []*watcher) {
		for _, sessions := range rs.watchers {
			for _, watchers := range sessions {
				for w := range watchers {
					ended = rs.endWatcher(ended, w, fmt.Errorf("%w: revocations may have been missed", ErrUnavailable))
				}
			}
		}
		return ended
	})
}

// watcher is a context that is canceled when its session ends.
type watcher struct {
	subjectTimes
	cancel context.CancelCauseFunc
	cause  error // set when the session has ended
}

// endWatcher removes w and appends it to ended, for [revocationSet.update] to
// cancel. It is called with rs locked.
func (rs *revocationSet) endWatcher(ended []*watcher, w *watcher, cause error) []*watcher {
	w.cause = cause
	rs.dropWatcher(w)
	return append(ended, w)
}

// dropWatcher removes w, if it was not removed before. It is called with rs
// locked.
func (rs *revocationSet) dropWatcher(w *watcher) {
	for _, subject := range w.subjects() {
		sessions := rs.watchers[subject]
		delete(sessions[w.sid], w)
		if len(sessions[w.sid]) == 0 {
			delete(sessions, w.sid)
		}
		if len(sessions) == 0 {
			delete(rs.watchers, subject)
		}
	}
}

// subjects returns the subject and the actor, if there is one: the entries of both
// end the session.
func (w *watcher) subjects() []string {
	if w.actor == "" {
		return []string{w.subject}
	}
	return []string{w.subject, w.actor}
}

// watch adds w, or cancels its context if an entry matches it already.
func (rs *revocationSet) watch(w *watcher) {
	rs.update(func() []*watcher {
		if rs.watchers == nil {
			rs.watchers = map[string]map[string]map[*watcher]struct{}{}
		}
		for _, subject := range w.subjects() {
			if rs.watchers[subject] == nil {
				rs.watchers[subject] = map[string]map[*watcher]struct{}{}
			}
			if rs.watchers[subject][w.sid] == nil {
				rs.watchers[subject][w.sid] = map[*watcher]struct{}{}
			}
			rs.watchers[subject][w.sid][w] = struct{}{}
		}
		if _, err := rs.findLocked(w.subjectTimes, func(*entry) bool { return true }); err != nil {
			return rs.endWatcher(nil, w, err)
		}
		return nil
	})
}

func (rs *revocationSet) unwatch(w *watcher) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.dropWatcher(w)
}

// SessionContext returns a copy of ctx that is canceled when the session of c
// ends, or when the client must authenticate again. [context.Cause] then returns
// one of these errors:
//
//   - [ErrSessionRevoked]: the session was revoked.
//   - [ErrTokenExpired]: the access token was revoked by
//     [Authenticator.ExpireAccess], or c.SessionExpiresAt has passed.
//   - [ErrUnavailable]: the revocation feed was read again after more than a
//     minute, so a revocation may have been missed.
//
// [ResponseFor] returns the reason of a revocation.
//
// The expiry of the access token does not cancel the context. A refresh does
// not cancel or extend it.
//
// SessionContext is for handlers that run longer than their access token is
// valid, such as those of server-sent events and WebSockets. When the
// context is canceled, the handler should return, and the client must connect
// again. Call the CancelFunc when the handler returns.
func (v *Verifier) SessionContext(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	if v.members != nil {
		m := v.members[0] // for claims that a test created
		if i := slices.IndexFunc(v.members, func(m *Verifier) bool { return m.issuer == c.Issuer }); i >= 0 {
			m = v.members[i]
		}
		return m.SessionContext(ctx, c)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{subjectTimes: c.times(), cancel: cancel}
	v.revoked.watch(w)
	left := time.Duration(math.MaxInt64)
	if !c.SessionExpiresAt.IsZero() { // only claims that a test created have none
		left = c.SessionExpiresAt.Sub(v.now())
	}
	end := time.AfterFunc(left, func() {
		cancel(fmt.Errorf("%w: SessionExpiresAt has passed", ErrTokenExpired))
	})
	context.AfterFunc(ctx, func() {
		end.Stop()
		v.revoked.unwatch(w)
	})
	return ctx, func() { cancel(nil) }
}
