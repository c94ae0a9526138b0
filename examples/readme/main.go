// Command readme is the program of the README.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

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

func main() {
	secret := os.Getenv("AUTH_SECRET")
	if secret == "" || len(os.Args) > 1 {
		log.Fatal("set AUTH_SECRET, and give no arguments: AUTH_SECRET=$(openssl rand -base64 48)")
	}
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte(secret)},
		Users:   users{auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
		OnEvent: auth.LogEvents(slog.Default()), // logs logins, refusals, revocations and faults, but no secrets
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	http.Handle("GET /me", a.Require(auth.Role("admin"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintln(w, "hello", claims.Username)
	})))
	listener, err := net.Listen("tcp", "127.0.0.1:8090")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second} // slow clients must not hold connections forever
	log.Fatal(server.Serve(listener))
}
