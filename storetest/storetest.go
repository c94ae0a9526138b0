// Package storetest tests whether a store fulfills the contract of [auth.Store], and
// a limiter that of [auth.Limiter]: see [RunLimiter].
//
// To write a store for another database, read the comment of that interface, begin
// with its Example, and call [Run] in a test:
//
//	func TestStore_Conformance(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) func() auth.Store {
//			dsn := emptyDatabase(t) // removed by t.Cleanup
//			return func() auth.Store { return open(t, dsn) }
//		})
//	}
//
// The message of a failed case begins with the sentence of the contract that was
// violated, followed by what happened.
//
// The tests do not cover:
//
//   - the removal of expired records and revocations, and of the records of Spend,
//     whose number must be bounded by those that have not expired
//   - that a call of Spend that the driver repeats, because its answer was lost,
//     does not return ErrSpent because of its own record
//   - records and revocations that the store cannot read, or that a newer version
//     of the store wrote
//   - crashes and failovers of the database
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

// Run tests whether a store fulfills the contract of [auth.Store]. Each part of
// the contract is a subtest. Subtests run one after the other.
//
// fresh creates an empty database for one case, and returns a function that opens
// a store on it. The case calls open once for each process that it
// simulates. These processes share only the database, so each store should have
// its own connection. For a store in memory, open returns the same store each
// time. Run never calls fresh or open concurrently. To release resources, fresh
// uses t.Cleanup.
//
// By default cases with contention run 100 rounds, and cases with many records
// use 1,000. With -short these are 10 and 100; with AUTH_LONG=1 in the
// environment, 1,000 and 10,000.
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
	name string
	rule string // the sentence of the contract that the case checks
	run  func(e *env) error
}

func cases() []testcase {
	return slices.Concat(recordCases, nameCases, refusedCases, rotateCases, keyCases, revokeCases, spendCases, feedCases, contextCases)
}

// env is the environment of a case.
type env struct {
	ctx      context.Context
	open     func() auth.Store
	rounds   int           // rounds of a case with contention
	many     int           // number of records, or of refreshes of one
	patience time.Duration // how long to wait for something that must happen
}

// nodes opens n stores on the database.
func (e *env) nodes(n int) []auth.Store {
	nodes := make([]auth.Store, n)
	for i := range nodes {
		nodes[i] = e.open()
	}
	return nodes
}

// now returns the time as package auth passes it to a store: in UTC and whole
// milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// session returns a record as package auth creates it, for a login an hour ago
// and no refresh since.
func session(subject, id string) auth.Session {
	at := now().Add(-time.Hour)
	return auth.Session{
		ID: id, Subject: subject, Generation: 1,
		CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
		Device: device(0), Opaque: []byte("data of " + id),
	}
}

// rotationAt returns the Rotation of a refresh at a time, without a cooldown.
func rotationAt(at time.Time, d auth.Device) auth.Rotation {
	return auth.Rotation{At: at, NotAfter: at.Add(24 * time.Hour), ExpiresAt: at.Add(24 * time.Hour), Device: d}
}

// rotated returns s as it should be after a rotation to a generation.
func rotated(s auth.Session, generation int64, rotation auth.Rotation) auth.Session {
	s.Generation, s.RotatedAt, s.ExpiresAt, s.Device = generation, rotation.At, rotation.ExpiresAt, rotation.Device
	if len(s.RetryTag) > 0 && bytes.Equal(s.RetryTag, rotation.SpentTag) {
		s.RetryTag = nil
	} else {
		s.RetryTag = rotation.RetryTag
	}
	if len(s.Key) == 0 {
		s.Key = rotation.Key
	}
	return s
}

// describe returns a description of a session for messages.
func describe(s auth.Session) string { return fmt.Sprintf("session %.40q of %.40q", s.ID, s.Subject) }

// diff returns an error that lists how got differs from want, or nil.
func diff(got, want auth.Session) error {
	var fields []string
	text := func(field, got, want string) {
		if got != want {
			fields = append(fields, fmt.Sprintf("%s is %.300q, want %.300q", field, got, want))
		}
	}
	at := func(field string, got, want time.Time) {
		if !got.Equal(want) {
			fields = append(fields, fmt.Sprintf("%s is %s, want %s", field, got.Format(time.RFC3339Nano), want.Format(time.RFC3339Nano)))
		}
	}
	text("ID", got.ID, want.ID)
	text("Subject", got.Subject, want.Subject)
	if got.Generation != want.Generation {
		fields = append(fields, fmt.Sprintf("Generation is %d, want %d", got.Generation, want.Generation))
	}
	at("CreatedAt", got.CreatedAt, want.CreatedAt)
	at("RotatedAt", got.RotatedAt, want.RotatedAt)
	at("ExpiresAt", got.ExpiresAt, want.ExpiresAt)
	text("Device.UserAgent", got.Device.UserAgent, want.Device.UserAgent)
	if got.Device.IP != want.Device.IP {
		fields = append(fields, fmt.Sprintf("Device.IP is %v, want %v", got.Device.IP, want.Device.IP))
	}
	data := func(field string, got, want []byte) {
		if !bytes.Equal(got, want) {
			fields = append(fields, fmt.Sprintf("%s is %.60q (%d bytes), want %.60q (%d bytes)", field, got, len(got), want, len(want)))
		}
	}
	data("Opaque", got.Opaque, want.Opaque)
	data("RetryTag", got.RetryTag, want.RetryTag)
	data("Key", got.Key, want.Key)
	if fields == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", describe(want), strings.Join(fields, "; "))
}

func (e *env) create(st auth.Store, sessions ...auth.Session) error {
	for _, s := range sessions {
		if err := st.Create(e.ctx, s); err != nil {
			return fmt.Errorf("Create of %s: %w", describe(s), err)
		}
	}
	return nil
}

// wantStored returns an error unless Get returns each of the sessions as given.
func (e *env) wantStored(st auth.Store, want ...auth.Session) error {
	for _, w := range want {
		got, err := st.Get(e.ctx, w.Subject, w.ID)
		if err != nil {
			return fmt.Errorf("Get of %s: %w", describe(w), err)
		}
		if err := diff(got, w); err != nil {
			return fmt.Errorf("Get: %w", err)
		}
	}
	return nil
}

// wantGone returns an error unless Get returns ErrSessionNotFound for each of the
// sessions and List omits it.
func (e *env) wantGone(st auth.Store, sessions ...auth.Session) error {
	for _, s := range sessions {
		switch got, err := st.Get(e.ctx, s.Subject, s.ID); {
		case err == nil:
			return fmt.Errorf("Get of %s returned generation %d, want ErrSessionNotFound", describe(s), got.Generation)
		case !errors.Is(err, auth.ErrSessionNotFound):
			return fmt.Errorf("Get of %s: %w, want ErrSessionNotFound", describe(s), err)
		}
		list, err := st.List(e.ctx, s.Subject)
		if err != nil {
			return fmt.Errorf("List: %w", err)
		}
		if find(list, s.ID) != nil {
			return fmt.Errorf("List contains %s, but Get returns ErrSessionNotFound", describe(s))
		}
	}
	return nil
}

// find returns the session with an ID, or nil.
func find(list []auth.Session, id string) *auth.Session {
	if i := slices.IndexFunc(list, func(s auth.Session) bool { return s.ID == id }); i >= 0 {
		return &list[i]
	}
	return nil
}

// wantList returns an error unless List returns exactly the given sessions, in
// any order.
func (e *env) wantList(st auth.Store, subject string, want ...auth.Session) error {
	list, err := st.List(e.ctx, subject)
	if err != nil {
		return fmt.Errorf("List of %.40q: %w", subject, err)
	}
	for _, w := range want {
		got := find(list, w.ID)
		if got == nil {
			return fmt.Errorf("List of %.40q has no %s", subject, describe(w))
		}
		if err := diff(*got, w); err != nil {
			return fmt.Errorf("List of %.40q: %w", subject, err)
		}
	}
	if len(list) != len(want) {
		var ids []string
		for _, s := range list {
			ids = append(ids, describe(s))
		}
		return fmt.Errorf("List of %.40q has %d sessions, want %d: %.400s", subject, len(list), len(want), strings.Join(ids, ", "))
	}
	return nil
}

// rotate calls Rotate on s, from a generation. It returns an error unless the
// result and the stored session are want, and the session was rotated or not as
// wantRotated says.
func (e *env) rotate(st auth.Store, s auth.Session, from int64, rotation auth.Rotation, want auth.Session, wantRotated bool) error {
	got, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, rotation))
	if err != nil {
		return fmt.Errorf("Rotate of %s from %d: %w", describe(s), from, err)
	}
	if ok != wantRotated {
		return fmt.Errorf("Rotate of %s from %d: rotated is %t, want %t; the generation is %d", describe(s), from, ok, wantRotated, got.Generation)
	}
	if err := diff(got, want); err != nil {
		return fmt.Errorf("Rotate from %d returned an unexpected session: %w", from, err)
	}
	if err := e.wantStored(st, want); err != nil {
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

// concurrently calls f(0) to f(n-1) at once, and returns an error that one of
// them returned, or nil.
func concurrently(n int, f func(i int) error) error {
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

// rotateFrom returns r with From set to a generation.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
