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

// device returns the device with a number. Devices with different numbers differ.
func device(n int) auth.Device {
	return auth.Device{
		UserAgent: fmt.Sprintf("device-%d", n),
		IP:        netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
	}
}

// clearAll sets the bytes of all slices of s to zero.
func clearAll(s auth.Session) {
	clear(s.Opaque)
	clear(s.RetryTag)
	clear(s.Key)
}

var recordCases = []testcase{{
	name: "Create_DuplicateIDIsRefused",
	rule: "It returns ErrSessionExists, and does not change the existing record, if the subject has a record with this ID.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		second := rotated(s, 7, rotationAt(now(), device(2)))
		second.CreatedAt, second.Opaque = now(), []byte("other")
		for range 2 {
			if err := st.Create(e.ctx, second); !errors.Is(err, auth.ErrSessionExists) {
				return fmt.Errorf("second Create of %s returned %v, want ErrSessionExists", describe(s), err)
			}
			if err := e.wantStored(st, s); err != nil {
				return fmt.Errorf("after the second Create: %w", err)
			}
		}
		return e.wantList(st, s.Subject, s)
	},
}, {
	name: "Create_OneOfManyAtOnceWins",
	rule: "It returns ErrSessionExists",
	run: func(e *env) error {
		nodes := e.nodes(4)
		for round := range e.rounds {
			base := session("ada", fmt.Sprintf("one-%d", round))
			var wins atomic.Int64
			var winner atomic.Pointer[auth.Session]
			err := concurrently(16, func(i int) error {
				s := base
				s.Device = device(i)
				switch err := nodes[i%len(nodes)].Create(e.ctx, s); {
				case err == nil:
					wins.Add(1)
					winner.Store(&s)
				case !errors.Is(err, auth.ErrSessionExists):
					return fmt.Errorf("Create of %s: %w, want nil or ErrSessionExists", describe(s), err)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n := wins.Load(); n != 1 {
				return fmt.Errorf("round %d: %[3]d of 16 concurrent calls of Create of %[2]s returned nil, want 1", round, describe(base), n)
			}
			if err := e.wantStored(nodes[0], *winner.Load()); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	},
}, {
	name: "Create_SameIDUnderTwoSubjectsIsTwoSessions",
	rule: "A session is identified by its subject and its ID together",
	run: func(e *env) error {
		st, a, b := e.open(), session("ada", "one"), session("bob", "one")
		b.Device, b.Opaque = device(2), []byte("bob's")
		if err := e.create(st, a, b); err != nil {
			return err
		}
		if err := e.wantStored(st, a, b); err != nil {
			return err
		}
		rotation := rotationAt(now(), device(3))
		want := rotated(a, 2, rotation)
		if err := e.rotate(st, a, 1, rotation, want, true); err != nil {
			return err
		}
		if err := e.wantStored(st, want, b); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		if err := e.wantGone(st, a); err != nil {
			return err
		}
		return e.wantStored(st, b)
	},
}, {
	name: "Create_CopiesData",
	rule: "opaque to the store, at most 1280 bytes, set by Create only",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.RetryTag, s.Key = tag(1), key(1)
		want := s
		want.Opaque, want.RetryTag, want.Key = bytes.Clone(s.Opaque), bytes.Clone(s.RetryTag), bytes.Clone(s.Key)
		if err := e.create(st, s); err != nil {
			return err
		}
		clearAll(s)
		if err := e.wantStored(st, want); err != nil {
			return fmt.Errorf("after modifying the slices that were passed to Create: %w", err)
		}
		return nil
	},
}, {
	name: "Get_ReturnsTimesAsGiven",
	rule: "Times are the caller's, in whole milliseconds, and are returned unchanged.",
	run: func(e *env) error {
		st := e.open()
		for i, d := range []time.Duration{0, 1, 9, 10, 99, 100, 123, 499, 500, 501, 999} {
			at := time.Now().UTC().Truncate(time.Second).Add(d * time.Millisecond)
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.CreatedAt, s.RotatedAt, s.ExpiresAt = at.AddDate(0, 0, -29), at.Add(-d*time.Millisecond), at.AddDate(0, 0, 1+300*i)
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.wantStored(st, s); err != nil {
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
				return fmt.Errorf("List has no %s", describe(s))
			}
			for _, t := range []time.Time{got.CreatedAt, got.RotatedAt, got.ExpiresAt, listed.CreatedAt, listed.RotatedAt, listed.ExpiresAt} {
				if t.Location() != time.UTC {
					return fmt.Errorf("a returned time, %v, is in %v, want UTC", t, t.Location())
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
				if err := e.wantStored(st, s); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Get_ReturnsDataAsGiven",
	rule: "opaque to the store, at most 1280 bytes, set by Create only",
	run: func(e *env) error {
		st := e.open()
		every := make([]byte, 1280)
		for i := range every {
			every[i] = byte(i) // includes zero bytes; not valid UTF-8
		}
		var want []auth.Session
		for i, data := range [][]byte{
			nil, {}, {0}, {0, 0, 0}, []byte("text"), []byte("null"), []byte(`\x00`), []byte("'; --"),
			{0xff, 0xfe, 0xc3, 0x28}, []byte(" \r\n"), every, make([]byte, 1280),
		} {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.Opaque = data
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.wantStored(st, s); err != nil {
				return err
			}
			rotation := rotationAt(now(), device(1))
			s = rotated(s, 2, rotation)
			if err := e.rotate(st, s, 1, rotation, s, true); err != nil {
				return err
			}
			want = append(want, s)
		}
		return e.wantList(st, "ada", want...)
	},
}, {
	name: "Get_ReturnsLargeGenerations",
	rule: "1 after the login; each rotation adds 1",
	run: func(e *env) error {
		st := e.open()
		for i, generation := range []int64{1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<40 + 3, 1<<53 - 1} {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.Generation = generation
			if err := e.create(st, s); err != nil {
				return err
			}
			if err := e.wantStored(st, s); err != nil {
				return err
			}
			rotation := rotationAt(now(), device(1))
			if err := e.rotate(st, s, generation, rotation, rotated(s, generation+1, rotation), true); err != nil {
				return err
			}
			if err := e.rotate(st, s, generation, rotation, rotated(s, generation+1, rotation), false); err != nil {
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
			if err := e.wantStored(st, s); err != nil {
				return err
			}
			if err := e.wantGone(st, session("ada", "two"), session("bob", "one")); err != nil {
				return err
			}
		}
		if err := e.wantList(st, "bob"); err != nil {
			return err
		}
		return e.wantList(st, "ada", s)
	},
}, {
	name: "Get_CallerMayModifyResult",
	rule: "The caller owns the slices that a method returns.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.RetryTag, s.Key = tag(1), key(1)
		want := s
		s.Opaque, s.RetryTag, s.Key = bytes.Clone(s.Opaque), bytes.Clone(s.RetryTag), bytes.Clone(s.Key)
		if err := e.create(st, s); err != nil {
			return err
		}
		got, err := st.Get(e.ctx, s.Subject, s.ID)
		if err != nil {
			return fmt.Errorf("Get: %w", err)
		}
		clearAll(got)
		if err := e.wantStored(st, want); err != nil {
			return fmt.Errorf("after modifying the result of Get: %w", err)
		}
		list, err := st.List(e.ctx, s.Subject)
		if err != nil || len(list) != 1 {
			return fmt.Errorf("List returned %d sessions, error %v", len(list), err)
		}
		clearAll(list[0])
		clear(list)
		if err := e.wantStored(st, want); err != nil {
			return fmt.Errorf("after modifying the result of List: %w", err)
		}
		if err := e.wantList(st, s.Subject, want); err != nil {
			return fmt.Errorf("after modifying the result of List: %w", err)
		}
		rotation := withKey(withTags(rotationAt(now(), device(1)), tag(2), tag(3)), key(1))
		want = rotated(want, 2, rotation)
		for range 2 { // the first call rotates, the second does not
			got, _, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, rotation))
			if err != nil {
				return fmt.Errorf("Rotate: %w", err)
			}
			clearAll(got)
			if err := e.wantStored(st, want); err != nil {
				return fmt.Errorf("after modifying the result of Rotate: %w", err)
			}
		}
		return nil
	},
}, {
	name: "Get_UnknownIsNotFound",
	rule: "It returns ErrSessionNotFound if there is no such record.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.wantGone(st, s); err != nil {
			return fmt.Errorf("in an empty store: %w", err)
		}
		if err := e.create(st, s); err != nil {
			return err
		}
		return e.wantGone(st, session("ada", "two"), session("bob", "one"))
	},
}, {
	name: "List_UnknownSubjectIsEmpty",
	rule: "For a subject without records it returns an empty list and no error.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.wantList(st, "ada"); err != nil {
			return err
		}
		if err := e.create(st, s); err != nil {
			return err
		}
		if err := e.wantList(st, "bob"); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return e.wantList(st, "ada")
	},
}, {
	name: "List_OnlyOneSubject",
	rule: "List returns the records of a subject",
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
		return e.wantList(st, "ada", adas...)
	},
}, {
	name: "List_LastUsedFirst",
	rule: "List returns the records of a subject in descending order of RotatedAt.",
	run: func(e *env) error {
		st := e.open()
		want := make([]auth.Session, 8)
		base := now().Add(-time.Hour)
		for i, index := range rand.Perm(len(want)) {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.RotatedAt = base.Add(-time.Duration(index) * time.Millisecond)
			s.CreatedAt = s.RotatedAt
			if err := e.create(st, s); err != nil {
				return err
			}
			want[index] = s
		}
		if err := e.wantOrder(st, want); err != nil {
			return err
		}
		last := len(want) - 1
		rotation := rotationAt(now(), device(1)) // the last session becomes the first
		first := rotated(want[last], 2, rotation)
		if err := e.rotate(st, first, 1, rotation, first, true); err != nil {
			return err
		}
		return e.wantOrder(st, append([]auth.Session{first}, want[:last]...))
	},
}, {
	name: "List_ManySessionsInOrder",
	rule: "List returns the records of a subject in descending order of RotatedAt.",
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
		err := concurrently(len(nodes), func(n int) error {
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
		return e.wantOrder(nodes[0], want)
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
			if err := e.wantStored(st, s); err != nil {
				return err
			}
			if err := st.Create(e.ctx, s); !errors.Is(err, auth.ErrSessionExists) {
				return fmt.Errorf("Create on another node returned %v, want ErrSessionExists", err)
			}
		}
		for i, st := range nodes {
			rotation := rotationAt(now(), device(i+1))
			from := s.Generation
			s = rotated(s, from+1, rotation)
			if err := e.rotate(st, s, from, rotation, s, true); err != nil {
				return err
			}
			for _, other := range nodes {
				if err := e.wantStored(other, s); err != nil {
					return err
				}
				if err := e.wantList(other, "ada", s); err != nil {
					return err
				}
			}
		}
		if err := e.revoke(nodes[1], auth.Revocation{Subject: "ada", Sessions: []string{"one"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		for _, st := range nodes {
			if err := e.wantGone(st, s); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Expiry_RecordStaysForAMinute",
	rule: "A store may use its own clock only to delete expired records and revocations, at the earliest a minute after ExpiresAt or Until.",
	run: func(e *env) error {
		st := e.open()
		expired, valid := session("ada", "expired"), session("ada", "valid")
		expired.ExpiresAt = now().Add(-30 * time.Second)
		valid.ExpiresAt = now().Add(time.Second)
		if err := e.create(st, expired, valid); err != nil {
			return err
		}
		for i := range 20 { // a store may remove expired records when it writes
			s := session("ada", fmt.Sprintf("new-%d", i))
			s.CreatedAt = now()
			s.RotatedAt = s.CreatedAt
			if err := e.create(st, s); err != nil {
				return err
			}
		}
		if err := e.wantStored(st, expired, valid); err != nil {
			return err
		}
		list, err := st.List(e.ctx, "ada")
		if err != nil {
			return fmt.Errorf("List: %w", err)
		}
		for _, s := range []auth.Session{expired, valid} {
			if find(list, s.ID) == nil {
				return fmt.Errorf("List has no %s, which expires at %s; the time is %s", describe(s), s.ExpiresAt, now())
			}
		}
		for _, s := range []auth.Session{expired, valid} {
			rotation := rotationAt(now(), device(1))
			if err := e.rotate(st, s, 1, rotation, rotated(s, 2, rotation), true); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Expiry_FollowsRotate",
	rule: "A store may use its own clock only to delete expired records and revocations, at the earliest a minute after ExpiresAt or Until.",
	run: func(e *env) error {
		st := e.open()
		for try, margin := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} {
			s := session("ada", fmt.Sprintf("one-%d", try))
			s.ExpiresAt = now().Add(margin - time.Minute)
			end := time.Now().Add(margin)
			if err := e.create(st, s); err != nil {
				return err
			}
			rotation := rotationAt(now(), device(1))
			got, _, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, rotation))
			if err != nil && time.Now().After(end) {
				continue // the call took so long that the record may have been removed
			}
			if err != nil {
				return fmt.Errorf("Rotate of %s, which expires at %s: %w", describe(s), s.ExpiresAt, err)
			}
			time.Sleep(time.Until(end) + 500*time.Millisecond)
			other := session("ada", fmt.Sprintf("new-%d", try))
			other.CreatedAt = now()
			other.RotatedAt = other.CreatedAt
			if err := e.create(st, other); err != nil {
				return err
			}
			if err := e.wantStored(st, rotated(s, 2, rotation)); err != nil {
				return fmt.Errorf("a minute after the old ExpiresAt and before the new one, %s: %w", got.ExpiresAt, err)
			}
			return nil
		}
		return errors.New("the store is too slow for this case: Create and Rotate took more than 20s")
	},
}, {
	name: "Expiry_ClocksOfCallersDiffer",
	rule: "A store computes no times and applies no policy. Times are the caller's",
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
				if err := e.wantStored(nodes[1-i], s); err != nil {
					return err
				}
				rotation := rotationAt(s.RotatedAt.Add(time.Duration(j)*time.Second), device(j))
				from := s.Generation
				s = rotated(s, from+1, rotation)
				if err := e.rotate(nodes[(i+j)%2], s, from, rotation, s, true); err != nil {
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
			rotation := rotationAt(at.Add(time.Duration(i)*time.Millisecond), device(i))
			got, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(s.Generation, rotation))
			if err != nil || !ok {
				return fmt.Errorf("refresh %d: Rotate from %d: rotated is %t, error %v", i, s.Generation, ok, err)
			}
			s = rotated(s, s.Generation+1, rotation)
			if err := diff(got, s); err != nil {
				return fmt.Errorf("refresh %d: %w", i, err)
			}
		}
		return e.wantList(st, s.Subject, s)
	},
}}

// wantOrder returns an error unless List returns exactly the given sessions of
// ada, in this order.
func (e *env) wantOrder(st auth.Store, want []auth.Session) error {
	if err := e.wantList(st, "ada", want...); err != nil {
		return err
	}
	list, err := st.List(e.ctx, "ada")
	if err != nil || len(list) != len(want) {
		return fmt.Errorf("List returned %d sessions, error %v", len(list), err)
	}
	for i, w := range want {
		if list[i].ID != w.ID {
			return fmt.Errorf("List[%d] is %s with RotatedAt %s, want %s with RotatedAt %s", i, describe(list[i]), list[i].RotatedAt, describe(w), w.RotatedAt)
		}
	}
	return nil
}
