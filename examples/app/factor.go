// This file has the second factor: codes of an authenticator app, and recovery codes.

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/ratchet-go/auth"
)

var errCode = fmt.Errorf("%w: %w", auth.ErrInvalidCredentials, invalid("the code is wrong, or was used before"))

// Methods and Verify implement auth.SecondFactor.
func (s *site) Methods(ctx context.Context, u auth.User, _ auth.Device) ([]string, error) {
	a, err := s.users.find(ctx, "id", u.ID)
	if a.On {
		return []string{"otp", "recovery"}, err
	} else if a.Required {
		return []string{"enroll"}, err
	}
	return nil, err
}

func (s *site) Verify(ctx context.Context, u auth.User, method, response string) error {
	if method == "recovery" { // the statement finds the code and removes it
		return s.users.exec(ctx, errCode, "UPDATE users SET recovery = replace(recovery, $2, '') WHERE id = $1 AND recovery LIKE '%' || $2 || '%'",
			u.ID, recoveryHash(response))
	}
	a, err := s.users.find(ctx, "id", u.ID)
	key, failed := otp.NewKeyFromURL(a.TOTP)
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	now := time.Now().Unix() / 30
	for step := now - 1; step <= now+1; step++ { // the clock of a phone may be wrong
		if a.TOTP == "" || !hotp.Validate(response, uint64(step), key.Secret()) {
			continue
		}
		err := s.auth.Once(ctx, u.ID, fmt.Sprint("totp ", step), 3*time.Minute) // each code is accepted once
		if method == "enroll" && err == nil {                                   // turns the second factor on, unless the key has been replaced
			err = s.users.exec(ctx, errCode, "UPDATE users SET totp_on = TRUE WHERE id = $1 AND totp = $2 AND NOT totp_on", u.ID, a.TOTP)
		}
		return err
	}
	return errCode
}

// NewKey returns a key for the authenticator app of a user, and its QR code: a new one, unless
// the client has sent the stored one. So nobody else knows the key that the user confirms.
func (v view) NewKey(id string) (map[string]any, error) {
	a, err := v.Account(id)
	key, failed := otp.NewKeyFromURL(a.TOTP)
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if shown := v.Request.PostFormValue("secret"); shown == "" || shown != key.Secret() {
		key, err = totp.Generate(totp.GenerateOpts{Issuer: "Example", AccountName: a.Username})
		if err == nil {
			err = v.users.exec(v.Request.Context(), invalid("the second factor is on"), "UPDATE users SET totp = $2 WHERE id = $1 AND NOT totp_on", id, key.URL())
		}
		if err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	image, _ := key.Image(200, 200) // fails only for a URL that is too long
	err = png.Encode(&b, image)
	return map[string]any{"Secret": key.Secret(), "Image": template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes()))}, err
}

func (s *site) changeFactor(_ http.ResponseWriter, v *view) (_ string, err error) {
	ctx, id, do := v.Request.Context(), v.Claims.Subject, v.Request.PostFormValue("do")
	if do == "remove" {
		return "/factor", s.users.exec(ctx, invalid("an administrator requires a second factor of you"),
			"UPDATE users SET totp = '', totp_on = FALSE, recovery = '' WHERE id = $1 AND NOT totp_required", id)
	}
	if do == "enroll" {
		err = s.Verify(ctx, auth.User{ID: id}, do, v.Request.PostFormValue("response"))
	}
	if err == nil {
		v.Codes, err = s.newCodes(ctx, id)
	}
	return "/factor", err
}

// newCodes replaces the recovery codes of a user. Only their hashes are stored.
func (s *site) newCodes(ctx context.Context, id string) (codes []string, err error) {
	var hashes string
	for range 10 {
		t := rand.Text()
		codes = append(codes, t[:4]+"-"+t[4:8]+"-"+t[8:12]+"-"+t[12:16])
		hashes += recoveryHash(t[:16])
	}
	return codes, s.users.exec(ctx, invalid("the second factor is off"), "UPDATE users SET recovery = $2 WHERE id = $1 AND totp_on", id, hashes)
}

func recoveryHash(code string) string {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	return fmt.Sprintf("%x ", sha256.Sum256([]byte(code)))
}
