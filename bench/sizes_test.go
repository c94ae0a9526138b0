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

// How many sessions a store is filled with, as many as it can bear.
const (
	million = 1_000_000
	heavy   = 200_000 // of stores that take a kilobyte and more for each
)

// keeper keeps sessions in memory.
type keeper struct {
	name  string
	n     int                        // how many it is filled with
	text  int                        // bytes of device text in each
	add   func(i int, end time.Time) // which ends then
	use   func(i int) bool           // what a request does with one; false if it is gone
	clean func()                     // what an application has to call now and then
	stop  func()
}

// idOf is the ID of session i, as long and as random as real ones.
func idOf(i int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(i))
	sum := sha256.Sum256(b[:])
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// longToken is a token of 32 random bytes, as peers have them.
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

// weeks is an end that does not come.
func weeks() time.Time { return time.Now().Add(14 * 24 * time.Hour) }

var (
	errNotMoved = errors.New("the session did not move")
	never       = time.UnixMilli(1 << 45).UTC() // a session that may move whenever it likes
)

// rotate moves session i on from a generation.
func rotate(s auth.Store, i int, from int64) error {
	is := sessionOf(i, time.Now(), weeks())
	_, moved, err := s.Rotate(context.Background(), is.Subject, is.ID, auth.Rotation{From: from,
		At: is.RotatedAt, NotAfter: never, ExpiresAt: is.ExpiresAt, Device: is.Device,
	})
	if err == nil && !moved {
		err = errNotMoved
	}
	return err
}

// keepRatchet moves sessions on, which writes, and collects on the way.
func keepRatchet(bool) *keeper {
	s := auth.NewMemoryStore()
	ctx := context.Background()
	var generations []int64
	return &keeper{
		name: "ratchet", n: million, text: len(browser), stop: nothing,
		add: func(i int, end time.Time) {
			// A record is collected a minute after its end.
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

func keepGinJWT(bool) *keeper {
	s := ginstore.NewInMemoryRefreshTokenStore()
	ctx := context.Background()
	return &keeper{
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

// roles are shared, as those of a constant are.
var roles = []string{role}

// keepSCS keeps what a session manager of scs stores. Its clean-up runs by
// itself, every minute unless it is told otherwise, and here every second.
func keepSCS(cleans bool) *keeper {
	s := memstore.NewWithCleanupInterval(0)
	stop := nothing
	if cleans {
		s = memstore.NewWithCleanupInterval(time.Second)
		stop = s.StopCleanup
	}
	codec := scs.GobCodec{} // its default
	return &keeper{
		name: "scs", n: million, stop: stop,
		add: func(i int, end time.Time) {
			b, err := codec.Encode(end, map[string]any{"sub": subject(i), "username": username, "role": role})
			must(err)
			must(s.Commit(longToken(i)[:43], b, end))
		},
		use: func(i int) bool { _, ok, err := s.Find(longToken(i)[:43]); return ok && err == nil },
	}
}

func keepFosite(bool) *keeper {
	h, memory := newFosite()
	return &keeper{
		name: "fosite", n: heavy,
		add:  func(i int, _ time.Time) { asForm(h, i) },
		stop: func() { runtime.KeepAlive(memory) },
	}
}

// keepGoOAuth2 keeps what its manager stores at a login. Its database cleans up
// every second.
func keepGoOAuth2(bool) *keeper {
	s, err := oauth2store.NewMemoryTokenStore()
	must(err)
	ctx := context.Background()
	return &keeper{
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

// keepFloor is one map of records without a pointer in them, behind a lock: the
// least that can be kept of a session, and no device.
func keepFloor(bool) *keeper {
	type record struct {
		subject                               [16]byte
		generation, created, rotated, expires int64
		address                               [16]byte
	}
	var mu sync.Mutex
	all := map[[16]byte]record{}
	key := func(i int) (k [16]byte) { copy(k[:], idOf(i)); return k }
	return &keeper{
		name: "floor", n: million, stop: nothing,
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

// keepers are in the order in which they are measured: go-oauth2 never lets go
// of its memory. With cleans those that clean up by themselves do.
var keepers = []struct {
	name  string
	build func(cleans bool) *keeper
}{
	{"floor", keepFloor}, {"ratchet", keepRatchet}, {"gin-jwt", keepGinJWT}, {"scs", keepSCS}, {"fosite", keepFosite}, {"go-oauth2", keepGoOAuth2},
}

// live returns the bytes that are alive, and how long it took to find out.
func live() (bytes uint64, gc time.Duration) {
	runtime.GC()
	begin := time.Now()
	runtime.GC()
	gc = time.Since(begin)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, gc
}

// weigh fills a keeper with n sessions, and returns what it holds for each of
// them, and how long a full collection takes then.
func weigh(build func(bool) *keeper, n int) (perSession float64, gc time.Duration) {
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

// BenchmarkSize weighs sessions in memory. It measures no time but that of a
// full collection.
func BenchmarkSize(b *testing.B) {
	for _, k := range keepers {
		b.Run("peer="+k.name, func(b *testing.B) {
			like := k.build(false)
			like.stop()
			each, gc := weigh(k.build, like.n)
			b.ReportMetric(each, "B/session")
			b.ReportMetric(float64(like.text), "text-B/session")
			b.ReportMetric(float64(like.n), "sessions")
			b.ReportMetric(float64(gc.Nanoseconds()), "gc-ns")
		})
	}
}

// waits is how long operations took, sorted.
type waits []time.Duration

func (w waits) at(q float64) time.Duration { return w[int(q*float64(len(w)-1))] }

// An observation: so long before and after the moment in which sessions expire.
const (
	before = time.Second / 2
	after  = 3 * time.Second / 2
)

// observe fills a keeper, and measures each operation on half of its sessions
// while others sign in. With expire the other half ends, all in one moment, and
// is cleaned up. What the scheduler does is part of it, and of the observation
// without; Go's collector is off meanwhile, and measured by BenchmarkSize.
func observe(tb testing.TB, build func(bool) *keeper, n int, expire bool) waits {
	tb.Helper()
	k := build(expire)
	defer k.stop()
	begin := time.Now()
	for i := 0; i < n; i += 2 {
		k.add(i, weeks())
	}
	end := time.Now().Add(4*time.Since(begin) + 2*before) // time enough for the rest
	for i := 1; i < n; i += 2 {
		if expire {
			k.add(i, end)
		} else {
			k.add(i, weeks())
		}
	}
	taken := slices.Grow(waits(nil), 8<<20)
	k.use(0) // makes what it needs
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	left := time.Until(end.Add(-before))
	if left < 0 {
		tb.Fatalf("%s: filled too late", k.name)
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
			tb.Errorf("%s: session %d is gone", k.name, i)
			break
		}
	}
	close(done)
	wg.Wait()
	gone := 0
	for i := 1; expire && i < n; i += 2 {
		if !k.use(i) {
			gone++
		}
	}
	if expire && gone < n/4 {
		tb.Errorf("%s: but %d of %d were cleaned up", k.name, gone, n/2)
	}
	slices.Sort(taken)
	return taken
}

// BenchmarkWait is how long the operations on living sessions take while half a
// million others expire, and while none does.
func BenchmarkWait(b *testing.B) {
	for _, k := range keepers {
		if k.name == "fosite" {
			continue // nothing is ever cleaned up there
		}
		for _, expire := range []bool{false, true} {
			b.Run(fmt.Sprintf("peer=%s/expire=%t", k.name, expire), func(b *testing.B) {
				like := k.build(false)
				like.stop()
				w := observe(b, k.build, like.n, expire)
				b.ReportMetric(float64(w.at(0.999).Nanoseconds()), "p999-ns")
				b.ReportMetric(float64(w.at(1).Nanoseconds()), "longest-ns")
			})
		}
	}
}

// kept is how many sessions a server is filled with.
const kept = 100_000

// occupant is one who keeps sessions outside of this process.
type occupant struct {
	store, name string
	start       func(testing.TB) string
	fill        func(tb testing.TB, addr string, from, to int)
	size        func(tb testing.TB, addr string) int64 // what is in use
	text        int                                    // bytes of device text in each
}

var occupants = []occupant{
	{"redis", "ratchet", startRedis, func(tb testing.TB, addr string, from, to int) { fill(redisStore(tb, addr), from, to) }, redisSize, len(browser)},
	{"redis", "gin-jwt", startRedis, fillGinJWT, redisSize, 0},
	{"postgres", "ratchet", startPostgresAsync, func(tb testing.TB, addr string, from, to int) { fill(postgresStore(tb, addr), from, to) }, postgresSize, len(browser)},
	{"sqlite", "ratchet", startSQLite, fillSQLite, fileSize, len(browser)},
}

// fill adds sessions, and moves each of them once.
func fill(s auth.Store, from, to int) {
	allAtOnce(from, to, func(i int) { must(s.Create(context.Background(), sessionOf(i, time.Now(), weeks()))) })
	allAtOnce(from, to, func(i int) { must(rotate(s, i, 1)) })
}

func fillGinJWT(tb testing.TB, addr string, from, to int) {
	x := refreshGinJWT(tb, addr)
	all := make([]*session, to)
	allAtOnce(from, to, func(i int) { all[i] = open(x, i) })
	allAtOnce(from, to, func(i int) { newClient(x).move(tb, all[i]) })
}

func fillSQLite(_ testing.TB, file string, from, to int) {
	s, err := sqlitestore.Open(file, sqlitestore.Config{})
	must(err)
	fill(s, from, to)
	must(s.Close()) // which leaves all of it in the one file
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

// postgresSize is that of all tables and their indexes.
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

// stored is the size of each of n sessions.
func stored(tb testing.TB, o occupant, n int) float64 {
	tb.Helper()
	addr := o.start(tb)
	o.fill(tb, addr, 0, 1) // what comes with the first
	before := o.size(tb, addr)
	o.fill(tb, addr, 1, n+1)
	return float64(o.size(tb, addr)-before) / float64(n)
}

// BenchmarkStored weighs sessions in servers, each of them moved on once.
func BenchmarkStored(b *testing.B) {
	for _, o := range occupants {
		b.Run("store="+o.store+"/peer="+o.name, func(b *testing.B) {
			b.ReportMetric(stored(b, o, kept), "B/session")
			b.ReportMetric(float64(o.text), "text-B/session")
			b.ReportMetric(kept, "sessions")
		})
	}
}
