//go:build !unix

package authclient

import "io/fs"

// private does nothing: on this system the mode of a file does not say who may read
// it.
func private(string, fs.FileInfo) error { return nil }
