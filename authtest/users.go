package authtest

import (
	"context"
	"errors"
	"sync"

	"github.com/ratchet-go/auth"
)

// noUsers is a user lookup without users.
type noUsers struct{}

func (noUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (noUsers) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

// users is the user lookup of an application, and the users whom As signed in
// although the application does not know them.
type users struct {
	auth.Users
	mu    sync.Mutex
	added map[string]auth.User
}

// usersWithUpdater is users whose application replaces weak password hashes.
type usersWithUpdater struct {
	*users
	auth.PasswordUpdater
}

// wrapUsers returns a wrapper of u, and the wrapper as the Config.Users that has
// the optional interface that u has.
func wrapUsers(u auth.Users) (*users, auth.Users) {
	wrapper := &users{Users: u, added: map[string]auth.User{}}
	if updater, ok := u.(auth.PasswordUpdater); ok {
		return wrapper, usersWithUpdater{wrapper, updater}
	}
	return wrapper, wrapper
}

// signing is whom As signs in, and the ID of the user who acts for them, or "".
type signing struct {
	user  auth.User
	actor string
}

// signingKey is the key of the context value with a signing.
type signingKey struct{}

// FindByID returns the user whom As is signing in or the actor, or the user that the
// application knows, or else the one that was added.
func (us *users) FindByID(ctx context.Context, id string) (auth.User, error) {
	s, ok := ctx.Value(signingKey{}).(signing)
	switch {
	case ok && id == s.user.ID:
		return s.user, nil
	case ok && id == s.actor:
		return auth.User{ID: id}, nil
	}
	u, err := us.Users.FindByID(ctx, id)
	if errors.Is(err, auth.ErrUserNotFound) {
		us.mu.Lock()
		defer us.mu.Unlock()
		if added, ok := us.added[id]; ok {
			return added, nil
		}
	}
	return u, err
}

// add adds u unless the application knows a user with this ID.
func (us *users) add(ctx context.Context, u auth.User) {
	if _, err := us.Users.FindByID(ctx, u.ID); errors.Is(err, auth.ErrUserNotFound) {
		us.mu.Lock()
		defer us.mu.Unlock()
		us.added[u.ID] = u
	}
}

// addActor adds a user with this ID unless there is one.
func (us *users) addActor(ctx context.Context, id string) {
	if _, err := us.FindByID(ctx, id); errors.Is(err, auth.ErrUserNotFound) {
		us.add(ctx, auth.User{ID: id})
	}
}
