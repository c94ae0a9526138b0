package frameworktest

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// Client calls the methods of a program with the given metadata.
type Client struct {
	Hello, Admin func(ctx context.Context, header http.Header) (string, error)
	Events       func(ctx context.Context, header http.Header) (receive func() (string, error), err error)
	Code         func(error) uint32 // the code of an error, which has the same number in Connect and gRPC
	Action       func(error) string // the action in the detail of an error, or ""
}

// Codes of errors.
const (
	ok               = 0
	permissionDenied = 7
	unavailable      = 14
	unauthenticated  = 16
)

// PlayRPC tests a program with the configuration c. start serves it until the
// test ends, and returns a client, and the URL before /auth of the endpoints.
func PlayRPC(t *testing.T, c auth.Config, start func(t *testing.T, a *auth.Authenticator) (Client, string)) {
	c.OnEvent = nil // authtest logs events to the test
	a := authtest.New(t, c)
	client, url := start(t, a.Authenticator)
	endpoints := newServer(t, url)

	want := func(call func(context.Context, http.Header) (string, error), header http.Header, code uint32, action string) {
		t.Helper()
		text, err := call(t.Context(), header)
		if got := client.Code(err); got != code || client.Action(err) != action {
			t.Errorf("got code %d, action %q (%v); want %d and %q", got, client.Action(err), err, code, action)
		}
		if code == ok && text != "hello ada" && text != "hello bob" {
			t.Errorf("got %q", text)
		}
	}
	stream := func(ctx context.Context, header http.Header) (string, error) { // the first message
		receive, err := client.Events(ctx, header)
		if err != nil {
			return "", err
		}
		return receive()
	}

	first := endpoints.want(http.StatusOK, "", request{"POST", "/auth/login", `{"login":"ada","password":"` + pass + `","delivery":"body"}`, nil}).tokens(t)
	bobs := authtest.Tokens(t, a, bob)
	for _, call := range []func(context.Context, http.Header) (string, error){client.Hello, client.Admin, stream} {
		want(call, nil, unauthenticated, "login")
		want(call, with("Authorization", "Basic YTpi"), unauthenticated, "login")
		want(call, bearer("x"), unauthenticated, "login")
		want(call, bearer(first.Refresh), unauthenticated, "login")
		want(call, bearer(first.Access), ok, "")
		want(call, with("Authorization", "bearer "+first.Access), ok, "")
	}
	if _, err := client.Hello(t.Context(), with("Authorization", "Bearer "+first.Access, "Authorization", "Bearer "+bobs.Access)); err == nil {
		t.Error("tokens of two users must be refused")
	}
	want(client.Hello, bearer(bobs.Access), ok, "")
	want(client.Admin, bearer(bobs.Access), permissionDenied, "")

	a.Clock.Advance(16 * time.Minute)
	want(client.Hello, bearer(first.Access), unauthenticated, "refresh")
	want(stream, bearer(first.Access), unauthenticated, "refresh")
	second := endpoints.want(http.StatusOK, "", request{"POST", "/auth/refresh", `{"refresh_token":"` + first.Refresh + `"}`, nil}).tokens(t)
	want(client.Hello, bearer(second.Access), ok, "")

	receive, err := client.Events(t.Context(), bearer(second.Access))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := receive(); err != nil || text != "hello ada" {
		t.Fatalf("got %q, %v from the stream", text, err)
	}
	endpoints.want(http.StatusNoContent, "", request{"POST", "/auth/logout", "", bearer(second.Access)})
	_, err = receive()
	if client.Code(err) != unauthenticated || client.Action(err) != "login" {
		t.Errorf("the stream must end with the session: %v", err)
	}
	want(client.Hello, bearer(second.Access), unauthenticated, "login")

	// A server whose store is down.
	store := newFaulty()
	c.Store, c.StalePolicy = store, auth.StaleRefuse
	a = authtest.New(t, c)
	client, _ = start(t, a.Authenticator)
	store.fail()
	a.Clock.Advance(2 * time.Minute)
	for _, call := range []func(context.Context, http.Header) (string, error){client.Hello, stream} {
		want(call, bearer(authtest.Tokens(t, a, bob).Access), unavailable, "")
	}
}
