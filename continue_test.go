package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func TestContinue_KeepsTheLoginAndReplacesTheSession(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, actor := range []string{"", "u2"} {
		fx := newFixture(t, withOrg)
		o := auth.SessionOptions{Device: laptop}
		ownTerms(&o)
		end := fx.clock.Now().Add(o.SessionTTL)
		if actor != "" {
			o.Actor, o.IdleTTL, o.SessionTTL = actor, 30*time.Minute, time.Hour
			end = fx.clock.Now().Add(time.Hour)
		}
		k, err := fx.StartSession(ctx, "u1", o)
		require.NoError(t, err)
		first := verifiedClaims(t, fx.Authenticator, k.Access)
		fx.clock.Advance(10 * time.Minute)
		fx.events.take("")
		next, err := fx.Continue(ctx, first, auth.SessionOptions{Device: laptop, Data: []byte("org=2")})
		require.NoError(t, err)
		fx.events.mu.Lock()
		types := map[auth.EventType]int{}
		for _, e := range fx.events.all {
			types[e.Type]++
		}
		fx.events.mu.Unlock()
		require.Equal(t, map[auth.EventType]int{auth.EventContinue: 1, auth.EventRevoked: 1, auth.EventStale: 1}, types)
		opened := fx.events.take(auth.EventContinue)[0]
		require.Equal(t, next.SessionID, opened.Session.ID)
		require.Equal(t, actor, opened.Session.Actor())

		c := verifiedClaims(t, fx.Authenticator, next.Access)
		require.NotEqual(t, first.SessionID, c.SessionID)
		require.Equal(t, first.AuthTime, c.AuthTime)
		require.Equal(t, first.AMR, c.AMR)
		require.Equal(t, actor, c.Actor)
		require.Error(t, auth.Fresh(5*time.Minute)(ctx, c), "it is no login")
		require.NoError(t, auth.Fresh(time.Hour)(ctx, c))
		require.Equal(t, float64(fx.clock.Now().Unix()), payloadOf(t, next.Access)["session_iat"])
		s, err := fx.store.Get(ctx, "u1", next.SessionID)
		require.NoError(t, err)
		require.Equal(t, fx.clock.Now(), s.CreatedAt)
		require.Equal(t, "phone", s.Name())
		require.Equal(t, "org=2", string(s.Data()))
		require.Equal(t, actor, s.Actor())

		// The old session is gone, with both of its tokens.
		_, err = fx.Verify(ctx, k.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, "replaced", auth.ResponseFor(err).Reason)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		_, err = fx.Continue(ctx, first, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)

		// The absolute end is that of the login, however often the session continues.
		for fx.clock.Now().Add(11 * time.Minute).Before(end) {
			fx.clock.Advance(10 * time.Minute)
			next, err = fx.Refresh(ctx, next.Refresh, auth.RefreshOptions{Device: laptop})
			require.NoError(t, err)
			c = verifiedClaims(t, fx.Authenticator, next.Access)
			require.Equal(t, first.AuthTime, c.AuthTime)
			next, err = fx.Continue(ctx, c, auth.SessionOptions{Device: laptop})
			require.NoError(t, err)
			require.False(t, next.RefreshExpiresAt.After(end))
			require.Equal(t, true, payloadOf(t, next.Refresh)["eph"])
			require.Equal(t, float64(o.IdleTTL.Milliseconds()), payloadOf(t, next.Refresh)["idle_ttl"])
		}
		fx.clock.Advance(end.Sub(fx.clock.Now()))
		_, err = fx.Refresh(ctx, next.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrTokenExpired)
		_, err = fx.Continue(ctx, c, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		list, err := fx.Sessions(ctx, "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	}
}

// A session that a RevokeAll has spared does not die of being continued, and one that
// comes later ends it.
func TestContinue_RevocationsCompareWithTheTimeOfTheCall(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	two := newNodes(t, 2, func(int, *auth.Config) {})
	a, b := two[0], two[1]
	k := a.login(t)
	other := a.login(t)
	a.clock.Advance(time.Minute)
	require.NoError(t, a.RevokeAll(ctx, "u1", k.SessionID))
	require.Eventually(t, func() bool {
		_, err := b.Verify(ctx, other.Access)
		return errors.Is(err, auth.ErrSessionRevoked)
	}, 10*time.Second, time.Millisecond)
	for _, wait := range []time.Duration{0, time.Minute} {
		a.clock.Advance(wait)
		var err error
		k, err = a.Continue(ctx, verifiedClaims(t, a.Authenticator, k.Access), auth.SessionOptions{})
		require.NoError(t, err)
		for _, fx := range two {
			_, err = fx.Verify(ctx, k.Access)
			require.NoError(t, err)
			list, err := fx.Sessions(ctx, "u1")
			require.NoError(t, err)
			require.Len(t, list, 1)
		}
		k, err = b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		_, err = a.Verify(ctx, k.Access)
		require.NoError(t, err)
	}
	stream, cancel := a.SessionContext(ctx, verifiedClaims(t, a.Authenticator, k.Access))
	defer cancel()
	a.clock.Advance(time.Minute)
	require.NoError(t, a.RevokeAll(ctx, "u1"))
	<-stream.Done()
	_, err := a.Verify(ctx, k.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

// Whatever the store does in between, the client keeps one session that works.
func TestContinue_AnOutageSignsNobodyOut(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	down := errors.New("down")
	for _, method := range []string{"Get", "Create", "List", "Revoke"} {
		for _, after := range []bool{false, true} {
			fx := newFixture(t, withOrg)
			k := fx.login(t)
			c := verifiedClaims(t, fx.Authenticator, k.Access)
			fail := fx.store.failBefore
			if after {
				fail = fx.store.failAfter
			}
			fail(method, down)
			next, err := fx.Continue(ctx, c, auth.SessionOptions{Data: []byte("2")})
			if err != nil {
				require.ErrorIs(t, err, auth.ErrUnavailable, method)
				require.Equal(t, 503, auth.ResponseFor(err).Status)
				fail(method, nil)
				_, err = fx.Verify(ctx, k.Access)
				require.NoError(t, err, "%s: the old session goes on", method)
				next, err = fx.Continue(ctx, c, auth.SessionOptions{Data: []byte("2")})
				require.NoError(t, err, method)
			} else {
				require.Equal(t, "Revoke", method, "only the end of the old session may fail")
				_, err = fx.Verify(ctx, k.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "this process refuses it at once")
				fail(method, nil)
			}
			_, err = fx.Verify(ctx, next.Access)
			require.NoError(t, err, method)
			_, err = fx.Refresh(ctx, next.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, method)
			require.Eventually(t, func() bool { // Run repeats what the store has not confirmed
				fx.clock.Advance(time.Second)
				_, err := fx.store.Store.Get(ctx, "u1", k.SessionID)
				return errors.Is(err, auth.ErrSessionNotFound)
			}, 30*time.Second, 10*time.Millisecond, method)
			if method == "Create" && after {
				continue // a record may remain whose creation was not confirmed, and for which there are no tokens
			}
			require.Eventually(t, func() bool { // and removes sessions that were not completed
				list, err := fx.store.List(ctx, "u1")
				return err == nil && len(list) == 1 && list[0].ID == next.SessionID
			}, 30*time.Second, 10*time.Millisecond, method)
		}
	}
}

func TestContinue_Refuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	claims := func() *auth.Claims { return verifiedClaims(t, fx.Authenticator, fx.login(t).Access) }
	for name, o := range map[string]auth.SessionOptions{
		"AMR": {AMR: []string{"otp"}}, "Ephemeral": {Ephemeral: true}, "IdleTTL": {IdleTTL: time.Hour}, "SessionTTL": {SessionTTL: time.Hour}, "Actor": {Actor: "u2"},
	} {
		_, err := fx.Continue(ctx, claims(), o)
		require.ErrorContains(t, err, "auth: Continue keeps", name)
	}
	_, err := fx.Continue(ctx, claims(), auth.SessionOptions{Data: make([]byte, 901)})
	require.ErrorContains(t, err, "the limit is 900")
	_, err = fx.Continue(ctx, nil, auth.SessionOptions{})
	require.ErrorContains(t, err, "auth: Continue: the claims are nil")
	foreign := claims()
	foreign.Issuer = "https://other.example.com"
	_, err = fx.Continue(ctx, foreign, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	// The session ended in another process, whose revocation has not arrived.
	k := fx.login(t)
	c := verifiedClaims(t, fx.Authenticator, k.Access)
	fx.store.setFeed(func(ctx context.Context, _ string) ([]auth.Revocation, string, bool, error) {
		<-ctx.Done()
		return nil, "", false, ctx.Err()
	})
	until := fx.clock.Now().Add(time.Hour)
	require.NoError(t, fx.store.Store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: until}))
	_, err = fx.Continue(ctx, c, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)

	// It ends while it is being continued: the new session ends too.
	fx = newFixture(t)
	k = fx.login(t)
	c = verifiedClaims(t, fx.Authenticator, k.Access)
	fx.store.on(func(context.Context) error {
		return fx.store.Store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: until})
	}, "Create")
	_, err = fx.Continue(ctx, c, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	list, err := fx.store.List(ctx, "u1")
	require.NoError(t, err)
	require.Empty(t, list)

	for _, actor := range []string{"", "u2"} {
		fx := newFixture(t)
		k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: actor})
		require.NoError(t, err)
		gone := "u1"
		if actor != "" {
			gone = actor
		}
		fx.users.change(gone, func(u *auth.User) { u.Disabled = true })
		_, err = fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, k.Access), auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, "user", auth.ResponseFor(err).Reason)
		require.Empty(t, fx.events.take(auth.EventLoginRefused), "it is no login")
		list, err := fx.store.List(ctx, "u1")
		require.NoError(t, err)
		require.Empty(t, list)
	}
}

// A refresh token with the constants of a continued session is that of a newer version
// for a process that does not know them.
func TestContinue_RefreshTokenHasTheCreationTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	k := fx.login(t)
	require.NotContains(t, payloadOf(t, k.Refresh), "session_iat")
	fx.clock.Advance(time.Minute)
	next, err := fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, k.Access), auth.SessionOptions{})
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, payloadOf(t, k.Refresh)["auth_time"].(float64)+60, payloadOf(t, next.Refresh)["session_iat"])
		fx.clock.Advance(time.Minute)
		next, err = fx.Refresh(ctx, next.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	}
}
