package bench

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	ginstore "github.com/appleboy/gin-jwt/v3/store"
	"github.com/go-oauth2/oauth2/v4/models"
	oauth2store "github.com/go-oauth2/oauth2/v4/store"
	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

// How many sessions a store is filled with.
const (
	million = 1_000_000
	heavy   = 200_000 // if the store needs a kilobyte or more for each
)

// memoryStore is a store in memory.
type memoryStore struct {
	name  string
	n     int                        // the number of sessions to fill it with
	text  int                        // bytes of the User-Agent in each session
	add   func(i int, end time.Time) // adds session i, which expires at end
	use   func(i int) bool           // does what a request does; false if session i is missing
	clean func()                     // what an application must call periodically; may be nil
	stop  func()
}

// idOf returns the ID of session i, as long and as random as those of Ratchet.
func idOf(i int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(i))
	sum := sha256.Sum256(b[:])
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// longToken returns token i of 32 random bytes, as peers have.
func longToken(i int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(i))
	sum := sha256.Sum256(b[:])
	return base64.URLEncoding.EncodeToString(sum[:])
}

func sessionOf(i int, now, end time.Time) auth.Session {
	now = time.UnixMilli(now.UnixMilli()).UTC()
	return auth.Session{
		ID: idOf(i), Subject: subject(i), Generation: 1, CreatedAt: now, RotatedAt: now, ExpiresAt: time.UnixMilli(end.UnixMilli()).UTC(),
		Device: auth.Device{UserAgent: strings.Clone(browser), IP: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
	}
}

// weeks returns an expiry after the end of the benchmark.
func weeks() time.Time { return time.Now().Add(14 * 24 * time.Hour) }

var (
	errNotRotated = errors.New("the store returned rotated = false, want true")
	noLimit       = time.UnixMilli(1 << 45).UTC() // for RotatedAt
)

// rotate advances session i from a generation to the next.
func rotate(s auth.Store, i int, from int64) error {
	is := sessionOf(i, time.Now(), weeks())
	_, rotated, err := s.Rotate(context.Background(), is.Subject, is.ID, auth.Rotation{
		From: from, At: is.RotatedAt, NotAfter: noLimit, ExpiresAt: is.ExpiresAt, Device: is.Device,
	})
	if err == nil && !rotated {
		err = errNotRotated
	}
	return err
}

// ratchetSessions uses sessions by a rotation, which also collects expired ones.
func ratchetSessions(bool) *memoryStore {
	s := auth.NewMemoryStore()
	ctx := context.Background()
	var generations []int64
	return &memoryStore{
		name: "ratchet", n: million, text: len(browser), stop: nothing,
		add: func(i int, end time.Time) {
			// A record is collected a minute after it expired.
			must(s.Create(ctx, sessionOf(i, time.Now(), end.Add(-time.Minute))))
		},
		use: func(i int) bool {
			if generations == nil {
				generations = make([]int64, million)
			}
			generations[i]++
			return rotate(s, i, generations[i]) == nil
		},
	}
}

func ginJWTSessions(bool) *memoryStore {
	s := ginstore.NewInMemoryRefreshTokenStore()
	ctx := context.Background()
	return &memoryStore{
		name: "gin-jwt", n: million, stop: nothing,
		add: func(i int, end time.Time) {
			must(s.Set(ctx, longToken(i), &ginUser{subject(i), username, roles}, end))
		},
		use: func(i int) bool { _, err := s.Get(ctx, longToken(i)); return err == nil },
		clean: func() {
			_, err := s.Cleanup(ctx)
			must(err)
		},
	}
}

// roles is shared by all sessions.
var roles = []string{role}

// scsSessions stores what a session manager of scs stores. If cleans is set, its
// goroutine cleans up every second; the default of scs is every minute.
func scsSessions(cleans bool) *memoryStore {
	s := memstore.NewWithCleanupInterval(0)
	stop := nothing
	if cleans {
		s = memstore.NewWithCleanupInterval(time.Second)
		stop = s.StopCleanup
	}
	codec := scs.GobCodec{} // the default of scs
	return &memoryStore{
		name: "scs", n: million, stop: stop,
		add: func(i int, end time.Time) {
			b, err := codec.Encode(end, map[string]any{"sub": subject(i), "username": username, "role": role})
			must(err)
			must(s.Commit(longToken(i)[:43], b, end))
		},
		use: func(i int) bool { _, ok, err := s.Find(longToken(i)[:43]); return ok && err == nil },
	}
}

func fositeSessions(bool) *memoryStore {
	h, memory := newFosite()
	return &memoryStore{
		name: "fosite", n: heavy,
		add:  func(i int, _ time.Time) { asForm(h, i) },
		stop: func() { runtime.KeepAlive(memory) },
	}
}

// goOAuth2Sessions stores what the manager of go-oauth2 stores at a login. Its
// database cleans up every second.
func goOAuth2Sessions(bool) *memoryStore {
	s, err := oauth2store.NewMemoryTokenStore()
	must(err)
	ctx := context.Background()
	return &memoryStore{
		name: "go-oauth2", n: heavy, stop: nothing,
		add: func(i int, end time.Time) {
			now := time.Now()
			t := models.NewToken()
			t.SetClientID(clientID)
			t.SetUserID(subject(i))
			t.SetAccess(longToken(-1 - i))
			t.SetAccessCreateAt(now)
			t.SetAccessExpiresIn(min(2*time.Hour, end.Sub(now)))
			t.SetRefresh(longToken(i))
			t.SetRefreshCreateAt(now)
			t.SetRefreshExpiresIn(end.Sub(now))
			must(s.Create(ctx, t))
		},
		use: func(i int) bool { t, err := s.GetByRefresh(ctx, longToken(i)); return t != nil && err == nil },
	}
}

// mapSessions is one map of records without pointers, with a lock: the minimum
// for a session, without a device.
func mapSessions(bool) *memoryStore {
	type record struct {
		subject                               [16]byte
		generation, created, rotated, expires int64
		address                               [16]byte
	}
	var mu sync.Mutex
	all := map[[16]byte]record{}
	key := func(i int) (k [16]byte) { copy(k[:], idOf(i)); return k }
	return &memoryStore{
		name: "map", n: million, stop: nothing,
		add: func(i int, end time.Time) {
			is := sessionOf(i, time.Now(), end)
			r := record{
				generation: 1, created: is.CreatedAt.UnixMilli(), rotated: is.RotatedAt.UnixMilli(), expires: is.ExpiresAt.UnixMilli(),
				address: is.Device.IP.As16(),
			}
			copy(r.subject[:], is.Subject)
			mu.Lock()
			defer mu.Unlock()
			all[key(i)] = r
		},
		use: func(i int) bool {
			mu.Lock()
			defer mu.Unlock()
			r, ok := all[key(i)]
			r.generation++
			all[key(i)] = r
			return ok
		},
		clean: func() {
			now := time.Now().UnixMilli()
			mu.Lock()
			defer mu.Unlock()
			for k, r := range all {
				if r.expires < now {
					delete(all, k)
				}
			}
		},
	}
}

// memoryStores lists the stores in the order in which they are measured, with
// go-oauth2 last, which never frees its memory. If cleans is set, the stores that
// can clean up in the background do so.
var memoryStores = []struct {
	name  string
	build func(cleans bool) *memoryStore
}{
	{"map", mapSessions}, {"ratchet", ratchetSessions}, {"gin-jwt", ginJWTSessions}, {"scs", scsSessions},
	{"fosite", fositeSessions}, {"go-oauth2", goOAuth2Sessions},
}

// live returns the bytes of the live heap, and how long a full collection takes.
func live() (bytes uint64, gc time.Duration) {
	runtime.GC()
	begin := time.Now()
	runtime.GC()
	gc = time.Since(begin)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, gc
}

// memorySize fills a store with n sessions, and returns the bytes of the live
// heap for each of them, and how long a full collection takes then.
func memorySize(build func(bool) *memoryStore, n int) (perSession float64, gc time.Duration) {
	before, _ := live()
	k := build(false)
	for i := range n {
		k.add(i, weeks())
	}
	after, gc := live()
	k.stop()
	runtime.KeepAlive(k)
	return (float64(after) - float64(before)) / float64(n), gc
}

// BenchmarkSize measures the size of sessions in memory, and the time of a full
// collection.
func BenchmarkSize(b *testing.B) {
	for _, k := range memoryStores {
		b.Run("peer="+k.name, func(b *testing.B) {
			like := k.build(false)
			like.stop()
			each, gc := memorySize(k.build, like.n)
			b.ReportMetric(each, "B/session")
			b.ReportMetric(float64(like.text), "text-B/session")
			b.ReportMetric(float64(like.n), "sessions")
			b.ReportMetric(float64(gc.Nanoseconds()), "gc-ns")
		})
	}
}

// latencies holds durations of operations, in ascending order.
type latencies []time.Duration

func (w latencies) at(q float64) time.Duration { return w[int(q*float64(len(w)-1))] }

// How long measureLatency measures before and after sessions expire.
const (
	before = time.Second / 2
	after  = 3 * time.Second / 2
)

// measureLatency fills a store, and measures each operation on half of its
// sessions while others are added. With expire, the other half expires all at
// once and is cleaned up. The collector of Go is off meanwhile; BenchmarkSize
// measures it. Delays by the scheduler are included, with and without expire.
func measureLatency(tb testing.TB, build func(bool) *memoryStore, n int, expire bool) latencies {
	tb.Helper()
	k := build(expire)
	defer k.stop()
	begin := time.Now()
	for i := 0; i < n; i += 2 {
		k.add(i, weeks())
	}
	end := time.Now().Add(4*time.Since(begin) + 2*before) // after the other half was added
	for i := 1; i < n; i += 2 {
		if expire {
			k.add(i, end)
		} else {
			k.add(i, weeks())
		}
	}
	taken := slices.Grow(latencies(nil), 8<<20)
	k.use(0) // allocates what it needs
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	left := time.Until(end.Add(-before))
	if left < 0 {
		tb.Fatalf("%s: filling took until the sessions expired", k.name)
	}
	time.Sleep(left)

	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := n; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Microsecond):
				k.add(i, weeks())
			}
		}
	})
	if k.clean != nil && expire {
		wg.Go(func() {
			time.Sleep(time.Until(end.Add(time.Millisecond)))
			k.clean()
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for now, until := time.Now(), end.Add(after); now.Before(until) && len(taken) < cap(taken); {
		i := 2 * rng.IntN((n+1)/2)
		from := time.Now()
		ok := k.use(i)
		now = time.Now()
		taken = append(taken, now.Sub(from))
		if !ok {
			tb.Errorf("%s: session %d is missing", k.name, i)
			break
		}
	}
	close(done)
	wg.Wait()
	expired := 0
	for i := 1; expire && i < n; i += 2 {
		if !k.use(i) {
			expired++
		}
	}
	if expire && expired < n/4 {
		tb.Errorf("%s: %d of %d expired sessions were cleaned up, want at least half", k.name, expired, n/2)
	}
	slices.Sort(taken)
	return taken
}

// BenchmarkLatency measures the latency of operations on live sessions while half
// a million others expire, and while none expires.
func BenchmarkLatency(b *testing.B) {
	for _, k := range memoryStores {
		if k.name == "fosite" {
			continue // it never cleans up
		}
		for _, expire := range []bool{false, true} {
			b.Run(fmt.Sprintf("peer=%s/expire=%t", k.name, expire), func(b *testing.B) {
				like := k.build(false)
				like.stop()
				w := measureLatency(b, k.build, like.n, expire)
				b.ReportMetric(float64(w.at(0.999).Nanoseconds()), "p999-ns")
				b.ReportMetric(float64(w.at(1).Nanoseconds()), "longest-ns")
			})
		}
	}
}

// kept is the number of sessions that a database is filled with.
const kept = 100_000

// databaseStore is a store outside of this process.
type databaseStore struct {
	store, name string
	start       func(testing.TB) string
	fill        func(tb testing.TB, addr string, from, to int)
	size        func(tb testing.TB, addr string) int64 // returns the bytes in use
	text        int                                    // bytes of the User-Agent in each session
}

var databaseStores = []databaseStore{
	{"redis", "ratchet", startRedis, fillRedis, redisSize, len(browser)},
	{"redis", "gin-jwt", startRedis, fillGinJWT, redisSize, 0},
	{"postgres", "ratchet", startPostgresAsync, fillPostgres, postgresSize, len(browser)},
	{"sqlite", "ratchet", startSQLite, fillSQLite, fileSize, len(browser)},
}

// fill adds sessions and rotates each of them once.
func fill(s auth.Store, from, to int) {
	allAtOnce(from, to, func(i int) { must(s.Create(context.Background(), sessionOf(i, time.Now(), weeks()))) })
	allAtOnce(from, to, func(i int) { must(rotate(s, i, 1)) })
}

func fillGinJWT(tb testing.TB, addr string, from, to int) {
	x := refreshGinJWT(tb, addr)
	all := make([]*session, to)
	allAtOnce(from, to, func(i int) { all[i] = open(x, i) })
	allAtOnce(from, to, func(i int) { newClient(x).mustRefresh(tb, all[i]) })
}

func fillRedis(tb testing.TB, addr string, from, to int) {
	tb.Helper()
	fill(redisStore(tb, addr), from, to)
}

func fillPostgres(tb testing.TB, addr string, from, to int) {
	tb.Helper()
	fill(postgresStore(tb, addr), from, to)
}

func fillSQLite(_ testing.TB, file string, from, to int) {
	s, err := sqlitestore.Open(file, sqlitestore.Config{})
	must(err)
	fill(s, from, to)
	must(s.Close()) // moves the write-ahead log into the file
}

func allAtOnce(from, to int, do func(i int)) {
	const clients = 16
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := from + c; i < to; i += clients {
				do(i)
			}
		})
	}
	wg.Wait()
}

func redisSize(tb testing.TB, addr string) (n int64) {
	info, err := redisClient(tb, addr).Info(context.Background(), "memory").Result()
	must(err)
	_, rest, _ := strings.Cut(info, "used_memory:")
	_, err = fmt.Sscan(rest, &n)
	must(err)
	return n
}

// postgresSize returns the size of all tables and their indexes.
func postgresSize(tb testing.TB, addr string) (n int64) {
	must(postgresPool(tb, addr).QueryRow(context.Background(), `
		SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
		WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')`).Scan(&n))
	return n
}

func fileSize(_ testing.TB, file string) (n int64) {
	for _, name := range []string{file, file + "-wal"} {
		if i, err := os.Stat(name); err == nil {
			n += i.Size()
		}
	}
	return n
}

// stored returns the bytes that a database needs for each of n sessions.
func stored(tb testing.TB, o databaseStore, n int) float64 {
	tb.Helper()
	addr := o.start(tb)
	o.fill(tb, addr, 0, 1) // what the first session creates for all
	before := o.size(tb, addr)
	o.fill(tb, addr, 1, n+1)
	return float64(o.size(tb, addr)-before) / float64(n)
}

// BenchmarkStored measures the size of sessions in databases. Each of them was
// rotated once.
func BenchmarkStored(b *testing.B) {
	for _, o := range databaseStores {
		b.Run("store="+o.store+"/peer="+o.name, func(b *testing.B) {
			b.ReportMetric(stored(b, o, kept), "B/session")
			b.ReportMetric(float64(o.text), "text-B/session")
			b.ReportMetric(kept, "sessions")
		})
	}
}
