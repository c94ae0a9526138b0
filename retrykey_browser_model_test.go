package auth_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// kBrowser is one configuration of the model of a browser: tabs that share a
// cookie jar and one pending key.
type kBrowser struct {
	rules    kRules
	client   kClient
	requests int
	skews    []int8
	failover bool
}

// States of a tab.
const (
	tabIdle      = iota
	tabHasRead   // it has read the pending key, or created it
	tabWaits     // its request or the response is on its way
	tabHasLooked // it has found no key; for createsNotAtomic only
	tabHasSaved  // the jar has the cookie of the response; the script has not seen the response
)

type kTab struct {
	state      int8
	key, shown int8
	age        int8 // since it read the key
	later      int8 // 1 if the response names a later generation
	own        int8 // the key that it remembers, for remembersTheKey only
}

// tabs is a state of the model.
type tabs struct {
	s, copied kRecord
	failover  int8
	jar       kToken
	key       int8 // the pending key
	tab       [2]kTab
	req       [3]kRequest
	resp      [2]kResponse
}

func (c *kBrowser) start() tabs {
	s := tabs{s: kRecord{gen: 1}, jar: kToken{gen: 1}}
	if !c.failover {
		s.failover = 2
	}
	return s
}

func (w *tabs) rename() {
	n := newNames(&w.s, &w.copied, w.failover == 1)
	slices.SortFunc(w.req[:], func(a, b kRequest) int { return b.order() - a.order() })
	n.key(&w.key)
	n.gen(&w.jar.gen)
	for i := range w.tab {
		n.key(&w.tab[i].key)
		n.key(&w.tab[i].own)
	}
	for i := range w.req {
		n.key(&w.req[i].key)
		n.gen(&w.req[i].t.gen)
	}
	for i := range w.resp {
		n.gen(&w.resp[i].sent.gen)
		n.gen(&w.resp[i].t.gen)
	}
	n.records()
}

func (w *tabs) unusedKey() int8 {
	k := w.key
	for i := range w.tab {
		k = max(k, w.tab[i].key, w.tab[i].own)
	}
	for i := range w.req {
		k = max(k, w.req[i].key)
	}
	return k + 1
}

func (c *kBrowser) next(w tabs, visit func(step, tabs)) {
	emit := func(text string, n int, to tabs) {
		to.rename()
		visit(step{text, int8(n)}, to)
	}
	if w.s.dead == 1 {
		return
	}
	for i := range w.tab {
		c.tab(&w, i, emit)
	}
	for i, r := range w.req {
		if r.from == 0 {
			continue
		}
		to := w
		to.req[i] = kRequest{}
		emit("a request is lost", 0, to)
		for n := range c.skews {
			c.arrive(&w, i, n, emit)
		}
	}
	if w.failover == 1 {
		to := w
		to.s, to.copied, to.failover = w.copied, kRecord{}, 2
		emit("a failover loses the latest writes", 0, to)
	}
	c.tick(&w, emit)
}

func (c *kBrowser) tab(w *tabs, i int, emit func(string, int, tabs)) {
	t := w.tab[i]
	to := *w
	switch t.state {
	case tabIdle:
		switch {
		case c.client == withoutKeys || c.client == oneTabWithoutKeys && i == 0:
			to.tab[i] = kTab{state: tabHasRead}
			emit("tab %d is about to send a request without a key", i, to)
			return
		case c.client == remembersTheKey && t.own != 0:
			to.tab[i] = kTab{state: tabHasRead, key: t.own, shown: keyItself, own: t.own}
			emit("tab %d remembers the key", i, to)
			return
		case w.key != 0:
			to.tab[i] = kTab{state: tabHasRead, key: w.key, shown: keyItself}
			if c.client == remembersTheKey {
				to.tab[i].own = w.key
			}
			emit("tab %d reads the key", i, to)
		}
		if w.key == 0 && c.client == createsNotAtomic {
			to.tab[i] = kTab{state: tabHasLooked}
			emit("tab %d finds no key", i, to)
		} else if w.key == 0 {
			to.tab[i] = kTab{state: tabHasRead, key: w.unusedKey(), shown: keyDigest}
			to.key = to.tab[i].key
			if c.client == remembersTheKey {
				to.tab[i].own = to.key
			}
			emit("tab %d creates a key", i, to)
		}
		return
	case tabHasLooked:
		to.tab[i] = kTab{state: tabHasRead, key: w.unusedKey(), shown: keyDigest, age: t.age}
		to.key = to.tab[i].key
		emit("tab %d creates a key", i, to)
	case tabHasRead:
		for k := range c.requests {
			if w.req[k].from == 0 {
				to.req[k] = kRequest{t: w.jar, key: t.key, shown: t.shown, from: int8(i + 1), age: t.age}
				to.tab[i].state = tabWaits
				emit("tab %d sends the request with the cookie of the jar", i, to)
				break
			}
		}
	case tabWaits:
		if r := w.resp[i]; r.to != 0 {
			to.resp[i] = kResponse{}
			to.tab[i].state, to.tab[i].later = tabHasSaved, 0
			if r.t.gen > r.sent.gen {
				to.jar, to.tab[i].later = r.t, 1
			}
			emit("the response of tab %d sets the cookie", i, to)
		}
	case tabHasSaved:
		to.tab[i] = kTab{own: t.own}
		if (t.later == 1 || c.client == removesAtAny200) && (w.key == t.key || c.client == removesAnotherKey) && c.client != oneKeyForever {
			to.key = 0
		}
		if t.later == 1 {
			to.tab[i].own = 0
		}
		emit("tab %d handles the response", i, to)
		if c.client != closesBetweenSteps {
			return
		}
	}
	// The page is closed, the request fails, or the tab gives up.
	to = *w
	to.tab[i] = kTab{own: t.own}
	for k := range to.req {
		if to.req[k].from == int8(i+1) {
			to.req[k].from = 3
		}
	}
	to.resp[i] = kResponse{}
	if t.state == tabHasSaved {
		emit("tab %d is closed before it handles the response", i, to)
	} else {
		emit("tab %d gives up", i, to)
	}
}

func (c *kBrowser) arrive(w *tabs, i, n int, emit func(string, int, tabs)) {
	r := w.req[i]
	to := *w
	result, t := c.rules.serve(&to.s, c.skews[n], r.t, r.key, r.shown)
	if w.failover == 1 && to.s.gen > w.copied.gen+3 {
		return
	}
	to.req[i] = kRequest{}
	if r.from != 3 && result != reused {
		to.resp[r.from-1] = kResponse{to: r.from, sent: r.t, t: t}
	}
	emit(outcomeTexts[result], n, to)
	if to.s != w.s && to.s.dead == 0 && w.failover == 0 {
		to.copied, to.failover = w.s, 1
		emit(outcomeTexts[result]+", lost by a failover later", n, to)
	}
}

func (c *kBrowser) tick(w *tabs, emit func(string, int, tabs)) {
	to := *w
	most := oldest(c.skews)
	for i := range to.tab {
		if t := &to.tab[i]; t.state != tabIdle {
			// A request and its response take less than a window.
			if t.age >= kWindow-1 {
				return
			}
			t.age++
		}
	}
	for i := range to.req {
		if r := &to.req[i]; r.from != 0 {
			if r.age >= kFlight {
				return
			}
			r.age++
			older(&r.t.iat, most)
		}
	}
	for i := range to.resp {
		if r := &to.resp[i]; r.to != 0 {
			older(&r.sent.iat, most)
			older(&r.t.iat, most)
		}
	}
	older(&to.s.rotated, most)
	if to.failover == 1 {
		older(&to.copied.rotated, most)
	}
	older(&to.jar.iat, most)
	if to != *w {
		emit("a tick", 0, to)
	}
}

func (w tabs) String() string {
	text := "stored " + w.s.String() + fmt.Sprintf("; jar %d", w.jar.gen)
	if w.key != 0 {
		text += fmt.Sprintf(" key %d", w.key)
	}
	return text
}

func (c kBrowser) explore(limit int) found {
	m := machine[tabs]{start: c.start(), next: c.next, show: tabs.String, fault: func(w tabs) string {
		if w.s.dead == 1 {
			return "an honest browser is signed out"
		}
		return ""
	}}
	return explore(&m, limit)
}

// An honest browser with retry keys is never signed out, as long as a request and
// its response take less than a window, and no page is closed between storing the
// cookie and removing the key.
func TestRetryKeyModel_BrowsersStaySignedIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]kBrowser{
		"two requests":   {requests: 2, skews: twoNodes},
		"three requests": {requests: 3, skews: twoNodes},
		"a failover":     {requests: 2, skews: twoNodes, failover: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.explore(statesToVisit())
			require.Empty(t, f.fault, f.String())
			t.Logf("%d states, all: %v", f.states, f.complete)
		})
	}
}

// Each rule is necessary: without it, an honest browser is signed out.
func TestRetryKeyModel_BrowsersNeedTheRules(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes more than a second")
	}
	for _, c := range []struct {
		name  string
		steps int
		kBrowser
	}{
		{"no keys", 10, kBrowser{client: withoutKeys}},
		{"one tab has no keys", 10, kBrowser{client: oneTabWithoutKeys}},
		{"a key is used for every token", 21, kBrowser{client: oneKeyForever}},
		{"two tabs create a key at once", 14, kBrowser{client: createsNotAtomic}},
		{"a tab does not read the key before each request", 23, kBrowser{client: remembersTheKey}},
		{"a tab removes the key of another token", 29, kBrowser{client: removesAnotherKey, skews: twoNodes}},
		{"a key is removed after any 200", 26, kBrowser{client: removesAtAny200}},
		{"a page is closed before it removes the key", 21, kBrowser{client: closesBetweenSteps}},
		{"a young token rotates its session", 21, kBrowser{rules: kRules{noIatRule: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.requests = 2
			if c.skews == nil {
				c.skews = []int8{0}
			} else if raceDetector || iterations(1, 2) == 1 {
				t.Skip("runs only with AUTH_LONG=1 and without the race detector: 800,000 states")
			}
			f := c.explore(3_000_000)
			t.Log(f)
			require.NotEmpty(t, f.fault)
			require.Len(t, f.history, c.steps)
		})
	}
}
