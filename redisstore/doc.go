// Package redisstore stores the sessions of an [auth.Authenticator] in Redis
// 7.0 or newer, or in Valkey: on one server, on a server that Sentinel
// monitors, or on a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
//	store, err := redisstore.New(client, redisstore.Config{})
//	a, err := auth.New(auth.Config{…, Store: store})
//	go a.Run(ctx) // applies revocations that other processes publish
//
// The sessions of a subject are the fields of one hash, <prefix>:{<subject>}.
// Revocations are the entries of one stream, <prefix>:feed. Each record of Spend
// is a string of its own, <prefix>:{<subject>}:once:<id>:<length of id>.
//
// [NewLimiter] returns an [auth.Limiter], with which the processes count failed logins
// together. Its keys begin with <prefix>:limit{<prefix>}: and are in one slot of a
// Cluster.
//
// # Guarantees
//
// Create, Rotate and Spend each run one script, so they are atomic. Revoke runs a
// script that deletes the sessions, if the revocation ends any, and a script that
// publishes the revocation. No command uses the keys of more than one subject, so
// all calls work on a Cluster.
//
// Changes returns every revocation that the server still has. It returns
// [auth.ErrFeedReset] if the server may have lost some: after a restart, after
// a failover, after FLUSHALL, and if the stream was deleted or replaced by an
// older copy. To detect this, the position that Changes takes and returns
// contains the ID of the last entry that was returned and the server's run_id,
// if the Redis user may call INFO. If not, a restart or failover is noticed
// only if the last entry that was returned is missing before its Until. Neither
// the removal of an expired entry nor the expiry of the stream resets the feed.
// An entry expires at the Until of its [auth.Revocation].
//
// The database contains no secrets: reading it is not enough to create a token.
// Writing to it is enough to restore a session that was revoked, for a client
// that still has its refresh token.
//
// During a rolling upgrade, processes with different versions of this package may
// share a server. A record that a newer version wrote may have parts that this
// version does not know. This version ignores them, and Rotate preserves them. If
// this version cannot read a record, Get and Rotate return an error, and List
// leaves it out. A Revoke with Revocation.All deletes such a record, unless
// Revocation.Except lists it. If Changes cannot read an entry, it returns it with
// only Subject and ID set.
//
// A process of an earlier version, which does not know Session.RetryTag, drops the
// tag when it rotates a session: this version then reads the session without a
// tag, so a retry of that rotation is treated like one without a retry key. It
// cannot read a session with a Session.Key, so it cannot rotate one.
//
// # Cost
//
// Create, Rotate and Spend each take one EVALSHA, Get one HGET, and List one HGETALL.
// Revoke takes two EVALSHA, or one if it ends no session. If the server no
// longer has a script, the script is sent again. While Changes waits, it calls
// XREAD, each time for at most one second, and occupies one connection.
//
// A subject with one session takes about 380 bytes of memory if the user agent
// has 100 bytes. Each further session takes about 100 bytes, plus its ID, user
// agent and data. A retry tag adds 32 bytes, and a Key another 32. A hash expires
// one minute after the end of its last session. An ended session may be deleted
// before that: each Create checks four random sessions of its subject, and each
// Rotate checks two if the subject has several. They delete those that ended more
// than a minute ago by the server's clock.
//
// A revocation stays in the stream at least until it expires. Each Revoke
// checks 32 entries, starting where the last Revoke stopped, and deletes those
// that have expired. It continues while at least half of the entries are
// deleted, up to 1,024 entries.
//
// A record of Spend takes about 100 bytes if its subject and ID have 30 bytes
// together. It expires one minute after its time.
//
// A page of Changes ends after 512 revocations or about 256 KiB, so that
// reading a page blocks the server for only one or two milliseconds, whatever
// the length of the feed.
//
// # Faults
//
// Redis acknowledges a write before its replicas have it and, unless appendfsync
// is always, before its disk has it. If the server then fails, these writes are
// lost:
//
//   - A refresh: the stored session is one generation behind its token. The next
//     refresh corrects it.
//   - A login: its refresh token is refused, and the user signs in again.
//   - A revocation: the session exists again. Changes returns
//     [auth.ErrFeedReset], and every process with an Authenticator republishes
//     the revocations that it knows and the feed lacks, which deletes the
//     session again. The revocation is lost if no process that knew it is still
//     running, or if it has expired.
//   - A record of Spend: what was used can be used once more.
//
// With Config.Replicas, a write is acknowledged only after that many replicas
// have it. So is a Spend that only finds that something was used already. A write
// that returns an error may have taken effect: what Spend should have recorded may
// then count as used, although no caller has used it. Replicas help only if one of
// them is promoted: Sentinel and Cluster prefer a replica that has all writes, but
// do not guarantee it. A partitioned
// master serves the clients that reach it until it notices the partition. With
// Config.Replicas, its writes return an error. Without Config.Replicas, set
// min-replicas-to-write on the server.
//
// If a server of a Cluster does not reply, the client reloads the state of the
// Cluster, and later calls use the new master.
//
// # Limits
//
// A master that is demoted and promoted again without a restart keeps its
// run_id. A reader that did not call Changes in between gets
// [auth.ErrFeedReset] only if the last entry that it saw is missing. No other
// field of INFO would help: the others also change on a healthy server.
//
// The feed is a single key, so in a Cluster it is on a single master. While that
// master is down, no process receives revocations, and Revoke returns an error.
package redisstore
