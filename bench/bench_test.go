package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
)

// requireSubject is the protected handler of the benchmarks.
func requireSubject(w http.ResponseWriter, subject string) {
	if subject == "" {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// serve measures h with one request. ok is whether h must accept it.
func serve(b *testing.B, h http.Handler, r *http.Request, ok bool) {
	b.Helper()
	w := newDiscard()
	for range 2 { // fill caches
		w.reset()
		h.ServeHTTP(w, r)
		if good := w.status < http.StatusBadRequest; good != ok {
			b.Fatalf("status %d", w.status)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		w.reset()
		h.ServeHTTP(w, r)
	}
}

// BenchmarkProtected measures a request with a valid token, the same each time.
func BenchmarkProtected(b *testing.B) {
	b.Run("alg=none/peer=none", func(b *testing.B) { serve(b, noAuth(requireSubject), get("token"), true) })
	b.Run("alg=none/peer=scs", func(b *testing.B) {
		h, cookie := wrapSCS(requireSubject)
		r := get("")
		r.AddCookie(cookie)
		serve(b, h, r, true)
	})
	for _, a := range algorithms() {
		token, ratchets := a.mint(0, nil), start(a.ratchet(-1, nil), 0)
		b.Run("alg="+a.name+"/peer=signature", func(b *testing.B) {
			check := a.checkSignature(b, ratchets)
			b.ReportAllocs()
			for b.Loop() {
				if err := check(); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, p := range peers {
			b.Run("alg="+a.name+"/peer="+p.name, func(b *testing.B) {
				token := token
				if p.ratchet {
					token = ratchets
				}
				serve(b, p.wrap(a, requireSubject), get(token), true)
				b.ReportMetric(float64(len(token)), "token-bytes")
			})
		}
	}
}

// BenchmarkRefused measures a refused request, its response included.
func BenchmarkRefused(b *testing.B) {
	a := algorithms()[0]
	good, old := a.mint(0, nil), a.mint(0, expired)
	goodRatchet, oldRatchet := start(a.ratchet(-1, nil), 0), a.expiredRatchet()
	for _, kind := range badRequests {
		for _, p := range peers {
			name, token := p.name, badToken(kind, good, old)
			if name == "ratchet-new" {
				continue // refused tokens are never cached, so both would measure the same
			}
			if p.ratchet {
				name, token = "ratchet", badToken(kind, goodRatchet, oldRatchet)
			}
			b.Run("alg="+a.name+"/kind="+kind+"/peer="+name, func(b *testing.B) {
				serve(b, p.wrap(a, requireSubject), get(token), false)
			})
		}
	}
}

// serveMany measures h with each of the Authorization headers in turn.
func serveMany(b *testing.B, h http.Handler, headers []string) {
	b.Helper()
	w, r := newDiscard(), get("token")
	header := r.Header["Authorization"]
	for range 2 {
		for _, s := range headers {
			header[0] = s
			w.reset()
			h.ServeHTTP(w, r)
			if w.status >= http.StatusBadRequest {
				b.Fatalf("status %d", w.status)
			}
		}
	}
	// Shuffle, so that the processor cannot prefetch the next one.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(headers), func(i, j int) { headers[i], headers[j] = headers[j], headers[i] })
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		header[0] = headers[i]
		if i++; i == len(headers) {
			i = 0
		}
		w.reset()
		h.ServeHTTP(w, r)
	}
}

// BenchmarkManyTokens measures protected requests that use many tokens in turn.
func BenchmarkManyTokens(b *testing.B) {
	const most = 30_000
	counts := []int{1, 1_000, most}
	for _, a := range algorithms() {
		x := a.ratchet(-1, nil)
		var minted []string
		headers := func(n int) []string { // signs on first use
			for len(minted) < n {
				from := len(minted)
				minted = append(minted, each(n-from, func(i int) string { return "Bearer " + start(x, from+i) })...)
			}
			return append([]string(nil), minted[:n]...)
		}
		if a.name == "HS256" {
			for _, n := range counts {
				b.Run(fmt.Sprintf("alg=none/peer=none/tokens=%d", n), func(b *testing.B) { serveMany(b, noAuth(requireSubject), headers(n)) })
			}
		}
		for _, n := range counts {
			b.Run(fmt.Sprintf("alg=%s/peer=ratchet-cached/tokens=%d", a.name, n), func(b *testing.B) {
				serveMany(b, wrapRatchet(a.ratchet(0, nil), requireSubject), headers(n))
			})
		}
		b.Run(fmt.Sprintf("alg=%s/peer=ratchet-cached/tokens=%d/cache=131072", a.name, most), func(b *testing.B) {
			serveMany(b, wrapRatchet(a.ratchet(131_072, nil), requireSubject), headers(most))
		})
	}
}

// BenchmarkParallel measures protected requests on as many CPUs as -cpu
// selects, with 1,000 tokens in use.
func BenchmarkParallel(b *testing.B) {
	a := algorithms()[0]
	x := a.ratchet(-1, nil)
	headers := each(1_000, func(i int) string { return "Bearer " + start(x, i) })
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"none", noAuth(requireSubject)},
		{"ratchet-cached", wrapRatchet(a.ratchet(0, nil), requireSubject)},
		{"ratchet-new", wrapRatchet(x, requireSubject)},
	} {
		b.Run("alg="+a.name+"/peer="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w, r := newDiscard(), get("token")
				header := r.Header["Authorization"]
				for i := rand.IntN(len(headers)); pb.Next(); i++ {
					header[0] = headers[i%len(headers)]
					w.reset()
					c.h.ServeHTTP(w, r)
					if w.status >= http.StatusBadRequest {
						b.Errorf("status %d", w.status)
						return
					}
				}
			})
		})
	}
}

// loopbackCase is a server that BenchmarkLoopback measures.
type loopbackCase struct {
	name, token string
	handler     http.Handler
}

func loopbacks(a *algorithm) []loopbackCase {
	ratchets := start(a.ratchet(-1, nil), 0)
	hello := func(w http.ResponseWriter, subject string) {
		if subject != "" {
			_, _ = io.WriteString(w, "hello")
		}
	}
	plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { hello(w, "anonymous") })
	return []loopbackCase{
		{"none", ratchets, plain},
		{"golang-jwt", a.mint(0, nil), wrapGolangJWT(a, hello)},
		{"ratchet-cached", ratchets, wrapRatchet(a.ratchet(0, nil), hello)},
		{"ratchet-new", ratchets, wrapRatchet(a.ratchet(-1, nil), hello)},
	}
}

// loopback starts a server and returns a function that sends a request over its
// only connection and waits for the response. The client does as little as
// possible, so that the time is that of the server.
func loopback(tb testing.TB, h http.Handler, token string) (send func()) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	srv := &http.Server{Handler: h} //nolint:gosec // it has one client, which does not stall
	go func() { _ = srv.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	must(err)
	tb.Cleanup(func() { _, _ = conn.Close(), srv.Close() })

	request := []byte("GET /me HTTP/1.1\r\nHost: " + l.Addr().String() + "\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	_, err = conn.Write(request)
	must(err)
	buf := make([]byte, 4096)
	size, err := conn.Read(buf) // a short response is one segment, and all have the same length
	must(err)
	if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(buf[:size], []byte("\r\n\r\nhello")) {
		tb.Fatalf("%s", buf[:size])
	}
	return func() {
		if _, err := conn.Write(request); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf[:size]); err != nil {
			tb.Fatal(err)
		}
		if buf[size-1] != 'o' || buf[9] != '2' {
			tb.Fatalf("%s", buf[:size])
		}
	}
}

// BenchmarkLoopback measures a request over loopback TCP with keep-alive,
// through net/http.
func BenchmarkLoopback(b *testing.B) {
	a := algorithms()[0]
	for _, c := range loopbacks(a) {
		b.Run("alg="+a.name+"/peer="+c.name, func(b *testing.B) {
			send := loopback(b, c.handler, c.token)
			for range 5_000 { // warm up
				send()
			}
			b.ReportAllocs()
			for b.Loop() {
				send()
			}
		})
	}
}
