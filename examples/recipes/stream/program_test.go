package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// client is an HTTP client with the tokens of one session.
type client struct {
	t        *testing.T
	base     string
	http     *http.Client
	byTicket bool // streams are opened with tickets
	tokens
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Ticket  string `json:"ticket"`
}

func (c *client) post(path string, form url.Values) (status int) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.base+path, strings.NewReader(form.Encode()))
	require.NoError(c.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.Access != "" {
		r.Header.Set("Authorization", "Bearer "+c.Access)
	}
	resp, err := c.http.Do(r)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	if resp.StatusCode == http.StatusOK {
		require.NoError(c.t, json.Unmarshal(body, &c.tokens))
	}
	return resp.StatusCode
}

// signIn signs in with tokens in the body, or in cookies. With "ticket", the tokens
// are in the body, and streams are opened with tickets.
func signIn(t *testing.T, base, delivery string) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &client{t: t, base: base, http: &http.Client{Jar: jar, Timeout: 20 * time.Second}}
	if c.byTicket = delivery == "ticket"; c.byTicket {
		delivery = "body"
	}
	require.Equal(t, 200, c.post("/auth/login", url.Values{
		"login": {"ada"}, "password": {"correct horse battery staple"}, "delivery": {delivery},
	}))
	return c
}

// events opens the server-sent events, and returns the first event and a function
// that reads the next one: "" after the end of the stream.
func (c *client) events() (next func() string) {
	c.t.Helper()
	target, header := c.address("/events")
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, target, nil)
	require.NoError(c.t, err)
	r.Header = header
	r.Header.Set("Accept", "text/event-stream")
	resp, err := (&http.Client{Jar: c.http.Jar}).Do(r)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(c.t, 200, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	next = func() (event string) {
		for lines.Scan() && lines.Text() != "" {
			event += lines.Text() + "\n"
		}
		return event
	}
	require.Equal(c.t, "event: hello\ndata: ada\n", next())
	return next
}

// address returns the URL of a stream and the headers of its handshake.
func (c *client) address(path string) (target string, header http.Header) {
	c.t.Helper()
	header = http.Header{}
	switch {
	case c.byTicket:
		require.Equal(c.t, 200, c.post("/auth/ticket", url.Values{"path": {path}}))
		return c.base + path + "?ticket=" + c.Ticket, header
	case c.Access != "":
		header.Set("Authorization", "Bearer "+c.Access)
	}
	return c.base + path, header
}

// socket opens a WebSocket and reads its first message.
func (c *client) socket() *websocket.Conn {
	c.t.Helper()
	conn, err := c.dial(http.Header{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = conn.CloseNow() })
	_, message, err := conn.Read(c.t.Context())
	require.NoError(c.t, err)
	require.Equal(c.t, "hello ada", string(message))
	return conn
}

func (c *client) dial(header http.Header) (*websocket.Conn, error) {
	target, own := c.address("/socket")
	maps.Copy(header, own)
	conn, resp, err := websocket.Dial(c.t.Context(), "ws"+strings.TrimPrefix(target, "http"),
		&websocket.DialOptions{HTTPClient: &http.Client{Jar: c.http.Jar}, HTTPHeader: header})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	return conn, err
}

// closed returns the close code and the reason with which the server closes conn.
func (c *client) closed(conn *websocket.Conn) (code websocket.StatusCode, reason string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	_, _, err := conn.Read(ctx)
	var closed websocket.CloseError
	require.ErrorAs(c.t, err, &closed)
	return closed.Code, closed.Reason
}

func TestStream_EndsWithTheSession(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	for name, end := range map[string]func(c *client){
		"logout":               func(c *client) { require.Equal(t, 204, c.post("/auth/logout", nil)) },
		"revoked from another": func(c *client) { signIn(t, p.URL, "body").end(c) },
	} {
		for _, delivery := range []string{"body", "cookie", "ticket"} {
			t.Run(name+" "+delivery, func(t *testing.T) {
				t.Parallel()
				c := signIn(t, p.URL, delivery)
				other := signIn(t, p.URL, "body")
				next, conn, stays := c.events(), c.socket(), other.socket()
				end(c)
				require.Equal(t, "event: end\ndata: login\n", next())
				require.Empty(t, next(), "the server ends the response")
				code, reason := c.closed(conn)
				require.Equal(t, closeSession, code)
				require.Equal(t, "login", reason)
				go func() { _, _, _ = stays.Read(context.WithoutCancel(t.Context())) }() // a ping needs a reader
				require.NoError(t, stays.Ping(t.Context()), "the stream of another session ended")
			})
		}
	}
}

// end ends the session of another client, as a page of the user's devices does.
func (c *client) end(other *client) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodDelete, c.base+"/auth/sessions/"+other.session(), nil)
	require.NoError(c.t, err)
	r.Header.Set("Authorization", "Bearer "+c.Access)
	resp, err := c.http.Do(r)
	require.NoError(c.t, err)
	require.NoError(c.t, resp.Body.Close())
	require.Equal(c.t, 204, resp.StatusCode)
}

// session returns the ID of the client's session.
func (c *client) session() string {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+"/auth/sessions", nil)
	require.NoError(c.t, err)
	if c.Access != "" {
		r.Header.Set("Authorization", "Bearer "+c.Access)
	}
	resp, err := c.http.Do(r)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	var list struct {
		Sessions []struct {
			ID      string
			Current bool
		}
	}
	require.NoError(c.t, json.NewDecoder(resp.Body).Decode(&list))
	for _, s := range list.Sessions {
		if s.Current {
			return s.ID
		}
	}
	require.Fail(c.t, "no current session")
	return ""
}

func TestStream_EndsWithAllSessionsOfTheUser(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	c, other := signIn(t, p.URL, "body"), signIn(t, p.URL, "cookie")
	next, conn := other.events(), other.socket()
	require.Equal(t, 204, c.post("/auth/logout/all", nil))
	require.Equal(t, "event: end\ndata: login\n", next())
	code, reason := other.closed(conn)
	require.Equal(t, closeSession, code)
	require.Equal(t, "login", reason)
}

// TestStream_OutlivesRotationAndAccessToken refreshes, and waits until the access
// token with which the streams were opened has expired.
func TestStream_OutlivesRotationAndAccessToken(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for an access token to expire")
	}
	t.Parallel()
	// The access token must live until the streams are open, so its lifetime depends on
	// how long that takes on this machine.
	begun := time.Now()
	c := signIn(t, exampletest.Start(t, nil, "-addr", "127.0.0.1:0").URL, "body")
	c.events()
	c.socket()
	ttl := 3*time.Second + 3*time.Since(begun)
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", ttl.Round(time.Second).String())
	c = signIn(t, p.URL, "body")
	next, conn, first := c.events(), c.socket(), c.tokens
	require.Equal(t, 200, c.post("/auth/refresh", url.Values{"refresh_token": {c.Refresh}}))
	require.NotEqual(t, first.Refresh, c.Refresh)
	expired := &client{t: t, base: p.URL, http: c.http, tokens: first}
	for {
		if dialed, err := expired.dial(http.Header{}); err != nil {
			require.ErrorContains(t, err, "401")
			break
		} else if dialed != nil {
			_ = dialed.CloseNow()
		}
	}
	conn.CloseRead(t.Context()) // a ping needs a reader
	require.NoError(t, conn.Ping(t.Context()), "the WebSocket ended with its access token")
	require.Equal(t, 204, c.post("/auth/logout", url.Values{"refresh_token": {c.Refresh}}))
	require.Equal(t, "event: end\ndata: login\n", next(), "the events ended before the logout")
}

func TestStream_ServerShutsDown(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	c := signIn(t, p.URL, "body")
	next, conn := c.events(), c.socket()
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop() }()
	require.Empty(t, next(), "EventSource must connect again, so there is no event")
	code, reason := c.closed(conn)
	require.Equal(t, websocket.StatusGoingAway, code)
	require.Empty(t, reason)
	require.NoError(t, <-stopped, p.Output())
}

func TestSocket_ServerShutsDownWithoutOtherRequests(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	c := signIn(t, p.URL, "body")
	var conns [400]*websocket.Conn
	for i := range conns {
		conns[i] = c.socket()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop() }()
	for i, conn := range conns {
		code, _ := c.closed(conn)
		require.Equal(t, websocket.StatusGoingAway, code, i)
	}
	require.NoError(t, <-stopped, p.Output())
}

func TestStream_ClientDisconnects(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	c := signIn(t, p.URL, "body")
	ctx, disconnect := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/events", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+c.Access)
	resp, err := c.http.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	conn := c.socket()
	require.NotContains(t, p.Output(), "closed")
	disconnect()
	require.NoError(t, conn.CloseNow()) // without a close frame, as when a device loses its network
	for _, kind := range []string{"events", "socket"} {
		require.Eventually(t, func() bool { return strings.Contains(p.Output(), kind+" closed") }, 20*time.Second, 5*time.Millisecond, kind)
	}
}

func TestSocket_Handshake(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	cookie := signIn(t, p.URL, "cookie")
	_, err := cookie.dial(http.Header{"Origin": {"https://evil.example"}})
	require.ErrorContains(t, err, "403", "another site must not use the cookie")
	conn, err := cookie.dial(http.Header{"Origin": {p.URL}})
	require.NoError(t, err)
	require.NoError(t, conn.CloseNow())
	anonymous := &client{t: t, base: p.URL, http: &http.Client{}}
	_, err = anonymous.dial(http.Header{})
	require.ErrorContains(t, err, "401")
}

// TestPage_FollowsItsSession shows what a browser does: after a 401, EventSource
// does not connect again and WebSocket reports code 1006. The page refreshes.
func TestPage_FollowsItsSession(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", "2s")
	tab.Do(chromedp.Navigate(p.URL))
	tab.Sees("events", "refused")
	tab.Sees("socket", "closed: 1006")
	tab.Do(chromedp.WaitVisible("#login button"), chromedp.Click("#login button"))
	tab.Sees("events", "connected as ada")
	tab.Sees("socket", "hello ada")

	// A reload after the access token has expired: both handshakes are refused.
	tab.Evaluate(`(async () => { while ((await fetch("/auth/sessions")).ok); return ""; })()`)
	tab.Do(chromedp.Reload())
	tab.Sees("events", "connected as ada")
	tab.Sees("socket", "hello ada")

	other := signIn(t, p.URL, "body")
	for other.post("/auth/logout/all", nil) != 204 { // the access token has expired
		require.Equal(t, 200, other.post("/auth/refresh", url.Values{"refresh_token": {other.Refresh}}))
	}
	tab.Sees("events", "ended: login")
	tab.Sees("socket", "closed: 4401 login")
	tab.Do(chromedp.WaitVisible("#login button"), chromedp.Click("#login button"))
	tab.Sees("socket", "hello ada")

	// The server restarts, and has forgotten its sessions.
	// The page connects again, and then shows another code.
	tab.Evaluate(`window.shown = ""; new MutationObserver(() => { shown += document.getElementById("socket").textContent; })
		.observe(document.getElementById("socket"), {childList: true}); ""`)
	require.NoError(t, p.Stop())
	tab.Evaluate(`(async () => { while (!shown.includes("closed: 1001")) await new Promise((done) => setTimeout(done, 20)); return ""; })()`)
	exampletest.Start(t, nil, "-addr", strings.TrimPrefix(p.URL, "http://"))
	tab.Do(chromedp.WaitVisible("#login button"))
}

// TestPage_WithTickets shows a page without cookies. Its connections are cut, and it
// connects again with other tickets.
func TestPage_WithTickets(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", "2s")
	proxy := testserver.NewProxy(t, strings.TrimPrefix(p.URL, "http://"))
	tab.Do(chromedp.Navigate("http://"+proxy.Addr+"/ticket"), chromedp.WaitVisible("#login button"), chromedp.Click("#login button"))
	tab.Sees("events", "connected as ada")
	tab.Sees("socket", "hello ada")
	require.Empty(t, tab.Evaluate("document.cookie"))
	tab.Evaluate(`window.shown = ""; for (const id of ["events", "socket"])
		new MutationObserver((list) => { shown += list.map((m) => id + " " + m.target.textContent).join() }).observe(document.getElementById(id), {childList: true}); ""`)
	proxy.Cut()
	tab.Evaluate(`(async () => { while (!shown.match(/events refused.*events connected/s) || !shown.match(/socket closed.*socket hello/s)) await new Promise((done) => setTimeout(done, 20)); return ""; })()`)

	other := signIn(t, p.URL, "body")
	for other.post("/auth/logout/all", nil) != 204 { // the access token has expired
		require.Equal(t, 200, other.post("/auth/refresh", url.Values{"refresh_token": {other.Refresh}}))
	}
	tab.Sees("events", "ended: login")
	tab.Sees("socket", "closed: 4401 login")
	tab.Do(chromedp.WaitVisible("#login button"))
	require.NotContains(t, p.Output(), "eyJ", "a log of the program has a ticket")
}
