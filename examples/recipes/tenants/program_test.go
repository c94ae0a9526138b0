package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

type answer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Error   string
	Action  string
	Tenant  string
	Notes   []string
}

// call sends a request to the program, with the access token unless that is empty.
func call(t *testing.T, access, method, url string, fields map[string]string) (int, answer) {
	t.Helper()
	text, err := json.Marshal(fields)
	require.NoError(t, err)
	r, err := http.NewRequest(method, url, strings.NewReader(string(text)))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	var body answer
	if resp.StatusCode != http.StatusNoContent {
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
	}
	return resp.StatusCode, body
}

func TestProgram_KeepsTenantsApart(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	login := func(tenant, pass string) (int, answer) {
		return call(t, "", "POST", p.URL+"/tenants/"+tenant+"/auth/login", map[string]string{"login": "ada", "password": pass})
	}
	status, north := login("north", "a long password of north")
	require.Equal(t, 200, status)
	status, south := login("south", "a long password of south")
	require.Equal(t, 200, status)
	status, body := login("south", "a long password of north")
	require.Equal(t, []any{401, "invalid_credentials"}, []any{status, body.Error})

	for text, token := range map[string]string{"of north": north.Access, "of south": south.Access} {
		status, body = call(t, token, "POST", p.URL+"/notes", map[string]string{"text": text})
		require.Equal(t, []any{200, []string{text}}, []any{status, body.Notes})
	}
	status, body = call(t, north.Access, "POST", p.URL+"/notes", map[string]string{"Text": "x"})
	require.Equal(t, []any{400, "invalid_request"}, []any{status, body.Error})
	status, body = call(t, north.Access, "GET", p.URL+"/tenants/north/notes", nil)
	require.Equal(t, []any{200, issuer("north"), []string{"of north"}}, []any{status, body.Tenant, body.Notes})
	for _, path := range []string{"/tenants/south/notes", "/tenants/west/notes", "/tenants/north%2f..%2fsouth/notes"} {
		status, body = call(t, north.Access, "GET", p.URL+path, nil)
		require.Equal(t, []any{403, "insufficient_scope"}, []any{status, body.Error}, path)
		require.Nil(t, body.Notes)
	}

	status, body = call(t, "", "POST", p.URL+"/tenants/south/auth/refresh", map[string]string{"refresh_token": north.Refresh})
	require.Equal(t, []any{401, "invalid_grant"}, []any{status, body.Error})
	status, _ = call(t, north.Access, "GET", p.URL+"/tenants/south/auth/sessions", nil)
	require.Equal(t, 401, status)
	status, _ = call(t, "", "POST", p.URL+"/tenants/north/auth/logout", map[string]string{"refresh_token": north.Refresh})
	require.Equal(t, 204, status)
	status, _ = call(t, north.Access, "GET", p.URL+"/notes", nil)
	require.Equal(t, 401, status)
	status, _ = call(t, south.Access, "GET", p.URL+"/notes", nil)
	require.Equal(t, 200, status, "the same user ID in another tenant")
}

// A token of an issuer that is not a tenant is refused, and so is a token that claims to
// be of a tenant, but is signed with another secret.
func TestProgram_RefusesOtherIssuers(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	for _, tenant := range []string{"west", "north", "south"} {
		us, err := newUsers("a long password of " + tenant)
		require.NoError(t, err)
		c := config(tenant, us)
		c.OnEvent = func(context.Context, auth.Event) {}
		forger, err := auth.New(c)
		require.NoError(t, err)
		tokens, err := forger.StartSession(t.Context(), "1", auth.SessionOptions{})
		require.NoError(t, err)
		for _, path := range []string{"/notes", "/tenants/" + tenant + "/notes"} {
			status, body := call(t, tokens.Access, "GET", p.URL+path, nil)
			require.Equal(t, []any{401, "invalid_token", "login"}, []any{status, body.Error, body.Action}, tenant)
		}
	}
}

func TestRoutes_SelectTheTenantByTheToken(t *testing.T) {
	t.Parallel()
	names := []string{"north", "south", "east"}
	var signers []*authtest.Authenticator
	var tenants []*auth.Authenticator
	for _, name := range names {
		c := config(name, users{})
		c.OnEvent = nil // authtest has its own
		a := authtest.New(t, c)
		signers, tenants = append(signers, a), append(tenants, a.Authenticator)
	}
	handler, err := routes(names, tenants)
	require.NoError(t, err)
	same := auth.User{ID: "7", Username: "grace"} // a user of each tenant has the ID
	for i, a := range signers {
		for _, target := range names {
			r := authtest.As(t, a, httptest.NewRequest("GET", "/tenants/"+target+"/notes", nil), same)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			require.Equal(t, target == names[i], w.Code == 200, "%s at %s: %d", names[i], target, w.Code)
		}
		r := httptest.NewRequest("POST", "/notes", strings.NewReader(`{"text":"of `+names[i]+`","tenant":"north"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, authtest.As(t, a, r, same))
		var body answer
		require.NoError(t, json.NewDecoder(w.Body).Decode(&body))
		require.Equal(t, answer{Tenant: issuer(names[i]), Notes: []string{"of " + names[i]}}, body)
	}
	_, err = routes([]string{"a", "b"}, []*auth.Authenticator{tenants[0], tenants[0]})
	require.ErrorContains(t, err, "two verifiers have the issuer")
}
