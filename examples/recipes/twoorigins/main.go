// Command twoorigins serves a single-page application on one origin and its API
// on another origin of the same site, such as https://app.example.com and
// https://api.example.com. Here both are on localhost, on two ports.
//
//	go run ./examples/recipes/twoorigins
//
// Sign in as ada with the password "correct horse battery staple".
package main

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/rs/cors"

	"github.com/ratchet-go/auth"
)

//go:embed web
var web embed.FS

func main() {
	pageAddr := flag.String("addr", "localhost:8080", "`address` of the page")
	apiAddr := flag.String("api-addr", "localhost:8081", "`address` of the API, with the same host")
	flag.Parse()
	if err := run(*pageAddr, *apiAddr); err != nil {
		log.Fatal(err)
	}
}

func run(pageAddr, apiAddr string) error {
	// With TLS: "https://app.example.com" and "https://api.example.com".
	pageOrigin, apiOrigin := "http://"+pageAddr, "http://"+apiAddr
	c, err := config(pageOrigin, apiOrigin)
	if err != nil {
		return err
	}
	a, err := auth.New(c)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	for addr, handler := range map[string]http.Handler{pageAddr: pages(apiOrigin), apiAddr: api(a, pageOrigin)} {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
		go func() { ended <- server.Serve(listener) }()
	}
	fmt.Printf("listening on %s, with the API on %s\n", pageOrigin, apiOrigin)
	return <-ended
}

func config(pageOrigin, apiOrigin string) (auth.Config, error) {
	us, err := newUsers()
	return auth.Config{
		Issuer: apiOrigin, Audience: []string{apiOrigin},
		Cookies: &auth.Cookies{
			TrustedOrigins: []string{pageOrigin}, // may send requests with the cookies
			InsecureHTTP:   true,                 // not with TLS
		},
		// Sessions are in memory, so a secret that also ends with the process
		// suffices. With a Store, read it from the environment.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		OnEvent: auth.LogEvents(slog.Default()),
	}, err
}

// api returns the handler of the API, which pages of pageOrigin may call.
func api(a *auth.Authenticator, pageOrigin string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(me)))
	allow := cors.New(cors.Options{
		AllowedOrigins:   []string{pageOrigin}, // may read the responses
		AllowCredentials: true,                 // also those of requests with cookies
		AllowedMethods:   []string{"GET", "POST", "DELETE"},
		AllowedHeaders:   []string{"Content-Type", "Refresh-Key"},
		ExposedHeaders:   []string{"Retry-After"}, // how long to wait after a 429 or 503
	})
	return allow.Handler(mux) // around Require, because a preflight request has no cookies
}

func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": claims.Username})
}

// pages returns the handler of the page. The page learns the origin of the API
// from a meta element.
func pages(apiOrigin string) http.Handler {
	index := template.Must(template.ParseFS(web, "web/index.html"))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'self' "+apiOrigin+"; connect-src "+apiOrigin+"; frame-ancestors 'none'; base-uri 'none'")
		_ = index.Execute(w, apiOrigin)
	})
	mux.Handle("GET /web/", http.FileServerFS(web))
	return mux
}
