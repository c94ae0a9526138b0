package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// demoPassword is everybody's.
const demoPassword = "correct horse battery staple"

// account is a user of the application.
type account struct {
	id, email, name, role, hash string
}

// users is the application's user table, in memory.
type users struct {
	mu      sync.RWMutex
	byID    map[string]account
	byLogin map[string]string // an e-mail address or a user name, in lower case, to an ID
}

// newUsers returns a table of two.
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
		return errors.New("users: an e-mail address has an @, a user name has none, so that neither passes for the other")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byLogin[email] != "" || u.byLogin[name] != "" || u.byID[a.id].id != "" {
		return errors.New("users: taken already")
	}
	u.byID[a.id], u.byLogin[email], u.byLogin[name] = a, a.id, a.id
	return nil
}

// change applies f to an account, as an administrator would.
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

// FindByID implements [auth.Users]. It runs at every refresh, which is how
// claims are never lost, and never old.
func (u *users) FindByID(_ context.Context, id string) (auth.User, error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	a, ok := u.byID[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return auth.User{
		ID: a.id, Username: a.name, PasswordHash: a.hash,
		Roles: []string{a.role},               // for auth.Role
		Extra: map[string]any{"role": a.role}, // for those who read the payload as the articles have it
	}, nil
}

// person is who a request comes from, in the articles' words.
type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// personOf reads the claims behind Require: user ID, user name and role.
func personOf(c *auth.Claims) (person, error) {
	p := person{ID: c.Subject, Name: c.Username}
	var own struct {
		Role string `json:"role"`
	}
	err := c.Decode(&own)
	p.Role = own.Role
	return p, err
}
