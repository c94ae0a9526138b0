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

// look is how often a reader that listens looks all the same: something on the
// way may swallow notifications.
const look = time.Second

// page is how many revocations one call of Changes returns at most.
const page = 1000

// Changes implements [auth.Feed]. A position is the history of the server and
// the snapshot in which the feed was read; what that snapshot did not show is
// new, whatever the order in which it was written. It returns at most 1,000
// revocations, or 2,000 with the last page. All pages are of one snapshot, which
// the position between two pages names: what commits meanwhile comes after the
// last of them.
//
// While it waits it occupies a connection of the pool, on which it listens;
// with Config.Poll it occupies none. An error ends that connection.
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
				return notified(ctx, conn.Conn(), min(d, look))
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

// follow reads until there is something, or end has come. Between two looks it
// pauses, for at most the time that is left. A conn of nil means another one for
// each look.
func (s *Store) follow(ctx context.Context, conn *pgxpool.Conn, from position, end time.Time, pause func(context.Context, time.Duration) error) ([]auth.Revocation, string, bool, error) {
	for {
		var rs []auth.Revocation
		var at position
		var more bool
		look := func(conn *pgxpool.Conn) (err error) {
			rs, at, more, err = s.read(ctx, conn, from)
			if err == nil && from.pages != "" && !more {
				// After the last of several pages, what was announced meanwhile.
				var others []auth.Revocation
				others, at, more, err = s.read(ctx, conn, at)
				rs = append(rs, others...)
			}
			return err
		}
		var err error
		if conn != nil {
			err = look(conn)
		} else {
			err = s.with(ctx, look)
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

// sleep pauses without a connection.
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

// listen calls f with a connection that listens. It listens before f reads, so
// that nothing falls in between. The pool gets it back as it was, or closed.
func (s *Store) listen(ctx context.Context, f func(*pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	listens := true
	defer func() {
		if listens {
			ended, cancel := context.WithCancel(context.WithoutCancel(ctx))
			cancel() // so that closing waits for nothing
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
	listens = err != nil // what was read is good all the same
	return nil
}

// notified waits for a notification, at most d.
func notified(ctx context.Context, conn *pgx.Conn, d time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := conn.WaitForNotification(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed() {
		return nil
	}
	return err
}

// read reads a page of the feed, after a position or from the beginning, and
// reports whether there is more.
func (s *Store) read(ctx context.Context, q querier, from position) ([]auth.Revocation, position, bool, error) {
	sql, args := s.sql.feedAll, []any{orNull(from.pages), cmp.Or(from.xid, "0"), from.id, int64(page + 1)}
	if from.snapshot != "" {
		// A snapshot shows everything before its xmin.
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
	var now, last position // of the statement, and of the last row of this page
	more := false
	for rows.Next() {
		var f feedRow
		if err := rows.Scan(&now.history, &now.snapshot, &f.xid, &f.id, &f.version, &f.subject, &f.sessions, &f.all, &f.except,
			&f.cut, &f.until, &f.announcement, &f.accessTTL); err != nil {
			return nil, position{}, false, err
		}
		if f.id == nil { // there is no revocation
			continue
		}
		if more = len(rs) == page; !more {
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

// feedRow is a row of the feed as it is read, with nil for no row.
type feedRow struct {
	xid, subject, announcement *string
	id, version                *int64
	sessions, except           []*string
	all                        *bool
	cut, until, accessTTL      *int64
}

// maxAccessTTL is the longest lifetime that a notice announces, in milliseconds.
const maxAccessTTL = 24 * 60 * 60 * 1000

// ids returns the IDs in an array, and whether it holds nothing else.
func ids(array []*string) ([]string, bool) {
	list := make([]string, 0, len(array))
	for _, id := range array {
		if id == nil || *id == "" {
			return nil, false
		}
		list = append(list, *id)
	}
	return list, true
}

// revocation returns what the row announces. Of a row that this version cannot
// read that is the subject, if there is one, and a name of the row as its ID.
func (f *feedRow) revocation() auth.Revocation {
	sessions, ok1 := ids(f.sessions)
	except, ok2 := ids(f.except)
	if *f.version != 1 || *f.accessTTL < 0 || *f.accessTTL > maxAccessTTL || (*f.subject != "") == (*f.accessTTL > 0) || !ok1 || !ok2 {
		return auth.Revocation{Subject: *f.subject, ID: fmt.Sprint("row.", *f.id)}
	}
	r := auth.Revocation{
		Subject: *f.subject, Sessions: sessions, All: *f.all, Except: except, Until: fromMillis(*f.until),
		ID: *f.announcement, AccessTTL: time.Duration(*f.accessTTL) * time.Millisecond,
	}
	if f.cut != nil {
		r.Before = fromMillis(*f.cut)
	}
	return r
}

// explain says so if err is a standby's: it refuses to LISTEN and to read the
// table history, in words that do not name the cause.
func (s *Store) explain(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "0A000" && pg.Code != "25006" { // feature_not_supported, read_only_sql_transaction
		return err
	}
	var standby bool
	if s.pool.QueryRow(ctx, `SELECT pg_catalog.pg_is_in_recovery()`).Scan(&standby) == nil && standby {
		return fmt.Errorf("this server is a standby; the pool must lead to the primary: %w", err)
	}
	return err
}

// position is a place in the feed: a snapshot, which shows what was returned. In
// the middle of several pages it is the snapshot before the first of them, empty
// for the beginning, that in which they are read, and the transaction and number
// of the last row.
type position struct {
	history  string // changes with every start of the server, a crash included, and every restore
	snapshot string // pg_snapshot: xmin:xmax:xip,…
	pages    string // a pg_snapshot too
	xid      string
	id       int64
}

func (p position) String() string {
	if p.pages == "" {
		return p.history + "/" + p.snapshot
	}
	return fmt.Sprintf("%s/%s/%s/%s/%d", p.history, p.snapshot, p.pages, p.xid, p.id)
}

// follows reports whether p, where the server is now, is of the same history as
// from, and not earlier.
func (p position) follows(from position) bool {
	now, _ := parseSnapshot(p.snapshot)
	then, _ := parseSnapshot(cmp.Or(from.pages, from.snapshot))
	return p.history == from.history && then <= now
}

// parsePosition reads a position; the empty one is the zero position.
func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	malformed := fmt.Errorf("pgstore: %w: it is malformed", auth.ErrFeedReset)
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

// parseSnapshot reads where a snapshot ends, and refuses what the server would
// refuse.
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
