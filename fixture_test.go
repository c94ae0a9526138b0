package auth_test

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
)

// newClock returns a clock that begins at a whole second.
func newClock() *authtest.Clock {
	return authtest.NewClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
}

// The default of Config.RetryWindow, and the cooldown that follows from it.
const (
	defaultWindow   = 30 * time.Second
	defaultCooldown = 3 * defaultWindow
)

// users is a user lookup by ID, user name and e-mail address.
type users struct {
	mu   sync.Mutex
	byID map[string]auth.User
	fail error
	// failAt is decremented by each lookup by ID. The lookup that brings it to
	// zero fails.
	failAt int
	// onFind is called before every FindByID, without the lock.
	onFind func()
}

const pass = "correct horse battery staple"

// fastHasher hashes fast, because these tests do not depend on the cost.
var fastHasher = &password.Hasher{Memory: 64, Time: 1}

var passHash = func() string {
	h, err := fastHasher.Hash(context.Background(), pass)
	if err != nil {
		panic(err)
	}
	return h
}()

func newUsers() *users {
	return &users{byID: map[string]auth.User{
		"u1": {ID: "u1", Username: "ada", Roles: []string{"admin", "user"}, Scopes: []string{"pay", "read"}, PasswordHash: passHash},
		"u2": {ID: "u2", Username: "bob", Roles: []string{"user"}, PasswordHash: passHash},
	}}
}

func (u *users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail != nil {
		return auth.User{}, u.fail
	}
	for _, user := range u.byID {
		if strings.EqualFold(login, user.Username) || strings.EqualFold(login, user.Username+"@example.com") {
			return user, nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (u *users) FindByID(_ context.Context, id string) (auth.User, error) {
	if u.onFind != nil {
		u.onFind()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail != nil {
		return auth.User{}, u.fail
	}
	if u.failAt > 0 {
		if u.failAt--; u.failAt == 0 {
			return auth.User{}, errors.New("user lookup fault of a test")
		}
	}
	user, ok := u.byID[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return user, nil
}

func (u *users) change(id string, f func(*auth.User)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	user := u.byID[id]
	f(&user)
	u.byID[id] = user
}

// failIn makes the nth lookup by ID from now fail, or none if n is 0.
func (u *users) failIn(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failAt = n
}

// events collects the events passed to OnEvent.
type events struct {
	mu  sync.Mutex
	all []auth.Event
}

func (e *events) add(_ context.Context, ev auth.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// take returns the events of one type and removes all events.
func (e *events) take(t auth.EventType) []auth.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []auth.Event
	for _, ev := range e.all {
		if ev.Type == t {
			found = append(found, ev)
		}
	}
	e.all = nil
	return found
}

var secret = []byte("0123456789abcdef0123456789ABCDEF")

// These secrets belong to the keys of knownKeys. Tests sign tokens with them.
var (
	accessSecret   = []byte("the access secret of these tests, 1")
	access2Secret  = []byte("the access secret of these tests, 2")
	refreshSecret  = []byte("the refresh secret of these tests, 1")
	refresh2Secret = []byte("the refresh secret of these tests, 2")
)

// knownKeys configures keys with which a test can sign.
func knownKeys(c *auth.Config) {
	c.Secrets = nil
	c.AccessKeys = auth.Keys{auth.HS256(accessSecret), auth.HS256(access2Secret)}
	c.RefreshKeys = auth.Keys{auth.HS256(refreshSecret), auth.HS256(refresh2Secret)}
}

const (
	issuer    = "https://example.com"
	devIssuer = "http://localhost:8080" // with Cookies.InsecureHTTP
	audience  = "https://api.example.com"
)

var (
	laptop = auth.Device{UserAgent: "laptop", IP: netip.MustParseAddr("192.0.2.1")}
	thief  = auth.Device{UserAgent: "thief", IP: netip.MustParseAddr("198.51.100.9")}
)

// fixture is an Authenticator with the clock, users, events and store that
// tests control.
type fixture struct {
	*auth.Authenticator
	clock  *authtest.Clock
	users  *users
	events *events
	store  *testStore
	stop   func() // ends Run; tests with many fixtures call it before they end
}

// newFixture returns a running fixture over a memory store. The functions in
// change may change the configuration.
func newFixture(t testing.TB, change ...func(*auth.Config)) *fixture {
	t.Helper()
	fx := &fixture{clock: newClock(), users: newUsers(), events: &events{}}
	c := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret},
		Users: fx.users, Hasher: fastHasher, Now: fx.clock.Now, OnEvent: fx.events.add,
		Store:          auth.NewMemoryStore(),
		TokenCacheSize: 1024, // allocating the default takes longer than most tests
	}
	for _, f := range change {
		f(&c)
	}
	fx.store = &testStore{Store: c.Store}
	c.Store = fx.store
	a, err := auth.New(c)
	require.NoError(t, err)
	fx.Authenticator = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	fx.stop = func() { cancel(); <-done }
	t.Cleanup(fx.stop)
	<-a.Ready()
	return fx
}

func (fx *fixture) login(t testing.TB) auth.Tokens {
	t.Helper()
	tokens, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

// refreshed returns the tokens of generations 1 and 2 of a new session.
func (fx *fixture) refreshed(t testing.TB) (first, second auth.Tokens) {
	t.Helper()
	first = fx.login(t)
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	return first, second
}

// chain returns the tokens of the first n generations of a session.
func (fx *fixture) chain(t testing.TB, n int) (tokens []auth.Tokens) {
	t.Helper()
	k := fx.login(t)
	tokens = append(tokens, k)
	for range n - 1 {
		fx.clock.Advance(2 * time.Minute)
		var err error
		k, err = fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		tokens = append(tokens, k)
	}
	return tokens
}

// generation returns the stored generation of a session.
func (fx *fixture) generation(t testing.TB, subject, id string) int64 {
	t.Helper()
	s, err := fx.store.Store.Get(context.Background(), subject, id)
	require.NoError(t, err)
	return s.Generation
}

// newNodes returns n fixtures with one store, one clock and one set of users.
func newNodes(t *testing.T, n int, change func(i int, c *auth.Config)) []*fixture {
	store, c, u := auth.NewMemoryStore(), newClock(), newUsers()
	var list []*fixture
	for i := range n {
		fx := newFixture(t, func(config *auth.Config) {
			config.Store, config.Now, config.Users = store, c.Now, u
			change(i, config)
		})
		fx.clock, fx.users = c, u
		list = append(list, fx)
	}
	return list
}

// newProcess returns another fixture with the store, clock and users of fx.
func newProcess(t *testing.T, fx *fixture, change func(c *auth.Config)) *fixture {
	t.Helper()
	other := newFixture(t, func(c *auth.Config) {
		c.Store, c.Now, c.Users = fx.store, fx.clock.Now, fx.users
		change(c)
	})
	other.clock, other.users = fx.clock, fx.users
	return other
}

// database is a MemoryStore that stands for a database: an Authenticator on it
// follows its feed.
type database struct{ *auth.MemoryStore }

// newNode returns an Authenticator that uses the real clock, which in a
// synctest bubble is the clock of the bubble. It is a process of its own: if its
// store is a MemoryStore, it follows the feed of the store as that of a database.
func newNode(t *testing.T, store auth.Store, change ...func(*auth.Config)) (*auth.Authenticator, *events) {
	t.Helper()
	es := &events{}
	if memory, ok := store.(*auth.MemoryStore); ok {
		store = database{memory}
	}
	c := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret},
		Users: newUsers(), Store: store, OnEvent: es.add, TokenCacheSize: 1024,
		Hasher: &password.Hasher{Memory: 64, Time: 1}, // of its own: its queue has channels, which belong to one bubble
	}
	for _, f := range change {
		f(&c)
	}
	a, err := auth.New(c)
	require.NoError(t, err)
	return a, es
}

func withSeparateKeys(c *auth.Config) {
	c.Secrets = nil
	c.AccessKeys = auth.Keys{auth.HS256(secret)}
	c.RefreshKeys = auth.Keys{auth.HS256([]byte("another secret of at least 32 bytes!"))}
}

func startSession(t *testing.T, a *auth.Authenticator) auth.Tokens {
	t.Helper()
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

// startOtherSession creates a session of user u2.
func startOtherSession(t *testing.T, a *auth.Authenticator) auth.Tokens {
	t.Helper()
	tokens, err := a.StartSession(context.Background(), "u2", auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

// run calls Run until the returned function is called.
func run(a *auth.Verifier) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

// runNodes calls Run of each node until the test ends, and waits until they have
// read the feed.
func runNodes(t *testing.T, nodes ...*auth.Authenticator) {
	t.Helper()
	for _, a := range nodes {
		t.Cleanup(run(a.Verifier))
		<-a.Ready()
	}
}

func verifiedClaims(t *testing.T, a *auth.Authenticator, token string) *auth.Claims {
	t.Helper()
	c, err := a.Verify(context.Background(), token)
	require.NoError(t, err)
	return c
}

// derivedAccessKeys returns the keys that verify access tokens of newNode.
func derivedAccessKeys() auth.Keys { return keysFrom(string(secret)) }

// keysFrom returns the keys that verify access tokens of an Authenticator with a
// secret.
func keysFrom(secret string) auth.Keys {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "ratchet v1 access", 32)
	if err != nil {
		panic(err)
	}
	return auth.Keys{auth.HS256(key)}
}

// withAccessTTL sets AccessTTL, and a Leeway of one millisecond.
func withAccessTTL(ttl time.Duration) func(*auth.Config) {
	return func(c *auth.Config) { c.AccessTTL, c.Leeway = ttl, time.Millisecond }
}

// readFeed returns all entries of a feed.
func readFeed(t *testing.T, feed auth.Feed) (all []auth.Revocation) {
	t.Helper()
	for position, more := "", true; more; {
		rs, next, others, err := feed.Changes(context.Background(), position, 0)
		require.NoError(t, err)
		all, position, more = append(all, rs...), next, others
	}
	return all
}
