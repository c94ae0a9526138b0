package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestLogoutHandler_EndsTheSessionByAnyToken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options func(auth.Tokens) []requestOption
		clears  bool
	}{
		"access in the header":  {func(k auth.Tokens) []requestOption { return []requestOption{reqBearer(k.Access)} }, false},
		"access in the cookie":  {func(k auth.Tokens) []requestOption { return []requestOption{reqCookie(accessCookie, k.Access)} }, true},
		"refresh in the cookie": {func(k auth.Tokens) []requestOption { return []requestOption{reqCookie(refreshCookie, k.Refresh)} }, true},
		"refresh in the header": {func(k auth.Tokens) []requestOption { return []requestOption{reqHeader("Refresh-Token", k.Refresh)} }, false},
		"second of two headers": {func(k auth.Tokens) []requestOption {
			return []requestOption{reqHeader("Refresh-Token", "x", k.Refresh)}
		}, false},
		"refresh in JSON": {func(k auth.Tokens) []requestOption {
			return []requestOption{reqJSON(`{"refresh_token":"` + k.Refresh + `"}`)}
		}, false},
		"refresh in JSON, camel": {func(k auth.Tokens) []requestOption {
			return []requestOption{reqJSON(`{"refreshToken":"` + k.Refresh + `"}`)}
		}, false},
		"refresh in a form": {func(k auth.Tokens) []requestOption { return []requestOption{reqForm("refresh_token=" + k.Refresh)} }, false},
		"second of two cookies": {func(k auth.Tokens) []requestOption {
			return []requestOption{reqCookie(refreshCookie, "x"), reqCookie(refreshCookie, k.Refresh)}
		}, true},
		"with garbage beside it": {func(k auth.Tokens) []requestOption {
			return []requestOption{reqBearer("x.y.z"), reqCookie(refreshCookie, k.Refresh)}
		}, true},
		"header token, cross-site": {func(k auth.Tokens) []requestOption { return []requestOption{reqBearer(k.Access), crossSite} }, false},
	} {
		for _, late := range []time.Duration{0, time.Hour} { // the access token may have expired
			fx := newFixture(t, withCookies())
			k := fx.login(t)
			fx.clock.Advance(late)
			r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", tt.options(k)...)
			r.requireNoContent(t)
			if tt.clears {
				r.requireCleared(t)
			} else {
				require.NotContains(t, r.header, "Set-Cookie", name)
			}
			_, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, name)
			_, err = fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			send(t, fx.LogoutHandler(), http.MethodPost, "/logout", tt.options(k)...).requireNoContent(t)
		}
	}
}

func TestLogoutHandler_EndsTheSessionsOfAllTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	var ks []auth.Tokens
	for range 5 {
		ks = append(ks, fx.login(t))
	}
	r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqBearer(ks[0].Access), reqCookie(refreshCookie, ks[1].Refresh),
		reqCookie(accessCookie, ks[2].Access), reqHeader("Refresh-Token", ks[3].Refresh), reqJSON(`{"refresh_token":"`+ks[4].Refresh+`"}`))
	r.requireNoContent(t)
	r.requireCleared(t)
	list, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestLogoutHandler_InvalidTokensDoNotHideAValidOne(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t"), auth.FromCookie()))
	foreign := newFixture(t, func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} })
	junk := func(n int) (values []string) {
		for i := range n {
			values = append(values, "x.y."+fmt.Sprint(i))
		}
		return append(values[:n-1], foreign.login(t).Refresh)
	}
	for name, tt := range map[string]struct {
		junk  int
		carry func(k auth.Tokens, values []string) []requestOption
		kind  func(k auth.Tokens) string
	}{
		"refresh cookies": {800, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqCookies(refreshCookie, v...)}
		}, func(k auth.Tokens) string { return k.Refresh }},
		"access cookies": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqCookies(accessCookie, v...)}
		}, func(k auth.Tokens) string { return k.Access }},
		"headers": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqHeader("Refresh-Token", v...)}
		}, func(k auth.Tokens) string { return k.Refresh }},
		"access, headers": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqHeader("Refresh-Token", v...)}
		}, func(k auth.Tokens) string { return k.Access }},
		"own headers": {
			15, func(_ auth.Tokens, v []string) []requestOption { return []requestOption{reqHeader("X-T", v...)} },
			func(k auth.Tokens) string { return k.Access },
		},
		"bearer": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqBearer(strings.Join(v, " "))}
		}, func(k auth.Tokens) string { return k.Access }},
		"query": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{func(r *http.Request) { r.URL.RawQuery = "t=" + strings.Join(v, "&t=") }}
		}, func(k auth.Tokens) string { return k.Access }},
		"a cookie of the other kind": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqCookies(refreshCookie, v...)}
		}, func(k auth.Tokens) string { return k.Access }},
		"a form": {15, func(_ auth.Tokens, v []string) []requestOption {
			return []requestOption{reqForm("refresh_token=" + strings.Join(v, "&refresh_token="))}
		}, func(k auth.Tokens) string { return k.Refresh }},
	} {
		for _, at := range []int{0, tt.junk / 2, tt.junk} {
			k := fx.login(t)
			values := slices.Insert(junk(tt.junk), at, tt.kind(k))
			send(t, fx.LogoutHandler(), "POST", "/logout", tt.carry(k, values)...).requireNoContent(t)
			_, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s, at %d", name, at)
		}
	}
	// A refresh behaves in the same way.
	for _, at := range []int{0, 7, 15} {
		k := fx.login(t)
		r := send(t, fx.RefreshHandler(), "POST", "/refresh", reqHeader("Refresh-Token", slices.Insert(junk(15), at, k.Refresh)...))
		require.Equal(t, 200, r.status, r.body)
	}
}

func TestLogoutHandler_ReadsABodyOfAnotherContentType(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	hosts := ""
	for i := range 50 {
		hosts += fmt.Sprintf("https://www%d.example.com/a.b.c%d ", i, i)
	}
	for _, body := range []func(token string) requestOption{
		func(token string) requestOption { return reqForm(`{"refresh_token":"` + token + `"}`) }, // the default of curl -d
		func(token string) requestOption { return reqForm("user%5Brefresh_token%5D=" + token) },
		func(token string) requestOption { return reqForm("refresh_token=&token=" + token) },
		func(token string) requestOption { return reqJSON(`{"tokens":{"refresh_token":"` + token + `"}}`) },
		func(token string) requestOption { return reqBody("text/plain", hosts+token+" "+hosts) },
		func(token string) requestOption { return reqJSON(`["` + hosts + `","` + token + `"]`) },
	} {
		for _, access := range []bool{false, true} {
			k := fx.login(t)
			token := k.Refresh
			if access {
				token = k.Access
			}
			send(t, fx.LogoutHandler(), http.MethodPost, "/logout", body(token)).requireNoContent(t)
			_, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
	}
}

func TestLogoutHandler_TokenOfAnotherIssuerEndsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	for _, change := range []func(*auth.Config){
		func(c *auth.Config) { c.Issuer = "https://other.example.com" },
		func(c *auth.Config) { c.Audience = []string{"https://other.example.com"} },
	} {
		other := newFixture(t, change, func(c *auth.Config) { c.Store = fx.store.Store }) // the same keys and sessions
		forged := other.login(t)
		for _, o := range []requestOption{
			reqBearer(forged.Access), reqCookie(accessCookie, forged.Access), reqHeader("Refresh-Token", forged.Refresh),
			reqCookie(refreshCookie, forged.Refresh),
		} {
			send(t, fx.LogoutHandler(), http.MethodPost, "/logout", o).requireNoContent(t)
		}
		_, err := fx.store.Store.Get(context.Background(), "u1", forged.SessionID)
		require.NoError(t, err)
	}
	_, err := fx.Verify(context.Background(), k.Access)
	require.NoError(t, err)
	require.Zero(t, fx.store.count("Revoke"))
}

func TestLogoutHandler_WithoutAValidTokenSucceedsToo(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	send(t, fx.LogoutHandler(), http.MethodPost, "/logout").requireCleared(t)
	send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqCookie(accessCookie, "")).requireCleared(t)
	for _, o := range []requestOption{reqCookie(accessCookie, "garbage"), reqCookie(refreshCookie, "a.b.c")} {
		r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", o)
		r.requireNoContent(t)
		r.requireCleared(t)
	}
	for _, o := range []requestOption{reqBearer("garbage"), reqHeader("Refresh-Token", "x"), reqJSON(`{"refresh_token":"x"}`)} {
		r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", o)
		r.requireNoContent(t)
		require.NotContains(t, r.header, "Set-Cookie")
	}
	require.Zero(t, fx.store.count("Revoke"), "garbage must cause no call to the store")
	send(t, newFixture(t).LogoutHandler(), http.MethodPost, "/logout").requireNoContent(t)
	send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqJSON(`{"refresh_token":1}`)).requireNoContent(t)
}

func TestLogoutHandler_CrossOriginIsRefusedAndEndsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	for _, options := range [][]requestOption{
		nil, {reqCookie(accessCookie, k.Access)}, {reqCookie(refreshCookie, k.Refresh)}, {reqCookie(refreshCookie, "")},
		{reqCookie(refreshCookie, k.Refresh), reqHeader("Refresh-Token", k.Refresh)}, {reqCookie(accessCookie, k.Access), reqBearer("garbage")},
	} {
		send(t, fx.LogoutHandler(), http.MethodPost, "/logout", append(options, crossSite)...).requireRefused(t, 403, "cross_origin", "")
	}
	require.Zero(t, fx.store.count("Revoke"))
	// A cross-origin request with the attacker's token in the body does not
	// clear the cookies of the victim.
	r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqForm("refresh_token=x"), crossSite)
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie")
}

func TestLogoutHandler_OutageIs503AndKeepsTheCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	fx.store.failBefore("Revoke", errStore)
	send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqCookie(refreshCookie, k.Refresh)).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("Revoke", nil)
	r := send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqCookie(refreshCookie, k.Refresh))
	r.requireNoContent(t)
	r.requireCleared(t)
	_, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound, "a repeated call must end the session")
}

func TestLogoutAllHandler_EndsAllOrTheOthers(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.LogoutAllHandler()
	live := func() []string {
		list, err := fx.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		var ids []string
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		return ids
	}
	k, _ := fx.login(t), fx.login(t)
	bob, err := fx.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)

	for _, query := range []string{"?others=1", "?others=yes", "?others=TRUE", "?others=True", "?others=truefalse"} {
		send(t, h, http.MethodPost, "/logout/all"+query, reqBearer(k.Access)).requireRefused(t, 400, "invalid_request", "")
	}
	send(t, h, http.MethodPost, "/logout/all").requireRefused(t, 401, "missing_token", "login")
	send(t, h, http.MethodPost, "/logout/all", reqCookie(refreshCookie, k.Refresh)).requireRefused(t, 401, "missing_token", "login")
	send(t, h, http.MethodPost, "/logout/all", reqCookie(accessCookie, k.Access), crossSite).requireRefused(t, 403, "cross_origin", "")
	require.Len(t, live(), 2)

	r := send(t, h, http.MethodPost, "/logout/all?others=true", reqCookie(accessCookie, k.Access))
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie", "this session continues")
	require.Equal(t, []string{k.SessionID}, live())

	fx.store.failBefore("Revoke", errStore)
	send(t, h, http.MethodPost, "/logout/all?others=true", reqCookie(accessCookie, k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("Revoke", nil)

	r = send(t, h, http.MethodPost, "/logout/all?others=false", reqCookie(accessCookie, k.Access))
	r.requireNoContent(t)
	r.requireCleared(t)
	require.Empty(t, live())
	_, err = fx.Verify(context.Background(), bob.Access)
	require.NoError(t, err)

	fx.clock.Advance(time.Minute)
	r = send(t, h, http.MethodPost, "/logout/all", reqBearer(fx.login(t).Access))
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie")
	require.Empty(t, live())
	fx.clock.Advance(time.Minute)
	k = fx.login(t)
	fx.clock.Advance(16 * time.Minute)
	send(t, h, http.MethodPost, "/logout/all", reqBearer(k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
}

func TestLogoutAllHandler_AmbiguousQueryEndsNothing(t *testing.T) {
	t.Parallel()
	for _, q := range []string{"?others=true&x=%zz", "?others=%zz", "?others=true;x", "?others=false&others=true", "?others=true&others=false"} {
		fx := newFixture(t)
		k := fx.login(t)
		fx.login(t)
		send(t, fx.LogoutAllHandler(), "POST", "/logout/all"+q, reqBearer(k.Access)).requireRefused(t, 400, "invalid_request", "")
		require.Zero(t, fx.store.count("Revoke"), q)
	}
}
