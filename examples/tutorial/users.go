package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// demoPassword is the password of every user.
const demoPassword = "correct horse battery staple"

// account is a user of the application.
type account struct {
	id, email, name, role, hash string
}

// users is an in-memory user table. It implements [auth.Users].
type users struct {
	mu      sync.RWMutex
	byID    map[string]account
	byLogin map[string]string // lower-case e-mail address or user name to ID
}

// newUsers returns a table with two users.
func newUsers(ctx context.Context, hasher *password.Hasher) (*users, error) {
	u := &users{byID: map[string]account{}, byLogin: map[string]string{}}
	for _, a := range []account{
		{id: "1001", email: "ada@example.com", name: "ada", role: "admin"},
		{id: "1002", email: "bob@example.com", name: "bob", role: "user"},
	} {
		hash, err := hasher.Hash(ctx, demoPassword)
		if err != nil {
			return nil, err
		}
		a.hash = hash
		if err := u.add(a); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (u *users) add(a account) error {
	email, name := strings.ToLower(a.email), strings.ToLower(a.name)
	if !strings.Contains(email, "@") || strings.Contains(name, "@") {
		return errors.New("users: an e-mail address must contain @ and a user name must not, so that they cannot be confused")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byLogin[email] != "" || u.byLogin[name] != "" || u.byID[a.id].id != "" {
		return errors.New("users: the ID, e-mail address or user name is taken")
	}
	u.byID[a.id], u.byLogin[email], u.byLogin[name] = a, a.id, a.id
	return nil
}

// change applies f to an account.
func (u *users) change(id string, f func(*account)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	a := u.byID[id]
	f(&a)
	u.byID[id] = a
}

// FindByLogin implements [auth.Users].
func (u *users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	u.mu.RLock()
	id := u.byLogin[strings.ToLower(login)]
	u.mu.RUnlock()
	return u.FindByID(ctx, id)
}

// FindByID implements [auth.Users]. Every refresh calls it, so new access tokens
// have all claims, with current values.
func (u *users) FindByID(_ context.Context, id string) (auth.User, error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	a, ok := u.byID[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return auth.User{
		ID: a.id, Username: a.name, PasswordHash: a.hash,
		Roles: []string{a.role},               // read by auth.Role
		Extra: map[string]any{"role": a.role}, // the claim that clients of the original tutorials read
	}, nil
}

// identity describes the user of a request, as in the original tutorials.
type identity struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// identityOf returns the user ID, user name and role in the claims of a request.
func identityOf(c *auth.Claims) (identity, error) {
	id := identity{ID: c.Subject, Name: c.Username}
	var own struct {
		Role string `json:"role"`
	}
	err := c.Decode(&own)
	id.Role = own.Role
	return id, err
}
