package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// refreshStore is a store and the peers that are measured with it.
type refreshStore struct {
	id, text string
	peers    []string
}

var refreshStores = []refreshStore{
	{"memory", "in memory", []string{"bare", "ratchet", "ratchet-cooldown", "gin-jwt", "fosite", "go-oauth2"}},
	{"redis", "on Redis", []string{"ping", "bare", "ratchet", "gin-jwt"}},
	{"postgres", "on PostgreSQL", []string{"ping", "bare", "ratchet"}},
	{"postgres-async", "on PostgreSQL, synchronous_commit=off", []string{"ping", "bare", "ratchet"}},
	{"sqlite", "in SQLite", []string{"ratchet"}},
}

// Names of benchmarks.
func refresh(store, peer string) string     { return "Refresh/store=" + store + "/peer=" + peer }
func refreshMany(store, peer string) string { return "RefreshMany/store=" + store + "/peer=" + peer }
func roundTrips(store, peer string) string  { return "RoundTrips/store=" + store + "/peer=" + peer }
func concurrentRefresh(store, peer string) string {
	return "ConcurrentRefresh/store=" + store + "/peer=" + peer
}
func revocation(store string) string         { return "Revocation/store=" + store + "/peer=ratchet" }
func memorySize(peer string) string          { return "Size/peer=" + peer }
func databaseSize(store, peer string) string { return "Stored/store=" + store + "/peer=" + peer }
func latency(peer string, expire bool) string {
	return fmt.Sprintf("Latency/peer=%s/expire=%t", peer, expire)
}

// refreshLabel returns the name of a peer with a store.
func refreshLabel(s refreshStore, peer string) string {
	switch {
	case peer == "ping":
		return "a ping, " + s.text
	case peer == "bare" && s.id == "memory":
		return "decode and encode, no store"
	case peer == "bare" && s.id == "redis":
		return "one bare script, " + s.text
	case peer == "bare":
		return "one bare statement, " + s.text
	case peer == "ratchet-cooldown":
		return "Ratchet, cooldown, " + s.text
	}
	return label(peer) + ", " + s.text
}

func refreshes(s *section, r *results) {
	if r.get(refresh("memory", "ratchet")) == nil {
		return
	}
	s.paragraph("## Refresh")
	s.paragraph("A refresh through the handler, with the newest token of a session in the body. The body is JSON, except for fosite and " +
		"go-oauth2, which are OAuth 2.0 servers and accept only forms. " +
		"Each peer is set up as in its documentation, and rotates the refresh token every time. The clock of Ratchet advances past the " +
		"cooldown before each refresh, except in the row *cooldown*, in which a refresh does not write. " +
		"Access tokens are HS256 for Ratchet and gin-jwt, and opaque for the other two. The client of fosite has no secret, because checking " +
		"it would take a bcrypt hash each time. " +
		"The bare handlers do the minimum: they decode the body, replace a record of the same size in one script or statement if its " +
		"generation matches, and encode a response of the same length as that of Ratchet.")
	s.paragraph("These figures are older than the rule that code of the application, here the user lookup, runs in a goroutine of its own, so that " +
		"a lookup that hangs does not hold the request. Later, on a slower machine, a refresh in memory took 1.4 times as long as with gin-jwt if the " +
		"machine was idle otherwise, since Go then wakes another processor for the goroutine, and 0.64 times with many at once. " +
		"On Redis, it took 0.47 times.")
	s.charts(r, "refresh.")
	t := newTable("", "time, allocations", "× gin-jwt", "× bare", "per refresh, many at once", "round trips", "commands")
	for _, in := range refreshStores {
		for _, p := range in.peers {
			x := r.get(refresh(in.id, p))
			if x == nil {
				continue
			}
			against := func(other string) string {
				if p == "ping" || p == other {
					return ""
				}
				return orEmpty(ratio(x.time(), r.get(refresh(in.id, other)).time()))
			}
			sent := r.get(roundTrips(in.id, p))
			t.row(bold(p, refreshLabel(in, p)), duration(x.time())+", "+whole(x.allocs()), against("gin-jwt"), against("bare"),
				orEmpty(duration(r.get(refreshMany(in.id, p)).time())), count(sent.median("round-trips/op")), count(sent.median("commands/op")))
		}
	}
	s.table(t)
	s.paragraph("*Many at once*: eight clients for each CPU, each with 32 sessions. *Round trips*: how often a client sends after it " +
		"received a response, counted on the wire. *Commands*: as the server counts them, in `INFO commandstats` (a script counts as one) " +
		"and `pg_stat_statements`. " +
		"Redis has an append-only file that is synced every second. PostgreSQL has its default settings, so a refresh is on disk before the " +
		"response; the rows with `synchronous_commit=off` show the other costs.")
}

// count formats a number of things with at most two decimals.
func count(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// grouped formats a whole number with thousands separators.
func grouped(v float64) string {
	text := count(v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// orEmpty returns text, or "" if text means that nothing was measured.
func orEmpty(text string) string { return strings.TrimPrefix(text, "–") }

var concurrent = []struct{ store, text, peer string }{
	{"memory", "in memory", "ratchet"},
	{"redis", "on Redis", "ratchet"},
	{"postgres", "on PostgreSQL", "ratchet"},
	{"sqlite", "in SQLite", "ratchet"},
	{"memory", "in memory", "gin-jwt"},
	{"redis", "on Redis", "gin-jwt"},
	{"memory", "in memory", "go-oauth2"},
}

func concurrentRefreshes(s *section, r *results) {
	if r.get(concurrentRefresh("memory", "ratchet")) == nil {
		return
	}
	s.paragraph("## Concurrent refreshes")
	s.paragraph("32 clients present one refresh token at once, in 200 rounds with a new session each. *Successors*: the different refresh " +
		"tokens that they get. With more than one, the session has been split. " +
		"*Served*: the clients that get one; Ratchet returns the same successor to all. *Records*: what the store holds of one session after " +
		"1,000 refreshes. " +
		"fosite is not measured, because its memory store reads a map while another request may write to it, which crashes the process.")
	t := newTable("", "successors on average", "at most", "served", "records")
	for _, c := range concurrent {
		x := r.get(concurrentRefresh(c.store, c.peer))
		if x == nil {
			continue
		}
		t.row(bold(c.peer, label(c.peer)+", "+c.text),
			digits(x.median("successors/op")), count(x.median("successors-max")), digits(x.median("served/op")), grouped(x.median("records")))
	}
	s.table(t)
}

func revocations(s *section, r *results) {
	if r.get(revocation("redis")) == nil {
		return
	}
	s.paragraph("## Revocation")
	s.paragraph("How long after the call of `Revoke` another process accepts the access token, with connections of its own to the same " +
		"store, in 200 revocations at random times.")
	t := newTable("", "median", "99 %", "longest")
	for _, in := range sharedStores {
		x := r.get(revocation(in.id))
		if x == nil {
			continue
		}
		t.row("**Ratchet, "+in.text+"**", duration(x.median("median-sec")), duration(x.median("p99-sec")), duration(x.median("longest-sec")))
	}
	s.table(t)
}

// sharedStores lists the stores that several processes can use.
var sharedStores = []refreshStore{refreshStores[1], refreshStores[2], refreshStores[4]}

var memoryPeers = []string{"map", "ratchet", "gin-jwt", "scs", "fosite", "go-oauth2"}

func memoryLabel(peer string) string {
	switch peer {
	case "map":
		return "one map without pointers"
	case "scs":
		return "scs memstore"
	}
	return label(peer)
}

func memory(s *section, r *results) {
	if r.get(memorySize("ratchet")) == nil {
		return
	}
	s.paragraph("## Sessions in memory")
	s.paragraph("The live heap of a store for each session, with one session for each user. Only Ratchet stores the User-Agent, which has %s "+
		"bytes here; the next column is without it. *A collection*: a full cycle of Go's garbage collector with nothing else on the heap.",
		count(r.get(memorySize("ratchet")).median("text-B/session")))
	s.paragraph("*The longest operation*: one goroutine uses half of the sessions without pause while another adds sessions. The other half " +
		"expires all at once and is cleaned up as each store does it: Ratchet a few at every write, gin-jwt in `Cleanup`, scs in its " +
		"goroutine, go-oauth2 in its database, and the map in one pass under its lock. " +
		"The operation is a rotation for Ratchet, and a lookup for the others. Shown is the shortest of the runs, with Go's collector off, " +
		"since other load on the machine only adds to it. *Idle* is the same while no session expires.")
	t := newTable("", "sessions", "bytes each", "without User-Agent", "a collection", "longest, idle", "longest, cleanup",
		"99.9 %, idle", "99.9 %, cleanup")
	for _, p := range memoryPeers {
		x := r.get(memorySize(p))
		if x == nil {
			continue
		}
		idle, busy := r.get(latency(p, false)), r.get(latency(p, true))
		t.row(bold(p, memoryLabel(p)), grouped(x.median("sessions")), digits(x.median("B/session")), digits(besideDevice(x)), duration(x.median("gc-sec")),
			orEmpty(duration(idle.least("longest-sec"))), orEmpty(duration(busy.least("longest-sec"))),
			orEmpty(duration(idle.least("p999-sec"))), orEmpty(duration(busy.least("p999-sec"))))
	}
	s.table(t)
}

// besideDevice returns the bytes of a session without its User-Agent.
func besideDevice(m measures) float64 { return m.median("B/session") - m.median("text-B/session") }

var databasePeers = []struct{ store, text, peer string }{
	{"redis", "on Redis (`used_memory`)", "ratchet"},
	{"redis", "on Redis (`used_memory`)", "gin-jwt"},
	{"postgres", "on PostgreSQL (tables and indexes)", "ratchet"},
	{"sqlite", "in SQLite (the file)", "ratchet"},
}

func databases(s *section, r *results) {
	if r.get(databaseSize("redis", "ratchet")) == nil && r.get(databaseSize("sqlite", "ratchet")) == nil {
		return
	}
	s.paragraph("## Sessions in a database")
	s.paragraph("The space that each session takes in the database after one refresh.")
	t := newTable("", "sessions", "bytes each", "without User-Agent")
	for _, d := range databasePeers {
		x := r.get(databaseSize(d.store, d.peer))
		if x == nil {
			continue
		}
		t.row(bold(d.peer, label(d.peer)+", "+d.text), grouped(x.median("sessions")), digits(x.median("B/session")), digits(besideDevice(x)))
	}
	s.table(t)
}
