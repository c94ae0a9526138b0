package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds and defaults of times.
const (
	defaultLeeway       = 10 * time.Second
	maxLeeway           = time.Minute
	defaultMaxStale     = time.Minute
	defaultStoreTimeout = 2 * time.Second
)

// VerifierConfig is what [NewVerifier] needs. It is copied. Fields mean what
// those of [Config] of the same name do.
type VerifierConfig struct {
	_ [0]func() // keyed literals only

	Issuer     string
	Audience   []string
	Keys       KeySource
	Cookies    *Cookies
	Extractors []Extractor

	TrustedProxies []netip.Prefix
	Leeway         time.Duration
	TokenCacheSize int

	// Feed tells of revocations; nil means that a revoked session's access
	// tokens are accepted until they expire. With a Feed, [Verifier.Run] must
	// run.
	Feed         Feed
	StoreTimeout time.Duration
	MaxStale     time.Duration
	StalePolicy  StalePolicy

	OnEvent func(ctx context.Context, e Event)
	OnError func(w http.ResponseWriter, r *http.Request, err error)
	Now     func() time.Time
}

// Verifier verifies access tokens without I/O, and wraps handlers with that.
// It is all that a service needs which does not sign anybody in. An
// [Authenticator] embeds one. It is safe for concurrent use.
type Verifier struct {
	issuer     string
	audience   []string
	keys       KeySource
	cookies    *cookieJar
	extractors []Extractor
	vary       []string
	proxies    []netip.Prefix
	leeway     time.Duration
	now        func() time.Time // UTC, whole milliseconds
	onEvent    func(context.Context, Event)
	onError    func(http.ResponseWriter, *http.Request, error)

	cache         *tokenCache // nil: nothing is remembered
	revoked       revocationSet
	feed          Feed
	storeTimeout  time.Duration
	maxStale      time.Duration
	stalePolicy   StalePolicy
	running       atomic.Bool
	feedReadAt    atomic.Int64 // when the feed was last read, Unix milliseconds
	staleReported atomic.Bool
	earlyReported atomic.Int64 // see emitLimited
	newerReported atomic.Int64 // of an Authenticator
	ready         chan struct{}
	readyOnce     sync.Once

	backend backend // nil if there is no Authenticator
}

// NewVerifier returns a Verifier, or every mistake in c joined, each naming
// its field.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	var keysErr error
	if c.Keys == nil {
		keysErr = errors.New("auth: VerifierConfig.Keys is nil")
	} else if ks, ok := c.Keys.(Keys); ok {
		if len(ks) == 0 {
			keysErr = errors.New("auth: VerifierConfig.Keys is empty")
		} else {
			keysErr = ks.check("VerifierConfig.Keys")
		}
		if keysErr == nil {
			c.Keys = newKeyRing(ks, typAccess, 0, nil)
		}
	}
	v, err := newVerifier("VerifierConfig", c, nil)
	if err := errors.Join(keysErr, err); err != nil {
		return nil, err
	}
	return v, nil
}

// backend is what an Authenticator adds to its Verifier.
type backend interface {
	// lifetime returns AccessTTL.
	lifetime() time.Duration
	// republish publishes r again, or this process's own not-before instant in
	// a later second.
	republish(ctx context.Context, r Revocation, repeats bool) error
	// renewNotice publishes AccessTTL again if it is time to, and returns when
	// to call it next: the zero Time if never.
	renewNotice(ctx context.Context) (next time.Time)
	// sessionExists reports whether the store has a session.
	sessionExists(ctx context.Context, subject, id string) (bool, error)
	// refreshSessions returns the sessions of r's refresh cookies.
	refreshSessions(r *http.Request) []sessionKey
	// refreshPage may respond to a request that is refused with err; if it did
	// not, reason may be a better error.
	refreshPage(w http.ResponseWriter, r *http.Request, err error) (done bool, reason error)
}

// newVerifier returns a Verifier for NewVerifier, or for New, whose fields are
// checked under their own name. It does not check the keys. The Verifier is
// only of use if there is no error.
func newVerifier(owner string, c VerifierConfig, b backend) (*Verifier, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: "+owner+"."+format, args...)) }

	if c.Issuer == "" {
		bad("Issuer is empty")
	}
	if len(c.Audience) == 0 {
		bad("Audience is empty; name the service that the tokens are for")
	}
	for i, a := range c.Audience {
		if a == "" {
			bad("Audience[%d] is empty", i)
		}
	}
	for _, s := range append([]string{c.Issuer}, c.Audience...) {
		if !isPlainText(s) {
			bad("Issuer or Audience is not printable UTF-8")
			break
		}
	}
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if err := missingUnit(owner+".Leeway", c.Leeway); err != nil {
		errs = append(errs, err)
	} else if c.Leeway > maxLeeway {
		bad("Leeway (%s) exceeds %s", c.Leeway, maxLeeway)
	}
	if c.MaxStale == 0 {
		c.MaxStale = defaultMaxStale
	}
	if err := missingUnit(owner+".MaxStale", c.MaxStale); err != nil {
		errs = append(errs, err)
	} else if c.MaxStale < time.Second {
		bad("MaxStale (%s) is less than 1s", c.MaxStale)
	}
	if c.StoreTimeout == 0 {
		c.StoreTimeout = defaultStoreTimeout
	}
	if err := missingUnit(owner+".StoreTimeout", c.StoreTimeout); err != nil {
		errs = append(errs, err)
	} else if c.StoreTimeout < minStoreTimeout || c.StoreTimeout > maxStoreTimeout {
		bad("StoreTimeout (%s) is not between %s and %s", c.StoreTimeout, minStoreTimeout, maxStoreTimeout)
	}
	if c.StalePolicy < StaleContinue || c.StalePolicy > StaleRefuse {
		bad("StalePolicy (%d) is not one of the policies", c.StalePolicy)
	}
	for i, p := range c.TrustedProxies {
		switch {
		case !p.IsValid():
			bad("TrustedProxies[%d] is not a prefix", i)
		case p.Addr().Is4In6():
			bad("TrustedProxies[%d] (%s) never matches; write it as IPv4", i, p)
		}
	}
	if c.TokenCacheSize == 0 {
		c.TokenCacheSize = defaultTokenCacheSize
	}
	if c.TokenCacheSize > maxTokenCacheSize {
		bad("TokenCacheSize (%d) exceeds %d", c.TokenCacheSize, maxTokenCacheSize)
	}
	jar, err := newCookieJar(owner+".Cookies", c.Cookies)
	if err != nil {
		errs = append(errs, err)
	}
	extractors, err := checkExtractors(owner+".Extractors", c.Extractors, jar)
	if err != nil {
		errs = append(errs, err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	leeway := max(0, c.Leeway).Truncate(time.Millisecond)
	var accessTTL time.Duration
	if b != nil {
		accessTTL = b.lifetime()
	}
	v := &Verifier{
		issuer:       c.Issuer,
		audience:     slices.Clone(c.Audience),
		keys:         c.Keys,
		cookies:      jar,
		extractors:   extractors,
		vary:         varyOf(extractors),
		proxies:      slices.Clone(c.TrustedProxies),
		leeway:       leeway,
		now:          func() time.Time { return truncateMillis(c.Now()) },
		onEvent:      c.OnEvent,
		onError:      c.OnError,
		feed:         c.Feed,
		storeTimeout: c.StoreTimeout,
		maxStale:     c.MaxStale,
		stalePolicy:  c.StalePolicy,
		ready:        make(chan struct{}),
		backend:      b,
		revoked:      revocationSet{process: randomID(), leeway: leeway, accessTTL: accessTTL, republishes: b != nil && c.Feed != nil},
	}
	if c.TokenCacheSize > 0 && c.TokenCacheSize <= maxTokenCacheSize {
		v.cache = newTokenCache(c.TokenCacheSize)
	}
	if v.feed == nil {
		v.readyOnce.Do(func() { close(v.ready) })
	}
	return v, errors.Join(errs...)
}

// Format prints the issuer and the audience. Without it package fmt would
// print what the application passed, such as a Users that is a map.
func (v *Verifier) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.Verifier{issuer %q audience %q}", v.issuer, v.audience)
}

// Verify returns the claims of an access token: its signature is checked
// before anything that it says decides anything, then its claims, its times,
// and whether it was revoked. There is no I/O in it but what a remote
// [KeySource] or [StaleAskStore] does.
//
// The error is [ErrInvalidToken], [ErrTokenExpired], [ErrSessionRevoked] or
// [ErrUnavailable].
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	c := new(parsedClaims)
	if err := v.verify(ctx, token, c); err != nil {
		return nil, err
	}
	return &c.Claims, nil
}

// verify reads a token into c.
func (v *Verifier) verify(ctx context.Context, token string, c *parsedClaims) error {
	var signed signedToken
	known := v.cachedToken(ctx, token)
	if known != nil {
		known.copyTo(c)
	} else {
		var err error
		if signed, err = openToken(ctx, token, typAccess, v.keys); err != nil {
			return err
		}
		if err := readAccess(c, signed.payload, v.issuer, v.audience); err != nil {
			return err
		}
	}
	now := v.now()
	switch {
	case !now.Before(c.ExpiresAt):
		return ErrTokenExpired
	case c.IssuedAt.After(now.Add(v.maxIssuedAhead())):
		return v.tooEarly(ctx, c, "iat", c.IssuedAt.Sub(now))
	case c.notBefore > 0 && time.Unix(c.notBefore, 0).After(now.Add(v.leeway)):
		return v.tooEarly(ctx, c, "nbf", time.Unix(c.notBefore, 0).Sub(now))
	}
	if err := v.checkRevoked(ctx, &c.Claims, now); err != nil {
		return err
	}
	c.verifiedAt = now
	if known == nil {
		v.cache.add(token, signed, c, now)
	}
	return nil
}

// maxIssuedAhead is how far ahead of this clock an honest iat may lie: the issuer's
// clock may be ahead, and the version before this one raised an iat for a cut
// by the same and a second. An auth_time is raised so still.
func (v *Verifier) maxIssuedAhead() time.Duration { return 2*v.leeway + time.Second }

// tooEarly refuses a token that is validly signed and lies ahead of this clock.
// Its issuer's clock was wrong, or this one is: so the client is told to
// refresh, as if the token had expired, and not to sign in again. An event says
// so, since a client of a Verifier whose clock is behind refreshes in vain.
func (v *Verifier) tooEarly(ctx context.Context, c *parsedClaims, claim string, ahead time.Duration) error {
	err := fmt.Errorf("%w: its %s is %s ahead of this clock", ErrTokenExpired, claim, ahead.Round(time.Second))
	v.emitLimited(ctx, &v.earlyReported, Event{Type: EventFault, Session: Session{Subject: c.Subject, ID: c.SessionID}, Err: err})
	return err
}

// parseAccess checks a token but for time and revocation.
func (v *Verifier) parseAccess(ctx context.Context, token string) (*Claims, error) {
	signed, err := openToken(ctx, token, typAccess, v.keys)
	if err != nil {
		return nil, err
	}
	c := new(parsedClaims)
	return &c.Claims, readAccess(c, signed.payload, v.issuer, v.audience)
}

func (v *Verifier) checkRevoked(ctx context.Context, c *Claims, now time.Time) error {
	if v.feed != nil {
		select {
		case <-v.ready:
		default:
			return fmt.Errorf("%w: revocations are not known yet; does Run run?", ErrUnavailable)
		}
	}
	if _, err := v.revoked.find(c.times(), now); err != nil {
		return err
	}
	if v.feed == nil || !v.isStale(ctx) || v.stalePolicy == StaleContinue {
		return nil
	}
	if v.stalePolicy == StaleRefuse || v.backend == nil {
		return fmt.Errorf("%w: the revocation feed is stale", ErrUnavailable)
	}
	alive, err := v.backend.sessionExists(ctx, c.Subject, c.SessionID)
	switch {
	case err != nil:
		return err
	case !alive:
		return ErrSessionRevoked
	}
	return nil
}
