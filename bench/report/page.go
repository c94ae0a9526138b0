package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// replace replaces the text between the markers of a part of a page.
func replace(page, part, text string) (string, error) {
	begin, end := "<!-- "+part+":begin -->", "<!-- "+part+":end -->"
	i, j := strings.Index(page, begin), strings.Index(page, end)
	if i < 0 || j < i {
		return "", fmt.Errorf("no markers %s and %s", begin, end)
	}
	return page[:i+len(begin)] + "\n" + text + "\n" + page[j:], nil
}

// update replaces the generated parts of a page.
func update(text string, r *results) (string, error) {
	text, err := replace(text, "summary", summary(r))
	if err != nil {
		return "", err
	}
	return replace(text, "bench", page(r))
}

var (
	algs  = []string{"HS256", "RS256", "ES256", "EdDSA"}
	peers = []string{
		"ratchet-cached", "ratchet-new", byHand, "cristalhq", "kataras", "go-jose", "jwx", "echo-jwt", "gin-jwt", "go-jwt-middleware", "jwtauth",
	}
	others      = peers[2:]
	tokenCounts = []string{"1", "1000", "30000"}
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
	if peer == "none" || peer == "scs" {
		alg = "none"
	}
	return "Protected/alg=" + alg + "/peer=" + peer
}
func refused(kind, peer string) string { return "Refused/alg=HS256/kind=" + kind + "/peer=" + peer }
func loopback(peer string) string      { return "Loopback/alg=HS256/peer=" + peer }
func parallel(peer string) string      { return "Parallel/alg=HS256/peer=" + peer }
func manyTokens(alg, n string) string {
	return "ManyTokens/alg=" + alg + "/peer=ratchet-cached/tokens=" + n
}
func manyTokensWithoutAuth(n string) string { return "ManyTokens/alg=none/peer=none/tokens=" + n }

// refusers returns the peers whose refusals are measured.
func refusers() []string { return append([]string{"ratchet"}, others...) }

// label returns the name of a peer on the page.
func label(peer string) string {
	switch peer {
	case "none":
		return "no authentication"
	case "signature":
		return "signature check only"
	case "ratchet":
		return "Ratchet"
	case "ratchet-cached":
		return "Ratchet, cached token"
	case "ratchet-new":
		return "Ratchet, new token"
	case byHand, "cristalhq", "kataras", "go-jose", "jwx":
		return peer + ", by hand"
	}
	return peer
}

// bold returns text in bold if the peer is Ratchet.
func bold(peer, text string) string {
	if strings.HasPrefix(peer, "ratchet") {
		return "**" + text + "**"
	}
	return text
}

// section is a part of the page.
type section struct{ strings.Builder }

func (s *section) paragraph(format string, args ...any) { fmt.Fprintf(s, format+"\n\n", args...) }
func (s *section) table(t *table)                       { s.WriteString(t.b.String() + "\n") }

// charts adds the charts whose file name has a prefix.
func (s *section) charts(r *results, prefix string) {
	for _, c := range charts(r) {
		if strings.HasPrefix(c.file, prefix) {
			s.paragraph("![%s](img/%s)", c.alt, c.file)
		}
	}
}

// table is a table in Markdown.
type table struct{ b strings.Builder }

func newTable(heads ...string) *table {
	t := new(table)
	t.row(heads...)
	t.row(slices.Repeat([]string{"---"}, len(heads))...)
	return t
}

func (t *table) row(cells ...string) { t.b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

// page returns the results as sections. It leaves out the sections about
// refreshes and sessions whose benchmarks did not run.
func page(r *results) string {
	var s section
	for _, write := range []func(*section, *results){
		machine, protectedRequests, requestsWithManyTokens, requestsInParallel, requestsOverTCP, refusals, refreshes, concurrentRefreshes, revocations, memory, databases,
	} {
		write(&s, r)
	}
	return strings.TrimRight(s.String(), "\n") + "\n"
}

func machine(s *section, r *results) {
	s.paragraph("## Machine and method")
	s.paragraph("%s, %s cores, %s, %s. %s", r.config["cpu"], r.config["cores"], r.config["go"], r.config["date"], r.precision())
	s.paragraph("Other libraries: %s.", r.config["peers"])
	if servers := r.config["servers"]; servers != "" {
		s.paragraph("Servers, over loopback TCP: %s.", servers)
	}
}

func protectedRequests(s *section, r *results) {
	s.paragraph("## Protected request")
	s.paragraph("A request to a handler behind the middleware. The benchmark calls `ServeHTTP` with a writer that discards the response, and " +
		"the handler reads the subject. Every peer checks the algorithm, the signature, `exp`, `iss` and `aud`, and gives the handler all claims. " +
		"go-jwt-middleware accepts tokens without `exp`, so its handler checks that. Libraries without a middleware (\"by hand\") share one " +
		"that is written for this benchmark.")
	s.paragraph("An HS256 token has %s bytes for the peers and %s for Ratchet, which adds claims. *Cached token*: the default configuration, "+
		"with a token that was verified before. *New token*: with `TokenCacheSize: -1`, so that every request verifies the token. "+
		"*No authentication*: a middleware that only adds a value to the context. *Signature check only*: the cryptographic operation, with "+
		"key and signature decoded.",
		whole(r.get(protected("HS256", byHand)).median("token-bytes")), whole(r.get(protected("HS256", "ratchet-new")).median("token-bytes")))
	if redis, postgres := trips(r, "redis", "ratchet-protected"), trips(r, "postgres", "ratchet-protected"); redis != "" && postgres != "" {
		s.paragraph("Protected requests do not use the store: in 100,000 requests, counted on the wire, a request took %s round trips to "+
			"Redis and %s to PostgreSQL.", redis, postgres)
	}
	s.charts(r, "protected-")
	all := sorted(append([]string{"none", "signature"}, peers...), func(peer string) float64 { return r.get(protected("HS256", peer)).time() })
	s.paragraph("Time and allocations:")
	t := newTable(append([]string{""}, algs...)...)
	for _, peer := range append(all, "scs") {
		cells := []string{bold(peer, label(peer))}
		if peer == "scs" {
			cells[0] = "scs (sessions in memory, no tokens)"
		}
		for _, alg := range algs {
			x := r.get(protected(alg, peer))
			if (peer == "none" || peer == "scs") && alg != algs[0] || x == nil {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, duration(x.time())+", "+whole(x.allocs()))
		}
		t.row(cells...)
	}
	s.table(t)
	s.paragraph("As a multiple of golang-jwt by hand, and in parentheses of no authentication:")
	t = newTable(append([]string{""}, algs...)...)
	for _, peer := range all {
		if peer == "none" {
			continue
		}
		cells := []string{bold(peer, label(peer))}
		for _, alg := range algs {
			x := r.get(protected(alg, peer)).time()
			cells = append(cells, fmt.Sprintf("%s (%s)", ratio(x, r.get(protected(alg, byHand)).time()), ratio(x, r.get(protected(alg, "none")).time())))
		}
		t.row(cells...)
	}
	s.table(t)
}

func requestsWithManyTokens(s *section, r *results) {
	s.paragraph("## Many tokens")
	s.paragraph("Protected requests with many tokens in turn, in random order, all of them cached. In parentheses: the multiple of no " +
		"authentication with as many tokens. " +
		"The default cache has 65,536 slots; the last column is with `TokenCacheSize: 131072`.")
	t := newTable("", "1", "1,000", "30,000", "30,000, larger cache")
	cells := []string{label("none")}
	for _, n := range tokenCounts {
		cells = append(cells, duration(r.get(manyTokensWithoutAuth(n)).time()))
	}
	t.row(append(cells, "")...)
	for _, alg := range algs {
		cells := []string{"**Ratchet, " + alg + "**"}
		for _, n := range append(tokenCounts, "30000/cache=131072") {
			x := r.get(manyTokens(alg, n))
			n, _, _ := strings.Cut(n, "/")
			cells = append(cells, fmt.Sprintf("%s, %s (%s)",
				duration(x.time()), whole(x.allocs()), ratio(x.time(), r.get(manyTokensWithoutAuth(n)).time())))
		}
		t.row(cells...)
	}
	s.table(t)
}

func requestsInParallel(s *section, r *results) {
	cores := r.config["cores"]
	s.paragraph("## One CPU and all CPUs")
	s.paragraph("Protected requests with HS256 and 1,000 tokens, from one goroutine for each CPU.")
	t := newTable("", "1 CPU", cores+" CPUs", "gain")
	for _, peer := range []string{"none", "ratchet-cached", "ratchet-new"} {
		one, more := r.on("1", parallel(peer)).time(), r.on(cores, parallel(peer)).time()
		t.row(bold(peer, label(peer)), duration(one), duration(more), ratio(one, more))
	}
	s.table(t)
}

func requestsOverTCP(s *section, r *results) {
	cores := r.config["cores"]
	s.paragraph("## Over TCP")
	s.paragraph("A whole HS256 request through `net/http`, over loopback TCP with keep-alive, from a client that does as little as possible. " +
		"The medians of two runs of the benchmark can differ by more than the first three rows do, so these rows are equal within the noise.")
	s.charts(r, "loopback")
	t := newTable("", cores+" CPUs", "× none", "× golang-jwt", "1 CPU", "× none", "× golang-jwt")
	for _, peer := range []string{"none", "ratchet-cached", "ratchet-new", byHand} {
		cells := []string{bold(peer, label(peer))}
		for _, cpus := range []string{cores, "1"} {
			x := r.on(cpus, loopback(peer)).time()
			cells = append(cells, duration(x), ratio(x, r.on(cpus, loopback("none")).time()), ratio(x, r.on(cpus, loopback(byHand)).time()))
		}
		t.row(cells...)
	}
	s.table(t)
}

func refusals(s *section, r *results) {
	s.paragraph("## Refused request")
	s.paragraph("HS256, including the response, which is the default of each peer. Ratchet writes a challenge, `Cache-Control` and a JSON " +
		"body that names the next step; " +
		"the middleware that is written by hand writes a challenge and a constant body; jwtauth writes a line of text.")
	s.charts(r, "refused-")
	heads := []string{""}
	for _, k := range kinds {
		heads = append(heads, k.head)
	}
	order := sorted(refusers(), func(peer string) float64 { return r.get(refused("expired", peer)).time() })
	s.paragraph("Time, allocations and allocated bytes:")
	t := newTable(heads...)
	for _, peer := range order {
		cells := []string{bold(peer, label(peer))}
		for _, k := range kinds {
			x := r.get(refused(k.id, peer))
			cells = append(cells, fmt.Sprintf("%s, %s, %s", duration(x.time()), whole(x.allocs()), size(x.median("B/op"))))
		}
		t.row(cells...)
	}
	s.table(t)
	s.paragraph("As a multiple of golang-jwt by hand:")
	t = newTable(heads...)
	for _, peer := range order {
		cells := []string{bold(peer, label(peer))}
		for _, k := range kinds {
			cells = append(cells, ratio(r.get(refused(k.id, peer)).time(), r.get(refused(k.id, byHand)).time()))
		}
		t.row(cells...)
	}
	s.table(t)
}

// size formats a number of bytes.
func size(v float64) string {
	if v >= 10_000 {
		return digits(v/1000) + " kB"
	}
	return whole(v) + " B"
}

// sorted returns the peers that were measured, by time.
func sorted(peers []string, time func(string) float64) []string {
	out := slices.DeleteFunc(slices.Clone(peers), func(p string) bool { return math.IsNaN(time(p)) })
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(time(a), time(b)) })
	return out
}
