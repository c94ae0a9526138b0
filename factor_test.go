package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
)

// factor is a SecondFactor whose only right response is "right".
type factor struct {
	mu       sync.Mutex
	methods  []string
	fail     error             // of Methods
	verify   func() error      // replaces Verify
	verified int               // calls of Verify
	asked    []auth.Device     // the devices of Methods
	users    []string          // the users of Methods
	given    map[string]string // responses by method
}

func (f *factor) Methods(_ context.Context, u auth.User, d auth.Device) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.users = append(f.asked, d), append(f.users, u.ID)
	return f.methods, f.fail
}

func (f *factor) Verify(_ context.Context, u auth.User, method, response string) error {
	f.mu.Lock()
	verify := f.verify
	f.verified++
	if f.given == nil {
		f.given = map[string]string{}
	}
	f.given[method] = response
	f.mu.Unlock()
	switch {
	case verify != nil:
		return verify()
	case response != "right":
		return fmt.Errorf("a factor of a test: %w", auth.ErrInvalidCredentials)
	}
	return nil
}

func (f *factor) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verified
}

// newFactorFixture returns a fixture whose users have the methods "otp" and
// "recovery".
func newFactorFixture(t testing.TB, change ...func(*auth.Config)) (*fixture, *factor) {
	t.Helper()
	f := &factor{methods: []string{"otp", "recovery"}}
	return newFixture(t, append([]func(*auth.Config){func(c *auth.Config) { c.SecondFactor = f }}, change...)...), f
}

// challenge logs in and returns the FactorError.
func (fx *fixture) challenge(t testing.TB, o auth.SessionOptions) *auth.FactorError {
	t.Helper()
	tokens, err := fx.Login(context.Background(), "ada", pass, o)
	require.Zero(t, tokens)
	require.ErrorIs(t, err, auth.ErrFactorRequired)
	require.NotErrorIs(t, err, auth.ErrInvalidCredentials)
	var required *auth.FactorError
	require.ErrorAs(t, err, &required)
	return required
}

func (fx *fixture) answer(challenge, response string) error {
	_, err := fx.LoginFactor(context.Background(), challenge, "otp", response, auth.SessionOptions{Device: laptop})
	return err
}

func TestLoginFactor_OpensTheSessionOfTheLogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx, f := newFactorFixture(t)
	fx.events.take("")
	c := fx.challenge(t, auth.SessionOptions{
		Device: thief, Name: "phone", Ephemeral: true, IdleTTL: time.Hour, SessionTTL: 2 * time.Hour, Data: []byte("of the first step"),
	})
	require.Equal(t, "u1", c.Subject)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	require.NotContains(t, string(text), "u1", "the client does not get the subject")
	require.Equal(t, []string{"otp", "recovery"}, c.Methods)
	require.Equal(t, fx.clock.Now().Add(5*time.Minute), c.ExpiresAt)
	require.Zero(t, fx.store.count("Create"))
	require.Zero(t, fx.store.count("Spend"))
	require.Empty(t, fx.events.take(auth.EventLogin))

	fx.clock.Advance(time.Minute)
	old := startSession(t, fx.Authenticator)
	tokens, err := fx.LoginFactor(ctx, c.Challenge, "recovery", "right", auth.SessionOptions{
		Device: laptop, Data: []byte("data"), Replaces: []string{old.Refresh},
	})
	require.NoError(t, err)
	claims := verifiedClaims(t, fx.Authenticator, tokens.Access)
	require.Equal(t, []string{"pwd", "recovery", "mfa"}, claims.AMR)
	require.Equal(t, fx.clock.Now(), claims.AuthTime, "the session begins with the second step")
	sessions, err := fx.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 1, "the old session is replaced")
	require.Equal(t, "phone", sessions[0].Name())
	require.Equal(t, []byte("data"), sessions[0].Data())
	require.Equal(t, laptop, sessions[0].Device)
	require.Equal(t, fx.clock.Now().Add(time.Hour), sessions[0].ExpiresAt)
	_, payload := decodeToken(t, tokens.Refresh)
	require.Equal(t, true, payload["eph"])
	require.InDelta(t, time.Hour.Milliseconds(), payload["idle_ttl"], 0)
	require.InDelta(t, 2*time.Hour.Milliseconds(), payload["session_ttl"], 0)
	require.Equal(t, []auth.Device{thief, laptop}, f.asked)
	require.Equal(t, []string{"u1", "u1"}, f.users)
	require.Equal(t, map[string]string{"recovery": "right"}, f.given)

	err = fx.answer(c.Challenge, "right")
	require.ErrorIs(t, err, auth.ErrSpent)
	require.NotErrorIs(t, err, auth.ErrFactorRequired)
}

func TestLogin_WithoutMethodsNeedsNoSecondStep(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	f.methods = nil
	require.Equal(t, []string{"pwd"}, verifiedClaims(t, fx.Authenticator, fx.login(t).Access).AMR)
	startSession(t, fx.Authenticator)
	require.Len(t, f.users, 1, "StartSession asks for no second step")
}

// The second step comes only after the password was proved.
func TestLogin_RefusalsAskForNoSecondFactor(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
	for _, login := range [][2]string{{"ada", "wrong"}, {"nobody", pass}, {"bob", pass}} {
		_, err := fx.Login(context.Background(), login[0], login[1], auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err)
	}
	require.Empty(t, f.users)
}

func TestLoginFactor_AMRHasNoDuplicates(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t)
	six := []string{"pwd", "mfa", "otp", "a", "b", "c"}
	tokens, err := fx.LoginFactor(context.Background(), fx.challenge(t, auth.SessionOptions{AMR: six}).Challenge, "otp", "right", auth.SessionOptions{})
	require.NoError(t, err)
	require.Equal(t, six, verifiedClaims(t, fx.Authenticator, tokens.Access).AMR)
	tokens, err = fx.LoginFactor(context.Background(), fx.challenge(t, auth.SessionOptions{AMR: []string{"1", "2", "3", "4", "5", "6"}}).Challenge,
		"otp", "right", auth.SessionOptions{})
	require.NoError(t, err)
	require.Len(t, verifiedClaims(t, fx.Authenticator, tokens.Access).AMR, 8)
	_, err = fx.Login(context.Background(), "nobody", "wrong", auth.SessionOptions{AMR: []string{"1", "2", "3", "4", "5", "6", "7"}})
	require.ErrorContains(t, err, "auth: SessionOptions.AMR has 7 entries; with Config.SecondFactor, which adds two, the limit is 6")
}

func TestLoginFactor_WrongResponseCanBeCorrected(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	fx.events.take("")
	fx.clock.Advance(2 * time.Minute)
	for range 4 {
		err := fx.answer(c.Challenge, "the wrong response")
		require.ErrorIs(t, err, auth.ErrInvalidCredentials)
		require.ErrorIs(t, err, auth.ErrFactorRequired)
		var again *auth.FactorError
		require.ErrorAs(t, err, &again)
		require.Equal(t, c.Challenge, again.Challenge)
		require.Equal(t, c.Subject, again.Subject)
		require.Equal(t, c.Methods, again.Methods)
		require.Equal(t, c.ExpiresAt, again.ExpiresAt)
	}
	refused := fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 4)
	require.EqualError(t, refused[0].Err, "auth: invalid credentials: wrong response to the second factor otp")
	require.Equal(t, auth.Session{Subject: "u1"}, refused[0].Session)
	require.Equal(t, laptop, refused[0].Device)
	require.NoError(t, fx.answer(c.Challenge, "right"), "the fifth attempt")
	require.Equal(t, 5, f.calls())
}

func TestLoginFactor_FiveWrongResponsesSpendTheChallenge(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	for i := range 5 {
		require.Equal(t, i < 4, errors.Is(fx.answer(c.Challenge, "wrong"), auth.ErrFactorRequired))
	}
	refused := fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 5)
	require.ErrorContains(t, refused[4].Err, "no attempts are left")
	fx.clock.Advance(time.Second) // the user must wait, too
	err := fx.answer(c.Challenge, "right")
	require.ErrorIs(t, err, auth.ErrSpent)
	refused = fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1)
	require.ErrorContains(t, refused[0].Err, "no attempts are left for the challenge")
	require.Equal(t, 5, f.calls(), "Verify must not be called again")
	fx.clock.Advance(time.Second)
	require.NoError(t, fx.answer(fx.challenge(t, auth.SessionOptions{}).Challenge, "right"), "another challenge")
}

// A burst cannot exceed the limit: attempts are counted before Verify is called.
func TestLoginFactor_ABurstHasFiveAttempts(t *testing.T) {
	t.Parallel()
	f := &factor{methods: []string{"otp"}}
	nodes := newNodes(t, 2, func(_ int, c *auth.Config) { c.SecondFactor = f })
	c := nodes[0].challenge(t, auth.SessionOptions{})
	const burst = 64
	var decided, done sync.WaitGroup // each request is refused, or waits in Verify for the others
	decided.Add(burst)
	f.verify = func() error {
		decided.Done()
		decided.Wait()
		return auth.ErrInvalidCredentials
	}
	for i := range burst {
		done.Go(func() {
			if err := nodes[i%2].answer(c.Challenge, "wrong"); errors.Is(err, auth.ErrSpent) || errors.Is(err, auth.ErrThrottled) {
				decided.Done()
			}
		})
	}
	done.Wait()
	require.Equal(t, 5, f.calls())
}

func TestLoginFactor_OneOfManyContendersWins(t *testing.T) {
	t.Parallel()
	f := &factor{methods: []string{"otp"}}
	nodes := newNodes(t, 2, func(_ int, c *auth.Config) { c.SecondFactor, c.MaxSessions = f, -1 })
	for range rounds() {
		c := nodes[0].challenge(t, auth.SessionOptions{})
		var next atomic.Int64
		require.Equal(t, 1, contend(t, 10, auth.ErrSpent, func() error { return nodes[next.Add(1)%2].answer(c.Challenge, "right") }))
	}
	sessions, err := nodes[0].Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, rounds())
}

func TestLoginFactor_ChallengeEnds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	other, err := fastHasher.Hash(ctx, pass)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		end  func(fx *fixture)
		want error
	}{
		"five minutes":      {func(fx *fixture) { fx.clock.Advance(5 * time.Minute) }, auth.ErrTokenExpired},
		"RevokeAll":         {func(fx *fixture) { _ = fx.RevokeAll(ctx, "u1") }, auth.ErrInvalidToken},
		"a password change": {func(fx *fixture) { fx.users.change("u1", func(u *auth.User) { u.PasswordHash = other }) }, auth.ErrInvalidToken},
		"disabled":          {func(fx *fixture) { fx.users.change("u1", func(u *auth.User) { u.Disabled = true }) }, auth.ErrInvalidToken},
		"deleted":           {func(fx *fixture) { delete(fx.users.byID, "u1") }, auth.ErrInvalidToken},
	} {
		fx, f := newFactorFixture(t)
		c := fx.challenge(t, auth.SessionOptions{})
		tt.end(fx)
		fx.events.take("")
		err := fx.answer(c.Challenge, "right")
		require.ErrorIs(t, err, tt.want, name)
		got := auth.ResponseFor(err)
		require.Equal(t, auth.ErrorResponse{Status: 401, Code: "invalid_grant", Description: got.Description, Action: "login"}, got, name)
		require.Len(t, fx.events.take(auth.EventLoginRefused), 1, name)
		require.Zero(t, f.calls(), name)
		require.Zero(t, fx.store.count("Spend"), name)
	}
}

// The user is looked up again after the session was created.
func TestLoginFactor_UserChangedMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	other, err := fastHasher.Hash(context.Background(), pass)
	require.NoError(t, err)
	for name, change := range map[string]func(*users){
		"a password change": func(u *users) { u.change("u1", func(u *auth.User) { u.PasswordHash = other }) },
		"disabled":          func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		"deleted": func(u *users) {
			u.mu.Lock()
			defer u.mu.Unlock()
			delete(u.byID, "u1")
		},
	} {
		fx, f := newFactorFixture(t)
		c := fx.challenge(t, auth.SessionOptions{})
		f.verify = func() error { change(fx.users); return nil }
		require.Equal(t, auth.ErrInvalidCredentials, fx.answer(c.Challenge, "right"), name)
		require.Len(t, fx.events.take(auth.EventLoginRefused), 1, name)
		list, err := fx.store.List(context.Background(), "u1")
		require.NoError(t, err)
		require.Empty(t, list, name)
	}
}

func TestLoginFactor_MethodMustBeOneOfTheUser(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	for _, method := range []string{"", "sms", "OTP", "mfa"} {
		_, err := fx.LoginFactor(context.Background(), c.Challenge, method, "right", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrInvalidRequest, method)
	}
	f.methods = []string{"recovery"}
	require.ErrorIs(t, fx.answer(c.Challenge, "right"), auth.ErrInvalidRequest, "the user no longer has it")
	require.Zero(t, f.calls())
	require.Zero(t, fx.store.count("Spend"), "that is no attempt")

	f.methods = []string{"otp"}
	require.ErrorIs(t, fx.answer(c.Challenge, ""), auth.ErrFactorRequired)
	require.Zero(t, fx.store.count("Spend"), "an empty response is no attempt")
	require.Zero(t, f.calls())
}

// A challenge is not a token of any other kind, and no other token is one.
func TestLoginFactor_AcceptsOnlyChallenges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	tokens := startSession(t, fx.Authenticator)
	for _, token := range []string{"", "x", tokens.Access, tokens.Refresh, fx.issue(t, bound), c.Challenge + "x"} {
		require.ErrorIs(t, fx.answer(token, "right"), auth.ErrInvalidToken)
	}
	require.Zero(t, f.calls())
	for _, purpose := range []string{"login factor", "login", "factor", ""} {
		_, err := fx.CheckOneTime(ctx, purpose, c.Challenge)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
		_, err = fx.SpendOneTime(ctx, purpose, c.Challenge, laptop)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	_, err := fx.Verify(ctx, c.Challenge)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.NoError(t, fx.Logout(ctx, c.Challenge))
	require.NoError(t, fx.answer(c.Challenge, "right"))
}

func TestLoginFactor_OptionsOfTheFirstStepAreRefused(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	for _, o := range []auth.SessionOptions{{AMR: []string{"otp"}}, {Name: "x"}, {Ephemeral: true}, {IdleTTL: time.Hour}, {SessionTTL: time.Hour}, {Actor: "u2"}} {
		_, err := fx.LoginFactor(context.Background(), c.Challenge, "otp", "right", o)
		require.ErrorContains(t, err, "must not be set, because the challenge carries those of Login")
	}
	require.NoError(t, fx.answer(c.Challenge, "right"))
}

// A process with shorter lifetimes accepts the challenge of one with longer ones.
func TestLoginFactor_LifetimesAreCutToThoseOfTheProcess(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	other := newProcess(t, fx, func(c *auth.Config) { c.IdleTTL, c.SessionTTL, c.SecondFactor = 2*time.Hour, 3*time.Hour, f })
	c := fx.challenge(t, auth.SessionOptions{IdleTTL: 4 * time.Hour, SessionTTL: 5 * time.Hour})
	tokens, err := other.LoginFactor(context.Background(), c.Challenge, "otp", "right", auth.SessionOptions{})
	require.NoError(t, err)
	require.Equal(t, fx.clock.Now().Add(2*time.Hour), tokens.RefreshExpiresAt)
}

// OnLogin has not set these lifetimes, so they are not a mistake of it.
func TestLoginFactor_OnLoginMayKeepLifetimesOfAnotherProcess(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	var onLogin func(o *auth.SessionOptions)
	for name, change := range map[string]func(c *auth.Config){
		"shorter lifetimes":  func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 2*time.Hour, 3*time.Hour },
		"longer least value": func(c *auth.Config) { c.AccessTTL = 6 * time.Hour },
	} {
		other := newProcess(t, fx, func(c *auth.Config) {
			change(c)
			c.SecondFactor = f
			c.OnLogin = func(_ context.Context, _ auth.User, o *auth.SessionOptions) error {
				onLogin(o)
				return nil
			}
		})
		login := func() (auth.Tokens, error) {
			c := fx.challenge(t, auth.SessionOptions{IdleTTL: 4 * time.Hour, SessionTTL: 5 * time.Hour})
			return other.LoginFactor(context.Background(), c.Challenge, "otp", "right", auth.SessionOptions{})
		}
		onLogin = func(o *auth.SessionOptions) { o.Data = []byte("org=7") }
		tokens, err := login()
		require.NoError(t, err, name)
		want := map[string]time.Duration{"shorter lifetimes": 2 * time.Hour, "longer least value": 4 * time.Hour}[name]
		require.Equal(t, fx.clock.Now().Add(want), tokens.RefreshExpiresAt, name)
		if name == "shorter lifetimes" {
			onLogin = func(o *auth.SessionOptions) { o.SessionTTL = 150 * time.Minute }
			_, err = login()
			require.NoError(t, err, "only one is changed")
		}
		onLogin = func(o *auth.SessionOptions) { o.IdleTTL = time.Second }
		_, err = login()
		require.ErrorContains(t, err, "SessionOptions.IdleTTL (1s) is less than", name)
	}
}

func TestSecondFactor_FaultsAreUnavailable(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	f.fail = fmt.Errorf("down: %w", auth.ErrInvalidCredentials)
	_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Equal(t, 503, auth.ResponseFor(err).Status)
	require.Equal(t, 503, auth.ResponseFor(fx.answer(c.Challenge, "right")).Status)
	require.Zero(t, fx.store.count("Spend"))
	require.Len(t, fx.events.take(auth.EventFault), 2)

	f.fail = nil
	for _, fault := range []func() error{
		func() error { return errors.New("down") },
		func() error { return fmt.Errorf("%w: %w", auth.ErrUnavailable, auth.ErrInvalidCredentials) },
		func() error { panic("a fault of a test") },
	} {
		f.verify = fault
		err = fx.answer(c.Challenge, "right")
		require.Equal(t, 503, auth.ResponseFor(err).Status)
		require.NotErrorIs(t, err, auth.ErrFactorRequired)
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1)
		require.ErrorContains(t, faults[0].Err, "SecondFactor.Verify")
	}
	f.verify = nil
	fx.store.failBefore("Spend", errStore)
	require.Equal(t, 503, auth.ResponseFor(fx.answer(c.Challenge, "right")).Status)
	require.Equal(t, 3, f.calls(), "an attempt that is not counted is not verified")
	fx.store.failBefore("Spend", nil)
	fx.users.failIn(1)
	require.Equal(t, 503, auth.ResponseFor(fx.answer(c.Challenge, "right")).Status)
	require.NoError(t, fx.answer(c.Challenge, "right"), "three attempts were counted")

	c = fx.challenge(t, auth.SessionOptions{})
	fx.store.failBefore("Create", errStore)
	require.Equal(t, 503, auth.ResponseFor(fx.answer(c.Challenge, "right")).Status)
	fx.store.failBefore("Create", nil)
	require.ErrorIs(t, fx.answer(c.Challenge, "right"), auth.ErrSpent)
}

// What can fail without the store fails before the challenge is spent.
func TestLoginFactor_TokensAreIssuedBeforeTheChallengeIsSpent(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": make(chan int)} })
	require.Equal(t, 500, auth.ResponseFor(fx.answer(c.Challenge, "right")).Status)
	fx.users.change("u1", func(u *auth.User) { u.Extra = nil })
	require.NoError(t, fx.answer(c.Challenge, "right"))
}

func TestSecondFactor_InvalidMethodsAreReported(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	for text, methods := range map[string][]string{
		"auth: SecondFactor.Methods returned 9 methods; the limit is 8":                                                 strings.Split("a,b,c,d,e,f,g,h,i", ","),
		"auth: SecondFactor.Methods: element 1 must be 1 to 32 printable ASCII characters without space, quote or back": {"otp", ""},
		"auth: SecondFactor.Methods: element 0 must be 1 to 32":                                                         {"one time"},
	} {
		f.methods = methods
		_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
		require.ErrorContains(t, err, text)
		require.Equal(t, 500, auth.ResponseFor(err).Status)
		require.Len(t, fx.events.take(auth.EventFault), 1)
	}
}

// An application may return the error of Once as it is.
func TestSecondFactor_ErrSpentIsAWrongResponse(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	f.verify = func() error { return fx.Once(context.Background(), "u1", "step 1", time.Minute) }
	require.NoError(t, fx.answer(fx.challenge(t, auth.SessionOptions{}).Challenge, "code"))
	err := fx.answer(fx.challenge(t, auth.SessionOptions{}).Challenge, "code")
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	require.ErrorIs(t, err, auth.ErrFactorRequired)
}

// The challenge is bound to the hash that replaces a weak one.
func TestLoginFactor_HashIsUpgradedByTheFirstStep(t *testing.T) {
	t.Parallel()
	weak, err := (&password.Hasher{Memory: 32, Time: 1}).Hash(context.Background(), pass)
	require.NoError(t, err)
	f := &factor{methods: []string{"otp"}}
	u := &updatingUsers{users: newUsers()}
	u.change("u1", func(u *auth.User) { u.PasswordHash = weak })
	fx := newFixture(t, func(c *auth.Config) { c.SecondFactor, c.Users = f, u })
	c := fx.challenge(t, auth.SessionOptions{})
	require.Equal(t, 1, u.updates)
	second := fx.challenge(t, auth.SessionOptions{})
	require.Equal(t, 1, u.updates)
	require.NoError(t, fx.answer(c.Challenge, "right"))
	require.NoError(t, fx.answer(second.Challenge, "right"))
}

// A password change between the check of the password and the challenge is seen.
func TestLogin_PasswordChangedBeforeTheChallengeIsRefused(t *testing.T) {
	t.Parallel()
	other, err := fastHasher.Hash(context.Background(), "another password of this test")
	require.NoError(t, err)
	fx, _ := newFactorFixture(t)
	fx.users.onFind = func() { fx.users.change("u1", func(u *auth.User) { u.PasswordHash = other }) }
	_, err = fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.Equal(t, auth.ErrInvalidCredentials, err)
	require.Len(t, fx.events.take(auth.EventLoginRefused), 1)
}

func TestLoginFactor_ChallengeOfANewerVersionIsUnavailable(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t, knownKeys)
	c := fx.challenge(t, auth.SessionOptions{IdleTTL: time.Hour})
	parts := strings.Split(c.Challenge, ".")
	sign := func(claims string) string {
		payload := plain(t, parts[1])
		return handSigned(oneTimeSecret(t, refreshSecret), plain(t, parts[0]), payload[:len(payload)-1]+claims+"}")
	}
	for _, claims := range []string{`,"scope":"x"`, `,"session_iat":1`} {
		err := fx.answer(sign(claims), "right")
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.Equal(t, 503, auth.ResponseFor(err).Status)
	}
	for _, claims := range []string{`,"name":1`, `,"eph":1`, `,"eph":false`, `,"session_ttl":"x"`, `,"idle_ttl":1`} {
		require.ErrorIs(t, fx.answer(sign(claims), "right"), auth.ErrInvalidToken, claims)
	}
	require.Zero(t, f.calls())
	// Only challenges have these claims.
	forged := newOneTimeForger(t, fx.clock.Now())
	for _, claim := range []string{"amr", "name", "eph", "idle_ttl", "session_ttl"} {
		require.ErrorIs(t, fx.check(forged.signClaims(forged.claims.with(claim, "1"))), auth.ErrUnavailable, claim)
	}
}

func TestConfig_SecondFactorMustNotBeANilPointer(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), SecondFactor: (*factor)(nil),
	})
	require.ErrorContains(t, err, "auth: Config.SecondFactor is a nil *auth_test.factor; create the value before you pass it")
	fx := newFixture(t)
	require.ErrorContains(t, fx.answer("x", "right"), "Config.SecondFactor is nil")
	r := send(t, fx.Handler(), "POST", "/login/factor", reqJSON(`{"challenge":"x","method":"otp","response":"1"}`))
	require.Equal(t, 404, r.status)
	require.Contains(t, r.body, "Config.SecondFactor is nil")
	r = send(t, fx.LoginFactorHandler(), "POST", "/", reqJSON(`{"challenge":"x","method":"otp","response":"1"}`))
	require.Equal(t, 404, r.status)
	require.Equal(t, "there is no second factor here", r.fields(t)["error_description"])
}

func TestLoginFactorHandler_JSON(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t)
	h := fx.Handler()
	r := send(t, h, "POST", "/login", reqJSON(goodLogin))
	require.Equal(t, 401, r.status)
	require.Empty(t, r.header["Set-Cookie"])
	require.Empty(t, r.header["Www-Authenticate"])
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	first := r.fields(t)
	challenge, _ := first["challenge"].(string)
	require.NotEmpty(t, challenge)
	delete(first, "challenge")
	require.Equal(t, map[string]any{
		"error": "factor_required", "error_description": "a second factor is required", "action": "factor",
		"methods": []any{"otp", "recovery"}, "expires_in": 300.0,
	}, first)

	body := func(response string) string {
		b, err := json.Marshal(map[string]string{"challenge": challenge, "method": "otp", "response": response})
		require.NoError(t, err)
		return string(b)
	}
	fx.clock.Advance(time.Minute)
	r = send(t, h, "POST", "/login/factor", reqJSON(body("wrong")))
	require.Equal(t, 401, r.status)
	require.Equal(t, map[string]any{
		"error": "invalid_credentials", "error_description": "the response to the second factor is wrong", "action": "factor",
		"challenge": challenge, "methods": []any{"otp", "recovery"}, "expires_in": 240.0,
	}, r.fields(t))
	require.Empty(t, fx.events.take(auth.EventRefused), "EventLoginRefused reports it")
	for _, bad := range []string{
		`{}`, `{"challenge":"x","method":"otp"}`, `{"challenge":"x","response":"1"}`, `{"method":"otp","response":"1"}`, `{"challenge":1}`,
	} {
		require.Equal(t, 400, send(t, h, "POST", "/login/factor", reqJSON(bad)).status, bad)
	}
	require.Equal(t, 405, send(t, h, "GET", "/login/factor").status)
	r = send(t, h, "POST", "/login/factor", reqJSON(body("right")))
	require.Equal(t, 200, r.status)
	require.NotEmpty(t, r.fields(t)["access_token"])
	r = send(t, h, "POST", "/login/factor", reqJSON(body("right")))
	require.Equal(t, 401, r.status)
	require.Equal(t, "invalid_grant", r.fields(t)["error"])
	require.Equal(t, "login", r.fields(t)["action"])
}

func TestLoginFactorHandler_Cookies(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t, withCookies(allowBody))
	h := fx.Handler()
	post := func(path, form string, options ...requestOption) response {
		return send(t, h, "POST", path, append(options, reqForm(form))...)
	}
	form := func(c string) string {
		return url.Values{"challenge": {c}, "method": {"otp"}, "response": {"right"}}.Encode()
	}
	old := startSession(t, fx.Authenticator)
	c := fx.challenge(t, auth.SessionOptions{}).Challenge
	require.Equal(t, 403, post("/login/factor", form(c), crossSite).status)
	r := post("/login/factor", form(c), reqCookie(refreshCookie, old.Refresh))
	require.Equal(t, 200, r.status)
	require.Len(t, r.header["Set-Cookie"], 3)
	require.NotContains(t, r.fields(t), "access_token")
	sessions, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Len(t, sessions, 1, "the session of the cookie is replaced")
	r = post("/login/factor", form(fx.challenge(t, auth.SessionOptions{}).Challenge)+"&delivery=body", crossSite)
	require.Equal(t, 200, r.status)
	require.Contains(t, r.fields(t), "access_token")
	require.Equal(t, 400, post("/login/factor", form(c)+"&delivery=x").status)
}

func TestLoginForm_HandlesBothForms(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t, withCookies())
	post := func(fields url.Values, options ...requestOption) (*httptest.ResponseRecorder, error) {
		r := httptest.NewRequest("POST", "https://example.com/login", strings.NewReader(fields.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, o := range options {
			o(r)
		}
		w := httptest.NewRecorder()
		return w, fx.LoginForm(w, r)
	}
	first := url.Values{"login": {"ada"}, "password": {pass}}
	w, err := post(first)
	var required *auth.FactorError
	require.ErrorAs(t, err, &required)
	require.Empty(t, w.Header())
	second := url.Values{"challenge": {required.Challenge}, "method": {"otp"}, "response": {"wrong"}}
	w, err = post(second)
	required = nil
	require.ErrorAs(t, err, &required)
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	require.Empty(t, w.Header())
	second.Set("response", "")
	_, err = post(second)
	require.ErrorIs(t, err, auth.ErrFactorRequired, "a field left empty shows the form again")
	second.Del("response")
	_, err = post(second)
	require.ErrorIs(t, err, auth.ErrInvalidRequest)
	second.Set("response", "right")
	_, err = post(second, crossSite)
	require.ErrorIs(t, err, auth.ErrCrossOrigin)
	w, err = post(second)
	require.NoError(t, err)
	require.Len(t, w.Header()["Set-Cookie"], 3)
	_, err = post(second)
	require.ErrorIs(t, err, auth.ErrSpent)

	// A field "challenge" of the first form, such as that of a captcha, has no
	// meaning here.
	f.methods = nil
	first.Set("challenge", "captcha")
	_, err = post(first)
	require.NoError(t, err)
	first.Set("password", "")
	_, err = post(first)
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	fx2 := newFixture(t, withCookies())
	r := httptest.NewRequest("POST", "https://example.com/login", strings.NewReader(first.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	require.ErrorIs(t, fx2.LoginForm(httptest.NewRecorder(), r), auth.ErrInvalidCredentials)
}

// A form that was sent to the JSON endpoint gets a page, not a redirect that would
// lose the challenge.
func TestRedirectToLogin_SecondFactorGetsAPage(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t, withPages)
	r := send(t, http.StripPrefix("/auth", fx.Handler()), "POST", "/auth/login", pageLoad, reqForm("login=ada&password="+url.QueryEscape(pass)))
	require.Equal(t, 401, r.status)
	require.Contains(t, r.body, "A second factor is required.")
}

func TestErrFactorRequired_AloneMeansLogin(t *testing.T) {
	t.Parallel()
	require.Equal(t, auth.ErrorResponse{Status: 401, Code: "factor_required", Description: "a second factor is required", Action: "login"},
		auth.ResponseFor(auth.ErrFactorRequired))
}

func TestSecondFactor_PrintingShowsNoSecret(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx, f := newFactorFixture(t)
	f.verify = func() error { return errors.New("a fault of a test") }
	c := fx.challenge(t, auth.SessionOptions{})
	const response = "the response of this test"
	oneTime := fx.issue(t, bound)
	require.NoError(t, fx.spendOnce(oneTime))
	var failed []error
	for range 5 {
		failed = append(failed, fx.answer(c.Challenge, response), fx.spendOnce(oneTime), fx.check(oneTime+"x"))
		f.verify = nil
	}
	failed = append(failed, fx.answer(c.Challenge, response))
	_, err := fx.CheckOneTime(ctx, "other", oneTime)
	failed = append(failed, err)
	secrets := needles(map[string][]byte{
		"challenge": []byte(c.Challenge), "response": []byte(response), "token": []byte(oneTime),
		"signature of the challenge": []byte(c.Challenge[len(c.Challenge)-43:]), "signature of the token": []byte(oneTime[len(oneTime)-43:]),
		"hash": []byte(passHash),
	})
	values := []any{c, *c, auth.ResponseFor(c), failed}
	for _, e := range fx.events.all {
		values = append(values, e, e.Err)
	}
	require.Greater(t, len(fx.events.all), 6)
	for _, v := range append(values, typed(*c)...) {
		requireNoSecret(t, fmt.Sprintf("%T", v), prints(v, verbs...), secrets)
	}
	require.Equal(t, "auth: a second factor is required", fmt.Sprint(*c))
}

// A database may return an error for a response that it cannot store.
func TestLoginFactor_ResponseThatDatabasesCannotStoreIsWrong(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	c := fx.challenge(t, auth.SessionOptions{})
	for _, response := range []string{"right\x00", "\xff", "\x00", "\xed\xa0\x80"} {
		require.ErrorIs(t, fx.answer(c.Challenge, response), auth.ErrFactorRequired, "%q", response)
	}
	require.Zero(t, f.calls())
	require.Equal(t, auth.ErrInvalidCredentials, fx.answer(c.Challenge, "\x00"), "it counts")
}

// A process whose clock was ahead has revoked all sessions of the user. The second step
// works as the login without one does.
func TestLoginFactor_AfterARevokeAllByAWrongClock(t *testing.T) {
	t.Parallel()
	fx, f := newFactorFixture(t)
	fx.clock.Advance(time.Hour)
	require.NoError(t, fx.RevokeAll(context.Background(), "u1"))
	fx.clock.Advance(-time.Hour)
	other := newProcess(t, fx, func(c *auth.Config) { c.SecondFactor = f })
	for _, node := range []*fixture{fx, other} {
		require.NoError(t, node.answer(fx.challenge(t, auth.SessionOptions{}).Challenge, "right"))
		require.NoError(t, node.check(fx.issue(t)))
	}
	token := fx.issue(t)
	require.NoError(t, fx.RevokeAll(context.Background(), "u1"))
	require.ErrorIs(t, fx.check(token), auth.ErrInvalidToken, "the next one ends it")
}
