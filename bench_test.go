package auth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ratchet-go/auth"
)

type nopWriter struct{ h http.Header }

func (w *nopWriter) Header() http.Header         { return w.h }
func (w *nopWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *nopWriter) WriteHeader(int)             {}

func BenchmarkRequire(b *testing.B) {
	for name, size := range map[string]int{"cached": 0, "uncached": -1} {
		b.Run(name, func(b *testing.B) { benchmarkRequire(b, size) })
	}
}

func benchmarkRequire(b *testing.B, size int) {
	x := newFixture(b, func(c *auth.Config) { c.TokenCacheSize = size })
	tokens := x.login(b)
	h := x.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		if c.Subject != "u1" {
			b.Fatal("no")
		}
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := &nopWriter{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}
