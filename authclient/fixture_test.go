package authclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

const (
	base = "https://example.com/auth"
	page = "https://example.com/api/me"
)

var ada = auth.User{ID: "u1", Username: "ada"}

// seen is a request that a server has received.
type seen struct {
	method, url string
	header      http.Header
	body        string
}

// server is a server without a network: it is the Base of its clients.
type server struct {
	*authtest.Authenticator
	handler http.Handler

	mu        sync.Mutex
	requests  []seen
	intercept func(w http.ResponseWriter, r *http.Request, serve func()) // of the refreshes, if not nil
	bodies    int                                                        // response bodies that are not closed
}

// play calls f in a bubble whose clock is that of the server and of its clients.
func play(t *testing.T, f func(t *testing.T, s *server)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, auth.Config{Now: time.Now})
		f(t, s)
		synctest.Wait()
		require.Zero(t, s.bodies, "response bodies that nobody has closed")
	})
}

func newServer(t *testing.T, c auth.Config) *server {
	s := &server{Authenticator: authtest.New(t, c)}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", s.Handler()))
	mux.Handle("/api/", s.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintf(w, "%s %s", claims.Username, body)
	})))
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Authorization")) })
	s.handler = mux
	return s
}

// RoundTrip passes a request to the handler. It returns when the context of the
// request ends, as a network does.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close(), r.Context().Err()); err != nil {
		return nil, err
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), strings.NewReader(string(body)))
	in.Header = r.Header.Clone()
	s.mu.Lock()
	s.requests = append(s.requests, seen{r.Method, r.URL.String(), in.Header, string(body)})
	intercept := s.intercept
	s.mu.Unlock()
	w, lost := httptest.NewRecorder(), make(chan bool, 1)
	go func() {
		defer func() { lost <- recover() != nil }()
		serve := func() { s.handler.ServeHTTP(w, in) }
		if intercept != nil && r.URL.Path == "/auth/refresh" {
			intercept(w, in, serve)
			return
		}
		serve()
	}()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case lost := <-lost:
		if lost {
			return nil, errLost
		}
	}
	resp := w.Result()
	resp.Request = r
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies++
	resp.Body = &countedBody{ReadCloser: resp.Body, s: s}
	return resp, nil
}

var errLost = errors.New("the response of a test is lost")

type countedBody struct {
	io.ReadCloser
	s    *server
	once sync.Once
}

func (b *countedBody) Close() error {
	b.once.Do(func() {
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		b.s.bodies--
	})
	return b.ReadCloser.Close()
}

// onRefresh sets the function that gets the requests for a refresh; nil removes it.
func (s *server) onRefresh(f func(w http.ResponseWriter, r *http.Request, serve func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// lose has the server refresh and lose the response.
func lose(_ http.ResponseWriter, _ *http.Request, serve func()) {
	serve()
	panic("lost")
}

// unavailable has the server refuse a refresh by 503.
func unavailable(w http.ResponseWriter, r *http.Request, _ func()) {
	auth.DefaultOnError(w, r, auth.ErrUnavailable)
}

// take returns the requests for a path since the last call.
func (s *server) take(path string) (list []seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var others []seen
	for _, r := range s.requests {
		if strings.HasSuffix(r.url, path) {
			list = append(list, r)
		} else {
			others = append(others, r)
		}
	}
	s.requests = others
	return list
}

// client returns a Transport that is signed in as ada, with a Store that can fail.
func (s *server) client(t *testing.T) (*Transport, *failingStore) {
	store := &failingStore{Store: new(memory)}
	tr, err := New(Config{BaseURL: base, Base: s, Store: store})
	require.NoError(t, err)
	s.signIn(t, tr)
	return tr, store
}

// signIn saves the tokens of a new session.
func (s *server) signIn(t *testing.T, tr *Transport) auth.Tokens {
	tokens := authtest.Tokens(t, s.Authenticator, ada)
	now := tr.now()
	state := tr.stateOf(answer{
		Access: tokens.Access, ExpiresIn: int64(tokens.AccessExpiresAt.Sub(now) / time.Second), Refresh: tokens.Refresh, Session: tokens.SessionID,
	}, now)
	text, err := json.Marshal(state)
	require.NoError(t, err)
	require.NoError(t, tr.store.Update(t.Context(), func([]byte) ([]byte, error) { return text, nil }))
	return tokens
}

// failingStore is a Store that fails.
type failingStore struct {
	Store
	mu      sync.Mutex
	updates int // those that change something and succeed before fail counts
	fail    error
}

func (s *failingStore) failAfter(updates int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates, s.fail = updates, err
}

func (s *failingStore) Update(ctx context.Context, f func([]byte) ([]byte, error)) error {
	return s.Store.Update(ctx, func(old []byte) ([]byte, error) {
		text, err := f(old)
		if err != nil || string(text) == string(old) {
			return text, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.fail != nil && s.updates == 0 {
			return nil, s.fail
		}
		s.updates--
		return text, nil
	})
}

// stored returns what a client has saved.
func stored(t *testing.T, tr *Transport) (s state) {
	t.Helper()
	text, err := tr.store.Load(t.Context())
	require.NoError(t, err)
	if text != nil {
		require.NoError(t, json.Unmarshal(text, &s))
	}
	return s
}

// get sends a GET request, and returns the status and the body.
func get(t *testing.T, tr *Transport, url string) (int, string, error) {
	t.Helper()
	return do(t, tr, newRequest(t, http.MethodGet, url, nil))
}

func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return req
}

func do(t *testing.T, tr *Transport, req *http.Request) (int, string, error) {
	t.Helper()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(text), nil
}

func requireAda(t *testing.T, tr *Transport) {
	t.Helper()
	status, body, err := get(t, tr, page)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, "ada ", body)
}
