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

// strict are verifiers of access tokens without tolerance for an iat in the
// future: golang-jwt, and Verifiers with next to no Leeway that follow the
// revocations of store.
func strict(t testing.TB, store auth.Feed, now func() time.Time) map[string]func(token string) error {
	t.Helper()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(now))
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

func TestRevokeAll_WhatIsIssuedRightAfterIsNoTokenOfTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, end := range map[string]func(*bench) error{
		"RevokeAll":    func(b *bench) error { return b.RevokeAll(ctx, "u1") },
		"ExpireAccess": func(b *bench) error { return b.ExpireAccess(ctx, "u1") },
		"both": func(b *bench) error {
			if err := b.ExpireAccess(ctx, "u1"); err != nil {
				return err
			}
			return b.RevokeAll(ctx, "u1")
		},
		"neither": func(*bench) error { return nil },
	} {
		for _, leeway := range []time.Duration{-1, time.Millisecond, 10 * time.Second, time.Minute} {
			for _, phase := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
				title := fmt.Sprintf("%s, leeway %s, %s into the second", name, leeway, phase)
				b := newBench(t, knownKeys, func(c *auth.Config) { c.Leeway = leeway })
				b.clock.advance(phase)
				verifiers := strict(t, b.store, b.clock.Now)
				require.NoError(t, end(b), title)
				known := b.clock.Now().Add(max(0, leeway)).Truncate(time.Second).Add(time.Second)

				tokens := b.login(t)
				login := tokens
				for _, after := range []time.Duration{0, time.Second, 5 * time.Second, time.Minute, 2 * time.Minute} {
					b.clock.advance(after)
					_, payload := takeApart(t, tokens.Access)
					if after > 0 {
						var err error
						tokens, err = b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
						require.NoError(t, err, title)
						_, payload = takeApart(t, tokens.Access)
					}
					now := b.clock.Now()
					require.Equal(t, seconds(now), payload["iat"], title)
					require.Equal(t, seconds(now.Add(15*time.Minute)), payload["exp"], title)
					if name != "neither" && now.Unix() < known.Unix() {
						require.Equal(t, seconds(known), payload["eff_iat"], title)
					} else {
						require.NotContains(t, payload, "eff_iat", title)
					}
					_, err := b.Verify(ctx, tokens.Access)
					require.NoError(t, err, title)
					for other, verify := range verifiers {
						require.NoError(t, verify(tokens.Access), "%s, %s", title, other)
					}
				}
				// auth_time is the login's, raised as it is in the store.
				_, payload := takeApart(t, tokens.Access)
				_, first := takeApart(t, login.Access)
				require.Equal(t, first["auth_time"], payload["auth_time"])
				_, refresh := takeApart(t, login.Refresh)
				require.Equal(t, first["auth_time"], refresh["auth_time"])
				if name != "neither" {
					require.Equal(t, seconds(known), first["auth_time"], title)
				}
			}
		}
	}
}

// Two nodes whose clocks are Leeway apart, either way: what was issued before
// ExpireAccess is refused everywhere, and what is issued after it is accepted at
// once, also by strict verifiers that go by the clock of the node that issued.
func TestExpireAccess_ClocksApartAndStrictVerifiers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const leeway = 10 * time.Second
	for _, skew := range []time.Duration{-leeway, -time.Second, time.Millisecond, leeway} {
		for _, phase := range []time.Duration{0, 500 * time.Millisecond, 999 * time.Millisecond} {
			title := fmt.Sprintf("%s at %s", skew, phase)
			base := newClock()
			base.advance(phase)
			clocks := []func() time.Time{base.Now, func() time.Time { return base.Now().Add(skew) }}
			store := auth.NewMemoryStore()
			list := nodes(t, 2, func(i int, c *auth.Config) {
				knownKeys(c)
				c.Now, c.Store = clocks[i], store
			})
			verifiers := []map[string]func(string) error{strict(t, store, clocks[0]), strict(t, store, clocks[1])}
			var old []auth.Tokens
			for _, b := range list {
				old = append(old, b.login(t))
			}
			require.NoError(t, list[0].ExpireAccess(ctx, "u1"))
			require.Eventually(t, func() bool { return list[1].Health().Revocations == 1 }, 5*time.Second, time.Millisecond)
			for _, tokens := range old {
				for _, b := range list {
					_, err := b.Verify(ctx, tokens.Access)
					require.ErrorIs(t, err, auth.ErrTokenExpired, title)
				}
			}
			for i, b := range list {
				fresh := b.login(t)
				refreshed, err := b.Refresh(ctx, old[i].Refresh, auth.RefreshOptions{})
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

// A session that was opened while the clock was ahead does not exempt its
// tokens from ExpireAccess.
func TestExpireAccess_ConcernsSessionsOfAWrongClock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, ahead := range []time.Duration{22 * time.Second, time.Hour, 4 * 365 * 24 * time.Hour} {
		b := newBench(t, knownKeys)
		b.clock.advance(ahead)
		tokens := b.login(t)
		b.clock.advance(-ahead)
		tokens, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		_, payload := takeApart(t, tokens.Access)
		require.NotContains(t, payload, "eff_iat", ahead)
		_, err = b.Verify(ctx, tokens.Access)
		require.NoError(t, err, ahead)
		require.NoError(t, b.ExpireAccess(ctx, "u1"))
		_, err = b.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired, ahead)
	}
}

// A token without eff_iat, as the version before issued it, is compared by its
// iat, which was raised.
func TestVerify_TokensWithoutEffIatAreComparedByIat(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t, knownKeys)
	f := newForger("access", b.clock.Now())
	require.NoError(t, b.ExpireAccess(ctx, "u1")) // as of 11 s from now
	for _, c := range []struct {
		iat, eff time.Duration // of 0: without
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
		for range 2 { // the second time it is remembered
			_, err := b.Verify(ctx, f.signClaims(claims))
			if c.good {
				require.NoError(t, err, "%+v", c)
			} else {
				require.ErrorIs(t, err, auth.ErrTokenExpired, "%+v", c)
			}
		}
	}
}

// setBacks are how far a clock is set back: a little more than an iat may lie
// ahead, more than a window, and more than any session lives.
var setBacks = []time.Duration{22 * time.Second, time.Hour, 4 * 365 * 24 * time.Hour}

// goodNow checks that tokens that were issued just now are good now, by every
// verifier, and count from the clock.
func (b *bench) goodNow(t testing.TB, tokens auth.Tokens, title string) {
	t.Helper()
	now := b.clock.Now()
	for range 2 {
		_, err := b.Verify(context.Background(), tokens.Access)
		require.NoError(t, err, title)
	}
	parser := jwt.NewParser(jwt.WithIssuedAt(), jwt.WithTimeFunc(b.clock.Now))
	_, err := parser.Parse(tokens.Access, func(*jwt.Token) (any, error) { return accessSecret, nil })
	require.NoError(t, err, title)
	_, payload := takeApart(t, tokens.Access)
	require.Equal(t, seconds(now), payload["iat"], title)
	require.False(t, tokens.AccessExpiresAt.After(now.Add(15*time.Minute)), title)
	require.False(t, tokens.RefreshExpiresAt.After(now.Add(7*24*time.Hour)), "%s: idle time counts from the clock", title)
}

func TestRefresh_ClockSetBackAtEveryStage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	refresh := func(t *testing.T, b *bench, tokens auth.Tokens) auth.Tokens {
		t.Helper()
		next, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		return next
	}
	for name, before := range map[string]func(t *testing.T, b *bench) auth.Tokens{
		"after the login": func(t *testing.T, b *bench) auth.Tokens { return b.login(t) },
		"after a refresh": func(t *testing.T, b *bench) auth.Tokens {
			tokens := b.login(t)
			b.clock.advance(time.Minute)
			return refresh(t, b, tokens)
		},
		"while it rests": func(t *testing.T, b *bench) auth.Tokens {
			tokens := refresh(t, b, b.login(t))
			b.clock.advance(time.Second)
			return refresh(t, b, tokens)
		},
		"after a revocation and a login": func(t *testing.T, b *bench) auth.Tokens {
			require.NoError(t, b.RevokeAll(ctx, "u1"))
			return b.login(t)
		},
		"after a session that was expired": func(t *testing.T, b *bench) auth.Tokens {
			tokens := b.login(t)
			require.NoError(t, b.ExpireAccess(ctx, "u1"))
			return refresh(t, b, tokens)
		},
	} {
		for _, back := range setBacks {
			title := fmt.Sprintf("%s, %s back", name, back)
			b := newBench(t, knownKeys)
			tokens := before(t, b)
			b.events.take("")
			b.clock.advance(-back)

			// What was issued by the clock that was ahead is to be refreshed.
			for range 3 {
				_, err := b.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrTokenExpired, title)
				require.Equal(t, "refresh", auth.ResponseFor(err).Action, title)
				require.False(t, holdsToken(err.Error(), tokens.Access), title)
			}
			faults := b.events.take(auth.EventFault)
			require.Len(t, faults, 1, "%s: one event a minute", title)
			require.ErrorContains(t, faults[0].Err, "ahead of this clock", title)
			require.Equal(t, tokens.SessionID, faults[0].Session.ID, title)

			// The session goes on: it moves at once, and then as it always does.
			for i := range 4 {
				next := refresh(t, b, tokens)
				require.NotEqual(t, tokens.Refresh, next.Refresh, "%s: refresh %d moves", title, i)
				b.goodNow(t, next, title)
				stored, err := b.store.Get(ctx, "u1", tokens.SessionID)
				require.NoError(t, err, title)
				require.Equal(t, b.clock.Now(), stored.RotatedAt, title)
				require.Equal(t, next.Refresh, refresh(t, b, next).Refresh, "%s: it rests", title)
				require.Equal(t, next.Refresh, refresh(t, b, tokens).Refresh, "%s: a repeat", title)
				tokens = next
				b.clock.advance(31 * time.Second)
			}
			// It ends when it is idle for too long, by this clock.
			b.clock.advance(7 * 24 * time.Hour)
			_, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrTokenExpired, title)
		}
	}
}

// What happened while the clock was ahead does not hinder who comes after it.
func TestLogin_AfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, before := range map[string]func(*bench) error{
		"a login": func(b *bench) error {
			_, err := b.Login(ctx, "ada", pass, auth.SessionOptions{})
			return err
		},
		"RevokeAll":    func(b *bench) error { return b.RevokeAll(ctx, "u1") },
		"ExpireAccess": func(b *bench) error { return b.ExpireAccess(ctx, "u1") },
	} {
		for _, back := range setBacks {
			title := fmt.Sprintf("%s, %s back", name, back)
			b := newBench(t, knownKeys)
			require.NoError(t, before(b), title)
			b.clock.advance(-back)
			tokens := b.login(t)
			b.goodNow(t, tokens, title)
			for range 20 { // the store collects what has expired on the way
				b.login(t)
			}
			for range 4 {
				b.clock.advance(31 * time.Second)
				next, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
				require.NoError(t, err, title)
				b.goodNow(t, next, title)
				require.NotEqual(t, tokens.Refresh, next.Refresh, title)
				tokens = next
			}
		}
	}
}

// A session that was moved ahead of the clock is set back by one request of
// many, and all have the same answer.
func TestRefresh_ManyAtOnceAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t, knownKeys)
	_, second := b.refreshed(t)
	b.clock.advance(-time.Hour)
	before := b.store.count("Rotate")
	answers := make(chan string, 64)
	for range cap(answers) {
		go func() {
			next, err := b.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
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
	stored, err := b.store.Get(ctx, "u1", second.SessionID)
	require.NoError(t, err)
	require.EqualValues(t, 3, stored.Generation)
	require.LessOrEqual(t, b.store.count("Rotate")-before, 2*cap(answers))
	// Otherwise a refresh is one call.
	before = b.store.count("Rotate")
	_, err = b.Refresh(ctx, first, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, b.store.count("Rotate")-before)
}

// A login in the future is not known to be recent.
func TestFresh_LoginOfAWrongClockIsNotFresh(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	guard := auth.Fresh(5 * time.Minute)
	for ahead, fresh := range map[time.Duration]bool{
		0: true, 21 * time.Second: true, 121 * time.Second: true, 122 * time.Second: false, time.Hour: false, 4 * 365 * 24 * time.Hour: false,
	} {
		b := newBench(t)
		b.clock.advance(ahead)
		tokens := b.login(t)
		b.clock.advance(-ahead)
		tokens, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		c, err := b.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		if err := guard(ctx, c); fresh {
			require.NoError(t, err, ahead)
		} else {
			require.ErrorIs(t, err, auth.ErrReauthenticate, ahead)
		}
	}
}

// A store that fails at the second call has spent nothing.
func TestRefresh_StoreFaultAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	script := &scriptedStore{Store: auth.NewMemoryStore()}
	b := newBench(t, knownKeys, func(c *auth.Config) { c.Store = script })
	_, second := b.refreshed(t)
	b.clock.advance(-time.Hour)
	script.rotate = func(s auth.Session) (auth.Session, bool) {
		b.store.failBefore("Rotate", errStore) // the next call
		return s, false
	}
	_, err := b.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	script.rotate = nil
	b.store.failBefore("Rotate", nil)
	third, err := b.Refresh(ctx, second.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	b.goodNow(t, third, "after the fault")
}

// A node, or a Verifier, whose clock is behind tells clients to refresh and its
// operator by an event.
func TestVerify_ClockThatIsBehindIsAnEventOnceAMinute(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, behind := range setBacks {
		b := newBench(t, knownKeys)
		seen := &events{}
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)},
			Now: func() time.Time { return b.clock.Now().Add(-behind) }, OnEvent: seen.add,
		})
		require.NoError(t, err)
		var tokens auth.Tokens
		for range 3 {
			tokens = b.login(t)
			for range 100 {
				_, err = v.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrTokenExpired)
				require.Equal(t, "refresh", auth.ResponseFor(err).Action)
			}
			faults := seen.take(auth.EventFault)
			require.Len(t, faults, 1, behind)
			require.False(t, holdsToken(faults[0].Err.Error(), tokens.Access))
			b.clock.advance(time.Minute)
		}
		b.clock.advance(-15 * time.Minute) // when the clock is set back, it tells at once
		_, err = v.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrTokenExpired)
		require.Len(t, seen.take(auth.EventFault), 1, behind)
	}
}

// A spent token ends its session until its own expiry has passed; then it is
// refused as expired without touching the store, and the session goes on.
func TestRefresh_SpentTokenEndsTheSessionUntilItExpires(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const idle = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		spent int           // which of the tokens of the session's days
		at    time.Duration // when it is presented, counted from its issue
		want  error
	}{
		"the first, a millisecond before its expiry":  {0, idle - time.Millisecond, auth.ErrTokenReused},
		"the first, at its expiry":                    {0, idle, auth.ErrTokenExpired},
		"the first, a day later":                      {0, idle + 24*time.Hour, auth.ErrTokenExpired},
		"the second, a millisecond before its expiry": {1, idle - time.Millisecond, auth.ErrTokenReused},
		"the second, at its expiry":                   {1, idle, auth.ErrTokenExpired},
		"the last but one, the next day":              {5, 25 * time.Hour, auth.ErrTokenReused},
	} {
		b := newBench(t)
		login := b.clock.Now()
		tokens := b.login(t)
		held := []string{tokens.Refresh}
		day := 24 * time.Hour
		refresh := func() {
			t.Helper()
			next, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, name)
			require.NotEqual(t, tokens.Refresh, next.Refresh, name)
			tokens = next
			held = append(held, next.Refresh)
		}
		present := login.Add(time.Duration(c.spent) * day).Add(c.at)
		for b.clock.Now().Add(day).Before(present) {
			b.clock.advance(day)
			refresh()
		}
		b.clock.advance(present.Sub(b.clock.Now()))
		require.Greater(t, len(held), c.spent+1, name)
		b.events.take("")
		calls := b.store.count("Rotate") + b.store.count("Get") + b.store.count("Revoke")
		_, err := b.Refresh(ctx, held[c.spent], auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, c.want, name)
		require.Equal(t, "login", auth.ResponseFor(err).Action, name)
		if c.want == auth.ErrTokenReused {
			require.Len(t, b.events.take(auth.EventReuse), 1, name)
			_, err = b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
			continue
		}
		require.Empty(t, b.events.take(auth.EventReuse), name)
		require.Equal(t, calls, b.store.count("Rotate")+b.store.count("Get")+b.store.count("Revoke"), "%s: the store is not touched", name)
		refresh()
		_, err = b.Verify(ctx, tokens.Access)
		require.NoError(t, err, name)
	}
}
