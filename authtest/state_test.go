package authtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

func acting(id string) authtest.Option {
	return authtest.Session(auth.SessionOptions{Actor: id})
}

func TestAs_ActorNeedNotBeKnown(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		a := authtest.New(t, c)
		for _, opts := range [][]authtest.Option{{acting("support")}, {acting("support"), authtest.Expired()}, {acting("support"), authtest.LoginAge(50 * time.Minute)}} {
			tokens := authtest.Tokens(t, a, admin, opts...)
			next, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, name)
			claims, err := a.Verify(t.Context(), next.Access)
			require.NoError(t, err, name)
			require.Equal(t, "u1", claims.Subject)
			require.Equal(t, "support", claims.Actor)
			require.Equal(t, admin.Roles, claims.Roles, "the roles are those of the user")
		}
		require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin, acting("support"))).Code, name)
	}
}

func TestAs_ActorKeepsTheirOwnRoles(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	support := auth.User{ID: "support", Roles: []string{"staff"}}
	own := authtest.Tokens(t, a, support)
	authtest.Tokens(t, a, admin, acting("support"))
	next, err := a.Refresh(t.Context(), own.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	claims, err := a.Verify(t.Context(), next.Access)
	require.NoError(t, err)
	require.Equal(t, support.Roles, claims.Roles)
}

func TestAs_RefreshAsksTheApplicationForAnActorWhomItKnows(t *testing.T) {
	t.Parallel()
	us := appUsers{"support": {ID: "support"}}
	a := authtest.New(t, auth.Config{Users: us})
	tokens := authtest.Tokens(t, a, admin, acting("support"))
	us["support"] = auth.User{ID: "support", Disabled: true}
	_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestAs_RevokeAllOfTheActorEndsTheSession(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	tokens := authtest.Tokens(t, a, admin, acting("support"))
	require.NoError(t, a.RevokeAll(t.Context(), "support"))
	_, err := a.Verify(t.Context(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestAs_ReportsAnActorWhoIsTheUser(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{OnEvent: ignore})
	wantFailure(t, "", "SessionOptions.Actor is the user of the session", func(t testing.TB) { authtest.Tokens(t, a, admin, acting("u1")) })
	wantFailure(t, "", "LoginAge (2h0m0s) is longer than a session can live", func(t testing.TB) {
		authtest.Tokens(t, a, admin, acting("support"), authtest.LoginAge(2*time.Hour))
	})
}

// The session is refreshed in steps that its own lifetimes permit, from its login until
// now, whether the options or Config.OnLogin have set them.
func TestAs_LoginAgeWithLifetimesOfTheSession(t *testing.T) {
	t.Parallel()
	const least = 3*30*time.Second + time.Minute + 10*time.Second // which New and StartSession permit
	byHook := func(idle time.Duration) auth.Config {
		return auth.Config{AccessTTL: time.Minute, OnLogin: func(_ context.Context, u auth.User, o *auth.SessionOptions) error {
			if u.ID != "u1" {
				return errors.New("a user whom the test did not name")
			}
			o.IdleTTL = idle
			return nil
		}}
	}
	for name, test := range map[string]struct {
		config auth.Config
		opts   auth.SessionOptions
	}{
		"options":    {auth.Config{AccessTTL: time.Minute}, auth.SessionOptions{IdleTTL: least}},
		"an actor":   {auth.Config{}, auth.SessionOptions{IdleTTL: least, Actor: "support"}},
		"OnLogin":    {byHook(least), auth.SessionOptions{}},
		"fractions":  {auth.Config{AccessTTL: time.Minute}, auth.SessionOptions{IdleTTL: least + 999*time.Millisecond}},
		"all of it":  {auth.Config{AccessTTL: time.Minute, IdleTTL: least}, auth.SessionOptions{}},
		"both":       {auth.Config{AccessTTL: time.Minute}, auth.SessionOptions{IdleTTL: 20 * time.Minute, SessionTTL: time.Hour}},
		"no leeway":  {auth.Config{AccessTTL: 2 * time.Second, Leeway: -1}, auth.SessionOptions{IdleTTL: 92 * time.Second}},
		"no retries": {auth.Config{AccessTTL: 2 * time.Second, RetryWindow: -1, Leeway: -1}, auth.SessionOptions{IdleTTL: 2 * time.Second}},
	} {
		a := authtest.New(t, test.config)
		a.Clock.Advance(700 * time.Millisecond)
		for _, age := range []time.Duration{time.Second, 40 * time.Minute, 55*time.Minute + 300*time.Millisecond} {
			tokens := authtest.Tokens(t, a, admin, authtest.Session(test.opts), authtest.LoginAge(age))
			_, err := a.Verify(t.Context(), tokens.Access)
			require.NoError(t, err, "%s: %s", name, age)
			_, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "%s: %s", name, age)
		}
	}
	a := authtest.New(t, auth.Config{AccessTTL: time.Minute})
	tokens := authtest.Tokens(t, a, admin, authtest.Session(auth.SessionOptions{IdleTTL: least}))
	a.Clock.Advance(least)
	_, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestAs_ExpiredWithLifetimesOfTheSession(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{AccessTTL: time.Minute})
	for _, o := range []auth.SessionOptions{{IdleTTL: 5 * time.Minute}, {IdleTTL: 5 * time.Minute, Actor: "support"}, {Ephemeral: true}} {
		tokens := authtest.Tokens(t, a, admin, authtest.Session(o), authtest.Expired(), authtest.LoginAge(30*time.Minute))
		_, err := a.Verify(t.Context(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired)
		_, err = a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	}
}

func TestSignedIn_EphemeralSession(t *testing.T) {
	t.Parallel()
	a := cookieAuthenticator(t)
	keep := func(_, _ *http.Cookie) {}
	tokens := authtest.Tokens(t, a, admin, authtest.Session(auth.SessionOptions{Ephemeral: true}))
	authtest.SignedIn(t, a, setCookies(a, tokens, keep))
	next, err := a.Refresh(t.Context(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	authtest.SignedIn(t, a, setCookies(a, next, keep))
	for _, change := range []func(access, refresh *http.Cookie){
		func(a, _ *http.Cookie) { a.MaxAge = 60 }, func(_, r *http.Cookie) { r.MaxAge = 60 },
	} {
		resp := setCookies(a, next, change)
		wantFailure(t, "", "with the Max-Age 60, so the cookie does not end with the browser", func(t testing.TB) { authtest.SignedIn(t, a, resp) })
	}
	resp := setCookies(a, authtest.Tokens(t, a, admin), func(_, r *http.Cookie) { r.MaxAge = 0 })
	wantFailure(t, "", "sets the cookie __Host-Http-refresh without Max-Age", func(t testing.TB) { authtest.SignedIn(t, a, resp) })
}

// loginRequest is a login by a script of a page of the same origin.
func loginRequest(login, pass string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(`{"login":"`+login+`","password":"`+pass+`"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func userWithPassword(t *testing.T, id, pass string) appUsers {
	t.Helper()
	hash, err := authtest.New(t, auth.Config{}).HashPassword(t.Context(), pass, auth.Device{})
	require.NoError(t, err)
	return appUsers{id: {ID: id, PasswordHash: hash}}
}

func TestFactors(t *testing.T) {
	t.Parallel()
	f := authtest.Factors{"recovery": "abcd", "otp": "123456", "none": ""}
	methods, err := f.Methods(t.Context(), admin, auth.Device{})
	require.NoError(t, err)
	require.Equal(t, []string{"none", "otp", "recovery"}, methods)
	for response, want := range map[string]error{
		"otp 123456": nil, "recovery abcd": nil, "otp abcd": auth.ErrInvalidCredentials, "otp ": auth.ErrInvalidCredentials, "other ": auth.ErrInvalidCredentials,
	} {
		method, response, _ := strings.Cut(response, " ")
		require.ErrorIs(t, f.Verify(t.Context(), admin, method, response), want, response)
	}

	for factors, want := range map[*authtest.Factors]int{{}: http.StatusOK, {"otp": "1"}: http.StatusUnauthorized} {
		a := authtest.New(t, auth.Config{Users: userWithPassword(t, "ada", "password"), SecondFactor: *factors, Cookies: &auth.Cookies{}})
		require.Equal(t, want, respond(a, loginRequest("ada", "password")).Code)
		require.Equal(t, http.StatusOK, respond(a, authtest.As(t, a, get("/me"), admin)).Code, "As needs no second step")
	}
}

func TestFactorRequired(t *testing.T) {
	t.Parallel()
	for _, cookies := range []*auth.Cookies{nil, {}} {
		a := authtest.New(t, auth.Config{Users: userWithPassword(t, "ada", "password"), SecondFactor: authtest.Factors{"otp": "1"}, Cookies: cookies})
		resp := respond(a, loginRequest("ada", "password")).Result()
		challenge := authtest.FactorRequired(t, a, resp)
		require.Equal(t, challenge, authtest.FactorRequired(t, a, resp), "the body can be read again")
		tokens, err := a.LoginFactor(t.Context(), challenge, "otp", "1", auth.SessionOptions{})
		require.NoError(t, err)
		wantFailure(t, "", `the response with status 401: the action in its body is "login", want "factor"`, func(t testing.TB) {
			authtest.FactorRequired(t, a, respond(a, loginRequest("ada", "wrong")).Result())
		})
		if cookies != nil {
			resp := response(func(w http.ResponseWriter) {
				a.SetCookies(w, tokens)
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, `{"action":"factor","challenge":"c","methods":["otp"]}`)
			})
			wantFailure(t, "", "sets the cookie __Host-access", func(t testing.TB) { authtest.FactorRequired(t, a, resp) })
		}
	}
	a := authtest.New(t, auth.Config{})
	for body, want := range map[string]string{
		"": "the action in its body is", `{"action":"factor","challenge":"c","methods":["otp"]}`: "status is not 401",
	} {
		resp := response(func(w http.ResponseWriter) { _, _ = io.WriteString(w, body) })
		wantFailure(t, body, want, func(t testing.TB) { authtest.FactorRequired(t, a, resp) })
	}
	for _, body := range []string{`{"action":"factor","methods":["otp"]}`, `{"action":"factor","challenge":"c"}`} {
		resp := response(func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, body)
		})
		wantFailure(t, body, "no challenge, or no methods", func(t testing.TB) { authtest.FactorRequired(t, a, resp) })
	}
	wantFailure(t, "a body that cannot be read", "reading its body: ", func(t testing.TB) {
		authtest.FactorRequired(t, a, &http.Response{Body: io.NopCloser(failing{})})
	})
}

func TestThrottleLogin(t *testing.T) {
	t.Parallel()
	us := userWithPassword(t, "ada", "password")
	for _, login := range []string{"ada", "nobody"} {
		a := authtest.New(t, auth.Config{Users: us, OnEvent: ignore})
		authtest.ThrottleLogin(t, a, login)
		authtest.ThrottleLogin(t, a, login) // does nothing
		w := respond(a, loginRequest(login, "password"))
		require.Equal(t, http.StatusTooManyRequests, w.Code, login)
		require.Equal(t, "1", w.Header().Get("Retry-After"), login)
		require.Equal(t, http.StatusUnauthorized, respond(a, loginRequest("bob", "password")).Code, "others are not throttled")
		a.Clock.Advance(time.Second)
		require.NotEqual(t, http.StatusTooManyRequests, respond(a, loginRequest(login, "password")).Code, login)
	}
}

// permissive is a Limiter that permits every attempt.
type permissive struct{}

func (permissive) Take(context.Context, []auth.Bucket) (time.Duration, int, error) { return 0, 0, nil }

func (permissive) Settle(context.Context, []auth.Bucket, []auth.Bucket) error { return nil }

func TestThrottleLogin_ReportsMistakes(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{Limiter: permissive{}, OnEvent: ignore})
	wantFailure(t, "", `Config.Limiter permits 100 failed attempts for "ada"`, func(t testing.TB) { authtest.ThrottleLogin(t, a, "ada") })
	b := authtest.New(t, auth.Config{Users: brokenLookup{}, OnEvent: ignore})
	wantFailure(t, "", `signing in as "ada": auth: temporarily unavailable`, func(t testing.TB) { authtest.ThrottleLogin(t, b, "ada") })
}

// brokenLookup is a user lookup that fails, with an error that wraps another one.
type brokenLookup struct{ appUsers }

func (brokenLookup) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrInvalidCredentials
}
