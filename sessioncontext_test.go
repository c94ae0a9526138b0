package auth_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestSessionContext_EndsWithTheReasonAsItsCause(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(*fixture, auth.Tokens) error
		want error
	}{
		"revoke":        {func(fx *fixture, k auth.Tokens) error { return fx.Revoke(context.Background(), "u1", k.SessionID) }, auth.ErrSessionRevoked},
		"all":           {func(fx *fixture, _ auth.Tokens) error { return fx.RevokeAll(context.Background(), "u1") }, auth.ErrSessionRevoked},
		"others":        {func(fx *fixture, _ auth.Tokens) error { return fx.RevokeAll(context.Background(), "u1", "x") }, auth.ErrSessionRevoked},
		"logout":        {func(fx *fixture, k auth.Tokens) error { return fx.Logout(context.Background(), k.Refresh) }, auth.ErrSessionRevoked},
		"expire access": {func(fx *fixture, _ auth.Tokens) error { return fx.ExpireAccess(context.Background(), "u1") }, auth.ErrTokenExpired},
		"another node": {func(fx *fixture, k auth.Tokens) error {
			return fx.store.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: fx.clock.Now().Add(time.Hour)})
		}, auth.ErrSessionRevoked},
		"store down": {func(fx *fixture, k auth.Tokens) error {
			fx.store.failBefore("Revoke", errStore)
			if fx.Revoke(context.Background(), "u1", k.SessionID) == nil {
				return errors.New("no error")
			}
			return nil
		}, auth.ErrSessionRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t)
			k := fx.login(t)
			c, err := fx.Verify(context.Background(), k.Access)
			require.NoError(t, err)
			ctx, cancel := fx.SessionContext(context.Background(), c)
			defer cancel()
			require.NoError(t, tt.do(fx, k))
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
				require.Fail(t, "the stream continues")
			}
			require.ErrorIs(t, context.Cause(ctx), tt.want)
			// A context created after the end of the session is canceled at
			// once.
			late, cancel := fx.SessionContext(context.Background(), c)
			defer cancel()
			<-late.Done()
			require.ErrorIs(t, context.Cause(late), tt.want)
		})
	}
}

func TestSessionContext_IsNotEndedByOthersOrByARefresh(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx := context.Background()
	k, other := fx.login(t), fx.login(t)
	bob, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	c, err := fx.Verify(ctx, k.Access)
	require.NoError(t, err)
	live, cancel := fx.SessionContext(ctx, c)
	_, err = fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.NoError(t, fx.Revoke(ctx, "u1", other.SessionID))
	require.NoError(t, fx.Revoke(ctx, "u2", bob.SessionID, k.SessionID))
	require.NoError(t, fx.RevokeAll(ctx, "u2"))
	fx.clock.Advance(time.Second)
	require.NoError(t, fx.ExpireAccess(ctx, "u2"))
	require.NoError(t, fx.RevokeAll(ctx, "u1", k.SessionID))
	require.NoError(t, live.Err())
	cancel()
	<-live.Done()
	require.ErrorIs(t, context.Cause(live), context.Canceled)
}

// newBubbleNode returns an Authenticator with the clock of the bubble and no
// feed, and the tokens of a session.
func newBubbleNode(t *testing.T) (*auth.Authenticator, auth.Tokens) {
	t.Helper()
	a, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers()})
	require.NoError(t, err)
	k, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	return a, k
}

func TestSessionContext_EndsWithTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, k := newBubbleNode(t)
		c, err := b.Verify(context.Background(), k.Access)
		require.NoError(t, err)
		begin := time.Now()
		ctx, cancel := b.SessionContext(context.Background(), c)
		defer cancel()
		time.Sleep(time.Hour) // the access token has expired
		require.NoError(t, ctx.Err())
		<-ctx.Done()
		require.Equal(t, c.SessionExpiresAt, time.Now().UTC())
		require.Equal(t, 7*24*time.Hour, time.Since(begin))
		require.ErrorIs(t, context.Cause(ctx), auth.ErrTokenExpired)
	})
}

func TestSessionContext_ContinuesForClaimsWithoutAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBubbleNode(t)
		ctx, cancel := b.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "s"})
		time.Sleep(10 * 365 * 24 * time.Hour)
		require.NoError(t, ctx.Err())
		cancel()
		<-ctx.Done()
	})
}

func TestSessionContext_FreesItsMemory(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	c, err := fx.Verify(context.Background(), fx.login(t).Access)
	require.NoError(t, err)
	type big [1 << 10]byte
	type key struct{}
	var held []weak.Pointer[big]
	for i := range 200 {
		func() {
			// This value is reachable as long as the context is.
			mark := new(big)
			held = append(held, weak.Make(mark))
			parent, end := context.WithCancel(context.WithValue(context.Background(), key{}, mark))
			defer end()
			ctx, cancel := fx.SessionContext(parent, c)
			defer cancel()
			if i%2 == 0 {
				cancel()
			} else {
				end()
			}
			<-ctx.Done()
		}()
	}
	left := func() (n int) {
		for _, w := range held {
			if w.Value() != nil {
				n++
			}
		}
		return n
	}
	for range 500 {
		if runtime.GC(); left() < 5 { // a register may still reference one
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Less(t, left(), 5, "a watcher or a timer still exists")
	runtime.KeepAlive(fx)
}

func TestSessionContext_StartsNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, k := newBubbleNode(t)
		c, err := b.Verify(t.Context(), k.Access)
		require.NoError(t, err)
		parent, end := context.WithCancel(t.Context())
		for range 10 {
			_, cancel := b.SessionContext(parent, c)
			defer cancel()
		}
		end()
		// The bubble panics if a goroutine is left in it.
	})
}

func TestSessionContext_EndsAStreamOverHTTP(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	ended := make(chan error, 1)
	h := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		ctx, cancel := fx.SessionContext(r.Context(), c)
		defer cancel()
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: begin\n\n")
		_ = http.NewResponseController(w).Flush()
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}))
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	k := fx.login(t)
	r, err := http.NewRequest("GET", server.URL, nil)
	require.NoError(t, err)
	reqBearer(k.Access)(r)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "data: begin\n", line)
	require.Equal(t, 204, send(t, fx.LogoutHandler(), "POST", "/logout", reqHeader("Refresh-Token", k.Refresh)).status)
	_, err = io.ReadAll(lines)
	require.NoError(t, err, "the stream must end, because the handler returned")
	require.ErrorIs(t, <-ended, auth.ErrSessionRevoked)
}

func TestSessionContext_SurvivesARefreshButNotALogout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newNode(t, nil, func(c *auth.Config) { c.IdleTTL, c.SessionTTL = time.Hour, time.Hour })
		ctx := context.Background()
		open := func(tokens auth.Tokens) context.Context {
			stream, cancel := a.SessionContext(ctx, verifiedClaims(t, a, tokens.Access))
			t.Cleanup(cancel)
			return stream
		}
		one, two, three := startSession(t, a), startSession(t, a), startSession(t, a)
		ends, stays, expired := open(one), open(two), open(three)
		_, err := a.Refresh(ctx, one.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		time.Sleep(16 * time.Minute)
		require.NoError(t, ends.Err(), "neither a refresh nor the expiry of the access token may end it")
		require.NoError(t, a.Revoke(ctx, "u1", one.SessionID))
		<-ends.Done()
		require.ErrorIs(t, context.Cause(ends), auth.ErrSessionRevoked)
		require.NoError(t, stays.Err())

		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		<-expired.Done()
		require.ErrorIs(t, context.Cause(expired), auth.ErrTokenExpired)
		<-stays.Done()

		again, err := a.Refresh(ctx, two.Refresh, auth.RefreshOptions{Device: laptop})
		require.NoError(t, err)
		last := open(again)
		time.Sleep(43 * time.Minute)
		require.NoError(t, last.Err())
		<-last.Done()
		require.ErrorIs(t, context.Cause(last), auth.ErrTokenExpired, "it must end with the session")

		// This context is for a session that ended before the call.
		dead, cancel := a.SessionContext(ctx, &auth.Claims{Subject: "u1", SessionID: one.SessionID})
		defer cancel()
		require.ErrorIs(t, context.Cause(dead), auth.ErrSessionRevoked)
	})
}

func TestSessionContext_CancelReleasesItsWatcher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		a, _ := newNode(t, nil)
		c := verifiedClaims(t, a, startSession(t, a).Access)
		parent, hangUp := context.WithCancel(context.Background())
		child, _ := a.SessionContext(parent, c) // the parent cancels it
		own, cancel := a.SessionContext(context.Background(), c)
		hangUp()
		<-child.Done()
		cancel()
		<-own.Done()
		require.ErrorIs(t, context.Cause(own), context.Canceled)
		synctest.Wait()
	})
}

func TestSessionContext_EndsAfterALongOutage(t *testing.T) {
	t.Parallel()
	for d, ends := range map[time.Duration]bool{10 * time.Second: false, 30 * time.Second: false, 2 * time.Minute: true, time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			feed := newTestStore()
			a, _ := newNode(t, feed)
			ctx := context.Background()
			defer run(a.Verifier)()
			<-a.Ready()
			for range 2 { // a second outage is like the first
				one, cancel := a.SessionContext(ctx, verifiedClaims(t, a, startSession(t, a).Access))
				defer cancel()
				other, cancel := a.SessionContext(ctx, &auth.Claims{Subject: "u2", SessionID: "of another user"})
				defer cancel()
				time.Sleep(time.Minute)
				feed.failFeed(errStore)
				time.Sleep(d)
				require.NoError(t, one.Err(), "it must continue until the feed is back")
				feed.failFeed(nil)
				time.Sleep(15 * time.Second)
				for _, stream := range []context.Context{one, other} {
					if ends {
						require.ErrorIs(t, context.Cause(stream), auth.ErrUnavailable, d)
					} else {
						require.NoError(t, stream.Err(), d)
					}
				}
				later, cancel := a.SessionContext(ctx, verifiedClaims(t, a, startSession(t, a).Access))
				defer cancel()
				time.Sleep(5 * time.Minute)
				require.NoError(t, later.Err(), "no revocation was missed since")
			}
		})
	}
}

func TestSessionContext_ContinuesAfterTheFirstFeedRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newTestStore()
		feed.failFeed(errStore)
		a, _ := newNode(t, feed)
		stream, cancel := a.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "one"})
		defer cancel()
		revoked, cancel := a.SessionContext(context.Background(), &auth.Claims{Subject: "u1", SessionID: "two"})
		defer cancel()
		defer run(a.Verifier)()
		time.Sleep(10 * time.Minute)
		require.NoError(t, feed.Store.Revoke(context.Background(), auth.Revocation{
			Subject: "u1", Sessions: []string{"two"}, Until: time.Now().Add(time.Hour),
		}))
		feed.failFeed(nil)
		<-a.Ready()
		<-revoked.Done()
		require.ErrorIs(t, context.Cause(revoked), auth.ErrSessionRevoked)
		time.Sleep(time.Minute)
		require.NoError(t, stream.Err())
	})
}
