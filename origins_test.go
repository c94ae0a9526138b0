package auth_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// Every origin that New accepts is one that net/http trusts.
func TestTrustedOrigins_AcceptsWhatBrowsersSend(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{
		"https://app.example.com", "https://app.example.com:8443", "https://app.example.com:80", "https://xn--bcher-kva.example",
		"https://intranet", "https://my_host.example", "https://a--b.example", "https://1.example", "https://0xg.example", "https://192.0.2.1:65535",
		"https://[2001:db8::1]:8443", "https://[::ffff:c000:201]", "https://localhost", "https://[::1]",
		// WebViews and extensions.
		"capacitor://localhost", "ionic://localhost", "tauri://localhost", "http://tauri.localhost", "https://tauri.localhost",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://4fb8b2a2-6a6b-4f3a-9d0c-1c4a7b1d2e3f",
		"safari-web-extension://4FB8B2A2-6A6B-4F3A-9D0C-1C4A7B1D2E3F", "capacitor://MyApp", "app://-", "app://.", "vscode-webview://1a2b", "app+x.y-z://host:80",
		// http with a loopback host.
		"http://localhost", "http://localhost:3000", "http://app.localhost:5173", "http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:8080",
		"http://[::ffff:7f00:1]",
	} {
		require.Empty(t, newErrors(t, withCookies(func(c *auth.Cookies) { c.TrustedOrigins = []string{origin} })), origin)
		require.NoError(t, http.NewCrossOriginProtection().AddTrustedOrigin(origin))

		fx := newFixture(t, withCookies(func(c *auth.Cookies) { c.TrustedOrigins = []string{origin} }))
		for _, site := range []string{"", "cross-site", "same-site"} {
			r := newRequest(reqHeader("Origin", origin))
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				r.Method = method
				require.NoError(t, fx.CheckOrigin(r), origin)
			}
			r.Method = http.MethodGet
			r.Header.Set("Upgrade", "websocket")
			require.NoError(t, fx.CheckOrigin(r), origin)
		}
	}
	for _, origin := range []string{"http://app.example.com", "http://192.168.1.5:3000", "http://localhost:3000"} {
		require.Empty(t, newErrors(t, withCookiesOf(auth.Cookies{InsecureHTTP: true, TrustedOrigins: []string{origin}})), origin)
	}
}

func TestTrustedOrigins_RefusesWhatNeverMatches(t *testing.T) {
	t.Parallel()
	const (
		malformed = "not an origin such as https://app.example.com"
		edge      = "it begins or ends with a space; remove it"
		list      = "it contains a comma or a space; list every origin separately"
		upperCase = "browsers send origins in lower case"
		more      = "an origin is a scheme and a host, without path, user or trailing slash"
		port      = "browsers leave out the default port"
		ports     = "the port is not between 1 and 65535"
		zeros     = "browsers send ports without leading zeros"
		ascii     = "browsers send the host in its ASCII form (xn--…)"
		wildcard  = "wildcards are not supported; list every origin"
		decimal   = "browsers send an IPv4 address as four decimal numbers, such as 127.0.0.1"
		dot       = "the host ends with a dot; leave it out"
		label     = "a part of the host between dots has no characters or more than 63"
		letters   = "the host contains a character that no host name has; list every origin separately"
		insecure  = "anyone on the network can change a page that is loaded over http, and use the cookies through it; write https"
	)
	scheme := func(s string) string {
		return "browsers never send an origin with the scheme " + s + "; write the origin of the page, such as https://app.example.com"
	}
	for origin, text := range map[string]string{
		"null":                                            "any page can have the origin null, for example in a sandboxed frame; send tokens to such clients in bodies (AllowBody)",
		"":                                                malformed,
		"*":                                               malformed,
		"app.example.com":                                 malformed,
		"app.example.com:443":                             malformed,
		"//app.example.com":                               malformed,
		"https://":                                        malformed,
		"https:app.example.com":                           malformed,
		" https://app.example.com":                        edge,
		"https://app.example.com\n":                       edge,
		"https://a.example https://b.example":             list,
		"https://a.example,https://b.example":             list,
		"https://app.example.com ":                        edge,
		"https://app.example.com:port":                    malformed,
		"https://app.example.com:-1":                      malformed,
		"https://a b":                                     list,
		"https://[::1":                                    malformed,
		"https://[host]":                                  malformed,
		"https://[1.2.3.4]":                               malformed,
		"https://[::1%lo]":                                malformed,
		"blob:https://app.example.com":                    malformed,
		"chrome-extension://<id>":                         letters,
		"https://App.example.com":                         upperCase,
		"HTTPS://app.example.com":                         upperCase,
		"Capacitor://localhost":                           upperCase,
		"chrome-extension://ABCDEFGH":                     upperCase,
		"moz-extension://4FB8":                            upperCase,
		"https://[2001:DB8::1]":                           upperCase,
		"https://app.example.com/":                        more,
		"https://app.example.com/x":                       more,
		"https://app.example.com?":                        more,
		"https://app.example.com?x":                       more,
		"https://app.example.com#":                        more,
		"https://app.example.com#x":                       more,
		"https://u:p@app.example.com":                     more,
		"https://@app.example.com":                        more,
		"capacitor://localhost/":                          more,
		"tauri://user@localhost":                          more,
		"https://app.example.com:443":                     port,
		"http://localhost:80":                             port,
		"https://app.example.com:":                        port,
		"capacitor://localhost:":                          port,
		"https://app.example.com:0":                       ports,
		"https://app.example.com:65536":                   ports,
		"https://app.example.com:99999999999999999999":    ports,
		"https://app.example.com:0443":                    zeros,
		"https://app.example.com:08443":                   zeros,
		"https://bücher.example":                          ascii,
		"https://b%C3%BCcher.example":                     ascii,
		"https://[fe80::1%25eth0]":                        ascii,
		"capacitor://bücher":                              ascii,
		"https://*.example.com":                           wildcard,
		"https://*":                                       wildcard,
		"https://app.example.com:*":                       malformed,
		"chrome-extension://*":                            wildcard,
		"https://app.example.com.":                        dot,
		"https://localhost.:8080":                         dot,
		"https://app..example.com":                        label,
		"https://.example.com":                            label,
		"https://" + strings.Repeat("a", 64) + ".example": label,
		"https://a.example,b.example":                     list,
		"tauri://<host>":                                  letters,
		"tauri://a:b:80":                                  letters,
		"https://a:b:80":                                  malformed,
		"https://a.example;b.example":                     letters,
		"https://127.1":                                   decimal,
		"https://2130706433":                              decimal,
		"https://0x7f.0.0.1":                              decimal,
		"https://127.0.0.0x1":                             decimal,
		"https://127.0.0.01":                              decimal,
		"https://1.2.3.4.5":                               decimal,
		"https://256.0.0.1":                               decimal,
		"https://[0:0:0:0:0:0:0:1]":                       "browsers send this address as [::1]",
		"https://[2001:db8:0::1]":                         "browsers send this address as [2001:db8::1]",
		"https://[::ffff:192.0.2.1]":                      "browsers send this address as [::ffff:c000:201]",
		"https://[::192.0.2.1]":                           "browsers send this address as [::c000:201]",
		"ftp://app.example.com":                           scheme("ftp"),
		"wss://app.example.com":                           scheme("wss"),
		"ws://localhost":                                  scheme("ws"),
		"file://host":                                     scheme("file"),
		"http://app.example.com":                          insecure,
		"http://app.example.com:443":                      insecure,
		"http://192.168.1.5:3000":                         insecure,
		"http://localhost.example.com":                    insecure,
		"http://mylocalhost":                              insecure,
		"http://128.0.0.1":                                insecure,
		"http://[2001:db8::1]":                            insecure,
		"http://[::ffff:c000:201]":                        insecure,
	} {
		got := newErrors(t, withCookies(func(c *auth.Cookies) { c.TrustedOrigins = []string{"https://app.example.com", origin} }))
		require.Equal(t, []string{fmt.Sprintf("auth: Config.Cookies.TrustedOrigins[1] %q: %s", origin, text)}, got)
	}
}

func TestInsecureHTTP_RequiresAnIssuerWithoutTLS(t *testing.T) {
	t.Parallel()
	for _, i := range []string{"https://example.com", "HTTPS://example.com", "https:", "https://localhost:8080"} {
		want := fmt.Sprintf("Cookies.InsecureHTTP is set, but Config.Issuer %q is an https URL; "+
			"unset InsecureHTTP, or for development use an issuer such as http://localhost", i)
		require.Equal(t, []string{"auth: Config." + want}, newErrors(t, func(c *auth.Config) {
			c.Issuer, c.Cookies = i, &auth.Cookies{InsecureHTTP: true}
		}))
		require.Empty(t, newErrors(t, func(c *auth.Config) { c.Issuer, c.Cookies = i, &auth.Cookies{} }))
		_, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: i, Audience: []string{audience}, Keys: keysOf(accessSecret), Cookies: &auth.Cookies{InsecureHTTP: true},
		})
		require.EqualError(t, err, "auth: VerifierConfig."+strings.ReplaceAll(want, "Config.", "VerifierConfig."))
	}
	for _, i := range []string{devIssuer, "http://127.0.0.1", "my service", "httpsomething", "urn:https:x"} {
		require.Empty(t, newErrors(t, func(c *auth.Config) { c.Issuer, c.Cookies = i, &auth.Cookies{InsecureHTTP: true} }), i)
	}
}

func TestPartitioned_RequiresSameSiteNoneAndTLS(t *testing.T) {
	t.Parallel()
	const want = "auth: Config.Cookies.Partitioned requires SameSite None: without it, browsers send the cookies to no page of another site"
	trusted := []string{"https://app.example.org"}
	for _, mode := range []http.SameSite{0, http.SameSiteLaxMode, http.SameSiteStrictMode} {
		require.Equal(t, []string{want}, newErrors(t, withCookiesOf(auth.Cookies{Partitioned: true, SameSite: mode, TrustedOrigins: trusted})))
	}
	require.Equal(t, []string{"auth: Config.Cookies.SameSite is None, which requires Secure cookies, but InsecureHTTP is set"},
		newErrors(t, withCookiesOf(auth.Cookies{Partitioned: true, SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted, InsecureHTTP: true})))
	require.NotEmpty(t, newErrors(t, withCookiesOf(auth.Cookies{Partitioned: true, InsecureHTTP: true})))
	require.Empty(t, newErrors(t, withCookiesOf(auth.Cookies{Partitioned: true, SameSite: http.SameSiteNoneMode, TrustedOrigins: trusted})))
}

func TestCheckOrigin_ErrorShowsOriginAndHost(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	for _, tt := range []struct{ origin, host, site, want string }{
		{
			"https://app.example.com", "10.0.0.5:8080", "",
			`Origin "https://app.example.com" is not in Cookies.TrustedOrigins (Host "10.0.0.5:8080", Sec-Fetch-Site "")`,
		},
		{"", "example.com", "cross-site", `Origin "" is not in Cookies.TrustedOrigins (Host "example.com", Sec-Fetch-Site "cross-site")`},
		{
			"a\"\n\x1b\xff\u202eé" + strings.Repeat("x", 200), strings.Repeat("h", 101), strings.Repeat("s", 1000),
			`Origin "a\"\n\x1b\xff\u202e\u00e9` + strings.Repeat("x", 90) + `"… is not in Cookies.TrustedOrigins (Host "` + strings.Repeat("h", 100) +
				`"…, Sec-Fetch-Site "` + strings.Repeat("s", 100) + `"…)`,
		},
	} {
		r := newRequest(reqHeader("Origin", tt.origin))
		r.Method, r.Host = http.MethodPost, tt.host
		if tt.site != "" {
			r.Header.Set("Sec-Fetch-Site", tt.site)
		}
		err := fx.CheckOrigin(r)
		require.ErrorIs(t, err, auth.ErrCrossOrigin)
		require.EqualError(t, err, "auth: cross-origin request refused: "+tt.want)
		require.Equal(t, "the request comes from an origin that is not trusted; the server must list it in Cookies.TrustedOrigins", auth.ResponseFor(err).Description)
	}
}
