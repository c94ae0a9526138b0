// Package auth implements password login, short-lived JWT access tokens and
// rotating JWT refresh tokens for net/http servers.
//
// [New] creates an [Authenticator] from a [Config]. Its Handler method returns
// the endpoints, and its Require method wraps a handler:
//
//	a, err := auth.New(auth.Config{
//		Issuer:   "https://example.com",
//		Audience: []string{"https://api.example.com"},
//		Secrets:  [][]byte{secret}, // at least 32 random bytes
//		Users:    users,            // looks up the application's users
//		Cookies:  &auth.Cookies{},  // nil: tokens only in bodies and headers
//	})
//	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
//	mux.Handle("GET /me", a.Require()(me))
//	mux.Handle("POST /pay", a.Require(auth.Role("admin"), auth.Fresh(5*time.Minute))(pay))
//
// The wrapped handler gets the [Claims] of the token from [FromContext].
//
// # Tokens
//
// An access token is a JWT (RFC 9068) that expires within minutes and is verified
// without I/O. A refresh token is a JWT of another type, signed with another
// key. The client sends it only to refresh its tokens or to log out. An access
// token is never accepted as a refresh token, nor a refresh token as an access
// token.
//
// # Sessions
//
// A session is one signed-in device, and one record in the [Store]. A refresh
// token contains the ID of its session and a generation number, which
// starts at 1. A refresh rotates the session: it advances the generation by one
// and returns a token with the new generation. The old token is then spent.
//
// A spent token is accepted again during the retry window, which by default
// lasts 30 seconds after the rotation, and the response has the same new
// refresh token. So a second tab, or a client that lost a response, is not
// signed out. If a spent token arrives later, two parties have it, and the
// session is ended, unless a retry key proves that the same client sent both
// requests ([RefreshOptions]).
//
// After a rotation, a cooldown of three retry windows begins. A refresh with the
// new token during the cooldown returns a new access token and the same refresh
// token.
//
// A session ends when it is not refreshed for Config.IdleTTL, when it is
// Config.SessionTTL old, or at a logout. It is revoked when the application
// calls, for example, [Authenticator.Revoke]; when a spent token is presented
// after the retry window; when the user is found deleted or disabled at a
// refresh; and when a login replaces it or exceeds Config.MaxSessions. A
// revoked session's access tokens end with it: in this process at once, in
// every other process as soon as [Verifier.Run] has read the store's [Feed].
// With a [MemoryStore], sessions and access tokens also end with the process.
//
// # Cookies
//
// With [Cookies], browsers keep both tokens in cookies that no script can read,
// and the origin of a request that authenticates by cookie is checked. New tokens
// are returned the way the refresh token arrived: in cookies if it was in a
// cookie, otherwise in the body.
//
// # Failed attempts
//
// Attempts to guess a password or a code are counted by account and by source, and
// after too many of them further ones must wait; see Config.Limiter. Behind a proxy,
// set Config.TrustedProxies, or all clients are one source. Several processes count
// together if they share a [Limiter].
//
// # Errors
//
// Test errors with errors.Is. [DefaultOnError] writes an error as an HTTP
// response, and [ResponseFor] returns that response. If the store does not
// respond, the error is [ErrUnavailable] and the status is 503, never 401: an
// outage signs no user out.
//
// # Parts
//
// An application can replace each endpoint with a handler of its own: the
// operations behind them are exported methods. [Authenticator.Login],
// [Authenticator.Refresh], [Authenticator.Revoke] and [Authenticator.Logout] do
// not depend on HTTP. A service that only verifies tokens uses a [Verifier]. A
// store for another database implements [Store]; package storetest tests it. If
// other services verify the access tokens, sign them with a key pair, such as
// [EdDSA] or [ES256]. [Authenticator.SetKeys] changes keys without a restart.
//
// # Examples
//
// The package example is a complete server. Other examples show one task each:
//
//   - users in a database, with sign-up: [Users]
//   - roles and recent logins: Verifier.Require (Guards)
//   - pages for all users, signed in or not: [Verifier.Optional]
//   - a service that only verifies tokens: [NewVerifier]
//   - a login handler of the application: [Authenticator.SetCookies]
//   - pages that the server renders, with a login page: [LocalPath]
//   - sign-in by other means than a password: [Authenticator.StartSession]
//   - a second factor, with codes that are accepted once: [SecondFactor]
//   - refreshing without HTTP: [Authenticator.Refresh]
//   - a page of the user's devices: [Authenticator.Sessions]
//   - streams that end with the session: [Verifier.SessionContext]
//   - streams of clients without cookies and headers: [Authenticator.RequireStream]
//   - a unit test of a handler without its middleware: [NewContext], [Claims.WithExtra]
//   - logs and counts of events: [LogEvents]
//   - error responses in another format: Config (OnError)
//   - a change of keys: [Authenticator.SetKeys]
//   - a store for another database: [Store]
//   - CORS: Verifier.Require (IncorrectCORS)
//   - errors in a Config: New (Mistakes)
//
// Package authtest has examples of tests of protected routes.
//
// # Compatibility
//
// Before version 1, a minor version may change the exported API. The changelog
// lists each change.
package auth
