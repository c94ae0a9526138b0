package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/ratchet-go/auth"
)

const (
	oldCookie   = "token"             // the cookie of the old login
	oldLifetime = 30 * 24 * time.Hour // of its tokens
	bridged     = "old_token"         // the AMR of a session that an exchange has opened
)

// bridge exchanges the tokens of the old login for sessions. Each is accepted once,
// until the last of them has expired. Then delete this file and OLD_SECRET.
type bridge struct {
	*auth.Authenticator
	db       *sql.DB
	secret   []byte    // of the old login
	switched time.Time // when the old login was switched off
}

// start verifies an old token and opens a session for its user.
func (b *bridge) start(ctx context.Context, token string, o auth.SessionOptions) (auth.Tokens, error) {
	refuse := func(why string) (auth.Tokens, error) {
		return auth.Tokens{}, fmt.Errorf("%w: old token: %s", auth.ErrInvalidToken, why)
	}
	var claims jwt.RegisteredClaims
	parsed, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return b.secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	switch {
	case err != nil:
		return refuse(err.Error())
	case time.Now().After(b.switched.Add(oldLifetime)):
		return refuse("the deadline has passed")
	case claims.IssuedAt == nil || claims.IssuedAt.After(b.switched):
		return refuse("it was not issued before the old login was switched off")
	}
	// The token counts once, and only if its user has not changed the password since.
	// A signature can be spelled in several ways, so the key is what it decodes to.
	key := sha256.Sum256(parsed.Signature)
	result, err := b.db.ExecContext(ctx, `INSERT INTO exchanged (token, user_id)
SELECT ?, id FROM users WHERE id = ? AND password_changed_at <= ? ON CONFLICT DO NOTHING`, key[:], claims.Subject, claims.IssuedAt.Unix())
	if err != nil {
		return auth.Tokens{}, fmt.Errorf("%w: %w", auth.ErrUnavailable, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return refuse("it was exchanged before, or its user was deleted or has changed the password")
	}
	o.AMR = []string{bridged}
	tokens, err := b.StartSession(ctx, claims.Subject, o)
	if errors.Is(err, auth.ErrUnavailable) { // let the client try again
		_, undo := b.db.ExecContext(context.WithoutCancel(ctx), `DELETE FROM exchanged WHERE token = ?`, key[:])
		err = errors.Join(err, undo)
	}
	return tokens, err
}

// signIn signs the user in if the request has an old cookie that is valid. It deletes
// the cookie, unless the error is auth.ErrUnavailable and the client can try again.
func (b *bridge) signIn(w http.ResponseWriter, r *http.Request) error {
	cookie, err := r.Cookie(oldCookie)
	if err != nil {
		return err
	}
	tokens, err := b.start(r.Context(), cookie.Value, auth.SessionOptions{Device: b.Device(r), Replaces: b.CookieTokens(r)})
	if errors.Is(err, auth.ErrUnavailable) {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: oldCookie, Path: "/", MaxAge: -1}) // with the Path and the Domain of the old login
	if err != nil {
		slog.Warn("bridge: refused", "error", err)
		return err
	}
	b.SetCookies(w, tokens)
	return nil
}

// exchange serves clients that have an old token, but no cookies.
func (b *bridge) exchange(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	tokens, err := b.start(r.Context(), token, auth.SessionOptions{Device: b.Device(r), InBody: true})
	if err != nil {
		b.WriteError(w, r, err)
		return
	}
	b.WriteTokens(w, tokens, false)
}
