// Command tenants serves several tenants behind one middleware. Each tenant has its
// own issuer, keys, users and sessions:
//
//	go run ./examples/recipes/tenants
//	curl http://127.0.0.1:8080/tenants/north/auth/login --json '{"login":"ada","password":"a long password of north"}'
//	curl http://127.0.0.1:8080/notes -H "Authorization: Bearer $TOKEN" --json '{"text":"buy milk"}'
//	curl http://127.0.0.1:8080/tenants/north/notes -H "Authorization: Bearer $TOKEN"
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// issuer returns the issuer of a tenant, which is also its audience.
func issuer(tenant string) string { return "https://example.com/tenants/" + tenant }

// config returns the configuration of a tenant.
func config(tenant string, us users) auth.Config {
	return auth.Config{
		Issuer: issuer(tenant), Audience: []string{issuer(tenant)},
		// A secret for each tenant: no other tenant's process can sign its tokens.
		// Sessions are in memory, so secrets that also end with the process suffice.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		OnEvent: auth.LogEvents(slog.Default().With("tenant", tenant)),
	}
}

// owner is who a note belongs to. Two tenants may have users with the same ID, so
// Subject is not enough.
type owner struct{ issuer, subject string }

type note struct {
	by   owner
	text string
}

// notes are the notes of all tenants. Yours are a table with the issuer as a column.
type notes struct {
	mu   sync.Mutex
	list []note
}

func (n *notes) add(by owner, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, note{by, text})
}

// texts returns the notes for which own returns true.
func (n *notes) texts(own func(owner) bool) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	texts := []string{}
	for _, note := range n.list {
		if own(note.by) {
			texts = append(texts, note.text)
		}
	}
	return texts
}

// routes returns the handler for the tenants with these names.
func routes(names []string, tenants []*auth.Authenticator) (http.Handler, error) {
	mux, n := http.NewServeMux(), &notes{}
	var verifiers []*auth.Verifier
	for i, a := range tenants {
		path := "/tenants/" + names[i] + "/auth"
		mux.Handle(path+"/", http.StripPrefix(path, a.Handler())) // login, refresh and logout are each tenant's own
		verifiers = append(verifiers, a.Verifier)
	}
	all, err := auth.AnyOf(verifiers...)
	if err != nil {
		return nil, err
	}
	handle := func(pattern string, h func(r *http.Request, c *auth.Claims) ([]string, error)) {
		mux.Handle(pattern, all.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := auth.FromContext(r.Context())
			texts, err := h(r, c)
			if err != nil {
				all.WriteError(w, r, err)
				return
			}
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_ = json.NewEncoder(w).Encode(map[string]any{"tenant": c.Issuer, "notes": texts})
		})))
	}
	own := func(c *auth.Claims) []string {
		return n.texts(func(by owner) bool { return by == owner{c.Issuer, c.Subject} })
	}
	handle("GET /notes", func(_ *http.Request, c *auth.Claims) ([]string, error) { return own(c), nil })
	handle("POST /notes", func(r *http.Request, c *auth.Claims) ([]string, error) {
		f, err := auth.ReadFields(r, "text")
		if err == nil && f["text"] == "" {
			err = auth.ErrInvalidRequest
		}
		if err != nil {
			return nil, err
		}
		n.add(owner{c.Issuer, c.Subject}, f["text"])
		return own(c), nil
	})
	// The notes of all users of a tenant. The URL names the tenant, and the client
	// chooses the URL, so the token must be of that tenant.
	handle("GET /tenants/{tenant}/notes", func(r *http.Request, c *auth.Claims) ([]string, error) {
		if c.Issuer != issuer(r.PathValue("tenant")) {
			return nil, auth.ErrForbidden
		}
		return n.texts(func(by owner) bool { return by.issuer == c.Issuer }), nil
	})
	return mux, nil
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, unless a proxy ends TLS")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal("tenants: ", err)
	}
}

func run(addr string) error {
	names := []string{"north", "south"}
	var tenants []*auth.Authenticator
	for _, name := range names {
		us, err := newUsers("a long password of " + name)
		if err != nil {
			return err
		}
		a, err := auth.New(config(name, us))
		if err != nil {
			return err
		}
		tenants = append(tenants, a)
	}
	handler, err := routes(names, tenants)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}

// users are the users of one tenant: ada with the ID 1. Yours are in a database, and
// each lookup is for one tenant.
type users struct{ ada auth.User }

func newUsers(pass string) (users, error) {
	hash, err := password.Hash(pass)
	return users{auth.User{ID: "1", Username: "ada", PasswordHash: hash}}, err
}

func (us users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != us.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return us.ada, nil
}

func (us users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != us.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return us.ada, nil
}
