// This file plays every statement of both contracts.

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// statement plays one row of the table in README.md.
type statement struct {
	letter    func(*program) // fails if the program does not do what the article says
	deviation func(*program) // fails if the program does not do what the table says instead
}

const (
	loginPath   = "/api/v1/auth/login"
	refreshPath = "/api/v1/auth/refresh"

	refreshed    = `{"message":"Access token refreshed successfully"}`
	secured      = "I am secured..."
	noToken      = `{"error":true,"message":"No token provided."}`
	unauthorized = `{"error":true,"message":"Unauthorized access."}`
)

var (
	adaByName = object("login_id", "ada", "password", demoPassword)
	adaByMail = object("email", "ada@example.com", "name", "ada", "password", demoPassword)

	// registered are the claims that the library adds: all are registered except session_exp and mem_store.
	registered = []string{"iss", "sub", "aud", "exp", "iat", "jti", "sid", "auth_time", "amr", "session_exp", "mem_store"}
)

// ownClaims fails if a token does not have exactly these claims besides others.
func (p *program) ownClaims(token string, others []string, want map[string]any) {
	got := p.claims(token)
	for _, name := range others {
		delete(got, name)
	}
	require.Equal(p.t, want, got)
}

// anyMethod sends a request with each method except HEAD, which has no body.
func (p *program) anyMethod(except, query, body string, headers ...string) {
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		if method != except {
			p.do(method, "/api/secure"+query, body, headers...).is(200, secured)
		}
	}
}

// missing fails if an endpoint exists.
func (p *program) missing(method, path string) {
	require.Contains(p.t, []int{404, 405}, p.do(method, path, "").status, path)
}

var statements = map[string]statement{
	"1": {letter: func(p *program) {
		for _, login := range []string{"ada", "ada@example.com"} {
			for _, body := range []string{object("login_id", login, "password", demoPassword), "login_id=" + login + "&password=" + strings.ReplaceAll(demoPassword, " ", "+")} {
				a := p.do("POST", loginPath, body)
				require.Equal(p.t, "Login successful", a.field("message"))
			}
		}
	}},
	"2": {
		letter: func(p *program) {
			a := p.do("POST", loginPath, adaByName)
			require.Equal(p.t, a.cookie("accessToken"), a.field("accessToken"))
			require.Equal(p.t, a.cookie("refreshToken"), a.field("refreshToken"))
		},
		deviation: func(p *program) {
			p.do("POST", loginPath, adaByName).is(200, `{"message":"Login successful"}`)
			a := p.do("POST", loginPath, object("login_id", "ada", "password", demoPassword, "delivery", "body"))
			a.is(200, fmt.Sprintf(`{"message":"Login successful","accessToken":%q,"refreshToken":%q}`, a.field("accessToken"), a.field("refreshToken")))
			require.Empty(p.t, a.cookies)
			require.Equal(p.t, 200, p.me(a.field("accessToken")).status)
		},
	},
	"3": {letter: func(p *program) {
		a := p.do("POST", loginPath, adaByName)
		require.ElementsMatch(p.t, []string{"accessToken", "refreshToken", "__Host-Http-device"}, keys(a.cookies))
		for _, c := range a.cookies {
			require.True(p.t, c.Secure && c.HttpOnly && c.SameSite == http.SameSiteNoneMode, c)
		}
	}},
	"4": {
		letter: func(p *program) {
			a := p.do("POST", loginPath, adaByName)
			want := map[string]any{"userId": "1001", "username": "ada", "user_role": "admin"}
			p.ownClaims(a.cookie("accessToken"), []string{"iat", "exp"}, want)
			p.ownClaims(a.cookie("refreshToken"), []string{"iat", "exp"}, want)
		},
		deviation: func(p *program) {
			a := p.do("POST", loginPath, adaByName)
			p.ownClaims(a.cookie("accessToken"), registered, map[string]any{"userId": "1001", "username": "ada", "user_role": "admin"})
			for _, name := range []string{"userId", "username", "user_role"} {
				require.NotContains(p.t, p.claims(a.cookie("refreshToken")), name)
			}
		},
	},
	"5": {
		letter: func(p *program) {
			p.do("POST", loginPath, object("login_id", "ada", "password", "wrong")).is(401, `{"error":"Invalid password"}`)
			p.do("POST", loginPath, object("login_id", "nobody", "password", demoPassword)).is(404, `{"error":"User not found"}`)
		},
		deviation: func(p *program) {
			wrong := p.do("POST", loginPath, object("login_id", "ada", "password", "wrong"))
			wrong.is(401, `{"error":"Invalid login or password"}`)
			for _, body := range []string{object("login_id", "nobody", "password", demoPassword), object("login_id", "ada"), "{}", ""} {
				unknown := p.do("POST", loginPath, body)
				unknown.header.Set("Date", wrong.header.Get("Date"))
				require.Equal(p.t, wrong, unknown)
			}
		},
	},
	"6": {
		letter: func(p *program) {
			a := p.do("POST", refreshPath, "", "Cookie", "refreshToken="+p.loginByCookie().cookie("refreshToken"))
			a.is(200, refreshed)
			require.Equal(p.t, []string{"accessToken"}, keys(a.cookies))
		},
		deviation: func(p *program) {
			p.refreshes(func(token string) response { return p.do("POST", refreshPath, "", "Cookie", "refreshToken="+token) })
		},
	},
	"7": {
		letter: func(p *program) {
			a := p.refreshByHeader(p.loginByCookie().cookie("refreshToken"))
			a.is(200, refreshed)
			require.Equal(p.t, []string{"accessToken"}, keys(a.cookies))
		},
		deviation: func(p *program) {
			p.refreshes(func(token string) response { return p.do("POST", refreshPath, "", "refresh-token", token) })
			login := p.loginByCookie().cookie("refreshToken")
			a := p.refreshByHeader(login, "delivery", "body")
			a.is(200, fmt.Sprintf(`{"message":"Access token refreshed successfully","accessToken":%q,"refreshToken":%q}`, a.field("accessToken"), a.field("refreshToken")))
			require.Empty(p.t, a.cookies)
			require.NotEqual(p.t, login, a.field("refreshToken"))
			require.Equal(p.t, 200, p.me(a.field("accessToken")).status)
		},
	},
	"8": {letter: func(p *program) {
		for _, headers := range [][]string{nil, {"refresh-token", ""}, {"Cookie", "refreshToken="}} {
			p.do("POST", refreshPath, "", headers...).is(400, `{"error":"Refresh token not provided"}`)
		}
	}},
	"9": {letter: func(p *program) {
		a := p.loginByCookie()
		for _, token := range []string{"nonsense", a.cookie("accessToken"), a.cookie("refreshToken") + "x"} {
			p.refreshByHeader(token).is(403, `{"error":"Invalid refresh token"}`)
			p.do("POST", refreshPath, "", "Cookie", "refreshToken="+token).is(403, `{"error":"Invalid refresh token"}`)
		}
	}},
	"lifetimes": {
		letter: func(p *program) { p.cookieLifetimes(86_400) },
		deviation: func(p *program) {
			p.cookieLifetimes(900)
			access := p.loginByCookie().cookie("accessToken")
			p.clock.Advance(900e9 - 1e9)
			require.Equal(p.t, 200, p.me(access).status)
			p.clock.Advance(1e9)
			require.Equal(p.t, 401, p.me(access).status)
		},
	},
	"role": {
		letter: func(p *program) {
			a := p.refreshByHeader(p.loginByCookie().cookie("refreshToken"))
			require.NotContains(p.t, p.claims(a.cookie("accessToken")), "user_role")
		},
		deviation: func(p *program) {
			login := p.loginByCookie()
			p.me(login.cookie("accessToken")).is(200, `{"userId":"1001","username":"ada","user_role":"admin"}`)
			p.users.change("1001", func(a *account) { a.role = "user" })
			a := p.refreshByHeader(login.cookie("refreshToken"))
			require.Equal(p.t, "user", p.claims(a.cookie("accessToken"))["user_role"])
			p.me(a.cookie("accessToken")).is(200, `{"userId":"1001","username":"ada","user_role":"user"}`)
		},
	},
	"secrets": {
		letter: func(p *program) { require.NoError(p.t, tryWithSecrets("", "")) },
		deviation: func(p *program) {
			require.Error(p.t, tryWithSecrets("", ""))
			require.Error(p.t, tryWithSecrets("secret", "another"))
		},
	},
	"500": {letter: func(p *program) {
		refresh := p.loginByCookie().cookie("refreshToken")
		p.users.change("1002", func(a *account) { a.id = "" }) // no token can be issued for this user
		p.do("POST", loginPath, object("login_id", "bob", "password", demoPassword)).is(500, `{"error":"Internal server error"}`)
		p.users.change("1001", func(a *account) { a.name = "\xff" })
		a := p.refreshByHeader(refresh)
		a.is(500, `{"error":"Internal server error"}`)
		require.Empty(p.t, a.cookies)
	}},
	"hashes": {
		letter: func(p *program) {
			p.loginByCookie()
			p.hasHash("$2a$")
		},
		deviation: func(p *program) {
			p.hasHash("$2a$")
			p.loginByCookie()
			p.hasHash("$argon2id$")
			p.loginByCookie()
		},
	},
	"devices": {
		letter: func(p *program) {
			p.missing("POST", "/api/v1/auth/logout")
			p.missing("GET", "/api/v1/user/sessions")
		},
		deviation: func(p *program) {
			lost, here := p.loginByCookie(), p.loginByCookie()
			cookies := "accessToken=" + here.cookie("accessToken") + "; refreshToken=" + here.cookie("refreshToken")
			id := p.claims(lost.cookie("accessToken"))["sid"].(string)
			require.Contains(p.t, p.do("GET", "/api/v1/user/sessions", "", "Cookie", cookies).body, id)
			p.do("DELETE", "/api/v1/user/sessions/"+id, "", "Cookie", cookies).is(204, "")
			require.Equal(p.t, 401, p.me(lost.cookie("accessToken")).status)
			require.Equal(p.t, 403, p.refreshByHeader(lost.cookie("refreshToken")).status)
			require.Equal(p.t, 200, p.me(here.cookie("accessToken")).status)
			p.do("POST", "/api/v1/auth/logout", "", "Cookie", cookies).is(204, "")
			require.Equal(p.t, 401, p.me(here.cookie("accessToken")).status)
			require.Equal(p.t, 403, p.refreshByHeader(here.cookie("refreshToken")).status)
		},
	},

	"10": {
		letter: func(p *program) {
			p.isLogin(p.do("POST", "/api/login", object("email", "ada@example.com", "name", "ada")))
		},
		deviation: func(p *program) {
			p.isLogin(p.do("POST", "/api/login", adaByMail))
			p.isLogin(p.do("POST", "/api/login", "email=ada%40example.com&name=ada&password="+strings.ReplaceAll(demoPassword, " ", "+")))
			p.do("POST", "/api/login", object("email", "ada@example.com", "name", "ada")).is(400, `{"error":true,"message":"A password is required."}`)
			wrong := p.do("POST", "/api/login", object("email", "ada@example.com", "name", "ada", "password", "wrong"))
			wrong.is(401, `{"error":true,"message":"Invalid email or password."}`)
			unknown := p.do("POST", "/api/login", object("email", "nobody@example.com", "name", "ada", "password", demoPassword))
			unknown.header.Set("Date", wrong.header.Get("Date"))
			require.Equal(p.t, wrong, unknown)
		},
	},
	"11": {
		letter: func(p *program) {
			a := p.do("POST", "/api/login", object("email", "ada@example.com", "name", "someone", "password", demoPassword))
			want := map[string]any{"email": "ada@example.com", "name": "someone"}
			p.ownClaims(a.field("token"), []string{"iat", "exp"}, want)
			p.ownClaims(a.field("refreshToken"), []string{"iat", "exp"}, want)
		},
		deviation: func(p *program) {
			for _, name := range []string{"ada", "someone"} {
				a := p.do("POST", "/api/login", object("email", "ada@example.com", "name", name, "password", demoPassword))
				p.ownClaims(a.field("token"), registered, map[string]any{"email": "ada@example.com", "name": "ada"})
				require.NotContains(p.t, p.claims(a.field("refreshToken")), "email")
				require.NotContains(p.t, p.claims(a.field("refreshToken")), "name")
				require.Equal(p.t, 900.0, p.lifetime(a.field("token")))
				require.Equal(p.t, 86_400.0, p.lifetime(a.field("refreshToken")))
			}
		},
	},
	"12": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.do("GET", "/api/secure", object("token", token)).is(200, secured)
		p.do("GET", "/api/secure", "token="+token).is(200, secured)
	}},
	"13": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.do("POST", "/api/secure", object("token", token)).is(200, secured)
		p.do("POST", "/api/secure", "token="+token).is(200, secured)
	}},
	"14": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.anyMethod("", "", object("token", token))
		p.anyMethod("", "", "token="+token)
	}},
	"15": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.secure(token).is(200, secured)
	}},
	"16": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.anyMethod("GET", "", "", "x-access-token", token)
		p.anyMethod("GET", "", `{"other":1}`, "x-access-token", token)
		p.do("POST", "/api/secure", strings.Repeat("x", 1<<20), "x-access-token", token, "Content-Type", "text/plain").is(200, secured)
		require.Equal(p.t, 200, p.do("HEAD", "/api/secure", "", "x-access-token", token).status)
	}},
	"17": {letter: func(p *program) {
		token, _ := p.loginByBody()
		p.anyMethod("", "?token="+token, "")
	}},
	"18": {letter: func(p *program) {
		for _, method := range []string{"GET", "POST", "PUT"} {
			p.do(method, "/api/secure", "").is(403, noToken)
			p.do(method, "/api/secure?token=", "").is(403, noToken)
			p.do(method, "/api/secure", "{}").is(403, noToken)
		}
	}},
	"19": {letter: func(p *program) {
		token, refresh := p.loginByBody()
		for _, bad := range []string{"nonsense", token + "x", refresh} {
			p.secure(bad).is(401, unauthorized)
			p.do("GET", "/api/secure?token="+bad, "").is(401, unauthorized)
			p.do("POST", "/api/secure", object("token", bad)).is(401, unauthorized)
		}
		p.clock.Advance(900e9)
		p.secure(token).is(401, unauthorized)
	}},
	"20": {
		letter: func(p *program) {
			_, refresh := p.loginByBody()
			require.Equal(p.t, []string{"token"}, p.do("POST", "/api/token", object("refreshToken", refresh)).keys())
		},
		deviation: func(p *program) {
			token, refresh := p.loginByBody()
			// The article copies these fields into the new token.
			a := p.do("POST", "/api/token", object("refreshToken", refresh, "email", "root@example.com", "name", "root"))
			a.is(200, fmt.Sprintf(`{"token":%q,"refreshToken":%q}`, a.field("token"), a.field("refreshToken")))
			require.NotEqual(p.t, token, a.field("token"))
			require.NotEqual(p.t, refresh, a.field("refreshToken"))
			require.Equal(p.t, "ada", p.claims(a.field("token"))["name"])
			p.secure(a.field("token")).is(200, secured)
		},
	},
	"21": {letter: func(p *program) {
		token, refresh := p.loginByBody()
		for _, body := range []string{"", "{}", "{", object("refreshToken", "nonsense"), object("refreshToken", token), object("refreshToken", refresh+"x"), "refreshToken=nonsense"} {
			p.do("POST", "/api/token", body).is(404, "Invalid request")
		}
	}},
	"22": {letter: func(p *program) {
		require.Equal(p.t, 200, p.do("GET", "/api/", "").status)
	}},
	"list": {
		letter: func(p *program) {
			p.missing("POST", "/api/logout")
			p.missing("GET", "/api/sessions")
		},
		deviation: func(p *program) {
			token, refresh := p.loginByBody()
			for range 20 {
				p.clock.Advance(600e9)
				a := p.do("POST", "/api/token", object("refreshToken", refresh))
				token, refresh = a.field("token"), a.field("refreshToken")
			}
			id := p.claims(token)["sid"].(string)
			require.Equal(p.t, 1, strings.Count(p.do("GET", "/api/sessions", "", "x-access-token", token).body, `"id":`))
			p.do("DELETE", "/api/sessions/"+id, "", "x-access-token", token).is(204, "")
			p.secure(token).is(401, unauthorized)
			p.do("POST", "/api/token", object("refreshToken", refresh)).is(404, "Invalid request")
			for _, logout := range []func(token, refresh string) response{
				func(token, _ string) response { return p.do("POST", "/api/logout", "", "x-access-token", token) },
				func(token, _ string) response { return p.do("POST", "/api/logout", object("token", token)) },
				func(_, refresh string) response { return p.do("POST", "/api/logout", object("refreshToken", refresh)) },
			} {
				token, refresh := p.loginByBody()
				logout(token, refresh).is(204, "")
				p.secure(token).is(401, unauthorized)
				p.do("POST", "/api/token", object("refreshToken", refresh)).is(404, "Invalid request")
			}
		},
	},
}

// refreshes fails if refresh, which is given a refresh token, does not set the
// access cookie, and the next refresh cookie when the session rotates.
func (p *program) refreshes(refresh func(token string) response) {
	login := p.loginByCookie()
	a := refresh(login.cookie("refreshToken"))
	a.is(200, refreshed)
	require.ElementsMatch(p.t, []string{"accessToken", "refreshToken"}, keys(a.cookies))
	require.NotEqual(p.t, login.cookie("accessToken"), a.cookie("accessToken"))
	require.NotEqual(p.t, login.cookie("refreshToken"), a.cookie("refreshToken"))
	for _, c := range a.cookies {
		require.True(p.t, c.Secure && c.HttpOnly && c.SameSite == http.SameSiteNoneMode, c)
	}
	require.Equal(p.t, 200, p.me(a.cookie("accessToken")).status)

	p.clock.Advance(80e9)
	soon := refresh(a.cookie("refreshToken"))
	soon.is(200, refreshed)
	require.Equal(p.t, []string{"accessToken"}, keys(soon.cookies))
	p.clock.Advance(11e9)
	require.NotEqual(p.t, a.cookie("refreshToken"), refresh(a.cookie("refreshToken")).cookie("refreshToken"))
}

// cookieLifetimes fails if an access token does not have this lifetime after a
// login, or if another lifetime differs from the article.
func (p *program) cookieLifetimes(afterLogin float64) {
	login := p.loginByCookie()
	require.Equal(p.t, 7*86_400.0, p.lifetime(login.cookie("refreshToken")))
	require.InDelta(p.t, 7*86_400, login.cookies["refreshToken"].MaxAge, 1)
	require.Equal(p.t, 900.0, p.lifetime(p.refreshByHeader(login.cookie("refreshToken")).cookie("accessToken")))
	require.Equal(p.t, afterLogin, p.lifetime(login.cookie("accessToken")))
}

func (p *program) isLogin(a response) {
	a.is(200, fmt.Sprintf(`{"status":"Logged in","token":%q,"refreshToken":%q}`, a.field("token"), a.field("refreshToken")))
	require.Empty(p.t, a.cookies)
}

func (p *program) hasHash(prefix string) {
	p.users.change("1001", func(a *account) { require.True(p.t, strings.HasPrefix(a.hash, prefix), a.hash) })
}

// tryWithSecrets returns the error of a start with these secrets.
func tryWithSecrets(access, refresh string) error {
	secrets := map[string]string{"SECRET_KEY": access, "REFRESH_SECRET_KEY": refresh}
	o, err := parse([]string{"-addr", "127.0.0.1:0"}, func(name string) string { return secrets[name] }, io.Discard)
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return run(ended, o, io.Discard)
}

// recorder records the first failure of a play.
type recorder struct{ failure string }

func (r *recorder) Errorf(format string, args ...any) { r.failure = fmt.Sprintf(format, args...) }

func (r *recorder) FailNow() { panic(r) }

// failure returns why play fails, or "".
func failure(p *program, play func(*program)) string {
	r := &recorder{}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(r) {
				panic(v)
			}
		}()
		p.t = r
		play(p)
	}()
	return r.failure
}

// TestStatements plays every row of the table in README.md.
func TestStatements(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var listed []string
	for _, row := range regexp.MustCompile(`(?m)^\| (\w+) \| (.+?) \| ?(.*?) ?\| ?(.*?) ?\|$`).FindAllStringSubmatch(string(text), -1) {
		number, deviation, reason := row[1], row[3], row[4]
		listed = append(listed, number)
		t.Run(number, func(t *testing.T) {
			t.Parallel()
			s := statements[number]
			require.NotNil(t, s.letter, "no test plays this statement")
			require.Equal(t, deviation == "", reason == "", "a deviation and its reason belong together")
			broken := failure(start(t), s.letter)
			if deviation == "" {
				require.Empty(t, broken, "the statement does not hold, and the table lists no deviation")
				require.Nil(t, s.deviation, "the table does not list this deviation")
				return
			}
			require.NotEmpty(t, broken, "the statement holds, so the table must not list a deviation")
			require.NotNil(t, s.deviation, "no test plays this deviation")
			require.Empty(t, failure(start(t), s.deviation))
		})
	}
	require.ElementsMatch(t, keys(statements), listed)
	for n := range 22 {
		require.True(t, slices.Contains(listed, fmt.Sprint(n+1)))
	}
}
