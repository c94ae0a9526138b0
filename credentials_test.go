package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// The rule of these tests: what cannot be read, or does not verify, does not
// count; what counts decides who it is, whether the origin is checked, and how
// the answer travels. They combine everything with everything, and the
// expected answer comes from what is known of each token by its making.

// exhibit is a token, and what is known of it.
type exhibit struct {
	name    string
	access  string
	refresh string
	session string // "" if it was not signed here
	gen     int
	alive   bool // it verifies
	expired bool
}

// exhibits returns tokens of every fate, all on one clock.
func exhibits(t testing.TB, b *bench) map[string]exhibit {
	t.Helper()
	ctx := context.Background()
	all := map[string]exhibit{}
	put := func(name string, k auth.Tokens, session string, gen int, alive, expired bool) {
		all[name] = exhibit{name, k.Access, k.Refresh, session, gen, alive, expired}
	}
	again := func(k auth.Tokens) auth.Tokens {
		b.clock.advance(40 * time.Second) // no cooldown
		next, err := b.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		return next
	}
	late := b.login(t) // its refresh token will be too old as well
	b.clock.advance(7*24*time.Hour - 30*time.Hour)
	a0, ended := b.login(t), b.login(t)
	require.NoError(t, b.Revoke(ctx, "u1", ended.SessionID))
	b.clock.advance(30 * time.Hour) // the revocation is forgotten
	a1 := again(a0)
	a2 := again(a1)
	other, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	gone := b.login(t)
	require.NoError(t, b.Revoke(ctx, "u1", gone.SessionID))
	put("late", late, "L", 1, false, true)
	put("ended", ended, "N", 1, false, true)
	put("a0", a0, "A", 1, false, true) // the access token; the refresh token is spent, but not expired
	put("a1", a1, "A", 2, true, false)
	put("a2", a2, "A", 3, true, false)
	put("other", other, "B", 1, true, false)
	put("gone", gone, "R", 1, false, false)
	foreign := newBench(t, func(c *auth.Config) {
		c.Secrets, c.Now = [][]byte{[]byte("another secret of 32 bytes or more")}, b.clock.Now
	})
	put("foreign", foreign.login(t), "", 0, false, false)
	put("junk", auth.Tokens{Access: "junk", Refresh: "junk"}, "", 0, false, false)
	return all
}

// verdict is what the client is told.
type verdict struct {
	status int
	action string
	body   string
}

// accessVerdict says what a request is answered, from sets of what it carries.
func accessVerdict(all map[string]exhibit, header, query string, cookies []string, foreignWrite, optional bool) verdict {
	unreadable := header == "unreadable" || query == "twice"
	if unreadable && len(cookies) == 0 {
		return verdict{status: 400}
	}
	live, expired, here := map[string]bool{}, false, map[string]bool{}
	var sent []string
	for _, name := range []string{header, query} {
		if e, ok := all[name]; ok {
			sent = append(sent, name)
			here[name] = true
			live[e.session] = live[e.session] || e.alive
			expired = expired || e.expired
		}
	}
	liveCookie, cookieOf := false, map[string]bool{}
	for _, name := range cookies {
		e := all[name]
		here[name] = true
		live[e.session] = live[e.session] || e.alive
		liveCookie = liveCookie || e.alive
		expired = expired || e.expired
		if e.session != "" {
			cookieOf[e.session] = true
		}
	}
	var who []string
	for session, ok := range live {
		if ok {
			who = append(who, session)
		}
	}
	unverified := len(here) == 1 && len(cookies) > 0 // nobody asks whether it is good
	onlyCookies := len(cookies) > 0 && len(sent) == 0
	switch {
	case len(who) > 1:
		return verdict{status: 400, action: "login"}
	case len(who) == 1 && all[query].alive && !all[header].alive && !liveCookie && len(cookieOf) > 0 && (len(cookieOf) > 1 || !cookieOf[who[0]]):
		return verdict{status: 400, action: "login"} // a link
	case foreignWrite && (liveCookie || unverified || len(who) == 0 && onlyCookies):
		return verdict{status: 403}
	case len(who) == 1:
		return verdict{status: 200, body: "hello " + map[string]string{"A": "ada", "B": "bob"}[who[0]]}
	case optional && len(sent) == 0:
		return verdict{status: 200, body: "anonymous"}
	case len(sent)+len(cookies) == 0, !expired:
		return verdict{status: 401, action: "login"}
	}
	return verdict{status: 401, action: "refresh"}
}

func TestCredentials_WhatIsWorthlessDoesNotSpoilWhatIsGood(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromBearer()))
	all := exhibits(t, b)
	greet := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := auth.FromContext(r.Context()); ok {
			_, _ = fmt.Fprint(w, "hello ", c.Username)
		} else {
			_, _ = fmt.Fprint(w, "anonymous")
		}
	})
	handlers := map[bool]http.Handler{false: b.Require()(greet), true: b.Optional(greet)}
	tokens := []string{"a0", "a1", "a2", "other", "gone", "foreign", "junk"}
	jars := [][]string{nil}
	for i, one := range tokens {
		jars = append(jars, []string{one})
		for _, two := range tokens[:i] {
			jars = append(jars, []string{one, two})
		}
	}
	jars = append(jars, []string{"junk", "foreign", "gone", "a0", "a1"}, []string{"a1", "junk", "a2", "gone"})
	n := 0
	for _, header := range append([]string{"", "unreadable"}, tokens...) {
		for _, query := range []string{"", "twice", "unrelated", "a0", "a1", "other", "foreign"} {
			for _, jar := range jars {
				for _, way := range []string{"GET", "POST", "upgrade"} {
					if way == "upgrade" && query != "" {
						continue
					}
					for _, cross := range []bool{false, true} {
						for _, optional := range []bool{false, true} {
							options := []webOption{}
							switch header {
							case "":
							case "unreadable":
								options = append(options, webHeader("Authorization", "Bearer "))
							default:
								options = append(options, webBearer(all[header].access))
							}
							target := "/"
							switch query {
							case "":
							case "twice":
								target = "/?t=" + all["a1"].access + "&t=x"
							case "unrelated":
								target = "/?q=a;b&x=100%&name=x%20y"
							default:
								target = "/?t=" + all[query].access
							}
							for _, name := range jar {
								options = append(options, webCookie(accessCookie, all[name].access))
							}
							method := way
							if way == "upgrade" {
								method = "GET"
								options = append(options, webHeader("Upgrade", "websocket"))
							}
							if cross {
								options = append(options, crossSite)
							}
							want := accessVerdict(all, header, query, jar, cross && way != "GET", optional)
							r := ask(t, handlers[optional], method, target, options...)
							got := verdict{status: r.status, body: r.body}
							if r.status != 200 {
								got.body = ""
								got.action, _ = r.fields(t)["action"].(string)
							}
							if got != want {
								require.Equal(t, want, got, "header %q, query %q, cookies %q, %s, cross-site %v, optional %v: %s", header, query, jar, way, cross, optional, r.body)
							}
							n++
						}
					}
				}
			}
		}
	}
	require.Greater(t, n, 15_000)
}

// refreshVerdict says which token counts, and whether the answer goes by
// cookie.
func refreshVerdict(all map[string]exhibit, sent, jar []string, unreadable, cross bool) (token string, byCookie bool, answer verdict) {
	if len(jar) > 1 { // a cheap check leaves out what was not signed here
		signed := slices.DeleteFunc(slices.Clone(jar), func(name string) bool { return all[name].session == "" })
		if jar = jar[:1]; len(signed) > 0 {
			jar = signed
		}
	}
	counts := func(name string) bool {
		return all[name].alive || name == "a0" || name == "ended" // spent, and known to the store only
	}
	here := slices.Compact(slices.Sorted(slices.Values(slices.Concat(sent, jar))))
	var who []string
	for _, name := range here {
		if counts(name) && !slices.Contains(who, all[name].session) {
			who = append(who, all[name].session)
		}
	}
	if len(who) > 1 {
		who = slices.DeleteFunc(who, func(s string) bool { return s == "N" })
	}
	switch {
	case len(here) == 0 && unreadable:
		return "", false, verdict{status: 415}
	case len(here) == 0:
		return "", false, verdict{status: 400, action: "login"}
	case len(who) > 1:
		return "", false, verdict{status: 400, action: "login"}
	case len(who) == 1:
		best := -1
		for _, name := range here {
			if e := all[name]; counts(name) && e.session == who[0] {
				byCookie = byCookie || slices.Contains(jar, name)
				if e.gen > best {
					best, token = e.gen, e.refresh
				}
			}
		}
	case len(here) == 1:
		token, byCookie = all[here[0]].refresh, len(jar) > 0
	default:
		token, byCookie = "any", len(sent) == 0
	}
	if byCookie && cross {
		return "", true, verdict{status: 403}
	}
	return token, byCookie, verdict{}
}

func TestCredentials_OfSeveralRefreshTokensTheHighestGenerationCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromBearer()))
	all := exhibits(t, b)
	tokens := []string{"late", "ended", "a0", "a1", "a2", "other", "gone", "foreign", "junk"}
	jars := [][]string{nil}
	for _, one := range tokens {
		jars = append(jars, []string{one})
		for _, two := range tokens {
			if one != two {
				jars = append(jars, []string{one, two})
			}
		}
	}
	jars = append(jars, []string{"junk", "foreign", "gone", "late", "a0", "ended", "a2", "a1"})
	for _, header := range append([]string{""}, tokens...) {
		for _, body := range append([]string{"", "text", "null"}, tokens...) {
			for _, jar := range jars {
				for _, cross := range []bool{false, true} {
					r := requestOf()
					r.Method = http.MethodPost
					var sent []string
					if header != "" {
						webHeader("Refresh-Token", all[header].refresh)(r)
						sent = append(sent, header)
					}
					switch body {
					case "":
					case "text":
						webBody("text/plain;charset=UTF-8", "bye")(r)
					case "null":
						webBody("text/plain", `null`)(r)
					default:
						webJSON(`{"refresh_token":"` + all[body].refresh + `"}`)(r)
						sent = append(sent, body)
					}
					for _, name := range jar {
						webCookie(refreshCookie, all[name].refresh)(r)
					}
					if cross {
						crossSite(r)
					}
					token, byCookie, answer := refreshVerdict(all, sent, jar, body == "text" || body == "null", cross)
					got, gotByCookie, err := b.RefreshToken(r)
					about := fmt.Sprintf("header %q, body %q, cookies %q, cross-site %v: %v", header, body, jar, cross, err)
					if answer != (verdict{}) {
						require.Error(t, err, about)
						a := auth.ResponseFor(err)
						require.Equal(t, answer, verdict{status: a.Status, action: a.Action}, about)
						continue
					}
					require.NoError(t, err, about)
					require.Equal(t, byCookie, gotByCookie, about)
					if token != "any" {
						require.Equal(t, token, got, about)
					}
				}
			}
		}
	}
	require.EqualValues(t, 2, b.store.count("Rotate"), "nothing is spent")
}

func TestCredentials_LogoutEndsWhatCanBeReadAndLoginWhatItReplaces(t *testing.T) {
	t.Parallel()
	jars := map[string][]string{
		"none": nil, "good": {"a2"}, "spent": {"a0"}, "two": {"a1", "other"}, "revoked": {"gone"}, "foreign": {"foreign"}, "junk and good": {"junk", "foreign", "a1"},
	}
	carry := func(all map[string]exhibit, jar []string) (options []webOption) {
		for _, name := range jar {
			options = append(options, webCookie(accessCookie, all[name].access), webCookie(refreshCookie, all[name].refresh))
		}
		return options
	}
	ended := func(b *bench, all map[string]exhibit, ids map[string]string) (sessions []string) {
		for session, id := range ids {
			subject := map[string]string{"A": "u1", "B": "u2"}[session]
			if _, err := b.store.Store.Get(context.Background(), subject, id); err != nil {
				sessions = append(sessions, session)
			}
		}
		slices.Sort(sessions)
		return sessions
	}
	ids := func(t *testing.T, b *bench, all map[string]exhibit) map[string]string {
		m := map[string]string{}
		for _, name := range []string{"a2", "other"} {
			c, err := b.Verify(context.Background(), all[name].access)
			require.NoError(t, err)
			m[all[name].session] = c.SessionID
		}
		return m
	}
	for jarName, jar := range jars {
		t.Run(jarName, func(t *testing.T) {
			t.Parallel()
			for _, cross := range []bool{false, true} {
				for _, header := range []string{"", "unreadable", "a2", "a0", "other", "foreign", "junk"} {
					for _, body := range []string{"", "null", "text", "number", "token", "beacon", "twice", "multipart"} {
						b := newBench(t, withCookies())
						all := exhibits(t, b)
						live := ids(t, b, all)
						options := carry(all, jar)
						sessions := map[string]bool{}
						sent := false
						switch header {
						case "":
						case "unreadable":
							options = append(options, webHeader("Authorization", "Bearer "))
						default:
							options = append(options, webBearer(all[header].access))
							sessions[all[header].session], sent = true, true
						}
						token := all["other"].refresh
						switch body {
						case "null":
							options = append(options, webJSON("null"))
						case "text":
							options = append(options, webBody("text/plain", "good bye. see you. later"))
						case "number":
							options = append(options, webJSON(`{"refresh_token":1}`))
						case "token":
							options = append(options, webJSON(`{"refresh_token":"`+token+`"}`))
						case "beacon":
							options = append(options, webBody("text/plain;charset=UTF-8", `{"refresh_token":"`+token+`"}`))
						case "twice":
							options = append(options, webForm("refresh_token=junk&refresh_token="+token))
						case "multipart":
							options = append(options, webBody("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"refresh_token\"\r\n\r\n"+token+"\r\n--x--\r\n"))
						}
						if strings.Contains("token beacon twice multipart", body) && body != "" {
							sessions["B"], sent = true, true
						}
						cookieCounts := false
						for _, name := range jar {
							cookieCounts = cookieCounts || all[name].session != ""
							if !cross {
								sessions[all[name].session] = true
							}
						}
						if cross {
							options = append(options, crossSite)
						}
						about := fmt.Sprintf("header %q, body %q, cross-site %v", header, body, cross)
						r := ask(t, b.LogoutHandler(), "POST", "/logout", options...)
						if cross && (cookieCounts || !sent) {
							r.refused(t, 403, "cross_origin", "")
							require.Empty(t, ended(b, all, live), about)
							continue
						}
						r.nothing(t)
						if !cross && (len(jar) > 0 || !sent) {
							r.cleared(t)
						} else {
							require.NotContains(t, r.header, "Set-Cookie", about)
						}
						var want []string
						for _, s := range []string{"A", "B"} {
							if sessions[s] {
								want = append(want, s)
							}
						}
						require.Equal(t, want, ended(b, all, live), about)
					}
				}
				b := newBench(t, withCookies())
				all := exhibits(t, b)
				live := ids(t, b, all)
				options := append(carry(all, jar), webJSON(`{"login":"bob","password":"`+pass+`"}`), webHeader("Authorization", "Bearer "))
				if cross {
					ask(t, b.LoginHandler(), "POST", "/login", append(options, crossSite)...).refused(t, 403, "cross_origin", "")
					require.Empty(t, ended(b, all, live))
					continue
				}
				r := ask(t, b.LoginHandler(), "POST", "/login", options...)
				require.Equal(t, 200, r.status, r.body)
				var want []string
				for _, name := range jar {
					if s := all[name].session; s != "" && live[s] != "" {
						want = append(want, s)
					}
				}
				slices.Sort(want)
				require.Equal(t, slices.Compact(want), ended(b, all, live))
				// None of them counts any longer.
				options = append(carry(all, jar), webCookie(accessCookie, r.cookies[accessCookie].Value), webCookie(refreshCookie, r.cookies[refreshCookie].Value))
				require.Equal(t, "hello bob", ask(t, b.Require()(hello), "GET", "/", options...).body)
				require.Equal(t, 200, ask(t, b.RefreshHandler(), "POST", "/refresh", options...).status)
			}
		})
	}
}

func TestCredentials_LinkBesideTheRefreshCookieOfAnotherSessionIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromBearer()))
	all := exhibits(t, b)
	other := all["other"]
	for _, h := range []http.Handler{b.Require()(hello), b.Optional(hello)} {
		for _, cookie := range []string{"late", "ended", "a0", "a2", "gone"} {
			ask(t, h, "GET", "/?t="+other.access, webCookie(refreshCookie, all[cookie].refresh)).refused(t, 400, "invalid_request", "login")
			ask(t, h, "GET", "/?t="+other.access, webCookie(refreshCookie, other.refresh), webCookie(refreshCookie, all[cookie].refresh)).refused(t, 400, "invalid_request", "login")
			ask(t, h, "GET", "/?t="+other.access, webBearer("junk"), webCookie(refreshCookie, all[cookie].refresh)).refused(t, 400, "invalid_request", "login")
			require.Equal(t, "hello bob", ask(t, h, "GET", "/", webBearer(other.access), webCookie(refreshCookie, all[cookie].refresh)).body)
		}
		for _, cookie := range []string{"other", "foreign", "junk"} {
			require.Equal(t, "hello bob", ask(t, h, "GET", "/?t="+other.access, webCookie(refreshCookie, all[cookie].refresh)).body)
		}
		ask(t, h, "GET", "/?t="+all["a0"].access, webCookie(refreshCookie, other.refresh)).refused(t, 401, "invalid_token", "refresh")
	}
}
