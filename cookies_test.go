package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// set returns the Set-Cookie lines that f writes.
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
		access, refresh string // %s is what differs: the value and the age
	}{
		"default": {auth.Cookies{},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"loopback": {auth.Cookies{InsecureHTTP: true},
			"access=%s; Path=/; Max-Age=%s; HttpOnly; SameSite=Lax", "refresh=%s; Path=/; Max-Age=%s; HttpOnly; SameSite=Lax"},
		"names": {auth.Cookies{AccessName: "__Host-a2", RefreshName: "__Host-Http-r2"},
			"__Host-a2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "__Host-Http-r2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"insecure names": {auth.Cookies{AccessName: "__Host-a2", RefreshName: "r2", InsecureNames: true},
			"__Host-a2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "r2=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"strict": {auth.Cookies{SameSite: http.SameSiteStrictMode},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Strict", "__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Strict"},
		"lax": {auth.Cookies{SameSite: http.SameSiteLaxMode},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax", "__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=Lax"},
		"none": {auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted},
			"__Host-access=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None", "__Host-Http-refresh=%s; Path=/; Max-Age=%s; HttpOnly; Secure; SameSite=None"},
	} {
		b := newBench(t, func(c *auth.Config) { c.Cookies = &tt.cookies })
		k := b.login(t)
		b.clock.advance(24*time.Hour + 500*time.Millisecond)
		const left = "518400" // six days, from the second that has begun
		require.Equal(t, []string{fmt.Sprintf(tt.access, k.Access, left), fmt.Sprintf(tt.refresh, k.Refresh, left)},
			set(func(w http.ResponseWriter) { b.SetCookies(w, k) }), name)
		require.Equal(t, []string{fmt.Sprintf(tt.access, "", "0"), fmt.Sprintf(tt.refresh, "", "0")},
			set(b.ClearCookies), name)
		w := httptest.NewRecorder()
		b.ClearCookies(w)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
}

func TestCookies_AreThoseThatAreReadBack(t *testing.T) {
	t.Parallel()
	for _, c := range []auth.Cookies{{}, {InsecureHTTP: true}, {InsecureHTTP: true, AccessName: "a", RefreshName: "r"}, {AccessName: "__Host-r", RefreshName: "__Host-a"}, {AccessName: "__Secure-a", RefreshName: "r", InsecureNames: true}} {
		b := newBench(t, func(conf *auth.Config) { conf.Cookies = &c })
		r := ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin))
		var sent []webOption
		for _, c := range r.cookies {
			sent = append(sent, webCookie(c.Name, c.Value))
		}
		require.Equal(t, "hello ada", ask(t, b.Require()(hello), "GET", "/", sent...).body)
		require.Equal(t, 200, ask(t, b.RefreshHandler(), "POST", "/refresh", sent...).status)
		out := ask(t, b.LogoutHandler(), "POST", "/logout", sent...)
		require.Len(t, out.cookies, 2)
		for name, gone := range out.cookies {
			was := r.cookies[name]
			require.NotNil(t, was)
			require.Equal(t, [5]any{was.Path, was.Domain, was.Secure, was.HttpOnly, was.SameSite}, [5]any{gone.Path, gone.Domain, gone.Secure, gone.HttpOnly, gone.SameSite})
			require.Negative(t, gone.MaxAge)
		}
	}
}

func TestCookies_LiveAsLongAsTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	r := ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin))
	for _, c := range r.cookies {
		require.Equal(t, 7*24*60*60, c.MaxAge)
		require.Zero(t, c.Expires)
	}
	token := r.cookies[refreshCookie].Value
	for range 4 { // every six days, so that the absolute end comes near
		b.clock.advance(6 * 24 * time.Hour)
		r = ask(t, b.RefreshHandler(), "POST", "/refresh", webCookie(refreshCookie, token))
		require.Equal(t, 200, r.status)
		token = r.cookies[refreshCookie].Value
	}
	for _, c := range r.cookies {
		require.Equal(t, 6*24*60*60, c.MaxAge, "thirty days after the login it is over")
	}
	require.EqualValues(t, 6*24*60*60, r.fields(t)["refresh_expires_in"])

	// Browsers cut at 400 days; what is over is deleted and never a session cookie.
	b = newBench(t, withCookies(), func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 500*24*time.Hour, 500*24*time.Hour })
	r = ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin))
	require.Equal(t, 400*24*60*60, r.cookies[accessCookie].MaxAge)
	k := b.login(t)
	for _, d := range []time.Duration{500 * 24 * time.Hour, time.Hour} {
		b.clock.advance(d)
		for _, line := range set(func(w http.ResponseWriter) { b.SetCookies(w, k) }) {
			require.Contains(t, line, "; Max-Age=0;")
		}
	}
}

func TestSetCookies_WritesNoStatusSoThatARedirectMayFollow(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.SetCookies(w, b.login(t))
		http.Redirect(w, r, "/welcome", http.StatusSeeOther)
	})
	r := ask(t, h, "POST", "/callback")
	require.Equal(t, http.StatusSeeOther, r.status)
	require.Len(t, r.cookies, 2)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))

	plain := newBench(t)
	require.Empty(t, set(func(w http.ResponseWriter) { plain.SetCookies(w, plain.login(t)) }))
	require.Empty(t, set(plain.ClearCookies))
}

func TestCookies_ThatBrowsersDropAreAnErrorAtIssue(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	extra := func(n int) {
		b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", n)} })
	}
	login := func() webReply { return ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin)) }
	// The largest that fits is 4,096 bytes with its name, and is issued.
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
	require.Greater(t, size, 4092, "base64 grows by up to two letters")
	held := r.cookies[refreshCookie].Value

	extra(high)
	told := func() {
		t.Helper()
		faults := b.events.take(auth.EventFault)
		require.Len(t, faults, 1)
		for _, part := range []string{"cookie " + accessCookie, "would be 409", "4096", "put less into User.Extra, Roles or Scopes"} {
			require.ErrorContains(t, faults[0].Err, part)
		}
		require.Equal(t, "u1", faults[0].Session.Subject)
	}
	b.events.take("")
	before := b.store.count("Create")
	login().refused(t, 500, "token_too_large", "")
	require.Equal(t, before, b.store.count("Create"))
	told()
	rotated := b.store.count("Rotate")
	ask(t, b.RefreshHandler(), "POST", "/refresh", webCookie(refreshCookie, held)).refused(t, 500, "token_too_large", "")
	told()
	require.Equal(t, rotated, b.store.count("Rotate"), "the token is not spent")
	extra(0)
	require.Equal(t, 200, ask(t, b.RefreshHandler(), "POST", "/refresh", webCookie(refreshCookie, held)).status)

	// Where there are no cookies there is no such limit.
	b = newBench(t)
	extra(5000)
	require.Equal(t, 200, login().status)
}

func TestSetKeys_RefusesKeysWhoseRefreshTokensBrowsersDrop(t *testing.T) {
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

func TestCookies_TheirSizeLimitsOnlyTokensThatTravelInThem(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(allowBody))
	ctx := context.Background()
	small := b.login(t)
	b.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", 5000)} })
	tokens := ask(t, b.LoginHandler(), "POST", "/login", webJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`))
	require.Equal(t, 200, tokens.status, tokens.body)
	token := tokens.fields(t)["refresh_token"].(string)
	for _, carry := range []webOption{webHeader("Refresh-Token", token), webJSON(`{"refresh_token":"` + token + `"}`), webForm("refreshToken=" + token)} {
		r := ask(t, b.RefreshHandler(), "POST", "/refresh", carry)
		require.Equal(t, 200, r.status, r.body)
		require.Greater(t, len(r.fields(t)["access_token"].(string)), 5000)
	}
	for _, body := range []string{goodLogin, `{"login":"ada","password":"` + pass + `","delivery":"cookie"}`} {
		ask(t, b.LoginHandler(), "POST", "/login", webJSON(body)).refused(t, 500, "token_too_large", "")
	}
	// The zero options check, and spend nothing.
	_, err := b.StartSession(ctx, "u1", auth.SessionOptions{})
	require.Equal(t, "token_too_large", auth.ResponseFor(err).Code)
	_, err = b.Refresh(ctx, small.Refresh, auth.RefreshOptions{})
	require.Equal(t, "token_too_large", auth.ResponseFor(err).Code)
	require.EqualValues(t, 1, b.generation(t, "u1", small.SessionID))
	large, err := b.StartSession(ctx, "u1", auth.SessionOptions{InBody: true})
	require.NoError(t, err)
	b.events.take("")
	set(func(w http.ResponseWriter) { b.SetCookies(w, large) })
	faults := b.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "cookie "+accessCookie+" would be ")
	require.Equal(t, large.SessionID, faults[0].Session.ID)
	_, err = b.Refresh(ctx, small.Refresh, auth.RefreshOptions{InBody: true})
	require.NoError(t, err)
}

func TestCookies_AreCheckedByNew(t *testing.T) {
	t.Parallel()
	trusted := []string{"https://app.example.com"}
	for name, tt := range map[string]struct {
		cookies auth.Cookies
		want    string
	}{
		"none without origins":       {auth.Cookies{SameSite: http.SameSiteNoneMode}, "SameSite is None, which sends"},
		"none without TLS":           {auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted, InsecureHTTP: true}, "SameSite is None, which browsers refuse"},
		"default mode":               {auth.Cookies{SameSite: http.SameSiteDefaultMode}, "SameSite (1) is none of"},
		"unknown mode":               {auth.Cookies{SameSite: 9}, "SameSite (9) is none of"},
		"negative mode":              {auth.Cookies{SameSite: -1}, "SameSite (-1) is none of"},
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
		"origin of another scheme":   {auth.Cookies{TrustedOrigins: []string{"ftp://a.example"}}, "neither https nor http"},
		"null":                       {auth.Cookies{TrustedOrigins: []string{"null"}}, "TrustedOrigins[0]"},
		"star":                       {auth.Cookies{TrustedOrigins: []string{"*"}}, "TrustedOrigins[0]"},
		"empty origin":               {auth.Cookies{TrustedOrigins: []string{""}}, "TrustedOrigins[0]"},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &tt.cookies})
		require.ErrorContains(t, err, "auth: Config.Cookies.", name)
		require.ErrorContains(t, err, tt.want, name)
	}
	for _, c := range []auth.Cookies{
		{TrustedOrigins: []string{"https://a.example:8443", "http://localhost:3000", "https://xn--4ca.example", "https://[::1]:8443", "http://a.example:443"}},
		{SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted},
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &c})
		require.NoError(t, err)
	}
}

func TestCookies_AreCopied(t *testing.T) {
	t.Parallel()
	c := auth.Cookies{TrustedOrigins: []string{"https://app.example.com"}}
	b := newBench(t, func(conf *auth.Config) { conf.Cookies = &c })
	c.AllowBody, c.AccessName, c.TrustedOrigins[0] = true, "spoiled", "https://evil.example"
	r := ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin), webHeader("Origin", "https://app.example.com"))
	require.Contains(t, r.cookies, accessCookie)
	ask(t, b.LoginHandler(), "POST", "/login", webJSON(goodLogin), webHeader("Origin", "https://evil.example")).refused(t, 403, "cross_origin", "")
	ask(t, b.LoginHandler(), "POST", "/login", webJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`)).refused(t, 400, "invalid_request", "")
}

func TestAutoRefresh_IsRefusedWhereItCannotWork(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]*auth.Cookies{
		"Config.AutoRefresh needs Cookies": nil,
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: c, AutoRefresh: true})
		require.ErrorContains(t, err, want)
	}
}

func TestCookies_TwoAuthenticatorsLiveOnOneHost(t *testing.T) {
	t.Parallel()
	staff := newBench(t, withCookies(func(c *auth.Cookies) { c.AccessName, c.RefreshName = "__Host-sa", "__Host-sr" }),
		func(c *auth.Config) { c.Audience = []string{"https://staff.example.com"} })
	shop := newBench(t, withCookies())
	mux := http.NewServeMux()
	for path, b := range map[string]*bench{"/staff": staff, "/shop": shop} {
		mux.Handle(path+"/auth/", http.StripPrefix(path+"/auth", b.Handler()))
		mux.Handle(path+"/me", b.Require()(hello))
	}
	s := newSurfer(t, mux)
	require.Equal(t, 200, s.do("POST", "/staff/auth/login", webJSON(goodLogin)).status)
	s.do("GET", "/shop/me").refused(t, 401, "missing_token", "login")
	require.Equal(t, 200, s.do("POST", "/shop/auth/login", webJSON(strings.Replace(goodLogin, "ada", "bob", 1))).status)
	require.Equal(t, "hello ada", s.do("GET", "/staff/me").body)
	require.Equal(t, "hello bob", s.do("GET", "/shop/me").body)
	s.do("POST", "/staff/auth/logout").nothing(t)
	require.Equal(t, "hello bob", s.do("GET", "/shop/me").body)
	s.do("GET", "/staff/me").refused(t, 401, "missing_token", "login")
	_, err := shop.Verify(context.Background(), staff.login(t).Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

func TestCookies_RefusesOriginsThatNeverMatch(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"https://*.example.com", "https://*", "https://a.example:08443", "https://a.example:0"} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Cookies: &auth.Cookies{TrustedOrigins: []string{o}}})
		require.Error(t, err, o)
	}
}
