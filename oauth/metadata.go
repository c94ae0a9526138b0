package oauth

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// serverMetadata is the metadata of an authorization server (RFC 8414 section 2).
// There is no authorization endpoint. response_types_supported is required, and so it
// is in the document although it is empty.
type serverMetadata struct {
	Issuer                   string   `json:"issuer"`
	TokenEndpoint            string   `json:"token_endpoint"`
	TokenAuthMethods         []string `json:"token_endpoint_auth_methods_supported"`
	GrantTypes               []string `json:"grant_types_supported"`
	ResponseTypes            []string `json:"response_types_supported"`
	RevocationEndpoint       string   `json:"revocation_endpoint"`
	RevocationAuthMethods    []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionEndpoint    string   `json:"introspection_endpoint,omitempty"`
	IntrospectionAuthMethods []string `json:"introspection_endpoint_auth_methods_supported,omitempty"`
	JWKS                     string   `json:"jwks_uri,omitempty"`
}

func (h *handler) serverMetadata(c Config) serverMetadata {
	base := strings.TrimRight(c.URL, "/")
	m := serverMetadata{
		Issuer: h.a.Issuer(), TokenEndpoint: base + "/token", GrantTypes: []string{"refresh_token"}, ResponseTypes: []string{},
		RevocationEndpoint: base + "/revoke", JWKS: c.JWKS,
	}
	var methods []string
	if h.clients != nil {
		methods = []string{"client_secret_basic", "client_secret_post"}
		m.IntrospectionEndpoint, m.IntrospectionAuthMethods = base+"/introspect", methods
	}
	if h.publicClients {
		methods = append(methods[:len(methods):len(methods)], "none")
	}
	m.TokenAuthMethods, m.RevocationAuthMethods = methods, methods
	return m
}

// Resource is the configuration of [ResourceHandler].
type Resource struct {
	_ [0]func() // keyed literals only

	// URL identifies the protected resource (RFC 9728 section 1.2), such as
	// https://api.example.com/mcp. The rules are those of Config.URL.
	URL string

	// AuthorizationServers are the issuers of the tokens that the resource accepts.
	AuthorizationServers []string

	// Scopes are the scopes of the resource. They may be empty.
	Scopes []string
}

// ResourceHandler returns a handler of GET for the metadata of a protected resource
// (RFC 9728 section 3.2). v is the Verifier of the resource, or that of its
// Authenticator, and receives errors. The URL of the document is
// [auth.VerifierConfig].ResourceMetadata, so that every challenge names it. It is the
// URL of the resource, with /.well-known/oauth-protected-resource before the path:
//
//	mux.Handle("/.well-known/oauth-protected-resource/mcp", h) // for https://api.example.com/mcp
//
// The error joins every mistake in c.
func ResourceHandler(v *auth.Verifier, c Resource) (http.Handler, error) {
	if v == nil {
		return nil, errors.New("oauth: the Verifier is nil; create it with auth.NewVerifier or auth.New")
	}
	var errs []error
	if _, err := parseURL(c.URL); err != nil {
		errs = append(errs, fmt.Errorf("oauth: Resource.URL %+q %w", c.URL, err))
	}
	for i, issuer := range c.AuthorizationServers {
		if _, err := parseURL(issuer); err != nil {
			errs = append(errs, fmt.Errorf("oauth: Resource.AuthorizationServers[%d] %+q %w", i, issuer, err))
		}
	}
	for i, scope := range c.Scopes {
		if !isScope(scope) || scope == "" || strings.Contains(scope, " ") {
			errs = append(errs, fmt.Errorf("oauth: Resource.Scopes[%d] %+q is not a scope (RFC 6749 section 3.3)", i, scope))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return newDocument(v, struct {
		Resource             string   `json:"resource"`
		AuthorizationServers []string `json:"authorization_servers,omitempty"`
		Scopes               []string `json:"scopes_supported,omitempty"`
		BearerMethods        []string `json:"bearer_methods_supported"`
	}{c.URL, c.AuthorizationServers, c.Scopes, []string{"header"}}), nil
}

// reporter is an Authenticator or a Verifier.
type reporter interface {
	ReportError(r *http.Request, err error, code string) auth.ErrorResponse
}

// documentAge is how long clients may cache a document of metadata.
const documentAge = "public, max-age=300"

// newDocument returns a handler of GET for a document that never changes.
func newDocument(a reporter, v any) http.Handler {
	body, _ := json.Marshal(v) // strings and lists of them cannot fail
	sum := sha256.Sum256(body)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			writeError(a, w, r, methodNotAllowed(http.MethodGet, http.MethodHead)(w, r))
			return
		}
		w.Header().Set("Cache-Control", documentAge)
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}
