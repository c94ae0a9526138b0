package authclient

import (
	"errors"
	"os"
	"syscall"
)

// lockedToRead is true because Windows does not replace a file while it is open.
const lockedToRead = true

// tryLock opens a file that no other process can open until it is closed, at the
// latest with the process. It returns nil if the file is open.
func tryLock(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	const errorSharingViolation = syscall.Errno(32)
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	switch {
	case err == nil:
		return os.NewFile(uintptr(h), path), nil
	case errors.Is(err, errorSharingViolation):
		return nil, nil
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: err}
}

// syncFolder does nothing: a folder cannot be synced on Windows.
func syncFolder(string) error { return nil }
