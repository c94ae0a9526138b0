package authtest_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// recorder is a testing.TB that records the failures of another test.
type recorder struct {
	testing.TB
	failures []string
	stopped  bool // Fatalf was called
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// stop is the value with which Fatalf panics.
type stop struct{}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.stopped = true
	panic(stop{})
}

// failuresOf returns what f reports to its testing.TB, and whether it ended the
// test.
func failuresOf(t *testing.T, f func(t testing.TB)) (failures string, stopped bool) {
	r := &recorder{TB: t}
	defer func() {
		failures, stopped = strings.Join(r.failures, "\n"), r.stopped
		if v := recover(); v != nil {
			require.Equal(t, stop{}, v)
		}
	}()
	f(r)
	return
}

// wantFailure requires that f reports a failure with this text and without a
// token.
func wantFailure(t *testing.T, title, text string, f func(t testing.TB)) {
	t.Helper()
	failures, _ := failuresOf(t, f)
	require.Contains(t, failures, text, title)
	require.NotContains(t, failures, "eyJ", "%s: the beginning of a token", title)
}

func cookieAuthenticator(t *testing.T) *authtest.Authenticator {
	return authtest.New(t, auth.Config{Cookies: &auth.Cookies{}})
}

// response returns a response that f writes.
func response(f func(w http.ResponseWriter)) *http.Response {
	w := httptest.NewRecorder()
	f(w)
	return w.Result()
}

func TestSignedIn_ByCookie(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		if c.Cookies == nil {
			continue
		}
		a := authtest.New(t, c)
		tokens := authtest.Tokens(t, a, admin)
		claims := authtest.SignedIn(t, a, response(func(w http.ResponseWriter) { a.SetCookies(w, tokens) }))
		require.Equal(t, "u1", claims.Subject, name)
		require.Equal(t, tokens.SessionID, claims.SessionID, name)
		require.Equal(t, admin.Roles, claims.Roles, name)
	}
}

func TestSignedIn_InTheBody(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	resp := response(func(w http.ResponseWriter) { a.WriteTokens(w, authtest.Tokens(t, a, admin), false) })
	require.Equal(t, "u1", authtest.SignedIn(t, a, resp).Subject)
	var body map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&body), "the body can be read again")
	require.Contains(t, body, "session_id")
}

// setCookies returns a response with the two cookies of a login, after change
// has changed them.
func setCookies(a *authtest.Authenticator, tokens auth.Tokens, change func(access, refresh *http.Cookie)) *http.Response {
	cookies := response(func(w http.ResponseWriter) { a.SetCookies(w, tokens) }).Cookies()
	change(cookies[0], cookies[1])
	return response(func(w http.ResponseWriter) {
		for _, c := range cookies {
			http.SetCookie(w, c)
		}
	})
}

func TestSignedIn_FailsOnCookiesThatDoNotSignIn(t *testing.T) {
	t.Parallel()
	a := cookieAuthenticator(t)
	tokens, other := authtest.Tokens(t, a, admin), authtest.Tokens(t, a, auth.User{ID: "u2"})
	sameUser := authtest.Tokens(t, a, admin)
	rotated := authtest.Tokens(t, a, admin)
	next, err := a.Refresh(t.Context(), rotated.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	expired := authtest.Tokens(t, a, admin, authtest.Expired())
	revoked := authtest.Tokens(t, a, admin, authtest.Revoked())
	const want = "want __Host-access=; Path=/; HttpOnly; Secure; SameSite=Lax"
	for _, c := range []struct {
		title  string
		change func(access, refresh *http.Cookie)
		want   string
	}{
		{"no access cookie", func(a, _ *http.Cookie) { a.Name = "other" }, "sets the cookie __Host-access 0 times, want once"},
		{"no refresh cookie", func(_, r *http.Cookie) { r.Name = "other" }, "sets the cookie __Host-Http-refresh 0 times, want once"},
		{"the access cookie twice", func(a, r *http.Cookie) { r.Name = a.Name }, "sets the cookie __Host-access 2 times, want once"},
		{"cleared", func(a, _ *http.Cookie) { a.MaxAge = -1 }, "clears the cookie __Host-access"},
		{"empty", func(_, r *http.Cookie) { r.Value = "" }, "clears the cookie __Host-Http-refresh"},
		{"no Max-Age", func(a, _ *http.Cookie) { a.MaxAge = 0 }, "without Max-Age"},
		{"another path", func(a, _ *http.Cookie) { a.Path = "/app" }, "sets the cookie __Host-access=; Path=/app; HttpOnly; Secure; SameSite=Lax, " + want},
		{"a domain", func(a, _ *http.Cookie) { a.Domain = "example.com" }, "Domain=example.com"},
		{"not Secure", func(a, _ *http.Cookie) { a.Secure = false }, "Path=/; HttpOnly; SameSite=Lax, " + want},
		{"not HttpOnly", func(a, _ *http.Cookie) { a.HttpOnly = false }, want},
		{"another SameSite", func(a, _ *http.Cookie) { a.SameSite = http.SameSiteStrictMode }, "SameSite=Strict, " + want},
		{"Partitioned", func(a, _ *http.Cookie) { a.Partitioned = true }, "Partitioned, " + want},
		{"the refresh cookie not HttpOnly", func(_, r *http.Cookie) { r.HttpOnly = false }, "want __Host-Http-refresh=; Path=/"},
		{"swapped", func(a, r *http.Cookie) { a.Value, r.Value = r.Value, a.Value }, "access token is refused: auth: invalid token"},
		{"expired", func(a, _ *http.Cookie) { a.Value = expired.Access }, "access token is refused: auth: token expired"},
		{"revoked", func(a, r *http.Cookie) { a.Value, r.Value = revoked.Access, revoked.Refresh }, "access token is refused: auth: session revoked"},
		{"two access tokens", func(a, r *http.Cookie) { r.Value = a.Value }, "its refresh token is not a refresh token"},
		{"no token", func(_, r *http.Cookie) { r.Value = "token" }, "its refresh token is not a refresh token"},
		{"two users", func(_, r *http.Cookie) { r.Value = other.Refresh }, "its refresh token is of the session " + other.SessionID + ` of the user "u2"`},
		{"two sessions", func(_, r *http.Cookie) { r.Value = sameUser.Refresh }, "its refresh token is of the session " + sameUser.SessionID},
		{"a spent token", func(a, r *http.Cookie) { a.Value, r.Value = next.Access, rotated.Refresh }, "its refresh token has the generation 1, and its session the generation 2"},
	} {
		resp := setCookies(a, tokens, c.change)
		wantFailure(t, c.title, c.want, func(t testing.TB) { authtest.SignedIn(t, a, resp) })
		wantFailure(t, c.title, "the response with status 200: ", func(t testing.TB) { authtest.SignedIn(t, a, resp) })
	}
	authtest.SignedIn(t, a, setCookies(a, tokens, func(_, _ *http.Cookie) {}))
}

func TestSignedIn_FailsIfTheSessionIsNotInTheStore(t *testing.T) {
	t.Parallel()
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	node := func() *authtest.Authenticator { // with a store of its own
		return authtest.New(t, auth.Config{Store: database{auth.NewMemoryStore()}, Secrets: [][]byte{secret}, Cookies: &auth.Cookies{}})
	}
	here, elsewhere := node(), node()
	tokens := authtest.Tokens(t, elsewhere, admin)
	resp := setCookies(elsewhere, tokens, func(_, _ *http.Cookie) {})
	wantFailure(t, "", "the session "+tokens.SessionID+" of its access token does not exist", func(t testing.TB) { authtest.SignedIn(t, here, resp) })
}

func TestSignedIn_FailsOnBodiesThatDoNotSignIn(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	tokens := authtest.Tokens(t, a, admin)
	for body, want := range map[string]string{
		"":   "its body is not a JSON object with access_token and refresh_token",
		"ok": "its body is not a JSON object",
		`{"access_token":"` + tokens.Access + `"}`:                                          "its body is not a JSON object with access_token and refresh_token",
		`{"refresh_token":"` + tokens.Refresh + `"}`:                                        "its body is not a JSON object with access_token and refresh_token",
		`{"access_token":"` + tokens.Refresh + `","refresh_token":"` + tokens.Access + `"}`: "its access token is refused",
	} {
		wantFailure(t, body, want, func(t testing.TB) {
			authtest.SignedIn(t, a, response(func(w http.ResponseWriter) { _, _ = io.WriteString(w, body) }))
		})
	}
	wantFailure(t, "a body that cannot be read", "reading its body: ", func(t testing.TB) {
		authtest.SignedIn(t, a, &http.Response{Body: io.NopCloser(io.MultiReader(strings.NewReader("{"), failing{}))})
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestSignedOut(t *testing.T) {
	t.Parallel()
	for name, c := range configs() {
		if c.Cookies == nil {
			continue
		}
		a := authtest.New(t, c)
		w := respond(a, authtest.As(t, a, httptest.NewRequest(http.MethodPost, "/auth/logout", nil), admin))
		require.Equal(t, http.StatusNoContent, w.Code, name)
		authtest.SignedOut(t, a, w.Result())
		authtest.HasSessions(t, a, "u1")
	}
}

func TestSignedOut_FailsUnlessBothCookiesAreCleared(t *testing.T) {
	t.Parallel()
	a := cookieAuthenticator(t)
	clearing := response(func(w http.ResponseWriter) { a.ClearCookies(w) }).Cookies()
	const want = "want __Host-access=; Path=/; HttpOnly; Secure; SameSite=Lax"
	for _, c := range []struct {
		title  string
		change func(access, refresh *http.Cookie)
		want   string
	}{
		{"no access cookie", func(a, _ *http.Cookie) { a.Name = "other" }, "sets the cookie __Host-access 0 times, want once"},
		{"no refresh cookie", func(_, r *http.Cookie) { r.Name = "other" }, "sets the cookie __Host-Http-refresh 0 times, want once"},
		{"another path, where it is another cookie", func(a, _ *http.Cookie) { a.Path = "/auth" }, "Path=/auth; HttpOnly; Secure; SameSite=Lax, " + want},
		{"not Secure, which browsers ignore", func(a, _ *http.Cookie) { a.Secure = false }, want},
		{"Max-Age 1", func(a, _ *http.Cookie) { a.MaxAge = 1 }, "to a value of 0 bytes with the Max-Age 1, want no value and a negative Max-Age"},
		{"no Max-Age", func(a, _ *http.Cookie) { a.MaxAge = 0 }, "with the Max-Age 0"},
		{"a value", func(_, r *http.Cookie) { r.Value = "eyJhbGciOi" }, "to a value of 10 bytes with the Max-Age -1"},
	} {
		access, refresh := *clearing[0], *clearing[1]
		c.change(&access, &refresh)
		wantFailure(t, c.title, c.want, func(t testing.TB) {
			authtest.SignedOut(t, a, response(func(w http.ResponseWriter) {
				http.SetCookie(w, &access)
				http.SetCookie(w, &refresh)
			}))
		})
	}
	failures, stopped := failuresOf(t, func(t testing.TB) {
		authtest.SignedOut(t, a, response(func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }))
	})
	require.Equal(t, 2, strings.Count(failures, "the response with status 503: it sets the cookie"), "each cookie is reported")
	require.False(t, stopped)
}

func TestCookiesUnchanged(t *testing.T) {
	t.Parallel()
	a := cookieAuthenticator(t)
	authtest.CookiesUnchanged(t, a, respond(a, get("/me")).Result())
	authtest.CookiesUnchanged(t, a, response(func(w http.ResponseWriter) { http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"}) }))

	tokens := authtest.Tokens(t, a, admin)
	for title, f := range map[string]func(w http.ResponseWriter){
		"set":         func(w http.ResponseWriter) { a.SetCookies(w, tokens) },
		"cleared":     func(w http.ResponseWriter) { a.ClearCookies(w) },
		"access only": func(w http.ResponseWriter) { http.SetCookie(w, &http.Cookie{Name: "__Host-access"}) },
	} {
		wantFailure(t, title, "the response with status 200 sets the cookie __Host-access to a value of ", func(t testing.TB) {
			authtest.CookiesUnchanged(t, a, response(f))
		})
	}
	wantFailure(t, "refresh only", "sets the cookie __Host-Http-refresh to a value of 3 bytes with the Max-Age 60, want no such cookie", func(t testing.TB) {
		authtest.CookiesUnchanged(t, a, response(func(w http.ResponseWriter) {
			http.SetCookie(w, &http.Cookie{Name: "__Host-Http-refresh", Value: "abc", MaxAge: 60})
		}))
	})
}

func TestAssertionsOnCookies_RequireCookies(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	for name, assert := range map[string]func(testing.TB, *authtest.Authenticator, *http.Response){
		"SignedOut": authtest.SignedOut, "CookiesUnchanged": authtest.CookiesUnchanged,
	} {
		failures, stopped := failuresOf(t, func(t testing.TB) { assert(t, a, response(func(http.ResponseWriter) {})) })
		require.Equal(t, "authtest."+name+": Config.Cookies is nil, so no response sets or clears cookies", failures)
		require.True(t, stopped)
	}
}

func TestHasSessions(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	authtest.HasSessions(t, a, "u1")
	one, two := authtest.Tokens(t, a, admin), authtest.Tokens(t, a, admin)
	authtest.Tokens(t, a, auth.User{ID: "u2"})
	authtest.HasSessions(t, a, "u1", one.SessionID, two.SessionID)
	authtest.HasSessions(t, a, "u1", two.SessionID, one.SessionID)

	for title, ids := range map[string][]string{
		"none":                     nil,
		"one of two":               {one.SessionID},
		"one too many":             {one.SessionID, two.SessionID, "three"},
		"another":                  {one.SessionID, "three"},
		"one that is listed twice": {one.SessionID, one.SessionID},
	} {
		wantFailure(t, title, `the user "u1" has 2 sessions ["`, func(t testing.TB) { authtest.HasSessions(t, a, "u1", ids...) })
		wantFailure(t, title, fmt.Sprintf(`, want %d [`, len(ids)), func(t testing.TB) { authtest.HasSessions(t, a, "u1", ids...) })
	}

	require.NoError(t, a.Revoke(t.Context(), "u1", one.SessionID))
	authtest.HasSessions(t, a, "u1", two.SessionID)

	var ids []string // random, so the order of the sessions is another one
	for range 8 {
		a.Clock.Advance(time.Second)
		ids = append(ids, authtest.Tokens(t, a, auth.User{ID: "u3"}).SessionID)
	}
	authtest.HasSessions(t, a, "u3", ids...)
}

// unreliable is a store that stops responding when down is set.
type unreliable struct {
	*auth.MemoryStore
	down atomic.Bool
}

func (s *unreliable) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if s.down.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	return s.MemoryStore.List(ctx, subject)
}

func TestHasSessions_FailsDuringAnOutage(t *testing.T) {
	t.Parallel()
	store := &unreliable{MemoryStore: auth.NewMemoryStore()}
	a := authtest.New(t, auth.Config{Store: store, OnEvent: ignore})
	resp := response(func(w http.ResponseWriter) { a.WriteTokens(w, authtest.Tokens(t, a, admin), false) })
	store.down.Store(true)
	wantFailure(t, "", "authtest.HasSessions: auth: temporarily unavailable", func(t testing.TB) { authtest.HasSessions(t, a, "u1") })
	wantFailure(t, "", "auth: temporarily unavailable", func(t testing.TB) { authtest.SignedIn(t, a, resp) })
}

func ignore(context.Context, auth.Event) {}

func TestAs_ReportsMistakes(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{OnEvent: ignore})
	for title, c := range map[string]struct {
		user auth.User
		opt  authtest.Option
		want string
	}{
		"no ID":           {auth.User{}, authtest.LoginAge(0), `signing in the user "": auth: Users.FindByID returned the user "": User.ID is empty`},
		"reserved claim":  {auth.User{ID: "u1", Extra: map[string]any{"iss": "x"}}, authtest.LoginAge(0), "iss"},
		"negative age":    {admin, authtest.LoginAge(-time.Second), "LoginAge (-1s) is negative"},
		"a long time ago": {admin, authtest.LoginAge(31 * 24 * time.Hour), "LoginAge (744h0m0s) is longer than a session can live"},
		"AMR":             {admin, authtest.Session(auth.SessionOptions{AMR: []string{""}}), "SessionOptions.AMR[0]"},
	} {
		failures, stopped := failuresOf(t, func(t testing.TB) { authtest.As(t, a, get("/"), c.user, c.opt) })
		require.Contains(t, failures, c.want, title)
		require.True(t, stopped, title)
	}
	query := authtest.New(t, auth.Config{Extractors: []auth.Extractor{auth.FromQuery("token")}})
	wantFailure(t, "another extractor", "Config.Extractors do not find the access token", func(t testing.TB) {
		authtest.As(t, query, get("/"), admin)
	})
}

func TestAs_ReportsATokenThatIsNotAsAsked(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{AccessKeys: auth.Keys{auth.HS256([]byte("an access secret of these tests, 1"))},
		RefreshKeys: auth.Keys{auth.HS256([]byte("a refresh secret of these tests, 1"))}})
	require.NoError(t, a.RevokeAll(t.Context(), "u1"))
	wantFailure(t, "a login before RevokeAll", "and not 1h0m0s ago", func(t testing.TB) {
		authtest.As(t, a, get("/"), admin, authtest.LoginAge(time.Hour))
	})
	require.NoError(t, a.SetKeys(auth.Keys{auth.HS256([]byte("an access secret of these tests, 2"))}, auth.Keys{auth.HS256([]byte("a refresh secret of these tests, 2"))}))
	wantFailure(t, "keys of New", "Expired and LoginAge use the keys that New was called with: auth: invalid token", func(t testing.TB) {
		authtest.As(t, a, get("/"), auth.User{ID: "u2"}, authtest.Expired())
	})
}

func TestAs_ReportsASessionThatEndsWithItsAccessToken(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{IdleTTL: 15 * time.Minute, RetryWindow: -1, Leeway: -1})
	wantFailure(t, "IdleTTL", "because LoginAge is too long or its lifetimes are too short", func(t testing.TB) {
		authtest.As(t, a, get("/"), admin, authtest.Expired())
	})
	b := authtest.New(t, auth.Config{})
	wantFailure(t, "SessionTTL", "because LoginAge is too long or its lifetimes are too short", func(t testing.TB) {
		authtest.As(t, b, get("/"), admin, authtest.Expired(), authtest.LoginAge(30*24*time.Hour))
	})
}

func TestNew_ReportsMistakes(t *testing.T) {
	t.Parallel()
	var none appUsers
	failures, stopped := failuresOf(t, func(t testing.TB) {
		authtest.New(t, auth.Config{Users: none, AccessTTL: -1})
	})
	require.Contains(t, failures, "authtest.New: auth: Config.Users is a nil authtest_test.appUsers")
	require.Contains(t, failures, "AccessTTL")
	require.True(t, stopped)
}

// recording is a testing.TB with its own output and cleanup functions.
type recording struct {
	testing.TB
	mu      sync.Mutex
	text    strings.Builder
	cleanup []func()
}

func (r *recording) Output() io.Writer { return r }
func (r *recording) Cleanup(f func())  { r.cleanup = append(r.cleanup, f) }
func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func TestNew_LogsEventsUntilTheTestEnds(t *testing.T) {
	t.Parallel()
	r := &recording{TB: t}
	a := authtest.New(r, auth.Config{})
	respond(a, get("/me"))
	require.Contains(t, r.text.String(), `level=INFO msg="auth: refused"`)
	require.Contains(t, r.text.String(), "no token")
	require.NotContains(t, r.text.String(), "time=")
	for _, f := range r.cleanup {
		f()
	}
	text := r.text.String()
	authtest.Tokens(t, a, admin)
	require.Equal(t, text, r.text.String())
}
