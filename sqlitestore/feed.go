package sqlitestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ratchet-go/auth"
)

// position is a position in the feed: the ID and the nonce of the last row that
// was returned. The nonce is random, so that a row with the same ID in a
// replaced file is not mistaken for it. There is always a row: the first is
// inserted with the table, and the newest is never deleted.
type position struct{ id, nonce int64 }

func (p position) String() string { return fmt.Sprintf("%d-%016x", p.id, uint64(p.nonce)) }

func parsePosition(text string) (p position, ok bool) {
	var nonce uint64
	if _, err := fmt.Sscanf(text, "%d-%x", &p.id, &nonce); err != nil {
		return position{}, false
	}
	p.nonce = int64(nonce)
	return p, p.String() == text
}

func nonce() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.NativeEndian.Uint64(b[:]))
}

// Changes implements [auth.Feed]. It returns revocations of this Store at once,
// and those of others within [Config].Poll.
func (s *Store) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	if err := s.enter(ctx, "reading the feed"); err != nil {
		return nil, "", false, err
	}
	defer s.calls.RUnlock()
	var from position
	if after != "" {
		var ok bool
		if from, ok = parsePosition(after); !ok {
			return nil, "", false, wrap("reading the feed", fmt.Errorf("malformed position: %w", auth.ErrFeedReset))
		}
	}
	end := time.Now().Add(wait)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		rs, next, more, err := s.readFeed(ctx, from)
		if err != nil {
			return nil, "", false, wrap("reading the feed", err)
		}
		left := time.Until(end)
		if len(rs) > 0 || more || left <= 0 {
			return rs, next.String(), more, nil
		}
		from = next
		timer := time.NewTimer(min(left, s.poll))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.closing:
			err = os.ErrClosed
		}
		timer.Stop()
		if err != nil {
			return nil, "", false, wrap("reading the feed", err)
		}
	}
}

// pageSize is the maximum number of rows that Changes reads.
const pageSize = 1024

// readFeed returns a page of the revocations after from, the position after
// them, and whether there are more. The zero position is before every row.
func (s *Store) readFeed(ctx context.Context, from position) (rs []auth.Revocation, next position, more bool, err error) {
	err = s.read(ctx, func(f *file) error {
		rs, next, more = nil, position{}, false
		rows, err := f.feed.QueryContext(ctx, from.id, pageSize+2) // with the row at from, and one to learn whether there are more
		if err != nil {
			return err
		}
		defer rows.Close()
		for n := 0; rows.Next(); n++ {
			if n > pageSize {
				more = true
				break
			}
			var row revocationRow
			if err := rows.Scan(row.fields()...); err != nil {
				return err
			}
			if n == 0 && from != (position{}) && row.position != from {
				return auth.ErrFeedReset
			}
			next = row.position
			if next != from && next.id != firstRow {
				rs = append(rs, row.revocation())
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if next == (position{}) {
			if from != (position{}) {
				return auth.ErrFeedReset
			}
			return errors.New("the table revocations is empty; it must have at least one row")
		}
		return nil
	})
	return rs, next, more, err
}

// firstRow is the ID of the row that is inserted with the table. It is not a
// revocation.
const firstRow = 1

// revocationRow is a row of the table revocations.
type revocationRow struct {
	position
	version, all                            int64
	subject, sessions, except, revocationID string
	before                                  sql.NullInt64
	until, accessTTL                        int64
	reason                                  string
}

// fields returns the destinations for Scan.
func (r *revocationRow) fields() []any {
	return []any{&r.id, &r.nonce, &r.version, &r.subject, &r.sessions, &r.all, &r.except, &r.before, &r.until, &r.revocationID, &r.accessTTL, &r.reason}
}

// revocation returns the revocation in the row. If this version cannot read the
// row, it returns a revocation with only the subject and an ID derived from
// that of the row.
func (r *revocationRow) revocation() auth.Revocation {
	unreadable := auth.Revocation{Subject: r.subject, ID: "row." + r.String()}
	rev := auth.Revocation{
		Subject: r.subject, All: r.all != 0, Until: fromMillis(r.until),
		ID: r.revocationID, AccessTTL: time.Duration(r.accessTTL) * time.Millisecond, Reason: r.reason,
	}
	if r.before.Valid {
		rev.Before = fromMillis(r.before.Int64)
	}
	if r.version != 1 || r.all&^1 != 0 ||
		json.Unmarshal([]byte(r.sessions), &rev.Sessions) != nil || json.Unmarshal([]byte(r.except), &rev.Except) != nil ||
		rev.AccessTTL.Milliseconds() != r.accessTTL { // the multiplication may have overflowed
		return unreadable
	}
	if rev.Check() != nil {
		rev.Reason = "" // it has no effect, so a reason that is not valid must not hide the revocation
	}
	if rev.Check() != nil {
		return unreadable
	}
	return rev
}
