package main

import (
	"context"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// users is an auth.Users with one user. Yours looks users up in your database.
type users struct{ ada auth.User }

// newUsers returns the user ada, whose password is "correct horse battery staple".
func newUsers() (users, error) {
	hash, err := password.Hash("correct horse battery staple")
	return users{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}}, err
}

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
