package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	// readAtMost bounds the read of what came after a position, with what the
	// driver repeats. All of the feed may take longer.
	readAtMost = blockAtMost + answerGrace

	// policyTimeout bounds the question whether the server may evict.
	policyTimeout = 500 * time.Millisecond
)

// feed returns the key of the stream of revocations.
func (s *Store) feed() string { return s.prefix + ":feed" }

// entry is a revocation as it is kept, times in Unix milliseconds.
type entry struct {
	Subject  string   `json:"s"`
	Sessions []string `json:"i,omitempty"`
	All      bool     `json:"a,omitempty"`
	Except   []string `json:"e,omitempty"`
	Cut      int64    `json:"c"`
	Until    int64    `json:"u"`
}

func encodeRevocation(r auth.Revocation) ([]byte, error) {
	b, err := json.Marshal(entry{r.Subject, r.Sessions, r.All, r.Except, r.Cut.UnixMilli(), r.Until.UnixMilli()})
	if err != nil {
		return nil, fmt.Errorf("redisstore: a revocation: %w", err)
	}
	return b, nil
}

func decodeRevocation(text string) (auth.Revocation, error) {
	var e entry
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return auth.Revocation{}, fmt.Errorf("redisstore: an entry of the feed: %w", err)
	}
	return auth.Revocation{
		Subject: e.Subject, Sessions: e.Sessions, All: e.All, Except: e.Except,
		Cut: time.UnixMilli(e.Cut).UTC(), Until: time.UnixMilli(e.Until).UTC(),
	}, nil
}

// position is a place in the history of one run of a server: the last entry
// that was seen, and its Until in Unix milliseconds, before which it does not
// leave. The zero position is the beginning of any history.
type position struct {
	run, id string
	until   int64
}

// beforeAll is the ID before that of every entry.
const beforeAll = "0-0"

func (p position) String() string {
	return p.run + "." + strconv.FormatInt(p.until, 10) + "." + p.id
}

func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	run, rest, _ := strings.Cut(text, ".")
	until, id, _ := strings.Cut(rest, ".")
	ms, n, _ := strings.Cut(id, "-")
	at, err1 := strconv.ParseInt(until, 10, 64)
	_, err2 := strconv.ParseUint(ms, 10, 64)
	_, err3 := strconv.ParseUint(n, 10, 64)
	if errors.Join(err1, err2, err3) != nil {
		return position{}, fmt.Errorf("redisstore: malformed: %w", auth.ErrFeedReset)
	}
	return position{run, id, at}, nil
}

// Changes implements [auth.Feed]. While it waits it keeps one connection of the
// client. It returns at the deadline of ctx. When ctx is cancelled it returns
// within a second, or a second and a half if the server hangs; with the empty
// position within the client's ReadTimeout (3 seconds by default), since all of
// the feed may take as long to read. A server that takes half a second longer
// than it was asked to wait is an error.
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
		rs, next, err := s.read(ctx, p)
		if err != nil {
			return nil, "", false, err
		}
		if after == "" {
			s.warn(ctx)
		}
		p = next
		more := false
		if len(rs) == 0 {
			more, err = s.await(ctx, p, end)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, "", false, err
		}
		if !more {
			return rs, p.String(), false, nil
		}
	}
}

// read returns what came after p.
func (s *Store) read(ctx context.Context, p position) ([]auth.Revocation, position, error) {
	asking := ctx
	if p.id != "" {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, readAtMost)
		defer cancel()
	}
	answer, err := s.changes.Run(asking, s.client, []string{s.feed()}, p.run, p.id, p.until).Slice()
	if errors.Is(err, redis.Nil) {
		return nil, position{}, fmt.Errorf("redisstore: %w", auth.ErrFeedReset)
	}
	if err != nil {
		return nil, position{}, s.failed(ctx, "reading the feed", err)
	}
	if len(answer) != 3 {
		return nil, position{}, errAnswer
	}
	run, ok1 := answer[0].(string)
	there, ok2 := answer[1].(int64)
	entries, ok3 := answer[2].([]any)
	if !ok1 || !ok2 || !ok3 {
		return nil, position{}, errAnswer
	}
	next := position{run, beforeAll, 0}
	if there == 1 {
		next = p
	}
	rs := make([]auth.Revocation, 0, len(entries))
	for _, e := range entries {
		id, text, ok := fields(e)
		if !ok {
			return nil, position{}, errAnswer
		}
		r, err := decodeRevocation(text)
		if err != nil {
			return nil, position{}, err
		}
		rs = append(rs, r)
		next = position{run, id, r.Until.UnixMilli()}
	}
	return rs, next, nil
}

// fields takes an entry of the stream apart: its ID, and u, …, r, ….
func fields(e any) (id, text string, ok bool) {
	parts, _ := e.([]any)
	if len(parts) != 2 {
		return "", "", false
	}
	values, _ := parts[1].([]any)
	if len(values) != 4 {
		return "", "", false
	}
	id, ok1 := parts[0].(string)
	text, ok2 := values[3].(string)
	return id, text, ok1 && ok2
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
