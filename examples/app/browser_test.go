package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

// chromium is a tab of a Chromium with its own profile, in which the scripts of
// pages do not run.
type chromium struct {
	t     *testing.T
	ctx   context.Context
	base  string
	shots string // directory of the screenshots
}

// newChromium opens a browser. If APP_SHOTS is set, it names the directory for
// screenshots.
func newChromium(t *testing.T, base string) chromium {
	t.Helper()
	ctx := exampletest.Chromium(t).Context
	_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
	shots := os.Getenv("APP_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	return chromium{t, ctx, base, shots}
}

func (b chromium) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, actions...))
}

func (b chromium) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

func eval[T any](b chromium, js string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js))
	require.NoError(b.t, err)
	return value
}

// sees waits until the page at path displays all texts.
func (b chromium) sees(path string, texts ...string) {
	b.t.Helper()
	list, err := json.Marshal(texts)
	require.NoError(b.t, err)
	js := fmt.Sprintf(`document.readyState == "complete" && location.pathname + location.search == %q && %s.every((text) => document.body.innerText.includes(text))`, path, list)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		shown, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](js))
		if err == nil && shown {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not shown: %q at %s (%v), but %s: %s", texts, path, err, eval[string](b, "location.href"), eval[string](b, "document.body.innerText"))
		}
	}
}

// fill types values into the fields of a form, and sends it with the last one.
func (b chromium) fill(fields ...string) {
	b.t.Helper()
	for i := 0; i < len(fields); i += 2 {
		value := fields[i+1]
		if i == len(fields)-2 {
			value += kb.Enter
		}
		b.do(chromedp.SendKeys("#"+fields[i], value))
	}
}

// audit returns what is wrong with the layout and the accessibility: text with too
// little contrast (WCAG 2.2, 1.4.3), text that does not fit, fields without a label
// or with a faint border, small buttons, overlaps, and a page that is too wide.
const audit = exampletest.AuditText + `
	for (const e of shown("input, select, button")) {
		const ratio = contrast(rgba(getComputedStyle(e).borderTopColor), ground(e.parentElement));
		if (ratio < 3) wrong.push(name(e) + " has a border with contrast " + ratio.toFixed(2));
		const target = ["checkbox", "radio"].includes(e.type) ? e.closest("label") : e;
		if (target.getBoundingClientRect().height < 40) wrong.push(name(e) + " is too low");
		if (e.tagName !== "BUTTON" && !e.labels.length && !e.ariaLabel) wrong.push(name(e) + " has no label");
	}
	const all = shown("button, .button, input, select, h1, h2, nav a, dt, dd, li p").map((e) => [e, e.getBoundingClientRect()]);
	all.forEach(([e, a], i) => all.slice(i + 1).forEach(([f, b]) => {
		if (!e.contains(f) && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) wrong.push(name(e) + " overlaps " + name(f));
	}));
	if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
	if (document.querySelectorAll("h1").length !== 1 || !document.title || !document.documentElement.lang) wrong.push("no title, heading or language");
	return wrong.join("\n");
})()`

// shot saves screenshots in light and dark, at 1280 and 320 px, and checks the
// layout.
func (b chromium) shot(name string) {
	b.t.Helper()
	for _, width := range []int64{1280, 320} {
		for _, scheme := range []string{"light", "dark"} {
			png := b.screenshot(scheme, width)
			require.NoError(b.t, os.WriteFile(filepath.Join(b.shots, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)), png, 0o600))
			require.Empty(b.t, eval[string](b, audit), "%s at %d px, %s", name, width, scheme)
		}
	}
	b.do(chromedp.EmulateViewport(1100, 760))
}

func (b chromium) screenshot(scheme string, width int64) []byte {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
	b.do(chromedp.EmulateViewport(width, 200))
	b.do(chromedp.EmulateViewport(width, eval[int64](b, `document.documentElement.scrollHeight`)))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	return png
}

// TestBrowser_ScriptShowsASignOutOfAnotherTab runs the script of the pages, which the
// other tests do without.
func TestBrowser_ScriptShowsASignOutOfAnotherTab(t *testing.T) {
	t.Parallel()
	tab := exampletest.Chromium(t)
	base := start(t, t.TempDir(), nil).URL
	tab.Do(chromedp.Navigate(base+"/signup"), chromedp.SendKeys("#login", "ada"), chromedp.SendKeys("#address", "ada@example.com"),
		chromedp.SendKeys("#password", pass+kb.Enter), chromedp.WaitVisible("nav button"))
	other := tab.Open()
	other.Do(chromedp.Navigate(base + "/profile"))
	left := other.Evaluate(`document.getElementById("ended").dataset.expiresIn`)
	require.Regexp(t, `^8[89]\d$`, left)
	require.Equal(t, "200 "+base+"/refresh", other.Evaluate(`import("/auth.js").then(({ createClient }) => createClient().refresh()).then((r) => r.status + " " + r.url)`))
	require.Equal(t, "hidden", other.Evaluate(`document.getElementById("ended").checkVisibility() ? "shown" : "hidden"`))
	tab.Do(chromedp.Click("nav button"), chromedp.WaitVisible(`nav a[href="/signup"]`))
	other.Sees("ended", "You are signed out.")
	other.Do(chromedp.Click("#ended a"), chromedp.WaitVisible("#password"))
	require.Equal(t, "/login?next=%2Fprofile", other.Evaluate("location.pathname + location.search"))
}

// TestBrowser_WorksWithoutJavaScript runs through all pages in two browsers.
func TestBrowser_WorksWithoutJavaScript(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	base := start(t, t.TempDir(), nil).URL
	ada, other := newChromium(t, base), newChromium(t, base)

	ada.open("/")
	ada.sees("/", "Everybody can read this page.")
	ada.open("/signup")
	ada.fill("login", "Ada Lovelace", "address", "ada@example.com", "password", pass)
	ada.sees("/signup", "A user name has 2 to 30 letters")
	ada.shot("signup-error")
	ada.do(chromedp.Clear("#login"))
	ada.fill("login", "Ada", "password", pass)
	ada.sees("/", "Hello, ada")
	ada.do(chromedp.Click("nav button"))
	ada.sees("/", "Everybody can read this page.")

	ada.open("/devices?from=mail")
	ada.sees("/login?next=%2Fdevices%3Ffrom%3Dmail", "Sign in")
	ada.fill("login", "ada", "password", "wrong")
	ada.sees("/login", "Login or password is wrong.")
	require.Equal(t, "ada", eval[string](ada, `document.querySelector("#login").value`))
	require.Equal(t, "password", eval[string](ada, `document.activeElement.id`))
	require.Empty(t, eval[string](ada, `document.querySelector("#password").value`))
	ada.shot("login-error")
	ada.fill("password", pass)
	ada.sees("/devices?from=mail", "You are signed in on this device only.")
	require.Empty(t, eval[string](ada, `document.cookie`), "scripts cannot read the cookies")

	other.open("/login")
	other.fill("login", "ADA", "password", pass)
	other.sees("/", "Hello, ada")
	ada.open("/devices")
	ada.sees("/devices", "You are signed in on 2 devices.", "This device")
	ada.shot("devices")
	ada.do(chromedp.Click(`//li[not(contains(., "This device"))]//button`))
	ada.sees("/devices", "You are signed in on this device only.")
	other.open("/profile")
	other.sees("/login?next=%2Fprofile", "Sign in")
	other.fill("login", "ada", "password", pass)
	other.sees("/profile", "Change the password")

	ada.open("/profile")
	ada.sees("/profile", "owner")
	ada.shot("profile")
	ada.fill("current", "wrong", "password", "a new password of ada")
	ada.sees("/profile", "The current password is wrong.")
	ada.fill("current", pass, "password", "a new password of ada")
	ada.sees("/devices?done", "The password has been changed")
	ada.shot("devices-done")
	other.do(chromedp.SendKeys("#current", pass), chromedp.SendKeys("#password", "another new password"+kb.Enter))
	other.sees("/profile", "You must sign in again")
	other.shot("again")
	tab := other // the page says: sign in in a new tab, then reload this page to send the form again
	ctx, cancel := chromedp.NewContext(other.ctx)
	defer cancel()
	tab.ctx = ctx
	tab.open("/login")
	tab.fill("login", "ada", "password", "a new password of ada")
	tab.sees("/", "Hello, ada")
	_, err := chromedp.Call(other.ctx, page.Reload, page.ReloadParams{})
	require.NoError(t, err)
	other.sees("/profile", "The current password is wrong.")

	other.open("/signup")
	other.fill("login", "bob", "address", "bob@example.com", "password", pass)
	other.sees("/", "Hello, bob")
	other.open("/admin")
	other.sees("/admin", "This did not work")
	other.shot("forbidden")
	ada.open("/admin")
	ada.sees("/admin", "owner, this is you", "bob")
	ada.do(chromedp.SendKeys(`[name="role"]`, "admin"), chromedp.Click(`[aria-label="Save bob"]`), chromedp.WaitVisible(`//li[contains(., "bob")]//p[.="admin"]`))
	other.open("/admin")
	other.sees("/admin", "bob", "this is you")
	ada.shot("admin")
	ada.do(chromedp.SendKeys(`[name="status"]`, "disabled"), chromedp.Click(`[aria-label="Save bob"]`))
	ada.sees("/admin", "admin, disabled")
	other.open("/admin")
	other.sees("/login?next=%2Fadmin", "Sign in")
}

// mail opens the last mail, and returns the path of its link.
func (b chromium) mail() string {
	b.t.Helper()
	b.open("/mail/")
	b.do(chromedp.Click("a:last-of-type"), chromedp.WaitVisible(`//*[contains(text(), "If you did not ask for it")]`))
	link := regexp.MustCompile(`(?m)^` + b.base + `(/\w+\?token=\S+)$`).FindStringSubmatch(eval[string](b, "document.body.innerText"))
	require.NotNil(b.t, link)
	return link[1]
}

// lasting returns whether the browser keeps the cookies when it is closed.
func (b chromium) lasting() bool {
	b.t.Helper()
	cookies, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	require.NoError(b.t, err)
	session := map[string]bool{}
	for _, c := range cookies.Cookies {
		session[c.Name] = c.Session
	}
	require.Len(b.t, session, 3)
	require.Equal(b.t, session["access"], session["refresh"])
	return !session["access"]
}

func (b chromium) signOut() {
	b.t.Helper()
	b.do(chromedp.Click("nav button"))
	b.sees("/", "Everybody can read this page.")
}

// TestBrowser_FactorMailsAndActing sets up a second factor, verifies an address, resets
// a password and acts for a user.
func TestBrowser_FactorMailsAndActing(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	base := start(t, t.TempDir(), nil).URL
	ada, bob := newChromium(t, base), newChromium(t, base)
	const secretOfPage, codesOfPage = `document.querySelector("code").innerText`, `[...document.querySelectorAll("code")].map((e) => e.innerText)`

	ada.open("/signup")
	ada.shot("signup")
	ada.fill("login", "ada", "address", "ada@example.com", "password", pass)
	ada.sees("/", "Hello, ada")
	require.False(t, ada.lasting())
	ada.open("/profile")
	ada.sees("/profile", "not verified")
	ada.shot("profile-new")
	ada.do(chromedp.Click("dd button"))
	ada.sees("/profile?sent", "A mail with a link has been sent to ada@example.com.")
	ada.shot("profile-sent")
	link := ada.mail()
	ada.open(link)
	ada.sees(link, "Did you sign up with this e-mail address?")
	ada.shot("verify")
	ada.do(chromedp.Click("main button"))
	ada.sees("/?verified", "Your e-mail address is verified.")
	ada.open(link)
	ada.do(chromedp.Click("main button"))
	ada.sees("/verify", "used before")
	ada.shot("verify-error")

	ada.open("/profile")
	ada.do(chromedp.Click(`//dd/a[.="Off"]`))
	ada.sees("/factor", "Scan this with an authenticator app")
	ada.shot("factor")
	secret := eval[string](ada, secretOfPage)
	ada.fill("response", wrong(t, secret))
	ada.sees("/factor", "The code is wrong, or was used before.", secret)
	require.Equal(t, "response", eval[string](ada, `document.activeElement.id`))
	ada.shot("factor-error")
	ada.fill("response", code(t, secret, 0))
	ada.sees("/factor", "These are your recovery codes.")
	ada.shot("recovery")
	recovery := eval[[]string](ada, codesOfPage)
	require.Len(t, recovery, 10)
	ada.do(chromedp.Click("main a"))
	ada.sees("/profile", "Change the password")
	ada.signOut()

	ada.open("/login?next=%2Fprofile")
	ada.do(chromedp.Click(`//label[contains(., "Stay signed in")]`))
	ada.fill("login", "ada", "password", pass)
	ada.sees("/login", "Enter a code")
	require.Equal(t, "response", eval[string](ada, `document.activeElement.id`))
	ada.shot("code")
	ada.pictures("app-code")
	ada.fill("response", wrong(t, secret))
	ada.sees("/login", "The code is wrong, or was used before.")
	ada.shot("code-error")
	ada.fill("response", code(t, secret, 1))
	ada.sees("/profile", "Change the password")
	require.True(t, ada.lasting())
	ada.open("/factor")
	ada.sees("/factor", "10 recovery codes left")
	ada.shot("factor-on")
	ada.signOut()
	useRecoveryCode := func(i int) {
		t.Helper()
		ada.sees("/login", "Enter a code")
		ada.do(chromedp.Click(`//label[contains(., "A recovery code")]`))
		ada.fill("response", recovery[i])
		ada.sees("/", "Hello, ada")
		require.False(t, ada.lasting())
	}
	ada.open("/login")
	ada.fill("login", "ada", "password", pass)
	useRecoveryCode(0)
	ada.signOut()

	ada.open("/login")
	ada.do(chromedp.Click(`//a[.="Forgot the password?"]`))
	ada.sees("/forgot", "Forgotten password")
	ada.shot("forgot")
	ada.fill("login", "ada")
	ada.sees("/forgot?sent", "If there is such a user")
	ada.shot("forgot-sent")
	link = ada.mail()
	ada.open(link)
	ada.sees(link, "All your devices will be signed out.")
	ada.shot("reset")
	ada.fill("password", "a new password of ada")
	ada.sees("/login?reset", "You have a new password.")
	ada.shot("login")
	ada.fill("login", "ada", "password", "a new password of ada")
	useRecoveryCode(1)

	bob.open("/signup")
	bob.fill("login", "bob", "address", "bob@example.com", "password", pass)
	bob.sees("/", "Hello, bob")
	ada.open("/admin")
	ada.sees("/admin", "Act for bob")
	ada.do(chromedp.SendKeys(`[name="factor"]`, "and code"), chromedp.Click(`[aria-label="Save bob"]`), chromedp.WaitReady(`//option[@value="required"][@selected]`))
	ada.shot("admin-member")
	bob.open("/profile")
	bob.sees("/login?next=%2Fprofile", "Sign in")
	bob.fill("login", "bob", "password", pass)
	bob.sees("/login", "An administrator requires a second factor of you.")
	bob.shot("enroll")
	bob.fill("response", code(t, eval[string](bob, secretOfPage), 0))
	bob.sees("/factor", "0 recovery codes left")
	bob.do(chromedp.Click("main button"))
	bob.sees("/factor", "These are your recovery codes.")

	ada.do(chromedp.Click(`//button[.="Act for bob"]`))
	ada.sees("/", "Hello, bob", "You act for bob.")
	ada.open("/profile")
	ada.sees("/profile", "You act for bob.", "bob@example.com")
	ada.shot("acting")
	bob.open("/devices")
	bob.sees("/devices", "An administrator, for you")
	bob.shot("devices-acting")
	ada.signOut()
}

// TestBrowser_WorksWithTheKeyboard presses only keys.
func TestBrowser_WorksWithTheKeyboard(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	base := start(t, t.TempDir(), nil).URL
	b := newChromium(t, base)
	press := func(keys string) { t.Helper(); b.do(chromedp.KeyEvent(keys)) }
	// tabTo presses Tab until an element with the text or label has the focus.
	tabTo := func(text string) {
		t.Helper()
		var seen []string
		for range 20 {
			press(kb.Tab)
			seen = append(seen, eval[string](b, `document.activeElement.ariaLabel || document.activeElement.innerText`))
			if seen[len(seen)-1] == text {
				require.NotEqual(t, "none", eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
				return
			}
		}
		t.Fatalf("Tab does not reach %q, only %q", text, seen)
	}
	b.open("/devices")
	b.sees("/login?next=%2Fdevices", "Sign in")
	tabTo("Sign up")
	press(kb.Enter)
	b.sees("/signup?next=%2fdevices", "At least 15 characters")
	press("ada" + kb.Tab + "ada@example.com" + kb.Tab + pass + kb.Enter)
	b.sees("/devices", "This device")
	tabTo("Profile")
	press(kb.Enter)
	b.sees("/profile", "Change the password")
	tabTo("Sign out")
	press(kb.Enter)
	b.sees("/", "Everybody can read this page.")
	tabTo("Sign in")
	press(kb.Enter)
	b.sees("/login", "Password")
	press("ada" + kb.Tab + pass + kb.Enter)
	b.sees("/", "Hello, ada")
	tabTo("Devices")
	press(kb.Enter)
	b.sees("/devices", "this device only")
	tabTo("End the session of this device")
	press(kb.Enter)
	b.sees("/login?next=%2Fdevices", "Sign in")
}

// pictures compares the text of the page with the text that was recorded with its
// pictures in docs/img. With AUTH_WRITE_PICTURES=1 it takes the pictures and records
// the text:
//
//	AUTH_WRITE_PICTURES=1 go test -run 'TestPicture|TestBrowser_Factor' ./examples/app
func (b chromium) pictures(name string) {
	b.t.Helper()
	text := eval[string](b, `document.body.innerText`)
	for pattern, with := range map[string]string{`\d+ \w+ \d{4}, \d\d:\d\d`: "DATE", `Mozilla/.*`: "BROWSER", `\n\s*\n`: "\n"} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	style, err := os.ReadFile("web/style.css")
	require.NoError(b.t, err)
	exampletest.Pictures(b.t, "../../docs/img", name, text, style, 60_000, func(scheme string) []byte { return b.screenshot(scheme, 760) })
}

func TestPicture_ShowsThePage(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	base := start(t, t.TempDir(), nil).URL
	b, other := newChromium(t, base), newChromium(t, base)
	b.open("/signup?next=%2Fdevices")
	b.fill("login", "ada", "address", "ada@example.com", "password", pass)
	b.sees("/devices", "this device only")
	other.open("/login")
	other.fill("login", "ada", "password", pass)
	other.sees("/", "Hello, ada")
	b.open("/devices")
	b.sees("/devices", "2 devices")

	b.pictures("app")
}
