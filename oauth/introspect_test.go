package oauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/oauth"
)

func TestRevoke_EndsTheSessionOfEitherToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	for _, form := range []func(auth.Tokens) string{
		func(k auth.Tokens) string { return "token=" + k.Refresh },
		func(k auth.Tokens) string { return "token=" + k.Access + "&token_type_hint=access_token" },
		func(k auth.Tokens) string { return "token=" + k.Refresh + "&token_type_hint=access_token" }, // a wrong hint
		func(k auth.Tokens) string { return "token=" + k.Refresh + "&token_type_hint=x&unknown=y" },
	} {
		tokens, other := fx.login(t), fx.login(t)
		for range 2 { // the second time, the token is not valid
			r := fx.post(t, "/revoke", form(tokens))
			require.Equal(t, 200, r.status, r.text)
			require.Empty(t, r.text)
			require.Equal(t, "no-store", r.header.Get("Cache-Control"))
			require.Empty(t, r.header["Set-Cookie"])
		}
		_, err := fx.Verify(t.Context(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		fx.post(t, "/token", refreshForm(tokens.Refresh)).requireRefused(t, 400, "invalid_grant")
		_, err = fx.Verify(t.Context(), other.Access)
		require.NoError(t, err, "the other session goes on")
	}
	for _, token := range []string{"x", "a.b.c", "%00", "%ff", strings.Repeat("x", 9000), authtest.Tokens(t, authtest.New(t, auth.Config{}), ada).Refresh} {
		require.Equal(t, 200, fx.post(t, "/revoke", "token="+token).status, "an unknown token is no error (RFC 7009 section 2.2)")
	}
	require.Equal(t, "token is missing in the body", fx.post(t, "/revoke", "token_type_hint=refresh_token").requireRefused(t, 400, "invalid_request"))
}

func TestRevoke_AnOutageIsA503(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	tokens := fx.login(t)
	fx.store.setFailure(errors.New("down"))
	r := fx.post(t, "/revoke", "token="+tokens.Refresh)
	r.requireRefused(t, 503, "temporarily_unavailable")
	require.Equal(t, "1", r.header.Get("Retry-After"))
	fx.store.setFailure(nil)
	require.Equal(t, 200, fx.post(t, "/revoke", "token="+tokens.Refresh).status)
}

// asBackend authenticates the client of newClients.
const asBackend = "client_id=backend&client_secret=s3cret-s3cret-s3cret&"

func TestIntrospect_DescribesAnAccessToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()}, func(c *auth.Config) { c.Audience = []string{"api", "billing"} })
	tokens := fx.login(t)
	c, err := fx.Verify(t.Context(), tokens.Access)
	require.NoError(t, err)
	now := float64(fx.Clock.Now().Unix())
	want := map[string]any{
		"active": true, "scope": "pay read", "username": "ada", "token_type": "Bearer", "exp": now + 900, "iat": now,
		"sub": "u1", "aud": []any{"api", "billing"}, "iss": issuer, "jti": c.TokenID, "auth_time": now,
	}
	for _, hint := range []string{"", "&token_type_hint=access_token", "&token_type_hint=refresh_token"} {
		r := fx.post(t, "/introspect", asBackend+"token="+tokens.Access+hint)
		require.Equal(t, 200, r.status, r.text)
		require.Equal(t, want, r.fields(t))
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
	}

	authtest.Tokens(t, fx.Authenticator, auth.User{ID: "u2"})
	acting, err := fx.StartSession(t.Context(), "u2", auth.SessionOptions{Actor: "u1"})
	require.NoError(t, err)
	m := fx.post(t, "/introspect", asBackend+"token="+acting.Access).fields(t)
	require.Equal(t, map[string]any{"sub": "u1"}, m["act"], "a service must know that another user acts")
	require.Equal(t, "u2", m["sub"])
	require.NotContains(t, m, "scope")
	require.NotContains(t, m, "username")
}

func TestIntrospect_SaysNothingAboutOtherTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()})
	expired := fx.login(t).Access
	fx.Clock.Advance(15 * time.Minute)
	revoked, live := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(t.Context(), "u1", revoked.SessionID))
	for name, token := range map[string]string{
		"expired": expired, "revoked": revoked.Access, "a refresh token": live.Refresh, "not a token": "x", "changed": live.Access + "A",
		"of another issuer": authtest.Tokens(t, authtest.New(t, auth.Config{}), ada).Access,
		"NUL":               "%00", "not UTF-8": "%ff", "long": strings.Repeat("a", 9000),
	} {
		r := fx.post(t, "/introspect", asBackend+"token="+token)
		require.Equal(t, 200, r.status, name)
		require.Equal(t, "{\"active\":false}\n", r.text, name)
	}
	fx.post(t, "/introspect", asBackend).requireRefused(t, 400, "invalid_request")
	require.Equal(t, 200, fx.post(t, "/introspect", asBackend+"token="+live.Access).status)
}

func TestIntrospect_AnOutageIsNotInactive(t *testing.T) {
	t.Parallel()
	store := auth.NewMemoryStore()
	a, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{"api"}, Secrets: [][]byte{[]byte("0123456789abcdef0123456789ABCDEF")}, TokenCacheSize: -1,
		Users: oneUser{}, Store: struct{ auth.Store }{store}, OnEvent: func(context.Context, auth.Event) {}, // Run is not called, so no revocations are known
	})
	require.NoError(t, err)
	h, err := oauth.Handler(a, oauth.Config{URL: issuer, Clients: newClients()})
	require.NoError(t, err)
	tokens, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	send(t, h, "POST", "/introspect", asBackend+"token="+tokens.Access).requireRefused(t, 503, "temporarily_unavailable")
	require.Equal(t, 200, send(t, h, "POST", "/introspect", asBackend+"token=x").status)
}

type oneUser struct{}

func (oneUser) FindByLogin(context.Context, string) (auth.User, error) { return ada, nil }
func (oneUser) FindByID(context.Context, string) (auth.User, error)    { return ada, nil }

func TestIntrospect_NeedsAClientWithASecret(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	token := fx.login(t).Access
	fx.post(t, "/introspect", asBackend+"token="+token).requireRefused(t, 404, "not_found")
	for _, public := range []bool{false, true} {
		fx := newFixture(t, oauth.Config{Clients: newClients(), PublicClients: public})
		for _, form := range []string{"", "client_id=backend&", "client_id=backend&client_secret=&", "client_id=app&"} {
			r := fx.post(t, "/introspect", form+"token="+token)
			require.Equal(t, "the client must authenticate with its secret", r.requireRefused(t, 401, "invalid_client"))
			require.Equal(t, []string{`Basic realm="oauth"`}, r.header["Www-Authenticate"])
		}
		fx.post(t, "/introspect", "token="+token, "Authorization", "Bearer "+token).requireRefused(t, 401, "invalid_client")
	}
}

// The metadata is that of the configuration, and what is described is there.
func TestMetadata_DescribesWhatIsServed(t *testing.T) {
	t.Parallel()
	public := []any{"none"}
	secret := []any{"client_secret_basic", "client_secret_post"}
	for name, c := range map[string]struct {
		config  oauth.Config
		methods []any
		more    map[string]any
	}{
		"public clients": {oauth.Config{URL: "https://example.com/oauth"}, public, nil},
		"clients with a secret": {
			oauth.Config{URL: "https://example.com/oauth/", Clients: newClients(), JWKS: "https://example.com/auth/jwks.json"}, secret,
			map[string]any{"introspection_endpoint": "https://example.com/oauth/introspect", "introspection_endpoint_auth_methods_supported": secret, "jwks_uri": "https://example.com/auth/jwks.json"},
		},
		"both": {
			oauth.Config{URL: "https://example.com/oauth", Clients: newClients(), PublicClients: true}, append(append([]any{}, secret...), "none"),
			map[string]any{"introspection_endpoint": "https://example.com/oauth/introspect", "introspection_endpoint_auth_methods_supported": secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, c.config)
			want := map[string]any{
				"issuer": issuer, "token_endpoint": "https://example.com/oauth/token", "token_endpoint_auth_methods_supported": c.methods,
				"grant_types_supported": []any{"refresh_token"}, "response_types_supported": []any{},
				"revocation_endpoint": "https://example.com/oauth/revoke", "revocation_endpoint_auth_methods_supported": c.methods,
			}
			for k, v := range c.more {
				want[k] = v
			}
			r := send(t, fx, "GET", "/.well-known/oauth-authorization-server", "")
			require.Equal(t, 200, r.status)
			require.Equal(t, want, r.fields(t))
			require.Equal(t, "application/json", r.header.Get("Content-Type"))
			require.Equal(t, "public, max-age=300", r.header.Get("Cache-Control"))
			require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
			require.True(t, json.Valid([]byte(r.text)))

			// Every endpoint and method that is described is served, and no other.
			for _, endpoint := range []string{"token", "revocation", "introspection"} {
				path := map[string]string{"token": "/token", "revocation": "/revoke", "introspection": "/introspect"}[endpoint]
				methods, described := want[endpoint+"_endpoint_auth_methods_supported"].([]any)
				for method, credentials := range map[string][2]string{
					"none":                {"", ""},
					"client_secret_post":  {asBackend, ""},
					"client_secret_basic": {"", "Basic YmFja2VuZDpzM2NyZXQtczNjcmV0LXMzY3JldA=="},
				} {
					form := credentials[0] + refreshForm("x") + "&token=x"
					r := fx.post(t, path, form)
					if credentials[1] != "" {
						r = fx.post(t, path, form, "Authorization", credentials[1])
					}
					accepted := described && contains(methods, method)
					require.Equal(t, accepted, r.status == 200 || strings.Contains(r.text, "invalid_grant"), "%s with %s: %s", endpoint, method, r.text)
				}
			}
		})
	}
}

func contains(list []any, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func TestMetadata_CanBeCached(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	const path = "/.well-known/oauth-authorization-server"
	full := send(t, fx, "GET", path, "")
	tag := full.header.Get("ETag")
	require.Regexp(t, `^"[\w-]{16}"$`, tag)
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		r := send(t, fx, "GET", path, "", "If-None-Match", match)
		require.Equal(t, 304, r.status)
		require.Empty(t, r.text)
		require.Equal(t, tag, r.header.Get("ETag"))
	}
	require.Equal(t, full.text, send(t, fx, "GET", path, "", "If-None-Match", `"x"`).text)
	head := send(t, fx, "HEAD", path, "")
	require.Equal(t, 200, head.status)
	require.Empty(t, head.text)
	require.NotEqual(t, tag, send(t, newFixture(t, oauth.Config{Clients: newClients()}), "GET", path, "").header.Get("ETag"))
}

// RFC 8414 section 3.1 inserts the well-known path before that of the issuer.
func TestMetadata_IsAtThePathOfTheIssuer(t *testing.T) {
	t.Parallel()
	for of, path := range map[string]string{
		"https://example.com":          "",
		"https://example.com/":         "",
		"https://example.com/tenant":   "/tenant",
		"https://example.com/tenant/":  "/tenant",
		"https://example.com/a/b":      "/a/b",
		"https://example.com/a%2fb":    "/a%2fb",
		"http://localhost:8080/tenant": "/tenant",
	} {
		fx := newFixture(t, oauth.Config{}, func(c *auth.Config) { c.Issuer = of })
		r := send(t, fx, "GET", "/.well-known/oauth-authorization-server"+path, "")
		require.Equal(t, 200, r.status, of)
		require.Equal(t, of, r.fields(t)["issuer"])
		if path != "" {
			send(t, fx, "GET", "/.well-known/oauth-authorization-server", "").requireRefused(t, 404, "not_found")
			send(t, fx, "GET", path+"/.well-known/oauth-authorization-server", "").requireRefused(t, 404, "not_found")
		}
	}
}

func TestHandler_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	good := authtest.New(t, auth.Config{Issuer: issuer}).Authenticator
	_, err := oauth.Handler(nil, oauth.Config{URL: issuer})
	require.EqualError(t, err, "oauth: the Authenticator is nil; create it with auth.New")
	_, err = oauth.Handler(&auth.Authenticator{}, oauth.Config{URL: issuer})
	require.EqualError(t, err, "oauth: the Authenticator is nil; create it with auth.New")
	_, err = oauth.Handler(good, oauth.Config{})
	require.EqualError(t, err, "oauth: Config.URL is empty; set it to the address of the endpoints, such as https://example.com/oauth")
	_, err = oauth.Handler(good, oauth.Config{URL: "x", JWKS: "y", Clients: (*clients)(nil)})
	require.EqualError(t, err, `oauth: Config.URL "x" is not a URL such as https://example.com`+"\n"+
		`oauth: Config.JWKS "y" is not a URL such as https://example.com`+"\n"+
		"oauth: Config.Clients is a nil *oauth_test.clients; create the value before you pass it")
	_, err = oauth.Handler(good, oauth.Config{URL: issuer, Clients: mapClients(nil)})
	require.ErrorContains(t, err, "oauth: Config.Clients is a nil oauth_test.mapClients")
	for value, want := range map[string]string{
		"https://example.com":             "",
		"https://example.com:8443/oauth/": "",
		"http://localhost:8080/oauth":     "",
		"http://quickstart.localhost":     "",
		"http://[::1]/oauth":              "",
		"http://127.255.255.254":          "",
		"http://128.0.0.1":                "must be an https URL",
		"http://[::2]":                    "must be an https URL",
		"http://example.com/oauth":        "must be an https URL",
		"http://localhost.example.com":    "must be an https URL",
		"example.com/oauth":               "is not a URL",
		"/oauth":                          "is not a URL",
		"https:///oauth":                  "is not a URL",
		"ftp://example.com":               "is not a URL",
		"https://example.com/%zz":         "is not a URL",
		"https://example.com/?":           "must not have a user, a query or a fragment",
		"https://example.com/?a=b":        "must not have a user, a query or a fragment",
		"https://example.com/#":           "must not have a user, a query or a fragment",
		"https://u:p@example.com/":        "must not have a user, a query or a fragment",
	} {
		for _, f := range []func() error{
			func() error { _, err := oauth.Handler(good, oauth.Config{URL: value}); return err },
			func() error { _, err := oauth.Handler(good, oauth.Config{URL: issuer, JWKS: value}); return err },
			func() error {
				_, err := oauth.Handler(authtest.New(t, auth.Config{Issuer: value}).Authenticator, oauth.Config{URL: issuer})
				return err
			},
			func() error { _, err := oauth.ResourceHandler(good.Verifier, oauth.Resource{URL: value}); return err },
			func() error {
				_, err := oauth.ResourceHandler(good.Verifier, oauth.Resource{URL: issuer, AuthorizationServers: []string{issuer, value}})
				return err
			},
		} {
			if err := f(); want == "" {
				require.NoError(t, err, value)
			} else {
				require.ErrorContains(t, err, want, value)
			}
		}
	}
	_, err = oauth.Handler(authtest.New(t, auth.Config{Issuer: "my service"}).Authenticator, oauth.Config{URL: issuer})
	require.EqualError(t, err, `oauth: auth.Config.Issuer "my service" is not a URL such as https://example.com`)
}

// mapClients has a method that accepts a nil map.
type mapClients map[string]string

func (mapClients) CheckClient(context.Context, string, string) error { return nil }

func TestResourceHandler_DescribesTheResource(t *testing.T) {
	t.Parallel()
	v := authtest.New(t, auth.Config{}).Verifier
	h, err := oauth.ResourceHandler(v, oauth.Resource{URL: "https://api.example.com/mcp", AuthorizationServers: []string{issuer}, Scopes: []string{"read", "pay"}})
	require.NoError(t, err)
	r := send(t, h, "GET", "/.well-known/oauth-protected-resource/mcp", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, map[string]any{
		"resource": "https://api.example.com/mcp", "authorization_servers": []any{issuer}, "scopes_supported": []any{"read", "pay"},
		"bearer_methods_supported": []any{"header"},
	}, r.fields(t))
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
	require.Equal(t, "public, max-age=300", r.header.Get("Cache-Control"))
	require.NotEmpty(t, r.header.Get("ETag"))
	send(t, h, "POST", "/", "").requireRefused(t, 405, "invalid_request")

	h, err = oauth.ResourceHandler(v, oauth.Resource{URL: "https://api.example.com"})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"resource": "https://api.example.com", "bearer_methods_supported": []any{"header"}},
		send(t, h, "GET", "/", "").fields(t), "nothing that is empty (RFC 9728 section 3.2)")

	_, err = oauth.ResourceHandler(nil, oauth.Resource{URL: issuer})
	require.EqualError(t, err, "oauth: the Verifier is nil; create it with auth.NewVerifier or auth.New")
	_, err = oauth.ResourceHandler(v, oauth.Resource{Scopes: []string{"a", "", "a b", `"`}})
	require.EqualError(t, err, `oauth: Resource.URL "" is not a URL such as https://example.com`+"\n"+
		`oauth: Resource.Scopes[1] "" is not a scope (RFC 6749 section 3.3)`+"\n"+
		`oauth: Resource.Scopes[2] "a b" is not a scope (RFC 6749 section 3.3)`+"\n"+
		`oauth: Resource.Scopes[3] "\"" is not a scope (RFC 6749 section 3.3)`)
}
