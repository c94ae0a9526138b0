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
