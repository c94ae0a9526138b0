// Command gorilla serves an API on gorilla/mux whose users sign in:
//
//	go run ./gorilla
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// routes returns the handler of the application. Its middleware must not wrap
// the endpoints: users who are not signed in call them.
func routes(a *auth.Authenticator) http.Handler {
	r := mux.NewRouter()
	r.PathPrefix("/auth/").Handler(http.StripPrefix("/auth", a.Handler()))
	r.Handle("/", a.Optional(http.HandlerFunc(hello))).Methods("GET")
	signedIn := r.NewRoute().Subrouter()
	signedIn.Use(a.Require())
	signedIn.HandleFunc("/me", hello).Methods("GET")
	signedIn.HandleFunc("/events", events(a)).Methods("GET")
	r.Handle("/admin", a.Require(auth.Role("admin"))(http.HandlerFunc(hello))).Methods("POST")
	return r
}

func hello(w http.ResponseWriter, r *http.Request) {
	name := "stranger"
	if claims, ok := auth.FromContext(r.Context()); ok {
		name = claims.Username
	}
	fmt.Fprintln(w, "hello", name)
}

// events streams until the session ends or the client disconnects.
func events(a *auth.Authenticator) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		ctx, cancel := a.SessionContext(r.Context(), claims)
		defer cancel()
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: hello %s\n\n", claims.Username)
		_ = http.NewResponseController(w).Flush() // fails only if the client has gone
		<-ctx.Done()
		fmt.Fprintf(w, "event: end\ndata: %s\n\n", auth.ResponseFor(context.Cause(ctx)).Action) // "login" or "refresh"; "" means: connect again
	}
}

// users is your own lookup. This one has a single user.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func config() auth.Config {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	return auth.Config{
		Issuer: "http://localhost:8080", Audience: []string{"http://localhost:8080"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())}, // read it from your configuration
		Users:   users{auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
		Cookies: &auth.Cookies{AllowBody: true, InsecureHTTP: true}, // InsecureHTTP is for development without TLS
		OnEvent: auth.LogEvents(slog.Default()),
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	flag.Parse()
	a, err := auth.New(config())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second} // a WriteTimeout would end streams
	log.Fatal(server.Serve(listener))
}
