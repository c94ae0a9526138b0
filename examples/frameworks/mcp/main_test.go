package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	mcpauth "github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// app is the application on a loopback socket. Its clock moves only if the test
// moves it.
type app struct {
	*authtest.Authenticator
	base string

	mu       sync.Mutex
	requests []string
}

func newApp(t *testing.T) *app {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &app{base: "http://" + ln.Addr().String()}
	c := config(s.base)
	// Package oauth2 takes tokens that live for 10 seconds as expired, so it refreshes
	// before each request.
	c.AccessTTL, c.Leeway, c.RetryWindow, c.OnEvent = 10*time.Second, -1, time.Second, nil
	c.Now = func() func() time.Time { // the SDK compares the expiry with the clock of the machine
		start := time.Now().Truncate(time.Second)
		return func() time.Time { return start }
	}()
	s.Authenticator = authtest.New(t, c)
	handler, err := routes(s.Authenticator.Authenticator, s.base)
	require.NoError(t, err)
	server := &httptest.Server{Listener: ln, Config: &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := &statusWriter{ResponseWriter: w, status: 200}
		handler.ServeHTTP(recorded, r)
		text := fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, recorded.status)
		if challenge := w.Header().Get("Www-Authenticate"); challenge != "" {
			text += " WWW-Authenticate: " + challenge
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, text)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return s
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// taken returns the requests since the last call.
func (s *app) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

func (s *app) post(t *testing.T, token string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+"/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func TestMCP_ChallengeNamesTheMetadataOfTheResource(t *testing.T) {
	t.Parallel()
	s := newApp(t)
	ada := auth.User{ID: "u1", Username: "ada", Scopes: []string{"tools"}}
	revoked := authtest.Tokens(t, s.Authenticator, ada, authtest.Revoked())
	refresh := authtest.Tokens(t, s.Authenticator, ada)
	for name, c := range map[string]struct {
		token  string
		status int
	}{
		"no token":        {"", 401},
		"not a token":     {"x", 401},
		"revoked":         {revoked.Access, 401},
		"a refresh token": {refresh.Refresh, 401},
		"expired":         {authtest.Tokens(t, s.Authenticator, ada, authtest.Expired()).Access, 401},
		"without a scope": {authtest.Tokens(t, s.Authenticator, auth.User{ID: "u2"}).Access, 403},
	} {
		resp, body := s.post(t, c.token)
		require.Equal(t, c.status, resp.StatusCode, name)
		require.NotContains(t, body, "eyJ")
		challenges, err := oauthex.ParseWWWAuthenticate(resp.Header["Www-Authenticate"])
		require.NoError(t, err)
		require.Equal(t, s.base+metadataPath, challenges[0].Params["resource_metadata"], name)
	}
	// The challenges of the package can be read by the SDK too.
	for _, err := range []error{auth.ErrNoToken, auth.ErrInvalidToken} {
		a := authtest.New(t, auth.Config{ResourceMetadata: s.base + metadataPath})
		challenges, err := oauthex.ParseWWWAuthenticate([]string{a.ReportError(httptest.NewRequest("GET", "/", nil), err, "").Challenge})
		require.NoError(t, err)
		require.Equal(t, s.base+metadataPath, challenges[0].Params["resource_metadata"])
	}
}

// signIn is an OAuthHandler of a client: it finds out from the challenge where to get
// tokens, and signs in with a password.
type signIn struct {
	t      *testing.T
	source oauth2.TokenSource // nil before the login
	logins int
	tokens oauth2.Token // of the login
}

func (s *signIn) TokenSource(context.Context) (oauth2.TokenSource, error) { return s.source, nil }

func (s *signIn) Authorize(ctx context.Context, r *http.Request, resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	if s.logins++; s.logins > 1 {
		return errors.New("the user must sign in again")
	}
	challenges, err := oauthex.ParseWWWAuthenticate(resp.Header["Www-Authenticate"])
	if err != nil {
		return err
	}
	resource, err := oauthex.GetProtectedResourceMetadata(ctx, challenges[0].Params["resource_metadata"], r.URL.String(), http.DefaultClient)
	if err != nil {
		return err
	}
	issuer := resource.AuthorizationServers[0]
	// GetAuthServerMeta of the SDK requires PKCE, and so an authorization endpoint.
	var server oauthex.AuthServerMeta
	found, err := http.Get(issuer + "/.well-known/oauth-authorization-server")
	if err != nil {
		return err
	}
	defer func() { _ = found.Body.Close() }()
	if err := json.NewDecoder(found.Body).Decode(&server); err != nil {
		return err
	}
	require.Equal(s.t, issuer, server.Issuer)
	login, err := http.PostForm(issuer+"/auth/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
	if err != nil {
		return err
	}
	defer func() { _ = login.Body.Close() }()
	if err := json.NewDecoder(login.Body).Decode(&s.tokens); err != nil {
		return err
	}
	s.tokens.Expiry = time.Now().Add(time.Duration(s.tokens.ExpiresIn) * time.Second)
	config := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: server.TokenEndpoint}}
	s.source = config.TokenSource(context.WithoutCancel(ctx), &s.tokens)
	return nil
}

// A client of the SDK signs in after the first 401, refreshes its tokens, and is
// refused when the session has ended.
func TestMCP_AClientOfTheSDKSignsInAndRefreshes(t *testing.T) {
	t.Parallel()
	s := newApp(t)
	handler := &signIn{t: t}
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1.0.0"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: s.base + "/mcp", OAuthHandler: handler}, nil)
	require.NoError(t, err)
	defer func() { _ = session.Close() }()
	call := func() (string, error) {
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
		if err != nil {
			return "", err
		}
		return result.Content[0].(*mcp.TextContent).Text, nil
	}
	for range 3 {
		name, err := call()
		require.NoError(t, err)
		require.Equal(t, "ada", name)
	}
	require.Equal(t, 1, handler.logins)
	requests := s.taken()
	t.Logf("requests of the client of the SDK:\n%s", strings.Join(requests, "\n"))
	require.Equal(t, `POST /mcp 401 WWW-Authenticate: Bearer resource_metadata="`+s.base+metadataPath+`", scope="tools"`, requests[0])
	require.Equal(t, []string{"GET " + metadataPath + " 200", "GET /.well-known/oauth-authorization-server 200", "POST /auth/login 200"}, requests[1:4])
	require.Contains(t, requests, "POST /oauth/token 200")
	require.Contains(t, requests, "POST /mcp 200")
	require.NotContains(t, requests[1:], requests[0], "no other request was refused")

	require.NoError(t, s.RevokeAll(t.Context(), "u1"))
	_, err = call()
	require.ErrorContains(t, err, "the user must sign in again")
	requests = s.taken()
	t.Logf("after the session has ended:\n%s", strings.Join(requests, "\n"))
	require.Contains(t, requests, "POST /oauth/token 400")
}

// The stream of a client ends with its session.
func TestMCP_AStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	s := newApp(t)
	tokens := authtest.Tokens(t, s.Authenticator, auth.User{ID: "u1", Username: "ada", Scopes: []string{"tools"}})
	ended := make(chan error, 1)
	started := make(chan struct{})
	protect := mcpauth.RequireBearerToken(verifier(s.Verifier), nil)
	h := protect(endWithSession(s.Verifier, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})))
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	go h.ServeHTTP(httptest.NewRecorder(), r)
	<-started
	require.NoError(t, s.Revoke(t.Context(), "u1", tokens.SessionID))
	require.ErrorIs(t, <-ended, auth.ErrSessionRevoked)
}

// An outage must not look like a token that is not valid.
func TestMCP_AnOutageIsNot401(t *testing.T) {
	t.Parallel()
	c := config("http://localhost")
	a, err := auth.New(c)
	require.NoError(t, err)
	tokens, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: c.Issuer, Audience: c.Audience, Keys: failingKeys{}})
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/mcp", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := httptest.NewRecorder()
	mcpauth.RequireBearerToken(verifier(v), nil)(http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, 500, w.Code)
	require.Equal(t, "temporarily_unavailable: try again\n", w.Body.String())
}

type failingKeys struct{}

func (failingKeys) VerifyKeys(context.Context, string) ([]auth.Key, error) {
	return nil, auth.ErrUnavailable
}
