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

// cut returns a revocation that names no session, told apart by its subject.
func cut(subject string) auth.Revocation {
	return auth.Revocation{Subject: subject, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
}

// sameRevocation returns how got differs from want, the order of IDs apart.
func sameRevocation(got, want auth.Revocation) error {
	ids := func(ids []string) []string { return slices.Sorted(slices.Values(ids)) }
	if got.Subject == want.Subject && got.ID == want.ID && got.AccessTTL == want.AccessTTL && got.All == want.All && got.Before.Equal(want.Before) && got.Until.Equal(want.Until) &&
		slices.Equal(ids(got.Sessions), ids(want.Sessions)) && slices.Equal(ids(got.Except), ids(want.Except)) {
		return nil
	}
	return fmt.Errorf("%.600s, want %.600s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
}

// changes calls Changes until there is no more, and bounds the time that it
// waits for it.
func (e *env) changes(ctx context.Context, st auth.Store, after string, wait, limit time.Duration) ([]auth.Revocation, string, error) {
	type answer struct {
		rs   []auth.Revocation
		next string
		err  error
	}
	answered := make(chan answer, 1)
	end := time.Now().Add(limit)
	go func() {
		var all []auth.Revocation
		empty := 0 // pages without revocations
		// wait is the caller's too, which may give up and read it meanwhile.
		for more, wait := true, wait; more; wait = 0 {
			if time.Now().After(end) {
				return // nobody waits for it
			}
			rs, next, others, err := st.Changes(ctx, after, wait)
			if empty++; len(rs) > 0 {
				empty = 0
			}
			if err == nil && empty > 100 {
				err = fmt.Errorf("%d pages without revocations all said that there is more", empty)
			}
			if err != nil || next == "" {
				answered <- answer{nil, next, err}
				return
			}
			all, after, more = append(all, rs...), next, others
		}
		answered <- answer{all, after, nil}
	}()
	select {
	case a := <-answered:
		if a.err == nil && a.next == "" {
			return nil, "", errors.New("Changes returned the empty position as next, and no error")
		}
		if a.err != nil {
			return nil, "", fmt.Errorf("Changes: %w", a.err)
		}
		return a.rs, a.next, nil
	case <-time.After(limit):
		return nil, "", errTooLong{fmt.Errorf("Changes with wait %s has not returned after %s", wait, limit)}
	}
}

// errTooLong says that Changes did not return.
type errTooLong struct{ error }

// await follows the feed from after until all of want were seen, and returns
// the position that was reached.
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
				if err := sameRevocation(r, w); err != nil {
					return "", fmt.Errorf("a revocation comes back as %w", err)
				}
				delete(left, r.Subject+" "+r.ID)
			}
		}
		if len(left) == 0 {
			return next, nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("of %d revocations, %d were not returned within %s, among them %s", len(want), len(left), e.patience, anyKey(left))
		}
		after = next
	}
}

func anyOf(m map[string]bool) string {
	for k := range m {
		return k
	}
	return "none"
}

func anyKey(m map[string]auth.Revocation) string {
	for k := range m {
		return fmt.Sprintf("that of %.40q", k)
	}
	return "none"
}

var feedCases = []testcase{{
	name: "Feed_EmptyPositionMeansAll",
	rule: "the empty position means all whose Until has not passed.",
	run: func(e *env) error {
		nodes := e.nodes(4)
		if _, _, err := e.changes(e.ctx, nodes[0], "", 0, e.patience); err != nil {
			return fmt.Errorf("nothing was announced yet: %w", err)
		}
		const many = 300
		err := together(len(nodes), func(n int) error {
			for i := n; i < many; i += len(nodes) {
				if err := e.revoke(nodes[n], cut(fmt.Sprintf("ada-%d", i))); err != nil {
					return err
				}
			}
			old := cut(fmt.Sprintf("old-%d", n))
			old.Until = now().Add(-time.Hour) // it may be left out
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
						return fmt.Errorf("%d revocations were announced; from the empty position until there was no more %d were returned, without number %d", many, len(rs), i)
					}
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_ReturnsWhatWasRevoked",
	rule: "Changes returns the revocations announced after the position after",
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
			for _, id := range append(r.Sessions, "there-to-be-found") {
				if err := e.create(nodes[0], session(r.Subject, id)); err != nil {
					return err
				}
			}
			want = append(want, r)
		}
		// One that is larger than most messages may be.
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
	name: "Feed_ManyComeInPages",
	rule: "A store returns many revocations in pages, of some thousands at most",
	run: func(e *env) error {
		nodes := e.nodes(4)
		left := map[string]bool{} // the subjects that were not returned yet
		announce := func(name string, n int) error {
			for i := range n {
				left[fmt.Sprintf("%s-%d", name, i)] = true
			}
			return together(16, func(w int) error {
				for i := w; i < n; i += 16 {
					if err := e.revoke(nodes[w%4], cut(fmt.Sprintf("%s-%d", name, i))); err != nil {
						return err
					}
				}
				return nil
			})
		}
		start, err := e.quiet(nodes[0], "")
		if err != nil {
			return err
		}
		n := min(e.many*5/2, 5000)                  // some pages; more only takes longer
		for _, after := range []string{"", start} { // the beginning, and a long catch-up
			if after == "" {
				if err := announce("ada", n); err != nil {
					return err
				}
			}
			clear(left)
			for i := range n {
				left[fmt.Sprintf("ada-%d", i)] = true
			}
			position, pages := after, 0
			for more := true; more; pages++ {
				// With an error in between, and the same position twice: the
				// first answer may be lost.
				ended, cancel := context.WithCancel(e.ctx)
				cancel()
				if _, _, _, err := nodes[0].Changes(ended, position, 0); err == nil {
					return errors.New("Changes with a context that has ended returned no error")
				}
				next := ""
				for try := range 2 {
					wait := time.Duration(0)
					if pages > 0 && more && len(left) > 0 {
						wait = time.Hour // there is something to return at once
					}
					ctx, cancel := context.WithTimeout(e.ctx, e.patience)
					rs, to, others, err := nodes[try].Changes(ctx, position, wait)
					cancel()
					if err != nil {
						return fmt.Errorf("page %d, with wait %s: %w", pages, wait, err)
					}
					if to == "" {
						return errors.New("Changes returned the empty position as next, and no error")
					}
					if len(rs) > 5000 {
						return fmt.Errorf("one call of Changes returned %d revocations", len(rs))
					}
					for _, r := range rs {
						delete(left, r.Subject)
					}
					next, more = to, others
				}
				position = next
				if pages == 0 {
					if err := announce("late-"+fmt.Sprint(after == ""), 10); err != nil {
						return err
					}
				}
				if pages > 2*n+100 {
					return fmt.Errorf("%d revocations were announced; after %d calls Changes still says that there is more", n, pages)
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
				return fmt.Errorf("of %d revocations, and 10 that were announced while %d pages were read, %d were not returned, among them that of %s", n, pages, len(left), anyOf(left))
			}
		}
		return nil
	},
}, {
	name: "Feed_AnnouncesAlsoWhatFoundNothing",
	rule: "then announces r to the feed, also when nothing was there to delete.",
	run: func(e *env) error {
		st := e.open()
		until := now().Add(10 * time.Minute)
		next := ""
		for i, r := range []auth.Revocation{
			{Subject: "ada-0", Sessions: []string{"absent"}, Until: until},
			{Subject: "ada-1", Sessions: []string{"absent", "two"}, Until: until},
			{Subject: "ada-2", All: true, Before: time.Now().UTC().Truncate(time.Second), Until: until},
			cut("ada-3"),
		} {
			if i == 2 {
				s := session(r.Subject, "spared") // the subject has one, but not before the cut
				s.CreatedAt = r.Before
				s.RotatedAt = r.Before
				if err := e.create(st, s); err != nil {
					return err
				}
			}
			for try := range 3 { // also when it is announced again
				if err := e.revoke(st, r); err != nil {
					return err
				}
				var err error
				if next, err = e.await(st, next, r); err != nil {
					return fmt.Errorf("call %d of the same Revoke: %w", try+1, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_AnnouncesWhatIsDeletedAlready",
	rule: "Revoke deletes the sessions that r names, then announces r to the feed",
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
		return together(4, func(w int) error {
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
					if err := e.gone(nodes[0], sessions[r.Subject]); err != nil {
						return fmt.Errorf("its revocation has been announced, but %w", err)
					}
				}
			}
			return nil
		})
	},
}, {
	name: "Feed_GoesOnFromNext",
	rule: "Changes returns the revocations announced after the position after, which an earlier call returned as next",
	run: func(e *env) error {
		st := e.open()
		next, err := e.await(st, "")
		if err != nil {
			return err
		}
		for i := range 20 {
			var rs []auth.Revocation
			for j := range i%3 + 1 {
				rs = append(rs, cut(fmt.Sprintf("ada-%d-%d", i, j)))
			}
			rs[0].Until = now().Add(time.Duration(20-i) * time.Minute) // in no order
			for _, r := range rs {
				if err := e.revoke(st, r); err != nil {
					return err
				}
			}
			from := next
			if next, err = e.await(st, from, rs...); err != nil {
				return err
			}
			// The same position once more: the first answer may be lost.
			if _, err = e.await(st, from, rs...); err != nil {
				return fmt.Errorf("asked again from the same position: %w", err)
			}
		}
		return nil
	},
}, {
	name: "Feed_OmitsNothing",
	rule: "it must not omit: a revocation that commits late, behind one that was returned already, is still returned.",
	run: func(e *env) error {
		nodes := e.nodes(5)
		const writers = 16
		each := e.rounds/4 + 5
		var left atomic.Int64
		left.Store(writers)
		seen := map[string]bool{}
		err := together(writers+1, func(w int) error {
			if w > 0 {
				defer left.Add(-1)
				for i := range each {
					r := cut(fmt.Sprintf("ada-%d-%d", w, i))
					if i%4 == 3 { // one that takes longer
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
					return fmt.Errorf("of %d revocations that %d goroutines announced at once, a reader that went on from next each time got %d; the rest did not come within %s after the last", writers*each, writers, len(seen), e.patience)
				}
			}
			return nil
		})
		return err
	},
}, {
	name: "Feed_TellsEveryProcess",
	rule: "Feed delivers revocations to every process.",
	run: func(e *env) error {
		nodes := e.nodes(3)
		readers := append(slices.Clone(nodes), nodes...) // two in each process
		const n = 10
		var want []auth.Revocation
		for i := range n {
			want = append(want, cut(fmt.Sprintf("ada-%d", i)))
		}
		positions := make([]string, len(readers))
		for i, st := range readers {
			var err error
			if positions[i], err = e.await(st, ""); err != nil {
				return err
			}
		}
		return together(len(readers)+1, func(i int) error {
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
	rule: "With none it waits for one, at most wait, then returns none and no error.",
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
				return fmt.Errorf("nothing was announced; Changes with wait %s returned after %s, which makes its caller spin", wait, took)
			}
			if len(rs) != 0 {
				return fmt.Errorf("nothing was announced; Changes returned %d revocations", len(rs))
			}
			next = to
		}
		r := cut("ada")
		if err := e.revoke(nodes[1], r); err != nil {
			return err
		}
		if _, err := e.await(nodes[0], next, r); err != nil {
			return fmt.Errorf("from the position that a call without revocations returned: %w", err)
		}
		return nil
	},
}, {
	name: "Feed_WakesWhenOneIsAnnounced",
	rule: "With none it waits for one",
	run: func(e *env) error {
		nodes := e.nodes(2)
		next, err := e.await(nodes[0], "")
		if err != nil {
			return err
		}
		for i, pause := range []time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
			r := cut(fmt.Sprintf("ada-%d", i))
			err := together(2, func(w int) error {
				if w == 1 {
					time.Sleep(pause)
					return e.revoke(nodes[1], r)
				}
				started := time.Now()
				for {
					rs, to, err := e.changes(e.ctx, nodes[0], next, e.patience+time.Minute, e.patience)
					if err != nil {
						return fmt.Errorf("a revocation was announced meanwhile: %w", err)
					}
					next = to
					if slices.ContainsFunc(rs, func(got auth.Revocation) bool { return got.Subject == r.Subject }) {
						return nil
					}
					if time.Since(started) > e.patience {
						return fmt.Errorf("a revocation was announced, and not returned within %s", e.patience)
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
	rule: "When ctx ends it returns in time, with an error.",
	run: func(e *env) error {
		st := e.open()
		next, err := e.await(st, "")
		if err != nil {
			return err
		}
		const inTime = 5 * time.Second
		for _, after := range []string{"", next} {
			for _, how := range []string{"was cancelled", "reached its deadline"} {
				ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
				if how == "was cancelled" {
					ctx, cancel = context.WithCancel(e.ctx)
					time.AfterFunc(100*time.Millisecond, cancel)
				}
				_, _, err := e.changes(ctx, st, after, time.Minute, inTime)
				cancel()
				if err == nil {
					return fmt.Errorf("the context %s; Changes returned no error", how)
				}
				if errors.As(err, new(errTooLong)) {
					return fmt.Errorf("the context %s after 100ms: %w", how, err)
				}
			}
		}
		return nil
	},
}, {
	name: "Feed_RefusesPositionOfNoHistory",
	rule: "ErrFeedReset: the position is not of this server's history",
	run: func(e *env) error {
		st := e.open()
		r := cut("ada")
		if err := e.revoke(st, r); err != nil {
			return err
		}
		next, err := e.await(st, "", r)
		if err != nil {
			return err
		}
		// Each is either refused, or taken for one before everything. The last
		// are what a position looks like whose history has been lost.
		for _, after := range []string{
			"no such position", " ", "\x00", "é", "*", "$", ">", "9223372036854775807", "99999999999999999999999", "9999999999999-0", next + "999", "9" + next,
		} {
			rs, _, err := e.changes(e.ctx, st, after, 50*time.Millisecond, e.patience)
			if errors.As(err, new(errTooLong)) {
				return err
			}
			if err == nil && !slices.ContainsFunc(rs, func(got auth.Revocation) bool { return got.Subject == "ada" }) {
				return fmt.Errorf("Changes after %q, a position that no call returned, gave no error and left out what was announced", after)
			}
		}
		if _, err := e.await(st, "", r); err != nil {
			return fmt.Errorf("beginning again: %w", err)
		}
		return nil
	},
}, {
	name: "Feed_ResultIsTheCallers",
	rule: "What a call returns is the caller's to keep and to change.",
	run: func(e *env) error {
		st := e.open()
		want := auth.Revocation{Subject: "ada", Sessions: []string{"one", "two"}, All: true, Except: []string{"three"}, Before: time.Now().UTC().Truncate(time.Second), Until: now().Add(10 * time.Minute)}
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
				return fmt.Errorf("Changes returned %d revocations, want the one that was announced", len(rs))
			}
			if err := sameRevocation(rs[0], want); err != nil {
				return fmt.Errorf("after the slices of an earlier call were changed, a revocation comes back as %w", err)
			}
			clear(rs[0].Sessions)
			clear(rs[0].Except)
			clear(rs)
		}
		return nil
	},
}}
