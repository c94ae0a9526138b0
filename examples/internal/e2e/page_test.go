package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/examples/quickstart/site"
)

// TestPage runs all users in one browser, each in profiles of its own. exampletest
// fails a test if its pages write an error to the console, or violate their security
// policy.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := exampletest.Chromium(t)
	for name, test := range map[string]func(*testing.T, exampletest.Tab){
		"refreshes an expired token":                              refreshesAnExpiredToken,
		"signs in within a short retry window":                    signsInWithinAShortRetryWindow,
		"refreshes once for three tabs":                           refreshesOnceForThreeTabs,
		"returns an hour after a lost response":                   returnsAnHourAfterALostResponse,
		"continues after a network failure during a refresh":      continuesAfterANetworkFailure,
		"signs out in all tabs":                                   signsOutInAllTabs,
		"learns of a revocation that it missed":                   learnsOfARevocationThatItMissed,
		"learns of a theft that it missed":                        learnsOfATheftThatItMissed,
		"has no token that a script can read":                     hasNoTokenThatAScriptCanRead,
		"needs the keyboard only":                                 needsTheKeyboardOnly,
		"has names for all controls and fits into narrow windows": hasNamesAndFits,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, chromium)
		})
	}
}

func refreshesAnExpiredToken(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	s.expire()
	b.ask()
	b.answered()
	b.logs("Access token refreshed")

	// A page that is loaded again, with an expired token.
	s.expire()
	formIsHidden := b.neverShowsTheForm()
	b.Do(chromedp.Reload())
	b.until(signedIn)
	b.until(live)
	formIsHidden()
	s.eventually(func() bool { return s.events("refresh") == 2 })
	require.Equal(t, 1, s.events("login"))
	require.Zero(t, s.events("retry"))
}

func signsInWithinAShortRetryWindow(t *testing.T, chromium exampletest.Tab) {
	s := start(t, "-retry-window", "1ms") // a login takes longer
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	b.Do(chromedp.Click("#logout"))
	b.shows("notice", "You are signed out.")
}

func refreshesOnceForThreeTabs(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	first := s.open(chromium)
	first.signIn("Kitchen laptop")
	tabs := []tab{first, first.another(), first.another()}
	for _, b := range tabs {
		b.until(signedIn)
		require.Equal(t, "visible", b.Evaluate(`document.visibilityState`))
	}
	const rounds = 5 // package tabs plays more
	for range rounds {
		s.expire()
		var all sync.WaitGroup
		for _, b := range tabs {
			all.Go(b.ask)
		}
		all.Wait()
		for _, b := range tabs {
			b.answered()
		}
	}
	s.eventually(func() bool { return s.events("refresh") >= rounds })
	require.Equal(t, rounds, s.events("refresh"), "rotations")
	require.Less(t, s.requests(), 2*rounds, "the tabs wait for each other")

	// The browser restores its tabs.
	s.expire()
	for _, b := range tabs {
		b.Evaluate(`window.old = true; location.reload(); ""`)
	}
	for _, b := range tabs {
		b.until(`!window.old && ` + signedIn)
	}
	s.eventually(func() bool { return s.events("refresh") > rounds })
	require.Equal(t, rounds+1, s.events("refresh"), "rotations")
	require.Equal(t, 1, s.events("login"))
	for _, b := range tabs {
		b.until(signedIn)
		require.NotContains(t, b.Evaluate(`document.getElementById("log").innerText`), "has ended")
	}
}

// hourLater makes the page believe that an hour has passed when it is loaded.
const hourLater = `{ const now = Date.now; Date.now = () => now() + 3600e3; }`

func returnsAnHourAfterALostResponse(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	s.expire()
	s.refreshes(s.losesResponses)
	b.ask()
	s.eventually(func() bool { return s.losses() > 0 })
	b.Do(chromedp.Navigate("about:blank"))
	s.refreshes(nil)

	s.advance(time.Hour)
	_, err := chromedp.Call(b.Context, network.DeleteCookies, network.DeleteCookiesParams{Name: "access", URL: b.url}) // it would have expired
	require.NoError(t, err)
	b.onLoad(hourLater)
	formIsHidden := b.neverShowsTheForm()
	b.Do(chromedp.Navigate(b.url))
	b.until(signedIn)
	formIsHidden()
	s.eventually(func() bool { return s.events("late_retry") == 1 })
	require.Equal(t, 1, s.events("refresh"))
	require.Zero(t, s.events("reuse"))

	s.expire()
	b.ask()
	b.answered()
	s.eventually(func() bool { return s.events("refresh") == 2 })
	require.Equal(t, 1, s.events("login"))
}

func continuesAfterANetworkFailure(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	b.until(live)
	for _, carriedOut := range []bool{false, true} {
		rotations := s.events("refresh")
		s.expire()
		sent := make(chan struct{})
		once := sync.OnceFunc(func() { close(sent) })
		s.refreshes(func(_ http.ResponseWriter, r *http.Request, server http.Handler) {
			if carriedOut {
				server.ServeHTTP(httptest.NewRecorder(), r)
			}
			once()
			<-r.Context().Done() // the connection is closed
			panic(http.ErrAbortHandler)
		})
		b.ask()
		<-sent
		s.cut()
		b.shows("offline", "The server does not answer. This page tries again every two seconds.")
		b.until("!(" + live + ")")
		b.until(signedIn) // the page keeps what it shows
		s.refreshes(nil)
		s.restore()
		b.until(live)
		b.until(`!document.getElementById("offline").checkVisibility()`)
		b.until(signedIn)
		b.ask()
		b.answered()
		s.eventually(func() bool { return s.events("refresh") > rotations })
		require.Equal(t, rotations+1, s.events("refresh"))
	}
	require.Equal(t, 1, s.events("login"))
	require.Equal(t, 1, strings.Count(b.Evaluate(`document.getElementById("log").innerText`), "Signed in as ada"))
}

func signsOutInAllTabs(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	first := s.open(chromium)
	first.signIn("Kitchen laptop")
	second, third := first.another(), first.another()
	second.until(signedIn)
	third.until(signedIn)
	first.Do(chromedp.Click("#logout"))
	first.shows("notice", "You are signed out.")
	for _, b := range []tab{second, third} {
		b.shows("notice", "You signed out in another tab.")
		b.until(`document.getElementById("login").checkVisibility()`)
		require.Equal(t, "login", b.Evaluate(focused))
	}
	third.signIn("Kitchen laptop")
	first.until(signedIn)
	second.until(signedIn)
	require.Equal(t, 2, s.events("login"))
}

func learnsOfARevocationThatItMissed(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	victim := s.open(chromium)
	victim.signIn("Kitchen laptop")
	victim.until(live)
	s.cut()
	victim.until("!(" + live + ")")

	other := s.openAt(chromium, s.URL)
	other.signIn("Office desktop")
	other.Do(chromedp.WaitVisible(`[aria-label="Sign out Kitchen laptop"]`), chromedp.Click(`[aria-label="Sign out Kitchen laptop"]`))
	other.logs("Signed out Kitchen laptop")
	s.advance(5 * time.Minute) // the server knows the reason for as long as access tokens live
	s.restore()
	victim.shows("notice", "You were signed out from another device.")
	victim.until(`document.getElementById("login").checkVisibility()`)
	other.until(signedIn)
	victim.signIn("Kitchen laptop")
	victim.until(`!document.getElementById("notice").checkVisibility()`)
}

const theft = "Somebody else used this sign-in."

// refresh presents a refresh token as another client.
func (s *service) refresh(token string) (status int, next, reason string) {
	s.t.Helper()
	resp, err := http.PostForm(s.URL+"/auth/refresh", url.Values{"refresh_token": {token}})
	require.NoError(s.t, err)
	defer func() { _ = resp.Body.Close() }()
	var data struct {
		RefreshToken string `json:"refresh_token"`
		Reason       string
	}
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&data))
	return resp.StatusCode, data.RefreshToken, data.Reason
}

func learnsOfATheftThatItMissed(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	token := b.cookie("refresh")
	b.Do(chromedp.Navigate("about:blank"))
	for range 2 { // the thief uses the session while the page is closed
		status, next, _ := s.refresh(token)
		require.Equal(t, 200, status)
		token = next
		s.advance(time.Hour)
	}
	b.onLoad(hourLater)
	b.Do(chromedp.Navigate(b.url))
	b.Sees("notice", theft)
	status, _, reason := s.refresh(token)
	require.Equal(t, 401, status)
	require.Equal(t, "reuse", reason)
	b.signIn("Kitchen laptop")
}

func hasNoTokenThatAScriptCanRead(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	b.signIn("Kitchen laptop")
	tokens := []string{b.cookie("access"), b.cookie("refresh")}
	s.expire()
	b.ask()
	b.answered()
	b.logs("Access token refreshed")
	tokens = append(tokens, b.cookie("access"), b.cookie("refresh"), b.cookie("device"))

	require.Empty(t, b.Evaluate(`document.cookie`))
	stored := b.Evaluate(`(async () => {
		const all = { localStorage: { ...localStorage }, sessionStorage: { ...sessionStorage }, caches: await caches.keys(), history: history.state, databases: [] };
		for (const { name } of await indexedDB.databases()) {
			const db = await new Promise((done) => { const open = indexedDB.open(name); open.onsuccess = () => done(open.result); });
			for (const store of db.objectStoreNames) all.databases.push(await new Promise((done) => {
				const get = db.transaction(store).objectStore(store).getAll();
				get.onsuccess = () => done(get.result);
			}));
			db.close();
		}
		return JSON.stringify(all);
	})()`)
	require.Contains(t, stored, `"n":`, "the record of auth.js")
	b.Evaluate(`globalThis.control = ((text) => () => text)(["the", "control"].join("-")); ""`)
	for name, text := range map[string]string{"storage": stored, "document": b.Evaluate(`document.documentElement.outerHTML`), "heap": b.heap()} {
		for _, token := range tokens {
			require.Greater(t, len(token), 40)
			require.NotContains(t, text, token[len(token)-40:], name)
			require.NotContains(t, text, token[:40], name)
		}
		require.NotContains(t, text, "eyJ", name) // any JWT
		require.Equal(t, name == "heap", strings.Contains(text, "the-control"), name)
	}
}

// heap returns a snapshot of all objects of JavaScript that the page has, also those
// in closures and modules.
func (b tab) heap() string {
	b.t.Helper()
	var mu sync.Mutex
	var snapshot strings.Builder
	require.NoError(b.t, chromedp.Listen(b.Context, func(ev any) {
		if chunk, ok := ev.(*heapprofiler.EventAddHeapSnapshotChunk); ok {
			mu.Lock()
			defer mu.Unlock()
			snapshot.WriteString(chunk.Chunk)
		}
	}))
	_, err := chromedp.Call(b.Context, heapprofiler.TakeHeapSnapshot, heapprofiler.TakeHeapSnapshotParams{})
	require.NoError(b.t, err)
	mu.Lock()
	defer mu.Unlock()
	return snapshot.String()
}

// press presses keys, and returns what has the focus. The focus must be visible.
func (b tab) press(keys string, options ...chromedp.KeyOption) string {
	b.t.Helper()
	b.Do(chromedp.KeyEvent(keys, options...))
	b.until(`((e) => {
		const { top, bottom, width } = e.getBoundingClientRect();
		return e !== document.body && getComputedStyle(e).outlineStyle !== "none" && width > 0 && top >= 0 && top < innerHeight;
	})(document.activeElement)`)
	return b.Evaluate(`((e) => e.ariaLabel || e.id || e.name || e.innerText)(document.activeElement)`)
}

// tabTo presses Tab until the control has the focus, or Shift+Tab.
func (b tab) tabTo(name string, options ...chromedp.KeyOption) {
	b.t.Helper()
	var seen []string
	for range 30 {
		at := b.press(kb.Tab, options...)
		if at == name {
			return
		}
		seen = append(seen, at)
	}
	require.Fail(b.t, "not reached", "Tab does not reach %q, only %q", name, seen)
}

// tabThrough presses Tab once for each control, and returns those that it has not
// reached.
func (b tab) tabThrough(first bool) string {
	b.t.Helper()
	const controls = `[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")].filter((e) => e.checkVisibility())`
	b.Evaluate(`window.reached = new Set([document.activeElement]); ""`)
	n, err := strconv.Atoi(b.Evaluate(`String(` + controls + `.length)`))
	require.NoError(b.t, err)
	if first {
		n-- // it has the focus
	}
	for range n {
		b.press(kb.Tab)
		b.Evaluate(`reached.add(document.activeElement); ""`)
	}
	return b.Evaluate(controls + `.filter((e) => !reached.has(e)).map((e) => e.outerHTML).join("\n")`)
}

func needsTheKeyboardOnly(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	require.Equal(t, "login", b.press("ada"))
	require.Empty(t, b.tabThrough(true))
	back := chromedp.KeyModifiers(chromedp.ModifierShift)
	b.tabTo("login", back)
	b.press(kb.Tab + "wrong" + kb.Enter)
	b.shows("login-error", "Incorrect user name or password.")
	require.Equal(t, "password", b.press(site.Password+kb.Enter))
	b.until(signedIn)
	b.until(focused + ` === "username"`)
	b.until(`document.querySelector("#devices button") !== null`) // the last control that appears
	require.Empty(t, b.tabThrough(false))

	b.tabTo("refresh", back)
	require.Equal(t, "refresh", b.press(kb.Enter))
	b.logs("Access token refreshed")
	b.Evaluate(`new Promise((done) => requestAnimationFrame(() => done("")))`)
	b.tabTo("Sign out other devices")
	b.press(kb.Enter)
	b.logs("Signed out all other devices")
	b.tabTo("race")
	b.press(kb.Tab)
	b.press(" ") // opens the commands
	require.Equal(t, "copy", b.press(kb.Tab))
	require.Equal(t, "Commands", b.press(kb.Tab))
	b.tabTo("logout", back)
	b.Do(chromedp.KeyEvent(kb.Enter))
	b.shows("notice", "You are signed out.")
	require.Equal(t, "login", b.press("ada"))
}

// fits begins with the rules of exampletest. Besides, nothing may be outside of the
// window.
const fits = exampletest.AuditText + `
	if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
	for (const e of shown("button, input, summary, pre, h1, h2, .notice")) {
		const { left, right } = e.getBoundingClientRect();
		if (left < 0 || right > innerWidth) wrong.push(name(e) + " is outside of the window");
	}
	return wrong.join("\n");
})()`

func hasNamesAndFits(t *testing.T, chromium exampletest.Tab) {
	s := start(t)
	b := s.open(chromium)
	inspect := func(want ...string) {
		t.Helper()
		for _, width := range []int64{320, 640} { // 1280 px at 400 % and at 200 %
			b.Do(chromedp.EmulateViewport(width, 640, chromedp.EmulateScale(2)))
			require.Empty(t, b.Evaluate(fits), "%d px", width)
		}
		require.ElementsMatch(t, want, b.controls())
	}
	inspect("textbox User name or e-mail", "textbox Password", "textbox Device name (optional)",
		"button Sign in", "button ada, admin", "button bob, user")
	b.signIn("Kitchen laptop")
	b.until(live)
	b.until(`!!document.querySelector("#devices button")`)
	b.Evaluate(`document.querySelectorAll("details").forEach((e) => { e.open = true; }); ""`)
	inspect("button Refresh", "button Sign out", "button Sign out other devices", "button Sign out all devices",
		"button Refresh in all tabs", "DisclosureTriangle Commands for bash or zsh", "button Copy", "DisclosureTriangle Be the victim yourself",
		"button Sign out Kitchen laptop", "button GET /api/me", "button GET /api/admin")
	s.cut()
	b.until(`document.getElementById("offline").checkVisibility()`)
	require.Empty(t, b.Evaluate(fits), "offline")
}

// controls returns the roles and names that assistive technology sees of all controls.
func (b tab) controls() (found []string) {
	b.t.Helper()
	tree, err := chromedp.Call(b.Context, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	require.NoError(b.t, err)
	text := func(v *accessibility.Value) (s string) {
		if v != nil {
			require.NoError(b.t, json.Unmarshal(v.Value, &s))
		}
		return s
	}
	for _, node := range tree.Nodes {
		if node.Ignored {
			continue
		}
		switch role := text(node.Role); role {
		case "button", "textbox", "searchbox", "checkbox", "radio", "combobox", "link", "DisclosureTriangle":
			found = append(found, role+" "+text(node.Name))
		}
	}
	return found
}
