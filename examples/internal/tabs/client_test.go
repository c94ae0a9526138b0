package tabs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
)

// TestClient runs auth.js in one browser. Each test has cookies and storage of its own.
func TestClient(t *testing.T) {
	t.Parallel()
	browser := exampletest.Chromium(t)
	for name, test := range map[string]func(*testing.T, exampletest.Tab){
		"EventsReachEveryTabOnce":                 testEventsReachEveryTabOnce,
		"RetryKeyOfALostResponse":                 testRetryKeyOfALostResponse,
		"KeyIsKeptIfTheResponseIsLate":            testKeyIsKeptIfTheResponseIsLate,
		"GivesUpARefreshAfterTheWindow":           testGivesUpARefreshAfterTheWindow,
		"RepeatsRequestsWhoseBodyItCanSendAgain":  testRepeatsRequestsWhoseBodyItCanSendAgain,
		"RepeatsOnlyWhatTheServerHasNotDone":      testRepeatsOnlyWhatTheServerHasNotDone,
		"OutageSignsNobodyOut":                    testOutageSignsNobodyOut,
		"SendsNothingToOtherOrigins":              testSendsNothingToOtherOrigins,
		"WorksWithoutWhatBrowsersMayLack":         testWorksWithoutWhatBrowsersMayLack,
		"OrphanedLockDelaysOnly":                  testOrphanedLockDelaysOnly,
		"LateRefusalOfAnOldSession":               testLateRefusalOfAnOldSession,
		"LoginWithoutTokensIsNoLogin":             testLoginWithoutTokensIsNoLogin,
		"StepUpIsNoSignOut":                       testStepUpIsNoSignOut,
		"LoginShowsErrorsAndTheSecondFactor":      testLoginShowsErrorsAndTheSecondFactor,
		"RefreshesAheadOfTheExpiry":               testRefreshesAheadOfTheExpiry,
		"TokensOfBodiesAreSavedBeforeTheyAreUsed": testTokensOfBodiesAreSavedBeforeTheyAreUsed,
		"LateResponseDoesNotReplaceNewerTokens":   testLateResponseDoesNotReplaceNewerTokens,
		"LateResponseDoesNotUndoASignOut":         testLateResponseDoesNotUndoASignOut,
		"AbortDoesNotWaitForTheRefresh":           testAbortDoesNotWaitForTheRefresh,
		"StreamIsNotSentAgain":                    testStreamIsNotSentAgain,
		"HiddenPageRefreshesWhenItIsShown":        testHiddenPageRefreshesWhenItIsShown,
		"KnowsWhyAnotherTabSignedOut":             testKnowsWhyAnotherTabSignedOut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, browser.Profile(t))
		})
	}
}

// digestOf returns the header of the first request with a retry key.
func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// lose makes the next n responses to refreshes get lost after the server has sent
// none of it, or with cut, its headers.
func lose(s *site, n int, cut bool) {
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/auth/refresh" || n == 0 {
			next.ServeHTTP(w, r)
			return
		}
		n--
		response := httptest.NewRecorder()
		next.ServeHTTP(response, r)
		drop(w, response, cut)
	})
}

func drop(w http.ResponseWriter, response *httptest.ResponseRecorder, cut bool) {
	if cut {
		for name, values := range response.Header() {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(response.Code)
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

func testEventsReachEveryTabOnce(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, query := range []string{"", "?body"} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		tabs := []exampletest.Tab{s.open(browser, query, ""), s.open(browser, query, ""), s.open(browser, query, "")}
		require.Equal(t, same("nobody", 3), all(tabs, "who()"))
		for _, tab := range tabs {
			require.Equal(t, []string{"missing_token"}, seen(tab, "signed-out", "error", 1), "nobody is signed in")
		}
		require.Equal(t, same("nobody", 3), all(tabs, "who()"))
		require.Equal(t, "200", login(tabs[0]))
		for i, tab := range tabs {
			require.Equal(t, []string{map[bool]string{true: "false", false: "true"}[i == 0]}, seen(tab, "signed-in", "otherTab", 1))
		}
		require.Equal(t, same("ada", 3), all(tabs, "who()"))

		require.Equal(t, "200", tabs[1].Evaluate(`auth.refresh().then((r) => "" + r.status)`))
		for _, tab := range tabs {
			require.Equal(t, []string{"900"}, seen(tab, "refreshed", "expires_in", 1))
		}

		require.Equal(t, "204", tabs[2].Evaluate(`auth.logout().then((r) => "" + r.status)`))
		for _, tab := range tabs {
			require.Equal(t, []string{"", "logout"}, seen(tab, "signed-out", "reason", 2))
		}
		require.Equal(t, same("nobody", 3), all(tabs, "who()"))
		for _, tab := range tabs {
			require.Len(t, seen(tab, "signed-out", "reason", 2), 2)
		}

		// The server ends the session: the first tab that asks learns why, and tells the others.
		require.Equal(t, "200", login(tabs[0]))
		require.Equal(t, same("ada", 3), all(tabs, "who()"))
		require.NoError(t, s.RevokeAll(t.Context(), "ada"))
		require.Equal(t, "nobody", tabs[1].Evaluate("who()"))
		for _, tab := range tabs {
			require.Equal(t, []string{"", "logout", "revoked"}, seen(tab, "signed-out", "reason", 3))
		}
		require.Equal(t, same("nobody", 3), all(tabs, "who()"))
		for _, tab := range tabs {
			require.Len(t, seen(tab, "signed-out", "reason", 3), 3)
			tab.Close()
		}
	}
}

func testRetryKeyOfALostResponse(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, query := range []string{"", "?body"} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		tab := s.open(browser, query, "")
		login(tab)
		s.expire()
		require.Equal(t, "ada", tab.Evaluate("who()"))
		require.Regexp(t, `^sha256=[\w-]{43}$`, s.refreshes("Refresh-Key")[0])

		// All tries are lost, and the page is closed.
		s.expire()
		lose(s, 3, false)
		require.Equal(t, "TypeError", tab.Evaluate(`who().catch((e) => e.name)`))
		keys := s.refreshes("Refresh-Key")
		require.Len(t, keys, 3)
		require.Equal(t, keys[1], keys[2])
		require.Equal(t, keys[0], digestOf(keys[1]), "the first request has the digest, the others have the key")
		tab.Close()
		s.Clock.Advance(time.Hour)
		tab = s.open(browser, query, "")
		require.Equal(t, "ada", tab.Evaluate("who()"))
		require.Equal(t, keys[1:2], s.refreshes("Refresh-Key"))
		require.Equal(t, 1, s.counted(auth.EventLateRetry))

		// The key was removed with the response, and the next token has another one.
		s.expire()
		require.Equal(t, "ada", tab.Evaluate("who()"))
		next := s.refreshes("Refresh-Key")
		require.Regexp(t, `^sha256=`, next[0])
		require.NotEqual(t, keys[0], next[0])

		// A response of the same generation leaves the key.
		tab.Evaluate(`auth.refresh({ force: true }).then(() => "")`)
		tab.Evaluate(`auth.refresh({ force: true }).then(() => "")`)
		s.expire()
		require.Equal(t, "ada", tab.Evaluate("who()"))
		kept := s.refreshes("Refresh-Key")
		require.Equal(t, kept[0], digestOf(kept[1]))
		require.Equal(t, kept[1], kept[2])
		require.Zero(t, s.counted(auth.EventFault))
		require.Zero(t, s.counted(auth.EventReuse))
		tab.Close()
	}
}

// testKeyIsKeptIfTheResponseIsLate moves the clock of the page while a
// request is on its way: another tab may have created the key for a later token.
func testKeyIsKeptIfTheResponseIsLate(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	tab := s.open(browser, "", `{ const now = Date.now; window.ahead = 0; Date.now = () => now() + ahead; }`)
	login(tab)
	s.expire()
	var moved atomic.Bool
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/auth/refresh" && moved.CompareAndSwap(false, true) {
			tab.Evaluate(`ahead = 31000; ""`)
		}
		next.ServeHTTP(w, r)
	})
	require.Equal(t, "ada", tab.Evaluate("who()"))
	s.expire()
	require.Equal(t, "ada", tab.Evaluate("who()"))
	keys := s.refreshes("Refresh-Key")
	require.Len(t, keys, 2)
	require.Equal(t, keys[0], digestOf(keys[1]))
}

func testGivesUpARefreshAfterTheWindow(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{RetryWindow: 2 * time.Second})
	tab := s.open(browser, "", "")
	login(tab)
	s.expire()
	var held atomic.Int64
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/auth/refresh" && held.Add(1) == 1 {
			<-r.Context().Done() // the client has given up
			return
		}
		next.ServeHTTP(w, r)
	})
	require.Equal(t, "ada", tab.Evaluate("who()"))
	require.Greater(t, held.Load(), int64(1))
}

func testRepeatsRequestsWhoseBodyItCanSendAgain(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	var bodies []string
	mux := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/api/echo" {
			next.ServeHTTP(w, r)
			return
		}
		s.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, r.Method+" "+string(b))
		})).ServeHTTP(w, r)
	}
	s.intercept(mux)
	tab := s.open(browser, "", "")
	login(tab)
	for _, request := range []string{
		`"/api/echo", { method: "POST", body: "text" }`,
		`new URL("/api/echo", location), { method: "PUT", body: new Blob(["text"]) }`,
		`new Request("/api/echo", { method: "POST", body: "text" })`,
		`new Request("/api/echo", { method: "POST", body: new Blob(["te", "xt"]) })`,
		`new Request("/api/echo", { method: "POST", body: "x" }), { body: "text" }`,
	} {
		s.expire()
		bodies = nil
		require.Equal(t, "200", tab.Evaluate(`auth.fetch(`+request+`).then((r) => "" + r.status)`), request)
		require.Len(t, bodies, 1, request)
		require.Contains(t, []string{"POST text", "PUT text"}, bodies[0], request)
	}
	s.expire()
	require.Equal(t, "200", tab.Evaluate(`{ const f = new FormData(); f.set("a", "text"); auth.fetch("/api/echo", { method: "POST", body: f }).then((r) => "" + r.status) }`))
	require.Contains(t, bodies[len(bodies)-1], "text")
}

func testRepeatsOnlyWhatTheServerHasNotDone(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	var sent atomic.Int64
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch r.URL.Path {
		case "/library":
			if sent.Add(1) < 3 {
				auth.DefaultOnError(w, r, auth.ErrUnavailable)
			}
		case "/outage":
			sent.Add(1)
			auth.DefaultOnError(w, r, auth.ErrUnavailable)
		case "/null":
			sent.Add(1)
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte("null"))
		case "/other":
			sent.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			next.ServeHTTP(w, r)
		}
	})
	tab := s.open(browser, "", "")
	for _, tt := range []struct {
		request, status string
		sent            int64
	}{
		{`"/library", { method: "POST", body: "x" }`, "200", 3},
		{`"/outage"`, "503", 3},
		{`"/other"`, "503", 3},
		{`"/other", { method: "POST" }`, "503", 1}, // may have been carried out
		{`"/null"`, "400", 1},
	} {
		sent.Store(0)
		require.Equal(t, tt.status, tab.Evaluate(`auth.fetch(`+tt.request+`).then((r) => "" + r.status)`), tt.request)
		require.Equal(t, tt.sent, sent.Load(), tt.request)
	}
}

// testOutageSignsNobodyOut: refreshes get 503, as do all requests to a
// server whose store is down.
func testOutageSignsNobodyOut(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, query := range []string{"", "?body"} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		tab := s.open(browser, query, "")
		login(tab)
		s.expire()
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path == "/auth/refresh" {
				auth.DefaultOnError(w, r, auth.ErrUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
		require.Equal(t, "503", tab.Evaluate(`auth.fetch("/api/me").then((r) => "" + r.status)`))
		require.Equal(t, 3, s.sent("/auth/refresh"))
		s.intercept(nil)
		require.Equal(t, "ada", tab.Evaluate("who()"))
		require.Empty(t, seen(tab, "signed-out", "reason", 0))
		tab.Close()
	}
}

func testSendsNothingToOtherOrigins(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	headers := make(chan http.Header, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Allow-Headers", "*, Authorization, Refresh-Token")
		if r.Method != http.MethodOptions {
			headers <- r.Header.Clone()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_token","action":"` + r.URL.Query().Get("action") + `"}`))
		}
	}))
	t.Cleanup(other.Close)
	for _, query := range []string{"", "?body"} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch r.URL.Path {
			case "/":
				w.Header().Set("Content-Type", "text/html")
				_, _ = w.Write([]byte(page))
			case "/away":
				http.Redirect(w, r, other.URL+"/?action=login", http.StatusTemporaryRedirect)
			default:
				next.ServeHTTP(w, r)
			}
		})
		tab := s.open(browser, query, "")
		login(tab)
		s.expire()
		for _, url := range []string{other.URL + "/?action=refresh", other.URL + "/?action=login", "/away"} {
			require.Contains(t, []string{"401", "TypeError"}, tab.Evaluate(`auth.fetch("`+url+`").then((r) => "" + r.status, (e) => e.name)`), url)
			select {
			case h := <-headers:
				require.Empty(t, h["Authorization"], url)
				require.Empty(t, h["Refresh-Token"], url)
				if url != "/away" { // cookies do not depend on the port: the browser sends those of this host
					require.Empty(t, h["Cookie"], url)
				}
			default:
				require.Equal(t, "/away", url)
			}
		}
		require.Zero(t, s.sent("/auth/refresh"))
		require.Empty(t, seen(tab, "signed-out", "reason", 0), "the answer of another origin says nothing about this session")
		require.Equal(t, "ada", tab.Evaluate("who()"))
		tab.Close()
	}
}

func testWorksWithoutWhatBrowsersMayLack(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	const (
		noDatabase = `Object.defineProperty(window, "indexedDB", { get() { throw new DOMException("denied", "SecurityError"); } });`
		badOpen    = `IDBFactory.prototype.open = function () { throw new DOMException("denied", "SecurityError"); };`
		hangs      = `IDBFactory.prototype.open = function () { return {}; }; { const f = setTimeout; window.setTimeout = (g, ms) => f(g, ms === 5000 ? 50 : ms); }`
		noLocks    = `Object.defineProperty(navigator, "locks", { value: undefined });`
		badLocks   = `LockManager.prototype.request = async () => { throw new DOMException("denied", "SecurityError"); };`
		noChannel  = `window.BroadcastChannel = undefined;`
		noSubtle   = `Object.defineProperty(crypto, "subtle", { value: undefined });`
	)
	for _, tt := range []struct {
		name, query, setup string
		key                string // pattern
	}{
		{"no database", "", noDatabase, `^$`},
		{"database refuses", "", badOpen, `^$`},
		{"database hangs", "", hangs, `^$`},
		{"no database, body", "?body", noDatabase, `^sha256=[\w-]{43}$`},
		{"no locks", "", noLocks, `^sha256=[\w-]{43}$`},
		{"locks refuse", "", badLocks, `^sha256=[\w-]{43}$`},
		{"no channel", "", noChannel, `^sha256=[\w-]{43}$`},
		{"no digest", "", noSubtle, `^[\w-]{43}$`},
		{"nothing", "", noDatabase + noLocks + noChannel + noSubtle, `^$`},
	} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser)
		tab := s.open(browser, tt.query, tt.setup)
		require.Equal(t, "200", login(tab), tt.name)
		for range 2 {
			s.expire()
			require.Equal(t, "ada", tab.Evaluate("who()"), tt.name)
		}
		require.Equal(t, 2, s.counted(auth.EventRefresh), tt.name)
		for _, key := range s.refreshes("Refresh-Key") {
			require.Regexp(t, tt.key, key, tt.name)
		}
		require.Equal(t, "204", tab.Evaluate(`auth.logout().then((r) => "" + r.status)`), tt.name)
		require.Equal(t, []string{"logout"}, seen(tab, "signed-out", "reason", 1), tt.name)
		require.Zero(t, s.counted(auth.EventFault), tt.name)
		tab.Close()
	}
}

// testOrphanedLockDelaysOnly: another page holds the lock and never releases it.
func testOrphanedLockDelaysOnly(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	holder := s.open(browser, "", "")
	login(holder)
	s.expire()
	holder.Evaluate(`new Promise((held) => navigator.locks.request("auth:" + location.origin + "/auth/", () => { held(""); return new Promise(() => {}); }))`)
	tab := s.open(browser, "", "")
	require.Equal(t, "ada", tab.Evaluate("who()"))
	require.Equal(t, 1, s.sent("/auth/refresh"))
}

// testLateRefusalOfAnOldSession: a request with the cookies of a session that
// has ended is refused after another tab has signed in again.
func testLateRefusalOfAnOldSession(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, query := range []string{"", "?body"} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		first, second := s.open(browser, query, ""), s.open(browser, query, "")
		login(first)
		require.Len(t, seen(second, "signed-in", "session_id", 1), 1)
		arrived, release := make(chan struct{}), make(chan struct{})
		var held atomic.Bool
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path == "/api/me" && held.CompareAndSwap(false, true) {
				close(arrived)
				<-release
			}
			next.ServeHTTP(w, r)
		})
		names := make(chan string)
		go func() { names <- first.Evaluate("who()") }()
		<-arrived
		require.NoError(t, s.RevokeAll(t.Context(), "ada"))
		s.Clock.Advance(time.Second)
		require.Equal(t, "200", login(second))
		close(release)
		require.Equal(t, "ada", <-names)
		require.Empty(t, seen(first, "signed-out", "reason", 0))
		first.Close()
		second.Close()
	}
}

func testStepUpIsNoSignOut(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch r.URL.Path {
		case "/recent":
			s.Require(auth.Fresh(time.Minute))(next).ServeHTTP(w, r)
		case "/confirm":
			s.WriteError(w, r, auth.ErrInvalidCredentials)
		case "/own": // an error of the application
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"session_over","action":"login"}`))
		default:
			next.ServeHTTP(w, r)
		}
	})
	tab := s.open(browser, "", "")
	login(tab)
	s.Clock.Advance(2 * time.Minute)
	for _, path := range []string{"/recent", "/confirm"} {
		require.Equal(t, "401 login", tab.Evaluate(`auth.fetch("`+path+`").then(async (r) => r.status + " " + (await r.json()).action)`), path)
	}
	require.Empty(t, seen(tab, "signed-out", "reason", 0))
	require.Equal(t, "ada", tab.Evaluate("who()"))
	tab.Evaluate(`auth.fetch("/own").then(() => "")`)
	require.Equal(t, []string{"session_over"}, seen(tab, "signed-out", "error", 1), "any other error with this action ends it")
}

// testLoginWithoutTokensIsNoLogin loses the body of the response to a login, or gets
// that of a proxy.
func testLoginWithoutTokensIsNoLogin(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, lost := range []bool{false, true} {
		s := newSite(t, auth.Config{})
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch {
			case r.URL.Path != "/auth/login":
				next.ServeHTTP(w, r)
			case lost:
				response := httptest.NewRecorder()
				next.ServeHTTP(response, r)
				drop(w, response, true)
			default:
				_, _ = w.Write([]byte("<p>Welcome to this network"))
			}
		})
		tab := s.open(browser, "?body", "")
		require.Equal(t, "Error", tab.Evaluate(`auth.login({ login: "ada", password: "`+pass+`" }).catch((e) => e.name)`))
		require.Empty(t, seen(tab, "signed-in", "session_id", 0))
		tab.Close()
	}
}

type factor struct{}

func (factor) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return []string{"otp"}, nil
}

func (factor) Verify(_ context.Context, _ auth.User, _, response string) error {
	if response != "123456" {
		return auth.ErrInvalidCredentials
	}
	return nil
}

func testLoginShowsErrorsAndTheSecondFactor(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{SecondFactor: factor{}})
	tab := s.open(browser, "", "")
	answer := func(js string) string {
		return tab.Evaluate(js + `.then(async (r) => { const d = await r.json(); return [r.status, d.error, d.action, r.headers.get("Retry-After")].join(" "); })`)
	}
	const right = `auth.login({ login: "ada", password: "` + pass + `", remember: false })`
	require.Equal(t, "401 factor_required factor ", answer(right))
	require.Equal(t, "401 invalid_credentials factor ", answer(`auth.factor({ method: "otp", response: "000000" })`))
	for _, refuse := range []error{auth.ErrUnavailable, auth.ErrThrottled} { // the client keeps the challenge
		s.intercept(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { s.WriteError(w, r, refuse) })
		require.Regexp(t, `^(503 temporarily_unavailable|429 too_many_attempts) `, answer(`auth.factor({ method: "otp", response: "123456" })`))
	}
	s.intercept(nil)
	require.Equal(t, "200   ", answer(`auth.factor({ method: "otp", response: "123456" })`))
	require.Len(t, seen(tab, "signed-in", "session_id", 1), 1)
	require.Equal(t, "ada", tab.Evaluate("who()"))

	form := `((f) => { for (const [k, v] of Object.entries({ login: "ada", password: "wrong", remember: "on" })) f.set(k, v); return auth.login(f); })(new FormData())`
	for range 5 {
		require.Equal(t, "401 invalid_credentials login ", answer(form))
	}
	require.Regexp(t, `^429 too_many_attempts  [1-9]$`, answer(form))
	require.Empty(t, seen(tab, "signed-out", "reason", 0), "a login that fails ends no session")
}

func testRefreshesAheadOfTheExpiry(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{AccessTTL: 1500 * time.Millisecond, Leeway: time.Millisecond})
	tabs := []exampletest.Tab{s.open(browser, "", ""), s.open(browser, "", "")}
	login(tabs[0])
	for _, tab := range tabs {
		require.Len(t, seen(tab, "refreshed", "expires_in", 1), 1)
	}
	require.Zero(t, s.sent("/api/me"))

	// A page that is opened later knows the expiry too.
	for _, tab := range tabs {
		tab.Close()
	}
	later := s.open(browser, "", "")
	require.NotEmpty(t, seen(later, "refreshed", "expires_in", 1))
	later.Close()

	// The server may tell it, for example after a login by a form.
	s = newSite(t, auth.Config{})
	clearCookies(t, browser)
	later = s.open(browser, "", "")
	login(later)
	told := s.open(browser, "", `window.options = { expiresIn: 1 };`)
	require.Equal(t, []string{"false"}, seen(told, "refreshed", "otherTab", 1))
}

// testTokensOfBodiesAreSavedBeforeTheyAreUsed makes the database fail when it
// would store the tokens of a refresh.
func testTokensOfBodiesAreSavedBeforeTheyAreUsed(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	tab := s.open(browser, "?body", `{ const put = IDBObjectStore.prototype.put;
		IDBObjectStore.prototype.put = function (v, k) { if (window.full && v.n > full) return this.transaction.abort(); return put.call(this, v, k); }; }`)
	login(tab)
	require.Equal(t, "body", tab.Evaluate(`document.cookie + "body"`))
	s.expire()
	tokens := s.refreshes("Refresh-Token")
	require.Empty(t, tokens)
	require.Equal(t, "Error", tab.Evaluate(`(window.full = 1, who().catch((e) => e.name))`))
	first := s.refreshes("Refresh-Token")
	require.Len(t, first, 1)
	s.Clock.Advance(time.Hour)
	require.Equal(t, "ada", tab.Evaluate(`(window.full = 0, who())`))
	require.Equal(t, first, s.refreshes("Refresh-Token"), "the old token is still the stored one")
	require.Equal(t, 1, s.counted(auth.EventLateRetry))
	s.expire()
	require.Equal(t, "ada", tab.Evaluate("who()"))
	require.NotEqual(t, first, s.refreshes("Refresh-Token"))
}

// testLateResponseDoesNotReplaceNewerTokens: the response to a refresh comes
// after another tab has refreshed, and after it has signed in as somebody else.
func testLateResponseDoesNotReplaceNewerTokens(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	first, second := s.open(browser, "?body", withoutLocks), s.open(browser, "?body", withoutLocks)
	login(first)
	s.expire()
	release := make(chan struct{})
	held := make(chan struct{})
	var once atomic.Bool
	s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/auth/refresh" || !once.CompareAndSwap(false, true) {
			next.ServeHTTP(w, r)
			return
		}
		response := httptest.NewRecorder()
		next.ServeHTTP(response, r)
		close(held)
		<-release
		for name, values := range response.Header() {
			w.Header()[name] = values
		}
		_, _ = w.Write(response.Body.Bytes())
	})
	names := make(chan string)
	go func() { names <- first.Evaluate("who()") }()
	<-held
	require.Equal(t, "200", login(second))
	stored := func() (token string) {
		text := second.Evaluate(`new Promise((done) => { const o = indexedDB.open("auth-body:" + location.origin + "/auth/");
			o.onsuccess = () => { const g = o.result.transaction("s").objectStore("s").get(0); g.onsuccess = () => { o.result.close(); done(JSON.stringify(g.result)); }; }; })`)
		var record struct{ T string }
		require.NoError(t, json.Unmarshal([]byte(text), &record))
		return record.T
	}
	before := stored()
	require.True(t, strings.HasPrefix(before, "eyJ"))
	close(release)
	require.Equal(t, "ada", <-names)
	require.Equal(t, before, stored())
}

// testLateResponseDoesNotUndoASignOut: the response to a refresh comes after another
// tab has signed out, and perhaps in again.
func testLateResponseDoesNotUndoASignOut(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	for _, test := range []struct {
		query    string
		sessions int
	}{{"", 1}, {"", 2}, {"?body", 1}, {"?body", 2}} {
		query := test.query
		s := newSite(t, auth.Config{})
		clearCookies(t, browser) // those of the site before: cookies do not depend on the port
		first, second := s.open(browser, query, ""), s.open(browser, query, "")
		login(first)
		require.Len(t, seen(second, "signed-in", "session_id", 1), 1)
		release, held := make(chan struct{}), make(chan struct{})
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path != "/auth/refresh" {
				next.ServeHTTP(w, r)
				return
			}
			response := httptest.NewRecorder()
			next.ServeHTTP(response, r)
			close(held)
			<-release
			w.WriteHeader(response.Code)
			_, _ = w.Write(response.Body.Bytes())
		})
		status := make(chan string)
		go func() { status <- first.Evaluate(`auth.refresh().then((r) => "" + r.status)`) }()
		<-held
		require.Equal(t, "204", second.Evaluate(`auth.logout().then((r) => "" + r.status)`))
		require.Equal(t, []string{"logout"}, seen(first, "signed-out", "reason", 1))
		if test.sessions == 2 {
			login(second)
			require.Len(t, seen(first, "signed-in", "session_id", 2), 2)
		}
		close(release)
		require.Equal(t, "200", <-status)
		require.Empty(t, seen(first, "refreshed", "otherTab", 0), test)
		require.Len(t, seen(first, "signed-in", "session_id", test.sessions), test.sessions, test)
		first.Close()
		second.Close()
	}
}

// testAbortDoesNotWaitForTheRefresh aborts a request while a refresh for it is on
// its way: the refresh goes on.
func testAbortDoesNotWaitForTheRefresh(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	tab := s.open(browser, "", "")
	login(tab)
	for _, request := range []string{`"/api/me", { signal: c.signal }`, `new Request("/api/me", { signal: c.signal })`} {
		s.expire()
		held, done := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(done) })
		defer release()
		s.intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path == "/auth/refresh" {
				close(held)
				<-done
			}
			next.ServeHTTP(w, r)
		})
		result := make(chan string)
		go func() {
			result <- tab.Evaluate(`(window.c = new AbortController(), Promise.race([auth.fetch(` + request + `).catch((e) => e.name), new Promise((done) => setTimeout(done, 5000, "waits"))]))`)
		}()
		<-held
		tab.Evaluate(`(c.abort(), "")`)
		require.Equal(t, "AbortError", <-result, request)
		release()
		s.intercept(nil)
		require.Equal(t, "ada", tab.Evaluate("who()"))
	}
	require.Equal(t, 2, s.sent("/auth/refresh"))
}

// testStreamIsNotSentAgain replaces fetch, because Chromium sends streams by
// HTTP/2 only.
func testStreamIsNotSentAgain(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	tab := s.open(browser, "", `{ const real = fetch; window.sent = 0; window.fetch = (r, i) => r.url?.endsWith("/stream")
		? (sent++, Promise.resolve(Response.json({ error: "invalid_token", action: "refresh" }, { status: 401 }))) : real(r, i); }`)
	login(tab)
	require.Equal(t, "401 1", tab.Evaluate(`auth.fetch("/stream", { method: "POST", duplex: "half", body: new ReadableStream() }).then((r) => r.status + " " + sent)`))
	require.Equal(t, 1, s.sent("/auth/refresh"), "the next request has a token that is valid")
	require.Equal(t, "401 4", tab.Evaluate(`auth.fetch("/stream", { method: "POST", body: "text" }).then((r) => r.status + " " + sent)`), "a text is")
}

// testHiddenPageRefreshesWhenItIsShown runs the timer by hand.
func testHiddenPageRefreshesWhenItIsShown(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	tab := s.open(browser, "", `{ const f = setTimeout; window.setTimeout = (g, ms) => { if (ms > 100000) window.tick = g; else return f(g, ms); };
		window.hide = true; Object.defineProperty(document, "hidden", { get: () => hide }); }`)
	login(tab)
	tab.Evaluate(`(async () => { await tick(); return ""; })()`)
	require.Zero(t, s.sent("/auth/refresh"))
	tab.Evaluate(`(hide = false, document.dispatchEvent(new Event("visibilitychange")), "")`)
	require.Len(t, seen(tab, "refreshed", "expires_in", 1), 1)
}

// testKnowsWhyAnotherTabSignedOut asks the server after another tab has signed
// out, and before it tells this one: the cookies, which say which session it was, are
// gone.
func testKnowsWhyAnotherTabSignedOut(t *testing.T, browser exampletest.Tab) {
	t.Helper()
	s := newSite(t, auth.Config{})
	first := s.open(browser, "", `{ const post = BroadcastChannel.prototype.postMessage;
		BroadcastChannel.prototype.postMessage = function (m) { setTimeout(() => post.call(this, m), m.type === "signed-out" ? 100 : 0); }; }`)
	second := s.open(browser, "", "")
	login(first)
	require.Len(t, seen(second, "signed-in", "session_id", 1), 1)
	first.Evaluate(`auth.logout().then(() => "")`)
	require.Equal(t, "nobody", second.Evaluate("who()"))
	require.Equal(t, []string{"logout"}, seen(second, "signed-out", "reason", 1))
}
