package auth_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// An application can write its own login handler, for example to redirect
// afterward.
func ExampleAuthenticator_SetCookies() {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    formUsers{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		Cookies:  &auth.Cookies{},
	})
	if err != nil {
		log.Fatal(err)
	}
	login := func(w http.ResponseWriter, r *http.Request) {
		if err := a.CheckOrigin(r); err != nil { // required before cookies are set
			a.WriteError(w, r, err)
			return
		}
		var form struct{ Name, Password string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&form); err != nil {
			a.WriteError(w, r, auth.ErrInvalidRequest)
			return
		}
		o := auth.SessionOptions{
			Device:   a.Device(r),
			Replaces: a.CookieTokens(r), // end the session whose cookies are overwritten
		}
		tokens, err := a.Login(r.Context(), form.Name, form.Password, o)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.SetCookies(w, tokens)
		http.Redirect(w, r, "/home", http.StatusSeeOther)
	}

	body := `{"name":"ada","password":"correct horse battery staple"}`
	w := httptest.NewRecorder()
	login(w, httptest.NewRequest(http.MethodPost, "/signin", strings.NewReader(body)))
	fmt.Println(w.Code, w.Header().Get("Location"))
	for _, c := range w.Result().Cookies() {
		fmt.Println(c.Name, c.HttpOnly, c.Secure)
	}
	// Output:
	// 303 /home
	// __Host-access true true
	// __Host-Http-refresh true true
	// __Host-Http-device true true
}

// formUsers is a user lookup with one user.
type formUsers struct{ ada auth.User }

func (u formUsers) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != "ada" && login != "ada@example.com" {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u formUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
