// Package pgstore stores the sessions of an [auth.Authenticator] in PostgreSQL 13
// or newer, through the driver pgx.
//
//	pool, err := pgxpool.New(ctx, url)
//	store, err := pgstore.New(pool, pgstore.Config{})
//	err = store.Migrate(ctx) // creates the tables
//	a, err := auth.New(auth.Config{…, Store: store})
//	go a.Run(ctx) // applies revocations that other processes publish
//
// The Store works with any settings of the role and the database (DateStyle,
// TimeZone, bytea_output, search_path, client_encoding, …), in every query mode
// of the driver, and through PgBouncer. Statements name every table, function,
// type and operator with its schema. If default_transaction_read_only is on, a
// write runs in a read-write transaction, which takes three round trips. If
// client_encoding is not UTF8, the Store sets it on the connections of the
// pool; with the simple protocol it also sets standard_conforming_strings.
//
// # Guarantees
//
// Create, Get, List and Revoke are one statement each, in a transaction of its
// own. Rotate and Spend are one statement too. If it changes nothing, a second
// one reads the session, or the record of the earlier Spend. The Store is designed
// for READ COMMITTED, PostgreSQL's default. With a stricter
// default_transaction_isolation it is also correct, but slower under contention: it
// retries transactions that the database rolls back, until the context ends.
//
// A reader of Changes gets every revocation once, however late it commits.
// Transactions do not commit in the order of their numbers, so a position is a
// snapshot of the database: a revocation that the snapshot does not show is
// new. Transaction numbers may be reused after a restart, a crash, a failover
// or a restore, so Changes then returns [auth.ErrFeedReset]. The pages of a
// long feed are read in one snapshot, so their number is finite even while
// revocations are added. Revocations that commit meanwhile come after the last
// page.
//
// Whoever owns the tables can restore sessions that were revoked, and let a
// one-time token be used again.
// [Store.Migrate] documents which owners it accepts. It refuses tables with
// triggers, rules or row security.
//
// Processes of different versions may use the same tables while they are
// replaced. A later version adds tables, and columns with a default, which this
// version ignores and leaves unchanged. A revocation that this version cannot read is
// returned with only its subject.
//
// # Cost
//
// A statement takes one round trip after the driver has prepared it. A Rotate
// that changes nothing (a retry, or a session within its cooldown) takes two.
// It writes nothing and locks nothing, unless it lost a race to another Rotate:
// then it uses a transaction number and locks the row briefly.
//
// The Store has no background work. Each Create deletes expired sessions from
// one page of the table, each Revoke deletes up to 256 expired revocations, and
// each Spend deletes up to 256 records that have expired.
// Changes returns at most 1,000 revocations, or 2,000 with the last page of a
// long feed.
//
// A waiting Changes occupies a connection. It is woken by LISTEN and NOTIFY,
// and also checks the feed once a second. Notifications do not pass a proxy
// that pools transactions: set [Config].Poll there.
//
// # Faults
//
// If a connection of the pool is broken, the Store uses another one. It does
// not repeat a Create that may have taken effect: Create then returns an error.
// It repeats a Spend, which recognizes its own record.
// If the context of a write ends, the Store waits up to half a second for the
// outcome. On a standby, Changes returns an error that says so.
//
// # Limits
//
// An acknowledged write is as durable as the server's configuration makes it.
// With synchronous_commit = off, or after a failover to an asynchronous
// standby, the last writes may be lost. The next refresh corrects a session
// whose refresh was lost, and every process republishes the revocations that it
// knows.
package pgstore
