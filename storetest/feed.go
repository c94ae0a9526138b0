package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
)

// notBefore returns a revocation that names no session. Revocations with
// different subjects differ.
func notBefore(subject string) auth.Revocation {
	return auth.Revocation{Subject: subject, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
}

// diffRevocation returns an error if got differs from want, except in the order
// of IDs.
func diffRevocation(got, want auth.Revocation) error {
	ids := func(ids []string) []string { return slices.Sorted(slices.Values(ids)) }
	if got.Subject == want.Subject && got.ID == want.ID && got.AccessTTL == want.AccessTTL && got.All == want.All && got.Reason == want.Reason &&
		got.Before.Equal(want.Before) && got.Until.Equal(want.Until) &&
		slices.Equal(ids(got.Sessions), ids(want.Sessions)) && slices.Equal(ids(got.Except), ids(want.Except)) {
		return nil
	}
	return fmt.Errorf("%.600s, want %.600s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
}

// changes calls Changes until it has returned everything, for at most limit. Only
// the first call waits, for at most wait. It returns an error if Changes returns
// an empty next.
func (e *env) changes(ctx context.Context, st auth.Store, after string, wait, limit time.Duration) ([]auth.Revocation, string, error) {
	type result struct {
		rs   []auth.Revocation
		next string
		err  error
	}
	results := make(chan result, 1)
	end := time.Now().Add(limit)
	go func() {
		var all []auth.Revocation
		empty := 0 // pages without revocations
		// A copy of wait: this goroutine may still run when changes reads wait.
		for more, wait := true, wait; more; wait = 0 {
			if time.Now().After(end) {
				return // changes has returned
			}
			rs, next, others, err := st.Changes(ctx, after, wait)
			if empty++; len(rs) > 0 {
				empty = 0
			}
			if err == nil && empty > 100 {
				err = fmt.Errorf("more was true after %d pages without revocations", empty)
			}
			if err != nil || next == "" {
				results <- result{nil, next, err}
				return
			}
			all, after, more = append(all, rs...), next, others
		}
		results <- result{all, after, nil}
	}()
	select {
	case r := <-results:
		if r.err == nil && r.next == "" {
			return nil, "", errors.New("Changes returned an empty next and no error")
		}
		if r.err != nil {
			return nil, "", fmt.Errorf("Changes: %w", r.err)
		}
		return r.rs, r.next, nil
	case <-time.After(limit):
		return nil, "", errTooLong{fmt.Errorf("Changes with wait %s has not returned after %s", wait, limit)}
	}
}

// errTooLong means that Changes did not return in time.
type errTooLong struct{ error }

// await follows the feed from after until it has returned all of want, and
// returns the new position.
func (e *env) await(st auth.Store, after string, want ...auth.Revocation) (next string, err error) {
	left := map[string]auth.Revocation{}
	for _, r := range want {
		left[r.Subject+" "+r.ID] = r
	}
	wait := 200 * time.Millisecond
	if len(want) == 0 {
		wait = time.Millisecond
	}
	end := time.Now().Add(e.patience)
	for {
		rs, next, err := e.changes(e.ctx, st, after, wait, wait+e.patience)
		if err != nil {
			return "", err
		}
		for _, r := range rs {
			if w, ok := left[r.Subject+" "+r.ID]; ok {
				if err := diffRevocation(r, w); err != nil {
					return "", fmt.Errorf("Changes returned the revocation %w", err)
				}
				delete(left, r.Subject+" "+r.ID)
			}
		}
		if len(left) == 0 {
			return next, nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("Changes did not return %[2]d of %[1]d revocations within %[3]s, for example %[4]s",
				len(want), len(left), e.patience, anyKey(left))
		}
		after = next
	}
}

// anyOf returns a key of m, or "none".
func anyOf(m map[string]bool) string {
	for k := range m {
		return k
	}
	return "none"
}

// anyKey returns a key of m for messages, or "none".
func anyKey(m map[string]auth.Revocation) string {
	for k := range m {
		return fmt.Sprintf("%.40q", k)
	}
	return "none"
}

var feedCases = []testcase{{
	name: "Feed_EmptyPositionReturnsAll",
	rule: "or the empty string for all revocations whose Until has not passed.",
	run: func(e *env) error {
		nodes := e.nodes(4)
		if _, _, err := e.changes(e.ctx, nodes[0], "", 0, e.patience); err != nil {
			return fmt.Errorf("before any revocation: %w", err)
		}
		const many = 300
		err := concurrently(len(nodes), func(n int) error {
			for i := n; i < many; i += len(nodes) {
				if err := e.revoke(nodes[n], notBefore(fmt.Sprintf("ada-%d", i))); err != nil {
					return err
				}
			}
			old := notBefore(fmt.Sprintf("old-%d", n))
			old.Until = now().Add(-time.Hour) // Changes may omit it
			return e.revoke(nodes[n], old)
		})
		if err != nil {
			return err
		}
		for _, st := range nodes {
			for _, wait := range []time.Duration{0, time.Second} {
				rs, _, err := e.changes(e.ctx, st, "", wait, wait+e.patience)
				if err != nil {
					return err
				}
				seen := map[string]bool{}
				for _, r := range rs {
					seen[r.Subject] = true
				}
				for i := range many {
					if !seen[fmt.Sprintf("ada-%d", i)] {
						return fmt.Errorf("after %d revocations, Changes from the empty position returned %d, without number %d", many, len(rs), i)
					}
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_ReturnsWhatWasRevoked",
	rule: "Changes returns the revocations published since a position.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		second, until := time.Now().UTC().Truncate(time.Second), now().Add(10*time.Minute)
		var want []auth.Revocation
		for i, r := range []auth.Revocation{
			{Sessions: []string{"one"}},
			{Sessions: []string{"one", "two", "a,b", `"`, "{}", "é"}},
			{All: true, Before: second},
			{All: true, Before: second.Add(31 * time.Second), Except: []string{"one"}},
			{All: true, Before: second, Except: []string{"one", "two", "a b", "中"}},
			{Before: second},
			{Before: second.Add(-time.Second)},
			{Sessions: []string{"one"}, All: true, Except: []string{"two"}, Before: second},
		} {
			r.Subject = fmt.Sprintf("%s %d", []string{"ada", "{ada}", `a"d:a`, "Ädä", "a b"}[i%5], i)
			r.Until = until.Add(time.Duration(i) * 1001 * time.Millisecond)
			r.Reason = []string{"reuse", "", "abcdefghijklmnop", "z"}[i%4]
			for _, id := range append(r.Sessions, "one-more") {
				if err := e.create(nodes[0], session(r.Subject, id)); err != nil {
					return err
				}
			}
			want = append(want, r)
		}
		// A revocation larger than the usual limits of a message.
		large := auth.Revocation{Subject: "large", Until: until}
		for i := range 500 {
			large.Sessions = append(large.Sessions, fmt.Sprintf("a-session-with-a-long-name-%d", i))
		}
		if err := e.create(nodes[0], session("large", large.Sessions[0])); err != nil {
			return err
		}
		want = append(want, large)
		next := ""
		for _, r := range want {
			if err := e.revoke(nodes[0], r); err != nil {
				return err
			}
			var err error
			if next, err = e.await(nodes[1], next, r); err != nil {
				return err
			}
		}
		_, err := e.await(nodes[1], "", want...)
		return err
	},
}, {
	name: "Feed_PagesAreComplete",
	rule: "A store returns many revocations in pages of at most a few thousand.",
	run: func(e *env) error {
		nodes := e.nodes(4)
		left := map[string]bool{} // subjects that were not returned yet
		publish := func(name string, n int) error {
			for i := range n {
				left[fmt.Sprintf("%s-%d", name, i)] = true
			}
			return concurrently(16, func(w int) error {
				for i := w; i < n; i += 16 {
					if err := e.revoke(nodes[w%4], notBefore(fmt.Sprintf("%s-%d", name, i))); err != nil {
						return err
					}
				}
				return nil
			})
		}
		start, err := e.wantNoChange(nodes[0], "")
		if err != nil {
			return err
		}
		n := min(e.many*5/2, 5000)                  // enough for some pages
		for _, after := range []string{"", start} { // the whole feed, and many revocations after a position
			if after == "" {
				if err := publish("ada", n); err != nil {
					return err
				}
			}
			clear(left)
			for i := range n {
				left[fmt.Sprintf("ada-%d", i)] = true
			}
			position, pages := after, 0
			for more := true; more; pages++ {
				// Cause an error first. Then read the page twice: a caller
				// repeats a call whose response was lost.
				ended, cancel := context.WithCancel(e.ctx)
				cancel()
				if _, _, _, err := nodes[0].Changes(ended, position, 0); err == nil {
					return errors.New("Changes with a context that has ended returned no error")
				}
				next := ""
				for try := range 2 {
					wait := time.Duration(0)
					if pages > 0 && more && len(left) > 0 {
						wait = time.Hour // Changes must not wait: there is more
					}
					ctx, cancel := context.WithTimeout(e.ctx, e.patience)
					rs, to, others, err := nodes[try].Changes(ctx, position, wait)
					cancel()
					if err != nil {
						return fmt.Errorf("page %d, with wait %s: %w", pages, wait, err)
					}
					if to == "" {
						return errors.New("Changes returned an empty next and no error")
					}
					if len(rs) > 5000 {
						return fmt.Errorf("one call of Changes returned %d revocations, want at most 5000", len(rs))
					}
					for _, r := range rs {
						delete(left, r.Subject)
					}
					next, more = to, others
				}
				position = next
				if pages == 0 {
					if err := publish("late-"+fmt.Sprint(after == ""), 10); err != nil {
						return err
					}
				}
				if pages > 2*n+100 {
					return fmt.Errorf("after %d revocations and %d calls of Changes, more is still true", n, pages)
				}
			}
			end := time.Now().Add(e.patience)
			for len(left) > 0 && time.Now().Before(end) {
				rs, next, err := e.changes(e.ctx, nodes[0], position, 50*time.Millisecond, e.patience)
				if err != nil {
					return err
				}
				for _, r := range rs {
					delete(left, r.Subject)
				}
				position = next
			}
			if len(left) > 0 {
				return fmt.Errorf("of %d revocations, and 10 more during %d calls of Changes, %d were not returned, for example that of %s",
					n, pages, len(left), anyOf(left))
			}
		}
		return nil
	},
}, {
	name: "Feed_PublishesIfNothingIsDeleted",
	rule: "then publishes r in the feed, even if it deleted nothing.",
	run: func(e *env) error {
		st := e.open()
		until := now().Add(10 * time.Minute)
		next := ""
		for i, r := range []auth.Revocation{
			{Subject: "ada-0", Sessions: []string{"absent"}, Until: until},
			{Subject: "ada-1", Sessions: []string{"absent", "two"}, Until: until},
			{Subject: "ada-2", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: until},
			notBefore("ada-3"),
		} {
			if i == 2 {
				s := session(r.Subject, "spared") // a session that was not created before Before
				s.CreatedAt = r.Before
				s.RotatedAt = r.Before
				if err := e.create(st, s); err != nil {
					return err
				}
			}
			for try := range 3 { // repeated calls publish it again
				if err := e.revoke(st, r); err != nil {
					return err
				}
				var err error
				if next, err = e.await(st, next, r); err != nil {
					return fmt.Errorf("call %d of Revoke with the same revocation: %w", try+1, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_PublishesAfterDeleting",
	rule: "Revoke deletes the sessions that r ends, then publishes r in the feed",
	run: func(e *env) error {
		nodes := e.nodes(4)
		n := e.rounds/2 + 10
		sessions := map[string]auth.Session{}
		for i := range n {
			s := session(fmt.Sprintf("ada-%04d", i), "one")
			if err := e.create(nodes[0], s); err != nil {
				return err
			}
			sessions[s.Subject] = s
		}
		return concurrently(4, func(w int) error {
			if w > 0 {
				for i := w - 1; i < n; i += 3 {
					r := auth.Revocation{Subject: fmt.Sprintf("ada-%04d", i), Sessions: []string{"one"}, Until: now().Add(10 * time.Minute)}
					if i%2 == 1 {
						r.Sessions, r.All, r.Before = nil, true, time.Now().UTC().Truncate(time.Second)
					}
					if err := e.revoke(nodes[w], r); err != nil {
						return err
					}
				}
				return nil
			}
			checked := map[string]bool{}
			end := time.Now().Add(e.patience)
			for next := ""; len(checked) < n && time.Now().Before(end); {
				rs, to, err := e.changes(e.ctx, nodes[0], next, 200*time.Millisecond, 200*time.Millisecond+e.patience)
				if err != nil {
					return err
				}
				next = to
				for _, r := range rs {
					if checked[r.Subject] {
						continue
					}
					checked[r.Subject] = true
					end = time.Now().Add(e.patience)
					if err := e.wantGone(nodes[0], sessions[r.Subject]); err != nil {
						return fmt.Errorf("after Changes returned the revocation: %w", err)
					}
				}
			}
			return nil
		})
	},
}, {
	name: "Feed_ContinuesFromNext",
	rule: "That is the next that an earlier call returned",
	run: func(e *env) error {
		st := e.open()
		next, err := e.await(st, "")
		if err != nil {
			return err
		}
		for i := range 20 {
			var rs []auth.Revocation
			for j := range i%3 + 1 {
				rs = append(rs, notBefore(fmt.Sprintf("ada-%d-%d", i, j)))
			}
			rs[0].Until = now().Add(time.Duration(20-i) * time.Minute) // out of order
			for _, r := range rs {
				if err := e.revoke(st, r); err != nil {
					return err
				}
			}
			from := next
			if next, err = e.await(st, from, rs...); err != nil {
				return err
			}
			// A caller repeats a call whose response was lost.
			if _, err = e.await(st, from, rs...); err != nil {
				return fmt.Errorf("from the same position again: %w", err)
			}
		}
		return nil
	},
}, {
	name: "Feed_OmitsNothing",
	rule: "It must not miss any. If a revocation commits only after a call has returned newer ones, a later call still returns it.",
	run: func(e *env) error {
		nodes := e.nodes(5)
		const writers = 16
		each := e.rounds/4 + 5
		var left atomic.Int64
		left.Store(writers)
		seen := map[string]bool{}
		err := concurrently(writers+1, func(w int) error {
			if w > 0 {
				defer left.Add(-1)
				for i := range each {
					r := notBefore(fmt.Sprintf("ada-%d-%d", w, i))
					if i%4 == 3 { // a revocation that takes longer
						s := session(r.Subject, "one")
						if err := e.create(nodes[w%4], s); err != nil {
							return err
						}
						r.Sessions, r.Before = []string{"one"}, time.Time{}
					}
					if err := e.revoke(nodes[w%4], r); err != nil {
						return err
					}
				}
				return nil
			}
			end := time.Now().Add(e.patience)
			for next := ""; len(seen) < writers*each; {
				rs, to, err := e.changes(e.ctx, nodes[4], next, 50*time.Millisecond, 50*time.Millisecond+e.patience)
				if err != nil {
					return err
				}
				next = to
				fresh := len(seen)
				for _, r := range rs {
					seen[r.Subject] = true
				}
				if len(seen) > fresh || left.Load() > 0 {
					end = time.Now().Add(e.patience)
				}
				if time.Now().After(end) {
					return fmt.Errorf("%[2]d goroutines published %[1]d revocations at once; a reader that continued from next got %[3]d, and no other within %[4]s",
						writers*each, writers, len(seen), e.patience)
				}
			}
			return nil
		})
		return err
	},
}, {
	name: "Feed_ReachesEveryProcess",
	rule: "Feed delivers revocations to every process.",
	run: func(e *env) error {
		nodes := e.nodes(3)
		readers := append(slices.Clone(nodes), nodes...) // two readers for each node
		const n = 10
		var want []auth.Revocation
		for i := range n {
			want = append(want, notBefore(fmt.Sprintf("ada-%d", i)))
		}
		positions := make([]string, len(readers))
		for i, st := range readers {
			var err error
			if positions[i], err = e.await(st, ""); err != nil {
				return err
			}
		}
		return concurrently(len(readers)+1, func(i int) error {
			if i == len(readers) {
				for j, r := range want {
					if err := e.revoke(nodes[j%len(nodes)], r); err != nil {
						return err
					}
				}
				return nil
			}
			if _, err := e.await(readers[i], positions[i], want...); err != nil {
				return fmt.Errorf("reader %d: %w", i, err)
			}
			return nil
		})
	},
}, {
	name: "Feed_WaitsAtMostWait",
	rule: "If none arrives within the duration wait, it returns an empty list and no error.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		next := ""
		for _, wait := range []time.Duration{0, time.Nanosecond, 300 * time.Microsecond, time.Millisecond, 400 * time.Millisecond} {
			started := time.Now()
			rs, to, err := e.changes(e.ctx, nodes[0], next, wait, wait+e.patience)
			if err != nil {
				return err
			}
			if took := time.Since(started); took < wait/2 {
				return fmt.Errorf("without a revocation, Changes with wait %s returned after %s; want at least half of wait", wait, took)
			}
			if len(rs) != 0 {
				return fmt.Errorf("without a revocation, Changes returned %d revocations", len(rs))
			}
			next = to
		}
		r := notBefore("ada")
		if err := e.revoke(nodes[1], r); err != nil {
			return err
		}
		if _, err := e.await(nodes[0], next, r); err != nil {
			return fmt.Errorf("from the position that a call without a result returned: %w", err)
		}
		return nil
	},
}, {
	name: "Feed_WakesOnRevocation",
	rule: "If there are no revocations, Changes waits for one.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		next, err := e.await(nodes[0], "")
		if err != nil {
			return err
		}
		for i, pause := range []time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
			r := notBefore(fmt.Sprintf("ada-%d", i))
			err := concurrently(2, func(w int) error {
				if w == 1 {
					time.Sleep(pause)
					return e.revoke(nodes[1], r)
				}
				started := time.Now()
				for {
					rs, to, err := e.changes(e.ctx, nodes[0], next, e.patience+time.Minute, e.patience)
					if err != nil {
						return fmt.Errorf("during a call of Revoke: %w", err)
					}
					next = to
					if slices.ContainsFunc(rs, func(got auth.Revocation) bool { return got.Subject == r.Subject }) {
						return nil
					}
					if time.Since(started) > e.patience {
						return fmt.Errorf("Changes did not return a revocation within %s", e.patience)
					}
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Feed_ReturnsWhenContextEnds",
	rule: "If ctx is done, Changes returns promptly with an error.",
	run: func(e *env) error {
		st := e.open()
		next, err := e.await(st, "")
		if err != nil {
			return err
		}
		const inTime = 5 * time.Second
		for _, after := range []string{"", next} {
			for _, how := range []string{"was canceled", "reached its deadline"} {
				ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
				if how == "was canceled" {
					ctx, cancel = context.WithCancel(e.ctx)
					time.AfterFunc(100*time.Millisecond, cancel)
				}
				_, _, err := e.changes(ctx, st, after, time.Minute, inTime)
				cancel()
				if err == nil {
					return fmt.Errorf("after the context %s, Changes returned no error", how)
				}
				if errors.As(err, new(errTooLong)) {
					return fmt.Errorf("after the context %s: %w", how, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_RefusesUnknownPosition",
	rule: "ErrFeedReset means that the position does not belong to the current history of the database",
	run: func(e *env) error {
		st := e.open()
		r := notBefore("ada")
		if err := e.revoke(st, r); err != nil {
			return err
		}
		next, err := e.await(st, "", r)
		if err != nil {
			return err
		}
		// Changes refuses each, or starts from the beginning of the feed. The
		// last ones look like positions of a lost history.
		for _, after := range []string{
			"no such position", " ", "\x00", "é", "*", "$", ">", "9223372036854775807", "99999999999999999999999", "9999999999999-0", next + "999", "9" + next,
		} {
			rs, _, err := e.changes(e.ctx, st, after, 50*time.Millisecond, e.patience)
			if errors.As(err, new(errTooLong)) {
				return err
			}
			if err == nil && !slices.ContainsFunc(rs, func(got auth.Revocation) bool { return got.Subject == "ada" }) {
				return fmt.Errorf("Changes after %q, a position that no call returned, returned no error and omitted a revocation", after)
			}
		}
		if _, err := e.await(st, "", r); err != nil {
			return fmt.Errorf("from the empty position after the errors: %w", err)
		}
		return nil
	},
}, {
	name: "Feed_CallerMayModifyResult",
	rule: "The caller owns the slices that a method returns.",
	run: func(e *env) error {
		st := e.open()
		want := auth.Revocation{Subject: "ada", Sessions: []string{"one", "two"}, All: true, Except: []string{"three"},
			Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
		if err := e.create(st, session("ada", "one")); err != nil {
			return err
		}
		passed := want
		passed.Sessions, passed.Except = slices.Clone(want.Sessions), slices.Clone(want.Except)
		if err := e.revoke(st, passed); err != nil {
			return err
		}
		clear(passed.Sessions)
		clear(passed.Except)
		for range 2 {
			rs, _, err := e.changes(e.ctx, st, "", time.Second, time.Second+e.patience)
			if err != nil {
				return err
			}
			if len(rs) != 1 {
				return fmt.Errorf("Changes returned %d revocations, want 1", len(rs))
			}
			if err := diffRevocation(rs[0], want); err != nil {
				return fmt.Errorf("after modifying the slices of earlier calls, Changes returned the revocation %w", err)
			}
			clear(rs[0].Sessions)
			clear(rs[0].Except)
			clear(rs)
		}
		return nil
	},
}}
