package pgstore

import (
	"regexp"
	"strings"
)

// statements are the texts of what a Store says to the database. They mean the
// same whatever the connection's settings are, and in every query mode of the
// driver:
//
//   - Every table, function, type and operator is named with its schema, since
//     a schema before pg_catalog in search_path may hold others of the same
//     name. In the texts below {=} is the operator = of pg_catalog.
//   - Parameters are cast, so that nothing is guessed from their values.
//   - Times go there as ISO 8601 in UTC, which every DateStyle reads alike, and
//     come back in milliseconds; data is hexadecimal in both directions.
type statements struct {
	create, get, rotate, list, revoke string
	feedAll, feedAfter                string
	listen, unlisten                  string
}

// operators are what {…} in a statement may hold beside names.
var operators = regexp.MustCompile(`\{([-+*/<=>|]+)\}`)

// qualified returns sql with its operators named by their schema, and with the
// schema of the store.
func qualified(schema, sql string) string {
	sql = operators.ReplaceAllString(sql, "OPERATOR(pg_catalog.$1)")
	return strings.NewReplacer(
		"{schema}", `"`+schema+`"`,
		"{channel}", schema+".revocations",
		"{columns}", columns,
		"{row}", row,
		// How long ago something must have ended to be collected: callers'
		// clocks may be behind the database's.
		"{late}", "(pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 minute')",
	).Replace(sql)
}

func newStatements(schema string) statements {
	in := func(sql string) string {
		// Twice: what is inserted has operators too.
		return qualified(schema, qualified(schema, sql))
	}
	return statements{
		create:    in(createSQL),
		get:       in(`SELECT {columns} FROM {schema}.sessions WHERE {row}`),
		rotate:    in(rotateSQL),
		list:      in(`SELECT {columns} FROM {schema}.sessions WHERE subject {=} $1::pg_catalog.text ORDER BY rotated_at DESC, id`),
		revoke:    in(revokeSQL),
		feedAll:   in(feedSQL(allSQL)),
		feedAfter: in(feedSQL(afterSQL)),
		listen:    in(`LISTEN "{channel}"`),
		unlisten:  in(`UNLISTEN "{channel}"`),
	}
}

// row is the condition that finds a session.
const row = "subject {=} $1::pg_catalog.text AND id {=} $2::pg_catalog.text"

// columns are those of a record, in the order in which scan reads them.
var columns = "subject, id, generation, " + millis("created_at") + ", " + millis("rotated_at") + ", " + millis("expires_at") + ", " +
	"user_agent, coalesce(pg_catalog.host(ip), ''), pg_catalog.encode(data, 'hex')"

// millis returns the time in a column as Unix milliseconds. What lies outside
// the years 1 to 6000, such as infinity, is none of this package's, and becomes
// the nearest time that can be read.
func millis(column string) string {
	return "(extract(epoch FROM greatest(least(" + column + ", timestamp with time zone '6000-12-31 23:59:59.999+00'), timestamp with time zone '0001-01-01 00:00:00+00')) {*} 1000)::bigint"
}

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
	SELECT pg_catalog.floor(pg_catalog.random() {*} greatest(1, pg_catalog.pg_relation_size('{schema}.sessions'::pg_catalog.regclass)
		{/} pg_catalog.current_setting('block_size')::bigint))::bigint AS number
), dead AS MATERIALIZED (
	SELECT ctid FROM {schema}.sessions
	WHERE ctid {=} ANY (ARRAY(SELECT pg_catalog.format('(%s,%s)', number, line)::pg_catalog.tid FROM page, pg_catalog.generate_series(1, 291) AS line))
		AND expires_at {<} {late}
	FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.sessions WHERE ctid {=} ANY (ARRAY(SELECT ctid FROM dead)) AND expires_at {<} {late}
)
INSERT INTO {schema}.sessions (subject, id, generation, created_at, rotated_at, expires_at, user_agent, ip, data)
VALUES ($1::pg_catalog.text, $2::pg_catalog.text, $3::bigint, $4::pg_catalog.text::timestamp with time zone, $5::pg_catalog.text::timestamp with time zone,
	$6::pg_catalog.text::timestamp with time zone, $7::pg_catalog.text, $8::pg_catalog.text::pg_catalog.inet, pg_catalog.decode($9::pg_catalog.text, 'hex'))
ON CONFLICT (subject, id) DO NOTHING`

// rotateSQL moves a session on. It waits for whoever is moving the record, and
// decides by what that one left behind. That this statement's own snapshot does
// not show, so if nothing moved, another statement reads how the record stands:
// one such as WITH … UPDATE … UNION ALL SELECT would show a loser the record as
// it was before the winner. Where nothing moves, nothing is written or locked,
// but for the loser of a race: it takes a transaction number and locks the
// record until the statement ends.
//
// Columns that it does not name, those of a newer version, stay as they are.
const rotateSQL = `
UPDATE {schema}.sessions SET
	generation = CASE WHEN generation {<} $3::bigint THEN $3::bigint ELSE $3::bigint {+} 1 END,
	rotated_at = $5::pg_catalog.text::timestamp with time zone,
	expires_at = $6::pg_catalog.text::timestamp with time zone,
	user_agent = $7::pg_catalog.text,
	ip = $8::pg_catalog.text::pg_catalog.inet
WHERE {row} AND (generation {<} $3::bigint OR generation {=} $3::bigint AND rotated_at {<=} $4::pg_catalog.text::timestamp with time zone)
RETURNING {columns}`

// revokeSQL deletes sessions, writes to the feed and wakes its readers, all in
// one transaction. A revocation is never without the row in history that tells
// the readers' positions apart from those before a crash. Those whose time is
// over leave by the hundred, wherever they are: an index finds them.
const revokeSQL = `
WITH named AS (
	DELETE FROM {schema}.sessions WHERE subject {=} $1::pg_catalog.text AND id {=} ANY ($2::pg_catalog.text[])
), others AS (
	DELETE FROM {schema}.sessions
	WHERE $3::boolean AND subject {=} $1::pg_catalog.text AND created_at {<} $5::pg_catalog.text::timestamp with time zone
		AND id {<>} ALL ($4::pg_catalog.text[]) AND id {<>} ALL ($2::pg_catalog.text[])
), over AS MATERIALIZED (
	SELECT id FROM {schema}.revocations WHERE until {<} {late} ORDER BY until LIMIT 256 FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.revocations WHERE id {=} ANY (ARRAY(SELECT id FROM over))
), history AS (
	INSERT INTO {schema}.history SELECT WHERE NOT EXISTS (SELECT FROM {schema}.history) ON CONFLICT DO NOTHING
), announced AS (
	INSERT INTO {schema}.revocations (subject, sessions, all_sessions, except_ids, not_before, until, announcement, access_ttl)
	VALUES ($1::pg_catalog.text, $2::pg_catalog.text[], $3::boolean, $4::pg_catalog.text[], $5::pg_catalog.text::timestamp with time zone,
		$6::pg_catalog.text::timestamp with time zone, $7::pg_catalog.text, $8::bigint)
)
SELECT pg_catalog.pg_notify('{channel}', '')`

// feedSQL reads a page of the feed, and in every row, also when there is no
// revocation, the name of the history and the snapshot of the statement. A
// history has a name of four parts. A start of the server changes the first; a
// copy of the database made by CREATE DATABASE the second; a restored dump, in
// which the table history is made anew but its row is the old one, the third; a
// crash and a failover the last, as they empty that table.
//
// $1 is the snapshot in which the pages are read, NULL for the first; $2 and $3
// are the transaction and the number of the last row of the page before; $4 is
// how many rows are wanted.
func feedSQL(condition string) string {
	return `
SELECT m.*, r.xid::pg_catalog.text, r.id, r.version, r.subject, r.sessions, r.all_sessions, r.except_ids,
	CASE WHEN r.not_before IS NOT NULL THEN ` + millis("r.not_before") + ` END, ` + millis("r.until") + `, r.announcement, r.access_ttl
FROM (
	SELECT pg_catalog.concat_ws('-', (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) {*} 1000000)::bigint,
			(SELECT oid FROM pg_catalog.pg_database WHERE datname {=} pg_catalog.current_database()),
			'{schema}.history'::pg_catalog.regclass::pg_catalog.oid,
			(SELECT id FROM {schema}.history)),
		pg_catalog.pg_current_snapshot()::pg_catalog.text
) AS m LEFT JOIN LATERAL (
	SELECT * FROM {schema}.revocations
	WHERE ROW(xid, id) {>} ROW($2::pg_catalog.text::pg_catalog.xid8, $3::bigint) AND ` + condition + `
	ORDER BY xid, id LIMIT $4::bigint
) AS r ON true
ORDER BY r.xid, r.id`
}

// visibleSQL is what the snapshot of the pages shows. What commits later, in
// whatever place, comes after the last page.
const visibleSQL = `pg_catalog.pg_visible_in_snapshot(xid, coalesce($1::pg_catalog.text::pg_catalog.pg_snapshot, pg_catalog.pg_current_snapshot()))`

// allSQL are the revocations that are not over. A transaction that is yet to
// come is that of a row which was restored from elsewhere.
const allSQL = `until {>=} {late} AND (` + visibleSQL + ` OR xid {>=} pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()))`

// afterSQL are the revocations that the snapshot at the position, $5, did not
// show. Those before its xmin it did: the first page begins there, which is $2,
// and an index finds the place. Another condition on xid would let it scan from
// the beginning. A row that was restored from elsewhere would be new for ever.
const afterSQL = `NOT pg_catalog.pg_visible_in_snapshot(xid, $5::pg_catalog.text::pg_catalog.pg_snapshot)
	AND xid {<} pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AND ` + visibleSQL
