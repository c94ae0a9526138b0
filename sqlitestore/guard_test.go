//go:build unix

package sqlitestore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/sqlitestore"
)

// TestOpen_RefusesWritableByOthers checks the modes of the file, of SQLite's
// other files and of the directory.
func TestOpen_RefusesWritableByOthers(t *testing.T) {
	t.Parallel()
	// crashed returns a file with a log, as after a crash.
	crashed := func(t *testing.T) (path string) {
		path = filepath.Join(t.TempDir(), "sessions.db")
		s := open(t, path)
		require.NoError(t, s.Create(t.Context(), session("ada", "one")))
		content := map[string][]byte{}
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			content[name] = b
		}
		dir := t.TempDir()
		for name, b := range content {
			require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600))
		}
		return filepath.Join(dir, "sessions.db")
	}
	for _, mode := range []os.FileMode{0o620, 0o602, 0o660, 0o666, 0o622, 0o777} {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			path := crashed(t)
			if suffix == "-journal" {
				require.NoError(t, os.WriteFile(path+suffix, nil, 0o600))
			}
			require.NoError(t, os.Chmod(path+suffix, mode))
			_, err := sqlitestore.Open(path, sqlitestore.Config{})
			require.ErrorContains(t, err, "sessions.db"+suffix+" has mode ", "%s %s", suffix, mode)
			require.ErrorContains(t, err, "others may write to it", "%s %s", suffix, mode)
			require.NoError(t, os.Chmod(path+suffix, 0o600))
			_, err = open(t, path).Get(t.Context(), "ada", "one")
			require.NoError(t, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o604, 0o700, 0o755} { // others may read the file, which contains no secrets
		path := crashed(t)
		require.NoError(t, os.Chmod(path, mode))
		open(t, path)
	}
	for _, mode := range []os.FileMode{0o777, 0o707, 0o702, 0o777 | os.ModeSticky} {
		path := crashed(t)
		require.NoError(t, os.Chmod(filepath.Dir(path), mode))
		_, err := sqlitestore.Open(path, sqlitestore.Config{})
		require.ErrorContains(t, err, "others may write to it and could replace the file", mode)
		// The directories of a symbolic link and of its target are both checked.
		link := filepath.Join(t.TempDir(), "link.db")
		require.NoError(t, os.Symlink(path, link))
		_, err = sqlitestore.Open(link, sqlitestore.Config{})
		require.ErrorContains(t, err, "others may write to it and could replace the file", mode)
		good := crashed(t)
		link = filepath.Join(filepath.Dir(path), "link.db")
		require.NoError(t, os.Symlink(good, link))
		_, err = sqlitestore.Open(link, sqlitestore.Config{})
		require.ErrorContains(t, err, "others may write to it and could replace the file", mode)
		absent := filepath.Join(filepath.Dir(path), "absent.db")
		_, err = sqlitestore.Open(absent, sqlitestore.Config{})
		require.Error(t, err)
		require.NoFileExists(t, absent)
		require.NoError(t, os.Chmod(filepath.Dir(path), 0o755))
		open(t, path)
		open(t, link)
	}
	path := crashed(t)
	require.NoError(t, os.Remove(path+"-wal"))
	require.NoError(t, os.Symlink(crashed(t)+"-wal", path+"-wal"))
	_, err := sqlitestore.Open(path, sqlitestore.Config{})
	require.ErrorContains(t, err, "sessions.db-wal is not a regular file")

	// The modes are checked again when the file is reopened.
	path = crashed(t)
	s := open(t, path)
	require.NoError(t, os.Chmod(path, 0o666))
	s.Fault()
	_, err = s.Get(t.Context(), "ada", "one")
	require.ErrorContains(t, err, "others may write to it")
	require.NoError(t, os.Chmod(path, 0o600))
	_, err = s.Get(t.Context(), "ada", "one")
	require.NoError(t, err)
}

func TestOpen_RefusesOtherOwners(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("requires root, to change the owner of a file: run the tests with sudo")
	}
	const other = 65534
	path := filepath.Join(t.TempDir(), "sessions.db")
	require.NoError(t, open(t, path).Close())
	require.NoError(t, os.Chown(path, other, -1))
	_, err := sqlitestore.Open(path, sqlitestore.Config{})
	require.ErrorContains(t, err, "sessions.db belongs to the user 65534, who may write to it; it must belong to 0, the user of this process")
	require.NoError(t, os.Chown(path, 0, other)) // a group without write permission does not matter
	open(t, path)
	require.NoError(t, os.WriteFile(path+"-journal", nil, 0o600))
	require.NoError(t, os.Chown(path+"-journal", other, -1))
	_, err = sqlitestore.Open(path, sqlitestore.Config{})
	require.ErrorContains(t, err, "sessions.db-journal belongs to the user 65534")
	require.NoError(t, os.Remove(path+"-journal"))
	require.NoError(t, os.Chown(filepath.Dir(path), other, -1))
	_, err = sqlitestore.Open(path, sqlitestore.Config{})
	require.ErrorContains(t, err, "belongs to the user 65534, who could replace the file; it must belong to 0, the user of this process, or to root")
	// Root has no private group.
	require.NoError(t, os.Chown(filepath.Dir(path), 0, 0))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o775))
	_, err = sqlitestore.Open(path, sqlitestore.Config{})
	require.ErrorContains(t, err, "others may write to it and could replace the file")
}
