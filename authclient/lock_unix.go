//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package authclient

import (
	"errors"
	"os"
	"syscall"
)

// lockedToRead is false because a file is replaced in one step, also while it is
// read.
const lockedToRead = false

// tryLock locks a file, which it creates if necessary. It returns nil if it is
// locked. The lock ends when the file is closed, at the latest with the process.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	return nil, err
}

// syncFolder makes the renaming or removal of a file survive a power failure.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
