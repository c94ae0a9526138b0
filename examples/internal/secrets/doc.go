// Package secrets has a test that no secret is in a place where it does not belong.
//
// The test plays what users, applications, attackers and faults do, on every store.
// It registers each secret that is used with a name: passwords, hashes, codes,
// tokens, retry keys, and keys. It captures all logs, events, errors, responses and
// printed values, and the content of the store. Then it searches them for each secret in many
// encodings. A failure names the secret and the place, and does not print either.
package secrets
