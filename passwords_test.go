package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

const newPass = "a new and longer password"

// storedUsers implements PasswordUpdater as a database does: UpdatePasswordHash
// compares and replaces in one step.
type storedUsers struct {
	*users
	before func()      // called before each UpdatePasswordHash
	lost   atomic.Bool // UpdatePasswordHash replaces the hash, and returns an error
	down   atomic.Bool // UpdatePasswordHash replaces nothing, and returns an error
	absent atomic.Bool // UpdatePasswordHash replaces nothing, and returns nil
	olds   []string    // each old that replaced a hash
}

func (u *storedUsers) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	if u.before != nil {
		u.before()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case u.down.Load():
		return errors.New("update fault of a test")
	case u.absent.Load():
		return nil
	}
	u.change(id, func(user *auth.User) {
		if user.PasswordHash == old {
			user.PasswordHash = next
			u.olds = append(u.olds, old)
		}
	})
	if u.lost.Load() {
		return errors.New("the answer was lost in a test")
	}
	return nil
}

func (u *storedUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	if err := ctx.Err(); err != nil {
		return auth.User{}, err
	}
	return u.users.FindByID(ctx, id)
}

// hash returns the stored hash of a user.
func (u *storedUsers) hash(id string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.byID[id].PasswordHash
}

// passwords is a fixture whose users can change their passwords.
type passwords struct {
	*fixture
	stored *storedUsers
}

func newPasswords(t testing.TB, change ...func(*auth.Config)) *passwords {
	t.Helper()
	fx := &passwords{}
	fx.fixture = newFixture(t, append([]func(*auth.Config){func(c *auth.Config) {
		fx.stored = &storedUsers{users: c.Users.(*users)}
		c.Users = fx.stored
	}}, change...)...)
	return fx
}

// change changes the password of ada from pass to newPass, in the session of tokens.
func (fx *passwords) change(t *testing.T, tokens auth.Tokens) error {
	t.Helper()
	return fx.ChangePassword(context.Background(), verifiedClaims(t, fx.Authenticator, tokens.Access), pass, newPass, laptop)
}

// requirePassword requires that ada signs in with a password, and not with the others.
func (fx *passwords) requirePassword(t testing.TB, valid string, others ...string) {
	t.Helper()
	_, err := fx.CheckPassword(context.Background(), "ada", valid, auth.Device{})
	require.NoError(t, err)
	for _, other := range others {
		_, err := fx.CheckPassword(context.Background(), "ada", other, auth.Device{})
		require.Equal(t, auth.ErrInvalidCredentials, err)
	}
}

// requireSessions requires that exactly these sessions of a subject go on.
func (fx *passwords) requireSessions(t testing.TB, subject string, tokens ...auth.Tokens) {
	t.Helper()
	list, err := fx.Sessions(context.Background(), subject)
	require.NoError(t, err)
	got, want := []string{}, []string{}
	for _, s := range list {
		got = append(got, s.ID)
	}
	for _, k := range tokens {
		want = append(want, k.SessionID)
		_, err := fx.Verify(context.Background(), k.Access)
		require.NoError(t, err)
	}
	require.ElementsMatch(t, want, got)
}

func TestCheckPassword_OpensNoSession(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	fx.store.resetCounts()
	u, err := fx.CheckPassword(t.Context(), "ada@example.com", pass, laptop)
	require.NoError(t, err)
	require.Equal(t, "u1", u.ID)
	for _, method := range []string{"Create", "Get", "List", "Rotate", "Revoke"} {
		require.Zero(t, fx.store.count(method), method)
	}
	require.Empty(t, fx.events.all)
}

// CheckPassword and Login refuse with one error and after one key derivation.
func TestCheckPassword_AllRefusalsAreEqual(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t, func(c *auth.Config) { c.Hasher = &password.Hasher{Memory: 64, Time: 1, Queue: -1} })
	fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
	fx.users.byID["u3"] = auth.User{ID: "u3", Username: "oauth"}
	fx.users.byID["u4"] = auth.User{ID: "u4", Username: "broken", PasswordHash: "$argon2id$nonsense"}
	fx.users.byID[""] = auth.User{Username: "unusable", PasswordHash: passHash}
	for _, tt := range []struct{ login, pass, subject, why string }{
		{"nobody", pass, "", "unknown user"},
		{"a\x00da", pass, "", "unknown user"},
		{"ada", "wrong", "u1", "wrong password"},
		{"ada", "", "u1", "wrong password"},
		{"bob", pass, "u2", "user is disabled"},
		{"oauth", pass, "u3", "User.PasswordHash is empty"},
		{"broken", pass, "u4", "the stored hash cannot be used"},
		{"unusable", "wrong", "", "wrong password; Users.FindByLogin returned the user \"\": User.ID is empty"},
	} {
		u, err := fx.CheckPassword(t.Context(), tt.login, tt.pass, auth.Device{UserAgent: "a\x00gent", IP: laptop.IP})
		require.Equal(t, auth.ErrInvalidCredentials, err, tt.login)
		require.Zero(t, u)
		refused := fx.events.take(auth.EventLoginRefused)
		require.Len(t, refused, 1)
		require.Equal(t, auth.Device{UserAgent: "agent", IP: laptop.IP}, refused[0].Device)
		require.Equal(t, tt.subject, refused[0].Session.Subject)
		require.EqualError(t, refused[0].Err, "auth: invalid credentials: "+tt.why)
	}
	_, err := fx.CheckPassword(t.Context(), "unusable", pass, auth.Device{})
	require.Equal(t, 500, auth.ResponseFor(err).Status)
	fx.users.fail = errors.New("lookup fault of a test")
	_, err = fx.CheckPassword(t.Context(), "ada", pass, auth.Device{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
}

// A login whose hash was upgraded needs no second key derivation.
func TestCheckPassword_UpgradesAWeakHash(t *testing.T) {
	t.Parallel()
	weak, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	require.NoError(t, err)
	fx := newPasswords(t)
	for range 2 {
		fx.users.change("u1", func(u *auth.User) { u.PasswordHash = string(weak) })
		u, err := fx.CheckPassword(t.Context(), "ada", pass, auth.Device{})
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(u.PasswordHash, "$argon2id$"))
		require.Equal(t, fx.stored.hash("u1"), u.PasswordHash)
	}
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = string(weak) })
	fx.stored.down.Store(true)
	u, err := fx.CheckPassword(t.Context(), "ada", pass, auth.Device{})
	require.NoError(t, err, "the password is correct, whether or not the hash is upgraded")
	require.Equal(t, string(weak), u.PasswordHash)
	require.Len(t, fx.events.take(auth.EventFault), 1)
}

func TestChangePassword_EndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own, other := fx.login(t), fx.login(t)
	bob, err := fx.Login(t.Context(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	fx.events.take("")
	require.NoError(t, fx.change(t, own))

	changed := fx.events.all
	require.Equal(t, []auth.EventType{auth.EventRevoked, auth.EventPassword}, []auth.EventType{changed[0].Type, changed[1].Type})
	require.Len(t, changed, 2)
	require.Equal(t, auth.Session{Subject: "u1", ID: own.SessionID}, changed[1].Session)
	require.Equal(t, laptop, changed[1].Device)
	require.NoError(t, changed[1].Err)
	secrets := needles(map[string][]byte{"old": []byte(pass), "new": []byte(newPass), "hash": []byte(fx.stored.hash("u1"))})
	requireNoSecret(t, "event", prints(changed[1], verbs...), secrets)

	fx.requireSessions(t, "u1", own)
	fx.requireSessions(t, "u2", bob)
	_, err = fx.Refresh(t.Context(), own.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	_, err = fx.Refresh(t.Context(), other.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	fx.requirePassword(t, newPass, pass)
	require.Equal(t, []string{passHash}, fx.stored.olds)
}

func TestChangePassword_RefusalsChangeNothing(t *testing.T) {
	t.Parallel()
	short := func(_ context.Context, next string) error {
		if len(next) < 8 {
			return fmt.Errorf("%w: too short", password.ErrRefused)
		}
		return nil
	}
	fx := newPasswords(t, func(c *auth.Config) {
		c.Hasher = &password.Hasher{Memory: 64, Time: 1, Screen: short}
		c.Limiter = &countingLimiter{} // never throttles
	})
	own, other := fx.login(t), fx.login(t)
	c := verifiedClaims(t, fx.Authenticator, own.Access)
	fx.users.byID["u3"] = auth.User{ID: "u3", Username: "oauth"}
	oauth, err := fx.StartSession(t.Context(), "u3", auth.SessionOptions{})
	require.NoError(t, err)
	of3 := verifiedClaims(t, fx.Authenticator, oauth.Access)
	for name, tt := range map[string]struct {
		claims        *auth.Claims
		current, next string
		err           error
		status        int
		code, text    string
	}{
		"wrong":            {c, "wrong", newPass, auth.ErrInvalidCredentials, 403, "invalid_credentials", "the current password is wrong"},
		"wrong and equal":  {c, "wrong", "wrong", auth.ErrInvalidCredentials, 403, "invalid_credentials", "the current password is wrong"},
		"no current":       {c, "", newPass, auth.ErrInvalidCredentials, 403, "invalid_credentials", "the current password is wrong"},
		"too long current": {c, strings.Repeat("x", 1025), newPass, auth.ErrInvalidCredentials, 403, "invalid_credentials", "the current password is wrong"},
		"has no password":  {of3, "", newPass, auth.ErrInvalidCredentials, 403, "invalid_credentials", "the current password is wrong"},
		"empty":            {c, pass, "", password.ErrEmpty, 400, "invalid_request", "the password is empty"},
		"too long":         {c, pass, strings.Repeat("x", 1025), password.ErrTooLong, 400, "invalid_request", "the password is longer than 1024 bytes"},
		"screened":         {c, pass, "short", password.ErrRefused, 422, "password_refused", "the new password is not accepted; choose another one"},
		"the same":         {c, pass, pass, password.ErrRefused, 422, "password_refused", "the new password is the current one; choose another one"},
		"no session":       {&auth.Claims{Issuer: issuer, Subject: "u1"}, pass, newPass, auth.ErrSessionRevoked, 401, "invalid_token", "the session has ended"},
		"unknown session":  {&auth.Claims{Issuer: issuer, Subject: "u1", SessionID: oauth.SessionID}, pass, newPass, auth.ErrSessionRevoked, 401, "invalid_token", "the session has ended"},
		"no claims":        {nil, pass, newPass, nil, 500, "server_error", "the server could not do this"},
	} {
		fx.events.take("")
		err := fx.ChangePassword(t.Context(), tt.claims, tt.current, tt.next, laptop)
		require.Error(t, err, name)
		if tt.err != nil {
			require.ErrorIs(t, err, tt.err, name)
		}
		r := auth.ResponseFor(err)
		require.Equal(t, []any{tt.status, tt.code, tt.text}, []any{r.Status, r.Code, r.Description}, name)
		require.Equal(t, r.Status == 401, r.Action != "", name)
		refused := fx.events.take(auth.EventLoginRefused)
		if tt.status == 403 {
			require.Len(t, refused, 1, name)
			require.Equal(t, auth.Session{Subject: tt.claims.Subject, ID: tt.claims.SessionID}, refused[0].Session)
			require.Equal(t, laptop, refused[0].Device)
			require.ErrorContains(t, refused[0].Err, "the password was not changed")
		} else {
			require.Empty(t, refused, name)
		}
	}
	fx.requirePassword(t, pass)
	fx.requireSessions(t, "u1", own, other)
	require.Empty(t, fx.stored.olds)
}

func TestChangePassword_OfAUserWhoIsGoneEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*users){
		"disabled": func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		"deleted":  func(u *users) { u.mu.Lock(); defer u.mu.Unlock(); delete(u.byID, "u1") },
	} {
		fx := newPasswords(t)
		own := fx.login(t)
		change(fx.users)
		require.ErrorIs(t, fx.change(t, own), auth.ErrSessionRevoked, name)
		require.Empty(t, fx.stored.olds)
	}
}

func TestPasswords_AnActorChangesNone(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	k, err := fx.StartSession(t.Context(), "u1", auth.SessionOptions{Actor: "u2"})
	require.NoError(t, err)
	c := verifiedClaims(t, fx.Authenticator, k.Access)
	err = fx.ChangePassword(t.Context(), c, pass, newPass, laptop)
	require.ErrorIs(t, err, auth.ErrForbidden)
	require.Equal(t, 403, auth.ResponseFor(err).Status)
	for _, id := range []string{"u1", "u2"} {
		require.ErrorIs(t, fx.SetPassword(auth.NewContext(t.Context(), c), id, newPass, auth.Device{}), auth.ErrForbidden)
	}
	send(t, fx.PasswordHandler(), http.MethodPost, "/password", reqBearer(k.Access),
		reqJSON(`{"current_password":"`+pass+`","new_password":"`+newPass+`"}`)).requireRefused(t, 403, "insufficient_scope", "")
	require.Empty(t, fx.stored.olds)
	admin := auth.NewContext(t.Context(), &auth.Claims{Subject: "u2"})
	require.NoError(t, fx.SetPassword(admin, "u1", newPass, auth.Device{}))
}

// The session was ended by a process whose revocation this one has not read.
func TestChangePassword_AsksTheStoreWhetherTheSessionExists(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own := fx.login(t)
	fx.store.on(func(context.Context) error { return auth.ErrSessionNotFound }, "Get")
	require.ErrorIs(t, fx.change(t, own), auth.ErrSessionRevoked)
	require.Empty(t, fx.stored.olds)
}

// The claims of a stream may be older than a revocation that the store has not
// confirmed.
func TestChangePassword_RefusesClaimsThatThisProcessHasRevoked(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own := fx.login(t)
	c := verifiedClaims(t, fx.Authenticator, own.Access)
	try := func() error { return fx.ChangePassword(t.Context(), c, pass, newPass, laptop) }
	require.NoError(t, fx.ExpireAccess(t.Context(), "u1"))
	require.ErrorIs(t, try(), auth.ErrTokenExpired)
	fx.store.failBefore("Revoke", errStore)
	require.ErrorIs(t, fx.Revoke(t.Context(), "u1", own.SessionID), auth.ErrUnavailable)
	require.ErrorIs(t, try(), auth.ErrSessionRevoked)
	require.Empty(t, fx.stored.olds)
}

func TestChangePassword_RequiresPasswordUpdater(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	c := verifiedClaims(t, fx.Authenticator, fx.login(t).Access)
	fx.events.take("")
	for range 3 { // clients can cause this error at will
		err := fx.ChangePassword(t.Context(), c, pass, newPass, laptop)
		require.EqualError(t, err, "auth: a password cannot be changed, because Config.Users does not implement PasswordUpdater")
		require.Equal(t, 500, auth.ResponseFor(err).Status)
		require.Error(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}))
	}
	require.Len(t, fx.events.take(auth.EventFault), 1)
	r := send(t, fx.Handler(), http.MethodPost, "/password", reqBearer(fx.login(t).Access), reqJSON(`{"current_password":"x","new_password":"y"}`))
	r.requireRefused(t, 404, "not_found", "")
	require.Contains(t, r.body, "there is no endpoint /password; Config.Users must implement PasswordUpdater")
	require.Empty(t, fx.events.take(auth.EventFault))
}

// Whatever fails, the client gets 503, an event reports it, and a repeated call
// completes the change. In no state has the password changed and the call succeeded
// while another session goes on.
func TestChangePassword_AFaultAtAnyStepIsRepaired(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails   func(fx *passwords)
		text    string // of the error
		changed bool   // the password has changed
		ended   bool   // the other sessions have ended in this process
	}{
		"reading the session":      {func(fx *passwords) { fx.store.failBefore("Get", errStore) }, "Store.Get: injected", false, false},
		"the first lookup":         {func(fx *passwords) { fx.users.failIn(1) }, "lookup fault of a test", false, false},
		"the update":               {func(fx *passwords) { fx.stored.down.Store(true) }, "Users.UpdatePasswordHash: update fault of a test", false, false},
		"an update without effect": {func(fx *passwords) { fx.stored.absent.Store(true) }, "FindByID still returns the old hash", false, false},
		"the second lookup":        {func(fx *passwords) { fx.users.failIn(2) }, "lookup fault of a test", true, false},
		"listing the sessions":     {func(fx *passwords) { fx.store.failBefore("List", errStore) }, "Store.List: injected", true, true},
		"ending the sessions":      {func(fx *passwords) { fx.store.failBefore("Revoke", errStore) }, "Store.Revoke: injected", true, true},
		"the answer of the store":  {func(fx *passwords) { fx.store.failAfter("Revoke", errStore) }, "Store.Revoke: injected", true, true},
	} {
		fx := newPasswords(t)
		own, other := fx.login(t), fx.login(t)
		fx.events.take("")
		tt.fails(fx)
		err := fx.change(t, own)
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		require.ErrorContains(t, err, tt.text, name)
		require.Equal(t, 503, auth.ResponseFor(err).Status)
		require.NotEmpty(t, fx.events.take(auth.EventFault), name)
		require.Equal(t, tt.changed, fx.stored.hash("u1") != passHash, name)
		_, err = fx.Verify(t.Context(), own.Access)
		require.NoError(t, err, "%s: nobody who should not be is signed out", name)
		_, err = fx.Verify(t.Context(), other.Access)
		require.Equal(t, tt.ended, err != nil, name)

		fx.store.failBefore("Get", nil)
		fx.store.failBefore("List", nil)
		fx.store.failBefore("Revoke", nil)
		fx.store.failAfter("Revoke", nil)
		fx.users.failIn(0)
		fx.stored.down.Store(false)
		fx.stored.absent.Store(false)
		require.NoError(t, fx.change(t, own), "%s: the client repeats the request", name)
		require.Len(t, fx.events.take(auth.EventPassword), 1, name)
		fx.requirePassword(t, newPass, pass)
		fx.requireSessions(t, "u1", own)
		fx.stop()
	}
}

func TestChangePassword_EventSaysThatSessionsMayGoOn(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own := fx.login(t)
	fx.store.failBefore("Revoke", errStore)
	require.ErrorIs(t, fx.change(t, own), auth.ErrUnavailable)
	list := fx.events.take(auth.EventPassword)
	require.Len(t, list, 1)
	require.ErrorIs(t, list[0].Err, auth.ErrUnavailable)
}

func TestChangePassword_ALostAnswerOfTheUpdateIsNoFailure(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own, _ := fx.login(t), fx.login(t)
	fx.stored.lost.Store(true)
	require.NoError(t, fx.change(t, own))
	require.Len(t, fx.stored.olds, 1)
	fx.requirePassword(t, newPass, pass)
	fx.requireSessions(t, "u1", own)
	require.Len(t, fx.events.take(auth.EventFault), 1)
}

// The client disconnects when the hash is being stored.
func TestChangePassword_CompletesWithoutTheClient(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own, _ := fx.login(t), fx.login(t)
	ctx, cancel := context.WithCancel(t.Context())
	fx.stored.before = cancel
	require.NoError(t, fx.ChangePassword(ctx, verifiedClaims(t, fx.Authenticator, own.Access), pass, newPass, laptop))
	fx.requirePassword(t, newPass, pass)
	fx.requireSessions(t, "u1", own)
}

// A change whose hash was replaced meanwhile depends on what replaced it.
func TestChangePassword_LostRace(t *testing.T) {
	t.Parallel()
	hashOf := func(pass string) string {
		hash, err := fastHasher.Hash(t.Context(), pass)
		require.NoError(t, err)
		return hash
	}
	for name, tt := range map[string]struct {
		other string // the password that the other call stores
		err   error
	}{
		"a login upgrades the hash":          {pass, nil},
		"another call sets the same":         {newPass, nil},
		"another call sets another password": {"somebody's password", auth.ErrInvalidCredentials},
	} {
		fx := newPasswords(t)
		own, other := fx.login(t), fx.login(t)
		fx.stored.before = func() {
			fx.stored.before = nil
			hash := hashOf(tt.other)
			fx.users.change("u1", func(u *auth.User) { u.PasswordHash = hash })
		}
		err := fx.change(t, own)
		if tt.err != nil {
			require.ErrorIs(t, err, tt.err, name)
			require.Equal(t, 403, auth.ResponseFor(err).Status)
			fx.requirePassword(t, tt.other, newPass, pass)
			fx.requireSessions(t, "u1", own, other)
			continue
		}
		require.NoError(t, err, name)
		fx.requirePassword(t, newPass, pass)
		fx.requireSessions(t, "u1", own)
	}
}

func TestChangePassword_GivesUpIfTheHashChangesAgainAndAgain(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own := fx.login(t)
	updates := 0
	fx.stored.before = func() {
		updates++
		hash, err := fastHasher.Hash(t.Context(), pass)
		require.NoError(t, err)
		fx.users.change("u1", func(u *auth.User) { u.PasswordHash = hash })
	}
	require.ErrorIs(t, fx.change(t, own), auth.ErrUnavailable)
	require.Equal(t, 8, updates)
	require.Len(t, fx.events.take(auth.EventFault), 1)

	updates = 0
	fx.stored.before = func() {
		if updates++; updates < 8 {
			hash, err := fastHasher.Hash(t.Context(), pass)
			require.NoError(t, err)
			fx.users.change("u1", func(u *auth.User) { u.PasswordHash = hash })
		}
	}
	require.NoError(t, fx.change(t, own), "the last try counts")
	fx.requirePassword(t, newPass, pass)
}

func TestChangePassword_OneOfManyWins(t *testing.T) {
	t.Parallel()
	const n = 5 // more would be throttled
	for range 5 {
		fx := newPasswords(t, func(c *auth.Config) { c.Hasher = &password.Hasher{Memory: 64, Time: 1, Queue: 4 * n} })
		var waiting sync.WaitGroup // all calls have verified the current password before the first one stores
		waiting.Add(n)
		fx.stored.before = func() { waiting.Done(); waiting.Wait() }
		tokens := make([]auth.Tokens, n)
		for i := range tokens {
			tokens[i] = fx.login(t)
		}
		errs := make([]error, n)
		var done sync.WaitGroup
		for i := range n {
			c := verifiedClaims(t, fx.Authenticator, tokens[i].Access)
			done.Go(func() {
				errs[i] = fx.ChangePassword(context.Background(), c, pass, fmt.Sprint(newPass, i), laptop)
			})
		}
		done.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Negative(t, winner, "two calls changed the password")
				winner = i
				continue
			}
			// The others have the wrong password by then, and try it again.
			require.True(t, errors.Is(err, auth.ErrInvalidCredentials) || errors.Is(err, auth.ErrThrottled), err)
		}
		require.GreaterOrEqual(t, winner, 0)
		fx.clock.Advance(time.Minute)
		require.Equal(t, []string{passHash}, fx.stored.olds)
		fx.requirePassword(t, fmt.Sprint(newPass, winner), pass)
		fx.requireSessions(t, "u1", tokens[winner])
		fx.stop()
	}
}

// Two requests of one client, such as a double click, both succeed.
func TestChangePassword_EqualCallsAtOnceSucceed(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t, func(c *auth.Config) { c.Hasher = &password.Hasher{Memory: 64, Time: 1, Queue: 100} })
	own, _ := fx.login(t), fx.login(t)
	var done sync.WaitGroup
	for range 2 {
		done.Go(func() { require.NoError(t, fx.change(t, own)) })
	}
	done.Wait()
	require.Len(t, fx.stored.olds, 1)
	fx.requirePassword(t, newPass, pass)
	fx.requireSessions(t, "u1", own)
}

func TestSetPassword_EndsAllSessions(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	one, two := fx.login(t), fx.login(t)
	fx.events.take("")
	require.NoError(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}))
	list := fx.events.take(auth.EventPassword)
	require.Len(t, list, 1)
	require.Equal(t, auth.Session{Subject: "u1"}, list[0].Session)
	fx.requireSessions(t, "u1")
	for _, k := range []auth.Tokens{one, two} {
		_, err := fx.Verify(t.Context(), k.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
	fx.requirePassword(t, newPass, pass)
	require.NoError(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}), "a reset may set the password that the user had")
}

func TestSetPassword_OfAnyUser(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = "" })
	require.NoError(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}), "the user has no password yet")
	require.Equal(t, []string{""}, fx.stored.olds)
	fx.requirePassword(t, newPass)

	fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
	require.NoError(t, fx.SetPassword(t.Context(), "u2", newPass, auth.Device{}))
	_, err := fx.CheckPassword(t.Context(), "bob", newPass, auth.Device{})
	require.Equal(t, auth.ErrInvalidCredentials, err, "the user stays disabled")

	require.Equal(t, auth.ErrUserNotFound, fx.SetPassword(t.Context(), "u9", newPass, auth.Device{}))
	require.ErrorIs(t, fx.SetPassword(t.Context(), "u1", "", auth.Device{}), password.ErrEmpty)
	require.ErrorIs(t, fx.SetPassword(t.Context(), "u1", strings.Repeat("x", 1025), auth.Device{}), password.ErrTooLong)
	fx.requirePassword(t, newPass)
}

// Of two links that reset the password, the second one ends when the first one was
// used. A link stays good if the new password is refused.
func TestPasswords_AChangeEndsOneTimeTokens(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(fx *passwords) error{
		"SetPassword":    func(fx *passwords) error { return fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}) },
		"ChangePassword": func(fx *passwords) error { return fx.change(t, fx.login(t)) },
	} {
		fx := newPasswords(t)
		var links []string
		for _, bound := range []bool{true, true, false} {
			link, err := fx.IssueOneTime(t.Context(), auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour, BoundToPassword: bound})
			require.NoError(t, err)
			links = append(links, link)
		}
		require.ErrorIs(t, fx.SetPassword(t.Context(), "u1", "", auth.Device{}), password.ErrEmpty)
		for _, link := range links {
			_, err := fx.CheckOneTime(t.Context(), "reset", link)
			require.NoError(t, err, name)
		}
		require.NoError(t, change(fx), name)
		for _, link := range links {
			_, err := fx.CheckOneTime(t.Context(), "reset", link)
			require.Error(t, err, name)
			require.Less(t, auth.ResponseFor(err).Status, 500)
		}
	}
}

// Somebody who knows the old password changes it at the same moment. The reset
// wins, and their session ends.
func TestSetPassword_OverwritesAChangeAtTheSameTime(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	thiefs := fx.login(t)
	fx.stored.before = func() {
		fx.stored.before = nil
		require.NoError(t, fx.ChangePassword(t.Context(), verifiedClaims(t, fx.Authenticator, thiefs.Access), pass, "the thief's password", thief))
	}
	require.NoError(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}))
	fx.requirePassword(t, newPass, pass, "the thief's password")
	fx.requireSessions(t, "u1")
}

func TestSetPassword_FaultsAreRepaired(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(fx *passwords){
		"lookup": func(fx *passwords) { fx.users.failIn(1) },
		"update": func(fx *passwords) { fx.stored.down.Store(true) },
		"second": func(fx *passwords) { fx.users.failIn(2) },
		"revoke": func(fx *passwords) { fx.store.failBefore("Revoke", errStore) },
	} {
		fx := newPasswords(t)
		fx.login(t)
		fails(fx)
		require.ErrorIs(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}), auth.ErrUnavailable, name)
		fx.stored.down.Store(false)
		fx.store.failBefore("Revoke", nil)
		require.NoError(t, fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}), name)
		fx.requirePassword(t, newPass, pass)
		fx.requireSessions(t, "u1")
	}
}

// TestPasswords_EveryWayToSetOneIsScreened also shows that no way to verify one is.
func TestPasswords_EveryWayToSetOneIsScreened(t *testing.T) {
	t.Parallel()
	errLeaked := fmt.Errorf("%w: it was leaked", password.ErrRefused)
	var asked []string
	screen := func(_ context.Context, next string) error {
		asked = append(asked, next)
		return errLeaked
	}
	fx := newPasswords(t, func(c *auth.Config) { c.Hasher = &password.Hasher{Memory: 64, Time: 1, Screen: screen} })
	weak, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	require.NoError(t, err)
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = string(weak) })
	own := fx.login(t)
	require.Equal(t, []string{string(weak)}, fx.stored.olds, "the login has upgraded the hash")
	fx.requirePassword(t, pass, "wrong")
	require.ErrorIs(t, fx.ChangePassword(t.Context(), verifiedClaims(t, fx.Authenticator, own.Access), "wrong", newPass, laptop), auth.ErrInvalidCredentials)
	require.Empty(t, asked)

	for _, set := range []func() error{
		func() error { return fx.change(t, own) },
		func() error { return fx.SetPassword(t.Context(), "u1", newPass, auth.Device{}) },
		func() error { _, err := fx.HashPassword(t.Context(), newPass, auth.Device{}); return err },
	} {
		require.Equal(t, errLeaked, set(), "the application learns why")
		require.Equal(t, []string{newPass}, asked)
		asked = nil
	}
	fx.requirePassword(t, pass)
	require.Empty(t, fx.events.take(auth.EventFault))
}

// leakyAs is an error whose method As panics.
type leakyAs struct{ error }

func (leakyAs) As(any) bool { panic(newPass) }

// leaky is an error whose text panics.
type leaky struct{}

func (leaky) Error() string { panic(newPass) }

func TestPasswords_AScreenThatFailsLetsThePasswordPass(t *testing.T) {
	t.Parallel()
	for name, screen := range map[string]func(ctx context.Context, next string) error{
		"error":             func(context.Context, string) error { return errors.New("connection refused") },
		"error of auth":     func(context.Context, string) error { return auth.ErrForbidden },
		"mismatch":          func(context.Context, string) error { return password.ErrMismatch },
		"panic":             func(_ context.Context, next string) error { panic(next) },
		"error that panics": func(context.Context, string) error { return leaky{} },
		"As that panics":    func(context.Context, string) error { return leakyAs{errors.New("a fault")} },
		"no answer":         func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() },
	} {
		synctest.Test(t, func(t *testing.T) {
			u := &storedUsers{users: newUsers()}
			a, es := newNode(t, newTestStore(), func(c *auth.Config) {
				c.Users, c.Hasher = u, &password.Hasher{Memory: 64, Time: 1, Screen: screen}
			})
			defer run(a.Verifier)()
			<-a.Ready()
			tokens := startSession(t, a)
			es.take("")
			begin := time.Now()
			require.NoError(t, a.ChangePassword(t.Context(), verifiedClaims(t, a, tokens.Access), pass, newPass, laptop), name)
			if name == "no answer" {
				require.Equal(t, 2*time.Second, time.Since(begin), "the default of ScreenTimeout")
			}
			require.NotEqual(t, passHash, u.hash("u1"))
			faults := es.take(auth.EventFault)
			require.Len(t, faults, 1, name)
			require.Equal(t, tokens.SessionID, faults[0].Session.ID)
			require.ErrorContains(t, faults[0].Err, "auth: Hasher.Screen failed, so a new password was accepted without it: ")
			requireNoSecret(t, name, prints(faults[0], verbs...), needles(map[string][]byte{"new": []byte(newPass)}))
			_, err := a.HashPassword(t.Context(), newPass, auth.Device{})
			require.NoError(t, err, name)
			require.Len(t, es.take(auth.EventFault), 1, name)
		})
	}
}

// A client that disconnects, to keep the screen from answering, sets no password.
func TestPasswords_ACanceledScreenSetsNoPassword(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{"error": context.Canceled, "accepted": nil} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		fx := newPasswords(t, func(c *auth.Config) {
			c.Hasher = &password.Hasher{Memory: 64, Time: 1, Screen: func(context.Context, string) error { cancel(); return answer }}
		})
		own := fx.login(t)
		require.ErrorIs(t, fx.ChangePassword(ctx, verifiedClaims(t, fx.Authenticator, own.Access), pass, newPass, laptop), auth.ErrUnavailable, name)
		require.Empty(t, fx.stored.olds)
		require.Empty(t, fx.events.take(auth.EventFault))
	}
}

func TestHashPassword_ABusyHasherIsNoFault(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	hash, err := fx.HashPassword(t.Context(), newPass, auth.Device{})
	require.NoError(t, err)
	require.NoError(t, password.Verify(hash, newPass))
	_, err = fx.HashPassword(t.Context(), "", auth.Device{})
	require.Equal(t, password.ErrEmpty, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = fx.HashPassword(ended, newPass, auth.Device{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Equal(t, 422, auth.ResponseFor(password.ErrRefused).Status)
}

func TestPasswordHandler_ChangesThePassword(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]requestOption{
		"JSON": reqJSON(`{"current_password":"` + pass + `","new_password":"` + newPass + `"}`),
		"form": reqForm("current_password=correct+horse+battery+staple&new_password=a+new+and+longer+password&next=%2Faccount"),
	} {
		fx := newPasswords(t, withCookies())
		h := http.StripPrefix("/auth", fx.Handler())
		own, _ := fx.login(t), fx.login(t)
		refuse := func(status int, code, action string, options ...requestOption) {
			t.Helper()
			send(t, h, http.MethodPost, "/auth/password", options...).requireRefused(t, status, code, action)
		}
		refuse(401, "missing_token", "login", body)
		refuse(401, "missing_token", "login", body, reqCookie(refreshCookie, own.Refresh))
		refuse(403, "cross_origin", "", body, reqCookie(accessCookie, own.Access), crossSite)
		refuse(400, "invalid_request", "", reqBearer(own.Access))
		refuse(400, "invalid_request", "", reqBearer(own.Access), reqJSON(`{"current_password":"`+pass+`"}`))
		refuse(400, "invalid_request", "", reqBearer(own.Access), reqJSON(`{"new_password":"`+newPass+`"}`))
		refuse(400, "invalid_request", "", reqBearer(own.Access), reqJSON(`{"current_password":"`+pass+`","new_password":""}`))
		refuse(415, "invalid_request", "", reqBearer(own.Access), reqBody("text/plain", "x"))
		fx.events.take("")
		refuse(403, "invalid_credentials", "", reqBearer(own.Access), reqJSON(`{"current_password":"wrong","new_password":"`+newPass+`"}`))
		refuse(403, "invalid_credentials", "", reqBearer(own.Access), reqJSON(`{"current_password":"","new_password":"`+newPass+`"}`))
		require.Len(t, fx.events.all, 2, "one event for each refused password")
		require.Equal(t, 405, send(t, h, http.MethodGet, "/auth/password", reqBearer(own.Access)).status)
		require.Empty(t, fx.stored.olds)

		r := send(t, h, http.MethodPost, "/auth/password", body, reqCookie(accessCookie, own.Access))
		r.requireNoContent(t)
		require.NotContains(t, r.header, "Set-Cookie", "the session goes on")
		require.Equal(t, []string{"Cookie"}, r.header["Vary"][:1])
		fx.requirePassword(t, newPass, pass)
		fx.requireSessions(t, "u1", own)
		send(t, h, http.MethodPost, "/auth/password", body, reqCookie(accessCookie, own.Access)).requireNoContent(t)
		require.Len(t, fx.stored.olds, 1, name)
	}
}

func TestPasswordHandler_RedirectsTheFormOfAPage(t *testing.T) {
	t.Parallel()
	for next, location := range map[string]string{"": "/", "%2Faccount%3Fok": "/account?ok", "%2F%2Fevil.example": "/"} {
		fx := newPasswords(t, withPages)
		k := fx.login(t)
		form := "current_password=correct+horse+battery+staple&new_password=a+new+and+longer+password&next=" + next
		r := send(t, fx.PasswordHandler(), http.MethodPost, "/password", reqForm(form), pageLoad, reqCookie(accessCookie, k.Access))
		require.Equal(t, http.StatusSeeOther, r.status, r.body)
		require.Equal(t, location, r.header.Get("Location"))
		require.NotContains(t, r.header, "Set-Cookie")
	}
	// Behind Require, the form is served even if the access token has expired.
	fx := newPasswords(t, withPages)
	k := fx.login(t)
	fx.clock.Advance(time.Hour)
	form := reqForm("current_password=wrong&new_password=a+new+and+longer+password")
	cookies := []requestOption{pageLoad, reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh)}
	r := send(t, fx.Require()(fx.PasswordHandler()), http.MethodPost, "/password", append(cookies, form)...)
	require.Equal(t, http.StatusForbidden, r.status, "a page with the error, and no advice to sign in")
	require.Contains(t, r.body, "The current password is wrong.")
	form = reqForm("current_password=correct+horse+battery+staple&new_password=a+new+and+longer+password")
	r = send(t, fx.Require()(fx.PasswordHandler()), http.MethodPost, "/password", append(cookies, form)...)
	require.Equal(t, http.StatusSeeOther, r.status, r.body)
	fx.requirePassword(t, newPass, pass)
}

// Two tenants on one store may have users with the same ID. With AnyOf, a handler of
// one can be given the claims of the other.
func TestChangePassword_RefusesClaimsOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	other := newProcess(t, fx.fixture, func(c *auth.Config) { c.Issuer = "https://b.example.com" })
	tokens := other.login(t)
	err := fx.ChangePassword(context.Background(), verifiedClaims(t, other.Authenticator, tokens.Access), pass, newPass, laptop)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.Equal(t, passHash, fx.stored.hash("u1"))
	_, err = other.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
}
