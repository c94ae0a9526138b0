package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// firstConfig is what the first tutorial needs.
type firstConfig struct {
	shared
	secret []byte // both keys are derived from it
	origin string // of the page, which is on another site
}

// first serves the first tutorial:
//
//	POST /api/v1/auth/login      login_id (e-mail or user name), password → {"message"} and cookies;
//	                             with "delivery": "body", {"message","accessToken","refreshToken"}
//	POST /api/v1/auth/refresh    cookie refreshToken or header refresh-token; 400 without, 403 if it is bad
//	POST /api/v1/auth/logout     204; the article had none
//	GET  /api/v1/user/me         {"id","name","role"}
//	GET  /api/v1/user/sessions   and DELETE …/{id}, as the library has them
//
// A refresh sets the access cookie, and the cookie of the refresh token that
// comes next. Within half a minute of the last one the session rests: the
// refresh token stays the same, and its cookie is left alone, so that a late
// answer cannot put back an older one.
func first(c firstConfig) (http.Handler, error) {
	a, err := auth.New(auth.Config{
		Issuer:   "https://first.example.com",
		Audience: []string{"https://first.example.com/api"},
		Secrets:  [][]byte{c.secret},
		Users:    c.users,
		Hasher:   c.hasher,

		// The article's access token lived for one day, which is how long a
		// stolen one works, and an old role. The contract says 15 minutes.
		AccessTTL: 15 * time.Minute,
		// A refresh token lives 7 days. Each refresh brings a new one, but no
		// login lasts for longer than SessionTTL, which is left at 30 days.
		IdleTTL:     7 * 24 * time.Hour,
		MaxSessions: maxSessions,

		Cookies: &auth.Cookies{
			AccessName:     "accessToken",
			RefreshName:    "refreshToken",
			InsecureNames:  true,                  // the article's names; any host of the site can set such cookies
			SameSite:       http.SameSiteNoneMode, // the page is on another site
			TrustedOrigins: []string{c.origin},
		},
		OnError: firstError,
		OnEvent: auth.LogEvents(c.log),
		Now:     c.now,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/auth/login", firstLogin(a))
	mux.Handle("POST /api/v1/auth/refresh", firstRefresh(a))
	mux.Handle("POST /api/v1/auth/logout", a.LogoutHandler())
	mux.Handle("GET /api/v1/user/me", a.Require()(http.HandlerFunc(firstMe)))
	mux.Handle("/api/v1/user/sessions", a.SessionsHandler())
	mux.Handle("/api/v1/user/sessions/{id}", a.SessionsHandler())
	// CORS answers preflights, which carry no credentials, so it goes around
	// Require.
	return allowOrigin(c.origin, mux), nil
}

// firstAnswer is the body of every answer of the article.
type firstAnswer struct {
	Message      string `json:"message"`
	AccessToken  string `json:"accessToken,omitempty"`
	RefreshToken string `json:"refreshToken,omitempty"`
}

func firstLogin(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// This handler sets cookies without reading one, so nobody else checks
		// where the request comes from.
		if err := a.CheckOrigin(r); err != nil {
			a.WriteError(w, r, err)
			return
		}
		fields, err := auth.ReadFields(r, "login_id", "password", "delivery")
		if err != nil {
			status := auth.ResponseFor(err).Status
			writeJSON(w, status, firstAnswer{Message: http.StatusText(status)})
			return
		}
		login, pass, delivery := fields["login_id"], fields["password"], fields["delivery"]
		if login == "" || pass == "" || delivery != "" && delivery != "cookie" && delivery != "body" {
			writeJSON(w, http.StatusBadRequest, firstAnswer{Message: "login_id and password are required."})
			return
		}
		in := auth.SessionOptions{Device: a.Device(r), InBody: delivery == "body"}
		if !in.InBody {
			in.Replaces = a.CookieTokens(r) // the cookies are about to be overwritten
		}
		t, err := a.Login(r.Context(), login, pass, in)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		firstTokens(a, w, t, delivery != "body", "Logged in.")
	})
}

func firstRefresh(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, byCookie, err := a.RefreshToken(r)
		var t auth.Tokens
		if err == nil {
			t, err = a.Refresh(r.Context(), token, auth.RefreshOptions{Device: a.Device(r), InBody: !byCookie})
		}
		switch {
		case err == nil:
			firstTokens(a, w, t, byCookie, "Token refreshed.")
		case errors.Is(err, auth.ErrNoToken):
			writeJSON(w, http.StatusBadRequest, firstAnswer{Message: "No refresh token provided."})
		case badToken(err):
			writeJSON(w, http.StatusForbidden, firstAnswer{Message: "Invalid refresh token."})
		default:
			a.WriteError(w, r, err)
		}
	})
}

// firstTokens sends tokens by the door that the client uses: a page never sees
// them, a client that asks for the body gets no cookies.
func firstTokens(a *auth.Authenticator, w http.ResponseWriter, t auth.Tokens, byCookie bool, message string) {
	answer := firstAnswer{Message: message}
	if byCookie {
		a.SetCookies(w, t)
	} else {
		answer.AccessToken, answer.RefreshToken = t.Access, t.Refresh
	}
	writeJSON(w, http.StatusOK, answer)
}

func firstMe(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	me, err := personOf(claims)
	if err != nil {
		auth.DefaultOnError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, me)
}

// firstError writes the answers that the article has a body for, and leaves
// the others to the library.
func firstError(w http.ResponseWriter, r *http.Request, err error) {
	refuse := func(status int, message string) { writeJSON(w, status, firstAnswer{Message: message}) }
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		auth.DefaultOnError(w, r, err) // 503 with Retry-After, whatever else it wraps
	case errors.Is(err, auth.ErrCrossOrigin):
		refuse(http.StatusForbidden, "Origin not allowed.")
	case errors.Is(err, auth.ErrInvalidCredentials):
		refuse(http.StatusUnauthorized, "Invalid login or password.") // whichever it is
	case errors.Is(err, auth.ErrNoToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, "No token provided.")
	case errors.Is(err, auth.ErrTokenExpired):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(http.StatusUnauthorized, "Token expired.") // the client refreshes
	case badToken(err):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(http.StatusUnauthorized, "Invalid token.") // the client signs in
	default:
		auth.DefaultOnError(w, r, err)
	}
}

// allowOrigin lets the pages of one origin read answers, with cookies.
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
