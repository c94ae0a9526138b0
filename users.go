package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"unicode/utf8"
)

// User is what the application tells of one of its users. The zero User is
// nobody: ID is required.
type User struct {
	// ID becomes the subject of every token. It must never be given to
	// somebody else later, so it is not an e-mail address; at most 255 bytes
	// of UTF-8 without control characters.
	ID string

	// Username is shown to people and put into access tokens.
	Username string

	// Roles and Scopes are put into access tokens, where [Role] and [Scope]
	// look for them. A scope has no spaces (RFC 6749 section 3.3).
	Roles  []string
	Scopes []string

	// PasswordHash is what package password made, or a bcrypt hash. Empty
	// means that the user cannot sign in by password. It never leaves the
	// process.
	PasswordHash string `json:"-"`

	// Disabled users can neither sign in nor refresh.
	Disabled bool

	// Extra are the application's own claims for the access token, encoded by
	// encoding/json. A name that is reserved, in any letter case, is refused
	// when the token is made. Take them out with [Claims.Decode].
	Extra map[string]any
}

// Users is the application's user lookup. It is called concurrently.
//
// FindByID runs at every refresh, so that a demotion arrives with the next
// access token and a disabled or deleted user cannot refresh.
//
// Both return [ErrUserNotFound] when there is no such user; any other error
// means that it is not known, and is answered by 503.
type Users interface {
	// FindByLogin finds a user by what he typed at login: a user name or an
	// e-mail address, as the application decides. The login comes as it was
	// typed; the application folds case where its accounts do.
	FindByLogin(ctx context.Context, login string) (User, error)

	// FindByID finds a user by User.ID.
	FindByID(ctx context.Context, id string) (User, error)
}

// PasswordUpdater may be implemented by a [Users]. A password hash that is
// weaker than new ones are (bcrypt, older parameters) is then replaced after a
// login that proved the password.
type PasswordUpdater interface {
	// UpdatePasswordHash sets the user's hash to next if it still is old, and
	// changes nothing otherwise.
	UpdatePasswordHash(ctx context.Context, id, old, next string) error
}

// ErrUserNotFound is what [Users] return for a user that does not exist.
var ErrUserNotFound = errors.New("auth: user not found")

// maxSubject bounds User.ID, so that a store can plan for it.
const maxSubject = 255

// plainUser has User's fields without its methods.
type plainUser User

func (u User) redacted() plainUser {
	if u.PasswordHash != "" {
		u.PasswordHash = "[redacted]"
	}
	return plainUser(u)
}

// Format prints the user without the password hash.
func (u User) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), u.redacted())
}

// LogValue logs the user without the password hash, e-mail addresses or
// anything else than who it is.
func (u User) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", u.ID), slog.Bool("disabled", u.Disabled))
}

// checkUser refuses what would make a token that says something else.
func checkUser(u *User) error {
	switch {
	case u.ID == "":
		return errors.New("auth: User.ID is empty")
	case len(u.ID) > maxSubject:
		return fmt.Errorf("auth: User.ID is %d bytes, at most %d are allowed", len(u.ID), maxSubject)
	case !isPlainText(u.ID):
		return errors.New("auth: User.ID is not UTF-8 without control characters")
	case !utf8.ValidString(u.Username):
		return errors.New("auth: User.Username is not UTF-8")
	}
	for i, role := range u.Roles {
		if role == "" || !utf8.ValidString(role) {
			return fmt.Errorf("auth: User.Roles[%d] is empty or not UTF-8", i)
		}
	}
	for i, scope := range u.Scopes {
		if !isScope(scope) {
			return fmt.Errorf("auth: User.Scopes[%d] is not a scope token (RFC 6749 section 3.3)", i)
		}
	}
	return nil
}

func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}
