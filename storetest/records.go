package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// device returns a device that is told apart by its number.
func device(n int) auth.Device {
	return auth.Device{
		UserAgent: fmt.Sprintf("device-%d", n),
		IP:        netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
	}
}

var recordCases = []testcase{{
	name: "Create_SecondOfSameIDIsRefused",
	rule: "ErrSessionExists if the subject has one of that ID; that record is then unchanged.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		second := used(s, 7, useAt(now(), device(2)))
		second.CreatedAt, second.Opaque = now(), []byte("other")
		for range 2 {
			if err := st.Create(e.ctx, second); !errors.Is(err, auth.ErrSessionExists) {
				return fmt.Errorf("second Create of %s: %v, want ErrSessionExists", key(s), err)
			}
			if err := e.stands(st, s); err != nil {
				return fmt.Errorf("after the second Create: %w", err)
			}
		}
		return e.lists(st, s.Subject, s)
	},
}, {
	name: "Create_OneOfManyAtOnceWins",
	rule: "ErrSessionExists if the subject has one of that ID",
	run: func(e *env) error {
		nodes := e.nodes(4)
		for round := range e.rounds {
			base := session("ada", fmt.Sprintf("one-%d", round))
			var wins atomic.Int64
			var winner atomic.Pointer[auth.Session]
			err := together(16, func(i int) error {
				s := base
				s.Device = device(i)
				switch err := nodes[i%len(nodes)].Create(e.ctx, s); {
				case err == nil:
					wins.Add(1)
					winner.Store(&s)
				case !errors.Is(err, auth.ErrSessionExists):
					return fmt.Errorf("Create of %s: %w, want nil or ErrSessionExists", key(s), err)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n := wins.Load(); n != 1 {
				return fmt.Errorf("round %d: of 16 Creates of %s at once, %d returned nil, want 1", round, key(base), n)
			}
			if err := e.stands(nodes[0], *winner.Load()); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	},
}, {
	name: "Create_SameIDUnderTwoSubjectsIsTwoSessions",
	rule: "a session is known by its subject and its ID together",
	run: func(e *env) error {
		st, a, b := e.open(), session("ada", "one"), session("bob", "one")
		b.Device, b.Opaque = device(2), []byte("bob's")
		if err := e.create(st, a, b); err != nil {
			return err
		}
		if err := e.stands(st, a, b); err != nil {
			return err
		}
		use := useAt(now(), device(3))
		moved := used(a, 2, use)
		if err := e.rotate(st, a, 1, use, moved, true); err != nil {
			return err
		}
		if err := e.stands(st, moved, b); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.gone(st, a); err != nil {
			return err
		}
		return e.stands(st, b)
	},
}, {
	name: "Create_KeepsDataApartFromTheCaller",
	rule: "opaque to the store, at most 1 KiB, set by Create and never again",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		want := s
		want.Opaque = bytes.Clone(s.Opaque)
		if err := e.create(st, s); err != nil {
			return err
		}
		clear(s.Opaque)
		if err := e.stands(st, want); err != nil {
			return fmt.Errorf("after the slice that was passed to Create was changed: %w", err)
		}
		return nil
	},
}, {
	name: "Get_ReturnsTimesAsGiven",
	rule: "Times are the caller's, in whole milliseconds, and come back equal",
	run: func(e *env) error {
		st := e.open()
		for i, d := range []time.Duration{0, 1, 9, 10, 99, 100, 123, 499, 500, 501, 999} {
			at := time.Now().UTC().Truncate(time.Second).Add(d * time.Millisecond)
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.CreatedAt, s.RotatedAt, s.ExpiresAt = at.AddDate(0, 0, -29), at.Add(-d*time.Millisecond), at.AddDate(0, 0, 1+300*i)
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.stands(st, s); err != nil {
				return err
			}
			got, err := st.Get(e.ctx, s.Subject, s.ID)
			if err != nil {
				return fmt.Errorf("Get: %w", err)
			}
			list, err := st.List(e.ctx, s.Subject)
			if err != nil {
				return fmt.Errorf("List: %w", err)
			}
			listed := find(list, s.ID)
			if listed == nil {
				return fmt.Errorf("List has no %s", key(s))
			}
			for _, t := range []time.Time{got.CreatedAt, got.RotatedAt, got.ExpiresAt, listed.CreatedAt, listed.RotatedAt, listed.ExpiresAt} {
				if t.Location() != time.UTC {
					return fmt.Errorf("a time comes back as %v: equal, but in %v, not in UTC", t, t.Location())
				}
			}
		}
		return nil
	},
}, {
	name: "Get_ReturnsDeviceAsGiven",
	rule: "Create adds a record.",
	run: func(e *env) error {
		st := e.open()
		agents := []string{
			"", "Mozilla/5.0 (X11; Linux x86_64) 'quoted' \"twice\" \\ %s {} [] <b> ; -- $1 ?",
			strings.Repeat("x", 256), strings.Repeat("é", 128), strings.Repeat("中", 85) + "x", strings.Repeat("🦊", 64),
			"e\u0301 is not é", "null", "0",
		}
		addrs := []netip.Addr{
			{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"),
			netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
		}
		for i, agent := range agents {
			for j, addr := range addrs {
				s := session("ada", fmt.Sprintf("one-%d-%d", i, j))
				s.Device = auth.Device{UserAgent: agent, IP: addr}
				if err := e.create(st, s); err != nil {
					return err
				}
				if err := e.stands(st, s); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Get_ReturnsDataAsGiven",
	rule: "opaque to the store, at most 1 KiB, set by Create and never again",
	run: func(e *env) error {
		st := e.open()
		every := make([]byte, 1024)
		for i := range every {
			every[i] = byte(i) // zero bytes, and no UTF-8
		}
		var want []auth.Session
		for i, data := range [][]byte{
			nil, {}, {0}, {0, 0, 0}, []byte("text"), []byte("null"), []byte(`\x00`), []byte("'; --"), {0xff, 0xfe, 0xc3, 0x28}, []byte(" \r\n"), every, make([]byte, 1024),
		} {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.Opaque = data
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.stands(st, s); err != nil {
				return err
			}
			use := useAt(now(), device(1))
			s = used(s, 2, use)
			if err := e.rotate(st, s, 1, use, s, true); err != nil {
				return err
			}
			want = append(want, s)
		}
		return e.lists(st, "ada", want...)
	},
}, {
	name: "Get_ReturnsLargeGenerations",
	rule: "counts from 1, by one at every refresh that moves the session",
	run: func(e *env) error {
		st := e.open()
		for i, generation := range []int64{1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<40 + 3, 1<<53 - 1} {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.Generation = generation
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.stands(st, s); err != nil {
				return err
			}
			use := useAt(now(), device(1))
			if err := e.rotate(st, s, generation, use, used(s, generation+1, use), true); err != nil {
				return err
			}
			if err := e.rotate(st, s, generation, use, used(s, generation+1, use), false); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Get_ChangesNothing",
	rule: "Get returns a record and changes nothing.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for range 10 {
			if err := e.stands(st, s); err != nil {
				return err
			}
			if err := e.gone(st, session("ada", "two"), session("bob", "one")); err != nil {
				return err
			}
		}
		if err := e.lists(st, "bob"); err != nil {
			return err
		}
		return e.lists(st, "ada", s)
	},
}, {
	name: "Get_ResultIsTheCallers",
	rule: "What a call returns is the caller's to keep and to change.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		want := s
		want.Opaque = bytes.Clone(s.Opaque)
		s.Opaque = bytes.Clone(s.Opaque)
		if err := e.create(st, s); err != nil {
			return err
		}
		got, err := st.Get(e.ctx, s.Subject, s.ID)
		if err != nil {
			return fmt.Errorf("Get: %w", err)
		}
		clear(got.Opaque)
		if err := e.stands(st, want); err != nil {
			return fmt.Errorf("after the result of Get was changed: %w", err)
		}
		list, err := st.List(e.ctx, s.Subject)
		if err != nil || len(list) != 1 {
			return fmt.Errorf("List: %d sessions, %v", len(list), err)
		}
		clear(list[0].Opaque)
		clear(list)
		if err := e.stands(st, want); err != nil {
			return fmt.Errorf("after the result of List was changed: %w", err)
		}
		if err := e.lists(st, s.Subject, want); err != nil {
			return fmt.Errorf("after the result of List was changed: %w", err)
		}
		use := useAt(now(), device(1))
		want = used(want, 2, use)
		for range 2 { // one moves, one does not
			got, _, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, use))
			if err != nil {
				return fmt.Errorf("Rotate: %w", err)
			}
			clear(got.Opaque)
			if err := e.stands(st, want); err != nil {
				return fmt.Errorf("after the result of Rotate was changed: %w", err)
			}
		}
		return nil
	},
}, {
	name: "Get_UnknownIsNotFound",
	rule: "Get returns a record and changes nothing. ErrSessionNotFound.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.gone(st, s); err != nil {
			return fmt.Errorf("an empty store: %w", err)
		}
		if err := e.create(st, s); err != nil {
			return err
		}
		return e.gone(st, session("ada", "two"), session("bob", "one"))
	},
}, {
	name: "List_UnknownSubjectIsEmpty",
	rule: "A subject without any has an empty list, not an error.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.lists(st, "ada"); err != nil {
			return err
		}
		if err := e.create(st, s); err != nil {
			return err
		}
		if err := e.lists(st, "bob"); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return e.lists(st, "ada")
	},
}, {
	name: "List_OnlyTheSubjects",
	rule: "List returns the subject's records",
	run: func(e *env) error {
		st := e.open()
		var adas []auth.Session
		for i := range 5 {
			a := session("ada", fmt.Sprintf("one-%d", i))
			b := session("ada-2", fmt.Sprintf("one-%d", i))
			if err := e.create(st, a, b); err != nil {
				return err
			}
			adas = append(adas, a)
		}
		return e.lists(st, "ada", adas...)
	},
}, {
	name: "List_LastUsedFirst",
	rule: "List returns the subject's records, last used (RotatedAt) first.",
	run: func(e *env) error {
		st := e.open()
		want := make([]auth.Session, 8)
		base := now().Add(-time.Hour)
		for i, place := range rand.Perm(len(want)) {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.RotatedAt = base.Add(-time.Duration(place) * time.Millisecond)
			s.CreatedAt = s.RotatedAt
			if err := e.create(st, s); err != nil {
				return err
			}
			want[place] = s
		}
		if err := e.ordered(st, want); err != nil {
			return err
		}
		last := len(want) - 1
		use := useAt(now(), device(1)) // the last becomes the first
		moved := used(want[last], 2, use)
		if err := e.rotate(st, moved, 1, use, moved, true); err != nil {
			return err
		}
		return e.ordered(st, append([]auth.Session{moved}, want[:last]...))
	},
}, {
	name: "List_ManySessionsInOrder",
	rule: "List returns the subject's records, last used (RotatedAt) first.",
	run: func(e *env) error {
		nodes := e.nodes(8)
		want := make([]auth.Session, e.many)
		base := now().Add(-time.Hour)
		for i := range want {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.CreatedAt = base.Add(-time.Duration(i) * time.Millisecond)
			s.RotatedAt = s.CreatedAt
			want[i] = s
		}
		order := rand.Perm(len(want))
		err := together(len(nodes), func(n int) error {
			for i := n; i < len(want); i += len(nodes) {
				if err := e.create(nodes[n], want[order[i]]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return e.ordered(nodes[0], want)
	},
}, {
	name: "Nodes_SeeEachOthersWrites",
	rule: "It is safe for concurrent use, by many processes on one database.",
	run: func(e *env) error {
		nodes, s := e.nodes(3), session("ada", "one")
		if err := e.create(nodes[0], s); err != nil {
			return err
		}
		for _, st := range nodes {
			if err := e.stands(st, s); err != nil {
				return err
			}
			if err := st.Create(e.ctx, s); !errors.Is(err, auth.ErrSessionExists) {
				return fmt.Errorf("Create on another node: %v, want ErrSessionExists", err)
			}
		}
		for i, st := range nodes {
			use := useAt(now(), device(i+1))
			from := s.Generation
			s = used(s, from+1, use)
			if err := e.rotate(st, s, from, use, s, true); err != nil {
				return err
			}
			for _, other := range nodes {
				if err := e.stands(other, s); err != nil {
					return err
				}
				if err := e.lists(other, "ada", s); err != nil {
					return err
				}
			}
		}
		if err := e.revoke(nodes[1], auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		for _, st := range nodes {
			if err := e.gone(st, s); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Expiry_RecordStaysAnotherMinute",
	rule: "a store's own clock only collects records, not before ExpiresAt plus a minute",
	run: func(e *env) error {
		st := e.open()
		dead, alive := session("ada", "dead"), session("ada", "alive")
		dead.ExpiresAt = now().Add(-30 * time.Second)
		alive.ExpiresAt = now().Add(time.Second)
		if err := e.create(st, dead, alive); err != nil {
			return err
		}
		for i := range 20 { // writes, on the way of which others may be collected
			s := session("ada", fmt.Sprintf("new-%d", i))
			s.CreatedAt = now()
			s.RotatedAt = s.CreatedAt
			if err := e.create(st, s); err != nil {
				return err
			}
		}
		if err := e.stands(st, dead, alive); err != nil {
			return err
		}
		list, err := st.List(e.ctx, "ada")
		if err != nil {
			return fmt.Errorf("List: %w", err)
		}
		for _, s := range []auth.Session{dead, alive} {
			if find(list, s.ID) == nil {
				return fmt.Errorf("List has no %s, which expires at %s; it is %s", key(s), s.ExpiresAt, now())
			}
		}
		for _, s := range []auth.Session{dead, alive} {
			use := useAt(now(), device(1))
			if err := e.rotate(st, s, 1, use, used(s, 2, use), true); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Expiry_MovesWithTheSession",
	rule: "a store's own clock only collects records, not before ExpiresAt plus a minute",
	run: func(e *env) error {
		st := e.open()
		for try, margin := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} {
			s := session("ada", fmt.Sprintf("one-%d", try))
			s.ExpiresAt = now().Add(margin - time.Minute)
			end := time.Now().Add(margin)
			if err := e.create(st, s); err != nil {
				return err
			}
			use := useAt(now(), device(1))
			got, _, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, use))
			if err != nil && time.Now().After(end) {
				continue // it took so long that it may have been collected
			}
			if err != nil {
				return fmt.Errorf("Rotate of %s, that expired at %s: %w", key(s), s.ExpiresAt, err)
			}
			time.Sleep(time.Until(end) + 500*time.Millisecond)
			other := session("ada", fmt.Sprintf("new-%d", try))
			other.CreatedAt = now()
			other.RotatedAt = other.CreatedAt
			if err := e.create(st, other); err != nil {
				return err
			}
			if err := e.stands(st, used(s, 2, use)); err != nil {
				return fmt.Errorf("a minute after the former ExpiresAt, long before the present one, %s: %w", got.ExpiresAt, err)
			}
			return nil
		}
		return errors.New("the store is too slow for this case")
	},
}, {
	name: "Expiry_ClocksOfCallersDiffer",
	rule: "A store does no arithmetic and applies no policy. Times are the caller's",
	run: func(e *env) error {
		nodes := e.nodes(2)
		skews := []time.Duration{5 * time.Second, -5 * time.Second}
		for i, skew := range skews {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.CreatedAt = now().Add(skew)
			s.RotatedAt, s.ExpiresAt = s.CreatedAt, s.CreatedAt.Add(time.Second)
			if err := e.create(nodes[i], s); err != nil {
				return err
			}
			for j := range 4 {
				if err := e.stands(nodes[1-i], s); err != nil {
					return err
				}
				use := useAt(s.RotatedAt.Add(time.Duration(j)*time.Second), device(j))
				from := s.Generation
				s = used(s, from+1, use)
				if err := e.rotate(nodes[(i+j)%2], s, from, use, s, true); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Growth_RefreshesLeaveOneRecord",
	rule: "Store keeps one record per session.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		at := now()
		for i := range e.many {
			use := useAt(at.Add(time.Duration(i)*time.Millisecond), device(i))
			got, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(s.Generation, use))
			if err != nil || !moved {
				return fmt.Errorf("refresh %d: Rotate from %d: moved %t, %v", i, s.Generation, moved, err)
			}
			s = used(s, s.Generation+1, use)
			if err := same(got, s); err != nil {
				return fmt.Errorf("refresh %d: %w", i, err)
			}
		}
		return e.lists(st, s.Subject, s)
	},
}}

// ordered returns an error unless List of ada finds the sessions in this order.
func (e *env) ordered(st auth.Store, want []auth.Session) error {
	if err := e.lists(st, "ada", want...); err != nil {
		return err
	}
	list, err := st.List(e.ctx, "ada")
	if err != nil || len(list) != len(want) {
		return fmt.Errorf("List: %d sessions, %v", len(list), err)
	}
	for i, w := range want {
		if list[i].ID != w.ID {
			return fmt.Errorf("place %d of List is %s, used at %s, want %s, used at %s", i, key(list[i]), list[i].RotatedAt, key(w), w.RotatedAt)
		}
	}
	return nil
}
