package auth

import (
	"context"
	"errors"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// refreshClaims are the claims of a refresh token: the constants of the session,
// and its state after the rotation that issued the token. They contain nothing
// about the user except the subject.
type refreshClaims struct {
	subject    string
	sid        string
	generation int64
	issuedAt   time.Time // Session.RotatedAt
	expiresAt  time.Time // Session.ExpiresAt
	constants
}

// session returns what the claims say about the record of the session.
func (c *refreshClaims) session() Session {
	return Session{
		ID: c.sid, Subject: c.subject, Generation: c.generation, Opaque: joinData(c.actor, "", nil),
		CreatedAt: c.created, RotatedAt: c.issuedAt, ExpiresAt: c.expiresAt,
	}
}

func (c *refreshClaims) times() subjectTimes {
	return subjectTimes{subject: c.subject, sid: c.sid, actor: c.actor, created: c.created}
}

// openRefresh verifies a refresh token, except its times and revocation. If the
// returned claims have a sid, even together with an error, the token was signed
// for this service and names its session; see readRefresh.
func (a *Authenticator) openRefresh(ctx context.Context, token string) (refreshClaims, error) {
	signed, err := openToken(ctx, token, typRefresh, &a.refreshKeys)
	if err != nil {
		return refreshClaims{}, err
	}
	return readRefresh(signed.payload, a.issuer, a.audience)
}

// readRefresh reads the claims of a refresh token whose signature was checked.
//
// If iss, aud and the types of all claims are right, it returns claims with a
// sid even if it also returns an error. Then the token identifies its session,
// but this version cannot refresh it: a claim is missing, or unknown
// ([newerToken]).
func readRefresh(payload, issuer string, audience []string) (refreshClaims, error) {
	var c refreshClaims
	var iss string
	var unknown error
	var aud []string
	err := strictjson.Object(payload, maxClaims, func(name, value string) error {
		var ok bool
		switch name {
		case "iss":
			iss, ok = strictjson.String(value)
		case "aud":
			aud, ok = readAudience(value)
		case "sub":
			c.subject, ok = strictjson.String(value)
		case "sid":
			c.sid, ok = strictjson.String(value)
		case "gen":
			c.generation, ok = strictjson.Int(value)
		case "amr":
			c.amr, ok = strictjson.Strings(nil, value)
		case "auth_time":
			c.authTime, ok = numericTime(value)
		case "iat":
			c.issuedAt, ok = numericTime(value)
		case "exp":
			c.expiresAt, ok = numericTime(value)
		case claimActor:
			var inner string
			var err error
			if c.actor, inner, err = readActor(value); err != nil {
				return err
			}
			if inner != "" && unknown == nil {
				unknown = newerToken(cutText(inner, maxClaimName))
			}
			return nil
		default:
			var known bool
			if known, ok = c.readTerms(name, value); known {
				break
			}
			// A newer version may have added a condition that this one does not
			// check, so the token is not spent here.
			if unknown == nil {
				unknown = newerToken(cutText(name, maxClaimName))
			}
			return exactName(name)
		}
		if !ok {
			return errors.New(name + " has the wrong type")
		}
		return nil
	})
	if err == nil {
		err = checkService(iss, issuer, aud, audience)
	}
	if err == nil && (c.subject == "" || c.sid == "") {
		err = errors.New("sub or sid is missing")
	}
	if err != nil {
		return refreshClaims{}, invalidClaims(err)
	}
	if c.created.IsZero() {
		c.created = c.authTime
	}
	switch {
	case c.generation < 1, c.authTime.IsZero(), c.issuedAt.IsZero(), c.expiresAt.IsZero():
		return c, malformed("claims: gen, auth_time, iat or exp is missing")
	}
	return c, unknown
}
