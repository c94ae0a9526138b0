package auth_test

import (
	"container/heap"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// browser simulates two tabs with one cookie jar and two nodes with one store.
// The clocks of the nodes differ, and the network loses, delays and reorders
// requests and responses. Time is that of the events.
type browser struct {
	t         *testing.T
	r         *rand.Rand
	clock     *authtest.Clock
	nodes     []*fixture
	jar       string // the refresh cookie
	key       string // the pending retry key; see refreshWithKey
	queue     eventQueue
	seq       int
	open      map[string][]*attempt // without a response, by token
	sent      int
	rotations map[string]bool
	log       []string
}

// attempt is one tab's attempt to get new tokens. It repeats its request until
// it has a response, and uses only the response to its last request, like a
// client that cancels a request before it repeats it.
type attempt struct {
	tab      int
	token    string
	first    time.Time
	tries    int
	answered bool
}

type networkEvent struct {
	at  time.Time
	seq int
	do  func()
}

type eventQueue []networkEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(networkEvent)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// The documentation requires that the last retry, its time on the network and
// the difference of the clocks stay within the window, and the longest response
// within two windows.
const (
	netWindow = 10 * time.Second
	netFlight = 2 * time.Second
	netSkew   = 500 * time.Millisecond
	netRetry  = netWindow - netFlight - netSkew - 100*time.Millisecond
	netAnswer = 2*netWindow - netFlight - netSkew
)

func (b *browser) after(d time.Duration, do func()) {
	b.seq++
	heap.Push(&b.queue, networkEvent{b.clock.Now().Add(d), b.seq, do})
}

func (b *browser) note(format string, args ...any) {
	b.log = append(b.log, b.clock.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (b *browser) upTo(d time.Duration) time.Duration {
	return time.Duration(b.r.Int64N(int64(d/time.Millisecond)+1)) * time.Millisecond
}

// deadline returns until when a request with this token may be sent.
func (b *browser) deadline(token string) time.Time {
	end := b.clock.Now().Add(netRetry)
	for _, a := range b.open[token] {
		if d := a.first.Add(netRetry); !a.answered && d.Before(end) {
			end = d
		}
	}
	return end
}

func (b *browser) refresh(tab int) {
	if b.deadline(b.jar).Before(b.clock.Now()) {
		return // too late for a new request; responses are still to come
	}
	a := &attempt{tab: tab, token: b.jar, first: b.clock.Now()}
	b.open[a.token] = append(b.open[a.token], a)
	b.try(a)
}

func (b *browser) try(a *attempt) {
	if a.answered || b.jar != a.token {
		a.answered = true // the other tab has the response
		return
	}
	b.sent++
	a.tries++
	this := a.tries
	// A retry must not arrive before the request that it repeats.
	pause := netFlight + netSkew + b.upTo(2*time.Second)
	last := b.clock.Now().Add(pause).After(b.deadline(a.token))
	node := b.nodes[b.r.IntN(len(b.nodes))]
	lost := !last && b.r.IntN(3) == 0
	fault := !last && b.r.IntN(8) == 0
	before := b.r.IntN(2) == 0
	b.after(b.upTo(netFlight), func() {
		if fault && before {
			node.store.failBefore("Rotate", errStore)
		} else if fault {
			node.store.failAfter("Rotate", errStore)
		}
		req := httptest.NewRequest(http.MethodPost, "/refresh", nil)
		req.AddCookie(&http.Cookie{Name: "__Host-Http-refresh", Value: a.token})
		w := httptest.NewRecorder()
		node.Handler().ServeHTTP(w, req)
		node.store.failBefore("Rotate", nil)
		node.store.failAfter("Rotate", nil)
		b.note("tab %d …%s: %d lost %v", a.tab, a.token[len(a.token)-5:], w.Code, lost)
		if w.Code == http.StatusServiceUnavailable && fault {
			return
		}
		if w.Code != http.StatusOK {
			b.t.Fatalf("an honest client is refused: %d %s\n%s", w.Code, w.Body, strings.Join(b.log, "\n"))
		}
		if lost {
			return
		}
		b.after(b.upTo([]time.Duration{0, time.Second, netAnswer}[b.r.IntN(3)]), func() {
			a.answered = a.answered || a.tries == this
			for _, c := range w.Result().Cookies() {
				if c.Name == "__Host-Http-refresh" {
					b.jar = c.Value
					b.rotations[c.Value] = true
					b.note("tab %d: jar …%s", a.tab, c.Value[len(c.Value)-5:])
				}
			}
		})
	})
	if !last {
		b.after(pause, func() { b.try(a) })
	}
}

func TestModel_TwoTabsWithOneCookieJarStaySignedIn(t *testing.T) {
	t.Parallel()
	base := seed(t)
	const workers = 4
	for n := range workers {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			sent, rotations := 0, 0
			rounds := histories(500, 10_000) / workers
			for i := range rounds {
				s := base + uint64(i*workers+n)
				b := &browser{t: t, r: rand.New(rand.NewPCG(s, 2)), clock: newClock(), open: map[string][]*attempt{}, rotations: map[string]bool{}}
				b.note("seed %d", s)
				store := auth.NewMemoryStore()
				for _, skew := range []time.Duration{0, netSkew} {
					b.nodes = append(b.nodes, newFixture(t, func(c *auth.Config) {
						c.Store, c.Cookies = store, &auth.Cookies{}
						c.RetryWindow = netWindow
						c.Now = func() time.Time { return b.clock.Now().Add(skew) }
					}))
				}
				tokens, err := b.nodes[0].StartSession(context.Background(), "u1", auth.SessionOptions{})
				require.NoError(t, err)
				b.jar = tokens.Refresh
				for tab := range 2 {
					var next func()
					next = func() {
						if b.sent > 40 {
							return
						}
						b.refresh(tab)
						b.after(
							[]time.Duration{0, time.Second, netWindow, 3 * netWindow, 31 * time.Second, 5 * time.Minute}[b.r.IntN(6)]+b.upTo(time.Second),
							next,
						)
					}
					b.after(b.upTo(time.Second), next)
				}
				for b.queue.Len() > 0 {
					e := heap.Pop(&b.queue).(networkEvent)
					b.clock.Advance(e.at.Sub(b.clock.Now()))
					e.do()
				}
				// After all events, the session must continue with the token in
				// the jar.
				b.clock.Advance(time.Hour)
				_, err = b.nodes[1].Refresh(context.Background(), b.jar, auth.RefreshOptions{})
				if err != nil {
					t.Fatalf("after all events: %v\n%s", err, strings.Join(b.log, "\n"))
				}
				sent += b.sent
				rotations += len(b.rotations)
				for _, node := range b.nodes {
					node.stop()
				}
			}
			t.Logf("%d histories, %d requests, %d generations", rounds, sent, rotations)
			require.Greater(t, sent, 30*rounds)
		})
	}
}

// refreshWithKey sends one request of a tab with the retry key that is pending for
// all tabs. It may be lost, and so may its response. Together they take less than
// a window.
func (b *browser) refreshWithKey(tab int) {
	// All tabs share one pending key. It is created in one step, or read
	// immediately before each request. The first request has its digest.
	key, header := b.key, b.key
	if key == "" {
		key = fmt.Sprintf("%032d", b.seq)
		key = base64.RawURLEncoding.EncodeToString([]byte(key))
		b.key, header = key, digestOf(key)
	}
	b.after(b.upTo(100*time.Millisecond), func() { // the browser adds the cookie
		token := b.jar
		b.sent++
		node := b.nodes[b.r.IntN(len(b.nodes))]
		lost, fault, before := b.r.IntN(2) == 0, b.r.IntN(8) == 0, b.r.IntN(2) == 0
		if b.r.IntN(8) == 0 {
			return // the request is lost
		}
		b.after(b.upTo(netFlight), func() {
			if fault && before {
				node.store.failBefore("Rotate", errStore)
			} else if fault {
				node.store.failAfter("Rotate", errStore)
			}
			req := httptest.NewRequest(http.MethodPost, "/refresh", nil)
			req.AddCookie(&http.Cookie{Name: "__Host-Http-refresh", Value: token})
			req.Header.Set("Refresh-Key", header)
			w := httptest.NewRecorder()
			node.Handler().ServeHTTP(w, req)
			node.store.failBefore("Rotate", nil)
			node.store.failAfter("Rotate", nil)
			b.note("tab %d …%s with key …%s: %d lost %v", tab, token[len(token)-5:], header[len(header)-5:], w.Code, lost)
			if w.Code == http.StatusServiceUnavailable && fault {
				return
			}
			if w.Code != http.StatusOK {
				b.t.Fatalf("an honest client is refused: %d %s\n%s", w.Code, w.Body, strings.Join(b.log, "\n"))
			}
			if lost {
				return
			}
			b.after(b.upTo(5*time.Second), func() {
				for _, c := range w.Result().Cookies() {
					if c.Name == "__Host-Http-refresh" {
						b.jar = c.Value
						b.rotations[c.Value] = true
						b.note("tab %d: jar …%s", tab, c.Value[len(c.Value)-5:])
					}
				}
				b.after(b.upTo(time.Second), func() { // the script sees the response
					if strings.Contains(w.Body.String(), `"rotated":true`) && b.key == key {
						b.note("tab %d removes the key", tab)
						b.key = ""
					}
				})
			})
		})
	})
}

// Tabs with retry keys may lose any response, and repeat a request at any time.
func TestModel_TwoTabsWithRetryKeysStaySignedIn(t *testing.T) {
	t.Parallel()
	base := seed(t)
	late, sent, rotations := 0, 0, 0
	rounds := histories(300, 5000)
	for i := range rounds {
		s := base + uint64(i)
		b := &browser{t: t, r: rand.New(rand.NewPCG(s, 4)), clock: newClock(), rotations: map[string]bool{}}
		b.note("seed %d", s)
		store := auth.NewMemoryStore()
		for _, skew := range []time.Duration{0, netSkew} {
			b.nodes = append(b.nodes, newFixture(t, func(c *auth.Config) {
				c.Store, c.Cookies = store, &auth.Cookies{}
				c.RetryWindow = netWindow
				c.Now = func() time.Time { return b.clock.Now().Add(skew) }
			}))
		}
		tokens, err := b.nodes[0].StartSession(context.Background(), "u1", auth.SessionOptions{})
		require.NoError(t, err)
		b.jar = tokens.Refresh
		for tab := range 2 {
			var next func()
			next = func() {
				if b.sent > 40 {
					return
				}
				b.refreshWithKey(tab)
				// It gives up the request, or has its response, and waits.
				b.after(netWindow+[]time.Duration{0, time.Second, netWindow, 3 * netWindow, 31 * time.Second, 5 * time.Minute, time.Hour}[b.r.IntN(7)]+b.upTo(time.Second), next)
			}
			b.after(b.upTo(time.Second), next)
		}
		for b.queue.Len() > 0 {
			e := heap.Pop(&b.queue).(networkEvent)
			b.clock.Advance(e.at.Sub(b.clock.Now()))
			e.do()
		}
		b.clock.Advance(time.Hour)
		key := b.key
		_, err = b.nodes[1].Refresh(context.Background(), b.jar, auth.RefreshOptions{RetryKey: key})
		if err != nil {
			t.Fatalf("after all events: %v\n%s", err, strings.Join(b.log, "\n"))
		}
		for _, node := range b.nodes {
			late += len(node.events.take(auth.EventLateRetry))
			node.stop()
		}
		sent += b.sent
		rotations += len(b.rotations)
	}
	t.Logf("%d histories, %d requests, %d tokens, %d late retries", rounds, sent, rotations, late)
	require.Greater(t, late, rounds)
}
