package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

const (
	pictures   = "../../docs/img" // the directory of the README's pictures
	maxPicture = 60_000           // bytes
)

// TestPicture_ShowsThePage compares the text of the page with the text that was
// recorded with the pictures. It does not compare pixels, which depend on the
// version of Chromium and the fonts. With AUTH_WRITE_PICTURES=1 it takes the
// pictures and records the text:
//
//	AUTH_WRITE_PICTURES=1 go test -run TestPicture ./examples/quickstart
func TestPicture_ShowsThePage(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "chromium", "chromium")
	s := start(t, nil, "-addr", "127.0.0.1:0")
	second := newBrowser(t, t.TempDir())
	second.signIn(s.base, "Office desktop")
	first := newBrowser(t, t.TempDir())
	first.signIn(s.base, "Kitchen laptop")
	first.sees("devices", "Office desktop")
	first.do(chromedp.Click("#refresh"))
	first.sees("log", "Access token refreshed")
	first.do(chromedp.Click(`[data-get="/api/admin"]`))
	first.sees("response", "Only admins see this")
	first.sees("live-text", "Server time")
	first.do(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`))

	shown, err := chromedp.Run(first.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	require.NoError(t, err)
	style, err := os.ReadFile("site/web/style.css")
	require.NoError(t, err)
	exampletest.Pictures(t, pictures, "quickstart", withoutTimes(shown)+"\n", withoutLayout(style), maxPicture, first.picture)
}

// withoutTimes replaces everything in the text of the page that differs from
// run to run.
func withoutTimes(text string) string {
	for _, r := range [][2]string{
		{`\n\s*\n`, "\n"},
		{`(Signed in|Ends if idle|Ends at latest)\n.*`, "$1\nDATE"},
		{`\d{2}:\d{2}:\d{2}`, "TIME"},
		{`\d{1,2}:\d{2}`, "LEFT"},
		{`active (just now|\d+ s ago|\d+ min ago)`, "active AGO"},
		{`[\w-]{22}`, "ID"},
		{`HeadlessChrome|Chromium|Chrome`, "BROWSER"},
		{` on (Linux|macOS|Windows)`, " on SYSTEM"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return strings.TrimSpace(text)
}

// withoutLayout removes comments and white space from a style sheet.
func withoutLayout(style []byte) []byte {
	style = regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAll(style, nil)
	return regexp.MustCompile(`\s+`).ReplaceAll(style, nil)
}

// picture returns a screenshot of the whole page as a small PNG.
func (b browser) picture(scheme string) []byte {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	require.NoError(b.t, err)
	b.do(chromedp.EmulateViewport(960, 200))
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	full, err := png.Decode(bytes.NewReader(shot))
	require.NoError(b.t, err)
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	require.NoError(b.t, encoder.Encode(&out, withPalette(full)))
	return out.Bytes()
}

// withPalette reduces a picture to 256 colors: the most frequent ones that
// differ visibly. A page has few colors; most others are the edges of letters.
func withPalette(full image.Image) *image.Paletted {
	count := map[color.RGBA]int{}
	bounds := full.Bounds()
	each := func(f func(x, y int, c color.RGBA)) {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				f(x, y, color.RGBAModel.Convert(full.At(x, y)).(color.RGBA))
			}
		}
	}
	each(func(_, _ int, c color.RGBA) { count[c]++ })
	var colors []color.RGBA
	for c := range count {
		colors = append(colors, c)
	}
	slices.SortFunc(colors, func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], strings.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	var palette color.Palette
	for _, c := range colors {
		if len(palette) == 0 || len(palette) < 256 && distance(c, palette[palette.Index(c)].(color.RGBA)) > 4 {
			palette = append(palette, c)
		}
	}
	small := image.NewPaletted(bounds, palette)
	nearest := map[color.RGBA]uint8{}
	each(func(x, y int, c color.RGBA) {
		i, ok := nearest[c]
		if !ok {
			i = uint8(palette.Index(c))
			nearest[c] = i
		}
		small.SetColorIndex(x, y, i)
	})
	return small
}

func distance(a, b color.RGBA) int {
	abs := func(x, y uint8) int { return max(int(x), int(y)) - min(int(x), int(y)) }
	return abs(a.R, b.R) + abs(a.G, b.G) + abs(a.B, b.B)
}
