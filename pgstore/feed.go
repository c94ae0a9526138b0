package pgstore

import (
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

// Changes implements [auth.Feed]. A position is the history of the server and
// the snapshot in which the feed was read; what that snapshot did not show is
// new, whatever the order in which it was written.
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
			rs, next, err = s.follow(ctx, s.pool, from, end, s.sleep)
			return s.explain(ctx, err)
		}
		return s.explain(ctx, s.listen(ctx, func(conn *pgxpool.Conn) error {
			rs, next, err = s.follow(ctx, conn, from, end, func(ctx context.Context, d time.Duration) error {
				return notified(ctx, conn.Conn(), min(d, look))
			})
			return err
		}))
	})
	if err != nil {
		return nil, "", false, err
	}
	return rs, next, false, nil
}

// querier is a pool or a connection.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// follow reads until there is something, or end has come. Between two looks it
// pauses, for at most the time that is left.
func (s *Store) follow(ctx context.Context, q querier, from position, end time.Time, pause func(context.Context, time.Duration) error) ([]auth.Revocation, string, error) {
	for {
		rs, at, err := s.read(ctx, q, from)
		if err != nil {
			return nil, "", err
		}
		left := time.Until(end)
		if len(rs) > 0 || left <= 0 {
			return rs, at.String(), nil
		}
		if err := pause(ctx, left); err != nil {
			return nil, "", err
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
	conn, err := s.pool.Acquire(ctx)
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

// read reads the feed once, after a position or whole.
func (s *Store) read(ctx context.Context, q querier, from position) ([]auth.Revocation, position, error) {
	sql, args := s.sql.feedAll, []any(nil)
	if from != (position{}) {
		sql, args = s.sql.feedAfter, []any{from.snapshot}
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, position{}, err
	}
	defer rows.Close()
	var rs []auth.Revocation
	var at position
	for rows.Next() {
		var subject *string
		var all *bool
		var cut, until *time.Time
		var r auth.Revocation
		if err := rows.Scan(&at.history, &at.snapshot, &subject, &r.Sessions, &all, &r.Except, &cut, &until); err != nil {
			return nil, position{}, err
		}
		if subject == nil { // there is no revocation
			continue
		}
		r.Subject, r.All, r.Until = *subject, *all, until.UTC()
		if cut != nil {
			r.Cut = cut.UTC()
		}
		rs = append(rs, r)
	}
	if err := rows.Err(); err != nil {
		return nil, position{}, err
	}
	if from != (position{}) && !at.follows(from) {
		return nil, position{}, auth.ErrFeedReset
	}
	return rs, at, nil
}

// explain says so if err is a standby's: it refuses to LISTEN and to read the
// table history, in words that do not name the cause.
func (s *Store) explain(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "0A000" && pg.Code != "25006" { // feature_not_supported, read_only_sql_transaction
		return err
	}
	var standby bool
	if s.pool.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby) == nil && standby {
		return fmt.Errorf("this server is a standby; the pool must lead to the primary: %w", err)
	}
	return err
}

// position is a place in the feed.
type position struct {
	history  string // changes with every start of the server, a crash included, and every restore
	snapshot string // pg_snapshot: xmin:xmax:xip,…
}

func (p position) String() string { return p.history + "/" + p.snapshot }

// follows reports whether p is of the same history as from, and not earlier.
func (p position) follows(from position) bool {
	now, _ := parseSnapshot(p.snapshot)
	then, _ := parseSnapshot(from.snapshot)
	return p.history == from.history && then <= now
}

// parsePosition reads a position; the empty one is the zero position.
func parsePosition(text string) (position, error) {
	if text == "" {
		return position{}, nil
	}
	history, snapshot, _ := strings.Cut(text, "/")
	if _, ok := parseSnapshot(snapshot); !ok {
		return position{}, fmt.Errorf("pgstore: %w: it is malformed", auth.ErrFeedReset)
	}
	return position{history, snapshot}, nil
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
