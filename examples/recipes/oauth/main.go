// Command oauth serves an API to programs that use a library for OAuth 2.0, and to a
// backend that introspects tokens:
//
//	BACKEND_SECRET=$(openssl rand -hex 32) go run ./examples/recipes/oauth
//
// With -call, it is a client with golang.org/x/oauth2 instead, which signs in and
// calls the API again and again:
//
//	go run ./examples/recipes/oauth -call http://127.0.0.1:8080
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
	"github.com/ratchet-go/auth/password"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	server := flag.String("call", "", "`URL` of a server to call")
	every := flag.Duration("every", time.Minute, "time between two calls")
	flag.Parse()
	var err error
	if *server != "" {
		err = call(context.Background(), os.Stdout, *server, *every)
	} else {
		err = serve(*addr)
	}
	log.Fatal(err)
}

// clients are the SHA-256 of the secrets of clients, by ID. The secrets are random, so
// nobody can find them by trying.
type clients map[string][sha256.Size]byte

func (c clients) CheckClient(_ context.Context, id, secret string) error {
	want, found := c[id] // that of an unknown client is zero, and is compared too
	got := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !found {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// routes returns the handler of the application at a URL such as https://example.com,
// which is the issuer of a.
func routes(a *auth.Authenticator, base string, c clients) (http.Handler, error) {
	// Apps have no secret; the backend has one.
	server, err := oauth.Handler(a, oauth.Config{URL: base + "/oauth", Clients: c, PublicClients: true})
	if err != nil {
		return nil, err
	}
	resource, err := oauth.ResourceHandler(a.Verifier, oauth.Resource{
		URL: base + "/api", AuthorizationServers: []string{a.Issuer()}, Scopes: []string{"read"},
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler())) // for the login
	mux.Handle("/oauth/", http.StripPrefix("/oauth", server))
	mux.Handle("/.well-known/oauth-authorization-server", server)
	mux.Handle("/.well-known/oauth-protected-resource/api", resource)
	mux.Handle("GET /api", a.Require(auth.Scope("read"))(http.HandlerFunc(hello)))
	return mux, nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	_, _ = fmt.Fprintln(w, "hello", claims.Username)
}

func serve(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	base := "http://" + listener.Addr().String() // https, except on a loopback address
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		return err
	}
	a, err := auth.New(auth.Config{
		Issuer: base, Audience: []string{base + "/api"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())}, // read it from your configuration
		Users:   users{auth.User{ID: "u1", Username: "ada", Scopes: []string{"read"}, PasswordHash: hash}},
		// Every 401 says where to find out about tokens.
		ResourceMetadata: base + "/.well-known/oauth-protected-resource/api",
		OnEvent:          auth.LogEvents(slog.Default()),
	})
	if err != nil {
		return err
	}
	c := clients{}
	if secret := os.Getenv("BACKEND_SECRET"); secret != "" {
		c["backend"] = sha256.Sum256([]byte(secret))
	}
	handler, err := routes(a, base, c)
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", base)
	server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}

// call signs in at a server, and calls its API until it fails.
func call(ctx context.Context, w io.Writer, server string, every time.Duration) error {
	var metadata struct {
		TokenEndpoint string `json:"token_endpoint"`
	}
	found, err := http.Get(server + "/.well-known/oauth-authorization-server")
	if err == nil {
		err = decode(found, &metadata)
	}
	if err != nil {
		return err
	}
	var token oauth2.Token
	login, err := http.PostForm(server+"/auth/login", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
	if err == nil {
		err = decode(login, &token)
	}
	if err != nil {
		return err
	}
	token.Expiry = time.Now().Add(time.Duration(token.ExpiresIn) * time.Second) // without it, the token would never be refreshed
	config := oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: metadata.TokenEndpoint, AuthStyle: oauth2.AuthStyleInParams}}
	client := oauth2.NewClient(ctx, config.TokenSource(ctx, &token))
	for {
		r, err := client.Get(server + "/api")
		if err != nil {
			return err // after invalid_grant, the user must sign in again
		}
		text, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%d %s", r.StatusCode, text); err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decode decodes the body of a response with status 200.
func decode(r *http.Response, v any) error {
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.Request.URL, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(v)
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
