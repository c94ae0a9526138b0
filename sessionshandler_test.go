package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestSessionsHandler_ListsLiveSessions(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.MaxSessions = -1 })
	ctx := context.Background()
	old := fx.login(t)
	fx.clock.Advance(time.Hour)
	r := send(
		t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(`{"login":"ada","password":"`+pass+`","device":"phone"}`),
		reqHeader("User-Agent", "curl/8"),
	)
	m := r.fields(t)
	fx.clock.Advance(time.Minute)
	now := send(
		t, fx.RefreshHandler(), http.MethodPost, "/refresh", reqHeader("Refresh-Token", m["refresh_token"].(string)),
		reqHeader("User-Agent", "curl/9"),
	).fields(t)
	gone := fx.login(t)
	require.NoError(t, fx.Revoke(ctx, "u1", gone.SessionID))
	_, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)

	bearer := reqBearer(now["access_token"].(string))
	r = send(t, fx.SessionsHandler(), http.MethodGet, "/sessions", bearer)
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
	require.JSONEq(t, fmt.Sprintf(`{"sessions":[
		{"id":%q,"name":"phone","user_agent":"curl/9","ip":"192.0.2.1","created_at":"2026-11-20T13:00:00Z","last_used_at":"2026-11-20T13:01:00Z","expires_at":"2026-11-27T13:01:00Z","current":true},
		{"id":%q,"created_at":"2026-11-20T12:00:00Z","last_used_at":"2026-11-20T12:00:00Z","expires_at":"2026-11-27T12:00:00Z","current":false}]}`,
		now["session_id"], old.SessionID), r.body)
	require.NotContains(t, r.body, "generation")
	head := send(t, fx.SessionsHandler(), http.MethodHead, "/sessions", bearer)
	require.Equal(t, http.StatusOK, head.status)

	fx.clock.Advance(7*24*time.Hour - time.Minute) // the older one has expired, and so has the access token
	again, err := fx.Refresh(ctx, now["refresh_token"].(string), auth.RefreshOptions{})
	require.NoError(t, err)
	r = send(t, fx.SessionsHandler(), http.MethodGet, "/sessions", reqBearer(again.Access))
	require.Len(t, r.fields(t)["sessions"], 1)

	for range 105 {
		s := auth.Session{
			ID: fmt.Sprint("s", time.Now().UnixNano()), Subject: "u1", Generation: 1, CreatedAt: fx.clock.Now(), RotatedAt: fx.clock.Now(),
			ExpiresAt: fx.clock.Now().Add(time.Hour),
		}
		require.NoError(t, fx.store.Create(ctx, s))
	}
	r = send(t, fx.SessionsHandler(), http.MethodGet, "/sessions", reqBearer(again.Access))
	require.Len(t, r.fields(t)["sessions"], 100)

	fx.store.failBefore("List", errStore)
	send(t, fx.SessionsHandler(), http.MethodGet, "/sessions", reqBearer(again.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, fx.SessionsHandler(), http.MethodGet, "/sessions").requireRefused(t, 401, "missing_token", "login")
}

func TestSessionsHandler_EndsOnlySessionsOfTheUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	ctx := context.Background()
	h := fx.Handler()
	this, other := fx.login(t), fx.login(t)
	bob, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	cookie := reqCookie(accessCookie, this.Access)

	for _, id := range []string{bob.SessionID, "nothing", strings.ToUpper(other.SessionID), "%00", ".%2e"} {
		send(t, h, http.MethodDelete, "/sessions/"+id, cookie).requireRefused(t, 404, "not_found", "")
	}
	require.Zero(t, fx.store.count("Revoke"))
	send(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie, crossSite).requireRefused(t, 403, "cross_origin", "")
	send(t, h, http.MethodDelete, "/sessions/"+other.SessionID).requireRefused(t, 401, "missing_token", "login")
	send(t, h, http.MethodDelete, "/sessions/"+other.SessionID, reqCookie(refreshCookie, this.Refresh)).requireRefused(t, 401, "missing_token", "login")

	r := send(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie)
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie")
	_, err = fx.Verify(ctx, other.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	send(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie).requireRefused(t, 404, "not_found", "")

	fx.store.failBefore("List", errStore)
	send(t, h, http.MethodDelete, "/sessions/"+this.SessionID, cookie).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("List", nil)

	r = send(t, h, http.MethodDelete, "/sessions/"+this.SessionID, cookie)
	r.requireNoContent(t)
	r.requireCleared(t)
	_, err = fx.Verify(ctx, this.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)

	this = fx.login(t)
	r = send(t, h, http.MethodDelete, "/sessions/"+this.SessionID, reqBearer(this.Access))
	r.requireNoContent(t)
	require.NotContains(t, r.header, "Set-Cookie")

	this = fx.login(t)
	fx.store.failBefore("Revoke", errStore)
	send(t, h, http.MethodDelete, "/sessions/"+this.SessionID, reqCookie(accessCookie, this.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
}

func TestSessionsHandler_RetriesAnUnconfirmedRevocation(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	this, other := fx.login(t), fx.login(t)
	fx.store.failBefore("Revoke", errStore)
	send(t, fx.Handler(), "DELETE", "/sessions/"+other.SessionID, reqBearer(this.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	send(t, fx.Handler(), "DELETE", "/sessions/"+other.SessionID, reqBearer(this.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("Revoke", nil)
	require.Equal(t, 204, send(t, fx.Handler(), "DELETE", "/sessions/"+other.SessionID, reqBearer(this.Access)).status)
	send(t, fx.Handler(), "DELETE", "/sessions/"+other.SessionID, reqBearer(this.Access)).requireRefused(t, 404, "not_found", "")
}
