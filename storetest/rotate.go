package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/ratchet-go/auth"
)

var rotateCases = []testcase{{
	name: "Rotate_AdvancesFromStoredGeneration",
	rule: "If the stored Generation is r.From and RotatedAt is not after r.NotAfter, Generation becomes r.From+1.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, d := range []time.Duration{0, time.Millisecond, time.Hour, 10 * 365 * 24 * time.Hour} {
			rotation := rotationAt(s.RotatedAt.Add(time.Minute), device(i))
			rotation.NotAfter = s.RotatedAt.Add(d)
			from := s.Generation
			s = rotated(s, from+1, rotation)
			if err := e.rotate(st, s, from, rotation, s, true); err != nil {
				return fmt.Errorf("RotatedAt %s before r.NotAfter: %w", d, err)
			}
		}
		return nil
	},
}, {
	name: "Rotate_NotDuringCooldown",
	rule: "rotate only if RotatedAt is not after this",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, d := range []time.Duration{time.Millisecond, time.Second, 30 * time.Second, time.Hour} {
			rotation := rotationAt(now(), device(1))
			rotation.NotAfter = s.RotatedAt.Add(-d)
			if err := e.rotate(st, s, 1, rotation, s, false); err != nil {
				return fmt.Errorf("RotatedAt %s after r.NotAfter: %w", d, err)
			}
		}
		rotation := rotationAt(now(), device(1))
		rotation.NotAfter = s.RotatedAt
		return e.rotate(st, s, 1, rotation, rotated(s, 2, rotation), true)
	},
}, {
	name: "Rotate_SpentGenerationChangesNothing",
	rule: "Otherwise it changes nothing, and rotated is false.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.Generation = 12
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, from := range []int64{11, 10, 9, 2, 1} { // as text, 9 and 2 are more than 12
			if err := e.rotate(st, s, from, rotationAt(now(), device(1)), s, false); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_LostWritesAreRestored",
	rule: "If the stored Generation is less than r.From, which means that the store lost acknowledged writes, Generation becomes r.From.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.Generation = 9
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, from := range []int64{10, 11, 20, 100, 1 << 40} { // as text, 10 is less than 9
			rotation := rotationAt(now().Add(time.Duration(i)*time.Millisecond), device(i))
			if i%2 == 1 {
				rotation.NotAfter = s.RotatedAt.Add(-time.Minute) // in the cooldown, which must not matter here
			}
			s = rotated(s, from, rotation)
			if err := e.rotate(st, s, from, rotation, s, true); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_SetsEveryField",
	rule: "RotatedAt, ExpiresAt and Device are set from r.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		at := now()
		for i, rotation := range []auth.Rotation{
			{ExpiresAt: at.Add(time.Hour), Device: device(1)},
			{ExpiresAt: at.Add(30 * 24 * time.Hour), Device: auth.Device{UserAgent: "only an agent"}},
			{ExpiresAt: at.Add(time.Minute), Device: auth.Device{IP: device(2).IP}}, // an earlier ExpiresAt
			{ExpiresAt: at.Add(time.Hour), Device: device(3)},
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{UserAgent: device(3).UserAgent, IP: device(4).IP}}, // the address changes
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{UserAgent: "updated", IP: device(4).IP}},
			{ExpiresAt: at.Add(time.Hour), Device: auth.Device{}}, // no device is known
			{ExpiresAt: at.Add(time.Hour), Device: device(4)},
		} {
			rotation.At = at.Add(time.Duration(i) * 1001 * time.Millisecond)
			rotation.NotAfter = rotation.At
			from := s.Generation
			s = rotated(s, from+1, rotation)
			if err := e.rotate(st, s, from, rotation, s, true); err != nil {
				return fmt.Errorf("rotation %d: %w", i, err)
			}
		}
		return nil
	},
}, {
	name: "Rotate_RotatedAtMayMoveBack",
	rule: "RotatedAt becomes r.At even if that is earlier, since a clock may have been set back.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for i, back := range []time.Duration{time.Millisecond, 5 * time.Second, 4 * 365 * 24 * time.Hour} {
			rotation := rotationAt(s.RotatedAt.Add(-back), device(i))
			rotation.NotAfter, rotation.ExpiresAt = s.RotatedAt.Add(time.Hour), now().Add(time.Hour)
			want := rotated(s, s.Generation+1, rotation)
			if err := e.rotate(st, s, s.Generation, rotation, want, true); err != nil {
				return fmt.Errorf("r.At is %s before RotatedAt: %w", back, err)
			}
			s = want
		}
		rotation := rotationAt(s.RotatedAt.Add(-time.Second), device(9))
		rotation.ExpiresAt = now().Add(time.Hour)
		want := rotated(s, s.Generation+5, rotation)
		if err := e.rotate(st, s, s.Generation+5, rotation, want, true); err != nil {
			return fmt.Errorf("r.At is before RotatedAt, and from is later than the stored generation: %w", err)
		}
		return nil
	},
}, {
	name: "Rotate_IsNeverAnUpsert",
	rule: "It never creates one, so a revoked session stays revoked.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		absent := func() error {
			for _, from := range []int64{1, 2, 7} {
				got, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, rotationAt(now(), device(1))))
				if err == nil || ok {
					return fmt.Errorf("Rotate from %d of an absent session returned generation %d, rotated %t, error %v; want ErrSessionNotFound",
						from, got.Generation, ok, err)
				}
				if err := e.wantGone(st, s); err != nil {
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
		rotation := rotationAt(now(), device(1))
		if err := e.rotate(st, s, 1, rotation, rotated(s, 2, rotation), true); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return absent()
	},
}, {
	name: "Rotate_UnknownIsNotFound",
	rule: "If there is no such session, it returns ErrSessionNotFound.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, unknown := range []auth.Session{session("ada", "two"), session("bob", "one")} {
			for _, from := range []int64{1, 2} {
				if _, _, err := st.Rotate(e.ctx, unknown.Subject, unknown.ID, rotateFrom(from, rotationAt(now(), device(1)))); !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Rotate of an absent session returned %v, want ErrSessionNotFound", err)
				}
			}
		}
		return e.wantStored(st, s)
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
			rotation := rotationAt(now(), device(int(from)))
			s = rotated(s, from+2, rotation)
			for i := range 3 {
				if err := e.rotate(st, s, from+1, rotation, s, i == 0); err != nil {
					return fmt.Errorf("call %d: %w", i+1, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Rotate_OneOfManyAtOnceAdvances",
	rule: "If rotated is true, RotatedAt, ExpiresAt and Device are set from r.",
	run: func(e *env) error {
		return e.contend(1, func(calls []call, final auth.Session) error {
			var winners []int
			for i, c := range calls {
				if c.rotated {
					winners = append(winners, i)
				}
			}
			if len(winners) != 1 {
				return fmt.Errorf("rotated was true %d times, want once", len(winners))
			}
			w := calls[winners[0]]
			if err := diff(w.got, w.want); err != nil {
				return fmt.Errorf("the call that rotated returned an unexpected session: %w", err)
			}
			if err := diff(final, w.want); err != nil {
				return fmt.Errorf("the stored session is not the one that the call that rotated wrote: %w", err)
			}
			return nil
		})
	},
}, {
	name: "Rotate_OneOfManyAtOnceRestores",
	rule: "Rotate advances a session to another generation, in one atomic step",
	run: func(e *env) error {
		return e.contend(5, func(calls []call, final auth.Session) error {
			var winners []int
			for i, c := range calls {
				if c.rotated {
					winners = append(winners, i)
				}
			}
			if len(winners) != 1 {
				return fmt.Errorf("the store had lost writes; rotated was true %d times, want once: for the others the session is in its cooldown",
					len(winners))
			}
			if err := diff(final, calls[winners[0]].want); err != nil {
				return fmt.Errorf("the stored session is not the one that the call that rotated wrote: %w", err)
			}
			return nil
		})
	},
}, {
	name: "Rotate_LosersGetTheWinnersWrite",
	rule: "s is the session as it is now stored, which may be the result of a concurrent call.",
	run: func(e *env) error {
		return e.contend(1, func(calls []call, final auth.Session) error {
			for i, c := range calls {
				if c.rotated {
					continue
				}
				differs := errors.New("no call rotated")
				for _, w := range calls {
					if w.rotated {
						if differs = diff(c.got, w.want); differs == nil {
							break
						}
					}
				}
				if differs != nil {
					return fmt.Errorf("call %d did not rotate, and did not return what the winner wrote: %w", i, differs)
				}
			}
			return nil
		})
	},
}, {
	name: "Rotate_IsAtomicForReaders",
	rule: "RotatedAt, ExpiresAt and Device are set from r.",
	run: func(e *env) error {
		nodes, base := e.nodes(4), session("ada", "one")
		at := base.RotatedAt
		base.Key = key(1)
		state := func(generation int64) (auth.Session, auth.Rotation) {
			n := int(generation)
			rotation := withKey(withTags(rotationAt(at.Add(time.Duration(n)*time.Second), device(n)), tag(n), tag(-n)), base.Key)
			return rotated(base, generation, rotation), rotation
		}
		s, _ := state(1)
		if err := e.create(nodes[0], s); err != nil {
			return err
		}
		done := make(chan struct{})
		return concurrently(len(nodes), func(n int) error {
			if n == 0 {
				defer close(done)
				for from := range int64(2 * e.rounds) {
					_, rotation := state(from + 2)
					if _, ok, err := nodes[0].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from+1, rotation)); err != nil || !ok {
						return fmt.Errorf("Rotate from %d: rotated is %t, error %v", from+1, ok, err)
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
					return fmt.Errorf("reading during rotations: %w", err)
				}
				want, _ := state(got.Generation)
				if err := diff(got, want); err != nil {
					return fmt.Errorf("a reader got a partial rotation: %w", err)
				}
				if got.Generation < last {
					return fmt.Errorf("a reader got generation %d after %d", got.Generation, last)
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
		err := concurrently(len(sessions), func(i int) error {
			s := &sessions[i]
			for range e.rounds/4 + 5 {
				rotation := rotationAt(s.RotatedAt.Add(time.Second), device(1000+i))
				want := rotated(*s, s.Generation+1, rotation)
				got, ok, err := nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(s.Generation, rotation))
				if err != nil || !ok {
					return fmt.Errorf("Rotate of %s from %d: rotated is %t, error %v", describe(*s), s.Generation, ok, err)
				}
				if err := diff(got, want); err != nil {
					return fmt.Errorf("Rotate: %w", err)
				}
				*s = want
			}
			return nil
		})
		if err != nil {
			return err
		}
		return e.wantList(nodes[1], "ada", sessions...)
	},
}}

// call is one of many concurrent calls of Rotate.
type call struct {
	got     auth.Session
	rotated bool
	want    auth.Session // what it wrote, if rotated is true
}

// contend rotates one session from 64 goroutines on four nodes at once, round
// after round, from a generation that is ahead-1 later than the stored one. Each
// call has its own time, device and retry tag, so that every write differs; some
// empty the tag. check receives
// the calls of a round and the stored session after it.
func (e *env) contend(ahead int64, check func(calls []call, final auth.Session) error) error {
	nodes, s := e.nodes(4), session("ada", "one")
	if err := e.create(nodes[0], s); err != nil {
		return err
	}
	at := now()
	for round := range e.rounds {
		calls := make([]call, 64)
		// Times of different rounds are a second apart, times of one round less
		// than a tenth of a second.
		at = at.Add(time.Second)
		from, to := s.Generation, s.Generation+1
		if ahead > 1 {
			from = s.Generation + ahead - 1
			to = from
		}
		err := concurrently(len(calls), func(i int) error {
			rotation := rotationAt(at.Add(time.Duration(i)*time.Millisecond), device(round*100+i))
			rotation.NotAfter = at.Add(-time.Millisecond)
			switch i % 4 {
			case 0: // a request without a retry key
			case 1:
				rotation = withTags(rotation, tag(round*100+i), s.RetryTag)
			default:
				rotation = withTags(rotation, tag(round*100+i), tag(-1))
			}
			c := call{want: rotated(s, to, rotation)}
			var err error
			if c.got, c.rotated, err = nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, rotation)); err != nil {
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
		if err := check(calls, final); err != nil {
			return fmt.Errorf("round %d, %d calls at once from generation %d: %w", round, len(calls), from, err)
		}
		s = final
	}
	return nil
}
