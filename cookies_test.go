package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// set returns the Set-Cookie header lines that f writes.
func set(f func(http.ResponseWriter)) []string {
	w := httptest.NewRecorder()
	f(w)
	return w.Header()["Set-Cookie"]
}

func TestCookies_AttributesAreExact(t *testing.T) {
	t.Parallel()
	trusted := []string{"https://app.example.com"}
	for name, tt := range map[string]struct {
		cookies         auth.Cookies
		access, refresh string // %s stands for the value and the Max-Age
	}{
		"default": {auth.Cookies{},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax",
			"__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"loopback": {auth.Cookies{InsecureHTTP: true},
			"access=%s; Path=/; Max-Age=%s; HttpOnly; SameSite=Lax", "refresh=%s; Path=/; Max-Age=%s; HttpOnly; SameSite=Lax"},
		"names": {auth.Cookies{AccessName: "__Host-a2", RefreshName: "__Host-Http-r2"},
			"__Host-a2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "__Host-Http-r2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"insecure names": {auth.Cookies{AccessName: "__Host-a2", RefreshName: "r2", InsecureNames: true},
			"__Host-a2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "r2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"strict": {auth.Cookies{SameSite: http.SameSiteStrictMode},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Strict",
			"__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Strict"},
		"lax": {auth.Cookies{SameSite: http.SameSiteLaxMode},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax",
			"__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"none": {auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None",
			"__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None"},
		"partitioned": {auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted, Partitioned: true},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None; Partitioned",
			"__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None; Partitioned"},
	} {
		fx := newFixture(t, withCookiesOf(tt.cookies))
		k := fx.login(t)
		fx.clock.Advance(24*time.Hour + 500*time.Millisecond)
		const left = "518400" // six days, rounded to the started second
		lines := set(func(w http.ResponseWriter) { fx.SetCookies(w, k) })
		require.Len(t, lines, 3, name)
		require.Equal(t, []string{fmt.Sprintf(tt.access, k.Access, left), fmt.Sprintf(tt.refresh, k.Refresh, left)}, lines[:2], name)
		value, attributes, _ := strings.Cut(lines[2], ";")
		_, of, _ := strings.Cut(fmt.Sprintf(tt.access, "", "15552000"), ";")
		require.Equal(t, of, attributes, "%s: the third cookie differs only in its age", name)
		deviceName, _, _ := strings.Cut(value, "=")
		require.Equal(t, strings.HasPrefix(tt.access, "__Host-"), strings.HasPrefix(deviceName, "__Host-Http-"), name)
		require.Equal(t, []string{fmt.Sprintf(tt.access, "", "0"), fmt.Sprintf(tt.refresh, "", "0")},
			set(fx.ClearCookies), name)
		w := httptest.NewRecorder()
		fx.ClearCookies(w)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
}

func TestCookies_AreReadUnderTheNamesThatAreSet(t *testing.T) {
	t.Parallel()
	for _, c := range []auth.Cookies{
		{}, {InsecureHTTP: true}, {InsecureHTTP: true, AccessName: "a", RefreshName: "r"},
		{AccessName: "__Host-r", RefreshName: "__Host-a"}, {AccessName: "__Secure-a", RefreshName: "r", InsecureNames: true},
		{SameSite: http.SameSiteNoneMode, Partitioned: true, TrustedOrigins: []string{"https://app.example.com"}},
	} {
		fx := newFixture(t, withCookiesOf(c))
		r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin))
		var sent []requestOption
		for _, c := range r.cookies {
			sent = append(sent, reqCookie(c.Name, c.Value))
		}
		require.Equal(t, "hello ada", send(t, fx.Require()(hello), "GET", "/", sent...).body)
		require.Equal(t, 200, send(t, fx.RefreshHandler(), "POST", "/refresh", sent...).status)
		out := send(t, fx.LogoutHandler(), "POST", "/logout", sent...)
		require.Len(t, out.cookies, 2)
		for name, gone := range out.cookies {
			was := r.cookies[name]
			require.NotNil(t, was)
			require.Equal(
				t, [6]any{was.Path, was.Domain, was.Secure, was.HttpOnly, was.SameSite, was.Partitioned},
				[6]any{gone.Path, gone.Domain, gone.Secure, gone.HttpOnly, gone.SameSite, gone.Partitioned},
			)
			require.Negative(t, gone.MaxAge)
		}
	}
}

func TestCookies_ExpireWithTheSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin))
	require.Equal(t, 180*24*60*60, r.cookies[deviceCookie].MaxAge)
	delete(r.cookies, deviceCookie)
	for _, c := range r.cookies {
		require.Equal(t, 7*24*60*60, c.MaxAge)
		require.Zero(t, c.Expires)
	}
	token := r.cookies[refreshCookie].Value
	for range 4 { // every six days, so that the end of the session approaches
		fx.clock.Advance(6 * 24 * time.Hour)
		r = send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, token))
		require.Equal(t, 200, r.status)
		token = r.cookies[refreshCookie].Value
	}
	for _, c := range r.cookies {
		require.Equal(t, 6*24*60*60, c.MaxAge, "the session ends thirty days after the login")
	}
	require.EqualValues(t, 6*24*60*60, r.fields(t)["refresh_expires_in"])

	// Browsers limit Max-Age to 400 days. A cookie that has expired is deleted,
	// and never becomes a session cookie.
	fx = newFixture(t, withCookies(), func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 500*24*time.Hour, 500*24*time.Hour })
	r = send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin))
	require.Equal(t, 400*24*60*60, r.cookies[accessCookie].MaxAge)
	k := fx.login(t)
	for _, d := range []time.Duration{500 * 24 * time.Hour, time.Hour} {
		fx.clock.Advance(d)
		for _, line := range set(func(w http.ResponseWriter) { fx.SetCookies(w, k) })[:2] {
			require.Contains(t, line, "; Max-Age=0;")
		}
	}
}

func TestSetCookies_WritesNoStatus(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fx.SetCookies(w, fx.login(t))
		http.Redirect(w, r, "/welcome", http.StatusSeeOther)
	})
	r := send(t, h, "POST", "/callback")
	require.Equal(t, http.StatusSeeOther, r.status)
	require.Len(t, r.cookies, 3)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))

	plain := newFixture(t)
	require.Empty(t, set(func(w http.ResponseWriter) { plain.SetCookies(w, plain.login(t)) }))
	require.Empty(t, set(plain.ClearCookies))
}

func TestClearSiteData_IsSentWithTheClearedCookies(t *testing.T) {
	t.Parallel()
	const header, value = "Clear-Site-Data", `"cache", "storage"`
	for _, on := range []bool{true, false} {
		fx := newFixture(t, withCookies(allowBody, func(c *auth.Cookies) { c.ClearSiteData = on }))
		h := fx.Handler()
		check := func(clears bool, method, path string, status int, options ...requestOption) {
			t.Helper()
			r := send(t, h, method, path, options...)
			require.Equal(t, status, r.status, r.body)
			var want []string
			if on && clears {
				want = []string{value}
				r.requireCleared(t)
			}
			require.Equal(t, want, r.header[header], "%s %s", method, path)
		}
		k := fx.login(t)
		access := reqCookie(accessCookie, k.Access)
		check(false, "POST", "/login", 200, reqJSON(goodLogin))
		check(false, "POST", "/login", 401, reqJSON(`{"login":"ada","password":"wrong"}`))
		check(false, "GET", "/sessions", 200, access)
		check(false, "POST", "/refresh", 401, reqCookie(refreshCookie, "junk"))
		check(false, "POST", "/logout", 403, access, crossSite)
		check(false, "POST", "/logout", 403, crossSite)
		check(false, "POST", "/logout", 204, reqForm("refresh_token=x"), crossSite)
		check(false, "POST", "/logout/all", 403, access, crossSite)
		check(false, "DELETE", "/sessions/"+k.SessionID, 403, access, crossSite)
		check(false, "POST", "/logout/all?others=true", 204, access)
		check(false, "DELETE", "/sessions/unknown", 404, access)
		fx.store.failBefore("Revoke", errStore)
		check(false, "POST", "/logout", 503, access)
		fx.store.failBefore("Revoke", nil)
		check(true, "POST", "/logout", 204, access)
		check(true, "POST", "/logout", 204, access) // again
		check(true, "POST", "/logout", 204)
		k = fx.login(t)
		other := fx.login(t)
		check(false, "DELETE", "/sessions/"+other.SessionID, 204, reqCookie(accessCookie, k.Access))
		check(true, "DELETE", "/sessions/"+k.SessionID, 204, reqCookie(accessCookie, k.Access))
		check(true, "POST", "/logout/all", 204, fx.freshCookie(t))
		fx.clock.Advance(time.Minute)
		check(true, "POST", "/logout", 303, fx.freshCookie(t), reqHeader("Sec-Fetch-Mode", "navigate"))
		check(false, "POST", "/logout", 204, reqBearer(fx.login(t).Access)) // no cookie is cleared
		check(false, "POST", "/logout/all", 204, reqBearer(fx.login(t).Access))
	}
	require.Empty(t, func() http.Header {
		w := httptest.NewRecorder()
		newFixture(t).ClearCookies(w)
		return w.Header()
	}(), "without Config.Cookies")
}

func TestClearSiteData_BelongsToTheClearedCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(func(c *auth.Cookies) { c.ClearSiteData = true }))
	k := fx.login(t)
	for _, own := range [][]string{nil, {`"executionContexts"`}, {`"cookies"`, `"cache"`}} { // set by the application
		w := httptest.NewRecorder()
		for _, value := range own {
			w.Header().Add("Clear-Site-Data", value)
		}
		fx.SetCookies(w, k)
		require.Equal(t, own, w.Header()["Clear-Site-Data"])
		fx.ClearCookies(w)
		fx.ClearCookies(w)
		require.Equal(t, append(slices.Clone(own), `"cache", "storage"`), w.Header()["Clear-Site-Data"])
		fx.SetCookies(w, k) // the handler signs the user in again
		require.Equal(t, own, w.Header()["Clear-Site-Data"])
		require.NotContains(t, strings.Join(w.Header()["Set-Cookie"], "\n"), "Max-Age=0")
	}
}

func TestCookies_TooLargeForBrowsersAreAnErrorAtIssue(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	extra := func(n int) {
		fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", n)} })
	}
	login := func() response { return send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin)) }
	// The largest cookie has 4,096 bytes including its name, and is issued.
	low, high := 0, 4096
	for high-low > 1 {
		n := (low + high) / 2
		if extra(n); login().status == 200 {
			low = n
		} else {
			high = n
		}
	}
	extra(low)
	r := login()
	require.Equal(t, 200, r.status)
	size := len(accessCookie) + len(r.cookies[accessCookie].Value)
	require.LessOrEqual(t, size, 4096)
	require.Greater(t, size, 4092, "base64 grows by up to two characters")
	held := r.cookies[refreshCookie].Value

	extra(high)
	requireFault := func() {
		t.Helper()
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1)
		for _, part := range []string{"cookie " + accessCookie, "would be 409", "4096", "put less into User.Extra, Roles or Scopes"} {
			require.ErrorContains(t, faults[0].Err, part)
		}
		require.Equal(t, "u1", faults[0].Session.Subject)
	}
	fx.events.take("")
	before := fx.store.count("Create")
	login().requireRefused(t, 500, "token_too_large", "")
	require.Equal(t, before, fx.store.count("Create"))
	requireFault()
	rotated := fx.store.count("Rotate")
	send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, held)).requireRefused(t, 500, "token_too_large", "")
	requireFault()
	require.Equal(t, rotated, fx.store.count("Rotate"), "the token must not be spent")
	extra(0)
	require.Equal(t, 200, send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, held)).status)

	// Without cookies there is no such limit.
	fx = newFixture(t)
	extra(5000)
	require.Equal(t, 200, login().status)
}

func TestSetKeys_RefusesKeysOfTooLargeCookies(t *testing.T) {
	t.Parallel()
	small := auth.HS256([]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F")).WithID("k")
	large := auth.HS512([]byte("k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3Fk7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3G")).WithID(strings.Repeat("x", 128))
	access := auth.Keys{auth.HS256([]byte("V4nE6yPc8UaJg3Fk7Qm2ZrW9xTb4LsD1"))}
	long := func(n int, keys ...auth.Key) (*auth.Authenticator, error) {
		return auth.New(auth.Config{
			Issuer: strings.Repeat("x", n), Audience: []string{audience}, AccessKeys: access, RefreshKeys: keys, Users: newUsers(), Cookies: &auth.Cookies{},
		})
	}
	n := sort.Search(4000, func(n int) bool { _, err := long(n+1, small); return err != nil }) // the longest issuer that fits
	a, err := long(n, small)
	require.NoError(t, err)
	for _, keys := range []auth.Keys{{large, small}, {small, large}, {small, large.SignFrom(time.Now().Add(time.Hour))}} {
		_, err = long(n, keys...)
		require.ErrorContains(t, err, "cookie __Host-Http-refresh would be")
		require.ErrorContains(t, a.SetKeys(nil, keys), "cookie __Host-Http-refresh would be")
	}
	require.NoError(t, a.SetKeys(nil, auth.Keys{small}))
}

func TestCookies_SizeLimitAppliesOnlyToTokensInCookies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	ctx := context.Background()
	small := fx.login(t)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", 5000)} })
	tokens := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`))
	require.Equal(t, 200, tokens.status, tokens.body)
	token := tokens.fields(t)["refresh_token"].(string)
	for _, carry := range []requestOption{reqHeader("Refresh-Token", token), reqJSON(`{"refresh_token":"` + token + `"}`), reqForm("refreshToken=" + token)} {
		r := send(t, fx.RefreshHandler(), "POST", "/refresh", carry)
		require.Equal(t, 200, r.status, r.body)
		require.Greater(t, len(r.fields(t)["access_token"].(string)), 5000)
	}
	for _, body := range []string{goodLogin, `{"login":"ada","password":"` + pass + `","delivery":"cookie"}`} {
		send(t, fx.LoginHandler(), "POST", "/login", reqJSON(body)).requireRefused(t, 500, "token_too_large", "")
	}
	// With zero options the size is checked, and no token is spent.
	_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
	require.Equal(t, "token_too_large", auth.ResponseFor(err).Code)
	_, err = fx.Refresh(ctx, small.Refresh, auth.RefreshOptions{})
	require.Equal(t, "token_too_large", auth.ResponseFor(err).Code)
	require.EqualValues(t, 1, fx.generation(t, "u1", small.SessionID))
	large, err := fx.StartSession(ctx, "u1", auth.SessionOptions{InBody: true})
	require.NoError(t, err)
	fx.events.take("")
	set(func(w http.ResponseWriter) { fx.SetCookies(w, large) })
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "cookie "+accessCookie+" would be ")
	require.Equal(t, large.SessionID, faults[0].Session.ID)
	_, err = fx.Refresh(ctx, small.Refresh, auth.RefreshOptions{InBody: true})
	require.NoError(t, err)
}

func TestCookies_AreCheckedByNew(t *testing.T) {
	t.Parallel()
	trusted := []string{"https://app.example.com"}
	for name, tt := range map[string]struct {
		cookies auth.Cookies
		want    string
	}{
		"none without origins": {auth.Cookies{SameSite: http.SameSiteNoneMode}, "SameSite is None, so browsers send"},
		"none without TLS": {
			auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted, InsecureHTTP: true},
			"SameSite is None, which requires Secure cookies",
		},
		"default mode":               {auth.Cookies{SameSite: http.SameSiteDefaultMode}, "SameSite (1) must be Lax"},
		"unknown mode":               {auth.Cookies{SameSite: 9}, "SameSite (9) must be Lax"},
		"negative mode":              {auth.Cookies{SameSite: -1}, "SameSite (-1) must be Lax"},
		"name with a space":          {auth.Cookies{AccessName: "a b"}, `AccessName "a b" is not`},
		"name with =":                {auth.Cookies{RefreshName: "a=b"}, `RefreshName "a=b" is not`},
		"long name":                  {auth.Cookies{RefreshName: strings.Repeat("x", 129)}, "RefreshName"},
		"same names":                 {auth.Cookies{AccessName: "__Host-x", RefreshName: "__Host-x"}, "AccessName and RefreshName are both"},
		"same as the default":        {auth.Cookies{AccessName: "__Host-Http-refresh"}, "AccessName and RefreshName are both"},
		"host prefix without TLS":    {auth.Cookies{InsecureHTTP: true, AccessName: "__host-a"}, "AccessName"},
		"secure prefix without TLS":  {auth.Cookies{InsecureHTTP: true, RefreshName: "__Secure-r"}, "RefreshName"},
		"origin with a path":         {auth.Cookies{TrustedOrigins: []string{"https://a.example/x"}}, "TrustedOrigins[0]"},
		"origin with a slash":        {auth.Cookies{TrustedOrigins: []string{"https://a.example/"}}, "TrustedOrigins[0]"},
		"origin without scheme":      {auth.Cookies{TrustedOrigins: []string{"https://ok.example", "a.example"}}, "TrustedOrigins[1]"},
		"origin with user":           {auth.Cookies{TrustedOrigins: []string{"https://u@a.example"}}, "TrustedOrigins[0]"},
		"origin with a query":        {auth.Cookies{TrustedOrigins: []string{"https://a.example?x"}}, "TrustedOrigins[0]"},
		"origin in upper case":       {auth.Cookies{TrustedOrigins: []string{"https://A.example"}}, "lower case"},
		"scheme in upper case":       {auth.Cookies{TrustedOrigins: []string{"HTTPS://a.example"}}, "TrustedOrigins[0]"},
		"origin that is not ASCII":   {auth.Cookies{TrustedOrigins: []string{"https://ä.example"}}, "ASCII form"},
		"origin with default port":   {auth.Cookies{TrustedOrigins: []string{"https://a.example:443"}}, "default port"},
		"origin with default port 2": {auth.Cookies{TrustedOrigins: []string{"http://a.example:80"}}, "default port"},
		"origin with an empty port":  {auth.Cookies{TrustedOrigins: []string{"https://a.example:"}}, "default port"},
		"origin of another scheme":   {auth.Cookies{TrustedOrigins: []string{"ftp://a.example"}}, "browsers never send an origin with the scheme ftp"},
		"null":                       {auth.Cookies{TrustedOrigins: []string{"null"}}, "TrustedOrigins[0]"},
		"star":                       {auth.Cookies{TrustedOrigins: []string{"*"}}, "TrustedOrigins[0]"},
		"empty origin":               {auth.Cookies{TrustedOrigins: []string{""}}, "TrustedOrigins[0]"},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &tt.cookies})
		require.ErrorContains(t, err, "auth: Config.Cookies.", name)
		require.ErrorContains(t, err, tt.want, name)
	}
	for _, c := range []auth.Cookies{
		{TrustedOrigins: []string{"https://a.example:8443", "http://localhost:3000", "https://xn--4ca.example", "https://[::1]:8443"}},
		{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &c})
		require.NoError(t, err)
	}
}

func TestCookies_AreCopied(t *testing.T) {
	t.Parallel()
	c := auth.Cookies{TrustedOrigins: []string{"https://app.example.com"}}
	fx := newFixture(t, func(conf *auth.Config) { conf.Cookies = &c })
	c.AllowBody, c.AccessName, c.TrustedOrigins[0] = true, "spoiled", "https://evil.example"
	r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin), reqHeader("Origin", "https://app.example.com"))
	require.Contains(t, r.cookies, accessCookie)
	send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin), reqHeader("Origin", "https://evil.example")).requireRefused(t, 403, "cross_origin", "")
	send(
		t, fx.LoginHandler(), "POST", "/login", reqJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`),
	).requireRefused(t, 400, "invalid_request", "")
}

func TestCookies_OfTwoAuthenticatorsOnOneHost(t *testing.T) {
	t.Parallel()
	staff := newFixture(t, withCookies(func(c *auth.Cookies) { c.AccessName, c.RefreshName = "__Host-sa", "__Host-sr" }),
		func(c *auth.Config) { c.Audience = []string{"https://staff.example.com"} })
	shop := newFixture(t, withCookies())
	mux := http.NewServeMux()
	for path, fx := range map[string]*fixture{"/staff": staff, "/shop": shop} {
		mux.Handle(path+"/auth/", http.StripPrefix(path+"/auth", fx.Handler()))
		mux.Handle(path+"/me", fx.Require()(hello))
	}
	s := newBrowserClient(t, mux)
	require.Equal(t, 200, s.do("POST", "/staff/auth/login", reqJSON(goodLogin)).status)
	s.do("GET", "/shop/me").requireRefused(t, 401, "missing_token", "login")
	require.Equal(t, 200, s.do("POST", "/shop/auth/login", reqJSON(strings.Replace(goodLogin, "ada", "bob", 1))).status)
	require.Equal(t, "hello ada", s.do("GET", "/staff/me").body)
	require.Equal(t, "hello bob", s.do("GET", "/shop/me").body)
	s.do("POST", "/staff/auth/logout").requireNoContent(t)
	require.Equal(t, "hello bob", s.do("GET", "/shop/me").body)
	s.do("GET", "/staff/me").requireRefused(t, 401, "missing_token", "login")
	_, err := shop.Verify(context.Background(), staff.login(t).Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}
