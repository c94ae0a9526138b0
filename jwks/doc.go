// Package jwks verifies tokens with the public keys that another service
// publishes as a JSON Web Key Set at a URL (RFC 7517 section 5).
// [auth.Authenticator.JWKSHandler] serves such a set.
//
//	keys, err := jwks.New(jwks.Config{URL: "https://example.com/auth/jwks.json"})
//	go keys.Run(ctx)
//	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: …, Audience: …, Keys: keys})
//
// [auth.Verifier] accepts only tokens that package auth has issued. For the
// tokens of other issuers use another library: github.com/coreos/go-oidc for ID
// tokens of OpenID Connect providers, or github.com/golang-jwt/jwt with
// github.com/MicahParks/keyfunc.
//
// # When the key set is fetched
//
// A key set is used for the lifetime that its publisher gives: Cache-Control
// max-age less Age, at least 5 seconds and at most a day. The default is 5
// minutes. [KeySet.Run] fetches the set again after about three quarters of the
// lifetime, so that no request waits for it. Without Run, the first request
// after the lifetime waits for the new set.
//
// A token with an unknown kid also causes a fetch, at most once per
// Config.MinRefresh, however many such tokens there are. Requests that need the
// set at the same time wait for the same fetch, at most for Config.Timeout.
//
// # When a fetch fails
//
// The last key set is used for Config.MaxStale beyond its lifetime. After that,
// or if there was none, VerifyKeys returns an error and [auth.Verifier] returns
// [auth.ErrUnavailable] (503): an outage of the publisher signs no user out.
// While Run is running, or if no usable key set is left, a fetch that failed is
// retried after one second, two, four and so on, up to MinRefresh. Otherwise it
// is retried after MinRefresh. Until then calls return at once.
//
// # Which keys are accepted
//
// KeySet accepts public keys that [auth.ParseJWK] accepts. Each verifies one
// algorithm: the one that its "alg" names, or the usual one for its type. An RSA
// key without "alg" verifies PS256. RS384, RS512, PS384 and PS512 are accepted
// too, and so is "Ed25519" (RFC 9864), which means EdDSA. KeySet skips a key of
// another type, curve, algorithm or use, a malformed key, and a key that is
// published with its private part. Config.OnEvent reports each skipped key and
// the reason; the other keys are used.
//
// A member that is null or empty counts as absent. Member names are
// case-sensitive and must be unique. A set with more than 64 accepted keys or
// more than 512 KiB is rejected. A well-formed set without keys is valid: with
// it no token verifies. Config.OnEvent reports it.
//
// A token without a kid is tried with every key if the set has at most 8 keys.
// With a larger set it is refused.
package jwks
