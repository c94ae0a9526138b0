package auth_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

const (
	accessCookie  = "__Host-access"
	refreshCookie = "__Host-Http-refresh"
	deviceCookie  = "__Host-Http-device"
)

// withCookies delivers tokens in cookies. The functions in change may change
// the cookie settings.
func withCookies(change ...func(*auth.Cookies)) func(*auth.Config) {
	return func(c *auth.Config) {
		c.Cookies = &auth.Cookies{}
		for _, f := range change {
			f(c.Cookies)
		}
	}
}

// withCookiesOf sets the cookie settings. With InsecureHTTP, the issuer is one
// for development.
func withCookiesOf(cookies auth.Cookies) func(*auth.Config) {
	return func(c *auth.Config) {
		c.Cookies = &cookies
		if cookies.InsecureHTTP {
			c.Issuer = devIssuer
		}
	}
}

func allowBody(c *auth.Cookies) { c.AllowBody = true }

func withExtractors(es ...auth.Extractor) func(*auth.Config) {
	return func(c *auth.Config) { c.Extractors = es }
}

// requestOption changes a request.
type requestOption func(*http.Request)

func reqHeader(name string, values ...string) requestOption {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func reqBearer(token string) requestOption { return reqHeader("Authorization", "Bearer "+token) }

func reqCookie(name, value string) requestOption {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: name, Value: value}) }
}

func reqBody(kind, body string) requestOption {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
	}
}

func reqJSON(body string) requestOption { return reqBody("application/json", body) }

func reqForm(body string) requestOption { return reqBody("application/x-www-form-urlencoded", body) }

func crossSite(r *http.Request) {
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", "https://evil.example")
}

func reqCookies(name string, values ...string) requestOption {
	return func(r *http.Request) {
		for _, v := range values {
			r.AddCookie(&http.Cookie{Name: name, Value: v})
		}
	}
}

func (fx *fixture) freshCookie(t testing.TB) requestOption {
	t.Helper()
	return reqCookie(accessCookie, fx.login(t).Access)
}

// newRequest returns a GET request with the options.
func newRequest(options ...requestOption) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, o := range options {
		o(r)
	}
	return r
}

// response is a response whose body has been read.
type response struct {
	status  int
	header  http.Header
	body    string
	cookies map[string]*http.Cookie
}

func readResponse(t testing.TB, res *http.Response) response {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	reply := response{res.StatusCode, res.Header, string(body), map[string]*http.Cookie{}}
	for _, c := range res.Cookies() {
		require.NotContains(t, reply.cookies, c.Name, "a cookie is set once")
		reply.cookies[c.Name] = c
	}
	return reply
}

// send returns the response of h to one request.
func send(t testing.TB, h http.Handler, method, target string, options ...requestOption) response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for _, o := range options {
		o(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return readResponse(t, w.Result())
}

// fields decodes a JSON body.
func (r response) fields(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &m), "%q", r.body)
	return m
}

// requireRefused requires an error response with the given status, error code
// and action, and the headers of every error response.
func (r response) requireRefused(t testing.TB, status int, code, action string) {
	t.Helper()
	require.Equal(t, status, r.status, "%s", r.body)
	m := r.fields(t)
	require.Equal(t, code, m["error"])
	require.NotEmpty(t, m["error_description"])
	if action == "" {
		require.NotContains(t, m, "action")
	} else {
		require.Equal(t, action, m["action"])
	}
	require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
	require.NotContains(t, r.header, "Set-Cookie", "a refusal sets and clears no cookie")
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		require.Equal(t, "1", r.header.Get("Retry-After"))
	} else {
		require.NotContains(t, r.header, "Retry-After")
	}
}

// requireNoContent requires a response with status 204 and no body.
func (r response) requireNoContent(t testing.TB) {
	t.Helper()
	require.Equal(t, http.StatusNoContent, r.status, "%s", r.body)
	require.Empty(t, r.body)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
}

// requireCleared requires that exactly the named cookies, by default both, are
// deleted.
func (r response) requireCleared(t testing.TB, names ...string) {
	t.Helper()
	if names == nil {
		names = []string{accessCookie, refreshCookie}
	}
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(r.cookies)))
	for _, c := range r.cookies {
		require.Empty(t, c.Value)
		require.Negative(t, c.MaxAge)
	}
}

const goodLogin = `{"login":"ada","password":"` + pass + `"}`
