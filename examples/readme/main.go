// Command readme is the program of the README.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

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
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		Secrets: [][]byte{[]byte(os.Getenv("AUTH_SECRET"))}, // openssl rand -base64 48
		Users:   users{auth.User{ID: "ada", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	http.Handle("GET /me", a.Require(auth.Role("admin"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintln(w, "hello", claims.Username)
	})))
	log.Fatal(http.ListenAndServe("127.0.0.1:8090", nil))
}
