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
	"slices"
	"time"

	"github.com/ratchet-go/auth"
)

// place is a position of the feed: a row, and the random number that it was
// given, so that the row of the same number in another history is told apart.
// There is always a row: the first is made with the table, and the newest is
// never collected.
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

// Changes implements [auth.Feed]. What this Store announces it returns at once,
// what others do within 20 ms.
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
		rs, next, more, err := s.announced(ctx, from)
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

// page is how many rows one call of Changes reads at most.
const page = 1024

// announced returns a page of what was announced after from, where that ends,
// and whether there is more. The zero place is before everything.
func (s *Store) announced(ctx context.Context, from position) (rs []auth.Revocation, next position, more bool, err error) {
	err = s.read(ctx, func(f *file) error {
		rs, next, more = nil, position{}, false
		rows, err := f.feed.QueryContext(ctx, from.id, page+2) // with the row at from, and one more
		if err != nil {
			return err
		}
		defer rows.Close()
		for n := 0; rows.Next(); n++ {
			if n > page {
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
			return errors.New("the feed has lost its first row")
		}
		return nil
	})
	return rs, next, more, err
}

// firstRow is the ID of the row that is made with the table and announces
// nothing.
const firstRow = 1

// revocationRow is a row of the feed as it is read.
type revocationRow struct {
	position
	version, all                   int64
	subject, sessions, except, own string
	cut                            sql.NullInt64
	until, accessTTL               int64
}

// fields returns where Scan puts the columns.
func (r *revocationRow) fields() []any {
	return []any{&r.id, &r.nonce, &r.version, &r.subject, &r.sessions, &r.all, &r.except, &r.cut, &r.until, &r.own, &r.accessTTL}
}

// maxAccessTTL is the longest lifetime that a notice announces, in milliseconds.
const maxAccessTTL = 24 * 60 * 60 * 1000

// revocation returns what the row announces. Of a row that this version cannot
// read that is the subject, if there is one, and a name of the row as its ID.
func (r *revocationRow) revocation() auth.Revocation {
	rev := auth.Revocation{
		Subject: r.subject, All: r.all != 0, Until: fromMillis(r.until),
		ID: r.own, AccessTTL: time.Duration(r.accessTTL) * time.Millisecond,
	}
	if r.cut.Valid {
		rev.Before = fromMillis(r.cut.Int64)
	}
	if r.version != 1 || r.all&^1 != 0 || r.accessTTL < 0 || r.accessTTL > maxAccessTTL || (r.subject != "") == (r.accessTTL > 0) ||
		json.Unmarshal([]byte(r.sessions), &rev.Sessions) != nil || json.Unmarshal([]byte(r.except), &rev.Except) != nil ||
		slices.Contains(rev.Sessions, "") || slices.Contains(rev.Except, "") { // of null
		return auth.Revocation{Subject: r.subject, ID: "row." + r.String()}
	}
	return rev
}
