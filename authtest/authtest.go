// Package authtest provides utilities for tests of applications that use package auth.
//
// [New] returns an Authenticator for a test, with a [Clock] that the test
// advances. [As] signs a request in as any user, with real tokens. So the
// middleware, the guards and the handlers run as they do in production:
//
//	a := authtest.New(t, auth.Config{})
//	r := authtest.As(t, a, httptest.NewRequest("GET", "/admin", nil), auth.User{ID: "u1", Roles: []string{"admin"}})
//	w := httptest.NewRecorder()
//	routes(a.Authenticator).ServeHTTP(w, r)
//
// Options of As say in which state the session is. So a test can sign in somebody who
// acts for the user, or whose session has lifetimes of its own ([Session]), whose access
// token has expired, or whose session was revoked. [Factors] is a second factor for
// tests of a login, and [ThrottleLogin] uses up the attempts of one.
//
// The application needs a function that builds its routes for a given
// Authenticator. That function must not call [auth.Verifier.Run], which main calls
// in production, and New in a test.
//
// A service that only verifies is tested with a.Verifier. The example Verifier
// shows a test of a [auth.Verifier] with the service's own configuration.
//
// If the handler that is tested is not behind middleware, [auth.NewContext]
// suffices.
//
// Every function needs the [testing.TB] of a running test, and calls its methods
// only.
package authtest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// Authenticator is an [auth.Authenticator] for tests, with a clock that the test
// advances. Create it with [New]. It is safe for concurrent use, so parallel
// subtests may share it.
type Authenticator struct {
	*auth.Authenticator
	Clock *Clock // the clock of the Authenticator

	config auth.Config // of the Authenticator, without empty fields
	users  *users
	// access and refresh are the cookies that a login sets. Their names are
	// empty if Config.Cookies is nil.
	access, refresh http.Cookie
}

// New returns an Authenticator with the configuration c. It reports an invalid c
// with t.Fatal. Fields that are required by [auth.New] may be empty:
//
//   - Issuer and Audience are then "authtest".
//   - The only secret is random. So two Authenticators do not accept each other's
//     tokens, unless the test sets Secrets.
//   - Users has no users, except those whom [As] has signed in.
//   - Store is an [auth.MemoryStore].
//
// If Now is nil, the clock stands still at the whole second in which New was
// called until the test advances it. If Now is set, the clock returns Now plus
// what it was advanced by. With Now set to [time.Now], New can be called in a
// [testing/synctest] bubble, where time.Sleep then moves the clock.
//
// If Hasher is nil, a Hasher that is fast and weak hashes passwords. If OnEvent
// is nil, all events are logged to t, so the output of a failed test says why
// requests were refused.
//
// Failed attempts are limited as in any other Authenticator. After five wrong
// passwords for a user, a test advances the clock by a second, or longer after
// each further one; see Config.Limiter.
//
// If Store is not an [auth.MemoryStore], New calls [auth.Verifier.Run], waits
// until it is [auth.Verifier.Ready], and stops it when t ends. The code that is
// tested must not call Run too, because the second call returns an error.
//
// With Cookies.InsecureHTTP, requests need a loopback host, or an [auth.EventFault]
// reports that anyone can read their tokens. The default host of package httptest
// is example.com, so create them with the whole URL:
//
//	httptest.NewRequest("GET", "http://localhost/notes", nil)
func New(t testing.TB, c auth.Config) *Authenticator {
	t.Helper()
	a := &Authenticator{Clock: &Clock{follow: c.Now}}
	if c.Now == nil {
		a.Clock = NewClock(time.Now().UTC().Truncate(time.Second))
	}
	c.Now = a.Clock.Now
	if c.Issuer == "" {
		c.Issuer = "authtest"
	}
	if len(c.Audience) == 0 {
		c.Audience = []string{"authtest"}
	}
	if len(c.Secrets) == 0 && len(c.AccessKeys) == 0 && len(c.RefreshKeys) == 0 {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		c.Secrets = [][]byte{secret}
	}
	if c.Users == nil {
		c.Users = noUsers{}
	}
	if c.Store == nil {
		c.Store = auth.NewMemoryStore()
	}
	if c.Hasher == nil {
		c.Hasher = &password.Hasher{Memory: 64, Time: 1}
	}
	if c.OnEvent == nil {
		c.OnEvent = logEvents(t)
	}
	if c.TokenCacheSize == 0 {
		c.TokenCacheSize = 1024 // allocating the default takes longer than most tests
	}
	// The first New checks the user lookup of the application, which the
	// configuration then wraps.
	if _, err := auth.New(c); err != nil {
		t.Fatalf("authtest.New: %v", err)
	}
	a.users, c.Users = wrapUsers(c.Users)
	var followed *followedStore
	if _, ok := c.Store.(*auth.MemoryStore); !ok {
		followed = newFollowedStore(c.Store)
		c.Store = followed
	}
	authenticator, err := auth.New(c)
	if err != nil {
		t.Fatalf("authtest.New: %v", err)
	}
	a.Authenticator, a.config = authenticator, c
	if c.Cookies != nil {
		a.access, a.refresh = cookiesOf(authenticator)
	}
	if followed != nil {
		a.run(t, followed)
	}
	return a
}

// rereadLimit is how long Clock.Advance waits for the feed. It is longer than Run
// waits after an error, and than a call of Changes may take.
const rereadLimit = 30 * time.Second

// run calls Run until t ends, and waits until it has read the feed. From then on,
// Clock.Advance waits until it has read the feed again.
func (a *Authenticator) run(t testing.TB, s *followedStore) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-a.Ready():
	case <-time.After(10 * time.Second):
		t.Fatalf("authtest.New: Config.Store did not return its revocation feed within 10s")
	}
	a.Clock.advancedTo = func(at time.Time) {
		isFresh := func() bool { // the feed was read after the clock was advanced
			since := max(0, a.Clock.Now().Sub(at)) // the clock may follow one that moves
			return a.Health().FeedAge <= since+time.Millisecond
		}
		if !s.reread(isFresh, done, rereadLimit) {
			t.Errorf("authtest: Clock.Advance: Config.Store did not return its revocation feed within %s", rereadLimit)
		}
	}
}

// cookiesOf returns the cookies that a sets at a login.
func cookiesOf(a *auth.Authenticator) (access, refresh http.Cookie) {
	w := httptest.NewRecorder()
	a.SetCookies(w, auth.Tokens{Access: "access", Refresh: "refresh"})
	for _, c := range w.Result().Cookies() {
		if c.Value == "access" {
			access = *c
		} else {
			refresh = *c
		}
	}
	return access, refresh
}

// logEvents returns a function for Config.OnEvent that logs to t. Events after
// the end of t, such as those of a server that still runs, are dropped.
func logEvents(t testing.TB) func(context.Context, auth.Event) {
	var mu sync.Mutex
	ended := false
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
	})
	log := auth.LogEvents(slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey { // not the time of the clock
				return slog.Attr{}
			}
			return a
		},
	})))
	return func(ctx context.Context, e auth.Event) {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			log(ctx, e)
		}
	}
}
