package authtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
)

// SignedIn returns the claims of the access token with which resp, the response to
// a login or a refresh, signs the client in. It reports with t.Fatal if the
// response does not, or if a session of its tokens does not exist.
//
// If Config.Cookies is set, resp must set both token cookies, with the attributes of
// Config.Cookies. Otherwise the body must be that of [auth.Authenticator.WriteTokens];
// it can be read again. The cookies must have a Max-Age, and those of an ephemeral
// session ([auth.SessionOptions].Ephemeral) must not. A refresh in the cooldown sets
// only the access cookie, so SignedIn is not for its response.
func SignedIn(t testing.TB, a *Authenticator, resp *http.Response) *auth.Claims {
	t.Helper()
	claims, err := a.signedIn(resp)
	if err != nil {
		t.Fatalf("authtest.SignedIn: the response with status %d: %v", resp.StatusCode, err)
	}
	return claims
}

func (a *Authenticator) signedIn(resp *http.Response) (*auth.Claims, error) {
	var access, refresh string
	var err error
	if a.access.Name == "" {
		access, refresh, err = tokensOfBody(resp)
	} else {
		access, err = cookieValue(resp, a.access)
		var refreshErr error
		refresh, refreshErr = cookieValue(resp, a.refresh)
		err = errors.Join(err, refreshErr)
	}
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	claims, err := a.Verify(ctx, access)
	if err != nil {
		return nil, fmt.Errorf("its access token is refused: %w", err)
	}
	if a.access.Name != "" {
		if err := a.checkMaxAge(resp, claims); err != nil {
			return nil, err
		}
	}
	sessions, err := a.Sessions(ctx, claims.Subject)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(sessions, func(s auth.Session) bool { return s.ID == claims.SessionID })
	if i < 0 {
		return nil, fmt.Errorf("the session %s of its access token does not exist", claims.SessionID)
	}
	return claims, checkRefreshToken(refresh, sessions[i])
}

// tokensOfBody returns the tokens in the body of a response.
func tokensOfBody(resp *http.Response) (access, refresh string, err error) {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", "", fmt.Errorf("reading its body: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	var body struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	_ = json.Unmarshal(text, &body) // an error leaves the fields empty
	if body.Access == "" || body.Refresh == "" {
		return "", "", errors.New("its body is not a JSON object with access_token and refresh_token")
	}
	return body.Access, body.Refresh, nil
}

// cookieValue returns the value of the cookie that a response sets as want
// describes it.
func cookieValue(resp *http.Response, want http.Cookie) (string, error) {
	found, err := findCookie(resp, want)
	switch {
	case err != nil:
		return "", err
	case found.MaxAge < 0 || found.Value == "":
		return "", fmt.Errorf("it clears the cookie %s", want.Name)
	}
	return found.Value, nil
}

// checkMaxAge returns an error if a token cookie ends with the browser and its session
// is not ephemeral, or the reverse.
func (a *Authenticator) checkMaxAge(resp *http.Response, claims *auth.Claims) error {
	var session struct {
		Ephemeral bool `json:"eph"`
	}
	if err := claims.Decode(&session); err != nil {
		return err
	}
	for _, c := range resp.Cookies() {
		switch {
		case c.Name != a.access.Name && c.Name != a.refresh.Name:
		case c.MaxAge == 0 && !session.Ephemeral:
			return fmt.Errorf("it sets the cookie %s without Max-Age, so the cookie ends with the browser", c.Name)
		case c.MaxAge != 0 && session.Ephemeral:
			return fmt.Errorf("it sets the cookie %s with the Max-Age %d, so the cookie does not end with the browser, although the session is ephemeral", c.Name, c.MaxAge)
		}
	}
	return nil
}

// findCookie returns the cookie with the name of want that a response sets. It
// must set it once, with the attributes of want.
func findCookie(resp *http.Response, want http.Cookie) (*http.Cookie, error) {
	found := slices.DeleteFunc(resp.Cookies(), func(c *http.Cookie) bool { return c.Name != want.Name })
	if len(found) != 1 {
		return nil, fmt.Errorf("it sets the cookie %s %d times, want once", want.Name, len(found))
	}
	if got, want := attributes(*found[0]), attributes(want); got != want {
		return nil, fmt.Errorf("it sets the cookie %s, want %s", got, want)
	}
	return found[0], nil
}

// attributes returns a cookie as in a Set-Cookie header, without its value and
// its lifetime.
func attributes(c http.Cookie) string {
	return (&http.Cookie{
		Name: c.Name, Path: c.Path, Domain: c.Domain, Secure: c.Secure, HttpOnly: c.HttpOnly, SameSite: c.SameSite, Partitioned: c.Partitioned,
	}).String()
}

// checkRefreshToken returns an error unless a token is the current refresh token
// of s. It does not verify the signature: a refresh would, but it would also spend
// the token.
func checkRefreshToken(token string, s auth.Session) error {
	var claims struct {
		Subject    string `json:"sub"`
		SessionID  string `json:"sid"`
		Generation int64  `json:"gen"`
	}
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Generation == 0 {
		return errors.New("its refresh token is not a refresh token")
	}
	if claims.SessionID != s.ID {
		return fmt.Errorf("its refresh token is of the session %s of the user %q, and its access token of the session %s of the user %q",
			claims.SessionID, claims.Subject, s.ID, s.Subject)
	}
	if claims.Generation != s.Generation {
		return fmt.Errorf("its refresh token has the generation %d, and its session the generation %d", claims.Generation, s.Generation)
	}
	return nil
}

// SignedOut reports an error to t unless resp clears both token cookies. Config.Cookies
// must be set. [HasSessions] tests that the session has ended.
func SignedOut(t testing.TB, a *Authenticator, resp *http.Response) {
	t.Helper()
	a.requireCookies(t, "SignedOut")
	for _, want := range []http.Cookie{a.access, a.refresh} {
		c, err := findCookie(resp, want)
		if err == nil && (c.MaxAge >= 0 || c.Value != "") {
			err = fmt.Errorf("it sets the cookie %s to a value of %d bytes with the Max-Age %d, want no value and a negative Max-Age", want.Name, len(c.Value), c.MaxAge)
		}
		if err != nil {
			t.Errorf("authtest.SignedOut: the response with status %d: %v", resp.StatusCode, err)
		}
	}
}

// CookiesUnchanged reports an error to t if resp sets or clears a token cookie.
// An outage, for example, must not sign the user out. Config.Cookies must be set.
func CookiesUnchanged(t testing.TB, a *Authenticator, resp *http.Response) {
	t.Helper()
	a.requireCookies(t, "CookiesUnchanged")
	for _, c := range resp.Cookies() {
		if c.Name == a.access.Name || c.Name == a.refresh.Name {
			t.Errorf("authtest.CookiesUnchanged: the response with status %d sets the cookie %s to a value of %d bytes with the Max-Age %d, want no such cookie",
				resp.StatusCode, c.Name, len(c.Value), c.MaxAge)
		}
	}
}

// requireCookies ends the test if there are no cookies. The assertion would not
// test anything.
func (a *Authenticator) requireCookies(t testing.TB, name string) {
	t.Helper()
	if a.access.Name == "" {
		t.Fatalf("authtest.%s: Config.Cookies is nil, so no response sets or clears cookies", name)
	}
}

// HasSessions reports an error to t unless the user has the sessions with these
// IDs and no others. Without ids, the user must have no session. The IDs are in
// [auth.Tokens] and [auth.Claims].
func HasSessions(t testing.TB, a *Authenticator, userID string, ids ...string) {
	t.Helper()
	sessions, err := a.Sessions(context.Background(), userID)
	if err != nil {
		t.Errorf("authtest.HasSessions: %v", err)
		return
	}
	var found []string
	for _, s := range sessions {
		found = append(found, s.ID)
	}
	want := slices.Clone(ids)
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("authtest.HasSessions: the user %q has %d sessions %q, want %d %q", userID, len(found), found, len(want), want)
	}
}
