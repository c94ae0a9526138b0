package auth_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// clock is the time of a test. It moves when it is told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// users is an application's lookup: by ID, by user name and by e-mail address.
type users struct {
	mu   sync.Mutex
	byID map[string]auth.User
	fail error
	// failAt counts down; the lookup that brings it to zero fails.
	failAt int
	// onFind runs before every FindByID, outside the lock.
	onFind func()
}

const pass = "correct horse battery staple"

// cheap hashes fast; what it costs is not what these tests are about.
var cheap = &password.Hasher{Memory: 64, Time: 1}

var passHash = func() string {
	h, err := cheap.Hash(context.Background(), pass)
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

// failIn makes the nth lookup by ID from now fail; 0 none.
func (u *users) failIn(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failAt = n
}

// events collects what OnEvent is told.
type events struct {
	mu  sync.Mutex
	all []auth.Event
}

func (e *events) add(_ context.Context, ev auth.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// take returns the events of a type so far, and forgets all.
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

const (
	issuer   = "https://example.com"
	audience = "https://api.example.com"
)

// bench is an Authenticator with all that its tests turn.
type bench struct {
	*auth.Authenticator
	clock  *clock
	users  *users
	events *events
	store  *faultyStore
}

// newBench makes one over a memory store. change may alter the configuration.
func newBench(t testing.TB, change ...func(*auth.Config)) *bench {
	t.Helper()
	b := &bench{clock: newClock(), users: newUsers(), events: &events{}}
	c := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret},
		Users: b.users, Hasher: cheap, Now: b.clock.Now, OnEvent: b.events.add,
		Store: auth.NewMemoryStore(),
	}
	for _, f := range change {
		f(&c)
	}
	b.store = &faultyStore{Store: c.Store}
	c.Store = b.store
	a, err := auth.New(c)
	require.NoError(t, err)
	b.Authenticator = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-a.Ready()
	return b
}

func (b *bench) login(t testing.TB) auth.Tokens {
	t.Helper()
	tokens, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	return tokens
}

// faultyStore fails when it is told to, before or after the call took effect.
type faultyStore struct {
	auth.Store
	mu            sync.Mutex
	before, after map[string]error
	calls         map[string]int
}

var errStore = errors.New("store fault of a test")

func (f *faultyStore) failBefore(method string, err error) { f.set(&f.before, method, err) }
func (f *faultyStore) failAfter(method string, err error)  { f.set(&f.after, method, err) }

func (f *faultyStore) set(m *map[string]error, method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *m == nil {
		*m = map[string]error{}
	}
	(*m)[method] = err
}

func (f *faultyStore) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

func (f *faultyStore) wrap(method string, call func() error) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[method]++
	before, after := f.before[method], f.after[method]
	f.mu.Unlock()
	if before != nil {
		return before
	}
	if err := call(); err != nil {
		return err
	}
	return after
}

func (f *faultyStore) Create(ctx context.Context, s auth.Session) error {
	return f.wrap("Create", func() error { return f.Store.Create(ctx, s) })
}

func (f *faultyStore) Get(ctx context.Context, subject, id string) (s auth.Session, err error) {
	err = f.wrap("Get", func() (err error) { s, err = f.Store.Get(ctx, subject, id); return err })
	return s, err
}

func (f *faultyStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (s auth.Session, rotated bool, err error) {
	err = f.wrap("Rotate", func() (err error) { s, rotated, err = f.Store.Rotate(ctx, subject, id, r); return err })
	return s, rotated, err
}

func (f *faultyStore) List(ctx context.Context, subject string) (list []auth.Session, err error) {
	err = f.wrap("List", func() (err error) { list, err = f.Store.List(ctx, subject); return err })
	return list, err
}

func (f *faultyStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if r.AccessTTL > 0 {
		return f.wrap("Revoke of a notice", func() error { return f.Store.Revoke(ctx, r) })
	}
	return f.wrap("Revoke", func() error { return f.Store.Revoke(ctx, r) })
}

func TestSmoke(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	first := b.login(t)
	c, err := b.Verify(ctx, first.Access)
	require.NoError(t, err)
	require.Equal(t, "u1", c.Subject)
	second, err := b.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.NotEqual(t, first.Refresh, second.Refresh)
	again, err := b.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, second.Refresh, again.Refresh)
	rests, err := b.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, second.Refresh, rests.Refresh)
	b.clock.advance(11 * time.Second)
	_, err = b.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenReused)
	_, err = b.Verify(ctx, second.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}
