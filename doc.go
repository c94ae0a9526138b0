// Package auth is login by password, short JWT access tokens and rotating JWT
// refresh tokens for servers on net/http.
//
// [New] makes an [Authenticator] from a [Config]; its Require method wraps a
// handler:
//
//	a, err := auth.New(auth.Config{
//		Issuer:   "https://example.com",
//		Audience: []string{"https://api.example.com"},
//		Secrets:  [][]byte{secret}, // 32 random bytes or more
//		Users:    users,            // the application's lookup
//		Cookies:  &auth.Cookies{},  // nil: bodies and headers only
//	})
//	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
//	mux.Handle("GET /me", a.Require()(me))
//	mux.Handle("POST /pay", a.Require(auth.Role("admin"), auth.Fresh(5*time.Minute))(pay))
//
// In the handler, [FromContext] gives the [Claims].
//
// # Tokens
//
// An access token is a JWT (RFC 9068) that lives for minutes and is verified
// without I/O. A refresh token is a JWT of another type under another key; it
// names its session and its generation, and only the refresh endpoint takes
// it. Neither passes for the other.
//
// # Sessions
//
// A session is one signed-in device, and one record in the [Store]. Every
// refresh moves it on by one generation and spends the token that was
// presented. For the retry window, ten seconds, the same token gets the same
// answer again, so that a second tab or a lost answer signs nobody out; after
// it, a spent token means that two parties hold it, and ends the session. A
// session that has just moved rests for three windows, and answers with the
// same refresh token until then.
//
// Sessions end when they are idle, at an absolute age, by logout, and by
// [Authenticator.Revoke] and its relatives. Their access tokens end with them:
// at once in this process, elsewhere as soon as [Verifier.Run] has read the
// store's [Feed].
//
// # Cookies
//
// With [Cookies], browsers hold both tokens in cookies that no script can
// read, and what came by cookie is checked for its origin. Tokens leave by the
// door they came in: a refresh token that came in a body is answered in the
// body.
//
// # Errors
//
// Errors are decided by with errors.Is; what each of them is on HTTP stands in
// one table, which [DefaultOnError] writes. A store that does not answer is
// [ErrUnavailable], a 503, and never a 401: an outage signs nobody out.
//
// # Layers
//
// Nothing is hidden behind the handlers: they are a few lines each over
// exported methods, and [Authenticator.Login], [Authenticator.Refresh] and the
// rest know nothing of HTTP. A service that only verifies needs a [Verifier].
// A store for another database is an implementation of [Store], checked by
// package storetest. Access tokens that others verify are signed by [EdDSA] or
// [ES256]; [Authenticator.SetKeys] changes keys while serving.
//
// # Compatibility
//
// Until version 1 the exported API may change with a minor version; the
// changelog says how.
package auth
