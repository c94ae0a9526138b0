package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

const (
	pass    = "correct horse battery staple"
	newPass = "another long password"
)

// server is the API with a clock that the test advances.
type server struct {
	*authtest.Authenticator
	http.Handler
	users users
}

// newServer returns the API with a new database. change may change its store.
func newServer(t *testing.T, change ...func(auth.Store) auth.Store) *server {
	t.Helper()
	u, err := openUsers(t.Context(), filepath.Join(t.TempDir(), "api.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, u.db.Close()) })
	u.hasher = &password.Hasher{Memory: 64, Time: 1, Screen: screen} // fast and weak
	sessions := auth.Store(auth.NewMemoryStore())
	for _, f := range change {
		sessions = f(sessions)
	}
	c := config(u, sessions)
	c.Secrets, c.OnEvent = nil, nil // authtest has its own
	a := authtest.New(t, c)
	return &server{a, routes(a.Authenticator, u), u}
}

// body has the members of all responses.
type body struct {
	Access      string `json:"access_token"`
	Refresh     string `json:"refresh_token"`
	Error       string
	Description string `json:"error_description"`
	Action      string
	ID          string
	Login       string
	Roles       []string
}

// send sends a request with the access token, unless that is empty.
func (s *server) send(t *testing.T, access, request string, fields map[string]string) (int, body) {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, nil)
	if fields != nil {
		text, err := json.Marshal(fields)
		require.NoError(t, err)
		r = httptest.NewRequest(method, path, bytes.NewReader(text))
		r.Header.Set("Content-Type", "application/json")
	}
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Empty(t, w.Result().Cookies())
	var b body
	if w.Code != http.StatusNoContent {
		require.Contains(t, w.Header().Get("Content-Type"), "application/json", w.Body)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &b), w.Body)
	}
	require.Equal(t, w.Code >= 400, b.Error != "" && b.Description != "", w.Body)
	return w.Code, b
}

// signIn signs a user up or in, and returns the tokens.
func (s *server) signIn(t *testing.T, path, login string) body {
	t.Helper()
	status, b := s.send(t, "", "POST "+path, map[string]string{"login": login, "password": pass})
	require.Equal(t, 200, status, b)
	require.NotEmpty(t, b.Refresh)
	return b
}

// admin returns the access token of an administrator.
func (s *server) admin(t *testing.T) string {
	t.Helper()
	s.signIn(t, "/signup", "root")
	require.NoError(t, s.users.exec(t.Context(), auth.ErrUserNotFound, "UPDATE users SET role = 'admin' WHERE login = 'root'"))
	return s.signIn(t, "/auth/login", "root").Access
}

func TestAPI_SignUpSignsIn(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	tokens := s.signIn(t, "/signup", " Ada ")
	status, me := s.send(t, tokens.Access, "GET /me", nil)
	require.Equal(t, 200, status)
	require.Equal(t, "ada", me.Login)
	require.Equal(t, []string{"member"}, me.Roles)
	claims, err := s.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, me.ID, claims.Subject)
	require.Equal(t, []string{"pwd"}, claims.AMR)
	for _, login := range []string{"ada", "ADA", "ada "} {
		s.signIn(t, "/auth/login", login)
	}
	status, b := s.send(t, "", "POST /auth/refresh", map[string]string{"refresh_token": tokens.Refresh})
	require.Equal(t, 200, status, b)
	status, _ = s.send(t, "", "GET /me", nil)
	require.Equal(t, 401, status)
}

func TestAPI_SignUpIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.signIn(t, "/signup", "ada")
	for _, tc := range []struct {
		login, pass string
		status      int
		code        string
	}{
		{"ADA ", pass, 409, "login_taken"},
		{"", pass, 422, "invalid_login"},
		{"b\x00b", pass, 422, "invalid_login"},
		{"аda", pass, 422, "invalid_login"}, // the first letter is Cyrillic
		{"bob", "", 400, "invalid_request"},
		{"bob", "fourteen chars", 422, "invalid_password"},
		{"bob", strings.Repeat("x", 201), 422, "invalid_password"},
	} {
		status, b := s.send(t, "", "POST /signup", map[string]string{"login": tc.login, "password": tc.pass})
		require.Equal(t, tc.status, status, tc)
		require.Equal(t, tc.code, b.Error)
		require.Empty(t, b.Access)
	}
	status, b := s.send(t, "", "POST /signup", map[string]string{"login": "bob", "password": strings.Repeat("x", 17<<10)})
	require.Equal(t, 413, status, b)
	_, err := s.users.FindByLogin(t.Context(), "bob")
	require.ErrorIs(t, err, auth.ErrUserNotFound)
}

// TestAPI_ConcurrentSignUps signs up users with one login, and with different logins,
// at the same time.
func TestAPI_ConcurrentSignUps(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const n = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	statuses := map[int]int{}
	for i := range n {
		for _, login := range []string{"ada", fmt.Sprint("user", i)} {
			wg.Go(func() {
				status, _ := s.send(t, "", "POST /signup", map[string]string{"login": login, "password": pass})
				mu.Lock()
				defer mu.Unlock()
				statuses[status]++
			})
		}
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: n + 1, 409: n - 1}, statuses)
}

func TestAPI_PasswordChangeEndsOtherSessions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	laptop, phone, bob := s.signIn(t, "/signup", "ada"), s.signIn(t, "/auth/login", "ada"), s.signIn(t, "/signup", "bob")
	for _, tc := range []struct {
		current, pass string
		status        int
		code          string
	}{
		{"wrong", newPass, 403, "invalid_credentials"},
		{"", newPass, 403, "invalid_credentials"},
		{pass, "short", 422, "invalid_password"},
		{pass, pass, 422, "password_refused"},
	} {
		status, b := s.send(t, laptop.Access, "POST /password", map[string]string{"current": tc.current, "password": tc.pass})
		require.Equal(t, tc.status, status, tc)
		require.Equal(t, tc.code, b.Error)
		require.Empty(t, b.Action, "the client stays signed in")
	}
	status, b := s.send(t, phone.Access, "GET /me", nil)
	require.Equal(t, 200, status, b)

	status, b = s.send(t, laptop.Access, "POST /password", map[string]string{"current": pass, "password": newPass})
	require.Equal(t, 204, status, b)
	for _, tc := range []struct {
		access string
		status int
	}{{laptop.Access, 200}, {bob.Access, 200}, {phone.Access, 401}} {
		status, b = s.send(t, tc.access, "GET /me", nil)
		require.Equal(t, tc.status, status, b)
	}
	require.Equal(t, "login", b.Action)
	status, _ = s.send(t, "", "POST /auth/refresh", map[string]string{"refresh_token": phone.Refresh})
	require.Equal(t, 401, status)
	status, _ = s.send(t, "", "POST /auth/login", map[string]string{"login": "ada", "password": pass})
	require.Equal(t, 401, status)
	status, _ = s.send(t, "", "POST /auth/login", map[string]string{"login": "ada", "password": newPass})
	require.Equal(t, 200, status)
}

// TestAPI_ConcurrentPasswordChanges changes the password while another request does:
// one of them wins, and the others say so.
func TestAPI_ConcurrentPasswordChanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ada := s.signIn(t, "/signup", "ada")
	const n = 6
	var mu sync.Mutex
	var wg sync.WaitGroup
	codes := map[string]int{}
	for i := range n {
		wg.Go(func() {
			_, b := s.send(t, ada.Access, "POST /password", map[string]string{"current": pass, "password": fmt.Sprint(newPass, i)})
			mu.Lock()
			defer mu.Unlock()
			codes[b.Error]++
		})
	}
	wg.Wait()
	require.Equal(t, 1, codes[""], codes)
	require.Equal(t, n-1, codes["invalid_credentials"]+codes["too_many_attempts"], codes)
}

// TestAPI_StatementsIgnoreThatTheClientDisconnects keeps the sessions from continuing
// after an administrator has disabled a user and did not wait for the response.
func TestAPI_StatementsIgnoreThatTheClientDisconnects(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.signIn(t, "/signup", "ada")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.users.exec(ctx, auth.ErrUserNotFound, "UPDATE users SET password_hash = '' WHERE login = 'ada'"))
}

// failing is a store that cannot revoke anything while down is set.
type failing struct {
	auth.Store
	down *atomic.Bool
}

func (f failing) Revoke(ctx context.Context, r auth.Revocation) error {
	if f.down.Load() {
		return errors.New("out of order")
	}
	return f.Store.Revoke(ctx, r)
}

func TestAPI_ARepeatedPasswordChangeEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	s := newServer(t, func(s auth.Store) auth.Store { return failing{s, &down} })
	ada := s.signIn(t, "/signup", "ada")
	s.signIn(t, "/auth/login", "ada")
	fields := map[string]string{"current": pass, "password": newPass}
	down.Store(true)
	status, b := s.send(t, ada.Access, "POST /password", fields)
	require.Equal(t, 503, status, b)
	down.Store(false)
	status, b = s.send(t, ada.Access, "POST /password", fields)
	require.Equal(t, 204, status, b)
	claims, err := s.Verify(t.Context(), ada.Access)
	require.NoError(t, err)
	authtest.HasSessions(t, s.Authenticator, s.id(t, "ada"), claims.SessionID)
	status, _ = s.send(t, "", "POST /auth/login", map[string]string{"login": "ada", "password": newPass})
	require.Equal(t, 200, status)
}

func TestAPI_OtherSessionsCanBeEnded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	laptop, phone := s.signIn(t, "/signup", "ada"), s.signIn(t, "/auth/login", "ada")
	status, b := s.send(t, laptop.Access, "POST /auth/logout/all?others=true", nil)
	require.Equal(t, 204, status, b)
	status, _ = s.send(t, laptop.Access, "GET /me", nil)
	require.Equal(t, 200, status)
	status, _ = s.send(t, phone.Access, "GET /me", nil)
	require.Equal(t, 401, status)
}

func TestAPI_RoleTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	root, ada := s.admin(t), s.signIn(t, "/signup", "ada")
	change := func(access, login, role, status string) (int, body) {
		return s.send(t, access, "PUT /users/"+login, map[string]string{"role": role, "status": status})
	}
	status, b := change(ada.Access, "ada", "admin", "enabled")
	require.Equal(t, 403, status, b)
	s.Clock.Advance(5 * time.Second)
	status, b = change(root, "ADA", "admin", "enabled")
	require.Equal(t, 204, status, b)
	status, b = s.send(t, ada.Access, "GET /me", nil)
	require.Equal(t, 401, status)
	require.Equal(t, "refresh", b.Action)
	s.Clock.Advance(5 * time.Second)
	_, ada = s.send(t, "", "POST /auth/refresh", map[string]string{"refresh_token": ada.Refresh})
	status, b = change(ada.Access, "nobody", "admin", "enabled")
	require.Equal(t, 404, status, b)

	for _, tc := range []struct{ login, role, status, code string }{
		{"ada", "owner", "enabled", "invalid_role"},
		{"ada", "member", "", "invalid_role"},
		{"root", "member", "enabled", "own_role"},
	} {
		status, b := change(root, tc.login, tc.role, tc.status)
		require.Equal(t, 422, status, b)
		require.Equal(t, tc.code, b.Error)
	}
}

func TestAPI_DisabledUserIsSignedOut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	root, ada := s.admin(t), s.signIn(t, "/signup", "ada")
	status, b := s.send(t, root, "PUT /users/ada", map[string]string{"role": "member", "status": "disabled"})
	require.Equal(t, 204, status, b)
	authtest.HasSessions(t, s.Authenticator, s.id(t, "ada"))
	status, b = s.send(t, ada.Access, "GET /me", nil)
	require.Equal(t, 401, status)
	require.Equal(t, "login", b.Action)
	status, _ = s.send(t, "", "POST /auth/login", map[string]string{"login": "ada", "password": pass})
	require.Equal(t, 401, status)
}

func (s *server) id(t *testing.T, login string) string {
	t.Helper()
	u, err := s.users.FindByLogin(t.Context(), login)
	require.NoError(t, err)
	return u.ID
}

// TestAPI_AccessTokenOfAUserWhoIsGone sends requests of users who were deleted, or
// disabled by a statement of SQL, and still have an access token.
func TestAPI_AccessTokenOfAUserWhoIsGone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for login, statement := range map[string]string{
		"ada": "DELETE FROM users WHERE login = $1", "bob": "UPDATE users SET disabled = TRUE WHERE login = $1",
	} {
		tokens := s.signIn(t, "/signup", login)
		require.NoError(t, s.users.exec(t.Context(), auth.ErrUserNotFound, statement, login))
		for _, request := range []string{"GET /me", "POST /password"} {
			status, b := s.send(t, tokens.Access, request, map[string]string{"current": pass, "password": newPass})
			require.Equal(t, 401, status, b)
			require.Equal(t, "login", b.Action)
		}
		status, _ := s.send(t, "", "POST /auth/refresh", map[string]string{"refresh_token": tokens.Refresh})
		require.Equal(t, 401, status)
	}
}

func TestAPI_FailingDatabaseSignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ada := s.signIn(t, "/signup", "ada")
	_, err := s.users.db.ExecContext(t.Context(), "ALTER TABLE users RENAME TO others")
	require.NoError(t, err)
	for request, want := range map[string]int{"GET /me": 500, "POST /password": 503, "POST /signup": 500, "POST /auth/login": 503} {
		status, b := s.send(t, ada.Access, request, map[string]string{"login": "bob", "current": pass, "password": newPass})
		require.Equal(t, want, status, request)
		require.Empty(t, b.Action)
	}
}
