package sqlitestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ratchet-go/auth"
)

// pollInterval is how often a waiting Changes looks for what other processes
// have announced.
const pollInterval = 20 * time.Millisecond

// place is a position of the feed: a row, and the random number that it was
// given, so that the row of the same number in another history is told apart.
// There is always a row: the first is made with the table, and the newest is
// never collected.
type place struct{ id, nonce int64 }

func (p place) String() string { return fmt.Sprintf("%d-%016x", p.id, uint64(p.nonce)) }

func parsePlace(position string) (p place, ok bool) {
	var nonce uint64
	if _, err := fmt.Sscanf(position, "%d-%x", &p.id, &nonce); err != nil {
		return place{}, false
	}
	p.nonce = int64(nonce)
	return p, p.String() == position
}

func nonce() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.NativeEndian.Uint64(b[:]))
}

// Changes implements [auth.Feed]. What this Store announces it returns at once,
// what others do within 20 ms.
func (s *Store) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", false, err
	}
	defer s.calls.RUnlock()
	var from place
	if after != "" {
		var ok bool
		if from, ok = parsePlace(after); !ok {
			return nil, "", false, auth.ErrFeedReset
		}
	}
	end := time.Now().Add(wait)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		rs, next, err := s.announced(ctx, from)
		if err != nil {
			return nil, "", false, err
		}
		left := time.Until(end)
		if len(rs) > 0 || left <= 0 {
			return rs, next.String(), false, nil
		}
		from = next
		timer := time.NewTimer(min(left, s.poll))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.closing:
			err = errClosed
		}
		timer.Stop()
		if err != nil {
			return nil, "", false, err
		}
	}
}

// announced returns what was announced after from, and where that ends. The
// zero place is before everything.
func (s *Store) announced(ctx context.Context, from place) (rs []auth.Revocation, next place, err error) {
	err = s.read(ctx, func(f *file) error {
		rs, next = nil, place{}
		rows, err := f.feed.QueryContext(ctx, from.id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r auth.Revocation
			var sessions, except []byte
			var cut sql.NullInt64
			var until int64
			last := next
			if err := rows.Scan(&next.id, &next.nonce, &r.Subject, &sessions, &r.All, &except, &cut, &until); err != nil {
				return err
			}
			if last == (place{}) && from != (place{}) {
				if next != from {
					return auth.ErrFeedReset
				}
				continue
			}
			if r.Subject == "" {
				continue // the first row announces nothing
			}
			if json.Unmarshal(sessions, &r.Sessions) != nil || json.Unmarshal(except, &r.Except) != nil {
				return errors.New("a revocation cannot be read")
			}
			r.Until = fromMillis(until)
			if cut.Valid {
				r.Cut = fromMillis(cut.Int64)
			}
			rs = append(rs, r)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if next == (place{}) {
			if from != (place{}) {
				return auth.ErrFeedReset
			}
			return errors.New("the feed has lost its first row")
		}
		return nil
	})
	return rs, next, err
}
