package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ratchet-go/auth/password"
)

// CheckPassword checks a password and returns its user. It is the first half of
// [Authenticator.Login], and opens no session. It is for flows of one's own, such
// as a page that asks for the password before a payment, or the Basic
// authentication of a script.
//
// It returns [ErrInvalidCredentials] if the user does not exist, the password is
// wrong, or the user is disabled or has no password. These cases take the same
// time; see [password.Hasher.Verify] about hashes of different kinds. Only the event
// [EventLoginRefused], which also has d, says which it was. [password.ErrBusy] and
// [ErrUnavailable] mean that the password could not be checked. Any other error
// means that the user cannot be used; see [Users]. It returns [ErrThrottled] as
// [Authenticator.Login] does.
//
// If Users implements [PasswordUpdater], a weak hash is replaced. If that fails,
// CheckPassword emits an [EventFault] and succeeds all the same.
func (a *Authenticator) CheckPassword(ctx context.Context, login, pass string, d Device) (User, error) {
	var found User
	err := a.withPassword(ctx, login, pass, d, func(_ context.Context, u User) error {
		found = u
		return nil
	})
	return found, err
}

// withPassword calls then for the user with a login name and a password. All of it
// is one attempt, which fails if the password is wrong, or then returns an
// [ErrInvalidCredentials].
func (a *Authenticator) withPassword(ctx context.Context, login, pass string, d Device, then func(context.Context, User) error) error {
	ctx = hashingFor(ctx, d)
	u, err := a.findUser(ctx, "FindByLogin", login, a.users.FindByLogin)
	exists := !errors.Is(err, ErrUserNotFound)
	// An unusable user is an error only after the password was checked, so that
	// the response does not reveal that the login exists.
	var unusable *userError
	if err != nil && exists && !errors.As(err, &unusable) {
		return err
	}
	account, own := "", []Bucket{nameBucket(login)}
	if exists && unusable == nil {
		account, own = u.ID, []Bucket{accountBucket(u.ID), nameBucket(login)}
	}
	return a.throttle(ctx, attemptPassword, account, own, d, func() error {
		if err := a.provePassword(ctx, &u, pass, exists, unusable, cleanDevice(d)); err != nil {
			return err
		}
		return then(ctx, u)
	})
}

// provePassword returns nil if u can sign in with a password. exists is false for the
// zero User, and unusable is why u cannot be used, or nil. It replaces a weak hash.
func (a *Authenticator) provePassword(ctx context.Context, u *User, pass string, exists bool, unusable *userError, d Device) error {
	checked := *u
	if u.Disabled {
		checked.PasswordHash = "" // a right password must be refused like a wrong one
	}
	err := a.checkPassword(ctx, checked, pass)
	switch {
	case isRefusal(err) && !exists:
		err = refusal("unknown user")
	case isRefusal(err) && u.Disabled:
		err = refusal("user is disabled")
	}
	switch {
	case isRefusal(err):
		if unusable != nil {
			err = refusedUnusable{err, unusable}
		}
		return a.refuseLogin(ctx, unusable.subjectOf(*u), d, err)
	case err != nil:
		return err
	case unusable != nil:
		return a.internalError(ctx, Session{}, unusable)
	}
	a.upgradeHash(ctx, u, pass)
	return nil
}

// refusedUnusable is the refusal of a login of a user that cannot be used. It writes
// its text only when asked.
type refusedUnusable struct {
	error
	user *userError
}

func (e refusedUnusable) Error() string { return e.error.Error() + "; " + detail{e.user}.Error() }

func (e refusedUnusable) Unwrap() []error { return []error{e.error, e.user} }

// checkPassword compares a password with the hash of u. It hashes the password
// even if the user does not exist (the zero User) or has no password, so that
// these cases take as long as a wrong password does.
func (a *Authenticator) checkPassword(ctx context.Context, u User, pass string) error {
	var err error
	if u.PasswordHash != "" {
		err = a.hasher.Verify(ctx, u.PasswordHash, pass)
	}
	unreadable := errors.Is(err, password.ErrHash)
	if unreadable {
		a.emitLimited(ctx, "PasswordHash", Event{Type: EventFault, Session: Session{Subject: u.ID}, Err: fmt.Errorf("auth: User.PasswordHash: %w", err)})
	}
	if unreadable || u.PasswordHash == "" {
		if err = a.hasher.VerifyUnknown(ctx, pass); err == nil {
			err = password.ErrMismatch
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, password.ErrMismatch), errors.Is(err, password.ErrTooLong):
		switch {
		case unreadable:
			return refusal("the stored hash cannot be used")
		case u.PasswordHash == "":
			return refusal("User.PasswordHash is empty")
		}
		return refusal("wrong password")
	case errors.Is(err, password.ErrBusy):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// upgradeHash replaces a weak hash of u, whose password is pass. It reports a
// failure as an event.
func (a *Authenticator) upgradeHash(ctx context.Context, u *User, pass string) {
	if a.updater == nil || !a.hasher.NeedsRehash(u.PasswordHash) {
		return
	}
	hash, err := a.hasher.Hash(ctx, pass)
	if err == nil {
		err = a.updatePasswordHash(ctx, u.ID, u.PasswordHash, hash)
	}
	if err != nil {
		_ = a.unavailable(ctx, Session{Subject: u.ID}, fmt.Errorf("auth: upgrading a password hash: %w", detail{err}))
		return
	}
	u.PasswordHash = hash
}

// updatePasswordHash calls PasswordUpdater.UpdatePasswordHash.
func (a *Authenticator) updatePasswordHash(ctx context.Context, id, old, next string) error {
	return a.runHook(ctx, "Users.UpdatePasswordHash", a.hookTimeout, func(ctx context.Context) error {
		return a.updater.UpdatePasswordHash(ctx, id, old, next)
	})
}

// ChangePassword changes the password of the user of c, who must know the current
// one, and ends the user's other sessions. The session of c goes on. c are the
// claims of a verified access token, as [FromContext] returns them.
//
// It returns:
//   - [ErrInvalidCredentials] if current is wrong, the user has no password, or
//     another change came first. The response has status 403, so that it signs no
//     client out; see [ResponseFor].
//   - [password.ErrEmpty], [password.ErrTooLong], or an error that wraps
//     [password.ErrRefused] if next must not be used: [password.Hasher.Screen]
//     refused it, or it is equal to current.
//   - [ErrSessionRevoked] if the session of c has ended, or the user was deleted or
//     disabled, and [ErrTokenExpired] if [Authenticator.ExpireAccess] has ended the
//     access token.
//   - [ErrInvalidToken] if c is of another issuer, as it may be with [AnyOf].
//   - [ErrForbidden] if c is of a session in which somebody else acts for the user.
//   - [password.ErrBusy] or [ErrUnavailable] if something failed. Repeat the call
//     with the same arguments.
//   - another error if Users does not implement [PasswordUpdater].
//
// ChangePassword first asks the store for the session of c. If the store does not
// respond, the password does not change. If a later step fails, the password may
// have changed, and a repeated call completes the change: if the user's password
// is next, ChangePassword ends the other sessions and returns nil, whatever current
// is. So one call tries up to two passwords, and counts as two attempts if both
// are wrong. It returns [ErrThrottled] as [Authenticator.Login] does.
//
// Once ChangePassword begins to store the hash, it completes even if ctx is
// canceled. It waits for each of these steps no longer than Config.StoreTimeout.
// Of several calls at the same time, one changes the password.
func (a *Authenticator) ChangePassword(ctx context.Context, c *Claims, current, next string, d Device) error {
	if c == nil {
		return a.internalError(ctx, Session{}, errors.New("auth: ChangePassword was called without claims; pass those of FromContext"))
	}
	if err := refuseActing(c); err != nil {
		return err
	}
	of := Session{Subject: c.Subject, ID: c.SessionID}
	client := d
	d = cleanDevice(d)
	ctx = hashingFor(ctx, d)
	// If the store does not respond, nothing changes, rather than only the
	// password.
	if _, err := a.continuable(ctx, c, a.snapshot()); err != nil {
		return err
	}
	return a.replacePassword(ctx, of, next, d, func(u User) (already bool, err error) {
		if u.Disabled {
			return false, ErrSessionRevoked
		}
		attempt := func(pass string) error {
			return a.throttle(ctx, attemptPassword, u.ID, []Bucket{accountBucket(u.ID)}, client, func() error { return a.checkPassword(ctx, u, pass) })
		}
		wrong := attempt(current)
		switch {
		case wrong == nil && current == next:
			return false, &describedError{fmt.Errorf("%w: it is the current password", password.ErrRefused), "the new password is the current one; choose another one"}
		case wrong == nil || !isRefusal(wrong):
			return false, wrong
		}
		if current != next { // an earlier call with these arguments may have stored next
			if err := attempt(next); !isRefusal(err) {
				return err == nil, err
			}
		}
		a.emit(ctx, Event{Type: EventLoginRefused, Session: of, Device: d, Err: fmt.Errorf("%w; the password was not changed", wrong)})
		return false, errCurrentPassword
	})
}

// SetPassword sets the password of a user, for example after a reset by mail, and
// ends all sessions of the user. d is the client, as for
// [Authenticator.HashPassword]. SetPassword does not ask for the old password, so
// the caller must know who the user is. The user may be disabled, which they
// remain, or have no password yet.
//
// For a reset by a one-time token with OneTime.BoundToPassword, call
// [Authenticator.CheckOneTime] and then SetPassword, which ends the token. If the
// token was spent first, and next was refused, the user would need another token.
//
// It returns:
//   - [ErrForbidden] if ctx carries the claims of a session with an actor
//     ([FromContext]), as the context of a request does behind [Verifier.Require].
//   - [ErrUserNotFound] if the user does not exist.
//   - [password.ErrEmpty], [password.ErrTooLong], or an error that wraps
//     [password.ErrRefused], if next must not be used.
//   - [password.ErrBusy] or [ErrUnavailable] if something failed. The password may
//     have changed; repeat the call.
//   - another error if Users does not implement [PasswordUpdater].
//
// Of several calls at the same time, the password of one remains.
func (a *Authenticator) SetPassword(ctx context.Context, userID, next string, d Device) error {
	if c, ok := FromContext(ctx); ok {
		if err := refuseActing(c); err != nil {
			return err
		}
	}
	d = cleanDevice(d)
	return a.replacePassword(hashingFor(ctx, d), Session{Subject: userID}, next, d, func(User) (bool, error) { return false, nil })
}

// refuseActing returns an error if somebody acts for the user of c.
func refuseActing(c *Claims) error {
	if c.Actor == "" {
		return nil
	}
	return fmt.Errorf("%w: a session with an actor cannot change a password", ErrForbidden)
}

// errCurrentPassword is the error of a password change with a wrong current
// password. Its response has no action: the client stays signed in.
var errCurrentPassword = fmt.Errorf("%w: the current password is wrong", ErrInvalidCredentials)

// HashPassword returns a hash of a new password, to be stored when a user is
// created. d is the client that signs up: if too many passwords are hashed at once,
// the sources of the clients take turns. HashPassword asks
// [password.Hasher.Screen], which may refuse the password. If Screen fails, or
// panics, the password is accepted, and there is an [EventFault].
// [Authenticator.ChangePassword] and [Authenticator.SetPassword] hash the new
// password in this way themselves.
//
// It returns [password.ErrEmpty], [password.ErrTooLong] or an error that wraps
// [password.ErrRefused] if the user must choose another password, and
// [password.ErrBusy] or [ErrUnavailable] if it could not be hashed.
func (a *Authenticator) HashPassword(ctx context.Context, next string, d Device) (string, error) {
	return a.hashPassword(hashingFor(ctx, d), Session{}, next)
}

// hashPassword is HashPassword for the user of a session.
func (a *Authenticator) hashPassword(ctx context.Context, of Session, next string) (string, error) {
	err := a.screen(ctx, next)
	var panicked *panicError
	if abandoned, _ := isAbandoned(err); abandoned || errors.As(err, &panicked) || errors.Is(err, password.ErrScreen) {
		a.emit(ctx, Event{Type: EventFault, Session: of, Err: fmt.Errorf("auth: Hasher.Screen failed, so a new password was accepted without it: %w", detail{err})})
		err = nil
	}
	var hash string
	if err == nil {
		hash, err = a.hasher.Hash(ctx, next)
	}
	switch {
	case err == nil, errors.Is(err, password.ErrRefused), errors.Is(err, password.ErrEmpty), errors.Is(err, password.ErrTooLong), errors.Is(err, password.ErrBusy):
		return hash, err
	}
	return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// screen calls Hasher.CheckNew. The Hasher limits the call of Screen itself. Its
// limit must end first, so that it counts as a failure of Screen.
func (a *Authenticator) screen(ctx context.Context, next string) error {
	if a.hasher.Screen == nil {
		return a.hasher.CheckNew(ctx, next)
	}
	const byDefault = 2 * time.Second // of Hasher.ScreenTimeout
	timeout := cmp.Or(a.hasher.ScreenTimeout, byDefault) + hookGrace
	return a.runHook(ctx, "Hasher.Screen", timeout, func(ctx context.Context) error { return a.hasher.CheckNew(ctx, next) })
}

// maxPasswordTries bounds how often replacePassword tries to store the hash. It
// tries again if another hash was stored meanwhile.
const maxPasswordTries = 8

// replacePassword stores a hash of next for the user of a session, and ends the
// user's other sessions. of.ID is "" if there is no such session. allow decides
// whether the password of u may be replaced; already means that it is next.
//
// [PasswordUpdater] does not report whether it has replaced the hash. So
// replacePassword looks the user up afterward. If the user then has another hash
// than before, and not the new one, it begins again: the password may be the same,
// with a hash that a login has upgraded.
func (a *Authenticator) replacePassword(ctx context.Context, of Session, next string, d Device, allow func(u User) (already bool, err error)) error {
	if a.updater == nil {
		err := errors.New("auth: a password cannot be changed, because Config.Users does not implement PasswordUpdater")
		a.emitLimited(ctx, "PasswordUpdater", Event{Type: EventFault, Err: err})
		return reportedError{err}
	}
	var hash, replaced string // of next, and the one that it replaces
	var failed error
	lookup := ctx
	for tries := 0; ; tries++ {
		u, err := a.findByID(lookup, of.Subject)
		switch {
		case errors.Is(err, ErrUserNotFound) && of.ID != "":
			return ErrSessionRevoked
		case err != nil:
			return err
		case hash != "" && u.PasswordHash == hash:
			return a.passwordReplaced(ctx, of, d)
		case failed != nil:
			return failed
		case hash != "" && u.PasswordHash == replaced:
			return a.unavailable(lookup, of, errors.New("auth: Users.UpdatePasswordHash returned no error, but Users.FindByID still returns the old hash; it must return what was stored"))
		case tries == maxPasswordTries:
			return a.unavailable(lookup, of, errors.New("auth: the password was changed by other requests again and again"))
		}
		switch already, err := allow(u); {
		case err != nil:
			return err
		case already:
			return a.passwordReplaced(ctx, of, d)
		case hash == "":
			if hash, err = a.hashPassword(ctx, of, next); err != nil {
				return err
			}
		}
		// Once the hash may be stored, the other sessions must end, even if the
		// client disconnects.
		limited, cancel := a.withinStoreTimeout(ctx)
		defer cancel()
		lookup, replaced = limited, u.PasswordHash
		err = a.updatePasswordHash(limited, u.ID, replaced, hash)
		if err != nil { // it may have been carried out
			failed = a.unavailable(limited, of, fmt.Errorf("auth: Users.UpdatePasswordHash: %w", detail{err}))
		}
	}
}

// passwordReplaced ends the sessions of a user whose password was replaced, except
// the session in which that was done.
func (a *Authenticator) passwordReplaced(ctx context.Context, of Session, d Device) error {
	err := a.RevokeAll(ctx, of.Subject, of.ID)
	a.emit(ctx, Event{Type: EventPassword, Session: of, Device: d, Err: err})
	return err
}
