package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/quickstart/site"
	"github.com/ratchet-go/auth/internal/testserver"
)

// read returns the value of a JavaScript expression.
func read[T any](b browser, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js))
	require.NoError(b.t, err)
	return v
}

// holds waits until a JavaScript expression is true.
func (b browser) holds(js string) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(30 * time.Millisecond) {
		if v, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](js)); err == nil && v {
			return
		} else if time.Now().After(deadline) {
			b.shot("failed")
			require.Fail(b.t, "not true", "%s (%v)", js, err)
		}
	}
}

const (
	focused = `(document.activeElement.id || document.activeElement.name || document.activeElement.ariaLabel || document.activeElement.tagName)`
	green   = `document.getElementById("live").checkVisibility() && document.getElementById("live").classList.contains("on")`
)

// holdRequests is JavaScript that holds the requests of the page, except its stream,
// until held is false.
const holdRequests = `{
	const f = fetch;
	window.held = true;
	window.fetch = (...args) => new Promise((done) => {
		const send = () => held ? setTimeout(send, 50) : done(f(...args));
		send();
	});
}`

// TestBrowser_ShowsThatTheServerDoesNotAnswer stops the server in both ways: it
// hangs, and it exits.
func TestBrowser_ShowsThatTheServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0", "-access-ttl", "6s", "-leeway", "1s", "-retry-window", "1s")
	b := newBrowser(t, shotsIn(t))
	b.signIn(s.base, "Kitchen laptop")
	b.holds(green)
	require.False(t, read[bool](b, `document.getElementById("offline").checkVisibility()`))

	// While it hangs, connections stay open. Requests would time out after 10
	// seconds; without them, the silent stream is what the page notices.
	b.do(chromedp.Evaluate[chromedp.Void](holdRequests))
	require.NoError(t, testserver.Pause(s.cmd.Process))
	b.sees("offline", "The server does not answer.")
	require.False(t, read[bool](b, green))
	b.do(chromedp.Evaluate[chromedp.Void](`held = false`))
	require.NoError(t, testserver.Resume(s.cmd.Process))
	b.sees("log", "Connected again")
	b.holds(green)
	require.False(t, read[bool](b, `document.getElementById("offline").checkVisibility()`))

	require.NoError(t, s.stop())
	b.sees("offline", "The server does not answer.")
	require.False(t, read[bool](b, green))
	b.sees("live-text", "Not connected")
	used := read[string](b, `document.querySelector(".used").textContent`)
	b.holds(fmt.Sprintf(`document.querySelector(".used").textContent !== %q`, used)) // the times move without the server
	b.sees("left", "Expired")
	require.NotContains(t, read[string](b, `document.getElementById("main").innerText`), "\n0 s")
	b.do(chromedp.Click(`[data-get="/api/me"]`))
	b.sees("log", "The server does not answer")
	b.shot("offline")

	// The server has other keys now. The page notices that it answers, and why
	// the session is over.
	s = start(t, nil, "-addr", strings.TrimPrefix(s.base, "http://"))
	b.sees("notice", "Your session has ended.")
	require.False(t, read[bool](b, `document.getElementById("offline").checkVisibility()`))

	// On the sign-in form, the attempts to reconnect leave the focus alone.
	require.NoError(t, s.stop())
	b.do(chromedp.SendKeys(`[name="login"]`, "ada"), chromedp.SendKeys(`[name="password"]`, "x"+kb.Enter))
	b.sees("login-error", "The server does not answer.")
	b.sees("offline", "The server does not answer.")
	b.shot("offline-signed-out")
	start(t, nil, "-addr", strings.TrimPrefix(s.base, "http://"))
	b.holds(`!document.getElementById("offline").checkVisibility()`)
	require.Equal(t, "password", read[string](b, focused))
	require.Equal(t, 1, strings.Count(read[string](b, `document.getElementById("log").innerText`), "Your session has ended."))
	b.sees("notice", "Your session has ended.")
}

func TestBrowser_FocusFollowsTheUser(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	signIn(t, s, "ada")
	b := newBrowser(t, t.TempDir())
	b.do(chromedp.Navigate(s.base), chromedp.WaitVisible("#login"))
	require.Equal(t, "login", read[string](b, focused))
	b.do(chromedp.KeyEvent("ada" + kb.Tab + site.Password + kb.Enter))
	b.sees("username", "ada")
	b.holds(focused + ` === "username"`)
	b.do(chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "refresh", read[string](b, focused))
	require.NotEqual(t, "none", read[string](b, `getComputedStyle(document.activeElement).outlineStyle`))
	b.do(chromedp.KeyEvent(kb.Enter))
	b.sees("log", "Access token refreshed")
	require.Equal(t, "refresh", read[string](b, focused))

	// The other device disappears from the list, and with it the focused button.
	b.do(chromedp.WaitVisible(`#devices li:nth-child(2)`), chromedp.Focus(`#devices li:nth-child(2) button`), chromedp.KeyEvent(kb.Enter))
	b.holds(`document.querySelectorAll("#devices li").length === 1`)
	require.Contains(t, read[string](b, focused), "Sign out ")

	b.do(chromedp.Focus("#logout"), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#login"))
	require.Equal(t, "login", read[string](b, focused))

	// A page that is loaded while the user is signed in takes no focus.
	b.signIn(s.base, "")
	b.do(chromedp.Reload())
	b.sees("username", "ada")
	require.Equal(t, "BODY", read[string](b, focused))
}

func TestBrowser_SevenDevicesLeaveTheLayoutIntact(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	for _, name := range []string{"Work phone", "", strings.Repeat("Longname", 7), "The tablet that everybody in the family shares at home", "TV", "نعم"} {
		status, _ := do(t, "POST", s.base+"/auth/login", "", url.Values{
			"login": {"ada"}, "password": {site.Password}, "delivery": {"body"}, "device": {name},
		})
		require.Equal(t, 200, status)
	}
	b := newBrowser(t, shotsIn(t))
	b.signIn(s.base, "Kitchen laptop")
	b.holds(`document.querySelectorAll("#devices li").length === 7`)
	require.Regexp(t, `^Signed in\n.+\nEnds if idle\n.+\nEnds at latest\n.+\nSession ID\n`, read[string](b, `document.querySelector("dl").innerText`))
	b.shot("seven-devices")
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach((e) => e.open = true)`))
	b.shot("commands")

	before := read[string](b, `document.querySelector("#devices li:nth-child(2) .used").textContent`)
	b.holds(fmt.Sprintf(`document.querySelector("#devices li:nth-child(2) .used").textContent !== %q`, before))
	b.holds(`/^\d+ s ago$/.test(document.querySelector("#devices li:nth-child(2) .used").textContent)`)
}

func TestBrowser_TabsThatRefreshAtOnceStaySignedIn(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	first := newBrowser(t, t.TempDir())
	first.signIn(s.base, "")
	first.do(chromedp.Click("#race"))
	first.sees("log", "Open this page in a second tab first.")
	other := first.tab()
	other.do(chromedp.Navigate(s.base))
	other.sees("username", "ada")
	other.do(chromedp.Click("#race"))
	other.sees("log", "2 tabs refreshed at once. All are still signed in.")
	first.sees("log", "Refreshed at once with another tab")

	// The other tab learns of the sign-out from this one or, if its request for the
	// reason comes first, from the server. Here that request comes last.
	first.do(chromedp.Evaluate[chromedp.Void](holdRequests))
	other.do(chromedp.Click("#logout"))
	other.sees("notice", "You are signed out.")
	first.sees("notice", "You signed out in another tab.")
	first.do(chromedp.Evaluate[chromedp.Void](`held = false`))
	first.holds(`document.getElementById("notice").innerText === "You signed out in another tab."`)
}

// TestBrowser_CommandsShowATheft pastes the commands of the page into bash.
func TestBrowser_CommandsShowATheft(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	bash := testserver.Need(t, "bash", "bash")
	testserver.Need(t, "curl", "curl")
	// The page lists the devices every 5 seconds, so curl must be signed in for longer.
	s := start(t, nil, "-addr", "127.0.0.1:0", "-retry-window", "6s")
	b := newBrowser(t, t.TempDir())
	b.signIn(s.base, "")
	commands := read[string](b, `document.getElementById("commands").textContent`)
	require.Contains(t, commands, "\nsleep 8\n")
	cmd := exec.Command(bash, "--norc", "--noprofile")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "TMPDIR="+t.TempDir(), "no_proxy=*", "BASH_ENV=")
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `^\{"token_type":"Bearer".*\n\{"token_type":"Bearer".*\n`+
		`\{"error":"invalid_grant".*"action":"login".*\n\{"error":"invalid_token".*"action":"login".*\n$`, string(out))
	b.sees("log", "curl is signed out")
	require.Contains(t, read[string](b, `document.getElementById("log").innerText`), "New device: curl")
	require.NoError(t, s.stop())
	require.Contains(t, s.stderr.String(), "reuse")
}

const theft = "Somebody else used this sign-in."

// refreshToken returns the refresh token of the page, as the form of a refresh.
func (b browser) refreshToken() url.Values {
	b.t.Helper()
	cookies, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	require.NoError(b.t, err)
	i := slices.IndexFunc(cookies.Cookies, func(c *network.Cookie) bool { return strings.HasSuffix(c.Name, "refresh") })
	require.NotEqual(b.t, -1, i)
	return url.Values{"refresh_token": {cookies.Cookies[i].Value}}
}

// TestBrowser_VictimOfATheftReadsIt steals the refresh token of the page. Either the
// thief or the victim presents it when it is spent.
func TestBrowser_VictimOfATheftReadsIt(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0", "-retry-window", "1s")
	b := newBrowser(t, shotsIn(t))
	other := b.tab()
	windowEnds := func() { time.Sleep(1100 * time.Millisecond) } // by the clock of the program

	b.signIn(s.base, "Kitchen laptop")
	other.do(chromedp.Navigate(s.base))
	other.sees("username", "ada")
	status, _ := do(t, "POST", s.base+"/auth/refresh", "", b.refreshToken())
	require.Equal(t, 200, status)
	windowEnds()
	b.do(chromedp.Click("#refresh"))
	b.sees("notice", theft)
	other.sees("notice", theft)
	require.NotContains(t, read[string](b, `document.body.innerText`), "another tab")
	b.shot("theft")

	b.signIn(s.base, "Kitchen laptop")
	other.sees("username", "ada")
	token := b.refreshToken()
	b.do(chromedp.Click("#refresh"))
	b.sees("log", "Access token refreshed")
	windowEnds()
	status, answer := do(t, "POST", s.base+"/auth/refresh", "", token)
	require.Equal(t, 401, status)
	require.Equal(t, "reuse", answer["reason"])
	b.sees("notice", theft)
	other.sees("notice", theft)
}

// TestBrowser_RestartWithTheSameKeysAsksToSignIn: the keys are the same, but the
// sessions were in memory.
func TestBrowser_RestartWithTheSameKeysAsksToSignIn(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	env := []string{"ACCESS_SECRET=the access secret of these tests, 1", "REFRESH_SECRET=the refresh secret of these tests, 1"}
	s := start(t, env, "-addr", "127.0.0.1:0")
	b := newBrowser(t, shotsIn(t))
	b.signIn(s.base, "Kitchen laptop")
	b.sees("devices", "Kitchen laptop")
	require.NoError(t, s.stop())
	b.sees("offline", "The server does not answer.")
	start(t, env, "-addr", strings.TrimPrefix(s.base, "http://"))
	b.sees("notice", "Your session has ended. Sign in again.")
	b.shot("restarted")
	b.signIn(s.base, "Kitchen laptop")
	b.holds(green)
}

func TestBrowser_WithoutJavaScriptThePageSaysSo(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	b := newBrowser(t, shotsIn(t))
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
	b.do(chromedp.Navigate(s.base))
	require.Contains(t, read[string](b, `document.body.innerText`), "This page needs JavaScript.")
	require.NotContains(t, read[string](b, `document.body.innerText`), "Sign in")
	b.shot("without-javascript")
}
