// This file plays the contract of the article that keeps both tokens in cookies.

package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// newCookieAPI returns the API with cookies:
//
//	POST /api/v1/auth/login      login_id (e-mail or user name), password
//	POST /api/v1/auth/refresh    cookie refreshToken or header refresh-token
//	POST /api/v1/auth/logout     the library's LogoutHandler; the article has no logout
//	GET  /api/v1/user/me         the user's claims
//	GET  /api/v1/user/sessions   and DELETE …/{id}, the library's SessionsHandler
func newCookieAPI(o options) (http.Handler, error) {
	a, err := auth.New(auth.Config{
		Issuer:      "https://cookies.example.com",
		Audience:    []string{"https://cookies.example.com/api"},
		AccessKeys:  o.accessKeys,
		RefreshKeys: o.refreshKeys,
		Users:       lookup{o.users, cookieUser},
		Hasher:      o.hasher,

		AccessTTL:  15 * time.Minute,
		IdleTTL:    7 * 24 * time.Hour,
		SessionTTL: 7 * 24 * time.Hour, // a refresh token of the article cannot be extended

		Cookies: &auth.Cookies{
			AccessName:     "accessToken",
			RefreshName:    "refreshToken",
			InsecureNames:  true, // a concession: other hosts of the site can set cookies without the prefix __Host-
			SameSite:       http.SameSiteNoneMode,
			TrustedOrigins: []string{o.origin},
		},
		OnError: cookieError,
		OnEvent: auth.LogEvents(o.log),
		Now:     o.now,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/auth/login", func(w http.ResponseWriter, r *http.Request) { cookieLogin(a, w, r) })
	mux.HandleFunc("POST /api/v1/auth/refresh", func(w http.ResponseWriter, r *http.Request) { cookieRefresh(a, w, r) })
	mux.Handle("POST /api/v1/auth/logout", a.LogoutHandler())
	mux.Handle("GET /api/v1/user/me", a.Require()(http.HandlerFunc(cookieMe)))
	mux.Handle("/api/v1/user/sessions", a.SessionsHandler())
	mux.Handle("/api/v1/user/sessions/{id}", a.SessionsHandler())
	// Preflight requests have no credentials, so CORS is handled before Require.
	return allowOrigin(o.origin, mux), nil
}

// cookieClaims are the claims of the article.
type cookieClaims struct {
	UserID   string `json:"userId"`
	Username string `json:"username"`
	Role     string `json:"user_role"`
}

// cookieUser returns the user of an account. It is called for every refresh, so
// the role in a token is current.
func cookieUser(a account) auth.User {
	return auth.User{
		ID: a.id, Username: a.name, PasswordHash: a.hash, // Username becomes the claim username
		Extra: map[string]any{"userId": a.id, "user_role": a.role},
	}
}

func cookieMe(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	var own cookieClaims
	if err := claims.Decode(&own); err != nil {
		cookieError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, own)
}

func cookieLogin(a *auth.Authenticator, w http.ResponseWriter, r *http.Request) {
	f, err := auth.ReadFields(r, "login_id", "password", "delivery")
	o := auth.SessionOptions{Device: a.Device(r), InBody: f["delivery"] == "body"}
	if err == nil && !o.InBody {
		// Login sets cookies but reads none, so the origin must be checked here.
		err = a.CheckOrigin(r)
		o.Replaces = a.CookieTokens(r) // the response overwrites these cookies
	}
	var t auth.Tokens
	if err == nil {
		t, err = a.Login(r.Context(), f["login_id"], f["password"], o)
	}
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	writeTokens(a, w, t, o.InBody, "Login successful")
}

func cookieRefresh(a *auth.Authenticator, w http.ResponseWriter, r *http.Request) {
	f, _ := auth.ReadFields(r, "delivery") // RefreshRequest returns the error of a malformed body
	token, o, err := a.RefreshRequest(r)
	// A script must not be able to read the tokens that a cookie hides from it.
	o.InBody = o.InBody && f["delivery"] == "body"
	if err == nil && !o.InBody {
		err = a.CheckOrigin(r) // the response sets cookies even if the token came in the header
	}
	var t auth.Tokens
	if err == nil {
		t, err = a.Refresh(r.Context(), token, o)
	}
	switch {
	case err == nil:
		writeTokens(a, w, t, o.InBody, "Access token refreshed successfully")
	case errors.Is(err, auth.ErrNoToken):
		writeJSON(w, http.StatusBadRequest, cookieRefusal{"Refresh token not provided"})
	case auth.ResponseFor(err).Status == http.StatusUnauthorized:
		writeJSON(w, http.StatusForbidden, cookieRefusal{"Invalid refresh token"})
	default:
		a.WriteError(w, r, err)
	}
}

// writeTokens sends tokens in cookies, so that scripts of the page cannot read
// them, or in the body.
func writeTokens(a *auth.Authenticator, w http.ResponseWriter, t auth.Tokens, inBody bool, message string) {
	body := struct {
		Message      string `json:"message"`
		AccessToken  string `json:"accessToken,omitempty"`
		RefreshToken string `json:"refreshToken,omitempty"`
	}{Message: message}
	if inBody {
		body.AccessToken, body.RefreshToken = t.Access, t.Refresh
	} else {
		a.SetCookies(w, t)
	}
	writeJSON(w, http.StatusOK, body)
}

// cookieRefusal is the body of an error response of the article.
type cookieRefusal struct {
	Error string `json:"error"`
}

// cookieError writes err as the article does.
func cookieError(w http.ResponseWriter, _ *http.Request, err error) {
	response := auth.ResponseFor(err)
	response.SetHeaders(w.Header()) // for an outage, Retry-After
	status, text := response.Status, response.Description
	switch {
	case status >= http.StatusInternalServerError:
		status, text = http.StatusInternalServerError, "Internal server error"
	case errors.Is(err, auth.ErrInvalidCredentials):
		text = "Invalid login or password" // the same for an unknown user and a wrong password
	}
	writeJSON(w, status, cookieRefusal{text})
}

// allowOrigin allows pages of one origin to send requests with cookies and to read
// the responses (CORS).
func allowOrigin(origin string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if r.Header.Get("Origin") == origin {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Refresh-Token, Refresh-Key")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
