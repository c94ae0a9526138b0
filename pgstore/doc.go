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
// expired, Revoke deletes revocations that are over, a few each.
//
// # Isolation
//
// READ COMMITTED, PostgreSQL's own default, is what it is made for. Where
// default_transaction_isolation is stricter it is right as well, and slower
// under contention: what the database gives up is tried again until the
// context ends.
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
// A reader that waits is woken by LISTEN and NOTIFY, and looks once a second
// besides. Through a proxy that pools transactions notifications do not
// arrive: set [Config].Poll there.
package pgstore
