// Package pgstore keeps sessions in PostgreSQL 13 or newer, by the driver
// pgx. It is an [auth.Store] for many processes on one database.
//
//	pool, err := pgxpool.New(ctx, url)
//	store, err := pgstore.New(pool, pgstore.Config{})
//	err = store.Migrate(ctx)
//	a, err := auth.New(auth.Config{…, Store: store})
//
// # What a call costs
//
// Every call is one statement, in a transaction of its own, and one round trip
// once the driver has prepared it. A refresh that moves nothing (a repeat, a
// session that rests) is two, which write nothing and lock nothing; only one
// that has lost a race takes a transaction number and locks the row for a
// moment. Nothing runs in the background: Create deletes sessions that have
// expired, a few each, and Revoke revocations that are over.
//
// # Settings
//
// READ COMMITTED, PostgreSQL's own default, is what it is made for. Where
// default_transaction_isolation is stricter it is right as well, and slower
// under contention: what the database gives up is tried again until the
// context ends.
//
// It works whatever the role's or the database's other settings are (DateStyle,
// TimeZone, bytea_output, search_path, client_encoding, …), in every query mode
// of the driver, and through PgBouncer. Statements name every table, function,
// type and operator with its schema. Where default_transaction_read_only is on,
// writes are transactions that say otherwise, of three round trips. Where
// client_encoding is another, a connection of the pool is set to UTF8, and with
// the simple protocol also to standard_conforming_strings.
//
// # Whom it trusts
//
// Who owns the tables decides what is in them: [Store.Migrate] says whose
// schema it refuses, and that there must be no triggers, rules or row security.
//
// # Versions
//
// Old and new processes may share the tables while they are replaced. A later
// release adds columns with a default, which this one ignores and leaves as they
// are. A revocation that this release cannot read is returned with its subject
// only.
//
// # The feed
//
// Transactions commit in another order than they number what they write, so a
// reader's position is no number but a snapshot of the database: what it did
// not show is new. Nothing is returned twice, and nothing is left out, however
// late it commits. Snapshots of another life of the server mean nothing, so
// after a restart, a crash, a failover or a restored copy the position is
// refused by [auth.ErrFeedReset], and the core begins again.
//
// Changes returns at most 1,000 revocations, or 2,000 with the last page of a
// long feed. The pages of a long feed are all of
// one snapshot, so that none is left out and there is an end; what is announced
// meanwhile comes after them. Revoke deletes up to 256 revocations that are
// over, wherever they are.
//
// A reader that waits is woken by LISTEN and NOTIFY, and looks once a second
// besides. Through a proxy that pools transactions notifications do not
// arrive: set [Config].Poll there.
package pgstore
