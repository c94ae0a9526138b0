// Command reverseproxy is a server behind a reverse proxy that ends TLS, such as
// nginx, Caddy or a load balancer. It is a part of a site: its pages are below
// https://example.com/app/.
//
//	go run ./examples/recipes/reverseproxy -origin https://example.com -proxies 10.0.0.0/8
//	go run ./examples/recipes/reverseproxy -origin https://example.com -unix /run/app/http.sock
//
// The proxy passes the path on as it is. It must set X-Forwarded-For, to which it
// appends the address of its client. For nginx, for example:
//
//	location /app/ {
//	    proxy_pass http://127.0.0.1:8080;
//	    proxy_set_header Host $http_host;
//	    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//	}
//
// The user is ada, with the password "correct horse battery staple".
package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// prefix is where the proxy serves this server.
const prefix = "/app"

func main() {
	origin := flag.String("origin", "https://example.com", "the public `origin`, which browsers show")
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	unix := flag.String("unix", "", "`file` of a Unix socket to listen on, instead of -addr")
	proxies := flag.String("proxies", "127.0.0.1/32", "`networks` of the proxies, separated by commas")
	flag.Parse()
	if err := run(*origin, *addr, *unix, *proxies); err != nil {
		log.Fatal(err)
	}
}

func run(origin, addr, unix, proxies string) error {
	c, err := config(origin, proxies)
	if err != nil {
		return err
	}
	a, err := auth.New(c)
	if err != nil {
		return err
	}
	listener, err := listen(addr, unix)
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}

func config(origin, proxies string) (auth.Config, error) {
	us, err := newUsers()
	if err != nil {
		return auth.Config{}, err
	}
	c := auth.Config{
		Issuer: origin, Audience: []string{origin + prefix},
		Cookies: &auth.Cookies{
			// For a proxy that replaces the header Host. Then the origin of a
			// WebSocket handshake is not the host of the request.
			TrustedOrigins: []string{origin},
			// Cookies are sent to the whole host, so another application on it
			// needs other names.
			AccessName: "__Host-app-access", RefreshName: "__Host-Http-app-refresh", DeviceName: "__Host-Http-app-device",
		},
		AutoRefresh: true,
		// Whoever opens the Unix socket is the proxy; see listen.
		TrustUnixPeers: true,
		// Sessions are in memory, so a secret that also ends with the process
		// suffices. With a Store, read it from the environment.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		OnEvent: auth.LogEvents(slog.Default()),
		OnError: auth.RedirectToLogin(prefix + "/login"),
	}
	for network := range strings.SplitSeq(proxies, ",") {
		p, err := netip.ParsePrefix(network)
		if err != nil {
			return auth.Config{}, err
		}
		c.TrustedProxies = append(c.TrustedProxies, p)
	}
	return c, nil
}

// listen listens on addr, or on a Unix socket. The user and the group of this
// program can connect to the socket, so the proxy must be in the group.
func listen(addr, unix string) (net.Listener, error) {
	if unix == "" {
		return net.Listen("tcp", addr)
	}
	if info, err := os.Lstat(unix); err == nil && info.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(unix) // of an earlier process
	}
	listener, err := net.Listen("unix", unix)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(unix, 0o660)
}

func routes(a *auth.Authenticator) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { showLogin(w, r, http.StatusOK, "") })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { login(a, w, r) })
	mux.Handle("/", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_ = homePage.Execute(w, map[string]any{"Name": claims.Username, "IP": a.Device(r).IP}) // the client may have disconnected
	})))
	return http.StripPrefix(prefix, mux)
}

// The paths in pages have the prefix. Without the field next, a logout would lead to
// "/", which does not belong to this server.
var homePage = template.Must(template.New("").Parse(`<!doctype html><title>Home</title>
<p>hello {{.Name}}, you come from {{.IP}}</p>
<form method="post" action="` + prefix + `/auth/logout"><input type="hidden" name="next" value="` + prefix + `/"><button>Sign out</button></form>`))

var loginPage = template.Must(template.New("").Parse(`<!doctype html><title>Sign in</title><form method="post">
<p>{{.Error}}</p><input type="hidden" name="next" value="{{.Next}}">
<label>Name <input name="login" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button>Sign in</button></form>`))

func showLogin(w http.ResponseWriter, r *http.Request, status int, why string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, map[string]string{"Next": auth.LocalPath(r.FormValue("next")), "Error": why}) // the client may have disconnected
}

func login(a *auth.Authenticator, w http.ResponseWriter, r *http.Request) {
	switch err := a.LoginForm(w, r); {
	case errors.Is(err, auth.ErrInvalidCredentials):
		showLogin(w, r, http.StatusUnauthorized, "The name or the password is wrong.")
	case errors.Is(err, auth.ErrThrottled):
		showLogin(w, r, http.StatusTooManyRequests, auth.ResponseFor(err).Description)
	case err != nil:
		a.WriteError(w, r, err)
	default:
		http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	}
}
