package auth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// ownTerms are options with all constants that a login can choose.
func ownTerms(o *auth.SessionOptions) {
	o.AMR = []string{"pwd", "otp", "mfa"}
	o.Ephemeral = true
	o.IdleTTL, o.SessionTTL = 2*time.Hour, 10*time.Hour
	o.Name, o.Data = "phone", []byte("org=1")
}

// payloadOf returns the claims of a token.
func payloadOf(t testing.TB, token string) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(plain(t, strings.Split(token, ".")[1])), &m))
	return m
}

func TestConstants_SurviveEveryRotation(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, acting := range map[string]bool{"a login": false, "an actor": true} {
		two := newNodes(t, 2, func(int, *auth.Config) {})
		fx := two[0]
		o := auth.SessionOptions{Device: laptop}
		ownTerms(&o)
		end := fx.clock.Now().Add(10 * time.Hour)
		if acting {
			o.IdleTTL, o.SessionTTL, o.Actor = 40*time.Minute, time.Hour, "u2"
			end = fx.clock.Now().Add(time.Hour)
		}
		k, err := fx.StartSession(ctx, "u1", o)
		require.NoError(t, err)
		first := payloadOf(t, k.Refresh)
		for i := 0; fx.clock.Now().Before(end.Add(-11 * time.Minute)); i++ {
			fx.clock.Advance(10 * time.Minute)
			node := two[i%2]
			old := k
			k, err = node.Refresh(ctx, k.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err, name)
			retried, err := two[(i+1)%2].Refresh(ctx, old.Refresh, auth.RefreshOptions{Device: laptop}) // a retry
			require.NoError(t, err, name)
			require.Equal(t, k.Refresh, retried.Refresh)
			again, err := node.Refresh(ctx, k.Refresh, auth.RefreshOptions{Device: laptop}) // in the cooldown
			require.NoError(t, err, name)
			for _, issued := range []auth.Tokens{k, retried, again} {
				require.Equal(t, k.Refresh, issued.Refresh)
				c := verifiedClaims(t, node.Authenticator, issued.Access)
				require.Equal(t, []string{"pwd", "otp", "mfa"}, c.AMR)
				require.Equal(t, o.Actor, c.Actor)
				require.Equal(t, first["auth_time"], float64(c.AuthTime.Unix()))
				require.False(t, c.SessionExpiresAt.After(end), name)
				require.False(t, issued.RefreshExpiresAt.After(end), name)
				require.False(t, issued.RefreshExpiresAt.After(fx.clock.Now().Add(o.IdleTTL)), name)
			}
			now := payloadOf(t, k.Refresh)
			for claim := range first {
				if claim != "gen" && claim != "iat" && claim != "exp" {
					require.Equal(t, first[claim], now[claim], claim)
				}
			}
			require.Len(t, now, len(first))
			list, err := node.Sessions(ctx, "u1")
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, "phone", list[0].Name())
			require.Equal(t, "org=1", string(list[0].Data()))
			require.Equal(t, o.Actor, list[0].Actor())
		}
		fx.clock.Advance(end.Sub(fx.clock.Now()))
		_, err = fx.Verify(ctx, k.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired, name)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrTokenExpired, name)
	}
}

// A session without constants of its own has the tokens that it always had.
func TestConstants_OrdinarySessionsHaveNoNewClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	_, k := fx.refreshed(t)
	require.ElementsMatch(t, []string{"iss", "aud", "sub", "sid", "gen", "auth_time", "iat", "exp", "amr"}, namesOf(payloadOf(t, k.Refresh)))
	for _, name := range []string{"act", "eph", "idle_ttl", "session_ttl", "session_iat"} {
		require.NotContains(t, payloadOf(t, k.Access), name)
	}
}

func namesOf(m map[string]any) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return names
}

func TestRefresh_MalformedConstantsAreRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	for _, claims := range []string{
		`,"eph":1`, `,"eph":false`, `,"eph":"true"`, `,"idle_ttl":0`, `,"idle_ttl":"1"`, `,"idle_ttl":-1`, `,"idle_ttl":1.5`,
		`,"session_ttl":0`, `,"session_ttl":999999999999999999`, `,"session_iat":"1"`, `,"session_iat":null`,
		`,"act":"u2"`, `,"act":{}`, `,"act":null`, `,"act":[]`, `,"act":{"sub":""}`, `,"act":{"sub":1}`, `,"act":{"SUB":"u3","sub":"u2"}`,
		`,"act":{"sub":"u2","sub":"u3"}`, `,"EPH":true`, `,"Idle_ttl":1`, `,"Act":{"sub":"u2"}`,
	} {
		_, err := fx.Refresh(context.Background(), withClaims(t, fx.login(t).Refresh, claims), auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrInvalidToken, claims)
	}
	for _, claims := range []string{`,"act":{"sub":"u2","act":{"sub":"u3"}}`, `,"act":{"sub":"u2","iss":"x"}`} {
		_, err := fx.Refresh(context.Background(), withClaims(t, fx.login(t).Refresh, claims), auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, "%s: a newer version has issued it", claims)
	}
}

func TestSessionOptions_LifetimesAreCheckedAtTheLogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, func(c *auth.Config) {
		c.AccessTTL, c.RetryWindow, c.Leeway = 15*time.Minute, 30*time.Second, 10*time.Second
		c.IdleTTL, c.SessionTTL = 24*time.Hour, 48*time.Hour
	})
	least := 90*time.Second + 15*time.Minute + 10*time.Second
	for _, c := range []struct {
		idle, session time.Duration
		actor         string
		want          string
	}{
		{},
		{idle: least},
		{session: least},
		{idle: least, session: least},
		{idle: 24 * time.Hour, session: 48 * time.Hour},
		{idle: least - time.Millisecond, want: "auth: SessionOptions.IdleTTL (16m39.999s) is less than 16m40s: three times Config.RetryWindow plus Config.AccessTTL plus Config.Leeway"},
		{session: least - time.Millisecond, want: "auth: SessionOptions.SessionTTL (16m39.999s) is less than 16m40s: three times"},
		{idle: 24*time.Hour + 1, want: "auth: SessionOptions.IdleTTL (24h0m0.000000001s) must be from 0 to Config.IdleTTL (24h0m0s)"},
		{session: 49 * time.Hour, want: "auth: SessionOptions.SessionTTL (49h0m0s) must be from 0 to Config.SessionTTL (48h0m0s)"},
		{idle: -1, want: "must be from 0 to"},
		{session: -time.Hour, want: "must be from 0 to"},
		{idle: 30, want: "auth: SessionOptions.IdleTTL (30ns) is less than 1ms; missing time unit?"},
		{idle: 2 * time.Hour, session: time.Hour, want: "auth: SessionOptions.IdleTTL (2h0m0s) exceeds SessionOptions.SessionTTL (1h0m0s)"},
		{actor: "u2"},
		{actor: "u2", idle: 160 * time.Second},
		{actor: "u2", idle: 159 * time.Second, want: "auth: SessionOptions.IdleTTL (2m39s) is less than 2m40s: three times Config.RetryWindow plus Config.AccessTTL, at most 1m, plus Config.Leeway"},
		{actor: "u2", session: time.Hour},
		{actor: "u2", session: time.Hour + time.Millisecond, want: "SessionTTL (1h0m0.001s) exceeds 1h0m0s, which is the limit for a session with an Actor"},
		{actor: "u2", idle: 2 * time.Hour, want: "exceeds SessionOptions.SessionTTL (1h0m0s)"},
		{actor: "u1", want: "auth: SessionOptions.Actor is the user of the session"},
		{actor: "a\x00b", want: "auth: not storable: SessionOptions.Actor must be 1 to 255 bytes of UTF-8 without control characters"},
	} {
		_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{IdleTTL: c.idle, SessionTTL: c.session, Actor: c.actor})
		if c.want == "" {
			require.NoError(t, err, c)
			continue
		}
		require.ErrorContains(t, err, c.want)
		if c.actor == "" {
			_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{IdleTTL: c.idle, SessionTTL: c.session})
			require.ErrorContains(t, err, c.want)
		}
	}
}

// Config may be changed while a session lives. The shorter of both lifetimes applies.
func TestConstants_TheShorterLifetimeApplies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct {
		name                             string
		own, ownTotal, idle, total, want time.Duration
		wantTotal                        time.Duration
	}{
		{"shortened", 5 * time.Hour, 50 * time.Hour, 2 * time.Hour, 9 * time.Hour, 2 * time.Hour, 9 * time.Hour},
		{"lengthened", 5 * time.Hour, 50 * time.Hour, 20 * time.Hour, 200 * time.Hour, 5 * time.Hour, 50 * time.Hour},
		{"without lifetimes of its own", 0, 0, 20 * time.Hour, 200 * time.Hour, 20 * time.Hour, 200 * time.Hour},
	} {
		fx := newFixture(t, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 10*time.Hour, 100*time.Hour })
		start := fx.clock.Now()
		k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{IdleTTL: c.own, SessionTTL: c.ownTotal})
		require.NoError(t, err)
		later := newProcess(t, fx, func(config *auth.Config) { config.IdleTTL, config.SessionTTL = c.idle, c.total })
		fx.clock.Advance(time.Hour)
		k, err = later.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err, c.name)
		require.Equal(t, start.Add(time.Hour+c.want), k.RefreshExpiresAt, c.name)
		for !fx.clock.Now().Add(c.want).After(start.Add(c.wantTotal)) { // it would end later by its idle lifetime
			fx.clock.Advance(time.Hour)
			k, err = later.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, c.name)
		}
		require.Equal(t, start.Add(c.wantTotal), k.RefreshExpiresAt, c.name)
	}
}

// A session with a short IdleTTL of its own can be kept alive even if RetryWindow is
// raised to where its cooldown would be longer than the session.
func TestConstants_ARaisedRetryWindowDoesNotEndAShortSession(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, func(c *auth.Config) {
		c.AccessTTL, c.Leeway, c.RetryWindow = 22*time.Second, 10*time.Second, time.Second
	})
	k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{IdleTTL: 40 * time.Second})
	require.NoError(t, err)
	later := newProcess(t, fx, func(c *auth.Config) {
		c.RetryWindow, c.AccessTTL, c.Leeway = time.Minute, 15*time.Minute, 10*time.Second
	})
	for range 20 {
		fx.clock.Advance(25 * time.Second)
		next, err := later.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		require.NotEqual(t, k.Refresh, next.Refresh)
		require.True(t, next.AccessExpiresAt.After(fx.clock.Now()))
		fx.clock.Advance(3 * time.Second)
		retried, err := later.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err, "there is still a retry window")
		require.Equal(t, next.Refresh, retried.Refresh)
		k = next
	}
}

func TestEphemeral_CookiesHaveNoMaxAge(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	check := func(r response, names ...string) {
		t.Helper()
		require.Len(t, r.cookies, len(names))
		for _, name := range names {
			c := r.cookies[name]
			require.NotNil(t, c, name)
			require.NotEmpty(t, c.Value)
			require.Zero(t, c.MaxAge, c.Raw)
			require.NotContains(t, strings.ToLower(c.Raw), "max-age")
			require.NotContains(t, strings.ToLower(c.Raw), "expires")
		}
	}
	both := []string{accessCookie, refreshCookie}
	r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(`{"login":"ada","password":"`+pass+`","remember":false}`))
	require.Equal(t, 200, r.status, r.body)
	check(r, append(both, deviceCookie)...)
	refresh := func(token string) response {
		t.Helper()
		r := send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, token))
		require.Equal(t, 200, r.status, r.body)
		return r
	}
	first := r.cookies[refreshCookie].Value
	r = refresh(first)
	check(r, both...)
	second := r.cookies[refreshCookie].Value
	check(refresh(first), both...)       // a retry
	check(refresh(second), accessCookie) // in the cooldown
	fx.clock.Advance(time.Hour)          // AutoRefresh
	page := fx.Require()(hello)
	r = send(t, page, "GET", "/page", reqCookie(refreshCookie, second))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	check(r, both...)
	third := r.cookies[refreshCookie].Value
	fx.clock.Advance(time.Hour)
	r = send(t, page, "POST", "/page", reqCookie(refreshCookie, third))
	require.Equal(t, 200, r.status)
	check(r, accessCookie)
	fx.clock.Advance(4 * 24 * time.Hour)
	r = send(t, page, "POST", "/page", reqCookie(refreshCookie, third)) // it rotates after half of IdleTTL
	require.Equal(t, 200, r.status)
	check(r, both...)
	k, err := fx.Refresh(ctx, r.cookies[refreshCookie].Value, auth.RefreshOptions{})
	require.NoError(t, err)
	k, err = fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, k.Access), auth.SessionOptions{})
	require.NoError(t, err)
	check(send(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fx.SetCookies(w, k) }), "GET", "/"), both...)
	check(refresh(k.Refresh), both...)

	// An expired session's cookies are deleted, ephemeral or not.
	fx.clock.Advance(8 * 24 * time.Hour)
	r = send(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fx.SetCookies(w, k) }), "GET", "/")
	require.Negative(t, r.cookies[refreshCookie].MaxAge)
}

func TestLogin_Remember(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	form := "login=ada&password=correct+horse+battery+staple"
	for _, c := range []struct {
		body      requestOption
		ephemeral bool
	}{
		{reqJSON(goodLogin), false},
		{reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":true}`), false},
		{reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":null}`), false},
		{reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":false}`), true},
		{reqForm(form), false},
		{reqForm(form + "&remember=on"), false},
		{reqForm(form + "&remember=true"), false},
		{reqForm(form + "&remember=false"), true}, // the hidden field of a checkbox that is not ticked
		{reqForm(form + "&remember=false&remember=on"), false},
		{reqForm(form + "&remember=on&remember=false"), false},
		{reqForm(form + "&remember=0&remember=1"), false},
		{reqForm(form + "&remember=0"), true},
	} {
		for name, h := range map[string]http.Handler{"LoginHandler": fx.LoginHandler(), "LoginForm": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := fx.LoginForm(w, r); err != nil {
				fx.WriteError(w, r, err)
			}
		})} {
			r := send(t, h, "POST", "/login", c.body)
			require.Equal(t, 200, r.status, r.body)
			require.Equal(t, c.ephemeral, r.cookies[refreshCookie].MaxAge == 0, "%s: %s", name, r.cookies[refreshCookie].Raw)
		}
	}
	for _, body := range []requestOption{
		reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":"false"}`),
		reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":0}`),
		reqJSON(goodLogin[:len(goodLogin)-1] + `,"remember":false,"remember":true}`),
		reqForm(form + "&remember="),
		reqForm(form + "&remember=no"),
		reqForm(form + "&remember=FALSE"),
	} {
		send(t, fx.LoginHandler(), "POST", "/login", body).requireRefused(t, 400, "invalid_request", "")
	}
	// ReadFields has no options.
	fields, err := auth.ReadFields(newRequest(reqForm("a=1&=2")), "a")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1"}, fields)
}

func TestSession_OpaqueOfAnActor(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	fx.users.byID["u3"] = auth.User{ID: strings.Repeat("x", 255)}
	fx.users.byID[strings.Repeat("x", 255)] = auth.User{ID: strings.Repeat("x", 255)}
	data := []byte(strings.Repeat("d", 900))
	k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: strings.Repeat("x", 255), Name: strings.Repeat("n", 100), Data: data})
	require.NoError(t, err)
	s, err := fx.store.Get(ctx, "u1", k.SessionID)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 255), s.Actor())
	require.Equal(t, strings.Repeat("n", 100), s.Name())
	require.Equal(t, data, s.Data())
	require.NoError(t, s.Check())
	// A version without actors reads the length of a name that is longer than the rest.
	require.Equal(t, "\xff\x7f", string(s.Opaque[:2]))
	require.Greater(t, 127+127<<7, 1280)
	for n := range len(s.Opaque) {
		cut := auth.Session{Opaque: s.Opaque[:n]}
		_, _, _ = cut.Actor(), cut.Name(), cut.Data() // none panics
	}
}

// User.Extra may have had these names before they were reserved. So an access token
// of an earlier version may have them with other values.
func TestVerify_AcceptsOwnClaimsThatEarlierVersionsAllowed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	for _, claims := range []string{`,"eph":"yes"`, `,"idle_ttl":"1h"`, `,"idle_ttl":-1`, `,"session_ttl":null`, `,"session_ttl":{}`} {
		token := signedWith(t, accessSecret, fx.login(t).Access, claims)
		c, err := fx.Verify(context.Background(), token)
		require.NoError(t, err, claims)
		_, err = fx.Continue(context.Background(), c, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrInvalidToken, claims)
	}
	for _, claims := range []string{`,"session_iat":"1"`, `,"session_iat":null`, `,"session_iat":-1`, `,"EPH":true`} {
		_, err := fx.Verify(context.Background(), signedWith(t, accessSecret, fx.login(t).Access, claims))
		require.ErrorIs(t, err, auth.ErrInvalidToken, claims)
	}
}
