package redisstore_test

import (
	"context"
	"encoding/json"
	"fmt"
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

func TestChanges_ReturnsAtOnce(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	reader, writer := store(t, single(t, server.Addr), redisstore.Config{}), store(t, single(t, server.Addr), redisstore.Config{})
	require.NoError(t, writer.Revoke(t.Context(), ending("nobody", "one"))) // loads the scripts
	_, next := begin(t, reader)
	c := single(t, server.Addr)
	var best time.Duration
	for i := range 5 {
		var received time.Time
		var wg sync.WaitGroup
		wg.Go(func() {
			rs, to, _, err := reader.Changes(t.Context(), next, patience)
			received, next = time.Now(), to
			if err != nil || len(rs) != 1 {
				t.Errorf("Changes: %v, %v", rs, err)
			}
		})
		blocked(t, c, 1)
		sent := time.Now()
		require.NoError(t, writer.Revoke(t.Context(), ending("ada", "one")))
		wg.Wait()
		if took := received.Sub(sent); i == 0 || took < best {
			best = took
		}
	}
	require.Less(t, best, 50*time.Millisecond)
}

// blockingReads records the commands XREAD of a client: how long the server may
// block, and until when the client waits for its reply.
type blockingReads struct {
	mu    sync.Mutex
	block []time.Duration
	until []time.Time
}

func (r *blockingReads) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *blockingReads) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *blockingReads) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if i := slices.Index(args, any("block")); cmd.Name() == "xread" && i > 0 {
			ms, _ := args[i+1].(int64)
			until, _ := ctx.Deadline()
			r.mu.Lock()
			r.block, r.until = append(r.block, time.Duration(ms)*time.Millisecond), append(r.until, until)
			r.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

// TestChanges_EndsSoonAfterItsContext: the driver notices a canceled context
// only between two reads, so each read must be short. A deadline ends the read
// itself.
func TestChanges_EndsSoonAfterItsContext(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits a second")
	}
	t.Parallel()
	server := testserver.Redis(t)
	c, watched := single(t, server.Addr), single(t, server.Addr)
	var reads blockingReads
	watched.AddHook(&reads)
	st := store(t, watched, redisstore.Config{})
	_, next := begin(t, st)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, _, err := st.Changes(ctx, next, time.Hour)
		done <- err
	}()
	blocked(t, c, 1)
	reads.mu.Lock()
	begun := len(reads.block)
	reads.mu.Unlock()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NotZero(t, begun)
	require.LessOrEqual(t, len(reads.block), begun+1, "a read may have begun before the cancellation, and none after it")
	for _, block := range reads.block {
		require.Positive(t, block)
		require.LessOrEqual(t, block, time.Second)
	}

	reads.until = nil
	ctx = within(t, 100*time.Millisecond)
	deadline, _ := ctx.Deadline()
	_, _, _, err := st.Changes(ctx, next, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotEmpty(t, reads.until)
	for _, until := range reads.until {
		require.Equal(t, deadline, until)
	}
}

func TestChanges_EndsIfCanceledWhileServerHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
	t.Parallel()
	server := testserver.Redis(t)
	c := single(t, server.Addr)
	for name, test := range map[string]struct {
		waiting bool // whether the server hangs during the blocking read, or else before the first read
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

// TestChanges_HangingServerIsAnError checks that the error comes soon, although
// the context does not end, and that the position remains valid.
func TestChanges_HangingServerIsAnError(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
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

// TestChanges_WaitsLongerThanOneRead also waits longer than the client's
// ReadTimeout.
func TestChanges_WaitsLongerThanOneRead(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
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

func TestChanges_LostHistoryIsReset(t *testing.T) {
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

// TestChanges_DifferentEntryWithSameIDIsReset: IDs can be reused if the
// server's clock was set back.
func TestChanges_DifferentEntryWithSameIDIsReset(t *testing.T) {
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

// TestChanges_WaitingReaderNoticesLoss adds an entry after the loss, which must
// not hide the loss.
func TestChanges_WaitingReaderNoticesLoss(t *testing.T) {
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

// TestChanges_IdleFeedIsNotReset deletes the entry of a position after its time
// has passed, alone or with the whole stream.
func TestChanges_IdleFeedIsNotReset(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits a second")
	}
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
		// The server's clock was set back, so the new stream has lower IDs.
		require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, ID: "5-0", Values: []any{"u", "9999999999999", "r", `{"s":"bob","u":9999999999999}`}}).Err())
		for _, after := range []string{after, idle} {
			rs, _, _, err = st.Changes(ctx, after, time.Second)
			require.NoError(t, err)
			require.Equal(t, []string{"bob"}, subjects(rs))
		}
		require.NoError(t, c.Del(ctx, feedKey).Err())
	}

	// A reader that waits for an expired stream is woken by the new stream.
	woken := make(chan []string, 1)
	go func() {
		rs, _, _, _ := st.Changes(ctx, next, 3*time.Second)
		woken <- subjects(rs)
	}()
	blocked(t, c, 1)
	require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, ID: "5-0", Values: []any{"u", "9999999999999", "r", `{"s":"bob","u":9999999999999}`}}).Err())
	require.Equal(t, []string{"bob"}, <-woken)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	r.Until = now().Add(-time.Second) // the next Revoke deletes it
	require.NoError(t, st.Revoke(ctx, ending("cyd", "one")))
	require.NoError(t, st.Revoke(ctx, r))
	_, next = begin(t, st)
	require.NoError(t, st.Revoke(ctx, ending("dan", "one")))
	rs, _, _, err := st.Changes(ctx, next, 0)
	require.NoError(t, err)
	require.Contains(t, subjects(rs), "dan")
}

func TestFeed_ExpiredEntriesAreDeleted(t *testing.T) {
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

	// A stream that lost its expiry gets it back when it has no other entries.
	require.NoError(t, c.Persist(ctx, feedKey).Err())
	require.NoError(t, st.Revoke(ctx, ending("bob", "one")))
	require.Equal(t, time.Duration(-1), c.TTL(ctx, feedKey).Val())
	require.NoError(t, c.Del(ctx, feedKey).Err())
	later := ending("bob", "one")
	later.Until = later.Until.Add(time.Hour)
	require.NoError(t, st.Revoke(ctx, later))
	require.Equal(t, later.Until.Add(time.Minute), expiry(t, c, feedKey))
}

// TestFeed_ExpiredEntriesAreDeletedAnywhere has entries that are not expired
// before, between and after the expired ones.
func TestFeed_ExpiredEntriesAreDeletedAnywhere(t *testing.T) {
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
	// An entry that expires after it was checked is deleted in a later round.
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

// TestFeed_EntriesHaveTwoFields checks that entries have only the fields u and
// r, in this order.
func TestFeed_EntriesHaveTwoFields(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	stored := false     // whether an entry has h
	for i := range 40 { // more than one Revoke checks
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
			Checked  string   `json:"h"`
		}
		require.NoError(t, json.Unmarshal([]byte(fields[3].(string)), &entry))
		require.Equal(t, "ada", entry.Subject)
		require.Equal(t, r.Sessions, entry.Sessions)
		require.Equal(t, r.Until.UnixMilli(), entry.Until)
		stored = stored || entry.Checked != ""
	}
	require.True(t, stored)
	rs, _ := begin(t, st)
	require.Len(t, rs, 40)
}

// TestChanges_PagesAreBounded checks the bounds of a page in entries and in
// bytes. It also continues from a page whose last entry was deleted after its
// time had passed.
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
	require.Len(t, pages, 6, "want all pages again after the first")
	require.Len(t, seen, 2500)
	require.NoError(t, c.Del(ctx, feedKey).Err())

	add(2500, now().Add(time.Hour), "")
	_, next, more, err := st.Changes(ctx, "", 0)
	require.NoError(t, err)
	require.True(t, more)
	require.NoError(t, c.XDel(ctx, feedKey, next[strings.LastIndex(next, ".")+1:]).Err())
	_, _, _, err = st.Changes(ctx, next, 0)
	require.ErrorIs(t, err, auth.ErrFeedReset, "the entry was deleted before its time had passed")
}

// TestChanges_MalformedReasonIsOmitted also reads the entry of an earlier version,
// which has no reason, and checks that such a version can read an entry with one.
func TestChanges_MalformedReasonIsOmitted(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	for member, want := range map[string]string{
		``: "", `,"r":"reuse"`: "reuse", `,"r":"newer"`: "newer", `,"r":""`: "", `,"r":null`: "", `,"r":7`: "", `,"r":{"s":"bob"}`: "", `,"r":["reuse"]`: "",
		`,"r":"Reuse"`: "", `,"r":"re use"`: "", `,"r":"\u0000"`: "", ",\"r\":\"\xff\"": "", `,"r":"` + strings.Repeat("x", 1<<20) + `"`: "",
		`,"r":{},"r":"reuse"`: "reuse", `,"r":"reuse","r":7`: "",
	} {
		entry := `{"s":"ada","i":["one"],"b":-62135596800000,"u":9999999999999` + member + `}`
		require.NoError(t, c.XAdd(ctx, &redis.XAddArgs{Stream: feedKey, Values: []any{"u", "9999999999999", "r", entry}}).Err())
		rs, _ := begin(t, st)
		require.Equal(t, []auth.Revocation{{Subject: "ada", Sessions: []string{"one"}, Until: time.UnixMilli(9999999999999).UTC(), Reason: want}}, rs, member)
		require.NoError(t, c.Del(ctx, feedKey).Err())
	}

	r := ending("ada", "one")
	r.Reason = "reuse"
	require.NoError(t, st.Revoke(ctx, r))
	entries, err := c.XRange(ctx, feedKey, "-", "+").Result()
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Len(t, entries[0].Values, 2)
	var older struct {
		Version  int      `json:"v,omitempty"`
		Subject  string   `json:"s"`
		Sessions []string `json:"i,omitempty"`
		Until    *int64   `json:"u"`
	}
	require.NoError(t, json.Unmarshal([]byte(entries[0].Values["r"].(string)), &older))
	require.Zero(t, older.Version)
	require.Equal(t, "ada", older.Subject)
	require.Equal(t, []string{"one"}, older.Sessions)
	require.Equal(t, r.Until.UnixMilli(), *older.Until)
}

// TestChanges_UnknownEntryDoesNotStopTheFeed also checks that the ID of the
// revocation is the same at every read.
func TestChanges_UnknownEntryDoesNotStopTheFeed(t *testing.T) {
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
