// Package exampletest starts the programs of the examples, and shows their pages in
// Chromium.
package exampletest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ratchet-go/auth/internal/testserver"
)

// Tab is a tab of a Chromium with its own profile.
type Tab struct {
	Context context.Context // for functions of package chromedp

	t testing.TB
}

// Chromium starts Chromium and returns its first tab. The test is skipped if Chromium
// is not installed.
func Chromium(t testing.TB, flags ...chromedp.ExecAllocatorOption) Tab {
	t.Helper()
	path := testserver.Need(t, "chromium", "chromium")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
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
	return Tab{ctx, t}.Open()
}

// Open opens another tab of the same profile. The test fails if a script throws or
// writes an error or a warning to the console, or if the browser blocks something, for
// example because of the security policy of the page.
func (b Tab) Open() Tab {
	b.t.Helper()
	return b.open()
}

// Profile opens a tab with a profile of its own, for the test t. So the subtests of a
// test can share one browser.
func (b Tab) Profile(t testing.TB) Tab {
	t.Helper()
	b.t = t
	return b.open(chromedp.WithNewBrowserContext())
}

func (b Tab) open(options ...chromedp.ContextOption) Tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.Context, options...)
	b.t.Cleanup(cancel)
	t := b.t
	err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("exception in the page: %v", ev.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning || ev.Type == runtime.ConsoleAPICalledTypeAssert {
				text, _ := json.Marshal(ev.Args)
				t.Errorf("console.%s in the page: %s", ev.Type, text)
			}
		case *log.EventEntryAdded:
			wrong := ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning
			refused := ev.Entry.Source == log.EntrySourceNetwork || strings.Contains(ev.Entry.Text, "CORS policy") // responses such as 401, or none
			if wrong && !refused || strings.Contains(ev.Entry.Text, "Content Security Policy") {
				t.Errorf("%s of the browser: %s: %s", ev.Entry.Level, ev.Entry.Source, ev.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Context = ctx
	return b
}

// Close closes the tab as its user does. The first tab must stay open, because the
// browser ends with it.
func (b Tab) Close() {
	b.t.Helper()
	if err := chromedp.Cancel(b.Context); err != nil {
		b.t.Fatal(err)
	}
}

// Before makes a script run in each page of the tab before the scripts of the page.
func (b Tab) Before(js string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.Context, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: js}); err != nil {
		b.t.Fatal(err)
	}
}

// Do performs actions.
func (b Tab) Do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.Context, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// Evaluate returns the value of an expression, or of the promise that it returns.
func (b Tab) Evaluate(js string) string {
	b.t.Helper()
	value, err := chromedp.Run(b.Context, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// Sees waits until the element with the ID displays the text.
func (b Tab) Sees(id, text string) {
	b.t.Helper()
	want, err := json.Marshal(text)
	if err != nil {
		b.t.Fatal(err)
	}
	js := fmt.Sprintf(`(e => !!e && e.checkVisibility() && e.innerText.includes(%s))(document.getElementById(%q))`, want, id)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(30 * time.Millisecond) {
		shown, err := chromedp.Run(b.Context, chromedp.Evaluate[bool](js))
		if err == nil && shown {
			return
		}
		if time.Now().After(deadline) {
			page, _ := chromedp.Run(b.Context, chromedp.Evaluate[string](`document.body.innerText`))
			b.t.Fatalf("#%s does not show %q (%v). The page shows:\n%s", id, text, err, page)
		}
	}
}
