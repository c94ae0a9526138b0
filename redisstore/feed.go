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
	// maxBlock is the maximum time of one blocking XREAD. It is short because
	// the driver does not notice a canceled context while it reads.
	maxBlock = time.Second

	// replyGrace is how much longer than maxBlock the server may take to reply.
	// The driver by itself would wait for ten seconds.
	replyGrace = 500 * time.Millisecond

	// readTimeout is the maximum time to read a page, retries of the driver
	// included.
	readTimeout = maxBlock + replyGrace

	// policyTimeout is the maximum time to read the eviction policy.
	policyTimeout = 500 * time.Millisecond
)

// feed returns the key of the stream of revocations.
func (s *Store) feed() string { return s.prefix + ":feed" }

// entry is the stored form of a revocation, which is the field r of its stream
// entry. Times and AccessTTL are in milliseconds.
//
// A newer version may add a member if a process that ignores the member still
// ends everything that the revocation should end. Otherwise it must raise
// Version: a process that does not know that Version ends all access tokens of
// the subject, so the subject must remain in s. Names of members must differ by
// more than their case, since encoding/json ignores case. The name h is
// reserved for [luaPublish]. A stream entry must have the fields u and r, in
// this order, and no others.
type entry struct {
	Version   int      `json:"v,omitempty"` // 0 in this version
	Subject   string   `json:"s"`
	Sessions  []string `json:"i,omitempty"`
	All       bool     `json:"a,omitempty"`
	Except    []string `json:"e,omitempty"`
	Before    *int64   `json:"b"`
	Until     *int64   `json:"u"`
	ID        string   `json:"n,omitempty"`
	AccessTTL int64    `json:"t,omitempty"`
	Reason    word     `json:"r,omitempty"`
}

// word is a string that has no effect on what a revocation ends. A member of
// another type counts as "".
type word string

func (w *word) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		text = ""
	}
	*w = word(text)
	return nil
}

// revocation returns the revocation in the entry. ok is false if the entry has
// another version, lacks a required member, or is not valid. An entry without
// Until would count as expired. An entry without Before would end nothing, unless
// it only lists sessions.
func (e *entry) revocation() (r auth.Revocation, ok bool) {
	if e.Version != 0 || e.Until == nil || e.Before == nil && e.AccessTTL == 0 && (len(e.Sessions) == 0 || e.All) {
		return r, false
	}
	r = auth.Revocation{
		Subject: e.Subject, Sessions: e.Sessions, All: e.All, Except: e.Except, Until: time.UnixMilli(*e.Until).UTC(),
		ID: e.ID, AccessTTL: time.Duration(e.AccessTTL) * time.Millisecond, Reason: string(e.Reason),
	}
	if e.Before != nil {
		r.Before = time.UnixMilli(*e.Before).UTC()
	}
	if r.Check() != nil {
		r.Reason = "" // a reason that is not valid must not hide the revocation
	}
	return r, r.AccessTTL.Milliseconds() == e.AccessTTL && r.Check() == nil // the multiplication may have overflowed
}

func encodeRevocation(r auth.Revocation) ([]byte, error) {
	before, until := r.Before.UnixMilli(), r.Until.UnixMilli()
	b, err := json.Marshal(entry{
		Subject: r.Subject, Sessions: r.Sessions, All: r.All, Except: r.Except, Before: &before, Until: &until,
		ID: r.ID, AccessTTL: r.AccessTTL.Milliseconds(), Reason: word(r.Reason),
	})
	if err != nil {
		return nil, fmt.Errorf("redisstore: revoking: %w", err)
	}
	return b, nil
}

// decodeRevocation returns the revocation in the stream entry with the given ID.
// If it cannot read the entry, it returns a revocation with only the subject, if
// that can be read, and an ID derived from that of the entry.
func decodeRevocation(id, text string) auth.Revocation {
	var e entry
	if json.Unmarshal([]byte(text), &e) == nil {
		if r, ok := e.revocation(); ok {
			return r
		}
	}
	var readable struct {
		Subject string `json:"s"`
	}
	_ = json.Unmarshal([]byte(text), &readable)
	return auth.Revocation{Subject: readable.Subject, ID: "stream." + id}
}

// position is a position in the feed: the run of the server (its run_id), and the
// ID and the Until of the last entry that was returned. Until is in Unix
// milliseconds; the entry is not deleted before it. The zero position is the
// beginning of the feed, whatever the run.
type position struct{ run, id, until string }

// zeroID is less than the ID of every entry.
const zeroID = "0-0"

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
		return position{}, fmt.Errorf("redisstore: reading the feed: malformed position: %w", auth.ErrFeedReset)
	}
	return position{run, id, until}, nil
}

// Changes implements [auth.Feed]. While it waits, it occupies one connection of
// the client. It returns at the deadline of ctx. If ctx is canceled, it returns
// within a second, or within 1.5 seconds if the server hangs. If a reply is
// half a second late, Changes returns an error.
//
// Changes returns at most 512 revocations, or fewer if they exceed 256 KiB, since
// the server serves no other client while it reads a page.
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
			s.checkEviction(ctx)
		}
		p = next
		again := false
		if len(rs) == 0 && !more {
			again, err = s.wait(ctx, p, end)
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

// read returns a page of the revocations after p, the position after them, and
// whether there are more.
func (s *Store) read(ctx context.Context, p position) (rs []auth.Revocation, next position, more bool, err error) {
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	reply, err := s.changes.Run(reading, s.client, []string{s.feed()}, p.run, p.id, p.until).Slice()
	if errors.Is(err, redis.Nil) {
		return nil, position{}, false, fmt.Errorf("redisstore: reading the feed: %w", auth.ErrFeedReset)
	}
	if err != nil {
		return nil, position{}, false, s.failed(ctx, "reading the feed", err)
	}
	malformed := fmt.Errorf("redisstore: reading the feed: %w", errReply)
	if len(reply) != 4 {
		return nil, position{}, false, malformed
	}
	run, ok1 := reply[0].(string)
	found, ok2 := reply[1].(int64)
	entries, ok3 := reply[2].([]any)
	others, ok4 := reply[3].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, position{}, false, malformed
	}
	next = position{run, zeroID, "0"}
	if found == 1 {
		next = p
	}
	rs = make([]auth.Revocation, 0, len(entries))
	for _, e := range entries {
		id, until, text, ok := fields(e)
		if !ok {
			return nil, position{}, false, malformed
		}
		rs = append(rs, decodeRevocation(id, text))
		next = position{run, id, until}
	}
	return rs, next, others == 1, nil
}

// fields returns the ID of a stream entry, the value of its first field u, as the
// scripts read it, and the value of r. Other fields are ignored.
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

// wait waits for an entry after p, at most until end, and reports whether there
// is one. It does not return the entry: only read checks that the position is
// still valid.
func (s *Store) wait(ctx context.Context, p position, end time.Time) (bool, error) {
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		block := max(min(left, maxBlock), time.Millisecond) // 0 would block forever
		reading, cancel := context.WithTimeout(ctx, block+replyGrace)
		err := s.client.XRead(reading, &redis.XReadArgs{Streams: []string{s.feed(), p.id}, Count: 1, Block: block}).Err()
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

// checkEviction calls OnEvent, once, if the server may evict keys.
func (s *Store) checkEviction(ctx context.Context) {
	if s.onEvent == nil || s.warned.Load() {
		return
	}
	checking, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	policies := make(chan string, 1) // the first policy found that evicts keys
	check := func(ctx context.Context, client *redis.Client) error {
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
	// An error is ignored: the user may not be permitted to call INFO.
	switch client := s.client.(type) {
	case *redis.Client:
		_ = check(checking, client)
	case *redis.ClusterClient:
		_ = client.ForEachMaster(checking, check)
	}
	select {
	case policy := <-policies:
		if s.warned.CompareAndSwap(false, true) {
			s.onEvent(ctx, auth.Event{Type: auth.EventFault, Time: time.Now().UTC(), Err: fmt.Errorf(
				"redisstore: the server's maxmemory-policy is %s, so it may evict sessions and revocations; set it to noeviction", policy)})
		}
	default:
	}
}
