package authtest

import (
	"context"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// followedStore is the store of a test whose Run reads the feed again whenever
// the clock is advanced. Without that, the feed would be as old as the clock was
// advanced by, until the pending call of Changes has waited for seconds.
type followedStore struct {
	auth.Store
	mu      sync.Mutex
	calls   int                // of Changes
	failed  int                // the number of the last call that returned an error
	readers int                // how many calls of reread wait
	end     context.CancelFunc // ends the call of Changes that is waiting; nil if none is
	changed chan struct{}      // closed and replaced when Run calls Changes, and after an error
}

func newFollowedStore(s auth.Store) *followedStore {
	return &followedStore{Store: s, changed: make(chan struct{})}
}

// Changes does not wait while reread does.
func (s *followedStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	waiting, end := context.WithCancel(ctx)
	defer end()
	s.mu.Lock()
	s.calls++
	call := s.calls
	if s.readers > 0 {
		wait = 0
	}
	if wait > 0 {
		s.end = end
	}
	s.notify()
	s.mu.Unlock()

	rs, next, more, err := s.Store.Changes(waiting, after, wait)
	s.mu.Lock()
	s.end = nil
	s.mu.Unlock()
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		rs, next, more, err = s.Store.Changes(ctx, after, 0)
	}
	if err != nil {
		s.mu.Lock()
		s.failed = call
		s.notify()
		s.mu.Unlock()
	}
	return rs, next, more, err
}

// notify lets reread look again. It is called with s locked.
func (s *followedStore) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// reread ends the wait of Changes, and returns when isFresh returns true, when
// the store has returned an error, or when done is closed. It reports whether one
// of these happened within limit. isFresh is called whenever Run has completed a
// step.
func (s *followedStore) reread(isFresh func() bool, done <-chan struct{}, limit time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers++
	defer func() { s.readers-- }()
	if s.end != nil {
		s.end()
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for begun := s.calls; s.failed <= begun && !isFresh(); {
		changed := s.changed
		s.mu.Unlock()
		var over, ended bool
		select {
		case <-changed:
		case <-done:
			ended = true
		case <-timeout.C:
			over = true
		}
		s.mu.Lock()
		if ended || over {
			return ended
		}
	}
	return true
}
