package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxClaims bounds the members of an object in a payload. Payloads are signed.
const maxClaims = 1024

// Claims are what a verified access token says. Every request has Claims of
// its own. Times are to the second.
type Claims struct {
	Issuer    string
	Audience  []string
	Subject   string // User.ID
	SessionID string
	TokenID   string // random, one a token

	Username string
	Roles    []string
	Scopes   []string
	AMR      []string // how the user proved himself at login (RFC 8176)

	IssuedAt  time.Time
	ExpiresAt time.Time
	AuthTime  time.Time // the login

	// SessionExpiresAt is how long the session is certain to last, if it is
	// not refreshed again. It is up to three retry windows less than it may.
	SessionExpiresAt time.Time

	countsFrom int64 // eff_iat in Unix seconds; 0 where the token has none
	payload    string
	verifiedAt time.Time
}

// parsedClaims is what an access token gives: claims, and the space for their
// lists beside them, so that a request gets claims of its own in one piece.
type parsedClaims struct {
	Claims
	notBefore int64 // nbf in Unix seconds; 0 where the token has none
	lists     [6]string
}

// copyTo gives a request claims that it may change.
func (v *parsedClaims) copyTo(own *parsedClaims) {
	own.Claims, own.notBefore = v.Claims, v.notBefore
	space := own.lists[:0]
	for _, list := range [...]*[]string{&own.Audience, &own.Roles, &own.Scopes, &own.AMR} {
		space = setList(list, append(space, *list...), len(space))
	}
}

// setList makes list what was appended to space from there on, and returns the
// space that is left behind it.
func setList(list *[]string, space []string, from int) []string {
	if from == len(space) {
		*list = nil
	} else {
		*list = space[from:len(space):len(space)]
	}
	return space
}

// Decode takes the application's own claims out of the token: it decodes the
// whole payload into v, by encoding/json. Claims that were not made by
// verifying a token, as in tests, have nothing to decode and leave v alone.
func (c *Claims) Decode(v any) error {
	if c.payload == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(c.payload), v); err != nil {
		return fmt.Errorf("auth: decoding claims: %w", err)
	}
	return nil
}

// accessGrant is all that an access token says.
type accessGrant struct {
	issuer     string
	audience   []string
	user       User
	sid        string
	amr        []string
	issuedAt   time.Time // by the clock, so that no verifier takes it for the future
	countsFrom time.Time // when it counts as issued beside a cut; written where it is later
	expiresAt  time.Time
	authTime   time.Time
	sessionEnd time.Time
}

func (g *accessGrant) payload() ([]byte, error) {
	u := &g.user
	if err := checkUser(u); err != nil {
		return nil, err
	}
	w := strictjson.NewWriter(make([]byte, 0, 512))
	w.String("iss", g.issuer)
	w.Strings("aud", g.audience)
	w.String("sub", u.ID)
	w.String("sid", g.sid)
	w.String("jti", randomID())
	w.Int("iat", g.issuedAt.Unix())
	w.Int("exp", g.expiresAt.Unix())
	w.Int("auth_time", g.authTime.Unix())
	w.Int("session_exp", g.sessionEnd.Unix())
	if g.countsFrom.Unix() > g.issuedAt.Unix() {
		w.Int("eff_iat", g.countsFrom.Unix())
	}
	if u.Username != "" {
		w.String("username", u.Username)
	}
	if len(u.Roles) > 0 {
		w.Strings("roles", u.Roles)
	}
	if len(u.Scopes) > 0 {
		w.String("scope", strings.Join(u.Scopes, " "))
	}
	if len(g.amr) > 0 {
		w.Strings("amr", g.amr)
	}
	if len(u.Extra) > 0 {
		extra, err := marshalExtra(u.Extra)
		if err != nil {
			return nil, fmt.Errorf("auth: User.Extra: %w", err)
		}
		w.Members(extra)
	}
	return w.Close(), nil
}

// reserved are the names that mean something in an access token, here or to
// another reader of it; User.Extra cannot have them.
var reserved = [...]string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", // RFC 7519 section 4.1
	"sid", "auth_time", "acr", "amr", "azp", "nonce", // OpenID Connect
	"client_id", "scope", "roles", "groups", "entitlements", "username", // RFC 9068 section 2.2, RFC 7662
	"cnf", "act", "may_act", "events", // RFC 7800, 8693, 8417
	"gen", "session_exp", "eff_iat", "token_type", "typ",
}

// imitates returns the reserved name that name is, or is but for letter case
// in the sense of encoding/json: U+017F is an s, U+212A a k.
func imitates(name string) string {
	for _, r := range reserved {
		if len(name) >= len(r) && strings.EqualFold(name, r) {
			return r
		}
	}
	return ""
}

// marshalExtra encodes the application's claims, of which there is at least
// one.
//
// Whether a claim is refused does not depend on encoding/json, which replaces
// invalid UTF-8 by U+FFFD, in different ways in different versions of Go. So the
// names and texts of extra are checked before, and every string of the result
// is checked as the strict reader does. The result may not have more U+FFFD
// than extra has. In a value of a type that checkText does not know, a U+FFFD of
// the application cannot be told from a replacement, and is refused.
func marshalExtra(extra map[string]any) ([]byte, error) {
	replacements, err := checkText(extra, 0)
	if err != nil {
		return nil, err
	}
	object, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	// Read it as a verifier does, so that no token is issued that it refuses.
	err = strictjson.Object(string(object), maxClaims, func(name, _ string) error {
		if r := imitates(name); r != "" {
			return fmt.Errorf("%q is, or imitates, the reserved claim %q", name, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !strictjson.ValidStrings(string(object)) || strings.Count(string(object), "\uFFFD") != replacements {
		return nil, errNotUTF8()
	}
	return object, nil
}

func errNotUTF8() error {
	return fmt.Errorf("%w: a name or value is not UTF-8", strictjson.ErrSyntax)
}

// checkText refuses names and texts in v that are not UTF-8, and returns how
// many U+FFFD there are in them. It knows the types that encoding/json itself
// decodes to, and their relatives; others have no text here.
func checkText(v any, depth int) (replacements int, err error) {
	if depth > strictjson.MaxDepth {
		return 0, strictjson.ErrDepth
	}
	add := func(v any) {
		n, e := checkText(v, depth+1)
		replacements += n
		if err == nil {
			err = e
		}
	}
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return 0, errNotUTF8()
		}
		return strings.Count(v, "\uFFFD"), nil
	case json.RawMessage:
		return checkText(string(v), depth)
	case []string:
		for _, text := range v {
			add(text)
		}
	case []any:
		for _, value := range v {
			add(value)
		}
	case []map[string]any:
		for _, value := range v {
			add(value)
		}
	case map[string]string:
		for name, text := range v {
			add(name)
			add(text)
		}
	case map[string]any:
		for name, value := range v {
			add(name)
			add(value)
		}
	}
	return replacements, err
}

// maxNumericDate is the last second of the year 9999.
const maxNumericDate = 253402300799

// numericTime returns a NumericDate (RFC 7519 section 2) that is a number within
// the years 1970 to 9999, to the second.
func numericTime(value string) (time.Time, bool) {
	n, ok := numericDate(value)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(n, 0).UTC(), true
}

// numericDate is [numericTime] in Unix seconds.
func numericDate(value string) (int64, bool) {
	n, ok := strictjson.Int(value)
	if !ok {
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= maxNumericDate) {
			return 0, false
		}
		n = int64(math.Floor(f))
	}
	return n, n >= 0 && n <= maxNumericDate
}

// readAccess reads the claims of an access token whose signature was checked
// into c, and holds them to RFC 9068 section 4. Times are judged by the caller.
func readAccess(c *parsedClaims, payload, issuer string, audience []string) error {
	c.payload = payload
	space := c.lists[:0]
	strs := func(list *[]string, value string) (ok bool) {
		grown, ok := strictjson.Strings(space, value)
		if ok {
			space = setList(list, grown, len(space))
		}
		return ok
	}
	err := strictjson.Object(payload, maxClaims, func(name, value string) error {
		var ok bool
		switch name {
		case "iss":
			c.Issuer, ok = strictjson.String(value)
		case "aud":
			if ok = value[0] == '['; ok {
				ok = strs(&c.Audience, value)
			} else {
				var one string
				one, ok = strictjson.String(value)
				space = setList(&c.Audience, append(space, one), len(space))
			}
		case "sub":
			c.Subject, ok = strictjson.String(value)
		case "sid":
			c.SessionID, ok = strictjson.String(value)
		case "jti":
			c.TokenID, ok = strictjson.String(value)
		case "username":
			c.Username, ok = strictjson.String(value)
		case "roles":
			ok = strs(&c.Roles, value)
		case "scope":
			var scope string
			scope, ok = strictjson.String(value)
			from := len(space)
			for word := range strings.SplitSeq(scope, " ") { // nothing else separates (RFC 6749 section 3.3)
				if word != "" {
					space = append(space, word)
				}
			}
			setList(&c.Scopes, space, from)
		case "amr":
			ok = strs(&c.AMR, value)
		case "iat":
			c.IssuedAt, ok = numericTime(value)
		case "exp":
			c.ExpiresAt, ok = numericTime(value)
		case "nbf":
			c.notBefore, ok = numericDate(value)
		case "auth_time":
			c.AuthTime, ok = numericTime(value)
		case "session_exp":
			c.SessionExpiresAt, ok = numericTime(value)
		case "eff_iat":
			c.countsFrom, ok = numericDate(value)
		case "gen", "cnf":
			// A generation is a refresh token's. A token bound to a key of its
			// holder (RFC 7800) must not pass for one that is not.
			return errors.New(name + " in an access token")
		default:
			return exactName(name)
		}
		if !ok {
			return errors.New(name + " is not of its type")
		}
		return nil
	})
	if err == nil {
		err = c.check(issuer, audience)
	}
	if err != nil {
		return fmt.Errorf("%w: claims: %w", ErrInvalidToken, err)
	}
	return nil
}

func (c *Claims) check(issuer string, audience []string) error {
	switch {
	case c.Issuer != issuer:
		return errors.New("iss is another")
	case !intersects(c.Audience, audience):
		return errors.New("aud is another")
	case c.Subject == "", c.SessionID == "", c.TokenID == "":
		return errors.New("sub, sid or jti is missing")
	case c.IssuedAt.IsZero(), c.ExpiresAt.IsZero(), c.AuthTime.IsZero(), c.SessionExpiresAt.IsZero():
		return errors.New("iat, exp, auth_time or session_exp is missing")
	}
	return nil
}

// exactName lets a claim through that is not ours, and refuses one that a
// careless reader would take for ours.
func exactName(name string) error {
	if r := imitates(name); r != "" && r != name {
		return errors.New("a name imitates " + r)
	}
	return nil
}

func readAudience(value string) ([]string, bool) {
	if one, ok := strictjson.String(value); ok {
		return []string{one}, true
	}
	return strictjson.Strings(nil, value)
}

// newerToken is the error of a refresh token that has a claim of this name,
// which this version does not know. Only a newer version can have issued it, so
// it is not refused: a rolling deployment signs nobody out.
type newerToken string

func (n newerToken) Error() string {
	return fmt.Sprintf("%v: the refresh token has the claim %q, which this version does not know", ErrUnavailable, string(n))
}

func (n newerToken) Unwrap() error { return ErrUnavailable }

// maxClaimName bounds the name of a claim in an error.
const maxClaimName = 32
