package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// refusedNames returns strings that are not valid as a subject or an ID: empty,
// too long, with a control character, or not UTF-8.
func refusedNames() []string {
	return []string{
		"", strings.Repeat("x", 256), strings.Repeat("中", 86), strings.Repeat("x", 70_000),
		"\x00", "ada\x00", "\x00ada", "ad\na", "ada\r\n", "\t", "\x1b[31m", "ada\x7f", "ad\u0085a", "\u009f",
		"\xff", "ada\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe4\xb8",
	}
}

// farTimes returns times outside the years 1 to 6000.
func farTimes() []time.Time {
	return []time.Time{
		time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(-4800, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(6001, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// refusedDevices returns devices that a store must refuse.
func refusedDevices() []auth.Device {
	devices := []auth.Device{
		{IP: netip.MustParseAddr("fe80::1%eth0")}, {IP: netip.MustParseAddr("fe80::1%" + strings.Repeat("z", 300))},
		{UserAgent: strings.Repeat("x", 1025)},
	}
	for _, agent := range refusedNames() {
		if agent != "" && len(agent) <= 1024 && len(agent) != 256 && len(agent) != 258 {
			devices = append(devices, auth.Device{UserAgent: agent})
		}
	}
	return devices
}

// wrongLengths returns lengths of a slice that must be empty or n bytes long.
func wrongLengths(n int) []int {
	return []int{1, n - 1, n + 1, 2 * n, 16 + 33, 16 + 33 - n, 70_000}
}

// refused returns an error unless err wraps ErrNotStorable.
func refused(call string, err error) error {
	if !errors.Is(err, auth.ErrNotStorable) {
		return fmt.Errorf("%s returned %v, want ErrNotStorable", call, err)
	}
	return nil
}

// wantNoChange returns an error if the feed has a revocation after the position.
// It returns the new position.
func (e *env) wantNoChange(st auth.Store, after string) (next string, err error) {
	rs, next, err := e.changes(e.ctx, st, after, 0, e.patience)
	if err == nil && len(rs) > 0 {
		err = fmt.Errorf("Changes returned %.300q, which was refused", fmt.Sprintf("%+v", rs[0]))
	}
	return next, err
}

var refusedCases = []testcase{{
	name: "Refuse_InvalidCreate",
	rule: "with that error, before it writes anything.",
	run: func(e *env) error {
		st := e.open()
		good := session("ada", "one")
		if err := e.create(st, good); err != nil {
			return err
		}
		next, err := e.wantNoChange(st, "")
		if err != nil {
			return err
		}
		var bad []auth.Session
		add := func(change func(s *auth.Session)) {
			s := session("ada", "two")
			change(&s)
			bad = append(bad, s)
		}
		for _, name := range refusedNames() {
			add(func(s *auth.Session) { s.Subject = name })
			add(func(s *auth.Session) { s.ID = name })
		}
		for _, d := range refusedDevices() {
			add(func(s *auth.Session) { s.Device = d })
		}
		for _, t := range farTimes() {
			add(func(s *auth.Session) { s.CreatedAt = t })
			add(func(s *auth.Session) { s.RotatedAt = t })
			add(func(s *auth.Session) { s.ExpiresAt = t })
		}
		for _, g := range []int64{-1, -1 << 63, 1<<53 + 1, 1<<63 - 1} {
			add(func(s *auth.Session) { s.Generation = g })
		}
		for _, n := range []int{1281, 70_000} {
			add(func(s *auth.Session) { s.Opaque = make([]byte, n) })
		}
		for _, n := range wrongLengths(16) {
			add(func(s *auth.Session) { s.RetryTag = make([]byte, n) })
		}
		for _, n := range wrongLengths(33) {
			add(func(s *auth.Session) { s.Key = make([]byte, n) })
		}
		for _, s := range bad {
			call := fmt.Sprintf("Create of %.300q", fmt.Sprintf("%+v", s))
			if err := refused(call, st.Create(e.ctx, s)); err != nil {
				return err
			}
			if err := e.wantList(st, "ada", good); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
			if err := e.wantList(st, s.Subject); s.Subject != "ada" && err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
		}
		_, err = e.wantNoChange(st, next)
		return err
	},
}, {
	name: "Refuse_InvalidRotate",
	rule: "with that error, before it writes anything.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		var bad []auth.Rotation
		for _, d := range refusedDevices() {
			bad = append(bad, rotationAt(now(), d))
		}
		for _, t := range farTimes() {
			at, rested, expires := rotationAt(now(), device(1)), rotationAt(now(), device(1)), rotationAt(now(), device(1))
			at.At, rested.NotAfter, expires.ExpiresAt = t, t, t
			bad = append(bad, at, rested, expires)
		}
		for _, n := range wrongLengths(16) {
			good := withTags(rotationAt(now(), device(1)), tag(1), tag(2))
			bad = append(bad, withTags(good, make([]byte, n), good.SpentTag), withTags(good, good.RetryTag, make([]byte, n)))
		}
		for _, n := range wrongLengths(33) {
			bad = append(bad, withKey(rotationAt(now(), device(1)), make([]byte, n)))
		}
		for _, rotation := range bad {
			call := fmt.Sprintf("Rotate with %.300q", fmt.Sprintf("%+v", rotation))
			_, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, rotation))
			if ok {
				return fmt.Errorf("%s rotated the session", call)
			}
			if err := refused(call, err); err != nil {
				return err
			}
			if err := e.wantStored(st, s); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
		}
		return nil
	},
}, {
	name: "Refuse_RotateBeyondLastGeneration",
	rule: "A From of 1<<53 or more is refused with ErrNotStorable.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		last := session("ada", "last")
		last.Generation = 1 << 53
		if err := e.create(st, s, last); err != nil {
			return err
		}
		for _, s := range []auth.Session{s, last} {
			for _, from := range []int64{1 << 53, 1<<53 + 1, 1<<63 - 1} {
				_, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, rotationAt(now(), device(1))))
				if ok {
					return fmt.Errorf("Rotate from %d rotated the session", from)
				}
				if err := refused(fmt.Sprintf("Rotate from %d", from), err); err != nil {
					return err
				}
				if err := e.wantStored(st, s); err != nil {
					return fmt.Errorf("after the refused Rotate from %d: %w", from, err)
				}
			}
		}
		// No generation is negative, so a negative from is a spent one.
		for _, from := range []int64{-1, -1 << 63} {
			if err := e.rotate(st, s, from, rotationAt(now(), device(1)), s, false); err != nil {
				return err
			}
		}
		rotation := rotationAt(now(), device(1))
		return e.rotate(st, s, 1<<53-1, rotation, rotated(s, 1<<53-1, rotation), true)
	},
}, {
	name: "Refuse_InvalidRevoke",
	rule: "with that error, before it writes anything.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		next, err := e.wantNoChange(st, "")
		if err != nil {
			return err
		}
		// Each would end the session if it were valid.
		all := auth.Revocation{Subject: "ada", Sessions: []string{"one"}, All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
		var bad []auth.Revocation
		add := func(change func(r *auth.Revocation)) {
			r := all
			change(&r)
			bad = append(bad, r)
		}
		for _, name := range refusedNames() {
			add(func(r *auth.Revocation) { r.Subject = name })
			add(func(r *auth.Revocation) { r.Sessions = []string{"one", name} })
			add(func(r *auth.Revocation) { r.Sessions = []string{name, "one"} })
			add(func(r *auth.Revocation) { r.Except = []string{"two", name} })
			if len(name) != 258 && name != "" {
				add(func(r *auth.Revocation) { r.ID = name })
			}
		}
		add(func(r *auth.Revocation) { r.ID = strings.Repeat("x", 65) })
		add(func(r *auth.Revocation) { r.ID = "é.1" })
		for _, reason := range []string{"Reuse", "re use", "reuse\n", "reuse1", "é", "\xff", "\x00", strings.Repeat("x", 17)} {
			add(func(r *auth.Revocation) { r.Reason = reason })
		}
		for _, t := range farTimes() {
			add(func(r *auth.Revocation) { r.Before = t })
			add(func(r *auth.Revocation) { r.Until = t })
		}
		for _, ttl := range []time.Duration{-time.Second, time.Microsecond, 24*time.Hour + time.Millisecond} {
			bad = append(bad, auth.Revocation{AccessTTL: ttl, Until: all.Until})
		}
		add(func(r *auth.Revocation) { r.AccessTTL = time.Hour })
		bad = append(bad, auth.Revocation{Subject: "ada", AccessTTL: time.Hour, Until: all.Until}, auth.Revocation{Until: all.Until})
		for i, r := range bad {
			call := fmt.Sprintf("Revoke of %.300q", fmt.Sprintf("%+v", r))
			if err := refused(call, st.Revoke(e.ctx, r)); err != nil {
				return err
			}
			if err := e.wantStored(st, s); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
			if i%20 > 0 {
				continue
			}
			if next, err = e.wantNoChange(st, next); err != nil {
				return err
			}
			good := notBefore(fmt.Sprintf("good-%d", i)) // a valid revocation still arrives
			if err := e.revoke(st, good); err != nil {
				return err
			}
			if next, err = e.await(st, next, good); err != nil {
				return err
			}
		}
		_, err = e.wantNoChange(st, next)
		return err
	},
}, {
	name: "Refuse_InvalidNamesAreNotFound",
	rule: "and List returns an empty list.",
	run: func(e *env) error {
		st := e.open()
		if err := e.create(st, session("ada", "one")); err != nil {
			return err
		}
		for _, name := range refusedNames() {
			for _, s := range []auth.Session{session("ada", name), session(name, "one")} {
				if _, err := st.Get(e.ctx, s.Subject, s.ID); !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Get of %s returned %v, want ErrSessionNotFound", describe(s), err)
				}
				if _, ok, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, rotationAt(now(), device(1)))); ok || !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Rotate of %s: rotated is %t, error %v, want ErrSessionNotFound", describe(s), ok, err)
				}
			}
			if err := e.wantList(st, name); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Refuse_NoValidValue",
	rule: "So it only has to represent the values that these methods accept.",
	run: func(e *env) error {
		st := e.open()
		first, last := time.Time{}.UTC(), time.Date(6000, 12, 31, 23, 59, 59, 999e6, time.UTC)
		s := session("ada", "one")
		s.Generation, s.CreatedAt, s.RotatedAt, s.ExpiresAt = 0, first, first, last
		s.Device = auth.Device{UserAgent: strings.Repeat("🦊", 256), IP: netip.MustParseAddr("::ffff:192.0.2.1")}
		if err := e.create(st, s); err != nil {
			return err
		}
		if err := e.wantStored(st, s); err != nil {
			return err
		}
		if err := e.wantList(st, "ada", s); err != nil {
			return err
		}
		for _, d := range []auth.Device{s.Device, {IP: netip.MustParseAddr("::ffff:0.0.0.0")}, {IP: netip.MustParseAddr("::192.0.2.1")}} {
			rotation := auth.Rotation{At: last, NotAfter: last, ExpiresAt: last, Device: d}
			from := s.Generation
			s = rotated(s, from+1, rotation)
			if err := e.rotate(st, s, from, rotation, s, true); err != nil {
				return err
			}
		}
		// If the store has lost writes, the generation becomes from. The next
		// call advances it by one.
		rotation := auth.Rotation{At: first, NotAfter: last, ExpiresAt: last, Device: device(1)}
		for _, generation := range []int64{1<<53 - 1, 1 << 53} {
			s = rotated(s, generation, rotation)
			if err := e.rotate(st, s, 1<<53-1, rotation, s, true); err != nil {
				return err
			}
		}
		next, err := e.wantNoChange(st, "")
		if err != nil {
			return err
		}
		r := auth.Revocation{Subject: strings.Repeat("中", 85), Sessions: []string{strings.Repeat("x", 255), "\u00a0", "\u2028"}, All: true,
			Except: []string{strings.Repeat("y", 255)}, Before: last.Truncate(time.Second), Until: last, ID: strings.Repeat("~", 64)}
		if err := e.revoke(st, r); err != nil {
			return err
		}
		_, err = e.await(st, next, r)
		return err
	},
}, {
	name: "Feed_ReturnsIDsAndNotices",
	rule: "A notice has no Subject and ends nothing.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		s := session("ada", "one")
		if err := e.create(nodes[0], s); err != nil {
			return err
		}
		next, err := e.wantNoChange(nodes[1], "")
		if err != nil {
			return err
		}
		until := now().Add(10 * time.Minute)
		var want []auth.Revocation
		for i, ttl := range []time.Duration{time.Millisecond, time.Second, 15 * time.Minute, 12*time.Hour + 345*time.Millisecond, 24 * time.Hour} {
			want = append(want, auth.Revocation{AccessTTL: ttl, Until: until.Add(time.Duration(i) * time.Second), ID: fmt.Sprintf("cmFuZG9tIGJpdHMgb2Yy.%d", i)})
		}
		for i, id := range []string{"a.1", "A.1", "a.01", " a.1", "%s", "null", strings.Repeat("9", 64)} {
			r := notBefore(fmt.Sprintf("ada-%d", i))
			r.ID = id
			want = append(want, r)
		}
		again := notBefore("ada-0") // another revocation of the same subject
		again.ID = "b.1"
		for _, r := range append(slices.Clone(want), again) {
			if err := e.revoke(nodes[0], r); err != nil {
				return err
			}
			if next, err = e.await(nodes[1], next, r); err != nil {
				return err
			}
		}
		if _, err := e.await(nodes[1], "", append(want, again)...); err != nil {
			return err
		}
		return e.wantStored(nodes[0], s)
	},
}}
