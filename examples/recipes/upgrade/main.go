// Command upgrade replaces a login of one's own, bcrypt hashes and JWTs that live for
// 30 days, without signing anybody out. It has two users of the old login, ada and
// bob, whose password is "correct horse battery staple".
//
//	export AUTH_SECRET=$(openssl rand -base64 48) OLD_SECRET="the secret of the old login"
//	go run ./examples/recipes/upgrade -switched 2030-01-31T12:00:00Z
//
// A bcrypt hash is verified, and replaced by argon2id when its user signs in. A user
// who has an old token exchanges it for a session without a login: bridge.go has this
// part, which is removed when the last old token has expired.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/bcrypt"
	_ "modernc.org/sqlite"

	"github.com/ratchet-go/auth"
)

var loginPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in</title>
<form method="post"><p>{{.Error}}</p><input type="hidden" name="next" value="{{.Next}}">
<label>User <input name="login"></label> <label>Password <input name="password" type="password"></label> <button>Sign in</button></form></html>`))

func showLogin(w http.ResponseWriter, status int, next, why string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, map[string]string{"Next": next, "Error": why}) // the client may have disconnected
}

func routes(a *auth.Authenticator, b *bridge) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		next := auth.LocalPath(r.FormValue("next"))
		switch err := b.signIn(w, r); {
		case err == nil: // the user has an old cookie and needs no password
			http.Redirect(w, r, next, http.StatusSeeOther)
		case errors.Is(err, auth.ErrUnavailable):
			a.WriteError(w, r, err)
		default:
			showLogin(w, http.StatusOK, next, "")
		}
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		next := auth.LocalPath(r.FormValue("next"))
		switch err := a.LoginForm(w, r); {
		case errors.Is(err, auth.ErrInvalidCredentials):
			showLogin(w, http.StatusUnauthorized, next, "The name or the password is wrong.")
		case errors.Is(err, auth.ErrThrottled):
			showLogin(w, http.StatusTooManyRequests, next, auth.ResponseFor(err).Description)
		case err != nil:
			a.WriteError(w, r, err)
		default:
			http.Redirect(w, r, next, http.StatusSeeOther)
		}
	})
	mux.Handle("POST /exchange", http.HandlerFunc(b.exchange)) // for clients with an old bearer token
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintln(w, "hello", claims.Username)
	})
	mux.Handle("GET /{$}", a.Require()(hello))
	mux.Handle("GET /pay", a.Require(recent)(hello))
	return mux
}

// recent requires a login by password within five minutes. An exchange opens a
// session, but it proves no more than the old token does.
func recent(ctx context.Context, c *auth.Claims) error {
	if slices.Contains(c.AMR, bridged) {
		return auth.ErrReauthenticate
	}
	return auth.Fresh(5*time.Minute)(ctx, c)
}

func config(db *sql.DB, secret string) auth.Config {
	return auth.Config{
		Issuer: "http://upgrade.localhost", Audience: []string{"http://upgrade.localhost"},
		Secrets:     [][]byte{[]byte(secret)}, // not the old one
		Users:       users{db},
		Cookies:     &auth.Cookies{AllowBody: true, InsecureHTTP: true}, // InsecureHTTP: only on a loopback address
		AutoRefresh: true,
		OnEvent:     auth.LogEvents(slog.Default()),
		OnError:     auth.RedirectToLogin("/login"),
	}
}

// users looks users up in the table of the old login. UpdatePasswordHash makes it an
// auth.PasswordUpdater, so that logins replace bcrypt hashes.
type users struct{ db *sql.DB }

func (u users) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	return u.find(ctx, `SELECT id, name, password_hash FROM users WHERE name = ?`, login)
}

func (u users) FindByID(ctx context.Context, id string) (auth.User, error) {
	return u.find(ctx, `SELECT id, name, password_hash FROM users WHERE id = ?`, id)
}

func (u users) find(ctx context.Context, query, arg string) (found auth.User, err error) {
	err = u.db.QueryRowContext(ctx, query, arg).Scan(&found.ID, &found.Username, &found.PasswordHash)
	if errors.Is(err, sql.ErrNoRows) {
		return auth.User{}, auth.ErrUserNotFound
	}
	return found, err
}

func (u users) UpdatePasswordHash(ctx context.Context, id, old, next string) error {
	_, err := u.db.ExecContext(ctx, `UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?`, next, id, old)
	return err
}

// open opens the database. A new one gets the users that an old login would have.
func open(ctx context.Context, file string) (*sql.DB, error) {
	created, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would let every user of the machine read the hashes
	if err != nil {
		return nil, err
	}
	if err := created.Close(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(file)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse battery staple"), bcrypt.DefaultCost)
	if err == nil {
		_, err = db.ExecContext(ctx, `
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, password_hash TEXT NOT NULL, password_changed_at INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS exchanged (token BLOB PRIMARY KEY, user_id TEXT NOT NULL);
INSERT INTO users (id, name, password_hash) VALUES ('1', 'ada', ?1), ('2', 'bob', ?1) ON CONFLICT DO NOTHING`, string(hash))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "loopback `address` to listen on")
	file := flag.String("db", "upgrade.db", "`file` with the users")
	switched := flag.String("switched", "", "the `time` at which the old login was switched off, such as 2030-01-31T12:00:00Z; the same after a restart")
	flag.Parse()
	if err := run(*addr, *file, *switched); err != nil {
		log.Fatal("upgrade: ", err)
	}
}

func run(addr, file, switched string) error {
	secret, oldSecret := os.Getenv("AUTH_SECRET"), os.Getenv("OLD_SECRET")
	if oldSecret == "" || oldSecret == secret {
		return errors.New("set AUTH_SECRET to a new secret, and OLD_SECRET to the secret of the old login")
	}
	at, err := time.Parse(time.RFC3339, switched)
	if err != nil {
		return fmt.Errorf("set -switched to the time at which the old login was switched off, such as 2030-01-31T12:00:00Z: %w", err)
	}
	db, err := open(context.Background(), file)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	a, err := auth.New(config(db, secret))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, &bridge{a, db, []byte(oldSecret), at}), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}
