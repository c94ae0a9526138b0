// Package oauth serves the sessions of package auth to OAuth 2.0 clients: programs
// that refresh, revoke or introspect tokens with a library for OAuth, such as
// golang.org/x/oauth2, and need no code for package auth.
//
// [Handler] has four endpoints: the token endpoint (RFC 6749, with the grant
// refresh_token only), revocation (RFC 7009), introspection (RFC 7662), and the
// metadata of the server (RFC 8414). [ResourceHandler] has the metadata of a
// protected resource (RFC 9728).
//
// It is not an authorization server for other applications: there are no
// authorization codes, client credentials, device codes or token exchange, and no
// consent page. A session begins with a login of package auth, which returns the
// first tokens.
//
// Sessions belong to users, not to clients: any client that may use the token
// endpoint can refresh any refresh token that it has. Access tokens have no
// client_id.
package oauth
