// Package authclient provides an [http.RoundTripper] for programs that are clients
// of a service with package auth: command-line programs, other services, apps.
//
//	t, err := authclient.New(authclient.Config{
//		BaseURL: "https://example.com/auth",
//		Store:   authclient.FileStore("tokens.json"),
//	})
//	err = t.Login(ctx, map[string]string{"login": "ada", "password": password}) // once
//	client := &http.Client{Transport: t}
//	resp, err := client.Get("https://example.com/api/me")
//
// The Transport adds the access token to requests, and refreshes it before it
// expires, and when the server asks for it. Concurrent requests share one refresh.
// It saves the tokens of a refresh before anything uses them, and it sends a retry
// key with each refresh. So a user stays signed in if the program is killed at any
// moment, and if a response is lost, however late the refresh is repeated, until
// the refresh token expires. Several processes may share a [FileStore].
//
// When the session has ended, requests fail with [ErrSignedOut].
//
// The package needs only the endpoints of [auth.Authenticator.Handler], with tokens
// in the body. If the server sets Config.Cookies, it must set Cookies.AllowBody too.
//
// [auth.Authenticator.Handler]: https://pkg.go.dev/github.com/ratchet-go/auth#Authenticator.Handler
package authclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrSignedOut means that the Store has no tokens, or that the server has ended
// their session: the user must sign in again. In the second case the error also
// wraps an [*Error], whose Reason may say why the session has ended.
var ErrSignedOut = errors.New("authclient: signed out; sign in again")

// Config is the configuration of a [Transport].
type Config struct {
	_ [0]func() // keyed literals only

	// BaseURL is the URL below which the server has its endpoints, such as
	// "https://example.com/auth" for https://example.com/auth/refresh. It is
	// required. The scheme is https, or http if the host is a loopback address
	// or localhost.
	BaseURL string

	// Origins are further origins that get the access token, such as
	// "https://api.example.com". The origin of BaseURL always gets it. Origins are
	// compared exactly: scheme, host and port.
	Origins []string

	// Store keeps the tokens. Nil means that they are kept in memory.
	Store Store

	// Base sends the requests. Nil means http.DefaultTransport.
	Base http.RoundTripper

	// RetryWindow is how long a refresh may take before it is given up. It must not
	// be longer than Config.RetryWindow of the server. 0 means 30 seconds, which is
	// the server's default too.
	RetryWindow time.Duration
}

const defaultWindow = 30 * time.Second

// Transport is an [http.RoundTripper] that adds an access token to requests. Create
// it with [New]. It is safe for concurrent use.
type Transport struct {
	base    http.RoundTripper
	url     *url.URL // of the endpoints
	origins []string // that get the access token; the first is that of url
	store   Store
	window  time.Duration

	mu         sync.Mutex
	flight     *flight       // the refresh in progress, or nil
	calmUntil  time.Time     // before this, no refresh ahead of expiry is started
	challenge  func() string // of the last Login that needs a second factor, or nil; a func does not print it
	now        func() time.Time
	pause      time.Duration // before the second attempt of a refresh; it doubles
	noRetryKey bool          // for a test that shows what happens without them
}

// New returns a Transport. It does no I/O. The error joins every problem of c.
func New(c Config) (*Transport, error) {
	t := &Transport{base: c.Base, store: c.Store, window: c.RetryWindow, now: time.Now, pause: time.Second}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	if t.store == nil {
		t.store = new(memory)
	}
	var errs []error
	if t.store == FileStore("") {
		errs = append(errs, errors.New("authclient: Config.Store is a FileStore without a path"))
	}
	u, err := parseURL(c.BaseURL)
	if err != nil {
		errs = append(errs, fmt.Errorf("authclient: Config.BaseURL %w", err))
	} else {
		t.url = u
		t.origins = append(t.origins, originOf(u))
	}
	for i, text := range c.Origins {
		u, err := parseURL(text)
		if err == nil && u.Path != "" {
			err = fmt.Errorf("(%s) has a path; want an origin such as https://api.example.com", u)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("authclient: Config.Origins[%d] %w", i, err))
			continue
		}
		t.origins = append(t.origins, originOf(u))
	}
	switch {
	case c.RetryWindow < 0:
		errs = append(errs, fmt.Errorf("authclient: Config.RetryWindow (%s) is negative", c.RetryWindow))
	case c.RetryWindow > 0 && c.RetryWindow < time.Millisecond: // no refresh would succeed
		errs = append(errs, fmt.Errorf("authclient: Config.RetryWindow (%s) is less than 1ms; missing time unit?", c.RetryWindow))
	case c.RetryWindow == 0:
		t.window = defaultWindow
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// Format prints the URL of the endpoints. It prints no token.
func (t *Transport) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "authclient.Transport{%s}", t.url)
}

// parseURL parses a URL to which tokens may be sent. Its errors follow the name of
// the field.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL") // the error of url.Parse may contain a password
	case u.Hostname() == "":
		return nil, errors.New("must be an absolute URL such as https://example.com")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, errors.New("must not have a user, a query or a fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
		return u, nil
	}
	return nil, fmt.Errorf("(%s) must have the scheme https, or http with a loopback host", u)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// originOf returns the origin of a URL, with its port.
func originOf(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// RoundTrip sends a request. If its URL has one of the configured origins, and the
// request has no header Authorization, the access token is added as a bearer token. All
// other requests are sent unchanged, such as those to another host to which a
// redirect leads.
//
// An access token that has expired is refreshed first. One that expires soon, in the
// last tenth to fifth of its lifetime, is refreshed too, but the request waits for
// at most two seconds, and is sent with that token if it has not been replaced by
// then. If the response has status 401 and a JSON body with the action "refresh",
// the tokens are refreshed and the request is sent again, once; if its body cannot be
// sent again (GetBody is nil), the tokens are refreshed and the response is returned.
//
// All other responses are returned as they are. In particular, one with the action
// "login" asks for a new login, but the session may go on; see docs/clients.md.
//
// The error wraps [ErrSignedOut] if there are no tokens, or if their session has
// ended: the response to the refresh has status 401 and the action "login". It is an
// [*Error] if the server, or a proxy, refused the refresh for another reason,
// the error of the Store if the tokens could not be loaded or saved, or that of Base.
// The tokens are then kept, and the next request tries again.
//
// A refresh is shared by all requests and does not end with any of them. A request
// whose context ends does not wait any longer. A refresh that gets no response, or
// status 502, 503 or 504, is repeated after a second, and then after longer, until
// a RetryWindow is over. Retry-After is followed, up to ten seconds.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || !slices.Contains(t.origins, originOf(req.URL)) || req.Header.Get("Authorization") != "" {
		return t.base.RoundTrip(req)
	}
	access, err := t.token(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := t.send(req, req.Body, access)
	if err != nil || !wantsRefresh(resp) {
		return resp, err
	}
	access, err = t.refreshed(req.Context(), access)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	body := req.Body
	if body != nil && body != http.NoBody {
		if req.GetBody == nil {
			return resp, nil
		}
		if body, err = req.GetBody(); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
	}
	_ = resp.Body.Close()
	return t.send(req, body, access)
}

// send sends a copy of req with a token. The caller of RoundTrip sees its own
// request in the response: the copy contains the token.
func (t *Transport) send(req *http.Request, body io.ReadCloser, access string) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.Body = body
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Authorization", "Bearer "+access)
	resp, err := t.base.RoundTrip(r)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// maxBody is how much of the body of an error is read.
const maxBody = 16 << 10

// wantsRefresh reports whether a response asks the client to refresh. The body can be
// read again afterward.
func wantsRefresh(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized || !isJSON(resp.Header) {
		return false
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // an error is returned again by the next Read
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), resp.Body), resp.Body}
	var body struct{ Action string }
	return json.Unmarshal(text, &body) == nil && body.Action == "refresh"
}

func isJSON(h http.Header) bool {
	typ, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && typ == "application/json"
}

// token returns the access token for a request. It refreshes it if necessary.
func (t *Transport) token(ctx context.Context) (string, error) {
	s, err := t.load(ctx)
	if err != nil {
		return "", err
	}
	switch now := t.now(); {
	case !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt):
		return t.refreshed(ctx, s.Access)
	case s.RefreshAt.IsZero(), now.Before(s.RefreshAt):
		return s.Access, nil
	}
	return t.refreshAhead(ctx, s.Access)
}
