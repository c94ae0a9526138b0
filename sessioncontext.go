package auth

import (
	"context"
	"fmt"
	"math"
	"time"
)

// cancelAll ends every context: revocations may have come and gone unseen.
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

// watcher is a context that ends with its session.
type watcher struct {
	subjectTimes
	cancel context.CancelCauseFunc
	cause  error // why it ends, once it does
}

// endWatcher takes w out and appends it to ended, for [revocations.change] to cancel.
// It is called with rs locked.
func (rs *revocationSet) endWatcher(ended []*watcher, w *watcher, cause error) []*watcher {
	w.cause = cause
	rs.dropWatcher(w)
	return append(ended, w)
}

// dropWatcher takes w out, if it is still there. It is called with rs locked.
func (rs *revocationSet) dropWatcher(w *watcher) {
	sessions := rs.watchers[w.subject]
	delete(sessions[w.sid], w)
	if len(sessions[w.sid]) == 0 {
		delete(sessions, w.sid)
	}
	if len(sessions) == 0 {
		delete(rs.watchers, w.subject)
	}
}

func (rs *revocationSet) watch(w *watcher) {
	rs.update(func() []*watcher {
		if rs.watchers == nil {
			rs.watchers = map[string]map[string]map[*watcher]struct{}{}
		}
		if rs.watchers[w.subject] == nil {
			rs.watchers[w.subject] = map[string]map[*watcher]struct{}{}
		}
		if rs.watchers[w.subject][w.sid] == nil {
			rs.watchers[w.subject][w.sid] = map[*watcher]struct{}{}
		}
		rs.watchers[w.subject][w.sid][w] = struct{}{}
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

// SessionContext returns a context that ends when the session of c does: when
// it is revoked ([ErrSessionRevoked]), when its subject's access is expired or
// c.SessionExpiresAt comes ([ErrTokenExpired]); [context.Cause] tells. A refresh
// neither ends nor extends it, and the expiry of the access token does not end
// it. It is for handlers that outlive their request's token, as those of SSE
// and WebSocket do; their clients connect again. Call the function when done.
func (v *Verifier) SessionContext(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{subjectTimes: c.times(), cancel: cancel}
	v.revoked.watch(w)
	left := time.Duration(math.MaxInt64)
	if !c.SessionExpiresAt.IsZero() { // it is in claims that a test made
		left = c.SessionExpiresAt.Sub(v.now())
	}
	end := time.AfterFunc(left, func() {
		cancel(fmt.Errorf("%w: the session's end has come", ErrTokenExpired))
	})
	context.AfterFunc(ctx, func() {
		end.Stop()
		v.revoked.unwatch(w)
	})
	return ctx, func() { cancel(nil) }
}
