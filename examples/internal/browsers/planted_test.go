package browsers

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// plant sets cookies from a page of another host: by a script, and by the headers
// of responses.
func (p page) plant(origin string, cookies ...string) {
	p.t.Helper()
	list, err := json.Marshal(cookies)
	require.NoError(p.t, err)
	p.visit(origin + "/page")
	p.run(fmt.Sprintf(`(async (list) => {
		for (const cookie of list) document.cookie = cookie
		for (let i = 0; i < list.length; i += 50) // in one response each
			await fetch("/set?" + new URLSearchParams(list.slice(i, i + 50).map((cookie) => ["cookie", cookie])))
		return ""
	})(%s)`, list))
}

// answers returns what the application answers to requests of its own page.
func (p page) answers(a *app, requests ...string) string {
	p.t.Helper()
	p.visit(a.origin + "/page")
	list, err := json.Marshal(requests)
	require.NoError(p.t, err)
	return p.run(fmt.Sprintf(`(async () => {
		const answers = []
		for (const request of %s) {
			const [method, path] = request.split(" ")
			const r = await fetch(path, {method, headers: {"Content-Type": "application/json"}, body: path === "/auth/login" ? %q : null})
			const text = await r.text()
			answers.push(r.status + (text.startsWith("{") ? "" : " " + text))
		}
		return answers.join(", ")
	})()`, list, `{"login":"ada","password":"`+pass+`"}`))
}

func TestBrowser_ASiblingHostCannotSetTheCookies(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("skipped without AUTH_LONG=1: takes ten seconds or more")
	}
	t.Parallel()
	w := newWorld(t)
	siblings := []string{w.https("sibling.example.test"), "http://sibling.example.test:" + w.plain, w.https("sub.app.example.test")}
	a := w.add(t, "app.example.test", auth.Cookies{})
	legacy := w.add(t, "legacy.example.test", auth.Cookies{AccessName: "access", RefreshName: "refresh", InsecureNames: true})
	all := func(k auth.Tokens) (list []string) { // every spelling of the names, with all attributes
		for name, token := range map[string]string{
			"__Host-access": k.Access, "__Host-Http-refresh": k.Refresh, "__host-access": k.Access, "__HOST-HTTP-REFRESH": k.Refresh,
			" __Host-access": k.Access, "\t__Host-Http-refresh": k.Refresh, "=__Host-access": k.Access, "=__Host-Http-refresh": k.Refresh,
			"__Host-Http-device": k.Access, "access": k.Access, "refresh": k.Refresh,
		} {
			for _, attributes := range []string{
				"; Path=/; Secure; Domain=example.test", "; Path=/note; Secure; Domain=example.test", "; Path=/auth; Domain=example.test",
				"; Path=/; Domain=example.test; HttpOnly", "; Path=/; Secure; HttpOnly; Domain=app.example.test", "; Path=/; Secure",
			} {
				list = append(list, name+"="+token+attributes)
			}
		}
		return list
	}
	t.Run("prefixes", func(t *testing.T) {
		for _, in := range []bool{true, false} {
			p, k := w.open(t), tokens(t, a)
			if in {
				p.signIn(a, "ada")
			}
			for _, sibling := range siblings {
				p.plant(sibling, all(k)...)
			}
			sent := strings.Split(strings.TrimPrefix(p.answers(a, "GET /cookies"), "200 "), "; ")
			planted := 0
			for _, c := range sent {
				name, value, _ := strings.Cut(c, "=")
				if value == k.Access || value == k.Refresh {
					require.Contains(t, []string{"access", "refresh"}, name)
					planted++
				}
			}
			require.Positive(t, planted, "a name without a prefix can be set")
			if in {
				before, err := a.Sessions(t.Context(), "id-ada")
				require.NoError(t, err)
				require.Len(t, before, 1)
				require.Equal(t, "200 ada, 200 ada, 200, 200 ada", p.answers(a, "GET /note", "POST /note", "POST /auth/refresh", "GET /note"))
				after, err := a.Sessions(t.Context(), "id-ada")
				require.NoError(t, err)
				require.Equal(t, before[0].ID, after[0].ID)
			} else {
				require.Equal(t, "401, 401, 400, 200 , 401, 200, 200 ada",
					p.answers(a, "GET /note", "POST /note", "POST /auth/refresh", "GET /optional", "DELETE /auth/sessions/x", "POST /auth/login", "GET /note"))
			}
		}
	})
	// Without the prefixes, a user who is signed in does not become mallory, but one
	// who is not does. A login replaces the cookies of a host above.
	t.Run("InsecureNames", func(t *testing.T) {
		const domain = "; Secure; Domain=example.test; Path="
		for _, tt := range []struct {
			name    string
			cookies func(k auth.Tokens) []string
			in, out string
			login   string // after a login
		}{
			{"junk", func(auth.Tokens) []string {
				return []string{"access=x" + domain + "/", "refresh=x" + domain + "/", "access=y" + domain + "/note"}
			},
				"200 ada, 200 ada, 200, 200 ada", "401, 401, 401, 401", "200, 200 ada, 200"},
			{"both", func(k auth.Tokens) []string {
				return []string{"access=" + k.Access + domain + "/", "refresh=" + k.Refresh + domain + "/"}
			},
				"400, 400, 400, 400", "200 mallory, 200 mallory, 200, 200 mallory", "200, 200 ada, 200"},
			{"access for a path", func(k auth.Tokens) []string { return []string{"access=" + k.Access + domain + "/note"} },
				"400, 400, 200, 400", "200 mallory, 200 mallory, 400, 200 mallory", "200, 400, 200"},
			{"refresh for a path", func(k auth.Tokens) []string { return []string{"refresh=" + k.Refresh + domain + "/auth"} },
				"200 ada, 200 ada, 400, 200 ada", "401, 401, 200, 200 mallory", "200, 200 ada, 200"},
		} {
			for _, in := range []bool{true, false} {
				p, k := w.open(t), tokens(t, legacy)
				want := tt.out
				if in {
					p.signIn(legacy, "ada")
					want = tt.in
				}
				p.plant(siblings[0], tt.cookies(k)...)
				require.Equal(t, want, p.answers(legacy, "GET /note", "POST /note", "POST /auth/refresh", "GET /note"), "%s, signed in: %v", tt.name, in)
				if in {
					require.Contains(t, sessionsOf(t, legacy, "ada"), "id-ada", "the session goes on")
					require.Equal(t, tt.login, p.answers(legacy, "POST /auth/login", "GET /note", "POST /auth/refresh"), tt.name)
				}
				require.NoError(t, legacy.RevokeAll(t.Context(), "id-ada"))
			}
		}
	})
	// Browsers limit the number of cookies of a site. The cookies of a sibling can
	// displace all others, which signs nobody in.
	t.Run("eviction", func(t *testing.T) {
		p := w.open(t)
		p.signIn(a, "ada")
		var many []string
		for i := range 200 {
			many = append(many, fmt.Sprintf("x%d=y; Secure; Domain=example.test; Path=/", i))
		}
		p.plant(siblings[0], many...)
		require.Equal(t, "401, 400, 200, 200 ada", p.answers(a, "GET /note", "POST /auth/refresh", "POST /auth/login", "GET /note"))
		require.Contains(t, sessionsOf(t, a, "ada"), "id-ada")
	})
}
