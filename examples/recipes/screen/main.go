// Command screen refuses new passwords that are too short or that were leaked, at
// sign-up and when a password is changed. Which ones were leaked is known to a range
// service, which learns neither the password nor its hash:
//
//	go run ./examples/recipes/screen -range https://api.pwnedpasswords.com/range/
//	curl http://127.0.0.1:8080/signup --json '{"login":"ada","password":"correct horse battery staple"}'
//
// The file screen.go has the screen, and users.go the users.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// config returns the configuration of package auth. Its Hasher asks screen about each
// new password.
func config(us *users, screen func(context.Context, string) error) auth.Config {
	return auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"}, // your URL
		// Sessions are in memory, so a secret that also ends with the process suffices.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		Hasher:  &password.Hasher{Screen: screen},
		OnEvent: auth.LogEvents(slog.Default()), // reports when the service does not respond
		OnError: onError,
	}
}

// onError says why a password was refused. All other errors have the usual response.
func onError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errShort):
		refuse(w, http.StatusUnprocessableEntity, "password_short", "a password has at least 15 characters")
	case errors.Is(err, errLeaked):
		refuse(w, http.StatusUnprocessableEntity, "password_leaked", "this password is in a list of leaked passwords; choose another one")
	default:
		auth.DefaultOnError(w, r, err)
	}
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":%q}`+"\n", code, description)
}

func routes(a *auth.Authenticator, us *users) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler())) // with POST /auth/password
	mux.HandleFunc("POST /signup", func(w http.ResponseWriter, r *http.Request) {
		if err := signUp(w, r, a, us); err != nil {
			a.WriteError(w, r, err)
		}
	})
	return mux
}

// signUp creates a user and signs them in.
func signUp(w http.ResponseWriter, r *http.Request, a *auth.Authenticator, us *users) error {
	body, err := auth.ReadFields(r, "login", "password")
	if err != nil {
		return err
	}
	hash, err := a.HashPassword(r.Context(), body["password"], a.Device(r)) // asks the screen
	if err != nil {
		return err
	}
	id, ok := us.add(body["login"], hash)
	if !ok {
		refuse(w, http.StatusConflict, "login_taken", "this login is taken, or empty")
		return nil
	}
	tokens, err := a.StartSession(r.Context(), id, auth.SessionOptions{Device: a.Device(r), AMR: []string{"pwd"}})
	if err == nil {
		a.WriteTokens(w, tokens, false)
	}
	return err
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, unless a proxy ends TLS")
	service := flag.String("range", "", "`URL` of the range service, which ends with a slash")
	flag.Parse()
	if *service == "" {
		log.Fatal("screen: -range is missing; set it to the URL of a range service")
	}
	us := newUsers()
	a, err := auth.New(config(us, newScreen(*service).check))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, us), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(server.Serve(listener))
}
