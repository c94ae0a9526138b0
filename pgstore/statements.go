package pgstore

import "strings"

// statements are the texts of what a Store says to the database. Parameters are
// cast, so that they mean the same in every query mode of the driver.
type statements struct {
	create, get, rotate, list, revoke string
	feedAll, feedAfter                string
	listen, unlisten                  string
}

// collectAfter is how long after its end something is kept: callers' clocks
// may be behind the database's.
const collectAfter = "interval '1 minute'"

func newStatements(schema string) statements {
	in := func(sql string) string {
		return strings.NewReplacer(
			"{schema}", `"`+schema+`"`,
			"{channel}", schema+".revocations",
			"{columns}", columns,
			"{late}", "now() - "+collectAfter,
		).Replace(sql)
	}
	return statements{
		create:    in(createSQL),
		get:       in(`SELECT {columns} FROM {schema}.sessions WHERE subject = $1::text AND id = $2::text`),
		rotate:    in(rotateSQL),
		list:      in(`SELECT {columns} FROM {schema}.sessions WHERE subject = $1::text ORDER BY rotated_at DESC, id`),
		revoke:    in(revokeSQL),
		feedAll:   in(feedSQL + `r.until >= {late}`),
		feedAfter: in(feedSQL + afterSQL),
		listen:    in(`LISTEN "{channel}"`),
		unlisten:  in(`UNLISTEN "{channel}"`),
	}
}

// columns are those of a record, in the order in which scan reads them.
const columns = "subject, id, generation, created_at, rotated_at, expires_at, user_agent, coalesce(host(ip), ''), data"

// createSQL adds a record, and deletes what has expired in one page of the
// table, picked at random. An index on expires_at would find it as well, but
// then every rotation had to write to all indexes of the table (it could not be
// a heap-only update), and there are some hundred rotations for one Create. A
// page holds some 25 records, so a Create finds one to delete as soon as one
// record in 25 has expired: that is how many there are in the long run.
//
// A page has room for at most 291 rows of any size. Rows that somebody else
// works on are left for the next time.
const createSQL = `
WITH page AS MATERIALIZED (
	SELECT floor(random() * greatest(1, pg_relation_size('{schema}.sessions') / current_setting('block_size')::bigint))::bigint AS number
), dead AS MATERIALIZED (
	SELECT ctid FROM {schema}.sessions
	WHERE ctid = ANY (ARRAY(SELECT format('(%s,%s)', number, line)::tid FROM page, generate_series(1, 291) AS line))
		AND expires_at < {late}
	FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.sessions WHERE ctid = ANY (ARRAY(SELECT ctid FROM dead)) AND expires_at < {late}
)
INSERT INTO {schema}.sessions (subject, id, generation, created_at, rotated_at, expires_at, user_agent, ip, data)
VALUES ($1::text, $2::text, $3::bigint, $4::timestamptz, $5::timestamptz, $6::timestamptz, $7::text, nullif($8::text, '')::inet, $9::bytea)
ON CONFLICT (subject, id) DO NOTHING`

// rotateSQL moves a session on. It waits for whoever is moving the record, and
// decides by what that one left behind. That this statement's own snapshot does
// not show, so if nothing moved, another statement reads how the record stands:
// one such as WITH … UPDATE … UNION ALL SELECT would show a loser the record as
// it was before the winner. Where nothing moves, nothing is written or locked,
// but for the loser of a race: it takes a transaction number and locks the
// record until the statement ends.
const rotateSQL = `
UPDATE {schema}.sessions SET
	generation = CASE WHEN generation < $3::bigint THEN $3::bigint ELSE $3::bigint + 1 END,
	rotated_at = $5::timestamptz,
	expires_at = $6::timestamptz,
	user_agent = $7::text,
	ip = nullif($8::text, '')::inet
WHERE subject = $1::text AND id = $2::text
	AND (generation < $3::bigint OR generation = $3::bigint AND rotated_at <= $4::timestamptz)
RETURNING {columns}`

// revokeSQL deletes sessions, writes to the feed and wakes its readers, all in
// one transaction. A revocation is never without the row in history that tells
// the readers' positions apart from those before a crash.
const revokeSQL = `
WITH named AS (
	DELETE FROM {schema}.sessions WHERE subject = $1::text AND id = ANY ($2::text[])
), others AS (
	DELETE FROM {schema}.sessions
	WHERE $3::boolean AND subject = $1::text AND created_at < $5::timestamptz AND id <> ALL ($4::text[]) AND id <> ALL ($2::text[])
), over AS MATERIALIZED (
	SELECT id FROM {schema}.revocations WHERE until < {late} ORDER BY until LIMIT 8 FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.revocations WHERE id = ANY (ARRAY(SELECT id FROM over))
), history AS (
	INSERT INTO {schema}.history SELECT WHERE NOT EXISTS (SELECT FROM {schema}.history) ON CONFLICT DO NOTHING
), announced AS (
	INSERT INTO {schema}.revocations (subject, sessions, everything, except_ids, cut, until)
	VALUES ($1::text, $2::text[], $3::boolean, $4::text[], $5::timestamptz, $6::timestamptz)
)
SELECT pg_notify('{channel}', '')`

// feedSQL reads the feed, and in every row, also when there is no revocation,
// the position that is reached. A history has a name of four parts. A start of
// the server changes the first; a copy of the database made by CREATE DATABASE
// the second; a restored dump, in which the table history is made anew but its
// row is the old one, the third; a crash and a failover the last, as they empty
// that table.
const feedSQL = `
SELECT m.*, r.subject, r.sessions, r.everything, r.except_ids, r.cut, r.until
FROM (
	SELECT concat_ws('-', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
			(SELECT oid FROM pg_database WHERE datname = current_database()),
			'{schema}.history'::regclass::oid,
			(SELECT id FROM {schema}.history)),
		pg_current_snapshot()::text
) AS m LEFT JOIN {schema}.revocations AS r ON `

// afterSQL are the revocations that the snapshot at the position did not show.
// Those before its xmin it did, and an index finds the others. One whose
// transaction is yet to come is a row that was restored from elsewhere: it
// would be new for ever.
const afterSQL = `r.xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(r.xid, $1::text::pg_snapshot)
	AND r.xid < pg_snapshot_xmax(pg_current_snapshot())`
