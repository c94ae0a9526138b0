package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// around returns a cut at the present second, and the sessions of a subject
// that were created around it.
func around(subject string) (cut time.Time, before, after []auth.Session) {
	cut = time.Now().UTC().Truncate(time.Second)
	for i, d := range []time.Duration{-24 * time.Hour, -time.Second, -time.Millisecond, 0, time.Millisecond, time.Second} {
		s := session(subject, fmt.Sprintf("one-%d", i))
		s.CreatedAt = cut.Add(d)
		s.RotatedAt = s.CreatedAt
		if d < 0 {
			before = append(before, s)
		} else {
			after = append(after, s)
		}
	}
	return cut, before, after
}

var revokeCases = []testcase{{
	name: "Revoke_DeletesTheSessionsNamed",
	rule: "Revoke deletes the sessions that r names",
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
		if err := e.gone(st, adas[0]); err != nil {
			return err
		}
		if err := e.lists(st, "ada", adas[1:]...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"absent", "one-1", "one-0", "one-3", "one-3"}, Until: until}); err != nil {
			return err
		}
		if err := e.gone(st, adas[1], adas[3]); err != nil {
			return err
		}
		if err := e.lists(st, "ada", adas[2], adas[4], adas[5]); err != nil {
			return err
		}
		if err := e.lists(st, "bob", bob); err != nil {
			return err
		}
		var many []string // more than fits into a small message
		for i := range 500 {
			many = append(many, fmt.Sprintf("absent-and-long-%d", i))
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: append(many, "one-5", "one-2"), Until: until}); err != nil {
			return err
		}
		return e.lists(st, "ada", adas[4])
	},
}, {
	name: "Revoke_AllEndsThoseCreatedBeforeCut",
	rule: "with All those of Subject that were created before Before",
	run: func(e *env) error {
		st := e.open()
		cut, before, after := around("ada")
		use := useAt(cut.Add(time.Minute), device(1)) // used since, but created before
		if err := e.create(st, append(before, after...)...); err != nil {
			return err
		}
		if err := e.rotate(st, before[0], 1, use, used(before[0], 2, use), true); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", All: true, Before: cut, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.gone(st, before...); err != nil {
			return fmt.Errorf("created before the cut, %s: %w", cut, err)
		}
		if err := e.lists(st, "ada", after...); err != nil {
			return fmt.Errorf("after the cut, %s: %w", cut, err)
		}
		return e.stands(st, after...)
	},
}, {
	name: "Revoke_AllSparesExcept",
	rule: "with All those of Subject that were created before Before, except those in Except",
	run: func(e *env) error {
		st := e.open()
		cut := time.Now().UTC().Truncate(time.Second)
		var left, gone []auth.Session
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
				gone = append(gone, s)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
		}
		r := auth.Revocation{Subject: "ada", All: true, Except: except, Before: cut, Until: now().Add(time.Minute)}
		for range 2 {
			if err := e.revoke(st, r); err != nil {
				return err
			}
			if err := e.gone(st, gone...); err != nil {
				return err
			}
			if err := e.lists(st, "ada", left...); err != nil {
				return fmt.Errorf("Except %q: %w", except, err)
			}
		}
		return nil
	},
}, {
	name: "Revoke_AllTouchesNoOtherSubject",
	rule: "with All those of Subject",
	run: func(e *env) error {
		st := e.open()
		others := []auth.Session{session("bob", "one"), session("ada2", "one"), session("ad", "one")}
		if err := e.create(st, append(others, session("ada", "one"))...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.gone(st, session("ada", "one")); err != nil {
			return err
		}
		return e.stands(st, others...)
	},
}, {
	name: "Revoke_NamedAndAllTogether",
	rule: "It names the sessions listed in Sessions, and with All those of Subject that were created before Before",
	run: func(e *env) error {
		st := e.open()
		cut, before, after := around("ada")
		if err := e.create(st, append(before, after...)...); err != nil {
			return err
		}
		r := auth.Revocation{Subject: "ada", Sessions: []string{after[2].ID}, All: true, Except: []string{before[1].ID}, Before: cut, Until: now().Add(time.Minute)}
		if err := e.revoke(st, r); err != nil {
			return err
		}
		return e.lists(st, "ada", before[1], after[0], after[1])
	},
}, {
	name: "Revoke_CutAloneDeletesNothing",
	rule: "If it neither lists a session nor sets All, it ends only access tokens: those of Subject that were issued before Before.",
	run: func(e *env) error {
		st := e.open()
		cut, before, after := around("ada")
		all := append(before, after...)
		if err := e.create(st, all...); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Before: cut.Add(2 * time.Second), Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return e.lists(st, "ada", all...)
	},
}, {
	name: "Revoke_RepeatedTouchesNoLaterLogin",
	rule: "so that repeating it never touches a later login.",
	run: func(e *env) error {
		st := e.open()
		cut := time.Now().UTC().Truncate(time.Second)
		old, later := session("ada", "old"), session("ada", "later")
		later.CreatedAt = cut.Add(time.Second)
		later.RotatedAt = later.CreatedAt
		if err := e.create(st, old); err != nil {
			return err
		}
		for i, r := range []auth.Revocation{
			{Subject: "ada", All: true, Before: cut, Until: now().Add(time.Minute)},
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
					return fmt.Errorf("repeated: %w", err)
				}
				if err := e.lists(st, "ada", later); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Revoke_EndsForGoodWhileOthersRotate",
	rule: "Rotate is never an upsert: a session that was revoked stays so.",
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
			err := together(5, func(i int) error {
				if i == 0 {
					defer revoked.Store(true)
					return e.revoke(nodes[0], r)
				}
				from := int64(1)
				for j := range 1000 {
					late := revoked.Load()
					got, _, err := nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, useAt(at.Add(time.Duration(j)*time.Millisecond), device(i))))
					switch {
					case errors.Is(err, auth.ErrSessionNotFound):
						if late {
							return nil
						}
					case err != nil:
						return fmt.Errorf("Rotate: %w", err)
					case late:
						return fmt.Errorf("Rotate finds %s, generation %d, after Revoke has returned", key(s), got.Generation)
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
				if err := e.gone(st, s); err != nil {
					return fmt.Errorf("round %d: after Revoke has returned: %w", round, err)
				}
			}
		}
		return e.lists(nodes[0], "ada")
	},
}, {
	name: "Revoke_AllWhileOthersSignIn",
	rule: "Revoke deletes the sessions that r names",
	run: func(e *env) error {
		nodes := e.nodes(3)
		for round := range e.rounds {
			subject := fmt.Sprintf("ada-%d", round)
			cut := time.Now().UTC().Truncate(time.Second)
			made := func(id string, at time.Time) auth.Session {
				s := session(subject, id)
				s.CreatedAt, s.RotatedAt = at, at
				return s
			}
			var old, racing, later []auth.Session
			for i := range 4 {
				old = append(old, made(fmt.Sprintf("old-%d", i), cut.Add(-time.Hour)))
				racing = append(racing, made(fmt.Sprintf("racing-%d", i), cut.Add(-time.Second)))
				later = append(later, made(fmt.Sprintf("later-%d", i), cut.Add(time.Second)))
			}
			if err := e.create(nodes[0], old...); err != nil {
				return err
			}
			r := auth.Revocation{Subject: subject, All: true, Before: cut, Until: now().Add(time.Minute)}
			err := together(9, func(i int) error {
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
			if err := e.gone(nodes[1], old...); err != nil {
				return fmt.Errorf("round %d: created before Revoke was called: %w", round, err)
			}
			left := later
			for _, s := range racing { // either, but whole
				switch got, err := nodes[1].Get(e.ctx, s.Subject, s.ID); {
				case err == nil:
					if err := same(got, s); err != nil {
						return fmt.Errorf("round %d: %w", round, err)
					}
					left = append(left, s)
				case !errors.Is(err, auth.ErrSessionNotFound):
					return fmt.Errorf("round %d: Get: %w", round, err)
				}
			}
			if err := e.lists(nodes[2], subject, left...); err != nil {
				return fmt.Errorf("round %d: List and Get disagree after a race: %w", round, err)
			}
			if err := e.revoke(nodes[2], r); err != nil {
				return err
			}
			if err := e.gone(nodes[1], racing...); err != nil {
				return fmt.Errorf("round %d: revoked again: %w", round, err)
			}
			if err := e.lists(nodes[0], subject, later...); err != nil {
				return fmt.Errorf("round %d: created after the cut: %w", round, err)
			}
		}
		return nil
	},
}}
