// A program of a user who has every released module. It signs a user in with
// sessions in a file, and another part of it verifies the access token with
// the published keys.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
	"github.com/ratchet-go/auth/password"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

var _ = []auth.Store{(*pgstore.Store)(nil), (*redisstore.Store)(nil), (*sqlitestore.Store)(nil)}

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

// newAuthenticator returns an Authenticator with one user, and its store.
func newAuthenticator(dir string) (*auth.Authenticator, *sqlitestore.Store, error) {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		return nil, nil, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlitestore.Open(filepath.Join(dir, "sessions.db"), sqlitestore.Config{})
	if err != nil {
		return nil, nil, err
	}
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"},
		AccessKeys:  auth.Keys{auth.EdDSA(private)},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))},
		Users:       users{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		Store:       store,
	})
	return a, store, err
}

func run(ctx context.Context, dir string) (subject string, err error) {
	a, store, err := newAuthenticator(dir)
	if err != nil {
		return "", err
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = a.Run(ctx) }()
	<-a.Ready()
	tokens, err := a.Login(ctx, "ada", "correct horse battery staple", auth.SessionOptions{})
	if err != nil {
		return "", err
	}
	server := httptest.NewTLSServer(a.JWKSHandler())
	defer server.Close()
	keys, err := jwks.New(jwks.Config{URL: server.URL, Client: server.Client()})
	if err != nil {
		return "", err
	}
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: "https://example.com", Audience: []string{"https://example.com/api"}, Keys: keys})
	if err != nil {
		return "", err
	}
	claims, err := v.Verify(ctx, tokens.Access)
	if err != nil {
		return "", err
	}
	return claims.Subject, nil
}

func main() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	subject, err := run(context.Background(), dir)
	_ = os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("signed in:", subject)
}
