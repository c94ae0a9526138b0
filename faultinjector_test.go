package auth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// faultKind is what is wrong with one call of a Store, Users, Limiter or
// SecondFactor.
type faultKind string

const (
	failsBefore  faultKind = "fails"             // it does nothing, and returns an error
	failsAfter   faultKind = "fails after"       // it is carried out, and returns an error
	hangsBefore  faultKind = "hangs"             // it does nothing, and returns when its context ends
	hangsAfter   faultKind = "hangs after"       // it is carried out, and returns when its context ends
	hangsForGood faultKind = "never returns"     // it does nothing, and ignores its context
	answersTwice faultKind = "carried out twice" // the second result is returned
	outage       faultKind = "outage"            // it fails, and so do all later calls of the same interface until the client repeats the request
)

// faultKinds are the columns of the table.
var faultKinds = []faultKind{failsBefore, failsAfter, hangsBefore, hangsAfter, hangsForGood, answersTwice, outage}

// faultCall is a call during a request: the nth of a method.
type faultCall struct {
	method string
	nth    int
}

func (c faultCall) String() string {
	if c.nth == 1 {
		return c.method
	}
	return fmt.Sprintf("%s (%d)", c.method, c.nth)
}

// isRead reports whether the call changes nothing.
func (c faultCall) isRead() bool {
	_, name, _ := strings.Cut(c.method, ".")
	return slices.Contains([]string{"Get", "List", "Changes", "FindByLogin", "FindByID", "Methods"}, name)
}

var errInjected = errors.New("injected fault")

// faultInjector numbers the calls of a request, and lets one of them fail. The calls
// of Run do not belong to a request.
type faultInjector struct {
	mu    sync.Mutex
	armed bool
	at    faultCall
	kind  faultKind
	hit   bool // the call was made
	calls []faultCall

	released chan struct{} // closed at the end, so that calls return which hang for good
}

// arm begins a request.
func (in *faultInjector) arm(at faultCall, kind faultKind) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed, in.at, in.kind, in.hit, in.calls = true, at, kind, false, nil
}

// disarm ends a request, and returns its calls.
func (in *faultInjector) disarm() (calls []faultCall, hit bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed = false
	return in.calls, in.hit
}

// next records a call, and returns the fault of it, or "".
func (in *faultInjector) next(ctx context.Context, method string) faultKind {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.armed && in.hit && in.kind == outage && sameInterface(method, in.at.method) {
		return failsBefore // of Run too
	}
	if !in.armed || ctx.Value(requestKey{}) == nil {
		return ""
	}
	c := faultCall{method, 1}
	for _, other := range in.calls {
		if other.method == method {
			c.nth++
		}
	}
	in.calls = append(in.calls, c)
	if c != in.at {
		return ""
	}
	in.hit = true
	return in.kind
}

// sameInterface reports whether two methods are of one interface.
func sameInterface(a, b string) bool {
	a, _, _ = strings.Cut(a, ".")
	b, _, _ = strings.Cut(b, ".")
	return a == b
}

// requestKey is the key of a value in the context of a request whose calls are
// numbered.
type requestKey struct{}

// faulty makes a call, with the fault of the injector.
func faulty(ctx context.Context, in *faultInjector, method string, call func() error) error {
	switch in.next(ctx, method) {
	case failsBefore, outage:
		return errInjected
	case failsAfter:
		_ = call()
		return errInjected
	case hangsBefore:
		<-ctx.Done()
		return ctx.Err()
	case hangsAfter:
		_ = call()
		<-ctx.Done()
		return ctx.Err()
	case hangsForGood:
		<-in.released
		return errInjected
	case answersTwice:
		_ = call()
	}
	return call()
}

// faultyStore is a Store with an injector. It also records the rotations.
type faultyStore struct {
	auth.Store
	in      *faultInjector
	mu      sync.Mutex
	rotated map[string]int // by session and generation
}

func (s *faultyStore) Create(ctx context.Context, rec auth.Session) error {
	return faulty(ctx, s.in, "Store.Create", func() error { return s.Store.Create(ctx, rec) })
}

func (s *faultyStore) Get(ctx context.Context, subject, id string) (rec auth.Session, err error) {
	err = faulty(ctx, s.in, "Store.Get", func() (err error) {
		rec, err = s.Store.Get(ctx, subject, id)
		return err
	})
	return rec, err
}

func (s *faultyStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (rec auth.Session, rotated bool, err error) {
	err = faulty(ctx, s.in, "Store.Rotate", func() (err error) {
		rec, rotated, err = s.Store.Rotate(ctx, subject, id, r)
		if rotated {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.rotated[fmt.Sprint(id, " ", r.From)]++
		}
		return err
	})
	return rec, rotated, err
}

func (s *faultyStore) List(ctx context.Context, subject string) (list []auth.Session, err error) {
	err = faulty(ctx, s.in, "Store.List", func() (err error) {
		list, err = s.Store.List(ctx, subject)
		return err
	})
	return list, err
}

func (s *faultyStore) Revoke(ctx context.Context, r auth.Revocation) error {
	return faulty(ctx, s.in, "Store.Revoke", func() error { return s.Store.Revoke(ctx, r) })
}

// Spend recognizes its own record if the call is carried out twice, as a Store must.
func (s *faultyStore) Spend(ctx context.Context, subject, id string, until time.Time) error {
	first, spent := true, error(nil)
	return faulty(ctx, s.in, "Store.Spend", func() error {
		if first {
			first, spent = false, s.Store.Spend(ctx, subject, id, until)
		}
		return spent
	})
}

func (s *faultyStore) Changes(ctx context.Context, after string, wait time.Duration) (rs []auth.Revocation, next string, more bool, err error) {
	err = faulty(ctx, s.in, "Store.Changes", func() (err error) {
		rs, next, more, err = s.Store.Changes(ctx, after, wait)
		return err
	})
	return rs, next, more, err
}

// faultyUsers is a user lookup with an injector.
type faultyUsers struct {
	updatingUsers
	in *faultInjector
}

func (u *faultyUsers) FindByLogin(ctx context.Context, login string) (found auth.User, err error) {
	err = faulty(ctx, u.in, "Users.FindByLogin", func() (err error) {
		found, err = u.updatingUsers.FindByLogin(ctx, login)
		return err
	})
	return found, err
}

func (u *faultyUsers) FindByID(ctx context.Context, id string) (found auth.User, err error) {
	err = faulty(ctx, u.in, "Users.FindByID", func() (err error) {
		found, err = u.updatingUsers.FindByID(ctx, id)
		return err
	})
	return found, err
}

func (u *faultyUsers) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	return faulty(ctx, u.in, "Users.UpdatePasswordHash", func() error { return u.updatingUsers.UpdatePasswordHash(ctx, id, old, next) })
}

// faultyLimiter is a Limiter with an injector.
type faultyLimiter struct {
	*auth.MemoryLimiter
	in *faultInjector
}

func (l *faultyLimiter) Take(ctx context.Context, buckets []auth.Bucket) (wait time.Duration, index int, err error) {
	err = faulty(ctx, l.in, "Limiter.Take", func() (err error) {
		wait, index, err = l.MemoryLimiter.Take(ctx, buckets)
		return err
	})
	return wait, index, err
}

func (l *faultyLimiter) Settle(ctx context.Context, remove, refund []auth.Bucket) error {
	return faulty(ctx, l.in, "Limiter.Settle", func() error { return l.MemoryLimiter.Settle(ctx, remove, refund) })
}

// faultyFactor is a SecondFactor with an injector. It accepts each of its codes
// once.
type faultyFactor struct {
	in *faultInjector

	mu      sync.Mutex
	methods []string
	codes   []string // not used yet
}

func (f *faultyFactor) Methods(ctx context.Context, _ auth.User, _ auth.Device) ([]string, error) {
	err := faulty(ctx, f.in, "SecondFactor.Methods", func() error { return nil })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.methods, err
}

func (f *faultyFactor) Verify(ctx context.Context, _ auth.User, _, response string) error {
	return faulty(ctx, f.in, "SecondFactor.Verify", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.Index(f.codes, response)
		if i < 0 {
			return auth.ErrInvalidCredentials
		}
		f.codes = slices.Delete(f.codes, i, i+1)
		return nil
	})
}
