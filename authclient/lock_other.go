//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package authclient

import (
	"errors"
	"os"
)

const lockedToRead = false

// tryLock returns an error: a lock that a process leaves when it is killed would be
// worse than none.
func tryLock(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func syncFolder(string) error { return nil }
