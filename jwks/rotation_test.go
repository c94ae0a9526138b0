package jwks_test

import (
	"context"
	"crypto/elliptic"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

// TestRotation_UnderLoadRefusesNoToken runs an issuer and a verify-only service
// over real sockets, under constant requests with new and old tokens. Meanwhile
// the issuer's key is replaced three times, and its key server is killed and
// restarted.
func TestRotation_UnderLoadRefusesNoToken(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes ten seconds")
	}
	t.Parallel()
	c := newClock()
	key := newEd(t)
	a := newIssuer(t, c.Now, key)
	p := newPublisher(t, a.JWKSHandler())
	address := p.Listener.Addr().String()
	keys := p.keys(t, c, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = keys.Run(ctx) }()
	service := httptest.NewServer(newVerifier(t, keys, c.Now).Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_, _ = io.WriteString(w, claims.Subject)
	})))
	defer service.Close()

	var accepted, refused atomic.Int64
	var turn sync.RWMutex // locked for writing while the clock advances, so that it never does during a request
	call := func(token string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, service.URL, nil)
		if err != nil {
			refused.Add(1)
			return
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := service.Client().Do(r)
		if err != nil {
			refused.Add(1)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == 200 {
			accepted.Add(1)
		} else {
			refused.Add(1)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var held string
			var since time.Time
			for {
				select {
				case <-stop:
					return
				default:
				}
				turn.RLock()
				tokens, err := a.StartSession(t.Context(), "u1", auth.SessionOptions{})
				if err != nil {
					refused.Add(1)
				}
				if held == "" || c.Now().Sub(since) > 4*time.Minute {
					held, since = tokens.Access, c.Now()
				}
				call(tokens.Access)
				call(held)
				turn.RUnlock()
			}
		})
	}
	pass := func(d time.Duration) {
		for range int(d / (10 * time.Second)) {
			before := accepted.Load() + refused.Load()
			for accepted.Load()+refused.Load() < before+8 {
				time.Sleep(time.Millisecond)
			}
			turn.Lock()
			c.Advance(10 * time.Second)
			turn.Unlock()
		}
	}
	pass(2 * time.Minute)
	for n, next := range []auth.Key{auth.ES256(newES(t, elliptic.P256())), auth.RS256(newRSA()), newEd(t)} {
		require.NoError(t, a.SetKeys(auth.Keys{next, key}, nil))
		pass(7 * time.Minute) // published, then used for signing
		if n == 1 {
			p.CloseClientConnections()
			p.Close()
		}
		pass(20 * time.Minute) // the old key is removed
		if n == 1 {
			listener, err := net.Listen("tcp", address)
			require.NoError(t, err)
			back := httptest.NewUnstartedServer(p)
			_ = back.Listener.Close()
			back.Listener = listener
			back.Config.ErrorLog = log.New(io.Discard, "", 0)
			back.StartTLS()
			defer back.Close()
			pass(2 * time.Minute)
		}
		key = next
	}
	close(stop)
	wg.Wait()
	require.Zero(t, refused.Load())
	require.Greater(t, accepted.Load(), int64(3000))
	t.Logf("%d accepted, %d refused, %d requests for the key set", accepted.Load(), refused.Load(), p.requests.Load())
	found, err := keys.VerifyKeys(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, found, 1)
}

var _ auth.KeySource = (*jwks.KeySet)(nil)

func BenchmarkVerifyKeys(b *testing.B) {
	k := newKeySet(b, direct(text(set(published(b, newEd(b).WithID("1")), published(b, newEd(b).WithID("2"))))), nil)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if keys, err := k.VerifyKeys(ctx, "2"); err != nil || len(keys) != 1 {
				b.Fatal(keys, err)
			}
		}
	})
}

// BenchmarkVerify verifies a cached token, with keys from a URL and with the same
// keys from the configuration.
func BenchmarkVerify(b *testing.B) {
	key := newEd(b)
	a := newIssuer(b, nil, key)
	parsed, err := auth.ParseJWK([]byte(published(b, key)))
	require.NoError(b, err)
	token := newToken(b, a)
	for name, source := range map[string]auth.KeySource{"jwks": newKeySet(b, direct(a.JWKSHandler()), nil), "given": auth.Keys{parsed}} {
		b.Run(name, func(b *testing.B) {
			v := newVerifier(b, source, nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
