package authclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FileStore is a [Store] in a file, whose path it is. The folder must exist. The
// file is replaced in one step, and synced, so that a crash or a power failure leaves either
// the old tokens or the new ones. Several processes may share it: the lock is that
// of a second file, with the suffix ".lock", which stays. It ends with the process
// that has it. A third file, with the suffix ".new", may be left by a crash; the
// next Update replaces it.
//
// The files have mode 0600. On Unix, a file is refused if other users may read or
// write it, or if it belongs to another user: whoever could read it may have the
// tokens. A symbolic link is refused, because it would be replaced. On Windows the
// access rights are those of the folder.
//
// The folder must support locks, as local file systems do. On Plan 9, AIX, Solaris and
// WebAssembly, where the standard library has no suitable lock, Update returns an error
// that wraps [errors.ErrUnsupported].
type FileStore string

// Load returns the text of the file, or nil if there is no file.
func (s FileStore) Load(ctx context.Context) ([]byte, error) {
	if lockedToRead {
		unlock, err := s.lock(ctx)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	return s.read()
}

func (s FileStore) read() ([]byte, error) {
	info, err := os.Lstat(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", s)
	}
	if err == nil {
		err = private(string(s), info)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Update replaces the text of the file.
func (s FileStore) Update(ctx context.Context, f func([]byte) ([]byte, error)) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := s.read()
	if err != nil {
		return err
	}
	text, err := f(old)
	switch {
	case err != nil, bytes.Equal(text, old):
		return err
	case len(text) == 0:
		err = os.Remove(string(s))
	default:
		err = s.write(text)
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(string(s)))
}

// write replaces the file. The caller has the lock, so no other process uses the
// temporary file.
func (s FileStore) write(text []byte) error {
	temporary := string(s) + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, string(s))
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// lock waits for the lock of the file. Waiting in the kernel could not be ended by
// ctx, so lock tries again and again.
func (s FileStore) lock(ctx context.Context) (unlock func(), err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		f, err := tryLock(string(s) + ".lock")
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", s, err)
		}
		if f != nil {
			return func() { _ = f.Close() }, nil
		}
		timer := time.NewTimer(jittered(wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("waiting for the lock of %s: %w", s, context.Cause(ctx))
		}
	}
}
