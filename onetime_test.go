package auth_test

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// issue returns a token with the purpose "reset" for u1 that lives for an hour.
func (fx *fixture) issue(t testing.TB, change ...func(*auth.OneTime)) string {
	t.Helper()
	o := auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour}
	for _, f := range change {
		f(&o)
	}
	token, err := fx.IssueOneTime(context.Background(), o)
	require.NoError(t, err)
	return token
}

func bound(o *auth.OneTime) { o.BoundToPassword = true }

func (fx *fixture) check(token string) error {
	_, err := fx.CheckOneTime(context.Background(), "reset", token)
	return err
}

func (fx *fixture) spendOnce(token string) error {
	_, err := fx.SpendOneTime(context.Background(), "reset", token, laptop)
	return err
}

func TestOneTime_IsAcceptedOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	data := []byte(strings.Repeat("\x00<é\xff", 51))
	token := fx.issue(t, func(o *auth.OneTime) { o.Data = data })
	want := auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour, Data: data}
	for range 3 {
		o, err := fx.CheckOneTime(ctx, "reset", token)
		require.NoError(t, err)
		require.Equal(t, want, o)
	}
	require.Zero(t, fx.store.count("Spend"), "CheckOneTime must spend nothing")
	fx.clock.Advance(time.Minute)
	o, err := fx.SpendOneTime(ctx, "reset", token, laptop)
	require.NoError(t, err)
	want.TTL -= time.Minute
	require.Equal(t, want, o)
	for range 3 {
		require.ErrorIs(t, fx.spendOnce(token), auth.ErrSpent)
	}
	require.NoError(t, fx.spendOnce(fx.issue(t)), "another token of the user is not spent")
}

func TestOneTime_PurposeIsExact(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	token := fx.issue(t)
	for _, other := range []string{"", "rese", "reset ", "Reset", "reset-password", "login factor", strings.Repeat("x", 65), "é"} {
		_, err := fx.CheckOneTime(ctx, other, token)
		require.ErrorIs(t, err, auth.ErrInvalidToken, other)
		_, err = fx.SpendOneTime(ctx, other, token, laptop)
		require.ErrorIs(t, err, auth.ErrInvalidToken, other)
	}
	require.Zero(t, fx.store.count("Spend"))
	require.NoError(t, fx.spendOnce(token))
}

func TestIssueOneTime_RefusesInvalidFields(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for text, change := range map[string]func(*auth.OneTime){
		"auth: OneTime.Purpose must be 1 to 64 printable ASCII characters without spaces": func(o *auth.OneTime) { o.Purpose = "login factor" },
		"auth: OneTime.Purpose must be":                              func(o *auth.OneTime) { o.Purpose = "" },
		"auth: OneTime.Purpose must be 1 to 64":                      func(o *auth.OneTime) { o.Purpose = strings.Repeat("x", 65) },
		"auth: OneTime.Purpose must be 1 to 64 printable":            func(o *auth.OneTime) { o.Purpose = "a\n" },
		"auth: OneTime.Data is 257 bytes; the limit is 256":          func(o *auth.OneTime) { o.Data = make([]byte, 257) },
		"OneTime.Subject must be 1 to 255 bytes of UTF-8":            func(o *auth.OneTime) { o.Subject = "" },
		"OneTime.Subject must be 1 to 255 bytes":                     func(o *auth.OneTime) { o.Subject = strings.Repeat("x", 256) },
		"OneTime.Subject must be 1 to 255":                           func(o *auth.OneTime) { o.Subject = "u\x00" },
		"auth: OneTime.TTL (0s) is not between 1s and 720h0m0s":      func(o *auth.OneTime) { o.TTL = 0 },
		"auth: OneTime.TTL (-1h0m0s) is not between":                 func(o *auth.OneTime) { o.TTL = -time.Hour },
		"auth: OneTime.TTL (720h0m0.001s) is not between 1s":         func(o *auth.OneTime) { o.TTL = 720*time.Hour + time.Millisecond },
		"auth: OneTime.TTL (900ns) is less than 1ms; missing time u": func(o *auth.OneTime) { o.TTL = 900 },
	} {
		o := auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour}
		change(&o)
		token, err := fx.IssueOneTime(context.Background(), o)
		require.ErrorContains(t, err, text)
		require.Empty(t, token)
	}
	for _, ttl := range []time.Duration{time.Second, 30 * 24 * time.Hour} {
		require.NoError(t, fx.spendOnce(fx.issue(t, func(o *auth.OneTime) { o.TTL = ttl })))
	}
}

// A token lives for its TTL, rounded up to the next whole second.
func TestOneTime_Expires(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{time.Second, 1500 * time.Millisecond, time.Hour, 30 * 24 * time.Hour} {
		for _, phase := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
			fx := newFixture(t)
			fx.clock.Advance(phase)
			token := fx.issue(t, func(o *auth.OneTime) { o.TTL = ttl })
			fx.clock.Advance(ttl - time.Millisecond)
			require.NoError(t, fx.check(token))
			fx.clock.Advance(time.Second)
			require.ErrorIs(t, fx.check(token), auth.ErrTokenExpired)
			require.ErrorIs(t, fx.spendOnce(token), auth.ErrTokenExpired)
			require.Zero(t, fx.store.count("Spend"))
			fx.stop()
		}
	}
}

// A process whose clock is behind by Leeway refuses the token as spent until it
// has expired by that clock.
func TestSpendOneTime_RecordOutlivesTheTokenOnEveryClock(t *testing.T) {
	t.Parallel()
	var until time.Time
	fx := newFixture(t, func(c *auth.Config) { c.Store = spendFunc{c.Store, func(at time.Time) { until = at }} })
	token := fx.issue(t)
	require.NoError(t, fx.spendOnce(token))
	require.Equal(t, fx.clock.Now().Add(time.Hour+10*time.Second), until)
	require.NoError(t, fx.Once(context.Background(), "u1", "step", time.Minute))
	require.Equal(t, fx.clock.Now().Add(time.Minute+10*time.Second), until)
}

// spendFunc calls a function with the time until of each Spend.
type spendFunc struct {
	auth.Store
	called func(until time.Time)
}

func (s spendFunc) Spend(ctx context.Context, subject, id string, until time.Time) error {
	s.called(until)
	return s.Store.Spend(ctx, subject, id, until)
}

func TestOnce_ReturnsNilOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	nodes := newNodes(t, 2, func(int, *auth.Config) {})
	require.NoError(t, nodes[0].Once(ctx, "u1", "a", time.Minute))
	for _, fx := range nodes {
		require.ErrorIs(t, fx.Once(ctx, "u1", "a", time.Minute), auth.ErrSpent)
		require.Empty(t, fx.events.take(auth.EventFault))
	}
	require.NoError(t, nodes[1].Once(ctx, "u1", "b", time.Minute))
	require.NoError(t, nodes[1].Once(ctx, "u2", "a", time.Minute))
	for text, err := range map[string]error{
		"the id of Once is empty":                          nodes[0].Once(ctx, "u1", "", time.Minute),
		"the id of Once is 129 bytes; the limit is 128":    nodes[0].Once(ctx, "u1", strings.Repeat("x", 129), time.Minute),
		"a session ID must be 1 to 255 bytes of UTF-8":     nodes[0].Once(ctx, "u1", "\n", time.Minute),
		"a subject must be 1 to 255 bytes":                 nodes[0].Once(ctx, "", "x", time.Minute),
		"the ttl of Once (1ns) is less than 1ms":           nodes[0].Once(ctx, "u1", "x", 1),
		"the ttl of Once (0s) is not between 1s and 720h0": nodes[0].Once(ctx, "u1", "x", 0),
	} {
		require.ErrorContains(t, err, text)
	}
}

// An ID of the application is never that of a token.
func TestOnce_SpendsNoToken(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	token := fx.issue(t)
	_, payload := decodeToken(t, token)
	for _, id := range []string{payload["jti"].(string), "ot:" + payload["jti"].(string)} {
		require.NoError(t, fx.Once(ctx, "u1", id, time.Minute))
	}
	require.NoError(t, fx.spendOnce(token))
}

func TestOneTime_RevokeAllEndsWhatWasIssuedBefore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, leeway := range []time.Duration{-1, time.Millisecond, 10 * time.Second, time.Minute} {
		for _, phase := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
			fx := newFixture(t, func(c *auth.Config) { c.Leeway = leeway })
			fx.clock.Advance(phase)
			month := func(o *auth.OneTime) { o.TTL = 720 * time.Hour }
			before, other := fx.issue(t, month), fx.issue(t, month, func(o *auth.OneTime) { o.Subject = "u2" })
			require.NoError(t, fx.ExpireAccess(ctx, "u1"))
			require.NoError(t, fx.check(before), "only RevokeAll ends it")
			require.NoError(t, fx.RevokeAll(ctx, "u1", "spared"))
			after := fx.issue(t, month)
			for _, wait := range []time.Duration{0, time.Second, time.Minute, 24*time.Hour - time.Minute} {
				fx.clock.Advance(wait)
				require.ErrorIs(t, fx.check(before), auth.ErrInvalidToken, "leeway %s", leeway)
				require.NotErrorIs(t, fx.check(before), auth.ErrSessionRevoked)
				require.ErrorIs(t, fx.spendOnce(before), auth.ErrInvalidToken)
				require.NoError(t, fx.check(other))
				require.NoError(t, fx.check(after))
			}
			fx.stop()
		}
	}
}

// Other processes know a RevokeAll for a day too, although access tokens live
// for minutes.
func TestOneTime_RevokeAllReachesOtherProcessesForADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store)
		runNodes(t, a, b)
		token, err := a.IssueOneTime(ctx, auth.OneTime{Purpose: "invite", Subject: "u1", TTL: 720 * time.Hour})
		require.NoError(t, err)
		require.NoError(t, a.RevokeAll(ctx, "u1"))
		time.Sleep(24 * time.Hour)
		for _, node := range []*auth.Authenticator{a, b} {
			_, err = node.CheckOneTime(ctx, "invite", token)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
		}
		c, _ := newNode(t, store) // it has only read the feed
		runNodes(t, c)
		_, err = c.CheckOneTime(ctx, "invite", token)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	})
}

// RevokeAll that takes effect while the store spends the token wins.
func TestSpendOneTime_RevokeAllMeanwhileWins(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.issue(t)
	fx.store.on(func(ctx context.Context) error {
		fx.store.on(nil, "Spend")
		return fx.RevokeAll(ctx, "u1")
	}, "Spend")
	require.ErrorIs(t, fx.spendOnce(token), auth.ErrInvalidToken)
}

func TestOneTime_BoundToPasswordEndsWithIt(t *testing.T) {
	t.Parallel()
	other, err := fastHasher.Hash(context.Background(), pass)
	require.NoError(t, err)
	for name, change := range map[string]func(*users){
		"another hash": func(u *users) { u.change("u1", func(u *auth.User) { u.PasswordHash = other }) },
		"no hash":      func(u *users) { u.change("u1", func(u *auth.User) { u.PasswordHash = "" }) },
		"disabled":     func(u *users) { u.change("u1", func(u *auth.User) { u.Disabled = true }) },
		"deleted":      func(u *users) { delete(u.byID, "u1") },
	} {
		fx := newFixture(t)
		token, second, free := fx.issue(t, bound), fx.issue(t, bound), fx.issue(t)
		o, err := fx.CheckOneTime(context.Background(), "reset", token)
		require.NoError(t, err)
		require.True(t, o.BoundToPassword)
		require.NoError(t, fx.spendOnce(token))
		change(fx.users)
		require.ErrorIs(t, fx.check(second), auth.ErrInvalidToken, name)
		require.ErrorIs(t, fx.spendOnce(second), auth.ErrInvalidToken, name)
		require.NoError(t, fx.spendOnce(free), "a token that is not bound needs no user")
	}
	fx := newFixture(t)
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = "" })
	token := fx.issue(t, bound)
	require.NoError(t, fx.check(token))
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash = other })
	require.ErrorIs(t, fx.check(token), auth.ErrInvalidToken)
	_, err = fx.IssueOneTime(context.Background(), auth.OneTime{Purpose: "reset", Subject: "u3", TTL: time.Hour, BoundToPassword: true})
	require.ErrorIs(t, err, auth.ErrUserNotFound)
}

// Two tokens do not show whether the password was changed in between.
func TestOneTime_DigestsOfOneHashDiffer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	_, first := decodeToken(t, fx.issue(t, bound))
	_, second := decodeToken(t, fx.issue(t, bound))
	require.NotEqual(t, first["bound"], second["bound"])
	require.Len(t, first["bound"], 22)
}

// An outage is a 503, and spends nothing that the store has not recorded.
func TestOneTime_OutagesAreUnavailable(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.issue(t, bound)
	fx.users.failIn(1)
	require.ErrorIs(t, fx.spendOnce(token), auth.ErrUnavailable)
	require.Zero(t, fx.store.count("Spend"))
	fx.store.failBefore("Spend", errStore)
	err := fx.spendOnce(token)
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Equal(t, http.StatusServiceUnavailable, auth.ResponseFor(err).Status)
	require.Len(t, fx.events.take(auth.EventFault), 2)
	require.ErrorIs(t, fx.Once(context.Background(), "u1", "x", time.Minute), auth.ErrUnavailable)
	fx.store.failBefore("Spend", nil)
	require.NoError(t, fx.spendOnce(token))

	token = fx.issue(t)
	fx.store.failAfter("Spend", errStore)
	require.ErrorIs(t, fx.spendOnce(token), auth.ErrUnavailable)
	fx.store.failAfter("Spend", nil)
	require.ErrorIs(t, fx.spendOnce(token), auth.ErrSpent, "the store had recorded it")
}

// Only Spend may say that something was spent.
func TestLogin_ErrSpentOfAnotherMethodIsAFault(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.store.failBefore("Create", auth.ErrSpent)
	_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Equal(t, http.StatusServiceUnavailable, auth.ResponseFor(err).Status)
}

func TestOneTime_UnreadOrStaleFeed(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]error{
		auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrUnavailable, auth.StaleRefuse: auth.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			store := newTestStore()
			a, _ := newNode(t, store, func(c *auth.Config) { c.StalePolicy = policy })
			token, err := a.IssueOneTime(ctx, auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour})
			require.NoError(t, err)
			_, err = a.CheckOneTime(ctx, "reset", token)
			require.ErrorIs(t, err, auth.ErrUnavailable, "the feed has not been read")
			runNodes(t, a)
			_, err = a.CheckOneTime(ctx, "reset", token)
			require.NoError(t, err)
			store.failFeed(errStore)
			time.Sleep(2 * time.Minute)
			_, err = a.CheckOneTime(ctx, "reset", token)
			require.ErrorIs(t, err, want, policy)
			_, err = a.SpendOneTime(ctx, "reset", token, laptop)
			require.ErrorIs(t, err, want, policy)
			require.Zero(t, store.count("Get"), "there is no session to ask for")
		})
	}
}

// With a MemoryStore, the record that a token was spent ends with the process.
// So does the token.
func TestOneTime_OfAnotherMemoryStoreIsExpired(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	newAuthenticator := func(store auth.Store) (*auth.Authenticator, *events) {
		es := &events{}
		a, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher, OnEvent: es.add, Store: store,
		})
		require.NoError(t, err)
		t.Cleanup(run(a.Verifier))
		<-a.Ready()
		return a, es
	}
	memory := auth.NewMemoryStore()
	first, _ := newAuthenticator(memory)
	same, _ := newAuthenticator(memory)
	restarted, reported := newAuthenticator(nil)
	shared, _ := newAuthenticator(newTestStore())
	o := auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour}
	token, err := first.IssueOneTime(ctx, o)
	require.NoError(t, err)
	_, err = same.CheckOneTime(ctx, "reset", token)
	require.NoError(t, err)
	for _, other := range []*auth.Authenticator{restarted, shared} {
		_, err = other.SpendOneTime(ctx, "reset", token, laptop)
		require.ErrorIs(t, err, auth.ErrTokenExpired)
	}
	require.Len(t, reported.take(auth.EventRefused), 1)
	token, err = shared.IssueOneTime(ctx, o)
	require.NoError(t, err)
	_, err = first.CheckOneTime(ctx, "reset", token)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

// oneTimeSecret returns the secret of the one-time tokens of knownKeys.
func oneTimeSecret(t testing.TB, refresh []byte) []byte {
	t.Helper()
	k, err := hkdf.Key(sha256.New, refresh, nil, "ratchet v1 one-time", 32)
	require.NoError(t, err)
	return k
}

// newOneTimeForger returns a forger of one-time tokens of knownKeys.
func newOneTimeForger(t testing.TB, now time.Time) *forger {
	t.Helper()
	s := oneTimeSecret(t, refreshSecret)
	f := &forger{typ: "ot+jwt", key: auth.HS256(s), secret: s, now: now}
	f.claims = members{
		{"iss", quote(issuer)},
		{"aud", quote(audience)},
		{"sub", `"u1"`},
		{"purpose", `"reset"`},
		{"jti", `"one"`},
		{"iat", f.at(0)},
		{"exp", f.at(time.Hour)},
	}
	return f
}

func TestOneTime_RefusesHostileTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} })
	f := newOneTimeForger(t, fx.clock.Now())
	require.NoError(t, fx.check(f.signClaims(f.claims)))
	good := f.claims
	for name, token := range map[string]string{
		"empty":                    "",
		"another issuer":           f.signClaims(good.with("iss", `"https://other.example.com"`)),
		"another audience":         f.signClaims(good.with("aud", `"https://other.example.com"`)),
		"no purpose":               f.signClaims(good.without("purpose")),
		"no subject":               f.signClaims(good.without("sub")),
		"no ID":                    f.signClaims(good.without("jti")),
		"no iat":                   f.signClaims(good.without("iat")),
		"no exp":                   f.signClaims(good.without("exp")),
		"an exp as text":           f.signClaims(good.with("exp", quote(f.at(time.Hour)))),
		"data that is no base64":   f.signClaims(good.with("data", `"!"`)),
		"data with a line break":   f.signClaims(good.with("data", `"YQ\n"`)),
		"data as a number":         f.signClaims(good.with("data", "1")),
		"an empty bound":           f.signClaims(good.with("bound", `""`)),
		"a bound of somebody":      f.signClaims(good.with("bound", `"x"`)),
		"a purpose twice":          f.signClaims(good.and("purpose", `"reset"`)),
		"a name in upper case":     f.signClaims(good.and("SUB", `"u2"`)),
		"text after the object":    f.signPayload(good.String() + "x"),
		"signed by the access key": handSigned(accessSecret, f.header().String(), good.String()),
		"signed by a refresh key":  handSigned(refreshSecret, f.header().String(), good.String()),
		"typ of an access token":   f.sign(f.header().with("typ", `"at+jwt"`), good),
		"typ of a refresh token":   f.sign(f.header().with("typ", `"rt+jwt"`), good),
		"typ JWT":                  f.sign(f.header().with("typ", `"JWT"`), good),
		"alg none":                 f.sign(f.header().with("alg", `"none"`), good),
		"an access token":          fx.login(t).Access,
		"a refresh token":          fx.login(t).Refresh,
	} {
		require.ErrorIs(t, fx.check(token), auth.ErrInvalidToken, name)
		err := fx.spendOnce(token)
		require.ErrorIs(t, err, auth.ErrInvalidToken, name)
		require.Equal(t, http.StatusBadRequest, auth.ResponseFor(err).Status, name)
	}
	require.Zero(t, fx.store.count("Spend"))

	token := fx.issue(t)
	_, err := fx.Verify(context.Background(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = fx.Refresh(context.Background(), token, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

func TestOneTime_TokenOfANewerVersionIsUnavailable(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} })
	f := newOneTimeForger(t, fx.clock.Now())
	newer := f.signClaims(f.claims.with("path", `"private"`))
	for range 3 {
		err := fx.spendOnce(newer)
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.Equal(t, http.StatusServiceUnavailable, auth.ResponseFor(err).Status)
		require.ErrorIs(t, fx.check(newer), auth.ErrUnavailable)
	}
	require.Zero(t, fx.store.count("Spend"))
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1, "one event a minute")
	require.ErrorContains(t, faults[0].Err, `the claim "path", which`)
	require.NotContains(t, faults[0].Err.Error(), "private")
	require.Equal(t, "u1", faults[0].Session.Subject)
	_, err := fx.CheckOneTime(context.Background(), "other", newer)
	require.ErrorIs(t, err, auth.ErrInvalidToken, "an unknown claim excuses nothing")
	fx.clock.Advance(time.Hour)
	require.ErrorIs(t, fx.check(newer), auth.ErrTokenExpired)
}

// A token of a clock that is far ahead could not be ended by RevokeAll, so it is
// refused.
func TestOneTime_FromTheFutureIsExpired(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} })
	f := newOneTimeForger(t, fx.clock.Now())
	require.NoError(t, fx.check(f.signClaims(f.claims.with("iat", f.at(21*time.Second)))))
	require.ErrorIs(t, fx.check(f.signClaims(f.claims.with("iat", f.at(22*time.Second)))), auth.ErrTokenExpired)
	require.Len(t, fx.events.take(auth.EventFault), 1)
}

// The keys of one-time tokens change with the refresh keys.
func TestOneTime_KeysFollowTheRefreshKeys(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	first := fx.issue(t, bound)
	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(refresh2Secret), auth.HS256(refreshSecret)}))
	require.NoError(t, fx.check(first))
	second := fx.issue(t, bound)
	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(refresh2Secret).SignFrom(fx.clock.Now().Add(time.Minute)), auth.HS256(refreshSecret)}))
	third := fx.issue(t) // signed by the key that signs until then
	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(refresh2Secret)}))
	require.ErrorIs(t, fx.check(first), auth.ErrInvalidToken)
	require.NoError(t, fx.check(second))
	require.ErrorIs(t, fx.check(third), auth.ErrInvalidToken)

	// An application that replaces Secrets by keys keeps its tokens.
	fx = newFixture(t)
	token := fx.issue(t, bound)
	derived, err := hkdf.Key(sha256.New, secret, nil, "ratchet v1 refresh", 32)
	require.NoError(t, err)
	require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(refreshSecret), auth.HS256(derived)}))
	require.NoError(t, fx.spendOnce(token))
}

func TestOneTime_ResponsesSayWhatAPageCanUse(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.issue(t)
	require.NoError(t, fx.spendOnce(token))
	expired := fx.issue(t, func(o *auth.OneTime) { o.TTL = time.Second })
	fx.clock.Advance(2 * time.Second)
	revoked := fx.issue(t)
	require.NoError(t, fx.RevokeAll(context.Background(), "u1"))
	for code, token := range map[string]string{"used_token": fx.issue(t), "expired_token": expired, "invalid_token": revoked} {
		if code == "used_token" {
			require.NoError(t, fx.spendOnce(token))
		}
		err := fx.spendOnce(token)
		got := auth.ResponseFor(err)
		require.Equal(t, code, got.Code)
		require.Equal(t, http.StatusBadRequest, got.Status)
		require.Empty(t, got.Action+got.Challenge+got.Reason)
		if code != "used_token" {
			require.Equal(t, code, auth.ResponseFor(fx.check(token)).Code)
		}
		require.NotContains(t, err.Error(), token)
	}
	require.Equal(t, "used_token", auth.ResponseFor(auth.ErrSpent).Code)
}

// The event names the device, and WriteError does not repeat it.
func TestSpendOneTime_RefusalIsReportedOncePerCause(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.issue(t)
	require.NoError(t, fx.spendOnce(token))
	fx.events.take("")
	for range 3 {
		err := fx.spendOnce(token)
		fx.WriteError(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil), err)
	}
	reported := fx.events.take(auth.EventRefused)
	require.Len(t, reported, 1)
	require.Equal(t, auth.Session{Subject: "u1"}, reported[0].Session)
	require.Equal(t, laptop, reported[0].Device)
	require.Equal(t, "used_token", reported[0].Reason)
	require.NotContains(t, reported[0].Err.Error(), token)
	_ = fx.spendOnce("x.y.z")
	reported = fx.events.take(auth.EventRefused)
	require.Len(t, reported, 1)
	require.Empty(t, reported[0].Session)
}

// contend calls f from n goroutines at once, and returns how often it returned
// nil. Any other error than want fails the test.
func contend(t testing.TB, n int, want error, f func() error) int {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	failed := make([]error, n)
	for i := range n {
		wg.Go(func() {
			<-start
			switch err := f(); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, want):
				failed[i] = err
			}
		})
	}
	close(start)
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	return int(won.Load())
}

// rounds returns how many rounds of contenders a test plays.
func rounds() int {
	if os.Getenv("AUTH_LONG") == "1" {
		return 1000
	}
	return 50
}

func TestSpendOneTime_OneOfManyContendersWins(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 2, func(int, *auth.Config) {})
	for range rounds() {
		token := nodes[0].issue(t)
		var next atomic.Int64
		require.Equal(t, 1, contend(t, 64, auth.ErrSpent, func() error { return nodes[next.Add(1)%2].spendOnce(token) }))
	}
}

func TestOnce_OneOfManyContendersWins(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for i := range rounds() {
		id := strings.Repeat("x", i%100) + time.Duration(i).String()
		require.Equal(t, 1, contend(t, 64, auth.ErrSpent, func() error { return fx.Once(context.Background(), "u1", id, time.Minute) }))
	}
}

// The tokens of a second count as issued at one instant. A RevokeAll in the same second,
// or by a clock that is behind, must end them anyway.
func TestOneTime_EveryRevokeAllEndsThem(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, leeway := range []time.Duration{-1, 10 * time.Second} {
		fx := newFixture(t, func(c *auth.Config) { c.Leeway = leeway })
		for _, back := range []time.Duration{0, 0, 9 * time.Second, time.Hour, 0} {
			fx.clock.Advance(-back)
			token := fx.issue(t)
			require.NoError(t, fx.check(token))
			require.NoError(t, fx.RevokeAll(ctx, "u1"))
			require.ErrorIs(t, fx.check(token), auth.ErrInvalidToken)
			require.NoError(t, fx.check(fx.issue(t)), "issued afterward")
			token = fx.issue(t)
			require.NoError(t, fx.ExpireAccess(ctx, "u1"))
			require.NoError(t, fx.check(token))
		}
		fx.stop()
	}
}
