package main

import (
	"context"
	"slices"
	"sync"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// membership is a row of the table of members.
type membership struct{ user, organization, role string }

// users is an auth.Users in memory, with the members and the projects of the
// organizations. Yours are tables.
type users struct {
	list     []auth.User
	mu       sync.Mutex
	members  []membership
	projects map[string][]string
}

// newUsers returns users whose passwords are "correct horse battery staple".
func newUsers() (*users, error) {
	hash, err := password.Hash("correct horse battery staple")
	return &users{
		list:     []auth.User{{ID: "u1", Username: "ada", PasswordHash: hash}, {ID: "u2", Username: "grace", PasswordHash: hash}},
		members:  []membership{{"u1", "north", "admin"}, {"u1", "south", "member"}, {"u2", "north", "member"}},
		projects: map[string][]string{},
	}, err
}

func (us *users) find(is func(auth.User) bool) (auth.User, error) {
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

// organizations returns the organizations of a user.
func (us *users) organizations(user string) (names []string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, m := range us.members {
		if m.user == user {
			names = append(names, m.organization)
		}
	}
	return names
}

// role returns the role of a user in an organization, or "" if they are no member.
func (us *users) role(user, organization string) string {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, m := range us.members {
		if m.user == user && m.organization == organization {
			return m.role
		}
	}
	return ""
}

// setRole sets the role of a user in an organization, or removes them if it is "".
func (us *users) setRole(user, organization, role string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.members = slices.DeleteFunc(us.members, func(m membership) bool { return m.user == user && m.organization == organization })
	if role != "" {
		us.members = append(us.members, membership{user, organization, role})
	}
}

func (us *users) addProject(organization, name string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.projects[organization] = append(us.projects[organization], name)
}

func (us *users) projectsOf(organization string) []string {
	us.mu.Lock()
	defer us.mu.Unlock()
	return append([]string{}, us.projects[organization]...)
}
