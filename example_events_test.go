package auth_test

import (
	"context"
	"crypto/rand"
	"expvar"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/ratchet-go/auth"
)

// LogEvents logs events, and a function around it can count them too.
func ExampleLogEvents() {
	handler := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})
	logEvent := auth.LogEvents(slog.New(handler))
	counts := new(expvar.Map) // a program publishes it, or has a counter with labels
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    loggedUsers{},
		OnEvent: func(ctx context.Context, e auth.Event) { // called while the request waits
			counts.Add(string(e.Type), 1)
			logEvent(ctx, e)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	_, err = a.Login(ctx, "bob", "correct horse battery staple", auth.SessionOptions{})
	fmt.Println("client:", err)
	if _, err := a.StartSession(ctx, "u1", auth.SessionOptions{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(counts)
	// Output:
	// level=WARN msg="auth: login_refused" error="auth: invalid credentials: unknown user"
	// client: auth: invalid credentials
	// level=INFO msg="auth: login" subject=u1
	// {"login": 1, "login_refused": 1}
}

// withoutTime removes what differs at each run of this example.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == "session" {
		return slog.Attr{}
	}
	return a
}

// loggedUsers is a user lookup in which every ID is a user.
type loggedUsers struct{}

func (loggedUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (loggedUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}
