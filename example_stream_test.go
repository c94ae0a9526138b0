package auth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A long response can end when its session ends.
func ExampleVerifier_SessionContext() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    streamUsers{},
	})
	if err != nil {
		log.Fatal(err)
	}
	stream := a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		ctx, cancel := a.SessionContext(r.Context(), claims)
		defer cancel()
		// The user signs out everywhere while the stream is open.
		if err := a.RevokeAll(context.Background(), claims.Subject); err != nil {
			return
		}
		<-ctx.Done()
		fmt.Fprintf(w, "event: end\ndata: %v", context.Cause(ctx))
	}))

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/events", nil)
	r.Header.Set("Authorization", "Bearer "+tokens.Access)
	w := httptest.NewRecorder()
	stream.ServeHTTP(w, r)
	fmt.Println(w.Body)
	// Output:
	// event: end
	// data: auth: session revoked: Revoke or RevokeAll was called
}

// streamUsers is a user lookup in which every ID is a user.
type streamUsers struct{}

func (streamUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (streamUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id, Username: "ada"}, nil
}
