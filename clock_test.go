package auth_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// strictVerifiers returns verifiers that do not tolerate an iat in the future:
// golang-jwt, and Verifiers with almost no Leeway that follow the revocations
// of store.
func strictVerifiers(t testing.TB, store auth.Feed, now func() time.Time) map[string]func(token string) error {
	t.Helper()
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithTimeFunc(now),
	)
	verifiers := map[string]func(string) error{
		"golang-jwt": func(token string) error {
			_, err := parser.Parse(token, func(*jwt.Token) (any, error) { return accessSecret, nil })
			return err
		},
	}
	for _, leeway := range []time.Duration{-1, time.Millisecond} {
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)}, Leeway: leeway, Feed: store, Now: now,
		})
		require.NoError(t, err)
		stop := run(v)
		t.Cleanup(stop)
		<-v.Ready()
		verifiers[fmt.Sprintf("a Verifier with a Leeway of %s", leeway)] = func(token string) error {
			_, err := v.Verify(context.Background(), token)
			return err
		}
	}
	return verifiers
}

func TestRevokeAll_TokensIssuedRightAfterAreNotInTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, end := range map[string]func(*fixture) error{
		"RevokeAll":    func(fx *fixture) error { return fx.RevokeAll(ctx, "u1") },
		"ExpireAccess": func(fx *fixture) error { return fx.ExpireAccess(ctx, "u1") },
		"both": func(fx *fixture) error {
			if err := fx.ExpireAccess(ctx, "u1"); err != nil {
				return err
			}
			return fx.RevokeAll(ctx, "u1")
		},
		"neither": func(*fixture) error { return nil },
	} {
		for _, leeway := range []time.Duration{-1, time.Millisecond, 10 * time.Second, time.Minute} {
			for _, phase := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
				title := fmt.Sprintf("%s, leeway %s, %s into the second", name, leeway, phase)
				fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Leeway = leeway })
				fx.clock.Advance(phase)
				verifiers := strictVerifiers(t, fx.store, fx.clock.Now)
				require.NoError(t, end(fx), title)
				known := fx.clock.Now().Add(max(0, leeway)).Truncate(time.Second).Add(time.Second)
				if name == "both" {
					known = known.Add(time.Second) // RevokeAll is later than ExpireAccess
				}

				tokens := fx.login(t)
				login := tokens
				for _, after := range []time.Duration{0, time.Second, 5 * time.Second, 2 * time.Minute, 2 * time.Minute} {
					fx.clock.Advance(after)
					_, payload := decodeToken(t, tokens.Access)
					if after > 0 {
						var err error
						tokens, err = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
						require.NoError(t, err, title)
						_, payload = decodeToken(t, tokens.Access)
					}
					now := fx.clock.Now()
					require.Equal(t, seconds(now), payload["iat"], title)
					require.Equal(t, seconds(now.Add(15*time.Minute)), payload["exp"], title)
					if name != "neither" && now.Unix() < known.Unix() {
						require.Equal(t, seconds(known), payload["eff_iat"], title)
					} else {
						require.NotContains(t, payload, "eff_iat", title)
					}
					_, err := fx.Verify(ctx, tokens.Access)
					require.NoError(t, err, title)
					for other, verify := range verifiers {
						require.NoError(t, verify(tokens.Access), "%s, %s", title, other)
					}
				}
				// auth_time is the time of the login, raised as it is in the
				// store.
				_, payload := decodeToken(t, tokens.Access)
				_, first := decodeToken(t, login.Access)
				require.Equal(t, first["auth_time"], payload["auth_time"])
				_, refresh := decodeToken(t, login.Refresh)
				require.Equal(t, first["auth_time"], refresh["auth_time"])
				if name != "neither" {
					require.Equal(t, seconds(known), first["auth_time"], title)
				}
			}
		}
	}
}

// The clocks of two nodes are Leeway apart, in either direction. Tokens issued
// before ExpireAccess are refused everywhere. Tokens issued after it are
// accepted at once, also by strict verifiers that use the clock of the issuing
// node.
func TestExpireAccess_WithClockSkewAndStrictVerifiers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const leeway = 10 * time.Second
	for _, skew := range []time.Duration{-leeway, -time.Second, time.Millisecond, leeway} {
		for _, phase := range []time.Duration{0, 500 * time.Millisecond, 999 * time.Millisecond} {
			title := fmt.Sprintf("%s at %s", skew, phase)
			base := newClock()
			base.Advance(phase)
			clocks := []func() time.Time{base.Now, func() time.Time { return base.Now().Add(skew) }}
			store := database{auth.NewMemoryStore()}
			list := newNodes(t, 2, func(i int, c *auth.Config) {
				knownKeys(c)
				c.Now, c.Store = clocks[i], store
			})
			verifiers := []map[string]func(string) error{strictVerifiers(t, store, clocks[0]), strictVerifiers(t, store, clocks[1])}
			var old []auth.Tokens
			for _, fx := range list {
				old = append(old, fx.login(t))
			}
			require.NoError(t, list[0].ExpireAccess(ctx, "u1"))
			require.Eventually(t, func() bool { return list[1].Health().Revocations == 1 }, 5*time.Second, time.Millisecond)
			for _, tokens := range old {
				for _, fx := range list {
					_, err := fx.Verify(ctx, tokens.Access)
					require.ErrorIs(t, err, auth.ErrTokenExpired, title)
				}
			}
			for i, fx := range list {
				fresh := fx.login(t)
				refreshed, err := fx.Refresh(ctx, old[i].Refresh, auth.RefreshOptions{})
				require.NoError(t, err, title)
				for _, token := range []string{fresh.Access, refreshed.Access} {
					for _, other := range list {
						_, err := other.Verify(ctx, token)
						require.NoError(t, err, title)
					}
					for other, verify := range verifiers[i] {
						require.Eventually(t, func() bool { return verify(token) == nil }, 5*time.Second, time.Millisecond, "%s, %s", title, other)
					}
				}
			}
		}
	}
}

// A session created while the clock was ahead does not exempt its tokens from
// ExpireAccess.
func TestExpireAccess_IncludesSessionsCreatedByAWrongClock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, ahead := range []time.Duration{22 * time.Second, time.Hour, 4 * 365 * 24 * time.Hour} {
		fx := newFixture(t, knownKeys)
		fx.clock.Advance(ahead)
		tokens := fx.login(t)
		fx.clock.Advance(-ahead)
		tokens, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		_, payload := decodeToken(t, tokens.Access)
		require.NotContains(t, payload, "eff_iat", ahead)
		_, err = fx.Verify(ctx, tokens.Access)
		require.NoError(t, err, ahead)
		require.NoError(t, fx.ExpireAccess(ctx, "u1"))
		_, err = fx.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired, ahead)
	}
}

// A token without eff_iat, which only the previous version issued, is compared
// by its iat, which that version raised.
func TestVerify_WithoutEffIatComparesIat(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys)
	f := newForger("access", fx.clock.Now())
	require.NoError(t, fx.ExpireAccess(ctx, "u1")) // not-before is 11 s from now
	for _, c := range []struct {
		iat, eff time.Duration // 0 means that the claim is absent
		good     bool
	}{
		{iat: 10 * time.Second}, {iat: 11 * time.Second, good: true}, {iat: 21 * time.Second, good: true},
		{eff: 10 * time.Second}, {eff: 11 * time.Second, good: true}, {eff: -time.Second}, {eff: time.Hour, good: true},
		{iat: 12 * time.Second, eff: 11 * time.Second, good: true}, {iat: 12 * time.Second, eff: -time.Hour, good: true},
	} {
		claims := f.claims.with("iat", f.at(c.iat))
		if c.eff != 0 {
			claims = claims.with("eff_iat", f.at(c.eff))
		}
		for range 2 { // the second result comes from the cache
			_, err := fx.Verify(ctx, f.signClaims(claims))
			if c.good {
				require.NoError(t, err, "%+v", c)
			} else {
				require.ErrorIs(t, err, auth.ErrTokenExpired, "%+v", c)
			}
		}
	}
}

// setBacks are the durations by which tests set a clock back: a little more
// than an iat may be ahead, more than a retry window, and more than any session
// lasts.
var setBacks = []time.Duration{22 * time.Second, time.Hour, 4 * 365 * 24 * time.Hour}

// requireUsableNow checks that every verifier accepts tokens that were just
// issued, and that their lifetimes count from the clock.
func (fx *fixture) requireUsableNow(t testing.TB, tokens auth.Tokens, title string) {
	t.Helper()
	now := fx.clock.Now()
	for range 2 {
		_, err := fx.Verify(context.Background(), tokens.Access)
		require.NoError(t, err, title)
	}
	parser := jwt.NewParser(jwt.WithIssuedAt(), jwt.WithTimeFunc(fx.clock.Now))
	_, err := parser.Parse(tokens.Access, func(*jwt.Token) (any, error) { return accessSecret, nil })
	require.NoError(t, err, title)
	_, payload := decodeToken(t, tokens.Access)
	require.Equal(t, seconds(now), payload["iat"], title)
	require.False(t, tokens.AccessExpiresAt.After(now.Add(15*time.Minute)), title)
	require.False(t, tokens.RefreshExpiresAt.After(now.Add(7*24*time.Hour)), "%s: the idle lifetime counts from the clock", title)
}

func TestRefresh_ClockSetBackAtEveryStage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	refresh := func(t *testing.T, fx *fixture, tokens auth.Tokens) auth.Tokens {
		t.Helper()
		next, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		return next
	}
	for name, before := range map[string]func(t *testing.T, fx *fixture) auth.Tokens{
		"after the login": func(t *testing.T, fx *fixture) auth.Tokens { return fx.login(t) },
		"after a refresh": func(t *testing.T, fx *fixture) auth.Tokens {
			tokens := fx.login(t)
			fx.clock.Advance(time.Minute)
			return refresh(t, fx, tokens)
		},
		"in its cooldown": func(t *testing.T, fx *fixture) auth.Tokens {
			tokens := refresh(t, fx, fx.login(t))
			fx.clock.Advance(time.Second)
			return refresh(t, fx, tokens)
		},
		"after a revocation and a login": func(t *testing.T, fx *fixture) auth.Tokens {
			require.NoError(t, fx.RevokeAll(ctx, "u1"))
			return fx.login(t)
		},
		"after a session that was expired": func(t *testing.T, fx *fixture) auth.Tokens {
			tokens := fx.login(t)
			require.NoError(t, fx.ExpireAccess(ctx, "u1"))
			return refresh(t, fx, tokens)
		},
	} {
		for _, back := range setBacks {
			title := fmt.Sprintf("%s, %s back", name, back)
			fx := newFixture(t, knownKeys)
			tokens := before(t, fx)
			fx.events.take("")
			fx.clock.Advance(-back)

			// Clients must refresh tokens that were issued while the clock was
			// ahead.
			for range 3 {
				_, err := fx.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrTokenExpired, title)
				require.Equal(t, "refresh", auth.ResponseFor(err).Action, title)
				require.False(t, holdsToken(err.Error(), tokens.Access), title)
			}
			faults := fx.events.take(auth.EventFault)
			require.Len(t, faults, 1, "%s: one event a minute", title)
			require.ErrorContains(t, faults[0].Err, "ahead of this clock", title)
			require.Equal(t, tokens.SessionID, faults[0].Session.ID, title)

			// The session continues. It rotates at once, and then as usual.
			for i := range 4 {
				next := refresh(t, fx, tokens)
				require.NotEqual(t, tokens.Refresh, next.Refresh, "%s: refresh %d must rotate", title, i)
				fx.requireUsableNow(t, next, title)
				stored, err := fx.store.Get(ctx, "u1", tokens.SessionID)
				require.NoError(t, err, title)
				require.Equal(t, fx.clock.Now(), stored.RotatedAt, title)
				require.Equal(t, next.Refresh, refresh(t, fx, next).Refresh, "%s: in its cooldown", title)
				require.Equal(t, next.Refresh, refresh(t, fx, tokens).Refresh, "%s: a retry", title)
				tokens = next
				fx.clock.Advance(defaultCooldown)
			}
			// The session ends when it is idle for too long by this clock.
			fx.clock.Advance(7 * 24 * time.Hour)
			_, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrTokenExpired, title)
		}
	}
}

// Events from the time when the clock was ahead do not affect later logins.
func TestLogin_AfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, before := range map[string]func(*fixture) error{
		"a login": func(fx *fixture) error {
			_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
			return err
		},
		"RevokeAll":    func(fx *fixture) error { return fx.RevokeAll(ctx, "u1") },
		"ExpireAccess": func(fx *fixture) error { return fx.ExpireAccess(ctx, "u1") },
	} {
		for _, back := range setBacks {
			title := fmt.Sprintf("%s, %s back", name, back)
			fx := newFixture(t, knownKeys)
			require.NoError(t, before(fx), title)
			fx.clock.Advance(-back)
			tokens := fx.login(t)
			fx.requireUsableNow(t, tokens, title)
			for range 20 { // the store removes expired sessions during these calls
				fx.login(t)
			}
			for range 4 {
				fx.clock.Advance(defaultCooldown)
				next, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
				require.NoError(t, err, title)
				fx.requireUsableNow(t, next, title)
				require.NotEqual(t, tokens.Refresh, next.Refresh, title)
				tokens = next
			}
		}
	}
}

// One of many concurrent requests sets back a session whose rotation is ahead
// of the clock. All requests get the same result.
func TestRefresh_ManyAtOnceAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys)
	_, second := fx.refreshed(t)
	fx.clock.Advance(-time.Hour)
	before := fx.store.count("Rotate")
	answers := make(chan string, 64)
	for range cap(answers) {
		go func() {
			next, err := fx.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
			if err != nil {
				next.Refresh = err.Error()
			}
			answers <- next.Refresh
		}()
	}
	first := <-answers
	for range cap(answers) - 1 {
		require.Equal(t, first, <-answers)
	}
	require.NotEqual(t, second.Refresh, first)
	stored, err := fx.store.Get(ctx, "u1", second.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 3, stored.Generation)
	require.LessOrEqual(t, fx.store.count("Rotate")-before, 2*cap(answers))
	// Otherwise a refresh takes one call of Rotate.
	before = fx.store.count("Rotate")
	_, err = fx.Refresh(ctx, first, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, fx.store.count("Rotate")-before)
}

// Fresh refuses a login in the future, because its age is unknown.
func TestFresh_RefusesALoginInTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	guard := auth.Fresh(5 * time.Minute)
	for ahead, fresh := range map[time.Duration]bool{
		0: true, 21 * time.Second: true, 121 * time.Second: true, 122 * time.Second: false, time.Hour: false, 4 * 365 * 24 * time.Hour: false,
	} {
		fx := newFixture(t)
		fx.clock.Advance(ahead)
		tokens := fx.login(t)
		fx.clock.Advance(-ahead)
		tokens, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		c, err := fx.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		if err := guard(ctx, c); fresh {
			require.NoError(t, err, ahead)
		} else {
			require.ErrorIs(t, err, auth.ErrReauthenticate, ahead)
		}
	}
}

// If the second call to the store fails, the token is not spent.
func TestRefresh_StoreFaultAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys)
	_, second := fx.refreshed(t)
	fx.clock.Advance(-time.Hour)
	fx.store.rotate = func(s auth.Session) (auth.Session, bool) {
		fx.store.failBefore("Rotate", errStore) // at the next call
		return s, false
	}
	_, err := fx.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	fx.store.rotate = nil
	fx.store.failBefore("Rotate", nil)
	third, err := fx.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.requireUsableNow(t, third, "after the fault")
}

// If its clock is behind, a node or a Verifier tells clients to refresh and
// reports an event.
func TestVerify_ReportsAClockThatIsBehindOnceAMinute(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, behind := range setBacks {
		fx := newFixture(t, knownKeys)
		seen := &events{}
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)},
			Now: func() time.Time { return fx.clock.Now().Add(-behind) }, OnEvent: seen.add,
		})
		require.NoError(t, err)
		var tokens auth.Tokens
		for range 3 {
			tokens = fx.login(t)
			for range 100 {
				_, err = v.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrTokenExpired)
				require.Equal(t, "refresh", auth.ResponseFor(err).Action)
			}
			faults := seen.take(auth.EventFault)
			require.Len(t, faults, 1, behind)
			require.False(t, holdsToken(faults[0].Err.Error(), tokens.Access))
			fx.clock.Advance(time.Minute)
		}
		fx.clock.Advance(-15 * time.Minute) // after the clock is set back, it reports at once
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired)
		require.Len(t, seen.take(auth.EventFault), 1, behind)
	}
}

// A spent token ends its session until the token itself expires. After that it
// is refused as expired without a call to the store, and the session continues.
func TestRefresh_SpentTokenEndsTheSessionUntilItExpires(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const idle = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		spent int           // index of the token; the session is refreshed once a day
		at    time.Duration // time from its issue until it is presented
		want  error
	}{
		"the first, a millisecond before its expiry":  {0, idle - time.Millisecond, auth.ErrTokenReused},
		"the first, at its expiry":                    {0, idle, auth.ErrTokenExpired},
		"the first, a day later":                      {0, idle + 24*time.Hour, auth.ErrTokenExpired},
		"the second, a millisecond before its expiry": {1, idle - time.Millisecond, auth.ErrTokenReused},
		"the second, at its expiry":                   {1, idle, auth.ErrTokenExpired},
		"the last but one, the next day":              {5, 25 * time.Hour, auth.ErrTokenReused},
	} {
		fx := newFixture(t)
		login := fx.clock.Now()
		tokens := fx.login(t)
		held := []string{tokens.Refresh}
		day := 24 * time.Hour
		refresh := func() {
			t.Helper()
			next, err := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, name)
			require.NotEqual(t, tokens.Refresh, next.Refresh, name)
			tokens = next
			held = append(held, next.Refresh)
		}
		present := login.Add(time.Duration(c.spent) * day).Add(c.at)
		for fx.clock.Now().Add(day).Before(present) {
			fx.clock.Advance(day)
			refresh()
		}
		fx.clock.Advance(present.Sub(fx.clock.Now()))
		require.Greater(t, len(held), c.spent+1, name)
		fx.events.take("")
		calls := fx.store.count("Rotate") + fx.store.count("Get") + fx.store.count("Revoke")
		_, err := fx.Refresh(ctx, held[c.spent], auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, c.want, name)
		require.Equal(t, "login", auth.ResponseFor(err).Action, name)
		if c.want == auth.ErrTokenReused {
			require.Len(t, fx.events.take(auth.EventReuse), 1, name)
			_, err = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
			continue
		}
		require.Empty(t, fx.events.take(auth.EventReuse), name)
		require.Equal(t, calls, fx.store.count("Rotate")+fx.store.count("Get")+fx.store.count("Revoke"), "%s: there must be no call to the store", name)
		refresh()
		_, err = fx.Verify(ctx, tokens.Access)
		require.NoError(t, err, name)
	}
}
