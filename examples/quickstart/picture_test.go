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
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

const (
	pictures   = "../../docs/img" // the directory of the README's pictures
	maxPicture = 60_000           // bytes
)

// TestPicture_ShowsThePage compares the text of the page in its main states with the
// text that was recorded with the pictures. It does not compare pixels, which depend on the
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

	style, err := os.ReadFile("site/web/style.css")
	require.NoError(t, err)
	picture := func(name string, width, height int64) {
		t.Helper()
		first.do(chromedp.EmulateViewport(width, 600), chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`))
		shown := withoutTimes(read[string](first, `document.body.innerText`)) + "\n"
		exampletest.Pictures(t, pictures, name, shown, withoutLayout(style), maxPicture, func(scheme string) []byte {
			return first.picture(scheme, width, height)
		})
	}
	picture("quickstart", 960, 0)
	picture("quickstart-narrow", 320, 640)

	require.NoError(t, s.stop())
	first.sees("offline", "The server does not answer.")
	first.sees("live-text", "Not connected")
	picture("quickstart-offline", 960, 600)

	s = start(t, nil, "-addr", "127.0.0.1:0", "-retry-window", "1s")
	_, err = chromedp.Call(first.ctx, network.ClearBrowserCookies, cdp.Empty{})
	require.NoError(t, err)
	first.do(chromedp.Navigate(s.base), chromedp.WaitVisible("#login"))
	picture("quickstart-signed-out", 960, 0)
	first.signIn(s.base, "Kitchen laptop")
	status, _ := do(t, "POST", s.base+"/auth/refresh", "", first.refreshToken())
	require.Equal(t, 200, status)
	time.Sleep(1100 * time.Millisecond) // the retry window, by the clock of the program
	first.do(chromedp.Click("#refresh"))
	first.sees("notice", theft)
	picture("quickstart-theft", 960, 0)
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

// picture returns a screenshot of the top of the page as a small PNG. If height is 0,
// it shows the whole page.
func (b browser) picture(scheme string, width, height int64) []byte {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	require.NoError(b.t, err)
	if height == 0 {
		b.do(chromedp.EmulateViewport(width, 200))
		height = read[int64](b, `document.documentElement.scrollHeight`)
	}
	b.do(chromedp.EmulateViewport(width, height))
	shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
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
