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

// ended returns a canceled context and one whose deadline has passed.
func (e *env) ended() map[string]context.Context {
	canceled, cancel := context.WithCancel(e.ctx)
	cancel()
	expired, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	cancel()
	return map[string]context.Context{"canceled": canceled, "expired": expired}
}

// calls returns calls of every method of a store that has the session s.
func (e *env) calls(st auth.Store, s auth.Session, rotation auth.Rotation) []struct {
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
			_, _, err := st.Rotate(ctx, s.Subject, s.ID, rotateFrom(1, rotation))
			return err
		}},
		{"Spend", func(ctx context.Context) error { return st.Spend(ctx, s.Subject, "new", now().Add(time.Hour)) }},
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
			for _, c := range e.calls(st, s, rotationAt(now(), device(1))) {
				if err := c.call(ctx); err == nil {
					return fmt.Errorf("%s with a context that is %s returned nil, want an error", c.name, how)
				}
			}
		}
		return nil
	},
}, {
	name: "Context_EndedCallReturnsNoDecision",
	rule: "Any error that is not named here means that the outcome is unknown.",
	run: func(e *env) error {
		for how, ctx := range e.ended() {
			st, s := e.open(), session("ada-"+how, "one")
			if err := e.create(st, s); err != nil {
				return err
			}
			for _, c := range e.calls(st, s, rotationAt(now(), device(1))) {
				err := c.call(ctx)
				for _, decision := range []error{auth.ErrSessionNotFound, auth.ErrSessionExists, auth.ErrSpent, auth.ErrFeedReset} {
					if errors.Is(err, decision) {
						return fmt.Errorf("%s with a context that is %s returned %v, which is a decision of the store", c.name, how, err)
					}
				}
			}
		}
		return nil
	},
}, {
	name: "Context_EndedCallIsAtomic",
	rule: "A call whose context has ended returns an error, and has either taken effect completely or not at all.",
	run: func(e *env) error {
		st := e.open()
		typical, err := e.typical(st)
		if err != nil {
			return err
		}
		for round := range e.rounds {
			s := session(fmt.Sprintf("ada-%d", round), "one")
			// The context ends before the call or at some point within it: at the
			// nth use of the context, or after a random time.
			during := func(call func(ctx context.Context) error) error {
				ctx, cancel := context.WithCancel(e.ctx)
				defer cancel()
				switch {
				case round%2 == 1:
					l := &countedContext{Context: ctx, end: cancel}
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
				if err := diff(got, s); err != nil {
					return fmt.Errorf("Create wrote a partial record: %w", err)
				}
			case !errors.Is(getErr, auth.ErrSessionNotFound):
				return fmt.Errorf("Get: %w", getErr)
			case err == nil:
				return fmt.Errorf("Create returned nil, but Get does not find %s", describe(s))
			}
			if err != nil {
				if err := st.Create(e.ctx, s); err != nil && !errors.Is(err, auth.ErrSessionExists) {
					return fmt.Errorf("second Create: %w", err)
				}
			}

			until := now().Add(time.Hour)
			switch err := during(func(ctx context.Context) error { return st.Spend(ctx, s.Subject, s.ID, until) }); {
			case errors.Is(err, auth.ErrSpent):
				return errors.New("the first Spend, whose context ended, returned ErrSpent")
			case err != nil:
				if err := st.Spend(e.ctx, s.Subject, s.ID, until); err != nil && !errors.Is(err, auth.ErrSpent) {
					return fmt.Errorf("second Spend: %w", err)
				}
			}
			if err := e.wantSpent(st, s.Subject, s.ID, until); err != nil {
				return err
			}

			rotation := withTags(rotationAt(now(), device(round)), tag(round), tag(-1))
			want := rotated(s, 2, rotation)
			err = during(func(ctx context.Context) error {
				_, _, err := st.Rotate(ctx, s.Subject, s.ID, rotateFrom(1, rotation))
				return err
			})
			got, getErr := st.Get(e.ctx, s.Subject, s.ID)
			if getErr != nil {
				return fmt.Errorf("Get: %w", getErr)
			}
			if d := diff(got, want); d != nil && (err == nil || diff(got, s) != nil) {
				return fmt.Errorf("Rotate returned %v and wrote a partial record: %w", err, d)
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
					return fmt.Errorf("Revoke returned %v, deleted the session and published nothing", err)
				}
			case getErr != nil:
				return fmt.Errorf("Get: %w", getErr)
			case err == nil:
				return fmt.Errorf("Revoke returned nil, but Get still finds %s", describe(s))
			}
		}
		return nil
	},
}}

// countedContext is a context that ends after a number of calls of Done and Err.
type countedContext struct {
	context.Context
	left atomic.Int64
	end  context.CancelFunc
}

func (l *countedContext) count() {
	if l.left.Add(-1) < 0 {
		l.end()
	}
}

func (l *countedContext) Done() <-chan struct{} {
	l.count()
	return l.Context.Done()
}

func (l *countedContext) Err() error {
	l.count()
	return l.Context.Err()
}

// typical returns the mean duration of Revoke.
func (e *env) typical(st auth.Store) (time.Duration, error) {
	const n = 5
	started := time.Now()
	for range n {
		if err := e.revoke(st, notBefore("ada")); err != nil {
			return 0, err
		}
	}
	return time.Since(started)/n + time.Microsecond, nil
}
