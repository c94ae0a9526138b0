package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"unicode/utf8"
)

// User describes a user of the application. ID is required.
type User struct {
	// ID is the subject (sub claim) of every token: 1 to 255 bytes of UTF-8
	// without control characters. It must never be reused for another user, so
	// do not use an e-mail address.
	ID string

	// Username is a name for display. If it is not empty, access tokens contain
	// it.
	Username string

	// Roles and Scopes are in the access tokens, where [Role] and [Scope] check
	// them. A scope has no spaces (RFC 6749 section 3.3).
	Roles  []string
	Scopes []string

	// PasswordHash is a hash created by package password, or a bcrypt hash. If
	// it is empty, the user cannot sign in by password. It never leaves the
	// process: printing and encoding/json omit it, and encoding/gob and
	// encoding/xml return an error for a User. A User that was decoded from JSON
	// cannot sign in by password, so a cache of users needs a type of its own.
	PasswordHash string `json:"-" xml:"-"`

	// Disabled means that the user can neither sign in nor refresh.
	Disabled bool

	// Extra has the application's own claims for the access token. They are
	// encoded by encoding/json, and [Claims.Decode] decodes them. When a token is
	// issued, it is an error if a name is reserved, in any letter case, if two
	// names differ only in case, or if a value cannot be encoded.
	Extra map[string]any
}

// Users is the application's user lookup. Its methods are called concurrently. They
// must return when their context ends, which is after Config.HookTimeout.
//
// Both methods return [ErrUserNotFound] if the user does not exist. Any other
// error means that the lookup failed; the caller then returns [ErrUnavailable]
// (status 503). A user that cannot be used, for example because its ID is empty
// or is not the ID that FindByID was called with, is status 500 and an
// [EventFault] that names the field. At a login, it is found only after the
// password was checked.
//
// FindByID is called for every refresh. So a change of roles takes effect with
// the next access token, and a disabled or deleted user cannot refresh.
type Users interface {
	// FindByLogin returns the user with the given login name. The application
	// decides what that is, such as a user name or an e-mail address. It receives
	// the name as the user typed it, and folds case if its logins ignore case. If
	// other spellings, such as full-width letters, are the same login too, convert
	// the name before you call Login; otherwise failed attempts with several
	// spellings reveal whether a user has the name. It
	// is not called for a name that is not UTF-8 or has a NUL byte, for which some
	// databases return an error; such a login is refused.
	FindByLogin(ctx context.Context, login string) (User, error)

	// FindByID returns the user with the given User.ID. It is not called for an ID
	// that is not UTF-8 or has a NUL byte; no user has such an ID.
	FindByID(ctx context.Context, id string) (User, error)
}

// PasswordUpdater is an optional interface of [Users]. If it is implemented, a
// password hash that is weaker than a new one (bcrypt, or older parameters) is
// replaced after a login with that password. [Authenticator.ChangePassword] and
// [Authenticator.SetPassword] require it.
type PasswordUpdater interface {
	// UpdatePasswordHash replaces the user's hash with next if the stored hash
	// still equals old, in one atomic step. Otherwise it changes nothing, and
	// returns nil as well: the caller looks the user up again. FindByID must then
	// return the stored hash. If the user has no password, old is "", even if the
	// database has NULL. An error means that the hash may or may not have been
	// replaced.
	UpdatePasswordHash(ctx context.Context, id, old, next string) error
}

// ErrUserNotFound is returned by the methods of [Users] if the user does not
// exist. A handler that looks up the user who is signed in can pass it to
// [Verifier.WriteError], and a [Guard] can return it: the user was deleted, and the response is that of
// [ErrInvalidCredentials], status 401 with the action "login". Do not pass it on
// if the handler has looked up somebody else.
var ErrUserNotFound = errors.New("auth: user not found")

// maxSubject bounds User.ID, so that a store can plan for it.
const maxSubject = 255

// plainUser has the fields of User without its methods.
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

// LogValue returns only the ID, and whether the user is disabled.
func (u User) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", u.ID), slog.Bool("disabled", u.Disabled))
}

// GobEncode returns an error. Package gob would encode the password hash, and
// without it the decoded User could not sign in.
func (u User) GobEncode() ([]byte, error) { return nil, notEncodable("User", "a password hash") }

// checkUser returns an error if a token could not represent a field of u
// faithfully.
func checkUser(u *User) error {
	switch {
	case u.ID == "":
		return errors.New("auth: User.ID is empty")
	case len(u.ID) > maxSubject:
		return fmt.Errorf("auth: User.ID is %d bytes; the limit is %d", len(u.ID), maxSubject)
	case !isPlainText(u.ID):
		return errors.New("auth: User.ID must be UTF-8 without control characters")
	case !utf8.ValidString(u.Username):
		return errors.New("auth: User.Username must be UTF-8")
	}
	for i, role := range u.Roles {
		if !isRole(role) {
			return fmt.Errorf("auth: User.Roles[%d] must be UTF-8 and not empty", i)
		}
	}
	for i, scope := range u.Scopes {
		if !isScope(scope) {
			return fmt.Errorf("auth: User.Scopes[%d] is not a scope token (RFC 6749 section 3.3): printable ASCII without space, quote or backslash", i)
		}
	}
	return nil
}

func isRole(s string) bool { return s != "" && utf8.ValidString(s) }

func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}
