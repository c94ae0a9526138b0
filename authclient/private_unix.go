//go:build unix

package authclient

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private returns an error if other users may read or write a file. Its owner must be
// the user of this process, even if that is root, whose new file the owner could not
// read.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode(); mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %s; only its owner may read or write it (chmod 600). If others may have read it, remove it and sign in again", path, mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, but this process runs as user %d", path, stat.Uid, os.Geteuid())
	}
	return nil
}
