package site

import (
	"context"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// Password is the password of both users.
const Password = "correct horse battery staple"

// users implements auth.Users with a map by ID. Real applications query their user
// table.
type users map[string]auth.User

func newUsers(ctx context.Context, passwords *password.Hasher) (users, error) {
	us := users{
		"user-1": {ID: "user-1", Username: "ada", Roles: []string{"admin"}},
		"user-2": {ID: "user-2", Username: "bob", Roles: []string{"user"}},
	}
	for id, u := range us {
		hash, err := passwords.Hash(ctx, Password)
		if err != nil {
			return nil, err
		}
		u.PasswordHash = hash
		us[id] = u
	}
	return us, nil
}

// FindByLogin accepts a user name or an e-mail address, in any letter case.
func (us users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	name := strings.TrimSuffix(strings.ToLower(login), "@example.com")
	for _, u := range us {
		if u.Username == name {
			return u, nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us users) FindByID(_ context.Context, id string) (auth.User, error) {
	if u, ok := us[id]; ok {
		return u, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}
