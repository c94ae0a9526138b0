package auth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
)

// Requests of browsers: a page load or a form, and a script.
var (
	pageLoad = reqHeader("Sec-Fetch-Mode", "navigate")
	script   = reqHeader("Sec-Fetch-Mode", "cors")
	oldPage  = reqHeader("Accept", "text/html,application/xhtml+xml,*/*;q=0.8") // without Sec-Fetch-Mode
)

// withPages configures a site whose pages the server renders.
func withPages(c *auth.Config) {
	c.Cookies = &auth.Cookies{}
	c.AutoRefresh = true
	c.OnError = auth.RedirectToLogin("/login")
}

func TestRedirectToLogin_PageLoadGoesToTheLoginPageAndBack(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	page := fx.Require()(http.NotFoundHandler())
	for target, next := range map[string]string{
		"/notes":                          "/notes",
		"/notes?page=2&q=a+b%26c%3D":      "/notes?page=2&q=a+b%26c%3D",
		"/caf%C3%A9/%25/a%2Fb?x=%23":      "/caf%C3%A9/%25/a%2Fb?x=%23",
		"/n?next=%2Flogin":                "/n?next=%2Flogin",
		"/":                               "",
		"//evil.example/x":                "",
		"/a/../b":                         "",
		"/a?" + strings.Repeat("x", 3000): "",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, browser := range []requestOption{pageLoad, oldPage} {
				r := send(t, page, method, target, browser)
				require.Equal(t, http.StatusSeeOther, r.status, target)
				require.Equal(t, "no-store", r.header.Get("Cache-Control"))
				u, err := url.Parse(r.header.Get("Location"))
				require.NoError(t, err)
				require.Equal(t, "/login", u.Path, target)
				require.Equal(t, next, u.Query().Get("next"), target)
				require.Equal(t, next == "", u.RawQuery == "", target)
				if next != "" {
					require.Equal(t, next, auth.LocalPath(u.Query().Get("next")))
				}
			}
		}
	}
	r := send(t, http.StripPrefix("/app", page), http.MethodGet, "/app/notes?x=1", pageLoad)
	require.Equal(t, "/login?next=%2Fapp%2Fnotes%3Fx%3D1", r.header.Get("Location"), "with the prefix")
}

func TestRedirectToLogin_KeepsTheQueryOfTheLoginPage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages, func(c *auth.Config) { c.OnError = auth.RedirectToLogin("/sign%20in?lang=de") })
	page := fx.Require()(http.NotFoundHandler())
	require.Equal(t, "/sign%20in?lang=de&next=%2Fnotes", send(t, page, http.MethodGet, "/notes", pageLoad).header.Get("Location"))
	require.Equal(t, "/sign%20in?lang=de", send(t, page, http.MethodGet, "/", pageLoad).header.Get("Location"))
}

// A login page that is protected by mistake does not redirect to itself, however
// its path is spelled.
func TestRedirectToLogin_NeverRedirectsTheLoginPage(t *testing.T) {
	t.Parallel()
	for path, target := range map[string]string{"/login": "/%6cogin", "/größe": "/gr%C3%B6%C3%9Fe", "/sign in?x=1": "/sign%20in?x=1"} {
		fx := newFixture(t, withPages, func(c *auth.Config) { c.OnError = auth.RedirectToLogin(path) })
		require.Equal(t, http.StatusUnauthorized, send(t, fx.Require()(http.NotFoundHandler()), http.MethodGet, target, pageLoad).status, target)
	}
	fx := newFixture(t, withPages)
	for _, target := range []string{"/login", "/login?next=%2Fnotes"} {
		r := send(t, fx.Require()(http.NotFoundHandler()), http.MethodGet, target, pageLoad)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.Contains(t, r.body, "<h1>Unauthorized</h1><p>No access token")
	}
}

func TestRedirectToLogin_ScriptsGetJSON(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	page := fx.Require()(http.NotFoundHandler())
	for _, options := range [][]requestOption{
		{script}, {script, oldPage}, // a library that requests fragments of pages
		{reqHeader("Accept", "*/*")}, {reqHeader("Accept", "application/json")}, {},
		{reqHeader("Sec-Fetch-Mode", "no-cors")}, {reqHeader("Sec-Fetch-Mode", "websocket")},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r := send(t, page, method, "/notes", options...)
			require.Equal(t, http.StatusUnauthorized, r.status)
			require.Equal(t, "login", r.fields(t)["action"])
			require.Equal(t, "Bearer", r.header.Get("WWW-Authenticate"))
		}
	}
}

func TestRedirectToLogin_FormOfAnEndedSessionCanBeSentAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages, func(c *auth.Config) { c.OnError = auth.RedirectToLogin(`/login?a="<b>&c=d`) })
	k := fx.login(t)
	require.NoError(t, fx.Revoke(t.Context(), "u1", k.SessionID))
	r := send(t, fx.Require()(http.NotFoundHandler()), http.MethodPost, "/notes", pageLoad, reqForm("text=new"), reqCookie(accessCookie, k.Access))
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Equal(t, "text/html; charset=utf-8", r.header.Get("Content-Type"))
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Contains(t, r.body, "You must sign in again")
	require.Contains(t, r.body, `<a href="/login?a=&#34;&lt;b&gt;&amp;c=d" target="_blank">`)
	require.NotContains(t, r.header, "Location")
}

// Some HTTP libraries, such as java.net.HttpURLConnection, send Accept: text/html
// unless the program sets it.
func TestRedirectToLogin_BearerTokenIsNoPageLoad(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	k := fx.login(t)
	token := reqHeader("Authorization", "Bearer "+k.Access)
	send(t, fx.LogoutHandler(), http.MethodPost, "/logout", oldPage, token).requireNoContent(t)
	r := send(t, fx.Require()(http.NotFoundHandler()), http.MethodGet, "/notes", oldPage, token)
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Equal(t, "login", r.fields(t)["action"])

	// A browser sends Basic to a proxy that asks for it.
	r = send(t, fx.Require()(http.NotFoundHandler()), http.MethodGet, "/notes", oldPage, reqHeader("Authorization", "Basic YTpi"))
	require.Equal(t, "/login?next=%2Fnotes", r.header.Get("Location"))
}

// Browsers send a form of another site without the cookies, so the user may be
// signed in. The response does not ask them to send the form of an attacker again.
func TestRedirectToLogin_FormOfAnotherSiteIsNotToBeSentAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	r := send(t, fx.Require()(http.NotFoundHandler()), http.MethodPost, "/notes", pageLoad, crossSite, reqForm("text=new"))
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "A page of another site sent this form.")
	require.NotContains(t, r.body, "send the form again")
}

// A handler other than that of the login page may check a password too.
func TestRedirectToLogin_WrongPasswordIsShown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	r := send(t, fx.LoginHandler(), http.MethodPost, "/auth/login", pageLoad, reqForm("login=ada&password=wrong"))
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "<p>Login or password is wrong.</p>")
	require.NotContains(t, r.body, "send the form again")
}

// A page that looks its user up does not find one who was deleted after the login.
func TestRedirectToLogin_PageOfADeletedUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	profile := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fx.WriteError(w, r, auth.ErrUserNotFound) }))
	r := send(t, profile, http.MethodGet, "/profile", pageLoad, reqCookie(accessCookie, fx.login(t).Access))
	require.Equal(t, http.StatusSeeOther, r.status)
	require.Equal(t, "/login?next=%2Fprofile", r.header.Get("Location"))
}

func TestRedirectToLogin_OtherErrorsAreNotRedirected(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	k := reqCookie(accessCookie, fx.login(t).Access)
	for _, tt := range []struct {
		guard   auth.Guard
		status  int
		options []requestOption
	}{
		{auth.Role("owner"), 403, []requestOption{k}},
		{nil, 403, []requestOption{k, crossSite}},
	} {
		guards := []auth.Guard{tt.guard}
		if tt.guard == nil {
			guards = nil
		}
		r := send(t, fx.Require(guards...)(http.NotFoundHandler()), http.MethodPost, "/notes", append(tt.options, pageLoad)...)
		require.Equal(t, tt.status, r.status)
		require.Contains(t, r.body, "<h1>Forbidden</h1>")
		require.NotContains(t, r.body, "sign in")
	}
	w := httptest.NewRecorder()
	fx.WriteError(w, newRequest(pageLoad), password.ErrBusy)
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "<p>Too many logins at once; try again.</p>")
	w = httptest.NewRecorder()
	fx.WriteError(w, newRequest(pageLoad), errors.New("<secret>"))
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "secret")

	w = httptest.NewRecorder() // not behind Require, which sets Cache-Control too
	fx.WriteError(w, newRequest(pageLoad), auth.ErrNoToken)
	require.Equal(t, 303, w.Code)
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))

	// A more recent login helps.
	fx.clock.Advance(2 * time.Minute)
	r := send(t, fx.Require(auth.Fresh(time.Minute))(http.NotFoundHandler()), http.MethodGet, "/pay", pageLoad, k)
	require.Equal(t, "/login?next=%2Fpay", r.header.Get("Location"))
}

func TestRedirectToLogin_PanicsForAnotherSite(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "login", "//evil.example", "https://example.com/login", "/../login", "/login#form", `/\login`} {
		require.Panics(t, func() { auth.RedirectToLogin(path) }, path)
	}
}

func TestLoginForm_SetsCookiesAndLeavesTheResponseToTheCaller(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	old := fx.login(t)
	r := httptest.NewRequest(http.MethodPost, "/login?next=%2Fnotes&login=bob", nil)
	reqForm("login=ada&device=laptop&delivery=body&password=" + url.QueryEscape(pass))(r)
	reqCookie(accessCookie, old.Access)(r)
	w := httptest.NewRecorder()
	require.NoError(t, fx.LoginForm(w, r))
	http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	require.Equal(t, "ada", r.PostFormValue("login"), "the body can be read again")
	got := readResponse(t, w.Result())
	require.Equal(t, "/notes", got.header.Get("Location"))
	c, err := fx.Verify(t.Context(), got.cookies[accessCookie].Value)
	require.NoError(t, err)
	require.Equal(t, "u1", c.Subject)
	require.Contains(t, got.cookies, refreshCookie)
	list, err := fx.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, list, 1, "the login replaces the session of the browser")
	require.Equal(t, "laptop", list[0].Name())
}

func TestLoginForm_ErrorsWriteNothing(t *testing.T) {
	t.Parallel()
	form := func(password string) requestOption { return reqForm("login=ada&password=" + url.QueryEscape(password)) }
	for _, tt := range []struct {
		target  string
		options []requestOption
		want    error
		status  int
	}{
		{"/login", []requestOption{form("wrong")}, auth.ErrInvalidCredentials, 401},
		{"/login", []requestOption{form("")}, auth.ErrInvalidCredentials, 401}, // the form is shown again
		{"/login", []requestOption{reqForm("login=&password=")}, auth.ErrInvalidCredentials, 401},
		{"/login", []requestOption{reqForm("email=&password=" + url.QueryEscape(pass))}, auth.ErrInvalidCredentials, 401},
		{"/login", []requestOption{reqForm("name=ada&password=")}, auth.ErrInvalidRequest, 400},
		{"/login", []requestOption{reqForm("login=ada&email=ada&password=")}, auth.ErrInvalidRequest, 400},
		{"/login", []requestOption{reqForm("login=ada&email=bob&username=&password=x")}, auth.ErrInvalidRequest, 400},
		{"/login", []requestOption{reqForm("login=&email=&password=x")}, auth.ErrInvalidCredentials, 401},
		{"/login", []requestOption{reqForm("")}, auth.ErrInvalidRequest, 400},
		{"/login", []requestOption{form(pass), crossSite}, auth.ErrCrossOrigin, 403},
		{"/login", []requestOption{reqForm("login=ada")}, auth.ErrInvalidRequest, 400},
		{"/login?login=ada&password=" + url.QueryEscape(pass), nil, auth.ErrInvalidRequest, 400}, // not from the URL
		{"/login", []requestOption{reqForm("login=ada&login=bob&password=" + pass)}, auth.ErrInvalidRequest, 400},
		{"/login", []requestOption{reqForm("x=" + strings.Repeat("x", 20<<10))}, nil, 413},
	} {
		fx := newFixture(t, withPages)
		r := httptest.NewRequest(http.MethodPost, tt.target, nil)
		for _, o := range tt.options {
			o(r)
		}
		w := httptest.NewRecorder()
		err := fx.LoginForm(w, r)
		require.Error(t, err)
		if tt.want != nil {
			require.ErrorIs(t, err, tt.want)
		}
		require.Equal(t, tt.status, auth.ResponseFor(err).Status)
		require.Empty(t, w.Header())
		list, err := fx.Sessions(t.Context(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	}
	fx := newFixture(t) // without cookies
	err := fx.LoginForm(httptest.NewRecorder(), newRequest(form(pass)))
	require.EqualError(t, err, "auth: LoginForm requires Config.Cookies")
	require.Equal(t, 500, auth.ResponseFor(err).Status)
}

func TestLogoutHandler_RedirectsTheFormOfAPage(t *testing.T) {
	t.Parallel()
	for body, location := range map[string]string{
		"":                          "/",
		"next=%2Fbye%3Fx%3D1":       "/bye?x=1",
		"next=%2F%2Fevil.example":   "/",
		"next=https://evil.example": "/",
		"next=%2Fa&next=%2Fb":       "/",
	} {
		fx := newFixture(t, withPages)
		for path, h := range map[string]http.Handler{"/logout": fx.LogoutHandler(), "/logout/all": fx.LogoutAllHandler()} {
			for _, browser := range []requestOption{pageLoad, oldPage} {
				k := fx.login(t)
				r := send(t, h, http.MethodPost, path, reqForm(body), browser, reqCookie(accessCookie, k.Access))
				require.Equal(t, http.StatusSeeOther, r.status)
				require.Equal(t, location, r.header.Get("Location"), body)
				require.Equal(t, "no-store", r.header.Get("Cache-Control"))
				r.requireCleared(t)
				_, err := fx.Verify(t.Context(), k.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked)
			}
			k := fx.login(t)
			send(t, h, http.MethodPost, path, reqForm(body), script, reqCookie(accessCookie, k.Access)).requireNoContent(t)
		}
	}
	fx := newFixture(t, withPages)
	k := fx.login(t)
	r := send(t, fx.LogoutAllHandler(), http.MethodPost, "/logout/all?others=true", pageLoad, reqCookie(accessCookie, k.Access))
	require.Equal(t, http.StatusSeeOther, r.status)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.NotContains(t, r.header, "Set-Cookie")
	r = send(t, fx.LogoutHandler(), http.MethodPost, "/logout", reqForm("next=%2Fbye"), pageLoad, crossSite, reqCookie(accessCookie, k.Access))
	require.Equal(t, http.StatusForbidden, r.status)
	require.NotContains(t, r.header, "Location")
	_, err := fx.Verify(t.Context(), k.Access)
	require.NoError(t, err)
}

// A form that ends the other sessions works even if the access token has expired.
func TestLogoutAllHandler_BehindRequireRefreshes(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withPages)
	k, other := fx.login(t), fx.login(t)
	fx.clock.Advance(time.Hour)
	r := send(t, fx.Require()(fx.LogoutAllHandler()), http.MethodPost, "/logout/all?others=true", reqForm("next=%2Fdevices"), pageLoad,
		reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh))
	require.Equal(t, http.StatusSeeOther, r.status, r.body)
	require.Equal(t, "/devices", r.header.Get("Location"))
	list, err := fx.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NotEqual(t, other.SessionID, list[0].ID)
	_, err = fx.Verify(t.Context(), r.cookies[accessCookie].Value)
	require.NoError(t, err)
}
