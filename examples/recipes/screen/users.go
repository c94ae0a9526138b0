package main

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"

	"github.com/ratchet-go/auth"
)

// users is an auth.Users in memory, and an auth.PasswordUpdater. Yours is a table.
type users struct {
	mu   sync.Mutex
	byID map[string]auth.User
}

func newUsers() *users { return &users{byID: map[string]auth.User{}} }

// normal returns a login as the users have it.
func normal(login string) string { return strings.ToLower(strings.TrimSpace(login)) }

// add adds a user, unless the login is taken.
func (us *users) add(login, hash string) (id string, ok bool) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if _, taken := us.find(login); taken || normal(login) == "" {
		return "", false
	}
	u := auth.User{ID: rand.Text(), Username: normal(login), PasswordHash: hash}
	us.byID[u.ID] = u
	return u.ID, true
}

func (us *users) find(login string) (auth.User, bool) {
	for _, u := range us.byID {
		if u.Username == normal(login) {
			return u, true
		}
	}
	return auth.User{}, false
}

func (us *users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u, ok := us.find(login); ok {
		return u, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us *users) FindByID(_ context.Context, id string) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u, ok := us.byID[id]; ok {
		return u, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

// UpdatePasswordHash makes users an auth.PasswordUpdater, so that passwords can be
// changed.
func (us *users) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u, ok := us.byID[id]; ok && u.PasswordHash == old {
		u.PasswordHash = next
		us.byID[id] = u
	}
	return nil
}
