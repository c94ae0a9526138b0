//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private returns an error if other users may read or write file. The owner must be
// the user of this program, even if that is root: the owner can read the keys, or
// replace them.
func private(file string, info fs.FileInfo) error {
	if mode := info.Mode(); mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %s; only its owner may read or write it (chmod 600). If others may have read it, remove it; all users are then signed out", file, mode)
	}
	if owner, user := int(info.Sys().(*syscall.Stat_t).Uid), os.Geteuid(); owner != user {
		return fmt.Errorf("%s belongs to user %d, but this program runs as user %d. Run it as the owner, or remove the file; all users are then signed out", file, owner, user)
	}
	return nil
}
