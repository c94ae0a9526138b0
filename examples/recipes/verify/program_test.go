package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/sqlitestore"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// issuer is the service that signs the tokens.
type issuer struct {
	*authtest.Authenticator
	server   *httptest.Server
	fetches  atomic.Int64 // of the keys
	sessions string       // file
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	i := &issuer{sessions: filepath.Join(t.TempDir(), "sessions.db")}
	store, err := sqlitestore.Open(i.sessions, sqlitestore.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	i.Authenticator = authtest.New(t, auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api", "https://reports.example.com"}, Now: time.Now,
		AccessKeys:  auth.Keys{auth.EdDSA(private)},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))},
		Store:       store,
	})
	endpoints := http.StripPrefix("/auth", i.Handler())
	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		endpoints.ServeHTTP(w, r)
	}))
	t.Cleanup(i.server.Close)
	return i
}

// verifier starts the program.
func (i *issuer) verifier(t *testing.T, args ...string) string {
	t.Helper()
	return exampletest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0", "-jwks", i.server.URL + "/auth/jwks.json"}, args...)...).URL
}

// get sends a request with a token. It returns the status, and the id or the
// action in the body.
func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var body struct{ ID, Action string }
	require.NoError(t, json.Unmarshal(text, &body), "%s", text)
	return resp.StatusCode, body.ID + body.Action
}

func requireGet(t *testing.T, status int, body, url, token string) {
	t.Helper()
	gotStatus, gotBody := get(t, url, token)
	require.Equal(t, status, gotStatus)
	require.Equal(t, body, gotBody)
}

// TestRoutes_ReportsAreForAdmins needs neither a key set nor the program.
func TestRoutes_ReportsAreForAdmins(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	for _, test := range []struct {
		user auth.User
		opts []authtest.Option
		want int
	}{
		{user: auth.User{ID: "u1", Roles: []string{"admin"}}, want: 200},
		{user: auth.User{ID: "u1", Roles: []string{"admin"}}, opts: []authtest.Option{authtest.Revoked()}, want: 401},
		{user: auth.User{ID: "u2"}, want: 403},
	} {
		w := httptest.NewRecorder()
		routes(a.Verifier).ServeHTTP(w, authtest.As(t, a, httptest.NewRequest(http.MethodGet, "/reports", http.NoBody), test.user, test.opts...))
		require.Equal(t, test.want, w.Code)
	}
}

func TestVerify_AcceptsTokensOfTheIssuer(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	base := i.verifier(t)
	require.Eventually(t, func() bool { return i.fetches.Load() == 1 }, 20*time.Second, time.Millisecond, "the keys must be fetched before the first request")
	ada := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u1", Roles: []string{"admin"}})
	bob := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u2"})
	requireGet(t, 401, "login", base+"/me", "")
	requireGet(t, 200, "u1", base+"/me", ada.Access)
	requireGet(t, 200, "u1", base+"/reports", ada.Access)
	requireGet(t, 200, "u2", base+"/me", bob.Access)
	requireGet(t, 403, "", base+"/reports", bob.Access)
	requireGet(t, 401, "login", base+"/me", ada.Refresh)

	expired := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u1"}, authtest.Expired())
	requireGet(t, 401, "refresh", base+"/me", expired.Access)

	// For the other service that the issuer names, and for one that it does not name.
	requireGet(t, 200, "u1", i.verifier(t, "-audience", "https://example.com/api")+"/me", ada.Access)
	requireGet(t, 401, "login", i.verifier(t, "-audience", "https://example.com/other")+"/me", ada.Access)
	// Of another issuer.
	stranger := authtest.Tokens(t, startIssuer(t).Authenticator, auth.User{ID: "u1"})
	requireGet(t, 401, "login", base+"/me", stranger.Access)

	// The verifier needs the issuer only for its keys.
	i.server.Close()
	requireGet(t, 200, "u1", base+"/me", ada.Access)
}

func TestVerify_WithAFeedRefusesEndedSessions(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	without, with := i.verifier(t), i.verifier(t, "-feed", i.sessions)
	out := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u1"})
	in := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u1"})
	requireGet(t, 200, "u1", with+"/me", out.Access)
	require.NoError(t, i.Logout(t.Context(), out.Refresh))
	require.Eventually(t, func() bool {
		status, action := get(t, with+"/me", out.Access)
		return status == 401 && action == "login"
	}, 20*time.Second, 5*time.Millisecond)
	requireGet(t, 200, "u1", with+"/me", in.Access)
	requireGet(t, 200, "u1", without+"/me", out.Access) // until it expires

	// A verifier that starts later knows it too.
	requireGet(t, 401, "login", i.verifier(t, "-feed", i.sessions)+"/me", out.Access)
}

func TestVerify_WithoutKeysIsNoRefusal(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	ada := authtest.Tokens(t, i.Authenticator, auth.User{ID: "u1"})
	i.server.Close()
	requireGet(t, 503, "", i.verifier(t)+"/me", ada.Access)
}

// TestVerify_KeysThatAreNotThere plays rows of the table under "The keys of another
// service" in docs/troubleshooting.md.
func TestVerify_KeysThatAreNotThere(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	withSecret := authtest.New(t, auth.Config{Issuer: "https://example.com", Audience: []string{"https://reports.example.com"}, Now: time.Now})
	for name, test := range map[string]struct {
		a      *authtest.Authenticator // signs
		keys   http.Handler
		status int
		action string
	}{
		"another path":               {i.Authenticator, i.Handler(), 503, ""}, // without StripPrefix
		"endpoints behind Require":   {i.Authenticator, i.Require()(http.StripPrefix("/auth", i.Handler())), 503, ""},
		"a redirect to another host": {i.Authenticator, http.RedirectHandler(i.server.URL+"/auth/jwks.json", http.StatusFound), 503, ""},
		"a secret":                   {withSecret, http.StripPrefix("/auth", withSecret.Handler()), 401, "login"},
	} {
		server := httptest.NewServer(test.keys)
		t.Cleanup(server.Close)
		base := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-jwks", server.URL+"/auth/jwks.json").URL
		status, action := get(t, base+"/me", authtest.Tokens(t, test.a, auth.User{ID: "u1"}).Access)
		require.Equal(t, test.status, status, name)
		require.Equal(t, test.action, action, name)
	}
}

func TestOnLoopback(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"http://127.0.0.1:8080/auth/jwks.json": true, "http://[::1]:8080/": true, "http://localhost/": true,
		"http://example.com/": false, "http://localhost.example.com/": false, "http://10.0.0.1/": false, "": false, ":": false,
	} {
		require.Equal(t, want, onLoopback(url), url)
	}
}
