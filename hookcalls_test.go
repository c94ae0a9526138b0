package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// badHook is application code that misbehaves in one of the ways of badHooks.
type badHook struct {
	name    atomic.Value // of the hook; "" or nil means none
	how     string
	release chan struct{} // ends the calls that hang
}

var badHooks = []string{"panics", "has a runtime error", "hangs", "hangs until its context ends", "ends its goroutine", "returns late"}

// at is called at the begin of each hook.
func (b *badHook) at(ctx context.Context, name string) error {
	if bad, _ := b.name.Load().(string); bad != name {
		return nil
	}
	switch b.how {
	case "panics":
		panic("private")
	case "has a runtime error":
		var m map[string]int
		m["x"] = 1
	case "hangs":
		<-b.release
		return errStore
	case "hangs until its context ends":
		<-ctx.Done()
		return ctx.Err()
	case "ends its goroutine":
		runtime.Goexit()
	case "returns late":
		time.Sleep(20 * time.Second)
	}
	return nil
}

type badUsers struct {
	*storedUsers
	*badHook
}

func (u badUsers) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	if err := u.at(ctx, "Users.FindByLogin"); err != nil {
		return auth.User{}, err
	}
	return u.storedUsers.FindByLogin(ctx, login)
}

func (u badUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	if err := u.at(ctx, "Users.FindByID"); err != nil {
		return auth.User{}, err
	}
	return u.storedUsers.FindByID(ctx, id)
}

func (u badUsers) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	if err := u.at(ctx, "Users.UpdatePasswordHash"); err != nil {
		return err
	}
	return u.storedUsers.UpdatePasswordHash(ctx, id, old, next)
}

// Methods requires a second factor of bob.
func (b *badHook) Methods(ctx context.Context, u auth.User, _ auth.Device) ([]string, error) {
	if err := b.at(ctx, "SecondFactor.Methods"); err != nil || u.ID != "u2" {
		return nil, err
	}
	return []string{"otp"}, nil
}

func (b *badHook) Verify(ctx context.Context, _ auth.User, _, _ string) error {
	return b.at(ctx, "SecondFactor.Verify")
}

func (b *badHook) Take(ctx context.Context, _ []auth.Bucket) (time.Duration, int, error) {
	return 0, 0, b.at(ctx, "Limiter.Take")
}

func (b *badHook) Settle(ctx context.Context, _, _ []auth.Bucket) error {
	return b.at(ctx, "Limiter.Settle")
}

// badSigner is a signer as of a KMS. It has no context to heed.
type badSigner struct {
	ed25519.PrivateKey
	*badHook
}

func (s badSigner) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.at(context.Background(), "Signer"); err != nil {
		return nil, err
	}
	return s.PrivateKey.Sign(rand, message, opts)
}

// bubbleServer serves h over connections in memory, which a synctest bubble permits.
type bubbleServer struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (s *bubbleServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *bubbleServer) Close() error   { return nil }
func (s *bubbleServer) Addr() net.Addr { return &net.TCPAddr{} }

// serve returns a client of a server of h, and a function that ends both.
func serve(h http.Handler) (*http.Client, func()) {
	s := &bubbleServer{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: h, ErrorLog: nil}
	go func() { _ = server.Serve(s) }()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, remote := net.Pipe()
		s.conns <- remote
		return client, nil
	}}
	return &http.Client{Transport: transport}, func() {
		transport.CloseIdleConnections()
		close(s.closed)
		_ = server.Close()
	}
}

// hookFixture has an application all of whose code may misbehave.
type hookFixture struct {
	*auth.Authenticator
	bad    *badHook
	events *events
	store  *testStore
	client *http.Client
	tokens auth.Tokens // of ada
	factor string      // a challenge of bob
}

// testHooks calls test in a bubble. At its end no goroutine is left, or the bubble
// fails.
func testHooks(t *testing.T, how string, test func(t *testing.T, fx *hookFixture), change ...func(*auth.Config)) {
	synctest.Test(t, func(t *testing.T) {
		fx := &hookFixture{bad: &badHook{how: how, release: make(chan struct{})}, store: newTestStore()}
		fx.store.on(func(ctx context.Context) error { return fx.bad.at(ctx, "Store.Create") }, "Create")
		for _, m := range []string{"Get", "Rotate", "List", "Revoke", "Spend"} {
			fx.store.on(func(ctx context.Context) error { return fx.bad.at(ctx, "Store."+m) }, m)
		}
		_, private, err := ed25519.GenerateKey(nil)
		require.NoError(t, err)
		fx.Authenticator, fx.events = newNode(t, fx.store, append([]func(*auth.Config){func(c *auth.Config) {
			c.Secrets = nil
			c.AccessKeys = auth.Keys{auth.EdDSA(badSigner{private, fx.bad})}
			c.RefreshKeys = auth.Keys{auth.HS256(refreshSecret)}
			c.Users = badUsers{&storedUsers{users: newUsers()}, fx.bad}
			c.SecondFactor, c.Limiter = fx.bad, fx.bad
			c.Hasher = &password.Hasher{Memory: 64, Time: 1, Screen: func(ctx context.Context, _ string) error { return fx.bad.at(ctx, "Hasher.Screen") }}
			c.OnLogin = func(ctx context.Context, _ auth.User, o *auth.SessionOptions) error {
				err := fx.bad.at(ctx, "Config.OnLogin")
				o.Name = "set late"
				return err
			}
			c.Claims = func(ctx context.Context, _ auth.User, _ auth.Session) (map[string]any, error) {
				return nil, fx.bad.at(ctx, "Config.Claims")
			}
			add := c.OnEvent
			c.OnEvent = func(ctx context.Context, e auth.Event) {
				add(ctx, e)
				_ = fx.bad.at(ctx, "OnEvent")
			}
		}}, change...)...)
		stop := run(fx.Verifier)
		defer stop()
		<-fx.Ready()
		mux := http.NewServeMux()
		mux.Handle("/", fx.Handler())
		mux.Handle("GET /guarded", fx.Require(auth.Role("user"), func(ctx context.Context, _ *auth.Claims) error {
			return fx.bad.at(ctx, "Guard")
		})(hello))
		client, end := serve(mux)
		fx.client = client
		defer end()
		fx.tokens = startSession(t, fx.Authenticator)
		_, err = fx.Login(t.Context(), "bob", pass, auth.SessionOptions{})
		var required *auth.FactorError
		require.ErrorAs(t, err, &required)
		fx.factor = required.Challenge
		fx.events.take("")
		test(t, fx)
	})
}

// send sends a request of the name. Each may be repeated.
func (fx *hookFixture) send(t *testing.T, name string) (status int, fields map[string]any) {
	t.Helper()
	bodies := map[string]any{
		"/login":        map[string]string{"login": "ada", "password": pass},
		"/login/factor": map[string]string{"challenge": fx.factor, "method": "otp", "response": "123456"},
		"/refresh":      map[string]string{"refresh_token": fx.tokens.Refresh},
		"/logout":       map[string]string{"refresh_token": fx.tokens.Refresh},
		"/password":     map[string]string{"current_password": pass, "new_password": "another long password"},
	}
	method, body := http.MethodPost, []byte{}
	if b := bodies[name]; b == nil {
		method = http.MethodGet
	} else {
		body, _ = json.Marshal(b)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://example.com"+name, bytes.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if name == "/guarded" || name == "/password" {
		r.Header.Set("Authorization", "Bearer "+fx.tokens.Access)
	}
	resp, err := fx.client.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	_ = json.Unmarshal(text, &fields)
	require.NotContains(t, string(text), "private")
	return resp.StatusCode, fields
}

// Whatever the application's code does, the request is answered in time with a 503,
// an event says why, nobody is signed out, and the same request succeeds afterward.
func TestHooks_ThatMisbehaveAreContained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hook, endpoint string
		status         int
	}{
		{"Users.FindByLogin", "/login", 503},
		{"Users.FindByID", "/login", 503},
		{"Users.FindByID", "/login/factor", 503},
		{"Users.FindByID", "/refresh", 503},
		{"Users.FindByID", "/password", 503},
		{"Users.UpdatePasswordHash", "/password", 503},
		{"SecondFactor.Methods", "/login", 503},
		{"SecondFactor.Verify", "/login/factor", 503},
		{"Config.OnLogin", "/login", 503},
		{"Config.OnLogin", "/login/factor", 503},
		{"Config.Claims", "/login", 503},
		{"Config.Claims", "/refresh", 503},
		{"Signer", "/login", 503},
		{"Signer", "/refresh", 503},
		{"Store.Create", "/login", 503},
		{"Store.List", "/login", 503},
		{"Store.Get", "/refresh", 503},
		{"Store.Rotate", "/refresh", 503},
		{"Store.Revoke", "/logout", 503},
		{"Store.Spend", "/login/factor", 503},
		{"Guard", "/guarded", 503},
		{"OnEvent", "/login", 200},
		{"OnEvent", "/refresh", 200},
		{"Limiter.Take", "/login", 200},
		{"Limiter.Settle", "/login", 200},
		{"Hasher.Screen", "/password", 204},
	} {
		for _, how := range badHooks {
			if c.hook == "Signer" && how == "hangs until its context ends" {
				continue // it has no context
			}
			t.Run(c.hook+" "+how+" "+c.endpoint, func(t *testing.T) {
				t.Parallel()
				testHooks(t, how, func(t *testing.T, fx *hookFixture) {
					ignores := how == "hangs" || how == "returns late"
					fx.bad.name.Store(c.hook)
					begun := time.Now()
					status, _ := fx.send(t, c.endpoint)
					want := c.status
					if panics := strings.HasPrefix(how, "panics") || strings.HasPrefix(how, "has a") || strings.HasPrefix(how, "ends"); c.hook == "Guard" && panics {
						want = 500
					}
					require.Equal(t, want, status)
					require.LessOrEqual(t, time.Since(begun), 12*time.Second)
					if c.hook == "OnEvent" {
						require.LessOrEqual(t, time.Since(begun), 4*time.Second)
					} else {
						faults := fx.events.take(auth.EventFault)
						require.NotEmpty(t, faults)
						require.NotContains(t, faults[0].Err.Error(), "private")
						if ignores {
							require.ErrorContains(t, faults[0].Err, c.hook+" did not return when its context ended, after at most ")
						}
					}
					if ignores {
						require.NotZero(t, fx.Health().Abandoned)
					} else {
						require.Zero(t, fx.Health().Abandoned)
					}
					fx.bad.name.Store("")
					close(fx.bad.release)
					time.Sleep(21 * time.Second) // within the retry window
					synctest.Wait()
					require.Zero(t, fx.Health().Abandoned, "all calls have returned")
					if c.status >= 500 {
						status, fields := fx.send(t, c.endpoint)
						require.Contains(t, []int{200, 204}, status, fields)
					}
					if c.endpoint != "/logout" {
						_, err := fx.Refresh(t.Context(), fx.tokens.Refresh, auth.RefreshOptions{})
						require.NoError(t, err, "nobody was signed out")
					}
				})
			})
		}
	}
}

// A hook is not called any more once 64 of its calls have not returned. Other hooks,
// and the same hook after the calls have returned, are.
func TestHooks_AbandonedCallsAreBounded(t *testing.T) {
	t.Parallel()
	testHooks(t, "hangs", func(t *testing.T, fx *hookFixture) {
		fx.bad.name.Store("Users.FindByID")
		ctx := t.Context()
		for range 64 {
			_, err := fx.Refresh(ctx, fx.tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrUnavailable)
		}
		require.Equal(t, 64, fx.Health().Abandoned)
		fx.events.take("")
		begun := time.Now()
		for range 10 {
			status, _ := fx.send(t, "/refresh")
			require.Equal(t, 503, status)
		}
		require.Zero(t, time.Since(begun), "the hook is not called")
		require.Equal(t, 64, fx.Health().Abandoned)
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1, "one event a minute")
		require.ErrorContains(t, faults[0].Err, "auth: Users.FindByID is not called, because 64 calls of it did not return when their contexts ended")
		_, err := fx.CheckPassword(ctx, "ada", pass, auth.Device{})
		require.NoError(t, err, "another hook is called")
		close(fx.bad.release)
		synctest.Wait()
		require.Zero(t, fx.Health().Abandoned)
		fx.bad.name.Store("")
		_, err = fx.Refresh(ctx, fx.tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	})
}

// A client that disconnects ends the context of a hook at once, but cannot cause a
// slow hook to be abandoned before its time.
func TestHooks_AClientThatDisconnects(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"hangs until its context ends", "hangs"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			testHooks(t, how, func(t *testing.T, fx *hookFixture) {
				fx.bad.name.Store("Config.Claims")
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				time.AfterFunc(time.Second, cancel)
				begun := time.Now()
				_, err := fx.Refresh(ctx, fx.tokens.Refresh, auth.RefreshOptions{})
				require.ErrorIs(t, err, auth.ErrUnavailable)
				if how == "hangs" {
					require.Equal(t, 5100*time.Millisecond, time.Since(begun))
					require.Len(t, fx.events.take(auth.EventFault), 1, "it is reported, although the client has gone")
				} else {
					require.Equal(t, time.Second, time.Since(begun))
					require.Empty(t, fx.events.take(auth.EventFault))
				}
				close(fx.bad.release)
			})
		})
	}
}

// While any hook blocks, other requests and Run go on: no lock is held.
func TestHooks_BlockNothingElse(t *testing.T) {
	t.Parallel()
	for hook, endpoint := range map[string]string{
		"Users.FindByLogin": "/login", "Users.FindByID": "/refresh", "Users.UpdatePasswordHash": "/password", "SecondFactor.Methods": "/login",
		"SecondFactor.Verify": "/login/factor", "Config.OnLogin": "/login", "Config.Claims": "/refresh", "Signer": "/refresh", "Store.Create": "/login",
		"Store.List": "/login", "Store.Get": "/refresh", "Store.Rotate": "/refresh", "Store.Revoke": "/logout", "Store.Spend": "/login/factor",
		"Guard": "/guarded", "OnEvent": "/login", "Limiter.Take": "/login", "Limiter.Settle": "/login", "Hasher.Screen": "/password",
	} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			testHooks(t, "hangs", func(t *testing.T, fx *hookFixture) {
				fx.bad.name.Store(hook)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = fx.send(t, endpoint)
				}()
				synctest.Wait() // the hook hangs
				fx.bad.name.Store("")
				begun := time.Now()
				require.Zero(t, fx.Health().Abandoned)
				require.NoError(t, fx.SetKeys(nil, auth.Keys{auth.HS256(refreshSecret), auth.HS256(refresh2Secret)}))
				k := startOtherSession(t, fx.Authenticator)
				_, err := fx.Verify(t.Context(), k.Access)
				require.NoError(t, err)
				_, err = fx.Refresh(t.Context(), k.Refresh, auth.RefreshOptions{})
				require.NoError(t, err)
				_, err = fx.CheckPassword(t.Context(), "bob", pass, auth.Device{})
				require.NoError(t, err)
				require.NoError(t, fx.Revoke(t.Context(), "u2", k.SessionID))
				_, err = fx.Verify(t.Context(), k.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked)
				require.Zero(t, time.Since(begun))
				require.NoError(t, fx.store.Store.Revoke(t.Context(), auth.Revocation{Subject: "u9", Sessions: []string{"x"}, Until: begun.Add(time.Hour)}))
				synctest.Wait()
				require.Less(t, fx.Health().FeedAge, time.Second, "Run goes on")
				close(fx.bad.release)
				<-done
			})
		})
	}
}

// Run returns although the store ignores its context.
func TestRun_ReturnsWhileChangesHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, release := newTestStore(), make(chan struct{})
		a, es := newNode(t, store)
		stop := run(a.Verifier)
		<-a.Ready()
		store.on(func(context.Context) error { <-release; return errStore }, "Changes")
		time.Sleep(8 * time.Second) // a call may wait for 5 seconds, and one that hangs has 7
		begun := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(begun), time.Second)
		abandoned := a.Health().Abandoned
		require.Positive(t, abandoned)
		stop = run(a.Verifier)
		time.Sleep(time.Minute)
		require.Greater(t, a.Health().Abandoned, abandoned)
		require.NotEmpty(t, es.take(auth.EventFault))
		stop()
		close(release)
		synctest.Wait()
		require.Zero(t, a.Health().Abandoned)
	})
}

// OnError has the ResponseWriter of the request, so its panic is contained in the
// goroutine of the request.
func TestOnError_APanicIsContained(t *testing.T) {
	t.Parallel()
	var onError func(w http.ResponseWriter)
	fx := newFixture(t, func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, _ *http.Request, _ error) { onError(w) }
	})
	h := fx.Require()(hello)
	onError = func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "7")
		panic("private")
	}
	r := send(t, h, "GET", "/")
	r.requireRefused(t, 500, "server_error", "")
	require.Empty(t, r.header.Get("Content-Length"))
	require.Equal(t, "Authorization", r.header.Get("Vary"), "headers that were set before remain")
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "auth: Config.OnError panicked with a string")
	for name, f := range map[string]func(w http.ResponseWriter){
		"after the status": func(w http.ResponseWriter) { w.WriteHeader(401); panic("x") },
		"after a write":    func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")); panic("x") },
		"after a flush":    func(w http.ResponseWriter) { w.(http.Flusher).Flush(); panic("x") },
		"by unwrapping": func(w http.ResponseWriter) {
			_ = http.NewResponseController(w).Flush()
			panic("x")
		},
	} {
		onError = f
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(httptest.NewRecorder(), newRequest()) }, name)
		require.Len(t, fx.events.take(auth.EventFault), 1, name)
	}
	onError = func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(httptest.NewRecorder(), newRequest()) })
	require.Empty(t, fx.events.take(auth.EventFault), "it is no fault")
}

func TestOnError_ACallThatTakesLongIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, es := newNode(t, newTestStore(), func(c *auth.Config) {
			c.HookTimeout = time.Second
			c.OnError = func(w http.ResponseWriter, _ *http.Request, _ error) { time.Sleep(time.Minute) }
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.WriteError(httptest.NewRecorder(), newRequest(), auth.ErrNoToken)
		}()
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, a.Health().Abandoned)
		require.ErrorContains(t, es.take(auth.EventFault)[0].Err, "auth: Config.OnError has not returned after 1s; the request waits for it")
		<-done
		require.Zero(t, a.Health().Abandoned)
	})
}

// A hook gets the values and the deadline of the request, and contexts that it
// derives end with its own.
func TestHooks_ContextIsThatOfTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var got context.Context
		var derived context.Context
		var stopped func() bool
		ran := make(chan struct{})
		a, _ := newNode(t, newTestStore(), func(c *auth.Config) {
			c.HookTimeout = 3 * time.Second
			c.OnLogin = func(ctx context.Context, _ auth.User, _ *auth.SessionOptions) error {
				got = ctx
				var cancel func()
				derived, cancel = context.WithTimeout(ctx, time.Hour)
				_ = context.AfterFunc(ctx, cancel)
				stopped = context.AfterFunc(ctx, func() { t.Error("was stopped") })
				require.True(t, stopped())
				stop := ctx.(interface{ AfterFunc(f func()) func() bool }).AfterFunc(func() { t.Error("was stopped") })
				require.True(t, stop())
				require.False(t, stop(), "it was stopped before")
				context.AfterFunc(ctx, func() { close(ran) })
				require.NoError(t, ctx.Err())
				<-ctx.Done()
				return ctx.Err()
			}
		})
		for _, c := range []struct {
			limit time.Duration
			want  error
		}{{time.Second, context.DeadlineExceeded}, {time.Hour, context.DeadlineExceeded}, {0, context.Canceled}} {
			ran = make(chan struct{})
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
			limit := min(c.limit, 3*time.Second)
			if c.limit > 0 {
				ctx, cancel = context.WithTimeout(ctx, c.limit)
			} else {
				time.AfterFunc(time.Second, cancel)
				limit = 3 * time.Second
			}
			begun := time.Now()
			_, err := a.StartSession(ctx, "u1", auth.SessionOptions{})
			require.ErrorIs(t, err, auth.ErrUnavailable)
			require.Equal(t, "value", got.Value(key{}))
			deadline, ok := got.Deadline()
			require.True(t, ok)
			require.Equal(t, begun.Add(limit), deadline)
			require.Equal(t, c.want, got.Err())
			<-got.Done()
			<-ran
			require.Equal(t, c.want, derived.Err())
			require.False(t, context.AfterFunc(got, func() {})(), "it has ended")
			require.NotContains(t, got.(interface{ String() string }).String(), "value")
			cancel()
		}
	})
}

// The context of a hook has ended when the hook has returned.
func TestHooks_ContextEndsWithTheCall(t *testing.T) {
	t.Parallel()
	var got context.Context
	fx := newFixture(t, func(c *auth.Config) {
		c.OnLogin = func(ctx context.Context, _ auth.User, _ *auth.SessionOptions) error { got = ctx; return nil }
	})
	fx.login(t)
	require.Equal(t, context.Canceled, got.Err())
	<-got.Done()
}

func TestConfig_HookTimeout(t *testing.T) {
	t.Parallel()
	for timeout, text := range map[time.Duration]string{
		5:               "auth: Config.HookTimeout (5ns) is less than 1ms; missing time unit?",
		-1:              "auth: Config.HookTimeout (-1ns) is not between 1ms and 1m0s",
		2 * time.Minute: "auth: Config.HookTimeout (2m0s) is not between 1ms and 1m0s",
	} {
		_, err := auth.New(auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), HookTimeout: timeout})
		require.ErrorContains(t, err, text)
	}
}

// A guard of this package needs no goroutine, and one of the application that calls
// one does.
func TestRequire_RunsOwnGuardsInTheRequest(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := reqBearer(fx.login(t).Access)
	for name, c := range map[string]struct {
		guard auth.Guard
		own   bool
	}{
		"role": {auth.Role("admin"), true}, "scope": {auth.Scope("pay"), true}, "amr": {auth.AMR("pwd"), true},
		"acting": {auth.NotActing(), true}, "fresh": {auth.Fresh(time.Hour), true},
		"wrapped": {func(ctx context.Context, c *auth.Claims) error { return auth.Role("admin")(ctx, c) }, false},
	} {
		require.Equal(t, c.own, auth.IsOwnGuard(c.guard), name)
		require.Equal(t, 200, send(t, fx.Require(c.guard)(hello), "GET", "/", token).status, name)
	}
}

// A guard that fails because its time is over has not decided.
func TestRequire_AGuardWhoseContextHasEndedHasNotDecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var result error
		a, es := newNode(t, newTestStore(), func(c *auth.Config) { c.Store = nil })
		k := startSession(t, a)
		h := a.Require(func(ctx context.Context, _ *auth.Claims) error { <-ctx.Done(); return result })(hello)
		es.take("")
		result = errors.New("canceling statement")
		send(t, h, "GET", "/", reqBearer(k.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
		require.Len(t, es.take(auth.EventFault), 1)
		result = auth.ErrForbidden
		send(t, h, "GET", "/", reqBearer(k.Access)).requireRefused(t, 403, "insufficient_scope", "")
	})
}

func TestHookTimeout_Bounds(t *testing.T) {
	t.Parallel()
	for d, valid := range map[time.Duration]bool{
		0: true, time.Millisecond: true, time.Minute: true, time.Minute + time.Millisecond: false, -time.Second: false, 5: false,
	} {
		_, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(secret)}, HookTimeout: d})
		if valid {
			require.NoError(t, err, d)
		} else {
			require.ErrorContains(t, err, "VerifierConfig.HookTimeout", d)
		}
	}
}
