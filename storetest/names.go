package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// names returns names that differ from each other. Some databases treat some of
// them as equal, as a pattern, as a number or as syntax.
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

// separators returns texts that may join a subject and an ID.
func separators() []string {
	return []string{"", ":", "::", "/", "|", ".", "-", "_", ",", ";", "#", "+", "=", "&", " ", "{", "}", "}{", "%", "\\", "'", "\""}
}

var nameCases = []testcase{{
	name: "Names_SubjectsAreComparedByteForByte",
	rule: "Subjects and session IDs are compared byte for byte.",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for i, name := range names() {
			s := session(name, "one")
			s.Device, s.Opaque = device(i), []byte(name)
			if err := e.wantGone(st, s); err != nil {
				return fmt.Errorf("before Create: %w", err)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
			sessions = append(sessions, s)
		}
		return e.checkIndependent(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, All: true, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(time.Minute)}
		})
	},
}, {
	name: "Names_IDsAreComparedByteForByte",
	rule: "Subjects and session IDs are compared byte for byte.",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for i, name := range names() {
			s := session("owner", name)
			s.Device, s.Opaque = device(i), []byte(name)
			if err := e.wantGone(st, s); err != nil {
				return fmt.Errorf("before Create: %w", err)
			}
			if err := e.create(st, s); err != nil {
				return err
			}
			sessions = append(sessions, s)
		}
		return e.checkIndependent(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(time.Minute)}
		})
	},
}, {
	name: "Names_SubjectAndIDAreSeparate",
	rule: "A session is identified by its subject and its ID together",
	run: func(e *env) error {
		st := e.open()
		var sessions []auth.Session
		for _, sep := range separators() {
			a, b := session("a", "b"+sep+"c"), session("a"+sep+"b", "c")
			if err := e.create(st, a, b); err != nil {
				return err
			}
			sessions = append(sessions, a, b)
		}
		return e.checkIndependent(st, sessions, func(s auth.Session) auth.Revocation {
			return auth.Revocation{Subject: s.Subject, Sessions: []string{s.ID}, Until: now().Add(time.Minute)}
		})
	},
}}

// checkIndependent rotates every second session and revokes every third. It
// returns an error if that changes another session.
func (e *env) checkIndependent(st auth.Store, sessions []auth.Session, revocation func(auth.Session) auth.Revocation) error {
	if err := e.wantStored(st, sessions...); err != nil {
		return fmt.Errorf("after Create of all sessions: %w", err)
	}
	for i := 0; i < len(sessions); i += 2 {
		s := &sessions[i]
		rotation := rotationAt(now(), device(1000+i))
		*s = rotated(*s, 2, rotation)
		if err := e.rotate(st, *s, 1, rotation, *s, true); err != nil {
			return err
		}
	}
	if err := e.wantStored(st, sessions...); err != nil {
		return fmt.Errorf("after Rotate of some sessions: %w", err)
	}
	var revoked, left []auth.Session
	for i, s := range sessions {
		if i%3 != 0 {
			left = append(left, s)
			continue
		}
		revoked = append(revoked, s)
		if err := e.revoke(st, revocation(s)); err != nil {
			return err
		}
	}
	if err := e.wantGone(st, revoked...); err != nil {
		return fmt.Errorf("after Revoke of some sessions: %w", err)
	}
	if err := e.wantStored(st, left...); err != nil {
		return fmt.Errorf("after Revoke of some sessions: %w", err)
	}
	bySubject := map[string][]auth.Session{}
	for _, s := range left {
		bySubject[s.Subject] = append(bySubject[s.Subject], s)
	}
	for subject, want := range bySubject {
		if err := e.wantList(st, subject, want...); err != nil {
			return fmt.Errorf("after Revoke of some sessions: %w", err)
		}
	}
	return nil
}
