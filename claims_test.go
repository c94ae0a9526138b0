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
			require.EqualError(t, err, fmt.Sprintf("auth: User.Extra: %q equals the reserved claim %q, or differs from it only in case", twin, name))
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
	} {
		t.Log(name)
		requireExtraRefused(t, fx, map[string]any{"tenant": c.value}, c.text)
	}
	requireExtraRefused(t, fx, map[string]any{"\xff": 1}, "invalid JSON object")
}

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

func TestVerify_SplitsScopesAtSpaces(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	f := newForger("access", fx.clock.Now())
	c, err := fx.Verify(context.Background(), f.signClaims(f.claims.with("scope", `" read  pay\u00a0admin\tx "`)))
	require.NoError(t, err)
	require.Equal(t, []string{"read", "pay\u00a0admin\tx"}, c.Scopes)
}
