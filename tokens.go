package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// The typ headers of the kinds of tokens (RFC 9068 section 2.1, RFC 8725
// section 3.11). Each kind also has its own keys.
const (
	typAccess  = "at+jwt"
	typRefresh = "rt+jwt"
	typOneTime = "ot+jwt"
)

// Tokens are the result of a login or a refresh.
//
// Printing shows only the session ID and the session's end. encoding/json and
// encoding/xml omit the tokens, and encoding/gob returns an error. To send them
// to the client, use [Authenticator.WriteTokens], or the fields.
type Tokens struct {
	Access           string    `json:"-" xml:"-"` // for the Authorization header
	AccessExpiresAt  time.Time // to the second
	Refresh          string    `json:"-" xml:"-"` // only for the refresh endpoint
	RefreshExpiresAt time.Time // to the second; the session ends then unless it is refreshed
	Subject          string
	SessionID        string
	Scope            string // the scopes of the access token, separated by spaces (RFC 6749 section 3.3); "" if it has none

	// Rotated is set if Refresh is the token of a later generation than the one
	// that was presented to [Authenticator.Refresh]. A client then drops its
	// retry key when it stores Refresh.
	Rotated bool

	// presented is set if the cookie of the request contains Refresh. Then the
	// cookie is not set again: if the response to a later request arrives first,
	// this one would overwrite the newer token.
	presented bool

	ephemeral bool // the cookies end with the browser; see SessionOptions.Ephemeral

	device string // the token of a known device, after a login whose tokens go into cookies
}

// Format prints the session and its end, never the tokens.
func (t Tokens) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.Tokens{session %s until %s}", t.SessionID, t.RefreshExpiresAt.Format(time.RFC3339))
}

// LogValue logs what Format prints.
func (t Tokens) LogValue() slog.Value {
	return slog.GroupValue(slog.String("session", t.SessionID), slog.Time("expires", t.RefreshExpiresAt))
}

// GobEncode returns an error. Package gob ignores the tags that keep the tokens
// out of other encodings, and without them the decoded Tokens would be useless.
func (t Tokens) GobEncode() ([]byte, error) { return nil, notEncodable("Tokens", "tokens") }

// notEncodable returns the error of a GobEncode method.
func notEncodable(name, secrets string) error {
	return fmt.Errorf("auth: %s cannot be encoded by encoding/gob, because it contains %s; encode a type of your own with the fields that you need",
		name, secrets)
}

// payload returns the claims as JSON. The encoding is deterministic, so every
// process produces the same token for the same claims.
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
	c.writeTerms(&w, c.authTime)
	writeActor(&w, c.actor)
	return w.Close()
}

// mintAccess issues an access token. It sets the fields of g that are the same for
// all sessions, and expiresAt. Because it may fail, it is called before a
// session is created or a refresh token is spent. The token's iat and exp follow
// the clock; see lifetimes.go for countsFrom.
func (a *Authenticator) mintAccess(ctx context.Context, g accessGrant) (Tokens, error) {
	now := g.issuedAt
	g.issuer, g.audience, g.memoryID = a.issuer, a.audience, a.memoryID
	g.expiresAt = earlier(now.Add(a.issuableTTL(ctx, now)), g.sessionEnd).Truncate(time.Second)
	g.sessionEnd = g.sessionEnd.Truncate(time.Second)
	payload, err := g.payload()
	if err != nil {
		return Tokens{}, err
	}
	access, err := a.signAccess(ctx, now, payload)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{
		Access: access, AccessExpiresAt: g.expiresAt, Subject: g.user.ID, SessionID: g.sid, Scope: strings.Join(g.user.Scopes, " "),
		ephemeral: g.constants.ephemeral,
	}, nil
}

// signAccess signs an access token. A crypto.Signer of the application may be a
// remote one.
func (a *Authenticator) signAccess(ctx context.Context, now time.Time, payload []byte) (string, error) {
	ring := a.accessKeys.ring.Load()
	if ring.keys[ring.signer(now)].isLocal() {
		return ring.signToken(now, payload)
	}
	token, err := callBounded(a.Verifier, ctx, "Signer", a.hookTimeout, func(context.Context) (string, error) { return ring.signToken(now, payload) })
	var panicked *panicError
	if abandoned, _ := isAbandoned(err); abandoned || errors.As(err, &panicked) && !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: signing a token: %w", ErrUnavailable, detail{err})
	}
	return token, err
}

// mintRefresh adds to t the refresh token of s in its current generation.
func (a *Authenticator) mintRefresh(t *Tokens, s Session, k *constants) (err error) {
	c := refreshClaims{
		subject: s.Subject, sid: s.ID, generation: s.Generation,
		issuedAt: s.RotatedAt, expiresAt: s.ExpiresAt, constants: *k,
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
	_, _ = rand.Read(b[:]) // never returns an error
	return base64.RawURLEncoding.EncodeToString(b[:])
}
