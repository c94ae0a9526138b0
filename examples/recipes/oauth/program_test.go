package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// signals calls f after each line of the output of call.
type signals struct {
	bytes.Buffer
	f func(lines int)
}

func (s *signals) Write(b []byte) (int, error) {
	n, err := s.Buffer.Write(b)
	s.f(strings.Count(s.String(), "\n"))
	return n, err
}

func TestProgram_ServesAClientAndABackend(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, []string{"BACKEND_SECRET=the secret of the backend, 1"}, "-addr", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &signals{f: func(lines int) {
		if lines == 3 {
			cancel()
		}
	}}
	require.ErrorIs(t, call(ctx, out, p.URL, time.Millisecond), context.Canceled)
	require.Equal(t, "200 hello ada\n200 hello ada\n200 hello ada\n", out.String())

	post := func(path string, form url.Values, user, secret string) (int, map[string]any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+path, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if user != "" {
			r.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(secret))
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		body := map[string]any{}
		if len(text) > 0 {
			require.NoError(t, json.Unmarshal(text, &body), "%s", text)
		}
		return resp.StatusCode, body
	}
	status, login := post("/auth/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}}, "", "")
	require.Equal(t, 200, status)
	token := url.Values{"token": {login["access_token"].(string)}}
	for _, c := range [][2]string{{"", ""}, {"app", ""}, {"backend", "x"}, {"unknown", "the secret of the backend, 1"}} {
		status, body := post("/oauth/introspect", token, c[0], c[1])
		require.Equal(t, 401, status)
		require.Equal(t, "invalid_client", body["error"])
	}
	_, body := post("/oauth/introspect", token, "backend", "the secret of the backend, 1")
	require.Equal(t, true, body["active"])
	require.Equal(t, "ada", body["username"])
	status, _ = post("/oauth/revoke", url.Values{"token": {login["refresh_token"].(string)}, "client_id": {"app"}}, "", "")
	require.Equal(t, 200, status)
	_, body = post("/oauth/introspect", token, "backend", "the secret of the backend, 1")
	require.Equal(t, map[string]any{"active": false}, body)

	resp, err := http.Get(p.URL + "/api")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, `Bearer resource_metadata="`+p.URL+`/.well-known/oauth-protected-resource/api"`, resp.Header.Get("Www-Authenticate"))
}

func TestCall_AFailedLoginIsAnError(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	require.ErrorContains(t, call(t.Context(), io.Discard, p.URL+"/none", 0), "404")
}
