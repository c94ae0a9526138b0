package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// A server with all endpoints under /auth and one protected handler.
func Example() {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    serverUsers{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintln(w, "hello", claims.Username)
	})))

	server := httptest.NewServer(mux)
	defer server.Close()
	resp, err := http.Get(server.URL + "/me")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("WWW-Authenticate"))

	body := strings.NewReader(`{"login":"ada@example.com","password":"correct horse battery staple"}`)
	resp, err = http.Post(server.URL+"/auth/login", "application/json", body)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("Cache-Control"))
	// Output:
	// 401 Bearer
	// 200 no-store
}

// serverUsers is a user lookup with one user.
type serverUsers struct{ ada auth.User }

func (u serverUsers) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != "ada" && login != "ada@example.com" {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u serverUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
