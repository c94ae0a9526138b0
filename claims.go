package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

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
	b := make([]byte, 0, 512)
	b = append(b, `{"iss":`...)
	b = appendJSONString(b, g.issuer)
	b = append(b, `,"aud":`...)
	b = appendJSONStrings(b, g.audience)
	b = append(b, `,"sub":`...)
	b = appendJSONString(b, u.ID)
	b = append(b, `,"sid":`...)
	b = appendJSONString(b, g.sid)
	b = append(b, `,"jti":"`...)
	b = append(b, randomID()...)
	b = append(b, `","iat":`...)
	b = strconv.AppendInt(b, g.issuedAt.Unix(), 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, g.expiresAt.Unix(), 10)
	b = append(b, `,"auth_time":`...)
	b = strconv.AppendInt(b, g.authTime.Unix(), 10)
	b = append(b, `,"session_exp":`...)
	b = strconv.AppendInt(b, g.sessionEnd.Unix(), 10)
	if g.countsFrom.Unix() > g.issuedAt.Unix() {
		b = append(b, `,"eff_iat":`...)
		b = strconv.AppendInt(b, g.countsFrom.Unix(), 10)
	}
	if u.Username != "" {
		b = append(b, `,"username":`...)
		b = appendJSONString(b, u.Username)
	}
	if len(u.Roles) > 0 {
		b = append(b, `,"roles":`...)
		b = appendJSONStrings(b, u.Roles)
	}
	if len(u.Scopes) > 0 {
		b = append(b, `,"scope":`...)
		b = appendJSONString(b, strings.Join(u.Scopes, " "))
	}
	if len(g.amr) > 0 {
		b = append(b, `,"amr":`...)
		b = appendJSONStrings(b, g.amr)
	}
	b, err := appendExtra(b, u.Extra)
	if err != nil {
		return nil, err
	}
	return append(b, '}'), nil
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

// appendExtra appends the application's claims, each after a comma.
//
// Which of them are refused does not depend on encoding/json, which replaces
// what is not UTF-8 by U+FFFD, in another way in each version of Go. So the
// names and texts of Extra are checked as they were given, all strings of the
// result as the strict reader would, and the result may not have more U+FFFD
// than was given. In values of other types than those which checkText knows,
// nobody can tell a U+FFFD that was there from one that was put in, and it is
// refused.
func appendExtra(b []byte, extra map[string]any) ([]byte, error) {
	if len(extra) == 0 {
		return b, nil
	}
	replacements, err := checkText(extra, 0)
	if err != nil {
		return nil, fmt.Errorf("auth: User.Extra: %w", err)
	}
	object, err := json.Marshal(extra)
	if err != nil {
		return nil, fmt.Errorf("auth: User.Extra: %w", err)
	}
	// Read as the verifier will, so that no token is made that it refuses.
	err = readObject(string(object), maxClaims, func(name, _ string) error {
		if r := imitates(name); r != "" {
			return fmt.Errorf("%q is, or imitates, the reserved claim %q", name, r)
		}
		return nil
	})
	if err == nil {
		err = checkStrings(string(object))
	}
	if err == nil && strings.Count(string(object), "\uFFFD") != replacements {
		err = errNotUTF8()
	}
	if err != nil {
		return nil, fmt.Errorf("auth: User.Extra: %w", err)
	}
	b = append(b, ',')
	return append(b, object[1:len(object)-1]...), nil
}

func errNotUTF8() error {
	return fmt.Errorf("%w: a name or value is not UTF-8", errJSON)
}

// checkText refuses names and texts in v that are not UTF-8, and returns how
// many U+FFFD there are in them. It knows the types that encoding/json itself
// decodes to, and their relatives; others have no text here.
func checkText(v any, depth int) (replacements int, err error) {
	if depth > maxJSONDepth {
		return 0, errJSONDepth
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

// checkStrings holds every string of JSON that was read before to the rules of
// jsonString.
func checkStrings(b string) error {
	s := jsonScanner{b: b}
	for {
		next := strings.IndexByte(b[s.i:], '"')
		if next < 0 {
			return nil
		}
		s.i += next
		raw, err := s.str()
		if err != nil {
			return err
		}
		if _, ok := jsonString(raw); !ok {
			return errNotUTF8()
		}
	}
}

// readAccess reads the claims of an access token whose signature was checked
// into c, and holds them to RFC 9068 section 4. Times are judged by the caller.
func readAccess(c *parsedClaims, payload, issuer string, audience []string) error {
	c.payload = payload
	space := c.lists[:0]
	strs := func(list *[]string, value string) (ok bool) {
		grown, ok := jsonStrings(space, value)
		if ok {
			space = setList(list, grown, len(space))
		}
		return ok
	}
	err := readObject(payload, maxClaims, func(name, value string) error {
		var ok bool
		switch name {
		case "iss":
			c.Issuer, ok = jsonString(value)
		case "aud":
			if ok = value[0] == '['; ok {
				ok = strs(&c.Audience, value)
			} else {
				var one string
				one, ok = jsonString(value)
				space = setList(&c.Audience, append(space, one), len(space))
			}
		case "sub":
			c.Subject, ok = jsonString(value)
		case "sid":
			c.SessionID, ok = jsonString(value)
		case "jti":
			c.TokenID, ok = jsonString(value)
		case "username":
			c.Username, ok = jsonString(value)
		case "roles":
			ok = strs(&c.Roles, value)
		case "scope":
			var scope string
			scope, ok = jsonString(value)
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
			c.IssuedAt, ok = jsonTime(value)
		case "exp":
			c.ExpiresAt, ok = jsonTime(value)
		case "nbf":
			c.notBefore, ok = jsonSeconds(value)
		case "auth_time":
			c.AuthTime, ok = jsonTime(value)
		case "session_exp":
			c.SessionExpiresAt, ok = jsonTime(value)
		case "eff_iat":
			c.countsFrom, ok = jsonSeconds(value)
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
	if one, ok := jsonString(value); ok {
		return []string{one}, true
	}
	return jsonStrings(nil, value)
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
