package jwks_test

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

// The tests of this file use real sockets.

func TestFetch_OverTLSOnlyWithATrustedCertificate(t *testing.T) {
	t.Parallel()
	a := newIssuer(t, nil, newEd(t))
	p := newPublisher(t, a.JWKSHandler())
	require.Equal(t, 200, statusOf(newVerifier(t, p.keys(t, nil, nil), nil), newToken(t, a)))
	stranger := p.keys(t, nil, func(c *jwks.Config) { c.Client = nil })
	require.Equal(t, 503, statusOf(newVerifier(t, stranger, nil), newToken(t, a)))
	require.EqualValues(t, 1, p.requests.Load())
}

func TestFetch_OverHTTPOnlyIfAllowed(t *testing.T) {
	t.Parallel()
	a := newIssuer(t, nil, newEd(t))
	server := httptest.NewServer(a.JWKSHandler())
	defer server.Close()
	_, err := jwks.New(jwks.Config{URL: server.URL})
	require.ErrorContains(t, err, "InsecureHTTP")
	k, err := jwks.New(jwks.Config{URL: server.URL, InsecureHTTP: true})
	require.NoError(t, err)
	require.Equal(t, 200, statusOf(newVerifier(t, k, nil), newToken(t, a)))
}

func TestFetch_RedirectsStayOnTheHost(t *testing.T) {
	t.Parallel()
	a := newIssuer(t, nil, newEd(t))
	token := newToken(t, a)
	elsewhere := newPublisher(t, a.JWKSHandler())
	var plainRequests atomic.Int64
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plainRequests.Add(1)
		a.JWKSHandler().ServeHTTP(w, r)
	}))
	defer plain.Close()
	mux := http.NewServeMux()
	mux.Handle("/moved", a.JWKSHandler())
	p := newPublisher(t, mux)
	mux.Handle("/jwks.json", http.RedirectHandler("/moved", http.StatusFound))
	mux.Handle("/other", http.RedirectHandler(elsewhere.URL, http.StatusFound))
	mux.Handle("/plain", http.RedirectHandler(plain.URL, http.StatusFound))
	mux.Handle("/downgrade", http.RedirectHandler("http"+strings.TrimPrefix(p.URL, "https")+"/moved", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/nowhere", status(http.StatusFound))

	require.Equal(t, 200, statusOf(newVerifier(t, p.keys(t, nil, nil), nil), token))
	for path, want := range map[string]string{
		"/other": "a redirect to another host", "/plain": "a redirect to another host", "/downgrade": "a redirect from https to http",
		"/loop": "more than 3 redirects", "/nowhere": "302",
	} {
		k := p.keys(t, nil, func(c *jwks.Config) { c.URL = p.URL + path })
		_, err := newVerifier(t, k, nil).Verify(t.Context(), token)
		require.ErrorIs(t, err, auth.ErrUnavailable, path)
		require.ErrorContains(t, err, want, path)
	}
	require.Zero(t, elsewhere.requests.Load())
	require.Zero(t, plainRequests.Load())
	// A redirect from http to https on the same host and port cannot be tested.
	// The policy of the caller's client applies too.
	k := p.keys(t, nil, func(c *jwks.Config) {
		client := *c.Client
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return io.ErrNoProgress }
		c.Client = &client
	})
	_, err := k.VerifyKeys(t.Context(), "x")
	require.ErrorIs(t, err, io.ErrNoProgress)
}

// TestFetch_WaitsAtMostForTheTimeout: 1,000 calls at a server that does not
// respond in time cause one request, and get 503 after Timeout.
func TestFetch_WaitsAtMostForTheTimeout(t *testing.T) {
	t.Parallel()
	token := newToken(t, newIssuer(t, nil, newEd(t)))
	const timeout = 500 * time.Millisecond
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, h := range map[string]http.Handler{"hangs": hanging(), "trickles": http.HandlerFunc(trickle)} {
		p := newPublisher(t, h)
		var requests atomic.Int64 // sent by the client; a busy server may not have received it in time
		v := newVerifier(t, p.keys(t, newClock(), func(c *jwks.Config) {
			counted, transport := *c.Client, c.Client.Transport
			counted.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				requests.Add(1)
				return transport.RoundTrip(r)
			})
			c.Client, c.Timeout = &counted, timeout
		}), nil)
		var refused atomic.Int64
		slowest := many(1000, func(int) {
			if statusOf(v, token) == 503 {
				refused.Add(1)
			}
		})
		require.EqualValues(t, 1000, refused.Load(), name)
		require.EqualValues(t, 1, requests.Load(), name)
		require.LessOrEqual(t, p.requests.Load(), int64(1), name)
		require.Less(t, slowest, timeout+5*time.Second, name) // a busy machine
	}
	// A server that accepts connections and sends nothing, not even a TLS
	// handshake.
	var accepted atomic.Int64
	first := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			if accepted.Add(1) == 1 {
				close(first)
			}
			defer func() { _ = c.Close() }()
		}
	}()
	k, err := jwks.New(jwks.Config{URL: "https://" + listener.Addr().String(), Timeout: timeout, Now: newClock().Now})
	require.NoError(t, err)
	v := newVerifier(t, k, nil)
	many(100, func(int) { _ = statusOf(v, token) })
	require.Equal(t, 503, statusOf(v, token))
	<-first
	require.EqualValues(t, 1, accepted.Load())
}

// TestFetch_LimitsTheResponse tests an endless response, and a compressed one
// that exceeds the limit only when decompressed.
func TestFetch_LimitsTheResponse(t *testing.T) {
	t.Parallel()
	spaces := strings.Repeat(" ", 1<<20)
	var sent atomic.Int64
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			n, err := io.WriteString(w, spaces)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
	packed := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 64 {
			_, _ = io.WriteString(z, spaces)
		}
		_ = z.Close()
	}
	for _, h := range []http.HandlerFunc{endless, packed} {
		p := newPublisher(t, h)
		begin := time.Now()
		_, err := p.keys(t, nil, func(c *jwks.Config) { c.Timeout = time.Minute }).VerifyKeys(t.Context(), "x")
		require.ErrorContains(t, err, "more than 524288 bytes")
		require.Less(t, time.Since(begin), 20*time.Second)
	}
	require.Less(t, sent.Load(), int64(64<<20))
}

// TestFetch_FailingServerGetsOneRequest tests a closed port and responses with an
// error status.
func TestFetch_FailingServerGetsOneRequest(t *testing.T) {
	t.Parallel()
	token := newToken(t, newIssuer(t, nil, newEd(t)))
	for name, kill := range map[string]func(*publisher){
		"closed port": func(p *publisher) { p.Close() },
		"500":         func(p *publisher) { p.serve(status(500)) },
		"404":         func(p *publisher) { p.serve(status(404)) },
	} {
		p := newPublisher(t, status(200))
		kill(p)
		c := newClock()
		var tried atomic.Int64
		k := p.keys(t, c, func(config *jwks.Config) {
			next := config.Client.Transport
			config.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				tried.Add(1)
				return next.RoundTrip(r)
			})}
		})
		v := newVerifier(t, k, c.Now)
		var unavailable atomic.Int64
		many(1000, func(int) {
			if statusOf(v, token) == 503 {
				unavailable.Add(1)
			}
		})
		require.EqualValues(t, 1000, unavailable.Load(), name)
		require.EqualValues(t, 1, tried.Load(), name)
		c.Advance(time.Second)
		many(1000, func(int) { _ = statusOf(v, token) })
		require.EqualValues(t, 2, tried.Load(), "%s: one more after the backoff", name)
		c.Advance(time.Second)
		many(1000, func(int) { _ = statusOf(v, token) })
		require.EqualValues(t, 2, tried.Load(), "%s: the backoff grows", name)
	}
}

// TestFetch_UnknownKidsCauseOneRequest in MinRefresh, while tokens of known
// keys do not wait.
func TestFetch_UnknownKidsCauseOneRequest(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := newIssuer(t, c.Now, newEd(t))
	p := newPublisher(t, a.JWKSHandler())
	v := newVerifier(t, p.keys(t, c, nil), c.Now)
	token := newToken(t, a)
	require.Equal(t, 200, statusOf(v, token))
	flood := func() (refused int64) {
		var n atomic.Int64
		forgers := make([]string, 8)
		for i := range forgers {
			forgers[i] = newToken(t, newIssuer(t, c.Now, newEd(t)))
		}
		many(1000, func(i int) {
			switch {
			case i%10 == 0:
				if statusOf(v, token) != 200 {
					n.Add(-1000)
				}
			case statusOf(v, forgers[i%len(forgers)]) == 401:
				n.Add(1)
			}
		})
		return n.Load()
	}
	require.EqualValues(t, 900, flood(), "the set was fetched just now")
	require.EqualValues(t, 1, p.requests.Load())
	for n := range 3 {
		c.Advance(31 * time.Second)
		require.EqualValues(t, 900, flood())
		require.EqualValues(t, 2+n, p.requests.Load())
		require.EqualValues(t, 900, flood())
		require.EqualValues(t, 2+n, p.requests.Load())
	}
	// While the server fails, an unknown key may exist: its tokens get 503. Known
	// keys still verify.
	p.serve(status(500))
	c.Advance(31 * time.Second)
	stranger := newToken(t, newIssuer(t, c.Now, newEd(t)))
	var unavailable atomic.Int64
	many(1000, func(int) {
		if statusOf(v, stranger) == 503 {
			unavailable.Add(1)
		}
	})
	require.EqualValues(t, 1000, unavailable.Load())
	require.EqualValues(t, 5, p.requests.Load())
	c.Advance(29 * time.Second)
	require.Equal(t, 503, statusOf(v, stranger))
	require.Equal(t, 200, statusOf(v, token))
	require.EqualValues(t, 5, p.requests.Load())
}

// TestFetch_FindsNewKeyAtOnce: an issuer signs with a new key without having
// published it first.
func TestFetch_FindsNewKeyAtOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := newIssuer(t, c.Now, newEd(t))
	p := newPublisher(t, a.JWKSHandler())
	v := newVerifier(t, p.keys(t, c, nil), c.Now)
	require.Equal(t, 200, statusOf(v, newToken(t, a)))
	b := newIssuer(t, c.Now, newEd(t))
	p.serve(b.JWKSHandler())
	c.Advance(30 * time.Second)
	token := newToken(t, b)
	var ok atomic.Int64
	many(1000, func(int) {
		if statusOf(v, token) == 200 {
			ok.Add(1)
		}
	})
	require.EqualValues(t, 1000, ok.Load())
	require.EqualValues(t, 2, p.requests.Load())
}

// TestFetch_UsesStaleKeysForMaxStale closes the server, and starts it again after
// MaxStale.
func TestFetch_UsesStaleKeysForMaxStale(t *testing.T) {
	t.Parallel()
	c := newClock()
	signer := newEd(t)
	issuer := newIssuer(t, c.Now, signer)
	p := newPublisher(t, issuer.JWKSHandler())
	address := p.Listener.Addr().String()
	v := newVerifier(t, p.keys(t, c, nil), c.Now)
	require.Equal(t, 200, statusOf(v, newToken(t, issuer)))
	p.Close()
	c.Advance(5*time.Minute + time.Second)
	for range 60 {
		require.Equal(t, 200, statusOf(v, newToken(t, issuer)))
		c.Advance(time.Minute - time.Second)
	}
	c.Advance(time.Minute)
	require.Equal(t, 503, statusOf(v, newToken(t, issuer)))
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	back := new(publisher)
	back.serve(issuer.JWKSHandler())
	back.Server = httptest.NewUnstartedServer(back)
	_ = back.Listener.Close()
	back.Listener = listener
	back.StartTLS()
	defer back.Close()
	require.Equal(t, 503, statusOf(v, newToken(t, issuer)), "the last attempt was just now")
	c.Advance(time.Minute)
	require.Equal(t, 200, statusOf(v, newToken(t, issuer)))
}

func TestFetch_NegativeMaxStaleEndsWithTheLifetime(t *testing.T) {
	t.Parallel()
	c := newClock()
	signer := newEd(t)
	p := newPublisher(t, newIssuer(t, c.Now, signer).JWKSHandler())
	v := newVerifier(t, p.keys(t, c, func(config *jwks.Config) { config.MaxStale = -1 }), c.Now)
	require.Equal(t, 200, statusOf(v, newToken(t, newIssuer(t, c.Now, signer))))
	p.serve(status(500))
	c.Advance(5*time.Minute - time.Second)
	require.Equal(t, 200, statusOf(v, newToken(t, newIssuer(t, c.Now, signer))))
	c.Advance(time.Second)
	require.Equal(t, 503, statusOf(v, newToken(t, newIssuer(t, c.Now, signer))))
}

func TestFetch_RevalidatesWithETag(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := newIssuer(t, c.Now, newEd(t))
	var full, same atomic.Int64
	p := newPublisher(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		a.JWKSHandler().ServeHTTP(rec, r)
		if rec.Code == http.StatusNotModified && r.Header.Get("Cache-Control") == "no-cache" {
			same.Add(1)
		} else {
			full.Add(1)
		}
		a.JWKSHandler().ServeHTTP(w, r)
	}))
	k := p.keys(t, c, nil)
	v := newVerifier(t, k, c.Now)
	require.Equal(t, 200, statusOf(v, newToken(t, a)))
	for range 3 {
		c.Advance(5*time.Minute + time.Second)
		require.Equal(t, 200, statusOf(v, newToken(t, a)))
	}
	require.EqualValues(t, 1, full.Load())
	require.EqualValues(t, 3, same.Load())
	require.NoError(t, a.SetKeys(auth.Keys{newEd(t), newEd(t).SignFrom(c.Now())}, nil))
	c.Advance(5*time.Minute + time.Second)
	require.Equal(t, 200, statusOf(v, newToken(t, a)))
	require.EqualValues(t, 2, full.Load())
	// A 304 to a request without If-None-Match is an error.
	p.serve(status(http.StatusNotModified))
	other := p.keys(t, c, nil)
	_, err := other.VerifyKeys(t.Context(), "x")
	require.ErrorContains(t, err, "status 304")
}

// TestFetch_OutlivesTheCallThatStartedIt cancels the call that started a fetch
// while another waits for it.
func TestFetch_OutlivesTheCallThatStartedIt(t *testing.T) {
	t.Parallel()
	a := newIssuer(t, nil, newEd(t))
	arrived, respond := make(chan struct{}), make(chan struct{})
	p := newPublisher(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-respond
		a.JWKSHandler().ServeHTTP(w, r)
	}))
	v := newVerifier(t, p.keys(t, nil, nil), nil)
	token := newToken(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := v.Verify(ctx, token)
		first <- err
	}()
	<-arrived
	second := make(chan error)
	go func() {
		_, err := v.Verify(context.Background(), token)
		second <- err
	}()
	cancel()
	err := <-first
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	close(respond)
	require.NoError(t, <-second)
	require.EqualValues(t, 1, p.requests.Load())
}
