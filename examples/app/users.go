// This file has the users table, which package auth reads as auth.Users, and the
// rules for user names and passwords.

package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	_ "embed" // for schema.sql
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

//go:embed schema.sql
var schema string

var goodLogin = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,29}$`) // no letters that look like others

// invalid is an error whose text is for the user who sent a form.
type invalid string

func (e invalid) Error() string { return string(e) }

type users struct {
	db     *sql.DB
	hasher *password.Hasher
}

// FindByLogin and FindByID implement auth.Users.
func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.find(ctx, "login", normal(login))
}
func (u users) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.find(ctx, "id", id)
}

func normal(login string) string { return strings.ToLower(strings.TrimSpace(login)) }

func (u users) find(ctx context.Context, column, value string) (auth.User, error) {
	list, err := u.list(ctx, "WHERE "+column+" = $1", value)
	if err == nil && len(list) == 0 {
		err = auth.ErrUserNotFound
	}
	return append(list, auth.User{})[0], err
}

func (u users) list(ctx context.Context, where string, args ...any) (list []auth.User, err error) {
	rows, err := u.db.QueryContext(ctx, `SELECT id, login, password_hash, disabled, CASE WHEN owner THEN 'owner' ELSE role END
		FROM users `+where+" ORDER BY login", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for err == nil && rows.Next() {
		a := auth.User{Roles: make([]string, 1)}
		err = rows.Scan(&a.ID, &a.Username, &a.PasswordHash, &a.Disabled, &a.Roles[0])
		list = append(list, a)
	}
	return list, errors.Join(err, rows.Err())
}

// exec executes a statement, even for a client that has gone. If it affects no row, exec returns refusal.
func (u users) exec(ctx context.Context, refusal error, statement string, args ...any) error {
	err := u.db.QueryRowContext(context.WithoutCancel(ctx), statement+" RETURNING 1", args...).Scan(new(int))
	if errors.Is(err, sql.ErrNoRows) {
		return refusal
	}
	return err
}

// signUp creates a user. The first one becomes the owner.
func (u users) signUp(ctx context.Context, login, pass string) error {
	if !goodLogin.MatchString(normal(login)) {
		return invalid("A user name has 2 to 30 letters (a to z), digits, dots, hyphens or underscores. It begins with a letter or a digit.")
	}
	hash, err := u.hash(ctx, pass)
	if err != nil {
		return err
	}
	for range 2 { // the second try is for two first users at once: only one of them can be the owner
		if err = u.exec(ctx, invalid("This user name is taken."), `INSERT INTO users (id, login, password_hash, owner)
			VALUES ($1, $2, $3, (SELECT TRUE WHERE NOT EXISTS (SELECT 1 FROM users))) ON CONFLICT DO NOTHING`, rand.Text(), normal(login), hash); err == nil {
			break
		}
	}
	return err
}

// hash hashes a new password. Without a second factor, NIST requires 15 characters.
func (u users) hash(ctx context.Context, pass string) (string, error) {
	if n := utf8.RuneCountInString(pass); n < 15 || n > 200 {
		return "", invalid("A password has 15 to 200 characters. Several words are easy to remember.")
	}
	return u.hasher.Hash(ctx, pass)
}

// changePassword changes the password of a user who knows the current one.
func (u users) changePassword(ctx context.Context, id, current, next string) error {
	a, err := u.FindByID(ctx, id)
	if err != nil {
		return err
	}
	if err := u.hasher.Verify(ctx, a.PasswordHash, current); errors.Is(err, password.ErrMismatch) {
		return invalid("The current password is wrong.")
	} else if err != nil {
		return err
	}
	hash, err := u.hash(ctx, next)
	if err != nil {
		return err
	}
	return u.exec(ctx, invalid("The password has just been changed elsewhere."),
		"UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2", id, a.PasswordHash, hash)
}

// update changes the role and status of another user, but not of the owner.
func (u users) update(ctx context.Context, id, role string, disabled bool, by string) error {
	return u.exec(ctx, invalid("You can change neither yourself nor the first user."),
		"UPDATE users SET role = $2, disabled = $3 WHERE id = $1 AND id <> $4 AND owner IS NULL", id, role, disabled, by)
}
