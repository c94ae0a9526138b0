package bench

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// counting are the stores behind a server that can say what it was asked.
var counting = []struct {
	name  string
	start func(testing.TB) string
	open  func(tb testing.TB, addr string) []*refresher
	calls func(tb testing.TB, addr string) func() map[string]int
}{
	{"redis", startRedis, onRedis, redisCalls},
	{"postgres", startPostgresCounting, onPostgres, postgresCalls},
}

// trips is what one refresh asks of a server.
type trips struct {
	turns    float64            // how often the client waits
	commands float64            // what the server counts; of scripts, these alone: turns tell what else there was
	named    map[string]float64 // the same by name, with what a script calls
}

func (t trips) String() string {
	var names []string
	for name, n := range t.named {
		names = append(names, fmt.Sprintf("%.2f × %s", n, strings.Join(strings.Fields(name), " ")))
	}
	slices.Sort(names)
	return fmt.Sprintf("%.2f waits, %.2f commands (%s)", t.turns, t.commands, strings.Join(names, ", "))
}

// countTrips refreshes one session n times.
func countTrips(tb testing.TB, x *refresher, w *wire, calls func() map[string]int, n int) trips {
	tb.Helper()
	c, own := newClient(x), open(x, fresh())
	for range 20 { // connections and scripts
		c.move(tb, own)
	}
	before, turns := calls(), w.turns.Load()
	for range n {
		c.move(tb, own)
	}
	t := trips{turns: float64(w.turns.Load()-turns) / float64(n), named: map[string]float64{}}
	for name, count := range calls() {
		if count -= before[name]; count > 0 {
			t.named[name] = float64(count) / float64(n)
			t.commands += t.named[name]
		}
	}
	if scripts := t.named["evalsha"] + t.named["eval"] + t.named["fcall"]; scripts > 0 {
		t.commands = scripts // what they call is counted by name too
	}
	return t
}

// BenchmarkTrips counts how often a refresh waits for a server, and what that
// is asked to do. It measures no time.
func BenchmarkTrips(b *testing.B) {
	for _, s := range counting {
		b.Run("store="+s.name, func(b *testing.B) {
			addr := s.start(b)
			calls, w := s.calls(b, addr), newWire(b, addr)
			for _, x := range s.open(b, w.addr) {
				b.Run("peer="+x.name, func(b *testing.B) {
					t := countTrips(b, x, w, calls, 500)
					b.ReportMetric(t.turns, "waits/op")
					b.ReportMetric(t.commands, "commands/op")
				})
			}
		})
	}
}

// outcome is what became of racers who presented one token at once.
type outcome struct {
	average float64 // successors that were handed out, all different, per round
	most    float64
	served  float64 // racers who got any, per round
}

// race lets racers present one token at once, in rounds of a session each.
func race(tb testing.TB, x *refresher, racers, rounds int) (o outcome) {
	tb.Helper()
	clients := make([]*client, racers)
	for i := range clients {
		clients[i] = newClient(x)
	}
	for range rounds {
		token := open(x, fresh()).token
		x.step()
		got := make([]string, racers)
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

// remains is how many records the store has after n refreshes of its only
// session.
func remains(tb testing.TB, x *refresher, n int) int {
	tb.Helper()
	c, own := newClient(x), open(x, fresh())
	for range n {
		c.move(tb, own)
	}
	return x.records()
}

// contenders are those whose winners are counted, by themselves in a store.
var contenders = []struct {
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

// The contest: so many racers, so often.
const (
	racers  = 32
	rounds  = 200
	repeats = 1_000
)

// BenchmarkWinners counts who wins when many present one token at once, and
// what a store has of a session that was refreshed often. It measures no time.
func BenchmarkWinners(b *testing.B) {
	for _, c := range contenders {
		b.Run("store="+c.store+"/peer="+c.name, func(b *testing.B) {
			left := remains(b, c.open(b), repeats)
			o := race(b, c.open(b), racers, rounds)
			b.ReportMetric(o.average, "winners/op")
			b.ReportMetric(o.most, "winners-max")
			b.ReportMetric(o.served, "served/op")
			b.ReportMetric(float64(left), "records")
		})
	}
}
