package auth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// revocations is what this process knows of ended sessions and cuts. Each is
// kept until its Until has passed, so that there are few; with none, a look
// costs one atomic load.
type revocations struct {
	size      atomic.Int64 // entries
	seq       atomic.Uint64
	announces bool // entries of this process are announced twice

	mu       sync.RWMutex
	reading  uint64 // how often the whole feed was read
	sessions map[sessionKey]*revocation
	subjects map[string][]*revocation // cuts, and All
	queue    []queued                 // of all of them, the next to leave nearly first
	watchers map[string]map[*watcher]struct{}
}

type sessionKey struct{ subject, id string }

// revocation is one entry: a session, all sessions but some, or a cut alone.
type revocation struct {
	Revocation
	seq   uint64    // of the change that made it what it is
	own   bool      // made by this process
	again bool      // announced a second time already
	asked time.Time // when a refresh last asked the store about it
	open  bool      // the store has not confirmed it
	heard uint64    // the last reading of the whole feed since which it was heard of
}

// live reports whether the entry still counts: until its time, and for as long
// as the store has not confirmed it, or what failed to end would come back.
func (r *revocation) live(now time.Time) bool {
	return r.open || !r.Until.Before(now)
}

// queued is an entry with the Until under which it was queued.
type queued struct {
	*revocation
	until time.Time
}

// errCut is the reason to refuse an access token that was issued before its
// subject's cut. A refresh gives a new one.
var errCut = fmt.Errorf("%w: it was issued before its subject's access was expired", ErrTokenExpired)

// subjectTimes is what a revocation is compared with.
type subjectTimes struct {
	subject, sid string
	created      time.Time // the session, to the second
	issued       time.Time // the access token; the zero Time where there is none
}

func (c *Claims) times() subjectTimes {
	return subjectTimes{c.Subject, c.SessionID, c.AuthTime, later(c.IssuedAt, c.countsFrom)}
}

func (r *revocation) hits(t subjectTimes) error {
	switch {
	case r.Subject != t.subject:
		return nil
	case len(r.Sessions) > 0:
		if r.Sessions[0] == t.sid {
			return ErrSessionRevoked
		}
	case r.All:
		if t.created.Before(r.Cut) && !slices.Contains(r.Except, t.sid) {
			return ErrSessionRevoked
		}
	case !t.issued.IsZero() && t.issued.Before(r.Cut):
		return errCut
	}
	return nil
}

// check returns why what t describes is refused, and the entry that says so.
func (rs *revocations) check(t subjectTimes, now time.Time) (*revocation, error) {
	if rs.size.Load() == 0 {
		return nil, nil
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	if r := rs.sessions[sessionKey{t.subject, t.sid}]; r != nil && r.live(now) {
		return r, ErrSessionRevoked
	}
	var cut *revocation
	for _, r := range rs.subjects[t.subject] {
		if !r.live(now) {
			continue
		}
		if err := r.hits(t); errors.Is(err, errCut) {
			cut = r // the end of the session says more
		} else if err != nil {
			return r, err
		}
	}
	if cut != nil {
		return cut, errCut
	}
	return nil, nil
}

// reading is the clock, and the revocations that were known when it was read.
type reading struct {
	now time.Time
	seq uint64
}

// from returns the earliest time at which something of the subject may begin
// that was read by rd: a cut that was known then is not undercut. One that
// became known later is, so that nothing that was looked up before it outlives
// it.
func (rs *revocations) from(subject string, rd reading) time.Time {
	at := rd.now
	if rs.size.Load() == 0 {
		return at
	}
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	for _, r := range rs.subjects[subject] {
		if r.seq <= rd.seq && r.live(rd.now) && r.Cut.After(at) {
			at = r.Cut
		}
	}
	return at
}

// add enters a revocation of this process, or one that it announces again.
func (rs *revocations) add(r Revocation, own bool, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.enter(r, own, 0, now)
}

// hear enters what the feed told, as a whole or since the last time.
func (rs *revocations) hear(list []Revocation, whole bool, now time.Time) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if whole {
		rs.reading++
	}
	for _, r := range list {
		rs.enter(r, false, rs.reading, now)
	}
}

// enter adds a revocation, and ends the contexts that it concerns. It is called
// with rs locked.
func (rs *revocations) enter(r Revocation, own bool, heard uint64, now time.Time) {
	if r.Until.Before(now) {
		return
	}
	rs.prune(now)
	for _, id := range r.Sessions {
		key := sessionKey{r.Subject, id}
		if old := rs.sessions[key]; old != nil {
			old.merge(r, own, heard)
			continue
		}
		rs.insert(&revocation{Revocation: Revocation{Subject: r.Subject, Sessions: []string{id}, Until: r.Until}, own: own, heard: heard})
	}
	if r.All || !r.Cut.IsZero() && len(r.Sessions) == 0 {
		same := func(old *revocation) bool { return old.All == r.All && slices.Equal(old.Except, r.Except) }
		if i := slices.IndexFunc(rs.subjects[r.Subject], same); i >= 0 {
			old := rs.subjects[r.Subject][i]
			if r.Cut.After(old.Cut) {
				old.Cut, old.again = r.Cut, false
				old.seq = rs.seq.Add(1)
			}
			if r.Cut.Before(old.Cut) {
				heard = 0 // of an earlier one
			}
			old.merge(r, own, heard)
		} else {
			rs.insert(&revocation{Revocation: Revocation{Subject: r.Subject, All: r.All, Except: slices.Clone(r.Except), Cut: r.Cut, Until: r.Until}, own: own, heard: heard})
		}
	}
	for w := range rs.watchers[r.Subject] {
		w.test(rs)
	}
}

func (r *revocation) merge(with Revocation, own bool, heard uint64) {
	if !with.Until.Before(r.Until) {
		r.Until = with.Until
		r.heard = max(r.heard, heard)
	}
	r.own = r.own || own
}

func (rs *revocations) insert(r *revocation) {
	if rs.sessions == nil {
		rs.sessions, rs.subjects = map[sessionKey]*revocation{}, map[string][]*revocation{}
	}
	r.seq = rs.seq.Add(1)
	if len(r.Sessions) > 0 {
		rs.sessions[sessionKey{r.Subject, r.Sessions[0]}] = r
	} else {
		rs.subjects[r.Subject] = append(rs.subjects[r.Subject], r)
	}
	rs.queue = append(rs.queue, queued{r, r.Until})
	rs.size.Add(1)
}

// prune lets a few entries go whose time is over. One whose time was extended,
// or that the store has not confirmed, queues again.
func (rs *revocations) prune(now time.Time) {
	for range 8 {
		if len(rs.queue) == 0 || !rs.queue[0].until.Before(now) {
			return
		}
		r := rs.queue[0].revocation
		rs.queue[0] = queued{}
		rs.queue = rs.queue[1:]
		// What only this process may know stays until it was told once more.
		waits := rs.announces && r.own && !r.again && now.Before(r.Until.Add(announceLast))
		if r.live(now) || waits {
			rs.queue = append(rs.queue, queued{r, later(r.Until, now.Add(time.Minute))})
			continue
		}
		rs.size.Add(-1)
		if len(r.Sessions) > 0 {
			delete(rs.sessions, sessionKey{r.Subject, r.Sessions[0]})
			continue
		}
		rest := slices.DeleteFunc(rs.subjects[r.Subject], func(x *revocation) bool { return x == r })
		if len(rest) == 0 {
			delete(rs.subjects, r.Subject)
		} else {
			rs.subjects[r.Subject] = rest
		}
	}
}

// ask reports whether somebody who was refused by r may ask the store about it:
// once a minute, or until the store has confirmed it.
func (rs *revocations) ask(r *revocation, now time.Time) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if !r.open && !r.asked.IsZero() && now.Sub(r.asked) < time.Minute {
		return false
	}
	r.asked = now
	return true
}

// confirmed reports whether the store has taken r.
func (rs *revocations) confirmed(r *revocation) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return !r.open
}

// confirm notes whether the store has taken r.
func (rs *revocations) confirm(r Revocation, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, id := range r.Sessions {
		if known := rs.sessions[sessionKey{r.Subject, id}]; known != nil {
			known.open = !ok
		}
	}
	for _, known := range rs.subjects[r.Subject] {
		if ok && known.Cut.After(r.Cut) {
			continue // another has come meanwhile
		}
		if known.All == r.All && slices.Equal(known.Except, r.Except) {
			known.open = !ok
		}
	}
}

// announcement is an entry that is to be announced again.
type announcement struct {
	Revocation
	entry *revocation
}

// due returns the entries that are to be announced again: those of this process
// that leave soon and were not announced twice, those never confirmed, and, if
// the feed may have lost some, all that it was not heard of since it was last
// read as a whole.
func (rs *revocations) due(now time.Time, lost bool) []announcement {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.prune(now)
	before := now.Add(announceLead)
	var due []announcement
	for _, q := range rs.queue {
		r := q.revocation
		if lost && r.heard < rs.reading || r.open || r.own && !r.again && r.Until.Before(before) {
			due = append(due, announcement{Revocation{Subject: r.Subject, Sessions: r.Sessions, All: r.All, Except: r.Except, Cut: r.Cut}, r})
		}
	}
	return due
}

// announced notes that an entry was announced again.
func (rs *revocations) announced(r *revocation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.again = true
}

// missed ends every context: revocations may have come and gone unseen.
func (rs *revocations) missed() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, ws := range rs.watchers {
		for w := range ws {
			w.cancel(fmt.Errorf("%w: revocations may have been missed", ErrUnavailable))
		}
	}
}

// watcher is a context that ends with its session.
type watcher struct {
	subjectTimes
	cancel context.CancelCauseFunc
}

// test ends w if an entry concerns it. It is called with rs locked.
func (w *watcher) test(rs *revocations) {
	if r := rs.sessions[sessionKey{w.subject, w.sid}]; r != nil {
		w.cancel(ErrSessionRevoked)
		return
	}
	for _, r := range rs.subjects[w.subject] {
		if err := r.hits(w.subjectTimes); err != nil {
			w.cancel(err)
			return
		}
	}
}

func (rs *revocations) watch(w *watcher) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.watchers == nil {
		rs.watchers = map[string]map[*watcher]struct{}{}
	}
	if rs.watchers[w.subject] == nil {
		rs.watchers[w.subject] = map[*watcher]struct{}{}
	}
	rs.watchers[w.subject][w] = struct{}{}
	w.test(rs)
}

func (rs *revocations) unwatch(w *watcher) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.watchers[w.subject], w)
	if len(rs.watchers[w.subject]) == 0 {
		delete(rs.watchers, w.subject)
	}
}

// SessionContext returns a context that ends when the session of c does: when
// it is revoked ([ErrSessionRevoked]), when its subject's access is expired or
// c.SessionExpiresAt comes ([ErrTokenExpired]); [context.Cause] tells. A refresh
// neither ends nor extends it, and the expiry of the access token does not end
// it. It is for handlers that outlive their request's token, as those of SSE
// and WebSocket do; their clients connect again. Call the function when done.
func (v *Verifier) SessionContext(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{c.times(), cancel}
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

// Waits of Run.
const (
	feedWait       = 5 * time.Second
	feedRetryFirst = 50 * time.Millisecond
	feedRetryLast  = 5 * time.Second
	announceLead   = 30 * time.Second // before an entry leaves
	announceLast   = 10 * time.Minute // after it would have
	missedAfter    = time.Minute      // every entry lives for longer
)

// Run follows the revocation feed until ctx ends, and returns ctx's error. A
// server that passes a Store or a Feed calls it once, in a goroutine of its
// own; until it has read the feed, Verify answers [ErrUnavailable]. Where
// there is nothing to follow it just waits.
func (v *Verifier) Run(ctx context.Context) error {
	if v.feed == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("auth: Run is running already")
	}
	defer v.running.Store(false)
	retry := feedRetryFirst
	announced, lost := v.now(), false
	last := "" // position that was reached
	for position := ""; ctx.Err() == nil; {
		next, err := v.follow(ctx, position)
		if err == nil && position == "" && last != "" && !lost {
			// What went wrong may have been a failover.
			err = v.changes(ctx, last, 0, nil)
			if lost = errors.Is(err, ErrFeedReset); lost {
				v.emit(ctx, Event{Type: EventFault, Err: fmt.Errorf("auth: revocation feed: %w", err)})
				err = nil
			}
		}
		if err == nil {
			retry, position, last = feedRetryFirst, next, next
			if now := v.now(); lost || now.Sub(announced) >= announceLead/3 {
				announced = now
				lost = !v.announceAgain(ctx, lost) && lost
			}
			continue
		}
		position = ""
		if ctx.Err() != nil {
			break
		}
		v.emit(ctx, Event{Type: EventFault, Err: fmt.Errorf("auth: revocation feed: %w", err)})
		v.isStale(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, feedRetryLast)
	}
	return ctx.Err()
}

// follow reads the feed once.
func (v *Verifier) follow(ctx context.Context, position string) (next string, err error) {
	wait := min(feedWait, v.maxStale/2)
	if position == "" {
		wait = 0 // the whole horizon, which makes ready
	}
	asked := v.now()
	next = position
	for more := true; more && err == nil; wait = 0 {
		err = v.changes(ctx, next, wait, func(rs []Revocation, to string, others bool) error {
			if to == "" {
				return errors.New("the feed returned an empty position")
			}
			v.revoked.hear(rs, next == "", v.now())
			next, more = to, others
			return nil
		})
	}
	if err != nil {
		return "", err
	}
	if last := v.heard.Swap(asked.UnixMilli()); last != 0 && asked.Sub(time.UnixMilli(last)) > missedAfter {
		v.revoked.missed()
	}
	v.staleSaid.Store(false)
	if position == "" {
		v.readyOnce.Do(func() { close(v.ready) })
	}
	return next, nil
}

// changes calls the feed. It may take as long whether or not it waits, since
// there may be much to read. take, if it is not nil, gets the answer.
func (v *Verifier) changes(ctx context.Context, position string, wait time.Duration, take func(rs []Revocation, next string, more bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(feedWait, v.maxStale/2)+v.storeTimeout)
	defer cancel()
	return guardHook("Feed.Changes", func() error {
		rs, next, more, err := v.feed.Changes(ctx, position, wait)
		if err == nil && take != nil {
			err = take(rs, next, more)
		}
		return err
	})
}

// announceAgain tells the store once more what this process knows: what it
// made itself, before it forgets it, or all that the feed has lost. A failover
// that lost a revocation is healed by it as long as one process that knew is
// alive. It stops at the first that fails, so as not to keep the feed waiting,
// and reports whether none did.
func (v *Verifier) announceAgain(ctx context.Context, lost bool) bool {
	if v.announce == nil {
		return true
	}
	for _, r := range v.revoked.due(v.now(), lost) {
		if v.announce(ctx, r.Revocation) != nil {
			return false
		}
		v.revoked.announced(r.entry)
	}
	return true
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
