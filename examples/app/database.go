// This file opens the database: an SQLite file for the users and one for the sessions, or PostgreSQL.

package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

type database struct {
	users    users
	sessions auth.Store
	secret   []byte // who has it can sign in as any user
	close    func() error
}

// open opens the database. If it fails, the program ends, so it closes nothing.
func open(ctx context.Context, name string) (*database, error) {
	secret := []byte(os.Getenv("AUTH_SECRET"))
	if !strings.HasPrefix(name, "postgres://") && !strings.HasPrefix(name, "postgresql://") {
		return openSQLite(ctx, name, secret)
	}
	if len(secret) == 0 {
		return nil, errors.New("set AUTH_SECRET, to the same secret in every process: AUTH_SECRET=$(openssl rand -base64 48)")
	}
	pool, err := pgxpool.New(ctx, name)
	if err != nil {
		return nil, err
	}
	sessions, err := pgstore.New(pool, pgstore.Config{})
	if err == nil {
		err = sessions.Migrate(ctx)
	}
	db := stdlib.OpenDBFromPool(pool)
	if err == nil { // the lock, because several processes may start at once
		_, err = db.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtext('app'));"+schema)
	}
	return &database{users{db}, sessions, secret, func() error { defer pool.Close(); return db.Close() }}, err
}

func openSQLite(ctx context.Context, file string, secret []byte) (_ *database, err error) {
	if len(secret) == 0 {
		failed := create(file+".secret", rand.Text()+rand.Text())
		if secret, err = os.ReadFile(file + ".secret"); err != nil || failed != nil {
			return nil, errors.Join(failed, err)
		}
	}
	const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)"
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()+pragmas)
	if err = errors.Join(err, create(file, "")); err == nil {
		_, err = db.ExecContext(ctx, schema)
	}
	sessions, failed := sqlitestore.Open(file+".sessions", sqlitestore.Config{})
	return &database{users{db}, sessions, secret, func() error { return errors.Join(db.Close(), sessions.Close()) }}, errors.Join(err, failed)
}

// create creates a file that others cannot read, unless it exists.
func create(file, content string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(content)
		return errors.Join(err, f.Sync(), f.Close())
	} else if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
