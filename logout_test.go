package auth_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestLogout_EndsTheSessionsOfAllSignedTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	one, two, three := fx.login(t), fx.login(t), fx.login(t)
	fx.clock.Advance(time.Hour) // access tokens have expired
	require.NoError(t, fx.Logout(ctx, one.Access, two.Refresh, "rubbish", "", one.Access))
	list, err := fx.Sessions(ctx, "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, three.SessionID, list[0].ID)
	require.Equal(t, 2, fx.store.count("Revoke"))
	require.Len(t, fx.events.take(auth.EventLogout), 2)

	// Repeated calls do not write to the feed again.
	for range 10 {
		require.NoError(t, fx.Logout(ctx, one.Access))
	}
	require.Equal(t, 2, fx.store.count("Revoke"))

	fx.store.failBefore("Revoke", errStore)
	require.ErrorIs(t, fx.Logout(ctx, three.Refresh), auth.ErrUnavailable)
	require.ErrorIs(t, fx.Logout(ctx, three.Refresh), auth.ErrUnavailable, "a failed call must be tried again")
	fx.store.failBefore("Revoke", nil)
	require.NoError(t, fx.Logout(ctx, three.Refresh))
	_, err = fx.store.Store.Get(ctx, "u1", three.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

func TestLogout_ReturnsAfterTheStoreHasConfirmed(t *testing.T) {
	t.Parallel()
	for kind, revoke := range revocationKinds {
		if kind == "expire access" {
			continue // it waits for the next second
		}
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			stop := run(a.Verifier)
			<-a.Ready()
			require.NoError(t, a.RevokeAll(context.Background(), "u1")) // the store has confirmed it
			time.Sleep(12 * time.Second)
			tokens := startSession(t, a)
			store.on(hang, "Revoke", notice)
			begun := time.Now()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					require.ErrorIs(t, revoke(a, tokens), auth.ErrUnavailable, "%s %d", kind, i)
				})
			}
			wg.Go(func() {
				time.Sleep(200 * time.Millisecond)
				list, err := a.Sessions(context.Background(), "u1")
				require.NoError(t, err)
				require.Len(t, list, 1, "the session has not ended in the store")
				_, err = a.Verify(context.Background(), tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "this process must refuse it")
			})
			wg.Wait()
			require.LessOrEqual(t, time.Since(begun), 2100*time.Millisecond, kind)
			require.ErrorIs(t, revoke(a, tokens), auth.ErrUnavailable, kind)
			store.on(nil, "Revoke", notice)
			time.Sleep(2 * time.Minute)
			_, err := store.Store.Get(context.Background(), "u1", tokens.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s: Run must end it", kind)
			stop()
			require.NoError(t, revoke(a, tokens), kind)
		})
	}
}

func TestLogout_ExpiredTokenWritesOnlyIfTheSessionExists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := auth.NewMemoryStore()
		store := &testStore{Store: memory}
		a, _ := newNode(t, store)
		longer, _ := newNode(t, store, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 90*24*time.Hour, 90*24*time.Hour })
		ctx := context.Background()
		gone, there, moved, kept := startSession(t, a), startSession(t, a), startSession(t, a), startSession(t, longer)
		require.NoError(t, a.Revoke(ctx, "u1", gone.SessionID))
		time.Sleep(6 * 24 * time.Hour)
		next, err := a.Refresh(ctx, moved.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(2 * 24 * time.Hour) // all refresh tokens except next have expired, and so have the entries
		before := len(store.passed())
		for range 3 {
			store.resetCounts()
			require.NoError(t, a.Logout(ctx, gone.Refresh, gone.Access))
			require.LessOrEqual(t, store.count("Get"), 1)
		}
		require.Len(t, store.passed(), before, "there was no session to end")

		store.on(func(context.Context) error { return errStore }, "Get")
		require.ErrorIs(t, a.Logout(ctx, there.Refresh), auth.ErrUnavailable)
		require.Len(t, store.passed(), before, "whether there is a session is not known")
		store.on(nil, "Get")
		require.NoError(t, a.Logout(ctx, there.Refresh))
		_, err = memory.Get(ctx, "u1", there.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
		require.NoError(t, a.Logout(ctx, moved.Refresh), "a spent token that has expired")
		_, err = a.Refresh(ctx, next.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.NoError(t, a.Logout(ctx, kept.Access), "the SessionTTL of this process must not decide")
		_, err = longer.Refresh(ctx, kept.Refresh, auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Len(t, store.passed(), before+3)

		// A token that has not expired is revoked although its session is not
		// in the store, because an access token of the session may still be
		// valid.
		lost := startSession(t, a)
		require.NoError(t, memory.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{lost.SessionID}, Until: time.Now().Add(-time.Hour)}))
		require.NoError(t, a.Logout(ctx, lost.Refresh))
		require.Len(t, store.passed(), before+4)
	})
}

func TestLogout_OfSessionsCreatedBeforeRevokeAllWasRead(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(a *auth.Authenticator, tokens auth.Tokens) error{
		"logout": func(a *auth.Authenticator, tokens auth.Tokens) error {
			return a.Logout(context.Background(), tokens.Refresh)
		},
		"access logout": func(a *auth.Authenticator, tokens auth.Tokens) error {
			return a.Logout(context.Background(), tokens.Access)
		},
		"refresh": func(a *auth.Authenticator, tokens auth.Tokens) error {
			_, err := a.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			return nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			memory := auth.NewMemoryStore()
			cutOff := &testStore{Store: memory}
			a, _ := newNode(t, memory)
			b, _ := newNode(t, cutOff)
			runNodes(t, a, b)
			cutOff.failBefore("Changes", errStore)
			time.Sleep(10 * time.Second)
			require.NoError(t, a.RevokeAll(context.Background(), "u1"))
			for range 3 {
				tokens := startSession(t, b)
				require.NoError(t, end(a, tokens))
				_, err := memory.Get(context.Background(), "u1", tokens.SessionID)
				require.ErrorIs(t, err, auth.ErrSessionNotFound, name)
			}
		})
	}
}
