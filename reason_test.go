package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// reasonOf returns the member reason of a 401, or nil if there is none.
func reasonOf(t *testing.T, r response) any {
	t.Helper()
	require.Equal(t, http.StatusUnauthorized, r.status, r.body)
	return r.fields(t)["reason"]
}

// spend makes the first of three refresh tokens of a session spent: another
// client has refreshed the session twice. It returns the newest tokens.
func spend(t *testing.T, a *auth.Authenticator, tokens auth.Tokens) auth.Tokens {
	t.Helper()
	for range 2 {
		time.Sleep(2 * time.Minute)
		var err error
		tokens, err = a.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: thief})
		require.NoError(t, err)
	}
	return tokens
}

// revocationWays are the ways in which a session of u1 ends, with the reason that
// each of them has. They are called by a process that did not create the
// session.
var revocationWays = map[string]struct {
	reason string
	revoke func(t *testing.T, a *auth.Authenticator, u *users, tokens auth.Tokens) error
}{
	"Revoke": {"revoked", func(_ *testing.T, a *auth.Authenticator, _ *users, k auth.Tokens) error {
		return a.Revoke(context.Background(), "u1", k.SessionID)
	}},
	"RevokeAll": {"revoked", func(_ *testing.T, a *auth.Authenticator, _ *users, _ auth.Tokens) error {
		return a.RevokeAll(context.Background(), "u1", "other")
	}},
	"Logout": {"logout", func(_ *testing.T, a *auth.Authenticator, _ *users, k auth.Tokens) error {
		return a.Logout(context.Background(), k.Access)
	}},
	"a deleted user": {"user", func(_ *testing.T, a *auth.Authenticator, u *users, k auth.Tokens) error {
		u.mu.Lock()
		delete(u.byID, "u1")
		u.mu.Unlock()
		_, err := a.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
		if reason := auth.ResponseFor(err).Reason; reason != "user" {
			return fmt.Errorf("the reason is %q", reason)
		}
		return nil
	}},
	"a disabled user": {"user", func(_ *testing.T, a *auth.Authenticator, u *users, k auth.Tokens) error {
		u.change("u1", func(u *auth.User) { u.Disabled = true })
		_, err := a.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
		if !errors.Is(err, auth.ErrSessionRevoked) {
			return fmt.Errorf("refreshed with error %w", err)
		}
		return nil
	}},
	"a login that replaces it": {"replaced", func(_ *testing.T, a *auth.Authenticator, _ *users, k auth.Tokens) error {
		_, err := a.StartSession(context.Background(), "u2", auth.SessionOptions{Replaces: []string{k.Refresh}})
		return err
	}},
	"a login beyond MaxSessions": {"evicted", func(_ *testing.T, a *auth.Authenticator, _ *users, _ auth.Tokens) error {
		time.Sleep(time.Second)
		for range 2 {
			if _, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{}); err != nil {
				return err
			}
		}
		return nil
	}},
	"ExpireAccess": {"access", func(_ *testing.T, a *auth.Authenticator, _ *users, _ auth.Tokens) error {
		return a.ExpireAccess(context.Background(), "u1")
	}},
	"a spent token": {"reuse", func(_ *testing.T, a *auth.Authenticator, _ *users, k auth.Tokens) error {
		_, err := a.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{Device: laptop})
		if !errors.Is(err, auth.ErrTokenReused) || auth.ResponseFor(err).Reason != "reuse" {
			return fmt.Errorf("refreshed with error %w", err)
		}
		return nil
	}},
}

// The holder of a token learns in every process why the token was revoked:
// from the access token, from the refresh token and from a context.
func TestReason_IsInEveryRefusalOfARevokedToken(t *testing.T) {
	t.Parallel()
	for name, way := range revocationWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, u := auth.NewMemoryStore(), newUsers()
				change := func(c *auth.Config) { c.Users, c.MaxSessions = u, 2 }
				a, _ := newNode(t, store, change)
				b, reported := newNode(t, store, change)
				runNodes(t, a, b)
				k := startSession(t, a)
				spent := k
				if name == "a spent token" {
					k = spend(t, a, k)
				}
				var contexts []context.Context
				for _, node := range []*auth.Authenticator{a, b} {
					c := verifiedClaims(t, node, k.Access)
					ctx, cancel := node.SessionContext(context.Background(), c)
					defer cancel()
					contexts = append(contexts, ctx)
				}
				require.NoError(t, way.revoke(t, b, u, spent))
				synctest.Wait()

				var words []string
				for _, e := range reported.all {
					if e.Type == auth.EventRevoked || e.Type == auth.EventLogout {
						words = append(words, e.Reason)
					}
				}
				require.Equal(t, []string{way.reason}, words)
				want := auth.ErrSessionRevoked
				if way.reason == "access" {
					want = auth.ErrTokenExpired
				}
				for i, node := range []*auth.Authenticator{a, b} {
					require.Equal(t, way.reason, reasonOf(t, send(t, node.Require()(hello), "GET", "/", reqBearer(k.Access))), i)
					_, err := node.Verify(context.Background(), k.Access)
					require.ErrorIs(t, err, want)
					require.ErrorContains(t, err, want.Error()+": ")
					<-contexts[i].Done()
					cause := context.Cause(contexts[i])
					require.ErrorIs(t, cause, want)
					require.Equal(t, way.reason, auth.ResponseFor(cause).Reason)
					reply := send(t, node.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", k.Refresh))
					if way.reason == "access" {
						require.Equal(t, http.StatusOK, reply.status)
					} else {
						require.Equal(t, way.reason, reasonOf(t, reply), i)
						require.Equal(t, "invalid_grant", reply.fields(t)["error"])
					}
				}

				// Once the entry has expired, nothing says why the session ended.
				time.Sleep(50 * time.Hour) // RevokeAll is published for a day, and once more before its end
				for _, node := range []*auth.Authenticator{a, b} {
					reply := send(t, node.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", k.Refresh))
					if way.reason != "access" && way.reason != "user" { // the session goes on; the user is still gone
						require.Nil(t, reasonOf(t, reply))
					}
				}
			})
		})
	}
}

// Both parties get the same answer, whoever presents the spent token.
func TestReason_OfReuseIsToldToBothParties(t *testing.T) {
	t.Parallel()
	for _, victimIsFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := newNode(t, nil)
			runNodes(t, a)
			spent := startSession(t, a)
			newest := spend(t, a, spent)
			tokens := []auth.Tokens{spent, newest}
			if !victimIsFirst {
				tokens = append(tokens, spent)
			}
			for _, k := range tokens {
				reply := send(t, a.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", k.Refresh))
				reply.requireRefused(t, 401, "invalid_grant", "login")
				require.Equal(t, "reuse", reasonOf(t, reply))
			}
		})
	}
}

// A refresh in a page load gives the reason too.
func TestReason_IsInTheRefusalOfAPageLoad(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	spent := fx.chain(t, 3)[0]
	for range 2 { // ErrTokenReused, then ErrSessionRevoked
		require.Equal(t, "reuse", reasonOf(t, send(t, fx.Require()(hello), "GET", "/", reqCookie(refreshCookie, spent.Refresh))))
	}
	var reason string
	h := fx.Optional(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reason = auth.ResponseFor(auth.ErrorFromContext(r.Context())).Reason
	}))
	send(t, h, "GET", "/", reqCookie(refreshCookie, spent.Refresh))
	require.Equal(t, "reuse", reason)
}

// A token that this service did not sign, or that has expired, does not reveal
// why a session ended.
func TestReason_IsNotInOtherRefusals(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1", k.SessionID))
	require.Equal(t, "revoked", reasonOf(t, send(t, fx.Require()(hello), "GET", "/", reqBearer(k.Access))))
	other := func(token string) string {
		head, signature, _ := strings.Cut(token, ".")
		payload, signature, _ := strings.Cut(signature, ".")
		first := "A"
		if signature[0] == 'A' {
			first = "B"
		}
		return head + "." + payload + "." + first + signature[1:]
	}
	require.Nil(t, reasonOf(t, send(t, fx.Require()(hello), "GET", "/", reqBearer(other(k.Access)))))
	require.Nil(t, reasonOf(t, send(t, fx.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", other(k.Refresh)))))
	fx.clock.Advance(15*time.Minute + time.Second)
	require.Nil(t, reasonOf(t, send(t, fx.Require()(hello), "GET", "/", reqBearer(k.Access))))

	revoked := func() error {
		k := fx.login(t)
		require.NoError(t, fx.Revoke(context.Background(), "u1", k.SessionID))
		_, err := fx.Verify(context.Background(), k.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		return err
	}()
	for _, err := range []error{
		auth.ErrSessionRevoked, auth.ErrTokenExpired, auth.ErrInvalidToken, auth.ErrNoToken, auth.ErrForbidden, auth.ErrUnavailable, nil, errStore,
		errors.Join(revoked, auth.ErrUnavailable), fmt.Errorf("%w: %w", auth.ErrCrossOrigin, revoked), // these responses do not say that the session ended
	} {
		require.Empty(t, auth.ResponseFor(err).Reason, err)
	}
	require.Equal(t, "revoked", auth.ResponseFor(fmt.Errorf("wrapped: %w", revoked)).Reason)
	require.Equal(t, "reuse", auth.ResponseFor(fmt.Errorf("wrapped: %w", auth.ErrTokenReused)).Reason)
}

// An event reports that the login was not completed. No client has the tokens.
func TestReason_OfALoginThatFails(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.store.failBefore("List", errStore) // MaxSessions is checked after the session was created
	_, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	ended := fx.events.take(auth.EventRevoked)
	require.Len(t, ended, 1)
	require.Equal(t, "login", ended[0].Reason)
	require.Equal(t, "login", fx.store.passed()[0].Reason)
}

// Of several revocations of one session, the most important reason applies, in
// whatever order they are read.
func TestReason_OfReuseIsNotLostToALaterRevocation(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(a *auth.Authenticator, k auth.Tokens) error{
		"Logout": func(a *auth.Authenticator, k auth.Tokens) error {
			return a.Logout(context.Background(), k.Access, k.Refresh)
		},
		"Revoke": func(a *auth.Authenticator, k auth.Tokens) error {
			return a.Revoke(context.Background(), "u1", k.SessionID)
		},
		"RevokeAll": func(a *auth.Authenticator, _ auth.Tokens) error { return a.RevokeAll(context.Background(), "u1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := auth.NewMemoryStore()
				a, _ := newNode(t, store)
				b, _ := newNode(t, store)
				runNodes(t, a, b)
				spent := startSession(t, a)
				k := spend(t, a, spent)
				_, err := a.Refresh(context.Background(), spent.Refresh, auth.RefreshOptions{})
				require.ErrorIs(t, err, auth.ErrTokenReused)
				require.NoError(t, later(a, k))
				synctest.Wait()
				c, _ := newNode(t, store) // reads both from the feed
				runNodes(t, c)
				for _, node := range []*auth.Authenticator{a, b, c} {
					require.Equal(t, "reuse", reasonOf(t, send(t, node.Require()(hello), "GET", "/", reqBearer(k.Access))))
				}
			})
		})
	}
}

// A session may be revoked after Refresh has looked into the set and before
// Rotate has found no record.
func TestReason_OfASessionThatEndsDuringARefresh(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	fx.store.on(func(ctx context.Context) error {
		return fx.Revoke(ctx, "u1", k.SessionID)
	}, "Rotate")
	require.Equal(t, "revoked", reasonOf(t, send(t, fx.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", k.Refresh))))
}

// An older version, a newer version or an attacker may write any reason. It never
// changes what the revocation ends, and is not passed on to clients.
func TestReason_UnknownWordsCountAsNone(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"", "newer", "Reuse", "reuse ", "re\x00use", "\xff\xfe", "<script>", strings.Repeat("x", 1<<20)} {
		synctest.Test(t, func(t *testing.T) {
			store := &testStore{Store: auth.NewMemoryStore(), page: func(rs []auth.Revocation) []auth.Revocation {
				for i := range rs {
					rs[i].Reason = word
				}
				return rs
			}}
			a, _ := newNode(t, store.Store)
			b, reported := newNode(t, store)
			runNodes(t, a, b)
			one, two, three := startSession(t, a), startSession(t, a), startOtherSession(t, a)
			ctx, cancel := b.SessionContext(context.Background(), verifiedClaims(t, b, one.Access))
			defer cancel()
			require.NoError(t, a.Revoke(context.Background(), "u1", one.SessionID))
			require.NoError(t, a.RevokeAll(context.Background(), "u1"))
			require.NoError(t, a.ExpireAccess(context.Background(), "u2"))
			synctest.Wait()
			<-ctx.Done()
			require.Equal(t, auth.ErrSessionRevoked, context.Cause(ctx))
			for _, k := range []auth.Tokens{one, two, three} {
				require.Nil(t, reasonOf(t, send(t, b.Require()(hello), "GET", "/", reqBearer(k.Access))))
			}
			require.Empty(t, reported.take(auth.EventFault))
		})
	}
}

// What Run publishes again has its reason. Sessions of one user that were
// revoked for different reasons are published separately.
func TestReason_IsPublishedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store.Store)
		runNodes(t, a)
		ctx := context.Background()
		want := map[string]string{}
		for range 3 {
			k := startSession(t, b)
			require.NoError(t, b.Logout(ctx, k.Refresh)) // a knows it only from the feed
			want["u1 ["+k.SessionID+"] false"] = "logout"
			k = startSession(t, a)
			require.NoError(t, a.Revoke(ctx, "u1", k.SessionID))
			want["u1 ["+k.SessionID+"] false"] = "revoked"
		}
		require.NoError(t, a.RevokeAll(ctx, "u2", "spared"))
		want["u2 [] true"] = "revoked"
		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		want["u1 [] false"] = "access"
		time.Sleep(time.Minute)
		store.failFeed(auth.ErrFeedReset)
		time.Sleep(6 * time.Second)
		store.takePassed()
		store.failOver()
		store.failFeed(nil)
		time.Sleep(30 * time.Second)
		calls, got := 0, map[string]string{}
		for _, r := range readFeed(t, store.Store) {
			if r.AccessTTL > 0 {
				continue
			}
			calls++
			for i := range max(1, len(r.Sessions)) {
				got[fmt.Sprintln(r.Subject, r.Sessions[min(i, len(r.Sessions)):min(i+1, len(r.Sessions))], r.All)] = r.Reason
			}
		}
		expected := map[string]string{}
		for k, v := range want {
			expected[k+"\n"] = v
		}
		require.Equal(t, expected, got)
		require.Equal(t, 4, calls, "one for each reason and kind")
	})
}

// A session that the store still has, although it was revoked, is revoked again
// for the same reason.
func TestReason_OfASessionThatIsRevokedAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	tokens := fx.chain(t, 3)
	fx.store.failBefore("Revoke", errStore)
	_, err := fx.Refresh(ctx, tokens[0].Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	fx.store.failBefore("Revoke", nil)
	fx.store.takePassed()
	require.NoError(t, fx.Logout(ctx, tokens[2].Refresh))
	passed := fx.store.takePassed()
	require.NotEmpty(t, passed)
	for _, r := range passed {
		require.Equal(t, "reuse", r.Reason)
	}
}

func TestRevocationCheck_Reason(t *testing.T) {
	t.Parallel()
	r := auth.Revocation{Subject: "u1", Sessions: []string{"one"}, Until: time.Unix(1, 0)}
	for word, ok := range map[string]bool{
		"": true, "a": true, "reuse": true, "z": true, strings.Repeat("m", 16): true,
		strings.Repeat("m", 17): false, "Reuse": false, "a b": false, "a1": false, "a-b": false, "é": false, "\xff": false, "a\x00": false, "`": false, "{": false,
	} {
		r.Reason = word
		if ok {
			require.NoError(t, r.Check(), "%q", word)
		} else {
			require.ErrorIs(t, r.Check(), auth.ErrNotStorable, "%q", word)
			require.EqualError(t, r.Check(), "auth: not storable: a Revocation.Reason must be at most 16 letters from a to z")
		}
	}
}
