package auth

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth/password"
)

// WriteError writes the response to a request that failed with err, and emits an
// event that says why; see [EventRefused]. It calls Config.OnError, or
// [DefaultOnError] if that is nil.
//
// An error that this package does not define is status 500 and an [EventFault].
// The response has no details of it.
func (v *Verifier) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	v.writeRefusal(w, r, err, guardRefusal{})
}

// guardRefusal is a refusal by a guard of Require. It is zero for other refusals,
// except for code.
type guardRefusal struct {
	position int     // of the guard in the list, from 1
	claims   *Claims // verified
	code     string  // of ReportError
}

// session returns the session of the claims, or a zero Session.
func (g guardRefusal) session() Session {
	if g.claims == nil {
		return Session{}
	}
	return g.claims.session()
}

// ReportError emits the event that [Verifier.WriteError] emits for err, and returns
// the response, but writes nothing. It is for handlers whose protocol has error
// responses of its own, such as those of package oauth. If code is not "", it is the
// Code of the response and the Reason of an [EventRefused]. It must not come from the
// request.
func (v *Verifier) ReportError(r *http.Request, err error, code string) ErrorResponse {
	return v.reportRefusal(r, v.withResource(err), guardRefusal{code: code})
}

func (v *Verifier) writeRefusal(w http.ResponseWriter, r *http.Request, err error, by guardRefusal) {
	err = v.withResource(err)
	a := v.reportRefusal(r, err, by)
	if v.onError != nil {
		v.callOnError(w, r, err)
		return
	}
	a.write(w)
}

// reportRefusal emits an event for an error with which a request is refused, and
// returns the response to it. There is no event if one was emitted where the
// error occurred, nor for a token or a session that has ended, because that is
// not a mistake.
func (v *Verifier) reportRefusal(r *http.Request, err error, by guardRefusal) ErrorResponse {
	if err == nil {
		err = errors.New("auth: WriteError was called without an error")
	}
	f := errorParts{row: len(responses)}
	if panicked := callHook("error", func() error { f.scan(err); return nil }); panicked != nil { // of a method of the application
		f, err = errorParts{row: len(responses)}, panicked
	}
	a := f.response()
	if by.code != "" {
		a.Code = by.code
	}
	if f.reported {
		return a
	}
	if a.Status >= http.StatusInternalServerError && !f.is(password.ErrBusy) && !f.is(errCookieTooLarge) {
		if !errors.Is(r.Context().Err(), context.Canceled) { // the client has not closed the connection
			v.emit(r.Context(), Event{Type: EventFault, Session: by.session(), Device: v.device(r), Err: safeError(err)})
		}
		return a
	}
	switch {
	case v.faultsOnly, f.is(ErrTokenExpired), f.is(ErrSessionRevoked), f.is(ErrTokenReused), f.is(ErrInvalidCredentials), f.is(errCurrentPassword), f.is(ErrFactorRequired):
		return a
	}
	cause := f.cause + string(f.request) + by.code
	if by.position > 0 || f.is(ErrForbidden) {
		cause += r.Pattern // another route may have another mistake
	}
	if n, ok := v.refusals.next(refusalKey{f.row, f.grant, cause, by.position}, v.now()); ok {
		v.emit(r.Context(), Event{Type: EventRefused, Session: by.session(), Reason: a.Code, Device: v.device(r), Suppressed: n, Err: safeError(err)})
	}
	return a
}

// is reports whether the response is that of a row with the error target.
func (f *errorParts) is(target error) bool {
	return f.row < len(responses) && responses[f.row].err == target //nolint:errorlint // rows are compared by identity
}

// isOwn reports whether err wraps an error of this package that has a response.
// Errors of package password about one password do not count.
func isOwn(err error) bool {
	f := errorParts{row: len(responses)}
	f.scan(err)
	return f.row < len(responses) && !f.is(password.ErrMismatch) && !f.is(password.ErrTooLong) && !f.is(password.ErrEmpty) && !f.is(password.ErrRefused)
}

// safeError returns err, or an error without its text if one of its methods, of
// the application, panics.
func safeError(err error) error { return callHook("Error", func() error { return err }) }

// refusalKey is what one limit of events for refusals applies to. Clients cannot
// choose its values.
type refusalKey struct {
	row   int
	grant bool
	cause string
	guard int // guardRefusal.position
}

// eventLimiter limits events to one per key and emitInterval.
type eventLimiter[K comparable] struct {
	mu   sync.Mutex
	keys map[K]*limitedEvent
}

type limitedEvent struct {
	last       int64 // when the last event was emitted, in Unix milliseconds
	suppressed int64 // events since then
}

// isPaused reports whether no event of the key may be emitted now.
func (e *limitedEvent) isPaused(now time.Time) bool {
	return isPaused(now, e.last+emitInterval.Milliseconds(), emitInterval)
}

// maxLimitedKeys bounds the keys of an eventLimiter. If there are as many, next
// forgets those for which an event may be emitted again. If there are none, all
// further keys share the limit of the zero key.
const maxLimitedKeys = 128

// next reports whether an event of key may be emitted now, and how many were
// suppressed since the last one.
func (l *eventLimiter[K]) next(key K, now time.Time) (suppressed int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.keys[key]
	if e == nil {
		if len(l.keys) >= maxLimitedKeys {
			maps.DeleteFunc(l.keys, func(_ K, e *limitedEvent) bool { return !e.isPaused(now) })
		}
		if len(l.keys) >= maxLimitedKeys {
			var shared K
			key = shared
		}
		if e = l.keys[key]; e == nil {
			e = &limitedEvent{}
			if l.keys == nil {
				l.keys = map[K]*limitedEvent{}
			}
			l.keys[key] = e
		}
	}
	if e.isPaused(now) {
		e.suppressed++
		return 0, false
	}
	suppressed = e.suppressed
	*e = limitedEvent{last: now.UnixMilli()}
	return suppressed, true
}

// logFaults returns the OnEvent for a Config without one. It logs faults to the
// default logger, at most one of a kind per emitInterval. It omits the fields of
// the event that identify users and clients.
func logFaults() func(context.Context, Event) {
	var limiter eventLimiter[string]
	return func(ctx context.Context, e Event) {
		suppressed, ok := limiter.next(kindOf(e), e.Time)
		if !ok && e.Type != EventStale {
			return
		}
		as := []slog.Attr{slog.String("error", e.Err.Error())}
		if suppressed > 0 {
			as = append(as, slog.Int64("suppressed", suppressed))
		}
		slog.Default().LogAttrs(ctx, slog.LevelError, "auth: "+string(e.Type), append(as, slog.String("hint", "set Config.OnEvent to receive all events"))...)
	}
}

// kindOf returns the part of the text of a fault that is the same for all of its
// kind: the text up to the first quote or digit.
func kindOf(e Event) string {
	text := e.Err.Error()
	if i := strings.IndexAny(text, "\"0123456789"); i >= 0 {
		text = text[:i]
	}
	return string(e.Type) + text[:min(len(text), 80)]
}
