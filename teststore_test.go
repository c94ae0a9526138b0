package auth_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

var errStore = errors.New("injected store error")

// notice is the method name under which testStore counts calls of Revoke that
// pass a notice, which is a Revocation with an AccessTTL. The name "Revoke"
// means all other calls.
const notice = "Revoke of a notice"

// testStore passes calls on to Store. A test can make calls fail, wait or
// return something else. The fields below Store must be set before the store
// is used; the methods may be called at any time.
type testStore struct {
	auth.Store
	revoke  func(ctx context.Context, r auth.Revocation) error // called before Revoke
	changes func(ctx context.Context, after string) error      // called before Changes
	page    func(rs []auth.Revocation) []auth.Revocation       // replaces the revocations of Changes
	rotate  func(s auth.Session) (auth.Session, bool)          // replaces Rotate
	maxWait time.Duration                                      // limits the wait of Changes, if not 0

	mu      sync.Mutex
	before  map[string]func(ctx context.Context) error // by method, called before it
	after   map[string]error                           // by method, returned after it succeeded
	feed    func(ctx context.Context, after string) ([]auth.Revocation, string, bool, error)
	calls   map[string]int    // by method
	revoked []auth.Revocation // passed to Revoke, without notices
	reads   []string          // positions passed to Changes
}

func newTestStore() *testStore { return &testStore{Store: auth.NewMemoryStore()} }

// newPausedStore returns a store whose Changes waits while paused is set.
func newPausedStore(store auth.Store, paused *atomic.Bool) *testStore {
	return &testStore{Store: store, maxWait: 20 * time.Millisecond, changes: func(context.Context, string) error {
		for paused.Load() {
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}}
}

// on calls f before every call of the methods. If f returns an error, the
// call returns it and does not reach the store. A nil f removes the hook.
func (s *testStore) on(f func(ctx context.Context) error, methods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before == nil {
		s.before = map[string]func(context.Context) error{}
	}
	for _, m := range methods {
		s.before[m] = f
	}
}

// failBefore makes a method fail before it takes effect. A nil err ends it.
func (s *testStore) failBefore(method string, err error) {
	s.on(func(context.Context) error { return err }, method)
}

// failAfter makes a method fail after it has taken effect. A nil err ends it.
func (s *testStore) failAfter(method string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.after == nil {
		s.after = map[string]error{}
	}
	s.after[method] = err
}

// failFeed makes Changes and Revoke fail. A nil err ends it.
func (s *testStore) failFeed(err error) {
	s.on(func(context.Context) error { return err }, "Changes", "Revoke", notice)
}

// setFeed replaces Changes by f, or no longer if f is nil.
func (s *testStore) setFeed(f func(ctx context.Context, after string) ([]auth.Revocation, string, bool, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feed = f
}

// failOver replaces the store by a new one that contains only the revocations
// in kept.
func (s *testStore) failOver(kept ...auth.Revocation) {
	m := auth.NewMemoryStore()
	for _, r := range kept {
		_ = m.Revoke(context.Background(), r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = m
}

// count returns how many calls of a method there were since resetCounts.
func (s *testStore) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *testStore) resetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

// passed returns what was passed to Revoke, without notices.
func (s *testStore) passed() []auth.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.revoked)
}

// takePassed returns what was passed to Revoke since its last call, without
// notices.
func (s *testStore) takePassed() []auth.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.revoked
	s.revoked = nil
	return all
}

func (s *testStore) call(ctx context.Context, method string, f func(store auth.Store) error) error {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
	before, after, store := s.before[method], s.after[method], s.Store
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if err := f(store); err != nil {
		return err
	}
	return after
}

func (s *testStore) Create(ctx context.Context, session auth.Session) error {
	return s.call(ctx, "Create", func(store auth.Store) error { return store.Create(ctx, session) })
}

func (s *testStore) Get(ctx context.Context, subject, id string) (session auth.Session, err error) {
	err = s.call(ctx, "Get", func(store auth.Store) (err error) {
		session, err = store.Get(ctx, subject, id)
		return err
	})
	return session, err
}

func (s *testStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (session auth.Session, rotated bool, err error) {
	err = s.call(ctx, "Rotate", func(store auth.Store) (err error) {
		if s.rotate == nil {
			session, rotated, err = store.Rotate(ctx, subject, id, r)
			return err
		}
		if session, err = store.Get(ctx, subject, id); err == nil {
			session, rotated = s.rotate(session)
		}
		return err
	})
	return session, rotated, err
}

func (s *testStore) List(ctx context.Context, subject string) (list []auth.Session, err error) {
	err = s.call(ctx, "List", func(store auth.Store) (err error) {
		list, err = store.List(ctx, subject)
		return err
	})
	return list, err
}

func (s *testStore) Revoke(ctx context.Context, r auth.Revocation) error {
	method := notice
	if r.AccessTTL == 0 {
		method = "Revoke"
		s.mu.Lock()
		s.revoked = append(s.revoked, r)
		s.mu.Unlock()
	}
	return s.call(ctx, method, func(store auth.Store) error {
		if s.revoke != nil {
			if err := s.revoke(ctx, r); err != nil {
				return err
			}
		}
		return store.Revoke(ctx, r)
	})
}

func (s *testStore) Spend(ctx context.Context, subject, id string, until time.Time) error {
	return s.call(ctx, "Spend", func(store auth.Store) error { return store.Spend(ctx, subject, id, until) })
}

func (s *testStore) Changes(ctx context.Context, after string, wait time.Duration) (rs []auth.Revocation, next string, more bool, err error) {
	s.mu.Lock()
	s.reads = append(s.reads, after)
	feed := s.feed
	s.mu.Unlock()
	if s.maxWait > 0 {
		wait = min(wait, s.maxWait)
	}
	err = s.call(ctx, "Changes", func(store auth.Store) (err error) {
		if s.changes != nil {
			if err = s.changes(ctx, after); err != nil {
				return err
			}
		}
		if feed != nil {
			rs, next, more, err = feed(ctx, after)
			return err
		}
		rs, next, more, err = store.Changes(ctx, after, wait)
		if s.page != nil {
			rs = s.page(rs)
		}
		return err
	})
	return rs, next, more, err
}

// hang waits until ctx ends.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
