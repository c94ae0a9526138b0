// Package soak has a test that runs for as long as its flag -minutes says. Several
// hundred users sign in, use and end their sessions, on every store and on two nodes
// each. Meanwhile responses are lost, and the nodes and the servers of the stores are
// killed and started again. The test fails if a response is not one that the
// protocol allows, or if a node uses more and more memory, goroutines or files.
//
// Twenty minutes, with a plot:
//
//	go test -v -count 1 -timeout 30m ./examples/internal/soak -minutes 20 -plot docs/img/soak.svg
//
// Without -minutes it runs for a second, on a MemoryStore only.
package soak
