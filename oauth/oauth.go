package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"

	"github.com/ratchet-go/auth"
)

// Config configures [Handler]. URL is required. Handler copies the Config, so later
// changes to it have no effect.
type Config struct {
	_ [0]func() // keyed literals only

	// URL is the address under which clients reach the endpoints, without the
	// names of the endpoints: with https://example.com/oauth, the token endpoint is
	// https://example.com/oauth/token. It is an https URL, or an http URL of a
	// loopback host, and has no query and no fragment. It is only used in the
	// metadata; the handler does not examine the host of requests.
	URL string

	// JWKS is the address of [auth.Authenticator.JWKSHandler], for the metadata.
	// The rules are those of URL. Empty means that the metadata has none, as is
	// right if access tokens are signed with a secret.
	JWKS string

	// Clients authenticates the clients that have a secret. If it is nil, there are
	// no such clients: the endpoints serve everyone who has a token, and there is no
	// introspection, because its callers must authenticate (RFC 7662 section 2.1).
	// It must not be a nil pointer, map, slice or function.
	Clients Clients

	// PublicClients also serves clients without a secret if Clients is set, such as
	// apps next to a backend that introspects tokens. They use the token and the
	// revocation endpoint, with a client_id or without one: it is not examined,
	// since everyone can send it. Without PublicClients, every request to an
	// endpoint needs the secret of a client.
	PublicClients bool
}

// Clients authenticates clients of the application, which are programs with a secret
// (confidential clients, RFC 6749 section 2.1). It is called concurrently.
type Clients interface {
	// CheckClient returns nil if a client has the ID and the secret, and an error
	// that wraps [auth.ErrInvalidCredentials] if there is no such client or it has
	// another secret. Any other error means that the check failed: the response is
	// status 503, and nothing is decided. The ID and the secret are 1 to 1024
	// printable ASCII characters (RFC 6749 appendix A).
	//
	// The context ends after Config.HookTimeout of package auth. A call that panics or
	// does not return is a failure too; see [auth.Authenticator.CallHook].
	//
	// A secret has at least 16 random bytes. So it can be stored as its SHA-256,
	// which costs less than a hash for passwords, and compared in constant time.
	// Compare the secret of an unknown client too, with any value, so that the time
	// does not say which clients exist. See the example.
	CheckClient(ctx context.Context, id, secret string) error
}

// handler is the result of Handler.
type handler struct {
	a             *auth.Authenticator
	clients       Clients
	publicClients bool
	known         *knownClients
	metadata      http.Handler
	metadataPath  string
}

// metadataPath is the path of the metadata for an issuer without a path.
const metadataPath = "/.well-known/oauth-authorization-server"

// Handler returns a handler of the endpoints, to be registered under a prefix and at
// the address of its metadata:
//
//	h, err := oauth.Handler(a, oauth.Config{URL: "https://example.com/oauth"})
//	mux.Handle("/oauth/", http.StripPrefix("/oauth", h))
//	mux.Handle("/.well-known/oauth-authorization-server", h)
//
// The endpoints are:
//
//   - POST /token refreshes a session (RFC 6749 section 6), as
//     [auth.Authenticator.RefreshHandler] does. It reads the parameters grant_type,
//     refresh_token and scope, and a retry key in the header Refresh-Key.
//   - POST /revoke ends the session of an access or refresh token, so that all its
//     tokens end (RFC 7009). The response is the same for tokens that are not valid.
//   - POST /introspect describes an access token (RFC 7662). Any other token,
//     including a refresh token, is not active. Without Config.Clients there is no
//     such endpoint.
//   - GET /.well-known/oauth-authorization-server returns the metadata (RFC 8414).
//     If the issuer of a has a path, the path of the metadata ends with it
//     (RFC 8414 section 3.1): for the issuer https://example.com/tenant, register
//     the handler at /.well-known/oauth-authorization-server/tenant.
//
// The body of a POST is application/x-www-form-urlencoded, of at most 16 KiB. A
// parameter that is read must occur once, and not in the URL; others are ignored.
// Tokens in cookies and in the header Refresh-Token are not read. Errors are JSON as
// in RFC 6749 section 5.2, whatever Config.OnError of package auth is, and the events
// are those of package auth. Clients that send wrong secrets get status 429 after some
// attempts, with the error too_many_attempts and Retry-After.
//
// scope is ignored (RFC 6749 section 3.3), because a session always has the scopes of
// its user. The response names them, so a client sees what it has got.
//
// The error joins every mistake in c. It is also an error if the issuer of a is not an
// https URL, or an http URL of a loopback host, without a query and a fragment.
func Handler(a *auth.Authenticator, c Config) (http.Handler, error) {
	if a == nil || a.Verifier == nil {
		return nil, errors.New("oauth: the Authenticator is nil; create it with auth.New")
	}
	var errs []error
	issuer, err := parseURL(a.Issuer())
	if err != nil {
		errs = append(errs, fmt.Errorf("oauth: auth.Config.Issuer %+q %w", a.Issuer(), err))
	}
	if c.URL == "" {
		errs = append(errs, errors.New("oauth: Config.URL is empty; set it to the address of the endpoints, such as https://example.com/oauth"))
	} else if _, err := parseURL(c.URL); err != nil {
		errs = append(errs, fmt.Errorf("oauth: Config.URL %+q %w", c.URL, err))
	}
	if c.JWKS != "" {
		if _, err := parseURL(c.JWKS); err != nil {
			errs = append(errs, fmt.Errorf("oauth: Config.JWKS %+q %w", c.JWKS, err))
		}
	}
	if c.Clients != nil && isNil(c.Clients) {
		errs = append(errs, fmt.Errorf("oauth: Config.Clients is a nil %T; create the value before you pass it", c.Clients))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	h := &handler{a: a, clients: c.Clients, publicClients: c.PublicClients || c.Clients == nil, known: newKnownClients()}
	h.metadata = newDocument(a, h.serverMetadata(c))
	h.metadataPath = metadataPath + strings.TrimRight(issuer.EscapedPath(), "/")
	return h, nil
}

// ServeHTTP serves the endpoints.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := h.endpoint(r)
	if endpoint == nil {
		if r.URL.EscapedPath() == h.metadataPath {
			h.metadata.ServeHTTP(w, r)
			return
		}
		endpoint = func(http.ResponseWriter, *http.Request) error {
			return &problem{http.StatusNotFound, "not_found", "there is no such endpoint", ""}
		}
	} else if r.Method != http.MethodPost {
		endpoint = methodNotAllowed(http.MethodPost)
	}
	if err := endpoint(w, r); err != nil {
		writeError(h.a, w, r, err)
	}
}

// endpoint returns the endpoint with the path of r, or nil.
func (h *handler) endpoint(r *http.Request) func(http.ResponseWriter, *http.Request) error {
	switch "/" + strings.TrimPrefix(r.URL.Path, "/") {
	case "/token":
		return h.token
	case "/revoke":
		return h.revoke
	case "/introspect":
		if h.clients != nil {
			return h.introspect
		}
	}
	return nil
}

func (h *handler) token(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	if err := h.authenticate(r, f, false); err != nil {
		return err
	}
	switch {
	case f["grant_type"] == "":
		return missing("grant_type")
	case f["grant_type"] != "refresh_token":
		return &problem{http.StatusBadRequest, "unsupported_grant_type", "the only grant_type is refresh_token", ""}
	case f["refresh_token"] == "":
		return missing("refresh_token")
	case !isScope(f["scope"]):
		return &problem{http.StatusBadRequest, "invalid_scope", "scope is malformed", ""}
	}
	token, o, err := h.a.RefreshRequest(refreshRequest(r, f["refresh_token"]))
	if err != nil {
		return err
	}
	t, err := h.a.Refresh(r.Context(), token, o)
	if err != nil {
		return err
	}
	writeTokens(h.a, w, t, f["scope"] != "")
	return nil
}

// refreshRequest returns a request with the same client and retry key, and with only
// one token. The cookies are not in it: their tokens are only for
// [auth.Authenticator.RefreshHandler], which returns the next ones in cookies too.
func refreshRequest(r *http.Request, token string) *http.Request {
	only := *r
	only.Header = r.Header.Clone()
	only.Header.Del("Cookie")
	only.Header.Set("Refresh-Token", token)
	only.Body, only.ContentLength, only.Form, only.PostForm = http.NoBody, 0, nil, nil
	return &only
}

func (h *handler) revoke(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	if err := h.authenticate(r, f, false); err != nil {
		return err
	}
	if f["token"] == "" {
		return missing("token")
	}
	// A token_type_hint is not needed, and RFC 7009 section 2.1 permits to ignore it.
	if err := h.a.Logout(r.Context(), f["token"]); err != nil {
		return err
	}
	setNoStore(w.Header())
	w.WriteHeader(http.StatusOK)
	return nil
}

// introspection is the response of the introspection endpoint (RFC 7662 section 2.2).
// auth_time is from RFC 9470 section 6.2, and act from RFC 8693 section 4.1.
type introspection struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	Username  string   `json:"username,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	Exp       int64    `json:"exp,omitempty"`
	Iat       int64    `json:"iat,omitempty"`
	Sub       string   `json:"sub,omitempty"`
	Aud       []string `json:"aud,omitempty"`
	Iss       string   `json:"iss,omitempty"`
	Jti       string   `json:"jti,omitempty"`
	AuthTime  int64    `json:"auth_time,omitempty"`
	Act       *actor   `json:"act,omitempty"`
}

type actor struct {
	Sub string `json:"sub"`
}

func (h *handler) introspect(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	if err := h.authenticate(r, f, true); err != nil {
		return err
	}
	if f["token"] == "" {
		return missing("token")
	}
	c, err := h.a.Verify(r.Context(), f["token"])
	if err != nil && auth.ResponseFor(err).Status != http.StatusUnauthorized {
		return err
	}
	var answer introspection
	if err == nil {
		answer = introspection{
			Active: true, Scope: strings.Join(c.Scopes, " "), Username: c.Username, TokenType: "Bearer",
			Exp: c.ExpiresAt.Unix(), Iat: c.IssuedAt.Unix(), Sub: c.Subject, Aud: c.Audience, Iss: c.Issuer, Jti: c.TokenID,
			AuthTime: c.AuthTime.Unix(),
		}
		if c.Actor != "" {
			answer.Act = &actor{c.Actor}
		}
	}
	setNoStore(w.Header())
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// parseURL parses an https URL, or an http URL of a loopback host, without a user, a
// query or a fragment.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("is not a URL such as https://example.com")
	case u.User != nil || strings.ContainsAny(s, "?#"):
		return nil, errors.New("must not have a user, a query or a fragment (RFC 8414 section 2)")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("must be an https URL: only a loopback host may have an http URL")
	}
	return u, nil
}

// isLoopback reports whether host is a name or an address of this machine.
func isLoopback(host string) bool {
	ip, _ := netip.ParseAddr(host) // the zero address is not a loopback address
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip.IsLoopback()
}

// isNil reports whether v holds a nil value.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return r.IsNil()
	}
	return false
}
