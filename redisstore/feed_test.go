package redisstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

const feedKey = "auth:feed"

// begin reads the feed from its beginning.
func begin(t testing.TB, st auth.Feed) (rs []auth.Revocation, next string) {
	t.Helper()
	rs, next, _, err := st.Changes(t.Context(), "", 0)
	require.NoError(t, err)
	return rs, next
}

func TestChanges_TellsAtOnce(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	reader, writer := store(t, single(t, server.Addr), redisstore.Config{}), store(t, single(t, server.Addr), redisstore.Config{})
	require.NoError(t, writer.Revoke(t.Context(), ending("nobody", "one"))) // loads the scripts
	_, next := begin(t, reader)
	c := single(t, server.Addr)
	var best time.Duration
	for i := range 5 {
		var heard time.Time
		var wg sync.WaitGroup
		wg.Go(func() {
			rs, to, _, err := reader.Changes(t.Context(), next, patience)
			heard, next = time.Now(), to
			if err != nil || len(rs) != 1 {
				t.Errorf("Changes: %v, %v", rs, err)
			}
		})
		blocked(t, c, 1)
		said := time.Now()
		require.NoError(t, writer.Revoke(t.Context(), ending("ada", "one")))
		wg.Wait()
		if took := heard.Sub(said); i == 0 || took < best {
			best = took
		}
	}
	require.Less(t, best, 50*time.Millisecond)
}

// blocked waits until so many clients wait for the feed.
func blocked(t testing.TB, c *redis.Client, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := c.InfoMap(context.WithoutCancel(t.Context()), "clients").Result()
		return err == nil && info["Clients"]["blocked_clients"] == fmt.Sprint(n)
	}, patience, time.Millisecond)
}

func TestChanges_EndsSoonAfterItsContext(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st := store(t, c, redisstore.Config{})
	_, next := begin(t, st)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, _, err := st.Changes(ctx, next, time.Hour)
		done <- err
	}()
	blocked(t, c, 1)
	started := time.Now()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Less(t, time.Since(started), 1200*time.Millisecond)

	// A deadline ends the blocked read itself.
	started = time.Now()
	_, _, _, err := st.Changes(within(t, 100*time.Millisecond), next, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(started), 600*time.Millisecond)
}

func TestChanges_EndsThoughTheServerHangs(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c := single(t, server.Addr)
	for name, test := range map[string]struct {
		waiting bool // in the blocked read when the server begins to hang, else before it asks
		limit   time.Duration
	}{
		"while it waits":             {true, 1700 * time.Millisecond},
		"while it reads what is new": {false, 1700 * time.Millisecond},
	} {
		proxy := testserver.NewProxy(t, server.Addr)
		st := store(t, single(t, proxy.Addr), redisstore.Config{})
		_, next := begin(t, st)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if !test.waiting {
			proxy.Hang()
		}
		done := make(chan error, 1)
		go func() {
			_, _, _, err := st.Changes(ctx, next, time.Hour)
			done <- err
		}()
		if test.waiting {
			blocked(t, c, 1)
			proxy.Hang()
		}
		started := time.Now()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled, name)
		require.Less(t, time.Since(started), test.limit, name)
		proxy.Resume()
	}
}

// TestChanges_HangingServerIsAnError, soon, also to who does not give up; and
// the position still stands.
func TestChanges_HangingServerIsAnError(t *testing.T) {
	t.Parallel()
	proxy := testserver.NewProxy(t, testserver.Redis(t).Addr)
	st := store(t, single(t, proxy.Addr), redisstore.Config{})
	_, next := begin(t, st)
	proxy.Hang()
	started := time.Now()
	_, _, _, err := st.Changes(t.Context(), next, time.Hour)
	require.Error(t, err)
	require.NotErrorIs(t, err, auth.ErrFeedReset)
	require.Less(t, time.Since(started), 2*time.Second)
	proxy.Resume()
	require.NoError(t, st.Revoke(t.Context(), ending("ada", "one")))
	rs, _, _, err := st.Changes(t.Context(), next, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"ada"}, subjects(rs))
}

// TestChanges_WaitsLongerThanOneRead, and longer than the client's ReadTimeout.
func TestChanges_WaitsLongerThanOneRead(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, ReadTimeout: 300 * time.Millisecond})
	t.Cleanup(func() { _ = c.Close() })
	st := store(t, c, redisstore.Config{})
	_, next := begin(t, st)
	started := time.Now()
	rs, to, _, err := st.Changes(within(t, patience), next, 1300*time.Millisecond)
	require.NoError(t, err)
	require.Empty(t, rs)
	require.Equal(t, next, to)
	require.GreaterOrEqual(t, time.Since(started), 1300*time.Millisecond)
}

func TestChanges_HistoryThatWasLostIsReset(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c := single(t, server.Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	for name, lose := range map[string]func(){
		"FLUSHALL": func() { require.NoError(t, c.FlushAll(ctx).Err()) },
		"FLUSHALL, and another entry since": func() {
			require.NoError(t, c.FlushAll(ctx).Err())
			r := ending("bob", "one") // it may have the same ID
			r.Until = r.Until.Add(time.Second)
			require.NoError(t, st.Revoke(ctx, r))
		},
		"DEL": func() { require.NoError(t, c.Del(ctx, feedKey).Err()) },
		"an older copy": func() {
			dump, err := c.Dump(ctx, feedKey).Result()
			require.NoError(t, err)
			require.NoError(t, st.Revoke(ctx, ending("cyd", "one")))
			_, next := begin(t, st)
			require.NoError(t, c.RestoreReplace(ctx, feedKey, 0, dump).Err())
			_, _, _, err = st.Changes(ctx, next, 0)
			require.ErrorIs(t, err, auth.ErrFeedReset)
			require.NoError(t, c.FlushAll(ctx).Err())
		},
		"a restart": func() {
			server.Stop()
			server.Start()
		},
		"a crash": func() {
			server.Kill()
			server.Start()
		},
	} {
		require.NoError(t, st.Revoke(ctx, ending("ada", "one")))
		_, next := begin(t, st)
		_, _, _, err := st.Changes(ctx, next, 0)
		require.NoError(t, err)
		lose()
		_, _, _, err = st.Changes(within(t, patience), next, 0)
		require.ErrorIs(t, err, auth.ErrFeedReset, name)
		_, next = begin(t, st)
		_, _, _, err = st.Changes(ctx, next, 0)
		require.NoError(t, err, name)
	}
}

// TestChanges_AnotherEntryOfTheSameIDIsAnotherHistory: the clock of the server
// may have gone back.
func TestChanges_AnotherEntryOfTheSameIDIsAnotherHistory(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	add := func(until string) {
		require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, ID: "5-0", Values: []any{"u", until, "r", `{"s":"bob","u":` + until + `}`}}).Err())
	}
	add("9999999999998")
	_, next := begin(t, st)
	require.NoError(t, c.FlushAll(ctx).Err())
	add("9999999999998")
	_, _, _, err := st.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.NoError(t, c.FlushAll(ctx).Err())
	add("9999999999999")
	_, _, _, err = st.Changes(ctx, next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
}

// TestChanges_LossIsSeenByWhoWaits: entries that came after the loss do not
// hide it.
func TestChanges_LossIsSeenByWhoWaits(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	require.NoError(t, st.Revoke(ctx, ending("ada", "one")))
	_, next := begin(t, st)
	done := make(chan error, 1)
	go func() {
		_, _, _, err := st.Changes(ctx, next, time.Hour)
		done <- err
	}()
	blocked(t, c, 1)
	require.NoError(t, c.FlushAll(ctx).Err())
	require.NoError(t, st.Revoke(ctx, ending("bob", "one")))
	require.ErrorIs(t, <-done, auth.ErrFeedReset)
}

// TestChanges_IdlenessIsNoReset: the stream has expired, or the entry that a
// position names has left, since its time had passed.
func TestChanges_IdlenessIsNoReset(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	_, empty := begin(t, st)

	r := ending("ada", "one")
	r.Until = now().Add(time.Second - time.Minute)
	require.NoError(t, st.Revoke(ctx, r))
	rs, next := begin(t, st)
	require.Len(t, rs, 1)
	require.Eventually(t, func() bool { return c.Exists(ctx, feedKey).Val() == 0 }, patience, 10*time.Millisecond)
	for _, after := range []string{next, empty} {
		rs, idle, _, err := st.Changes(ctx, after, 0)
		require.NoError(t, err)
		require.Empty(t, rs)
		// And the clock of the server has gone back since: the IDs of a new
		// stream begin anew.
		require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, ID: "5-0", Values: []any{"u", "9999999999999", "r", `{"s":"bob","u":9999999999999}`}}).Err())
		for _, after := range []string{after, idle} {
			rs, _, _, err = st.Changes(ctx, after, time.Second)
			require.NoError(t, err)
			require.Equal(t, []string{"bob"}, subjects(rs))
		}
		require.NoError(t, c.Del(ctx, feedKey).Err())
	}

	// Who waits for a stream that has expired is woken by the new one too.
	woken := make(chan []string, 1)
	go func() {
		rs, _, _, _ := st.Changes(ctx, next, 3*time.Second)
		woken <- subjects(rs)
	}()
	blocked(t, c, 1)
	require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, ID: "5-0", Values: []any{"u", "9999999999999", "r", `{"s":"bob","u":9999999999999}`}}).Err())
	require.Equal(t, []string{"bob"}, <-woken)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	r.Until = now().Add(-time.Second) // it leaves with the next
	require.NoError(t, st.Revoke(ctx, ending("cyd", "one")))
	require.NoError(t, st.Revoke(ctx, r))
	_, next = begin(t, st)
	require.NoError(t, st.Revoke(ctx, ending("dan", "one")))
	rs, _, _, err := st.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.Contains(t, subjects(rs), "dan")
}

func TestFeed_PassedEntriesLeave(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	kept := ending("kept", "one")
	require.NoError(t, st.Revoke(ctx, kept))
	require.Equal(t, kept.Until.Add(time.Minute), expiry(t, c, feedKey))
	for i := range 200 {
		r := ending(fmt.Sprint("ada-", i), "one")
		r.Until = now().Add(-time.Second)
		require.NoError(t, st.Revoke(ctx, r))
	}
	require.LessOrEqual(t, c.XLen(ctx, feedKey).Val(), int64(3))
	rs, _ := begin(t, st)
	require.Contains(t, subjects(rs), "kept")
	require.Equal(t, kept.Until.Add(time.Minute), expiry(t, c, feedKey))

	// One that lost its end gets it back when it holds nothing else.
	require.NoError(t, c.Persist(ctx, feedKey).Err())
	require.NoError(t, st.Revoke(ctx, ending("bob", "one")))
	require.Equal(t, time.Duration(-1), c.TTL(ctx, feedKey).Val())
	require.NoError(t, c.Del(ctx, feedKey).Err())
	later := ending("bob", "one")
	later.Until = later.Until.Add(time.Hour)
	require.NoError(t, st.Revoke(ctx, later))
	require.Equal(t, later.Until.Add(time.Minute), expiry(t, c, feedKey))
}

// TestFeed_PassedEntriesLeaveWhereverTheyAre: others that live for longer are
// before, between and behind them.
func TestFeed_PassedEntriesLeaveWhereverTheyAre(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	p := c.Pipeline()
	const kept, passed = 1000, 5000
	add := func(name string, until time.Time) {
		u := fmt.Sprint(until.UnixMilli())
		p.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, Values: []any{"u", u, "r", `{"s":"` + name + `","u":` + u + `}`}})
	}
	for i := range kept {
		add(fmt.Sprint("kept-", i), now().Add(24*time.Hour))
	}
	for i := range passed {
		add(fmt.Sprint("passed-", i), now().Add(-time.Second))
		if i%5 == 0 {
			add(fmt.Sprint("between-", i), now().Add(24*time.Hour))
		}
	}
	_, err := p.Exec(ctx)
	require.NoError(t, err)
	for i := range 60 {
		require.NoError(t, st.Revoke(ctx, ending(fmt.Sprint("new-", i), "one")))
	}
	require.LessOrEqual(t, c.XLen(ctx, feedKey).Val(), int64(kept+passed/5+60+1))
	seen := map[string]bool{}
	for position, more := "", true; more; {
		rs, next, others, err := st.Changes(ctx, position, 0)
		require.NoError(t, err)
		for _, r := range rs {
			seen[r.Subject] = true
		}
		position, more = next, others
	}
	for i := range kept {
		require.True(t, seen[fmt.Sprint("kept-", i)])
	}
	// And what comes to its end after the hand has passed goes at a later turn.
	for range 3 {
		r := ending("short", "one")
		r.Until = now().Add(-time.Millisecond)
		require.NoError(t, st.Revoke(ctx, r))
	}
	for range 140 {
		require.NoError(t, st.Revoke(ctx, ending("new", "one")))
	}
	require.LessOrEqual(t, c.XLen(ctx, feedKey).Val(), int64(kept+passed/5+60+140+1))
}

// TestFeed_EntriesAreReadByTheVersionBefore, which knows no others than those
// that have the two fields u and r, in this order.
func TestFeed_EntriesAreReadByTheVersionBefore(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	handed := false
	for i := range 40 { // so many that an announcement does not look at all of them
		r := ending("ada", fmt.Sprint(i))
		require.NoError(t, st.Revoke(ctx, r))
		values, err := c.Do(ctx, "XREVRANGE", feedKey, "+", "-", "COUNT", 1).Slice()
		require.NoError(t, err)
		fields := values[0].([]any)[1].([]any)
		require.Len(t, fields, 4)
		require.Equal(t, []any{"u", fmt.Sprint(r.Until.UnixMilli()), "r"}, fields[:3])
		var entry struct {
			Subject  string   `json:"s"`
			Sessions []string `json:"i"`
			Until    int64    `json:"u"`
			Hand     string   `json:"h"`
		}
		require.NoError(t, json.Unmarshal([]byte(fields[3].(string)), &entry))
		require.Equal(t, "ada", entry.Subject)
		require.Equal(t, r.Sessions, entry.Sessions)
		require.Equal(t, r.Until.UnixMilli(), entry.Until)
		handed = handed || entry.Hand != ""
	}
	require.True(t, handed)
	rs, _ := begin(t, st)
	require.Len(t, rs, 40)
}

// TestChanges_PagesAreBounded by their number and by their size, since the
// server answers nobody else meanwhile; and a page whose last entry has left in
// its time is gone on from all the same.
func TestChanges_PagesAreBounded(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	add := func(n int, until time.Time, filling string) {
		p := c.Pipeline()
		u := fmt.Sprint(until.UnixMilli())
		for i := range n {
			p.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, Values: []any{"u", u, "r", fmt.Sprintf(`{"s":"%d%s","u":%s}`, i, filling, u)}})
		}
		_, err := p.Exec(ctx)
		require.NoError(t, err)
	}
	read := func(between func(page int, next string)) (pages []int, seen map[string]bool) {
		seen = map[string]bool{}
		for position, more := "", true; more; {
			rs, next, others, err := st.Changes(ctx, position, time.Hour)
			require.NoError(t, err)
			for _, r := range rs {
				seen[r.Subject] = true
			}
			pages = append(pages, len(rs))
			if between != nil {
				between(len(pages), next)
			}
			position, more = next, others
		}
		return pages, seen
	}
	add(2500, now().Add(time.Hour), "")
	pages, seen := read(nil)
	require.Equal(t, []int{512, 512, 512, 512, 452}, pages)
	require.Len(t, seen, 2500)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	add(512, now().Add(time.Hour), "") // just one page
	pages, _ = read(nil)
	require.Equal(t, []int{512}, pages)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	add(100, now().Add(time.Hour), strings.Repeat("x", 20_000))
	pages, seen = read(nil)
	require.Len(t, pages, 8)
	require.Len(t, seen, 100)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	add(2500, now().Add(-time.Second), "")
	pages, seen = read(func(page int, next string) {
		if page == 1 {
			require.Equal(t, int64(1), c.XDel(ctx, feedKey, next[strings.LastIndex(next, ".")+1:]).Val())
		}
	})
	require.Len(t, pages, 6, "it begins again")
	require.Len(t, seen, 2500)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	add(2500, now().Add(time.Hour), "")
	_, next, more, err := st.Changes(ctx, "", 0)
	require.NoError(t, err)
	require.True(t, more)
	require.NoError(t, c.XDel(ctx, feedKey, next[strings.LastIndex(next, ".")+1:]).Err())
	_, _, _, err = st.Changes(ctx, next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset, "it left before its time")
}

// TestChanges_EntryOfAnotherHand does not stop the feed, and has a name that is
// the same at every read.
func TestChanges_EntryOfAnotherHand(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	for i, test := range []struct {
		values  []any
		subject string
		known   bool
	}{
		{[]any{"a", "b"}, "", false},
		{[]any{"u", "1", "r", "{"}, "", false},
		{[]any{"u", "abc", "r", ""}, "", false},
		{[]any{"u", "9999999999999", "r", `null`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":7}`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","i":{"newer":true},"u":9999999999999}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","t":1000,"u":9999999999999}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"v":1,"s":"ada","i":["one"],"u":9999999999999}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada"}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","i":["one"],"u":null}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","a":true,"u":9999999999999}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","t":-5,"u":9999999999999}`}, "ada", false},
		{[]any{"u", "9999999999999", "r", `{"t":-5,"u":9999999999999}`}, "", false},
		{[]any{"u", "9999999999999", "u", "1", "r", `{"s":7}`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":7,"h":"99999999999999999999-1"}`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":7,"h":"1-99999999999999999999"}`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":7,"h":"9999999999999999999-9999999999999999999"}`}, "", false},
		{[]any{"u", "9999999999999", "r", `{"s":"ada","i":["one"],"u":9999999999999,"newer":{"s":"bob"}}`}, "ada", true},
		{[]any{"newer", "1", "u", "9999999999999", "r", `{"s":"ada","i":["one"],"u":9999999999999}`, "z", "2"}, "ada", true},
	} {
		require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, Values: test.values}).Err())
		rs, next := begin(t, st)
		require.Len(t, rs, 1, i)
		require.Equal(t, test.subject, rs[0].Subject, i)
		if test.known {
			require.Equal(t, []string{"one"}, rs[0].Sessions, i)
		} else {
			require.Equal(t, auth.Revocation{Subject: test.subject, ID: rs[0].ID}, rs[0], i)
			require.NotEmpty(t, rs[0].ID, i)
			require.LessOrEqual(t, len(rs[0].ID), 64, i)
		}
		again, _ := begin(t, st)
		require.Equal(t, rs, again, i)
		rs, _, more, err := st.Changes(ctx, next, 0)
		require.NoError(t, err, i)
		require.Empty(t, rs, i)
		require.False(t, more, i)
		require.NoError(t, st.Revoke(ctx, ending("bob", "one")))
		rs, _, _, err = st.Changes(ctx, next, 0)
		require.NoError(t, err, i)
		require.Contains(t, subjects(rs), "bob", i)
		require.NoError(t, c.Del(ctx, feedKey).Err())
	}
}

// TestFailover_HealsByTheProtocol: the replica that takes over lacks the last
// writes.
func TestFailover_HealsByTheProtocol(t *testing.T) {
	t.Parallel()
	master := testserver.Redis(t, "--repl-diskless-sync-delay", "0")
	link := testserver.NewProxy(t, master.Addr)
	replica := replicaOf(t, link.Addr)
	old, taken, ctx := single(t, master.Addr), single(t, replica.Addr), t.Context()
	st, s := store(t, old, redisstore.Config{}), session("ada", "one")
	require.NoError(t, st.Create(ctx, s))
	require.NoError(t, st.Create(ctx, session("bob", "one")))
	_, next := begin(t, st)
	require.NoError(t, old.Wait(ctx, 1, patience).Err())

	link.Refuse(true)
	got, moved, err := st.Rotate(ctx, "ada", "one", 1, use(s))
	require.NoError(t, err)
	require.True(t, moved)
	lost := ending("bob", "one")
	require.NoError(t, st.Revoke(ctx, lost))
	rs, next, _, err := st.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"bob"}, subjects(rs))
	master.Kill()
	require.NoError(t, taken.ReplicaOf(ctx, "NO", "ONE").Err())

	st = store(t, taken, redisstore.Config{})
	_, _, _, err = st.Changes(ctx, next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
	healed, moved, err := st.Rotate(ctx, "ada", "one", got.Generation, use(s))
	require.NoError(t, err)
	require.True(t, moved)
	require.Equal(t, got.Generation, healed.Generation)
	_, err = st.Get(ctx, "bob", "one") // it came back
	require.NoError(t, err)
	require.NoError(t, st.Revoke(ctx, lost)) // announced again
	_, err = st.Get(ctx, "bob", "one")
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
}

// TestFailover_OfASentinel: the client follows, and the store sees that the
// history is another one.
func TestFailover_OfASentinel(t *testing.T) {
	t.Parallel()
	master, _ := replicated(t)
	sentinel := testserver.Sentinel(t, master.Addr)
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "master", SentinelAddrs: []string{sentinel.Addr}, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = c.Close() })
	watcher := single(t, sentinel.Addr)
	require.Eventually(t, func() bool { // it knows the replica
		info, err := watcher.Info(t.Context(), "sentinel").Result()
		return err == nil && strings.Contains(info, "slaves=1")
	}, patience, 20*time.Millisecond)

	st, s := store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}), session("ada", "one")
	require.NoError(t, st.Create(t.Context(), s))
	_, next := begin(t, st)
	master.Kill()
	st = store(t, c, redisstore.Config{})
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := st.Rotate(ctx, "ada", "one", 1, use(s))
		return err == nil
	}, patience, 50*time.Millisecond)
	_, _, _, err := st.Changes(within(t, patience), next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset)
}

// TestFailover_OnACluster: the client goes on to the new master, though it would
// look at the Cluster once a minute only.
func TestFailover_OnACluster(t *testing.T) {
	t.Parallel()
	nodes := testserver.RedisCluster(t)
	var addrs []string
	for _, node := range nodes {
		addrs = append(addrs, node.Addr)
	}
	c, ctx := clusterClient(t, addrs), t.Context()
	s := session("ada", "one")
	require.Equal(t, time.Minute, c.Options().ClusterStateReloadInterval)
	owner, err := c.MasterForKey(ctx, "auth:{ada}")
	require.NoError(t, err)
	i := slices.Index(addrs, owner.Options().Addr)
	replica := clusterReplica(t, nodes, i)

	for _, replicas := range []int{1, 0} { // both ways in which a write finds its master
		require.NoError(t, store(t, c, redisstore.Config{Replicas: replicas, ReplicaTimeout: 2 * time.Second}).Create(ctx, s))
		s.ID = "two"
	}
	plain, waits := store(t, clusterClient(t, addrs), redisstore.Config{}), store(t, clusterClient(t, addrs), redisstore.Config{Replicas: 1, ReplicaTimeout: time.Millisecond})
	_, err = plain.Get(ctx, "ada", "one") // both know the Cluster as it was
	require.NoError(t, err)
	_, _, err = waits.Rotate(ctx, "ada", "absent", 1, use(s))
	require.Error(t, err)
	nodes[i].Kill()
	require.NoError(t, single(t, replica.Addr).Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err())
	for _, works := range []func(ctx context.Context) bool{
		func(ctx context.Context) bool {
			_, moved, err := plain.Rotate(ctx, "ada", "one", 1, use(s))
			return err == nil && moved
		},
		func(ctx context.Context) bool {
			_, _, err := waits.Rotate(ctx, "ada", "two", 1, use(s))
			return err != nil && strings.Contains(err.Error(), "0 of 1 replicas")
		},
	} {
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return works(ctx)
		}, 10*time.Second, 50*time.Millisecond)
	}
}

// clusterReplica adds a replica of nodes[of], that is up to date and known to
// all.
func clusterReplica(t testing.TB, nodes []*testserver.Process, of int) *testserver.Process {
	t.Helper()
	bus := testserver.FreePort(t)
	replica := testserver.Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(replica.Addr)
	require.NoError(t, err)
	c, ctx := single(t, replica.Addr), t.Context()
	master := single(t, nodes[of].Addr)
	require.NoError(t, master.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err())
	id, err := master.Do(ctx, "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.Do(ctx, "CLUSTER", "REPLICATE", id).Err() == nil }, patience, 20*time.Millisecond)
	inSync(t, replica)
	for _, node := range nodes {
		other := single(t, node.Addr)
		require.Eventually(t, func() bool {
			known, err := other.ClusterNodes(ctx).Result()
			return err == nil && strings.Contains(known, "slave "+id)
		}, patience, 20*time.Millisecond)
	}
	return replica
}

func TestReplicas_WriteWaitsForThem(t *testing.T) {
	t.Parallel()
	master, replica := replicated(t)
	c := single(t, master.Addr)
	config := redisstore.Config{Replicas: 1, ReplicaTimeout: 150 * time.Millisecond}
	st, ctx, s := store(t, c, config), t.Context(), session("ada", "one")
	every(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}), "bob")
	require.NoError(t, st.Create(ctx, s))
	_, _, err := st.Rotate(ctx, "ada", "absent", 1, use(s))
	require.ErrorIs(t, err, auth.ErrSessionNotFound)

	replica.Pause()
	const want = "written, but within 150ms only 0 of 1 replicas had it"
	require.ErrorContains(t, st.Create(ctx, session("ada", "two")), want)
	_, _, err = st.Rotate(ctx, "ada", "one", 1, use(s))
	require.ErrorContains(t, err, want)
	// Who writes nothing must not be shown what may still be lost.
	_, moved, err := store(t, single(t, master.Addr), config).Rotate(ctx, "ada", "one", 1, use(s))
	require.False(t, moved)
	require.ErrorContains(t, err, want)
	require.ErrorContains(t, st.Revoke(ctx, ending("ada", "one")), want)
	// A deadline ends the wait.
	started := time.Now()
	require.Error(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}).Create(within(t, 100*time.Millisecond), session("ada", "three")))
	require.Less(t, time.Since(started), 600*time.Millisecond)

	replica.Resume()
	require.NoError(t, store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: 2 * time.Second}).Revoke(ctx, ending("ada", "one")))
	rs, _ := begin(t, st)
	require.Contains(t, subjects(rs), "ada")

	st = store(t, c, redisstore.Config{Replicas: 2, ReplicaTimeout: 150 * time.Millisecond})
	require.ErrorContains(t, st.Create(ctx, session("ada", "four")), "only 1 of 2 replicas had it")
}

// TestReplicas_FollowAKeyThatMoves plays a slot's move from one master to
// another. There are no replicas: the error of each write says that it was
// made.
func TestReplicas_FollowAKeyThatMoves(t *testing.T) {
	t.Parallel()
	addrs := cluster(t)
	c, ctx := clusterClient(t, addrs), t.Context()
	st := store(t, c, redisstore.Config{Replicas: 1, ReplicaTimeout: time.Millisecond})
	const made = "written, but within 1ms only 0 of 1 replicas had it"
	key := "auth:{ada}"
	require.ErrorContains(t, st.Create(ctx, session("ada", "one")), made)

	from, err := c.MasterForKey(ctx, key)
	require.NoError(t, err)
	to := slices.DeleteFunc(slices.Clone(addrs), func(a string) bool { return a == from.Options().Addr })[0]
	nodes := map[string]*redis.Client{}
	ids := map[string]string{}
	for _, addr := range addrs {
		nodes[addr] = single(t, addr)
		ids[addr] = nodes[addr].Do(ctx, "CLUSTER", "MYID").Val().(string)
	}
	slot := c.ClusterKeySlot(ctx, key).Val()
	require.NoError(t, nodes[to].Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from.Options().Addr]).Err())
	require.NoError(t, nodes[from.Options().Addr].Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Err())
	host, port, err := net.SplitHostPort(to)
	require.NoError(t, err)
	require.NoError(t, nodes[from.Options().Addr].Migrate(ctx, host, port, key, 0, patience).Err())
	require.ErrorContains(t, st.Create(ctx, session("ada", "two")), made, "asked")
	for _, node := range nodes {
		require.NoError(t, node.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", ids[to]).Err())
	}
	// This client still has the state of the beginning, or has read it anew.
	require.ErrorContains(t, st.Create(ctx, session("ada", "three")), made, "moved")
	list, err := st.List(ctx, "ada")
	require.NoError(t, err)
	require.Len(t, list, 3)
}

func TestOnEvent_SaysThatTheServerMayEvict(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--maxmemory-policy", "allkeys-lru")
	c := single(t, server.Addr)
	var events []auth.Event
	config := redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { events = append(events, e) }}
	st := store(t, c, config)
	for range 2 {
		_, next := begin(t, st)
		_, _, _, err := st.Changes(t.Context(), next, 0)
		require.NoError(t, err)
	}
	require.Len(t, events, 1)
	require.Equal(t, auth.EventFault, events[0].Type)
	require.EqualError(t, events[0].Err, "redisstore: the server's maxmemory-policy is allkeys-lru: it may evict sessions and revocations; set noeviction")
	begin(t, store(t, c, redisstore.Config{}))

	events = nil
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	st = store(t, c, config)
	_, next := begin(t, st)
	require.Empty(t, events)
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "volatile-ttl").Err())
	_, _, _, err := st.Changes(t.Context(), next, 0)
	require.NoError(t, err)
	require.Empty(t, events, "only asked at the beginning")
	begin(t, st)
	require.Len(t, events, 1)
}

func TestOnEvent_AsksEveryMaster(t *testing.T) {
	t.Parallel()
	addrs := cluster(t)
	for _, addr := range addrs {
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	}
	var events []auth.Event
	config := redisstore.Config{OnEvent: func(_ context.Context, e auth.Event) { events = append(events, e) }}
	for i, addr := range addrs {
		c := clusterClient(t, addrs)
		begin(t, store(t, c, config))
		require.Len(t, events, i)
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err())
		begin(t, store(t, c, config))
		require.Len(t, events, i+1)
		require.NoError(t, single(t, addr).ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	}
}

// TestMemory prints what a session costs.
func TestMemory(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	c := single(t, server.Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	agent := "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
	usage := func(packed bool, subject string, sessions int) int64 {
		size := "64"
		if packed {
			size = "512"
		}
		require.NoError(t, c.ConfigSet(ctx, "hash-max-listpack-value", size).Err())
		for i := range sessions {
			s := session(subject, fmt.Sprintf("session-of-22-letter-%02d", i))
			s.Device = auth.Device{UserAgent: agent, IP: addresses[3]}
			require.NoError(t, st.Create(ctx, s))
		}
		n, err := c.MemoryUsage(ctx, "auth:{"+subject+"}").Result()
		require.NoError(t, err)
		return n
	}
	for _, n := range []int{1, 2, 5, 20} {
		plain, packed := usage(false, fmt.Sprint("plain-", n), n), usage(true, fmt.Sprint("packed-", n), n)
		t.Logf("%2d sessions of one subject: %5d bytes; with hash-max-listpack-value 512: %5d", n, plain, packed)
		require.Less(t, plain, int64(300+300*n))
		require.Less(t, packed, plain)
	}
}
