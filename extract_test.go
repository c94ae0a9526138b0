package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestAccessToken_Bearer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, tt := range []struct {
		headers []string
		token   string
		err     error
	}{
		{nil, "", auth.ErrNoToken},
		{[]string{""}, "", auth.ErrNoToken},
		{[]string{"Bearer abc"}, "abc", nil},
		{[]string{"bearer abc"}, "abc", nil},
		{[]string{"BEARER abc"}, "abc", nil},
		{[]string{"bEaReR   abc"}, "abc", nil},
		{[]string{"Bearer abc "}, "abc", nil},
		{[]string{"Basic YTpi"}, "", auth.ErrNoToken},
		{[]string{"Basic YTpi", "Bearer abc"}, "abc", nil},
		{[]string{"Bearer abc", "Basic YTpi", "DPoP xyz"}, "abc", nil},
		{[]string{"Bearerabc"}, "", auth.ErrNoToken},
		{[]string{"Digest abc"}, "", auth.ErrNoToken}, // a scheme that also has six letters
		{[]string{"Bearex abc"}, "", auth.ErrNoToken},
		{[]string{"BEARED abc", "Digest abd", "Bearer abc"}, "abc", nil},
		{[]string{"Beare abc"}, "", auth.ErrNoToken},
		{[]string{" Bearer abc"}, "", auth.ErrNoToken},
		{[]string{"Bearer-Token abc"}, "", auth.ErrNoToken},
		{[]string{"Bearer\tabc"}, "", auth.ErrInvalidRequest},
		{[]string{"abc"}, "", auth.ErrNoToken},
		{[]string{"Basic YTpi, Bearer abc"}, "", auth.ErrNoToken},
		{[]string{"Bearer"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer "}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer    "}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc def"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc\tdef"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer \tabc"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc,"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc,Bearer def"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc", "Bearer def"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc", "Bearer abc"}, "", auth.ErrInvalidRequest},
		{[]string{"Bearer abc", "bearer"}, "", auth.ErrInvalidRequest},
	} {
		var o requestOption = func(*http.Request) {}
		if tt.headers != nil {
			o = reqHeader("Authorization", tt.headers...)
		}
		token, byCookie, err := fx.AccessToken(newRequest(o))
		require.Equal(t, tt.token, token, "%q", tt.headers)
		require.ErrorIs(t, err, tt.err, "%q", tt.headers)
		require.False(t, byCookie)
	}
}

func TestAccessToken_OtherExtractors(t *testing.T) {
	t.Parallel()
	query := func(raw string) requestOption { return func(r *http.Request) { r.URL.RawQuery = raw } }
	for name, tt := range map[string]struct {
		es      []auth.Extractor
		options []requestOption
		token   string
		err     error
	}{
		"header": {[]auth.Extractor{auth.FromHeader("x-access-token")}, []requestOption{reqHeader("X-Access-Token", "abc")}, "abc", nil},
		"header twice": {
			[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []requestOption{reqHeader("X-Access-Token", "abc", "abc")}, "",
			auth.ErrInvalidRequest,
		},
		"header, not an extractor": {nil, []requestOption{reqHeader("X-Access-Token", "abc")}, "", auth.ErrNoToken},
		"header, empty": {
			[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []requestOption{reqHeader("X-Access-Token", "")}, "", auth.ErrNoToken,
		},
		"bearer, not an extractor": {[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []requestOption{reqBearer("abc")}, "", auth.ErrNoToken},
		"query":                    {[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("a=b&access_token=abc")}, "abc", nil},
		"query, name escaped":      {[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access%5Ftoken=abc")}, "abc", nil},
		"query, escaped name":      {[]auth.Extractor{auth.FromQuery("access[token]")}, []requestOption{query("access%5Btoken%5D=abc")}, "abc", nil},
		"query, another name": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("Access_Token=abc&my_access_token=x")}, "",
			auth.ErrNoToken,
		},
		"query twice": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access_token=abc&access_token=abc")}, "",
			auth.ErrInvalidRequest,
		},
		"query twice, differ": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access_token=abc&access%5Ftoken=abd")}, "",
			auth.ErrInvalidRequest,
		},
		"query twice, one unreadable": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access_token=abc&access_token=%zz")}, "",
			auth.ErrInvalidRequest,
		},
		"query that cannot be read": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access_token=%zz")}, "", auth.ErrInvalidRequest,
		},
		"query with a semicolon": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("access_token=abc;x=1")}, "", auth.ErrInvalidRequest,
		},
		"query behind a semicolon": {[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("x=1;access_token=abc")}, "", auth.ErrNoToken},
		"query, others unreadable": {
			[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("q=a;b&%zz=1&access_token=abc&x=100%&x=%zz")}, "abc",
			nil,
		},
		"other query, percent": {
			[]auth.Extractor{auth.FromBearer(), auth.FromQuery("t")}, []requestOption{query("q=100%&other=x%20y"), reqBearer("abc")},
			"abc", nil,
		},
		"query twice beside a header": {
			[]auth.Extractor{auth.FromBearer(), auth.FromQuery("t")}, []requestOption{query("t=a&t=a"), reqBearer("abc")}, "",
			auth.ErrInvalidRequest,
		},
		"other query, malformed":  {[]auth.Extractor{auth.FromQuery("access_token")}, []requestOption{query("x;y")}, "", auth.ErrNoToken},
		"query, not an extractor": {nil, []requestOption{query("access_token=abc&token=abc&jwt=abc")}, "", auth.ErrNoToken},
		"two places, same": {
			[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t")},
			[]requestOption{reqBearer("abc"), reqHeader("X-T", "abc"), query("t=abc")}, "abc", nil,
		},
		"two places, neither counts": {
			[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T")}, []requestOption{reqBearer("abc"), reqHeader("X-T", "abd")}, "abc",
			nil,
		},
		"the header's is returned": {[]auth.Extractor{auth.FromQuery("t"), auth.FromBearer()}, []requestOption{reqBearer("abc"), query("t=x")}, "abc", nil},
		"two places, one unreadable": {
			[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T")}, []requestOption{reqBearer(""), reqHeader("X-T", "abd")}, "",
			auth.ErrInvalidRequest,
		},
		"only the last has one": {
			[]auth.Extractor{auth.FromQuery("t"), auth.FromHeader("X-T"), auth.FromBearer()}, []requestOption{reqBearer("abc")}, "abc",
			nil,
		},
	} {
		fx := newFixture(t, withExtractors(tt.es...))
		token, byCookie, err := fx.AccessToken(newRequest(tt.options...))
		require.Equal(t, tt.token, token, name)
		require.ErrorIs(t, err, tt.err, name)
		require.False(t, byCookie)
	}
}

func TestAccessToken_ReportsWhetherItCameByCookie(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	for _, options := range [][]requestOption{
		{reqCookie(accessCookie, "abc")},
		{reqCookie(accessCookie, "abc"), reqCookie("other", "x"), reqCookie(refreshCookie, "y"), reqCookie("__host-access", "z"), reqCookie("access", "z")},
		{reqCookie(accessCookie, "abc"), reqHeader("Authorization", "Basic YTpi")},
		{reqCookie(accessCookie, "abc"), reqCookie(accessCookie, "abc")},
		{reqCookie(accessCookie, ""), reqCookie(accessCookie, "abc")},
	} {
		token, byCookie, err := fx.AccessToken(newRequest(options...))
		require.NoError(t, err)
		require.Equal(t, "abc", token)
		require.True(t, byCookie)
	}
	// A token that is also in a header was not sent only by the browser.
	for _, es := range [][]auth.Extractor{nil, {auth.FromCookie(), auth.FromBearer()}} {
		fx := newFixture(t, withCookies(), withExtractors(es...))
		token, byCookie, err := fx.AccessToken(newRequest(reqBearer("abc"), reqCookie(accessCookie, "abc")))
		require.NoError(t, err)
		require.Equal(t, "abc", token)
		require.False(t, byCookie)
		token, byCookie, err = fx.AccessToken(newRequest(reqBearer("abc"), reqCookie(accessCookie, "abd")))
		require.NoError(t, err)
		require.Equal(t, "abc", token, "if none is valid, the header's is returned")
		require.False(t, byCookie)
	}
	_, _, err := newFixture(t).AccessToken(newRequest(reqCookie(accessCookie, "abc")))
	require.ErrorIs(t, err, auth.ErrNoToken, "without Config.Cookies, cookies are ignored")
	_, _, err = newFixture(t, withCookies(), withExtractors(auth.FromBearer())).AccessToken(newRequest(reqCookie(accessCookie, "abc")))
	require.ErrorIs(t, err, auth.ErrNoToken, "the cookie is not an extractor")
}

func TestAccessToken_PrefersTheHeaderWithinOneSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromHeader("X-T"), auth.FromBearer()))
	ks := fx.chain(t, 3)
	inQuery := func(token string) requestOption { return func(r *http.Request) { r.URL.RawQuery = "t=" + token } }
	for _, tt := range []struct {
		options  []requestOption
		want     int
		byCookie bool
	}{
		{[]requestOption{reqBearer(ks[0].Access), reqCookie(accessCookie, ks[2].Access), inQuery(ks[1].Access)}, 0, false},
		{[]requestOption{reqHeader("X-T", ks[1].Access), reqBearer(ks[0].Access)}, 1, false}, // the first extractor counts
		{[]requestOption{inQuery(ks[0].Access), reqCookie(accessCookie, ks[2].Access)}, 0, false},
		{[]requestOption{reqCookies(accessCookie, ks[1].Access, ks[2].Access, ks[0].Access), reqBearer("junk"), inQuery("junk")}, 2, true},
	} {
		for range 2 {
			token, byCookie, err := fx.AccessToken(newRequest(tt.options...))
			require.NoError(t, err)
			require.Equal(t, ks[tt.want].Access, token)
			require.Equal(t, tt.byCookie, byCookie)
		}
	}
}

func TestVary_NamesTheHeadersThatAreRead(t *testing.T) {
	t.Parallel()
	for want, es := range map[string][]auth.Extractor{
		"Authorization, Cookie":      nil,
		"X-T, Cookie":                {auth.FromHeader("x-t"), auth.FromCookie(), auth.FromQuery("t")},
		"Authorization, X-T":         {auth.FromBearer(), auth.FromHeader("X-T")},
		"Cookie, Authorization, X-U": {auth.FromCookie(), auth.FromBearer(), auth.FromHeader("X-u")},
		"":                           {auth.FromQuery("t")},
	} {
		fx := newFixture(t, withCookies(), withExtractors(es...))
		for _, h := range []http.Handler{fx.Require()(hello), fx.Optional(hello)} {
			outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", "Origin")
				h.ServeHTTP(w, r)
			})
			require.Equal(t, want, strings.Join(send(t, h, "GET", "/").header.Values("Vary"), "|"))
			require.Equal(
				t, strings.TrimSuffix("Origin|"+want, "|"), strings.Join(send(t, outer, "GET", "/").header.Values("Vary"), "|"),
				"existing values must stay",
			)
		}
	}
}

func TestVary_IsSafeForConcurrentRequests(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Require()(hello)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, newRequest())
			w.Header().Add("Vary", "Accept")
			w.Header()["Vary"][0] = "spoiled"
		})
	}
	wg.Wait()
	require.Equal(t, []string{"Authorization, Cookie"}, send(t, h, "GET", "/").header["Vary"])
}

func TestExtractors_AreCheckedByNew(t *testing.T) {
	t.Parallel()
	for want, es := range map[string][]auth.Extractor{
		"Extractors[1] is the zero Extractor":                                               {auth.FromBearer(), {}},
		`Extractors[0]: "" is not a valid header name`:                                      {auth.FromHeader("")},
		"Extractors[0]: header Authorization has a scheme before the token; use FromBearer": {auth.FromHeader("authorization")},
		"Extractors[0]: header Cookie contains all cookies; use FromCookie":                 {auth.FromHeader("cookie")},
		"Extractors[0]: header Refresh-Token is for refresh tokens; use FromBearer, or a header of your own such as X-Access-Token": {
			auth.FromHeader("REFRESH-TOKEN"),
		},
		"Extractors[0]: header X-Forwarded-For has another meaning; use FromBearer, or a header of your own such as X-Access-Token": {
			auth.FromHeader("x-forwarded-for"),
		},
		`Extractors[1]: "" is not a valid parameter name`:                              {auth.FromBearer(), auth.FromQuery("")},
		`Extractors[1]: " " is not a valid parameter name`:                             {auth.FromBearer(), auth.FromQuery(" ")},
		`Extractors[0]: "a b" is not a valid parameter name`:                           {auth.FromQuery("a b")},
		`Extractors[0]: "token\n" is not a valid parameter name, such as access_token`: {auth.FromQuery("token\n")},
		`Extractors[0]: "\u200btoken" is not a valid parameter name`:                   {auth.FromQuery("\u200btoken")},
		`Extractors[0]: "\xff" is not a valid parameter name`:                          {auth.FromQuery("\xff")},
		`Extractors[2]: "X Y" is not a valid header name`:                              {auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("X Y")},
		`Extractors[3]: "X:Y" is not a valid header name`: {
			auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("T"), auth.FromHeader("X:Y"),
		},
		"Extractors[0] reads a cookie, but Cookies is nil": {auth.FromCookie()},
		"Extractors[2] duplicates ":                        {auth.FromBearer(), auth.FromHeader("X-T"), auth.FromHeader("x-t")},
		`Extractors[4]: "\u00e9" is not a valid header name`: {
			auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("T"), auth.FromHeader("U"), auth.FromHeader("é"),
		},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Extractors: es})
		require.ErrorContains(t, err, "auth: Config."+want)
		_, err = auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Extractors: es})
		require.ErrorContains(t, err, "auth: VerifierConfig."+want)
	}
	es := []auth.Extractor{auth.FromBearer()}
	fx := newFixture(t, withExtractors(es...))
	es[0] = auth.FromQuery("t")
	token, _, err := fx.AccessToken(newRequest(reqBearer("abc")))
	require.NoError(t, err, "the extractors must be copied")
	require.Equal(t, "abc", token)
}

func TestFromHeader_RefusesHeadersWithAnotherMeaning(t *testing.T) {
	t.Parallel()
	build := func(name string) error {
		_, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), Extractors: []auth.Extractor{auth.FromHeader(name)},
		})
		return err
	}
	for _, name := range []string{
		"X-Forwarded-For", "X-FORWARDED-PROTO", "x-forwarded-host", "X-Forwarded-Access-Token", "X-Forwarded", "Forwarded", "Via", "X-Real-IP",
		"True-Client-IP", "CF-Connecting-IP", "CF-Ray", "X-Client-IP", "X-Cluster-Client-IP", "Fastly-Client-IP", "X-Original-URL",
		"X-Envoy-External-Address", "Host", "Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Authenticate", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade", "Expect", "Accept", "Accept-Language", "Content-Type", "Content-Length", "Content-Security-Policy",
		"If-None-Match", "Range", "Cache-Control", "Pragma", "Origin", "Referer", "User-Agent", "Set-Cookie", "Sec-Fetch-Site", "Sec-CH-UA",
		"Sec-WebSocket-Key", "Access-Control-Request-Headers", "DNT", "From", "Date", "Last-Event-ID", "X-Requested-With", "Traceparent",
		"X-Request-ID", "WWW-Authenticate",
	} {
		require.ErrorContains(t, build(name), " has another meaning; use FromBearer, or a header of your own such as X-Access-Token", name)
	}
	for _, name := range []string{"Refresh-Token", "refresh-key"} {
		require.ErrorContains(t, build(name), " is for refresh tokens", name)
	}
	for _, name := range []string{
		"X-Access-Token", "X-Auth-Token", "Token", "Api-Key", "Sec-WebSocket-Protocol", "Cf-Access-Jwt-Assertion", "X-Forwardedx", "Iffy", "Hostx",
		"X-Contents",
	} {
		require.NoError(t, build(name), name)
	}
}

func TestDuplicateCookies_NewestOfOneSessionCounts(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	ks := fx.chain(t, 3)
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var refresh, access []string
		for _, i := range order {
			refresh, access = append(refresh, ks[i].Refresh), append(access, ks[i].Access)
		}
		for _, more := range [][]string{nil, {"garbage"}} {
			token, o, err := fx.RefreshRequest(newRequest(reqCookies(refreshCookie, append(more, refresh...)...)))
			require.NoError(t, err)
			require.False(t, o.InBody)
			require.Equal(t, ks[2].Refresh, token)
			token, byCookie, err := fx.AccessToken(newRequest(reqCookies(accessCookie, append(more, access...)...)))
			require.NoError(t, err)
			require.True(t, byCookie)
			require.Equal(t, ks[2].Access, token)
		}
	}
	// Only one token reaches Rotate, so the older ones do not count as reuse.
	before := fx.store.count("Rotate")
	r := send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookies(refreshCookie, ks[0].Refresh, ks[1].Refresh, "garbage", ks[2].Refresh))
	require.Equal(t, 200, r.status, r.body)
	require.Equal(t, before+1, fx.store.count("Rotate"))
	require.Empty(t, fx.events.take(auth.EventReuse))
}

func TestDuplicateCookies_OfTwoSessionsAreRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	one, two := fx.login(t), fx.login(t)
	bob, err := fx.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for _, other := range []auth.Tokens{two, bob} {
		for _, flip := range []bool{false, true} {
			refresh, access := []string{one.Refresh, "garbage", other.Refresh}, []string{one.Access, "garbage", other.Access}
			if flip {
				slices.Reverse(refresh)
				slices.Reverse(access)
			}
			send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookies(refreshCookie, refresh...)).requireRefused(t, 400, "invalid_request", "login")
			send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, access...)).requireRefused(t, 400, "invalid_request", "login")
			send(t, fx.Optional(hello), "GET", "/", reqCookies(accessCookie, access...)).requireRefused(t, 400, "invalid_request", "login")
		}
	}
	require.Zero(t, fx.store.count("Rotate"))
	// Logout ends the sessions of both tokens.
	r := send(t, fx.LogoutHandler(), "POST", "/logout", reqCookies(refreshCookie, one.Refresh, two.Refresh))
	r.requireNoContent(t)
	r.requireCleared(t)
	list, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestDuplicateCookies_InvalidOnesDoNotCount(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	foreign, err := newFixture(t, withCookies(), func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} }).
		Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for _, values := range [][]string{
		{k.Refresh}, {"a", k.Refresh}, {k.Refresh, "a"}, {"a", "b", k.Refresh}, {"a", "b", "c", k.Refresh}, {"", "", "", "", "", k.Refresh},
		{"a", "a", "a", "a", "a", k.Refresh}, {foreign.Refresh, k.Refresh}, {k.Access, k.Refresh},
	} {
		token, _, err := fx.RefreshRequest(newRequest(reqCookies(refreshCookie, values...)))
		require.NoError(t, err)
		require.Equal(t, k.Refresh, token, "%q", values)
	}
	// All refresh cookies are read, and sixteen different access cookies.
	var junk []string
	for i := range 15 {
		junk = append(junk, "junk"+strconv.Itoa(i), "junk"+strconv.Itoa(i))
	}
	for _, values := range [][]string{append(slices.Clone(junk), k.Access), append([]string{k.Access}, junk...)} {
		require.Equal(t, "hello ada", send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, values...)).body)
	}
	send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, append(junk, "one more", k.Access)...)).requireRefused(t, 401, "invalid_token", "login")
	for i := range 500 {
		junk = append(junk, "x.y."+strconv.Itoa(i))
	}
	for _, values := range [][]string{append(slices.Clone(junk), k.Refresh), append([]string{k.Refresh}, junk...)} {
		token, _, err := fx.RefreshRequest(newRequest(reqCookies(refreshCookie, values...)))
		require.NoError(t, err)
		require.Equal(t, k.Refresh, token)
	}
	send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookies(refreshCookie, "a", "b")).requireRefused(t, 401, "invalid_grant", "login")
	send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, "a", "b")).requireRefused(t, 401, "invalid_token", "login")
	// An expired token counts more than garbage, so that the client refreshes.
	fx.clock.Advance(time.Hour)
	send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, "a", k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
}

// countingKeys counts the calls of VerifyKeys.
type countingKeys struct {
	auth.KeySource
	mu    sync.Mutex
	n     int
	fault error
	once  bool // fault applies only to the next call
}

func (k *countingKeys) VerifyKeys(ctx context.Context, kid string) ([]auth.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n++; k.fault != nil {
		err := k.fault
		if k.once {
			k.fault = nil
		}
		return nil, err
	}
	return k.KeySource.VerifyKeys(ctx, kid)
}

func TestDuplicateCookies_AtMostSixteenAreVerified(t *testing.T) {
	t.Parallel()
	key := auth.HS256([]byte("a secret that has 32 bytes at least"))
	keys := &countingKeys{KeySource: auth.Keys{key}}
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: keys, Cookies: &auth.Cookies{}})
	require.NoError(t, err)
	wrong := func(i int) string {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(`{"alg":"HS256","typ":"at+jwt"}`)) + "." + enc(fmt.Append(nil, "{", i, "}")) + "." + enc([]byte("signature"))
	}
	var values []string
	for i := range 50 {
		values = append(values, wrong(i))
	}
	_, byCookie, err := v.AccessToken(newRequest(reqCookies(accessCookie, values...)))
	require.NoError(t, err)
	require.True(t, byCookie)
	require.Equal(t, 16, keys.n)

	// If the keys are unavailable, that is an outage, not an invalid cookie.
	keys.fault = errStore
	send(t, v.Require()(hello), "GET", "/", reqCookies(accessCookie, values...)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, v.Optional(hello), "GET", "/", reqCookies(accessCookie, values...)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, v.Optional(hello), "GET", "/", reqCookies(accessCookie, values[0])).requireRefused(t, 503, "temporarily_unavailable", "")
	// Which of two cookies counts is unknown while one cannot be verified.
	keys.fault, keys.once = errStore, true
	_, _, err = v.AccessToken(newRequest(reqCookies(accessCookie, values[:2]...)))
	require.ErrorIs(t, err, auth.ErrUnavailable)
}

func TestCredentials_UndecidableOnesAreUnavailable(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	one, two := fx.login(t), fx.login(t)
	// The feed has not been read, so it is unknown which session was revoked.
	late, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: fx.users, Hasher: fastHasher, Now: fx.clock.Now,
		Store: fx.store, Cookies: &auth.Cookies{},
	})
	require.NoError(t, err)
	for _, options := range [][]requestOption{
		{reqBearer(one.Access), reqCookie(accessCookie, two.Access)},
		{reqBearer(one.Access), reqCookie(accessCookie, "junk")},
		{reqBearer("junk"), reqCookie(accessCookie, two.Access)},
		{reqCookies(accessCookie, "junk", one.Access)},
	} {
		for _, h := range []http.Handler{late.Require()(hello), late.Optional(hello)} {
			for _, method := range []string{"GET", "POST"} {
				send(t, h, method, "/", options...).requireRefused(t, 503, "temporarily_unavailable", "")
			}
		}
	}
	// The store cannot say which of the two sessions exists.
	fx.store.failBefore("Get", errStore)
	both := []requestOption{reqCookie(refreshCookie, one.Refresh), reqHeader("Refresh-Token", two.Refresh)}
	send(t, fx.RefreshHandler(), "POST", "/refresh", both...).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("Get", nil)
	send(t, fx.RefreshHandler(), "POST", "/refresh", both...).requireRefused(t, 400, "invalid_request", "login")
	require.Zero(t, fx.store.count("Rotate"))
}

func TestCSRF(t *testing.T) {
	t.Parallel()
	const trusted = "https://app.example.org"
	fx := newFixture(t, withCookies(allowBody, func(c *auth.Cookies) { c.TrustedOrigins = []string{trusted} }))
	fetch := func(site, origin string) requestOption {
		return func(r *http.Request) {
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
		}
	}
	upgrade := func(r *http.Request) {
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Connection", "Upgrade")
	}
	allow := func(h http.Handler, method, path string, status int, options ...requestOption) {
		t.Helper()
		r := send(t, h, method, path, options...)
		require.Equal(t, status, r.status, r.body)
	}
	refuse := func(h http.Handler, method, path string, options ...requestOption) {
		t.Helper()
		send(t, h, method, path, options...).requireRefused(t, 403, "cross_origin", "")
	}
	protected, optional, stream := fx.Require()(hello), fx.Optional(hello), fx.RequireStream()(hello)
	for _, tt := range []struct {
		name, site, origin string
		good               bool
	}{
		{"no browser", "", "", true},
		{"same origin", "same-origin", "http://example.com", true},
		{"typed by the user", "none", "", true},
		{"trusted", "cross-site", trusted, true},
		{"trusted, same site", "same-site", trusted, true},
		{"trusted, old browser", "", trusted, true},
		{"old browser, same host", "", "https://example.com", true},
		{"cross-site", "cross-site", "https://evil.example", false},
		{"cross-site without origin", "cross-site", "", false},
		{"same site", "same-site", "https://blog.example.com", false},
		{"old browser", "", "https://evil.example", false},
		{"old browser, sandboxed", "", "null", false},
		{"sandboxed", "cross-site", "null", false},
		{"trusted except for the scheme", "cross-site", "http://app.example.org", false},
		{"trusted except for the port", "cross-site", trusted + ":8443", false},
		{"trusted as a prefix", "cross-site", trusted + ".evil.example", false},
		{"other port", "", "https://example.com:8443", false},
		{"unknown value", "future", "https://example.com", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := fetch(tt.site, tt.origin)
			k := fx.login(t)
			access, refresh := reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh)
			check := func(h http.Handler, method, path string, status int, options ...requestOption) {
				t.Helper()
				if tt.good {
					allow(h, method, path, status, append(options, from)...)
				} else {
					refuse(h, method, path, append(options, from)...)
				}
			}
			check(fx.LoginHandler(), "POST", "/login", 200, reqJSON(goodLogin))
			check(fx.LoginHandler(), "POST", "/login", 200, reqForm("login=ada&password=correct+horse+battery+staple&delivery=cookie"))
			check(fx.RefreshHandler(), "POST", "/refresh", 200, refresh)
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "BREW", "get"} {
				check(protected, method, "/", 200, access)
				check(optional, method, "/", 200, access)
			}
			check(protected, "GET", "/", 200, access, upgrade)
			check(optional, "GET", "/", 200, access, upgrade)
			for _, h := range []http.Handler{protected, optional, stream} {
				check(h, "GET", "/", 200, access, webSocket)
				check(h, "GET", "/", 200, access, eventSource)
				check(h, "GET", "/", 200, access, extendedConnect)
			}
			check(fx.TicketHandler(), "POST", "/ticket", 200, access, reqJSON(`{"path":"/"}`))
			check(fx.LogoutAllHandler(), "POST", "/logout/all?others=true", 204, access)
			check(fx.Handler(), "DELETE", "/sessions/x", 404, access)
			check(fx.LogoutHandler(), "POST", "/logout", 204)

			// Safe methods, and tokens outside of cookies, are allowed from any
			// origin.
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				allow(protected, method, "/", 200, fx.freshCookie(t), from)
			}
			own := fx.login(t)
			allow(fx.LoginHandler(), "POST", "/login", 200, reqJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`), from)
			allow(fx.RefreshHandler(), "POST", "/refresh", 200, reqHeader("Refresh-Token", own.Refresh), from)
			allow(protected, "POST", "/", 200, reqBearer(own.Access), from)
			allow(protected, "GET", "/", 200, reqBearer(own.Access), upgrade, from)
			allow(stream, "GET", "/", 200, reqBearer(own.Access), eventSource, from)
			allow(stream, "GET", "/?ticket="+fx.ticket(t, own.Access, "/"), 200, eventSource, from)
			allow(stream, "GET", "/?ticket="+fx.ticket(t, own.Access, "/"), 200, webSocket, access, from)
			allow(optional, "POST", "/", 200, from)
			allow(fx.LogoutHandler(), "POST", "/logout", 204, reqBearer(own.Access), from)

			if !tt.good {
				r := newRequest(from, access, refresh)
				r.Method = http.MethodPost
				token, byCookie, err := fx.AccessToken(r)
				require.ErrorIs(t, err, auth.ErrCrossOrigin)
				require.True(t, byCookie)
				require.Empty(t, token)
				token, _, err = fx.RefreshRequest(r)
				require.ErrorIs(t, err, auth.ErrCrossOrigin)
				require.Empty(t, token)
			}
			r := newRequest(from)
			require.NoError(t, fx.CheckOrigin(r))
			upgrade(r)
			r.Method = http.MethodGet
			if tt.good {
				require.NoError(t, fx.CheckOrigin(r))
			} else {
				require.ErrorIs(t, fx.CheckOrigin(r), auth.ErrCrossOrigin)
			}
			require.Equal(t, http.MethodGet, r.Method, "the request must not be changed")
			require.NoError(t, newFixture(t).CheckOrigin(r), "without cookies there is nothing to protect")
			r.Method = http.MethodPost
			require.NoError(t, newFixture(t).CheckOrigin(r))
		})
	}
}

func TestRefreshRequest_LeavesTheBodyToBeReadAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	r := newRequest(reqJSON(`{"refresh_token":"abc","mine":"x"}`))
	r.Method = http.MethodPost
	for range 2 {
		token, o, err := fx.RefreshRequest(r)
		require.NoError(t, err)
		require.True(t, o.InBody)
		require.Equal(t, "abc", token)
		tokens, byCookie, err := fx.RequestTokens(r)
		require.NoError(t, err)
		require.False(t, byCookie)
		require.Equal(t, []string{"abc"}, tokens)
	}
	var own struct{ Mine string }
	require.NoError(t, json.NewDecoder(r.Body).Decode(&own))
	require.Equal(t, "x", own.Mine)
}

func TestRequestTokens_ReadsEveryExtractor(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t"), auth.FromCookie()))
	tokens, byCookie, err := fx.RequestTokens(newRequest(
		reqBearer("bearer"), reqHeader("X-T", "header"), func(r *http.Request) { r.URL.RawQuery = "t=query" },
		reqCookies(accessCookie, "a1", "a2", "a3", "a4", "a5"), reqCookies(refreshCookie, "r1", "", "r3", "r4", "r5"),
		reqHeader("Refresh-Token", "h1", "h2"), reqJSON(`{"refresh_token":"snake","refreshToken":"camel"}`)))
	require.NoError(t, err)
	require.True(t, byCookie)
	require.ElementsMatch(t, []string{"bearer", "header", "query", "a1", "a2", "a3", "a4", "a5", "r1", "r3", "r4", "r5", "h1", "h2", "snake", "camel"}, tokens)
	tokens, byCookie, err = fx.RequestTokens(newRequest(reqHeader("Authorization", "Bearer", "Bearer a, Bearer b", "Basic x", "bearer\tc"),
		reqHeader("X-T", "d, e", "d"), func(r *http.Request) { r.URL.RawQuery = "t=f&t=%zz&t=g;&t=h&x=i" }))
	require.NoError(t, err)
	require.False(t, byCookie)
	require.ElementsMatch(t, []string{"a", "Bearer", "b", "c", "d", "e", "f", "h"}, tokens)
}

func FuzzAccessToken(f *testing.F) {
	fx := newFixture(f, withCookies(), withExtractors(auth.FromBearer(), auth.FromCookie(), auth.FromHeader("X-T"), auth.FromQuery("t")))
	token := fx.login(f).Access
	for _, s := range []string{"", "Bearer abc", "bearer  abc ", "Bearer a,b", "Basic x"} {
		f.Add(s, "Basic YTpi", "__Host-access=x; __Host-access=y", "", "")
		f.Add(s, "Bearer TOKEN", "__Host-access=TOKEN", "TOKEN", "t=TOKEN")
	}
	f.Fuzz(func(t *testing.T, one, two, cookie, header, query string) {
		// Tokens differ in every process.
		put := func(s string) string { return strings.ReplaceAll(s, "TOKEN", token) }
		r := newRequest(reqHeader("Authorization", put(one), put(two)), reqHeader("Cookie", put(cookie)), reqHeader("X-T", put(header)))
		r.URL.RawQuery = put(query)
		found, _, err := fx.AccessToken(r)
		if err != nil {
			require.Empty(t, found)
			require.True(t, slices.ContainsFunc([]error{auth.ErrNoToken, auth.ErrInvalidRequest}, func(e error) bool { return errors.Is(err, e) }), "%v", err)
			return
		}
		require.NotEmpty(t, found)
		if c, err := fx.Authenticate(r); err == nil {
			require.Equal(t, "u1", c.Subject)
			require.Equal(t, token, found)
		}
	})
}

func TestDuplicateCookies_IgnoresTheOneOfAnEndedSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	one, two := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1", one.SessionID))
	require.Equal(t, 200, send(t, fx.Require()(hello), "GET", "/", reqCookies(accessCookie, one.Access, two.Access)).status)
	require.Equal(t, 200, send(t, fx.RefreshHandler(), "POST", "/", reqCookies(refreshCookie, one.Refresh, two.Refresh)).status)
	fx.clock.Advance(8 * 24 * time.Hour)
	three := fx.login(t)
	require.Equal(t, 200, send(t, fx.RefreshHandler(), "POST", "/", reqCookies(refreshCookie, two.Refresh, three.Refresh)).status)
}
