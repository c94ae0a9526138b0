package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

const (
	onceSpent     = "The first call with a subject and an ID returns nil. Every other call, by any process, returns ErrSpent until the record is deleted."
	keepSpent     = "That is at the earliest a minute after until."
	separateSpent = "The record is independent of sessions"
)

// spend returns an error unless Spend returns nil.
func (e *env) spend(st auth.Store, subject, id string, until time.Time) error {
	if err := st.Spend(e.ctx, subject, id, until); err != nil {
		return fmt.Errorf("first Spend of %.40q for %.40q: %w, want nil", id, subject, err)
	}
	return nil
}

// wantSpent returns an error unless Spend returns ErrSpent.
func (e *env) wantSpent(st auth.Store, subject, id string, until time.Time) error {
	if err := st.Spend(e.ctx, subject, id, until); !errors.Is(err, auth.ErrSpent) {
		return fmt.Errorf("another Spend of %.40q for %.40q returned %w, want ErrSpent", id, subject, orNil(err))
	}
	return nil
}

// orNil returns err, or an error that says that there was none.
func orNil(err error) error {
	if err == nil {
		return errors.New("nil")
	}
	return err
}

// spendAll spends IDs of subjects, each a pair, and returns an error unless each
// can be spent exactly once.
func (e *env) spendAll(st auth.Store, pairs [][2]string) error {
	until := now().Add(time.Hour)
	for _, p := range pairs {
		if err := e.spend(st, p[0], p[1], until); err != nil {
			return err
		}
	}
	for _, p := range pairs {
		if err := e.wantSpent(st, p[0], p[1], until); err != nil {
			return err
		}
	}
	return nil
}

var spendCases = []testcase{{
	name: "Spend_OnlyOnce",
	rule: onceSpent,
	run: func(e *env) error {
		nodes := e.nodes(3)
		until := now().Add(time.Hour)
		for i := range len(nodes) {
			id := fmt.Sprintf("one-%d", i)
			if err := e.spend(nodes[i], "ada", id, until); err != nil {
				return err
			}
			for j := range 2 * len(nodes) { // also the same call on the same node
				if err := e.wantSpent(nodes[(i+j)%len(nodes)], "ada", id, until); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Spend_OneOfManyAtOnceWins",
	rule: onceSpent,
	run: func(e *env) error {
		nodes := e.nodes(4)
		at := now().Add(time.Hour)
		for round := range e.rounds {
			id := fmt.Sprintf("one-%d", round)
			var wins atomic.Int64
			err := concurrently(64, func(i int) error {
				// Each until differs, as does the time at which each process
				// computes it.
				switch err := nodes[i%len(nodes)].Spend(e.ctx, "ada", id, at.Add(time.Duration(i)*time.Millisecond)); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, auth.ErrSpent):
					return fmt.Errorf("Spend: %w, want nil or ErrSpent", err)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if n := wins.Load(); n != 1 {
				return fmt.Errorf("round %d: %d of 64 concurrent calls of Spend returned nil, want 1", round, n)
			}
			if err := e.wantSpent(nodes[round%len(nodes)], "ada", id, at); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	},
}, {
	name: "Spend_NamesAreComparedByteForByte",
	rule: "Subjects and session IDs are compared byte for byte.",
	run: func(e *env) error {
		var pairs [][2]string
		for _, name := range names() {
			pairs = append(pairs, [2]string{name, "one"}, [2]string{"owner", name})
		}
		return e.spendAll(e.open(), pairs)
	},
}, {
	name: "Spend_SubjectAndIDAreSeparate",
	rule: "The first call with a subject and an ID returns nil.",
	run: func(e *env) error {
		pairs := [][2]string{{"ada", "one"}, {"bob", "one"}, {"ada", "two"}, {"one", "ada"}}
		for _, sep := range separators() {
			pairs = append(pairs, [2]string{"a", "b" + sep + "c"}, [2]string{"a" + sep + "b", "c"})
		}
		return e.spendAll(e.open(), pairs)
	},
}, {
	name: "Spend_ManyRecords",
	rule: onceSpent,
	run: func(e *env) error {
		nodes := e.nodes(8)
		at := now()
		each := func(f func(st auth.Store, subject, id string, until time.Time) error, shift int) error {
			return concurrently(len(nodes), func(n int) error {
				for i := n; i < e.many; i += len(nodes) {
					until := at.Add(time.Duration(1+i%60) * time.Minute)
					if err := f(nodes[(n+shift)%len(nodes)], fmt.Sprintf("user-%d", i%10), fmt.Sprintf("one-%d", i), until); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := each(e.spend, 0); err != nil {
			return err
		}
		return each(e.wantSpent, 1)
	},
}, {
	name: "Spend_RecordStaysForAMinute",
	rule: keepSpent,
	run: func(e *env) error {
		st := e.open()
		ends := []time.Duration{-30 * time.Second, -time.Second, 0, time.Millisecond, time.Second}
		at := now()
		for i, d := range ends {
			if err := e.spend(st, "ada", fmt.Sprintf("one-%d", i), at.Add(d)); err != nil {
				return err
			}
		}
		for i := range 20 { // a store may remove records when it writes
			s := session("ada", fmt.Sprintf("new-%d", i))
			s.CreatedAt = now()
			s.RotatedAt = s.CreatedAt
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.spend(st, "ada", "spent-"+s.ID, now().Add(time.Minute)); err != nil {
				return err
			}
		}
		for i, d := range ends {
			if err := e.wantSpent(st, "ada", fmt.Sprintf("one-%d", i), at.Add(d)); err != nil {
				return fmt.Errorf("%s after until: %w", time.Since(at.Add(d)), err)
			}
		}
		return nil
	},
}, {
	name: "Spend_LaterCallsDoNotChangeUntil",
	rule: "Later calls do not change the record, whatever their until is.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		until := now().Add(time.Hour)
		if err := e.spend(nodes[0], "ada", "one", until); err != nil {
			return err
		}
		for _, later := range []time.Time{until.Add(-2 * time.Hour), {}, time.Unix(0, 0).UTC(), now(), until.Add(time.Hour), until.Add(-2 * time.Hour)} {
			for _, st := range nodes {
				if err := e.wantSpent(st, "ada", "one", later); err != nil {
					return fmt.Errorf("first until %s, this until %s: %w", until, later, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Spend_EveryUntil",
	rule: "So it only has to represent the values that these methods accept.",
	run: func(e *env) error {
		st := e.open()
		at := now()
		for i, until := range []time.Time{
			{}, time.Unix(0, 0).UTC(), time.UnixMilli(-1).UTC(), time.UnixMilli(1).UTC(), at.Add(-time.Hour), at.Add(-time.Minute), at,
			at.AddDate(0, 0, 30), time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC), time.Date(2262, 4, 12, 0, 0, 0, 0, time.UTC),
			time.Date(6000, 12, 31, 23, 59, 59, 999e6, time.UTC),
		} {
			id := fmt.Sprintf("one-%d", i)
			if err := e.spend(st, "ada", id, until); err != nil {
				return fmt.Errorf("until %s: %w", until, err)
			}
			// A record whose until is a minute ago may have been removed.
			switch err := st.Spend(e.ctx, "ada", id, until); {
			case errors.Is(err, auth.ErrSpent):
			case err != nil:
				return fmt.Errorf("until %s: another Spend: %w", until, err)
			case until.After(at):
				return fmt.Errorf("until %s: another Spend returned nil, want ErrSpent", until)
			}
		}
		return nil
	},
}, {
	name: "Spend_IsIndependentOfSessions",
	rule: separateSpent,
	run: func(e *env) error {
		nodes := e.nodes(2)
		st := nodes[0]
		until := now().Add(time.Hour)
		s := session("ada", "one")
		spent := func(ids ...string) error {
			for _, id := range ids {
				if err := e.wantSpent(nodes[1], "ada", id, until); err != nil {
					return err
				}
			}
			return nil
		}
		next, err := e.wantNoChange(st, "")
		if err != nil {
			return err
		}
		if err := e.spend(st, "ada", "one", until); err != nil {
			return err
		}
		if err := e.wantGone(st, s); err != nil {
			return fmt.Errorf("after Spend with this ID: %w", err)
		}
		if err := e.wantList(st, "ada"); err != nil {
			return fmt.Errorf("after Spend: %w", err)
		}
		if _, ok, err := st.Rotate(e.ctx, "ada", "one", rotateFrom(1, rotationAt(now(), device(1)))); ok || !errors.Is(err, auth.ErrSessionNotFound) {
			return fmt.Errorf("after Spend with this ID: Rotate of an absent session: rotated is %t, error %v, want ErrSessionNotFound", ok, err)
		}
		if next, err = e.wantNoChange(st, next); err != nil {
			return fmt.Errorf("after Spend: %w", err)
		}
		if err := e.create(st, s); err != nil {
			return fmt.Errorf("after Spend with this ID: %w", err)
		}
		other := session("ada", "other")
		if err := e.create(st, other); err != nil {
			return err
		}
		if err := e.spend(st, "ada", "other", until); err != nil {
			return fmt.Errorf("after Create with this ID: %w", err)
		}
		rotation := rotationAt(now(), device(1))
		s = rotated(s, 2, rotation)
		if err := e.rotate(st, s, 1, rotation, s, true); err != nil {
			return err
		}
		if err := spent("one", "other"); err != nil {
			return fmt.Errorf("after Create and Rotate: %w", err)
		}
		if err := e.wantList(st, "ada", s, other); err != nil {
			return err
		}
		if next, err = e.wantNoChange(st, next); err != nil {
			return err
		}
		for _, r := range []auth.Revocation{
			{Subject: "ada", Sessions: []string{"one", "absent"}, Until: now().Add(time.Minute)},
			{Subject: "ada", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)},
			notBefore("ada"),
		} {
			if err := e.revoke(st, r); err != nil {
				return err
			}
			if next, err = e.await(st, next, r); err != nil {
				return err
			}
			if err := spent("one", "other"); err != nil {
				return fmt.Errorf("after Revoke: %w", err)
			}
		}
		if err := e.wantGone(st, s, other); err != nil {
			return err
		}
		return e.wantList(st, "ada")
	},
}, {
	name: "Refuse_InvalidSpend",
	rule: "Spend refuses what Session.Check refuses of a Session with this Subject, ID and ExpiresAt.",
	run: func(e *env) error {
		st := e.open()
		until := now().Add(time.Hour)
		for _, name := range refusedNames() {
			for _, p := range [][2]string{{name, "one"}, {"owner", name}} {
				call := fmt.Sprintf("Spend of %.300q for %.300q", p[1], p[0])
				for range 2 { // a first call that wrote would make the second return ErrSpent
					if err := refused(call, st.Spend(e.ctx, p[0], p[1], until)); err != nil {
						return err
					}
				}
			}
		}
		for i, t := range farTimes() {
			id := fmt.Sprintf("one-%d", i)
			call := fmt.Sprintf("Spend with until %s", t)
			if err := refused(call, st.Spend(e.ctx, "ada", id, t)); err != nil {
				return err
			}
			if err := e.spend(st, "ada", id, until); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
		}
		// What a refused name becomes if it is cut, cleaned or folded is unspent.
		for _, name := range []string{"ada", "owner", "ad", "a", strings.Repeat("x", 255), strings.Repeat("中", 85), "[31m", "\ufffd"} {
			if err := e.spend(st, name, "one", until); err != nil {
				return fmt.Errorf("after a similar call was refused: %w", err)
			}
			if err := e.spend(st, "owner", name, until); err != nil {
				return fmt.Errorf("after a similar call was refused: %w", err)
			}
		}
		return nil
	},
}}
