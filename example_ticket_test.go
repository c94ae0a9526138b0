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
)

// A page of another site cannot send its access token with the handshake of a stream.
// It sends a ticket.
func ExampleAuthenticator_RequireStream() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    ticketUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /events", a.RequireStream()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: hello %s\n\n", claims.Username) // and so on, until SessionContext is done
	})))

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/auth/ticket", strings.NewReader("path=/events"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	var issued struct{ Ticket string }
	if err := json.Unmarshal(w.Body.Bytes(), &issued); err != nil {
		log.Fatal(err)
	}
	for range 2 { // as EventSource sends it
		r = httptest.NewRequest(http.MethodGet, "/events?ticket="+issued.Ticket, nil)
		r.Header.Set("Accept", "text/event-stream")
		w = httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 data: hello ada
	// 401 {"error":"used_token","error_description":"it was used before, and can be used only once","action":"refresh"}
}

// ticketUsers is a user lookup in which every ID is a user.
type ticketUsers struct{}

func (ticketUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (ticketUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
