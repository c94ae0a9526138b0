package browsers

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rs/cors"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// column is a request that a page of another origin tries to send.
type column struct {
	name string
	make func(t *testing.T, a *app, session string) (path string, fields map[string]string)
}

// tokens are new tokens of mallory, who attacks.
func tokens(t *testing.T, a *app) auth.Tokens {
	t.Helper()
	k, err := a.StartSession(t.Context(), "id-mallory", auth.SessionOptions{InBody: true})
	require.NoError(t, err)
	return k
}

var columns = []column{
	{"login", func(*testing.T, *app, string) (string, map[string]string) {
		return "/auth/login", map[string]string{"login": "mallory", "password": pass}
	}},
	{"login in body", func(*testing.T, *app, string) (string, map[string]string) {
		return "/auth/login", map[string]string{"login": "mallory", "password": pass, "delivery": "body"}
	}},
	{"factor", func(t *testing.T, a *app, _ string) (string, map[string]string) {
		t.Helper()
		_, err := a.Login(t.Context(), "otto", pass, auth.SessionOptions{})
		var factor *auth.FactorError
		require.ErrorAs(t, err, &factor)
		return "/auth/login/factor", map[string]string{"challenge": factor.Challenge, "method": "otp", "response": "123456"}
	}},
	{"refresh", func(*testing.T, *app, string) (string, map[string]string) { return "/auth/refresh", nil }},
	{"refresh own", func(t *testing.T, a *app, _ string) (string, map[string]string) {
		t.Helper()
		return "/auth/refresh", map[string]string{"refresh_token": tokens(t, a).Refresh}
	}},
	{"logout", func(*testing.T, *app, string) (string, map[string]string) { return "/auth/logout", nil }},
	{"logout own", func(t *testing.T, a *app, _ string) (string, map[string]string) {
		t.Helper()
		return "/auth/logout", map[string]string{"refresh_token": tokens(t, a).Refresh}
	}},
	{"logout all", func(*testing.T, *app, string) (string, map[string]string) { return "/auth/logout/all", nil }},
	{"password", func(*testing.T, *app, string) (string, map[string]string) {
		return "/auth/password", map[string]string{"current_password": pass, "new_password": "another " + pass}
	}},
	{"session", func(_ *testing.T, _ *app, session string) (string, map[string]string) {
		return "/auth/sessions/" + session, nil
	}},
	{"note", func(*testing.T, *app, string) (string, map[string]string) {
		return "/note", map[string]string{"text": "x"}
	}},
	{"optional", func(*testing.T, *app, string) (string, map[string]string) {
		return "/optional", map[string]string{"text": "x"}
	}},
}

// kinds are the ways to send a request, with the columns that they are tried for:
// all of them, or those that depend on the body, or those of the application.
var (
	all     = []string{"login", "login in body", "factor", "refresh", "refresh own", "logout", "logout own", "logout all", "password", "session", "note", "optional"}
	bodies  = []string{"login", "factor", "refresh own", "logout own", "password", "note"}
	effects = []string{"login", "refresh", "logout", "logout all", "note"}
	pages   = []string{"note", "optional"}
	kinds   = map[string][]string{
		"form": all, "form, multipart": bodies, "form, text/plain": bodies, "form in a window": effects,
		"fetch": all, "fetch, text/plain": bodies, "fetch, no type": bodies, "fetch, CORS": effects, "fetch, CORS, JSON": all, "fetch, CORS, DELETE": all,
		"beacon": effects, "WebSocket": pages, "EventSource": pages, "image": effects, "frame": effects, "link": effects,
	}
)

// share lets scripts of an origin send requests and read the responses.
func share(origin string) func(http.Handler) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins: []string{origin}, AllowCredentials: true,
		AllowedMethods: []string{"GET", "POST", "DELETE"}, AllowedHeaders: []string{"Content-Type"},
	}).Handler
}

// sessionsOf returns the sessions of a user, as the store has them.
func sessionsOf(t *testing.T, a *app, name string) string {
	t.Helper()
	list, err := a.Sessions(t.Context(), "id-"+name)
	require.NoError(t, err)
	return fmt.Sprint(list)
}

var everyKind = []string{
	"form", "form, multipart", "form, text/plain", "form in a window", "fetch", "fetch, text/plain", "fetch, no type", "fetch, CORS",
	"fetch, CORS, JSON", "fetch, CORS, DELETE", "beacon", "WebSocket", "EventSource", "image", "frame", "link",
}

var someKinds = []string{"form", "fetch", "fetch, CORS, JSON", "WebSocket", "EventSource", "link"}

// TestBrowser_RequestsOfOtherOriginsChangeNothing sends every request that needs a
// defense from pages of other origins, while a user is signed in. The file
// testdata/requests.txt has the status of each response, with + if the browser has
// sent the cookies; "blocked" means that the browser has not sent the request.
func TestBrowser_RequestsOfOtherOriginsChangeNothing(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("skipped without AUTH_LONG=1: takes ten seconds or more")
	}
	t.Parallel()
	w := newWorld(t)
	trusted := w.https("app.trusted.example")
	lax := w.add(t, "app.example.test", auth.Cookies{AllowBody: true, TrustedOrigins: []string{trusted}})
	none := w.add(t, "none.example.test", auth.Cookies{AllowBody: true, TrustedOrigins: []string{trusted}, SameSite: http.SameSiteNoneMode})
	lax.wrap, none.wrap = share(trusted), share(trusted)
	evil, sibling := w.https("evil.example"), w.https("sibling.example.test")

	p := w.openShared(t)
	sessions := map[*app]string{}
	for _, a := range []*app{lax, none} {
		p.signIn(a, "ada")
		list, err := a.Sessions(t.Context(), "id-ada")
		require.NoError(t, err)
		require.Len(t, list, 1)
		sessions[a] = list[0].ID
	}
	recorded := requests(t)
	for _, tt := range []struct {
		name  string
		app   *app
		page  string // the origin of the page
		send  string // the function of attack.js
		kinds []string
		hop   string // an origin that redirects the request, or ""
	}{
		{"Lax, another site", lax, evil, "send", everyKind, ""},
		{"Lax, sibling host", lax, sibling, "send", everyKind, ""},
		{"Lax, host below", lax, w.https("sub.app.example.test"), "send", someKinds, ""},
		{"Lax, sibling over http", lax, "http://sibling.example.test:" + w.plain, "send", someKinds, ""},
		{"Lax, sandboxed frame of the application", lax, lax.origin, "inSandbox", someKinds, ""},
		{"Lax, the application by way of another site", lax, lax.origin, "send", someKinds, evil},
		{"None, another site", none, evil, "send", everyKind, ""},
		{"None, sandboxed frame", none, evil, "inSandbox", someKinds, ""},
		{"None, data: URL", none, evil, "inData", someKinds, ""},
		{"None, another site by way of a third", none, evil, "send", someKinds, w.https("third.example")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := p.in(t)
			p.visit(tt.page + "/page")
			state := func() string { return sessionsOf(t, tt.app, "ada") + tt.app.users.hash("id-ada") }
			jar, before := p.jar(), state()
			require.NotEmpty(t, jar)
			for _, kind := range tt.kinds {
				got := w.table(p, tt.app, sessions[tt.app], kind, tt.send, tt.hop)
				require.Equal(t, recorded[tt.name+": "+kind], got, "%s: %s: %s", tt.name, kind, got)
				require.Equal(t, before, state(), kind)
			}
			require.Equal(t, jar, p.jar())
		})
	}
	// The user has been signed in all the time.
	for _, a := range []*app{lax, none} {
		p.visit(a.origin + "/page")
		require.Equal(t, "ada 200", p.run(`(async () => await (await fetch("/note")).text() + " " + (await fetch("/auth/refresh", {method: "POST"})).status)()`))
	}
}

// table sends the columns of a kind, and returns the responses.
func (w *world) table(p page, a *app, session, kind, by, hop string) string {
	p.t.Helper()
	var names []string
	var rows []row
	for _, c := range columns {
		if slices.Contains(kinds[kind], c.name) {
			path, fields := c.make(p.t, a, session)
			names, rows = append(names, c.name), append(rows, w.row(a.origin+path, fields))
		}
	}
	sent := slices.Clone(rows)
	if hop != "" {
		for i := range sent {
			sent[i].URL = hop + "/redirect?to=" + url.QueryEscape(sent[i].URL)
		}
	}
	p.send(by, kind, sent)
	safe := kind == "image" || kind == "frame" || kind == "link"
	var list []string
	columnsOf := map[string][]string{} // by response
	for i, r := range rows {
		got := w.answerTo(r)
		response := got.String()
		if columnsOf[response] == nil {
			list = append(list, response)
		}
		columnsOf[response] = append(columnsOf[response], names[i])
		if got != nil {
			require.Empty(p.t, got.header["Set-Cookie"], "%s: %s", kind, names[i])
			require.True(p.t, got.ran == "" || safe, "%s: %s: the handler ran", kind, names[i])
		}
	}
	if len(list) == 1 && len(names) == len(all) {
		return list[0] + " all"
	}
	for i, response := range list {
		list[i] += " " + strings.Join(columnsOf[response], ", ")
	}
	return strings.Join(list, "; ")
}

// requests returns the lines of testdata/requests.txt.
func requests(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/requests.txt")
	require.NoError(t, err)
	lines, by := map[string]string{}, ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if kind, ok := strings.CutPrefix(line, "  "); ok {
			name, responses, _ := strings.Cut(kind, ": ")
			lines[by+": "+name] = responses
		} else {
			by = line
		}
	}
	return lines
}

// TestBrowser_TheRequestsHaveTheirEffectFromTrustedOrigins shows that the requests
// of the other tests are correct: what is refused there succeeds here.
func TestBrowser_TheRequestsHaveTheirEffectFromTrustedOrigins(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("skipped without AUTH_LONG=1: takes ten seconds or more")
	}
	t.Parallel()
	w := newWorld(t)
	trusted := w.https("app.trusted.example")
	for _, tt := range []struct{ name, host, kind string }{
		{"own origin", "", "fetch"}, {"own origin", "", "form"},
		{"trusted site", "app.trusted.example", "fetch, CORS"}, {"trusted site", "app.trusted.example", "fetch, CORS, JSON"},
	} {
		t.Run(tt.name+", "+tt.kind, func(t *testing.T) {
			host := strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(tt.name+"-"+tt.kind)) + ".example.test"
			a := w.add(t, host, auth.Cookies{TrustedOrigins: []string{trusted}, SameSite: http.SameSiteNoneMode, Partitioned: true, AllowBody: true})
			a.wrap = share(trusted)
			p := w.open(t)
			p.visit(w.https(cmp.Or(tt.host, host)) + "/page")
			for _, c := range columns {
				require.NoError(t, a.users.UpdatePasswordHash(t.Context(), "id-ada", "", a.users.hash("id-mallory")))
				require.Equal(t, "200 200", p.run(fmt.Sprintf(`(async () => {
					const login = await fetch("%s/auth/login", {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"}, body: %q})
					return login.status + " " + (await fetch("%[1]s/note", {credentials: "include"})).status
				})()`, a.origin, `{"login":"ada","password":"`+pass+`"}`)))
				list, err := a.Sessions(t.Context(), "id-ada")
				require.NoError(t, err)
				require.Len(t, list, 1)
				path, fields := c.make(t, a, list[0].ID)
				r, kind := w.row(a.origin+path, fields), tt.kind
				if c.name == "session" {
					kind = "fetch, CORS, DELETE"
				}
				p.send("send", kind, []row{r})
				got := w.answerTo(r)
				require.NotNil(t, got, c.name)
				after, err := a.Sessions(t.Context(), "id-ada")
				require.NoError(t, err)
				switch c.name {
				case "login", "factor", "refresh":
					require.Equal(t, "200+", got.String(), c.name)
					require.NotEmpty(t, got.header["Set-Cookie"])
					require.Equal(t, c.name == "refresh", len(after) == 1, c.name) // a login replaces the session
				case "logout", "logout all", "session", "logout own":
					status := "204+"
					if tt.kind == "form" && c.name != "session" {
						status = "303+"
					}
					require.Equal(t, status, got.String(), c.name)
					require.Contains(t, strings.Join(got.header["Set-Cookie"], ""), "Max-Age=0")
					require.Empty(t, after)
				case "password":
					require.Less(t, got.status, 400)
					require.NotEqual(t, a.users.hash("id-mallory"), a.users.hash("id-ada"))
				case "note", "optional":
					require.Equal(t, "200+ ada", got.String()+" "+got.ran, c.name)
				case "login in body":
					require.Equal(t, "200+", got.String())
				case "refresh own": // of two sessions
					require.Equal(t, "400+", got.String())
				}
			}
			p.run(`fetch("` + a.origin + `/auth/login", {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"}, body: '{"login":"ada","password":"` + pass + `"}'}).then((r) => "" + r.status)`)
			for _, kind := range []string{"WebSocket", "EventSource"} {
				r := w.row(a.origin+"/note", nil)
				p.send("send", kind, []row{r})
				require.Equal(t, "200+ ada", w.answerTo(r).String()+" "+w.answerTo(r).ran, kind)
			}
		})
	}
}
