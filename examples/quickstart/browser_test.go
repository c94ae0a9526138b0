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
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// browser is a tab of a Chromium with its own profile.
type browser struct {
	t     *testing.T
	ctx   context.Context
	shots string // directory of the screenshots
}

func newBrowser(t *testing.T, path, shots string, flags ...chromedp.ExecAllocatorOption) browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1100, 800),
		chromedp.Flag("headless", "new"), chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("no-default-browser-check", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("no-proxy-server", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("password-store", "basic"), chromedp.Flag("lang", "en-GB"), chromedp.Flag("hide-scrollbars", true),
	}, flags...)...)
	t.Cleanup(cancel)
	return browser{t, ctx, shots}.tab()
}

// tab opens another tab. The test fails if a script throws or the security policy
// blocks something.
func (b browser) tab() browser {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	t := b.t
	require.NoError(t, chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("exception in the page: %v", ev.ExceptionDetails)
		case *log.EventEntryAdded:
			if ev.Entry.Source == log.EntrySourceSecurity || strings.Contains(ev.Entry.Text, "Content Security Policy") {
				t.Errorf("blocked by the security policy: %s", ev.Entry.Text)
			}
		}
	}))
	b.ctx = ctx
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
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(30 * time.Millisecond) {
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

// shot saves screenshots in light and dark, at 1280 and 380 px, and checks that
// nothing overflows.
func (b browser) shot(name string) {
	b.t.Helper()
	for _, v := range []struct {
		suffix, scheme string
		width          int64
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 380}, {"narrow-dark", "dark", 380}} {
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		require.NoError(b.t, err)
		require.NoError(b.t, chromedp.Do(b.ctx, chromedp.EmulateViewport(v.width, 760)))
		png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		require.NoError(b.t, err)
		require.NoError(b.t, os.WriteFile(filepath.Join(b.shots, name+"-"+v.suffix+".png"), png, 0o600))
		overflow, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
		require.NoError(b.t, err)
		require.False(b.t, overflow, "%s is wider than the window at %d px", name, v.width)
	}
	require.NoError(b.t, chromedp.Do(b.ctx, chromedp.EmulateViewport(1100, 760)))
}

// TestBrowser_RefreshesAndShowsEndOfSession runs a user with two browsers. If
// QUICKSTART_SHOTS is set, it names the directory for screenshots.
func TestBrowser_RefreshesAndShowsEndOfSession(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes ten seconds")
	}
	t.Parallel()
	path := need(t, "chromium", "chromium")
	shots := os.Getenv("QUICKSTART_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	require.NoError(t, os.MkdirAll(shots, 0o750))
	s := start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", "6s", "-leeway", "1s", "-retry-window", "1s")

	first := newBrowser(t, path, shots)
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

	second := newBrowser(t, path, shots)
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
	// The page learns of it by its stream or, if that comes first, by a request.
	ended := []string{"You were signed out elsewhere.", "Your session has ended."}
	first.sees("notice", ended...)
	require.Less(t, time.Since(begin), 2*time.Second)
	other.sees("notice", ended...)
	first.shot("ended")
	second.sees("log", "Signed out Kitchen laptop")

	// The server restarts with other keys and without its sessions.
	require.NoError(t, s.stop())
	second.sees("live-text", "Disconnected: shutdown")
	s = start(t, nil, "-addr", strings.TrimPrefix(s.base, "http://"))
	second.sees("notice", "Your session has ended.")
	second.signIn(s.base, "")
	second.do(chromedp.Click("#logout"), chromedp.WaitVisible("#login"))
	second.sees("notice", "You are signed out.")
}
