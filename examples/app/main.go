// Command app is a small application to copy: sign-up, login with a second factor,
// verification and reset by mail, a profile, a list of devices and an administration
// page, rendered by the server. It works without JavaScript.
//
//	go run ./examples/app
//
// This file has the flags, the configuration of package auth and the server.
// README.md describes the other files, and says what to change first.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	name := flag.String("db", "app.db", "SQLite `file`, or a PostgreSQL URL (postgres://…). Beside the file are FILE.sessions and FILE.secret")
	mails := flag.String("mail", "mail", "`folder` for the mails that the program sends")
	url := flag.String("url", "", "public `URL`, such as https://app.example.com; required unless the address is a loopback address")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "app: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the program
	if err := run(ctx, *addr, *name, *mails, *url); err != nil {
		fmt.Fprintf(os.Stderr, "app: %v\n", err)
		os.Exit(1)
	}
}

// config returns the configuration of package auth. url is empty during development.
func config(s *site, db *database, url string) auth.Config {
	cookies := &auth.Cookies{TrustedOrigins: []string{url}} // for a proxy that replaces the Host header
	if url == "" {
		url, cookies = "http://app.localhost", &auth.Cookies{InsecureHTTP: true}
	}
	return auth.Config{
		Issuer: url, Audience: []string{url}, Secrets: [][]byte{db.secret}, Store: db.sessions,
		Users: s.users, Hasher: &password.Hasher{Screen: goodPassword}, SecondFactor: s,
		Cookies: cookies, AutoRefresh: true, OnError: showError, OnEvent: auth.LogEvents(slog.New(slog.NewTextHandler(os.Stderr, nil))),
	}
}

func run(ctx context.Context, addr, name, mails, url string) (err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if url == "" && !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return errors.New("-url is required, because -addr is not a loopback address")
	}
	db, err := open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	s := &site{users: db.users, mails: mails, url: cmp.Or(url, "http://"+listener.Addr().String()), Development: url == ""}
	s.auth, err = auth.New(config(s, db, url))
	if err = errors.Join(err, os.MkdirAll(mails, 0o700)); err != nil {
		return err
	}
	go func() { _ = s.auth.Run(ctx) }() // follows the revocations of other processes
	select {
	case <-s.auth.Ready():
	case <-ctx.Done():
	}
	server := &http.Server{Handler: s.routes(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	fmt.Printf("App on http://%s\nThe first user who signs up becomes an administrator.\n", listener.Addr())
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() { stopped <- server.Shutdown(context.Background()) }) // waits for open requests
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
