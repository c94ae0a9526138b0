// Package oauthclients uses package oauth with clients of other projects: the Go
// package golang.org/x/oauth2, and the npm package oauth4webapi.
package oauthclients

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/oauth"
)

// The client with a secret. RFC 6749 section 2.3.1 encodes the two.
const (
	clientID     = "a backend: 7+1"
	clientSecret = "p%20 +:&=/~"
)

type clients map[string][sha256.Size]byte

func (c clients) CheckClient(_ context.Context, id, secret string) error {
	want, ok := c[id]
	got := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !ok {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// server is an application with the endpoints of package oauth on a loopback socket.
type server struct {
	*authtest.Authenticator
	URL    string // of the server, without the path of the issuer
	Issuer string

	mu       sync.Mutex
	requests []string
}

// newServer starts a server whose issuer has a path.
func newServer(t *testing.T, path string, c oauth.Config, change func(*auth.Config)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{URL: "http://" + ln.Addr().String()}
	s.Issuer = s.URL + path
	config := auth.Config{Issuer: s.Issuer, Audience: []string{s.URL + "/api"}, ResourceMetadata: s.URL + "/.well-known/oauth-protected-resource/api"}
	if change != nil {
		change(&config)
	}
	s.Authenticator = authtest.New(t, config)
	c.URL = s.URL + "/oauth"
	h, err := oauth.Handler(s.Authenticator.Authenticator, c)
	require.NoError(t, err)
	resource, err := oauth.ResourceHandler(s.Verifier, oauth.Resource{URL: s.URL + "/api", AuthorizationServers: []string{s.Issuer}, Scopes: []string{"read"}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/oauth/", http.StripPrefix("/oauth", h))
	mux.Handle("/.well-known/oauth-authorization-server"+path, h)
	mux.Handle("/.well-known/oauth-protected-resource/api", resource)
	mux.Handle("GET /api", s.Require(auth.Scope("read"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_, _ = fmt.Fprint(w, claims.TokenID)
	})))
	logged := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := &statusWriter{ResponseWriter: w, status: 200}
		mux.ServeHTTP(recorded, r)
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", r.Method, r.URL.Path, recorded.status, scheme)))
	})
	started := &httptest.Server{Listener: ln, Config: &http.Server{Handler: logged, ReadHeaderTimeout: 5 * time.Second}}
	started.Start()
	t.Cleanup(started.Close)
	return s
}

func secretClients() clients { return clients{clientID: sha256.Sum256([]byte(clientSecret))} }

// login returns the tokens of a new session of ada.
func (s *server) login(t testing.TB) auth.Tokens {
	t.Helper()
	return authtest.Tokens(t, s.Authenticator, auth.User{ID: "u1", Username: "ada", Scopes: []string{"read"}})
}

// taken returns the requests since the last call.
func (s *server) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// line is one line of the output of client.mjs.
type line struct {
	Step   string
	Result json.RawMessage
}
