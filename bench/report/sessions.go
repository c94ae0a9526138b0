package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// refreshStore is where sessions are kept when they are refreshed, and who is
// measured with it.
type refreshStore struct {
	id, text string
	peers    []string
}

var refreshStores = []refreshStore{
	{"memory", "in memory", []string{"floor", "ratchet", "ratchet-resting", "gin-jwt", "fosite", "go-oauth2"}},
	{"redis", "on Redis", []string{"ping", "floor", "ratchet", "gin-jwt"}},
	{"postgres", "on PostgreSQL", []string{"ping", "floor", "ratchet"}},
	{"postgres-async", "on PostgreSQL, synchronous_commit=off", []string{"ping", "floor", "ratchet"}},
	{"sqlite", "in SQLite", []string{"ratchet"}},
}

// Names of benchmarks.
func refresh(store, peer string) string     { return "Refresh store=" + store + " peer=" + peer }
func refreshMany(store, peer string) string { return "RefreshMany store=" + store + " peer=" + peer }
func trips(store, peer string) string       { return "Trips store=" + store + " peer=" + peer }
func won(store, peer string) string         { return "Winners store=" + store + " peer=" + peer }
func weight(peer string) string             { return "Size peer=" + peer }
func inStore(store, peer string) string     { return "Stored store=" + store + " peer=" + peer }
func wait(peer string, expire bool) string {
	return fmt.Sprintf("Wait peer=%s expire=%t", peer, expire)
}

// refreshLabel is what a peer is called with a store.
func refreshLabel(s refreshStore, peer string) string {
	switch {
	case peer == "ping":
		return "a ping, " + s.text
	case peer == "floor" && s.id == "memory":
		return "decode and encode, no store"
	case peer == "floor" && s.id == "redis":
		return "one bare script, " + s.text
	case peer == "floor":
		return "one bare statement, " + s.text
	case peer == "ratchet-resting":
		return "Ratchet, resting, " + s.text
	}
	return label(peer) + ", " + s.text
}

// strong marks Ratchet.
func strong(peer, text string) string {
	if strings.HasPrefix(peer, "ratchet") {
		return "**" + text + "**"
	}
	return text
}

// section is a part of the page: a text, and then its parts.
type section struct{ strings.Builder }

func (s *section) say(format string, args ...any) { fmt.Fprintf(s, format+"\n\n", args...) }
func (s *section) table(t *table)                 { s.WriteString(t.b.String() + "\n") }

// text ends the section.
func (s *section) text() string { return strings.TrimRight(s.String(), "\n") + "\n" }

// refreshes is empty, as the other sections are, if nothing was measured.
func refreshes(r *results) string {
	if r.get(refresh("memory", "ratchet")) == nil {
		return ""
	}
	var s section
	s.say("## A refresh")
	s.say("One refresh through the handler, by the newest token of a session in the body, as JSON, or as a form for fosite and go-oauth2, which are OAuth 2.0 servers and take nothing else. " +
		"Each peer is set up as its documentation shows, and replaces the refresh token every time; Ratchet's clock moves on so that no session rests, but for *resting*, where nothing is written. " +
		"Access tokens are HS256 for Ratchet and gin-jwt, and opaque for the other two. fosite's client has no secret, which would cost a bcrypt each time. " +
		"The bare handlers do the least: they decode the body, replace a record of the same size by one script or statement if nobody else has, and encode an answer as long as Ratchet's.")
	for _, c := range charts(r) {
		if c.file == "refresh.svg" {
			s.say("![%s](img/%s)", c.alt, c.file)
		}
	}
	t := newTable("", "time, allocations", "× gin-jwt", "× bare", "per refresh, many at once", "waits for the server", "commands")
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
				return missing(ratio(x.time(), r.get(refresh(in.id, other)).time()))
			}
			sent := r.get(trips(in.id, p))
			t.row(strong(p, refreshLabel(in, p)), duration(x.time())+", "+number(x.allocs), against("gin-jwt"), against("floor"),
				missing(duration(r.get(refreshMany(in.id, p)).time())), count(sent.value("waits/op")), count(sent.value("commands/op")))
		}
	}
	s.table(t)
	s.say("*Many at once*: eight clients for each CPU, each with 32 sessions. *Waits for the server*: how often a client, having had an answer, sends again, counted on the wire. *Commands*: what the server says it was asked (`INFO commandstats`, where a script is one, and `pg_stat_statements`). " +
		"Redis has an append-only file that is synced every second; PostgreSQL is as it comes, so that a refresh is on the disk when it is answered, and once more without that, to show what else there is.")
	return s.text()
}

// count prints a number of things, or nothing.
func count(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// grouped prints a large whole number.
func grouped(v float64) string {
	text := count(v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// missing leaves a cell empty rather than mark it.
func missing(text string) string {
	if text == "–" {
		return ""
	}
	return text
}

var contest = []struct{ store, text, peer string }{
	{"memory", "in memory", "ratchet"},
	{"redis", "on Redis", "ratchet"},
	{"postgres", "on PostgreSQL", "ratchet"},
	{"sqlite", "in SQLite", "ratchet"},
	{"memory", "in memory", "gin-jwt"},
	{"redis", "on Redis", "gin-jwt"},
	{"memory", "in memory", "go-oauth2"},
}

func winners(r *results) string {
	if r.get(won("memory", "ratchet")) == nil {
		return ""
	}
	var s section
	s.say("## Many with one token")
	s.say("32 clients present one refresh token at once, 200 times, each time of a new session. A winner is one who gets a successor that nobody else got: with more than one, a session has become several. " +
		"Ratchet answers all of them, with the same successor. The last column is what the store holds of one session after 1,000 refreshes. fosite is not among them: its memory store reads a map that another request writes, which ends the process sooner or later.")
	t := newTable("", "winners on average", "at most", "answered", "records")
	for _, c := range contest {
		x := r.get(won(c.store, c.peer))
		if x == nil {
			continue
		}
		t.row(strong(c.peer, label(c.peer)+", "+c.text), digits(x.value("winners/op")), count(x.value("winners-max")), digits(x.value("served/op")), grouped(x.value("records")))
	}
	s.table(t)
	return s.text()
}

var keepers = []string{"floor", "ratchet", "gin-jwt", "scs", "fosite", "go-oauth2"}

func keeperLabel(peer string) string {
	switch peer {
	case "floor":
		return "one map without pointers"
	case "scs":
		return "scs memstore"
	}
	return label(peer)
}

func sessions(r *results) string {
	if r.get(weight("ratchet")) == nil {
		return ""
	}
	var s section
	s.say("## Sessions in memory")
	s.say("The live heap of a store with so many sessions, each with a user of its own. Ratchet alone keeps the text by which a device is known, of %s bytes here, which is counted apart. *A collection*: one full cycle of Go's garbage collector with nothing else alive.",
		count(r.get(weight("ratchet")).value("text-B/session")))
	s.say("*The longest operation*: half of the sessions are used, by one goroutine as fast as it can, beside another that adds some; the other half ends in one moment, and is cleaned up as each store does: Ratchet on the way, at every write; gin-jwt by `Cleanup`; scs by its goroutine; go-oauth2 by its database; the map in one pass under its lock. " +
		"Ratchet's operation is a rotation, the others' a look-up. It is the best of the runs, without Go's collector, since a busy machine only adds; *idle* is the same while nothing ends.")
	t := newTable("", "sessions", "bytes each", "beside the text", "a collection", "longest, idle", "longest, cleaning up", "99.9 %, idle", "99.9 %, cleaning up")
	for _, p := range keepers {
		x := r.get(weight(p))
		if x == nil {
			continue
		}
		idle, busy := r.get(wait(p, false)), r.get(wait(p, true))
		t.row(strong(p, keeperLabel(p)), grouped(x.value("sessions")), digits(x.value("B/session")), digits(beside(x)), duration(x.value("gc-ns")),
			missing(duration(idle.least("longest-ns"))), missing(duration(busy.least("longest-ns"))), missing(duration(idle.least("p999-ns"))), missing(duration(busy.least("p999-ns"))))
	}
	s.table(t)
	return s.text()
}

// beside is what a session takes, its device text apart.
func beside(x *runs) float64 { return x.value("B/session") - x.value("text-B/session") }

var kept = []struct{ store, text, peer string }{
	{"redis", "on Redis (`used_memory`)", "ratchet"},
	{"redis", "on Redis (`used_memory`)", "gin-jwt"},
	{"postgres", "on PostgreSQL (tables and indexes)", "ratchet"},
	{"sqlite", "in SQLite (the file)", "ratchet"},
}

func stored(r *results) string {
	var s section
	rows := 0
	t := newTable("", "sessions", "bytes each", "beside the text")
	for _, k := range kept {
		x := r.get(inStore(k.store, k.peer))
		if x == nil {
			continue
		}
		rows++
		t.row(strong(k.peer, label(k.peer)+", "+k.text), grouped(x.value("sessions")), digits(x.value("B/session")), digits(beside(x)))
	}
	if rows == 0 {
		return ""
	}
	s.say("## Sessions in a database")
	s.say("What a server has in use for so many sessions, each of which was refreshed once.")
	s.table(t)
	return s.text()
}

// reachedSessions compares with the goals for refreshes and sizes.
func reachedSessions(r *results, add func(goal string, got, most float64, text string)) {
	times := func(goal string, x, than *runs, most float64) {
		add(goal, x.time()/than.time(), most, ratio(x.time(), than.time()))
	}
	times("a refresh in memory: at most 0.4 × gin-jwt", r.get(refresh("memory", "ratchet")), r.get(refresh("memory", "gin-jwt")), 0.4)
	times("a refresh on Redis: at most 0.4 × gin-jwt", r.get(refresh("redis", "ratchet")), r.get(refresh("redis", "gin-jwt")), 0.4)
	for _, in := range refreshStores[1:4] {
		times("a refresh "+in.text+": at most 1.2 × the bare handler", r.get(refresh(in.id, "ratchet")), r.get(refresh(in.id, "floor")), 1.2)
	}
	for _, in := range refreshStores[1:3] {
		n := r.get(trips(in.id, "ratchet")).value("waits/op")
		add("a refresh "+in.text+": one round trip", n, 1.01, digits(n))
	}
	for _, c := range contest {
		if c.peer == "ratchet" {
			x := r.get(won(c.store, c.peer))
			add("many with one token, "+c.text+": one winner", x.value("winners-max"), 1, digits(x.value("winners-max")))
			add("after 1,000 refreshes, "+c.text+": one record", x.value("records"), 1, digits(x.value("records")))
		}
	}
	x := r.get(weight("ratchet"))
	add("a session in memory: at most 300 B beside its text", beside(x), 300, digits(beside(x))+" B")
	more := r.get(wait("ratchet", true)).least("longest-ns") - r.get(wait("ratchet", false)).least("longest-ns")
	add("the longest operation while sessions are cleaned up: at most 1 ms more than idle", more, 1e6, "+ "+duration(math.Max(0, more)))
}
