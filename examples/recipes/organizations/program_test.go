package main

import (
	"context"
	"encoding/json"
	"errors"
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
	Access   string `json:"access_token"`
	Refresh  string `json:"refresh_token"`
	ID       string `json:"session_id"`
	Error    string
	Action   string
	Org      string
	Projects []string
}

// client is a client of the program or, if handler is not nil, of that.
type client struct {
	t       *testing.T
	base    string
	handler http.Handler
	answer  // the last tokens
}

// send sends a request with the access token, and keeps the tokens of the response.
func (c *client) send(method, path string, fields map[string]string) (int, answer) {
	c.t.Helper()
	text, err := json.Marshal(fields)
	require.NoError(c.t, err)
	r, err := http.NewRequest(method, c.base+path, strings.NewReader(string(text)))
	require.NoError(c.t, err)
	r.Header.Set("Content-Type", "application/json")
	if c.Access != "" && !strings.HasPrefix(path, "/auth/") {
		r.Header.Set("Authorization", "Bearer "+c.Access)
	}
	var resp *http.Response
	if c.handler != nil {
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, r)
		resp = w.Result()
	} else {
		resp, err = http.DefaultClient.Do(r)
		require.NoError(c.t, err)
	}
	defer resp.Body.Close()
	var body answer
	if resp.StatusCode != http.StatusNoContent {
		require.NoError(c.t, json.NewDecoder(resp.Body).Decode(&body))
	}
	if body.Access != "" {
		c.answer = body
	}
	return resp.StatusCode, body
}

func (c *client) login(name string) *client {
	c.t.Helper()
	status, _ := c.send("POST", "/auth/login", map[string]string{"login": name, "password": pass})
	require.Equal(c.t, 200, status)
	return c
}

func (c *client) refresh() int {
	c.t.Helper()
	status, _ := c.send("POST", "/auth/refresh", map[string]string{"refresh_token": c.Refresh})
	return status
}

func (c *client) change(organization string) int {
	c.t.Helper()
	status, _ := c.send("POST", "/organization", map[string]string{"organization": organization, "org_role": "admin", "role": "admin"})
	return status
}

func TestProgram_SwitchesTheOrganization(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	ada := (&client{t: t, base: p.URL}).login("ada")
	grace := (&client{t: t, base: p.URL}).login("grace")
	add := func(c *client, name string) (int, answer) {
		return c.send("POST", "/projects", map[string]string{"name": name, "org": "south", "organization": "south"})
	}
	status, body := add(ada, "bridge")
	require.Equal(t, []any{200, "north", []string{"bridge"}}, []any{status, body.Org, body.Projects})
	status, body = grace.send("GET", "/projects", nil)
	require.Equal(t, []any{200, []string{"bridge"}}, []any{status, body.Projects})

	before := *ada
	require.Equal(t, 200, ada.change("south"))
	require.NotEqual(t, before.ID, ada.ID)
	status, body = add(ada, "road")
	require.Equal(t, []any{200, "south", []string{"road"}}, []any{status, body.Org, body.Projects})
	status, _ = ada.send("DELETE", "/members/u1", nil)
	require.Equal(t, 403, status, "the role in the body of the switch counts nothing")
	status, body = before.send("GET", "/projects", nil)
	require.Equal(t, []any{401, "login"}, []any{status, body.Action}, "the old session has ended")
	require.Equal(t, 200, ada.refresh())
	_, body = ada.send("GET", "/projects", nil)
	require.Equal(t, "south", body.Org, "a refresh keeps the organization")

	for _, name := range []string{"south", "west", "", "North"} {
		require.Equal(t, 403, grace.change(name), name)
	}
	status, _ = grace.send("DELETE", "/members/u1", nil)
	require.Equal(t, 403, status)
	require.Equal(t, 200, ada.change("north"))
	status, _ = ada.send("DELETE", "/members/u2", nil)
	require.Equal(t, 204, status)
	status, body = grace.send("GET", "/projects", nil)
	require.Equal(t, []any{401, "refresh"}, []any{status, body.Action})
	require.Equal(t, 200, grace.refresh(), "the user remains signed in")
	status, _ = grace.send("GET", "/projects", nil)
	require.Equal(t, 403, status)
}

// server is the API with a clock that the test advances.
type server struct {
	*authtest.Authenticator
	users *users
	ada   *client
	fail  bool // Config.Claims fails
}

func newServer(t *testing.T) *server {
	t.Helper()
	us, err := newUsers()
	require.NoError(t, err)
	s := &server{users: us}
	c := config(us)
	c.OnEvent = nil // authtest has its own
	claims := c.Claims
	c.Claims = func(ctx context.Context, u auth.User, session auth.Session) (map[string]any, error) {
		if s.fail {
			return nil, errors.New("the table does not respond")
		}
		return claims(ctx, u, session)
	}
	s.Authenticator = authtest.New(t, c)
	s.ada = (&client{t: t, handler: routes(s.Authenticator.Authenticator, us)}).login("ada")
	return s
}

func (s *server) claims(t *testing.T) *auth.Claims {
	t.Helper()
	c, err := s.Verify(t.Context(), s.ada.Access)
	require.NoError(t, err)
	return c
}

func TestChange_IsNoLogin(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before := s.claims(t)
	s.Clock.Advance(time.Minute)
	require.Equal(t, 200, s.ada.change("south"))
	after := s.claims(t)
	require.Equal(t, []any{before.AuthTime, before.AMR}, []any{after.AuthTime, after.AMR})
	o, err := activeOf(after)
	require.NoError(t, err)
	require.Equal(t, active{"south", "member"}, o)
	authtest.HasSessions(t, s.Authenticator, "u1", s.ada.ID)
}

func TestClaims_FollowTheTableAtEachRefresh(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, role := range []string{"member", "admin", ""} {
		before, err := activeOf(s.claims(t))
		require.NoError(t, err)
		s.users.setRole("u1", "north", role)
		now, err := activeOf(s.claims(t))
		require.NoError(t, err)
		require.Equal(t, before, now, "a token does not change")
		require.Equal(t, 200, s.ada.refresh())
		now, err = activeOf(s.claims(t))
		require.NoError(t, err)
		if role == "" {
			require.Equal(t, active{}, now)
		} else {
			require.Equal(t, active{"north", role}, now)
		}
	}
	status, _ := s.ada.send("GET", "/projects", nil)
	require.Equal(t, 403, status)
	require.Equal(t, 403, s.ada.change("north"))
	require.Equal(t, 200, s.ada.change("south"), "the other organization remains")

	s.users.setRole("u1", "south", "")
	s.ada.login("ada")
	status, _ = s.ada.send("GET", "/projects", nil)
	require.Equal(t, 403, status, "a user without an organization")
}

func TestClaims_AnOutageSignsNobodyOut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.fail = true
	require.Equal(t, 503, s.ada.refresh())
	require.Equal(t, 503, s.ada.change("south"))
	status, body := s.ada.send("GET", "/projects", nil)
	require.Equal(t, []any{200, "north"}, []any{status, body.Org}, "no protected request asks the table")
	s.fail = false
	require.Equal(t, 200, s.ada.refresh())
	require.Equal(t, 200, s.ada.change("south"))
}

// A handler is tested with the claims that a token would have.
func TestMember(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		extra map[string]any
		want  error
	}{
		"admin":       {map[string]any{"org": "north", "org_role": "admin"}, nil},
		"member":      {map[string]any{"org": "north", "org_role": "member"}, auth.ErrForbidden},
		"none":        {nil, auth.ErrForbidden},
		"global role": {map[string]any{"role": "admin"}, auth.ErrForbidden},
	} {
		c, err := (&auth.Claims{Subject: "u1", Roles: []string{"admin"}}).WithExtra(tc.extra)
		require.NoError(t, err)
		require.Equal(t, tc.want, member("admin")(t.Context(), c), name)
	}
}
