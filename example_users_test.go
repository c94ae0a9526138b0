package auth_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// Users in a table of the application, with database/sql. The statements work
// with SQLite and with PostgreSQL. A program also imports a driver, such as
// modernc.org/sqlite or github.com/jackc/pgx/v5/stdlib.
func ExampleUsers() {
	db, err := sql.Open("sqlite", usersDatabase)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	users := &sqlUsers{db: db, hasher: &password.Hasher{}}
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, usersTable); err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(os.Getenv("AUTH_SECRET"))},
		Users:    users,
		Hasher:   users.hasher, // one limit on concurrent hashing, for sign-ups and logins
	})
	if err != nil {
		log.Fatal(err)
	}

	if _, err := users.SignUp(ctx, "Ada@example.com", "correct horse battery staple"); err != nil {
		log.Fatal(err)
	}
	_, err = a.Login(ctx, " ada@EXAMPLE.com", "correct horse battery staple", auth.SessionOptions{})
	fmt.Println("login:", err)
	_, err = a.Login(ctx, "bob@example.com", "correct horse battery staple", auth.SessionOptions{})
	fmt.Println("login:", err)
}

// usersDatabase is an SQLite file. With busy_timeout, sign-ups at the same time wait for
// each other. PostgreSQL needs no such option.
const usersDatabase = "file:app.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"

const usersTable = `CREATE TABLE IF NOT EXISTS users (
	id            TEXT PRIMARY KEY,
	login         TEXT NOT NULL UNIQUE, -- see normalize
	password_hash TEXT NOT NULL,
	roles         TEXT NOT NULL DEFAULT '', -- separated by spaces
	disabled      BOOLEAN NOT NULL DEFAULT FALSE
)`

// sqlUsers is the user lookup. It implements [auth.Users] and
// [auth.PasswordUpdater].
type sqlUsers struct {
	db     *sql.DB
	hasher *password.Hasher
}

func (u *sqlUsers) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.find(ctx, `login = $1`, normalize(login))
}

func (u *sqlUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.find(ctx, `id = $1`, id)
}

// find returns the user that meets a condition. Any error except
// ErrUserNotFound means that the lookup failed, and the client gets 503. So a
// missing row must not be returned as sql.ErrNoRows.
func (u *sqlUsers) find(ctx context.Context, condition, value string) (auth.User, error) {
	var user auth.User
	var roles string
	row := u.db.QueryRowContext(ctx, `SELECT id, login, password_hash, roles, disabled FROM users WHERE `+condition, value)
	err := row.Scan(&user.ID, &user.Username, &user.PasswordHash, &roles, &user.Disabled)
	if errors.Is(err, sql.ErrNoRows) {
		return auth.User{}, auth.ErrUserNotFound
	}
	if err != nil {
		return auth.User{}, err
	}
	user.Roles = strings.Fields(roles)
	return user, nil
}

// UpdatePasswordHash replaces a weak hash after a login. The comparison with
// old keeps it from overwriting a password that was changed meanwhile.
func (u *sqlUsers) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	_, err := u.db.ExecContext(ctx, `UPDATE users SET password_hash = $1 WHERE id = $2 AND password_hash = $3`, next, id, old)
	return err
}

// errTaken is the error of a sign-up with a login that another user has.
var errTaken = errors.New("this login is taken")

// SignUp adds a user and returns the ID. The ID is random and never changes,
// unlike an e-mail address.
func (u *sqlUsers) SignUp(ctx context.Context, login, pass string) (id string, err error) {
	hash, err := u.hasher.Hash(ctx, pass)
	if err != nil {
		return "", err // password.ErrEmpty, password.ErrTooLong or password.ErrBusy
	}
	id = rand.Text()
	const insert = `INSERT INTO users (id, login, password_hash) VALUES ($1, $2, $3) ON CONFLICT (login) DO NOTHING`
	result, err := u.db.ExecContext(ctx, insert, id, normalize(login), hash)
	if err != nil {
		return "", err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(err, errTaken)
	}
	return id, nil
}

// normalize returns a login as the table has it. Sign-up and login must use the
// same form, or a user could not sign in, or two users could look alike.
func normalize(login string) string { return strings.ToLower(strings.TrimSpace(login)) }
