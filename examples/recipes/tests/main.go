// Command tests is an application whose handlers are tested: see main_test.go, which
// is the recipe. Each tenant has a list of notes.
//
//	AUTH_SECRET=$(openssl rand -base64 48) go run ./examples/recipes/tests
//
// For a test, config and routes are separate functions: the test passes the result of
// config to authtest.New, and the Authenticator that it returns to routes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func config(us *accounts) auth.Config {
	return auth.Config{
		Issuer: "http://tests.localhost", Audience: []string{"http://tests.localhost"},
		Users:   us,
		Hasher:  us.hasher,
		Cookies: &auth.Cookies{},
	}
}

func routes(a *auth.Authenticator, us *accounts) http.Handler {
	n := &notes{byTenant: map[string][]string{}}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /notes", a.Require()(http.HandlerFunc(n.list)))
	mux.Handle("POST /notes", a.Require(auth.Role("editor"))(http.HandlerFunc(n.add)))
	mux.Handle("POST /password", a.Require(auth.Fresh(5*time.Minute), auth.NotActing())(changePassword(a, us)))
	return mux
}

// tenantOf returns the application's own claim.
func tenantOf(r *http.Request) (string, error) {
	claims, _ := auth.FromContext(r.Context())
	var own struct {
		Tenant string `json:"tenant"`
	}
	err := claims.Decode(&own)
	return own.Tenant, err
}

type notes struct {
	mu       sync.Mutex
	byTenant map[string][]string
}

func (n *notes) list(w http.ResponseWriter, r *http.Request) {
	tenant, err := tenantOf(r)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(w, "%s %q\n", tenant, n.byTenant[tenant])
}

func (n *notes) add(w http.ResponseWriter, r *http.Request) {
	tenant, err := tenantOf(r)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byTenant[tenant] = append(n.byTenant[tenant], r.PostFormValue("text"))
	w.WriteHeader(http.StatusNoContent)
}

// changePassword ends the user's other sessions.
func changePassword(a *auth.Authenticator, us *accounts) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		hash, err := us.hasher.Hash(r.Context(), r.PostFormValue("password")) // never from the URL, which is logged
		if err == nil {
			us.setHash(claims.Subject, hash)
			err = a.RevokeAll(r.Context(), claims.Subject, claims.SessionID)
		}
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// accounts implements auth.Users. Most applications have a table in its place.
type accounts struct {
	hasher *password.Hasher
	mu     sync.Mutex
	byID   map[string]auth.User
}

func (us *accounts) FindByLogin(_ context.Context, login string) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.byID {
		if u.Username == login {
			return u, nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us *accounts) FindByID(_ context.Context, id string) (auth.User, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u, ok := us.byID[id]; ok {
		return u, nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us *accounts) setHash(id, hash string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.byID[id]
	u.PasswordHash = hash
	us.byID[id] = u
}

// newAccounts returns two users, ada and bob.
func newAccounts(h *password.Hasher) (*accounts, error) {
	hash, err := h.Hash(context.Background(), "correct horse battery staple")
	return &accounts{hasher: h, byID: map[string]auth.User{
		"u1": {ID: "u1", Username: "ada", Roles: []string{"editor"}, PasswordHash: hash, Extra: map[string]any{"tenant": "acme"}},
		"u2": {ID: "u2", Username: "bob", PasswordHash: hash, Extra: map[string]any{"tenant": "zeta"}},
	}}, err
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "loopback `address` to listen on")
	flag.Parse()
	us, err := newAccounts(&password.Hasher{})
	if err != nil {
		log.Fatal("tests: ", err)
	}
	c := config(us)
	c.Secrets = [][]byte{[]byte(os.Getenv("AUTH_SECRET"))}
	c.Cookies.InsecureHTTP = true // only on a loopback address
	c.OnEvent = auth.LogEvents(slog.Default())
	a, err := auth.New(c)
	if err != nil {
		log.Fatal("tests: ", err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal("tests: ", err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, us), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal("tests: ", server.Serve(listener))
}
