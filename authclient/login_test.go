package authclient

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	pw "github.com/ratchet-go/auth/password"
)

const password = "correct horse battery staple"

type users struct{ ada auth.User }

// oneUser returns a user lookup that knows ada.
func oneUser(t *testing.T) auth.Users {
	hash, err := (&pw.Hasher{Memory: 64, Time: 1}).Hash(t.Context(), password)
	require.NoError(t, err)
	return users{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}}
}

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(context.Context, string) (auth.User, error) { return u.ada, nil }

// codes is a second factor whose code is always the same.
type codes struct{}

func (codes) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return []string{"otp", "recovery"}, nil
}

func (codes) Verify(_ context.Context, _ auth.User, _, response string) error {
	if response != "123456" {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// playLogin is play with a server on which ada can sign in, and a client that is
// signed out.
func playLogin(t *testing.T, factor auth.SecondFactor, f func(t *testing.T, s *server, tr *Transport)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, auth.Config{Now: time.Now, Users: oneUser(t), SecondFactor: factor})
		tr, err := New(Config{BaseURL: base, Base: s})
		require.NoError(t, err)
		f(t, s, tr)
		synctest.Wait()
		require.Zero(t, s.bodies)
	})
}

// refusal returns the Error in err.
func refusalOf(t *testing.T, err error) *Error {
	t.Helper()
	var refusal *Error
	require.ErrorAs(t, err, &refusal)
	return refusal
}

func TestLogin_SavesTheTokens(t *testing.T) {
	playLogin(t, nil, func(t *testing.T, s *server, tr *Transport) {
		require.NoError(t, tr.Login(t.Context(), map[string]string{"login": "ada", "password": password, "device": "lap & top", "remember": "true"}))
		requireAda(t, tr)
		require.Equal(t, 15*time.Minute, time.Until(stored(t, tr).ExpiresAt))
		sessions, err := s.Sessions(t.Context(), "u1")
		require.NoError(t, err)
		require.Len(t, sessions, 1)
		require.Equal(t, "lap & top", sessions[0].Name())
		require.Equal(t, sessions[0].ID, stored(t, tr).Session)
		time.Sleep(time.Hour)
		requireAda(t, tr)
	})
}

func TestLogin_RefusedLoginChangesNothing(t *testing.T) {
	playLogin(t, nil, func(t *testing.T, s *server, tr *Transport) {
		s.signIn(t, tr)
		before := stored(t, tr)
		wrong := map[string]string{"login": "ada", "password": "wrong"}
		err := tr.Login(t.Context(), wrong)
		refusal := refusalOf(t, err)
		require.NotErrorIs(t, err, ErrSignedOut)
		require.EqualError(t, err, "authclient: the server responded with status 401: invalid_credentials: login or password is wrong")
		require.Equal(t, "login", refusal.Action)
		for refusal.Status != http.StatusTooManyRequests {
			refusal = refusalOf(t, tr.Login(t.Context(), wrong))
		}
		require.Equal(t, "too_many_attempts", refusal.Code)
		require.Positive(t, refusal.RetryAfter)
		n := len(s.take("/login"))
		time.Sleep(refusal.RetryAfter)
		require.Equal(t, before, stored(t, tr))
		require.Empty(t, s.take("/login"), "it is not repeated after %d", n)
		require.NoError(t, tr.Login(t.Context(), map[string]string{"login": "ada", "password": password}))
		require.NotEqual(t, before.Session, stored(t, tr).Session)
	})
}

// Otherwise the second factor would complete the login of another user.
func TestLogin_EndsTheChallengeOfTheLoginBefore(t *testing.T) {
	playLogin(t, codes{}, func(t *testing.T, _ *server, tr *Transport) {
		refusal := refusalOf(t, tr.Login(t.Context(), map[string]string{"login": "ada", "password": password}))
		require.Equal(t, "factor", refusal.Action)
		refusal = refusalOf(t, tr.Login(t.Context(), map[string]string{"login": "bob", "password": "wrong"}))
		require.Equal(t, "login", refusal.Action)
		require.ErrorContains(t, tr.LoginFactor(t.Context(), "otp", "123456"), "without a Login")
		require.Zero(t, stored(t, tr))
	})
}

func TestLogin_SendsNothingIfTheTokensCannotBeSaved(t *testing.T) {
	playLogin(t, nil, func(t *testing.T, s *server, _ *Transport) {
		tr, err := New(Config{BaseURL: base, Base: s, Store: FileStore(filepath.Join(t.TempDir(), "no folder", "tokens.json"))})
		require.NoError(t, err)
		err = tr.Login(t.Context(), map[string]string{"login": "ada", "password": password})
		require.ErrorIs(t, err, os.ErrNotExist)
		require.Empty(t, s.take("/login"))
	})
}

func TestLogin_SecondFactor(t *testing.T) {
	playLogin(t, codes{}, func(t *testing.T, s *server, tr *Transport) {
		require.ErrorContains(t, tr.LoginFactor(t.Context(), "otp", "123456"), "without a Login")
		refusal := refusalOf(t, tr.Login(t.Context(), map[string]string{"login": "ada", "password": password}))
		require.Equal(t, "factor", refusal.Action)
		require.Equal(t, []string{"otp", "recovery"}, refusal.Methods)
		require.Zero(t, stored(t, tr))
		refusal = refusalOf(t, tr.LoginFactor(t.Context(), "otp", "wrong"))
		require.Equal(t, "factor", refusal.Action)
		require.NoError(t, tr.LoginFactor(t.Context(), "otp", "123456"))
		requireAda(t, tr)
		require.ErrorContains(t, tr.LoginFactor(t.Context(), "otp", "123456"), "without a Login", "the challenge was spent")

		_ = tr.Login(t.Context(), map[string]string{"login": "ada", "password": password})
		time.Sleep(time.Hour)
		require.Equal(t, "login", refusalOf(t, tr.LoginFactor(t.Context(), "otp", "123456")).Action, "the challenge has expired")
	})
}

func TestLogin_IsNotSavedIfTheStoreFails(t *testing.T) {
	playLogin(t, nil, func(t *testing.T, _ *server, tr *Transport) {
		store := &failingStore{Store: new(memory)}
		store.failAfter(0, errLost)
		tr.store = store
		err := tr.Login(t.Context(), map[string]string{"login": "ada", "password": password})
		require.ErrorIs(t, err, errLost)
		require.EqualError(t, err, "authclient: saving the tokens: the response of a test is lost")
	})
}

func TestLogout_EndsTheSession(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		require.NoError(t, tr.Logout(t.Context()))
		require.Zero(t, stored(t, tr))
		sessions, err := s.Sessions(t.Context(), "u1")
		require.NoError(t, err)
		require.Empty(t, sessions)
		_, _, err = get(t, tr, page)
		require.ErrorIs(t, err, ErrSignedOut)
		s.requests = nil
		require.NoError(t, tr.Logout(t.Context()), "nobody is signed in")
		require.Empty(t, s.requests)
	})
}

func TestLogout_KeepsTheTokensIfTheSessionMayGoOn(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		before := stored(t, tr)
		handler := s.handler
		s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { unavailable(w, r, nil) })
		require.Equal(t, http.StatusServiceUnavailable, refusalOf(t, tr.Logout(t.Context())).Status)
		s.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("sign in to the network")) })
		require.Equal(t, http.StatusOK, refusalOf(t, tr.Logout(t.Context())).Status, "the response of another server")
		require.Equal(t, before, stored(t, tr))
		s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r); panic("lost") })
		require.ErrorIs(t, tr.Logout(t.Context()), errLost)
		require.Equal(t, before, stored(t, tr))
		s.handler = handler
		store.failAfter(0, errLost)
		require.ErrorContains(t, tr.Logout(t.Context()), "the session has ended, but its tokens could not be removed")
		store.failAfter(0, nil)
		require.NoError(t, tr.Logout(t.Context()))
		require.Zero(t, stored(t, tr))
	})
}

// Another process refreshes during a logout, or signs in.
func TestLogout_RemovesTheTokensOfItsSessionOnly(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		other, err := New(Config{BaseURL: base, Base: s, Store: store})
		require.NoError(t, err)
		handler := s.handler
		during := func(f func()) {
			s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/logout") {
					f()
				}
				handler.ServeHTTP(w, r)
			})
		}
		time.Sleep(time.Hour)
		before := stored(t, tr)
		during(func() { requireAda(t, other); require.NotEqual(t, before.Refresh, stored(t, tr).Refresh) })
		require.NoError(t, tr.Logout(t.Context()))
		require.Zero(t, stored(t, tr))

		s.signIn(t, tr)
		during(func() { s.signIn(t, other) })
		require.NoError(t, tr.Logout(t.Context()))
		requireAda(t, tr)
	})
}

func TestError_IsPrintable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "authclient: the server responded with status 502: Bad Gateway", (&Error{Status: 502, Description: "Bad Gateway"}).Error())
	require.Equal(t, "[31mred é", printable("\x1b[31mred\r\n\x00 é"))
	require.Len(t, printable(strings.Repeat("x", 1000)), 200)
}

// Programs print them, and a terminal would obey them.
func TestError_HasNoControlCharacters(t *testing.T) {
	t.Parallel()
	tr, err := New(Config{BaseURL: base, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		body := strings.ReplaceAll(`{"error":"aX","error_description":"bX","action":"cX","reason":"dX","methods":["eX","fX"]}`, "X", `\u001b[2J`)
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: io.NopCloser(strings.NewReader(body))}, nil
	})})
	require.NoError(t, err)
	want := &Error{Status: 401, Code: "a[2J", Description: "b[2J", Action: "c[2J", Reason: "d[2J", Methods: []string{"e[2J", "f[2J"}}
	require.Equal(t, want, refusalOf(t, tr.Login(t.Context(), nil)))
}
