//go:build unix

package sqlitestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// guardDir returns an error if another user may write to the directory of the
// file: such a user could replace the file or its log. A directory such as /tmp
// is refused too. There another user cannot delete the file, but can create its
// log before SQLite does.
//
// The directory must belong to the user of this process or to root. A group may
// have write permission if it is the user's private group, which on many
// systems has the same number as the user. Root has no private group.
func guardDir(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", path, cause(err))
	}
	stat, user := info.Sys().(*syscall.Stat_t), os.Geteuid()
	mode := info.Mode().Perm()
	if user != 0 && int(stat.Gid) == user && os.Getegid() == user {
		mode &^= 0o020
	}
	switch {
	case mode&0o022 != 0:
		return fmt.Errorf(
			"the directory %s has mode %s: others may write to it and could replace the file; use a directory that only its owner may write to "+
				"(chmod go-w)", dir, info.Mode())
	case int(stat.Uid) != user && stat.Uid != 0:
		return fmt.Errorf(
			"the directory %s belongs to the user %d, who could replace the file; it must belong to %d, the user of this process, or to root", dir, stat.Uid, user)
	}
	return nil
}

// guardFile returns an error if another user may write to the file or to
// SQLite's other files: such a user could restore sessions that were revoked,
// or add sessions. The owner must be the user of this process, even if that is
// root.
func guardFile(path string) error {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := guardDir(resolved); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		info, err := os.Lstat(resolved + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			return err
		}
		stat, user := info.Sys().(*syscall.Stat_t), os.Geteuid()
		switch {
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file", resolved+suffix)
		case info.Mode().Perm()&0o022 != 0:
			return fmt.Errorf(
				"%s has mode %s: others may write to it; allow only its owner (chmod go-w), "+
					"and if others may have written to it, delete it, which signs all users out", resolved+suffix, info.Mode())
		case int(stat.Uid) != user:
			return fmt.Errorf("%s belongs to the user %d, who may write to it; it must belong to %d, the user of this process", resolved+suffix, stat.Uid, user)
		}
	}
	return nil
}
