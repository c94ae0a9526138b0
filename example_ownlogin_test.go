package auth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ratchet-go/auth"
)

// A login handler of one's own, with a redirect after it, is the same few
// lines that the package's has.
func ExampleAuthenticator_SetCookies() {
	a := exampleAuthenticator()
	login := func(w http.ResponseWriter, r *http.Request) {
		if err := a.CheckOrigin(r); err != nil { // it is going to set cookies
			a.WriteError(w, r, err)
			return
		}
		var form struct{ Name, Password string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&form); err != nil {
			a.WriteError(w, r, auth.ErrInvalidRequest)
			return
		}
		in := auth.SessionOptions{Device: a.Device(r), Replaces: a.CookieTokens(r)} // the cookies are about to be overwritten
		t, err := a.Login(r.Context(), form.Name, form.Password, in)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.SetCookies(w, t)
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
}
