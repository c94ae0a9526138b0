// Command organizations lets users work for one of several organizations at a time, and
// switch between them without a new login. The access token names the organization and
// the user's role in it.
//
//	go run ./examples/recipes/organizations
//	curl http://127.0.0.1:8080/auth/login --json '{"login":"ada","password":"correct horse battery staple"}'
//	curl http://127.0.0.1:8080/organization -H "Authorization: Bearer $TOKEN" --json '{"organization":"south"}'
//	curl http://127.0.0.1:8080/projects -H "Authorization: Bearer $NEW_TOKEN"
//
// The file users.go has the users: ada (u1), an administrator of north and a member of
// south, and grace (u2), a member of north.
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
	"slices"
	"time"

	"github.com/ratchet-go/auth"
)

func config(us *users) auth.Config {
	return auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"}, // your URL
		// Sessions are in memory, so a secret that also ends with the process suffices.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		// A session begins with the first organization of the user.
		OnLogin: func(_ context.Context, u auth.User, o *auth.SessionOptions) error {
			if list := us.organizations(u.ID); len(list) > 0 {
				o.Data = []byte(list[0])
			}
			return nil
		},
		// The session has the organization, and the table has the role: it is read at
		// each refresh, so a user who is no longer a member loses both claims.
		Claims: func(_ context.Context, u auth.User, s auth.Session) (map[string]any, error) {
			name := string(s.Data())
			if role := us.role(u.ID, name); role != "" {
				return map[string]any{"org": name, "org_role": role}, nil
			}
			return nil, nil
		},
		OnEvent: auth.LogEvents(slog.Default()),
	}
}

// active is what the access token says about the active organization.
type active struct {
	Name string `json:"org"`
	Role string `json:"org_role"`
}

// activeOf returns the active organization. Its fields are empty if there is none.
func activeOf(c *auth.Claims) (o active, err error) {
	err = c.Decode(&o)
	return o, err
}

// member returns a Guard that requires one of these roles in the active organization.
func member(roles ...string) auth.Guard {
	return func(_ context.Context, c *auth.Claims) error {
		o, err := activeOf(c)
		if err == nil && !slices.Contains(roles, o.Role) {
			err = auth.ErrForbidden
		}
		return err
	}
}

// api has the handlers.
type api struct {
	*auth.Authenticator
	users *users
}

func routes(a *auth.Authenticator, us *users) http.Handler {
	s, mux := api{a, us}, http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	s.handle(mux, "POST /organization", s.change)
	s.handle(mux, "GET /projects", s.projects, member("admin", "member"))
	s.handle(mux, "POST /projects", s.projects, member("admin", "member"))
	s.handle(mux, "DELETE /members/{user}", s.remove, member("admin"))
	return mux
}

func (s api) handle(mux *http.ServeMux, pattern string, h func(http.ResponseWriter, *http.Request, *auth.Claims) error, guards ...auth.Guard) {
	mux.Handle(pattern, s.Require(guards...)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		if err := h(w, r, c); err != nil {
			s.WriteError(w, r, err)
		}
	})))
}

// change makes another organization the active one. The request only says which: whether
// the user is a member, and in which role, the table says.
func (s api) change(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	f, err := auth.ReadFields(r, "organization")
	if err != nil {
		return err
	}
	if s.users.role(c.Subject, f["organization"]) == "" {
		return auth.ErrForbidden // also if there is no such organization
	}
	tokens, err := s.Continue(r.Context(), c, auth.SessionOptions{Device: s.Device(r), Data: []byte(f["organization"])})
	if err == nil {
		s.WriteTokens(w, tokens, false)
	}
	return err
}

// projects returns the projects of the active organization, after it has added one if
// the request has one.
func (s api) projects(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	o, err := activeOf(c)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		f, err := auth.ReadFields(r, "name")
		if err != nil {
			return err
		}
		s.users.addProject(o.Name, f["name"])
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(map[string]any{"org": o.Name, "projects": s.users.projectsOf(o.Name)}) // the client may have disconnected
	return nil
}

// remove removes a member of the active organization. The member's access tokens end,
// so their next request refreshes, and the new token does not have the organization. If
// that fails, their token has it until it expires.
func (s api) remove(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	o, err := activeOf(c)
	if err != nil {
		return err
	}
	user := r.PathValue("user")
	if s.users.role(user, o.Name) != "" {
		s.users.setRole(user, o.Name, "")
		err = s.ExpireAccess(r.Context(), user)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, unless a proxy ends TLS")
	flag.Parse()
	us, err := newUsers()
	if err != nil {
		log.Fatal("organizations: ", err)
	}
	a, err := auth.New(config(us))
	if err != nil {
		log.Fatal("organizations: ", err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal("organizations: ", err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, us), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(server.Serve(listener))
}
