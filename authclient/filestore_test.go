package authclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newFileStore(t *testing.T) FileStore {
	return FileStore(filepath.Join(t.TempDir(), "tokens.json"))
}

// put returns a function for Update.
func put(text string) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) { return []byte(text), nil }
}

func requireStored(t *testing.T, s Store, want string) {
	t.Helper()
	text, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, string(text))
}

func TestStores_KeepATextAndRemoveIt(t *testing.T) {
	t.Parallel()
	for _, s := range []Store{newFileStore(t), new(memory)} {
		requireStored(t, s, "")
		refused := errors.New("refused by a test")
		refuse := func([]byte) ([]byte, error) { return []byte("x"), refused }
		require.ErrorIs(t, s.Update(t.Context(), refuse), refused)
		requireStored(t, s, "")
		require.NoError(t, s.Update(t.Context(), put("")), "nothing is removed")
		require.NoError(t, s.Update(t.Context(), put("one")))
		requireStored(t, s, "one")
		require.ErrorIs(t, s.Update(t.Context(), refuse), refused)
		require.NoError(t, s.Update(t.Context(), func(old []byte) ([]byte, error) { return append(old, " two"...), nil }))
		requireStored(t, s, "one two")
		require.NoError(t, s.Update(t.Context(), func([]byte) ([]byte, error) { return nil, nil }))
		text, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Nil(t, text)
	}
}

func TestStores_UpdateIsAtomic(t *testing.T) {
	t.Parallel()
	for _, s := range []Store{newFileStore(t), new(memory)} {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 10 {
					if err := increment(t.Context(), s); err != nil {
						t.Error(err)
					}
					if text, err := s.Load(t.Context()); err != nil || len(text) == 0 {
						t.Errorf("loaded %q, %v", text, err)
					}
				}
			})
		}
		all.Wait()
		requireStored(t, s, "80")
	}
}

// increment adds 1 to the number in s.
func increment(ctx context.Context, s Store) error {
	return s.Update(ctx, func(old []byte) ([]byte, error) {
		n := 0
		if len(old) > 0 {
			var err error
			if n, err = strconv.Atoi(string(old)); err != nil {
				return nil, err
			}
		}
		return []byte(strconv.Itoa(n + 1)), nil
	})
}

func TestFileStore_OnlyTheOwnerCanReadItsFiles(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the access rights are those of the folder")
	}
	s := newFileStore(t)
	require.NoError(t, s.Update(t.Context(), put("one")))
	for _, name := range []string{string(s), string(s) + ".lock"} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	for _, mode := range []os.FileMode{0o604, 0o640, 0o660, 0o602, 0o644} {
		require.NoError(t, os.Chmod(string(s), mode))
		_, err := s.Load(t.Context())
		require.ErrorContains(t, err, "only its owner may read or write it (chmod 600)", mode)
		require.ErrorContains(t, s.Update(t.Context(), put("two")), "only its owner may read or write it (chmod 600)", mode)
	}
	require.NoError(t, os.Chmod(string(s), 0o600))
	requireStored(t, s, "one")
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(string(s), 65534, -1))
		_, err := s.Load(t.Context())
		require.ErrorContains(t, err, "belongs to user 65534, but this process runs as user 0")
	}
}

func TestFileStore_RefusesWhatIsNoRegularFile(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	target := string(s) + ".target"
	require.NoError(t, os.WriteFile(target, []byte("one"), 0o600))
	err := os.Symlink(target, string(s))
	if err != nil && runtime.GOOS == "windows" {
		t.Skipf("Windows permits symbolic links only to administrators, or in its developer mode: %v", err)
	}
	require.NoError(t, err)
	_, err = s.Load(t.Context())
	require.EqualError(t, err, string(s)+" is not a regular file")
	require.EqualError(t, s.Update(t.Context(), put("two")), string(s)+" is not a regular file")
	require.NoError(t, os.Remove(string(s)))
	require.NoError(t, os.Mkdir(string(s), 0o700))
	_, err = s.Load(t.Context())
	require.EqualError(t, err, string(s)+" is not a regular file")
}

// A process that was killed between writing and renaming has left the temporary
// file. Another user may have put one there, where the folder permits it.
func TestFileStore_IgnoresATemporaryFile(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	require.NoError(t, s.Update(t.Context(), put("one")))
	require.NoError(t, os.WriteFile(string(s)+".new", []byte("a longer text that was not com"), 0o644))
	requireStored(t, s, "one")
	require.NoError(t, s.Update(t.Context(), put("two")))
	requireStored(t, s, "two")
	require.NoFileExists(t, string(s)+".new")

	target := string(s) + ".target"
	if err := os.Symlink(target, string(s)+".new"); err == nil {
		require.NoError(t, s.Update(t.Context(), put("three")))
		requireStored(t, s, "three")
		require.NoFileExists(t, target)
	}
}

// If a file cannot be written, the old text stays, and no temporary file.
func TestFileStore_KeepsTheOldTextIfItCannotWrite(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	require.NoError(t, s.Update(t.Context(), put("one")))
	require.NoError(t, os.MkdirAll(filepath.Join(string(s)+".new", "in the way"), 0o700))
	require.Error(t, s.Update(t.Context(), put("two")))
	requireStored(t, s, "one")

	none := FileStore(filepath.Join(t.TempDir(), "no folder", "tokens.json"))
	requireStored(t, none, "")
	require.ErrorIs(t, none.Update(t.Context(), put("one")), os.ErrNotExist)
}

func TestFileStore_WaitsForTheLockAsLongAsTheContext(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	unlock, err := s.lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- s.Update(ctx, put("one")) }()
	gaveUp := errors.New("a test gave up")
	cancel(gaveUp)
	err = <-done
	require.ErrorIs(t, err, gaveUp)
	require.ErrorContains(t, err, "waiting for the lock of "+string(s))
	requireStored(t, s, "")

	go func() { done <- s.Update(t.Context(), put("two")) }()
	select {
	case err := <-done:
		require.Fail(t, "Update did not wait for the lock", err)
	case <-time.After(20 * time.Millisecond):
	}
	unlock()
	require.NoError(t, <-done)
	requireStored(t, s, "two")
}

func TestFileStore_ManyProcessesShareIt(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	const processes, each = 4, 10
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			if out, err := command(t, "increment", string(s), strconv.Itoa(each)).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	requireStored(t, s, strconv.Itoa(processes*each))
}

func TestFileStore_AKilledProcessLeavesNoLock(t *testing.T) {
	t.Parallel()
	s := newFileStore(t)
	cmd := command(t, "lock", string(s))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var word string
	_, err = fmt.Fscan(out, &word)
	require.NoError(t, err)
	require.Equal(t, "locked", word)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Update(ctx, put("one")), context.DeadlineExceeded)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NoError(t, s.Update(t.Context(), put("two")))
}
