// Package protocol has a test that plays the histories in the folder protocol of the
// repository, whose README.md defines their format, against the real handlers on every
// store.
//
// Another test changes one expected value at a time, and requires that the history then
// fails.
package protocol
