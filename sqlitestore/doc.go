// Package sqlitestore keeps sessions in one SQLite file, for one machine: a
// restart of the server, or a crash, signs nobody out.
//
//	store, err := sqlitestore.Open("sessions.db", sqlitestore.Config{})
//	defer store.Close()
//	a, err := auth.New(auth.Config{Store: store, …})
//	go a.Run(ctx) // follows the revocations of other processes
//
// # What it keeps
//
// A row for each session, and one for each revocation until its time has
// passed; about 200 bytes a session, or more with long names and data. Rows of
// sessions that have ended are removed on the way, a few at every login, and the
// space is used again. Nothing in the file is a secret that opens a session, but
// it tells who signed in from where. Revocations whose time has passed leave at
// later ones, wherever they are: one looks at 32, and goes on for as long as
// half of them leave, up to about a thousand. Changes returns at most 1,024.
//
// # Who may write the file
//
// Whoever can write the file can bring back sessions that were revoked. [Open]
// refuses a file that others may write, or whose folder others may write, and one
// with triggers or views.
//
// # Versions
//
// Old and new processes may share the file while they are replaced. A later
// version adds columns with a default, which this one ignores and leaves as they
// are; a version with which this one cannot share the file raises user_version,
// and this one then refuses it. A revocation that this version cannot read is
// returned with its subject only.
//
// # What is certain
//
// What was answered is on the disk: the log is synchronized before every answer
// (WAL, synchronous=FULL), so it outlives a kill of the process and, as far as
// the disk keeps its word, a power cut. Calls that come together share one
// transaction. Several processes of one machine may use the file at once; one
// writes at a time, and who waits for it waits no longer than his context. They
// do not queue: who waits looks about every millisecond, and who writes without
// pause leaves the file alone for two of them after every 10 ms. So a write waits
// for a few transactions of the others as a rule, but for how many nobody
// promises.
//
// # When there is a fault
//
// A disk that is full, a file that is damaged, read-only or gone, and a lock
// that is not let go are errors, which the server answers with 503, never with
// 401. When the fault has gone the Store goes on by itself. Whether the file at
// the path is still the one that was opened is looked at in every call.
//
// # Limits
//
// No network file systems: their locks do not work. Nothing else in the same
// process may open and close the file (os.Open, a copy): on Unix that lets go
// of SQLite's locks. To copy the file while it is in use, use SQLite's own
// "VACUUM INTO" or ".backup"; to put a copy in its place, stop every process
// and remove path-wal and path-shm too.
package sqlitestore
