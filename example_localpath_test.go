package auth_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/ratchet-go/auth"
)

// A site that the server renders. A page that requires a login sends the user to
// the login page, and the login page sends them back.
func ExampleLocalPath() {
	a, err := auth.New(auth.Config{
		Issuer:      "https://example.com",
		Audience:    []string{"https://example.com"},
		Secrets:     [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:       pageUsers{},
		Cookies:     &auth.Cookies{},
		AutoRefresh: true,
		OnError: func(w http.ResponseWriter, r *http.Request, err error) {
			e := auth.ResponseFor(err)
			switch {
			case e.Action == "" || !strings.Contains(r.Header.Get("Accept"), "text/html"):
				auth.DefaultOnError(w, r, err) // not for a script, or a login would not help
			case r.Method == http.MethodGet:
				http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			default: // a form, and the session has ended
				e.SetHeaders(w.Header())
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				w.WriteHeader(e.Status)
				fmt.Fprint(w, `You must sign in again. Nothing was saved yet. <a href="/login" target="_blank">Sign in</a>
					in a new tab, then reload this page to send the form again.`)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<form method="post" action="/login?next=%s">…</form>`, url.QueryEscape(r.FormValue("next")))
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := a.CheckOrigin(r); err != nil {
			a.WriteError(w, r, err)
			return
		}
		// A program calls Login with a name and a password, and shows the form
		// again after ErrInvalidCredentials.
		t, err := a.StartSession(r.Context(), "u1", auth.SessionOptions{Device: a.Device(r), Replaces: a.CookieTokens(r)})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.SetCookies(w, t)
		http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
	})
	mux.Handle("/notes", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "notes")
	})))

	send := func(method, target, accept string) {
		r := httptest.NewRequestWithContext(context.Background(), method, target, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Printf("%s %s: %d %q\n", method, target, w.Code, cmp.Or(w.Header().Get("Location"), w.Header().Get("Content-Type")))
	}
	send("GET", "/notes?page=2", "text/html,*/*;q=0.8") // a page load
	send("GET", "/notes?page=2", "*/*")                 // fetch in a script
	send("POST", "/notes", "text/html,*/*;q=0.8")       // a form
	send("POST", "/login?next=%2Fnotes%3Fpage%3D2", "text/html")
	send("POST", "/login?next=%2F%2Fevil.example", "text/html")
	// Output:
	// GET /notes?page=2: 303 "/login?next=%2Fnotes%3Fpage%3D2"
	// GET /notes?page=2: 401 "application/json; charset=utf-8"
	// POST /notes: 401 "text/html; charset=utf-8"
	// POST /login?next=%2Fnotes%3Fpage%3D2: 303 "/notes?page=2"
	// POST /login?next=%2F%2Fevil.example: 303 "/"
}
