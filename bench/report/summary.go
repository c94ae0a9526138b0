package main

import (
	"fmt"
	"strings"
)

// summary returns the most important results, one in a line. It leaves out
// those whose benchmarks did not run.
func summary(r *results) string {
	var s strings.Builder
	line := func(format string, values ...string) {
		args := make([]any, len(values))
		for i, v := range values {
			if v == "" || v == "–" {
				return
			}
			args[i] = v
		}
		fmt.Fprintf(&s, "- "+format+"\n", args...)
	}
	at := func(name string) string { return duration(r.get(name).time()) }

	s.WriteString("## Summary\n\n")
	byAlg := func(alg string) (peer string, time string) {
		return fastest(r, others, func(p string) string { return protected(alg, p) })
	}
	peer, time := byAlg("HS256")
	line("[Access token](#protected-request), HS256: %s and %s allocations for a request with a cached token, %s with a new one. The fastest "+
		"other library (%s) takes %s for each request.",
		at(protected("HS256", "ratchet-cached")), whole(r.get(protected("HS256", "ratchet-cached")).allocs()), at(protected("HS256", "ratchet-new")), peer, time)
	peer, time = byAlg("ES256")
	line("[Access token](#protected-request), ES256: %s cached; %s new, of which %s are the signature check. The fastest other library (%s) takes %s.",
		at(protected("ES256", "ratchet-cached")), at(protected("ES256", "ratchet-new")), at(protected("ES256", "signature")), peer, time)
	line("[A whole request](#over-tcp) over loopback TCP: %s without authentication, %s with a cached token, %s with golang-jwt.",
		at(loopback("none")), at(loopback("ratchet-cached")), at(loopback(byHand)))
	line("[I/O](#protected-request): a protected request takes %s round trips to Redis and %s to PostgreSQL. A refresh takes %s round trip to Redis.",
		trips(r, "redis", "ratchet-protected"), trips(r, "postgres", "ratchet-protected"), trips(r, "redis", "ratchet"))
	peer, time = fastest(r, others, func(p string) string { return refused("expired", p) })
	line("[Refusing](#refused-request) an expired token: %s. The fastest other library (%s) takes %s.", at(refused("expired", "ratchet")), peer, time)
	line("[Refresh](#refresh): %s in memory, %s on Redis, %s on PostgreSQL, %s in SQLite. gin-jwt takes %s in memory and %s on Redis.",
		at(refresh("memory", "ratchet")), at(refresh("redis", "ratchet")), at(refresh("postgres", "ratchet")), at(refresh("sqlite", "ratchet")),
		at(refresh("memory", "gin-jwt")), at(refresh("redis", "gin-jwt")))
	most := func(peer string) string {
		return count(r.get(concurrentRefresh("redis", peer)).median("successors-max"))
	}
	line("[Concurrent refreshes](#concurrent-refreshes) of one token by 32 clients on Redis: at most %s successor. With gin-jwt: up to %s.",
		most("ratchet"), most("gin-jwt"))
	delay := func(store, unit string) string { return duration(r.get(revocation(store)).median(unit)) }
	line("[Revocation](#revocation): another process refuses the token after %s on Redis, %s on PostgreSQL and %s in SQLite (median; the "+
		"longest of 200: %s, %s and %s).",
		delay("redis", "median-sec"), delay("postgres", "median-sec"), delay("sqlite", "median-sec"),
		delay("redis", "longest-sec"), delay("postgres", "longest-sec"), delay("sqlite", "longest-sec"))
	own := r.get(memorySize("ratchet"))
	stored := func(store string) string { return whole(r.get(databaseSize(store, "ratchet")).median("B/session")) }
	line("[A session](#sessions-in-memory): %s B in memory, %s B on Redis, %s B on PostgreSQL, %s B in SQLite, including %s B of User-Agent.",
		whole(own.median("B/session")), stored("redis"), stored("postgres"), stored("sqlite"), count(own.median("text-B/session")))
	longest := func(peer string) string { return duration(r.get(latency(peer, true)).least("longest-sec")) }
	line("[The longest operation](#sessions-in-memory) in memory while half a million sessions expire: %s. gin-jwt: %s; scs: %s.",
		longest("ratchet"), longest("gin-jwt"), longest("scs"))
	return s.String()
}

// fastest returns the name and the time of the fastest peer.
func fastest(r *results, peers []string, name func(peer string) string) (peer, time string) {
	order := sorted(peers, func(p string) float64 { return r.get(name(p)).time() })
	if len(order) == 0 {
		return "", ""
	}
	return order[0], duration(r.get(name(order[0])).time())
}

// trips returns the number of round trips.
func trips(r *results, store, peer string) string {
	return count(r.get(roundTrips(store, peer)).median("round-trips/op"))
}
