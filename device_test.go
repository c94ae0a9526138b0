package auth_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// from returns a request of a peer with X-Forwarded-For headers.
func from(peer string, forwarded ...string) *http.Request {
	r := newRequest()
	r.RemoteAddr = peer
	if forwarded != nil {
		r.Header["X-Forwarded-For"] = forwarded
	}
	return r
}

func TestDevice_AddressIsThatOfTheConnection(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for peer, want := range map[string]string{
		"203.0.113.9:4711":          "203.0.113.9",
		"[2001:db8::1]:443":         "2001:db8::1",
		"[::ffff:203.0.113.9]:4711": "203.0.113.9",
		"[fe80::1%eth0]:1":          "fe80::1",
		"@":                         "invalid IP",
		"":                          "invalid IP",
		"203.0.113.9":               "invalid IP",
		"example.com:80":            "invalid IP",
		"203.0.113.999:80":          "invalid IP",
	} {
		require.Equal(t, want, fx.Device(from(peer)).IP.String(), peer)
		require.Equal(t, want, fx.Device(from(peer, "198.51.100.1")).IP.String(), "no proxy is trusted")
		r := from(peer)
		r.Header.Set("X-Real-Ip", "198.51.100.1")
		r.Header.Set("Forwarded", "for=198.51.100.1")
		require.Equal(t, want, fx.Device(r).IP.String())
	}
	require.Equal(t, netip.Addr{}, fx.Device(from("@")).IP)
}

func TestDevice_ReadsForwardedAddressesFromTheEnd(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}
	})
	for _, tt := range []struct {
		name      string
		peer      string
		forwarded []string
		want      string
	}{
		{"not a proxy", "203.0.113.9:1", []string{"198.51.100.1"}, "203.0.113.9"},
		{"proxy without a header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"proxy with an empty header", "10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"one hop", "10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"spoofed on the left", "10.0.0.1:1", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"},
		{"a proxy spoofed on the left", "10.0.0.1:1", []string{"1.2.3.4, 10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		{"several proxies", "10.0.0.1:1", []string{"1.2.3.4, 198.51.100.1, 10.0.0.3, 2001:db8:ffff::2"}, "198.51.100.1"},
		{"several headers", "10.0.0.1:1", []string{"1.2.3.4", "198.51.100.1", "10.0.0.3,10.0.0.2"}, "198.51.100.1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage stops", "10.0.0.1:1", []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"garbage at the end stops", "10.0.0.1:1", []string{"198.51.100.1, <script>"}, "10.0.0.1"},
		{"empty hop stops", "10.0.0.1:1", []string{"198.51.100.1,,10.0.0.2"}, "10.0.0.2"},
		{"ports", "10.0.0.1:1", []string{"198.51.100.1:4711, [2001:db8:ffff::2]:80, 10.0.0.2:80"}, "198.51.100.1"},
		{"v6", "[2001:db8:ffff::1]:1", []string{"2001:db8::9"}, "2001:db8::9"},
		{"v6 with port", "10.0.0.1:1", []string{"[2001:db8::9]:5"}, "2001:db8::9"},
		{"mapped", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1, ::ffff:10.0.0.2"}, "198.51.100.1"},
		{"zone", "10.0.0.1:1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"blanks", "10.0.0.1:1", []string{" \t198.51.100.1 "}, "198.51.100.1"},
		{"no address", "@", []string{"198.51.100.1"}, "invalid IP"},
	} {
		require.Equal(t, tt.want, fx.Device(from(tt.peer, tt.forwarded...)).IP.String(), tt.name)
	}
}

func TestDevice_TrustedProxiesAreCopiedAndChecked(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	fx := newFixture(t, func(c *auth.Config) { c.TrustedProxies = proxies })
	proxies[0] = netip.MustParsePrefix("0.0.0.0/0")
	require.Equal(t, "203.0.113.9", fx.Device(from("203.0.113.9:1", "198.51.100.1")).IP.String())
	_, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(),
		TrustedProxies: make([]netip.Prefix, 1),
	})
	require.ErrorContains(t, err, "auth: Config.TrustedProxies[0]")
}

func TestDevice_UserAgentIsCleaned(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for text, want := range map[string]string{
		"":                                       "",
		"curl/8.0":                               "curl/8.0",
		"  curl  ":                               "curl",
		"Mozilla/5.0 (ä; 日本) 🦊":                  "Mozilla/5.0 (ä; 日本) 🦊",
		"a\r\nb\tc\x00d\x1b[31me\x7ff\u0085g":    "abcd[31mefg",
		"a\u202eb\u2066c\u200fd\u200be\ufefff":   "abcdef",
		"a\u2028b\u2029c\u00add\U000e0041e":      "abcde",
		"a\xffb\xc3(c\xed\xa0\x80d\ufffde":       "ab(cde",
		"\u202e \x00":                            "",
		strings.Repeat("x", 256):                 strings.Repeat("x", 256),
		strings.Repeat("x", 257):                 strings.Repeat("x", 256),
		strings.Repeat("x", 100_000):             strings.Repeat("x", 256),
		strings.Repeat("é", 200):                 strings.Repeat("é", 128),
		"x" + strings.Repeat("é", 200):           "x" + strings.Repeat("é", 127),
		"xy" + strings.Repeat("日", 5000):         "xy" + strings.Repeat("日", 84),
		"xyz" + strings.Repeat("🦊", 5000):        "xyz" + strings.Repeat("🦊", 63),
		strings.Repeat("\u202e", 300) + "hidden": strings.Repeat("\u202e", 300)[:0] + "hidden",
		strings.Repeat("\x00", 2000) + "hidden":  "",
	} {
		got := fx.Device(newRequest(reqHeader("User-Agent", text))).UserAgent
		require.Equal(t, want, got, "%q", text)
		require.True(t, utf8.ValidString(got))
		require.LessOrEqual(t, len(got), 256)
	}
}

func FuzzDevice(f *testing.F) {
	fx := newFixture(f, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	f.Add("10.0.0.1:1", "1.2.3.4, 10.0.0.2", "curl\xff\u202e")
	f.Add("[::1]:1", "x", strings.Repeat("é", 300))
	f.Fuzz(func(t *testing.T, peer, forwarded, agent string) {
		r := from(peer, forwarded)
		r.Header.Set("User-Agent", agent)
		d := fx.Device(r)
		require.True(t, utf8.ValidString(d.UserAgent))
		require.LessOrEqual(t, len(d.UserAgent), 256)
		require.Empty(t, strings.Map(func(r rune) rune {
			if r < 0x20 || r == 0x7f || r == 0x202e || r == 0x2028 {
				return r
			}
			return -1
		}, d.UserAgent))
		require.Empty(t, d.IP.Zone())
		require.False(t, d.IP.Is4In6())
	})
}
