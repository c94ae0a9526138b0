package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ratchet-go/auth"
)

// listenPoll is how often a Changes that listens also checks the feed, since a
// proxy may drop notifications.
const listenPoll = time.Second

// pageSize is the maximum number of revocations on a page.
const pageSize = 1000

// Changes implements [auth.Feed]. It returns at most 1,000 revocations, or
// 2,000 with the last page of a long feed. All pages are read in one snapshot;
// revocations that commit meanwhile are returned after the last page.
//
// While it waits, Changes listens on a connection of the pool, which is closed
// after an error. With Config.Poll it occupies no connection while it waits.
func (s *Store) Changes(ctx context.Context, after string, wait time.Duration) (rs []auth.Revocation, next string, more bool, err error) {
	from, err := parsePosition(after)
	if err != nil {
		return nil, "", false, err
	}
	end := time.Now().Add(wait)
	err = s.do(ctx, "reading the feed", false, func(ctx context.Context) error {
		if wait <= 0 || s.poll > 0 {
			rs, next, more, err = s.follow(ctx, nil, from, end, s.sleep)
			return s.explain(ctx, err)
		}
		return s.explain(ctx, s.listen(ctx, func(conn *pgxpool.Conn) error {
			rs, next, more, err = s.follow(ctx, conn, from, end, func(ctx context.Context, d time.Duration) error {
				return notified(ctx, conn.Conn(), min(d, listenPoll))
			})
			return err
		}))
	})
	if err != nil {
		return nil, "", false, err
	}
	return rs, next, more, nil
}

// querier is a connection, or a transaction on it.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// follow reads the feed until there is a revocation, or until end. Between two
// reads it calls pause with the time that is left. If conn is nil, it takes a
// connection from the pool for each read.
func (s *Store) follow(
	ctx context.Context, conn *pgxpool.Conn, from position, end time.Time, pause func(context.Context, time.Duration) error,
) ([]auth.Revocation, string, bool, error) {
	for {
		var rs []auth.Revocation
		var at position
		var more bool
		read := func(conn *pgxpool.Conn) (err error) {
			rs, at, more, err = s.read(ctx, conn, from)
			if err == nil && from.pages != "" && !more {
				// After the last page, add revocations that have committed since.
				var newer []auth.Revocation
				newer, at, more, err = s.read(ctx, conn, at)
				rs = append(rs, newer...)
			}
			return err
		}
		var err error
		if conn != nil {
			err = read(conn)
		} else {
			err = s.with(ctx, read)
		}
		if err != nil {
			return nil, "", false, err
		}
		left := time.Until(end)
		if len(rs) > 0 || more || left <= 0 {
			return rs, at.String(), more, nil
		}
		if err := pause(ctx, left); err != nil {
			return nil, "", false, err
		}
	}
}

// sleep waits for d, at most for Config.Poll, without a connection.
func (s *Store) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d, s.poll))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// listen calls f with a connection that already listens, so that f misses no
// notification after it has read. The connection stops listening before it
// returns to the pool; if that fails, it is closed.
func (s *Store) listen(ctx context.Context, f func(*pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	listens := true
	defer func() {
		if listens {
			ended, cancel := context.WithCancel(context.WithoutCancel(ctx))
			cancel() // so that Close does not wait
			_ = conn.Conn().Close(ended)
		}
		conn.Release()
	}()
	if _, err := conn.Exec(ctx, s.sql.listen); err != nil {
		return err
	}
	if err := f(conn); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, s.sql.unlisten)
	listens = err != nil // the result of f is valid anyway
	return nil
}

// notified waits for a notification, at most for d.
func notified(ctx context.Context, conn *pgx.Conn, d time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := conn.WaitForNotification(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed() {
		return nil
	}
	return err
}

// read reads the page of the feed that begins at the position from. It returns
// the revocations, the position after them, and whether there are more.
func (s *Store) read(ctx context.Context, q querier, from position) ([]auth.Revocation, position, bool, error) {
	sql, args := s.sql.feedAll, []any{orNull(from.pages), cmp.Or(from.xid, "0"), from.id, int64(pageSize + 1)}
	if from.snapshot != "" {
		// The snapshot shows every row before its xmin.
		xmin, _, _ := strings.Cut(from.snapshot, ":")
		args[1] = cmp.Or(from.xid, xmin)
		sql, args = s.sql.feedAfter, append(args, from.snapshot)
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, position{}, false, err
	}
	defer rows.Close()
	var rs []auth.Revocation
	var now, last position // now is that of the statement, last that of the last row
	more := false
	for rows.Next() {
		var f feedRow
		if err := rows.Scan(&now.history, &now.snapshot, &f.xid, &f.id, &f.version, &f.subject, &f.sessions, &f.all, &f.except,
			&f.before, &f.until, &f.revocationID, &f.accessTTL, &f.reason); err != nil {
			return nil, position{}, false, err
		}
		if f.id == nil { // the row has no revocation
			continue
		}
		if more = len(rs) == pageSize; !more {
			rs = append(rs, f.revocation())
			last = position{xid: *f.xid, id: *f.id}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, position{}, false, err
	}
	if from != (position{}) && !now.follows(from) {
		return nil, position{}, false, auth.ErrFeedReset
	}
	pages := cmp.Or(from.pages, now.snapshot)
	if more {
		return rs, position{now.history, from.snapshot, pages, last.xid, last.id}, true, nil
	}
	return rs, position{history: now.history, snapshot: pages}, false, nil
}

// feedRow is a row of feedSQL. Fields are nil if there is no revocation.
type feedRow struct {
	xid, subject, revocationID *string
	reason                     *string
	id, version                *int64
	sessions, except           []*string
	all                        *bool
	before, until, accessTTL   *int64
}

// ids returns the IDs in an array. NULL becomes "", which is no valid ID.
func ids(array []*string) []string {
	list := make([]string, len(array))
	for i, id := range array {
		if id != nil {
			list[i] = *id
		}
	}
	return list
}

// revocation returns the revocation in the row. If this version cannot read the
// row, it returns a revocation with only the subject and an ID derived from
// that of the row.
func (f *feedRow) revocation() auth.Revocation {
	r := auth.Revocation{
		Subject: *f.subject, Sessions: ids(f.sessions), All: *f.all, Except: ids(f.except), Until: fromMillis(*f.until),
		ID: *f.revocationID, AccessTTL: time.Duration(*f.accessTTL) * time.Millisecond, Reason: *f.reason,
	}
	if f.before != nil {
		r.Before = fromMillis(*f.before)
	}
	if r.Check() != nil {
		r.Reason = "" // it has no effect, so a reason that is not valid must not hide the revocation
	}
	if *f.version != 1 || r.AccessTTL.Milliseconds() != *f.accessTTL || r.Check() != nil { // the multiplication may have overflowed
		return auth.Revocation{Subject: *f.subject, ID: fmt.Sprint("row.", *f.id)}
	}
	return r
}

// explain adds that the server is a standby to err, if that is the cause. A
// standby refuses LISTEN and the table history with errors that do not say so.
func (s *Store) explain(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "0A000" && pg.Code != "25006" { // feature_not_supported, read_only_sql_transaction
		return err
	}
	var standby bool
	if s.pool.QueryRow(ctx, `SELECT pg_catalog.pg_is_in_recovery()`).Scan(&standby) == nil && standby {
		return fmt.Errorf("the server is a standby; the pool must connect to the primary: %w", err)
	}
	return err
}

// position is a position in the feed: the history, and a snapshot that shows
// every revocation that was returned. Between two pages it is the snapshot
// before the first page (empty for the beginning), the snapshot in which the
// pages are read, and the transaction and ID of the last row that was returned.
type position struct {
	history  string // changes with every start, crash, failover and restore of the server
	snapshot string // pg_snapshot: xmin:xmax:xip,…
	pages    string // pg_snapshot, or empty
	xid      string
	id       int64
}

func (p position) String() string {
	if p.pages == "" {
		return p.history + "/" + p.snapshot
	}
	return fmt.Sprintf("%s/%s/%s/%s/%d", p.history, p.snapshot, p.pages, p.xid, p.id)
}

// follows reports whether p, the current position of the server, has the same
// history as from and is not before it.
func (p position) follows(from position) bool {
	now, _ := parseSnapshot(p.snapshot)
	then, _ := parseSnapshot(cmp.Or(from.pages, from.snapshot))
	return p.history == from.history && then <= now
}

// parsePosition parses a position. The empty text is the zero position.
func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	malformed := fmt.Errorf("pgstore: reading the feed: malformed position: %w", auth.ErrFeedReset)
	parts := strings.Split(text, "/")
	switch len(parts) {
	case 2:
		if _, ok := parseSnapshot(parts[1]); !ok {
			return position{}, malformed
		}
		return position{history: parts[0], snapshot: parts[1]}, nil
	case 5:
		p := position{history: parts[0], snapshot: parts[1], pages: parts[2], xid: parts[3]}
		_, ok := parseSnapshot(p.pages)
		if _, first := parseSnapshot(p.snapshot); p.snapshot != "" && !first {
			ok = false
		}
		_, err1 := strconv.ParseUint(p.xid, 10, 64)
		id, err2 := strconv.ParseInt(parts[4], 10, 64)
		if p.id = id; ok && err1 == nil && err2 == nil {
			return p, nil
		}
	}
	return position{}, malformed
}

// parseSnapshot returns the xmax of a pg_snapshot. ok is false if the server
// would not accept the text.
func parseSnapshot(text string) (xmax uint64, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, false
	}
	xmin, errMin := strconv.ParseUint(parts[0], 10, 64)
	xmax, errMax := strconv.ParseUint(parts[1], 10, 64)
	if errMin != nil || errMax != nil || xmin == 0 || xmin > xmax {
		return 0, false
	}
	if parts[2] == "" {
		return xmax, true
	}
	last := xmin
	for xip := range strings.SplitSeq(parts[2], ",") {
		x, err := strconv.ParseUint(xip, 10, 64)
		if err != nil || x < last || x >= xmax {
			return 0, false
		}
		last = x
	}
	return xmax, true
}
