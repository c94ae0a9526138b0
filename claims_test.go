package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

type marshals string

func (m marshals) MarshalJSON() ([]byte, error) { return []byte(m), nil }

type broken struct{}

func (broken) MarshalJSON() ([]byte, error) { return nil, errors.New("broken marshaler") }

// panics is a value that cannot be encoded, because its method panics.
type panics struct{ value any }

func (p panics) MarshalJSON() ([]byte, error) { panic(p.value) }

// panicsAsText is such a value with another method.
type panicsAsText struct{ value any }

func (p panicsAsText) MarshalText() ([]byte, error) { panic(p.value) }

// cyclic is a value that contains itself.
type cyclic struct{ Self *cyclic }

// requireExtraRefused checks that a login and a refresh with these claims fail,
// that no session is created and that no refresh token is spent.
func requireExtraRefused(t *testing.T, fx *fixture, extra map[string]any, text string) {
	t.Helper()
	tokens := fx.login(t)
	created, rotated := fx.store.count("Create"), fx.store.count("Rotate")
	fx.events.take("")
	fx.users.change("u1", func(u *auth.User) { u.Extra = extra })
	defer fx.users.change("u1", func(u *auth.User) { u.Extra = nil })
	none, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorContains(t, err, text)
	require.Zero(t, none)
	_, err = fx.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.ErrorContains(t, err, text)
	_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorContains(t, err, text)
	for _, other := range []error{auth.ErrInvalidCredentials, auth.ErrInvalidToken, auth.ErrUnavailable} {
		require.NotErrorIs(t, err, other)
	}
	require.Equal(t, created, fx.store.count("Create"), "no session may be created")
	require.Equal(t, rotated, fx.store.count("Rotate"), "no token may be spent")
	require.Equal(t, 3, len(fx.events.take(auth.EventFault)))
	require.NoError(t, fx.Logout(context.Background(), tokens.Refresh))
}

func TestExtra_RefusesReservedNames(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	names := []string{
		"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "auth_time", "acr", "amr", "azp", "nonce", "client_id", "scope",
		"roles", "groups", "entitlements",
		"username", "cnf", "act", "may_act", "events", "gen", "session_exp", "eff_iat", "mem_store", "token_type", "typ",
	}
	for _, name := range names {
		twins := []string{
			name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:len(name)-1] + strings.ToUpper(name[len(name)-1:]),
			strings.ReplaceAll(name, "s", "\u017f"), strings.ReplaceAll(name, "k", "\u212a"),
		}
		slices.Sort(twins)
		for _, twin := range slices.Compact(twins) {
			fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"tenant": 1, twin: "x"} })
			_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.EqualError(t, err, fmt.Sprintf("auth: User.Extra: %q equals the reserved claim %q, or differs from it only in case; choose another name", twin, name))
			require.Zero(t, fx.store.count("Create"), twin)
		}
	}
	fx.users.change("u1", func(u *auth.User) { u.Extra = nil })
	requireExtraRefused(t, fx, map[string]any{"Sub": "u2"}, `"Sub" equals the reserved claim "sub"`)
	for _, near := range []string{"subject", "sub_", " sub", "x_exp", "rolesy", "s\u00fcb", "role", "s", ""} {
		fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{near: true} })
		_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.NoError(t, err, near)
	}
}

func TestExtra_RefusesInvalidValues(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	deep := any(1)
	for range 32 {
		deep = []any{deep}
	}
	loop := &cyclic{}
	loop.Self = loop
	for name, c := range map[string]struct {
		value any
		text  string
	}{
		"a duplicate name":      {marshals(`{"a":1,"a":2}`), "duplicate name"},
		"a duplicate by escape": {marshals(`{"a":1,"\u0061":2}`), "duplicate name"},
		"nested duplicates":     {map[string]any{"x": []any{marshals(`{"b":1,"b":2}`)}}, "duplicate name"},
		"a raw duplicate":       {json.RawMessage(`{"a":{},"a":{}}`), "duplicate name"},
		"invalid UTF-8":         {json.RawMessage("\"\xff\""), "invalid JSON object"},
		"a lone surrogate name": {json.RawMessage(`{"\ud800":1}`), "invalid JSON object"},
		"too deep":              {deep, "nested too deeply"},
		"not JSON":              {marshals(`{"a":`), "User.Extra"},
		"two values":            {marshals(`1,"sub":"u2"`), "User.Extra"},
		"an injected member":    {json.RawMessage(`1},"sub":"u2","x":{"a":1`), "User.Extra"},
		"a failing marshaler":   {broken{}, "broken marshaler"},
		"a channel":             {make(chan int), "unsupported type"},
		"not a number":          {math.NaN(), "unsupported value"},
		"too much":              {strings.Repeat("x", 7000), "the limit is 8192"},
		"far too much":          {strings.Repeat("x", 1<<20), "the limit is 8192"},
		"a function":            {func() {}, "unsupported type"},
		"a complex number":      {1i, "unsupported type"},
		"infinity":              {math.Inf(-1), "unsupported value"},
		"a cycle":               {loop, "encountered a cycle"},
		"a number with a word":  {json.Number("1 or 2"), "1 or 2"},
	} {
		t.Log(name)
		requireExtraRefused(t, fx, map[string]any{"tenant": c.value}, c.text)
	}
	requireExtraRefused(t, fx, map[string]any{"\xff": 1}, "invalid JSON object")
}

// Decode would set a field from either of two such names.
func TestExtra_RefusesNamesThatDifferOnlyInCase(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for text, names := range map[string][]string{
		`"Tenant" and "tenant" differ only in case`:               {"tenant", "Tenant", "other"},
		`"K" and "\u212a" differ only in case`:                    {"\u212a", "K"},
		`"KEY" and "\u212aey" differ only in case`:                {"KEY", "\u212aey"},
		`"class" and "cla\u017f\u017f" differ only in case`:       {"class", "cla\u017f\u017f"},
		`"\u00c9t\u00e9" and "\u00e9t\u00e9" differ only in case`: {"\u00c9t\u00e9", "\u00e9t\u00e9"},
		`"\u03c2" and "\u03c3" differ only in case`:               {"\u03c2", "\u03c3"},
		`"ORG_ID" and "org_id" differ only in case`:               {"org_id", "ORG_ID"},
		`"\U00010400" and "\U00010428" differ only in case`:       {"\U00010400", "\U00010428"},
	} {
		extra := map[string]any{}
		for i, name := range names {
			extra[name] = i
		}
		requireExtraRefused(t, fx, extra, "auth: User.Extra: "+text)
	}
	// The members of a value are the application's own business, and so are
	// names that encoding/json does not consider equal.
	extra := map[string]any{"own": map[string]any{"a": 1, "A": 2}, "org_id": 1, "orgid": 2, "ss": 3, "\u00df": 4, "i": 5, "\u0131": 6, "\u0130": 7}
	fx.users.change("u1", func(u *auth.User) { u.Extra = extra })
	c, err := fx.Verify(context.Background(), fx.login(t).Access)
	require.NoError(t, err)
	got := map[string]any{}
	require.NoError(t, c.Decode(&got))
	for name := range extra {
		require.Contains(t, got, name)
	}
}

// A value that panics costs its user the token, and nobody else anything.
func TestExtra_ContainsPanicsOfItsValues(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	const hidden = "the secret that a value panics with"
	for name, value := range map[string]any{
		"value": panics{hidden}, "pointer": &panics{hidden}, "in a list": []any{1, panics{hidden}}, "in a struct": struct{ X any }{panics{hidden}},
		"text": panicsAsText{hidden}, "key": map[panicsAsText]int{{hidden}: 1}, "an error": panics{errors.New(hidden)}, "a struct": panics{texts{Name: hidden}},
	} {
		requireExtraRefused(t, fx, map[string]any{"x": value}, "auth: User.Extra: encoding a value panicked with a ")
		fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": value} })
		_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.Error(t, err, name)
		secrets := needles(map[string][]byte{"panic": []byte(hidden)})
		requireNoSecret(t, "error", prints(err, verbs...), secrets)
		r := send(t, fx.LoginHandler(), "POST", "/", reqJSON(goodLogin))
		r.requireRefused(t, 500, "server_error", "")
		requireNoSecret(t, "response", map[string]string{"body": r.body, "header": fmt.Sprint(r.header)}, secrets)
		require.NotContains(t, r.body, "goroutine")
		for _, e := range fx.events.take(auth.EventFault) {
			requireNoSecret(t, "event", prints(e, verbs...), secrets)
		}
		fx.users.change("u1", func(u *auth.User) { u.Extra = nil })
		fx.login(t)
	}
	// The text of a run-time error is reported, because it contains no values.
	var none *texts
	requireExtraRefused(t, fx, map[string]any{"x": nilPanics{none}}, "encoding a value panicked: runtime error: invalid memory address or nil pointer dereference")
}

// nilPanics is a value whose method uses a nil pointer.
type nilPanics struct{ *texts }

func (n nilPanics) MarshalJSON() ([]byte, error) { return []byte(n.Name), nil }

// named and texts are types of an application. They contain strings that only
// encoding/json finds.
type named string

type texts struct {
	Name string
	More map[named]any
}

type asText string

func (a asText) MarshalText() ([]byte, error) { return []byte(a), nil }

// TestExtra_RefusesInvalidUTF8 holds for both versions of encoding/json.
func TestExtra_RefusesInvalidUTF8(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	const want = "invalid JSON object: a name or value is not UTF-8"
	for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "ok \uFFFD \xff"} {
		for name, extra := range map[string]map[string]any{
			"name": {bad: 1}, "value": {"x": bad}, "list": {"x": []string{"good", bad}}, "list of any": {"x": []any{1, bad}},
			"nested name": {"x": map[string]any{bad: 1}}, "nested value": {"x": map[string]any{"y": bad}},
			"map of text": {"x": map[string]string{"y": bad}}, "name in a map of text": {"x": map[string]string{bad: "y"}},
			"deep": {"x": []any{[]any{map[string]any{"y": []map[string]any{{"z": bad}}}}}},
			"raw":  {"x": json.RawMessage(`"` + bad + `"`)}, "raw name": {"x": json.RawMessage(`{"` + bad + `":1}`)},
		} {
			t.Log(name)
			requireExtraRefused(t, fx, extra, want)
		}
		// encoding/json may refuse these values itself.
		for _, value := range []any{
			named(bad), []named{named(bad)}, texts{Name: bad}, &texts{More: map[named]any{named(bad): 1}}, map[named]int{named(bad): 1},
			asText(bad), map[asText]int{asText(bad): 1}, marshals(`"` + bad + `"`), marshals(`{"` + bad + `":1}`), struct{ X any }{bad},
		} {
			requireExtraRefused(t, fx, map[string]any{"x": value}, "auth: User.Extra: ")
		}
	}
	for _, escape := range []string{`\ud800`, `\uDFFF`, `\ud800x`, `\ud800\u0041`, `\ufffd`} { // not text, or a replacement character that was not in the value
		for _, value := range []any{
			json.RawMessage(`"` + escape + `"`), json.RawMessage(`{"y":["` + escape + `"]}`),
			json.RawMessage(`{"y":{"` + escape + `":1}}`), marshals(`"` + escape + `"`),
		} {
			requireExtraRefused(t, fx, map[string]any{"x": value}, "auth: User.Extra: ")
		}
	}
	requireExtraRefused(t, fx, map[string]any{"x": named("a broken name \uFFFD")}, want)
	self := map[string]any{}
	self["self"] = self
	requireExtraRefused(t, fx, self, "nested too deeply")

	// U+FFFD is accepted if the value itself contains it.
	for name, value := range map[string]any{
		"a broken name \uFFFD": "x", "list": []any{"\uFFFD", []string{"\uFFFD\uFFFD"}, map[string]string{"\uFFFD": "\uFFFD"}},
		"raw": json.RawMessage("\"\uFFFD\""),
		"others": []any{
			named("Zo\u00eb"), texts{Name: "\U0001F600<&>\u2028"}, asText("\u00e9"), json.RawMessage(`"\ud83d\ude00 \\ufffd"`),
			[]byte("\xff"), 1.5, json.Number("7"), nil, true,
		},
	} {
		fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{name: value} })
		c, err := fx.Verify(context.Background(), fx.login(t).Access)
		require.NoError(t, err, name)
		var got map[string]any
		require.NoError(t, c.Decode(&got))
		given, err := json.Marshal(value)
		require.NoError(t, err)
		back, err := json.Marshal(got[name])
		require.NoError(t, err)
		require.JSONEq(t, string(given), string(back), name)
	}
}

func TestExtra_IsDecodedByDecode(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	type tenant struct {
		ID    int64    `json:"id"`
		Names []string `json:"names"`
	}
	extra := map[string]any{
		"tenant": tenant{1 << 62, []string{"<b>&amp;</b>", "Zoë 😀 \u2028\u2029", "\x00\x1f\"\\/", ""}}, "null": nil, "on": true,
		"é<>": "1", "empty": map[string]any{}, "at": time.Unix(0, 0).UTC(),
		"raw": json.RawMessage(" { \"a\" : [ 1.50 ] } "), "bytes": []byte("xyz"),
	}
	fx.users.change("u1", func(u *auth.User) { u.Extra = extra })
	c, err := fx.Verify(context.Background(), fx.login(t).Access)
	require.NoError(t, err)
	var got struct {
		Tenant tenant          `json:"tenant"`
		On     bool            `json:"on"`
		Odd    string          `json:"é<>"`
		Raw    json.RawMessage `json:"raw"`
		Bytes  []byte          `json:"bytes"`
		Sub    string          `json:"sub"`
	}
	require.NoError(t, c.Decode(&got))
	require.Equal(t, extra["tenant"], got.Tenant)
	require.True(t, got.On)
	require.Equal(t, "1", got.Odd)
	require.JSONEq(t, `{"a":[1.50]}`, string(got.Raw))
	require.Equal(t, []byte("xyz"), got.Bytes)
	require.Equal(t, "u1", got.Sub, "Decode must see the whole payload")

	var all map[string]any
	require.NoError(t, c.Decode(&all))
	require.Contains(t, all, "null")
	var wrong struct {
		Tenant int `json:"tenant"`
	}
	require.ErrorContains(t, c.Decode(&wrong), "auth: decoding claims: ")
	untouched := tenant{ID: 7}
	require.NoError(t, (&auth.Claims{Subject: "made by a test"}).Decode(&untouched))
	require.Equal(t, tenant{ID: 7}, untouched)
}

// A handler that a test calls with such claims sees what a token would contain.
func TestWithExtra_DecodesAsTheClaimsOfAToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	extra := map[string]any{
		"tenant": "acme", "big": int64(1)<<62 + 1, "ratio": 1.5, "when": time.Unix(0, 0).UTC(), "list": []string{"a", "<b>"}, "null": nil,
		"plan": map[string]any{"Seats": 3}, "raw": json.RawMessage(`{"a":[1.50]}`), "é": "\u2028",
	}
	fx.users.change("u1", func(u *auth.User) { u.Extra = extra })
	verified, err := fx.Verify(context.Background(), fx.login(t).Access)
	require.NoError(t, err)
	bare := &auth.Claims{
		Issuer: verified.Issuer, Audience: verified.Audience, Subject: verified.Subject, SessionID: verified.SessionID, TokenID: verified.TokenID,
		Username: verified.Username, Roles: verified.Roles, Scopes: verified.Scopes, AMR: verified.AMR,
		IssuedAt: verified.IssuedAt, ExpiresAt: verified.ExpiresAt, AuthTime: verified.AuthTime, SessionExpiresAt: verified.SessionExpiresAt,
	}
	fake, err := bare.WithExtra(extra)
	require.NoError(t, err)
	require.NotSame(t, bare, fake)
	type own struct {
		TENANT string
		Big    int64
		Ratio  float64
		When   time.Time
		List   []string
		Plan   struct{ SEATS int }
		Raw    json.RawMessage
		Sub    string
		Roles  []string
		Exp    int64
	}
	for _, into := range []func() any{
		func() any { return new(map[string]any) }, func() any { return new(own) }, func() any { return new(map[string]json.RawMessage) },
	} {
		want, got := into(), into()
		require.NoError(t, verified.Decode(want))
		require.NoError(t, fake.Decode(got))
		require.Equal(t, want, got)
	}
	require.Equal(t, verified.Decode(new(int)).Error(), fake.Decode(new(int)).Error())

	// The fields stay as the test has set them. Those that are zero are not in
	// the payload.
	few, err := (&auth.Claims{Subject: "u1", Roles: []string{"admin"}, Scopes: []string{"a", "b"}}).WithExtra(map[string]any{"tenant": "acme"})
	require.NoError(t, err)
	require.Equal(t, "u1", few.Subject)
	require.Equal(t, []string{"admin"}, few.Roles)
	var all map[string]any
	require.NoError(t, few.Decode(&all))
	require.Equal(t, map[string]any{"sub": "u1", "roles": []any{"admin"}, "scope": "a b", "tenant": "acme"}, all)
	none, err := new(auth.Claims).WithExtra(nil)
	require.NoError(t, err)
	all = nil
	require.NoError(t, none.Decode(&all))
	require.Empty(t, all)

	// Guards see a fake login by the real clock, as without WithExtra.
	recent, err := (&auth.Claims{AuthTime: time.Now()}).WithExtra(map[string]any{"tenant": "acme"})
	require.NoError(t, err)
	require.NoError(t, auth.Fresh(time.Minute)(context.Background(), recent))
}

func TestWithExtra_RefusesWhatATokenCannotContain(t *testing.T) {
	t.Parallel()
	for text, extra := range map[string]map[string]any{
		`"sub" equals the reserved claim "sub", or differs from it only in case`:     {"sub": "u2"},
		`"ROLES" equals the reserved claim "roles", or differs from it only in case`: {"ROLES": []string{"admin"}},
		`"Tenant" and "tenant" differ only in case`:                                  {"tenant": 1, "Tenant": 2},
		`encoding a value panicked with a string`:                                    {"x": panics{"x"}},
		`"x": json: unsupported type: chan int`:                                      {"a": 1, "x": make(chan int)},
		`a name or value is not UTF-8`:                                               {"x": "\xff"},
		`duplicate name`:                                                             {"x": json.RawMessage(`{"a":1,"a":2}`)},
	} {
		c, err := (&auth.Claims{Subject: "u1"}).WithExtra(extra)
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, "auth: Claims.WithExtra: ")
		require.Nil(t, c)
	}
	for name, c := range map[string]*auth.Claims{
		"Issuer": {Issuer: "\xff"}, "Audience": {Audience: []string{"a", "\xff"}}, "Subject": {Subject: "\xff"}, "SessionID": {SessionID: "\xff"},
		"TokenID": {TokenID: "\xff"}, "Username": {Username: "\xff"}, "Roles": {Roles: []string{"\xff"}}, "Scopes": {Scopes: []string{"\xff"}},
		"AMR": {AMR: []string{"\xff"}},
	} {
		_, err := c.WithExtra(nil)
		require.EqualError(t, err, "auth: Claims.WithExtra: "+name+" must be UTF-8")
	}

	// Claims of a token cannot be changed, and it cannot be done twice.
	fx := newFixture(t)
	verified, err := fx.Verify(context.Background(), fx.login(t).Access)
	require.NoError(t, err)
	fake, err := (&auth.Claims{}).WithExtra(map[string]any{"tenant": "acme"})
	require.NoError(t, err)
	for _, c := range []*auth.Claims{verified, fake} {
		_, err := c.WithExtra(map[string]any{"tenant": "other"})
		require.EqualError(t, err, "auth: Claims.WithExtra: the claims have a payload already; WithExtra is for claims that a test creates")
	}
}

func TestVerify_SplitsScopesAtSpaces(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	f := newForger("access", fx.clock.Now())
	c, err := fx.Verify(context.Background(), f.signClaims(f.claims.with("scope", `" read  pay\u00a0admin\tx "`)))
	require.NoError(t, err)
	require.Equal(t, []string{"read", "pay\u00a0admin\tx"}, c.Scopes)
}
