package main

import (
	"context"
	"strings"
	"sync"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// users is an auth.Users in memory, and an auth.PasswordUpdater. Yours is a table.
type users struct {
	mu   sync.Mutex
	list []auth.User
}

// newUsers returns the user ada@example.com, whose password is "correct horse battery
// staple".
func newUsers() (*users, error) {
	hash, err := password.Hash("correct horse battery staple")
	return &users{list: []auth.User{{ID: "u1", Username: "ada@example.com", PasswordHash: hash}}}, err
}

func (us *users) find(is func(auth.User) bool) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.list {
		if is(u) {
			return u, nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us *users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	login = strings.ToLower(strings.TrimSpace(login))
	return us.find(func(u auth.User) bool { return u.Username == login })
}

func (us *users) FindByID(_ context.Context, id string) (auth.User, error) {
	return us.find(func(u auth.User) bool { return u.ID == id })
}

// UpdatePasswordHash makes users an auth.PasswordUpdater, so that passwords can be
// changed.
func (us *users) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	for i, u := range us.list {
		if u.ID == id && u.PasswordHash == old {
			us.list[i].PasswordHash = next
		}
	}
	return nil
}
