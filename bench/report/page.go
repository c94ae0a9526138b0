package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	begin = "<!-- bench:begin -->"
	end   = "<!-- bench:end -->"
)

// blank is performance.md before anything was measured.
const blank = `# Performance

What a protected request, a refusal and a refresh cost, and what sessions take, beside other Go libraries, measured side by side by the module [bench](../bench).

## How to run it

` + "```sh" + `
bench/run                            # a quarter of an hour; writes this page and its charts
bench/run -count 10 -benchtime 500ms # longer and calmer
bench/run -report                    # only the page, from bench/results/latest.txt
` + "```" + `

Refreshes with Redis and PostgreSQL are measured where these are installed, on servers of their own that end with the run.
The machine should have nothing else to do. Compare ratios within one run: times move with the machine. Two runs of one machine are compared
by ` + "`benchstat old.txt new.txt`" + `. ` + "`bench`" + ` is a module of its own, outside the work space, so that what the other libraries require reaches nobody else.

` + begin + "\n" + end + "\n"

// between puts the results between the markers of a page.
func between(text, results string) (string, error) {
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		return "", errors.New("no markers " + begin + " and " + end)
	}
	return text[:i+len(begin)] + "\n" + results + "\n" + text[j:], nil
}

var (
	algs  = []string{"HS256", "RS256", "ES256", "EdDSA"}
	peers = []string{
		"ratchet-warm", "ratchet-cold", byHand, "cristalhq", "kataras", "go-jose", "jwx", "echo-jwt", "gin-jwt", "go-jwt-middleware", "jwtauth",
	}
	live = []string{"1", "1000", "30000"}
)

// byHand is the peer that the others are compared with.
const byHand = "golang-jwt"

var kinds = []struct{ id, text, head string }{
	{"expired", "an expired token", "expired"},
	{"bad-signature", "a bad signature", "bad signature"},
	{"no-token", "a request without a token", "no token"},
	{"16KiB-garbage", "16 KiB of garbage", "16 KiB of garbage"},
	{"16KiB-dots", "16 KiB of dots", "16 KiB of dots"},
}

// Names of benchmarks.
func protected(alg, peer string) string {
	if peer == "floor" || peer == "scs" {
		alg = "none"
	}
	return "Protected alg=" + alg + " peer=" + peer
}
func refused(kind, peer string) string { return "Refused alg=HS256 kind=" + kind + " peer=" + peer }
func loopback(peer string) string      { return "Loopback alg=HS256 peer=" + peer }
func parallel(peer string) string      { return "Parallel alg=HS256 peer=" + peer }
func liveTokens(alg, n string) string  { return "Live alg=" + alg + " peer=ratchet-warm live=" + n }
func liveFloor(n string) string        { return "Live alg=none peer=floor live=" + n }

func refusers() []string { return append([]string{"ratchet"}, peers[2:]...) }

// label is a peer's name for people.
func label(peer string) string {
	switch peer {
	case "floor", "none":
		return "no authentication"
	case "limit":
		return "signature check alone"
	case "ratchet":
		return "Ratchet"
	case "ratchet-warm":
		return "Ratchet, token seen before"
	case "ratchet-cold":
		return "Ratchet, new token"
	case byHand, "cristalhq", "kataras", "go-jose", "jwx":
		return peer + ", by hand"
	}
	return peer
}

// bold marks Ratchet in a table.
func bold(peer string) string {
	if strings.HasPrefix(peer, "ratchet") {
		return "**" + label(peer) + "**"
	}
	return label(peer)
}

type table struct{ b strings.Builder }

func newTable(heads ...string) *table {
	t := new(table)
	t.row(heads...)
	t.row(slices.Repeat([]string{"---"}, len(heads))...)
	return t
}

func (t *table) row(cells ...string) { t.b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

// page is what stands between the markers.
func page(r *results) string {
	var b strings.Builder
	count, spread := r.count()
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n\n", args...) }

	p("## The machine")
	p("%s, %s cores, %s, %s. Each figure is the median of %d runs of %s; at the median benchmark the quartiles lie %.0f %% apart.",
		r.about["cpu"], r.about["cores"], r.about["go"], r.about["date"], count, r.about["benchtime"], 100*spread)
	p("Measured beside Ratchet: %s.", r.about["peers"])
	if servers := r.about["servers"]; servers != "" {
		p("Servers, over loopback TCP: %s.", servers)
	}

	p("## A protected request")
	p("A handler behind the middleware, called through `ServeHTTP` with a writer that discards; it reads the subject. Every peer checks the algorithm, the signature, `exp`, `iss` and `aud`, and has all "+
		"claims for the handler; go-jwt-middleware lets a token without `exp` through, so that its handler looks at it. Libraries without a middleware have one written by hand, all the same one. Tokens are of %s bytes for the peers and %s for Ratchet, whose tokens say more (HS256). "+
		"*Token seen before*: Ratchet as it comes, which remembers what it verified. *New token*: the same with `Remember: -1`, so that every request is verified from the start. "+
		"*No authentication*: one value in the context, and the handler. *Signature check alone*: the key and the signature decoded and ready, nothing else.",
		number(r.get(protected("HS256", byHand)).tokens()), number(r.get(protected("HS256", "ratchet-cold")).tokens()))
	for _, c := range charts(r) {
		if strings.HasPrefix(c.file, "protected-") {
			p("![%s](img/%s)", c.alt, c.file)
		}
	}
	all := sorted(append([]string{"floor", "limit"}, peers...), func(peer string) float64 { return r.get(protected("HS256", peer)).time() })
	p("Time and allocations:")
	t := newTable(append([]string{""}, algs...)...)
	for _, peer := range append(all, "scs") {
		cells := []string{bold(peer)}
		if peer == "scs" {
			cells[0] = "scs (a session in memory, not a token)"
		}
		for _, alg := range algs {
			x := r.get(protected(alg, peer))
			if (peer == "floor" || peer == "scs") && alg != algs[0] || x == nil {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, duration(x.time())+", "+number(x.allocs))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String() + "\n")
	p("As a multiple of golang-jwt by hand, and (in brackets) of no authentication:")
	t = newTable(append([]string{""}, algs...)...)
	for _, peer := range all {
		if peer == "floor" {
			continue
		}
		cells := []string{bold(peer)}
		for _, alg := range algs {
			x := r.get(protected(alg, peer)).time()
			cells = append(cells, fmt.Sprintf("%s (%s)", ratio(x, r.get(protected(alg, byHand)).time()), ratio(x, r.get(protected(alg, "floor")).time())))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String() + "\n")

	p("## Many tokens at once")
	p("So many tokens used in turn, in no order that a processor could guess, all seen before. In brackets the multiple of no authentication with as many. " +
		"By default 65,536 have a place; the last column is with `Remember: 131072`.")
	t = newTable("", "1", "1,000", "30,000", "30,000, more remembered")
	cells := []string{label("floor")}
	for _, n := range live {
		cells = append(cells, duration(r.get(liveFloor(n)).time()))
	}
	t.row(append(cells, "")...)
	for _, alg := range algs {
		cells := []string{"**Ratchet, " + alg + "**"}
		for _, n := range append(live, "30000 remember=131072") {
			x := r.get(liveTokens(alg, n))
			count, _, _ := strings.Cut(n, " ")
			cells = append(cells, fmt.Sprintf("%s, %s (%s)", duration(x.time()), number(x.allocated()), ratio(x.time(), r.get(liveFloor(count)).time())))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String() + "\n")

	p("## One CPU and all")
	p("The protected request with HS256 and 1,000 tokens, from as many goroutines as CPUs.")
	cores := r.about["cores"]
	t = newTable("", "1 CPU", cores+" CPUs", "gain")
	for _, peer := range []string{"floor", "ratchet-warm", "ratchet-cold"} {
		one, more := r.on("1", parallel(peer)).time(), r.on(cores, parallel(peer)).time()
		t.row(bold(peer), duration(one), duration(more), ratio(one, more))
	}
	b.WriteString(t.b.String() + "\n")

	p("## Over TCP")
	p("The same with HS256 as a whole request, through `net/http` over loopback TCP with keep-alive, from a client that does as little as it can. From run to run the middle of such times moves by more than what lies between the first three, so read them as equal.")
	for _, c := range charts(r) {
		if c.file == "loopback.svg" {
			p("![%s](img/%s)", c.alt, c.file)
		}
	}
	t = newTable("", cores+" CPUs", "× none", "× golang-jwt", "1 CPU", "× none", "× golang-jwt")
	for _, peer := range []string{"none", "ratchet-warm", "ratchet-cold", byHand} {
		cells := []string{bold(peer)}
		for _, cpus := range []string{cores, "1"} {
			x := r.on(cpus, loopback(peer)).time()
			cells = append(cells, duration(x), ratio(x, r.on(cpus, loopback("none")).time()), ratio(x, r.on(cpus, loopback(byHand)).time()))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String() + "\n")

	p("## A refusal")
	p("HS256; writing the status, the headers and the body is part of it, and each peer writes what it does by default: Ratchet a challenge, `Cache-Control` and a JSON body that names the next step; " +
		"those by hand a challenge and a constant; jwtauth a line of text.")
	for _, c := range charts(r) {
		if strings.HasPrefix(c.file, "refused-") {
			p("![%s](img/%s)", c.alt, c.file)
		}
	}
	heads := []string{""}
	for _, k := range kinds {
		heads = append(heads, k.head)
	}
	order := sorted(refusers(), func(peer string) float64 { return r.get(refused("expired", peer)).time() })
	p("Time, allocations and bytes allocated:")
	t = newTable(heads...)
	for _, peer := range order {
		cells := []string{bold(peer)}
		for _, k := range kinds {
			x := r.get(refused(k.id, peer))
			cells = append(cells, fmt.Sprintf("%s, %s, %s", duration(x.time()), number(x.allocated()), size(x)))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String() + "\n")
	p("As a multiple of golang-jwt by hand:")
	t = newTable(heads...)
	for _, peer := range order {
		cells := []string{bold(peer)}
		for _, k := range kinds {
			cells = append(cells, ratio(r.get(refused(k.id, peer)).time(), r.get(refused(k.id, byHand)).time()))
		}
		t.row(cells...)
	}
	b.WriteString(t.b.String())
	for _, section := range []string{refreshes(r), winners(r), sessions(r), stored(r)} {
		if section != "" {
			b.WriteString("\n" + section)
		}
	}
	return b.String()
}

func (r *runs) tokens() []float64 {
	if r == nil {
		return nil
	}
	return r.token
}

func (r *runs) allocated() []float64 {
	if r == nil {
		return nil
	}
	return r.allocs
}

func size(r *runs) string {
	if r == nil {
		return "–"
	}
	if m := median(r.bytes); m >= 10_000 {
		return digits(m/1000) + " kB"
	}
	return number(r.bytes) + " B"
}

// sorted orders peers by time; those that were not measured are left out.
func sorted(peers []string, time func(string) float64) []string {
	var out []string
	for _, p := range peers {
		if !math.IsNaN(time(p)) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(time(a), time(b)) })
	return out
}

// reached compares with the goals, for those who work on the speed.
func reached(r *results) string {
	t := newTable("goal", "measured", "")
	add := func(goal string, got, most float64, text string) {
		mark := "yes"
		if math.IsNaN(got) {
			mark = "not measured"
		} else if got > most {
			mark = "NO"
		}
		t.row(goal, text, mark)
	}
	hand := r.get(protected("HS256", byHand)).time()
	cold := r.get(protected("HS256", "ratchet-cold"))
	add("new token, HS256: at most 0.2 × golang-jwt", cold.time()/hand, 0.2, ratio(cold.time(), hand))
	add("new token, HS256: at most 5 allocations", median(cold.allocated()), 5, number(cold.allocated()))
	for _, alg := range algs[1:] {
		over := r.get(protected(alg, "ratchet-cold")).time() - r.get(protected(alg, "limit")).time()
		add("new token, "+alg+": at most the signature check + 3 µs", over, 3000, "+ "+duration(over))
	}
	for _, alg := range algs {
		for i, n := range live[1:] {
			x := r.get(liveTokens(alg, n))
			limit := []float64{2, 6}[i]
			got := x.time() / r.get(liveFloor(n)).time()
			add(fmt.Sprintf("%s tokens seen before, %s: at most %.0f × the floor", n, alg, limit), got, limit, digits(got)+" ×")
			add(fmt.Sprintf("%s tokens seen before, %s: at most 2 allocations", n, alg), median(x.allocated()), 2, number(x.allocated()))
		}
	}
	for _, cpus := range []string{r.about["cores"], "1"} {
		for _, p := range []string{"ratchet-warm", "ratchet-cold"} {
			got := r.on(cpus, loopback(p)).time() / r.on(cpus, loopback("none")).time()
			add("over TCP, "+p+", "+cpus+" CPU: at most 1.1 × none", got, 1.1, digits(got)+" ×")
		}
	}
	gain := func(p string) float64 {
		return r.on("1", parallel(p)).time() / r.on(r.about["cores"], parallel(p)).time()
	}
	for _, p := range []string{"ratchet-warm", "ratchet-cold"} {
		add("more CPUs, "+p+": gain as that of the floor (within 10 %)", gain("floor")/gain(p), 1.1, digits(gain(p))+" × against "+digits(gain("floor"))+" ×")
	}
	for _, k := range kinds[:2] {
		got := r.get(refused(k.id, "ratchet")).time() / r.get(refused(k.id, byHand)).time()
		add("refused, "+k.head+": at most 0.25 × golang-jwt", got, 0.25, digits(got)+" ×")
	}
	reachedSessions(r, add)
	return t.b.String()
}
