package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// names are pairwise different, and what some databases take for the same, for
// a pattern, for a number or for syntax of their own.
func names() []string {
	var ascii strings.Builder
	for c := byte(' '); c < 0x7f; c++ {
		ascii.WriteByte(c)
	}
	return []string{
		"ada", "Ada", "ADA", "ada ", " ada", "ada\u00a0", "ada\u200b", "ada\u00ad", "ad", "adaa", "a",
		"ada*", "*", "ada?", "?", "[ada]", "ad[a]", "^ada", "%", "ada%", "_", "ad_", "___", ".", "ad.", ".*",
		"ada:one", "{ada}", "{ada", "ada}", "{}", "ada/one", "ada|one", "ada,bob", "ada.one", "ada#1", "$1", ":ada", "@ada", "~",
		"'", "''", `"`, `""`, "`", `\`, `\\`, `ad\a`, `ada\`, "ada'; --", "ada\"", "<ada>", "&amp;", "&",
		"0", "00", "1", "01", "1.0", "1e0", "+1", "-1", "0x1", "null", "NULL", "nil", "true", "undefined",
		"\u00e9", "e\u0301", "\u00c9", "e", "\u00df", "ss", "SS", "i", "I", "\u0131", "\u0130", "\u03c3", "\u03c2", "\u03a3", "\u212b", "\u00c5", "A\u030a",
		"\uff41", "\u0430", "\ufb01", "fi", "\u4e2d", "🦊", "\ufeffada", "\u202eada", "\ufffd",
		ascii.String(), strings.ToLower(ascii.String()),
		strings.Repeat("x", 255), strings.Repeat("x", 254), strings.Repeat("x", 254) + "y", strings.Repeat("中", 85), strings.Repeat("中", 84) + "文",
	}
}

var nameCases = []testcase{{
	name: "Names_SubjectsAreComparedByteForByte",
	rule: "IDs and subjects are compared byte for byte",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for i, name := range names() {
			s := session(name, "one")
			s.Device, s.Opaque = device(i), []byte(name)
			if err := e.gone(st, s); err != nil {
				return fmt.Errorf("before it was created: %w", err)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
			sessions = append(sessions, s)
		}
		return e.apart(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)}
		})
	},
}, {
	name: "Names_IDsAreComparedByteForByte",
	rule: "IDs and subjects are compared byte for byte",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for i, name := range names() {
			s := session("owner", name)
			s.Device, s.Opaque = device(i), []byte(name)
			if err := e.gone(st, s); err != nil {
				return fmt.Errorf("before it was created: %w", err)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
			sessions = append(sessions, s)
		}
		return e.apart(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(time.Minute)}
		})
	},
}, {
	name: "Names_SubjectAndIDDoNotRunTogether",
	rule: "a session is known by its subject and its ID together",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for _, sep := range []string{"", ":", "::", "/", "|", ".", "-", "_", ",", ";", "#", "+", "=", "&", " ", "{", "}", "}{", "%", "\\", "'", "\""} {
			a, b := session("a", "b"+sep+"c"), session("a"+sep+"b", "c")
			if err := e.create(st, a, b); err != nil {
				return err
			}
			sessions = append(sessions, a, b)
		}
		return e.apart(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(time.Minute)}
		})
	},
}}

// apart moves every other session, then revokes every third, and looks each
// time whether all the others are as they were.
func (e *env) apart(st auth.Store, sessions []auth.Session, revocation func(auth.Session) auth.Revocation) error {
	if err := e.stands(st, sessions...); err != nil {
		return fmt.Errorf("after all were created: %w", err)
	}
	for i := 0; i < len(sessions); i += 2 {
		s := &sessions[i]
		use := useAt(now(), device(1000+i))
		*s = used(*s, 2, use)
		if err := e.rotate(st, *s, 1, use, *s, true); err != nil {
			return err
		}
	}
	if err := e.stands(st, sessions...); err != nil {
		return fmt.Errorf("after some were moved: %w", err)
	}
	var gone, left []auth.Session
	for i, s := range sessions {
		if i%3 != 0 {
			left = append(left, s)
			continue
		}
		gone = append(gone, s)
		if err := e.revoke(st, revocation(s)); err != nil {
			return err
		}
	}
	if err := e.gone(st, gone...); err != nil {
		return fmt.Errorf("after some were revoked: %w", err)
	}
	if err := e.stands(st, left...); err != nil {
		return fmt.Errorf("after some were revoked: %w", err)
	}
	bySubject := map[string][]auth.Session{}
	for _, s := range left {
		bySubject[s.Subject] = append(bySubject[s.Subject], s)
	}
	for subject, want := range bySubject {
		if err := e.lists(st, subject, want...); err != nil {
			return fmt.Errorf("after some were revoked: %w", err)
		}
	}
	return nil
}
