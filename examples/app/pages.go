// This file has the pages: what each of them shows, and what its form does.

package main

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"slices"

	"github.com/ratchet-go/auth"
)

//go:embed web
var web embed.FS

var templates = template.Must(template.ParseFS(web, "web/*.html"))

type site struct {
	auth  *auth.Authenticator
	users users
}

// view is what a template shows. Its methods read the database.
type view struct {
	site
	Request *http.Request
	Claims  *auth.Claims // nil if nobody is signed in
	Error   string
	Action  string // of an error: login, or ""
}

func (v view) Users() ([]auth.User, error) { return v.users.list(v.Request.Context(), "") }
func (v view) Devices() ([]auth.Session, error) {
	return v.auth.Sessions(v.Request.Context(), v.Claims.Subject)
}

// routes returns the handler of the application.
func routes(a *auth.Authenticator, u users) http.Handler {
	s, mux := site{a, u}, http.NewServeMux()
	member, admin := a.Require(), a.Require(auth.Role("admin", "owner"))
	s.page(mux, "GET /{$}", "home", a.Optional, nil)
	s.page(mux, "/login", "login", a.Optional, s.login)
	s.page(mux, "/signup", "signup", a.Optional, s.signUp)
	s.page(mux, "/profile", "profile", member, s.changePassword)
	s.page(mux, "/devices", "devices", member, s.endDevices)
	s.page(mux, "/admin", "admin", admin, s.updateUser)
	mux.Handle("POST /logout", a.LogoutHandler())
	mux.Handle("GET /web/style.css", http.FileServerFS(web))
	return http.MaxBytesHandler(mux, 64<<10)
}

// page registers a page. submit handles its form, unless another origin sent it, and
// returns the path to redirect to. The page shows its error if that is invalid, or a
// login that is wrong.
func (s site) page(mux *http.ServeMux, path, name string, access func(http.Handler) http.Handler,
	submit func(http.ResponseWriter, *http.Request, *auth.Claims) (string, error),
) {
	mux.Handle(path, access(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, status, err := view{site: s, Request: r}, http.StatusOK, s.auth.CheckOrigin(r)
		v.Claims, _ = auth.FromContext(r.Context())
		if r.Method == http.MethodPost && err == nil {
			var to string
			if to, err = submit(w, r, v.Claims); err == nil {
				http.Redirect(w, r, auth.LocalPath(to), http.StatusSeeOther)
				return
			}
		}
		if text, ok := errors.AsType[invalid](err); ok {
			v.Error, status, err = string(text), http.StatusUnprocessableEntity, nil
		} else if errors.Is(err, auth.ErrInvalidCredentials) {
			v.Error, status, err = "User name or password is wrong.", http.StatusUnauthorized, nil
		}
		if err == nil {
			err = render(w, status, name, v)
		}
		if err != nil {
			s.auth.WriteError(w, r, err)
		}
	})))
}

func render(w http.ResponseWriter, status int, name string, v view) error {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name+".html", v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
	return nil
}

// showError is the OnError of package auth.
func showError(w http.ResponseWriter, r *http.Request, err error) {
	e := auth.ResponseFor(err)
	if e.Action != "" && r.Method != http.MethodPost { // a login helps
		auth.RedirectToLogin("/login")(w, r, err)
		return
	}
	e.SetHeaders(w.Header())
	_ = render(w, e.Status, "error", view{Request: r, Error: e.Description, Action: e.Action})
}

func (s site) login(w http.ResponseWriter, r *http.Request, _ *auth.Claims) (string, error) {
	err := s.auth.LoginForm(w, r)
	return r.FormValue("next"), err
}

func (s site) signUp(w http.ResponseWriter, r *http.Request, _ *auth.Claims) (string, error) {
	f, err := auth.ReadFields(r, "login", "password")
	if err != nil {
		return "", err
	}
	if err := s.users.signUp(r.Context(), f["login"], f["password"]); err != nil {
		return "", err
	}
	return s.login(w, r, nil)
}

func (s site) changePassword(_ http.ResponseWriter, r *http.Request, c *auth.Claims) (string, error) {
	err := s.users.changePassword(r.Context(), c.Subject, r.PostFormValue("current"), r.PostFormValue("password"))
	if err == nil && s.auth.RevokeAll(r.Context(), c.Subject, c.SessionID) != nil { // last: now, nobody can sign in with the old password
		err = invalid("The password has been changed, but other devices may still be signed in. End them on the page Devices.")
	}
	return "/devices?done", err
}

func (s site) endDevices(_ http.ResponseWriter, r *http.Request, c *auth.Claims) (string, error) {
	list, err := s.auth.Sessions(r.Context(), c.Subject)
	for _, d := range list { // sessions that exist, because the revocation of any ID takes memory
		if err == nil && r.PostFormValue("id") != "" && slices.Contains(r.PostForm["id"], d.ID) {
			err = s.auth.Revoke(r.Context(), c.Subject, d.ID)
		}
	}
	return "/devices", err
}

func (s site) updateUser(_ http.ResponseWriter, r *http.Request, c *auth.Claims) (string, error) {
	id, disabled := r.PostFormValue("id"), r.PostFormValue("status") == "disabled"
	if err := s.users.update(r.Context(), id, r.PostFormValue("role"), disabled, c.Subject); err != nil {
		return "", err
	}
	if disabled {
		return "/admin", s.auth.RevokeAll(r.Context(), id)
	}
	return "/admin", s.auth.ExpireAccess(r.Context(), id) // the next request gets a token with the new role
}
