package oauth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/oauth"
)

const issuer = "https://example.com"

var ada = auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, Scopes: []string{"pay", "read"}}

// clients are the clients of a test, by ID. fail is called first.
type clients struct {
	mu      sync.Mutex
	secrets map[string]string
	calls   int
	fail    func(ctx context.Context) error
}

func newClients() *clients {
	return &clients{secrets: map[string]string{"backend": "s3cret-s3cret-s3cret", "a:b c+d": "p%20 :&=+"}}
}

func (c *clients) CheckClient(ctx context.Context, id, secret string) error {
	c.mu.Lock()
	c.calls++
	right := c.secrets[id] == secret && secret != ""
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(ctx); err != nil {
			return err
		}
	}
	if !right {
		return auth.ErrInvalidCredentials
	}
	return nil
}

func (c *clients) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// fixture is a server of package oauth.
type fixture struct {
	*authtest.Authenticator
	http.Handler

	store  *testStore
	events chan auth.Event
}

// testStore fails if fail is set.
type testStore struct {
	*auth.MemoryStore
	mu      sync.Mutex
	fail    error
	rotated int
}

func (s *testStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func (s *testStore) setFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *testStore) rotations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rotated
}

func (s *testStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := s.failure(); err != nil {
		return auth.Session{}, false, err
	}
	got, rotated, err := s.MemoryStore.Rotate(ctx, subject, id, r)
	if rotated {
		s.mu.Lock()
		s.rotated++
		s.mu.Unlock()
	}
	return got, rotated, err
}

func (s *testStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.MemoryStore.Revoke(ctx, r)
}

func newFixture(t testing.TB, c oauth.Config, change ...func(*auth.Config)) *fixture {
	t.Helper()
	fx := &fixture{store: &testStore{MemoryStore: auth.NewMemoryStore()}, events: make(chan auth.Event, 1000)}
	config := auth.Config{Issuer: issuer, Store: fx.store, OnEvent: func(_ context.Context, e auth.Event) { fx.events <- e }}
	for _, f := range change {
		f(&config)
	}
	fx.Authenticator = authtest.New(t, config)
	if c.URL == "" {
		c.URL = "https://example.com/oauth"
	}
	h, err := oauth.Handler(fx.Authenticator.Authenticator, c)
	require.NoError(t, err)
	fx.Handler = h
	return fx
}

// login returns tokens of ada.
func (fx *fixture) login(t testing.TB) auth.Tokens {
	t.Helper()
	tokens := authtest.Tokens(t, fx.Authenticator, ada)
	fx.taken("")
	return tokens
}

// taken returns the events of a type, and removes all events.
func (fx *fixture) taken(of auth.EventType) (list []auth.Event) {
	for {
		select {
		case e := <-fx.events:
			if e.Type == of {
				list = append(list, e)
			}
		default:
			return list
		}
	}
}

type response struct {
	status int
	header http.Header
	text   string
}

// fields decodes the body.
func (r response) fields(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.text), &m), r.text)
	return m
}

// send sends a request with a form. header has names and values.
func send(t testing.TB, h http.Handler, method, target, form string, header ...string) response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
		if header[i] == "Content-Type" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return response{w.Code, w.Header(), w.Body.String()}
}

func (fx *fixture) post(t testing.TB, target, form string, header ...string) response {
	t.Helper()
	return send(t, fx, http.MethodPost, target, form, header...)
}

// requireRefused requires an error as in RFC 6749 section 5.2.
func (r response) requireRefused(t testing.TB, status int, code string) string {
	t.Helper()
	require.Equal(t, status, r.status, r.text)
	m := r.fields(t)
	require.Equal(t, code, m["error"])
	require.Len(t, m, 2)
	description, _ := m["error_description"].(string)
	require.Regexp(t, `^[ !#-\[\]-~]+$`, description, "the characters of RFC 6749 section 5.2")
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, "no-cache", r.header.Get("Pragma"))
	require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
	require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
	require.Empty(t, r.header["Set-Cookie"])
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		require.NotEmpty(t, r.header.Get("Retry-After"))
	} else {
		require.Empty(t, r.header["Retry-After"])
	}
	return description
}

// refreshForm is the body of a refresh.
func refreshForm(token string) string { return "grant_type=refresh_token&refresh_token=" + token }
