// Package redisstore keeps the sessions of [auth.Authenticator] on Redis 7.0 or
// newer, or on Valkey: one server, one that a Sentinel watches, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
//	store, err := redisstore.New(client, redisstore.Config{})
//	a, err := auth.New(auth.Config{…, Store: store})
//
// # What it keeps
//
// The sessions of a subject are the fields of one hash, <prefix>:{<subject>}: a
// session costs its ID, user agent and data, and about 100 bytes. The hash
// expires a minute after the last of them; each Create also looks at four
// others, and each Rotate of one that has others at two, and deletes those that
// ended more than a minute ago by the server's clock. Revocations are the
// entries of one stream, <prefix>:feed, until the access tokens that they concern
// have expired. An announcement removes those whose time has passed, wherever
// they are: it looks at 32, from where the last one has come to, and goes on for
// as long as half of them leave, up to 1,024.
//
// Old and new processes may share a server while they are replaced. A record of
// a newer version may have sections that this one ignores, and that Rotate
// keeps. A record that cannot be read is an error of Get and Rotate; List leaves
// it out, and Revoke with All deletes it. An entry of the feed that cannot be
// read is returned with its subject only.
//
// Nothing in it is a secret: whoever reads all of it can mint no token. Whoever
// can write to it can bring a session back to life for the holder of its token.
//
// # What it asks
//
// Create and Rotate are one script each on one key, Get is HGET, List is
// HGETALL; Revoke is a script on the subject's key, then one on the feed's. No
// command goes beyond one subject's sessions, so all of it is right on a
// Cluster. A script that the server has lost is sent again. Changes waits with
// XREAD, at most a second at a time, and keeps one connection meanwhile. Where a
// server of a Cluster does not answer, the client is told to look who has taken
// over. Changes returns at most 512 revocations, or some that are 256 KiB
// together: a page keeps the server for one or two milliseconds, however long
// the feed is.
//
// # What a failover loses
//
// A server acknowledges a write before its replicas have it, and, unless
// appendfsync is always, before its disk has it. What such a server takes along
// when it goes:
//
//   - A refresh: the session is a generation behind its token. The next refresh
//     heals it.
//   - A login: its refresh token is refused, and the user signs in again.
//   - A revocation: the session is back. The server that took over has another
//     history, which Changes sees ([auth.ErrFeedReset]); every process then
//     announces again what it knows, and with that revokes again. It is lost
//     if no process that knew it is alive, or its time has passed.
//
// With Config.Replicas a write is acknowledged when so many replicas have it. It
// is worth as much as the choice of who takes over: a Sentinel and a Cluster
// prefer, but do not promise, a replica that has everything. A master that is
// cut off and does not know it yet serves those who still reach it; without
// replicas to confirm, its writes fail. Redis has min-replicas-to-write for the
// rest.
//
// # What a position is
//
// A position of the feed names the run of the server (run_id of INFO, where that
// is permitted) and the last entry seen. A restart, a failover, FLUSHALL, and a
// stream that was deleted or replaced by an older copy give auth.ErrFeedReset.
// An entry that left in its time does not, nor does a stream that expired. A
// server that lost its place and got it back without a restart, between two
// questions of the same reader, is seen only if the last entry seen is gone: its
// run is the same, and nothing else that INFO tells stays the same in a server
// that goes on.
package redisstore
