package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
)

func TestOnError_WritesEveryRefusal(t *testing.T) {
	t.Parallel()
	var reported []error
	fx := newFixture(t, withCookies(), func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			reported = append(reported, err)
			w.WriteHeader(http.StatusTeapot)
		}
	})
	plain := newFixture(t, withCookies(), func(c *auth.Config) {
		c.AutoRefresh = true
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			reported = append(reported, err)
			w.WriteHeader(http.StatusTeapot)
		}
	})
	h := fx.Handler()
	garbage := reqBearer("garbage")
	token := reqBearer(fx.login(t).Access)
	refusal := func(context.Context, *auth.Claims) error { return errors.New("no") }
	for i, tt := range []struct {
		h            http.Handler
		method, path string
		options      []requestOption
		err          error
	}{
		{h, "GET", "/login", nil, nil},
		{h, "GET", "/nothing", nil, nil},
		{h, "POST", "/login", []requestOption{reqJSON("{")}, auth.ErrInvalidRequest},
		{h, "POST", "/login", []requestOption{reqJSON("{}")}, auth.ErrInvalidRequest},
		{h, "POST", "/login", []requestOption{reqJSON(goodLogin), crossSite}, auth.ErrCrossOrigin},
		{h, "POST", "/login", []requestOption{reqJSON(`{"login":"ada","password":"x"}`)}, auth.ErrInvalidCredentials},
		{h, "POST", "/refresh", nil, auth.ErrNoToken},
		{h, "POST", "/refresh", []requestOption{reqHeader("Refresh-Token", "x")}, auth.ErrInvalidToken},
		{h, "POST", "/logout", []requestOption{crossSite}, auth.ErrCrossOrigin},
		{h, "POST", "/logout/all", nil, auth.ErrNoToken},
		{h, "POST", "/logout/all?others=x", []requestOption{token}, auth.ErrInvalidRequest},
		{h, "GET", "/sessions", []requestOption{garbage}, auth.ErrInvalidToken},
		{h, "DELETE", "/sessions/x", []requestOption{garbage}, auth.ErrInvalidToken},
		{h, "DELETE", "/sessions/x", []requestOption{token}, auth.ErrSessionNotFound},
		{fx.Require()(hello), "GET", "/", nil, auth.ErrNoToken},
		{fx.Require(refusal)(hello), "GET", "/", []requestOption{token}, auth.ErrForbidden},
		{fx.Optional(hello), "GET", "/", []requestOption{garbage}, auth.ErrInvalidToken},
		{plain.Require()(hello), "GET", "/", nil, auth.ErrNoToken},
		{plain.Require()(hello), "GET", "/", []requestOption{reqCookie(refreshCookie, "x")}, auth.ErrInvalidToken},
		{plain.Optional(hello), "GET", "/", []requestOption{garbage}, auth.ErrInvalidToken},
	} {
		r := send(t, tt.h, tt.method, tt.path, tt.options...)
		require.Equal(t, http.StatusTeapot, r.status, i)
		require.Empty(t, r.body)
		require.Len(t, reported, i+1)
		require.Error(t, reported[i])
		if tt.err != nil {
			require.ErrorIs(t, reported[i], tt.err, i)
		}
	}
}

func TestWriteError_UnknownIsA500WithoutDetails(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		errors.New("secret detail"), fmt.Errorf("secret: %w", io.EOF), auth.ErrSessionExists, auth.ErrFeedReset,
		context.Canceled,
	} {
		w := httptest.NewRecorder()
		auth.DefaultOnError(w, httptest.NewRequest("GET", "/", nil), err)
		r := readResponse(t, w.Result())
		r.requireRefused(t, 500, "server_error", "")
		require.Equal(t, "{\"error\":\"server_error\",\"error_description\":\"the server could not do this\"}\n", r.body)
		require.NotContains(t, r.header, "Www-Authenticate")
	}
}

func TestWriteError_EveryError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err          error
		status       int
		code, action string
		challenge    string
	}{
		{password.ErrBusy, 503, "temporarily_unavailable", "", ""},
		{auth.ErrUnavailable, 503, "temporarily_unavailable", "", ""},
		{auth.ErrCrossOrigin, 403, "cross_origin", "", ""},
		{auth.ErrInvalidRequest, 400, "invalid_request", "", ""},
		{auth.ErrSessionNotFound, 404, "not_found", "", ""},
		{auth.ErrThrottled, 429, "too_many_attempts", "", ""},
		{auth.ErrInvalidCredentials, 401, "invalid_credentials", "login", ""},
		{auth.ErrUserNotFound, 401, "invalid_credentials", "login", ""},
		{auth.ErrNoToken, 401, "missing_token", "login", "Bearer"},
		{auth.ErrTokenReused, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the session has ended"`},
		{auth.ErrSessionRevoked, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the session has ended"`},
		{auth.ErrTokenExpired, 401, "invalid_token", "refresh", `Bearer error="invalid_token", error_description="the token has expired"`},
		{auth.ErrInvalidToken, 401, "invalid_token", "login", `Bearer error="invalid_token", error_description="the token is not valid"`},
		{
			auth.ErrReauthenticate, 401, "insufficient_user_authentication", "login",
			`Bearer error="insufficient_user_authentication", error_description="a more recent login is required"`,
		},
		{auth.ErrForbidden, 403, "insufficient_scope", "", `Bearer error="insufficient_scope", error_description="the token does not permit this"`},
		// ErrUnavailable takes precedence over other errors, and
		// ErrSessionRevoked over ErrTokenExpired.
		{errors.Join(auth.ErrInvalidToken, auth.ErrUnavailable), 503, "temporarily_unavailable", "", ""},
		{errors.Join(auth.ErrUserNotFound, auth.ErrUnavailable), 503, "temporarily_unavailable", "", ""},
		{
			errors.Join(auth.ErrUserNotFound, auth.ErrForbidden), 403, "insufficient_scope", "",
			`Bearer error="insufficient_scope", error_description="the token does not permit this"`,
		},
		{
			errors.Join(auth.ErrTokenExpired, auth.ErrSessionRevoked), 401, "invalid_token", "login",
			`Bearer error="invalid_token", error_description="the session has ended"`,
		},
	} {
		w := httptest.NewRecorder()
		auth.DefaultOnError(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("secret detail: %w", tt.err))
		r := readResponse(t, w.Result())
		r.requireRefused(t, tt.status, tt.code, tt.action)
		require.Equal(t, tt.challenge, r.header.Get("Www-Authenticate"))
		require.NotContains(t, r.body, "secret")
		a := auth.ResponseFor(tt.err)
		if errors.Is(tt.err, auth.ErrTokenReused) {
			require.Equal(t, "reuse", a.Reason)
			require.Equal(t, "reuse", r.fields(t)["reason"])
			a.Reason = ""
		}
		wait := time.Duration(0)
		if tt.status == 429 || tt.status == 503 {
			wait = time.Second
			require.Equal(t, "1", r.header.Get("Retry-After"))
		}
		require.Equal(t, auth.ErrorResponse{RetryAfter: wait, Status: tt.status, Code: tt.code, Description: a.Description, Action: tt.action, Challenge: tt.challenge}, a)
		require.Equal(t, a.Description, r.fields(t)["error_description"])
	}
}

func TestWriteError_DescribesWhatIsMalformed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Handler()
	for want, r := range map[string]response{
		"login is missing in the body":                  send(t, h, "POST", "/login", reqJSON(`{"password":"x"}`)),
		"device is not a string":                        send(t, h, "POST", "/login", reqJSON(`{"login":"x","password":"x","device":1}`)),
		`delivery must be "cookie" or "body"`:           send(t, h, "POST", "/login", reqJSON(`{"login":"x","password":"x","delivery":"x"}`)),
		"more than one bearer token":                    send(t, h, "GET", "/sessions", reqHeader("Authorization", "Bearer a", "Bearer b")),
		"others must be \"true\" or \"false\"":          send(t, h, "POST", "/logout/all?others=x", reqBearer(fx.login(t).Access)),
		"the body is not a form":                        send(t, h, "POST", "/login", reqForm("%zz")),
		"form field login occurs twice or is not UTF-8": send(t, h, "POST", "/login", reqForm("login=a&login=a&password=x")),
		"form field password cannot be decoded":         send(t, h, "POST", "/login", reqForm("login=a&password=%zz")),
		"body: invalid JSON object":                     send(t, h, "POST", "/login", reqJSON(`{"login":"secret`)),
	} {
		r.requireRefused(t, 400, "invalid_request", "")
		require.Equal(t, want, r.fields(t)["error_description"])
	}
}

func TestResponseFor_SupportsCustomBodies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, _ *http.Request, err error) {
			a := auth.ResponseFor(err)
			a.SetHeaders(w.Header())
			w.WriteHeader(a.Status)
			_, _ = io.WriteString(w, a.Code+": "+a.Description)
		}
	})
	r := send(t, fx.Require()(hello), "GET", "/")
	require.Equal(t, 401, r.status)
	require.Equal(t, "missing_token: no access token in the header Authorization (Bearer)", r.body)
	require.Equal(t, "Bearer", r.header.Get("Www-Authenticate"))
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.NotContains(t, r.header, "Retry-After")
	fx.store.failBefore("Rotate", errStore)
	r = send(t, fx.RefreshHandler(), "POST", "/", reqHeader("Refresh-Token", fx.login(t).Refresh))
	require.Equal(t, 503, r.status)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.NotContains(t, r.header, "Www-Authenticate")
}

func TestResponseFor_AttributesNeedAChallenge(t *testing.T) {
	t.Parallel()
	c := &auth.Claims{}
	scope := auth.Scope("pay")(context.Background(), c)
	fresh := auth.Fresh(time.Minute)(context.Background(), c)
	for _, e := range []error{scope, fresh} {
		require.Empty(t, auth.ResponseFor(errors.Join(auth.ErrUnavailable, e)).Challenge)
		require.Empty(t, auth.ResponseFor(errors.Join(auth.ErrSessionNotFound, e)).Challenge)
		require.Equal(t, "Bearer", auth.ResponseFor(errors.Join(auth.ErrNoToken, e)).Challenge)
	}
}
