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

// Authenticator signs users in, keeps their sessions and verifies their
// tokens. It is safe for concurrent use.
type Authenticator struct {
	*Verifier

	users       Users
	updater     PasswordUpdater // nil if users is none
	store       Store
	hasher      *password.Hasher
	accessKeys  activeKeys
	refreshKeys activeKeys
	keysMu      sync.Mutex // of SetKeys
	jwksMaxAge  time.Duration
	accessTTL   time.Duration
	idleTTL     time.Duration
	sessionTTL  time.Duration
	window      time.Duration // negative if there is none
	cooldown    time.Duration
	maxSessions int // 0 if there is no limit
	autoRefresh bool

	publishingNotice chan struct{} // full while a notice is announced
	noticeRetry      atomic.Int64  // when to try again, Unix milliseconds
}

// New returns an Authenticator, or every mistake in c joined, each naming its
// field. Nothing is left to fail at the first request.
func New(c Config) (*Authenticator, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: Config."+format, args...)) }

	access, refresh, err := c.keys()
	if err != nil {
		errs = append(errs, err)
	}
	if c.Users == nil {
		bad("Users is nil")
	}
	if c.Hasher == nil {
		c.Hasher = &password.Hasher{}
	} else if err := c.Hasher.Check(); err != nil {
		bad("Hasher: %w", err)
	}
	if c.AutoRefresh && c.Cookies == nil {
		bad("AutoRefresh needs Cookies")
	}
	if c.AutoRefresh && len(c.Extractors) > 0 && !slices.Contains(c.Extractors, FromCookie()) {
		bad("AutoRefresh needs FromCookie among Extractors: what it sets would never be read, and it would redirect for ever")
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
	if err := c.setLifetimes(); err != nil {
		errs = append(errs, err)
	}
	var feed Feed
	if c.Store == nil {
		c.Store = NewMemoryStore() // nobody else can revoke in it, so there is nothing to follow
	} else {
		feed = c.Store
	}
	a := &Authenticator{
		users:            c.Users,
		store:            c.Store,
		hasher:           c.Hasher,
		jwksMaxAge:       c.JWKSMaxAge,
		accessTTL:        c.AccessTTL,
		idleTTL:          c.IdleTTL,
		sessionTTL:       c.SessionTTL,
		window:           c.RetryWindow,
		cooldown:         max(0, cooldownWindows*c.RetryWindow),
		maxSessions:      max(0, c.MaxSessions),
		autoRefresh:      c.AutoRefresh,
		publishingNotice: make(chan struct{}, 1),
	}
	if a.Verifier, err = newVerifier("Config", VerifierConfig{
		Issuer: c.Issuer, Audience: c.Audience, Keys: &a.accessKeys,
		Cookies: c.Cookies, Extractors: c.Extractors, TrustedProxies: c.TrustedProxies, Leeway: c.Leeway, TokenCacheSize: c.TokenCacheSize,
		Feed: feed, StoreTimeout: c.StoreTimeout, MaxStale: c.MaxStale, StalePolicy: c.StalePolicy,
		OnEvent: c.OnEvent, OnError: c.OnError, Now: c.Now,
	}, a); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.updater, _ = c.Users.(PasswordUpdater)
	a.accessKeys.ring.Store(a.newAccessRing(access))
	a.refreshKeys.ring.Store(newKeyRing(refresh, typRefresh, a.sessionTTL+2*a.leeway, a.now))
	if err := a.checkRefreshSize(refresh); err != nil {
		return nil, err
	}
	return a, nil
}

// checkRefreshSize makes sure that no refresh token is ever too large, whichever
// of the keys signs it, so that nothing can fail after a token was spent.
func (a *Authenticator) checkRefreshSize(keys Keys) error {
	far := time.Unix(maxNumericDate, 0)
	worst := refreshClaims{
		subject:    strings.Repeat("<", maxSubject-2) + "é", // what JSON makes most of
		sid:        randomID(),
		generation: 1<<59 - 1,
		amr:        slices.Repeat([]string{strings.Repeat("x", maxAMRText)}, maxAMR),
		authTime:   far, issuedAt: far, expiresAt: far,
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
			return fmt.Errorf("auth: Config.Issuer and Config.Audience are too long for refresh tokens: %w", err)
		}
	}
	return nil
}

// snapshot reads the clock, and what is known of revocations at that time.
func (a *Authenticator) snapshot() snapshot {
	return snapshot{seq: a.revoked.seq.Load(), now: a.now()}
}

// internalError reports a mistake of the application's or ours, such as claims that
// cannot be put into a token.
func (a *Authenticator) internalError(ctx context.Context, s Session, err error) error {
	a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	return err
}

// callStore calls the store, with the time that it may take. Decisions of the
// store are passed on; anything else means that it did not answer.
func (a *Authenticator) callStore(ctx context.Context, s Session, name string, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, a.storeTimeout)
	defer cancel()
	err := callHook("Store."+name, func() error { return call(limited) })
	switch {
	case err == nil || errors.Is(err, ErrSessionNotFound):
		return err
	case errors.Is(err, ErrNotStorable): // to try again does not help
		return a.internalError(ctx, s, err)
	}
	return a.unavailable(ctx, s, fmt.Errorf("auth: Store.%s: %w", name, err))
}

// withinStoreTimeout returns a context that is not canceled with ctx, in which
// several calls of the store together take no longer than one may.
func (a *Authenticator) withinStoreTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.storeTimeout)
}

// unavailable reports that something did not answer, and returns what the caller is
// told. A client that hung up is not a fault.
func (a *Authenticator) unavailable(ctx context.Context, s Session, err error) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		a.emit(ctx, Event{Type: EventFault, Session: s, Err: err})
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// getSession reads the record of a session.
func (a *Authenticator) getSession(ctx context.Context, of Session) (s Session, err error) {
	err = a.callStore(ctx, of, "Get", func(ctx context.Context) (err error) {
		s, err = a.store.Get(ctx, of.Subject, of.ID)
		return err
	})
	return s, err
}

// notBefore returns the first whole second after everything that was issued up
// to now, by clocks that are up to leeway ahead. It is as early as it can be: a
// process that has not heard of it yet issues tokens that others refuse, until
// its clock has reached it.
func notBefore(now time.Time, leeway time.Duration) time.Time {
	return now.Add(leeway).Truncate(time.Second).Add(time.Second)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
