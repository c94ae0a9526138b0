package auth_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestRefreshHandler_HeaderOrBodyTokenIsReturnedInTheBody(t *testing.T) {
	t.Parallel()
	for _, change := range [][]func(*auth.Config){nil, {withCookies(allowBody)}} {
		fx := newFixture(t, change...)
		for _, door := range []func(token string) []requestOption{
			func(s string) []requestOption { return []requestOption{reqHeader("Refresh-Token", s)} },
			func(s string) []requestOption { return []requestOption{reqJSON(`{"refresh_token":"` + s + `"}`)} },
			func(s string) []requestOption { return []requestOption{reqJSON(`{"refreshToken":"` + s + `"}`)} },
			func(s string) []requestOption { return []requestOption{reqForm("refresh_token=" + s)} },
			func(s string) []requestOption { return []requestOption{reqForm("refreshToken=" + s)} },
			func(s string) []requestOption {
				return []requestOption{reqHeader("Refresh-Token", s), reqJSON(`{"refreshToken":"` + s + `","refresh_token":"` + s + `"}`)}
			},
			func(s string) []requestOption { return []requestOption{reqHeader("Refresh-Token", s), crossSite} },
		} {
			first := fx.login(t)
			r := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", door(first.Refresh)...)
			require.Equal(t, http.StatusOK, r.status, r.body)
			m := r.fields(t)
			require.Equal(t, first.SessionID, m["session_id"])
			require.NotEqual(t, first.Refresh, m["refresh_token"])
			_, err := fx.Verify(context.Background(), m["access_token"].(string))
			require.NoError(t, err)
			require.NotContains(t, r.header, "Set-Cookie")
			require.Equal(t, "no-store", r.header.Get("Cache-Control"))
			// During the cooldown, the response has the token of the request,
			// in the body.
			rest := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", door(m["refresh_token"].(string))...)
			require.Equal(t, m["refresh_token"], rest.fields(t)["refresh_token"])
			require.NotContains(t, rest.header, "Set-Cookie")
		}
	}
}

func TestRefreshHandler_CookieTokenIsReturnedInCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	for _, more := range [][]requestOption{nil, {reqJSON(`{}`)}, {reqForm("x=1")}} {
		first := fx.login(t)
		r := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", append(more, reqCookie(refreshCookie, first.Refresh))...)
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.ElementsMatch(t, []string{"token_type", "expires_in", "refresh_expires_in", "session_id", "rotated"}, slices.Collect(maps.Keys(r.fields(t))))
		require.Len(t, r.cookies, 2)
		require.NotEqual(t, first.Refresh, r.cookies[refreshCookie].Value)
	}
	// If the same token is in a cookie and in the body, it is returned only in
	// a cookie, because a script must not read it.
	first := fx.login(t)
	r := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, first.Refresh), reqJSON(`{"refresh_token":"`+first.Refresh+`"}`))
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NotContains(t, r.fields(t), "refresh_token")
	require.NotContains(t, r.fields(t), "access_token")
	require.Len(t, r.cookies, 2)
}

func TestRefreshHandler_ReplacesACookieOfAnEarlierGeneration(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	for _, wait := range []time.Duration{0, defaultCooldown} { // within the cooldown, and after it
		ks := fx.chain(t, 3)
		fx.clock.Advance(wait)
		for _, carry := range []requestOption{reqHeader("Refresh-Token", ks[2].Refresh), reqJSON(`{"refresh_token":"` + ks[2].Refresh + `"}`)} {
			options := []requestOption{reqCookie(refreshCookie, ks[1].Refresh), carry}
			send(t, fx.RefreshHandler(), "POST", "/refresh", append(options, crossSite)...).requireRefused(t, 403, "cross_origin", "")
			r := send(t, fx.RefreshHandler(), "POST", "/refresh", options...)
			require.Equal(t, 200, r.status, r.body)
			require.NotContains(t, r.fields(t), "refresh_token")
			require.NotContains(t, r.fields(t), "access_token")
			require.Len(t, r.cookies, 2)
			// The browser continues with its current cookies.
			r = send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, r.cookies[refreshCookie].Value))
			require.Equal(t, 200, r.status, r.body)
		}
		require.Empty(t, fx.events.take(auth.EventReuse))
	}
}

func TestRefreshHandler_InCooldownSetsOnlyTheAccessCookie(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	first := fx.login(t)
	moved := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, first.Refresh))
	second := moved.cookies[refreshCookie].Value
	rests := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, second))
	require.Equal(t, http.StatusOK, rests.status)
	require.Equal(t, []string{accessCookie}, slices.Collect(maps.Keys(rests.cookies)))
	repeat := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, first.Refresh))
	require.Equal(t, second, repeat.cookies[refreshCookie].Value, "a later generation than the presented one must be written")
}

func TestRefreshHandler_RefusalKeepsCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	h := fx.RefreshHandler()
	one, two := fx.login(t), fx.login(t)
	for action, rows := range map[string]map[string][]requestOption{
		"login": {
			"none": nil,
			"only in the query": {func(r *http.Request) {
				r.URL.RawQuery = "refresh_token=" + one.Refresh + "&refreshToken=" + one.Refresh
			}},
			"as a bearer token":        {reqBearer(one.Refresh)},
			"in the access cookie":     {reqCookie(accessCookie, one.Refresh)},
			"empty everywhere":         {reqCookie(refreshCookie, ""), reqHeader("Refresh-Token", ""), reqJSON(`{"refresh_token":"","refreshToken":null}`)},
			"header and body differ":   {reqHeader("Refresh-Token", one.Refresh), reqJSON(`{"refresh_token":"` + two.Refresh + `"}`)},
			"cookie and header differ": {reqCookie(refreshCookie, one.Refresh), reqHeader("Refresh-Token", two.Refresh)},
			"cookie and body differ":   {reqCookie(refreshCookie, one.Refresh), reqForm("refreshToken=" + two.Refresh)},
			"snake and camel differ":   {reqJSON(`{"refresh_token":"` + one.Refresh + `","refreshToken":"` + two.Refresh + `"}`)},
			"two headers differ":       {reqHeader("Refresh-Token", one.Refresh, two.Refresh)},
		},
		"": {
			"wrong type":                   {reqJSON(`{"refresh_token":["` + one.Refresh + `"]}`)},
			"wrong type beside a good one": {reqJSON(`{"refresh_token":"` + one.Refresh + `","refreshToken":1}`)},
			"null":                         {reqJSON(`null`)},
			"not a form":                   {reqForm("%zz")},
		},
	} {
		for name, options := range rows {
			r := send(t, h, http.MethodPost, "/refresh", options...)
			r.requireRefused(t, http.StatusBadRequest, "invalid_request", action)
			require.NotContains(t, r.header, "Www-Authenticate", name)
		}
	}
	send(t, h, http.MethodPost, "/refresh", reqBody("text/plain", one.Refresh)).requireRefused(t, 415, "invalid_request", "")
	require.Zero(t, fx.store.count("Rotate"))

	bad := func(options ...requestOption) {
		t.Helper()
		r := send(t, h, http.MethodPost, "/refresh", options...)
		r.requireRefused(t, http.StatusUnauthorized, "invalid_grant", "login")
		require.NotContains(t, r.header, "Www-Authenticate")
	}
	bad(reqHeader("Refresh-Token", "garbage"))
	bad(reqCookie(refreshCookie, "garbage"))
	bad(reqJSON(`{"refresh_token":"` + one.Access + `"}`))
	bad(reqCookie(refreshCookie, one.Access))
	require.NoError(t, fx.Revoke(context.Background(), "u1", two.SessionID))
	bad(reqCookie(refreshCookie, two.Refresh))
	_, err := fx.Refresh(context.Background(), one.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.clock.Advance(defaultWindow + time.Millisecond)
	bad(reqCookie(refreshCookie, one.Refresh)) // spent
	three := fx.login(t)
	fx.clock.Advance(8 * 24 * time.Hour)
	bad(reqCookie(refreshCookie, three.Refresh)) // expired
}

func TestRefreshHandler_OutageIs503AndTheTokenStaysValid(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	first := fx.login(t)
	for _, fail := range []func(string, error){fx.store.failBefore, fx.store.failAfter} {
		fail("Rotate", errStore)
		send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, first.Refresh)).requireRefused(t, 503, "temporarily_unavailable", "")
		fail("Rotate", nil)
	}
	r := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqCookie(refreshCookie, first.Refresh))
	require.Equal(t, http.StatusOK, r.status)
	require.EqualValues(t, 2, fx.generation(t, "u1", first.SessionID))
}

func TestRefreshHandler_StoresTheDevice(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	r := send(t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqHeader("Refresh-Token", first.Refresh), reqHeader("User-Agent", "robot/1"))
	require.Equal(t, http.StatusOK, r.status)
	s, err := fx.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.NoError(t, err)
	require.Equal(t, "robot/1", s.Device.UserAgent)
	require.Equal(t, "192.0.2.1", s.Device.IP.String())
}
