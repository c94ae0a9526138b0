package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

// The tests of this file use no sockets, and the clock of a synctest bubble.

// fake is a publisher without a socket. It records its requests.
type fake struct {
	rt       atomic.Pointer[roundTrip]
	requests atomic.Int64
	begin    time.Time

	mu   sync.Mutex
	when []time.Duration
}

func newFake(h http.Handler) *fake {
	f := &fake{begin: time.Now()}
	f.serve(h)
	return f
}

func (f *fake) serve(h http.Handler) {
	rt := direct(h)
	f.rt.Store(&rt)
}

// times returns the times of the requests.
func (f *fake) times() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.when)
}

// hang makes all further requests hang.
func (f *fake) hang() {
	rt := roundTrip(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	f.rt.Store(&rt)
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.requests.Add(1)
	f.mu.Lock()
	f.when = append(f.when, time.Since(f.begin))
	f.mu.Unlock()
	return (*f.rt.Load())(r)
}

func control(value string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if value != "" {
			w.Header().Set("Cache-Control", value)
		}
		h.ServeHTTP(w, r)
	})
}

func TestVerifyKeys_RespectsCacheControl(t *testing.T) {
	t.Parallel()
	jwk := set(published(t, newEd(t).WithID("1")))
	for _, test := range []struct {
		control, age string
		want         time.Duration
	}{
		{"", "", 5 * time.Minute},
		{"public", "", 5 * time.Minute},
		{"max-age=60", "", time.Minute},
		{"public, MAX-AGE=60, must-revalidate", "", time.Minute},
		{`max-age="60"`, "", time.Minute},
		{"max-age=60, max-age=30", "", 30 * time.Second},
		{"max-age=60", "20", 40 * time.Second},
		{"max-age=60", "600", 5 * time.Second},
		{"max-age=60", "soon", time.Minute},
		{"s-maxage=10, max-age=60", "", time.Minute},
		{"max-age=0", "", 5 * time.Second},
		{"max-age=4", "", 5 * time.Second},
		{"no-store", "", 5 * time.Second},
		{"no-cache, max-age=600", "", 5 * time.Second},
		{"max-age=-1", "", 5 * time.Second},
		{"max-age=long", "", 5 * time.Second},
		{"max-age=31536000", "", 24 * time.Hour},
		{"max-age=99999999999999999999999", "", 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(control(test.control, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.age != "" {
					w.Header().Set("Age", test.age)
				}
				text(jwk).ServeHTTP(w, r)
			})))
			k := newKeySet(t, f, nil)
			get := func() {
				keys, err := k.VerifyKeys(t.Context(), "1")
				require.NoError(t, err)
				require.Len(t, keys, 1)
			}
			get()
			time.Sleep(test.want - time.Millisecond)
			get()
			require.EqualValues(t, 1, f.requests.Load(), test.control)
			time.Sleep(time.Millisecond)
			get()
			require.EqualValues(t, 2, f.requests.Load(), test.control)
		})
	}
}

// TestVerifyKeys_UsesStaleKeysInAnOutage tests several ways in which a publisher
// fails. Only one call waits; later ones return at once.
func TestVerifyKeys_UsesStaleKeysInAnOutage(t *testing.T) {
	t.Parallel()
	jwk := set(published(t, newEd(t).WithID("1")))
	for name, fail := range map[string]http.Handler{
		"500": status(500), "garbage": text("<html>"), "huge": text(strings.Repeat(" ", 1<<20)), "hangs": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(text(jwk))
			k := newKeySet(t, f, nil)
			get := func() (took time.Duration, err error) {
				begin := time.Now()
				keys, err := k.VerifyKeys(t.Context(), "1")
				if err == nil {
					require.Len(t, keys, 1)
				}
				return time.Since(begin), err
			}
			_, err := get()
			require.NoError(t, err)
			if fail == nil {
				f.hang()
			} else {
				f.serve(fail)
			}
			time.Sleep(5 * time.Minute)
			took, err := get()
			require.NoError(t, err, name)
			require.LessOrEqual(t, took, 5*time.Second)
			for time.Since(f.begin) < 64*time.Minute {
				time.Sleep(7 * time.Second)
				took, err = get()
				require.NoError(t, err, name)
				require.Zero(t, took, name)
				synctest.Wait()
			}
			at := f.times()
			for i := 2; i < len(at); i++ {
				require.GreaterOrEqual(t, at[i]-at[i-1], 30*time.Second, name)
			}
			time.Sleep(2 * time.Minute) // past MaxStale
			took, err = get()
			require.ErrorContains(t, err, "jwks: fetching the key set of issuer.example/jwks.json: ", name)
			require.LessOrEqual(t, took, 5*time.Second)
			f.serve(text(jwk))
			time.Sleep(30 * time.Second)
			took, err = get()
			require.NoError(t, err, name)
			require.Zero(t, took)
		})
	}
}

func TestVerifyKeys_ColdStartBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(status(500))
		k := newKeySet(t, f, nil)
		for range 1200 {
			_, err := k.VerifyKeys(t.Context(), "1")
			require.Error(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}, seconds(f.times()))
	})
}

func seconds(list []time.Duration) (s []time.Duration) {
	for _, d := range list {
		s = append(s, d/time.Second)
	}
	return s
}

func TestRun_FetchesBeforeExpiry(t *testing.T) {
	t.Parallel()
	jwk := set(published(t, newEd(t).WithID("1")))
	synctest.Test(t, func(t *testing.T) {
		f := newFake(control("max-age=600", text(jwk)))
		k := newKeySet(t, f, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()
		synctest.Wait()
		require.EqualValues(t, 1, f.requests.Load(), "Run fetches at once")
		require.EqualError(t, k.Run(ctx), "jwks: Run is already running")
		for time.Since(f.begin) < 24*time.Hour {
			begin := time.Now()
			keys, err := k.VerifyKeys(t.Context(), "1")
			require.NoError(t, err)
			require.Len(t, keys, 1)
			require.Zero(t, time.Since(begin))
			time.Sleep(17 * time.Second)
		}
		at := f.times()
		for i := 1; i < len(at); i++ {
			gap := at[i] - at[i-1]
			require.Greater(t, gap, 400*time.Second)
			require.LessOrEqual(t, gap, 450*time.Second)
		}
		require.Greater(t, len(at), 190)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		before := f.requests.Load()
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour) // Run may be called again
		defer cancel()
		require.ErrorIs(t, k.Run(ctx), context.DeadlineExceeded)
		require.Greater(t, f.requests.Load(), before)
	})
}

// TestRun_NoCallWaitsDuringAnOutage: the keys are known before the outage, which
// ends before MaxStale.
func TestRun_NoCallWaitsDuringAnOutage(t *testing.T) {
	t.Parallel()
	jwk := set(published(t, newEd(t).WithID("1")))
	synctest.Test(t, func(t *testing.T) {
		f := newFake(text(jwk))
		var failures atomic.Int64
		k := newKeySet(t, f, func(c *jwks.Config) { c.OnEvent = func(context.Context, auth.Event) { failures.Add(1) } })
		go func() { _ = k.Run(t.Context()) }()
		synctest.Wait()
		f.hang()
		for time.Since(f.begin) < time.Hour {
			begin := time.Now()
			_, err := k.VerifyKeys(t.Context(), "1")
			require.NoError(t, err)
			require.Zero(t, time.Since(begin))
			time.Sleep(time.Second)
		}
		require.InDelta(t, f.requests.Load()-1, failures.Load(), 1, "one fetch may be in progress")
		require.InDelta(t, 100, failures.Load(), 10)
		f.serve(text(jwk))
		time.Sleep(36 * time.Second)
		failures.Store(0)
		time.Sleep(time.Hour)
		_, err := k.VerifyKeys(t.Context(), "1")
		require.NoError(t, err)
		require.Zero(t, failures.Load())
	})
}

func TestRun_RecoversFromAColdStart(t *testing.T) {
	t.Parallel()
	jwk := set(published(t, newEd(t).WithID("1")))
	synctest.Test(t, func(t *testing.T) {
		f := newFake(status(503))
		k := newKeySet(t, f, nil)
		go func() { _ = k.Run(t.Context()) }()
		time.Sleep(20 * time.Second)
		require.Equal(t, []time.Duration{0, 1, 3, 7, 15}, seconds(f.times()))
		_, err := k.VerifyKeys(t.Context(), "1")
		require.EqualError(t, err, "jwks: fetching the key set of issuer.example/jwks.json: status 503")
		f.serve(text(jwk))
		time.Sleep(12 * time.Second)
		keys, err := k.VerifyKeys(t.Context(), "1")
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.EqualValues(t, 6, f.requests.Load())
	})
}

func TestRun_ReturnsAtOnceDuringAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(status(500))
		f.hang()
		k := newKeySet(t, f, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()
		synctest.Wait()
		cancel(errors.New("over"))
		begin := time.Now()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Zero(t, time.Since(begin))
		time.Sleep(5 * time.Second) // the fetch ends after Timeout; otherwise the bubble fails
	})
}

// TestRun_KeyChangeRefusesNoToken changes the key of an issuer twice, and
// verifies a new token and an old one every three seconds. The cache ignores
// that it is asked to revalidate.
func TestRun_KeyChangeRefusesNoToken(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	t.Parallel()
	for _, run := range []bool{true, false} {
		for _, through := range []string{"publisher", "cache"} {
			t.Run(fmt.Sprintf("run=%t,%s", run, through), func(t *testing.T) {
				t.Parallel()
				keys := auth.Keys{newEd(t), auth.PS256(newRSA()), newEd(t)}
				synctest.Test(t, func(t *testing.T) {
					a := newIssuer(t, time.Now, keys[0])
					h := a.JWKSHandler()
					if through == "cache" {
						h = newCache(h)
					}
					f := newFake(h)
					k := newKeySet(t, f, nil)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if run {
						go func() { _ = k.Run(ctx) }()
						synctest.Wait()
					}
					v := newVerifier(t, k, time.Now)
					signers := map[string]int{}
					var old []string
					for second := 0; second < 45*60; second += 3 {
						switch second {
						case 60:
							require.NoError(t, a.SetKeys(auth.Keys{keys[1], keys[0]}, nil))
						case 25 * 60:
							require.NoError(t, a.SetKeys(auth.Keys{keys[2], keys[1]}, nil))
						}
						token := newToken(t, a)
						signers[token[:strings.IndexByte(token, '.')]]++
						old = append(old, token)
						if len(old) > 80 { // the oldest is younger than AccessTTL
							old = old[1:]
						}
						for _, token := range []string{token, old[0]} {
							claims, err := v.Verify(t.Context(), token)
							require.NoError(t, err, "second %d", second)
							require.Equal(t, "u1", claims.Subject)
						}
						time.Sleep(3 * time.Second)
					}
					require.Len(t, signers, 3)
					require.Less(t, f.requests.Load(), int64(60))
				})
			})
		}
	}
}

// cache is a shared cache. It keeps a response for its max-age, and sends Age.
type cache struct {
	next http.Handler
	at   time.Time
	body string
	head http.Header
}

func newCache(next http.Handler) *cache { return &cache{next: next} }

func (c *cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.at.IsZero() || time.Since(c.at) >= 5*time.Minute {
		r = r.Clone(r.Context())
		r.Header.Del("If-None-Match")
		resp, _ := direct(c.next)(r)
		b := new(strings.Builder)
		_ = resp.Write(b)
		_, c.body, _ = strings.Cut(b.String(), "\r\n\r\n")
		c.at, c.head = time.Now(), resp.Header
	}
	for name, values := range c.head {
		w.Header()[name] = values
	}
	w.Header().Set("Age", fmt.Sprint(int(time.Since(c.at)/time.Second)))
	_, _ = w.Write([]byte(c.body))
}
