package auth_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestTrustedProxies_MustNotContainEveryPublicAddress(t *testing.T) {
	t.Parallel()
	every := func(version string) string {
		return "TrustedProxies contains every public " + version + " address, so any client could choose its address by X-Forwarded-For; " +
			"list only the networks of your proxies, such as 10.0.0.0/8"
	}
	const mapped = "TrustedProxies[%d] (%s) matches no address; write it as an IPv4 prefix, %s"
	for _, tt := range []struct {
		prefixes string
		want     []string
	}{
		{"0.0.0.0/0", []string{every("IPv4")}},
		{"10.0.0.0/0", []string{every("IPv4")}},
		{"::/0", []string{every("IPv6")}},
		{"0.0.0.0/0 ::/0", []string{every("IPv4"), every("IPv6")}},
		{"10.0.0.0/8 ::/0 192.0.2.0/24", []string{every("IPv6")}},
		{"0.0.0.0/1 128.0.0.0/1", []string{every("IPv4")}},
		{"192.0.0.0/2 64.0.0.0/2 128.0.0.0/2 0.0.0.0/2", []string{every("IPv4")}},
		{"0.0.0.0/1 128.0.0.0/2 192.0.0.0/3", []string{every("IPv4")}},                                                      // all but multicast and reserved addresses
		{"0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/2 128.0.0.0/1", []string{every("IPv4")}}, // all but 10.0.0.0/8
		{"::/1", []string{every("IPv6")}},
		{"2000::/3", []string{every("IPv6")}},
		{"2000::/4 3000::/4", []string{every("IPv6")}},
		{"::ffff:0:0/96", []string{every("IPv4")}},
		{"::ffff:0:0/95", []string{every("IPv4")}},
		{"::ffff:1.2.3.4/0", []string{every("IPv4")}},
		{"::ffff:0.0.0.0/97 ::ffff:128.0.0.0/97", []string{
			fmt.Sprintf(mapped, 0, "::ffff:0.0.0.0/97", "0.0.0.0/1"), fmt.Sprintf(mapped, 1, "::ffff:128.0.0.0/97", "128.0.0.0/1"), every("IPv4"),
		}},
		{"::ffff:192.0.2.0/120", []string{fmt.Sprintf(mapped, 0, "::ffff:192.0.2.0/120", "192.0.2.0/24")}},

		{"10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 240.0.0.0/4 fc00::/7 fe80::/10 ::1/128", nil},
		{"0.0.0.0/1 128.0.0.0/2", nil}, // not 193.0.0.0/8, for example
		{"2000::/4 3000::/5 3800::/6", nil},
		{"10.1.2.3/8", nil},
		{"203.0.113.9/32 2001:db8::9/128", nil},
		{"", nil},
	} {
		var prefixes []netip.Prefix
		for _, p := range strings.Fields(tt.prefixes) {
			prefixes = append(prefixes, netip.MustParsePrefix(p))
		}
		var want []string
		for _, line := range tt.want {
			want = append(want, "auth: Config."+line)
		}
		require.Equal(t, want, newErrors(t, func(c *auth.Config) { c.TrustedProxies = prefixes }), tt.prefixes)
	}
	_, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), TrustedProxies: []netip.Prefix{netip.MustParsePrefix("::/0")},
	})
	require.EqualError(t, err, "auth: VerifierConfig."+every("IPv6"))
}

// TestDevice_OfUnixSockets uses a server on a Unix socket, with and without a
// reverse proxy in front of it.
func TestDevice_OfUnixSockets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "auth") // the path of a Unix socket is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	private := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}
	distrusts := newFixture(t, func(c *auth.Config) { c.TrustedProxies = private })
	trusts := newFixture(t, func(c *auth.Config) { c.TrustedProxies, c.TrustUnixPeers = private, true })
	verifier, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret), TrustUnixPeers: true,
	})
	require.NoError(t, err)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if remote, ok := r.Header["Remote"]; ok { // as middleware may do
			r.RemoteAddr = remote[0]
		}
		_, _ = fmt.Fprint(w, distrusts.Device(r).IP, " ", trusts.Device(r).IP, " ", verifier.Device(r).IP)
	})
	serve := func(network, address string) net.Listener {
		ln, err := net.Listen(network, address)
		require.NoError(t, err)
		server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(ln) }()
		t.Cleanup(func() { _ = server.Close() })
		return ln
	}
	socket := filepath.Join(dir, "s")
	serve("unix", socket)
	// get sends a request from a socket with the name local, or without a name.
	get := func(local string, headers ...requestOption) string {
		t.Helper()
		d := &net.Dialer{}
		if local != "" {
			d.LocalAddr = &net.UnixAddr{Name: local, Net: "unix"}
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		}}
		defer transport.CloseIdleConnections()
		r := httptest.NewRequest(http.MethodGet, "http://server/", nil)
		for _, o := range headers {
			o(r)
		}
		r.RequestURI = ""
		res, err := transport.RoundTrip(r)
		require.NoError(t, err)
		return readResponse(t, res).body
	}
	const none = "invalid IP"
	for _, local := range []string{"", filepath.Join(dir, "client")} {
		forwarded := func(values ...string) string {
			t.Helper()
			_ = os.Remove(local)
			return get(local, reqHeader("X-Forwarded-For", values...))
		}
		require.Equal(t, none+" "+none+" "+none, forwarded())
		require.Equal(t, none+" 198.51.100.1 198.51.100.1", forwarded("198.51.100.1"))
		require.Equal(t, none+" 198.51.100.1 198.51.100.1", forwarded("1.2.3.4, 198.51.100.1"))
		require.Equal(t, none+" 198.51.100.1 10.0.0.2", forwarded("1.2.3.4", "198.51.100.1, 10.0.0.2"))
		require.Equal(t, none+" 10.0.0.3 10.0.0.2", forwarded("10.0.0.3, 10.0.0.2"))
		require.Equal(t, none+" "+none+" "+none, forwarded("198.51.100.1, <script>"))
	}

	// A reverse proxy appends the address of its client.
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "server"})
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	})
	t.Cleanup(proxy.Close)
	through := func(address string) string {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, address, nil)
		require.NoError(t, err)
		r.Header.Set("X-Forwarded-For", "198.51.100.1")
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		return readResponse(t, res).body
	}
	require.Equal(t, none+" 198.51.100.1 127.0.0.1", through(proxy.URL))

	// TrustUnixPeers does not apply to TCP, even if middleware replaces
	// RemoteAddr by a value that is no address and port.
	tcp := "http://" + serve("tcp", "127.0.0.1:0").Addr().String()
	require.Equal(t, "198.51.100.1 198.51.100.1 127.0.0.1", through(tcp))
	for _, remote := range []string{"@", "", "203.0.113.9", socket} {
		r, err := http.NewRequest(http.MethodGet, tcp, nil)
		require.NoError(t, err)
		r.Header["Remote"], r.Header["X-Forwarded-For"] = []string{remote}, []string{"198.51.100.1"}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.Equal(t, none+" "+none+" "+none, readResponse(t, res).body, remote)
	}
	// A request that no server has received is over no Unix socket.
	require.Equal(t, netip.Addr{}, trusts.Device(from("@", "198.51.100.1")).IP)
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

func TestDevice_SourceIsAnAddressOrANetwork(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "64:ff9b::c000:201": "192.0.2.1", "::1": "::/64",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "2001:db8:1:2:ffff::": "2001:db8:1:2::/64", "2001:db8:1:3::4": "2001:db8:1:3::/64",
		"fe80::1%eth0": "fe80::/64", "64:ff9b:1::c000:201": "64:ff9b:1::/64",
	} {
		require.Equal(t, want, auth.Device{IP: netip.MustParseAddr(ip)}.Source(), ip)
	}
	require.Empty(t, auth.Device{UserAgent: "x"}.Source())
}
