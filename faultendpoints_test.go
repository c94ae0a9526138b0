package auth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/ratchet-go/auth"
)

// weakHash returns a hash of pass that a login replaces.
var weakHash = sync.OnceValue(func() string {
	h, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(h)
})

const (
	wrongLogin = `{"login":"ada","password":"a wrong password"}`
	retryKey   = "AbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPA"
)

// sum returns the first value of a retry key that a client sends.
func sum(key string) string {
	digest := sha256.Sum256([]byte(key))
	return "sha256=" + base64.RawURLEncoding.EncodeToString(digest[:])
}

// signedIn is the setup of most endpoints: the client has a session whose cooldown is
// over, of a generation after the second.
func signedIn(c *faultCell) {
	c.run()
	c.main.signIn()
	c.main.refresh(2)
	time.Sleep(defaultCooldown + time.Second)
	c.main.send(context.Background(), "POST", "/refresh", "") // a fresh access token
	time.Sleep(defaultCooldown + time.Second)
}

// twoDevices is signedIn with another device.
func twoDevices(c *faultCell) {
	c.run()
	c.signInOther()
	signedIn(c)
}

// provedPassword requires a second factor, and proves the password.
func provedPassword(c *faultCell) {
	c.run()
	c.factor.methods = []string{"otp"}
	c.proveAgain(context.Background())
}

// proveAgain proves the password, and keeps the challenge.
func (c *faultCell) proveAgain(ctx context.Context) {
	_, err := c.Login(ctx, "ada", pass, auth.SessionOptions{})
	var required *auth.FactorError
	require.ErrorAs(c.t, err, &required, c.what)
	c.text = required.Challenge
	c.secrets = append(c.secrets, c.text)
}

func (c *faultCell) respond(ctx context.Context, response string) faultAnswer {
	return c.main.send(ctx, "POST", "/login/factor", fmt.Sprintf(`{"challenge":%q,"method":"otp","response":%q}`, c.text, response))
}

// spentToken lets the client have the token that it has just spent, as if the answer
// to its request was lost.
func spentToken(options ...requestOption) func(*faultCell) {
	return func(c *faultCell) {
		c.run()
		c.main.signIn()
		c.main.refresh(1)
		time.Sleep(defaultCooldown + time.Second)
		token := c.main.cookies[refreshCookie]
		require.Equal(c.t, "200", c.main.send(context.Background(), "POST", "/refresh", "", options...).text)
		c.main.cookies[refreshCookie] = token
	}
}

// withoutAccess is signedIn without the access token, as after an hour.
func withoutAccess(c *faultCell) {
	signedIn(c)
	delete(c.main.cookies, accessCookie)
}

// call returns a request whose handler calls a function of the package.
func call(f func(ctx context.Context, c *faultCell) (auth.Tokens, error)) func(context.Context, *faultCell) faultAnswer {
	return func(ctx context.Context, c *faultCell) faultAnswer { return c.main.called(f(ctx, c)) }
}

// callError is call for a function without a result.
func callError(f func(ctx context.Context, c *faultCell) error) func(context.Context, *faultCell) faultAnswer {
	return call(func(ctx context.Context, c *faultCell) (auth.Tokens, error) { return auth.Tokens{}, f(ctx, c) })
}

// issue issues a one-time token of u1.
func (c *faultCell) issue(ctx context.Context, bound bool) (err error) {
	c.text, err = c.IssueOneTime(ctx, auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour, BoundToPassword: bound})
	c.secrets = append(c.secrets, c.text)
	return err
}

// ticketed lets the client have a ticket.
func ticketed(c *faultCell) {
	signedIn(c)
	c.getTicket(context.Background())
}

// getTicket gets a ticket for /stream.
func (c *faultCell) getTicket(ctx context.Context) faultAnswer {
	a := c.main.send(ctx, "POST", "/ticket", `{"path":"/stream"}`)
	if a.ok() {
		_, rest, _ := strings.Cut(a.body, `"ticket":"`)
		c.text, _, _ = strings.Cut(rest, `"`)
		c.secrets = append(c.secrets, c.text)
	}
	return a
}

// handshake opens a stream with the ticket.
func handshake(ctx context.Context, c *faultCell) faultAnswer {
	return c.main.send(ctx, "GET", "/stream?ticket="+c.text, "", eventSource)
}

// handshakeAnew opens a stream with another ticket.
func handshakeAnew(ctx context.Context, c *faultCell) faultAnswer {
	c.getTicket(ctx)
	return handshake(ctx, c)
}

func faultEndpoints() []faultEndpoint {
	withMaxSessions := func(n int, refuse bool) func(*auth.Config) {
		return func(c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = n, refuse }
	}
	running := func(c *faultCell) { c.run() }
	otherDevice := func(c *faultCell) { c.run(); c.signInOther() }
	spendOneTime := callError(func(ctx context.Context, c *faultCell) error {
		_, err := c.SpendOneTime(ctx, "reset", c.text, laptop)
		return err
	})
	return []faultEndpoint{
		// Login
		{group: "Login", name: "`POST /login`", setup: running, request: post("/login", goodLogin), want: "200"},
		{group: "Login", name: "`POST /login`, the hash is weak", setup: func(c *faultCell) {
			c.run()
			c.users.change("u1", func(u *auth.User) { u.PasswordHash = weakHash() })
		}, request: post("/login", goodLogin), want: "200"},
		{group: "Login", name: "`POST /login`, the browser has a session", setup: signedIn, request: post("/login", goodLogin), want: "200"},
		{group: "Login", name: "`POST /login`, `MaxSessions` is reached", config: withMaxSessions(1, false), setup: otherDevice, request: post("/login", goodLogin), want: "200", endsOther: true},
		{group: "Login", name: "`POST /login`, with `RefuseOverLimit`", config: withMaxSessions(2, true), setup: otherDevice, request: post("/login", goodLogin), want: "200"},
		{group: "Login", name: "`POST /login`, over `RefuseOverLimit`", config: withMaxSessions(1, true), setup: otherDevice, request: post("/login", goodLogin), want: "409 too_many_sessions", signedOut: true},
		{group: "Login", name: "`POST /login`, a wrong password", setup: running, request: post("/login", wrongLogin), want: "401 invalid_credentials", signedOut: true},
		{group: "Login", name: "`POST /login`, an unknown user", setup: running, request: post("/login", strings.ReplaceAll(wrongLogin, "ada", "nobody")), want: "401 invalid_credentials", signedOut: true},
		{group: "Login", name: "`POST /login`, a disabled user", setup: func(c *faultCell) {
			c.run()
			c.users.change("u1", func(u *auth.User) { u.Disabled = true })
		}, request: post("/login", goodLogin), want: "401 invalid_credentials", signedOut: true},
		{group: "Login", name: "`POST /login`, a guess while throttled", setup: func(c *faultCell) {
			c.run()
			for range 9 { // the next attempt must wait for 16 seconds
				time.Sleep(time.Minute)
				require.Equal(c.t, "401 invalid_credentials", c.main.send(context.Background(), "POST", "/login", wrongLogin).text)
			}
		}, request: post("/login", wrongLogin), want: "429 too_many_attempts", signedOut: true, allow: map[string]string{"Limiter.Take": "401 invalid_credentials"}},
		{group: "Login", name: "`POST /login`, a second factor is required", setup: func(c *faultCell) {
			c.run()
			c.factor.methods = []string{"otp"}
		}, request: post("/login", goodLogin), want: "401 factor_required", signedOut: true},
		{
			group: "Login", name: "`POST /login/factor`", setup: provedPassword, want: "200",
			allow:   map[string]string{"SecondFactor.Verify carried out twice": "401 invalid_credentials"},
			request: func(ctx context.Context, c *faultCell) faultAnswer { return c.respond(ctx, "code-one") },
			anew: func(ctx context.Context, c *faultCell) faultAnswer {
				if a := c.respond(ctx, "code-two"); a.ok() {
					return a
				}
				c.proveAgain(ctx)
				return c.respond(ctx, "code-three")
			},
		},
		{
			group: "Login", name: "`POST /login/factor`, a wrong response", setup: provedPassword, want: "401 invalid_credentials", signedOut: true,
			request: func(ctx context.Context, c *faultCell) faultAnswer { return c.respond(ctx, "wrong") },
		},
		{group: "Login", name: "`StartSession`", setup: running, request: call(func(ctx context.Context, c *faultCell) (auth.Tokens, error) {
			return c.StartSession(ctx, "u1", auth.SessionOptions{})
		}), want: "ok"},
		{group: "Login", name: "`StartSession`, before `Run` has read the feed", setup: func(*faultCell) {}, request: call(func(ctx context.Context, c *faultCell) (auth.Tokens, error) {
			return c.StartSession(ctx, "u1", auth.SessionOptions{})
		}), want: "ok"},
		{group: "Login", name: "`StartSession` with an `Actor`", setup: running, request: call(func(ctx context.Context, c *faultCell) (auth.Tokens, error) {
			return c.StartSession(ctx, "u1", auth.SessionOptions{Actor: "u2"})
		}), want: "ok"},
		{group: "Login", name: "`Continue`", setup: signedIn, request: call(func(ctx context.Context, c *faultCell) (auth.Tokens, error) {
			return c.Continue(ctx, c.main.claims(), auth.SessionOptions{})
		}), want: "ok"},

		// Refresh
		{group: "Refresh", name: "`POST /refresh`", setup: signedIn, request: post("/refresh", ""), want: "200"},
		{group: "Refresh", name: "`POST /refresh`, the first of a session", setup: func(c *faultCell) {
			c.run()
			c.main.signIn()
		}, request: post("/refresh", ""), want: "200"},
		{group: "Refresh", name: "`POST /refresh` with a retry key", setup: signedIn, want: "200", request: func(ctx context.Context, c *faultCell) faultAnswer {
			key := sum(retryKey)
			if c.sent++; c.sent > 1 {
				key = retryKey
			}
			return c.main.send(ctx, "POST", "/refresh", "", reqHeader("Refresh-Key", key))
		}},
		{group: "Refresh", name: "`POST /refresh` in the cooldown", setup: func(c *faultCell) {
			c.run()
			c.main.signIn()
			c.main.refresh(2)
		}, request: post("/refresh", ""), want: "200", writesNoRow: true},
		{group: "Refresh", name: "`POST /refresh`, a retry in the window", setup: spentToken(), request: post("/refresh", ""), want: "200", writesNoRow: true},
		{group: "Refresh", name: "`POST /refresh`, a late retry", setup: func(c *faultCell) {
			spentToken(reqHeader("Refresh-Key", sum(retryKey)))(c)
			time.Sleep(10 * time.Minute)
		}, request: post("/refresh", "", reqHeader("Refresh-Key", retryKey)), want: "200", writesNoRow: true, retriesLate: true},
		{group: "Refresh", name: "`POST /refresh`, a spent token", setup: func(c *faultCell) {
			spentToken()(c)
			time.Sleep(10 * time.Minute)
		}, request: post("/refresh", ""), want: "401 invalid_grant", signedOut: true, revokes: true},
		{group: "Refresh", name: "`POST /refresh` with `Config.Claims`", config: func(c *auth.Config) {
			c.Claims = func(context.Context, auth.User, auth.Session) (map[string]any, error) { return nil, nil }
		}, setup: signedIn, request: post("/refresh", ""), want: "200"},
		{group: "Refresh", name: "`POST /refresh` of a session with an `Actor`", setup: func(c *faultCell) {
			c.run()
			c.main.called(c.StartSession(context.Background(), "u1", auth.SessionOptions{Actor: "u2"}))
		}, request: post("/refresh", ""), want: "200"},
		{group: "Refresh", name: "`POST /refresh` of a disabled user", setup: func(c *faultCell) {
			signedIn(c)
			c.users.change("u1", func(u *auth.User) { u.Disabled = true })
		}, request: post("/refresh", ""), want: "401 invalid_grant", signedOut: true, revokes: true},
		{group: "Refresh", name: "`POST /refresh` of a session that was revoked", setup: func(c *faultCell) {
			signedIn(c)
			require.NoError(c.t, c.Revoke(context.Background(), "u1", c.main.session()))
		}, request: post("/refresh", ""), want: "401 invalid_grant", signedOut: true, revokes: true},
		{group: "Refresh", name: "`GET` with `AutoRefresh`", config: func(c *auth.Config) { c.AutoRefresh = true }, setup: withoutAccess, want: "307", request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "GET", "/page", "")
		}},
		{group: "Refresh", name: "`POST` with `AutoRefresh`", config: func(c *auth.Config) { c.AutoRefresh = true }, setup: withoutAccess, want: "200", request: post("/page", "")},

		// Protected requests
		{group: "Protected requests", name: "`GET` with `Require`", setup: signedIn, want: "200", request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "GET", "/page", "")
		}},
		{group: "Protected requests", name: "`GET` with `Require`, and `StaleAskStore` while the feed is stale", config: func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore }, setup: func(c *faultCell) {
			signedIn(c)
			c.stop()
			time.Sleep(2 * time.Minute)
		}, want: "200", request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "GET", "/page", "")
		}},
		{group: "Protected requests", name: "`GET` with `Require`, a second after `Run` was called", setup: func(c *faultCell) { c.main.signIn() }, want: "200", reportsLater: true, request: func(ctx context.Context, c *faultCell) faultAnswer {
			c.startWith(ctx)
			time.Sleep(time.Second)
			return c.main.send(ctx, "GET", "/page", "")
		}},

		// Ending sessions
		{group: "Ending sessions", name: "`POST /logout`", setup: signedIn, request: post("/logout", ""), want: "204", clears: true, signedOut: true, revokes: true},
		{group: "Ending sessions", name: "`POST /logout` with tokens that have expired", setup: func(c *faultCell) {
			signedIn(c)
			c.text = c.main.cookies[refreshCookie]
			delete(c.main.cookies, refreshCookie)
			time.Sleep(time.Hour)
		}, request: post("/logout", ""), want: "204", clears: true, signedOut: true, revokes: true},
		{group: "Ending sessions", name: "`POST /logout/all`", setup: twoDevices, request: post("/logout/all", ""), want: "204", repeated: "401 invalid_token", clears: true, signedOut: true, endsOther: true, revokes: true},
		{group: "Ending sessions", name: "`POST /logout/all?others=true`", setup: twoDevices, request: post("/logout/all?others=true", ""), want: "204", endsOther: true, revokes: true},
		{group: "Ending sessions", name: "`GET /sessions`", setup: twoDevices, want: "200", request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "GET", "/sessions", "")
		}},
		{group: "Ending sessions", name: "`DELETE /sessions/{id}`", setup: twoDevices, want: "204", repeated: "404 not_found", repeatsAfter: 10 * time.Second, endsOther: true, revokes: true, request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "DELETE", "/sessions/"+c.other.session(), "")
		}},
		{group: "Ending sessions", name: "`DELETE /sessions/{id}`, its own", setup: twoDevices, want: "204", repeated: "401 invalid_token", clears: true, signedOut: true, revokes: true, request: func(ctx context.Context, c *faultCell) faultAnswer {
			return c.main.send(ctx, "DELETE", "/sessions/"+c.main.session(), "")
		}},
		{group: "Ending sessions", name: "`Revoke`", setup: twoDevices, want: "ok", endsOther: true, revokes: true, request: callError(func(ctx context.Context, c *faultCell) error {
			return c.Revoke(ctx, "u1", c.other.session())
		})},
		{group: "Ending sessions", name: "`RevokeAll`", setup: twoDevices, want: "ok", signedOut: true, endsOther: true, revokes: true, request: callError(func(ctx context.Context, c *faultCell) error {
			return c.RevokeAll(ctx, "u1")
		})},
		{group: "Ending sessions", name: "`ExpireAccess`", setup: twoDevices, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			return c.ExpireAccess(ctx, "u1")
		})},

		// Passwords
		{group: "Passwords", name: "`POST /password`", setup: twoDevices, request: post("/password", fmt.Sprintf(`{"current_password":%q,"new_password":%q}`, pass, newPassword)), want: "204", endsOther: true, revokes: true},
		{group: "Passwords", name: "`POST /password`, the current one is wrong", setup: twoDevices, request: post("/password", fmt.Sprintf(`{"current_password":"wrong","new_password":%q}`, newPassword)), want: "403 invalid_credentials"},
		{group: "Passwords", name: "`SetPassword`", setup: twoDevices, want: "ok", signedOut: true, endsOther: true, revokes: true, request: callError(func(ctx context.Context, c *faultCell) error {
			return c.SetPassword(ctx, "u1", newPassword, laptop)
		})},
		{group: "Passwords", name: "`CheckPassword`", setup: signedIn, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			_, err := c.CheckPassword(ctx, "ada", pass, laptop)
			return err
		})},
		{group: "Passwords", name: "`HashPassword`", setup: signedIn, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			_, err := c.HashPassword(ctx, newPassword, laptop)
			return err
		})},
		{group: "Passwords", name: "`Throttle`", setup: signedIn, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			return c.Throttle(ctx, "pin", "u1", laptop, func(context.Context) error { return nil })
		})},
		{group: "Passwords", name: "`Throttle`, a wrong secret", setup: signedIn, want: "401 invalid_credentials", request: callError(func(ctx context.Context, c *faultCell) error {
			return c.Throttle(ctx, "pin", "u1", laptop, func(context.Context) error { return auth.ErrInvalidCredentials })
		})},

		// One-time tokens
		{group: "One-time tokens", name: "`IssueOneTime`, bound to the password", setup: signedIn, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			return c.issue(ctx, true)
		})},
		{group: "One-time tokens", name: "`CheckOneTime`, bound to the password", setup: func(c *faultCell) {
			signedIn(c)
			require.NoError(c.t, c.issue(context.Background(), true))
		}, want: "ok", request: callError(func(ctx context.Context, c *faultCell) error {
			_, err := c.CheckOneTime(ctx, "reset", c.text)
			return err
		})},
		{group: "One-time tokens", name: "`SpendOneTime`", setup: func(c *faultCell) {
			signedIn(c)
			require.NoError(c.t, c.issue(context.Background(), false))
		}, want: "ok", request: spendOneTime, anew: func(ctx context.Context, c *faultCell) faultAnswer {
			require.NoError(c.t, c.issue(ctx, false))
			return spendOneTime(ctx, c)
		}},
		{group: "One-time tokens", name: "`SpendOneTime`, spent before", setup: func(c *faultCell) {
			signedIn(c)
			require.NoError(c.t, c.issue(context.Background(), false))
			require.Equal(c.t, "ok", spendOneTime(context.Background(), c).text)
		}, want: "400 used_token", request: spendOneTime},
		{group: "One-time tokens", name: "`SpendOneTime`, a forged token", setup: func(c *faultCell) {
			signedIn(c)
			c.text = "rubbish"
		}, want: "400 invalid_token", request: spendOneTime},
		{group: "One-time tokens", name: "`Once`", setup: signedIn, want: "ok", repeated: "400 used_token", request: callError(func(ctx context.Context, c *faultCell) error {
			return c.Once(ctx, "u1", "an id", time.Hour)
		})},

		// Streams
		{group: "Streams", name: "`POST /ticket`", setup: signedIn, want: "200", request: func(ctx context.Context, c *faultCell) faultAnswer { return c.getTicket(ctx) }},
		{group: "Streams", name: "`GET` with `RequireStream` and a ticket", setup: ticketed, want: "200", request: handshake, anew: handshakeAnew},
		{group: "Streams", name: "`GET` with a ticket, and `StaleAskStore` while the feed is stale", config: func(c *auth.Config) { c.StalePolicy = auth.StaleAskStore }, setup: func(c *faultCell) {
			signedIn(c)
			c.stop()
			time.Sleep(2 * time.Minute)
			c.getTicket(context.Background())
		}, want: "200", request: handshake, anew: handshakeAnew},
		{group: "Streams", name: "`GET` with a ticket that was spent before", setup: func(c *faultCell) {
			ticketed(c)
			require.Equal(c.t, "200", handshake(context.Background(), c).text)
		}, want: "401 used_token", request: handshake},
		{group: "Streams", name: "`GET` with a forged ticket", setup: func(c *faultCell) {
			signedIn(c)
			c.text = "rubbish"
		}, want: "401 invalid_token", request: handshake},
		{group: "Streams", name: "`GET` with a ticket of a session that was revoked", setup: func(c *faultCell) {
			ticketed(c)
			require.NoError(c.t, c.Revoke(context.Background(), "u1", c.main.session()))
		}, want: "401 invalid_token", signedOut: true, revokes: true, request: handshake},
	}
}
