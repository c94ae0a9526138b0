package auth_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// Handshakes of streams.
func eventSource(r *http.Request) { r.Header.Set("Accept", "text/event-stream") }

func webSocket(r *http.Request) {
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
}

// extendedConnect is a WebSocket handshake over HTTP/2 as net/http reads it.
func extendedConnect(r *http.Request) {
	r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = http.MethodConnect, "HTTP/2.0", 2, 0
	r.Header[":protocol"] = []string{"websocket"}
}

// ticket returns a ticket for a path.
func (fx *fixture) ticket(t testing.TB, access, path string) string {
	t.Helper()
	r := send(t, fx.TicketHandler(), "POST", "/ticket", reqBearer(access), reqJSON(fmt.Sprintf(`{"path":%q}`, path)))
	require.Equal(t, 200, r.status, r.body)
	return r.fields(t)["ticket"].(string)
}

// open sends the handshake of server-sent events.
func (fx *fixture) open(t testing.TB, target, ticket string, options ...requestOption) response {
	t.Helper()
	return send(t, fx.RequireStream()(hello), "GET", target+"?ticket="+ticket, append([]requestOption{eventSource}, options...)...)
}

func TestTicket_OpensAStreamOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	for _, handshake := range []requestOption{eventSource, webSocket, extendedConnect} {
		for _, credential := range []requestOption{reqBearer(fx.login(t).Access), reqCookie(accessCookie, fx.login(t).Access)} {
			for _, body := range []requestOption{reqJSON(`{"path":"/events"}`), reqForm("path=%2Fevents")} {
				issued := send(t, fx.Handler(), "POST", "/ticket", credential, body)
				require.Equal(t, 200, issued.status, issued.body)
				require.Equal(t, "no-store", issued.header.Get("Cache-Control"))
				require.Equal(t, "application/json; charset=utf-8", issued.header.Get("Content-Type"))
				require.Equal(t, []string{"Cookie", "Authorization, Cookie"}, issued.header["Vary"])
				m := issued.fields(t)
				require.ElementsMatch(t, []string{"ticket", "expires_in"}, slices.Collect(maps.Keys(m)))
				require.EqualValues(t, 30, m["expires_in"])

				stream := fx.RequireStream(auth.Role("admin"))(hello)
				target := "/events?room=5&ticket=" + m["ticket"].(string)
				r := send(t, stream, "GET", target, handshake)
				require.Equal(t, "hello ada", r.body)
				require.Equal(t, "no-store", r.header.Get("Cache-Control"))
				require.Equal(t, "no-referrer", r.header.Get("Referrer-Policy"))
				for range 2 {
					r = send(t, stream, "GET", target, handshake)
					r.requireRefused(t, 401, "used_token", "refresh")
					require.Equal(t, `Bearer error="invalid_token", error_description="it was used before, and can be used only once"`, r.header.Get("WWW-Authenticate"))
					require.Equal(t, "no-referrer", r.header.Get("Referrer-Policy"))
				}
			}
		}
	}
	refused := fx.events.take(auth.EventRefused)
	require.Len(t, refused, 1, "one event a minute")
	require.Equal(t, "u1", refused[0].Session.Subject)
	require.NotEmpty(t, refused[0].Session.ID)
}

// Of many handshakes with one ticket, on two nodes, one succeeds.
func TestTicket_OneHandshakeWinsOnAllNodes(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 2, func(int, *auth.Config) {})
	access := nodes[0].login(t).Access
	for range 20 {
		ticket := nodes[0].ticket(t, access, "/")
		var opened atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				switch r := nodes[i%2].open(t, "/", ticket); r.status {
				case 200:
					opened.Add(1)
				default:
					r.requireRefused(t, 401, "used_token", "refresh")
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, opened.Load())
	}
}

func TestTicketHandler_NeedsAnAccessToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	k := fx.login(t)
	body := reqJSON(`{"path":"/"}`)
	h := fx.TicketHandler()
	send(t, h, "POST", "/ticket", body).requireRefused(t, 401, "missing_token", "login")
	send(t, h, "POST", "/ticket?ticket="+fx.ticket(t, k.Access, "/ticket"), body, eventSource).requireRefused(t, 401, "missing_token", "login")
	send(t, h, "POST", "/ticket", body, reqBearer(fx.ticket(t, k.Access, "/"))).requireRefused(t, 401, "invalid_token", "login")
	send(t, h, "POST", "/ticket", body, reqBearer(k.Refresh)).requireRefused(t, 401, "invalid_token", "login")
	send(t, h, "GET", "/ticket", reqBearer(k.Access)).requireRefused(t, 405, "invalid_request", "")
	send(t, h, "POST", "/ticket", body, reqCookie(accessCookie, k.Access), crossSite).requireRefused(t, 403, "cross_origin", "")
	fx.clock.Advance(15 * time.Minute)
	send(t, h, "POST", "/ticket", body, reqBearer(k.Access)).requireRefused(t, 401, "invalid_token", "refresh")
}

func TestTicketHandler_RefusesWhatIsNoPath(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	access := reqBearer(fx.login(t).Access)
	h := fx.TicketHandler()
	for _, path := range []string{
		"", "events", "//evil.example/", `/\evil`, "https://example.com/events", "wss://example.com/socket", "/events?x=1", "/events?", "/events#x", "/#",
		"/a/../b", "/a/./b", "/%2e%2e/b", "/a%00", "/a\n", "/a%zz", "/" + strings.Repeat("x", 2048), "*", "?", "#",
	} {
		body := url.Values{"path": {path}}.Encode()
		r := send(t, h, "POST", "/ticket", access, reqForm(body))
		r.requireRefused(t, 400, "invalid_request", "")
		require.Contains(t, r.body, "path must be the path of a stream of this site", path)
	}
	for _, body := range []requestOption{func(*http.Request) {}, reqJSON(`{}`), reqJSON(`{"path":null}`), reqForm("x=1")} {
		r := send(t, h, "POST", "/ticket", access, body)
		r.requireRefused(t, 400, "invalid_request", "")
		require.Contains(t, r.body, "path is missing in the body")
	}
	for _, body := range []requestOption{reqJSON(`{"path":1}`), reqForm("path=/a&path=/b"), reqJSON(`{"path":"/\ud800"}`), reqForm("path=/%ff")} {
		send(t, h, "POST", "/ticket", access, body).requireRefused(t, 400, "invalid_request", "")
	}
}

// The handler gets the same claims as with the access token.
func TestTicket_ClaimsAreThoseOfTheAccessToken(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, func(c *auth.Config) {
		c.Claims = func(context.Context, auth.User, auth.Session) (map[string]any, error) {
			return map[string]any{"org": "o<é>\u2028"}, nil
		}
	})
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"plan": []any{"pro", 1.5, nil}} })
	require.NoError(t, fx.RevokeAll(ctx, "u1")) // so that the tokens have eff_iat
	plain, err := fx.StartSession(ctx, "u1", auth.SessionOptions{AMR: []string{"pwd", "otp", "mfa"}, Ephemeral: true, SessionTTL: 20 * time.Hour, IdleTTL: 10 * time.Hour})
	require.NoError(t, err)
	acting, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2", AMR: []string{"pwd"}})
	require.NoError(t, err)
	fx.clock.Advance(time.Minute)
	continued, err := fx.Continue(ctx, verifiedClaims(t, fx.Authenticator, plain.Access), auth.SessionOptions{})
	require.NoError(t, err)
	bob, err := fx.StartSession(ctx, "u2", auth.SessionOptions{})
	require.NoError(t, err)
	var got *auth.Claims
	keep := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = auth.FromContext(r.Context()) })
	for name, k := range map[string]auth.Tokens{"acting": acting, "continued": continued, "bob": bob} {
		require.Equal(t, 200, send(t, fx.Require()(keep), "GET", "/", reqBearer(k.Access)).status)
		want := got
		var wantAll, gotAll map[string]any
		require.NoError(t, want.Decode(&wantAll))
		require.Equal(t, "o<é>\u2028", wantAll["org"])
		r := send(t, fx.RequireStream(auth.Fresh(time.Hour))(keep), "GET", "/?ticket="+fx.ticket(t, k.Access, "/"), eventSource)
		require.Equal(t, 200, r.status, r.body)
		require.Equal(t, want, got, name)
		require.NotSame(t, want, got)
		require.NoError(t, got.Decode(&gotAll))
		require.Equal(t, wantAll, gotAll)
	}
}

// A ticket works although the access token has expired since.
func TestTicket_OutlivesTheAccessToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	fx.clock.Advance(15*time.Minute - time.Second)
	ticket := fx.ticket(t, k.Access, "/")
	fx.clock.Advance(29 * time.Second)
	_, err := fx.Verify(context.Background(), k.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	require.Equal(t, "hello ada", fx.open(t, "/", ticket).body)
}

func TestTicket_LivesFor30SecondsAndNotLongerThanTheSession(t *testing.T) {
	t.Parallel()
	for _, phase := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
		fx := newFixture(t)
		fx.clock.Advance(phase)
		access := fx.login(t).Access
		early, late := fx.ticket(t, access, "/"), fx.ticket(t, access, "/")
		fx.clock.Advance(30*time.Second - time.Millisecond)
		require.Equal(t, 200, fx.open(t, "/", early).status)
		fx.clock.Advance(time.Second)
		fx.open(t, "/", late).requireRefused(t, 401, "invalid_token", "refresh")
		require.Equal(t, 1, fx.store.count("Spend"))

		k, err := fx.StartSession(context.Background(), "u1", auth.SessionOptions{SessionTTL: 20 * time.Minute, IdleTTL: 20 * time.Minute})
		require.NoError(t, err)
		fx.clock.Advance(10 * time.Minute)
		k, err = fx.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		end := verifiedClaims(t, fx.Authenticator, k.Access).SessionExpiresAt
		fx.clock.Advance(end.Sub(fx.clock.Now()) - 5*time.Second)
		r := send(t, fx.TicketHandler(), "POST", "/ticket", reqBearer(k.Access), reqJSON(`{"path":"/"}`))
		require.EqualValues(t, 5, r.fields(t)["expires_in"])
		fx.clock.Advance(5 * time.Second)
		fx.open(t, "/", r.fields(t)["ticket"].(string)).requireRefused(t, 401, "invalid_token", "refresh")
		fx.stop()
	}
}

func TestTicket_IsOnlyForTheHandshakeOfAStream(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	ticket := fx.ticket(t, k.Access, "/events")
	without := func(handshake requestOption, name string) requestOption {
		return func(r *http.Request) {
			handshake(r)
			r.Header.Del(name)
		}
	}
	with := func(handshake requestOption, name, value string) requestOption {
		return func(r *http.Request) {
			handshake(r)
			r.Header.Set(name, value)
		}
	}
	none := func(*http.Request) {}
	type request struct {
		method string
		option requestOption
	}
	var requests []request
	for _, method := range []string{"HEAD", "POST", "PUT", "OPTIONS", "DELETE", "TRACE", "get", "BREW"} {
		for _, o := range []requestOption{none, eventSource, webSocket} {
			requests = append(requests, request{method, o})
		}
	}
	for _, o := range []requestOption{
		none, with(none, "Sec-Purpose", "prefetch"), with(none, "Purpose", "prefetch"), with(none, "Accept", "*/*"), with(none, "Accept", "text/*"),
		with(none, "Accept", "text/html,application/xhtml+xml,*/*;q=0.8"), with(none, "Accept", "text/event-stream2"), with(none, "Accept", "x/text/event-stream"),
		without(webSocket, "Connection"), without(webSocket, "Upgrade"), without(webSocket, "Sec-WebSocket-Key"), without(webSocket, "Sec-WebSocket-Version"),
		with(webSocket, "Connection", "keep-alive"), with(webSocket, "Upgrade", "h2c"), with(webSocket, "Upgrade", "websockets"), with(webSocket, "Sec-WebSocket-Version", "8"),
		with(extendedConnect, ":protocol", ""), func(r *http.Request) { extendedConnect(r); r.Header[":protocol"] = []string{"connect-udp"} },
		func(r *http.Request) { webSocket(r); r.ProtoMinor = 0 },
		func(r *http.Request) { extendedConnect(r); r.ProtoMajor = 1 },
	} {
		requests = append(requests, request{"GET", o})
	}
	for _, options := range [][]requestOption{nil, {reqCookie(accessCookie, k.Access)}, {reqBearer(k.Access)}} {
		for i, request := range requests {
			r := send(t, fx.RequireStream()(hello), request.method, "/events?ticket="+ticket, append(options, request.option)...)
			require.Equal(t, 400, r.status, "request %d: %s", i, r.body)
			require.Contains(t, r.body, "a ticket is only for the handshake of a stream")
		}
	}
	require.Zero(t, fx.store.count("Spend"))
	for _, o := range []requestOption{
		with(none, "Accept", "text/event-stream"), with(none, "Accept", "Text/Event-Stream; q=1, */*"), with(none, "Accept", "*/*,\ttext/event-stream;charset=utf-8"),
		reqHeader("Accept", "*/*", "text/event-stream"), with(webSocket, "Connection", "keep-alive, UPGRADE"), with(webSocket, "Upgrade", "WebSocket, h2c"),
	} {
		require.Equal(t, 200, send(t, fx.RequireStream()(hello), "GET", "/events?ticket="+ticket, o).status)
		ticket = fx.ticket(t, k.Access, "/events")
	}
}

func TestTicket_IsBoundToThePathThatTheClientRequested(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	access := fx.login(t).Access
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", fx.RequireStream()(hello)))
	mux.Handle("/", fx.RequireStream()(hello))
	open := func(target, ticket string) response {
		t.Helper()
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		return send(t, mux, "GET", target+sep+"ticket="+ticket, eventSource)
	}
	for path, others := range map[string][]string{
		"/api/events": {"/events", "/api/event", "/api/events/", "/api/Events", "/api%2Fevents", "/api/events/x", "/", "/api/events%20"},
		"/events":     {"/api/events", "/events/", "/events%2F"},
		"/":           {"/api/", "/x"},
		"/a%2Fb":      {"/a/b", "/a%252Fb"},
		"/a/b":        {"/a%2Fb", "/a/b/c", "/a"},
		"/é x;y=1":    {"/é", "/%C3%A9%20x", "/e%CC%81%20x;y=1"},
	} {
		ticket := fx.ticket(t, access, path)
		for _, other := range others {
			r := open((&url.URL{Path: other, RawPath: other}).EscapedPath(), ticket)
			r.requireRefused(t, 400, "invalid_request", "")
			require.Contains(t, r.body, "the ticket is for another path", "%s for %s", other, path)
		}
		require.Equal(t, "hello ada", open(strings.ReplaceAll(path, " ", "%20"), ticket).body, path)
	}
	// The encoding of a character does not matter, and neither does the query.
	for path, targets := range map[string][]string{
		"/é":          {"/é", "/%C3%A9", "/%c3%a9", "/%C3%A9?x=1"},
		"/%C3%A9":     {"/é", "/%c3%a9"},
		"/%7Eada/%2F": {"/~ada/%2f", "/%7eada/%2F?a=b&c"},
	} {
		for _, target := range targets {
			require.Equal(t, "hello ada", open(target, fx.ticket(t, access, path)).body, "%s for %s", target, path)
		}
	}
}

func TestTicket_EndsWithTheSession(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, tt := range map[string]struct {
		end    func(fx *fixture, k auth.Tokens) error
		action string // "" if the ticket remains valid
	}{
		"revoke":              {func(fx *fixture, k auth.Tokens) error { return fx.Revoke(ctx, "u1", k.SessionID) }, "login"},
		"revoke all":          {func(fx *fixture, _ auth.Tokens) error { return fx.RevokeAll(ctx, "u1") }, "login"},
		"revoke all others":   {func(fx *fixture, k auth.Tokens) error { return fx.RevokeAll(ctx, "u1", k.SessionID) }, ""},
		"revoke another":      {func(fx *fixture, _ auth.Tokens) error { return fx.Revoke(ctx, "u1", "another") }, ""},
		"logout":              {func(fx *fixture, k auth.Tokens) error { return fx.Logout(ctx, k.Refresh) }, "login"},
		"expire access":       {func(fx *fixture, _ auth.Tokens) error { return fx.ExpireAccess(ctx, "u1") }, "refresh"},
		"of the actor":        {func(fx *fixture, _ auth.Tokens) error { return fx.RevokeAll(ctx, "u2") }, "login"},
		"access of the actor": {func(fx *fixture, _ auth.Tokens) error { return fx.ExpireAccess(ctx, "u2") }, "refresh"},
		"of somebody else":    {func(fx *fixture, _ auth.Tokens) error { return fx.RevokeAll(ctx, "u3") }, ""},
		"a refresh": {func(fx *fixture, k auth.Tokens) error {
			_, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
			return err
		}, ""},
	} {
		fx := newFixture(t)
		k, err := fx.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2"})
		require.NoError(t, err)
		fx.clock.Advance(2 * time.Second)
		ticket := fx.ticket(t, k.Access, "/")
		require.NoError(t, tt.end(fx, k))
		r := fx.open(t, "/", ticket)
		if tt.action == "" {
			require.Equal(t, "hello ada", r.body, name)
			continue
		}
		r.requireRefused(t, 401, "invalid_token", tt.action)
		require.Zero(t, fx.store.count("Spend"), name)
	}
	// It may end while the store spends the ticket.
	fx := newFixture(t)
	k := fx.login(t)
	ticket := fx.ticket(t, k.Access, "/")
	fx.store.on(func(ctx context.Context) error { return fx.Revoke(ctx, "u1", k.SessionID) }, "Spend")
	r := fx.open(t, "/", ticket)
	r.requireRefused(t, 401, "invalid_token", "login")
	require.Equal(t, "revoked", r.fields(t)["reason"])
}

// The stream ends with the session, as one that an access token has opened.
func TestTicket_SessionContextEndsTheStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := auth.NewMemoryStore()
		a, _ := newNode(t, store)
		b, _ := newNode(t, store)
		runNodes(t, a, b)
		k := startSession(t, a)
		issued := send(t, a.TicketHandler(), "POST", "/ticket", reqBearer(k.Access), reqJSON(`{"path":"/"}`))
		opened, ended := make(chan struct{}), make(chan error, 1)
		stream := b.RequireStream()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c, _ := auth.FromContext(r.Context())
			session, cancel := b.SessionContext(r.Context(), c)
			defer cancel()
			close(opened)
			<-session.Done()
			ended <- context.Cause(session)
		}))
		go send(t, stream, "GET", "/?ticket="+issued.fields(t)["ticket"].(string), eventSource)
		<-opened
		time.Sleep(time.Hour) // the access token has expired
		k, err := a.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Empty(t, ended)
		begin := time.Now()
		require.NoError(t, a.Logout(ctx, k.Refresh))
		err = <-ended
		require.ErrorIs(t, err, auth.ErrSessionRevoked)
		require.Equal(t, "logout", auth.ResponseFor(err).Reason)
		require.LessOrEqual(t, time.Since(begin), time.Second)
	})
}

// Whatever can refuse a handshake does so before the ticket is spent.
func TestTicket_RefusalsSpendNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	k := fx.login(t)
	ticket := fx.ticket(t, k.Access, "/")
	open := func(guards ...auth.Guard) response {
		t.Helper()
		return send(t, fx.RequireStream(guards...)(hello), "GET", "/?ticket="+ticket, eventSource)
	}
	open(auth.Role("root")).requireRefused(t, 403, "insufficient_scope", "")
	open(auth.AMR("otp")).requireRefused(t, 401, "insufficient_user_authentication", "login")
	open(func(context.Context, *auth.Claims) error { return auth.ErrUnavailable }).requireRefused(t, 503, "temporarily_unavailable", "")
	require.Equal(t, 500, open(func(context.Context, *auth.Claims) error { panic("x") }).status)
	require.Zero(t, fx.store.count("Spend"))
	fx.store.failBefore("Spend", errStore)
	open().requireRefused(t, 503, "temporarily_unavailable", "")
	require.Len(t, fx.events.take(auth.EventFault), 3)
	fx.store.failBefore("Spend", nil)
	require.Equal(t, "hello ada", open().body)

	// If the store has spent it and the response was lost, it stays spent.
	ticket = fx.ticket(t, k.Access, "/")
	fx.store.failAfter("Spend", errStore)
	open().requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failAfter("Spend", nil)
	open().requireRefused(t, 401, "used_token", "refresh")
}

// A node that does not know the revocations decides nothing.
func TestTicket_UnreadOrStaleFeed(t *testing.T) {
	t.Parallel()
	for policy, want := range map[auth.StalePolicy]int{auth.StaleContinue: 200, auth.StaleAskStore: 200, auth.StaleRefuse: 503} {
		synctest.Test(t, func(t *testing.T) {
			store := newTestStore()
			a, _ := newNode(t, store)
			b, _ := newNode(t, store, func(c *auth.Config) { c.StalePolicy = policy })
			runNodes(t, a)
			k := startSession(t, a)
			ticket := func() string {
				r := send(t, a.TicketHandler(), "POST", "/ticket", reqBearer(k.Access), reqJSON(`{"path":"/"}`))
				return r.fields(t)["ticket"].(string)
			}
			open := func(ticket string) response {
				return send(t, b.RequireStream()(hello), "GET", "/?ticket="+ticket, eventSource)
			}
			unread := ticket()
			open(unread).requireRefused(t, 503, "temporarily_unavailable", "")
			runNodes(t, b)
			require.Equal(t, 200, open(unread).status)
			issued := func() string { // the feed of a is stale too, and its policy is to continue
				store.failFeed(errStore)
				time.Sleep(2 * time.Minute)
				return ticket()
			}()
			require.Equal(t, want, open(issued).status, policy)
			if policy == auth.StaleAskStore { // the store knows the session
				again := ticket()
				require.NoError(t, store.Store.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{k.SessionID}, Until: time.Now().Add(time.Hour)}))
				open(again).requireRefused(t, 401, "invalid_token", "login")
			}
		})
	}
}

func TestTicket_OtherCredentialsAreIgnored(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	ada := fx.login(t)
	bob, err := fx.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for _, o := range []requestOption{
		reqBearer(bob.Access), reqBearer("garbage"), reqHeader("Authorization", "Bearer x, Bearer y"), reqCookie(accessCookie, bob.Access), reqCookie(refreshCookie, bob.Refresh),
		reqCookies(accessCookie, "x", bob.Access),
	} {
		require.Equal(t, "hello ada", fx.open(t, "/", fx.ticket(t, ada.Access, "/"), o).body)
	}
	// A ticket that is not valid is not replaced by another credential.
	fx.open(t, "/", "garbage", reqBearer(bob.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	for _, query := range []string{"?ticket=a&ticket=b", "?ticket=%zz", "?ticket=a;b"} {
		send(t, fx.RequireStream()(hello), "GET", "/"+query, eventSource, reqBearer(bob.Access)).requireRefused(t, 400, "invalid_request", "")
	}
	// Without a ticket, RequireStream is Require.
	for _, query := range []string{"", "?ticket=", "?x=ticket", "?tickets=x", "?ticket", "?Ticket=x"} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			r := send(t, fx.RequireStream()(hello), method, "/"+query, reqBearer(bob.Access))
			require.Equal(t, "hello bob", r.body, query)
			require.Empty(t, r.header.Get("Referrer-Policy"))
			send(t, fx.RequireStream()(hello), method, "/"+query).requireRefused(t, 401, "missing_token", "login")
			send(t, fx.RequireStream(auth.Role("admin"))(hello), method, "/"+query, reqBearer(bob.Access)).requireRefused(t, 403, "insufficient_scope", "")
		}
	}
}

func TestTicket_TheHandlerDoesNotSeeIt(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	access := fx.login(t).Access
	mux := http.NewServeMux()
	var got *http.Request
	mux.Handle("GET /rooms/{id}", fx.RequireStream()(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r })))
	for query, want := range map[string]string{
		"?ticket=%s": "", "?a=1&ticket=%s&b=%%20": "a=1&b=%20", "?ticket=%s&": "", "?%%74icket=%s&x": "x", "?a=1&ticket=%s": "a=1", "?ticket=&b&ticket=%s": "",
	} {
		ticket := fx.ticket(t, access, "/rooms/7")
		r := httptest.NewRequest("GET", "/rooms/7"+fmt.Sprintf(query, ticket), nil)
		eventSource(r)
		require.NoError(t, r.ParseForm()) // as middleware may have done
		uri := r.RequestURI
		got = nil
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if strings.Count(query, "icket=") > 1 {
			require.Nil(t, got)
			require.Equal(t, 400, w.Code)
			continue
		}
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, strings.TrimSuffix(want, "&"), strings.TrimSuffix(got.URL.RawQuery, "&"))
		require.Equal(t, strings.TrimSuffix("/rooms/7?"+want, "?"), strings.TrimSuffix(got.RequestURI, "?"))
		require.Equal(t, "7", got.PathValue("id"))
		require.Equal(t, "GET /rooms/{id}", got.Pattern)
		require.Empty(t, got.FormValue("ticket"))
		require.NotContains(t, fmt.Sprintf("%+v", got), ticket)
		require.Equal(t, uri, r.RequestURI, "the request of the middleware is not changed")
		require.Contains(t, r.URL.RawQuery, ticket)
		require.Equal(t, ticket, r.Form.Get("ticket"))
	}
}

// A log of URLs does not show what the ticket says of the user.
func TestTicket_ClaimsAreEncrypted(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"email": "ada@example.com"} })
	access := fx.login(t).Access
	_, inAccess := decodeToken(t, access)
	ticket := fx.ticket(t, access, "/events")
	header, claims := decodeToken(t, ticket)
	require.Equal(t, "ot+jwt", header["typ"])
	names := slices.Sorted(maps.Keys(claims))
	require.Equal(t, []string{"aud", "exp", "iat", "iss", "jti", "path", "purpose", "sealed", "sub"}, slices.DeleteFunc(names, func(s string) bool { return s == "mem_store" }))
	require.Equal(t, "stream ticket", claims["purpose"])
	sealed, err := base64.RawURLEncoding.DecodeString(claims["sealed"].(string))
	require.NoError(t, err)
	for _, secret := range []string{"ada", "admin", "example.com", inAccess["sid"].(string), inAccess["jti"].(string), `"`} {
		require.NotContains(t, string(sealed), secret+`"`)
	}
	_, again := decodeToken(t, fx.ticket(t, access, "/events"))
	require.NotEqual(t, claims["sealed"], again["sealed"], "each ticket has a key of its own")
}

// The sizes that the comment of TicketHandler gives.
func TestTicket_Size(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} })
	for _, extra := range []int{0, 1000, 3000} {
		fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", extra)} })
		access := fx.login(t).Access
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
		require.NoError(t, err)
		size := len(fx.ticket(t, access, "/events"))
		t.Logf("claims of %d bytes, access token of %d bytes: ticket of %d bytes", len(payload), len(access), size)
		require.InDelta(t, 371+1.78*float64(len(payload)), size, 40)
	}
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("x", 5000)} })
	access := fx.login(t).Access
	fx.events.take("")
	send(t, fx.TicketHandler(), "POST", "/ticket", reqBearer(access), reqJSON(`{"path":"/"}`)).requireRefused(t, 500, "server_error", "")
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "the limit is 8192: put less into User.Extra")
}

// A ticket is not accepted in place of another token, nor another in its place.
func TestTicket_PurposeIsItsOwn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx, _ := newFactorFixture(t)
	k := startSession(t, fx.Authenticator)
	ticket := fx.ticket(t, k.Access, "/")
	for _, purpose := range []string{"stream", "ticket", "stream ticket", "stream-ticket"} {
		_, err := fx.IssueOneTime(ctx, auth.OneTime{Purpose: purpose, Subject: "u1", TTL: time.Minute})
		require.Equal(t, strings.Contains(purpose, " "), err != nil, purpose)
		_, err = fx.CheckOneTime(ctx, purpose, ticket)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
		_, err = fx.SpendOneTime(ctx, purpose, ticket, laptop)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	_, err := fx.LoginFactor(ctx, ticket, "otp", "right", auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = fx.Verify(ctx, ticket)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = fx.Refresh(ctx, ticket, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	stream, err := fx.IssueOneTime(ctx, auth.OneTime{Purpose: "stream", Subject: "u1", TTL: time.Minute})
	require.NoError(t, err)
	for _, other := range []string{stream, fx.challenge(t, auth.SessionOptions{}).Challenge, k.Access, k.Refresh, "x", strings.Repeat("x", 9000)} {
		fx.open(t, "/", other).requireRefused(t, 401, "invalid_token", "refresh")
	}
	require.Zero(t, fx.store.count("Spend"))
	require.Equal(t, 200, fx.open(t, "/", ticket).status)
}

// sealedClaims encrypts the payload of an access token as a ticket does.
func sealedClaims(t testing.TB, secret []byte, id, payload string) string {
	t.Helper()
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("ratchet ticket " + id))
	block, err := aes.NewCipher(mac.Sum(nil))
	require.NoError(t, err)
	sealed := make([]byte, len(payload))
	cipher.NewCTR(block, make([]byte, 16)).XORKeyStream(sealed, []byte(payload))
	return quote(base64.RawURLEncoding.EncodeToString(sealed))
}

func TestTicket_RefusesHostileTickets(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Store = database{auth.NewMemoryStore()} })
	f, access := newOneTimeForger(t, fx.clock.Now()), newForger("access", fx.clock.Now()).claims
	seal := func(p members) string { return sealedClaims(t, f.secret, "one", p.String()) }
	expired := access.with("exp", f.at(-time.Hour))
	good := f.claims.with("purpose", `"stream ticket"`).with("exp", f.at(30*time.Second)).with("path", `"/"`).with("sealed", seal(expired))
	require.Equal(t, 200, fx.open(t, "/", f.signClaims(good)).status)
	fx.open(t, "/", f.signClaims(good)).requireRefused(t, 401, "used_token", "refresh")
	for name, token := range map[string]string{
		"another purpose":                f.signClaims(good.with("purpose", `"stream"`)),
		"a challenge":                    f.signClaims(good.with("purpose", `"login factor"`)),
		"another issuer":                 f.signClaims(good.with("iss", `"https://other.example.com"`)),
		"another audience":               f.signClaims(good.with("aud", `"https://other.example.com"`)),
		"no sealed claims":               f.signClaims(good.without("sealed")),
		"sealed claims as a number":      f.signClaims(good.with("sealed", "1")),
		"sealed claims that are no text": f.signClaims(good.with("sealed", `"!"`)),
		"sealed claims that are empty":   f.signClaims(good.with("sealed", `""`)),
		"claims in clear text":           f.signClaims(good.with("sealed", quote(segment(access.String())))),
		"sealed for another ticket":      f.signClaims(good.with("jti", `"two"`)),
		"sealed with another key":        f.signClaims(good.with("sealed", sealedClaims(t, refreshSecret, "one", access.String()))),
		"path twice":                     f.signClaims(good.and("path", `"/"`)),
		"path as a number":               f.signClaims(good.with("path", "1")),
		"access of another issuer":       f.signClaims(good.with("sealed", seal(access.with("iss", `"https://other.example.com"`)))),
		"access of another audience":     f.signClaims(good.with("sealed", seal(access.with("aud", `"https://other.example.com"`)))),
		"access without a session":       f.signClaims(good.with("sealed", seal(access.without("sid")))),
		"access without an end":          f.signClaims(good.with("sealed", seal(access.without("session_exp")))),
		"a refresh token":                f.signClaims(good.with("sealed", seal(access.with("gen", "1")))),
		"signed by the access key":       handSigned(accessSecret, f.header().String(), good.String()),
		"typ of an access token":         f.sign(f.header().with("typ", `"at+jwt"`), good),
		"cut off":                        f.signClaims(good)[:200],
	} {
		r := fx.open(t, "/", token)
		require.Equal(t, 401, r.status, "%s: %s", name, r.body)
		require.Contains(t, r.body, `"action":"refresh"`, name)
	}
	for name, token := range map[string]string{"no path": f.signClaims(good.without("path")), "an empty path": f.signClaims(good.with("path", `""`))} {
		require.Equal(t, 400, fx.open(t, "/", token).status, name)
	}
	require.Equal(t, 2, fx.store.count("Spend"))

	// A newer version may have added a condition.
	for _, newer := range []members{good.with("jti", `"new"`).and("origin", `"x"`), good.without("sealed").and("sealed2", `"x"`), good.and("amr", `["pwd"]`)} {
		fx.open(t, "/", f.signClaims(newer)).requireRefused(t, 503, "temporarily_unavailable", "")
	}
	require.Equal(t, 2, fx.store.count("Spend"))
}

func TestTicket_ForgedOnesAreThrottledAndBlockNoValidOne(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	k := fx.login(t)
	ticket, other := fx.ticket(t, k.Access, "/"), fx.ticket(t, k.Access, "/other")
	for range 50 {
		fx.open(t, "/", ticket+"x").requireRefused(t, 401, "invalid_token", "refresh")
		require.Equal(t, 400, fx.open(t, "/", other).status) // no guess
	}
	require.Equal(t, 429, fx.open(t, "/", ticket+"x").status)
	require.Equal(t, "hello ada", fx.open(t, "/", ticket).body)
	fx.open(t, "/", ticket).requireRefused(t, 401, "used_token", "refresh")
}

// Tickets of one process are accepted by another with the same keys, and by none
// with others, nor by one with a MemoryStore of its own.
func TestTicket_OfAnotherProcess(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 2, func(int, *auth.Config) {})
	k := nodes[0].login(t)
	require.Equal(t, "hello ada", nodes[1].open(t, "/", nodes[0].ticket(t, k.Access, "/")).body)
	ticket := nodes[0].ticket(t, k.Access, "/")
	for _, change := range []func(*auth.Config){
		func(c *auth.Config) { c.Secrets = [][]byte{[]byte("ABCDEF0123456789abcdef0123456789")} },
		func(c *auth.Config) { c.Issuer = "https://other.example.com" },
		func(c *auth.Config) { c.Audience = []string{"https://other.example.com"} },
	} {
		other := newFixture(t, func(c *auth.Config) { c.Now, c.Users = nodes[0].clock.Now, nodes[0].users }, func(c *auth.Config) { c.Store = auth.NewMemoryStore() }, change)
		other.open(t, "/", ticket).requireRefused(t, 401, "invalid_token", "refresh")
		both, err := auth.AnyOf(other.Verifier, nodes[0].Verifier)
		if err == nil { // tickets are for the Authenticator that has issued them
			send(t, both.Require()(hello), "GET", "/?ticket="+ticket, eventSource).requireRefused(t, 401, "missing_token", "login")
		}
	}
	require.Equal(t, "hello ada", nodes[1].open(t, "/", ticket).body)

	memory := func() *fixture {
		a, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher})
		require.NoError(t, err)
		return &fixture{Authenticator: a}
	}
	first, restarted := memory(), memory()
	ticket = first.ticket(t, startSession(t, first.Authenticator).Access, "/")
	restarted.open(t, "/", ticket).requireRefused(t, 401, "invalid_token", "refresh")
	require.Equal(t, "hello ada", first.open(t, "/", ticket).body)
}

// A ticket that was refused may be unspent, and applications log URLs.
func TestTicket_OnErrorDoesNotSeeIt(t *testing.T) {
	t.Parallel()
	var seen []string
	fx := newFixture(t, func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			seen = append(seen, r.URL.String(), r.RequestURI)
			auth.DefaultOnError(w, r, err)
		}
	})
	ticket := fx.ticket(t, fx.login(t).Access, "/events")
	forbid := auth.Role("nobody has this")
	for _, stream := range []http.Handler{fx.RequireStream(forbid)(hello), fx.RequireStream()(hello)} {
		send(t, stream, "GET", "/other?room=5&ticket="+ticket, eventSource)
		send(t, stream, "GET", "/events?room=5&ticket="+ticket)
	}
	send(t, fx.RequireStream(forbid)(hello), "GET", "/events?room=5&ticket="+ticket, eventSource)
	require.Len(t, seen, 10)
	for _, text := range seen {
		require.NotContains(t, text, "ticket")
		require.Contains(t, text, "?room=5")
	}
	require.Equal(t, 200, fx.open(t, "/events", ticket).status, "it was not spent")
}
