package browsers

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// store is a script that stores something of every kind that the origin may use,
// and stored returns what there is of it.
const (
	store = `(async () => {
		localStorage.setItem("a", "b")
		sessionStorage.setItem("a", "b")
		await new Promise((done) => { indexedDB.open("a").onsuccess = (e) => { e.target.result.close(); done() } })
		if (isSecureContext) {
			await (await caches.open("a")).put("/note", new Response("b"))
			await navigator.serviceWorker.register("/worker.js")
			await navigator.serviceWorker.ready
		}
		return (await fetch("/cached")).text()
	})()`
	stored = `(async () => JSON.stringify({
		local: localStorage.length, session: sessionStorage.length, databases: (await indexedDB.databases()).length,
		caches: isSecureContext ? (await caches.keys()).length : 0, workers: isSecureContext ? (await navigator.serviceWorker.getRegistrations()).length : 0,
	}))()`
)

func TestBrowser_ClearSiteDataAtALogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	add := func(host string, cookies auth.Cookies) *app {
		a := w.add(t, host, cookies, func(c *auth.Config) {
			if cookies.InsecureHTTP {
				c.Issuer = "http://" + host
			}
		})
		if cookies.InsecureHTTP {
			a.origin = "http://" + host + ":" + w.plain
		}
		var loads atomic.Int64
		a.mux.HandleFunc("/cached", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Cache-Control", "max-age=3600")
			_, _ = fmt.Fprint(rw, loads.Add(1))
		})
		a.mux.HandleFunc("/worker.js", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/javascript")
		})
		return a
	}
	clears, keeps := add("app.example.test", auth.Cookies{ClearSiteData: true}), add("keeps.example.test", auth.Cookies{})
	sibling := add("sibling.example.test", auth.Cookies{})
	local, plain := add("localhost", auth.Cookies{ClearSiteData: true, InsecureHTTP: true}), add("plain.example.test", auth.Cookies{ClearSiteData: true, InsecureHTTP: true})
	const (
		all      = `{"local":1,"session":1,"databases":1,"caches":1,"workers":1}`
		none     = `{"local":0,"session":0,"databases":0,"caches":0,"workers":0}`
		insecure = `{"local":1,"session":1,"databases":1,"caches":0,"workers":0}`
	)
	fetch := func(method, path string) func(page) {
		return func(p page) {
			require.Equal(t, "204", p.run(fmt.Sprintf(`fetch(%q, {method: %q}).then((r) => "" + r.status)`, path, method)))
		}
	}
	for _, tt := range []struct {
		name   string
		app    *app
		logout func(page)
		left   string
	}{
		{"logout", clears, fetch("POST", "/auth/logout"), none},
		{"form", clears, func(p page) {
			p.run(`document.body.innerHTML = '<form method="post" action="/auth/logout"><input name="next" value="/page"><button>Sign out</button></form>'`)
			p.click("button")
		}, none},
		{"logout all", clears, fetch("POST", "/auth/logout/all"), none},
		{"not set", keeps, fetch("POST", "/auth/logout"), all},
		{"http on a loopback host", local, fetch("POST", "/auth/logout"), none},
		{"http on another host", plain, fetch("POST", "/auth/logout"), insecure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := w.open(t)
			p.visit(sibling.origin + "/page")
			p.run(store)
			p.signIn(tt.app, "ada")
			p.run(`fetch("/set?" + new URLSearchParams({cookie: "known=1; Path=/; HttpOnly; Max-Age=1000"})).then(() => "")`)
			p.run(`document.cookie = "site=1" + (location.hostname === "localhost" ? "" : "; Domain=example.test")`)
			first := p.run(store)
			if tt.app == local { // Chromium does not cache responses with the certificate of this test
				require.Equal(t, first, p.run(`fetch("/cached").then((r) => r.text())`))
			}
			tt.logout(p)
			p.visit(tt.app.origin + "/page")
			require.Equal(t, tt.left, p.run(stored))
			if tt.app == local {
				require.NotEqual(t, first, p.run(`fetch("/cached").then((r) => r.text())`), "the HTTP cache")
			}
			cookies := p.answers(tt.app, "GET /cookies")
			require.Contains(t, cookies, "known=1")
			require.Contains(t, cookies, "site=1")
			p.visit(sibling.origin + "/page")
			require.Equal(t, all, p.run(stored), "another origin")
		})
	}
}
