// Command api is a JSON API with sign-up and password change, on a users table of its
// own. Clients get their tokens in bodies, and send the access token as a bearer token.
//
//	AUTH_SECRET=$(openssl rand -base64 48) go run ./examples/recipes/api
//	curl http://127.0.0.1:8080/signup --json '{"login":"ada","password":"correct horse battery staple"}'
//	sqlite3 api.db "UPDATE users SET role = 'admin' WHERE login = 'ada'" # the first administrator
//
// The file api.go has the routes, and users.go the users table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/sqlitestore"
)

// config returns the configuration of package auth. Because it has no Cookies, the
// browser adds no tokens to requests of other sites, so no handler calls CheckOrigin.
func config(u users, sessions auth.Store) auth.Config {
	return auth.Config{
		Issuer: "https://api.example.com", Audience: []string{"https://api.example.com"}, // your URL
		Secrets: [][]byte{[]byte(os.Getenv("AUTH_SECRET"))}, // who has it can sign in as any user
		Users:   u, Hasher: u.hasher,                        // the same Hasher, so that one budget bounds all hashing
		Store: sessions, OnEvent: auth.LogEvents(slog.Default()),
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, unless a proxy ends TLS")
	file := flag.String("db", "api.db", "SQLite `file` of the users; the sessions are in FILE.sessions")
	flag.Parse()
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	u, err := openUsers(ctx, *file)
	check(err)
	sessions, err := sqlitestore.Open(*file+".sessions", sqlitestore.Config{})
	check(err)
	a, err := auth.New(config(u, sessions))
	check(err)
	go func() { _ = a.Run(context.Background()) }() // reads the revocations that exist, and follows them
	listener, err := net.Listen("tcp", *addr)
	check(err)
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: routes(a, u), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() { stopped <- server.Shutdown(context.Background()) }) // waits for open requests
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		check(err)
	}
	check(errors.Join(<-stopped, sessions.Close(), u.db.Close()))
}

func check(err error) {
	if err != nil {
		log.Fatal("api: ", err)
	}
}
