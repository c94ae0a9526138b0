// Package protocol has a test that plays the histories in the folder protocol of the
// repository, whose README.md defines their format, against the real handlers on every
// store.
//
// Those in the folder protocol/client are played with package authclient.
//
// Other tests change one expected value at a time, and require that the history then
// fails.
package protocol
