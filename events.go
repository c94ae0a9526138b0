package auth

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// EventType says what an [Event] is about.
type EventType string

// The types of events.
const (
	EventLogin        EventType = "login"         // a session was opened
	EventLoginRefused EventType = "login_refused" // Err says why; Session.Subject is set if there is such a user
	EventRefresh      EventType = "refresh"       // a session moved on
	EventRetry        EventType = "retry"         // an answer was given again: a second tab, a retry, or another device within the retry window
	EventReuse        EventType = "reuse"         // a spent token came back after its time: two parties hold it, the session was ended
	EventLogout       EventType = "logout"        // a session was ended by its holder
	EventRevoked      EventType = "revoked"       // sessions, or access tokens, were ended; Reason says why
	EventFault        EventType = "fault"         // a store, a user lookup or a hook failed; Err says how
	EventStale        EventType = "stale"         // the revocation feed is older than MaxStale
)

// Event is something that a log or a user should know of. Nothing in it is a
// secret, and nothing was typed by a client but the cleaned [Device] and
// session name; a login that was refused is not named, since people type
// passwords there.
type Event struct {
	Type EventType
	Time time.Time

	// Session is the record that it is about, as it now stands, as far as it
	// is known: at least the subject, if anything. For EventRetry and
	// EventReuse its Device and RotatedAt are those of the party that moved
	// the session last; Device and Time are those of the party that asks.
	Session Session

	Device     Device // who asks
	Generation int64  // of the refresh token that was presented; 0 if none was
	Reason     string // for EventRevoked: "request", "access" (ExpireAccess), "reuse", "user" (gone or disabled), "replaced", "evicted" or "login" (one that was not completed)
	Err        error  // what failed, or why a login was refused
}

// LogEvents returns a function for Config.OnEvent that logs to l: faults and
// stale feeds as errors, reuse as a warning, refused logins and repeats too,
// everything else as information.
func LogEvents(l *slog.Logger) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		level := slog.LevelInfo
		switch e.Type {
		case EventFault, EventStale:
			level = slog.LevelError
		case EventReuse, EventLoginRefused, EventRetry:
			level = slog.LevelWarn
		}
		l.LogAttrs(ctx, level, "auth: "+string(e.Type), e.attrs()...)
	}
}

// LogValue logs the event as [LogEvents] does.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(append([]slog.Attr{slog.String("type", string(e.Type))}, e.attrs()...)...)
}

func (e Event) attrs() []slog.Attr {
	var as []slog.Attr
	if e.Session.Subject != "" {
		as = append(as, slog.String("subject", e.Session.Subject))
	}
	if e.Session.ID != "" {
		as = append(as, slog.String("session", e.Session.ID))
	}
	as = appendDevice(as, "", e.Device)
	if e.Type == EventReuse || e.Type == EventRetry {
		as = append(as, slog.Int64("generation", e.Generation), slog.Int64("current", e.Session.Generation),
			slog.Time("rotated_at", e.Session.RotatedAt))
		as = appendDevice(as, "holder_", e.Session.Device)
	}
	if e.Reason != "" {
		as = append(as, slog.String("reason", e.Reason))
	}
	if e.Err != nil {
		as = append(as, slog.String("error", e.Err.Error()))
	}
	return as
}

func appendDevice(as []slog.Attr, prefix string, d Device) []slog.Attr {
	if d.IP.IsValid() {
		as = append(as, slog.String(prefix+"ip", d.IP.String()))
	}
	if d.UserAgent != "" {
		as = append(as, slog.String(prefix+"user_agent", d.UserAgent))
	}
	return as
}

// emit hands an event to the application, or to the queue of the Run that ctx
// belongs to.
func (v *Verifier) emit(ctx context.Context, e Event) {
	if v.onEvent == nil {
		return
	}
	e.Time = v.now()
	if q, ok := ctx.Value(eventQueueKey{}).(*eventQueue); ok && q.of == v {
		select {
		case q.events <- e:
		default: // OnEvent does not return; there is nobody to tell
		}
		return
	}
	v.deliverEvent(ctx, e)
}

// deliverEvent calls OnEvent. Its panic is contained: what has been decided stays
// so.
func (v *Verifier) deliverEvent(ctx context.Context, e Event) {
	_ = callHook("OnEvent", func() error {
		v.onEvent(context.WithoutCancel(ctx), e)
		return nil
	})
}

// emitInterval is how often emitLimited emits.
const emitInterval = time.Minute

// emitLimited emits an event that any client can cause as often as it likes, at
// most once a minute: last is when it was emitted, in Unix milliseconds.
func (v *Verifier) emitLimited(ctx context.Context, last *atomic.Int64, e Event) {
	now, before := v.now().UnixMilli(), last.Load()
	ago := now - before
	if before != 0 && 0 <= ago && ago < emitInterval.Milliseconds() { // less than 0: the clock was set back
		return
	}
	if last.CompareAndSwap(before, now) {
		v.emit(ctx, e)
	}
}

// callHook calls the application's code and turns its panic into an error.
// The value that it panicked with is named by its type alone, since it may
// hold anything.
func callHook(name string, f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			err = &panicError{fmt.Sprintf("auth: %s panicked: %v\n%s", name, p, debug.Stack())}
		default:
			err = &panicError{fmt.Sprintf("auth: %s panicked with a %T\n%s", name, p, debug.Stack())}
		}
	}()
	return f()
}

// panicError is what callHook makes of a panic.
type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// eventQueue takes the events of a Run. It is found in the context of what the
// Run does.
type eventQueue struct {
	of     *Verifier
	events chan Event
}

type eventQueueKey struct{}

// Bounds of Run's events.
const (
	eventsWaiting = 64
	eventsFlush   = time.Second // how long Run waits for OnEvent when it ends
)

// queueEvents returns a context whose events are delivered in order by a
// goroutine of their own. stop ends it when they are delivered.
func (v *Verifier) queueEvents(ctx context.Context) (queueing context.Context, stop func()) {
	q := &eventQueue{v, make(chan Event, eventsWaiting)}
	ends, delivered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(delivered)
		for {
			select {
			case e := <-q.events:
				v.deliverEvent(ctx, e)
				continue
			default:
			}
			select {
			case e := <-q.events:
				v.deliverEvent(ctx, e)
			case <-ends:
				return
			}
		}
	}()
	return context.WithValue(ctx, eventQueueKey{}, q), func() {
		close(ends)
		select {
		case <-delivered:
		case <-time.After(eventsFlush):
		}
	}
}
