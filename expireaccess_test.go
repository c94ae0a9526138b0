package auth_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestExpireAccess_TwiceInOneSecondExpiresTokensBetween(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newNode(t, nil)
		ctx := context.Background()
		tokens := startSession(t, a)
		for range 20 {
			begun := time.Now()
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			between, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
			_, err = a.Verify(ctx, between.Access)
			require.NoError(t, err)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			require.LessOrEqual(t, time.Since(begun), 2*time.Second)
			_, err = a.Verify(ctx, between.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
			tokens = between
		}
		hurry, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		require.ErrorIs(t, a.ExpireAccess(hurry, "u1"), auth.ErrUnavailable)
	})
}

func TestExpireAccess_RepeatedCallsStayWithinLeeway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		behind, _ := newNode(t, store, func(c *auth.Config) {
			c.Now = func() time.Time { return time.Now().Add(-10 * time.Second) }
		})
		runNodes(t, a, behind)
		tokens := startSession(t, a)
		for range 12 {
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			synctest.Wait()
			for _, x := range []*auth.Authenticator{a, behind} {
				next, err := x.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{Device: laptop})
				require.NoError(t, err)
				tokens = next
				synctest.Wait()
				for _, y := range []*auth.Authenticator{a, behind} {
					_, err = y.Verify(context.Background(), next.Access)
					require.NoError(t, err)
				}
			}
		}
	})
}

func TestExpireAccess_EndsAccessTokensButNoSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	tokens := fx.login(t)
	fx.users.change("u1", func(u *auth.User) { u.Roles = nil })
	require.NoError(t, fx.ExpireAccess(ctx, "u1"))
	_, err := fx.Verify(ctx, tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	again, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	c, err := fx.Verify(ctx, again.Access)
	require.NoError(t, err, "a token issued after the call is accepted at once")
	require.Empty(t, c.Roles)
	require.False(t, c.ExpiresAt.After(fx.clock.Now().Add(15*time.Minute)), "its lifetime counts from the clock")
}

func TestExpireAccess_ExpiresTokensWithRolesReadBefore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	tokens := fx.login(t)
	fx.users.onFind = func() {
		fx.users.onFind = nil
		// The roles change after the refresh has read the clock.
		require.NoError(t, fx.ExpireAccess(ctx, "u1"))
	}
	again, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = fx.Verify(ctx, again.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

// On a clock that does not reach the next second, ExpireAccess expires the tokens
// issued since the earlier revocation, and strict verifiers accept later ones.
func TestExpireAccess_AgainOnAClockThatDoesNotMove(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, during time.Duration // how the clock is set before the call, and while it waits
		wait           time.Duration // how long it waits
	}{
		"stands still":             {wait: 100 * time.Millisecond},
		"set back a little":        {before: -time.Millisecond, wait: 100 * time.Millisecond},
		"set back for seconds":     {before: -8 * time.Second, wait: 100 * time.Millisecond},
		"set back for an hour":     {before: -time.Hour},
		"set back during the wait": {during: -5 * time.Second, wait: 100 * time.Millisecond},
		"set back an hour":         {during: -time.Hour, wait: 100 * time.Millisecond},
		"slow":                     {during: 400 * time.Millisecond, wait: time.Second},
	} {
		for first, revoke := range map[string]func(*auth.Authenticator) error{
			"ExpireAccess": func(a *auth.Authenticator) error { return a.ExpireAccess(context.Background(), "u1") },
			"RevokeAll":    func(a *auth.Authenticator) error { return a.RevokeAll(context.Background(), "u1") },
		} {
			synctest.Test(t, func(t *testing.T) {
				title := first + ", " + name
				clock, store := newClock(), database{auth.NewMemoryStore()}
				a, _ := newNode(t, store, knownKeys, func(c *auth.Config) { c.Now = clock.Now })
				other, _ := newNode(t, store, knownKeys, func(c *auth.Config) { c.Now = clock.Now })
				runNodes(t, a, other)
				strict := strictVerifiers(t, store, clock.Now)
				ctx := context.Background()
				require.NoError(t, revoke(a), title)
				synctest.Wait()
				old := []auth.Tokens{startSession(t, a), startSession(t, other)}
				clock.Advance(c.before)
				for i := range 3 {
					for j, x := range []*auth.Authenticator{a, other} { // also with what the other node has issued
						next, err := x.Refresh(ctx, old[j].Refresh, auth.RefreshOptions{Device: laptop})
						require.NoError(t, err, title)
						old = append(old, next)
						old[j] = next
					}
					begun := time.Now()
					time.AfterFunc(50*time.Millisecond, func() { clock.Advance(c.during) })
					require.NoError(t, a.ExpireAccess(ctx, "u1"), title)
					if i == 0 {
						require.Equal(t, c.wait, time.Since(begun), title)
					}
					time.Sleep(time.Second)
					synctest.Wait()
					for _, tokens := range old {
						for _, x := range []*auth.Authenticator{a, other} {
							_, err := x.Verify(ctx, tokens.Access)
							require.ErrorIs(t, err, auth.ErrTokenExpired, title)
						}
					}
					for j, x := range []*auth.Authenticator{a, other} {
						next, err := x.Refresh(ctx, old[j].Refresh, auth.RefreshOptions{Device: laptop})
						require.NoError(t, err, title)
						for _, y := range []*auth.Authenticator{a, other} {
							_, err = y.Verify(ctx, next.Access)
							require.NoError(t, err, "%s: it was issued after the call", title)
						}
						for verifier, verify := range strict {
							require.NoError(t, verify(next.Access), "%s: %s", title, verifier)
						}
					}
				}
			})
		}
	}
}

func TestExpireAccess_AnotherRevocationMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newNode(t, nil)
		ctx := context.Background()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, a.RevokeAll(ctx, "u1"))
		result := make(chan error)
		go func() { result <- a.ExpireAccess(ctx, "u1") }() // it waits for a second
		time.Sleep(700 * time.Millisecond)
		require.NoError(t, a.RevokeAll(ctx, "u1")) // in the next second
		err := <-result
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.ErrorContains(t, err, "access tokens or sessions were revoked again while ExpireAccess waited")
		require.NoError(t, a.ExpireAccess(ctx, "u1"))
	})
}

// A not-before instant that a wrong clock has set does not affect later calls.
func TestExpireAccess_AfterAnEarlierCallByAFastClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{time.Minute, time.Hour, 4 * 365 * 24 * time.Hour} {
		clock := newClock()
		a, _ := newNode(t, nil, func(c *auth.Config) { c.Now = clock.Now })
		ctx := context.Background()
		tokens := startSession(t, a)
		clock.Advance(ahead)
		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		clock.Advance(-ahead)
		last, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		for range 3 {
			_, err = a.Verify(ctx, last.Access)
			require.NoError(t, err, ahead)
			require.NoError(t, a.ExpireAccess(ctx, "u1"))
			_, err = a.Verify(ctx, last.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired, ahead)
			last, err = a.Refresh(ctx, last.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
		}
	}
}

func TestExpireAccess_TwoProcessesInOneSecond(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	for name, first := range map[string]func(a *auth.Authenticator, spared string) error{
		"both expire access": func(a *auth.Authenticator, _ string) error { return a.ExpireAccess(context.Background(), "u1") },
		"the other ends sessions": func(a *auth.Authenticator, spared string) error {
			return a.RevokeAll(context.Background(), "u1", spared)
		},
	} {
		for _, ahead := range []time.Duration{0, 3 * time.Second, -3 * time.Second, 9 * time.Second, -9 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				memory := auth.NewMemoryStore()
				var paused atomic.Bool
				store := newPausedStore(memory, &paused)
				a, _ := newNode(t, memory)
				b, _ := newNode(t, store, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
				runNodes(t, a, b)
				ctx := context.Background()
				tokens := startSession(t, a)
				time.Sleep(12 * time.Second)
				paused.Store(true)
				require.NoError(t, first(a, tokens.SessionID))
				old, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop}) // with the role that is removed next
				require.NoError(t, err)
				require.NoError(t, b.ExpireAccess(ctx, "u1"))
				paused.Store(false)
				time.Sleep(25 * time.Second)
				for i, x := range []*auth.Authenticator{a, b} {
					_, err = x.Verify(ctx, old.Access)
					require.ErrorIs(t, err, auth.ErrTokenExpired, "%s, %s, node %d", name, ahead, i)
				}
				n := len(store.passed())
				require.LessOrEqual(t, n, 2, "a second publication is never published again")
				time.Sleep(time.Minute)
				require.Len(t, store.passed(), n)
				fresh, err := a.Refresh(ctx, old.Refresh, auth.RefreshOptions{Device: laptop})
				require.NoError(t, err)
				_, err = b.Verify(ctx, fresh.Access)
				require.NoError(t, err)
			})
		}
	}
}

func TestExpireAccess_WaitsForAClockThatIsAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store, func(c *auth.Config) { c.Now = func() time.Time { return time.Now().Add(9 * time.Second) } })
		runNodes(t, a, b)
		ctx := context.Background()
		tokens := startSession(t, a)
		require.NoError(t, b.ExpireAccess(ctx, "u1"))
		synctest.Wait()
		old, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		require.NoError(t, a.ExpireAccess(ctx, "u1"), "it must wait until its own instant is later")
		for _, x := range []*auth.Authenticator{a, b} {
			synctest.Wait()
			_, err := x.Verify(ctx, old.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		}
	})
}

func TestExpireAccess_AfterAnotherProcessPublishesOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		var nodes []*auth.Authenticator
		for range 4 {
			a, _ := newNode(t, store)
			runNodes(t, a)
			nodes = append(nodes, a)
		}
		for i, a := range nodes {
			require.NoError(t, a.ExpireAccess(context.Background(), "u1"))
			time.Sleep(3 * time.Minute)
			require.Len(t, store.passed(), i+1, "clients must refresh once, not once for each process")
		}
	})
}

func TestExpireAccess_RoundsToWholeSeconds(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	fx.clock.Advance(400 * time.Millisecond)
	f := newForger("access", fx.clock.Now())
	notBefore := fx.clock.Now().Add(10 * time.Second).Truncate(time.Second).Add(time.Second)
	require.NoError(t, fx.ExpireAccess(context.Background(), "u1"))
	at := func(issued time.Time) string {
		return f.signClaims(f.claims.with("iat", strconv.FormatInt(issued.Unix(), 10)).with("auth_time", "1"))
	}
	for _, before := range []time.Duration{time.Second, 5 * time.Second, 11 * time.Second, time.Hour} {
		_, err := fx.Verify(context.Background(), at(notBefore.Add(-before)))
		require.ErrorIs(t, err, auth.ErrTokenExpired, before)
		require.NotErrorIs(t, err, auth.ErrSessionRevoked)
	}
	for _, after := range []time.Duration{0, time.Second, 10 * time.Second} {
		_, err := fx.Verify(context.Background(), at(notBefore.Add(after)))
		require.NoError(t, err, after)
	}
	// Tokens issued from now on are valid, and expire by the clock.
	tokens := fx.login(t)
	c, err := fx.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, fx.clock.Now().Truncate(time.Second), c.IssuedAt, "iat must be the clock's time")
	_, payload := decodeToken(t, tokens.Access)
	require.Equal(t, seconds(notBefore), payload["eff_iat"], "eff_iat must be raised to the not-before instant")
	require.Equal(t, fx.clock.Now().Add(15*time.Minute).Truncate(time.Second), c.ExpiresAt, "exp must count from the clock")
	// Other users are not affected.
	other, err := fx.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	c, err = fx.Verify(context.Background(), other.Access)
	require.NoError(t, err)
	require.Equal(t, fx.clock.Now().Truncate(time.Second), c.IssuedAt)
}

func TestExpireAccess_WithClocksUpToLeewayApart(t *testing.T) {
	t.Parallel()
	const leeway = 10 * time.Second
	for _, skew := range []time.Duration{
		-leeway, -leeway + time.Millisecond, -3 * time.Second, 0, 999 * time.Millisecond, 3 * time.Second, leeway - time.Millisecond,
		leeway,
	} {
		for _, phase := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
			name := fmt.Sprintf("%s at %s", skew, phase)
			base := newClock()
			base.Advance(phase)
			list := newNodes(t, 2, func(i int, c *auth.Config) {
				c.Now = base.Now
				if i == 1 {
					c.Now = func() time.Time { return base.Now().Add(skew) }
				}
			})
			here, there := list[0], list[1]
			old, err := there.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.NoError(t, err, name)
			old2, err := here.Login(context.Background(), "ada", pass, auth.SessionOptions{})
			require.NoError(t, err, name)
			require.NoError(t, here.ExpireAccess(context.Background(), "u1"))
			require.Eventually(t, func() bool { return there.Health().Revocations == 1 }, 5*time.Second, time.Millisecond)
			for _, token := range []string{old.Access, old2.Access} {
				for _, fx := range list {
					_, err := fx.Verify(context.Background(), token)
					require.ErrorIs(t, err, auth.ErrTokenExpired, name)
				}
			}
			for _, fx := range list {
				for _, refresh := range []string{old.Refresh, old2.Refresh} {
					refreshed, err := fx.Refresh(context.Background(), refresh, auth.RefreshOptions{})
					require.NoError(t, err, name)
					for _, v := range list {
						_, err := v.Verify(context.Background(), refreshed.Access)
						require.NoError(t, err, "refused although just issued: %s", name)
					}
				}
				fresh, err := fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})
				require.NoError(t, err, name)
				for _, v := range list {
					_, err := v.Verify(context.Background(), fresh.Access)
					require.NoError(t, err, "refused although just issued: %s", name)
				}
			}
		}
	}
}
