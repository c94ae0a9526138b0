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

// requestOf makes a request for what reads one.
func requestOf(options ...webOption) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, o := range options {
		o(r)
	}
	return r
}

func withExtractors(es ...auth.Extractor) func(*auth.Config) {
	return func(c *auth.Config) { c.Extractors = es }
}

func TestAccessToken_Bearer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
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
		{[]string{"Digest abc"}, "", auth.ErrNoToken}, // six letters as well
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
		var o webOption = func(*http.Request) {}
		if tt.headers != nil {
			o = webHeader("Authorization", tt.headers...)
		}
		token, byCookie, err := b.AccessToken(requestOf(o))
		require.Equal(t, tt.token, token, "%q", tt.headers)
		require.ErrorIs(t, err, tt.err, "%q", tt.headers)
		require.False(t, byCookie)
	}
}

func TestAccessToken_OtherPlaces(t *testing.T) {
	t.Parallel()
	query := func(raw string) webOption { return func(r *http.Request) { r.URL.RawQuery = raw } }
	for name, tt := range map[string]struct {
		es      []auth.Extractor
		options []webOption
		token   string
		err     error
	}{
		"header":                      {[]auth.Extractor{auth.FromHeader("x-access-token")}, []webOption{webHeader("X-Access-Token", "abc")}, "abc", nil},
		"header twice":                {[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []webOption{webHeader("X-Access-Token", "abc", "abc")}, "", auth.ErrInvalidRequest},
		"header, not asked for":       {nil, []webOption{webHeader("X-Access-Token", "abc")}, "", auth.ErrNoToken},
		"header, empty":               {[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []webOption{webHeader("X-Access-Token", "")}, "", auth.ErrNoToken},
		"bearer, not asked for":       {[]auth.Extractor{auth.FromHeader("X-Access-Token")}, []webOption{webBearer("abc")}, "", auth.ErrNoToken},
		"query":                       {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("a=b&access_token=abc")}, "abc", nil},
		"query, name escaped":         {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access%5Ftoken=abc")}, "abc", nil},
		"query, name with a space":    {[]auth.Extractor{auth.FromQuery("access token")}, []webOption{query("access+token=abc")}, "abc", nil},
		"query, another name":         {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("Access_Token=abc&my_access_token=x")}, "", auth.ErrNoToken},
		"query twice":                 {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access_token=abc&access_token=abc")}, "", auth.ErrInvalidRequest},
		"query twice, differ":         {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access_token=abc&access%5Ftoken=abd")}, "", auth.ErrInvalidRequest},
		"query twice, one unreadable": {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access_token=abc&access_token=%zz")}, "", auth.ErrInvalidRequest},
		"query that cannot be read":   {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access_token=%zz")}, "", auth.ErrInvalidRequest},
		"query with a semicolon":      {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("access_token=abc;x=1")}, "", auth.ErrInvalidRequest},
		"query behind a semicolon":    {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("x=1;access_token=abc")}, "", auth.ErrNoToken},
		"query, others unreadable":    {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("q=a;b&%zz=1&access_token=abc&x=100%&x=%zz")}, "abc", nil},
		"query of others, percent":    {[]auth.Extractor{auth.FromBearer(), auth.FromQuery("t")}, []webOption{query("q=100%&other=x%20y"), webBearer("abc")}, "abc", nil},
		"query of that name, beside":  {[]auth.Extractor{auth.FromBearer(), auth.FromQuery("t")}, []webOption{query("t=a&t=a"), webBearer("abc")}, "", auth.ErrInvalidRequest},
		"query of others, malformed":  {[]auth.Extractor{auth.FromQuery("access_token")}, []webOption{query("x;y")}, "", auth.ErrNoToken},
		"query, not asked for":        {nil, []webOption{query("access_token=abc&token=abc&jwt=abc")}, "", auth.ErrNoToken},
		"two places, same":            {[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t")}, []webOption{webBearer("abc"), webHeader("X-T", "abc"), query("t=abc")}, "abc", nil},
		"two places, neither counts":  {[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T")}, []webOption{webBearer("abc"), webHeader("X-T", "abd")}, "abc", nil},
		"the header's is told":        {[]auth.Extractor{auth.FromQuery("t"), auth.FromBearer()}, []webOption{webBearer("abc"), query("t=x")}, "abc", nil},
		"two places, one unreadable":  {[]auth.Extractor{auth.FromBearer(), auth.FromHeader("X-T")}, []webOption{webBearer(""), webHeader("X-T", "abd")}, "", auth.ErrInvalidRequest},
		"only the last has one":       {[]auth.Extractor{auth.FromQuery("t"), auth.FromHeader("X-T"), auth.FromBearer()}, []webOption{webBearer("abc")}, "abc", nil},
	} {
		b := newBench(t, withExtractors(tt.es...))
		token, byCookie, err := b.AccessToken(requestOf(tt.options...))
		require.Equal(t, tt.token, token, name)
		require.ErrorIs(t, err, tt.err, name)
		require.False(t, byCookie)
	}
}

func TestAccessToken_TellsWhetherItCameByCookie(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	for _, options := range [][]webOption{
		{webCookie(accessCookie, "abc")},
		{webCookie(accessCookie, "abc"), webCookie("other", "x"), webCookie(refreshCookie, "y"), webCookie("__host-access", "z"), webCookie("access", "z")},
		{webCookie(accessCookie, "abc"), webHeader("Authorization", "Basic YTpi")},
		{webCookie(accessCookie, "abc"), webCookie(accessCookie, "abc")},
		{webCookie(accessCookie, ""), webCookie(accessCookie, "abc")},
	} {
		token, byCookie, err := b.AccessToken(requestOf(options...))
		require.NoError(t, err)
		require.Equal(t, "abc", token)
		require.True(t, byCookie)
	}
	// What is in a header too was not sent by the browser alone.
	for _, es := range [][]auth.Extractor{nil, {auth.FromCookie(), auth.FromBearer()}} {
		b := newBench(t, withCookies(), withExtractors(es...))
		token, byCookie, err := b.AccessToken(requestOf(webBearer("abc"), webCookie(accessCookie, "abc")))
		require.NoError(t, err)
		require.Equal(t, "abc", token)
		require.False(t, byCookie)
		token, byCookie, err = b.AccessToken(requestOf(webBearer("abc"), webCookie(accessCookie, "abd")))
		require.NoError(t, err)
		require.Equal(t, "abc", token, "if none counts, the header's is told")
		require.False(t, byCookie)
	}
	_, _, err := newBench(t).AccessToken(requestOf(webCookie(accessCookie, "abc")))
	require.ErrorIs(t, err, auth.ErrNoToken, "without Config.Cookies there are none")
	_, _, err = newBench(t, withCookies(), withExtractors(auth.FromBearer())).AccessToken(requestOf(webCookie(accessCookie, "abc")))
	require.ErrorIs(t, err, auth.ErrNoToken, "a cookie that is not extracted")
}

func TestAccessToken_OfOneSessionTheHeadersCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromHeader("X-T"), auth.FromBearer()))
	ks := b.chain(t, 3)
	inQuery := func(token string) webOption { return func(r *http.Request) { r.URL.RawQuery = "t=" + token } }
	for _, tt := range []struct {
		options  []webOption
		want     int
		byCookie bool
	}{
		{[]webOption{webBearer(ks[0].Access), webCookie(accessCookie, ks[2].Access), inQuery(ks[1].Access)}, 0, false},
		{[]webOption{webHeader("X-T", ks[1].Access), webBearer(ks[0].Access)}, 1, false}, // the first of the extractors
		{[]webOption{inQuery(ks[0].Access), webCookie(accessCookie, ks[2].Access)}, 0, false},
		{[]webOption{cookiesOf(accessCookie, ks[1].Access, ks[2].Access, ks[0].Access), webBearer("junk"), inQuery("junk")}, 2, true},
	} {
		for range 2 {
			token, byCookie, err := b.AccessToken(requestOf(tt.options...))
			require.NoError(t, err)
			require.Equal(t, ks[tt.want].Access, token)
			require.Equal(t, tt.byCookie, byCookie)
		}
	}
}

func TestVary_NamesWhatIsLookedAt(t *testing.T) {
	t.Parallel()
	for want, es := range map[string][]auth.Extractor{
		"Authorization, Cookie":      nil,
		"X-T, Cookie":                {auth.FromHeader("x-t"), auth.FromCookie(), auth.FromQuery("t")},
		"Authorization, X-T":         {auth.FromBearer(), auth.FromHeader("X-T")},
		"Cookie, Authorization, X-U": {auth.FromCookie(), auth.FromBearer(), auth.FromHeader("X-u")},
		"":                           {auth.FromQuery("t")},
	} {
		b := newBench(t, withCookies(), withExtractors(es...))
		for _, h := range []http.Handler{b.Require()(hello), b.Optional(hello)} {
			outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", "Origin")
				h.ServeHTTP(w, r)
			})
			require.Equal(t, want, strings.Join(ask(t, h, "GET", "/").header.Values("Vary"), "|"))
			require.Equal(t, strings.TrimSuffix("Origin|"+want, "|"), strings.Join(ask(t, outer, "GET", "/").header.Values("Vary"), "|"), "what is there already stays")
		}
	}
}

func TestVary_IsSafeForConcurrentRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.Require()(hello)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, requestOf())
			w.Header().Add("Vary", "Accept")
			w.Header()["Vary"][0] = "spoiled"
		})
	}
	wg.Wait()
	require.Equal(t, []string{"Authorization, Cookie"}, ask(t, h, "GET", "/").header["Vary"])
}

func TestExtractors_AreCheckedByNew(t *testing.T) {
	t.Parallel()
	for want, es := range map[string][]auth.Extractor{
		"Extractors[1] is the zero Extractor":                        {auth.FromBearer(), {}},
		"Extractors[0] has no usable name":                           {auth.FromHeader("")},
		"Extractors[0]: header Authorization carries something else": {auth.FromHeader("authorization")},
		"Extractors[0]: header Cookie carries something else":        {auth.FromHeader("cookie")},
		"Extractors[0]: header Refresh-Token carries something else": {auth.FromHeader("REFRESH-TOKEN")},
		"Extractors[1] has no usable name":                           {auth.FromBearer(), auth.FromQuery("")},
		"Extractors[2] has no usable name":                           {auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("X Y")},
		"Extractors[3] has no usable name":                           {auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("T"), auth.FromHeader("X:Y")},
		"Extractors[0] reads a cookie, but Cookies is nil":           {auth.FromCookie()},
		"Extractors[2] is there twice":                               {auth.FromBearer(), auth.FromHeader("X-T"), auth.FromHeader("x-t")},
		"Extractors[4] has no usable name":                           {auth.FromBearer(), auth.FromQuery("t"), auth.FromHeader("T"), auth.FromHeader("U"), auth.FromHeader("é")},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Extractors: es})
		require.ErrorContains(t, err, "auth: Config."+want)
		_, err = auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Extractors: es})
		require.ErrorContains(t, err, "auth: VerifierConfig."+want)
	}
	es := []auth.Extractor{auth.FromBearer()}
	b := newBench(t, withExtractors(es...))
	es[0] = auth.FromQuery("t")
	token, _, err := b.AccessToken(requestOf(webBearer("abc")))
	require.NoError(t, err, "they are copied")
	require.Equal(t, "abc", token)
}

// chain returns n refresh tokens of one session, the oldest first.
func (b *bench) chain(t testing.TB, n int) (tokens []auth.Tokens) {
	t.Helper()
	k := b.login(t)
	tokens = append(tokens, k)
	for range n - 1 {
		b.clock.advance(time.Minute)
		var err error
		k, err = b.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		tokens = append(tokens, k)
	}
	return tokens
}

func cookiesOf(name string, values ...string) webOption {
	return func(r *http.Request) {
		for _, v := range values {
			r.AddCookie(&http.Cookie{Name: name, Value: v})
		}
	}
}

func TestDuplicateCookies_NewestOfOneSessionCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	ks := b.chain(t, 3)
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var refresh, access []string
		for _, i := range order {
			refresh, access = append(refresh, ks[i].Refresh), append(access, ks[i].Access)
		}
		for _, more := range [][]string{nil, {"garbage"}} {
			token, byCookie, err := b.RefreshToken(requestOf(cookiesOf(refreshCookie, append(more, refresh...)...)))
			require.NoError(t, err)
			require.True(t, byCookie)
			require.Equal(t, ks[2].Refresh, token)
			token, byCookie, err = b.AccessToken(requestOf(cookiesOf(accessCookie, append(more, access...)...)))
			require.NoError(t, err)
			require.True(t, byCookie)
			require.Equal(t, ks[2].Access, token)
		}
	}
	// Exactly one token reaches Rotate, so the older ones are not reuse.
	before := b.store.count("Rotate")
	r := ask(t, b.RefreshHandler(), "POST", "/refresh", cookiesOf(refreshCookie, ks[0].Refresh, ks[1].Refresh, "garbage", ks[2].Refresh))
	require.Equal(t, 200, r.status, r.body)
	require.Equal(t, before+1, b.store.count("Rotate"))
	require.Empty(t, b.events.take(auth.EventReuse))
}

func TestDuplicateCookies_OfTwoSessionsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	one, two := b.login(t), b.login(t)
	bob, err := b.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for _, other := range []auth.Tokens{two, bob} {
		for _, flip := range []bool{false, true} {
			refresh, access := []string{one.Refresh, "garbage", other.Refresh}, []string{one.Access, "garbage", other.Access}
			if flip {
				slices.Reverse(refresh)
				slices.Reverse(access)
			}
			ask(t, b.RefreshHandler(), "POST", "/refresh", cookiesOf(refreshCookie, refresh...)).refused(t, 400, "invalid_request", "login")
			ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, access...)).refused(t, 400, "invalid_request", "login")
			ask(t, b.Optional(hello), "GET", "/", cookiesOf(accessCookie, access...)).refused(t, 400, "invalid_request", "login")
		}
	}
	require.Zero(t, b.store.count("Rotate"))
	// Logout ends what both name.
	r := ask(t, b.LogoutHandler(), "POST", "/logout", cookiesOf(refreshCookie, one.Refresh, two.Refresh))
	r.nothing(t)
	r.cleared(t)
	list, err := b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestDuplicateCookies_InvalidOnesDoNotCount(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	k := b.login(t)
	foreign, err := newBench(t, withCookies(), func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} }).
		Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for _, values := range [][]string{
		{k.Refresh}, {"a", k.Refresh}, {k.Refresh, "a"}, {"a", "b", k.Refresh}, {"a", "b", "c", k.Refresh}, {"", "", "", "", "", k.Refresh},
		{"a", "a", "a", "a", "a", k.Refresh}, {foreign.Refresh, k.Refresh}, {k.Access, k.Refresh},
	} {
		token, _, err := b.RefreshToken(requestOf(cookiesOf(refreshCookie, values...)))
		require.NoError(t, err)
		require.Equal(t, k.Refresh, token, "%q", values)
	}
	// Of refresh cookies all are read, of access cookies sixteen that differ.
	var junk []string
	for i := range 15 {
		junk = append(junk, "junk"+strconv.Itoa(i), "junk"+strconv.Itoa(i))
	}
	for _, values := range [][]string{append(slices.Clone(junk), k.Access), append([]string{k.Access}, junk...)} {
		require.Equal(t, "hello ada", ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, values...)).body)
	}
	ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, append(junk, "one more", k.Access)...)).refused(t, 401, "invalid_token", "login")
	for i := range 500 {
		junk = append(junk, "x.y."+strconv.Itoa(i))
	}
	for _, values := range [][]string{append(slices.Clone(junk), k.Refresh), append([]string{k.Refresh}, junk...)} {
		token, _, err := b.RefreshToken(requestOf(cookiesOf(refreshCookie, values...)))
		require.NoError(t, err)
		require.Equal(t, k.Refresh, token)
	}
	ask(t, b.RefreshHandler(), "POST", "/refresh", cookiesOf(refreshCookie, "a", "b")).refused(t, 401, "invalid_grant", "login")
	ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, "a", "b")).refused(t, 401, "invalid_token", "login")
	// An expired one is worth more than garbage: the client shall refresh.
	b.clock.advance(time.Hour)
	ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, "a", k.Access)).refused(t, 401, "invalid_token", "refresh")
}

// countingKeys counts how often keys are asked for.
type countingKeys struct {
	auth.KeySource
	mu    sync.Mutex
	n     int
	fault error
	once  bool // fault is only the next answer
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
	_, byCookie, err := v.AccessToken(requestOf(cookiesOf(accessCookie, values...)))
	require.NoError(t, err)
	require.True(t, byCookie)
	require.Equal(t, 16, keys.n)

	// Keys that cannot be had are an outage, and not an invalid cookie.
	keys.fault = errStore
	ask(t, v.Require()(hello), "GET", "/", cookiesOf(accessCookie, values...)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, v.Optional(hello), "GET", "/", cookiesOf(accessCookie, values...)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, v.Optional(hello), "GET", "/", cookiesOf(accessCookie, values[0])).refused(t, 503, "temporarily_unavailable", "")
	// Which of two cookies counts cannot be said while one is not known.
	keys.fault, keys.once = errStore, true
	_, _, err = v.AccessToken(requestOf(cookiesOf(accessCookie, values[:2]...)))
	require.ErrorIs(t, err, auth.ErrUnavailable)
}

func TestCredentials_ThatCannotBeDecidedAreUnavailable(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	one, two := b.login(t), b.login(t)
	// A feed that was not read yet: nobody knows which of them was revoked.
	late, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: b.users, Hasher: cheap, Now: b.clock.Now,
		Store: b.store, Cookies: &auth.Cookies{},
	})
	require.NoError(t, err)
	for _, options := range [][]webOption{
		{webBearer(one.Access), webCookie(accessCookie, two.Access)},
		{webBearer(one.Access), webCookie(accessCookie, "junk")},
		{webBearer("junk"), webCookie(accessCookie, two.Access)},
		{cookiesOf(accessCookie, "junk", one.Access)},
	} {
		for _, h := range []http.Handler{late.Require()(hello), late.Optional(hello)} {
			for _, method := range []string{"GET", "POST"} {
				ask(t, h, method, "/", options...).refused(t, 503, "temporarily_unavailable", "")
			}
		}
	}
	// Refresh tokens of two sessions, and a store that does not say which lives.
	b.store.failBefore("Get", errStore)
	both := []webOption{webCookie(refreshCookie, one.Refresh), webHeader("Refresh-Token", two.Refresh)}
	ask(t, b.RefreshHandler(), "POST", "/refresh", both...).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("Get", nil)
	ask(t, b.RefreshHandler(), "POST", "/refresh", both...).refused(t, 400, "invalid_request", "login")
	require.Zero(t, b.store.count("Rotate"))
}

func TestCSRF(t *testing.T) {
	t.Parallel()
	const trusted = "https://app.example.org"
	b := newBench(t, withCookies(allowBody, func(c *auth.Cookies) { c.TrustedOrigins = []string{trusted} }))
	fetch := func(site, origin string) webOption {
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
	allow := func(h http.Handler, method, path string, status int, options ...webOption) {
		t.Helper()
		r := ask(t, h, method, path, options...)
		require.Equal(t, status, r.status, r.body)
	}
	refuse := func(h http.Handler, method, path string, options ...webOption) {
		t.Helper()
		ask(t, h, method, path, options...).refused(t, 403, "cross_origin", "")
	}
	protected, optional := b.Require()(hello), b.Optional(hello)
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
		{"trusted but for the scheme", "cross-site", "http://app.example.org", false},
		{"trusted but for the port", "cross-site", trusted + ":8443", false},
		{"trusted as a prefix", "cross-site", trusted + ".evil.example", false},
		{"other port", "", "https://example.com:8443", false},
		{"site of the future", "future", "https://example.com", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := fetch(tt.site, tt.origin)
			k := b.login(t)
			access, refresh := webCookie(accessCookie, k.Access), webCookie(refreshCookie, k.Refresh)
			judge := func(h http.Handler, method, path string, status int, options ...webOption) {
				t.Helper()
				if tt.good {
					allow(h, method, path, status, append(options, from)...)
				} else {
					refuse(h, method, path, append(options, from)...)
				}
			}
			judge(b.LoginHandler(), "POST", "/login", 200, webJSON(goodLogin))
			judge(b.LoginHandler(), "POST", "/login", 200, webForm("login=ada&password=correct+horse+battery+staple&delivery=cookie"))
			judge(b.RefreshHandler(), "POST", "/refresh", 200, refresh)
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "BREW", "get"} {
				judge(protected, method, "/", 200, access)
				judge(optional, method, "/", 200, access)
			}
			judge(protected, "GET", "/", 200, access, upgrade)
			judge(optional, "GET", "/", 200, access, upgrade)
			judge(b.LogoutAllHandler(), "POST", "/logout/all?others=true", 204, access)
			judge(b.Handler(), "DELETE", "/sessions/x", 404, access)
			judge(b.LogoutHandler(), "POST", "/logout", 204)

			// What is safe, or is no cookie, is everybody's.
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				allow(protected, method, "/", 200, b.freshCookie(t), from)
			}
			own := b.login(t)
			allow(b.LoginHandler(), "POST", "/login", 200, webJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`), from)
			allow(b.RefreshHandler(), "POST", "/refresh", 200, webHeader("Refresh-Token", own.Refresh), from)
			allow(protected, "POST", "/", 200, webBearer(own.Access), from)
			allow(protected, "GET", "/", 200, webBearer(own.Access), upgrade, from)
			allow(optional, "POST", "/", 200, from)
			allow(b.LogoutHandler(), "POST", "/logout", 204, webBearer(own.Access), from)

			if !tt.good {
				r := requestOf(from, access, refresh)
				r.Method = http.MethodPost
				token, byCookie, err := b.AccessToken(r)
				require.ErrorIs(t, err, auth.ErrCrossOrigin)
				require.True(t, byCookie)
				require.Empty(t, token)
				token, byCookie, err = b.RefreshToken(r)
				require.ErrorIs(t, err, auth.ErrCrossOrigin)
				require.True(t, byCookie)
				require.Empty(t, token)
			}
			r := requestOf(from)
			require.NoError(t, b.CheckOrigin(r))
			upgrade(r)
			r.Method = http.MethodGet
			if tt.good {
				require.NoError(t, b.CheckOrigin(r))
			} else {
				require.ErrorIs(t, b.CheckOrigin(r), auth.ErrCrossOrigin)
			}
			require.Equal(t, http.MethodGet, r.Method, "the request is left as it is")
			require.NoError(t, newBench(t).CheckOrigin(r), "without cookies there is nothing to protect")
			r.Method = http.MethodPost
			require.NoError(t, newBench(t).CheckOrigin(r))
		})
	}
}

func (b *bench) freshCookie(t testing.TB) webOption {
	t.Helper()
	return webCookie(accessCookie, b.login(t).Access)
}

func TestRefreshToken_LeavesTheBodyToBeReadAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := requestOf(webJSON(`{"refresh_token":"abc","mine":"x"}`))
	r.Method = http.MethodPost
	for range 2 {
		token, byCookie, err := b.RefreshToken(r)
		require.NoError(t, err)
		require.False(t, byCookie)
		require.Equal(t, "abc", token)
		tokens, byCookie, err := b.RequestTokens(r)
		require.NoError(t, err)
		require.False(t, byCookie)
		require.Equal(t, []string{"abc"}, tokens)
	}
	var own struct{ Mine string }
	require.NoError(t, json.NewDecoder(r.Body).Decode(&own))
	require.Equal(t, "x", own.Mine)
}

func TestRequestTokens_FindsEveryPlace(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t"), auth.FromCookie()))
	tokens, byCookie, err := b.RequestTokens(requestOf(
		webBearer("bearer"), webHeader("X-T", "header"), func(r *http.Request) { r.URL.RawQuery = "t=query" },
		cookiesOf(accessCookie, "a1", "a2", "a3", "a4", "a5"), cookiesOf(refreshCookie, "r1", "", "r3", "r4", "r5"),
		webHeader("Refresh-Token", "h1", "h2"), webJSON(`{"refresh_token":"snake","refreshToken":"camel"}`)))
	require.NoError(t, err)
	require.True(t, byCookie)
	require.ElementsMatch(t, []string{"bearer", "header", "query", "a1", "a2", "a3", "a4", "a5", "r1", "r3", "r4", "r5", "h1", "h2", "snake", "camel"}, tokens)
	tokens, byCookie, err = b.RequestTokens(requestOf(webHeader("Authorization", "Bearer", "Bearer a, Bearer b", "Basic x", "bearer\tc"),
		webHeader("X-T", "d, e", "d"), func(r *http.Request) { r.URL.RawQuery = "t=f&t=%zz&t=g;&t=h&x=i" }))
	require.NoError(t, err)
	require.False(t, byCookie)
	require.ElementsMatch(t, []string{"a", "Bearer", "b", "c", "d", "e", "f", "h"}, tokens)
}

func FuzzAccessToken(f *testing.F) {
	b := newBench(f, withCookies(), withExtractors(auth.FromBearer(), auth.FromCookie(), auth.FromHeader("X-T"), auth.FromQuery("t")))
	token := b.login(f).Access
	for _, s := range []string{"", "Bearer abc", "bearer  abc ", "Bearer a,b", "Basic x"} {
		f.Add(s, "Basic YTpi", "__Host-access=x; __Host-access=y", "", "")
		f.Add(s, "Bearer TOKEN", "__Host-access=TOKEN", "TOKEN", "t=TOKEN")
	}
	f.Fuzz(func(t *testing.T, one, two, cookie, header, query string) {
		// A token is another one in every process.
		put := func(s string) string { return strings.ReplaceAll(s, "TOKEN", token) }
		r := requestOf(webHeader("Authorization", put(one), put(two)), webHeader("Cookie", put(cookie)), webHeader("X-T", put(header)))
		r.URL.RawQuery = put(query)
		found, _, err := b.AccessToken(r)
		if err != nil {
			require.Empty(t, found)
			require.True(t, slices.ContainsFunc([]error{auth.ErrNoToken, auth.ErrInvalidRequest}, func(e error) bool { return errors.Is(err, e) }), "%v", err)
			return
		}
		require.NotEmpty(t, found)
		if c, err := b.Authenticate(r); err == nil {
			require.Equal(t, "u1", c.Subject)
			require.Equal(t, token, found)
		}
	})
}

func TestDuplicateCookies_OneThatIsOverDoesNotStandInTheWay(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	one, two := b.login(t), b.login(t)
	require.NoError(t, b.Revoke(context.Background(), "u1", one.SessionID))
	require.Equal(t, 200, ask(t, b.Require()(hello), "GET", "/", cookiesOf(accessCookie, one.Access, two.Access)).status)
	require.Equal(t, 200, ask(t, b.RefreshHandler(), "POST", "/", cookiesOf(refreshCookie, one.Refresh, two.Refresh)).status)
	b.clock.advance(8 * 24 * time.Hour)
	three := b.login(t)
	require.Equal(t, 200, ask(t, b.RefreshHandler(), "POST", "/", cookiesOf(refreshCookie, two.Refresh, three.Refresh)).status)
}
