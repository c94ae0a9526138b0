package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

const (
	purpose  = "reset-password"
	lifetime = 30 * time.Minute
)

type site struct {
	*auth.Authenticator
	users    *users
	send     func(to, link string) error
	url      string
	interval time.Duration
	now      func() time.Time
	asked    chan string // the addresses for which somebody asks for a link
}

func newSite(a *auth.Authenticator, us *users, send func(to, link string) error, url string, interval time.Duration) *site {
	return &site{a, us, send, url, interval, time.Now, make(chan string, 100)}
}

func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", s.Optional(http.HandlerFunc(home)))
	mux.Handle("POST /logout", s.LogoutHandler())
	for pattern, h := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"POST /login":  s.login,
		"GET /forgot":  func(w http.ResponseWriter, _ *http.Request) error { return show(w, 200, view{Page: "forgot"}) },
		"POST /forgot": s.forgot,
		"GET /reset":   s.link,
		"POST /reset":  s.reset,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			err := s.CheckOrigin(r) // for a POST: another site cannot send mails in the name of its visitors
			if err == nil {
				err = h(w, r)
			}
			if err != nil {
				s.WriteError(w, r, err)
			}
		})
	}
	return mux
}

// forgot handles the form that asks for a link. The answer is the same for everybody,
// and so is the time that it takes, because the lookup and the mail come after it.
func (s *site) forgot(w http.ResponseWriter, r *http.Request) error {
	f, err := auth.ReadFields(r, "email")
	if err != nil {
		return err
	}
	select {
	case s.asked <- f["email"]:
	default: // too many at once; the user asks again
		slog.Warn("a request for a link was dropped")
	}
	return show(w, 200, view{Page: "sent"})
}

// answer sends the links that were asked for, until ctx is done.
func (s *site) answer(ctx context.Context) {
	for {
		select {
		case email := <-s.asked:
			if err := s.sendLink(ctx, email); err != nil {
				slog.Error("a link was not sent", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// sendLink sends a link to a user, if there is one who can use it.
func (s *site) sendLink(ctx context.Context, email string) error {
	u, err := s.users.FindByLogin(ctx, email)
	if errors.Is(err, auth.ErrUserNotFound) || err == nil && u.Disabled {
		return nil
	}
	if err == nil { // at most one mail in each interval, from all processes
		step := fmt.Sprint("reset mail ", s.now().UnixNano()/int64(s.interval))
		err = s.Once(ctx, u.ID, step, max(s.interval, time.Second))
	}
	if errors.Is(err, auth.ErrSpent) {
		return nil
	}
	if err != nil {
		return err
	}
	token, err := s.IssueOneTime(ctx, auth.OneTime{Purpose: purpose, Subject: u.ID, TTL: lifetime, BoundToPassword: true})
	if err != nil {
		return err
	}
	return s.send(u.Username, s.url+"/reset?token="+url.QueryEscape(token)) // to the address of the user, not to the one that was typed
}

// link handles the link in the mail. It spends nothing, because programs that scan
// mails follow links too. Only the form that it shows sets a password.
func (s *site) link(w http.ResponseWriter, r *http.Request) error {
	token := r.URL.Query().Get("token")
	if _, err := s.CheckOneTime(r.Context(), purpose, token); err != nil {
		return err
	}
	return show(w, 200, view{Page: "reset", Token: token})
}

// reset handles the form that sets a password.
func (s *site) reset(w http.ResponseWriter, r *http.Request) error {
	f, err := auth.ReadFields(r, "token", "password")
	if err != nil {
		return err
	}
	link, err := s.CheckOneTime(r.Context(), purpose, f["token"])
	if err != nil {
		return err
	}
	// This ends all sessions of the user. It also ends this link and every other
	// one, because they are bound to the old password.
	err = s.SetPassword(r.Context(), link.Subject, f["password"], s.Device(r))
	if errors.Is(err, password.ErrRefused) || errors.Is(err, password.ErrEmpty) || errors.Is(err, password.ErrTooLong) {
		return show(w, 422, view{Page: "reset", Token: f["token"], Error: "Choose a password of at least 15 characters."})
	}
	if err == nil {
		http.Redirect(w, r, "/?changed", http.StatusSeeOther)
	}
	return err
}

func (s *site) login(w http.ResponseWriter, r *http.Request) error {
	err := s.LoginForm(w, r)
	if errors.Is(err, auth.ErrInvalidCredentials) {
		return show(w, 401, view{Page: "home", Error: "The address or the password is wrong."})
	}
	if errors.Is(err, auth.ErrThrottled) {
		return show(w, 429, view{Page: "home", Error: auth.ResponseFor(err).Description})
	}
	if err == nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
	return err
}

func home(w http.ResponseWriter, r *http.Request) {
	v := view{Page: "home", Changed: r.URL.Query().Has("changed")}
	v.Claims, _ = auth.FromContext(r.Context())
	_ = show(w, 200, v)
}

// showError is the OnError of package auth. A link that is not good any more is an
// error with status 400.
func showError(w http.ResponseWriter, r *http.Request, err error) {
	e := auth.ResponseFor(err)
	e.SetHeaders(w.Header())
	v := view{Page: "error", Error: e.Description}
	if r.URL.Path == "/reset" && e.Status == http.StatusBadRequest {
		v = view{Page: "bad link"}
	}
	_ = show(w, e.Status, v)
}

// view is what page.html shows.
type view struct {
	Page, Token, Error string
	Claims             *auth.Claims // nil if nobody is signed in
	Changed            bool
}

func show(w http.ResponseWriter, status int, v view) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the URL of a page has the token
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = page.Execute(w, v) // the client may have disconnected
	return nil
}
