package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/ratchet-go/auth/password"
)

// Bounds of SessionOptions.AMR.
const (
	maxAMR     = 8
	maxAMRText = 32
)

// SessionOptions is what is known of a login besides who it is. The zero SessionOptions is
// allowed.
type SessionOptions struct {
	_ [0]func() // keyed literals only

	Device Device
	Name   string   // of the device, as its user calls it; cleaned, at most 100 bytes
	AMR    []string // how the user proved himself (RFC 8176): at most 8 of at most 32 bytes; Login sets "pwd" if empty
	Data   []byte   // the application's own for the session, at most 900 bytes; Session.Data gives it back

	// Replaces are tokens of either kind that the client held until now, such
	// as those of [Authenticator.CookieTokens]. The login ends the session of
	// every one that was validly signed here, expired or not, whoever's it is.
	Replaces []string `json:"-"`

	// InBody says that the tokens do not travel in cookies, so that the size
	// of a cookie does not limit them.
	InBody bool
}

// Format prints the sign-in without the tokens that it replaces.
func (in SessionOptions) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "auth.SessionOptions{device %q amr %q}", in.Name, in.AMR)
}

// LogValue logs what Format prints.
func (in SessionOptions) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(in)) }

// maxAppData leaves room for the name within Session.Opaque.
const maxAppData = 900

func (in *SessionOptions) clean() error {
	in.Device = cleanDevice(in.Device)
	in.Name = cleanText(in.Name, maxDeviceName)
	if len(in.Data) > maxAppData {
		return fmt.Errorf("auth: SessionOptions.Data is %d bytes, at most %d are kept", len(in.Data), maxAppData)
	}
	if len(in.AMR) > maxAMR {
		return fmt.Errorf("auth: SessionOptions.AMR has %d entries, at most %d are kept", len(in.AMR), maxAMR)
	}
	for i, m := range in.AMR {
		if !isScope(m) || len(m) > maxAMRText {
			return fmt.Errorf("auth: SessionOptions.AMR[%d] is not a word of at most %d characters", i, maxAMRText)
		}
	}
	return nil
}

// Login checks a password and opens a session. An unknown user, a wrong
// password and a disabled user cost the same and are all
// [ErrInvalidCredentials]; OnEvent is told which it was.
// [password.ErrBusy] and [ErrUnavailable] mean that it could not be decided.
func (a *Authenticator) Login(ctx context.Context, login, pass string, in SessionOptions) (Tokens, error) {
	rd := a.snapshot()
	if len(in.AMR) == 0 {
		in.AMR = []string{"pwd"}
	}
	if err := in.clean(); err != nil {
		return Tokens{}, err
	}
	u, err := a.findUser(ctx, "FindByLogin", func() (User, error) { return a.users.FindByLogin(ctx, login) })
	known := err == nil
	if err != nil && !errors.Is(err, ErrUserNotFound) {
		return Tokens{}, err
	}
	refused := func(why string) (Tokens, error) {
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: in.Device, Err: errors.New(why)})
		return Tokens{}, ErrInvalidCredentials
	}
	switch err := a.checkPassword(ctx, u, pass); {
	case err == nil:
	case errors.Is(err, ErrInvalidCredentials):
		if !known {
			return refused("unknown user")
		}
		return refused("wrong password")
	default:
		return Tokens{}, err
	}
	if u.Disabled {
		return refused("user is disabled")
	}
	t, err := a.createSession(ctx, rd, u, in, func(fresh User) error {
		if fresh.PasswordHash == u.PasswordHash {
			return nil
		}
		return a.checkPassword(ctx, fresh, pass)
	})
	if isRefusal(err) {
		return refused(err.Error())
	}
	if err == nil {
		a.upgradeHash(ctx, u, pass)
	}
	return t, err
}

// StartSession opens a session for a user whose identity the application proved by
// other means, such as OAuth, a passkey or a magic link; say which in
// SessionOptions.AMR. [ErrInvalidCredentials] if there is no such user or he is
// disabled.
func (a *Authenticator) StartSession(ctx context.Context, userID string, in SessionOptions) (Tokens, error) {
	rd := a.snapshot()
	if err := in.clean(); err != nil {
		return Tokens{}, err
	}
	u, err := a.findByID(ctx, userID)
	switch {
	case errors.Is(err, ErrUserNotFound):
		err = fmt.Errorf("%w: unknown user", ErrInvalidCredentials)
	case err == nil && u.Disabled:
		err = fmt.Errorf("%w: user is disabled", ErrInvalidCredentials)
	}
	var t Tokens
	if err == nil {
		t, err = a.createSession(ctx, rd, u, in, func(User) error { return nil })
	}
	if isRefusal(err) {
		a.emit(ctx, Event{Type: EventLoginRefused, Session: Session{Subject: u.ID}, Device: in.Device, Err: err})
		err = ErrInvalidCredentials
	}
	return t, err
}

// isRefusal tells a decision from a fault whose cause, the application's own
// error, happens to wrap the same.
func isRefusal(err error) bool {
	return errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrUnavailable)
}

// findUser calls the application's lookup.
func (a *Authenticator) findUser(ctx context.Context, name string, find func() (User, error)) (User, error) {
	var u User
	err := callHook("Users."+name, func() (err error) {
		u, err = find()
		return err
	})
	if err == nil {
		err = checkUser(&u)
	}
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, ErrUserNotFound):
		return User{}, ErrUserNotFound
	}
	return User{}, a.unavailable(ctx, Session{}, fmt.Errorf("auth: Users.%s: %w", name, err))
}

func (a *Authenticator) findByID(ctx context.Context, id string) (User, error) {
	return a.findUser(ctx, "FindByID", func() (User, error) {
		u, err := a.users.FindByID(ctx, id)
		if err == nil && u.ID != id {
			err = errors.New("it returned another user")
		}
		return u, err
	})
}

// checkPassword runs the same key derivation whoever the user is: one that
// does not exist (the zero User) or has no password costs what a wrong
// password does.
func (a *Authenticator) checkPassword(ctx context.Context, u User, pass string) error {
	var err error
	if u.PasswordHash != "" {
		err = a.hasher.Verify(ctx, u.PasswordHash, pass)
	}
	unreadable := errors.Is(err, password.ErrHash)
	if unreadable {
		a.emit(ctx, Event{Type: EventFault, Session: Session{Subject: u.ID}, Err: fmt.Errorf("auth: User.PasswordHash: %w", err)})
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
		return fmt.Errorf("%w: wrong password", ErrInvalidCredentials)
	case errors.Is(err, password.ErrBusy):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// upgradeHash replaces a weak hash after its password was proved. The login
// does not depend on it.
func (a *Authenticator) upgradeHash(ctx context.Context, u User, pass string) {
	if a.updater == nil || !a.hasher.NeedsRehash(u.PasswordHash) {
		return
	}
	hash, err := a.hasher.Hash(ctx, pass)
	if err == nil {
		err = callHook("Users.UpdatePasswordHash", func() error {
			return a.updater.UpdatePasswordHash(ctx, u.ID, u.PasswordHash, hash)
		})
	}
	if err != nil {
		_ = a.unavailable(ctx, Session{Subject: u.ID}, fmt.Errorf("auth: upgrading a password hash: %w", err))
	}
}

// createSession creates a session for a user as he was found after the clock was read.
// recheck is asked about the user as he is once the session exists, so that no
// login slips past a change.
func (a *Authenticator) createSession(ctx context.Context, rd snapshot, u User, in SessionOptions, recheck func(User) error) (Tokens, error) {
	created := a.revoked.earliestIssue(u.ID, rd)
	s := Session{
		ID: randomID(), Subject: u.ID, Generation: 1, CreatedAt: created, RotatedAt: rd.now,
		ExpiresAt: a.sessionEnd(created, rd.now), Device: in.Device, Opaque: joinData(in.Name, in.Data),
	}
	t, err := a.mintAccess(ctx, u, s.ID, in.AMR, rd.now, created, created, s.ExpiresAt)
	if err == nil {
		err = a.fitsCookie(t.Access, in.InBody)
	}
	if err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}
	if err := a.mintRefresh(&t, s, in.AMR); err != nil {
		return Tokens{}, a.internalError(ctx, s, err)
	}
	if err := a.callStore(ctx, s, "Create", func(ctx context.Context) error { return a.store.Create(ctx, s) }); err != nil {
		return Tokens{}, err
	}
	if err := a.finishLogin(ctx, s, in, recheck); err != nil {
		// Nobody holds its tokens; it would only lie about. A store that does
		// not answer is not waited for once more: Run tries again.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.storeTimeout, cleanupTimeout))
		defer cancel()
		_ = a.revoke(last, Revocation{Subject: s.Subject, Sessions: []string{s.ID}}, "login")
		return Tokens{}, err
	}
	a.emit(ctx, Event{Type: EventLogin, Session: s, Device: in.Device})
	return t, nil
}

// finishLogin does what a login entails once its session exists.
func (a *Authenticator) finishLogin(ctx context.Context, s Session, in SessionOptions, recheck func(User) error) error {
	fresh, err := a.findByID(ctx, s.Subject)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return fmt.Errorf("%w: user is gone", ErrInvalidCredentials)
	case err != nil:
		return err
	case fresh.Disabled:
		return fmt.Errorf("%w: user is disabled", ErrInvalidCredentials)
	}
	if err := recheck(fresh); err != nil {
		return err
	}
	replaced, err := a.namedSessions(ctx, in.Replaces)
	if err != nil {
		return err
	}
	replaced = slices.DeleteFunc(replaced, func(n namedSession) bool { return n.subject == s.Subject && n.sid == s.ID })
	if err := a.evictSessions(ctx, s, replaced); err != nil {
		return err
	}
	// The sessions that the client still holds go last, when nothing else can
	// keep the new one from it.
	return a.revokeNamed(ctx, replaced, "replaced")
}

// evictSessions ends the sessions beyond the limit, the least recently used first, but
// not the one that was just made. Those that it replaces do not count, since
// they are ended as well.
func (a *Authenticator) evictSessions(ctx context.Context, made Session, replaced []namedSession) error {
	if a.maxSessions == 0 {
		return nil
	}
	list, err := a.liveSessions(ctx, made.Subject, func(*entry) bool { return true })
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s Session) bool {
		return s.ID == made.ID || slices.ContainsFunc(replaced, func(n namedSession) bool { return n.subject == s.Subject && n.sid == s.ID })
	})
	var ids []string
	for _, s := range list[min(len(list), a.maxSessions-1):] {
		ids = append(ids, s.ID)
	}
	return a.revoke(context.WithoutCancel(ctx), Revocation{Subject: made.Subject, Sessions: ids}, "evicted")
}
