package oauth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
)

// No request panics, and each refusal is one of RFC 6749.
func FuzzEndpoints(f *testing.F) {
	a, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{"api"}, Secrets: [][]byte{[]byte("0123456789abcdef0123456789ABCDEF")}, TokenCacheSize: -1,
		Users: oneUser{}, OnEvent: func(context.Context, auth.Event) {},
	})
	require.NoError(f, err)
	known := newClients()
	public, err := oauth.Handler(a, oauth.Config{URL: issuer, Clients: known, PublicClients: true})
	require.NoError(f, err)
	tokens, err := a.StartSession(f.Context(), "u1", auth.SessionOptions{})
	require.NoError(f, err)
	for _, path := range []string{"/token", "/revoke", "/introspect", "/x"} {
		for _, body := range []string{
			"", refreshForm(tokens.Refresh), refreshForm("x") + "&scope=a+b", "token=" + tokens.Access, asBackend + "token=x", "grant_type=password", "%zz", "a;b", "\x00",
		} {
			f.Add("POST", path, body, "", "application/x-www-form-urlencoded", "")
		}
		f.Add("POST", path, "token=x", basic("backend:s3cret-s3cret-s3cret"), "application/x-www-form-urlencoded; charset=utf-8", "a=b")
		f.Add("GET", path, "{}", basic("%:"), "application/json", "token=x")
	}
	f.Fuzz(func(t *testing.T, method, path, body, authorization, kind, query string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("Content-Type", kind)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		public.ServeHTTP(w, r)
		if path == "/.well-known/oauth-authorization-server" && w.Code < 400 {
			return
		}
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		if w.Code == http.StatusOK {
			require.Equal(t, "POST", method)
			return
		}
		require.Contains(t, []int{400, 401, 404, 405, 413, 415, 429}, w.Code, w.Body.String())
		var answer struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.True(t, slices.Contains([]string{
			"invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type", "invalid_scope", "not_found", "too_many_attempts",
		}, answer.Error), answer.Error)
		require.Regexp(t, `^[ !#-\[\]-~]+$`, answer.Description)
	})
}
