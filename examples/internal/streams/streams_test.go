package streams

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// client is a client of two nodes: it signs in at one, and its streams are on the
// other.
type client struct {
	t                *testing.T
	signIn, streams  *node
	by               string // how its streams are authenticated: "cookie", "ticket" or "token"
	http             *http.Client
	access, refresh  string // empty with "cookie"
	refreshedBefore  bool
	sessionID, login string
}

// newClient signs in.
func newClient(t *testing.T, a, b *node, by, login string) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &client{t: t, signIn: a, streams: b, by: by, login: login, http: &http.Client{Jar: jar}}
	delivery := "body"
	if by == "cookie" {
		delivery = "cookie"
	}
	require.Equal(t, 200, c.post(c.signIn, "/auth/login", url.Values{"login": {login}, "password": {pass}, "delivery": {delivery}}, nil))
	return c
}

// tokens is the body of a response with tokens.
type tokens struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	SessionID string `json:"session_id"`
	Ticket    string `json:"ticket"`
}

// post sends a form, and keeps the tokens of the response.
func (c *client) post(n *node, path string, form url.Values, body *tokens) (status int) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, n.url+path, strings.NewReader(form.Encode()))
	require.NoError(c.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.access != "" {
		r.Header.Set("Authorization", "Bearer "+c.access)
	}
	resp, err := c.http.Do(r)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	var got tokens
	if resp.StatusCode == http.StatusOK {
		require.NoError(c.t, json.NewDecoder(resp.Body).Decode(&got))
		if got.SessionID != "" {
			c.access, c.refresh, c.sessionID = got.Access, got.Refresh, got.SessionID
		}
	}
	if body != nil {
		*body = got
	}
	return resp.StatusCode
}

// renew refreshes the tokens. Only the first refresh of a session rotates in these
// tests: after it there is a cooldown.
func (c *client) renew() {
	c.t.Helper()
	form, before := url.Values{}, c.refresh
	if c.refresh != "" {
		form.Set("refresh_token", c.refresh)
	}
	require.Equal(c.t, 200, c.post(c.signIn, "/auth/refresh", form, nil))
	if c.by != "cookie" && !c.refreshedBefore {
		require.NotEqual(c.t, before, c.refresh, "the session has rotated")
	}
	c.refreshedBefore = true
}

// stream is an open stream. It returns the next text that it receives: "end: " and
// the action at the end of its session.
type stream func() (text string)

// open opens a stream, and refreshes first if the access token has expired.
func (c *client) open(kind string) stream {
	c.t.Helper()
	for {
		next, status := c.connect(kind)
		if status != http.StatusUnauthorized {
			require.Contains(c.t, []int{200, 101}, status)
			require.Equal(c.t, "hello "+c.login, next())
			return next
		}
		c.renew()
	}
}

// connect opens a stream, unless the response has another status than 200 or 101.
func (c *client) connect(kind string) (next stream, status int) {
	c.t.Helper()
	target, header, browser := c.streams.url+"/api/stream", http.Header{}, &http.Client{}
	switch c.by {
	case "cookie":
		browser.Jar = c.http.Jar
		header.Set("Origin", c.streams.url)
	case "token":
		header.Set("Authorization", "Bearer "+c.access)
	case "ticket": // issued by the other node, for a page of another origin
		var body tokens
		if status := c.post(c.signIn, "/auth/ticket", url.Values{"path": {"/api/stream"}}, &body); status != http.StatusOK {
			return nil, status
		}
		target += "?ticket=" + body.Ticket
		header.Set("Origin", "https://other.example")
		header.Set("Sec-Fetch-Site", "cross-site")
	}
	if kind == "WebSocket" {
		conn, resp, err := websocket.Dial(c.t.Context(), "ws"+strings.TrimPrefix(target, "http"), &websocket.DialOptions{HTTPClient: browser, HTTPHeader: header})
		if err != nil {
			require.NotNil(c.t, resp, err)
			return nil, resp.StatusCode
		}
		c.t.Cleanup(func() { _ = conn.CloseNow() })
		return func() string {
			_, text, err := conn.Read(c.t.Context())
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				require.Equal(c.t, closeSession, closed.Code)
				return "end: " + closed.Reason
			}
			require.NoError(c.t, err)
			return string(text)
		}, resp.StatusCode
	}
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, target, nil)
	require.NoError(c.t, err)
	r.Header = header
	r.Header.Set("Accept", "text/event-stream")
	resp, err := browser.Do(r)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewReader(resp.Body)
	return func() string {
		line, err := lines.ReadString('\n')
		require.NoError(c.t, err)
		_, err = lines.ReadString('\n')
		require.NoError(c.t, err)
		text := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "data: ")
		if strings.HasPrefix(text, "end: ") {
			_, err = lines.ReadByte()
			require.ErrorIs(c.t, err, io.EOF, "the server ends the response")
		}
		return text
	}, resp.StatusCode
}

// expired waits until the access token has expired.
func (c *client) expired() {
	c.t.Helper()
	for c.post(c.streams, "/auth/ticket", url.Values{"path": {"/"}}, nil) != http.StatusUnauthorized {
		time.Sleep(10 * time.Millisecond)
	}
}

// TestStreams runs all tests of two nodes on each store. With AUTH_STREAMS=1, it
// only measures.
func TestStreams(t *testing.T) {
	measure := os.Getenv("AUTH_STREAMS") == "1"
	for _, name := range []string{"memory", "SQLite", "Redis", "PostgreSQL"} {
		t.Run(name, func(t *testing.T) {
			trials := 200
			if !measure {
				t.Parallel()
				trials = 3
			}
			if testing.Short() && name != "memory" {
				t.Skip("skipped by -short: needs a server or a disk")
			}
			connect := connectors[name](t)
			a, b := newNode(t, connect()), newNode(t, connect())
			if !measure {
				t.Run("EndWithTheSessionOnEveryNode", func(t *testing.T) { testEnd(t, a, b) })
				t.Run("TicketIsSpentOnEveryNode", func(t *testing.T) { testSpend(t, a, b) })
			}
			t.Run("Latency", func(t *testing.T) { testLatency(t, a, b, trials) })
		})
	}
}

// testEnd tests that a stream ends with its session, on whichever node that ends,
// and neither by a rotation nor by the expiry of the access token.
func testEnd(t *testing.T, a, b *node) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for access tokens to expire")
	}
	ends := map[string]func(c *client){
		"logout": func(c *client) {
			require.Equal(c.t, 204, c.post(c.signIn, "/auth/logout", url.Values{"refresh_token": {c.refresh}}, nil))
		},
		"revoked": func(c *client) { require.NoError(c.t, c.signIn.Revoke(c.t.Context(), c.login, c.sessionID)) },
		"all":     func(c *client) { require.NoError(c.t, c.signIn.RevokeAll(c.t.Context(), c.login)) },
	}
	type open struct {
		*client
		next stream
	}
	streams := map[string][]open{}
	for end := range ends {
		for _, by := range []string{"cookie", "ticket", "token"} {
			c := newClient(t, a, b, by, end+"-"+by)
			for _, kind := range []string{"WebSocket", "events"} {
				streams[end] = append(streams[end], open{c, c.open(kind)})
			}
		}
	}
	bystander := newClient(t, a, b, "ticket", "logout-ticket") // another session of one of the users
	other := bystander.open("WebSocket")
	bystander.expired() // and so have all others
	for _, list := range streams {
		for _, s := range list {
			s.renew()
		}
	}
	b.send("still here")
	require.Equal(t, "still here", other())
	for end, list := range streams {
		for i, s := range list {
			require.Equal(t, "still here", s.next())
			if i%2 == 1 { // two streams have one client
				ends[end](s.client)
			}
		}
		for _, s := range list {
			require.Equal(t, "end: login", s.next(), "%s, %s", end, s.by)
		}
	}
	b.send("the bystander")
	require.Equal(t, "the bystander", other())
}

// testSpend tests that of many handshakes with one ticket, on two nodes, one
// succeeds.
func testSpend(t *testing.T, a, b *node) {
	for i := range 5 {
		c := newClient(t, a, b, "ticket", "ada")
		var body tokens
		require.Equal(t, 200, c.post(a, "/auth/ticket", url.Values{"path": {"/api/stream"}}, &body))
		statuses := make(chan int, 6)
		for j := range cap(statuses) {
			go func() {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, []*node{a, b}[(i+j)%2].url+"/api/stream?ticket="+body.Ticket, nil)
				if err == nil {
					r.Header.Set("Accept", "text/event-stream")
					var resp *http.Response
					if resp, err = http.DefaultClient.Do(r); err == nil {
						_ = resp.Body.Close()
						statuses <- resp.StatusCode
						return
					}
				}
				statuses <- 0
			}()
		}
		var got []int
		for range cap(statuses) {
			got = append(got, <-statuses)
		}
		slices.Sort(got)
		require.Equal(t, []int{200, 401, 401, 401, 401, 401}, got)
	}
}

// testLatency measures how long after a logout at one node the client of the other
// sees that its WebSocket is closed.
func testLatency(t *testing.T, a, b *node, trials int) {
	times := make([]time.Duration, trials)
	for i := range times {
		c := newClient(t, a, b, "ticket", "ada")
		next := c.open("WebSocket")
		closed := make(chan time.Time)
		go func() { _ = next(); closed <- time.Now() }()
		begin := time.Now()
		require.Equal(t, 204, c.post(a, "/auth/logout", url.Values{"refresh_token": {c.refresh}}, nil))
		times[i] = (<-closed).Sub(begin)
	}
	slices.Sort(times)
	percentile := func(p int) float64 { return float64(times[(trials*p+99)/100-1].Microseconds()) / 1000 }
	t.Logf("%d trials: p50 %.2f ms, p99 %.2f ms, max %.2f ms", trials, percentile(50), percentile(99), percentile(100))
	if trials == 200 {
		require.Less(t, times[trials-1], time.Second)
	}
}
