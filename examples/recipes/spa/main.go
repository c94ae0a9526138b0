// Command spa serves a single-page application and its API on one origin. The
// browser keeps the tokens in cookies that scripts cannot read, and the script
// /auth/auth.js, which package auth serves, refreshes them.
//
//	go run ./examples/recipes/spa
//
// Sign in as ada with the password "correct horse battery staple".
package main

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

//go:embed web
var web embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, because there is no TLS")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	c, err := config()
	if err != nil {
		return err
	}
	a, err := auth.New(c)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}

func config() (auth.Config, error) {
	us, err := newUsers()
	return auth.Config{
		// With TLS: "https://app.example.com", and &auth.Cookies{}.
		Issuer: "http://localhost:8080", Audience: []string{"http://localhost:8080/api"},
		Cookies: &auth.Cookies{InsecureHTTP: true},
		// Sessions are in memory, so a secret that also ends with the process
		// suffices. With a Store, read it from the environment.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		OnEvent: auth.LogEvents(slog.Default()),
	}, err
}

func routes(a *auth.Authenticator) http.Handler {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the path is not valid
	}
	mux := http.NewServeMux()
	mux.Handle("/", page(http.FileServerFS(files)))
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /api/me", a.Require()(http.HandlerFunc(me)))
	return mux
}

// page forbids inline scripts and those of other origins. A script that somebody
// else injects cannot read the tokens, but it can send requests with them.
func page(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		next.ServeHTTP(w, r)
	})
}

func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": claims.Username})
}
