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

// guardFolder returns an error if somebody else may write the folder of the
// file: whoever may can put another file, or another log, in its place. That
// holds for a folder such as /tmp too, where others cannot remove the file, but
// can make its log before SQLite does.
//
// The folder belongs to the user of this process, or to root. It may be
// writable by a group if that is the user's private one, which has the number of
// the user, as many systems arrange it; root has none.
func guardFolder(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", path, unnamed(err))
	}
	stat, user := info.Sys().(*syscall.Stat_t), os.Geteuid()
	mode := info.Mode().Perm()
	if user != 0 && int(stat.Gid) == user && os.Getegid() == user {
		mode &^= 0o020
	}
	switch {
	case mode&0o022 != 0:
		return fmt.Errorf("the folder %s has mode %s: others may write it, and could replace the file; use one that only its owner may write (chmod go-w)", dir, info.Mode())
	case int(stat.Uid) != user && stat.Uid != 0:
		return fmt.Errorf("the folder %s belongs to the user %d, who could replace the file, and not to %d, the user of this process; use one of this user, or run as the other", dir, stat.Uid, user)
	}
	return nil
}

// guardFile returns an error if somebody else may write the file, or what SQLite
// keeps beside it: whoever may can bring back sessions that were revoked, or add
// some. The owner must be the user of this process also where that is root:
// what belongs to another user is what that user may write.
func guardFile(path string) error {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := guardFolder(resolved); err != nil {
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
			return fmt.Errorf("%s has mode %s: others may write it; only its owner may (chmod go-w), and if somebody has, remove it, which signs everybody out", resolved+suffix, info.Mode())
		case int(stat.Uid) != user:
			return fmt.Errorf("%s belongs to the user %d, who may write it, and not to %d, the user of this process; run as its owner, or change that", resolved+suffix, stat.Uid, user)
		}
	}
	return nil
}
