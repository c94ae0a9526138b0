package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// clientIP is the address of the client that the proxy sees.
const clientIP = "203.0.113.7"

// startProxy starts a proxy with TLS, which appends the address of its client to
// X-Forwarded-For. replaceHost says that it replaces the header Host. The server
// behind it is set later.
func startProxy(t *testing.T, replaceHost bool) (origin string, client *http.Client, setServer func(net.Addr)) {
	t.Helper()
	var server net.Addr
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "backend.internal"})
			if !replaceHost {
				p.Out.Host = p.In.Host
			}
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			p.SetXForwarded()
		},
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, server.Network(), server.String())
		}},
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = net.JoinHostPort(clientIP, "40000")
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	client = s.Client()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client.Jar = jar
	return s.URL, client, func(addr net.Addr) { server = addr }
}

// browse sends a request as a browser does, and returns the response and its body.
func browse(t *testing.T, client *http.Client, method, to string, form url.Values, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Accept", "text/html,*/*;q=0.8")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func signIn(t *testing.T, client *http.Client, origin, next string) (*http.Response, string) {
	t.Helper()
	return browse(t, client, "POST", origin+"/app/login", url.Values{
		"login": {"ada"}, "password": {"correct horse battery staple"}, "next": {next},
	}, "Origin", origin, "Sec-Fetch-Site", "same-origin")
}

// requireHandshake requires that a WebSocket handshake, which Chromium sends
// without Sec-Fetch-Site, gets the status. The page is no WebSocket, so 200 means
// that the request was let through.
func requireHandshake(t *testing.T, client *http.Client, status int, origin, page string) {
	t.Helper()
	resp, body := browse(t, client, "GET", origin+"/app/ws", nil, "Origin", page, "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	require.Equal(t, status, resp.StatusCode, body)
}

func TestProxy_UsersSeeOneSite(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ replaceHost, unix bool }{
		"TCP":                         {false, false},
		"TCP, the Host is replaced":   {true, false},
		"Unix socket":                 {false, true},
		"Unix socket, other Host too": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin, client, setServer := startProxy(t, tt.replaceHost)
			c, err := config(origin, "127.0.0.0/8,::1/128")
			require.NoError(t, err)
			c.OnEvent = nil // authtest logs to t
			a := authtest.New(t, c)
			var socket string
			if tt.unix {
				socket = filepath.Join(t.TempDir(), "http.sock")
			}
			listener, err := listen("127.0.0.1:0", socket)
			require.NoError(t, err)
			server := &http.Server{Handler: routes(a.Authenticator)}
			go func() { _ = server.Serve(listener) }()
			t.Cleanup(func() { _ = server.Close() })
			setServer(listener.Addr())

			page := origin + "/app/notes?page=2"
			resp, body := browse(t, client, "GET", page, nil)
			require.Equal(t, origin+"/app/login?next=%2Fapp%2Fnotes%3Fpage%3D2", resp.Request.URL.String())
			require.Contains(t, body, `value="/app/notes?page=2"`)
			resp, _ = browse(t, client, "POST", origin+"/app/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}},
				"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
			require.Equal(t, 403, resp.StatusCode, "another site must not sign the user in")
			resp, body = signIn(t, client, origin, "/app/notes?page=2")
			require.Equal(t, page, resp.Request.URL.String(), body)
			const hello = "hello ada, you come from " + clientIP + "<"
			require.Contains(t, body, hello)

			u, err := url.Parse(origin)
			require.NoError(t, err)
			for _, c := range client.Jar.Cookies(u) {
				require.Contains(t, []string{"__Host-app-access", "__Host-Http-app-refresh", "__Host-Http-app-device"}, c.Name)
			}

			_, body = browse(t, client, "GET", page, nil, "X-Forwarded-For", "198.51.100.1")
			require.Contains(t, body, hello, "a client must not choose its address")
			sessions, err := a.Sessions(t.Context(), "u1")
			require.NoError(t, err)
			require.Len(t, sessions, 1)
			require.Equal(t, netip.MustParseAddr(clientIP), sessions[0].Device.IP)

			// AutoRefresh redirects to the same page.
			a.Clock.Advance(16 * time.Minute)
			var redirects []string
			client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
				redirects = append(redirects, r.URL.String())
				return nil
			}
			_, body = browse(t, client, "GET", page, nil)
			require.Contains(t, body, hello)
			require.Equal(t, []string{page}, redirects)

			requireHandshake(t, client, 200, origin, origin)
			requireHandshake(t, client, 403, origin, "https://evil.example")
			resp, _ = browse(t, client, "POST", origin+"/app/auth/logout", nil, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
			require.Equal(t, 403, resp.StatusCode)
			require.Contains(t, body, `action="/app/auth/logout"><input type="hidden" name="next" value="/app/">`)
			resp, _ = browse(t, client, "POST", origin+"/app/auth/logout", url.Values{"next": {"/app/"}}, "Origin", origin, "Sec-Fetch-Site", "same-origin")
			require.Equal(t, origin+"/app/login?next=%2Fapp%2F", resp.Request.URL.String(), "the user must stay below the prefix")
			sessions, err = a.Sessions(t.Context(), "u1")
			require.NoError(t, err)
			require.Empty(t, sessions)
		})
	}
}

// TestProxy_SettingsMatter shows what the settings of the recipe are for.
func TestProxy_SettingsMatter(t *testing.T) {
	t.Parallel()
	origin, client, setServer := startProxy(t, true)
	c, err := config(origin, "10.0.0.0/8")
	require.NoError(t, err)
	c.OnEvent = nil
	c.Cookies.TrustedOrigins = nil
	c.TrustUnixPeers = false
	a := authtest.New(t, c)
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "http.sock")} {
		listener, err := listen("127.0.0.1:0", socket)
		require.NoError(t, err)
		server := &http.Server{Handler: routes(a.Authenticator)}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		setServer(listener.Addr())
		want := "127.0.0.1" // the proxy
		if socket != "" {
			want = netip.Addr{}.String()
		}
		_, body := signIn(t, client, origin, "/app/")
		require.Contains(t, body, "hello ada, you come from "+want+"<")
		requireHandshake(t, client, 403, origin, origin)
		if socket != "" {
			info, err := os.Stat(socket)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
		}
	}
}

func TestProgram_ReplacesTheSocketOfAnEarlierProcess(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "http.sock")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for range 2 {
		p := exampletest.Start(t, nil, "-unix", socket)
		require.Equal(t, socket, p.URL)
		resp, body := browse(t, client, "GET", "http://example.com/app/login", nil)
		require.Equal(t, 200, resp.StatusCode, body)
		p.Kill()
		require.FileExists(t, socket)
	}
	other := filepath.Join(t.TempDir(), "notes.txt")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	_, err := listen("", other)
	require.Error(t, err)
	require.FileExists(t, other, "only a socket may be replaced")

	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0")
	resp, _ := browse(t, http.DefaultClient, "GET", "http://"+p.URL+"/app/login", nil)
	require.Equal(t, 200, resp.StatusCode)
}
