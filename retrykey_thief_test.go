package auth_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// party is a client of the nodes of a theftPlay: the victim or the thief.
type party struct {
	p    *theftPlay
	name string // its User-Agent
}

// theftPlay is a session that a victim and a thief use over HTTP, at two nodes
// with one store.
type theftPlay struct {
	t      *testing.T
	nodes  []*fixture
	urls   []string
	next   int // the node of the next request
	victim party
	thief  party
}

func newTheftPlay(t *testing.T) (p *theftPlay, token string) {
	p = &theftPlay{t: t, nodes: newNodes(t, 2, func(_ int, c *auth.Config) { c.Cookies = &auth.Cookies{} })}
	p.victim, p.thief = party{p, laptop.UserAgent}, party{p, thief.UserAgent}
	for _, fx := range p.nodes {
		server := httptest.NewServer(fx.Handler())
		t.Cleanup(server.Close)
		p.urls = append(p.urls, server.URL)
	}
	return p, p.nodes[0].login(t).Refresh
}

// send sends a refresh to the next node, and returns its status and the refresh
// token of the response.
func (c party) send(token, key string) (status int, refresh string) {
	body, err := json.Marshal(map[string]string{"refresh_token": token})
	require.NoError(c.p.t, err)
	c.p.next = (c.p.next + 1) % len(c.p.urls)
	req, err := http.NewRequest(http.MethodPost, c.p.urls[c.p.next]+"/refresh", bytes.NewReader(body))
	require.NoError(c.p.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.name)
	if key != "" {
		req.Header.Set("Refresh-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.p.t, err)
	defer resp.Body.Close()
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	require.NoError(c.p.t, json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer.Refresh
}

// refresh is send, which must succeed with a token of the generation want.
func (c party) refresh(token, key string, want int64) string {
	c.p.t.Helper()
	status, refresh := c.send(token, key)
	require.Equal(c.p.t, http.StatusOK, status, "%s, generation %d", c.name, want)
	_, claims := decodeToken(c.p.t, refresh)
	require.EqualValues(c.p.t, want, claims["gen"], c.name)
	return refresh
}

// isDetected presents a token, after which the session has ended for both, and an
// event names both devices.
func (c party) isDetected(token, key, rotatedBy string) {
	c.p.t.Helper()
	c.p.events("")
	status, _ := c.send(token, key)
	require.Equal(c.p.t, http.StatusUnauthorized, status, c.name)
	reuse := c.p.events(auth.EventReuse)
	require.Len(c.p.t, reuse, 1)
	require.Equal(c.p.t, c.name, reuse[0].Device.UserAgent)
	require.Equal(c.p.t, rotatedBy, reuse[0].Session.Device.UserAgent)
	list, err := c.p.nodes[0].Sessions(c.p.t.Context(), "u1")
	require.NoError(c.p.t, err)
	require.Empty(c.p.t, list)
}

// hasEvent requires one event of a type, which names both devices.
func (p *theftPlay) hasEvent(e auth.EventType, by, rotatedBy string) {
	p.t.Helper()
	list := p.events(e)
	require.Len(p.t, list, 1)
	require.Equal(p.t, by, list[0].Device.UserAgent)
	require.Equal(p.t, rotatedBy, list[0].Session.Device.UserAgent)
}

func (p *theftPlay) events(e auth.EventType) (list []auth.Event) {
	for _, fx := range p.nodes {
		list = append(list, fx.events.take(e)...)
	}
	return list
}

func (p *theftPlay) wait(d time.Duration) { p.nodes[0].clock.Advance(d) }

// What a thief can do with and without a retry key, over HTTP.

func TestRetryKeyTheft_ACopiedTokenIsDetected(t *testing.T) {
	t.Parallel()
	for _, keys := range []bool{false, true} {
		key := func(n byte) string { return "" }
		digest := func(n byte) string { return "" }
		if keys {
			key, digest = testKey, func(n byte) string { return digestOf(testKey(n)) }
		}
		// The victim is first.
		p, stolen := newTheftPlay(t)
		p.victim.refresh(stolen, digest(1), 2)
		p.wait(time.Hour)
		p.thief.isDetected(stolen, "", "laptop")

		// The thief is first, and the victim has a key of its own.
		p, stolen = newTheftPlay(t)
		p.thief.refresh(stolen, "", 2)
		p.wait(time.Hour)
		p.victim.isDetected(stolen, digest(1), "thief")

		// The thief has a key of their own.
		p, stolen = newTheftPlay(t)
		p.thief.refresh(stolen, digestOf(testKey(9)), 2)
		p.wait(time.Hour)
		p.victim.isDetected(stolen, key(1), "thief")

		// Within the window of a rotation, the thief gets the successor. Its next
		// rotation detects that, if the thief does not send it within the window.
		p, stolen = newTheftPlay(t)
		second := p.victim.refresh(stolen, digest(1), 2)
		p.wait(defaultWindow)
		copied := p.thief.refresh(stolen, "", 2)
		require.Equal(t, second, copied)
		p.hasEvent(auth.EventRetry, "thief", "laptop")
		p.wait(time.Hour)
		p.victim.refresh(second, digest(2), 3)
		p.wait(defaultWindow + time.Millisecond)
		p.thief.isDetected(copied, "", "laptop")
	}
}

func TestRetryKeyTheft_TokenAndPendingKeyFollowForOneGeneration(t *testing.T) {
	t.Parallel()
	// Without keys there is no pending key to steal: see the test above.

	// The victim is first. The thief repeats the victim's request, late.
	p, stolen := newTheftPlay(t)
	second := p.victim.refresh(stolen, digestOf(testKey(1)), 2)
	p.wait(time.Hour)
	followed := p.thief.refresh(stolen, testKey(1), 2)
	p.hasEvent(auth.EventLateRetry, "thief", "laptop")
	p.wait(time.Hour)
	p.victim.refresh(second, digestOf(testKey(2)), 3)
	p.wait(time.Hour)
	p.thief.isDetected(followed, testKey(1), "laptop")

	// The thief is first. The victim's own request is then the late retry.
	p, stolen = newTheftPlay(t)
	followed = p.thief.refresh(stolen, testKey(1), 2)
	p.wait(time.Hour)
	second = p.victim.refresh(stolen, testKey(1), 2)
	p.hasEvent(auth.EventLateRetry, "laptop", "thief")
	p.wait(time.Hour)
	p.victim.refresh(second, digestOf(testKey(2)), 3)
	p.wait(time.Hour)
	p.thief.isDetected(followed, testKey(1), "laptop")

	// The thief also rotates the session once more. The victim then detects it.
	p, stolen = newTheftPlay(t)
	followed = p.thief.refresh(stolen, testKey(1), 2)
	p.wait(time.Hour)
	second = p.victim.refresh(stolen, testKey(1), 2)
	p.wait(time.Hour)
	p.thief.refresh(followed, testKey(1), 3)
	p.wait(time.Hour)
	p.victim.isDetected(second, testKey(2), "thief")

	// The thief is two generations ahead.
	p, stolen = newTheftPlay(t)
	followed = p.thief.refresh(stolen, testKey(1), 2)
	p.wait(time.Hour)
	p.thief.refresh(followed, testKey(1), 3)
	p.wait(time.Hour)
	p.victim.isDetected(stolen, testKey(1), "thief")
}

// A thief who has read a request knows what its header proves.
func TestRetryKeyTheft_ARecordedRequestIsWorthAtMostOneGeneration(t *testing.T) {
	t.Parallel()
	// A first request that has rotated the session is worth nothing.
	p, stolen := newTheftPlay(t)
	p.victim.refresh(stolen, digestOf(testKey(1)), 2)
	p.wait(time.Hour)
	p.thief.isDetected(stolen, digestOf(testKey(1)), "laptop")

	// If it has not, the thief can carry it out, and follows for one generation,
	// because the victim's next request is a late retry.
	p, stolen = newTheftPlay(t)
	followed := p.thief.refresh(stolen, digestOf(testKey(1)), 2)
	p.wait(time.Hour)
	second := p.victim.refresh(stolen, testKey(1), 2)
	p.hasEvent(auth.EventLateRetry, "laptop", "thief")
	p.wait(time.Hour)
	p.victim.refresh(second, digestOf(testKey(2)), 3)
	p.wait(time.Hour)
	p.thief.isDetected(followed, digestOf(testKey(1)), "laptop")

	// A retry is worth one generation.
	p, stolen = newTheftPlay(t)
	p.victim.refresh(stolen, digestOf(testKey(1)), 2)
	p.wait(time.Hour)
	second = p.victim.refresh(stolen, testKey(1), 2)
	p.events("")
	followed = p.thief.refresh(stolen, testKey(1), 2)
	p.hasEvent(auth.EventLateRetry, "thief", "laptop")
	p.wait(time.Hour)
	p.victim.refresh(second, digestOf(testKey(2)), 3)
	p.wait(time.Hour)
	p.thief.isDetected(followed, testKey(1), "laptop")
}

func TestRetryKeyTheft_OneKeyForeverFollowsForOneGeneration(t *testing.T) {
	t.Parallel()
	key := testKey(1)
	p, stolen := newTheftPlay(t)
	second := p.victim.refresh(stolen, key, 2)
	p.wait(time.Hour)
	followed := p.thief.refresh(stolen, key, 2)
	p.wait(time.Hour)
	p.events("")
	p.victim.refresh(second, key, 3)
	p.wait(time.Hour)
	faults := p.events(auth.EventFault)
	require.Len(t, faults, 1, "an event reports the mistake of the client")
	require.ErrorContains(t, faults[0].Err, "retry key")
	p.thief.isDetected(followed, key, "laptop")

	// The client that makes the mistake is as without a key for that generation.
	p, token := newTheftPlay(t)
	second = p.victim.refresh(token, key, 2)
	p.wait(time.Hour)
	p.victim.refresh(second, key, 3)
	p.wait(time.Hour)
	p.victim.isDetected(second, key, "laptop")
}

// In a jar that a client without keys shares, its lost answer ends the session
// after the window, although the other clients have keys.
func TestRetryKeyTheft_AJarIsAsSafeAsItsLeastKeyedClient(t *testing.T) {
	t.Parallel()
	p, cookie := newTheftPlay(t)
	p.victim.refresh(cookie, "", 2) // by a redirect, and lost
	p.wait(defaultWindow)
	p.victim.refresh(cookie, digestOf(testKey(1)), 2) // by a page, within the window
	p.wait(time.Millisecond)
	p.victim.isDetected(cookie, testKey(1), "laptop")

	p, cookie = newTheftPlay(t)
	p.victim.refresh(cookie, digestOf(testKey(1)), 2) // by a page, and lost
	p.wait(time.Hour)
	second := p.victim.refresh(cookie, testKey(1), 2) // by a page, late
	p.wait(time.Hour)
	third := p.victim.refresh(second, "", 3) // by a redirect
	p.wait(time.Hour)
	p.thief.isDetected(second, testKey(1), "laptop")
	status, _ := p.victim.send(third, "")
	require.Equal(t, http.StatusUnauthorized, status)
}
