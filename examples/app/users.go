// This file has the users table, as auth.Users, and the rules for user names and passwords.

package main

import (
	"context"
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

type users struct{ db *sql.DB }

// account is a row of the users table.
type account struct {
	auth.User
	Email, TOTP            string
	Verified, On, Required bool // On and Required are about the second factor
	Codes                  int  // recovery codes that are left
}

// FindByLogin and FindByID implement auth.Users.
func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	a, err := u.find(ctx, "login", normal(login))
	return a.User, err
}
func (u users) FindByID(ctx context.Context, id string) (auth.User, error) {
	a, err := u.find(ctx, "id", id)
	return a.User, err
}

func normal(login string) string { return strings.ToLower(strings.TrimSpace(login)) }

func (u users) find(ctx context.Context, column, value string) (account, error) {
	list, err := u.list(ctx, "WHERE "+column+" = $1", value)
	if err == nil && len(list) == 0 {
		err = auth.ErrUserNotFound
	}
	return append(list, account{})[0], err
}

func (u users) list(ctx context.Context, where string, args ...any) (list []account, err error) {
	rows, err := u.db.QueryContext(ctx, `SELECT id, login, password_hash, disabled, CASE WHEN owner THEN 'owner' ELSE role END,
		email, verified, totp, totp_on, totp_required, length(recovery) / 65 FROM users `+where+" ORDER BY login", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for err == nil && rows.Next() {
		a := account{User: auth.User{Roles: make([]string, 1)}}
		err = rows.Scan(&a.ID, &a.Username, &a.PasswordHash, &a.Disabled, &a.Roles[0], &a.Email, &a.Verified, &a.TOTP, &a.On, &a.Required, &a.Codes)
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

// UpdatePasswordHash implements auth.PasswordUpdater.
func (u users) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	_, err := u.db.ExecContext(ctx, "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2", id, old, next)
	return err
}

// goodPassword is the Screen of the Hasher. Without a second factor, NIST requires 15 characters.
func goodPassword(_ context.Context, pass string) error {
	if n := utf8.RuneCountInString(pass); n < 15 || n > 200 {
		return password.ErrRefused
	}
	return nil
}
