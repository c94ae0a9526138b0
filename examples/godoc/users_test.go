// The file example_users_test.go of package auth has no database driver to run
// with, because the module of package auth requires none. This directory has a
// copy of the file, which is tested here on SQLite and PostgreSQL.

package auth_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

const pass = "correct horse battery staple"

func TestExampleUsers_IsTheCopiedFile(t *testing.T) {
	t.Parallel()
	original, err := os.ReadFile("../../example_users_test.go")
	require.NoError(t, err)
	copied, err := os.ReadFile("example_users_test.go")
	require.NoError(t, err)
	require.Equal(t, string(original), string(copied), "copy example_users_test.go of the root to examples/godoc")
}

func TestExampleUsers_Runs(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("AUTH_SECRET", rand.Text()+rand.Text())
	output, err := os.Create("output")
	require.NoError(t, err)
	defer output.Close()
	stdout := os.Stdout
	os.Stdout = output
	defer func() { os.Stdout = stdout }()
	ExampleUsers()
	text, err := os.ReadFile("output")
	require.NoError(t, err)
	require.Equal(t, "login: <nil>\nlogin: auth: invalid credentials\n", string(text))
}

// newUsers returns the user lookup of the example on an empty table, and an
// Authenticator.
func newUsers(t *testing.T, driver, source string) (*sqlUsers, *auth.Authenticator) {
	t.Helper()
	db, err := sql.Open(driver, source)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), usersTable)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), usersTable)
	require.NoError(t, err, "a program that restarts finds the table")
	users := &sqlUsers{db: db, hasher: &password.Hasher{}}
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   users,
		Hasher:  users.hasher,
		OnEvent: func(context.Context, auth.Event) {},
	})
	require.NoError(t, err)
	return users, a
}

func TestExampleUsers_OnSQLite(t *testing.T) {
	t.Parallel()
	testUsers(t, "sqlite", strings.Replace(usersDatabase, "app.db", filepath.Join(t.TempDir(), "app.db"), 1))
}

func TestExampleUsers_OnPostgreSQL(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t)
	testUsers(t, "pgx", "postgres://postgres@"+server.Addr+"/postgres")
}

func testUsers(t *testing.T, driver, source string) {
	users, a := newUsers(t, driver, source)
	ctx := t.Context()
	exec := func(statement string, args ...any) {
		t.Helper()
		_, err := users.db.ExecContext(ctx, statement, args...)
		require.NoError(t, err)
	}
	login := func() error {
		_, err := a.Login(ctx, "ada@example.com", pass, auth.SessionOptions{})
		return err
	}
	id, err := users.SignUp(ctx, " Ada@Example.com ", pass)
	require.NoError(t, err)
	testConcurrentSignUps(t, users)

	for _, typed := range []string{"ada@example.com", "ADA@EXAMPLE.COM", "ada@example.com "} {
		user, err := users.FindByLogin(ctx, typed)
		require.NoError(t, err, typed)
		require.Equal(t, id, user.ID, typed)
	}
	_, err = users.SignUp(ctx, "ADA@example.com", pass)
	require.ErrorIs(t, err, errTaken)
	_, err = users.SignUp(ctx, "eve@example.com", "")
	require.ErrorIs(t, err, password.ErrEmpty)
	_, err = users.FindByLogin(ctx, "eve@example.com")
	require.ErrorIs(t, err, auth.ErrUserNotFound)
	_, err = users.FindByID(ctx, "unknown")
	require.ErrorIs(t, err, auth.ErrUserNotFound)

	exec(`UPDATE users SET roles = 'admin editor' WHERE id = $1`, id)
	tokens, err := a.Login(ctx, "ada@example.com", pass, auth.SessionOptions{})
	require.NoError(t, err)
	claims, err := a.Verify(ctx, tokens.Access)
	require.NoError(t, err)
	require.Equal(t, []string{"admin", "editor"}, claims.Roles)
	require.Equal(t, "ada@example.com", claims.Username)

	const weak = "$2y$04$EfY7Nx9YFW7WFLzudKhgoeAkAAaHt5WCk20A1B0W38OCKH4vnoXfK" // of "correct horse"
	exec(`UPDATE users SET password_hash = $1 WHERE id = $2`, weak, id)
	_, err = a.Login(ctx, "ada@example.com", "correct horse", auth.SessionOptions{})
	require.NoError(t, err)
	user, err := users.FindByID(ctx, id)
	require.NoError(t, err)
	require.Contains(t, user.PasswordHash, "$argon2id$", "a login replaces a weak hash")
	require.NoError(t, users.UpdatePasswordHash(ctx, id, weak, "a hash that comes too late"))
	unchanged, err := users.FindByID(ctx, id)
	require.NoError(t, err)
	require.Equal(t, user.PasswordHash, unchanged.PasswordHash)

	hash, err := users.hasher.Hash(ctx, pass)
	require.NoError(t, err)
	require.NoError(t, users.UpdatePasswordHash(ctx, id, user.PasswordHash, hash))
	require.NoError(t, login())
	exec(`UPDATE users SET disabled = TRUE WHERE id = $1`, id)
	require.ErrorIs(t, login(), auth.ErrInvalidCredentials)
	exec(`DROP TABLE users`)
	require.ErrorIs(t, login(), auth.ErrUnavailable, "a lookup that fails is not a user who does not exist")
}

// testConcurrentSignUps signs up users with one login, and with different logins, at
// the same time.
func testConcurrentSignUps(t *testing.T, users *sqlUsers) {
	fast := &sqlUsers{db: users.db, hasher: &password.Hasher{Memory: 8, Time: 1}}
	const n = 16
	errs := make([]error, 2*n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = fast.SignUp(t.Context(), fmt.Sprintf("user%d@example.com", i), pass) })
		wg.Go(func() { _, errs[n+i] = fast.SignUp(t.Context(), "same@example.com", pass) })
	}
	wg.Wait()
	for _, err := range errs[:n] {
		require.NoError(t, err)
	}
	created := 0
	for _, err := range errs[n:] {
		if err == nil {
			created++
			continue
		}
		require.ErrorIs(t, err, errTaken)
	}
	require.Equal(t, 1, created)
}
