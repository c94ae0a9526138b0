package auth_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// A site that the server renders. A page that requires a login sends the user to
// the login page, and the login page sends them back.
func ExampleLocalPath() {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer:      "https://example.com",
		Audience:    []string{"https://example.com"},
		Secrets:     [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:       siteUsers{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		Cookies:     &auth.Cookies{},
		AutoRefresh: true,
		OnError:     auth.RedirectToLogin("/login"),
	})
	if err != nil {
		log.Fatal(err)
	}
	showLogin := func(w http.ResponseWriter, r *http.Request, status int, text string) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<p>%s</p><form method="post" action="/login?next=%s"><input name="login" required>
			<input name="password" type="password" required><button>Sign in</button></form>`, text, url.QueryEscape(r.FormValue("next")))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		showLogin(w, r, http.StatusOK, "Sign in")
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		switch err := a.LoginForm(w, r); {
		case errors.Is(err, auth.ErrInvalidCredentials):
			showLogin(w, r, http.StatusUnauthorized, "Name or password is wrong.")
		case errors.Is(err, auth.ErrThrottled):
			showLogin(w, r, http.StatusTooManyRequests, auth.ResponseFor(err).Description) // says how long to wait
		case err != nil:
			a.WriteError(w, r, err)
		default:
			http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
		}
	})
	mux.Handle("/notes", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `notes <form method="post" action="/logout"><button>Sign out</button></form>`)
	})))
	mux.Handle("POST /logout", a.LogoutHandler()) // redirects forms to "/", or to their field next

	send := func(method, target, accept, form string) {
		r := httptest.NewRequestWithContext(context.Background(), method, target, strings.NewReader(form))
		r.Header.Set("Accept", accept)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Printf("%s %s: %d %q\n", method, target, w.Code, cmp.Or(w.Header().Get("Location"), w.Header().Get("Content-Type")))
	}
	const page, right = "text/html,*/*;q=0.8", "login=ada&password=correct+horse+battery+staple"
	send("GET", "/notes?page=2", page, "")   // a page load
	send("GET", "/notes?page=2", "*/*", "")  // fetch in a script
	send("POST", "/notes", page, "text=new") // a form
	send("POST", "/login?next=%2Fnotes", page, "login=ada&password=wrong")
	send("POST", "/login?next=%2Fnotes%3Fpage%3D2", page, right)
	send("POST", "/login?next=%2F%2Fevil.example", page, right)
	send("POST", "/logout", page, "")
	// Output:
	// GET /notes?page=2: 303 "/login?next=%2Fnotes%3Fpage%3D2"
	// GET /notes?page=2: 401 "application/json; charset=utf-8"
	// POST /notes: 401 "text/html; charset=utf-8"
	// POST /login?next=%2Fnotes: 401 "text/html; charset=utf-8"
	// POST /login?next=%2Fnotes%3Fpage%3D2: 303 "/notes?page=2"
	// POST /login?next=%2F%2Fevil.example: 303 "/"
	// POST /logout: 303 "/"
}

// siteUsers is a user lookup with one user.
type siteUsers struct{ ada auth.User }

func (u siteUsers) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u siteUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
