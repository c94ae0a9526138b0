package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The typ of the two kinds of tokens (RFC 9068 section 2.1, RFC 8725 section
// 3.11). They have keys of their own besides.
const (
	typAccess  = "at+jwt"
	typRefresh = "rt+jwt"
)

// maxToken bounds a token, before anything else is done with it.
const maxToken = 8 << 10

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

// verified is what an access token gives: claims, and the space for their
// lists beside them, so that a request gets claims of its own in one piece.
type verified struct {
	Claims
	notBefore int64 // nbf in Unix seconds; 0 where the token has none
	lists     [6]string
}

// copyTo gives a request claims that it may change.
func (v *verified) copyTo(own *verified) {
	own.Claims, own.notBefore = v.Claims, v.notBefore
	space := own.lists[:0]
	for _, list := range [...]*[]string{&own.Audience, &own.Roles, &own.Scopes, &own.AMR} {
		space = keep(list, append(space, *list...), len(space))
	}
}

// keep makes list what was appended to space from there on, and returns the
// space that is left behind it.
func keep(list *[]string, space []string, from int) []string {
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

// checkUser refuses what would make a token that says something else.
func checkUser(u *User) error {
	switch {
	case u.ID == "":
		return errors.New("auth: User.ID is empty")
	case len(u.ID) > maxSubject:
		return fmt.Errorf("auth: User.ID is %d bytes, at most %d are allowed", len(u.ID), maxSubject)
	case !isPlainText(u.ID):
		return errors.New("auth: User.ID is not UTF-8 without control characters")
	case !utf8.ValidString(u.Username):
		return errors.New("auth: User.Username is not UTF-8")
	}
	for i, role := range u.Roles {
		if role == "" || !utf8.ValidString(role) {
			return fmt.Errorf("auth: User.Roles[%d] is empty or not UTF-8", i)
		}
	}
	for i, scope := range u.Scopes {
		if !isScope(scope) {
			return fmt.Errorf("auth: User.Scopes[%d] is not a scope token (RFC 6749 section 3.3)", i)
		}
	}
	return nil
}

func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return s != ""
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

// payload is the same, byte for byte, whichever process writes it.
func (c *refreshClaims) payload(issuer string, audience []string) []byte {
	b := make([]byte, 0, 384)
	b = append(b, `{"iss":`...)
	b = appendJSONString(b, issuer)
	b = append(b, `,"aud":`...)
	b = appendJSONStrings(b, audience)
	b = append(b, `,"sub":`...)
	b = appendJSONString(b, c.subject)
	b = append(b, `,"sid":`...)
	b = appendJSONString(b, c.sid)
	b = append(b, `,"gen":`...)
	b = strconv.AppendInt(b, c.generation, 10)
	b = append(b, `,"auth_time":`...)
	b = strconv.AppendInt(b, c.authTime.Unix(), 10)
	b = append(b, `,"iat":`...)
	b = strconv.AppendInt(b, c.issuedAt.Unix(), 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, c.expiresAt.Unix(), 10)
	if len(c.amr) > 0 {
		b = append(b, `,"amr":`...)
		b = appendJSONStrings(b, c.amr)
	}
	return append(b, '}')
}

// headerSegment is what every token of the key begins with.
func headerSegment(k Key, typ string) string {
	header := make([]byte, 0, 96)
	header = append(header, `{"alg":"`...)
	header = append(header, k.alg...)
	header = append(header, `","typ":"`...)
	header = append(header, typ...)
	header = append(header, `","kid":`...)
	header = appendJSONString(header, k.ID())
	header = append(header, '}')
	return base64.RawURLEncoding.EncodeToString(header)
}

// signToken makes the compact serialization (RFC 7515 section 7.1), by the key
// that signs now.
func (ring *keyRing) signToken(now time.Time, payload []byte) (string, error) {
	i := ring.signer(now)
	enc := base64.RawURLEncoding
	const hmacLen = 1 + 86 // a point and what most often follows it, at most
	b := make([]byte, 0, len(ring.headers[i])+1+enc.EncodedLen(len(payload))+hmacLen)
	b = append(b, ring.headers[i]...)
	b = append(b, '.')
	b = enc.AppendEncode(b, payload)
	sig, err := ring.keys[i].sign(b)
	if err != nil {
		return "", fmt.Errorf("%w: signing a token: %w", ErrUnavailable, err)
	}
	b = enc.AppendEncode(append(b, '.'), sig)
	if len(b) > maxToken {
		return "", fmt.Errorf("auth: a token of %d bytes is over the limit of %d; put less into User.Extra, Roles or Scopes", len(b), maxToken)
	}
	return string(b), nil
}

// base64Value is the value of each letter of base64url, 0xff for every other
// byte (RFC 4648 section 5).
var base64Value = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		values[c] = byte(i)
	}
	return values
}()

// decodeSegment appends the bytes of a segment to to. It refuses what decodes
// to the same bytes but is spelled another way: padding, line ends, bits after
// the last byte (RFC 4648 section 3.5).
func decodeSegment(to []byte, segment string) ([]byte, bool) {
	at, whole := len(to), len(segment)/4*3
	to = slices.Grow(to, whole+2)[:at+whole]
	var seen byte
	for dst := to[at:]; len(segment) >= 4 && len(dst) >= 3; segment, dst = segment[4:], dst[3:] {
		a, b, c, d := base64Value[segment[0]], base64Value[segment[1]], base64Value[segment[2]], base64Value[segment[3]]
		seen |= a | b | c | d
		dst[0], dst[1], dst[2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
	}
	if seen > 63 {
		return nil, false
	}
	switch len(segment) {
	case 0:
		return to, true
	case 2:
		a, b := base64Value[segment[0]], base64Value[segment[1]]
		return append(to, a<<2|b>>4), a|b <= 63 && b&15 == 0
	case 3:
		a, b, c := base64Value[segment[0]], base64Value[segment[1]], base64Value[segment[2]]
		return append(to, a<<2|b>>4, b<<4|c>>2), a|b|c <= 63 && c&3 == 0
	}
	return nil, false
}

// malformed is an ErrInvalidToken with a reason that is not the token's own
// text.
type malformed string

func (m malformed) Error() string { return ErrInvalidToken.Error() + ": " + string(m) }
func (m malformed) Unwrap() error { return ErrInvalidToken }

// signedToken is a token that was signed by key.
type signedToken struct {
	payload string
	kid     string // as the token says it, which may be not at all
	key     *key
}

// openToken checks everything about a token but its claims, and returns them
// as they were signed. Nothing in the token chooses anything beyond which of
// the configured keys is tried.
func openToken(ctx context.Context, token, typ string, source KeySource) (signedToken, error) {
	if len(token) > maxToken {
		return signedToken{}, malformed("over the size limit")
	}
	first := strings.IndexByte(token, '.')
	last := strings.LastIndexByte(token, '.')
	if first < 0 || first == last || strings.IndexByte(token[first+1:last], '.') >= 0 {
		return signedToken{}, malformed("not three segments")
	}
	var sigBuf [1024]byte // of RSA with 8192 bits
	if base64.RawURLEncoding.DecodedLen(len(token)-last-1) > len(sigBuf) {
		return signedToken{}, malformed("signature is too long")
	}
	sig, ok := decodeSegment(sigBuf[:0], token[last+1:])
	if !ok {
		return signedToken{}, malformed("signature is not base64url")
	}
	if live, ok := source.(*liveKeys); ok {
		source = live.ring.Load()
	}
	// A header that is, letter for letter, the one that a key of ours writes
	// needs no reading.
	k := ownHeader(token[:first], source)
	kid := k.ID()
	if k.key == nil {
		var err error
		if k, kid, err = otherHeader(ctx, token, first, last, sig, typ, source); err != nil {
			return signedToken{}, err
		}
	} else if !k.verify(token[:last], sig) {
		return signedToken{}, malformed("signature does not verify")
	}
	var buf [2048]byte
	payload, ok := decodeSegment(buf[:0], token[first+1:last])
	if !ok {
		return signedToken{}, malformed("payload is not base64url")
	}
	return signedToken{string(payload), kid, k.key}, nil
}

// ownHeader returns the key whose header it is, or the zero Key.
func ownHeader(header string, source KeySource) Key {
	if ring, ok := source.(*keyRing); ok {
		for i, own := range ring.headers {
			if own == header && !ring.gone(i) {
				return ring.keys[i]
			}
		}
	}
	return Key{}
}

// otherHeader reads a header, and returns the key that made the signature, and
// the kid by which it was found.
func otherHeader(ctx context.Context, token string, first, last int, sig []byte, typ string, source KeySource) (Key, string, error) {
	var buf [256]byte
	text, ok := decodeSegment(buf[:0], token[:first])
	if !ok {
		return Key{}, "", malformed("header is not base64url")
	}
	h, err := readHeader(string(text))
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: header: %w", ErrInvalidToken, err)
	}
	if h.typ != typ && (typ != typAccess || h.typ != "application/"+typAccess) {
		return Key{}, "", malformed("wrong typ")
	}
	if h.hasKid && h.kid == "" {
		return Key{}, "", malformed("empty kid")
	}
	candidates, err := keysOf(ctx, source, h.kid)
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: keys: %w", ErrUnavailable, err)
	}
	if len(candidates) == 0 {
		if h.hasKid {
			return Key{}, "", malformed("unknown kid")
		}
		return Key{}, "", malformed("no kid, and no key that tokens without one are tried against")
	}
	for _, k := range candidates {
		if k.usable() && k.isFor(h.alg) && k.verify(token[:last], sig) {
			return k, h.kid, nil
		}
	}
	return Key{}, "", malformed("signature does not verify")
}

// keysOf asks a source, which may be the application's.
func keysOf(ctx context.Context, source KeySource, id string) (keys []Key, err error) {
	switch source := source.(type) {
	case *keyRing:
		return source.VerifyKeys(ctx, id)
	case *liveKeys:
		return source.VerifyKeys(ctx, id)
	}
	err = guardHook("KeySource", func() (err error) {
		keys, err = source.VerifyKeys(ctx, id)
		return err
	})
	return keys, err
}

type tokenHeader struct {
	alg, typ, kid string
	hasKid        bool
}

// refusedHeaders change what a token means or where its key comes from (RFC
// 7515 section 4.1, RFC 7797); a token that needs them is not one of ours.
// Other parameters are ignored, as RFC 7515 section 4 demands.
var refusedHeaders = [...]string{"crit", "b64", "jku", "jwk", "x5u", "x5c", "enc", "zip"}

func readHeader(b string) (h tokenHeader, err error) {
	err = readObject(b, maxHeaderMembers, func(name, value string) error {
		var ok bool
		switch name {
		case "alg":
			h.alg, ok = jsonString(value)
		case "typ":
			h.typ, ok = jsonString(value)
		case "kid":
			h.kid, ok = jsonString(value)
			h.hasKid = true
		default:
			for _, r := range refusedHeaders {
				if strings.EqualFold(name, r) {
					return errors.New(r + " is refused")
				}
			}
			for _, r := range [...]string{"alg", "typ", "kid"} {
				if strings.EqualFold(name, r) {
					return errors.New(r + " in another letter case")
				}
			}
			return nil
		}
		if !ok {
			return errors.New("alg, typ or kid is not a string")
		}
		return nil
	})
	return h, err
}

// readAccess reads the claims of an access token whose signature was checked
// into c, and holds them to RFC 9068 section 4. Times are judged by the caller.
func readAccess(c *verified, payload, issuer string, audience []string) error {
	c.payload = payload
	space := c.lists[:0]
	strs := func(list *[]string, value string) (ok bool) {
		grown, ok := jsonStrings(space, value)
		if ok {
			space = keep(list, grown, len(space))
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
				space = keep(&c.Audience, append(space, one), len(space))
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
			keep(&c.Scopes, space, from)
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
	case !shares(c.Audience, audience):
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

func shares(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
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
	err := readObject(payload, maxClaims, func(name, value string) error {
		var ok bool
		switch name {
		case "iss":
			iss, ok = jsonString(value)
		case "aud":
			aud, ok = readAudience(value)
		case "sub":
			c.subject, ok = jsonString(value)
		case "sid":
			c.sid, ok = jsonString(value)
		case "gen":
			c.generation, ok = jsonInt(value)
		case "amr":
			c.amr, ok = jsonStrings(nil, value)
		case "auth_time":
			c.authTime, ok = jsonTime(value)
		case "iat":
			c.issuedAt, ok = jsonTime(value)
		case "exp":
			c.expiresAt, ok = jsonTime(value)
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
	case !shares(aud, audience):
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

// randomID returns 128 random bits in 22 characters of base64url.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}
