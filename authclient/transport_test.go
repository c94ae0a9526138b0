package authclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestNew_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "must be an absolute URL such as https://example.com",
		"example.com":                    "must be an absolute URL such as https://example.com",
		"https:///auth":                  "must be an absolute URL such as https://example.com",
		"https://ada:secret@example.com": "must not have a user, a query or a fragment",
		"https://example.com?x=secret":   "must not have a user, a query or a fragment",
		"https://example.com#x":          "must not have a user, a query or a fragment",
		"://secret":                      "is not a URL",
		"http://example.com/auth":        "(http://example.com/auth) must have the scheme https, or http with a loopback host",
		"http://localhost.example.com":   "(http://localhost.example.com) must have the scheme https, or http with a loopback host",
		"http://192.168.1.5":             "(http://192.168.1.5) must have the scheme https, or http with a loopback host",
		"ftp://example.com":              "(ftp://example.com) must have the scheme https, or http with a loopback host",
	} {
		_, err := New(Config{BaseURL: text})
		require.EqualError(t, err, "authclient: Config.BaseURL "+want, text)
		_, err = New(Config{BaseURL: base, Origins: []string{"https://api.example.com", text}})
		require.EqualError(t, err, "authclient: Config.Origins[1] "+want, text)
	}
	for _, text := range []string{
		"https://example.com", "http://localhost:8080/auth", "http://127.0.0.1:8080", "http://[::1]:8080/", "http://LOCALHOST/auth", "HTTPS://example.com/",
	} {
		_, err := New(Config{BaseURL: text})
		require.NoError(t, err, text)
	}
	_, err := New(Config{Origins: []string{"https://example.com/api"}, RetryWindow: -time.Second})
	require.EqualError(t, err, "authclient: Config.BaseURL must be an absolute URL such as https://example.com\n"+
		"authclient: Config.Origins[0] (https://example.com/api) has a path; want an origin such as https://api.example.com\n"+
		"authclient: Config.RetryWindow (-1s) is negative")
	_, err = New(Config{BaseURL: base, RetryWindow: 30, Store: FileStore("")})
	require.EqualError(t, err, "authclient: Config.Store is a FileStore without a path\n"+
		"authclient: Config.RetryWindow (30ns) is less than 1ms; missing time unit?")
}

func TestTransport_OnlyTheOriginsOfTheServerGetTheToken(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		first, store := s.client(t)
		tr, err := New(Config{BaseURL: base + "/", Base: s, Store: store, Origins: []string{"https://API.example.com:8443/"}})
		require.NoError(t, err)
		bearer := "Bearer " + stored(t, first).Access
		for at, want := range map[string]string{
			"https://example.com/x":                     bearer,
			"https://EXAMPLE.com:443/x":                 bearer,
			"https://api.example.com:8443/x":            bearer,
			"https://api.example.com/x":                 "",
			"http://example.com/x":                      "",
			"http://example.com:443/x":                  "",
			"https://example.com:444/x":                 "",
			"https://example.com.evil.example/x":        "",
			"https://evil.example/example.com":          "",
			"https://www.example.com/x":                 "",
			"https://example.com./x":                    "",
			"https://example.com:secret@evil.example/x": "",
		} {
			_, header, err := get(t, tr, at)
			require.NoError(t, err)
			require.Equal(t, want, header, at)
		}
		req := newRequest(t, http.MethodGet, "https://example.com/x", nil)
		req.Header.Set("Authorization", "Basic of the application")
		_, header, err := do(t, tr, req)
		require.NoError(t, err)
		require.Equal(t, "Basic of the application", header)
	})
}

func TestTransport_RedirectToAnotherHostGetsNoToken(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		client := &http.Client{Transport: tr}
		for _, to := range []string{"https://evil.example/x", "http://example.com/x", "https://example.com:8443/x"} {
			resp, err := client.Post("https://example.com/moved?to="+url.QueryEscape(to), "text/plain", strings.NewReader("body"))
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Empty(t, string(text))
			require.Equal(t, to, resp.Request.URL.String())
		}
		for _, r := range s.requests {
			require.Equal(t, strings.HasPrefix(r.url, "https://example.com/"), r.header.Get("Authorization") != "", r.url)
		}
	})
}

func TestTransport_DoesNotModifyTheRequest(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		for _, header := range []http.Header{nil, {"X-Test": {"1"}}} {
			time.Sleep(2 * time.Second)
			require.NoError(t, s.ExpireAccess(t.Context(), "u1")) // it is sent twice
			req := newRequest(t, http.MethodPost, page, strings.NewReader("body"))
			req.Header = header
			before, want := *req, header.Clone()
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, want, req.Header)
			require.Equal(t, before.URL, req.URL)
			require.Equal(t, before.Body, req.Body)
			require.Same(t, req, resp.Request, "the request that was sent contains the token")
		}
	})
}

// closingBody reports whether it was closed.
type closingBody struct {
	io.Reader
	closed bool
}

func (b *closingBody) Close() error {
	b.closed = true
	return nil
}

// RoundTrip closes the body of a request that it does not send. The server of play
// examines that the bodies of all responses are closed.
func TestTransport_ClosesBodies(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		require.NoError(t, tr.store.Update(t.Context(), func([]byte) ([]byte, error) { return nil, nil }))
		body := &closingBody{Reader: strings.NewReader("x")}
		_, _, err := do(t, tr, newRequest(t, http.MethodPost, page, body))
		require.ErrorIs(t, err, ErrSignedOut)
		require.True(t, body.closed)
		_, _, err = get(t, tr, page) // without a body
		require.ErrorIs(t, err, ErrSignedOut)

		// The second body cannot be had, or the refresh fails.
		s.signIn(t, tr)
		broken := errors.New("the body of a test")
		for i, respond := range []func(http.ResponseWriter, *http.Request, func()){nil, unavailable} {
			time.Sleep(2 * time.Second)
			require.NoError(t, s.ExpireAccess(t.Context(), "u1"))
			s.onRefresh(respond)
			req := newRequest(t, http.MethodPost, page, strings.NewReader("x"))
			req.GetBody = func() (io.ReadCloser, error) { return nil, broken }
			_, _, err = do(t, tr, req)
			require.Equal(t, i == 0, errors.Is(err, broken), err)
			require.Error(t, err)
		}
		require.Len(t, s.take("/api/me"), 2)
	})
}

func TestTransport_ReturnsTheErrorOfBase(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		s.handler.(*http.ServeMux).HandleFunc("/lost", func(http.ResponseWriter, *http.Request) { panic("lost") })
		_, _, err := get(t, tr, "https://example.com/lost")
		require.Equal(t, errLost, err)
		require.Len(t, s.take("/lost"), 1, "requests of the application are not repeated")
	})
}

func TestTransport_ReturnsTheErrorOfLoad(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		broken := errors.New("the keychain of a test is locked")
		tr.store = lockedStore{broken}
		_, _, err := get(t, tr, page)
		require.ErrorIs(t, err, broken)
		require.EqualError(t, err, "authclient: loading the tokens: the keychain of a test is locked")
		require.ErrorIs(t, tr.Logout(t.Context()), broken)
	})
}

type lockedStore struct{ err error }

func (s lockedStore) Load(context.Context) ([]byte, error) { return nil, s.err }

func (s lockedStore) Update(context.Context, func([]byte) ([]byte, error)) error { return s.err }

func TestTransport_WorksWithAServerThatSetsCookies(t *testing.T) {
	t.Parallel()
	for _, allowed := range []bool{true, false} {
		s := newServer(t, auth.Config{Cookies: &auth.Cookies{AllowBody: allowed}, Users: oneUser(t)})
		tr, err := New(Config{BaseURL: base, Base: s})
		require.NoError(t, err)
		tr.now = s.Clock.Now
		err = tr.Login(t.Context(), map[string]string{"login": "ada", "password": password})
		if !allowed {
			require.ErrorContains(t, err, "Cookies.AllowBody is not set")
			continue
		}
		require.NoError(t, err)
		s.Clock.Advance(time.Hour)
		requireAda(t, tr)
		require.Len(t, refreshes(s), 1)
		for _, r := range s.requests {
			require.Empty(t, r.header.Get("Cookie"))
		}
	}
}
