package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// EventType is the type of an [Event].
type EventType string

// The types of events.
const (
	EventLogin        EventType = "login"         // a session was opened
	EventContinue     EventType = "continue"      // Continue opened a session that replaces another
	EventLoginRefused EventType = "login_refused" // a login, or another attempt with a secret, was refused; Err says why; Session.Subject is set if the user exists, and Session.ID for a password change
	EventRefresh      EventType = "refresh"       // a session was rotated
	EventRetry        EventType = "retry"         // a refresh did not rotate: a spent token in the retry window, or another device in the cooldown
	EventLateRetry    EventType = "late_retry"    // a spent token was presented after the retry window with the retry key of its rotation, so it was accepted
	EventReuse        EventType = "reuse"         // a spent token was presented after the retry window, or one from before the previous generation; the session was ended
	EventLogout       EventType = "logout"        // Logout ended a session; Err is set if the store has not confirmed it
	EventPassword     EventType = "password"      // a password was changed or set; Err is set if the store has not confirmed that the other sessions ended
	EventRevoked      EventType = "revoked"       // sessions or access tokens were revoked; Reason says why
	EventFault        EventType = "fault"         // something failed: a store, a user lookup, a hook, a clock, or issuing a token; see Err
	EventStale        EventType = "stale"         // the revocation feed is older than Config.MaxStale
	EventRefused      EventType = "refused"       // a request was refused; Reason is the "error" of the response, and Err says why
)

// Event reports something worth logging. It contains no secrets. The only data
// from clients in it are the [Device], the session name and, in the Err of an
// EventRefused, parts of the request such as its Origin or path; all without
// control characters, and cut to a bounded length. It does not contain the login
// name of a refused login, because users sometimes type their password there.
//
// There is at most one EventRefused per cause and minute, so that clients cannot
// fill a log. There also is at most one EventLoginRefused with an [ErrThrottled] per
// minute for all accounts, and one for all sources. For a guard, the cause is the
// pattern of the route and the position of the guard in the list that
// [Verifier.Require] was given. There is none for a token that has expired or whose
// session has ended, but there is one for a token that was issued with a store
// other than the [MemoryStore] in use. There is none where another event reports
// the refusal, as EventLoginRefused and EventReuse do.
type Event struct {
	Type EventType
	Time time.Time

	// Session is the session that the event is about. Unknown fields are zero.
	// If ID is set, so is Subject. Session.Actor says who acts for Subject. For
	// EventRetry, EventLateRetry and EventReuse, Session.Device and
	// Session.RotatedAt say who rotated the session last, and when. Event.Device
	// and Event.Time say who presented the token, and when. For an
	// EventRefused, Session is set if the token was verified: a guard refused the
	// request, or the token was issued with another store. Of a verified one-time
	// token, only Session.Subject is set.
	Session Session

	Device     Device // the client that sent the request
	Generation int64  // generation of the refresh token that was presented; 0 if none was

	// Reason is the Reason of the Revocation for EventRevoked and EventLogout, and
	// the "error" of the response for EventRefused. It is "" for other events.
	Reason string

	// Suppressed is how many events of the same cause were not emitted since the
	// last one. Only events that clients can cause at will are suppressed:
	// EventRefused, EventLoginRefused with an ErrThrottled, and some faults.
	Suppressed int64

	Err error // what failed, or why a login or a request was refused
}

// LogEvents returns a function for Config.OnEvent that logs events to l. Faults
// and stale feeds are logged at Error. Reuse, retries, late retries, refused logins, and
// refused requests whose cause may be a mistake in a configuration (an invalid
// token, or an origin that is not trusted) are logged at Warn; all other events
// at Info. LogEvents panics if l is nil.
func LogEvents(l *slog.Logger) func(context.Context, Event) {
	if l == nil {
		panic("auth: LogEvents: the logger is nil; pass slog.Default() or another logger")
	}
	return func(ctx context.Context, e Event) {
		level := slog.LevelInfo
		switch e.Type {
		case EventFault, EventStale:
			level = slog.LevelError
		case EventReuse, EventLoginRefused, EventRetry, EventLateRetry:
			level = slog.LevelWarn
		case EventRefused:
			if e.Reason == "invalid_token" || e.Reason == "invalid_grant" || e.Reason == "cross_origin" {
				level = slog.LevelWarn
			}
		}
		l.LogAttrs(ctx, level, "auth: "+string(e.Type), e.attrs()...)
	}
}

// LogValue returns the type and the attributes that [LogEvents] logs.
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
	if actor := e.Session.Actor(); actor != "" {
		as = append(as, slog.String("actor", actor))
	}
	as = appendDevice(as, "", e.Device)
	if e.Type == EventReuse || e.Type == EventRetry || e.Type == EventLateRetry {
		as = append(as, slog.Int64("generation", e.Generation), slog.Int64("current", e.Session.Generation),
			slog.Time("rotated_at", e.Session.RotatedAt))
		as = appendDevice(as, "holder_", e.Session.Device)
	}
	if e.Reason != "" {
		as = append(as, slog.String("reason", e.Reason))
	}
	if e.Suppressed > 0 {
		as = append(as, slog.Int64("suppressed", e.Suppressed))
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

// emit sets the time of e and delivers it. If ctx belongs to a call of Run, it
// puts e into the queue of that call instead.
func (v *Verifier) emit(ctx context.Context, e Event) {
	if v.faultsOnly && e.Type != EventFault && e.Type != EventStale {
		return
	}
	e.Time = v.now()
	e.Device.request, e.Session.Device.request = nil, nil
	if q, ok := ctx.Value(eventQueueKey{}).(*eventQueue); ok && q.of == v {
		select {
		case q.events <- e:
		default: // OnEvent blocks, and the queue is full
			v.dropped.Add(1)
		}
		return
	}
	v.deliverEvent(ctx, e)
}

// deliverEvent calls OnEvent. The request completes even if OnEvent panics or does
// not return. While too many calls of OnEvent have not returned, events are dropped.
func (v *Verifier) deliverEvent(ctx context.Context, e Event) {
	if v.hooks.isFull(hookKey{name: onEventHook}) { // an event about it could not be delivered
		v.dropped.Add(1)
		return
	}
	_ = v.runHook(context.WithoutCancel(ctx), onEventHook, eventTimeout, func(ctx context.Context) error {
		v.onEvent(ctx, e)
		return nil
	})
}

const onEventHook = "OnEvent"

// emitInterval is the minimum time between two events of emitLimited.
const emitInterval = time.Minute

// emitLimited emits an event that any client can cause, at most once per
// emitInterval and cause. cause is a constant.
func (v *Verifier) emitLimited(ctx context.Context, cause string, e Event) {
	if n, ok := v.faults.next(cause, v.now()); ok {
		e.Suppressed = n
		v.emit(ctx, e)
	}
}

// callHook calls code of the application and returns a panic as an error. The
// error contains the value of the panic only if that is a runtime error, because
// any other value may contain a secret. An error whose methods panic counts as a
// panic, so the caller can use the error that callHook returns.
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
	if err = f(); err != nil {
		parts := errorParts{row: len(responses)}
		parts.scan(err)
		_ = errors.As(err, new(*panicError)) // calls the methods As
		_ = err.Error()
	}
	return err
}

type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// eventQueue has the events of a call of Run. It is a value of the context of
// that call.
type eventQueue struct {
	of     *Verifier
	events chan Event
}

type eventQueueKey struct{}

// Bounds of Run's events.
const (
	eventsWaiting = 64          // events in the queue
	eventsFlush   = time.Second // how long Run waits for OnEvent before it returns
)

// queueEvents starts a goroutine that delivers events in order, and returns a
// context: events that are emitted with it are queued for that goroutine. stop
// tells the goroutine to end once the queue is empty, and waits for it for at
// most eventsFlush. Events that are then left are dropped.
func (v *Verifier) queueEvents(ctx context.Context) (queueing context.Context, stop func()) {
	q := &eventQueue{v, make(chan Event, eventsWaiting)}
	ends, delivered := make(chan struct{}), make(chan struct{})
	var late atomic.Bool
	deliver := func(e Event) {
		if late.Load() {
			v.dropped.Add(1)
			return
		}
		v.deliverEvent(ctx, e)
	}
	go func() {
		defer close(delivered)
		for {
			select {
			case e := <-q.events:
				deliver(e)
				continue
			default:
			}
			select {
			case e := <-q.events:
				deliver(e)
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
			late.Store(true)
		}
	}
}

// isRun reports whether ctx belongs to a call of Run.
func isRun(ctx context.Context) bool { return ctx.Value(eventQueueKey{}) != nil }
