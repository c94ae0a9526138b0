package auth_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// actAs opens a session of user u1 in which user u2 acts.
func (fx *fixture) actAs(t testing.TB) auth.Tokens {
	t.Helper()
	k, err := fx.StartSession(context.Background(), "u1", auth.SessionOptions{Actor: "u2"})
	require.NoError(t, err)
	return k
}

func TestActor_IsInTokensRecordsEventsAndTheList(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	own := fx.login(t)
	fx.events.take("")
	k := fx.actAs(t)
	require.Equal(t, "u2", fx.events.take(auth.EventLogin)[0].Session.Actor())
	c := verifiedClaims(t, fx.Authenticator, k.Access)
	require.Equal(t, "u1", c.Subject)
	require.Equal(t, "u2", c.Actor)
	require.Equal(t, map[string]any{"sub": "u2"}, payloadOf(t, k.Access)["act"])
	require.Equal(t, fx.clock.Now().Add(time.Hour), k.RefreshExpiresAt)

	// The user sees who acts for them.
	r := send(t, fx.SessionsHandler(), "GET", "/sessions", reqBearer(own.Access))
	actors := map[string]any{}
	for _, s := range r.fields(t)["sessions"].([]any) {
		m := s.(map[string]any)
		actors[m["id"].(string)] = m["actor"]
	}
	require.Equal(t, map[string]any{own.SessionID: nil, k.SessionID: "u2"}, actors)

	var log bytes.Buffer
	logged := auth.LogEvents(slog.New(slog.NewTextHandler(&log, nil)))
	fx.clock.Advance(2 * time.Minute)
	next, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	fx.clock.Advance(2 * time.Minute)
	_, err = fx.Refresh(ctx, next.Refresh, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
	fx.clock.Advance(time.Minute)
	guarded := fx.Require(auth.NotActing())(hello)
	send(t, guarded, "GET", "/", reqBearer(next.Access)).requireRefused(t, 403, "insufficient_scope", "")
	require.Equal(t, 200, send(t, guarded, "GET", "/", reqBearer(own.Access)).status)
	_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused)
	fx.events.mu.Lock()
	defer fx.events.mu.Unlock()
	types := map[auth.EventType]bool{}
	for _, e := range fx.events.all {
		logged(ctx, e)
		if e.Type != auth.EventRevoked && e.Type != auth.EventStale {
			types[e.Type] = true
			require.Equal(t, "u2", e.Session.Actor(), e.Type)
		}
	}
	require.Equal(t, map[auth.EventType]bool{auth.EventRefresh: true, auth.EventReuse: true, auth.EventRefused: true}, types)
	require.Equal(t, len(types)+1, strings.Count(log.String(), " actor=u2"), log.String())
}

func TestActor_WhoIsGoneOrDisabledCannotAct(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, change := range map[string]func(fx *fixture){
		"disabled": func(fx *fixture) { fx.users.change("u2", func(u *auth.User) { u.Disabled = true }) },
		"gone":     func(fx *fixture) { fx.users.mu.Lock(); delete(fx.users.byID, "u2"); fx.users.mu.Unlock() },
	} {
		fx := newFixture(t)
		k := fx.actAs(t)
		change(fx)
		_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2"})
		require.ErrorIs(t, err, auth.ErrInvalidCredentials, name)
		require.Equal(t, 1, fx.store.count("Create"), "%s: no session is created", name)
		require.Len(t, fx.events.take(auth.EventLoginRefused), 1, name)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
		require.Equal(t, "user", auth.ResponseFor(err).Reason)
		_, err = fx.store.Get(ctx, "u1", k.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound, name)

		// The user lookup of the actor fails: nothing is spent, and nobody is signed out.
		fx = newFixture(t)
		k = fx.actAs(t)
		fx.users.failIn(2)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, name)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)

		// The actor is gone while the session is opened.
		fx = newFixture(t)
		found := 0
		fx.users.onFind = func() {
			if found++; found == 3 {
				change(fx)
			}
		}
		_, err = fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2"})
		require.ErrorIs(t, err, auth.ErrInvalidCredentials, name)
		list, err := fx.store.List(ctx, "u1")
		require.NoError(t, err)
		require.Empty(t, list, name)
	}
}

func TestActor_SessionEndsWithTheActorsSessions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	two := newNodes(t, 2, func(int, *auth.Config) {})
	a, b := two[0], two[1]
	own, k := a.login(t), a.actAs(t)
	c := verifiedClaims(t, b.Authenticator, k.Access)
	stream, cancel := b.SessionContext(ctx, c)
	defer cancel()
	_, err := b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)

	require.NoError(t, a.RevokeAll(ctx, "u2"))
	<-stream.Done()
	require.ErrorIs(t, context.Cause(stream), auth.ErrSessionRevoked)
	for _, fx := range two {
		_, err := fx.Verify(ctx, k.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, "revoked", auth.ResponseFor(err).Reason)
		list, err := fx.Sessions(ctx, "u1")
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, own.SessionID, list[0].ID)
		_, err = fx.Verify(ctx, own.Access)
		require.NoError(t, err, "the user's own session goes on")
	}
	// Another session in which the same user acts can be opened at once.
	again := a.actAs(t)
	_, err = b.Verify(ctx, again.Access)
	require.NoError(t, err)

	// An hour later, a process that has only now been started still knows it.
	a.clock.Advance(50 * time.Minute)
	late := newProcess(t, a, func(*auth.Config) {})
	_, err = late.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = late.store.Get(ctx, "u1", k.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

// The entry of an earlier version ends too early for an actor's session.
func TestActor_EntriesOfEarlierVersionsAreKept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	k := fx.actAs(t)
	require.NoError(t, fx.store.Revoke(ctx, auth.Revocation{
		Subject: "u2", All: true, Before: fx.clock.Now().Add(11 * time.Second), Until: fx.clock.Now().Add(16 * time.Minute), ID: "older.1",
	}))
	require.Eventually(t, func() bool {
		_, err := fx.Verify(ctx, k.Access)
		return errors.Is(err, auth.ErrSessionRevoked)
	}, 10*time.Second, time.Millisecond)
	fx.clock.Advance(50 * time.Minute)
	_, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestActor_ExpireAccessOfTheActor(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	k := fx.actAs(t)
	require.NoError(t, fx.ExpireAccess(ctx, "u2"))
	_, err := fx.Verify(ctx, k.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	k, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	_, err = fx.Verify(ctx, k.Access)
	require.NoError(t, err, "a token that was issued afterward is accepted")
}

// While a process does not know the revocations, it does not refresh a session with
// an actor, and nobody is signed out.
func TestActor_RefreshNeedsTheFeed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	k, own := fx.actAs(t), fx.login(t)
	unread, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: fx.users, Hasher: fastHasher, Now: fx.clock.Now,
		Store: fx.store, OnEvent: fx.events.add, TokenCacheSize: 1024,
	})
	require.NoError(t, err)
	_, err = unread.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	_, err = unread.Refresh(ctx, own.Refresh, auth.RefreshOptions{})
	require.NoError(t, err, "the store knows everything about an ordinary session")

	for policy, want := range map[auth.StalePolicy]error{auth.StaleContinue: nil, auth.StaleAskStore: auth.ErrUnavailable, auth.StaleRefuse: auth.ErrUnavailable} {
		fx := newFixture(t, func(c *auth.Config) { c.StalePolicy = policy })
		k := fx.actAs(t)
		fx.stop()
		fx.clock.Advance(5 * time.Minute)
		_, err := fx.Verify(ctx, k.Access)
		require.ErrorIs(t, err, want)
		_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, want)
	}
}

func TestActor_IsNeverNested(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t)
	_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{Actor: "u2"})
	require.ErrorContains(t, err, "call StartSession to act for a user")

	start := func(o auth.SessionOptions) http.Handler {
		return fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k, err := fx.StartSession(r.Context(), "u1", o)
			if err != nil {
				fx.WriteError(w, r, err)
				return
			}
			fx.WriteTokens(w, k, false)
		}))
	}
	admin, err := fx.StartSession(ctx, "u2", auth.SessionOptions{})
	require.NoError(t, err)
	r := send(t, start(auth.SessionOptions{Actor: "u2"}), "POST", "/", reqBearer(admin.Access))
	require.Equal(t, 200, r.status, r.body)
	acting := r.fields(t)["access_token"].(string)
	created := fx.store.count("Create")
	for name, o := range map[string]auth.SessionOptions{"another actor": {Actor: "u2"}, "no actor": {}} {
		r := send(t, start(o), "POST", "/", reqBearer(acting))
		require.Equal(t, 403, r.status, "%s: %s", name, r.body)
	}
	require.Equal(t, created, fx.store.count("Create"))
	// A login is a proof of its own.
	r = send(t, fx.Require()(fx.LoginHandler()), "POST", "/login", reqBearer(acting), reqJSON(goodLogin))
	require.Equal(t, 200, r.status, r.body)
}

func TestActor_DoesNotEvictTheUsersSessions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, refuse := range []bool{false, true} {
		fx := newFixture(t, func(c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = 2, refuse })
		fx.users.byID["u3"] = auth.User{ID: "u3"}
		own := []auth.Tokens{fx.login(t), fx.login(t)}
		acting := []auth.Tokens{fx.actAs(t)}
		fx.clock.Advance(time.Second)
		acting = append(acting, fx.actAs(t))
		_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u3"}) // counts by itself
		require.NoError(t, err)
		for _, k := range append(own, acting...) {
			_, err := fx.Verify(ctx, k.Access)
			require.NoError(t, err)
		}
		_, err = fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2"})
		_, oldest := fx.Verify(ctx, acting[0].Access)
		if refuse {
			require.ErrorIs(t, err, auth.ErrTooManySessions)
			require.NoError(t, oldest)
		} else {
			require.NoError(t, err)
			require.ErrorIs(t, oldest, auth.ErrSessionRevoked)
		}
		for _, k := range own {
			_, err := fx.Verify(ctx, k.Access)
			require.NoError(t, err)
		}
	}
}

// Every session that can be opened fits into a cookie in every generation.
func TestActor_LongIDsAreRefusedTogetherOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, withCookies())
	wide, plainID := strings.Repeat("<", 253)+"é", strings.Repeat("x", 255)
	for _, id := range []string{wide, wide[1:] + ">", plainID} {
		fx.users.byID[id] = auth.User{ID: id}
	}
	k, err := fx.StartSession(ctx, wide, auth.SessionOptions{InBody: true})
	require.NoError(t, err)
	ordinary := len(k.Refresh)
	_, err = fx.StartSession(ctx, wide, auth.SessionOptions{Actor: plainID, InBody: true})
	require.ErrorContains(t, err, "too long together")
	_, err = fx.StartSession(ctx, plainID, auth.SessionOptions{Actor: wide, InBody: true})
	require.ErrorContains(t, err, "too long together")
	k, err = fx.StartSession(ctx, plainID, auth.SessionOptions{Actor: "u1", InBody: true})
	require.NoError(t, err)
	require.Less(t, len(k.Refresh), ordinary+200)
}
