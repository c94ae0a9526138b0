package main

import (
	"context"
	"slices"
	"sync"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// note is a note of a user. By is who has written it for the user, or empty.
type note struct {
	Text string `json:"text"`
	By   string `json:"by,omitempty"`
}

// users is an auth.Users in memory, with the notes of the users. Yours are tables.
type users struct {
	mu    sync.Mutex
	list  []auth.User
	notes map[string][]note
}

// newUsers returns users whose passwords are "correct horse battery staple".
func newUsers() (*users, error) {
	hash, err := password.Hash("correct horse battery staple")
	return &users{notes: map[string][]note{}, list: []auth.User{
		{ID: "u1", Username: "ada", PasswordHash: hash},
		{ID: "u2", Username: "grace", PasswordHash: hash},
		{ID: "u3", Username: "root", PasswordHash: hash, Roles: []string{"admin"}},
		{ID: "u4", Username: "admin", PasswordHash: hash, Roles: []string{"admin"}},
	}}, err
}

func (us *users) find(is func(auth.User) bool) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if i := slices.IndexFunc(us.list, is); i >= 0 {
		return us.list[i], nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us *users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	return us.find(func(u auth.User) bool { return u.Username == login })
}

func (us *users) FindByID(_ context.Context, id string) (auth.User, error) {
	return us.find(func(u auth.User) bool { return u.ID == id })
}

// update changes a user.
func (us *users) update(id string, change func(*auth.User)) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if i := slices.IndexFunc(us.list, func(u auth.User) bool { return u.ID == id }); i >= 0 {
		change(&us.list[i])
	}
}

func (us *users) setLogin(id, login string) {
	us.update(id, func(u *auth.User) { u.Username = login })
}

func (us *users) addNote(id string, n note) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.notes[id] = append(us.notes[id], n)
}

func (us *users) notesOf(id string) []note {
	us.mu.Lock()
	defer us.mu.Unlock()
	return append([]note{}, us.notes[id]...)
}
