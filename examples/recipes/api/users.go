package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

const schema = `CREATE TABLE IF NOT EXISTS users (
	id            TEXT PRIMARY KEY,     -- in every token, and never used again
	login         TEXT NOT NULL UNIQUE, -- as normal returns it
	password_hash TEXT NOT NULL,
	role          TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
	disabled      BOOLEAN NOT NULL DEFAULT FALSE
)`

// users is the users table. It implements auth.Users and auth.PasswordUpdater.
type users struct {
	db     *sql.DB
	hasher *password.Hasher
}

// openUsers opens the file, and creates it so that only the user of the program can
// read it. With busy_timeout, sign-ups at the same time wait for each other.
func openUsers(ctx context.Context, file string) (users, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return users{}, err
	}
	const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()+pragmas)
	if err = errors.Join(f.Close(), err); err == nil {
		_, err = db.ExecContext(ctx, schema)
	}
	return users{db, &password.Hasher{Screen: screen}}, err
}

// normal returns a login as the table has it.
func normal(login string) string { return strings.ToLower(strings.TrimSpace(login)) }

func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.find(ctx, "login = $1", normal(login))
}

func (u users) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.find(ctx, "id = $1", id)
}

func (u users) find(ctx context.Context, condition, value string) (auth.User, error) {
	found := auth.User{Roles: make([]string, 1)}
	row := u.db.QueryRowContext(ctx, "SELECT id, login, password_hash, role, disabled FROM users WHERE "+condition, value)
	err := row.Scan(&found.ID, &found.Username, &found.PasswordHash, &found.Roles[0], &found.Disabled)
	if errors.Is(err, sql.ErrNoRows) {
		err = auth.ErrUserNotFound // any other error means that the lookup failed, and is 503
	}
	return found, err
}

// UpdatePasswordHash changes nothing if the hash is no longer old, so that one of
// several password changes at the same time wins.
func (u users) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	return u.exec(ctx, nil, "UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3", next, id, old)
}

// exec executes a statement. If it affects no row, exec returns refusal. It ignores
// that a client disconnects: what follows, such as ending sessions, must happen too.
func (u users) exec(ctx context.Context, refusal error, statement string, args ...any) error {
	err := u.db.QueryRowContext(context.WithoutCancel(ctx), statement+" RETURNING 1", args...).Scan(new(int))
	if errors.Is(err, sql.ErrNoRows) {
		return refusal
	}
	return err
}
