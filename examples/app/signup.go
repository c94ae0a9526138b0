// This file has the sign-up, and the verification of an address and the reset of a password by mail.

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"path/filepath"
	"time"

	"github.com/ratchet-go/auth"
)

// signUp creates a user. The first one becomes the owner.
func (s *site) signUp(w http.ResponseWriter, v *view) (string, error) {
	ctx, id := v.Request.Context(), rand.Text()
	f, err := auth.ReadFields(v.Request, "login", "address", "password")
	login, email := normal(f["login"]), f["address"]
	switch parsed, wrong := mail.ParseAddress(email); {
	case err != nil:
		return "", err
	case !goodLogin.MatchString(login):
		return "", invalid("a user name has 2 to 30 letters (a to z), digits, dots, hyphens or underscores, and begins with a letter or a digit")
	case wrong != nil || parsed.Address != email || len(email) > 200:
		return "", invalid("this is not an e-mail address")
	}
	hash, err := s.auth.HashPassword(ctx, f["password"], s.auth.Device(v.Request))
	if err != nil {
		return "", err
	}
	for range 2 { // the second try is for two first users at once: only one of them can be the owner
		if err = s.users.exec(ctx, invalid("this user name is taken"), `INSERT INTO users (id, login, email, password_hash, owner)
			VALUES ($1, $2, $3, $4, (SELECT TRUE WHERE NOT EXISTS (SELECT 1 FROM users))) ON CONFLICT DO NOTHING`, id, login, email, hash); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	to, err := s.login(w, v)
	return to, errors.Join(err, s.sendLink(ctx, "Verify your address", auth.OneTime{Purpose: "verify", Subject: id, TTL: 24 * time.Hour})) // the page Profile can send it again
}

// sendLink writes a mail to the user o.Subject with a link to a file. In production, pass it to your mail
// service instead, and do not wait for that: a slow response would tell who has an account.
func (s *site) sendLink(ctx context.Context, title string, o auth.OneTime) error {
	to, err := s.users.find(ctx, "id", o.Subject)
	o.Data = []byte(to.Email)
	token, failed := s.auth.IssueOneTime(ctx, o)
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	text := fmt.Sprintf("To: %s\nSubject: %s\n\nHello %s,\n\nopen this page:\n\n%s/%s?token=%s\n\nIf you did not ask for it, do nothing.\n",
		to.Email, title, to.Username, s.url, o.Purpose, token)
	return create(filepath.Join(s.mails, time.Now().UTC().Format("20060102-150405.000-")+rand.Text()[:4]+".txt"), text)
}

// verify spends the token of a link, or sends a link to the user who is signed in.
func (s *site) verify(_ http.ResponseWriter, v *view) (string, error) {
	ctx, token := v.Request.Context(), v.Request.PostFormValue("token")
	if token == "" && v.Claims != nil {
		return "/profile?sent", s.sendLink(ctx, "Verify your address", auth.OneTime{Purpose: "verify", Subject: v.Claims.Subject, TTL: 24 * time.Hour})
	}
	o, err := s.auth.SpendOneTime(ctx, "verify", token, s.auth.Device(v.Request))
	if err == nil {
		err = s.users.exec(ctx, invalid("your address has changed"), "UPDATE users SET verified = TRUE WHERE id = $1 AND email = $2", o.Subject, string(o.Data))
	}
	return "/?verified", err
}

// forgot sends a link, if the address of the user is verified. Its response does not tell who has an account.
func (s *site) forgot(_ http.ResponseWriter, v *view) (string, error) {
	a, err := s.users.find(v.Request.Context(), "login", normal(v.Request.PostFormValue("login")))
	if err == nil && a.Verified && !a.Disabled {
		err = s.sendLink(v.Request.Context(), "Set a new password", auth.OneTime{Purpose: "reset", Subject: a.ID, TTL: 30 * time.Minute, BoundToPassword: true})
	} else if errors.Is(err, auth.ErrUserNotFound) {
		err = nil
	}
	return "/forgot?sent", err
}

// reset sets a new password, which ends the link. A password that is refused leaves the link good.
func (s *site) reset(_ http.ResponseWriter, v *view) (string, error) {
	ctx := v.Request.Context()
	o, err := s.auth.CheckOneTime(ctx, "reset", v.Request.PostFormValue("token"))
	if err == nil {
		err = s.auth.SetPassword(ctx, o.Subject, v.Request.PostFormValue("password"), s.auth.Device(v.Request))
	}
	return "/login?reset", err
}
