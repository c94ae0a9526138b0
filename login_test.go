package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

func TestLogin_AllRefusalsAreEqualAndHashThePassword(t *testing.T) {
	t.Parallel()
	// A busy hasher returns an error of its own.
	full := &password.Hasher{Memory: 64, Time: 1, Queue: -1}
	fx := newFixture(t, func(c *auth.Config) { c.Hasher = full })
	fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
	fx.users.byID["u3"] = auth.User{ID: "u3", Username: "oauth"}
	fx.users.byID["u4"] = auth.User{ID: "u4", Username: "broken", PasswordHash: "$argon2id$nonsense"}
	try := func(login, pass string) error {
		_, err := fx.Login(context.Background(), login, pass, auth.SessionOptions{})
		return err
	}
	whys := map[string]bool{}
	for _, who := range [][2]string{
		{"nobody", pass}, {"ada", "wrong"}, {"bob", pass}, {"bob", "wrong"}, {"oauth", pass}, {"oauth", ""}, {"broken", pass},
		{"ada", strings.Repeat("x", 1025)},
	} {
		require.Equal(t, auth.ErrInvalidCredentials, try(who[0], who[1]), who)
		refused := fx.events.take(auth.EventLoginRefused)
		require.Len(t, refused, 1)
		whys[refused[0].Err.Error()] = true
	}
	require.Len(t, whys, 5, "the event must contain the reason")
	require.NoError(t, try("ada@example.com", pass))
}

// A database may return an error for a name that it cannot store. Anybody could
// then cause faults.
func TestLogin_NameThatDatabasesCannotStoreIsRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.users.fail = errors.New("invalid byte sequence")
	for _, login := range []string{"a\x00da", "\x00", "a\xffda", "\xed\xa0\x80"} {
		_, err := fx.Login(t.Context(), login, pass, auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err, "%q", login)
		_, err = fx.CheckPassword(t.Context(), login, pass, laptop)
		require.Equal(t, auth.ErrInvalidCredentials, err, "%q", login)
		_, err = fx.StartSession(t.Context(), login, auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err, "%q", login)
	}
	require.Empty(t, fx.events.take(auth.EventFault))
	_, err := fx.Login(t.Context(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
}

func TestLogin_UnreadableHashIsReportedAndRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = "plain text" })
	_, err := fx.Login(context.Background(), "ada", "plain text", auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.NotContains(t, faults[0].Err.Error(), "plain text")
}

func TestLogin_PasswordChangedMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	other, err := fastHasher.Hash(context.Background(), "another password")
	require.NoError(t, err)
	fx.users.onFind = func() {
		fx.users.change("u1", func(u *auth.User) { u.PasswordHash = other })
	}
	_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	list, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)

	// Another hash of the same password, for example after an upgrade, is
	// accepted.
	same, err := fastHasher.Hash(context.Background(), "another password")
	require.NoError(t, err)
	fx.users.onFind = func() {
		fx.users.change("u1", func(u *auth.User) { u.PasswordHash = same })
	}
	_, err = fx.Login(context.Background(), "ada", "another password", auth.SessionOptions{})
	require.NoError(t, err)
}

func TestStartSession_UserDisabledOrDeletedMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*users){
		func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		func(u *users) { u.mu.Lock(); defer u.mu.Unlock(); delete(u.byID, "u1") },
	} {
		fx := newFixture(t)
		calls := 0
		fx.users.onFind = func() {
			if calls++; calls == 2 {
				change(fx.users)
			}
		}
		_, err := fx.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err)
		list, err := fx.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	}
	fx := newFixture(t)
	_, err := fx.StartSession(context.Background(), "nobody", auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
}

// updatingUsers implements PasswordUpdater.
type updatingUsers struct {
	*users
	updates int
}

func (u *updatingUsers) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	u.change(id, func(user *auth.User) {
		if user.PasswordHash == old {
			user.PasswordHash = next
			u.updates++
		}
	})
	return nil
}

func TestLogin_UpgradesAWeakHash(t *testing.T) {
	t.Parallel()
	old, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	require.NoError(t, err)
	var up *updatingUsers
	fx := newFixture(t, func(c *auth.Config) {
		up = &updatingUsers{users: c.Users.(*users)}
		c.Users = up
	})
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = string(old) })
	_, err = fx.Login(context.Background(), "ada", "wrong", auth.SessionOptions{})
	require.Error(t, err)
	require.Zero(t, up.updates, "the hash must not be upgraded before the password was verified")
	for range 2 {
		_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.NoError(t, err)
		require.Equal(t, 1, up.updates)
	}
	require.True(t, strings.HasPrefix(fx.users.byID["u1"].PasswordHash, "$argon2id$"))
}

// noUsers finds no user, and returns err.
type noUsers struct{ err error }

func (u noUsers) FindByLogin(context.Context, string) (auth.User, error) { return auth.User{}, u.err }
func (u noUsers) FindByID(context.Context, string) (auth.User, error)    { return auth.User{}, u.err }

func TestLogin_TheErrorOfALookupWithoutRowsSaysWhatToReturn(t *testing.T) {
	t.Parallel()
	const advice = "; return auth.ErrUserNotFound if the user does not exist"
	for text, advised := range map[string]bool{
		"sql: no rows in result set":     true,
		"mongo: no documents in result":  true,
		"record not found":               true,
		"ent: User not found":            true,
		"connect: connection refused":    false,
		"context deadline exceeded: ada": false,
	} {
		fx := newFixture(t, func(c *auth.Config) { c.Users = noUsers{errors.New(text)} })
		_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		_, err = fx.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		events := fx.events.take(auth.EventFault)
		require.Len(t, events, 2)
		for _, e := range events {
			require.ErrorContains(t, e.Err, text)
			require.Equal(t, advised, strings.HasSuffix(e.Err.Error(), advice), text)
		}
	}
}

// byLoginOnly finds a user by login, and in FindByID too, which is a mistake.
type byLoginOnly struct{ user auth.User }

func (u byLoginOnly) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.user.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.user, nil
}

func (u byLoginOnly) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.FindByLogin(ctx, id)
}

func TestLogin_AFindByIDThatDoesNotFindTheUserIsAFault(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	user := fx.users.byID["u1"]
	user.Username = "ada"
	fx = newFixture(t, func(c *auth.Config) { c.Users = byLoginOnly{user} })
	_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
	events := fx.events.take(auth.EventFault)
	require.Len(t, events, 1)
	require.ErrorContains(t, events[0].Err, `auth: Users.FindByID does not find User.ID "u1", which was found before; it must find a user by User.ID`)
	_, err = fx.Login(context.Background(), "ada", "wrong", auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
	require.Empty(t, fx.events.take(auth.EventFault))
}

func TestLogin_StoreFaultsLeaveNoSessionBehind(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"Create", "List", "users2"} {
		fx := newFixture(t)
		if method == "users2" {
			fx.users.failIn(1) // FindByLogin is not counted, so the second lookup fails
		} else {
			fx.store.failBefore(method, errStore)
		}
		_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, method)
		fx.store.failBefore(method, nil)
		list, err := fx.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list, method)
	}
}

func TestLogin_EndsEverySessionThatItReplaces(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.Cookies = &auth.Cookies{} })
	ctx := context.Background()
	foreign := newFixture(t, func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} }).login(t)
	bob, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	late := fx.login(t)
	fx.clock.Advance(16 * time.Minute) // the access token has expired
	byAccess, byRefresh, other := fx.login(t), fx.login(t), fx.login(t)
	fx.events.take("")
	replaced := []string{"", "rubbish", foreign.Access, foreign.Refresh, late.Access, byAccess.Access, byRefresh.Refresh, byRefresh.Access, bob.Refresh}
	fresh, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: replaced})
	require.NoError(t, err)
	ended := fx.events.take(auth.EventRevoked)
	require.Len(t, ended, 4, "each session must be ended once")
	var reported [][3]string
	for _, e := range ended {
		reported = append(reported, [3]string{e.Session.Subject, e.Session.ID, e.Reason})
	}
	for _, k := range []auth.Tokens{late, byAccess, byRefresh, bob} {
		require.Contains(t, reported, [3]string{k.Subject, k.SessionID, "replaced"})
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
	}
	for _, k := range []auth.Tokens{fresh, other} {
		_, err = fx.Verify(ctx, k.Access)
		require.NoError(t, err)
	}
}

// If the store does not confirm that the replaced sessions have ended, the login
// goes on: the client would otherwise have neither them nor the new one. Run repeats
// the revocation, also for a session of which it is not known whether it exists.
func TestLogin_GoesOnIfAReplacedSessionIsNotRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := newTestStore()
		a, es := newNode(t, store)
		defer run(a.Verifier)()
		<-a.Ready()
		expired := startSession(t, a)
		time.Sleep(16 * time.Minute)
		one, two := startSession(t, a), startOtherSession(t, a)
		es.take("")
		for _, method := range []string{"Revoke", "Get"} {
			store.failBefore(method, errStore)
		}
		fresh, err := a.Login(ctx, "bob", pass, auth.SessionOptions{Replaces: []string{one.Refresh, two.Access, expired.Access}})
		require.NoError(t, err)
		require.Len(t, es.take(auth.EventFault), 4, "three revocations and a lookup")
		for _, k := range []auth.Tokens{one, two} {
			_, err = a.Verify(ctx, k.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
		}
		for _, method := range []string{"Revoke", "Get"} {
			store.failBefore(method, nil)
		}
		time.Sleep(time.Minute)
		for _, k := range []auth.Tokens{one, two, expired} {
			_, err = store.Get(ctx, k.Subject, k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
		_, err = a.Refresh(ctx, fresh.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	})
}

// A login leaves no session behind that no client has, and the driver may repeat
// Create.
func TestLogin_CreateWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	fx.store.failAfter("Create", errStore)
	_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	ended := fx.events.take(auth.EventRevoked)
	require.Len(t, ended, 1)
	require.Equal(t, "login", ended[0].Reason)
	list, err := fx.store.List(ctx, "u1")
	require.NoError(t, err)
	require.Empty(t, list)

	fx.store.failAfter("Create", fmt.Errorf("a store of a test: %w", auth.ErrSessionExists))
	k := fx.login(t)
	require.Empty(t, fx.events.take(auth.EventFault))
	_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)

	// A record that cannot be stored does not exist.
	fx.store.failAfter("Create", nil)
	fx.store.failBefore("Create", auth.ErrNotStorable)
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrNotStorable)
	require.Empty(t, fx.events.take(auth.EventRevoked))
}

func TestLogin_FailureKeepsTheClientsSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	old := fx.login(t)
	fx.store.failBefore("List", errStore)
	_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{Replaces: []string{old.Refresh}})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = fx.Verify(context.Background(), old.Access)
	require.NoError(t, err)
}

func TestLogin_AReplacedSessionDoesNotCount(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 2, 3} {
		fx := newFixture(t, func(c *auth.Config) { c.MaxSessions = limit })
		ctx := context.Background()
		var kept []auth.Tokens
		for range limit {
			kept = append(kept, fx.login(t))
			fx.clock.Advance(time.Second)
		}
		for range 3 { // the same browser signs in again
			next, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: []string{kept[limit-1].Access, kept[limit-1].Refresh}})
			require.NoError(t, err)
			kept[limit-1] = next
			for _, k := range kept {
				_, err := fx.Verify(ctx, k.Access)
				require.NoError(t, err, "limit %d: no other device may be signed out", limit)
			}
		}
	}
}

// All sessions were created in one millisecond, so the least recently used one
// is not determined.
func TestLogin_BeyondMaxSessionsKeepsTheNewOne(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.MaxSessions = 2 })
	for i := range 50 {
		tokens := fx.login(t)
		list, err := fx.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		require.Len(t, list, min(i+1, 2))
		_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	}
}

func TestLogin_BeyondMaxSessionsEndsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.MaxSessions = 2 })
	ctx := context.Background()
	one := fx.login(t)
	fx.clock.Advance(time.Minute)
	two := fx.login(t)
	fx.clock.Advance(time.Minute)
	one, err := fx.Refresh(ctx, one.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	fx.clock.Advance(time.Minute)
	three := fx.login(t)
	_, err = fx.Verify(ctx, two.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	for _, tokens := range []auth.Tokens{one, three} {
		_, err = fx.Verify(ctx, tokens.Access)
		require.NoError(t, err)
	}
	// With a clock that is behind, the new session is the oldest. It must not
	// be evicted, and the limit still applies.
	fx.clock.Advance(-time.Hour)
	four := fx.login(t)
	_, err = fx.Verify(ctx, four.Access)
	require.NoError(t, err)
	list, err := fx.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 2)
}

func TestLogin_GoesOnIfTheEvictionFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, open := range map[string]func(a *auth.Authenticator) (auth.Tokens, error){
		"login": func(a *auth.Authenticator) (auth.Tokens, error) {
			return a.Login(ctx, "ada", pass, auth.SessionOptions{})
		},
		"start": func(a *auth.Authenticator) (auth.Tokens, error) {
			return a.StartSession(ctx, "u1", auth.SessionOptions{})
		},
	} {
		for _, sessions := range []int{1, 2, 5} {
			synctest.Test(t, func(t *testing.T) {
				store := newTestStore()
				a, es := newNode(t, store, func(c *auth.Config) { c.MaxSessions = sessions })
				defer run(a.Verifier)()
				<-a.Ready()
				store.failBefore("Revoke", errStore)
				for range sessions {
					startSession(t, a) // within the limit no session is ended
					time.Sleep(time.Second)
				}
				require.Zero(t, store.count("Revoke"))
				require.Empty(t, es.take(auth.EventFault))
				tokens, err := open(a)
				require.NoError(t, err, name)
				require.Len(t, es.take(auth.EventFault), 1, name)
				list, err := store.List(ctx, "u1")
				require.NoError(t, err)
				require.Len(t, list, sessions+1, name)

				store.failBefore("Revoke", nil)
				time.Sleep(time.Minute)
				list, err = store.List(ctx, "u1")
				require.NoError(t, err)
				require.Len(t, list, sessions, "%s: Run repeats the revocation", name)
				_, err = a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
				require.NoError(t, err, name)
			})
		}
	}
	t.Run("without a limit", func(t *testing.T) {
		fx := newFixture(t, func(c *auth.Config) { c.MaxSessions = -1 })
		fx.store.failBefore("Revoke", errStore)
		for range 3 {
			fx.login(t)
		}
	})
}

func TestLogin_IsBoundedIfTheStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		store.on(hang, "Revoke", notice)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				begun := time.Now()
				tokens := startSession(t, a)
				require.LessOrEqual(t, time.Since(begun), 500*time.Millisecond)
				require.LessOrEqual(t, time.Until(tokens.AccessExpiresAt), time.Minute)
			})
		}
		wg.Wait()
		store.on(nil, "Revoke", notice)
		time.Sleep(time.Second)
		require.Greater(t, time.Until(startSession(t, a).AccessExpiresAt), 14*time.Minute)
	})
}

func TestStartSession_IsBoundedIfTheStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		store.on(func(ctx context.Context) error {
			store.on(hang, "Revoke", notice) // from here on
			return hang(ctx)
		}, "List")
		a, events := newNode(t, store)
		runNodes(t, a)
		begun := time.Now()
		_, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.LessOrEqual(t, time.Since(begun), 2500*time.Millisecond)
		require.NotEmpty(t, events.take(auth.EventFault))

		// The session of the failed call is ended when the store works again.
		list, err := store.Store.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Len(t, list, 1)
		store.on(nil, "Revoke", notice)
		time.Sleep(time.Minute)
		list, err = store.Store.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

// holdGate admits one job to h and puts the given number of jobs, at least one,
// into its queue. They stay there until the returned function is called. This
// does not depend on scheduling: a queued job calls Done of its context before
// it checks whether it was admitted, so a context whose Done blocks keeps the
// job in its place.
func holdGate(h *password.Hasher, waiting int) (release func()) {
	var jobs sync.WaitGroup
	free := make(chan struct{})
	hold := func() {
		ctx := &gateContext{Context: context.Background(), waits: make(chan struct{}), free: free}
		for {
			ended := make(chan struct{})
			jobs.Go(func() {
				defer close(ended)
				_, _ = h.Hash(ctx, "held")
			})
			select {
			case <-ctx.waits:
				return
			case <-ended: // no other job was running
			}
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // the first job waits for this one
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = h.Hash(context.Background(), "work")
			}
		}
	}()
	hold()
	close(stop)
	<-stopped // so the first job has been admitted
	for range waiting {
		hold()
	}
	return func() { close(free); jobs.Wait() }
}

// gateContext closes waits when a job calls Done, and blocks the job until free
// is closed. It then ends with its parent.
type gateContext struct {
	context.Context
	once        sync.Once
	waits, free chan struct{}
}

func (c *gateContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	<-c.free
	return c.Context.Done()
}

func TestLogin_ReportsABusyHasher(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: hashes many passwords")
	}
	t.Parallel()
	h := &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 1}
	fx := newFixture(t, func(c *auth.Config) { c.Hasher = h })
	fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
	defer holdGate(h, 1)()
	for _, try := range [][2]string{{"ada", pass}, {"ada", "wrong"}, {"bob", pass}, {"nobody", "wrong"}} {
		_, err := fx.Login(context.Background(), try[0], try[1], auth.SessionOptions{})
		require.ErrorIs(t, err, password.ErrBusy, try)
		require.NotErrorIs(t, err, auth.ErrInvalidCredentials, try)
	}
	require.Empty(t, fx.events.take(auth.EventLoginRefused))
	require.Zero(t, fx.store.count("Create"))
}

func TestLogin_CanceledHashingIsUnavailable(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: hashes many passwords")
	}
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	late, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	for name, ctx := range map[string]context.Context{"canceled": ended, "too late": late} {
		for _, login := range []string{"ada", "nobody"} {
			fx := newFixture(t)
			tokens, err := fx.Login(ctx, login, pass, auth.SessionOptions{})
			require.ErrorIs(t, err, auth.ErrUnavailable, name)
			require.NotErrorIs(t, err, auth.ErrInvalidCredentials, name)
			require.Empty(t, tokens.Access, name)
			require.Zero(t, fx.store.count("Create"), "%s, %s: no session is created", name, login)
			require.Empty(t, fx.events.take(auth.EventLoginRefused), name)
		}
	}

	t.Run("in the queue", func(t *testing.T) {
		h := &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 2}
		fx := newFixture(t, func(c *auth.Config) { c.Hasher = h })
		defer holdGate(h, 1)()
		parent, hangUp := context.WithCancel(context.Background())
		free := make(chan struct{})
		close(free)
		ctx := &gateContext{Context: parent, waits: make(chan struct{}), free: free}
		result := make(chan error)
		go func() {
			_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
			result <- err
		}()
		<-ctx.waits
		hangUp()
		require.ErrorIs(t, <-result, auth.ErrUnavailable)
		require.Zero(t, fx.store.count("Create"))
	})

	t.Run("at the second lookup", func(t *testing.T) {
		other, err := fastHasher.Hash(context.Background(), "another password than before")
		require.NoError(t, err)
		fx := newFixture(t)
		ctx, hangUp := context.WithCancel(context.Background())
		fx.users.onFind = func() { // the session has been created
			fx.users.change("u1", func(u *auth.User) { u.PasswordHash = other })
			hangUp()
		}
		tokens, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.Empty(t, tokens.Access)
		require.Equal(t, 1, fx.store.count("Create"))
		list, err := fx.store.Store.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

func TestLogin_AnErrorOfUsersIsUnavailableWhateverItWraps(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, cause := range []error{auth.ErrInvalidCredentials, auth.ErrInvalidToken, auth.ErrForbidden} {
		fx.users.fail = fmt.Errorf("the user service said: %w", cause)
		_, err := fx.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
	}
	require.Empty(t, fx.events.take(auth.EventLoginRefused))
}

// TestLogin_TellsUsersThatCannotBeUsedOnlyAfterThePassword covers an ID in two
// spellings, an ID that is too long, and lookups that do not agree.
func TestLogin_TellsUsersThatCannotBeUsedOnlyAfterThePassword(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*auth.User)
		text   string
		status int // with the right password
	}{
		"two spellings":   {func(u *auth.User) { u.ID = "U1" }, `Users.FindByID("U1") returned the user "u1"`, 500},
		"a long ID":       {func(u *auth.User) { u.ID = strings.Repeat("x", 256) }, `…: User.ID is 256 bytes; the limit is 255`, 500},
		"whose lookup":    {func(u *auth.User) { u.Roles = []string{""} }, `Users.FindByLogin returned the user "u1": User.Roles[0]`, 500},
		"an empty role":   {func(u *auth.User) { u.Roles = []string{""} }, "User.Roles[0] must be UTF-8 and not empty", 500},
		"an unknown ID":   {func(u *auth.User) { u.ID = "other" }, `FindByID does not find User.ID "other"`, 401},
		"a disabled user": {func(u *auth.User) { u.ID, u.Disabled = "", true }, "User.ID is empty", 401},
	} {
		fx := newFixture(t, func(config *auth.Config) {
			byID := newUsers().byID["u1"]
			byLogin := byID
			c.change(&byLogin)
			config.Users = &twoLookups{byLogin, map[string]auth.User{"u1": byID, "U1": byID}}
		})
		_, err := fx.Login(context.Background(), "ada", "wrong", auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err, name)
		require.Empty(t, fx.events.take(auth.EventFault), name)

		_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.Equal(t, c.status, auth.ResponseFor(err).Status, name)
		event := auth.EventFault
		if c.status == 401 {
			event = auth.EventLoginRefused
			require.Equal(t, auth.ErrInvalidCredentials, err, "the text must not say why")
		}
		events := fx.events.take(event)
		require.NotEmpty(t, events, name)
		require.ErrorContains(t, events[len(events)-1].Err, c.text, name)
		for _, id := range []string{"u1", "U1", "other"} {
			list, err := fx.Sessions(context.Background(), id)
			require.NoError(t, err)
			require.Empty(t, list, "a session stays: %s", name)
		}
	}
}

// twoLookups returns different users by login and by ID.
type twoLookups struct {
	byLogin auth.User
	byID    map[string]auth.User
}

func (u *twoLookups) FindByLogin(context.Context, string) (auth.User, error) { return u.byLogin, nil }

func (u *twoLookups) FindByID(_ context.Context, id string) (auth.User, error) {
	found, ok := u.byID[id]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return found, nil
}

func TestLogin_RefusesInvalidUsers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*auth.User)
		text   string
	}{
		"no ID":             {func(u *auth.User) { u.ID = "" }, "User.ID is empty"},
		"a long ID":         {func(u *auth.User) { u.ID = strings.Repeat("x", 256) }, "User.ID is 256 bytes; the limit is 255"},
		"an ID not UTF-8":   {func(u *auth.User) { u.ID = "u\xff" }, "User.ID must be UTF-8 without control characters"},
		"an ID with a NUL":  {func(u *auth.User) { u.ID = "u\x00" }, "User.ID must be UTF-8 without control characters"},
		"an ID with a line": {func(u *auth.User) { u.ID = "u\n" }, "User.ID must be UTF-8 without control characters"},
		"a name not UTF-8":  {func(u *auth.User) { u.Username = "ada\xff" }, "User.Username must be UTF-8"},
		"an empty role":     {func(u *auth.User) { u.Roles = []string{"user", ""} }, "User.Roles[1] must be UTF-8 and not empty"},
		"a role not UTF-8":  {func(u *auth.User) { u.Roles = []string{"\xff"} }, "User.Roles[0] must be UTF-8 and not empty"},
		"an empty scope":    {func(u *auth.User) { u.Scopes = []string{""} }, "User.Scopes[0] is not a scope token"},
		"a scope of two":    {func(u *auth.User) { u.Scopes = []string{"pay", "read admin"} }, "User.Scopes[1] is not a scope token"},
		"a quoted scope":    {func(u *auth.User) { u.Scopes = []string{`a"b`} }, "User.Scopes[0] is not a scope token"},
		"a backslash":       {func(u *auth.User) { u.Scopes = []string{`a\b`} }, "User.Scopes[0] is not a scope token"},
		"a control scope":   {func(u *auth.User) { u.Scopes = []string{"a\x7f"} }, "User.Scopes[0] is not a scope token"},
		"a tab in a scope":  {func(u *auth.User) { u.Scopes = []string{"a\tb"} }, "User.Scopes[0] is not a scope token"},
		"a scope with an é": {func(u *auth.User) { u.Scopes = []string{"é"} }, "User.Scopes[0] is not a scope token"},
		"a non-break space": {func(u *auth.User) { u.Scopes = []string{"a\u00a0b"} }, "User.Scopes[0] is not a scope token"},
	} {
		fx := newFixture(t)
		fx.users.change("u1", c.change)
		_, err := fx.StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.Equal(t, 500, auth.ResponseFor(err).Status, name)
		if !strings.Contains(err.Error(), "FindByID must return the user with exactly that ID") {
			require.ErrorContains(t, err, c.text, name)
		}
		if login := fx.users.byID["u1"].Username; utf8.ValidString(login) { // otherwise FindByLogin is not called
			_, err = fx.Login(context.Background(), login, pass, auth.SessionOptions{})
			require.Equal(t, 500, auth.ResponseFor(err).Status, name)
			require.ErrorContains(t, err, c.text, name)
		}
		require.Zero(t, fx.store.count("Create"), name)
	}
}

func TestLogin_AcceptsEveryValidUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, u := range []auth.User{
		{ID: strings.Repeat("x", 255)}, {ID: strings.Repeat("é", 127)}, {ID: "<script>\u2028 \"\\"}, {ID: "😀\ufffd"}, {ID: "a b/c.d"},
		{ID: "r", Roles: []string{"a b", "<&>", "é", `"`}, Scopes: []string{"!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "a"}, Username: "ada \x00 <é>"},
	} {
		fx.users.change(u.ID, func(old *auth.User) { *old = u })
		tokens, err := fx.StartSession(context.Background(), u.ID, auth.SessionOptions{AMR: []string{"!#[]~<&>"}})
		require.NoError(t, err, "%q", u.ID)
		for range 2 {
			c, err := fx.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, "%q", u.ID)
			require.Equal(t, []any{u.ID, u.Username, u.Roles, u.Scopes, []string{"!#[]~<&>"}}, []any{c.Subject, c.Username, c.Roles, c.Scopes, c.AMR})
			fx.clock.Advance(2 * time.Minute)
			tokens, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "%q", u.ID)
		}
	}
}

func TestSessionOptions_AreBounded(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	word := strings.Repeat("x", 32)
	for name, c := range map[string]struct {
		in   auth.SessionOptions
		text string
	}{
		"data": {auth.SessionOptions{Data: make([]byte, 901)}, "auth: SessionOptions.Data is 901 bytes; the limit is 900"},
		"nine": {auth.SessionOptions{AMR: slices.Repeat([]string{"x"}, 9)}, "auth: SessionOptions.AMR has 9 entries; the limit is 8"},
		"long": {
			auth.SessionOptions{AMR: []string{"pwd", word + "x"}},
			"auth: SessionOptions.AMR[1] must be 1 to 32 printable ASCII characters without space, quote or backslash",
		},
		"empty": {
			auth.SessionOptions{AMR: []string{""}},
			"auth: SessionOptions.AMR[0] must be 1 to 32 printable ASCII characters without space, quote or backslash",
		},
		"two words": {
			auth.SessionOptions{AMR: []string{"a b"}},
			"auth: SessionOptions.AMR[0] must be 1 to 32 printable ASCII characters without space, quote or backslash",
		},
		"not ASCII": {
			auth.SessionOptions{AMR: []string{"é"}},
			"auth: SessionOptions.AMR[0] must be 1 to 32 printable ASCII characters without space, quote or backslash",
		},
		"a quote": {
			auth.SessionOptions{AMR: []string{`"`}},
			"auth: SessionOptions.AMR[0] must be 1 to 32 printable ASCII characters without space, quote or backslash",
		},
	} {
		_, err := fx.Login(context.Background(), "ada", pass, c.in)
		require.EqualError(t, err, c.text, name)
		_, err = fx.StartSession(context.Background(), "u1", c.in)
		require.EqualError(t, err, c.text, name)
	}
	require.Zero(t, fx.store.count("Create"))

	in := auth.SessionOptions{
		Data: bytes.Repeat([]byte{0xff}, 900), AMR: slices.Repeat([]string{word}, 8), Name: "\x00 Ada\u200b's\r\nphone " + strings.Repeat("é", 100),
		Device: auth.Device{UserAgent: "  a\x1b[31mb\u202e " + strings.Repeat("x", 300), IP: netip.MustParseAddr("::ffff:192.0.2.1")},
	}
	tokens, err := fx.Login(context.Background(), "ada", pass, in)
	require.NoError(t, err)
	list, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Equal(t, in.Data, list[0].Data())
	require.Equal(t, "Ada'sphone "+strings.Repeat("é", 44), list[0].Name(), "the name must be cleaned, and cut between two characters")
	require.Equal(t, auth.Device{UserAgent: "a[31mb " + strings.Repeat("x", 249), IP: netip.MustParseAddr("192.0.2.1")}, list[0].Device)
	c, err := fx.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, in.AMR, c.AMR)
	fx.clock.Advance(time.Minute)
	moved, err := fx.Refresh(
		context.Background(), tokens.Refresh,
		auth.RefreshOptions{Device: auth.Device{UserAgent: "\x00x", IP: netip.MustParseAddr("fe80::1%eth0")}},
	)
	require.NoError(t, err)
	c, err = fx.Verify(context.Background(), moved.Access)
	require.NoError(t, err)
	require.Equal(t, in.AMR, c.AMR)
	list, err = fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Equal(t, auth.Device{UserAgent: "x", IP: netip.MustParseAddr("fe80::1")}, list[0].Device)
}

func TestSession_ReturnsNameAndData(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	data := []byte{0, 1, 2, 0xff}
	_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{Name: "Ada's\x00 phone\u202e", Data: data, Device: laptop})
	require.NoError(t, err)
	list, err := fx.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Equal(t, "Ada's phone", list[0].Name())
	require.Equal(t, data, list[0].Data())
	require.Equal(t, laptop, list[0].Device)

	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{Data: make([]byte, 901)})
	require.ErrorContains(t, err, "SessionOptions.Data")
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{AMR: make([]string, 9)})
	require.ErrorContains(t, err, "SessionOptions.AMR")
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{AMR: []string{"a b"}})
	require.ErrorContains(t, err, "SessionOptions.AMR[0]")
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{Data: make([]byte, 900), Name: strings.Repeat("é", 200)})
	require.NoError(t, err)
}
