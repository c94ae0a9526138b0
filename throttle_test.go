package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func reqFrom(ip string) requestOption {
	return func(r *http.Request) { r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(ip), 1234).String() }
}

func reqLogin(login, pass string) requestOption {
	return reqJSON(fmt.Sprintf(`{"login":%q,"password":%q}`, login, pass))
}

// attempt sends a login and returns the response.
func (fx *fixture) attempt(t testing.TB, login, pass string, options ...requestOption) response {
	t.Helper()
	return send(t, fx.LoginHandler(), "POST", "/login", append([]requestOption{reqLogin(login, pass)}, options...)...)
}

// fail sends n wrong passwords, each of which is checked.
func (fx *fixture) fail(t testing.TB, n int, login string, options ...requestOption) {
	t.Helper()
	for range n {
		r := fx.attempt(t, login, "wrong", options...)
		require.Equal(t, 401, r.status, r.body)
	}
}

// requireThrottled checks that a right password is refused for so many seconds.
func (fx *fixture) requireThrottled(t testing.TB, seconds int, login string, options ...requestOption) {
	t.Helper()
	r := fx.attempt(t, login, pass, options...)
	require.Equal(t, 429, r.status, r.body)
	require.Equal(t, fmt.Sprint(seconds), r.header.Get("Retry-After"))
	require.Equal(t, "too_many_attempts", r.fields(t)["error"])
	require.NotContains(t, r.fields(t), "action")
}

func TestThrottle_WaitDoublesAndRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.fail(t, 5, "ada")
	for _, wait := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256} {
		fx.requireThrottled(t, wait, "ada")
		fx.clock.Advance(time.Duration(wait)*time.Second - time.Millisecond)
		fx.requireThrottled(t, 1, "ada")
		fx.clock.Advance(time.Millisecond)
		fx.fail(t, 1, "ada")
	}
	require.EqualValues(t, 18, fx.Health().Throttled)
	require.Contains(t, fx.attempt(t, "ada", pass).fields(t)["error_description"], "try again in 9 minutes")
	require.Equal(t, 200, fx.attempt(t, "bob", pass).status, "another user need not wait")

	fx.clock.Advance(10 * time.Minute)
	require.Equal(t, 200, fx.attempt(t, "ada", pass).status)
	fx.fail(t, 5, "ada") // a success has cleared the account
	fx.requireThrottled(t, 1, "ada")
}

func TestThrottle_SpellingsOfOneUserAreOneAccount(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, login := range []string{"ada", "ADA", "ada@example.com", "Ada@Example.com", "ada"} {
		fx.fail(t, 1, login)
	}
	fx.requireThrottled(t, 1, "ADA@EXAMPLE.COM")
	for _, login := range []string{"nobody", " NOBODY", "Nobody", "nobody ", "nobodY"} {
		fx.fail(t, 1, login)
	}
	fx.requireThrottled(t, 1, "noBody")
}

func TestThrottle_ABurstOfGuessesIsLimited(t *testing.T) {
	t.Parallel()
	var wrong, throttled atomic.Int64
	fx := newFixture(t, func(c *auth.Config) {
		c.Hasher = &password.Hasher{Memory: 64, Time: 1}
		c.OnEvent = func(_ context.Context, e auth.Event) {
			if e.Type == auth.EventLoginRefused && errors.Is(e.Err, auth.ErrInvalidCredentials) {
				wrong.Add(1)
			}
		}
	})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			_, err := fx.Login(context.Background(), "ada", "wrong", auth.SessionOptions{Device: laptop})
			if errors.Is(err, auth.ErrThrottled) {
				throttled.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, wrong.Load())
	require.EqualValues(t, 59, throttled.Load())
}

func TestThrottle_SourceIsAnAddressOrANetwork(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ from, same, other string }{
		"IPv4":        {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
		"IPv6":        {"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"},
		"IPv4 mapped": {"::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t)
			for i := range 50 {
				fx.fail(t, 1, fmt.Sprint("name ", i), reqFrom(tt.from))
			}
			fx.requireThrottled(t, 1, "ada", reqFrom(tt.same))
			require.Equal(t, 200, fx.attempt(t, "ada", pass, reqFrom(tt.other)).status)
			fx.clock.Advance(time.Second)
			require.Equal(t, 200, fx.attempt(t, "ada", pass, reqFrom(tt.same)).status)
			fx.requireThrottled(t, 1, "ada", reqFrom(tt.same)) // a success does not clear the source
		})
	}
	fx := newFixture(t)
	for i := range 60 { // without an address there is no source
		_, err := fx.Login(t.Context(), fmt.Sprint("name ", i), "wrong", auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	}
}

func TestThrottle_TrustedProxiesDecideTheSource(t *testing.T) {
	t.Parallel()
	by := func(client string) []requestOption {
		return []requestOption{reqFrom("10.0.0.1"), reqHeader("X-Forwarded-For", client)}
	}
	trusting := newFixture(t, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	other := newFixture(t)
	for i := range 50 {
		trusting.fail(t, 1, fmt.Sprint("name ", i), by("192.0.2.1")...)
		other.fail(t, 1, fmt.Sprint("name ", i), by("192.0.2.1")...)
	}
	require.Equal(t, 200, trusting.attempt(t, "ada", pass, by("192.0.2.2")...).status)
	other.events.take("")
	other.requireThrottled(t, 1, "ada", by("192.0.2.2")...)
	refused := other.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1)
	require.ErrorContains(t, refused[0].Err, "Config.TrustedProxies")
}

func TestThrottle_KnownDeviceIsCountedSeparately(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), knownKeys)
	r := fx.attempt(t, "ada", pass)
	known := r.cookies[deviceCookie]
	require.NotNil(t, known)
	with := func(value string) requestOption { return reqCookie(deviceCookie, value) }
	bob := fx.attempt(t, "bob", pass).cookies[deviceCookie].Value
	oneTime, err := fx.IssueOneTime(t.Context(), auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour})
	require.NoError(t, err)
	tokens := fx.login(t)
	send(t, fx.LogoutHandler(), "POST", "/logout", reqBearer(tokens.Access))

	fx.fail(t, 5, "ada")
	for name, value := range map[string]string{
		"none": "", "of another user": bob, "forged": known.Value[:len(known.Value)-2] + "AA", "of another purpose": oneTime, "an access token": tokens.Access,
	} {
		r := fx.attempt(t, "ada", pass, with(value))
		require.Equal(t, 429, r.status, name)
	}
	fx.fail(t, 5, "ada", with(known.Value)) // they have a count of their own
	fx.requireThrottled(t, 1, "ada", with(known.Value))
	fx.clock.Advance(time.Second)
	require.Equal(t, 200, fx.attempt(t, "ada", pass, with(known.Value)).status)
	require.Equal(t, 200, fx.attempt(t, "ada", pass, with(known.Value)).status, "a success clears the device")
	fx.fail(t, 1, "ada") // the success has not cleared the account
	fx.requireThrottled(t, 2, "ada")

	fx.clock.Advance(180*24*time.Hour - time.Second - time.Millisecond)
	fx.fail(t, 5, "ada")
	require.Equal(t, 200, fx.attempt(t, "ada", pass, with(known.Value)).status)
	fx.clock.Advance(time.Second)
	fx.fail(t, 1, "ada", reqFrom("192.0.2.77"))
	fx.requireThrottled(t, 2, "ada", with(known.Value)) // it has expired
}

func TestThrottle_DeviceCookieIsSetByLoginsInCookiesOnly(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(func(c *auth.Cookies) { c.AllowBody = true }))
	r := fx.attempt(t, "ada", pass)
	device := r.cookies[deviceCookie]
	require.NotNil(t, device)
	require.NotContains(t, r.body, device.Value)
	refreshed := send(t, fx.RefreshHandler(), "POST", "/refresh", reqCookie(refreshCookie, r.cookies[refreshCookie].Value))
	require.Equal(t, 200, refreshed.status)
	require.NotContains(t, refreshed.cookies, deviceCookie)
	out := send(t, fx.LogoutHandler(), "POST", "/logout", reqCookie(refreshCookie, r.cookies[refreshCookie].Value))
	require.NotContains(t, out.cookies, deviceCookie, "a logout keeps it")

	set := func(k auth.Tokens) map[string]*http.Cookie {
		return send(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fx.SetCookies(w, k) }), "GET", "/").cookies
	}
	k := startSession(t, fx.Authenticator)
	require.Contains(t, set(k), deviceCookie)
	acting, err := fx.StartSession(t.Context(), "u1", auth.SessionOptions{Actor: "u2"})
	require.NoError(t, err)
	require.NotContains(t, set(acting), deviceCookie, "the browser is not the user's")
	inBody, err := fx.StartSession(t.Context(), "u1", auth.SessionOptions{InBody: true})
	require.NoError(t, err)
	require.NotContains(t, set(inBody), deviceCookie)
	next, err := fx.Continue(t.Context(), verifiedClaims(t, fx.Authenticator, k.Access), auth.SessionOptions{})
	require.NoError(t, err)
	require.NotContains(t, set(next), deviceCookie)
	for _, e := range fx.events.all {
		require.NotContains(t, fmt.Sprintf("%+v", e), device.Value)
	}
}

func TestThrottle_AFaultDoesNotCount(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for range 20 {
		fx.users.failIn(1) // after the password was checked
		require.Equal(t, 503, fx.attempt(t, "ada", pass).status)
	}
	fx.users.failIn(0)
	fx.fail(t, 5, "ada")
	fx.requireThrottled(t, 1, "ada")
}

// The token of a known device is not in an event, whichever code emits it.
func TestThrottle_EventsDoNotHaveTheDeviceToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), func(c *auth.Config) {
		c.OnError = func(http.ResponseWriter, *http.Request, error) { panic("x") }
	})
	r := send(t, fx.Require()(hello), "GET", "/", reqCookie(deviceCookie, "token"), reqFrom("192.0.2.9"))
	require.Equal(t, 500, r.status)
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.Equal(t, auth.Device{IP: netip.MustParseAddr("192.0.2.9")}, faults[0].Device)
}

func TestThrottle_EventsAreLimited(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.fail(t, 5, "ada")
	fx.events.take("")
	for range 10 {
		fx.requireThrottled(t, 1, "ada")
	}
	refused := fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1)
	require.ErrorIs(t, refused[0].Err, auth.ErrThrottled)
	require.Equal(t, "u1", refused[0].Session.Subject)
	fx.clock.Advance(time.Minute)
	fx.fail(t, 1, "ada")
	fx.events.take("")
	fx.requireThrottled(t, 2, "ada")
	refused = fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1)
	require.EqualValues(t, 9, refused[0].Suppressed)

	for i := range 50 {
		fx.fail(t, 1, fmt.Sprint("name", i), reqFrom("192.0.2.50"))
	}
	fx.events.take("")
	require.Equal(t, 429, fx.attempt(t, "another", pass, reqFrom("192.0.2.50")).status)
	refused = fx.events.take(auth.EventLoginRefused)
	require.Len(t, refused, 1, "sources have a limit of their own")
	require.ErrorContains(t, refused[0].Err, "the source must wait 1s")
}

func TestThrottle_PageSaysHowLongToWait(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.OnError = auth.RedirectToLogin("/login") })
	fx.fail(t, 5, "ada")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := fx.LoginForm(w, r); err != nil {
			fx.WriteError(w, r, err)
		}
	})
	r := send(t, h, "POST", "/login", reqForm("login=ada&password=x"), reqHeader("Sec-Fetch-Mode", "navigate"), reqHeader("Sec-Fetch-Site", "same-origin"))
	require.Equal(t, 429, r.status)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.Contains(t, r.body, "<p>Too many failed attempts; try again in 1 second.</p>")
}

func TestThrottle_Contract(t *testing.T) {
	t.Parallel()
	fx, ctx := newFixture(t), context.Background()
	try := func(result error) error {
		return fx.Throttle(ctx, "pin", "u1", laptop, func(context.Context) error { return result })
	}
	wrong := fmt.Errorf("app: %w", auth.ErrInvalidCredentials)
	fault := errors.New("fault")
	for range 4 {
		require.Equal(t, wrong, try(wrong))
	}
	for range 20 {
		require.Equal(t, fault, try(fault))
		require.PanicsWithValue(t, "check", func() {
			_ = fx.Throttle(ctx, "pin", "u1", laptop, func(context.Context) error { panic("check") })
		})
	}
	require.NoError(t, try(nil)) // clears
	for range 5 {
		require.Equal(t, wrong, try(wrong))
	}
	called := false
	err := fx.Throttle(ctx, "pin", "u1", laptop, func(context.Context) error { called = true; return nil })
	require.ErrorIs(t, err, auth.ErrThrottled)
	require.False(t, called)
	require.NoError(t, fx.Throttle(ctx, "other", "u1", laptop, func(context.Context) error { return nil }), "another purpose")
	require.Equal(t, 200, fx.attempt(t, "ada", pass).status, "a password is another purpose")
	require.ErrorContains(t, fx.Throttle(ctx, "pin", "u1", laptop, nil), "check of Throttle is nil")
	counted := map[error]int{}
	for _, err := range []error{password.ErrMismatch, password.ErrTooLong, auth.ErrInvalidCredentials} {
		for range 10 {
			if errors.Is(fx.Throttle(ctx, "pin", err.Error(), auth.Device{}, func(context.Context) error { return err }), err) {
				counted[err]++
			}
		}
	}
	require.Equal(t, map[error]int{password.ErrMismatch: 5, password.ErrTooLong: 5, auth.ErrInvalidCredentials: 5}, counted)
	for range 10 {
		failed := fmt.Errorf("%w: %w", auth.ErrUnavailable, password.ErrMismatch) // whether the secret is right is not known
		require.ErrorIs(t, fx.Throttle(ctx, "pin", "u7", auth.Device{}, func(context.Context) error { return failed }), auth.ErrUnavailable)
		fx.clock.Advance(time.Second)
	}
	for _, purpose := range []string{"", "a b", strings.Repeat("x", 65), "é"} {
		require.ErrorContains(t, fx.Throttle(ctx, purpose, "u1", laptop, nil), "the purpose of Throttle must be")
	}
}

// brokenLimiter is a Limiter with a fault.
type brokenLimiter struct {
	fault func(ctx context.Context) (time.Duration, int, error)
	calls atomic.Int64
}

func (l *brokenLimiter) Take(ctx context.Context, _ []auth.Bucket) (time.Duration, int, error) {
	l.calls.Add(1)
	return l.fault(ctx)
}

func (l *brokenLimiter) Settle(ctx context.Context, _, _ []auth.Bucket) error {
	_, _, err := l.fault(ctx)
	return err
}

func TestThrottle_MemoryDecidesWhileTheLimiterFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(ctx context.Context) (time.Duration, int, error){
		"fails":  func(context.Context) (time.Duration, int, error) { return time.Hour, 0, errors.New("down") },
		"panics": func(context.Context) (time.Duration, int, error) { panic("secret") },
		"hangs":  func(ctx context.Context) (time.Duration, int, error) { <-ctx.Done(); return 0, 0, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &brokenLimiter{fault: fault}
			fx := newFixture(t, func(c *auth.Config) { c.Limiter, c.StoreTimeout = l, 20*time.Millisecond })
			fx.fail(t, 5, "ada")
			require.EqualValues(t, 1, l.calls.Load(), "it is not asked again for a while")
			faults := fx.events.take(auth.EventFault)
			require.Len(t, faults, 1)
			require.ErrorContains(t, faults[0].Err, "this process counts attempts in memory")
			require.NotContains(t, faults[0].Err.Error(), "secret")
			fx.requireThrottled(t, 1, "ada")
			fx.clock.Advance(5 * time.Second)
			l.fault = func(context.Context) (time.Duration, int, error) { return 0, 0, nil }
			require.Equal(t, 200, fx.attempt(t, "ada", pass).status)
			require.Equal(t, 200, fx.attempt(t, "ada", pass).status)
			require.EqualValues(t, 3, l.calls.Load(), "it responds again")
		})
	}
}

// A client that disconnects must neither turn the limiter off nor hide that it hangs.
func TestThrottle_RequestsThatEndEarlyDecideNothingAboutTheLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &brokenLimiter{fault: func(ctx context.Context) (time.Duration, int, error) { return 0, 0, ctx.Err() }}
		a, es := newNode(t, newTestStore(), func(c *auth.Config) { c.Limiter = l })
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 3 {
			_, err := a.CheckPassword(gone, "ada", pass, laptop)
			require.ErrorIs(t, err, auth.ErrUnavailable)
		}
		require.EqualValues(t, 3, l.calls.Load())
		require.Empty(t, es.take(auth.EventFault))

		l.fault = func(ctx context.Context) (time.Duration, int, error) { <-ctx.Done(); return 0, 0, ctx.Err() }
		for range 3 {
			hurried, cancel := context.WithTimeout(t.Context(), time.Second) // less than StoreTimeout
			_, _ = a.CheckPassword(hurried, "ada", pass, laptop)
			cancel()
		}
		require.EqualValues(t, 4, l.calls.Load())
		_, err := a.CheckPassword(t.Context(), "ada", pass, laptop)
		require.NoError(t, err, "memory decides")
	})
}

func TestThrottle_KnownDevicesOfAUserAreLimitedTogether(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	var known []requestOption
	for range 20 {
		known = append(known, reqCookie(deviceCookie, fx.attempt(t, "ada", pass).cookies[deviceCookie].Value))
	}
	checked := 0
	for _, device := range known {
		for range 5 {
			if fx.attempt(t, "ada", "wrong", device).status == 401 {
				checked++
			}
		}
	}
	require.Equal(t, 50, checked)
	require.Equal(t, 200, fx.attempt(t, "ada", pass).status, "another device is counted separately")
}

// A cookie of another path, or of a sibling host under a name without prefix, may come
// before the valid one.
func TestThrottle_EachOfAFewDeviceCookiesIsRead(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	valid := fx.attempt(t, "ada", pass).cookies[deviceCookie].Value
	fx.fail(t, 5, "ada")
	other := reqCookie(deviceCookie, "x")
	require.Equal(t, 200, fx.attempt(t, "ada", pass, other, other, other, reqCookie(deviceCookie, valid)).status)
	require.Equal(t, 429, fx.attempt(t, "ada", pass, other, other, other, other, reqCookie(deviceCookie, valid)).status)
}

// The error of a method may be shown to a client, so it must not say more than the
// response does.
func TestThrottle_ErrorDoesNotSayWhetherThereIsSuchAUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	texts := map[string]string{}
	events := map[string]int{}
	for _, name := range []string{"nobody", "ada"} {
		fx.fail(t, 5, name)
		fx.events.take("")
		_, err := fx.Login(t.Context(), name, pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrThrottled)
		texts[name] = err.Error()
		events[name] = len(fx.events.take(auth.EventLoginRefused))
		fx.clock.Advance(0)
	}
	require.Equal(t, texts["nobody"], texts["ada"])
	require.Equal(t, map[string]int{"nobody": 1, "ada": 0}, events, "both share the limit of events")
}

// recordingLimiter records the buckets that it gets.
type recordingLimiter struct {
	mu      sync.Mutex
	buckets []auth.Bucket
}

func (l *recordingLimiter) Take(_ context.Context, buckets []auth.Bucket) (time.Duration, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buckets = append(l.buckets, buckets...)
	return 0, 0, nil
}

func (l *recordingLimiter) Settle(context.Context, []auth.Bucket, []auth.Bucket) error { return nil }

func TestThrottle_KeysOfBucketsAreDigests(t *testing.T) {
	t.Parallel()
	keys := map[auth.Bucket]bool{}
	for i, issuer := range []string{"https://one.example", "https://two.example"} {
		l := &recordingLimiter{}
		fx := newFixture(t, func(c *auth.Config) { c.Limiter, c.Issuer = l, issuer })
		fx.fail(t, 1, "ada", reqFrom("192.0.2.1"))
		fx.fail(t, 1, "ADA ", reqFrom("64:ff9b::192.0.2.1"))
		fx.fail(t, 1, "nobody", reqFrom("2001:db8::1"))
		_ = fx.Throttle(t.Context(), "pin", "u1", laptop, func(context.Context) error { return nil })
		_ = fx.Throttle(t.Context(), "key", "u1", laptop, func(context.Context) error { return nil })
		for _, b := range l.buckets {
			require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, b.Key)
			keys[b] = true
		}
		// ada and nobody as names; u1 as a user; u1 for two purposes; two sources,
		// which all issuers share.
		require.Len(t, keys, 2+5*(i+1), "%v", keys)
	}
}

func TestThrottle_ForgedChallengesCountForTheSource(t *testing.T) {
	t.Parallel()
	fx, _ := newFactorFixture(t)
	valid := fx.challenge(t, auth.SessionOptions{}).Challenge
	for range 50 {
		require.ErrorIs(t, fx.answer("forged", "right"), auth.ErrInvalidToken)
	}
	require.ErrorIs(t, fx.answer("forged", "right"), auth.ErrThrottled)
	require.ErrorIs(t, fx.answer(valid, "right"), auth.ErrThrottled, "the response to a challenge is an attempt too")
	fx.clock.Advance(time.Minute)
	require.NoError(t, fx.answer(valid, "right"))
}

func TestThrottle_NonsenseOfTheLimiterIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		wait  time.Duration
		index int
		want  int
	}{{-time.Hour, 7, 200}, {0, -1, 200}, {1000 * time.Hour, 99, 429}, {1000 * time.Hour, 3, 429}, {1000 * time.Hour, -5, 429}} {
		l := &brokenLimiter{fault: func(context.Context) (time.Duration, int, error) { return tt.wait, tt.index, nil }}
		r := newFixture(t, func(c *auth.Config) { c.Limiter = l }).attempt(t, "ada", pass)
		require.Equal(t, tt.want, r.status)
		if tt.want == 429 {
			require.Equal(t, "900", r.header.Get("Retry-After"))
		}
	}
	_, err := auth.New(auth.Config{Limiter: (*brokenLimiter)(nil)})
	require.ErrorContains(t, err, "Config.Limiter")
}

func TestThrottle_RightPasswordWithoutFactorNeitherCountsNorClears(t *testing.T) {
	t.Parallel()
	f := &factor{methods: []string{"otp"}}
	fx := newFixture(t, func(c *auth.Config) { c.SecondFactor = f })
	fx.fail(t, 4, "ada")
	var challenge string
	for range 10 {
		r := fx.attempt(t, "ada", pass)
		require.Equal(t, 401, r.status)
		require.Equal(t, "factor_required", r.fields(t)["error"])
		challenge, _ = r.fields(t)["challenge"].(string)
	}
	fx.fail(t, 1, "ada")
	fx.requireThrottled(t, 1, "ada")
	require.NoError(t, fx.answer(challenge, "right"), "responses count separately")
	fx.fail(t, 4, "ada") // the login has cleared the attempts of the user and of the name
}

func TestThrottle_PasswordChangesCount(t *testing.T) {
	t.Parallel()
	fx := newPasswords(t)
	own := fx.login(t)
	c := verifiedClaims(t, fx.Authenticator, own.Access)
	change := func(current, next string) error { return fx.ChangePassword(t.Context(), c, current, next, laptop) }
	require.ErrorIs(t, change("wrong", newPass), auth.ErrInvalidCredentials) // two attempts: current and next
	require.ErrorIs(t, change("wrong", newPass), auth.ErrInvalidCredentials)
	_, err := fx.CheckPassword(t.Context(), "ada", "wrong", laptop)
	require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	require.ErrorIs(t, change(pass, newPass), auth.ErrThrottled, "attempts at all endpoints count together")
	require.Empty(t, fx.stored.olds)
	fx.clock.Advance(time.Second)
	require.NoError(t, change(pass, newPass))
	require.ErrorIs(t, change("wrong", pass), auth.ErrInvalidCredentials, "the right password has cleared the attempts")
}

func TestThrottle_AFullQueueAndADisconnectDoNotCount(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: hashes many passwords")
	}
	t.Parallel()
	h := &password.Hasher{Memory: 32 << 10, Time: 2, Budget: 32 << 20, Queue: 1}
	fx := newFixture(t, func(c *auth.Config) { c.Hasher = h })
	release := holdGate(h, 1)
	for range 10 {
		_, err := fx.CheckPassword(context.Background(), "ada", "wrong", laptop)
		require.ErrorIs(t, err, password.ErrBusy)
	}
	release()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for range 10 {
		_, err := fx.CheckPassword(gone, "ada", "wrong", laptop)
		require.ErrorIs(t, err, auth.ErrUnavailable)
	}
	fx.clock.Advance(time.Minute) // an attempt that does not count still was the last one
	for range 5 {
		_, err := fx.CheckPassword(context.Background(), "ada", "wrong", laptop)
		require.ErrorIs(t, err, auth.ErrInvalidCredentials)
	}
	_, err := fx.CheckPassword(context.Background(), "ada", pass, laptop)
	require.ErrorIs(t, err, auth.ErrThrottled)
}

func TestThrottle_ForgedTokensNeverBlockValidOnes(t *testing.T) {
	t.Parallel()
	fx, ctx := newFixture(t), context.Background()
	issue := func() string {
		token, err := fx.IssueOneTime(ctx, auth.OneTime{Purpose: "reset", Subject: "u1", TTL: time.Hour})
		require.NoError(t, err)
		return token
	}
	token := issue()
	for range 50 {
		_, err := fx.SpendOneTime(ctx, "reset", token+"x", laptop)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	_, err := fx.SpendOneTime(ctx, "reset", token+"x", laptop)
	require.ErrorIs(t, err, auth.ErrThrottled)
	_, err = fx.SpendOneTime(ctx, "reset", token, laptop)
	require.NoError(t, err)
	_, err = fx.SpendOneTime(ctx, "reset", token, laptop)
	require.ErrorIs(t, err, auth.ErrSpent)

	// The tokens of refreshes are never throttled: they cannot be guessed.
	k := startSession(t, fx.Authenticator).Refresh
	for range 200 {
		_, err := fx.Refresh(ctx, k+"x", auth.RefreshOptions{Device: laptop})
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	_, err = fx.Refresh(ctx, k, auth.RefreshOptions{Device: laptop})
	require.NoError(t, err)
}

// TestThrottle_AMillionLoginsWhileOneAccountIsGuessed plays 1,000 logins; with
// AUTH_FLOOD=1, a million.
func TestThrottle_AMillionLoginsWhileOneAccountIsGuessed(t *testing.T) {
	t.Parallel()
	n := 1_000
	if os.Getenv("AUTH_FLOOD") == "1" {
		n = 1_000_000
	}
	limiter := (*auth.MemoryLimiter)(nil)
	var checked atomic.Int64
	fx := newFixture(t, withCookies(), func(c *auth.Config) {
		c.Hasher = &password.Hasher{Memory: 8, Time: 1}
		limiter = auth.NewMemoryLimiter(c.Now)
		c.Limiter = limiter
		c.OnEvent = func(_ context.Context, e auth.Event) {
			if e.Session.Subject == "u1" && errors.Is(e.Err, auth.ErrInvalidCredentials) {
				checked.Add(1)
			}
		}
	})
	known := fx.attempt(t, "ada", pass).cookies[deviceCookie].Value
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start, begin, waits := time.Now(), fx.clock.Now(), 0
	for i := range n {
		d := auth.Device{IP: netip.AddrFrom4([4]byte{10, 0, byte(i % 1000 / 250), byte(i % 250)})}
		_, err := fx.Login(t.Context(), fmt.Sprint("name-", i), "wrong", auth.SessionOptions{Device: d})
		if errors.Is(err, auth.ErrThrottled) {
			waits++
		} else {
			require.ErrorIs(t, err, auth.ErrInvalidCredentials)
		}
		if i%50 == 0 { // one guess in each second, from a source of its own
			fx.clock.Advance(time.Second)
			_, err := fx.Login(t.Context(), "ada", "guess", auth.SessionOptions{Device: auth.Device{IP: netip.AddrFrom4([4]byte{192, 0, byte(i / 256 % 256), byte(i % 256)})}})
			require.True(t, errors.Is(err, auth.ErrThrottled) || errors.Is(err, auth.ErrInvalidCredentials), err)
		}
	}
	took, guessed := time.Since(start), fx.clock.Now().Sub(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Equal(t, 429, fx.attempt(t, "ada", pass).status, "the account is throttled")
	require.Equal(t, 200, fx.attempt(t, "ada", pass, reqCookie(deviceCookie, known)).status, "the owner signs in")
	// 5 at once, then after 1, 2, 4 … seconds, and one for each that is forgotten.
	require.LessOrEqual(t, checked.Load(), int64(5+10+guessed/(15*time.Minute)))
	require.GreaterOrEqual(t, checked.Load(), int64(9))
	require.LessOrEqual(t, limiter.Buckets("name"), 1<<16)
	heap := int64(after.HeapAlloc) - int64(before.HeapAlloc) //nolint:gosec // sizes of memory
	if n > 1_000 {                                           // otherwise other tests use memory meanwhile
		require.Less(t, heap, int64(40<<20))
	}
	t.Logf("%d logins in %s, %d of them throttled by source; %d guesses were checked in %s of the clock; %d names in memory; the heap grew by %.1f MB",
		n, took.Round(time.Millisecond), waits, checked.Load(), guessed, limiter.Buckets("name"), float64(heap)/1e6)
}

// TestMemoryLimiter_AMillionNames adds more names than there is room for: 100,000, or
// a million with AUTH_FLOOD=1.
// A bucket that is in use stays, although others are added all the time.
func TestMemoryLimiter_RemovesTheBucketThatEndsFirst(t *testing.T) {
	t.Parallel()
	clock := newClock()
	l := auth.NewMemoryLimiter(clock.Now)
	take := func(key string) time.Duration {
		wait, _, err := l.Take(t.Context(), []auth.Bucket{{Kind: "name", Key: key, Burst: 5, Decay: 15 * time.Minute}})
		require.NoError(t, err)
		return wait
	}
	for i := range 1 << 16 {
		take(fmt.Sprint(i))
	}
	clock.Advance(time.Millisecond)
	for i := range 5 {
		require.Zero(t, take("victim"))
		take(fmt.Sprint("other", i))
	}
	require.Equal(t, time.Second, take("victim"))
	require.Equal(t, 1<<16, l.Buckets("name"))
}

func TestMemoryLimiter_AMillionNames(t *testing.T) {
	t.Parallel()
	clock := newClock()
	l := auth.NewMemoryLimiter(clock.Now)
	name := func(i int) []auth.Bucket {
		return []auth.Bucket{{Kind: "name", Key: fmt.Sprintf("%022d", i), Burst: 5, Decay: 15 * time.Minute}}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 2 {
		_, _, _ = l.Take(t.Context(), name(-1))
	}
	start := time.Now()
	n := 100_000
	if os.Getenv("AUTH_FLOOD") == "1" {
		n = 1_000_000
	}
	for i := range n {
		_, _, _ = l.Take(t.Context(), name(i))
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Equal(t, 1<<16, l.Buckets("name"))
	for range 3 { // it has not lost its two attempts
		wait, _, _ := l.Take(t.Context(), name(-1))
		require.Zero(t, wait)
	}
	wait, _, _ := l.Take(t.Context(), name(-1))
	require.Equal(t, time.Second, wait)
	heap := int64(after.HeapAlloc) - int64(before.HeapAlloc) //nolint:gosec // sizes of memory
	t.Logf("%d names: %s each, the heap grew by %.1f MB", n, took/time.Duration(n), float64(heap)/1e6)
	if n > 100_000 {
		require.Less(t, heap, int64(16<<20))
	}
}
