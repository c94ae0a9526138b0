// Package jwks verifies tokens by the public keys that another service
// publishes: a JSON Web Key Set at a URL (RFC 7517 section 5), such as an
// [auth.Authenticator.JWKSHandler] serves.
//
//	keys, err := jwks.New(jwks.Config{URL: "https://example.com/auth/jwks.json"})
//	go keys.Run(ctx)
//	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: …, Audience: …, Keys: keys})
//
// # When it asks
//
// A set is good for as long as its publisher says (Cache-Control max-age less
// Age, from 5 seconds to a day; 5 minutes where nothing is said). [Keys.Run]
// asks again when three quarters of that are over, so that no request waits.
// Without Run the first request after it waits for the answer. A token with an
// unknown kid asks as well, at most once in Config.MinRefresh, however many
// such tokens there are. All who need an answer wait for one and the same
// request, at most for Config.Timeout.
//
// # When there is no answer
//
// The keys that are known go on for Config.MaxStale after their time. From then
// on, or if there never were any, VerifyKeys returns an error, and
// [auth.Verifier] answers [auth.ErrUnavailable], 503: an outage of the publisher
// signs nobody out. A publisher that does not answer is asked again after one
// second, two, four and so on up to MinRefresh; until then every call returns
// at once.
//
// # What is taken
//
// Keys that [auth.ParseJWK] accepts, public ones alone, each for the one
// algorithm that its "alg" names or that is usual for its kind: an RSA key
// without "alg" is for PS256. RS384, RS512, PS384 and PS512 are taken too, and
// "Ed25519" (RFC 9864) for EdDSA. A key of another kind, curve, algorithm or
// use, one that cannot be read, and one that is published with its private half
// are left out; Config.OnError is told which and why, and the others are taken
// all the same. A member that is null or empty counts as absent. Member names count exactly, and once. More than 64 keys, or
// more than 512 KiB, are refused. A well-formed set without keys is an answer
// as well: then no token verifies.
//
// A token without a kid is tried against all keys of a set of up to 8, and is
// refused with a larger one.
package jwks
