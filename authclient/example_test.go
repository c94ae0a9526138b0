package authclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authclient"
	"github.com/ratchet-go/auth/password"
)

// A program signs in once, and keeps its tokens in a file. From then on, and after
// each restart, requests are those of the user.
func Example() {
	server := newServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	t, err := authclient.New(authclient.Config{
		BaseURL: server.URL + "/auth",
		Store:   authclient.FileStore(filepath.Join(dir, "tokens.json")),
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: t}
	get := func() {
		resp, err := client.Get(server.URL + "/api/me")
		if errors.Is(err, authclient.ErrSignedOut) {
			fmt.Println("sign in first")
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		fmt.Println(string(body))
	}

	get()
	err = t.Login(context.Background(), map[string]string{"login": "ada", "password": "guess"})
	if refusal, ok := errors.AsType[*authclient.Error](err); ok {
		fmt.Println(refusal.Description)
	}
	err = t.Login(context.Background(), map[string]string{"login": "ada", "password": "correct horse battery staple"})
	if err != nil {
		log.Fatal(err)
	}
	get()
	if err := t.Logout(context.Background()); err != nil {
		log.Fatal(err)
	}
	get()

	// Output:
	// sign in first
	// login or password is wrong
	// hello, ada
	// sign in first
}

// newServer is the server, which is usually another program.
func newServer() *httptest.Server {
	hasher := &password.Hasher{}
	hash, err := hasher.Hash(context.Background(), "correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://example.com"},
		Secrets:  [][]byte{[]byte("create one with: openssl rand -base64 48")},
		Users:    oneUser{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		OnEvent:  func(context.Context, auth.Event) {},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("/api/me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "hello, %s", claims.Username)
	})))
	return httptest.NewServer(mux)
}

type oneUser struct{ ada auth.User }

func (u oneUser) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u oneUser) FindByID(context.Context, string) (auth.User, error) { return u.ada, nil }
