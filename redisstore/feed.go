package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
)

const (
	// blockAtMost bounds one blocked read: the driver does not notice that a
	// context is cancelled while it reads.
	blockAtMost = time.Second

	// answerGrace is how long after that the server may take to answer. The
	// driver alone would give it ten seconds.
	answerGrace = 500 * time.Millisecond

	// readAtMost bounds the read of a page, with what the driver repeats.
	readAtMost = blockAtMost + answerGrace

	// policyTimeout bounds the question whether the server may evict.
	policyTimeout = 500 * time.Millisecond
)

// feed returns the key of the stream of revocations.
func (s *Store) feed() string { return s.prefix + ":feed" }

// entry is a revocation as it is kept, times and AccessTTL in milliseconds.
//
// A newer version may add a member, if a process that ignores it ends no less
// than the revocation means to. Otherwise it must raise the version: a process
// that knows only lower ones ends the access tokens of the subject, which it
// must still find in s. Names of members differ by more than their case, since
// the decoder does not tell that apart, and h is the script's that announces. In
// any case the entry has the fields u and r, in this order, and no others: the
// first version reads none that has.
type entry struct {
	Version   int      `json:"v,omitempty"` // 0 is the first
	Subject   string   `json:"s"`
	Sessions  []string `json:"i,omitempty"`
	All       bool     `json:"a,omitempty"`
	Except    []string `json:"e,omitempty"`
	Before    *int64   `json:"b"`
	Until     *int64   `json:"u"`
	ID        string   `json:"n,omitempty"`
	AccessTTL int64    `json:"t,omitempty"`
}

// maxAccessTTL is the longest lifetime that a notice announces, in milliseconds.
const maxAccessTTL = 24 * 60 * 60 * 1000

// whole reports whether the entry is of this version and lacks nothing. Without
// an Until it would count as over, and without a Cut, unless it names sessions
// only, it would end nothing.
func (e *entry) whole() bool {
	return e.Version == 0 && e.Until != nil && (e.Before != nil || e.AccessTTL != 0 || len(e.Sessions) > 0 && !e.All) &&
		e.AccessTTL >= 0 && e.AccessTTL <= maxAccessTTL && (e.Subject != "") == (e.AccessTTL == 0) &&
		!slices.Contains(e.Sessions, "") && !slices.Contains(e.Except, "") // of null
}

func encodeRevocation(r auth.Revocation) ([]byte, error) {
	before, until := r.Before.UnixMilli(), r.Until.UnixMilli()
	b, err := json.Marshal(entry{
		Subject: r.Subject, Sessions: r.Sessions, All: r.All, Except: r.Except, Before: &before, Until: &until,
		ID: r.ID, AccessTTL: r.AccessTTL.Milliseconds(),
	})
	if err != nil {
		return nil, fmt.Errorf("redisstore: a revocation: %w", err)
	}
	return b, nil
}

// decodeRevocation returns the revocation of the entry with the given ID. Of one
// that it cannot read it returns the subject, if it can, and a name of the entry
// as its ID.
func decodeRevocation(id, text string) auth.Revocation {
	var e entry
	err := json.Unmarshal([]byte(text), &e)
	if err == nil && e.whole() {
		r := auth.Revocation{
			Subject: e.Subject, Sessions: e.Sessions, All: e.All, Except: e.Except, Until: time.UnixMilli(*e.Until).UTC(),
			ID: e.ID, AccessTTL: time.Duration(e.AccessTTL) * time.Millisecond,
		}
		if e.Before != nil {
			r.Before = time.UnixMilli(*e.Before).UTC()
		}
		return r
	}
	var known struct {
		Subject string `json:"s"`
	}
	_ = json.Unmarshal([]byte(text), &known)
	return auth.Revocation{Subject: known.Subject, ID: "stream." + id}
}

// position is a place in the history of one run of a server: the last entry
// that was seen, and its Until in Unix milliseconds, before which it does not
// leave. The zero position is the beginning of any history.
type position struct{ run, id, until string }

// beforeAll is the ID before that of every entry.
const beforeAll = "0-0"

func (p position) String() string { return p.run + "." + p.until + "." + p.id }

func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	run, rest, _ := strings.Cut(text, ".")
	until, id, _ := strings.Cut(rest, ".")
	ms, n, _ := strings.Cut(id, "-")
	_, err1 := strconv.ParseInt(until, 10, 64)
	_, err2 := strconv.ParseUint(ms, 10, 64)
	_, err3 := strconv.ParseUint(n, 10, 64)
	if errors.Join(err1, err2, err3) != nil {
		return position{}, fmt.Errorf("redisstore: malformed: %w", auth.ErrFeedReset)
	}
	return position{run, id, until}, nil
}

// Changes implements [auth.Feed]. While it waits it keeps one connection of the
// client. It returns at the deadline of ctx. When ctx is cancelled it returns
// within a second, or a second and a half if the server hangs. A server that
// takes half a second longer than it was asked to wait is an error.
//
// It returns at most 512 revocations, or fewer that are 256 KiB together,
// since the server answers nobody else meanwhile.
func (s *Store) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", false, err
	}
	p, err := parsePosition(after)
	if err != nil {
		return nil, "", false, err
	}
	end := time.Now().Add(wait)
	for {
		rs, next, more, err := s.read(ctx, p)
		if err != nil {
			return nil, "", false, err
		}
		if after == "" {
			s.warn(ctx)
		}
		p = next
		again := false
		if len(rs) == 0 && !more {
			again, err = s.await(ctx, p, end)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, "", false, err
		}
		if !again {
			return rs, p.String(), more, nil
		}
	}
}

// read returns a page of what came after p, and whether there is more.
func (s *Store) read(ctx context.Context, p position) (rs []auth.Revocation, next position, more bool, err error) {
	asking, cancel := context.WithTimeout(ctx, readAtMost)
	defer cancel()
	answer, err := s.changes.Run(asking, s.client, []string{s.feed()}, p.run, p.id, p.until).Slice()
	if errors.Is(err, redis.Nil) {
		return nil, position{}, false, fmt.Errorf("redisstore: %w", auth.ErrFeedReset)
	}
	if err != nil {
		return nil, position{}, false, s.failed(ctx, "reading the feed", err)
	}
	if len(answer) != 4 {
		return nil, position{}, false, errAnswer
	}
	run, ok1 := answer[0].(string)
	there, ok2 := answer[1].(int64)
	entries, ok3 := answer[2].([]any)
	others, ok4 := answer[3].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, position{}, false, errAnswer
	}
	next = position{run, beforeAll, "0"}
	if there == 1 {
		next = p
	}
	rs = make([]auth.Revocation, 0, len(entries))
	for _, e := range entries {
		id, until, text, ok := fields(e)
		if !ok {
			return nil, position{}, false, errAnswer
		}
		rs = append(rs, decodeRevocation(id, text))
		next = position{run, id, until}
	}
	return rs, next, others == 1, nil
}

// fields takes an entry of the stream apart: its ID, and the values of its first
// field u, as the scripts read it, and of r. What others there are is not the
// reader's.
func fields(e any) (id, until, text string, ok bool) {
	parts, _ := e.([]any)
	if len(parts) != 2 {
		return "", "", "", false
	}
	id, ok1 := parts[0].(string)
	values, ok2 := parts[1].([]any)
	until = "0"
	found := false
	for i := 0; i+1 < len(values); i += 2 {
		value, _ := values[i+1].(string)
		switch values[i] {
		case "u":
			if found {
				continue
			}
			found = true
			if _, err := strconv.ParseInt(value, 10, 64); err == nil && len(value) <= 18 && value[0] != '+' {
				until = value
			}
		case "r":
			text = value
		}
	}
	return id, until, text, ok1 && ok2
}

// await waits for an entry after p, and reports whether it is worth while to
// read again. What it is shown is not used: only read looks whether the history
// is still the same.
func (s *Store) await(ctx context.Context, p position, end time.Time) (bool, error) {
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		block := max(min(left, blockAtMost), time.Millisecond) // 0 is for ever
		asking, cancel := context.WithTimeout(ctx, block+answerGrace)
		err := s.client.XRead(asking, &redis.XReadArgs{Streams: []string{s.feed(), p.id}, Count: 1, Block: block}).Err()
		cancel()
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, redis.Nil):
			return false, s.failed(ctx, "waiting for the feed", err)
		}
	}
	return false, ctx.Err()
}

// warn tells, once, that the server may evict keys.
func (s *Store) warn(ctx context.Context) {
	if s.onEvent == nil || s.warned.Load() {
		return
	}
	ask, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	policies := make(chan string, 1) // the first of those that evict
	look := func(ctx context.Context, client *redis.Client) error {
		info, err := client.Info(ctx, "memory").Result()
		if err != nil {
			return err
		}
		_, policy, _ := strings.Cut(info, "maxmemory_policy:")
		if policy, _, _ = strings.Cut(policy, "\r"); policy != "" && policy != "noeviction" {
			select {
			case policies <- policy:
			default:
			}
		}
		return nil
	}
	// Who may not ask is not told: that is no fault of the store's.
	switch client := s.client.(type) {
	case *redis.Client:
		_ = look(ask, client)
	case *redis.ClusterClient:
		_ = client.ForEachMaster(ask, look)
	}
	select {
	case policy := <-policies:
		if s.warned.CompareAndSwap(false, true) {
			s.onEvent(ctx, auth.Event{Type: auth.EventFault, Time: time.Now().UTC(), Err: fmt.Errorf(
				"redisstore: the server's maxmemory-policy is %s: it may evict sessions and revocations; set noeviction", policy)})
		}
	default:
	}
}
