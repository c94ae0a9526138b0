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

// refusedNames are no subjects and no IDs: empty, too long, with a control
// character, and not UTF-8.
func refusedNames() []string {
	return []string{
		"", strings.Repeat("x", 256), strings.Repeat("中", 86), strings.Repeat("x", 70_000),
		"\x00", "ada\x00", "\x00ada", "ad\na", "ada\r\n", "\t", "\x1b[31m", "ada\x7f", "ad\u0085a", "\u009f",
		"\xff", "ada\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe4\xb8",
	}
}

// farTimes are not in the years 1 to 6000.
func farTimes() []time.Time {
	return []time.Time{
		time.Date(0, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(-4800, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(6001, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// refusedDevices are what no store has to represent.
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

// refused returns an error unless err is an ErrNotStorable.
func refused(call string, err error) error {
	if !errors.Is(err, auth.ErrNotStorable) {
		return fmt.Errorf("%s returned %v, want ErrNotStorable", call, err)
	}
	return nil
}

// quiet returns an error unless the feed announces nothing after the position.
// It returns the position that is reached.
func (e *env) quiet(st auth.Store, after string) (next string, err error) {
	rs, next, err := e.changes(e.ctx, st, after, 0, e.patience)
	if err == nil && len(rs) > 0 {
		err = fmt.Errorf("Changes returns %.300q, which was refused", fmt.Sprintf("%+v", rs[0]))
	}
	return next, err
}

var refusedCases = []testcase{{
	name: "Refuse_CreateOfWhatNoStoreRepresents",
	rule: "refuse, a store refuses with that error, before it writes anything.",
	run: func(e *env) error {
		st := e.open()
		good := session("ada", "one")
		if err := e.create(st, good); err != nil {
			return err
		}
		next, err := e.quiet(st, "")
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
		for _, n := range []int{1025, 70_000} {
			add(func(s *auth.Session) { s.Opaque = make([]byte, n) })
		}
		for _, s := range bad {
			call := fmt.Sprintf("Create of %.300q", fmt.Sprintf("%+v", s))
			if err := refused(call, st.Create(e.ctx, s)); err != nil {
				return err
			}
			if err := e.lists(st, "ada", good); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
			if err := e.lists(st, s.Subject); s.Subject != "ada" && err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
		}
		_, err = e.quiet(st, next)
		return err
	},
}, {
	name: "Refuse_RotateToWhatNoStoreRepresents",
	rule: "refuse, a store refuses with that error, before it writes anything.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		var bad []auth.Rotation
		for _, d := range refusedDevices() {
			bad = append(bad, useAt(now(), d))
		}
		for _, t := range farTimes() {
			at, rested, expires := useAt(now(), device(1)), useAt(now(), device(1)), useAt(now(), device(1))
			at.At, rested.NotAfter, expires.ExpiresAt = t, t, t
			bad = append(bad, at, rested, expires)
		}
		for _, use := range bad {
			call := fmt.Sprintf("Rotate with %.300q", fmt.Sprintf("%+v", use))
			_, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, use))
			if moved {
				return fmt.Errorf("%s moved the session", call)
			}
			if err := refused(call, err); err != nil {
				return err
			}
			if err := e.stands(st, s); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
		}
		return nil
	},
}, {
	name: "Refuse_RotateBeyondTheLastGeneration",
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
				_, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(from, useAt(now(), device(1))))
				if moved {
					return fmt.Errorf("Rotate from %d moved the session", from)
				}
				if err := refused(fmt.Sprintf("Rotate from %d", from), err); err != nil {
					return err
				}
				if err := e.stands(st, s); err != nil {
					return fmt.Errorf("after the refused Rotate from %d: %w", from, err)
				}
			}
		}
		// No generation is negative, so that such a from is a spent one.
		for _, from := range []int64{-1, -1 << 63} {
			if err := e.rotate(st, s, from, useAt(now(), device(1)), s, false); err != nil {
				return err
			}
		}
		use := useAt(now(), device(1))
		return e.rotate(st, s, 1<<53-1, use, used(s, 1<<53-1, use), true)
	},
}, {
	name: "Refuse_RevocationThatNoStoreRepresents",
	rule: "refuse, a store refuses with that error, before it writes anything.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		next, err := e.quiet(st, "")
		if err != nil {
			return err
		}
		// Each would end the session, if it were not for what is refused.
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
			if err := e.stands(st, s); err != nil {
				return fmt.Errorf("after the refused %s: %w", call, err)
			}
			if i%20 > 0 {
				continue
			}
			if next, err = e.quiet(st, next); err != nil {
				return err
			}
			good := cut(fmt.Sprintf("good-%d", i)) // the feed goes on
			if err := e.revoke(st, good); err != nil {
				return err
			}
			if next, err = e.await(st, next, good); err != nil {
				return err
			}
		}
		_, err = e.quiet(st, next)
		return err
	},
}, {
	name: "Refuse_ImpossibleNamesHaveNoSessions",
	rule: "Get and Rotate return ErrSessionNotFound for a subject or an ID that they refuse, and List an empty list.",
	run: func(e *env) error {
		st := e.open()
		if err := e.create(st, session("ada", "one")); err != nil {
			return err
		}
		for _, name := range refusedNames() {
			for _, s := range []auth.Session{session("ada", name), session(name, "one")} {
				if _, err := st.Get(e.ctx, s.Subject, s.ID); !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Get of %s: %v, want ErrSessionNotFound", key(s), err)
				}
				if _, moved, err := st.Rotate(e.ctx, s.Subject, s.ID, rotateFrom(1, useAt(now(), device(1)))); moved || !errors.Is(err, auth.ErrSessionNotFound) {
					return fmt.Errorf("Rotate of %s: moved %t, %v, want ErrSessionNotFound", key(s), moved, err)
				}
			}
			if err := e.lists(st, name); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Refuse_NothingElse",
	rule: "So it need not store any other value.",
	run: func(e *env) error {
		st := e.open()
		first, last := time.Time{}.UTC(), time.Date(6000, 12, 31, 23, 59, 59, 999e6, time.UTC)
		s := session("ada", "one")
		s.Generation, s.CreatedAt, s.RotatedAt, s.ExpiresAt = 0, first, first, last
		s.Device = auth.Device{UserAgent: strings.Repeat("🦊", 256), IP: netip.MustParseAddr("::ffff:192.0.2.1")}
		if err := e.create(st, s); err != nil {
			return err
		}
		if err := e.stands(st, s); err != nil {
			return err
		}
		if err := e.lists(st, "ada", s); err != nil {
			return err
		}
		for _, d := range []auth.Device{s.Device, {IP: netip.MustParseAddr("::ffff:0.0.0.0")}, {IP: netip.MustParseAddr("::192.0.2.1")}} {
			use := auth.Rotation{At: last, NotAfter: last, ExpiresAt: last, Device: d}
			from := s.Generation
			s = used(s, from+1, use)
			if err := e.rotate(st, s, from, use, s, true); err != nil {
				return err
			}
		}
		// One that is behind goes as far as from, and then one further.
		use := auth.Rotation{At: first, NotAfter: last, ExpiresAt: last, Device: device(1)}
		for _, generation := range []int64{1<<53 - 1, 1 << 53} {
			s = used(s, generation, use)
			if err := e.rotate(st, s, 1<<53-1, use, s, true); err != nil {
				return err
			}
		}
		next, err := e.quiet(st, "")
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
		next, err := e.quiet(nodes[1], "")
		if err != nil {
			return err
		}
		until := now().Add(10 * time.Minute)
		var want []auth.Revocation
		for i, ttl := range []time.Duration{time.Millisecond, time.Second, 15 * time.Minute, 12*time.Hour + 345*time.Millisecond, 24 * time.Hour} {
			want = append(want, auth.Revocation{AccessTTL: ttl, Until: until.Add(time.Duration(i) * time.Second), ID: fmt.Sprintf("cmFuZG9tIGJpdHMgb2Yy.%d", i)})
		}
		for i, id := range []string{"a.1", "A.1", "a.01", " a.1", "%s", "null", strings.Repeat("9", 64)} {
			r := cut(fmt.Sprintf("ada-%d", i))
			r.ID = id
			want = append(want, r)
		}
		same := cut("ada-0") // another announcement of the same subject
		same.ID = "b.1"
		for _, r := range append(slices.Clone(want), same) {
			if err := e.revoke(nodes[0], r); err != nil {
				return err
			}
			if next, err = e.await(nodes[1], next, r); err != nil {
				return err
			}
		}
		if _, err := e.await(nodes[1], "", append(want, same)...); err != nil {
			return err
		}
		return e.stands(nodes[0], s)
	},
}}
