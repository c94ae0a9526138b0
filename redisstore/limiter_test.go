package redisstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/storetest"
)

func limiter(t testing.TB, c redis.UniversalClient, config redisstore.LimiterConfig) *redisstore.Limiter {
	l, err := redisstore.NewLimiter(c, config)
	require.NoError(t, err)
	return l
}

func limiterConformance(t *testing.T, client func() redis.UniversalClient) {
	storetest.RunLimiter(t, func(t *testing.T, now func() time.Time) func() auth.Limiter {
		prefix := rand.Text()
		return func() auth.Limiter {
			return limiter(t, client(), redisstore.LimiterConfig{Prefix: prefix, Now: now})
		}
	})
}

func TestLimiter_Conformance(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	limiterConformance(t, func() redis.UniversalClient { return single(t, server.Addr) })
}

func TestLimiter_ConformanceOnCluster(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
	t.Parallel()
	addrs := cluster(t)
	limiterConformance(t, func() redis.UniversalClient { return clusterClient(t, addrs) })
}

func TestNewLimiter_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := redisstore.NewLimiter(nil, redisstore.LimiterConfig{Prefix: "{"})
	require.ErrorContains(t, err, "redisstore: the client is nil\nredisstore: LimiterConfig.Prefix (\"{\") contains a brace")
	_, err = redisstore.NewLimiter(redis.NewClient(&redis.Options{}), redisstore.LimiterConfig{})
	require.ErrorContains(t, err, "ContextTimeoutEnabled")
	_, err = redisstore.NewLimiter(redis.NewClient(&redis.Options{PoolSize: 1, ContextTimeoutEnabled: true}), redisstore.LimiterConfig{})
	require.NoError(t, err)
}

func accountBucket(key string) auth.Bucket {
	return auth.Bucket{Kind: "account", Key: key, Burst: 5, Decay: 15 * time.Minute}
}

// takes returns an error unless n attempts are counted.
func takes(t testing.TB, l auth.Limiter, n int, buckets ...auth.Bucket) {
	t.Helper()
	for range n {
		wait, _, err := l.Take(t.Context(), buckets)
		require.NoError(t, err)
		require.Zero(t, wait)
	}
}

func TestLimiter_UsesTheServersClock(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	l, b := limiter(t, c, redisstore.LimiterConfig{}), accountBucket("a")
	at := c.Time(t.Context()).Val()
	takes(t, l, 5, b)
	wait, index, err := l.Take(t.Context(), []auth.Bucket{b})
	require.NoError(t, err)
	require.Zero(t, index)
	require.True(t, wait > 0 && wait <= time.Second, wait)
	last, err := c.HGet(t.Context(), "ratchet:limit{ratchet}:account:last", "a").Int64()
	require.NoError(t, err)
	require.False(t, time.UnixMilli(last).Before(at.Truncate(time.Millisecond)))
}

// Nothing outlives the time at which its level is 0.
func TestLimiter_KeysExpireWhenEveryLevelIs0(t *testing.T) {
	t.Parallel()
	c, ctx := single(t, testserver.Redis(t).Addr), t.Context()
	l, b := limiter(t, c, redisstore.LimiterConfig{}), accountBucket("a")
	expires := func() (at time.Time) {
		keys, err := c.Keys(ctx, "*").Result()
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"ratchet:limit{ratchet}:account:ends", "ratchet:limit{ratchet}:account:last"}, keys)
		for _, key := range keys {
			at = expiry(t, c, key)
			ends, err := c.ZRangeWithScores(ctx, "ratchet:limit{ratchet}:account:ends", -1, -1).Result()
			require.NoError(t, err)
			require.WithinDuration(t, time.UnixMilli(int64(ends[0].Score)), at, 10*time.Millisecond)
		}
		return at
	}
	takes(t, l, 1, b)
	first := expires()
	takes(t, l, 2, b)
	require.True(t, expires().After(first))
	takes(t, l, 1, accountBucket("ends before")) // the expiry does not move back
	expires()
	require.NoError(t, l.Settle(ctx, []auth.Bucket{b}, []auth.Bucket{accountBucket("ends before")}))
	require.Empty(t, c.Keys(ctx, "*").Val(), "empty keys are deleted")
}

// While there are attempts, those that have ended are removed too.
func TestLimiter_RemovesWhatHasEnded(t *testing.T) {
	t.Parallel()
	c, clock := single(t, testserver.Redis(t).Addr), authtest.NewClock(now())
	l := limiter(t, c, redisstore.LimiterConfig{Now: clock.Now})
	for i := range 100 {
		takes(t, l, 1, accountBucket(fmt.Sprint(i)))
	}
	clock.Advance(15 * time.Minute)
	takes(t, l, 25, auth.Bucket{Kind: "account", Key: "b", Burst: 1000, Decay: 15 * time.Minute})
	require.EqualValues(t, 1, c.ZCard(t.Context(), "ratchet:limit{ratchet}:account:ends").Val())
	require.EqualValues(t, 1, c.HLen(t.Context(), "ratchet:limit{ratchet}:account:last").Val())
}

// TestLimiter_NamesAreBounded adds as many buckets as there is room for by a script,
// because as many calls would take seconds.
func TestLimiter_NamesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: fills a kind")
	}
	t.Parallel()
	c, ctx, clock := single(t, testserver.Redis(t).Addr), t.Context(), authtest.NewClock(now())
	l := limiter(t, c, redisstore.LimiterConfig{Now: clock.Now})
	name := func(key any) auth.Bucket {
		return auth.Bucket{Kind: "name", Key: fmt.Sprint(key), Burst: 5, Decay: 15 * time.Minute}
	}
	takes(t, l, 5, name("victim"), accountBucket("victim"))
	const fill = `
for i = 1, tonumber(ARGV[2]) do
  redis.call('ZADD', KEYS[1], ARGV[1] + 900000, 'flood-' .. i)
  redis.call('HSET', KEYS[2], 'flood-' .. i, ARGV[1])
end
return redis.call('ZCARD', KEYS[1])`
	n, err := c.Eval(ctx, fill, []string{"ratchet:limit{ratchet}:name:ends", "ratchet:limit{ratchet}:name:last"}, clock.Now().UnixMilli(), 1<<16-1).Int()
	require.NoError(t, err)
	require.Equal(t, 1<<16, n)
	clock.Advance(time.Second)
	for i := range 200 {
		takes(t, l, 1, name(i))
	}
	require.EqualValues(t, 1<<16, c.ZCard(ctx, "ratchet:limit{ratchet}:name:ends").Val())
	require.EqualValues(t, 1<<16, c.HLen(ctx, "ratchet:limit{ratchet}:name:last").Val())
	for _, b := range []auth.Bucket{name(0), name("victim"), accountBucket("victim")} {
		require.Positive(t, c.ZScore(ctx, "ratchet:limit{ratchet}:"+b.Kind+":ends", b.Key).Val(), "the oldest were removed")
	}
	usage := c.MemoryUsage(ctx, "ratchet:limit{ratchet}:name:ends", 0).Val() + c.MemoryUsage(ctx, "ratchet:limit{ratchet}:name:last", 0).Val()
	t.Logf("%d buckets of a kind take %.1f MB", 1<<16, float64(usage)/1e6)
	require.Less(t, usage, int64(20e6))
}

func TestLimiter_ReloadsScriptsAndReportsFailures(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c, ctx := single(t, server.Addr), t.Context()
	l, b := limiter(t, c, redisstore.LimiterConfig{}), accountBucket("a")
	takes(t, l, 1, b)
	require.NoError(t, c.ScriptFlush(ctx).Err())
	takes(t, l, 1, b)
	require.NoError(t, c.ScriptFlush(ctx).Err())
	require.NoError(t, l.Settle(ctx, []auth.Bucket{b}, nil))

	// The value of a hash that no limiter has written counts as now.
	require.NoError(t, c.HSet(ctx, "ratchet:limit{ratchet}:account:last", "a", "junk").Err())
	takes(t, l, 5, b)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := l.Take(ended, []auth.Bucket{b})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, l.Settle(ended, nil, []auth.Bucket{b}), context.Canceled)

	// A server without memory refuses the script, and evicts nothing.
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "1").Err())
	_, _, err = l.Take(ctx, []auth.Bucket{accountBucket("other")})
	require.ErrorContains(t, err, "redisstore: counting an attempt: OOM")
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "0").Err())

	server.Kill()
	_, _, err = l.Take(within(t, patience), []auth.Bucket{b})
	require.ErrorContains(t, err, "redisstore: counting an attempt: ")
	require.ErrorContains(t, l.Settle(within(t, patience), nil, []auth.Bucket{b}), "redisstore: settling an attempt: ")
}

func TestLimiter_EachCallIsOneCommand(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	l, b := limiter(t, c, redisstore.LimiterConfig{}), accountBucket("a")
	takes(t, l, 1, b)
	require.NoError(t, l.Settle(t.Context(), nil, []auth.Bucket{b}))
	before := calls(t, c)["evalsha"]
	for range 10 {
		takes(t, l, 1, b)
		require.NoError(t, l.Settle(t.Context(), []auth.Bucket{b}, nil))
	}
	require.Equal(t, 20, calls(t, c)["evalsha"]-before)
}

func TestLimiter_WorksWithTheCommandsOfTheREADME(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	admin, ctx := single(t, server.Addr), t.Context()
	rules := []string{"on", ">secret", "~ratchet:*", "-@all"}
	for _, command := range strings.Fields(limiterPermissions) {
		rules = append(rules, "+"+command)
	}
	require.NoError(t, admin.ACLSetUser(ctx, "limiter", rules...).Err())
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), limiterPermissions)
	c := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "limiter", Password: "secret", ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	clock := authtest.NewClock(now())
	l, b := limiter(t, c, redisstore.LimiterConfig{Now: clock.Now}), accountBucket("a")
	takes(t, l, 5, b)
	clock.Advance(-time.Hour)
	_, _, err = l.Take(ctx, []auth.Bucket{b})
	require.NoError(t, err)
	require.NoError(t, l.Settle(ctx, nil, []auth.Bucket{b}))
	clock.Advance(2 * time.Hour)
	takes(t, l, 1, accountBucket("b"))
	require.NoError(t, l.Settle(ctx, []auth.Bucket{b}, nil))
}

// limiterPermissions is the list of commands of a Limiter in the README.
const limiterPermissions = "eval evalsha time zscore zadd zcard zrange zrangebyscore zrem hget hset hdel pttl pexpire hello"

type oneUser struct{ u auth.User }

func (o oneUser) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != o.u.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return o.u, nil
}

func (o oneUser) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != o.u.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return o.u, nil
}

// TestLimiter_TwoNodesCountTogether floods two nodes with made-up names while one
// account is guessed at both: with 400 names, or a million with AUTH_FLOOD=1.
func TestLimiter_TwoNodesCountTogether(t *testing.T) {
	t.Parallel()
	n := 400
	if os.Getenv("AUTH_FLOOD") == "1" {
		n = 1_000_000
	}
	c, ctx, clock := single(t, testserver.Redis(t).Addr), t.Context(), authtest.NewClock(now())
	hasher := &password.Hasher{Memory: 8, Time: 1}
	hash, err := hasher.Hash(ctx, "right")
	require.NoError(t, err)
	nodes := make([]*auth.Authenticator, 2)
	for i := range nodes {
		nodes[i], err = auth.New(auth.Config{
			Issuer: "https://example.com", Audience: []string{"https://api.example.com"}, Secrets: [][]byte{[]byte("0123456789abcdef0123456789ABCDEF")},
			Users: oneUser{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}}, Hasher: hasher, Cookies: &auth.Cookies{}, Now: clock.Now,
			Store: auth.NewMemoryStore(), Limiter: limiter(t, c, redisstore.LimiterConfig{Now: clock.Now}), OnEvent: func(context.Context, auth.Event) {},
		})
		require.NoError(t, err)
	}
	login := func(i int, name, pass, from string, cookies ...*http.Cookie) *http.Response {
		r := httptest.NewRequest("POST", "/login", strings.NewReader(fmt.Sprintf(`{"login":%q,"password":%q}`, name, pass)))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = from + ":1"
		for _, cookie := range cookies {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		nodes[i%2].LoginHandler().ServeHTTP(w, r)
		return w.Result()
	}
	var known *http.Cookie
	for _, cookie := range login(0, "ada", "right", "192.0.2.1").Cookies() {
		if cookie.Name == "__Host-Http-device" {
			known = cookie
		}
	}
	require.NotNil(t, known)
	checked := 0
	for i := range n {
		require.Equal(t, 401, login(i/7, fmt.Sprint("name-", i), "wrong", fmt.Sprintf("10.0.%d.%d", i%1000/250, i%250)).StatusCode)
		if i%20 == 0 && i < 20_000 { // one guess in each second, from a source of its own, at both nodes in turn
			clock.Advance(time.Second)
			if login(i/20, "ada", "guess", fmt.Sprintf("192.0.%d.%d", i/20/250, i/20%250)).StatusCode == 401 {
				checked++
			}
		} else if i%20 == 0 { // so that no source must wait
			clock.Advance(time.Second)
		}
	}
	require.Equal(t, 429, login(0, "ada", "right", "192.0.2.1").StatusCode)
	require.Equal(t, 200, login(1, "ada", "right", "192.0.2.1", known).StatusCode, "the owner signs in at the other node")
	require.GreaterOrEqual(t, checked, 9)
	require.LessOrEqual(t, checked, 17)
	names := c.ZCard(ctx, "ratchet:limit{ratchet}:name:ends").Val()
	require.LessOrEqual(t, names, int64(1<<16))
	info, err := c.InfoMap(ctx, "memory").Result()
	require.NoError(t, err)
	t.Logf("%d logins: %d guesses were checked, %d names, used_memory %s", n, checked, names, info["Memory"]["used_memory_human"])
}
