package auth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestOnLogin_ChangesTheSessionOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var calls []string
	fx := newFixture(t, func(c *auth.Config) {
		c.OnLogin = func(_ context.Context, u auth.User, o *auth.SessionOptions) error {
			calls = append(calls, u.ID)
			o.SessionTTL, o.IdleTTL, o.Ephemeral, o.Data = 2*time.Hour, time.Hour, true, []byte("org=7")
			return nil
		}
	})
	for _, start := range []func() (auth.Tokens, error){
		func() (auth.Tokens, error) { return fx.Login(ctx, "ada", pass, auth.SessionOptions{}) },
		func() (auth.Tokens, error) { return fx.StartSession(ctx, "u1", auth.SessionOptions{}) },
	} {
		calls = nil
		k, err := start()
		require.NoError(t, err)
		require.Equal(t, []string{"u1"}, calls)
		require.Equal(t, fx.clock.Now().Add(time.Hour), k.RefreshExpiresAt)
		s, err := fx.store.Get(ctx, "u1", k.SessionID)
		require.NoError(t, err)
		require.Equal(t, "org=7", string(s.Data()))
		require.Equal(t, true, payloadOf(t, k.Refresh)["eph"])
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		_, err = fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, k.Access), auth.SessionOptions{})
		require.NoError(t, err)
		require.Len(t, calls, 1, "neither a refresh nor Continue is a login")
	}
	calls = nil
	_, err := fx.Login(ctx, "ada", "wrong", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	require.Empty(t, calls)
}

// The caller may use one slice for many logins.
func TestOnLogin_ChangesNoSliceOfTheCaller(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) {
		c.OnLogin = func(_ context.Context, _ auth.User, o *auth.SessionOptions) error {
			o.AMR[0], o.Data[0], o.Replaces[0] = "otp", 'x', ""
			return nil
		}
	})
	o := auth.SessionOptions{AMR: []string{"hwk"}, Data: []byte("abc"), Replaces: []string{"token"}}
	k, err := fx.StartSession(context.Background(), "u1", o)
	require.NoError(t, err)
	require.Equal(t, []string{"otp"}, verifiedClaims(t, fx.Authenticator, k.Access).AMR)
	require.Equal(t, "xbc", string(fx.stored(t, k.SessionID).Data()))
	require.Equal(t, []string{"hwk"}, o.AMR)
	require.Equal(t, "abc", string(o.Data))
	require.Equal(t, []string{"token"}, o.Replaces)
}

func TestOnLogin_Refuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	own := errors.New("trial has ended")
	var result error
	var change func(o *auth.SessionOptions)
	fx := newFixture(t, func(c *auth.Config) {
		c.OnLogin = func(_ context.Context, _ auth.User, o *auth.SessionOptions) error {
			if change != nil {
				change(o)
			}
			return result
		}
	})
	post := func() response { return send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin)) }
	result = errors.Join(auth.ErrForbidden, own)
	post().requireRefused(t, 403, "insufficient_scope", "")
	fx.events.mu.Lock()
	require.Len(t, fx.events.all, 1, "one event")
	fx.events.mu.Unlock()
	require.ErrorIs(t, fx.events.take(auth.EventLoginRefused)[0].Err, own)
	_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
	require.ErrorIs(t, err, own)
	fx.events.take("")
	for _, e := range []error{own, auth.ErrInvalidCredentials, auth.ErrTooManySessions, auth.ErrUserNotFound} {
		result = e
		post().requireRefused(t, 503, "temporarily_unavailable", "")
		require.Len(t, fx.events.take(auth.EventFault), 1)
	}
	result = nil
	for name, c := range map[string]func(o *auth.SessionOptions){
		"panics":            func(*auth.SessionOptions) { panic("x") },
		"runtime error":     func(*auth.SessionOptions) { var m map[string]int; m["x"] = 1 },
		"too long":          func(o *auth.SessionOptions) { o.SessionTTL = 1000 * time.Hour },
		"too much data":     func(o *auth.SessionOptions) { o.Data = make([]byte, 901) },
		"sets an actor":     func(o *auth.SessionOptions) { o.Actor = "u2" },
		"an invalid method": func(o *auth.SessionOptions) { o.AMR = []string{"a b"} },
	} {
		change = c
		r := post()
		require.GreaterOrEqual(t, r.status, 500, name)
		require.Len(t, fx.events.take(auth.EventFault), 1, name)
	}
	list, err := fx.store.List(ctx, "u1")
	require.NoError(t, err)
	require.Empty(t, list)
}

// withOrg puts the data of the session into the tokens.
func withOrg(c *auth.Config) {
	c.Claims = func(_ context.Context, u auth.User, s auth.Session) (map[string]any, error) {
		data := s.Data()
		org := string(data)
		for i := range data {
			data[i] = 'x' // has no effect on the record
		}
		return map[string]any{"org": org, "for": u.ID, "by": s.Actor(), "device": s.Name()}, nil
	}
}

func TestClaims_AreInTheTokensOfEveryRefresh(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, withOrg)
	k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2", Name: "phone", Data: []byte("org-1")})
	require.NoError(t, err)
	check := func(k auth.Tokens, org string) {
		t.Helper()
		var own struct{ Org, For, By, Device string }
		require.NoError(t, verifiedClaims(t, fx.Authenticator, k.Access).Decode(&own))
		require.Equal(t, struct{ Org, For, By, Device string }{org, "u1", "u2", "phone"}, own)
	}
	check(k, "org-1")
	gets := fx.store.count("Get")
	next, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	check(next, "org-1")
	require.Equal(t, gets+1, fx.store.count("Get"), "one Get for a refresh")
	retried, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	check(retried, "org-1")
	switched, err := fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, next.Access), auth.SessionOptions{Data: []byte("org-2")})
	require.NoError(t, err)
	check(switched, "org-2")
	fx.clock.Advance(time.Minute)
	switched, err = fx.Refresh(ctx, switched.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	check(switched, "org-2")

	without := newFixture(t)
	k = without.login(t)
	_, err = without.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Zero(t, without.store.count("Get"), "without Claims, a refresh is one call")
}

func TestClaims_AFailureSpendsNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var claims func() (map[string]any, error)
	fx := newFixture(t, func(c *auth.Config) {
		c.Claims = func(context.Context, auth.User, auth.Session) (map[string]any, error) { return claims() }
	})
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"Plan": "pro"} })
	good := func() (map[string]any, error) { return nil, nil }
	claims = good
	k := fx.login(t)
	fx.events.take("")
	for name, c := range map[string]struct {
		claims func() (map[string]any, error)
		status int
		text   string
	}{
		"an error":         {func() (map[string]any, error) { return nil, errors.New("lookup failed") }, 503, "Config.Claims: lookup failed"},
		"a refusal":        {func() (map[string]any, error) { return nil, auth.ErrForbidden }, 503, "Config.Claims"},
		"a panic":          {func() (map[string]any, error) { panic("private") }, 503, "Config.Claims panicked with a string"},
		"a reserved name":  {func() (map[string]any, error) { return map[string]any{"sub": "u2"}, nil }, 500, `Config.Claims: "sub" equals the reserved claim`},
		"a constant":       {func() (map[string]any, error) { return map[string]any{"session_IAT": 1}, nil }, 500, "Config.Claims"},
		"a value":          {func() (map[string]any, error) { return map[string]any{"f": func() {}}, nil }, 500, "Config.Claims"},
		"a panic of it":    {func() (map[string]any, error) { return map[string]any{"f": panicking{}}, nil }, 500, "Config.Claims"},
		"as in User.Extra": {func() (map[string]any, error) { return map[string]any{"Plan": 1}, nil }, 500, `"Plan" is in User.Extra too, as "Plan"`},
		"another case":     {func() (map[string]any, error) { return map[string]any{"plan": 1}, nil }, 500, `"plan" is in User.Extra too, as "Plan"`},
	} {
		claims = c.claims
		_, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.Equal(t, c.status, auth.ResponseFor(err).Status, "%s: %v", name, err)
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1, name)
		require.ErrorContains(t, faults[0].Err, c.text, name)
		require.NotContains(t, faults[0].Err.Error(), "private")
		_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
		require.Equal(t, c.status, auth.ResponseFor(err).Status, name)
		fx.events.take("")
	}
	require.Zero(t, fx.store.count("Rotate"))
	claims = good
	fx.store.failBefore("Get", errors.New("down"))
	_, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	fx.store.failBefore("Get", nil)
	_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	list, err := fx.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)

	// A session that is gone is revoked, as without Claims.
	require.NoError(t, fx.store.Store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: fx.clock.Now().Add(time.Hour)}))
	_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("private") }

func TestRefuseOverLimit(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = 2, true })
	first, second := fx.login(t), fx.login(t)
	published := len(readFeed(t, fx.store))
	r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin))
	r.requireRefused(t, 409, "too_many_sessions", "")
	refused := fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1)
	require.ErrorIs(t, refused[0].Err, auth.ErrTooManySessions)
	require.Equal(t, published, len(readFeed(t, fx.store)), "nothing is left behind")
	_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrTooManySessions)
	_, err = fx.Login(ctx, "ada", "wrong", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials, "only who has proved the credentials learns it")
	for _, k := range []auth.Tokens{first, second} {
		_, err := fx.Verify(ctx, k.Access)
		require.NoError(t, err)
	}
	// A session that the login replaces does not count, nor does Continue.
	r = send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin), reqCookie(refreshCookie, first.Refresh))
	require.Equal(t, 200, r.status, r.body)
	_, err = fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, second.Access), auth.SessionOptions{})
	require.NoError(t, err)
	_, err = fx.StartSession(ctx, "u2", auth.SessionOptions{})
	require.NoError(t, err, "another user")
	require.NoError(t, fx.RevokeAll(ctx, "u1"))
	fx.login(t)

	_, err = auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), MaxSessions: -1, RefuseOverLimit: true})
	require.ErrorContains(t, err, "auth: Config.RefuseOverLimit requires a limit, but Config.MaxSessions (-1) means none")
}

// Logins at the same time never exceed the limit, and those that are refused leave no
// session.
func TestRefuseOverLimit_ConcurrentLogins(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	two := newNodes(t, 2, func(_ int, c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = 3, true })
	for range 20 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		opened := map[string]bool{}
		for i := range 16 {
			wg.Go(func() {
				k, err := two[i%2].StartSession(ctx, "u1", auth.SessionOptions{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					opened[k.SessionID] = true
				} else if !errors.Is(err, auth.ErrTooManySessions) {
					t.Errorf("unexpected error: %v", err)
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, len(opened), 3)
		list, err := two[0].store.List(ctx, "u1")
		require.NoError(t, err)
		require.Len(t, list, len(opened))
		for _, s := range list {
			require.True(t, opened[s.ID])
			require.NoError(t, two[0].Revoke(ctx, "u1", s.ID))
		}
	}
}

func TestAMR(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	start := func(amr ...string) string {
		k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{AMR: amr})
		require.NoError(t, err)
		return k.Access
	}
	h := fx.Require(auth.AMR("otp", "hwk"))(hello)
	for _, amr := range [][]string{{"otp"}, {"pwd", "hwk", "mfa"}} {
		require.Equal(t, 200, send(t, h, "GET", "/", reqBearer(start(amr...))).status)
	}
	for _, amr := range [][]string{{"pwd"}, nil, {"OTP"}, {"otp2"}} {
		r := send(t, h, "GET", "/", reqBearer(start(amr...)))
		r.requireRefused(t, 401, "insufficient_user_authentication", "login")
		const text = "a login with one of these methods is required: otp hwk"
		require.Equal(t, text, r.fields(t)["error_description"])
		require.Equal(t, `Bearer error="insufficient_user_authentication", error_description="`+text+`"`, r.header.Get("WWW-Authenticate"))
	}
	require.ErrorIs(t, auth.AMR("otp")(ctx, &auth.Claims{}), auth.ErrReauthenticate)
	other := auth.ResponseFor(errors.Join(auth.AMR("otp")(ctx, &auth.Claims{}), auth.ErrUnavailable))
	require.Equal(t, "try again", other.Description, "of the response, not of the guard")
	// The methods are copied.
	methods := []string{"otp"}
	guard := auth.AMR(methods...)
	methods[0] = "pwd"
	require.Error(t, guard(ctx, &auth.Claims{AMR: []string{"pwd"}}))
	for _, bad := range [][]string{{}, {""}, {"otp hwk"}, {"otp", `"`}, {strings.Repeat("x", 33)}, {"é"}} {
		require.Panics(t, func() { auth.AMR(bad...) }, bad)
	}
	// Together with Fresh, the response has the parameters of both.
	r := send(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fx.WriteError(w, r, errors.Join(auth.Fresh(time.Minute)(ctx, &auth.Claims{}), auth.AMR("otp")(ctx, &auth.Claims{})))
	}), "GET", "/")
	require.Contains(t, r.header.Get("WWW-Authenticate"), `max_age="60"`)
}
