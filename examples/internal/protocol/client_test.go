package protocol

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/authclient"
)

// clientHistory is a file of the folder protocol/client: what a client sends, and what
// it gets.
type clientHistory struct {
	Title string       `json:"title"`
	Steps []clientStep `json:"steps"`
}

type clientStep struct {
	Comment     string          `json:"comment"`
	Application string          `json:"application"`
	Request     *request        `json:"request"`
	Response    json.RawMessage `json:"response"`
	Result      any             `json:"result"`
}

// memory is a Store that survives the client.
type memory struct {
	mu   sync.Mutex
	text []byte
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text, nil
}

func (m *memory) Update(_ context.Context, f func([]byte) ([]byte, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := f(slices.Clone(m.text))
	if err == nil {
		m.text = text
	}
	return err
}

// script answers the requests of a client as the steps say.
type script struct {
	mu      sync.Mutex
	steps   []clientStep // those that are left
	failure error
	killed  chan struct{} // closed when the program is killed
	keys    map[string]string
}

// process sends the requests of one client. If the client is killed, none of them returns
// before its context ends.
type process struct {
	*script
	dead bool
}

func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	if !p.dead {
		resp, err := p.script.RoundTrip(r)
		if p.dead = errors.Is(err, errKilled); !p.dead {
			return resp, err
		}
		close(p.killed)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

var errKilled = errors.New("the program was killed")

func (s *script) fail(format string, args ...any) error {
	if s.failure == nil {
		s.failure = fmt.Errorf(format, args...)
	}
	return s.failure
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/auth/login" {
		return respond(r, 200, map[string]any{
			"access_token": "access1", "token_type": "Bearer", "expires_in": 900, "refresh_token": "refresh1", "refresh_expires_in": 604800, "session_id": "s1",
		}), nil
	}
	if len(s.steps) == 0 || s.steps[0].Request == nil {
		return nil, s.fail("the client sends %s %s, and the history does not have it", r.Method, r.URL.Path)
	}
	step := s.steps[0]
	s.steps = s.steps[1:]
	if err := s.compare(step.Request, r); err != nil {
		return nil, s.fail("%w", err)
	}
	var reply *struct {
		Status int            `json:"status"`
		JSON   map[string]any `json:"json"`
	}
	switch text := string(step.Response); text {
	case "null", "":
		return nil, errors.New("the connection was lost")
	case `"killed"`:
		return nil, errKilled
	default:
		if err := json.Unmarshal(step.Response, &reply); err != nil {
			return nil, s.fail("%w", err)
		}
	}
	return respond(r, reply.Status, reply.JSON), nil
}

func respond(r *http.Request, status int, body map[string]any) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r, ProtoMajor: 1, ProtoMinor: 1}
	if body != nil {
		text, _ := json.Marshal(body) // it was JSON before
		resp.Header.Set("Content-Type", "application/json; charset=utf-8")
		resp.Body = io.NopCloser(bytes.NewReader(text))
	}
	return resp
}

// compare returns an error unless got is the request that a history wants.
func (s *script) compare(want *request, got *http.Request) error {
	if got.Method != want.Method || got.URL.Path != want.Path {
		return fmt.Errorf("the client sends %s %s, want %s %s", got.Method, got.URL.Path, want.Method, want.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(want.Headers)) {
		value, found := want.Headers[name], got.Header.Get(name)
		if key, ok := strings.CutPrefix(value, "digest of $"); ok {
			for other, digest := range s.keys {
				if digest == found {
					return fmt.Errorf("$%s is the same key as $%s", key, other)
				}
			}
			s.keys[key] = found
			continue
		}
		if key, ok := strings.CutPrefix(value, "$"); ok {
			sum := sha256.Sum256([]byte(found))
			found, value = "sha256="+base64.RawURLEncoding.EncodeToString(sum[:]), s.keys[key]
		}
		if found != value {
			return fmt.Errorf("%s %s: the header %s is %q, want %q", got.Method, got.URL.Path, name, got.Header.Get(name), want.Headers[name])
		}
	}
	return nil
}

// playClient plays a history for package authclient. It runs in a synctest bubble, in
// which the pauses of the client take no time.
func playClient(h clientHistory) error {
	store := &memory{}
	s := &script{steps: h.Steps, keys: map[string]string{}, killed: make(chan struct{})}
	start := func() (*authclient.Transport, error) {
		return authclient.New(authclient.Config{BaseURL: "https://auth.example/auth", Store: store, Base: &process{script: s}})
	}
	t, err := start()
	if err == nil {
		err = t.Login(context.Background(), map[string]string{"login": "ada", "password": userPassword})
	}
	for err == nil && len(s.steps) > 0 {
		step := s.steps[0]
		method, path, _ := strings.Cut(step.Application, " ")
		if step.Application == "" {
			return fmt.Errorf("the client does not send %v", step.Request)
		}
		s.mu.Lock()
		s.steps = s.steps[1:]
		s.mu.Unlock()
		result := make(chan any, 1)
		go func() { result <- ask(t, method, path) }()
		var got any
		select {
		case got = <-result:
		case <-s.killed:
		}
		s.mu.Lock()
		failure, left := s.failure, s.steps
		s.mu.Unlock()
		switch {
		case failure != nil:
			return failure
		case got == nil: // the program is started again
			s.killed = make(chan struct{})
			time.Sleep(5 * 24 * time.Hour)
			<-result
			t, err = start()
			continue
		case len(left) == 0 || left[0].Result == nil:
			return fmt.Errorf("the client returns %v, but the history goes on", got)
		case fmt.Sprint(left[0].Result) != fmt.Sprint(got):
			return fmt.Errorf("the client returns %v, want %v", got, left[0].Result)
		}
		s.steps = left[1:]
	}
	return err
}

// ask sends a request of the application. It returns the status, or "signed out".
func ask(t *authclient.Transport, method, path string) any {
	r, err := http.NewRequestWithContext(context.Background(), method, "https://auth.example"+path, nil)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(r)
	switch {
	case errors.Is(err, authclient.ErrSignedOut):
		return "signed out"
	case err != nil:
		return err
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func parseClient(text []byte) (h clientHistory, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return h, d.Decode(&h)
}

func clientHistories(t *testing.T) map[string][]byte {
	t.Helper()
	return filesIn(t, filepath.Join(folder, "client"))
}

func TestClientHistories(t *testing.T) {
	t.Parallel()
	for file, text := range clientHistories(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			h, err := parseClient(text)
			require.NoError(t, err)
			synctest.Test(t, func(t *testing.T) { require.NoError(t, playClient(h)) })
		})
	}
}

// TestClientHistories_CanFail leaves out one step at a time, or changes a request.
func TestClientHistories_CanFail(t *testing.T) {
	t.Parallel()
	for file, text := range clientHistories(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			h, err := parseClient(text)
			require.NoError(t, err)
			for i, step := range h.Steps {
				changed := clientHistory{Steps: slices.Delete(slices.Clone(h.Steps), i, i+1)}
				if step.Application == "" {
					synctest.Test(t, func(t *testing.T) { require.Error(t, playClient(changed), "without step %d", i+1) })
				}
				if step.Request == nil {
					continue
				}
				for name, value := range step.Request.Headers {
					if strings.HasPrefix(value, "digest of ") {
						continue // it has no value yet
					}
					other := *step.Request
					other.Headers = maps.Clone(other.Headers)
					other.Headers[name] = "another"
					changed := clientHistory{Steps: slices.Clone(h.Steps)}
					changed.Steps[i].Request = &other
					synctest.Test(t, func(t *testing.T) { require.Error(t, playClient(changed), "step %d: another %s", i+1, name) })
				}
			}
		})
	}
}
