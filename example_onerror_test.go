package auth_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// OnError replaces the bodies of all error responses, here by problem details
// (RFC 9457). The status and the headers are still those of the package.
func ExampleConfig_onError() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    problemUsers{},
		OnError:  writeProblem,
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.NotFoundHandler()))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/me", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"), w.Header().Get("Content-Type"))
	fmt.Println(w.Body)
	// Output:
	// 401 Bearer application/problem+json
	// {"status":401,"title":"Unauthorized","detail":"no access token in the header Authorization (Bearer)","code":"missing_token","action":"login"}
}

// writeProblem writes an error of the package, and any other error as status 500
// without details.
func writeProblem(w http.ResponseWriter, _ *http.Request, err error) {
	e := auth.ResponseFor(err)
	e.SetHeaders(w.Header())
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(struct {
		Status int    `json:"status"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Action string `json:"action,omitempty"` // clients need it: refresh, or sign in
		Reason string `json:"reason,omitempty"`
	}{e.Status, http.StatusText(e.Status), e.Description, e.Code, e.Action, e.Reason})
}

// problemUsers is a user lookup without users.
type problemUsers struct{}

func (problemUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (problemUsers) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}
