// Package storetest checks a store against the contract of [auth.Store].
//
// Whoever writes a store for another database needs that interface's comment
// and [Run]:
//
//	func TestStore_Conformance(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) func() auth.Store {
//			dsn := emptyDatabase(t) // removed by t.Cleanup
//			return func() auth.Store { return open(t, dsn) }
//		})
//	}
//
// A case that fails begins with the sentence of the contract that was broken,
// then tells what was seen.
//
// Not checked: that records and revocations are collected at all; what a store
// does with a record or an entry that it cannot read, or that a newer version of
// it has written; and what is left after a crash or a failover of the database.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// Run tests a store against the contract of [auth.Store], each part of it in a
// subtest of its own, one after the other.
//
// The function fresh makes an empty database for one case, and returns a
// function that opens it. That is called as often as the case wants nodes: the
// stores that it returns play processes which share nothing but the database,
// so each should have a connection of its own. For a store that lives in its
// process it returns the same one each time. Calls of neither function
// overlap. Cleaning up is up to fresh, with t.Cleanup.
//
// With -short the contended cases run ten rounds; with AUTH_LONG=1 in the
// environment a thousand, and those of many records 10,000 of them; else a
// hundred and 1,000.
func Run(t *testing.T, fresh func(t *testing.T) (open func() auth.Store)) {
	t.Helper()
	rounds, many, limit := 100, 1000, 3*time.Minute
	switch {
	case os.Getenv("AUTH_LONG") == "1":
		rounds, many, limit = 1000, 10_000, time.Hour
	case testing.Short():
		rounds, many = 10, 100
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			e := &env{ctx: ctx, open: fresh(t), rounds: rounds, many: many, patience: 20 * time.Second}
			if err := c.run(e); err != nil {
				t.Fatalf("%s\n%v", c.rule, err)
			}
		})
	}
}

// testcase is one part of the contract.
type testcase struct {
	name string // what a store does
	rule string // the words of the contract that say so
	run  func(e *env) error
}

func cases() []testcase {
	return slices.Concat(recordCases, nameCases, refusedCases, rotateCases, revokeCases, feedCases, contextCases)
}

// env is what a case works with.
type env struct {
	ctx      context.Context
	open     func() auth.Store
	rounds   int           // of what is contended
	many     int           // records, or refreshes of one
	patience time.Duration // with what has to come
}

func (e *env) nodes(n int) []auth.Store {
	nodes := make([]auth.Store, n)
	for i := range nodes {
		nodes[i] = e.open()
	}
	return nodes
}

// now is the clock as the core hands it to a store.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// session returns a record like those of the core: signed in an hour ago, and
// never refreshed.
func session(subject, id string) auth.Session {
	at := now().Add(-time.Hour)
	return auth.Session{
		ID: id, Subject: subject, Generation: 1,
		CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
		Device: device(0), Opaque: []byte("data of " + id),
	}
}

// useAt returns what a refresh at the given time writes. It does not rest.
func useAt(at time.Time, d auth.Device) auth.Rotation {
	return auth.Rotation{At: at, NotAfter: at.Add(24 * time.Hour), ExpiresAt: at.Add(24 * time.Hour), Device: d}
}

// used returns s as it is after a move by use to a generation.
func used(s auth.Session, generation int64, use auth.Rotation) auth.Session {
	s.Generation, s.RotatedAt, s.ExpiresAt, s.Device = generation, use.At, use.ExpiresAt, use.Device
	return s
}

func key(s auth.Session) string { return fmt.Sprintf("session %.40q of %.40q", s.ID, s.Subject) }

// same returns how got differs from want.
func same(got, want auth.Session) error {
	var diff []string
	text := func(field, got, want string) {
		if got != want {
			diff = append(diff, fmt.Sprintf("%s is %.300q, want %.300q", field, got, want))
		}
	}
	at := func(field string, got, want time.Time) {
		if !got.Equal(want) {
			diff = append(diff, fmt.Sprintf("%s is %s, want %s", field, got.Format(time.RFC3339Nano), want.Format(time.RFC3339Nano)))
		}
	}
	text("ID", got.ID, want.ID)
	text("Subject", got.Subject, want.Subject)
	if got.Generation != want.Generation {
		diff = append(diff, fmt.Sprintf("Generation is %d, want %d", got.Generation, want.Generation))
	}
	at("CreatedAt", got.CreatedAt, want.CreatedAt)
	at("RotatedAt", got.RotatedAt, want.RotatedAt)
	at("ExpiresAt", got.ExpiresAt, want.ExpiresAt)
	text("Device.UserAgent", got.Device.UserAgent, want.Device.UserAgent)
	if got.Device.IP != want.Device.IP {
		diff = append(diff, fmt.Sprintf("Device.IP is %v, want %v", got.Device.IP, want.Device.IP))
	}
	if !bytes.Equal(got.Opaque, want.Opaque) {
		diff = append(diff, fmt.Sprintf("Data is %.60q (%d bytes), want %.60q (%d bytes)", got.Opaque, len(got.Opaque), want.Opaque, len(want.Opaque)))
	}
	if diff == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", key(want), strings.Join(diff, "; "))
}

func (e *env) create(st auth.Store, sessions ...auth.Session) error {
	for _, s := range sessions {
		if err := st.Create(e.ctx, s); err != nil {
			return fmt.Errorf("Create of %s: %w", key(s), err)
		}
	}
	return nil
}

// stands returns an error unless Get finds each of the sessions as it is given.
func (e *env) stands(st auth.Store, want ...auth.Session) error {
	for _, w := range want {
		got, err := st.Get(e.ctx, w.Subject, w.ID)
		if err != nil {
			return fmt.Errorf("Get of %s: %w", key(w), err)
		}
		if err := same(got, w); err != nil {
			return fmt.Errorf("Get: %w", err)
		}
	}
	return nil
}

// gone returns an error unless Get says of each of the sessions that it is not
// there, and List leaves it out.
func (e *env) gone(st auth.Store, sessions ...auth.Session) error {
	for _, s := range sessions {
		switch got, err := st.Get(e.ctx, s.Subject, s.ID); {
		case err == nil:
			return fmt.Errorf("Get finds %s, generation %d", key(s), got.Generation)
		case !errors.Is(err, auth.ErrSessionNotFound):
			return fmt.Errorf("Get of %s: %w, want ErrSessionNotFound", key(s), err)
		}
		list, err := st.List(e.ctx, s.Subject)
		if err != nil {
			return fmt.Errorf("List: %w", err)
		}
		if find(list, s.ID) != nil {
			return fmt.Errorf("List contains %s, that Get does not find", key(s))
		}
	}
	return nil
}

func find(list []auth.Session, id string) *auth.Session {
	if i := slices.IndexFunc(list, func(s auth.Session) bool { return s.ID == id }); i >= 0 {
		return &list[i]
	}
	return nil
}

// lists returns an error unless List finds exactly the sessions that are
// given, in any order.
func (e *env) lists(st auth.Store, subject string, want ...auth.Session) error {
	list, err := st.List(e.ctx, subject)
	if err != nil {
		return fmt.Errorf("List of %.40q: %w", subject, err)
	}
	for _, w := range want {
		got := find(list, w.ID)
		if got == nil {
			return fmt.Errorf("List of %.40q has no %s", subject, key(w))
		}
		if err := same(*got, w); err != nil {
			return fmt.Errorf("List of %.40q: %w", subject, err)
		}
	}
	if len(list) != len(want) {
		var ids []string
		for _, s := range list {
			ids = append(ids, key(s))
		}
		return fmt.Errorf("List of %.40q has %d sessions, want %d: %.400s", subject, len(list), len(want), strings.Join(ids, ", "))
	}
	return nil
}

// rotate moves s, and returns an error unless the outcome is the session want.
func (e *env) rotate(st auth.Store, s auth.Session, from int64, use auth.Rotation, want auth.Session, wantMoved bool) error {
	got, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, use))
	if err != nil {
		return fmt.Errorf("Rotate of %s from %d: %w", key(s), from, err)
	}
	if moved != wantMoved {
		return fmt.Errorf("Rotate of %s from %d: moved is %t, want %t; the session stands at generation %d", key(s), from, moved, wantMoved, got.Generation)
	}
	if err := same(got, want); err != nil {
		return fmt.Errorf("Rotate from %d returned another session: %w", from, err)
	}
	if err := e.stands(st, want); err != nil {
		return fmt.Errorf("after Rotate from %d: %w", from, err)
	}
	return nil
}

func (e *env) revoke(st auth.Store, r auth.Revocation) error {
	if err := st.Revoke(e.ctx, r); err != nil {
		return fmt.Errorf("Revoke for %.40q: %w", r.Subject, err)
	}
	return nil
}

// together calls f(0) to f(n-1) at once, and returns the first of what went
// wrong.
func together(n int, f func(i int) error) error {
	start := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rotateFrom returns r with a From.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
