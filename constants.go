package auth

import (
	"errors"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// constants are the parts of a session that its login sets and that never change.
// They are in each of its tokens, and every refresh carries them into the next
// ones. The store has none of them except the actor.
type constants struct {
	amr      []string  // the methods of the login
	authTime time.Time // the login, to the second
	actor    string    // the ID of the user who acts for the subject; empty if none does
	terms
}

// terms are the constants of a session that only this service uses.
type terms struct {
	created    time.Time     // Session.CreatedAt, to the second
	ephemeral  bool          // see SessionOptions.Ephemeral
	idleTTL    time.Duration // see SessionOptions.IdleTTL; 0 if only that of Config applies
	sessionTTL time.Duration // see SessionOptions.SessionTTL; 0 if only that of Config applies
}

// Claims with constants. Durations are in milliseconds, as in Config.
const (
	claimCreated    = "session_iat"
	claimEphemeral  = "eph"
	claimIdleTTL    = "idle_ttl"
	claimSessionTTL = "session_ttl"
	claimActor      = "act"
)

// writeTerms adds the claims of t that differ from what a token without them means.
func (t *terms) writeTerms(w *strictjson.Writer, authTime time.Time) {
	if !t.created.IsZero() && t.created.Unix() != authTime.Unix() {
		w.Int(claimCreated, t.created.Unix())
	}
	if t.ephemeral {
		w.Bool(claimEphemeral, true)
	}
	if t.idleTTL > 0 {
		w.Int(claimIdleTTL, t.idleTTL.Milliseconds())
	}
	if t.sessionTTL > 0 {
		w.Int(claimSessionTTL, t.sessionTTL.Milliseconds())
	}
}

// readTerms reads a claim that writeTerms wrote. known reports whether it is one, and ok
// whether its value is valid.
func (t *terms) readTerms(name, value string) (known, ok bool) {
	switch name {
	case claimCreated:
		t.created, ok = numericTime(value)
	case claimEphemeral:
		t.ephemeral, ok = true, value == "true"
	case claimIdleTTL:
		t.idleTTL, ok = readTTL(value)
	case claimSessionTTL:
		t.sessionTTL, ok = readTTL(value)
	default:
		return false, false
	}
	return true, ok
}

// terms returns the terms of the session of c, which only the payload of the token
// has. Claims that a test created have none.
func (c *Claims) terms() (t terms, err error) {
	if c.payload == "" {
		return t, nil
	}
	err = strictjson.Object(c.payload, maxClaims, func(name, value string) error {
		if known, ok := t.readTerms(name, value); known && !ok {
			return errors.New(name + " has the wrong type")
		}
		return nil
	})
	if err != nil {
		return t, invalidClaims(err)
	}
	return t, nil
}

func readTTL(value string) (time.Duration, bool) {
	n, ok := strictjson.Int(value)
	return time.Duration(n) * time.Millisecond, ok && n > 0 && n <= maxSessionTTL.Milliseconds()
}

// writeActor adds the claim act (RFC 8693 section 4.1) if there is an actor.
func writeActor(w *strictjson.Writer, actor string) {
	if actor != "" {
		inner := strictjson.NewWriter(nil)
		inner.String("sub", actor)
		w.Raw(claimActor, string(inner.Close()))
	}
}

// readActor reads the claim act. unknown is the first name in it that this
// version does not know.
func readActor(value string) (actor, unknown string, err error) {
	if value[0] != '{' {
		return "", "", errors.New(claimActor + " has the wrong type")
	}
	err = strictjson.Object(value, maxClaims, func(name, value string) error {
		if name != "sub" {
			if unknown == "" {
				unknown = claimActor + "." + name
			}
			return exactName(name)
		}
		var ok bool
		if actor, ok = strictjson.String(value); !ok {
			return errors.New(claimActor + ".sub has the wrong type")
		}
		return nil
	})
	if err == nil && actor == "" {
		err = errors.New(claimActor + ".sub is missing")
	}
	return actor, unknown, err
}
