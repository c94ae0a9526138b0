package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// ended returns contexts that have ended, in the two ways in which they do.
func (e *env) ended() map[string]context.Context {
	cancelled, cancel := context.WithCancel(e.ctx)
	cancel()
	expired, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	cancel()
	return map[string]context.Context{"cancelled": cancelled, "expired": expired}
}

// calls are the methods of a store, called for what is there already.
func (e *env) calls(st auth.Store, s auth.Session, use auth.Rotation) []struct {
	name string
	call func(ctx context.Context) error
} {
	return []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"Get", func(ctx context.Context) error { _, err := st.Get(ctx, s.Subject, s.ID); return err }},
		{"List", func(ctx context.Context) error { _, err := st.List(ctx, s.Subject); return err }},
		{"Create", func(ctx context.Context) error { return st.Create(ctx, session(s.Subject, "new")) }},
		{"Rotate", func(ctx context.Context) error {
			_, _, err := st.Rotate(ctx, s.Subject, s.ID, rotateFrom(1, use))
			return err
		}},
		{"Changes", func(ctx context.Context) error {
			_, _, err := e.changes(ctx, st, "", time.Millisecond, e.patience)
			return err
		}},
		{"Revoke", func(ctx context.Context) error {
			return st.Revoke(ctx, auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(10 * time.Minute)})
		}},
	}
}

var contextCases = []testcase{{
	name: "Context_EndedCallReturnsError",
	rule: "A call whose context has ended returns an error",
	run: func(e *env) error {
		for how, ctx := range e.ended() {
			st, s := e.open(), session("ada-"+how, "one")
			if err := e.create(st, s); err != nil {
				return err
			}
			for _, c := range e.calls(st, s, useAt(now(), device(1))) {
				if err := c.call(ctx); err == nil {
					return fmt.Errorf("%s with a context that is %s returned no error", c.name, how)
				}
			}
		}
		return nil
	},
}, {
	name: "Context_EndedIsNoDecision",
	rule: `An error other than those named means "unknown"`,
	run: func(e *env) error {
		for how, ctx := range e.ended() {
			st, s := e.open(), session("ada-"+how, "one")
			if err := e.create(st, s); err != nil {
				return err
			}
			for _, c := range e.calls(st, s, useAt(now(), device(1))) {
				err := c.call(ctx)
				for _, decision := range []error{auth.ErrSessionNotFound, auth.ErrSessionExists, auth.ErrFeedReset} {
					if errors.Is(err, decision) {
						return fmt.Errorf("%s with a context that is %s: %v: a fault was taken for an answer", c.name, how, err)
					}
				}
			}
		}
		return nil
	},
}, {
	name: "Context_EndedCallHappensWholeOrNot",
	rule: "A call whose context has ended returns an error, and has either happened whole or not at all.",
	run: func(e *env) error {
		st := e.open()
		typical, err := e.typical(st)
		if err != nil {
			return err
		}
		for round := range e.rounds {
			s := session(fmt.Sprintf("ada-%d", round), "one")
			// A context that ends before the call or anywhere within it: when it
			// is looked at for the nth time, or after a time of its own.
			during := func(call func(ctx context.Context) error) error {
				ctx, cancel := context.WithCancel(e.ctx)
				defer cancel()
				switch {
				case round%2 == 1:
					l := &lookedAt{Context: ctx, end: cancel}
					l.left.Store(int64(round / 2 % 32))
					return call(l)
				case round%16 == 0:
					cancel()
				default:
					time.AfterFunc(rand.N(2*typical), cancel)
				}
				return call(ctx)
			}
			err := during(func(ctx context.Context) error { return st.Create(ctx, s) })
			switch got, getErr := st.Get(e.ctx, s.Subject, s.ID); {
			case getErr == nil:
				if err := same(got, s); err != nil {
					return fmt.Errorf("Create happened by half: %w", err)
				}
			case !errors.Is(getErr, auth.ErrSessionNotFound):
				return fmt.Errorf("Get: %w", getErr)
			case err == nil:
				return fmt.Errorf("Create returned nil, but %s is not there", key(s))
			}
			if err != nil {
				if err := st.Create(e.ctx, s); err != nil && !errors.Is(err, auth.ErrSessionExists) {
					return fmt.Errorf("Create, repeated: %w", err)
				}
			}

			use := useAt(now(), device(round))
			moved := used(s, 2, use)
			err = during(func(ctx context.Context) error {
				_, _, err := st.Rotate(ctx, s.Subject, s.ID, rotateFrom(1, use))
				return err
			})
			got, getErr := st.Get(e.ctx, s.Subject, s.ID)
			if getErr != nil {
				return fmt.Errorf("Get: %w", getErr)
			}
			if diff := same(got, moved); diff != nil && (err == nil || same(got, s) != nil) {
				return fmt.Errorf("Rotate returned %v, and happened by half: %w", err, diff)
			}

			r := auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(10 * time.Minute)}
			err = during(func(ctx context.Context) error { return st.Revoke(ctx, r) })
			switch _, getErr := st.Get(e.ctx, s.Subject, s.ID); {
			case errors.Is(getErr, auth.ErrSessionNotFound):
				rs, _, feedErr := e.changes(e.ctx, st, "", 0, e.patience)
				if feedErr != nil {
					return feedErr
				}
				if !slices.ContainsFunc(rs, func(got auth.Revocation) bool { return got.Subject == r.Subject }) {
					return fmt.Errorf("Revoke returned %v and happened by half: the session is deleted, and nothing was announced", err)
				}
			case getErr != nil:
				return fmt.Errorf("Get: %w", getErr)
			case err == nil:
				return fmt.Errorf("Revoke returned nil, but %s is there", key(s))
			}
		}
		return nil
	},
}}

// lookedAt is a context that ends once it has been looked at a few times.
type lookedAt struct {
	context.Context
	left atomic.Int64
	end  context.CancelFunc
}

func (l *lookedAt) look() {
	if l.left.Add(-1) < 0 {
		l.end()
	}
}

func (l *lookedAt) Done() <-chan struct{} {
	l.look()
	return l.Context.Done()
}

func (l *lookedAt) Err() error {
	l.look()
	return l.Context.Err()
}

// typical returns how long a revocation takes.
func (e *env) typical(st auth.Store) (time.Duration, error) {
	const n = 5
	started := time.Now()
	for range n {
		if err := e.revoke(st, cut("somebody")); err != nil {
			return 0, err
		}
	}
	return time.Since(started)/n + time.Microsecond, nil
}
