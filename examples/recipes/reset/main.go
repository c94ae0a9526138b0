// Command reset lets users who have forgotten their password set another one, by a link
// in a mail. The mails go to a folder:
//
//	go run ./examples/recipes/reset -mail ./mail
//
// The user is ada@example.com with the password "correct horse battery staple". The
// file reset.go has the link, users.go the users, and page.html the pages.
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
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// config returns the configuration of package auth.
func config(us *users) auth.Config {
	return auth.Config{
		// With TLS: "https://app.example.com", and &auth.Cookies{}.
		Issuer: "http://reset.localhost", Audience: []string{"http://reset.localhost"},
		Cookies: &auth.Cookies{InsecureHTTP: true}, AutoRefresh: true,
		// Sessions are in memory, so a secret that also ends with the process
		// suffices. A link ends with it too.
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Users:   us, // also an auth.PasswordUpdater
		Hasher:  &password.Hasher{Screen: screen},
		OnEvent: auth.LogEvents(slog.Default()),
		OnError: showError,
	}
}

// screen refuses short passwords. The recipe screen asks a list of leaked ones too.
func screen(_ context.Context, pass string) error {
	if utf8.RuneCountInString(pass) < 15 {
		return password.ErrRefused
	}
	return nil
}

// outbox is a folder for mails. Yours sends them.
type outbox string

func (o outbox) send(to, link string) error {
	mail := fmt.Sprintf("To: %s\r\nSubject: Your password\r\n\r\nSet a new password here, within 30 minutes:\r\n\r\n%s\r\n\r\nIf you did not ask for this, do nothing.\r\n", to, link)
	name := time.Now().UTC().Format("20060102-150405.000000000-") + rand.Text()
	temporary := filepath.Join(string(o), name+".tmp")
	if err := os.WriteFile(temporary, []byte(mail), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(string(o), name+".eml"))
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on; a loopback address, because there is no TLS")
	mail := flag.String("mail", "mail", "`folder` for mails")
	interval := flag.Duration("interval", time.Minute, "a user gets at most one mail in this `time`")
	flag.Parse()
	if err := run(*addr, outbox(*mail), *interval); err != nil {
		log.Fatal("reset: ", err)
	}
}

func run(addr string, mail outbox, interval time.Duration) error {
	if interval <= 0 {
		return fmt.Errorf("-interval (%s) must be positive", interval)
	}
	if err := os.MkdirAll(string(mail), 0o700); err != nil {
		return err
	}
	us, err := newUsers()
	if err != nil {
		return err
	}
	a, err := auth.New(config(us))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	// The URL in mails is configured, never that of the request: whoever sends a
	// request chooses its Host, and would get the link.
	s := newSite(a, us, mail.send, "http://"+listener.Addr().String(), interval)
	go s.answer(context.Background())
	fmt.Printf("listening on %s\n", s.url)
	server := &http.Server{Handler: s.routes(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	return server.Serve(listener)
}
