// Package bench compares package auth with other libraries: requests to a
// protected handler, refused requests, refreshes with a store in memory and on
// database servers, and the size of sessions.
//
// It is a module of its own, outside the workspace, so that no other module
// depends on those libraries. The script run runs the benchmarks and writes
// docs/performance.md. The command logins measures a program while many users sign
// in at once.
package bench
