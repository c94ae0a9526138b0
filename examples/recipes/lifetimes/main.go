// Command lifetimes gives sessions the lifetime that suits the client and the user:
// long in an app, short in a browser that the user does not want to be remembered in,
// and shortest for administrators.
//
//	go run ./examples/recipes/lifetimes
//	curl http://127.0.0.1:8080/auth/login --json '{"login":"ada","password":"correct horse battery staple","delivery":"body"}'
//
// Open the page that it prints to sign in with a browser. The users are ada and root,
// an administrator, both with this password.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

const day = 24 * time.Hour

// lifetimes is the OnLogin of the configuration. It is called for each login, and can
// only shorten the lifetimes of the configuration.
func lifetimes(_ context.Context, u auth.User, o *auth.SessionOptions) error {
	switch {
	case slices.Contains(u.Roles, "admin"): // with any client
		o.IdleTTL, o.SessionTTL = 30*time.Minute, 8*time.Hour
	case o.Ephemeral: // "remember me" was not ticked
		o.IdleTTL, o.SessionTTL = 2*time.Hour, day
	case !o.InBody: // a browser, which keeps its tokens in cookies
		o.IdleTTL, o.SessionTTL = 14*day, 60*day
	}
	return nil // for the app: the lifetimes of the configuration
}

func config(us users) auth.Config {
	return auth.Config{
		// With TLS: "https://app.example.com", and &auth.Cookies{AllowBody: true}.
		Issuer: "http://lifetimes.localhost", Audience: []string{"http://lifetimes.localhost"},
		Cookies: &auth.Cookies{InsecureHTTP: true, AllowBody: true}, AutoRefresh: true,
		// Sessions are in memory, so a secret that also ends with the process suffices.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us,
		// The longest lifetimes, those of the app.
		IdleTTL: 90 * day, SessionTTL: 365 * day,
		// An IdleTTL, also one that OnLogin sets, is at least AccessTTL + 3·RetryWindow + Leeway.
		AccessTTL: 5 * time.Minute,
		OnLogin:   lifetimes,
		OnEvent:   auth.LogEvents(slog.Default()),
	}
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>Lifetimes</title>
{{- if .Claims}}
<h1>Hello {{.Claims.Username}}</h1>
<p>You are signed in until {{.Claims.SessionExpiresAt.UTC.Format "2 Jan 2006, 15:04"}} UTC, or longer if you come back before then.</p>
<form method="post" action="/auth/logout"><button>Sign out</button></form>
{{- else}}
<h1>Sign in</h1>
{{- with .Error}}<p role="alert">{{.}}</p>{{end}}
<form method="post" action="/login">
<p><label>Name <input name="login" autocomplete="username" required></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
<input type="hidden" name="remember" value="false">
<p><label><input type="checkbox" name="remember"> Remember me on this computer</label></p>
<button>Sign in</button>
</form>
{{- end}}
</html>
`))

func show(w http.ResponseWriter, r *http.Request, status int, text string) {
	c, _ := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = page.Execute(w, map[string]any{"Claims": c, "Error": text}) // the client may have disconnected
}

func routes(a *auth.Authenticator) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /{$}", a.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		show(w, r, http.StatusOK, "")
	})))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		switch err := a.LoginForm(w, r); { // reads the field remember
		case errors.Is(err, auth.ErrInvalidCredentials):
			show(w, r, http.StatusUnauthorized, "The name or the password is wrong.")
		case errors.Is(err, auth.ErrThrottled):
			show(w, r, http.StatusTooManyRequests, auth.ResponseFor(err).Description)
		case err != nil:
			a.WriteError(w, r, err)
		default:
			http.Redirect(w, r, "/", http.StatusSeeOther)
		}
	})
	return mux
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, because there is no TLS")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal("lifetimes: ", err)
	}
}

func run(addr string) error {
	us, err := newUsers()
	if err != nil {
		return err
	}
	a, err := auth.New(config(us))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}

// users is an auth.Users. Yours looks users up in your database.
type users []auth.User

// newUsers returns ada and the administrator root, whose passwords are "correct horse
// battery staple".
func newUsers() (users, error) {
	hash, err := password.Hash("correct horse battery staple")
	return users{
		{ID: "u1", Username: "ada", PasswordHash: hash},
		{ID: "u2", Username: "root", PasswordHash: hash, Roles: []string{"admin"}},
	}, err
}

func (us users) find(is func(auth.User) bool) (auth.User, error) {
	if i := slices.IndexFunc(us, is); i >= 0 {
		return us[i], nil
	}
	return auth.User{}, auth.ErrUserNotFound
}

func (us users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	return us.find(func(u auth.User) bool { return u.Username == login })
}

func (us users) FindByID(_ context.Context, id string) (auth.User, error) {
	return us.find(func(u auth.User) bool { return u.ID == id })
}
