package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/ratchet-go/auth"
)

var rotateCases = []testcase{{
	name: "Rotate_MovesFromTheStoredGeneration",
	rule: "If the stored Generation is r.From and RotatedAt is not after r.NotAfter, it becomes r.From+1",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, rested := range []time.Duration{0, time.Millisecond, time.Hour, 10 * 365 * 24 * time.Hour} {
			use := useAt(s.RotatedAt.Add(time.Minute), device(i))
			use.NotAfter = s.RotatedAt.Add(rested)
			from := s.Generation
			s = used(s, from+1, use)
			if err := e.rotate(st, s, from, use, s, true); err != nil {
				return fmt.Errorf("RotatedAt %s before r.NotAfter: %w", rested, err)
			}
		}
		return nil
	},
}, {
	name: "Rotate_RestingSessionStays",
	rule: "rotate only if RotatedAt is not after this",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, rest := range []time.Duration{time.Millisecond, time.Second, 30 * time.Second, time.Hour} {
			use := useAt(now(), device(1))
			use.NotAfter = s.RotatedAt.Add(-rest)
			if err := e.rotate(st, s, 1, use, s, false); err != nil {
				return fmt.Errorf("RotatedAt %s after r.NotAfter: %w", rest, err)
			}
		}
		use := useAt(now(), device(1))
		use.NotAfter = s.RotatedAt
		return e.rotate(st, s, 1, use, used(s, 2, use), true)
	},
}, {
	name: "Rotate_SpentGenerationChangesNothing",
	rule: "Otherwise nothing changes. Either way s is the session as it now stands",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.Generation = 12
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, from := range []int64{11, 10, 9, 2, 1} { // as text, 9 and 2 are more than 12
			if err := e.rotate(st, s, from, useAt(now(), device(1)), s, false); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_AheadOfTheStoreBecomesFrom",
	rule: "if it is less than r.From (the store has lost acknowledged writes), it becomes r.From.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.Generation = 9
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, from := range []int64{10, 11, 20, 100, 1 << 40} { // as text, 10 is less than 9
			use := useAt(now().Add(time.Duration(i)*time.Millisecond), device(i))
			if i%2 == 1 {
				use.NotAfter = s.RotatedAt.Add(-time.Minute) // it rests, which does not count here
			}
			s = used(s, from, use)
			if err := e.rotate(st, s, from, use, s, true); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_SetsWhatUseSays",
	rule: "In both cases RotatedAt, ExpiresAt and Device are set from r",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		at := now()
		for i, use := range []auth.Rotation{
			{ExpiresAt: at.Add(time.Hour), Device: device(1)},
			{ExpiresAt: at.Add(30 * 24 * time.Hour), Device: auth.Device{UserAgent: "agent alone"}},
			{ExpiresAt: at.Add(time.Minute), Device: auth.Device{IP: device(2).IP}}, // earlier than before
			{ExpiresAt: at.Add(time.Hour), Device: device(3)},
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{UserAgent: device(3).UserAgent, IP: device(4).IP}}, // it roams
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{UserAgent: "updated", IP: device(4).IP}},
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{}}, // nothing is known any more
			{ExpiresAt: at.Add(time.Hour), Device: device(4)},
		} {
			use.At = at.Add(time.Duration(i) * 1001 * time.Millisecond)
			use.NotAfter = use.At
			from := s.Generation
			s = used(s, from+1, use)
			if err := e.rotate(st, s, from, use, s, true); err != nil {
				return fmt.Errorf("move %d: %w", i, err)
			}
		}
		return nil
	},
}, {
	name: "Rotate_RotatedAtMayMoveBack",
	rule: "RotatedAt becomes r.At also where that is earlier: a clock may have been set back.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, back := range []time.Duration{time.Millisecond, 5 * time.Second, 4 * 365 * 24 * time.Hour} {
			use := useAt(s.RotatedAt.Add(-back), device(i))
			use.NotAfter, use.ExpiresAt = s.RotatedAt.Add(time.Hour), now().Add(time.Hour)
			want := used(s, s.Generation+1, use)
			if err := e.rotate(st, s, s.Generation, use, want, true); err != nil {
				return fmt.Errorf("use.At lies %s before RotatedAt: %w", back, err)
			}
			s = want
		}
		use := useAt(s.RotatedAt.Add(-time.Second), device(9))
		use.ExpiresAt = now().Add(time.Hour)
		want := used(s, s.Generation+5, use)
		if err := e.rotate(st, s, s.Generation+5, use, want, true); err != nil {
			return fmt.Errorf("use.At lies before RotatedAt, in a move to a later generation: %w", err)
		}
		return nil
	},
}, {
	name: "Rotate_IsNeverAnUpsert",
	rule: "Rotate is never an upsert: a session that was revoked stays so.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		absent := func() error {
			for _, from := range []int64{1, 2, 7} {
				got, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, useAt(now(), device(1))))
				if err == nil || moved {
					return fmt.Errorf("Rotate from %d of an absent session: generation %d, moved %t, %v", from, got.Generation, moved, err)
				}
				if err := e.gone(st, s); err != nil {
					return fmt.Errorf("after Rotate from %d of an absent session: %w", from, err)
				}
			}
			return nil
		}
		if err := absent(); err != nil {
			return err
		}
		if err := e.create(st, s); err != nil {
			return err
		}
		use := useAt(now(), device(1))
		if err := e.rotate(st, s, 1, use, used(s, 2, use), true); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return absent()
	},
}, {
	name: "Rotate_UnknownIsNotFound",
	rule: "It takes one round trip where the database allows it. ErrSessionNotFound.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, unknown := range []auth.Session{session("ada", "two"), session("bob", "one")} {
			for _, from := range []int64{1, 2} {
				if _, _, err := st.Rotate(e.ctx, unknown.Subject, unknown.ID, rotateFrom(from, useAt(now(), device(1)))); !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Rotate of an absent session: %v, want ErrSessionNotFound", err)
				}
			}
		}
		return e.stands(st, s)
	},
}, {
	name: "Rotate_MayBeRepeated",
	rule: "every method may be repeated",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for from := range int64(5) {
			use := useAt(now(), device(int(from)))
			s = used(s, from+2, use)
			for i := range 3 {
				if err := e.rotate(st, s, from+1, use, s, i == 0); err != nil {
					return fmt.Errorf("call %d: %w", i+1, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Rotate_OneOfManyAtOnceMoves",
	rule: "RotatedAt, ExpiresAt and Device are set from r, in one atomic step, and rotated is true",
	run: func(e *env) error {
		return e.contend(1, func(calls []call, final auth.Session) error {
			var winners []int
			for i, c := range calls {
				if c.moved {
					winners = append(winners, i)
				}
			}
			if len(winners) != 1 {
				return fmt.Errorf("moved was true %d times, want once", len(winners))
			}
			w := calls[winners[0]]
			if err := same(w.got, w.want); err != nil {
				return fmt.Errorf("the call that moved returned another session: %w", err)
			}
			if err := same(final, w.want); err != nil {
				return fmt.Errorf("what is stored is not what the call that moved wrote: %w", err)
			}
			return nil
		})
	},
}, {
	name: "Rotate_OneOfManyAtOnceHeals",
	rule: "In both cases RotatedAt, ExpiresAt and Device are set from r, in one atomic step",
	run: func(e *env) error {
		return e.contend(5, func(calls []call, final auth.Session) error {
			var winners []int
			for i, c := range calls {
				if c.moved {
					winners = append(winners, i)
				}
			}
			if len(winners) != 1 {
				return fmt.Errorf("the store was behind; moved was true %d times, want once: the others find it resting", len(winners))
			}
			if err := same(final, calls[winners[0]].want); err != nil {
				return fmt.Errorf("what is stored is not what the call that moved wrote: %w", err)
			}
			return nil
		})
	},
}, {
	name: "Rotate_LosersSeeTheWinnersWrite",
	rule: "Either way s is the session as it now stands, the winner's write included.",
	run: func(e *env) error {
		return e.contend(1, func(calls []call, final auth.Session) error {
			for i, c := range calls {
				if c.moved {
					continue
				}
				seen := errors.New("nobody moved")
				for _, w := range calls {
					if w.moved {
						if seen = same(c.got, w.want); seen == nil {
							break
						}
					}
				}
				if seen != nil {
					return fmt.Errorf("call %d lost, and was not shown what the winner wrote: %w", i, seen)
				}
			}
			return nil
		})
	},
}, {
	name: "Rotate_IsSeenWhole",
	rule: "RotatedAt, ExpiresAt and Device are set from r, in one atomic step",
	run: func(e *env) error {
		nodes, base := e.nodes(4), session("ada", "one")
		at := base.RotatedAt
		state := func(generation int64) (auth.Session, auth.Rotation) {
			use := useAt(at.Add(time.Duration(generation)*time.Second), device(int(generation)))
			return used(base, generation, use), use
		}
		s, _ := state(1)
		if err := e.create(nodes[0], s); err != nil {
			return err
		}
		done := make(chan struct{})
		return together(len(nodes), func(n int) error {
			if n == 0 {
				defer close(done)
				for from := range int64(2 * e.rounds) {
					_, use := state(from + 2)
					if _, moved, err := nodes[0].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from+1, use)); err != nil || !moved {
						return fmt.Errorf("Rotate from %d: moved %t, %v", from+1, moved, err)
					}
				}
				return nil
			}
			for last := int64(0); ; {
				got, err := nodes[n].Get(e.ctx, s.Subject, s.ID)
				if n == 1 && err == nil {
					var list []auth.Session
					if list, err = nodes[n].List(e.ctx, s.Subject); err == nil && len(list) == 1 {
						got = list[0]
					}
				}
				if err != nil {
					return fmt.Errorf("reading while another moves the session: %w", err)
				}
				want, _ := state(got.Generation)
				if err := same(got, want); err != nil {
					return fmt.Errorf("a reader saw half of a move: %w", err)
				}
				if got.Generation < last {
					return fmt.Errorf("a reader saw generation %d after %d", got.Generation, last)
				}
				last = got.Generation
				select {
				case <-done:
					return nil
				default:
				}
			}
		})
	},
}, {
	name: "Rotate_SessionsOfOneSubjectAreIndependent",
	rule: "Store keeps one record per session. It is safe for concurrent use, by many processes on one database.",
	run: func(e *env) error {
		nodes := e.nodes(4)
		sessions := make([]auth.Session, 16)
		for i := range sessions {
			sessions[i] = session("ada", fmt.Sprintf("one-%d", i))
			sessions[i].Device = device(i)
		}
		if err := e.create(nodes[0], sessions...); err != nil {
			return err
		}
		err := together(len(sessions), func(i int) error {
			s := &sessions[i]
			for range e.rounds/4 + 5 {
				use := useAt(s.RotatedAt.Add(time.Second), device(1000+i))
				want := used(*s, s.Generation+1, use)
				got, moved, err := nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(s.Generation, use))
				if err != nil || !moved {
					return fmt.Errorf("Rotate of %s from %d: moved %t, %v", key(*s), s.Generation, moved, err)
				}
				if err := same(got, want); err != nil {
					return fmt.Errorf("Rotate: %w", err)
				}
				*s = want
			}
			return nil
		})
		if err != nil {
			return err
		}
		return e.lists(nodes[1], "ada", sessions...)
	},
}}

// call is one of many Rotates at once.
type call struct {
	got   auth.Session
	moved bool
	want  auth.Session // what it wrote, if it moved
}

// contend lets 64 goroutines on four nodes rotate one session at once, round
// after round, from a generation that is ahead-1 later than the stored one.
// Each has a time and a device of its own, so that every write is told apart.
func (e *env) contend(ahead int64, judge func(calls []call, final auth.Session) error) error {
	nodes, s := e.nodes(4), session("ada", "one")
	if err := e.create(nodes[0], s); err != nil {
		return err
	}
	at := now()
	for round := range e.rounds {
		calls := make([]call, 64)
		// Between rounds lies a second, within one less than a tenth of one.
		at = at.Add(time.Second)
		from, to := s.Generation, s.Generation+1
		if ahead > 1 {
			from = s.Generation + ahead - 1
			to = from
		}
		err := together(len(calls), func(i int) error {
			use := useAt(at.Add(time.Duration(i)*time.Millisecond), device(round*100+i))
			use.NotAfter = at.Add(-time.Millisecond)
			c := call{want: used(s, to, use)}
			var err error
			if c.got, c.moved, err = nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, use)); err != nil {
				return fmt.Errorf("Rotate from %d: %w", from, err)
			}
			calls[i] = c
			return nil
		})
		if err != nil {
			return fmt.Errorf("round %d, %d calls at once: %w", round, len(calls), err)
		}
		final, err := nodes[1].Get(e.ctx, s.Subject, s.ID)
		if err != nil {
			return fmt.Errorf("round %d: Get: %w", round, err)
		}
		if err := judge(calls, final); err != nil {
			return fmt.Errorf("round %d, %d calls at once from generation %d: %w", round, len(calls), from, err)
		}
		s = final
	}
	return nil
}
