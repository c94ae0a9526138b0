package pgstore

import (
	"regexp"
	"strings"
)

// statements are the SQL statements of a Store. They have the same meaning with
// any settings of the connection, and in every query mode of the driver:
//
//   - Every table, function, type and operator is named with its schema, since
//     a schema before pg_catalog in search_path may have others of the same
//     name. Below, {=} stands for the operator = of pg_catalog.
//   - Parameters are cast, so that their types are not inferred.
//   - Times are sent as ISO 8601 in UTC, which can be read with every DateStyle,
//     and are returned in milliseconds. Data is hexadecimal in both directions.
type statements struct {
	create, get, rotate, list, revoke string
	spend, spentBy                    string
	feedAll, feedAfter                string
	listen, unlisten                  string
}

// operators matches {…} around an operator.
var operators = regexp.MustCompile(`\{([-+*/<=>|]+)\}`)

// qualified replaces the placeholders in sql: operators, the schema of the
// Store and the names below.
func qualified(schema, sql string) string {
	sql = operators.ReplaceAllString(sql, "OPERATOR(pg_catalog.$1)")
	return strings.NewReplacer(
		"{schema}", `"`+schema+`"`,
		"{channel}", schema+".revocations",
		"{columns}", columns,
		"{row}", row,
		"{noTag}", "'"+noTag+"'::pg_catalog.bytea",
		// What ended before this time may be deleted. Clocks of callers may be
		// behind the database's.
		"{late}", "(pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 minute')",
	).Replace(sql)
}

func newStatements(schema string) statements {
	in := func(sql string) string {
		// Twice, since the replacements contain operators.
		return qualified(schema, qualified(schema, sql))
	}
	return statements{
		create:    in(createSQL),
		get:       in(`SELECT {columns} FROM {schema}.sessions WHERE {row}`),
		rotate:    in(rotateSQL),
		list:      in(`SELECT {columns} FROM {schema}.sessions WHERE subject {=} $1::pg_catalog.text ORDER BY rotated_at DESC, id`),
		revoke:    in(revokeSQL),
		spend:     in(spendSQL),
		spentBy:   in(`SELECT nonce FROM {schema}.spent WHERE {row}`),
		feedAll:   in(feedSQL(allSQL)),
		feedAfter: in(feedSQL(afterSQL)),
		listen:    in(`LISTEN "{channel}"`),
		unlisten:  in(`UNLISTEN "{channel}"`),
	}
}

// row is the condition that selects one session, or what was spent.
const row = "subject {=} $1::pg_catalog.text AND id {=} $2::pg_catalog.text"

// noTag is retry_tag in the row of a session without a RetryTag. If it were
// empty, the first tag would make the row longer, and its page could become too
// full for heap-only updates.
const noTag = "----------------"

// columns are the columns of a session, in the order in which scan reads them.
var columns = "subject, id, generation, " + millis("created_at") + ", " + millis("rotated_at") + ", " + millis("expires_at") + ", " +
	"user_agent, coalesce(pg_catalog.host(ip), ''), " +
	"pg_catalog.encode(data, 'hex'), pg_catalog.encode(retry_tag, 'hex'), pg_catalog.encode(key, 'hex')"

// millis returns an expression for the time in a column in Unix milliseconds. A
// time outside the years 1 to 6000, such as infinity, was not written by this
// package. It becomes the nearest time within them.
func millis(column string) string {
	return "(extract(epoch FROM greatest(least(" + column + ", timestamp with time zone '6000-12-31 23:59:59.999+00'), " +
		"timestamp with time zone '0001-01-01 00:00:00+00')) {*} 1000)::bigint"
}

// createSQL inserts a session, and deletes the expired sessions on one random
// page of the table. An index on expires_at would also find them, but then no
// rotation could be a heap-only update: each would have to write to all indexes
// of the table, and there are about a hundred rotations for each Create. A page
// has about 25 rows, so a Create finds a row to delete once one row in 25 has
// expired. In the long run about this many expired rows remain.
//
// A page has room for at most 291 rows. Rows that another transaction has locked
// are skipped.
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
INSERT INTO {schema}.sessions (subject, id, generation, created_at, rotated_at, expires_at, user_agent, ip, data, retry_tag, key)
VALUES ($1::pg_catalog.text, $2::pg_catalog.text, $3::bigint, $4::pg_catalog.text::timestamp with time zone, $5::pg_catalog.text::timestamp with time zone,
	$6::pg_catalog.text::timestamp with time zone, $7::pg_catalog.text, $8::pg_catalog.text::pg_catalog.inet, pg_catalog.decode($9::pg_catalog.text, 'hex'),
	pg_catalog.decode($10::pg_catalog.text, 'hex'), pg_catalog.decode($11::pg_catalog.text, 'hex'))
ON CONFLICT (subject, id) DO NOTHING`

// rotateSQL rotates a session. If another transaction is rotating the row, the
// statement waits for it and then applies its condition to the new row. Its own
// snapshot does not show that row. So if nothing was rotated, another statement
// must read the session: with WITH … UPDATE … UNION ALL SELECT, the loser of a
// race would get the row from before the winner's update. If nothing is
// rotated, nothing is written or locked, except by the loser of a race: it uses
// a transaction number and locks the row until the statement ends.
//
// Columns that the statement does not name, those of a newer version, are
// unchanged.
const rotateSQL = `
UPDATE {schema}.sessions SET
	generation = CASE WHEN generation {<} $3::bigint THEN $3::bigint ELSE $3::bigint {+} 1 END,
	rotated_at = $5::pg_catalog.text::timestamp with time zone,
	expires_at = $6::pg_catalog.text::timestamp with time zone,
	user_agent = $7::pg_catalog.text,
	ip = $8::pg_catalog.text::pg_catalog.inet,
	retry_tag = CASE
		WHEN retry_tag {=} (pg_catalog.decode($10::pg_catalog.text, 'hex') {||} pg_catalog.substr(pg_catalog.int8send(generation), 8)) THEN {noTag}
		WHEN generation {<} $3::bigint THEN pg_catalog.decode($9::pg_catalog.text, 'hex')
		ELSE pg_catalog.decode($12::pg_catalog.text, 'hex') END,
	key = pg_catalog.decode($11::pg_catalog.text, 'hex')
WHERE {row} AND (generation {<} $3::bigint OR generation {=} $3::bigint AND rotated_at {<=} $4::pg_catalog.text::timestamp with time zone)
	AND (key {=} ''::pg_catalog.bytea OR key {=} pg_catalog.decode($11::pg_catalog.text, 'hex'))
RETURNING {columns}`

// revokeSQL deletes sessions, publishes the revocation and wakes the readers of
// the feed, in one transaction. If a crash has emptied history, it inserts a
// row there, so that positions from before the crash are refused. It also
// deletes up to 256 expired revocations, which an index finds.
const revokeSQL = `
WITH named AS (
	DELETE FROM {schema}.sessions WHERE subject {=} $1::pg_catalog.text AND id {=} ANY ($2::pg_catalog.text[])
), others AS (
	DELETE FROM {schema}.sessions
	WHERE $3::boolean AND subject {=} $1::pg_catalog.text AND created_at {<} $5::pg_catalog.text::timestamp with time zone
		AND id {<>} ALL ($4::pg_catalog.text[]) AND id {<>} ALL ($2::pg_catalog.text[])
), expired AS MATERIALIZED (
	SELECT id FROM {schema}.revocations WHERE until {<} {late} ORDER BY until LIMIT 256 FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.revocations WHERE id {=} ANY (ARRAY(SELECT id FROM expired))
), history AS (
	INSERT INTO {schema}.history SELECT WHERE NOT EXISTS (SELECT FROM {schema}.history) ON CONFLICT DO NOTHING
), published AS (
	INSERT INTO {schema}.revocations (subject, sessions, all_sessions, except_ids, not_before, until, revocation_id, access_ttl, reason)
	VALUES ($1::pg_catalog.text, $2::pg_catalog.text[], $3::boolean, $4::pg_catalog.text[], $5::pg_catalog.text::timestamp with time zone,
		$6::pg_catalog.text::timestamp with time zone, $7::pg_catalog.text, $8::bigint, $9::pg_catalog.text)
)
SELECT pg_catalog.pg_notify('{channel}', '')`

// spendSQL inserts a record, and deletes up to 256 that have expired, which an
// index finds. If another transaction is inserting the same record, the
// statement waits for it. Its own snapshot does not show that record, so another
// statement reads who inserted it.
const spendSQL = `
WITH expired AS MATERIALIZED (
	SELECT ctid FROM {schema}.spent WHERE until {<} {late} ORDER BY until LIMIT 256 FOR UPDATE SKIP LOCKED
), collected AS (
	DELETE FROM {schema}.spent WHERE ctid {=} ANY (ARRAY(SELECT ctid FROM expired))
)
INSERT INTO {schema}.spent (subject, id, until, nonce)
VALUES ($1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text::timestamp with time zone, $4::bigint)
ON CONFLICT (subject, id) DO NOTHING`

// feedSQL reads a page of the feed. Every row also has the name of the history
// and the snapshot of the statement; without revocations there is one row with
// only these. Transaction numbers of different histories cannot be compared.
// The name of a history has four parts. The first changes when the server
// starts. The second changes if the database is a copy made by CREATE DATABASE.
// The third changes if the table history is restored from a dump, with its old
// row. The last changes after a crash or a failover, which empty that table.
//
// $1 is the snapshot in which the pages are read, or NULL for the first page;
// $2 and $3 are the transaction and the ID of the last row of the previous
// page; $4 is the maximum number of rows.
func feedSQL(condition string) string {
	return `
SELECT m.*, r.xid::pg_catalog.text, r.id, r.version, r.subject, r.sessions, r.all_sessions, r.except_ids,
	CASE WHEN r.not_before IS NOT NULL THEN ` + millis("r.not_before") + ` END, ` + millis("r.until") + `, r.revocation_id, r.access_ttl, r.reason
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

// visibleSQL selects the rows that the snapshot of the pages shows. Rows that
// commit later, whatever their numbers, come after the last page.
const visibleSQL = `pg_catalog.pg_visible_in_snapshot(xid, coalesce($1::pg_catalog.text::pg_catalog.pg_snapshot, pg_catalog.pg_current_snapshot()))`

// allSQL selects the revocations that have not expired. It includes rows whose
// transaction number is in the future: they were restored from another database.
const allSQL = `until {>=} {late} AND (` + visibleSQL + ` OR xid {>=} pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()))`

// afterSQL selects the revocations that the snapshot of the position, $5, did
// not show. It showed all rows before its xmin, so the first page begins at
// xmin, which is $2, and the scan of the index can begin there. With a second
// lower bound on xid, PostgreSQL might scan from the beginning. Rows that were
// restored from another database are excluded, since they would be new at every
// call.
const afterSQL = `NOT pg_catalog.pg_visible_in_snapshot(xid, $5::pg_catalog.text::pg_catalog.pg_snapshot)
	AND xid {<} pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AND ` + visibleSQL
