package jwks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// Defaults and bounds of Config.
const (
	defaultTimeout    = 5 * time.Second
	maxTimeout        = time.Minute
	defaultMinRefresh = 30 * time.Second
	minMinRefresh     = time.Second
	maxMinRefresh     = time.Hour
	defaultMaxStale   = time.Hour
	maxMaxStale       = 24 * time.Hour

	retryFirst = time.Second // wait after the first failure; doubled up to MinRefresh
	maxSleep   = time.Minute // Run checks the clock at least this often
)

// Config configures a [KeySet]. New copies it. A zero field means the default.
type Config struct {
	_ [0]func() // keyed literals only

	// URL is the address of the key set. It must be https, without a user name
	// or a fragment.
	URL string

	// Client sends the requests. nil means a client that uses the proxy of the
	// environment and keeps no connection open. New copies it. With any client,
	// at most 3 redirects are followed, and none to another host or from https
	// to http. Its Transport must respect the context of a request.
	Client *http.Client

	// Timeout bounds a fetch, including redirects and reading the body, and so
	// the time that VerifyKeys waits. The default is 5 seconds, the maximum a
	// minute.
	Timeout time.Duration

	// MinRefresh is the minimum time between a fetch and a later one that an
	// unknown kid causes. Until then tokens with that kid are refused. It is also
	// the longest wait between attempts while fetches fail. The default is 30
	// seconds, the range 1 second to 1 hour.
	MinRefresh time.Duration

	// MaxStale is how long keys are used beyond their lifetime while fetches
	// fail. The default is 1 hour, the maximum a day; negative means not at all.
	// An attacker who can block the fetches can use a withdrawn key for this
	// long.
	MaxStale time.Duration

	// InsecureHTTP also allows an http URL. Anyone on the network path can then
	// replace the keys. It is meant for loopback addresses.
	InsecureHTTP bool

	// OnEvent is called with an [auth.EventFault] for each fetch that failed, and
	// for a fetched set with skipped keys or without keys. Err then names the kid
	// of each skipped key and the reason, or says that the set is empty; it is
	// reported again only after that has changed. Err contains no part of the URL
	// except the host and the path, no token and no key. nil means that nothing is
	// reported. A function for [auth.Config].OnEvent, such as that of
	// [auth.LogEvents], can be used.
	OnEvent func(ctx context.Context, e auth.Event)

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// KeySet holds the public keys that are published at a URL. It is an
// [auth.KeySource], and safe for concurrent use.
type KeySet struct {
	url        *url.URL
	client     *http.Client
	timeout    time.Duration
	minRefresh time.Duration
	maxStale   time.Duration
	onEvent    func(context.Context, auth.Event)
	now        func() time.Time

	running atomic.Bool
	state   atomic.Pointer[state] // never nil
	fetch   atomic.Pointer[fetch] // the fetch in progress, or nil
	mu      sync.Mutex            // guards writes to state and fetch
}

// state is the last key set and the outcome of the last fetch. It is immutable.
type state struct {
	set      *snapshot // nil if no fetch has succeeded yet
	err      error     // of the last fetch
	failures int       // number of failed fetches in a row
	ended    time.Time // end of the last fetch
	// notBefore is the earliest time of another fetch, except if the lifetime of
	// the set is over and the last fetch succeeded.
	notBefore time.Time
}

// fetch is a fetch in progress.
type fetch struct{ done chan struct{} }

// New returns the KeySet at a URL. The error joins every problem in c, each
// naming its field. New does not fetch the set. A server that must not start
// without keys can call VerifyKeys with an empty id.
func New(c Config) (*KeySet, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("jwks: Config."+format, args...)) }

	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		bad("URL is empty")
	case err != nil:
		bad("URL cannot be parsed") // err may contain a password
	case u.Scheme == "http" && !c.InsecureHTTP:
		bad("URL is http; it must be https unless Config.InsecureHTTP is set")
	case u.Scheme != "https" && u.Scheme != "http":
		bad("URL is not https")
	case u.Hostname() == "":
		bad("URL has no host")
	case u.User != nil:
		bad("URL has a user name")
	case u.Fragment != "":
		bad("URL has a fragment")
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
	}{{"Timeout", &c.Timeout}, {"MinRefresh", &c.MinRefresh}, {"MaxStale", &c.MaxStale}} {
		if 0 < *d.value && *d.value < time.Millisecond { // a number without a unit is in nanoseconds
			bad("%s (%s) is less than 1ms; missing time unit?", d.name, *d.value)
			*d.value = 0 // check the other fields as if this one were not set
		}
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		bad("Timeout (%s) is not between 0 and %s", c.Timeout, maxTimeout)
	}
	if c.MinRefresh == 0 {
		c.MinRefresh = defaultMinRefresh
	}
	if c.MinRefresh < minMinRefresh || c.MinRefresh > maxMinRefresh {
		bad("MinRefresh (%s) is not between %s and %s", c.MinRefresh, minMinRefresh, maxMinRefresh)
	}
	if c.MaxStale == 0 {
		c.MaxStale = defaultMaxStale
	}
	if c.MaxStale > maxMaxStale {
		bad("MaxStale (%s) exceeds %s", c.MaxStale, maxMaxStale)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &KeySet{
		url:        u,
		client:     newClient(c.Client, u),
		timeout:    c.Timeout,
		minRefresh: c.MinRefresh,
		maxStale:   max(0, c.MaxStale),
		onEvent:    c.OnEvent,
		now:        c.Now,
	}
	k.state.Store(&state{})
	return k, nil
}

// newClient returns a copy of base, or a new client if base is nil. It does not
// follow redirects to a host other than that of u.
func newClient(base *http.Client, u *url.URL) *http.Client {
	var c http.Client
	if base != nil {
		c = *base
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true // the next request is minutes away
		t.MaxResponseHeaderBytes = 64 << 10
		c.Transport = t
	}
	next := c.CheckRedirect
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		switch {
		case len(via) > 3:
			return errors.New("more than 3 redirects")
		case !strings.EqualFold(r.URL.Host, u.Host):
			return errors.New("a redirect to another host")
		case r.URL.Scheme != u.Scheme && r.URL.Scheme != "https":
			return errors.New("a redirect from https to " + r.URL.Scheme)
		case next != nil:
			return next(r, via)
		}
		return nil
	}
	return &c
}

// action tells a caller of lookup what to do.
type action int

const (
	useResult    action = iota // use the result
	useAndFetch                // use the result, and fetch the set in the background
	fetchAndWait               // fetch the set and wait for it
)

// lookup returns the keys with an id, as far as they are known at time now.
func (st *state) lookup(id string, now time.Time) ([]auth.Key, action, error) {
	keys := st.set.find(id)
	fresh := st.set != nil && now.Before(st.set.expires)
	tooEarly := now.Before(st.notBefore)
	switch {
	case fresh && len(keys) > 0:
		return keys, useResult, nil
	case st.err != nil && len(keys) > 0 && now.Before(st.set.staleUntil):
		if tooEarly {
			return keys, useResult, nil
		}
		return keys, useAndFetch, nil
	case st.err != nil && tooEarly:
		return nil, useResult, st.err
	case fresh && tooEarly:
		return nil, useResult, nil // the set was fetched recently and does not have the key
	}
	return nil, fetchAndWait, nil
}

// result returns the keys with an id after a fetch, or why they are unknown.
func (st *state) result(id string, now time.Time) ([]auth.Key, error) {
	keys := st.set.find(id)
	if st.err != nil && (len(keys) == 0 || !now.Before(st.set.staleUntil)) {
		return nil, st.err
	}
	return keys, nil
}

// VerifyKeys implements [auth.KeySource]. If it needs no fetch, it takes no lock
// and does no I/O.
//
// A fetch serves every call that waits for it. It goes on when the call that
// started it is canceled, and ends within Config.Timeout.
func (k *KeySet) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) {
	for {
		st := k.state.Load()
		keys, action, err := st.lookup(id, k.now())
		if action == useResult || action == useAndFetch && k.fetch.Load() != nil {
			return keys, err
		}
		f := k.startFetch(ctx, st)
		switch {
		case f == nil:
			continue // a fetch has ended since
		case action == useAndFetch:
			return keys, nil
		}
		select {
		case <-f.done:
			return k.state.Load().result(id, k.now())
		case <-ctx.Done():
			return nil, fmt.Errorf("jwks: waiting for the key set: %w", context.Cause(ctx))
		}
	}
}

// Run fetches the set before its lifetime is over, until ctx is done. It returns
// the error of ctx. A server calls it once, in a goroutine of its own. Without
// Run the set is fetched when a request needs it, and that request waits.
func (k *KeySet) Run(ctx context.Context) error {
	if !k.running.CompareAndSwap(false, true) {
		return errors.New("jwks: Run is already running")
	}
	defer k.running.Store(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		st := k.state.Load()
		if wait := st.nextFetch(k.minRefresh).Sub(k.now()); wait > 0 {
			timer.Reset(min(wait, maxSleep))
			continue
		}
		if f := k.startFetch(ctx, st); f != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-f.done:
			}
		}
		timer.Reset(0)
	}
}

// nextFetch returns the time of Run's next fetch.
func (st *state) nextFetch(minRefresh time.Duration) time.Time {
	switch {
	case st.err != nil:
		return st.ended.Add(backoff(st.failures, minRefresh))
	case st.set == nil:
		return time.Time{}
	}
	return st.set.refresh
}

// backoff returns the wait after a number of failures in a row.
func backoff(failures int, longest time.Duration) time.Duration {
	return min(retryFirst<<min(failures-1, 20), longest)
}

// startFetch returns the fetch in progress, and starts one if there is none. It
// returns nil if the state is no longer st.
func (k *KeySet) startFetch(ctx context.Context, st *state) *fetch {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Load() != st {
		return nil
	}
	f := k.fetch.Load()
	if f == nil {
		f = &fetch{done: make(chan struct{})}
		k.fetch.Store(f)
		go k.refresh(context.WithoutCancel(ctx), f, st)
	}
	return f
}

// refresh fetches the set, replaces the state and closes f.done.
func (k *KeySet) refresh(ctx context.Context, f *fetch, old *state) {
	begin := k.now()
	set, err := k.get(ctx, old.set)
	now := k.now()
	st := &state{set: set, ended: now, notBefore: begin.Add(k.minRefresh)}
	if err != nil {
		err = fmt.Errorf("jwks: fetching the key set of %s: %w", k.address(), err)
		st.set, st.err, st.failures = old.set, err, old.failures+1
		st.notBefore = now.Add(k.minRefresh)
		if old.set == nil || !now.Before(old.set.staleUntil) { // every request fails until the next fetch
			st.notBefore = now.Add(backoff(st.failures, k.minRefresh))
		}
	} else {
		st.set = set.fetchedAt(begin, k.maxStale)
	}
	k.mu.Lock()
	k.state.Store(st)
	k.fetch.Store(nil)
	k.mu.Unlock()
	close(f.done)

	if err != nil {
		k.report(ctx, err)
	} else if set.problem != nil && (old.set == nil || old.set.problem == nil || old.set.problem.Error() != set.problem.Error()) {
		k.report(ctx, fmt.Errorf("jwks: key set of %s: %w", k.address(), set.problem))
	}
}

// address returns the host and the path of the URL. The query may contain a
// secret.
func (k *KeySet) address() string { return k.url.Host + k.url.EscapedPath() }

// report calls OnEvent. It recovers from a panic of OnEvent, which must not
// affect the fetch.
func (k *KeySet) report(ctx context.Context, err error) {
	if k.onEvent != nil {
		defer func() { _ = recover() }()
		k.onEvent(ctx, auth.Event{Type: auth.EventFault, Time: k.now(), Err: err})
	}
}
