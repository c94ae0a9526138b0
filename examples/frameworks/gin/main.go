// Command gin serves an API on gin whose users sign in:
//
//	go run ./gin
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

	"github.com/gin-gonic/gin"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// routes returns the handler of the application. Its middleware must not wrap
// the endpoints: users who are not signed in call them.
func routes(a *auth.Authenticator) http.Handler {
	r := gin.New()
	r.Use(gin.Recovery())
	r.Any("/auth/*path", gin.WrapH(http.StripPrefix("/auth", a.Handler())))
	r.GET("/", wrap(a.Optional), hello)
	signedIn := r.Group("/", wrap(a.Require()))
	signedIn.GET("/me", hello)
	signedIn.GET("/events", events(a))
	r.POST("/admin", wrap(a.Require(auth.Role("admin"))), hello)
	return r
}

// wrap returns m as middleware for gin. gin.WrapH(m(h)) is not the same: gin runs
// the next handler even if m has refused the request.
func wrap(m func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		allowed := false
		m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			allowed = true
			c.Request = r // its context has the claims
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !allowed {
			c.Abort()
		}
	}
}

func hello(c *gin.Context) {
	name := "stranger"
	if claims, ok := auth.FromContext(c.Request.Context()); ok {
		name = claims.Username
	}
	c.String(http.StatusOK, "hello %s\n", name)
}

// events streams until the session ends or the client disconnects.
func events(a *auth.Authenticator) gin.HandlerFunc {
	return func(c *gin.Context) {
		claims, _ := auth.FromContext(c.Request.Context())
		ctx, cancel := a.SessionContext(c.Request.Context(), claims)
		defer cancel()
		c.Header("Content-Type", "text/event-stream")
		fmt.Fprintf(c.Writer, "data: hello %s\n\n", claims.Username)
		c.Writer.Flush()
		<-ctx.Done()
		fmt.Fprintf(c.Writer, "event: end\ndata: %s\n\n", auth.ResponseFor(context.Cause(ctx)).Action) // "login" or "refresh"; "" means: connect again
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
