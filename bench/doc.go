// Package bench measures package auth beside other libraries on the same work:
// a handler that is only for signed-in users, and the requests that it refuses.
//
// It is a module of its own, outside the work space, so that the requirements
// of the others reach nothing else. Run it by the script run, which writes
// docs/performance.md.
package bench
