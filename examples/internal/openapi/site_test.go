package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/oauth"
	"github.com/ratchet-go/auth/password"
)

const right, wrong = "correct horse battery staple", "wrong"

// people is a user lookup with the users ada and bob, which can fail.
type people struct {
	mu    sync.Mutex
	hash  string
	extra map[string]any
	other bool // FindByID returns another user, which is a mistake
}

func (p *people) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	if login != "ada" {
		return auth.User{}, auth.ErrUserNotFound
	}
	return p.FindByID(ctx, "u1")
}

func (p *people) FindByID(_ context.Context, id string) (auth.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.other {
		id = "another"
	}
	return auth.User{ID: id, Username: "ada", Scopes: []string{"read"}, PasswordHash: p.hash, Extra: p.extra}, nil
}

// updatable are people whose passwords can be changed.
type updatable struct{ *people }

func (u updatable) UpdatePasswordHash(_ context.Context, _, old, next string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.hash == old {
		u.hash = next
	}
	return nil
}

// fragile is a store that fails while down is set.
type fragile struct {
	auth.Store
	down atomic.Bool
}

func (s *fragile) err() error {
	if s.down.Load() {
		return errors.New("the store does not respond")
	}
	return nil
}

func (s *fragile) Create(ctx context.Context, v auth.Session) error {
	return errors.Join(s.err(), s.Store.Create(ctx, v))
}

func (s *fragile) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	v, err := s.Store.Get(ctx, subject, id)
	return v, errors.Join(s.err(), err)
}

func (s *fragile) List(ctx context.Context, subject string) ([]auth.Session, error) {
	list, err := s.Store.List(ctx, subject)
	return list, errors.Join(s.err(), err)
}

func (s *fragile) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := s.err(); err != nil {
		return auth.Session{}, false, err
	}
	return s.Store.Rotate(ctx, subject, id, r)
}

func (s *fragile) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Revoke(ctx, r)
}

func (s *fragile) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Spend(ctx, subject, id, until)
}

// programs are the clients of package oauth.
type programs struct{ down atomic.Bool }

func (p *programs) CheckClient(_ context.Context, id, secret string) error {
	switch {
	case p.down.Load():
		return errors.New("the table of clients does not respond")
	case id != "backend" || secret != "s3cret-s3cret":
		return auth.ErrInvalidCredentials
	}
	return nil
}

// site is a real server and what its responses depend on.
type site struct {
	t        *testing.T
	d        *document
	a        *authtest.Authenticator
	users    *people
	store    *fragile
	programs *programs
	onLogin  atomic.Pointer[func(o *auth.SessionOptions) error]
	url      string
	http     *http.Client
}

var passwordHash = sync.OnceValues(func() (string, error) {
	return (&password.Hasher{Memory: 8, Time: 1}).Hash(context.Background(), right)
})

// newSite starts a server. change changes its configuration.
func newSite(t *testing.T, d *document, change func(*auth.Config)) *site {
	t.Helper()
	hash, err := passwordHash()
	require.NoError(t, err)
	s := &site{t: t, d: d, users: &people{hash: hash}, store: &fragile{Store: auth.NewMemoryStore()}, programs: &programs{}}
	c := auth.Config{
		Issuer: "https://auth.example", Audience: []string{"https://api.example"},
		Users: updatable{s.users}, Store: s.store, Hasher: &password.Hasher{Memory: 8, Time: 1},
		OnEvent: func(context.Context, auth.Event) {},
		OnLogin: func(_ context.Context, _ auth.User, o *auth.SessionOptions) error {
			if f := s.onLogin.Load(); f != nil {
				return (*f)(o)
			}
			return nil
		},
	}
	change(&c)
	s.a = authtest.New(t, c)
	programs, err := oauth.Handler(s.a.Authenticator, oauth.Config{URL: "https://auth.example/oauth", Clients: s.programs})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", s.a.Handler()))
	mux.Handle("/oauth/", http.StripPrefix("/oauth", programs))
	mux.Handle("/.well-known/oauth-authorization-server", programs)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url, s.http = server.URL, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// option changes a request.
type option func(r *http.Request)

func header(name, value string) option { return func(r *http.Request) { r.Header.Add(name, value) } }

func bearer(token string) option { return header("Authorization", "Bearer "+token) }

// withBody sets the body of a request.
func withBody(kind, text string) option {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", kind)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	}
}

func inJSON(fields node) option {
	text, _ := json.Marshal(fields) // strings cannot fail
	return withBody("application/json", string(text))
}

func inForm(pairs ...string) option {
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return withBody("application/x-www-form-urlencoded", form.Encode())
}

// cookies sends the token cookies of an earlier response, from a page of the site.
func cookies(from answer) option {
	return func(r *http.Request) {
		for _, c := range from.cookies {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
}

// Headers of browsers.
var (
	sameOrigin = header("Sec-Fetch-Site", "same-origin")
	crossSite  = header("Sec-Fetch-Site", "cross-site")
	navigates  = header("Sec-Fetch-Mode", "navigate")
	tooLarge   = withBody("application/json", `{"x":"`+strings.Repeat("x", 17<<10)+`"}`)
	plainText  = withBody("text/plain", "hello")
)

// answer is a response.
type answer struct {
	status  int
	body    node
	header  http.Header
	cookies []*http.Cookie
}

func (a answer) text(name string) string {
	text, _ := a.body[name].(string)
	return text
}

// send sends a request, such as "POST /auth/login". It requires this status, and a
// response that is as the document says.
func (s *site) send(status int, request string, options ...option) answer {
	s.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	require.NoError(s.t, err)
	for _, o := range options {
		o(r)
	}
	var sent []byte
	if r.GetBody != nil {
		copied, err := r.GetBody()
		require.NoError(s.t, err)
		sent, err = io.ReadAll(copied)
		require.NoError(s.t, err)
	}
	resp, err := s.http.Do(r)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	received, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, status, resp.StatusCode, "%s: %s", request, received)
	for _, prefix := range []string{"/auth", "/oauth"} {
		path = strings.TrimPrefix(path, prefix)
	}
	path, _, _ = strings.Cut(path, "?")
	require.NoError(s.t, s.d.check(exchange{
		method: method, path: path, request: r.Header, headers: resp.Header, sent: sent, received: received, status: resp.StatusCode,
	}), "%s %d", request, status)
	a := answer{status: resp.StatusCode, header: resp.Header, cookies: resp.Cookies()}
	if bytes.HasPrefix(received, []byte("{")) {
		require.NoError(s.t, json.Unmarshal(received, &a.body))
	}
	return a
}

// fails sends a request as send does, and requires this error and action.
func (s *site) fails(status int, code string, request string, options ...option) answer {
	s.t.Helper()
	a := s.send(status, request, options...)
	require.Equal(s.t, code, codeOf(a.body), "%s: %v", request, a.body)
	return a
}

func credentials(pass string) option { return inJSON(node{"login": "ada", "password": pass}) }

// login signs in, with the tokens in the body or in cookies.
func (s *site) login(options ...option) answer {
	s.t.Helper()
	return s.send(200, "POST /auth/login", append([]option{credentials(right)}, options...)...)
}

// down lets the store fail while f runs.
func (s *site) down(f func()) {
	s.store.down.Store(true)
	defer s.store.down.Store(false)
	f()
}

// loginIs sets Config.OnLogin while f runs.
func (s *site) loginIs(hook func(o *auth.SessionOptions) error, f func()) {
	s.onLogin.Store(&hook)
	defer s.onLogin.Store(nil)
	f()
}

// usersAre changes the user lookup while f runs.
func (s *site) usersAre(change func(p *people), f func()) {
	s.users.mu.Lock()
	hash := s.users.hash
	change(s.users)
	s.users.mu.Unlock()
	defer func() {
		s.users.mu.Lock()
		defer s.users.mu.Unlock()
		s.users.hash, s.users.extra, s.users.other = hash, nil, false
	}()
	f()
}
