package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const printed = `# cpu: Some CPU
# cores: 2
BenchmarkProtected/alg=none/peer=floor-2  	 100	 100 ns/op	 368 B/op	 2 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 4000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 6000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=golang-jwt-2  	 100	 5000 ns/op	 337.0 token-bytes	 3792 B/op	 60 allocs/op
BenchmarkProtected/alg=HS256/peer=ratchet-warm-2  	 100	 500 ns/op	 436.0 token-bytes	 800 B/op	 2 allocs/op
BenchmarkLive/alg=HS256/peer=ratchet-warm/live=30000/remember=131072-2  	 100	 900 ns/op	 800 B/op	 2 allocs/op
BenchmarkParallel/alg=HS256/peer=floor  	 100	 170 ns/op	 368 B/op	 2 allocs/op
`

const printedSessions = `BenchmarkRefresh/store=memory/peer=ratchet-2  	 100	 2000 ns/op	 900 B/op	 40 allocs/op
BenchmarkRefresh/store=memory/peer=gin-jwt-2  	 100	 8000 ns/op	 900 B/op	 90 allocs/op
BenchmarkRefresh/store=redis/peer=floor-2  	 100	 100000 ns/op	 900 B/op	 30 allocs/op
BenchmarkRefresh/store=redis/peer=ratchet-2  	 100	 130000 ns/op	 900 B/op	 60 allocs/op
BenchmarkRefreshMany/store=redis/peer=ratchet-2  	 100	 50000 ns/op	 900 B/op	 60 allocs/op
BenchmarkTrips/store=redis/peer=ratchet-2  	 1	 50000 ns/op	 1.000 commands/op	 1.000 waits/op
BenchmarkWinners/store=memory/peer=ratchet-2  	 1	 50000 ns/op	 1.000 records	 32.00 served/op	 1.000 winners-max	 1.000 winners/op
BenchmarkWinners/store=redis/peer=gin-jwt-2  	 1	 50000 ns/op	 1.000 records	 29.50 served/op	 32.00 winners-max	 29.50 winners/op
BenchmarkSize/peer=ratchet-2  	 1	 50000 ns/op	 400.0 B/session	 160000000 gc-ns	 1000000 sessions	 111.0 text-B/session
BenchmarkWait/peer=ratchet/expire=false-2  	 1	 50000 ns/op	 900000 longest-ns	 5000 p999-ns
BenchmarkWait/peer=ratchet/expire=false-2  	 1	 50000 ns/op	 400000 longest-ns	 6000 p999-ns
BenchmarkWait/peer=ratchet/expire=true-2  	 1	 50000 ns/op	 600000 longest-ns	 5000 p999-ns
BenchmarkStored/store=redis/peer=ratchet-2  	 1	 50000 ns/op	 456.0 B/session	 100000 sessions	 111.0 text-B/session
`

func TestParse_ReadsWhatGoTestPrints(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed))
	require.NoError(t, err)
	require.Equal(t, "Some CPU", r.about["cpu"])
	require.InDelta(t, 5000, r.get(protected("HS256", byHand)).time(), 0)
	require.Equal(t, "60", number(r.get(protected("HS256", byHand)).allocs))
	require.Equal(t, "337", number(r.get(protected("HS256", byHand)).tokens()))
	require.InDelta(t, 900, r.get(liveTokens("HS256", "30000 remember=131072")).time(), 0)
	require.InDelta(t, 170, r.on("1", parallel("floor")).time(), 0)
	require.Nil(t, r.get("Protected alg=HS256 peer=nobody"))

	_, err = parse(strings.NewReader("PASS\n"))
	require.Error(t, err)
	_, err = parse(strings.NewReader(printed + "--- FAIL: BenchmarkProtected\n"))
	require.Error(t, err)
}

func TestPage_TellsOfSessionsOnlyIfTheyWereMeasured(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed))
	require.NoError(t, err)
	text := page(r)
	for _, head := range []string{"## A refresh\n", "## Many with one token", "## Sessions in memory", "## Sessions in a database"} {
		require.NotContains(t, text, head)
	}
	require.Contains(t, reached(r), "| a refresh in memory: at most 0.4 × gin-jwt | – | not measured |")

	r, err = parse(strings.NewReader(printed + printedSessions))
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
	} {
		require.Contains(t, text, row+"\n")
	}
	require.Contains(t, text, "(img/refresh.svg)")
	require.NotContains(t, text, "NaN")

	goals := reached(r)
	for _, row := range []string{
		"| a refresh in memory: at most 0.4 × gin-jwt | 0.25 × | yes |",
		"| a refresh on Redis: at most 1.2 × the bare handler | 1.30 × | NO |",
		"| a refresh on Redis: one round trip | 1.00 | yes |",
		"| many with one token, in memory: one winner | 1.00 | yes |",
		"| a session in memory: at most 300 B beside its text | 289 B | yes |",
		"| the longest operation while sessions are cleaned up: at most 1 ms more than idle | + 200 µs | yes |",
	} {
		require.Contains(t, goals, row+"\n")
	}
}

func TestCount_IsOfTimesOnly(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printedSessions))
	require.NoError(t, err)
	n, _ := r.count()
	require.Equal(t, 1, n, "the two observations of waiting are not two runs of a time")
}

func TestDuration_HasThreeDigits(t *testing.T) {
	t.Parallel()
	for ns, want := range map[float64]string{91.14: "91.1 ns", 999.4: "999 ns", 999.9: "1.00 µs", 1668: "1.67 µs", 46_575: "46.6 µs", 174_152: "174 µs", 1_500_000: "1.50 ms"} {
		require.Equal(t, want, duration(ns))
	}
}

func TestCharts_AreWellFormedAndTrueToScale(t *testing.T) {
	t.Parallel()
	r, err := parse(strings.NewReader(printed))
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

func TestBetween_ReplacesOnlyWhatIsBetweenTheMarkers(t *testing.T) {
	t.Parallel()
	got, err := between("before\n"+begin+"\nold\n"+end+"\nafter\n", "new\n")
	require.NoError(t, err)
	require.Equal(t, "before\n"+begin+"\nnew\n\n"+end+"\nafter\n", got)
	_, err = between("no markers", "new")
	require.Error(t, err)
	_, err = between(blank, "new")
	require.NoError(t, err)
}
