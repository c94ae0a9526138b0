package secrets

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

const (
	issuer        = "https://secrets.example"
	deviceCookie  = "__Host-Http-device"
	accessCookie  = "__Host-access"
	refreshCookie = "__Host-Http-refresh"
)

// scenario is an application with two processes on one store, and what was captured
// of it.
type scenario struct {
	t        *testing.T
	clock    *authtest.Clock
	secrets  *registry
	captured *capture
	faults   *faults
	store    auth.Store
	users    *users
	factor   *factor
	// a has all hooks and a server. b reports to the default logger, and counts
	// attempts in memory.
	a, b   *auth.Authenticator
	server *httptest.Server
	other  http.HandlerFunc // serves /other
	logs   *sink            // of LogEvents
	errors *sink            // of http.Server
	events map[auth.EventType]bool
	mu     sync.Mutex // guards events
	count  int
	stop   func() // ends the server and both processes

	passwords map[string]string // by user
}

func newScenario(t *testing.T, s auth.Store) *scenario {
	sc := &scenario{
		t: t, clock: authtest.NewClock(time.Now().Truncate(time.Second)), // servers of stores have clocks of their own
		secrets: &registry{}, captured: &capture{}, faults: &faults{}, logs: &sink{}, errors: &sink{},
		events: map[auth.EventType]bool{}, passwords: map[string]string{},
	}
	sc.store = store{s, sc.faults}
	sc.users = &users{faults: sc.faults, byID: map[string]auth.User{}}
	sc.factor = &factor{faults: sc.faults, code: sc.secret("the code of bob"), once: func(id string) error {
		return sc.a.Once(context.Background(), "bob", id, time.Hour)
	}}
	current, previous := sc.configSecret("the current secret"), sc.configSecret("the previous secret")
	logEvents := auth.LogEvents(slog.New(slog.NewJSONHandler(sc.logs, nil)))
	config := func(change func(*auth.Config)) *auth.Authenticator {
		c := auth.Config{
			Issuer: issuer, Audience: []string{issuer}, Secrets: [][]byte{current, previous},
			Users: sc.users, Hasher: sc.faults.hasher(), Store: sc.store, SecondFactor: sc.factor, Now: sc.clock.Now,
			Cookies: &auth.Cookies{AllowBody: true}, TokenCacheSize: 64, MaxSessions: 10,
		}
		change(&c)
		sc.captured.value(inValue, "Config", c)
		a, err := auth.New(c)
		require.NoError(t, err)
		return a
	}
	sc.a = config(func(c *auth.Config) {
		c.Extractors = []auth.Extractor{auth.FromBearer(), auth.FromCookie(), auth.FromQuery("access_token"), auth.FromHeader("X-Token")}
		c.Limiter = &limiter{faults: sc.faults, captured: sc.captured, now: sc.clock.Now, counts: map[string]int{}}
		c.OnLogin = func(context.Context, auth.User, *auth.SessionOptions) error { return sc.faults.at("OnLogin") }
		c.Claims = func(context.Context, auth.User, auth.Session) (map[string]any, error) {
			return nil, sc.faults.at("Claims")
		}
		c.OnError = func(w http.ResponseWriter, r *http.Request, err error) {
			sc.captured.value(inError, "OnError", err)
			if err := sc.faults.at("OnError"); err != nil {
				panic(err)
			}
			auth.DefaultOnError(w, r, err)
		}
		c.OnEvent = func(ctx context.Context, e auth.Event) {
			sc.captured.value(inEvent, string(e.Type), e)
			logEvents(ctx, e)
			sc.mu.Lock()
			sc.events[e.Type] = true
			sc.mu.Unlock()
			if err := sc.faults.at("OnEvent"); err != nil {
				panic(err)
			}
		}
	})
	sc.b = config(func(*auth.Config) {})

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, a := range []*auth.Authenticator{sc.a, sc.b} {
		wg.Go(func() { _ = a.Run(ctx) })
		<-a.Ready()
	}
	guard := func(context.Context, *auth.Claims) error { return sc.faults.at("Guard") }
	me := sc.a.Require(guard)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		sc.captured.value(inValue, "Claims", c)
		_, _ = io.WriteString(w, c.Subject)
	}))
	stream := sc.a.RequireStream(guard)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		sc.captured.value(inValue, "Claims", c)
		sc.captured.add(inLog, "the request of a stream", fmt.Sprintf("%s %+v %v", r.RequestURI, r.URL, r.Form))
		_, _ = io.WriteString(w, c.Subject)
	}))
	handlerA, handlerB := http.StripPrefix("/auth", sc.a.Handler()), http.StripPrefix("/b/auth", sc.b.Handler())
	sc.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch { // http.ServeMux redirects to the path that it was given
		case strings.HasPrefix(r.URL.Path, "/auth/"):
			handlerA.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/b/auth/"):
			handlerB.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/stream"):
			stream.ServeHTTP(w, r)
		case r.URL.Path == "/other":
			sc.other(w, r)
		default:
			me.ServeHTTP(w, r)
		}
	}))
	sc.server.Config.ErrorLog = log.New(sc.errors, "", 0)
	sc.server.Start()
	sc.stop = sync.OnceFunc(func() {
		sc.server.Close()
		cancel()
		wg.Wait()
	})
	t.Cleanup(sc.stop)
	return sc
}

// secret returns a new secret text, and registers it.
func (sc *scenario) secret(name string, allowed ...place) string {
	s := rand.Text()[:16] + " <'\"&\\é> " + rand.Text()[:8] // characters that encodings change
	sc.secrets.add(sc.t, name, []byte(s), allowed...)
	return s
}

// configSecret returns a secret for Config.Secrets, and registers it and its keys.
func (sc *scenario) configSecret(name string) []byte {
	s := make([]byte, 32)
	_, _ = rand.Read(s) // never fails
	sc.secrets.add(sc.t, name, s)
	derive := func(from []byte, label string) []byte {
		key, err := hkdf.Key(sha256.New, from, nil, "ratchet v1 "+label, 32)
		require.NoError(sc.t, err)
		sc.secrets.add(sc.t, "the "+label+" key of "+name, key)
		return key
	}
	derive(s, "access")
	derive(derive(s, "refresh"), "one-time")
	return s
}

// retryKey returns a new retry key and its digest, and registers them.
func (sc *scenario) retryKey(name string) (key, digest string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	key = base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(key))
	digest = base64.RawURLEncoding.EncodeToString(sum[:])
	sc.secrets.addKey(sc.t, name, key)
	sc.secrets.addKey(sc.t, "the digest of "+name, digest)
	return key, "sha256=" + digest
}

// tokens registers tokens, and captures how they are printed.
func (sc *scenario) tokens(name string, t auth.Tokens) auth.Tokens {
	sc.count++
	sc.secrets.addToken(sc.t, fmt.Sprintf("access token %d (%s)", sc.count, name), t.Access)
	sc.secrets.addToken(sc.t, fmt.Sprintf("refresh token %d (%s)", sc.count, name), t.Refresh)
	sc.captured.value(inValue, "Tokens", t)
	return t
}

// failed captures an error of package auth.
func (sc *scenario) failed(what string, err error) {
	sc.t.Helper()
	require.Error(sc.t, err, what)
	sc.captured.value(inError, what, err)
	sc.captured.value(inValue, "ResponseFor "+what, auth.ResponseFor(err))
}

// hash registers a password hash.
func (sc *scenario) hash(name, hash string) string {
	sc.secrets.addHash(sc.t, name, hash)
	return hash
}

// client is a client of the server. It has the cookies of one user.
type client struct {
	*scenario
	name    string
	cookies map[string]string
}

func (sc *scenario) client(name string) *client { return &client{sc, name, map[string]string{}} }

// response is what a client received. fields are those of the body.
type response struct {
	status int
	fields map[string]any
}

func (r response) text(name string) string { s, _ := r.fields[name].(string); return s }

// post sends the fields as JSON, with headers in pairs.
func (c *client) post(path string, fields map[string]any, headers ...string) response {
	body, err := json.Marshal(fields)
	require.NoError(c.t, err)
	return c.send(http.MethodPost, path, string(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

// send sends a request, and captures the response without the tokens of the client
// where they belong: the cookies, and the fields of a body for a client without
// cookies.
func (c *client) send(method, path, body string, headers ...string) response {
	c.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, c.server.URL+path, strings.NewReader(body))
	require.NoError(c.t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	for _, name := range slices.Sorted(maps.Keys(c.cookies)) {
		r.Header.Add("Cookie", name+"="+c.cookies[name])
	}
	res, err := http.DefaultTransport.RoundTrip(r) // no redirects
	require.NoError(c.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(c.t, err)
	what := "the response to " + method + " by " + c.name

	header, inCookies := res.Header.Clone(), false
	header.Del("Set-Cookie")
	for _, cookie := range res.Cookies() {
		inCookies = inCookies || cookie.Name == refreshCookie && cookie.Value != ""
		switch line := cookie.Raw; cookie.Name {
		case accessCookie, refreshCookie, deviceCookie:
			if cookie.Value != "" {
				c.delivered("the cookie "+cookie.Name, cookie.Value)
			}
			c.cookies[cookie.Name] = cookie.Value
			line = strings.Replace(line, cookie.Value, "", 1)
			fallthrough
		default:
			header.Add("Set-Cookie", line)
		}
	}
	shown, fields := string(raw), map[string]any{}
	if json.Unmarshal(raw, &fields) == nil && !inCookies {
		for _, name := range []string{"access_token", "refresh_token", "challenge", "ticket"} {
			if token, _ := fields[name].(string); token != "" {
				c.delivered(name, token)
				shown = strings.Replace(shown, token, "", 1)
			}
		}
	}
	c.captured.value(inHeader, what, header)
	c.captured.add(inBody, what, shown)
	c.captured.add(inHeader, what, res.Status)
	return response{res.StatusCode, fields}
}

// delivered registers a token that the client has received, which must be its own.
func (c *client) delivered(name, token string) {
	c.t.Helper()
	c.count++
	c.secrets.addToken(c.t, fmt.Sprintf("token %d (%s of %s)", c.count, name, c.name), token)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(c.t, err)
	var claims struct{ Sub string }
	require.NoError(c.t, json.Unmarshal(payload, &claims))
	require.Equal(c.t, c.name, claims.Sub, "a client has received the token of another user")
}

// login logs in by the given delivery.
func (c *client) login(delivery string) response {
	return c.post("/auth/login", map[string]any{"login": c.name, "password": c.passwords[c.name], "delivery": delivery})
}

// expect fails unless the response has the status.
func (c *client) expect(status int, r response) response {
	c.t.Helper()
	require.Equal(c.t, status, r.status, "%v", r.fields["error"])
	return r
}

// play plays the whole scenario.
func (sc *scenario) play() {
	for _, part := range []func(){sc.signUp, sc.logins, sc.secondFactor, sc.refreshes, sc.passwordChanges, sc.sessions, sc.streams, sc.wrongPlaces, sc.throttled, sc.failures, sc.keyRotation} {
		part()
		sc.clock.Advance(2 * time.Hour)
	}
	for name, v := range map[string]any{"Authenticator": sc.a, "Verifier": sc.a.Verifier, "Health": sc.a.Health(), "User": sc.users.byID["ada"]} {
		sc.captured.value(inValue, name, v)
	}
}

func (sc *scenario) signUp() {
	ctx := context.Background()
	for _, user := range []string{"ada", "bob", "carol", "dora"} {
		sc.passwords[user] = sc.secret("the password of " + user)
		hash, err := sc.a.HashPassword(ctx, sc.passwords[user], auth.Device{})
		require.NoError(sc.t, err)
		sc.users.set(user, sc.hash("the hash of "+user, hash))
	}
	leaked := "leaked " + rand.Text()
	sc.secrets.add(sc.t, "a refused password", []byte(leaked))
	_, err := sc.a.HashPassword(ctx, leaked, auth.Device{})
	sc.failed("HashPassword", err)
	_, err = sc.a.HashPassword(ctx, strings.Repeat(leaked, 200), auth.Device{})
	sc.failed("HashPassword", err)
	old, err := bcrypt.GenerateFromPassword([]byte(sc.passwords["dora"]), bcrypt.MinCost)
	require.NoError(sc.t, err)
	sc.users.set("dora", sc.hash("the bcrypt hash of dora", string(old)))
}

func (sc *scenario) logins() {
	ctx := context.Background()
	ada := sc.client("ada")
	ada.expect(200, ada.login("cookie"))
	require.NotEmpty(sc.t, ada.cookies[deviceCookie])
	ada.expect(200, ada.login("cookie")) // from the known device
	ada.expect(200, ada.send("GET", "/me", ""))
	stranger := sc.client("ada")
	stranger.expect(200, stranger.login("body"))
	dora := sc.client("dora")
	dora.expect(200, dora.post("/b/auth/login", map[string]any{"login": "dora", "password": sc.passwords["dora"], "delivery": "body"}))
	upgraded, _ := sc.users.find("dora")
	require.NotContains(sc.t, upgraded.PasswordHash, "$2a$")
	sc.hash("the upgraded hash of dora", upgraded.PasswordHash)

	wrong, asLogin := sc.secret("a wrong password"), sc.secret("a password typed as the login")
	for _, c := range []*client{ada, sc.client("ada")} {
		c.expect(401, c.post("/auth/login", map[string]any{"login": "ada", "password": wrong}))
	}
	ada.expect(401, ada.post("/auth/login", map[string]any{"login": asLogin, "password": wrong}))
	ada.expect(401, ada.post("/b/auth/login", map[string]any{"login": asLogin, "password": wrong}))
	for _, fields := range []map[string]any{
		{"login": sc.passwords["ada"]},
		{"password": wrong},
		{"login": "ada", "password": []string{wrong}},
		{"login": map[string]any{wrong: "ada"}, "password": wrong},
		{"login": "ada", "password": wrong, "delivery": wrong},
		{"login": "ada", "password": wrong, "remember": wrong},
		{"login": "ada", "username": wrong, "password": wrong},
	} {
		ada.expect(400, ada.post("/auth/login", fields))
	}
	number := "830174629551"
	sc.secrets.add(sc.t, "a password that is a number", []byte(number))
	ada.send("POST", "/auth/login", `{"login":"ada","password":`+number+`}`, "Content-Type", "application/json")
	ada.send("POST", "/auth/login", `{"login":"ada","password":`+number+`"`+number, "Content-Type", "application/json")
	ada.send("POST", "/auth/login", "login=ada&password="+url.QueryEscape(wrong)+"&password="+number, "Content-Type", "application/x-www-form-urlencoded")
	ada.send("POST", "/auth/login", "login=ada&password=%zz"+number, "Content-Type", "application/x-www-form-urlencoded")
	ada.send("POST", "/auth/login", wrong, "Content-Type", "text/plain")
	ada.send("POST", "/auth/login?password="+number, `{"login":"ada"}`, "Content-Type", "application/json")
	ada.send("GET", "/auth/login?login=ada&password="+number, "")
	ada.send("POST", "/auth/login", `{"login":"ada","password":"`+number+`","delivery":"cookie"}`, "Content-Type", "application/json", "Origin", "https://evil.example")

	_, err := sc.a.Login(ctx, "ada", wrong, auth.SessionOptions{})
	sc.failed("Login", err)
	_, err = sc.a.CheckPassword(ctx, asLogin, wrong, auth.Device{})
	sc.failed("CheckPassword", err)
	_, err = sc.a.Login(ctx, "ada", strings.Repeat(wrong, 100), auth.SessionOptions{})
	sc.failed("Login", err)
	sc.users.set("broken", "$argon2id$v=19$m=64,t=1,p=1$"+wrong)
	_, err = sc.a.Login(ctx, "broken", wrong, auth.SessionOptions{})
	sc.failed("Login", err)
	_, err = sc.a.Login(ctx, "ada", sc.passwords["ada"], auth.SessionOptions{Name: strings.Repeat("x", 2000), AMR: []string{wrong}})
	sc.failed("Login", err)
}

func (sc *scenario) secondFactor() {
	ctx := context.Background()
	bob, wrong := sc.client("bob"), sc.secret("a wrong code")
	second := func(challenge, method, response string) response {
		return bob.post("/auth/login/factor", map[string]any{"challenge": challenge, "method": method, "response": response})
	}
	challenge := bob.expect(401, bob.login("cookie")).text("challenge")
	require.NotEmpty(sc.t, challenge)
	bob.expect(401, second(challenge, "otp", wrong))
	bob.expect(400, second(challenge, sc.factor.code, "otp")) // in the wrong field
	bob.expect(400, second(challenge, "", sc.factor.code))
	second(sc.factor.code, "otp", challenge)
	bob.expect(401, second(challenge[:len(challenge)-4]+"AAAA", "otp", sc.factor.code))
	bob.expect(200, second(challenge, "recovery", sc.factor.code))
	bob.expect(401, second(challenge, "otp", sc.factor.code)) // spent
	challenge = bob.expect(401, bob.login("cookie")).text("challenge")
	bob.expect(401, second(challenge, "recovery", sc.factor.code)) // used before
	for range 4 {
		bob.expect(401, second(challenge, "otp", wrong))
	}

	sc.clock.Advance(2 * time.Hour)
	_, err := sc.b.Login(ctx, "bob", sc.passwords["bob"], auth.SessionOptions{})
	var f *auth.FactorError
	require.ErrorAs(sc.t, err, &f)
	sc.secrets.addToken(sc.t, "the challenge of FactorError", f.Challenge)
	sc.failed("Login", err)
	sc.captured.value(inValue, "FactorError", *f)
	_, err = sc.b.LoginFactor(ctx, f.Challenge, "otp", wrong, auth.SessionOptions{})
	sc.failed("LoginFactor", err)
	_, err = sc.b.LoginFactor(ctx, f.Challenge, sc.factor.code, "otp", auth.SessionOptions{})
	sc.failed("LoginFactor", err)
	tokens, err := sc.b.LoginFactor(ctx, f.Challenge, "otp", sc.factor.code, auth.SessionOptions{})
	require.NoError(sc.t, err)
	sc.tokens("LoginFactor", tokens)
}

func (sc *scenario) refreshes() {
	ctx := context.Background()
	ada := sc.client("ada")
	first := ada.expect(200, ada.login("body")).text("refresh_token")
	key, digest := sc.retryKey("a retry key")
	refresh := func(token, key string) response {
		return ada.send("POST", "/auth/refresh", "", "Refresh-Token", token, "Refresh-Key", key)
	}
	sc.clock.Advance(10 * time.Minute)
	second := ada.expect(200, refresh(first, digest)).text("refresh_token")
	require.Equal(sc.t, second, ada.expect(200, refresh(first, digest)).text("refresh_token"), "a retry")
	sc.clock.Advance(10 * time.Minute)
	ada.expect(200, refresh(first, key)) // a late retry
	ada.expect(400, refresh(second, key+"AAA"))
	ada.expect(400, refresh(second, key[1:]))
	third := ada.expect(200, refresh(second, "sha256="+key)).text("refresh_token")
	require.NotEmpty(sc.t, third)
	sc.clock.Advance(10 * time.Minute)
	other, _ := sc.retryKey("the retry key of a thief")
	ada.expect(401, refresh(first, other)) // reuse
	ada.expect(401, refresh(third, other)) // revoked
	o := auth.RefreshOptions{RetryKey: key}
	sc.captured.value(inValue, "RefreshOptions", o)
	_, err := sc.b.Refresh(ctx, third, o)
	sc.failed("Refresh", err)
	_, err = sc.b.Refresh(ctx, third+third, o)
	sc.failed("Refresh", err)

	web := sc.client("ada") // with cookies
	web.expect(200, web.login("cookie"))
	sc.clock.Advance(10 * time.Minute)
	web.expect(200, web.post("/auth/refresh", nil))
	web.expect(200, web.post("/auth/refresh", nil))
	web.expect(403, web.post("/auth/refresh", nil, "Sec-Fetch-Site", "cross-site"))
	web.expect(200, web.send("GET", "/auth/sessions", ""))
	web.expect(200, web.send("GET", "/me", ""))
	web.expect(204, web.post("/auth/logout", nil))
	web.expect(200, web.login("cookie"))
	web.expect(204, web.post("/auth/logout/all", nil))
	sc.clock.Advance(10 * time.Minute)
}

func (sc *scenario) passwordChanges() {
	ctx := context.Background()
	ada := sc.client("ada")
	ada.expect(200, ada.login("cookie"))
	next, wrong := sc.secret("the second password of ada"), sc.secret("a wrong current password")
	change := func(current, next string) response {
		return ada.post("/auth/password", map[string]any{"current_password": current, "new_password": next})
	}
	ada.expect(403, change(wrong, next))
	ada.expect(422, change(sc.passwords["ada"], sc.passwords["ada"]))
	ada.expect(422, change(sc.passwords["ada"], "leaked "+next))
	ada.expect(400, ada.post("/auth/password", map[string]any{"current_password": []string{wrong}, "new_password": next}))
	ada.expect(204, change(sc.passwords["ada"], next))
	sc.passwords["ada"] = next
	user, _ := sc.users.find("ada")
	sc.hash("the second hash of ada", user.PasswordHash)

	token, err := sc.a.IssueOneTime(ctx, auth.OneTime{Purpose: "reset", Subject: "ada", TTL: time.Hour, BoundToPassword: true})
	require.NoError(sc.t, err)
	sc.secrets.addToken(sc.t, "a token to reset the password", token)
	o, err := sc.a.CheckOneTime(ctx, "reset", token)
	require.NoError(sc.t, err)
	sc.captured.value(inValue, "OneTime", o)
	_, err = sc.a.CheckOneTime(ctx, "verify", token)
	sc.failed("CheckOneTime", err)
	reset := sc.secret("the third password of ada")
	require.NoError(sc.t, sc.a.SetPassword(ctx, "ada", reset, auth.Device{}))
	sc.passwords["ada"] = reset
	user, _ = sc.users.find("ada")
	sc.hash("the third hash of ada", user.PasswordHash)
	_, err = sc.a.SpendOneTime(ctx, "reset", token, auth.Device{})
	sc.failed("SpendOneTime", err)
	sc.failed("SetPassword", sc.a.SetPassword(ctx, "ada", "leaked "+reset, auth.Device{}))
	sc.failed("SetPassword", sc.a.SetPassword(ctx, "nobody", reset, auth.Device{}))

	link, err := sc.a.IssueOneTime(ctx, auth.OneTime{Purpose: "link", Subject: "ada", TTL: time.Hour})
	require.NoError(sc.t, err)
	sc.secrets.addToken(sc.t, "the token of a link", link)
	_, err = sc.b.SpendOneTime(ctx, "link", link, auth.Device{})
	require.NoError(sc.t, err)
	_, err = sc.a.SpendOneTime(ctx, "link", link, auth.Device{})
	sc.failed("SpendOneTime", err)
	_, err = sc.a.SpendOneTime(ctx, "link", link+"A", auth.Device{})
	sc.failed("SpendOneTime", err)
	_, err = sc.a.IssueOneTime(ctx, auth.OneTime{Purpose: "a link", Subject: "ada", TTL: time.Hour, Data: []byte(reset)})
	sc.failed("IssueOneTime", err)
}

func (sc *scenario) sessions() {
	ctx := context.Background()
	data := []byte(sc.secret("the data of a session", inStore, inEvent, inValue))
	tokens, err := sc.a.StartSession(ctx, "ada", auth.SessionOptions{Data: data, AMR: []string{"hwk"}})
	require.NoError(sc.t, err)
	sc.tokens("StartSession", tokens)
	claims, err := sc.a.Verify(ctx, tokens.Access)
	require.NoError(sc.t, err)
	sc.captured.value(inValue, "Claims", claims)
	o := auth.SessionOptions{Data: data, Replaces: []string{tokens.Access, tokens.Refresh}}
	sc.captured.value(inValue, "SessionOptions", o)
	continued, err := sc.a.Continue(ctx, claims, o)
	require.NoError(sc.t, err)
	sc.tokens("Continue", continued)
	_, err = sc.b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
	sc.failed("Refresh", err)
	_, err = sc.a.Verify(ctx, tokens.Access)
	sc.failed("Verify", err)
	acting, err := sc.a.StartSession(ctx, "ada", auth.SessionOptions{Actor: "carol", Data: data})
	require.NoError(sc.t, err)
	sc.tokens("an acting session", acting)
	claims, err = sc.a.Verify(ctx, acting.Access)
	require.NoError(sc.t, err)
	sc.failed("ChangePassword", sc.a.ChangePassword(ctx, claims, sc.passwords["ada"], sc.passwords["ada"]+"x", auth.Device{}))
	_, err = sc.a.StartSession(auth.NewContext(ctx, claims), "ada", auth.SessionOptions{})
	sc.failed("StartSession", err)
	require.NoError(sc.t, sc.a.Logout(ctx, acting.Refresh, acting.Access))
	c := sc.client("ada")
	bearer := func(method, path string) response {
		return c.send(method, path, "", "Authorization", "Bearer "+continued.Access)
	}
	c.expect(200, bearer("GET", "/auth/sessions"))
	c.expect(204, bearer("DELETE", "/auth/sessions/"+continued.SessionID))
	c.expect(401, bearer("GET", "/me"))
	require.NoError(sc.t, sc.a.ExpireAccess(ctx, "ada"))
	require.NoError(sc.t, sc.a.RevokeAll(ctx, "ada"))
	sc.failed("Throttle", sc.a.Throttle(ctx, "pin", sc.secret("an account that is a secret"), auth.Device{}, func(context.Context) error { return auth.ErrInvalidCredentials }))
}

// stream sends the handshake of a stream.
func (c *client) stream(path, ticket string) response {
	return c.send("GET", path+"?x=1&ticket="+url.QueryEscape(ticket), "", "Accept", "text/event-stream")
}

func (sc *scenario) streams() {
	ada := sc.client("ada")
	access := ada.expect(200, ada.login("body")).text("access_token")
	ticket := func(path string) response {
		return ada.post("/auth/ticket", map[string]any{"path": path}, "Authorization", "Bearer "+access)
	}
	first, second := ada.expect(200, ticket("/stream")).text("ticket"), ada.expect(200, ticket("/stream/other")).text("ticket")
	ada.expect(400, ticket("/stream?ticket="+first))
	ada.expect(400, ada.send("GET", "/stream?ticket="+first, ""))
	ada.expect(400, ada.stream("/stream", second))
	ada.expect(401, ada.stream("/stream", first+"x"))
	ada.expect(401, ada.stream("/stream", access))
	ada.expect(401, ada.send("GET", "/me", "", "Authorization", "Bearer "+first))
	ada.expect(200, ada.stream("/stream", first))
	ada.expect(401, ada.stream("/stream", first))
	require.NoError(sc.t, sc.a.RevokeAll(context.Background(), "ada"))
	ada.expect(401, ada.stream("/stream/other", second))
}

// wrongPlaces sends credentials where they do not belong, and tokens that are not
// valid.
func (sc *scenario) wrongPlaces() {
	ada := sc.client("ada")
	tokens := ada.expect(200, ada.login("body"))
	access, refresh := tokens.text("access_token"), tokens.text("refresh_token")
	stranger := sc.client("ada")
	forged := func(token string) string {
		b := []byte(token)
		b[len(b)-20] ^= 1
		if b[len(b)-20] == '.' || b[len(b)-20] == '`' || b[len(b)-20] == '[' || b[len(b)-20] == '@' || b[len(b)-20] == '{' {
			b[len(b)-20] = 'x'
		}
		return string(b)
	}
	for _, token := range []string{access, refresh, forged(access), forged(refresh), access[:len(access)-5], refresh + "=", "x" + refresh} {
		for _, path := range []string{"/me", "/auth/sessions", "/auth/refresh", "/auth/logout/all", "/auth/jwks.json", "/auth/password", "/auth/nothing", "/auth/ticket", "/stream"} {
			for _, method := range []string{"GET", "POST"} {
				if token == access && path != "/auth/refresh" || strings.Contains(path, "logout") && method == "POST" {
					continue // where it belongs
				}
				for _, headers := range [][]string{
					{"Authorization", "Bearer " + token},
					{"Authorization", token},
					{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(token))},
					{"Authorization", "Token token=" + token},
					{"X-Token", "Bearer " + token},
					{"Cookie", accessCookie + "=" + token},
					{"Cookie", refreshCookie + "=" + token[:len(token)-1]},
					{"Cookie", deviceCookie + "=" + token},
				} {
					if token == refresh && headers[0] == "Cookie" {
						continue // it is in one of the cookies
					}
					stranger.send(method, path, "", headers...)
				}
			}
		}
		q := url.QueryEscape(token)
		for _, path := range []string{
			"/me?access_token=" + q + "x", "/stream?ticket=" + q, "/me?token=" + q, "/auth/refresh?refresh_token=" + q, "/auth/login?token=" + q,
			"/auth/refresh/" + q, "/auth/" + q, "/auth/Bearer%20" + q, "/auth/login/" + q + "/factor", "/auth//" + q, "/auth/%65" + q[1:],
			"/auth/jwks.json/" + q, "/auth/logout;token=" + q, "/" + q, "/me/" + q,
		} {
			stranger.send("GET", path, "")
			stranger.send("POST", path, "")
		}
		for _, body := range []string{token, `{"token":"` + token + `"}`, `{"refresh_token":["` + token + `"]}`, `{"refresh_token":"` + token, "refresh_token=" + token + "&refresh_token=x"} {
			for _, kind := range []string{"application/json", "application/x-www-form-urlencoded", "text/plain", "application/xml", token} {
				for _, path := range []string{"/auth/login", "/auth/login/factor", "/auth/password"} {
					stranger.send("POST", path, body, "Content-Type", kind)
				}
				stranger.send("PUT", "/auth/refresh", body, "Content-Type", kind)
			}
		}
		stranger.send("POST", "/auth/login", "{}", "Content-Type", "application/json", "Origin", "https://x.example/"+token)
		stranger.send("POST", "/auth/login", "{}", "Content-Type", "application/json", "X-Forwarded-For", token)
		stranger.send("POST", "/auth/refresh", "", "Refresh-Token", token+"x", "Refresh-Key", token)
		stranger.post("/auth/login/factor", map[string]any{"challenge": token, "method": token, "response": token})
		stranger.send("DELETE", "/auth/sessions/"+q, "", "Authorization", "Bearer "+access)
	}
	ada.send("POST", "/auth/logout", refresh, "Content-Type", "text/plain")
}

func (sc *scenario) throttled() {
	dora, wrong := sc.client("dora"), sc.secret("the guess of an attacker")
	var last response
	for range 7 {
		last = dora.post("/auth/login", map[string]any{"login": "dora", "password": wrong})
	}
	dora.expect(429, last)
	dora.expect(429, dora.login("body"))
	for range 7 {
		dora.post("/auth/login", map[string]any{"login": wrong, "password": wrong})
		dora.post("/b/auth/login", map[string]any{"login": wrong, "password": wrong})
	}
}

// failures makes each hook fail, by an error and by a panic, while requests need it.
func (sc *scenario) failures() {
	ctx := context.Background()
	hooks := []string{
		"Users.FindByLogin", "Users.FindByID", "Users.UpdatePasswordHash", "SecondFactor.Methods", "SecondFactor.Verify", "OnLogin",
		"Claims", "Extra", "OnEvent", "OnError", "Guard", "Limiter.Take", "Limiter.Settle", "Hasher.Screen",
		"Store.Create", "Store.Get", "Store.Rotate", "Store.List", "Store.Revoke", "Store.Spend",
	}
	sc.passwords["eve"], sc.passwords["dora"] = sc.secret("the password of eve"), sc.secret("the second password of dora")
	hash, err := sc.a.HashPassword(ctx, sc.passwords["eve"], auth.Device{})
	require.NoError(sc.t, err)
	sc.users.set("eve", sc.hash("the hash of eve", hash))
	old, err := (&password.Hasher{Memory: 32, Time: 1}).Hash(ctx, sc.passwords["dora"]) // a login replaces it
	require.NoError(sc.t, err)
	sc.hash("an old hash of dora", old)
	for i, hook := range hooks {
		failures := sc.failuresOf(hook)
		panics := slices.DeleteFunc(slices.Sorted(maps.Keys(failures)), func(mode string) bool { return mode == "an error" })
		for mode, fail := range failures {
			if mode != "an error" && mode != panics[i%len(panics)] {
				continue // one kind of panic of each hook is enough to find what is forgotten
			}
			sc.clock.Advance(2 * time.Hour)
			started, err := sc.a.StartSession(ctx, "eve", auth.SessionOptions{})
			require.NoError(sc.t, err)
			sc.tokens("a session before a failure", started)
			sc.clock.Advance(3 * time.Minute)
			sc.users.set("dora", old)
			bob, eve, carol, dora := sc.client("bob"), sc.client("eve"), sc.client("carol"), sc.client("dora")
			challenge := bob.expect(401, bob.login("body")).text("challenge")
			ticket := eve.expect(200, eve.post("/auth/ticket", map[string]any{"path": "/stream"}, "Authorization", "Bearer "+started.Access)).text("ticket")

			sc.faults.set(hook, fail)
			eve.login("body")
			bob.login("body")
			bob.post("/auth/login/factor", map[string]any{"challenge": challenge, "method": "otp", "response": sc.factor.code})
			carol.post("/auth/login", map[string]any{"login": "carol", "password": sc.passwords["eve"]})
			dora.login("body")
			eve.send("GET", "/me", "", "Authorization", "Bearer "+started.Access)
			eve.send("GET", "/auth/sessions", "", "Authorization", "Bearer "+started.Access)
			eve.stream("/stream", ticket)
			eve.send("POST", "/auth/refresh", "", "Refresh-Token", started.Refresh)
			eve.send("GET", "/me", "", "Authorization", "Bearer "+started.Refresh)
			if _, err := sc.a.HashPassword(ctx, sc.passwords["eve"]+mode, auth.Device{}); err != nil {
				sc.failed("HashPassword", err)
			}
			eve.send("POST", "/auth/logout", "", "Refresh-Token", started.Refresh)
			sc.faults.set("", nil)
			require.Positive(sc.t, sc.faults.times[hook], "%s must have failed", hook)
			sc.faults.times[hook] = 0
			if user, _ := sc.users.find("dora"); user.PasswordHash != old {
				sc.hash(fmt.Sprintf("the hash of dora after %s of %s", mode, hook), user.PasswordHash)
			}
		}
	}

	// The feed fails in a process of its own.
	for _, fail := range sc.failuresOf("Store.Changes") {
		failed := make(chan auth.Event, 100)
		c, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{issuer}, Secrets: [][]byte{sc.configSecret("the secret of a third process")}, TokenCacheSize: 64,
			Users: sc.users, Store: sc.store, Now: sc.clock.Now, OnEvent: func(_ context.Context, e auth.Event) {
				select {
				case failed <- e:
				default:
				}
			},
		})
		require.NoError(sc.t, err)
		sc.faults.set("Store.Changes", fail)
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		sc.captured.value(inEvent, "a fault of the feed", <-failed)
		sc.faults.set("", nil)
		cancel()
		wg.Wait()
	}
}

// panicValue is a value whose fields and methods have a secret.
type panicValue struct {
	Text  string
	Bytes []byte
}

func (p panicValue) Error() string    { return p.Text }
func (p panicValue) String() string   { return p.Text }
func (p panicValue) GoString() string { return p.Text }

// failuresOf returns the ways in which a hook fails. What an application puts into an
// error is in the events and logs, and in nothing that a client receives.
func (sc *scenario) failuresOf(hook string) map[string]func() error {
	text := func(mode string, allowed ...place) string { return sc.secret(mode+" of "+hook, allowed...) }
	inText, inStruct := text("the panic text"), text("the panic value")
	inError, inPanic := text("the error text", inLog, inEvent, inError), text("the panic error")
	return map[string]func() error{
		"an error":        func() error { return errors.New("it failed: " + inError) },
		"a panic":         func() error { panic("it failed: " + inText) },
		"a panic error":   func() error { panic(fmt.Errorf("it failed: %s", inPanic)) },
		"a panic struct":  func() error { panic(&panicValue{inStruct, []byte(inStruct)}) },
		"a wrapped panic": func() error { panic(fmt.Errorf("it failed: %w", panicValue{inStruct, []byte(inStruct)})) },
	}
}

func (sc *scenario) keyRotation() {
	ctx := context.Background()
	tokens, err := sc.a.StartSession(ctx, "ada", auth.SessionOptions{})
	require.NoError(sc.t, err)
	sc.tokens("before the rotation of keys", tokens)
	access, refresh := auth.HS256(sc.configSecret("the next access key")), auth.HS256(sc.configSecret("the next refresh key"))
	sc.captured.value(inValue, "Keys", auth.Keys{access, refresh})
	sc.failed("SetKeys", sc.a.SetKeys(auth.Keys{access}, auth.Keys{access}))
	require.NoError(sc.t, sc.a.SetKeys(auth.Keys{access}, auth.Keys{refresh}))
	_, err = sc.a.Verify(ctx, tokens.Access)
	sc.failed("Verify", err)
	_, err = sc.a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
	sc.failed("Refresh", err)
	next, err := sc.a.StartSession(ctx, "ada", auth.SessionOptions{Replaces: []string{tokens.Refresh}})
	require.NoError(sc.t, err)
	sc.tokens("after the rotation of keys", next)
	ada := sc.client("ada")
	ada.expect(200, ada.login("cookie"))
	ada.expect(200, ada.send("GET", "/auth/jwks.json", ""))
}
