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

// Bounds and defaults of times.
const (
	defaultTimeout    = 5 * time.Second
	maxTimeout        = time.Minute
	defaultMinRefresh = 30 * time.Second
	minMinRefresh     = time.Second
	maxMinRefresh     = time.Hour
	defaultMaxStale   = time.Hour
	maxMaxStale       = 24 * time.Hour

	retryFirst = time.Second // after a failure; doubled up to MinRefresh
	napLast    = time.Minute // Run looks at the clock at least so often
)

// Config is what [New] needs. It is copied. Zero fields have the default.
type Config struct {
	_ [0]func() // keyed literals only

	// URL is where the key set is. It is https, and has neither user name nor
	// fragment.
	URL string

	// Client makes the requests; nil means one that uses the proxy of the
	// environment and keeps no connection open. It is copied. In any case
	// redirects to another host, or from https to http, are not followed, and
	// no more than 3. Its Transport must heed the context of a request.
	Client *http.Client

	// Timeout bounds a request to the URL with its answer, and with it how
	// long VerifyKeys waits: 5 seconds by default, at most a minute.
	Timeout time.Duration

	// MinRefresh is how soon after an answer a kid that was not in it is asked
	// for again: 30 seconds by default, 1 second to 1 hour. Until then its
	// tokens are refused. It is also the longest wait between attempts while
	// there is no answer.
	MinRefresh time.Duration

	// MaxStale is how long after their time keys are used while the publisher
	// does not answer: 1 hour by default, at most a day; negative means not at
	// all. So long can a key that was withdrawn be of use to somebody who
	// keeps this process from hearing of it.
	MaxStale time.Duration

	// InsecureHTTP also allows an http URL, where anybody on the way can put
	// in keys of his own. It is meant for loopback.
	InsecureHTTP bool

	// OnError is called for each request that failed, and when a set has come
	// of which keys were left out: with the kid of each and why, once until
	// another key is left out. The text names neither the URL beyond its host
	// nor a token, and has nothing of a key.
	OnError func(ctx context.Context, err error)

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Keys are the public keys at a URL. They are an [auth.KeySource], and safe for
// concurrent use.
type Keys struct {
	url        *url.URL
	client     *http.Client
	timeout    time.Duration
	minRefresh time.Duration
	maxStale   time.Duration
	onError    func(context.Context, error)
	now        func() time.Time

	running atomic.Bool
	known   atomic.Pointer[knowledge] // never nil
	flight  atomic.Pointer[flight]    // nil: no request is under way
	mu      sync.Mutex                // of who changes these two
}

// knowledge is the last set and how the last attempt went. It never changes.
type knowledge struct {
	set   *keySet   // nil: there never was one
	err   error     // of the last attempt
	tries int       // how many failed in a row
	ended time.Time // when the last attempt was over
	again time.Time // until then nobody asks again unless the set is out of date
}

// flight is a request that is under way.
type flight struct{ done chan struct{} }

// New returns the Keys at a URL, or every mistake in c joined, each naming its
// field. It asks for nothing yet; VerifyKeys with an empty id does, where a
// server should not start without keys.
func New(c Config) (*Keys, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("jwks: Config."+format, args...)) }

	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		bad("URL is empty")
	case err != nil:
		bad("URL is not a URL") // whose text may hold a password
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
		if 0 < *d.value && *d.value < time.Millisecond { // a number without a unit counts nanoseconds
			bad("%s (%s) is less than 1ms; missing time unit?", d.name, *d.value)
			*d.value = 0 // check the others as if it were not set
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
	k := &Keys{
		url:        u,
		client:     newClient(c.Client, u),
		timeout:    c.Timeout,
		minRefresh: c.MinRefresh,
		maxStale:   max(0, c.MaxStale),
		onError:    c.OnError,
		now:        c.Now,
	}
	k.known.Store(&knowledge{})
	return k, nil
}

// newClient returns a client that stays on the host of u.
func newClient(given *http.Client, u *url.URL) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true // it is minutes until the next request
		t.MaxResponseHeaderBytes = 64 << 10
		c.Transport = t
	}
	more := c.CheckRedirect
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		switch {
		case len(via) > 3:
			return errors.New("more than 3 redirects")
		case !strings.EqualFold(r.URL.Host, u.Host):
			return errors.New("a redirect to another host")
		case r.URL.Scheme != u.Scheme && r.URL.Scheme != "https":
			return errors.New("a redirect from https to " + r.URL.Scheme)
		case more != nil:
			return more(r, via)
		}
		return nil
	}
	return &c
}

// What somebody must do who wants to know the keys of an id.
type need int

const (
	nothing   need = iota // the answer is known
	askAside              // the answer is known for now; somebody should ask
	askAndSee             // the answer is not known
)

// look returns what is known of an id at a time.
func (kn *knowledge) look(id string, now time.Time) ([]auth.Key, need, error) {
	keys := kn.set.find(id)
	fresh := kn.set != nil && now.Before(kn.set.expires)
	waiting := now.Before(kn.again)
	switch {
	case fresh && len(keys) > 0:
		return keys, nothing, nil
	case kn.err != nil && len(keys) > 0 && now.Before(kn.set.gone):
		if waiting {
			return keys, nothing, nil
		}
		return keys, askAside, nil
	case kn.err != nil && waiting:
		return nil, nothing, kn.err
	case fresh && waiting:
		return nil, nothing, nil // it was not in the answer
	}
	return nil, askAndSee, nil
}

// settle returns what is known of an id after an attempt.
func (kn *knowledge) settle(id string, now time.Time) ([]auth.Key, error) {
	keys := kn.set.find(id)
	if kn.err != nil && (len(keys) == 0 || !now.Before(kn.set.gone)) {
		return nil, kn.err
	}
	return keys, nil
}

// VerifyKeys implements [auth.KeySource]. While the keys are known it takes no
// lock and does no I/O.
//
// A request to the URL that a call begins serves all who wait for it, so it is
// not given up with that call; it ends within Config.Timeout.
func (k *Keys) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) {
	for {
		known := k.known.Load()
		keys, need, err := known.look(id, k.now())
		if need == nothing || need == askAside && k.flight.Load() != nil {
			return keys, err
		}
		f := k.ask(ctx, known)
		switch {
		case f == nil:
			continue // more is known by now
		case need == askAside:
			return keys, nil
		}
		select {
		case <-f.done:
			return k.known.Load().settle(id, k.now())
		case <-ctx.Done():
			return nil, fmt.Errorf("jwks: waiting for the key set: %w", context.Cause(ctx))
		}
	}
}

// Run keeps the keys ahead of their expiry until ctx ends, and returns ctx's
// error. A server calls it once, in a goroutine of its own. Without it keys are
// fetched when they are needed, and a request waits for them now and then.
func (k *Keys) Run(ctx context.Context) error {
	if !k.running.CompareAndSwap(false, true) {
		return errors.New("jwks: Run is running already")
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
		known := k.known.Load()
		if nap := known.due(k.minRefresh).Sub(k.now()); nap > 0 {
			timer.Reset(min(nap, napLast))
			continue
		}
		if f := k.ask(ctx, known); f != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-f.done:
			}
		}
		timer.Reset(0)
	}
}

// due returns when Run asks next.
func (kn *knowledge) due(minRefresh time.Duration) time.Time {
	switch {
	case kn.err != nil:
		return kn.ended.Add(backoff(kn.tries, minRefresh))
	case kn.set == nil:
		return time.Time{}
	}
	return kn.set.refresh
}

// backoff returns how long to wait after so many failures.
func backoff(tries int, longest time.Duration) time.Duration {
	return min(retryFirst<<min(tries-1, 20), longest)
}

// ask returns the request that is under way, which it begins if there is none;
// or nil, if known is not all that is known any more.
func (k *Keys) ask(ctx context.Context, known *knowledge) *flight {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known.Load() != known {
		return nil
	}
	f := k.flight.Load()
	if f == nil {
		f = &flight{done: make(chan struct{})}
		k.flight.Store(f)
		go k.fly(context.WithoutCancel(ctx), f, known)
	}
	return f
}

// fly makes a request and adds its answer to what is known.
func (k *Keys) fly(ctx context.Context, f *flight, known *knowledge) {
	began := k.now()
	set, err := k.fetch(ctx, known.set)
	now := k.now()
	next := &knowledge{set: set, ended: now, again: began.Add(k.minRefresh)}
	if err != nil {
		err = fmt.Errorf("jwks: the key set of %s: %w", k.url.Host, err)
		next.set, next.err, next.tries = known.set, err, known.tries+1
		next.again = now.Add(k.minRefresh)
		if known.set == nil || !now.Before(known.set.gone) { // nobody gets through meanwhile
			next.again = now.Add(backoff(next.tries, k.minRefresh))
		}
	} else {
		next.set = set.from(began, k.maxStale)
	}
	k.mu.Lock()
	k.known.Store(next)
	k.flight.Store(nil)
	k.mu.Unlock()
	close(f.done)

	if err != nil {
		k.report(ctx, err)
	} else if set.bad != nil && (known.set == nil || known.set.bad == nil || known.set.bad.Error() != set.bad.Error()) {
		k.report(ctx, fmt.Errorf("jwks: the key set of %s: left out: %w", k.url.Host, set.bad))
	}
}

// report tells the application. Its panic is contained: what has been fetched
// stays so.
func (k *Keys) report(ctx context.Context, err error) {
	if k.onError != nil {
		defer func() { _ = recover() }()
		k.onError(ctx, err)
	}
}
