// This file has the user table of both contracts.

package main

import (
	"context"
	"strings"
	"sync"

	"github.com/ratchet-go/auth"
)

// demoPassword is the password of every user.
const demoPassword = "correct horse battery staple"

// account is a user of the application.
type account struct {
	id, email, name, role, hash string
}

// users is an in-memory user table.
type users struct {
	mu       sync.Mutex
	accounts []account
}

// newUsers returns a table with two users, whose passwords are hashed with bcrypt
// as in the articles.
func newUsers() *users {
	return &users{accounts: []account{
		{"1001", "ada@example.com", "ada", "admin", "$2a$10$XtNu3HTmksJenA827K4/M.GaUs2Qb59LiTRAnCsMC6bizQLeV6fE2"},
		{"1002", "bob@example.com", "bob", "user", "$2a$10$gvR0vztDxrL8Nnv1ypdJDujgwrFX.g8kIXhHpZOXA.DfOeB2guZP."},
	}}
}

// change applies f to an account.
func (u *users) change(id string, f func(*account)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.accounts {
		if u.accounts[i].id == id {
			f(&u.accounts[i])
		}
	}
}

// UpdatePasswordHash implements [auth.PasswordUpdater]: the first login replaces
// the bcrypt hash with an argon2id hash.
func (u *users) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	u.change(id, func(a *account) {
		if a.hash == old {
			a.hash = next
		}
	})
	return nil
}

// lookup implements [auth.Users] for one API. The function user returns an account
// with the claims of that API.
type lookup struct {
	*users
	user func(account) auth.User
}

func (l lookup) find(matches func(account) bool) (auth.User, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.accounts {
		if matches(a) {
			return l.user(a), nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

// FindByLogin implements [auth.Users].
func (l lookup) FindByLogin(_ context.Context, login string) (auth.User, error) {
	return l.find(func(a account) bool { return strings.EqualFold(a.email, login) || strings.EqualFold(a.name, login) })
}

// FindByID implements [auth.Users].
func (l lookup) FindByID(_ context.Context, id string) (auth.User, error) {
	return l.find(func(a account) bool { return a.id == id })
}
