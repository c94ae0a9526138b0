// Command actas lets an administrator act for a user, for example to see what the user
// sees. What only the user may do is refused, and whatever is done is recorded.
//
//	go run ./examples/recipes/actas
//	curl http://127.0.0.1:8080/auth/login --json '{"login":"root","password":"correct horse battery staple"}'
//	curl http://127.0.0.1:8080/act -H "Authorization: Bearer $ROOT" --json '{"user":"u1","reason":"ticket 17"}'
//	curl http://127.0.0.1:8080/notes -H "Authorization: Bearer $ACTING" --json '{"text":"written for ada"}'
//	curl http://127.0.0.1:8080/audit -H "Authorization: Bearer $ROOT"
//
// The file audit.go has the record, and users.go the users. These are ada (u1), grace (u2) and the administrators root (u3) and admin (u4).
package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/ratchet-go/auth"
)

func config(us *users, au *audit) auth.Config {
	return auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://example.com/api"}, // your URL
		// Sessions are in memory, so a secret that also ends with the process suffices.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		OnEvent: au.event,
	}
}

// api has the handlers.
type api struct {
	*auth.Authenticator
	users *users
	audit *audit
}

func routes(a *auth.Authenticator, us *users, au *audit) http.Handler {
	s, mux := api{a, us, au}, http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	admin := []auth.Guard{auth.Role("admin"), auth.NotActing()}
	s.handle(mux, "POST /act", s.act, append(admin, auth.Fresh(10*time.Minute))...)
	s.handle(mux, "GET /audit", s.list, admin...)
	s.handle(mux, "GET /notes", s.notes)
	s.handle(mux, "POST /notes", s.notes)
	s.handle(mux, "POST /email", s.email, auth.NotActing()) // only the user
	return mux
}

// handle registers a handler, and records each request of a session with an actor.
func (s api) handle(mux *http.ServeMux, pattern string, h func(http.ResponseWriter, *http.Request, *auth.Claims) error, guards ...auth.Guard) {
	mux.Handle(pattern, s.Require(guards...)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		if c.Actor != "" {
			s.audit.add(entry{What: r.Pattern, Actor: c.Actor, User: c.Subject, Session: c.SessionID})
		}
		if err := h(w, r, c); err != nil {
			s.WriteError(w, r, err)
		}
	})))
}

// act opens a session in which the administrator acts for a user. Its tokens are in the
// body, and those of the administrator remain good. It ends with POST /auth/logout.
func (s api) act(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	f, err := auth.ReadFields(r, "user", "reason")
	if err != nil {
		return err
	}
	if f["reason"] == "" {
		return refuse(w, http.StatusUnprocessableEntity, "no_reason", "say why, such as the number of a ticket")
	}
	switch u, err := s.users.FindByID(r.Context(), f["user"]); {
	case errors.Is(err, auth.ErrUserNotFound) || err == nil && u.Disabled:
		return refuse(w, http.StatusNotFound, "no_such_user", "there is no such user, or they are disabled")
	case err != nil:
		return fmt.Errorf("%w: %w", auth.ErrUnavailable, err)
	case slices.Contains(u.Roles, "admin"): // whoever acts for them would have their rights
		return auth.ErrForbidden
	}
	tokens, err := s.StartSession(r.Context(), f["user"], auth.SessionOptions{
		Actor: c.Subject, AMR: c.AMR, // how the actor has signed in
		Name:       "Support: " + f["reason"], // the user sees it in their list of devices
		SessionTTL: 30 * time.Minute, Device: s.Device(r), InBody: true,
	})
	if err == nil {
		s.WriteTokens(w, tokens, false)
	}
	return err
}

// notes returns the notes of the user, after it has added one if the request has one.
func (s api) notes(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	if r.Method == http.MethodPost {
		f, err := auth.ReadFields(r, "text")
		if err != nil {
			return err
		}
		s.users.addNote(c.Subject, note{f["text"], c.Actor})
	}
	return respond(w, s.users.notesOf(c.Subject))
}

func (s api) email(w http.ResponseWriter, r *http.Request, c *auth.Claims) error {
	f, err := auth.ReadFields(r, "email")
	if err != nil {
		return err
	}
	s.users.setLogin(c.Subject, f["email"])
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s api) list(w http.ResponseWriter, _ *http.Request, _ *auth.Claims) error {
	return respond(w, s.audit.all())
}

func respond(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // the client may have disconnected
	return nil
}

func refuse(w http.ResponseWriter, status int, code, description string) error {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":%q}`+"\n", code, description)
	return nil
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, unless a proxy ends TLS")
	flag.Parse()
	us, err := newUsers()
	if err != nil {
		log.Fatal("actas: ", err)
	}
	au := &audit{}
	a, err := auth.New(config(us, au))
	if err != nil {
		log.Fatal("actas: ", err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal("actas: ", err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, us, au), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(server.Serve(listener))
}
