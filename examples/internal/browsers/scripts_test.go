package browsers

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// seen is a script that collects all that a script of the page can see, and returns
// it as text. Every request goes through a service worker, which adds what it sees.
const seen = `(async (requests) => {
	const all = []
	const add = (...values) => all.push(...values.map((v) => typeof v === "string" ? v : JSON.stringify(v)))
	const worker = await navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready)
	if (!navigator.serviceWorker.controller) await new Promise((done) => { navigator.serviceWorker.oncontrollerchange = done })
	navigator.serviceWorker.addEventListener("message", (e) => add("worker", e.data))
	const surroundings = async () => {
		add(document.cookie, await cookieStore.getAll(), {...localStorage}, {...sessionStorage}, performance.getEntries(), location.href, history.state,
			document.documentElement.outerHTML, document.referrer, window.name, await caches.keys(), await indexedDB.databases())
		worker.active.postMessage("cookies")
	}
	const statuses = []
	for (const [method, path, body] of requests) {
		const r = await fetch(path, {method, body: body && JSON.stringify(body), headers: body ? {"Content-Type": "application/json"} : {}})
		add(r.url, r.type, [...r.headers], await r.text())
		statuses.push(r.status)
		if (r.status !== 200 || method !== "POST") continue
		const x = new XMLHttpRequest()
		x.open("GET", "/note")
		await new Promise((done) => { x.onloadend = done; x.send() })
		add(x.getAllResponseHeaders(), x.responseText, x.getResponseHeader("Set-Cookie") ?? "")
		await surroundings() // with the new cookies
	}
	await surroundings()
	await new Promise((done) => setTimeout(done, 50)) // messages of the worker
	all.push("statuses " + statuses.join(" "))
	return all.join("\n")
})`

// worker is a service worker that tells the page what it sees.
const worker = `
onactivate = (e) => e.waitUntil(clients.claim())
oninstall = () => skipWaiting()
const tell = async (value) => { for (const c of await clients.matchAll({includeUncontrolled: true})) c.postMessage(value) }
onmessage = async (e) => {
	if (e.data === "cookies") return tell(await cookieStore.getAll())
	const result = await cookieStore.set(e.data).then(() => "set", (e) => e.name)
	tell(result)
}
onfetch = (e) => e.respondWith((async () => {
	const r = await fetch(e.request)
	tell([e.request.url, [...e.request.headers], r.url, [...r.headers], await r.clone().text()])
	return r
})())
`

// issued has the tokens that an application sets as cookies.
type issued struct {
	mu     sync.Mutex
	tokens []string
}

func (i *issued) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, line := range w.Header()["Set-Cookie"] {
			if c, err := http.ParseSetCookie(line); err == nil && c.Value != "" {
				i.tokens = append(i.tokens, c.Value)
			}
		}
	})
}

func TestBrowser_ScriptsSeeNoToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var clock struct {
		sync.Mutex
		ahead time.Duration
	}
	a := w.add(t, "app.example.test", auth.Cookies{AllowBody: true}, func(c *auth.Config) {
		c.AutoRefresh = true
		c.OnError = auth.RedirectToLogin("/login")
		c.Now = func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return time.Now().Add(clock.ahead)
		}
	})
	var tokens issued
	a.wrap = tokens.watch
	a.mux.HandleFunc("/worker.js", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/javascript")
		_, _ = rw.Write([]byte(worker))
	})
	a.mux.HandleFunc("/login", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		if r.Method == http.MethodGet {
			_, _ = rw.Write([]byte(`<!doctype html><link rel="icon" href="data:,"><form method="post"><input name="login" value="mallory"><input name="password" value="` + pass + `"><button>Sign in</button></form>`))
			return
		}
		if err := a.LoginForm(rw, r); err != nil {
			a.WriteError(rw, r, err)
			return
		}
		http.Redirect(rw, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	})
	p := w.open(t)
	p.visit(a.origin + "/page")
	ada, wrong := `{login: "ada", password: "`+pass+`"}`, `{login: "ada", password: "wrong"}`
	dump := p.run(seen + `([
		["POST", "/auth/login", ` + wrong + `], ["POST", "/auth/login", ` + ada + `], ["GET", "/note"], ["POST", "/note"], ["GET", "/optional"],
		["POST", "/auth/refresh"], ["POST", "/auth/refresh", {refresh_token: "x"}], ["GET", "/auth/sessions"], ["GET", "/auth/jwks.json"], ["GET", "/auth/unknown"],
		["DELETE", "/auth/sessions/x"], ["GET", "/auth/login"], ["POST", "/auth/password", {current_password: "wrong", new_password: "x"}],
		["POST", "/auth/password", {current_password: "` + pass + `", new_password: "another ` + pass + `"}],
		["POST", "/auth/login", {login: "otto", password: "` + pass + `"}], ["POST", "/auth/logout/all?others=true"], ["POST", "/auth/login", {login: "mallory", password: "` + pass + `"}], ["POST", "/auth/logout"],
		["POST", "/auth/logout"], ["POST", "/auth/refresh"], ["GET", "/note"]])`)
	require.Equal(t, "statuses 401 200 200 200 200 200 200 200 200 404 404 405 403 204 401 204 200 204 204 400 401", dump[strings.LastIndexByte(dump, '\n')+1:])
	require.Contains(t, dump, "worker\n[\""+a.origin+"/auth/login", "the service worker has seen the login")
	// The challenge of a second factor is for the page. It opens no session without
	// the response.
	dump = regexp.MustCompile(`\\*"challenge\\*":\\*"[^"\\]+`).ReplaceAllString(dump, "")

	// Pages: a login form, a page load that refreshes the tokens, and error pages.
	collect := func() {
		t.Helper()
		dump += p.run(seen + `([])`)
	}
	p.visit(a.origin + "/note?x=1") // redirects to the login page
	collect()
	require.Contains(t, p.run(`location.href`), "/login?next=")
	p.click("button")
	require.Equal(t, a.origin+"/note?x=1", p.run(`location.href`))
	collect()
	clock.Lock()
	clock.ahead = time.Hour
	clock.Unlock()
	issuedBefore := len(tokens.tokens)
	p.visit(a.origin + "/note?x=2") // AutoRefresh
	require.Equal(t, "mallory", p.run(`document.body.innerText`))
	collect()
	require.Greater(t, len(tokens.tokens), issuedBefore)
	p.visit(a.origin + "/auth/unknown")
	collect()

	require.Greater(t, len(tokens.tokens), 8)
	for _, token := range tokens.tokens {
		for i, part := range append(strings.Split(token, "."), token) {
			require.NotContains(t, dump, part, "part %d of a token", i)
		}
	}
	require.NotContains(t, dump, "eyJ", "the beginning of a token")
	require.Contains(t, strings.Join(p.jar(), "\n"), "__Host-Http-refresh=eyJ", "the browser has tokens")
}

func TestBrowser_ScriptsCannotSetOrReadTheRefreshCookie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.add(t, "app.example.test", auth.Cookies{})
	a.mux.HandleFunc("/worker.js", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/javascript")
		_, _ = rw.Write([]byte(worker))
	})
	k := tokens(t, a)
	refresh := func(p page) (values []string) { // those that the browser sends
		p.visit(a.origin + "/page")
		for c := range strings.SplitSeq(strings.TrimPrefix(p.answers(a, "GET /cookies"), "200 "), "; ") {
			if strings.Contains(strings.ToLower(c), "refresh") {
				values = append(values, c)
			}
		}
		return values
	}
	overwrite := func(p page) {
		t.Helper()
		for _, origin := range []string{a.origin, "http://app.example.test:" + w.plain} { // over http, by a network attacker
			for _, name := range []string{"__Host-Http-refresh", "__host-http-refresh", "=__Host-Http-refresh"} {
				p.plant(origin, name+"="+k.Refresh+"; Secure; Path=/", name+"="+k.Refresh+"; Path=/", name+"=; Secure; Path=/; Max-Age=0", name+"="+k.Refresh+"; Secure; Path=/auth")
			}
		}
		p.visit(a.origin + "/page")
		for _, cookie := range []string{
			`{name: "__Host-Http-refresh", value: "` + k.Refresh + `"}`, `{name: "__Host-Http-refresh", value: "` + k.Refresh + `", path: "/auth/"}`,
			`{name: "__host-http-refresh", value: "x"}`, `{name: "", value: "__Host-Http-refresh=x"}`, `{name: "__Host-Http-refresh", value: "", expires: 1}`,
		} {
			require.Equal(t, "TypeError TypeError", p.run(`(async () => {
				const byPage = await cookieStore.set(`+cookie+`).then(() => "set", (e) => e.name)
				await navigator.serviceWorker.register("/worker.js")
				const worker = (await navigator.serviceWorker.ready).active
				const byWorker = await new Promise((done) => {
					navigator.serviceWorker.onmessage = (e) => { if (typeof e.data === "string") done(e.data) }
					worker.postMessage(`+cookie+`)
				})
				return byPage + " " + byWorker
			})()`), cookie)
		}
		p.run(`cookieStore.delete("__Host-Http-refresh").then(() => "", () => "")`)
		p.run(`fetch("/note", {headers: {Cookie: "__Host-Http-refresh=x"}}).then(() => "")`)
	}
	p := w.open(t)
	overwrite(p)
	require.Empty(t, refresh(p), "before the login")
	// The prefix of the access cookie does not keep scripts of the page from setting
	// it, unless the user is signed in. The login replaces it.
	setAccess := `document.cookie = "__Host-access=` + k.Access + `; Secure; Path=/"`
	p.run(setAccess)
	require.Equal(t, "200 mallory", p.answers(a, "GET /note"))
	p.signIn(a, "ada")
	p.run(setAccess)
	require.Equal(t, "200 ada", p.answers(a, "GET /note"))
	before := refresh(p)
	require.Len(t, before, 1)
	overwrite(p)
	require.Equal(t, before, refresh(p), "after the login")
	require.Empty(t, p.run(`document.cookie`))
	require.Equal(t, "[]", p.run(`cookieStore.getAll().then(JSON.stringify)`))
	require.Equal(t, "200, 200 ada", p.answers(a, "POST /auth/refresh", "GET /note"))
}
