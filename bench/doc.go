// Package bench measures package auth beside other libraries on the same work:
// a handler that is only for signed-in users, the requests that it refuses, and
// refreshes, in memory and on servers of its own; and it weighs sessions.
//
// It is a module of its own, outside the work space, so that the requirements
// of the others reach nothing else. Run it by the script run, which writes
// docs/performance.md.
package bench
