// This file plays the contract with cookies in a browser.

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
)

// script is the script of a page that was written for the article.
const script = `
const call = async (method, path, body) => {
	const response = await fetch(API + path, {
		method, credentials: "include",
		headers: body ? {"Content-Type": "application/json"} : {}, body: body && JSON.stringify(body),
	})
	return response.status + " " + (await response.text()).trim()
}
`

// journey opens the page in a Chromium that blocks third-party cookies, and
// returns the responses to a sign-in, a call, a call after the access token has
// expired, a refresh, and another call.
func journey(t *testing.T, p *program, page, api string) (responses []string) {
	t.Helper()
	profile := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(profile, "Default"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(profile, "Default", "Preferences"),
		[]byte(`{"profile":{"block_third_party_cookies":true,"cookie_controls_mode":1}}`), 0o600))
	tab := exampletest.Chromium(t, chromedp.UserDataDir(profile))
	tab.Do(chromedp.Navigate(page))
	call := func(js string) {
		t.Helper()
		responses = append(responses, tab.Evaluate("API = "+"'"+api+"';"+js))
	}
	call(`call("POST", "/api/v1/auth/login", {login_id: "ada", password: "` + demoPassword + `"})`)
	call(`call("GET", "/api/v1/user/me")`)
	p.clock.Advance(15 * time.Minute)
	call(`call("GET", "/api/v1/user/me")`)
	call(`call("POST", "/api/v1/auth/refresh")`)
	call(`call("GET", "/api/v1/user/me")`)
	call(`"document.cookie: " + document.cookie`)
	return responses
}

func TestBrowser_KeepsTheCookiesWhenThirdPartyCookiesAreBlocked(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>page</title><script>let API;" + script + "</script>"))
	}))
	t.Cleanup(server.Close)
	page := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // like the default origin

	p := start(t, "-origin", page)
	const me = `200 {"userId":"1001","username":"ada","user_role":"admin"}`
	require.Equal(t, []string{
		`200 {"message":"Login successful"}`, me,
		`401 {"error":"the token has expired"}`, `200 ` + refreshed, me, "document.cookie: ",
	}, journey(t, p, page, p.url))

	// This shows that the browser blocks: it does not keep the cookies of another site.
	p = start(t, "-origin", page)
	const none = `401 {"error":"no access token in the header Authorization (Bearer) or the cookie accessToken"}`
	require.Equal(t, []string{
		`200 {"message":"Login successful"}`, none,
		none, `400 {"error":"Refresh token not provided"}`, none, "document.cookie: ",
	}, journey(t, p, page, strings.Replace(p.url, "localhost", "127.0.0.1", 1)))
}
