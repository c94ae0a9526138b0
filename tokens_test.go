package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// takeApart decodes a token without checking it.
func takeApart(t testing.TB, token string) (header, payload map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, to := range []*map[string]any{&header, &payload} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, to))
	}
	return header, payload
}

func seconds(at time.Time) float64 { return float64(at.Unix()) }

func TestLogin_MintsExactlyThis(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys, func(c *auth.Config) { c.Audience = []string{audience, "https://other.example.com"} })
	b.clock.advance(123456789 * time.Nanosecond)
	now := b.clock.Now()
	tokens, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{Name: "Ada's phone", Data: []byte("app data"), Device: auth.Device{UserAgent: "curl/8", IP: netip.MustParseAddr("192.0.2.1")}})
	require.NoError(t, err)

	header, payload := takeApart(t, tokens.Access)
	require.Equal(t, map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": auth.HS256(accessSecret).ID()}, header)
	jti, sid := payload["jti"].(string), payload["sid"].(string)
	require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, jti)
	require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, sid)
	require.NotEqual(t, jti, sid)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience, "https://other.example.com"}, "sub": "u1", "sid": sid, "jti": jti,
		"iat": seconds(now), "exp": seconds(now.Add(15 * time.Minute)), "auth_time": seconds(now), "session_exp": seconds(now.Add(7 * 24 * time.Hour)),
		"username": "ada", "roles": []any{"admin", "user"}, "scope": "pay read", "amr": []any{"pwd"},
	}, payload)

	header, payload = takeApart(t, tokens.Refresh)
	require.Equal(t, map[string]any{"alg": "HS256", "typ": "rt+jwt", "kid": auth.HS256(refreshSecret).ID()}, header)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience, "https://other.example.com"}, "sub": "u1", "sid": sid, "gen": 1.0,
		"auth_time": seconds(now), "iat": seconds(now), "exp": seconds(now.Add(7 * 24 * time.Hour)), "amr": []any{"pwd"},
	}, payload)

	require.Equal(t, auth.Tokens{
		Access: tokens.Access, AccessExpiresAt: now.Add(15 * time.Minute).Truncate(time.Second), Refresh: tokens.Refresh, RefreshExpiresAt: now.Add(7 * 24 * time.Hour).Truncate(time.Second),
		Subject: "u1", SessionID: sid,
	}, tokens)

	// The claims of the application are those of the token.
	c, err := b.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	second := now.Truncate(time.Second)
	require.Equal(t, []any{issuer, []string{audience, "https://other.example.com"}, "u1", sid, jti, "ada", []string{"admin", "user"}, []string{"pay", "read"}, []string{"pwd"}},
		[]any{c.Issuer, c.Audience, c.Subject, c.SessionID, c.TokenID, c.Username, c.Roles, c.Scopes, c.AMR})
	require.Equal(t, []time.Time{second, second.Add(15 * time.Minute), second, second.Add(7 * 24 * time.Hour)}, []time.Time{c.IssuedAt, c.ExpiresAt, c.AuthTime, c.SessionExpiresAt})
}

func TestRefresh_MintsExactlyThis(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys)
	first, err := b.StartSession(context.Background(), "u2", auth.SessionOptions{AMR: []string{"webauthn", "mfa"}})
	require.NoError(t, err)
	login := b.clock.Now()
	b.clock.advance(time.Hour)
	now := b.clock.Now()
	b.users.change("u2", func(u *auth.User) { u.Username, u.Roles, u.Scopes = "", nil, nil })
	second, err := b.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	_, payload := takeApart(t, second.Access)
	jti := payload["jti"]
	_, before := takeApart(t, first.Access)
	require.NotEqual(t, before["jti"], jti, "one for each token")
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience}, "sub": "u2", "sid": first.SessionID, "jti": jti, "iat": seconds(now), "exp": seconds(now.Add(15 * time.Minute)),
		"auth_time": seconds(login), "session_exp": seconds(now.Add(7*24*time.Hour - 30*time.Second)), "amr": []any{"webauthn", "mfa"},
	}, payload, "nothing of the user's is copied from the old token, all of the session's is")
	_, payload = takeApart(t, second.Refresh)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience}, "sub": "u2", "sid": first.SessionID, "gen": 2.0,
		"auth_time": seconds(login), "iat": seconds(now), "exp": seconds(now.Add(7 * 24 * time.Hour)), "amr": []any{"webauthn", "mfa"},
	}, payload)
}

func TestTokens_CarryNothingThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tokens, err := b.Login(context.Background(), "ada@example.com", pass, auth.SessionOptions{Name: "Ada's phone", Data: []byte("app data"), Device: auth.Device{UserAgent: "curl/8", IP: netip.MustParseAddr("192.0.2.1")}})
	require.NoError(t, err)
	for _, token := range []string{tokens.Access, tokens.Refresh} {
		header, payload := takeApart(t, token)
		text := fmt.Sprint(header, payload)
		for _, private := range []string{"@", passHash, "argon2", pass, "phone", "app data", "curl", "192.0.2.1", string(secret)} {
			require.NotContains(t, text, private)
		}
	}
	_, payload := takeApart(t, tokens.Refresh)
	for _, name := range []string{"username", "roles", "scope", "jti"} {
		require.NotContains(t, payload, name, "claims of the user are not in the refresh token")
	}
}

func TestTokens_GolangJWTVerifiesThem(t *testing.T) {
	t.Parallel()
	long := []byte("a secret that is long enough for every hash there is, " + "sixty-four")
	long2 := append([]byte("2"), long...)
	for name, make := range map[string]func([]byte) auth.Key{"HS256": auth.HS256, "HS384": auth.HS384, "HS512": auth.HS512} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(c *auth.Config) {
				c.Secrets, c.AccessKeys, c.RefreshKeys = nil, auth.Keys{make(long)}, auth.Keys{make(long2)}
			})
			tokens := b.login(t)
			parser := jwt.NewParser(jwt.WithValidMethods([]string{name}), jwt.WithStrictDecoding(), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(b.clock.Now))
			for token, secret := range map[string][]byte{tokens.Access: long, tokens.Refresh: long2} {
				claims := jwt.RegisteredClaims{}
				_, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return secret, nil })
				require.NoError(t, err)
				require.Equal(t, "u1", claims.Subject)
				_, err = parser.Parse(token, func(*jwt.Token) (any, error) { return append(slices.Clone(secret), 'x'), nil })
				require.ErrorIs(t, err, jwt.ErrTokenSignatureInvalid)
			}
			// Our own way round.
			c, err := b.Verify(context.Background(), tokens.Access)
			require.NoError(t, err)
			require.Equal(t, tokens.SessionID, c.SessionID)
			_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
		})
	}
}

func TestVerify_AcceptsTokensOfGolangJWT(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys)
	now := b.clock.Now()
	claims := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": issuer, "aud": audience, "sub": "of another issuer's making", "sid": "s", "jti": "j", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
			"auth_time": now.Unix(), "session_exp": now.Add(time.Hour).Unix(), "scope": "read  pay", "roles": []string{"user"}, "tenant": "t1",
		}
	}
	sign := func(m jwt.SigningMethod, typ string, c jwt.MapClaims) string {
		token := jwt.NewWithClaims(m, c)
		token.Header["typ"] = typ
		s, err := token.SignedString(accessSecret)
		require.NoError(t, err)
		return s
	}
	c, err := b.Verify(context.Background(), sign(jwt.SigningMethodHS256, "at+jwt", claims()))
	require.NoError(t, err)
	require.Equal(t, "of another issuer's making", c.Subject)
	require.Equal(t, []string{"read", "pay"}, c.Scopes)
	require.Equal(t, []string{"user"}, c.Roles)
	require.Equal(t, now.Truncate(time.Second).Add(time.Minute), c.ExpiresAt)

	_, err = b.Verify(context.Background(), sign(jwt.SigningMethodHS256, "JWT", claims()))
	require.ErrorIs(t, err, auth.ErrInvalidToken, "golang-jwt's own typ")
	_, err = b.Verify(context.Background(), sign(jwt.SigningMethodHS384, "at+jwt", claims()))
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	none := jwt.NewWithClaims(jwt.SigningMethodNone, claims())
	none.Header["typ"] = "at+jwt"
	token, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	_, err = b.Verify(context.Background(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

// nodes makes several Authenticators of one store and one clock.
func nodes(t *testing.T, n int, change func(i int, c *auth.Config)) []*bench {
	store, c, u := auth.NewMemoryStore(), newClock(), newUsers()
	var list []*bench
	for i := range n {
		b := newBench(t, func(config *auth.Config) {
			config.Store, config.Now, config.Users = store, c.Now, u
			change(i, config)
		})
		b.clock, b.users = c, u
		list = append(list, b)
	}
	return list
}

func TestSecrets_AreRotated(t *testing.T) {
	t.Parallel()
	fresh, older := []byte("the new secret, of thirty-two bytes or more"), []byte("the old secret, of thirty-two bytes or more")
	for name, set := range map[string]func(c *auth.Config, secrets ...[]byte){
		"Secrets": func(c *auth.Config, secrets ...[]byte) { c.Secrets = secrets },
		"keys": func(c *auth.Config, secrets ...[]byte) {
			c.Secrets = nil
			for _, s := range secrets {
				c.AccessKeys = append(c.AccessKeys, auth.HS256(append([]byte("access"), s...)))
				c.RefreshKeys = append(c.RefreshKeys, auth.HS256(append([]byte("refresh"), s...)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := nodes(t, 3, func(i int, c *auth.Config) {
				set(c, [][][]byte{{older}, {fresh, older}, {fresh}}[i]...)
			})
			before, during, after := list[0], list[1], list[2]
			old := before.login(t)
			_, err := during.Verify(context.Background(), old.Access)
			require.NoError(t, err, "all verify")
			_, err = after.Verify(context.Background(), old.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken, "a secret that was dropped")
			_, err = after.Refresh(context.Background(), old.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			require.NoError(t, after.Logout(context.Background(), old.Refresh, old.Access), "a token that cannot be read ends nothing")

			moved, err := during.Refresh(context.Background(), old.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
			_, err = after.Verify(context.Background(), moved.Access)
			require.NoError(t, err, "the first signs")
			_, err = after.Refresh(context.Background(), moved.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
			_, err = before.Verify(context.Background(), moved.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
		})
	}
}

func TestRefresh_NodesOfOneSecretGiveTheSameToken(t *testing.T) {
	t.Parallel()
	list := nodes(t, 2, func(int, *auth.Config) {})
	first := list[0].login(t)
	list[0].clock.advance(1234 * time.Millisecond)
	one, err := list[0].Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	list[0].clock.advance(4321 * time.Millisecond)
	two, err := list[1].Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, one.Refresh, two.Refresh)
	require.Equal(t, one.RefreshExpiresAt, two.RefreshExpiresAt)
	require.NotEqual(t, one.Access, two.Access)
}

type marshals string

func (m marshals) MarshalJSON() ([]byte, error) { return []byte(m), nil }

type broken struct{}

func (broken) MarshalJSON() ([]byte, error) { return nil, errors.New("broken of a test") }

// refusesExtra holds: with such claims neither a login nor a refresh goes
// through, nothing is created and nothing is spent.
func refusesExtra(t *testing.T, b *bench, extra map[string]any, text string) {
	t.Helper()
	tokens := b.login(t)
	created, rotated := b.store.count("Create"), b.store.count("Rotate")
	b.events.take("")
	b.users.change("u1", func(u *auth.User) { u.Extra = extra })
	defer b.users.change("u1", func(u *auth.User) { u.Extra = nil })
	none, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorContains(t, err, text)
	require.Zero(t, none)
	_, err = b.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.ErrorContains(t, err, text)
	_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorContains(t, err, text)
	for _, other := range []error{auth.ErrInvalidCredentials, auth.ErrInvalidToken, auth.ErrUnavailable} {
		require.NotErrorIs(t, err, other)
	}
	require.Equal(t, created, b.store.count("Create"), "nothing was created")
	require.Equal(t, rotated, b.store.count("Rotate"), "nothing was spent")
	require.Equal(t, 3, len(b.events.take(auth.EventFault)))
	require.NoError(t, b.Logout(context.Background(), tokens.Refresh))
}

func TestExtra_NeverImitatesAReservedName(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	names := []string{
		"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "auth_time", "acr", "amr", "azp", "nonce", "client_id", "scope", "roles", "groups", "entitlements",
		"username", "cnf", "act", "may_act", "events", "gen", "session_exp", "eff_iat", "token_type", "typ",
	}
	for _, name := range names {
		twins := []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:len(name)-1] + strings.ToUpper(name[len(name)-1:]), strings.ReplaceAll(name, "s", "\u017f"), strings.ReplaceAll(name, "k", "\u212a")}
		slices.Sort(twins)
		for _, twin := range slices.Compact(twins) {
			b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"tenant": 1, twin: "x"} })
			_, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.EqualError(t, err, fmt.Sprintf("auth: User.Extra: %q is, or imitates, the reserved claim %q", twin, name))
			require.Zero(t, b.store.count("Create"), twin)
		}
	}
	b.users.change("u1", func(u *auth.User) { u.Extra = nil })
	refusesExtra(t, b, map[string]any{"Sub": "u2"}, `"Sub" is, or imitates, the reserved claim "sub"`)
	for _, near := range []string{"subject", "sub_", " sub", "x_exp", "rolesy", "s\u00fcb", "role", "s", ""} {
		b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{near: true} })
		_, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.NoError(t, err, near)
	}
}

func TestExtra_RefusesWhatNoVerifierShouldRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
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
		"bytes that no UTF-8":   {json.RawMessage("\"\xff\""), "invalid JSON object"},
		"a lone surrogate name": {json.RawMessage(`{"\ud800":1}`), "invalid JSON object"},
		"too deep":              {deep, "nested too deeply"},
		"not JSON":              {marshals(`{"a":`), "User.Extra"},
		"two values":            {marshals(`1,"sub":"u2"`), "User.Extra"},
		"an injected member":    {json.RawMessage(`1},"sub":"u2","x":{"a":1`), "User.Extra"},
		"a failing marshaler":   {broken{}, "broken of a test"},
		"a channel":             {make(chan int), "unsupported type"},
		"not a number":          {math.NaN(), "unsupported value"},
		"too much":              {strings.Repeat("x", 7000), "over the limit of 8192"},
	} {
		t.Log(name)
		refusesExtra(t, b, map[string]any{"tenant": c.value}, c.text)
	}
	refusesExtra(t, b, map[string]any{"\xff": 1}, "invalid JSON object")
}

// named and texts are types of an application, in which encoding/json finds
// texts that nothing else can see.
type named string

type texts struct {
	Name string
	More map[named]any
}

type asText string

func (a asText) MarshalText() ([]byte, error) { return []byte(a), nil }

// TestExtra_WhatIsNotUTF8IsRefusedAndNotReplaced, whichever version of
// encoding/json writes it.
func TestExtra_WhatIsNotUTF8IsRefusedAndNotReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const want = "invalid JSON object: a name or value is not UTF-8"
	for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "ok \uFFFD \xff"} {
		for name, extra := range map[string]map[string]any{
			"name": {bad: 1}, "value": {"x": bad}, "list": {"x": []string{"good", bad}}, "list of any": {"x": []any{1, bad}},
			"nested name": {"x": map[string]any{bad: 1}}, "nested value": {"x": map[string]any{"y": bad}}, "map of text": {"x": map[string]string{"y": bad}}, "name in a map of text": {"x": map[string]string{bad: "y"}},
			"deep": {"x": []any{[]any{map[string]any{"y": []map[string]any{{"z": bad}}}}}},
			"raw":  {"x": json.RawMessage(`"` + bad + `"`)}, "raw name": {"x": json.RawMessage(`{"` + bad + `":1}`)},
		} {
			t.Log(name)
			refusesExtra(t, b, extra, want)
		}
		// encoding/json may refuse these itself.
		for _, value := range []any{named(bad), []named{named(bad)}, texts{Name: bad}, &texts{More: map[named]any{named(bad): 1}}, map[named]int{named(bad): 1}, asText(bad), map[asText]int{asText(bad): 1}, marshals(`"` + bad + `"`), marshals(`{"` + bad + `":1}`), struct{ X any }{bad}} {
			refusesExtra(t, b, map[string]any{"x": value}, "auth: User.Extra: ")
		}
	}
	for _, escape := range []string{`\ud800`, `\uDFFF`, `\ud800x`, `\ud800\u0041`, `\ufffd`} { // no text, or none that was given
		for _, value := range []any{json.RawMessage(`"` + escape + `"`), json.RawMessage(`{"y":["` + escape + `"]}`), json.RawMessage(`{"y":{"` + escape + `":1}}`), marshals(`"` + escape + `"`)} {
			refusesExtra(t, b, map[string]any{"x": value}, "auth: User.Extra: ")
		}
	}
	refusesExtra(t, b, map[string]any{"x": named("a broken name \uFFFD")}, want)
	self := map[string]any{}
	self["self"] = self
	refusesExtra(t, b, self, "nested too deeply")

	// U+FFFD is a character like others where it was given.
	for name, value := range map[string]any{
		"a broken name \uFFFD": "x", "list": []any{"\uFFFD", []string{"\uFFFD\uFFFD"}, map[string]string{"\uFFFD": "\uFFFD"}}, "raw": json.RawMessage("\"\uFFFD\""),
		"others": []any{named("Zo\u00eb"), texts{Name: "\U0001F600<&>\u2028"}, asText("\u00e9"), json.RawMessage(`"\ud83d\ude00 \\ufffd"`), []byte("\xff"), 1.5, json.Number("7"), nil, true},
	} {
		b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{name: value} })
		c, err := b.Verify(context.Background(), b.login(t).Access)
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

func TestExtra_ComesBackByDecode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	type tenant struct {
		ID    int64    `json:"id"`
		Names []string `json:"names"`
	}
	extra := map[string]any{
		"tenant": tenant{1 << 62, []string{"<b>&amp;</b>", "Zoë 😀 \u2028\u2029", "\x00\x1f\"\\/", ""}}, "null": nil, "on": true, "é<>": "1", "empty": map[string]any{}, "at": time.Unix(0, 0).UTC(),
		"raw": json.RawMessage(" { \"a\" : [ 1.50 ] } "), "bytes": []byte("xyz"),
	}
	b.users.change("u1", func(u *auth.User) { u.Extra = extra })
	c, err := b.Verify(context.Background(), b.login(t).Access)
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
	require.Equal(t, "u1", got.Sub, "the whole payload is there")

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

func TestLogin_RefusesUsersThatNoTokenCanCarry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*auth.User)
		text   string
	}{
		"no ID":             {func(u *auth.User) { u.ID = "" }, "User.ID is empty"},
		"a long ID":         {func(u *auth.User) { u.ID = strings.Repeat("x", 256) }, "User.ID is 256 bytes, at most 255 are allowed"},
		"an ID not UTF-8":   {func(u *auth.User) { u.ID = "u\xff" }, "User.ID is not UTF-8 without control characters"},
		"an ID with a NUL":  {func(u *auth.User) { u.ID = "u\x00" }, "User.ID is not UTF-8 without control characters"},
		"an ID with a line": {func(u *auth.User) { u.ID = "u\n" }, "User.ID is not UTF-8 without control characters"},
		"a name not UTF-8":  {func(u *auth.User) { u.Username = "ada\xff" }, "User.Username is not UTF-8"},
		"an empty role":     {func(u *auth.User) { u.Roles = []string{"user", ""} }, "User.Roles[1] is empty or not UTF-8"},
		"a role not UTF-8":  {func(u *auth.User) { u.Roles = []string{"\xff"} }, "User.Roles[0] is empty or not UTF-8"},
		"an empty scope":    {func(u *auth.User) { u.Scopes = []string{""} }, "User.Scopes[0] is not a scope token"},
		"a scope of two":    {func(u *auth.User) { u.Scopes = []string{"pay", "read admin"} }, "User.Scopes[1] is not a scope token"},
		"a quoted scope":    {func(u *auth.User) { u.Scopes = []string{`a"b`} }, "User.Scopes[0] is not a scope token"},
		"a backslash":       {func(u *auth.User) { u.Scopes = []string{`a\b`} }, "User.Scopes[0] is not a scope token"},
		"a control scope":   {func(u *auth.User) { u.Scopes = []string{"a\x7f"} }, "User.Scopes[0] is not a scope token"},
		"a tab in a scope":  {func(u *auth.User) { u.Scopes = []string{"a\tb"} }, "User.Scopes[0] is not a scope token"},
		"a scope with an é": {func(u *auth.User) { u.Scopes = []string{"é"} }, "User.Scopes[0] is not a scope token"},
		"a non-break space": {func(u *auth.User) { u.Scopes = []string{"a\u00a0b"} }, "User.Scopes[0] is not a scope token"},
	} {
		b := newBench(t)
		b.users.change("u1", c.change)
		_, err := b.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		if !strings.Contains(err.Error(), "it returned another user") {
			require.ErrorContains(t, err, c.text, name)
		}
		_, err = b.Login(context.Background(), b.users.byID["u1"].Username, pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		require.ErrorContains(t, err, c.text, name)
		require.Zero(t, b.store.count("Create"), name)
	}
}

func TestLogin_TakesEveryLegalUser(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, u := range []auth.User{
		{ID: strings.Repeat("x", 255)}, {ID: strings.Repeat("é", 127)}, {ID: "<script>\u2028 \"\\"}, {ID: "😀\ufffd"}, {ID: "a b/c.d"},
		{ID: "r", Roles: []string{"a b", "<&>", "é", `"`}, Scopes: []string{"!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "a"}, Username: "ada \x00 <é>"},
	} {
		b.users.change(u.ID, func(old *auth.User) { *old = u })
		tokens, err := b.StartSession(context.Background(), u.ID, auth.SessionOptions{AMR: []string{"!#[]~<&>"}})
		require.NoError(t, err, "%q", u.ID)
		for range 2 {
			c, err := b.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, "%q", u.ID)
			require.Equal(t, []any{u.ID, u.Username, u.Roles, u.Scopes, []string{"!#[]~<&>"}}, []any{c.Subject, c.Username, c.Roles, c.Scopes, c.AMR})
			b.clock.advance(time.Minute)
			tokens, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "%q", u.ID)
		}
	}
}

func TestSignIn_IsHeldToItsBounds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	word := strings.Repeat("x", 32)
	for name, c := range map[string]struct {
		in   auth.SessionOptions
		text string
	}{
		"data":      {auth.SessionOptions{Data: make([]byte, 901)}, "auth: SessionOptions.Data is 901 bytes, at most 900 are kept"},
		"nine":      {auth.SessionOptions{AMR: slices.Repeat([]string{"x"}, 9)}, "auth: SessionOptions.AMR has 9 entries, at most 8 are kept"},
		"long":      {auth.SessionOptions{AMR: []string{"pwd", word + "x"}}, "auth: SessionOptions.AMR[1] is not a word of at most 32 characters"},
		"empty":     {auth.SessionOptions{AMR: []string{""}}, "auth: SessionOptions.AMR[0] is not a word of at most 32 characters"},
		"two words": {auth.SessionOptions{AMR: []string{"a b"}}, "auth: SessionOptions.AMR[0] is not a word of at most 32 characters"},
		"not ASCII": {auth.SessionOptions{AMR: []string{"é"}}, "auth: SessionOptions.AMR[0] is not a word of at most 32 characters"},
		"a quote":   {auth.SessionOptions{AMR: []string{`"`}}, "auth: SessionOptions.AMR[0] is not a word of at most 32 characters"},
	} {
		_, err := b.Login(context.Background(), "ada", pass, c.in)
		require.EqualError(t, err, c.text, name)
		_, err = b.StartSession(context.Background(), "u1", c.in)
		require.EqualError(t, err, c.text, name)
	}
	require.Zero(t, b.store.count("Create"))

	in := auth.SessionOptions{
		Data: bytes.Repeat([]byte{0xff}, 900), AMR: slices.Repeat([]string{word}, 8), Name: "\x00 Ada\u200b's\r\nphone " + strings.Repeat("é", 100),
		Device: auth.Device{UserAgent: "  a\x1b[31mb\u202e " + strings.Repeat("x", 300), IP: netip.MustParseAddr("::ffff:192.0.2.1")},
	}
	tokens, err := b.Login(context.Background(), "ada", pass, in)
	require.NoError(t, err)
	list, err := b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Equal(t, in.Data, list[0].Data())
	require.Equal(t, "Ada'sphone "+strings.Repeat("é", 44), list[0].Name(), "cleaned, and cut between two letters")
	require.Equal(t, auth.Device{UserAgent: "a[31mb " + strings.Repeat("x", 249), IP: netip.MustParseAddr("192.0.2.1")}, list[0].Device)
	c, err := b.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, in.AMR, c.AMR)
	b.clock.advance(time.Minute)
	moved, err := b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: auth.Device{UserAgent: "\x00x", IP: netip.MustParseAddr("fe80::1%eth0")}})
	require.NoError(t, err)
	c, err = b.Verify(context.Background(), moved.Access)
	require.NoError(t, err)
	require.Equal(t, in.AMR, c.AMR)
	list, err = b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Equal(t, auth.Device{UserAgent: "x", IP: netip.MustParseAddr("fe80::1")}, list[0].Device)
}

func TestAMR_IsWhatTheLoginWas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	amr := func(tokens auth.Tokens, err error) []string {
		require.NoError(t, err)
		c, err := b.Verify(context.Background(), tokens.Access)
		require.NoError(t, err)
		return c.AMR
	}
	require.Equal(t, []string{"pwd"}, amr(b.Login(context.Background(), "ada", pass, auth.SessionOptions{})))
	require.Equal(t, []string{"pwd", "otp"}, amr(b.Login(context.Background(), "ada", pass, auth.SessionOptions{AMR: []string{"pwd", "otp"}})))
	require.Empty(t, amr(b.StartSession(context.Background(), "u1", auth.SessionOptions{})))
	require.Equal(t, []string{"hwk"}, amr(b.StartSession(context.Background(), "u1", auth.SessionOptions{AMR: []string{"hwk"}})))
}

func TestTokens_NeverOutliveTheirSession(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*auth.Config){
		"a short idle lifetime":     func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 16*time.Minute, 20*time.Minute },
		"a short absolute lifetime": func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 16*time.Minute, 16*time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, change)
			b.clock.advance(777 * time.Millisecond)
			login := b.clock.Now()
			tokens := b.login(t)
			end := time.Time{}
			for range 300 {
				list, err := b.Sessions(context.Background(), "u1")
				require.NoError(t, err)
				if len(list) == 0 {
					break
				}
				s := list[0]
				c, err := b.Verify(context.Background(), tokens.Access)
				require.NoError(t, err)
				require.False(t, c.ExpiresAt.After(s.ExpiresAt), "%s after %s", c.ExpiresAt, s.ExpiresAt)
				require.False(t, c.SessionExpiresAt.After(s.ExpiresAt))
				require.False(t, c.ExpiresAt.After(c.SessionExpiresAt))
				require.Equal(t, c.ExpiresAt, tokens.AccessExpiresAt)
				require.Equal(t, s.ExpiresAt.Truncate(time.Second), tokens.RefreshExpiresAt)
				require.False(t, tokens.RefreshExpiresAt.After(login.Truncate(time.Second).Add(20*time.Minute)))
				require.Equal(t, login.Truncate(time.Second), c.AuthTime, "auth_time is the login's for ever")
				end = s.ExpiresAt
				b.clock.advance(7 * time.Second)
				next, err := b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
				if err != nil {
					require.ErrorIs(t, err, auth.ErrTokenExpired)
					break
				}
				tokens = next
			}
			require.WithinDuration(t, end, b.clock.Now(), 8*time.Second, "it lived to its end")
			_, err := b.Verify(context.Background(), tokens.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		})
	}
}

func TestVerify_ExpiryIsExact(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tokens := b.login(t)
	b.clock.advance(15*time.Minute - time.Millisecond)
	_, err := b.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	b.clock.advance(time.Millisecond)
	_, err = b.Verify(context.Background(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired, "leeway does not extend a lifetime")
	b.clock.advance(7*24*time.Hour - 15*time.Minute - time.Millisecond)
	_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	b.clock.advance(time.Millisecond)
	_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestVerify_LeewayBounds(t *testing.T) {
	t.Parallel()
	for _, leeway := range []time.Duration{-5 * time.Second, -1, time.Millisecond, 1500 * time.Microsecond, time.Second, 2500 * time.Millisecond, 10 * time.Second, time.Minute} {
		known := max(0, leeway).Truncate(time.Millisecond)
		b := newBench(t, knownKeys, func(c *auth.Config) { c.Leeway = leeway })
		verifier, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)}, Leeway: leeway, Now: b.clock.Now})
		require.NoError(t, err)
		f := newForger("access", b.clock.Now())
		claim := func(name string, ahead time.Duration) string {
			return f.signClaims(f.claims.with(name, strconv.FormatInt(f.now.Add(ahead).Truncate(time.Second).Unix(), 10)))
		}
		for _, v := range []*auth.Verifier{b.Verifier, verifier} {
			_, err = v.Verify(context.Background(), claim("iat", 2*known+time.Second))
			require.NoError(t, err, leeway)
			_, err = v.Verify(context.Background(), claim("iat", 2*known+2*time.Second))
			require.ErrorIs(t, err, auth.ErrTokenExpired, leeway)
			_, err = v.Verify(context.Background(), claim("nbf", known))
			require.NoError(t, err, leeway)
			_, err = v.Verify(context.Background(), claim("nbf", known+time.Second))
			require.ErrorIs(t, err, auth.ErrTokenExpired, leeway)
		}
	}
}

func TestExpireAccess_CutsWholeSeconds(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys)
	b.clock.advance(400 * time.Millisecond)
	f := newForger("access", b.clock.Now())
	cut := b.clock.Now().Add(10 * time.Second).Truncate(time.Second).Add(time.Second)
	require.NoError(t, b.ExpireAccess(context.Background(), "u1"))
	at := func(issued time.Time) string {
		return f.signClaims(f.claims.with("iat", strconv.FormatInt(issued.Unix(), 10)).with("auth_time", "1"))
	}
	for _, before := range []time.Duration{time.Second, 5 * time.Second, 11 * time.Second, time.Hour} {
		_, err := b.Verify(context.Background(), at(cut.Add(-before)))
		require.ErrorIs(t, err, auth.ErrTokenExpired, before)
		require.NotErrorIs(t, err, auth.ErrSessionRevoked)
	}
	for _, after := range []time.Duration{0, time.Second, 10 * time.Second} {
		_, err := b.Verify(context.Background(), at(cut.Add(after)))
		require.NoError(t, err, after)
	}
	// What is minted from now on lives, and expires by the clock.
	tokens := b.login(t)
	c, err := b.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, b.clock.Now().Truncate(time.Second), c.IssuedAt, "by the clock")
	_, payload := takeApart(t, tokens.Access)
	require.Equal(t, seconds(cut), payload["eff_iat"], "raised to the cut")
	require.Equal(t, b.clock.Now().Add(15*time.Minute).Truncate(time.Second), c.ExpiresAt, "from the clock")
	// Others are not concerned.
	other, err := b.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	c, err = b.Verify(context.Background(), other.Access)
	require.NoError(t, err)
	require.Equal(t, b.clock.Now().Truncate(time.Second), c.IssuedAt)
}

func TestExpireAccess_ClocksUpToLeewayApart(t *testing.T) {
	t.Parallel()
	const leeway = 10 * time.Second
	for _, skew := range []time.Duration{-leeway, -leeway + time.Millisecond, -3 * time.Second, 0, 999 * time.Millisecond, 3 * time.Second, leeway - time.Millisecond, leeway} {
		for _, phase := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
			name := fmt.Sprintf("%s at %s", skew, phase)
			base := newClock()
			base.advance(phase)
			list := nodes(t, 2, func(i int, c *auth.Config) {
				c.Now = base.Now
				if i == 1 {
					c.Now = func() time.Time { return base.Now().Add(skew) }
				}
			})
			here, there := list[0], list[1]
			old, err := there.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.NoError(t, err, name)
			old2, err := here.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.NoError(t, err, name)
			require.NoError(t, here.ExpireAccess(context.Background(), "u1"))
			require.Eventually(t, func() bool { return there.Health().Revocations == 1 }, 5*time.Second, time.Millisecond)
			for _, token := range []string{old.Access, old2.Access} {
				for _, b := range list {
					_, err := b.Verify(context.Background(), token)
					require.ErrorIs(t, err, auth.ErrTokenExpired, name)
				}
			}
			for _, b := range list {
				for _, refresh := range []string{old.Refresh, old2.Refresh} {
					moved, err := b.Refresh(context.Background(), refresh, auth.RefreshOptions{})
					require.NoError(t, err, name)
					for _, v := range list {
						_, err := v.Verify(context.Background(), moved.Access)
						require.NoError(t, err, "born dead: %s", name)
					}
				}
				fresh, err := b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
				require.NoError(t, err, name)
				for _, v := range list {
					_, err := v.Verify(context.Background(), fresh.Access)
					require.NoError(t, err, "born dead: %s", name)
				}
			}
		}
	}
}

func TestFindByID_AnotherUserIsAFault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tokens := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.ID = "u2" })
	_, err := b.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = b.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable, "nobody gets another's token")
	require.Zero(t, b.store.count("Rotate"))
}

func TestLogin_AFaultStaysAFaultWhateverItWraps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, cause := range []error{auth.ErrInvalidCredentials, auth.ErrInvalidToken, auth.ErrForbidden} {
		b.users.fail = fmt.Errorf("the user service said: %w", cause)
		_, err := b.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		_, err = b.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
	}
	require.Empty(t, b.events.take(auth.EventLoginRefused))
}

func TestVerify_ScopesAreParsedBySpaces(t *testing.T) {
	t.Parallel()
	b := newBench(t, knownKeys)
	f := newForger("access", b.clock.Now())
	c, err := b.Verify(context.Background(), f.signClaims(f.claims.with("scope", `" read  pay\u00a0admin\tx "`)))
	require.NoError(t, err)
	require.Equal(t, []string{"read", "pay\u00a0admin\tx"}, c.Scopes)
}

// panickingFeed panics once.
type panickingFeed struct {
	auth.Feed
	panics *int
}

func (p panickingFeed) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if *p.panics > 0 {
		*p.panics--
		panic("panic of a test")
	}
	return p.Feed.Changes(ctx, after, wait)
}

func TestRun_SurvivesAPanicOfItsFeed(t *testing.T) {
	t.Parallel()
	once := 1
	told := &events{}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), Now: newClock().Now, OnEvent: told.add,
		Feed: panickingFeed{auth.NewMemoryStore(), &once},
	})
	require.NoError(t, err)
	go func() { _ = v.Run(t.Context()) }()
	<-v.Ready()
	require.Equal(t, 1, len(told.take(auth.EventFault)))
}
