// Package streams has tests of server-sent events and WebSockets on two nodes, which
// have a store in common: a stream of one node ends when the other node ends its
// session.
//
// How soon, in 200 trials on each store:
//
//	AUTH_STREAMS=1 go test -v -count 1 ./examples/internal/streams
package streams
