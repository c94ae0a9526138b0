package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults and bounds of durations.
const (
	defaultLeeway       = 10 * time.Second
	maxLeeway           = time.Minute
	defaultMaxStale     = time.Minute
	maxMaxStale         = maxAccessTTL // a revocation that is read later has no effect: the access tokens that it revokes have expired
	defaultStoreTimeout = 2 * time.Second
)

// VerifierConfig is the configuration of a [Verifier]. Issuer, Audience and
// Keys are required. Fields have the same meaning as in [Config]. [NewVerifier]
// copies it.
type VerifierConfig struct {
	_ [0]func() // keyed literals only

	Issuer   string
	Audience []string

	// Keys finds the keys that verify access tokens. It is a list ([Keys]) or
	// another KeySource, such as a remote key set.
	Keys KeySource

	Cookies        *Cookies
	Extractors     []Extractor
	TrustedProxies []netip.Prefix
	TrustUnixPeers bool
	Leeway         time.Duration
	TokenCacheSize int

	ResourceMetadata string

	// Feed delivers revocations: it is the store of the Authenticators that issue
	// the tokens. If it is nil, the access tokens of a revoked session are
	// accepted until they expire. With a Feed that is not a *MemoryStore, call
	// [Verifier.Run]. With a *MemoryStore, only access tokens that were issued by
	// an Authenticator on the same MemoryStore are accepted, because no
	// revocations of others can arrive; the error is [ErrTokenExpired].
	Feed         Feed
	StoreTimeout time.Duration
	HookTimeout  time.Duration
	MaxStale     time.Duration
	StalePolicy  StalePolicy

	OnEvent func(ctx context.Context, e Event)
	OnError func(w http.ResponseWriter, r *http.Request, err error)
	Now     func() time.Time
}

// Verifier verifies access tokens, and wraps handlers that require one. A
// service that only verifies tokens needs nothing else. A Verifier accepts only
// tokens that an Authenticator has issued, not those of other issuers. An
// [Authenticator] embeds a Verifier. A Verifier is safe for concurrent use.
type Verifier struct {
	issuer     string
	audience   []string
	keys       KeySource
	cookies    *cookieJar
	extractors []Extractor
	vary       []string
	noStore    []string // the value of Cache-Control; shared, so that a request needs no allocation
	proxies    []netip.Prefix
	unixPeers  bool // Config.TrustUnixPeers
	leeway     time.Duration
	now        func() time.Time // UTC, whole milliseconds
	onEvent    func(context.Context, Event)
	faultsOnly bool // onEvent needs faults only
	refusals   eventLimiter[refusalKey]
	faults     eventLimiter[string] // of emitLimited
	noToken    noTokenErrors        // for a request without an access token
	onError    func(http.ResponseWriter, *http.Request, error)
	resource   string // Config.ResourceMetadata

	cache         *tokenCache    // nil if TokenCacheSize is negative
	revoked       *revocationSet // of this Verifier alone, or of its MemoryStore
	memoryID      string         // the mem_store that access tokens must have; empty if they need none
	feed          Feed
	storeTimeout  time.Duration
	hookTimeout   time.Duration
	hooks         hookCalls
	dropped       atomic.Int64 // events that OnEvent did not receive
	maxStale      time.Duration
	stalePolicy   StalePolicy
	running       atomic.Bool
	feedReadAt    atomic.Int64 // when the feed was last read, Unix milliseconds
	staleReported atomic.Bool  // an EventStale was emitted since the feed was last read
	ready         chan struct{}
	readyOnce     sync.Once

	throttled atomic.Int64 // attempts that were refused with ErrThrottled

	backend backend // nil without an Authenticator

	members []*Verifier // of a Verifier that AnyOf returned; it verifies nothing itself
}

// NewVerifier returns a Verifier with the configuration c. The error joins
// every mistake in c, each naming its field.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if ks, ok := c.Keys.(*Keys); ok && ks != nil {
		c.Keys = *ks // has the same methods, and would be used without a check
	}
	var keysErr error
	if ks, ok := c.Keys.(Keys); c.Keys == nil {
		keysErr = errors.New("auth: VerifierConfig.Keys is nil; set it to the keys that verify access tokens")
	} else if !ok {
		keysErr = checkNotNil("VerifierConfig.Keys", c.Keys)
	} else if len(ks) == 0 {
		keysErr = errors.New("auth: VerifierConfig.Keys is empty; add a key that verifies access tokens")
	} else if keysErr = ks.check("VerifierConfig.Keys"); keysErr == nil {
		c.Keys = newKeyRing(ks, typAccess, 0, nil)
	}
	feedErr := checkFeed("VerifierConfig.Feed", c.Feed)
	v, err := newVerifier("VerifierConfig", c, nil)
	if err := errors.Join(keysErr, feedErr, err); err != nil {
		return nil, err
	}
	return v, nil
}

// backend is the part of an Authenticator that its Verifier calls.
type backend interface {
	// lifetime returns AccessTTL.
	lifetime() time.Duration
	// republish publishes r again. If repeats is true, r sets a not-before
	// instant that this process has set before, in a later second.
	republish(ctx context.Context, r Revocation, repeats bool) error
	// renewNotice publishes AccessTTL to the other processes if that is due
	// (see notices.go). It returns when to call it next, or the zero Time if no
	// notice is needed.
	renewNotice(ctx context.Context) (next time.Time)
	// sessionExists reports whether the store has a session that has not
	// expired.
	sessionExists(ctx context.Context, subject, id string) (bool, error)
	// refreshSessions returns the sessions of those refresh tokens in r's
	// cookies that this service signed.
	refreshSessions(r *http.Request) []sessionKey
	// refreshCookieRank returns 2 if a refresh token in r's cookies counts, 1 if
	// this service has signed one that does not, and 0 otherwise or without
	// Config.AutoRefresh.
	refreshCookieRank(r *http.Request) int
	// refreshRequest may refresh the tokens of a request that asked has refused with
	// cause; see autorefresh.go. It returns the request to continue with and its
	// new access token, or a nil request if it has responded, or an error.
	refreshRequest(asked *Verifier, w http.ResponseWriter, r *http.Request, cause error) (next *http.Request, access string, err error)
}

// newVerifier returns the Verifier of NewVerifier or of New. Its errors name
// fields of the struct type owner. It does not check the keys. The Verifier
// must not be used if there is an error.
func newVerifier(owner string, c VerifierConfig, b backend) (*Verifier, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: "+owner+"."+format, args...)) }

	if c.Issuer == "" {
		bad("Issuer is empty; set it to the URL of the service that issues the tokens")
	} else if text := badName(c.Issuer); text != "" {
		bad("Issuer %s", text)
	}
	if len(c.Audience) == 0 {
		bad("Audience is empty; name the service that the tokens are for")
	}
	for i, a := range c.Audience {
		if a == "" {
			bad("Audience[%d] is empty; remove it, or name a service that the tokens are for", i)
		} else if text := badName(a); text != "" {
			bad("Audience[%d] %s", i, text)
		} else if j := slices.Index(c.Audience[:i], a); j >= 0 {
			bad("Audience[%d] duplicates %s.Audience[%d]", i, owner, j)
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
	} else if c.MaxStale < time.Second || c.MaxStale > maxMaxStale {
		bad("MaxStale (%s) is not between 1s and %s", c.MaxStale, maxMaxStale)
	}
	if c.StoreTimeout == 0 {
		c.StoreTimeout = defaultStoreTimeout
	}
	if err := missingUnit(owner+".StoreTimeout", c.StoreTimeout); err != nil {
		errs = append(errs, err)
	} else if c.StoreTimeout < minStoreTimeout || c.StoreTimeout > maxStoreTimeout {
		bad("StoreTimeout (%s) is not between %s and %s", c.StoreTimeout, minStoreTimeout, maxStoreTimeout)
	}
	if c.HookTimeout == 0 {
		c.HookTimeout = defaultHookTimeout
	}
	if err := missingUnit(owner+".HookTimeout", c.HookTimeout); err != nil {
		errs = append(errs, err)
	} else if c.HookTimeout < minHookTimeout || c.HookTimeout > maxHookTimeout {
		bad("HookTimeout (%s) is not between %s and %s", c.HookTimeout, minHookTimeout, maxHookTimeout)
	}
	if c.StalePolicy < StaleContinue || c.StalePolicy > StaleRefuse {
		bad("StalePolicy (%d) must be StaleContinue, StaleAskStore or StaleRefuse", c.StalePolicy)
	}
	if err := checkProxies(owner+".TrustedProxies", c.TrustedProxies); err != nil {
		errs = append(errs, err)
	}
	if c.TokenCacheSize == 0 {
		c.TokenCacheSize = defaultTokenCacheSize
	}
	if c.TokenCacheSize > maxTokenCacheSize {
		bad("TokenCacheSize (%d) exceeds %d", c.TokenCacheSize, maxTokenCacheSize)
	}
	if c.Cookies != nil && c.Cookies.InsecureHTTP && isHTTPS(c.Issuer) {
		bad("Cookies.InsecureHTTP is set, but %s.Issuer %q is an https URL; unset InsecureHTTP, or for development use an issuer such as http://localhost",
			owner, c.Issuer)
	}
	if text := badResourceMetadata(c.ResourceMetadata); text != "" {
		bad("ResourceMetadata %s", text)
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
	memory, _ := c.Feed.(*MemoryStore)
	v := &Verifier{
		issuer:       c.Issuer,
		audience:     slices.Clone(c.Audience),
		keys:         c.Keys,
		cookies:      jar,
		extractors:   extractors,
		vary:         varyOf(extractors),
		noStore:      []string{"no-store"},
		proxies:      slices.Clone(c.TrustedProxies),
		unixPeers:    c.TrustUnixPeers,
		leeway:       leeway,
		now:          func() time.Time { return truncateMillis(c.Now()) },
		onEvent:      c.OnEvent,
		faultsOnly:   c.OnEvent == nil,
		noToken:      newNoTokenErrors("access", placesOf(extractors, jar), jar, slices.Contains(extractors, FromCookie())),
		onError:      c.OnError,
		resource:     c.ResourceMetadata,
		feed:         c.Feed,
		storeTimeout: c.StoreTimeout,
		hookTimeout:  c.HookTimeout,
		maxStale:     c.MaxStale,
		stalePolicy:  c.StalePolicy,
		ready:        make(chan struct{}),
		backend:      b,
		revoked:      &revocationSet{process: randomID(), leeway: leeway, accessTTL: accessTTL, republishes: b != nil && c.Feed != nil},
	}
	if memory != nil {
		v.feed, v.revoked, v.memoryID = nil, &memory.revoked, memory.id()
	}
	if c.TokenCacheSize > 0 && c.TokenCacheSize <= maxTokenCacheSize {
		v.cache = newTokenCache(c.TokenCacheSize)
	}
	if v.onEvent == nil {
		v.onEvent = logFaults()
	}
	if v.feed == nil {
		v.readyOnce.Do(func() { close(v.ready) })
	}
	return v, errors.Join(errs...)
}

// badResourceMetadata returns the end of an error text that says why s cannot be
// ResourceMetadata. If it can be, or is empty, badResourceMetadata returns "". The
// value is sent between quotes in a header.
func badResourceMetadata(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '\\' }):
		return fmt.Sprintf("%+q must be ASCII without spaces, quotes and backslashes; encode other characters as %%XX", s)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Sprintf("%+q is not an absolute URL such as https://api.example.com/.well-known/oauth-protected-resource", s)
	case u.User != nil || strings.Contains(s, "#"):
		return fmt.Sprintf("%+q must not have a user or a fragment", s)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fmt.Sprintf("%+q must be an https URL: only a loopback host may have an http URL", s)
	}
	return ""
}

// Issuer returns VerifierConfig.Issuer, or "" for a Verifier of [AnyOf], which has
// several.
func (v *Verifier) Issuer() string { return v.issuer }

// Format prints the issuer and the audience. Without it, package fmt would
// print the values that the application passed, such as a Users that is a map.
func (v *Verifier) Format(f fmt.State, _ rune) {
	if v.members != nil {
		_, _ = fmt.Fprint(f, v.members)
		return
	}
	_, _ = fmt.Fprintf(f, "auth.Verifier{issuer %q audience %q}", v.issuer, v.audience)
}

// Verify verifies an access token and returns its claims. It checks the
// signature before it uses any claim, then the claims, the times, and whether
// the token or its session was revoked. It does no I/O, except that of a remote
// [KeySource] or of [StaleAskStore].
//
// The error is [ErrInvalidToken], [ErrTokenExpired], [ErrSessionRevoked] or
// [ErrUnavailable].
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	c := new(parsedClaims)
	if err := v.verify(ctx, token, c); err != nil {
		return nil, v.withResource(err)
	}
	return &c.Claims, nil
}

// verify verifies a token and stores its claims in c. For a cached token it
// checks only the key, the times and revocations.
func (v *Verifier) verify(ctx context.Context, token string, c *parsedClaims) error {
	if v.members != nil {
		m, err := v.memberFor(token)
		if err != nil {
			return err
		}
		return m.verify(ctx, token, c)
	}
	var signed signedToken
	known := v.cachedToken(ctx, token)
	if known != nil {
		known.copyTo(c)
	} else {
		var err error
		if signed, err = openToken(ctx, token, typAccess, v.keys); err != nil {
			return v.reportKeys(ctx, err)
		}
		memoryID, err := readAccess(c, signed.payload, v.issuer, v.audience)
		if err != nil {
			return err
		}
		if v.isForeign(memoryID) {
			return v.refuseForeign(ctx, c.session(), c.ExpiresAt)
		}
	}
	now := v.now()
	switch {
	case !now.Before(c.ExpiresAt):
		return ErrTokenExpired
	case c.IssuedAt.After(now.Add(v.maxIssuedAhead())):
		return v.tooEarly(ctx, c.session(), "iat", c.IssuedAt.Sub(now))
	case c.notBefore > 0 && time.Unix(c.notBefore, 0).After(now.Add(v.leeway)):
		return v.tooEarly(ctx, c.session(), "nbf", time.Unix(c.notBefore, 0).Sub(now))
	}
	if err := v.checkRevoked(ctx, c.times(), now); err != nil {
		return err
	}
	c.verifiedAt = now
	if known == nil {
		v.cache.add(token, signed, c, now)
	}
	return nil
}

// notReady returns the error for an access token before the feed has been read.
// It emits an event if Run is not running, because it was most likely
// forgotten. If it is running, it reports its errors itself.
func (v *Verifier) notReady(ctx context.Context) error {
	if v.running.Load() {
		return reportedError{errNotRead}
	}
	v.emitLimited(ctx, "Run", Event{Type: EventFault, Err: errNotRunning})
	return reportedError{errNotRunning}
}

// Errors that say why it is not known whether a token was revoked. EventStale
// and the events of Run report the cause.
var (
	errNotRead = fmt.Errorf("%w: Run has not read the revocation feed yet", ErrUnavailable)
	errStale   = fmt.Errorf("%w: the revocation feed is stale", ErrUnavailable)
)

// reportKeys emits an event if err is an error of a KeySource, at most once a
// minute, because clients choose the keys that are looked for.
func (v *Verifier) reportKeys(ctx context.Context, err error) error {
	if !errors.Is(err, ErrUnavailable) {
		return err
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		v.emitLimited(ctx, "keys", Event{Type: EventFault, Err: err})
	}
	return reportedError{err}
}

// maxIssuedAhead returns how far ahead of this clock a valid iat or auth_time
// may be. The clock of another process may be ahead by Leeway. An auth_time
// may also have been raised to the user's not-before instant, which is at most
// Leeway plus one second ahead of the clock that set it. Earlier versions raised
// an iat in the same way.
func (v *Verifier) maxIssuedAhead() time.Duration { return 2*v.leeway + time.Second }

// tooEarly returns the error for a validly signed token with a claim that is
// ahead of this clock. Either the issuer's clock was wrong or this one is. So
// the error is that of an expired token: the client refreshes, and need not
// sign in again. An event is emitted at most once a minute: if this clock is
// behind, a client's refreshed token fails the same check.
func (v *Verifier) tooEarly(ctx context.Context, about Session, claim string, ahead time.Duration) error {
	err := fmt.Errorf("%w: %s is %s ahead of this clock", ErrTokenExpired, claim, ahead.Round(time.Second))
	v.emitLimited(ctx, "early", Event{Type: EventFault, Session: about, Err: err})
	return err
}

// errForeign is the error for an access token whose session is not in the
// MemoryStore of this Verifier, and for a one-time token of another MemoryStore.
// It is an ErrTokenExpired: if the session exists after all, a refresh may return
// a token that is accepted.
var errForeign = fmt.Errorf("%w: it was issued with a store other than this MemoryStore, or before this process started; several processes need a Config.Store that they share, which is also the Feed of their Verifiers", ErrTokenExpired)

// refuseForeign returns errForeign. It emits an event, because users are signed
// out if several processes have their sessions in memory, and a Verifier whose
// Feed is not the store of the service that signs refuses all tokens.
func (v *Verifier) refuseForeign(ctx context.Context, about Session, expires time.Time) error {
	if now := v.now(); !v.faultsOnly && now.Before(expires) {
		if n, ok := v.refusals.next(refusalKey{cause: "mem_store"}, now); ok {
			v.emit(ctx, Event{
				Type: EventRefused, Session: about, Reason: ResponseFor(errForeign).Code, Suppressed: n, Err: errForeign,
			})
		}
	}
	return errForeign
}

// isForeign reports whether a token with this mem_store is refused because its
// session is not in the MemoryStore of this Verifier. Only a Verifier on a
// MemoryStore refuses tokens for this reason. A revocation set does not outlive
// its process, so it does not contain the sessions that were revoked in an
// earlier one, nor those that were revoked in another store.
func (v *Verifier) isForeign(memoryID string) bool {
	return v.memoryID != "" && memoryID != v.memoryID
}

// parseAccess verifies the signature and the claims of an access token, but
// neither its times nor revocations. foreign is the result of isForeign.
func (v *Verifier) parseAccess(ctx context.Context, token string) (c *Claims, foreign bool, err error) {
	signed, err := openToken(ctx, token, typAccess, v.keys)
	if err != nil {
		return nil, false, v.reportKeys(ctx, err)
	}
	parsed := new(parsedClaims)
	memoryID, err := readAccess(parsed, signed.payload, v.issuer, v.audience)
	return &parsed.Claims, v.isForeign(memoryID), err
}

// checkReady returns an error if there is a feed that was not read yet.
func (v *Verifier) checkReady(ctx context.Context) error {
	if v.feed != nil {
		select {
		case <-v.ready:
		default:
			return v.notReady(ctx)
		}
	}
	return nil
}

// checkRevoked returns an error if the token or its session was revoked. It
// also returns one if the feed was not read yet, or is stale and the policy
// does not allow the request. The store cannot be asked about a token without a
// session, nor whether the sessions of an actor were revoked.
func (v *Verifier) checkRevoked(ctx context.Context, t subjectTimes, now time.Time) error {
	if err := v.checkReady(ctx); err != nil {
		return err
	}
	if _, err := v.revoked.find(t, now); err != nil {
		return err
	}
	if !v.isStale(ctx, now) || v.stalePolicy == StaleContinue {
		return nil
	}
	if v.stalePolicy == StaleRefuse || v.backend == nil || t.sid == "" || t.actor != "" {
		return reportedError{errStale}
	}
	alive, err := v.backend.sessionExists(ctx, t.subject, t.sid)
	switch {
	case err != nil:
		return err
	case !alive:
		return ErrSessionRevoked
	}
	return nil
}
