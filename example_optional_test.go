package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A public page can greet users who are signed in.
func ExampleVerifier_Optional() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    pageUsers{},
		Cookies:  &auth.Cookies{},
	})
	if err != nil {
		log.Fatal(err)
	}
	home := a.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if claims, ok := auth.FromContext(r.Context()); ok {
			fmt.Fprint(w, "hello ", claims.Username)
			return
		}
		fmt.Fprint(w, "hello stranger")
	}))

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, token := range []string{"", tokens.Access} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if token != "" {
			r.AddCookie(&http.Cookie{Name: "__Host-access", Value: token})
		}
		w := httptest.NewRecorder()
		home.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	// Output:
	// hello stranger
	// hello ada
}

// pageUsers is a user lookup in which every ID is a user.
type pageUsers struct{}

func (pageUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (pageUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
