package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const printed = `# cpu: Some CPU
# cores: 2
BenchmarkProtected/alg=none/peer=none-2  	 100	 100 ns/op	 368 B/op	 2 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 4000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 6000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 5000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=ratchet-cached-2  	 100	 500 ns/op	 436.0 token-bytes	 800 B/op	 2 allocs/op
BenchmarkManyTokens/alg=HS256/peer=ratchet-cached/tokens=30000/cache=131072-2  	 100	 900 ns/op	 800 B/op	 2 allocs/op
BenchmarkRefused/alg=HS256/kind=expired/peer=ratchet-2  	 100	 1000 ns/op	 368 B/op	 2 allocs/op
BenchmarkRefused/alg=HS256/kind=expired/peer=kataras-2  	 100	 2000 ns/op	 368 B/op	 2 allocs/op
BenchmarkRefused/alg=HS256/kind=expired/peer=golang-jwt-2  	 100	 5000 ns/op	 368 B/op	 2 allocs/op
BenchmarkParallel/alg=HS256/peer=none  	 100	 170 ns/op	 368 B/op	 2 allocs/op
`

const printedSessions = `BenchmarkRefresh/store=memory/peer=ratchet-2  	 100	 2000 ns/op	 900 B/op	 40 allocs/op
BenchmarkRefresh/store=memory/peer=gin-jwt-2  	 100	 8000 ns/op	 900 B/op	 90 allocs/op
BenchmarkRefresh/store=redis/peer=bare-2  	 100	 100000 ns/op	 900 B/op	 30 allocs/op
BenchmarkRefresh/store=redis/peer=ratchet-2  	 100	 130000 ns/op	 900 B/op	 60 allocs/op
BenchmarkRefreshMany/store=redis/peer=ratchet-2  	 100	 50000 ns/op	 900 B/op	 60 allocs/op
BenchmarkRoundTrips/store=redis/peer=ratchet-2  	 1	 50000 ns/op	 1.000 commands/op	 1.000 round-trips/op
BenchmarkConcurrentRefresh/store=memory/peer=ratchet-2  	 1	 50000 ns/op	 1.000 records	 32.00 served/op	 1.000 successors-max	 1.000 successors/op
BenchmarkConcurrentRefresh/store=redis/peer=gin-jwt-2  	 1	 50000 ns/op	 1.000 records	 29.50 served/op	 32.00 successors-max	 29.50 successors/op
BenchmarkSize/peer=ratchet-2  	 1	 50000 ns/op	 400.0 B/session	 160000000 gc-ns	 1000000 sessions	 111.0 text-B/session
BenchmarkLatency/peer=ratchet/expire=false-2  	 1	 50000 ns/op	 900000 longest-ns	 5000 p999-ns
BenchmarkLatency/peer=ratchet/expire=false-2  	 1	 50000 ns/op	 400000 longest-ns	 6000 p999-ns
BenchmarkLatency/peer=ratchet/expire=true-2  	 1	 50000 ns/op	 600000 longest-ns	 5000 p999-ns
BenchmarkRevocation/store=redis/peer=ratchet-2  	 1	 50000 ns/op	 6000000 longest-ns	 1000000 median-ns	 2500000 p99-ns
BenchmarkStored/store=redis/peer=ratchet-2  	 1	 50000 ns/op	 456.0 B/session	 100000 sessions	 111.0 text-B/session
`

func TestParse_ReadsTheOutputOfGoTest(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed), "out")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"cpu": "Some CPU", "cores": "2"}, r.config)
	byHand := r.get(protected("HS256", byHand))
	require.InDelta(t, 5e-6, byHand.time(), 1e-12)
	require.InDelta(t, 4e-6, byHand.least("sec/op"), 1e-12)
	require.InDelta(t, 60, byHand.allocs(), 0)
	require.InDelta(t, 337, byHand.median("token-bytes"), 0)
	require.InDelta(t, 900e-9, r.get(manyTokens("HS256", "30000/cache=131072")).time(), 1e-12)
	require.InDelta(t, 170e-9, r.on("1", parallel("none")).time(), 1e-12)
	require.True(t, math.IsNaN(r.on("2", parallel("none")).time()), "it ran on one CPU only")
	require.True(t, math.IsNaN(r.get("Protected/alg=HS256/peer=unknown").time()))
}

func TestParse_RejectsFailuresAndMalformedLines(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no results":           "PASS\n",
		"a failed benchmark":   printed + "--- FAIL: BenchmarkProtected\n",
		"a failed run":         printed + "FAIL\n",
		"a line without units": printed + "BenchmarkRefused/alg=HS256-2 100 12\n",
		"a value in letters":   printed + "BenchmarkRefused/alg=HS256-2 100 twelve ns/op\n",
	} {
		_, err := parse(strings.NewReader(text), "out")
		require.ErrorContains(t, err, "out:", name)
	}
}

func TestPage_HasSectionsForWhatWasMeasured(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed), "out")
	require.NoError(t, err)
	text := page(r)
	for _, head := range []string{"## Refresh\n", "## Concurrent refreshes", "## Revocation", "## Sessions in memory", "## Sessions in a database"} {
		require.NotContains(t, text, head)
	}
	require.Contains(t, goals(r), "| a refresh in memory: at most 0.4 × gin-jwt | – | not measured |")

	r, err = parse(strings.NewReader(printed+printedSessions), "out")
	require.NoError(t, err)
	text = page(r)
	for _, row := range []string{
		"| **Ratchet, in memory** | 2.00 µs, 40 | 0.25 × |  |  |  |  |",
		"| **Ratchet, on Redis** | 130 µs, 60 |  | 1.30 × | 50.0 µs | 1 | 1 |",
		"| one bare script, on Redis | 100 µs, 30 |  |  |  |  |  |",
		"| **Ratchet, in memory** | 1.00 | 1 | 32.0 | 1 |",
		"| gin-jwt, on Redis | 29.5 | 32 | 29.5 | 1 |",
		"| **Ratchet** | 1,000,000 | 400 | 289 | 160 ms | 400 µs | 600 µs | 5.00 µs | 5.00 µs |",
		"| **Ratchet, on Redis (`used_memory`)** | 100,000 | 456 | 345 |",
		"| **Ratchet, on Redis** | 1.00 ms | 2.50 ms | 6.00 ms |",
	} {
		require.Contains(t, text, row+"\n")
	}
	require.Contains(t, text, "(img/refresh.svg)")
	require.NotContains(t, text, "NaN")

	reached := goals(r)
	for _, row := range []string{
		"| a refresh in memory: at most 0.4 × gin-jwt | 0.25 × | yes |",
		"| a refresh on Redis: at most 1.2 × the bare handler | 1.30 × | NO |",
		"| a refresh on Redis: one round trip | 1.00 | yes |",
		"| concurrent refreshes, in memory: one successor | 1.00 | yes |",
		"| a session in memory: at most 300 B besides the User-Agent | 289 B | yes |",
		"| the longest operation during cleanup: at most 1 ms longer than without | + 200 µs | yes |",
	} {
		require.Contains(t, reached, row+"\n")
	}
}

func TestPrecision_CountsBenchmarksOfTimeOnly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		printedSessions: "Each figure is one run of 1s.", // BenchmarkLatency ran twice, but does not measure the time of an operation
		printed: "Each figure is the median of 3 runs of 1s. " +
			"For the median benchmark, the slowest and the fastest run differ by 0 %.",
		strings.Repeat(one(90)+one(100)+one(110), 3): "Each figure is the median of 9 runs of 1s. " +
			"For the median benchmark, the 95 % confidence interval of the median is ± 10 %.",
		one(90) + one(110): "Each figure is the median of 2 runs of 1s. For the median benchmark, the slowest and the fastest run differ by 20 %.",
	} {
		r, err := parse(strings.NewReader("# benchtime: 1s\n"+text), "out")
		require.NoError(t, err)
		require.Equal(t, want, r.precision())
	}
}

// one returns the output of one run.
func one(ns int) string { return fmt.Sprintf("BenchmarkX-2 100 %d ns/op 0 B/op 0 allocs/op\n", ns) }

func TestDuration_HasThreeDigits(t *testing.T) {
	t.Parallel()
	for ns, want := range map[float64]string{
		0: "0.00 s", 91.14: "91.1 ns", 99.97: "100 ns", 999.4: "999 ns", 999.9: "1.00 µs",
		1668: "1.67 µs", 46_575: "46.6 µs", 174_152: "174 µs", 1_500_000: "1.50 ms", 2e9: "2.00 s",
	} {
		require.Equal(t, want, duration(ns/1e9))
	}
	require.Equal(t, "–", duration(math.NaN()))
}

func TestCharts_AreWellFormedAndTrueToScale(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed), "out")
	require.NoError(t, err)
	cs := charts(r)
	require.NotEmpty(t, cs)
	for _, c := range cs {
		d := xml.NewDecoder(strings.NewReader(string(c.svg())))
		for {
			if _, err = d.Token(); err != nil {
				break
			}
		}
		require.True(t, errors.Is(err, io.EOF), "%s: %v", c.file, err)
	}
	svg := string(cs[0].svg())
	require.Contains(t, svg, `<rect class="theirs" x="244" y="132" width="320.0"`)
	require.Contains(t, svg, `<rect class="ours" x="244" y="103" width="32.0"`)
	require.Contains(t, svg, "10.0 × as fast as golang-jwt")
}

func TestReplace_ReplacesOnlyTextBetweenTheMarkers(t *testing.T) {
	t.Parallel()
	got, err := replace("before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n", "x", "new\n")
	require.NoError(t, err)
	require.Equal(t, "before\n<!-- x:begin -->\nnew\n\n<!-- x:end -->\nafter\n", got)
	for _, text := range []string{"", "<!-- y:begin --><!-- y:end -->", "<!-- x:end --><!-- x:begin -->"} {
		_, err = replace(text, "x", "new")
		require.Error(t, err)
	}
}

func TestSummary_OmitsWhatWasNotMeasured(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed+printedSessions), "out")
	require.NoError(t, err)
	require.Equal(t, "## Summary\n\n- [Refusing](#refused-request) an expired token: 1.00 µs. The fastest other library (kataras) takes 2.00 µs.\n", summary(r))
}

// The generated parts of the page and the charts are those of the stored
// results. If this test fails, run bench/run -report.
func TestPerformance_MatchesTheStoredResults(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../results/latest.txt")
	require.NoError(t, err)
	r, err := parse(bytes.NewReader(text), "latest.txt")
	require.NoError(t, err)
	old, err := os.ReadFile("../../docs/performance.md")
	require.NoError(t, err)
	updated, err := update(string(old), r)
	require.NoError(t, err)
	require.Equal(t, updated, string(old))
	for _, c := range charts(r) {
		old, err := os.ReadFile("../../docs/img/" + c.file)
		require.NoError(t, err)
		require.Equal(t, string(c.svg()), string(old), c.file)
	}
	require.Len(t, strings.Split(strings.TrimSpace(summary(r)), "\n"), 12, "a line of the summary has no results")
	require.NotContains(t, page(r), "–", "a figure is missing")
	require.NotContains(t, page(r), "NaN")
	for _, link := range regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(summary(r), -1) {
		require.Contains(t, strings.ToLower(strings.ReplaceAll(updated, " ", "-")), "\n##-"+link[1]+"\n", "no heading for the link")
	}
}
