package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// around returns a not-before in the current second, and sessions of a subject
// that were created before it and not before it.
func around(subject string) (notBefore time.Time, before, after []auth.Session) {
	notBefore = time.Now().UTC().Truncate(time.Second)
	for i, d := range []time.Duration{-24 * time.Hour, -time.Second, -time.Millisecond, 0, time.Millisecond, time.Second} {
		s := session(subject, fmt.Sprintf("one-%d", i))
		s.CreatedAt = notBefore.Add(d)
		s.RotatedAt = s.CreatedAt
		if d < 0 {
			before = append(before, s)
		} else {
			after = append(after, s)
		}
	}
	return notBefore, before, after
}

var revokeCases = []testcase{{
	name: "Revoke_DeletesListedSessions",
	rule: "Revoke deletes the sessions that r ends",
	run: func(e *env) error {
		st := e.open()
		var adas []auth.Session
		for i := range 6 {
			adas = append(adas, session("ada", fmt.Sprintf("one-%d", i)))
		}
		bob := session("bob", "one-1")
		if err := e.create(st, append(adas, bob)...); err != nil {
			return err
		}
		until := now().Add(time.Minute)
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one-0"}, Until: until}); err != nil {
			return err
		}
		if err := e.wantGone(st, adas[0]); err != nil {
			return err
		}
		if err := e.wantList(st, "ada", adas[1:]...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"absent", "one-1", "one-0", "one-3", "one-3"}, Until: until}); err != nil {
			return err
		}
		if err := e.wantGone(st, adas[1], adas[3]); err != nil {
			return err
		}
		if err := e.wantList(st, "ada", adas[2], adas[4], adas[5]); err != nil {
			return err
		}
		if err := e.wantList(st, "bob", bob); err != nil {
			return err
		}
		var many []string // too many for a small message
		for i := range 500 {
			many = append(many, fmt.Sprintf("absent-and-long-%d", i))
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: append(many, "one-5", "one-2"), Until: until}); err != nil {
			return err
		}
		return e.wantList(st, "ada", adas[4])
	},
}, {
	name: "Revoke_AllDeletesSessionsCreatedBefore",
	rule: "it also ends all sessions of Subject whose CreatedAt is earlier than Before",
	run: func(e *env) error {
		st := e.open()
		notBefore, before, after := around("ada")
		rotation := rotationAt(notBefore.Add(time.Minute), device(1)) // used later, but created before
		if err := e.create(st, append(before, after...)...); err != nil {
			return err
		}
		if err := e.rotate(st, before[0], 1, rotation, rotated(before[0], 2, rotation), true); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", All: true, Before: notBefore, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.wantGone(st, before...); err != nil {
			return fmt.Errorf("created before %s: %w", notBefore, err)
		}
		if err := e.wantList(st, "ada", after...); err != nil {
			return fmt.Errorf("created at %s or later: %w", notBefore, err)
		}
		return e.wantStored(st, after...)
	},
}, {
	name: "Revoke_AllKeepsExcept",
	rule: "it also ends all sessions of Subject whose CreatedAt is earlier than Before, except those in Except.",
	run: func(e *env) error {
		st := e.open()
		notBefore := time.Now().UTC().Truncate(time.Second)
		var left, revoked []auth.Session
		var except []string
		for i, id := range []string{"one", "One", "one,two", "two", "three", "thre", "%", "*", "\"q", "q", "absent"} {
			s := session("ada", id)
			switch {
			case id == "absent":
				except = append(except, id)
				continue
			case i%2 == 0:
				except, left = append(except, id), append(left, s)
			default:
				revoked = append(revoked, s)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
		}
		r := auth.Revocation{Subject: "ada", All: true, Except: except, Before: notBefore, Until: now().Add(time.Minute)}
		for range 2 {
			if err := e.revoke(st, r); err != nil {
				return err
			}
			if err := e.wantGone(st, revoked...); err != nil {
				return err
			}
			if err := e.wantList(st, "ada", left...); err != nil {
				return fmt.Errorf("Except %q: %w", except, err)
			}
		}
		return nil
	},
}, {
	name: "Revoke_AllTouchesNoOtherSubject",
	rule: "it also ends all sessions of Subject",
	run: func(e *env) error {
		st := e.open()
		others := []auth.Session{session("bob", "one"), session("ada2", "one"), session("ad", "one")}
		if err := e.create(st, append(others, session("ada", "one"))...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.wantGone(st, session("ada", "one")); err != nil {
			return err
		}
		return e.wantStored(st, others...)
	},
}, {
	name: "Revoke_ListAndAll",
	rule: "It ends the sessions listed in Sessions.",
	run: func(e *env) error {
		st := e.open()
		notBefore, before, after := around("ada")
		if err := e.create(st, append(before, after...)...); err != nil {
			return err
		}
		r := auth.Revocation{Subject: "ada", Sessions: []string{after[2].ID}, All: true, Except: []string{before[1].ID},
			Before: notBefore, Until: now().Add(time.Minute)}
		if err := e.revoke(st, r); err != nil {
			return err
		}
		return e.wantList(st, "ada", before[1], after[0], after[1])
	},
}, {
	name: "Revoke_NeitherListNorAllDeletesNothing",
	rule: "If All is not set and Sessions is empty, it ends only access tokens: those of Subject that were issued earlier than Before.",
	run: func(e *env) error {
		st := e.open()
		notBefore, before, after := around("ada")
		all := append(before, after...)
		if err := e.create(st, all...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Before: notBefore.Add(2 * time.Second), Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return e.wantList(st, "ada", all...)
	},
}, {
	name: "Revoke_RepeatedKeepsLaterLogins",
	rule: "So repeating it does not end a session that was created later.",
	run: func(e *env) error {
		st := e.open()
		notBefore := time.Now().UTC().Truncate(time.Second)
		old, later := session("ada", "old"), session("ada", "later")
		later.CreatedAt = notBefore.Add(time.Second)
		later.RotatedAt = later.CreatedAt
		if err := e.create(st, old); err != nil {
			return err
		}
		for i, r := range []auth.Revocation{
			{Subject: "ada", All: true, Before: notBefore, Until: now().Add(time.Minute)},
			{Subject: "ada", Sessions: []string{"old", "absent"}, Until: now().Add(time.Minute)},
		} {
			if err := e.revoke(st, r); err != nil {
				return err
			}
			if i == 0 {
				if err := e.create(st, later); err != nil {
					return err
				}
			}
			for range 2 {
				if err := e.revoke(st, r); err != nil {
					return fmt.Errorf("second Revoke: %w", err)
				}
				if err := e.wantList(st, "ada", later); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Revoke_IsFinalDuringRotations",
	rule: "It never creates one, so a revoked session stays revoked.",
	run: func(e *env) error {
		nodes := e.nodes(3)
		for round := range e.rounds {
			s := session("ada", fmt.Sprintf("one-%d", round))
			if err := e.create(nodes[0], s); err != nil {
				return err
			}
			r := auth.Revocation{Subject: "ada", Sessions: []string{s.ID}, Until: now().Add(time.Minute)}
			if round%2 == 1 {
				r = auth.Revocation{Subject: "ada", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)}
			}
			var revoked atomic.Bool
			at := now()
			err := concurrently(5, func(i int) error {
				if i == 0 {
					defer revoked.Store(true)
					return e.revoke(nodes[0], r)
				}
				from := int64(1)
				for j := range 1000 {
					late := revoked.Load()
					got, _, err := nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, rotationAt(at.Add(time.Duration(j)*time.Millisecond), device(i))))
					switch {
					case errors.Is(err, auth.ErrSessionNotFound):
						if late {
							return nil
						}
					case err != nil:
						return fmt.Errorf("Rotate: %w", err)
					case late:
						return fmt.Errorf("Rotate of %s returned generation %d after Revoke has returned, want ErrSessionNotFound", describe(s), got.Generation)
					default:
						from = got.Generation
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			for _, st := range nodes {
				if err := e.wantGone(st, s); err != nil {
					return fmt.Errorf("round %d: after Revoke: %w", round, err)
				}
			}
		}
		return e.wantList(nodes[0], "ada")
	},
}, {
	name: "Revoke_AllDuringLogins",
	rule: "Revoke deletes the sessions that r ends",
	run: func(e *env) error {
		nodes := e.nodes(3)
		for round := range e.rounds {
			subject := fmt.Sprintf("ada-%d", round)
			notBefore := time.Now().UTC().Truncate(time.Second)
			newSession := func(id string, at time.Time) auth.Session {
				s := session(subject, id)
				s.CreatedAt, s.RotatedAt = at, at
				return s
			}
			var old, racing, later []auth.Session
			for i := range 4 {
				old = append(old, newSession(fmt.Sprintf("old-%d", i), notBefore.Add(-time.Hour)))
				racing = append(racing, newSession(fmt.Sprintf("racing-%d", i), notBefore.Add(-time.Second)))
				later = append(later, newSession(fmt.Sprintf("later-%d", i), notBefore.Add(time.Second)))
			}
			if err := e.create(nodes[0], old...); err != nil {
				return err
			}
			r := auth.Revocation{Subject: subject, All: true, Before: notBefore, Until: now().Add(time.Minute)}
			err := concurrently(9, func(i int) error {
				switch {
				case i == 0:
					return e.revoke(nodes[0], r)
				case i <= 4:
					return e.create(nodes[i%len(nodes)], racing[i-1])
				default:
					return e.create(nodes[i%len(nodes)], later[i-5])
				}
			})
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if err := e.wantGone(nodes[1], old...); err != nil {
				return fmt.Errorf("round %d: sessions created before the call of Revoke: %w", round, err)
			}
			left := later
			for _, s := range racing { // may be deleted or not, but must be complete
				switch got, err := nodes[1].Get(e.ctx, s.Subject, s.ID); {
				case err == nil:
					if err := diff(got, s); err != nil {
						return fmt.Errorf("round %d: %w", round, err)
					}
					left = append(left, s)
				case !errors.Is(err, auth.ErrSessionNotFound):
					return fmt.Errorf("round %d: Get: %w", round, err)
				}
			}
			if err := e.wantList(nodes[2], subject, left...); err != nil {
				return fmt.Errorf("round %d: List differs from Get: %w", round, err)
			}
			if err := e.revoke(nodes[2], r); err != nil {
				return err
			}
			if err := e.wantGone(nodes[1], racing...); err != nil {
				return fmt.Errorf("round %d: after the second Revoke: %w", round, err)
			}
			if err := e.wantList(nodes[0], subject, later...); err != nil {
				return fmt.Errorf("round %d: sessions created after Before: %w", round, err)
			}
		}
		return nil
	},
}}
