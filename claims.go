package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxClaims is the largest number of members of an object in a payload. It is
// large because payloads are signed.
const maxClaims = 1024

// Claims are the claims of a verified access token. Every request has its own
// copy. Times have a resolution of one second.
type Claims struct {
	Issuer    string
	Audience  []string
	Subject   string // User.ID
	SessionID string
	TokenID   string // random, unique to the token

	// Actor is the ID of the user who acts for Subject (RFC 8693 section 4.1),
	// or "" if nobody does; see SessionOptions.Actor and [NotActing].
	Actor string

	Username string
	Roles    []string
	Scopes   []string
	AMR      []string // authentication methods of the login (RFC 8176)

	IssuedAt  time.Time
	ExpiresAt time.Time
	AuthTime  time.Time // the login

	// SessionExpiresAt is the earliest time at which the session ends if it is
	// not refreshed again. It may end up to three retry windows later.
	SessionExpiresAt time.Time

	created    int64 // session_iat in Unix seconds; 0 if the session was created at AuthTime
	countsFrom int64 // eff_iat in Unix seconds, see accessGrant; 0 if absent
	payload    string
	verifiedAt time.Time
}

// parsedClaims is Claims with inline storage for its lists, so that a request
// needs one allocation for its own copy.
type parsedClaims struct {
	Claims
	notBefore int64 // nbf in Unix seconds; 0 if absent
	lists     [6]string
}

// copyTo copies v to own, lists included.
func (v *parsedClaims) copyTo(own *parsedClaims) {
	own.Claims, own.notBefore = v.Claims, v.notBefore
	space := own.lists[:0]
	for _, list := range [...]*[]string{&own.Audience, &own.Roles, &own.Scopes, &own.AMR} {
		space = setList(list, append(space, *list...), len(space))
	}
}

// setList sets list to space[from:], or to nil if that is empty, and returns
// space.
func setList(list *[]string, space []string, from int) []string {
	if from == len(space) {
		*list = nil
	} else {
		*list = space[from:len(space):len(space)]
	}
	return space
}

// Decode decodes the whole payload of the token into v with encoding/json. Use
// it for the application's own claims. If c comes neither from a verified token
// nor from [Claims.WithExtra], Decode does not change v and returns nil.
func (c *Claims) Decode(v any) error {
	if c.payload == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(c.payload), v); err != nil {
		return fmt.Errorf("auth: decoding claims: %w", err)
	}
	return nil
}

// WithExtra returns a copy of c with claims of the application's own: Decode
// then decodes the payload that a token with the fields of c and User.Extra of
// extra would have. It is for tests of handlers, together with [NewContext].
// Fields of c that are zero are not in the payload.
//
// It is an error if extra could not be User.Extra, if a field is not UTF-8, or if
// c has a payload already. So the claims of a verified token cannot be changed.
func (c *Claims) WithExtra(extra map[string]any) (*Claims, error) {
	if c.payload != "" {
		return nil, errors.New("auth: Claims.WithExtra: the claims have a payload already; WithExtra is for claims that a test creates")
	}
	for _, f := range []struct {
		name   string
		values []string
	}{
		{"Issuer", []string{c.Issuer}}, {"Audience", c.Audience}, {"Subject", []string{c.Subject}}, {"SessionID", []string{c.SessionID}},
		{"TokenID", []string{c.TokenID}}, {"Actor", []string{c.Actor}}, {"Username", []string{c.Username}}, {"Roles", c.Roles}, {"Scopes", c.Scopes}, {"AMR", c.AMR},
	} {
		if slices.ContainsFunc(f.values, func(s string) bool { return !utf8.ValidString(s) }) {
			return nil, fmt.Errorf("auth: Claims.WithExtra: %s must be UTF-8", f.name)
		}
	}
	object, err := marshalExtra(extra)
	if err != nil {
		return nil, fmt.Errorf("auth: Claims.WithExtra: %w", detail{err})
	}
	fake := *c
	fake.payload = string(fake.encode(terms{}, "", object))
	return &fake, nil
}

// encode returns c as the payload of a token of a session with the terms t, without
// the claims that are zero. memoryID is mem_store, or "". extra are the claims of the
// application, each a JSON object or nil.
func (c *Claims) encode(t terms, memoryID string, extra ...[]byte) []byte {
	w := strictjson.NewWriter(make([]byte, 0, 512))
	text := func(name, value string) {
		if value != "" {
			w.String(name, value)
		}
	}
	list := func(name string, values []string) {
		if len(values) > 0 {
			w.Strings(name, values)
		}
	}
	date := func(name string, t time.Time) {
		if !t.IsZero() {
			w.Int(name, t.Unix())
		}
	}
	text("iss", c.Issuer)
	list("aud", c.Audience)
	text("sub", c.Subject)
	text("sid", c.SessionID)
	text("jti", c.TokenID)
	date("iat", c.IssuedAt)
	date("exp", c.ExpiresAt)
	date("auth_time", c.AuthTime)
	date("session_exp", c.SessionExpiresAt)
	if c.countsFrom != 0 {
		w.Int("eff_iat", c.countsFrom)
	}
	text("mem_store", memoryID)
	text("username", c.Username)
	list("roles", c.Roles)
	text("scope", strings.Join(c.Scopes, " "))
	list("amr", c.AMR)
	t.writeTerms(&w, c.AuthTime)
	writeActor(&w, c.Actor)
	for _, object := range extra {
		if object != nil {
			w.Members(object)
		}
	}
	return w.Close()
}

// accessGrant is the content of an access token.
type accessGrant struct {
	issuer     string
	audience   []string
	user       User
	claims     map[string]any // of Config.Claims
	sid        string
	constants  constants
	issuedAt   time.Time // by the clock, so that a verifier does not reject it as issued in the future
	countsFrom time.Time // the time of issue for comparison with revocations; written as eff_iat if it is later than issuedAt
	memoryID   string    // the ID of the MemoryStore that has the session; empty for another store
	expiresAt  time.Time
	sessionEnd time.Time
}

func (g *accessGrant) payload() ([]byte, error) {
	u := &g.user
	if err := checkUser(u); err != nil {
		return nil, err
	}
	c := Claims{
		Issuer: g.issuer, Audience: g.audience, Subject: u.ID, SessionID: g.sid, TokenID: randomID(),
		Username: u.Username, Roles: u.Roles, Scopes: u.Scopes, AMR: g.constants.amr,
		Actor:    g.constants.actor,
		IssuedAt: g.issuedAt, ExpiresAt: g.expiresAt, AuthTime: g.constants.authTime, SessionExpiresAt: g.sessionEnd,
	}
	if from := g.countsFrom.Unix(); from > g.issuedAt.Unix() {
		c.countsFrom = from
	}
	own, err := marshalExtra(u.Extra)
	if err != nil {
		return nil, fmt.Errorf("auth: User.Extra: %w", detail{err})
	}
	if len(g.claims) == 0 {
		return c.encode(g.constants.terms, g.memoryID, own), nil
	}
	more, err := marshalExtra(g.claims)
	if err != nil {
		return nil, fmt.Errorf("auth: Config.Claims: %w", detail{err})
	}
	folded := make(map[string]string, len(u.Extra))
	for name := range u.Extra {
		folded[foldCase(name)] = name
	}
	for _, name := range slices.Sorted(maps.Keys(g.claims)) {
		if other, ok := folded[foldCase(name)]; ok {
			return nil, fmt.Errorf("auth: Config.Claims: %+q is in User.Extra too, as %+q; rename one of them", name, other)
		}
	}
	return c.encode(g.constants.terms, g.memoryID, own, more), nil
}

// reserved are the claim names that have a meaning in an access token, here or
// for other programs. User.Extra must not contain them.
var reserved = [...]string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", // RFC 7519 section 4.1
	"sid", "auth_time", "acr", "amr", "azp", "nonce", // OpenID Connect
	"client_id", "scope", "roles", "groups", "entitlements", "username", // RFC 9068 section 2.2, RFC 7662
	"cnf", "act", "may_act", "events", // RFC 7800, 8693, 8417
	"gen", "session_exp", "eff_iat", "mem_store", "token_type", "typ",
	claimCreated, claimEphemeral, claimIdleTTL, claimSessionTTL,
}

// imitates returns the reserved name that equals name if case is ignored, or
// "". Case is folded as in encoding/json, where U+017F equals s and U+212A
// equals k.
func imitates(name string) string {
	for _, r := range reserved {
		if len(name) >= len(r) && strings.EqualFold(name, r) {
			return r
		}
	}
	return ""
}

// foldCase returns the same text for all names that differ only in case, as
// strings.EqualFold and encoding/json define it.
func foldCase(name string) string {
	return strings.Map(func(c rune) rune {
		least := c
		for next := unicode.SimpleFold(c); next != c; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

// marshalExtra encodes the application's claims. It returns nil if there are none.
//
// encoding/json replaces invalid UTF-8 with U+FFFD, in ways that differ between
// versions of Go. So the names and texts of extra are checked first, and every
// string of the result must be one that package strictjson accepts. The result
// must contain exactly as many U+FFFD as extra. In a value of a type that
// checkText does not know, a U+FFFD of the application cannot be distinguished
// from a replacement, and is refused.
func marshalExtra(extra map[string]any) ([]byte, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	replacements, err := checkText(extra, 0)
	if err != nil {
		return nil, err
	}
	var object []byte
	err = callHook("encoding a value", func() (err error) { // MarshalJSON and MarshalText may panic
		object, err = json.Marshal(extra)
		return err
	})
	if err != nil {
		return nil, unencodable(extra, err)
	}
	// Read it as a verifier does, so that no token is issued that it refuses.
	folded := make(map[string]string, len(extra))
	err = strictjson.Object(string(object), maxClaims, func(name, _ string) error {
		if r := imitates(name); r != "" {
			return fmt.Errorf("%q equals the reserved claim %q, or differs from it only in case; choose another name", name, r)
		}
		if other, ok := folded[foldCase(name)]; ok { // Decode would mistake one for the other
			return fmt.Errorf("%+q and %+q differ only in case; rename one of them", other, name)
		}
		folded[foldCase(name)] = name
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

// unencodable returns err, with which extra cannot be encoded, and adds the name
// of a claim that cannot be encoded on its own.
func unencodable(extra map[string]any, err error) error {
	var panicked *panicError
	if errors.As(err, &panicked) { // its stack names the value
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if _, err := json.Marshal(extra[name]); err != nil {
			return fmt.Errorf("%s: %w", quoted(name), err)
		}
	}
	return err
}

func errNotUTF8() error {
	return fmt.Errorf("%w: a name or value is not UTF-8", strictjson.ErrSyntax)
}

// checkText returns the number of U+FFFD in v. It returns an error if a name or a
// text in v is not UTF-8. It knows the types that encoding/json decodes to, and
// some similar types. It ignores values of other types.
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

// numericTime returns the time of a NumericDate (RFC 7519 section 2) in the years
// 1970 to 9999, rounded down to the second.
func numericTime(value string) (time.Time, bool) {
	n, ok := numericDate(value)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(n, 0).UTC(), true
}

// numericDate is like [numericTime], in Unix seconds.
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

// readAccess reads the claims of an access token, whose signature was checked,
// into c, and checks them as RFC 9068 section 4 requires, except for the times,
// which the caller checks. It returns the claim mem_store, which is only needed
// when a token is verified for the first time.
func readAccess(c *parsedClaims, payload, issuer string, audience []string) (memoryID string, err error) {
	c.payload = payload
	space := c.lists[:0]
	strs := func(list *[]string, value string) (ok bool) {
		grown, ok := strictjson.Strings(space, value)
		if ok {
			space = setList(list, grown, len(space))
		}
		return ok
	}
	err = strictjson.Object(payload, maxClaims, func(name, value string) error {
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
			for word := range strings.SplitSeq(scope, " ") { // the only separator (RFC 6749 section 3.3)
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
		case "mem_store":
			memoryID, ok = strictjson.String(value)
		case claimActor:
			var err error
			c.Actor, _, err = readActor(value)
			return err
		case "gen", "cnf":
			// Only refresh tokens have a generation. A token that is bound to a
			// key (RFC 7800) must not be accepted without a proof of that key.
			return errors.New("unexpected " + name)
		case claimCreated:
			c.created, ok = numericDate(value)
		default:
			return exactName(name)
		}
		if !ok {
			return errors.New(name + " has the wrong type")
		}
		return nil
	})
	if err == nil {
		err = c.check(issuer, audience)
	}
	if err != nil {
		return "", invalidClaims(err)
	}
	return memoryID, nil
}

// invalidClaims returns the error for a payload with the mistake err.
func invalidClaims(err error) error {
	var known *tokenError
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("%w: claims: %w", ErrInvalidToken, err)
}

// unexpectedIssuer returns the error for a token with another iss. Its text
// contains that iss: the signature of the token is valid, so no client has
// chosen it. The same applies to unexpectedAudience.
func unexpectedIssuer(found, want string) error {
	return &tokenError{"claims: unexpected iss " + quoted(found) + ", want " + quoted(want), "iss", "the token is of another issuer"}
}

func unexpectedAudience(found, want []string) error {
	return &tokenError{
		fmt.Sprintf("claims: unexpected aud %s, want one of %s", quotedList(found), quotedList(want)), "aud", "the token is for another audience",
	}
}

// quotedList returns at most four of the strings in quotes.
func quotedList(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i == 4 {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(s))
	}
	return "[" + b.String() + "]"
}

func (c *Claims) check(issuer string, audience []string) error {
	if err := checkService(c.Issuer, issuer, c.Audience, audience); err != nil {
		return err
	}
	switch {
	case c.Subject == "", c.SessionID == "", c.TokenID == "":
		return errors.New("sub, sid or jti is missing")
	case c.IssuedAt.IsZero(), c.ExpiresAt.IsZero(), c.AuthTime.IsZero(), c.SessionExpiresAt.IsZero():
		return errors.New("iat, exp, auth_time or session_exp is missing")
	}
	return nil
}

// checkService returns an error unless a token with the claims iss and aud is from
// the issuer and for one of audience.
func checkService(iss, issuer string, aud, audience []string) error {
	switch {
	case iss != issuer:
		return unexpectedIssuer(iss, issuer)
	case !intersects(aud, audience):
		return unexpectedAudience(aud, audience)
	}
	return nil
}

// exactName returns an error if name differs from a reserved name only in case:
// another program may take it for the reserved one.
func exactName(name string) error {
	if r := imitates(name); r != "" && r != name {
		return errors.New("a name differs from " + r + " only in case")
	}
	return nil
}

func readAudience(value string) ([]string, bool) {
	if one, ok := strictjson.String(value); ok {
		return []string{one}, true
	}
	return strictjson.Strings(nil, value)
}

// newerToken is the error for a refresh or one-time token with a claim that this version
// does not know. Its value is the name of the claim. A newer version has issued
// the token. So the error is ErrUnavailable, and a rolling deployment does not
// sign users out.
type newerToken string

func (n newerToken) Error() string {
	return fmt.Sprintf("%v: the token has the claim %q, which this version does not know", ErrUnavailable, string(n))
}

func (n newerToken) Unwrap() error { return ErrUnavailable }

// maxClaimName is the largest number of bytes of a claim name in an error.
const maxClaimName = 32
