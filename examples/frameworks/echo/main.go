// Command echo serves an API on echo whose users sign in:
//
//	go run ./echo
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// routes returns the handler of the application. Its middleware must not wrap
// the endpoints: users who are not signed in call them.
func routes(a *auth.Authenticator) http.Handler {
	e := echo.New()
	e.Any("/auth/*", echo.WrapHandler(http.StripPrefix("/auth", a.Handler())))
	e.GET("/", hello, echo.WrapMiddleware(a.Optional))
	signedIn := e.Group("", echo.WrapMiddleware(a.Require()))
	signedIn.GET("/me", hello)
	signedIn.GET("/events", events(a))
	e.POST("/admin", hello, echo.WrapMiddleware(a.Require(auth.Role("admin"))))
	return e
}

func hello(c *echo.Context) error {
	name := "stranger"
	if claims, ok := auth.FromContext(c.Request().Context()); ok {
		name = claims.Username
	}
	return c.String(http.StatusOK, "hello "+name+"\n")
}

// events streams until the session ends or the client disconnects.
func events(a *auth.Authenticator) echo.HandlerFunc {
	return func(c *echo.Context) error {
		claims, _ := auth.FromContext(c.Request().Context())
		ctx, cancel := a.SessionContext(c.Request().Context(), claims)
		defer cancel()
		w := c.Response()
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: hello %s\n\n", claims.Username)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		<-ctx.Done()
		_, err := fmt.Fprintf(w, "event: end\ndata: %s\n\n", auth.ResponseFor(context.Cause(ctx)).Action) // "login" or "refresh"; "" means: connect again
		return err
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
	server := &http.Server{Handler: routes(a), ReadTimeout: 10 * time.Second} // a WriteTimeout would end streams
	log.Fatal(server.Serve(listener))
}
