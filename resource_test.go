package auth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

const (
	metadataURL = "https://api.example.com/.well-known/oauth-protected-resource/mcp"
	metadata    = `resource_metadata="` + metadataURL + `"`
)

func withMetadata(c *auth.Config) { c.ResourceMetadata = metadataURL }

// challengeOf returns the challenges of ResponseFor.
func challengeOf(w http.ResponseWriter, _ *http.Request, err error) {
	for _, err := range []error{err, errors.Join(errors.New("x"), err)} { // an application may wrap it
		w.Header().Add("Www-Authenticate", auth.ResponseFor(err).Challenge)
	}
	w.WriteHeader(http.StatusTeapot)
}

func TestResourceMetadata_IsInEveryChallenge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guards  []auth.Guard
		token   func(fx *fixture) string
		without string // the challenge without metadata
	}{
		"no token":    {nil, func(*fixture) string { return "" }, "Bearer"},
		"not a token": {nil, func(*fixture) string { return "x" }, `Bearer error="invalid_token", error_description="the token is not valid"`},
		"an expired token": {nil, func(fx *fixture) string {
			token := fx.login(t).Access
			fx.clock.Advance(20 * time.Minute)
			return token
		}, `Bearer error="invalid_token", error_description="the token has expired"`},
		"a revoked token": {nil, func(fx *fixture) string {
			token := fx.login(t)
			require.NoError(t, fx.Revoke(t.Context(), token.Subject, token.SessionID))
			return token.Access
		}, `Bearer error="invalid_token", error_description="the session has ended"`},
		"a missing scope": {
			[]auth.Guard{auth.Scope("write")}, func(fx *fixture) string { return fx.login(t).Access },
			`Bearer error="insufficient_scope", error_description="the token does not permit this", scope="write"`,
		},
		"a refusal by the application": {
			[]auth.Guard{func(context.Context, *auth.Claims) error { return errors.New("no") }}, func(fx *fixture) string { return fx.login(t).Access },
			`Bearer error="insufficient_scope", error_description="the token does not permit this"`,
		},
		"an old login": {[]auth.Guard{auth.Fresh(time.Minute)}, func(fx *fixture) string {
			token := fx.login(t).Access
			fx.clock.Advance(2 * time.Minute)
			return token
		}, `Bearer error="insufficient_user_authentication", error_description="a more recent login is required", max_age="60"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, custom := range []bool{false, true} {
				for _, change := range []func(*auth.Config){nil, withMetadata} {
					fx := newFixture(t, func(c *auth.Config) {
						if custom {
							c.OnError = challengeOf
						}
						if change != nil {
							change(c)
						}
					})
					token := c.token(fx)
					both, err := auth.AnyOf(fx.Verifier, newFixture(t, func(c *auth.Config) { c.Issuer = "https://other.example.com" }).Verifier)
					require.NoError(t, err)
					handlers := []http.Handler{fx.Require(c.guards...)(hello)}
					if name != "not a token" {
						handlers = append(handlers, both.Require(c.guards...)(hello))
					}
					if c.guards == nil && token != "" {
						handlers = append(handlers, fx.Optional(hello))
					}
					for _, h := range handlers {
						var options []requestOption
						if token != "" {
							options = append(options, reqBearer(token))
						}
						for _, challenge := range send(t, h, "GET", "/", options...).header["Www-Authenticate"] {
							if change == nil {
								require.Equal(t, c.without, challenge)
								continue
							}
							separator := ", "
							if c.without == "Bearer" {
								separator = " "
							}
							require.Contains(t, challenge, separator+metadata)
							require.Contains(t, []string{c.without}, without(challenge, separator+metadata))
						}
					}
				}
			}
		})
	}
}

// without returns s without the first occurrence of part.
func without(s, part string) string {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return s[:i] + s[i+len(part):]
		}
	}
	return s
}

// A handler of the application may call the methods, and write the response itself.
func TestResourceMetadata_IsInTheErrorsOfMethods(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withMetadata, withCookies())
	r := newRequest()
	for name, err := range map[string]func() error{
		"Authenticate": func() error { _, err := fx.Authenticate(r); return err },
		"AccessToken":  func() error { _, _, err := fx.AccessToken(r); return err },
		"Verify":       func() error { _, err := fx.Verify(r.Context(), "x"); return err },
	} {
		err := err()
		require.Error(t, err, name)
		require.Contains(t, auth.ResponseFor(err).Challenge, metadata, name)
		w := httptest.NewRecorder()
		auth.DefaultOnError(w, r, err)
		require.Contains(t, w.Header().Get("Www-Authenticate"), metadata, name)
	}
	_, err := fx.Authenticate(r)
	require.ErrorIs(t, err, auth.ErrNoToken)
	require.Contains(t, fx.ReportError(r, auth.ErrNoToken, "").Challenge, metadata, "an error of the application")

	var reason error
	send(t, fx.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reason = auth.ErrorFromContext(r.Context()) })),
		"GET", "/", reqCookie(accessCookie, "x"))
	require.ErrorIs(t, reason, auth.ErrInvalidToken)
	require.Contains(t, auth.ResponseFor(reason).Challenge, metadata)

	require.Empty(t, auth.ResponseFor(auth.ErrUnavailable).Challenge)
	require.Empty(t, fx.ReportError(r, auth.ErrUnavailable, "").Challenge, "no challenge without 401 or 403")
}

func TestResourceMetadata_IsAURLThatFitsIntoAHeader(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"": "",
		"https://api.example.com/.well-known/x?y=%20": "",
		"http://localhost:8080/x":                     "",
		"http://127.0.0.1/x":                          "",
		"http://[::1]:80/x":                           "",
		"http://api.example.com/x":                    "must be an https URL",
		"http://127.0.0.1.example.com/x":              "must be an https URL",
		"/.well-known/x":                              "is not an absolute URL",
		"//example.com/x":                             "is not an absolute URL",
		"api.example.com/x":                           "is not an absolute URL",
		"https:api.example.com":                       "is not an absolute URL",
		"https://":                                    "is not an absolute URL",
		"ftp://example.com/x":                         "is not an absolute URL",
		"https://example.com/%zz":                     "is not an absolute URL",
		"https://example.com/#a":                      "must not have a user or a fragment",
		"https://example.com/#":                       "must not have a user or a fragment",
		"https://user@example.com/":                   "must not have a user or a fragment",
		`https://example.com/"`:                       "must be ASCII without spaces, quotes and backslashes",
		`https://example.com/\`:                       "must be ASCII without spaces, quotes and backslashes",
		"https://example.com/ x":                      "must be ASCII without spaces",
		"https://example.com/\r\nX: y":                "must be ASCII without spaces",
		"https://example.com/\x00":                    "must be ASCII without spaces",
		"https://exämple.com/":                        "must be ASCII without spaces",
	} {
		_, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher, TokenCacheSize: -1, ResourceMetadata: value,
		})
		_, err2 := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)}, TokenCacheSize: -1, ResourceMetadata: value,
		})
		if want == "" {
			require.NoError(t, errors.Join(err, err2), value)
			continue
		}
		require.ErrorContains(t, err, "auth: Config.ResourceMetadata ", value)
		require.ErrorContains(t, err, want, value)
		require.ErrorContains(t, err2, "auth: VerifierConfig.ResourceMetadata ", value)
		require.ErrorContains(t, err2, want, value)
	}
}

func TestIssuer_IsThatOfTheConfiguration(t *testing.T) {
	t.Parallel()
	one, two := newFixture(t), newFixture(t, func(c *auth.Config) { c.Issuer = "https://other.example.com" })
	require.Equal(t, issuer, one.Issuer())
	both, err := auth.AnyOf(one.Verifier, two.Verifier)
	require.NoError(t, err)
	require.Empty(t, both.Issuer())
}

func TestReportError_EmitsTheEventOfWriteError(t *testing.T) {
	t.Parallel()
	for _, err := range []error{auth.ErrInvalidRequest, auth.ErrUnavailable, errors.New("x"), auth.ErrTokenExpired, auth.ErrInvalidToken} {
		var got []auth.Event
		var responses []auth.ErrorResponse
		for _, report := range []func(fx *fixture) auth.ErrorResponse{
			func(fx *fixture) auth.ErrorResponse { return fx.ReportError(newRequest(), err, "") },
			func(fx *fixture) auth.ErrorResponse {
				fx.WriteError(httptest.NewRecorder(), newRequest(), err)
				return auth.ResponseFor(err)
			},
		} {
			fx := newFixture(t)
			responses = append(responses, report(fx))
			fx.events.mu.Lock()
			got = append(got, append(fx.events.all, auth.Event{})[0])
			fx.events.mu.Unlock()
		}
		require.Equal(t, responses[1], responses[0])
		require.Equal(t, got[1], got[0])
		require.Equal(t, !errors.Is(err, auth.ErrTokenExpired), got[0].Type != "")
	}
}

func TestReportError_SetsTheCode(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, code := range []string{"invalid_client", "invalid_scope"} { // each has an event of its own
		got := fx.ReportError(newRequest(), auth.ErrInvalidRequest, code)
		require.Equal(t, auth.ErrorResponse{Status: 400, Code: code, Description: "the request is malformed"}, got)
		events := fx.events.take(auth.EventRefused)
		require.Len(t, events, 1)
		require.Equal(t, code, events[0].Reason)
		fx.ReportError(newRequest(), auth.ErrInvalidRequest, code)
		require.Empty(t, fx.events.take(auth.EventRefused), "at most one a minute")
	}
}
