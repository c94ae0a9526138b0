package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the calls of hooks, which are the application's code: Users,
// SecondFactor, OnLogin, Claims, OnEvent, guards, a Store that is not a
// MemoryStore, and so on.
const (
	defaultHookTimeout = 5 * time.Second
	minHookTimeout     = time.Millisecond
	maxHookTimeout     = time.Minute
	eventTimeout       = time.Second            // of OnEvent, which delays the request
	hookGrace          = 100 * time.Millisecond // how long a hook may take to return once its context has ended
	maxAbandoned       = 64                     // abandoned calls of one hook
)

// hookCalls counts the calls of hooks that were abandoned and have not returned.
type hookCalls struct {
	total     atomic.Int64
	mu        sync.Mutex
	calls     map[hookKey]int // none is 0
	deadlines hookDeadlines
}

// hookKey identifies a hook. Each guard of each Require is a hook, so that a guard
// that hangs does not affect other routes.
type hookKey struct {
	name  string
	guard *Guard
}

// isFull reports whether the hook has so many abandoned calls that it must not be
// called.
func (h *hookCalls) isFull(k hookKey) bool {
	if h.total.Load() < maxAbandoned {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[k] >= maxAbandoned
}

// add adds n to the abandoned calls of a hook.
func (h *hookCalls) add(k hookKey, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls == nil {
		h.calls = map[hookKey]int{}
	}
	if h.calls[k] += n; h.calls[k] == 0 {
		delete(h.calls, k)
	}
	h.total.Add(int64(n))
}

// hookError is the error of a hook that was abandoned or not called.
type hookError struct {
	text     string
	reported bool // an event was emitted
}

func (e *hookError) Error() string { return e.text }

// hookCall is one call of a hook, in a goroutine of its own. That goroutine writes
// value and err before it closes done.
type hookCall[T any] struct {
	v        *Verifier
	key      hookKey
	f        func(context.Context) (T, error)
	ctx      hookContext
	deadline hookDeadline
	ended    atomic.Bool   // ctx was ended because the deadline is over
	state    atomic.Int32  // what happened first: hookReturned or hookAbandoned
	done     chan struct{} // closed when either has happened
	value    T
	err      error
}

const (
	hookReturned  = 1
	hookAbandoned = 2
)

// callBounded calls code of the application in a goroutine of its own, with a
// context that ends after timeout. A panic becomes an error, as with callHook.
//
// If f does not return within hookGrace after that context has ended, callBounded
// abandons the call and returns a hookError. The call is then counted until f
// returns, and its result is dropped: f must not write to variables of the caller.
// While maxAbandoned calls of the hook are abandoned, callBounded does not call it,
// and emits an event at most once per emitInterval. Calls that were in progress at
// that time may exceed maxAbandoned.
//
// If ctx is canceled because the client has disconnected, callBounded still waits
// until timeout. Otherwise clients could cause a slow hook to be abandoned.
//
// The caller must not hold a mutex.
func callBounded[T any](v *Verifier, ctx context.Context, name string, timeout time.Duration, f func(context.Context) (T, error)) (T, error) { //nolint:revive // ctx is not first, because a method cannot have type parameters
	return callKeyed(v, ctx, hookKey{name: name}, timeout, f)
}

// callKeyed is callBounded for a hook with the key k.
func callKeyed[T any](v *Verifier, ctx context.Context, k hookKey, timeout time.Duration, f func(context.Context) (T, error)) (T, error) { //nolint:revive // as callBounded
	if v.hooks.isFull(k) {
		var none T
		return none, v.refuseHook(ctx, k.name)
	}
	c := &hookCall[T]{v: v, key: k, f: f, done: make(chan struct{})}
	c.ctx.Context, c.ctx.deadline = ctx, time.Now().Add(timeout)
	c.deadline.call = c
	end, _ := c.ctx.Deadline() // always has one
	v.hooks.deadlines.set(&c.deadline, end)
	if isRun(ctx) { // Run returns when it is told to
		defer context.AfterFunc(ctx, func() { c.end() })()
	}
	go c.run()
	<-c.done
	v.hooks.deadlines.remove(&c.deadline)
	if c.state.Load() == hookAbandoned {
		var none T
		return none, &hookError{text: fmt.Sprintf("auth: %s did not return when its context ended, after at most %s", k.name, timeout)}
	}
	c.ctx.end(context.Canceled)
	return c.value, c.err
}

// end ends the context of the hook, and reports whether it was not ended before. The
// hook then has hookGrace to return.
func (c *hookCall[T]) end() bool {
	if !c.ended.CompareAndSwap(false, true) {
		return false
	}
	err := c.ctx.Context.Err()
	if err == nil {
		err = context.DeadlineExceeded
	}
	c.ctx.end(err)
	c.v.hooks.deadlines.set(&c.deadline, time.Now().Add(hookGrace))
	return true
}

// expire ends the context of the hook. When it is called again, it abandons the call.
func (c *hookCall[T]) expire() {
	if c.end() {
		return
	}
	c.v.hooks.add(c.key, 1)
	if c.state.CompareAndSwap(0, hookAbandoned) {
		close(c.done)
	} else {
		c.v.hooks.add(c.key, -1) // it has returned just now
	}
}

// run calls the hook. A hook that calls runtime.Goexit ends the goroutine.
func (c *hookCall[T]) run() {
	ended := true
	defer func() {
		if ended {
			c.err = &panicError{"auth: " + c.key.name + " ended its goroutine instead of returning; it must not call runtime.Goexit"}
		}
		if c.state.CompareAndSwap(0, hookReturned) {
			close(c.done)
		} else {
			c.v.hooks.add(c.key, -1)
		}
	}()
	c.err = callHook(c.key.name, func() (err error) {
		c.value, err = c.f(&c.ctx)
		return err
	})
	ended = false
}

// hookContext is the context of a hook. It is that of context.WithTimeout, but it
// has no timer of its own, and is registered with the context of the request only if
// the hook waits for its end. That costs less.
type hookContext struct {
	context.Context // of the request
	deadline        time.Time

	mu    sync.Mutex
	err   error
	done  chan struct{} // nil until it is needed
	after map[*func()]struct{}
	leave func() bool // ends the registration with the context of the request
}

// String keeps the fields out of the text that package fmt prints.
func (c *hookContext) String() string { return "auth.hookContext" }

// Deadline returns the earlier deadline of the request and of the hook.
func (c *hookContext) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && d.Before(c.deadline) {
		return d, true
	}
	return c.deadline, true
}

// Done returns a channel that is closed when the context ends.
func (c *hookContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	c.register()
	return c.done
}

// register lets the context end when that of the request does. It is called with c
// locked.
func (c *hookContext) register() {
	if c.leave == nil && c.err == nil {
		c.leave = context.AfterFunc(c.Context, func() { c.end(c.Context.Err()) })
	}
}

// Err returns why the context has ended, or nil. It ends the context if that of the
// request was canceled just now, as a context of package context does at once.
func (c *hookContext) Err() error {
	if err := c.Context.Err(); err != nil {
		c.end(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc calls f when the context ends. Package context uses it for contexts
// that the hook derives; otherwise each would need a goroutine.
func (c *hookContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f() // package context has locked the derived context
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = map[*func()]struct{}{}
	}
	c.after[&f] = struct{}{}
	c.register()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.after[&f]
		delete(c.after, &f)
		return waits
	}
}

// end ends the context. Later calls do nothing.
func (c *hookContext) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	after, leave := c.after, c.leave
	c.after = nil
	c.mu.Unlock() // a derived context locks itself, then c
	if leave != nil {
		leave()
	}
	for f := range after {
		(*f)()
	}
}

// refuseHook returns the error for a hook that is not called, because too many of
// its calls have not returned.
func (v *Verifier) refuseHook(ctx context.Context, name string) error {
	err := &hookError{fmt.Sprintf("auth: %s is not called, because %d calls of it did not return when their contexts ended", name, maxAbandoned), true}
	v.emitLimited(ctx, "hook "+name, Event{Type: EventFault, Err: err})
	return err
}

// isAbandoned reports whether err says that a call of a hook was abandoned, or
// refused because too many were.
func isAbandoned(err error) (abandoned, reported bool) {
	if err == nil { // as usual; errors.As needs an allocation
		return false, false
	}
	var h *hookError
	if errors.As(err, &h) {
		return true, h.reported
	}
	return false, false
}

// runHook is callBounded for a hook without a result.
func (v *Verifier) runHook(ctx context.Context, name string, timeout time.Duration, f func(context.Context) error) error {
	_, err := callBounded(v, ctx, name, timeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}

// CallHook calls f, which is code of the application, as hooks of Config are called:
// in a goroutine of its own, and with a context that ends after Config.HookTimeout. It
// is for packages that have hooks of their own, such as package oauth.
//
// CallHook returns the error of f if that says that a secret is wrong: if it wraps
// [ErrInvalidCredentials], [password.ErrMismatch] or [password.ErrTooLong]. If f
// returns any other error, panics, or does not return in time, CallHook emits an
// [EventFault] and returns [ErrUnavailable]. So it can be the check of
// [Authenticator.Throttle]. f must not write to variables that the caller uses afterward, since
// it may return later. name identifies the hook in events and in the limit of
// abandoned calls ([Health].Abandoned), so it does not come from a request.
func (a *Authenticator) CallHook(ctx context.Context, name string, f func(context.Context) error) error {
	err := a.runHook(ctx, name, a.hookTimeout, f)
	if err == nil || isWrongSecret(err) {
		return err
	}
	return a.unavailable(ctx, Session{}, fmt.Errorf("auth: %s: %w", name, detail{err}))
}

// abandoned returns the number of abandoned calls that have not returned.
func (h *hookCalls) abandoned() int { return int(h.total.Load()) }

// callOnError calls Config.OnError. Only the goroutine of the request may use its
// ResponseWriter, so the call cannot be abandoned; if it takes long, it is counted.
// If it panics, the response is that of an internal error. If a part of another
// response was written, the request is aborted. A panic with http.ErrAbortHandler
// does the same, as in a handler.
func (v *Verifier) callOnError(w http.ResponseWriter, r *http.Request, cause error) {
	defer v.watchOnError(r.Context())()
	header := maps.Clone(w.Header())
	tracked := &errorWriter{ResponseWriter: w}
	aborts := false
	err := callHook("Config.OnError", func() error {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler { //nolint:errorlint // as net/http does
				aborts = true
			} else if p != nil {
				panic(p)
			}
		}()
		v.onError(tracked, r, cause)
		return nil
	})
	if err != nil {
		v.emit(r.Context(), Event{Type: EventFault, Device: v.Device(r), Err: err})
	}
	switch {
	case aborts || err != nil && tracked.wrote:
		panic(http.ErrAbortHandler)
	case err != nil:
		clear(w.Header())
		maps.Copy(w.Header(), header)
		ResponseFor(err).write(w)
	}
}

// watchOnError reports a call of OnError that takes longer than HookTimeout, and
// counts it until the result is called.
func (v *Verifier) watchOnError(ctx context.Context) (done func()) {
	key := hookKey{name: "Config.OnError"}
	var state atomic.Int32
	timer := time.AfterFunc(v.hookTimeout, func() {
		v.hooks.add(key, 1)
		if !state.CompareAndSwap(0, hookAbandoned) {
			v.hooks.add(key, -1)
			return
		}
		v.emitLimited(ctx, "hook "+key.name, Event{Type: EventFault, Err: fmt.Errorf("auth: %s has not returned after %s; the request waits for it", key.name, v.hookTimeout)})
	})
	return func() {
		timer.Stop()
		if !state.CompareAndSwap(0, hookReturned) {
			v.hooks.add(key, -1)
		}
	}
}

// errorWriter is the ResponseWriter that OnError gets. It records whether OnError has
// begun to write the response.
type errorWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *errorWriter) WriteHeader(status int) {
	w.wrote = w.wrote || status >= http.StatusOK // others are informational
	w.ResponseWriter.WriteHeader(status)
}

func (w *errorWriter) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *errorWriter) Flush() {
	w.wrote = true
	_ = http.NewResponseController(w.ResponseWriter).Flush() // fails only if the writer cannot flush
}

// Unwrap is for http.ResponseController.
func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
