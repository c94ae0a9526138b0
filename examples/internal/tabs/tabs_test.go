package tabs

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
)

// rounds returns how many rounds a test plays: few unless AUTH_TABS is set.
func rounds(few, many int) int {
	if os.Getenv("AUTH_TABS") == "1" {
		return many
	}
	return few
}

// long reports whether to play variants that are like another one.
func long() bool { return os.Getenv("AUTH_TABS") == "1" || os.Getenv("AUTH_LONG") == "1" }

// withoutLocks removes the Web Locks API.
const withoutLocks = `Object.defineProperty(navigator, "locks", { value: undefined });`

func TestTabs_ExpiredTokenInThreeTabsRotatesOnce(t *testing.T) {
	t.Parallel()
	browser := exampletest.Chromium(t)
	for _, tt := range []struct{ name, query, setup string }{
		{"cookies", "", ""}, {"cookies without locks", "", withoutLocks}, {"bodies", "?body", ""}, {"bodies without locks", "?body", withoutLocks},
	} {
		if tt.setup != "" && !long() {
			continue
		}
		s := newSite(t, auth.Config{})
		clearCookies(t, browser)
		tabs := make([]exampletest.Tab, 3)
		for i := range tabs {
			tabs[i] = s.open(browser, tt.query, tt.setup)
		}
		require.Equal(t, "200", login(tabs[0]), tt.name)
		n := rounds(2, 100)
		for range n {
			s.expire()
			require.Equal(t, same("ada", 3), all(tabs, "who()"), tt.name)
		}
		t.Logf("%s: %d rounds, %d refreshes, %d rotations, %d sign-outs", tt.name, n, s.sent("/auth/refresh"), s.counted(auth.EventRefresh), s.counted(auth.EventReuse))
		require.Equal(t, n, s.counted(auth.EventRefresh), tt.name)
		require.Zero(t, s.counted(auth.EventReuse), tt.name)
		for _, tab := range tabs {
			require.Empty(t, seen(tab, "signed-out", "reason", 0), tt.name)
			require.Len(t, seen(tab, "signed-in", "session_id", 1), 1, tt.name)
			tab.Close()
		}
	}
}

// network is a proxy that loses every third response to a refresh: all of it, or the
// body after the cookies. After some of these, it lets no refresh through until the
// next round.
type network struct {
	mu     sync.Mutex
	random *rand.Rand
	down   bool
	tagged map[string]bool // sessions whose last rotation had a retry key
	figures
}

type figures struct {
	passed       int // refreshes that have reached the server
	lost, cut    int // responses
	withoutKey   int // refreshes
	late         int // late retries
	usedAgain    int // rotations whose retry key was that of the rotation before
	named, other int // sessions that have ended: in the case that docs/clients.md names, and in others
	rounds       int
	closed       int // tabs
	failed       int // requests of pages
}

func (n *network) refresh(w http.ResponseWriter, r *http.Request, next http.Handler) {
	n.mu.Lock()
	if n.down {
		n.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	n.passed++
	third := n.passed%3 == 0
	if r.Header.Get("Refresh-Key") == "" {
		n.withoutKey++
	}
	n.mu.Unlock()
	if !third {
		next.ServeHTTP(w, r)
		return
	}
	response := httptest.NewRecorder()
	next.ServeHTTP(response, r)
	n.mu.Lock()
	cut := n.random.IntN(4) == 0
	n.down = n.random.IntN(2) == 0
	if cut {
		n.cut++
	} else {
		n.lost++
	}
	n.mu.Unlock()
	drop(w, response, cut)
}

func (n *network) event(_ context.Context, e auth.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch e.Type {
	case auth.EventRefresh:
		n.tagged[e.Session.ID] = len(e.Session.RetryTag) > 0
		if !n.tagged[e.Session.ID] {
			n.usedAgain++
		}
	case auth.EventLateRetry:
		n.late++
	case auth.EventReuse:
		if n.tagged[e.Session.ID] {
			n.other++
		} else {
			n.named++
		}
	}
}

// repair lets refreshes through again.
func (n *network) repair() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}

func (n *network) current() figures {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.figures
}

// TestTabs_LostResponsesSignNobodyOut runs three tabs, which are closed at random,
// behind a network that loses responses. Between two rounds up to an hour passes.
func TestTabs_LostResponsesSignNobodyOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, query, setup string }{
		{"cookies", "", ""}, {"cookies-without-locks", "", withoutLocks}, {"bodies", "?body", ""}, {"bodies-without-locks", "?body", withoutLocks},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.setup != "" && !long() {
				t.Skip("skipped without AUTH_LONG=1")
			}
			var sum figures
			for sum.passed < rounds(3, 300) {
				f := play(t, tt.query, tt.setup, rounds(3, 30))
				sum.passed, sum.lost, sum.cut, sum.withoutKey, sum.late = sum.passed+f.passed, sum.lost+f.lost, sum.cut+f.cut, sum.withoutKey+f.withoutKey, sum.late+f.late
				sum.usedAgain, sum.named, sum.other = sum.usedAgain+f.usedAgain, sum.named+f.named, sum.other+f.other
				sum.rounds, sum.closed, sum.failed = sum.rounds+f.rounds, sum.closed+f.closed, sum.failed+f.failed
				t.Logf("%d rounds, %d refreshes, %d responses lost, %d cut after the cookies, %d tabs closed, %d requests failed; %d late retries, %d keys used again; sessions ended: %d in the named case, %d in others",
					sum.rounds, sum.passed, sum.lost, sum.cut, sum.closed, sum.failed, sum.late, sum.usedAgain, sum.named, sum.other)
			}
			require.Zero(t, sum.other)
			require.Zero(t, sum.withoutKey)
			if tt.query == "?body" {
				require.Zero(t, sum.named, "tokens and key are stored in one transaction")
				require.Zero(t, sum.usedAgain)
			}
		})
	}
}

// play plays rounds in a new browser until a number of refreshes has reached the server.
func play(t *testing.T, query, setup string, refreshes int) figures {
	t.Helper()
	browser := exampletest.Chromium(t)
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 1))                                         //nolint:gosec // reproducible
	n := &network{random: rand.New(rand.NewPCG(seed, 2)), tagged: map[string]bool{}} //nolint:gosec // reproducible
	s := newSite(t, auth.Config{OnEvent: n.event})
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/auth/refresh" {
			n.refresh(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	tabs := make([]exampletest.Tab, 3)
	for i := range tabs {
		tabs[i] = s.open(browser, query, setup)
	}
	require.Equal(t, "200", login(tabs[0]))
	rounds, closed, failed := 0, 0, 0
	for ; n.current().passed < refreshes; rounds++ {
		s.Clock.Advance(time.Duration(16+random.IntN(45)) * time.Minute)
		n.repair()
		all(tabs, `(window.result = who().catch(() => "failed"), "")`)
		for i := range tabs {
			if random.IntN(4) == 0 {
				time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
				tabs[i].Close()
				tabs[i] = s.open(browser, query, setup)
				tabs[i].Evaluate(`(window.result = "closed", "")`)
				closed++
			}
		}
		signedOut := false
		for _, result := range all(tabs, `result`) {
			require.Contains(t, []string{"ada", "nobody", "failed", "closed"}, result)
			signedOut = signedOut || result == "nobody"
			if result == "failed" {
				failed++
			}
		}
		if signedOut {
			require.Equal(t, "200", login(tabs[0]))
		}
	}
	_ = chromedp.Cancel(browser.Context) // ends the browser
	f := n.current()
	f.rounds, f.closed, f.failed = rounds, closed, failed
	return f
}
