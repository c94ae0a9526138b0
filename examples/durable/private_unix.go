//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private returns an error if somebody else may read or write the file. Its
// owner must be the user of this program also where that is root: whoever owns
// it knows the keys, or can replace them by others that they know.
func private(file string, info fs.FileInfo) error {
	if mode := info.Mode(); mode.Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %s: nobody but its owner may read or write it (chmod 600), and if somebody may have, remove it, which signs everybody out", file, mode)
	}
	if owner, user := int(info.Sys().(*syscall.Stat_t).Uid), os.Geteuid(); owner != user {
		return fmt.Errorf("%s belongs to the user %d, who knows the keys, and this program runs as the user %d: run it as the owner, or remove the file, which signs everybody out", file, owner, user)
	}
	return nil
}
