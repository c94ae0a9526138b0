package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// faults makes one hook of the application fail. It is safe for concurrent use.
type faults struct {
	mu    sync.Mutex
	hook  string
	fail  func() error // may panic
	times map[string]int
}

// set makes a hook fail, or none if fail is nil.
func (f *faults) set(hook string, fail func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook, f.fail = hook, fail
}

// at returns the error of a hook, or panics.
func (f *faults) at(hook string) error {
	f.mu.Lock()
	fail := f.fail
	if f.hook != hook || fail == nil {
		f.mu.Unlock()
		return nil
	}
	if f.times == nil {
		f.times = map[string]int{}
	}
	f.times[hook]++
	f.mu.Unlock()
	return fail()
}

// users implements auth.Users and auth.PasswordUpdater.
type users struct {
	*faults
	mu   sync.Mutex
	byID map[string]auth.User // the ID is the login name too
}

func (u *users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if err := u.at("Users.FindByLogin"); err != nil {
		return auth.User{}, err
	}
	return u.find(login)
}

func (u *users) FindByID(_ context.Context, id string) (auth.User, error) {
	if err := u.at("Users.FindByID"); err != nil {
		return auth.User{}, err
	}
	return u.find(id)
}

func (u *users) find(id string) (auth.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if user, ok := u.byID[id]; ok {
		return user, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (u *users) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	if err := u.at("Users.UpdatePasswordHash"); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if user := u.byID[id]; user.PasswordHash == old {
		user.PasswordHash = next
		u.byID[id] = user
	}
	return nil
}

// set creates or replaces a user.
func (u *users) set(id, hash string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.byID[id] = auth.User{ID: id, Username: id, PasswordHash: hash, Extra: map[string]any{"extra": extra{u.faults}}}
}

// extra is the value of a custom claim.
type extra struct{ *faults }

func (e extra) MarshalJSON() ([]byte, error) {
	if err := e.at("Extra"); err != nil {
		return nil, err
	}
	return json.Marshal("x")
}

// factor implements auth.SecondFactor. Only bob uses it.
type factor struct {
	*faults
	code string
	once func(id string) error
}

func (f *factor) Methods(_ context.Context, u auth.User, _ auth.Device) ([]string, error) {
	if u.ID != "bob" {
		return nil, nil
	}
	return []string{"otp", "recovery"}, f.at("SecondFactor.Methods")
}

func (f *factor) Verify(_ context.Context, _ auth.User, method, response string) error {
	if err := f.at("SecondFactor.Verify"); err != nil {
		return err
	}
	if response != f.code {
		return auth.ErrInvalidCredentials
	}
	if method == "recovery" {
		return f.once("recovery-1")
	}
	return nil
}

// store is an auth.Store whose methods can fail.
type store struct {
	auth.Store
	*faults
}

func (s store) Create(ctx context.Context, session auth.Session) error {
	return errors.Join(s.at("Store.Create"), s.Store.Create(ctx, session))
}

func (s store) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := s.at("Store.Get"); err != nil {
		return auth.Session{}, err
	}
	return s.Store.Get(ctx, subject, id)
}

func (s store) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := s.at("Store.Rotate"); err != nil {
		return auth.Session{}, false, err
	}
	return s.Store.Rotate(ctx, subject, id, r)
}

func (s store) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := s.at("Store.List"); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, subject)
}

func (s store) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := s.at("Store.Revoke"); err != nil {
		return err
	}
	return s.Store.Revoke(ctx, r)
}

func (s store) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := s.at("Store.Spend"); err != nil {
		return err
	}
	return s.Store.Spend(ctx, subject, id, until)
}

func (s store) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if err := s.at("Store.Changes"); err != nil {
		return nil, "", false, err
	}
	return s.Store.Changes(ctx, after, wait)
}

// limiter is an auth.Limiter that captures its buckets. It forgets all attempts after
// an hour.
type limiter struct {
	*faults
	captured *capture
	now      func() time.Time

	mu     sync.Mutex
	since  time.Time
	counts map[string]int
}

func (l *limiter) Take(_ context.Context, buckets []auth.Bucket) (time.Duration, int, error) {
	l.captured.value(inBucket, "Limiter.Take", buckets)
	if err := l.at("Limiter.Take"); err != nil {
		return 0, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.since) > time.Hour {
		l.since = now
		clear(l.counts)
	}
	for i, b := range buckets {
		if l.counts[b.Kind+b.Key] >= b.Burst {
			return time.Second, i, nil
		}
	}
	for _, b := range buckets {
		l.counts[b.Kind+b.Key]++
	}
	return 0, 0, nil
}

func (l *limiter) Settle(_ context.Context, done, refund []auth.Bucket) error {
	if err := l.at("Limiter.Settle"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range done {
		delete(l.counts, b.Kind+b.Key)
	}
	for _, b := range refund {
		l.counts[b.Kind+b.Key]--
	}
	return nil
}

// hashers are cheap, because the cost is not what is tested.
func (f *faults) hasher() *password.Hasher {
	return &password.Hasher{Memory: 64, Time: 1, Screen: func(_ context.Context, next string) error {
		if strings.Contains(next, "leaked") {
			return password.ErrRefused
		}
		return f.at("Hasher.Screen")
	}}
}
