package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth/password"
)

// Authenticator signs users in, manages their sessions and verifies their
// tokens. It is safe for concurrent use.
//
// The methods of the embedded Verifier protect handlers ([Verifier.Require],
// [Verifier.Optional]), follow revocations ([Verifier.Run], [Verifier.Ready]),
// write errors ([Verifier.WriteError]) and examine requests
// ([Verifier.CheckOrigin], [Verifier.Device]).
type Authenticator struct {
	*Verifier

	users       Users
	updater     PasswordUpdater // nil if users does not implement it
	factor      SecondFactor    // nil if no login needs a second step
	store       Store
	memory      *MemoryStore // the store, if it is a MemoryStore
	shared      bool         // other processes or Authenticators may use the store
	hasher      *password.Hasher
	limiter     Limiter // nil: only memoryLimiter
	accessKeys  activeKeys
	refreshKeys activeKeys
	oneTimeKeys activeKeys // derived from the refresh keys
	keysMu      sync.Mutex // held by SetKeys
	jwksMaxAge  time.Duration
	accessTTL   time.Duration
	idleTTL     time.Duration
	sessionTTL  time.Duration
	window      time.Duration // the retry window; negative means none
	maxSessions int           // 0 means no limit
	refuseOver  bool          // Config.RefuseOverLimit
	onLogin     func(context.Context, User, *SessionOptions) error
	claims      func(context.Context, User, Session) (map[string]any, error)
	redirects   *redirectTable // nil without AutoRefresh

	noRefreshToken noTokenErrors // for a request without a refresh token

	publishingNotice chan struct{} // full while a notice is being published
	noticeRetry      atomic.Int64  // no notice is published before this time; Unix milliseconds

	memoryLimiter *memoryLimiter
	limiterRetry  atomic.Int64 // limiter is not used before this time, because it has failed; Unix milliseconds; 0 if it responds
}

// New validates c and returns an Authenticator. The error reports every mistake
// in c, with the name of its field.
func New(c Config) (*Authenticator, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: Config."+format, args...)) }

	access, refresh, err := c.keys()
	if err != nil {
		errs = append(errs, err)
	}
	if c.Users == nil {
		bad("Users is nil; set it to your application's user lookup")
	} else if err := checkNotNil("Config.Users", c.Users); err != nil {
		errs = append(errs, err)
	}
	if c.SecondFactor != nil {
		if err := checkNotNil("Config.SecondFactor", c.SecondFactor); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Limiter != nil {
		if err := checkNotNil("Config.Limiter", c.Limiter); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Hasher == nil {
		c.Hasher = &password.Hasher{}
	} else if err := c.Hasher.Check(); err != nil {
		bad("Hasher: %w", err)
	}
	if c.AutoRefresh && c.Cookies == nil {
		bad("AutoRefresh requires Config.Cookies")
	}
	if c.AutoRefresh && len(c.Extractors) > 0 && !slices.Contains(c.Extractors, FromCookie()) {
		bad("AutoRefresh requires FromCookie in Config.Extractors; otherwise the cookies that it sets are never read")
	}
	if c.JWKSMaxAge == 0 {
		c.JWKSMaxAge = defaultJWKSMaxAge
	}
	if err := missingUnit("Config.JWKSMaxAge", c.JWKSMaxAge); err != nil {
		errs = append(errs, err)
	} else if c.JWKSMaxAge < minJWKSMaxAge || c.JWKSMaxAge > maxJWKSMaxAge {
		bad("JWKSMaxAge (%s) is not between %s and %s", c.JWKSMaxAge, minJWKSMaxAge, maxJWKSMaxAge)
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = defaultMaxSessions
	}
	if c.RefuseOverLimit && c.MaxSessions < 0 {
		bad("RefuseOverLimit requires a limit, but Config.MaxSessions (%d) means none", c.MaxSessions)
	}
	if err := c.setLifetimes(); err != nil {
		errs = append(errs, err)
	}
	shared := c.Store != nil
	if err := checkFeed("Config.Store", c.Store); err != nil {
		errs = append(errs, err)
		c.Store = nil
	}
	if c.Store == nil {
		c.Store = NewMemoryStore()
	}
	memory, _ := c.Store.(*MemoryStore)
	a := &Authenticator{
		users:            c.Users,
		factor:           c.SecondFactor,
		store:            c.Store,
		memory:           memory,
		shared:           shared,
		hasher:           c.Hasher,
		limiter:          c.Limiter,
		jwksMaxAge:       c.JWKSMaxAge,
		accessTTL:        c.AccessTTL,
		idleTTL:          c.IdleTTL,
		sessionTTL:       c.SessionTTL,
		window:           c.RetryWindow,
		maxSessions:      max(0, c.MaxSessions),
		refuseOver:       c.RefuseOverLimit,
		onLogin:          c.OnLogin,
		claims:           c.Claims,
		publishingNotice: make(chan struct{}, 1),
	}
	if a.Verifier, err = newVerifier("Config", VerifierConfig{
		Issuer: c.Issuer, Audience: c.Audience, Keys: &a.accessKeys,
		Cookies: c.Cookies, Extractors: c.Extractors, TrustedProxies: c.TrustedProxies, TrustUnixPeers: c.TrustUnixPeers,
		ResourceMetadata: c.ResourceMetadata, Leeway: c.Leeway, TokenCacheSize: c.TokenCacheSize,
		Feed: c.Store, StoreTimeout: c.StoreTimeout, HookTimeout: c.HookTimeout, MaxStale: c.MaxStale, StalePolicy: c.StalePolicy,
		OnEvent: c.OnEvent, OnError: c.OnError, Now: c.Now,
	}, a); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.updater, _ = c.Users.(PasswordUpdater)
	a.memoryLimiter = newMemoryLimiter(a.now)
	places := []string{"the header Refresh-Token", "the body field refresh_token"}
	if a.cookies != nil {
		places = append([]string{"the cookie " + a.cookies.refresh.Name}, places...)
	}
	a.noRefreshToken = newNoTokenErrors("refresh", places, a.cookies, true)
	if c.AutoRefresh {
		a.redirects = newRedirectTable()
	}
	a.accessKeys.ring.Store(a.newAccessRing(access))
	oneTime, err := oneTimeKeys(refresh)
	if err != nil {
		return nil, err
	}
	a.setRefreshKeys(refresh, oneTime)
	if err := a.checkRefreshSize(refresh); err != nil {
		return nil, err
	}
	return a, nil
}

// checkRefreshSize returns an error if a refresh token signed by one of keys
// could be too large for a cookie or for the parser. Refresh relies on this
// check: once a token is spent, issuing the next one must not fail.
func (a *Authenticator) checkRefreshSize(keys Keys) error {
	far := time.Unix(maxNumericDate, 0)
	worst := refreshClaims{
		subject:    longestSubject(),
		sid:        randomID(),
		generation: 1<<59 - 1,
		issuedAt:   far, expiresAt: far,
		constants: constants{
			amr:      slices.Repeat([]string{strings.Repeat("x", maxAMRText)}, maxAMR),
			authTime: far,
			actor:    "x", // a longer one is possible if the subject is shorter; see checkActorSize
			terms:    terms{far.Add(-time.Second), true, maxSessionTTL, maxSessionTTL},
		},
	}
	payload := worst.payload(a.issuer, a.audience)
	for i, k := range keys {
		if !k.signs() {
			continue
		}
		token, err := newKeyRing(keys[i:i+1], typRefresh, 0, a.now).signToken(a.now(), payload)
		if err == nil && a.cookies != nil {
			err = a.cookies.fits(&a.cookies.refresh, token)
		}
		if err != nil {
			return fmt.Errorf("auth: Config.Issuer and Config.Audience are too long for refresh tokens: %w", detail{err})
		}
	}
	return nil
}

// snapshot returns the current time and the current revocationSet.seq. It reads
// seq first, so that a change in between counts as later.
func (a *Authenticator) snapshot() snapshot {
	return snapshot{seq: a.revoked.seq.Load(), now: a.now()}
}

// internalError emits an event for an error that the application or this package
// caused, such as claims that do not fit into a token, and returns the error.
func (a *Authenticator) internalError(ctx context.Context, s Session, err error) error {
	if _, reported := isAbandoned(err); !reported {
		a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	}
	return reportedError{err}
}

// callStore calls the store with StoreTimeout. It returns ErrSessionNotFound and
// ErrNotStorable as they are. Any other error of the store becomes
// ErrUnavailable.
func (a *Authenticator) callStore(ctx context.Context, s Session, name string, call func(context.Context) error) error {
	return a.reportStore(ctx, s, name, a.tryStore(ctx, name, call))
}

// tryStore calls the store with StoreTimeout, and emits no event.
func (a *Authenticator) tryStore(ctx context.Context, name string, call func(context.Context) error) error {
	_, err := askStore(a, ctx, name, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
	return err
}

// askStore is tryStore for a call with a result. A MemoryStore never blocks, so it
// needs neither a goroutine nor a timeout.
func askStore[T any](a *Authenticator, ctx context.Context, name string, call func(context.Context) (T, error)) (result T, err error) { //nolint:revive // as callBounded
	if a.memory == nil {
		return callBounded(a.Verifier, ctx, "Store."+name, a.storeTimeout, call)
	}
	err = callHook("Store."+name, func() (err error) {
		result, err = call(ctx)
		return err
	})
	return result, err
}

// reportStore emits an event for an error of tryStore, and returns the error of
// callStore.
func (a *Authenticator) reportStore(ctx context.Context, s Session, name string, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrSessionNotFound):
		return err
	case errors.Is(err, ErrNotStorable): // repeating the call would not help
		return a.internalError(ctx, s, err)
	}
	return a.unavailable(ctx, s, fmt.Errorf("auth: Store.%s: %w", name, detail{err}))
}

// withinStoreTimeout returns a context that is not canceled with ctx. It ends
// after StoreTimeout, so that several calls to the store together take no longer
// than one call may.
func (a *Authenticator) withinStoreTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.storeTimeout)
}

// unavailable emits an event for an error of the store, the user lookup or the
// hasher, and returns it wrapped in ErrUnavailable. It emits no event if ctx was
// canceled, because then the client has closed the connection, unless a hook did not
// return even so.
func (a *Authenticator) unavailable(ctx context.Context, s Session, err error) error {
	if abandoned, reported := isAbandoned(err); !reported && (abandoned || !errors.Is(ctx.Err(), context.Canceled)) {
		a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	}
	return reportedError{fmt.Errorf("%w: %w", ErrUnavailable, detail{err})}
}

func (a *Authenticator) getSession(ctx context.Context, of Session) (Session, error) {
	s, err := askStore(a, ctx, "Get", func(ctx context.Context) (Session, error) { return a.store.Get(ctx, of.Subject, of.ID) })
	return s, a.reportStore(ctx, of, "Get", err)
}
