package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// The typ of the two kinds of tokens (RFC 9068 section 2.1, RFC 8725 section
// 3.11). They have keys of their own besides.
const (
	typAccess  = "at+jwt"
	typRefresh = "rt+jwt"
)

// Tokens are what a login or a refresh gives to the client.
//
// They print as their session and times alone, and encoding/json leaves the
// tokens out: hand them out with [Authenticator.WriteTokens], or take the
// fields.
type Tokens struct {
	Access           string    `json:"-"` // for the Authorization header
	AccessExpiresAt  time.Time // to the second
	Refresh          string    `json:"-"` // for the refresh endpoint alone
	RefreshExpiresAt time.Time // to the second; the end of the session unless it is refreshed
	Subject          string
	SessionID        string

	// presented: the refresh token is the one that was sent. Its cookie must
	// not be written again, or a late answer puts back an older one.
	presented bool
}

// Format prints the tokens' session and times, never the tokens.
func (t Tokens) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.Tokens{session %s until %s}", t.SessionID, t.RefreshExpiresAt.Format(time.RFC3339))
}

// LogValue logs what Format prints.
func (t Tokens) LogValue() slog.Value {
	return slog.GroupValue(slog.String("session", t.SessionID), slog.Time("expires", t.RefreshExpiresAt))
}

// refreshClaims are what a refresh token says: constants of the session, and
// where the session stood. Never claims of the user.
type refreshClaims struct {
	subject    string
	sid        string
	generation int64
	amr        []string
	authTime   time.Time // Session.CreatedAt, to the second
	issuedAt   time.Time // Session.RotatedAt
	expiresAt  time.Time // Session.ExpiresAt
}

func (c *refreshClaims) times() subjectTimes {
	return subjectTimes{subject: c.subject, sid: c.sid, created: c.authTime}
}

// payload is the same, byte for byte, whichever process writes it.
func (c *refreshClaims) payload(issuer string, audience []string) []byte {
	w := strictjson.NewWriter(make([]byte, 0, 384))
	w.String("iss", issuer)
	w.Strings("aud", audience)
	w.String("sub", c.subject)
	w.String("sid", c.sid)
	w.Int("gen", c.generation)
	w.Int("auth_time", c.authTime.Unix())
	w.Int("iat", c.issuedAt.Unix())
	w.Int("exp", c.expiresAt.Unix())
	if len(c.amr) > 0 {
		w.Strings("amr", c.amr)
	}
	return w.Close()
}

// readRefresh reads the claims of a refresh token whose signature was checked.
//
// It returns claims with a sid, also beside an error, if iss and aud are right
// and no claim is of a wrong type: the token names its session then, even if
// this version cannot refresh it ([newerToken], or a claim is missing).
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
		default:
			// A newer version may bind the token to more than this one checks,
			// so it is not spent here either.
			if unknown == nil {
				unknown = newerToken(cutText(name, maxClaimName))
			}
			return exactName(name)
		}
		if !ok {
			return errors.New(name + " is not of its type")
		}
		return nil
	})
	switch {
	case err != nil:
	case iss != issuer:
		err = errors.New("iss is another")
	case !intersects(aud, audience):
		err = errors.New("aud is another")
	case c.subject == "", c.sid == "":
		err = errors.New("sub or sid is missing")
	}
	if err != nil {
		return refreshClaims{}, fmt.Errorf("%w: claims: %w", ErrInvalidToken, err)
	}
	switch {
	case c.generation < 1, c.authTime.IsZero(), c.issuedAt.IsZero(), c.expiresAt.IsZero():
		return c, malformed("claims: gen, auth_time, iat or exp is missing")
	}
	return c, unknown
}

// mintAccess makes the access token. It may fail, so it comes before anything
// that counts. The token is issued, and its lifetime counts, by the clock;
// countsFrom is what a cut is compared with.
func (a *Authenticator) mintAccess(ctx context.Context, u User, sid string, amr []string, now, countsFrom, authTime, sessionEnd time.Time) (Tokens, error) {
	g := accessGrant{
		issuer: a.issuer, audience: a.audience, user: u, sid: sid, amr: amr,
		issuedAt: now, countsFrom: countsFrom, authTime: authTime,
		expiresAt:  earlier(now.Add(a.issuableTTL(ctx, now)), sessionEnd).Truncate(time.Second),
		sessionEnd: sessionEnd.Truncate(time.Second),
	}
	payload, err := g.payload()
	if err != nil {
		return Tokens{}, err
	}
	access, err := a.accessKeys.ring.Load().signToken(now, payload)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, AccessExpiresAt: g.expiresAt, Subject: u.ID, SessionID: sid}, nil
}

// mintRefresh adds the refresh token of the generation that s is in.
func (a *Authenticator) mintRefresh(t *Tokens, s Session, amr []string) (err error) {
	c := refreshClaims{
		subject: s.Subject, sid: s.ID, generation: s.Generation, amr: amr,
		authTime: s.CreatedAt, issuedAt: s.RotatedAt, expiresAt: s.ExpiresAt,
	}
	t.Refresh, err = a.signRefresh(c)
	t.RefreshExpiresAt = s.ExpiresAt.Truncate(time.Second)
	return err
}

func (a *Authenticator) signRefresh(c refreshClaims) (string, error) {
	return a.refreshKeys.ring.Load().signToken(a.now(), c.payload(a.issuer, a.audience))
}

// randomID returns 128 random bits in 22 characters of base64url.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}
