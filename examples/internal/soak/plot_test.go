package soak

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The dimensions of the plot in pixels.
const (
	plotWidth   = 840
	plotLeft    = 96
	plotTop     = 84
	panelWidth  = 172
	panelHeight = 72
	panelGap    = 12
	rowGap      = 26
)

// plotRows are the rows of panels. The panels of a row have one scale.
var plotRows = []struct {
	title  string
	format string
	unit   float64
	of     func(sample) float64
}{
	{"heap", "%.0f MiB", 1 << 20, func(m sample) float64 { return m.state.Heap }},
	{"resident", "%.0f MiB", 1 << 20, func(m sample) float64 { return m.state.RSS }},
	{"goroutines", "%.0f", 1, func(m sample) float64 { return m.state.Goroutines }},
	{"requests/s", "%.0f", 1, func(m sample) float64 { return m.rate }},
}

// plot draws the samples of each store, in the light or dark colors of the reader's
// system.
func plot(soaks []*soak, duration time.Duration) []byte {
	height := plotTop + len(plotRows)*(panelHeight+rowGap) + 4
	var w bytes.Buffer
	var alt []string
	for _, s := range soaks {
		before, after := quarters(s.samples, func(m sample) float64 { return m.state.Heap })
		goroutines, later := quarters(s.samples, func(m sample) float64 { return m.state.Goroutines })
		alt = append(alt, fmt.Sprintf("%s: heap %.1f MiB in the second quarter and %.1f MiB in the last one, goroutines %.0f and %.0f",
			s.store, before/(1<<20), after/(1<<20), goroutines, later))
	}
	length := fmt.Sprintf("%.0f minutes", duration.Minutes())
	if duration < 2*time.Minute {
		length = fmt.Sprintf("%.0f seconds", duration.Seconds())
	}
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>
.card{fill:#fff;stroke:#d0d7de}
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:18px;font-weight:600}
.store{font-weight:600}
.note{fill:#59636e}
.axis{stroke:#d0d7de;fill:none}
.restart{stroke:#59636e;stroke-dasharray:2 3}
.curve{fill:none;stroke:#0f766e;stroke-width:1.5;stroke-linejoin:round}
@media (prefers-color-scheme:dark){
.card{fill:#0d1117;stroke:#3d444d}
text{fill:#e6edf3}
.note{fill:#9198a1}
.axis{stroke:#3d444d}
.restart{stroke:#9198a1}
.curve{stroke:#2dd4bf}
}
</style>
<rect class="card" x=".5" y=".5" width="%d" height="%d" rx="10"/>
<text class="title" x="20" y="32">%s of load on two nodes</text>
<text class="note" x="20" y="54">both nodes together; the heap is what is in use after a collection; dashed: a node or the server restarts</text>
`, plotWidth, height, plotWidth, height, escape(strings.Join(alt, "; ")), plotWidth-1, height-1, length)
	for r, row := range plotRows {
		most := 0.0
		for _, s := range soaks {
			for _, m := range s.samples {
				most = math.Max(most, row.of(m)/row.unit)
			}
		}
		most = nice(most)
		top := plotTop + r*(panelHeight+rowGap)
		fmt.Fprintf(&w, `<text class="note" x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, top+panelHeight/2+4, row.title)
		fmt.Fprintf(&w, `<text class="note" x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, top+10, fmt.Sprintf(row.format, most))
		fmt.Fprintf(&w, `<text class="note" x="%d" y="%d" text-anchor="end">0</text>`+"\n", plotLeft-8, top+panelHeight)
		for i, s := range soaks {
			left := plotLeft + i*(panelWidth+panelGap)
			x := func(at time.Duration) float64 {
				return float64(left) + panelWidth*math.Min(1, at.Seconds()/duration.Seconds())
			}
			if r == 0 {
				fmt.Fprintf(&w, `<text class="store" x="%d" y="%d">%s</text>`+"\n", left, top-8, escape(s.store))
			}
			fmt.Fprintf(&w, `<path class="axis" d="M%d.5 %dv%dh%d"/>`+"\n", left, top, panelHeight, panelWidth)
			for _, p := range s.restarts {
				fmt.Fprintf(&w, `<path class="restart" d="M%.1f %dv%d"/>`+"\n", x(p.from.Sub(s.began)), top, panelHeight)
			}
			var d strings.Builder
			for j, m := range s.samples {
				letter := "L"
				if j == 0 {
					letter = "M"
				}
				fmt.Fprintf(&d, "%s%.1f %.1f", letter, x(m.at), float64(top)+panelHeight*(1-row.of(m)/row.unit/most))
			}
			fmt.Fprintf(&w, `<path class="curve" d="%s"/>`+"\n", d.String())
			if r == len(plotRows)-1 {
				fmt.Fprintf(&w, `<text class="note" x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left+panelWidth, top+panelHeight+18, length)
			}
		}
	}
	w.WriteString("</svg>\n")
	return w.Bytes()
}

// nice returns the end of an axis for values up to v.
func nice(v float64) float64 {
	if v <= 0 {
		return 1
	}
	step := math.Pow(10, math.Max(0, math.Floor(math.Log10(v))-1)) * 5
	return math.Ceil(v/step) * step
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// TestPlot_IsWellFormed draws a plot, also of a run without samples.
func TestPlot_IsWellFormed(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	s := &soak{store: "A & B", began: begin, restarts: []period{{begin.Add(time.Second), begin.Add(2 * time.Second)}}}
	for i := range 10 {
		s.samples = append(s.samples, sample{at: time.Duration(i) * time.Second, rate: 100, state: processState{Heap: 5 << 20, RSS: 61 << 20, Goroutines: 40}})
	}
	for _, soaks := range [][]*soak{nil, {{store: "empty"}}, {s, s, s, s}} {
		decoder := xml.NewDecoder(bytes.NewReader(plot(soaks, 10*time.Second)))
		decoder.Strict = true
		for {
			_, err := decoder.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
	}
	require.Contains(t, string(plot([]*soak{s}, 10*time.Second)), "65 MiB")
	require.NotContains(t, string(plot([]*soak{s}, 10*time.Second)), "NaN")
}
