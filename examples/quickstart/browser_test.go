package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

// browser is a tab of a Chromium with its own profile.
type browser struct {
	t      *testing.T
	opened exampletest.Tab
	ctx    context.Context // of opened
	shots  string          // directory of the screenshots
}

// shotsIn returns the directory for screenshots: QUICKSTART_SHOTS if it is set.
func shotsIn(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("QUICKSTART_SHOTS")
	if dir == "" {
		return t.TempDir()
	}
	require.NoError(t, os.MkdirAll(dir, 0o750))
	return dir
}

func newBrowser(t *testing.T, shots string, flags ...chromedp.ExecAllocatorOption) browser {
	t.Helper()
	tab := exampletest.Chromium(t, flags...)
	return browser{t, tab, tab.Context, shots}
}

// tab opens another tab.
func (b browser) tab() browser {
	b.t.Helper()
	b.opened = b.opened.Open()
	b.ctx = b.opened.Context
	return b
}

func (b browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.shot("failed")
		require.NoError(b.t, err)
	}
}

// sees waits until an element displays one of the texts.
func (b browser) sees(id string, texts ...string) {
	b.t.Helper()
	list, err := json.Marshal(texts)
	require.NoError(b.t, err)
	js := fmt.Sprintf(`(e => !!e && e.checkVisibility() && %s.some((text) => e.innerText.includes(text)))(document.getElementById(%q))`, list, id)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(30 * time.Millisecond) {
		shown, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](js))
		if err == nil && shown {
			return
		}
		if time.Now().After(deadline) {
			b.shot("failed")
			require.Fail(b.t, "not shown", "#%s does not show any of %q (%v)", id, texts, err)
		}
	}
}

func (b browser) signIn(base, device string) {
	b.t.Helper()
	b.do(chromedp.Navigate(base), chromedp.WaitVisible("#login"), chromedp.Click(`[data-fill="ada"]`),
		chromedp.SendKeys(`[name="device"]`, device), chromedp.SendKeys(`[name="password"]`, kb.Enter))
	b.sees("username", "ada")
}

// audit returns what is wrong with the layout: text with too little contrast
// (WCAG 2.2, 1.4.3), text that does not fit, buttons that are too small to tap or
// stretched, cards that are stretched, and cards or buttons that overlap.
const audit = exampletest.AuditText + `
	for (const e of shown("input")) {
		const ratio = Math.min(contrast(rgba(getComputedStyle(e).borderTopColor), ground(e)), contrast(rgba(getComputedStyle(e).borderTopColor), ground(e.parentElement)));
		if (ratio < 3) wrong.push(name(e) + " has a border with contrast " + ratio.toFixed(2));
		const text = contrast(rgba(getComputedStyle(e, "::placeholder").color), ground(e));
		if (text < 4.5) wrong.push(name(e) + " has a placeholder with contrast " + text.toFixed(2));
	}
	for (const e of shown("button, summary")) {
		const { height } = e.getBoundingClientRect();
		if (height < (e.tagName === "BUTTON" ? 40 : 24) || height > 60) wrong.push(name(e) + " is " + height + " px high");
	}
	for (const e of shown(".card")) {
		const unused = e.getBoundingClientRect().bottom - Math.max(...[...e.children].map((c) => c.getBoundingClientRect().bottom));
		if (unused > 60) wrong.push(name(e) + " has " + unused + " px of unused space");
	}
	for (const kind of [".card, .notice", "button, input, summary, h1, h2, dd, .token, pre"]) {
		const all = shown(kind).map((e) => [e, e.getBoundingClientRect()]);
		all.forEach(([e, a], i) => all.slice(i + 1).forEach(([f, b]) => {
			if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) wrong.push(name(e) + " overlaps " + name(f));
		}));
	}
	if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
	return wrong.join("\n");
})()`

// shot saves screenshots in light and dark, at 1280 and 320 px, and checks the
// layout.
func (b browser) shot(name string) {
	b.t.Helper()
	for _, v := range []struct {
		suffix, scheme string
		width          int64
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 320}, {"narrow-dark", "dark", 320}} {
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		require.NoError(b.t, err)
		require.NoError(b.t, chromedp.Do(b.ctx, chromedp.EmulateViewport(v.width, 760)))
		png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		require.NoError(b.t, err)
		require.NoError(b.t, os.WriteFile(filepath.Join(b.shots, name+"-"+v.suffix+".png"), png, 0o600))
		wrong, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](audit))
		require.NoError(b.t, err)
		require.Empty(b.t, wrong, "%s at %d px, %s", name, v.width, v.scheme)
	}
	require.NoError(b.t, chromedp.Do(b.ctx, chromedp.EmulateViewport(1100, 760)))
}

// TestBrowser_RefreshesAndShowsEndOfSession runs a user with two browsers. If
// QUICKSTART_SHOTS is set, it names the directory for screenshots.
func TestBrowser_RefreshesAndShowsEndOfSession(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	shots := shotsIn(t)
	s := start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", "6s", "-leeway", "1s", "-retry-window", "1s")

	first := newBrowser(t, shots)
	first.do(chromedp.Navigate(s.base), chromedp.WaitVisible("#login"))
	first.shot("signed-out")
	first.do(chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "wrong"+kb.Enter))
	first.sees("login-error", "Incorrect user name or password.")
	first.signIn(s.base, "Kitchen laptop")
	other := first.tab() // with the same session
	other.do(chromedp.Navigate(s.base))
	other.sees("username", "ada")
	cookies, err := chromedp.Run(first.ctx, chromedp.Evaluate[string](`document.cookie`))
	require.NoError(t, err)
	first.do(chromedp.Click(`[data-get="/api/admin"]`))
	require.Empty(t, cookies, "scripts can read cookies")
	first.sees("response", "Only admins see this, ada.")

	second := newBrowser(t, shots)
	second.signIn(s.base, "Office desktop")
	second.sees("devices", "Kitchen laptop")
	first.sees("log", "Access token refreshed")
	other.sees("log", "Access token refreshed")
	first.sees("devices", "Office desktop")
	first.shot("signed-in")

	// After a reload the user is signed in, and the page knows the expiry again.
	first.do(chromedp.Reload())
	first.sees("left", " s")

	second.do(chromedp.Click(`[aria-label="Sign out Kitchen laptop"]`))
	begin := time.Now()
	first.sees("notice", "You were signed out from another device.")
	require.Less(t, time.Since(begin), 2*time.Second)
	other.sees("notice", "You were signed out from another device.")
	first.shot("ended")
	second.sees("log", "Signed out Kitchen laptop")

	// The server restarts with other keys and without its sessions.
	require.NoError(t, s.stop())
	second.sees("offline", "The server does not answer.")
	s = start(t, nil, "-addr", strings.TrimPrefix(s.base, "http://"))
	second.sees("notice", "Your session has ended.")
	second.signIn(s.base, "")
	second.do(chromedp.Click("#logout"), chromedp.WaitVisible("#login"))
	second.sees("notice", "You are signed out.")
}
