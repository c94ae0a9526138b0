package main

import (
	"fmt"
	"math"
)

// goals compares the results with the goals of the project.
func goals(r *results) string {
	t := newTable("goal", "measured", "reached")
	add := func(goal string, got, most float64, text string) {
		mark := "yes"
		if math.IsNaN(got) {
			mark = "not measured"
		} else if got > most {
			mark = "NO"
		}
		t.row(goal, text, mark)
	}
	requestGoals(r, add)
	sessionGoals(r, add)
	return t.b.String()
}

func requestGoals(r *results, add func(goal string, got, most float64, text string)) {
	hand := r.get(protected("HS256", byHand)).time()
	fresh := r.get(protected("HS256", "ratchet-new"))
	add("new token, HS256: at most 0.2 × golang-jwt", fresh.time()/hand, 0.2, ratio(fresh.time(), hand))
	add("new token, HS256: at most 5 allocations", fresh.allocs(), 5, whole(fresh.allocs()))
	for _, alg := range algs[1:] {
		over := r.get(protected(alg, "ratchet-new")).time() - r.get(protected(alg, "signature")).time()
		add("new token, "+alg+": at most the signature check + 3 µs", over, 3e-6, "+ "+duration(over))
	}
	for _, alg := range algs {
		for i, n := range tokenCounts[1:] {
			x := r.get(manyTokens(alg, n))
			limit := []float64{2, 6}[i]
			got := x.time() / r.get(manyTokensWithoutAuth(n)).time()
			add(fmt.Sprintf("%s cached tokens, %s: at most %.0f × no authentication", n, alg, limit), got, limit, digits(got)+" ×")
			add(fmt.Sprintf("%s cached tokens, %s: at most 2 allocations", n, alg), x.allocs(), 2, whole(x.allocs()))
		}
	}
	for _, cpus := range []string{r.config["cores"], "1"} {
		for _, p := range []string{"ratchet-cached", "ratchet-new"} {
			got := r.on(cpus, loopback(p)).time() / r.on(cpus, loopback("none")).time()
			add("over TCP, "+p+", "+cpus+" CPU: at most 1.1 × no authentication", got, 1.1, digits(got)+" ×")
		}
	}
	gain := func(p string) float64 {
		return r.on("1", parallel(p)).time() / r.on(r.config["cores"], parallel(p)).time()
	}
	for _, p := range []string{"ratchet-cached", "ratchet-new"} {
		add("more CPUs, "+p+": the gain of no authentication, within 10 %", gain("none")/gain(p), 1.1, digits(gain(p))+" × against "+digits(gain("none"))+" ×")
	}
	for _, k := range kinds[:2] {
		got := r.get(refused(k.id, "ratchet")).time() / r.get(refused(k.id, byHand)).time()
		add("refused, "+k.head+": at most 0.25 × golang-jwt", got, 0.25, digits(got)+" ×")
	}
}

func sessionGoals(r *results, add func(goal string, got, most float64, text string)) {
	times := func(goal string, x, than measures, most float64) {
		add(goal, x.time()/than.time(), most, ratio(x.time(), than.time()))
	}
	times("a refresh in memory: at most 0.4 × gin-jwt", r.get(refresh("memory", "ratchet")), r.get(refresh("memory", "gin-jwt")), 0.4)
	times("a refresh on Redis: at most 0.4 × gin-jwt", r.get(refresh("redis", "ratchet")), r.get(refresh("redis", "gin-jwt")), 0.4)
	for _, in := range refreshStores[1:4] {
		times("a refresh "+in.text+": at most 1.2 × the bare handler", r.get(refresh(in.id, "ratchet")), r.get(refresh(in.id, "bare")), 1.2)
	}
	for _, in := range refreshStores[1:3] {
		n := r.get(roundTrips(in.id, "ratchet")).median("round-trips/op")
		add("a refresh "+in.text+": one round trip", n, 1.01, digits(n))
		n = r.get(roundTrips(in.id, "ratchet-protected")).median("round-trips/op")
		add("a protected request "+in.text+": no round trip", n, 0.01, digits(n))
	}
	for _, c := range concurrent {
		if c.peer == "ratchet" {
			x := r.get(concurrentRefresh(c.store, c.peer))
			add("concurrent refreshes, "+c.text+": one successor", x.median("successors-max"), 1, digits(x.median("successors-max")))
			add("after 1,000 refreshes, "+c.text+": one record", x.median("records"), 1, digits(x.median("records")))
		}
	}
	own := besideDevice(r.get(memorySize("ratchet")))
	add("a session in memory: at most 300 B besides the User-Agent", own, 300, digits(own)+" B")
	more := r.get(latency("ratchet", true)).least("longest-sec") - r.get(latency("ratchet", false)).least("longest-sec")
	add("the longest operation during cleanup: at most 1 ms longer than without", more, 1e-3, "+ "+duration(math.Max(0, more)))
}
