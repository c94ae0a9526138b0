package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// cookieConfig configures the API with cookies.
type cookieConfig struct {
	shared
	secret []byte // the keys for both kinds of token are derived from it
	origin string // origin of the page, which is on another site
}

// newCookieAPI returns the API of the tutorial that uses cookies:
//
//	POST /api/v1/auth/login      login_id (e-mail or user name), password → {"message"} and cookies;
//	                             with "delivery": "body", {"message","accessToken","refreshToken"}
//	POST /api/v1/auth/refresh    cookie refreshToken or header refresh-token; 400 if missing, 403 if invalid
//	POST /api/v1/auth/logout     204; the original had no logout
//	GET  /api/v1/user/me         {"id","name","role"}
//	GET  /api/v1/user/sessions   and DELETE …/{id}, the library's SessionsHandler
//
// A refresh sets both cookies. During the cooldown, 30 seconds after a rotation,
// it sets only the access cookie: the refresh token stays the same, so a late
// response cannot overwrite a newer refresh cookie.
func newCookieAPI(c cookieConfig) (http.Handler, error) {
	a, err := auth.New(auth.Config{
		Issuer:   "https://cookies.example.com",
		Audience: []string{"https://cookies.example.com/api"},
		Secrets:  [][]byte{c.secret},
		Users:    c.users,
		Hasher:   c.hasher,

		// In the original an access token lived for one day. A stolen token, or
		// an old role, would work for that long.
		AccessTTL: 15 * time.Minute,
		// A refresh token lives for 7 days, and a refresh returns a new one. The
		// session ends after SessionTTL, by default 30 days.
		IdleTTL:     7 * 24 * time.Hour,
		MaxSessions: maxSessions,

		Cookies: &auth.Cookies{
			AccessName:     "accessToken",
			RefreshName:    "refreshToken",
			InsecureNames:  true,                  // no __Host- prefix, as in the original: other hosts of the site can set them
			SameSite:       http.SameSiteNoneMode, // the page is on another site
			TrustedOrigins: []string{c.origin},
		},
		OnError: cookieError,
		OnEvent: auth.LogEvents(c.log),
		Now:     c.now,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/auth/login", cookieLogin(a))
	mux.Handle("POST /api/v1/auth/refresh", cookieRefresh(a))
	mux.Handle("POST /api/v1/auth/logout", a.LogoutHandler())
	mux.Handle("GET /api/v1/user/me", a.Require()(http.HandlerFunc(cookieMe)))
	mux.Handle("/api/v1/user/sessions", a.SessionsHandler())
	mux.Handle("/api/v1/user/sessions/{id}", a.SessionsHandler())
	// Preflight requests have no credentials, so CORS is handled before Require.
	return allowOrigin(c.origin, mux), nil
}

// cookieResponse is the body of every response of the original.
type cookieResponse struct {
	Message      string `json:"message"`
	AccessToken  string `json:"accessToken,omitempty"`
	RefreshToken string `json:"refreshToken,omitempty"`
}

func cookieLogin(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// This handler sets cookies but reads none, so it must check the origin
		// of the request itself.
		if err := a.CheckOrigin(r); err != nil {
			a.WriteError(w, r, err)
			return
		}
		fields, err := auth.ReadFields(r, "login_id", "password", "delivery")
		if err != nil {
			status := auth.ResponseFor(err).Status
			writeJSON(w, status, cookieResponse{Message: http.StatusText(status)})
			return
		}
		login, pass, delivery := fields["login_id"], fields["password"], fields["delivery"]
		if login == "" || pass == "" || delivery != "" && delivery != "cookie" && delivery != "body" {
			writeJSON(w, http.StatusBadRequest, cookieResponse{Message: "login_id and password are required."})
			return
		}
		in := auth.SessionOptions{Device: a.Device(r), InBody: delivery == "body"}
		if !in.InBody {
			in.Replaces = a.CookieTokens(r) // the response overwrites these cookies
		}
		t, err := a.Login(r.Context(), login, pass, in)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		writeTokens(a, w, t, delivery != "body", "Logged in.")
	})
}

func cookieRefresh(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, byCookie, err := a.RefreshToken(r)
		var t auth.Tokens
		if err == nil {
			t, err = a.Refresh(r.Context(), token, auth.RefreshOptions{Device: a.Device(r), InBody: !byCookie})
		}
		switch {
		case err == nil:
			writeTokens(a, w, t, byCookie, "Token refreshed.")
		case errors.Is(err, auth.ErrNoToken):
			writeJSON(w, http.StatusBadRequest, cookieResponse{Message: "No refresh token provided."})
		case badToken(err):
			writeJSON(w, http.StatusForbidden, cookieResponse{Message: "Invalid refresh token."})
		default:
			a.WriteError(w, r, err)
		}
	})
}

// writeTokens sends tokens in cookies, so that scripts of the page cannot read
// them, or in the body.
func writeTokens(a *auth.Authenticator, w http.ResponseWriter, t auth.Tokens, byCookie bool, message string) {
	body := cookieResponse{Message: message}
	if byCookie {
		a.SetCookies(w, t)
	} else {
		body.AccessToken, body.RefreshToken = t.Access, t.Refresh
	}
	writeJSON(w, http.StatusOK, body)
}

func cookieMe(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	me, err := identityOf(claims)
	if err != nil {
		auth.DefaultOnError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, me)
}

// cookieError writes the error responses that the original defines. The library
// writes the others.
func cookieError(w http.ResponseWriter, r *http.Request, err error) {
	refuse := func(status int, message string) { writeJSON(w, status, cookieResponse{Message: message}) }
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		auth.DefaultOnError(w, r, err) // 503 with Retry-After, even if err also wraps another error
	case errors.Is(err, auth.ErrCrossOrigin):
		refuse(http.StatusForbidden, "Origin not allowed.")
	case errors.Is(err, auth.ErrInvalidCredentials):
		refuse(http.StatusUnauthorized, "Invalid login or password.") // the same for both, so that it does not reveal which is wrong
	case errors.Is(err, auth.ErrNoToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, "No token provided.")
	case errors.Is(err, auth.ErrTokenExpired):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(http.StatusUnauthorized, "Token expired.") // the client should refresh
	case badToken(err):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(http.StatusUnauthorized, "Invalid token.") // the client should sign in
	default:
		auth.DefaultOnError(w, r, err)
	}
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
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Refresh-Token")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
