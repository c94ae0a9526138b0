// Package sqlitestore stores the sessions of an [auth.Authenticator] in an SQLite
// file, so that they survive restarts and crashes of a server on one machine.
//
//	store, err := sqlitestore.Open("sessions.db", sqlitestore.Config{})
//	defer store.Close()
//	a, err := auth.New(auth.Config{Store: store, …})
//	go a.Run(ctx) // applies revocations that other processes publish
//
// # Guarantees
//
// A write is on the disk when its call returns, because the write-ahead log is
// synced first (synchronous=FULL). The write survives if the process is killed
// and, if the disk honors the sync, if the power fails.
//
// Several processes on one machine may use the file at the same time. One of
// them writes at a time. A call that waits to write stops waiting when its
// context ends. There is no queue among processes: a waiting process tries
// about once a millisecond, and a process that writes continuously pauses for 2
// ms after every 10 ms. So a write usually waits for a few transactions of
// other processes, but there is no upper bound.
//
// A user who can write to the file can restore revoked sessions. On Unix,
// [Open] returns an error if other users may write to the file or to its
// directory. On all systems it returns an error if the file has triggers or
// views. The file contains no tokens and no secrets, but it shows who signed in
// and from where.
//
// During an upgrade, processes with different versions of this package may
// share the file. A later version adds tables, and columns with a default, which
// this version ignores and leaves unchanged. A later version that is not compatible
// raises user_version, and this version then returns an error. A revocation
// that this version cannot read is returned with only Subject and ID set.
//
// # Cost
//
// Concurrent writes share one transaction, so the disk is synced once for all of
// them. Reads, and a Rotate that changes nothing, do not wait for writers.
//
// A session takes about 200 bytes, or more with long names and data, and 17 to
// 28 more if its client sends retry keys. Each
// Create checks eight sessions and deletes those that ended more than a minute
// ago; SQLite reuses their space. A revocation is kept until the time in its
// Until field ([auth.Revocation]) has passed. Each Revoke checks 32 revocations
// and deletes those whose Until passed more than a minute ago. It continues
// while at least half of them are deleted, up to 1,024. Each Spend deletes up to
// 64 records that expired more than a minute ago. Changes returns at most
// 1,024 revocations. It returns those of other processes within [Config].Poll.
//
// # Faults
//
// If the disk is full, the file is damaged, read-only or missing, or a lock is
// not released, calls return an error, and the server responds with 503, never
// 401. Once the fault is gone, the Store works again. Every call checks that
// the file at the path is still the file that was opened.
//
// # Limits
//
// The file must not be on a network file system, whose locks do not work. No
// other code in the same process may open and close the file, for example to
// copy it: on Unix this releases SQLite's locks. To copy the file while it is
// in use, use SQLite's VACUUM INTO or .backup. To replace the file with a copy,
// stop every process, delete the old files with the suffixes -wal and -shm, and
// then put the copy in place.
package sqlitestore
