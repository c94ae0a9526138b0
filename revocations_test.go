package auth_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestRevocation_ReachesEveryNodeAndVerifier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := database{auth.NewMemoryStore()}
		a, _ := newNode(t, store, withSeparateKeys)
		b, _ := newNode(t, store, withSeparateKeys)
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, Feed: store,
		})
		require.NoError(t, err)
		for _, x := range []*auth.Verifier{a.Verifier, b.Verifier, v} {
			stop := run(x)
			defer stop()
			<-x.Ready()
		}
		ctx := context.Background()
		everywhere := func(token string, want error) {
			t.Helper()
			synctest.Wait() // without a clock: only the feed matters
			for i, x := range []*auth.Verifier{a.Verifier, b.Verifier, v} {
				_, err := x.Verify(ctx, token)
				if want == nil {
					require.NoError(t, err, i)
				} else {
					require.ErrorIs(t, err, want, i)
				}
			}
		}
		one, two, three := startSession(t, a), startSession(t, a), startSession(t, b)
		everywhere(one.Access, nil)
		require.NoError(t, a.Revoke(ctx, "u1", one.SessionID))
		everywhere(one.Access, auth.ErrSessionRevoked)
		everywhere(two.Access, nil)

		stream, cancel := b.SessionContext(ctx, verifiedClaims(t, b, two.Access))
		defer cancel()
		require.NoError(t, a.RevokeAll(ctx, "u1", three.SessionID))
		everywhere(two.Access, auth.ErrSessionRevoked)
		<-stream.Done()
		require.ErrorIs(t, context.Cause(stream), auth.ErrSessionRevoked)
		everywhere(three.Access, nil)

		require.NoError(t, b.ExpireAccess(ctx, "u1"))
		everywhere(three.Access, auth.ErrTokenExpired)
		again, err := a.Refresh(ctx, three.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		everywhere(again.Access, nil)
	})
}

func TestRevocations_AreDroppedWhenNoTokenIsLeft(t *testing.T) {
	t.Parallel()
	clock := newClock()
	a, _ := newNode(t, nil, func(c *auth.Config) { c.Now = clock.Now })
	ctx := context.Background()
	for range 50 {
		for range 20 {
			require.NoError(t, a.Revoke(ctx, "u1", startSession(t, a).SessionID))
			require.NoError(t, a.RevokeAll(ctx, "u2"))
		}
		clock.Advance(time.Minute)
	}
	// These are the entries of 16 minutes, and a few that are removed with the
	// next one.
	require.Less(t, a.Health().Revocations, 18*21)
}

func TestRevocations_AreDroppedTogetherWhenTheyExpire(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]auth.Store{"own": nil, "shared": auth.NewMemoryStore()} {
		clock := newClock()
		a, _ := newNode(t, store, func(c *auth.Config) { c.Now = clock.Now })
		ctx := context.Background()
		for i := range 5000 {
			require.NoError(t, a.Revoke(ctx, "u1", fmt.Sprint(i)))
		}
		require.Equal(t, 5000, a.Health().Revocations)
		clock.Advance(25 * time.Hour)
		require.NoError(t, a.Revoke(ctx, "u2", "one"))
		require.Equal(t, 1, a.Health().Revocations, name)
	}
}

func TestRevocations_DroppingOneKeepsOthersOfTheUser(t *testing.T) {
	t.Parallel()
	clock := newClock()
	a, _ := newNode(t, nil, func(c *auth.Config) { c.Now = clock.Now; c.AccessTTL = time.Hour })
	ctx := context.Background()
	first, second, third := startSession(t, a), startSession(t, a), startSession(t, a)
	require.NoError(t, a.Revoke(ctx, "u1", first.SessionID))
	clock.Advance(30 * time.Minute)
	require.NoError(t, a.Revoke(ctx, "u1", second.SessionID))
	require.NoError(t, a.ExpireAccess(ctx, "u1"))
	clock.Advance(32 * time.Minute) // the first has expired
	require.NoError(t, a.Revoke(ctx, "u2", "one"))
	require.Equal(t, 3, a.Health().Revocations)
	next, err := a.Refresh(ctx, third.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	_, err = a.Verify(ctx, next.Access)
	require.NoError(t, err)
	_, err = a.Refresh(ctx, second.Refresh, auth.RefreshOptions{Device: laptop})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}
