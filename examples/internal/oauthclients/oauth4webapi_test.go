package oauthclients

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/oauth"
)

// npm ci in this directory installs the package.
func TestOAuth4WebAPI_DiscoversRefreshesRevokesAndIntrospects(t *testing.T) {
	t.Parallel()
	node := testserver.Need(t, "node", "nodejs")
	if _, err := os.Stat("node_modules/oauth4webapi"); err != nil {
		if os.Getenv("AUTH_REQUIRE_SERVICES") == "1" {
			require.NoError(t, err, "run npm ci --ignore-scripts in examples/internal/oauthclients")
		}
		t.Skip("not installed: run npm ci --ignore-scripts in examples/internal/oauthclients")
	}
	for name, c := range map[string]struct {
		path    string
		server  oauth.Config
		methods []string
	}{
		"public clients":        {"", oauth.Config{}, []string{"none"}},
		"clients of two kinds":  {"", oauth.Config{Clients: secretClients(), PublicClients: true}, []string{"client_secret_basic", "client_secret_post", "none"}},
		"an issuer with a path": {"/tenant", oauth.Config{Clients: secretClients()}, []string{"client_secret_basic", "client_secret_post"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, c.path, c.server, nil)
			input := map[string]any{
				"issuer": s.Issuer, "client": clientID, "secret": clientSecret, "resource": s.URL + "/api",
				"refresh": map[string]string{"none": s.login(t).Refresh, "client_secret_basic": s.login(t).Refresh, "client_secret_post": s.login(t).Refresh},
			}
			argument, err := json.Marshal(input)
			require.NoError(t, err)
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), node, "client.mjs", string(argument))
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			require.NoError(t, cmd.Run(), "%s%s", stdout.Bytes(), stderr.Bytes())
			t.Logf("oauth4webapi, %s:\n%s", name, stdout.Bytes())
			got := map[string]string{}
			for text := range bytes.Lines(stdout.Bytes()) {
				var l line
				require.NoError(t, json.Unmarshal(text, &l))
				got[l.Step] = string(l.Result)
			}
			metadata := map[string]any{}
			require.NoError(t, json.Unmarshal([]byte(got["metadata"]), &metadata))
			require.Equal(t, s.Issuer, metadata["issuer"])
			ended := `{"error":"invalid_grant","error_description":"the session has ended","status":400}`
			for _, way := range c.methods {
				require.JSONEq(t, `{"access_token":"string","token_type":"bearer","expires_in":900,"refresh_token":"string","refresh_expires_in":604800,`+
					`"session_id":`+sessionOf(t, got[way+": refresh"])+`,"rotated":true,"scope":"read"}`, got[way+": refresh"])
				require.Equal(t, "true", got[way+": repeated"])
				require.JSONEq(t, ended, got[way+": refresh after revoke"])
				require.Equal(t, "200", got[way+": revoke again"])
				if way != "none" {
					active := map[string]any{}
					require.NoError(t, json.Unmarshal([]byte(got[way+": introspect"]), &active))
					require.Equal(t, true, active["active"])
					require.Equal(t, "ada", active["username"])
					require.JSONEq(t, `{"active":false}`, got[way+": introspect a refresh token"])
					require.JSONEq(t, `{"active":false}`, got[way+": introspect after revoke"])
				}
			}
			require.JSONEq(t, `{"challenges":[{"scheme":"basic","parameters":{"realm":"oauth"}}],"status":401}`, got["wrong secret"])
			require.Contains(t, got["not a token"], `"error":"invalid_grant"`)
			require.JSONEq(t, `{"challenges":[{"scheme":"bearer","parameters":{"error":"invalid_token","error_description":"the token is not valid",`+
				`"resource_metadata":"`+s.URL+`/.well-known/oauth-protected-resource/api"}}],"status":401}`, got["challenge"])
			require.JSONEq(t, `{"resource":"`+s.URL+`/api","authorization_servers":["`+s.Issuer+`"],"scopes_supported":["read"],"bearer_methods_supported":["header"]}`, got["resource"])
		})
	}
}

func sessionOf(t *testing.T, refresh string) string {
	t.Helper()
	var m map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(refresh), &m), refresh)
	return string(m["session_id"])
}
