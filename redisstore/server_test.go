package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// calls returns how often the server ran each command, including the commands of
// scripts and except INFO.
func calls(t testing.TB, c *redis.Client) map[string]int {
	info, err := c.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	n := map[string]int{}
	for _, m := range regexp.MustCompile(`cmdstat_([^:]+):calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		n[m[1]], err = strconv.Atoi(m[2])
		require.NoError(t, err)
	}
	delete(n, "info")
	return n
}

func TestStore_EachCallIsOneCommand(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx, s := store(t, c, redisstore.Config{}), t.Context(), session("ada", "one")
	require.NoError(t, st.Create(ctx, s))
	_, _, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
	require.NoError(t, err)

	const n = 20
	// count checks that n calls make the server run each of commands n times, and
	// nothing else.
	count := func(call func(i int) error, commands ...string) {
		t.Helper()
		before := calls(t, c)
		for i := range n {
			require.NoError(t, call(i))
		}
		ran, want := map[string]int{}, map[string]int{}
		for name, times := range calls(t, c) {
			if times -= before[name]; times != 0 {
				ran[name] = times
			}
		}
		for _, name := range commands {
			want[name] = n
		}
		require.Equal(t, want, ran)
	}
	rotate := func(first int64) func(i int) error {
		return func(i int) error {
			_, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(first+int64(i), use(s)))
			require.True(t, rotated)
			return err
		}
	}
	// The first command of each is the client's, the others are the script's.
	count(rotate(2), "evalsha", "hget", "hset", "hlen", "pexpireat", "pttl")
	count(func(i int) error {
		other := s
		other.ID = fmt.Sprint("new-", i)
		return st.Create(ctx, other)
	}, "evalsha", "time", "hrandfield", "hsetnx", "pexpireat", "pttl")
	count(rotate(2+n), "evalsha", "hget", "hset", "hlen", "time", "hrandfield", "pexpireat", "pttl")
	spend := func(want error) func(i int) error {
		return func(i int) error {
			require.Equal(t, want, st.Spend(ctx, "ada", fmt.Sprint(i), now().Add(time.Hour)))
			return nil
		}
	}
	require.NoError(t, st.Spend(ctx, "ada", "loads the script", now()))
	count(spend(nil), "evalsha", "set")
	count(spend(auth.ErrSpent), "evalsha", "set", "get")
	count(func(int) error { _, err := st.Get(ctx, "ada", "one"); return err }, "hget")
	count(func(int) error { _, err := st.List(ctx, "ada"); return err }, "hgetall")
}

// every calls every method that runs a script.
func every(t testing.TB, st *redisstore.Store, subject string) {
	t.Helper()
	ctx, s := within(t, patience), session(subject, "one")
	require.NoError(t, st.Create(ctx, s))
	_, rotated, err := st.Rotate(ctx, subject, "one", rotateFrom(1, use(s)))
	require.NoError(t, err)
	require.True(t, rotated)
	require.NoError(t, st.Revoke(ctx, ending(subject, "one")))
	id := rand.Text()
	require.NoError(t, st.Spend(ctx, subject, id, now()))
	require.ErrorIs(t, st.Spend(ctx, subject, id, now()), auth.ErrSpent)
	rs, _, _, err := st.Changes(ctx, "", 0)
	require.NoError(t, err)
	require.Contains(t, subjects(rs), subject)
}

func TestStore_ReloadsScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits a second")
	}
	t.Parallel()
	master, replica := replicated(t)
	for _, replicas := range []int{0, 1} {
		c := single(t, master.Addr)
		st := store(t, c, redisstore.Config{Replicas: replicas, ReplicaTimeout: 2 * time.Second})
		every(t, st, "ada")
		require.NoError(t, c.ScriptFlush(t.Context()).Err())
		every(t, st, "bob")
		if replicas == 0 {
			master.Kill()
			master.Start()
			inSync(t, replica)
			every(t, st, "cyd")
		}
	}
}

// expiry returns the time at which the key expires.
func expiry(t testing.TB, c *redis.Client, key string) time.Time {
	t.Helper()
	d, err := c.PExpireTime(t.Context(), key).Result()
	require.NoError(t, err)
	return time.UnixMilli(d.Milliseconds()).UTC()
}

func TestStore_KeyExpiresAfterLastSession(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	const key = "ratchet:{ada}"
	long, short := session("ada", "long"), session("ada", "short")
	short.ExpiresAt = now().Add(time.Hour)
	end := long.ExpiresAt.Add(time.Minute)

	require.NoError(t, st.Create(ctx, short))
	require.Equal(t, short.ExpiresAt.Add(time.Minute), expiry(t, c, key))
	require.NoError(t, st.Create(ctx, long))
	require.Equal(t, end, expiry(t, c, key))
	require.NoError(t, st.Create(ctx, func() auth.Session { s := short; s.ID = "another"; return s }()))
	require.Equal(t, end, expiry(t, c, key))

	u := use(short)
	_, _, err := st.Rotate(ctx, "ada", "short", rotateFrom(1, u))
	require.NoError(t, err)
	require.Equal(t, end, expiry(t, c, key))
	u.ExpiresAt = long.ExpiresAt.Add(time.Hour)
	_, _, err = st.Rotate(ctx, "ada", "short", rotateFrom(2, u))
	require.NoError(t, err)
	require.Equal(t, u.ExpiresAt.Add(time.Minute), expiry(t, c, key))
}

func TestStore_LostExpiryIsRestored(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	const key = "ratchet:{ada}"
	long, short := session("ada", "long"), session("ada", "short")
	short.ExpiresAt = now().Add(time.Hour)
	require.NoError(t, st.Create(ctx, long))
	require.NoError(t, c.Persist(ctx, key).Err())
	require.NoError(t, st.Create(ctx, short))
	require.Equal(t, long.ExpiresAt.Add(time.Minute), expiry(t, c, key), "the expiry must be that of the last session, not of the new one")
	require.NoError(t, c.Persist(ctx, key).Err())
	_, _, err := st.Rotate(ctx, "ada", "short", rotateFrom(1, use(short)))
	require.NoError(t, err)
	require.Equal(t, long.ExpiresAt.Add(time.Minute), expiry(t, c, key))

	// With more than 64 sessions, they are not read.
	for i := range 100 {
		require.NoError(t, st.Create(ctx, session("ada", fmt.Sprint(i))))
	}
	require.NoError(t, c.Persist(ctx, key).Err())
	require.NoError(t, st.Create(ctx, session("ada", "last")))
	require.Equal(t, time.Duration(-1), c.TTL(ctx, key).Val())
}

func TestCreate_DeletesEndedSessions(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	require.NoError(t, st.Create(ctx, session("ada", "kept")))
	for i := range 1000 { // each has ended when the next one is created
		s := session("ada", fmt.Sprint(i))
		s.ExpiresAt = now().Add(-time.Minute - time.Second)
		require.NoError(t, st.Create(ctx, s))
	}
	n, err := c.HLen(ctx, "ratchet:{ada}").Result()
	require.NoError(t, err)
	require.Less(t, n, int64(40))
	_, err = st.Get(ctx, "ada", "kept")
	require.NoError(t, err)
}

// TestRotate_DeletesEndedSessions deletes sessions without any Create.
func TestRotate_DeletesEndedSessions(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	const key = "ratchet:{ada}"
	dead, live := session("bob", "one"), session("ada", "live")
	dead.ExpiresAt = now().Add(-time.Minute - time.Second)
	require.NoError(t, st.Create(ctx, live))
	require.NoError(t, st.Create(ctx, session("ada", "idle")))
	waiting := session("ada", "waiting") // ended less than a minute ago
	waiting.ExpiresAt = now()
	require.NoError(t, st.Create(ctx, waiting))
	other := dead
	other.Subject = "cyd"
	require.NoError(t, st.Create(ctx, session("cyd", "keeps the key")))
	require.NoError(t, st.Create(ctx, other))
	record, err := c.HGet(ctx, "ratchet:{cyd}", "one").Result()
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, c.HSet(ctx, key, fmt.Sprint("dead-", i), record).Err())
	}
	for i := range 600 {
		_, rotated, err := st.Rotate(ctx, "ada", "live", rotateFrom(int64(i+1), use(live)))
		require.NoError(t, err)
		require.True(t, rotated)
	}
	require.Less(t, c.HLen(ctx, key).Val(), int64(6))
	for _, id := range []string{"live", "idle", "waiting"} {
		require.True(t, c.HExists(ctx, key, id).Val(), id)
	}
}

func TestStore_LeavesNoKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits a second")
	}
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	soon := now().Add(time.Second - time.Minute)
	for i := range 10 {
		s := session(fmt.Sprint("ada-", i), "one")
		s.ExpiresAt = soon
		require.NoError(t, st.Create(ctx, s))
		_, _, err := st.Rotate(ctx, s.Subject, s.ID, rotateFrom(1, use(s)))
		require.NoError(t, err)
		r := ending(s.Subject, "another")
		r.Until = soon
		require.NoError(t, st.Revoke(ctx, r))
		require.NoError(t, st.Spend(ctx, s.Subject, "one", soon))
	}
	require.Equal(t, int64(21), c.DBSize(ctx).Val())
	require.Eventually(t, func() bool { return c.DBSize(ctx).Val() == 0 }, patience, 10*time.Millisecond)
}

// TestCreate_RecognizesItsRecord loses the reply, so that the driver sends the
// command again.
func TestCreate_RecognizesItsRecord(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	proxy := testserver.NewProxy(t, server.Addr)
	st, ctx, s := store(t, single(t, proxy.Addr), redisstore.Config{}), t.Context(), session("ada", "one")
	require.NoError(t, st.Create(ctx, session("ada", "zero"))) // connects
	proxy.CutResponses(0)
	require.NoError(t, st.Create(ctx, s))
	got, err := st.Get(ctx, "ada", "one")
	require.NoError(t, err)
	require.Equal(t, s, got)
	require.ErrorIs(t, st.Create(ctx, s), auth.ErrSessionExists)
}

// TestRotate_RepeatedByTheDriver loses the reply, so that the driver sends the
// command again. The second attempt returns the session that the first one wrote.
func TestRotate_RepeatedByTheDriver(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	proxy := testserver.NewProxy(t, server.Addr)
	st, ctx, s := store(t, single(t, proxy.Addr), redisstore.Config{}), t.Context(), session("ada", "one")
	require.NoError(t, st.Create(ctx, s))
	u := use(s)
	_, _, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, u)) // loads the script
	require.NoError(t, err)
	proxy.CutResponses(0)
	got, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(2, u))
	require.NoError(t, err)
	require.False(t, rotated)
	require.Equal(t, int64(3), got.Generation)
}

func TestStore_CallsEndAtDeadlineIfServerHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
	t.Parallel()
	server := testserver.Redis(t)
	proxy := testserver.NewProxy(t, server.Addr)
	for name, warm := range map[string]bool{"connected": true, "not connected": false} {
		st, s := store(t, single(t, proxy.Addr), redisstore.Config{}), session("ada-"+name, "one")
		next := ""
		if warm {
			require.NoError(t, st.Create(t.Context(), s))
			var err error
			_, next, _, err = st.Changes(t.Context(), "", 0)
			require.NoError(t, err)
		}
		proxy.Hang()
		const deadline = 200 * time.Millisecond
		type result struct {
			call string
			err  error
			took time.Duration
		}
		calls := map[string]func(ctx context.Context) error{
			"Create": func(ctx context.Context) error { return st.Create(ctx, session("bob", "one")) },
			"Get":    func(ctx context.Context) error { _, err := st.Get(ctx, s.Subject, "one"); return err },
			"Rotate": func(ctx context.Context) error {
				_, _, err := st.Rotate(ctx, s.Subject, "one", rotateFrom(1, use(s)))
				return err
			},
			"List":    func(ctx context.Context) error { _, err := st.List(ctx, s.Subject); return err },
			"Revoke":  func(ctx context.Context) error { return st.Revoke(ctx, ending(s.Subject, "one")) },
			"Spend":   func(ctx context.Context) error { return st.Spend(ctx, s.Subject, "one", now()) },
			"Changes": func(ctx context.Context) error { _, _, _, err := st.Changes(ctx, next, time.Minute); return err },
		}
		results := make(chan result, len(calls))
		for call, f := range calls {
			go func() {
				started := time.Now()
				err := f(within(t, deadline))
				results <- result{call, err, time.Since(started)}
			}()
		}
		for range calls {
			r := <-results
			require.ErrorIs(t, r.err, context.DeadlineExceeded, "%s, %s", r.call, name)
			for _, named := range []error{auth.ErrSessionExists, auth.ErrSessionNotFound, auth.ErrFeedReset, auth.ErrSpent} {
				require.NotErrorIs(t, r.err, named)
			}
			limit := deadline + 400*time.Millisecond
			if r.call == "Revoke" {
				limit += 500 * time.Millisecond // revokeGrace
			}
			require.Less(t, r.took, limit, "%s, %s", r.call, name)
		}
		proxy.Resume()
	}
}

// TestStore_CallsEndAtDeadlineIfClusterHangs also uses a client that has not
// yet read the state of the Cluster.
func TestStore_CallsEndAtDeadlineIfClusterHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
	t.Parallel()
	nodes := testserver.RedisCluster(t)
	var addrs []string
	for _, node := range nodes {
		addrs = append(addrs, node.Addr)
	}
	warm, cold := store(t, clusterClient(t, addrs), redisstore.Config{}), store(t, clusterClient(t, addrs), redisstore.Config{})
	every(t, warm, "ada")
	_, next := begin(t, warm)
	for _, node := range nodes {
		node.Pause()
	}
	for _, st := range []*redisstore.Store{warm, cold} {
		const deadline = 200 * time.Millisecond
		started := time.Now()
		require.ErrorIs(t, st.Create(within(t, deadline), session("ada", "one")), context.DeadlineExceeded)
		require.Less(t, time.Since(started), deadline+400*time.Millisecond)
		started = time.Now()
		_, _, _, err := st.Changes(within(t, deadline), next, time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(started), deadline+400*time.Millisecond)
	}
}

// TestRevoke_ContinuesAfterDeadline reaches the deadline after the deletion. The
// revocation must still be published.
func TestRevoke_ContinuesAfterDeadline(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	proxy := testserver.NewProxy(t, server.Addr)
	st, s := store(t, single(t, proxy.Addr), redisstore.Config{}), session("ada", "one")
	require.NoError(t, st.Revoke(t.Context(), ending("nobody", "one"))) // loads the scripts
	require.NoError(t, st.Create(t.Context(), s))
	proxy.Delay(60 * time.Millisecond)
	require.ErrorIs(t, st.Revoke(within(t, 90*time.Millisecond), ending("ada", "one")), context.DeadlineExceeded)
	proxy.Delay(0)
	_, err := st.Get(t.Context(), "ada", "one")
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	rs, _, _, err := st.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.Contains(t, subjects(rs), "ada")
}

// unreadable has records that the scripts cannot read.
var unreadable = map[string]string{
	"newer":        "\x03" + strings.Repeat("\x00", 60),
	"nothing":      "",
	"short":        "\x01",
	"no address":   "\x01" + strings.Repeat("\x00", 31),
	"short of all": "\x01" + strings.Repeat("\x00", 30) + "\x09" + "data",
	"no data":      "\x01" + strings.Repeat("\x00", 30) + "\x01",
	"long address": "\x01" + strings.Repeat("\x00", 31) + "\x09",
	"no key":       "\x02" + strings.Repeat("\x00", 63),
	"half a key":   "\x02" + strings.Repeat("\x00", 29) + "\x00\x05" + strings.Repeat("\x00", 33) + "dat",
}

// TestStore_UnreadableRecordIsLeftOut checks that List leaves such a record
// out, and that Revoke with All deletes it unless Except lists it.
func TestStore_UnreadableRecordIsLeftOut(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	var events []auth.Event
	st, ctx := store(t, c, redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { events = append(events, e) }}), t.Context()
	for name, record := range unreadable {
		ids := func() []string { list, _ := c.HKeys(ctx, "ratchet:{"+name+"}").Result(); return list }
		require.NoError(t, st.Create(ctx, session(name, "one")))
		require.NoError(t, c.HSet(ctx, "ratchet:{"+name+"}", "bad", record, "worse", record, "named", record).Err())
		require.NoError(t, st.Create(ctx, session(name, "two")), name)
		list, err := st.List(ctx, name)
		require.NoError(t, err)
		require.Len(t, list, 2, name)
		_, err = st.Get(ctx, name, "bad")
		require.Error(t, err, name)
		require.NotErrorIs(t, err, auth.ErrSessionNotFound, name)
		_, _, err = st.Rotate(ctx, name, "bad", rotateFrom(0, use(session(name, "bad"))))
		require.ErrorContains(t, err, "unknown version or is malformed", name)
		require.NotErrorIs(t, err, auth.ErrSessionNotFound, name)
		require.NoError(t, c.Persist(ctx, "ratchet:{"+name+"}").Err())
		require.NoError(t, st.Create(ctx, session(name, "three")), name)
		require.NoError(t, st.Revoke(ctx, ending(name, "named")))

		all := auth.Revocation{Subject: name, All: true, Before: now().Add(time.Minute), Until: now().Add(time.Minute), Except: []string{"bad", "two"}}
		require.NoError(t, st.Revoke(ctx, all), name)
		require.ElementsMatch(t, []string{"bad", "two"}, ids(), name)
		rs, _ := begin(t, st)
		require.Contains(t, subjects(rs), name)
		all.Except = []string{"two"}
		require.NoError(t, st.Revoke(ctx, all), name)
		require.Equal(t, []string{"two"}, ids(), name)
	}
	require.Len(t, events, 1, "want one event within a minute")
	require.Equal(t, auth.EventFault, events[0].Type)
	require.ErrorContains(t, events[0].Err, "redisstore: listing sessions: left out a record: the session record ")
}

// TestStore_RecordOfANewerVersion adds sections after the user agent. They must
// be ignored and kept.
func TestStore_RecordOfANewerVersion(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	for name, sections := range map[string]string{
		"one":    "\x00\x07\x00\x03key",
		"two":    "\x00\x07\x00\x00\xfe\x00\x04a\x00b\xff",
		"long":   "\x00\x09\x10\x00" + strings.Repeat("\x00x", 0x800),
		"broken": "\x00\x07\xff\xff",
	} {
		for i, d := range []auth.Device{{}, {UserAgent: "agent"}, {UserAgent: "Ädä", IP: addresses[3]}} {
			s := session(fmt.Sprint(name, i), "one")
			s.Device, s.Opaque = d, []byte("\x00data\x00")
			key := "ratchet:{" + s.Subject + "}"
			require.NoError(t, st.Create(ctx, s))
			require.NoError(t, c.HSet(ctx, key, "one", c.HGet(ctx, key, "one").Val()+sections).Err())
			got, err := st.Get(ctx, s.Subject, "one")
			require.NoError(t, err, name)
			require.Equal(t, s, got, name)
			list, err := st.List(ctx, s.Subject)
			require.NoError(t, err, name)
			require.Equal(t, []auth.Session{s}, list, name)

			u := use(s)
			u.Device = auth.Device{UserAgent: "another agent", IP: addresses[1]}
			got, rotated, err := st.Rotate(ctx, s.Subject, "one", rotateFrom(1, u))
			require.NoError(t, err, name)
			require.True(t, rotated, name)
			s.Generation, s.RotatedAt, s.ExpiresAt, s.Device = 2, got.RotatedAt, u.ExpiresAt, u.Device
			require.Equal(t, s, got, name)
			require.True(t, strings.HasSuffix(c.HGet(ctx, key, "one").Val(), "another agent"+sections), name)
			got, rotated, err = st.Rotate(ctx, s.Subject, "one", rotateFrom(1, u))
			require.NoError(t, err, name)
			require.False(t, rotated, name)
			require.Equal(t, s, got, name)

			all := auth.Revocation{Subject: s.Subject, All: true, Before: s.CreatedAt, Until: now()}
			require.NoError(t, st.Revoke(ctx, all))
			require.True(t, c.HExists(ctx, key, "one").Val(), "a session that was created at Before was deleted")
			all.Before = all.Before.Add(time.Second)
			require.NoError(t, st.Revoke(ctx, all))
			require.False(t, c.HExists(ctx, key, "one").Val(), name)
		}
	}
}

// TestStore_UnreadableAddressIsUnknown checks that a malformed IP address is no
// error, since it is only informative.
func TestStore_UnreadableAddressIsUnknown(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx, s := store(t, c, redisstore.Config{}), t.Context(), session("ada", "one")
	s.Opaque = nil
	require.NoError(t, st.Create(ctx, s))
	record := c.HGet(ctx, "ratchet:{ada}", "one").Val()
	require.NoError(t, c.HSet(ctx, "ratchet:{ada}", "one", record[:32]+"\x03abc"+record[33:]).Err())
	got, err := st.Get(ctx, "ada", "one")
	require.NoError(t, err)
	require.Equal(t, s, got)
	_, rotated, err := st.Rotate(ctx, "ada", "one", rotateFrom(1, use(s)))
	require.NoError(t, err)
	require.True(t, rotated)
}

// TestStore_KeepsAddressesAsGiven includes an IPv4-mapped IPv6 address.
func TestStore_KeepsAddressesAsGiven(t *testing.T) {
	t.Parallel()
	st := store(t, single(t, testserver.Redis(t).Addr), redisstore.Config{})
	for i, ip := range addresses {
		s := session("ada", fmt.Sprint(i))
		s.Device.IP = ip
		s.CreatedAt = time.Unix(-1, 0).UTC() // before the epoch
		s.Opaque = nil
		require.NoError(t, st.Create(t.Context(), s))
		got, err := st.Get(t.Context(), "ada", s.ID)
		require.NoError(t, err)
		require.Equal(t, s, got)
	}
}

func TestStore_PrefixesAreIndependent(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	a, b := store(t, c, redisstore.Config{Prefix: "a"}), store(t, c, redisstore.Config{Prefix: "a:b"})
	every(t, a, "ada")
	require.NoError(t, a.Create(t.Context(), session("ada", "one")))
	_, err := b.Get(t.Context(), "ada", "one")
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	rs, _, _, err := b.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	require.Empty(t, rs)
}

// TestStore_PermissionsInREADMESuffice uses a user that may call only the
// commands in the README, without INFO.
func TestStore_PermissionsInREADMESuffice(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "`"+permissions+"`")
	for _, permitted := range []string{permissions, strings.Replace(permissions, " xrevrange", "", 1)} { // optional
		checkPermissions(t, permitted)
	}
}

func checkPermissions(t *testing.T, permitted string) {
	server := testserver.Redis(t)
	admin := single(t, server.Addr)
	user := []any{"ACL", "SETUSER", "app", "on", ">secret", "~ratchet:*", "-@all"}
	for _, name := range strings.Fields(permitted) {
		user = append(user, "+"+name)
	}
	require.NoError(t, admin.Do(t.Context(), user...).Err())
	c := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "app", Password: "secret", ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	st := store(t, c, redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { t.Error(e) }})
	every(t, st, "ada")
	_, next := begin(t, st)
	_, _, _, err := st.Changes(t.Context(), next, time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, st.Create(t.Context(), session("ada", "two")))
	require.NoError(t, admin.Persist(t.Context(), "ratchet:{ada}").Err())
	require.NoError(t, st.Create(t.Context(), session("ada", "three")))
	_, err = st.List(t.Context(), "ada")
	require.NoError(t, err)
	require.NoError(t, st.Revoke(t.Context(), auth.Revocation{Subject: "ada", All: true, Before: now(), Until: now().Add(-time.Hour)}))
	require.NoError(t, st.Revoke(t.Context(), ending("bob", "one")))
}

// TestMemory prints the memory that sessions take.
func TestMemory(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c := single(t, server.Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	agent := "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
	usage := func(packed bool, tag, publicKey []byte, sessions int) int64 {
		size := "64"
		if packed {
			size = "512"
		}
		require.NoError(t, c.ConfigSet(ctx, "hash-max-listpack-value", size).Err())
		require.NoError(t, c.Del(ctx, "ratchet:{ada-1}").Err())
		for i := range sessions {
			s := session("ada-1", fmt.Sprintf("session-of-22-letter-%02d", i))
			s.Device = auth.Device{UserAgent: agent, IP: addresses[3]}
			s.RetryTag, s.Key = tag, publicKey
			require.NoError(t, st.Create(ctx, s))
		}
		n, err := c.MemoryUsage(ctx, "ratchet:{ada-1}").Result()
		require.NoError(t, err)
		return n
	}
	require.NoError(t, st.Spend(ctx, "ada-1", "token-of-22-characters", now().Add(time.Hour)))
	t.Logf("a record of Spend: %d bytes", c.MemoryUsage(ctx, "ratchet:{ada-1}:once:token-of-22-characters:22").Val())
	for _, n := range []int{1, 2, 5, 20} {
		plain, packed := usage(false, nil, nil, n), usage(true, nil, nil, n)
		t.Logf("%2d sessions of one subject: %5d bytes; with retry tags: %5d; with keys too: %5d", n, plain, usage(false, tagA, nil, n), usage(false, tagA, keyA, n))
		t.Logf("with hash-max-listpack-value 512: %5d; with retry tags: %5d; with keys too: %5d", packed, usage(true, tagA, nil, n), usage(true, tagA, keyA, n))
		require.Less(t, plain, int64(300+300*n))
		require.Less(t, packed, plain)
	}
}
