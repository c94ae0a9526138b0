// Command fiber serves an API on fiber whose users sign in:
//
//	go run ./fiber
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// routes returns the application. Its middleware must not wrap the endpoints:
// users who are not signed in call them.
func routes(a *auth.Authenticator) *fiber.App {
	app := fiber.New(fiber.Config{ReadTimeout: 10 * time.Second})
	app.Use(recover.New())
	app.All("/auth/*", serve(http.StripPrefix("/auth", a.Handler())))
	app.Get("/", wrap(a.Optional), hello)
	app.Get("/me", wrap(a.Require()), hello)
	app.Get("/events", wrap(a.Require()), events(a))
	app.Post("/admin", wrap(a.Require(auth.Role("admin"))), hello)
	return app
}

// wrap returns m as middleware for fiber. The next handler gets the claims with
// auth.FromContext(c.Context()). With adaptor.HTTPMiddleware it would not.
func wrap(m func(http.Handler) http.Handler) fiber.Handler {
	return func(c fiber.Ctx) error {
		allowed := false
		check := serve(m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			allowed = true
			c.SetContext(r.Context())
		})))
		if err := check(c); err != nil || !allowed {
			return err
		}
		return c.Next()
	}
}

// serve returns h as a handler for fiber. It copies the request, because fasthttp
// overwrites c with the next request. With adaptor.HTTPHandler(h), what h keeps of
// a request would change afterward.
func serve(h http.Handler) fiber.Handler {
	return func(c fiber.Ctx) error {
		in, conn := c.Request(), c.RequestCtx()
		uri := string(in.RequestURI())
		target, err := url.ParseRequestURI(uri)
		if err != nil {
			return fiber.ErrBadRequest
		}
		r := &http.Request{
			Method: string(in.Header.Method()), RequestURI: uri, URL: target, Host: string(in.Host()),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
			Body: io.NopCloser(bytes.NewReader(in.Body())), ContentLength: int64(len(in.Body())),
			RemoteAddr: conn.RemoteAddr().String(), TLS: conn.TLSConnectionState(),
		}
		for name, value := range in.Header.All() {
			r.Header.Add(string(name), string(value))
		}
		r = r.WithContext(context.WithValue(c.Context(), http.LocalAddrContextKey, conn.LocalAddr()))
		return adaptor.HTTPHandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.ServeHTTP(w, r) })(c)
	}
}

func hello(c fiber.Ctx) error {
	name := "stranger"
	if claims, ok := auth.FromContext(c.Context()); ok {
		name = claims.Username
	}
	return c.SendString("hello " + name + "\n")
}

// events streams until the session ends or the client disconnects.
func events(a *auth.Authenticator) fiber.Handler {
	return func(c fiber.Ctx) error {
		claims, _ := auth.FromContext(c.Context())
		c.Set("Content-Type", "text/event-stream")
		return c.SendStreamWriter(func(w *bufio.Writer) { // must not use c
			ctx, cancel := a.SessionContext(context.Background(), claims)
			defer cancel()
			fmt.Fprintf(w, "data: hello %s\n\n", claims.Username)
			for w.Flush() == nil {
				select {
				case <-ctx.Done():
					fmt.Fprintf(w, "event: end\ndata: %s\n\n", auth.ResponseFor(context.Cause(ctx)).Action) // "login" or "refresh"; "" means: connect again
					return
				case <-time.After(15 * time.Second): // only a write finds that the client has disconnected
					fmt.Fprint(w, ":\n\n")
				}
			}
		})
	}
}

// users is your own lookup. This one has a single user.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func config() auth.Config {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	return auth.Config{
		Issuer: "http://localhost:8080", Audience: []string{"http://localhost:8080"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())}, // read it from your configuration
		Users:   users{auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
		Cookies: &auth.Cookies{AllowBody: true, InsecureHTTP: true}, // InsecureHTTP is for development without TLS
		OnEvent: auth.LogEvents(slog.Default()),
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	flag.Parse()
	a, err := auth.New(config())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(routes(a).Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}))
}
