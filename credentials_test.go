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

// The rule of these tests: a credential that is unreadable or does not verify
// is ignored. The others determine the session, whether the origin is checked,
// and how the response is delivered. The tests combine all kinds of credentials
// and compute the expected response from how each token was created.

// credential is a token with its known properties.
type credential struct {
	name    string
	access  string
	refresh string
	session string // "" if it was not signed by this issuer
	gen     int
	alive   bool // whether it verifies
	expired bool
}

// credentials returns tokens in every state, all at the same time of one clock.
func credentials(t testing.TB, fx *fixture) map[string]credential {
	t.Helper()
	ctx := context.Background()
	all := map[string]credential{}
	put := func(name string, k auth.Tokens, session string, gen int, alive, expired bool) {
		all[name] = credential{name, k.Access, k.Refresh, session, gen, alive, expired}
	}
	again := func(k auth.Tokens) auth.Tokens {
		fx.clock.Advance(defaultCooldown)
		next, err := fx.Refresh(ctx, k.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		return next
	}
	late := fx.login(t) // its refresh token expires as well
	fx.clock.Advance(7*24*time.Hour - 30*time.Hour)
	a0, ended := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(ctx, "u1", ended.SessionID))
	fx.clock.Advance(30 * time.Hour) // the revocation is no longer in memory
	a1 := again(a0)
	a2 := again(a1)
	other, err := fx.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	gone := fx.login(t)
	require.NoError(t, fx.Revoke(ctx, "u1", gone.SessionID))
	put("late", late, "L", 1, false, true)
	put("ended", ended, "N", 1, false, true)
	put("a0", a0, "A", 1, false, true) // the refresh token is spent, but not expired
	put("a1", a1, "A", 2, true, false)
	put("a2", a2, "A", 3, true, false)
	put("other", other, "B", 1, true, false)
	put("gone", gone, "R", 1, false, false)
	foreign := newFixture(t, func(c *auth.Config) {
		c.Secrets, c.Now = [][]byte{[]byte("another secret of 32 bytes or more")}, fx.clock.Now
	})
	put("foreign", foreign.login(t), "", 0, false, false)
	put("junk", auth.Tokens{Access: "junk", Refresh: "junk"}, "", 0, false, false)
	return all
}

// outcome is the response as the client sees it.
type outcome struct {
	status int
	action string
	body   string
}

// wantAccess returns the expected outcome of a request with the given
// credentials.
func wantAccess(all map[string]credential, header, query string, cookies []string, foreignWrite, optional bool) outcome {
	unreadable := header == "unreadable" || query == "twice"
	if unreadable && len(cookies) == 0 {
		return outcome{status: 400}
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
	unverified := len(here) == 1 && len(cookies) > 0 // it is not verified
	onlyCookies := len(cookies) > 0 && len(sent) == 0
	switch {
	case len(who) > 1:
		return outcome{status: 400, action: "login"}
	case len(who) == 1 && all[query].alive && !all[header].alive && !liveCookie && len(cookieOf) > 0 && (len(cookieOf) > 1 || !cookieOf[who[0]]):
		return outcome{status: 400, action: "login"} // a token in the query
	case foreignWrite && (liveCookie || unverified || len(who) == 0 && onlyCookies):
		return outcome{status: 403}
	case len(who) == 1:
		return outcome{status: 200, body: "hello " + map[string]string{"A": "ada", "B": "bob"}[who[0]]}
	case optional && len(sent) == 0:
		return outcome{status: 200, body: "anonymous"}
	case len(sent)+len(cookies) == 0, !expired:
		return outcome{status: 401, action: "login"}
	}
	return outcome{status: 401, action: "refresh"}
}

func TestCredentials_InvalidOnesDoNotHideAValidOne(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromBearer()))
	all := credentials(t, fx)
	greet := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := auth.FromContext(r.Context()); ok {
			_, _ = fmt.Fprint(w, "hello ", c.Username)
		} else {
			_, _ = fmt.Fprint(w, "anonymous")
		}
	})
	handlers := map[bool]http.Handler{false: fx.Require()(greet), true: fx.Optional(greet)}
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
							options := []requestOption{}
							switch header {
							case "":
							case "unreadable":
								options = append(options, reqHeader("Authorization", "Bearer "))
							default:
								options = append(options, reqBearer(all[header].access))
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
								options = append(options, reqCookie(accessCookie, all[name].access))
							}
							method := way
							if way == "upgrade" {
								method = "GET"
								options = append(options, reqHeader("Upgrade", "websocket"))
							}
							if cross {
								options = append(options, crossSite)
							}
							want := wantAccess(all, header, query, jar, cross && way != "GET", optional)
							r := send(t, handlers[optional], method, target, options...)
							got := outcome{status: r.status, body: r.body}
							if r.status != 200 {
								got.body = ""
								got.action, _ = r.fields(t)["action"].(string)
							}
							if got != want {
								require.Equal(
									t, want, got, "header %q, query %q, cookies %q, %s, cross-site %v, optional %v: %s", header, query,
									jar, way, cross, optional, r.body,
								)
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

// wantRefresh returns the token that counts, and whether the response uses
// cookies.
func wantRefresh(all map[string]credential, sent, jar []string, unreadable, cross bool) (token string, byCookie bool, answer outcome) {
	if len(jar) > 1 { // tokens that this issuer did not sign are left out first
		signed := slices.DeleteFunc(slices.Clone(jar), func(name string) bool { return all[name].session == "" })
		if jar = jar[:1]; len(signed) > 0 {
			jar = signed
		}
	}
	counts := func(name string) bool {
		return all[name].alive || name == "a0" || name == "ended" // spent; only the store knows
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
		return "", false, outcome{status: 415}
	case len(here) == 0:
		return "", false, outcome{status: 400, action: "login"}
	case len(who) > 1:
		return "", false, outcome{status: 400, action: "login"}
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
		return "", true, outcome{status: 403}
	}
	return token, byCookie, outcome{}
}

func TestCredentials_HighestRefreshGenerationCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromBearer()))
	all := credentials(t, fx)
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
					r := newRequest()
					r.Method = http.MethodPost
					var sent []string
					if header != "" {
						reqHeader("Refresh-Token", all[header].refresh)(r)
						sent = append(sent, header)
					}
					switch body {
					case "":
					case "text":
						reqBody("text/plain;charset=UTF-8", "bye")(r)
					case "null":
						reqBody("text/plain", `null`)(r)
					default:
						reqJSON(`{"refresh_token":"` + all[body].refresh + `"}`)(r)
						sent = append(sent, body)
					}
					for _, name := range jar {
						reqCookie(refreshCookie, all[name].refresh)(r)
					}
					if cross {
						crossSite(r)
					}
					token, byCookie, answer := wantRefresh(all, sent, jar, body == "text" || body == "null", cross)
					got, o, err := fx.RefreshRequest(r)
					about := fmt.Sprintf("header %q, body %q, cookies %q, cross-site %v: %v", header, body, jar, cross, err)
					if answer != (outcome{}) {
						require.Error(t, err, about)
						a := auth.ResponseFor(err)
						require.Equal(t, answer, outcome{status: a.Status, action: a.Action}, about)
						continue
					}
					require.NoError(t, err, about)
					require.Equal(t, byCookie, !o.InBody, about)
					if token != "any" {
						require.Equal(t, token, got, about)
					}
				}
			}
		}
	}
	require.EqualValues(t, 2, fx.store.count("Rotate"), "no token may be spent")
}

func TestCredentials_LogoutAndLoginEndTheSessionsOfAll(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: has many cases")
	}
	t.Parallel()
	jars := map[string][]string{
		"none": nil, "good": {"a2"}, "spent": {"a0"}, "two": {"a1", "other"}, "revoked": {"gone"}, "foreign": {"foreign"},
		"junk and good": {"junk", "foreign", "a1"},
	}
	carry := func(all map[string]credential, jar []string) (options []requestOption) {
		for _, name := range jar {
			options = append(options, reqCookie(accessCookie, all[name].access), reqCookie(refreshCookie, all[name].refresh))
		}
		return options
	}
	ended := func(fx *fixture, all map[string]credential, ids map[string]string) (sessions []string) {
		for session, id := range ids {
			subject := map[string]string{"A": "u1", "B": "u2"}[session]
			if _, err := fx.store.Store.Get(context.Background(), subject, id); err != nil {
				sessions = append(sessions, session)
			}
		}
		slices.Sort(sessions)
		return sessions
	}
	ids := func(t *testing.T, fx *fixture, all map[string]credential) map[string]string {
		m := map[string]string{}
		for _, name := range []string{"a2", "other"} {
			c, err := fx.Verify(context.Background(), all[name].access)
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
						fx := newFixture(t, withCookies())
						all := credentials(t, fx)
						live := ids(t, fx, all)
						options := carry(all, jar)
						sessions := map[string]bool{}
						sent := false
						switch header {
						case "":
						case "unreadable":
							options = append(options, reqHeader("Authorization", "Bearer "))
						default:
							options = append(options, reqBearer(all[header].access))
							sessions[all[header].session], sent = true, true
						}
						token := all["other"].refresh
						switch body {
						case "null":
							options = append(options, reqJSON("null"))
						case "text":
							options = append(options, reqBody("text/plain", "good bye. see you. later"))
						case "number":
							options = append(options, reqJSON(`{"refresh_token":1}`))
						case "token":
							options = append(options, reqJSON(`{"refresh_token":"`+token+`"}`))
						case "beacon":
							options = append(options, reqBody("text/plain;charset=UTF-8", `{"refresh_token":"`+token+`"}`))
						case "twice":
							options = append(options, reqForm("refresh_token=junk&refresh_token="+token))
						case "multipart":
							options = append(
								options,
								reqBody(
									"multipart/form-data; boundary=x",
									"--x\r\nContent-Disposition: form-data; name=\"refresh_token\"\r\n\r\n"+token+"\r\n--x--\r\n",
								),
							)
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
						r := send(t, fx.LogoutHandler(), "POST", "/logout", options...)
						if cross && (cookieCounts || !sent) {
							r.requireRefused(t, 403, "cross_origin", "")
							require.Empty(t, ended(fx, all, live), about)
							continue
						}
						r.requireNoContent(t)
						if !cross && (len(jar) > 0 || !sent) {
							r.requireCleared(t)
						} else {
							require.NotContains(t, r.header, "Set-Cookie", about)
						}
						var want []string
						for _, s := range []string{"A", "B"} {
							if sessions[s] {
								want = append(want, s)
							}
						}
						require.Equal(t, want, ended(fx, all, live), about)
					}
				}
				fx := newFixture(t, withCookies())
				all := credentials(t, fx)
				live := ids(t, fx, all)
				options := append(carry(all, jar), reqJSON(`{"login":"bob","password":"`+pass+`"}`), reqHeader("Authorization", "Bearer "))
				if cross {
					send(t, fx.LoginHandler(), "POST", "/login", append(options, crossSite)...).requireRefused(t, 403, "cross_origin", "")
					require.Empty(t, ended(fx, all, live))
					continue
				}
				r := send(t, fx.LoginHandler(), "POST", "/login", options...)
				require.Equal(t, 200, r.status, r.body)
				var want []string
				for _, name := range jar {
					if s := all[name].session; s != "" && live[s] != "" {
						want = append(want, s)
					}
				}
				slices.Sort(want)
				require.Equal(t, slices.Compact(want), ended(fx, all, live))
				// All of their sessions have ended.
				options = append(
					carry(all, jar), reqCookie(accessCookie, r.cookies[accessCookie].Value),
					reqCookie(refreshCookie, r.cookies[refreshCookie].Value),
				)
				require.Equal(t, "hello bob", send(t, fx.Require()(hello), "GET", "/", options...).body)
				require.Equal(t, 200, send(t, fx.RefreshHandler(), "POST", "/refresh", options...).status)
			}
		})
	}
}

func TestCredentials_QueryTokenOfAnotherSessionIsRefused(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), withExtractors(auth.FromCookie(), auth.FromQuery("t"), auth.FromBearer()))
	all := credentials(t, fx)
	other := all["other"]
	for _, h := range []http.Handler{fx.Require()(hello), fx.Optional(hello)} {
		for _, cookie := range []string{"late", "ended", "a0", "a2", "gone"} {
			send(t, h, "GET", "/?t="+other.access, reqCookie(refreshCookie, all[cookie].refresh)).requireRefused(t, 400, "invalid_request", "login")
			send(
				t, h, "GET", "/?t="+other.access, reqCookie(refreshCookie, other.refresh), reqCookie(refreshCookie, all[cookie].refresh),
			).requireRefused(t, 400, "invalid_request", "login")
			send(
				t, h, "GET", "/?t="+other.access, reqBearer("junk"), reqCookie(refreshCookie, all[cookie].refresh),
			).requireRefused(t, 400, "invalid_request", "login")
			require.Equal(t, "hello bob", send(t, h, "GET", "/", reqBearer(other.access), reqCookie(refreshCookie, all[cookie].refresh)).body)
		}
		for _, cookie := range []string{"other", "foreign", "junk"} {
			require.Equal(t, "hello bob", send(t, h, "GET", "/?t="+other.access, reqCookie(refreshCookie, all[cookie].refresh)).body)
		}
		send(t, h, "GET", "/?t="+all["a0"].access, reqCookie(refreshCookie, other.refresh)).requireRefused(t, 401, "invalid_token", "refresh")
	}
}
