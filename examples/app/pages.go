// This file has the pages: what each of them shows, and what its form does.

package main

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/ratchet-go/auth"
)

//go:embed web
var web embed.FS

var templates = template.Must(template.ParseFS(web, "web/*.html"))

type site struct {
	auth        *auth.Authenticator
	users       users
	mails       string // folder
	url         string // of the application, for links; the Host of a request may be chosen by somebody else
	Development bool   // everybody can read the mails
}

// view is what a template shows. Its methods use the database.
type view struct {
	*site
	Request *http.Request
	Claims  *auth.Claims // nil if nobody is signed in
	Error   string
	Action  string            // of an error: login, or ""
	Factor  *auth.FactorError // the password is right, and a code is needed
	Codes   []string          // new recovery codes
}

func (v view) Users() ([]account, error)          { return v.users.list(v.Request.Context(), "") }
func (v view) Account(id string) (account, error) { return v.users.find(v.Request.Context(), "id", id) }
func (v view) Devices() ([]auth.Session, error) {
	return v.auth.Sessions(v.Request.Context(), v.Claims.Subject)
}
func (v view) ExpiresIn() int { return int(time.Until(v.Claims.ExpiresAt).Seconds()) }

func (s *site) routes() http.Handler {
	mux, require := http.NewServeMux(), s.auth.Require
	nobody := func(h http.Handler) http.Handler { return h } // whoever is signed in does not matter
	everybody, member, self := s.auth.Optional, require(), require(auth.NotActing())
	admin, recent := require(auth.Role("admin", "owner"), auth.NotActing()), require(auth.NotActing(), auth.Fresh(15*time.Minute))
	s.page(mux, "GET /{$}", "home", everybody, nil)
	s.page(mux, "/login", "login", everybody, s.login)
	s.page(mux, "/signup", "signup", everybody, s.signUp)
	s.page(mux, "/verify", "verify", everybody, s.verify)
	s.page(mux, "/forgot", "forgot", everybody, s.forgot)
	s.page(mux, "/reset", "reset", nobody, s.reset)
	s.page(mux, "/profile", "profile", member, s.changePassword)
	s.page(mux, "/factor", "factor", recent, s.changeFactor)
	s.page(mux, "/devices", "devices", self, s.endDevices)
	s.page(mux, "/admin", "admin", admin, s.updateUser)
	s.page(mux, "POST /admin/as", "admin", admin, s.actAs)
	if s.Development {
		mux.Handle("GET /mail/", http.StripPrefix("/mail", http.FileServer(http.Dir(s.mails))))
	}
	mux.Handle("POST /logout", s.auth.LogoutHandler())
	mux.Handle("POST /refresh", s.auth.RefreshHandler()) // for auth.js, like /logout
	mux.Handle("GET /auth.js", s.auth.ScriptHandler())
	mux.Handle("GET /web/app.js", http.FileServerFS(web))
	mux.Handle("GET /web/style.css", http.FileServerFS(web))
	return http.MaxBytesHandler(mux, 64<<10)
}

// page registers a page. submit handles its form, unless another origin sent it, and returns the path to
// redirect to. If the form is wrong, the page shows the error. It also shows new recovery codes.
func (s *site) page(mux *http.ServeMux, path, name string, access func(http.Handler) http.Handler, submit func(http.ResponseWriter, *view) (string, error)) {
	mux.Handle(path, access(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, to, err := view{site: s, Request: r}, "", s.auth.CheckOrigin(r)
		v.Claims, _ = auth.FromContext(r.Context())
		if r.Method == http.MethodPost && err == nil {
			to, err = submit(w, &v)
		}
		e := auth.ResponseFor(err)
		if text, ok := errors.AsType[invalid](err); ok {
			e.Status, e.Description = http.StatusUnprocessableEntity, string(text)
		}
		switch {
		case err == nil && r.Method == http.MethodPost && v.Codes == nil:
			http.Redirect(w, r, auth.LocalPath(to), http.StatusSeeOther)
		case err == nil:
			err = render(w, http.StatusOK, name, v)
		case e.Status < 500:
			v.Error, v.Factor = e.Description, e.Factor
			e.SetHeaders(w.Header())
			err = render(w, e.Status, name, v)
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
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the URL may have a token
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
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

func (s *site) login(w http.ResponseWriter, v *view) (string, error) {
	return v.Request.FormValue("next"), s.auth.LoginForm(w, v.Request)
}

func (s *site) changePassword(_ http.ResponseWriter, v *view) (string, error) {
	r := v.Request
	return "/devices?done", s.auth.ChangePassword(r.Context(), v.Claims, r.PostFormValue("current"), r.PostFormValue("password"), s.auth.Device(r))
}

func (s *site) endDevices(_ http.ResponseWriter, v *view) (string, error) {
	list, err := s.auth.Sessions(v.Request.Context(), v.Claims.Subject)
	for _, d := range list { // sessions that exist, because the revocation of any ID takes memory
		if err == nil && v.Request.PostFormValue("id") != "" && slices.Contains(v.Request.PostForm["id"], d.ID) {
			err = s.auth.Revoke(v.Request.Context(), v.Claims.Subject, d.ID)
		}
	}
	return "/devices", err
}

func (s *site) updateUser(_ http.ResponseWriter, v *view) (string, error) {
	r := v.Request
	id, role, disabled, required := r.PostFormValue("id"), r.PostFormValue("role"), r.PostFormValue("status") == "disabled", r.PostFormValue("factor") == "required"
	err := s.users.exec(r.Context(), invalid("you can change neither yourself nor the first user"),
		"UPDATE users SET role = $2, disabled = $3, totp_required = $4 WHERE id = $1 AND id <> $5 AND owner IS NULL", id, role, disabled, required, v.Claims.Subject)
	if role == "admin" && !disabled && !required && err == nil {
		err = s.auth.ExpireAccess(r.Context(), id) // the next request gets a token with the new role
	} else if err == nil {
		err = s.auth.RevokeAll(r.Context(), id) // also ends the sessions in which the user acts for others
	}
	return "/admin", err
}

// actAs opens a session in which an administrator acts for a member.
func (s *site) actAs(w http.ResponseWriter, v *view) (string, error) {
	r := v.Request
	u, err := s.users.FindByID(r.Context(), r.PostFormValue("id"))
	if err != nil || u.Disabled || u.Roles[0] != "member" {
		return "", cmp.Or(err, error(invalid("you can act only for members who are not disabled")))
	}
	t, err := s.auth.StartSession(r.Context(), u.ID, auth.SessionOptions{Actor: v.Claims.Subject, Device: s.auth.Device(r), Replaces: s.auth.CookieTokens(r)})
	if err == nil {
		s.auth.SetCookies(w, t)
	}
	return "/", err
}
