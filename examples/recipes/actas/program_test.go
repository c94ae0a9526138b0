package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const pass = "correct horse battery staple"

type answer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	ID      string `json:"session_id"`
	Error   string
	Action  string
}

// request returns a request with an access token, unless that is empty.
func request(t *testing.T, access, method, url string, fields map[string]string) *http.Request {
	t.Helper()
	text, err := json.Marshal(fields)
	require.NoError(t, err)
	r, err := http.NewRequest(method, url, strings.NewReader(string(text)))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	return r
}

// do sends a request to the program and decodes the body into v.
func do(t *testing.T, r *http.Request, v any) int {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if v != nil && len(text) > 0 {
		require.NoError(t, json.Unmarshal(text, v), string(text))
	}
	return resp.StatusCode
}

func TestProgram_AnAdministratorActsForAUser(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	post := func(access, path string, fields map[string]string) (int, answer) {
		var body answer
		status := do(t, request(t, access, "POST", p.URL+path, fields), &body)
		return status, body
	}
	login := func(name string) answer {
		status, body := post("", "/auth/login", map[string]string{"login": name, "password": pass})
		require.Equal(t, 200, status)
		return body
	}
	ada, root := login("ada"), login("root")
	status, acting := post(root.Access, "/act", map[string]string{"user": "u1", "reason": "ticket 17"})
	require.Equal(t, 200, status)

	var notes []note
	r := request(t, acting.Access, "POST", p.URL+"/notes", map[string]string{"text": "for ada"})
	require.Equal(t, 200, do(t, r, &notes))
	require.Equal(t, 200, do(t, request(t, ada.Access, "POST", p.URL+"/notes", map[string]string{"text": "by ada"}), &notes))
	require.Equal(t, []note{{"for ada", "u3"}, {"by ada", ""}}, notes)
	status, body := post(acting.Access, "/email", map[string]string{"email": "evil@example.com"})
	require.Equal(t, []any{403, "insufficient_scope"}, []any{status, body.Error})
	status, _ = post(ada.Access, "/email", map[string]string{"email": "ada@example.com"})
	require.Equal(t, 204, status)

	var devices struct {
		Sessions []struct{ ID, Name, Actor string }
	}
	require.Equal(t, 200, do(t, request(t, ada.Access, "GET", p.URL+"/auth/sessions", nil), &devices))
	var seen bool
	for _, d := range devices.Sessions {
		seen = seen || d.ID == acting.ID && d.Name == "Support: ticket 17" && d.Actor == "u3"
	}
	require.True(t, seen, "the user sees who acts for them: %v", devices)

	status, _ = post("", "/auth/logout", map[string]string{"refresh_token": acting.Refresh})
	require.Equal(t, 204, status)
	require.Equal(t, 401, do(t, request(t, acting.Access, "GET", p.URL+"/notes", nil), nil))
	require.Equal(t, 200, do(t, request(t, ada.Access, "GET", p.URL+"/notes", nil), nil))

	var entries []entry
	require.Equal(t, 200, do(t, request(t, root.Access, "GET", p.URL+"/audit", nil), &entries))
	var what []string
	for _, e := range entries {
		require.Equal(t, []any{"u3", "u1", acting.ID}, []any{e.Actor, e.User, e.Session})
		require.WithinDuration(t, time.Now(), e.Time, 10*time.Minute)
		what = append(what, e.What)
	}
	require.Equal(t, []string{"login", "POST /notes", "refused", "logout"}, what)
	require.Equal(t, 403, do(t, request(t, ada.Access, "GET", p.URL+"/audit", nil), nil))
}

// server is the API with a clock that the test advances.
type server struct {
	*authtest.Authenticator
	http.Handler
	users *users
	audit *audit
}

func newServer(t *testing.T) *server {
	t.Helper()
	us, err := newUsers()
	require.NoError(t, err)
	au := &audit{}
	a := authtest.New(t, config(us, au))
	return &server{a, routes(a.Authenticator, us, au), us, au}
}

func (s *server) send(t *testing.T, access, method, path string, fields map[string]string) (int, answer) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request(t, access, method, path, fields))
	var body answer
	if w.Code >= 400 || path == "/act" || strings.HasPrefix(path, "/auth/") {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	}
	return w.Code, body
}

// tokensOf signs a user in.
func (s *server) tokensOf(t *testing.T, id string, opts ...authtest.Option) auth.Tokens {
	t.Helper()
	u, err := s.users.FindByID(context.Background(), id)
	require.NoError(t, err)
	return authtest.Tokens(t, s.Authenticator, u, opts...)
}

func TestAct_OnlyAnAdministratorForAUser(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.users.list = append(s.users.list, auth.User{ID: "u5", Username: "old", Disabled: true})
	root := s.tokensOf(t, "u3").Access
	_, acting := s.send(t, root, "POST", "/act", map[string]string{"user": "u1", "reason": "x"})
	require.NotEmpty(t, acting.Access)
	for _, tc := range []struct {
		name, access, user, reason string
		status                     int
		code                       string
	}{
		{"nobody", "", "u1", "x", 401, "missing_token"},
		{"a user", s.tokensOf(t, "u2").Access, "u1", "x", 403, "insufficient_scope"},
		{"a login of an hour ago", s.tokensOf(t, "u3", authtest.LoginAge(time.Hour)).Access, "u1", "x", 401, "insufficient_user_authentication"},
		{"no reason", root, "u1", "", 422, "no_reason"},
		{"for themselves", root, "u3", "x", 403, "insufficient_scope"},
		{"for an administrator", root, "u4", "x", 403, "insufficient_scope"},
		{"for nobody", root, "u9", "x", 404, "no_such_user"},
		{"for a disabled user", root, "u5", "x", 404, "no_such_user"},
		{"in a session with an actor", acting.Access, "u2", "x", 403, "insufficient_scope"},
	} {
		status, body := s.send(t, tc.access, "POST", "/act", map[string]string{"user": tc.user, "reason": tc.reason})
		require.Equal(t, []any{tc.status, tc.code}, []any{status, body.Error}, tc.name)
	}
	// The user becomes an administrator while somebody acts for them.
	s.users.update("u1", func(u *auth.User) { u.Roles = []string{"admin"} })
	_, acting = s.send(t, "", "POST", "/auth/refresh", map[string]string{"refresh_token": acting.Refresh})
	require.NotEmpty(t, acting.Access)
	for _, path := range []string{"POST /act", "GET /audit"} {
		method, path, _ := strings.Cut(path, " ")
		status, _ := s.send(t, acting.Access, method, path, map[string]string{"user": "u2", "reason": "x"})
		require.Equal(t, 403, status, path)
	}
}

// The session ends with the user, with the actor, and after half an hour.
func TestAct_Ends(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *server){
		"actor disabled": func(s *server) { s.users.update("u3", func(u *auth.User) { u.Disabled = true }) },
		"user disabled":  func(s *server) { s.users.update("u1", func(u *auth.User) { u.Disabled = true }) },
		"actor revoked":  func(s *server) { _ = s.RevokeAll(context.Background(), "u3") },
		"user revoked":   func(s *server) { _ = s.RevokeAll(context.Background(), "u1") },
		"time":           func(s *server) { s.Clock.Advance(10 * time.Minute) },
	} {
		s := newServer(t)
		_, acting := s.send(t, s.tokensOf(t, "u3").Access, "POST", "/act", map[string]string{"user": "u1", "reason": "x"})
		for range 2 {
			s.Clock.Advance(10 * time.Minute)
			status, body := s.send(t, "", "POST", "/auth/refresh", map[string]string{"refresh_token": acting.Refresh})
			require.Equal(t, 200, status, name)
			acting = body
		}
		end(s)
		status, _ := s.send(t, "", "POST", "/auth/refresh", map[string]string{"refresh_token": acting.Refresh})
		require.Equal(t, 401, status, name)
		status, _ = s.send(t, acting.Access, "GET", "/notes", nil)
		require.Equal(t, 401, status, name)
		entries := s.audit.all()
		require.Equal(t, "login", entries[0].What)
	}
}
