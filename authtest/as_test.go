package authtest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

var admin = auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, Scopes: []string{"pay"}, Extra: map[string]any{"tenant": "acme"}}

// appRoutes are the routes of an application.
func appRoutes(a *auth.Authenticator) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("/admin", a.Require(auth.Role("admin"), auth.Scope("pay"))(http.HandlerFunc(whoami)))
	mux.Handle("/me", a.Require()(http.HandlerFunc(whoami)))
	mux.Handle("/pay", a.Require(auth.Fresh(5*time.Minute))(http.HandlerFunc(whoami)))
	return mux
}

// whoami responds with the user and their own claim tenant.
func whoami(w http.ResponseWriter, r *http.Request) {
	c, _ := auth.FromContext(r.Context())
	var own struct{ Tenant string }
	if err := c.Decode(&own); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, c.Subject, " ", c.Username, " ", own.Tenant)
}

// respond returns the response to a request.
func respond(a *authtest.Authenticator, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	appRoutes(a.Authenticator).ServeHTTP(w, r)
	return w
}

func get(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

// configs are the configurations that send tokens in different ways.
func configs() map[string]auth.Config {
	return map[string]auth.Config{
		"bearer":       {},
		"cookies":      {Cookies: &auth.Cookies{}},
		"development":  {Cookies: &auth.Cookies{InsecureHTTP: true}},
		"other names":  {Cookies: &auth.Cookies{AccessName: "__Host-a", RefreshName: "__Host-r"}},
		"AutoRefresh":  {Cookies: &auth.Cookies{}, AutoRefresh: true},
		"another site": {Cookies: &auth.Cookies{SameSite: http.SameSiteNoneMode, TrustedOrigins: []string{"https://app.example"}}},
	}
}

func TestAs_SignsTheRequestIn(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		a := authtest.New(t, c)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := respond(a, authtest.As(t, a, httptest.NewRequest(method, "/admin", nil), admin))
			require.Equal(t, http.StatusOK, w.Code, "%s: %s", name, w.Body)
			require.Equal(t, "u1 ada acme", w.Body.String(), name)
		}
		require.Equal(t, http.StatusUnauthorized, respond(a, get("/admin")).Code, name)
		require.Equal(t, http.StatusForbidden, respond(a, authtest.As(t, a, get("/admin"), auth.User{ID: "u1"})).Code, name)
	}
}

func TestAs_ReplacesTheTokensOfTheRequest(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		a := authtest.New(t, c)
		r := get("/me")
		r.AddCookie(&http.Cookie{Name: "theme", Value: "dark"})
		r.Header.Set("Authorization", "Bearer "+authtest.Tokens(t, a, auth.User{ID: "u3"}).Access)
		same := authtest.As(t, a, authtest.As(t, a, r, admin), auth.User{ID: "u2"})
		require.Same(t, r, same)
		w := respond(a, r)
		require.Equal(t, "u2  ", w.Body.String(), name)
		theme, err := r.Cookie("theme")
		require.NoError(t, err, name)
		require.Equal(t, "dark", theme.Value)
		cookies, authorization, site := 1, 1, ""
		if c.Cookies != nil {
			cookies, authorization, site = 3, 0, "same-origin"
		}
		require.Len(t, r.Cookies(), cookies, name)
		require.Len(t, r.Header.Values("Authorization"), authorization, name)
		require.Equal(t, site, r.Header.Get("Sec-Fetch-Site"), name)
	}
}

func TestAs_KeepsTheOriginOfTheRequest(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}})
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
		name, value, _ := strings.Cut(header, ": ")
		r := httptest.NewRequest(http.MethodPost, "/me", nil)
		r.Header.Set(name, value)
		require.Equal(t, http.StatusForbidden, respond(a, authtest.As(t, a, r, admin)).Code, header)
	}
}

func TestAs_RequestLoadsAPageIfItAcceptsHTML(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}, OnError: auth.RedirectToLogin("/login")})
	for header, code := range map[string]int{
		"Accept: */*": http.StatusUnauthorized, "Accept: text/html": http.StatusSeeOther, "Sec-Fetch-Mode: navigate": http.StatusSeeOther,
	} {
		name, value, _ := strings.Cut(header, ": ")
		r := get("/me")
		r.Header.Set(name, value)
		require.Equal(t, code, respond(a, authtest.As(t, a, r, admin, authtest.Revoked())).Code, header)
	}
}

func TestAs_WithInsecureHTTPNeedsALoopbackHost(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]int{"/me": 1, "http://localhost/me": 0, "http://127.0.0.1:8080/me": 0} {
		var faults []string
		a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{InsecureHTTP: true}, OnEvent: func(_ context.Context, e auth.Event) {
			if e.Type == auth.EventFault {
				faults = append(faults, e.Err.Error())
			}
		}})
		require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get(at), admin)).Code)
		require.Len(t, faults, want, at)
	}
}

func TestAs_ExpiredTokenCanBeRefreshed(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		a := authtest.New(t, c)
		r := authtest.As(t, a, httptest.NewRequest(http.MethodPost, "/me", nil), admin, authtest.Expired())
		w := respond(a, r)
		if c.AutoRefresh {
			require.Equal(t, http.StatusOK, w.Code)
			require.NotEmpty(t, w.Result().Cookies())
			continue
		}
		require.Equal(t, http.StatusUnauthorized, w.Code, name)
		require.Contains(t, w.Body.String(), `"action":"refresh"`, name)

		tokens := authtest.Tokens(t, a, admin, authtest.Expired())
		_, err := a.Verify(t.Context(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired)
		tokens, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		claims, err := a.Verify(t.Context(), tokens.Access)
		require.NoError(t, err)
		require.Equal(t, admin.Roles, claims.Roles, "a refresh finds a user whom Config.Users does not know")
	}
}

func TestAs_ExpiredDoesNotMoveTheClock(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	before, valid := a.Clock.Now(), authtest.Tokens(t, a, admin)
	authtest.Tokens(t, a, admin, authtest.Expired())
	require.Equal(t, before, a.Clock.Now())
	authtest.HasSessions(t, a, "authtest") // none is left of reading the lifetimes
	_, err := a.Verify(t.Context(), valid.Access)
	require.NoError(t, err)
}

func TestAs_RevokedSessionHasEnded(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		a := authtest.New(t, c)
		other := authtest.Tokens(t, a, admin)
		w := respond(a, authtest.As(t, a, get("/me"), admin, authtest.Revoked()))
		require.Equal(t, http.StatusUnauthorized, w.Code, name)
		require.Contains(t, w.Body.String(), `"action":"login"`, name)
		for _, opts := range [][]authtest.Option{{authtest.Revoked()}, {authtest.Revoked(), authtest.Expired()}} {
			tokens := authtest.Tokens(t, a, admin, opts...)
			_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
		}
		_, err := a.Verify(t.Context(), other.Access)
		require.NoError(t, err, "other sessions of the user continue")
	}
}

func TestAs_LoginAge(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	for age, code := range map[time.Duration]int{
		0: http.StatusOK, 4 * time.Minute: http.StatusOK, 6 * time.Minute: http.StatusUnauthorized, 29 * 24 * time.Hour: http.StatusUnauthorized,
	} {
		w := respond(a, authtest.As(t, a, get("/pay"), admin, authtest.LoginAge(age)))
		require.Equal(t, code, w.Code, age)
		claims, err := a.Verify(t.Context(), authtest.Tokens(t, a, admin, authtest.LoginAge(age)).Access)
		require.NoError(t, err)
		require.True(t, claims.AuthTime.Equal(a.Clock.Now().Add(-age)), age)
		require.True(t, claims.ExpiresAt.Equal(a.Clock.Now().Add(15*time.Minute)), "the token was issued now")
	}
	tokens := authtest.Tokens(t, a, admin, authtest.LoginAge(time.Hour), authtest.Expired())
	_, err := a.Verify(t.Context(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	sessions, err := a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	for _, s := range sessions {
		if s.ID == tokens.SessionID {
			require.True(t, s.CreatedAt.Equal(a.Clock.Now().Add(-time.Hour)))
		}
	}
}

func TestAs_Session(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	amr := func(opts ...authtest.Option) []string {
		claims, err := a.Verify(t.Context(), authtest.Tokens(t, a, admin, opts...).Access)
		require.NoError(t, err)
		return claims.AMR
	}
	require.Equal(t, []string{"pwd"}, amr())
	require.Equal(t, []string{"pwd"}, amr(authtest.Session(auth.SessionOptions{Name: "phone"})))
	require.Equal(t, []string{"pwd", "otp"}, amr(authtest.Session(auth.SessionOptions{AMR: []string{"pwd", "otp"}}), authtest.LoginAge(time.Hour)))
	sessions, err := a.Sessions(t.Context(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 3)
	names := []string{sessions[0].Name(), sessions[1].Name(), sessions[2].Name()}
	require.ElementsMatch(t, []string{"", "phone", ""}, names)

	laptop := auth.Device{UserAgent: "laptop"}
	for _, opt := range []authtest.Option{authtest.LoginAge(time.Hour), authtest.Expired()} {
		tokens := authtest.Tokens(t, a, auth.User{ID: "u2"}, opt, authtest.Session(auth.SessionOptions{Device: laptop}))
		sessions, err := a.Sessions(t.Context(), "u2")
		require.NoError(t, err)
		require.Len(t, sessions, 1)
		require.Equal(t, laptop, sessions[0].Device)
		require.NoError(t, a.Revoke(t.Context(), "u2", tokens.SessionID))
	}
}

// appUsers are the users of an application.
type appUsers map[string]auth.User

func (us appUsers) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return us.FindByID(ctx, login)
}

func (us appUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	u, ok := us[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u, nil
}

func TestAs_RefreshAsksTheApplicationForAUserWhomItKnows(t *testing.T) {
	t.Parallel()
	us := appUsers{"u1": {ID: "u1", Roles: []string{"guest"}}}
	a := authtest.New(t, auth.Config{Users: us})
	tokens := authtest.Tokens(t, a, admin)
	claims, err := a.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, admin.Roles, claims.Roles)
	a.Clock.Advance(time.Hour)
	tokens, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	claims, err = a.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, []string{"guest"}, claims.Roles)

	delete(us, "u1")
	a.Clock.Advance(time.Hour)
	_, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "a deleted user cannot refresh")
}

func TestAs_UserWhoWasDisabledAfterTheLogin(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	tokens := authtest.Tokens(t, a, auth.User{ID: "u1", Disabled: true})
	_, err := a.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	_, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestAs_CookiesOfTheRequestSignAClientIn(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}})
	srv := httptest.NewTLSServer(appRoutes(a.Authenticator))
	defer srv.Close()
	client := srv.Client()
	client.Jar, _ = cookiejar.New(nil)
	at, err := url.Parse(srv.URL)
	require.NoError(t, err)
	client.Jar.SetCookies(at, authtest.As(t, a, get("/"), admin).Cookies())

	status := func(method, path string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
		require.NoError(t, err)
		resp, err := client.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, status(http.MethodGet, "/admin"))
	a.Clock.Advance(16 * time.Minute)
	require.Equal(t, http.StatusUnauthorized, status(http.MethodGet, "/admin"))
	require.Equal(t, http.StatusOK, status(http.MethodPost, "/auth/refresh"))
	require.Equal(t, http.StatusOK, status(http.MethodGet, "/admin"))
	require.Equal(t, http.StatusNoContent, status(http.MethodPost, "/auth/logout"))
	require.Equal(t, http.StatusUnauthorized, status(http.MethodGet, "/admin"))
	require.Empty(t, client.Jar.Cookies(at))
}

func TestAs_ParallelSubtestsShareAnAuthenticator(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}})
	for _, role := range []string{"admin", "user", "guest"} {
		for _, opts := range [][]authtest.Option{nil, {authtest.Expired()}, {authtest.Revoked()}, {authtest.LoginAge(time.Hour)}} {
			t.Run(role, func(t *testing.T) {
				t.Parallel()
				r := authtest.As(t, a, get("/me"), auth.User{ID: "u1", Username: role}, opts...)
				w := respond(a, r)
				if w.Code == http.StatusOK {
					require.Equal(t, "u1 "+role+" ", w.Body.String())
				}
			})
		}
	}
}

func TestNew_InABubbleFollowsItsClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := authtest.New(t, auth.Config{Now: time.Now, Store: database{auth.NewMemoryStore()}})
		r := authtest.As(t, a, get("/me"), admin)
		require.Equal(t, http.StatusOK, respond(a, r).Code)
		time.Sleep(15 * time.Minute)
		require.Equal(t, http.StatusUnauthorized, respond(a, r).Code)
		authtest.As(t, a, r, admin)
		require.Equal(t, http.StatusOK, respond(a, r).Code)
		a.Clock.Advance(15 * time.Minute)
		require.Equal(t, http.StatusUnauthorized, respond(a, r).Code)
	})
}

// database is a MemoryStore that stands for a database: an Authenticator on it
// needs Run.
type database struct{ *auth.MemoryStore }

func TestNew_RunsTheFeedOfOtherStores(t *testing.T) {
	t.Parallel()
	var a *authtest.Authenticator
	t.Run("test", func(t *testing.T) {
		a = authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}, Cookies: &auth.Cookies{}})
		for _, opts := range [][]authtest.Option{nil, {authtest.LoginAge(time.Hour)}} {
			require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin, opts...)).Code)
		}
		for _, opts := range [][]authtest.Option{{authtest.Expired()}, {authtest.Revoked()}} {
			require.Equal(t, http.StatusUnauthorized, respond(a, authtest.As(t, a, get("/me"), admin, opts...)).Code)
		}
		require.Error(t, a.Run(t.Context()), "Run is running")
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, a.Run(ctx), context.Canceled, "Run ended with the test")
}

func TestNew_StandingClockStartsAtAWholeSecond(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Second)
	a := authtest.New(t, auth.Config{})
	now := a.Clock.Now()
	require.False(t, now.Before(before) || now.After(time.Now()))
	require.True(t, now.Equal(now.Truncate(time.Second)))
	a.Clock.Advance(time.Minute)
	require.Equal(t, now.Add(time.Minute), a.Clock.Now())
	a.Clock.Advance(-time.Hour)
	require.Equal(t, now.Add(-59*time.Minute), a.Clock.Now())
}

func TestNew_TwoSecretsDiffer(t *testing.T) {
	t.Parallel()
	a, b := authtest.New(t, auth.Config{}), authtest.New(t, auth.Config{})
	_, err := b.Verify(t.Context(), authtest.Tokens(t, a, admin).Access)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}
