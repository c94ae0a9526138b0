package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"unicode/utf8"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// routes returns the handler of the API.
func routes(a *auth.Authenticator, u users) http.Handler {
	s, mux := api{a, u}, http.NewServeMux()
	member, admin := a.Require(), a.Require(auth.Role("admin"))
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler())) // login, refresh, logout, sessions
	mux.Handle("POST /signup", s.handler(s.signUp, "login", "password"))
	mux.Handle("GET /me", member(s.handler(s.me)))
	mux.Handle("POST /password", member(s.handler(s.changePassword, "current", "password")))
	mux.Handle("PUT /users/{login}", admin(s.handler(s.updateUser, "role", "status")))
	return mux
}

type api struct {
	auth  *auth.Authenticator
	users users
}

// problem is an error of the application. Its body has the members that the errors of
// package auth have. It has no action, so it signs no client out.
type problem struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (p problem) Error() string { return p.Description }

// handler returns a handler that calls f with the fields of the body, and writes the
// response to its error.
func (s api) handler(f func(w http.ResponseWriter, r *http.Request, body map[string]string) error, fields ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := auth.ReadFields(r, fields...)
		if err == nil {
			err = f(w, r, body)
		}
		if p, ok := errors.AsType[problem](err); ok {
			respond(w, p.status, p)
		} else if err != nil {
			s.auth.WriteError(w, r, err)
		}
	})
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails if the client has disconnected
}

var goodLogin = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,29}$`) // no letters that look like others

// signUp creates a user and signs them in. If only that fails, the client can log in.
func (s api) signUp(w http.ResponseWriter, r *http.Request, body map[string]string) error {
	id, login := rand.Text(), normal(body["login"])
	if !goodLogin.MatchString(login) {
		return problem{422, "invalid_login", "a login has 2 to 30 letters (a to z), digits, dots, hyphens or underscores, and begins with a letter or a digit"}
	}
	hash, err := s.auth.HashPassword(r.Context(), body["password"], s.auth.Device(r))
	if err == nil {
		err = s.users.exec(r.Context(), problem{409, "login_taken", "this login is taken"},
			"INSERT INTO users (id, login, password_hash) VALUES ($1, $2, $3) ON CONFLICT (login) DO NOTHING", id, login, hash)
	}
	if err != nil {
		return err
	}
	tokens, err := s.auth.StartSession(r.Context(), id, auth.SessionOptions{Device: s.auth.Device(r), AMR: []string{"pwd"}})
	if err == nil {
		s.auth.WriteTokens(w, tokens, false)
	}
	return err
}

// screen is the Screen of the Hasher. Without a second factor, NIST requires 15 characters.
func screen(_ context.Context, pass string) error {
	if n := utf8.RuneCountInString(pass); n < 15 || n > 200 {
		return fmt.Errorf("%w: %w", password.ErrRefused, problem{422, "invalid_password", "a password has 15 to 200 characters"})
	}
	return nil
}

// user returns the user who sent r. Users can be deleted or disabled while they have an
// access token.
func (s api) user(r *http.Request) (auth.User, error) {
	claims, _ := auth.FromContext(r.Context())
	u, err := s.users.FindByID(r.Context(), claims.Subject)
	if errors.Is(err, auth.ErrUserNotFound) || err == nil && u.Disabled {
		err = auth.ErrSessionRevoked
	}
	return u, err
}

func (s api) me(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	u, err := s.user(r)
	if err == nil {
		respond(w, http.StatusOK, map[string]any{"id": u.ID, "login": u.Username, "roles": u.Roles})
	}
	return err
}

// changePassword changes the password, and ends the other sessions of the user.
func (s api) changePassword(w http.ResponseWriter, r *http.Request, body map[string]string) error {
	claims, _ := auth.FromContext(r.Context())
	err := s.auth.ChangePassword(r.Context(), claims, body["current"], body["password"], s.auth.Device(r))
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// updateUser changes the role and status of another user. If it fails, the client can
// send the request again.
func (s api) updateUser(w http.ResponseWriter, r *http.Request, body map[string]string) error {
	role, disabled := body["role"], body["status"] == "disabled"
	if role != "member" && role != "admin" || !disabled && body["status"] != "enabled" {
		return problem{422, "invalid_role", "role is member or admin, and status is enabled or disabled"}
	}
	u, err := s.users.FindByLogin(r.Context(), r.PathValue("login"))
	if errors.Is(err, auth.ErrUserNotFound) {
		return problem{404, "not_found", "there is no such user"}
	}
	if claims, _ := auth.FromContext(r.Context()); err == nil && claims.Subject == u.ID {
		return problem{422, "own_role", "administrators cannot change their own role and status"}
	}
	if err == nil {
		err = s.users.exec(r.Context(), nil, "UPDATE users SET role = $1, disabled = $2 WHERE id = $3", role, disabled, u.ID)
	}
	if err == nil && disabled {
		err = s.auth.RevokeAll(r.Context(), u.ID)
	} else if err == nil {
		err = s.auth.ExpireAccess(r.Context(), u.ID) // the client refreshes, and its new token has the role
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
