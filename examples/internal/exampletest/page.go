package exampletest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

// AuditText begins a function in JavaScript that examines a page. It adds to the
// list wrong the text with too little contrast (WCAG 2.2, 1.4.3) and the text that
// does not fit. The rest of the function can use what it declares.
const AuditText = `(() => {
	const wrong = [];
	const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility() && e.getBoundingClientRect().width > 0);
	const name = (e) => e.tagName + (e.id ? "#" + e.id : "") + " " + JSON.stringify(e.innerText?.slice(0, 40));
	const rgba = (text) => { const v = text.match(/[\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
	const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const contrast = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); };
	const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
	for (const e of shown("body *")) {
		const style = getComputedStyle(e);
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const ratio = contrast(rgba(style.color), ground(e));
		if (ratio < 4.5) wrong.push(name(e) + " has contrast " + ratio.toFixed(2));
		if (style.display !== "inline" && e.scrollWidth > e.clientWidth + 1) wrong.push(name(e) + " does not fit");
	}
`

// Pictures checks that the pictures NAME-light.png and NAME-dark.png in dir show the
// page that text and style describe, and that each is smaller than limit bytes. With
// AUTH_WRITE_PICTURES=1 it first writes what picture returns.
func Pictures(t testing.TB, dir, name, text string, style []byte, limit int, picture func(scheme string) []byte) {
	t.Helper()
	write := os.Getenv("AUTH_WRITE_PICTURES") == "1"
	file := func(base string, content func() []byte) []byte {
		path := filepath.Join(dir, base)
		if write {
			if err := os.WriteFile(path, content(), 0o644); err != nil { //nolint:gosec // it is published
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	record := text + "\nstyle.css " + digest(style) + "\n"
	for _, scheme := range []string{"light", "dark"} {
		base := name + "-" + scheme + ".png"
		b := file(base, func() []byte { return picture(scheme) })
		if len(b) >= limit {
			t.Fatalf("%s has %d bytes, and must have less than %d", base, len(b), limit)
		}
		record += base + " " + digest(b) + "\n"
	}
	if recorded := string(file(name+".txt", func() []byte { return []byte(record) })); recorded != record {
		t.Fatalf("the pictures show an older page; to renew them, run this test with AUTH_WRITE_PICTURES=1. Recorded:\n%s\nNow:\n%s", recorded, record)
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
