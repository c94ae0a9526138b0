package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ratchet-go/auth"
)

// counting lists the stores whose server counts the commands that it runs.
var counting = []struct {
	name  string
	start func(testing.TB) string
	open  func(tb testing.TB, addr string) []*refresher
	calls func(tb testing.TB, addr string) func() map[string]int

	ratchet func(tb testing.TB, addr string) auth.Store
}{
	{"redis", startRedis, onRedis, redisCalls, redisStore},
	{"postgres", startPostgresCounting, onPostgres, postgresCalls, postgresStore},
}

// roundTrips is what one operation requires of a server.
type roundTrips struct {
	waits    float64            // how often the client waits for a response
	commands float64            // as the server counts them; if it ran scripts, only those
	named    map[string]float64 // commands by name, including those that scripts call
}

func (t roundTrips) String() string {
	var names []string
	for name, n := range t.named {
		names = append(names, fmt.Sprintf("%.2f × %s", n, strings.Join(strings.Fields(name), " ")))
	}
	slices.Sort(names)
	return fmt.Sprintf("%.2f waits, %.2f commands (%s)", t.waits, t.commands, strings.Join(names, ", "))
}

// countRoundTrips refreshes one session n times.
func countRoundTrips(tb testing.TB, x *refresher, w *proxy, calls func() map[string]int, n int) roundTrips {
	tb.Helper()
	c, own := newClient(x), open(x, newUser())
	for range 20 { // open connections and load scripts
		c.mustRefresh(tb, own)
	}
	before, waits := calls(), w.waits.Load()
	for range n {
		c.mustRefresh(tb, own)
	}
	t := roundTrips{waits: float64(w.waits.Load()-waits) / float64(n), named: map[string]float64{}}
	for name, count := range calls() {
		if count -= before[name]; count > 0 {
			t.named[name] = float64(count) / float64(n)
			t.commands += t.named[name]
		}
	}
	if scripts := t.named["evalsha"] + t.named["eval"] + t.named["fcall"]; scripts > 0 {
		t.commands = scripts // named also counts the commands that scripts call
	}
	return t
}

// countProtected returns the round trips to the store in n protected requests
// with one token, whose session is in the store. They include those of Run,
// which reads the feed in the background.
func countProtected(tb testing.TB, s auth.Store, p *proxy, n int) roundTrips {
	tb.Helper()
	a := algorithms()[0].ratchet(-1, func(c *auth.Config) { c.Store = s })
	startFeed(tb, a)
	h, r, w := wrapRatchet(a, requireSubject), get(start(a, 0)), newDiscard()
	before := p.waits.Load()
	for range n {
		w.reset()
		h.ServeHTTP(w, r)
		if w.status >= http.StatusBadRequest {
			tb.Fatalf("status %d", w.status)
		}
	}
	return roundTrips{waits: float64(p.waits.Load()-before) / float64(n)}
}

// startFeed calls Run until the test ends, and waits until it has read the feed.
func startFeed(tb testing.TB, a *auth.Authenticator) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	tb.Cleanup(func() { cancel(); <-done })
	<-a.Ready()
}

// BenchmarkRoundTrips counts the round trips and commands of a refresh, and the
// round trips of a protected request. It measures no time.
func BenchmarkRoundTrips(b *testing.B) {
	for _, s := range counting {
		b.Run("store="+s.name, func(b *testing.B) {
			addr := s.start(b)
			calls, w := s.calls(b, addr), newProxy(b, addr)
			for _, x := range s.open(b, w.addr) {
				b.Run("peer="+x.name, func(b *testing.B) {
					t := countRoundTrips(b, x, w, calls, 500)
					b.ReportMetric(t.waits, "round-trips/op")
					b.ReportMetric(t.commands, "commands/op")
				})
			}
			b.Run("peer=ratchet-protected", func(b *testing.B) {
				b.ReportMetric(countProtected(b, s.ratchet(b, w.addr), w, 100_000).waits, "round-trips/op")
			})
		})
	}
}

// successors describes the responses to clients that present one token at once.
type successors struct {
	average float64 // different successors, per round
	most    float64 // different successors, in any round
	served  float64 // clients that got a successor, per round
}

// refreshAtOnce lets clients present one token at once. Each round has a new
// session.
func refreshAtOnce(tb testing.TB, x *refresher, simultaneous, rounds int) (o successors) {
	tb.Helper()
	clients := make([]*client, simultaneous)
	for i := range clients {
		clients[i] = newClient(x)
	}
	for range rounds {
		token := open(x, newUser()).token
		x.advance()
		got := make([]string, simultaneous)
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for i, c := range clients {
			wg.Go(func() {
				<-begin
				got[i] = string(c.refresh(token))
			})
		}
		close(begin)
		wg.Wait()
		different := map[string]bool{}
		for _, token := range got {
			if token != "" {
				different[token] = true
				o.served++
			}
		}
		o.average += float64(len(different))
		o.most = max(o.most, float64(len(different)))
	}
	o.average /= float64(rounds)
	o.served /= float64(rounds)
	return o
}

// recordsAfter returns the number of records in the store after n refreshes of
// its only session.
func recordsAfter(tb testing.TB, x *refresher, n int) int {
	tb.Helper()
	c, own := newClient(x), open(x, newUser())
	for range n {
		c.mustRefresh(tb, own)
	}
	return x.records()
}

// concurrentStores lists the libraries and stores that
// BenchmarkConcurrentRefresh measures, each with a store of its own.
var concurrentStores = []struct {
	store, name string
	open        func(testing.TB) *refresher
}{
	{"memory", "ratchet", func(testing.TB) *refresher { return refreshRatchet(nil) }},
	{"memory", "gin-jwt", func(tb testing.TB) *refresher { return refreshGinJWT(tb, "") }},
	{"memory", "go-oauth2", func(tb testing.TB) *refresher { return refreshGoOAuth2(tb.TempDir() + "/tokens") }},
	{"redis", "ratchet", func(tb testing.TB) *refresher { return refreshRatchet(redisStore(tb, startRedis(tb))) }},
	{"redis", "gin-jwt", func(tb testing.TB) *refresher { return refreshGinJWT(tb, startRedis(tb)) }},
	{"postgres", "ratchet", func(tb testing.TB) *refresher { return refreshRatchet(postgresStore(tb, startPostgres(tb))) }},
	{"sqlite", "ratchet", func(tb testing.TB) *refresher { return refreshRatchet(sqliteStore(tb, startSQLite(tb))) }},
}

// The parameters of BenchmarkConcurrentRefresh.
const (
	simultaneous = 32
	rounds       = 200
	repeats      = 1_000
)

// BenchmarkConcurrentRefresh counts the different successors that many clients
// get for one token at once, and the records that a store holds of a session
// after many refreshes. It measures no time.
func BenchmarkConcurrentRefresh(b *testing.B) {
	for _, c := range concurrentStores {
		b.Run("store="+c.store+"/peer="+c.name, func(b *testing.B) {
			left := recordsAfter(b, c.open(b), repeats)
			o := refreshAtOnce(b, c.open(b), simultaneous, rounds)
			b.ReportMetric(o.average, "successors/op")
			b.ReportMetric(o.most, "successors-max")
			b.ReportMetric(o.served, "served/op")
			b.ReportMetric(float64(left), "records")
		})
	}
}
