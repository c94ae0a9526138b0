package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// chart is a list of bars on one linear scale that begins at zero.
type chart struct {
	file     string
	title    string
	subtitle string
	alt      string
	bars     []bar
}

type kind string

const (
	ours      kind = "ours"
	theirs    kind = "theirs"
	reference kind = "reference" // a lower bound
)

type bar struct {
	label string
	note  string // after the value
	sec   float64
	kind  kind
}

// The dimensions of a chart in pixels.
const (
	chartWidth = 840
	labelWidth = 224
	noteWidth  = 256
	barHeight  = 20
	rowHeight  = 29
	headHeight = 74
	margin     = 20
)

// svg draws the chart on a card, in the light or dark colors of the reader's
// system.
func (c chart) svg() []byte {
	var most float64
	for _, b := range c.bars {
		most = math.Max(most, b.sec)
	}
	height := headHeight + len(c.bars)*rowHeight + margin
	var w bytes.Buffer
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>
.card{fill:#fff;stroke:#d0d7de}
text{font:14px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:18px;font-weight:600}
.subtitle,.note{fill:#59636e;font-weight:400}
.axis{stroke:#d0d7de}
.theirs{fill:#8c98a8}
.reference{fill:#d8dee6}
.ours{fill:#0f766e}
text.ours{fill:#0f766e;font-weight:700}
text.reference{fill:#59636e;font-style:italic}
@media (prefers-color-scheme:dark){
.card{fill:#0d1117;stroke:#3d444d}
text{fill:#e6edf3}
.subtitle,.note,text.reference{fill:#9198a1}
.axis{stroke:#3d444d}
.theirs{fill:#768390}
.reference{fill:#3a434e}
.ours{fill:#2dd4bf}
text.ours{fill:#2dd4bf}
}
</style>
<rect class="card" x=".5" y=".5" width="%d" height="%d" rx="10"/>
`, chartWidth, height, chartWidth, height, escape(c.alt), chartWidth-1, height-1)
	fmt.Fprintf(&w, `<text class="title" x="%d" y="34">%s</text>`+"\n", margin, escape(c.title))
	fmt.Fprintf(&w, `<text class="subtitle" x="%d" y="56">%s</text>`+"\n", margin, escape(c.subtitle))
	left := margin + labelWidth
	full := float64(chartWidth - left - noteWidth - margin)
	for i, b := range c.bars {
		y := headHeight + i*rowHeight
		class := ""
		if b.kind != theirs {
			class = fmt.Sprintf(` class="%s"`, b.kind)
		}
		length := full * b.sec / most
		fmt.Fprintf(&w, `<text%s x="%d" y="%d" text-anchor="end">%s</text>`, class, left-10, y+15, escape(b.label))
		fmt.Fprintf(&w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`, b.kind, left, y, length, barHeight)
		fmt.Fprintf(&w, `<text%s x="%.1f" y="%d">%s`, class, float64(left)+length+8, y+15, escape(micros(b.sec)))
		if b.note != "" {
			fmt.Fprintf(&w, `<tspan class="note"> · %s</tspan>`, escape(b.note))
		}
		fmt.Fprint(&w, "</text>\n")
	}
	fmt.Fprintf(&w, `<path class="axis" d="M%d.5 %dv%d"/>`+"\n</svg>\n", left-1, headHeight-6, len(c.bars)*rowHeight+3)
	return w.Bytes()
}

// micros formats seconds as microseconds, the unit of all values in charts.
func micros(sec float64) string { return digits(sec*1e6) + " µs" }

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// charts returns the charts of performance.md.
func charts(r *results) []chart {
	var out []chart
	for _, alg := range algs {
		c := chart{
			file:     "protected-" + strings.ToLower(alg) + ".svg",
			title:    "Protected request, " + alg,
			subtitle: "time in the middleware and the handler; shorter is better; linear scale",
		}
		for _, p := range append([]string{"none", "signature"}, peers...) {
			c.add(r, p, protected(alg, p), protected(alg, byHand))
		}
		out = c.appendTo(out)
	}
	for _, k := range kinds {
		if k.id != "expired" && k.id != "bad-signature" {
			continue
		}
		c := chart{
			file:     "refused-" + k.id + ".svg",
			title:    "Refusing " + k.text + ", HS256",
			subtitle: "time until the response is written; shorter is better; linear scale",
		}
		for _, p := range refusers() {
			c.add(r, p, refused(k.id, p), refused(k.id, byHand))
		}
		out = c.appendTo(out)
	}
	c := chart{
		file:     "loopback.svg",
		title:    "Whole request over loopback TCP, HS256",
		subtitle: "net/http with keep-alive, one client; shorter is better; linear scale",
	}
	for _, p := range []string{"none", "ratchet-cached", "ratchet-new", byHand} {
		c.add(r, p, loopback(p), loopback(byHand))
	}
	out = c.appendTo(out)
	c = chart{
		file:     "refresh.svg",
		title:    "Refresh",
		subtitle: "time from the request body to the response; shorter is better; linear scale",
	}
	for _, s := range refreshStores[:2] {
		for _, p := range s.peers {
			c.bar(bar{label: refreshLabel(s, p), sec: r.get(refresh(s.id, p)).time()}, p, "gin-jwt", r.get(refresh(s.id, "gin-jwt")).time())
		}
	}
	return c.appendTo(out)
}

// add appends the bar of a peer if it was measured.
func (c *chart) add(r *results, peer, name, byHand string) {
	c.bar(bar{label: label(peer), sec: r.get(name).time()}, peer, "golang-jwt", r.get(byHand).time())
}

// bar appends b if it was measured. The bar of Ratchet has a note how much faster
// it is than another peer.
func (c *chart) bar(b bar, peer, other string, than float64) {
	if math.IsNaN(b.sec) {
		return
	}
	b.kind = theirs
	switch {
	case peer == "none" || peer == "signature" || peer == "bare" || peer == "ping":
		b.kind = reference
	case strings.HasPrefix(peer, "ratchet"):
		b.kind = ours
		if than > b.sec {
			b.note = digits(than/b.sec) + " × as fast as " + other
		}
	}
	c.bars = append(c.bars, b)
}

func (c chart) appendTo(out []chart) []chart {
	if len(c.bars) == 0 {
		return out
	}
	slices.SortStableFunc(c.bars, func(a, b bar) int { return cmp.Compare(a.sec, b.sec) })
	var alt []string
	for _, b := range c.bars {
		alt = append(alt, b.label+" "+micros(b.sec))
	}
	c.alt = c.title + ": " + strings.Join(alt, ", ")
	return append(out, c)
}
