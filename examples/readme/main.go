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

// users is your own lookup; here it knows one user.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != "ada" && login != "ada@example.com" {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.FindByLogin(ctx, id)
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
		Users:   users{auth.User{ID: "ada", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
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
	server := &http.Server{ // without timeouts, slow clients could hold connections forever
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	log.Fatal(server.Serve(listener))
}
