package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ratchet-go/auth/examples/quickstart/site"
)

// secretsIn returns the secrets in file. If the file does not exist, secretsIn creates
// it with random secrets.
func secretsIn(file string) (site.Secrets, error) {
	s, err := readSecrets(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := writeSecrets(file, site.NewSecrets()); err != nil {
		return site.Secrets{}, err
	}
	return readSecrets(file) // another process may have created it first
}

// readSecrets reads the secrets in file. It returns an error if other users may read
// or write the file, or own it.
func readSecrets(file string) (site.Secrets, error) {
	f, err := os.Open(file)
	if err != nil {
		return site.Secrets{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return site.Secrets{}, err
	}
	if !info.Mode().IsRegular() {
		return site.Secrets{}, fmt.Errorf("%s is not a regular file", file)
	}
	if err := private(file, info); err != nil {
		return site.Secrets{}, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return site.Secrets{}, err
	}
	s, found, err := site.SecretsFrom(func(name string) (string, bool) {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, name+"="); ok {
				return strings.TrimSpace(value), true
			}
		}
		return "", false
	})
	if err == nil && !found {
		err = errors.New("no secrets in the file")
	}
	if err != nil {
		return site.Secrets{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// writeSecrets atomically creates file with mode 0600. If the file exists, it is not
// changed.
func writeSecrets(file string, s site.Secrets) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = fmt.Fprintf(f, "ACCESS_SECRET=%s\nREFRESH_SECRET=%s\n", s.Access, s.Refresh)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// syncDir syncs a directory, so that a new file in it survives a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
